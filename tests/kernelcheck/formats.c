/* SPDX-License-Identifier: Apache-2.0 */
/* The number formats and layouts of weight.h once more, from their definitions. */
#include "kernelcheck.h"

#include <string.h>

const char *const kc_kind_names[] = {"f32", "bf16", "fp8-block", "fp8-channel", "mxfp4"};
const char *const kc_act_names[] = {"f32", "bf16", "int8"};

double kc_e4m3(uint8_t code)
{
    const int exponent = (code >> 3) & 15;
    const int mantissa = code & 7;
    const double sign = (code & 0x80) != 0 ? -1.0 : 1.0;
    if (exponent == 15 && mantissa == 7) {
        return (double)NAN;
    }
    return sign * (exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10));
}

static double e2m1(uint8_t code)
{
    const int exponent = (code >> 1) & 3;
    const double magnitude = exponent == 0 ? 0.5 * (code & 1) : ldexp(2 + (code & 1), exponent - 2);
    return (code & 8) != 0 ? -magnitude : magnitude;
}

static double load_f32(const uint8_t *at)
{
    float value;
    memcpy(&value, at, sizeof value);
    return (double)value;
}

double kc_bf16(const uint8_t *at)
{
    const int exponent = (at[1] & 127) << 1 | at[0] >> 7;
    const int mantissa = at[0] & 127;
    const double sign = (at[1] & 128) != 0 ? -1.0 : 1.0;
    if (exponent == 255) {
        return mantissa != 0 ? (double)NAN : sign * (double)INFINITY;
    }
    return sign * (exponent == 0 ? ldexp(mantissa, -133) : ldexp(128 + mantissa, exponent - 134));
}

double kc_round_bf16(float x)
{
    if (!isfinite(x) || x == 0.0F) {
        return (double)x;
    }
    const double spacing = ldexp(1.0, (ilogbf(x) < -126 ? -126 : ilogbf(x)) - 7);
    return nearbyint((double)x / spacing) * spacing; /* ties to even: the default rounding */
}

double kc_weight_value(const qn_weight *w, uint32_t o, uint32_t k)
{
    const size_t n = w->n_in;
    const size_t at = o * n + k;
    switch (w->kind) {
    case QN_WEIGHT_F32: return load_f32(w->data + 4 * at);
    case QN_WEIGHT_BF16: return kc_bf16(w->data + 2 * at);
    case QN_WEIGHT_FP8_BLOCK:
        return kc_e4m3(w->data[at]) *
               load_f32(w->scale + 4 * (o / 128 * ((n + 127) / 128) + k / 128));
    case QN_WEIGHT_FP8_CHANNEL: return kc_e4m3(w->data[at]) * load_f32(w->scale + 4 * (size_t)o);
    case QN_WEIGHT_MXFP4: {
        const uint8_t pair = w->data[at / 2];
        const uint8_t scale = w->scale[at / 32];
        return scale == 255 ? (double)NAN
                            : ldexp(e2m1((at & 1) != 0 ? pair >> 4 : pair & 15), scale - 127);
    }
    }
    return 0.0;
}

/* Finite values: random exponents near one for the formats that could hold Inf or NaN. */
static void tame(kc *run, const qn_weight *w, uint8_t *data, uint8_t *scale, size_t n_scale)
{
    const size_t n = (size_t)w->n_out * w->n_in;
    for (size_t i = 0; i < n && w->kind <= QN_WEIGHT_BF16; i++) {
        const float value = kc_uniform(run);
        const uint16_t bits = qn_f32_to_bf16(value);
        if (w->kind == QN_WEIGHT_F32) {
            memcpy(data + 4 * i, &value, sizeof value);
        } else {
            memcpy(data + 2 * i, &bits, sizeof bits);
        }
    }
    for (size_t i = 0; i < n && w->kind >= QN_WEIGHT_FP8_BLOCK && w->kind < QN_WEIGHT_MXFP4; i++) {
        data[i] = (data[i] & 0x7f) == 0x7f ? 0x40 : data[i];
    }
    for (size_t i = 0; i < n_scale; i++) {
        if (w->kind == QN_WEIGHT_MXFP4) {
            scale[i] = (uint8_t)(117 + kc_below(run, 20));
        } else {
            const float value = 0.001F + 0.01F * fabsf(kc_uniform(run));
            memcpy(scale + 4 * i, &value, sizeof value);
        }
    }
}

qn_weight kc_weight(kc *run, qn_weight_kind kind, uint32_t n_out, uint32_t n_in)
{
    static const size_t halves[] = {8, 4, 2, 2, 1}; /* bytes of two elements */
    const size_t n = (size_t)n_out * n_in;
    size_t n_scale = 0;
    if (kind == QN_WEIGHT_FP8_BLOCK) {
        n_scale = (size_t)((n_out + 127) / 128) * ((n_in + 127) / 128);
    } else if (kind == QN_WEIGHT_FP8_CHANNEL) {
        n_scale = n_out;
    } else if (kind == QN_WEIGHT_MXFP4) {
        n_scale = n / 32;
    }
    /* A byte before each: at the front of a page, where all else is aligned, weights are not. */
    uint8_t *data = kc_in_bytes(run, n * halves[kind] / 2 + 1) + 1;
    uint8_t *scale = kc_in_bytes(run, n_scale * (kind == QN_WEIGHT_MXFP4 ? 1 : 4) + 1) + 1;
    const qn_weight w = {kind, n_out, n_in, data, n_scale > 0 ? scale : NULL};
    tame(run, &w, data, scale, n_scale);
    return w;
}

/* Byte `at` of row o as it is stored; 0 outside the matrix. */
static uint8_t row_byte(const qn_weight *w, uint32_t o, size_t at)
{
    static const uint32_t half_bytes[] = {8, 4, 2, 2, 1}; /* of an element */
    const size_t n_bytes = (size_t)w->n_in * half_bytes[w->kind] / 2;
    return o < w->n_out && at < n_bytes ? w->data[o * n_bytes + at] : 0;
}

/* Bytes of the scale of row o's block i; zeros outside the matrix. */
static void scale_bytes(uint8_t to[4], const qn_weight *w, uint32_t o, size_t i)
{
    const size_t n_blocks = (w->n_in + 127) / 128;
    memset(to, 0, 4);
    if (o >= w->n_out) {
        return;
    }
    switch (w->kind) {
    case QN_WEIGHT_FP8_BLOCK: memcpy(to, w->scale + 4 * (o / 128 * n_blocks + i), 4); break;
    case QN_WEIGHT_FP8_CHANNEL: memcpy(to, w->scale + 4 * (size_t)o, 4); break;
    case QN_WEIGHT_MXFP4: to[0] = w->scale[o * (size_t)(w->n_in / 32) + i]; break;
    default: break;
    }
}

void kc_pack_strip(uint8_t *to, const qn_weight *w, uint32_t i_strip)
{
    static const uint32_t bits[] = {32, 16, 8, 8, 4};
    const size_t n_k = (w->n_in + 31) / 32 * 32;
    const size_t n_words = n_k * bits[w->kind] / 8 * 16;
    const bool is_fp8 = w->kind == QN_WEIGHT_FP8_BLOCK || w->kind == QN_WEIGHT_FP8_CHANNEL;
    const size_t n_blocks = is_fp8                       ? (w->n_in + 127) / 128
                            : w->kind == QN_WEIGHT_MXFP4 ? n_k / 32
                                                         : 0;
    const size_t width = is_fp8 ? 4 : 1;
    memset(to, 0, (n_words + n_blocks * 16 * width + 63) / 64 * 64);
    for (size_t i = 0; i < n_words; i++) {
        to[i] = row_byte(w, i_strip * 16 + i / 4 % 16, i / 64 * 4 + i % 4);
    }
    for (size_t i = 0; i < n_blocks * 16; i++) {
        uint8_t scale[4];
        scale_bytes(scale, w, i_strip * 16 + i % 16, i / 16);
        memcpy(to + n_words + i * width, scale, width);
    }
}

qn_packed kc_packed(kc *run, const qn_weight *w)
{
    const uint32_t n_strips = (w->n_out + 15) / 16;
    const size_t n_bytes = qn_packed_bytes(w->kind, w->n_out, w->n_in);
    uint8_t *data = kc_in_bytes(run, n_bytes);
    for (uint32_t i = 0; i < n_strips; i++) {
        kc_pack_strip(data + i * (n_bytes / n_strips), w, i);
    }
    return (qn_packed){w->kind, w->n_out, w->n_in, data};
}

/* A block of 32 columns, those behind n zero. */
static void int8_block(double *value, int8_t *codes, float *scale, int32_t *offset, const float *x,
                       uint32_t n)
{
    static const uint8_t places[8] = {0, 4, 1, 5, 2, 6, 3, 7}; /* order 0 2 4 6 1 3 5 7 */
    float amax = 0.0F;
    bool is_finite = true;
    for (uint32_t k = 0; k < n; k++) {
        is_finite = is_finite && isfinite(x[k]);
        amax = fmaxf(amax, fabsf(x[k]));
    }
    *scale = is_finite ? amax / 127.0F : NAN;
    *scale = *scale < 0x1p-126F ? 0.0F : *scale;
    *offset = 0;
    memset(codes, 0, 32);
    for (uint32_t k = 0; k < n; k++) {
        const int code = *scale > 0.0F ? (int)nearbyint((double)(x[k] / *scale)) : 0;
        codes[k / 8 * 8 + places[k % 8]] = (int8_t)code;
        value[k] = code * (double)*scale;
        *offset -= 12 * code;
    }
}

void kc_prepare(double *value, uint8_t *to, qn_act act, const float *x, uint32_t n_in)
{
    const size_t n_k = (n_in + 31) / 32 * 32;
    memset(to, 0, act == QN_ACT_F32 ? 4 * n_k : act == QN_ACT_BF16 ? 2 * n_k : n_k / 4 * 5);
    for (uint32_t k = 0; k < n_in && act == QN_ACT_F32; k++) {
        memcpy(to + 4 * (size_t)k, x + k, 4);
        value[k] = (double)x[k];
    }
    for (uint32_t k = 0; k < n_in && act == QN_ACT_BF16; k++) {
        value[k] = fabsf(x[k]) < 0x1p-126F ? 0.0 : kc_round_bf16(x[k]);
        const uint32_t bits = qn_f32_bits((float)value[k]) >> 16;
        to[2 * (size_t)k] = (uint8_t)bits;
        to[2 * (size_t)k + 1] = (uint8_t)(bits >> 8);
    }
    for (uint32_t k = 0; k < n_in && act == QN_ACT_INT8; k += 32) {
        float scale;
        int32_t offset;
        int8_block(value + k, (int8_t *)to + k, &scale, &offset, x + k,
                   n_in - k < 32 ? n_in - k : 32);
        memcpy(to + n_k + k / 8, &scale, 4);
        memcpy(to + n_k + n_k / 8 + k / 8, &offset, 4);
    }
}
