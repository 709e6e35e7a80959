/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of an answer, in pieces and alone, of sessions and of engines. */
#include "api/answer.h"
#include "crowd.h"

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};

static qn_model *g_model;
static int32_t *g_ids; /* of tool_prompt */
static size_t g_n_ids;
static transcript g_plain; /* its answer */
static crowd g_crowd;

static qn_request ask(void)
{
    return (qn_request){.ids = g_ids,
                        .n_ids = g_n_ids,
                        .sampling = &greedy,
                        .tools_json = tools,
                        .tools_len = strlen(tools)};
}

static int open_model(void **state)
{
    (void)state;
    qn_error err = {0};
    if (qn_model_open(&g_model, NANO, NULL, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    g_n_ids = encode(&g_ids, g_model, tool_prompt);
    const qn_request request = ask();
    answer_alone(&g_plain, g_model, &request);
    assert_int_equal(g_plain.said.finish, QN_FINISH_TOOL_CALLS);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    qn_free(g_ids);
    qn_model_close(&g_model);
    return 0;
}

/* The answer of a session, and that an engine gives the same. */
static const said *answer_twice(const qn_request *request)
{
    static transcript alone;
    answer_alone(&alone, g_model, request);
    qn_engine *engine = open_engine(g_model, &(qn_engine_options){.context_tokens = 1024});
    crowd_clear(&g_crowd);
    crowd_submit(&g_crowd, engine, request);
    crowd_finish(&g_crowd, engine);
    qn_engine_close(&engine);
    assert_string_equal(g_crowd.said[0].said.calls, alone.said.calls);
    assert_string_equal(g_crowd.said[0].said.pieces, alone.said.pieces);
    assert_string_equal(g_crowd.said[0].said.text, alone.said.text);
    assert_int_equal(g_crowd.said[0].said.n_ids, alone.said.n_ids);
    assert_int_equal(g_crowd.said[0].said.finish, alone.said.finish);
    return &alone.said;
}

/* The one call's arguments are the pieces. */
static void assert_pieces_are_the_call(const said *got)
{
    static char expected[SAID_BYTES];
    (void)snprintf(expected, sizeof expected, "get_weather(%.1000s);", got->pieces);
    assert_string_equal(got->calls, expected);
}

static void test_pieces_of_a_call_are_its_arguments(void **state)
{
    (void)state;
    qn_request request = ask();
    request.streams_calls = true;
    const said *const got = answer_twice(&request);
    assert_pieces_are_the_call(got);
    assert_string_equal(got->calls, g_plain.said.calls);
    assert_int_equal(got->finish, QN_FINISH_TOOL_CALLS);
    assert_true(strchr(got->kinds, 'b') < strchr(got->kinds, 'd'));
    assert_true(strchr(got->kinds, 'd') < strchr(got->kinds, 'c'));
}

/* Wherever max_tokens cuts it, what has begun ends, and the reason is the length. */
static void test_an_answer_cut_within_a_call_ends_by_length(void **state)
{
    (void)state;
    size_t n_mended = 0;
    for (uint32_t n = 1; n < g_plain.said.n_ids; n++) {
        qn_request request = ask();
        request.streams_calls = true;
        request.max_tokens = n;
        const said *const got = answer_twice(&request);
        assert_int_equal(got->finish, QN_FINISH_LENGTH);
        const bool has_begun = strchr(got->kinds, 'b') != NULL;
        assert_int_equal(has_begun, strchr(got->kinds, 'c') != NULL);
        if (has_begun) {
            assert_pieces_are_the_call(got);
            n_mended += strcmp(got->calls, g_plain.said.calls) != 0 ? 1 : 0;
        }
    }
    assert_true(n_mended > 1);
}

/* A stop id within a call: it is mended, and calls are why the answer ended. */
static void test_a_stop_id_within_a_call_ends_with_the_call(void **state)
{
    (void)state;
    qn_request request = ask();
    int32_t *value = NULL;
    assert_true(encode(&value, g_model, "</arg_value>") == 1);
    request.stop_ids = value;
    request.n_stop_ids = 1;
    const said *got = answer_twice(&request);
    assert_int_equal(got->finish, QN_FINISH_STOP);
    assert_string_equal(got->calls, "");
    request.streams_calls = true;
    got = answer_twice(&request);
    assert_int_equal(got->finish, QN_FINISH_TOOL_CALLS);
    assert_string_equal(got->calls, g_plain.said.calls);
    assert_pieces_are_the_call(got);
    qn_free(value);
}

static void test_a_single_call_ends_the_answer(void **state)
{
    (void)state;
    qn_request request = ask();
    request.ignore_eos = true; /* it would go on */
    request.single_call = true;
    request.max_tokens = g_plain.said.n_ids + 20;
    for (int k = 0; k < 4; k++) {
        request.streams_calls = k % 2 != 0;
        request.draft_tokens = k / 2 == 0 ? QN_DRAFT_NONE : 8;
        const said *const got = answer_twice(&request);
        assert_string_equal(got->calls, g_plain.said.calls);
        assert_int_equal(got->finish, QN_FINISH_TOOL_CALLS);
        assert_int_equal(got->n_ids, g_plain.said.n_ids - 1); /* without the stop token */
        assert_true(strstr(got->kinds, "ce") != NULL);        /* the call, then END */
    }
    request.max_tokens = g_plain.said.n_ids - 1; /* ends with the last that may come */
    assert_int_equal(answer_twice(&request)->finish, QN_FINISH_TOOL_CALLS);
    request.max_tokens = g_plain.said.n_ids - 2;
    assert_int_equal(answer_twice(&request)->finish, QN_FINISH_LENGTH);
}

/* By hand: what comes behind the first call, in the same step or mended, is not told. */
static void test_nothing_is_told_behind_a_single_call(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "</think>a<tool_call>f</tool_call>b<tool_call>g</tool_call>",
        "</think>a<tool_call>f<arg_key>s</arg_key> b",
    };
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
        static qn_answer answer;
        static said all;
        int32_t *ids = NULL;
        const size_t n_ids = encode(&ids, g_model, texts[k]);
        qn_error err = {0};
        qn_request request = ask();
        request.single_call = request.streams_calls = true;
        request.tools_json = NULL;
        request.tools_len = 0;
        memset(&answer, 0, sizeof answer);
        memset(&all, 0, sizeof all);
        qn_answer_init(&answer, NULL, said_event, &all);
        assert_int_equal(qn_answer_begin(&answer, g_model, &request, &err), QN_OK);
        bool goes_on = true;
        for (size_t i = 0; i < n_ids; i++) {
            assert_true(goes_on || k == 0);
            goes_on = qn_answer_feed(&answer, ids[i], true);
        }
        assert_false(goes_on);
        qn_answer_flush(&answer);
        assert_string_equal(all.text, "a");
        assert_string_equal(all.calls, "f({});");
        assert_int_equal(qn_answer_stop_reason(&answer), QN_FINISH_TOOL_CALLS);
        qn_answer_deinit(&answer);
        qn_free(ids);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_of_a_call_are_its_arguments),
        cmocka_unit_test(test_an_answer_cut_within_a_call_ends_by_length),
        cmocka_unit_test(test_a_stop_id_within_a_call_ends_with_the_call),
        cmocka_unit_test(test_a_single_call_ends_the_answer),
        cmocka_unit_test(test_nothing_is_told_behind_a_single_call),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
