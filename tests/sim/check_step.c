/* SPDX-License-Identifier: Apache-2.0 */
/* Checkers of steps: their form and budget, the order of requests, the gap and starvation bounds.
 */
#include "sim/sim.h"

/* Tokens that may still be drawn. */
static uint32_t count_left(const sim *s, const sim_request *r)
{
    const uint32_t n_asked = r->max_tokens - r->n_drawn;
    const uint32_t n_room = s->cap - r->n_prompt - r->n_drawn;
    return n_asked < n_room ? n_asked : n_room;
}

static void check_seq(const sim *s, const qn_step_seq *seq)
{
    const sim_request *r = sim_request_find(s, seq->request);
    if (r == NULL || seq->slot >= s->world.limits.n_slots) {
        sim_fail(s, "slots",
                 "slot %u: rows of request %llx, a live one and a slot below %u expected",
                 seq->slot, (unsigned long long)seq->request, s->world.limits.n_slots);
    }
    const uint32_t n_drafts_max =
        r->draft_tokens < 0 ? s->world.limits.n_draft_max : (uint32_t)r->draft_tokens;
    if (seq->n_drafts > n_drafts_max || (seq->is_prompt && seq->n_drafts != 0)) {
        sim_fail(s, "budget", "r%u: %u drafts, at most %u expected", r->number, seq->n_drafts,
                 seq->is_prompt ? 0 : n_drafts_max);
    }
    const uint32_t n_left = count_left(s, r);
    if (seq->n_drafts > 0 && r->n_ordered_tokens + 1 + seq->n_drafts > n_left) {
        sim_fail(s, "budget", "r%u: %u drafts, %u tokens are outstanding and %u left", r->number,
                 seq->n_drafts, r->n_ordered_tokens, n_left);
    }
    const uint32_t n_rows_least = seq->is_prompt ? 1 : seq->n_drafts + 1;
    if (seq->n_rows < n_rows_least || (!seq->is_prompt && seq->n_rows != n_rows_least) ||
        (!seq->is_prompt && !seq->is_drawing)) {
        sim_fail(s, "budget", "r%u: %u rows with %u drafts%s, %u expected", r->number, seq->n_rows,
                 seq->n_drafts, seq->is_drawing ? "" : " that draw nothing", n_rows_least);
    }
}

void sim_step_check_form(sim *s)
{
    const qn_step *step = &s->step;
    const qn_sched_limits *limits = &s->world.limits;
    if (step->n_published > QN_STEP_PAGES_MAX || step->n_pages > QN_STEP_PAGES_MAX ||
        step->n_begins > limits->n_slots || step->n_seqs > limits->n_slots) {
        sim_fail(s, "budget",
                 "a step with %u published, %u pages, %u begins, %u sequences; at most "
                 "%u, %u and %u slots expected",
                 step->n_published, step->n_pages, step->n_begins, step->n_seqs, QN_STEP_PAGES_MAX,
                 QN_STEP_PAGES_MAX, limits->n_slots);
    }
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < limits->n_slots; i++) {
        s->seq_of_slot[i] = SIM_NONE;
    }
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        check_seq(s, &step->seqs[i]);
        if (s->seq_of_slot[step->seqs[i].slot] != SIM_NONE) {
            sim_fail(s, "slots", "slot %u: twice in a step", step->seqs[i].slot);
        }
        s->seq_of_slot[step->seqs[i].slot] = i;
        n_rows += step->seqs[i].n_rows;
    }
    if (n_rows != step->n_rows || n_rows > limits->n_step_rows) {
        sim_fail(s, "budget", "%u rows in a step that says %u, at most %u expected", n_rows,
                 step->n_rows, limits->n_step_rows);
    }
    if (step->n_seqs > 0 && step->number != s->last_number + 1) {
        sim_fail(s, "budget", "step %llu after step %llu, the next number expected",
                 (unsigned long long)step->number, (unsigned long long)s->last_number);
    }
}

bool sim_step_is_before(const sim_request *a, const sim_request *b)
{
    return a->key != b->key ? a->key < b->key : a->number < b->number;
}

static uint64_t steps_max(const sim *s, const sim_request *r, bool overtakes)
{
    return qn_sched_steps_max(&s->world.limits, r->n_prompt, r->max_tokens, overtakes);
}

void sim_step_submitted(sim *s, sim_request *r)
{
    qn_sched_state state = {0};
    QN_ASSERT(qn_sched_get_state(&state, s->sched, r->id));
    r->home = state.group;
    r->n_steps_max = steps_max(s, r, false);
    for (uint32_t i = 0; i < s->n_live; i++) {
        sim_request *other = s->live[i];
        if (sim_step_is_before(other, r)) {
            r->n_steps_max += steps_max(s, other, false);
        } else {
            other->n_steps_max += steps_max(s, r, true);
        }
    }
}

bool sim_step_may_rest(const sim *s, const sim_request *r)
{
    return r->n_ordered_tokens > 0 && (r->n_drawn + 1 >= r->max_tokens ||
                                       r->n_prompt + r->n_drawn + r->n_ordered_tokens >= s->cap);
}

static bool is_begun_now(const sim *s, const sim_request *r)
{
    for (uint32_t i = 0; i < s->step.n_begins; i++) {
        if (s->step.begins[i].request == r->id) {
            return true;
        }
    }
    return false;
}

void sim_step_sync_running(sim *s)
{
    s->n_preempted_now = 0;
    for (uint32_t i = 0; i < s->n_live; i++) {
        sim_request *r = s->live[i];
        qn_sched_state state;
        if (!qn_sched_get_state(&state, s->sched, r->id)) {
            sim_fail(s, "end", "r%u: the scheduler does not know it, its end was not told",
                     r->number);
        }
        if (state.n_ids != r->n_prompt + r->n_drawn) {
            sim_fail(s, "tokens", "r%u: %u ids by its state, %u expected", r->number, state.n_ids,
                     r->n_prompt + r->n_drawn);
        }
        const bool is_begun = is_begun_now(s, r);
        if (state.group != r->home) {
            sim_fail(s, "slots", "r%u: of group %u now, %u expected", r->number, state.group,
                     r->home);
        }
        r->was_running = r->is_running;
        if (r->is_running && (!state.is_running || is_begun)) {
            sim_tell(s, "r%u is preempted", r->number);
            sim_pages_release(s, r);
            s->n_preempted_now++;
            s->totals.n_preempted++;
        } else if (!r->is_running && state.is_running != is_begun) {
            sim_fail(s, "slots", "r%u: %s, the step %s it", r->number,
                     state.is_running ? "runs" : "waits", is_begun ? "begins" : "does not begin");
        }
    }
}

/* In each group who runs comes before who waits. */
static void check_admission(const sim *s)
{
    const sim_request *last_running[QN_PAGE_GROUPS_MAX] = {NULL};
    for (uint32_t i = 0; i < s->n_live; i++) {
        const sim_request *r = s->live[i];
        const sim_request **last = &last_running[r->home];
        if (r->is_running && (*last == NULL || sim_step_is_before(*last, r))) {
            *last = r;
        }
    }
    for (uint32_t i = 0; i < s->n_live; i++) {
        const sim_request *r = s->live[i];
        const sim_request *last = last_running[r->home];
        if (!r->is_running && last != NULL && sim_step_is_before(r, last)) {
            sim_fail(s, "order", "r%u runs, r%u of group %u that comes before it %s", last->number,
                     r->number, r->home, r->was_running ? "was preempted" : "waits");
        }
    }
}

static const qn_step_seq *find_seq(const sim *s, const sim_request *r)
{
    if (!r->is_running || s->seq_of_slot[r->slot] == SIM_NONE) {
        return NULL;
    }
    return &s->step.seqs[s->seq_of_slot[r->slot]];
}

static void check_first(const sim *s)
{
    const sim_request *first = s->live[0];
    for (uint32_t i = 1; i < s->n_live; i++) {
        first = sim_step_is_before(s->live[i], first) ? s->live[i] : first;
    }
    if (sim_step_may_rest(s, first)) {
        return;
    }
    const qn_step_seq *seq = find_seq(s, first);
    if (seq == NULL) {
        sim_fail(s, "starvation", "r%u: first of the order, it has no rows (%s)", first->number,
                 first->is_running ? "running" : "waiting");
    }
    const uint32_t n_least = qn_sched_first_rows(&s->world.limits);
    const bool is_short = seq->is_prompt && !seq->is_drawing && seq->n_rows < n_least;
    if (is_short) {
        sim_fail(s, "starvation",
                 "r%u: first of the order, %u rows of its prompt, at least %u "
                 "expected",
                 first->number, seq->n_rows, n_least);
    }
}

static void check_bounds(sim *s)
{
    for (uint32_t i = 0; i < s->n_live; i++) {
        sim_request *r = s->live[i];
        r->n_steps_waited += s->step.n_seqs > 0;
        if (r->n_steps_waited > r->n_steps_max) {
            sim_fail(s, "starvation", "r%u: not ended after %llu steps, %llu expected at most",
                     r->number, (unsigned long long)r->n_steps_waited,
                     (unsigned long long)r->n_steps_max);
        }
        if (r->is_running && r->has_drawn && !sim_step_may_rest(s, r) && find_seq(s, r) == NULL) {
            sim_fail(s, "gap", "r%u: draws tokens and has no row in a step of %u rows", r->number,
                     s->step.n_rows);
        }
    }
}

/* Whoever waits first for a group is admitted where a slot is free and the group has room for it
 * and for all that its sequences have still to compute. */
static void check_idle(const sim *s)
{
    const qn_sched_limits *limits = &s->world.limits;
    const sim_request *next[QN_PAGE_GROUPS_MAX] = {NULL};
    uint64_t n_promised[QN_PAGE_GROUPS_MAX] = {0};
    uint32_t n_running = 0;
    for (uint32_t i = 0; i < s->n_live; i++) {
        const sim_request *r = s->live[i];
        n_running += r->is_running;
        if (r->is_running) {
            n_promised[r->home] += qn_pages_for(r->n_prompt + r->n_drawn) + 2;
        } else if (next[r->home] == NULL || sim_step_is_before(r, next[r->home])) {
            next[r->home] = r;
        }
    }
    for (uint32_t group = 0; group < limits->n_groups; group++) {
        const sim_request *r = next[group];
        if (r == NULL || n_running >= limits->n_slots || s->n_preempted_now > 0) {
            continue;
        }
        if (n_promised[group] + qn_pages_for(r->n_prompt + r->n_drawn) + 2 <= limits->n_pages) {
            sim_fail(s, "idle", "r%u waits with %u of %u slots in use and pages in group %u",
                     r->number, n_running, limits->n_slots, group);
        }
    }
}

void sim_step_check_order(sim *s)
{
    if (s->n_live == 0) {
        if (s->step.n_seqs != 0) {
            sim_fail(s, "slots", "a step of %u sequences, no request is live", s->step.n_seqs);
        }
        return;
    }
    check_admission(s);
    check_first(s);
    check_bounds(s);
    check_idle(s);
}
