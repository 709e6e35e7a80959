/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_roof.h  What timings of GPU kernels are measured against: what the device can at
 * most. */
#ifndef QN_KERNELS_GPU_ARGS_ROOF_H
#define QN_KERNELS_GPU_ARGS_ROOF_H
#include <stdint.h>

/** Reads memory, all blocks together, 16 bytes a thread at a time. */
typedef struct qn_gpu_roof_read_args {
    uint32_t *sink; /**< [1] written where the bytes have one certain sum: keeps them read. */
    const uint8_t *x;
    uint64_t n_bytes; /**< A multiple of 16. */
} qn_gpu_roof_read_args;
_Static_assert(sizeof(qn_gpu_roof_read_args) == 24, "host and device agree");

/**
 * Products of bf16 from shared memory without loads: each block makes n_steps times 2^24
 * multiplications and additions, 2 warpgroups 16 products of m64 n256 k16 each.  sm_90a.
 */
typedef struct qn_gpu_roof_matmul_args {
    float *y; /**< [blocks][256] sums: keeps them made. */
    uint64_t n_steps;
} qn_gpu_roof_matmul_args;
_Static_assert(sizeof(qn_gpu_roof_matmul_args) == 16, "host and device agree");
#endif
