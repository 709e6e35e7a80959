/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/index.c, topk.c, attend.c and of their kernels for tensor cores. */
#include "gpucheck.h"
#include "kernels/gpu/list.h"

#include <string.h>

enum { N_SETS_MAX = 12, N_PAGE = 64 };

/* Nearly normal, of variance 1. */
static float activation(gc *run)
{
    return gc_uniform(run) + gc_uniform(run) + gc_uniform(run);
}

/* Values that bf16 holds, as such and in f32. */
typedef struct rounded {
    uint16_t *bf16;
    float *f32;
} rounded;

static rounded make_rounded(gc *run, size_t n, float factor)
{
    const rounded r = {gc_host(run, n * sizeof *r.bf16), gc_host(run, n * sizeof *r.f32)};
    for (size_t i = 0; i < n; i++) {
        r.bf16[i] = qn_f32_to_bf16(factor * activation(run));
        r.f32[i] = qn_bf16_to_f32(r.bf16[i]);
    }
    return r;
}

/* ------------------------------------------------------------------------------ paged cache -- */

/* A cache on the host: all NaN but the rows that were written. */
typedef struct cache {
    qn_kv_view view; /* pages of the first sequence */
    const int32_t *tables;
    uint32_t n_seqs, n_table_pages;
    size_t n_bytes;
} cache;

static cache make_cache(gc *run, qn_kv_dtype dtype, uint32_t latent, uint32_t rope, uint32_t n_seqs,
                        uint32_t n_positions)
{
    const uint32_t n_table_pages = (n_positions + N_PAGE - 1) / N_PAGE;
    cache c = {.tables = gc_page_tables(run, n_seqs, n_table_pages),
               .n_seqs = n_seqs,
               .n_table_pages = n_table_pages};
    const uint32_t row_bytes = qn_kv_row_bytes(dtype, latent, rope);
    c.n_bytes = (size_t)n_seqs * n_table_pages * N_PAGE * row_bytes;
    c.view = (qn_kv_view){.base = gc_host(run, c.n_bytes),
                          .pages = c.tables,
                          .row_bytes = row_bytes,
                          .dtype = dtype,
                          .latent_dim = latent,
                          .rope_dim = rope};
    memset(c.view.base, 0xff, c.n_bytes);
    return c;
}

static qn_kv_view view_of(const cache *c, uint32_t seq)
{
    qn_kv_view view = c->view;
    view.pages = c->tables + (size_t)seq * c->n_table_pages;
    return view;
}

/* Give a row values, once. */
static void write_row(gc *run, const cache *c, uint32_t seq, uint32_t position, bool *is_written)
{
    bool *const mark = &is_written[(size_t)seq * c->n_table_pages * N_PAGE + position];
    float row[1024];
    if (*mark) {
        return;
    }
    *mark = true;
    for (uint32_t i = 0; i < c->view.latent_dim + c->view.rope_dim; i++) {
        row[i] = activation(run);
    }
    const qn_kv_view view = view_of(c, seq);
    run->ref.kv_write(&view, position, row, row + view.latent_dim);
}

static qn_gpu_cache upload_cache(gc *run, const cache *c)
{
    return (qn_gpu_cache){
        .base = gc_in(run, c->view.base, c->n_bytes),
        .page_tables =
            gc_in(run, c->tables, (size_t)c->n_seqs * c->n_table_pages * sizeof *c->tables),
        .n_table_pages = c->n_table_pages,
        .row_bytes = c->view.row_bytes,
        .dtype = c->view.dtype == QN_KV_FP8 ? QN_GPU_KV_FP8 : QN_GPU_KV_BF16,
        .latent_dim = c->view.latent_dim,
        .rope_dim = c->view.rope_dim,
    };
}

/* ----------------------------------------------------------------------------- index scores -- */

typedef struct index_shape {
    uint32_t n_heads, dim, n_rows, n_seqs, n_positions, first, n_topk;
    bool is_mixed; /* rows of the sequences take turns, long ones and short ones */
} index_shape;

/* The scores of row t and what rounding may do to each, in f64. */
static void index_oracle(gc *run, const index_shape *s, const cache *c, const float *q,
                         const float *w, uint32_t seq, uint32_t n, double *want, double *tolerance)
{
    const qn_kv_view view = view_of(c, seq);
    float key[1024];
    for (uint32_t i = 0; i < n; i++) {
        run->ref.kv_read(key, &view, s->first + i);
        double sum = 0.0;
        double sizes = 0.0;
        for (uint32_t h = 0; h < s->n_heads; h++) {
            double dot = 0.0;
            double size = 0.0;
            for (uint32_t k = 0; k < s->dim; k++) {
                const double product = (double)q[h * s->dim + k] * (double)key[k];
                dot += product;
                size += fabs(product);
            }
            sum += (double)w[h] * (dot < 0.0 ? 0.0 : dot);
            sizes += fabs((double)w[h]) * size;
        }
        want[i] = sum;
        tolerance[i] = (s->dim + s->n_heads + 8) * 0x1p-24 * sizes;
    }
}

static void index_compare(gc *run, const index_shape *s, const cache *c, const float *q,
                          const float *w, const int32_t *positions, const int32_t *seqs,
                          const float *got, size_t stride)
{
    double *want = gc_host(run, s->n_positions * sizeof *want);
    double *tolerance = gc_host(run, s->n_positions * sizeof *tolerance);
    for (uint32_t t = 0; t < s->n_rows; t++) {
        const int64_t n_all = (int64_t)positions[t] + 1 - s->first;
        const uint32_t n = n_all <= s->n_topk ? 0 : (uint32_t)n_all;
        if (s->n_positions < 1000 || t % 16 == 0) {
            index_oracle(run, s, c, q + (size_t)t * s->n_heads * s->dim, w + (size_t)t * s->n_heads,
                         (uint32_t)seqs[t], n, want, tolerance);
            gc_close(run, "scores", got + t * stride, want, tolerance, n);
        }
        gc_untouched(run, "scores", got + t * stride + n, (stride - n) * sizeof *got);
    }
}

/* A key with a NaN, which must show in its score alone, in the last sequence. */
static void break_key(gc *run, const index_shape *s, const cache *c)
{
    float *row = gc_host(run, s->dim * sizeof *row);
    row[s->dim / 2] = NAN;
    const qn_kv_view view = view_of(c, s->n_seqs - 1);
    run->ref.kv_write(&view, s->first + 9, row, row + s->dim);
}

/* The kernel that goes from row to row, as many as prefill has it take but in fewer blocks. */
static void index_rows_launch(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args)
{
    enum { N_KEYS = 128, N_EACH = 4 };
    const uint32_t grid[3] = {(args->n_positions_max + N_KEYS - 1) / N_KEYS,
                              (args->n_rows + N_EACH - 1) / N_EACH, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_index_scores_mma, grid, 0, args, sizeof *args);
}

/* Queue variant v, the last one being the first with more rows in a block; NULL: not here. */
static float *index_queue(gc *run, qn_gpu_index_scores_args *args, uint32_t v)
{
    const bool is_more = v == qn_gpu_n_index_scores_variants;
    const qn_gpu_index_scores_variant *variant = &qn_gpu_index_scores_variants[is_more ? 0 : v];
    if (!variant->supports(run->kernels, args)) {
        return NULL;
    }
    args->scores = gc_out(run, args->n_rows * args->scores_stride * sizeof *args->scores);
    (is_more ? index_rows_launch : variant->launch)(&run->ops, gc_args(run, args, sizeof *args));
    return args->scores;
}

static void index_case(gc *run, const index_shape *s)
{
    gc_begin(run, "%u heads of %u, %u rows of %u sequences%s, %u positions from %u, top %u",
             s->n_heads, s->dim, s->n_rows, s->n_seqs, s->is_mixed ? " in turns" : "",
             s->n_positions, s->first, s->n_topk);
    const cache c = make_cache(run, QN_KV_BF16, s->dim, 0, s->n_seqs, s->n_positions);
    bool *is_written = gc_host(run, (size_t)s->n_seqs * c.n_table_pages * N_PAGE);
    int32_t *positions = gc_host(run, s->n_rows * sizeof *positions);
    int32_t *seqs = gc_host(run, s->n_rows * sizeof *seqs);
    const rounded q = make_rounded(run, (size_t)s->n_rows * s->n_heads * s->dim, 1.0F);
    float *w = gc_host(run, (size_t)s->n_rows * s->n_heads * sizeof *w);
    for (size_t i = 0; i < (size_t)s->n_rows * s->n_heads; i++) {
        w[i] = activation(run);
    }
    for (uint32_t t = 0; t < s->n_rows; t++) {
        static const int32_t mixed[] = {40, 5, 299, 5};
        seqs[t] = (int32_t)(s->is_mixed ? t % s->n_seqs : t * s->n_seqs / s->n_rows);
        positions[t] = s->is_mixed  ? mixed[t % 4]
                       : t % 7 == 5 ? -1
                                    : (int32_t)(s->n_positions - 1 - (s->n_rows - 1 - t) * 3);
        for (int32_t i = 0; i <= positions[t]; i++) {
            write_row(run, &c, (uint32_t)seqs[t], (uint32_t)i, is_written);
        }
    }
    break_key(run, s, &c);
    const size_t stride = (s->n_positions + 3) / 4 * 4 + 4;
    qn_gpu_index_scores_args args = {
        .keys = upload_cache(run, &c),
        .q = gc_in(run, q.bf16, (size_t)s->n_rows * s->n_heads * s->dim * sizeof *q.bf16),
        .w = gc_in(run, w, (size_t)s->n_rows * s->n_heads * sizeof *w),
        .positions = gc_in(run, positions, s->n_rows * sizeof *positions),
        .seqs = gc_in(run, seqs, s->n_rows * sizeof *seqs),
        .scores_stride = stride,
        .n_rows = s->n_rows,
        .n_heads = s->n_heads,
        .first_position = s->first,
        .n_topk = s->n_topk,
        .n_positions_max = s->n_positions - s->first,
    };
    float *scores[8] = {NULL};
    for (uint32_t v = 0; v <= qn_gpu_n_index_scores_variants; v++) {
        scores[v] = index_queue(run, &args, v);
    }
    gc_wait(run);
    for (uint32_t v = 0; v <= qn_gpu_n_index_scores_variants; v++) {
        if (scores[v] != NULL) {
            index_compare(run, s, &c, q.f32, w, positions, seqs, gc_got(run, scores[v]), stride);
        }
    }
    gc_end(run);
}

static void check_index_scores(gc *run)
{
    static const index_shape small[] = {
        {4, 128, 3, 1, 70, 0, 8, false},   {32, 128, 9, 2, 300, 5, 290, false},
        {4, 128, 17, 3, 200, 0, 8, false}, {5, 48, 2, 1, 260, 0, 0, false},
        {4, 128, 64, 2, 300, 0, 9, true},
    };
    static const index_shape large[] = {
        {32, 128, 1, 1, 65536, 0, 2048, false},
        {32, 128, 80, 5, 4000, 0, 2048, false},
        {32, 128, 300, 2, 4500, 64, 256, false},
        {31, 128, 8, 8, 2300, 0, 2048, false},
    };
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        index_case(run, &small[i]);
    }
    for (size_t i = 0; !run->is_emulated && i < sizeof large / sizeof *large; i++) {
        index_case(run, &large[i]);
    }
}

static void index_wrong_weights(void *args)
{
    qn_gpu_index_scores_args *a = args;
    a->n_heads--;
}

static void index_wrong_first(void *args)
{
    qn_gpu_index_scores_args *a = args;
    a->first_position++;
}

/* ------------------------------------------------------------------------------------ top-k -- */

enum { TOPK_NORMAL, TOPK_FEW, TOPK_EQUAL, TOPK_SPECIAL, TOPK_CLOSE, N_TOPK_FILLS };

static float topk_score(gc *run, int fill)
{
    static const float special[] = {0.0F, -0.0F, NAN, -NAN, INFINITY, -INFINITY, 1e-42F, -1e-42F};
    switch (fill) {
    case TOPK_FEW: return (float)gc_below(run, 5) - 2.0F;
    case TOPK_EQUAL: return -3.0F;
    case TOPK_SPECIAL: return gc_below(run, 3) == 0 ? gc_uniform(run) : special[gc_below(run, 8)];
    case TOPK_CLOSE: return 1.0F + (float)gc_below(run, 3000) * 0x1p-23F;
    default: return activation(run);
    }
}

/* Row t has n - 3 t positions. */
static void topk_case(gc *run, int fill, uint32_t n_rows, uint32_t n, uint32_t k, uint32_t first)
{
    gc_begin(run, "fill %d, %u rows, %u of %u from %u", fill, n_rows, k, n, first);
    const size_t stride = (n + 3) / 4 * 4 + 8;
    float *scores = gc_host(run, n_rows * stride * sizeof *scores);
    int32_t *positions = gc_host(run, n_rows * sizeof *positions);
    for (size_t i = 0; i < n_rows * stride; i++) {
        scores[i] = topk_score(run, fill);
    }
    for (uint32_t t = 0; t < n_rows; t++) {
        positions[t] = t % 4 == 2 ? -1 : (int32_t)(first + n - 1 - 3 * t);
    }
    int32_t *sets = gc_out(run, (size_t)n_rows * k * sizeof *sets);
    uint32_t *n_sets = gc_out(run, n_rows * sizeof *n_sets);
    const qn_gpu_topk_args args = {
        .sets = sets,
        .n_sets = n_sets,
        .scores = gc_in(run, scores, n_rows * stride * sizeof *scores),
        .positions = gc_in(run, positions, n_rows * sizeof *positions),
        .scores_stride = stride,
        .n_rows = n_rows,
        .n_topk = k,
        .first_position = first,
    };
    qn_gpu_topk(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const int32_t *got = gc_got(run, sets);
    const uint32_t *n_got = gc_got(run, n_sets);
    int32_t *want = gc_host(run, k * sizeof *want);
    for (uint32_t t = 0; t < n_rows; t++) {
        const uint32_t n_row = positions[t] < 0 ? 0 : n - 3 * t;
        const uint32_t n_want = run->ref.topk(want, scores + t * stride, n_row, k);
        for (uint32_t i = 0; i < n_want; i++) {
            want[i] += (int32_t)first;
        }
        gc_same(run, "n_sets", &n_got[t], &n_want, sizeof n_want);
        gc_same(run, "set", got + (size_t)t * k, want, n_want * sizeof *want);
        gc_untouched(run, "set", got + (size_t)t * k + n_want, (k - n_want) * sizeof *got);
    }
    gc_end(run);
}

static void check_topk(gc *run)
{
    topk_case(run, TOPK_NORMAL, 4, 40, 34, 0); /* the last row has fewer */
    for (int fill = 0; fill < N_TOPK_FILLS; fill++) {
        topk_case(run, fill, 1, 100, 17, 1000);
        topk_case(run, fill, run->is_emulated ? 2 : 9, 4103, 256, 0);
    }
    topk_case(run, TOPK_EQUAL, 1, 9001, 100, 0); /* more than a list has room for */
    topk_case(run, TOPK_CLOSE, 1, 9001, 4000, 0);
    topk_case(run, TOPK_CLOSE, 4, 20001, 9000, 0); /* three tiles: what one leaves to the next */
    for (int fill = 0; !run->is_emulated && fill < N_TOPK_FILLS; fill++) {
        topk_case(run, fill, 3, 65536, 2048, 64);
        topk_case(run, fill, 1, 1 << 20, 2048, 0);
        topk_case(run, fill, 2, 20001, 1, 0);
        topk_case(run, fill, 2, 20001, 20000, 0);
    }
}

static void topk_wrong_rows(void *args)
{
    qn_gpu_topk_args *a = args;
    a->scores += 4;
}

static void topk_wrong_first(void *args)
{
    qn_gpu_topk_args *a = args;
    a->first_position++;
}

/* -------------------------------------------------------------------------------- attention -- */

typedef struct attend_shape {
    qn_kv_dtype dtype;
    uint32_t n_heads, latent, rope, n_seqs, n_positions;
    uint32_t n_rows;
    uint32_t sizes[N_SETS_MAX]; /* of the rows' sets; 0: none, as for padding */
} attend_shape;

typedef struct attend_inputs {
    cache c;
    rounded q_latent, q_rope; /* q_rope: the last elements of [head][rope + 16] */
    int32_t *sets;
    uint32_t *n_sets;
    int32_t *seqs;
    uint32_t set_stride;
} attend_inputs;

static attend_inputs attend_make(gc *run, const attend_shape *s)
{
    attend_inputs in = {
        .c = make_cache(run, s->dtype, s->latent, s->rope, s->n_seqs, s->n_positions),
        .q_latent = make_rounded(run, (size_t)s->n_rows * s->n_heads * s->latent, 0.6F),
        .q_rope = make_rounded(run, (size_t)s->n_rows * s->n_heads * (s->rope + 16), 1.0F),
        .n_sets = gc_host(run, s->n_rows * sizeof *in.n_sets),
        .seqs = gc_host(run, s->n_rows * sizeof *in.seqs),
    };
    bool *is_written = gc_host(run, (size_t)s->n_seqs * in.c.n_table_pages * N_PAGE);
    for (uint32_t t = 0; t < s->n_rows; t++) {
        in.n_sets[t] = s->sizes[t % N_SETS_MAX];
        in.seqs[t] = in.n_sets[t] == 0 ? -1 : (int32_t)(t % s->n_seqs);
        in.set_stride = in.n_sets[t] > in.set_stride ? in.n_sets[t] : in.set_stride;
    }
    in.set_stride = (in.set_stride + 3) / 4 * 4;
    in.sets = gc_host(run, (size_t)s->n_rows * in.set_stride * sizeof *in.sets);
    memset(in.sets, 0xff, (size_t)s->n_rows * in.set_stride * sizeof *in.sets);
    for (uint32_t t = 0; t < s->n_rows; t++) {
        for (uint32_t i = 0; i < in.n_sets[t]; i++) { /* ascending, one from each equal part */
            const uint64_t first = (uint64_t)i * s->n_positions / in.n_sets[t];
            const uint64_t end = (uint64_t)(i + 1) * s->n_positions / in.n_sets[t];
            const uint32_t position = (uint32_t)first + gc_below(run, (uint32_t)(end - first));
            in.sets[(size_t)t * in.set_stride + i] = (int32_t)position;
            write_row(run, &in.c, (uint32_t)in.seqs[t], position, is_written);
        }
    }
    return in;
}

/* Products of the same index, in the order that is quick. */
static double dot(const float *a, const float *b, uint32_t n, double *squares)
{
    double sums[4] = {0};
    double more[4] = {0};
    for (uint32_t i = 0; i < n; i++) {
        const double product = (double)a[i] * (double)b[i];
        sums[i % 4] += product;
        more[i % 4] += product * product;
    }
    *squares += more[0] + more[1] + more[2] + more[3];
    return sums[0] + sums[1] + sums[2] + sums[3];
}

/*
 * One head of row t in f64.  tolerance: weights in bf16 are off by 2^-9 each; so are the elements
 * of FP8 rows, which a score feels as the root of its squares, six times over.
 */
static void attend_oracle(const attend_shape *s, const attend_inputs *in, uint32_t t, uint32_t h,
                          const float *rows, double *p, double *want, double *tolerance)
{
    const uint32_t n_row = s->latent + s->rope;
    const size_t at = (size_t)t * s->n_heads + h;
    const double scale = 1.0 / 16.0;
    double max = -(double)INFINITY;
    double off = 0.0;
    for (uint32_t i = 0; i < in->n_sets[t]; i++) {
        const float *row = rows + (size_t)i * n_row;
        double squares = 0.0;
        p[i] = scale *
               (dot(in->q_latent.f32 + at * s->latent, row, s->latent, &squares) +
                dot(in->q_rope.f32 + at * (s->rope + 16) + 16, row + s->latent, s->rope, &squares));
        max = p[i] > max ? p[i] : max;
        off = sqrt(squares) > off ? sqrt(squares) : off;
    }
    double sum = 0.0;
    for (uint32_t i = 0; i < in->n_sets[t]; i++) {
        p[i] = exp(p[i] - max);
        sum += p[i];
    }
    off = s->dtype == QN_KV_FP8 ? 6.0 * 0x1p-9 * scale * off : 0.0;
    memset(want, 0, s->latent * sizeof *want);
    memset(tolerance, 0, s->latent * sizeof *tolerance);
    for (uint32_t i = 0; i < in->n_sets[t]; i++) {
        for (uint32_t k = 0; k < s->latent; k++) {
            const double c = (double)rows[(size_t)i * n_row + k];
            want[k] += p[i] / sum * c;
            tolerance[k] += p[i] / sum * fabs(c) * (0x1p-8 + 1e-4 + off);
        }
    }
    for (uint32_t k = 0; k < s->latent; k++) {
        tolerance[k] += 1.01 * gc_half_ulp_bf16(want[k]);
    }
}

static void attend_compare(gc *run, const attend_shape *s, const attend_inputs *in,
                           uint16_t *const u[], uint32_t n_variants)
{
    double *p = gc_host(run, in->set_stride * sizeof *p);
    double *want = gc_host(run, s->latent * sizeof *want);
    double *tolerance = gc_host(run, s->latent * sizeof *tolerance);
    float *got = gc_host(run, s->latent * sizeof *got);
    float *rows = gc_host(run, (size_t)in->set_stride * (s->latent + s->rope) * sizeof *rows);
    for (uint32_t t = 0; t < s->n_rows; t++) {
        for (uint32_t i = 0; i < in->n_sets[t]; i++) {
            const qn_kv_view view = view_of(&in->c, (uint32_t)in->seqs[t]);
            run->ref.kv_read(rows + (size_t)i * (s->latent + s->rope), &view,
                             (uint32_t)in->sets[(size_t)t * in->set_stride + i]);
        }
        for (uint32_t h = 0; h<s->n_heads; h += in->n_sets[t]> 300 ? 7 : 1) {
            attend_oracle(s, in, t, h, rows, p, want, tolerance);
            for (uint32_t v = 0; v < n_variants; v++) {
                const uint16_t *from = u[v] == NULL ? NULL : gc_got(run, u[v]);
                for (uint32_t k = 0; from != NULL && k < s->latent; k++) {
                    got[k] = qn_bf16_to_f32(from[((size_t)t * s->n_heads + h) * s->latent + k]);
                }
                if (from != NULL) {
                    gc_close(run, qn_gpu_attend_variants[v].name, got, want, tolerance, s->latent);
                }
            }
        }
    }
}

/* Variants of one name before the slash give the same bits. */
static void attend_same(gc *run, uint16_t *const u[], uint32_t n_variants, size_t n_bytes)
{
    for (uint32_t v = 1; v < n_variants; v++) {
        const char *name = qn_gpu_attend_variants[v].name;
        const size_t n = strcspn(name, "/") + 1;
        if (u[v] != NULL && u[v - 1] != NULL &&
            strncmp(name, qn_gpu_attend_variants[v - 1].name, n) == 0) {
            gc_same(run, name, gc_got(run, u[v]), gc_got(run, u[v - 1]), n_bytes);
        }
    }
}

static void attend_case(gc *run, const attend_shape *s)
{
    gc_begin(run, "%s, %u heads, %u + %u, %u rows, %u positions",
             s->dtype == QN_KV_FP8 ? "FP8" : "bf16", s->n_heads, s->latent, s->rope, s->n_rows,
             s->n_positions);
    const attend_inputs in = attend_make(run, s);
    const size_t n_u = (size_t)s->n_rows * s->n_heads * s->latent;
    const size_t n_rope = (size_t)s->n_rows * s->n_heads * (s->rope + 16);
    const uint32_t n_splits = (in.set_stride + QN_GPU_ATTEND_SPLIT - 1) / QN_GPU_ATTEND_SPLIT;
    const uint16_t *q_rope = gc_in(run, in.q_rope.bf16, n_rope * sizeof *q_rope);
    qn_gpu_attend_args args = {
        .kv = upload_cache(run, &in.c),
        .q_latent = gc_in(run, in.q_latent.bf16, n_u * sizeof *args.q_latent),
        .q_rope = q_rope + 16,
        .seqs = gc_in(run, in.seqs, s->n_rows * sizeof *in.seqs),
        .sets = gc_in(run, in.sets, (size_t)s->n_rows * in.set_stride * sizeof *in.sets),
        .n_sets = gc_in(run, in.n_sets, s->n_rows * sizeof *in.n_sets),
        .partial_u = gc_scratch(run, NULL, n_splits * n_u * sizeof *args.partial_u),
        .partial_m = gc_scratch(run, NULL, n_splits * n_u / s->latent * 2 * sizeof *args.partial_m),
        .q_row_stride = (uint64_t)s->n_heads * (s->rope + 16),
        .q_head_stride = s->rope + 16,
        .n_rows = s->n_rows,
        .n_heads = s->n_heads,
        .set_stride = in.set_stride,
        .n_splits = n_splits,
        .scale = 1.0F / 16.0F,
    };
    uint16_t *u[8] = {NULL};
    for (uint32_t v = 0; v < qn_gpu_n_attend_variants; v++) {
        if (qn_gpu_attend_variants[v].supports(run->kernels, &args)) {
            args.u = u[v] = gc_out(run, n_u * sizeof *u[v]);
            qn_gpu_attend_variants[v].launch(&run->ops, gc_args(run, &args, sizeof args));
        }
    }
    /* What the model calls, with the room that it is told of. */
    const uint64_t n_partial = qn_gpu_attend_partial_floats(run->kernels, &args);
    args.partial_u = gc_scratch(run, NULL, n_partial * sizeof *args.partial_u);
    args.partial_m = gc_scratch(run, NULL, n_partial / s->latent * 2 * sizeof *args.partial_m);
    args.u = gc_out(run, n_u * sizeof *args.u);
    qn_gpu_attend(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    gc_same(run, "the chosen variant", gc_got(run, args.u),
            gc_got(run, u[qn_gpu_attend_choose(run->kernels, &args).i_variant]),
            n_u * sizeof *args.u);
    attend_same(run, u, qn_gpu_n_attend_variants, n_u * sizeof *args.u);
    attend_compare(run, s, &in, u, qn_gpu_n_attend_variants);
    gc_end(run);
}

static void check_attend(gc *run)
{
    static const attend_shape small[] = {
        {QN_KV_BF16, 3, 512, 64, 1, 80, 2, {66, 0}},
        {QN_KV_FP8, 20, 512, 64, 2, 400, 5, {1, 63, 257, 64, 0}},
        {QN_KV_BF16, 4, 64, 16, 2, 300, 3, {65, 0, 260}},
        {QN_KV_FP8, 9, 144, 16, 1, 64, 2, {31, 2}},
        {QN_KV_BF16, 17, 512, 64, 1, 900, 3, {600, 255, 256}},
        {QN_KV_FP8, 5, 512, 64, 2, 600, 6, {300, 0, 270, 1, 513, 64}},
    };
    static const attend_shape large[] = {
        {QN_KV_BF16,
         64,
         512,
         64,
         3,
         4096,
         12,
         {0, 1, 63, 64, 65, 255, 256, 257, 512, 2048, 2047, 1}},
        {QN_KV_FP8,
         64,
         512,
         64,
         3,
         4096,
         12,
         {0, 1, 63, 64, 65, 255, 256, 257, 512, 2048, 2047, 1}},
        {QN_KV_BF16, 16, 512, 64, 2, 4096, 6, {2048, 1000, 0, 129, 700, 3}},
        {QN_KV_FP8, 70, 512, 64, 2, 4096, 6, {2048, 1000, 0, 129, 700, 3}},
        {QN_KV_BF16, 64, 512, 64, 1, 65536, 1, {2048}},
        {QN_KV_FP8, 64, 512, 64, 1, 65536, 1, {2048}},
        {QN_KV_FP8, 8, 512, 64, 5, 700, 160, {300, 64, 1, 700, 0, 520, 7, 65, 128, 256, 0, 333}},
    };
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        attend_case(run, &small[i]);
    }
    for (size_t i = 0; !run->is_emulated && i < sizeof large / sizeof *large; i++) {
        attend_case(run, &large[i]);
    }
}

static void attend_wrong_scale(void *args)
{
    qn_gpu_attend_args *a = args;
    a->scale *= 1.25F;
}

static void attend_wrong_rope(void *args)
{
    qn_gpu_attend_args *a = args;
    a->q_head_stride = 0;
}

/* ------------------------------------------------------------------------------------ group -- */

static const gc_check checks[] = {
    {"index_scores", check_index_scores, "(dim + heads + 8) 2^-24 sum |w q k|"},
    {"topk", check_topk, "exact: the same positions"},
    {"attend", check_attend,
     "(2^-8 + 1e-4) sum p |c| + half a unit of bf16; FP8: more by what 2^-9 in each c does to s"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"index_scores_wrong_weights", "index_scores", index_wrong_weights},
    {"index_scores_wrong_first", "index_scores", index_wrong_first},
    {"topk_wrong_rows", "topk", topk_wrong_rows},
    {"topk_wrong_first", "topk", topk_wrong_first},
    {"attend_wrong_scale", "attend", attend_wrong_scale},
    {"attend_wrong_rope", "attend", attend_wrong_rope},
    {NULL, NULL, NULL},
};

const gc_group gc_attention = {checks, wrongs, gc_bench_attention};
