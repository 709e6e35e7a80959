/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/generator.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/try.h"
#include "engine/accept.h"
#include "sched/draft_depth.h"

#include <errno.h>

_Static_assert((int)QN_STOP_IDS_MAX + (int)QN_STOPS_MAX <= (int)QN_SAMPLER_STOPS_MAX,
               "a model's own stop ids and a request's");

struct qn_generator {
    qn_sequence *sequence; /* owned */
    qn_sampler *sampler;   /* owned */
    qn_draft_depth policy; /* of QN_DRAFT_AUTO: what it learned outlives a request */
    uint32_t n_vocab;
    qn_generator_state state;
    qn_generator_end end;
    uint32_t max_tokens; /* of the request, as the following */
    int32_t stop_ids[QN_SAMPLER_STOPS_MAX];
    uint32_t n_stop_ids;
    bool is_auto;
    bool with_mtp; /* the MTP layer follows */
    bool wants_prompt_logits;
    uint32_t depth;                /* unless is_auto */
    double acceptance_length;      /* 0: not pinned */
    qn_session_stats n;            /* its counts; n_computed_tokens is the sequence's to know */
    const qn_generator_sink *sink; /* borrowed during a step */
};

qn_status qn_generator_open(qn_generator **out, qn_glm *glm, const qn_sequence_options *options,
                            qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    qn_generator *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "generator: no memory");
    }
    g->n_vocab = qn_glm_config(glm)->n_vocab;
    qn_draft_depth_init(&g->policy, QN_DRAFT_TOKENS_MAX);
    QN_TRY(status, qn_sequence_open(&g->sequence, glm, options, err), fail);
    QN_TRY(status, qn_sampler_open(&g->sampler, options->kernels, g->n_vocab, err), fail);
    *out = g;
    return QN_OK;

fail:
    qn_generator_close(&g);
    return status;
}

void qn_generator_close(qn_generator **generator)
{
    if (*generator == NULL) {
        return;
    }
    qn_sequence_close(&(*generator)->sequence);
    qn_sampler_close(&(*generator)->sampler);
    free(*generator);
    *generator = NULL;
}

/* ------------------------------------------------------------------------------------- requests */

void qn_generator_begin(qn_generator *generator, const qn_generator_request *request)
{
    qn_generator *const g = generator;
    QN_ASSERT(g->state == QN_GENERATOR_IDLE);
    QN_ASSERT(request->n_ids > 0);
    QN_ASSERT(request->n_stop_ids <= QN_SAMPLER_STOPS_MAX);
    g->max_tokens = request->max_tokens;
    g->n_stop_ids = request->n_stop_ids;
    for (uint32_t i = 0; i < g->n_stop_ids; i++) {
        g->stop_ids[i] = request->stop_ids[i];
    }
    g->is_auto = request->draft_tokens == QN_DRAFT_AUTO;
    g->depth = g->is_auto ? 0 : (uint32_t)request->draft_tokens;
    g->acceptance_length = (double)request->acceptance_length;
    g->n = (qn_session_stats){.n_prompt_tokens = request->n_ids,
                              .n_draft_tokens = g->depth,
                              .is_synthetic = g->acceptance_length > 0.0};
    g->wants_prompt_logits = request->wants_prompt_logits;
    if (g->is_auto) {
        qn_draft_depth_begin(&g->policy);
    }
    g->with_mtp = g->is_auto ? !qn_draft_depth_is_given_up(&g->policy) : g->depth > 0;
    if (g->wants_prompt_logits) {
        qn_sequence_clear(g->sequence);
    }
    qn_sequence_rewind(g->sequence);
    for (uint32_t i = 0; i < request->n_ids; i++) {
        qn_sequence_append(g->sequence, request->ids[i]);
    }
    qn_sequence_begin(g->sequence, g->with_mtp);
    g->n.n_cached_tokens = qn_sequence_computed(g->sequence);
    const qn_sampler_request sampling = {.sampling = request->sampling,
                                         .prompt = request->ids,
                                         .n_prompt = request->n_ids,
                                         .stop_ids = g->stop_ids,
                                         .n_stop_ids = g->n_stop_ids,
                                         .min_tokens = request->min_tokens};
    qn_sampler_begin(g->sampler, &sampling);
    g->state = QN_GENERATOR_PROMPT;
}

static void finish(qn_generator *g, qn_generator_end end)
{
    g->state = QN_GENERATOR_IDLE;
    g->end = end;
}

void qn_generator_stop(qn_generator *generator)
{
    if (generator->state == QN_GENERATOR_PROMPT) {
        qn_sequence_drop_pending(generator->sequence);
    }
    finish(generator, QN_GENERATOR_END_SINK);
}

void qn_generator_clear(qn_generator *generator)
{
    QN_ASSERT(generator->state == QN_GENERATOR_IDLE);
    qn_sequence_clear(generator->sequence);
}

/* ---------------------------------------------------------------------------------------- steps */

/* Tokens that may still be drawn. */
static uint32_t tokens_left(const qn_generator *g)
{
    const uint32_t n_room = qn_sequence_room(g->sequence);
    const uint64_t n_left = g->max_tokens - g->n.n_generated_tokens;
    return n_left < n_room ? (uint32_t)n_left : n_room;
}

static bool is_stop(const qn_generator *g, int32_t token)
{
    for (uint32_t i = 0; i < g->n_stop_ids; i++) {
        if (g->stop_ids[i] == token) {
            return true;
        }
    }
    return false;
}

/* A token is drawn: append it, tell the sink, and see whether the answer goes on. */
static bool emit(void *context, int32_t token, const float *logits)
{
    qn_generator *const g = context;
    const uint32_t position = qn_sequence_count(g->sequence);
    qn_sequence_append(g->sequence, token);
    g->n.n_generated_tokens++;
    const bool stops = is_stop(g, token);
    const bool goes_on = g->sink->token(g->sink->context, token, position, logits, stops);
    if (stops) {
        finish(g, QN_GENERATOR_END_STOP);
    } else if (!goes_on) {
        finish(g, QN_GENERATOR_END_SINK);
    } else if (tokens_left(g) == 0) {
        finish(g, QN_GENERATOR_END_LENGTH);
    }
    return g->state != QN_GENERATOR_IDLE;
}

/* Tell the sink of the positions computed since @p first. */
static qn_status tell_rows(qn_generator *g, uint32_t first, const float *logits, qn_error *err)
{
    const uint32_t n_rows = qn_sequence_computed(g->sequence) - first;
    if (n_rows == 0 || g->sink->rows == NULL) {
        return QN_OK;
    }
    return g->sink->rows(g->sink->context, first, n_rows, qn_sequence_ids(g->sequence) + first,
                         logits, err);
}

/* A chunk of the prompt; with the last one the first token. */
static qn_status step_prompt(qn_generator *g, qn_error *err)
{
    qn_status status = QN_OK;
    qn_sequence *const s = g->sequence;
    const uint32_t first = qn_sequence_computed(s);
    const uint32_t n_rows = qn_sequence_next_rows(s, g->wants_prompt_logits);
    if (n_rows > 0) { /* none where the whole prompt and its last logits were there */
        const qn_sequence_step_options options = {
            .probe = g->sink->probe != NULL ? g->sink->probe(g->sink->context, n_rows) : NULL,
            .wants_all_logits = g->wants_prompt_logits,
            .with_mtp = g->with_mtp,
        };
        qn_sequence_step(s, &options);
        QN_TRY(status, qn_sequence_take_failure(s, err), fail);
        QN_TRY(status,
               tell_rows(g, first, g->wants_prompt_logits ? qn_sequence_step_logits(s) : NULL, err),
               fail);
    }
    if (qn_sequence_computed(s) < qn_sequence_count(s)) {
        return QN_OK;
    }
    if (tokens_left(g) == 0) {
        finish(g, QN_GENERATOR_END_LENGTH);
        return QN_OK;
    }
    g->state = QN_GENERATOR_DRAWING;
    const qn_accept_args args = {.logits = qn_sequence_logits(s),
                                 .n_vocab = g->n_vocab,
                                 .position = qn_sequence_count(s),
                                 .emit = emit,
                                 .context = g};
    uint32_t n_emitted = 0;
    uint32_t n_accepted = 0;
    QN_TRY(status, qn_accept_rows(&n_emitted, &n_accepted, g->sampler, &args, err), fail);
fail:
    return status;
}

/* How deep this step is to draft. */
static uint32_t choose_depth(qn_generator *g)
{
    const uint32_t n_left = tokens_left(g); /* one of them is drawn without a draft */
    if (!g->is_auto) {
        return g->depth < n_left ? g->depth : n_left - 1;
    }
    return g->with_mtp ? qn_draft_depth_choose(&g->policy, n_left - 1) : 0;
}

static void count_step(qn_generator *g, uint32_t n_drafts, uint32_t n_emitted, uint32_t n_accepted)
{
    g->n.n_steps++;
    g->n.n_step_tokens += n_emitted;
    g->n.n_drafted += n_drafts;
    g->n.n_accepted += n_accepted;
    g->n.n_draft_tokens = g->is_auto ? n_drafts : g->depth;
    for (uint32_t i = 0; i < n_accepted; i++) {
        g->n.n_accepted_at[i]++;
    }
}

/* Drafts, one pass over the last token and them, and the draws. */
static qn_status step_answer(qn_generator *g, qn_error *err)
{
    qn_sequence *const s = g->sequence;
    int32_t drafts[QN_DRAFT_TOKENS_MAX];
    uint32_t n_emitted = 0;
    uint32_t n_accepted = 0;
    const uint32_t first = qn_sequence_computed(s);
    if (g->is_auto && qn_draft_depth_is_given_up(&g->policy)) {
        g->with_mtp = false;
    }
    const uint32_t depth = choose_depth(g);
    const uint32_t n_backlog = qn_sequence_mtp_backlog(s);
    const uint64_t start_ns = qn_clock_ns();
    const uint32_t n_drafts = depth > 0 ? qn_sequence_draft(s, drafts, depth) : 0;
    const uint64_t drafted_ns = qn_clock_ns();
    qn_sequence_verify(s, drafts, n_drafts, g->with_mtp);
    const uint64_t verified_ns = qn_clock_ns();
    qn_status status = qn_sequence_take_failure(s, err);
    if (status < 0) { /* before a draft that is taken as it is */
        return status;
    }
    const bool is_pinned = g->acceptance_length > 0.0;
    const qn_accept_args args = {
        .logits = qn_sequence_step_logits(s),
        .drafts = drafts,
        .n_vocab = g->n_vocab,
        .n_drafts = n_drafts,
        .position = qn_sequence_count(s),
        .is_pinned = is_pinned,
        .n_forced = is_pinned ? qn_accept_forced(g->n.n_steps, g->acceptance_length, n_drafts) : 0,
        .emit = emit,
        .context = g};
    status = qn_accept_rows(&n_emitted, &n_accepted, g->sampler, &args, err);
    if (args.is_pinned) { /* the token drawn may be the very draft that was not to be taken */
        qn_sequence_redo_last(s);
    }
    if (status < 0) { /* what was drawn before is part of the sequence */
        (void)!tell_rows(g, first, args.logits, NULL);
        return status;
    }
    count_step(g, n_drafts, n_emitted, n_accepted);
    const double draft_s = qn_clock_seconds(start_ns, drafted_ns);
    const double verify_s = qn_clock_seconds(drafted_ns, verified_ns);
    g->n.draft_s += draft_s;
    g->n.verify_s += verify_s;
    if (g->is_auto) {
        const qn_draft_outcome outcome = {
            .depth = n_drafts,
            .n_accepted = n_accepted,
            .n_extend_rows = depth > 0 ? n_backlog : 0,
            .draft_s = draft_s,
            .verify_s = verify_s,
            .is_cut = g->state == QN_GENERATOR_IDLE,
        };
        qn_draft_depth_observe(&g->policy, &outcome);
    }
    return tell_rows(g, first, args.logits, err);
}

qn_status qn_generator_step(qn_generator *generator, const qn_generator_sink *sink, qn_error *err)
{
    qn_generator *const g = generator;
    QN_ASSERT(g->state != QN_GENERATOR_IDLE);
    g->sink = sink;
    const qn_status status =
        g->state == QN_GENERATOR_PROMPT ? step_prompt(g, err) : step_answer(g, err);
    g->sink = NULL;
    if (status < 0) {
        qn_generator_stop(g);
    }
    return status;
}

qn_status qn_generator_catch_up(qn_generator *generator, const qn_generator_sink *sink,
                                qn_error *err)
{
    qn_generator *const g = generator;
    QN_ASSERT(g->state == QN_GENERATOR_IDLE);
    const uint32_t first = qn_sequence_computed(g->sequence);
    if (first == qn_sequence_count(g->sequence)) {
        return QN_OK;
    }
    qn_sequence_verify(g->sequence, NULL, 0, false);
    qn_status status = qn_sequence_take_failure(g->sequence, err);
    if (status < 0) {
        return status;
    }
    g->sink = sink;
    status = tell_rows(g, first, qn_sequence_step_logits(g->sequence), err);
    g->sink = NULL;
    return status;
}

/* ---------------------------------------------------------------------------------------- views */

qn_generator_state qn_generator_state_of(const qn_generator *generator)
{
    return generator->state;
}

qn_generator_end qn_generator_end_of(const qn_generator *generator)
{
    return generator->end;
}

const qn_sequence *qn_generator_sequence(const qn_generator *generator)
{
    return generator->sequence;
}

qn_sampler *qn_generator_sampler(qn_generator *generator)
{
    return generator->sampler;
}

qn_session_stats qn_generator_count(const qn_generator *generator)
{
    qn_session_stats stats = generator->n;
    const uint32_t n_computed = qn_sequence_computed(generator->sequence);
    stats.n_computed_tokens =
        n_computed < stats.n_prompt_tokens ? n_computed : stats.n_prompt_tokens;
    return stats;
}
