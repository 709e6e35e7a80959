/* SPDX-License-Identifier: Apache-2.0 */
/* What a model writes to events: parts, tool calls, and everything that is wrong with one. */
#include "chat/parser.h"
#include "fixture.h"
#include "support/event_log.h"
#include "support/fail_each.h"

static const char tools_json[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"type\": "
    "\"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": {\"type\": "
    "\"integer\"}, \"opt\": {\"type\": [\"object\", \"null\"]}}}}}, {\"name\": \"now\"}]";

enum { LOG_BYTES = 1 << 16 };
static event_log g_log;

static int32_t id_of(const char *name)
{
    const int32_t id = qn_tokenizer_added_id(g_nano, qn_str_of(name));
    assert_true(id >= 0);
    return id;
}

/* The token of one byte. */
static int32_t id_of_byte(uint8_t byte)
{
    for (int32_t id = 0;; id++) {
        const qn_str bytes = qn_tokenizer_bytes(g_nano, id);
        assert_true(bytes.len > 0);
        if (bytes.len == 1 && (uint8_t)bytes.ptr[0] == byte) {
            return id;
        }
    }
}

/* A parser that writes to an empty g_log. */
static qn_chat_parser *start(bool is_thinking, const char *tools)
{
    qn_chat_parser *parser = NULL;
    qn_error err = {0};
    const int32_t think = id_of("<think>");
    const qn_parser_options options = {.prompt = &think,
                                       .n_prompt = is_thinking ? 1 : 0,
                                       .tools_json = tools,
                                       .tools_len = tools != NULL ? strlen(tools) : 0,
                                       .fn = event_log_add,
                                       .context = &g_log};
    event_log_clear(&g_log);
    if (qn_chat_parser_open(&parser, g_nano, &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    return parser;
}

static void feed_all(qn_chat_parser *parser, const char *text)
{
    qn_chat_parser_feed_text(parser, qn_str_of(text));
}

static void finish(qn_chat_parser *parser, const char *expected)
{
    qn_chat_parser_end(parser);
    qn_chat_parser_close(&parser);
    assert_string_equal(g_log.text, expected);
}

typedef struct example {
    const char *written;
    const char *expected;
} example;

static void check_all(const example *examples, size_t n, bool is_thinking, const char *tools)
{
    for (size_t i = 0; i < n; i++) {
        qn_chat_parser *const parser = start(is_thinking, tools);
        feed_all(parser, examples[i].written);
        finish(parser, examples[i].expected);
    }
}

/* --------------------------------------------------------------------------------------- parts */

static void test_the_prompt_says_where_the_answer_begins(void **state)
{
    (void)state;
    const int32_t think = id_of("<think>");
    const int32_t end = id_of("</think>");
    const struct {
        int32_t prompt[4];
        size_t n_prompt;
        bool is_reasoning;
    } cases[] = {
        {{0}, 0, false},
        {{5, 6}, 2, false},
        {{5, think}, 2, true},
        {{think, end}, 2, false},
        {{end}, 1, false},
        {{think, end, 5, think}, 4, true},
        {{think, 5, end, 5}, 4, false},
        {{think, 5, 6, 7}, 4, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_chat_parser *parser = NULL;
        qn_error err = {0};
        const qn_parser_options options = {.prompt = cases[i].prompt,
                                           .n_prompt = cases[i].n_prompt,
                                           .fn = event_log_add,
                                           .context = &g_log};
        event_log_clear(&g_log);
        assert_int_equal(qn_chat_parser_open(&parser, g_nano, &options, &err), QN_OK);
        qn_chat_parser_feed(parser, id_of_byte('x'));
        assert_int_equal(qn_chat_parser_n_reasoning(parser), cases[i].is_reasoning ? 1 : 0);
        finish(parser, cases[i].is_reasoning ? "R[x]" : "T[x]");
    }
}

static void test_markers_divide_reasoning_from_text(void **state)
{
    (void)state;
    static const example thinking[] = {
        {"so</think>yes", "R[so]T[yes]"},
        {"</think>yes", "T[yes]"},
        {"never closed", "R[never closed]"},
        {"a</think>\n\nb", "R[a]T[\n\nb]"},
        {"a</think>b<think>c</think>d", "R[a]T[b]R[c]T[d]"},
        {"a<think>b", "R[a]W[reasoning: <think>, </think> expected before it]R[<think>b]"},
        {"", ""},
    };
    static const example text[] = {
        {"hello", "T[hello]"},
        {"<think>so</think>yes", "R[so]T[yes]"},
        {"a</think>b", "T[a]W[text: </think>, <think> expected before it]T[</think>b]"},
        {"a < b <thin> </thinks", "T[a < b <thin> </thinks]"},
        {"<<think>x", "T[<]R[x]"},
        {"<th<think>x", "T[<th]R[x]"},
        {"<", "T[<]"},
    };
    check_all(thinking, sizeof thinking / sizeof *thinking, true, NULL);
    check_all(text, sizeof text / sizeof *text, false, NULL);
}

static void test_special_tokens_print_nothing(void **state)
{
    (void)state;
    static const example text[] = {
        {"a<|user|>b<|endoftext|>", "T[ab]"},
        {"a<|userb", "T[a<|userb]"},
    };
    check_all(text, sizeof text / sizeof *text, false, NULL);
    qn_chat_parser *const parser = start(false, NULL);
    qn_chat_parser_feed(parser, id_of_byte('a'));
    qn_chat_parser_feed(parser, id_of("<|endoftext|>"));
    qn_chat_parser_feed(parser, id_of("<|observation|>"));
    qn_chat_parser_feed(parser, id_of("[gMASK]"));
    qn_chat_parser_feed(parser, -1);
    qn_chat_parser_feed(parser, INT32_MAX);
    qn_chat_parser_feed(parser, id_of_byte('b'));
    finish(parser, "T[ab]");
}

/* Half a character at a border is U+FFFD in the part it began in. */
static void test_half_a_character_does_not_cross_a_border(void **state)
{
    (void)state;
    static const example examples[] = {
        {"\xe6\x9d</think>\xb1\xf0", "R[\xef\xbf\xbd]T[\xef\xbf\xbd\xef\xbf\xbd]"},
        {"\xe6\x9d<thi\xb1</think>\xe6\x9d\xb1", "R[\xef\xbf\xbd<thi\xef\xbf\xbd]T[\xe6\x9d\xb1]"},
        {"</think><tool_call>f<arg_key>k</arg_key><arg_value>\xe6</arg_value></tool_call>\x9d",
         "C[f{\"k\": \"\xef\xbf\xbd\"}]T[\xef\xbf\xbd]"},
    };
    check_all(examples, sizeof examples / sizeof *examples, true, NULL);
    qn_chat_parser *const parser = start(true, NULL);
    qn_chat_parser_feed(parser, id_of_byte(0xe6));
    qn_chat_parser_feed(parser, id_of_byte(0x9d));
    assert_int_equal(g_log.n_events, 0);
    qn_chat_parser_feed(parser, id_of_byte(0xb1));
    qn_chat_parser_feed(parser, id_of_byte(0xe6));
    qn_chat_parser_feed(parser, id_of("</think>"));
    qn_chat_parser_feed(parser, id_of_byte(0xb1));
    finish(parser, "R[東\xef\xbf\xbd]T[\xef\xbf\xbd]");
}

static void test_ids_of_the_reasoning_are_counted(void **state)
{
    (void)state;
    static const struct {
        const char *ids[9]; /* names of added tokens, or single characters */
        uint64_t n_reasoning;
    } cases[] = {
        {{"a", "b", "</think>", "c"}, 3},
        {{"a", "<|user|>"}, 2},
        {{"a", "</think>", "<think>", "b", "</think>", "c"}, 4},
        {{"a", "<tool_call>", "f", "</tool_call>", "b"}, 1}, /* the call ends it */
        {{"a", "<tool_call>", "f", "</think>", "b"}, 4},     /* it was none */
        {{"a", "<tool_call>", "f"}, 3},
        {{"a", "<tool_call>", "<tool_call>", "f", "</tool_call>", "b"}, 2},
        {{"</think>", "<tool_call>", "f", "<think>", "a"}, 2},
        {{"a", "<tool_call>", "f", "</tool_call>", "<think>", "b", "<tool_call>", "</think>"}, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_chat_parser *parser = start(true, NULL);
        for (size_t k = 0; k < 9 && cases[i].ids[k] != NULL; k++) {
            const char *const name = cases[i].ids[k];
            qn_chat_parser_feed(parser,
                                strlen(name) > 1 ? id_of(name) : id_of_byte((uint8_t)*name));
        }
        qn_chat_parser_end(parser);
        assert_int_equal(qn_chat_parser_n_reasoning(parser), cases[i].n_reasoning);
        qn_chat_parser_close(&parser);
    }
}

static void test_an_id_ends_what_text_had_begun(void **state)
{
    (void)state;
    qn_chat_parser *const parser = start(false, NULL);
    feed_all(parser, "a<tool_c");
    assert_string_equal(g_log.text, "T[a]");
    qn_chat_parser_feed(parser, id_of_byte('x'));
    assert_string_equal(g_log.text, "T[a<tool_cx]");
    feed_all(parser, "all>");
    finish(parser, "T[a<tool_cxall>]");
}

static void test_a_nul_is_text_and_no_json(void **state)
{
    (void)state;
    static const char written[] =
        "a\0b</think><tool_call>f<arg_key>k</arg_key><arg_value>c\0</arg_value></tool_call>";
    qn_chat_parser *parser = start(true, NULL);
    qn_chat_parser_feed_text(parser, (qn_str){written, sizeof written - 1});
    qn_chat_parser_end(parser);
    qn_chat_parser_close(&parser);
    assert_memory_equal(g_log.text, "R[a\0b]C[f{\"k\": \"c\xef\xbf\xbd\"}]", g_log.len + 1);
}

static void test_without_a_tokenizer_ids_are_printed(void **state)
{
    (void)state;
    qn_chat_parser *parser = NULL;
    qn_error err = {0};
    const int32_t prompt = 154841;
    const qn_parser_options options = {
        .prompt = &prompt, .n_prompt = 1, .fn = event_log_add, .context = &g_log};
    event_log_clear(&g_log);
    assert_int_equal(qn_chat_parser_open(&parser, NULL, &options, &err), QN_OK);
    qn_chat_parser_feed(parser, 0);
    qn_chat_parser_feed(parser, 154842);
    qn_chat_parser_feed(parser, -1);
    feed_all(parser, "<think>a");
    finish(parser, "T[<0><154842><-1>]R[a]");
}

/* ---------------------------------------------------------------------------------- whole calls */

#define ARG(key, value) "<arg_key>" key "</arg_key><arg_value>" value "</arg_value>"

static void test_calls_become_json_typed_by_the_schema(void **state)
{
    (void)state;
    static const example examples[] = {
        {"<tool_call>now</tool_call>", "C[now{}]"},
        {"<tool_call>weather" ARG("city", "東京") ARG("days", "2")
             ARG("opt", "{\"a\": [1, true]}") "</tool_call>",
         "C[weather{\"city\": \"東京\", \"days\": 2, \"opt\": {\"a\": [1, true]}}]"},
        {"<tool_call>weather" ARG("days", "18446744073709551617")
             ARG("city", " 5\n") "</tool_call>", /* in the model's order, strings byte for byte */
         "C[weather{\"days\": 18446744073709551617, \"city\": \" 5\\n\"}]"},
        {"<tool_call>weather" ARG("city", "") ARG("opt", "None") "</tool_call>",
         "C[weather{\"city\": \"\", \"opt\": null}]"},
        {"<tool_call>weather" ARG("city", "a\"\\\b\f\n\r\t\x01\x7f/<x>") "</tool_call>",
         "C[weather{\"city\": \"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\x7f/<x>\"}]"},
        {"<tool_call>now" ARG("\"k\"", "free text") ARG("n", "0.10")
             ARG("q", "\"5\"") "</tool_call>",
         "C[now{\"\\\"k\\\"\": \"free text\", \"n\": 0.10, \"q\": \"\\\"5\\\"\"}]"},
        {"<tool_call>weather" ARG("days", "many") "</tool_call>",
         "W[tool call weather: days: many, integer expected]C[weather{\"days\": \"many\"}]"},
        {"<tool_call>weather" ARG("opt", " [5] ") "</tool_call>",
         "W[tool call weather: opt: [5], object or null expected]C[weather{\"opt\": [5]}]"},
        {"<tool_call>sum" ARG("a", "1") "</tool_call>",
         "W[tool call sum: no such tool, one of those offered expected]C[sum{\"a\": 1}]"},
    };
    check_all(examples, sizeof examples / sizeof *examples, false, tools_json);
}

/* Without a list of tools nobody knows what was offered. */
static void test_no_warning_of_unknown_tools_where_none_are_named(void **state)
{
    (void)state;
    static const example only = {"<tool_call>sum</tool_call>", "C[sum{}]"};
    check_all(&only, 1, false, NULL);
}

static void test_white_space_between_the_parts_of_a_call_is_ignored(void **state)
{
    (void)state;
    static const example only = {
        "<tool_call>\n weather \r\n<arg_key> city\t</arg_key>\n <arg_value> a </arg_value>\n"
        "<arg_key>\ndays\n</arg_key><arg_value>\n1\n</arg_value>\n</tool_call>",
        "C[weather{\"city\": \" a \", \"days\": 1}]"};
    check_all(&only, 1, false, tools_json);
}

static void test_several_calls_and_all_text_around_them(void **state)
{
    (void)state;
    static const example examples[] = {
        {"hm</think>I look.<tool_call>now</tool_call><tool_call>now</tool_call>",
         "R[hm]T[I look.]C[now{}]C[now{}]"},
        {"</think><tool_call>now</tool_call>\n<tool_call>now</tool_call> done<|observation|>",
         "C[now{}]T[\n]C[now{}]T[ done]"},
        {"hm<tool_call>now</tool_call>yes", /* GLM forgot </think>: the call ends the reasoning */
         "R[hm]W[reasoning: <tool_call>, </think> expected before it]C[now{}]T[yes]"},
        {"</think><tool_call>now</tool_call><think>b</think>c", "C[now{}]R[b]T[c]"},
    };
    check_all(examples, sizeof examples / sizeof *examples, true, tools_json);
    qn_chat_parser *parser = start(false, tools_json);
    feed_all(parser, "<tool_call>now</tool_call><tool_call>now<tool_call>now</tool_call>");
    assert_int_equal(qn_chat_parser_n_calls(parser), 2);
    qn_chat_parser_close(&parser);
}

/* ------------------------------------------------------------------------------- malformed calls
 */

#define IN_NAME_EXPECTED "<arg_key> or </tool_call> expected]"

static void test_a_malformed_call_is_text_with_a_warning(void **state)
{
    (void)state;
    static const example examples[] = {
        {"<tool_call></tool_call>.",
         "W[tool call: no name, one expected]T[<tool_call></tool_call>.]"},
        {"<tool_call> \n" ARG("a", "1") "</tool_call>",
         "W[tool call: no name, one expected]T[<tool_call> \n" ARG("a", "1") "</tool_call>]"},
        {"<tool_call>now" ARG(" ", "1") "</tool_call>",
         "W[tool call now: an argument without a name, one name for each expected]"
         "T[<tool_call>now" ARG(" ", "1") "</tool_call>]"},
        {"<tool_call>now" ARG("a", "1") ARG("b", "1") ARG(" a", "2") "</tool_call>",
         "W[tool call now: an argument given twice, one name for each expected]"
         "T[<tool_call>now" ARG("a", "1") ARG("b", "1") ARG(" a", "2") "</tool_call>]"},
        {"<tool_call>now</arg_key>",
         "W[tool call: </arg_key>, " IN_NAME_EXPECTED "T[<tool_call>now</arg_key>]"},
        {"<tool_call>now<arg_key>a<arg_key>",
         "W[tool call now: <arg_key>, </arg_key> expected]T[<tool_call>now<arg_key>a<arg_key>]"},
        {"<tool_call>now<arg_key>a</arg_key>b<arg_value>",
         "W[tool call now: text, <arg_value> expected]T[<tool_call>now<arg_key>a</arg_key>b]"
         "W[text: <arg_value>, <tool_call> expected before it]T[<arg_value>]"},
        {"<tool_call>now<arg_key>a</arg_key></tool_call>",
         "W[tool call now: </tool_call>, <arg_value> expected]"
         "T[<tool_call>now<arg_key>a</arg_key></tool_call>]"},
        {"<tool_call>now<arg_key>a</arg_key><arg_value>b<arg_key>",
         "W[tool call now: <arg_key>, </arg_value> expected]"
         "T[<tool_call>now<arg_key>a</arg_key><arg_value>b<arg_key>]"},
        {"<tool_call>now" ARG("a ", "1") ARG("a", "1") "</tool_call>",
         "W[tool call now: an argument given twice, one name for each expected]"
         "T[<tool_call>now" ARG("a ", "1") ARG("a", "1") "</tool_call>]"},
        {"<tool_call>now</tool_call><tool_call>x",
         "C[now{}]W[tool call: the end of the answer, " IN_NAME_EXPECTED "T[<tool_call>x]"},
        {"<tool_call>now<arg_key>a</arg_key><arg_value>b</tool_call>",
         "W[tool call now: </tool_call>, </arg_value> expected]"
         "T[<tool_call>now<arg_key>a</arg_key><arg_value>b</tool_call>]"},
        {"<tool_call>now" ARG("a", "b") " \nand",
         "W[tool call now: text, " IN_NAME_EXPECTED "T[<tool_call>now" ARG("a", "b") " \nand]"},
        {"<tool_call>now" ARG("a", "b") "<arg_value>",
         "W[tool call now: <arg_value>, " IN_NAME_EXPECTED
         "T[<tool_call>now" ARG("a", "b") "<arg_value>]"},
        {"<tool_call>no",
         "W[tool call: the end of the answer, " IN_NAME_EXPECTED "T[<tool_call>no]"},
        {"<tool_call>now<arg_key>a</arg_key><arg_value>b\xe6",
         "W[tool call now: the end of the answer, </arg_value> expected]"
         "T[<tool_call>now<arg_key>a</arg_key><arg_value>b\xef\xbf\xbd]"},
        {"<tool_call>{\"name\": \"f\"}</tool_call>",
         "W[tool call {\"name\": \"f\"}: no function's name, one expected]"
         "T[<tool_call>{\"name\": \"f\"}</tool_call>]"},
        {"<tool_call>is a marker</tool_call>",
         "W[tool call is a marker: no function's name, one expected]"
         "T[<tool_call>is a marker</tool_call>]"},
        {"<tool_call>now<arg_key>a<|user|>b",
         "W[tool call now: a special token, </arg_key> expected]T[<tool_call>now<arg_key>ab]"},
    };
    check_all(examples, sizeof examples / sizeof *examples, false, tools_json);
}

/* They mean something outside, and the model is taken at it. */
static void test_parts_and_calls_begin_inside_a_malformed_call(void **state)
{
    (void)state;
    static const example text[] = {
        {"<tool_call>a<tool_call>now</tool_call>",
         "W[tool call: <tool_call>, " IN_NAME_EXPECTED "T[<tool_call>a]C[now{}]"},
        {"<tool_call>a<think>b</think>c",
         "W[tool call: <think>, " IN_NAME_EXPECTED "T[<tool_call>a]R[b]T[c]"},
    };
    static const example thinking[] = {
        {"Use <tool_call>.</think>yes",
         "R[Use ]W[reasoning: <tool_call>, </think> expected before it]"
         "W[tool call: </think>, " IN_NAME_EXPECTED "R[<tool_call>.]T[yes]"},
        {"<tool_call>", "W[reasoning: <tool_call>, </think> expected before it]"
                        "W[tool call: the end of the answer, " IN_NAME_EXPECTED "R[<tool_call>]"},
    };
    check_all(text, sizeof text / sizeof *text, false, tools_json);
    check_all(thinking, sizeof thinking / sizeof *thinking, true, tools_json);
}

static void feed_many(qn_chat_parser *parser, char letter, size_t n)
{
    char block[4096];
    memset(block, letter, sizeof block);
    for (size_t at = 0; at < n; at += sizeof block) {
        const size_t rest = n - at;
        qn_chat_parser_feed_text(parser,
                                 (qn_str){block, rest < sizeof block ? rest : sizeof block});
    }
}

/* @p before, @p n letters and @p after come out as they were, behind this warning. */
static void check_too_long(const char *before, char letter, size_t n, const char *after,
                           const char *warning)
{
    const event_log kept = g_log;
    event_log_init(&g_log, n + 1000);
    qn_chat_parser *parser = start(false, NULL);
    feed_all(parser, before);
    feed_many(parser, letter, n);
    feed_all(parser, after);
    qn_chat_parser_end(parser);
    feed_all(parser, "<tool_call>now</tool_call>"); /* nothing of it is left */
    assert_int_equal(qn_chat_parser_n_calls(parser), 1);
    qn_chat_parser_close(&parser);
    assert_memory_equal(g_log.text, warning, strlen(warning));
    assert_int_equal(g_log.n_warnings, 1);
    assert_int_equal(g_log.n_plain, strlen(before) + n + strlen(after));
    assert_memory_equal(g_log.plain, before, strlen(before));
    for (size_t i = 0; i < n; i++) {
        assert_true(g_log.plain[strlen(before) + i] == letter);
    }
    assert_string_equal(g_log.plain + strlen(before) + n, after);
    event_log_deinit(&g_log);
    g_log = kept;
}

static void test_what_is_too_long_is_text(void **state)
{
    (void)state;
    const size_t mib = (size_t)1 << 20;
    check_too_long("<tool_call>f<arg_key>k</arg_key><arg_value>", 'x', 5 * mib, " y",
                   "W[tool call f: too long, at most 1 MiB expected]T[");
    check_too_long("<tool_call>f<arg_key>k</arg_key>", '\n', mib, "",
                   "W[tool call f: too long, at most 1 MiB expected]T[");
    check_too_long("<tool_call>f<arg_key>k</arg_key><arg_value>", '\x01', mib / 2,
                   "</arg_value></tool_call>",
                   "W[tool call f: too long as JSON, at most 2 MiB expected]T[");
    check_too_long("<tool_call>", 'f', QN_CHAT_CALL_NAME_BYTES_MAX + 1, "",
                   "W[tool call: more than 256 bytes of a name, <arg_key> or </tool_call> ");
    check_too_long("<tool_call>f<arg_key>", 'k', QN_CHAT_CALL_NAME_BYTES_MAX + 1, "",
                   "W[tool call f: more than 256 bytes of a name, </arg_key> expected]T[");
}

/* A call of exactly the permitted size, of the letter that JSON doubles; then one byte more. */
static void test_the_longest_call_is_one(void **state)
{
    (void)state;
    static const char before[] = "<tool_call>f<arg_key>k</arg_key><arg_value>";
    static const char after[] = "</arg_value></tool_call>";
    const size_t n = QN_CHAT_CALL_BYTES_MAX - strlen(before) - strlen(after);
    const event_log kept = g_log;
    event_log_init(&g_log, 2 * n + 1000);
    for (size_t more = 0; more <= 1; more++) {
        qn_chat_parser *parser = start(false, NULL);
        feed_all(parser, before);
        feed_many(parser, '\n', n + more);
        feed_all(parser, after);
        assert_int_equal(qn_chat_parser_n_calls(parser), 1 - more);
        assert_int_equal(g_log.n_warnings, more);
        qn_chat_parser_end(parser);
        qn_chat_parser_close(&parser);
        assert_int_equal(g_log.n_plain, more == 0 ? 0 : QN_CHAT_CALL_BYTES_MAX + 1);
    }
    event_log_deinit(&g_log);
    g_log = kept;
}

/* What is too long depends on which limit comes first, wherever the answer is cut. */
static void test_the_first_limit_is_named(void **state)
{
    (void)state;
    static const char before[] = "<tool_call>f<arg_key>k</arg_key><arg_value>";
    static const char after[] = "</arg_value><arg_key>";
    const event_log kept = g_log;
    event_log_init(&g_log, QN_CHAT_CALL_BYTES_MAX + 1000);
    for (size_t i = 0; i < 4; i++) {
        const size_t n_left = i < 2 ? 200 : 300;
        char name[512];
        memset(name, 'x', sizeof name);
        qn_chat_parser *parser = start(false, NULL);
        feed_all(parser, before);
        feed_many(parser, 'v', QN_CHAT_CALL_BYTES_MAX - strlen(before) - strlen(after) - n_left);
        feed_all(parser, after);
        qn_chat_parser_feed_text(parser, (qn_str){name, i % 2 != 0 ? 256 : 0});
        qn_chat_parser_feed_text(parser, (qn_str){name, sizeof name});
        qn_chat_parser_close(&parser);
        assert_int_equal(g_log.n_warnings, 1);
        assert_int_equal(strstr(g_log.text, "too long") != NULL, n_left == 200);
    }
    event_log_deinit(&g_log);
    g_log = kept;
}

static void test_the_longest_name_and_any_space_between_parts_are_good(void **state)
{
    (void)state;
    qn_chat_parser *parser = start(false, NULL);
    feed_all(parser, "<tool_call>");
    feed_many(parser, 'f', QN_CHAT_CALL_NAME_BYTES_MAX);
    for (size_t i = 0; i < 3; i++) {
        static const char *const begins[] = {"<arg_key>a", "<arg_key>b", "<arg_key>c"};
        feed_all(parser, begins[i]);
        feed_many(parser, ' ', QN_CHAT_CALL_NAME_BYTES_MAX - 1);
        feed_all(parser, "</arg_key>");
        feed_many(parser, '\n', 1000);
        feed_all(parser, "<arg_value></arg_value>");
        feed_many(parser, '\t', 1000);
    }
    feed_all(parser, "</tool_call>");
    assert_int_equal(qn_chat_parser_n_calls(parser), 1);
    assert_int_equal(g_log.n_events, 1);
    qn_chat_parser_close(&parser);
}

static void test_the_number_of_arguments_has_a_limit(void **state)
{
    (void)state;
    for (size_t more = 0; more <= 1; more++) {
        qn_chat_parser *parser = start(false, NULL);
        feed_all(parser, "<tool_call>f");
        for (size_t i = 0; i < QN_CHAT_CALL_ARGUMENTS_MAX + more; i++) {
            char argument[64];
            (void)snprintf(argument, sizeof argument, ARG("%zu", "1"), i);
            feed_all(parser, argument);
        }
        feed_all(parser, "</tool_call>");
        assert_int_equal(qn_chat_parser_n_calls(parser), 1 - more);
        qn_chat_parser_end(parser);
        assert_int_equal(strstr(g_log.text, "W[tool call f: more than 256 arguments, "
                                            "</tool_call> expected]T[<tool_call>f<") != NULL,
                         more == 1);
        qn_chat_parser_close(&parser);
    }
}

static void feed_much(qn_chat_parser *parser)
{
    static const char *const texts[] = {
        "</tool_call></arg_value>",
        "<tool_call>",
        "text \xf0\x9f <arg",
        "<|user|>",
        "</think><think>",
        "<tool_call>weather" ARG("days", "x") ARG("city", "y") "</tool_call>"};
    for (size_t i = 0; i < 20000; i++) {
        event_log_clear(&g_log);
        feed_all(parser, texts[i % (sizeof texts / sizeof *texts)]);
        qn_chat_parser_feed(parser, (int32_t)(i % qn_tokenizer_size(g_nano)));
    }
    event_log_clear(&g_log);
    feed_all(parser, "</think><tool_call>weather<arg_key>city</arg_key><arg_value>");
    feed_many(parser, 'x', 1000);
    feed_all(parser, "</arg_value></tool_call>");
    qn_chat_parser_end(parser);
}

static void test_stray_markers_without_end_allocate_nothing(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    qn_chat_parser *parser = start(false, tools_json);
    g_n_failed = 0;
    g_allocations_left = 0;
    feed_much(parser);
    g_allocations_left = SIZE_MAX;
    assert_int_equal(g_n_failed, 0);
    assert_true(qn_chat_parser_n_calls(parser) > 3000);
    assert_non_null(strstr(g_log.text, "C[weather{\"city\": \"xxx"));
    qn_chat_parser_close(&parser);
}

/* ------------------------------------------------------------------------------------------- open
 */

static qn_status open_once(qn_error *err)
{
    qn_chat_parser *parser = NULL;
    const qn_parser_options options = {
        .tools_json = tools_json, .tools_len = strlen(tools_json), .fn = event_log_add};
    const qn_status status = qn_chat_parser_open(&parser, g_nano, &options, err);
    qn_chat_parser_close(&parser);
    return status;
}

static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(open_once, 1, 3);
}

static void test_bad_options_are_named(void **state)
{
    (void)state;
    qn_chat_parser *parser = (qn_chat_parser *)(uintptr_t)1;
    qn_error err = {0};
    qn_parser_options options = {0};
    assert_int_equal(qn_chat_parser_open(&parser, g_nano, &options, &err), QN_E_INVAL);
    assert_string_equal(err.text, "parser: no function, one for events expected");
    assert_null(parser);
    options = (qn_parser_options){.fn = event_log_add, .tools_json = "[{}]", .tools_len = 4};
    assert_int_equal(qn_chat_parser_open(&parser, g_nano, &options, &err), QN_E_FORMAT);
    assert_string_equal(err.text, "tools[0].name: nothing, expected the name of a function");
    assert_null(parser);
    qn_chat_parser_close(&parser);
    qn_chat_parser_close(NULL);
}

static int set_up_all(void **state)
{
    event_log_init(&g_log, LOG_BYTES);
    return set_up(state);
}

static int tear_down_all(void **state)
{
    event_log_deinit(&g_log);
    return tear_down(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_prompt_says_where_the_answer_begins),
        cmocka_unit_test(test_markers_divide_reasoning_from_text),
        cmocka_unit_test(test_special_tokens_print_nothing),
        cmocka_unit_test(test_half_a_character_does_not_cross_a_border),
        cmocka_unit_test(test_ids_of_the_reasoning_are_counted),
        cmocka_unit_test(test_an_id_ends_what_text_had_begun),
        cmocka_unit_test(test_a_nul_is_text_and_no_json),
        cmocka_unit_test(test_without_a_tokenizer_ids_are_printed),
        cmocka_unit_test(test_calls_become_json_typed_by_the_schema),
        cmocka_unit_test(test_no_warning_of_unknown_tools_where_none_are_named),
        cmocka_unit_test(test_white_space_between_the_parts_of_a_call_is_ignored),
        cmocka_unit_test(test_several_calls_and_all_text_around_them),
        cmocka_unit_test(test_a_malformed_call_is_text_with_a_warning),
        cmocka_unit_test(test_parts_and_calls_begin_inside_a_malformed_call),
        cmocka_unit_test(test_what_is_too_long_is_text),
        cmocka_unit_test(test_the_longest_call_is_one),
        cmocka_unit_test(test_the_first_limit_is_named),
        cmocka_unit_test(test_the_longest_name_and_any_space_between_parts_are_good),
        cmocka_unit_test(test_the_number_of_arguments_has_a_limit),
        cmocka_unit_test(test_stray_markers_without_end_allocate_nothing),
        cmocka_unit_test(test_no_memory_is_a_status),
        cmocka_unit_test(test_bad_options_are_named),
    };
    return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
