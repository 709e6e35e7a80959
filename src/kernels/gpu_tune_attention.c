/* SPDX-License-Identifier: Apache-2.0 */
/* Attention and index scores to be measured: caches of some sequences, which rows share. */
#include "base/page.h"
#include "base/rng.h"
#include "kernels/gpu_tune_subject.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { SEQS_MAX = QN_GPU_TUNE_PERIOD, HEADS_MAX = 64 /* of a tile of any variant */ };

/* What lies in the block; of index scores no sets and no partial sums. */
typedef struct cache {
    uint8_t *rows;
    int32_t *page_tables, *positions, *seqs, *sets;
    uint32_t *n_sets;
    uint16_t *q, *q_rope;
    float *w;
    uint32_t n_pages; /* of a sequence */
} cache;

static bool is_index(const qn_gpu_subject *s)
{
    return s->key.op == QN_GPU_TUNED_INDEX;
}

static uint32_t row_bytes(const qn_gpu_subject *s)
{
    return is_index(s) ? 2 * s->key.n_in : s->tuner->row_bytes;
}

static uint32_t latent_dim(const qn_gpu_subject *s)
{
    return s->key.n_in - (is_index(s) ? 0 : s->tuner->rope_dim);
}

static void lay_out(const qn_gpu_subject *s, qn_gpu_block *at)
{
    cache *const c = s->own;
    const qn_gpu_tuner *const t = s->tuner;
    const uint64_t n = s->n_rows_max > s->n_ref ? s->n_rows_max : s->n_ref;
    const uint64_t n_heads = s->key.n_out;
    *c = (cache){.n_pages = (t->n_positions + QN_PAGE_TOKENS - 1) / QN_PAGE_TOKENS};
    c->rows = qn_gpu_cut(at, (uint64_t)SEQS_MAX * c->n_pages * QN_PAGE_TOKENS * row_bytes(s));
    c->page_tables = qn_gpu_cut(at, (uint64_t)SEQS_MAX * c->n_pages * sizeof(int32_t));
    c->positions = qn_gpu_cut(at, n * sizeof(int32_t));
    c->seqs = qn_gpu_cut(at, n * sizeof(int32_t));
    c->q = qn_gpu_cut(at, n * n_heads * latent_dim(s) * sizeof(uint16_t));
    if (is_index(s)) {
        c->w = qn_gpu_cut(at, n * n_heads * sizeof(float));
        return;
    }
    c->q_rope = qn_gpu_cut(at, n * n_heads * t->rope_dim * sizeof(uint16_t));
    c->sets = qn_gpu_cut(at, n * t->n_topk * sizeof(int32_t));
    c->n_sets = qn_gpu_cut(at, n * sizeof(uint32_t));
}

/* ------------------------------------------------------------------------------------- calls -- */

static qn_gpu_cache cache_args(const qn_gpu_subject *s)
{
    const cache *const c = s->own;
    return (qn_gpu_cache){.base = c->rows,
                          .page_tables = c->page_tables,
                          .n_table_pages = c->n_pages,
                          .row_bytes = row_bytes(s),
                          .dtype = s->key.kind,
                          .latent_dim = latent_dim(s),
                          .rope_dim = is_index(s) ? 0 : s->tuner->rope_dim};
}

static qn_gpu_index_scores_args index_args(const qn_gpu_subject *s, uint32_t n_rows)
{
    const cache *const c = s->own;
    return (qn_gpu_index_scores_args){.keys = cache_args(s),
                                      .scores = s->y,
                                      .q = c->q,
                                      .w = c->w,
                                      .positions = c->positions,
                                      .seqs = c->seqs,
                                      .scores_stride = s->n_y,
                                      .n_rows = n_rows,
                                      .n_heads = s->key.n_out,
                                      .n_topk = s->tuner->n_topk,
                                      .n_positions_max = s->tuner->n_positions};
}

static uint32_t count_splits(const qn_gpu_subject *s)
{
    return (s->tuner->n_topk + QN_GPU_ATTEND_SPLIT - 1) / QN_GPU_ATTEND_SPLIT;
}

static qn_gpu_attend_args attend_args(const qn_gpu_subject *s, uint32_t n_rows)
{
    const cache *const c = s->own;
    const qn_gpu_tuner *const t = s->tuner;
    const uint64_t n_heads = s->key.n_out;
    float *const partial = (float *)(void *)s->scratch;
    const uint64_t n_floats = (n_rows * n_heads * count_splits(s) + HEADS_MAX) * latent_dim(s);
    return (qn_gpu_attend_args){.kv = cache_args(s),
                                .u = s->y,
                                .q_latent = c->q,
                                .q_rope = c->q_rope,
                                .seqs = c->seqs,
                                .sets = c->sets,
                                .n_sets = c->n_sets,
                                .partial_u = partial,
                                .partial_m = partial != NULL ? partial + n_floats : NULL,
                                .q_row_stride = n_heads * t->rope_dim,
                                .q_head_stride = t->rope_dim,
                                .n_rows = n_rows,
                                .n_heads = s->key.n_out,
                                .set_stride = t->n_topk,
                                .n_splits = count_splits(s),
                                .scale = 1.0F / sqrtf((float)s->key.n_in)};
}

static void launch_rows(qn_gpu_subject *s, uint32_t i_variant, uint32_t n_rows)
{
    if (is_index(s)) {
        const qn_gpu_index_scores_args args = index_args(s, n_rows);
        qn_gpu_index_scores_variants[i_variant].launch(&s->tuner->ops, &args);
    } else {
        const qn_gpu_attend_args args = attend_args(s, n_rows);
        qn_gpu_attend_variants[i_variant].launch(&s->tuner->ops, &args);
    }
}

static void launch(qn_gpu_subject *s, const qn_gpu_tune_candidate *c, uint32_t i_call)
{
    (void)i_call;
    launch_rows(s, c->i_variant, s->n_rows);
}

static void launch_ref(qn_gpu_subject *s)
{
    launch_rows(s, s->i_portable, s->n_ref);
}

/* ------------------------------------------------------------------------------------ inputs -- */

/* Page tables, and of each row its sequence, position and set. */
typedef struct host_rows {
    int32_t *page_tables, *positions, *seqs, *n_sets, *sets;
} host_rows;

/* A set of a row: one position of each of n_topk parts, so that it ascends. */
static void draw_set(const qn_gpu_tuner *t, int32_t *set, uint32_t i_row)
{
    for (uint32_t i = 0; i < t->n_topk; i++) {
        const uint32_t first = (uint32_t)((uint64_t)i * t->n_positions / t->n_topk);
        const uint32_t end = (uint32_t)((uint64_t)(i + 1) * t->n_positions / t->n_topk);
        set[i] = (int32_t)(first + qn_rng_u64(5, i_row, i) % (end - first));
    }
}

static void make_rows(const qn_gpu_subject *s, host_rows *h, uint32_t n)
{
    const cache *const c = s->own;
    const qn_gpu_tuner *const t = s->tuner;
    for (uint32_t i = 0; i < SEQS_MAX * c->n_pages; i++) {
        h->page_tables[i] = (int32_t)i;
    }
    for (uint32_t i = 0; i < n; i++) {
        h->positions[i] = (int32_t)t->n_positions - 1;
        h->seqs[i] = (int32_t)(i % SEQS_MAX);
        h->n_sets[i] = (int32_t)t->n_topk;
        if (!is_index(s)) {
            draw_set(t, h->sets + (size_t)i * t->n_topk, i % QN_GPU_TUNE_PERIOD);
        }
    }
}

static qn_status upload_rows(qn_gpu_subject *s, uint32_t n, qn_error *err)
{
    const cache *const c = s->own;
    qn_gpu_stream *const stream = s->tuner->ops.stream;
    const size_t n_tables = (size_t)SEQS_MAX * c->n_pages;
    const size_t n_sets = is_index(s) ? 0 : (size_t)n * s->tuner->n_topk;
    int32_t *const all = malloc((n_tables + 3 * (size_t)n + n_sets) * sizeof *all);
    if (all == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tuning: no memory");
    }
    host_rows h = {.page_tables = all,
                   .positions = all + n_tables,
                   .seqs = all + n_tables + n,
                   .n_sets = all + n_tables + 2 * (size_t)n,
                   .sets = all + n_tables + 3 * (size_t)n};
    make_rows(s, &h, n);
    qn_gpu_upload(stream, c->page_tables, h.page_tables, n_tables * sizeof *all);
    qn_gpu_upload(stream, c->positions, h.positions, n * sizeof *all);
    qn_gpu_upload(stream, c->seqs, h.seqs, n * sizeof *all);
    if (!is_index(s)) {
        qn_gpu_upload(stream, c->n_sets, h.n_sets, n * sizeof *all);
        qn_gpu_upload(stream, c->sets, h.sets, n_sets * sizeof *all);
    }
    const qn_status status = qn_gpu_wait(stream, err);
    free(all);
    return status;
}

/* Rows of FP8 hold codes and scales too: bytes that are numbers as any of them. */
static qn_status fill_cache(qn_gpu_subject *s, qn_error *err)
{
    const cache *const c = s->own;
    const uint64_t n_bytes = (uint64_t)SEQS_MAX * c->n_pages * QN_PAGE_TOKENS * row_bytes(s);
    const bool is_fp8 = !is_index(s) && s->key.kind == QN_GPU_KV_FP8;
    return qn_gpu_tune_fill(s->tuner, c->rows, n_bytes,
                            is_fp8 ? QN_GPU_TUNE_WEIGHTS : QN_GPU_TUNE_BF16, err);
}

static qn_status fill(qn_gpu_subject *s, qn_error *err)
{
    const cache *const c = s->own;
    const qn_gpu_tuner *const t = s->tuner;
    const uint32_t n = s->n_rows_max > s->n_ref ? s->n_rows_max : s->n_ref;
    const uint64_t n_heads = s->key.n_out;
    qn_status status = fill_cache(s, err);
    if (status == QN_OK) {
        status = upload_rows(s, n, err);
    }
    if (status == QN_OK) {
        status = qn_gpu_tune_fill_rows(t, c->q, n, n_heads * latent_dim(s), err);
    }
    if (status == QN_OK && is_index(s)) {
        /* As bf16 in pairs, which f32 may be as well. */
        status = qn_gpu_tune_fill_rows(t, c->w, n, n_heads * 2, err);
    } else if (status == QN_OK) {
        status = qn_gpu_tune_fill_rows(t, c->q_rope, n, n_heads * t->rope_dim, err);
    }
    return status;
}

/* ----------------------------------------------------------------------------------- subject -- */

static const char *name_of(const qn_gpu_subject *s, uint32_t i_variant)
{
    return is_index(s) ? qn_gpu_index_scores_variants[i_variant].name
                       : qn_gpu_attend_variants[i_variant].name;
}

static bool has_plans(const qn_gpu_subject *s, uint32_t i_variant)
{
    (void)s;
    (void)i_variant;
    return false;
}

static bool supports(const qn_gpu_subject *s, const qn_gpu_tune_candidate *c)
{
    const qn_gpu_kernels *const kernels = s->tuner->ops.kernels;
    if (is_index(s)) {
        const qn_gpu_index_scores_args args = index_args(s, s->n_rows);
        return qn_gpu_index_scores_variants[c->i_variant].supports(kernels, &args);
    }
    const qn_gpu_attend_args args = attend_args(s, s->n_rows);
    return qn_gpu_attend_variants[c->i_variant].supports(kernels, &args);
}

static uint64_t room(const qn_gpu_subject *s, const qn_gpu_tune_candidate *c)
{
    (void)c;
    const uint64_t n_sums = (uint64_t)s->n_rows * s->key.n_out * count_splits(s) + HEADS_MAX;
    return is_index(s) ? 0 : n_sums * (latent_dim(s) + 2) * sizeof(float);
}

static qn_status prepare(qn_gpu_subject *s, qn_error *err)
{
    (void)err;
    for (uint32_t i = 0; i < s->n_rows; i++) {
        s->ref_of[i] = i % QN_GPU_TUNE_PERIOD;
    }
    return QN_OK;
}

qn_status qn_gpu_subject_attention(qn_gpu_subject *s, qn_error *err)
{
    s->n_variants = is_index(s) ? qn_gpu_n_index_scores_variants : qn_gpu_n_attend_variants;
    s->i_portable = s->n_variants - 1;
    s->n_y = is_index(s) ? s->tuner->n_positions : (uint64_t)s->key.n_out * latent_dim(s);
    s->y_is_bf16 = !is_index(s);
    s->n_ref = QN_GPU_TUNE_PERIOD;
    s->n_calls = 1;
    s->name = name_of;
    s->supports = supports;
    s->has_plans = has_plans;
    s->room = room;
    s->prepare = prepare;
    s->launch = launch;
    s->launch_ref = launch_ref;
    const qn_status status = qn_gpu_tune_reserve(s, sizeof(cache), lay_out, "cache rows", err);
    return status < 0 ? status : fill(s, err);
}
