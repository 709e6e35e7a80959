/* SPDX-License-Identifier: Apache-2.0 */
/* Answers from events made by hand: a stream that is put together again is the whole answer. */
#include "base/rng.h"
#include "openai_world.h"
#include "support/fail_alloc.h"

#include <math.h>

static const char tools[] =
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {}}}]";

static server_exchange *open_with(server_api api, bool streams, const char *more)
{
    char body[1024];
    (void)snprintf(body, sizeof body, "{%s, \"stream\": %s%s%s}",
                   api == SERVER_API_CHAT ? ASK : PROMPT, streams ? "true" : "false",
                   more[0] != '\0' ? ", " : "", more);
    return open_body(api, body);
}

static qn_buf begin_stream(server_exchange *x)
{
    qn_buf out = {.bytes_max = 1 << 30};
    qn_error err = {0};
    assert_int_equal(exchange_begin(x, &out, &err), QN_OK);
    return out;
}

/* --------------------------------------------------------------------------------------- single */

static void test_a_stream_has_the_chunks_that_clients_expect(void **state)
{
    (void)state;
    size_t n_chunks = 0;
    server_exchange *const x =
        open_with(SERVER_API_CHAT, true, "\"stream_options\": {\"include_usage\": true}");
    qn_buf out = begin_stream(x);
    assert_non_null(strstr(out.ptr, "\"delta\": {\"role\": \"assistant\", \"content\": \"\"}"));
    assert_non_null(strstr(out.ptr, "\"object\": \"chat.completion.chunk\""));
    assert_non_null(strstr(out.ptr, "\"id\": \"chatcmpl-7\""));
    assert_non_null(strstr(out.ptr, "\"usage\": null}"));
    take(x, 0, token_event(5, NULL, 0));
    take(x, 0, say(QN_EVENT_REASONING, "th"));
    take(x, 0, say(QN_EVENT_REASONING, "ink"));
    take(x, 0, say(QN_EVENT_TEXT, "say"));
    flush(x, &out);
    const size_t len = out.len;
    flush(x, &out);
    assert_int_equal(out.len, len); /* nothing new */
    take_end(x, 0, QN_FINISH_STOP, 3);
    json_t *const all = finish_stream(x, &out, true, &n_chunks);
    assert_int_equal(n_chunks, 4); /* role, reasoning, content, finish_reason */
    check_string(json_object_get(get(all, 0, "message"), "reasoning_content"), "think");
    check_string(json_object_get(get(all, 0, "message"), "content"), "say");
    check_string(get(all, 0, "finish_reason"), "stop");
    const json_t *const usage = json_object_get(all, "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 3);
    assert_int_equal(json_integer_value(json_object_get(
                         json_object_get(usage, "prompt_tokens_details"), "cached_tokens")),
                     2);
    json_decref(all);
}

static void test_calls_come_in_fragments_or_at_once(void **state)
{
    (void)state;
    size_t n_chunks = 0;
    server_exchange *const x = open_with(SERVER_API_CHAT, true, tools);
    qn_buf out = begin_stream(x);
    qn_sampling sampling;
    assert_true(exchange_choice(x, 0, &sampling).streams_calls);
    take(x, 0, call_event(QN_EVENT_CALL_BEGIN, "f", ""));
    flush(x, &out); /* the name is out before its arguments */
    assert_non_null(strstr(out.ptr, "\"id\": \"call_7_0_0\""));
    take(x, 0, say(QN_EVENT_CALL_PIECE, "{\"a\": "));
    flush(x, &out);
    take(x, 0, say(QN_EVENT_CALL_PIECE, "\"\xc3\xa9"));
    take(x, 0, say(QN_EVENT_CALL_PIECE, "\\n\"}"));
    take(x, 0, call_event(QN_EVENT_TOOL_CALL, "f", "{\"a\": \"\xc3\xa9\\n\"}"));
    take(x, 0, call_event(QN_EVENT_TOOL_CALL, "g", "{}")); /* without a begin */
    take(x, 0, call_event(QN_EVENT_CALL_BEGIN, "h", ""));  /* without pieces */
    take(x, 0, call_event(QN_EVENT_TOOL_CALL, "h", "{\"b\": 1}"));
    take_end(x, 0, QN_FINISH_TOOL_CALLS, 3);
    json_t *const all = finish_stream(x, &out, true, &n_chunks);
    json_t *const wanted = json_pack(
        "[{ss, ss, s{ss, ss}}, {ss, ss, s{ss, ss}}, {ss, ss, s{ss, ss}}]", "id", "call_7_0_0",
        "type", "function", "function", "name", "f", "arguments", "{\"a\": \"\xc3\xa9\\n\"}", "id",
        "call_7_0_1", "type", "function", "function", "name", "g", "arguments", "{}", "id",
        "call_7_0_2", "type", "function", "function", "name", "h", "arguments", "{\"b\": 1}");
    assert_true(json_equal(json_object_get(get(all, 0, "message"), "tool_calls"), wanted));
    check_string(get(all, 0, "finish_reason"), "tool_calls");
    json_decref(wanted);
    json_decref(all);
}

/* The number of tokens that a chunk tells of; -1: null. */
static int count_logprobs(const char *chunk)
{
    const char *const end = strstr(chunk, "\n\n");
    assert_non_null(end);
    json_t *const value = parse_text(chunk + 6, (size_t)(end - chunk) - 6);
    const json_t *const lists = get(value, 0, "logprobs");
    const int n =
        json_is_null(lists) ? -1 : (int)json_array_size(json_object_get(lists, "content"));
    json_decref(value);
    return n;
}

static void test_logprobs_come_with_the_text_of_their_tokens(void **state)
{
    (void)state;
    server_exchange *x = open_with(SERVER_API_CHAT, true, "\"logprobs\": true");
    qn_buf out = begin_stream(x);
    assert_int_equal(count_logprobs(out.ptr), -1);
    qn_buf_clear(&out);
    take(x, 0, token_event(5, NULL, 0));
    take(x, 0, say(QN_EVENT_REASONING, "a"));
    take(x, 0, token_event(6, NULL, 0)); /* its text is held back */
    flush(x, &out);
    assert_int_equal(count_logprobs(out.ptr), 1);
    qn_buf_clear(&out);
    take(x, 0, token_event(7, NULL, 0));
    take(x, 0, say(QN_EVENT_REASONING, "b"));
    take(x, 0, token_event(8, NULL, 0));
    take(x, 0, say(QN_EVENT_TEXT, "c"));
    flush(x, &out);
    assert_int_equal(count_logprobs(out.ptr), 2);
    assert_int_equal(count_logprobs(strstr(out.ptr, "\n\n") + 2), 1);
    qn_buf_clear(&out);
    take(x, 0, token_event(9, NULL, 0)); /* a stop token has no text */
    flush(x, &out);
    assert_int_equal(out.len, 0);
    take_end(x, 0, QN_FINISH_STOP, 5);
    flush(x, &out);
    assert_int_equal(count_logprobs(out.ptr), 1);
    exchange_close(&x);
    qn_buf_deinit(&out);
}

static void test_hidden_reasoning_is_not_told(void **state)
{
    (void)state;
    server_exchange *const x = open_with(SERVER_API_CHAT, false, "\"include_reasoning\": false");
    take(x, 0, say(QN_EVENT_REASONING, "secret"));
    take(x, 0, say(QN_EVENT_TEXT, "said"));
    take_end(x, 0, QN_FINISH_LENGTH, 3);
    json_t *const all = finish_whole(x);
    assert_true(json_is_null(json_object_get(get(all, 0, "message"), "reasoning_content")));
    check_string(json_object_get(get(all, 0, "message"), "content"), "said");
    check_string(get(all, 0, "finish_reason"), "length");
    json_decref(all);
}

static void test_completions_have_the_marks_that_the_model_wrote(void **state)
{
    (void)state;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    assert_int_equal(
        qn_encode(&ids, &n_ids, g_settings.model, "<think>", 7, QN_CONTROL_MATCH, &err), QN_OK);
    for (int writes = 0; writes < 2; writes++) {
        server_exchange *const x = open_with(SERVER_API_COMPLETION, false, "\"logprobs\": null");
        if (writes) {
            take(x, 0, token_event(ids[0], NULL, 0));
        }
        take(x, 0, say(QN_EVENT_REASONING, "a"));
        take(x, 0, call_event(QN_EVENT_TOOL_CALL, "f", "{}"));
        take(x, 0, say(QN_EVENT_TEXT, "b"));
        take_end(x, 0, QN_FINISH_TOOL_CALLS, 3);
        json_t *const all = finish_whole(x);
        check_string(get(all, 0, "text"), writes ? "<think>a</think><tool_call>f{}</tool_call>b"
                                                 : "a</think><tool_call>f{}</tool_call>b");
        check_string(get(all, 0, "finish_reason"), "stop");
        json_decref(all);
    }
    qn_free(ids);
}

static void test_what_was_cut_short_says_length(void **state)
{
    (void)state;
    static const qn_finish cut[] = {QN_FINISH_LENGTH, QN_FINISH_DEADLINE};
    for (size_t i = 0; i < 4; i++) {
        server_exchange *const x = open_with((server_api)(i / 2), false, "");
        take_end(x, 0, cut[i % 2], 1);
        json_t *const all = finish_whole(x);
        check_string(get(all, 0, "finish_reason"), "length");
        json_decref(all);
    }
}

static void test_alternatives_of_one_text_are_one_key(void **state)
{
    (void)state;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    assert_int_equal(
        qn_encode(&ids, &n_ids, g_settings.model, "\xf0\x9f\x98\x80", 4, QN_CONTROL_AS_TEXT, &err),
        QN_OK);
    assert_true(n_ids >= 2); /* parts of a character: both are U+FFFD */
    const qn_token_logprob top[] = {{ids[0], -0.125F}, {ids[1], -0.5F}, {300, -1.0F}};
    server_exchange *const x = open_with(SERVER_API_COMPLETION, false, "\"logprobs\": 3");
    take(x, 0, token_event(300, top, 3));
    take_end(x, 0, QN_FINISH_STOP, 1);
    json_t *const all = finish_whole(x);
    const json_t *const entry =
        json_array_get(json_object_get(get(all, 0, "logprobs"), "top_logprobs"), 0);
    assert_int_equal(json_object_size(entry), 2);
    assert_true(json_real_value(json_object_get(entry, "\xef\xbf\xbd")) == -0.5);
    json_decref(all);
    qn_free(ids);
}

static void take_prompt(server_exchange *x, size_t i_choice)
{
    static const qn_token_logprob top[] = {{4, -0.5F}, {3, -1.5F}};
    take(x, i_choice, (qn_event){.kind = QN_EVENT_PROMPT_TOKEN, .token = {.token = 2}});
    take(x, i_choice,
         (qn_event){.kind = QN_EVENT_PROMPT_TOKEN,
                    .token = {.token = 3, .logprob = -1.5F},
                    .position = 1,
                    .rank = 2,
                    .top = top,
                    .n_top = 2});
    take(x, i_choice,
         (qn_event){.kind = QN_EVENT_PROMPT_TOKEN,
                    .token = {.token = 9, .logprob = -(float)INFINITY},
                    .position = 2,
                    .rank = 77,
                    .top = top,
                    .n_top = 2});
}

static void test_prompt_logprobs_are_those_of_vllm(void **state)
{
    (void)state;
    for (int api = SERVER_API_CHAT; api <= SERVER_API_COMPLETION; api++) {
        server_exchange *const x =
            open_with((server_api)api, false, "\"prompt_logprobs\": 2, \"n\": 2");
        for (size_t i = 0; i < 2; i++) {
            qn_sampling sampling;
            assert_int_equal(exchange_choice(x, i, &sampling).wants_prompt_logprobs, i == 0);
            if (i == 0) {
                take_prompt(x, i); /* it is the same for both */
            }
            take_end(x, i, QN_FINISH_STOP, 1);
        }
        json_t *const all = finish_whole(x);
        const json_t *const list = api == SERVER_API_CHAT ? json_object_get(all, "prompt_logprobs")
                                                          : get(all, 1, "prompt_logprobs");
        assert_int_equal(json_array_size(list), 3);
        assert_true(json_is_null(json_array_get(list, 0)));
        const json_t *const second = json_array_get(list, 1);
        assert_int_equal(json_object_size(second), 2);
        const json_t *const three = json_object_get(second, "3");
        assert_int_equal(json_integer_value(json_object_get(three, "rank")), 2);
        assert_true(json_real_value(json_object_get(three, "logprob")) == -1.5);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(second, "4"), "rank")),
                         1);
        assert_int_equal(json_object_size(json_array_get(list, 2)), 3);
        const json_t *const nine = json_object_get(json_array_get(list, 2), "9");
        assert_int_equal(json_integer_value(json_object_get(nine, "rank")), 77);
        assert_true(json_real_value(json_object_get(nine, "logprob")) == -9999.0);
        json_decref(all);
    }
}

static void test_an_echo_is_the_prompt_with_its_logprobs(void **state)
{
    (void)state;
    for (int streams = 0; streams < 2; streams++) {
        size_t n_chunks = 0;
        server_exchange *const x =
            open_body(SERVER_API_COMPLETION,
                      streams ? "{\"prompt\": [40, 41, 42], \"echo\": true, \"logprobs\": 1, "
                                "\"max_tokens\": 0, \"stream\": true}"
                              : "{\"prompt\": [40, 41, 42], \"echo\": true, \"logprobs\": 1, "
                                "\"max_tokens\": 0}");
        qn_sampling sampling;
        const qn_request r = exchange_choice(x, 0, &sampling);
        assert_true(r.prompt_only && r.wants_prompt_logprobs && r.n_top_logprobs == 1);
        qn_buf out = begin_stream(x);
        flush(x, &out);
        take_prompt(x, 0);
        flush(x, &out);
        take_end(x, 0, QN_FINISH_LENGTH, 0);
        json_t *const all = streams ? finish_stream(x, &out, false, &n_chunks) : finish_whole(x);
        char *text = NULL;
        size_t len = 0;
        qn_error err = {0};
        assert_int_equal(qn_decode(&text, &len, g_settings.model, (int32_t[]){40, 41, 42}, 3, &err),
                         QN_OK);
        check_string(get(all, 0, "text"), text);
        qn_free(text);
        const json_t *const lists = get(all, 0, "logprobs");
        assert_int_equal(json_array_size(json_object_get(lists, "tokens")), 3);
        assert_true(json_is_null(json_array_get(json_object_get(lists, "token_logprobs"), 0)));
        assert_true(json_is_null(json_array_get(json_object_get(lists, "top_logprobs"), 0)));
        assert_int_equal(
            json_object_size(json_array_get(json_object_get(lists, "top_logprobs"), 1)), 2);
        check_string(get(all, 0, "finish_reason"), "length");
        json_decref(all);
    }
}

static void test_continuous_usage_is_in_each_chunk(void **state)
{
    (void)state;
    server_exchange *x = open_with(
        SERVER_API_CHAT, true,
        "\"stream_options\": {\"include_usage\": true, \"continuous_usage_stats\": true}");
    qn_buf out = begin_stream(x);
    assert_non_null(strstr(out.ptr, "\"completion_tokens\": 0,"));
    take(x, 0, token_event(5, NULL, 0));
    take(x, 0, token_event(6, NULL, 0));
    take(x, 0, say(QN_EVENT_TEXT, "ab"));
    flush(x, &out);
    assert_non_null(strstr(out.ptr, "\"completion_tokens\": 2,"));
    assert_null(strstr(out.ptr, "\"usage\": null"));
    exchange_close(&x); /* in the middle */
    qn_buf_deinit(&out);
}

static void test_an_error_ends_a_stream(void **state)
{
    (void)state;
    size_t n_chunks = 0;
    server_error error;
    qn_error err = {0};
    server_fail(&error, 500, NULL, "", "engine: lost");
    server_exchange *x = open_with(SERVER_API_CHAT, true, "");
    qn_buf out = begin_stream(x);
    take(x, 0, say(QN_EVENT_TEXT, "ab"));
    take_end(x, 0, QN_FINISH_ERROR, 1);
    flush(x, &out);
    assert_int_equal(exchange_fail(x, &error, &out, &err), QN_OK);
    json_t *const all = read_stream(&out, true, &n_chunks);
    check_string(json_object_get(json_object_get(all, "error"), "message"), "engine: lost");
    check_string(json_object_get(json_object_get(all, "error"), "type"), "server_error");
    assert_true(json_is_null(get(all, 0, "finish_reason")));
    json_decref(all);
    qn_buf_clear(&out);
    assert_int_equal(exchange_keep_alive(x, &out, &err), QN_OK);
    assert_int_equal(out.ptr[0], ':'); /* a comment */
    exchange_close(&x);
    qn_buf_deinit(&out);
}

static void test_what_a_flush_cannot_append_it_does_not_begin(void **state)
{
    (void)state;
    qn_error err = {0};
    server_exchange *x = open_with(SERVER_API_CHAT, true, "");
    qn_buf small = {.bytes_max = 0};
    while (exchange_begin(x, &small, &err) != QN_OK) {
        assert_int_equal(small.len, 0);
        small.bytes_max++;
    }
    assert_true(small.len > 200);
    qn_buf_deinit(&small);
    small.bytes_max = 100;
    take(x, 0, say(QN_EVENT_TEXT, "ab"));
    assert_int_equal(qn_buf_append(&small, "12", 2, &err), QN_OK);
    assert_int_equal(exchange_flush(x, &small, &err), QN_E_NOMEM);
    assert_string_equal(small.ptr, "12");
    qn_buf large = {.bytes_max = 1 << 20};
    flush(x, &large); /* it was not lost */
    assert_non_null(strstr(large.ptr, "\"content\": \"ab\""));
    exchange_close(&x);
    qn_buf_deinit(&small);
    qn_buf_deinit(&large);
}

static void test_all_bytes_become_json(void **state)
{
    (void)state;
    static const char hostile[] = "\0\x01\x1f\"\\/\b\f\n\r\t\x7f\xc3\xa9\xf0\x9f\x98\x80\xff\xc3";
    server_exchange *const x = open_with(SERVER_API_CHAT, false, "");
    take(x, 0, (qn_event){.kind = QN_EVENT_TEXT, .text = hostile, .len = sizeof hostile - 1});
    take_end(x, 0, QN_FINISH_STOP, 1);
    json_t *const all = finish_whole(x);
    const json_t *const content = json_object_get(get(all, 0, "message"), "content");
    static const char wanted[] =
        "\0\x01\x1f\"\\/\b\f\n\r\t\x7f\xc3\xa9\xf0\x9f\x98\x80\xef\xbf\xbd\xef\xbf\xbd";
    assert_int_equal(json_string_length(content), sizeof wanted - 1);
    assert_memory_equal(json_string_value(content), wanted, sizeof wanted - 1);
    json_decref(all);
}

static void test_chunks_allocate_nothing_once_warm(void **state)
{
    (void)state;
    server_exchange *x = open_with(SERVER_API_CHAT, true, "");
    qn_buf out = begin_stream(x);
    take(x, 0, say(QN_EVENT_TEXT, "a warm buffer"));
    take(x, 0, say(QN_EVENT_REASONING, "another"));
    flush(x, &out);
    qn_error err = {0};
    assert_int_equal(qn_buf_reserve(&out, 1 << 20, &err), QN_OK);
    g_n_failed = 0;
    g_fails_from_then_on = 1;
    g_allocations_left = 0;
    for (int i = 0; i < 900; i++) {
        take(x, 0, say(i % 2 == 0 ? QN_EVENT_TEXT : QN_EVENT_REASONING, "a"));
        flush(x, &out);
    }
    g_allocations_left = SIZE_MAX;
    assert_int_equal(g_n_failed, 0);
    exchange_close(&x);
    qn_buf_deinit(&out);
}

/* -------------------------------------------------------------------------------------- random */

enum { N_CHOICES = 3, N_SCRIPTS = 400 };

/* The same events for both. */
typedef struct pair {
    server_exchange *whole, *stream;
    qn_buf out;
    uint64_t seed, n_drawn;
} pair;

static uint64_t below(pair *p, uint64_t n)
{
    return qn_rng_u64(p->seed, 0, p->n_drawn++) % n;
}

static void both(pair *p, size_t i_choice, qn_event event)
{
    take(p->whole, i_choice, event);
    take(p->stream, i_choice, event);
}

static void random_call(pair *p, size_t i_choice)
{
    static const char arguments[] = "{\"x\": \"a\\\\b\"}";
    const size_t n = sizeof arguments - 1;
    if (below(p, 4) > 0) {
        const bool has_pieces = below(p, 8) > 0;
        both(p, i_choice, call_event(QN_EVENT_CALL_BEGIN, "f", ""));
        for (size_t at = 0, len = 0; has_pieces && at < n; at += len) {
            len = 1 + below(p, n - at);
            both(p, i_choice,
                 (qn_event){.kind = QN_EVENT_CALL_PIECE, .text = arguments + at, .len = len});
            if (below(p, 3) == 0) {
                flush(p->stream, &p->out);
            }
        }
    }
    both(p, i_choice, call_event(QN_EVENT_TOOL_CALL, "f", arguments));
}

static void random_event(pair *p, size_t i_choice, bool is_chat)
{
    static const char *const texts[] = {"a", "\xc3\xa9", "\"", "\n\n", "data: x", "<think>"};
    const qn_token_logprob top[] = {{(int32_t)below(p, 256), -0.125F}, {300, -3.0F}};
    const char *const text = texts[below(p, sizeof texts / sizeof *texts)];
    switch (below(p, 7)) {
    case 0:
    case 1: both(p, i_choice, token_event((int32_t)below(p, 500), top, 2)); break;
    case 2: both(p, i_choice, say(QN_EVENT_REASONING, text)); break;
    case 3:
    case 4: both(p, i_choice, say(QN_EVENT_TEXT, text)); break;
    case 5: both(p, i_choice, say(QN_EVENT_WARNING, text)); break;
    default:
        if (is_chat) {
            random_call(p, i_choice);
        } else {
            both(p, i_choice, call_event(QN_EVENT_TOOL_CALL, "f", "{}"));
        }
    }
}

/* What a stream cannot say: that a content is null. */
static void make_equal(json_t *whole)
{
    for (size_t i = 0; i < N_CHOICES; i++) {
        json_t *const message = get(whole, i, "message");
        if (message != NULL && json_is_null(json_object_get(message, "content"))) {
            (void)json_object_set_new(message, "content", json_string(""));
        }
    }
}

static void check_script(uint64_t seed, server_api api)
{
    const bool is_chat = api == SERVER_API_CHAT;
    const char *const more =
        is_chat ? "\"n\": 3, \"logprobs\": true, \"top_logprobs\": 2" : "\"n\": 3, \"logprobs\": 2";
    char with_usage[200];
    (void)snprintf(with_usage, sizeof with_usage,
                   "%s, \"stream_options\": {\"include_usage\": true}", more);
    pair p = {.seed = seed,
              .whole = open_with(api, false, more),
              .stream = open_with(api, true, with_usage)};
    bool has_ended[N_CHOICES] = {0};
    size_t n_chunks = 0;
    p.out = begin_stream(p.stream);
    for (size_t n_ended = 0; n_ended < N_CHOICES;) {
        const size_t i = below(&p, N_CHOICES);
        if (has_ended[i]) {
            continue;
        }
        if (below(&p, 12) == 0) {
            const qn_finish finish = (qn_finish)below(&p, 3);
            has_ended[i] = true;
            n_ended++;
            take_end(p.whole, i, finish, 5 + i);
            take_end(p.stream, i, finish, 5 + i);
        } else {
            random_event(&p, i, is_chat);
        }
        if (below(&p, 3) == 0) {
            flush(p.stream, &p.out);
        }
    }
    json_t *const whole = finish_whole(p.whole);
    json_t *const stream = finish_stream(p.stream, &p.out, is_chat, &n_chunks);
    make_equal(whole);
    for (size_t i = 0; i < N_CHOICES; i++) { /* no token, no list: a stream says null */
        json_t *const lists = get(whole, i, "logprobs");
        if (json_is_null(get(stream, i, "logprobs")) &&
            json_array_size(json_object_get(lists, is_chat ? "content" : "tokens")) == 0) {
            (void)json_object_set_new(json_array_get(json_object_get(whole, "choices"), i),
                                      "logprobs", json_null());
        }
    }
    const json_t *const a = json_object_get(whole, "choices");
    const json_t *const b = json_object_get(stream, "choices");
    if (!json_equal(a, b)) {
        print_error("seed %llu\n%s\n%s\n", (unsigned long long)seed, json_dumps(a, 0),
                    json_dumps(b, 0));
        fail();
    }
    const json_t *const usage = json_object_get(whole, "usage");
    assert_true(json_equal(usage, json_object_get(stream, "usage")));
    assert_int_equal(json_integer_value(json_object_get(
                         json_object_get(usage, "prompt_tokens_details"), "cached_tokens")),
                     2); /* once, though three choices found them */
    json_decref(whole);
    json_decref(stream);
}

static void test_streams_put_together_are_whole_answers(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= N_SCRIPTS; seed++) {
        check_script(seed, SERVER_API_CHAT);
        check_script(seed, SERVER_API_COMPLETION);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_has_the_chunks_that_clients_expect),
        cmocka_unit_test(test_calls_come_in_fragments_or_at_once),
        cmocka_unit_test(test_logprobs_come_with_the_text_of_their_tokens),
        cmocka_unit_test(test_hidden_reasoning_is_not_told),
        cmocka_unit_test(test_completions_have_the_marks_that_the_model_wrote),
        cmocka_unit_test(test_what_was_cut_short_says_length),
        cmocka_unit_test(test_alternatives_of_one_text_are_one_key),
        cmocka_unit_test(test_prompt_logprobs_are_those_of_vllm),
        cmocka_unit_test(test_an_echo_is_the_prompt_with_its_logprobs),
        cmocka_unit_test(test_continuous_usage_is_in_each_chunk),
        cmocka_unit_test(test_an_error_ends_a_stream),
        cmocka_unit_test(test_what_a_flush_cannot_append_it_does_not_begin),
        cmocka_unit_test(test_all_bytes_become_json),
        cmocka_unit_test(test_chunks_allocate_nothing_once_warm),
        cmocka_unit_test(test_streams_put_together_are_whole_answers),
    };
    return cmocka_run_group_tests(tests, model_open, model_close);
}
