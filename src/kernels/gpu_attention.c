/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of index scores, top-k and attention, and which of their kernels a shape gets. */
#include "base/assert.h"
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
    return args->keys.latent_dim % 8 == 0 && args->keys.row_bytes % 16 == 0 &&
           index_shared_bytes(args) <= qn_gpu_kernels_info(kernels)->shared_bytes;
}

static void index_launch(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args)
{
    const uint32_t grid[3] = {quotient(args->n_positions_max, QN_GPU_index_scores_THREADS),
                              args->n_rows, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_index_scores, grid, index_shared_bytes(args), args,
                      sizeof *args);
}

static bool index_mma_supports(const qn_gpu_kernels *kernels, const qn_gpu_index_scores_args *args)
{
    return qn_gpu_kernels_has(kernels, QN_GPU_KERNEL_index_scores_mma) &&
           args->keys.latent_dim == 128 && args->keys.row_bytes % 16 == 0 && args->n_heads <= 32;
}

static void index_mma_launch(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args)
{
    enum { N_EACH_MAX = 16, N_WAVES = 4 };
    const uint32_t n_blocks =
        quotient(args->n_positions_max, QN_GPU_index_scores_mma_THREADS); /* a key a thread */
    /* Rows that share the keys of a block: more where there are blocks enough. */
    const uint32_t n_wanted = N_WAVES * 3 * qn_gpu_kernels_info(ops->kernels)->n_sms;
    uint32_t n_each = 1;
    while (n_each < N_EACH_MAX && (uint64_t)n_blocks * args->n_rows >= 2ULL * n_each * n_wanted) {
        n_each *= 2;
    }
    const uint32_t grid[3] = {n_blocks, quotient(args->n_rows, n_each), 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_index_scores_mma, grid, 0, args, sizeof *args);
}

enum { INDEX_MMA, INDEX_PORTABLE };

const qn_gpu_index_scores_variant qn_gpu_index_scores_variants[] = {
    [INDEX_MMA] = {"sm90_mma", index_mma_supports, index_mma_launch},
    [INDEX_PORTABLE] = {"portable", index_supports, index_launch},
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
        return (qn_gpu_choice){.i_variant = row->i_variant, .source = qn_gpu_tuning_source(row)};
    }
    const bool has_mma = index_mma_supports(kernels, args);
    return (qn_gpu_choice){.i_variant = has_mma ? INDEX_MMA : INDEX_PORTABLE,
                           .source = row != NULL || !has_mma ? QN_GPU_FALLBACK : QN_GPU_DEFAULT};
}

void qn_gpu_index_scores(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args)
{
    const qn_gpu_choice choice = qn_gpu_index_scores_choose(ops->kernels, args);
    QN_ASSERT(qn_gpu_index_scores_variants[choice.i_variant].supports(ops->kernels, args));
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
    return args->kv.latent_dim % 4 == 0 && args->kv.rope_dim % 2 == 0 &&
           args->kv.row_bytes % 4 == 0 &&
           attend_shared_bytes(args) <= qn_gpu_kernels_info(kernels)->shared_bytes;
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

/* Blocks that partial_u has room for the sums of. */
static uint64_t room_of(const qn_gpu_attend_args *args, uint32_t n_tile)
{
    return (uint64_t)args->n_rows * args->n_splits * args->n_heads / n_tile;
}

/* May a block take rows as a whole?  Without a second split nothing is kept. */
static bool has_room(const qn_gpu_attend_args *args, uint32_t n_tile)
{
    return args->n_splits == 1 || room_of(args, n_tile) > 0;
}

/* Blocks of a launch that takes rows as a whole: each needs room for its sums in partial_u. */
static uint32_t whole_blocks(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args,
                             uint32_t n_tile)
{
    const uint32_t n_units = args->n_rows * quotient(args->n_heads, n_tile);
    const uint64_t n_room = room_of(args, n_tile);
    const uint32_t n_sms = qn_gpu_kernels_info(kernels)->n_sms;
    const uint32_t n = n_units < n_sms ? n_units : n_sms;
    return n <= n_room || args->n_splits == 1 ? n : (uint32_t)n_room;
}

static void mma_launch(const qn_gpu_ops *ops, const qn_gpu_attend_args *args, uint32_t i_kernel,
                       bool is_whole)
{
    const uint32_t n_tile = i_kernel == QN_GPU_KERNEL_attend_mma16 ? 16 : 64;
    /* What attend_tmpl.h keeps there: queries, two blocks of rows, weights, words of warps. */
    const uint32_t shared_bytes =
        1024 + (n_tile + 2 * 64) * 2 * (512 + 64) + n_tile * 2 * 64 + 16 * 8 * 4;
    qn_gpu_attend_args a = *args;
    a.is_whole = is_whole;
    const uint32_t n_units = a.n_rows * quotient(a.n_heads, n_tile);
    const uint32_t n_blocks =
        is_whole ? whole_blocks(ops->kernels, args, n_tile) : n_units * a.n_splits;
    qn_gpu_ops_launch(ops, i_kernel, (const uint32_t[3]){n_blocks, 1, 1}, shared_bytes, &a,
                      sizeof a);
    if (!is_whole) {
        join(ops, &a);
    }
}

#define VARIANT(kernel, n_tile)                                                                    \
    static bool kernel##_supports(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)   \
    {                                                                                              \
        return mma_supports(kernels, args, QN_GPU_KERNEL_attend_##kernel);                         \
    }                                                                                              \
    static bool kernel##_may_whole(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)  \
    {                                                                                              \
        return kernel##_supports(kernels, args) && has_room(args, n_tile);                         \
    }                                                                                              \
    static void kernel##_splits(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)             \
    {                                                                                              \
        mma_launch(ops, args, QN_GPU_KERNEL_attend_##kernel, false);                               \
    }                                                                                              \
    static void kernel##_whole(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)              \
    {                                                                                              \
        mma_launch(ops, args, QN_GPU_KERNEL_attend_##kernel, true);                                \
    }
VARIANT(wgmma64, 64)
VARIANT(mma64, 64)
VARIANT(mma16, 16)
#undef VARIANT

enum { WGMMA64, MMA64 = 2, MMA16 = 4, PORTABLE = 6 };

const qn_gpu_attend_variant qn_gpu_attend_variants[] = {
    [WGMMA64] = {"sm90_wgmma64/splits", wgmma64_supports, wgmma64_splits},
    [WGMMA64 + 1] = {"sm90_wgmma64/whole", wgmma64_may_whole, wgmma64_whole},
    [MMA64] = {"sm90_mma64/splits", mma64_supports, mma64_splits},
    [MMA64 + 1] = {"sm90_mma64/whole", mma64_may_whole, mma64_whole},
    [MMA16] = {"sm90_mma16/splits", mma16_supports, mma16_splits},
    [MMA16 + 1] = {"sm90_mma16/whole", mma16_may_whole, mma16_whole},
    [PORTABLE] = {"portable/splits", attend_supports, attend_launch},
};
const uint32_t qn_gpu_n_attend_variants =
    sizeof qn_gpu_attend_variants / sizeof *qn_gpu_attend_variants;

/* Heads of a tile, by the heads alone. */
static uint32_t tile_of(uint32_t n_heads)
{
    return n_heads <= 16 ? 16 : 64;
}

/* Is a block of all splits of a row better?  Where rows alone are work for the whole device. */
static bool is_whole(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    const uint32_t n_tile = tile_of(args->n_heads);
    return has_room(args, n_tile) && (uint64_t)args->n_rows * quotient(args->n_heads, n_tile) >=
                                         qn_gpu_kernels_info(kernels)->n_sms;
}

static uint32_t attend_by_rule(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    const uint32_t whole = is_whole(kernels, args) ? 1 : 0;
    if (tile_of(args->n_heads) == 16) {
        return mma16_supports(kernels, args) ? MMA16 + whole : PORTABLE;
    }
    return wgmma64_supports(kernels, args) ? WGMMA64 + whole
           : mma64_supports(kernels, args) ? MMA64 + whole
                                           : PORTABLE;
}

qn_gpu_choice qn_gpu_attend_choose(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    const qn_gpu_tuning_key key = qn_gpu_attend_key(args);
    const qn_gpu_tuning_row *row =
        qn_gpu_tuning_find(qn_gpu_kernels_tuning(kernels), &key, args->n_rows);
    if (row != NULL && row->i_variant < qn_gpu_n_attend_variants &&
        qn_gpu_attend_variants[row->i_variant].supports(kernels, args)) {
        return (qn_gpu_choice){.i_variant = row->i_variant, .source = qn_gpu_tuning_source(row)};
    }
    const uint32_t i_variant = attend_by_rule(kernels, args);
    const bool is_fallback = row != NULL || i_variant == PORTABLE;
    return (qn_gpu_choice){.i_variant = i_variant,
                           .source = is_fallback ? QN_GPU_FALLBACK : QN_GPU_DEFAULT};
}

void qn_gpu_attend(const qn_gpu_ops *ops, const qn_gpu_attend_args *args)
{
    const qn_gpu_choice choice = qn_gpu_attend_choose(ops->kernels, args);
    QN_ASSERT(qn_gpu_attend_variants[choice.i_variant].supports(ops->kernels, args));
    qn_gpu_attend_variants[choice.i_variant].launch(ops, args);
}

static uint64_t floats_by_rule(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    const uint64_t n_row = (uint64_t)args->n_splits * args->n_heads * args->kv.latent_dim;
    if (attend_by_rule(kernels, args) == PORTABLE || !is_whole(kernels, args)) {
        return args->n_rows * n_row;
    }
    /* The most rows that still are split, or a tile of heads for each block that is there. */
    const uint32_t n_tile = tile_of(args->n_heads);
    const uint32_t n_sms = qn_gpu_kernels_info(kernels)->n_sms;
    const uint64_t of_splits = (n_sms - 1) / quotient(args->n_heads, n_tile) * n_row;
    const uint64_t of_blocks =
        (uint64_t)whole_blocks(kernels, args, n_tile) * n_tile * args->kv.latent_dim;
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
    /* As whole_blocks() has it: blocks that the device has, or all splits have room for. */
    const uint64_t n_device =
        qn_gpu_kernels_info(kernels)->n_sms * (uint64_t)64 * args->kv.latent_dim;
    return n_device < n_all ? n_device : n_all;
}

uint64_t qn_gpu_attend_partial_floats(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args)
{
    qn_gpu_attend_args at = *args;
    uint64_t n_most = 0;
    for (uint64_t n = 1; n < 2 * (uint64_t)args->n_rows; n *= 2) { /* as tables have their rows */
        at.n_rows = n < args->n_rows ? (uint32_t)n : args->n_rows;
        const bool is_tuned = qn_gpu_attend_choose(kernels, &at).source == QN_GPU_TUNED;
        const uint64_t n_floats =
            is_tuned ? floats_by_table(kernels, &at) : floats_by_rule(kernels, &at);
        n_most = n_floats > n_most ? n_floats : n_most;
    }
    return n_most;
}
