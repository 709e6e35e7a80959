/* SPDX-License-Identifier: Apache-2.0 */
/** @file gpu_matmul_wgmma.h  The variant of products with many rows (kernels/gpu/sm90). */
#ifndef QN_KERNELS_GPU_MATMUL_WGMMA_H
#define QN_KERNELS_GPU_MATMUL_WGMMA_H
#include "kernels/gpu_ops.h"

/**
 * Any shape and number of rows, where the device has the kernel.  Deterministic: a row's bits do
 * not depend on the number of rows; else, few rows of one matrix have their inputs cut in parts.
 */
bool qn_gpu_wgmma_supports(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape);
/** Enough for any number of rows. */
uint64_t qn_gpu_wgmma_partial_bytes(const qn_gpu_kernels *kernels,
                                    const qn_gpu_matmul_shape *shape);
/** Faster than the variants for few rows? */
bool qn_gpu_wgmma_pays(const qn_gpu_matmul_shape *shape);
void qn_gpu_wgmma_launch(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                         const qn_gpu_matmul_shape *shape);
#endif
