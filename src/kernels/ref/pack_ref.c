/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numbers.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Scales of one lane: strided writes into the strip's tail. */
static void pack_scales(uint8_t *to, const qn_weight *w, uint32_t o)
{
    const size_t n_blocks = (w->n_in + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
    if (w->kind == QN_WEIGHT_MXFP4) {
        const size_t n = w->n_in / QN_MXFP4_BLOCK;
        for (size_t i = 0; i < n; i++) {
            to[i * QN_STRIP] = w->scale[o * n + i];
        }
    } else if (w->kind == QN_WEIGHT_FP8_BLOCK) {
        for (size_t i = 0; i < n_blocks; i++) {
            memcpy(to + 4 * i * QN_STRIP, w->scale + 4 * (o / QN_FP8_BLOCK * n_blocks + i), 4);
        }
    } else if (w->kind == QN_WEIGHT_FP8_CHANNEL) {
        for (size_t i = 0; i < n_blocks; i++) {
            memcpy(to + 4 * i * QN_STRIP, w->scale + 4 * (size_t)o, 4);
        }
    }
}

void qn_pack_strip_ref(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    const size_t n_bytes = qn_weight_bytes(w->kind, w->n_in);
    const size_t scale_width = w->kind == QN_WEIGHT_MXFP4 ? 1 : 4;
    uint8_t *scales = strip + qn_strip_word_bytes(w->kind, w->n_in);
    memset(strip, 0, qn_strip_bytes(w->kind, w->n_in));
    for (uint32_t lane = 0; lane < QN_STRIP && i_strip * QN_STRIP + lane < w->n_out; lane++) {
        const uint32_t o = i_strip * QN_STRIP + lane;
        const uint8_t *row = w->data + o * n_bytes;
        uint8_t *to = strip + 4 * (size_t)lane;
        for (size_t at = 0; at < n_bytes; at += 4, to += 4 * (size_t)QN_STRIP) {
            memcpy(to, row + at, n_bytes - at < 4 ? n_bytes - at : 4);
        }
        pack_scales(scales + lane * scale_width, w, o);
    }
}

static void prepare_bf16(uint8_t *to, const float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        const uint16_t bits = fabsf(x[k]) < FLT_MIN ? 0 : qn_f32_to_bf16(x[k]);
        memcpy(to + 2 * (size_t)k, &bits, sizeof bits);
    }
}

/* One block of 32 columns, those behind n zero. */
static void prepare_int8(int8_t *codes, float *scale, int32_t *offset, const float *x, uint32_t n)
{
    float amax = 0.0F;
    for (uint32_t k = 0; k < n; k++) {
        amax = fabsf(x[k]) > amax || isnan(x[k]) ? fabsf(x[k]) : amax;
        if (!isfinite(amax)) {
            break;
        }
    }
    *scale = !isfinite(amax) ? NAN : amax / 127.0F < FLT_MIN ? 0.0F : amax / 127.0F;
    *offset = 0;
    memset(codes, 0, QN_MXFP4_BLOCK);
    for (uint32_t k = 0; k<n && * scale> 0.0F; k++) {
        const int8_t code = (int8_t)rintf(x[k] / *scale);
        codes[k / 8 * 8 + (k % 2) * 4 + k % 8 / 2] = code;
        *offset -= 12 * code;
    }
}

void qn_prepare_ref(uint8_t *to, qn_act act, const float *x, uint32_t n_in, uint32_t first,
                    uint32_t end)
{
    const size_t n_k = qn_round_up(n_in, QN_PACK_K);
    const uint32_t n_zeros = end == n_in ? (uint32_t)n_k - n_in : 0;
    switch (act) {
    case QN_ACT_F32:
        memcpy(to + 4 * (size_t)first, x + first, (end - first) * sizeof *x);
        memset(to + 4 * (size_t)end, 0, 4 * (size_t)n_zeros);
        break;
    case QN_ACT_BF16:
        prepare_bf16(to + 2 * (size_t)first, x + first, end - first);
        memset(to + 2 * (size_t)end, 0, 2 * (size_t)n_zeros);
        break;
    case QN_ACT_INT8:
        for (uint32_t k = first; k < end; k += QN_MXFP4_BLOCK) {
            float scale;
            int32_t offset;
            uint8_t *const at = to + n_k + 4 * (size_t)(k / QN_MXFP4_BLOCK);
            prepare_int8((int8_t *)to + k, &scale, &offset, x + k,
                         end - k < QN_MXFP4_BLOCK ? end - k : QN_MXFP4_BLOCK);
            memcpy(at, &scale, sizeof scale);
            memcpy(at + n_k / QN_MXFP4_BLOCK * 4, &offset, sizeof offset);
        }
        break;
    }
}
