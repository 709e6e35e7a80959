/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of index scores, top-k and attention, and which of their kernels a shape gets. */
#include "kernels/gpu/list.h"
#include "kernels/gpu_tuning.h"

#include <string.h>

/* Rounded up. */
static uint32_t quotient(uint32_t n, uint32_t unit)
{
    return (n + unit - 1) / unit;
}

/* ---------------------------------------------------------------------------- index scores -- */

/* Shared memory that the portable kernel keeps queries in: eight heads in f32. */
static uint32_t index_shared_bytes(const qn_gpu_index_scores_args *args)
{
    return 8 * args->keys.latent_dim * (uint32_t)sizeof(float);
}

static bool index_supports(const qn_gpu_kernels *kernels, const qn_gpu_index_scores_args *args)
{
    return index_shared_bytes(args) <= qn_gpu_kernels_info(kernels)->shared_bytes;
}

static void index_launch(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args)
{
    const uint32_t grid[3] = {quotient(args->n_positions_max, 256), args->n_rows, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_index_scores, grid, index_shared_bytes(args), args,
                      sizeof *args);
}

static bool index_mma_supports(const qn_gpu_kernels *kernels, const qn_gpu_index_scores_args *args)
{
    return qn_gpu_kernels_has(kernels, QN_GPU_KERNEL_index_scores_mma) &&
           args->keys.latent_dim == 128 && args->n_heads <= 32;
}

static void index_mma_launch(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args)
{
    enum { N_KEYS = 128, N_EACH_MAX = 16, N_WAVES = 4 };
    const uint32_t n_blocks = quotient(args->n_positions_max, N_KEYS);
    /* Rows that share the keys of a block: more where there are blocks enough. */
    const uint32_t n_wanted = N_WAVES * 3 * qn_gpu_kernels_info(ops->kernels)->n_sms;
    uint32_t n_each = 1;
    while (n_each < N_EACH_MAX && (uint64_t)n_blocks * args->n_rows >= 2 * n_each * n_wanted) {
        n_each *= 2;
    }
    const uint32_t grid[3] = {n_blocks, quotient(args->n_rows, n_each), 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_index_scores_mma, grid, 0, args, sizeof *args);
}

const qn_gpu_index_scores_variant qn_gpu_index_scores_variants[] = {
    {"sm90_mma", index_mma_supports, index_mma_launch},
    {"portable", index_supports, index_launch},
};
const uint32_t qn_gpu_n_index_scores_variants =
    sizeof qn_gpu_index_scores_variants / sizeof *qn_gpu_index_scores_variants;

qn_gpu_choice qn_gpu_index_scores_choose(const qn_gpu_kernels *kernels,
                                         const qn_gpu_index_scores_args *args)
{
    const qn_gpu_tuning_key key = qn_gpu_index_scores_key(args);
    const qn_gpu_tuning_row *row =
        qn_gpu_tuning_find(qn_gpu_kernels_tuning(kernels), &key, args->n_rows);
    if (row != NULL && row->i_variant < qn_gpu_n_index_scores_variants &&
        qn_gpu_index_scores_variants[row->i_variant].supports(kernels, args)) {
        return (qn_gpu_choice){.i_variant = row->i_variant, .source = QN_GPU_TUNED};
    }
    const bool has_mma = index_mma_supports(kernels, args);
    return (qn_gpu_choice){.i_variant = has_mma ? 0 : 1,
                           .source = row != NULL || !has_mma ? QN_GPU_FALLBACK : QN_GPU_DEFAULT};
}

void qn_gpu_index_scores(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args)
{
    const qn_gpu_choice choice = qn_gpu_index_scores_choose(ops->kernels, args);
    qn_gpu_index_scores_variants[choice.i_variant].launch(ops, args);
}

/* ----------------------------------------------------------------------------------- top-k -- */

void qn_gpu_topk(const qn_gpu_ops *ops, const qn_gpu_topk_args *args)
{
    const uint32_t grid[3] = {args->n_rows, 1, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_topk, grid, 0, args, sizeof *args);
}

/* ------------------------------------------------------------------------------- attention -- */

static void join(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)
{
    const uint32_t grid[3] = {args->n_heads, args->n_rows, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_attend_join, grid, 0, args, sizeof *args);
}

/* Weights and queries of the heads of a block. */
static uint32_t attend_shared_bytes(const qn_gpu_attend_args *args)
{
    const uint32_t n = QN_GPU_ATTEND_SPLIT + args->kv.latent_dim + args->kv.rope_dim;
    return QN_GPU_ATTEND_HEADS * n * (uint32_t)sizeof(float);
}

static bool attend_supports(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    return attend_shared_bytes(args) <= qn_gpu_kernels_info(kernels)->shared_bytes;
}

static void attend_launch(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)
{
    const uint32_t grid[3] = {args->n_splits, quotient(args->n_heads, QN_GPU_ATTEND_HEADS),
                              args->n_rows};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_attend, grid, attend_shared_bytes(args), args,
                      sizeof *args);
    join(ops, args);
}

static bool mma_supports(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args,
                         uint32_t i_kernel)
{
    return qn_gpu_kernels_has(kernels, i_kernel) && args->kv.latent_dim == 512 &&
           args->kv.rope_dim == 64 && args->kv.row_bytes % 16 == 0;
}

static bool mma16_supports(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    return mma_supports(kernels, args, QN_GPU_KERNEL_attend_mma16);
}

static bool mma64_supports(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    return mma_supports(kernels, args, QN_GPU_KERNEL_attend_mma64);
}

static void mma_launch(const qn_gpu_ops *ops, const qn_gpu_attend_args *args, uint32_t i_kernel,
                       bool is_whole)
{
    const uint32_t n_tile = i_kernel == QN_GPU_KERNEL_attend_mma64 ? 64 : 16;
    /* Queries, two blocks of 64 rows of bf16, weights; then what attend_mma.c says of its floats */
    const uint32_t shared_bytes = (n_tile + 2 * 64) * 2 * (512 + 64) + n_tile * 2 * 64 +
                                  (16 * 8 + 5 * n_tile) * (uint32_t)sizeof(float);
    qn_gpu_attend_args a = *args;
    a.is_whole = is_whole;
    uint32_t n_units = a.n_rows * quotient(a.n_heads, n_tile);
    const uint32_t n_sms = qn_gpu_kernels_info(ops->kernels)->n_sms;
    n_units = is_whole ? n_units : n_units * a.n_splits;
    const uint32_t grid[3] = {is_whole && n_units > n_sms ? n_sms : n_units, 1, 1};
    qn_gpu_ops_launch(ops, i_kernel, grid, shared_bytes, &a, sizeof a);
    if (!is_whole) {
        join(ops, &a);
    }
}

static void mma64_launch(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)
{
    mma_launch(ops, args, QN_GPU_KERNEL_attend_mma64, false);
}

static void mma64_whole_launch(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)
{
    mma_launch(ops, args, QN_GPU_KERNEL_attend_mma64, true);
}

static void mma16_launch(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)
{
    mma_launch(ops, args, QN_GPU_KERNEL_attend_mma16, false);
}

static void mma16_whole_launch(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)
{
    mma_launch(ops, args, QN_GPU_KERNEL_attend_mma16, true);
}

enum { MMA64, MMA64_WHOLE, MMA16, MMA16_WHOLE, PORTABLE };

const qn_gpu_attend_variant qn_gpu_attend_variants[] = {
    [MMA64] = {"sm90_mma64/splits", mma64_supports, mma64_launch},
    [MMA64_WHOLE] = {"sm90_mma64/whole", mma64_supports, mma64_whole_launch},
    [MMA16] = {"sm90_mma16/splits", mma16_supports, mma16_launch},
    [MMA16_WHOLE] = {"sm90_mma16/whole", mma16_supports, mma16_whole_launch},
    [PORTABLE] = {"portable/splits", attend_supports, attend_launch},
};
const uint32_t qn_gpu_n_attend_variants =
    sizeof qn_gpu_attend_variants / sizeof *qn_gpu_attend_variants;

/* Is a block of all splits of a row better?  Where rows alone are work for the whole device. */
static bool is_whole(const qn_gpu_kernels *kernels, uint32_t n_rows, uint32_t n_tiles)
{
    return (uint64_t)n_rows * n_tiles >= qn_gpu_kernels_info(kernels)->n_sms;
}

static uint32_t attend_by_rule(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    const bool is_small = args->n_heads <= 16;
    if (is_small ? !mma16_supports(kernels, args) : !mma64_supports(kernels, args)) {
        return PORTABLE;
    }
    const bool whole = is_whole(kernels, args->n_rows, is_small ? 1 : quotient(args->n_heads, 64));
    return is_small ? (whole ? MMA16_WHOLE : MMA16) : whole ? MMA64_WHOLE : MMA64;
}

qn_gpu_choice qn_gpu_attend_choose(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    const qn_gpu_tuning_key key = qn_gpu_attend_key(args);
    const qn_gpu_tuning_row *row =
        qn_gpu_tuning_find(qn_gpu_kernels_tuning(kernels), &key, args->n_rows);
    if (row != NULL && row->i_variant < qn_gpu_n_attend_variants &&
        qn_gpu_attend_variants[row->i_variant].supports(kernels, args)) {
        return (qn_gpu_choice){.i_variant = row->i_variant, .source = QN_GPU_TUNED};
    }
    const uint32_t i_variant = attend_by_rule(kernels, args);
    const bool is_fallback = row != NULL || i_variant == PORTABLE;
    return (qn_gpu_choice){.i_variant = i_variant,
                           .source = is_fallback ? QN_GPU_FALLBACK : QN_GPU_DEFAULT};
}

void qn_gpu_attend(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)
{
    const qn_gpu_choice choice = qn_gpu_attend_choose(ops->kernels, args);
    qn_gpu_attend_variants[choice.i_variant].launch(ops, args);
}

static uint64_t floats_by_rule(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    const uint64_t n_row = (uint64_t)args->n_splits * args->n_heads * args->kv.latent_dim;
    const uint32_t n_tile = args->n_heads <= 16 ? 16 : 64;
    const uint32_t n_tiles = quotient(args->n_heads, n_tile);
    if (attend_by_rule(kernels, args) == PORTABLE || !is_whole(kernels, args->n_rows, n_tiles)) {
        return args->n_rows * n_row;
    }
    /* The most rows that still are split, or a tile of heads for each block that is there. */
    const uint32_t n_sms = qn_gpu_kernels_info(kernels)->n_sms;
    const uint32_t n_heads = args->n_heads < n_tile ? args->n_heads : n_tile;
    const uint64_t of_splits = (n_sms - 1) / n_tiles * n_row;
    const uint64_t of_blocks = (uint64_t)n_sms * n_heads * args->kv.latent_dim;
    return of_splits > of_blocks ? of_splits : of_blocks;
}

/* What the variant that a table names for so many rows needs. */
static uint64_t floats_by_table(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    const uint64_t n_all =
        (uint64_t)args->n_rows * args->n_splits * args->n_heads * args->kv.latent_dim;
    const char *name = qn_gpu_attend_variants[qn_gpu_attend_choose(kernels, args).i_variant].name;
    if (strstr(name, "/whole") == NULL) {
        return n_all;
    }
    const uint64_t n_tile = args->n_heads <= 16 ? 16 : 64;
    const uint64_t n_blocks = qn_gpu_kernels_info(kernels)->n_sms;
    const uint64_t n_sums = n_blocks * n_tile * args->kv.latent_dim;
    return n_sums < n_all ? n_sums : n_all; /* a row's sums are no more than those of its splits */
}

uint64_t qn_gpu_attend_partial_floats(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    if (qn_gpu_attend_choose(kernels, args).source != QN_GPU_TUNED) {
        return floats_by_rule(kernels, args);
    }
    qn_gpu_attend_args at = *args;
    uint64_t n_most = 0;
    for (uint64_t n = 1; n < 2 * (uint64_t)args->n_rows; n *= 2) { /* as tables have their rows */
        at.n_rows = n < args->n_rows ? (uint32_t)n : args->n_rows;
        const uint64_t n_floats = floats_by_table(kernels, &at);
        n_most = n_floats > n_most ? n_floats : n_most;
    }
    return n_most;
}
