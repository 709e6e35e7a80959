/* SPDX-License-Identifier: Apache-2.0 */
/* Launches products with up to 64 rows: kernels/gpu/sm90/matmul_few_wgmma.c. */
#include "kernels/gpu_matmul_few.h"

#include "base/assert.h"
#include "base/minmax.h"
#include "kernels/gpu/list.h"
#include "kernels/gpu/tiles.h"

#include <math.h>

/* As kernels/gpu/sm90/matmul_few_wgmma.c has them. */
enum {
    STRIPS = 8, /* of an item */
    STAGES_MAX = 12,
    ROWS_MAX = 64,
    TILES_BYTES = 16384,        /* of a stage */
    SCALES_BYTES = 1024,        /* likewise, of MXFP4 */
    OTHER_BYTES = 16384 + 1024, /* sums that are handed over; what aligns stages */
    STATIC_BYTES = 1024,        /* more than the kernel's own arrays */
};

enum { BLOCKS_EACH_MAX = 16 /* for an item, that plans try */ };

/* By QN_GPU_W_: inputs of a stage are so many times 64. */
static const struct {
    uint32_t i_kernel, n_blocks;
} kinds[] = {
    [QN_GPU_W_BF16] = {QN_GPU_KERNEL_few_bf16, 1},
    [QN_GPU_W_FP8] = {QN_GPU_KERNEL_few_fp8, 2},
    [QN_GPU_W_MXFP4] = {QN_GPU_KERNEL_few_mxfp4, 4},
};

static uint32_t columns_of(uint32_t n_rows)
{
    return n_rows <= 8 ? 8 : n_rows <= 16 ? 16 : n_rows <= 32 ? 32 : 64;
}

/*
 * Deal to so many blocks.  Returns the time in bytes that a multiprocessor reads when all do:
 * stages of the longest run, of which rows of x come from the L2 cache; the ends of its items; and
 * of parts a fence, and reads that wait for each other.  Where fewer blocks read, each is faster,
 * up to a third.  The constants are guesses that gpucheck --bench bore out on an H200.
 */
static double deal(qn_gpu_few_plan *p, const qn_gpu_info *info, uint32_t n_rows, uint32_t n_grid)
{
    const uint64_t n_all = (uint64_t)p->n_each * p->n_items;
    const uint64_t n_run = (n_all + n_grid - 1) / n_grid;
    const uint64_t n_least = n_all / n_grid;
    const bool is_even = n_all % n_grid == 0 && (n_run % p->n_each == 0 || p->n_each % n_run == 0);
    const uint64_t n_ends = (n_run + p->n_each - 1) / p->n_each + (is_even ? 0 : 1);
    const double sums_bytes = 4.0 * STRIPS * QN_TILE_OUT * n_rows;
    const bool is_wide = 4 * n_grid >= 3 * info->n_sms;
    const double speed = is_wide ? (double)info->n_sms / n_grid : 4.0 / 3;
    p->n_grid = n_grid;
    p->n_parts = (uint32_t)((p->n_each + n_least - 1) / n_least) + (is_even ? 0 : 1);
    double end = 20000.0;
    double last = 0;
    if (p->n_parts > 1) {
        end += 30000.0 + sums_bytes;
        const uint32_t n_reads = (p->n_parts + 1) / 2;
        last = n_reads * (20000.0 + 2 * sums_bytes);
    }
    const double stage = TILES_BYTES + 0.5 * (p->stage_bytes - TILES_BYTES);
    return (double)n_run * stage / speed + (double)n_ends * end + last;
}

/* What a plan has before its stages are dealt. */
static qn_gpu_few_plan begin_plan(const qn_gpu_info *info, const qn_gpu_matmul_shape *shape)
{
    const uint32_t n_strips = qn_tile_strips(shape->n_out) * (shape->is_pair != 0 ? 2 : 1);
    const uint32_t n_inputs = 64 * kinds[shape->kind].n_blocks;
    qn_gpu_few_plan p = {.n_items = (n_strips + STRIPS - 1) / STRIPS * shape->n_groups,
                         .n_each = (qn_tile_pad(shape->n_in) + n_inputs - 1) / n_inputs,
                         .stage_bytes = TILES_BYTES + 2 * n_inputs * columns_of(shape->n_rows)};
    p.stage_bytes += shape->kind == QN_GPU_W_MXFP4 ? SCALES_BYTES : 0U;
    const uint32_t n_free = info->shared_bytes - (uint32_t)(STATIC_BYTES + OTHER_BYTES);
    p.n_ring = qn_min_u32(STAGES_MAX, n_free / p.stage_bytes);
    p.shared_bytes = OTHER_BYTES + p.n_ring * p.stage_bytes;
    return p;
}

qn_gpu_few_plan qn_gpu_few_plan_of(const qn_gpu_info *info, const qn_gpu_matmul_shape *shape)
{
    qn_gpu_few_plan p = begin_plan(info, shape);
    const uint64_t n_all = (uint64_t)p.n_each * p.n_items;
    const uint32_t n_most = (uint32_t)qn_min_u64(info->n_sms, n_all);
    qn_gpu_few_plan best = p;
    double best_cost = (double)INFINITY;
    for (uint32_t k = 1; k <= BLOCKS_EACH_MAX; k++) {
        const double cost =
            deal(&p, info, columns_of(shape->n_rows), qn_min_u32(n_most, k * p.n_items));
        if (cost < best_cost) {
            best = p;
            best_cost = cost;
        }
    }
    return best;
}

bool qn_gpu_few_supports(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    if (shape->n_rows > ROWS_MAX || shape->is_grouped || shape->is_deterministic ||
        shape->n_in % 8 != 0 || !qn_gpu_kernels_has(kernels, kinds[shape->kind].i_kernel)) {
        return false;
    }
    const qn_gpu_info *info = qn_gpu_kernels_info(kernels);
    const qn_gpu_few_plan p = begin_plan(info, shape);
    return p.n_items <= QN_GPU_COUNTERS_BYTES / 4 && p.n_ring >= 2 &&
           (uint64_t)p.n_items * p.n_each * info->n_sms <= UINT32_MAX; /* as the kernel counts */
}

/* By gpucheck --bench on an H200.  Many turns of all blocks leave little for equal runs to gain. */
bool qn_gpu_few_pays(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    const qn_gpu_info *info = qn_gpu_kernels_info(kernels);
    return shape->n_rows > 16 && begin_plan(info, shape).n_items <= 4 * info->n_sms;
}

uint64_t qn_gpu_few_partial_bytes(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    const qn_gpu_few_plan p = qn_gpu_few_plan_of(qn_gpu_kernels_info(kernels), shape);
    const uint64_t n_sums = (uint64_t)p.n_parts * shape->n_rows * p.n_items * STRIPS * QN_TILE_OUT;
    return p.n_parts == 1 ? 0 : QN_GPU_COUNTERS_BYTES + n_sums * 4;
}

void qn_gpu_few_launch(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                       const qn_gpu_matmul_shape *shape)
{
    const qn_gpu_few_plan p = qn_gpu_few_plan_of(qn_gpu_kernels_info(ops->kernels), shape);
    qn_gpu_matmul_args planned = *args;
    planned.n_pass = p.n_ring;
    QN_ASSERT(args->first_of == NULL && args->row_of == NULL);
    QN_ASSERT(p.n_parts == 1 || args->partial != NULL);
    const uint32_t grid[3] = {p.n_grid, 1, 1};
    qn_gpu_ops_launch_dependent(ops, kinds[shape->kind].i_kernel, grid, p.shared_bytes, &planned,
                                sizeof planned);
}
