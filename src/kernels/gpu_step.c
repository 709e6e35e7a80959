/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of what steps of many sequences need around their passes. */
#include "kernels/gpu/list.h"
#include "kernels/gpu_ops.h"

static void launch(const qn_gpu_ops *ops, uint32_t i_kernel, uint32_t n_blocks, const void *args,
                   size_t args_bytes)
{
    qn_gpu_ops_launch(ops, i_kernel, (const uint32_t[3]){n_blocks, 1, 1}, 0, args, args_bytes);
}

/* Blocks of a kernel that has a thread for each element. */
static uint32_t blocks_of(uint32_t n, uint32_t n_threads)
{
    return (n + n_threads - 1) / n_threads;
}

void qn_gpu_step_pages(const qn_gpu_ops *ops, const qn_gpu_step_pages_args *args)
{
    launch(ops, QN_GPU_KERNEL_step_pages, blocks_of(args->n_entries, QN_GPU_step_pages_THREADS),
           args, sizeof *args);
}

void qn_gpu_step_rows(const qn_gpu_ops *ops, const qn_gpu_step_rows_args *args)
{
    const uint32_t n = args->n_rows > args->n_logits ? args->n_rows : args->n_logits;
    launch(ops, QN_GPU_KERNEL_step_rows, blocks_of(n, QN_GPU_step_rows_THREADS), args,
           sizeof *args);
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

void qn_gpu_adjust(const qn_gpu_ops *ops, const qn_gpu_adjust_args *args)
{
    const uint32_t n_parts = blocks_of(args->n_vocab, QN_GPU_ADJUST_PART);
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_adjust, (const uint32_t[3]){args->n_rows, n_parts, 1}, 0,
                      args, sizeof *args);
}

void qn_gpu_step_settle(const qn_gpu_ops *ops, const qn_gpu_step_settle_args *args)
{
    launch(ops, QN_GPU_KERNEL_step_settle, blocks_of(args->n_seqs, QN_GPU_step_settle_THREADS),
           args, sizeof *args);
}
