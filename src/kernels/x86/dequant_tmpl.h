/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file dequant_tmpl.h  Rows of stored weights to floats.  Included once by a file of each level.
 *
 * Sixteen values at a time, without a table in memory; what is left behind the last sixteen goes
 * the way of plain C, since a row ends where its bytes do.  The floats written bound the speed.
 */
#include "base/numbers.h"
#include "kernels/x86/decode.h"
#include "kernels/x86/x86.h"

/* Each lane looks its nibble up by a permutation of a register of values. */
QN_INLINE void mxfp4_step(float *y, const uint8_t *from, float scale)
{
    uint32_t words[2];
    memcpy(words, from, sizeof words);
#ifdef __AVX512F__
    const __m512 values = _mm512_setr_ps(0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F, -0.0F,
                                         -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F);
    const __m512i shifts =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const __m512i both =
        _mm512_mask_set1_epi32(_mm512_set1_epi32((int)words[0]), 0xff00, (int)words[1]);
    /* The permutation takes the low four bits of its index. */
    const __m512 v = _mm512_permutexvar_ps(_mm512_srlv_epi32(both, shifts), values);
    _mm512_storeu_ps(y, v * qn_vf_set(scale));
#else
    const __m256 values = _mm256_setr_ps(0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F);
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    for (size_t i = 0; i < 2; i++) {
        /* The permutation takes the low three bits of its index; the fourth is the sign. */
        const __m256i index = _mm256_srlv_epi32(_mm256_set1_epi32((int)words[i]), shifts);
        const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(index, 3), 31);
        const __m256 v =
            _mm256_xor_ps(_mm256_permutevar8x32_ps(values, index), _mm256_castsi256_ps(sign));
        _mm256_storeu_ps(y + 8 * i, v * qn_vf_set(scale));
    }
#endif
}

static void mxfp4_row(float *y, const uint8_t *row, const uint8_t *scales, uint32_t n)
{
    for (uint32_t first = 0; first < n; first += QN_MXFP4_BLOCK) {
        const float scale = qn_e8m0_to_f32(scales[first / QN_MXFP4_BLOCK]);
        mxfp4_step(y + first, row + first / 2, scale);
        mxfp4_step(y + first + QN_STEP, row + first / 2 + QN_STEP / 2, scale);
    }
}

void QN_LEVEL(qn_dequant_row)(float *y, const qn_weight *w, uint32_t i_out)
{
    const size_t n = w->n_in;
    switch (w->kind) {
    case QN_WEIGHT_F32: memcpy(y, w->data + i_out * n * 4, n * 4); break;
    case QN_WEIGHT_BF16: qn_bf16_row(y, w->data + i_out * n * 2, w->n_in); break;
    case QN_WEIGHT_FP8_BLOCK: {
        const size_t n_scales = (n + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
        qn_fp8_row(y, w->data + i_out * n, w->scale + i_out / QN_FP8_BLOCK * n_scales * 4, w->n_in,
                   QN_FP8_BLOCK);
        break;
    }
    case QN_WEIGHT_FP8_CHANNEL:
        qn_fp8_row(y, w->data + i_out * n, w->scale + (size_t)i_out * 4, w->n_in, w->n_in);
        break;
    case QN_WEIGHT_MXFP4:
        mxfp4_row(y, w->data + i_out * n / 2, w->scale + i_out * n / QN_MXFP4_BLOCK, w->n_in);
        break;
    }
}
