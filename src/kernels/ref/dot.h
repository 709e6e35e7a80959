/* SPDX-License-Identifier: Apache-2.0 */
/** @file dot.h  The one order in which reference kernels add: 16 interleaved partial sums. */
#ifndef QN_KERNELS_REF_DOT_H
#define QN_KERNELS_REF_DOT_H
#include "base/numbers.h"

#include <stddef.h>
#include <stdint.h>

enum { QN_DOT_LANES = 16 }; /* one AVX-512 register; plain C that a compiler keeps in vectors */

/** Add the partial sums pairwise: 8 + 8, 4 + 4, 2 + 2, 1 + 1. */
static inline float qn_dot_reduce(float *lanes)
{
    for (size_t width = QN_DOT_LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) {
            lanes[i] += lanes[i + width];
        }
    }
    return lanes[0];
}

/** sum_i a[i] * b[i]; element i goes to partial sum i % 16. */
static inline float qn_dot(const float *a, const float *b, size_t n)
{
    float lanes[QN_DOT_LANES] = {0};
    const size_t n_whole = n / QN_DOT_LANES * QN_DOT_LANES;
    for (size_t k = 0; k < n_whole; k += QN_DOT_LANES) {
        for (size_t i = 0; i < QN_DOT_LANES; i++) {
            lanes[i] += a[k + i] * b[k + i];
        }
    }
    for (size_t k = n_whole; k < n; k++) {
        lanes[k - n_whole] += a[k] * b[k];
    }
    return qn_dot_reduce(lanes);
}

/** Round to bf16 and back, without branches so that loops over it vectorise. */
static inline float qn_round_bf16(float value)
{
    const uint32_t bits = qn_f32_bits(value);
    const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U;
    const uint32_t is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
    return qn_f32_from_bits(is_nan ? (bits | 0x400000U) & 0xffff0000U : rounded);
}

/** The same with a rounded to bf16 first; products are exact in f32 where b came from bf16. */
static inline float qn_dot_bf16(const float *a, const float *b, size_t n)
{
    float lanes[QN_DOT_LANES] = {0};
    const size_t n_whole = n / QN_DOT_LANES * QN_DOT_LANES;
    for (size_t k = 0; k < n_whole; k += QN_DOT_LANES) {
        for (size_t i = 0; i < QN_DOT_LANES; i++) {
            lanes[i] += qn_round_bf16(a[k + i]) * b[k + i];
        }
    }
    for (size_t k = n_whole; k < n; k++) {
        lanes[k - n_whole] += qn_round_bf16(a[k]) * b[k];
    }
    return qn_dot_reduce(lanes);
}
#endif
