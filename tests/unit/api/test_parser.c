/* SPDX-License-Identifier: Apache-2.0 */
/* quern.h's parser of answers. */
#include "fixture.h"
#include "support/event_log.h"

static qn_model *g_nano;
static event_log g_log;

static int open_all(void **state)
{
    (void)state;
    const qn_model_options options = {.tokenizer_only = true};
    qn_error err = {0};
    event_log_init(&g_log, 4096);
    return qn_model_open(&g_nano, NANO, &options, &err);
}

static int close_all(void **state)
{
    (void)state;
    qn_model_close(&g_nano);
    event_log_deinit(&g_log);
    return 0;
}

static void test_parser_sorts_the_ids_of_an_answer(void **state)
{
    (void)state;
    static const char prompt[] = "<|assistant|><think>";
    static const char answer[] = "Let me see.</think>It is 5.<tool_call>f<arg_key>n</arg_key>"
                                 "<arg_value>5</arg_value></tool_call><|observation|>";
    static const char own_tools[] = "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"n\": "
                                    "{\"type\": \"string\"}}}}]";
    int32_t *prompt_ids = NULL;
    int32_t *ids = NULL;
    size_t n_prompt = 0;
    size_t n_ids = 0;
    qn_parser *parser = NULL;
    qn_error err = {0};
    event_log_clear(&g_log);
    assert_int_equal(
        qn_encode(&prompt_ids, &n_prompt, g_nano, prompt, strlen(prompt), QN_CONTROL_MATCH, &err),
        QN_OK);
    assert_int_equal(
        qn_encode(&ids, &n_ids, g_nano, answer, strlen(answer), QN_CONTROL_MATCH, &err), QN_OK);
    const qn_parser_options options = {.prompt = prompt_ids,
                                       .n_prompt = n_prompt,
                                       .tools_json = own_tools,
                                       .tools_len = strlen(own_tools),
                                       .fn = event_log_add,
                                       .context = &g_log};
    assert_int_equal(qn_parser_open(&parser, g_nano, &options, &err), QN_OK);
    for (size_t i = 0; i < n_ids; i++) {
        assert_int_equal(qn_parser_feed(parser, ids[i], &err), QN_OK);
    }
    assert_int_equal(qn_parser_feed(parser, 6144, &err), QN_E_INVAL);
    assert_string_equal(err.text, "id 6144: 0 to 6143 expected");
    assert_int_equal(qn_parser_feed(parser, -1, &err), QN_E_INVAL);
    qn_parser_feed_text(parser, "<tool_c", 7);
    assert_string_equal(g_log.text, "R[Let me see.]T[It is 5.]C[f{\"n\": \"5\"}]");
    qn_parser_end(parser);
    assert_string_equal(g_log.text, "R[Let me see.]T[It is 5.]C[f{\"n\": \"5\"}]T[<tool_c]");
    assert_true(qn_parser_reasoning_tokens(parser) >= 4);
    assert_true(qn_parser_reasoning_tokens(parser) < n_ids - 10);
    qn_parser_close(&parser);
    assert_null(parser);
    qn_parser_close(&parser);
    qn_parser_close(NULL);
    qn_free(prompt_ids);
    qn_free(ids);
}

static void test_parser_options_that_are_wrong_are_named(void **state)
{
    (void)state;
    qn_parser *parser = (qn_parser *)(uintptr_t)1;
    qn_error err = {0};
    qn_parser_options options = {0};
    assert_int_equal(qn_parser_open(&parser, g_nano, &options, &err), QN_E_INVAL);
    assert_null(parser);
    options = (qn_parser_options){.fn = event_log_add, .tools_json = "[5]", .tools_len = 3};
    assert_int_equal(qn_parser_open(&parser, g_nano, &options, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "tools[0]"));
    assert_null(parser);
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parser_sorts_the_ids_of_an_answer),
        cmocka_unit_test(test_parser_options_that_are_wrong_are_named),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
