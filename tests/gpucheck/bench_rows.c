/* SPDX-License-Identifier: Apache-2.0 */
/* Times of kernels/gpu/rows.c at the model's widths. */
#include "gpucheck.h"

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

/* A set is cut into arrays, each on a multiple of 256 bytes. */
static void *carve(uint8_t **at, size_t n_bytes)
{
    void *array = *at;
    *at += (n_bytes + 255) / 256 * 256;
    return array;
}

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

/* ---------------------------------------------------------------------------------- rmsnorm -- */

static qn_gpu_rmsnorm_args rmsnorm_args(const shape *s, uint8_t *set)
{
    const size_t n_all = (size_t)s->n_rows * s->n;
    qn_gpu_rmsnorm_args args = {.y_stride = s->n,
                                .x_stride = s->n,
                                .x_dtype = QN_GPU_F32,
                                .n_rows = s->n_rows,
                                .n = s->n,
                                .eps = 1e-5F};
    args.x = carve(&set, 4 * n_all);
    args.y_bf16 = carve(&set, 2 * n_all);
    args.add = s->variant != 0 ? carve(&set, 4 * n_all) : NULL;
    args.weight = carve(&set, 4 * (size_t)s->n);
    return args;
}

static void fill_nothing(gc *run, const gc_bench *bench, uint8_t *set)
{
    (void)run;
    (void)bench;
    (void)set;
}

static void queue_rmsnorm(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_rmsnorm_args args = rmsnorm_args(bench->context, set);
    qn_gpu_rmsnorm(&run->ops, &args);
}

static void bench_rmsnorm(gc *run, const shape *s)
{
    char text[64];
    const double n_all = (double)s->n_rows * s->n;
    const size_t row = 6 * (size_t)s->n + (s->variant != 0 ? 4 * (size_t)s->n : 0);
    (void)snprintf(text, sizeof text, "%u x %u f32%s", s->n_rows, s->n,
                   s->variant != 0 ? ", added to" : "");
    const gc_bench bench = {.op = "rmsnorm",
                            .shape = text,
                            .n_bytes = n_all * (s->variant != 0 ? 14 : 6),
                            .set_bytes = s->n_rows * row + 4 * (size_t)s->n + 1024,
                            .fill = fill_nothing,
                            .queue = queue_rmsnorm,
                            .context = s};
    (void)gc_time(run, &bench);
}

/* ------------------------------------------------------------------------------------- rope -- */

static void queue_rope(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_rope_args args = {.row_stride = N_HEADS * 256,
                             .vector_stride = 256,
                             .n_rows = s->n_rows,
                             .n_vectors = N_HEADS,
                             .n_pairs = N_ROPE / 2};
    args.x = carve(&set, (size_t)s->n_rows * N_HEADS * 512);
    args.angles = carve(&set, (size_t)s->n_rows * N_ROPE * 4);
    qn_gpu_rope(&run->ops, &args);
}

static void bench_rope(gc *run, const shape *s)
{
    char text[64];
    (void)snprintf(text, sizeof text, "%u rows x %u heads x %u", s->n_rows, N_HEADS, N_ROPE);
    const gc_bench bench = {.op = "rope",
                            .shape = text,
                            .n_bytes = (double)s->n_rows * (N_HEADS * N_ROPE * 4 + N_ROPE * 4),
                            .set_bytes = (size_t)s->n_rows * (N_HEADS * 512 + N_ROPE * 4) + 512,
                            .fill = fill_nothing,
                            .queue = queue_rope,
                            .context = s};
    (void)gc_time(run, &bench);
}

/* ------------------------------------------------------------------------------ cache rows -- */

static uint32_t cache_row_bytes(const shape *s)
{
    return qn_kv_row_bytes(s->variant == QN_GPU_KV_FP8 ? QN_KV_FP8 : QN_KV_BF16, N_LATENT, N_ROPE);
}

static qn_gpu_kv_rows_args kv_args(const shape *s, uint8_t *set)
{
    const size_t n_pages = (s->n_rows + QN_PAGE_TOKENS - 1) / QN_PAGE_TOKENS;
    const uint32_t width = N_LATENT + N_ROPE;
    qn_gpu_kv_rows_args args = {.cache = {.n_table_pages = (uint32_t)n_pages,
                                          .row_bytes = cache_row_bytes(s),
                                          .dtype = s->variant,
                                          .latent_dim = N_LATENT,
                                          .rope_dim = N_ROPE},
                                .kv_stride = width,
                                .n_rows = s->n_rows,
                                .eps = 1e-5F};
    args.positions = carve(&set, s->n_rows * sizeof(int32_t));
    args.cache.page_tables = carve(&set, n_pages * sizeof(int32_t));
    args.seqs = carve(&set, s->n_rows * sizeof(int32_t));
    args.kv = carve(&set, (size_t)s->n_rows * width * 4);
    args.weight = carve(&set, N_LATENT * 4);
    args.angles = carve(&set, (size_t)s->n_rows * N_ROPE * 4);
    args.cache.base = carve(&set, n_pages * QN_PAGE_TOKENS * args.cache.row_bytes);
    return args;
}

static void fill_kv(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    const qn_gpu_kv_rows_args args = kv_args(s, set);
    fill_positions(run, set, s->n_rows);
    fill_positions(run, (uint8_t *)(uintptr_t)args.cache.page_tables, args.cache.n_table_pages);
}

static void queue_kv(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_kv_rows_args args = kv_args(bench->context, set);
    qn_gpu_kv_rows(&run->ops, &args);
}

static void bench_kv_rows(gc *run, const shape *s)
{
    char text[64];
    const size_t row = 4 * (N_LATENT + N_ROPE) + N_ROPE * 4 + cache_row_bytes(s);
    (void)snprintf(text, sizeof text, "%u rows, %s", s->n_rows,
                   s->variant == QN_GPU_KV_FP8 ? "FP8" : "bf16");
    const gc_bench bench = {.op = "kv_rows",
                            .shape = text,
                            .n_bytes = (double)s->n_rows * (double)row,
                            .set_bytes = (size_t)(s->n_rows + QN_PAGE_TOKENS) * (row + 16) + 8192,
                            .fill = fill_kv,
                            .queue = queue_kv,
                            .context = s};
    (void)gc_time(run, &bench);
}

static qn_gpu_index_rows_args index_args(const shape *s, uint8_t *set)
{
    const size_t n_pages = (s->n_rows + QN_PAGE_TOKENS - 1) / QN_PAGE_TOKENS;
    qn_gpu_index_rows_args args = {.cache = {.n_table_pages = (uint32_t)n_pages,
                                             .row_bytes = 2 * N_INDEX,
                                             .latent_dim = N_INDEX},
                                   .key_stride = N_INDEX,
                                   .n_rows = s->n_rows,
                                   .n_pairs = N_ROPE / 2,
                                   .n_heads = N_INDEX_HEADS,
                                   .eps = 1e-6F,
                                   .scale = 0.1F};
    args.positions = carve(&set, s->n_rows * sizeof(int32_t));
    args.cache.page_tables = carve(&set, n_pages * sizeof(int32_t));
    args.seqs = carve(&set, s->n_rows * sizeof(int32_t));
    args.key = carve(&set, (size_t)s->n_rows * N_INDEX * 4);
    args.weight = carve(&set, N_INDEX * 4);
    args.bias = carve(&set, N_INDEX * 4);
    args.angles = carve(&set, (size_t)s->n_rows * N_ROPE * 4);
    args.w = carve(&set, (size_t)s->n_rows * N_INDEX_HEADS * 4);
    args.cache.base = carve(&set, n_pages * QN_PAGE_TOKENS * args.cache.row_bytes);
    return args;
}

static void fill_index(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    const qn_gpu_index_rows_args args = index_args(s, set);
    fill_positions(run, set, s->n_rows);
    fill_positions(run, (uint8_t *)(uintptr_t)args.cache.page_tables, args.cache.n_table_pages);
}

static void queue_index(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_index_rows_args args = index_args(bench->context, set);
    qn_gpu_index_rows(&run->ops, &args);
}

static void bench_index_rows(gc *run, const shape *s)
{
    char text[64];
    const size_t row = 6 * N_INDEX + N_ROPE * 4 + N_INDEX_HEADS * 8;
    (void)snprintf(text, sizeof text, "%u rows of %u", s->n_rows, N_INDEX);
    const gc_bench bench = {.op = "index_rows",
                            .shape = text,
                            .n_bytes = (double)s->n_rows * (double)row,
                            .set_bytes = (size_t)(s->n_rows + QN_PAGE_TOKENS) * (row + 16) + 8192,
                            .fill = fill_index,
                            .queue = queue_index,
                            .context = s};
    (void)gc_time(run, &bench);
}

/* ----------------------------------------------------------------------------------- copies -- */

static void queue_embed(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_embed_args args = {
        .x_stride = N_EMBD, .table_dtype = QN_GPU_BF16, .n_rows = s->n_rows, .n_embd = N_EMBD};
    args.tokens = carve(&set, s->n_rows * sizeof(int32_t));
    args.positions = args.tokens; /* a token a row, each its own */
    args.x = carve(&set, (size_t)s->n_rows * N_EMBD * 4);
    args.table = carve(&set, (size_t)s->n_rows * N_EMBD * 2);
    qn_gpu_embed(&run->ops, &args);
}

static void fill_embed(gc *run, const gc_bench *bench, uint8_t *set)
{
    fill_positions(run, set, ((const shape *)bench->context)->n_rows);
}

static void bench_embed(gc *run, const shape *s)
{
    char text[64];
    (void)snprintf(text, sizeof text, "%u x %u bf16", s->n_rows, N_EMBD);
    const gc_bench bench = {.op = "embed",
                            .shape = text,
                            .n_bytes = (double)s->n_rows * N_EMBD * 6,
                            .set_bytes = (size_t)s->n_rows * (N_EMBD * 6 + 4) + 1024,
                            .fill = fill_embed,
                            .queue = queue_embed,
                            .context = s};
    (void)gc_time(run, &bench);
}

static void queue_gather(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    qn_gpu_gather_args args = {.x_stride = N_EMBD, .n_rows = s->n_rows, .n = N_EMBD};
    args.rows = carve(&set, s->n_rows * sizeof(uint32_t));
    args.x = carve(&set, (size_t)s->n_rows * N_EMBD * 4);
    args.y_bf16 = carve(&set, (size_t)s->n_rows * N_EMBD * 2);
    qn_gpu_gather(&run->ops, &args);
}

static void bench_gather(gc *run, const shape *s)
{
    char text[64];
    (void)snprintf(text, sizeof text, "%u x %u to bf16", s->n_rows, N_EMBD);
    const gc_bench bench = {.op = "gather",
                            .shape = text,
                            .n_bytes = (double)s->n_rows * N_EMBD * 6,
                            .set_bytes = (size_t)s->n_rows * (N_EMBD * 6 + 4) + 1024,
                            .fill = fill_embed,
                            .queue = queue_gather,
                            .context = s};
    (void)gc_time(run, &bench);
}

void gc_bench_rows(gc *run)
{
    for (uint32_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
        const uint32_t n_rows = run->is_emulated ? i + 1 : row_counts[i];
        bench_embed(run, &(shape){n_rows, N_EMBD, 0});
        bench_rmsnorm(run, &(shape){n_rows, N_EMBD, 0});
        bench_rmsnorm(run, &(shape){n_rows, N_EMBD, 1});
        bench_rmsnorm(run, &(shape){n_rows, 2048, 0});
        bench_rope(run, &(shape){n_rows, 0, 0});
        bench_kv_rows(run, &(shape){n_rows, 0, QN_GPU_KV_BF16});
        bench_kv_rows(run, &(shape){n_rows, 0, QN_GPU_KV_FP8});
        bench_index_rows(run, &(shape){n_rows, 0, 0});
        bench_gather(run, &(shape){n_rows, N_EMBD, 0});
    }
}
