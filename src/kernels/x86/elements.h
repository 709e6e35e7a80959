/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file elements.h  What attention and the indexer multiply at the level at hand: pairs of bf16
 * where an instruction does, else f32.
 */
#ifndef QN_KERNELS_X86_ELEMENTS_H
#define QN_KERNELS_X86_ELEMENTS_H
#include "kernels/x86/lanes.h"

#ifdef __AVX512BF16__
enum { ELEMENT_BYTES = 2 };

QN_INLINE qn_vf add_products(qn_vf sum, qn_vf a, qn_vf b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

QN_INLINE void store_elements(uint8_t *to, qn_vf x)
{
    /* To zero goes what is below the least normal number: products would take it so. */
    _mm256_storeu_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(x));
}
#else
enum { ELEMENT_BYTES = 4 };

QN_INLINE qn_vf add_products(qn_vf sum, qn_vf a, qn_vf b)
{
    return qn_vf_fma(a, b, sum);
}

QN_INLINE void store_elements(uint8_t *to, qn_vf x)
{
    V(storeu_ps)((float *)(void *)to, x);
}
#endif
#endif
