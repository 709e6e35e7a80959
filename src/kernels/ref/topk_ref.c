/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numbers.h"
#include "kernels/kernels.h"

/* Unsigned key in the order of the floats: NaN lowest, -0 as +0. */
static uint32_t order_key(float score)
{
    const uint32_t bits = qn_f32_bits(score == 0.0F ? 0.0F : score);
    if ((bits & 0x7fffffffU) > 0x7f800000U) {
        return 0;
    }
    return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

/*
 * The key of the k-th largest score, eight bits at a time from the top, and how many scores with
 * exactly that key belong to the k largest.
 */
static uint32_t find_threshold(const float *scores, uint32_t n, uint32_t k, uint32_t *n_equal)
{
    uint32_t prefix = 0;
    uint32_t left = k; /* still to be found among keys that begin with prefix */
    for (int shift = 24; shift >= 0; shift -= 8) {
        uint32_t counts[256] = {0};
        const uint32_t above = shift == 24 ? 0 : ~0U << (shift + 8); /* bits already decided */
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t key = order_key(scores[i]);
            counts[(key >> shift) & 255U] += (key & above) == prefix;
        }
        uint32_t digit = 255;
        while (counts[digit] < left) {
            left -= counts[digit];
            digit--; /* ends before 0: all counts of this prefix add up to at least left */
        }
        prefix |= digit << shift;
    }
    *n_equal = left;
    return prefix;
}

uint32_t qn_topk_ref(int32_t *set, const float *scores, uint32_t n, uint32_t k)
{
    if (k >= n) {
        for (uint32_t i = 0; i < n; i++) {
            set[i] = (int32_t)i;
        }
        return n;
    }
    if (k == 0) {
        return 0;
    }
    uint32_t n_equal = 0;
    const uint32_t threshold = find_threshold(scores, n, k, &n_equal);
    uint32_t n_set = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t key = order_key(scores[i]);
        if (key > threshold) {
            set[n_set++] = (int32_t)i;
        } else if (key == threshold && n_equal > 0) {
            n_equal--;
            set[n_set++] = (int32_t)i;
        }
    }
    return n_set;
}
