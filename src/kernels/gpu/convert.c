/* SPDX-License-Identifier: Apache-2.0 */
/* Between number formats: 16 bytes of the wider side a thread and step. */
#include "kernels/gpu/lang.h"

QN_GPU_KERNEL(e4m3_to_f32)
{
    const uint64_t step = (uint64_t)qn_blocks_x() * QN_GPU_e4m3_to_f32_THREADS;
    const uint64_t first = (uint64_t)qn_block_x() * QN_GPU_e4m3_to_f32_THREADS + qn_thread();
    QN_UNROLL(1)
    for (uint64_t i = first; i < args->n / 4; i += step) {
        ((f32x4 *)args->y)[i] = qn_e4m3x4_to_f32(((const uint32_t *)args->x)[i]);
    }
}

QN_GPU_KERNEL(f32_to_bf16)
{
    const uint64_t step = (uint64_t)qn_blocks_x() * QN_GPU_f32_to_bf16_THREADS;
    const uint64_t first = (uint64_t)qn_block_x() * QN_GPU_f32_to_bf16_THREADS + qn_thread();
    QN_UNROLL(1)
    for (uint64_t i = first; i < args->n / 8; i += step) {
        const f32x4 a = ((const f32x4 *)args->x)[2 * i];
        const f32x4 b = ((const f32x4 *)args->x)[2 * i + 1];
        const u32x4 pairs = {qn_f32_to_bf16x2(a.x, a.y), qn_f32_to_bf16x2(a.z, a.w),
                             qn_f32_to_bf16x2(b.x, b.y), qn_f32_to_bf16x2(b.z, b.w)};
        qn_store_16(args->y + 8 * i, pairs);
    }
}
