/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of routing and of draws. */
#include "base/assert.h"
#include "kernels/gpu/list.h"
#include "kernels/gpu_ops.h"

/* Rounded up. */
static uint32_t quotient(uint32_t n, uint32_t unit)
{
    return (n + unit - 1) / unit;
}

void qn_gpu_router(const qn_gpu_ops *ops, const qn_gpu_router_args *args)
{
    QN_ASSERT(args->n_experts <= QN_GPU_EXPERTS_MAX && args->n_used <= args->n_experts);
    const uint32_t n_warps = QN_GPU_router_THREADS / qn_gpu_kernels_info(ops->kernels)->n_lanes;
    const uint32_t grid[3] = {quotient(args->n_rows, n_warps), 1, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_router, grid, 0, args, sizeof *args);
}

void qn_gpu_group(const qn_gpu_ops *ops, const qn_gpu_group_args *args)
{
    QN_ASSERT(args->n_experts > 0 && args->n_experts <= QN_GPU_EXPERTS_MAX);
    /* Blocks share the experts, and each counts all pairs: worth it where these are many. */
    const uint32_t grid[3] = {args->n_rows * args->n_used > 4096 ? 16 : 1, 1, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_group, grid, 0, args, sizeof *args);
}

void qn_gpu_combine(const qn_gpu_ops *ops, const qn_gpu_combine_args *args)
{
    QN_ASSERT(args->n_embd % 8 == 0);
    const uint32_t n_columns = 8 * QN_GPU_combine_THREADS; /* of a block */
    const uint32_t grid[3] = {args->n_rows, quotient(args->n_embd, n_columns), 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_combine, grid, 0, args, sizeof *args);
}

void qn_gpu_sample(const qn_gpu_ops *ops, const qn_gpu_sample_args *args)
{
    QN_ASSERT(args->n_vocab <= QN_GPU_VOCAB_MAX);
    const uint32_t n_parts = quotient(args->n_vocab, QN_GPU_SAMPLE_PART);
    const uint32_t parts[3] = {n_parts, args->n_rows, 1};
    const uint32_t rows[3] = {args->n_rows, 1, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_sample_largest, parts, 0, args, sizeof *args);
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_sample_soften, parts, 0, args, sizeof *args);
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_sample_count, parts, 0, args, sizeof *args);
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_sample, rows, 0, args, sizeof *args);
}

void qn_gpu_logsumexp(const qn_gpu_ops *ops, const qn_gpu_logsumexp_args *args)
{
    const uint32_t grid[3] = {args->n_rows, 1, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_logsumexp, grid, 0, args, sizeof *args);
}
