/* SPDX-License-Identifier: Apache-2.0 */
/* An engine that pretends: rows cost time by a table, tokens follow from the request and the
 * position, drafts are right by chance.  It executes a step when it is ordered, because steps reach
 * a device in their order; the scheduler hears of it later. */
#include "sim/sim.h"

#include <string.h>

/* Microseconds of a step: reading the weights, and each row. */
static uint64_t step_cost_us(const qn_step *step)
{
    return 4000 + 25 * (uint64_t)step->n_rows + 60 * (uint64_t)step->n_seqs;
}

static void emit(sim *s, sim_slot *slot, const qn_step_seq *seq, qn_seq_result *out)
{
    sim_request *r = slot->request;
    uint32_t n_right = 0;
    while (n_right < seq->n_drafts && sim_rng_chance(&s->engine_rng, r->acceptance)) {
        n_right++;
    }
    out->n_accepted = n_right;
    for (uint32_t i = 0; i <= n_right; i++) {
        out->tokens[out->n_tokens++] = sim_token(s, r, slot->n_ids + i);
        if (slot->n_ids + i + 1 - r->n_prompt == r->n_stop_at) {
            out->is_stopped = true;
            break;
        }
    }
    slot->n_ids += out->n_tokens;
    slot->n_computed = slot->n_ids - 1;
}

static void compute_prompt(sim *s, sim_slot *slot, const qn_step_seq *seq)
{
    sim_request *r = slot->request;
    if (seq->first != slot->n_computed) {
        sim_fail(s, "positions", "r%u: rows from position %u, %u expected", r->number, seq->first,
                 slot->n_computed);
    }
    if (seq->first + seq->n_rows > slot->n_ids) {
        sim_fail(s, "positions", "r%u: rows %u .. %u, only %u ids are known", r->number, seq->first,
                 seq->first + seq->n_rows - 1, slot->n_ids);
    }
    if (seq->is_drawing != (seq->first + seq->n_rows == slot->n_ids)) {
        sim_fail(s, "positions", "r%u: rows %u .. %u of %u ids %s a token, the last alone expected",
                 r->number, seq->first, seq->first + seq->n_rows - 1, slot->n_ids,
                 seq->is_drawing ? "draw" : "do not draw");
    }
    for (uint32_t i = 0; i < seq->n_rows; i++) {
        const uint32_t position = seq->first + i;
        sim_pages_write(s, slot, position, sim_chain(s, r, position), true);
    }
    slot->n_computed = seq->first + seq->n_rows;
}

/* Rows of the last token and of drafts.  Those right are known from what was emitted. */
static void write_verified(sim *s, sim_slot *slot, const qn_step_seq *seq, uint32_t n_ids_before,
                           uint32_t n_accepted)
{
    for (uint32_t i = 0; i < seq->n_rows; i++) {
        const uint32_t position = n_ids_before - 1 + i;
        const bool is_true = i <= n_accepted;
        const uint64_t chain =
            is_true ? sim_chain(s, slot->request, position) : sim_rng_next(&s->engine_rng);
        sim_pages_write(s, slot, position, chain, is_true);
    }
}

static void run_seq(sim *s, const qn_step_seq *seq, qn_seq_result *out)
{
    sim_slot *slot = &s->slots[seq->slot];
    sim_request *r = slot->request;
    if (r == NULL || r->id != seq->request) {
        sim_fail(s, "slots", "slot %u: rows of request %llx, another one has the slot", seq->slot,
                 (unsigned long long)seq->request);
    }
    if (seq->is_prompt == r->has_drawn) {
        sim_fail(s, "positions", "r%u: %s, %s expected", r->number,
                 seq->is_prompt ? "rows of the prompt" : "a verification",
                 r->has_drawn ? "a verification" : "rows of the prompt");
    }
    *out = (qn_seq_result){.request = seq->request};
    const uint32_t n_ids_before = slot->n_ids;
    if (seq->is_prompt) {
        compute_prompt(s, slot, seq);
    }
    if (seq->is_drawing) {
        emit(s, slot, seq, out);
        r->has_drawn = true;
    }
    if (!seq->is_prompt) {
        write_verified(s, slot, seq, n_ids_before, out->n_accepted);
    }
    const uint32_t n_behind = sim_rng_below(&s->engine_rng, s->world.mtp_lag_max + 1);
    if (slot->n_computed > slot->n_complete + n_behind) {
        slot->n_complete = slot->n_computed - n_behind;
    }
    out->n_complete = slot->n_complete;
    if (!s->is_calm && sim_rng_chance(&s->engine_rng, s->world.p_seq_fails)) {
        *out = (qn_seq_result){.request = seq->request, .is_failed = true};
        sim_tell(s, "  r%u fails on the device", r->number);
    }
}

static void make_times(sim *s, qn_step_result *result)
{
    uint32_t n_passes = 0;
    for (uint32_t i = 0; i < s->step.n_seqs; i++) {
        const uint32_t n_drafts = s->step.seqs[i].n_drafts;
        n_passes = n_drafts > n_passes ? n_drafts : n_passes;
    }
    if (s->world.has_times) {
        const double noise = 0.9 + 0.2 * sim_rng_unit(&s->engine_rng);
        result->verify_s = 1e-6 * noise * (double)step_cost_us(&s->step);
        result->draft_s = 3e-4 * noise * n_passes;
    }
}

void sim_engine_run(sim *s)
{
    const qn_step *step = &s->step;
    sim_flight *flight = &s->flights[(s->first_flight + s->n_flights++) % 2];
    qn_step_result *result = &flight->result;
    result->number = step->number;
    result->outcome = QN_STEP_DONE;
    result->draft_s = result->verify_s = 0;
    result->n_seqs = flight->n_requests = step->n_seqs;
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        run_seq(s, &step->seqs[i], &result->seqs[i]);
        sim_request *r = s->slots[step->seqs[i].slot].request;
        flight->requests[i] = r->id;
        flight->n_begun[i] = r->n_begun;
        flight->n_tokens_max[i] = step->seqs[i].is_drawing ? 1 + step->seqs[i].n_drafts : 0;
        r->n_ordered_tokens += flight->n_tokens_max[i];
    }
    make_times(s, result);
    const uint64_t start_us = s->device_us > s->now_us ? s->device_us : s->now_us;
    s->device_us = flight->ready_us = start_us + step_cost_us(step);
    if (s->is_calm) {
        return;
    }
    if (sim_rng_chance(&s->engine_rng, s->world.p_device_lost)) {
        result->outcome = QN_STEP_LOST;
        result->n_seqs = 0;
    } else if (sim_rng_chance(&s->engine_rng, s->world.p_step_fails)) {
        result->outcome = QN_STEP_FAILED;
        result->n_seqs = 0;
    }
}

/* A step that is not done ends its requests; a device that is lost ends all that run. */
static void mark_errors(sim *s, const sim_flight *flight)
{
    for (uint32_t i = 0; i < flight->n_requests; i++) {
        sim_request *r = sim_request_find(s, flight->requests[i]);
        if (r != NULL) { /* preempted ones too */
            r->due |= 1U << QN_SCHED_END_ERROR;
        }
    }
    for (uint32_t i = 0; i < s->n_live && flight->result.outcome == QN_STEP_LOST; i++) {
        if (s->live[i]->is_running) {
            s->live[i]->due |= 1U << QN_SCHED_END_ERROR;
        }
    }
}

static void mark_verified(sim *s, const sim_flight *flight)
{
    for (uint32_t i = 0; i < flight->result.n_seqs; i++) {
        const qn_seq_result *result = &flight->result.seqs[i];
        const sim_request *r = sim_request_find(s, result->request);
        if (r != NULL && r->is_running && r->n_begun == flight->n_begun[i] && !result->is_failed) {
            sim_pages_verified(s, &s->slots[r->slot], result->n_complete);
        }
    }
}

static void take(sim *s, const sim_flight *flight)
{
    uint32_t n_taken[QN_STEP_SEQS_MAX];
    s->n_calls++;
    qn_sched_take_result(n_taken, s->sched, &flight->result, s->now_us);
    for (uint32_t i = 0; i < flight->result.n_seqs; i++) {
        const qn_seq_result *result = &flight->result.seqs[i];
        s->hash = qn_rng_u64(s->hash, n_taken[i], i);
        sim_request *r = sim_request_find(s, result->request);
        if (r == NULL) {
            if (n_taken[i] != 0) {
                sim_fail(s, "tokens", "request %llx: %u tokens taken after its end, 0 expected",
                         (unsigned long long)result->request, n_taken[i]);
            }
            continue;
        }
        const bool was_preempted = !r->is_running || r->n_begun != flight->n_begun[i];
        sim_request_took(s, r, result, n_taken[i], was_preempted);
    }
}

void sim_engine_deliver(sim *s)
{
    const sim_flight *flight = &s->flights[s->first_flight];
    const qn_step_outcome outcome = flight->result.outcome;
    for (uint32_t i = 0; i < flight->n_requests; i++) {
        sim_request *r = sim_request_find(s, flight->requests[i]);
        if (r != NULL && r->is_running && r->n_begun == flight->n_begun[i]) {
            r->n_ordered_tokens -= flight->n_tokens_max[i];
        }
    }
    s->first_flight = (s->first_flight + 1) % 2;
    s->n_flights--;
    sim_request_mark_deadlines(s);
    if (outcome != QN_STEP_DONE) {
        mark_errors(s, flight);
        sim_tell(s, "step %llu: %s", (unsigned long long)flight->result.number,
                 outcome == QN_STEP_LOST ? "the device is lost" : "it failed");
        s->totals.n_failed_steps += outcome == QN_STEP_FAILED;
        s->totals.n_lost += outcome == QN_STEP_LOST;
    }
    mark_verified(s, flight);
    take(s, flight);
    sim_request_poll(s);
    sim_request_check_due(s);
    if (outcome == QN_STEP_LOST) {
        sim_pages_forget(s, true);
        if (s->n_flights > 0) { /* it was ordered from a device that is no more */
            s->flights[s->first_flight].result.outcome = QN_STEP_FAILED;
            s->flights[s->first_flight].result.n_seqs = 0;
        }
    }
}
