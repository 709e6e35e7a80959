/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index scores for any number of heads and size of key: a thread holds a position against eight
 * heads at a time, whose queries lie in shared memory in f32.
 */
#include "kernels/gpu/cache.h"

enum { N_HEADS = 8, N_POSITIONS = QN_GPU_index_scores_THREADS };

/* q[h][dim] of heads first .. first + 7; zeros for heads that are not there. */
QN_DEV void load_queries(float *q, const qn_gpu_index_scores_args *args, uint32_t t, uint32_t first)
{
    const uint32_t dim = args->keys.latent_dim;
    const uint64_t from = ((uint64_t)t * args->n_heads + first) * dim;
    for (uint32_t i = qn_thread(); i < N_HEADS * dim; i += N_POSITIONS) {
        q[i] = first + i / dim < args->n_heads ? qn_bf16_to_f32(args->q[from + i]) : 0;
    }
}

QN_GPU_KERNEL(index_scores)
{
    const uint32_t t = qn_block_y();
    const uint32_t dim = args->keys.latent_dim;
    const uint32_t n = qn_row_positions(args->positions[t], args->first_position);
    const uint32_t at = qn_block_x() * N_POSITIONS + qn_thread();
    if (n <= args->n_topk || qn_block_x() * N_POSITIONS >= n) {
        return;
    }
    float *q = (float *)qn_dynamic_shared(); /* [N_HEADS][dim] */
    const int32_t *pages = qn_cache_pages(&args->keys, (uint32_t)args->seqs[t]);
    /* Threads behind the end take the last position, and write nothing. */
    const uint32_t position = args->first_position + qn_min_u32(at, n - 1);
    const uint8_t *key = qn_cache_row(&args->keys, pages, position);
    float sum = 0;
    for (uint32_t first = 0; first < args->n_heads; first += N_HEADS) {
        qn_barrier();
        load_queries(q, args, t, first);
        qn_barrier();
        float s[N_HEADS] = {0};
        for (uint32_t i = 0; i < dim; i += 8) {
            const u32x4 k = qn_load_16(key + 2 * i);
            QN_UNROLL(4)
            for (uint32_t j = 0; j < 4; j++) {
                QN_UNROLL(8)
                for (uint32_t h = 0; h < N_HEADS; h++) {
                    const f32x2 pair = *(const f32x2 *)(q + h * dim + i + 2 * j);
                    s[h] = qn_fma(pair.x, qn_bf16_low(k[j]), s[h]);
                    s[h] = qn_fma(pair.y, qn_bf16_high(k[j]), s[h]);
                }
            }
        }
        QN_UNROLL(8)
        for (uint32_t h = 0; h < N_HEADS; h++) {
            const uint32_t head = first + h;
            const float w = head < args->n_heads ? args->w[t * args->n_heads + head] : 0;
            /* relu that keeps NaN: a broken key must show, not vanish. */
            sum = qn_fma(w, s[h] < 0 ? 0 : s[h], sum);
        }
    }
    if (at < n) {
        args->scores[t * args->scores_stride + at] = sum;
    }
}
