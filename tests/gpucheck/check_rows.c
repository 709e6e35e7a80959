/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/rows.c. */
#include "gpucheck.h"

#include <string.h>

/* ------------------------------------------------------------------------------------ embed -- */

static void embed_case(gc *run, uint32_t dtype, uint32_t n_rows, uint32_t n)
{
    enum { N_VOCAB = 11 };
    gc_begin(run, "%u x %u, table of %s", n_rows, n, dtype == QN_GPU_F32 ? "f32" : "bf16");
    const uint32_t stride = n + 12;
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
        gc_untouched(run, "gap", got + (size_t)t * stride + n, 12 * sizeof *got);
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

/* ------------------------------------------------------------------------------------ group -- */

static const gc_check checks[] = {
    {"embed", check_embed, "exact: values are copied"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"embed_wrong_row", "embed", embed_wrong_row},
    {NULL, NULL, NULL},
};

const gc_group gc_rows = {checks, wrongs, NULL};
