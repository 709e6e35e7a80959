/* SPDX-License-Identifier: Apache-2.0 */
/* Sums over rows. */
#include "kernels/gpu/lang.h"

QN_GPU_KERNEL(sum_f32)
{
    QN_SHARED(float, part, QN_GPU_sum_f32_THREADS / QN_LANES);
    const float *row = args->x + qn_block_x() * args->n;
    float sum = 0;
    QN_UNROLL(4)
    for (uint64_t i = qn_thread(); i < args->n; i += QN_GPU_sum_f32_THREADS) {
        sum += row[i];
    }
    sum = qn_block_sum(sum, part, QN_GPU_sum_f32_THREADS);
    if (qn_thread() == 0) {
        args->y[qn_block_x()] = sum;
    }
}
