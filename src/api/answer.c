/* SPDX-License-Identifier: Apache-2.0 */
#include "api/answer.h"

#include "base/assert.h"
#include "base/try.h"

qn_status qn_answer_init(qn_answer *answer, qn_event_fn *fn, void *context, qn_error *err)
{
    answer->fn = fn;
    answer->context = context;
    qn_buf_init(&answer->text, SIZE_MAX / 2);
    return fn != NULL ? QN_OK : qn_buf_reserve(&answer->text, QN_EVENT_BYTES_RESERVED, err);
}

void qn_answer_deinit(qn_answer *answer)
{
    qn_parser_close(&answer->parser);
    qn_buf_deinit(&answer->text);
}

/* Append bytes that an event points to; where they begin goes to @p at.  False: no memory. */
static bool keep(qn_answer *answer, size_t *at, const char *ptr, size_t len)
{
    *at = answer->text.len;
    return len == 0 || qn_buf_append(&answer->text, ptr, len, &answer->failure) == QN_OK;
}

/* Add a piece of text to the event before, of which it is the continuation.  False: it is none. */
static bool join(qn_answer *answer, const qn_event *event)
{
    qn_event *const last = answer->n_events > 0 ? &answer->events[answer->n_events - 1] : NULL;
    const bool is_text = event->kind == QN_EVENT_TEXT || event->kind == QN_EVENT_REASONING;
    size_t at = 0;
    if (last == NULL || !is_text || last->kind != event->kind) {
        return false;
    }
    last->len += keep(answer, &at, event->text, event->len) ? event->len : 0;
    return true;
}

void qn_answer_add(qn_answer *answer, const qn_event *event)
{
    if (answer->fn != NULL) {
        answer->fn(answer->context, event);
        return;
    }
    if (join(answer, event)) {
        return;
    }
    QN_ASSERT(answer->n_events < QN_EVENTS_MAX);
    const uint32_t i = answer->n_events;
    answer->events[i] = *event;
    if (keep(answer, &answer->text_at[i], event->text, event->len) &&
        keep(answer, &answer->name_at[i], event->name, event->name_len)) {
        answer->n_events++;
    }
}

static void add_text(qn_answer *answer, qn_str text)
{
    if (text.len > 0) {
        qn_answer_add(answer,
                      &(qn_event){.kind = QN_EVENT_TEXT, .text = text.ptr, .len = text.len});
    }
}

/* The parser's events: the answer's text goes through the stop texts, which hold some back. */
static void take(void *context, const qn_event *event)
{
    qn_answer *const answer = context;
    if (answer->is_stopped) {
        return;
    }
    if (event->kind == QN_EVENT_TEXT && answer->heeds_stops) {
        qn_str pieces[2] = {{0}};
        answer->is_stopped =
            qn_chat_stops_feed(&answer->stops, (qn_str){event->text, event->len}, pieces);
        add_text(answer, pieces[0]);
        add_text(answer, pieces[1]);
        return;
    }
    if (event->kind != QN_EVENT_WARNING) { /* no stop text goes on across a call or reasoning */
        add_text(answer, qn_chat_stops_end(&answer->stops));
    }
    answer->n_calls += event->kind == QN_EVENT_TOOL_CALL ? 1 : 0;
    qn_answer_add(answer, event);
}

qn_status qn_answer_begin(qn_answer *answer, const qn_model *model, const qn_request *request,
                          qn_error *err)
{
    qn_status status = QN_OK;
    qn_parser *parser = NULL;
    const qn_parser_options options = {
        .prompt = request->ids,
        .n_prompt = request->n_ids,
        .tools_json = request->tools_json,
        .tools_len = request->tools_len,
        .fn = take,
        .context = answer,
    };
    QN_TRY(status, qn_parser_open(&parser, model, &options, err), fail);
    QN_TRY(status, qn_chat_stops_init(&answer->stops, request->stops, request->n_stops, err), fail);
    qn_parser_close(&answer->parser);
    answer->parser = parser;
    answer->is_stopped = false;
    answer->n_calls = 0;
    answer->failure = (qn_error){0};
    qn_answer_begin_step(answer);
    return QN_OK;

fail:
    qn_parser_close(&parser);
    return status;
}

void qn_answer_begin_step(qn_answer *answer)
{
    qn_buf_clear(&answer->text);
    answer->n_events = answer->n_polled = answer->n_tops = 0;
}

qn_token_logprob *qn_answer_take_tops(qn_answer *answer)
{
    QN_ASSERT(answer->n_tops < sizeof answer->tops / sizeof answer->tops[0]);
    return answer->tops[answer->n_tops++];
}

bool qn_answer_feed(qn_answer *answer, int32_t token, bool heeds_stops)
{
    answer->heeds_stops = heeds_stops;
    const qn_status status = qn_parser_feed(answer->parser, token, &answer->failure);
    QN_ASSERT(status == QN_OK); /* the model draws from its own vocabulary */
    return !answer->is_stopped;
}

void qn_answer_end(qn_answer *answer, qn_finish finish)
{
    qn_parser_end(answer->parser);
    if (!answer->is_stopped) {
        add_text(answer, qn_chat_stops_end(&answer->stops));
    }
    qn_answer_add(answer, &(qn_event){.kind = QN_EVENT_END, .finish = finish});
}

bool qn_answer_poll(qn_answer *answer, qn_event *event)
{
    if (answer->n_polled == answer->n_events) {
        return false;
    }
    const uint32_t i = answer->n_polled++;
    *event = answer->events[i];
    event->text = event->len > 0 ? answer->text.ptr + answer->text_at[i] : NULL;
    event->name = event->name_len > 0 ? answer->text.ptr + answer->name_at[i] : NULL;
    return true;
}
