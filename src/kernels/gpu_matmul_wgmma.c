/* SPDX-License-Identifier: Apache-2.0 */
/* Launches products with many rows: kernels/gpu/sm90/matmul_wgmma.c. */
#include "kernels/gpu_matmul_wgmma.h"

#include "base/assert.h"
#include "kernels/gpu/list.h"
#include "kernels/gpu/tiles.h"

/* As kernels/gpu/sm90/matmul_wgmma.c has them. */
enum {
    STRIPS = 16,                /* of a piece */
    PART_BYTES = 256 * 144 * 4, /* sums of a piece */
    SPLITS_MAX = 8,
    BLOCKS_MIN = 4, /* of 64 inputs, for a part to be worth its sums */
};

/* By QN_GPU_W_: slots of a piece; the ring of stages and the room for outputs. */
static const struct {
    uint32_t i_kernel, n_slots, shared_bytes;
} kinds[] = {
    [QN_GPU_W_BF16] = {QN_GPU_KERNEL_wgmma_bf16, 144, 1024 + 4 * 51200 + 8 * 1024},
    [QN_GPU_W_FP8] = {QN_GPU_KERNEL_wgmma_fp8, 128, 1024 + 6 * 34816 + 8 * 1024},
    [QN_GPU_W_MXFP4] = {QN_GPU_KERNEL_wgmma_mxfp4, 144, 1024 + 7 * 27648 + 8 * 1024},
};

static uint64_t count_pieces(const qn_gpu_matmul_shape *shape)
{
    const uint32_t n_strips = qn_tile_strips(shape->n_out) << (shape->is_pair != 0 ? 1 : 0);
    const uint32_t n_slots = shape->n_rows > 512 ? 128 : kinds[shape->kind].n_slots;
    return (uint64_t)((n_strips + STRIPS - 1) / STRIPS) *
           ((shape->n_rows + n_slots - 1) / n_slots) * shape->n_groups;
}

/* Parts that the inputs may have. */
static uint32_t count_parts(const qn_gpu_matmul_shape *shape)
{
    if (shape->is_grouped || shape->is_deterministic) {
        return 1;
    }
    const uint32_t n = qn_tile_pad(shape->n_in) / 64 / BLOCKS_MIN;
    return n > SPLITS_MAX ? SPLITS_MAX : n < 1 ? 1 : n;
}

/* As many as there are multiprocessors for. */
static uint32_t count_splits(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    const uint32_t n_parts = shape->n_rows == 0 ? 1 : count_parts(shape);
    if (n_parts == 1) {
        return 1;
    }
    const uint64_t n_free = qn_gpu_kernels_info(kernels)->n_sms / count_pieces(shape);
    return n_free < 1 ? 1 : n_free < n_parts ? (uint32_t)n_free : n_parts;
}

bool qn_gpu_wgmma_supports(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    return qn_gpu_kernels_has(kernels, kinds[shape->kind].i_kernel);
}

uint64_t qn_gpu_wgmma_partial_bytes(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    const uint64_t n = qn_gpu_kernels_info(kernels)->n_sms;
    return count_parts(shape) == 1 ? 0 : QN_GPU_COUNTERS_BYTES + n * PART_BYTES;
}

/* By gpucheck --bench on an H200.  Of one matrix, what gpu_matmul_few.h does not take. */
bool qn_gpu_wgmma_pays(const qn_gpu_matmul_shape *shape)
{
    if (!shape->is_grouped) {
        return shape->n_rows > 32;
    }
    const uint32_t n_groups =
        shape->n_rows < shape->n_groups ? shape->n_rows : shape->n_groups; /* with slots */
    return shape->n_rows >= 8 * n_groups;
}

void qn_gpu_wgmma_launch(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                         const qn_gpu_matmul_shape *shape)
{
    qn_gpu_matmul_args planned = *args;
    planned.n_splits = count_splits(ops->kernels, shape);
    QN_ASSERT(planned.n_splits == 1 || args->partial != NULL);
    const uint32_t grid[3] = {qn_gpu_kernels_info(ops->kernels)->n_sms, 1, 1};
    qn_gpu_ops_launch(ops, kinds[shape->kind].i_kernel, grid, kinds[shape->kind].shared_bytes,
                      &planned, sizeof planned);
}
