/* SPDX-License-Identifier: Apache-2.0 */
/* A step in the making: rows of those that draw, admission, drafts, rows of prompts.  What is
   ordered stands with the requests until the end, since one may still be preempted. */
#include "base/assert.h"
#include "sched/internal.h"

#include <string.h>

uint32_t qn_sched_first_rows(const qn_sched_limits *limits)
{
    const uint32_t half = (limits->n_step_rows - limits->n_slots) / 2;
    return half > QN_PAGE_TOKENS ? half : QN_PAGE_TOKENS;
}

uint64_t qn_sched_steps_max(const qn_sched_limits *limits, uint32_t n_ids, uint32_t max_tokens,
                            bool overtakes)
{
    const uint32_t n_first = qn_sched_first_rows(limits);
    const uint32_t n_ids_max = least(limits->n_context, limits->n_pages * QN_PAGE_TOKENS);
    QN_ASSERT(n_ids < n_ids_max);
    const uint32_t n_tokens = least(max_tokens, n_ids_max - n_ids);
    /* With lag 1: a rest before its end, and tokens on their way when it lost its slot. */
    const uint64_t n_late = limits->lag > 0 ? 2 : 0;
    const uint64_t n_own = (n_ids + n_tokens) / n_first + 1 + (uint64_t)n_tokens + n_late;
    return n_own + (overtakes ? n_ids_max / n_first + 1 : 0);
}

static sched_request *running_at(const qn_sched *sched, uint32_t i)
{
    QN_ASSERT(i < sched->n_running);
    return &sched->requests[sched->running[i]];
}

/* Its ids are all ordered: it draws. */
static bool is_drawing(const sched_request *request)
{
    QN_ASSERT(request->n_ordered <= request->n_known);
    return request->n_ordered == request->n_known;
}

/* Ids that it may have when the outstanding steps are done. */
static uint32_t count_worst(const sched_request *request)
{
    return request->n_ids + request->n_coming_max;
}

/* ----------------------------------------------------------------------------------- pages -- */

/* The running request of the group that is last in the order; NULL: there is none. */
static sched_request *last_of_group(const qn_sched *sched, uint32_t group)
{
    for (uint32_t i = sched->n_running; i > 0; i--) {
        sched_request *const request = running_at(sched, i - 1);
        if (request->group == group) {
            return request;
        }
    }
    return NULL;
}

/* Back into the queue, at its old place in the order. */
static void preempt(qn_sched *sched, sched_request *request)
{
    const qn_pages *const pages = &sched->groups[request->group].pages;
    request->hint = (qn_prefix_hint){0};
    const uint32_t n_pages = least(request->n_published, (request->n_ids - 1) / QN_PAGE_TOKENS);
    if (n_pages > 0 && !request->is_flushed && !request->asked.needs_all_rows) {
        const uint32_t page = request->table[n_pages - 1];
        request->hint = (qn_prefix_hint){pages->tree.nodes[page].born, page, n_pages};
    }
    request->n_lost = is_drawing(request) ? request->n_ids - 1 : request->n_ordered;
    qn_sched_stop_running(sched, request);
    request->phase = SCHED_WAITING;
    request->n_preempted++;
    qn_sched_set_load(sched, request, request->n_ids - request->hint.n_pages * QN_PAGE_TOKENS);
    qn_order_push(&sched->groups[request->group].waiting, request->item);
    sched->counts.n_preempted++;
}

/*
 * Give it pages for its first n_positions positions; where there are none, those of the last of its
 * group.  False: it is the last itself, or may not preempt.
 */
static bool grow(qn_sched *sched, sched_request *request, uint32_t n_positions, bool may_preempt)
{
    sched_group *const group = &sched->groups[request->group];
    const uint32_t n_pages = qn_pages_for(n_positions);
    QN_ASSERT(n_pages <= sched->n_pages_max);
    while (request->n_table < n_pages) {
        /* A prompt's pages are promised to it: drafts take none of them. */
        const bool is_spare = may_preempt || qn_pages_available(&group->pages) > group->n_promised;
        const uint32_t page = is_spare ? qn_pages_take(&group->pages) : QN_NO_PAGE;
        if (page != QN_NO_PAGE) {
            request->table[request->n_table++] = page;
            group->n_promised -= request->n_promised > 0;
            request->n_promised -= request->n_promised > 0;
            continue;
        }
        sched_request *const last = last_of_group(sched, request->group);
        if (!may_preempt || last == request) {
            /* Alone it has all pages of the group, and these suffice. */
            QN_ASSERT(group->n_running > 1);
            return false;
        }
        preempt(sched, last);
    }
    return true;
}

/* ------------------------------------------------------------------------------- admission -- */

/* Whether its group has the pages that its ids lack, and one to draw into. */
static bool fits(const qn_sched *sched, const sched_request *request)
{
    const sched_group *const group = &sched->groups[request->group];
    const uint32_t n_ids = least(request->n_ids + QN_PAGE_TOKENS, request->n_ids_max);
    const uint64_t n_needed = (uint64_t)qn_pages_for(n_ids) - request->hint.n_pages +
                              qn_pages_count_unused(&group->pages, request->hint) +
                              group->n_promised;
    return qn_pages_available(&group->pages) >= n_needed;
}

static void admit(qn_sched *sched, sched_request *request)
{
    sched_group *const group = &sched->groups[request->group];
    const qn_prefix_hint path = request->hint;
    qn_sched_start_running(sched, request);
    qn_pages_use_path(&group->pages, path, request->table);
    request->n_table = path.n_pages;
    request->n_told = 0;
    request->n_shared = path.n_pages;
    request->n_published = path.n_pages;
    request->n_promised = qn_pages_for(request->n_ids) - path.n_pages;
    group->n_promised += request->n_promised;
    request->n_known = request->n_ids;
    request->n_ordered = path.n_pages * QN_PAGE_TOKENS;
    request->n_coming_min = 0;
    request->n_coming_max = 0;
    request->is_told = false;
    request->is_flushed = false;
    QN_ASSERT(request->n_ordered < request->n_known);
    qn_sched_set_load(sched, request, request->n_known - request->n_ordered);
    sched->n_entries += path.n_pages;
    if (request->was_admitted) {
        const uint32_t n_lost = request->n_lost;
        sched->counts.n_recomputed_tokens +=
            n_lost > request->n_ordered ? n_lost - request->n_ordered : 0;
        return;
    }
    request->was_admitted = true;
    request->n_cached = request->n_ordered;
    sched->counts.n_queried_tokens += request->n_ids;
    sched->counts.n_hit_tokens += request->n_cached;
}

/* The first of all that wait, but for those whose group is full; NULL: there is none. */
static sched_request *first_waiting(const qn_sched *sched)
{
    const qn_order_item *first = NULL;
    for (uint32_t i = 0; i < sched->limits.n_groups; i++) {
        const sched_group *const group = &sched->groups[i];
        const qn_order_item *const item = qn_order_first(&group->waiting);
        if (item != NULL && !group->is_full && (first == NULL || qn_order_is_before(item, first))) {
            first = item;
        }
    }
    return first != NULL ? &sched->requests[first->place] : NULL;
}

/* Preempt those of its group that are later, until its pages are there.  False: they are not. */
static bool make_pages(qn_sched *sched, sched_request *request)
{
    for (;;) {
        request->hint = qn_sched_find_path(sched, request);
        if (fits(sched, request)) {
            return true;
        }
        sched_request *const last = last_of_group(sched, request->group);
        QN_ASSERT(last != NULL); /* all pages of a group suffice */
        if (qn_order_is_before(&last->item, &request->item)) {
            return false;
        }
        preempt(sched, last);
    }
}

/* Admit the first that waits where there is room.  False: there is none for any. */
static bool admit_first(qn_sched *sched)
{
    sched_request *const request = first_waiting(sched);
    if (request == NULL) {
        return false;
    }
    if (!make_pages(sched, request)) {
        sched->groups[request->group].is_full = true; /* for all that wait behind it there */
        return true;
    }
    if (sched->n_free_slots == 0) {
        sched_request *const last = running_at(sched, sched->n_running - 1);
        if (qn_order_is_before(&last->item, &request->item)) {
            return false;
        }
        preempt(sched, last);
    }
    /* What running ones may add to the step has room too: see sched.c. */
    const uint32_t n_entries = sched->n_exchanges + sched->n_entries + request->hint.n_pages +
                               sched->limits.n_step_rows / QN_PAGE_TOKENS +
                               2 * sched->limits.n_slots;
    if (n_entries > QN_STEP_PAGES_MAX) {
        return false;
    }
    admit(sched, request);
    return true;
}

/* ------------------------------------------------------------------------------------ rows -- */

/* One row for each sequence that draws, but for those that end with an outstanding result. */
static void plan_drawing(qn_sched *sched)
{
    uint32_t i = 0;
    while (i < sched->n_running) {
        sched_request *const request = running_at(sched, i);
        const bool is_ending = request->n_ids + request->n_coming_min >= request->n_ids_max;
        if (is_drawing(request) && !is_ending) {
            QN_ASSERT(count_worst(request) <= request->n_ids_max);
            if (!grow(sched, request, count_worst(request), true)) {
                preempt(sched, request);
                continue;
            }
            request->n_rows = 1;
            QN_ASSERT(sched->n_rows_left > 0);
            sched->n_rows_left--;
        }
        i++;
    }
}

/* Drafts that it can use. */
static uint32_t count_draft_limit(const qn_sched *sched, const sched_request *request)
{
    const uint32_t n_room = request->n_ids_max - count_worst(request);
    return n_room > 0 ? least(n_room - 1, sched->limits.n_draft_max) : 0;
}

/* What each sequence would draft, if there were rows for all.  Returns  the sum */
static uint32_t want_drafts(qn_sched *sched, uint32_t n_prompt_rows, uint32_t n_rows_max)
{
    uint32_t n_auto = 0;
    uint32_t n_rows = 0;
    uint32_t n_drafts = 0;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        sched_request *const request = running_at(sched, i);
        const uint32_t limit = request->n_rows > 0 ? count_draft_limit(sched, request) : 0;
        n_rows += request->n_rows;
        if (request->asked.draft_tokens == QN_DRAFT_AUTO) {
            if (limit > 0) {
                sched->draft_seqs[n_auto++] = (qn_draft_seq){&request->draft, limit, 0};
            }
        } else {
            request->n_drafts = least((uint32_t)request->asked.draft_tokens, limit);
            n_drafts += request->n_drafts;
        }
    }
    const uint32_t n_left = n_rows_max > n_drafts ? n_rows_max - n_drafts : 0;
    if (n_auto == 0 || n_left == 0) {
        return n_drafts;
    }
    const qn_draft_room room = {
        .n_other_rows = n_rows - n_auto + n_drafts + n_prompt_rows,
        .n_other_tokens = n_rows - n_auto,
        .n_rows_max = n_left,
    };
    qn_draft_batch_choose(&sched->draft_batch, sched->draft_seqs, n_auto, &room);
    n_auto = 0;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        sched_request *const request = running_at(sched, i);
        if (request->asked.draft_tokens == QN_DRAFT_AUTO && request->n_rows > 0 &&
            count_draft_limit(sched, request) > 0) {
            request->n_drafts = sched->draft_seqs[n_auto++].depth;
            n_drafts += request->n_drafts;
        }
    }
    return n_drafts;
}

/* Cut what is wanted so that its sum is n_rows_max: first drafts are worth more than second ones,
   so all get the same depth, and one more the first of the order. */
static void cut_drafts(qn_sched *sched, uint32_t n_rows_max)
{
    uint32_t n_wanting[QN_DRAFT_TOKENS_MAX + 1] = {0}; /* a draft of this number, from 1 */
    for (uint32_t i = 0; i < sched->n_running; i++) {
        for (uint32_t n = running_at(sched, i)->n_drafts; n > 0; n--) {
            n_wanting[n]++;
        }
    }
    uint32_t depth = 0;
    uint32_t n_extra = n_rows_max;
    while (depth < QN_DRAFT_TOKENS_MAX && n_wanting[depth + 1] <= n_extra) {
        n_extra -= n_wanting[++depth];
    }
    for (uint32_t i = 0; i < sched->n_running; i++) {
        sched_request *const request = running_at(sched, i);
        if (request->n_drafts > depth) {
            request->n_drafts = depth + (n_extra > 0);
            n_extra -= n_extra > 0;
        }
    }
}

/* Drafts of those that draw: at most n_rows_max rows, and never at the cost of another's pages. */
static void plan_drafts(qn_sched *sched, uint32_t n_prompt_rows, uint32_t n_rows_max)
{
    if (want_drafts(sched, n_prompt_rows, n_rows_max) > n_rows_max) {
        cut_drafts(sched, n_rows_max);
    }
    for (uint32_t i = 0; i < sched->n_running; i++) {
        sched_request *const request = running_at(sched, i);
        if (request->n_drafts == 0) {
            continue;
        }
        const uint32_t n_worst = count_worst(request);
        if (!grow(sched, request, n_worst + request->n_drafts, false)) {
            request->n_drafts = request->n_table * QN_PAGE_TOKENS - n_worst;
        }
        QN_ASSERT(sched->n_rows_left >= request->n_drafts);
        sched->n_rows_left -= request->n_drafts;
        request->n_rows += request->n_drafts;
    }
}

/* Up to n_rows rows of a prompt, fewer where its group has no pages for it. */
static void plan_chunk(qn_sched *sched, sched_request *request, uint32_t n_rows)
{
    n_rows = least(n_rows, request->n_known - request->n_ordered);
    if (!grow(sched, request, request->n_ordered + n_rows, true)) {
        n_rows = request->n_table * QN_PAGE_TOKENS - request->n_ordered;
    }
    request->n_rows = least(n_rows, sched->n_rows_left);
    sched->n_rows_left -= request->n_rows;
}

/* Rows of all prompts that are not ordered. */
static uint64_t count_prompt_rows(const qn_sched *sched)
{
    uint64_t n_rows = 0;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        const sched_request *const request = running_at(sched, i);
        n_rows += request->n_known - request->n_ordered;
    }
    return n_rows;
}

/* The rows that are left go to prompts: half to the first of the order, and to the others by the
   rows that they lack, so that a short one does not wait behind a long one. */
static void plan_prompts(qn_sched *sched)
{
    sched_request *first = NULL;
    uint64_t n_others = 0;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        sched_request *const request = running_at(sched, i);
        const uint32_t n_lacking = request->n_known - request->n_ordered;
        if (n_lacking > 0 && first == NULL) {
            first = request;
        } else if (n_lacking > 0) {
            qn_order_push(&sched->prompts, (qn_order_item){n_lacking, i, request->slot});
            sched->by_slot[request->slot] = request->item.place;
            n_others += n_lacking;
        }
    }
    if (first == NULL) {
        return;
    }
    const uint32_t n_rows = sched->n_rows_left;
    const uint32_t n_first = qn_sched_first_rows(&sched->limits);
    /* Drafts have left what all prompts lack, where that is less. */
    QN_ASSERT(n_rows >= least(n_first, first->n_known - first->n_ordered));
    uint32_t n_share = least(n_rows / 2 > n_first ? n_rows / 2 : n_first, n_rows);
    if (n_others < n_rows - n_share) {
        n_share = n_rows - (uint32_t)n_others;
    }
    plan_chunk(sched, first, n_share);
    while (sched->prompts.n_items > 0 && sched->n_rows_left > 0) {
        const uint32_t slot = qn_order_first(&sched->prompts)->place;
        sched_request *const request = &sched->requests[sched->by_slot[slot]];
        qn_order_remove(&sched->prompts, slot);
        if (request->phase == SCHED_RUNNING) { /* another's chunk may have preempted it */
            plan_chunk(sched, request, sched->n_rows_left);
        }
    }
    sched->prompts.n_items = 0; /* those without rows wait */
}

/* -------------------------------------------------------------------------------- the step -- */

static void write_pages(qn_step *step, qn_sched *sched, sched_request *request)
{
    for (uint32_t i = request->n_told; i < request->n_table; i++) {
        QN_ASSERT(step->n_pages < QN_STEP_PAGES_MAX);
        step->pages[step->n_pages++] = (qn_step_page){
            .slot = request->slot,
            .i_page = i,
            .page = qn_page_make(request->group, request->table[i]),
            .is_shared = i < request->n_shared,
        };
    }
    request->n_told = request->n_table;
    if (!request->is_told) {
        QN_ASSERT(step->n_begins < sched->limits.n_slots);
        step->begins[step->n_begins++] = (qn_step_begin){
            .request = request->id,
            .slot = request->slot,
            .n_cached = request->n_shared * QN_PAGE_TOKENS,
        };
        request->is_told = true;
    }
}

/* Write its rows, note what its result will be compared with, and count them as ordered. */
static void write_rows(qn_step *step, sched_outstanding *outstanding, sched_request *request)
{
    const bool is_prompt = !is_drawing(request);
    const uint32_t first = request->n_ordered;
    request->n_ordered += is_prompt ? request->n_rows : 0;
    const qn_step_seq seq = {
        .request = request->id,
        .slot = request->slot,
        .n_rows = request->n_rows,
        .n_drafts = request->n_drafts,
        .first = is_prompt ? first : 0,
        .is_prompt = is_prompt,
        .is_drawing = is_drawing(request),
    };
    QN_ASSERT(is_prompt ? seq.n_drafts == 0 : seq.n_rows == seq.n_drafts + 1);
    request->n_coming_min += seq.is_drawing;
    request->n_coming_max += seq.is_drawing ? 1 + seq.n_drafts : 0;
    request->n_rows = 0;
    request->n_drafts = 0;
    outstanding->seqs[step->n_seqs] = (sched_ordered){seq, request->n_preempted};
    step->seqs[step->n_seqs++] = seq;
    step->n_rows += seq.n_rows;
}

/* What was exchanged since the last step, of those that still have it. */
static void write_exchanges(qn_step *step, qn_sched *sched)
{
    for (uint32_t i = 0; i < sched->n_exchanges; i++) {
        const sched_exchange *const exchange = &sched->exchanges[i];
        const sched_request *const request = qn_sched_find(sched, exchange->request);
        if (request != NULL && request->phase == SCHED_RUNNING &&
            request->n_preempted == exchange->n_preempted) {
            QN_ASSERT(exchange->i_page < request->n_told);
            step->pages[step->n_pages++] = (qn_step_page){
                .slot = request->slot,
                .i_page = exchange->i_page,
                .page = qn_page_make(request->group, request->table[exchange->i_page]),
                .is_shared = true,
            };
        }
    }
    sched->n_exchanges = 0;
}

/* The bounds of sched.h: the first advances, every sequence that draws has rows. */
static void check_bounds(const qn_sched *sched)
{
    for (uint32_t i = 0; i < sched->n_running; i++) {
        const sched_request *const request = running_at(sched, i);
        const uint32_t n_lacking = request->n_known - request->n_ordered;
        if (n_lacking == 0) {
            const bool is_ending = request->n_ids + request->n_coming_min >= request->n_ids_max;
            QN_ASSERT(is_ending == (request->n_rows == 0));
        } else if (i == 0) {
            QN_ASSERT(request->n_rows >= least(n_lacking, qn_sched_first_rows(&sched->limits)));
        }
    }
}

static void write_step(qn_step *step, qn_sched *sched)
{
    sched_outstanding *const outstanding = &sched->outstanding[sched->n_outstanding];
    step->number = ++sched->n_steps;
    step->n_published = sched->n_published;
    memcpy(step->published, sched->published, sched->n_published * sizeof *sched->published);
    sched->n_published = 0;
    step->n_begins = 0;
    step->n_pages = 0;
    step->n_seqs = 0;
    step->n_rows = 0;
    write_exchanges(step, sched);
    for (uint32_t i = 0; i < sched->n_running; i++) {
        sched_request *const request = running_at(sched, i);
        write_pages(step, sched, request);
        if (request->n_rows > 0) {
            write_rows(step, outstanding, request);
            qn_sched_set_load(sched, request, request->n_known - request->n_ordered);
        }
    }
    QN_ASSERT(step->n_rows <= sched->limits.n_step_rows);
    QN_ASSERT(step->n_rows + sched->n_rows_left == sched->limits.n_step_rows);
    if (step->n_seqs > 0) {
        outstanding->number = step->number;
        outstanding->n_seqs = step->n_seqs;
        outstanding->n_rows = step->n_rows;
        sched->n_outstanding++;
        sched->counts.n_steps++;
        sched->counts.n_rows += step->n_rows;
    }
}

void qn_sched_plan(qn_step *step, qn_sched *sched, uint64_t now_us)
{
    QN_ASSERT(sched->n_outstanding <= sched->limits.lag);
    qn_sched_expire(sched, now_us);
    sched->n_rows_left = sched->limits.n_step_rows;
    sched->n_entries = 0;
    plan_drawing(sched);
    for (uint32_t i = 0; i < sched->limits.n_groups; i++) {
        sched->groups[i].is_full = false;
    }
    while (admit_first(sched)) {
    }
    /* Where prompts wait, the first has its rows for certain and others half as many. */
    const uint64_t n_prompt_rows = count_prompt_rows(sched);
    const uint32_t n_first = qn_sched_first_rows(&sched->limits);
    uint32_t n_kept = least(n_first + n_first / 2, sched->n_rows_left);
    n_kept = n_prompt_rows < n_kept ? (uint32_t)n_prompt_rows : n_kept;
    plan_drafts(sched, n_kept, sched->n_rows_left - n_kept);
    plan_prompts(sched);
    check_bounds(sched);
    write_step(step, sched);
}
