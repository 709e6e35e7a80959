/* SPDX-License-Identifier: Apache-2.0 */
/* Properties of the parser over whole streams: cuts change nothing, and nothing is lost. */
#include "base/rng.h"
#include "chat/parser.h"
#include "fixture.h"
#include "support/event_log.h"

static const char tools_json[] =
    "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"s\": {\"type\": \"string\"}, \"n\": "
    "{\"type\": \"number\"}}}}]";

enum { LOG_BYTES = 1 << 15 };
static event_log g_whole; /* of the uncut stream */
static event_log g_cut;

static event_log *g_log; /* that events go to */
/* One for all streams: a fresh one for each pair of cuts takes minutes with sanitizers. */
static qn_chat_parser *g_parser;
static bool g_streams; /* calls come in pieces */

static void log_event(void *context, const qn_event *event)
{
    (void)context;
    event_log_add(g_log, event);
}

/* The next answer, into an empty @p log. */
static void start(event_log *log, bool is_thinking)
{
    g_log = log;
    qn_chat_parser_feed_text(g_parser, qn_str_of("<think></think>")); /* text, wherever it was */
    qn_chat_parser_feed_text(g_parser, qn_str_of(is_thinking ? "<think>" : ""));
    event_log_clear(log);
}

static void feed(qn_str text, size_t from, size_t to)
{
    qn_chat_parser_feed_text(g_parser, (qn_str){.ptr = text.ptr + from, .len = to - from});
}

static void parse_whole(qn_str text, bool is_thinking)
{
    start(&g_whole, is_thinking);
    feed(text, 0, text.len);
    qn_chat_parser_end(g_parser);
    assert_false(g_whole.is_begun);
}

#define ARG(key, value) "<arg_key>" key "</arg_key><arg_value>" value "</arg_value>"

/* All are read as text and as reasoning. */
static const char *const nasty[] = {
    "a</think>b<tool_call>f" ARG("s", "x") "</tool_call>",
    "\xe6\x9d<tool\xb1_call>\xe6\x9d\xb1<tool_call>\xe6</tool_call>",
    "<tool_call>\n f\n<arg_key> s </arg_key>\n<arg_value>\n東\"\\</arg_value> </tool_call>\n",
    "<tool_call>f<arg_key>n</arg_key>  x<arg_value>1</arg_value></tool_call>",
    "<tool_call>f" ARG("n", "one") ARG("s", "2") " <|user|> </tool_call>",
    "<tool_call>g<tool_call>f" ARG("n", " 1e400 ") "</tool_call></tool_call><think>r",
    "<<think></</think></arg_key><|us<|user|><tool_call>f</arg_value>\xf0\x9f\x98",
    "<tool_call>f" ARG("s", "1") ARG("s", "2") "</tool_call><tool_call></tool_call>",
    "<think>r<tool_call>f" ARG("s", "\xf0\x9f</arg_valu") "</think>t\xff\xc0\xaf</think>",
    "<arg_key><arg_value><think><think></think></think></tool_call></tool_call",
};
enum { N_NASTY_TWICE = 2 * sizeof nasty / sizeof nasty[0] };

static void test_every_pair_of_cuts_gives_the_same_events(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_NASTY_TWICE; i++) {
        const qn_str text = qn_str_of(nasty[i / 2]);
        const bool is_thinking = i % 2 != 0;
        parse_whole(text, is_thinking);
        for (size_t first = 0; first < text.len; first++) {
            for (size_t second = first; second < text.len; second++) {
                start(&g_cut, is_thinking);
                feed(text, 0, first);
                feed(text, first, second);
                feed(text, second, text.len);
                qn_chat_parser_end(g_parser);
                assert_string_equal(g_cut.text, g_whole.text);
            }
        }
        start(&g_cut, is_thinking);
        for (size_t at = 0; at < text.len; at++) {
            feed(text, at, at + 1);
        }
        qn_chat_parser_end(g_parser);
        assert_string_equal(g_cut.text, g_whole.text);
    }
}

/* Some of the parts in any order. */
static qn_str make_stream(char out[2048], const char *const *parts, size_t n_parts, uint64_t seed)
{
    qn_str stream = {.ptr = out};
    for (uint64_t i = 0; i < 40; i++) {
        const qn_str part = qn_str_of(parts[qn_rng_u64(seed, 0, i) % n_parts]);
        assert_true(stream.len + part.len < 2048);
        memcpy(out + stream.len, part.ptr, part.len);
        stream.len += part.len;
    }
    out[stream.len] = '\0';
    return stream;
}

/* Markers, words, white space, broken characters and beginnings of markers; a call as it should be
 * now and then, so that the places behind its markers are reached. */
static qn_str make_any_stream(char out[2048], uint64_t seed)
{
    static const char *const parts[] = {
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<|user|>",
        "<tool_call>f<arg_key>",
        "</arg_key><arg_value>",
        "</arg_value></tool_call>",
        "<arg_key>s</arg_key>",
        ARG("n", "5"),
        "f",
        "s",
        " ",
        "\n",
        "x",
        "12",
        "東",
        "\xe6\x9d",
        "\xb1",
        "\xff",
        "<",
        "</",
        "<arg_",
        ">",
    };
    return make_stream(out, parts, sizeof parts / sizeof *parts, seed);
}

static void test_random_streams_and_cuts_give_the_same_events(void **state)
{
    (void)state;
    size_t n_calls = 0;
    for (uint64_t seed = 0; seed < 5000; seed++) {
        char bytes[2048];
        const qn_str text = make_any_stream(bytes, seed);
        parse_whole(text, seed % 2 != 0);
        n_calls += strstr(g_whole.text, "]C[") != NULL ? 1 : 0;
        for (uint64_t way = 1; way <= 4; way++) {
            start(&g_cut, seed % 2 != 0);
            size_t at = 0;
            for (uint64_t i = 0; at < text.len; i++) {
                const size_t rest = text.len - at;
                const size_t n = 1 + qn_rng_u64(seed, way, i) % (3 * way);
                feed(text, at, at + (n < rest ? n : rest));
                at += n < rest ? n : rest;
            }
            qn_chat_parser_end(g_parser);
            assert_string_equal(g_cut.text, g_whole.text);
        }
    }
    assert_true(n_calls > 100); /* else the streams are too broken to show anything */
}

/* Tokens of the text, markers among them. */
static void parse_ids(qn_str text, qn_added_tokens added, bool is_thinking)
{
    qn_ids ids = {0};
    qn_error err = {0};
    assert_int_equal(qn_tokenizer_encode(g_nano, text, added, &ids, &err), QN_OK);
    start(&g_cut, is_thinking);
    for (size_t i = 0; i < ids.n_ids; i++) {
        qn_chat_parser_feed(g_parser, ids.ids[i]);
    }
    qn_chat_parser_end(g_parser);
    qn_ids_deinit(&ids);
}

static void test_ids_give_the_events_of_their_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_NASTY_TWICE; i++) {
        parse_whole(qn_str_of(nasty[i / 2]), i % 2 != 0);
        parse_ids(qn_str_of(nasty[i / 2]), QN_ADDED_MATCH, i % 2 != 0);
        assert_string_equal(g_cut.text, g_whole.text);
    }
    for (uint64_t seed = 0; seed < 3000; seed++) {
        char bytes[2048];
        const qn_str text = make_any_stream(bytes, seed);
        parse_whole(text, seed % 2 != 0);
        parse_ids(text, QN_ADDED_MATCH, seed % 2 != 0);
        assert_string_equal(g_cut.text, g_whole.text);
    }
}

static void test_tokens_that_spell_a_marker_are_text(void **state)
{
    (void)state;
    static const char text[] = "<think>a</think><tool_call>f" ARG("s", "1") "</tool_call><|user|>";
    parse_ids(qn_str_of(text), QN_ADDED_AS_TEXT, false);
    assert_int_equal(g_cut.n_warnings, 0);
    assert_int_equal(g_cut.text[0], 'T');
    assert_string_equal(g_cut.plain, text);
}

/* Streams without a whole call, a part's marker in its place, or a special token: all of it comes
 * out, in its order. */
static void test_nothing_of_what_is_malformed_is_lost(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "</think>",
        "<tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "f<arg_key>s</arg_key><arg_value>",
        "f",
        " \n",
        "東京",
        "\xf0\x9f\x98\x80",
        "<",
        "<arg_",
        "</tool_call",
        "<|use",
    };
    for (uint64_t seed = 0; seed < 3000; seed++) {
        char text[2048];
        parse_whole(make_stream(text, parts, sizeof parts / sizeof *parts, seed), false);
        assert_string_equal(g_whole.plain, text);
        assert_true(g_whole.n_warnings > 0);
        assert_null(strchr(g_whole.text, 'C'));
    }
}

static int set_up_all(void **state)
{
    event_log_init(&g_whole, LOG_BYTES);
    event_log_init(&g_cut, LOG_BYTES);
    const int is_failed = set_up(state);
    const qn_parser_options options = {.tools_json = tools_json,
                                       .tools_len = strlen(tools_json),
                                       .fn = log_event,
                                       .streams_calls = g_streams};
    return is_failed != 0 ? is_failed : qn_chat_parser_open(&g_parser, g_nano, &options, NULL);
}

static int tear_down_all(void **state)
{
    qn_chat_parser_close(&g_parser);
    event_log_deinit(&g_whole);
    event_log_deinit(&g_cut);
    return tear_down(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair_of_cuts_gives_the_same_events),
        cmocka_unit_test(test_random_streams_and_cuts_give_the_same_events),
        cmocka_unit_test(test_ids_give_the_events_of_their_text),
        cmocka_unit_test(test_tokens_that_spell_a_marker_are_text),
        cmocka_unit_test(test_nothing_of_what_is_malformed_is_lost),
    };
    const struct CMUnitTest streaming[] = {
        cmocka_unit_test(test_every_pair_of_cuts_gives_the_same_events),
        cmocka_unit_test(test_random_streams_and_cuts_give_the_same_events),
        cmocka_unit_test(test_ids_give_the_events_of_their_text),
        cmocka_unit_test(test_tokens_that_spell_a_marker_are_text),
    };
    const int n_failed = cmocka_run_group_tests(tests, set_up_all, tear_down_all);
    g_streams = true;
    return n_failed + cmocka_run_group_tests(streaming, set_up_all, tear_down_all);
}
