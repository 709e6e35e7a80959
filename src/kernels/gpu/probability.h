/* SPDX-License-Identifier: Apache-2.0 */
/** @file probability.h  Order, exponentials and sums over a block that choices are made of. */
#ifndef QN_KERNELS_GPU_PROBABILITY_H
#define QN_KERNELS_GPU_PROBABILITY_H
#include "kernels/gpu/lang.h"

/** Keys of -Inf (what is above it can be drawn) and of Inf. */
#define QN_KEY_MINUS_INF 0x007fffffU
#define QN_KEY_INF       0xff800000U

/** Unsigned key in the order of the floats: NaN lowest (0), -0 as +0. */
QN_DEV uint32_t qn_order_key(float x)
{
    const uint32_t bits = qn_f32_bits(x + 0.0F); /* makes -0 +0 */
    const uint32_t key = bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000U);
    /* Beyond both infinities lies NaN. */
    return key - QN_KEY_MINUS_INF <= QN_KEY_INF - QN_KEY_MINUS_INF ? key : 0;
}

/**
 * e^x within 2^-40 for -700 < x < 700; NaN stays NaN.
 * Source   Taylor series of degree 10 about the nearest multiple of ln 2, which is taken off in two
 *          parts (Muller, "Elementary Functions", ch. 11: Cody and Waite)
 */
QN_DEV double qn_exp_f64(double x)
{
    const double shift = 0x1.8p52; /* a sum with it has the integer in its low bits */
    const double t = __builtin_fma(x, 0x1.71547652b82fep0, shift);
    const double n = t - shift;
    const double r =
        __builtin_fma(n, -0x1.abc9e3b39803fp-56, __builtin_fma(n, -0x1.62e42fefa39efp-1, x));
    double p = 1.0 / 3628800;
    p = __builtin_fma(p, r, 1.0 / 362880);
    p = __builtin_fma(p, r, 1.0 / 40320);
    p = __builtin_fma(p, r, 1.0 / 5040);
    p = __builtin_fma(p, r, 1.0 / 720);
    p = __builtin_fma(p, r, 1.0 / 120);
    p = __builtin_fma(p, r, 1.0 / 24);
    p = __builtin_fma(p, r, 1.0 / 6);
    p = __builtin_fma(p, r, 0.5);
    p = __builtin_fma(p, r, 1.0);
    p = __builtin_fma(p, r, 1.0);
    const uint64_t exponent = (__builtin_bit_cast(uint64_t, t) + 1023) << 52;
    return p * __builtin_bit_cast(double, exponent);
}

/** e^x, rounded once but for one in 10^4: what the reference's expf() gives, rarely its neighbour.
 */
QN_DEV float qn_exp_f32(float x)
{
    const float held = x < -110.0F ? -110.0F : x > 100.0F ? 100.0F : x;
    return (float)qn_exp_f64((double)held);
}

/** 1 / (1 + e^-x) as the reference rounds it. */
QN_DEV float qn_sigmoid(float x)
{
    return 1.0F / (1.0F + qn_exp_f32(-x));
}

/** Natural logarithm within 1e-12 * max(1, log x) for 1 <= x < 2^100: one step of Newton. */
QN_DEV double qn_log_f64(double x)
{
    const double y = (double)qn_fast_log2((float)x) * 0x1.62e42fefa39efp-1;
    return y + (x * qn_exp_f64(-y) - 1.0);
}

QN_DEV uint64_t qn_shuffle_xor_u64(uint64_t value, uint32_t mask)
{
    const uint64_t high = qn_shuffle_xor_u32((uint32_t)(value >> 32), mask);
    return high << 32 | qn_shuffle_xor_u32((uint32_t)value, mask);
}

/** As qn_warp_sum(). */
QN_DEV double qn_warp_sum_f64(double value)
{
    for (uint32_t mask = QN_LANES / 2; mask > 0; mask /= 2) {
        const uint64_t other = qn_shuffle_xor_u64(__builtin_bit_cast(uint64_t, value), mask);
        value += __builtin_bit_cast(double, other);
    }
    return value;
}

/** Sums over the block for all its threads, in one order; part is as for qn_block_sum(). */
QN_DEV double qn_block_sum_f64(double value, double *part, uint32_t n_threads)
{
    value = qn_warp_sum_f64(value);
    if (qn_lane() == 0) {
        part[qn_warp()] = value;
    }
    qn_barrier();
    double sum = 0;
    for (uint32_t i = 0; i < n_threads / QN_LANES; i++) {
        sum += part[i];
    }
    return sum;
}

QN_DEV uint64_t qn_block_sum_u64(uint64_t value, uint64_t *part, uint32_t n_threads)
{
    for (uint32_t mask = QN_LANES / 2; mask > 0; mask /= 2) {
        value += qn_shuffle_xor_u64(value, mask);
    }
    if (qn_lane() == 0) {
        part[qn_warp()] = value;
    }
    qn_barrier();
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n_threads / QN_LANES; i++) {
        sum += part[i];
    }
    return sum;
}

/** The lane with the largest key, of these the one with the lowest id, for all lanes. */
QN_DEV void qn_warp_best(uint32_t *key, uint32_t *id)
{
    const uint32_t best = qn_warp_max_u32(*key);
    *id = ~qn_warp_max_u32(*key == best ? ~*id : 0);
    *key = best;
}
#endif
