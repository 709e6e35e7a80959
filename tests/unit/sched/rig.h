/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rig.h  A scheduler with an executor that has no model: it writes down in each page which
 * tokens it holds, and finds every step that a real one could not execute.
 */
#ifndef QN_TEST_SCHED_RIG_H
#define QN_TEST_SCHED_RIG_H
#include "base/rng.h"
#include "sched/internal.h"
#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RIG_REQUESTS_MAX = 512, RIG_PAGES_MAX = 2048, RIG_SLOTS_MAX = 64, RIG_TABLE_MAX = 512 };

/* A request as the caller has it. */
typedef struct rig_request {
    qn_request_id id; /* 0: none */
    qn_sched_request asked;
    uint32_t n_ids;  /* prompt and tokens told of */
    uint64_t stream; /* answers with tokens of this stream */
    uint32_t n_stop; /* the token of this number ends it; 0: none does */
    uint32_t n_ends; /* polled */
    qn_sched_end_reason reason;
} rig_request;

/* A slot as the executor has it. */
typedef struct rig_slot {
    qn_request_id request;
    uint32_t n_ids; /* that it knows */
    qn_page_id table[RIG_TABLE_MAX];
    uint32_t n_table;
} rig_slot;

typedef struct rig {
    qn_sched_limits limits;
    void *memory;
    qn_sched *sched;
    qn_step *step; /* the last one */
    qn_step_result *results[2];
    uint32_t n_results;
    rig_request requests[RIG_REQUESTS_MAX]; /* by place */
    rig_slot slots[RIG_SLOTS_MAX];
    int32_t pages[QN_PAGE_TOKENS * RIG_PAGES_MAX]; /* tokens; of all groups */
    bool is_frozen[RIG_PAGES_MAX];                 /* published and not given away since */
    uint64_t now_us;
    uint64_t seed;
    uint32_t n_right;     /* drafts that are right, in each step; UINT32_MAX: by chance */
    double row_s;         /* time of the trunk's row; 0: nothing is measured */
    uint64_t failing;     /* number of the step that fails; 0: none */
    qn_step_outcome with; /* ... in this way */
    bool is_lost;         /* the pages are lost and the scheduler was not told yet */
} rig;

static rig *rig_open(qn_sched_limits limits)
{
    rig *const r = calloc(1, sizeof *r);
    assert_non_null(r);
    assert_true(limits.n_slots <= RIG_SLOTS_MAX);
    assert_true(limits.n_pages * limits.n_groups <= RIG_PAGES_MAX);
    assert_true(limits.n_slots + limits.n_queue <= RIG_REQUESTS_MAX);
    r->limits = limits;
    const size_t n_bytes = (qn_sched_bytes(&limits) + 63) / 64 * 64;
    r->memory = aligned_alloc(64, n_bytes);
    assert_non_null(r->memory);
    memset(r->memory, 0xA5, n_bytes); /* what it held before does not matter */
    r->sched = qn_sched_init(r->memory, &limits);
    r->step = malloc(sizeof *r->step);
    for (int i = 0; i < 2; i++) {
        r->results[i] = malloc(sizeof *r->results[i]);
        assert_non_null(r->results[i]);
    }
    r->n_right = UINT32_MAX;
    return r;
}

static void rig_close(rig *r)
{
    for (uint32_t i = 0; i < RIG_REQUESTS_MAX; i++) {
        if (r->requests[i].id != 0) {
            free(r->requests[i].asked.ids);
        }
    }
    free(r->results[0]);
    free(r->results[1]);
    free(r->step);
    free(r->memory);
    free(r);
}

static int32_t rig_token(uint64_t stream, uint32_t position)
{
    return (int32_t)(qn_rng_u64(stream, 1, position) % 1000);
}

/* Submit what is asked; its ids are made: token i of stream prompt. */
static rig_request *rig_submit_as(rig *r, qn_sched_request asked, uint64_t prompt)
{
    asked.ids = malloc(((size_t)asked.n_ids + asked.max_tokens) * sizeof *asked.ids);
    assert_non_null(asked.ids);
    for (uint32_t i = 0; i < asked.n_ids; i++) {
        asked.ids[i] = rig_token(prompt, i);
    }
    qn_request_id id = 0;
    if (!qn_sched_submit(&id, r->sched, &asked, r->now_us)) {
        free(asked.ids);
        return NULL;
    }
    assert_true(id != 0);
    assert_true(qn_request_place(id) < r->limits.n_slots + r->limits.n_queue);
    rig_request *const request = &r->requests[qn_request_place(id)];
    assert_true(request->id == 0 || (request->n_ends == 1 && request->id != id));
    if (request->id != 0) {
        free(request->asked.ids);
    }
    *request = (rig_request){.id = id, .asked = asked, .n_ids = asked.n_ids, .stream = prompt};
    return request;
}

static inline rig_request *rig_submit(rig *r, uint64_t prompt, uint32_t n_ids, uint32_t max_tokens)
{
    return rig_submit_as(r, (qn_sched_request){.n_ids = n_ids, .max_tokens = max_tokens}, prompt);
}

static uint32_t rig_page_at(const rig *r, qn_page_id page)
{
    assert_true(qn_page_group(page) < r->limits.n_groups);
    assert_true(qn_page_index(page) < r->limits.n_pages);
    return qn_page_group(page) * r->limits.n_pages + qn_page_index(page);
}

/* The token of a request at a position that the executor knows. */
static int32_t rig_id_at(const rig_request *request, uint32_t position)
{
    return position < request->asked.n_ids ? request->asked.ids[position]
                                           : rig_token(request->stream, position);
}

static void rig_take_pages(rig *r)
{
    const qn_step *const step = r->step;
    for (uint32_t i = 0; i < step->n_published; i++) {
        r->is_frozen[rig_page_at(r, step->published[i])] = true;
    }
    for (uint32_t i = 0; i < step->n_begins; i++) {
        const qn_step_begin *const begin = &step->begins[i];
        assert_true(begin->slot < r->limits.n_slots);
        rig_slot *const slot = &r->slots[begin->slot];
        slot->request = begin->request;
        slot->n_ids = begin->n_cached;
        slot->n_table = 0;
        assert_int_equal(begin->n_cached % QN_PAGE_TOKENS, 0);
    }
    for (uint32_t i = 0; i < step->n_pages; i++) {
        const qn_step_page *const entry = &step->pages[i];
        rig_slot *const slot = &r->slots[entry->slot];
        const rig_request *const request = &r->requests[qn_request_place(slot->request)];
        const uint32_t at = rig_page_at(r, entry->page);
        assert_true(request->id == slot->request);
        assert_true(entry->i_page <= slot->n_table);
        assert_true(entry->is_shared || entry->i_page == slot->n_table);
        slot->table[entry->i_page] = entry->page;
        slot->n_table += entry->i_page == slot->n_table;
        if (!entry->is_shared) {
            r->is_frozen[at] = false;
            memset(&r->pages[(size_t)at * QN_PAGE_TOKENS], 0xFF, QN_PAGE_TOKENS * sizeof *r->pages);
            continue;
        }
        if (r->is_lost) {
            continue;
        }
        assert_true(r->is_frozen[at]);
        for (uint32_t k = 0; k < QN_PAGE_TOKENS; k++) {
            assert_int_equal(r->pages[at * QN_PAGE_TOKENS + k],
                             rig_id_at(request, entry->i_page * QN_PAGE_TOKENS + k));
        }
    }
}

/* What its rows look at is there: pages that others got meanwhile would show. */
static void rig_read_pages(const rig *r, const rig_slot *slot, const rig_request *request,
                           uint32_t n_positions)
{
    for (uint32_t i = 0; i < n_positions && !r->is_lost; i++) {
        const uint32_t at = rig_page_at(r, slot->table[i / QN_PAGE_TOKENS]);
        assert_int_equal(r->pages[at * QN_PAGE_TOKENS + i % QN_PAGE_TOKENS], rig_id_at(request, i));
    }
}

/* A row of a slot: it may not touch what was published. */
static void rig_write_row(rig *r, const rig_slot *slot, uint32_t position, int32_t token)
{
    assert_true(position < r->limits.n_context);
    assert_true(position / QN_PAGE_TOKENS < slot->n_table);
    const uint32_t at = rig_page_at(r, slot->table[position / QN_PAGE_TOKENS]);
    assert_false(r->is_frozen[at]);
    r->pages[at * QN_PAGE_TOKENS + position % QN_PAGE_TOKENS] = token;
}

static void rig_run_seq(rig *r, const qn_step_seq *seq, qn_seq_result *result)
{
    rig_slot *const slot = &r->slots[seq->slot];
    const rig_request *const request = &r->requests[qn_request_place(seq->request)];
    *result = (qn_seq_result){.request = seq->request};
    assert_true(slot->request == seq->request);
    rig_read_pages(r, slot, request, seq->is_prompt ? slot->n_ids : slot->n_ids - 1);
    if (seq->is_prompt) {
        assert_int_equal(seq->first, slot->n_ids);
        for (uint32_t i = 0; i < seq->n_rows; i++) {
            rig_write_row(r, slot, seq->first + i, rig_id_at(request, seq->first + i));
        }
        slot->n_ids += seq->n_rows;
        result->n_complete = slot->n_ids;
    } else {
        uint32_t n = 0;
        while (n < seq->n_drafts &&
               (r->n_right == UINT32_MAX
                    ? qn_rng_unit(r->seed, slot->n_ids, r->step->number + n) < .6
                    : n < r->n_right)) {
            n++;
        }
        result->n_accepted = n;
        for (uint32_t i = 0; i < seq->n_rows; i++) {
            const uint32_t position = slot->n_ids - 1 + i;
            rig_write_row(r, slot, position, i <= n ? rig_id_at(request, position) : -2);
        }
    }
    for (uint32_t i = 0; seq->is_drawing && i <= result->n_accepted && !result->is_stopped; i++) {
        result->tokens[i] = rig_id_at(request, slot->n_ids++);
        result->n_tokens++;
        result->is_stopped =
            request->n_stop != 0 && slot->n_ids == request->asked.n_ids + request->n_stop;
    }
    result->n_complete = seq->is_drawing ? slot->n_ids - 1 : slot->n_ids;
}

/* Execute the step. */
static void rig_run(rig *r)
{
    const qn_step *const step = r->step;
    bool has_rows[RIG_SLOTS_MAX] = {false};
    uint32_t n_rows = 0;
    uint32_t n_drafts = 0;
    rig_take_pages(r);
    if (step->n_seqs == 0) {
        return;
    }
    assert_true(r->n_results < 2);
    qn_step_result *const result = r->results[r->n_results++];
    *result = (qn_step_result){.number = step->number};
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const qn_step_seq *const seq = &step->seqs[i];
        assert_false(has_rows[seq->slot]);
        assert_true(seq->n_rows > 0);
        has_rows[seq->slot] = true;
        rig_run_seq(r, seq, &result->seqs[i]);
        n_rows += seq->n_rows;
        n_drafts += seq->n_drafts;
    }
    assert_int_equal(n_rows, step->n_rows);
    assert_true(n_rows <= r->limits.n_step_rows);
    result->n_seqs = step->n_seqs;
    result->verify_s = n_rows * r->row_s;
    result->draft_s = n_drafts * r->row_s / 20;
    if (r->failing == step->number) {
        result->outcome = r->with;
        result->n_seqs = 0;
        r->is_lost = r->with == QN_STEP_LOST;
    }
}

static void rig_plan(rig *r)
{
    qn_sched_plan(r->step, r->sched, r->now_us);
    rig_run(r);
}

static void rig_poll(rig *r)
{
    qn_sched_end end;
    while (qn_sched_poll_end(&end, r->sched)) {
        rig_request *const request = &r->requests[qn_request_place(end.request)];
        assert_true(request->id == end.request);
        assert_int_equal(request->n_ends, 0);
        request->n_ends = 1;
        request->reason = end.reason;
    }
}

/* Take the oldest result. */
static void rig_take(rig *r)
{
    uint32_t n_taken[RIG_SLOTS_MAX];
    assert_true(r->n_results > 0);
    qn_step_result *const result = r->results[0];
    if (result->outcome == QN_STEP_LOST) {
        r->is_lost = false;
        memset(r->is_frozen, 0, sizeof r->is_frozen);
    }
    qn_sched_take_result(n_taken, r->sched, result, r->now_us);
    for (uint32_t i = 0; i < result->n_seqs; i++) {
        rig_request *const request = &r->requests[qn_request_place(result->seqs[i].request)];
        for (uint32_t k = 0; k < n_taken[i]; k++) {
            assert_true(request->id == result->seqs[i].request);
            assert_int_equal(request->n_ends, 0);
            assert_int_equal(request->asked.ids[request->n_ids], result->seqs[i].tokens[k]);
            assert_int_equal(result->seqs[i].tokens[k], rig_id_at(request, request->n_ids));
            request->n_ids++;
        }
    }
    r->results[0] = r->results[1];
    r->results[1] = result;
    r->n_results--;
    rig_poll(r);
}

/* Every page is somewhere. */
static void rig_check_pages(const rig *r)
{
    const qn_sched_counts counts = qn_sched_count(r->sched);
    assert_int_equal(counts.n_free + counts.n_referenced + counts.n_cached,
                     r->limits.n_pages * r->limits.n_groups);
}

/* One step, and the result that is due.  Returns whether there was anything to do. */
static bool rig_step(rig *r)
{
    rig_plan(r);
    const bool has_rows = r->step->n_seqs > 0;
    while (r->n_results > (has_rows ? r->limits.lag : 0)) {
        rig_take(r);
    }
    rig_poll(r);
    rig_check_pages(r);
    return has_rows;
}

/* Until nothing is left to do. */
static void rig_finish(rig *r)
{
    for (uint32_t n = 0; n < 100000; n++) {
        const qn_sched_counts counts = qn_sched_count(r->sched);
        if (counts.n_running + counts.n_waiting == 0 && r->n_results == 0) {
            return;
        }
        (void)rig_step(r);
    }
    fail_msg("requests are left after 100,000 steps");
}

/* Positions of ids that the tree of the first group holds now. */
static inline uint32_t rig_match(const rig *r, const rig_request *request, uint32_t n_ids)
{
    const qn_prefix_hint none = {0};
    const qn_prefix_tree *const tree = &r->sched->groups[0].pages.tree;
    return QN_PAGE_TOKENS *
           qn_prefix_tree_match(tree, request->asked.ids, n_ids, request->asked.salt, none).n_pages;
}

/* Entries of the last step by which pages of running sequences were exchanged. */
static inline uint32_t rig_exchanges(const rig *r)
{
    bool is_new[RIG_SLOTS_MAX] = {false};
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->step->n_begins; i++) {
        is_new[r->step->begins[i].slot] = true;
    }
    for (uint32_t i = 0; i < r->step->n_pages; i++) {
        n += r->step->pages[i].is_shared && !is_new[r->step->pages[i].slot];
    }
    return n;
}

/* Rows of a request in the last step. */
static inline uint32_t rig_rows(const rig *r, const rig_request *request)
{
    for (uint32_t i = 0; i < r->step->n_seqs; i++) {
        if (r->step->seqs[i].request == request->id) {
            return r->step->seqs[i].n_rows;
        }
    }
    return 0;
}
#endif
