/* SPDX-License-Identifier: Apache-2.0 */
/* Checkers of pages: who holds them, what is in them, what may be published, shared and evicted.
 *
 * The model of a page is a number for each row that stands for the salt and all ids up to it, so
 * two rows are equal where all that they depend on is. */
#include "sim/sim.h"

static uint32_t *bucket_of(sim *s, uint32_t group, uint64_t chain)
{
    return &s->buckets[qn_rng_mix(chain + group) % s->n_buckets];
}

static uint32_t group_of(const sim *s, uint32_t i_page)
{
    return i_page / s->world.limits.n_pages;
}

/* The published page of a group whose last row is this one. */
static uint32_t find_published(sim *s, uint32_t group, uint64_t chain)
{
    uint32_t i = *bucket_of(s, group, chain);
    while (i != SIM_NONE &&
           (s->pages[i].rows[QN_PAGE_TOKENS - 1] != chain || group_of(s, i) != group)) {
        i = s->pages[i].next;
    }
    return i;
}

static uint32_t index_of(const sim *s, qn_page_id id)
{
    const qn_sched_limits *limits = &s->world.limits;
    if (qn_page_group(id) >= limits->n_groups || qn_page_index(id) >= limits->n_pages) {
        sim_fail(s, "owner", "page %u of group %u, one of %u groups of %u pages expected",
                 qn_page_index(id), qn_page_group(id), limits->n_groups, limits->n_pages);
    }
    return qn_page_group(id) * limits->n_pages + qn_page_index(id);
}

static void unpublish(sim *s, uint32_t i)
{
    sim_page *page = &s->pages[i];
    uint32_t *link = bucket_of(s, group_of(s, i), page->rows[QN_PAGE_TOKENS - 1]);
    while (*link != i) {
        QN_ASSERT(*link != SIM_NONE);
        link = &s->pages[*link].next;
    }
    *link = page->next;
    page->is_published = false;
    s->n_cached -= page->n_refs == 0;
    if (page->parent != SIM_NONE) {
        s->pages[page->parent].n_children--;
    }
}

static void publish(sim *s, uint32_t i)
{
    sim_page *page = &s->pages[i];
    const uint32_t group = group_of(s, i);
    if (!s->world.limits.has_prefix_tree || page->is_published) {
        sim_fail(s, "publish", "page %u: published %s", i,
                 page->is_published ? "a second time" : "though there is no prefix tree");
    }
    if (page->true_rows != UINT64_MAX || page->n_verified < QN_PAGE_TOKENS) {
        sim_fail(s, "publish",
                 "page %u: published with rows %#llx true and %u complete, all expected", i,
                 (unsigned long long)page->true_rows, page->n_verified);
    }
    s->totals.n_published++;
    if (s->is_flushed) { /* in no tree any more */
        page->is_passing = true;
        return;
    }
    const uint64_t chain = page->rows[QN_PAGE_TOKENS - 1];
    const uint32_t equal = find_published(s, group, chain);
    if (equal != SIM_NONE && s->pages[equal].n_refs == 0 && s->n_ghosts > 0) {
        unpublish(s, equal); /* this one was evicted */
        s->totals.n_evicted++;
        s->n_ghosts--;
    } else if (equal != SIM_NONE) {
        sim_fail(s, "publish",
                 "page %u: its tokens are published already as page %u, an exchange expected", i,
                 equal);
    }
    page->parent = page->i_page == 0 ? SIM_NONE : find_published(s, group, page->before);
    if (page->i_page != 0 && page->parent == SIM_NONE) {
        sim_fail(s, "publish", "page %u: the page before it (place %u) is not published", i,
                 page->i_page - 1);
    }
    if (page->parent != SIM_NONE) {
        s->pages[page->parent].n_children++;
    }
    uint32_t *head = bucket_of(s, group, chain);
    page->next = *head;
    *head = i;
    page->is_published = true;
    page->last_used_max = s->n_calls;
    s->n_cached += page->n_refs == 0;
    page->n_children = 0;
}

static void drop_reference(sim *s, uint32_t i)
{
    sim_page *page = &s->pages[i];
    QN_ASSERT(page->n_refs > 0);
    if (--page->n_refs == 0) {
        page->last_used = page->last_used_max = s->n_calls;
        s->n_referenced--;
        s->n_cached += page->is_published;
    }
}

static void add_reference(sim *s, uint32_t i)
{
    sim_page *page = &s->pages[i];
    if (page->n_refs++ == 0) {
        s->n_referenced++;
        s->n_cached -= page->is_published;
    }
}

void sim_pages_release(sim *s, sim_request *r)
{
    if (r->slot == SIM_NONE) {
        return;
    }
    sim_slot *slot = &s->slots[r->slot];
    QN_ASSERT(slot->request == r);
    for (uint32_t i = 0; i < s->n_table; i++) {
        const uint32_t i_page = slot->table[i];
        if (i_page == SIM_NONE) {
            continue;
        }
        const sim_page *page = &s->pages[i_page];
        if (!page->is_published && page->n_verified == QN_PAGE_TOKENS) {
            const uint32_t equal =
                find_published(s, group_of(s, i_page), page->rows[QN_PAGE_TOKENS - 1]);
            if (equal != SIM_NONE) {
                s->pages[equal].last_used_max = s->n_calls;
            }
        }
        drop_reference(s, i_page);
        slot->table[i] = SIM_NONE;
    }
    slot->request = NULL;
    r->slot = r->group = SIM_NONE;
    r->is_running = r->has_drawn = false;
    r->n_ordered_tokens = 0;
}

void sim_pages_forget(sim *s, bool are_lost)
{
    const uint32_t n_pages = s->world.limits.n_groups * s->world.limits.n_pages;
    for (uint32_t i = 0; i < s->n_buckets; i++) {
        s->buckets[i] = SIM_NONE;
    }
    s->n_cached = 0;
    s->n_ghosts = 0;
    s->totals.n_evicted = qn_sched_count(s->sched).n_evicted;
    for (uint32_t i = 0; i < n_pages; i++) {
        sim_page *page = &s->pages[i];
        page->is_passing = page->is_published;
        page->is_published = false;
        page->n_children = 0;
        page->parent = SIM_NONE;
        if (are_lost) {
            page->true_rows = 0;
            page->n_verified = 0;
        }
    }
}

/* A cached page is given away: it is the group's latest in this step where it was used last. */
static void evict(sim *s, uint32_t i, uint32_t *latest)
{
    const uint32_t group = group_of(s, i);
    unpublish(s, i);
    s->totals.n_evicted++;
    if (latest[group] == SIM_NONE || s->pages[i].last_used > s->pages[latest[group]].last_used) {
        latest[group] = i;
    }
}

/* Pages that are evicted and not known to be lose a page before them that was evicted after. */
static void leave_ghosts(sim *s)
{
    for (uint32_t i = 0; i < s->world.limits.n_groups * s->world.limits.n_pages; i++) {
        sim_page *page = &s->pages[i];
        if (page->is_published && page->parent != SIM_NONE &&
            !s->pages[page->parent].is_published) {
            page->parent = SIM_NONE;
        }
    }
    for (uint32_t i = 0; i < s->step.n_pages; i++) {
        sim_page *page = &s->pages[index_of(s, s->step.pages[i].page)];
        page->n_children = page->is_published ? page->n_children : 0;
    }
}

/* After all page tables of the step: nothing that was unused for longer may still be there.
 * A parent is used whenever its child is, so it does not matter in which order leaves went. */
static void check_evictions(sim *s, const uint32_t *latest)
{
    const uint64_t n_evicted = qn_sched_count(s->sched).n_evicted;
    if (n_evicted < s->totals.n_evicted) {
        sim_fail(s, "counts", "evictions: %llu counted, at least %llu expected",
                 (unsigned long long)n_evicted, (unsigned long long)s->totals.n_evicted);
    }
    /* A ghost may be given away now and be taken for a page that is evicted now. */
    const bool had_ghosts = s->n_ghosts > 0;
    s->n_ghosts = n_evicted - s->totals.n_evicted;
    if (s->n_ghosts > 0 || had_ghosts) {
        leave_ghosts(s); /* which leaf is the last is not known */
        return;
    }
    const uint32_t n_pages = s->world.limits.n_pages;
    for (uint32_t group = 0; group < s->world.limits.n_groups; group++) {
        const uint32_t i_evicted = latest[group];
        if (i_evicted == SIM_NONE) {
            continue;
        }
        const uint64_t last_used = s->pages[i_evicted].last_used;
        for (uint32_t i = group * n_pages; i < (group + 1) * n_pages; i++) {
            const sim_page *page = &s->pages[i];
            if (page->n_refs > 0) {
                continue;
            }
            if (!page->is_published && s->n_preempted_now == 0) {
                sim_fail(s, "eviction", "page %u: evicted while page %u is free", i_evicted, i);
            }
            if (page->is_published && page->n_children == 0 && page->last_used_max < last_used) {
                sim_fail(s, "eviction",
                         "page %u, unused since call %llu: evicted before leaf %u, unused since "
                         "call %llu",
                         i_evicted, (unsigned long long)last_used, i,
                         (unsigned long long)page->last_used_max);
            }
        }
    }
    for (uint32_t i = 0; i < s->step.n_pages; i++) {
        const uint32_t i_page = index_of(s, s->step.pages[i].page);
        if (!s->pages[i_page].is_published && s->pages[i_page].n_children > 0) {
            sim_fail(s, "eviction", "page %u: evicted before %u pages that continue it", i_page,
                     s->pages[i_page].n_children);
        }
    }
}

static void begin(sim *s, const qn_step_begin *b)
{
    sim_request *r = sim_request_find(s, b->request);
    if (r == NULL || b->slot >= s->world.limits.n_slots || s->slots[b->slot].request != NULL) {
        sim_fail(s, "slots",
                 "slot %u: given to request %llx, a free slot and a live request "
                 "expected",
                 b->slot, (unsigned long long)b->request);
    }
    if (r->is_running) {
        sim_fail(s, "slots", "r%u: gets slot %u, it has slot %u", r->number, b->slot, r->slot);
    }
    const uint32_t n_ids = r->n_prompt + r->n_drawn;
    const bool may_share = s->world.limits.has_prefix_tree && !r->needs_all_rows;
    if (b->n_cached % QN_PAGE_TOKENS != 0 || b->n_cached >= n_ids ||
        (b->n_cached > 0 && !may_share)) {
        sim_fail(s, "content", "r%u: begins with %u of %u ids cached, %s expected", r->number,
                 b->n_cached, n_ids, may_share ? "whole pages and a row to compute" : "none");
    }
    sim_slot *slot = &s->slots[b->slot];
    slot->request = r;
    slot->n_ids = n_ids;
    slot->n_computed = slot->n_complete = slot->n_told = slot->n_cached = b->n_cached;
    if (!r->was_admitted) {
        s->totals.n_queried += r->n_prompt;
        s->totals.n_hit += b->n_cached;
    }
    r->slot = b->slot;
    r->is_running = r->was_admitted = true;
    r->n_begun++;
}

static void share(sim *s, const sim_slot *slot, uint32_t i_page, uint32_t i)
{
    const sim_page *page = &s->pages[i];
    sim_request *r = slot->request;
    if (!page->is_published && !(page->is_passing && s->is_flushed)) {
        sim_fail(s, "content", "r%u: page %u is shared, it is not published", r->number, i);
    }
    if ((i_page + 1) * QN_PAGE_TOKENS > slot->n_computed) {
        sim_fail(s, "content", "r%u: page %u is shared at place %u, %u positions are computed",
                 r->number, i, i_page, slot->n_computed);
    }
    for (uint32_t row = 0; row < QN_PAGE_TOKENS; row++) {
        const uint32_t position = i_page * QN_PAGE_TOKENS + row;
        if (page->rows[row] != sim_chain(s, r, position) || (page->true_rows >> row & 1) == 0) {
            sim_fail(s, "content",
                     "r%u: page %u is shared, its row for position %u is of other "
                     "tokens",
                     r->number, i, position);
        }
    }
}

static void give(sim *s, sim_slot *slot, uint32_t i_page, uint32_t i, uint32_t *latest)
{
    sim_page *page = &s->pages[i];
    sim_request *r = slot->request;
    if (page->n_refs > 0) {
        sim_fail(s, "owner", "r%u: page %u is given to it, %u sequences hold it", r->number, i,
                 page->n_refs);
    }
    if (i_page > (slot->n_ids + 2 * QN_STEP_TOKENS_MAX) / QN_PAGE_TOKENS) {
        sim_fail(s, "budget", "r%u: a page for place %u of its table, it has %u ids", r->number,
                 i_page, slot->n_ids);
    }
    if (page->is_published) {
        evict(s, i, latest);
    }
    page->i_page = i_page;
    page->before = i_page == 0 ? sim_chain_root(r) : sim_chain(s, r, i_page * QN_PAGE_TOKENS - 1);
    page->true_rows = 0;
    page->n_verified = 0;
}

static void set_page(sim *s, const qn_step_page *entry, uint32_t *latest)
{
    sim_slot *slot = &s->slots[entry->slot];
    sim_request *r = slot->request;
    const uint32_t i = index_of(s, entry->page);
    const uint32_t group = group_of(s, i);
    if (r->group != SIM_NONE && r->group != group) {
        sim_fail(s, "owner", "r%u: page of group %u, its pages are of group %u", r->number, group,
                 r->group);
    }
    if (slot->table[entry->i_page] != SIM_NONE) {
        sim_fail(s, "owner", "r%u: place %u of its table is set twice in a step", r->number,
                 entry->i_page);
    }
    r->group = group;
    if (entry->is_shared) {
        share(s, slot, entry->i_page, i);
    } else {
        give(s, slot, entry->i_page, i, latest);
    }
    slot->table[entry->i_page] = i;
    add_reference(s, i);
}

/* Exchanged pages go first: others may get them in the same step. */
static void take_back(sim *s, const qn_step_page *entry)
{
    if (entry->slot >= s->world.limits.n_slots || s->slots[entry->slot].request == NULL ||
        entry->i_page >= s->n_table) {
        sim_fail(s, "owner",
                 "page entry %u of slot %u, an entry below %u of a slot in use expected",
                 entry->i_page, entry->slot, s->n_table);
    }
    uint32_t *place = &s->slots[entry->slot].table[entry->i_page];
    if (*place == SIM_NONE) {
        return;
    }
    if (!entry->is_shared || s->pages[*place].is_published) {
        sim_fail(s, "owner", "r%u: page %u at place %u is replaced by a page that is %s",
                 s->slots[entry->slot].request->number, *place, entry->i_page,
                 entry->is_shared ? "published as well" : "not shared");
    }
    drop_reference(s, *place);
    *place = SIM_NONE;
    s->totals.n_exchanged++;
}

/* All that the tree has of a prompt is taken from it. */
static void check_match(sim *s, const qn_step_begin *b)
{
    const sim_slot *slot = &s->slots[b->slot];
    sim_request *r = slot->request;
    const uint32_t n_pages = b->n_cached / QN_PAGE_TOKENS;
    for (uint32_t i = 0; i < n_pages; i++) {
        if (slot->table[i] == SIM_NONE) {
            sim_fail(s, "content", "r%u: begins with %u ids cached, place %u of its table is empty",
                     r->number, b->n_cached, i);
        }
    }
    const uint32_t end = (n_pages + 1) * QN_PAGE_TOKENS;
    if (r->group == SIM_NONE || r->needs_all_rows || end >= slot->n_ids) {
        return;
    }
    const uint32_t page = find_published(s, r->group, sim_chain(s, r, end - 1));
    if (page != SIM_NONE && (s->n_ghosts == 0 || s->pages[page].n_refs > 0)) {
        sim_fail(s, "match", "r%u: begins with %u of %u ids cached, page %u has the next %u",
                 r->number, b->n_cached, slot->n_ids, page, QN_PAGE_TOKENS);
    }
}

void sim_pages_apply(sim *s)
{
    const qn_step *step = &s->step;
    uint32_t latest[QN_PAGE_GROUPS_MAX];
    for (uint32_t group = 0; group < QN_PAGE_GROUPS_MAX; group++) {
        latest[group] = SIM_NONE;
    }
    for (uint32_t i = 0; i < step->n_published; i++) {
        publish(s, index_of(s, step->published[i]));
    }
    for (uint32_t i = 0; i < step->n_begins; i++) {
        begin(s, &step->begins[i]);
    }
    for (uint32_t i = 0; i < step->n_pages; i++) {
        take_back(s, &step->pages[i]);
    }
    for (uint32_t i = 0; i < step->n_pages; i++) {
        set_page(s, &step->pages[i], latest);
    }
    check_evictions(s, latest);
    for (uint32_t i = 0; i < step->n_begins; i++) {
        check_match(s, &step->begins[i]);
    }
}

void sim_pages_write(sim *s, sim_slot *slot, uint32_t position, uint64_t chain, bool is_true)
{
    const uint32_t i_page = position / QN_PAGE_TOKENS;
    const uint32_t i = i_page < s->n_table ? slot->table[i_page] : SIM_NONE;
    if (i == SIM_NONE) {
        sim_fail(s, "positions", "r%u: a row at position %u, no page beneath",
                 slot->request->number, position);
    }
    sim_page *page = &s->pages[i];
    if (page->is_published || page->n_refs != 1) {
        sim_fail(s, "owner", "r%u: a row is written to page %u that is %s and held by %u",
                 slot->request->number, i, page->is_published ? "published" : "not published",
                 page->n_refs);
    }
    const uint32_t row = position % QN_PAGE_TOKENS;
    page->rows[row] = chain;
    page->true_rows = is_true ? page->true_rows | 1ULL << row : page->true_rows & ~(1ULL << row);
}

void sim_pages_verified(sim *s, sim_slot *slot, uint32_t n_complete)
{
    for (uint32_t i = slot->n_told / QN_PAGE_TOKENS; i * QN_PAGE_TOKENS < n_complete; i++) {
        const uint32_t n = n_complete - i * QN_PAGE_TOKENS;
        if (slot->table[i] != SIM_NONE) {
            s->pages[slot->table[i]].n_verified = n < QN_PAGE_TOKENS ? n : QN_PAGE_TOKENS;
        }
    }
    slot->n_told = n_complete > slot->n_told ? n_complete : slot->n_told;
}

void sim_pages_count(sim *s)
{
    const qn_sched_limits *limits = &s->world.limits;
    const qn_sched_counts counts = qn_sched_count(s->sched);
    const uint32_t n_all = limits->n_groups * limits->n_pages;
    if (counts.n_free + counts.n_referenced + counts.n_cached != n_all) {
        sim_fail(s, "pages", "%u free, %u referenced and %u cached pages, %u in all expected",
                 counts.n_free, counts.n_referenced, counts.n_cached, n_all);
    }
    if (counts.n_referenced != s->n_referenced || counts.n_cached + s->n_ghosts != s->n_cached) {
        sim_fail(s, "pages", "%u referenced and %u cached pages, %u and %u expected",
                 counts.n_referenced, counts.n_cached, s->n_referenced,
                 s->n_cached - (uint32_t)s->n_ghosts);
    }
    const sim_totals *t = &s->totals;
    const struct {
        const char *what;
        uint64_t seen, expected;
    } rows[] = {
        {"prompt ids asked for", counts.n_queried_tokens, t->n_queried},
        {"prompt ids cached", counts.n_hit_tokens, t->n_hit},
        {"preemptions", counts.n_preempted, t->n_preempted},
        {"rows", counts.n_rows, t->n_rows},
        {"steps", counts.n_steps, t->n_steps},
        {"ends by stop", counts.n_ended[QN_SCHED_END_STOP], t->n_ended[QN_SCHED_END_STOP]},
        {"ends by length", counts.n_ended[QN_SCHED_END_LENGTH], t->n_ended[QN_SCHED_END_LENGTH]},
        {"ends by cancel", counts.n_ended[QN_SCHED_END_CANCEL], t->n_ended[QN_SCHED_END_CANCEL]},
        {"ends by deadline", counts.n_ended[QN_SCHED_END_DEADLINE],
         t->n_ended[QN_SCHED_END_DEADLINE]},
        {"ends by error", counts.n_ended[QN_SCHED_END_ERROR], t->n_ended[QN_SCHED_END_ERROR]},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].seen != rows[i].expected) {
            sim_fail(s, "counts", "%s: %llu counted, %llu expected", rows[i].what,
                     (unsigned long long)rows[i].seen, (unsigned long long)rows[i].expected);
        }
    }
}
