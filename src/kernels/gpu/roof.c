/* SPDX-License-Identifier: Apache-2.0 */
/* What the device can at most: reading memory. */
#include "kernels/gpu/lang.h"

QN_GPU_KERNEL(roof_read)
{
    const uint64_t step = (uint64_t)qn_blocks_x() * QN_GPU_roof_read_THREADS;
    const uint64_t first = (uint64_t)qn_block_x() * QN_GPU_roof_read_THREADS + qn_thread();
    const uint64_t n = args->n_bytes / 16;
    u32x4 sum = {0, 0, 0, 0};
    QN_UNROLL(8)
    for (uint64_t i = first; i < n; i += step) {
        sum ^= qn_stream_16(args->x + 16 * i);
    }
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x5eed1e55U) {
        args->sink[0] = sum.x;
    }
}
