/* SPDX-License-Identifier: Apache-2.0 */
/** @file transcript.h  A request run to its end, and everything that was said. */
#ifndef QN_TEST_API_TRANSCRIPT_H
#define QN_TEST_API_TRANSCRIPT_H
#include "fixture.h"

enum { SAID_TOKENS_MAX = 320, SAID_BYTES = 4096, N_TOP = 3 };

/** What events told, without the borders of steps: the same for every depth of speculation. */
typedef struct said {
    int32_t ids[SAID_TOKENS_MAX]; /**< PROMPT_TOKEN, then TOKEN. */
    float logprobs[SAID_TOKENS_MAX];
    uint32_t positions[SAID_TOKENS_MAX];
    qn_token_logprob tops[SAID_TOKENS_MAX][N_TOP];
    uint32_t n_tops[SAID_TOKENS_MAX];
    uint32_t n_prompt; /**< Of the ids. */
    uint32_t n_ids;
    char reasoning[SAID_BYTES];
    char text[SAID_BYTES];
    char calls[SAID_BYTES];     /**< "name(arguments);" of each. */
    char pieces[SAID_BYTES];    /**< Of the calls. */
    char kinds[2 * SAID_BYTES]; /**< Every event: r x b d c w p t e, as qn_event_kind goes. */
    qn_finish finish;
    uint32_t stop_number;
    uint32_t n_ends;
} said;

/** That, and what may depend on how it was computed. */
typedef struct transcript {
    said said;
    qn_session_stats stats;
    qn_error err;   /**< Of the step that failed. */
    uint32_t n_run; /**< Steps that returned QN_OK. */
} transcript;

static inline void said_append(char to[SAID_BYTES], const char *text, size_t len)
{
    const size_t n = strlen(to);
    assert_true(n + len < SAID_BYTES);
    memcpy(to + n, text, len);
}

static inline void said_token(said *s, const qn_event *event)
{
    const uint32_t i = s->n_ids++;
    assert_true(i < SAID_TOKENS_MAX);
    s->n_prompt += event->kind == QN_EVENT_PROMPT_TOKEN ? 1 : 0;
    s->ids[i] = event->token.token;
    s->logprobs[i] = event->token.logprob;
    s->positions[i] = event->position;
    s->n_tops[i] = event->n_top;
    for (uint32_t k = 0; k < event->n_top && k < N_TOP; k++) {
        s->tops[i][k] = event->top[k];
    }
}

/** A qn_event_fn; its context is a said. */
static inline void said_event(void *context, const qn_event *event)
{
    said *const s = context;
    const size_t n_events = strlen(s->kinds);
    assert_true(n_events + 1 < sizeof s->kinds);
    assert_int_equal(s->n_ends, 0); /* nothing comes behind END */
    s->kinds[n_events] = "rxbdcwpte"[event->kind];
    switch (event->kind) {
    case QN_EVENT_REASONING: said_append(s->reasoning, event->text, event->len); break;
    case QN_EVENT_TEXT: said_append(s->text, event->text, event->len); break;
    case QN_EVENT_TOOL_CALL:
        said_append(s->calls, event->name, event->name_len);
        said_append(s->calls, "(", 1);
        said_append(s->calls, event->text, event->len);
        said_append(s->calls, ");", 2);
        break;
    case QN_EVENT_CALL_PIECE: said_append(s->pieces, event->text, event->len); break;
    case QN_EVENT_CALL_BEGIN:
    case QN_EVENT_WARNING: break;
    case QN_EVENT_PROMPT_TOKEN:
    case QN_EVENT_TOKEN: said_token(s, event); break;
    case QN_EVENT_END:
        s->n_ends++;
        s->finish = event->finish;
        s->stop_number = event->stop_number;
        break;
    }
}

/** Take the events of the last step. */
static inline void said_poll(said *s, qn_session *session)
{
    qn_event event;
    while (qn_session_poll(&event, session)) {
        said_event(s, &event);
    }
}

static inline qn_session *open_session(qn_model *model, const qn_session_options *options)
{
    qn_session *session = NULL;
    qn_error err = {0};
    if (qn_session_open(&session, model, options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    return session;
}

static inline void submit(qn_session *session, const qn_request *request)
{
    qn_error err = {0};
    if (qn_session_submit(session, request, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
}

/** Step until the request has ended, polling after each step. */
static inline void finish(transcript *t, qn_session *session)
{
    qn_status status = QN_OK;
    while ((status = qn_session_step(session, &t->err)) == QN_OK) {
        t->n_run++;
        said_poll(&t->said, session);
    }
    said_poll(&t->said, session);
    t->stats = qn_session_get_stats(session);
    assert_int_equal(t->said.n_ends, 1);
    assert_int_equal(status < 0, t->said.finish == QN_FINISH_ERROR);
    assert_int_equal(qn_session_step(session, NULL), QN_AGAIN);
}

/** Submit, and step to the end. */
static inline void answer(transcript *t, qn_session *session, const qn_request *request)
{
    memset(t, 0, sizeof *t);
    submit(session, request);
    finish(t, session);
}

/** The same in a session of its own. */
static inline void answer_alone(transcript *t, qn_model *model, const qn_request *request)
{
    qn_session *session = open_session(model, NULL);
    answer(t, session, request);
    qn_session_close(&session);
}

/** Bit for bit. */
static inline void assert_said_equal(const said *a, const said *b)
{
    assert_string_equal(a->kinds, b->kinds);
    assert_string_equal(a->text, b->text);
    assert_memory_equal(a, b, sizeof *a);
}

/** Text with control tokens to ids, which the caller releases. */
static inline size_t encode(int32_t **ids, const qn_model *model, const char *text)
{
    size_t n_ids = 0;
    qn_error err = {0};
    assert_int_equal(qn_encode(ids, &n_ids, model, text, strlen(text), QN_CONTROL_MATCH, &err),
                     QN_OK);
    return n_ids;
}
#endif
