/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of planted.h, in the language that they test. */
#include "gpuemu/planted.h"

#include "kernels/gpu/lang.h"

#define DECLARE(NAME, n_threads)                                                                   \
    typedef planted_args qn_gpu_##NAME##_args;                                                     \
    enum { QN_GPU_##NAME##_THREADS = (n_threads) };
PLANTED_KERNELS(DECLARE)

QN_GPU_KERNEL(exchange)
{
    const uint32_t i = qn_thread();
    const uint32_t x = args->x[i];
    uint32_t *y = args->y + 8 * i;
    y[0] = qn_shuffle_u32(x, qn_lane() * 7);
    y[1] = qn_shuffle_xor_u32(x, 5);
    y[2] = qn_shuffle_up_u32(x, 3);
    y[3] = qn_shuffle_down_u32(x, 3);
    y[4] = qn_warp_sum_u32(x);
    y[5] = qn_warp_max_u32(x);
    y[6] = qn_f32_bits(qn_warp_sum((float)x));
    y[7] = qn_f32_bits(qn_warp_max(-(float)x));
}

QN_GPU_KERNEL(votes)
{
    const bool yes = args->x[qn_thread()] != 0;
    args->y[3 * qn_thread()] = (uint32_t)qn_ballot(yes);
    args->y[3 * qn_thread() + 1] = qn_any(yes);
    args->y[3 * qn_thread() + 2] = qn_all(yes);
}

QN_GPU_KERNEL(reverse)
{
    QN_SHARED(uint32_t, turned, 128);
    uint32_t *dynamic = (uint32_t *)qn_dynamic_shared();
    const uint32_t i = qn_thread();
    *(i < 128 ? &turned[i] : &dynamic[i - 128]) = args->x[i];
    qn_barrier();
    args->y[i] = i < 128 ? dynamic[127 - i] : turned[255 - i];
}

QN_GPU_KERNEL(unsynced)
{
    QN_SHARED(uint32_t, turned, 256);
    turned[qn_thread()] = args->x[qn_thread()];
    qn_warp_barrier();
    args->y[qn_thread()] = turned[255 - qn_thread()];
}

QN_GPU_KERNEL(overtaken)
{
    QN_SHARED(uint32_t, parts, 8);
    for (uint32_t i = 0; i < 2; i++) {
        if (qn_lane() == 0) {
            parts[qn_warp()] = args->x[8 * i + qn_warp()];
        }
        qn_barrier();
        uint32_t part = parts[(qn_warp() + 1) % 8];
        for (uint32_t j = 0; j < 16; j++) { /* the others have long read theirs, most often */
            part = qn_shuffle_xor_u32(part, 1);
        }
        args->y[256 * i + qn_thread()] = part;
        if (args->n > 0) {
            qn_barrier();
        }
    }
}

QN_GPU_KERNEL(split)
{
    if (qn_thread() < args->n) {
        qn_barrier();
        args->y[0] = 1;
    } else {
        qn_barrier();
        args->y[0] = 2;
    }
}

QN_GPU_KERNEL(left)
{
    if (qn_thread() == args->n) {
        return;
    }
    args->y[qn_thread()] = qn_shuffle_u32(1, 0);
}

QN_GPU_KERNEL(counted)
{
    qn_atomic_add(&args->y[0], 2);
    qn_atomic_max(&args->y[1], qn_thread() + 100 * qn_block_y());
    qn_atomic_inc(&args->y[2], 4);
    qn_atomic_add_f32((float *)&args->y[3], 0.5F);
    qn_atomic_cas(&args->y[4], 0, qn_blocks_y() + 1);
    qn_fence();
    if (qn_atomic_load(&args->y[4]) != qn_blocks_y() + 1) {
        args->y[4] = 0;
    }
}

/* Lane's row of matrix lane / 8 of a tile of rows of 16 values: rows first, then the second half.
 */
QN_GPU_KERNEL(product_bf16)
{
    QN_SHARED(uint32_t, tile, 24 * 8);
    for (uint32_t i = qn_lane(); i < 24 * 8; i += QN_LANES) {
        tile[i] = args->x[i];
    }
    qn_warp_barrier();
    const uint32_t lane = qn_lane();
    uint32_t a[4], b[4];
    float d[4];
    float *y = (float *)args->y + lane / 4 * 8 + lane % 4 * 2;
    qn_ldmatrix(a, tile + lane % 16 * 8 + lane / 16 * 4);
    qn_ldmatrix(b, tile + (16 + lane % 8) * 8 + lane / 8 % 2 * 4);
    for (uint32_t i = 0; i < 4; i++) {
        d[i] = y[i / 2 * 64 + i % 2];
    }
    qn_mma_bf16(d, a, b);
    for (uint32_t i = 0; i < 4; i++) {
        y[i / 2 * 64 + i % 2] = d[i];
    }
}

QN_GPU_KERNEL(product_e4m3)
{
    const uint32_t g = qn_lane() / 4, t = qn_lane() % 4;
    const uint32_t *a_row = args->x + g * 8 + t;
    const uint32_t *b_row = args->x + (16 + g) * 8 + t;
    const uint32_t a[4] = {a_row[0], a_row[64], a_row[4], a_row[68]};
    const uint32_t b[2] = {b_row[0], b_row[4]};
    float *y = (float *)args->y + g * 8 + t * 2;
    float d[4] = {y[0], y[1], y[64], y[65]};
    qn_mma_e4m3(d, a, b);
    for (uint32_t i = 0; i < 4; i++) {
        y[i / 2 * 64 + i % 2] = d[i];
    }
}

QN_GPU_KERNEL(transposed)
{
    QN_SHARED(uint32_t, tile, 128);
    for (uint32_t i = qn_lane(); i < 128; i += QN_LANES) {
        tile[i] = args->x[i];
    }
    qn_warp_barrier();
    qn_ldmatrix_trans(args->y + 4 * qn_lane(), tile + 4 * qn_lane());
}

QN_GPU_KERNEL(numbers)
{
    const uint64_t n = args->n;
    for (uint64_t i = qn_thread(); i < n; i += QN_GPU_numbers_THREADS) {
        const uint32_t x = args->x[i];
        const float value = qn_f32_from_bits(x);
        args->y[i] = qn_f32_to_bf16(value);
        args->y[n + i] = qn_f32_to_e4m3(value);
        args->y[2 * n + i] = qn_f32_bits(qn_e4m3x4_to_f32(x).y);
        args->y[3 * n + i] = qn_f32_bits(qn_e2m1_to_f32(x));
        args->y[4 * n + i] = qn_f32_bits(qn_e8m0_to_f32(x & 0xffU));
        args->y[5 * n + i] = qn_f32_bits(qn_bf16_high(x)) ^ qn_f32_bits(qn_bf16_low(x)) >> 16;
    }
}

QN_GPU_KERNEL(copied)
{
    QN_SHARED(u32x4, to, 64);
    static const uint32_t sizes[] = {16, 5, 0};
    qn_copy_16(&to[qn_thread()], args->x + 4 * qn_thread(), sizes[qn_thread() % 3]);
    qn_copy_commit();
    qn_copy_wait(0);
    qn_barrier();
    const uint32_t other = qn_thread() ^ 33;
    qn_store_16(args->y + 4 * other, qn_load_16(&to[other]));
}

QN_GPU_KERNEL(unwaited)
{
    QN_SHARED(u32x4, to, 64);
    qn_copy_16(&to[qn_thread()], args->x + 4 * qn_thread(), 16);
    qn_copy_commit();
    qn_barrier();
    qn_store_16(args->y + 4 * qn_thread(), qn_load_16(&to[qn_thread()]));
}

QN_GPU_KERNEL(uncommitted)
{
    QN_SHARED(u32x4, to, 64);
    qn_copy_16(&to[qn_thread()], args->x + 4 * qn_thread(), 16);
    qn_copy_wait(0);
    qn_barrier();
    qn_store_16(args->y + 4 * qn_thread(), qn_load_16(&to[qn_thread()]));
}

QN_GPU_KERNEL(awaited)
{
    QN_SHARED(u32x4, copies, 16);
    QN_SHARED(uint32_t, numbers, 64);
    const uint32_t i = qn_thread();
    uint32_t *const copied = (uint32_t *)copies;
    uint32_t *const ours = (uint32_t *)qn_dynamic_shared();
    uint32_t x = args->n == HASTY_LOAD ? args->x[i] : 0;
    numbers[i] = i;
    ours[i] = i + qn_block_x();
    if (args->n == HASTY_COPY && i < 16) {
        qn_copy_16(&copies[i], args->x + 4 * i, 16);
    }
    if (args->n == HASTY_STORE) {
        args->y[i] = 0;
    }
    if (args->n == HASTY_END) {
        return;
    }
    if (args->n == HASTY_RELEASE) {
        qn_release_later();
    }
    qn_await_earlier();
    qn_release_later();
    if (args->n != HASTY_COPY && i < 16) {
        qn_copy_16(&copies[i], args->x + 4 * i, 16);
    }
    qn_copy_commit();
    qn_copy_wait(0);
    qn_barrier();
    x = args->n == HASTY_LOAD ? x : copied[i];
    args->y[128 * qn_block_x() + i] = x + 1;
    args->y[128 * qn_block_x() + 64 + i] = numbers[63 - i] + ours[i ^ 1];
}

QN_GPU_KERNEL(turns)
{
    uint32_t x = qn_thread();
    QN_UNROLL(1)
    for (uint64_t i = 0; i < args->n; i++) {
        x = qn_shuffle_xor_u32(x, 1);
    }
    args->y[qn_thread()] = x;
}

QN_GPU_KERNEL(sum_f32)
{
    QN_SHARED(float, part, QN_GPU_sum_f32_THREADS / QN_LANES);
    const float *row = (const float *)args->x + qn_block_x() * args->n;
    float sum = 0;
    QN_UNROLL(4)
    for (uint64_t i = qn_thread(); i < args->n; i += QN_GPU_sum_f32_THREADS) {
        sum += row[i];
    }
    sum = qn_block_sum(sum, part, QN_GPU_sum_f32_THREADS);
    if (qn_thread() == 0) {
        ((float *)args->y)[qn_block_x()] = sum;
    }
}

QN_GPU_KERNEL(e4m3_to_f32)
{
    for (uint64_t i = qn_thread(); i < args->n / 4; i += QN_GPU_e4m3_to_f32_THREADS) {
        ((f32x4 *)args->y)[i] = qn_e4m3x4_to_f32(args->x[i]);
    }
}

QN_GPU_KERNEL(f32_to_bf16)
{
    for (uint64_t i = qn_thread(); i < args->n / 8; i += QN_GPU_f32_to_bf16_THREADS) {
        const f32x4 a = ((const f32x4 *)args->x)[2 * i];
        const f32x4 b = ((const f32x4 *)args->x)[2 * i + 1];
        const u32x4 pairs = {qn_f32_to_bf16x2(a.x, a.y), qn_f32_to_bf16x2(a.z, a.w),
                             qn_f32_to_bf16x2(b.x, b.y), qn_f32_to_bf16x2(b.z, b.w)};
        qn_store_16((uint16_t *)args->y + 8 * i, pairs);
    }
}
