/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/roof.h"

#include <immintrin.h>

/* Sums at a time: more than the latency of a product (4) times how many start in a cycle (2). */
enum { N_SUMS = 12 };

double qn_peak_f32_avx512(uint64_t n_rounds)
{
    const __m512 x = _mm512_set1_ps(1e-9F * (float)qn_roof_sink);
    __m512 sums[N_SUMS];
    for (int i = 0; i < N_SUMS; i++) {
        sums[i] = _mm512_set1_ps((float)i);
    }
    for (uint64_t round = 0; round < n_rounds; round++) {
        for (int i = 0; i < N_SUMS; i++) {
            sums[i] = _mm512_fmadd_ps(x, x, sums[i]);
        }
    }
    for (int i = 1; i < N_SUMS; i++) {
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    }
    qn_roof_sink += (uint64_t)_mm512_cvtss_f32(sums[0]) & 1;
    return 32.0 * N_SUMS * (double)n_rounds;
}

/* vpmaddubsw alone: the additions of its 16-bit sums find place beside it. */
double qn_peak_int8_avx512(uint64_t n_rounds)
{
    const __m512i x = _mm512_set1_epi8((char)(qn_roof_sink & 15));
    __m512i sums[N_SUMS];
    for (int i = 0; i < N_SUMS; i++) {
        sums[i] = _mm512_set1_epi8((char)i);
    }
    for (uint64_t round = 0; round < n_rounds; round++) {
        for (int i = 0; i < N_SUMS; i++) {
            sums[i] = _mm512_maddubs_epi16(x, sums[i]);
        }
    }
    for (int i = 1; i < N_SUMS; i++) {
        sums[0] = _mm512_add_epi32(sums[0], sums[i]);
    }
    qn_roof_sink += (uint64_t)_mm512_cvtsi512_si32(sums[0]) & 1;
    return 128.0 * N_SUMS * (double)n_rounds;
}
