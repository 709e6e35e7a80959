/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/sched/rig.h"

static const qn_sched_limits small = {
    .n_groups = 1,
    .n_pages = 64,
    .n_slots = 8,
    .n_queue = 16,
    .n_step_rows = 200,
    .n_context = 2048,
    .n_draft_max = 8,
    .hash_seed = 7,
    .has_prefix_tree = true,
};

/* A whole number below n. */
static uint32_t draw(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t n)
{
    return (uint32_t)(qn_rng_u64(seed, stream, counter) % n);
}

/* Anything at any time: every step can be executed, every request ends once. */
static void run_soak(uint64_t seed)
{
    qn_sched_limits limits = small;
    limits.n_groups = 1 + (uint32_t)seed % 3;
    limits.lag = (uint32_t)seed / 3 % 2;
    limits.n_pages = 12 + (uint32_t)seed % 40;
    limits.has_prefix_tree = seed % 7 != 0;
    limits.n_step_rows = limits.n_slots + QN_PAGE_TOKENS + draw(seed, 1, 0, 200);
    rig *const r = rig_open(limits);
    r->seed = seed;
    r->row_s = 1e-3;
    const uint32_t n_ids_max = limits.n_pages * QN_PAGE_TOKENS;
    uint64_t n = 0;
    for (uint32_t i = 0; i < 400; i++) {
        r->now_us += 1000;
        for (uint32_t k = draw(seed, 2, i, 3); k > 0; k--) {
            n++;
            const uint32_t n_ids = 1 + draw(seed, 3, n, (n_ids_max / 2));
            const qn_sched_request asked = {
                .n_ids = n_ids,
                .max_tokens = 1 + draw(seed, 4, n, 300),
                .draft_tokens = draw(seed, 5, n, 3) == 0 ? QN_DRAFT_AUTO : (int)draw(seed, 5, n, 9),
                .priority = (int32_t)draw(seed, 6, n, 3) - 1,
                .deadline_us = draw(seed, 7, n, 10) == 0 ? r->now_us + 20000 : 0,
                .salt = {draw(seed, 8, n, 2)},
                .session = draw(seed, 9, n, 4),
                .needs_all_rows = draw(seed, 10, n, 9) == 0,
            };
            rig_request *const request = rig_submit_as(r, asked, draw(seed, 11, n, 3));
            if (request != NULL) {
                request->n_stop = draw(seed, 12, n, 200);
            }
        }
        if (draw(seed, 13, i, 10) == 0) {
            const uint64_t place = draw(seed, 14, i, limits.n_slots + limits.n_queue);
            qn_sched_cancel(r->sched, r->requests[place].id);
        }
        if (draw(seed, 15, i, 100) == 0) {
            qn_sched_flush(r->sched);
        }
        if (draw(seed, 16, i, 50) == 0) {
            r->failing = r->step->number + 2;
            r->with = draw(seed, 17, i, 2) == 0 ? QN_STEP_FAILED : QN_STEP_LOST;
        }
        (void)rig_step(r);
    }
    rig_finish(r);
    assert_int_equal(qn_sched_count(r->sched).n_referenced, 0);
    for (uint32_t i = 0; i < RIG_REQUESTS_MAX; i++) {
        assert_int_equal(r->requests[i].n_ends, r->requests[i].id != 0);
    }
    rig_close(r);
}

static void test_anything_goes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        run_soak(seed);
    }
}

/* ------------------------------------------------------------------------------------ order -- */

static void test_requests_start_in_order_of_arrival_and_priority(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_slots = 1;
    rig *const r = rig_open(limits);
    r->now_us = 1000 * (uint64_t)QN_SCHED_PRIORITY_US;
    qn_sched_request asked = {.n_ids = 10, .max_tokens = 5};
    rig_request *const first = rig_submit_as(r, asked, 1);
    rig_request *const second = rig_submit_as(r, asked, 2);
    r->now_us += QN_SCHED_PRIORITY_US - 1; /* a step of priority is worth more than that */
    asked.priority = 1;
    rig_request *const urgent = rig_submit_as(r, asked, 3);
    r->now_us += 2;
    rig_request *const late = rig_submit_as(r, asked, 4);
    rig_request *const expected[] = {urgent, first, second, late};
    for (uint32_t i = 0; i < 4; i++) {
        (void)rig_step(r);
        assert_true(rig_rows(r, expected[i]) > 0);
        for (uint32_t k = i + 1; k < 4; k++) {
            assert_int_equal(expected[k]->n_ends, 0);
        }
        while (expected[i]->n_ends == 0) {
            (void)rig_step(r);
        }
    }
    assert_int_equal(qn_sched_count(r->sched).n_preempted, 0);
    rig_close(r);
}

static void test_the_last_makes_room_for_an_earlier_one(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_slots = 2;
    rig *const r = rig_open(limits);
    rig_request *const first = rig_submit(r, 1, 100, 50);
    r->now_us++;
    rig_request *const second = rig_submit(r, 2, 100, 50);
    for (uint32_t i = 0; i < 5; i++) {
        (void)rig_step(r);
    }
    const qn_sched_request asked = {.n_ids = 100, .max_tokens = 5, .priority = 1};
    rig_request *const urgent = rig_submit_as(r, asked, 3);
    (void)rig_step(r);
    assert_true(rig_rows(r, urgent) > 0);
    assert_true(rig_rows(r, first) > 0);
    assert_int_equal(rig_rows(r, second), 0);
    /* One page of it is full and will be found again. */
    assert_int_equal(qn_sched_load(r->sched, 0), second->n_ids - 64 + 2);
    qn_sched_state of_second;
    assert_true(qn_sched_get_state(&of_second, r->sched, second->id));
    assert_false(of_second.is_running);
    rig_finish(r);
    assert_int_equal(second->n_ids, 150);
    assert_int_equal(qn_sched_count(r->sched).n_preempted, 1);
    rig_close(r);
}

/* What shares nothing has all of it to compute again, and that is what it weighs. */
static void test_a_preempted_request_that_shares_nothing_weighs_its_ids(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_slots = 1;
    rig *const r = rig_open(limits);
    qn_sched_request asked = {.n_ids = 100, .max_tokens = 50, .needs_all_rows = true};
    rig_request *const patient = rig_submit_as(r, asked, 1);
    (void)rig_step(r);
    asked = (qn_sched_request){.n_ids = 10, .max_tokens = 5, .priority = 1};
    rig_request *const urgent = rig_submit_as(r, asked, 2);
    (void)rig_step(r);
    assert_true(rig_rows(r, urgent) > 0);
    assert_int_equal(qn_sched_load(r->sched, 0), patient->n_ids + 1);
    rig_close(r);
}

/* More answers than there are pages for: the first is never disturbed, all end. */
static void test_page_shortage_preempts_the_last(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_pages = 10;
    rig *const r = rig_open(limits);
    rig_request *requests[6];
    for (uint32_t i = 0; i < 6; i++) {
        r->now_us++;
        requests[i] = rig_submit(r, i, 100, 400);
    }
    while (requests[0]->n_ends == 0) {
        (void)rig_step(r);
        assert_true(requests[0]->n_ends == 1 || rig_rows(r, requests[0]) > 0);
    }
    rig_finish(r);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(requests[i]->reason, QN_SCHED_END_LENGTH);
        assert_int_equal(requests[i]->n_ids, 500);
    }
    assert_true(qn_sched_count(r->sched).n_preempted > 0);
    rig_close(r);
}

/* The worst case: a prompt that shares nothing loses its only slot again and again, each time just
   before it ends.  The bound holds, and is not far from what happens. */
static void test_starvation_comes_near_its_bound_and_no_further(void **state)
{
    (void)state;
    enum { N_IDS = 1280, N_OVERTAKERS = 50 };
    qn_sched_limits limits = small;
    limits.n_slots = 1;
    limits.n_step_rows = 65;
    limits.n_context = N_IDS + 2;
    rig *const r = rig_open(limits);
    const qn_sched_request patient = {
        .n_ids = N_IDS, .max_tokens = 1, .priority = -1, .needs_all_rows = true};
    const qn_sched_request urgent = {.n_ids = 1, .max_tokens = 1, .priority = 100};
    rig_request *const last = rig_submit_as(r, patient, 1);
    uint64_t n_steps_max = qn_sched_steps_max(&limits, N_IDS, 1, false);
    uint64_t n_steps = 0;
    for (uint32_t n = 0; last->n_ends == 0;) {
        uint32_t n_lacking = N_IDS;
        while (n_lacking > 65 && last->n_ends == 0) { /* until the next step would end it */
            n_steps += rig_step(r);
            n_lacking -= rig_rows(r, last);
        }
        if (n < N_OVERTAKERS) {
            assert_non_null(rig_submit_as(r, urgent, 2 + n++));
            n_steps_max += qn_sched_steps_max(&limits, 1, 1, true);
        }
        if (last->n_ends == 0) {
            n_steps += rig_step(r);
        }
    }
    assert_int_equal(qn_sched_count(r->sched).n_preempted, N_OVERTAKERS);
    assert_in_range(n_steps, n_steps_max * 4 / 5, n_steps_max);
    rig_close(r);
}

/* --------------------------------------------------------------------------------- prefixes -- */

static void test_a_prompt_shares_pages_and_computes_one_row(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    (void)rig_submit(r, 1, 192, 1);
    rig_finish(r);
    rig_request *const again = rig_submit(r, 1, 192, 1);
    assert_int_equal(rig_match(r, again, 192), 192);
    (void)rig_step(r);
    assert_int_equal(r->step->begins[0].n_cached, 128);
    assert_int_equal(r->step->seqs[0].first, 128);
    rig_request *const longer = rig_submit(r, 1, 193, 1);
    (void)rig_step(r);
    assert_int_equal(rig_rows(r, longer), 1);
    const qn_sched_counts counts = qn_sched_count(r->sched);
    assert_int_equal(counts.n_hit_tokens, 128 + 192);
    assert_int_equal(counts.n_queried_tokens, 192 + 192 + 193);
    rig_close(r);
}

static void test_salts_and_whole_prompts_share_nothing(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    qn_sched_request asked = {.n_ids = 193, .max_tokens = 1, .salt = {1, 2}};
    (void)rig_submit_as(r, asked, 1);
    rig_finish(r);
    asked.salt[1] = 3;
    (void)rig_submit_as(r, asked, 1);
    (void)rig_step(r);
    assert_int_equal(r->step->begins[0].n_cached, 0);
    asked.salt[1] = 2;
    asked.needs_all_rows = true;
    (void)rig_submit_as(r, asked, 1);
    (void)rig_step(r);
    assert_int_equal(r->step->begins[0].n_cached, 0);
    asked.needs_all_rows = false;
    (void)rig_submit_as(r, asked, 1);
    (void)rig_step(r);
    assert_int_equal(r->step->begins[0].n_cached, 192);
    rig_close(r);
}

/* An answer is a prefix of the next turn; what was cut from it is not. */
static void test_answers_are_published(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    const qn_sched_request asked = {.n_ids = 60, .max_tokens = 70, .draft_tokens = 8};
    rig_request *const request = rig_submit_as(r, asked, 1);
    rig_finish(r);
    assert_int_equal(request->n_ids, 130);
    assert_int_equal(rig_match(r, request, 130), 128);
    rig_close(r);
}

/* Pages without all that they must carry stay private, whatever was computed. */
static void test_incomplete_pages_are_not_published(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    rig_request *const request = rig_submit(r, 1, 190, 40);
    rig_plan(r);
    r->results[0]->seqs[0].n_complete = 127;
    rig_take(r);
    assert_int_equal(rig_match(r, request, 190), 64);
    (void)rig_step(r);
    assert_int_equal(rig_match(r, request, 190), 128);
    rig_close(r);
}

/* More pages are found to be equal than a step can exchange: the others wait for the next result.
 */
static void test_exchanges_beyond_a_steps_room_wait(void **state)
{
    (void)state;
    enum { N_TWINS = 64, N_PAGES = 17, N_EXCHANGES = (N_TWINS - 1) * N_PAGES, N_ROOM = 1024 };
    qn_sched_limits limits = small;
    limits.n_slots = N_TWINS;
    limits.n_queue = N_TWINS;
    limits.n_pages = N_TWINS * (N_PAGES + 1);
    limits.n_step_rows = 4096;
    rig *const r = rig_open(limits);
    rig_request *twins[N_TWINS];
    for (uint32_t i = 0; i < N_TWINS; i++) {
        twins[i] = rig_submit(r, 1, N_PAGES * QN_PAGE_TOKENS, 100);
    }
    while (twins[N_TWINS - 1]->n_ids == N_PAGES * QN_PAGE_TOKENS) {
        rig_plan(r);
        assert_int_equal(rig_exchanges(r), 0);
        for (uint32_t i = 0; i < r->step->n_seqs; i++) {
            r->results[0]->seqs[i].n_complete = 0;
        }
        rig_take(r);
    }
    (void)rig_step(r); /* its result tells of all pages */
    rig_plan(r);
    assert_int_equal(rig_exchanges(r), N_ROOM);
    rig_take(r);
    rig_plan(r);
    assert_int_equal(rig_exchanges(r), N_EXCHANGES - N_ROOM);
    rig_take(r);
    rig_finish(r);
    rig_close(r);
}

/* What has an exchanged page, loses its slot and gets one again before the executor heard of the
   exchange: it begins with that page, and the exchange is void. */
static void test_an_exchange_is_void_after_a_preemption(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_slots = 3;
    limits.n_pages = 6;
    limits.n_step_rows = 300;
    rig *const r = rig_open(limits);
    rig_request *const first = rig_submit(r, 1, 130, 20);
    rig_request *const twin = rig_submit(r, 1, 130, 20);
    (void)rig_step(r); /* the twin has two pages of the first now */
    assert_int_equal(qn_sched_count(r->sched).n_free, 2);
    /* With a page to draw into the urgent one lacks a page, so the twin gives way; it takes two,
       and the twin fits again. */
    const qn_sched_request asked = {.n_ids = 128, .max_tokens = 1, .priority = 1};
    rig_request *const urgent = rig_submit_as(r, asked, 2);
    (void)rig_step(r);
    assert_int_equal(qn_sched_count(r->sched).n_preempted, 1);
    assert_int_equal(r->step->n_begins, 2);
    assert_true(rig_rows(r, urgent) > 0 && rig_rows(r, twin) > 0 && rig_rows(r, first) > 0);
    assert_int_equal(rig_exchanges(r), 0);
    rig_finish(r);
    assert_int_equal(twin->n_ids, 150);
    rig_close(r);
}

/* Page tables of a million tokens: as many are begun in a step as it has entries for. */
static void test_admissions_keep_to_a_steps_entries(void **state)
{
    (void)state;
    enum { N_IDS = QN_SCHED_CONTEXT_MAX - QN_PAGE_TOKENS, N_TIMES = 3 };
    const qn_sched_limits limits = {.n_groups = 1,
                                    .n_pages = 40000,
                                    .n_slots = 4,
                                    .n_queue = 16,
                                    .n_step_rows = QN_STEP_ROWS_MAX,
                                    .n_context = QN_SCHED_CONTEXT_MAX,
                                    .has_prefix_tree = true};
    void *const memory = aligned_alloc(64, (qn_sched_bytes(&limits) + 63) / 64 * 64);
    qn_step *const step = malloc(sizeof *step);
    qn_step_result *const result = calloc(1, sizeof *result);
    int32_t *const ids = calloc(N_IDS + 2, sizeof *ids);
    assert_true(memory != NULL && step != NULL && result != NULL && ids != NULL);
    qn_sched *const sched = qn_sched_init(memory, &limits);
    const qn_sched_request asked = {.ids = ids, .n_ids = N_IDS, .max_tokens = 2};
    uint32_t n_taken[4];
    qn_sched_end end;
    for (uint32_t k = 0; k < N_TIMES; k++) { /* the first fills the tree, two find all of it */
        qn_request_id id;
        assert_true(qn_sched_submit(&id, sched, &asked, k));
        if (k == 1) {
            continue;
        }
        uint32_t n_begun = 0;
        do {
            qn_sched_plan(step, sched, 5);
            assert_in_range(step->n_pages, 1, QN_STEP_PAGES_MAX);
            assert_in_range(step->n_begins, 0, 1);
            n_begun += step->n_begins;
            result->number = step->number;
            result->n_seqs = step->n_seqs;
            for (uint32_t i = 0; i < step->n_seqs; i++) {
                const qn_step_seq *const seq = &step->seqs[i];
                result->seqs[i] =
                    (qn_seq_result){.request = seq->request,
                                    .n_tokens = seq->is_drawing,
                                    .n_complete = seq->is_prompt ? seq->first + seq->n_rows : 0,
                                    .is_stopped = k == 0 && seq->is_drawing};
            }
            qn_sched_take_result(n_taken, sched, result, 6);
        } while (k == 0 ? !qn_sched_poll_end(&end, sched) : n_begun < 2);
    }
    free(ids);
    free(result);
    free(step);
    free(memory);
}

static void test_flush_forgets_and_running_ones_go_on(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    rig_request *const request = rig_submit(r, 1, 190, 100);
    (void)rig_step(r);
    qn_sched_flush(r->sched);
    assert_int_equal(rig_match(r, request, 190), 0);
    rig_finish(r);
    assert_int_equal(request->n_ids, 290);
    assert_int_equal(qn_sched_count(r->sched).n_cached, 0);
    (void)rig_submit(r, 1, 190, 1);
    rig_finish(r);
    assert_int_equal(qn_sched_count(r->sched).n_cached, 2);
    rig_close(r);
}

/* ------------------------------------------------------------------------------------- rows -- */

static void test_a_long_prompt_stalls_nobody(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    rig_request *const stream = rig_submit(r, 1, 10, 60);
    (void)rig_step(r);
    rig_request *const prompt = rig_submit(r, 2, 1900, 1);
    (void)rig_submit(r, 4, 1000, 1);
    rig_request *const brief = rig_submit(r, 3, 30, 1);
    (void)rig_step(r);
    const uint32_t n_first = qn_sched_first_rows(&small);
    assert_int_equal(n_first, 96);
    assert_true(rig_rows(r, prompt) >= n_first);
    assert_int_equal(brief->n_ends, 1); /* nor does it stand in the way of short ones */
    while (prompt->n_ends == 0) {
        assert_int_equal(r->step->n_rows, small.n_step_rows);
        assert_true(rig_rows(r, stream) > 0);
        (void)rig_step(r);
    }
    rig_close(r);
}

static void test_drafts_leave_prompts_their_rows(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_step_rows = small.n_slots + QN_PAGE_TOKENS;
    rig *const r = rig_open(limits);
    const qn_sched_request asked = {.n_ids = 1, .max_tokens = 500, .draft_tokens = 8};
    for (uint32_t i = 0; i < 7; i++) {
        (void)rig_submit_as(r, asked, i);
    }
    (void)rig_step(r);
    (void)rig_step(r);
    assert_int_equal(r->step->n_rows, 7 * 9);
    rig_request *const prompt = rig_submit(r, 9, 1000, 1);
    (void)rig_step(r);
    assert_int_equal(rig_rows(r, prompt), limits.n_step_rows - 7);
    for (uint32_t i = 0; i < r->step->n_seqs; i++) {
        assert_int_equal(r->step->seqs[i].n_drafts, 0);
    }
    rig_close(r);
}

/* Where rows are short all draft to the same depth, give or take one. */
static void test_drafts_are_cut_evenly(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_slots = 40;
    limits.n_step_rows = 40 + QN_PAGE_TOKENS;
    rig *const r = rig_open(limits);
    const qn_sched_request asked = {.n_ids = 1, .max_tokens = 500, .draft_tokens = 5};
    for (uint32_t i = 0; i < 16; i++) {
        assert_non_null(rig_submit_as(r, asked, i));
    }
    (void)rig_step(r);
    for (uint32_t i = 0; i < 16; i++) {
        assert_non_null(rig_submit_as(r, asked, 16 + i));
    }
    (void)rig_step(r);
    (void)rig_step(r);
    assert_int_equal(r->step->n_seqs, 32);
    assert_int_equal(r->step->n_rows, limits.n_step_rows);
    for (uint32_t i = 0; i < 32; i++) {
        assert_int_equal(r->step->seqs[i].n_drafts, i < 72 - 64 ? 3 : 2);
    }
    rig_close(r);
}

static void test_no_draft_reaches_beyond_the_end(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    const qn_sched_request asked = {.n_ids = 10, .max_tokens = 4, .draft_tokens = 8};
    (void)rig_submit_as(r, asked, 1);
    r->n_right = 0;
    (void)rig_step(r);
    for (uint32_t n = 3; n > 0; n--) {
        (void)rig_step(r);
        assert_int_equal(r->step->seqs[0].n_drafts, n - 1);
    }
    assert_false(rig_step(r));
    rig_close(r);
}

/* What AUTO means is draft_batch.h's matter; here: it drafts where that pays, else not. */
static void test_automatic_drafts_follow_what_is_measured(void **state)
{
    (void)state;
    for (uint32_t n_right = 0; n_right <= 8; n_right += 8) {
        rig *const r = rig_open(small);
        r->n_right = n_right;
        r->row_s = 1e-3;
        const qn_sched_request asked = {
            .n_ids = 10, .max_tokens = 1000, .draft_tokens = QN_DRAFT_AUTO};
        for (uint32_t i = 0; i < 4; i++) {
            (void)rig_submit_as(r, asked, i);
        }
        rig_finish(r);
        const qn_sched_counts counts = qn_sched_count(r->sched);
        assert_true(n_right == 0 ? counts.n_drafted < 300 : counts.n_accepted == counts.n_drafted);
        rig_close(r);
    }
}

/* With a result outstanding, what is certain to end has no rows. */
static void test_a_late_result_is_not_waited_for(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.lag = 1;
    rig *const r = rig_open(limits);
    rig_request *const request = rig_submit(r, 1, 10, 3);
    rig_plan(r);
    rig_plan(r);
    assert_int_equal(r->step->n_seqs, 1); /* the token is not known, but its row can be ordered */
    assert_false(r->step->seqs[0].is_prompt);
    rig_take(r);
    rig_plan(r);
    assert_int_equal(r->step->n_seqs, 1);
    rig_take(r);
    rig_plan(r);
    assert_int_equal(r->step->n_seqs, 0); /* the third token is on its way */
    rig_take(r);
    assert_int_equal(request->reason, QN_SCHED_END_LENGTH);
    assert_int_equal(request->n_ids, 13);
    rig_close(r);
}

/* ------------------------------------------------------------------------------------- ends -- */

static void test_an_answer_ends_where_the_context_or_the_pages_end(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_context = 300;
    rig *r = rig_open(limits);
    rig_request *request = rig_submit(r, 1, 290, 100);
    rig_finish(r);
    assert_int_equal(request->reason, QN_SCHED_END_LENGTH);
    assert_int_equal(request->n_ids, 300);
    rig_close(r);
    limits.n_pages = 2;
    limits.lag = 1;
    r = rig_open(limits);
    const qn_sched_request asked = {.n_ids = 127, .max_tokens = 100, .draft_tokens = 3};
    request = rig_submit_as(r, asked, 1);
    rig_request *const other = rig_submit(r, 2, 1, 300);
    rig_finish(r);
    assert_int_equal(request->n_ids, 128);
    assert_int_equal(other->n_ids, 128);
    assert_int_equal(other->reason, QN_SCHED_END_LENGTH);
    rig_close(r);
}

static void test_stop_ends_and_the_tokens_behind_it_are_nobodys(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    const qn_sched_request asked = {.n_ids = 10, .max_tokens = 100, .draft_tokens = 8};
    rig_request *const request = rig_submit_as(r, asked, 1);
    request->n_stop = 5;
    r->n_right = 8;
    rig_finish(r);
    assert_int_equal(request->reason, QN_SCHED_END_STOP);
    assert_int_equal(request->n_ids, 15);
    rig_close(r);
}

static void test_cancel_frees_at_once_wherever_it_is(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.lag = 1;
    limits.n_slots = 1;
    rig *const r = rig_open(limits);
    rig_request *const running = rig_submit(r, 1, 300, 50);
    rig_request *const waiting = rig_submit(r, 2, 300, 50);
    rig_plan(r); /* its result is outstanding */
    assert_true(qn_sched_count(r->sched).n_referenced > 0);
    qn_sched_cancel(r->sched, waiting->id);
    qn_sched_cancel(r->sched, running->id);
    qn_sched_cancel(r->sched, running->id);
    qn_sched_cancel(r->sched, 12345678);
    assert_int_equal(qn_sched_count(r->sched).n_free, limits.n_pages);
    assert_int_equal(qn_sched_load(r->sched, 0), 0);
    qn_sched_state of_it;
    assert_false(qn_sched_get_state(&of_it, r->sched, running->id));
    rig_request *const next = rig_submit(r, 3, 10, 5);
    rig_finish(r);
    assert_int_equal(waiting->reason, QN_SCHED_END_CANCEL);
    assert_int_equal(running->reason, QN_SCHED_END_CANCEL);
    assert_int_equal(running->n_ids, 300);
    assert_int_equal(next->n_ids, 15);
    rig_close(r);
}

static void test_deadlines_end_waiting_and_running_ones(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_slots = 1;
    rig *const r = rig_open(limits);
    qn_sched_request asked = {.n_ids = 10, .max_tokens = 500, .deadline_us = 200};
    rig_request *const running = rig_submit_as(r, asked, 1);
    asked.deadline_us = 100;
    rig_request *const waiting = rig_submit_as(r, asked, 2);
    asked.deadline_us = 0;
    rig_request *const patient = rig_submit_as(r, asked, 3);
    r->now_us = 99;
    (void)rig_step(r);
    assert_int_equal(waiting->n_ends, 0);
    r->now_us = 100;
    (void)rig_step(r);
    assert_int_equal(waiting->reason, QN_SCHED_END_DEADLINE);
    assert_int_equal(running->n_ends, 0);
    r->now_us = 200;
    (void)rig_step(r);
    assert_int_equal(running->reason, QN_SCHED_END_DEADLINE);
    rig_finish(r);
    assert_int_equal(patient->n_ids, 510);
    rig_close(r);
}

/* Of many that pass at once, those that are gone already included, each ends once, in order. */
static void test_deadlines_end_in_their_order(void **state)
{
    (void)state;
    enum { N = 12 };
    rig *const r = rig_open(small);
    qn_request_id ids[N];
    for (uint32_t i = 0; i < N; i++) {
        const qn_sched_request asked = {
            .n_ids = 10, .max_tokens = 500, .deadline_us = 1000 - 10 * i};
        ids[i] = rig_submit_as(r, asked, i)->id;
    }
    (void)rig_step(r);
    qn_sched_cancel(r->sched, ids[5]);
    rig_poll(r);
    r->now_us = 1000 - 10 * 3;
    qn_sched_plan(r->step, r->sched, r->now_us);
    qn_sched_end end;
    for (uint32_t i = N; i > 3; i--) {
        if (i - 1 != 5) {
            assert_true(qn_sched_poll_end(&end, r->sched));
            assert_true(end.request == ids[i - 1]);
            assert_int_equal(end.reason, QN_SCHED_END_DEADLINE);
        }
    }
    assert_false(qn_sched_poll_end(&end, r->sched));
    rig_close(r);
}

/* A place is given again after all others: names last as long as they can. */
static void test_places_take_turns(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    for (uint32_t i = 0; i < 3 * (small.n_slots + small.n_queue); i++) {
        const rig_request *const request = rig_submit(r, 1, 10, 5);
        assert_int_equal(qn_request_place(request->id), i % (small.n_slots + small.n_queue));
        qn_sched_cancel(r->sched, request->id);
        rig_poll(r);
    }
    rig_close(r);
}

static void test_a_failed_sequence_ends_alone(void **state)
{
    (void)state;
    rig *const r = rig_open(small);
    rig_request *const bad = rig_submit(r, 1, 100, 50);
    rig_request *const good = rig_submit(r, 2, 20, 50);
    rig_plan(r);
    for (uint32_t i = 0; i < r->step->n_seqs; i++) {
        if (r->step->seqs[i].request == bad->id) {
            r->results[0]->seqs[i] = (qn_seq_result){.request = bad->id, .is_failed = true};
        }
    }
    rig_take(r);
    assert_int_equal(bad->reason, QN_SCHED_END_ERROR);
    rig_finish(r);
    assert_int_equal(good->n_ids, 70);
    assert_int_equal(rig_match(r, bad, 100), 0);
    rig_close(r);
}

static void test_a_failed_step_ends_its_requests_and_a_lost_one_all(void **state)
{
    (void)state;
    for (uint32_t lag = 0; lag <= 1; lag++) {
        for (qn_step_outcome with = QN_STEP_FAILED; with <= QN_STEP_LOST; with++) {
            qn_sched_limits limits = small;
            limits.n_slots = 2;
            limits.lag = lag;
            rig *const r = rig_open(limits);
            rig_request *const early = rig_submit(r, 1, 100, 1);
            rig_finish(r);
            r->failing = r->step->number + 2;
            r->with = with;
            rig_request *const first = rig_submit(r, 2, 100, 50);
            rig_request *const second = rig_submit(r, 3, 100, 50);
            rig_request *const waiting = rig_submit(r, 4, 100, 50);
            rig_finish(r);
            assert_int_equal(first->reason, QN_SCHED_END_ERROR);
            assert_int_equal(second->reason, QN_SCHED_END_ERROR);
            assert_int_equal(waiting->n_ids, 150);
            const uint32_t n_left = with == QN_STEP_LOST ? 0 : 64;
            assert_int_equal(rig_match(r, early, 100), n_left);
            rig_close(r);
        }
    }
}

static void test_the_queue_is_bounded(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_slots = 1;
    limits.n_queue = 2;
    rig *const r = rig_open(limits);
    assert_non_null(rig_submit(r, 1, 10, 50));
    assert_non_null(rig_submit(r, 2, 10, 50));
    assert_null(rig_submit(r, 3, 10, 50));
    (void)rig_step(r);
    assert_non_null(rig_submit(r, 3, 10, 50));
    assert_null(rig_submit(r, 4, 10, 50));
    rig_finish(r);
    assert_int_equal(qn_sched_count(r->sched).n_ended[QN_SCHED_END_LENGTH], 3);
    rig_close(r);
}

/* ----------------------------------------------------------------------------------- groups -- */

static void test_groups_are_chosen_by_prefix_load_and_session(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_groups = 2;
    rig *const r = rig_open(limits);
    qn_sched_request asked = {.n_ids = 200, .max_tokens = 1, .session = 9};
    (void)rig_submit_as(r, asked, 1);
    assert_int_equal(qn_sched_load(r->sched, 0), 200);
    (void)rig_submit_as(r, asked, 2); /* the other group has less to do */
    assert_int_equal(qn_sched_load(r->sched, 1), 200);
    rig_finish(r);
    assert_int_equal(qn_sched_load(r->sched, 0) + qn_sched_load(r->sched, 1), 0);
    (void)rig_submit_as(r, asked, 3); /* all equal: the session stays where it was */
    assert_int_equal(qn_sched_load(r->sched, 1), 200);
    (void)rig_submit_as(r, asked, 2);                  /* its pages are there */
    assert_int_equal(qn_sched_load(r->sched, 1), 200); /* busier than the pages are worth */
    rig_finish(r);
    asked.session = 0;
    (void)rig_submit_as(r, asked, 3);
    assert_int_equal(qn_sched_load(r->sched, 1), 8);
    assert_int_equal(qn_sched_load(r->sched, 0), 0);
    rig_finish(r);
    rig_close(r);
}

/* One that waits for the pages of its group keeps nobody waiting who goes to another. */
static void test_a_full_group_lets_others_run(void **state)
{
    (void)state;
    qn_sched_limits limits = small;
    limits.n_groups = 2;
    limits.n_pages = 4;
    rig *const r = rig_open(limits);
    const qn_sched_request brief = {.n_ids = 200, .max_tokens = 1};
    const qn_sched_request lengthy = {.n_ids = 200, .max_tokens = 50};
    (void)rig_submit_as(r, lengthy, 1); /* group 0 */
    (void)rig_submit_as(r, brief, 2);   /* group 1, which is soon idle */
    const qn_request_id waits = rig_submit_as(r, lengthy, 3)->id;
    for (uint32_t i = 0; i < 8; i++) {
        rig_step(r);
    }
    const qn_request_id runs = rig_submit_as(r, lengthy, 4)->id;
    rig_step(r);
    qn_sched_state of;
    assert_true(qn_sched_get_state(&of, r->sched, waits));
    assert_int_equal(of.group, 0);
    assert_false(of.is_running);
    assert_true(qn_sched_get_state(&of, r->sched, runs));
    assert_int_equal(of.group, 1);
    assert_true(of.is_running);
    rig_finish(r);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_anything_goes),
        cmocka_unit_test(test_requests_start_in_order_of_arrival_and_priority),
        cmocka_unit_test(test_the_last_makes_room_for_an_earlier_one),
        cmocka_unit_test(test_a_preempted_request_that_shares_nothing_weighs_its_ids),
        cmocka_unit_test(test_page_shortage_preempts_the_last),
        cmocka_unit_test(test_starvation_comes_near_its_bound_and_no_further),
        cmocka_unit_test(test_a_prompt_shares_pages_and_computes_one_row),
        cmocka_unit_test(test_salts_and_whole_prompts_share_nothing),
        cmocka_unit_test(test_answers_are_published),
        cmocka_unit_test(test_incomplete_pages_are_not_published),
        cmocka_unit_test(test_exchanges_beyond_a_steps_room_wait),
        cmocka_unit_test(test_an_exchange_is_void_after_a_preemption),
        cmocka_unit_test(test_admissions_keep_to_a_steps_entries),
        cmocka_unit_test(test_flush_forgets_and_running_ones_go_on),
        cmocka_unit_test(test_a_long_prompt_stalls_nobody),
        cmocka_unit_test(test_drafts_leave_prompts_their_rows),
        cmocka_unit_test(test_drafts_are_cut_evenly),
        cmocka_unit_test(test_no_draft_reaches_beyond_the_end),
        cmocka_unit_test(test_automatic_drafts_follow_what_is_measured),
        cmocka_unit_test(test_a_late_result_is_not_waited_for),
        cmocka_unit_test(test_an_answer_ends_where_the_context_or_the_pages_end),
        cmocka_unit_test(test_stop_ends_and_the_tokens_behind_it_are_nobodys),
        cmocka_unit_test(test_cancel_frees_at_once_wherever_it_is),
        cmocka_unit_test(test_deadlines_end_waiting_and_running_ones),
        cmocka_unit_test(test_deadlines_end_in_their_order),
        cmocka_unit_test(test_places_take_turns),
        cmocka_unit_test(test_a_failed_sequence_ends_alone),
        cmocka_unit_test(test_a_failed_step_ends_its_requests_and_a_lost_one_all),
        cmocka_unit_test(test_the_queue_is_bounded),
        cmocka_unit_test(test_groups_are_chosen_by_prefix_load_and_session),
        cmocka_unit_test(test_a_full_group_lets_others_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
