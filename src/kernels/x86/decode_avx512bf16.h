/* SPDX-License-Identifier: Apache-2.0 */
/** @file decode_avx512bf16.h  Words of e4m3 and e2m1 to pairs of bf16, by permutations. */
#ifndef QN_KERNELS_X86_DECODE_AVX512BF16_H
#define QN_KERNELS_X86_DECODE_AVX512BF16_H
#include "kernels/x86/matmul_avx512.h"

#define QN_LOW_BYTE(bits)  ((bits)&255)
#define QN_HIGH_BYTE(bits) ((bits) >> 8)
static const uint8_t qn_e4m3_low[128] __attribute__((aligned(64))) = {QN_E4M3_BF16(QN_LOW_BYTE)};
static const uint8_t qn_e4m3_high[128] __attribute__((aligned(64))) = {QN_E4M3_BF16(QN_HIGH_BYTE)};

/* e4m3 codes to bf16: a table of 128 for each byte of the value, read by the low 7 bits of a code.
   Codes are moved first so that putting the bytes together leaves each pair in its lane. */
QN_INLINE void qn_decode_e4m3(__m512i pairs[2], __m512i words)
{
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __m512i codes = _mm512_shuffle_epi8(words, order);
    const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(qn_e4m3_low), codes,
                                                 _mm512_load_si512(qn_e4m3_low + 64));
    const __m512i signs = _mm512_and_si512(codes, _mm512_set1_epi8(-128));
    const __m512i high =
        _mm512_or_si512(signs, _mm512_permutex2var_epi8(_mm512_load_si512(qn_e4m3_high), codes,
                                                        _mm512_load_si512(qn_e4m3_high + 64)));
    pairs[0] = _mm512_unpacklo_epi8(low, high);
    pairs[1] = _mm512_unpackhi_epi8(low, high);
}

/* Values of e2m1 codes as bf16, twice: a permutation reads 5 bits of each half of a lane, so what
   stands above a nibble needs no mask. */
QN_INLINE __m512i qn_e2m1_bf16(void)
{
    return _mm512_broadcast_i64x4(_mm256_setr_epi16(
        0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, (short)0x8000, (short)0xbf00,
        (short)0xbf80, (short)0xbfc0, (short)0xc000, (short)0xc040, (short)0xc080, (short)0xc0c0));
}
#endif
