/* SPDX-License-Identifier: Apache-2.0 */
/* Launches products with up to 64 rows: kernels/gpu/sm90/matmul_few_wgmma.c. */
#include "kernels/gpu_matmul_few.h"

#include "base/assert.h"
#include "base/minmax.h"
#include "kernels/gpu/list.h"
#include "kernels/gpu/tiles.h"

enum {
    STRIPS = QN_GPU_FEW_STRIPS,
    TILES = QN_GPU_FEW_TILES,
    TILES_BYTES = STRIPS * TILES * QN_TILE_BYTES,
    ALIGN_BYTES = 1024,  /* stages are on multiples of this */
    STATIC_BYTES = 2048, /* more than the kernel's own arrays */
    LAUNCH_BYTES = 1024, /* what a block takes beside its own */
};

enum {
    PARTS_MAX = STRIPS, /* blocks of a cluster, each of which adds up as much as a strip at least */
    BLOCKS_EACH = 2,    /* of a multiprocessor */
};

/* By QN_GPU_W_: inputs of a stage are so many times 64; cost_of() says what work is. */
static const struct {
    uint32_t i_kernel, n_blocks;
    double work;
} kinds[] = {
    [QN_GPU_W_BF16] = {QN_GPU_KERNEL_few_bf16, 1, 8000},
    [QN_GPU_W_FP8] = {QN_GPU_KERNEL_few_fp8, 2, 17500},
    [QN_GPU_W_MXFP4] = {QN_GPU_KERNEL_few_mxfp4, 4, 36000},
};

static uint32_t strips_of(uint32_t n_out, uint32_t is_pair)
{
    return qn_tile_strips(n_out) * (is_pair != 0 ? 2 : 1);
}

/* Times are in bytes that a multiprocessor reads when all do. */
typedef struct few_cost {
    double read;   /* of weights, and half of rows of x, which come from the L2 cache */
    double worked; /* expanding and multiplying */
    double joined; /* parts, and what the next launch waits for */
} few_cost;

/*
 * A multiprocessor alone reads a third faster; two blocks on one take half as long again for their
 * work, and leave the next launch none to begin on, which then lacks two stages' work of one row.
 * Constants are those that gpucheck --bench bore out on an H200 (2026-11-27, 14 shapes by all
 * plans).
 */
static few_cost cost_of(const qn_gpu_few_plan *p, const qn_gpu_info *info,
                        const qn_gpu_matmul_shape *shape)
{
    const double work = kinds[shape->kind].work + 75.0 * qn_gpu_few_columns(shape->n_rows);
    const double bytes = TILES_BYTES + 0.5 * (p->stage_bytes - TILES_BYTES);
    const double part_stages = (double)p->n_stages / p->n_parts;
    const uint32_t n_all = p->n_items * p->n_parts;                  /* parts */
    const uint32_t n_most = (n_all + info->n_sms - 1) / info->n_sms; /* of a multiprocessor */
    const bool is_shared = p->n_grid > info->n_sms;
    const uint32_t n_pairs = is_shared ? n_most / 2 : 0; /* of parts at once */
    const double n_mean = (double)n_all / info->n_sms;
    const double n_read = 0.75 * n_most > n_mean ? 0.75 * n_most : n_mean;
    return (few_cost){.read = bytes * part_stages * n_read,
                      .worked = work * part_stages * (n_most - 0.5 * n_pairs),
                      .joined = (p->n_parts > 1 ? 25000 : 0) +
                                (is_shared ? 2 * kinds[shape->kind].work : 0)};
}

static double total_of(const few_cost *cost)
{
    return (cost->read > cost->worked ? cost->read : cost->worked) + cost->joined;
}

/* The longest ring that fits into so many bytes beside the kernel's own arrays. */
static void fill_with_ring(qn_gpu_few_plan *p, uint32_t shared_bytes)
{
    const uint32_t n_free = shared_bytes - (uint32_t)(STATIC_BYTES + ALIGN_BYTES);
    p->n_ring = qn_min_u32(QN_GPU_FEW_STAGES_MAX, n_free / p->stage_bytes);
    p->shared_bytes = ALIGN_BYTES + p->n_ring * p->stage_bytes;
}

/* A plan with so many parts of an item, on half a multiprocessor: blocks of the next launch come
 * before these have ended. */
static qn_gpu_few_plan make_plan(const qn_gpu_info *info, const qn_gpu_matmul_shape *shape,
                                 uint32_t n_parts)
{
    const uint32_t n_strips = strips_of(shape->n_out, shape->is_pair);
    const uint32_t n_inputs = 64 * kinds[shape->kind].n_blocks;
    qn_gpu_few_plan p = {.n_items = (n_strips + STRIPS - 1) / STRIPS * shape->n_groups,
                         .n_stages = (qn_tile_pad(shape->n_in) + n_inputs - 1) / n_inputs,
                         .n_parts = n_parts,
                         .stage_bytes =
                             TILES_BYTES + 2 * n_inputs * qn_gpu_few_columns(shape->n_rows)};
    p.stage_bytes += shape->kind != QN_GPU_W_BF16 ? QN_GPU_FEW_SCALES_BYTES : 0U;
    p.n_grid = p.n_items * n_parts;
    fill_with_ring(&p, (info->shared_bytes - LAUNCH_BYTES) / 2);
    return p;
}

/* With so many blocks a multiprocessor at most, items are taken by turns. */
static qn_gpu_few_plan make_turns(const qn_gpu_info *info, const qn_gpu_matmul_shape *shape,
                                  uint32_t n_each)
{
    qn_gpu_few_plan p = make_plan(info, shape, 1);
    p.n_grid = qn_min_u32(p.n_items, n_each * info->n_sms);
    return p;
}

static void keep_cheaper(qn_gpu_few_plan *best, few_cost *best_cost, const qn_gpu_few_plan *p,
                         const qn_gpu_info *info, const qn_gpu_matmul_shape *shape)
{
    const few_cost cost = cost_of(p, info, shape);
    if (total_of(&cost) < total_of(best_cost)) {
        *best = *p;
        *best_cost = cost;
    }
}

qn_gpu_few_plan qn_gpu_few_plan_of(const qn_gpu_info *info, const qn_gpu_matmul_shape *shape)
{
    qn_gpu_few_plan best = make_turns(info, shape, 1);
    few_cost best_cost = cost_of(&best, info, shape);
    const qn_gpu_few_plan shared = make_turns(info, shape, BLOCKS_EACH);
    keep_cheaper(&best, &best_cost, &shared, info, shape);
    for (uint32_t k = 2; k <= PARTS_MAX; k *= 2) {
        const qn_gpu_few_plan p = make_plan(info, shape, k);
        if (k <= p.n_stages && p.n_grid <= BLOCKS_EACH * info->n_sms) {
            keep_cheaper(&best, &best_cost, &p, info, shape);
        }
    }
    /* A long ring is full sooner than the next launch's blocks could be of use; or these have
     * multiprocessors of their own, and a block's stages are more than half of one holds. */
    if ((best.n_parts == 1 && best.n_grid <= info->n_sms && best_cost.read > best_cost.worked) ||
        (best.n_grid <= info->n_sms / 2 && best.n_ring * best.n_parts < best.n_stages)) {
        fill_with_ring(&best, info->shared_bytes);
    }
    return best;
}

bool qn_gpu_few_supports(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    if (shape->n_rows > QN_GPU_FEW_ROWS_MAX || shape->is_grouped || shape->is_deterministic ||
        shape->n_in % 8 != 0 || !qn_gpu_kernels_has(kernels, kinds[shape->kind].i_kernel)) {
        return false;
    }
    return make_plan(qn_gpu_kernels_info(kernels), shape, 1).n_ring >= 2;
}

/* What the kernel copies, a box of each in a stage. */
static void map_all(qn_gpu_stream *stream, qn_gpu_few_args *args, uint32_t n_columns)
{
    const qn_gpu_matmul_args *p = &args->product;
    const qn_gpu_weight *w = &p->w;
    const uint32_t n_strips = strips_of(w->n_out, w->is_pair);
    const uint64_t x_stride = 2 * p->x_stride;
    const uint64_t tiles_stride = qn_tile_strip_bytes(w->kind, w->n_in);
    const uint64_t scales_stride = qn_tile_strip_scale_bytes(w->kind, w->n_in);
    const uint64_t n_scales = w->kind == QN_GPU_W_FP8 ? 16 : 8; /* of f32 */
    const uint32_t n_scales_box = w->kind == QN_GPU_W_FP8 ? 1 : TILES;
    const uint64_t n_groups = p->n_groups;
    qn_gpu_tensor_map(
        stream, args->x_map,
        &(qn_gpu_tensor_map_args){
            .memory = (void *)(uintptr_t)p->x, /* only read, as weights */
            .element = QN_GPU_ELEMENT_BF16,
            .n_dims = 4,
            .dims = {w->n_in, p->n_rows, n_groups, 1},
            .stride_bytes = {0, x_stride, n_groups > 1 ? 2 * p->x_group_stride : x_stride,
                             x_stride},
            .box = {64, n_columns, 1, 1},
            .swizzle_bytes = 128,
        });
    qn_gpu_tensor_map(
        stream, args->tiles_map,
        &(qn_gpu_tensor_map_args){
            .memory = (void *)(uintptr_t)w->data,
            .element = QN_GPU_ELEMENT_F32,
            .n_dims = 4,
            .dims = {QN_TILE_BYTES / 4, tiles_stride / QN_TILE_BYTES, n_strips, n_groups},
            .stride_bytes = {0, QN_TILE_BYTES, tiles_stride,
                             n_groups > 1 ? w->data_stride : tiles_stride},
            .box = {QN_TILE_BYTES / 4, TILES, STRIPS, 1},
        });
    if (w->kind != QN_GPU_W_BF16) {
        qn_gpu_tensor_map(
            stream, args->scales_map,
            &(qn_gpu_tensor_map_args){
                .memory = (void *)(uintptr_t)w->scales,
                .element = QN_GPU_ELEMENT_F32,
                .n_dims = 4,
                .dims = {n_scales, scales_stride / (4 * n_scales), n_strips, n_groups},
                .stride_bytes = {0, 4 * n_scales, scales_stride,
                                 n_groups > 1 ? w->scales_stride : scales_stride},
                .box = {(uint32_t)n_scales, n_scales_box, STRIPS, 1},
            });
    }
}

void qn_gpu_few_launch(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                       const qn_gpu_matmul_shape *shape)
{
    const qn_gpu_few_plan p = qn_gpu_few_plan_of(qn_gpu_kernels_info(ops->kernels), shape);
    qn_gpu_few_args planned = {.product = *args,
                               .n_across = p.n_items / shape->n_groups,
                               .n_stages = p.n_stages,
                               .n_parts = p.n_parts,
                               .n_clusters = p.n_grid / p.n_parts,
                               .n_ring = p.n_ring};
    QN_ASSERT(args->first_of == NULL && args->row_of == NULL);
    QN_ASSERT(args->y_stride <= UINT32_MAX / QN_GPU_FEW_ROWS_MAX);
    map_all(ops->stream, &planned, qn_gpu_few_columns(shape->n_rows));
    const uint32_t grid[3] = {p.n_grid, 1, 1};
    qn_gpu_ops_launch_dependent(ops, kinds[shape->kind].i_kernel, grid,
                                p.n_parts > 1 ? p.n_parts : 0, p.shared_bytes, &planned,
                                sizeof planned);
}
