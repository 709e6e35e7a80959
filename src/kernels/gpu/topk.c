/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The positions of the largest scores of a row, by one block: the key of the last one that counts
 * is found by three histograms of its bits, from the top, then one pass keeps the order.
 */
#include "kernels/gpu/lang.h"

enum {
    N_THREADS = QN_GPU_topk_THREADS,
    N_WARPS = N_THREADS / QN_LANES,
    N_BINS = 2048,
    TILE = 4 * N_THREADS, /* scores that the block looks at between two sums */
};

/* Unsigned key in the order of the floats: NaN lowest, -0 as +0. */
QN_DEV uint32_t order_key(uint32_t bits)
{
    bits = bits == 0x80000000U ? 0 : bits;
    const uint32_t key = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
    return (bits & 0x7fffffffU) > 0x7f800000U ? 0 : key;
}

/* Sum of the values of the threads before this one, and of all in *total; parts [N_WARPS]. */
QN_DEV uint32_t sum_before(uint32_t value, uint32_t *parts, uint32_t *total)
{
    uint32_t sum = value;
    for (uint32_t delta = 1; delta < QN_LANES; delta *= 2) {
        const uint32_t below = qn_shuffle_up_u32(sum, delta);
        sum += qn_lane() >= delta ? below : 0;
    }
    qn_barrier(); /* parts may still be read from the last time */
    if (qn_lane() == QN_LANES - 1) {
        parts[qn_warp()] = sum;
    }
    qn_barrier();
    /* Warps are no more than the lanes of one. */
    const uint32_t part = qn_lane() < N_WARPS ? parts[qn_lane()] : 0;
    *total = qn_warp_sum_u32(part);
    return qn_warp_sum_u32(qn_lane() < qn_warp() ? part : 0) + sum - value;
}

/* Count the keys that begin with prefix by the n_bits bits at shift. */
QN_DEV void count_keys(uint32_t *bins, const float *scores, uint32_t n, uint32_t prefix,
                       uint32_t shift, uint32_t n_bits)
{
    const uint32_t above = shift + n_bits; /* where the bits begin that are decided */
    for (uint32_t i = qn_thread(); i < N_BINS; i += N_THREADS) {
        bins[i] = 0;
    }
    qn_barrier();
    QN_UNROLL(4)
    for (uint32_t i = 4 * qn_thread(); i < n; i += TILE) {
        const u32x4 bits = qn_load_16(scores + i);
        for (uint32_t k = 0; k < 4; k++) {
            const uint32_t key = order_key(bits[k]);
            if (i + k < n && (above == 32 || key >> above == prefix)) {
                qn_atomic_add(bins + (key >> shift & ((1U << n_bits) - 1)), 1);
            }
        }
    }
    qn_barrier();
}

/* The bin of the *left-th largest key; *left becomes its rank among the keys of that bin. */
QN_DEV uint32_t find_bin(const uint32_t *bins, uint32_t *parts, uint32_t *found, uint32_t *left)
{
    enum { N_EACH = N_BINS / N_THREADS };
    const uint32_t last = N_BINS - 1 - N_EACH * qn_thread(); /* from here downwards */
    uint32_t count = 0;
    for (uint32_t i = 0; i < N_EACH; i++) {
        count += bins[last - i];
    }
    uint32_t total;
    uint32_t before = sum_before(count, parts, &total);
    if (before < *left && *left <= before + count) {
        uint32_t bin = last;
        while (before + bins[bin] < *left) {
            before += bins[bin];
            bin--;
        }
        found[0] = bin;
        found[1] = *left - before;
    }
    qn_barrier();
    *left = found[1];
    return found[0];
}

/* Write the positions of keys above threshold, and of the first n_equal ones that are equal. */
QN_DEV void compact(int32_t *set, const float *scores, uint32_t n, uint32_t first_position,
                    uint32_t threshold, uint32_t n_equal, uint32_t *parts)
{
    uint32_t n_above = 0, n_same = 0; /* before this tile */
    for (uint32_t tile = 0; tile < n; tile += TILE) {
        const uint32_t at = tile + 4 * qn_thread();
        u32x4 bits = {0, 0, 0, 0};
        if (at < n) {
            bits = qn_load_16(scores + at);
        }
        uint32_t counts = 0; /* above in the high half, equal in the low one */
        uint32_t of[4];
        for (uint32_t k = 0; k < 4; k++) {
            const uint32_t key = order_key(bits[k]);
            of[k] = at + k >= n ? 0 : key > threshold ? 0x10000U : key == threshold;
            counts += of[k];
        }
        uint32_t total;
        const uint32_t before = sum_before(counts, parts, &total);
        uint32_t above = n_above + (before >> 16);
        uint32_t same = n_same + (before & 0xffffU);
        for (uint32_t k = 0; k < 4; k++) {
            if (of[k] > 1 || (of[k] == 1 && same < n_equal)) {
                set[above + qn_min_u32(same, n_equal)] = (int32_t)(first_position + at + k);
            }
            above += of[k] >> 16;
            same += of[k] & 1U;
        }
        n_above += total >> 16;
        n_same += total & 0xffffU;
    }
}

QN_GPU_KERNEL(topk)
{
    QN_SHARED(uint32_t, bins, N_BINS);
    QN_SHARED(uint32_t, parts, N_WARPS);
    QN_SHARED(uint32_t, found, 2);
    const uint32_t t = qn_block_x();
    const uint32_t k = args->n_topk;
    const int32_t end = args->positions[t] + 1 - (int32_t)args->first_position;
    const uint32_t n = args->positions[t] < 0 || end < 0 ? 0 : (uint32_t)end;
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
    uint32_t left = k;
    count_keys(bins, scores, n, 0, 21, 11);
    uint32_t prefix = find_bin(bins, parts, found, &left);
    count_keys(bins, scores, n, prefix, 10, 11);
    prefix = prefix << 11 | find_bin(bins, parts, found, &left);
    count_keys(bins, scores, n, prefix, 0, 10);
    prefix = prefix << 10 | find_bin(bins, parts, found, &left);
    compact(set, scores, n, args->first_position, prefix, left, parts);
}
