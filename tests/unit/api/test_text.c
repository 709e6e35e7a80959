/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

static qn_model *g_nano; /* with its tokenizer, without weights */
static qn_model *g_bare; /* dummy weights without a tokenizer */

static int open_models(void **state)
{
    (void)state;
    const qn_model_options options = {.tokenizer_only = true};
    qn_error err = {0};
    g_bare = open_tiny(1);
    return qn_model_open(&g_nano, NANO, &options, &err);
}

static int close_models(void **state)
{
    (void)state;
    qn_model_close(&g_nano);
    qn_model_close(&g_bare);
    return 0;
}

static void test_text_encode_and_decode_are_inverse(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "Hello, the number is 1234.",
        "  spaces\tand\n\nlines ",
        "Gr\xc3\xbc\xc3\x9f Gott, \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80",
        "<|user|> is text",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        char *text = NULL;
        size_t len = 0;
        qn_error err = {0};
        assert_int_equal(
            qn_encode(&ids, &n_ids, g_nano, texts[i], strlen(texts[i]), QN_CONTROL_AS_TEXT, &err),
            QN_OK);
        assert_true(n_ids > 1);
        assert_int_equal(qn_decode(&text, &len, g_nano, ids, n_ids, &err), QN_OK);
        assert_string_equal(text, texts[i]);
        assert_int_equal(len, strlen(texts[i]));
        qn_free(text);
        qn_free(ids);
    }
}

static void test_text_control_tokens_match_only_where_asked(void **state)
{
    (void)state;
    static const char text[] = "<|user|>";
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    assert_int_equal(qn_encode(&ids, &n_ids, g_nano, text, strlen(text), QN_CONTROL_AS_TEXT, &err),
                     QN_OK);
    assert_true(n_ids > 1);
    qn_free(ids);
    assert_int_equal(qn_encode(&ids, &n_ids, g_nano, text, strlen(text), QN_CONTROL_MATCH, &err),
                     QN_OK);
    assert_int_equal(n_ids, 1);
    assert_true(qn_model_is_stop(g_nano, ids[0]));
    char *back = NULL;
    size_t len = 0;
    assert_int_equal(qn_decode(&back, &len, g_nano, ids, n_ids, &err), QN_OK);
    assert_string_equal(back, text);
    qn_free(back);
    qn_free(ids);
}

static void test_text_nothing_is_no_ids_and_no_text(void **state)
{
    (void)state;
    int32_t *ids = (int32_t *)(uintptr_t)4;
    size_t n_ids = 9;
    char *text = NULL;
    size_t len = 9;
    qn_error err = {0};
    assert_int_equal(qn_encode(&ids, &n_ids, g_nano, "", 0, QN_CONTROL_MATCH, &err), QN_OK);
    assert_null(ids);
    assert_int_equal(n_ids, 0);
    assert_int_equal(qn_decode(&text, &len, g_nano, NULL, 0, &err), QN_OK);
    assert_string_equal(text, "");
    assert_int_equal(len, 0);
    qn_free(text);
    qn_free(NULL);
}

static void test_text_half_a_character_decodes_to_the_replacement(void **state)
{
    (void)state;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    /* A rare character is spelled byte by byte: its first token alone is half of it. */
    assert_int_equal(
        qn_encode(&ids, &n_ids, g_nano, "\xf0\x93\x80\x80", 4, QN_CONTROL_AS_TEXT, &err), QN_OK);
    assert_true(n_ids > 1);
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(qn_decode(&text, &len, g_nano, ids, 1, &err), QN_OK);
    assert_string_equal(text, "\xef\xbf\xbd");
    qn_free(text);
    qn_free(ids);
}

static void test_text_ids_out_of_range_are_refused(void **state)
{
    (void)state;
    static const int32_t bad[] = {-1, 6144, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const int32_t ids[] = {5, bad[i]};
        char *text = NULL;
        size_t len = 0;
        qn_error err = {0};
        assert_int_equal(qn_decode(&text, &len, g_nano, ids, 2, &err), QN_E_INVAL);
        assert_null(text);
        assert_non_null(strstr(err.text, "0 to 6143"));
    }
}

static void test_text_without_a_tokenizer_ids_print_as_numbers(void **state)
{
    (void)state;
    const int32_t ids[] = {0, 96};
    char *text = NULL;
    int32_t *encoded = NULL;
    size_t len = 0;
    qn_error err = {0};
    assert_int_equal(qn_decode(&text, &len, g_bare, ids, 2, &err), QN_OK);
    assert_string_equal(text, "<0><96>");
    qn_free(text);
    assert_int_equal(qn_encode(&encoded, &len, g_bare, "a", 1, QN_CONTROL_MATCH, &err), QN_E_INVAL);
    assert_null(encoded);
    assert_non_null(strstr(err.text, "--tokenizer"));
    assert_int_equal(qn_chat_encode(&encoded, &len, g_bare, NULL, "[]", 2, &err), QN_E_INVAL);
    assert_null(encoded);
}

/* The prompt of one user message, spelled out. */
static void render(char *out, size_t out_bytes, const qn_chat_options *options)
{
    static const char messages[] = "[{\"role\": \"user\", \"content\": \"Hi <|user|>\"}]";
    int32_t *ids = NULL;
    size_t n_ids = 0;
    char *text = NULL;
    size_t len = 0;
    qn_error err = {0};
    assert_int_equal(
        qn_chat_encode(&ids, &n_ids, g_nano, options, messages, strlen(messages), &err), QN_OK);
    assert_int_equal(qn_decode(&text, &len, g_nano, ids, n_ids, &err), QN_OK);
    assert_true(len < out_bytes);
    memcpy(out, text, len + 1);
    qn_free(text);
    qn_free(ids);
}

static void test_text_chat_prompt_follows_the_options(void **state)
{
    (void)state;
    char text[512];
    render(text, sizeof text, NULL);
    assert_string_equal(text, "[gMASK]<sop><|system|>Reasoning Effort: Max<|user|>Hi <|user|>"
                              "<|assistant|><think>");
    render(text, sizeof text, &(qn_chat_options){.is_effort_high = true});
    assert_non_null(strstr(text, "Effort: High<|user|>"));
    render(text, sizeof text, &(qn_chat_options){.no_thinking = true});
    assert_string_equal(text, "[gMASK]<sop><|user|>Hi <|user|><|assistant|><think></think>");
}

static void count_reasoning(void *context, const qn_event *event)
{
    *(size_t *)context += event->kind == QN_EVENT_REASONING ? event->len : 0;
}

/* The answer goes on where the prompt ends: in a reasoning that stands alone, else in the text. */
static void test_text_an_answer_goes_on_in_its_part(void **state)
{
    (void)state;
    static const char *const messages[] = {
        "[{\"role\": \"assistant\", \"reasoning_content\": \"So\"}]",
        "[{\"role\": \"assistant\", \"reasoning_content\": \"So\", \"content\": \"It\"}]",
        "[{\"role\": \"assistant\", \"content\": \"It\"}]",
    };
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        size_t n_reasoning = 0;
        qn_parser *parser = NULL;
        qn_error err = {0};
        const qn_chat_options options = {.continue_final = true};
        assert_int_equal(
            qn_chat_encode(&ids, &n_ids, g_nano, &options, messages[i], strlen(messages[i]), &err),
            QN_OK);
        const qn_parser_options parser_options = {
            .prompt = ids, .n_prompt = n_ids, .fn = count_reasoning, .context = &n_reasoning};
        assert_int_equal(qn_parser_open(&parser, g_nano, &parser_options, &err), QN_OK);
        qn_parser_feed_text(parser, " is", 3);
        qn_parser_end(parser);
        assert_int_equal(n_reasoning, i == 0 ? 3 : 0);
        qn_parser_close(&parser);
        qn_free(ids);
    }
}

static void test_text_messages_that_are_wrong_name_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *messages;
        const char *word;
    } cases[] = {
        {"", "messages"},
        {"{", "messages"},
        {"{}", "messages"},
        {"[{\"role\": 1}]", "messages[0].role"},
        {"[{\"role\": \"user\", \"content\": 7}]", "messages[0].content"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        qn_error err = {0};
        assert_int_equal(qn_chat_encode(&ids, &n_ids, g_nano, NULL, cases[i].messages,
                                        strlen(cases[i].messages), &err),
                         QN_E_FORMAT);
        assert_null(ids);
        assert_non_null(strstr(err.text, cases[i].word));
    }
}

static void test_text_tools_stand_in_the_prompt_or_are_refused_by_name(void **state)
{
    (void)state;
    static const char add_tools[] =
        "[{\"name\": \"add\", \"parameters\": {\"default\": 0.10}}]   ]";
    qn_chat_options options = {.tools_json = add_tools,
                               .tools_len = strlen(add_tools) - strlen("   ]")};
    char text[2048];
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error err = {0};
    render(text, sizeof text, &options);
    assert_non_null(strstr(
        text, "<tools>\n{\"name\": \"add\", \"parameters\": {\"default\": 0.10}}\n</tools>\n"));
    options.tools_len = strlen(add_tools);
    assert_int_equal(qn_chat_encode(&ids, &n_ids, g_nano, &options, "[{}]", 4, &err), QN_E_FORMAT);
    assert_null(ids);
    assert_non_null(strstr(err.text, "tools: line 1, column"));
    options.tools_json = "[{}]";
    options.tools_len = 4;
    assert_int_equal(qn_chat_encode(&ids, &n_ids, g_nano, &options, "[{}]", 4, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "tools[0].name: nothing, expected"));
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_encode_and_decode_are_inverse),
        cmocka_unit_test(test_text_control_tokens_match_only_where_asked),
        cmocka_unit_test(test_text_nothing_is_no_ids_and_no_text),
        cmocka_unit_test(test_text_half_a_character_decodes_to_the_replacement),
        cmocka_unit_test(test_text_ids_out_of_range_are_refused),
        cmocka_unit_test(test_text_without_a_tokenizer_ids_print_as_numbers),
        cmocka_unit_test(test_text_chat_prompt_follows_the_options),
        cmocka_unit_test(test_text_an_answer_goes_on_in_its_part),
        cmocka_unit_test(test_text_messages_that_are_wrong_name_the_place),
        cmocka_unit_test(test_text_tools_stand_in_the_prompt_or_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
