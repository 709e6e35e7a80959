/* SPDX-License-Identifier: Apache-2.0 */
/** @file fake_engine.h  An engine for tests of what stands above: it answers with the numbers that
 * follow the prompt's first id, one each step, and misbehaves when told to. */
#ifndef QN_TEST_SERVER_FAKE_ENGINE_H
#define QN_TEST_SERVER_FAKE_ENGINE_H
#include "server/backend.h"
#include "support/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { FAKE_REQUESTS_MAX = 600, FAKE_EVENTS_MAX = 3 * FAKE_REQUESTS_MAX, FAKE_TEXT_BYTES = 16 };

/** A request from submit to END. */
typedef struct fake_request {
    uint64_t id; /**< 0: the place is free. */
    void *tag;
    void (*on_begin)(void *tag);
    int32_t first;
    uint32_t n_prompt, n_told, max_tokens;
    uint32_t n_top;
    bool is_running, is_cancelled;
} fake_request;

/** What it does wrong, from the answer after the self-test's first round on. */
typedef struct fake_faults {
    qn_status load, step;
    bool end_error;  /**< ENDs have errors. */
    bool bad_token;  /**< Below 0. */
    bool bad_text;   /**< Half a character. */
    bool forgets;    /**< The second answer to a prompt is another one. */
    bool breaks_off; /**< The second answer is shorter. */
    bool loses;      /**< No END ever. */
} fake_faults;

/** All-zero but for limits is a good one. */
typedef struct fake_engine {
    uint32_t n_sequences, n_queue;
    uint32_t n_admitted_max; /**< So many run, though there are more sequences; 0: all. */
    fake_faults faults;
    fake_request requests[FAKE_REQUESTS_MAX];
    uint64_t last_id;
    struct {
        uint64_t id;
        qn_event event;
        char text[FAKE_TEXT_BYTES];
        qn_token_logprob top[2];
        qn_session_stats stats;
        qn_error error;
    } events[FAKE_EVENTS_MAX];
    uint32_t n_events, n_polled;
    qn_engine_stats stats;
    uint32_t n_prompt_max, n_running_max; /**< That were seen. */
    _Atomic uint32_t n_flushes, n_submits, n_steps, n_cancels, n_closes;

    pthread_mutex_t mutex; /**< Of the next three: a step waits while it is held. */
    pthread_cond_t changed;
    bool is_held, is_waiting;
} fake_engine;

/** Let every step wait until fake_release(). */
static inline void fake_hold(fake_engine *engine)
{
    (void)pthread_mutex_lock(&engine->mutex);
    engine->is_held = true;
    (void)pthread_mutex_unlock(&engine->mutex);
}

/** Wait until a step has begun that waits. */
static inline void fake_await_step(fake_engine *engine)
{
    (void)pthread_mutex_lock(&engine->mutex);
    while (!engine->is_waiting) {
        (void)pthread_cond_wait(&engine->changed, &engine->mutex);
    }
    (void)pthread_mutex_unlock(&engine->mutex);
}

static inline void fake_release(fake_engine *engine)
{
    (void)pthread_mutex_lock(&engine->mutex);
    engine->is_held = false;
    (void)pthread_cond_broadcast(&engine->changed);
    (void)pthread_mutex_unlock(&engine->mutex);
}

static inline qn_status fake_submit(void *context, uint64_t *id, const qn_request *request,
                                    qn_error *err)
{
    fake_engine *const e = context;
    fake_request *place = NULL;
    uint32_t n_waiting = 0;
    for (size_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        fake_request *const r = &e->requests[i];
        n_waiting += r->id != 0 && !r->is_running ? 1 : 0;
        place = r->id == 0 && place == NULL ? r : place;
    }
    *id = 0;
    if (request->n_ids == 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "prompt: no tokens, 1 expected");
    }
    if (n_waiting == e->n_queue) {
        return QN_AGAIN;
    }
    assert_non_null(place);
    *place = (fake_request){.id = ++e->last_id,
                            .tag = request->tag,
                            .on_begin = request->on_begin,
                            .first = request->ids[0],
                            .n_prompt = (uint32_t)request->n_ids,
                            .max_tokens = request->max_tokens,
                            .n_top = request->n_top_logprobs};
    e->n_prompt_max = place->n_prompt > e->n_prompt_max ? place->n_prompt : e->n_prompt_max;
    e->n_submits++;
    *id = place->id;
    return QN_OK;
}

static inline void fake_cancel(void *context, uint64_t id)
{
    fake_engine *const e = context;
    e->n_cancels++;
    for (size_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        e->requests[i].is_cancelled |= id != 0 && e->requests[i].id == id;
    }
}

static inline void fake_add(fake_engine *e, const fake_request *r, const qn_event *event)
{
    assert_true(e->n_events < FAKE_EVENTS_MAX);
    e->events[e->n_events].id = r->id;
    e->events[e->n_events].event = *event;
    e->events[e->n_events].event.tag = r->tag;
    e->n_events++;
}

static inline void fake_token(fake_engine *e, fake_request *r)
{
    const bool is_second = e->last_id > 10; /* of the self-test */
    const int32_t token = e->faults.bad_token              ? -1
                          : e->faults.forgets && is_second ? 7777
                                                           : r->first + (int32_t)r->n_told;
    qn_token_logprob *const top = e->events[e->n_events].top;
    top[0] = (qn_token_logprob){token, -0.5F};
    top[1] = (qn_token_logprob){token + 1, -1.5F};
    fake_add(e, r,
             &(qn_event){.kind = QN_EVENT_TOKEN,
                         .token = top[0],
                         .position = r->n_prompt + r->n_told,
                         .n_top = r->n_top,
                         .top = r->n_top > 0 ? top : NULL});
    char *const text = e->events[e->n_events].text;
    const int len = e->faults.bad_text ? 1 : snprintf(text, FAKE_TEXT_BYTES, "%d ", token);
    if (e->faults.bad_text) {
        text[0] = (char)0xe2;
    }
    fake_add(e, r, &(qn_event){.kind = QN_EVENT_TEXT, .text = text, .len = (size_t)len});
    r->n_told++;
    e->stats.n_generated_tokens++;
    r->max_tokens -= e->faults.breaks_off && is_second && r->n_told == 2 ? r->max_tokens - 2 : 0;
}

static inline void fake_end(fake_engine *e, fake_request *r)
{
    qn_session_stats *const stats = &e->events[e->n_events].stats;
    qn_error *const error = &e->events[e->n_events].error;
    *stats = (qn_session_stats){.n_prompt_tokens = r->n_prompt, .n_generated_tokens = r->n_told};
    (void)qn_fail(error, QN_E_FORMAT, 0, __func__, "logits: none, numbers expected");
    fake_add(e, r,
             &(qn_event){.kind = QN_EVENT_END,
                         .finish = r->is_cancelled       ? QN_FINISH_ABORT
                                   : e->faults.end_error ? QN_FINISH_ERROR
                                                         : QN_FINISH_LENGTH,
                         .stats = stats,
                         .error = e->faults.end_error ? error : NULL});
    r->id = 0;
}

static inline void fake_wait(fake_engine *e)
{
    (void)pthread_mutex_lock(&e->mutex);
    while (e->is_held) {
        e->is_waiting = true;
        (void)pthread_cond_broadcast(&e->changed);
        (void)pthread_cond_wait(&e->changed, &e->mutex);
    }
    e->is_waiting = false;
    (void)pthread_mutex_unlock(&e->mutex);
}

static inline qn_status fake_step(void *context, qn_error *err)
{
    fake_engine *const e = context;
    uint32_t n_running = 0;
    const uint32_t n_running_most = e->n_admitted_max > 0 ? e->n_admitted_max : e->n_sequences;
    bool has_any = false;
    assert_true(e->n_polled == e->n_events);
    memset(e->events, 0x5a, sizeof e->events); /* what was polled is over */
    e->n_events = e->n_polled = 0;
    for (size_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        n_running += e->requests[i].id != 0 && e->requests[i].is_running ? 1 : 0;
    }
    for (size_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        fake_request *const r = &e->requests[i];
        has_any |= r->id != 0;
        if (r->id != 0 && !r->is_running && n_running < n_running_most) {
            r->is_running = true;
            n_running++;
            if (r->on_begin != NULL) {
                r->on_begin(r->tag);
            }
        }
    }
    fake_wait(e);
    if (e->faults.step < 0) {
        return qn_fail(err, e->faults.step, 0, __func__, "device: lost, one expected");
    }
    e->n_steps++;
    for (size_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        fake_request *const r = &e->requests[i];
        if (r->id != 0 && r->is_cancelled) {
            fake_end(e, r);
        } else if (r->id != 0 && r->is_running) {
            if (r->n_told < r->max_tokens) {
                fake_token(e, r);
            }
            if (r->n_told == r->max_tokens && !e->faults.loses) {
                fake_end(e, r);
            }
        }
    }
    e->n_running_max = n_running > e->n_running_max ? n_running : e->n_running_max;
    e->stats.n_steps++;
    return has_any ? QN_OK : QN_AGAIN;
}

static inline bool fake_poll(void *context, uint64_t *id, qn_event *event)
{
    fake_engine *const e = context;
    if (e->n_polled > 0) { /* whoever wants to keep an event has copied it */
        const uint32_t i = e->n_polled - 1;
        memset(e->events[i].text, 0x5a, sizeof e->events[i].text);
        memset(e->events[i].top, 0x5a, sizeof e->events[i].top);
        memset(&e->events[i].stats, 0x5a, sizeof e->events[i].stats);
        memset(&e->events[i].error, 0x5a, sizeof e->events[i].error);
    }
    if (e->n_polled == e->n_events) {
        return false;
    }
    *id = e->events[e->n_polled].id;
    *event = e->events[e->n_polled].event;
    e->n_polled++;
    return true;
}

static inline qn_engine_stats fake_get_stats(void *context)
{
    const fake_engine *const e = context;
    qn_engine_stats stats = e->stats;
    for (size_t i = 0; i < FAKE_REQUESTS_MAX; i++) {
        stats.n_running += e->requests[i].id != 0 && e->requests[i].is_running ? 1 : 0;
        stats.n_waiting += e->requests[i].id != 0 && !e->requests[i].is_running ? 1 : 0;
    }
    return stats;
}

static inline void fake_flush(void *context)
{
    fake_engine *const e = context;
    e->n_flushes++;
}

static inline void fake_close(void *context)
{
    fake_engine *const e = context;
    e->n_closes++;
}

/** A server_load_fn whose context is a fake_engine. */
static inline qn_status fake_load(void *context, server_backend *out, qn_error *err)
{
    fake_engine *const e = context;
    if (e->faults.load < 0) {
        return qn_fail(err, e->faults.load, 0, __func__, "models/none: not there, one expected");
    }
    *out = (server_backend){
        .context = e,
        .submit = fake_submit,
        .cancel = fake_cancel,
        .step = fake_step,
        .poll = fake_poll,
        .get_stats = fake_get_stats,
        .flush = fake_flush,
        .close = fake_close,
        .n_sequences = e->n_sequences,
        .n_queue = e->n_queue,
        .context_tokens = 1024,
    };
    return QN_OK;
}
#endif
