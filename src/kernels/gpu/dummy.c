/* SPDX-License-Identifier: Apache-2.0 */
/* Dummy weights, 16 bytes a thread and step: nothing of them comes from the host. */
#include "base/rng.h"
#include "kernels/gpu/lang.h"

/* Uniform in [-1, 1) with 24 bits: exact in f32. */
QN_DEV float number(const qn_gpu_dummy_args *args, uint64_t i)
{
    const uint64_t bits = qn_rng_at(args->key, args->counter + args->first + i);
    return (float)(uint32_t)(bits >> 40) * 0x1p-23F - 1.0F;
}

QN_DEV uint32_t bf16_pair(const qn_gpu_dummy_args *args, uint64_t i)
{
    return qn_f32_to_bf16x2(number(args, i) * args->factor, number(args, i + 1) * args->factor);
}

QN_DEV uint32_t f32_bits(const qn_gpu_dummy_args *args, uint64_t i)
{
    return qn_f32_bits(args->factor * (1.0F + 0.125F * number(args, i)));
}

/* Four bytes of a draw. */
QN_DEV uint32_t four_bytes(const qn_gpu_dummy_args *args, uint32_t bits)
{
    if (args->kind == QN_GPU_DUMMY_E2M1) {
        return bits;
    }
    if (args->kind == QN_GPU_DUMMY_E4M3) {
        return (bits & 0x9f9f9f9fU) | 0x20202020U;
    }
    uint32_t bytes = args->e8m0 * 0x01010101U;
    QN_UNROLL(4)
    for (uint32_t shift = 0; shift < 32; shift += 8) {
        bytes += (bits >> shift & 0xffU) < args->threshold ? 1U << shift : 0;
    }
    return bytes;
}

/* The 16 bytes from 16 i on. */
QN_DEV u32x4 sixteen(const qn_gpu_dummy_args *args, uint64_t i)
{
    if (args->kind == QN_GPU_DUMMY_BF16) {
        return (u32x4){bf16_pair(args, 8 * i), bf16_pair(args, 8 * i + 2),
                       bf16_pair(args, 8 * i + 4), bf16_pair(args, 8 * i + 6)};
    }
    if (args->kind == QN_GPU_DUMMY_F32) {
        return (u32x4){f32_bits(args, 4 * i), f32_bits(args, 4 * i + 1), f32_bits(args, 4 * i + 2),
                       f32_bits(args, 4 * i + 3)};
    }
    const uint64_t at = args->counter + args->first / 8 + 2 * i;
    const uint64_t a = qn_rng_at(args->key, at);
    const uint64_t b = qn_rng_at(args->key, at + 1);
    return (u32x4){four_bytes(args, (uint32_t)a), four_bytes(args, (uint32_t)(a >> 32)),
                   four_bytes(args, (uint32_t)b), four_bytes(args, (uint32_t)(b >> 32))};
}

QN_GPU_KERNEL(dummy)
{
    const uint32_t size = args->kind == QN_GPU_DUMMY_BF16  ? 2
                          : args->kind == QN_GPU_DUMMY_F32 ? 4
                                                           : 1;
    const uint64_t n_bytes = args->n * size;
    const uint64_t step = (uint64_t)qn_blocks_x() * QN_GPU_dummy_THREADS;
    QN_UNROLL(1)
    for (uint64_t i = (uint64_t)qn_block_x() * QN_GPU_dummy_THREADS + qn_thread(); 16 * i < n_bytes;
         i += step) {
        uint8_t *const to = (uint8_t *)args->y + 16 * i;
        const u32x4 words = sixteen(args, i);
        if (16 * i + 16 <= n_bytes) {
            qn_store_16(to, words);
            continue;
        }
        QN_UNROLL(1)
        for (uint32_t k = 0; k < n_bytes - 16 * i; k++) {
            const uint32_t word = k < 4 ? words.x : k < 8 ? words.y : k < 12 ? words.z : words.w;
            to[k] = (uint8_t)(word >> k % 4 * 8);
        }
    }
}
