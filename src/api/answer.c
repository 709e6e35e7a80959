/* SPDX-License-Identifier: Apache-2.0 */
#include "api/answer.h"

#include "base/assert.h"
#include "base/try.h"

void qn_answer_init(qn_answer *answer, qn_events *events, qn_event_fn *fn, void *context)
{
    answer->events = events;
    answer->fn = fn != NULL ? fn : qn_events_add;
    answer->context = fn != NULL ? context : events;
}

void qn_answer_deinit(qn_answer *answer)
{
    qn_parser_close(&answer->parser);
}

static void tell(qn_answer *answer, const qn_event *event)
{
    answer->fn(answer->context, event);
}

static void tell_text(qn_answer *answer, qn_str text)
{
    if (text.len > 0) {
        tell(answer, &(qn_event){.kind = QN_EVENT_TEXT, .text = text.ptr, .len = text.len});
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
        tell_text(answer, pieces[0]);
        tell_text(answer, pieces[1]);
        return;
    }
    if (event->kind != QN_EVENT_WARNING) { /* no stop text goes on across a call or reasoning */
        tell_text(answer, qn_chat_stops_end(&answer->stops));
    }
    answer->n_calls += event->kind == QN_EVENT_TOOL_CALL ? 1 : 0;
    tell(answer, event);
    answer->is_stopped = answer->single_call && answer->n_calls > 0;
}

qn_status qn_answer_begin(qn_answer *answer, const qn_model *model, const qn_request *request,
                          qn_error *err)
{
    qn_status status = QN_OK;
    qn_parser *parser = NULL;
    const uint32_t n_vocab = qn_model_get_info(model)->n_vocab;
    const qn_parser_options options = {
        .prompt = request->ids,
        .n_prompt = request->n_ids,
        .tools_json = request->tools_json,
        .tools_len = request->tools_len,
        .fn = take,
        .context = answer,
        .streams_calls = request->streams_calls,
    };
    QN_TRY(status, qn_parser_open(&parser, model, &options, err), fail);
    QN_TRY(status, qn_chat_stops_init(&answer->stops, request->stops, request->n_stops, err), fail);
    qn_parser_close(&answer->parser);
    answer->parser = parser;
    answer->n_prompt = (uint32_t)request->n_ids;
    answer->n_top_logprobs = request->n_top_logprobs < n_vocab ? request->n_top_logprobs : n_vocab;
    answer->min_tokens = request->min_tokens;
    answer->wants_logprobs = request->wants_logprobs;
    answer->wants_prompt_logprobs = request->wants_prompt_logprobs;
    answer->single_call = request->single_call;
    answer->is_stopped = answer->is_stopped_by_id = false;
    answer->n_calls = 0;
    return QN_OK;

fail:
    qn_parser_close(&parser);
    return status;
}

/* The event of a token with its log-probabilities where they are wanted. */
static void tell_token(qn_answer *answer, const qn_sampler *sampler, qn_event *event,
                       const float *logits, bool wants_logprob)
{
    if (wants_logprob) {
        const uint32_t n_top = answer->n_top_logprobs;
        qn_token_logprob *const top = n_top > 0 ? qn_events_take_tops(answer->events) : NULL;
        event->token = qn_sampler_logprobs(sampler, logits, event->token.token, top, n_top);
        event->top = top;
        event->n_top = n_top;
    }
    tell(answer, event);
}

void qn_answer_see_prompt(qn_answer *answer, const qn_sampler *sampler, uint32_t position,
                          uint32_t n_rows, const int32_t *ids, const float *logits,
                          uint32_t n_vocab)
{
    if (!answer->wants_prompt_logprobs) {
        return;
    }
    if (position == 0) { /* nothing says how likely the first is */
        tell(answer, &(qn_event){.kind = QN_EVENT_PROMPT_TOKEN, .token = {.token = ids[0]}});
    }
    for (uint32_t i = 0; i < n_rows && position + i + 1 < answer->n_prompt; i++) {
        qn_event event = {.kind = QN_EVENT_PROMPT_TOKEN,
                          .token = {.token = ids[i + 1]},
                          .position = position + i + 1};
        const float *const row = logits + (size_t)i * n_vocab;
        event.rank = qn_sampler_rank(row, n_vocab, ids[i + 1]);
        tell_token(answer, sampler, &event, row, true);
    }
}

bool qn_answer_see_token(qn_answer *answer, const qn_sampler *sampler, int32_t token,
                         uint32_t position, const float *logits, bool is_stop)
{
    QN_ASSERT(position >= answer->n_prompt);
    const uint32_t n_tokens = position + 1 - answer->n_prompt; /* of the answer, with this one */
    qn_event event = {.kind = QN_EVENT_TOKEN, .token = {.token = token}, .position = position};
    tell_token(answer, sampler, &event, logits, answer->wants_logprobs);
    answer->is_stopped_by_id = is_stop; /* part of the ids, never of the text */
    return !is_stop && qn_answer_feed(answer, token, n_tokens >= answer->min_tokens);
}

bool qn_answer_feed(qn_answer *answer, int32_t token, bool heeds_stops)
{
    answer->heeds_stops = heeds_stops;
    const qn_status status = qn_parser_feed(answer->parser, token, NULL);
    QN_ASSERT(status == QN_OK); /* the model draws from its own vocabulary */
    return !answer->is_stopped;
}

void qn_answer_flush(qn_answer *answer)
{
    qn_parser_end(answer->parser);
    if (!answer->is_stopped) {
        tell_text(answer, qn_chat_stops_end(&answer->stops));
    }
}

qn_finish qn_answer_stop_reason(const qn_answer *answer)
{
    const bool may_end_with_calls = answer->is_stopped_by_id || answer->single_call;
    return may_end_with_calls && answer->n_calls > 0 ? QN_FINISH_TOOL_CALLS : QN_FINISH_STOP;
}

uint32_t qn_answer_stop_number(const qn_answer *answer)
{
    const qn_chat_stops *const stops = &answer->stops;
    return stops->found != NULL ? (uint32_t)(stops->found - stops->stops) + 1 : 0;
}

uint64_t qn_answer_reasoning_tokens(const qn_answer *answer)
{
    return answer->parser != NULL ? qn_parser_reasoning_tokens(answer->parser) : 0;
}
