/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MTP layer's part of a step.  Its row p is made of token p and the trunk's hidden vector of
 * p - 1 (docs/model.md): so rows wait in the slots until there is a reason to compute them.
 */
#include "engine/executor_parts.h"

/* ---------------------------------------------------------------------------------- following */

/* Cache rows of what was added. */
static void run_pass(qn_executor *e)
{
    const qn_batch batch = qn_rows_take(e);
    if (batch.n_rows > 0) {
        qn_glm_mtp_cache(e->glm, &e->pages.kv, &batch, e->hidden_prev);
    }
}

/* Add the row at a position, made of the token there and @p hidden of the position before. */
static void add_row(qn_executor *e, uint32_t i_slot, uint32_t position, const float *hidden)
{
    if (e->rows.n == e->n_step_rows) {
        run_pass(e);
    }
    memcpy(e->hidden_prev + (size_t)e->rows.n * e->n_embd, hidden,
           e->n_embd * sizeof *e->hidden_prev);
    qn_rows_add(e, i_slot, position, qn_slot_token(&e->slots[i_slot], position), false);
}

/* A prompt's rows were computed: the layer takes them from the trunk's pass itself. */
static void follow_prompt(qn_executor *e, const qn_step_seq *seq, const qn_place *place)
{
    qn_slot *const slot = &e->slots[seq->slot];
    const uint32_t end = slot->n_computed;
    const float *const hidden = e->hidden + (size_t)place->first_row * e->n_embd;
    for (; slot->n_mtp < end; slot->n_mtp++) {
        const uint32_t before = slot->n_mtp - 1;
        add_row(e, seq->slot, slot->n_mtp,
                before < seq->first ? qn_slot_hidden(e, slot, before)
                                    : hidden + (size_t)(before - seq->first) * e->n_embd);
    }
    memcpy(qn_slot_hidden(e, slot, end - 1), hidden + (size_t)(end - 1 - seq->first) * e->n_embd,
           e->n_embd * sizeof *hidden);
}

/* Rows of positions that are computed and wait in the slot. */
static void follow_waiting(qn_executor *e, uint32_t i_slot)
{
    qn_slot *const slot = &e->slots[i_slot];
    QN_ASSERT(slot->n_computed + 1 - slot->n_mtp < QN_SLOT_RING);
    for (; slot->n_mtp < slot->n_computed; slot->n_mtp++) {
        add_row(e, i_slot, slot->n_mtp, qn_slot_hidden(e, slot, slot->n_mtp - 1));
    }
}

void qn_executor_follow(qn_executor *e, const qn_step *step)
{
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const qn_step_seq *const seq = &step->seqs[i];
        const qn_slot *const slot = &e->slots[seq->slot];
        if (slot->is_failed) {
            continue;
        }
        if (seq->is_prompt) {
            follow_prompt(e, seq, &e->places[i]);
        } else if (slot->n_computed / QN_FOLLOW_TOKENS > slot->n_mtp / QN_FOLLOW_TOKENS) {
            follow_waiting(e, seq->slot);
        }
    }
    run_pass(e);
}

/* ------------------------------------------------------------------------------------ drafting */

/* Sequences that draft, the deepest first: those that have enough leave a chain at its end. */
static void list_drafting(qn_executor *e, const qn_step *step)
{
    uint32_t n = 0;
    for (uint32_t depth = QN_DRAFT_TOKENS_MAX; depth > 0; depth--) {
        for (uint32_t i = 0; i < step->n_seqs; i++) {
            qn_slot *const slot = &e->slots[step->seqs[i].slot];
            if (step->seqs[i].n_drafts == depth && !slot->is_failed) {
                slot->n_drafts = depth;
                e->drafting[n++] = step->seqs[i].slot;
            }
        }
        e->n_drafting[depth - 1] = n;
    }
}

/* A loop over sequences that draft. */
typedef struct draft_loop {
    qn_executor *e;
    uint32_t i_draft;
} draft_loop;

/* The most likely ids by the layer's logits. */
static void pick_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const draft_loop *const loop = context;
    const qn_executor *const e = loop->e;
    for (size_t i = first; i < end; i++) {
        qn_slot *const slot = &e->slots[e->drafting[i]];
        const qn_sample_args args = {.logits = e->mtp_logits + i * e->n_vocab,
                                     .n_vocab = e->n_vocab,
                                     .temperature = 0.0F,
                                     .top_p = 1.0F};
        const int32_t token = e->kernels->sample(&args);
        slot->drafts[loop->i_draft] = token < 0 ? 0 : token;
        if (token < 0 && slot->n_drafts > loop->i_draft) { /* no numbers: it drafts no further, */
            slot->n_drafts = loop->i_draft;                /* though its row stays in the chain */
        }
    }
}

/* The next row of each chain that makes more than i_draft drafts, and its logits. */
static void run_chains(qn_executor *e, uint32_t i_draft)
{
    for (uint32_t i = 0; i < e->n_drafting[i_draft]; i++) {
        qn_slot *const slot = &e->slots[e->drafting[i]];
        const uint32_t position = slot->n_computed + i_draft;
        if (i_draft == 0) { /* a row of the sequence's own: chains begin with it */
            memcpy(e->chain_hidden + (size_t)i * e->n_embd, qn_slot_hidden(e, slot, position - 1),
                   e->n_embd * sizeof *e->chain_hidden);
            slot->n_mtp = position + 1;
        }
        qn_rows_add(e, e->drafting[i], position,
                    i_draft == 0 ? qn_slot_token(slot, position) : slot->drafts[i_draft - 1], true);
    }
    const qn_batch batch = qn_rows_take(e);
    const qn_index_sets *const sets = e->shares_sets ? &e->chain_sets : NULL;
    const qn_mtp_io io = {.hidden_prev = e->chain_hidden,
                          .reuse = i_draft > 0 ? sets : NULL,
                          .keep = i_draft == 0 ? sets : NULL,
                          .hidden = e->chain_hidden,
                          .logits = e->mtp_logits};
    qn_glm_mtp(e->glm, &e->pages.kv, &batch, &io, NULL);
}

void qn_executor_draft(qn_executor *e, const qn_step *step)
{
    draft_loop loop = {.e = e};
    list_drafting(e, step);
    for (uint32_t i = 0; i < e->n_drafting[0]; i++) {
        follow_waiting(e, e->drafting[i]);
    }
    run_pass(e);
    for (; e->n_drafting[loop.i_draft] > 0; loop.i_draft++) {
        run_chains(e, loop.i_draft);
        qn_pool_run(e->pool, e->n_drafting[loop.i_draft], pick_range, &loop);
    }
}
