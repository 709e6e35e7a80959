/* SPDX-License-Identifier: Apache-2.0 */
/** @file gpu_matmul_few.h  The variant of products with up to 64 rows (kernels/gpu/sm90). */
#ifndef QN_KERNELS_GPU_MATMUL_FEW_H
#define QN_KERNELS_GPU_MATMUL_FEW_H
#include "kernels/gpu_ops.h"

/**
 * Not of experts, whose weights are not known before a launch begins; up to 64 rows; not
 * deterministic: parts of the inputs go by the number of rows.
 */
bool qn_gpu_few_supports(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape);
uint64_t qn_gpu_few_partial_bytes(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape);
void qn_gpu_few_launch(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                       const qn_gpu_matmul_shape *shape);
#endif
