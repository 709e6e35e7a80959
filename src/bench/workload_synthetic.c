/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts that are made: a shared part of a group, if there is one, and an own part. */
#include "base/rng.h"
#include "base/try.h"
#include "workload_internal.h"

#include <errno.h>
#include <math.h>

/* What draws are for: streams of random numbers that depend on the seed alone. */
enum { DRAW_INPUT = 1, DRAW_OUTPUT, DRAW_ORDER };

/* Of the own part of a warm-up request: behind the shared part has to stand something. */
enum { WARM_TOKENS = 16 };

static uint32_t draw_length(const bench_workload_options *o, uint32_t length, uint64_t stream,
                            uint64_t i)
{
    const bool is_around = o->range == BENCH_RANGE_AROUND;
    const double low = floor(length * (is_around ? 1.0 - o->range_ratio : o->range_ratio));
    const double high = is_around ? ceil(length * (1.0 + o->range_ratio)) : length;
    const double least = low < 1.0 ? 1.0 : low;
    return (uint32_t)(least + floor(qn_rng_unit(o->seed, stream, i) * (high - least + 1.0)));
}

/* Which group each conversation is of: as many of each, in random order (Fisher & Yates). */
static void shuffle_groups(uint32_t *groups, uint64_t n, uint32_t n_groups, uint64_t seed)
{
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t other = qn_rng_u64(seed, DRAW_ORDER, i) % (i + 1);
        groups[i] = groups[other];
        groups[other] = (uint32_t)(i % n_groups);
    }
}

static qn_status make_shared(bench_maker *m, uint32_t n_groups)
{
    bench_workload *const w = m->workload;
    qn_status status = QN_OK;
    if (m->o.n_prefix == 0) {
        return QN_OK;
    }
    QN_TRY(status, bench_make_pieces(m, n_groups), fail);
    for (uint32_t i = 0; i < n_groups; i++) {
        bench_piece *const piece = &w->pieces[i];
        piece->n_tokens = m->o.n_prefix;
        QN_TRY(status,
               bench_exact_append(&piece->text, m->exact, BENCH_TEXT_SHARED, i, false,
                                  m->o.n_prefix, m->err),
               fail);
        QN_TRY(status, bench_make_progress(m, i, n_groups + w->n_items), fail);
    }
fail:
    return status;
}

/* The own part of a request, and what is known of the whole. */
static qn_status make_item(bench_maker *m, bench_item *item, uint64_t i)
{
    const bool is_first = i % m->workload->n_turns == 0;
    /* Later turns of a chat are messages of their own. */
    const bool is_begun = is_first ? m->o.n_prefix > 0 : m->o.api == BENCH_COMPLETIONS;
    const uint32_t n_template = is_first ? m->o.n_template : 0;
    const uint32_t n_input = draw_length(&m->o, m->o.n_input, DRAW_INPUT, i);
    const uint32_t n_own = n_input > n_template ? n_input - n_template : 1;
    const uint32_t n_prefix = is_first ? m->o.n_prefix : 0;
    qn_status status = QN_OK;
    item->form = m->o.sends_ids ? BENCH_PROMPT_IDS : BENCH_PROMPT_TEXT;
    item->n_links = n_prefix > 0 ? 1 : 0;
    item->n_shared = n_prefix;
    item->n_prompt = n_prefix + n_own + n_template;
    item->n_output = draw_length(&m->o, m->o.n_output, DRAW_OUTPUT, i);
    QN_TRY(status,
           bench_exact_append(&item->own, m->exact, BENCH_TEXT_OWN, i, is_begun, n_own, m->err),
           fail);
    QN_TRY(status, bench_make_end(m, item), fail);
    QN_TRY(status, bench_make_check(m, item, n_prefix + n_own), fail);
fail:
    return status;
}

static qn_status make_items(bench_maker *m, uint32_t n_groups)
{
    bench_workload *const w = m->workload;
    const uint64_t n_conversations = (w->n_items + w->n_turns - 1) / w->n_turns;
    qn_status status = QN_OK;
    w->links = calloc(n_conversations, sizeof *w->links);
    w->n_links = n_conversations;
    if (w->links == NULL) {
        return qn_fail(m->err, QN_E_NOMEM, ENOMEM, __func__, "workload: no memory for its groups");
    }
    shuffle_groups(w->links, n_conversations, n_groups, m->o.seed);
    for (uint64_t i = 0; i < w->n_items; i++) {
        w->items[i].first_link = i / w->n_turns;
        QN_TRY(status, make_item(m, &w->items[i], i), fail);
        QN_TRY(status, bench_make_progress(m, n_groups + i, n_groups + w->n_items), fail);
    }
fail:
    return status;
}

/* A request of each group that leaves its shared part in the cache.  Behind the links of items
 * stand those of these. */
static qn_status make_warm(bench_maker *m)
{
    bench_workload *const w = m->workload;
    qn_status status = QN_OK;
    uint32_t *const links = realloc(w->links, (w->n_links + w->n_pieces) * sizeof *links);
    if (links == NULL) {
        return qn_fail(m->err, QN_E_NOMEM, ENOMEM, __func__, "workload: no memory to warm it");
    }
    w->links = links;
    w->warm = calloc(w->n_pieces > 0 ? w->n_pieces : 1, sizeof *w->warm);
    if (w->warm == NULL) {
        return qn_fail(m->err, QN_E_NOMEM, ENOMEM, __func__, "workload: no memory to warm it");
    }
    for (; w->n_warm < w->n_pieces; w->n_warm++) {
        bench_item *const item = &w->warm[w->n_warm];
        qn_buf_init(&item->own, 1 << 20);
        links[w->n_links] = (uint32_t)w->n_warm;
        item->first_link = w->n_links++;
        item->n_links = 1;
        item->form = m->o.sends_ids ? BENCH_PROMPT_IDS : BENCH_PROMPT_TEXT;
        item->n_prompt = m->o.n_prefix + WARM_TOKENS + m->o.n_template;
        item->n_output = 1;
        QN_TRY(status,
               bench_exact_append(&item->own, m->exact, BENCH_TEXT_WARM, w->n_warm, true,
                                  WARM_TOKENS, m->err),
               fail);
        item->own_len = item->own.len;
        QN_TRY(status, bench_bodies_end(&item->own, &w->bodies, item->form, 1, m->err), fail);
    }
    return QN_OK;

fail:
    w->n_warm++; /* that one is to be freed, too */
    return status;
}

static void scale_lengths(bench_maker *m)
{
    bench_workload_options *const o = &m->o;
    bench_made *const made = &m->workload->made;
    made->prefix_tokens = o->n_prefix = bench_make_scaled(o->n_prefix, o->scale);
    made->input_tokens = o->n_input = bench_make_scaled(o->n_input, o->scale);
    made->output_tokens = o->n_output = bench_make_scaled(o->n_output, o->scale);
}

qn_status bench_make_synthetic(bench_maker *maker)
{
    bench_workload *const w = maker->workload;
    bench_workload_options *const o = &maker->o;
    const uint64_t n_conversations = (o->n_requests + w->n_turns - 1) / w->n_turns;
    uint32_t n_groups = o->n_groups > 0 ? o->n_groups : 1;
    qn_status status = QN_OK;
    n_groups = n_groups < n_conversations ? n_groups : (uint32_t)n_conversations;
    scale_lengths(maker);
    w->made.n_groups = o->n_prefix > 0 ? n_groups : 0;
    if (o->n_input <= o->n_template) {
        return qn_fail(maker->err, QN_E_INVAL, 0, __func__,
                       "workload: input tokens: %u, more than the %u that the server's chat format "
                       "adds expected",
                       o->n_input, o->n_template);
    }
    QN_TRY(status,
           bench_exact_open(&maker->exact, maker->tokens, o->sends_ids, o->seed, o->salt,
                            o->shared_salt, maker->err),
           fail);
    QN_TRY(status, bench_make_items(maker, o->n_requests), fail);
    QN_TRY(status, make_shared(maker, n_groups), fail);
    QN_TRY(status, make_items(maker, n_groups), fail);
    QN_TRY(status, make_warm(maker), fail);
fail:
    return status;
}
