/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/sched.h"

#include "base/assert.h"
#include "base/rng.h"
#include "sched/internal.h"
#include "sched/route.h"

#include <string.h>

static void check_limits(const qn_sched_limits *limits)
{
    QN_ASSERT(limits->n_groups >= 1 && limits->n_groups <= QN_PAGE_GROUPS_MAX);
    QN_ASSERT(limits->n_pages >= 1 && limits->n_pages <= 1U << QN_PAGE_INDEX_BITS);
    QN_ASSERT(limits->n_slots >= 1 && limits->n_slots <= QN_STEP_SEQS_MAX);
    QN_ASSERT(limits->n_queue >= 1 && limits->n_queue <= QN_SCHED_QUEUE_MAX);
    QN_ASSERT(limits->n_step_rows >= limits->n_slots + QN_PAGE_TOKENS);
    QN_ASSERT(limits->n_step_rows <= QN_STEP_ROWS_MAX);
    QN_ASSERT(limits->n_context >= 2 && limits->n_context <= QN_SCHED_CONTEXT_MAX);
    QN_ASSERT(limits->n_draft_max <= QN_DRAFT_TOKENS_MAX);
    QN_ASSERT(limits->lag <= SCHED_LAG_MAX);
}

/* The page tables of those admitted in a step have room beside what running ones may add. */
_Static_assert(QN_SCHED_CONTEXT_MAX / QN_PAGE_TOKENS + SCHED_EXCHANGES_MAX +
                       QN_STEP_ROWS_MAX / QN_PAGE_TOKENS + 2 * QN_STEP_SEQS_MAX <=
                   QN_STEP_PAGES_MAX,
               "a step has room for one admission");

/* Lay everything out; done first on an arena that measures. */
static qn_sched *lay_out(qn_arena *at, const qn_sched_limits *limits)
{
    qn_sched s = {.limits = *limits, .n_places = limits->n_slots + limits->n_queue};
    s.n_ids_max = (uint32_t)least(limits->n_context, limits->n_pages * QN_PAGE_TOKENS);
    s.n_pages_max = qn_pages_for(s.n_ids_max);
    qn_sched *const sched = qn_arena_alloc(at, sizeof *sched, 64);
    s.requests = qn_arena_alloc(at, s.n_places * sizeof *s.requests, 64);
    s.free_places = qn_arena_alloc(at, s.n_places * sizeof *s.free_places, 64);
    qn_order_init(&s.deadlines, at, s.n_places);
    s.running = qn_arena_alloc(at, limits->n_slots * sizeof *s.running, 64);
    s.free_slots = qn_arena_alloc(at, limits->n_slots * sizeof *s.free_slots, 64);
    const size_t n_entries = (size_t)limits->n_slots * s.n_pages_max;
    s.tables = qn_arena_alloc(at, n_entries * sizeof *s.tables, 64);
    s.groups = qn_arena_alloc(at, limits->n_groups * sizeof *s.groups, 64);
    s.places = qn_arena_alloc(at, limits->n_groups * sizeof *s.places, 64);
    s.sessions = qn_arena_alloc(at, SCHED_SESSIONS * sizeof *s.sessions, 64);
    for (uint32_t i = 0; i < SCHED_STEPS_MAX; i++) {
        s.outstanding[i].seqs =
            qn_arena_alloc(at, limits->n_slots * sizeof *s.outstanding[i].seqs, 64);
    }
    s.published = qn_arena_alloc(at, QN_STEP_PAGES_MAX * sizeof *s.published, 64);
    s.exchanges = qn_arena_alloc(at, SCHED_EXCHANGES_MAX * sizeof *s.exchanges, 64);
    s.draft_seqs = qn_arena_alloc(at, limits->n_slots * sizeof *s.draft_seqs, 64);
    qn_order_init(&s.prompts, at, limits->n_slots);
    s.by_slot = qn_arena_alloc(at, limits->n_slots * sizeof *s.by_slot, 64);
    for (uint32_t group = 0; group < limits->n_groups; group++) {
        sched_group laid_out = {0};
        qn_pages_init(&laid_out.pages, at, limits->n_pages, limits->hash_seed);
        qn_order_init(&laid_out.waiting, at, s.n_places);
        if (sched != NULL) {
            s.groups[group] = laid_out;
        }
    }
    if (sched != NULL) {
        *sched = s;
    }
    return sched;
}

size_t qn_sched_bytes(const qn_sched_limits *limits)
{
    check_limits(limits);
    qn_arena measure;
    qn_arena_init(&measure, NULL, SIZE_MAX);
    (void)lay_out(&measure, limits);
    return measure.used_bytes;
}

qn_sched *qn_sched_init(void *memory, const qn_sched_limits *limits)
{
    QN_ASSERT((uintptr_t)memory % 64 == 0);
    const size_t n_bytes = qn_sched_bytes(limits);
    qn_arena arena;
    qn_arena_init(&arena, memory, n_bytes);
    qn_sched *const sched = lay_out(&arena, limits);
    QN_ASSERT(sched != NULL);
    QN_ASSERT(arena.used_bytes == n_bytes);
    memset(sched->requests, 0, sched->n_places * sizeof *sched->requests);
    memset(sched->sessions, 0, SCHED_SESSIONS * sizeof *sched->sessions);
    for (uint32_t i = 0; i < sched->n_places; i++) {
        sched->free_places[i] = i;
    }
    for (uint32_t i = 0; i < limits->n_slots; i++) {
        sched->free_slots[i] = limits->n_slots - 1 - i;
    }
    for (uint32_t i = 0; i < limits->n_groups; i++) {
        qn_pages_clear(&sched->groups[i].pages);
    }
    sched->n_free_places = sched->n_places;
    sched->n_free_slots = limits->n_slots;
    sched->first_ended = SCHED_NOBODY;
    qn_draft_batch_init(&sched->draft_batch, limits->n_draft_max);
    return sched;
}

sched_request *qn_sched_find(const qn_sched *sched, qn_request_id id)
{
    const uint32_t place = qn_request_place(id);
    if (id == 0 || place >= sched->n_places) {
        return NULL;
    }
    sched_request *const request = &sched->requests[place];
    const bool is_live = request->phase == SCHED_WAITING || request->phase == SCHED_RUNNING;
    return is_live && request->id == id ? request : NULL;
}

void qn_sched_set_load(qn_sched *sched, sched_request *request, uint64_t n_rows)
{
    sched_group *const group = &sched->groups[request->group];
    QN_ASSERT(group->load_rows >= request->n_load_rows);
    group->load_rows += n_rows - request->n_load_rows;
    request->n_load_rows = n_rows;
}

/* ------------------------------------------------------------------------------- submission -- */

static sched_session *session_of(const qn_sched *sched, uint64_t session)
{
    const uint64_t hash = qn_rng_mix(session ^ sched->limits.hash_seed);
    return &sched->sessions[hash & (SCHED_SESSIONS - 1)];
}

/* The longest path for it in its group that leaves one row to compute. */
static qn_prefix_hint find_path(const qn_sched *sched, const sched_request *request, uint32_t group,
                                qn_prefix_hint hint)
{
    if (request->asked.needs_all_rows || !sched->limits.has_prefix_tree) {
        return (qn_prefix_hint){.page = QN_NO_PAGE};
    }
    return qn_prefix_tree_match(&sched->groups[group].pages.tree, request->asked.ids,
                                request->n_ids - 1, request->asked.salt, hint);
}

qn_prefix_hint qn_sched_find_path(const qn_sched *sched, const sched_request *request)
{
    return find_path(sched, request, request->group, request->hint);
}

/* The group that is to compute it, for good. */
static void choose_group(qn_sched *sched, sched_request *request)
{
    const uint32_t n_groups = sched->limits.n_groups;
    sched_session *const session = session_of(sched, request->asked.session);
    const bool is_known = request->asked.session != 0 && session->session == request->asked.session;
    for (uint32_t group = 0; group < n_groups && n_groups > 1; group++) {
        const qn_prefix_hint none = {0};
        sched->places[group] = (qn_route_place){
            .n_matched = find_path(sched, request, group, none).n_pages * QN_PAGE_TOKENS,
            .load_rows = qn_sched_load(sched, group),
            .is_open = true,
        };
    }
    request->group = n_groups == 1 ? 0
                                   : qn_route_choose(sched->places, n_groups,
                                                     is_known ? session->group : SCHED_NOBODY);
    QN_ASSERT(request->group < n_groups);
    if (request->asked.session != 0) {
        *session = (sched_session){request->asked.session, request->group};
    }
    request->hint = (qn_prefix_hint){0};
    request->hint = qn_sched_find_path(sched, request);
}

bool qn_sched_submit(qn_request_id *id, qn_sched *sched, const qn_sched_request *asked,
                     uint64_t now_us)
{
    QN_ASSERT(asked->n_ids >= 1 && asked->n_ids < sched->n_ids_max);
    QN_ASSERT(asked->max_tokens >= 1);
    QN_ASSERT(
        asked->draft_tokens == QN_DRAFT_AUTO ||
        (asked->draft_tokens >= 0 && (uint32_t)asked->draft_tokens <= sched->limits.n_draft_max));
    QN_ASSERT(asked->priority >= -QN_SCHED_PRIORITY_MAX &&
              asked->priority <= QN_SCHED_PRIORITY_MAX);
    QN_ASSERT(now_us <= INT64_MAX / 2);
    if (sched->n_new_waiting == sched->limits.n_queue || sched->n_free_places == 0) {
        return false;
    }
    const uint32_t place = sched->free_places[sched->first_free_place];
    sched->first_free_place = (sched->first_free_place + 1) % sched->n_places;
    sched->n_free_places--;
    sched_request *const request = &sched->requests[place];
    const uint64_t serial = (request->id >> 32) + 1;
    QN_ASSERT(request->phase == SCHED_FREE);
    QN_ASSERT(serial <= UINT32_MAX);
    *request = (sched_request){
        .asked = *asked,
        .id = serial << 32 | place,
        .item = {(int64_t)now_us - (int64_t)asked->priority * QN_SCHED_PRIORITY_US,
                 ++sched->n_submitted, place},
        .phase = SCHED_WAITING,
        .n_ids = asked->n_ids,
        .n_ids_max = sched->n_ids_max,
    };
    if (asked->max_tokens < sched->n_ids_max - asked->n_ids) {
        request->n_ids_max = asked->n_ids + asked->max_tokens;
    }
    qn_draft_record_init(&request->draft);
    choose_group(sched, request);
    qn_sched_set_load(sched, request, asked->n_ids - request->hint.n_pages * QN_PAGE_TOKENS);
    qn_order_push(&sched->groups[request->group].waiting, request->item);
    sched->n_new_waiting++;
    if (asked->deadline_us != 0) {
        const uint64_t key = asked->deadline_us < INT64_MAX ? asked->deadline_us : INT64_MAX;
        qn_order_push(&sched->deadlines,
                      (qn_order_item){(int64_t)key, request->item.number, place});
    }
    *id = request->id;
    return true;
}

/* ------------------------------------------------------------------------------------- ends -- */

/* Where a running request stands in the order: a search by halves. */
static uint32_t find_running(const qn_sched *sched, const sched_request *request)
{
    uint32_t first = 0;
    uint32_t n = sched->n_running;
    while (n > 0) {
        const uint32_t middle = first + n / 2;
        if (qn_order_is_before(&sched->requests[sched->running[middle]].item, &request->item)) {
            first = middle + 1;
            n -= n / 2 + 1;
        } else {
            n /= 2;
        }
    }
    return first;
}

void qn_sched_start_running(qn_sched *sched, sched_request *request)
{
    QN_ASSERT(request->phase == SCHED_WAITING);
    QN_ASSERT(sched->n_free_slots > 0);
    const uint32_t i = find_running(sched, request);
    memmove(&sched->running[i + 1], &sched->running[i],
            (sched->n_running - i) * sizeof *sched->running);
    sched->running[i] = request->item.place;
    sched->n_running++;
    sched->groups[request->group].n_running++;
    qn_order_remove(&sched->groups[request->group].waiting, request->item.place);
    sched->n_new_waiting -= !request->was_admitted;
    request->phase = SCHED_RUNNING;
    request->slot = sched->free_slots[--sched->n_free_slots];
    request->table = sched->tables + (size_t)request->slot * sched->n_pages_max;
}

void qn_sched_stop_running(qn_sched *sched, sched_request *request)
{
    QN_ASSERT(request->phase == SCHED_RUNNING);
    sched_group *const group = &sched->groups[request->group];
    const uint32_t i = find_running(sched, request);
    QN_ASSERT(sched->running[i] == request->item.place);
    QN_ASSERT(group->n_promised >= request->n_promised);
    sched->n_running--;
    memmove(&sched->running[i], &sched->running[i + 1],
            (sched->n_running - i) * sizeof *sched->running);
    qn_pages_release_path(&group->pages, request->table, request->n_table);
    request->n_table = 0;
    group->n_promised -= request->n_promised;
    group->n_running--;
    sched->free_slots[sched->n_free_slots++] = request->slot;
    sched->n_rows_left += request->n_rows;
    request->n_rows = 0;
    request->n_drafts = 0;
}

void qn_sched_finish(qn_sched *sched, sched_request *request, qn_sched_end_reason reason)
{
    if (request->phase == SCHED_RUNNING) {
        qn_sched_stop_running(sched, request);
    } else {
        QN_ASSERT(request->phase == SCHED_WAITING);
        qn_order_remove(&sched->groups[request->group].waiting, request->item.place);
        sched->n_new_waiting -= !request->was_admitted;
    }
    if (request->asked.deadline_us != 0) {
        qn_order_remove(&sched->deadlines, request->item.place);
    }
    qn_sched_set_load(sched, request, 0);
    request->phase = SCHED_ENDED;
    request->reason = reason;
    request->next_ended = SCHED_NOBODY;
    if (sched->first_ended == SCHED_NOBODY) {
        sched->first_ended = request->item.place;
    } else {
        sched->requests[sched->last_ended].next_ended = request->item.place;
    }
    sched->last_ended = request->item.place;
    sched->counts.n_ended[reason]++;
}

void qn_sched_end_request(qn_sched *sched, qn_request_id id, qn_sched_end_reason reason)
{
    QN_ASSERT(reason <= QN_SCHED_END_ERROR);
    sched_request *const request = qn_sched_find(sched, id);
    if (request != NULL) {
        qn_sched_finish(sched, request, reason);
    }
}

void qn_sched_cancel(qn_sched *sched, qn_request_id id)
{
    qn_sched_end_request(sched, id, QN_SCHED_END_CANCEL);
}

void qn_sched_expire(qn_sched *sched, uint64_t now_us)
{
    const qn_order_item *first = qn_order_first(&sched->deadlines);
    while (first != NULL && (uint64_t)first->key <= now_us) {
        qn_sched_finish(sched, &sched->requests[first->place], QN_SCHED_END_DEADLINE);
        first = qn_order_first(&sched->deadlines);
    }
}

bool qn_sched_poll_end(qn_sched_end *end, qn_sched *sched)
{
    if (sched->first_ended == SCHED_NOBODY) {
        return false;
    }
    sched_request *const request = &sched->requests[sched->first_ended];
    QN_ASSERT(request->phase == SCHED_ENDED);
    *end = (qn_sched_end){request->id, request->reason};
    sched->free_places[(sched->first_free_place + sched->n_free_places++) % sched->n_places] =
        sched->first_ended;
    sched->first_ended = request->next_ended;
    request->phase = SCHED_FREE;
    return true;
}

void qn_sched_flush(qn_sched *sched)
{
    for (uint32_t group = 0; group < sched->limits.n_groups; group++) {
        qn_pages_flush(&sched->groups[group].pages);
    }
    for (uint32_t i = 0; i < sched->n_running; i++) {
        sched->requests[sched->running[i]].is_flushed = true;
    }
}

/* ---------------------------------------------------------------------------- what is known -- */

bool qn_sched_get_state(qn_sched_state *state, const qn_sched *sched, qn_request_id id)
{
    const sched_request *const request = qn_sched_find(sched, id);
    if (request == NULL) {
        return false;
    }
    *state = (qn_sched_state){
        .n_ids = request->n_ids,
        .n_cached = request->n_cached,
        .group = request->group,
        .is_running = request->phase == SCHED_RUNNING,
    };
    return true;
}

uint64_t qn_sched_load(const qn_sched *sched, uint32_t group)
{
    QN_ASSERT(group < sched->limits.n_groups);
    return sched->groups[group].load_rows + sched->groups[group].n_running;
}

qn_sched_counts qn_sched_count(const qn_sched *sched)
{
    qn_sched_counts counts = sched->counts;
    counts.n_running = sched->n_running;
    for (uint32_t group = 0; group < sched->limits.n_groups; group++) {
        const qn_pages *const pages = &sched->groups[group].pages;
        counts.n_waiting += sched->groups[group].waiting.n_items;
        counts.n_free += pages->n_free;
        counts.n_referenced += pages->n_used;
        counts.n_cached += pages->tree.n_unused;
        counts.n_evicted += pages->n_evicted;
    }
    return counts;
}
