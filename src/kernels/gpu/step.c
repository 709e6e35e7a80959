/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of many sequences (args_step.h). */
#include "base/rng.h"
#include "kernels/gpu/cache.h"

QN_DEV uint32_t seq_of(uint32_t place)
{
    return place & ((1U << QN_GPU_PLACE_BITS) - 1);
}

QN_DEV uint32_t row_of(uint32_t place)
{
    return place >> QN_GPU_PLACE_BITS;
}

/* Drafts that a sequence has: one that is no token ends them. */
QN_DEV uint32_t count_drafts(const qn_gpu_step_seq *seq, const int32_t *drafts,
                             uint32_t n_chains_max)
{
    uint32_t n = 0;
    while (n < seq->n_drafts && drafts[n * n_chains_max + seq->i_chain] >= 0) {
        n++;
    }
    return n;
}

/* -------------------------------------------------------------------------------- page tables --
 */

/* One thread an entry. */
QN_GPU_KERNEL(step_pages)
{
    const uint32_t i = qn_block_x() * QN_GPU_step_pages_THREADS + qn_thread();
    if (i < args->n_entries) {
        const qn_gpu_page_entry *e = &args->entries[i];
        args->page_tables[(uint64_t)e->slot * args->n_table_pages + e->i_page] = e->page;
    }
}

/* --------------------------------------------------------------------------------------- rows --
 */

/* A token and its position; no row has a negative one. */
typedef struct row {
    int32_t token, position;
} row;

QN_DEV row trunk_row(const qn_gpu_step_rows_args *args, const qn_gpu_step_seq *seq,
                     const qn_gpu_slot *slot, uint32_t r, uint32_t j)
{
    const int32_t position = (int32_t)(slot->n_computed + j);
    if (seq->is_prompt) {
        return (row){args->given[r], position};
    }
    if (j > count_drafts(seq, args->drafts, args->n_chains_max)) {
        return (row){0, -1};
    }
    return (row){j == 0 ? slot->last_token
                        : args->drafts[(j - 1) * args->n_chains_max + seq->i_chain],
                 position};
}

QN_DEV row chain_row(const qn_gpu_step_rows_args *args, const qn_gpu_step_seq *seq,
                     const qn_gpu_slot *slot)
{
    const uint32_t i = args->i_draft;
    if (i >= seq->n_drafts) {
        return (row){0, -1};
    }
    const int32_t token =
        i == 0 ? slot->last_token : args->drafts[(i - 1) * args->n_chains_max + seq->i_chain];
    return (row){token < 0 ? 0 : token, (int32_t)(slot->n_computed + i)};
}

/* How a row is drawn: the random number is that of the position behind it. */
QN_DEV void write_settings(const qn_gpu_step_rows_args *args, uint32_t i)
{
    const uint32_t place = args->places[args->logit_rows != NULL ? args->logit_rows[i] : i];
    qn_gpu_sampling s = {0, 1, 0, 0, 0};
    if (place != QN_GPU_PLACE_NONE) {
        const qn_gpu_slot *slot = &args->slots[args->seqs[seq_of(place)].slot];
        const uint32_t position = slot->n_computed + row_of(place) + 1;
        s = (qn_gpu_sampling){slot->temperature, slot->top_p, slot->min_p, slot->top_k,
                              qn_rng_unit(slot->seed, args->stream, position)};
    }
    args->settings[i] = s;
}

/* The page of the row's position has its token from now on. */
QN_DEV void keep_token(const qn_gpu_step_rows_args *args, uint32_t i_slot, row made)
{
    const int32_t *pages = args->page_tables + (uint64_t)i_slot * args->n_table_pages;
    args->page_tokens[qn_cache_place(pages, (uint32_t)made.position)] = made.token;
}

/* One thread a row. */
QN_GPU_KERNEL(step_rows)
{
    const uint32_t r = qn_block_x() * QN_GPU_step_rows_THREADS + qn_thread();
    if (r < args->n_logits) {
        write_settings(args, r);
    }
    if (r >= args->n_rows) {
        return;
    }
    const uint32_t place = args->places[r];
    row made = {0, -1};
    uint32_t i_slot = 0;
    if (place != QN_GPU_PLACE_NONE) {
        const qn_gpu_step_seq *seq = &args->seqs[seq_of(place)];
        const qn_gpu_slot *slot = &args->slots[seq->slot];
        i_slot = seq->slot;
        if (!slot->is_failed) {
            made = args->is_chain ? chain_row(args, seq, slot)
                                  : trunk_row(args, seq, slot, r, row_of(place));
        }
    }
    if (!args->is_chain && made.position >= 0) {
        keep_token(args, i_slot, made);
    }
    args->tokens[r] = made.token;
    args->positions[r] = made.position;
    args->slots_of[r] = (int32_t)i_slot;
}

/* ----------------------------------------------------------------------------- hidden vectors --
 */

enum { N_COPY = QN_GPU_step_chain_THREADS };
_Static_assert((int)QN_GPU_step_follow_THREADS == (int)N_COPY, "all copy alike");
_Static_assert((int)QN_GPU_step_keep_THREADS == (int)N_COPY, "all copy alike");

QN_DEV void copy_row(float *to, const float *from, uint32_t n)
{
    for (uint32_t i = 4 * qn_thread(); i < n; i += 4 * N_COPY) {
        qn_store_16(to + i, qn_load_16(from + i));
    }
}

/* One block a row, as the next two. */
QN_GPU_KERNEL(step_chain)
{
    const uint64_t r = qn_block_x();
    const uint32_t place = args->places[r];
    if (place != QN_GPU_PLACE_NONE) {
        const uint64_t slot = args->seqs[seq_of(place)].slot;
        copy_row(args->y + r * args->n_embd, args->kept + slot * args->n_embd, args->n_embd);
    }
}

QN_GPU_KERNEL(step_follow)
{
    const uint64_t r = qn_block_x();
    const uint64_t n = args->n_embd;
    const uint32_t place = args->places[r];
    if (place == QN_GPU_PLACE_NONE) {
        return;
    }
    const uint64_t i_slot = args->seqs[seq_of(place)].slot;
    const qn_gpu_slot *slot = &args->slots[i_slot];
    const uint32_t j = row_of(place);
    if (qn_thread() == 0 && (slot->is_failed || j >= slot->n_kept || args->positions[r] == 0)) {
        args->positions[r] = -1;
    }
    copy_row(args->y + r * n, j == 0 ? args->kept + i_slot * n : args->x + (r - 1) * n,
             args->n_embd);
}

QN_GPU_KERNEL(step_keep)
{
    const uint64_t r = qn_block_x();
    const uint32_t place = args->places[r];
    if (place == QN_GPU_PLACE_NONE) {
        return;
    }
    const uint64_t i_slot = args->seqs[seq_of(place)].slot;
    const qn_gpu_slot *slot = &args->slots[i_slot];
    if (!slot->is_failed && row_of(place) + 1 == slot->n_kept) {
        copy_row(args->kept + i_slot * args->n_embd, args->x + r * args->n_embd, args->n_embd);
    }
}

/* ------------------------------------------------------------------------------------- settle --
 */

QN_DEV bool is_stop_id(const qn_gpu_slot *slot, int32_t token)
{
    bool is_one = false;
    for (uint32_t i = 0; i < slot->n_stop_ids; i++) {
        is_one |= slot->stop_ids[i] == token;
    }
    return is_one;
}

/* Draw by draw until a token is not the row's draft, ends the answer, or is none. */
QN_DEV void accept_rows(const qn_gpu_step_settle_args *args, const qn_gpu_step_seq *seq,
                        const qn_gpu_slot *slot, qn_gpu_step_result *result)
{
    const bool is_pinned = seq->n_forced != QN_GPU_NOT_PINNED;
    const uint32_t n_drafts = count_drafts(seq, args->drafts, args->n_chains_max);
    bool goes_on = true;
    for (uint32_t j = 0; j <= n_drafts && goes_on; j++) {
        const int32_t draft =
            j < n_drafts ? args->drafts[j * args->n_chains_max + seq->i_chain] : -1;
        const bool is_forced = is_pinned && j < seq->n_forced && j < n_drafts;
        const int32_t token = is_forced ? draft : args->drawn[seq->first_logit + j];
        if (token < 0) {
            result->is_failed = 1;
            return;
        }
        const bool is_accepted = is_forced || (!is_pinned && token == draft);
        result->tokens[result->n_tokens++] = token;
        result->n_accepted += is_accepted ? 1 : 0;
        result->is_stopped = is_stop_id(slot, token);
        goes_on = is_accepted && !result->is_stopped;
    }
}

/* One thread a sequence. */
QN_GPU_KERNEL(step_settle)
{
    const uint32_t i = qn_block_x() * QN_GPU_step_settle_THREADS + qn_thread();
    if (i >= args->n_seqs) {
        return;
    }
    const qn_gpu_step_seq *seq = &args->seqs[i];
    qn_gpu_slot *slot = &args->slots[seq->slot];
    qn_gpu_step_result *result = &args->results[i];
    *result = (qn_gpu_step_result){0, 0, 0, 0, slot->is_failed, {0}};
    if (!result->is_failed && seq->is_drawing) {
        accept_rows(args, seq, slot, result);
    }
    if (!result->is_failed) {
        slot->n_kept = seq->is_prompt ? seq->n_rows : result->n_tokens;
        slot->n_computed += slot->n_kept;
        if (result->n_tokens > 0) {
            slot->last_token = result->tokens[result->n_tokens - 1];
        }
    }
    slot->is_failed = result->is_failed;
    result->n_complete = slot->n_computed;
}
