/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"

#include <math.h>

/* First of the largest logits; -1 when there is none above -Inf. */
static int32_t greedy(const float *logits, uint32_t n)
{
    int32_t best = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (logits[i] > (best < 0 ? -INFINITY : logits[best])) {
            best = (int32_t)i;
        }
    }
    return best;
}

/* Does token a come before b: more likely, then lower id?  Logits differ where f32 weights may not.
 */
static bool comes_before(const float *logits, int32_t a, int32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* A heap of token ids with the first in order at the top: only what is drawn from gets sorted. */
static void sift_down(int32_t *heap, uint32_t n, uint32_t at, const float *logits)
{
    const int32_t moving = heap[at];
    for (uint32_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && comes_before(logits, heap[child + 1], heap[child])) {
            child++;
        }
        if (!comes_before(logits, heap[child], moving)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/* Probabilities of all tokens with a finite logit; their ids form the heap.  Returns their number.
 */
static uint32_t soften(const qn_sample_args *args, int32_t i_max)
{
    const float max = args->logits[i_max];
    double sum = 0.0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < args->n_vocab; i++) {
        const float z = (args->logits[i] - max) / args->temperature;
        args->scratch_p[i] = z <= 0.0F ? expf(z) : 0.0F; /* NaN gets no weight */
        if (args->scratch_p[i] > 0.0F) {
            sum += (double)args->scratch_p[i];
            args->scratch_i[n++] = (int32_t)i;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        float *p = &args->scratch_p[args->scratch_i[i]];
        *p = (float)((double)*p / sum);
    }
    for (uint32_t at = n / 2; at-- > 0;) {
        sift_down(args->scratch_i, n, at, args->logits);
    }
    return n;
}

/* Move the next token in order from the heap to the end of the array; returns it. */
static int32_t pop(int32_t *heap, uint32_t n, const float *logits)
{
    const int32_t top = heap[0];
    heap[0] = heap[n - 1];
    sift_down(heap, n - 1, 0, logits);
    heap[n - 1] = top;
    return top;
}

int32_t qn_sample_ref(const qn_sample_args *args)
{
    const int32_t best = greedy(args->logits, args->n_vocab);
    if (best < 0 || args->temperature == 0.0F || args->logits[best] == INFINITY) {
        return best;
    }
    const float *p = args->scratch_p;
    int32_t *heap = args->scratch_i;
    const uint32_t n = soften(args, best);
    const uint32_t n_top_k = args->top_k > 0 && args->top_k < n ? args->top_k : n;
    /* Sum of the top_k, which top_p is a share of.  Without top_k it is that of all tokens. */
    double mass = 1.0;
    uint32_t n_popped = 0;
    if (n_top_k < n) {
        mass = 0.0;
        for (; n_popped < n_top_k; n_popped++) {
            mass += (double)p[pop(heap, n - n_popped, args->logits)];
        }
    }
    /* Walk in order; popped tokens stand from the end of the array backwards. */
    const double floor_p = (double)args->min_p * (double)p[best];
    double kept = 0.0;
    uint32_t n_kept = 0;
    while (n_kept < n_top_k) {
        if (n_kept == n_popped) {
            (void)pop(heap, n - n_popped, args->logits);
            n_popped++;
        }
        const double next = (double)p[heap[n - 1 - n_kept]];
        if (n_kept > 0 &&
            ((args->top_p < 1.0F && kept >= (double)args->top_p * mass) || next < floor_p)) {
            break;
        }
        kept += next;
        n_kept++;
    }
    const double target = args->unit * kept;
    double sum = 0.0;
    for (uint32_t i = 0; i + 1 < n_kept; i++) {
        sum += (double)p[heap[n - 1 - i]];
        if (target < sum) {
            return heap[n - 1 - i];
        }
    }
    return heap[n - n_kept];
}
