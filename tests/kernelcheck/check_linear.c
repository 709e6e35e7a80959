/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelcheck.h"

#include <string.h>

static const char *const kind_names[] = {"f32", "bf16", "fp8-block", "fp8-channel", "mxfp4"};

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
        return (double)(float)(kc_e4m3(w->data[at]) *
                               load_f32(w->scale + 4 * (o / 128 * ((n + 127) / 128) + k / 128)));
    case QN_WEIGHT_FP8_CHANNEL:
        return (double)(float)(kc_e4m3(w->data[at]) * load_f32(w->scale + 4 * (size_t)o));
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

/* Every code of a format, NaN and Inf included; of MXFP4 each pair with each scale. */
static void all_codes_case(kc *run, qn_weight_kind kind, uint32_t n_out, uint32_t n_in)
{
    kc_begin(run, "%s, all codes", kind_names[kind]);
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
    kc_begin(run, "%s [130][%u]", kind_names[kind], n);
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

/* int8 mode by its definition, block by block; the products of a block are exact integers. */
static double int8_sum(const float *x, const qn_weight *w, uint32_t o, double *size)
{
    double sum = 0.0;
    *size = 0.0;
    for (uint32_t b = 0; b < w->n_in; b += 32) {
        float amax = 0.0F;
        for (uint32_t k = b; k < b + 32; k++) {
            amax = fabsf(x[k]) > amax ? fabsf(x[k]) : amax;
        }
        const float scale = amax / 127.0F;
        double block = 0.0;
        for (uint32_t k = b; k < b + 32 && amax > 0.0F; k++) {
            block += nearbyint((double)(x[k] / scale)) * kc_weight_value(w, o, k);
        }
        sum += block * (double)scale;
        *size += fabs(block * (double)scale);
    }
    return sum;
}

static void expect_product(double *want, double *size, const float *x, const qn_weight *w,
                           uint32_t o, qn_compute compute)
{
    *want = 0.0;
    *size = 0.0;
    if (compute == QN_COMPUTE_INT8 && w->kind == QN_WEIGHT_MXFP4) {
        *want = int8_sum(x, w, o, size);
    } else {
        for (uint32_t k = 0; k < w->n_in; k++) {
            const double xk = compute == QN_COMPUTE_F32 ? (double)x[k] : kc_round_bf16(x[k]);
            *want += xk * kc_weight_value(w, o, k);
            *size += fabs(xk * kc_weight_value(w, o, k));
        }
    }
    *size = (w->n_in / 16.0 + 8.0) * 0x1p-24 * *size + w->n_in * 0x1p-149;
}

static void matmul_case(kc *run, qn_weight_kind kind, uint32_t n_out, uint32_t n_in,
                        uint32_t n_rows, qn_compute compute)
{
    static const char *const compute_names[] = {"auto", "f32", "bf16", "int8"};
    kc_begin(run, "%s %s [%u][%u] x %u rows", kind_names[kind], compute_names[compute], n_out, n_in,
             n_rows);
    const qn_weight w = kc_weight(run, kind, n_out, n_in);
    enum { GAP = 3 };
    const size_t x_stride = n_in + GAP; /* a kernel that takes n_in for it meets other rows */
    const size_t y_stride = n_out + GAP;
    float *x = kc_in(run, n_rows * x_stride, (kc_fill_kind)kc_below(run, KC_LEAST));
    for (size_t i = 0; i < n_rows * x_stride; i++) {
        x[i] = i % x_stride < n_in ? x[i] : NAN;
    }
    float *y = kc_out(run, n_rows * y_stride);
    float *part = kc_out(run, n_out);
    float *scratch = kc_out(run, n_in);
    kc_seal(run);
    qn_matmul_args args = {y, y_stride, x, x_stride, &w, n_rows, 0, n_out, compute, scratch};
    run->k->matmul(&args);
    const uint32_t step = 1 + n_out / 7;
    for (uint32_t t = 0; t < n_rows; t++) {
        for (uint32_t o = t % step; o < n_out; o += step) {
            double want;
            double size;
            expect_product(&want, &size, x + t * x_stride, &w, o, compute);
            kc_close(run, "y", y + t * y_stride + o, &want, &size, 1, kc_bound("matmul"));
        }
    }
    for (size_t t = 0; t < n_rows; t++) {
        for (uint32_t o = 0; o < n_out; o++) {
            if (isnan(y[t * y_stride + o])) {
                kc_fail(run, "row %zu, output %u was not written", t, o);
            }
        }
        kc_untouched(run, "gap between rows", y + t * y_stride + n_out, GAP);
    }
    /* The last row alone, its outputs in two parts: the same bits. */
    if (n_rows > 0) {
        const uint32_t middle = n_out / 2;
        args = (qn_matmul_args){
            part, n_out, x + (n_rows - 1) * x_stride, n_in, &w, 1, 0, middle, compute, scratch};
        run->k->matmul(&args);
        args.y = part + middle;
        args.out_first = middle;
        args.out_end = n_out;
        run->k->matmul(&args);
        kc_same(run, "a row alone and in parts", part, y + (n_rows - 1) * y_stride,
                n_out * sizeof *y);
    }
    kc_end(run);
}

/* NaN and Inf of the activations reach every output of their row, and no other row. */
static void matmul_nan_case(kc *run, qn_weight_kind kind, qn_compute compute)
{
    kc_begin(run, "%s, NaN and Inf, compute %d", kind_names[kind], compute);
    const qn_weight w = kc_weight(run, kind, 4, 64);
    float *x = kc_in(run, 192, KC_UNIFORM);
    float *y = kc_out(run, 12);
    float *scratch = kc_out(run, 64);
    x[3] = NAN;
    x[64 + 40] = INFINITY;
    kc_seal(run);
    const qn_matmul_args args = {y, 4, x, 64, &w, 3, 0, 4, compute, scratch};
    run->k->matmul(&args);
    for (int i = 0; i < 12; i++) {
        const bool is_right = i < 4 ? isnan(y[i]) : i < 8 ? !isfinite(y[i]) : isfinite(y[i]);
        if (!is_right) {
            kc_fail(run, "y[%d] is %g", i, (double)y[i]);
        }
    }
    kc_end(run);
}

/* A weight of NaN reaches its output for every row, and no other output. */
static void matmul_nan_weight_case(kc *run, qn_weight_kind kind, qn_compute compute)
{
    static const uint8_t nan_codes[][4] = {
        {0, 0, 0xc0, 0x7f}, {0xc0, 0x7f}, {0x7f}, {0x7f}, {0x22}};
    static const size_t n_bytes[] = {4, 2, 1, 1, 1};
    kc_begin(run, "%s, a weight of NaN, compute %d", kind_names[kind], compute);
    qn_weight w = kc_weight(run, kind, 3, 64);
    float *x = kc_in(run, 128, KC_UNIFORM);
    float *y = kc_out(run, 6);
    float *scratch = kc_out(run, 64);
    uint8_t *data = kc_in_bytes(run, 64 * n_bytes[kind] * 3);
    uint8_t *scale = kc_in_bytes(run, 6);
    memcpy(data, w.data, (kind == QN_WEIGHT_MXFP4 ? 32 : 64 * n_bytes[kind]) * 3);
    memcpy(data + (64 + 16) * n_bytes[kind] / (kind == QN_WEIGHT_MXFP4 ? 2 : 1), nan_codes[kind],
           n_bytes[kind]);
    w.data = data;
    if (kind == QN_WEIGHT_MXFP4) { /* its only NaN is the scale of a block */
        memcpy(scale, w.scale, 6);
        scale[2] = 255;
        w.scale = scale;
    }
    kc_seal(run);
    const qn_matmul_args args = {y, 3, x, 64, &w, 2, 0, 3, compute, scratch};
    run->k->matmul(&args);
    for (int i = 0; i < 6; i++) {
        if (isnan(y[i]) != (i % 3 == 1)) {
            kc_fail(run, "y[%d] is %g", i, (double)y[i]);
        }
    }
    kc_end(run);
}

/* No rows: an expert that nobody chose.  Nothing is written, and nothing has to be readable. */
static void matmul_no_rows_case(kc *run, qn_weight_kind kind, qn_compute compute)
{
    kc_begin(run, "%s, no rows, compute %d", kind_names[kind], compute);
    const qn_weight w = kc_weight(run, kind, 5, 64);
    float *x = kc_in(run, 0, KC_UNIFORM);
    float *y = kc_out(run, 5);
    float *scratch = kc_out(run, 64);
    kc_seal(run);
    const qn_matmul_args args = {y, 5, x, 64, &w, 0, 0, 5, compute, scratch};
    run->k->matmul(&args);
    kc_untouched(run, "y", y, 5);
    kc_end(run);
}

void check_matmul(kc *run)
{
    static const uint32_t widths[] = {1, 15, 16, 17, 31, 33, 64, 160, 2048, 6144};
    static const uint32_t outs[] = {1, 3, 130};
    for (uint32_t i = 0; i < 5 * 10 * 3 * 3; i++) {
        const qn_compute compute = (qn_compute)(QN_COMPUTE_F32 + i % 3);
        const uint32_t i_out = i / 3 % 3;
        const uint32_t i_width = i / 9 % 10;
        const qn_weight_kind kind = (qn_weight_kind)(i / 90);
        if (kind != QN_WEIGHT_MXFP4 || widths[i_width] % 32 == 0) {
            matmul_case(run, kind, outs[i_out], widths[i_width],
                        widths[i_width] > 2000 ? 2 : (i_width + i_out) % 4, compute);
        }
    }
    for (int i = 0; i < 5 * 3; i++) {
        const qn_weight_kind kind = (qn_weight_kind)(i / 3);
        const qn_compute compute = (qn_compute)(QN_COMPUTE_F32 + i % 3);
        matmul_nan_case(run, kind, compute);
        matmul_nan_weight_case(run, kind, compute);
        matmul_no_rows_case(run, kind, compute);
    }
}

/* NaN in x reaches every element; a NaN scale of MXFP4 reaches the elements of its block. */
static void matmul_t_nan_case(kc *run, qn_compute compute)
{
    kc_begin(run, "NaN, compute %d", compute);
    qn_weight w = kc_weight(run, QN_WEIGHT_MXFP4, 5, 64);
    float *x = kc_in(run, 3, KC_UNIFORM);
    float *bad = kc_in(run, 3, KC_UNIFORM);
    uint8_t *scale = kc_in_bytes(run, 10);
    float *y = kc_out(run, 64);
    float *y_bad = kc_out(run, 64);
    float *scratch = kc_out(run, 64);
    bad[2] = compute == QN_COMPUTE_BF16 ? qn_f32_from_bits(0x7f800001U)
                                        : NAN; /* rounding must not make it Inf */
    memcpy(scale, w.scale, 10);
    scale[2 * 2 + 1] = 255; /* row 2, block 1 */
    kc_seal(run);
    run->k->matmul_t(y_bad, bad, 3, &w, 2, compute, scratch);
    w.scale = scale;
    run->k->matmul_t(y, x, 3, &w, 2, compute, scratch);
    for (int k = 0; k < 64; k++) {
        if (!isnan(y_bad[k]) || isnan(y[k]) != (k >= 32)) {
            kc_fail(run, "element %d: %g from x, %g from a scale", k, (double)y_bad[k],
                    (double)y[k]);
        }
    }
    kc_end(run);
}

static void matmul_t_case(kc *run, qn_weight_kind kind, const uint32_t *shape, qn_compute compute)
{
    const uint32_t n_x = shape[0];
    const uint32_t n_in = shape[1];
    const uint32_t first = shape[2];
    kc_begin(run, "%s [%u + %u][%u]", kind_names[kind], first, n_x, n_in);
    const qn_weight w = kc_weight(run, kind, first + n_x, n_in);
    float *x = kc_in(run, n_x, (kc_fill_kind)kc_below(run, KC_TINY));
    float *y = kc_out(run, n_in);
    float *scratch = kc_out(run, n_in);
    kc_seal(run);
    run->k->matmul_t(y, x, n_x, &w, first, compute, scratch);
    for (uint32_t k = 0; k < n_in; k++) {
        double want = 0.0;
        double size = 0.0;
        for (uint32_t r = 0; r < n_x; r++) {
            const double xr = compute == QN_COMPUTE_F32 ? (double)x[r] : kc_round_bf16(x[r]);
            want += xr * kc_weight_value(&w, first + r, k);
            size += fabs(xr * kc_weight_value(&w, first + r, k));
        }
        size *= (n_x + 2.0) * 0x1p-24;
        kc_close(run, "y", y + k, &want, &size, 1, kc_bound("matmul_t"));
    }
    kc_end(run);
}

void check_matmul_t(kc *run)
{
    static const uint32_t shapes[][3] = {{1, 1, 0},       {17, 15, 3},  {33, 16, 1},
                                         {192, 512, 192}, {24, 44, 20}, {40, 96, 7}};
    for (int i = 0; i < 5 * 6 * 3; i++) {
        const qn_weight_kind kind = (qn_weight_kind)(i / 18);
        const uint32_t *shape = shapes[i / 3 % 6];
        if (kind != QN_WEIGHT_MXFP4 || shape[1] % 32 == 0) {
            matmul_t_case(run, kind, shape, (qn_compute)(QN_COMPUTE_F32 + i % 3));
        }
    }
    for (int c = QN_COMPUTE_F32; c <= QN_COMPUTE_INT8; c++) {
        matmul_t_nan_case(run, (qn_compute)c);
    }
}
