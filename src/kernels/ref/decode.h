/* SPDX-License-Identifier: Apache-2.0 */
/** @file decode.h  Small number formats to f32 by table, for weights and for cache rows. */
#ifndef QN_KERNELS_REF_DECODE_H
#define QN_KERNELS_REF_DECODE_H
#include <stdint.h>

/** qn_e4m3_to_f32() of every code. */
extern const float qn_e4m3_values[256];

/** Both values of every byte of e2m1 codes, the low nibble's first. */
extern const float qn_e2m1_pairs[256][2];

/**
 * y[i] = e4m3 code i times its scale.  A scale is an f32 at any address and serves @p n_per_scale
 * codes.
 */
void qn_fp8_decode(float *y, const uint8_t *codes, const uint8_t *scales, uint32_t n,
                   uint32_t n_per_scale);
#endif
