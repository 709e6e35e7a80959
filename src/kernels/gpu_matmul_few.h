/* SPDX-License-Identifier: Apache-2.0 */
/** @file gpu_matmul_few.h  The variant of products with up to 64 rows (kernels/gpu/sm90). */
#ifndef QN_KERNELS_GPU_MATMUL_FEW_H
#define QN_KERNELS_GPU_MATMUL_FEW_H
#include "kernels/gpu_ops.h"

/**
 * How the work of a launch is cut: an item is 128 outputs of a group.  Each has a cluster of blocks
 * with a part of the inputs each; or, where there are many, one block, which takes every n_grid-th
 * item.
 */
typedef struct qn_gpu_few_plan {
    uint32_t n_items;
    uint32_t n_stages; /**< Of an item; a stage is what a block takes of its inputs at a time. */
    uint32_t n_parts;  /**< Blocks of a cluster; above 1 no cluster has more than one item. */
    uint32_t n_grid;   /**< Blocks: two of a multiprocessor at most. */
    uint32_t stage_bytes;
    uint32_t n_ring; /**< Stages in shared memory: 2 at least. */
    uint32_t shared_bytes;
} qn_gpu_few_plan;

/** The plan that takes the least time, of a shape of up to 64 rows. */
qn_gpu_few_plan qn_gpu_few_plan_of(const qn_gpu_info *info, const qn_gpu_matmul_shape *shape);

/**
 * Not of experts, whose weights are not known before a launch begins; up to 64 rows; not
 * deterministic: parts of the inputs go by the number of rows.
 */
bool qn_gpu_few_supports(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape);
/** The kernel in front of it must not be one that writes weights. */
void qn_gpu_few_launch(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                       const qn_gpu_matmul_shape *shape);
#endif
