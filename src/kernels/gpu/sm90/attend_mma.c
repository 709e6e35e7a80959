/* SPDX-License-Identifier: Apache-2.0 */
/* Attention by products of a warp (mma). */
#include "kernels/gpu/sm90/attend_tmpl.h"

_Static_assert(N_THREADS == QN_GPU_attend_mma64_THREADS && N_THREADS == QN_GPU_attend_mma16_THREADS,
               "the template's threads");

QN_DEV void publish(void)
{
}

QN_DEV void score(float (*s)[4], const tile *tile, uint8_t *rows, const uint32_t M)
{
    const uint32_t lane = qn_lane();
    const uint32_t h = qn_warp() % M * 16 + lane % 16;
    const uint32_t position = qn_warp() / M * 8 * M + lane % 8;
    uint32_t a[4], b[4];
    QN_UNROLL(4)
    for (uint32_t k = 0; k < N_DIMS / 16; k++) {
        qn_ldmatrix(a, chunk_at(tile->q, 16 * M, h, 2 * k + lane / 16));
        if (M == 1) { /* two steps of k at once, every other time */
            if (k % 2 == 0) {
                qn_ldmatrix(b, chunk_at(rows, N_BLOCK, position, 2 * k + lane / 8));
            }
            qn_mma_bf16(s[0], a, k % 2 == 0 ? b : b + 2);
            continue;
        }
        QN_UNROLL(2)
        for (uint32_t j = 0; j < M; j += 2) {
            const uint32_t r = position + 8 * j + lane / 16 * 8;
            qn_ldmatrix(b, chunk_at(rows, N_BLOCK, r, 2 * k + lane / 8 % 2));
            qn_mma_bf16(s[j], a, b);
            qn_mma_bf16(s[j + 1], a, b + 2);
        }
    }
}

QN_DEV void add_values(float (*u)[4], const tile *tile, uint8_t *rows, const uint32_t M)
{
    const uint32_t lane = qn_lane();
    QN_UNROLL(4)
    for (uint32_t k = 0; k < N_BLOCK / 16; k++) {
        uint32_t a[4], b[4];
        qn_ldmatrix(a,
                    chunk_at(tile->p, 16 * M, qn_warp() % M * 16 + lane % 16, 2 * k + lane / 16));
        QN_UNROLL(16)
        for (uint32_t j = 0; j < 8 * M; j += 2) {
            const uint32_t chunk = qn_warp() / M * 8 * M + j + lane / 16;
            qn_ldmatrix_trans(b, chunk_at(rows, N_BLOCK, 16 * k + lane % 16, chunk));
            qn_mma_bf16(u[j], a, b);
            qn_mma_bf16(u[j + 1], a, b + 2);
        }
    }
}

QN_GPU_KERNEL(attend_mma16)
{
    attend_all(args, 1);
}

QN_GPU_KERNEL(attend_mma64)
{
    attend_all(args, 4);
}
