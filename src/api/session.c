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
    atomic_bool is_cancelled;           /* set by any thread, read by the one that steps */
    bool is_active;                     /* a request has not ended */
    uint64_t submitted_ns;              /* of the request, as the following */
    double prefill_s, ttft_s, decode_s; /* as in qn_session_stats */
    qn_events events;
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

/* Positions of a session where nothing is said: the model's, or what a GPU has memory for, which
 * unlike that of the host is taken at once. */
static uint32_t default_context(const qn_model *model)
{
    const uint32_t n_max = model->config.n_context_max;
    if (model->gpu == NULL) {
        return n_max;
    }
    qn_kv_layout layout;
    qn_kv_layout_init(&layout, &model->config, model->kv_dtype, model->info.has_mtp);
    const uint64_t n_pages = qn_model_cache_bytes(model) / layout.page_bytes;
    const uint64_t n = (n_pages > 0 ? n_pages : 1) * QN_PAGE_TOKENS;
    return n < n_max ? (uint32_t)n : n_max;
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
        .n_tokens_max = o->context_tokens > 0 ? o->context_tokens : default_context(model),
        .n_rows_max = o->chunk_tokens > 0 ? o->chunk_tokens : QN_CHUNK_TOKENS_MAX,
    };
    QN_TRY(status, qn_generator_open(&s->generator, model->glm, &sequence_options, err), fail);
    const qn_events_options events_options = {
        .n_events = QN_LOGIT_ROWS_MAX + QN_EVENTS_OF_STEP_MAX,
        .n_tokens = QN_LOGIT_ROWS_MAX + 1, /* a prompt's last rows, and the first token */
        .text_bytes = o->fn == NULL ? QN_EVENT_BYTES_RESERVED : 0,
    };
    QN_TRY(status, qn_events_init(&s->events, &events_options, err), fail);
    qn_answer_init(&s->answer, &s->events, o->fn, o->context);
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
    qn_events_deinit(&(*session)->events);
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
    if (s->is_active || qn_events_unread(&s->events) > 0) { /* END is to be read too */
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "session: a request has not ended, one at a time expected");
    }
    QN_TRY(status, qn_request_check(&inner, stop_ids, s->model, request, n_context, err), fail);
    QN_TRY(status, qn_answer_begin(&s->answer, s->model, request, err), fail);
    inner.wants_prompt_logits =
        s->wants_logits_file || s->logits_fn != NULL || request->wants_prompt_logprobs;
    qn_events_begin_step(&s->events);
    s->prefill_s = s->ttft_s = s->decode_s = 0.0;
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
    return qn_events_poll(&session->events, NULL, event);
}

/* ------------------------------------------------------------------------------------ a step -- */

static bool see_token(void *context, int32_t token, uint32_t position, const float *logits,
                      bool is_stop)
{
    qn_session *const s = context;
    if (s->ttft_s == 0.0) {
        s->ttft_s = qn_clock_seconds(s->submitted_ns, qn_clock_ns());
    }
    return qn_answer_see_token(&s->answer, qn_generator_sampler(s->generator), token, position,
                               logits, is_stop);
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
    if (position < s->answer.n_prompt && logits != NULL) {
        qn_answer_see_prompt(&s->answer, qn_generator_sampler(s->generator), position, n_rows, ids,
                             logits, s->model->config.n_vocab);
    }
    qn_status status = QN_OK;
    if (s->logits_fn != NULL) {
        status = s->logits_fn(s->logits_context, position, n_rows, ids, logits, err);
    }
    if (s->recorder == NULL) {
        return status;
    }
    if (status < 0) {
        qn_recorder_miss_rows(s->recorder, status);
        return status;
    }
    return qn_recorder_end_step(s->recorder, n_rows, ids, logits, err);
}

static qn_generator_sink make_sink(qn_session *s)
{
    return (qn_generator_sink){
        .context = s, .probe = choose_probe, .rows = see_rows, .token = see_token};
}

/* Of an answer that stopped, what is held back may say why.  Text that found no memory makes any
 * end an error. */
static qn_status end_request(qn_session *s, qn_finish finish, qn_error *err)
{
    qn_answer_flush(&s->answer);
    finish = finish == QN_FINISH_STOP ? qn_answer_stop_reason(&s->answer) : finish;
    const qn_status status = s->events.failure.status;
    if (status < 0 && err != NULL) {
        *err = s->events.failure;
    }
    const qn_event end = {.kind = QN_EVENT_END,
                          .finish = status < 0 ? QN_FINISH_ERROR : finish,
                          .stop_number = qn_answer_stop_number(&s->answer)};
    s->answer.fn(s->answer.context, &end);
    s->is_active = false;
    return status;
}

/* The generator has ended: why? */
static qn_finish finish_of(const qn_session *s)
{
    return qn_generator_end_of(s->generator) == QN_GENERATOR_END_LENGTH ? QN_FINISH_LENGTH
                                                                        : QN_FINISH_STOP;
}

static qn_status run_step(qn_session *s, qn_error *err)
{
    const uint64_t start_ns = qn_clock_ns();
    const qn_generator_sink sink = make_sink(s);
    const bool is_prompt = qn_generator_state_of(s->generator) == QN_GENERATOR_PROMPT;
    const qn_status status = qn_generator_step(s->generator, &sink, err);
    *(is_prompt ? &s->prefill_s : &s->decode_s) += qn_clock_seconds(start_ns, qn_clock_ns());
    if (status < 0 && s->recorder != NULL) {
        qn_recorder_fail_step(s->recorder, status);
    }
    return status;
}

qn_status qn_session_step(qn_session *session, qn_error *err)
{
    qn_session *const s = session;
    if (!s->is_active) {
        return QN_AGAIN;
    }
    if (qn_events_unread(&s->events) > 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "session: %u events are unread, none expected before the next step",
                       qn_events_unread(&s->events));
    }
    qn_events_begin_step(&s->events);
    if (atomic_load(&s->is_cancelled)) {
        qn_generator_stop(s->generator);
        return end_request(s, QN_FINISH_ABORT, err);
    }
    const qn_status status = run_step(s, err);
    if (status < 0) {
        qn_generator_stop(s->generator);
        (void)!end_request(s, QN_FINISH_ERROR, NULL); /* the step's own error comes first */
        return status;
    }
    if (qn_generator_state_of(s->generator) == QN_GENERATOR_IDLE) {
        return end_request(s, finish_of(s), err);
    }
    if (s->events.failure.status < 0) {
        qn_generator_stop(s->generator);
        return end_request(s, QN_FINISH_ERROR, err);
    }
    return QN_OK;
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
    stats.n_reasoning_tokens = qn_answer_reasoning_tokens(&session->answer);
    stats.kv_bytes = qn_sequence_cache_bytes(qn_generator_sequence(session->generator));
    return stats;
}

qn_status qn_session_finish_files(qn_session *session, qn_error *err)
{
    qn_session *const s = session;
    if (s->recorder == NULL) {
        return QN_OK;
    }
    if (qn_recorder_wants_logits(s->recorder) && !s->is_active) { /* the last token too */
        const qn_generator_sink sink = make_sink(s);
        const qn_status status = qn_generator_catch_up(s->generator, &sink, err);
        if (status < 0) { /* the row will not be computed again */
            qn_recorder_miss_rows(s->recorder, status);
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
    case QN_FINISH_DEADLINE: return "deadline";
    }
    return "?";
}
