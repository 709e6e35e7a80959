/* SPDX-License-Identifier: Apache-2.0 */
/* What a sampler does around a draw: its changes to logits, and what it remembers. */
#include "kernels/gpu/lang.h"

enum {
    N_THREADS = QN_GPU_adjust_THREADS,
    PART = QN_GPU_ADJUST_PART, /* ids of a block */
    N_QUADS = 4,               /* loads of 16 bytes that a thread has under way */
};
_Static_assert(PART == 4 * N_QUADS * N_THREADS, "a part is read at once");

/* How often the token is among the drafts from the first one on. */
QN_DEV uint32_t count_drafts(const qn_gpu_adjustment *a, uint32_t first, int32_t token)
{
    uint32_t n = 0;
    for (uint32_t i = first; i < a->n_drafts; i++) {
        n += a->drafts[i] == token ? 1 : 0;
    }
    return n;
}

/* Source   as adjust() of engine/sampler.c */
QN_DEV float penalise(const qn_gpu_adjustment *a, float logit, uint32_t n_times)
{
    logit = logit > 0.0F ? logit / a->repetition_penalty : logit * a->repetition_penalty;
    logit -= a->frequency_penalty * (float)n_times;
    return logit - (n_times > 0 ? a->presence_penalty : 0.0F);
}

/* A token that the list has several times is the business of its first entry. */
QN_DEV void add_biases(const qn_gpu_adjustment *a, float *logits, uint32_t first, uint32_t end)
{
    for (uint32_t i = qn_thread(); i < a->n_biases; i += N_THREADS) {
        const int32_t token = a->biases[i].token;
        bool is_first = (uint32_t)token >= first && (uint32_t)token < end;
        for (uint32_t j = 0; j < i && is_first; j++) {
            is_first = a->biases[j].token != token;
        }
        for (uint32_t j = i; j < a->n_biases && is_first; j++) {
            if (a->biases[j].token == token) {
                logits[token] += a->biases[j].bias;
            }
        }
    }
}

QN_DEV void penalise_seen(const qn_gpu_adjustment *a, float *logits, uint32_t first, uint32_t end)
{
    u32x4 counts[N_QUADS];
    QN_UNROLL(N_QUADS)
    for (uint32_t q = 0; q < N_QUADS; q++) {
        const uint32_t at = first + 4 * (q * N_THREADS + qn_thread());
        counts[q] = qn_load_16(a->counts + (at < end ? at : first)); /* all are under way */
    }
    QN_UNROLL(4 * N_QUADS)
    for (uint32_t j = 0; j < 4 * N_QUADS; j++) {
        const uint32_t id = first + 4 * (j / 4 * N_THREADS + qn_thread()) + j % 4;
        const uint32_t count = counts[j / 4][j % 4];
        if (id < end && count > 0 && count_drafts(a, 0, (int32_t)id) == 0) {
            logits[id] = penalise(a, logits[id], count - 1);
        }
    }
    const uint32_t i = qn_thread();
    if (i >= a->n_drafts) {
        return;
    }
    const int32_t token = a->drafts[i];
    const uint32_t n_from_here = count_drafts(a, i, token);
    if ((uint32_t)token >= first && (uint32_t)token < end &&
        n_from_here == count_drafts(a, 0, token)) {
        const uint32_t count = a->counts[token];
        logits[token] = penalise(a, logits[token], n_from_here + (count > 0 ? count - 1 : 0));
    }
}

/* Block x has a row, block y so many of its ids: the steps follow each other in the block alone. */
QN_GPU_KERNEL(adjust)
{
    const qn_gpu_adjustment *a = args->of_row + qn_block_x();
    float *logits = args->logits + qn_block_x() * args->logits_stride;
    const uint32_t first = qn_block_y() * PART;
    const uint32_t end = qn_min_u32(first + PART, args->n_vocab);
    add_biases(a, logits, first, end);
    qn_barrier();
    if (a->min_tokens > 0 && *a->n_answer + a->n_drafts < a->min_tokens) {
        for (uint32_t i = qn_thread(); i < a->n_stop_ids; i += N_THREADS) {
            const uint32_t id = (uint32_t)a->stop_ids[i];
            if (id >= first && id < end) {
                logits[id] = -__builtin_inff();
            }
        }
    }
    qn_barrier();
    if (a->counts != NULL) {
        penalise_seen(a, logits, first, end);
    }
}

/* A thread a sequence. */
QN_GPU_KERNEL(commit)
{
    const uint32_t seq = qn_block_x() * QN_GPU_commit_THREADS + qn_thread();
    if (seq >= args->n_seqs) {
        return;
    }
    uint32_t *counts = args->counts[seq];
    const int32_t *drawn = args->drawn + args->first_row[seq];
    const uint32_t n = args->n_tokens[seq];
    for (uint32_t i = 0; i < n && counts != NULL; i++) {
        const uint32_t count = counts[drawn[i]];
        counts[drawn[i]] = (count > 0 ? count : 1) + 1;
    }
    args->n_answers[seq] += n;
}
