/* SPDX-License-Identifier: Apache-2.0 */
/* Times of index scores, top-k and attention at GLM-5.2's shapes. */
#include "device/gpu_block.h"
#include "gpucheck.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_PAGE = 64, N_TOPK = 2048, N_INDEX_HEADS = 32, N_KEY = 128, N_LATENT = 512, N_ROPE = 64 };

/* What one row of the benchmark is; places in a set are offsets of its arrays. */
typedef struct shape {
    uint32_t n_rows, n_positions; /* of each row; rows share sequences of n_shared rows */
    uint32_t n_shared, n_heads;
    qn_kv_dtype dtype;
    uint32_t variant;
} shape;

/* n words on the host, owned by the caller: sets are more than gc_host() has room for. */
static void *host_words(size_t n)
{
    void *words = calloc(n, 4);
    if (words == NULL) {
        abort();
    }
    return words;
}

/* Random bf16 near 1, the same megabyte over and over: products with it cost what any do. */
static void put_bf16(gc *run, void *to, size_t n_bytes)
{
    enum { N = 1 << 19 };
    static uint16_t *values;
    if (values == NULL) {
        values = malloc(N * sizeof *values);
        for (size_t i = 0; values != NULL && i < N; i++) {
            values[i] = qn_f32_to_bf16(gc_uniform(run) + gc_uniform(run));
        }
    }
    for (size_t i = 0; values != NULL && i < n_bytes; i += N * sizeof *values) {
        const size_t n = n_bytes - i < N * sizeof *values ? n_bytes - i : N * sizeof *values;
        gc_put(run, (uint8_t *)to + i, values, n);
    }
}

static uint32_t n_seqs_of(const shape *s)
{
    return (s->n_rows + s->n_shared - 1) / s->n_shared;
}

static uint32_t n_pages_of(const shape *s)
{
    return (s->n_positions + N_PAGE - 1) / N_PAGE;
}

/* positions, seqs: the last ones of each row's sequence. */
static void put_rows(gc *run, const shape *s, int32_t *positions, int32_t *seqs)
{
    int32_t *host = host_words(2 * (size_t)s->n_rows);
    for (uint32_t t = 0; t < s->n_rows; t++) {
        host[t] = (int32_t)(s->n_positions - s->n_shared + t % s->n_shared);
        host[s->n_rows + t] = (int32_t)(t / s->n_shared);
    }
    gc_put(run, positions, host, s->n_rows * sizeof *host);
    gc_put(run, seqs, host + s->n_rows, s->n_rows * sizeof *host);
    free(host);
}

/* ----------------------------------------------------------------------------- index scores -- */

/* Arrays of a set; returns its bytes. */
static size_t index_cut(const shape *s, uint8_t *set, qn_gpu_index_scores_args *args)
{
    const uint32_t n_pages = n_pages_of(s);
    qn_gpu_block at = {.base = set};
    *args = (qn_gpu_index_scores_args){
        .keys = {.base = qn_gpu_cut(&at, (size_t)n_seqs_of(s) * n_pages * N_PAGE * N_KEY * 2),
                 .page_tables = qn_gpu_cut(&at, (size_t)n_seqs_of(s) * n_pages * 4),
                 .n_table_pages = n_pages,
                 .row_bytes = 2 * N_KEY,
                 .dtype = QN_GPU_KV_BF16,
                 .latent_dim = N_KEY},
        .scores = qn_gpu_cut(&at, (size_t)s->n_rows * s->n_positions * 4),
        .q = qn_gpu_cut(&at, (size_t)s->n_rows * N_INDEX_HEADS * N_KEY * 2),
        .w = qn_gpu_cut(&at, (size_t)s->n_rows * N_INDEX_HEADS * 4),
        .positions = qn_gpu_cut(&at, (size_t)s->n_rows * 4),
        .seqs = qn_gpu_cut(&at, (size_t)s->n_rows * 4),
        .scores_stride = s->n_positions,
        .n_rows = s->n_rows,
        .n_heads = N_INDEX_HEADS,
        .n_topk = N_TOPK,
        .n_positions_max = s->n_positions,
    };
    return at.n_bytes;
}

static void index_fill(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_index_scores_args args;
    (void)index_cut(s, set, &args);
    const uint32_t n_pages = n_seqs_of(s) * n_pages_of(s);
    put_bf16(run, args.keys.base, (size_t)n_pages * N_PAGE * N_KEY * 2);
    put_bf16(run, (void *)(uintptr_t)args.q, (size_t)s->n_rows * N_INDEX_HEADS * N_KEY * 2);
    put_bf16(run, (void *)(uintptr_t)args.w, (size_t)s->n_rows * N_INDEX_HEADS * 4);
    gc_put(run, (void *)(uintptr_t)args.keys.page_tables,
           gc_page_tables(run, n_seqs_of(s), n_pages_of(s)), n_pages * 4);
    put_rows(run, s, (void *)(uintptr_t)args.positions, (void *)(uintptr_t)args.seqs);
}

static void index_queue(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_index_scores_args args;
    (void)index_cut(s, set, &args);
    qn_gpu_index_scores_variants[s->variant].launch(&run->ops, &args);
}

static void index_bench(gc *run, shape s, uint32_t variant)
{
    char text[96];
    qn_gpu_index_scores_args args;
    static uint8_t nowhere[1];
    s.variant = variant;
    const size_t set_bytes = index_cut(&s, nowhere, &args);
    if (!qn_gpu_index_scores_variants[variant].supports(run->kernels, &args)) {
        return;
    }
    (void)snprintf(text, sizeof text, "%u rows / %u, %u, %s", s.n_rows, s.n_shared, s.n_positions,
                   qn_gpu_index_scores_variants[variant].name);
    const double n_scores = (double)s.n_rows * s.n_positions;
    (void)gc_time(run, &(gc_bench){
                           .op = "index_scores",
                           .shape = text,
                           .n_bytes = 2.0 * N_KEY * n_scores / s.n_shared + 4.0 * n_scores,
                           .n_flops = 2.0 * N_KEY * N_INDEX_HEADS * n_scores,
                           .set_bytes = set_bytes,
                           .fill = index_fill,
                           .queue = index_queue,
                           .context = &s,
                       });
}

/* ------------------------------------------------------------------------------------ top-k -- */

static size_t topk_cut(const shape *s, uint8_t *set, qn_gpu_topk_args *args)
{
    qn_gpu_block at = {.base = set};
    *args = (qn_gpu_topk_args){
        .sets = qn_gpu_cut(&at, (size_t)s->n_rows * N_TOPK * 4),
        .n_sets = qn_gpu_cut(&at, (size_t)s->n_rows * 4),
        .scores = qn_gpu_cut(&at, (size_t)s->n_rows * s->n_positions * 4),
        .positions = qn_gpu_cut(&at, (size_t)s->n_rows * 4),
        .scores_stride = s->n_positions,
        .n_rows = s->n_rows,
        .n_topk = N_TOPK,
    };
    return at.n_bytes;
}

static void topk_fill(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_topk_args args;
    (void)topk_cut(s, set, &args);
    float *scores = host_words(s->n_positions);
    for (uint32_t i = 0; i < s->n_positions; i++) {
        scores[i] = gc_uniform(run) + gc_uniform(run) + gc_uniform(run);
    }
    for (uint32_t t = 0; t < s->n_rows; t++) {
        gc_put(run, (float *)(uintptr_t)args.scores + (size_t)t * s->n_positions, scores,
               s->n_positions * sizeof *scores);
    }
    int32_t *positions = host_words(s->n_rows);
    for (uint32_t t = 0; t < s->n_rows; t++) {
        positions[t] = (int32_t)s->n_positions - 1;
    }
    gc_put(run, (void *)(uintptr_t)args.positions, positions, s->n_rows * sizeof *positions);
    free(positions);
    free(scores);
}

static void topk_queue(gc *run, const gc_bench *bench, uint8_t *set)
{
    qn_gpu_topk_args args;
    (void)topk_cut(bench->context, set, &args);
    qn_gpu_topk(&run->ops, &args);
}

static void topk_bench(gc *run, uint32_t n_rows, uint32_t n_positions)
{
    char text[96];
    qn_gpu_topk_args args;
    static uint8_t nowhere[1];
    const shape s = {.n_rows = n_rows, .n_positions = n_positions};
    (void)snprintf(text, sizeof text, "%u rows, 2048 of %u", n_rows, n_positions);
    (void)gc_time(run, &(gc_bench){
                           .op = "topk",
                           .shape = text,
                           .n_bytes = 4.0 * n_rows * n_positions,
                           .set_bytes = topk_cut(&s, nowhere, &args),
                           .fill = topk_fill,
                           .queue = topk_queue,
                           .context = &s,
                       });
}

/* -------------------------------------------------------------------------------- attention -- */

/* Elements of a query head as the model has it: 192 that are absorbed, then the rope part. */
enum { N_HEAD = 256, N_NOPE = 192 };

static size_t attend_cut(const gc *run, const shape *s, uint8_t *set, qn_gpu_attend_args *args)
{
    const uint32_t n_pages = n_pages_of(s);
    const uint32_t row_bytes = qn_kv_row_bytes(s->dtype, N_LATENT, N_ROPE);
    const size_t n_u = (size_t)s->n_rows * s->n_heads * N_LATENT;
    qn_gpu_block at = {.base = set};
    *args = (qn_gpu_attend_args){
        .kv = {.base = qn_gpu_cut(&at, (size_t)n_seqs_of(s) * n_pages * N_PAGE * row_bytes),
               .page_tables = qn_gpu_cut(&at, (size_t)n_seqs_of(s) * n_pages * 4),
               .n_table_pages = n_pages,
               .row_bytes = row_bytes,
               .dtype = s->dtype == QN_KV_FP8 ? QN_GPU_KV_FP8 : QN_GPU_KV_BF16,
               .latent_dim = N_LATENT,
               .rope_dim = N_ROPE},
        .u = qn_gpu_cut(&at, n_u * 2),
        .q_latent = qn_gpu_cut(&at, n_u * 2),
        .q_rope = (uint16_t *)qn_gpu_cut(&at, (size_t)s->n_rows * s->n_heads * N_HEAD * 2) + N_NOPE,
        .seqs = qn_gpu_cut(&at, (size_t)s->n_rows * 4),
        .sets = qn_gpu_cut(&at, (size_t)s->n_rows * N_TOPK * 4),
        .n_sets = qn_gpu_cut(&at, (size_t)s->n_rows * 4),
        .q_row_stride = (uint64_t)s->n_heads * N_HEAD,
        .q_head_stride = N_HEAD,
        .n_rows = s->n_rows,
        .n_heads = s->n_heads,
        .set_stride = N_TOPK,
        .n_splits = N_TOPK / QN_GPU_ATTEND_SPLIT,
        .scale = 1.0F / 16.0F,
    };
    const uint64_t n_partial = qn_gpu_attend_partial_floats(run->kernels, args);
    args->partial_u = qn_gpu_cut(&at, n_partial * 4);
    args->partial_m = qn_gpu_cut(&at, n_partial / N_LATENT * 8);
    return at.n_bytes;
}

static void attend_fill(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_attend_args args;
    (void)attend_cut(run, s, set, &args);
    const uint32_t n_pages = n_seqs_of(s) * n_pages_of(s);
    const size_t n_u = (size_t)s->n_rows * s->n_heads * N_LATENT;
    if (s->dtype == QN_KV_BF16) { /* FP8: zeros, which cost the same */
        put_bf16(run, args.kv.base, (size_t)n_pages * N_PAGE * args.kv.row_bytes);
    }
    put_bf16(run, (void *)(uintptr_t)args.q_latent, n_u * 2);
    put_bf16(run, (uint16_t *)(uintptr_t)args.q_rope - N_NOPE,
             (size_t)s->n_rows * s->n_heads * N_HEAD * 2);
    gc_put(run, (void *)(uintptr_t)args.kv.page_tables,
           gc_page_tables(run, n_seqs_of(s), n_pages_of(s)), n_pages * 4);
    int32_t *set_of = host_words(N_TOPK);
    int32_t *rest = host_words(2 * (size_t)s->n_rows);
    for (uint32_t t = 0; t < s->n_rows; t++) {
        for (uint32_t i = 0; i < N_TOPK; i++) {
            const uint32_t first = (uint32_t)((uint64_t)i * s->n_positions / N_TOPK);
            set_of[i] = (int32_t)(first + gc_below(run, s->n_positions / N_TOPK));
        }
        gc_put(run, (int32_t *)(uintptr_t)args.sets + (size_t)t * N_TOPK, set_of,
               N_TOPK * sizeof *set_of);
        rest[t] = (int32_t)(t / s->n_shared);
        rest[s->n_rows + t] = N_TOPK;
    }
    gc_put(run, (void *)(uintptr_t)args.seqs, rest, s->n_rows * sizeof *rest);
    gc_put(run, (void *)(uintptr_t)args.n_sets, rest + s->n_rows, s->n_rows * sizeof *rest);
    free(rest);
    free(set_of);
}

static void attend_queue(gc *run, const gc_bench *bench, uint8_t *set)
{
    qn_gpu_attend_args args;
    (void)attend_cut(run, bench->context, set, &args);
    qn_gpu_attend(&run->ops, &args);
}

static void attend_bench(gc *run, shape s)
{
    char text[96];
    qn_gpu_attend_args args;
    static uint8_t nowhere[1];
    const size_t set_bytes = attend_cut(run, &s, nowhere, &args);
    (void)snprintf(
        text, sizeof text, "%u x %u heads, %s, %s", s.n_rows, s.n_heads,
        s.dtype == QN_KV_FP8 ? "FP8" : "bf16",
        qn_gpu_attend_variants[qn_gpu_attend_choose(run->kernels, &args).i_variant].name);
    const double n_each = (double)s.n_rows * s.n_heads;
    const double n_cached = s.n_shared > 64 ? s.n_positions : (double)s.n_rows * N_TOPK;
    (void)gc_time(run, &(gc_bench){
                           .op = "attend",
                           .shape = text,
                           .n_bytes = n_cached * args.kv.row_bytes + 2.0 * n_each * 1088.0,
                           .n_flops = 2.0 * n_each * N_TOPK * (2.0 * N_LATENT + N_ROPE),
                           .set_bytes = set_bytes,
                           .fill = attend_fill,
                           .queue = attend_queue,
                           .context = &s,
                       });
}

void gc_bench_attention(gc *run)
{
    static const shape index_shapes[] = {
        {1, 65536, 1, 0, 0, 0},  {8, 16384, 1, 0, 0, 0},       {32, 16384, 4, 0, 0, 0},
        {64, 65536, 1, 0, 0, 0}, {2048, 20480, 2048, 0, 0, 0},
    };
    static const shape attend_shapes[] = {
        {1, 16384, 1, 64, 0, 0},       {8, 16384, 1, 64, 0, 0},  {64, 8192, 4, 64, 0, 0},
        {8, 16384, 1, 16, 0, 0},       {128, 8192, 4, 16, 0, 0}, {256, 20480, 256, 64, 0, 0},
        {2048, 20480, 2048, 64, 0, 0},
    };
    if (run->is_emulated) {
        return; /* hours */
    }
    for (size_t i = 0; i < sizeof index_shapes / sizeof *index_shapes; i++) {
        for (uint32_t v = 0; v < (i == 4 ? 1 : qn_gpu_n_index_scores_variants); v++) {
            index_bench(run, index_shapes[i], v);
        }
    }
    topk_bench(run, 1, 65536);
    topk_bench(run, 8, 65536);
    topk_bench(run, 64, 65536);
    topk_bench(run, 1, 1 << 20);
    topk_bench(run, 2048, 20480);
    for (size_t i = 0; i < 2 * sizeof attend_shapes / sizeof *attend_shapes; i++) {
        shape s = attend_shapes[i / 2];
        s.dtype = i % 2 == 0 ? QN_KV_BF16 : QN_KV_FP8;
        attend_bench(run, s);
    }
}
