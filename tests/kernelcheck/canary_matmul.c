/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong kernels for check_matmul.c. */
#include "canary.h"

#include <string.h>

/* --------------------------------------------------------------- misread weights and rows -- */

/* The right product of weights in which every strip has been spoiled. */
static void with_strips(const qn_matmul_args *args, void (*spoil)(uint8_t *, const qn_packed *))
{
    const size_t n_bytes = qn_packed_bytes(args->w->kind, args->w->n_out, args->w->n_in);
    const size_t strip_bytes = qn_strip_bytes(args->w->kind, args->w->n_in);
    uint8_t *data = malloc(n_bytes);
    if (data == NULL) {
        abort();
    }
    memcpy(data, args->w->data, n_bytes);
    for (size_t at = 0; at < n_bytes; at += strip_bytes) {
        spoil(data + at, args->w);
    }
    qn_packed w = *args->w;
    qn_matmul_args wrong = *args;
    w.data = data;
    wrong.w = &w;
    qn_matmul_ref(&wrong);
    free(data);
}

#define SPOILED_STRIPS(name, spoil)                                                                \
    static void name(const qn_matmul_args *args)                                                   \
    {                                                                                              \
        with_strips(args, spoil);                                                                  \
    }                                                                                              \
    CANARY(matmul, name)

static void swap_nibbles(uint8_t *strip, const qn_packed *w)
{
    for (size_t i = 0; i < qn_strip_word_bytes(w->kind, w->n_in) && w->kind == QN_WEIGHT_MXFP4;
         i++) {
        strip[i] = (uint8_t)(strip[i] << 4 | strip[i] >> 4);
    }
}
SPOILED_STRIPS(matmul_swaps_nibbles, swap_nibbles)

/* As unpack instructions leave them: the second and the third four lanes change places. */
static void mix_lanes(uint8_t *strip, const qn_packed *w)
{
    for (size_t i = 0; i < qn_strip_word_bytes(w->kind, w->n_in); i += 64) {
        uint8_t four[16];
        memcpy(four, strip + i + 16, 16);
        memcpy(strip + i + 16, strip + i + 32, 16);
        memcpy(strip + i + 32, four, 16);
    }
}
SPOILED_STRIPS(matmul_mixes_lanes, mix_lanes)

static void flush_subnormals(uint8_t *strip, const qn_packed *w)
{
    const bool is_fp8 = w->kind == QN_WEIGHT_FP8_BLOCK || w->kind == QN_WEIGHT_FP8_CHANNEL;
    for (size_t i = 0; i < qn_strip_word_bytes(w->kind, w->n_in) && is_fp8; i++) {
        strip[i] &= (strip[i] & 0x78) == 0 ? 0x80 : 0xff;
    }
}
SPOILED_STRIPS(matmul_flushes_e4m3_subnormals, flush_subnormals)

/* NaN as the number that its bits would be. */
static void nan_is_number(uint8_t *strip, const qn_packed *w)
{
    const bool is_fp8 = w->kind == QN_WEIGHT_FP8_BLOCK || w->kind == QN_WEIGHT_FP8_CHANNEL;
    for (size_t i = 0; i < qn_strip_word_bytes(w->kind, w->n_in) && is_fp8; i++) {
        strip[i] = (strip[i] & 0x7f) == 0x7f ? strip[i] & 0xfe : strip[i];
    }
}
SPOILED_STRIPS(matmul_nan_code_is_448, nan_is_number)

static void scale_255_is_number(uint8_t *strip, const qn_packed *w)
{
    const size_t n = qn_strip_bytes(w->kind, w->n_in);
    for (size_t i = qn_strip_word_bytes(w->kind, w->n_in); i < n && w->kind == QN_WEIGHT_MXFP4;
         i++) {
        strip[i] = strip[i] == 255 ? 254 : strip[i];
    }
}
SPOILED_STRIPS(matmul_scale_255_is_number, scale_255_is_number)

/* Every block with the scales of the one before it. */
static void shift_scales(uint8_t *strip, const qn_packed *w)
{
    const size_t width = w->kind == QN_WEIGHT_MXFP4 ? 16 : 64;
    uint8_t *scales = strip + qn_strip_word_bytes(w->kind, w->n_in);
    const size_t n_bytes = qn_strip_bytes(w->kind, w->n_in) - (size_t)(scales - strip);
    if (n_bytes > width) {
        memmove(scales + width, scales, n_bytes - width);
    }
}
SPOILED_STRIPS(matmul_scale_of_neighbour_block, shift_scales)

static void scale_of_lane_0(uint8_t *strip, const qn_packed *w)
{
    uint8_t *scales = strip + qn_strip_word_bytes(w->kind, w->n_in);
    for (size_t i = 0; i < w->n_in / 32 * 16 && w->kind == QN_WEIGHT_MXFP4; i++) {
        scales[i] = scales[i / 16 * 16];
    }
}
SPOILED_STRIPS(matmul_scale_of_lane_0, scale_of_lane_0)

static void drop_sign(uint8_t *strip, const qn_packed *w)
{
    for (size_t i = 0; i < qn_strip_word_bytes(w->kind, w->n_in) && w->kind == QN_WEIGHT_MXFP4;
         i++) {
        strip[i] &= 0x7f;
    }
}
SPOILED_STRIPS(matmul_drops_sign, drop_sign)
#undef SPOILED_STRIPS

/* The strips of outputs 16 .. 31 and 0 .. 15 the other way round. */
static void matmul_swaps_strips(const qn_matmul_args *args)
{
    const size_t strip_bytes = qn_strip_bytes(args->w->kind, args->w->n_in);
    for (uint32_t o = args->out_first; o < args->out_end; o += QN_STRIP) {
        qn_packed w = *args->w;
        qn_matmul_args part = *args;
        const uint32_t i_strip = o / QN_STRIP ^ 1U;
        w.data += (i_strip < qn_strips(w.n_out) ? i_strip : o / QN_STRIP) * strip_bytes;
        part.w = &w;
        part.y += o - args->out_first;
        part.out_first = 0;
        part.out_end = args->out_end - o < QN_STRIP ? args->out_end - o : QN_STRIP;
        qn_matmul_ref(&part);
    }
}
CANARY(matmul, matmul_swaps_strips)

/* The last columns of a width that no vector divides. */
static void matmul_drops_tail(const qn_matmul_args *args)
{
    qn_packed w = *args->w;
    qn_matmul_args wrong = *args;
    wrong.w = &w;
    const uint32_t n_whole = w.n_in / QN_PACK_K * QN_PACK_K;
    if (w.kind != QN_WEIGHT_F32 || n_whole == w.n_in || w.n_out > QN_STRIP) {
        qn_matmul_ref(args);
        return;
    }
    w.n_in = n_whole;
    qn_matmul_ref(&wrong);
}
CANARY(matmul, matmul_drops_tail)

/* Codes of a row in the order of their columns. */
static void matmul_plain_code_order(const qn_matmul_args *args)
{
    static const uint8_t from[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    uint8_t row[6144 + 6144 / 4];
    const size_t n_bytes = qn_act_row_bytes(args->act, args->w->n_in);
    for (uint32_t t = 0; t < args->n_rows && args->act == QN_ACT_INT8; t++) {
        qn_matmul_args one = *args;
        const uint8_t *right = args->x + (args->rows == NULL ? t : args->rows[t]) * args->x_stride;
        memcpy(row, right, n_bytes);
        for (uint32_t k = 0; k < args->w->n_in; k++) {
            row[k] = right[k / 8 * 8 + from[k % 8]];
        }
        one.x = row;
        one.rows = NULL;
        one.n_rows = 1;
        one.y += t * args->y_stride;
        qn_matmul_ref(&one);
    }
    if (args->act != QN_ACT_INT8) {
        qn_matmul_ref(args);
    }
}
CANARY(matmul, matmul_plain_code_order)

/* Weights stand as 2 x + 12, and nobody takes the 12 away again. */
static void matmul_forgets_offset(const qn_matmul_args *args)
{
    const qn_packed *w = args->w;
    qn_matmul_ref(args);
    const size_t strip_bytes = qn_strip_bytes(w->kind, w->n_in);
    const size_t n_k = qn_round_up(w->n_in, QN_PACK_K);
    for (uint32_t t = 0; t < args->n_rows && args->act == QN_ACT_INT8; t++) {
        const uint8_t *row = args->x + (args->rows == NULL ? t : args->rows[t]) * args->x_stride;
        for (uint32_t o = args->out_first; o < args->out_end; o++) {
            const uint8_t *scales = w->data + o / QN_STRIP * strip_bytes +
                                    qn_strip_word_bytes(w->kind, w->n_in) + o % QN_STRIP;
            for (uint32_t k = 0; k < w->n_in; k += QN_MXFP4_BLOCK) {
                float scale;
                int32_t offset;
                memcpy(&scale, row + n_k + k / 8, 4);
                memcpy(&offset, row + n_k + n_k / 8 + k / 8, 4);
                args->y[t * args->y_stride + o - args->out_first] -=
                    0.5F * (float)offset * scale * qn_e8m0_to_f32(scales[k / 2]);
            }
        }
    }
}
CANARY(matmul, matmul_forgets_offset)

/* ----------------------------------------------------------------------- rows and outputs -- */

static void matmul_takes_rows_as_dense(const qn_matmul_args *args)
{
    qn_matmul_args wrong = *args;
    wrong.x_stride = qn_act_row_bytes(args->act, args->w->n_in);
    qn_matmul_ref(&wrong);
}
CANARY(matmul, matmul_takes_rows_as_dense)

static void matmul_ignores_rows(const qn_matmul_args *args)
{
    qn_matmul_args wrong = *args;
    wrong.rows = NULL;
    qn_matmul_ref(&wrong);
}
CANARY(matmul, matmul_ignores_rows)

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

/* All 16 lanes of a last strip that has fewer. */
static void matmul_writes_whole_strips(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (uint32_t t = 0; t < args->n_rows && args->w->n_out == 15; t++) {
        args->y[t * args->y_stride + 15 - args->out_first] = 0.0F;
    }
}
CANARY(matmul, matmul_writes_whole_strips)

/* As a tile of 16 rows leaves y where there are fewer. */
static void matmul_writes_whole_row_tiles(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (size_t t = args->n_rows; t % 16 != 0; t++) {
        args->y[t * args->y_stride] = 0.0F;
    }
}
CANARY(matmul, matmul_writes_whole_row_tiles)

static void matmul_writes_without_rows(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    if (args->n_rows == 0) {
        args->y[0] = 0.0F;
    }
}
CANARY(matmul, matmul_writes_without_rows)

/* A load ahead of its use, behind the last strip ... */
static void matmul_reads_next_strip(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    const size_t n_bytes = qn_packed_bytes(args->w->kind, args->w->n_out, args->w->n_in);
    (void)*(const volatile uint8_t *)(args->w->data + n_bytes);
}
CANARY(matmul, matmul_reads_next_strip)

/* ... or behind the last row. */
static void matmul_reads_past_row(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    if (args->n_rows > 0 && args->rows == NULL) {
        (void)*(const volatile uint8_t *)(args->x + (args->n_rows - 1) * args->x_stride +
                                          qn_act_row_bytes(args->act, args->w->n_in));
    }
}
CANARY(matmul, matmul_reads_past_row)

/* ----------------------------------------------------------------------------------- bits -- */

/* Another sum for one output of row t. */
static void nudge(const qn_matmul_args *args, uint32_t t)
{
    float *y = args->y + t * args->y_stride;
    *y = nextafterf(*y, INFINITY);
}

static void matmul_batch_order(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (uint32_t t = 0; t < args->n_rows && args->n_rows >= 13; t++) {
        nudge(args, t);
    }
}
CANARY(matmul, matmul_batch_order)

/* Rows behind whole tiles of six are added in another order. */
static void matmul_tail_row_order(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (uint32_t t = args->n_rows / 6 * 6; t < args->n_rows && args->n_rows > 6; t++) {
        nudge(args, t);
    }
}
CANARY(matmul, matmul_tail_row_order)

/* Rows behind a first tile of 16 are. */
static void matmul_second_row_tile_order(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (uint32_t t = 16; t < args->n_rows; t++) {
        nudge(args, t);
    }
}
CANARY(matmul, matmul_second_row_tile_order)

static void matmul_indexed_row_order(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (uint32_t t = 0; t < args->n_rows && args->rows != NULL; t++) {
        nudge(args, t);
    }
}
CANARY(matmul, matmul_indexed_row_order)

static void matmul_cut_order(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (uint32_t t = 0; t < args->n_rows && args->out_end - args->out_first > 48; t++) {
        nudge(args, t);
    }
}
CANARY(matmul, matmul_cut_order)

static void matmul_loses_low_bits(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (size_t t = 0; t < args->n_rows; t++) {
        for (uint32_t o = 0; o < args->out_end - args->out_first; o++) {
            args->y[t * args->y_stride + o] *= 1.0F + 1e-5F;
        }
    }
}
CANARY(matmul, matmul_loses_low_bits)

const kc_canary kc_canaries_matmul[] = {
    CANARY_OF(matmul, matmul_swaps_nibbles),
    CANARY_OF(matmul, matmul_mixes_lanes),
    CANARY_OF(matmul, matmul_flushes_e4m3_subnormals),
    CANARY_OF(matmul, matmul_nan_code_is_448),
    CANARY_OF(matmul, matmul_scale_255_is_number),
    CANARY_OF(matmul, matmul_scale_of_neighbour_block),
    CANARY_OF(matmul, matmul_scale_of_lane_0),
    CANARY_OF(matmul, matmul_drops_sign),
    CANARY_OF(matmul, matmul_swaps_strips),
    CANARY_OF(matmul, matmul_drops_tail),
    CANARY_OF(matmul, matmul_plain_code_order),
    CANARY_OF(matmul, matmul_forgets_offset),
    CANARY_OF(matmul, matmul_takes_rows_as_dense),
    CANARY_OF(matmul, matmul_ignores_rows),
    CANARY_OF(matmul, matmul_packs_outputs),
    CANARY_OF(matmul, matmul_absolute_column),
    CANARY_OF(matmul, matmul_writes_whole_strips),
    CANARY_OF(matmul, matmul_writes_whole_row_tiles),
    CANARY_OF(matmul, matmul_writes_without_rows),
    {"matmul_reads_next_strip", "matmul", put_matmul_reads_next_strip, true},
    {"matmul_reads_past_row", "matmul", put_matmul_reads_past_row, true},
    CANARY_OF(matmul, matmul_batch_order),
    CANARY_OF(matmul, matmul_tail_row_order),
    CANARY_OF(matmul, matmul_second_row_tile_order),
    CANARY_OF(matmul, matmul_indexed_row_order),
    CANARY_OF(matmul, matmul_cut_order),
    CANARY_OF(matmul, matmul_loses_low_bits),
    {NULL, NULL, NULL, false},
};
