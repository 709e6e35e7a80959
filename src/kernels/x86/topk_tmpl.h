/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file topk_tmpl.h  topk of a level.  Included once by a file of each level.
 *
 * Scores are compared by integer keys in their order.  A range of keys that holds the k-th largest
 * begins as [least, largest key] and shrinks by histograms of the scores in it, N_BINS bins at a
 * time, until all scores of a bin belong to the k largest or the bin is one key.  As soon as the
 * scores of a bin are few they are copied out, and the rest is done among them.  Bound by the first
 * histogram, of all scores: one increment each.
 */
#include "base/numbers.h"
#include "kernels/x86/lanes.h"
#include "kernels/x86/x86.h"

enum {
    N_BINS = 256,
    N_TABLES = 4, /* so that like scores do not wait for each other's increment */
    N_SAMPLE = 1024,
    N_FEW = 4096, /* scores that are worth a copy */
    ALL_LANES = (1 << QN_LANES) - 1
};

/*
 * Signed keys in the order of the scores: those of floats with -0 as +0, and NaN next below -Inf.
 */
enum { KEY_NAN = INT32_MIN + 0x7ffffe };

QN_INLINE qn_vi order_keys(qn_vf scores)
{
    const qn_vi magnitude_bits = V(set1_epi32)(0x7fffffff);
    const qn_vi bits = qn_vi_of(scores + qn_vf_set(0.0F)); /* -0 + 0 is +0 */
    const qn_vi key = bits ^ (V(srai_epi32)(bits, 31) & magnitude_bits);
    return qn_vi_if_above(bits & magnitude_bits, V(set1_epi32)(0x7f800000), V(set1_epi32)(KEY_NAN),
                          key);
}

static int32_t order_key(float score)
{
    int32_t keys[QN_LANES];
    qn_vi_store(keys, order_keys(qn_vf_set(score)));
    return keys[0];
}

/* The float with a key: NaN of KEY_NAN, -0 of the one below +0's. */
static float score_of(int32_t key)
{
    return qn_f32_from_bits((uint32_t)(key < 0 ? key ^ 0x7fffffff : key));
}

/* Scores i and after; behind the last one the first. */
QN_INLINE qn_vf load_scores(const float *scores, uint32_t i, uint32_t n)
{
    return qn_vf_load(scores + i, n - i, qn_vf_set(scores[0]));
}

/* Lanes of load_scores() that are scores. */
QN_INLINE uint32_t lanes_at(uint32_t i, uint32_t n)
{
    return n - i >= QN_LANES ? ALL_LANES : (1U << (n - i)) - 1;
}

static int32_t find_threshold(const float *scores, uint32_t n, uint32_t k, uint32_t *n_equal);

/* Keys from low to high, both included. */
typedef struct range {
    int32_t low, high;
} range;

static range full_range(const float *scores, uint32_t n)
{
    qn_vf low = qn_vf_set(INFINITY);
    qn_vf high = qn_vf_set(-INFINITY);
    uint32_t numbers = ALL_LANES;
    for (uint32_t i = 0; i < n; i += QN_LANES) {
        const qn_vf x = load_scores(scores, i, n);
        low = V(min_ps)(x, low); /* the second where one is NaN */
        high = V(max_ps)(x, high);
        numbers &= qn_vf_equal(x, x);
    }
    const float least = -qn_vf_greatest(-low);
    return (range){numbers == ALL_LANES ? order_key(least) : KEY_NAN,
                   order_key(qn_vf_greatest(high))};
}

/* Lanes with keys in a range. */
QN_INLINE uint32_t lanes_in(qn_vi keys, range in)
{
    return ~(qn_vi_above(V(set1_epi32)(in.low), keys) | qn_vi_above(keys, V(set1_epi32)(in.high)));
}

/* How many scores of the range fall into each 2^shift keys from low on. */
static void count(uint32_t counts[N_BINS], const float *scores, uint32_t n, range in,
                  uint32_t shift)
{
    uint32_t parts[N_TABLES][N_BINS];
    memset(parts, 0, sizeof parts);
    for (uint32_t i = 0; i < n; i += QN_LANES) {
        const qn_vi keys = order_keys(load_scores(scores, i, n));
        uint32_t lanes = lanes_in(keys, in) & lanes_at(i, n);
        if (lanes == 0) {
            continue;
        }
        const qn_vi offsets = V(sub_epi32)(keys, V(set1_epi32)(in.low));
        uint8_t bins[QN_LANES];
        qn_vi_store_u8(bins, V(srl_epi32)(offsets, _mm_cvtsi32_si128((int)shift)));
        if (lanes != ALL_LANES) {
            for (; lanes != 0; lanes &= lanes - 1) {
                const uint32_t lane = (uint32_t)__builtin_ctz(lanes);
                parts[lane % N_TABLES][bins[lane]]++;
            }
            continue;
        }
        for (uint32_t first = 0; first < QN_LANES; first += 8) {
            uint64_t eight; /* shifted, since compilers take single bytes out of registers */
            memcpy(&eight, bins + first, sizeof eight);
            for (uint32_t lane = 0; lane < 8; lane++, eight >>= 8) {
                parts[lane % N_TABLES][eight & 255]++;
            }
        }
    }
    for (uint32_t bin = 0; bin < N_BINS; bin++) {
        counts[bin] = parts[0][bin] + parts[1][bin] + parts[2][bin] + parts[3][bin];
    }
}

/* The scores of a range, in order. */
static void copy_range(float *to, const float *scores, uint32_t n, range in)
{
    for (uint32_t i = 0; i < n; i += QN_LANES) {
        const qn_vf x = load_scores(scores, i, n);
        const uint32_t lanes = lanes_in(order_keys(x), in) & lanes_at(i, n);
        if (lanes != 0) {
            to += qn_vi_store_chosen(to, qn_vi_of(x), lanes);
        }
    }
}

/*
 * Raise the low end of a range that holds the k largest to a score that fewer than them, though not
 * by far, seem to exceed: one of a sample.  Returns how many scores are left.
 */
static uint32_t raise_low(range *in, const float *scores, uint32_t n, uint32_t k)
{
    float sample[N_SAMPLE];
    for (uint32_t i = 0; i < N_SAMPLE; i++) {
        sample[i] = scores[(uint64_t)i * n / N_SAMPLE];
    }
    /* Samples expected among the k largest, and at least four standard deviations more. */
    const uint32_t n_expected = (uint32_t)((uint64_t)k * N_SAMPLE / n);
    const uint32_t rank = n_expected + n_expected / 8 + 32;
    if (rank >= N_SAMPLE) {
        return n;
    }
    uint32_t n_equal = 0;
    const int32_t low = find_threshold(sample, N_SAMPLE, rank, &n_equal);
    const qn_vf bound = qn_vf_set(score_of(low));
    uint32_t n_left = 0;
    for (uint32_t i = 0; i < n; i += QN_LANES) {
        const qn_vf x = load_scores(scores, i, n);
        const uint32_t lanes = (qn_vf_above(x, bound) | qn_vf_equal(x, bound)) & lanes_at(i, n);
        n_left += (uint32_t)__builtin_popcount(lanes);
    }
    if (n_left < k) { /* of NaN, for one, or of scores that the sample does not show */
        return n;
    }
    in->low = low;
    return n_left;
}

/* The k largest are the scores with keys above the result and the first n_equal of those with it.
 */
static int32_t find_threshold(const float *scores, uint32_t n, uint32_t k, uint32_t *n_equal)
{
    float few[N_FEW];
    range in = full_range(scores, n);
    uint32_t left = k; /* of the k largest, those in range */
    uint32_t n_in = n < 16 * N_SAMPLE ? n : raise_low(&in, scores, n, k);
    while (in.low < in.high) {
        if (n_in <= N_FEW && n_in < n / 2) {
            copy_range(few, scores, n, in);
            scores = few;
            n = n_in;
        }
        const uint32_t span = (uint32_t)in.high - (uint32_t)in.low;
        const uint32_t span_bits = 32 - (uint32_t)__builtin_clz(span);
        const uint32_t shift = span_bits > 8 ? span_bits - 8 : 0;
        uint32_t counts[N_BINS];
        count(counts, scores, n, in, shift);
        uint32_t bin = span >> shift;
        while (counts[bin] < left) {
            left -= counts[bin];
            bin--; /* ends before 0: all counts add up to at least left */
        }
        const uint32_t low = (uint32_t)in.low + (bin << shift);
        if (counts[bin] == left) {
            *n_equal = n;
            return (int32_t)low;
        }
        const uint32_t width = (1U << shift) - 1;
        in.high = (uint32_t)in.high - low > width ? (int32_t)(low + width) : in.high;
        in.low = (int32_t)low;
        n_in = counts[bin];
    }
    *n_equal = left;
    return in.low;
}

uint32_t QN_LEVEL(qn_topk)(int32_t *set, const float *scores, uint32_t n, uint32_t k)
{
    if (k >= n || k == 0) {
        return qn_topk_ref(set, scores, n, k);
    }
    uint32_t n_equal = 0;
    const float threshold = score_of(find_threshold(scores, n, k, &n_equal));
    static const int32_t lane_numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const bool is_nan = threshold != threshold;
    uint32_t n_set = 0;
    for (uint32_t i = 0; i < n; i += QN_LANES) {
        const qn_vf x = load_scores(scores, i, n);
        const uint32_t lanes = lanes_at(i, n);
        uint32_t chosen =
            lanes & (is_nan ? qn_vf_equal(x, x) : qn_vf_above(x, qn_vf_set(threshold)));
        if (n_equal > 0) {
            uint32_t equal = lanes & (is_nan ? ~chosen : qn_vf_equal(x, qn_vf_set(threshold)));
            equal = _pdep_u32(n_equal < QN_LANES ? (1U << n_equal) - 1 : ~0U, equal); /* lowest */
            n_equal -= (uint32_t)__builtin_popcount(equal);
            chosen |= equal;
        }
        if (chosen != 0) {
            const qn_vi positions =
                V(add_epi32)(V(set1_epi32)((int32_t)i), qn_vi_load(lane_numbers));
            n_set += qn_vi_store_chosen(set + n_set, positions, chosen);
        }
    }
    return n_set;
}
