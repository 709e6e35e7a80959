/* SPDX-License-Identifier: Apache-2.0 */
/* Calls in pieces: the pieces are one JSON object and the text of the call that follows, whatever
 * the model breaks and wherever its answer is cut. */
#include "base/rng.h"
#include "chat/parser.h"
#include "fixture.h"
#include "support/event_log.h"
#include "support/fail_each.h"

static const char tools_json[] =
    "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"s\": {\"type\": \"string\"}, \"n\": "
    "{\"type\": \"number\"}, \"opt\": {\"type\": [\"string\", \"null\"]}, \"o\": {\"type\": "
    "\"object\"}}}}]";

enum { LOG_BYTES = 1 << 20 };
static event_log g_log;
static event_log g_other;

static qn_chat_parser *start(event_log *log, bool streams, bool is_thinking)
{
    qn_chat_parser *parser = NULL;
    qn_error err = {0};
    const qn_parser_options options = {.tools_json = tools_json,
                                       .tools_len = strlen(tools_json),
                                       .fn = event_log_add,
                                       .context = log,
                                       .streams_calls = streams};
    event_log_clear(log);
    if (qn_chat_parser_open(&parser, g_nano, &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    qn_chat_parser_feed_text(parser, qn_str_of(is_thinking ? "<think>" : ""));
    return parser;
}

static void finish(event_log *log, qn_chat_parser **parser)
{
    qn_chat_parser_end(*parser);
    assert_false(log->is_begun); /* what begins ends */
    qn_chat_parser_close(parser);
}

static void parse(event_log *log, bool streams, const char *text)
{
    qn_chat_parser *parser = start(log, streams, false);
    qn_chat_parser_feed_text(parser, qn_str_of(text));
    finish(log, &parser);
}

#define ARG(key, value) "<arg_key>" key "</arg_key><arg_value>" value "</arg_value>"

typedef struct example {
    const char *written;
    const char *expected;
} example;

static void check_all(const example *examples, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        parse(&g_log, true, examples[i].written);
        assert_string_equal(g_log.text, examples[i].expected);
    }
}

static void test_a_call_comes_in_pieces_and_then_whole(void **state)
{
    (void)state;
    static const example examples[] = {
        {"a<tool_call>f</tool_call>b", "T[a]B[f]P[{}]C[f{}]T[b]"},
        {"<tool_call> f\n" ARG("s", "x") "</tool_call>", "B[f]P[{\"s\": \"x\"}]C[f{\"s\": \"x\"}]"},
        {"<tool_call>f" ARG("n", " 1.50 ") ARG(" s ", "") "\n</tool_call>",
         "B[f]P[{\"n\": 1.50, \"s\": \"\"}]C[f{\"n\": 1.50, \"s\": \"\"}]"},
        {"<think>r<tool_call>f" ARG("opt", "null") "</tool_call>x",
         "R[r]W[reasoning: <tool_call>, </think> expected before it]B[f]P[{\"opt\": null}]"
         "C[f{\"opt\": null}]T[x]"},
        {"<tool_call>f</tool_call><tool_call>f" ARG("s", "1") "</tool_call>",
         "B[f]P[{}]C[f{}]B[f]P[{\"s\": \"1\"}]C[f{\"s\": \"1\"}]"},
    };
    check_all(examples, sizeof examples / sizeof *examples);
}

/* What the last piece was, and nothing where none came. */
static const char *piece_of(event_log *log, qn_chat_parser *parser, const char *text)
{
    static char piece[256];
    const size_t before = log->is_begun ? log->n_pieces : 0;
    qn_chat_parser_feed_text(parser, qn_str_of(text));
    (void)snprintf(piece, sizeof piece, "%.*s", (int)(log->n_pieces - before),
                   log->pieces + before);
    return piece;
}

static void test_a_string_comes_while_it_is_written(void **state)
{
    (void)state;
    qn_chat_parser *parser = start(&g_log, true, false);
    assert_string_equal(piece_of(&g_log, parser, "<tool_call>f"), "");
    assert_false(g_log.is_begun); /* more of the name may come */
    assert_string_equal(piece_of(&g_log, parser, "<arg_key>"), "");
    assert_true(g_log.is_begun);
    assert_string_equal(piece_of(&g_log, parser, "s</arg_key>"), "");
    assert_string_equal(piece_of(&g_log, parser, "<arg_value>"), "{\"s\": \"");
    assert_string_equal(piece_of(&g_log, parser, "a\"\n"), "a\\\"\\n");
    assert_string_equal(piece_of(&g_log, parser, "b\xe6\x9d"), "b");
    assert_string_equal(piece_of(&g_log, parser, "\xb1"), "\xe6\x9d\xb1");
    assert_string_equal(piece_of(&g_log, parser, "\x01</arg"), "\\u0001");
    assert_string_equal(piece_of(&g_log, parser, "_value>"), "\"");
    assert_string_equal(piece_of(&g_log, parser, "<arg_key>n</arg_key><arg_value>1"), "");
    assert_string_equal(piece_of(&g_log, parser, "2"), ""); /* it may become 12.5 */
    assert_string_equal(piece_of(&g_log, parser, "</arg_value>"), ", \"n\": 12");
    assert_string_equal(piece_of(&g_log, parser, "</tool_call>"), "}");
    finish(&g_log, &parser);
}

/* A string or null, or anything: what cannot be JSON is a string from its first character on. */
static void test_a_value_that_can_only_be_a_string_comes_while_it_is_written(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        const char *written;
        bool comes;
    } cases[] = {
        {"opt", " \n", false},  {"opt", " x", true}, {"opt", "12", true},       {"opt", "{", true},
        {"opt", "nul", false},  {"any", "x", true},  {"any", " \"x", true},     {"any", "-", false},
        {"any", "true", false}, {"any", "[", false}, {"any", "\xc3\xa9", true}, {"o", "x", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_chat_parser *parser = start(&g_log, true, false);
        qn_chat_parser_feed_text(parser, qn_str_of("<tool_call>f<arg_key>"));
        qn_chat_parser_feed_text(parser, qn_str_of(cases[i].key));
        qn_chat_parser_feed_text(parser, qn_str_of("</arg_key><arg_value>"));
        const char *const piece = piece_of(&g_log, parser, cases[i].written);
        assert_int_equal(piece[0] != '\0', cases[i].comes);
        assert_true(!cases[i].comes || strchr(piece, cases[i].written[0]) != NULL);
        finish(&g_log, &parser);
    }
}

static void test_what_breaks_behind_the_name_is_mended(void **state)
{
    (void)state;
    static const example examples[] = {
        /* the end, in every place */
        {"<tool_call>f" ARG("s", "x"),
         "B[f]P[{\"s\": \"x\"]W[tool call f: the end of the answer, <arg_key> or </tool_call> "
         "expected]P[}]C[f{\"s\": \"x\"}]"},
        {"<tool_call>f<arg_key>s",
         "B[f]W[tool call f: the end of the answer, </arg_key> expected]P[{}]C[f{}]"},
        {"<tool_call>f<arg_key>s</arg_key> ",
         "B[f]W[tool call f: the end of the answer, <arg_value> expected]P[{}]C[f{}]"},
        {"<tool_call>f<arg_key>s</arg_key><arg_value>x\xe6",
         "B[f]P[{\"s\": \"x\xef\xbf\xbd]W[tool call f: the end of the answer, </arg_value> "
         "expected]P[\"}]C[f{\"s\": \"x\xef\xbf\xbd\"}]"},
        {"<tool_call>f" ARG("s", "x") "<arg_key>n</arg_key><arg_value>12",
         "B[f]P[{\"s\": \"x\"]W[tool call f: the end of the answer, </arg_value> expected]P[}]"
         "C[f{\"s\": \"x\"}]"},
        /* what stands in a wrong place goes on as text */
        {"<tool_call>f" ARG("n", "1") "and so <think>r",
         "B[f]P[{\"n\": 1]W[tool call f: text, <arg_key> or </tool_call> expected]P[}]"
         "C[f{\"n\": 1}]T[and so ]R[r]"},
        {"<tool_call>f<arg_key>s</arg_key><arg_value>x<tool_call>f</tool_call>",
         "B[f]P[{\"s\": \"x]W[tool call f: <tool_call>, </arg_value> expected]P[\"}]"
         "C[f{\"s\": \"x\"}]B[f]P[{}]C[f{}]"},
        {"<tool_call>f<arg_key>s</arg_key><arg_value>x<|user|>y",
         "B[f]P[{\"s\": \"x]W[tool call f: a special token, </arg_value> expected]P[\"}]"
         "C[f{\"s\": \"x\"}]T[y]"},
        {"<tool_call>f<arg_key>s</arg_key></tool_call>",
         "B[f]W[tool call f: </tool_call>, <arg_value> expected]P[{}]C[f{}]T[</tool_call>]"},
        /* names */
        {"<tool_call>f" ARG("s", "1") ARG("s", "2") ARG("", "3") ARG("n", "4") "</tool_call>",
         "B[f]P[{\"s\": \"1\"]W[tool call f: s: an argument given twice, one name for each "
         "expected]W[tool call f: : an argument without a name, one name for each expected]"
         "P[, \"n\": 4}]C[f{\"s\": \"1\", \"n\": 4}]"},
        {"<tool_call>f<arg_key>s</arg_key><arg_value>x</arg_value><arg_key>s</arg_key><arg_value>y",
         "B[f]P[{\"s\": \"x\"]W[tool call f: s: an argument given twice, one name for each "
         "expected]W[tool call f: the end of the answer, </arg_value> expected]P[}]"
         "C[f{\"s\": \"x\"}]"},
        {"<tool_call>g" ARG("a", "[1]") "</tool_call>",
         "W[tool call g: no such tool, one of those offered expected]B[g]P[{\"a\": [1]}]"
         "C[g{\"a\": [1]}]"},
        {"<tool_call>f" ARG("n", "one") "</tool_call>",
         "B[f]W[tool call f: n: one, number expected]P[{\"n\": \"one\"}]C[f{\"n\": \"one\"}]"},
    };
    check_all(examples, sizeof examples / sizeof *examples);
}

static void test_before_a_name_is_complete_all_is_as_without_pieces(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "plain <think>r</think>",
        "<tool_call>f",
        "<tool_call>no name<arg_key>s",
        "<tool_call>" ARG("s", "x") "</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>f<tool_call>",
        "<tool_call>{\"name\": \"f\"}</tool_call>",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        parse(&g_log, true, texts[i]);
        parse(&g_other, false, texts[i]);
        assert_string_equal(g_log.text, g_other.text);
        assert_true(i == 0 || g_log.n_warnings > 0);
    }
}

/* @p n bytes of characters of three bytes behind "xx" cut at @p n_shift, in pieces of @p n_cut. */
static void parse_long(event_log *log, size_t n, size_t n_shift, size_t n_cut)
{
    static const char character[] = "\xe6\x9d\xb1";
    char text[1024];
    event_log_deinit(log);
    event_log_init(log, 8 << 20);
    qn_chat_parser *parser = start(log, true, false);
    qn_chat_parser_feed_text(parser, qn_str_of("<tool_call>f<arg_key>s</arg_key><arg_value>"));
    qn_chat_parser_feed_text(parser, (qn_str){"xx", n_shift});
    for (size_t at = 0, n_fed; at < n; at += n_fed) { /* cut within characters too */
        for (n_fed = 0; n_fed < n_cut && at + n_fed < n; n_fed++) {
            text[n_fed] = character[(at + n_fed) % 3];
        }
        qn_chat_parser_feed_text(parser, (qn_str){text, n_fed});
    }
    finish(log, &parser);
}

/* Limits end a call at the same character, wherever the answer is cut. */
static void test_what_is_too_long_ends_a_call_and_goes_on_as_text(void **state)
{
    (void)state;
    enum { N = (QN_CHAT_CALL_BYTES_MAX / 3 + 30) * 3 };
    const size_t n_begin = strlen("<tool_call>f<arg_key>s</arg_key><arg_value>");
    for (size_t n_shift = 0; n_shift < 3; n_shift++) {
        parse_long(&g_log, N, n_shift, 700);
        assert_non_null(strstr(g_log.text, "W[tool call f: too long, at most 1 MiB expected]"));
        const size_t n_kept = (QN_CHAT_CALL_BYTES_MAX - n_begin - n_shift) / 3 * 3;
        assert_int_equal(g_log.n_plain, N - n_kept);
        for (size_t n_cut = 701; n_cut < 703; n_cut++) {
            parse_long(&g_other, N, n_shift, n_cut);
            assert_string_equal(g_log.text, g_other.text);
        }
    }
}

/* A call of the longest escapes is not too long, whatever it becomes. */
static void test_the_longest_call_of_the_longest_escapes_is_one(void **state)
{
    (void)state;
    enum { N = QN_CHAT_CALL_BYTES_MAX - 200 };
    event_log_deinit(&g_log);
    event_log_init(&g_log, 16 << 20);
    qn_chat_parser *parser = start(&g_log, true, false);
    qn_chat_parser_feed_text(parser, qn_str_of("<tool_call>f<arg_key>s</arg_key><arg_value>"));
    for (size_t i = 0; i < N; i++) {
        qn_chat_parser_feed_text(parser, qn_str_of("\x01"));
    }
    qn_chat_parser_feed_text(parser, qn_str_of("</arg_value></tool_call>"));
    assert_int_equal(g_log.n_warnings, 0);
    assert_int_equal(g_log.n_pieces, strlen("{\"s\": \"\"}") + 6 * (size_t)N);
    finish(&g_log, &parser);
}

static void test_ids_of_the_reasoning_before_a_mended_call_are_counted(void **state)
{
    (void)state;
    qn_ids ids = {0};
    qn_error err = {0};
    qn_chat_parser *parser = start(&g_log, true, true);
    static const char text[] = "ab<tool_call>f<arg_key>s<tool_call>x y</tool_call>";
    assert_int_equal(qn_tokenizer_encode(g_nano, qn_str_of(text), QN_ADDED_MATCH, &ids, &err),
                     QN_OK);
    for (size_t i = 0; i < ids.n_ids; i++) {
        qn_chat_parser_feed(parser, ids.ids[i]);
    }
    size_t n_reasoning = 0;
    while (ids.ids[n_reasoning] != qn_tokenizer_added_id(g_nano, qn_str_of("<tool_call>"))) {
        n_reasoning++;
    }
    assert_int_equal(qn_chat_parser_n_reasoning(parser), n_reasoning);
    assert_int_equal(qn_chat_parser_n_calls(parser), 1);
    finish(&g_log, &parser);
    qn_ids_deinit(&ids);
}

/* -------------------------------------------------------------------------------------- mutations
 */

/* Calls as they should be. */
static qn_str make_calls(char out[2048], uint64_t seed)
{
    static const char *const parts[] = {
        "<tool_call>f" ARG("s", "a\"b\\") "</tool_call>",
        "<tool_call>f" ARG("n", "-1e5") ARG("opt", "null") "</tool_call>",
        "<tool_call> f\n" ARG("any", "東京\n") "\n" ARG("o", "{\"a\": [1, null]}") "\n</tool_call>",
        "<tool_call>f" ARG("opt", "\xf0\x9f\x98\x80 so") ARG("s", "") "</tool_call>",
        "<tool_call>f</tool_call>",
        "<tool_call>f" ARG("n", " true") "</tool_call>",
        "text ",
        "<think>r</think>",
    };
    qn_str stream = {.ptr = out};
    for (uint64_t i = 0; i < 6; i++) {
        const qn_str part =
            qn_str_of(parts[qn_rng_u64(seed, 0, i) % (sizeof parts / sizeof *parts)]);
        assert_true(stream.len + part.len < 2048);
        memcpy(out + stream.len, part.ptr, part.len);
        stream.len += part.len;
    }
    out[stream.len] = '\0';
    return stream;
}

/* Bytes go, come twice, or become others; the answer may end early. */
static qn_str mutate(char out[4096], qn_str text, uint64_t seed)
{
    qn_str mutated = {.ptr = out};
    const size_t rate = 4 + qn_rng_u64(seed, 1, 0) % text.len;
    for (size_t i = 0; i < text.len; i++) {
        const uint64_t random = qn_rng_u64(seed, 2, i);
        const size_t n_left = text.len - i;
        if (random % rate != 0) {
            out[mutated.len++] = text.ptr[i];
        } else if (random >> 32 & 1) { /* a piece of what comes stands here too */
            const size_t n = 1 + (random >> 40) % 16;
            const size_t n_copied = n < n_left ? n : n_left;
            memcpy(out + mutated.len, text.ptr + i, n_copied);
            mutated.len += n_copied;
        } else if (random >> 33 & 1) {
            i += (random >> 40) % 16; /* a piece goes */
        } else {
            out[mutated.len++] = (char)(random >> 40);
        }
        if (mutated.len > 2048) {
            break;
        }
    }
    out[mutated.len] = '\0';
    return mutated;
}

static void test_calls_are_the_same_with_and_without_pieces(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 500; seed++) {
        char bytes[2048];
        char left[LOG_BYTES / 16] = "";
        size_t len = 0;
        const qn_str text = make_calls(bytes, seed);
        parse(&g_log, true, text.ptr);
        parse(&g_other, false, text.ptr);
        for (const char *at = g_log.text; *at != '\0';) { /* without B[...] and P[...] */
            const char *const begin = strstr(at, "B[f]");
            const char *const end = begin != NULL ? strstr(begin, "C[") : NULL;
            if (begin == NULL) {
                (void)snprintf(left + len, sizeof left - len, "%s", at);
                break;
            }
            assert_non_null(end);
            len += (size_t)snprintf(left + len, sizeof left - len, "%.*s", (int)(begin - at), at);
            const char *const warning = strstr(begin, "W[");
            const char *const piece = strstr(begin, "P[");
            if (warning != NULL && warning < end && warning < piece) {
                len += (size_t)snprintf(left + len, sizeof left - len, "%.*s",
                                        (int)(piece - warning), warning);
            }
            at = end;
        }
        assert_string_equal(left, g_other.text);
    }
}

static void test_mutated_calls_keep_the_promise_wherever_they_are_cut(void **state)
{
    (void)state;
    size_t n_mended = 0;
    for (uint64_t seed = 0; seed < 5000; seed++) {
        char bytes[2048];
        char mutated[4096];
        const qn_str text = mutate(mutated, make_calls(bytes, seed), seed);
        qn_chat_parser *parser = start(&g_log, true, false);
        qn_chat_parser_feed_text(parser, text);
        finish(&g_log, &parser); /* the log checks what the pieces are */
        n_mended += strstr(g_log.text, "expected]P[}]") != NULL ? 1 : 0;
        for (uint64_t way = 1; way <= 3; way++) {
            parser = start(&g_other, true, false);
            size_t at = 0;
            for (uint64_t i = 0; at < text.len; i++) {
                const size_t n = 1 + qn_rng_u64(seed, 2 + way, i) % (4 * way);
                const size_t n_fed = n < text.len - at ? n : text.len - at;
                qn_chat_parser_feed_text(parser, (qn_str){text.ptr + at, n_fed});
                at += n_fed;
            }
            finish(&g_other, &parser);
            assert_string_equal(g_other.text, g_log.text);
        }
    }
    assert_true(n_mended > 100); /* else nothing is shown */
}

static qn_status parse_once(qn_error *err)
{
    qn_chat_parser *parser = NULL;
    const qn_parser_options options = {.tools_json = tools_json,
                                       .tools_len = strlen(tools_json),
                                       .fn = event_log_add,
                                       .context = &g_log,
                                       .streams_calls = true};
    event_log_clear(&g_log);
    const qn_status status = qn_chat_parser_open(&parser, g_nano, &options, err);
    if (status == QN_OK) { /* what was opened needs no memory any more */
        qn_chat_parser_feed_text(parser, qn_str_of("<tool_call>f" ARG("s", "x") "</tool_call>"));
        qn_chat_parser_end(parser);
        assert_int_equal(qn_chat_parser_n_calls(parser), 1);
    }
    qn_chat_parser_close(&parser);
    return status;
}

static void test_no_memory_is_a_status(void **state)
{
    (void)state;
    fail_each(parse_once, 1, 3);
}

static int set_up_all(void **state)
{
    event_log_init(&g_log, LOG_BYTES);
    event_log_init(&g_other, LOG_BYTES);
    return set_up(state);
}

static int tear_down_all(void **state)
{
    event_log_deinit(&g_log);
    event_log_deinit(&g_other);
    return tear_down(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_call_comes_in_pieces_and_then_whole),
        cmocka_unit_test(test_a_string_comes_while_it_is_written),
        cmocka_unit_test(test_a_value_that_can_only_be_a_string_comes_while_it_is_written),
        cmocka_unit_test(test_what_breaks_behind_the_name_is_mended),
        cmocka_unit_test(test_before_a_name_is_complete_all_is_as_without_pieces),
        cmocka_unit_test(test_what_is_too_long_ends_a_call_and_goes_on_as_text),
        cmocka_unit_test(test_the_longest_call_of_the_longest_escapes_is_one),
        cmocka_unit_test(test_ids_of_the_reasoning_before_a_mended_call_are_counted),
        cmocka_unit_test(test_calls_are_the_same_with_and_without_pieces),
        cmocka_unit_test(test_mutated_calls_keep_the_promise_wherever_they_are_cut),
        cmocka_unit_test(test_no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
