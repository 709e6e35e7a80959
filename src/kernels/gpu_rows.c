/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of the operations on rows. */
#include "kernels/gpu/list.h"
#include "kernels/gpu_ops.h"

/* So many blocks side by side. */
static void launch(const qn_gpu_ops *ops, uint32_t i_kernel, uint64_t n_blocks, const void *args,
                   size_t args_bytes)
{
    qn_gpu_ops_launch(ops, i_kernel, (const uint32_t[3]){(uint32_t)n_blocks, 1, 1}, 0, args,
                      args_bytes);
}

/* Blocks, of n_threads, of a kernel that has a row a warp. */
static uint32_t blocks_of_warps(const qn_gpu_ops *ops, uint32_t n_threads, uint32_t n_rows)
{
    const uint32_t n_warps = n_threads / qn_gpu_kernels_info(ops->kernels)->n_lanes;
    return (n_rows + n_warps - 1) / n_warps;
}

void qn_gpu_embed(const qn_gpu_ops *ops, const qn_gpu_embed_args *args)
{
    launch(ops, QN_GPU_KERNEL_embed, args->n_rows, args, sizeof *args);
}

void qn_gpu_rmsnorm(const qn_gpu_ops *ops, const qn_gpu_rmsnorm_args *args)
{
    const bool is_narrow = args->n <= 2048;
    launch(ops, is_narrow ? QN_GPU_KERNEL_rmsnorm_narrow : QN_GPU_KERNEL_rmsnorm, args->n_rows,
           args, sizeof *args);
}

void qn_gpu_rope_angles(const qn_gpu_ops *ops, const qn_gpu_rope_angles_args *args)
{
    const uint64_t n = (uint64_t)args->n_rows * args->n_pairs;
    launch(ops, QN_GPU_KERNEL_rope_angles,
           (n + QN_GPU_rope_angles_THREADS - 1) / QN_GPU_rope_angles_THREADS, args, sizeof *args);
}

void qn_gpu_rope(const qn_gpu_ops *ops, const qn_gpu_rope_args *args)
{
    const uint32_t n = args->n_vectors * (args->n_pairs / 4);
    const uint32_t grid[3] = {args->n_rows, (n + QN_GPU_rope_THREADS - 1) / QN_GPU_rope_THREADS, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_rope, grid, 0, args, sizeof *args);
}

void qn_gpu_kv_rows(const qn_gpu_ops *ops, const qn_gpu_kv_rows_args *args)
{
    launch(ops, QN_GPU_KERNEL_kv_rows, blocks_of_warps(ops, QN_GPU_kv_rows_THREADS, args->n_rows),
           args, sizeof *args);
}

void qn_gpu_index_rows(const qn_gpu_ops *ops, const qn_gpu_index_rows_args *args)
{
    launch(ops, QN_GPU_KERNEL_index_rows,
           blocks_of_warps(ops, QN_GPU_index_rows_THREADS, args->n_rows), args, sizeof *args);
}

void qn_gpu_gather(const qn_gpu_ops *ops, const qn_gpu_gather_args *args)
{
    launch(ops, QN_GPU_KERNEL_gather, args->n_rows, args, sizeof *args);
}

void qn_gpu_page_ends(const qn_gpu_ops *ops, const qn_gpu_page_ends_args *args)
{
    launch(ops, QN_GPU_KERNEL_page_ends, args->n_rows, args, sizeof *args);
}
