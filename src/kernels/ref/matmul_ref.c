/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"
#include "kernels/ref/dot.h"

#include <math.h>

/* Twice the e2m1 values: small integers. */
static const int32_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* One block of int8 mode: integer dot of the quantised activations with the doubled weights. */
static double int8_block(const float *x, const uint8_t *codes, float weight_scale)
{
    float amax = 0.0F;
    for (int k = 0; k < QN_MXFP4_BLOCK; k++) {
        if (!isfinite(x[k])) {
            return (double)NAN; /* NaN and Inf have no integer form */
        }
        amax = fabsf(x[k]) > amax ? fabsf(x[k]) : amax;
    }
    const float scale = amax / 127.0F;
    if (scale == 0.0F) {
        return 0.0 * (double)weight_scale;
    }
    int32_t sum = 0;
    for (int k = 0; k < QN_MXFP4_BLOCK; k++) {
        const uint8_t pair = codes[k / 2];
        const int32_t w = e2m1_doubled[(k & 1) != 0 ? pair >> 4 : pair & 15];
        sum += (int32_t)rintf(x[k] / scale) * w;
    }
    /* In f64, since a denormal scale times another would lose its digits. */
    return (double)sum * 0.5 * (double)scale * (double)weight_scale;
}

static float int8_dot(const float *x, const qn_weight *w, uint32_t i_out)
{
    const size_t n = w->n_in;
    const uint8_t *codes = w->data + i_out * n / 2;
    const uint8_t *scales = w->scale + i_out * n / QN_MXFP4_BLOCK;
    float sum = 0.0F;
    for (size_t k = 0; k < n; k += QN_MXFP4_BLOCK) {
        sum += (float)int8_block(x + k, codes + k / 2, qn_e8m0_to_f32(scales[k / QN_MXFP4_BLOCK]));
    }
    return sum;
}

void qn_matmul_ref(const qn_matmul_args *args)
{
    const qn_weight *w = args->w;
    const bool is_int8 = args->compute == QN_COMPUTE_INT8 && w->kind == QN_WEIGHT_MXFP4;
    for (uint32_t o = args->out_first; o < args->out_end; o++) {
        if (!is_int8) {
            qn_dequant_row_ref(args->scratch, w, o);
        }
        for (uint32_t t = 0; t < args->n_rows; t++) {
            const float *x = args->x + t * args->x_stride;
            float *y = args->y + t * args->y_stride + (o - args->out_first);
            if (is_int8) {
                *y = int8_dot(x, w, o);
            } else if (args->compute == QN_COMPUTE_F32) {
                *y = qn_dot(x, args->scratch, w->n_in);
            } else {
                *y = qn_dot_bf16(x, args->scratch, w->n_in);
            }
        }
    }
}

void qn_matmul_t_ref(float *y, const float *x, uint32_t n_x, const qn_weight *w, uint32_t row_first,
                     qn_compute compute, float *scratch)
{
    memset(y, 0, w->n_in * sizeof *y);
    for (uint32_t i = 0; i < n_x; i++) {
        qn_dequant_row_ref(scratch, w, row_first + i);
        const float xi = compute == QN_COMPUTE_F32 ? x[i] : qn_round_bf16(x[i]);
        for (uint32_t k = 0; k < w->n_in; k++) {
            y[k] += xi * scratch[k];
        }
    }
}
