/* SPDX-License-Identifier: Apache-2.0 */
/** @file openai_world.h  Bodies and events made by hand, and a strict reader of streams. */
#ifndef QN_TEST_OPENAI_WORLD_H
#define QN_TEST_OPENAI_WORLD_H
#include "exchange_fixture.h"

#include <jansson.h>

/** Parts of a body that most tests share. */
#define ASK "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]"
/** Likewise of a completion. */
#define PROMPT "\"prompt\": \"Once\""

/** @p body must be refused: code and param, and the message begins with the param. */
static inline void refuse_body(server_api api, const char *body, size_t len, int status_code,
                               const char *code, const char *param)
{
    server_exchange *x = NULL;
    server_error error = {0};
    if (exchange_open(&x, &g_settings, api, body, len, "7", &error)) {
        print_error("%s: opened\n", body);
        fail();
    }
    assert_null(x);
    assert_int_equal(error.status_code, status_code);
    assert_string_equal(error.code != NULL ? error.code : "", code);
    if (strncmp(error.param, param, strlen(param)) != 0 || error.message[0] == '\0' ||
        strncmp(error.message, error.param, strlen(error.param)) != 0) {
        print_error("%s: %s: %s\n", body, error.param, error.message);
        fail();
    }
}

/* -------------------------------------------------------------------------------------- events */

static inline qn_event say(qn_event_kind kind, const char *text)
{
    return (qn_event){.kind = kind, .text = text, .len = strlen(text)};
}

static inline qn_event call_event(qn_event_kind kind, const char *name, const char *text)
{
    return (qn_event){
        .kind = kind, .name = name, .name_len = strlen(name), .text = text, .len = strlen(text)};
}

static inline qn_event token_event(int32_t token, const qn_token_logprob *top, uint32_t n_top)
{
    return (qn_event){.kind = QN_EVENT_TOKEN,
                      .token = {.token = token, .logprob = -0.25F * (float)(token % 7)},
                      .top = top,
                      .n_top = n_top,
                      .position = 9};
}

static inline void take(server_exchange *x, size_t i_choice, qn_event event)
{
    qn_error err = {0};
    assert_int_equal(exchange_take(x, i_choice, &event, &err), QN_OK);
}

static inline void take_end(server_exchange *x, size_t i_choice, qn_finish finish,
                            uint64_t n_generated)
{
    const qn_session_stats stats = {.n_prompt_tokens = exchange_n_prompt_tokens(x),
                                    .n_cached_tokens = 2,
                                    .n_generated_tokens = n_generated,
                                    .n_reasoning_tokens = 1};
    take(x, i_choice, (qn_event){.kind = QN_EVENT_END, .finish = finish, .stats = &stats});
}

static inline void flush(server_exchange *x, qn_buf *out)
{
    qn_error err = {0};
    assert_int_equal(exchange_flush(x, out, &err), QN_OK);
}

static inline json_t *parse_text(const char *text, size_t len)
{
    json_error_t why;
    json_t *const value = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (value == NULL) {
        print_error("%.*s: %s\n", (int)len, text, why.text);
        fail();
    }
    return value;
}

/** The whole answer; closes the exchange. */
static inline json_t *finish_whole(server_exchange *x)
{
    qn_buf out = {.bytes_max = 1 << 30};
    qn_error err = {0};
    assert_int_equal(exchange_finish(x, &out, &err), QN_OK);
    json_t *const value = parse_text(out.ptr, out.len);
    qn_buf_deinit(&out);
    exchange_close(&x);
    return value;
}

/* --------------------------------------------------------------------------- reader of streams */

/** Append a string to another under the same key. */
static inline void join_text(json_t *to, const char *key, const json_t *piece)
{
    const json_t *const before = json_object_get(to, key);
    const size_t n = json_string_length(before);
    const size_t n_piece = json_string_length(piece);
    char *const text = malloc(n + n_piece + 1);
    assert_non_null(text);
    if (n > 0) {
        memcpy(text, json_string_value(before), n);
    }
    memcpy(text + n, json_string_value(piece), n_piece);
    assert_int_equal(json_object_set_new(to, key, json_stringn(text, n + n_piece)), 0);
    free(text);
}

/** Each list of @p piece goes behind that of the same name. */
static inline void join_lists(json_t *choice, json_t *piece)
{
    const char *key = NULL;
    json_t *list = NULL;
    if (json_is_null(piece)) {
        return;
    }
    if (!json_is_object(json_object_get(choice, "logprobs"))) {
        assert_int_equal(json_object_set_new(choice, "logprobs", json_deep_copy(piece)), 0);
        return;
    }
    json_object_foreach(piece, key, list)
    {
        json_t *const all = json_object_get(json_object_get(choice, "logprobs"), key);
        assert_true(json_is_array(list) ? json_array_extend(all, list) == 0 : json_is_null(all));
    }
}

static inline void join_calls(json_t *message, const json_t *calls)
{
    assert_int_equal(json_array_size(calls), 1);
    const json_t *const call = json_array_get(calls, 0);
    const size_t index = (size_t)json_integer_value(json_object_get(call, "index"));
    const json_t *const function = json_object_get(call, "function");
    json_t *const all = json_object_get(message, "tool_calls");
    if (index == json_array_size(all)) { /* a new one: id, type and name come once */
        assert_string_equal(json_string_value(json_object_get(function, "arguments")), "");
        if (all == NULL) {
            assert_int_equal(json_object_set_new(message, "tool_calls", json_array()), 0);
        }
        json_t *const copy = json_deep_copy(call);
        assert_int_equal(json_object_del(copy, "index"), 0);
        assert_int_equal(json_array_append_new(json_object_get(message, "tool_calls"), copy), 0);
        return;
    }
    assert_int_equal(index, json_array_size(all) - 1);
    assert_int_equal(json_object_size(call), 2);
    assert_int_equal(json_object_size(function), 1);
    join_text(json_object_get(json_array_get(all, index), "function"), "arguments",
              json_object_get(function, "arguments"));
}

/** A chunk of one choice. */
static inline void join_choice(json_t *choices, const json_t *piece, bool is_chat)
{
    const size_t index = (size_t)json_integer_value(json_object_get(piece, "index"));
    for (size_t i = json_array_size(choices); i <= index; i++) {
        json_t *const fresh =
            is_chat
                ? json_pack("{si, s{ss, so, so, so}, sn, sn}", "index", (int)i, "message", "role",
                            "assistant", "content", json_string(""), "reasoning_content",
                            json_null(), "refusal", json_null(), "logprobs", "finish_reason")
                : json_pack("{si, ss, sn, sn}", "index", (int)i, "text", "", "logprobs",
                            "finish_reason");
        assert_int_equal(json_array_append_new(choices, fresh), 0);
    }
    json_t *const choice = json_array_get(choices, index);
    assert_true(json_is_null(json_object_get(choice, "finish_reason"))); /* nothing comes behind */
    if (is_chat) {
        json_t *const message = json_object_get(choice, "message");
        const char *key = NULL;
        json_t *value = NULL;
        assert_true(json_object_size(json_object_get(piece, "delta")) <= 2);
        json_object_foreach(json_object_get(piece, "delta"), key, value)
        {
            if (strcmp(key, "tool_calls") == 0) {
                join_calls(message, value);
            } else if (strcmp(key, "role") != 0) {
                join_text(message, key, value);
            }
        }
    } else {
        join_text(choice, "text", json_object_get(piece, "text"));
    }
    join_lists(choice, json_object_get(piece, "logprobs"));
    assert_int_equal(
        json_object_set(choice, "finish_reason", json_object_get(piece, "finish_reason")), 0);
}

/**
 * Read a stream that ends in [DONE]: {"choices", "usage" (null without), "error" (likewise)}.
 *
 * @param[out] n_chunks  those with choices
 */
static inline json_t *read_stream(const qn_buf *stream, bool is_chat, size_t *n_chunks)
{
    static const char data[] = "data: ";
    json_t *const all = json_pack("{s[], sn, sn}", "choices", "usage", "error");
    const char *at = stream->ptr;
    *n_chunks = 0;
    for (;;) {
        assert_int_equal(strncmp(at, data, 6), 0);
        const char *const end = strstr(at, "\n\n");
        assert_non_null(end);
        const size_t len = (size_t)(end - at) - 6;
        assert_null(memchr(at, '\n', (size_t)(end - at)));
        if (len == 6 && memcmp(at + 6, "[DONE]", 6) == 0) {
            assert_ptr_equal(end + 2, stream->ptr + stream->len);
            break;
        }
        json_t *const chunk = parse_text(at + 6, len);
        const json_t *const choices = json_object_get(chunk, "choices");
        assert_true(json_array_size(choices) <= 1);
        assert_true(json_is_null(json_object_get(all, "error")));
        if (json_array_size(choices) == 1) {
            ++*n_chunks;
            join_choice(json_object_get(all, "choices"), json_array_get(choices, 0), is_chat);
        } else if (json_object_get(chunk, "error") != NULL) {
            (void)json_object_set(all, "error", json_object_get(chunk, "error"));
        }
        if (json_is_object(json_object_get(chunk, "usage"))) {
            (void)json_object_set(all, "usage", json_object_get(chunk, "usage"));
        }
        json_decref(chunk);
        at = end + 2;
    }
    return all;
}

/** Finish a stream and read it; closes the exchange and the buffer. */
static inline json_t *finish_stream(server_exchange *x, qn_buf *out, bool is_chat, size_t *n_chunks)
{
    qn_error err = {0};
    assert_int_equal(exchange_finish(x, out, &err), QN_OK);
    json_t *const all = read_stream(out, is_chat, n_chunks);
    qn_buf_deinit(out);
    exchange_close(&x);
    return all;
}

static inline json_t *get(json_t *value, size_t i_choice, const char *key)
{
    return json_object_get(json_array_get(json_object_get(value, "choices"), i_choice), key);
}

static inline void check_string(const json_t *value, const char *expected)
{
    assert_non_null(json_string_value(value));
    assert_string_equal(json_string_value(value), expected);
}
#endif
