/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of /v1/messages from events made by hand: whole, and in pieces that make the same. */
#include "exchange_fixture.h"
#include "support/fail_each.h"

#include <jansson.h>

#define BODY(more)                                                                                 \
    "{\"max_tokens\": 50, \"stop_sequences\": [\"END\", \"\\n\\u00df\"], \"messages\": "           \
    "[{\"role\": \"user\", \"content\": \"Hi\"}]" more "}"

enum { EVENTS_MAX = 24 };

static const qn_session_stats stats = {
    .n_prompt_tokens = 7, .n_cached_tokens = 2, .n_generated_tokens = 50, .n_reasoning_tokens = 20};

/* An answer: events up to an END, and what its message says. */
typedef struct script {
    qn_event events[EVENTS_MAX]; /* calls in pieces */
    const char *content;
    const char *stop_reason;
    const char *stop_sequence;
} script;

#define TEXT(k, t)                                                                                 \
    {                                                                                              \
        .kind = QN_EVENT_##k, .text = (t), .len = sizeof(t) - 1                                    \
    }
#define BEGIN(n)                                                                                   \
    {                                                                                              \
        .kind = QN_EVENT_CALL_BEGIN, .name = (n), .name_len = sizeof(n) - 1                        \
    }
#define CALL(n, t)                                                                                 \
    {                                                                                              \
        .kind = QN_EVENT_TOOL_CALL, .name = (n), .name_len = sizeof(n) - 1, .text = (t),           \
        .len = sizeof(t) - 1                                                                       \
    }
#define END(how, number)                                                                           \
    {                                                                                              \
        .kind = QN_EVENT_END, .finish = QN_FINISH_##how, .stop_number = (number), .stats = &stats  \
    }
#define TOKEN                                                                                      \
    {                                                                                              \
        .kind = QN_EVENT_TOKEN                                                                     \
    }

static const script scripts[] = {
    {{TOKEN, TEXT(TEXT, "a\"\n"), TOKEN, TEXT(TEXT, "\xc3\xa9"), END(STOP, 0)},
     "[{\"type\": \"text\", \"text\": \"a\\\"\\n\xc3\xa9\"}]",
     "end_turn",
     NULL},
    {{END(STOP, 2)}, "[]", "stop_sequence", "\n\xc3\x9f"},
    {{TEXT(TEXT, "x"), END(STOP, 1)},
     "[{\"type\": \"text\", \"text\": \"x\"}]",
     "stop_sequence",
     "END"},
    {{TEXT(REASONING, "hm"), TEXT(REASONING, "m"), END(LENGTH, 0)},
     "[{\"type\": \"thinking\", \"thinking\": \"hmm\", \"signature\": \"quern:\"}]",
     "max_tokens",
     NULL},
    {{TEXT(REASONING, "hm"), TEXT(TEXT, "\n"), TEXT(WARNING, "w"), BEGIN("f"),
      TEXT(CALL_PIECE, "{"), TEXT(CALL_PIECE, "\"n\": 1.50, \"s\": \"\xc3\xa9\\"),
      TEXT(CALL_PIECE, "n\"}"), CALL("f", "{\"n\": 1.50, \"s\": \"\xc3\xa9\\n\"}"),
      TEXT(TEXT, "and"), BEGIN("g\""), TEXT(CALL_PIECE, "{}"), CALL("g\"", "{}"), BEGIN("h"),
      TEXT(CALL_PIECE, "{}"), CALL("h", "{}"), END(TOOL_CALLS, 0)},
     "[{\"type\": \"thinking\", \"thinking\": \"hm\", \"signature\": \"quern:\"}, {\"type\": "
     "\"text\", \"text\": \"\\n\"}, {\"type\": \"tool_use\", \"id\": \"toolu_7_0\", \"name\": "
     "\"f\", \"input\": {\"n\": 1.50, \"s\": \"\xc3\xa9\\n\"}}, {\"type\": \"text\", \"text\": "
     "\"and\"}, {\"type\": \"tool_use\", \"id\": \"toolu_7_1\", \"name\": \"g\\\"\", \"input\": "
     "{}}, {\"type\": \"tool_use\", \"id\": \"toolu_7_2\", \"name\": \"h\", \"input\": {}}]",
     "tool_use",
     NULL},
    {{CALL("f", "{}"), END(TOOL_CALLS, 0)},
     "[{\"type\": \"tool_use\", \"id\": \"toolu_7_0\", \"name\": \"f\", \"input\": {}}]",
     "tool_use",
     NULL},
    {{END(DEADLINE, 0)}, "[]", "max_tokens", NULL},
};
enum { N_SCRIPTS = sizeof scripts / sizeof scripts[0] };

/* --------------------------------------------------------------------------- reading of streams */

/* What a client keeps of a stream. */
typedef struct client {
    json_t *message;
    char input[256]; /* of the open block, as it came */
    bool is_open, is_over;
    size_t n_pings;
} client;

static const char *text_of(const json_t *object, const char *key)
{
    const char *const text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    return text;
}

static void append_text(json_t *block, const char *key, const char *text)
{
    char all[512];
    (void)snprintf(all, sizeof all, "%s%s", text_of(block, key), text);
    assert_int_equal(json_object_set_new(block, key, json_string(all)), 0);
}

static void see_delta(client *c, json_t *block, const json_t *delta)
{
    const char *const type = text_of(delta, "type");
    const char *const of = text_of(block, "type");
    if (strcmp(type, "text_delta") == 0) {
        assert_string_equal(of, "text");
        append_text(block, "text", text_of(delta, "text"));
    } else if (strcmp(type, "thinking_delta") == 0) {
        assert_string_equal(of, "thinking");
        append_text(block, "thinking", text_of(delta, "thinking"));
    } else if (strcmp(type, "signature_delta") == 0) {
        assert_string_equal(of, "thinking");
        append_text(block, "signature", text_of(delta, "signature"));
    } else {
        assert_string_equal(type, "input_json_delta");
        assert_string_equal(of, "tool_use");
        const char *const piece = text_of(delta, "partial_json");
        assert_true(strlen(c->input) + strlen(piece) < sizeof c->input);
        memcpy(c->input + strlen(c->input), piece, strlen(piece) + 1);
    }
}

static void close_block(client *c, json_t *block)
{
    if (strcmp(text_of(block, "type"), "tool_use") == 0) {
        assert_int_equal(json_object_set_new(block, "input", json_loads(c->input, 0, NULL)), 0);
    }
    c->is_open = false;
}

static void see_event(client *c, const char *type, json_t *data)
{
    json_t *const content = json_object_get(c->message, "content");
    const json_t *const index = json_object_get(data, "index");
    assert_false(c->is_over);
    assert_string_equal(type, text_of(data, "type"));
    if (strcmp(type, "message_start") == 0) {
        assert_null(c->message);
        c->message = json_incref(json_object_get(data, "message"));
    } else if (strcmp(type, "content_block_start") == 0) {
        assert_false(c->is_open);
        assert_int_equal(json_integer_value(index), json_array_size(content));
        assert_int_equal(json_array_append(content, json_object_get(data, "content_block")), 0);
        memset(c->input, 0, sizeof c->input);
        c->is_open = true;
    } else if (strncmp(type, "content_block_", 14) == 0) {
        assert_true(c->is_open);
        assert_int_equal(json_integer_value(index) + 1, json_array_size(content));
        json_t *const block = json_array_get(content, json_array_size(content) - 1);
        if (strcmp(type, "content_block_delta") == 0) {
            see_delta(c, block, json_object_get(data, "delta"));
        } else {
            assert_string_equal(type, "content_block_stop");
            close_block(c, block);
        }
    } else if (strcmp(type, "message_delta") == 0) {
        assert_false(c->is_open);
        assert_int_equal(json_object_update(c->message, json_object_get(data, "delta")), 0);
        assert_int_equal(json_object_set(c->message, "usage", json_object_get(data, "usage")), 0);
    } else if (strcmp(type, "ping") == 0) {
        c->n_pings++;
    } else {
        assert_string_equal(type, "message_stop");
        c->is_over = true;
    }
}

/* Whole events only; taken off the buffer. */
static void see_bytes(client *c, qn_buf *bytes)
{
    const char *at = bytes->len > 0 ? bytes->ptr : "";
    while (*at != '\0') {
        char type[32] = "";
        int n_head = 0;
        const char *const end = strstr(at, "\n\n");
        assert_non_null(end);
        assert_int_equal(sscanf(at, "event: %31s\ndata: %n", type, &n_head), 1);
        assert_true(n_head > 0);
        json_t *const data = json_loadb(at + n_head, (size_t)(end - at) - (size_t)n_head, 0, NULL);
        assert_non_null(data);
        see_event(c, type, data);
        json_decref(data);
        at = end + 2;
    }
    qn_buf_clear(bytes);
}

/* ------------------------------------------------------------------------------------- answers */

static void take(server_exchange *x, const qn_event *event)
{
    assert_int_equal(exchange_take(x, 0, event, NULL), QN_OK);
}

static json_t *answer_whole(const script *s, const char *body)
{
    qn_buf out;
    qn_buf_init(&out, 1 << 20);
    server_exchange *x = open_body(SERVER_API_MESSAGES, body);
    assert_int_equal(exchange_begin(x, &out, NULL), QN_OK);
    for (size_t i = 0; i == 0 || s->events[i - 1].kind != QN_EVENT_END; i++) {
        take(x, &s->events[i]);
        assert_int_equal(exchange_flush(x, &out, NULL), QN_OK);
        assert_int_equal(out.len, 0);
    }
    assert_int_equal(exchange_finish(x, &out, NULL), QN_OK);
    exchange_close(&x);
    json_t *const message = json_loadb(out.ptr, out.len, 0, NULL);
    assert_non_null(message);
    qn_buf_deinit(&out);
    return message;
}

/* With a flush after every @p n_between events. */
static json_t *answer_streamed(const script *s, const char *body, size_t n_between)
{
    client c = {0};
    qn_buf out;
    qn_buf_init(&out, 1 << 20);
    server_exchange *x = open_body(SERVER_API_MESSAGES, body);
    exchange_shrink(x);
    assert_int_equal(exchange_begin(x, &out, NULL), QN_OK);
    for (size_t i = 0; i == 0 || s->events[i - 1].kind != QN_EVENT_END; i++) {
        take(x, &s->events[i]);
        if ((i + 1) % n_between == 0) {
            assert_int_equal(exchange_flush(x, &out, NULL), QN_OK);
            see_bytes(&c, &out);
            assert_int_equal(exchange_keep_alive(x, &out, NULL), QN_OK);
            see_bytes(&c, &out);
        }
    }
    assert_int_equal(exchange_finish(x, &out, NULL), QN_OK);
    see_bytes(&c, &out);
    assert_true(c.is_over);
    assert_true(n_between > 1 || c.n_pings > 0);
    exchange_close(&x);
    qn_buf_deinit(&out);
    return c.message;
}

static void assert_json_is(const json_t *value, const char *expected)
{
    json_t *const other = json_loads(expected, JSON_DECODE_ANY, NULL);
    assert_non_null(other);
    if (!json_equal(value, other)) {
        fail_msg("%s\n%s", json_dumps(value, JSON_ENCODE_ANY), expected);
    }
    json_decref(other);
}

static void test_message_has_what_the_events_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SCRIPTS; i++) {
        const script *const s = &scripts[i];
        json_t *const message = answer_whole(s, BODY(""));
        const json_t *const stop = json_object_get(message, "stop_sequence");
        assert_string_equal(text_of(message, "id"), "msg_7");
        assert_string_equal(text_of(message, "type"), "message");
        assert_string_equal(text_of(message, "role"), "assistant");
        assert_string_equal(text_of(message, "model"), qn_model_get_info(g_settings.model)->name);
        assert_json_is(json_object_get(message, "content"), s->content);
        assert_string_equal(text_of(message, "stop_reason"), s->stop_reason);
        if (s->stop_sequence != NULL) {
            assert_string_equal(json_string_value(stop), s->stop_sequence);
        } else {
            assert_true(json_is_null(stop));
        }
        json_decref(message);
    }
}

static void assert_stream_makes(const json_t *whole, const script *s, const char *body,
                                size_t n_between)
{
    json_t *const pieces = answer_streamed(s, body, n_between);
    if (!json_equal(whole, pieces)) {
        fail_msg("%s\n%s", json_dumps(whole, 0), json_dumps(pieces, 0));
    }
    json_decref(pieces);
}

static void test_stream_makes_the_whole_message(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SCRIPTS; i++) {
        json_t *const whole = answer_whole(&scripts[i], BODY(""));
        for (size_t n_between = 1; n_between <= EVENTS_MAX + 1; n_between += 2) {
            assert_stream_makes(whole, &scripts[i], BODY(", \"stream\": true"), n_between);
        }
        json_decref(whole);
    }
}

/* Hidden thinking is all in the signature, so that the next turn has it. */
static void test_thinking_that_is_omitted_is_signed(void **state)
{
    (void)state;
    static const char expected[] =
        "[{\"type\": \"thinking\", \"thinking\": \"\", \"signature\": \"quern:hmm\"}]";
#define OMITTED ", \"thinking\": {\"type\": \"adaptive\", \"display\": \"omitted\"}"
    json_t *const whole = answer_whole(&scripts[3], BODY(OMITTED));
    assert_json_is(json_object_get(whole, "content"), expected);
    for (size_t n = 1; n < 4; n++) {
        assert_stream_makes(whole, &scripts[3], BODY(OMITTED ", \"stream\": true"), n);
    }
    json_decref(whole);
}

/* Tokens of the prompt that were in the cache are not part of input_tokens. */
static void test_message_counts_as_anthropic_does(void **state)
{
    (void)state;
    char expected[256];
    server_exchange *x = open_body(SERVER_API_MESSAGES, BODY(""));
    const size_t n_prompt = exchange_n_prompt_tokens(x);
    exchange_close(&x);
    json_t *const message = answer_whole(&scripts[0], BODY(""));
    (void)snprintf(expected, sizeof expected,
                   "{\"input_tokens\": %zu, \"cache_creation_input_tokens\": 0, "
                   "\"cache_read_input_tokens\": 2, \"output_tokens\": 50, "
                   "\"output_tokens_details\": {\"thinking_tokens\": 20}}",
                   n_prompt - 2);
    assert_json_is(json_object_get(message, "usage"), expected);
    json_decref(message);
}

static void test_message_says_that_the_context_was_full(void **state)
{
    (void)state;
    script s = {{TEXT(TEXT, "x"), END(LENGTH, 0)}, NULL, NULL, NULL};
    qn_session_stats few = stats;
    few.n_generated_tokens = 49; /* of 50 */
    s.events[1].stats = &few;
    json_t *const message = answer_whole(&s, BODY(""));
    assert_string_equal(text_of(message, "stop_reason"), "model_context_window_exceeded");
    json_decref(message);
}

static void test_stream_ends_with_an_error(void **state)
{
    (void)state;
    server_error error = {0};
    qn_buf out;
    qn_buf_init(&out, 1 << 20);
    server_fail(&error, 503, "overloaded", "", "no \"memory\"");
    server_exchange *x = open_body(SERVER_API_MESSAGES, BODY(", \"stream\": true"));
    assert_int_equal(exchange_fail(x, &error, &out, NULL), QN_OK);
    assert_string_equal(out.ptr, "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": "
                                 "\"overloaded_error\", \"message\": \"no \\\"memory\\\"\"}}\n\n");
    exchange_close(&x);
    qn_buf_deinit(&out);
}

/* --------------------------------------------------------------------------------- little memory
 */

static const char *g_body;

static qn_status answer_with_little_memory(qn_error *err)
{
    static const script *const s = &scripts[4];
    const size_t n_left = g_allocations_left;
    qn_status status = QN_OK;
    qn_buf out;
    g_allocations_left = SIZE_MAX;
    server_exchange *x = open_body(SERVER_API_MESSAGES, g_body);
    qn_buf_init(&out, 1 << 20);
    g_allocations_left = n_left;
    status = exchange_begin(x, &out, err);
    for (size_t i = 0; status == QN_OK && (i == 0 || s->events[i - 1].kind != QN_EVENT_END); i++) {
        const size_t n_bytes = out.len;
        status = exchange_take(x, 0, &s->events[i], err);
        status = status == QN_OK ? exchange_flush(x, &out, err) : status;
        assert_true(status == QN_OK || out.len == n_bytes);
    }
    status = status == QN_OK ? exchange_finish(x, &out, err) : status;
    exchange_close(&x);
    qn_buf_deinit(&out);
    return status;
}

static void test_answers_say_that_memory_lacks(void **state)
{
    (void)state;
    static const char *const bodies[] = {BODY(""), BODY(", \"stream\": true")};
    for (size_t i = 0; i < 2; i++) {
        g_body = bodies[i];
        fail_each(answer_with_little_memory, 1, 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_has_what_the_events_say),
        cmocka_unit_test(test_stream_makes_the_whole_message),
        cmocka_unit_test(test_thinking_that_is_omitted_is_signed),
        cmocka_unit_test(test_message_counts_as_anthropic_does),
        cmocka_unit_test(test_message_says_that_the_context_was_full),
        cmocka_unit_test(test_stream_ends_with_an_error),
        cmocka_unit_test(test_answers_say_that_memory_lacks),
    };
    return cmocka_run_group_tests(tests, model_open, model_close);
}
