/* SPDX-License-Identifier: Apache-2.0 */
/* What the device can at most: reading memory. */
#include "kernels/gpu/lang.h"

QN_GPU_KERNEL(roof_read)
{
    enum { N = 8 /* loads of a thread under way */ };
    const uint64_t step = (uint64_t)qn_blocks_x() * QN_GPU_roof_read_THREADS;
    const uint64_t n = args->n_bytes / 16;
    u32x4 sum = {0, 0, 0, 0};
    uint64_t i = (uint64_t)qn_block_x() * QN_GPU_roof_read_THREADS + qn_thread();
    QN_UNROLL(1)
    for (; i < n; i += N * step) {
        u32x4 v[N];
        QN_UNROLL(8)
        for (uint32_t k = 0; k < N; k++) {
            const uint64_t at = i + k * step;
            v[k] = qn_stream_16(args->x + 16 * (at < n ? at : i));
        }
        QN_UNROLL(8)
        for (uint32_t k = 0; k < N; k++) {
            sum ^= v[k];
        }
    }
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x5eed1e55U) {
        args->sink[0] = sum.x;
    }
}
