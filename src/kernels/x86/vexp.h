/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file vexp.h  exp of a register of floats, for kernels of AVX2 and above.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2, and exp(x) = 2^n exp(r) (Cody & Waite 1980, chapter 6).
 * exp(r) = 1 + r + r^2 q(r), where q of degree 4 has the least largest relative error over r:
 * fitted by weighted least squares with the weights moved to where the error is largest (Lawson
 * 1961), its coefficients rounded to f32 one after the other, the others fitted anew each time;
 * 2^-28.2 is left.  Over all floats the result is within 1 ULP, denormal results included;
 * exp(-Inf) is 0, what overflows is Inf, NaN stays NaN.
 */
#ifndef QN_KERNELS_X86_VEXP_H
#define QN_KERNELS_X86_VEXP_H
#include <immintrin.h>

#define QN_EXP_LEAST   (-104.0F) /* 0 from here down ... */
#define QN_EXP_MOST    89.0F /* ... and Inf from here up: n stays small, -Inf and Inf are served */
#define QN_EXP_LOG2_E  0x1.715476p+0F
#define QN_EXP_LN2     0x1.62e43p-1F     /* n times it is taken off exactly, by one fma; */
#define QN_EXP_LN2_LOW (-0x1.05c61p-29F) /* the rest of ln 2 */
#define QN_EXP_Q0      0x1.fffffcp-2F
#define QN_EXP_Q1      0x1.555492p-3F
#define QN_EXP_Q2      0x1.5558bp-5F
#define QN_EXP_Q3      0x1.12398ep-7F
#define QN_EXP_Q4      0x1.6a4d34p-10F

static inline __attribute__((always_inline)) __m256 qn_exp_m256(__m256 x)
{
    /* Of a NaN beside a number, min and max take the second: x. */
    x = _mm256_max_ps(_mm256_set1_ps(QN_EXP_LEAST), x);
    x = _mm256_min_ps(_mm256_set1_ps(QN_EXP_MOST), x);
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(QN_EXP_LOG2_E)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(QN_EXP_LN2), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(QN_EXP_LN2_LOW), r);
    __m256 p = _mm256_set1_ps(QN_EXP_Q4);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(QN_EXP_Q3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(QN_EXP_Q2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(QN_EXP_Q1));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(QN_EXP_Q0));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F));
    /* 2^n may be no float where the result is one: two factors, of which only the second rounds. */
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

#ifdef __AVX512F__
static inline __attribute__((always_inline)) __m512 qn_exp_m512(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(QN_EXP_LEAST), x);
    x = _mm512_min_ps(_mm512_set1_ps(QN_EXP_MOST), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(QN_EXP_LOG2_E)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(QN_EXP_LN2), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(QN_EXP_LN2_LOW), r);
    __m512 p = _mm512_set1_ps(QN_EXP_Q4);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(QN_EXP_Q3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(QN_EXP_Q2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(QN_EXP_Q1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(QN_EXP_Q0));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F));
    return _mm512_scalef_ps(p, n); /* p 2^n with one rounding */
}
#endif
#endif
