/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/quern.h"

#include "api/answer.h"
#include "api/internal.h"
#include "api/record.h"
#include "api/request.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/try.h"
#include "engine/generator.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/stat.h>

struct qn_session {
    const qn_model *model;   /* borrowed */
    qn_generator *generator; /* owned */
    qn_recorder *recorder;   /* owned; NULL where no file is wanted */
    bool wants_logits_file;
    qn_logits_fn *logits_fn; /* NULL: nobody wants them as they come */
    void *logits_context;
    atomic_bool is_cancelled; /* set by any thread, read by the one that steps */
    bool is_active;           /* a request has not ended */
    uint32_t n_top_logprobs;  /* of the request, as the following */
    uint32_t n_prompt;
    uint32_t min_tokens;
    bool wants_logprobs;
    bool wants_prompt_logprobs;
    uint64_t submitted_ns;
    double prefill_s, ttft_s, decode_s; /* as in qn_session_stats */
    qn_answer answer;
};

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/*
 * Would writing to @p path change the model's folder @p dir?  Its files may be links to elsewhere,
 * as in the Hugging Face cache, so each is compared with what the path leads to.
 */
static bool is_of_model(const char *dir, const char *path)
{
    char parent[PATH_MAX];
    struct stat folder;
    struct stat there;
    const qn_str parent_part = qn_path_parent(path, NULL);
    (void)snprintf(parent, sizeof parent, "%.*s", (int)parent_part.len, parent_part.ptr);
    if (stat(dir, &folder) == 0 && stat(parent, &there) == 0 && is_same_file(&folder, &there)) {
        return true;
    }
    DIR *const list = stat(path, &there) == 0 ? opendir(dir) : NULL;
    bool is_found = false;
    for (const struct dirent *item; list != NULL && !is_found && (item = readdir(list)) != NULL;) {
        struct stat file;
        is_found = fstatat(dirfd(list), item->d_name, &file, 0) == 0 && is_same_file(&file, &there);
    }
    if (list != NULL) {
        (void)closedir(list);
    }
    return is_found;
}

static qn_status check_options(const qn_model *model, const qn_session_options *o, qn_error *err)
{
    if (model == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "session: no model, an open one expected");
    }
    if (model->glm == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: opened without weights, a model with weights expected", model->name);
    }
    if (o->context_tokens > model->config.n_context_max) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "context_tokens (--context): %u, at most the model's %u expected",
                       o->context_tokens, model->config.n_context_max);
    }
    if (o->chunk_tokens > QN_CHUNK_TOKENS_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "chunk_tokens: %u, at most %d expected",
                       o->chunk_tokens, QN_CHUNK_TOKENS_MAX);
    }
    const char *const paths[] = {o->logits_path, o->trace_path};
    for (size_t i = 0; i < 2; i++) {
        if (paths[i] != NULL && is_of_model(model->path, paths[i])) {
            return qn_fail(
                err, QN_E_INVAL, 0, __func__,
                "%.200s: in the folder of the model or a file of it, another place expected",
                paths[i]);
        }
    }
    return QN_OK;
}

qn_status qn_session_open(qn_session **out, qn_model *model, const qn_session_options *options,
                          qn_error *err)
{
    static const qn_session_options defaults = {0};
    const qn_session_options *const o = options != NULL ? options : &defaults;
    qn_status status = QN_OK;
    *out = NULL;
    status = check_options(model, o, err);
    if (status < 0) {
        return status;
    }
    qn_session *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "session: no memory");
    }
    s->model = model;
    s->wants_logits_file = o->logits_path != NULL;
    s->logits_fn = o->logits_fn;
    s->logits_context = o->context;
    const qn_sequence_options sequence_options = {
        .kernels = &model->kernels,
        .kv_dtype = model->kv_dtype,
        .n_tokens_max = o->context_tokens > 0 ? o->context_tokens : model->config.n_context_max,
        .n_rows_max = o->chunk_tokens > 0 ? o->chunk_tokens : QN_CHUNK_TOKENS_MAX,
    };
    QN_TRY(status, qn_generator_open(&s->generator, model->glm, &sequence_options, err), fail);
    QN_TRY(status, qn_answer_init(&s->answer, o->fn, o->context, err), fail);
    if (o->logits_path != NULL || o->trace_path != NULL) {
        QN_TRY(status,
               qn_recorder_open(&s->recorder, &model->config, o->logits_path, o->trace_path, err),
               fail);
    }
    *out = s;
    return QN_OK;

fail:
    qn_session_close(&s);
    return status;
}

void qn_session_close(qn_session **session)
{
    if (session == NULL || *session == NULL) {
        return;
    }
    qn_recorder_close(&(*session)->recorder);
    qn_answer_deinit(&(*session)->answer);
    qn_generator_close(&(*session)->generator);
    free(*session);
    *session = NULL;
}

/* --------------------------------------------------------------------------------- a request -- */

qn_status qn_session_submit(qn_session *session, const qn_request *request, qn_error *err)
{
    qn_session *const s = session;
    qn_status status = QN_OK;
    const qn_sequence *const sequence = qn_generator_sequence(s->generator);
    const size_t n_context = qn_sequence_count(sequence) + (size_t)qn_sequence_room(sequence);
    int32_t stop_ids[QN_SAMPLER_STOPS_MAX];
    qn_generator_request inner = {.stop_ids = stop_ids};
    if (s->is_active || s->answer.n_polled < s->answer.n_events) { /* END is to be read too */
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "session: a request has not ended, one at a time expected");
    }
    QN_TRY(status, qn_request_check(&inner, stop_ids, s->model, request, n_context, err), fail);
    QN_TRY(status, qn_answer_begin(&s->answer, s->model, request, err), fail);
    inner.wants_prompt_logits =
        s->wants_logits_file || s->logits_fn != NULL || request->wants_prompt_logprobs;
    s->n_top_logprobs = request->n_top_logprobs < s->model->config.n_vocab
                            ? request->n_top_logprobs
                            : s->model->config.n_vocab;
    s->min_tokens = request->min_tokens;
    s->wants_logprobs = request->wants_logprobs;
    s->wants_prompt_logprobs = request->wants_prompt_logprobs;
    s->prefill_s = s->ttft_s = s->decode_s = 0.0;
    s->n_prompt = (uint32_t)request->n_ids;
    s->submitted_ns = qn_clock_ns();
    atomic_store(&s->is_cancelled, false);
    qn_generator_begin(s->generator, &inner);
    s->is_active = true;
fail:
    return status;
}

void qn_session_cancel(qn_session *session)
{
    atomic_store(&session->is_cancelled, true);
}

void qn_session_clear(qn_session *session)
{
    if (!session->is_active) {
        qn_generator_clear(session->generator);
    }
}

bool qn_session_poll(qn_event *event, qn_session *session)
{
    return qn_answer_poll(&session->answer, event);
}

/* ------------------------------------------------------------------------------------ a step -- */

/* The event of a token with its log-probabilities where they are wanted. */
static void add_token(qn_session *s, qn_event_kind kind, int32_t token, uint32_t position,
                      const float *logits, bool wants_logprob)
{
    qn_event event = {.kind = kind, .token = {.token = token}, .position = position};
    if (wants_logprob) {
        qn_token_logprob *const top =
            s->n_top_logprobs > 0 ? qn_answer_take_tops(&s->answer) : NULL;
        event.token = qn_sampler_logprobs(qn_generator_sampler(s->generator), logits, token, top,
                                          s->n_top_logprobs);
        event.top = top;
        event.n_top = s->n_top_logprobs;
    }
    qn_answer_add(&s->answer, &event);
}

/* Stop tokens are part of the ids, never of the text. */
static bool see_token(void *context, int32_t token, uint32_t position, const float *logits,
                      bool is_stop)
{
    qn_session *const s = context;
    const uint64_t n_tokens = position + 1 - s->n_prompt; /* of the answer, this one included */
    if (n_tokens == 1) {
        s->ttft_s = qn_clock_seconds(s->submitted_ns, qn_clock_ns());
    }
    add_token(s, QN_EVENT_TOKEN, token, position, logits, s->wants_logprobs);
    return is_stop || qn_answer_feed(&s->answer, token, n_tokens >= s->min_tokens);
}

static const qn_probe *choose_probe(void *context, uint32_t n_rows)
{
    qn_session *const s = context;
    return s->recorder != NULL ? qn_recorder_begin_step(s->recorder, n_rows) : NULL;
}

static qn_status see_rows(void *context, uint32_t position, uint32_t n_rows, const int32_t *ids,
                          const float *logits, qn_error *err)
{
    qn_session *const s = context;
    const size_t n_vocab = s->model->config.n_vocab;
    if (s->wants_prompt_logprobs && position == 0) { /* nothing says how likely the first is */
        qn_answer_add(&s->answer,
                      &(qn_event){.kind = QN_EVENT_PROMPT_TOKEN, .token = {.token = ids[0]}});
    }
    for (uint32_t i = 0; s->wants_prompt_logprobs && i < n_rows && position + i + 1 < s->n_prompt;
         i++) {
        add_token(s, QN_EVENT_PROMPT_TOKEN, ids[i + 1], position + i + 1, logits + i * n_vocab,
                  true);
    }
    qn_status status = QN_OK;
    if (s->logits_fn != NULL) {
        QN_TRY(status, s->logits_fn(s->logits_context, position, n_rows, ids, logits, err), fail);
    }
    if (s->recorder != NULL) {
        QN_TRY(status, qn_recorder_end_step(s->recorder, n_rows, ids, logits, err), fail);
    }
fail:
    return status;
}

static qn_generator_sink make_sink(qn_session *s)
{
    return (qn_generator_sink){
        .context = s, .probe = choose_probe, .rows = see_rows, .token = see_token};
}

static void end_request(qn_session *s, qn_finish finish)
{
    qn_answer_end(&s->answer, finish);
    s->is_active = false;
}

/* The generator has ended: why? */
static qn_finish finish_of(const qn_session *s)
{
    switch (qn_generator_end_of(s->generator)) {
    case QN_GENERATOR_END_LENGTH: return QN_FINISH_LENGTH;
    case QN_GENERATOR_END_STOP:
        return s->answer.n_calls > 0 ? QN_FINISH_TOOL_CALLS : QN_FINISH_STOP;
    case QN_GENERATOR_END_SINK: break; /* a stop text */
    }
    return QN_FINISH_STOP;
}

static qn_status run_step(qn_session *s, qn_error *err)
{
    const uint64_t start_ns = qn_clock_ns();
    const qn_generator_sink sink = make_sink(s);
    const bool is_prompt = qn_generator_state_of(s->generator) == QN_GENERATOR_PROMPT;
    const qn_status status = qn_generator_step(s->generator, &sink, err);
    *(is_prompt ? &s->prefill_s : &s->decode_s) += qn_clock_seconds(start_ns, qn_clock_ns());
    return status;
}

/* Text that found no memory. */
static qn_status take_failure(const qn_session *s, qn_error *err)
{
    if (s->answer.failure.status < 0 && err != NULL) {
        *err = s->answer.failure;
    }
    return s->answer.failure.status;
}

qn_status qn_session_step(qn_session *session, qn_error *err)
{
    qn_session *const s = session;
    if (!s->is_active) {
        return QN_AGAIN;
    }
    if (s->answer.n_polled < s->answer.n_events) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "session: %u events are unread, none expected before the next step",
                       s->answer.n_events - s->answer.n_polled);
    }
    qn_answer_begin_step(&s->answer);
    if (atomic_load(&s->is_cancelled)) {
        qn_generator_stop(s->generator);
        end_request(s, QN_FINISH_ABORT);
        return QN_OK;
    }
    qn_status status = run_step(s, err);
    const bool is_over = qn_generator_state_of(s->generator) == QN_GENERATOR_IDLE;
    if (status == QN_OK && !is_over) {
        status = take_failure(s, err);
    }
    if (status < 0) {
        qn_generator_stop(s->generator);
        end_request(s, QN_FINISH_ERROR);
    } else if (is_over) {
        end_request(s, finish_of(s));
        status = take_failure(s, err);
    }
    return status;
}

/* -------------------------------------------------------------------------------- afterwards -- */

const float *qn_session_logits(const qn_session *session)
{
    return qn_sequence_logits(qn_generator_sequence(session->generator));
}

qn_session_stats qn_session_get_stats(const qn_session *session)
{
    qn_session_stats stats = qn_generator_count(session->generator);
    stats.prefill_s = session->prefill_s;
    stats.ttft_s = session->ttft_s;
    stats.decode_s = session->decode_s;
    stats.n_reasoning_tokens =
        session->answer.parser != NULL ? qn_parser_reasoning_tokens(session->answer.parser) : 0;
    stats.kv_bytes = qn_sequence_cache_bytes(qn_generator_sequence(session->generator));
    return stats;
}

qn_status qn_session_finish_files(qn_session *session, qn_error *err)
{
    qn_session *const s = session;
    if (s->recorder == NULL) {
        return QN_OK;
    }
    if (s->wants_logits_file && !s->is_active) { /* the last token too */
        const qn_generator_sink sink = make_sink(s);
        const qn_status status = qn_generator_catch_up(s->generator, &sink, err);
        if (status < 0) {
            return status;
        }
    }
    return qn_recorder_finish(s->recorder, err);
}

const char *qn_finish_name(qn_finish finish)
{
    switch (finish) {
    case QN_FINISH_STOP: return "stop";
    case QN_FINISH_LENGTH: return "length";
    case QN_FINISH_TOOL_CALLS: return "tool_calls";
    case QN_FINISH_ABORT: return "abort";
    case QN_FINISH_ERROR: return "error";
    }
    return "?";
}
