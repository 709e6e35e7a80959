/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts of the three formats, byte for byte, and what is refused. */
#include "base/buf.h"
#include "chat/chat.h"
#include "fixture.h"

static qn_status render(qn_ids *ids, const char *messages, qn_chat_render_options options,
                        qn_error *err)
{
    json_t *list = json_loads(messages, JSON_DECODE_ANY, NULL);
    assert_non_null(list);
    const qn_status status = qn_chat_render(ids, g_nano, list, &options, err);
    json_decref(list);
    return status;
}

/* The prompt as text, a control token inside « ». */
static void expect_prompt(const char *messages, qn_chat_render_options options,
                          const char *expected)
{
    qn_ids ids = {0};
    qn_buf text;
    qn_error err = {0};
    qn_buf_init(&text, 1 << 20);
    const qn_status status = render(&ids, messages, options, &err);
    if (status != QN_OK) {
        fail_msg("%s", err.text);
    }
    for (size_t i = 0; i < ids.n_ids; i++) {
        const qn_str bytes = qn_tokenizer_bytes(g_nano, ids.ids[i]);
        const bool is_added = qn_tokenizer_is_added(g_nano, ids.ids[i]);
        assert_int_equal(qn_buf_append_printf(&text, &err, is_added ? "«%.*s»" : "%.*s",
                                              (int)bytes.len, bytes.ptr),
                         QN_OK);
    }
    assert_string_equal(text.ptr, expected);
    qn_buf_deinit(&text);
    qn_ids_deinit(&ids);
}

#define USER(text)      "{\"role\": \"user\", \"content\": \"" text "\"}"
#define SYSTEM(text)    "{\"role\": \"system\", \"content\": \"" text "\"}"
#define ASSISTANT(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"
#define REASONED(text, why)                                                                        \
    "{\"role\": \"assistant\", \"content\": \"" text "\", \"reasoning_content\": \"" why "\"}"
#define HI        "[" USER("Hi") "]"
#define TWO_TURNS "[" USER("2+2?") "," REASONED("4", "add") "," USER("and 3+3?") "]"
#define MAX       "«[gMASK]»«<sop>»«<|system|>»Reasoning Effort: Max"

static const qn_chat_render_options glm52 = {.format = QN_CHAT_GLM5_2};

static void test_published_examples_of_glm52(void **state)
{
    (void)state;
    qn_chat_render_options options = glm52;
    expect_prompt(HI, options, MAX "«<|user|>»Hi«<|assistant|>»«<think>»");
    expect_prompt("[" SYSTEM("You are terse.") "," USER("Hi") "]", options,
                  MAX "«<|system|>»You are terse.«<|user|>»Hi«<|assistant|>»«<think>»");
    expect_prompt(TWO_TURNS, options,
                  MAX "«<|user|>»2+2?«<|assistant|>»«<think>»«</think>»4"
                      "«<|user|>»and 3+3?«<|assistant|>»«<think>»");
    options.keep_thinking = true;
    expect_prompt(TWO_TURNS, options,
                  MAX "«<|user|>»2+2?«<|assistant|>»«<think>»add«</think>»4"
                      "«<|user|>»and 3+3?«<|assistant|>»«<think>»");
    options = (qn_chat_render_options){.format = QN_CHAT_GLM5_2, .is_effort_high = true};
    expect_prompt(HI, options,
                  "«[gMASK]»«<sop>»«<|system|>»Reasoning Effort: High«<|user|>»Hi"
                  "«<|assistant|>»«<think>»");
    options.no_thinking = true;
    expect_prompt(HI, options, "«[gMASK]»«<sop>»«<|user|>»Hi«<|assistant|>»«<think>»«</think>»");
}

static void test_glm5_and_51_have_no_effort_line_and_a_lone_think_end(void **state)
{
    (void)state;
    for (int format = QN_CHAT_GLM5; format <= QN_CHAT_GLM5_1; format++) {
        qn_chat_render_options options = {.format = (qn_chat_format)format};
        expect_prompt(TWO_TURNS, options,
                      "«[gMASK]»«<sop>»«<|user|>»2+2?«<|assistant|>»«</think>»4"
                      "«<|user|>»and 3+3?«<|assistant|>»«<think>»");
        options.keep_thinking = true;
        expect_prompt(TWO_TURNS, options,
                      "«[gMASK]»«<sop>»«<|user|>»2+2?«<|assistant|>»«<think>»add«</think>»4"
                      "«<|user|>»and 3+3?«<|assistant|>»«<think>»");
        options.no_thinking = true;
        expect_prompt(HI, options, "«[gMASK]»«<sop>»«<|user|>»Hi«<|assistant|>»«</think>»");
    }
}

static void test_control_tokens_are_ids_and_text_between_is_encoded_whole(void **state)
{
    (void)state;
    qn_ids ids = {0};
    qn_ids text = {0};
    qn_error err = {0};
    assert_int_equal(render(&ids, HI, glm52, &err), QN_OK);
    assert_int_equal(qn_tokenizer_encode(g_nano, qn_str_of("Reasoning Effort: Max"),
                                         QN_ADDED_AS_TEXT, &text, &err),
                     QN_OK);
    static const char *const head[] = {"[gMASK]", "<sop>", "<|system|>"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ids.ids[i], qn_tokenizer_added_id(g_nano, qn_str_of(head[i])));
    }
    assert_memory_equal(ids.ids + 3, text.ids, 4 * text.n_ids);
    assert_int_equal(ids.ids[3 + text.n_ids], qn_tokenizer_added_id(g_nano, qn_str_of("<|user|>")));
    qn_ids_deinit(&ids);
    qn_ids_deinit(&text);
}

/* «» marks ids: the names that users write stand outside. */
static void test_names_of_control_tokens_in_messages_stay_text(void **state)
{
    (void)state;
    expect_prompt("[" SYSTEM("<|system|>") "," USER("<|user|>[gMASK]</think>") "]", glm52,
                  MAX "«<|system|>»<|system|>«<|user|>»<|user|>[gMASK]</think>"
                      "«<|assistant|>»«<think>»");
    expect_prompt("[" REASONED("<|user|>", "<think>x</think>") "]", glm52,
                  MAX "«<|assistant|>»«<think>»<think>x</think>«</think>»<|user|>"
                      "«<|assistant|>»«<think>»");
}

static void test_reasoning_is_found_inside_the_content(void **state)
{
    (void)state;
    static const struct {
        const char *content;
        const char *expected;
    } cases[] = {
        {"[" ASSISTANT("<think>a</think>b") "]", "«<think>»a«</think>»b"},
        {"[" ASSISTANT("a</think>b") "]", "«<think>»a«</think>»b"},
        {"[" ASSISTANT("</think>b") "]", "«<think>»«</think>»b"},
        {"[" ASSISTANT("x<think>y<think>a</think>m</think>b") "]", "«<think>»a«</think>»b"},
        {"[" ASSISTANT("<think>a") "]", "«<think>»«</think>»<think>a"},
        {"[" ASSISTANT("<think> a\\n</think>\\n b ") "]", "«<think>» a\n«</think>»b"},
        {"[" REASONED("a</think>b", "r") "]", "«<think>»r«</think>»a</think>b"},
        {"[" REASONED("b", "") "]", "«<think>»«</think>»b"},
        {"[{\"role\": \"assistant\", \"content\": \"a</think>b\", \"reasoning_content\": null}]",
         "«<think>»a«</think>»b"},
        {"[{\"role\": \"assistant\", \"content\": null}]", "«<think>»«</think>»"},
        {"[{\"role\": \"assistant\"}]", "«<think>»«</think>»"},
        {"[{\"role\": \"assistant\", \"content\": \"b\", \"tool_calls\": null}]",
         "«<think>»«</think>»b"},
        {"[{\"role\": \"assistant\", \"content\": \"b\", \"tool_calls\": []}]",
         "«<think>»«</think>»b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[256];
        (void)snprintf(expected, sizeof expected, MAX "«<|assistant|>»%s«<|assistant|>»«<think>»",
                       cases[i].expected);
        expect_prompt(cases[i].content, glm52, expected);
    }
}

/* Reasoning of turns after the last user message is kept, of those before it is not. */
static void test_reasoning_is_dropped_before_the_last_user_message(void **state)
{
    (void)state;
    expect_prompt("[" USER("q") "," REASONED("a", "r") "," USER("p") "," REASONED("b", "s") "]",
                  glm52,
                  MAX "«<|user|>»q«<|assistant|>»«<think>»«</think>»a"
                      "«<|user|>»p«<|assistant|>»«<think>»s«</think>»b«<|assistant|>»«<think>»");
}

static void test_assistant_text_is_stripped_as_python_does_and_user_text_is_not(void **state)
{
    (void)state;
    /* All that str.isspace() holds, before and after; U+200B and U+180E are none. */
    static const char spaces[] =
        "\\t\\n\\u000b\\f\\r\\u001c\\u001d\\u001e\\u001f \\u0085\\u00a0\\u1680\\u2000\\u2001\\u2002"
        "\\u2003\\u2004\\u2005\\u2006\\u2007\\u2008\\u2009\\u200a\\u2028\\u2029\\u202f\\u205f\\u300"
        "0";
    char messages[1024];
    (void)snprintf(messages, sizeof messages, "[" ASSISTANT("%sa b%s") "," ASSISTANT("%s") "]",
                   spaces, spaces, spaces);
    expect_prompt(messages, glm52,
                  MAX "«<|assistant|>»«<think>»«</think>»a b«<|assistant|>»«<think>»«</think>»"
                      "«<|assistant|>»«<think>»");
    expect_prompt("[" USER(" a\\n") "," ASSISTANT("\\u200ba\\u180e") "]", glm52,
                  MAX "«<|user|>» a\n«<|assistant|>»«<think>»«</think>»\u200ba\u180e"
                      "«<|assistant|>»«<think>»");
}

static void test_parts_are_joined_and_developer_is_system(void **state)
{
    (void)state;
    expect_prompt(
        "[{\"role\": \"developer\", \"content\": \"d\"}, {\"role\": \"user\", \"content\":"
        "[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}]",
        glm52, MAX "«<|system|>»d«<|user|>»ab«<|assistant|>»«<think>»");
}

static void test_refused_messages_name_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *messages;
        const char *message;
    } cases[] = {
        {"{}", "messages: an object, expected a list with at least one message"},
        {"[]", "messages: an empty list, expected a list with at least one message"},
        {"[1]", "messages[0]: an integer, expected an object with role and content"},
        {"[{}]", "messages[0].role: nothing, expected system, user or assistant"},
        {"[" USER("a") ", {\"role\": \"tool\", \"content\": \"x\"}]",
         "messages[1].role: \"tool\", expected system, user or assistant (tools are not supported"},
        {"[{\"role\": \"user\"}]", "messages[0].content: nothing, expected a string or a list"},
        {"[{\"role\": \"system\", \"content\": null}]",
         "messages[0].content: null, expected a str"},
        {"[{\"role\": \"user\", \"content\": 7}]", "messages[0].content: 7, expected a string or"},
        {"[{\"role\": \"user\", \"content\": [7]}]", "messages[0].content[0].type: nothing"},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]",
         "messages[0].content[0].type: \"image_url\", expected \"text\" (other parts are not"},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]",
         "messages[0].content[0].text: nothing, expected a string"},
        {"[{\"role\": \"assistant\", \"tool_calls\": [{}]}]",
         "messages[0].tool_calls: a list, expected none (tools are not supported"},
        {"[{\"role\": \"assistant\", \"content\": \"\", \"reasoning_content\": 1}]",
         "messages[0].reasoning_content: 1, expected a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_ids ids = {0};
        qn_error err = {0};
        assert_int_equal(render(&ids, cases[i].messages, glm52, &err), QN_E_FORMAT);
        if (strstr(err.text, cases[i].message) == NULL) {
            fail_msg("seen: %s, expected: %s", err.text, cases[i].message);
        }
        qn_ids_deinit(&ids);
    }
}

static void test_a_tokenizer_without_the_control_token_is_named(void **state)
{
    (void)state;
    qn_ids ids = {0};
    qn_error err = {0};
    qn_tokenizer *small = NULL;
    const qn_chat_render_options options = glm52;
    assert_int_equal(
        qn_tokenizer_open_file(&small, QN_SOURCE_DIR "/tests/golden/tokenizer/small.json", &err),
        QN_OK);
    json_t *list = json_loads(HI, 0, NULL);
    assert_int_equal(qn_chat_render(&ids, small, list, &options, &err), QN_E_FORMAT);
    assert_string_equal(err.text,
                        "tokenizer.json: no token [gMASK], expected it for chat format glm5.2");
    json_decref(list);
    qn_ids_deinit(&ids);
    qn_tokenizer_close(&small);
}

static void test_formats_have_names(void **state)
{
    (void)state;
    qn_error err = {0};
    for (int i = QN_CHAT_GLM5; i <= QN_CHAT_GLM5_2; i++) {
        qn_chat_format format = QN_CHAT_GLM5;
        const char *name = qn_chat_format_name((qn_chat_format)i);
        assert_int_equal(qn_chat_format_parse(&format, name, &err), QN_OK);
        assert_int_equal(format, i);
    }
    qn_chat_format format = QN_CHAT_GLM5;
    assert_int_equal(qn_chat_format_parse(&format, "glm6", &err), QN_E_INVAL);
    assert_string_equal(err.text, "--chat-format: \"glm6\", expected auto, glm5, glm5.1 or glm5.2");
}

static void test_the_format_follows_the_configuration_where_no_template_is_known(void **state)
{
    (void)state;
    bool is_known = false;
    assert_int_equal(qn_chat_format_choose((qn_str){0}, true, &is_known), QN_CHAT_GLM5_2);
    assert_true(is_known);
    assert_int_equal(qn_chat_format_choose((qn_str){0}, false, &is_known), QN_CHAT_GLM5);
    assert_true(is_known);
    assert_int_equal(qn_chat_format_choose(qn_str_of("{{ x }}"), true, &is_known), QN_CHAT_GLM5_2);
    assert_false(is_known);
    assert_int_equal(qn_chat_format_choose(qn_str_of("{{ x }}"), false, &is_known), QN_CHAT_GLM5);
    assert_false(is_known);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_examples_of_glm52),
        cmocka_unit_test(test_glm5_and_51_have_no_effort_line_and_a_lone_think_end),
        cmocka_unit_test(test_control_tokens_are_ids_and_text_between_is_encoded_whole),
        cmocka_unit_test(test_names_of_control_tokens_in_messages_stay_text),
        cmocka_unit_test(test_reasoning_is_found_inside_the_content),
        cmocka_unit_test(test_reasoning_is_dropped_before_the_last_user_message),
        cmocka_unit_test(test_assistant_text_is_stripped_as_python_does_and_user_text_is_not),
        cmocka_unit_test(test_parts_are_joined_and_developer_is_system),
        cmocka_unit_test(test_refused_messages_name_the_place),
        cmocka_unit_test(test_a_tokenizer_without_the_control_token_is_named),
        cmocka_unit_test(test_formats_have_names),
        cmocka_unit_test(test_the_format_follows_the_configuration_where_no_template_is_known),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
