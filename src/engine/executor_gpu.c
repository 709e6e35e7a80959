/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/executor_gpu.h"

#include "base/log.h"
#include "base/minmax.h"
#include "base/try.h"
#include "device/gpu_block.h"
#include "engine/accept.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

_Static_assert((int)QN_GPU_STEP_TOKENS == (int)QN_STEP_TOKENS_MAX, "host and device agree");
_Static_assert((int)QN_GPU_SLOT_STOPS == (int)QN_SAMPLER_STOPS_MAX, "host and device agree");
_Static_assert((int)QN_GPU_SLOT_BIASES == (int)QN_LOGIT_BIAS_MAX, "host and device agree");
_Static_assert(1 << QN_GPU_PLACE_BITS >= QN_STEP_SEQS_MAX, "a place names any sequence");

/* -------------------------------------------------------------------------------- open and close
 */

static void *cut(qn_gpu_block *c, uint64_t n, size_t element_bytes)
{
    return qn_gpu_cut(c, n * element_bytes);
}

/* The first three are uploaded as one where there are no prompts. */
static qn_gpu_orders cut_orders(qn_gpu_block *c, const qn_executor *e)
{
    const uint64_t n_slots = e->n_slots;
    qn_gpu_orders o;
    o.seqs = cut(c, n_slots, sizeof *o.seqs);
    o.chain = cut(c, n_slots, sizeof *o.chain);
    o.trunk = cut(c, e->n_step_rows, sizeof *o.trunk);
    o.given = cut(c, e->n_step_rows, sizeof *o.given);
    o.logit_rows = cut(c, e->n_logit_rows, sizeof *o.logit_rows);
    o.entries = cut(c, QN_STEP_PAGES_MAX, sizeof *o.entries);
    o.begins = cut(c, n_slots, sizeof *o.begins);
    o.biases = cut(c, n_slots * QN_GPU_SLOT_BIASES, sizeof *o.biases);
    o.results = cut(c, n_slots, sizeof *o.results);
    return o;
}

static void cut_device(qn_gpu_steps *g, qn_gpu_block *c, const qn_executor *e)
{
    const uint64_t n_slots = e->n_slots;
    g->orders = cut_orders(c, e);
    g->slots = cut(c, n_slots, sizeof *g->slots);
    g->page_tables = cut(c, n_slots * e->n_table_pages, sizeof *g->page_tables);
    g->page_tokens = cut(c, (uint64_t)e->n_pages * QN_PAGE_TOKENS, sizeof *g->page_tokens);
    g->tokens = cut(c, e->n_step_rows, sizeof *g->tokens);
    g->positions = cut(c, e->n_step_rows, sizeof *g->positions);
    g->slots_of = cut(c, e->n_step_rows, sizeof *g->slots_of);
    g->drafts = cut(c, n_slots * QN_DRAFT_TOKENS_MAX, sizeof *g->drafts);
    g->settings = cut(c, e->n_logit_rows, sizeof *g->settings);
    g->greedy = cut(c, n_slots, sizeof *g->greedy);
    g->drawn = cut(c, e->n_logit_rows, sizeof *g->drawn);
    g->sample_scratch = cut(c, qn_gpu_sample_scratch_bytes(QN_SAMPLE_ROWS, e->n_vocab), 1);
    g->hidden = cut(c, (uint64_t)e->n_step_rows * e->n_embd, sizeof *g->hidden);
    g->kept = cut(c, e->with_mtp ? n_slots * e->n_embd : 0, sizeof *g->kept);
}

static qn_status open_flight(qn_gpu_flight *f, const qn_executor *e, uint64_t n_bytes,
                             qn_error *err)
{
    qn_status status = QN_OK;
    void *memory = NULL;
    QN_TRY(status, qn_gpu_alloc_host(&memory, e->gpu->glm->gpu, n_bytes, "steps", err), fail);
    qn_gpu_block c = {.base = memory};
    f->orders = cut_orders(&c, e);
    for (uint32_t i = 0; i < QN_FLIGHT_EVENTS; i++) {
        QN_TRY(status, qn_gpu_event_open(&f->events[i], e->gpu->glm->gpu, err), fail);
    }
fail:
    return status;
}

/* Zeros everywhere, and the settings of drafts: the most likely token. */
static qn_status clear(qn_gpu_steps *g, const qn_executor *e, qn_error *err)
{
    qn_gpu_stream *const stream = g->glm->stream;
    const qn_gpu_sampling greedy = {.top_p = 1.0F};
    qn_gpu_fill(stream, g->block, 0, g->block_bytes);
    for (uint32_t i = 0; i < e->n_slots; i++) {
        qn_gpu_upload(stream, &g->greedy[i], &greedy, sizeof greedy);
    }
    return qn_gpu_wait(stream, err);
}

uint64_t qn_gpu_steps_measure(const qn_executor *e)
{
    qn_gpu_block c = {0};
    qn_gpu_steps *const g = calloc(1, sizeof *g);
    if (g != NULL) {
        cut_device(g, &c, e);
    }
    free(g);
    return c.n_bytes;
}

qn_status qn_gpu_steps_open(qn_executor *e, qn_error *err)
{
    qn_status status = QN_OK;
    qn_gpu_steps *const g = calloc(1, sizeof *g);
    if (g == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "executor: no memory");
    }
    e->gpu = g;
    g->glm = qn_glm_gpu(e->glm);
    QN_ASSERT(g->glm->n_rows_max >= e->n_step_rows);
    qn_gpu_block of_orders = {0};
    (void)cut_orders(&of_orders, e);
    for (uint32_t i = 0; i <= e->lag; i++) {
        QN_TRY(status, open_flight(&g->flights[i], e, of_orders.n_bytes, err), fail);
    }
    g->host_bytes = sizeof *g + (e->lag + 1) * of_orders.n_bytes;
    qn_gpu_block c = {0};
    cut_device(g, &c, e);
    void *block = NULL;
    QN_TRY(status, qn_gpu_alloc(&block, g->glm->gpu, c.n_bytes, "sequences", err), fail);
    g->block = block;
    g->block_bytes = c.n_bytes;
    c = (qn_gpu_block){.base = block};
    cut_device(g, &c, e);
    QN_TRY(status, clear(g, e, err), fail);
fail:
    return status;
}

void qn_gpu_steps_close(qn_gpu_steps **steps)
{
    qn_gpu_steps *const g = *steps;
    if (g == NULL) {
        return;
    }
    (void)!qn_gpu_wait(g->glm->stream, NULL);
    qn_gpu_steps_drop_graphs(g);
    for (uint32_t i = 0; i <= QN_EXECUTOR_LAG_MAX; i++) {
        for (uint32_t k = 0; k < QN_FLIGHT_EVENTS; k++) {
            qn_gpu_event_close(&g->flights[i].events[k]);
        }
        qn_gpu_free_host(g->glm->gpu, g->flights[i].orders.seqs);
    }
    qn_gpu_free(g->glm->gpu, g->block);
    free(g);
    *steps = NULL;
}

uint64_t qn_gpu_steps_bytes(const qn_gpu_steps *steps)
{
    return steps != NULL ? steps->host_bytes + steps->block_bytes : 0;
}

/* ------------------------------------------------------------------------------- slots and pages
 */

qn_status qn_gpu_steps_note(qn_gpu_steps *g)
{
    if (g->status == QN_OK) {
        g->status = qn_gpu_check(g->glm->stream, &g->error);
    }
    return g->status;
}

/* What the device is to know of a slot that begins; its tokens so far are with its pages. */
static qn_gpu_slot slot_of(const qn_slot *slot)
{
    const qn_sampling *const s = &slot->sampling;
    qn_gpu_slot made = {.seed = s->seed,
                        .temperature = s->temperature,
                        .top_p = s->top_p,
                        .min_p = s->min_p,
                        .top_k = s->top_k,
                        .n_stop_ids = slot->n_stop_ids,
                        .n_computed = slot->n_cached,
                        .n_prompt = slot->n_prompt,
                        .min_tokens = slot->min_tokens,
                        .n_biases = s->n_logit_bias,
                        .is_penalised = s->repetition_penalty != 1.0F ||
                                        s->presence_penalty != 0.0F || s->frequency_penalty != 0.0F,
                        .repetition_penalty = s->repetition_penalty,
                        .presence_penalty = s->presence_penalty,
                        .frequency_penalty = s->frequency_penalty};
    memcpy(made.stop_ids, slot->stop_ids, slot->n_stop_ids * sizeof *made.stop_ids);
    return made;
}

static void begin_slot(qn_executor *e, const qn_gpu_orders *o, uint32_t i_slot)
{
    qn_gpu_steps *const g = e->gpu;
    const qn_slot *const slot = &e->slots[i_slot];
    const uint32_t n_cached = slot->n_cached;
    const uint32_t n_biases = slot->sampling.n_logit_bias;
    qn_gpu_bias *const biases = o->biases + (size_t)i_slot * QN_GPU_SLOT_BIASES;
    o->begins[i_slot] = slot_of(slot);
    qn_gpu_upload(g->glm->stream, &g->slots[i_slot], &o->begins[i_slot], sizeof *o->begins);
    for (uint32_t i = 0; i < n_biases; i++) {
        const qn_logit_bias *const bias = &slot->sampling.logit_bias[i];
        biases[i] = (qn_gpu_bias){bias->token, bias->bias};
    }
    if (n_biases > 0) {
        qn_gpu_upload(g->glm->stream, g->orders.biases + (size_t)i_slot * QN_GPU_SLOT_BIASES,
                      biases, n_biases * sizeof *biases);
    }
    if (e->with_mtp && n_cached > 0) {
        /* The MTP layer goes on behind cached pages with what the last of them carries. */
        const int32_t page = qn_slot_pages(e, i_slot)[n_cached / QN_PAGE_TOKENS - 1];
        qn_gpu_copy(g->glm->stream, g->kept + (size_t)i_slot * e->n_embd,
                    qn_kv_page_hidden(&e->pages.kv, page), e->n_embd * sizeof(float));
    }
}

/* Begins and page tables, with those that a step before lost. */
static void prepare(qn_executor *e, const qn_step *step, const qn_gpu_flight *f)
{
    qn_gpu_steps *const g = e->gpu;
    qn_gpu_stream *const stream = g->glm->stream;
    for (uint32_t i = 0; i < e->n_slots && (step->n_begins > 0 || g->must_restore); i++) {
        if (e->slots[i].must_begin) {
            begin_slot(e, &f->orders, i);
        }
    }
    if (g->must_restore) {
        qn_gpu_upload(stream, g->page_tables, e->page_tables,
                      (size_t)e->n_slots * e->n_table_pages * sizeof *e->page_tables);
    } else if (step->n_pages > 0) {
        for (uint32_t i = 0; i < step->n_pages; i++) {
            const qn_step_page *const p = &step->pages[i];
            f->orders.entries[i] =
                (qn_gpu_page_entry){p->slot, p->i_page, qn_slot_pages(e, p->slot)[p->i_page]};
        }
        qn_gpu_upload(stream, g->orders.entries, f->orders.entries,
                      step->n_pages * sizeof *f->orders.entries);
        qn_gpu_step_pages(&g->glm->ops, &(qn_gpu_step_pages_args){.page_tables = g->page_tables,
                                                                  .entries = g->orders.entries,
                                                                  .n_table_pages = e->n_table_pages,
                                                                  .n_entries = step->n_pages});
    }
}

/* ------------------------------------------------------------------------------------- orders */

static uint32_t place(uint32_t i_seq, uint32_t j)
{
    return i_seq | j << QN_GPU_PLACE_BITS;
}

/* What a sequence's rows are, without their places. */
static void order_seq(qn_executor *e, const qn_step_seq *seq, qn_gpu_step_seq *to)
{
    qn_slot *const slot = &e->slots[seq->slot];
    const uint32_t n_rows = seq->is_prompt ? seq->n_rows : 1 + seq->n_drafts;
    QN_ASSERT(n_rows > 0 && slot->n_computed + n_rows <= slot->n_pages * QN_PAGE_TOKENS);
    QN_ASSERT(seq->is_prompt == (slot->n_computed < slot->n_ids));
    if (seq->is_prompt) {
        QN_ASSERT(seq->first == slot->n_computed && seq->first + n_rows <= slot->n_ids);
        QN_ASSERT(seq->is_drawing == (seq->first + n_rows == slot->n_ids));
    }
    const bool is_pinned = !seq->is_prompt && slot->acceptance_length > 0.0;
    *to = (qn_gpu_step_seq){
        .slot = seq->slot,
        .n_rows = n_rows,
        .n_drafts = seq->n_drafts,
        .n_forced = is_pinned
                        ? qn_accept_forced(slot->n_steps, slot->acceptance_length, seq->n_drafts)
                        : QN_GPU_NOT_PINNED,
        .is_prompt = seq->is_prompt,
        .is_drawing = seq->is_drawing};
}

/* Chains, the deepest first: those that have enough leave at the end. */
static void order_chains(const qn_gpu_orders *o, uint32_t n_seqs, qn_gpu_extent *x)
{
    for (uint32_t depth = QN_DRAFT_TOKENS_MAX; depth > 0; depth--) {
        for (uint32_t i = 0; i < n_seqs; i++) {
            if (o->seqs[i].n_drafts == depth) {
                x->depth = depth > x->depth ? depth : x->depth;
                o->seqs[i].i_chain = x->n_chains;
                o->chain[x->n_chains++] = place(i, 0);
            }
        }
    }
}

/* The trunk's rows of answers or of prompts, behind those that are there. */
static void order_rows(qn_executor *e, const qn_step *step, const qn_gpu_orders *o, bool is_prompt,
                       qn_gpu_extent *x)
{
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        qn_gpu_step_seq *const seq = &o->seqs[i];
        qn_slot *const slot = &e->slots[seq->slot];
        const uint32_t n_positions = slot->n_pages * QN_PAGE_TOKENS;
        if ((seq->is_prompt != 0) != is_prompt) {
            continue;
        }
        QN_ASSERT(slot->n_pages <= e->n_pages);
        x->n_positions = n_positions > x->n_positions ? n_positions : x->n_positions;
        seq->first_logit = x->n_logits;
        qn_place *const p = &e->places[i];
        *p = (qn_place){x->n_rows, seq->n_rows, x->n_logits, 0};
        for (uint32_t j = 0; j < seq->n_rows; j++) {
            const bool is_drawn = !is_prompt || (seq->is_drawing && j + 1 == seq->n_rows);
            o->given[x->n_rows] = is_prompt ? slot->ids[slot->n_computed + j] : 0;
            if (is_drawn) {
                o->logit_rows[x->n_logits++] = x->n_rows;
                p->n_logits++;
            }
            o->trunk[x->n_rows++] = place(i, j);
        }
    }
}

/* Padding up to @p n_rounded. */
static void pad(uint32_t *places, uint32_t n, uint32_t n_rounded)
{
    for (; n < n_rounded; n++) {
        places[n] = QN_GPU_PLACE_NONE;
    }
}

/* Write the orders of a step and upload them. */
static void order(qn_executor *e, const qn_step *step, const qn_gpu_orders *o)
{
    qn_gpu_steps *const g = e->gpu;
    qn_gpu_stream *const stream = g->glm->stream;
    qn_gpu_extent x = {0};
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        order_seq(e, &step->seqs[i], &o->seqs[i]);
    }
    order_chains(o, step->n_seqs, &x);
    order_rows(e, step, o, false, &x);
    x.n_answer_rows = x.n_rows;
    order_rows(e, step, o, true, &x);
    const bool has_prompts = x.n_rows > x.n_answer_rows;
    x.n_positions = qn_min_u32(x.n_positions, e->n_positions_max);
    if (!has_prompts) {
        const uint32_t n = x.n_rows;
        x.n_rows = x.n_answer_rows = qn_gpu_steps_round(n, e->n_logit_rows);
        pad(o->trunk, n, x.n_rows);
        x.i_extent = qn_gpu_steps_extent(e->n_topk, e->n_positions_max, &x.n_positions);
    }
    pad(o->chain, x.n_chains, e->n_slots);
    g->extent = x;
    const size_t head_bytes = (size_t)((const uint8_t *)o->trunk - (const uint8_t *)o->seqs);
    qn_gpu_upload(stream, g->orders.seqs, o->seqs, head_bytes + x.n_rows * sizeof *o->trunk);
    if (has_prompts) {
        qn_gpu_upload(stream, g->orders.given, o->given, x.n_rows * sizeof *o->given);
        qn_gpu_upload(stream, g->orders.logit_rows, o->logit_rows,
                      x.n_logits * sizeof *o->logit_rows);
    }
}

/* --------------------------------------------------------------------------------------- settle
 */

/* The accept rule, and its results on their way to the host. */
static void settle(qn_executor *e, const qn_step *step, const qn_gpu_orders *o)
{
    qn_gpu_steps *const g = e->gpu;
    if (g->status < 0) { /* nothing was drawn */
        return;
    }
    qn_gpu_step_settle(&g->glm->ops, &(qn_gpu_step_settle_args){.results = g->orders.results,
                                                                .slots = g->slots,
                                                                .seqs = g->orders.seqs,
                                                                .drawn = g->drawn,
                                                                .drafts = g->drafts,
                                                                .n_seqs = step->n_seqs,
                                                                .n_chains_max = e->n_slots});
    qn_gpu_download(g->glm->stream, o->results, g->orders.results,
                    step->n_seqs * sizeof *o->results);
}

/* ---------------------------------------------------------------------------------------- steps
 */

/* What the host knows of sequences when a step is ordered: the most that they can be. */
static void count_ordered(qn_executor *e, const qn_step *step, qn_gpu_flight *f)
{
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const qn_step_seq *const seq = &step->seqs[i];
        qn_slot *const slot = &e->slots[seq->slot];
        const uint32_t n_rows = f->orders.seqs[i].n_rows;
        slot->n_computed += n_rows;
        slot->n_steps += seq->is_prompt ? 0 : 1;
        f->seqs[i].request = seq->request;
        f->seqs[i].n_begins = slot->n_begins;
    }
}

void qn_gpu_steps_submit(qn_executor *e, const qn_step *step, qn_status status, const qn_error *err)
{
    qn_gpu_steps *const g = e->gpu;
    qn_gpu_stream *const stream = g->glm->stream;
    qn_gpu_flight *const f = &g->flights[(g->i_flight + e->n_waiting - 1) % (e->lag + 1)];
    g->status = status;
    g->error = *err;
    if (g->n_reserves != g->glm->n_reserves) { /* graphs are of another workspace */
        qn_gpu_steps_drop_graphs(g);
        g->n_reserves = g->glm->n_reserves;
    }
    f->number = step->number;
    f->n_seqs = step->n_seqs;
    prepare(e, step, f);
    if (step->n_seqs > 0) {
        order(e, step, &f->orders);
        qn_gpu_event_record(f->events[QN_FLIGHT_BEGUN], stream);
        qn_gpu_steps_draft(e, &f->orders);
        qn_gpu_event_record(f->events[QN_FLIGHT_DRAFTED], stream);
        qn_gpu_steps_trunk(e);
        settle(e, step, &f->orders);
        f->has_drafts = g->extent.depth > 0;
        count_ordered(e, step, f);
    }
    qn_gpu_event_record(f->events[QN_FLIGHT_DONE], stream); /* for results, not for what follows */
    if (step->n_seqs > 0 && e->with_mtp) {
        qn_gpu_steps_follow(e);
    }
    f->status = qn_gpu_steps_note(g);
    f->error = g->error;
    g->must_restore = f->status < 0;
    for (uint32_t i = 0; i < e->n_slots && !g->must_restore; i++) {
        e->slots[i].must_begin = false;
    }
}

/* A step that failed, alone or with all that the device held. */
static void collect_failure(qn_gpu_steps *g, const qn_error *err, qn_step_result *result)
{
    /* What was queued of it may be under way; asked twice, only what lasts is told twice. */
    const bool is_lost =
        qn_gpu_wait(g->glm->stream, NULL) < 0 && qn_gpu_check(g->glm->stream, NULL) < 0;
    if (!is_lost || !g->is_lost) { /* or each request that still comes would have a line */
        qn_log(QN_LOG_ERROR, "step %llu: %s", (unsigned long long)result->number, err->text);
    }
    g->is_lost = is_lost;
    result->outcome = is_lost ? QN_STEP_LOST : QN_STEP_FAILED;
    result->n_seqs = 0;
}

static double seconds(const qn_gpu_flight *f, uint32_t first, uint32_t last)
{
    const double s = qn_gpu_event_seconds(f->events[first], f->events[last]);
    return isnan(s) ? 0.0 : s;
}

/* The scheduler counts on what a device that computes says; one that does not fails the step. */
static qn_status check_result(const qn_executor *e, const qn_gpu_step_seq *seq,
                              const qn_gpu_step_result *r, qn_error *err)
{
    bool is_possible = r->n_accepted <= seq->n_drafts && r->n_tokens <= r->n_accepted + 1 &&
                       (r->is_failed != 0 || (r->n_tokens > 0) == (seq->is_drawing != 0));
    for (uint32_t i = 0; is_possible && i < r->n_tokens; i++) {
        is_possible = r->tokens[i] >= 0 && (uint32_t)r->tokens[i] < e->n_vocab;
    }
    if (!is_possible) {
        return qn_fail(err, QN_E_DEVICE, 0, __func__,
                       "the device says %u tokens, the first %d, and %u of %u drafts accepted, %s "
                       "below %u expected",
                       r->n_tokens, r->tokens[0], r->n_accepted, seq->n_drafts,
                       seq->is_drawing != 0 ? "1 more than accepted at most, one at least, all"
                                            : "no tokens, all",
                       e->n_vocab);
    }
    return QN_OK;
}

static void collect_seq(qn_executor *e, const qn_gpu_flight *f, uint32_t i, qn_seq_result *to)
{
    const qn_gpu_step_seq *const seq = &f->orders.seqs[i];
    const qn_gpu_step_result *const r = &f->orders.results[i];
    qn_slot *const slot = &e->slots[seq->slot];
    *to = (qn_seq_result){.request = f->seqs[i].request,
                          .n_tokens = r->is_failed ? 0 : r->n_tokens,
                          .n_accepted = r->n_accepted,
                          .n_complete = r->n_complete,
                          .is_stopped = r->is_stopped,
                          .is_failed = r->is_failed};
    memcpy(to->tokens, r->tokens, r->n_tokens * sizeof *to->tokens);
    if (slot->n_begins == f->seqs[i].n_begins && !seq->is_prompt) {
        slot->n_computed -= seq->n_rows - to->n_tokens;
    }
}

void qn_gpu_steps_collect(qn_executor *e, qn_step_result *result)
{
    qn_gpu_steps *const g = e->gpu;
    qn_gpu_flight *const f = &g->flights[g->i_flight];
    g->i_flight = (g->i_flight + 1) % (e->lag + 1);
    result->number = f->number;
    result->outcome = QN_STEP_DONE;
    result->draft_s = 0.0;
    result->verify_s = 0.0;
    result->n_seqs = f->n_seqs;
    if (f->status == QN_OK) {
        f->status = qn_gpu_event_wait(f->events[QN_FLIGHT_DONE], &f->error);
    }
    for (uint32_t i = 0; i < f->n_seqs && f->status == QN_OK; i++) {
        f->status = check_result(e, &f->orders.seqs[i], &f->orders.results[i], &f->error);
    }
    if (f->status < 0) {
        collect_failure(g, &f->error, result);
        return;
    }
    if (f->n_seqs > 0) {
        result->verify_s = seconds(f, QN_FLIGHT_DRAFTED, QN_FLIGHT_DONE);
        result->draft_s = f->has_drafts ? seconds(f, QN_FLIGHT_BEGUN, QN_FLIGHT_DRAFTED) : 0.0;
    }
    for (uint32_t i = 0; i < f->n_seqs; i++) {
        collect_seq(e, f, i, &result->seqs[i]);
    }
}

/* ---------------------------------------------------------------------------------------- views
 */

/*
 * Logits of rows of the trunk's pass, once the device is done.  The workspace has others by now,
 * where the model was used for something else.
 */
static void fetch_logits(qn_executor *e, float *to, uint32_t first_row, uint32_t n_rows)
{
    qn_gpu_glm *const glm = e->gpu->glm;
    qn_gpu_copy(glm->stream, glm->ws.hidden, e->gpu->hidden + (size_t)first_row * e->n_embd,
                (size_t)n_rows * e->n_embd * sizeof(float));
    qn_gpu_glm_head(glm, NULL, 0, n_rows);
    qn_gpu_download(glm->stream, to, glm->ws.logits, (size_t)n_rows * e->n_vocab * sizeof *to);
}

/* Whoever wanted them ends for it: no later step tells of a failure that the stream forgets. */
static bool await_logits(const qn_executor *e)
{
    qn_error err = {0};
    const bool is_there = qn_gpu_wait(e->gpu->glm->stream, &err) == QN_OK;
    if (!is_there) {
        qn_log(QN_LOG_ERROR, "logits: %s", err.text);
    }
    return is_there;
}

const float *qn_gpu_steps_read_logits(qn_executor *e, uint32_t i_seq)
{
    const qn_place *const p = &e->places[i_seq];
    if (p->n_logits == 0) {
        return NULL;
    }
    QN_ASSERT(p->n_logits <= QN_STEP_TOKENS_MAX);
    fetch_logits(e, e->logits, p->first_row + p->n_rows - p->n_logits, p->n_logits);
    return await_logits(e) ? e->logits : NULL;
}

const float *qn_gpu_steps_make_logits(qn_executor *e, uint32_t first_row, uint32_t n_rows)
{
    fetch_logits(e, e->prompt_logits, first_row, n_rows);
    return await_logits(e) ? e->prompt_logits : NULL;
}
