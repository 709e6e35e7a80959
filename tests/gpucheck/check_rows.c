/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/rows.c. */
#include "gpucheck.h"

#include <string.h>

/* Sequences, pages of each, and gap between rows, of all cases. */
enum { N_SEQS = 3, N_PAGES = 2, GAP = 12 };

/* Where the rows of a case belong: at most 384, all at different places, every fourth padding. */
typedef struct places {
    int32_t *positions, *seqs;
} places;

static places make_places(gc *run, uint32_t n_rows)
{
    const places at = {gc_host(run, n_rows * sizeof(int32_t)),
                       gc_host(run, n_rows * sizeof(int32_t))};
    for (uint32_t t = 0; t < n_rows; t++) {
        at.seqs[t] = (int32_t)(t % N_SEQS);
        at.positions[t] = (int32_t)(63 + 5 * (t / N_SEQS)) % (N_PAGES * QN_PAGE_TOKENS);
        if (t % 4 == 2) { /* what padding says beside its position is not read */
            at.seqs[t] = INT32_MAX;
            at.positions[t] = -1;
        }
    }
    return at;
}

/* A cache that nothing was written to, and its mirror on the host. */
typedef struct cache {
    qn_gpu_cache device;
    qn_kv_view views[N_SEQS]; /* of the mirror */
    uint8_t *mirror;
    size_t n_rows;
} cache;

static cache make_cache(gc *run, uint32_t dtype, uint32_t latent_dim, uint32_t rope_dim)
{
    const qn_kv_dtype as_kv = dtype == QN_GPU_KV_FP8 ? QN_KV_FP8 : QN_KV_BF16;
    const uint32_t row_bytes = qn_kv_row_bytes(as_kv, latent_dim, rope_dim);
    const int32_t *tables = gc_page_tables(run, N_SEQS, N_PAGES);
    cache c = {.n_rows = (size_t)N_SEQS * N_PAGES * QN_PAGE_TOKENS};
    c.mirror = gc_host(run, c.n_rows * row_bytes);
    memset(c.mirror, 0xff, c.n_rows * row_bytes);
    for (uint32_t s = 0; s < N_SEQS; s++) {
        c.views[s] = (qn_kv_view){.base = c.mirror,
                                  .pages = tables + (size_t)s * N_PAGES,
                                  .row_bytes = row_bytes,
                                  .dtype = as_kv,
                                  .latent_dim = latent_dim,
                                  .rope_dim = rope_dim};
    }
    c.device = (qn_gpu_cache){
        .base = gc_out(run, c.n_rows * row_bytes),
        .page_tables = gc_in(run, tables, sizeof(int32_t) * N_SEQS * N_PAGES),
        .n_table_pages = N_PAGES,
        .row_bytes = row_bytes,
        .dtype = dtype,
        .latent_dim = latent_dim,
        .rope_dim = rope_dim,
    };
    return c;
}

/* Every row where none of the case belongs is as it was. */
static void check_other_rows(gc *run, const cache *c, const places *at, uint32_t n_rows)
{
    bool *is_written = gc_host(run, c->n_rows * sizeof *is_written);
    const uint32_t row_bytes = c->device.row_bytes;
    for (uint32_t t = 0; t < n_rows; t++) {
        if (at->positions[t] >= 0) {
            const uint8_t *row = qn_kv_row(&c->views[at->seqs[t]], (uint32_t)at->positions[t]);
            is_written[(size_t)(row - c->mirror) / row_bytes] = true;
        }
    }
    const uint8_t *got = gc_got(run, c->device.base);
    for (size_t i = 0; i < c->n_rows; i++) {
        gc_untouched(run, "a row of the cache", got + i * row_bytes, is_written[i] ? 0 : row_bytes);
    }
}

/* cos and sin of rows' angles as f32. */
static float *make_angles(gc *run, uint32_t n_rows, uint32_t n_pairs)
{
    float *angles = gc_host(run, (size_t)n_rows * n_pairs * 2 * sizeof *angles);
    for (size_t i = 0; i < (size_t)n_rows * n_pairs; i++) {
        const double angle = 4.0 * (double)gc_uniform(run);
        angles[2 * i] = (float)cos(angle);
        angles[2 * i + 1] = (float)sin(angle);
    }
    return angles;
}

/* A turned pair, and what f32 may lose of it. */
static void turn(double y[2], double tolerance[2], double a, double b, const float angle[2])
{
    const double c = (double)angle[0];
    const double s = (double)angle[1];
    y[0] = a * c - b * s;
    y[1] = b * c + a * s;
    tolerance[0] = tolerance[1] = 0x1p-22 * (fabs(a) + fabs(b));
}

/* ------------------------------------------------------------------------------------ embed -- */

static void embed_case(gc *run, uint32_t dtype, uint32_t n_rows, uint32_t n)
{
    enum { N_VOCAB = 11 };
    gc_begin(run, "%u x %u, table of %s", n_rows, n, dtype == QN_GPU_F32 ? "f32" : "bf16");
    const uint32_t stride = n + GAP;
    const size_t element_bytes = dtype == QN_GPU_F32 ? 4 : 2;
    const uint16_t *as_bf16 = gc_bf16s(run, (size_t)N_VOCAB * n, GC_INF);
    const float *as_f32 = gc_from_bf16(run, as_bf16, (size_t)N_VOCAB * n);
    const void *table = dtype == QN_GPU_F32 ? (const void *)as_f32 : as_bf16;
    int32_t *tokens = gc_host(run, n_rows * sizeof *tokens);
    int32_t *positions = gc_host(run, n_rows * sizeof *positions);
    for (uint32_t t = 0; t < n_rows; t++) {
        positions[t] = t % 4 == 2 ? -1 : (int32_t)t;
        tokens[t] = t % 4 == 2 ? INT32_MAX : (int32_t)gc_below(run, N_VOCAB);
    }
    float *x = gc_out(run, (size_t)n_rows * stride * sizeof *x);
    const qn_gpu_embed_args args = {
        .x = x,
        .table = gc_in(run, table, (size_t)N_VOCAB * n * element_bytes),
        .tokens = gc_in(run, tokens, n_rows * sizeof *tokens),
        .positions = gc_in(run, positions, n_rows * sizeof *positions),
        .x_stride = stride,
        .table_dtype = dtype,
        .n_rows = n_rows,
        .n_embd = n,
    };
    qn_gpu_embed(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const float *got = gc_got(run, x);
    const float *zeros = gc_host(run, n * sizeof *zeros);
    for (uint32_t t = 0; t < n_rows; t++) {
        const float *want = positions[t] < 0 ? zeros : as_f32 + (size_t)tokens[t] * n;
        gc_same(run, "x", got + (size_t)t * stride, want, n * sizeof *want);
        gc_untouched(run, "gap", got + (size_t)t * stride + n, GAP * sizeof *got);
    }
    gc_end(run);
}

static void check_embed(gc *run)
{
    for (uint32_t dtype = QN_GPU_F32; dtype <= QN_GPU_BF16; dtype++) {
        embed_case(run, dtype, 5, 8);
        embed_case(run, dtype, 1, 6144);
        embed_case(run, dtype, run->is_emulated ? 7 : 300, 1032);
    }
}

static void embed_wrong_row(void *args)
{
    qn_gpu_embed_args *a = args;
    a->tokens = (const int32_t *)(const void *)a->positions;
}

/* ---------------------------------------------------------------------------------- rmsnorm -- */

/* What comes out of one row in f64, and 8 ULP. */
static void rmsnorm_oracle(double *want, double *tolerance, const float *x, const float *weight,
                           uint32_t n, double eps)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    const double scale = 1.0 / sqrt(sum / n + eps);
    for (uint32_t i = 0; i < n; i++) {
        want[i] = (double)x[i] * scale * (double)weight[i];
        tolerance[i] = 8.0 * gc_ulp(want[i]);
    }
}

/* The two outputs of a case against one row's oracle. */
static void rmsnorm_row(gc *run, const uint16_t *y_bf16, const float *y_f32, const double *want,
                        double *tolerance, uint32_t n)
{
    if (y_f32 != NULL) {
        gc_close(run, "y in f32", y_f32, want, tolerance, n);
        gc_untouched(run, "gap of y in f32", y_f32 + n, GAP * sizeof *y_f32);
    }
    if (y_bf16 != NULL) {
        const float *y = gc_from_bf16(run, y_bf16, n);
        for (uint32_t i = 0; i < n; i++) {
            tolerance[i] += gc_half_ulp_bf16(fabs(want[i]) + tolerance[i]);
        }
        gc_close(run, "y in bf16", y, want, tolerance, n);
        gc_untouched(run, "gap of y in bf16", y_bf16 + n, GAP * sizeof *y_bf16);
    }
}

/* which: 1 y in bf16, 2 in f32, 4 with add */
static void rmsnorm_case(gc *run, uint32_t n_rows, uint32_t n, uint32_t dtype, uint32_t which,
                         gc_fill fill)
{
    gc_begin(run, "%u x %u, x in %s, outputs %u, fill %d", n_rows, n,
             dtype == QN_GPU_F32 ? "f32" : "bf16", which, (int)fill);
    const uint32_t stride = n + GAP - n % 8 / 4 * 4;
    const size_t n_all = (size_t)n_rows * stride;
    float *x = gc_floats(run, n_all, fill);
    for (size_t i = 0; i < n_all && fill == GC_HUGE; i++) {
        x[i] *= 0.01F; /* the sum of squares has to be finite as well */
    }
    uint16_t *x_bf16 = gc_host(run, n_all * sizeof *x_bf16);
    for (size_t i = 0; i < n_all && dtype == QN_GPU_BF16; i++) {
        x_bf16[i] = qn_f32_to_bf16(x[i]);
        x[i] = qn_bf16_to_f32(x_bf16[i]);
    }
    const float *add = gc_floats(run, n_all, GC_NORMAL);
    const float *weight = gc_floats(run, n, GC_UNIFORM);
    const bool with_add = (which & 4U) != 0;
    const qn_gpu_rmsnorm_args args = {
        .y_bf16 = (which & 1U) != 0 ? gc_out(run, n_all * sizeof(uint16_t)) : NULL,
        .y_f32 = (which & 2U) != 0 ? gc_out(run, n_all * sizeof(float)) : NULL,
        .x = dtype == QN_GPU_BF16 ? gc_in(run, x_bf16, n_all * sizeof *x_bf16)
             : with_add           ? gc_inout(run, x, n_all * sizeof *x)
                                  : gc_in(run, x, n_all * sizeof *x),
        .add = with_add ? gc_in(run, add, n_all * sizeof *add) : NULL,
        .weight = gc_in(run, weight, n * sizeof *weight),
        .y_stride = stride,
        .x_stride = stride,
        .x_dtype = dtype,
        .n_rows = n_rows,
        .n = n,
        .eps = 1e-5F,
    };
    qn_gpu_rmsnorm(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const uint16_t *y_bf16 = args.y_bf16 != NULL ? gc_got(run, args.y_bf16) : NULL;
    const float *y_f32 = args.y_f32 != NULL ? gc_got(run, args.y_f32) : NULL;
    double *want = gc_host(run, n * sizeof *want);
    double *tolerance = gc_host(run, n * sizeof *tolerance);
    for (uint32_t t = 0; t < n_rows && (t < 16 || t + 1 == n_rows); t++) {
        const size_t at = (size_t)t * stride;
        for (uint32_t i = 0; with_add && i < n; i++) {
            x[at + i] += add[at + i];
        }
        rmsnorm_oracle(want, tolerance, x + at, weight, n, (double)args.eps);
        rmsnorm_row(run, y_bf16 != NULL ? y_bf16 + at : NULL, y_f32 != NULL ? y_f32 + at : NULL,
                    want, tolerance, n);
        if (with_add) {
            gc_same(run, "x", (const float *)gc_got(run, args.x) + at, x + at, stride * sizeof *x);
        }
    }
    gc_end(run);
}

static void check_rmsnorm(gc *run)
{
    static const uint32_t widths[] = {8, 128, 512, 1032, 2048, 6144, 8200};
    for (uint32_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        rmsnorm_case(run, 2, widths[i], i % 2, 1U + i % 3, GC_NORMAL);
        rmsnorm_case(run, 3, widths[i], QN_GPU_F32, i % 2 == 0 ? 5 : 6, GC_NORMAL);
    }
    for (int fill = 0; fill < GC_N_FILLS; fill++) {
        rmsnorm_case(run, 3, 512, QN_GPU_F32, 3, (gc_fill)fill);
        rmsnorm_case(run, 3, 512, QN_GPU_BF16, 3, (gc_fill)fill);
    }
    if (!run->is_emulated) {
        rmsnorm_case(run, 1000, 6144, QN_GPU_F32, 5, GC_NORMAL);
    }
}

static void rmsnorm_wrong_eps(void *args)
{
    ((qn_gpu_rmsnorm_args *)args)->eps *= 2.0F;
}

static void rmsnorm_without_add(void *args)
{
    ((qn_gpu_rmsnorm_args *)args)->add = NULL;
}

static void rmsnorm_short_row(void *args)
{
    ((qn_gpu_rmsnorm_args *)args)->n /= 2;
}

static void rmsnorm_wrong_stride(void *args)
{
    qn_gpu_rmsnorm_args *a = args;
    a->x_stride -= a->add != NULL ? 0 : 8;
}

/* ------------------------------------------------------------------------------------- rope -- */

static void rope_angles_case(gc *run, uint32_t n_rows, uint32_t n_pairs, int32_t position_max)
{
    gc_begin(run, "%u rows of %u pairs, positions up to %d", n_rows, n_pairs, position_max);
    const size_t n = (size_t)n_rows * n_pairs * 2;
    int32_t *positions = gc_host(run, n_rows * sizeof *positions);
    float *inv_freq = gc_host(run, n_pairs * sizeof *inv_freq);
    double *want = gc_host(run, n * sizeof *want);
    double *tolerance = gc_host(run, n * sizeof *tolerance);
    for (uint32_t j = 0; j < n_pairs; j++) {
        inv_freq[j] = 1.0F / powf(8e6F, (float)j / (float)n_pairs);
    }
    for (uint32_t t = 0; t < n_rows; t++) {
        positions[t] = t == 0 ? position_max : (int32_t)gc_below(run, (uint32_t)position_max + 1);
        positions[t] = t == 2 ? -1 : positions[t];
        for (uint32_t j = 0; j < n_pairs; j++) {
            const size_t at = ((size_t)t * n_pairs + j) * 2;
            const double angle = (double)((float)positions[t] * inv_freq[j]);
            want[at] = cos(angle);
            want[at + 1] = sin(angle);
            tolerance[at] = tolerance[at + 1] = t == 2 ? 4.0 : 0x1p-22;
        }
    }
    float *angles = gc_out(run, n * sizeof *angles);
    const qn_gpu_rope_angles_args args = {
        .angles = angles,
        .positions = gc_in(run, positions, n_rows * sizeof *positions),
        .inv_freq = gc_in(run, inv_freq, n_pairs * sizeof *inv_freq),
        .n_rows = n_rows,
        .n_pairs = n_pairs,
    };
    qn_gpu_rope_angles(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    gc_close(run, "cos and sin", gc_got(run, angles), want, tolerance, n);
    gc_end(run);
}

static void check_rope_angles(gc *run)
{
    rope_angles_case(run, 1, 32, 7);
    rope_angles_case(run, 5, 4, 1000);
    rope_angles_case(run, 50, 32, 1 << 20);
    rope_angles_case(run, 20, 32, INT32_MAX - 1);
    if (!run->is_emulated) {
        rope_angles_case(run, 20000, 32, 1 << 20);
    }
}

static void rope_angles_short(void *args)
{
    ((qn_gpu_rope_angles_args *)args)->n_rows--;
}

static void rope_angles_wrong_frequencies(void *args)
{
    qn_gpu_rope_angles_args *a = args;
    a->inv_freq = (const float *)(const void *)a->positions; /* denormal numbers */
}

static void rope_case(gc *run, uint32_t n_rows, uint32_t n_vectors, uint32_t n_pairs,
                      uint32_t vector_stride)
{
    gc_begin(run, "%u rows of %u vectors of %u pairs", n_rows, n_vectors, n_pairs);
    const uint32_t row_stride = n_vectors * vector_stride + 8;
    const size_t n_all = (size_t)n_rows * row_stride;
    const uint16_t *x = gc_bf16s(run, n_all, GC_NORMAL);
    const float *before = gc_from_bf16(run, x, n_all);
    const float *angles = make_angles(run, n_rows, n_pairs);
    const qn_gpu_rope_args args = {
        .x = gc_inout(run, x, n_all * sizeof *x),
        .angles = gc_in(run, angles, (size_t)n_rows * n_pairs * 2 * sizeof *angles),
        .row_stride = row_stride,
        .vector_stride = vector_stride,
        .n_rows = n_rows,
        .n_vectors = n_vectors,
        .n_pairs = n_pairs,
    };
    qn_gpu_rope(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const float *after = gc_from_bf16(run, gc_got(run, args.x), n_all);
    double *want = gc_host(run, n_all * sizeof *want);
    double *tolerance = gc_host(run, n_all * sizeof *tolerance);
    for (size_t i = 0; i < n_all; i++) {
        want[i] = (double)before[i]; /* exactly, where nothing is turned */
    }
    for (size_t i = 0; i < (size_t)n_rows * n_vectors * n_pairs; i++) {
        const size_t t = i / n_pairs / n_vectors;
        const size_t at =
            t * row_stride + i / n_pairs % n_vectors * vector_stride + i % n_pairs * 2;
        turn(want + at, tolerance + at, (double)before[at], (double)before[at + 1],
             angles + (t * n_pairs + i % n_pairs) * 2);
        tolerance[at] += gc_half_ulp_bf16(fabs(want[at]) + tolerance[at]);
        tolerance[at + 1] += gc_half_ulp_bf16(fabs(want[at + 1]) + tolerance[at + 1]);
    }
    gc_close(run, "x", after, want, tolerance, n_all);
    gc_end(run);
}

static void check_rope(gc *run)
{
    rope_case(run, 1, 1, 4, 8);
    rope_case(run, 3, 5, 32, 64);
    rope_case(run, 2, 64, 32, 256);
    if (!run->is_emulated) {
        rope_case(run, 200, 64, 32, 256);
    }
}

static void rope_less_pairs(void *args)
{
    ((qn_gpu_rope_args *)args)->n_pairs -= 4;
}

static void rope_less_vectors(void *args)
{
    ((qn_gpu_rope_args *)args)->n_vectors--;
}

/* ---------------------------------------------------------------------------------- kv_rows -- */

/* Codes of e4m3 in the order of their values. */
static int rank_of_code(uint8_t code)
{
    return code & 0x80 ? -(code & 0x7f) : code & 0x7f;
}

/* FP8: the bytes of the reference, up to one code and 16 ULP of the scale, where the norms differ
 * in their last bits. */
static void kv_fp8_row(gc *run, const uint8_t *got, const uint8_t *want, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const int off = rank_of_code(got[i]) - rank_of_code(want[i]);
        const bool both_nan = (got[i] & want[i] & 0x7f) == 0x7f; /* whose sign means nothing */
        if ((off < -1 || off > 1) && !both_nan) {
            gc_fail(run, "code %u is 0x%02x, 0x%02x expected", i, got[i], want[i]);
        }
    }
    for (uint32_t at = qn_kv_fp8_scales_at(n); at < qn_kv_fp8_rope_at(n); at += 4) {
        float g;
        float w;
        memcpy(&g, got + at, sizeof g);
        memcpy(&w, want + at, sizeof w);
        const double tolerance = 16.0 * gc_ulp((double)w);
        gc_close(run, "a scale", &g, &(double){(double)w}, &tolerance, 1);
    }
}

/* bf16 against f64 values with a tolerance before the rounding. */
static void bf16_close(gc *run, const char *what, const uint8_t *got, const double *want,
                       double *tolerance, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        tolerance[i] += gc_half_ulp_bf16(fabs(want[i]) + tolerance[i]);
    }
    gc_close(run, what, gc_from_bf16(run, got, n), want, tolerance, n);
}

/* One row of the cache against what kv, its source, means. */
static void kv_row(gc *run, const cache *c, const places *at, uint32_t t, const float *kv,
                   const qn_gpu_kv_rows_args *args, const float *weight, const float *angles)
{
    const uint32_t n = c->device.latent_dim;
    const uint32_t n_rope = c->device.rope_dim;
    const qn_kv_view *view = &c->views[at->seqs[t]];
    const uint8_t *want_row = qn_kv_row(view, (uint32_t)at->positions[t]);
    const uint8_t *row = (const uint8_t *)gc_got(run, c->device.base) + (want_row - c->mirror);
    double *want = gc_host(run, (n + n_rope) * sizeof *want);
    double *tolerance = gc_host(run, (n + n_rope) * sizeof *tolerance);
    float *latent = gc_host(run, n * sizeof *latent);
    rmsnorm_oracle(want, tolerance, kv, weight, n, (double)args->eps);
    for (uint32_t j = 0; j < n_rope; j += 2) {
        turn(want + n + j, tolerance + n + j, (double)kv[n + j], (double)kv[n + j + 1], angles + j);
    }
    if (c->device.dtype == QN_GPU_KV_BF16) {
        bf16_close(run, "latent", row, want, tolerance, n);
        bf16_close(run, "key", row + 2 * (size_t)n, want + n, tolerance + n, n_rope);
        return;
    }
    run->ref.rmsnorm(latent, n, kv, n, weight, 1, n, args->eps);
    run->ref.kv_write(view, (uint32_t)at->positions[t], latent, kv + n);
    if (args->eps == 0.0F) {
        gc_same(run, "latent", row, want_row, qn_kv_fp8_rope_at(n));
    }
    kv_fp8_row(run, row, want_row, n);
    bf16_close(run, "key", row + qn_kv_fp8_rope_at(n), want + n, tolerance + n, n_rope);
}

/* With eps 0 the rows are of 1 and -1, whose norm is exact: latents are then the weights. */
static void kv_rows_case(gc *run, uint32_t dtype, uint32_t n_rows, uint32_t latent_dim,
                         uint32_t rope_dim, gc_fill fill, float eps)
{
    gc_begin(run, "%s, %u rows of %u + %u, fill %d, eps %g",
             dtype == QN_GPU_KV_FP8 ? "FP8" : "bf16", n_rows, latent_dim, rope_dim, (int)fill,
             (double)eps);
    const uint32_t stride = latent_dim + rope_dim + GAP;
    const places at = make_places(run, n_rows);
    const cache c = make_cache(run, dtype, latent_dim, rope_dim);
    float *kv = gc_floats(run, (size_t)n_rows * stride, fill);
    for (size_t i = 0; i < (size_t)n_rows * stride; i++) {
        kv[i] = eps == 0.0F ? copysignf(1.0F, kv[i]) : kv[i] * (fill == GC_HUGE ? 0.01F : 1.0F);
    }
    const float *weight = gc_floats(run, latent_dim, eps == 0.0F ? fill : GC_UNIFORM);
    const float *angles = make_angles(run, n_rows, rope_dim / 2);
    const qn_gpu_kv_rows_args args = {
        .cache = c.device,
        .kv = gc_in(run, kv, (size_t)n_rows * stride * sizeof *kv),
        .weight = gc_in(run, weight, latent_dim * sizeof *weight),
        .angles = gc_in(run, angles, (size_t)n_rows * rope_dim * sizeof *angles),
        .positions = gc_in(run, at.positions, n_rows * sizeof(int32_t)),
        .seqs = gc_in(run, at.seqs, n_rows * sizeof(int32_t)),
        .kv_stride = stride,
        .n_rows = n_rows,
        .eps = eps,
    };
    qn_gpu_kv_rows(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    check_other_rows(run, &c, &at, n_rows);
    for (uint32_t t = 0; t < n_rows; t++) {
        if (at.positions[t] >= 0) {
            kv_row(run, &c, &at, t, kv + (size_t)t * stride, &args, weight,
                   angles + (size_t)t * rope_dim);
        }
    }
    gc_end(run);
}

static void check_kv_rows(gc *run)
{
    const float eps = 1e-5F;
    for (uint32_t dtype = QN_GPU_KV_BF16; dtype <= QN_GPU_KV_FP8; dtype++) {
        kv_rows_case(run, dtype, 7, 136, 8, GC_NORMAL, eps);
        kv_rows_case(run, dtype, 1, 512, 64, GC_NORMAL, eps);
        kv_rows_case(run, dtype, 6, 1164, 20, GC_NORMAL, eps);
        kv_rows_case(run, dtype, 3, 64, 136, GC_NORMAL, eps); /* more key than lanes take at once */
        for (int fill = 0; fill < GC_N_FILLS; fill++) {
            kv_rows_case(run, dtype, 5, 512, 64, (gc_fill)fill, eps);
        }
        for (int fill = 0; fill < GC_NAN; fill++) {
            kv_rows_case(run, dtype, 3, 512, 64, (gc_fill)fill, 0.0F);
        }
        if (!run->is_emulated) {
            kv_rows_case(run, dtype, 40, 512, 64, GC_NORMAL, eps);
        }
    }
}

static void kv_rows_wrong_eps(void *args)
{
    ((qn_gpu_kv_rows_args *)args)->eps *= 1000.0F;
}

static void kv_rows_wrong_place(void *args)
{
    ((qn_gpu_kv_rows_args *)args)->cache.n_table_pages--;
}

static void kv_rows_key_as_it_was(void *args)
{
    qn_gpu_kv_rows_args *a = args;
    a->angles = a->kv;
}

/* ------------------------------------------------------------------------------- index_rows -- */

/* Layer normalisation in f64, then rotation, and what f32 may lose. */
static void index_oracle(double *want, double *tolerance, const float *x, const float *weight,
                         const float *bias, const float *angles, uint32_t n, uint32_t n_pairs)
{
    double mean = 0.0;
    double variance = 0.0;
    double max = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        mean += (double)x[i] / n;
        max = fmax(max, fabs((double)x[i]));
    }
    for (uint32_t i = 0; i < n; i++) {
        variance += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
    }
    const double scale = 1.0 / sqrt(variance + (double)1e-6F);
    for (uint32_t i = 0; i < n; i++) {
        const double w = (double)weight[i];
        want[i] = ((double)x[i] - mean) * scale * w + (double)bias[i];
        tolerance[i] = 8.0 * gc_ulp(fmax(fabs(want[i]), fabs((double)bias[i]))) +
                       16.0 * 0x1p-24 * max * fabs(w) * scale;
    }
    for (uint32_t j = 0; j < n_pairs; j++) {
        double of_turn[2];
        const double before = tolerance[2 * j] + tolerance[2 * j + 1];
        turn(want + 2 * j, of_turn, want[2 * j], want[2 * j + 1], angles + 2 * j);
        tolerance[2 * j] = tolerance[2 * j + 1] = before + of_turn[0];
    }
}

static void index_rows_case(gc *run, uint32_t n_rows, uint32_t n, uint32_t n_pairs,
                            uint32_t n_heads, gc_fill fill)
{
    gc_begin(run, "%u rows of %u, %u pairs, %u heads, fill %d", n_rows, n, n_pairs, n_heads,
             (int)fill);
    const uint32_t stride = n + GAP;
    const places at = make_places(run, n_rows);
    const cache c = make_cache(run, QN_GPU_KV_BF16, n, 0);
    const float *key = gc_floats(run, (size_t)n_rows * stride, fill);
    const float *weight = gc_floats(run, n, GC_UNIFORM);
    const float *bias = gc_floats(run, n, GC_UNIFORM);
    const float *angles = make_angles(run, n_rows, n_pairs);
    float *w = gc_floats(run, (size_t)n_rows * n_heads, GC_NORMAL);
    const qn_gpu_index_rows_args args = {
        .cache = c.device,
        .key = gc_in(run, key, (size_t)n_rows * stride * sizeof *key),
        .weight = gc_in(run, weight, n * sizeof *weight),
        .bias = gc_in(run, bias, n * sizeof *bias),
        .angles = gc_in(run, angles, (size_t)n_rows * n_pairs * 2 * sizeof *angles),
        .positions = gc_in(run, at.positions, n_rows * sizeof(int32_t)),
        .seqs = gc_in(run, at.seqs, n_rows * sizeof(int32_t)),
        .w = n_heads > 0 ? gc_inout(run, w, (size_t)n_rows * n_heads * sizeof *w) : NULL,
        .key_stride = stride,
        .n_rows = n_rows,
        .n_pairs = n_pairs,
        .n_heads = n_heads,
        .eps = 1e-6F,
        .scale = 0.7F,
    };
    qn_gpu_index_rows(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    check_other_rows(run, &c, &at, n_rows);
    const uint8_t *got = gc_got(run, c.device.base);
    double *want = gc_host(run, n * sizeof *want);
    double *tolerance = gc_host(run, n * sizeof *tolerance);
    for (uint32_t t = 0; t < n_rows; t++) {
        if (at.positions[t] < 0) {
            continue;
        }
        const uint8_t *row = qn_kv_row(&c.views[at.seqs[t]], (uint32_t)at.positions[t]);
        index_oracle(want, tolerance, key + (size_t)t * stride, weight, bias,
                     angles + (size_t)t * n_pairs * 2, n, n_pairs);
        bf16_close(run, "key", got + (row - c.mirror), want, tolerance, n);
        for (uint32_t h = 0; h < n_heads; h++) {
            w[(size_t)t * n_heads + h] *= args.scale;
        }
        if (n_heads > 0) {
            gc_same(run, "w", (const float *)gc_got(run, args.w) + (size_t)t * n_heads,
                    w + (size_t)t * n_heads, n_heads * sizeof *w);
        }
    }
    gc_end(run);
}

static void check_index_rows(gc *run)
{
    index_rows_case(run, 7, 16, 4, 3, GC_NORMAL);
    index_rows_case(run, 3, 48, 4, 0, GC_NORMAL);
    index_rows_case(run, 5, 260, 2, 64, GC_UNIFORM);
    for (int fill = 0; fill < GC_N_FILLS; fill++) {
        if (fill != GC_HUGE) {
            index_rows_case(run, 5, 128, 32, 32, (gc_fill)fill);
        }
    }
    if (!run->is_emulated) {
        index_rows_case(run, 40, 128, 32, 32, GC_NORMAL);
    }
}

static void index_rows_wrong_eps(void *args)
{
    ((qn_gpu_index_rows_args *)args)->eps = 0.1F;
}

static void index_rows_less_pairs(void *args)
{
    ((qn_gpu_index_rows_args *)args)->n_pairs -= 2;
}

static void index_rows_wrong_scale(void *args)
{
    ((qn_gpu_index_rows_args *)args)->scale *= 1.000001F;
}

/* ---------------------------------------------------------------------- gather and page_ends -- */

/* which: 1 as f32, 2 as bf16, 4 without a list of rows */
static void gather_case(gc *run, uint32_t n_rows, uint32_t n, uint32_t which)
{
    enum { N_FROM = 9 };
    gc_begin(run, "%u rows of %u, outputs %u", n_rows, n, which);
    const uint32_t stride = n + GAP;
    const uint32_t n_from = (which & 4U) != 0 ? n_rows : N_FROM;
    const float *x = gc_floats(run, (size_t)n_from * stride, GC_INF);
    uint32_t *rows = gc_host(run, n_rows * sizeof *rows);
    for (uint32_t i = 0; i < n_rows; i++) {
        rows[i] = (which & 4U) != 0 ? i : gc_below(run, N_FROM);
    }
    const size_t n_all = (size_t)n_rows * n;
    const qn_gpu_gather_args args = {
        .y = (which & 1U) != 0 ? gc_out(run, n_all * sizeof(float)) : NULL,
        .y_bf16 = (which & 2U) != 0 ? gc_out(run, n_all * sizeof(uint16_t)) : NULL,
        .x = gc_in(run, x, (size_t)n_from * stride * sizeof *x),
        .rows = (which & 4U) != 0 ? NULL : gc_in(run, rows, n_rows * sizeof *rows),
        .x_stride = stride,
        .n_rows = n_rows,
        .n = n,
    };
    qn_gpu_gather(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    uint16_t *as_bf16 = gc_host(run, n * sizeof *as_bf16);
    for (uint32_t i = 0; i < n_rows; i++) {
        const float *from = x + (size_t)rows[i] * stride;
        if (args.y != NULL) {
            gc_same(run, "y", (const float *)gc_got(run, args.y) + (size_t)i * n, from,
                    n * sizeof *from);
        }
        run->ref.to_bf16((uint8_t *)as_bf16, from, n);
        if (args.y_bf16 != NULL) {
            gc_same(run, "y in bf16", (const uint16_t *)gc_got(run, args.y_bf16) + (size_t)i * n,
                    as_bf16, n * sizeof *as_bf16);
        }
    }
    gc_end(run);
}

static void check_gather(gc *run)
{
    gather_case(run, 1, 8, 3);
    gather_case(run, 5, 6144, 1);
    gather_case(run, 5, 1032, 2);
    gather_case(run, 4, 256, 7);
    if (!run->is_emulated) {
        gather_case(run, 300, 6144, 3);
    }
}

static void gather_without_list(void *args)
{
    ((qn_gpu_gather_args *)args)->rows = NULL;
}

static void gather_wrong_stride(void *args)
{
    ((qn_gpu_gather_args *)args)->x_stride -= 4;
}

static void page_ends_case(gc *run, uint32_t n_rows, uint32_t n)
{
    gc_begin(run, "%u rows of %u", n_rows, n);
    const uint32_t stride = n + GAP;
    const size_t n_pages = (size_t)N_SEQS * N_PAGES;
    const places at = make_places(run, n_rows);
    const int32_t *tables = gc_page_tables(run, N_SEQS, N_PAGES);
    const float *x = gc_floats(run, (size_t)n_rows * n, GC_NORMAL);
    float *want = gc_host(run, n_pages * stride * sizeof *want);
    memset(want, 0xff, n_pages * stride * sizeof *want);
    const qn_gpu_page_ends_args args = {
        .hidden = gc_out(run, n_pages * stride * sizeof *want),
        .x = gc_in(run, x, (size_t)n_rows * n * sizeof *x),
        .positions = gc_in(run, at.positions, n_rows * sizeof(int32_t)),
        .seqs = gc_in(run, at.seqs, n_rows * sizeof(int32_t)),
        .page_tables = gc_in(run, tables, n_pages * sizeof *tables),
        .n_table_pages = N_PAGES,
        .page_stride = stride,
        .n_rows = n_rows,
        .n_embd = n,
    };
    qn_gpu_page_ends(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    for (uint32_t t = 0; t < n_rows; t++) {
        if (at.positions[t] >= 0 && at.positions[t] % QN_PAGE_TOKENS == QN_PAGE_TOKENS - 1) {
            const int32_t page = tables[at.seqs[t] * N_PAGES + at.positions[t] / QN_PAGE_TOKENS];
            memcpy(want + (size_t)page * stride, x + (size_t)t * n, n * sizeof *x);
        }
    }
    gc_same(run, "hidden", gc_got(run, args.hidden), want, n_pages * stride * sizeof *want);
    gc_end(run);
}

static void check_page_ends(gc *run)
{
    page_ends_case(run, 2, 8);
    page_ends_case(run, 100, 256);
    page_ends_case(run, 7, 6144);
    if (!run->is_emulated) {
        page_ends_case(run, 384, 6144);
    }
}

static void page_ends_wrong_table(void *args)
{
    ((qn_gpu_page_ends_args *)args)->n_table_pages--;
}

/* ------------------------------------------------------------------------------------ group -- */

static const gc_check checks[] = {
    {"embed", check_embed, "exact: values are copied"},
    {"rmsnorm", check_rmsnorm, "within 8 ULP of a sum in f64, rounded once where y is bf16"},
    {"rope_angles", check_rope_angles,
     "|err| <= 2^-22, for the exact cos and sin of the f32 angle"},
    {"rope", check_rope, "|err| <= 4 * 2^-24 * (|a| + |b|), rounded once"},
    {"kv_rows", check_kv_rows, "bf16 as rmsnorm and rope; FP8 up to one code, scales 16 ULP"},
    {"index_rows", check_index_rows,
     "within 8 ULP of max(|y|, |bias|), + 16 * 2^-24 * max |x| * |weight| / sqrt(var + eps)"},
    {"gather", check_gather, "exact; bf16 rounds to nearest even"},
    {"page_ends", check_page_ends, "exact: values are copied"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"embed_wrong_row", "embed", embed_wrong_row},
    {"rmsnorm_wrong_eps", "rmsnorm", rmsnorm_wrong_eps},
    {"rmsnorm_without_add", "rmsnorm", rmsnorm_without_add},
    {"rmsnorm_short_row", "rmsnorm", rmsnorm_short_row},
    {"rmsnorm_wrong_stride", "rmsnorm", rmsnorm_wrong_stride},
    {"rope_angles_short", "rope_angles", rope_angles_short},
    {"rope_angles_wrong_frequencies", "rope_angles", rope_angles_wrong_frequencies},
    {"rope_less_pairs", "rope", rope_less_pairs},
    {"rope_less_vectors", "rope", rope_less_vectors},
    {"kv_rows_wrong_eps", "kv_rows", kv_rows_wrong_eps},
    {"kv_rows_wrong_place", "kv_rows", kv_rows_wrong_place},
    {"kv_rows_key_as_it_was", "kv_rows", kv_rows_key_as_it_was},
    {"index_rows_wrong_eps", "index_rows", index_rows_wrong_eps},
    {"index_rows_less_pairs", "index_rows", index_rows_less_pairs},
    {"index_rows_wrong_scale", "index_rows", index_rows_wrong_scale},
    {"gather_without_list", "gather", gather_without_list},
    {"gather_wrong_stride", "gather", gather_wrong_stride},
    {"page_ends_wrong_table", "page_ends", page_ends_wrong_table},
    {NULL, NULL, NULL},
};

const gc_group gc_rows = {checks, wrongs, gc_bench_rows};
