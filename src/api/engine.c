/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/quern.h"

#include "api/answer.h"
#include "api/internal.h"
#include "api/request.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "base/try.h"
#include "engine/runner.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/random.h>

_Static_assert((int)QN_ENGINE_SEQUENCES_MAX <= (int)QN_STEP_SEQS_MAX, "a step has room for them");
_Static_assert((int)QN_ENGINE_ROWS_MAX <= (int)QN_STEP_ROWS_MAX, "a step has room for them");
_Static_assert((int)QN_ENGINE_QUEUE_MAX <= (int)QN_SCHED_QUEUE_MAX, "the scheduler has places");
_Static_assert((int)QN_PRIORITY_MAX <= (int)QN_SCHED_PRIORITY_MAX, "the scheduler orders them");

enum {
    SEQUENCES_DEFAULT = 64,
    QUEUE_DEFAULT = 1024,
    ROWS_DEFAULT = 512,
    ROWS_DEFAULT_GPU = 2048,     /* its experts take little longer for them than for 512 */
    ROWS_SPARE = QN_PAGE_TOKENS, /* of a step, beside one for each sequence: prompts go on */
    /** What the end of a request brings: text and reasoning held back, an open call given up. */
    END_EVENTS_MAX = 8,
};

/* A request from submit until its END was polled. */
typedef struct request {
    struct request *next;  /* in the list of those that run and wait, or of those that ended */
    struct request **link; /* what points to it, to take it out */
    uint64_t id;
    void *tag; /* of its events */
    void (*on_begin)(void *tag);
    qn_answer answer;
    bool is_prompt_only;
    qn_error error; /* what ended it; for its END, as the following */
    qn_session_stats stats;
} request;

struct qn_engine {
    const qn_model *model; /* borrowed */
    qn_runner *runner;     /* owned */
    request *active;       /* owned, all of the list */
    request *ended;        /* owned, all of the list: their ENDs may be unread */
    uint32_t n_context;
    uint64_t n_untold; /* tokens drawn for requests that want none */
    qn_events events;
};

/* ------------------------------------------------------------------------------------- the sizes
 */

/* Positions that model and scheduler have in common. */
static uint32_t context_max(const qn_model *model)
{
    const uint32_t n_max = model->config.n_context_max;
    return n_max < (uint32_t)QN_SCHED_CONTEXT_MAX ? n_max : (uint32_t)QN_SCHED_CONTEXT_MAX;
}

/* Options with what stands for their zeros. */
static qn_engine_options fill_in(const qn_model *model, const qn_engine_options *options)
{
    qn_engine_options o = options != NULL ? *options : (qn_engine_options){0};
    o.n_sequences = o.n_sequences > 0 ? o.n_sequences : SEQUENCES_DEFAULT;
    o.n_queue = o.n_queue > 0 ? o.n_queue : QUEUE_DEFAULT;
    o.context_tokens = o.context_tokens > 0 ? o.context_tokens : context_max(model);
    if (o.n_step_rows == 0) {
        const uint32_t n_least = o.n_sequences + ROWS_SPARE;
        const uint32_t n_default = model->gpu != NULL ? ROWS_DEFAULT_GPU : ROWS_DEFAULT;
        o.n_step_rows = n_default > n_least ? n_default : n_least;
    }
    o.no_mtp |= !model->info.has_mtp;
    return o;
}

static qn_status check_options(const qn_model *model, const qn_engine_options *o, qn_error *err)
{
    const struct {
        const char *field;
        uint32_t value, min, max;
    } ranges[] = {
        {"n_sequences (--max-num-seqs)", o->n_sequences, 1, QN_ENGINE_SEQUENCES_MAX},
        {"n_queue", o->n_queue, 1, QN_ENGINE_QUEUE_MAX},
        {"context_tokens (--context)", o->context_tokens, 2, context_max(model)},
        {"n_step_rows (--max-num-batched-tokens)", o->n_step_rows,
         o->n_sequences + (uint32_t)ROWS_SPARE, QN_ENGINE_ROWS_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max) {
            return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: %u, %u to %u expected",
                           ranges[i].field, ranges[i].value, ranges[i].min, ranges[i].max);
        }
    }
    return QN_OK;
}

/* Pages that there is memory for where nothing is said, beside what steps take of it. */
static uint64_t affordable_pages(const qn_model *model, const qn_executor_options *executor,
                                 size_t page_bytes)
{
    const uint64_t cache_bytes = qn_model_cache_bytes(model);
    const uint64_t steps_bytes = qn_executor_device_bytes(model->glm, executor);
    const uint64_t taken_bytes = steps_bytes + qn_executor_graph_bytes(model->glm, executor);
    qn_executor_options with_page = *executor; /* steps know something of each page, too */
    with_page.n_pages++;
    page_bytes += qn_executor_device_bytes(model->glm, &with_page) - steps_bytes;
    return cache_bytes > taken_bytes ? (cache_bytes - taken_bytes) / page_bytes : 0;
}

/* How many pages the bytes of the options are, or what all sequences might need: executor's. */
static qn_status choose_pages(qn_executor_options *executor, const qn_model *model,
                              const qn_engine_options *o, qn_error *err)
{
    qn_kv_layout layout;
    qn_kv_layout_init(&layout, &model->config, model->kv_dtype, !o->no_mtp);
    const uint64_t wanted = (uint64_t)o->n_sequences * qn_pages_for(o->context_tokens);
    uint64_t n = o->cache_bytes / layout.page_bytes;
    if (o->cache_bytes == 0) {
        const uint64_t affordable = affordable_pages(model, executor, layout.page_bytes);
        n = wanted < affordable ? wanted : affordable;
        n = n > 0 ? n : 1;
    }
    if (n == 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "cache_bytes (--page-cache): %" PRIu64
                       ", at least the %zu of one page expected",
                       o->cache_bytes, layout.page_bytes);
    }
    executor->n_pages = n < 1U << QN_PAGE_INDEX_BITS ? (uint32_t)n : 1U << QN_PAGE_INDEX_BITS;
    return QN_OK;
}

/* ------------------------------------------------------------------------------- open and close */

static qn_status open_runner(qn_engine *e, qn_model *model, const qn_engine_options *o,
                             qn_error *err)
{
    qn_status status = QN_OK;
    qn_runner_options options = {
        .executor = {.kernels = &model->kernels,
                     .pool = model->pool,
                     .kv_dtype = model->kv_dtype,
                     .n_slots = o->n_sequences,
                     .n_step_rows = o->n_step_rows,
                     .n_context = o->context_tokens,
                     .lag = model->gpu != NULL ? 1 : 0, /* the GPU has the next step meanwhile */
                     .with_mtp = !o->no_mtp,
                     .captures_early = true, /* before anybody waits */
                     .checks_pages = o->checks_pages},
        .n_queue = o->n_queue,
        .has_prefix_tree = !o->no_prefix_cache,
    };
    QN_TRY(status, qn_glm_reserve(model->glm, o->n_step_rows, err), fail);
    QN_TRY(status, choose_pages(&options.executor, model, o, err), fail);
    /* Of the prefix tree: whoever sends prompts cannot make them meet in one bucket. */
    if (getrandom(&options.hash_seed, sizeof options.hash_seed, 0) !=
        (ssize_t)sizeof options.hash_seed) {
        status = qn_fail(err, QN_E_IO, errno, __func__, "getrandom: no bytes, 8 expected");
        goto fail;
    }
    QN_TRY(status, qn_runner_open(&e->runner, model->glm, &options, err), fail);
fail:
    return status;
}

qn_status qn_engine_open(qn_engine **out, qn_model *model, const qn_engine_options *options,
                         qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    if (model == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "engine: no model, an open one expected");
    }
    if (model->glm == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: opened without weights, a model with weights expected", model->name);
    }
    const qn_engine_options o = fill_in(model, options);
    status = check_options(model, &o, err);
    if (status < 0) {
        return status;
    }
    qn_engine *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "engine: no memory");
    }
    e->model = model;
    e->n_context = o.context_tokens;
    const qn_events_options events_options = {
        .n_events = o.n_step_rows + o.n_sequences * QN_EVENTS_OF_STEP_MAX +
                    (o.n_sequences + o.n_queue) * END_EVENTS_MAX,
        .n_tokens = o.n_step_rows + o.n_sequences * QN_STEP_TOKENS_MAX,
        .text_bytes = QN_EVENT_BYTES_RESERVED,
    };
    QN_TRY(status, qn_events_init(&e->events, &events_options, err), fail);
    QN_TRY(status, open_runner(e, model, &o, err), fail);
    *out = e;
    return QN_OK;

fail:
    qn_engine_close(&e);
    return status;
}

static void free_list(request **list)
{
    while (*list != NULL) {
        request *const first = *list;
        *list = first->next;
        qn_answer_deinit(&first->answer);
        free(first);
    }
}

void qn_engine_close(qn_engine **engine)
{
    if (engine == NULL || *engine == NULL) {
        return;
    }
    qn_runner_close(&(*engine)->runner);
    free_list(&(*engine)->active);
    free_list(&(*engine)->ended);
    qn_events_deinit(&(*engine)->events);
    free(*engine);
    *engine = NULL;
}

/* ------------------------------------------------------------------------------------- requests */

static void link_into(request **list, request *r)
{
    r->next = *list;
    r->link = list;
    if (r->next != NULL) {
        r->next->link = &r->next;
    }
    *list = r;
}

static void unlink_from_list(request *r)
{
    QN_ASSERT(*r->link == r);
    *r->link = r->next;
    if (r->next != NULL) {
        r->next->link = r->link;
    }
}

/* A salt of any length to one of 16 bytes, which nobody finds a second salt for. */
static void hash_salt(uint64_t out[2], const qn_request *r)
{
    uint8_t digest[QN_SHA256_BYTES];
    if (r->cache_salt != NULL) {
        qn_sha256(digest, (qn_str){r->cache_salt, r->cache_salt_len});
        memcpy(out, digest, 2 * sizeof *out);
    }
}

/* The request as the runner takes it. */
static qn_status translate(qn_runner_request *out, int32_t *stop_ids, const qn_engine *e,
                           const qn_request *r, qn_error *err)
{
    qn_status status = QN_OK;
    qn_generator_request checked = {.stop_ids = stop_ids};
    QN_TRY(status, qn_request_check(&checked, stop_ids, e->model, r, e->n_context, err), fail);
    QN_TRY(status, qn_request_check_queueing(r, err), fail);
    if (r->n_ids == e->n_context) {
        status =
            qn_fail(err, QN_E_INVAL, 0, __func__,
                    "prompt: %zu tokens, fewer than the %u of the context (--context) expected",
                    r->n_ids, e->n_context);
        goto fail;
    }
    if (r->draft_tokens == QN_DRAFT_DEFAULT && r->acceptance_length == 0.0F &&
        checked.draft_tokens > 0) { /* a fixed depth can cost more than it gives where many run */
        checked.draft_tokens = QN_DRAFT_AUTO;
    }
    *out = (qn_runner_request){
        .ids = checked.ids,
        .n_ids = checked.n_ids,
        .sampling = checked.sampling,
        .stop_ids = checked.stop_ids,
        .n_stop_ids = checked.n_stop_ids,
        .min_tokens = checked.min_tokens,
        .max_tokens = checked.max_tokens > 0 ? checked.max_tokens : 1, /* see see_token() */
        .draft_tokens = checked.draft_tokens,
        .acceptance_length = checked.acceptance_length,
        .wants_logits = r->wants_logprobs,
        .wants_prompt_logits = r->wants_prompt_logprobs,
        .priority = r->priority,
        .affinity = r->affinity,
    };
    if (r->deadline_s > 0.0) {
        out->deadline_us = qn_clock_ns() / 1000 + (uint64_t)(r->deadline_s * 1e6) + 1;
    }
    hash_salt(out->salt, r);
fail:
    return status;
}

qn_status qn_engine_submit(uint64_t *id, qn_engine *engine, const qn_request *request_in,
                           qn_error *err)
{
    qn_status status = QN_OK;
    int32_t stop_ids[QN_SAMPLER_STOPS_MAX];
    qn_runner_request inner;
    *id = 0;
    status = translate(&inner, stop_ids, engine, request_in, err);
    if (status < 0) {
        return status;
    }
    request *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "request: no memory");
    }
    r->is_prompt_only = request_in->prompt_only;
    r->tag = request_in->tag;
    r->on_begin = request_in->on_begin;
    inner.user = r;
    qn_answer_init(&r->answer, &engine->events, NULL, NULL);
    QN_TRY(status, qn_answer_begin(&r->answer, engine->model, request_in, err), fail);
    status = qn_runner_submit(&r->id, engine->runner, &inner, err);
    if (status != QN_OK) { /* QN_AGAIN too */
        goto fail;
    }
    link_into(&engine->active, r);
    *id = r->id;
    return QN_OK;

fail:
    qn_answer_deinit(&r->answer);
    free(r);
    return status;
}

void qn_engine_cancel(qn_engine *engine, uint64_t id)
{
    qn_runner_cancel(engine->runner, id);
}

/* ---------------------------------------------------------------------------------------- a step
 */

/* Events that come now are those of @p r. */
static void begin_telling(qn_engine *e, const request *r)
{
    e->events.owner = r->id;
    e->events.tag = r->tag;
}

/* An event that found no memory is the failure of the request whose it was, and of no other. */
static bool take_failure(qn_engine *e, request *r)
{
    if (r->error.status == QN_OK && e->events.failure.status < 0) {
        r->error = e->events.failure;
    }
    e->events.failure = (qn_error){0};
    return r->error.status < 0;
}

static void see_begin(void *context, void *user)
{
    const request *const r = user;
    (void)context;
    if (r->on_begin != NULL) {
        r->on_begin(r->tag);
    }
}

static void see_rows(void *context, void *user, uint32_t position, uint32_t n_rows,
                     const int32_t *ids, const float *logits, const qn_sampler *sampler)
{
    qn_engine *const e = context;
    request *const r = user;
    begin_telling(e, r);
    qn_answer_see_prompt(&r->answer, sampler, position, n_rows, ids, logits,
                         e->model->config.n_vocab);
}

static bool see_token(void *context, void *user, int32_t token, uint32_t position,
                      const float *logits, const qn_sampler *sampler, bool is_stop)
{
    qn_engine *const e = context;
    request *const r = user;
    if (r->is_prompt_only) { /* the scheduler has no request that draws nothing */
        return false;
    }
    begin_telling(e, r);
    const bool goes_on = qn_answer_see_token(&r->answer, sampler, token, position, logits, is_stop);
    return !take_failure(e, r) && goes_on;
}

static qn_finish finish_of(const request *r, qn_sched_end_reason reason)
{
    switch (reason) {
    case QN_SCHED_END_STOP:
        return r->is_prompt_only ? QN_FINISH_LENGTH : qn_answer_stop_reason(&r->answer);
    case QN_SCHED_END_LENGTH: return QN_FINISH_LENGTH;
    case QN_SCHED_END_CANCEL: return QN_FINISH_ABORT;
    case QN_SCHED_END_DEADLINE: return QN_FINISH_DEADLINE;
    case QN_SCHED_END_ERROR: break;
    }
    return QN_FINISH_ERROR;
}

static void see_end(void *context, void *user, qn_sched_end_reason reason,
                    const qn_session_stats *stats, const qn_error *error)
{
    qn_engine *const e = context;
    request *const r = user;
    begin_telling(e, r);
    if (error != NULL) {
        r->error = *error;
    }
    qn_answer_flush(&r->answer);
    const bool is_failed = take_failure(e, r);
    r->stats = *stats;
    r->stats.n_reasoning_tokens = qn_answer_reasoning_tokens(&r->answer);
    if (r->is_prompt_only) { /* what was drawn was for nobody */
        e->n_untold += stats->n_generated_tokens;
        r->stats.n_generated_tokens = 0;
        r->stats.ttft_s = r->stats.decode_s = 0.0;
    }
    qn_events_add(&e->events,
                  &(qn_event){.kind = QN_EVENT_END,
                              .finish = is_failed ? QN_FINISH_ERROR : finish_of(r, reason),
                              .stop_number = qn_answer_stop_number(&r->answer),
                              .stats = &r->stats,
                              .error = is_failed ? &r->error : NULL});
    unlink_from_list(r);
    link_into(&e->ended, r);
}

qn_status qn_engine_step(qn_engine *engine, qn_error *err)
{
    if (qn_events_unread(&engine->events) > 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "engine: %u events are unread, none expected before the next step",
                       qn_events_unread(&engine->events));
    }
    qn_events_begin_step(&engine->events);
    free_list(&engine->ended);
    const qn_runner_sink sink = {.context = engine,
                                 .begin = see_begin,
                                 .rows = see_rows,
                                 .token = see_token,
                                 .end = see_end};
    return qn_runner_step(engine->runner, &sink);
}

bool qn_engine_poll(uint64_t *id, qn_event *event, qn_engine *engine)
{
    return qn_events_poll(&engine->events, id, event);
}

/* ------------------------------------------------------------------------------------ afterwards
 */

qn_engine_stats qn_engine_get_stats(const qn_engine *engine)
{
    qn_engine_stats stats = qn_runner_count(engine->runner);
    stats.page_tokens = QN_PAGE_TOKENS;
    stats.workspace_bytes += sizeof *engine + qn_events_bytes(&engine->events);
    stats.n_generated_tokens -= engine->n_untold;
    return stats;
}

void qn_engine_flush(qn_engine *engine)
{
    qn_runner_flush(engine->runner);
}
