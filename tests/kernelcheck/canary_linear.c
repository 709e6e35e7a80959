/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong kernels for check_linear.c. */
#include "canary.h"

#include <string.h>

/* ---------------------------------------------------------------------------- dequant_row -- */

static void dequant_swaps_nibbles(float *y, const qn_weight *w, uint32_t i_out)
{
    qn_dequant_row_ref(y, w, i_out);
    for (uint32_t k = 0; k + 1 < w->n_in && w->kind == QN_WEIGHT_MXFP4; k += 2) {
        const float low = y[k];
        y[k] = y[k + 1];
        y[k + 1] = low;
    }
}
CANARY(dequant_row, dequant_swaps_nibbles)

/* The row i_out with the scales of a weight of another kind or place. */
static void dequant_scaled(float *y, const qn_weight *w, uint32_t i_out, qn_weight_kind kind,
                           const uint8_t *scale)
{
    const size_t row_bytes = kind == QN_WEIGHT_MXFP4 ? w->n_in / 2 : w->n_in;
    const qn_weight row = {kind, 1, w->n_in, w->data + i_out * row_bytes, scale};
    qn_dequant_row_ref(y, &row, 0);
}

static void dequant_fp8_first_row_block(float *y, const qn_weight *w, uint32_t i_out)
{
    if (w->kind == QN_WEIGHT_FP8_BLOCK) {
        dequant_scaled(y, w, i_out, QN_WEIGHT_FP8_BLOCK, w->scale);
    } else {
        qn_dequant_row_ref(y, w, i_out);
    }
}
CANARY(dequant_row, dequant_fp8_first_row_block)

static void dequant_fp8_first_column_block(float *y, const qn_weight *w, uint32_t i_out)
{
    if (w->kind == QN_WEIGHT_FP8_BLOCK) {
        const size_t n_scales = (w->n_in + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
        dequant_scaled(y, w, i_out, QN_WEIGHT_FP8_CHANNEL,
                       w->scale + i_out / QN_FP8_BLOCK * n_scales * 4);
    } else {
        qn_dequant_row_ref(y, w, i_out);
    }
}
CANARY(dequant_row, dequant_fp8_first_column_block)

static void dequant_channel_of_row_0(float *y, const qn_weight *w, uint32_t i_out)
{
    if (w->kind == QN_WEIGHT_FP8_CHANNEL) {
        dequant_scaled(y, w, i_out, QN_WEIGHT_FP8_CHANNEL, w->scale);
    } else {
        qn_dequant_row_ref(y, w, i_out);
    }
}
CANARY(dequant_row, dequant_channel_of_row_0)

static void dequant_mxfp4_scales_of_row_0(float *y, const qn_weight *w, uint32_t i_out)
{
    if (w->kind == QN_WEIGHT_MXFP4) {
        dequant_scaled(y, w, i_out, QN_WEIGHT_MXFP4, w->scale);
    } else {
        qn_dequant_row_ref(y, w, i_out);
    }
}
CANARY(dequant_row, dequant_mxfp4_scales_of_row_0)

/* weight_scale_inv read as its name says: a division. */
static void dequant_divides(float *y, const qn_weight *w, uint32_t i_out)
{
    qn_dequant_row_ref(y, w, i_out);
    float scale;
    memcpy(&scale, w->scale != NULL ? w->scale : w->data, sizeof scale);
    for (uint32_t k = 0; k < w->n_in && w->kind == QN_WEIGHT_FP8_CHANNEL && i_out == 0; k++) {
        y[k] = y[k] / scale / scale;
    }
}
CANARY(dequant_row, dequant_divides)

static void dequant_scale_255_is_inf(float *y, const qn_weight *w, uint32_t i_out)
{
    qn_dequant_row_ref(y, w, i_out);
    for (uint32_t k = 0; k < w->n_in && w->kind == QN_WEIGHT_MXFP4; k++) {
        y[k] = isnan(y[k]) ? INFINITY : y[k];
    }
}
CANARY(dequant_row, dequant_scale_255_is_inf)

/* e4m3 has no Inf, and its last code is NaN, not 480. */
static void dequant_nan_code_is_480(float *y, const qn_weight *w, uint32_t i_out)
{
    qn_dequant_row_ref(y, w, i_out);
    for (uint32_t k = 0; k < w->n_in && w->kind == QN_WEIGHT_FP8_CHANNEL; k++) {
        y[k] = isnan(y[k]) ? 480.0F : y[k];
    }
}
CANARY(dequant_row, dequant_nan_code_is_480)

static void dequant_flushes_denormals(float *y, const qn_weight *w, uint32_t i_out)
{
    qn_dequant_row_ref(y, w, i_out);
    for (uint32_t k = 0; k < w->n_in; k++) {
        y[k] = fpclassify(y[k]) == FP_SUBNORMAL ? 0.0F : y[k];
    }
}
CANARY(dequant_row, dequant_flushes_denormals)

/* --------------------------------------------------------------------------------- matmul -- */

static void matmul_loses_low_bits(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (size_t t = 0; t < args->n_rows; t++) {
        for (uint32_t o = 0; o < args->out_end - args->out_first; o++) {
            float *y = &args->y[t * args->y_stride + o];
            *y *= 1.0F + 1e-3F;
        }
    }
}
CANARY(matmul, matmul_loses_low_bits)

static void matmul_drops_tail(const qn_matmul_args *args)
{
    qn_weight row = *args->w;
    qn_matmul_args part = *args;
    part.w = &row;
    row.n_in = row.n_in / 16 * 16;
    for (uint32_t o = args->out_first; o < args->out_end; o++) {
        if (row.kind != QN_WEIGHT_F32 || row.n_in == args->w->n_in) {
            qn_matmul_ref(args);
            return;
        }
        row.data = args->w->data + (size_t)o * args->w->n_in * 4;
        part.out_first = 0;
        part.out_end = 1;
        part.y = args->y + (o - args->out_first);
        qn_matmul_ref(&part);
    }
}
CANARY(matmul, matmul_drops_tail)

static void matmul_takes_rows_as_dense(const qn_matmul_args *args)
{
    qn_matmul_args wrong = *args;
    wrong.x_stride = args->w->n_in;
    qn_matmul_ref(&wrong);
}
CANARY(matmul, matmul_takes_rows_as_dense)

static void matmul_packs_outputs(const qn_matmul_args *args)
{
    qn_matmul_args wrong = *args;
    wrong.y_stride = args->out_end - args->out_first;
    qn_matmul_ref(&wrong);
}
CANARY(matmul, matmul_packs_outputs)

/* Column o instead of o - out_first. */
static void matmul_absolute_column(const qn_matmul_args *args)
{
    qn_matmul_args wrong = *args;
    wrong.y += args->out_first;
    qn_matmul_ref(&wrong);
}
CANARY(matmul, matmul_absolute_column)

static void matmul_never_rounds_activations(const qn_matmul_args *args)
{
    qn_matmul_args wrong = *args;
    wrong.compute = args->compute == QN_COMPUTE_BF16 ? QN_COMPUTE_F32 : args->compute;
    qn_matmul_ref(&wrong);
}
CANARY(matmul, matmul_never_rounds_activations)

static void matmul_int8_as_bf16(const qn_matmul_args *args)
{
    qn_matmul_args wrong = *args;
    wrong.compute = args->compute == QN_COMPUTE_INT8 ? QN_COMPUTE_BF16 : args->compute;
    qn_matmul_ref(&wrong);
}
CANARY(matmul, matmul_int8_as_bf16)

/* Another order of addition when there are several rows: bits depend on the neighbours. */
static void matmul_batch_order(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (uint32_t o = args->out_first; o < args->out_end && args->n_rows > 1; o++) {
        qn_dequant_row_ref(args->scratch, args->w, o);
        for (size_t t = 0; t < args->n_rows && args->compute == QN_COMPUTE_F32; t++) {
            float sum = 0.0F;
            for (uint32_t k = 0; k < args->w->n_in; k++) {
                sum += args->x[t * args->x_stride + k] * args->scratch[k];
            }
            args->y[t * args->y_stride + o - args->out_first] = sum;
        }
    }
}
CANARY(matmul, matmul_batch_order)

/* A zero activation skips its weight, and with it a weight of NaN. */
static void matmul_swallows_nan_weight(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (uint32_t o = args->out_first; o < args->out_end; o++) {
        qn_dequant_row_ref(args->scratch, args->w, o);
        bool has_nan = false;
        for (uint32_t k = 0; k < args->w->n_in; k++) {
            has_nan = has_nan || isnan(args->scratch[k]);
        }
        for (size_t t = 0; t < args->n_rows && has_nan; t++) {
            args->y[t * args->y_stride + o - args->out_first] = 0.0F;
        }
    }
}
CANARY(matmul, matmul_swallows_nan_weight)

static void matmul_writes_without_rows(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    if (args->n_rows == 0) {
        args->y[0] = 0.0F;
    }
}
CANARY(matmul, matmul_writes_without_rows)

/* ------------------------------------------------------------------------------- matmul_t -- */

static void matmul_t_from_row_0(float *y, const float *x, uint32_t n_x, const qn_weight *w,
                                uint32_t row_first, qn_compute compute, float *scratch)
{
    (void)row_first;
    qn_matmul_t_ref(y, x, n_x, w, 0, compute, scratch);
}
CANARY(matmul_t, matmul_t_from_row_0)

static void matmul_t_drops_last(float *y, const float *x, uint32_t n_x, const qn_weight *w,
                                uint32_t row_first, qn_compute compute, float *scratch)
{
    qn_matmul_t_ref(y, x, n_x > 1 ? n_x - 1 : n_x, w, row_first, compute, scratch);
}
CANARY(matmul_t, matmul_t_drops_last)

static void matmul_t_never_rounds(float *y, const float *x, uint32_t n_x, const qn_weight *w,
                                  uint32_t row_first, qn_compute compute, float *scratch)
{
    (void)compute;
    qn_matmul_t_ref(y, x, n_x, w, row_first, QN_COMPUTE_F32, scratch);
}
CANARY(matmul_t, matmul_t_never_rounds)

static void matmul_t_int8_in_f32(float *y, const float *x, uint32_t n_x, const qn_weight *w,
                                 uint32_t row_first, qn_compute compute, float *scratch)
{
    const qn_compute wrong = compute == QN_COMPUTE_INT8 ? QN_COMPUTE_F32 : compute;
    qn_matmul_t_ref(y, x, n_x, w, row_first, wrong, scratch);
}
CANARY(matmul_t, matmul_t_int8_in_f32)

static void matmul_t_adds_to_y(float *y, const float *x, uint32_t n_x, const qn_weight *w,
                               uint32_t row_first, qn_compute compute, float *scratch)
{
    const float before = y[0];
    qn_matmul_t_ref(y, x, n_x, w, row_first, compute, scratch);
    y[0] += before;
}
CANARY(matmul_t, matmul_t_adds_to_y)

static void matmul_t_skips_nan(float *y, const float *x, uint32_t n_x, const qn_weight *w,
                               uint32_t row_first, qn_compute compute, float *scratch)
{
    qn_matmul_t_ref(y, x, n_x, w, row_first, compute, scratch);
    for (uint32_t k = 0; k < w->n_in; k++) {
        y[k] = isnan(y[k]) ? 0.0F : y[k];
    }
}
CANARY(matmul_t, matmul_t_skips_nan)

const kc_canary kc_canaries_linear[] = {
    CANARY_OF(dequant_row, dequant_swaps_nibbles),
    CANARY_OF(dequant_row, dequant_fp8_first_row_block),
    CANARY_OF(dequant_row, dequant_fp8_first_column_block),
    CANARY_OF(dequant_row, dequant_channel_of_row_0),
    CANARY_OF(dequant_row, dequant_mxfp4_scales_of_row_0),
    CANARY_OF(dequant_row, dequant_divides),
    CANARY_OF(dequant_row, dequant_scale_255_is_inf),
    CANARY_OF(dequant_row, dequant_nan_code_is_480),
    CANARY_OF(dequant_row, dequant_flushes_denormals),
    CANARY_OF(matmul, matmul_loses_low_bits),
    CANARY_OF(matmul, matmul_drops_tail),
    CANARY_OF(matmul, matmul_takes_rows_as_dense),
    CANARY_OF(matmul, matmul_packs_outputs),
    CANARY_OF(matmul, matmul_absolute_column),
    CANARY_OF(matmul, matmul_never_rounds_activations),
    CANARY_OF(matmul, matmul_int8_as_bf16),
    CANARY_OF(matmul, matmul_batch_order),
    CANARY_OF(matmul, matmul_swallows_nan_weight),
    CANARY_OF(matmul, matmul_writes_without_rows),
    CANARY_OF(matmul_t, matmul_t_from_row_0),
    CANARY_OF(matmul_t, matmul_t_drops_last),
    CANARY_OF(matmul_t, matmul_t_never_rounds),
    CANARY_OF(matmul_t, matmul_t_int8_in_f32),
    CANARY_OF(matmul_t, matmul_t_adds_to_y),
    CANARY_OF(matmul_t, matmul_t_skips_nan),
    {NULL, NULL, NULL, false},
};
