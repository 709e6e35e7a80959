/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of what steps of many sequences need around their passes. */
#include "kernels/gpu/list.h"
#include "kernels/gpu_ops.h"

enum { N_THREADS = 128 /* of the kernels that have one for each element */ };

static void launch(const qn_gpu_ops *ops, uint32_t i_kernel, uint32_t n_blocks, const void *args,
                   size_t args_bytes)
{
    qn_gpu_ops_launch(ops, i_kernel, (const uint32_t[3]){n_blocks, 1, 1}, 0, args, args_bytes);
}

static uint32_t blocks_of(uint32_t n)
{
    return (n + N_THREADS - 1) / N_THREADS;
}

void qn_gpu_step_pages(const qn_gpu_ops *ops, const qn_gpu_step_pages_args *args)
{
    launch(ops, QN_GPU_KERNEL_step_pages, blocks_of(args->n_entries), args, sizeof *args);
}

void qn_gpu_step_rows(const qn_gpu_ops *ops, const qn_gpu_step_rows_args *args)
{
    const uint32_t n = args->n_rows > args->n_logits ? args->n_rows : args->n_logits;
    launch(ops, QN_GPU_KERNEL_step_rows, blocks_of(n), args, sizeof *args);
}

void qn_gpu_step_chain(const qn_gpu_ops *ops, const qn_gpu_step_chain_args *args)
{
    launch(ops, QN_GPU_KERNEL_step_chain, args->n_rows, args, sizeof *args);
}

void qn_gpu_step_follow(const qn_gpu_ops *ops, const qn_gpu_step_follow_args *args)
{
    launch(ops, QN_GPU_KERNEL_step_follow, args->n_rows, args, sizeof *args);
}

void qn_gpu_step_keep(const qn_gpu_ops *ops, const qn_gpu_step_keep_args *args)
{
    launch(ops, QN_GPU_KERNEL_step_keep, args->n_rows, args, sizeof *args);
}

void qn_gpu_step_settle(const qn_gpu_ops *ops, const qn_gpu_step_settle_args *args)
{
    launch(ops, QN_GPU_KERNEL_step_settle, blocks_of(args->n_seqs), args, sizeof *args);
}
