/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/roof.h"

#include <immintrin.h>

/* Sums at a time: more than the latency of an instruction times how many start in a cycle. */
enum { N_SUMS = 16 };

/* vdpbf16ps: 32 products and their sums. */
double qn_peak_bf16_avx512bf16(uint64_t n_rounds)
{
    const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-9F * (float)qn_roof_sink),
                                           _mm512_set1_ps(1e-8F * (float)qn_roof_sink));
    __m512 sums[N_SUMS];
    for (int i = 0; i < N_SUMS; i++) {
        sums[i] = _mm512_set1_ps((float)i);
    }
    for (uint64_t round = 0; round < n_rounds; round++) {
        for (int i = 0; i < N_SUMS; i++) {
            sums[i] = _mm512_dpbf16_ps(sums[i], x, x);
        }
    }
    for (int i = 1; i < N_SUMS; i++) {
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    }
    qn_roof_sink += (uint64_t)_mm512_cvtss_f32(sums[0]) & 1;
    return 64.0 * N_SUMS * (double)n_rounds;
}

/* vpdpbusd: 64 products and their sums. */
double qn_peak_int8_avx512bf16(uint64_t n_rounds)
{
    const __m512i x = _mm512_set1_epi8((char)(qn_roof_sink & 15));
    __m512i sums[N_SUMS];
    for (int i = 0; i < N_SUMS; i++) {
        sums[i] = _mm512_set1_epi32(i);
    }
    for (uint64_t round = 0; round < n_rounds; round++) {
        for (int i = 0; i < N_SUMS; i++) {
            sums[i] = _mm512_dpbusd_epi32(sums[i], x, x);
        }
    }
    for (int i = 1; i < N_SUMS; i++) {
        sums[0] = _mm512_add_epi32(sums[0], sums[i]);
    }
    qn_roof_sink += (uint64_t)_mm512_cvtsi512_si32(sums[0]) & 1;
    return 128.0 * N_SUMS * (double)n_rounds;
}
