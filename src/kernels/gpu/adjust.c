/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sampler does to logits before a draw.  Nothing is kept from draw to draw: a block counts
 * what the sequence's pages hold of its own few ids, so that whatever the cache has of a sequence
 * (its own rows, shared pages, rows computed again) is what penalties know of it.
 */
#include "kernels/gpu/cache.h"

enum {
    N_THREADS = QN_GPU_adjust_THREADS,
    PART = QN_GPU_ADJUST_PART, /* ids of a block */
    IN_PROMPT = 1,             /* a count is at least this where the token was seen at all, */
    IN_ANSWER = 2,             /* and so many of these as the answer has it times */
};
_Static_assert(PART % (4 * N_THREADS) == 0, "counts are cleared by whole vectors");

/* A row of logits, and the block's part of its ids. */
typedef struct part {
    const qn_gpu_slot *slot;
    const qn_gpu_bias *biases;
    const int32_t *pages;
    float *logits;     /* of the first id */
    uint32_t first, n; /* ids */
    uint32_t n_tokens; /* of the sequence, up to the row */
} part;

/* A token that the list has several times is the business of its first entry. */
QN_DEV void add_biases(const part *p)
{
    const uint32_t n_biases = p->slot->n_biases;
    for (uint32_t i = qn_thread(); i < n_biases; i += N_THREADS) {
        const int32_t token = p->biases[i].token;
        const uint32_t at = (uint32_t)token - p->first;
        bool is_first = at < p->n;
        for (uint32_t j = 0; j < i && is_first; j++) {
            is_first = p->biases[j].token != token;
        }
        for (uint32_t j = i; j < n_biases && is_first; j++) {
            if (p->biases[j].token == token) {
                p->logits[at] += p->biases[j].bias;
            }
        }
    }
}

QN_DEV void rule_out_stops(const part *p)
{
    for (uint32_t i = qn_thread(); i < p->slot->n_stop_ids; i += N_THREADS) {
        const uint32_t at = (uint32_t)p->slot->stop_ids[i] - p->first;
        if (at < p->n) {
            p->logits[at] = -__builtin_inff();
        }
    }
}

/* The order of additions is no matter: counts are whole numbers. */
QN_DEV void count_tokens(const part *p, const int32_t *page_tokens, uint32_t *counts)
{
    for (uint32_t i = 4 * qn_thread(); i < PART; i += 4 * N_THREADS) {
        qn_store_16(counts + i, (u32x4){0, 0, 0, 0});
    }
    qn_barrier();
    for (uint32_t at = 4 * qn_thread(); at < p->n_tokens; at += 4 * N_THREADS) {
        const u32x4 tokens = qn_load_16(page_tokens + qn_cache_place(p->pages, at));
        QN_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t id = tokens[j] - p->first;
            if (at + j >= p->n_tokens || id >= p->n) {
                continue;
            }
            if (at + j < p->slot->n_prompt) {
                (void)qn_atomic_max(&counts[id], IN_PROMPT);
            } else {
                (void)qn_atomic_add(&counts[id], IN_ANSWER);
            }
        }
    }
    qn_barrier();
}

/* Source   as adjust() of engine/sampler.c */
QN_DEV float penalise(const qn_gpu_slot *slot, float logit, uint32_t n_times)
{
    logit = logit > 0.0F ? logit / slot->repetition_penalty : logit * slot->repetition_penalty;
    logit -= slot->frequency_penalty * (float)n_times;
    return logit - (n_times > 0 ? slot->presence_penalty : 0.0F);
}

/* Block x has a row, block y so many of its ids: the steps follow each other in the block alone. */
QN_GPU_KERNEL(adjust)
{
    QN_SHARED(uint32_t, counts, PART);
    const uint32_t i = qn_block_x();
    const uint32_t row = args->logit_rows != NULL ? args->logit_rows[i] : i;
    const int32_t position = args->positions[row];
    const uint64_t i_slot = (uint32_t)args->slots_of[row];
    const qn_gpu_slot *slot = &args->slots[i_slot];
    const bool is_adjusted = slot->is_penalised || slot->n_biases > 0 || slot->min_tokens > 0;
    if (position < 0 || !is_adjusted) {
        return;
    }
    const uint32_t first = qn_block_y() * PART;
    const part p = {.slot = slot,
                    .biases = args->biases + i_slot * QN_GPU_SLOT_BIASES,
                    .pages = args->page_tables + i_slot * args->n_table_pages,
                    .logits = args->logits + i * args->logits_stride + first,
                    .first = first,
                    .n = qn_min_u32(PART, args->n_vocab - first),
                    .n_tokens = (uint32_t)position + 1};
    add_biases(&p);
    qn_barrier();
    if (p.n_tokens - slot->n_prompt < slot->min_tokens) {
        rule_out_stops(&p);
    }
    if (slot->is_penalised) {
        count_tokens(&p, args->page_tokens, counts);
        for (uint32_t id = qn_thread(); id < p.n; id += N_THREADS) {
            if (counts[id] > 0) {
                p.logits[id] = penalise(slot, p.logits[id], counts[id] / IN_ANSWER);
            }
        }
    }
}
