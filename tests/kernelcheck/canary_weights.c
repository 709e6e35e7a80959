/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong kernels for check_weights.c. */
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

/* ----------------------------------------------------------------------------- pack_strip -- */

static void pack_swaps_nibbles(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    qn_pack_strip_ref(strip, w, i_strip);
    for (size_t i = 0; i < qn_strip_word_bytes(w->kind, w->n_in) && w->kind == QN_WEIGHT_MXFP4;
         i++) {
        strip[i] = (uint8_t)(strip[i] << 4 | strip[i] >> 4);
    }
}
CANARY(pack_strip, pack_swaps_nibbles)

/* Lanes behind the last output get its row instead of zeros. */
static void pack_repeats_last_output(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    qn_pack_strip_ref(strip, w, i_strip);
    const uint32_t n_lanes = w->n_out - i_strip * QN_STRIP;
    for (size_t i = 0; i < qn_strip_word_bytes(w->kind, w->n_in) / 64 && n_lanes < QN_STRIP; i++) {
        memcpy(strip + 64 * i + 60, strip + 64 * i + 4 * (size_t)n_lanes - 4, 4);
    }
}
CANARY(pack_strip, pack_repeats_last_output)

static void pack_forgets_padding(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    const size_t n_bytes = qn_strip_bytes(w->kind, w->n_in);
    const uint8_t before = strip[n_bytes - 1];
    qn_pack_strip_ref(strip, w, i_strip);
    strip[n_bytes - 1] = w->kind == QN_WEIGHT_MXFP4 ? before : strip[n_bytes - 1];
}
CANARY(pack_strip, pack_forgets_padding)

/* Scales lane by lane, as they are stored, instead of block by block. */
static void pack_keeps_scale_order(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    qn_pack_strip_ref(strip, w, i_strip);
    uint8_t *scales = strip + qn_strip_word_bytes(w->kind, w->n_in);
    const size_t n = w->n_in / QN_MXFP4_BLOCK;
    for (uint32_t lane = 0; lane < QN_STRIP && w->kind == QN_WEIGHT_MXFP4; lane++) {
        if (i_strip * QN_STRIP + lane < w->n_out) {
            memcpy(scales + lane * n, w->scale + (i_strip * QN_STRIP + lane) * n, n);
        }
    }
}
CANARY(pack_strip, pack_keeps_scale_order)

static void pack_channel_scale_once(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    qn_pack_strip_ref(strip, w, i_strip);
    const size_t n_words = qn_strip_word_bytes(w->kind, w->n_in);
    if (w->kind == QN_WEIGHT_FP8_CHANNEL) {
        memset(strip + n_words + 64, 0, qn_strip_bytes(w->kind, w->n_in) - n_words - 64);
    }
}
CANARY(pack_strip, pack_channel_scale_once)

/* The scales of the first 128 rows for all. */
static void pack_first_row_block(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    qn_pack_strip_ref(strip, w, i_strip);
    uint8_t *scales = strip + qn_strip_word_bytes(w->kind, w->n_in);
    for (uint32_t k = 0; k < w->n_in && w->kind == QN_WEIGHT_FP8_BLOCK; k += QN_FP8_BLOCK) {
        memcpy(scales + k / QN_FP8_BLOCK * 64, w->scale + 4 * (size_t)(k / QN_FP8_BLOCK), 4);
    }
}
CANARY(pack_strip, pack_first_row_block)

/* Whole words from a row whose end is none. */
static void pack_reads_past_row(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    qn_pack_strip_ref(strip, w, i_strip);
    const size_t n = (size_t)w->n_out * w->n_in;
    if (w->kind == QN_WEIGHT_FP8_CHANNEL && w->n_in % 4 != 0) {
        strip[1] = (uint8_t)(strip[1] + 0 * *(const volatile uint8_t *)(w->data + n));
    }
}
CANARY(pack_strip, pack_reads_past_row)

/* -------------------------------------------------------------------------------- prepare -- */

static void prepare_truncates(uint8_t *to, qn_act act, const float *x, uint32_t n_in,
                              uint32_t first, uint32_t end)
{
    qn_prepare_ref(to, act, x, n_in, first, end);
    for (uint32_t k = first; k < end && act == QN_ACT_BF16; k++) {
        const uint16_t bits = (uint16_t)(qn_f32_bits(x[k]) >> 16);
        memcpy(to + 2 * (size_t)k, &bits, sizeof bits);
    }
}
CANARY(prepare, prepare_truncates)

static void prepare_keeps_denormals(uint8_t *to, qn_act act, const float *x, uint32_t n_in,
                                    uint32_t first, uint32_t end)
{
    qn_prepare_ref(to, act, x, n_in, first, end);
    for (uint32_t k = first; k < end && act == QN_ACT_BF16; k++) {
        const uint16_t bits = qn_f32_to_bf16(x[k]);
        memcpy(to + 2 * (size_t)k, &bits, sizeof bits);
    }
}
CANARY(prepare, prepare_keeps_denormals)

static void prepare_forgets_zeros(uint8_t *to, qn_act act, const float *x, uint32_t n_in,
                                  uint32_t first, uint32_t end)
{
    const size_t last = qn_act_row_bytes(act, n_in) - 1;
    const uint8_t before = to[last];
    qn_prepare_ref(to, act, x, n_in, first, end);
    to[last] = act == QN_ACT_BF16 && n_in % 32 != 0 ? before : to[last];
}
CANARY(prepare, prepare_forgets_zeros)

/* Zeros up to the end of the row after every part. */
static void prepare_clears_next_part(uint8_t *to, qn_act act, const float *x, uint32_t n_in,
                                     uint32_t first, uint32_t end)
{
    qn_prepare_ref(to, act, x, n_in, first, end);
    if (act == QN_ACT_F32 && end < n_in) {
        memset(to + 4 * (size_t)end, 0, 4);
    }
}
CANARY(prepare, prepare_clears_next_part)

/* int8 with a hole for each mistake: where code k of 8 goes, what an offset counts, the quotient.
 */
static void prepare_int8_by(uint8_t *to, const float *x, const uint32_t range[3],
                            const uint8_t places[8], int per_code, float (*code_of)(float, float))
{
    const size_t n_k = qn_round_up(range[0], QN_PACK_K);
    for (uint32_t k = range[1]; k < range[2]; k += 32) {
        float scale;
        int32_t offset = 0;
        memcpy(&scale, to + n_k + k / 8, 4);
        for (uint32_t i = k; i < k + 32 && i < range[2] && scale > 0.0F; i++) {
            const int8_t code = (int8_t)code_of(x[i], scale);
            to[i / 8 * 8 + places[i % 8]] = (uint8_t)code;
            offset -= per_code * code;
        }
        memcpy(to + n_k + n_k / 8 + k / 8, &offset, 4);
    }
}

static const uint8_t right_places[8] = {0, 4, 1, 5, 2, 6, 3, 7};
static const uint8_t plain_places[8] = {0, 1, 2, 3, 4, 5, 6, 7};

static float right_code(float x, float scale)
{
    return rintf(x / scale);
}

static float code_by_reciprocal(float x, float scale)
{
    return rintf(x * (1.0F / scale));
}

static float code_away_from_zero(float x, float scale)
{
    return roundf(x / scale);
}

#define PREPARE_INT8(name, places, per_code, code_of)                                              \
    static void name(uint8_t *to, qn_act act, const float *x, uint32_t n_in, uint32_t first,       \
                     uint32_t end)                                                                 \
    {                                                                                              \
        qn_prepare_ref(to, act, x, n_in, first, end);                                              \
        if (act == QN_ACT_INT8) {                                                                  \
            const uint32_t range[3] = {n_in, first, end};                                          \
            prepare_int8_by(to, x, range, places, per_code, code_of);                              \
        }                                                                                          \
    }                                                                                              \
    CANARY(prepare, name)
PREPARE_INT8(prepare_plain_order, plain_places, 12, right_code)
PREPARE_INT8(prepare_forgets_offset, right_places, 0, right_code)
PREPARE_INT8(prepare_by_reciprocal, right_places, 12, code_by_reciprocal)
PREPARE_INT8(prepare_ties_away, right_places, 12, code_away_from_zero)
#undef PREPARE_INT8

/* The least scales are denormal: their reciprocal would be Inf. */
static void prepare_keeps_least_scale(uint8_t *to, qn_act act, const float *x, uint32_t n_in,
                                      uint32_t first, uint32_t end)
{
    qn_prepare_ref(to, act, x, n_in, first, end);
    const float scale = fabsf(x[first]) / 127.0F;
    if (act == QN_ACT_INT8 && scale > 0.0F && scale < 0x1p-126F) {
        memcpy(to + qn_round_up(n_in, QN_PACK_K) + first / 8, &scale, 4);
    }
}
CANARY(prepare, prepare_keeps_least_scale)

/* x > amax ? x : amax passes over NaN. */
static void prepare_swallows_nan(uint8_t *to, qn_act act, const float *x, uint32_t n_in,
                                 uint32_t first, uint32_t end)
{
    float clean[6144];
    for (uint32_t k = first; k < end; k++) {
        clean[k] = isnan(x[k]) && act == QN_ACT_INT8 ? 0.0F : x[k];
    }
    qn_prepare_ref(to, act, clean, n_in, first, end);
}
CANARY(prepare, prepare_swallows_nan)

const kc_canary kc_canaries_weights[] = {
    CANARY_OF(dequant_row, dequant_swaps_nibbles),
    CANARY_OF(dequant_row, dequant_fp8_first_row_block),
    CANARY_OF(dequant_row, dequant_fp8_first_column_block),
    CANARY_OF(dequant_row, dequant_channel_of_row_0),
    CANARY_OF(dequant_row, dequant_mxfp4_scales_of_row_0),
    CANARY_OF(dequant_row, dequant_divides),
    CANARY_OF(dequant_row, dequant_scale_255_is_inf),
    CANARY_OF(dequant_row, dequant_nan_code_is_480),
    CANARY_OF(dequant_row, dequant_flushes_denormals),
    CANARY_OF(pack_strip, pack_swaps_nibbles),
    CANARY_OF(pack_strip, pack_repeats_last_output),
    CANARY_OF(pack_strip, pack_forgets_padding),
    CANARY_OF(pack_strip, pack_keeps_scale_order),
    CANARY_OF(pack_strip, pack_channel_scale_once),
    CANARY_OF(pack_strip, pack_first_row_block),
    {"pack_reads_past_row", "pack_strip", put_pack_reads_past_row, true},
    CANARY_OF(prepare, prepare_truncates),
    CANARY_OF(prepare, prepare_keeps_denormals),
    CANARY_OF(prepare, prepare_forgets_zeros),
    CANARY_OF(prepare, prepare_clears_next_part),
    CANARY_OF(prepare, prepare_plain_order),
    CANARY_OF(prepare, prepare_forgets_offset),
    CANARY_OF(prepare, prepare_by_reciprocal),
    CANARY_OF(prepare, prepare_ties_away),
    CANARY_OF(prepare, prepare_keeps_least_scale),
    CANARY_OF(prepare, prepare_swallows_nan),
    {NULL, NULL, NULL, false},
};
