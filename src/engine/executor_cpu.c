/* SPDX-License-Identifier: Apache-2.0 */
/* Steps on the CPU: one pass of the trunk over arrays of the host, draws on the pool. */
#include "base/clock.h"
#include "engine/accept.h"
#include "engine/executor_parts.h"

/* ----------------------------------------------------------------------------------------- rows */

qn_batch qn_rows_take(qn_executor *e)
{
    const qn_batch batch = {
        .n_rows = e->rows.n,
        .tokens = e->rows.tokens,
        .positions = e->rows.positions,
        .seqs = e->rows.slots,
        .page_tables = e->page_tables,
        .n_seqs = e->n_slots,
        .n_table_pages = e->n_table_pages,
        .logit_rows = e->rows.logit_rows,
        .n_logit_rows = e->rows.n_logits,
    };
    e->rows.n = 0;
    e->rows.n_logits = 0;
    return batch;
}

/* Rows of one sequence for the trunk. */
static void add_rows(qn_executor *e, const qn_step_seq *seq, qn_place *place)
{
    const qn_slot *const slot = &e->slots[seq->slot];
    const uint32_t n_rows = seq->is_prompt ? seq->n_rows : 1 + slot->n_drafts;
    *place = (qn_place){.first_row = e->rows.n, .first_logit = e->rows.n_logits};
    if (slot->is_failed) {
        return;
    }
    place->n_rows = n_rows;
    QN_ASSERT(slot->n_computed + n_rows <= slot->n_pages * QN_PAGE_TOKENS);
    if (seq->is_prompt) {
        QN_ASSERT(seq->first == slot->n_computed && n_rows > 0);
        QN_ASSERT(seq->first + n_rows <= slot->n_ids);
        QN_ASSERT(seq->is_drawing == (seq->first + n_rows == slot->n_ids));
    } else {
        QN_ASSERT(slot->n_computed >= slot->n_ids);
    }
    for (uint32_t i = 0; i < n_rows; i++) {
        const uint32_t position = slot->n_computed + i;
        const int32_t token =
            seq->is_prompt || i == 0 ? qn_slot_token(slot, position) : slot->drafts[i - 1];
        qn_rows_add(e, seq->slot, position, token,
                    !seq->is_prompt || (seq->is_drawing && i + 1 == n_rows));
    }
    place->n_logits = e->rows.n_logits - place->first_logit;
}

/* One pass of the trunk over the rows of all sequences. */
static void run_trunk(qn_executor *e, const qn_step *step)
{
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        add_rows(e, &step->seqs[i], &e->places[i]);
    }
    const qn_batch batch = qn_rows_take(e);
    if (batch.n_rows > 0) {
        qn_glm_forward(e->glm, &e->pages.kv, &batch, e->hidden, e->logits, NULL);
    }
}

/* ---------------------------------------------------------------------------------------- draws */

/* Who receives the tokens of a sequence. */
typedef struct emission {
    qn_slot *slot;
    qn_seq_result *result;
    uint32_t position; /* of the first */
} emission;

/* Does a token end the sequence's answer? */
static bool is_stop_id(const qn_slot *slot, int32_t token)
{
    bool is_one = false;
    for (uint32_t i = 0; i < slot->n_stop_ids; i++) {
        is_one |= slot->stop_ids[i] == token;
    }
    return is_one;
}

static bool emit(void *context, int32_t token, const float *logits)
{
    (void)logits;
    const emission *const to = context;
    qn_slot *const slot = to->slot;
    qn_seq_result *const result = to->result;
    QN_ASSERT(result->n_tokens < QN_STEP_TOKENS_MAX);
    slot->ring[(to->position + result->n_tokens) % QN_SLOT_RING] = token;
    result->tokens[result->n_tokens++] = token;
    result->is_stopped = result->is_stopped || is_stop_id(slot, token);
    return !result->is_stopped;
}

/* Draw for one sequence, and count what of its rows is the sequence's now. */
static void draw(qn_executor *e, const qn_step_seq *seq, const qn_place *place,
                 qn_seq_result *result)
{
    qn_slot *const slot = &e->slots[seq->slot];
    const uint32_t n_drafts = seq->is_prompt ? 0 : slot->n_drafts;
    const uint32_t n_rows = seq->is_prompt ? seq->n_rows : 1;
    emission to = {.slot = slot, .result = result, .position = slot->n_computed + n_rows};
    uint32_t n_emitted = 0;
    qn_status status = QN_OK;
    if (seq->is_drawing) {
        const bool is_pinned = !seq->is_prompt && slot->acceptance_length > 0.0;
        const uint32_t i_logit = place->first_logit + place->n_logits - 1 - n_drafts;
        const qn_accept_args args = {
            .logits = e->logits + (size_t)i_logit * e->n_vocab,
            .drafts = slot->drafts,
            .n_vocab = e->n_vocab,
            .n_drafts = n_drafts,
            .position = to.position,
            .is_pinned = is_pinned,
            .n_forced =
                is_pinned ? qn_accept_forced(slot->n_steps, slot->acceptance_length, n_drafts) : 0,
            .emit = emit,
            .context = &to,
        };
        status = qn_accept_rows(&n_emitted, &result->n_accepted, slot->sampler, &args, NULL);
    }
    if (status < 0) {
        slot->is_failed = true;
        return;
    }
    const uint32_t n_kept = seq->is_prompt ? n_rows : n_emitted;
    if (e->with_mtp && !seq->is_prompt) { /* of a prompt the MTP layer takes them itself */
        const float *const hidden = e->hidden + (size_t)place->first_row * e->n_embd;
        for (uint32_t i = 0; i < n_kept; i++) {
            memcpy(qn_slot_hidden(e, slot, slot->n_computed + i), hidden + (size_t)i * e->n_embd,
                   e->n_embd * sizeof *hidden);
        }
    }
    slot->n_computed += n_kept;
    slot->n_steps += seq->is_prompt ? 0 : 1;
}

/* A loop over the sequences of a step. */
typedef struct draw_loop {
    qn_executor *e;
    const qn_step *step;
    qn_step_result *result;
} draw_loop;

static void draw_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const draw_loop *const loop = context;
    for (size_t i = first; i < end; i++) {
        const qn_step_seq *const seq = &loop->step->seqs[i];
        qn_seq_result *const result = &loop->result->seqs[i];
        *result = (qn_seq_result){.request = seq->request};
        if (!loop->e->slots[seq->slot].is_failed) {
            draw(loop->e, seq, &loop->e->places[i], result);
        }
    }
}

/* How far each sequence's pages are whole. */
static void report(qn_executor *e, const qn_step *step, qn_step_result *result)
{
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        qn_slot *const slot = &e->slots[step->seqs[i].slot];
        if (!slot->is_failed) {
            const bool waits = e->with_mtp && slot->n_mtp < slot->n_computed;
            slot->n_complete = waits ? slot->n_mtp : slot->n_computed;
        }
        result->seqs[i].n_complete = slot->n_complete;
        result->seqs[i].is_failed = slot->is_failed;
    }
}

/* ---------------------------------------------------------------------------------------- steps */

void qn_executor_run(qn_executor *e, const qn_step *step, qn_step_result *result)
{
    result->number = step->number;
    result->outcome = QN_STEP_DONE;
    result->n_seqs = step->n_seqs;
    const uint64_t start_ns = qn_clock_ns();
    if (e->with_mtp) {
        qn_executor_draft(e, step);
    }
    const uint64_t drafted_ns = qn_clock_ns();
    run_trunk(e, step);
    result->verify_s = qn_clock_seconds(drafted_ns, qn_clock_ns());
    result->draft_s =
        e->with_mtp && e->n_drafting[0] > 0 ? qn_clock_seconds(start_ns, drafted_ns) : 0.0;
    draw_loop loop = {e, step, result};
    qn_pool_run(e->pool, step->n_seqs, draw_range, &loop);
    if (e->with_mtp) {
        qn_executor_follow(e, step);
    }
    report(e, step, result);
}

void qn_executor_take_cached(qn_executor *e, uint32_t i_slot, uint32_t n_cached, uint32_t page)
{
    memcpy(qn_slot_hidden(e, &e->slots[i_slot], n_cached - 1),
           qn_kv_page_hidden(&e->pages.kv, (int32_t)page), e->n_embd * sizeof(float));
}

/* ---------------------------------------------------------------------------------------- views */

const float *qn_executor_read_logits(qn_executor *e, uint32_t i_seq)
{
    const qn_place *const place = &e->places[i_seq];
    return place->n_logits > 0 ? e->logits + (size_t)place->first_logit * e->n_vocab : NULL;
}

void qn_executor_make_logits(qn_executor *e, uint32_t first_row, uint32_t n_rows)
{
    qn_glm_head(e->glm, e->hidden + (size_t)first_row * e->n_embd, n_rows, e->prompt_logits);
}
