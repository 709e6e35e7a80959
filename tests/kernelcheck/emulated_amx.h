/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file emulated_amx.h  Tile instructions in plain C, in the place of the intrinsics, for a copy of
 * src/kernels/x86/matmul_amx.c that runs where there are none.  Included ahead of its first line.
 *
 * A shape that would fault ends the process.  Source: Intel SDM volume 2, the pseudo-code of
 * LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS and TDPBSUD.
 */
#ifndef QN_KERNELCHECK_EMULATED_AMX_H
#define QN_KERNELCHECK_EMULATED_AMX_H
#include "kernels/kernels.h"

#include <immintrin.h>

#define qn_matmul_amx matmul_amx_on_tiles
qn_matmul_fn matmul_amx_on_tiles;

void kc_tile_config(const void *from);
void kc_tile_release(void);
void kc_tile_zero(int tile);
void kc_tile_load(int tile, const void *from, size_t stride);
void kc_tile_store(int tile, void *to, size_t stride);
void kc_tile_dot_bf16(int sums, int a, int b);
void kc_tile_dot_int8(int sums, int a, int b);

/* The names are the compiler's.
 * NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming) */
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbsud
#define _tile_loadconfig kc_tile_config
#define _tile_release    kc_tile_release
#define _tile_zero       kc_tile_zero
#define _tile_loadd      kc_tile_load
#define _tile_stored     kc_tile_store
#define _tile_dpbf16ps   kc_tile_dot_bf16
#define _tile_dpbsud     kc_tile_dot_int8
/* NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming) */
#endif
