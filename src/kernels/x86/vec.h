/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file vec.h  A register of floats at the level that the including file is compiled for, so that a
 * kernel is written once for AVX2 (8 lanes) and AVX-512 (16).
 *
 * The types are the compilers' vector types: + - * / and comparisons work lane by lane.
 */
#ifndef QN_KERNELS_X86_VEC_H
#define QN_KERNELS_X86_VEC_H
#include "kernels/x86/vexp.h"

#include <stddef.h>
#include <stdint.h>

#define QN_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512BF16__)
#define QN_LEVEL(name) name##_avx512bf16
#elif defined(__AVX512F__)
#define QN_LEVEL(name) name##_avx512
#else
#define QN_LEVEL(name) name##_avx2
#endif

#ifdef __AVX512F__
enum { QN_LANES = 16 };
typedef __m512 qn_vf;  /**< QN_LANES floats. */
typedef __m512d qn_vd; /**< QN_LANES / 2 doubles. */
typedef __m512i qn_vi; /**< The bits of either. */
#else
enum { QN_LANES = 8 };
typedef __m256 qn_vf;
typedef __m256d qn_vd;
typedef __m256i qn_vi;
#endif

#ifdef __AVX512F__
QN_INLINE qn_vf qn_vf_set(float x)
{
    return _mm512_set1_ps(x);
}

QN_INLINE qn_vd qn_vd_set(double x)
{
    return _mm512_set1_pd(x);
}

/** Bits of the first n lanes. */
QN_INLINE __mmask16 qn_lanes(size_t n)
{
    return (__mmask16)((1U << n) - 1);
}

/** The first n of at, those lanes behind n (where it is below QN_LANES) from @p rest. */
QN_INLINE qn_vf qn_vf_load(const float *at, size_t n, qn_vf rest)
{
    return n >= QN_LANES ? _mm512_loadu_ps(at) : _mm512_mask_loadu_ps(rest, qn_lanes(n), at);
}

/** The first n lanes, all where n is QN_LANES or more. */
QN_INLINE void qn_vf_store(float *at, qn_vf x, size_t n)
{
    if (n >= QN_LANES) {
        _mm512_storeu_ps(at, x);
    } else {
        _mm512_mask_storeu_ps(at, qn_lanes(n), x);
    }
}

/** a * b + c, rounded once. */
QN_INLINE qn_vf qn_vf_fma(qn_vf a, qn_vf b, qn_vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

QN_INLINE qn_vd qn_vd_fma(qn_vd a, qn_vd b, qn_vd c)
{
    return _mm512_fmadd_pd(a, b, c);
}

/** The larger; y where x is NaN. */
QN_INLINE qn_vf qn_vf_max(qn_vf x, qn_vf y)
{
    return _mm512_max_ps(x, y);
}

QN_INLINE qn_vf qn_vf_exp(qn_vf x)
{
    return qn_exp_m512(x);
}

/** Lanes 2 j and 2 j + 1 change places. */
QN_INLINE qn_vf qn_vf_swap(qn_vf x)
{
    return _mm512_permute_ps(x, 0xb1);
}

/** One bit a lane: x > y, x == y; 0 beside NaN. */
QN_INLINE uint32_t qn_vf_above(qn_vf x, qn_vf y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ);
}

QN_INLINE uint32_t qn_vf_equal(qn_vf x, qn_vf y)
{
    return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ);
}

/** The first and the second half of the lanes. */
QN_INLINE qn_vd qn_vd_low(qn_vf x)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
}

QN_INLINE qn_vd qn_vd_high(qn_vf x)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
}

/** Both halves, rounded. */
QN_INLINE qn_vf qn_vf_narrow(qn_vd low, qn_vd high)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high),
                              1);
}
#else
QN_INLINE qn_vf qn_vf_set(float x)
{
    return _mm256_set1_ps(x);
}

QN_INLINE qn_vd qn_vd_set(double x)
{
    return _mm256_set1_pd(x);
}

/*
 * By way of a whole register of memory: AVX2's masked loads and stores touch no byte of a masked
 * lane on a CPU, but do in emulators, where these kernels are tested, too.
 */
QN_INLINE qn_vf qn_vf_load(const float *at, size_t n, qn_vf rest)
{
    if (n >= QN_LANES) {
        return _mm256_loadu_ps(at);
    }
    float lanes[QN_LANES];
    _mm256_storeu_ps(lanes, rest);
    for (size_t i = 0; i < n; i++) {
        lanes[i] = at[i];
    }
    return _mm256_loadu_ps(lanes);
}

QN_INLINE void qn_vf_store(float *at, qn_vf x, size_t n)
{
    if (n >= QN_LANES) {
        _mm256_storeu_ps(at, x);
    } else {
        float lanes[QN_LANES];
        _mm256_storeu_ps(lanes, x);
        for (size_t i = 0; i < n; i++) {
            at[i] = lanes[i];
        }
    }
}

QN_INLINE qn_vf qn_vf_fma(qn_vf a, qn_vf b, qn_vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

QN_INLINE qn_vd qn_vd_fma(qn_vd a, qn_vd b, qn_vd c)
{
    return _mm256_fmadd_pd(a, b, c);
}

QN_INLINE qn_vf qn_vf_max(qn_vf x, qn_vf y)
{
    return _mm256_max_ps(x, y);
}

QN_INLINE qn_vf qn_vf_exp(qn_vf x)
{
    return qn_exp_m256(x);
}

QN_INLINE qn_vf qn_vf_swap(qn_vf x)
{
    return _mm256_permute_ps(x, 0xb1);
}

QN_INLINE uint32_t qn_vf_above(qn_vf x, qn_vf y)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_GT_OQ));
}

QN_INLINE uint32_t qn_vf_equal(qn_vf x, qn_vf y)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_EQ_OQ));
}

QN_INLINE qn_vd qn_vd_low(qn_vf x)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
}

QN_INLINE qn_vd qn_vd_high(qn_vf x)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
}

QN_INLINE qn_vf qn_vf_narrow(qn_vd low, qn_vd high)
{
    return _mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low));
}
#endif

/** Sum of the lanes, one after the other. */
QN_INLINE double qn_vd_sum(qn_vd x)
{
    double sum = 0.0;
    for (size_t i = 0; i < QN_LANES / 2; i++) {
        sum += x[i];
    }
    return sum;
}
#endif
