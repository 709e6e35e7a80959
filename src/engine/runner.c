/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/runner.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/huge.h"
#include "base/try.h"

#include <errno.h>
#include <stdlib.h>

/* A request from submit to its end; the scheduler's names say which place is whose. */
typedef struct record {
    qn_request_id id; /* 0: the place is free */
    void *user;
    void *memory; /* owned: ids with room for the answer, then the biases */
    int32_t *ids; /* in memory; the scheduler writes behind the prompt */
    qn_executor_request executed;
    qn_sampling sampling;
    int32_t stop_ids[QN_SAMPLER_STOPS_MAX];
    uint32_t n_ids;       /* prompt and tokens taken */
    uint32_t n_rows_told; /* of the prompt, to the sink */
    bool is_begun;        /* it has had a slot */
    bool is_stopped;      /* by the sink or a stop id: it is told nothing more */
    bool is_failed;       /* its logits were no numbers */
    bool lacks_logits;    /* the device did not give those that are wanted: told nothing more */
    bool is_auto;         /* QN_DRAFT_AUTO */
    bool wants_logits, wants_prompt_logits;
    uint64_t submitted_ns, begun_ns, first_token_ns, last_token_ns; /* 0: not yet */
    qn_session_stats stats;
} record;

enum { STEPS_MAX = QN_EXECUTOR_LAG_MAX + 1 /* submitted and not collected */ };

struct qn_runner {
    qn_executor *executor; /* owned, as all that follows */
    void *sched_memory;
    record *records;           /* [n_records] by place */
    qn_step *steps[STEPS_MAX]; /* the first n_outstanding: the oldest first */
    qn_step_result *result;
    qn_sched *sched; /* in sched_memory */
    uint32_t lag;
    uint32_t n_outstanding;
    uint64_t counted_ns; /* the time up to then was counted */
    uint32_t n_records;
    uint32_t n_requests; /* that have not ended */
    uint32_t n_vocab, n_context, n_pages;
    bool with_mtp;
    uint64_t page_bytes, own_bytes;
    qn_engine_stats totals; /* what the scheduler does not count */
    uint32_t n_taken[QN_STEP_SEQS_MAX];
};

/* ------------------------------------------------------------------------------ open and close */

static qn_sched_limits limits_of(const qn_runner_options *o)
{
    return (qn_sched_limits){
        .n_groups = 1,
        .n_pages = o->executor.n_pages,
        .n_slots = o->executor.n_slots,
        .n_queue = o->n_queue,
        .n_step_rows = o->executor.n_step_rows,
        .n_context = o->executor.n_context,
        .n_draft_max = o->executor.with_mtp ? QN_DRAFT_TOKENS_MAX : 0,
        .lag = o->executor.lag,
        .hash_seed = o->hash_seed,
        .has_prefix_tree = o->has_prefix_tree,
    };
}

qn_status qn_runner_open(qn_runner **out, qn_glm *glm, const qn_runner_options *options,
                         qn_error *err)
{
    qn_status status = QN_OK;
    const qn_sched_limits limits = limits_of(options);
    const size_t sched_bytes = qn_sched_bytes(&limits);
    *out = NULL;
    qn_runner *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "engine: no memory for %zu bytes",
                       sizeof *r);
    }
    r->n_records = limits.n_slots + limits.n_queue;
    r->n_vocab = qn_glm_config(glm)->n_vocab;
    r->n_context = limits.n_context;
    r->n_pages = limits.n_pages;
    r->with_mtp = options->executor.with_mtp;
    r->lag = limits.lag;
    r->records = calloc(r->n_records, sizeof *r->records);
    bool has_steps = true;
    for (uint32_t i = 0; i <= r->lag; i++) {
        r->steps[i] = calloc(1, sizeof *r->steps[i]);
        has_steps = has_steps && r->steps[i] != NULL;
    }
    r->result = calloc(1, sizeof *r->result);
    r->sched_memory = qn_huge_alloc(sched_bytes);
    if (r->records == NULL || !has_steps || r->result == NULL || r->sched_memory == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                         "scheduler: no memory for %zu bytes, of %u requests and %u pages",
                         sched_bytes + r->n_records * sizeof *r->records, r->n_records, r->n_pages);
        goto fail;
    }
    QN_TRY(status, qn_executor_open(&r->executor, glm, &options->executor, err), fail);
    r->sched = qn_sched_init(r->sched_memory, &limits);
    r->page_bytes = qn_executor_page_bytes(r->executor);
    r->own_bytes = sizeof *r + sched_bytes + r->n_records * sizeof *r->records +
                   (r->lag + 1) * sizeof *r->steps[0] + sizeof *r->result;
    *out = r;
    return QN_OK;

fail:
    qn_runner_close(&r);
    return status;
}

void qn_runner_close(qn_runner **runner)
{
    qn_runner *const r = *runner;
    if (r == NULL) {
        return;
    }
    qn_executor_close(&r->executor);
    for (uint32_t i = 0; r->records != NULL && i < r->n_records; i++) {
        free(r->records[i].memory);
    }
    free(r->sched_memory);
    free(r->records);
    for (uint32_t i = 0; i < STEPS_MAX; i++) {
        free(r->steps[i]);
    }
    free(r->result);
    free(r);
    *runner = NULL;
}

/* ------------------------------------------------------------------------------------- requests */

/* NULL: it has ended. */
static record *record_if_any(qn_runner *r, qn_request_id id)
{
    QN_ASSERT(id != 0 && qn_request_place(id) < r->n_records);
    record *const found = &r->records[qn_request_place(id)];
    return found->id == id ? found : NULL;
}

static record *record_of(qn_runner *r, qn_request_id id)
{
    record *const found = record_if_any(r, id);
    QN_ASSERT(found != NULL);
    return found;
}

/* Ids, with room for @p max_tokens more, and biases: the one block of a request. */
static qn_status copy_lists(record *to, const qn_runner_request *request, uint32_t max_tokens,
                            qn_error *err)
{
    const qn_sampling *const sampling = request->sampling;
    const size_t ids_bytes = ((size_t)request->n_ids + max_tokens) * sizeof *to->ids;
    const size_t bias_bytes = sampling->n_logit_bias * sizeof *sampling->logit_bias;
    uint8_t *const memory = malloc(bias_bytes + ids_bytes);
    if (memory == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "request: no memory for %zu bytes, room for %u tokens and %u more",
                       bias_bytes + ids_bytes, request->n_ids, max_tokens);
    }
    to->memory = memory;
    to->ids = (int32_t *)(void *)(memory + bias_bytes); /* biases are pairs of four bytes each */
    memcpy(to->ids, request->ids, request->n_ids * sizeof *to->ids);
    to->sampling = *sampling;
    if (bias_bytes > 0) {
        memcpy(memory, sampling->logit_bias, bias_bytes);
        to->sampling.logit_bias = (const qn_logit_bias *)(const void *)memory;
    }
    return QN_OK;
}

/* What the executor is to know of it.  The pointers are into @p to, which is at its place now. */
static void fill(record *to, const qn_runner_request *request, bool with_mtp)
{
    to->user = request->user;
    to->n_ids = request->n_ids;
    for (uint32_t i = 0; i < request->n_stop_ids; i++) {
        to->stop_ids[i] = request->stop_ids[i];
    }
    to->executed = (qn_executor_request){
        .ids = to->ids,
        .n_ids = request->n_ids,
        .n_prompt = request->n_ids,
        .sampling = &to->sampling,
        .stop_ids = to->stop_ids,
        .n_stop_ids = request->n_stop_ids,
        .min_tokens = request->min_tokens,
        .acceptance_length = with_mtp ? request->acceptance_length : 0.0F,
    };
    to->wants_logits = request->wants_logits;
    to->wants_prompt_logits = request->wants_prompt_logits;
    to->is_auto = with_mtp && request->draft_tokens == QN_DRAFT_AUTO;
    to->stats = (qn_session_stats){
        .n_prompt_tokens = request->n_ids,
        .n_draft_tokens = with_mtp && !to->is_auto ? (uint32_t)request->draft_tokens : 0,
        .is_synthetic = to->executed.acceptance_length > 0.0F,
    };
}

qn_status qn_runner_submit(qn_request_id *id, qn_runner *runner, const qn_runner_request *request,
                           qn_error *err)
{
    QN_ASSERT(request->n_ids > 0 && request->n_ids < runner->n_context);
    QN_ASSERT(request->n_stop_ids <= QN_SAMPLER_STOPS_MAX && request->max_tokens > 0);
    record made = {.submitted_ns = qn_clock_ns()};
    const uint64_t n_cache = (uint64_t)runner->n_pages * QN_PAGE_TOKENS;
    if (request->n_ids >= n_cache) {
        return qn_fail(
            err, QN_E_INVAL, 0, __func__,
            "prompt: %u tokens, fewer than the %llu of the cache (--page-cache) expected",
            request->n_ids, (unsigned long long)n_cache);
    }
    const uint32_t n_room = runner->n_context - request->n_ids;
    const uint32_t max_tokens = request->max_tokens < n_room ? request->max_tokens : n_room;
    const qn_status status = copy_lists(&made, request, max_tokens, err);
    if (status < 0) {
        return status;
    }
    const qn_sched_request scheduled = {
        .ids = made.ids,
        .n_ids = request->n_ids,
        .max_tokens = max_tokens,
        .draft_tokens = runner->with_mtp ? request->draft_tokens : 0,
        .priority = request->priority,
        .deadline_us = request->deadline_us,
        .salt = {request->salt[0], request->salt[1]},
        .session = request->affinity,
        .needs_all_rows = request->wants_prompt_logits,
    };
    if (!qn_sched_submit(id, runner->sched, &scheduled, made.submitted_ns / 1000)) {
        free(made.memory);
        return QN_AGAIN;
    }
    QN_ASSERT(qn_request_place(*id) < runner->n_records);
    record *const place = &runner->records[qn_request_place(*id)];
    QN_ASSERT(place->id == 0);
    made.id = *id;
    *place = made;
    fill(place, request, runner->with_mtp);
    runner->n_requests++;
    return QN_OK;
}

void qn_runner_cancel(qn_runner *runner, qn_request_id id)
{
    qn_sched_cancel(runner->sched, id);
}

void qn_runner_flush(qn_runner *runner)
{
    qn_sched_flush(runner->sched);
}

/* ---------------------------------------------------------------------------------------- a step
 */

/* For the executor: what a request that gets a slot is. */
static const qn_executor_request *find(void *context, qn_request_id id)
{
    record *const found = record_of(context, id);
    found->executed.n_ids = found->n_ids;
    found->executed.n_steps_before = found->stats.n_steps;
    return &found->executed;
}

static void tell_begins(qn_runner *r, const qn_step *step, const qn_runner_sink *sink,
                        uint64_t start_ns)
{
    for (uint32_t i = 0; i < step->n_begins; i++) {
        record *const begun = record_of(r, step->begins[i].request);
        if (!begun->is_begun) { /* what a preempted one finds is its own */
            begun->is_begun = true;
            if (sink->begin != NULL) {
                sink->begin(sink->context, begun->user);
            }
            begun->begun_ns = start_ns;
            begun->stats.n_cached_tokens = step->begins[i].n_cached;
            begun->stats.n_computed_tokens = begun->stats.n_cached_tokens;
        }
    }
}

/* The time since the step before goes to what this one did. */
static void count_time(qn_runner *r, const qn_step *step)
{
    const uint64_t now_ns = qn_clock_ns();
    bool has_prompt = false;
    bool has_answer = false;
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        has_prompt |= step->seqs[i].is_prompt;
        has_answer |= !step->seqs[i].is_prompt;
    }
    *(has_prompt && has_answer ? &r->totals.mixed_s
      : has_prompt             ? &r->totals.prompt_s
                               : &r->totals.decode_s) += qn_clock_seconds(r->counted_ns, now_ns);
    r->counted_ns = now_ns;
}

/* What was drawn is right, but an answer with a gap in its logits would not be. */
static void end_without_logits(qn_runner *r, record *of)
{
    of->lacks_logits = true;
    qn_sched_end_request(r->sched, of->id, QN_SCHED_END_ERROR);
}

/* Rows of a prompt whose logits are wanted, but for those told before a preemption. */
static void tell_rows(qn_runner *r, const qn_runner_sink *sink, record *of, uint32_t i_seq)
{
    const qn_step_seq *const seq = &r->steps[0]->seqs[i_seq];
    const uint32_t n_prompt = of->executed.n_prompt;
    uint32_t end = seq->first + seq->n_rows;
    end = end < n_prompt ? end : n_prompt;
    while (of->n_rows_told < end) {
        const uint32_t first = of->n_rows_told;
        QN_ASSERT(first >= seq->first);
        const uint32_t n_left = end - first;
        const uint32_t n = n_left < QN_PROMPT_LOGITS_MAX ? n_left : QN_PROMPT_LOGITS_MAX;
        const float *const logits =
            qn_executor_prompt_logits(r->executor, i_seq, first - seq->first, n);
        if (logits == NULL) {
            end_without_logits(r, of);
            return;
        }
        of->n_rows_told += n;
        sink->rows(sink->context, of->user, first, n, of->ids + first, logits,
                   qn_executor_sampler(r->executor, seq->slot));
    }
}

/* The tokens that the scheduler took; returns how many were told. */
static uint32_t tell_tokens(qn_runner *r, const qn_runner_sink *sink, record *of, uint32_t i_seq,
                            uint64_t now_ns)
{
    const qn_step_seq *const seq = &r->steps[0]->seqs[i_seq];
    const qn_seq_result *const result = &r->result->seqs[i_seq];
    const uint32_t n_tokens = of->lacks_logits ? 0 : r->n_taken[i_seq];
    const bool needs_logits = of->wants_logits && n_tokens > 0;
    const float *const logits = needs_logits ? qn_executor_logits(r->executor, i_seq) : NULL;
    uint32_t n_told = 0;
    if (needs_logits && logits == NULL) {
        end_without_logits(r, of);
        return 0;
    }
    while (n_told < n_tokens && !of->is_stopped) {
        const bool is_stop = result->is_stopped && n_told + 1 == result->n_tokens;
        QN_ASSERT(of->ids[of->n_ids] == result->tokens[n_told]);
        const uint32_t position = of->n_ids++;
        of->first_token_ns = of->first_token_ns == 0 ? now_ns : of->first_token_ns;
        of->last_token_ns = now_ns;
        of->stats.n_generated_tokens++;
        const bool goes_on =
            sink->token(sink->context, of->user, result->tokens[n_told], position,
                        logits != NULL ? logits + (size_t)n_told * r->n_vocab : NULL,
                        qn_executor_sampler(r->executor, seq->slot), is_stop);
        of->is_stopped = is_stop || !goes_on;
        n_told++;
    }
    r->totals.n_generated_tokens += n_told;
    if (of->is_stopped) { /* it may have ended by length with a later token: this came first */
        qn_sched_end_request(r->sched, of->id, QN_SCHED_END_STOP);
    }
    return n_told;
}

/* What a sequence's rows were good for. */
static void count_rows(qn_runner *r, record *of, uint32_t i_seq, uint32_t n_told)
{
    const qn_step_seq *const seq = &r->steps[0]->seqs[i_seq];
    const qn_seq_result *const result = &r->result->seqs[i_seq];
    qn_session_stats *const stats = &of->stats;
    if (seq->is_prompt) {
        const uint32_t end = seq->first + seq->n_rows;
        const uint32_t n_prompt = of->executed.n_prompt;
        const uint32_t n_computed = end < n_prompt ? end : n_prompt;
        stats->n_computed_tokens =
            n_computed > stats->n_computed_tokens ? n_computed : stats->n_computed_tokens;
        return;
    }
    /* Of what was told: a draft that stands behind the end was accepted by nobody. */
    const uint32_t n_accepted = result->n_accepted < n_told ? result->n_accepted : n_told;
    stats->n_steps++;
    stats->n_step_tokens += n_told;
    stats->n_drafted += seq->n_drafts;
    stats->n_accepted += n_accepted;
    stats->n_draft_tokens = of->is_auto ? seq->n_drafts : stats->n_draft_tokens;
    r->totals.n_verifications += seq->n_drafts > 0 ? 1 : 0;
    r->totals.n_accepted += n_accepted;
    for (uint32_t i = 0; i < n_accepted; i++) {
        stats->n_accepted_at[i]++;
        r->totals.n_accepted_at[i]++;
    }
    stats->draft_s += r->result->draft_s;
    stats->verify_s += r->result->verify_s;
}

/* One sequence of the oldest step. */
static void tell_sequence(qn_runner *r, const qn_runner_sink *sink, uint32_t i_seq, uint64_t now_ns)
{
    const qn_seq_result *const result = &r->result->seqs[i_seq];
    record *const of = record_if_any(r, r->steps[0]->seqs[i_seq].request);
    const bool is_dropped = result->n_tokens > 0 && r->n_taken[i_seq] == 0 && !result->is_failed;
    if (of == NULL || is_dropped) { /* it had ended or was preempted when the step was under way */
        return;
    }
    QN_ASSERT(result->request == of->id);
    of->is_failed |= result->is_failed;
    if (r->steps[0]->seqs[i_seq].is_prompt && of->wants_prompt_logits) {
        tell_rows(r, sink, of, i_seq);
    }
    count_rows(r, of, i_seq, tell_tokens(r, sink, of, i_seq, now_ns));
}

/* Wait for the oldest step and tell what came of it. */
static void collect(qn_runner *r, const qn_runner_sink *sink)
{
    qn_step *const step = r->steps[0];
    qn_executor_collect(r->result, r->executor);
    r->totals.is_lost = r->result->outcome == QN_STEP_LOST;
    const uint64_t now_ns = qn_clock_ns();
    if (step->n_seqs > 0) { /* else the scheduler expects no result */
        qn_sched_take_result(r->n_taken, r->sched, r->result, now_ns / 1000);
        QN_ASSERT(r->result->n_seqs == step->n_seqs || r->result->outcome != QN_STEP_DONE);
        for (uint32_t i = 0; r->result->outcome == QN_STEP_DONE && i < r->result->n_seqs; i++) {
            tell_sequence(r, sink, i, now_ns);
        }
        count_time(r, step); /* logits of prompts included */
    }
    r->n_outstanding--;
    for (uint32_t i = 0; i < r->lag; i++) {
        r->steps[i] = r->steps[i + 1];
    }
    r->steps[r->lag] = step;
}

/* Logits are there until the next step: one that has any to tell is collected before it. */
static bool has_wanted_logits(qn_runner *r, const qn_step *step)
{
    bool is_wanted = false;
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const record *const of = record_of(r, step->seqs[i].request);
        is_wanted |= of->wants_logits || of->wants_prompt_logits;
    }
    return is_wanted;
}

/* Tell of an end and give the place back. */
static void tell_end(qn_runner *r, const qn_runner_sink *sink, const qn_sched_end *end)
{
    record *const of = record_of(r, end->request);
    const qn_sched_end_reason reason = of->lacks_logits ? QN_SCHED_END_ERROR
                                       : of->is_stopped ? QN_SCHED_END_STOP
                                                        : end->reason;
    qn_session_stats *const stats = &of->stats;
    qn_error error = {0};
    if (reason == QN_SCHED_END_ERROR && of->is_failed) {
        (void)!qn_fail(&error, QN_E_FORMAT, 0, __func__,
                       "logits of the token at %u: none above -Inf, numbers expected of sound "
                       "weights and of a bias that leaves a token",
                       of->n_ids);
    } else if (of->lacks_logits) {
        (void)!qn_fail(&error, QN_E_DEVICE, 0, __func__,
                       "logits at %u: failed on the device, numbers expected", of->n_ids);
    } else if (reason == QN_SCHED_END_ERROR) {
        (void)!qn_fail(&error, QN_E_DEVICE, 0, __func__,
                       "step: failed on the device, its results expected");
    }
    const uint64_t now_ns = qn_clock_ns();
    stats->queue_s = qn_clock_seconds(of->submitted_ns, of->is_begun ? of->begun_ns : now_ns);
    const uint64_t prefilled_ns = of->first_token_ns > 0 ? of->first_token_ns : now_ns;
    stats->kv_bytes = qn_pages_for(of->n_ids) * r->page_bytes;
    stats->prefill_s = of->is_begun ? qn_clock_seconds(of->begun_ns, prefilled_ns) : 0.0;
    if (of->first_token_ns > 0) {
        stats->ttft_s = qn_clock_seconds(of->submitted_ns, of->first_token_ns);
        stats->decode_s = qn_clock_seconds(of->first_token_ns, of->last_token_ns);
    }
    sink->end(sink->context, of->user, reason, stats, reason == QN_SCHED_END_ERROR ? &error : NULL);
    free(of->memory);
    *of = (record){0};
    QN_ASSERT(r->n_requests > 0);
    r->n_requests--;
}

/* Plan and submit a step, then collect as many as the lag does not leave outstanding. */
static void advance(qn_runner *r, const qn_runner_sink *sink, uint64_t start_ns)
{
    qn_step *const step = r->steps[r->n_outstanding];
    uint32_t n_left = r->lag;
    qn_sched_plan(step, r->sched, start_ns / 1000);
    if (step->n_seqs > 0 || step->n_published > 0 || step->n_begins > 0 || step->n_pages > 0) {
        tell_begins(r, step, sink, start_ns);
        qn_executor_submit(r->executor, step, find, r);
        n_left = step->n_seqs == 0 || has_wanted_logits(r, step) ? 0 : n_left;
        r->n_outstanding++;
    } else {
        n_left = 0; /* nothing can be computed until results are there */
    }
    while (r->n_outstanding > n_left) {
        collect(r, sink);
    }
}

qn_status qn_runner_step(qn_runner *runner, const qn_runner_sink *sink)
{
    qn_runner *const r = runner;
    if (r->n_requests == 0) {
        return QN_AGAIN;
    }
    const uint64_t start_ns = qn_clock_ns();
    r->counted_ns = r->n_outstanding == 0 ? start_ns : r->counted_ns;
    advance(r, sink, start_ns);
    for (qn_sched_end end; qn_sched_poll_end(&end, r->sched);) {
        tell_end(r, sink, &end);
    }
    while (r->n_requests == 0 && r->n_outstanding > 0) { /* of what has ended */
        collect(r, sink);
    }
    return QN_OK;
}

qn_engine_stats qn_runner_count(const qn_runner *runner)
{
    const qn_sched_counts n = qn_sched_count(runner->sched);
    qn_engine_stats stats = runner->totals;
    stats.n_running = n.n_running;
    stats.n_waiting = n.n_waiting;
    stats.n_pages_free = n.n_free;
    stats.n_pages_used = n.n_referenced;
    stats.n_pages_cached = n.n_cached;
    stats.page_bytes = runner->page_bytes;
    stats.workspace_bytes = runner->own_bytes + qn_executor_workspace_bytes(runner->executor);
    stats.n_steps = n.n_steps;
    stats.n_prompt_tokens = n.n_queried_tokens;
    stats.n_cached_tokens = n.n_hit_tokens;
    stats.n_drafted = n.n_drafted;
    stats.n_preempted = n.n_preempted;
    stats.n_recomputed_tokens = n.n_recomputed_tokens;
    stats.n_evicted = n.n_evicted;
    stats.n_exchanged = n.n_exchanged;
    const qn_pass_launches launches = qn_executor_launches(runner->executor);
    stats.n_trunk_launches = launches.trunk;
    stats.n_draft_launches = launches.draft;
    stats.n_follow_launches = launches.follow;
    return stats;
}
