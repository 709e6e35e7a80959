/* SPDX-License-Identifier: Apache-2.0 */
/* Weights and activations on their way to a product: dequant_row, pack_strip, prepare. */
#include "kernelcheck.h"

#include <string.h>

/* Every code of a format, NaN and Inf included; of MXFP4 each pair with each scale. */
static void all_codes_case(kc *run, qn_weight_kind kind, uint32_t n_out, uint32_t n_in)
{
    kc_begin(run, "%s, all codes", kc_kind_names[kind]);
    const size_t n_bytes = kind == QN_WEIGHT_BF16 ? 131072 : 256 * (size_t)n_out;
    uint8_t *data = kc_in_bytes(run, n_bytes);
    uint8_t *scale = kc_in_bytes(run, 16 * (size_t)n_out); /* for 512 MXFP4, or four f32 */
    float *got = kc_out(run, n_in);
    for (size_t i = 0; i < n_bytes; i++) {
        data[i] = (uint8_t)(kind != QN_WEIGHT_BF16 ? i : i % 2 == 0 ? i / 2 : i / 512);
    }
    for (size_t i = 0; i < 16 * (size_t)n_out && kind == QN_WEIGHT_MXFP4; i++) {
        scale[i] = (uint8_t)(i / 16);
    }
    if (kind != QN_WEIGHT_MXFP4) {
        const float scales[2] = {0.75F, 1.1F};
        memcpy(scale, scales, sizeof scales);
    }
    const qn_weight w = {kind, n_out, n_in, data, scale};
    kc_seal(run);
    for (uint32_t o = 0; o < n_out; o++) {
        run->k->dequant_row(got, &w, o);
        for (uint32_t k = 0; k < n_in; k++) {
            if (!kc_is_exact(got[k], kc_weight_value(&w, o, k))) {
                kc_fail(run, "row %u, element %u: %g, %g expected", o, k, (double)got[k],
                        kc_weight_value(&w, o, k));
            }
        }
    }
    kc_end(run);
}

static void dequant_row_case(kc *run, qn_weight_kind kind, uint32_t n)
{
    kc_begin(run, "%s [130][%u]", kc_kind_names[kind], n);
    const qn_weight w = kc_weight(run, kind, 130, n);
    const uint32_t rows[] = {0, 1, 127, 129};
    for (size_t r = 0; r < 4; r++) {
        float *got = kc_out(run, n);
        kc_seal(run);
        run->k->dequant_row(got, &w, rows[r]);
        for (uint32_t k = 0; k < n; k++) {
            if (!kc_is_exact(got[k], kc_weight_value(&w, rows[r], k))) {
                kc_fail(run, "row %u, element %u: %g, %g expected", rows[r], k, (double)got[k],
                        kc_weight_value(&w, rows[r], k));
                break;
            }
        }
    }
    kc_end(run);
}

void check_dequant_row(kc *run)
{
    static const uint32_t widths[] = {1, 15, 16, 17, 32, 96, 128, 129, 160, 2048, 6144};
    for (int kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_MXFP4; kind++) {
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            if (kind != QN_WEIGHT_MXFP4 || widths[i] % 32 == 0) {
                dequant_row_case(run, (qn_weight_kind)kind, widths[i]);
            }
        }
    }
    all_codes_case(run, QN_WEIGHT_BF16, 1, 1 << 16);
    all_codes_case(run, QN_WEIGHT_FP8_BLOCK, 1, 256);
    all_codes_case(run, QN_WEIGHT_FP8_CHANNEL, 1, 256);
    all_codes_case(run, QN_WEIGHT_MXFP4, 256, 512);
}

/* Every strip, from a matrix at any address. */
static void pack_strip_case(kc *run, qn_weight_kind kind, uint32_t n_out, uint32_t n_in)
{
    kc_begin(run, "%s [%u][%u]", kc_kind_names[kind], n_out, n_in);
    const qn_weight w = kc_weight(run, kind, n_out, n_in);
    const size_t n_bytes = qn_strip_bytes(kind, n_in);
    uint8_t *want = kc_out_bytes(run, n_bytes);
    uint8_t *got = kc_out_bytes(run, n_bytes);
    kc_seal(run);
    for (uint32_t i = 0; i * 16 < n_out; i++) {
        memset(got, 0xff, n_bytes);
        run->k->pack_strip(got, &w, i);
        kc_pack_strip(want, &w, i);
        kc_same(run, "strip", got, want, n_bytes);
    }
    kc_end(run);
}

void check_pack_strip(kc *run)
{
    static const uint32_t outs[] = {1, 15, 16, 17, 130};
    static const uint32_t widths[] = {1,  2,  3,  4,  5,   7,   8,   15,  16,  17,  31,
                                      32, 33, 63, 96, 127, 128, 129, 160, 257, 576, 2048};
    for (int kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_MXFP4; kind++) {
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            if (kind != QN_WEIGHT_MXFP4 || widths[i] % 32 == 0) {
                pack_strip_case(run, (qn_weight_kind)kind, outs[i % 5], widths[i]);
            }
        }
        pack_strip_case(run, (qn_weight_kind)kind, 273, 160); /* three blocks of 128 rows */
    }
}

/* Same numbers: of zero either sign, of NaN any. */
static void compare_prepared(kc *run, qn_act act, const uint8_t *got, const uint8_t *want,
                             uint32_t n_in)
{
    const size_t n_k = (n_in + 31) / 32 * 32;
    const size_t width = act == QN_ACT_BF16 ? 2 : 4;
    const size_t first = act == QN_ACT_INT8 ? n_k : 0; /* of the floats */
    const size_t n = act == QN_ACT_INT8 ? n_k / 32 : n_k;
    kc_same(run, "codes", got, want, first);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits[2] = {0, 0};
        memcpy((uint8_t *)&bits[0] + 4 - width, got + first + i * width, width);
        memcpy((uint8_t *)&bits[1] + 4 - width, want + first + i * width, width);
        const float a = qn_f32_from_bits(bits[0]);
        const float b = qn_f32_from_bits(bits[1]);
        if (isnan(b) ? !isnan(a) : a != b) {
            kc_fail(run, "number %zu is %.9g, %.9g expected", i, (double)a, (double)b);
        }
    }
    kc_same(run, "offsets", got + first + n * width, want + first + n * width,
            act == QN_ACT_INT8 ? n * 4 : 0);
}

static void prepare_case(kc *run, qn_act act, uint32_t n_in, kc_fill_kind fill)
{
    double value[6144];
    kc_begin(run, "%s, %u columns, fill %d", kc_act_names[act], n_in, fill);
    const float *x = kc_in(run, n_in, fill);
    const size_t n_bytes = qn_act_row_bytes(act, n_in);
    uint8_t *want = kc_out_bytes(run, n_bytes);
    uint8_t *got = kc_out_bytes(run, n_bytes);
    uint8_t *parts = kc_out_bytes(run, n_bytes);
    kc_prepare(value, want, act, x, n_in);
    kc_seal(run);
    run->k->prepare(got, act, x, n_in, 0, n_in);
    compare_prepared(run, act, got, want, n_in);
    /* Column ranges as threads share a row: the last one first, so that an overlap shows. */
    for (uint32_t end = n_in; end > 0;) {
        const uint32_t first = (end - 1) / 32 * 32 >= 64 && end % 64 != 0 ? (end - 1) / 32 * 32 - 32
                                                                          : (end - 1) / 32 * 32;
        run->k->prepare(parts, act, x, n_in, first, end);
        end = first;
    }
    kc_same(run, "in parts", parts, got, n_bytes);
    kc_end(run);
}

/* Halves between two codes or two bf16, both signs: ties go to the even one. */
static void prepare_ties_case(kc *run, qn_act act)
{
    enum { N = 512 };
    double value[N];
    kc_begin(run, "%s, ties", kc_act_names[act]);
    float *x = kc_in(run, N, KC_UNIFORM);
    for (int i = 0; i < N; i++) {
        const float amax = i < N / 2 ? 127.0F : 1.1F + 0.01F * (float)(i / 32);
        const float half = ((float)(i % 253 - 126) + 0.5F) * (amax / 127.0F);
        x[i] = act == QN_ACT_INT8 ? (i % 32 == 0 ? amax : half) : 1.0F + (float)i * 0x1p-8F;
    }
    const size_t n_bytes = qn_act_row_bytes(act, N);
    uint8_t *want = kc_out_bytes(run, n_bytes);
    uint8_t *got = kc_out_bytes(run, n_bytes);
    kc_prepare(value, want, act, x, N);
    kc_seal(run);
    run->k->prepare(got, act, x, N, 0, N);
    compare_prepared(run, act, got, want, N);
    kc_end(run);
}

void check_prepare(kc *run)
{
    static const uint32_t widths[] = {1,  2,  3,  7,  8,  9,  15, 16,  17,  23,  24,
                                      31, 32, 33, 63, 64, 96, 97, 128, 160, 576, 6144};
    for (int act = QN_ACT_F32; act <= QN_ACT_INT8; act++) {
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            prepare_case(run, (qn_act)act, widths[i], KC_UNIFORM);
        }
        for (int fill = KC_UNIFORM; fill < KC_N_FILLS; fill++) {
            prepare_case(run, (qn_act)act, 100, (kc_fill_kind)fill);
            prepare_case(run, (qn_act)act, 33, (kc_fill_kind)fill);
        }
        prepare_ties_case(run, (qn_act)act);
    }
}
