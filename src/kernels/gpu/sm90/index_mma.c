/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index scores on tensor cores, keys of 128 and up to 32 heads.  A warp keeps 32 keys in registers,
 * the left side of the products, and meets the queries of row after row with them; keys are read
 * anew only where the sequence changes, or a row has more of them.
 *
 * The k of both sides are permuted alike, so that a lane's words come from 16 bytes side by side.
 */
#include "kernels/gpu/cache.h"

enum {
    N_THREADS = QN_GPU_index_scores_mma_THREADS,
    DIM = 128,
    N_HEADS = 32,
    N_WARP_KEYS = 32,
    N_KEYS = N_THREADS / QN_LANES * N_WARP_KEYS, /* of the block */
    N_CHUNKS = DIM / 8,                          /* of 16 bytes in a row */
    Q_BYTES = N_HEADS * DIM * 2,
};

/* The next row from t on that needs scores of the block's keys, or end. */
QN_DEV uint32_t next_row(const qn_gpu_index_scores_args *args, uint32_t t, uint32_t end)
{
    for (; t < end; t++) {
        const uint32_t n = qn_row_positions(args->positions[t], args->first_position);
        if (n > args->n_topk && n > qn_block_x() * N_KEYS) {
            return t;
        }
    }
    return end;
}

/* Chunks of odd heads trade halves of 64 bytes: eight lanes then read from all banks. */
QN_DEV uint32_t q_offset(uint32_t head, uint32_t chunk)
{
    return head * DIM * 2 + (chunk ^ (head & 1U) << 2) * 16;
}

/* Begin the copy of a row's queries; zeros for heads that are not there. */
QN_DEV void load_queries(uint8_t *q, float *w, const qn_gpu_index_scores_args *args, uint32_t t)
{
    const uint16_t *from = args->q + (uint64_t)t * args->n_heads * DIM;
    QN_UNROLL(4)
    for (uint32_t k = 0; k < N_HEADS * N_CHUNKS / N_THREADS; k++) {
        const uint32_t i = qn_thread() + k * N_THREADS;
        const uint32_t head = i / N_CHUNKS;
        const bool is_there = head < args->n_heads;
        qn_copy_16(q + q_offset(head, i % N_CHUNKS), from + (is_there ? i * 8 : 0),
                   is_there ? 16 : 0);
    }
    if (qn_thread() < N_HEADS) {
        const bool is_there = qn_thread() < args->n_heads;
        w[qn_thread()] = is_there ? args->w[(uint64_t)t * args->n_heads + qn_thread()] : 0;
    }
}

/*
 * Keys g, g + 8, g + 16, g + 24 of the warp (g = lane / 4): chunks lane % 4, + 4, + 8, + 12.
 * Returns how many positions of the sequence they stand for.
 */
QN_DEV uint32_t load_keys(u32x4 keys[4][4], const qn_gpu_index_scores_args *args, uint32_t t,
                          uint32_t end)
{
    const int32_t seq = args->seqs[t];
    uint32_t n = 0; /* keys behind the last one of the rows that follow repeat that one */
    for (uint32_t i = t; i < end && args->seqs[i] == seq; i++) {
        n = qn_max_u32(n, qn_row_positions(args->positions[i], args->first_position));
    }
    const int32_t *pages = qn_cache_pages(&args->keys, (uint32_t)seq);
    const uint32_t first = qn_block_x() * N_KEYS + qn_warp() * N_WARP_KEYS + qn_lane() / 4;
    QN_UNROLL(4)
    for (uint32_t r = 0; r < 4; r++) {
        const uint32_t position = args->first_position + qn_min_u32(first + 8 * r, n - 1);
        const uint8_t *key = qn_cache_row(&args->keys, pages, position) + qn_lane() % 4 * 16;
        QN_UNROLL(4)
        for (uint32_t i = 0; i < 4; i++) {
            keys[r][i] = qn_load_16(key + 64 * i);
        }
    }
    return n;
}

/* Scores of this lane's share of the heads for its four keys. */
QN_DEV void score(float sums[4], u32x4 keys[4][4], const uint8_t *q, const float *w)
{
    const uint32_t g = qn_lane() / 4, t = qn_lane() % 4;
    QN_UNROLL(2)
    for (uint32_t heads = 0; heads < N_HEADS; heads += 8) {
        float s[2][4] = {{0}};
        QN_UNROLL(4)
        for (uint32_t i = 0; i < 4; i++) {
            const u32x4 b = qn_load_16(q + q_offset(heads + g, 4 * i + t));
            QN_UNROLL(2)
            for (uint32_t m = 0; m < 2; m++) {
                const u32x4 low = keys[2 * m][i], high = keys[2 * m + 1][i];
                qn_mma_bf16(s[m], (uint32_t[]){low.x, high.x, low.y, high.y},
                            (uint32_t[]){b.x, b.y});
                qn_mma_bf16(s[m], (uint32_t[]){low.z, high.z, low.w, high.w},
                            (uint32_t[]){b.z, b.w});
            }
        }
        const f32x2 weight = *(const f32x2 *)(w + heads + 2 * t);
        QN_UNROLL(4)
        for (uint32_t r = 0; r < 4; r++) {
            /* relu that keeps NaN: a broken key must show, not vanish. */
            const float a = __builtin_elementwise_maximum(s[r / 2][r % 2 * 2], 0.0F);
            const float b = __builtin_elementwise_maximum(s[r / 2][r % 2 * 2 + 1], 0.0F);
            sums[r] = qn_fma(weight.y, b, qn_fma(weight.x, a, sums[r]));
        }
    }
}

QN_GPU_KERNEL(index_scores_mma)
{
    QN_SHARED(uint8_t, q, 2 * Q_BYTES);
    QN_SHARED(float, w, 2 * N_HEADS);
    const uint32_t n_each = (args->n_rows + qn_blocks_y() - 1) / qn_blocks_y();
    const uint32_t end = qn_min_u32((qn_block_y() + 1) * n_each, args->n_rows);
    const uint32_t lane_of_four = qn_lane() % 4;
    const uint32_t at = qn_block_x() * N_KEYS + qn_warp() * N_WARP_KEYS + qn_lane() / 4 +
                        8 * lane_of_four; /* the position that this lane writes */
    u32x4 keys[4][4];
    uint32_t t = next_row(args, qn_block_y() * n_each, end);
    if (t >= end) {
        return;
    }
    load_queries(q, w, args, t);
    qn_copy_commit();
    int32_t seq = -1;
    uint32_t n_loaded = 0;
    QN_UNROLL(1)
    for (uint32_t side = 0; t < end; side ^= 1) {
        const uint32_t next = next_row(args, t + 1, end);
        if (next < end) {
            load_queries(q + (side ^ 1) * Q_BYTES, w + (side ^ 1) * N_HEADS, args, next);
        }
        qn_copy_commit();
        const uint32_t n = qn_row_positions(args->positions[t], args->first_position);
        if (args->seqs[t] != seq || n > n_loaded) {
            seq = args->seqs[t];
            n_loaded = load_keys(keys, args, t, end);
        }
        qn_copy_wait(1);
        qn_barrier();
        float sums[4] = {0};
        score(sums, keys, q + side * Q_BYTES, w + side * N_HEADS);
        QN_UNROLL(4)
        for (uint32_t r = 0; r < 4; r++) {
            sums[r] += qn_shuffle_xor_f32(sums[r], 1);
            sums[r] += qn_shuffle_xor_f32(sums[r], 2);
        }
        const float even = lane_of_four < 2 ? sums[0] : sums[2];
        const float odd = lane_of_four < 2 ? sums[1] : sums[3];
        if (at < n) {
            args->scores[t * args->scores_stride + at] = lane_of_four % 2 == 0 ? even : odd;
        }
        qn_barrier();
        t = next;
    }
}
