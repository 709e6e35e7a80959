/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The positions of the largest scores of a row, by one block: the key of the last one that counts
 * is found by histograms of its bits, from the top, then one pass keeps the order.  As soon as the
 * keys that may be it are few, they are gathered in shared memory and the others left alone.
 */
#include "kernels/gpu/cache.h"
#include "kernels/gpu/probability.h"

enum {
    N_THREADS = QN_GPU_topk_THREADS,
    N_WARPS = N_THREADS / QN_LANES,
    N_BINS = 2048,
    N_LIST = 8192,
    N_VECTORS = 2,                        /* of four scores, of a thread and tile */
    WARP_TILE = 4 * N_VECTORS * QN_LANES, /* scores side by side */
    TILE = N_WARPS * WARP_TILE,
};

/* Shared memory, and what is known of the key that is looked for. */
typedef struct search {
    uint32_t *bins, *list, *parts; /* [N_BINS], [N_LIST], [N_WARPS] */
    uint32_t *found;               /* [3] bin, rank in it, keys in it; then keys in the list */
    uint32_t prefix, mask;         /* Its bits, and which are known. */
    uint32_t left;                 /* It is the left-th largest of those with this prefix. */
} search;

/* Sum of the values of the lanes before this one, and of all in *total. */
QN_DEV uint32_t lanes_before(uint32_t value, uint32_t *total)
{
    uint32_t sum = value;
    for (uint32_t delta = 1; delta < QN_LANES; delta *= 2) {
        const uint32_t below = qn_shuffle_up_u32(sum, delta);
        sum += qn_lane() >= delta ? below : 0;
    }
    *total = qn_shuffle_u32(sum, QN_LANES - 1);
    return sum - value;
}

/* The same of warps, each of which has one value. */
QN_DEV uint32_t warps_before(uint32_t value, uint32_t *parts, uint32_t *total)
{
    qn_barrier(); /* parts may still be read from the last time */
    if (qn_lane() == 0) {
        parts[qn_warp()] = value;
    }
    qn_barrier();
    /* Warps are no more than the lanes of one. */
    const uint32_t before = lanes_before(qn_lane() < N_WARPS ? parts[qn_lane()] : 0, total);
    return qn_shuffle_u32(before, qn_warp());
}

/* Count a key that may be it by its bits from shift on, or put it in the list. */
QN_DEV void look_at(const search *s, uint32_t key, uint32_t shift, bool is_gathered)
{
    if ((key & s->mask) != s->prefix) {
        return;
    }
    if (is_gathered) {
        s->list[qn_atomic_add(s->found + 3, 1)] = key;
    } else {
        qn_atomic_add(s->bins + (key >> shift) % N_BINS, 1);
    }
}

QN_DEV void look_at_all(const search *s, const float *scores, uint32_t n, uint32_t shift,
                        bool is_gathered)
{
    QN_UNROLL(4)
    for (uint32_t i = qn_thread(); i < n / 4; i += N_THREADS) {
        const u32x4 four = qn_load_16(scores + 4 * i);
        QN_UNROLL(4)
        for (uint32_t k = 0; k < 4; k++) {
            look_at(s, qn_order_key(qn_f32_from_bits(four[k])), shift, is_gathered);
        }
    }
    if (qn_thread() < n % 4) {
        const float score = scores[n / 4 * 4 + qn_thread()];
        look_at(s, qn_order_key(score), shift, is_gathered);
    }
    qn_barrier();
}

/* The next bits of the key, from shift on, by the histogram: s->left becomes its rank in the bin.
 */
QN_DEV void find_bin(search *s, uint32_t shift)
{
    enum { N_EACH = N_BINS / N_THREADS };
    const uint32_t last = N_BINS - 1 - N_EACH * qn_thread(); /* from here downwards */
    uint32_t count = 0;
    for (uint32_t i = 0; i < N_EACH; i++) {
        count += s->bins[last - i];
    }
    uint32_t total;
    uint32_t before = lanes_before(count, &total);
    before += warps_before(total, s->parts, &total);
    if (before < s->left && s->left <= before + count) {
        uint32_t bin = last;
        while (before + s->bins[bin] < s->left) {
            before += s->bins[bin];
            bin--;
        }
        s->found[0] = bin;
        s->found[1] = s->left - before;
        s->found[2] = s->bins[bin];
        s->found[3] = 0;
    }
    qn_barrier();
    s->prefix |= s->found[0] << shift;
    s->mask = ~0U << shift;
    s->left = s->found[1];
}

/* The key of the s->left-th largest score, in s->prefix. */
QN_DEV void find_key(search *s, const float *scores, uint32_t n)
{
    bool is_listed = false;
    uint32_t n_list = 0;
    QN_UNROLL(1)
    for (uint32_t digit = 0; digit < 3; digit++) {
        const uint32_t shift = digit == 0 ? 21 : digit == 1 ? 10 : 0;
        for (uint32_t i = qn_thread(); i < N_BINS; i += N_THREADS) {
            s->bins[i] = 0;
        }
        qn_barrier();
        if (is_listed) {
            for (uint32_t i = qn_thread(); i < n_list; i += N_THREADS) {
                look_at(s, s->list[i], shift, false);
            }
            qn_barrier();
        } else {
            look_at_all(s, scores, n, shift, false);
        }
        find_bin(s, shift);
        n_list = is_listed ? n_list : s->found[2];
        if (!is_listed && digit < 2 && n_list <= N_LIST) {
            look_at_all(s, scores, n, shift, true);
            is_listed = true;
        }
    }
}

/* 1 in the high half for a key above the threshold, in the low half for one that is equal. */
QN_DEV uint32_t kind_of(uint32_t score, uint32_t threshold)
{
    const uint32_t key = qn_order_key(qn_f32_from_bits(score));
    return key > threshold ? 0x10000U : key == threshold;
}

/* The scores that this thread has of a tile; behind the end something. */
QN_DEV void load_tile(u32x4 scores[N_VECTORS], const float *from, uint32_t at, uint32_t n)
{
    QN_UNROLL(2)
    for (uint32_t v = 0; v < N_VECTORS; v++) {
        const uint32_t i = at + v * 4 * QN_LANES;
        scores[v] = qn_load_16(from + (i < n ? i : 0));
    }
}

/* Write the positions of keys above threshold, and of the first n_equal ones that are equal. */
QN_DEV void compact(int32_t *set, const float *scores, uint32_t n, uint32_t first_position,
                    uint32_t threshold, uint32_t n_equal, uint32_t *parts)
{
    uint32_t n_above = 0, n_same = 0; /* before this tile */
    uint32_t at = qn_warp() * WARP_TILE + 4 * qn_lane();
    u32x4 next[N_VECTORS];
    load_tile(next, scores, at, n);
    QN_UNROLL(1)
    for (uint32_t tile = 0; tile < n; tile += TILE, at += TILE) {
        uint32_t kinds[N_VECTORS][4], before[N_VECTORS];
        uint32_t of_warp = 0, total;
        QN_UNROLL(2)
        for (uint32_t v = 0; v < N_VECTORS; v++) {
            uint32_t count = 0;
            QN_UNROLL(4)
            for (uint32_t k = 0; k < 4; k++) {
                const bool is_there = at + v * 4 * QN_LANES + k < n;
                kinds[v][k] = is_there ? kind_of(next[v][k], threshold) : 0;
                count += kinds[v][k];
            }
            before[v] = of_warp + lanes_before(count, &total);
            of_warp += total;
        }
        load_tile(next, scores, at + TILE, n);
        const uint32_t before_warp = warps_before(of_warp, parts, &total);
        QN_UNROLL(2)
        for (uint32_t v = 0; v < N_VECTORS; v++) {
            uint32_t above = n_above + (before_warp + before[v]) / 0x10000U;
            uint32_t same = n_same + (before_warp + before[v]) % 0x10000U;
            QN_UNROLL(4)
            for (uint32_t k = 0; k < 4; k++) {
                const uint32_t kind = kinds[v][k];
                if (kind > 1 || (kind == 1 && same < n_equal)) {
                    const uint32_t position = first_position + at + v * 4 * QN_LANES + k;
                    set[above + qn_min_u32(same, n_equal)] = (int32_t)position;
                }
                above += kind / 0x10000U;
                same += kind % 0x10000U;
            }
        }
        n_above += total / 0x10000U;
        n_same += total % 0x10000U;
    }
}

QN_GPU_KERNEL(topk)
{
    QN_SHARED(uint32_t, bins, N_BINS);
    QN_SHARED(uint32_t, list, N_LIST);
    QN_SHARED(uint32_t, parts, N_WARPS);
    QN_SHARED(uint32_t, found, 4);
    const uint32_t t = qn_block_x();
    const uint32_t k = args->n_topk;
    const uint32_t n = qn_row_positions(args->positions[t], args->first_position);
    int32_t *set = args->sets + (uint64_t)t * k;
    if (qn_thread() == 0) {
        args->n_sets[t] = qn_min_u32(n, k);
    }
    if (n <= k) {
        for (uint32_t i = qn_thread(); i < n; i += N_THREADS) {
            set[i] = (int32_t)(args->first_position + i);
        }
        return;
    }
    if (k == 0) {
        return;
    }
    const float *scores = args->scores + t * args->scores_stride;
    search s = {bins, list, parts, found, .prefix = 0, .mask = 0, .left = k};
    find_key(&s, scores, n);
    compact(set, scores, n, args->first_position, s.prefix, s.left, parts);
}
