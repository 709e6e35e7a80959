/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelcheck.h"

#include <string.h>

enum { N_PAGES = 6, N_ROWS = N_PAGES * QN_PAGE_TOKENS, SET_MAX = 2048 };

static const int32_t pages[N_PAGES] = {3, 0, 5, 1, 4, 2};

typedef struct cache {
    qn_kv_view view;
    size_t n_bytes;
} cache;

/* The row layout once more, from docs/formats.md. */
static void decode_row(const qn_kv_view *v, const uint8_t *row, double *out)
{
    const uint32_t n = v->latent_dim;
    const uint32_t n_all = n + v->rope_dim;
    const uint32_t n_codes = (n + 3) / 4 * 4;
    for (uint32_t i = 0; i < n_all; i++) {
        float value;
        if (v->dtype == QN_KV_F32) {
            memcpy(&value, row + 4 * (size_t)i, sizeof value);
            out[i] = (double)value;
        } else if (v->dtype == QN_KV_BF16) {
            out[i] = kc_bf16(row + 2 * (size_t)i);
        } else if (i < n) {
            memcpy(&value, row + n_codes + 4 * (size_t)(i / 128), sizeof value);
            out[i] = (double)(float)(kc_e4m3(row[i]) * (double)value);
        } else {
            out[i] = kc_bf16(row + n_codes + 4 * (size_t)((n + 127) / 128) + 2 * (size_t)(i - n));
        }
    }
}

/* A cache of random rows.  The view is not const in its bytes, so it is checked as an output too.
 */
static cache make_cache(kc *run, qn_kv_dtype dtype, uint32_t latent, uint32_t rope, bool is_input)
{
    cache c = {.view = {.pages = pages,
                        .row_bytes = qn_kv_row_bytes(dtype, latent, rope),
                        .dtype = dtype,
                        .latent_dim = latent,
                        .rope_dim = rope}};
    c.n_bytes = (size_t)N_ROWS * c.view.row_bytes;
    c.view.base = is_input ? kc_in_bytes(run, c.n_bytes) : kc_out_bytes(run, c.n_bytes);
    return c;
}

static void fill_cache(kc *run, const cache *c)
{
    float row[1024];
    for (uint32_t t = 0; t < N_ROWS; t++) {
        for (uint32_t i = 0; i < c->view.latent_dim + c->view.rope_dim; i++) {
            row[i] = kc_uniform(run);
        }
        run->k->kv_write(&c->view, t, row, row + c->view.latent_dim);
    }
}

static const uint8_t *row_of(const cache *c, uint32_t t)
{
    return c->view.base + ((size_t)c->view.pages[t / 64] * 64 + t % 64) * c->view.row_bytes;
}

static const uint32_t dims[][2] = {{512, 64}, {44, 8}, {128, 0}, {136, 24}, {1, 2}, {17, 2}};
enum { N_DIMS = sizeof dims / sizeof *dims };

/* Nearest e4m3 code by trying all; ties to the even code. */
static uint8_t nearest_e4m3(double x)
{
    uint8_t best = isnan(x) ? 0x7f : 0;
    for (int code = 0; code < 0x7f; code++) {
        const double off = fabs(kc_e4m3((uint8_t)code) - fabs(x));
        const double best_off = fabs(kc_e4m3(best) - fabs(x));
        if (off < best_off || (off == best_off && code % 2 == 0)) {
            best = (uint8_t)code;
        }
    }
    return (uint8_t)(best | (signbit(x) ? 0x80 : 0));
}

static double expected_element(const qn_kv_view *v, const float *x, uint32_t i)
{
    if (v->dtype == QN_KV_F32) {
        return (double)x[i];
    }
    if (v->dtype == QN_KV_BF16 || i >= v->latent_dim) {
        return kc_round_bf16(x[i]);
    }
    float amax = 0.0F;
    for (uint32_t k = i / 128 * 128; k < i / 128 * 128 + 128 && k < v->latent_dim; k++) {
        amax = fabsf(x[k]) > amax ? fabsf(x[k]) : amax;
    }
    const float scale = amax / 448.0F > 0.0F ? amax / 448.0F : 1.0F;
    return (double)(float)(kc_e4m3(nearest_e4m3((double)(x[i] / scale))) * (double)scale);
}

static void kv_write_case(kc *run, qn_kv_dtype dtype, const uint32_t *d, kc_fill_kind fill)
{
    static const uint32_t positions[] = {0, 63, 64, N_ROWS - 1};
    kc_begin(run, "dtype %d, %u + %u, fill %d", dtype, d[0], d[1], fill);
    const cache c = make_cache(run, dtype, d[0], d[1], false);
    float *x = kc_in(run, d[0] + d[1], fill);
    kc_seal(run);
    for (size_t p = 0; p < 4; p++) {
        run->k->kv_write(&c.view, positions[p], x, d[1] > 0 ? x + d[0] : NULL);
        double got[1024];
        decode_row(&c.view, row_of(&c, positions[p]), got);
        for (uint32_t k = 0; k < d[0] + d[1]; k++) {
            const double want = expected_element(&c.view, x, k);
            if (isnan(want) ? !isnan(got[k]) : got[k] != want) {
                kc_fail(run, "element %u: %g, %g expected", k, got[k], want);
                break;
            }
        }
    }
    /* The row behind each one written is still poison. */
    const uint8_t *untouched = row_of(&c, 1);
    for (uint32_t b = 0; b < c.view.row_bytes; b++) {
        if (untouched[b] != 0xff) {
            kc_fail(run, "row 1 was written, only rows 0, 63, 64 and the last were asked for");
            break;
        }
    }
    kc_end(run);
}

void check_kv_write(kc *run)
{
    for (size_t i = 0; i < (size_t)N_DIMS * 3 * KC_N_FILLS; i++) {
        kv_write_case(run, (qn_kv_dtype)(QN_KV_BF16 + i / N_DIMS % 3), dims[i % N_DIMS],
                      (kc_fill_kind)(i / N_DIMS / 3));
    }
}

static void kv_read_case(kc *run, qn_kv_dtype dtype, const uint32_t *d)
{
    kc_begin(run, "dtype %d, %u + %u", dtype, d[0], d[1]);
    const cache c = make_cache(run, dtype, d[0], d[1], true);
    float *y = kc_out(run, d[0] + d[1]);
    kc_seal(run);
    for (uint32_t t = 0; t < N_ROWS; t += 61) {
        double want[1024];
        run->k->kv_read(y, &c.view, t); /* random bytes: NaN and Inf patterns too */
        decode_row(&c.view, row_of(&c, t), want);
        for (uint32_t k = 0; k < d[0] + d[1]; k++) {
            if (!kc_is_exact(y[k], want[k])) {
                kc_fail(run, "row %u, element %u: %g, %g expected", t, k, (double)y[k], want[k]);
                break;
            }
        }
    }
    kc_end(run);
}

void check_kv_read(kc *run)
{
    for (size_t i = 0; i < (size_t)N_DIMS * 3; i++) {
        kv_read_case(run, (qn_kv_dtype)(QN_KV_BF16 + i / N_DIMS), dims[i % N_DIMS]);
    }
}

/* Are queries, and weights of attention, rounded to bf16 before they meet these rows? */
static bool is_bf16(const qn_kv_view *v, qn_compute compute)
{
    return compute != QN_COMPUTE_F32 && v->dtype == QN_KV_BF16;
}

static double query(float q, bool is_rounded)
{
    return is_rounded ? kc_round_bf16(q) : (double)q;
}

/* NaN of a key reaches its own score; NaN of the query or of a weight reaches every score. */
static void index_scores_nan_case(kc *run, qn_kv_dtype dtype, qn_compute compute)
{
    enum { HEADS = 3, DIM = 20, BAD = 70 };
    kc_begin(run, "NaN, dtype %d, compute %d", dtype, compute);
    const cache c = make_cache(run, dtype, DIM, 0, false);
    fill_cache(run, &c);
    float key[DIM] = {0.5F, NAN};
    run->k->kv_write(&c.view, BAD, key, NULL);
    float *q = kc_in(run, (size_t)HEADS * DIM, KC_UNIFORM);
    float *w = kc_in(run, HEADS, KC_UNIFORM);
    float *bad_q = kc_in(run, (size_t)HEADS * DIM, KC_NAN);
    float *bad_w = kc_in(run, HEADS, KC_NAN);
    float *scores = kc_out(run, 20);
    float *by_q = kc_out(run, 20);
    float *by_w = kc_out(run, 20);
    float *scratch = kc_out(run, qn_index_scratch_floats(HEADS, DIM));
    kc_seal(run);
    qn_index_scores_args args = {scores, q, w, c.view, HEADS, 60, 80, compute, scratch};
    run->k->index_scores(&args);
    args.scores = by_q;
    args.q = bad_q;
    run->k->index_scores(&args);
    args.scores = by_w;
    args.q = q;
    args.w = bad_w;
    run->k->index_scores(&args);
    for (int t = 0; t < 20; t++) {
        if (isnan(scores[t]) != (t == BAD - 60) || !isnan(by_q[t]) || !isnan(by_w[t])) {
            kc_fail(run, "position %d: %g, by query %g, by weight %g", 60 + t, (double)scores[t],
                    (double)by_q[t], (double)by_w[t]);
        }
    }
    kc_end(run);
}

/* What a score is to be, and what its bound multiplies. */
static void expect_score(double *want, double *size, const float *q, const float *w, uint32_t heads,
                         uint32_t dim, const double *key, bool is_rounded)
{
    *want = 0.0;
    *size = 0.0;
    for (uint32_t h = 0; h < heads; h++) {
        double dot = 0.0;
        double all = 0.0;
        double sum_q = 0.0;
        for (uint32_t k = 0; k < dim; k++) {
            const double x = query(q[h * dim + k], is_rounded);
            dot += x * key[k];
            all += fabs(x * key[k]);
            sum_q += fabs(x);
        }
        *want += (double)w[h] * fmax(dot, 0.0);
        *size +=
            fabs((double)w[h]) * ((dim + heads + 8.0) * 0x1p-24 * all + 0x1p-126 * (1.0 + sum_q));
    }
}

static void index_scores_case(kc *run, const uint32_t shape[2], qn_kv_dtype dtype,
                              qn_compute compute, uint32_t first)
{
    static const uint32_t cuts[] = {100, 101, 103, 110, 126, 143, 175, 192, 257};
    enum { N_CUTS = sizeof cuts / sizeof *cuts };
    const uint32_t heads = shape[0];
    const uint32_t dim = shape[1];
    kc_begin(run, "%u heads of %u, from %u, dtype %d, compute %d", heads, dim, first, dtype,
             compute);
    const cache c = make_cache(run, dtype, dim, 0, false);
    fill_cache(run, &c);
    float *q = kc_in(run, (size_t)heads * dim, KC_UNIFORM);
    float *w = kc_in(run, heads, KC_UNIFORM);
    float *scores = kc_out(run, N_ROWS - first);
    float *part = kc_out(run, 64 + 1); /* longer than the longest part */
    float *scratch = kc_out(run, qn_index_scratch_floats(heads, dim));
    kc_seal(run);
    qn_index_scores_args args = {scores, q, w, c.view, heads, first, N_ROWS, compute, scratch};
    run->k->index_scores(&args);
    for (uint32_t t = first; t < N_ROWS; t += 13) {
        double key[1024];
        double want;
        double size;
        decode_row(&c.view, row_of(&c, t), key);
        expect_score(&want, &size, q, w, heads, dim, key, is_bf16(&c.view, compute));
        kc_close(run, "score", scores + (t - first), &want, &size, 1, kc_bound("index_scores"));
    }
    args.scores = part;
    for (size_t i = 0; i + 1 < N_CUTS; i++) {
        args.first = cuts[i];
        args.end = cuts[i + 1];
        run->k->index_scores(&args);
        kc_same(run, "part of the positions", part, scores + cuts[i] - first,
                (cuts[i + 1] - cuts[i]) * sizeof *part);
    }
    kc_end(run);
}

void check_index_scores(kc *run)
{
    static const uint32_t shapes[][2] = {{32, 128}, {1, 16}, {3, 17}, {4, 33}, {17, 96}};
    for (uint32_t i = 0; i < 60; i++) { /* the first shape is GLM-5.2's */
        index_scores_case(run, shapes[i % 5], (qn_kv_dtype)(QN_KV_BF16 + i / 5 % 3),
                          (qn_compute)(QN_COMPUTE_F32 + i / 15 % 2), i / 30);
    }
    for (int dtype = QN_KV_BF16; dtype <= QN_KV_FP8; dtype++) {
        index_scores_nan_case(run, (qn_kv_dtype)dtype, QN_COMPUTE_F32);
        index_scores_nan_case(run, (qn_kv_dtype)dtype, QN_COMPUTE_INT8);
    }
}

static double g_rows[SET_MAX * 576]; /* rows of the set, decoded */

/* u of one head in f64.  Returns what the error bound multiplies: the scores' and rows' size. */
static double attend_oracle(double *u, const qn_attend_args *a, uint32_t h)
{
    static double scores[SET_MAX];
    double max = (double)-INFINITY;
    double max_size = 0.0;
    double max_row = 0.0;
    double sum = 0.0;
    const uint32_t n = a->kv.latent_dim;
    const uint32_t n_all = n + a->kv.rope_dim;
    const bool is_rounded = is_bf16(&a->kv, a->compute);
    double q[576];
    for (uint32_t k = 0; k < n_all; k++) {
        q[k] =
            query(k < n ? a->q_latent[(size_t)h * n + k] : a->q_rope[h * a->q_rope_stride + k - n],
                  is_rounded);
    }
    for (uint32_t i = 0; i < a->n_set; i++) {
        const double *row = g_rows + (size_t)i * n_all;
        double dot = 0.0;
        for (uint32_t k = 0; k < n_all; k++) {
            dot += q[k] * row[k];
        }
        scores[i] = dot * (double)a->scale;
        max = fmax(max, scores[i]);
        max_size = fmax(max_size, fabs(scores[i]));
    }
    for (uint32_t i = 0; i < a->n_set; i++) {
        scores[i] = exp(scores[i] - max);
        sum += scores[i];
    }
    memset(u, 0, n * sizeof *u);
    for (uint32_t i = 0; i < a->n_set; i++) {
        const double *row = g_rows + (size_t)i * n_all;
        const double p = scores[i] / sum;
        for (uint32_t k = 0; k < n; k++) {
            u[k] += p * row[k];
            max_row = fmax(max_row, fabs(row[k]));
        }
    }
    return ((is_rounded ? 4e-3 : 1e-5) + a->n_set * 0x1p-24) * fmax(1.0, max_size / 16.0) * max_row;
}

static void check_heads(kc *run, const qn_attend_args *args, const cache *c)
{
    if (run->at_front) {
        return; /* kc_end() wants the bits of the first placement, which were held against f64 */
    }
    double want[512];
    double size[512];
    const uint32_t latent = args->kv.latent_dim;
    for (uint32_t i = 0; i < args->n_set; i++) {
        decode_row(&args->kv, row_of(c, (uint32_t)args->set[i]),
                   g_rows + (size_t)i * (latent + args->kv.rope_dim));
    }
    for (uint32_t h = 0; h < args->n_heads; h++) {
        const double bound = attend_oracle(want, args, h);
        for (uint32_t k = 0; k < latent; k++) {
            size[k] = bound;
        }
        kc_close(run, "u", args->u + (size_t)h * latent, want, size, latent, kc_bound("attend"));
    }
}

/* Some heads of a call again, without the others. */
static void same_heads(kc *run, const qn_attend_args *all, float *part, uint32_t first, uint32_t n)
{
    const size_t latent = all->kv.latent_dim;
    qn_attend_args args = *all;
    args.u = part;
    args.q_latent += first * latent;
    args.q_rope += first * args.q_rope_stride;
    args.n_heads = n;
    run->k->attend(&args);
    kc_same(run, "heads without the others", part, all->u + first * latent,
            n * latent * sizeof *part);
}

/* As many rows as attention ever gets, with channels that hardly change: rounding errors add up. */
static void attend_ties_case(kc *run)
{
    enum { LATENT = 20, ROPE = 4 };
    static const int32_t same_pages[SET_MAX / QN_PAGE_TOKENS]; /* all of them page 0 */
    kc_begin(run, "%d rows, nearly equal", SET_MAX);
    cache c = make_cache(run, QN_KV_F32, LATENT, ROPE, false);
    for (uint32_t t = 0; t < N_ROWS; t++) {
        float row[LATENT + ROPE];
        for (uint32_t i = 0; i < LATENT + ROPE; i++) {
            row[i] = 0.3F + 0.041F * (float)i + (t == 192 ? kc_uniform(run) : 0.0F);
        }
        run->k->kv_write(&c.view, t, row, row + LATENT); /* row 192 is the first of page 0 */
    }
    float *q = kc_in(run, LATENT + ROPE, KC_UNIFORM);
    int32_t *set = (int32_t *)(void *)kc_in_bytes(run, SET_MAX * sizeof *set);
    for (int32_t i = 0; i < SET_MAX; i++) {
        set[i] = i;
    }
    float *u = kc_out(run, LATENT);
    float *scratch = kc_out(run, qn_attend_scratch_floats(1, SET_MAX, LATENT, ROPE));
    kc_seal(run);
    c.view.pages = same_pages;
    const qn_attend_args args = {u,       q, q + LATENT, ROPE,           c.view, set,
                                 SET_MAX, 1, 0.25F,      QN_COMPUTE_F32, scratch};
    run->k->attend(&args);
    check_heads(run, &args, &c);
    kc_end(run);
}

/*
 * GLM-5.2 on one device: 64 heads of 512 + 64 and a set of 2048 out of a longer context.  Logical
 * pages repeat, so that a set of that length needs no cache of it; every head is held against f64.
 */
static void attend_real_case(kc *run, qn_kv_dtype dtype, qn_compute compute)
{
    enum { HEADS = 64, LATENT = 512, ROPE = 64, N_LONG = 64, STRIDE = 192 + ROPE };
    static int32_t long_pages[N_LONG];
    kc_begin(run, "64 heads of 512 + 64, 2048 of %d positions, dtype %d, compute %d",
             N_LONG * QN_PAGE_TOKENS, dtype, compute);
    cache c = make_cache(run, dtype, LATENT, ROPE, false);
    fill_cache(run, &c);
    for (int32_t i = 0; i < N_LONG; i++) {
        long_pages[i] = (i * 5 + 2) % N_PAGES;
    }
    float *ql = kc_in(run, (size_t)HEADS * LATENT, KC_UNIFORM);
    float *qr = kc_in(run, (size_t)(HEADS - 1) * STRIDE + ROPE, KC_UNIFORM);
    int32_t *set = (int32_t *)(void *)kc_in_bytes(run, SET_MAX * sizeof *set);
    for (int32_t i = 0; i < SET_MAX; i++) {
        set[i] = 2 * i + (int32_t)kc_below(run, 2);
    }
    float *u = kc_out(run, (size_t)HEADS * LATENT);
    float *part = kc_out(run, (size_t)8 * LATENT);
    float *scratch = kc_out(run, qn_attend_scratch_floats(HEADS, SET_MAX, LATENT, ROPE));
    kc_seal(run);
    c.view.pages = long_pages;
    const qn_attend_args args = {u,       ql,    qr,      STRIDE,  c.view, set,
                                 SET_MAX, HEADS, 0.0625F, compute, scratch};
    run->k->attend(&args);
    check_heads(run, &args, &c);
    same_heads(run, &args, part, 17, 1);
    same_heads(run, &args, part, 21, 8);
    kc_end(run);
}

/* NaN in a row of the set reaches every head; in a row outside it, none. */
static void attend_nan_case(kc *run, int32_t i_nan, qn_compute compute)
{
    enum { LATENT = 33, ROPE = 4, N_SET = 17 };
    kc_begin(run, "NaN in row %d of 17, compute %d", i_nan, compute);
    const cache c = make_cache(run, QN_KV_BF16, LATENT, ROPE, false);
    fill_cache(run, &c);
    float row[LATENT + ROPE] = {NAN};
    run->k->kv_write(&c.view, (uint32_t)i_nan, row, row + LATENT);
    float *q = kc_in(run, 2 * (size_t)(LATENT + ROPE), KC_UNIFORM);
    int32_t *set = (int32_t *)(void *)kc_in_bytes(run, N_SET * sizeof *set);
    for (int32_t i = 0; i < N_SET; i++) {
        set[i] = i;
    }
    float *u = kc_out(run, 2 * (size_t)LATENT);
    float *scratch = kc_out(run, qn_attend_scratch_floats(2, N_SET, LATENT, ROPE));
    kc_seal(run);
    const qn_attend_args args = {
        u, q, q + 2 * (size_t)LATENT, ROPE, c.view, set, N_SET, 2, 0.25F, compute, scratch};
    run->k->attend(&args);
    for (int i = 0; i < 2 * LATENT; i++) {
        if (isnan(u[i]) != (i_nan < N_SET)) {
            kc_fail(run, "u[%d] is %g", i, (double)u[i]);
        }
    }
    kc_end(run);
}

/*
 * Two rounded queries that cancel, where the exact ones leave a sum: the weights are equal in one
 * case and far from it in the other.
 */
static void attend_rounding_case(kc *run, qn_kv_dtype dtype, qn_compute compute, bool in_rope)
{
    enum { LATENT = 4, ROPE = 2, N_SET = 40 };
    kc_begin(run, "rounded queries of %s, dtype %d, compute %d", in_rope ? "rope" : "latents",
             dtype, compute);
    const cache c = make_cache(run, dtype, LATENT, ROPE, false);
    float *q = kc_in(run, LATENT + ROPE, KC_ZERO);
    int32_t *set = (int32_t *)(void *)kc_in_bytes(run, N_SET * sizeof *set);
    float *u = kc_out(run, LATENT);
    float *scratch = kc_out(run, qn_attend_scratch_floats(1, N_SET, LATENT, ROPE));
    q[in_rope ? LATENT : 0] = 1001.0F; /* 1000 in bf16 */
    q[in_rope ? LATENT + 1 : 1] = -1000.0F;
    for (int32_t t = 0; t < N_SET; t++) {
        const float x = (float)(t - N_SET / 2) * 0.25F;
        const float row[LATENT + ROPE] = {x, x, 1.0F, -1.0F, x, x};
        set[t] = t;
        run->k->kv_write(&c.view, (uint32_t)t, row, row + LATENT);
    }
    kc_seal(run);
    const qn_attend_args args = {u,     q, q + LATENT, ROPE,    c.view, set,
                                 N_SET, 1, 0.5F,       compute, scratch};
    run->k->attend(&args);
    check_heads(run, &args, &c);
    kc_end(run);
}

static void attend_case(kc *run, const uint32_t shape[3], uint32_t n_set, qn_kv_dtype dtype,
                        qn_compute compute)
{
    const uint32_t latent = shape[0];
    const uint32_t rope = shape[1];
    const uint32_t heads = shape[2];
    const float scale = kc_below(run, 3) == 0 ? 4.0F : 0.25F; /* some weights vanish with 4 */
    kc_begin(run, "%u + %u, %u heads, %u rows, scale %g, dtype %d, compute %d", latent, rope, heads,
             n_set, (double)scale, dtype, compute);
    const cache c = make_cache(run, dtype, latent, rope, false);
    fill_cache(run, &c);
    float *ql = kc_in(run, (size_t)heads * latent, KC_UNIFORM);
    float *qr = kc_in(run, (size_t)(heads - 1) * (rope + 5) + rope, KC_UNIFORM);
    int32_t *set = (int32_t *)(void *)kc_in_bytes(run, n_set * sizeof *set);
    for (uint32_t k = 0; k < n_set; k++) {
        set[k] = (int32_t)(k * (N_ROWS - 1) / (n_set > 1 ? n_set - 1 : 1));
    }
    float *u = kc_out(run, (size_t)heads * latent);
    float *part = kc_out(run, (size_t)heads * latent);
    float *scratch = kc_out(run, qn_attend_scratch_floats(heads, n_set, latent, rope));
    kc_seal(run);
    const qn_attend_args args = {u,     ql,    qr,    rope + 5, c.view, set,
                                 n_set, heads, scale, compute,  scratch};
    run->k->attend(&args);
    check_heads(run, &args, &c);
    /* Heads 0; 1, 2; 3, 4, 5; ... in calls of their own. */
    for (uint32_t first = 0, n = 1; first < heads; first += n, n++) {
        n = n < heads - first ? n : heads - first;
        same_heads(run, &args, part, first, n);
    }
    kc_end(run);
}

void check_attend(kc *run)
{
    static const uint32_t shapes[][3] = {
        {512, 64, 4}, {44, 8, 3}, {136, 24, 1}, {17, 2, 5}, {64, 32, 17}};
    static const uint32_t sets[] = {1, 2, 15, 16, 17, 33, 200, N_ROWS};
    for (uint32_t i = 0; i < 12; i++) {
        attend_rounding_case(run, (qn_kv_dtype)(QN_KV_BF16 + i / 4),
                             (qn_compute)(QN_COMPUTE_F32 + i % 2), i / 2 % 2 == 1);
    }
    for (uint32_t i = 0; i < 5 * 8 * 3; i++) {
        const qn_compute compute = (qn_compute)(QN_COMPUTE_F32 + i % 2);
        attend_case(run, shapes[i % 5], sets[i / 5 % 8], (qn_kv_dtype)(QN_KV_BF16 + i / 40),
                    compute);
    }
    for (uint32_t i = 0; i < 5 * 8; i++) { /* what rounds, at every size */
        attend_case(run, shapes[i % 5], sets[i / 5], QN_KV_BF16,
                    i % 2 == 0 ? QN_COMPUTE_BF16 : QN_COMPUTE_F32);
    }
    attend_ties_case(run);
    attend_real_case(run, QN_KV_BF16, QN_COMPUTE_F32);
    attend_real_case(run, QN_KV_BF16, QN_COMPUTE_BF16);
    attend_real_case(run, QN_KV_FP8, QN_COMPUTE_BF16);
    for (int32_t i_nan = 0; i_nan <= 17; i_nan += i_nan == 0 ? 5 : 12) {
        attend_nan_case(run, i_nan, QN_COMPUTE_F32); /* rows 0, 5 and, outside the set, 17 */
        attend_nan_case(run, i_nan, QN_COMPUTE_BF16);
    }
}
