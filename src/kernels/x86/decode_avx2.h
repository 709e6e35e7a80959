/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file decode_avx2.h  What AVX2 products make of a strip's words and scales, eight lanes at a
 * time.
 */
#ifndef QN_KERNELS_X86_DECODE_AVX2_H
#define QN_KERNELS_X86_DECODE_AVX2_H
#include "kernels/weight.h"

#include <immintrin.h>

#ifndef QN_AHEAD
#define QN_AHEAD 8192
#endif
#define QN_INLINE static inline __attribute__((always_inline))

QN_INLINE __m256i qn_load_words(const uint8_t *at)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

/**
 * Ask for what follows @p at by some chunks.  Computing comes in bursts that memory should not wait
 * for, and hardware stops looking ahead at each page's end.
 */
QN_INLINE void qn_prefetch(const uint8_t *at)
{
    _mm_prefetch((const char *)at + QN_AHEAD, _MM_HINT_T1);
}

/** f32 of the bf16 in the low half of each lane, and of that in the high half. */
QN_INLINE __m256 qn_low_bf16(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

QN_INLINE __m256 qn_high_bf16(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-0x10000)));
}

/** What each of the 16 nibble values becomes; the upper half of every byte of @p nibbles is 0. */
QN_INLINE __m256i qn_look_up(__m128i table, __m256i nibbles)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles);
}

QN_INLINE __m256i qn_low_nibbles(__m256i words)
{
    return _mm256_and_si256(words, _mm256_set1_epi8(15));
}

QN_INLINE __m256i qn_high_nibbles(__m256i words)
{
    return qn_low_nibbles(_mm256_srli_epi32(words, 4));
}

/* Bytes @p high and @p low of four bf16 a lane: those of bytes 0 and 2 as a pair, of 1 and 3. */
QN_INLINE void qn_join_bytes(__m256i *even, __m256i *odd, __m256i high, __m256i low)
{
    const __m256i low_bytes = _mm256_set1_epi16(0xff);
    *even = _mm256_or_si256(_mm256_slli_epi16(high, 8), _mm256_and_si256(low, low_bytes));
    *odd = _mm256_or_si256(_mm256_andnot_si256(low_bytes, high), _mm256_srli_epi16(low, 8));
}

/**
 * Columns of a lane's e2m1 codes, without their scale.  As bf16 both bytes of a value are looked up
 * by its nibble.
 */
QN_INLINE void qn_decode_mxfp4(__m256 w[8], __m256i words)
{
    const __m128i high_bytes = _mm_setr_epi8(0, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, -0x80,
                                             -0x41, -0x41, -0x41, -0x40, -0x40, -0x40, -0x40);
    const __m128i low_bytes =
        _mm_setr_epi8(0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40, 0, 0, -0x80, -0x40, 0, 0x40, -0x80,
                      -0x40);     /* of 0, 0.5, 1, 1.5, 2, 3, 4, 6 */
    for (int i = 0; i < 2; i++) { /* the low nibbles are columns 0 2 4 6, the high ones 1 3 5 7 */
        const __m256i nibbles = i == 0 ? qn_low_nibbles(words) : qn_high_nibbles(words);
        __m256i even;
        __m256i odd;
        qn_join_bytes(&even, &odd, qn_look_up(high_bytes, nibbles), qn_look_up(low_bytes, nibbles));
        w[i] = qn_low_bf16(even);
        w[i + 2] = qn_low_bf16(odd);
        w[i + 4] = qn_high_bf16(even);
        w[i + 6] = qn_high_bf16(odd);
    }
}

/**
 * Columns of a lane's e4m3 codes, without their scale; NaN codes come out as 480.  Sign, exponent
 * and mantissa in the places of a bf16 are the value times 2^-120, subnormal codes included.
 */
QN_INLINE void qn_decode_fp8(__m256 w[4], __m256i words)
{
    const __m256i fields = _mm256_set1_epi16((int16_t)0x87f0);
    const __m256 unit = _mm256_set1_ps(0x1p120F);
    const __m256i even =
        _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(words, 8), 4), fields);
    const __m256i odd = _mm256_and_si256(_mm256_srai_epi16(words, 4), fields);
    w[0] = _mm256_mul_ps(qn_low_bf16(even), unit);
    w[1] = _mm256_mul_ps(qn_low_bf16(odd), unit);
    w[2] = _mm256_mul_ps(qn_high_bf16(even), unit);
    w[3] = _mm256_mul_ps(qn_high_bf16(odd), unit);
}

/** NaN for the 480 that qn_decode_fp8() makes of NaN codes. */
QN_INLINE __m256 qn_nan_of_480(__m256 w)
{
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0F), w);
    const __m256 is_nan = _mm256_cmp_ps(magnitude, _mm256_set1_ps(480.0F), _CMP_EQ_OQ);
    return _mm256_blendv_ps(w, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)), is_nan);
}

/** Eight e8m0 bytes as f32: bytes 0 and 255, whose exponent alone is 0 or Inf, are 2^-127, NaN. */
QN_INLINE __m256 qn_decode_e8m0(const uint8_t *at)
{
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)at)), 23);
    const __m256i is_special =
        _mm256_or_si256(_mm256_cmpeq_epi32(exponent, _mm256_setzero_si256()),
                        _mm256_cmpeq_epi32(exponent, _mm256_set1_epi32(0x7f800000)));
    const __m256i quarter = _mm256_and_si256(is_special, _mm256_set1_epi32(0x00400000));
    return _mm256_castsi256_ps(_mm256_or_si256(exponent, quarter));
}

/** Bytes of a lane that hold 32 bits of @p at, in all lanes. */
QN_INLINE __m256i qn_broadcast_u32(const uint8_t *at)
{
    return _mm256_castps_si256(_mm256_broadcast_ss((const float *)(const void *)at));
}
#endif
