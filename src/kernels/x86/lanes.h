/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file lanes.h  What attention needs beside vec.h: lanes as integers, bf16 and e4m3, sums of
 * lanes.
 *
 * An intrinsic that both widths have is V(name) here.
 */
#ifndef QN_KERNELS_X86_LANES_H
#define QN_KERNELS_X86_LANES_H
#include "kernels/x86/vec.h"

#include <string.h>

#ifdef __AVX512F__
#define V(name) _mm512_##name
#else
#define V(name) _mm256_##name
#endif

QN_INLINE qn_vi qn_vi_load(const void *from)
{
    qn_vi bits;
    memcpy(&bits, from, sizeof bits);
    return bits;
}

QN_INLINE void qn_vi_store(void *to, qn_vi x)
{
    memcpy(to, &x, sizeof x);
}

#ifdef __AVX512F__
QN_INLINE qn_vi qn_vi_of(qn_vf x)
{
    return _mm512_castps_si512(x);
}

QN_INLINE qn_vf qn_vf_of(qn_vi bits)
{
    return _mm512_castsi512_ps(bits);
}

/* Lanes with a > b, signed; bit i is lane i. */
QN_INLINE uint32_t qn_vi_above(qn_vi a, qn_vi b)
{
    return _mm512_cmpgt_epi32_mask(a, b);
}

/* a > b ? yes : no, signed. */
QN_INLINE qn_vi qn_vi_if_above(qn_vi a, qn_vi b, qn_vi yes, qn_vi no)
{
    return _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), no, yes);
}

/* The low half of each lane, in order. */
QN_INLINE void qn_vi_store_u16(uint8_t *to, qn_vi x)
{
    _mm256_storeu_si256((void *)to, _mm512_cvtepi32_epi16(x));
}

/* The low byte of each lane, in order. */
QN_INLINE void qn_vi_store_u8(uint8_t *to, qn_vi x)
{
    _mm_storeu_si128((void *)to, _mm512_cvtepi32_epi8(x));
}

/* The chosen lanes, one behind the other; returns their number. */
QN_INLINE uint32_t qn_vi_store_chosen(void *to, qn_vi x, uint32_t lanes)
{
    /* Not by one compressing store, which is slow on Zen 4. */
    const uint32_t n = (uint32_t)__builtin_popcount(lanes);
    const qn_vi chosen = _mm512_maskz_compress_epi32((__mmask16)lanes, x);
    _mm512_mask_storeu_epi32(to, (__mmask16)((1U << n) - 1), chosen);
    return n;
}

/* The four sums (or maxima) within each lane's column of 128-bit parts. */
#define QN_FOLD(op, x)                                                                             \
    qn_fold_##op(_mm256_##op##_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)))
#else
QN_INLINE qn_vi qn_vi_of(qn_vf x)
{
    return _mm256_castps_si256(x);
}

QN_INLINE qn_vf qn_vf_of(qn_vi bits)
{
    return _mm256_castsi256_ps(bits);
}

QN_INLINE uint32_t qn_vi_above(qn_vi a, qn_vi b)
{
    return (uint32_t)_mm256_movemask_ps(qn_vf_of(_mm256_cmpgt_epi32(a, b)));
}

QN_INLINE qn_vi qn_vi_if_above(qn_vi a, qn_vi b, qn_vi yes, qn_vi no)
{
    return _mm256_blendv_epi8(no, yes, _mm256_cmpgt_epi32(a, b));
}

QN_INLINE void qn_vi_store_u16(uint8_t *to, qn_vi x)
{
    const __m128i low = _mm256_castsi256_si128(x);
    _mm_storeu_si128((void *)to, _mm_packus_epi32(low, _mm256_extracti128_si256(x, 1)));
}

QN_INLINE void qn_vi_store_u8(uint8_t *to, qn_vi x)
{
    const __m128i low = _mm256_castsi256_si128(x);
    const __m128i words = _mm_packus_epi32(low, _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64((void *)to, _mm_packus_epi16(words, words));
}

QN_INLINE uint32_t qn_vi_store_chosen(void *to, qn_vi x, uint32_t lanes)
{
    int32_t all[QN_LANES];
    qn_vi_store(all, x);
    uint32_t n = 0;
    for (; lanes != 0; lanes &= lanes - 1, n++) {
        memcpy((uint8_t *)to + n * sizeof *all, all + __builtin_ctz(lanes), sizeof *all);
    }
    return n;
}

#define QN_FOLD(op, x) qn_fold_##op(x)
#endif

QN_INLINE __m128 qn_fold_add(__m256 x)
{
    return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
}

QN_INLINE __m128 qn_fold_max(__m256 x)
{
    return _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
}

/* Sum of the lanes: halves are added until one is left. */
QN_INLINE float qn_vf_sum(qn_vf x)
{
    __m128 sum = QN_FOLD(add, x);
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

/* Largest lane; whether a NaN is seen is not said. */
QN_INLINE float qn_vf_greatest(qn_vf x)
{
    __m128 max = QN_FOLD(max, x);
    max = _mm_max_ps(max, _mm_movehl_ps(max, max));
    return _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)));
}

/*
 * Four registers turned in each 128-bit part: lane j of a part is the sum of register j's four
 * lanes there, (0 + 2) + (1 + 3).
 */
QN_INLINE qn_vf qn_vf_sum_quads(qn_vf a, qn_vf b, qn_vf c, qn_vf d)
{
    const qn_vf ab = V(unpacklo_ps)(a, b) + V(unpackhi_ps)(a, b);
    const qn_vf cd = V(unpacklo_ps)(c, d) + V(unpackhi_ps)(c, d);
    return V(shuffle_ps)(ab, cd, 0x44) + V(shuffle_ps)(ab, cd, 0xee);
}

/* Lane i is the sum of register i's lanes, whatever the other registers hold. */
QN_INLINE qn_vf qn_vf_sums(const qn_vf *x)
{
#ifdef __AVX512F__
    /* Parts of a register are parts 0 + 2 and 1 + 3 of x[i], then of x[i + 8] ... */
    qn_vf half[8];
    for (int i = 0; i < 8; i++) {
        half[i] =
            _mm512_shuffle_f32x4(x[i], x[i + 8], 0x44) + _mm512_shuffle_f32x4(x[i], x[i + 8], 0xee);
    }
    /* ... and now one each of x[i], x[i + 8], x[i + 4], x[i + 12]. */
    qn_vf quarter[4];
    for (int i = 0; i < 4; i++) {
        const qn_vf low = _mm512_shuffle_f32x4(half[i], half[i + 4], 0x88);
        const qn_vf high = _mm512_shuffle_f32x4(half[i], half[i + 4], 0xdd);
        quarter[i] = low + high;
    }
    /* The parts are sums 0.., 8.., 4.., 12.. */
    const qn_vf sums = qn_vf_sum_quads(quarter[0], quarter[1], quarter[2], quarter[3]);
    return _mm512_shuffle_f32x4(sums, sums, 0xd8);
#else
    qn_vf half[4];
    for (int i = 0; i < 4; i++) {
        half[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20) +
                  _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    }
    return qn_vf_sum_quads(half[0], half[1], half[2], half[3]);
#endif
}

/* Bits of the nearest bf16, ties to even, in the low half of a lane; NaN stays a quiet NaN. */
QN_INLINE qn_vi qn_vi_bf16(qn_vf x)
{
    const qn_vi bits = qn_vi_of(x);
    const qn_vi high = V(srli_epi32)(bits, 16);
    const qn_vi odd = high & V(set1_epi32)(1);
    const qn_vi even = V(add_epi32)(V(add_epi32)(bits, odd), V(set1_epi32)(0x7fff));
    return qn_vi_if_above(bits & V(set1_epi32)(0x7fffffff), V(set1_epi32)(0x7f800000),
                          high | V(set1_epi32)(0x40), V(srli_epi32)(even, 16));
}

QN_INLINE qn_vf qn_vf_round_bf16(qn_vf x)
{
    return qn_vf_of(V(slli_epi32)(qn_vi_bf16(x), 16));
}

/* Nearest e4m3 code, ties to even, at most 448 in size; NaN gives 0x7f with the sign. */
QN_INLINE qn_vi qn_vi_e4m3(qn_vf x)
{
    const qn_vi bits = qn_vi_of(x);
    const qn_vi sign = V(srli_epi32)(bits, 24) & V(set1_epi32)(0x80);
    const qn_vi magnitude = bits & V(set1_epi32)(0x7fffffff);
    /* Of a normal code the exponent's bias falls by 120 and the low 20 bits are rounded off. */
    const qn_vi odd = V(srli_epi32)(magnitude, 20) & V(set1_epi32)(1);
    const qn_vi even = V(add_epi32)(V(add_epi32)(magnitude, odd), V(set1_epi32)(0x7ffff));
    const qn_vi normal = V(sub_epi32)(V(srli_epi32)(even, 20), V(set1_epi32)(120 << 3));
    /* Of a subnormal one adding 2^14 leaves a unit of 2^-9. */
    const qn_vi unit = qn_vi_of(qn_vf_set(0x1p14F));
    const qn_vi small = V(sub_epi32)(qn_vi_of(qn_vf_of(magnitude) + qn_vf_set(0x1p14F)), unit);
    qn_vi code = qn_vi_if_above(qn_vi_of(qn_vf_set(0x1p-6F)), magnitude, small, normal);
    code = qn_vi_if_above(magnitude, qn_vi_of(qn_vf_set(448.0F)), V(set1_epi32)(0x7e), code);
    code = qn_vi_if_above(magnitude, V(set1_epi32)(0x7f800000), V(set1_epi32)(0x7f), code);
    return code | sign;
}
#endif
