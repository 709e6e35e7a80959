/* SPDX-License-Identifier: Apache-2.0 */
/* Attention by products of a warpgroup (wgmma), both sides of which lie in shared memory. */
#include "kernels/gpu/sm90/attend_tmpl.h"
#include "kernels/gpu/sm90/wgmma.h"

_Static_assert(N_THREADS == QN_GPU_attend_wgmma64_THREADS, "the template's threads");

QN_DEV void publish(void)
{
    qn_fence_async_shared();
}

/*
 * Before the fence and after the wait: what other code does to the registers of products is done on
 * its side of this.  The compiler does not know that products run on in between.
 */
QN_DEV void tie(float *d, const uint32_t n)
{
    QN_UNROLL(8)
    for (uint32_t i = 0; i < n; i += 16) {
        __asm__ volatile("" : QN_D16(d, i)::"memory");
    }
}

/* d += a * b, m64 n32 k16, both by qn_wgmma_matrix(). */
QN_DEV void product_32(float *d, uint32_t a, uint32_t b)
{
    __asm__ volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" QN_NAMES_16 "}, "
                     "%16, %17, 1, 1, 1, 0, 0;"
                     : QN_D16(d, 0)
                     : "l"(qn_wgmma_descriptor(a)), "l"(qn_wgmma_descriptor(b)));
}

/* The same with n 256, and b the other way round: [k][n]. */
QN_DEV void product_256(float *d, uint32_t a, uint32_t b)
{
    __asm__ volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" QN_NAMES_128 "}, "
                     "%128, %129, 1, 1, 1, 0, 1;"
                     : QN_D64(d, 0), QN_D64(d, 64)
                     : "l"(qn_wgmma_descriptor(a)), "l"(qn_wgmma_descriptor(b)));
}

/* Descriptors count in 16 bytes: 32 are 16 columns. */
QN_DEV void score(float (*s)[4], const tile *tile, uint8_t *rows, const uint32_t M)
{
    const uint32_t a = qn_wgmma_matrix(qn_shared_address(tile->q));
    const uint32_t b = qn_wgmma_matrix(qn_shared_address(rows + qn_warp() / M * 8 * M * 128));
    QN_UNROLL(1)
    for (uint32_t i = 0; i < N_DIMS / 64; i += 3) { /* a group each, or ptxas adds fences */
        tie(s[0], 16);
        qn_wgmma_fence();
        QN_UNROLL(12)
        for (uint32_t k = 0; k < 12; k++) {
            const uint32_t columns = i + k / 4;
            product_32(s[0], a + columns * 16 * M * 8 + k % 4 * 2,
                       b + columns * N_BLOCK * 8 + k % 4 * 2);
        }
        qn_wgmma_commit();
    }
    qn_wgmma_wait(0);
    tie(s[0], 16);
}

/* The rows [k][n] have 64 columns together: N_BLOCK * 128 bytes to the next 64. */
QN_DEV void add_values(float (*u)[4], const tile *tile, uint8_t *rows, const uint32_t M)
{
    const uint32_t a = qn_wgmma_matrix(qn_shared_address(tile->p));
    const uint8_t *columns = rows + qn_warp() / M * M * N_BLOCK * 128;
    const uint32_t one = 1U << 16; /* the field of the bytes to the next columns */
    const uint32_t b = qn_wgmma_matrix(qn_shared_address(columns)) - one + N_BLOCK * 8 * one;
    tie(u[0], 128);
    qn_wgmma_fence();
    QN_UNROLL(4)
    for (uint32_t k = 0; k < N_BLOCK / 16; k++) {
        product_256(u[0], a + 2 * k, b + 16 * 8 * k);
    }
    qn_wgmma_commit();
    qn_wgmma_wait(0);
    tie(u[0], 128);
}

QN_GPU_KERNEL(attend_wgmma64)
{
    attend_all(args, 4);
}
