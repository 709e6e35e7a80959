/* SPDX-License-Identifier: Apache-2.0 */
/* Products of packed weights and prepared rows. */
#include "kernelcheck.h"

#include <string.h>

enum { ROWS_MAX = 40, GAP = 3 };

/* Everything of one product but the rows and outputs of a call. */
typedef struct product {
    qn_weight w;
    qn_packed packed;
    qn_act act;
    uint32_t n_rows;
    float *x; /* [n_rows][n_in] */
    uint8_t *prepared;
    size_t x_stride;
    double *value; /* [n_rows][n_in] of the prepared rows */
} product;

static double g_values[ROWS_MAX * 6144];

/* Rounds the rows of x; a kernel that takes another stride for theirs meets NaN. */
static void prepare_rows(kc *run, product *p)
{
    const size_t row_bytes = qn_act_row_bytes(p->act, p->w.n_in);
    p->x_stride = row_bytes + 24;
    p->value = g_values;
    const size_t n_bytes = p->n_rows > 0 ? (p->n_rows - 1) * p->x_stride + row_bytes : 0;
    p->prepared = kc_in_bytes(run, n_bytes);
    memset(p->prepared, 0xff, n_bytes);
    for (size_t t = 0; t < p->n_rows; t++) {
        kc_prepare(p->value + t * p->w.n_in, p->prepared + t * p->x_stride, p->act,
                   p->x + t * p->w.n_in, p->w.n_in);
    }
}

static product make_product(kc *run, qn_weight_kind kind, qn_act act, const uint32_t size[3],
                            kc_fill_kind fill)
{
    product p = {.w = kc_weight(run, kind, size[0], size[1]), .act = act, .n_rows = size[2]};
    p.packed = kc_packed(run, &p.w);
    p.x = kc_in(run, (size_t)p.n_rows * p.w.n_in, fill);
    prepare_rows(run, &p);
    return p;
}

/* A call for all rows and outputs. */
static qn_matmul_args all_of(const product *p, float *y)
{
    return (qn_matmul_args){.y = y,
                            .y_stride = p->w.n_out + GAP,
                            .x = p->prepared,
                            .x_stride = p->x_stride,
                            .w = &p->packed,
                            .act = p->act,
                            .n_rows = p->n_rows,
                            .out_end = p->w.n_out};
}

/*
 * Some outputs of every row against f64; the rest of y has to be written, the gaps must not be.  In
 * the second placement kc_end() wants the bits of the first, which says all that f64 could.
 */
static void check_outputs(kc *run, const product *p, const float *y, uint32_t step)
{
    static double weights[6144];
    const uint32_t n_in = p->w.n_in;
    const size_t y_stride = p->w.n_out + GAP;
    for (uint32_t o = 0; o < p->w.n_out && !run->at_front; o += step) {
        for (uint32_t k = 0; k < n_in; k++) {
            weights[k] = kc_weight_value(&p->w, o, k);
        }
        for (uint32_t t = 0; t < p->n_rows; t++) {
            const double *x = p->value + (size_t)t * n_in;
            double want = 0.0;
            double size = 0.0;
            double sum_x = 0.0;
            for (uint32_t k = 0; k < n_in; k++) {
                want += x[k] * weights[k];
                size += fabs(x[k] * weights[k]);
                sum_x += fabs(x[k]);
            }
            size = (n_in + 8.0) * 0x1p-24 * size + 0x1p-126 * (sum_x + n_in);
            kc_close(run, "y", y + t * y_stride + o, &want, &size, 1, kc_bound("matmul"));
        }
    }
    for (size_t t = 0; t < p->n_rows; t++) {
        for (uint32_t o = 0; o < p->w.n_out; o++) {
            if (isnan(y[t * y_stride + o])) {
                kc_fail(run, "row %zu, output %u was not written", t, o);
            }
        }
        kc_untouched(run, "gap between rows", y + t * y_stride + p->w.n_out, GAP);
    }
}

static void matmul_case(kc *run, qn_weight_kind kind, qn_act act, const uint32_t size[3])
{
    kc_begin(run, "%s x %s [%u][%u] x %u rows", kc_kind_names[kind], kc_act_names[act], size[0],
             size[1], size[2]);
    const product p = make_product(run, kind, act, size, (kc_fill_kind)kc_below(run, KC_LEAST + 1));
    float *y = kc_out(run, (size_t)p.n_rows * (p.w.n_out + GAP));
    kc_seal(run);
    const qn_matmul_args args = all_of(&p, y);
    run->k->matmul(&args);
    check_outputs(run, &p, y, 1 + p.w.n_out / 11);
    kc_end(run);
}

/*
 * Rows that are 1 in one column and 0 elsewhere read the weights one by one: a wrong order, block,
 * code or scale has nothing to hide behind.
 */
static void matmul_one_hot_case(kc *run, qn_weight_kind kind, qn_act act, uint32_t k_first)
{
    enum { N_IN = 288, N_OUT = 272, N_ROWS = 36 };
    kc_begin(run, "%s x %s, one column a row, from %u", kc_kind_names[kind], kc_act_names[act],
             k_first);
    const uint32_t size[3] = {N_OUT, N_IN, N_ROWS};
    product p = make_product(run, kind, act, size, KC_ZERO);
    for (uint32_t t = 0; t < N_ROWS; t++) {
        p.x[t * N_IN + k_first + t] = 1.0F;
    }
    prepare_rows(run, &p);
    float *y = kc_out(run, (size_t)N_ROWS * (N_OUT + GAP));
    kc_seal(run);
    const qn_matmul_args args = all_of(&p, y);
    run->k->matmul(&args);
    check_outputs(run, &p, y, 1);
    kc_end(run);
}

/* One row of all that `rows` may name, alone in a call, one strip at a time. */
static void rows_alone(kc *run, const product *p, float *y)
{
    for (uint32_t t = 0; t < p->n_rows; t++) {
        for (uint32_t o = 0; o < p->w.n_out; o += QN_STRIP) {
            qn_matmul_args args = all_of(p, y + (size_t)t * p->w.n_out + o);
            args.x += t * p->x_stride;
            args.n_rows = 1;
            args.out_first = o;
            args.out_end = o + QN_STRIP < p->w.n_out ? o + QN_STRIP : p->w.n_out;
            run->k->matmul(&args);
        }
    }
}

/*
 * A row has the same bits alone and among any number of others, at any place, named by an index or
 * not, with all outputs in one call or in parts.
 */
static void matmul_bits_case(kc *run, qn_weight_kind kind, qn_act act, const uint32_t size[2])
{
    static const uint32_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 24, 31, 33, 40};
    kc_begin(run, "%s x %s [%u][%u], rows among rows", kc_kind_names[kind], kc_act_names[act],
             size[0], size[1]);
    const uint32_t n_out = size[0];
    const product p =
        make_product(run, kind, act, (const uint32_t[3]){n_out, size[1], ROWS_MAX}, KC_UNIFORM);
    float *alone = kc_out(run, (size_t)ROWS_MAX * n_out);
    float *y = kc_out(run, (size_t)ROWS_MAX * (n_out + GAP));
    uint32_t *rows = (uint32_t *)(void *)kc_in_bytes(run, ROWS_MAX * sizeof *rows);
    for (uint32_t t = 0; t < ROWS_MAX; t++) {
        rows[t] = kc_below(run, ROWS_MAX); /* some twice, none in order */
    }
    kc_seal(run);
    rows_alone(run, &p, alone);
    for (size_t i = 0; i < 2 * sizeof counts / sizeof *counts; i++) {
        const bool is_indexed = i % 2 == 1;
        const uint32_t n_rows = counts[i / 2];
        const uint32_t first = ROWS_MAX - n_rows; /* another place for each count */
        const uint32_t cut = n_out > QN_STRIP && i % 3 == 0 ? (n_out - 1) / 32 * 16 : 0;
        qn_matmul_args args = all_of(&p, y);
        args.n_rows = n_rows;
        args.rows = is_indexed ? rows + first : NULL;
        args.x += is_indexed ? 0 : first * p.x_stride;
        args.out_end = cut > 0 ? cut : n_out;
        run->k->matmul(&args);
        args.y += args.out_end;
        args.out_first = args.out_end;
        args.out_end = n_out;
        if (cut > 0) {
            run->k->matmul(&args);
        }
        for (size_t t = 0; t < n_rows; t++) {
            const size_t i_row = is_indexed ? rows[first + t] : first + t;
            kc_same(run, "a row among others", y + t * (n_out + GAP), alone + i_row * n_out,
                    n_out * sizeof *y);
        }
    }
    kc_end(run);
}

/* NaN and Inf of the activations reach every output of their row, and no other row. */
static void matmul_nan_case(kc *run, qn_weight_kind kind, qn_act act)
{
    enum { N_OUT = 20, N_IN = 64, N_ROWS = 9 };
    kc_begin(run, "%s x %s, NaN and Inf", kc_kind_names[kind], kc_act_names[act]);
    product p = make_product(run, kind, act, (const uint32_t[3]){N_OUT, N_IN, N_ROWS}, KC_UNIFORM);
    float *y = kc_out(run, (size_t)N_ROWS * (N_OUT + GAP));
    p.x[3] = NAN;
    p.x[N_IN + 40] = INFINITY;
    prepare_rows(run, &p);
    kc_seal(run);
    const qn_matmul_args args = all_of(&p, y);
    run->k->matmul(&args);
    for (int i = 0; i < N_ROWS * N_OUT; i++) {
        const float got = y[i / N_OUT * (N_OUT + GAP) + i % N_OUT];
        const bool is_right = i < N_OUT       ? isnan(got)
                              : i < 2 * N_OUT ? !isfinite(got)
                                              : isfinite(got);
        if (!is_right) {
            kc_fail(run, "row %d, output %d is %g", i / N_OUT, i % N_OUT, (double)got);
        }
    }
    kc_end(run);
}

/* A weight of NaN reaches its output for every row, and no other output. */
static void matmul_nan_weight_case(kc *run, qn_weight_kind kind, qn_act act)
{
    enum { N_OUT = 3, N_IN = 64, N_ROWS = 7 };
    static const uint8_t nan_codes[][4] = {{0, 0, 0xc0, 0x7f}, {0xc0, 0x7f}, {0x7f}, {0x7f}};
    static const size_t n_bytes[] = {4, 2, 1, 1};
    kc_begin(run, "%s x %s, a weight of NaN", kc_kind_names[kind], kc_act_names[act]);
    const uint32_t size[3] = {N_OUT, N_IN, N_ROWS};
    product p = make_product(run, kind, act, size, KC_UNIFORM);
    float *y = kc_out(run, (size_t)N_ROWS * (N_OUT + GAP));
    if (kind == QN_WEIGHT_MXFP4) { /* its only NaN is the scale of a block */
        uint8_t *scale = kc_in_bytes(run, N_OUT * N_IN / 32);
        memcpy(scale, p.w.scale, N_OUT * N_IN / 32);
        scale[2] = 255;
        p.w.scale = scale;
    } else {
        uint8_t *data = kc_in_bytes(run, N_OUT * N_IN * n_bytes[kind]);
        memcpy(data, p.w.data, N_OUT * N_IN * n_bytes[kind]);
        memcpy(data + (N_IN + 16) * n_bytes[kind], nan_codes[kind], n_bytes[kind]);
        p.w.data = data;
    }
    p.packed = kc_packed(run, &p.w);
    kc_seal(run);
    const qn_matmul_args args = all_of(&p, y);
    run->k->matmul(&args);
    for (int i = 0; i < N_ROWS * N_OUT; i++) {
        const float got = y[i / N_OUT * (N_OUT + GAP) + i % N_OUT];
        if (isnan(got) != (i % N_OUT == 1)) {
            kc_fail(run, "row %d, output %d is %g", i / N_OUT, i % N_OUT, (double)got);
        }
    }
    kc_end(run);
}

/* No rows: an expert that nobody chose.  Nothing is written, and nothing has to be readable. */
static void matmul_no_rows_case(kc *run, qn_weight_kind kind, qn_act act)
{
    kc_begin(run, "%s x %s, no rows", kc_kind_names[kind], kc_act_names[act]);
    const product p = make_product(run, kind, act, (const uint32_t[3]){5, 64, 0}, KC_UNIFORM);
    float *y = kc_out(run, 5);
    kc_seal(run);
    const qn_matmul_args args = all_of(&p, y);
    run->k->matmul(&args);
    kc_untouched(run, "y", y, 5);
    kc_end(run);
}

static void check_pair(kc *run, qn_weight_kind kind, qn_act act)
{
    static const uint32_t widths[] = {1,  2,  3,  5,  7,  8,  15,  16,  17,  24,
                                      31, 32, 33, 64, 96, 97, 128, 129, 160, 576};
    static const uint32_t outs[] = {1, 15, 16, 17, 100, 128};
    static const uint32_t counts[] = {1, 2, 3, 6, 7, 8, 13};
    for (uint32_t i = 0; i < 40; i++) {
        const uint32_t n_in = widths[i % 20];
        if (kind != QN_WEIGHT_MXFP4 || n_in % 32 == 0) {
            matmul_case(run, kind, act, (const uint32_t[3]){outs[i % 6], n_in, counts[i % 7]});
        }
    }
    matmul_case(run, kind, act, (const uint32_t[3]){100, 2048, 2});
    matmul_case(run, kind, act, (const uint32_t[3]){17, 6144, 8});
    matmul_one_hot_case(run, kind, act, 0);
    matmul_one_hot_case(run, kind, act, 112); /* over the end of a block of 128 */
    matmul_one_hot_case(run, kind, act, 252); /* and to the end of the rows */
    matmul_bits_case(run, kind, act, (const uint32_t[2]){100, 160});
    matmul_bits_case(run, kind, act, (const uint32_t[2]){17, 576});
    matmul_nan_case(run, kind, act);
    matmul_nan_weight_case(run, kind, act);
    matmul_no_rows_case(run, kind, act);
}

void check_matmul(kc *run)
{
    for (int kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_MXFP4; kind++) {
        for (int act = QN_ACT_F32; act <= QN_ACT_INT8; act++) {
            if (act == QN_ACT_F32 || (act == QN_ACT_BF16 && kind != QN_WEIGHT_F32) ||
                kind == QN_WEIGHT_MXFP4) {
                check_pair(run, (qn_weight_kind)kind, (qn_act)act);
            }
        }
    }
}
