/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over any latent and rope of even sizes: a block has one split of one row's set and
 * eight heads.  A warp scores a position against all eight, its lanes sharing the dimensions; then
 * a thread sums up columns.
 */
#include "kernels/gpu/attend.h"

#include "kernels/gpu/cache.h"

enum {
    N_THREADS = QN_GPU_attend_THREADS,
    N_WARPS = N_THREADS / QN_LANES,
    N_HEADS = QN_GPU_ATTEND_HEADS,
    N_SPLIT = QN_GPU_ATTEND_SPLIT,
    FP8_BLOCK = 128, /* latents that share a scale */
};

/* Latents 2 i and 2 i + 1 of a row. */
QN_DEV f32x2 latent_pair(const qn_gpu_cache *kv, const uint8_t *row, uint32_t i)
{
    if (kv->dtype == QN_GPU_KV_BF16) {
        const uint32_t pair = *(const uint32_t *)(row + 4 * i);
        return (f32x2){qn_bf16_low(pair), qn_bf16_high(pair)};
    }
    const uint32_t codes = *(const uint16_t *)(row + 2 * i);
    const float scale = *(const float *)(row + kv->latent_dim + 2 * i / FP8_BLOCK * 4);
    return (f32x2){qn_e4m3_to_f32(codes & 0xffU) * scale, qn_e4m3_to_f32(codes >> 8) * scale};
}

/* Dimensions 2 i and 2 i + 1 of a row's rope key. */
QN_DEV f32x2 rope_pair(const qn_gpu_cache *kv, const uint8_t *row, uint32_t i)
{
    const uint32_t n_scales = (kv->latent_dim + FP8_BLOCK - 1) / FP8_BLOCK;
    const uint32_t at =
        kv->dtype == QN_GPU_KV_BF16 ? 2 * kv->latent_dim : kv->latent_dim + 4 * n_scales;
    const uint32_t pair = *(const uint32_t *)(row + at + 4 * i);
    return (f32x2){qn_bf16_low(pair), qn_bf16_high(pair)};
}

/* Queries of the block's heads in f32, [N_HEADS][latent | rope]; zeros for heads behind the last.
 */
QN_DEV void load_queries(float *q, const qn_gpu_attend_args *args, uint32_t t, uint32_t first)
{
    const uint32_t n_latent = args->kv.latent_dim;
    const uint32_t n = n_latent + args->kv.rope_dim;
    for (uint32_t i = qn_thread(); i < N_HEADS * n; i += N_THREADS) {
        const uint32_t h = first + i / n, k = i % n;
        const uint16_t *latent = args->q_latent + ((uint64_t)t * args->n_heads + h) * n_latent;
        const uint16_t *rope = args->q_rope + t * args->q_row_stride + h * args->q_head_stride;
        q[i] = 0;
        if (h < args->n_heads) {
            q[i] = qn_bf16_to_f32(k < n_latent ? latent[k] : rope[k - n_latent]);
        }
    }
}

/* p[h][i] = scores of the split's positions. */
QN_DEV void score(float *p, const float *q, const qn_gpu_attend_args *args, const int32_t *pages,
                  const int32_t *set, uint32_t n)
{
    const uint32_t n_latent = args->kv.latent_dim, n_rope = args->kv.rope_dim;
    for (uint32_t i = qn_warp(); i < n; i += N_WARPS) {
        const uint8_t *row = qn_cache_row(&args->kv, pages, (uint32_t)set[i]);
        float s[N_HEADS] = {0};
        for (uint32_t k = qn_lane(); k < (n_latent + n_rope) / 2; k += QN_LANES) {
            const bool is_latent = 2 * k < n_latent;
            const f32x2 c = is_latent ? latent_pair(&args->kv, row, k)
                                      : rope_pair(&args->kv, row, k - n_latent / 2);
            QN_UNROLL(8)
            for (uint32_t h = 0; h < N_HEADS; h++) {
                const f32x2 pair = *(const f32x2 *)(q + h * (n_latent + n_rope) + 2 * k);
                s[h] = qn_fma(pair.y, c.y, qn_fma(pair.x, c.x, s[h]));
            }
        }
        QN_UNROLL(8)
        for (uint32_t h = 0; h < N_HEADS; h++) {
            const float sum = qn_warp_sum(s[h]);
            if (qn_lane() == 0) {
                p[h * N_SPLIT + i] = sum * args->scale * QN_LOG2_E;
            }
        }
    }
}

/* Scores of a head to weights, by one warp; their largest and their sum. */
QN_DEV void weigh(float *p, uint32_t n, float *m_and_l)
{
    float m = -__builtin_inff();
    for (uint32_t i = qn_lane(); i < n; i += QN_LANES) {
        m = qn_max(m, p[i]);
    }
    m = qn_warp_max(m);
    float l = 0;
    for (uint32_t i = qn_lane(); i < n; i += QN_LANES) {
        p[i] = qn_fast_exp2(p[i] - m);
        l += p[i];
    }
    l = qn_warp_sum(l);
    if (qn_lane() == 0) {
        m_and_l[0] = m;
        m_and_l[1] = l;
    }
}

QN_GPU_KERNEL(attend)
{
    const uint32_t split = qn_block_x(), first = qn_block_y() * N_HEADS, t = qn_block_z();
    const uint32_t n_set = args->n_sets[t], n_latent = args->kv.latent_dim;
    if (split * N_SPLIT >= n_set) {
        return;
    }
    const uint32_t n = qn_min_u32(n_set - split * N_SPLIT, N_SPLIT);
    const int32_t *set = args->sets + (uint64_t)t * args->set_stride + split * N_SPLIT;
    const int32_t *pages = qn_cache_pages(&args->kv, (uint32_t)args->seqs[t]);
    float *p = (float *)qn_dynamic_shared(); /* [N_HEADS][N_SPLIT] */
    float *q = p + N_HEADS * N_SPLIT;        /* [N_HEADS][latent | rope] */
    const uint64_t partial = ((uint64_t)t * args->n_splits + split) * args->n_heads;
    load_queries(q, args, t, first);
    qn_barrier();
    score(p, q, args, pages, set, n);
    qn_barrier();
    for (uint32_t h = qn_warp(); h < N_HEADS && first + h < args->n_heads; h += N_WARPS) {
        weigh(p + h * N_SPLIT, n, args->partial_m + 2 * (partial + first + h));
    }
    qn_barrier();
    for (uint32_t k = qn_thread(); k < n_latent / 2; k += N_THREADS) {
        f32x2 u[N_HEADS] = {0};
        QN_UNROLL(2)
        for (uint32_t i = 0; i < n; i++) {
            const uint8_t *row = qn_cache_row(&args->kv, pages, (uint32_t)set[i]);
            const f32x2 c = latent_pair(&args->kv, row, k);
            QN_UNROLL(8)
            for (uint32_t h = 0; h < N_HEADS; h++) {
                u[h].x = qn_fma(p[h * N_SPLIT + i], c.x, u[h].x);
                u[h].y = qn_fma(p[h * N_SPLIT + i], c.y, u[h].y);
            }
        }
        QN_UNROLL(8)
        for (uint32_t h = 0; h < N_HEADS; h++) {
            if (first + h < args->n_heads) {
                *(f32x2 *)(args->partial_u + (partial + first + h) * n_latent + 2 * k) = u[h];
            }
        }
    }
}

/* A block has one head of one row. */
QN_GPU_KERNEL(attend_join)
{
    const uint32_t h = qn_block_x(), t = qn_block_y(), n_latent = args->kv.latent_dim;
    const uint32_t n_splits = qn_attend_splits(args->n_sets[t]);
    const uint64_t first = (uint64_t)t * args->n_splits * args->n_heads + h;
    qn_release_later(); /* a product behind may ask for its weights meanwhile */
    for (uint32_t k = 4 * qn_thread(); k < n_latent; k += 4 * QN_GPU_attend_join_THREADS) {
        float m = 0, l = 1;
        f32x4 u = {0, 0, 0, 0};
        QN_UNROLL(2)
        for (uint32_t i = 0; i < n_splits; i++) {
            const uint64_t at = first + (uint64_t)i * args->n_heads;
            const f32x2 next = *(const f32x2 *)(args->partial_m + 2 * at);
            const f32x4 next_u = *(const f32x4 *)(args->partial_u + at * n_latent + k);
            const qn_attend_factors f = qn_attend_factors_of(i == 0 ? next.x : m, next.x);
            m = f.m;
            l = i == 0 ? next.y : qn_attend_add(f, l, next.y);
            QN_UNROLL(4)
            for (uint32_t e = 0; e < 4; e++) {
                u[e] = i == 0 ? next_u[e] : qn_attend_add(f, u[e], next_u[e]);
            }
        }
        const uint64_t to = ((uint64_t)t * args->n_heads + h) * n_latent + k;
        u *= 1.0F / l;
        *(u32x2 *)(args->u + to) = (u32x2){qn_f32_to_bf16x2(u.x, u.y), qn_f32_to_bf16x2(u.z, u.w)};
    }
}
