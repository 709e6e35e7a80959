/* SPDX-License-Identifier: Apache-2.0 */
/* A seed from its beginning to its end: time, plans, results. */
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

static void *make(size_t n, size_t bytes)
{
    void *memory = calloc(n, bytes);
    QN_ASSERT(memory != NULL);
    return memory;
}

static void open_sim(sim *s)
{
    sim_world_make(&s->world, s->seed);
    const qn_sched_limits *limits = &s->world.limits;
    const uint64_t n_held = (uint64_t)limits->n_pages * QN_PAGE_TOKENS;
    s->cap = limits->n_context < n_held ? limits->n_context : (uint32_t)n_held;
    s->client_rng = (sim_rng){s->seed, 2, 0};
    s->engine_rng = (sim_rng){s->seed, 3, 0};
    const size_t size_bytes = qn_sched_bytes(limits);
    const size_t n_units = size_bytes / 64 + (size_bytes % 64 != 0);
    s->memory = aligned_alloc(64, n_units * 64);
    QN_ASSERT(s->memory != NULL);
    /* What is read before it is written differs from run to run. */
    static unsigned char filler = 0x5A;
    memset(s->memory, filler, n_units * 64);
    filler = (unsigned char)(filler * 5 + 1);
    s->sched = qn_sched_init(s->memory, limits);
    s->n_places = limits->n_slots + limits->n_queue;
    s->live = make(s->n_places, sizeof(void *));
    s->by_place = make(s->n_places, sizeof(void *));
    s->n_table = qn_pages_for(limits->n_context);
    s->slots = make(limits->n_slots, sizeof *s->slots);
    s->seq_of_slot = make(limits->n_slots, sizeof *s->seq_of_slot);
    for (uint32_t i = 0; i < limits->n_slots; i++) {
        s->slots[i].table = make(s->n_table, sizeof *s->slots[i].table);
        for (uint32_t j = 0; j < s->n_table; j++) {
            s->slots[i].table[j] = SIM_NONE;
        }
    }
    const uint32_t n_pages = limits->n_groups * limits->n_pages;
    s->pages = make(n_pages, sizeof *s->pages);
    s->n_buckets = n_pages;
    s->buckets = make(s->n_buckets, sizeof *s->buckets);
    sim_pages_forget(s, true);
    sim_clients_open(s);
}

static void close_sim(sim *s)
{
    sim_clients_close(s);
    for (uint32_t i = 0; i < s->world.limits.n_slots; i++) {
        free(s->slots[i].table);
    }
    free(s->slots);
    free(s->seq_of_slot);
    free(s->pages);
    free(s->buckets);
    free(s->live);
    free(s->by_place);
    free(s->memory);
    free(s);
}

/* Every field of the step that means something. */
static void hash_step(sim *s)
{
    const qn_step *step = &s->step;
    uint64_t h = qn_rng_u64(s->hash, step->n_seqs, step->n_rows);
    for (uint32_t i = 0; i < step->n_published; i++) {
        h = qn_rng_mix(h ^ step->published[i]);
    }
    for (uint32_t i = 0; i < step->n_begins; i++) {
        const qn_step_begin *begin = &step->begins[i];
        h = qn_rng_u64(h, begin->request, (uint64_t)begin->slot << 32 | begin->n_cached);
    }
    for (uint32_t i = 0; i < step->n_pages; i++) {
        const qn_step_page *page = &step->pages[i];
        h = qn_rng_mix(h ^ ((uint64_t)page->slot << 32 | page->page));
        h = qn_rng_mix(h ^ ((uint64_t)page->i_page << 1 | page->is_shared));
    }
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const qn_step_seq *seq = &step->seqs[i];
        h = qn_rng_u64(h, seq->request, (uint64_t)seq->slot << 32 | seq->n_rows);
        h = qn_rng_u64(h, seq->n_drafts, seq->is_prompt ? 1 + (uint64_t)seq->first : 0);
        h = qn_rng_mix(h ^ seq->is_drawing);
    }
    s->hash = h;
}

static void plan(sim *s)
{
    s->n_calls++;
    s->n_plans++;
    sim_request_mark_deadlines(s);
    qn_sched_plan(&s->step, s->sched, s->now_us);
    hash_step(s);
    sim_step_check_form(s);
    sim_tell_step(s);
    sim_request_poll(s);
    sim_request_check_due(s);
    sim_step_sync_running(s);
    sim_pages_apply(s);
    s->totals.n_rows += s->step.n_rows;
    s->totals.n_steps += s->step.n_seqs > 0;
    sim_pages_count(s);
    sim_step_check_order(s);
    s->last_number = s->step.number;
    if (s->step.n_seqs > 0) {
        sim_engine_run(s);
    }
}

/* Before a plan, or behind it before results: so that it is known which side of the flush a
 * publication is on. */
static bool flush_sometimes(sim *s)
{
    if (s->is_calm || !sim_rng_chance(&s->engine_rng, s->world.p_flush)) {
        return false;
    }
    sim_tell(s, "the cache is flushed");
    s->n_calls++;
    s->totals.n_flushes++;
    qn_sched_flush(s->sched);
    sim_pages_forget(s, false);
    return true;
}

/* A result comes when the device is done; meanwhile clients do what they do. */
static void deliver(sim *s)
{
    const uint64_t ready_us = s->flights[s->first_flight].ready_us;
    s->now_us = ready_us > s->now_us ? ready_us : s->now_us;
    sim_clients_act(s);
    sim_engine_deliver(s);
}

static void wait_for_result(sim *s)
{
    const bool may_be_late = s->step.n_seqs > 0 && s->n_flights <= s->world.limits.lag;
    if (s->n_flights > 0 && !(may_be_late && sim_rng_chance(&s->engine_rng, s->world.p_late))) {
        deliver(s);
    }
    while (s->n_flights > s->world.limits.lag) {
        deliver(s);
    }
}

uint64_t sim_run(uint64_t seed, uint64_t n_steps, bool tells_story, sim_totals *totals)
{
    sim *s = make(1, sizeof *s);
    s->seed = seed;
    s->n_steps_wanted = n_steps;
    s->tells_story = tells_story;
    open_sim(s);
    if (tells_story) {
        sim_world_print(&s->world, seed);
    }
    for (;;) {
        if (!s->is_calm && s->n_plans >= n_steps) {
            s->is_calm = true;
            sim_tell(s, "calm: no faults, no new requests");
        }
        sim_clients_act(s);
        s->is_flushed = flush_sometimes(s);
        plan(s);
        flush_sometimes(s);
        wait_for_result(s);
        if (s->n_live == 0 && s->n_flights == 0) {
            const uint64_t next_us = sim_clients_next_us(s);
            if (next_us == UINT64_MAX) {
                break;
            }
            s->now_us = next_us > s->now_us ? next_us : s->now_us;
        }
    }
    s->is_flushed = false;
    plan(s); /* publishes what the last results completed */
    const qn_sched_counts counts = qn_sched_count(s->sched);
    if (counts.n_running + counts.n_waiting + counts.n_referenced != 0) {
        sim_fail(s, "pages",
                 "%u running, %u waiting, %u referenced pages after all has ended, 0 "
                 "expected",
                 counts.n_running, counts.n_waiting, counts.n_referenced);
    }
    sim_tell_summary(s);
    const uint64_t hash = s->hash;
    *totals = s->totals;
    close_sim(s);
    return hash;
}
