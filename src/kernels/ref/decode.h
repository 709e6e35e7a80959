/* SPDX-License-Identifier: Apache-2.0 */
/** @file decode.h  Small number formats to f32, alike in weights and in cache rows. */
#ifndef QN_KERNELS_REF_DECODE_H
#define QN_KERNELS_REF_DECODE_H
#include <stdint.h>

/** y[i] = bf16 i, at any address. */
void qn_bf16_decode(float *y, const uint8_t *from, uint32_t n);

/**
 * y[i] = e4m3 code i times its scale.  A scale is an f32 at any address and serves @p n_per_scale
 * codes.
 */
void qn_fp8_decode(float *y, const uint8_t *codes, const uint8_t *scales, uint32_t n,
                   uint32_t n_per_scale);
#endif
