/* SPDX-License-Identifier: Apache-2.0 */
#include "mock.h"

#include <stdlib.h>

static const char *const words[] = {"ash",   "birch", "cedar",  "elm",    "fir",    "hazel",
                                    "larch", "lime",  "maple",  "oak",    "pine",   "plum",
                                    "rowan", "sorb",  "spruce", "walnut", "willow", "yew"};

const char *mock_word(const mock_request *r, uint32_t i_token)
{
    return words[(r->number * 7 + i_token) % (sizeof words / sizeof *words)];
}

static const char *finish_of(const mock_request *r)
{
    return r->n_output == r->max_tokens ? "length" : "stop";
}

/* What is framed: one write is one chunk of HTTP. */
static void frame_put(qn_buf *out, const mock_request *r, const qn_buf *events, bool is_last)
{
    if (r->plan.has[MOCK_CLOSE_FRAMED]) {
        mock_put_bytes(out, events->ptr, events->len);
        return;
    }
    mock_put(out, "%zx\r\n", events->len);
    mock_put_bytes(out, events->ptr, events->len);
    mock_put(out, "\r\n%s", is_last ? "0\r\n\r\n" : "");
}

void mock_head_put(qn_buf *out, const mock_request *r)
{
    const bool closes = r->plan.has[MOCK_CONNECTION_CLOSE] || r->plan.has[MOCK_CLOSE_FRAMED];
    mock_put(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%s%s\r\n",
             closes ? "Connection: close\r\n" : "",
             r->plan.has[MOCK_CLOSE_FRAMED] ? "" : "Transfer-Encoding: chunked\r\n");
}

/* The buffer that events are made in before they are framed. */
static qn_buf *scratch(void)
{
    static qn_buf events;
    events.bytes_max = MOCK_BYTES_MAX;
    qn_buf_clear(&events);
    return &events;
}

static const char *eol(const mock_request *r)
{
    return r->plan.has[MOCK_CRLF] ? "\r\n" : "\n";
}

/* An event up to its choices. */
static void begin_event(qn_buf *events, const mock_script *script, const mock_request *r)
{
    if (r->plan.has[MOCK_COMMENTS]) {
        mock_put(events, ": keep-alive%s%s", eol(r), eol(r));
    }
    mock_put(events, "data: {\"id\":\"%s-%llu\",\"object\":\"%s\",\"created\":1,\"model\":%s,",
             r->is_chat ? "chatcmpl" : "cmpl", (unsigned long long)r->number,
             r->is_chat ? "chat.completion.chunk" : "text_completion", script->model_json);
}

static void usage_numbers(const mock_request *r, long long *completion, long long *total,
                          long long *cached)
{
    *completion = r->n_output;
    *cached = r->n_cached;
    switch (r->plan.usage) {
    case MOCK_USAGE_TOO_MANY: *completion += 5; break;
    case MOCK_USAGE_TOO_FEW: *completion = *completion > 0 ? *completion - 1 : 0; break;
    case MOCK_USAGE_ZERO: *completion = 0; break;
    case MOCK_USAGE_NEGATIVE: *completion = -*completion; break;
    case MOCK_USAGE_CACHED: *cached = r->n_prompt + 1; break;
    default: break;
    }
    *total = r->n_prompt + *completion + (r->plan.usage == MOCK_USAGE_TOTAL ? 3 : 0);
}

static json_t *usage_json(const mock_script *script, const mock_request *r)
{
    long long completion, total, cached;
    usage_numbers(r, &completion, &total, &cached);
    json_t *const usage =
        json_pack("{s:I,s:I,s:I}", "prompt_tokens", (json_int_t)r->n_prompt, "completion_tokens",
                  (json_int_t)completion, "total_tokens", (json_int_t)total);
    if (r->plan.usage == MOCK_USAGE_TEXT) {
        (void)json_object_set_new(usage, "completion_tokens", json_string("many"));
    }
    if (script->cached_kind != MOCK_CACHED_NONE || r->plan.usage == MOCK_USAGE_CACHED) {
        (void)json_object_set_new(usage, "prompt_tokens_details",
                                  json_pack("{s:I}", "cached_tokens", (json_int_t)cached));
    }
    if (r->is_chat && script->n_reasoning > 0) {
        const uint32_t n = script->n_reasoning < r->n_output ? script->n_reasoning : r->n_output;
        (void)json_object_set_new(usage, "completion_tokens_details",
                                  json_pack("{s:I}", "reasoning_tokens", (json_int_t)n));
    }
    return usage;
}

static void put_usage(qn_buf *events, const mock_script *script, const mock_request *r)
{
    if (!r->has_usage || r->plan.usage == MOCK_USAGE_NONE) {
        return;
    }
    json_t *const usage = usage_json(script, r);
    char *const text = json_dumps(usage, JSON_COMPACT);
    begin_event(events, script, r);
    mock_put(events, "\"choices\":[],\"usage\":%s}%s%s", text, eol(r), eol(r));
    free(text);
    json_decref(usage);
}

/* A choice: [text] of n tokens from n_sent on, all of one kind. */
static void put_choice(qn_buf *events, const mock_script *script, const mock_request *r,
                       uint32_t from, uint32_t n, bool is_reasoning, bool is_last)
{
    begin_event(events, script, r);
    const char *const member = !r->is_chat    ? "text"
                               : is_reasoning ? "reasoning_content"
                                              : "content";
    mock_put(events, "\"choices\":[{\"index\":0,");
    mock_put(events, r->is_chat ? "\"delta\":{\"%s\":\"" : "\"%s\":\"", member);
    for (uint32_t i = from; i < from + n; i++) {
        mock_put(events, "%s ", mock_word(r, i));
    }
    for (size_t i = 0; i < r->plan.n_huge && from == 0; i += 16) {
        mock_put_bytes(events, "xxxxxxxxxxxxxxxx", 16);
    }
    mock_put(events, "\"%s", r->is_chat ? "}" : "");
    if (is_last && !r->plan.has[MOCK_NO_FINISH]) {
        mock_put(events, ",\"finish_reason\":\"%s\"", finish_of(r));
    } else {
        mock_put(events, ",\"finish_reason\":null");
    }
    mock_put(events, "}]}%s%s", eol(r), eol(r));
}

void mock_event_put(qn_buf *out, const mock_script *script, const mock_request *r,
                    uint32_t n_tokens)
{
    qn_buf *const events = scratch();
    const uint32_t sent = r->n_sent;
    const uint32_t n_thought = r->is_chat ? script->n_reasoning : 0;
    uint32_t n_reasoning = sent < n_thought ? n_thought - sent : 0;
    n_reasoning = n_reasoning < n_tokens ? n_reasoning : n_tokens;
    const bool is_last = sent + n_tokens == r->n_output;
    if (n_reasoning > 0) {
        put_choice(events, script, r, sent, n_reasoning, true, is_last && n_reasoning == n_tokens);
    }
    if (n_reasoning < n_tokens || n_tokens == 0) {
        put_choice(events, script, r, sent + n_reasoning, n_tokens - n_reasoning, false, is_last);
    }
    if (is_last) {
        put_usage(events, script, r);
        if (!r->plan.has[MOCK_NO_DONE]) {
            mock_put(events, "data: [DONE]%s%s", eol(r), eol(r));
        }
    }
    frame_put(out, r, events, is_last);
}

void mock_role_put(qn_buf *out, const mock_script *script, const mock_request *r)
{
    if (!r->is_chat) {
        return;
    }
    qn_buf *const events = scratch();
    begin_event(events, script, r);
    mock_put(events,
             "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
             "\"finish_reason\":null}]}%s%s",
             eol(r), eol(r));
    frame_put(out, r, events, false);
}

void mock_act_put(qn_buf *out, const mock_request *r)
{
    qn_buf *const events = scratch();
    if (r->plan.act->kind == MOCK_ERROR_EVENT) {
        mock_put(events,
                 "data: {\"error\":{\"message\":\"as the script says\",\"type\":\"server_error\","
                 "\"code\":500}}%s%sdata: [DONE]%s%s",
                 eol(r), eol(r), eol(r), eol(r));
        frame_put(out, r, events, true);
        return;
    }
    switch (r->plan.act->broken) {
    case MOCK_NOT_JSON:
        mock_put(events, "data: {\"choices\":[{\"index\":0,%s%s", eol(r), eol(r));
        break;
    case MOCK_WRONG_SHAPE:
        mock_put(events, "data: {\"choices\":\"none\",\"model\":[1]}%s%s", eol(r), eol(r));
        break;
    default:
        mock_put(events, "data: {\"choices\":[{\"index\":0,\"%s\":%s\"half \xc3\"%s}]}%s%s",
                 r->is_chat ? "delta" : "text", r->is_chat ? "{\"content\":" : "",
                 r->is_chat ? "}" : "", eol(r), eol(r));
        break;
    }
    frame_put(out, r, events, false);
}

json_t *mock_whole_json(const mock_script *script, const mock_request *r)
{
    qn_buf *const text = scratch();
    qn_buf *const thoughts = &(qn_buf){.bytes_max = MOCK_BYTES_MAX};
    for (uint32_t i = 0; i < r->n_output; i++) {
        const bool is_thought = r->is_chat && i < script->n_reasoning;
        mock_put(is_thought ? thoughts : text, "%s ", mock_word(r, i));
    }
    const char *const said = text->ptr == NULL ? "" : text->ptr;
    json_t *choice = json_pack("{s:i,s:s}", "index", 0, "finish_reason", finish_of(r));
    if (r->is_chat) {
        json_t *const message = json_pack("{s:s,s:s}", "role", "assistant", "content", said);
        if (thoughts->len > 0) {
            (void)json_object_set_new(message, "reasoning_content", json_string(thoughts->ptr));
        }
        (void)json_object_set_new(choice, "message", message);
    } else {
        (void)json_object_set_new(choice, "text", json_string(said));
    }
    qn_buf_deinit(thoughts);
    json_t *const whole = json_pack("{s:s,s:s,s:i,s:s,s:[o]}", "id", "whole", "object",
                                    r->is_chat ? "chat.completion" : "text_completion", "created",
                                    1, "model", script->model, "choices", choice);
    if (r->plan.usage != MOCK_USAGE_NONE) {
        (void)json_object_set_new(whole, "usage", usage_json(script, r));
    }
    return whole;
}
