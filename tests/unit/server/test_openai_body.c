/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies: what each parameter does to the request, and what is refused by which name. */
#include "openai_world.h"

static const char bad[] = "invalid_value";
static const char unbuilt[] = "unsupported_parameter";

enum { BODY_BYTES = 4096 };

static void make_body(char *out, server_api api, const char *more)
{
    (void)snprintf(out, BODY_BYTES, "{%s%s%s}", api == SERVER_API_CHAT ? ASK : PROMPT,
                   more[0] != '\0' ? ", " : "", more);
}

static server_exchange *open_with(server_api api, const char *more)
{
    char body[BODY_BYTES];
    make_body(body, api, more);
    return open_body(api, body);
}

static void refuse(server_api api, const char *more, const char *code, const char *param)
{
    char body[BODY_BYTES];
    make_body(body, api, more);
    refuse_body(api, body, strlen(body), 400, code, param);
}

static void refuse_both(const char *more, const char *code, const char *param)
{
    refuse(SERVER_API_CHAT, more, code, param);
    refuse(SERVER_API_COMPLETION, more, code, param);
}

/* ------------------------------------------------------------------------------------ accepted */

static void test_settings_reach_the_request(void **state)
{
    (void)state;
    server_exchange *x = open_with(
        SERVER_API_CHAT,
        "\"temperature\": 0.5, \"top_p\": 0.25, \"min_p\": 0.125, \"top_k\": 7, "
        "\"presence_penalty\": -2, \"frequency_penalty\": 2, \"repetition_penalty\": 1.5, "
        "\"max_tokens\": 9, \"max_completion_tokens\": 8, \"min_tokens\": 3, \"n\": 2, "
        "\"seed\": 18446744073709551615, \"stop\": [\"a\", \"\\u00e9\\n\"], "
        "\"stop_token_ids\": [4, 5.0], \"logit_bias\": {\"6\": -100, \"7\": 1.5}, "
        "\"logprobs\": true, \"top_logprobs\": 3, \"prompt_logprobs\": 5, \"ignore_eos\": true, "
        "\"priority\": -4, \"cache_salt\": \"s\\u00e4lt\", \"parallel_tool_calls\": false");
    qn_sampling s;
    const qn_request r = exchange_choice(x, 1, &s);
    assert_true(s.temperature == 0.5F && s.top_p == 0.25F && s.min_p == 0.125F && s.top_k == 7);
    assert_true(s.presence_penalty == -2 && s.frequency_penalty == 2);
    assert_true(s.repetition_penalty == 1.5F && s.seed == 0); /* the largest and one */
    assert_int_equal(s.n_logit_bias, 2);
    assert_true(s.logit_bias[1].token == 7 && s.logit_bias[1].bias == 1.5F);
    assert_int_equal(r.max_tokens, 8);
    assert_int_equal(r.min_tokens, 3);
    assert_int_equal(r.n_stops, 2);
    assert_string_equal(r.stops[1], "\xc3\xa9\n");
    assert_int_equal(r.n_stop_ids, 2);
    assert_int_equal(r.stop_ids[1], 5);
    assert_true(r.wants_logprobs && !r.wants_prompt_logprobs && r.n_top_logprobs == 5);
    assert_true(exchange_choice(x, 0, &s).wants_prompt_logprobs); /* once is enough */
    assert_true(r.ignore_eos && r.single_call && r.priority == -4);
    assert_int_equal(r.cache_salt_len, 5);
    assert_memory_equal(r.cache_salt, "s\xc3\xa4lt", 5);
    assert_int_equal(exchange_n_choices(x), 2);
    assert_int_equal(exchange_n_prompt_tokens(x), r.n_ids);
    assert_true(exchange_counts_prompt(x, 0) && !exchange_counts_prompt(x, 1));
    exchange_close(&x);
}

static int depth_of(const char *more)
{
    qn_sampling s;
    server_exchange *x = open_with(SERVER_API_COMPLETION, more);
    const int depth = exchange_choice(x, 0, &s).draft_tokens;
    exchange_close(&x);
    return depth;
}

static double length_of(const char *more)
{
    qn_sampling s;
    server_exchange *x = open_with(SERVER_API_COMPLETION, more);
    const float length = exchange_choice(x, 0, &s).acceptance_length;
    exchange_close(&x);
    return (double)length;
}

/* The client does not know of it: its depth is no error, and steps emit what they can. */
static void test_a_pinned_length_fits_the_depth_of_a_request(void **state)
{
    (void)state;
    g_settings.draft_tokens = 5;
    g_settings.acceptance_length = 3.5F;
    assert_true(length_of("") == 3.5);
    assert_true(length_of("\"draft_tokens\": 8") == 3.5);
    assert_true(length_of("\"draft_tokens\": 2") == 3.0);
    assert_true(length_of("\"draft_tokens\": 1") == 2.0);
    assert_true(length_of("\"draft_tokens\": 0") == 0.0);
    assert_true(length_of("\"draft_tokens\": \"auto\"") == 0.0);
    g_settings.draft_tokens = QN_DRAFT_DEFAULT;
    g_settings.acceptance_length = 0.0F;
}

static void test_a_request_may_choose_its_depth_of_speculation(void **state)
{
    (void)state;
    g_settings.draft_tokens = 3;
    assert_int_equal(depth_of(""), 3);
    assert_int_equal(depth_of("\"draft_tokens\": null"), 3);
    assert_int_equal(depth_of("\"draft_tokens\": 0"), QN_DRAFT_NONE);
    assert_int_equal(depth_of("\"draft_tokens\": 8"), 8);
    assert_int_equal(depth_of("\"draft_tokens\": \"auto\""), QN_DRAFT_AUTO);
    g_settings.draft_tokens = QN_DRAFT_NONE; /* the engine has no memory for drafts then */
    assert_int_equal(depth_of("\"draft_tokens\": 0"), QN_DRAFT_NONE);
    refuse_both("\"draft_tokens\": 1", bad, "draft_tokens");
    refuse_both("\"draft_tokens\": \"auto\"", bad, "draft_tokens");
    g_settings.draft_tokens = QN_DRAFT_DEFAULT;
}

static void test_without_parameters_the_models_own_hold(void **state)
{
    (void)state;
    qn_sampling s;
    server_exchange *x = open_with(SERVER_API_CHAT, "\"temperature\": null, \"top_k\": -1");
    qn_request r = exchange_choice(x, 0, &s);
    const qn_sampling *const own = &qn_model_get_info(g_settings.model)->sampling;
    assert_true(s.temperature == own->temperature && s.top_p == own->top_p && s.top_k == 0);
    assert_int_equal(r.max_tokens, 0);
    assert_false(r.single_call || r.wants_logprobs || r.wants_prompt_logprobs || r.prompt_only);
    assert_false(exchange_streams(x));
    exchange_close(&x);
    x = open_with(SERVER_API_COMPLETION, "");
    r = exchange_choice(x, 0, &s);
    assert_int_equal(r.max_tokens, 16);
    exchange_close(&x);
}

static void test_prompts_have_four_forms(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        size_t n_choices;
        uint64_t n_tokens;
    } forms[] = {
        {"{\"prompt\": [7, 8, 9]}", 1, 3},
        {"{\"prompt\": [[7, 8, 9], [1]], \"n\": 2}", 4, 4},
        {"{\"prompt\": \"<|user|>\"}", 1, 1}, /* the token */
        {"{\"prompt\": [\"<|user|>\", [1, 2], \"<|user|><|user|>\"]}", 3, 5},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        qn_sampling s;
        server_exchange *x = open_body(SERVER_API_COMPLETION, forms[i].body);
        assert_int_equal(exchange_n_choices(x), forms[i].n_choices);
        assert_int_equal(exchange_n_prompt_tokens(x), forms[i].n_tokens);
        const qn_request r = exchange_choice(x, forms[i].n_choices - 1, &s);
        assert_true(r.n_ids > 0 && r.ids[0] >= 0);
        exchange_shrink(x);
        assert_int_equal(exchange_n_choices(x), forms[i].n_choices);
        assert_int_equal(exchange_n_prompt_tokens(x), forms[i].n_tokens);
        exchange_close(&x);
    }
}

/* Tokens of the prompt that a body makes. */
static uint64_t count(const char *more)
{
    char body[BODY_BYTES];
    uint64_t n = 0;
    server_error error;
    make_body(body, SERVER_API_CHAT, more);
    if (!exchange_count_tokens(&n, &g_settings, SERVER_API_CHAT, body, strlen(body), &error)) {
        print_error("%s: %s\n", body, error.message);
        fail();
    }
    server_exchange *x = open_body(SERVER_API_CHAT, body);
    assert_int_equal(exchange_n_prompt_tokens(x), n);
    exchange_close(&x);
    return n;
}

/* Ids of the prompt that a body makes: the same as another's? */
static bool makes_same(const char *more, const char *other)
{
    qn_sampling s;
    server_exchange *x = open_with(SERVER_API_CHAT, more);
    server_exchange *y = open_with(SERVER_API_CHAT, other);
    const qn_request a = exchange_choice(x, 0, &s);
    const qn_request b = exchange_choice(y, 0, &s);
    const bool is_same = a.n_ids == b.n_ids && memcmp(a.ids, b.ids, a.n_ids * sizeof *a.ids) == 0;
    exchange_close(&x);
    exchange_close(&y);
    return is_same;
}

static void test_thinking_and_effort_have_several_names(void **state)
{
    (void)state;
    static const char off[] = "\"chat_template_kwargs\": {\"enable_thinking\": false}";
    static const char high[] = "\"reasoning_effort\": \"high\"";
    assert_false(makes_same("", off));
    assert_false(makes_same("", high));
    assert_true(makes_same("\"reasoning_effort\": \"none\"", off));
    assert_true(makes_same("\"thinking\": {\"type\": \"disabled\"}", off));
    assert_true(makes_same("\"thinking\": {\"type\": \"enabled\"}", ""));
    assert_true(makes_same("\"reasoning_effort\": \"low\"", high));
    assert_true(makes_same("\"reasoning_effort\": \"minimal\"", high));
    assert_true(makes_same("\"reasoning_effort\": \"medium\"", high));
    assert_true(makes_same("\"reasoning_effort\": \"xhigh\"", ""));
    assert_true(makes_same("\"reasoning_effort\": \"max\"", ""));
    assert_true(makes_same("\"chat_template_kwargs\": {\"reasoning_effort\": \"high\"}", high));
}

static void test_a_lower_effort_is_of_one_format_only(void **state)
{
    (void)state;
    static const char body[] = "{" ASK ", \"reasoning_effort\": \"low\"}";
    const qn_model_options options = {.tokenizer_only = true, .chat_format = "glm5.1"};
    exchange_settings settings = {0};
    qn_model *model = NULL;
    qn_error err = {0};
    server_exchange *x = NULL;
    server_error error;
    assert_int_equal(qn_model_open(&model, QN_SOURCE_DIR "/models/glm-nano", &options, &err),
                     QN_OK);
    settings.model = model;
    assert_false(exchange_open(&x, &settings, SERVER_API_CHAT, body, strlen(body), "7", &error));
    assert_string_equal(error.param, "reasoning_effort");
    assert_string_equal(error.code, unbuilt);
    qn_model_close(&model);
}

static void test_reasoning_comes_back_by_two_names(void **state)
{
    (void)state;
    static const char form[] = "{\"messages\": [{\"role\": \"assistant\", \"%s\": \"so\", "
                               "\"content\": \"x\"}]}";
    static const char *const keys[] = {"reasoning_content", "reasoning", "refusal"};
    uint64_t n[3] = {0};
    for (size_t i = 0; i < 3; i++) {
        char body[200];
        (void)snprintf(body, sizeof body, form, keys[i]);
        server_exchange *x = open_body(SERVER_API_CHAT, body);
        n[i] = exchange_n_prompt_tokens(x);
        exchange_close(&x);
    }
    assert_int_equal(n[0], n[1]);
    assert_true(n[2] < n[0]);
}

static void test_tools_are_of_the_prompt_unless_none_is_chosen(void **state)
{
    (void)state;
    static const char tools[] = "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": "
                                "\"f\", \"parameters\": {}}}]";
    char none[512];
    char chosen[512];
    (void)snprintf(none, sizeof none, "%s, \"tool_choice\": \"none\"", tools);
    (void)snprintf(chosen, sizeof chosen, "%s, \"tool_choice\": \"auto\"", tools);
    assert_true(count(tools) > count(""));
    assert_true(makes_same(none, ""));
    assert_true(makes_same(chosen, tools));
    assert_true(makes_same("\"tools\": []", ""));
    qn_sampling s;
    server_exchange *x = open_with(SERVER_API_CHAT, tools);
    assert_true(exchange_choice(x, 0, &s).tools_len > 0);
    exchange_close(&x);
}

/* So that a call that is cut off is the same in both. */
static void test_calls_come_in_pieces_in_whole_chats_too(void **state)
{
    (void)state;
    qn_sampling s;
    server_exchange *x = open_with(SERVER_API_CHAT, "");
    assert_true(exchange_choice(x, 0, &s).streams_calls);
    exchange_close(&x);
    x = open_with(SERVER_API_COMPLETION, ""); /* whose text has everything as it was written */
    assert_false(exchange_choice(x, 0, &s).streams_calls);
    exchange_close(&x);
}

static void test_streams_are_told(void **state)
{
    (void)state;
    qn_sampling s;
    server_exchange *x = open_with(SERVER_API_CHAT, "\"stream\": true");
    assert_true(exchange_streams(x) && exchange_choice(x, 0, &s).streams_calls);
    exchange_close(&x);
    char body[BODY_BYTES];
    server_error error;
    exchange_settings settings = g_settings;
    settings.refuses_stream = true;
    make_body(body, SERVER_API_CHAT, "\"stream\": true");
    assert_false(exchange_open(&x, &settings, SERVER_API_CHAT, body, strlen(body), "7", &error));
    assert_string_equal(error.param, "stream");
}

static void test_hints_are_named(void **state)
{
    (void)state;
    server_exchange *x = open_with(
        SERVER_API_CHAT,
        "\"user\": \"me\", \"metadata\": {\"a\": 1}, \"store\": true, \"service_tier\": \"flex\", "
        "\"safety_identifier\": \"x\", \"prompt_cache_key\": \"k\", \"prediction\": {}, "
        "\"prompt_cache_retention\": null, \"model\": \"any\"");
    assert_string_equal(exchange_ignored(x), "user, metadata, store, service_tier, "
                                             "safety_identifier, prompt_cache_key, prediction");
    exchange_close(&x);
    x = open_with(SERVER_API_CHAT, "\"model\": \"any\"");
    assert_string_equal(exchange_ignored(x), "");
    exchange_close(&x);
}

/* Wherever they stand, and each once. */
static void test_hints_of_messages_parts_and_tools_are_named(void **state)
{
    (void)state;
    static const char body[] =
        "{\"cache_control\": {\"type\": \"ephemeral\"}, \"messages\": ["
        "{\"role\": \"user\", \"name\": \"ann\", \"content\": [{\"type\": \"text\", \"text\": "
        "\"a\", \"cache_control\": {}}, \"b\", {\"type\": \"text\", \"text\": \"c\", "
        "\"cache_control\": {}}]}, {\"role\": \"assistant\", \"content\": null, \"refusal\": "
        "null, \"annotations\": [], \"audio\": null, \"function_call\": null, \"prefix\": false, "
        "\"tool_calls\": [{\"id\": \"1\", \"index\": 0, \"type\": \"function\", \"function\": "
        "{\"name\": \"f\", \"arguments\": \"{}\"}}]}, {\"role\": \"tool\", \"tool_call_id\": "
        "\"1\", \"content\": \"x\"}], \"tools\": [{\"type\": \"function\", \"cache_control\": "
        "{}, \"function\": {\"name\": \"f\", \"strict\": true, \"more\": 1}}]}";
    server_exchange *x = open_body(SERVER_API_CHAT, body);
    assert_string_equal(exchange_ignored(x), "cache_control, name, annotations, index, strict");
    exchange_close(&x);
    x = open_with(SERVER_API_CHAT, "\"tools\": [{\"name\": \"f\", \"cache_control\": {}}]");
    assert_string_equal(exchange_ignored(x), "cache_control");
    exchange_close(&x);
    assert_true(makes_same("\"tools\": [{\"function\": {\"name\": \"f\", \"cache_control\": {}}}]",
                           "\"tools\": [{\"function\": {\"name\": \"f\"}}]"));
}

static void test_what_changes_nothing_is_accepted(void **state)
{
    (void)state;
    static const char *const same[] = {
        "\"response_format\": {\"type\": \"text\"}",
        "\"modalities\": [\"text\"]",
        "\"parallel_tool_calls\": true",
        "\"skip_special_tokens\": true",
        "\"add_generation_prompt\": true",
        "\"tool_choice\": \"auto\"",
        "\"guided_json\": null",
        "\"stream\": false",
        "\"include_reasoning\": true",
        "\"functions\": null",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        assert_true(makes_same(same[i], ""));
    }
}

/* ------------------------------------------------------------------------------------- refused */

static void test_values_out_of_range_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"temperature", "-1"},
        {"temperature", "101"},
        {"temperature", "\"1\""},
        {"temperature", "1e999"},
        {"temperature", "true"},
        {"top_p", "0"},
        {"top_p", "1.01"},
        {"min_p", "-0.1"},
        {"top_k", "1.5"},
        {"top_k", "-2"},
        {"top_k", "1e300"},
        {"presence_penalty", "2.1"},
        {"frequency_penalty", "-2.1"},
        {"repetition_penalty", "0"},
        {"max_tokens", "-1"},
        {"max_tokens", "4294967297"},
        {"max_tokens", "0"},
        {"min_tokens", "-1"},
        {"n", "0"},
        {"n", "129"},
        {"n", "[1]"},
        {"seed", "1.5"},
        {"seed", "1e3"},
        {"seed", "18446744073709551616"},
        {"seed", "-9223372036854775809"},
        {"stop", "\"\""},
        {"stop", "[1]"},
        {"logit_bias", "{\" 5\": 1}"},
        {"stop", "[\"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", "
                 "\"a\", \"a\", \"a\", \"a\", \"a\", \"a\"]"},
        {"stop", "{}"},
        {"stop_token_ids", "[999999999]"},
        {"stop_token_ids", "[-1]"},
        {"stop_token_ids", "5"},
        {"logit_bias", "{\"x\": 1}"},
        {"logit_bias", "{\"-1\": 1}"},
        {"logit_bias", "{\"5\": null}"},
        {"logit_bias", "{\"5\": 1e10}"},
        {"logit_bias", "{\"\": 1}"},
        {"logit_bias", "{\"99999999999999999999\": 1}"},
        {"ignore_eos", "1"},
        {"draft_tokens", "9"},
        {"draft_tokens", "-1"},
        {"draft_tokens", "1.5"},
        {"draft_tokens", "\"off\""},
        {"draft_tokens", "true"},
        {"priority", "101"},
        {"cache_salt", "\"\""},
        {"cache_salt", "{}"},
        {"stream", "1"},
        {"stream_options", "{}"},
        {"stream_options", "5"},
        {"model", "5"},
        {"prompt_logprobs", "21"},
        {"prompt_logprobs", "-1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char more[200];
        (void)snprintf(more, sizeof more, "\"%s\": %s", cases[i][0], cases[i][1]);
        refuse_both(more, bad, cases[i][0]);
    }
}

static void test_values_that_do_not_go_together_are_refused(void **state)
{
    (void)state;
    refuse_both("\"min_tokens\": 5, \"max_tokens\": 4", bad, "min_tokens");
    refuse(SERVER_API_CHAT, "\"top_logprobs\": 2", bad, "top_logprobs");
    refuse(SERVER_API_CHAT, "\"logprobs\": 2", bad, "logprobs");
    refuse(SERVER_API_COMPLETION, "\"logprobs\": true", bad, "logprobs");
    refuse(SERVER_API_COMPLETION, "\"logprobs\": 21", bad, "logprobs");
    refuse(SERVER_API_CHAT, "\"reasoning_effort\": \"lots\"", bad, "reasoning_effort");
    refuse(SERVER_API_CHAT, "\"thinking\": {\"type\": \"x\"}", bad, "thinking.type");
    refuse(SERVER_API_CHAT, "\"thinking\": {\"kind\": 1}", "unknown_parameter", "thinking.kind");
    refuse(SERVER_API_CHAT, "\"chat_template_kwargs\": {\"enable_thinking\": 1}", bad,
           "chat_template_kwargs.enable_thinking");
    refuse(SERVER_API_CHAT, "\"add_generation_prompt\": false", bad, "add_generation_prompt");
    refuse(SERVER_API_CHAT, "\"continue_final_message\": true, \"add_generation_prompt\": true",
           bad, "add_generation_prompt");
    refuse_both("\"stream\": true, \"prompt_logprobs\": 1", unbuilt, "prompt_logprobs");
}

static void test_what_is_not_built_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const of_both[][2] = {
        {"response_format", "{\"type\": \"json_object\"}"},
        {"response_format", "{\"type\": \"json_schema\", \"json_schema\": {}}"},
        {"guided_json", "{}"},
        {"guided_regex", "\"a\""},
        {"guided_choice", "[\"a\"]"},
        {"structured_outputs", "{}"},
        {"include_stop_str_in_output", "true"},
        {"skip_special_tokens", "false"},
        {"use_beam_search", "true"},
        {"truncate_prompt_tokens", "5"},
        {"allowed_token_ids", "[1]"},
    };
    static const char *const of_chat[][2] = {
        {"tool_choice", "\"required\""},
        {"tool_choice", "{\"type\": \"function\", \"function\": {\"name\": \"f\"}}"},
        {"modalities", "[\"text\", \"audio\"]"},
        {"audio", "{\"voice\": \"x\"}"},
        {"functions", "[]"},
        {"function_call", "\"auto\""},
        {"web_search_options", "{}"},
        {"verbosity", "\"low\""},
    };
    char more[256];
    for (size_t i = 0; i < sizeof of_both / sizeof *of_both; i++) {
        (void)snprintf(more, sizeof more, "\"%s\": %s", of_both[i][0], of_both[i][1]);
        refuse_both(more, unbuilt, of_both[i][0]);
    }
    for (size_t i = 0; i < sizeof of_chat / sizeof *of_chat; i++) {
        (void)snprintf(more, sizeof more, "\"%s\": %s", of_chat[i][0], of_chat[i][1]);
        refuse(SERVER_API_CHAT, more, unbuilt, of_chat[i][0]);
    }
    refuse(SERVER_API_COMPLETION, "\"suffix\": \"x\"", unbuilt, "suffix");
    refuse(SERVER_API_COMPLETION, "\"best_of\": 2", unbuilt, "best_of");
}

static void test_what_the_model_cannot_see_is_refused_where_it_stands(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"\"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"image_url\"}]",
         "messages[1].content[1]"},
        {"\"content\": [{\"type\": \"input_audio\"}]", "messages[1].content[0]"},
        {"\"content\": [{\"type\": \"file\"}]", "messages[1].content[0]"},
        {"\"content\": \"a\", \"audio\": {\"id\": \"x\"}", "messages[1].audio"},
        {"\"content\": \"a\", \"function_call\": {\"name\": \"x\"}", "messages[1].function_call"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        (void)snprintf(body, sizeof body,
                       "{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}, "
                       "{\"role\": \"user\", %s}]}",
                       cases[i][0]);
        refuse_body(SERVER_API_CHAT, body, strlen(body), 400, unbuilt, cases[i][1]);
    }
}

static void test_unknown_names_are_refused_where_they_stand(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"foo\": 1}]",
         "unknown_parameter", "messages[0].foo"},
        {"\"messages\": [{\"role\": \"user\", \"content\": [\"a\", {\"type\": \"text\", "
         "\"text\": \"a\", \"foo\": null}]}]",
         "unknown_parameter", "messages[0].content[1].foo"},
        {"\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"prefix\": true}]",
         "unsupported_parameter", "messages[0].prefix"},
        {"\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\"}, "
         "{\"name\": \"f\", \"foo\": 1}]}]",
         "unknown_parameter", "messages[0].tool_calls[1].foo"},
        {"\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": "
         "\"f\", \"foo\": 1}}]}]",
         "unknown_parameter", "messages[0].tool_calls[0].function.foo"},
        {ASK ", \"tools\": [{\"type\": \"function\", \"foo\": 1, \"function\": {\"name\": "
             "\"f\"}}]",
         "unknown_parameter", "tools[0].foo"},
        {ASK ", \"tools\": [{\"name\": \"f\"}, {\"type\": \"custom\", \"name\": \"f\"}]",
         "unsupported_parameter", "tools[1].type"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        (void)snprintf(body, sizeof body, "{%s}", cases[i][0]);
        refuse_body(SERVER_API_CHAT, body, strlen(body), 400, cases[i][1], cases[i][2]);
    }
}

static void test_unknown_names_are_told_the_nearest(void **state)
{
    (void)state;
    server_exchange *x = NULL;
    server_error error;
    static const char body[] = "{" ASK ", \"max_token\": 5}";
    assert_false(exchange_open(&x, &g_settings, SERVER_API_CHAT, body, strlen(body), "7", &error));
    assert_non_null(strstr(error.message, "expected max_tokens or"));
    refuse_both("\"something_else\": null", "unknown_parameter", "something_else");
    refuse(SERVER_API_COMPLETION, "\"max_completion_tokens\": 5", "unknown_parameter",
           "max_completion_tokens");
    refuse(SERVER_API_CHAT, "\"\": 1", "unknown_parameter", "");
    refuse(SERVER_API_CHAT, "\"\\u00e9\\n\": 1", "unknown_parameter", "");
}

static void test_models_of_other_names_are_not_found(void **state)
{
    (void)state;
    static const char *const names[] = {"first", "second"};
    static const char other[] = "{\"model\": \"third\", " ASK "}";
    static const char good[] = "{\"model\": \"second\", " ASK "}";
    exchange_settings settings = g_settings;
    server_exchange *x = NULL;
    server_error error;
    settings.names = names;
    settings.n_names = 2;
    assert_false(exchange_open(&x, &settings, SERVER_API_CHAT, other, strlen(other), "7", &error));
    assert_int_equal(error.status_code, 404);
    assert_string_equal(error.code, "model_not_found");
    assert_non_null(strstr(error.message, "first"));
    assert_true(exchange_open(&x, &settings, SERVER_API_CHAT, good, strlen(good), "7", &error));
    take_end(x, 0, QN_FINISH_STOP, 1);
    json_t *const all = finish_whole(x);
    check_string(json_object_get(all, "model"), "first");
    json_decref(all);
}

static void test_prompts_that_do_not_fit_say_both_numbers(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\": [1, 2, 3, 4, 5]}";
    exchange_settings settings = g_settings;
    server_exchange *x = NULL;
    server_error error;
    settings.context_tokens = 4;
    for (int i = 0; i < 2; i++) {
        assert_false(
            exchange_open(&x, &settings, SERVER_API_COMPLETION, body, strlen(body), "7", &error));
        assert_string_equal(error.code, "context_length_exceeded");
        assert_string_equal(error.param, "prompt");
        assert_non_null(strstr(error.message, "5 tokens"));
        assert_non_null(strstr(error.message, "at most 4"));
        settings.context_tokens = 100;
        settings.prompt_tokens_max = 4;
    }
    settings.prompt_tokens_max = 5;
    assert_true(
        exchange_open(&x, &settings, SERVER_API_COMPLETION, body, strlen(body), "7", &error));
    exchange_close(&x);
}

/* Later would not help. */
static void test_more_choices_than_are_taken_at_once_are_refused(void **state)
{
    (void)state;
    static const struct {
        server_api api;
        const char *body;
        const char *param; /* "": accepted */
    } cases[] = {
        {SERVER_API_CHAT, "{" ASK ", \"n\": 4}", ""},
        {SERVER_API_CHAT, "{" ASK ", \"n\": 5}", "n"},
        {SERVER_API_COMPLETION, "{\"prompt\": [\"a\", \"b\"], \"n\": 2}", ""},
        {SERVER_API_COMPLETION, "{\"prompt\": [\"a\", \"b\"], \"n\": 3}", "prompt"},
    };
    exchange_settings settings = g_settings;
    settings.choices_max = 4;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        server_exchange *x = NULL;
        server_error error = {0};
        const bool is_open = exchange_open(&x, &settings, cases[i].api, cases[i].body,
                                           strlen(cases[i].body), "7", &error);
        assert_int_equal(is_open, cases[i].param[0] == '\0');
        assert_string_equal(error.param, cases[i].param);
        assert_int_equal(error.status_code, is_open ? 0 : 400);
        assert_true(is_open || strstr(error.message, "at most 4 choices") != NULL);
        exchange_close(&x);
    }
}

static void test_prompts_and_messages_are_checked(void **state)
{
    (void)state;
    static const char *const prompts[] = {"null",       "[]",         "\"\"",  "5",
                                          "{}",         "[[]]",       "[1.5]", "[-1]",
                                          "[99999999]", "[1, \"a\"]", "[null]"};
    static const char *const messages[] = {
        "null", "[]", "5", "{}", "[5]", "[{}]", "[{\"role\": \"nobody\", \"content\": \"x\"}]"};
    char body[256];
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        (void)snprintf(body, sizeof body, "{\"prompt\": %s}", prompts[i]);
        refuse_body(SERVER_API_COMPLETION, body, strlen(body), 400, bad, "prompt");
    }
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        (void)snprintf(body, sizeof body, "{\"messages\": %s}", messages[i]);
        refuse_body(SERVER_API_CHAT, body, strlen(body), 400, bad, "messages");
    }
    refuse_body(SERVER_API_CHAT, "{}", 2, 400, bad, "messages");
    refuse_body(SERVER_API_COMPLETION, "{}", 2, 400, bad, "prompt");
    refuse(SERVER_API_CHAT, "\"tools\": 5", bad, "tools");
}

static void test_bodies_that_are_no_object_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "[]",
                                        "5",
                                        "{",
                                        "{} x",
                                        "{\"a\": 1, \"a\": 2}",
                                        "\"\xff\"",
                                        "nul",
                                        "{\"a\"}",
                                        "{\"a\": 01}",
                                        "{\"prompt\": \"\\u0000\"}",
                                        "{\"prompt\": \"\\ud800\"}",
                                        "\xef\xbb\xbf{}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        refuse_body(SERVER_API_CHAT, texts[i], strlen(texts[i]), 400, bad, "");
    }
    static const char with_nul[] = "{\"prompt\"\0: 1}";
    refuse_body(SERVER_API_CHAT, with_nul, sizeof with_nul - 1, 400, bad, "");
    char deep[20000];
    memset(deep, '[', sizeof deep);
    refuse_body(SERVER_API_CHAT, deep, sizeof deep, 400, bad, "");
}

static void test_numbers_may_be_long(void **state)
{
    (void)state;
    char more[1000] = "\"temperature\": 0.5";
    const size_t len = strlen(more);
    memset(more + len, '0', 900);
    more[len + 900] = '\0';
    qn_sampling s;
    server_exchange *x = open_with(SERVER_API_CHAT, more);
    (void)exchange_choice(x, 0, &s);
    assert_true(s.temperature == 0.5F);
    exchange_close(&x);
    memcpy(more + len + 890, "e999999", 8);
    refuse(SERVER_API_CHAT, more, bad, "temperature");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings_reach_the_request),
        cmocka_unit_test(test_a_request_may_choose_its_depth_of_speculation),
        cmocka_unit_test(test_a_pinned_length_fits_the_depth_of_a_request),
        cmocka_unit_test(test_without_parameters_the_models_own_hold),
        cmocka_unit_test(test_prompts_have_four_forms),
        cmocka_unit_test(test_thinking_and_effort_have_several_names),
        cmocka_unit_test(test_a_lower_effort_is_of_one_format_only),
        cmocka_unit_test(test_reasoning_comes_back_by_two_names),
        cmocka_unit_test(test_tools_are_of_the_prompt_unless_none_is_chosen),
        cmocka_unit_test(test_calls_come_in_pieces_in_whole_chats_too),
        cmocka_unit_test(test_streams_are_told),
        cmocka_unit_test(test_hints_are_named),
        cmocka_unit_test(test_hints_of_messages_parts_and_tools_are_named),
        cmocka_unit_test(test_what_changes_nothing_is_accepted),
        cmocka_unit_test(test_values_out_of_range_are_refused_by_name),
        cmocka_unit_test(test_values_that_do_not_go_together_are_refused),
        cmocka_unit_test(test_what_is_not_built_is_refused_by_name),
        cmocka_unit_test(test_what_the_model_cannot_see_is_refused_where_it_stands),
        cmocka_unit_test(test_unknown_names_are_refused_where_they_stand),
        cmocka_unit_test(test_unknown_names_are_told_the_nearest),
        cmocka_unit_test(test_models_of_other_names_are_not_found),
        cmocka_unit_test(test_prompts_that_do_not_fit_say_both_numbers),
        cmocka_unit_test(test_more_choices_than_are_taken_at_once_are_refused),
        cmocka_unit_test(test_prompts_and_messages_are_checked),
        cmocka_unit_test(test_bodies_that_are_no_object_are_refused),
        cmocka_unit_test(test_numbers_may_be_long),
    };
    return cmocka_run_group_tests(tests, model_open, model_close);
}
