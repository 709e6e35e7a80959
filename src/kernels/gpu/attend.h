/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend.h  How splits of an attended set are put together, the same way wherever it is done.
 *
 * A split is a largest score m (in units of log2), a sum l of 2^(s - m) and, of each latent column,
 * u = sum of 2^(s - m) c.  Splits are taken in order; what is written is u * (1 / l) of all of
 * them.
 */
#ifndef QN_KERNELS_GPU_ATTEND_H
#define QN_KERNELS_GPU_ATTEND_H
#include "kernels/gpu/lang.h"

/** Factors of two splits that become one. */
typedef struct qn_attend_factors {
    float before, next; /**< Of what was put together so far, and of the split behind it. */
    float m;            /**< Of both. */
} qn_attend_factors;

QN_DEV qn_attend_factors qn_attend_factors_of(float m_before, float m_next)
{
    const float m = qn_max(m_before, m_next);
    return (qn_attend_factors){qn_fast_exp2(m_before - m), qn_fast_exp2(m_next - m), m};
}

/** u, or l, of both. */
QN_DEV float qn_attend_add(qn_attend_factors factors, float before, float next)
{
    return qn_fma(before, factors.before, next * factors.next);
}

/** Splits of a set. */
QN_DEV uint32_t qn_attend_splits(uint32_t n_set)
{
    return (n_set + QN_GPU_ATTEND_SPLIT - 1) / QN_GPU_ATTEND_SPLIT;
}

/** log2(e): scores are kept so that weights are powers of two. */
#define QN_LOG2_E 1.44269504088896340736F
#endif
