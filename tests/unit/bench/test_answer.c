/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/answer.h"
#include "support/fail_each.h"

#include <math.h>

#define TEXT(text)     "data: {\"choices\":[{\"text\":\"" text "\",\"finish_reason\":null}]}\n\n"
#define FINISH         "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n"
#define USAGE(members) "data: {\"choices\":[],\"usage\":{" members "}}\n\n"
#define RIGHT          "\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11"
#define DONE           "data: [DONE]\n\n"
#define DELTA(members) "data: {\"choices\":[{\"delta\":{" members "},\"finish_reason\":null}]}\n\n"
#define CHAT_FINISH    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n"

/* An answer and how its transfer goes. */
typedef struct answer_case {
    bench_api api;
    int status; /* of HTTP */
    bench_end how;
    uint32_t n_output; /* asked for; 0: 2 */
    bool is_exact;
} answer_case;

/* Read @p body in pieces of at most @p n_piece bytes, the first one of @p n_first. */
static qn_status read_pieces(bench_record *record, const answer_case *c, qn_str body,
                             size_t n_first, size_t n_piece, qn_error *err)
{
    bench_answer answer = {0};
    qn_status status = QN_OK;
    *record = (bench_record){.call = {.n_output = c->n_output > 0 ? c->n_output : 2,
                                      .is_exact = c->is_exact,
                                      .keeps_text = true}};
    bench_answer_begin(&answer, c->api, record);
    double at_s = 0;
    while (body.len > 0 && status == QN_OK) {
        const size_t n_most = at_s > 0 ? n_piece : n_first;
        const size_t n = n_most < body.len ? n_most : body.len;
        char *const exact = malloc(n); /* so that an overread shows */
        if (exact == NULL) {
            status = qn_fail(err, QN_E_NOMEM, 0, __func__, "no memory");
            break;
        }
        memcpy(exact, body.ptr, n);
        status = bench_answer_feed(&answer, c->status, exact, n, at_s += 1, err);
        free(exact);
        body = (qn_str){body.ptr + n, body.len - n};
    }
    if (status >= 0) {
        status = bench_answer_end(&answer, c->how, c->status, "as told", at_s + 1, err);
    }
    bench_answer_deinit(&answer);
    return status;
}

static void forget(bench_record *record)
{
    free(record->chunk_s);
    free(record->text);
    *record = (bench_record){0};
}

/* In pieces it is the same as in one. */
static void check_cut(const answer_case *c, const char *body, const bench_record *whole,
                      size_t n_first, size_t n_piece)
{
    bench_record cut;
    assert_int_equal(read_pieces(&cut, c, qn_str_of(body), n_first, n_piece, NULL), QN_OK);
    if (cut.end != whole->end || strcmp(cut.message, whole->message) != 0) {
        fail_msg("%s, cut at %zu: %s (%s), in one piece %s (%s)", body, n_first,
                 bench_end_name(cut.end), cut.message, bench_end_name(whole->end), whole->message);
    }
    assert_int_equal(cut.n_chunks, whole->n_chunks);
    assert_int_equal(cut.n_output, whole->n_output);
    assert_string_equal(cut.finish, whole->finish);
    assert_string_equal(cut.text != NULL ? cut.text : "", whole->text != NULL ? whole->text : "");
    forget(&cut);
}

/* What is read of a body: the same in any two pieces, and byte by byte. */
static bench_record read_body(const answer_case *c, const char *body)
{
    const size_t len = strlen(body);
    bench_record whole;
    qn_error err = {0};
    if (read_pieces(&whole, c, qn_str_of(body), SIZE_MAX, SIZE_MAX, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    for (size_t n_first = 1; n_first <= len; n_first++) {
        check_cut(c, body, &whole, n_first, SIZE_MAX);
    }
    if (len > 0) {
        check_cut(c, body, &whole, 1, 1);
    }
    return whole;
}

static void check_body(const answer_case *c, const char *body, bench_end end, const char *words)
{
    bench_record record = read_body(c, body);
    if (record.end != end || strstr(record.message, words) == NULL) {
        fail_msg("%s: %s, '%s', expected %s, '%s'", body, bench_end_name(record.end),
                 record.message, bench_end_name(end), words);
    }
    forget(&record);
}

static const answer_case completion = {.api = BENCH_COMPLETIONS, .status = 200};
static const answer_case chat = {.api = BENCH_CHAT, .status = 200};

static void test_lines_end_in_any_way(void **state)
{
    (void)state;
    const char *const bodies[] = {
        TEXT("a") TEXT("b") FINISH USAGE(RIGHT) DONE,
        /* CR LF, and CR alone */
        "data: {\"choices\":[{\"text\":\"a\"}]}\r\n\r\ndata:{\"choices\":[{\"text\":\"b\","
        "\"finish_reason\":\"length\"}]}\r\rdata: {\"choices\":[],\"usage\":{" RIGHT
        "}}\r\n\r\n" DONE,
        /* an end in two bytes between lines of one event */
        "data: {\"choices\":\r\ndata: [{\"text\":\"a\"}]}\r\n\r\n" TEXT("b") FINISH USAGE(RIGHT),
        /* a byte order mark, comments, names, fields that nobody knows, data in several lines */
        "\xef\xbb\xbf: hello\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\nid: 7\nretry: 5\nodd\n"
        "data: {\"choices\":\ndata:[{\"text\":\ndata: \"a\"}]}\n\n:\n\n" TEXT("b") FINISH
        "data:\n\n"
        "event: message\n" USAGE(RIGHT) DONE "data: what follows is not read\n\n",
        /* without the last empty line */
        TEXT("a") TEXT("b") FINISH USAGE(RIGHT) "data: [DONE]",
        /* without [DONE]: whole by finish reason and usage */
        TEXT("a") TEXT("b") FINISH USAGE(RIGHT),
        TEXT("a") TEXT("b") FINISH USAGE(RIGHT) "data: {\"cho",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        bench_record record = read_body(&completion, bodies[i]);
        assert_string_equal(record.message, "");
        assert_int_equal(record.end, BENCH_DONE);
        assert_int_equal(record.n_chunks, 2);
        assert_string_equal(record.text, "ab");
        assert_string_equal(record.finish, "length");
        assert_true(record.has_usage && !record.has_cached);
        assert_int_equal(record.n_prompt, 9);
        assert_int_equal(record.n_output, 2);
        forget(&record);
    }
}

static void test_chat_is_read(void **state)
{
    (void)state;
    const answer_case c = {.api = BENCH_CHAT, .status = 200, .n_output = 100};
    bench_record record = read_body(
        &c,
        DELTA("\"role\":\"assistant\",\"content\":\"\"") DELTA("\"reasoning_content\":\"th\"")
            DELTA("\"reasoning\":\"ink\",\"reasoning_content\":null")
                DELTA("\"reasoning\":\"s\",\"reasoning_content\":\"s\"")
                    DELTA("\"content\":\"t\\u00e9xt\"") DELTA(
                        "\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":"
                        "\"\"}}]") DELTA("\"tool_calls\":[{\"index\":0,\"function\":{"
                                         "\"arguments\":\"{}\"}}]")
                        CHAT_FINISH USAGE("\"prompt_tokens\":50,\"completion_tokens\":20,"
                                          "\"prompt_tokens_details\":{\"cached_tokens\":40},"
                                          "\"completion_tokens_details\":{\"reasoning_tokens\":3}")
                            DONE);
    assert_int_equal(record.end, BENCH_DONE);
    assert_int_equal(record.n_chunks, 6);
    assert_string_equal(record.text, "thinkst\xc3\xa9xtf{}");
    assert_string_equal(record.finish, "tool_calls");
    assert_true(record.has_cached);
    assert_int_equal(record.n_cached, 40);
    assert_int_equal(record.n_reasoning, 3);
    forget(&record);
    check_body(&chat, DELTA("\"role\":\"assistant\"") CHAT_FINISH DONE, BENCH_EMPTY, "no token");
    check_body(&chat, "data: {\"choices\":[{\"delta\":null}]}\n\n" CHAT_FINISH DONE, BENCH_EMPTY,
               "");
}

static void test_times_are_of_the_bytes(void **state)
{
    (void)state;
    const qn_str body = qn_str_of(TEXT("") TEXT("a") TEXT("") TEXT("b") FINISH DONE);
    const size_t n = strlen(TEXT("a"));
    bench_record record;
    assert_int_equal(read_pieces(&record, &completion, body, n - 1, 1, NULL), QN_OK);
    /* The byte that ends an event brings it; the first piece, at 1, is all of an event. */
    assert_true(record.first_s == 1 + (double)n);
    assert_true(record.last_s > record.first_s && record.end_s > record.last_s);
    assert_true(record.chunk_s[1] == record.last_s);
    forget(&record);
    assert_int_equal(read_pieces(&record, &completion, qn_str_of(""), 1, 1, NULL), QN_OK);
    assert_true(isnan(record.first_s) && isnan(record.last_s) && record.end_s == 1);
    forget(&record);
}

/* Models of random weights write any token; others read on too. */
static void test_escapes_of_no_character_are_text(void **state)
{
    (void)state;
    static const struct {
        const char *body, *text;
    } cases[] = {
        {TEXT("a\\u0000b") FINISH USAGE(RIGHT) DONE, "a\xef\xbf\xbd"
                                                     "b"},
        {TEXT("\\ud800") FINISH USAGE(RIGHT) DONE, "\xef\xbf\xbd"},
        {TEXT("\\uDC00\\\\u0000") FINISH USAGE(RIGHT) DONE, "\xef\xbf\xbd\\u0000"},
        {TEXT("\\ud83d\\ude00\\u0000") FINISH USAGE(RIGHT) DONE, "\xf0\x9f\x98\x80\xef\xbf\xbd"},
        {TEXT("\\ud800\\ud83d\\ude00") FINISH USAGE(RIGHT) "data: [DONE] \n\n",
         "\xef\xbf\xbd\xf0\x9f\x98\x80"},
    };
    const answer_case c = {.status = 200};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench_record record;
        const qn_str body = qn_str_of(cases[i].body);
        assert_int_equal(read_pieces(&record, &c, body, body.len, body.len, NULL), QN_OK);
        assert_int_equal(record.end, BENCH_DONE);
        assert_string_equal(record.text, cases[i].text);
        forget(&record);
    }
}

static void test_whole_json_is_one_chunk(void **state)
{
    (void)state;
    bench_record record = read_body(&chat, " {\"choices\":[{\"message\":{\"content\":\"hello\"},"
                                           "\"finish_reason\":\"stop\"}],\"usage\":{" RIGHT "}}\n");
    assert_int_equal(record.end, BENCH_DONE);
    assert_int_equal(record.n_chunks, 1);
    assert_string_equal(record.text, "hello");
    assert_int_equal(record.n_output, 2);
    forget(&record);
    check_body(&chat, "{\"choices\":[", BENCH_MALFORMED, "event 1: data");
    check_body(&chat, "{\"error\":\"no room\"}", BENCH_FAILED, "no room");
    check_body(&chat, "{\"object\":\"error\",\"message\":\"too long\"}", BENCH_FAILED, "too long");
    check_body(&chat, "{}", BENCH_MALFORMED, "choices: nothing, a list expected");
}

static void test_faults_of_events_have_names(void **state)
{
    (void)state;
    check_body(&completion, TEXT("a") "data: {\"error\":{\"message\":\"no pages\",\"code\":5}}\n\n",
               BENCH_FAILED, "no pages");
    check_body(&completion, "event: error\ndata: lost\n\n", BENCH_FAILED, "lost");
    check_body(&completion, "event: error\ndata: {\"message\":\"gone\"}\n\n" DONE, BENCH_FAILED,
               "gone");
    check_body(&completion, TEXT("a") "data: {\"error\":7}\n\n", BENCH_FAILED, "{\"error\":7}");
    check_body(&completion, TEXT("a") "data: {\"choices\"\n\n" DONE, BENCH_MALFORMED,
               "event 2: data");
    check_body(&completion, "data: {\"choices\":[{\"text\":\"\xff\"}]}\n\n", BENCH_MALFORMED,
               "event 1");
    check_body(&completion, "data: [1]\n\n", BENCH_MALFORMED, "data: a list, an object expected");
    check_body(&completion, "data: {\"text\":\"a\"}\n\n", BENCH_MALFORMED, "choices: nothing");
    check_body(&completion, "data: {\"choices\":{}}\n\n", BENCH_MALFORMED, "choices: an object");
    check_body(&completion, "data: {\"choices\":[{}]}\n\n", BENCH_MALFORMED, "text: nothing");
    check_body(&completion, "data: {\"choices\":[7]}\n\n", BENCH_MALFORMED, "text: nothing");
    check_body(&completion, "data: {\"choices\":[{\"text\":7}]}\n\n", BENCH_MALFORMED, "text: 7");
    check_body(&completion, "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":1}]}\n\n",
               BENCH_MALFORMED, "finish_reason: 1");
    check_body(&chat, TEXT("a"), BENCH_MALFORMED, "delta: nothing, an object expected");
    check_body(&chat, DELTA("\"content\":[]"), BENCH_MALFORMED, "content: a list");
    check_body(&chat, DELTA("\"tool_calls\":{}"), BENCH_MALFORMED, "tool_calls: an object");
    check_body(&completion, "<html>busy</html>", BENCH_MALFORMED, "'<html>busy</html>'");
}

static void test_what_is_not_whole_is_cut_off(void **state)
{
    (void)state;
    check_body(&completion, "", BENCH_CUT, "no finish_reason came in 0 events");
    check_body(&completion, ": ping\n\n", BENCH_CUT, "no finish_reason");
    check_body(&completion, TEXT("a"), BENCH_CUT, "in 1 events");
    check_body(&completion, TEXT("a") DONE, BENCH_CUT, "before [DONE]");
    check_body(&completion, TEXT("a") "data: {\"choices\":[{\"te", BENCH_CUT, "no finish_reason");
    check_body(&completion, TEXT("a") FINISH, BENCH_CUT, "neither usage nor [DONE]");
    check_body(&completion, TEXT("a") USAGE(RIGHT), BENCH_CUT, "no finish_reason");
    check_body(&completion, DONE, BENCH_EMPTY, "no token");
    check_body(&completion, FINISH USAGE(RIGHT) DONE, BENCH_EMPTY, "finish_reason length");
    check_body(&completion, TEXT("a") FINISH DONE, BENCH_DONE, ""); /* no usage is no fault */
}

static void test_usage_may_not_contradict(void **state)
{
    (void)state;
    static const struct {
        const char *usage, *words;
    } cases[] = {
        {USAGE("\"prompt_tokens\":9,\"completion_tokens\":0"), "completion_tokens: 0, and text"},
        {USAGE("\"prompt_tokens\":9,\"completion_tokens\":3"), "3, at most 2"},
        {USAGE("\"prompt_tokens\":9,\"completion_tokens\":1"), "1 with finish_reason length, 2"},
        {USAGE("\"prompt_tokens\":-9,\"completion_tokens\":2"), "prompt_tokens: -9"},
        {USAGE("\"prompt_tokens\":9,\"completion_tokens\":1.5"), "completion_tokens: 1.5"},
        {USAGE("\"prompt_tokens\":9,\"completion_tokens\":\"2\""), "completion_tokens: \"2\""},
        {USAGE("\"prompt_tokens\":9,\"completion_tokens\":99999999999999999999"),
         "completion_tokens: 9"},
        {USAGE("\"prompt_tokens\":9"), "completion_tokens: nothing"},
        {USAGE("\"completion_tokens\":2"), "prompt_tokens: nothing"},
        {USAGE("\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":12"),
         "total_tokens: 12"},
        {USAGE(RIGHT ",\"prompt_tokens_details\":{\"cached_tokens\":10}"), "cached_tokens: 10"},
        {USAGE(RIGHT ",\"prompt_tokens_details\":{\"cached_tokens\":-1}"), "cached_tokens: -1"},
        {USAGE(RIGHT ",\"completion_tokens_details\":{\"reasoning_tokens\":3}"),
         "reasoning_tokens: 3"},
        {"data: {\"choices\":[],\"usage\":[]}\n\n", "usage: no object"},
    };
    const answer_case c = {.api = BENCH_COMPLETIONS, .status = 200, .is_exact = true};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        (void)snprintf(body, sizeof body, "%s%s%s", TEXT("a") FINISH, cases[i].usage, DONE);
        check_body(&c, body, BENCH_USAGE, cases[i].words);
        /* the last one counts */
        (void)snprintf(body, sizeof body, "%s%s%s%s", TEXT("a") FINISH, cases[i].usage,
                       USAGE(RIGHT), DONE);
        check_body(&c, body, BENCH_DONE, "");
    }
    /* nothing is told: no fault */
    check_body(&c, TEXT("a") FINISH "data: {\"choices\":[],\"usage\":null}\n\n" DONE, BENCH_DONE,
               "");
    check_body(&c, TEXT("a") FINISH USAGE(RIGHT ",\"prompt_tokens_details\":null") DONE, BENCH_DONE,
               "");
    /* fewer than asked for, and the model said that it was done */
    check_body(&c,
               "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\n" USAGE(
                   "\"prompt_tokens\":9,\"completion_tokens\":1") DONE,
               BENCH_DONE, "");
}

static void test_llama_cpp_tells_cached_tokens_in_timings(void **state)
{
    (void)state;
    bench_record record = read_body(&completion, TEXT("a") FINISH
                                    "data: {\"choices\":[],\"usage\":{" RIGHT
                                    "},\"timings\":{\"cache_n\":7,\"prompt_n\":2}}\n\n" DONE);
    assert_int_equal(record.end, BENCH_DONE);
    assert_true(record.has_cached);
    assert_int_equal(record.n_cached, 7);
    forget(&record);
}

static void test_one_end_each_by_its_order(void **state)
{
    (void)state;
    const char whole[] = TEXT("a") FINISH USAGE(RIGHT) DONE;
    const char *const cut = TEXT("a");
    const bench_end hows[] = {BENCH_CONNECT, BENCH_TIMEOUT, BENCH_CUT, BENCH_MALFORMED};
    for (size_t i = 0; i < 4; i++) {
        answer_case c = {.status = 200, .how = hows[i]};
        check_body(&c, cut, hows[i], "as told");
        check_body(&c, whole, BENCH_DONE, ""); /* [DONE] had come */
        check_body(&c, TEXT("a") FINISH USAGE(RIGHT), hows[i], "as told");
        check_body(&c, "data: {\n\n", BENCH_MALFORMED, "event 1");
        c.status = 503;
        check_body(&c, "", BENCH_SERVER, "status 503");
        check_body(&c, "bang", BENCH_SERVER, "status 503: bang");
        check_body(&c, "data: {\n\n", BENCH_SERVER, "status 503: data: {??");
        c.status = 429;
        check_body(&c, "{\"detail\":\"slow\"}", BENCH_RATE_LIMITED, "status 429: slow");
        c.status = 404;
        check_body(&c, "{\"message\":\"no\"}", BENCH_REFUSED, "status 404: no");
        c.status = 204;
        check_body(&c, "", BENCH_OTHER, "status 204");
    }
    const answer_case c = {.status = 200, .how = BENCH_CANCELLED};
    check_body(&c, cut, BENCH_CANCELLED, "");
    check_body(&c, "data: {\n\n", BENCH_CANCELLED, "");
}

static void test_names_are_all_different(void **state)
{
    (void)state;
    for (int i = 0; i < BENCH_N_ENDS; i++) {
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(bench_end_name((bench_end)i), bench_end_name((bench_end)j));
        }
    }
}

/* Feed @p line, once or again and again, then 'a's where it is once: it is malformed at some
 * length. */
static void check_endless(const char *line, bool repeats, uint64_t n_most)
{
    enum { N_PIECE = 1 << 20 };
    static char piece[N_PIECE];
    bench_record record = {0};
    bench_answer answer = {0};
    bench_answer_begin(&answer, BENCH_CHAT, &record);
    const size_t n_line = strlen(line);
    const size_t n = N_PIECE / n_line * n_line;
    for (size_t at = 0; at < n; at++) {
        piece[at] = line[at % n_line];
    }
    uint64_t n_fed = 0;
    qn_status status = QN_OK;
    while (status == QN_OK && n_fed < n_most) {
        status = bench_answer_feed(&answer, 200, piece, n, 0, NULL);
        n_fed += n;
        if (!repeats) {
            memset(piece, 'a', n);
        }
    }
    assert_int_equal(status, QN_AGAIN);
    assert_int_equal(bench_answer_end(&answer, BENCH_CUT, 200, "", 0, NULL), QN_OK);
    assert_int_equal(record.end, BENCH_MALFORMED);
    assert_non_null(strstr(record.message, "longer than"));
    bench_answer_deinit(&answer);
}

/* A line, an event, a text, an answer without end. */
static void test_sizes_are_bounded(void **state)
{
    (void)state;
    check_endless("data: a", false, 18 << 20);
    check_endless("data: aaaaaaaa\n", true, 36 << 20);
    check_endless("{aaa", false, 18 << 20);
    check_endless(": aaaa\n\n", true, 258 << 20);
}

static qn_status read_once(qn_error *err)
{
    bench_record record;
    const answer_case c = {.api = BENCH_COMPLETIONS, .status = 200};
    qn_status status = read_pieces(
        &record, &c, qn_str_of(TEXT("a") TEXT("b") FINISH USAGE(RIGHT) DONE), 7, 7, err);
    assert_true(status != QN_OK || record.end == BENCH_DONE);
    forget(&record);
    if (status == QN_OK) {
        const answer_case refused = {.api = BENCH_CHAT, .status = 500};
        status = read_pieces(&record, &refused, qn_str_of("{\"error\":\"x\"}"), 7, 7, err);
        forget(&record);
    }
    if (status == QN_OK) {
        status = read_pieces(&record, &c, qn_str_of("data: {\"error\":\"x\"}\n\n"), 7, 7, err);
        forget(&record);
    }
    return status;
}

static void test_each_allocation_may_fail(void **state)
{
    (void)state;
    fail_each(read_once, 1, 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_end_in_any_way),
        cmocka_unit_test(test_chat_is_read),
        cmocka_unit_test(test_times_are_of_the_bytes),
        cmocka_unit_test(test_escapes_of_no_character_are_text),
        cmocka_unit_test(test_whole_json_is_one_chunk),
        cmocka_unit_test(test_faults_of_events_have_names),
        cmocka_unit_test(test_what_is_not_whole_is_cut_off),
        cmocka_unit_test(test_usage_may_not_contradict),
        cmocka_unit_test(test_llama_cpp_tells_cached_tokens_in_timings),
        cmocka_unit_test(test_one_end_each_by_its_order),
        cmocka_unit_test(test_names_are_all_different),
        cmocka_unit_test(test_sizes_are_bounded),
        cmocka_unit_test(test_each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
