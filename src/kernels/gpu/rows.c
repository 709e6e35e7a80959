/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of activations: embedding, norms, rotation, and what goes into the cache. */
#include "kernels/gpu/lang.h"

/* Four values of a bf16 or f32 row, from element 4 i on. */
QN_DEV f32x4 load_4(const void *row, uint32_t dtype, uint32_t i)
{
    if (dtype == QN_GPU_F32) {
        return ((const f32x4 *)row)[i];
    }
    const u32x2 pairs = ((const u32x2 *)row)[i];
    return (f32x4){qn_bf16_low(pairs.x), qn_bf16_high(pairs.x), qn_bf16_low(pairs.y),
                   qn_bf16_high(pairs.y)};
}

/* One block a row. */
QN_GPU_KERNEL(embed)
{
    const uint32_t t = qn_block_x();
    const bool is_padding = args->positions[t] < 0;
    const uint64_t element_bytes = args->table_dtype == QN_GPU_F32 ? 4 : 2;
    const uint64_t token = is_padding ? 0 : (uint64_t)(uint32_t)args->tokens[t];
    const uint8_t *row = (const uint8_t *)args->table + token * args->n_embd * element_bytes;
    f32x4 *x = (f32x4 *)(args->x + (uint64_t)t * args->x_stride);
    QN_UNROLL(2)
    for (uint32_t i = qn_thread(); i < args->n_embd / 4; i += QN_GPU_embed_THREADS) {
        x[i] = is_padding ? (f32x4){0, 0, 0, 0} : load_4(row, args->table_dtype, i);
    }
}
