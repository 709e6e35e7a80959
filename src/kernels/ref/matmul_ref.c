/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numbers.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

enum {
    K = QN_PACK_K, /* columns of one step; divides every block that shares a scale */
    ROWS = 8,      /* that share the decoding of a step */
};

/* Twice the e2m1 values: small integers. */
static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static uint32_t load_u32(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static float element(qn_weight_kind kind, uint32_t word, uint32_t i)
{
    switch (kind) {
    case QN_WEIGHT_F32: return qn_f32_from_bits(word);
    case QN_WEIGHT_BF16: return qn_bf16_to_f32((uint16_t)(word >> 16 * i));
    case QN_WEIGHT_FP8_BLOCK:
    case QN_WEIGHT_FP8_CHANNEL: return qn_e4m3_to_f32((uint8_t)(word >> 8 * i));
    case QN_WEIGHT_MXFP4: return 0.5F * (float)e2m1_doubled[word >> 4 * i & 15U];
    }
    return 0.0F;
}

/* Elements of a strip's step without their scales: 32 columns of 16 lanes. */
static void decode(float w[K][QN_STRIP], qn_weight_kind kind, const uint8_t *words)
{
    const uint32_t per_word = QN_STRIP * K * 4 / (uint32_t)qn_strip_word_bytes(kind, K);
    for (uint32_t k = 0; k < K; k++) {
        for (uint32_t lane = 0; lane < QN_STRIP; lane++) {
            const size_t at = (size_t)(k / per_word) * 64 + 4 * (size_t)lane;
            w[k][lane] = element(kind, load_u32(words + at), k % per_word);
        }
    }
}

/* Scales of the block that holds column k. */
static void load_scales(float scales[QN_STRIP], const qn_packed *w, const uint8_t *strip,
                        uint32_t k)
{
    const uint8_t *at = strip + qn_strip_word_bytes(w->kind, w->n_in);
    for (uint32_t lane = 0; lane < QN_STRIP; lane++) {
        if (w->kind == QN_WEIGHT_MXFP4) {
            scales[lane] = qn_e8m0_to_f32(at[k / QN_MXFP4_BLOCK * QN_STRIP + lane]);
        } else {
            memcpy(&scales[lane], at + 4 * (size_t)(k / QN_FP8_BLOCK * QN_STRIP + lane), 4);
        }
    }
}

static void load_x(float x[K], const qn_matmul_args *args, const uint8_t *row, uint32_t k_first)
{
    for (uint32_t k = 0; k < K; k++) {
        if (args->act == QN_ACT_F32) {
            x[k] = qn_f32_from_bits(load_u32(row + 4 * (size_t)(k_first + k)));
        } else {
            uint16_t bits;
            memcpy(&bits, row + 2 * (size_t)(k_first + k), sizeof bits);
            x[k] = qn_bf16_to_f32(bits);
        }
    }
}

/* sums += what 32 columns bring; with scales, the sum of a block is scaled as a whole. */
static void add_step(float sums[QN_STRIP], float w[K][QN_STRIP], const float x[K])
{
    for (uint32_t k = 0; k < K; k++) {
        for (uint32_t lane = 0; lane < QN_STRIP; lane++) {
            sums[lane] += x[k] * w[k][lane];
        }
    }
}

/* One strip with float activations: y[row][lane] of up to ROWS rows, which share the decoding. */
static void float_rows(float y[ROWS][QN_STRIP], const qn_matmul_args *args, const uint8_t *strip,
                       const uint8_t *const *rows, uint32_t n_rows)
{
    const qn_packed *w = args->w;
    const size_t step_bytes = qn_strip_word_bytes(w->kind, K);
    const bool has_scales = w->kind > QN_WEIGHT_BF16;
    const uint32_t block = w->kind == QN_WEIGHT_MXFP4 ? QN_MXFP4_BLOCK : QN_FP8_BLOCK;
    float weights[K][QN_STRIP];
    float sums[ROWS][QN_STRIP] = {{0}};
    memset(y, 0, ROWS * sizeof *y);
    for (uint32_t k = 0; k < w->n_in; k += K) {
        float scales[QN_STRIP];
        const bool ends_block = has_scales && (k + K >= w->n_in || (k + K) % block == 0);
        decode(weights, w->kind, strip + k / K * step_bytes);
        if (ends_block) {
            load_scales(scales, w, strip, k);
        }
        for (uint32_t t = 0; t < n_rows; t++) {
            float x[K];
            load_x(x, args, rows[t], k);
            add_step(has_scales ? sums[t] : y[t], weights, x);
            for (uint32_t lane = 0; lane < QN_STRIP && ends_block; lane++) {
                y[t][lane] += sums[t][lane] * scales[lane];
                sums[t][lane] = 0.0F;
            }
        }
    }
}

/* One strip and row of MXFP4 with int8 activations: exact in a block, f32 over blocks. */
static void int8_row(float y[QN_STRIP], const qn_packed *w, const uint8_t *strip,
                     const uint8_t *row)
{
    const size_t n_k = qn_round_up(w->n_in, QN_PACK_K);
    memset(y, 0, QN_STRIP * sizeof *y);
    for (uint32_t k = 0; k < w->n_in; k += QN_MXFP4_BLOCK) {
        const float x_scale =
            qn_f32_from_bits(load_u32(row + n_k + (size_t)(k / QN_MXFP4_BLOCK) * 4));
        float scales[QN_STRIP];
        load_scales(scales, w, strip, k);
        for (uint32_t lane = 0; lane < QN_STRIP; lane++) {
            int32_t sum = 0;
            for (uint32_t i = 0; i < QN_MXFP4_BLOCK; i++) {
                const size_t at = (size_t)((k + i) / 8) * 64 + 4 * (size_t)lane;
                const uint32_t word = load_u32(strip + at) >> i % 8 * 4;
                const int8_t code = (int8_t)row[k + i / 8 * 8 + i % 2 * 4 + i % 8 / 2];
                sum += e2m1_doubled[word & 15U] * code;
            }
            y[lane] += (float)sum * (0.5F * scales[lane] * x_scale);
        }
    }
}

/* One strip and up to ROWS rows: y[row][lane]. */
static void strip_rows(float y[ROWS][QN_STRIP], const qn_matmul_args *args, const uint8_t *strip,
                       uint32_t first, uint32_t n_rows)
{
    const uint8_t *rows[ROWS];
    for (uint32_t t = 0; t < n_rows; t++) {
        rows[t] = qn_matmul_row(args, first + t);
    }
    if (args->act != QN_ACT_INT8) {
        float_rows(y, args, strip, rows, n_rows);
        return;
    }
    for (uint32_t t = 0; t < n_rows; t++) {
        int8_row(y[t], args->w, strip, rows[t]);
    }
}

void qn_matmul_ref(const qn_matmul_args *args)
{
    const qn_packed *w = args->w;
    const size_t strip_bytes = qn_strip_bytes(w->kind, w->n_in);
    for (uint32_t o = args->out_first; o < args->out_end; o += QN_STRIP) {
        const uint8_t *strip = w->data + o / QN_STRIP * strip_bytes;
        const uint32_t n_lanes = args->out_end - o < QN_STRIP ? args->out_end - o : QN_STRIP;
        for (uint32_t first = 0; first < args->n_rows; first += ROWS) {
            const uint32_t n = args->n_rows - first < ROWS ? args->n_rows - first : ROWS;
            float y[ROWS][QN_STRIP];
            strip_rows(y, args, strip, first, n);
            for (uint32_t t = 0; t < n; t++) {
                memcpy(args->y + (first + t) * args->y_stride + (o - args->out_first), y[t],
                       n_lanes * sizeof y[t][0]);
            }
        }
    }
}
