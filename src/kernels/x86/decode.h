/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file decode.h  bf16, e2m1 and e4m3 to floats at the level of the including file, alike in
 * weights and in cache rows.
 *
 * Sixteen values at a time, without a table in memory; what is left of a row behind the last
 * sixteen goes the way of plain C, since a row ends where its bytes do.
 */
#ifndef QN_KERNELS_X86_DECODE_H
#define QN_KERNELS_X86_DECODE_H
#include "kernels/ref/decode.h"
#include "kernels/x86/vec.h"

#include <string.h>

enum { QN_STEP = 16 }; /* values of a step */

/* QN_LANES bf16 at any address. */
QN_INLINE qn_vf qn_bf16_load(const uint8_t *from)
{
#ifdef __AVX512F__
    const __m256i words = _mm256_loadu_si256((const void *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
#else
    const __m128i words = _mm_loadu_si128((const void *)from);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
#endif
}

QN_INLINE int32_t qn_i32_load(const uint8_t *from)
{
    int32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Values of the e2m1 codes in the low nibbles of lanes, by a permutation of a register of values.
 */
QN_INLINE qn_vf qn_e2m1_values(qn_vi nibbles)
{
#ifdef __AVX512F__
    const __m512 values = _mm512_setr_ps(0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F, -0.0F,
                                         -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F);
    return _mm512_permutexvar_ps(nibbles, values); /* reads the low four bits */
#else
    const __m256 values = _mm256_setr_ps(0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F);
    /* Reads the low three bits; the fourth is the sign. */
    const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(nibbles, 3), 31);
    return _mm256_xor_ps(_mm256_permutevar8x32_ps(values, nibbles), _mm256_castsi256_ps(sign));
#endif
}

/* Values of QN_LANES e2m1 codes, two a byte. */
QN_INLINE qn_vf qn_e2m1_load(const uint8_t *from)
{
#ifdef __AVX512F__
    const __m512i shifts =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const __m512i words =
        _mm512_mask_set1_epi32(_mm512_set1_epi32(qn_i32_load(from)), 0xff00, qn_i32_load(from + 4));
    return qn_e2m1_values(_mm512_srlv_epi32(words, shifts));
#else
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    return qn_e2m1_values(_mm256_srlv_epi32(_mm256_set1_epi32(qn_i32_load(from)), shifts));
#endif
}

/*
 * An e4m3 code put where f16 has sign, exponent and mantissa is 2^-8 of its value, denormal ones
 * included, and the conversion from f16 serves those at full speed.  Only 0x7f and 0xff are no
 * numbers: they get all bits set, which is none of f16.
 */
QN_INLINE void qn_fp8_step(float *y, const uint8_t *codes, float scale)
{
    /* The copies of the sign that widening makes fill bits 14 and 15; it is wanted in 15 alone. */
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)codes));
    const __m256i at = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(~0x4000));
    const __m256i magnitude = _mm256_and_si256(at, _mm256_set1_epi16(0x7fff));
    const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80));
    const __m256i half = _mm256_or_si256(at, nan);
    /* Not 256 * scale at once, which may overflow. */
    const qn_vf by = qn_vf_set(256.0F);
#ifdef __AVX512F__
    _mm512_storeu_ps(y, _mm512_cvtph_ps(half) * by * qn_vf_set(scale));
#else
    const __m256 first = _mm256_cvtph_ps(_mm256_castsi256_si128(half));
    const __m256 second = _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1));
    _mm256_storeu_ps(y, first * by * qn_vf_set(scale));
    _mm256_storeu_ps(y + 8, second * by * qn_vf_set(scale));
#endif
}

/* y[i] = bf16 i. */
QN_INLINE void qn_bf16_row(float *y, const uint8_t *from, uint32_t n)
{
    const uint32_t n_whole = n / QN_STEP * QN_STEP;
    for (uint32_t k = 0; k < n_whole; k += QN_STEP) {
        for (uint32_t i = k; i < k + QN_STEP; i += QN_LANES) {
            qn_vf_store(y + i, qn_bf16_load(from + 2 * (size_t)i), QN_LANES);
        }
    }
    qn_bf16_decode(y + n_whole, from + 2 * (size_t)n_whole, n - n_whole);
}

/* y[i] = e4m3 code i times its scale; a scale, an f32, serves n_per_scale codes. */
QN_INLINE void qn_fp8_row(float *y, const uint8_t *codes, const uint8_t *scales, uint32_t n,
                          uint32_t n_per_scale)
{
    for (uint32_t first = 0; first < n; first += n_per_scale) {
        const uint8_t *at = scales + 4 * (size_t)(first / n_per_scale);
        const uint32_t n_left = n - first < n_per_scale ? n - first : n_per_scale;
        const uint32_t end = first + n_left / QN_STEP * QN_STEP;
        float scale;
        memcpy(&scale, at, sizeof scale);
        for (uint32_t k = first; k < end; k += QN_STEP) {
            qn_fp8_step(y + k, codes + k, scale);
        }
        qn_fp8_decode(y + end, codes + end, at, n_left % QN_STEP, QN_STEP);
    }
}
#endif
