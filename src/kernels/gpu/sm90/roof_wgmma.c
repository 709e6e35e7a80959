/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tensor cores can at most: products without loads. The numbers are no zeros, which take
 * less power and so run at a higher clock.
 */
#include "kernels/gpu/sm90/wgmma.h"

QN_GPU_KERNEL(roof_matmul)
{
    uint8_t *shared = qn_dynamic_shared();
    shared += (1024 - qn_shared_address(shared) % 1024) % 1024;
    for (uint32_t i = qn_thread(); i < (64 + 256) * 32; i += QN_GPU_roof_matmul_THREADS) {
        const uint32_t random = (i + 1) * 2654435761U;
        ((uint32_t *)shared)[i] = (random & 0x80ff80ffU) | 0x3f003f00U; /* 0.5 .. 2, both signs */
    }
    qn_fence_async_shared();
    qn_barrier();
    const uint32_t a = qn_wgmma_matrix(qn_shared_address(shared));
    const uint32_t b = qn_wgmma_matrix(qn_shared_address(shared) + 64 * 128);
    float d[128];
    QN_UNROLL(128)
    for (uint32_t i = 0; i < 128; i++) {
        d[i] = 0;
    }
    QN_UNROLL(1)
    for (uint64_t i = 0; i < args->n_steps; i++) {
        qn_wgmma_fence();
        QN_UNROLL(16)
        for (uint32_t j = 0; j < 16; j++) {
            qn_wgmma_bf16_shared(d, a + 2 * (j % 4), b + 2 * (j % 4));
        }
        qn_wgmma_commit();
        qn_wgmma_wait(0); /* the other warpgroup's go on meanwhile */
    }
    float sum = 0;
    QN_UNROLL(128)
    for (uint32_t i = 0; i < 128; i++) {
        sum += d[i];
    }
    args->y[qn_block_x() * QN_GPU_roof_matmul_THREADS + qn_thread()] = sum;
}
