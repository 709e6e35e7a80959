/* SPDX-License-Identifier: Apache-2.0 */
/* Checkers of requests: the queue's bound, one end for a true reason, tokens in order. */
#include "sim/sim.h"

#include <stdlib.h>

sim_request *sim_request_find(const sim *s, qn_request_id id)
{
    const uint32_t place = qn_request_place(id);
    if (place >= s->n_places || s->by_place[place] == NULL || s->by_place[place]->id != id) {
        return NULL;
    }
    return s->by_place[place];
}

void sim_request_free(sim_request *request)
{
    free(request->ids);
    free(request->chain);
    free(request);
}

/* The queue is full where so many wait that never ran, or nothing has a place any more. */
static bool is_queue_full(const sim *s)
{
    uint32_t n_waiting = 0;
    for (uint32_t i = 0; i < s->n_live; i++) {
        n_waiting += !s->live[i]->was_admitted;
    }
    return n_waiting >= s->world.limits.n_queue || s->n_live >= s->n_places;
}

bool sim_request_submit(sim *s, sim_request *r, uint64_t session)
{
    const qn_sched_request request = {
        .ids = r->ids,
        .n_ids = r->n_prompt,
        .max_tokens = r->max_tokens,
        .draft_tokens = r->draft_tokens,
        .priority = r->priority,
        .deadline_us = r->deadline_us,
        .salt = {r->salt[0], r->salt[1]},
        .session = session,
        .needs_all_rows = r->needs_all_rows,
    };
    s->n_calls++;
    const bool is_taken = qn_sched_submit(&r->id, s->sched, &request, s->now_us);
    if (is_taken == is_queue_full(s)) {
        sim_fail(s, "queue", "submit: %s with %u live requests, queue of %u, %s expected",
                 is_taken ? "accepted" : "refused", s->n_live, s->world.limits.n_queue,
                 is_taken ? "refused" : "accepted");
    }
    if (!is_taken) {
        s->totals.n_refused++;
        sim_tell(s, "a request of %u ids is refused: the queue is full", r->n_prompt);
        return false;
    }
    const uint32_t place = qn_request_place(r->id);
    if (place >= s->n_places || s->by_place[place] != NULL) {
        sim_fail(s, "queue", "place of a request: %u, one that is free and below %u expected",
                 place, s->n_places);
    }
    r->number = (uint32_t)++s->totals.n_submitted;
    r->key = (int64_t)s->now_us - (int64_t)r->priority * QN_SCHED_PRIORITY_US;
    r->slot = r->group = SIM_NONE;
    s->by_place[place] = r;
    sim_step_submitted(s, r);
    s->live[s->n_live++] = r;
    sim_tell(s, "r%u arrives: %u ids, at most %u tokens, priority %d, drafts %d, tenant %llu%s",
             r->number, r->n_prompt, r->max_tokens, r->priority, r->draft_tokens,
             (unsigned long long)r->salt[1], r->needs_all_rows ? ", all rows" : "");
    return true;
}

/* The ids, as the scheduler leaves them, are the prompt and the tokens that were drawn. */
static void check_ids(const sim *s, sim_request *r)
{
    uint64_t chain = sim_chain_root(r);
    const uint32_t n_ids = r->n_prompt + r->n_drawn;
    for (uint32_t i = 0; i < n_ids; i++) {
        chain = qn_rng_u64(chain, (uint64_t)r->ids[i], 2);
        if (chain != sim_chain(s, r, i)) {
            sim_fail(s, "tokens", "r%u: id %u at position %u is not the one that was %s", r->number,
                     (unsigned)r->ids[i], i, i < r->n_prompt ? "sent" : "drawn there");
        }
    }
    for (uint32_t i = n_ids; i <= r->n_prompt + r->max_tokens; i++) {
        if (r->ids[i] != (int32_t)0xA5A5A5A5) {
            sim_fail(s, "tokens", "r%u: something was written at position %u behind its %u ids",
                     r->number, i, n_ids);
        }
    }
}

static void end_one(sim *s, const qn_sched_end *end)
{
    sim_request *r = sim_request_find(s, end->request);
    if (r == NULL) {
        sim_fail(s, "end",
                 "end of request %llx (%s): no such request is live, one that is expected",
                 (unsigned long long)end->request, sim_reason_name(end->reason));
    }
    if ((r->due & 1U << end->reason) == 0) {
        sim_fail(s, "end", "r%u: ended by %s with %u tokens of %u, due reasons are %#x", r->number,
                 sim_reason_name(end->reason), r->n_drawn, r->max_tokens, r->due);
    }
    sim_tell(s, "r%u ends (%s): %u ids, %u tokens", r->number, sim_reason_name(end->reason),
             r->n_prompt, r->n_drawn);
    check_ids(s, r);
    s->totals.n_ended[end->reason]++;
    s->hash = qn_rng_u64(s->hash, r->number, (uint64_t)end->reason);
    sim_pages_release(s, r);
    s->by_place[qn_request_place(r->id)] = NULL;
    for (uint32_t i = 0; i < s->n_live; i++) {
        if (s->live[i] == r) {
            s->live[i] = s->live[--s->n_live];
            break;
        }
    }
    sim_client_end(s, r, end->reason);
    sim_request_free(r);
}

void sim_request_poll(sim *s)
{
    qn_sched_end end;
    while (qn_sched_poll_end(&end, s->sched)) {
        end_one(s, &end);
    }
}

void sim_request_mark_deadlines(sim *s)
{
    for (uint32_t i = 0; i < s->n_live; i++) {
        sim_request *r = s->live[i];
        if (r->deadline_us != 0 && r->deadline_us <= s->now_us) {
            r->due |= 1U << QN_SCHED_END_DEADLINE;
        }
    }
}

void sim_request_check_due(const sim *s)
{
    for (uint32_t i = 0; i < s->n_live; i++) {
        const sim_request *r = s->live[i];
        if (r->due != 0) {
            sim_fail(s, "end", "r%u: still there, its end expected: reasons %#x", r->number,
                     r->due);
        }
    }
}

void sim_request_end(sim *s, sim_request *r, qn_sched_end_reason reason)
{
    r->due = 1U << reason;
    s->n_calls++;
    const qn_request_id id = r->id;
    if (reason == QN_SCHED_END_CANCEL) {
        qn_sched_cancel(s->sched, id);
    } else {
        qn_sched_end_request(s->sched, id, reason);
    }
    sim_request_poll(s);
    if (sim_request_find(s, id) != NULL) {
        sim_fail(s, "end", "r%u: still there after the call that ends it", r->number);
    }
}

void sim_request_took(sim *s, sim_request *r, const qn_seq_result *result, uint32_t n_taken,
                      bool was_preempted)
{
    const uint32_t n_left = r->max_tokens - r->n_drawn;
    const uint32_t n_room = s->cap - r->n_prompt - r->n_drawn;
    uint32_t n_expected = result->is_failed ? 0 : result->n_tokens;
    n_expected = n_expected < n_left ? n_expected : n_left;
    n_expected = n_expected < n_room ? n_expected : n_room;
    /* What was preempted draws them again. */
    n_expected = was_preempted ? 0 : n_expected;
    if (n_taken != n_expected) {
        sim_fail(s, "tokens", "r%u: %u tokens taken of %u drawn, %u expected", r->number, n_taken,
                 result->n_tokens, n_expected);
    }
    r->n_drawn += n_taken;
    s->totals.n_tokens += n_taken;
    for (uint32_t i = r->n_prompt + r->n_drawn - n_taken; i < r->n_prompt + r->n_drawn; i++) {
        if (r->ids[i] != sim_token(s, r, i)) {
            sim_fail(s, "tokens", "r%u: token %d at position %u, %d expected", r->number, r->ids[i],
                     i, sim_token(s, r, i));
        }
    }
    if (result->is_failed && !was_preempted) {
        r->due |= 1U << QN_SCHED_END_ERROR;
    }
    if (result->is_stopped && n_taken == result->n_tokens && n_taken > 0) {
        r->due |= 1U << QN_SCHED_END_STOP;
    }
    if (r->n_drawn == r->max_tokens || r->n_prompt + r->n_drawn == s->cap) {
        r->due |= 1U << QN_SCHED_END_LENGTH;
    }
    if (n_taken > 0) {
        sim_client_tokens(s, r, n_taken);
    }
}
