/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file dequant_tmpl.h  Rows of stored weights to floats.  Included once by a file of each level.
 *
 * decode.h does the work; the floats written bound the speed.
 */
#include "base/numbers.h"
#include "kernels/x86/decode.h"
#include "kernels/x86/x86.h"

static void mxfp4_row(float *y, const uint8_t *row, const uint8_t *scales, uint32_t n)
{
    for (uint32_t first = 0; first < n; first += QN_MXFP4_BLOCK) {
        const qn_vf scale = qn_vf_set(qn_e8m0_to_f32(scales[first / QN_MXFP4_BLOCK]));
        for (uint32_t k = first; k < first + QN_MXFP4_BLOCK; k += QN_LANES) {
            qn_vf_store(y + k, qn_e2m1_load(row + k / 2) * scale, QN_LANES);
        }
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
