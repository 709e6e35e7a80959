/* SPDX-License-Identifier: Apache-2.0 */
/* Times of kernels/gpu/rows.c at the model's widths. */
#include "device/gpu_block.h"
#include "gpucheck.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    N_EMBD = 6144,
    N_LATENT = 512,
    N_ROPE = 64,
    N_INDEX = 128,
    N_HEADS = 64,
    N_INDEX_HEADS = 32
};

static const uint32_t row_counts[] = {1, 64, 8192};

/* Shape of a bench: number of rows, and what else differs. */
typedef struct shape {
    uint32_t n_rows, n, variant;
} shape;

/* Rows of one sequence, one after the other; pages lie in order. */
static void fill_positions(gc *run, void *positions, uint32_t n_rows)
{
    int32_t *p = gc_host(run, n_rows * sizeof *p);
    for (uint32_t t = 0; t < n_rows; t++) {
        p[t] = (int32_t)t;
    }
    gc_put(run, positions, p, n_rows * sizeof *p);
}

/* Sets that begin with tokens, numbers of rows or positions. */
static void fill_rows(gc *run, const gc_bench *bench, uint8_t *set)
{
    fill_positions(run, set, ((const shape *)bench->context)->n_rows);
}

/* Time a call on a shape; the text is the shape for people. */
static void time_shape(gc *run, const shape *s, gc_bench bench, const char *format, ...)
    QN_PRINTF(4, 5);
static void time_shape(gc *run, const shape *s, gc_bench bench, const char *format, ...)
{
    char text[64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bench.shape = text;
    bench.context = s;
    (void)gc_time(run, &bench);
}

/* ---------------------------------------------------------------------------------- rmsnorm -- */

static void queue_rmsnorm(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    const size_t n_all = (size_t)s->n_rows * s->n;
    qn_gpu_block at = {.base = set};
    qn_gpu_rmsnorm_args args = {.y_stride = s->n,
                                .x_stride = s->n,
                                .x_dtype = QN_GPU_F32,
                                .n_rows = s->n_rows,
                                .n = s->n,
                                .eps = 1e-5F};
    args.x = qn_gpu_cut(&at, 4 * n_all);
    args.y_bf16 = qn_gpu_cut(&at, 2 * n_all);
    args.add = s->variant != 0 ? qn_gpu_cut(&at, 4 * n_all) : NULL;
    args.weight = qn_gpu_cut(&at, 4 * (size_t)s->n);
    qn_gpu_rmsnorm(&run->ops, &args);
}

static void bench_rmsnorm(gc *run, const shape *s)
{
    const double n_all = (double)s->n_rows * s->n;
    const size_t row = 6 * (size_t)s->n + (s->variant != 0 ? 4 * (size_t)s->n : 0);
    time_shape(run, s,
               (gc_bench){.op = "rmsnorm",
                          .n_bytes = n_all * (s->variant != 0 ? 14 : 6),
                          .set_bytes = s->n_rows * row + 4 * (size_t)s->n + 1024,
                          .fill = gc_fill_nothing,
                          .queue = queue_rmsnorm},
               "%u x %u f32%s", s->n_rows, s->n, s->variant != 0 ? ", added to" : "");
}

/* ------------------------------------------------------------------------------------- rope -- */

static void queue_rope(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_block at = {.base = set};
    qn_gpu_rope_args args = {.row_stride = N_HEADS * 256,
                             .vector_stride = 256,
                             .n_rows = s->n_rows,
                             .n_vectors = N_HEADS,
                             .n_pairs = N_ROPE / 2};
    args.x = qn_gpu_cut(&at, (size_t)s->n_rows * N_HEADS * 512);
    args.angles = qn_gpu_cut(&at, (size_t)s->n_rows * N_ROPE * 4);
    qn_gpu_rope(&run->ops, &args);
}

static void bench_rope(gc *run, const shape *s)
{
    time_shape(run, s,
               (gc_bench){.op = "rope",
                          .n_bytes = (double)s->n_rows * (N_HEADS * N_ROPE * 4 + N_ROPE * 4),
                          .set_bytes = (size_t)s->n_rows * (N_HEADS * 512 + N_ROPE * 4) + 512,
                          .fill = gc_fill_nothing,
                          .queue = queue_rope},
               "%u rows x %u heads x %u", s->n_rows, N_HEADS, N_ROPE);
}

/* ------------------------------------------------------------------------------ cache rows -- */

/* What cache rows go by; they are the first of a set. */
typedef struct places {
    int32_t *positions, *page_tables, *seqs;
    uint32_t n_pages;
} places;

static places cut_places(qn_gpu_block *at, const shape *s)
{
    const uint32_t n_pages = (s->n_rows + QN_PAGE_TOKENS - 1) / QN_PAGE_TOKENS;
    return (places){.positions = qn_gpu_cut(at, s->n_rows * sizeof(int32_t)),
                    .page_tables = qn_gpu_cut(at, n_pages * sizeof(int32_t)),
                    .seqs = qn_gpu_cut(at, s->n_rows * sizeof(int32_t)),
                    .n_pages = n_pages};
}

static void fill_places(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    const places p = cut_places(&(qn_gpu_block){.base = set}, s);
    fill_positions(run, p.positions, s->n_rows);
    fill_positions(run, p.page_tables, p.n_pages);
}

/* The room of rows that have @p row_bytes with what is read of them. */
static void time_cache_rows(gc *run, const shape *s, gc_bench bench, size_t row_bytes,
                            const char *text)
{
    bench.n_bytes = (double)s->n_rows * (double)row_bytes;
    bench.set_bytes = (size_t)(s->n_rows + QN_PAGE_TOKENS) * (row_bytes + 16) + 8192;
    bench.fill = fill_places;
    time_shape(run, s, bench, "%u rows%s", s->n_rows, text);
}

static uint32_t cache_row_bytes(const shape *s)
{
    return qn_kv_row_bytes(s->variant == QN_GPU_KV_FP8 ? QN_KV_FP8 : QN_KV_BF16, N_LATENT, N_ROPE);
}

static void queue_kv(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_block at = {.base = set};
    const places p = cut_places(&at, s);
    const uint32_t width = N_LATENT + N_ROPE;
    qn_gpu_kv_rows_args args = {.cache = {.page_tables = p.page_tables,
                                          .n_table_pages = p.n_pages,
                                          .row_bytes = cache_row_bytes(s),
                                          .dtype = s->variant,
                                          .latent_dim = N_LATENT,
                                          .rope_dim = N_ROPE},
                                .positions = p.positions,
                                .seqs = p.seqs,
                                .kv_stride = width,
                                .n_rows = s->n_rows,
                                .eps = 1e-5F};
    args.kv = qn_gpu_cut(&at, (size_t)s->n_rows * width * 4);
    args.weight = qn_gpu_cut(&at, N_LATENT * 4);
    args.angles = qn_gpu_cut(&at, (size_t)s->n_rows * N_ROPE * 4);
    args.cache.base = qn_gpu_cut(&at, (size_t)p.n_pages * QN_PAGE_TOKENS * args.cache.row_bytes);
    qn_gpu_kv_rows(&run->ops, &args);
}

static void bench_kv_rows(gc *run, const shape *s)
{
    time_cache_rows(run, s, (gc_bench){.op = "kv_rows", .queue = queue_kv},
                    4 * (N_LATENT + N_ROPE) + N_ROPE * 4 + cache_row_bytes(s),
                    s->variant == QN_GPU_KV_FP8 ? ", FP8" : ", bf16");
}

static void queue_index(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_block at = {.base = set};
    const places p = cut_places(&at, s);
    qn_gpu_index_rows_args args = {.cache = {.page_tables = p.page_tables,
                                             .n_table_pages = p.n_pages,
                                             .row_bytes = 2 * N_INDEX,
                                             .latent_dim = N_INDEX},
                                   .positions = p.positions,
                                   .seqs = p.seqs,
                                   .key_stride = N_INDEX,
                                   .n_rows = s->n_rows,
                                   .n_pairs = N_ROPE / 2,
                                   .n_heads = N_INDEX_HEADS,
                                   .eps = 1e-6F,
                                   .scale = 0.1F};
    args.key = qn_gpu_cut(&at, (size_t)s->n_rows * N_INDEX * 4);
    args.weight = qn_gpu_cut(&at, N_INDEX * 4);
    args.bias = qn_gpu_cut(&at, N_INDEX * 4);
    args.angles = qn_gpu_cut(&at, (size_t)s->n_rows * N_ROPE * 4);
    args.w = qn_gpu_cut(&at, (size_t)s->n_rows * N_INDEX_HEADS * 4);
    args.cache.base = qn_gpu_cut(&at, (size_t)p.n_pages * QN_PAGE_TOKENS * args.cache.row_bytes);
    qn_gpu_index_rows(&run->ops, &args);
}

static void bench_index_rows(gc *run, const shape *s)
{
    time_cache_rows(run, s, (gc_bench){.op = "index_rows", .queue = queue_index},
                    6 * N_INDEX + N_ROPE * 4 + N_INDEX_HEADS * 8, " of 128");
}

/* ----------------------------------------------------------------------------------- copies -- */

static void queue_embed(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_block at = {.base = set};
    qn_gpu_embed_args args = {
        .x_stride = N_EMBD, .table_dtype = QN_GPU_BF16, .n_rows = s->n_rows, .n_embd = N_EMBD};
    args.tokens = qn_gpu_cut(&at, s->n_rows * sizeof(int32_t));
    args.positions = args.tokens; /* a token a row, each its own */
    args.x = qn_gpu_cut(&at, (size_t)s->n_rows * N_EMBD * 4);
    args.table = qn_gpu_cut(&at, (size_t)s->n_rows * N_EMBD * 2);
    qn_gpu_embed(&run->ops, &args);
}

static void queue_gather(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_block at = {.base = set};
    qn_gpu_gather_args args = {.x_stride = N_EMBD, .n_rows = s->n_rows, .n = N_EMBD};
    args.rows = qn_gpu_cut(&at, s->n_rows * sizeof(uint32_t));
    args.x = qn_gpu_cut(&at, (size_t)s->n_rows * N_EMBD * 4);
    args.y_bf16 = qn_gpu_cut(&at, (size_t)s->n_rows * N_EMBD * 2);
    qn_gpu_gather(&run->ops, &args);
}

/* Rows of bf16 to f32, or back. */
static void bench_copy(gc *run, const shape *s, gc_bench bench, const char *text)
{
    bench.n_bytes = (double)s->n_rows * N_EMBD * 6;
    bench.set_bytes = (size_t)s->n_rows * (N_EMBD * 6 + 4) + 1024;
    bench.fill = fill_rows;
    time_shape(run, s, bench, "%u x %u %s", s->n_rows, N_EMBD, text);
}

void gc_bench_rows(gc *run)
{
    for (uint32_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
        const uint32_t n_rows = run->is_emulated ? i + 1 : row_counts[i];
        const shape rows = {n_rows, 0, 0};
        bench_copy(run, &rows, (gc_bench){.op = "embed", .queue = queue_embed}, "bf16");
        bench_rmsnorm(run, &(shape){n_rows, N_EMBD, 0});
        bench_rmsnorm(run, &(shape){n_rows, N_EMBD, 1});
        bench_rmsnorm(run, &(shape){n_rows, 2048, 0});
        bench_rope(run, &rows);
        bench_kv_rows(run, &(shape){n_rows, 0, QN_GPU_KV_BF16});
        bench_kv_rows(run, &(shape){n_rows, 0, QN_GPU_KV_FP8});
        bench_index_rows(run, &rows);
        bench_copy(run, &rows, (gc_bench){.op = "gather", .queue = queue_gather}, "to bf16");
    }
}
