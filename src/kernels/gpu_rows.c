/* SPDX-License-Identifier: Apache-2.0 */
/* Launches of the operations on rows. */
#include "kernels/gpu/list.h"
#include "kernels/gpu_ops.h"

void qn_gpu_embed(const qn_gpu_ops *ops, const qn_gpu_embed_args *args)
{
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_embed, (const uint32_t[3]){args->n_rows, 1, 1}, 0, args,
                      sizeof *args);
}
