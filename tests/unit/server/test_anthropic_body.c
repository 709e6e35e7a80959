/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of /v1/messages: the same prompts as chat completions have, and every refusal. */
#include "exchange_fixture.h"
#include "support/fail_each.h"

#define HEAD  "{\"model\": \"m\", \"max_tokens\": 9, "
#define THINK "\"thinking\": {\"type\": \"enabled\", \"budget_tokens\": 2048}, "
#define HI    "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]"
#define QUIET "\"chat_template_kwargs\": {\"enable_thinking\": false}, "
#define SCHEMA                                                                                     \
    "{\"type\": \"object\", \"properties\": {\"n\": {\"type\": \"number\", "                       \
    "\"minimum\": 1.50, \"title\": \"gr\\u00fc\\u00df \\\"x\\\"\"}}, \"required\":[\"n\"]}"

/* What a conversation with tools has, here and there. */
#define CALLS                                                                                      \
    "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": "       \
    "\"text\", \"text\": \"b\"}]}, {\"role\": \"assistant\", \"content\": [{\"type\": "            \
    "\"thinking\", \"thinking\": \"hm \\\"q\\\"\", \"signature\": \"s\"}, {\"type\": "             \
    "\"redacted_thinking\", \"data\": \"zz\"}, {\"type\": \"text\", \"text\": \"I look.\"}, "      \
    "{\"type\": \"tool_use\", \"id\": \"t1\", \"name\": \"f\", \"input\": {\"n\": 1.50, \"s\": "   \
    "\"x\\ny\", \"o\": {\"b\": [1,2]}}}, {\"type\": \"tool_use\", \"id\": \"t2\", \"name\": "      \
    "\"f\", \"input\": {}}]}, {\"role\": \"user\", \"content\": [{\"type\": \"tool_result\", "     \
    "\"tool_use_id\": \"t2\", \"content\": [{\"type\": \"text\", \"text\": \"two\"}]}, {\"type\":" \
    " \"text\", \"text\": \"and?\"}, {\"type\": \"tool_result\", \"tool_use_id\": \"t1\", "        \
    "\"content\": \"one\", \"is_error\": true}]}]"
#define CHAT_CALLS                                                                                 \
    "[{\"role\": \"user\", \"content\": \"ab\"}, {\"role\": \"assistant\", "                       \
    "\"reasoning_content\": \"hm \\\"q\\\"\", \"content\": \"I look.\", \"tool_calls\": [{\"id\":" \
    " \"t1\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": "             \
    "\"{\\\"n\\\": 1.50, \\\"s\\\": \\\"x\\\\ny\\\", \\\"o\\\": {\\\"b\\\": [1,2]}}\"}}, "         \
    "{\"id\": \"t2\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": "     \
    "\"{}\"}}]}, {\"role\": \"tool\", \"tool_call_id\": \"t1\", \"content\": \"one\"}, {\"role\":" \
    " \"tool\", \"tool_call_id\": \"t2\", \"content\": \"two\"}, {\"role\": \"user\", "            \
    "\"content\": \"and?\"}]"
#define TOOLS                                                                                      \
    "\"tools\": [{\"input_schema\": " SCHEMA ", \"name\": \"f\", \"description\": \"d\", "         \
    "\"cache_control\": {\"type\": \"ephemeral\"}, \"eager_input_streaming\": true}, {\"type\": "  \
    "\"custom\", \"name\": \"g\", \"input_schema\": {\"type\": \"object\"}}], "
#define CHAT_TOOLS                                                                                 \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": "       \
    "\"d\", \"parameters\": " SCHEMA "}}, {\"type\": \"function\", \"function\": {\"name\": "      \
    "\"g\", \"parameters\": {\"type\": \"object\"}}}], "

typedef struct pair {
    const char *body;
    const char *chat;
} pair;

static const pair pairs[] = {
    {HEAD HI "}", "{" QUIET HI "}"},
    {HEAD "\"thinking\": {\"type\": \"disabled\"}, " HI "}", "{" QUIET HI "}"},
    {HEAD THINK HI "}", "{" HI "}"},
    {HEAD "\"thinking\": {\"type\": \"adaptive\"}, \"output_config\": {\"effort\": \"max\"}, " HI
          "}",
     "{" HI "}"},
    {HEAD THINK "\"output_config\": {\"effort\": \"medium\"}, " HI "}",
     "{\"reasoning_effort\": \"high\", " HI "}"},
    {HEAD "\"system\": \"Be <|user|> brief.\", " HI "}",
     "{" QUIET "\"messages\": [{\"role\": \"system\", \"content\": \"Be <|user|> brief.\"}, "
     "{\"role\": \"user\", \"content\": \"Hi\"}]}"},
    {HEAD "\"system\": [{\"type\": \"text\", \"text\": \"x-anthropic-billing-header: "
          "cc_version=2.1.88.a3f; cc_entrypoint=cli; cch=00000;\"}, {\"type\": \"text\", \"text\": "
          "\"Be\", \"cache_control\": {\"type\": \"ephemeral\"}}, {\"type\": \"text\", \"text\": "
          "\" brief.\"}], " HI "}",
     "{" QUIET "\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": "
     "\"user\", \"content\": \"Hi\"}]}"},
    {HEAD "\"system\": \"x-anthropic-billing-header: a\\\\n=1;\\nBe brief.\", " HI "}",
     "{" QUIET "\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": "
     "\"user\", \"content\": \"Hi\"}]}"},
    {HEAD "\"system\": \"x-anthropic-billing-header: a=1;\", " HI "}", "{" QUIET HI "}"},
    {HEAD "\"system\": [], " HI "}", "{" QUIET HI "}"},
    {HEAD THINK TOOLS "\"messages\": " CALLS "}", "{" CHAT_TOOLS "\"messages\": " CHAT_CALLS "}"},
    {HEAD THINK TOOLS "\"context_management\": {\"edits\": [{\"type\": "
                      "\"clear_thinking_20251015\", \"keep\": \"all\"}]}, \"messages\": " CALLS "}",
     "{\"chat_template_kwargs\": {\"clear_thinking\": false}, " CHAT_TOOLS
     "\"messages\": " CHAT_CALLS "}"},
    {HEAD "\"tool_choice\": {\"type\": \"none\"}, " TOOLS HI "}", "{" QUIET HI "}"},
    {HEAD THINK "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": "
                "\"assistant\", \"content\": [{\"type\": \"thinking\", \"thinking\": \"\", "
                "\"signature\": \"quern:deep\"}, {\"type\": \"tool_use\", \"id\": \"1\", "
                "\"name\": \"f\", \"input\": {}}]}, {\"role\": \"user\", \"content\": [{\"type\": "
                "\"tool_result\", \"tool_use_id\": \"1\"}]}]}",
     "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
     "\"reasoning_content\": \"deep\", \"content\": null, \"tool_calls\": [{\"type\": "
     "\"function\", \"function\": {\"name\": \"f\", \"arguments\": {}}}]}, {\"role\": \"tool\", "
     "\"content\": \"\"}]}"},
    {HEAD "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
          "\"content\": \"a</think>b\"}, {\"role\": \"system\", \"content\": \"Now.\"}, {\"role\": "
          "\"user\", \"content\": \"Go\"}]}",
     "{" QUIET "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": "
     "\"assistant\", \"reasoning_content\": \"\", \"content\": \"a</think>b\"}, {\"role\": "
     "\"system\", \"content\": \"Now.\"}, {\"role\": \"user\", \"content\": \"Go\"}]}"},
    {HEAD "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
          "\"content\": [{\"type\": \"text\", \"text\": \"The answer is \"}]}]}",
     "{" QUIET "\"continue_final_message\": true, \"add_generation_prompt\": false, "
     "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
     "\"content\": \"The answer is \"}]}"},
    {HEAD "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
          "\"content\": []}, {\"role\": \"user\", \"content\": \"Hi\"}]}",
     "{" QUIET "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": "
     "\"assistant\", \"content\": \"\"}, {\"role\": \"user\", \"content\": \"Hi\"}]}"},
    /* ids need to be their own in one turn only */
    {HEAD
     "\"messages\": [{\"role\": \"assistant\", \"content\": [{\"type\": \"tool_use\", \"id\": "
     "\"1\", \"name\": \"f\", \"input\": {}}]}, {\"role\": \"user\", \"content\": [{\"type\": "
     "\"tool_result\", \"tool_use_id\": \"1\", \"content\": []}]}, {\"role\": \"assistant\", "
     "\"content\": [{\"type\": \"tool_use\", \"id\": \"1\", \"name\": \"g\", \"input\": {}}]}, "
     "{\"role\": \"user\", \"content\": [{\"type\": \"tool_result\", \"tool_use_id\": \"1\", "
     "\"content\": \"x\"}]}]}",
     "{" QUIET
     "\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"name\": "
     "\"f\"}]}, {\"role\": \"tool\", \"content\": \"\"}, {\"role\": \"assistant\", \"content\": "
     "null, "
     "\"tool_calls\": [{\"name\": \"g\"}]}, {\"role\": \"tool\", \"content\": \"x\"}]}"},
};

static qn_request prompt_of(const server_exchange *x)
{
    qn_sampling sampling;
    assert_int_equal(exchange_n_choices(x), 1);
    return exchange_choice(x, 0, &sampling);
}

static void test_messages_have_the_prompts_of_chat_completions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        uint64_t n_counted = 0;
        server_error error = {0};
        server_exchange *x = open_body(SERVER_API_MESSAGES, pairs[i].body);
        server_exchange *chat = open_body(SERVER_API_CHAT, pairs[i].chat);
        const qn_request a = prompt_of(x);
        const qn_request b = prompt_of(chat);
        if (a.n_ids != b.n_ids || memcmp(a.ids, b.ids, a.n_ids * sizeof a.ids[0]) != 0) {
            char *texts[2] = {NULL, NULL};
            size_t len = 0;
            assert_int_equal(qn_decode(&texts[0], &len, g_settings.model, a.ids, a.n_ids, NULL), 0);
            assert_int_equal(qn_decode(&texts[1], &len, g_settings.model, b.ids, b.n_ids, NULL), 0);
            fail_msg("pair %zu:\n%s\n%s", i, texts[0], texts[1]);
        }
        assert_true(exchange_count_tokens(&n_counted, &g_settings, SERVER_API_MESSAGES,
                                          pairs[i].body, strlen(pairs[i].body), &error));
        assert_int_equal(n_counted, a.n_ids);
        assert_int_equal(exchange_n_prompt_tokens(x), a.n_ids);
        exchange_close(&x);
        exchange_close(&chat);
    }
}

/* Which chat completions refuse, but not the prompt's format. */
static void test_messages_show_tools_that_a_search_found(void **state)
{
    (void)state;
    static const char tools[] =
        "[{\"name\": \"s\", \"parameters\": {}}, {\"name\": \"f\", \"parameters\": {}, "
        "\"defer_loading\": true}]";
    static const char messages[] =
        "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"tool_calls\": "
        "[{\"name\": \"s\"}]}, {\"role\": \"tool\", \"content\": [{\"type\": "
        "\"tool_reference\", \"name\": \"f\"}]}]";
    const qn_chat_options options = {
        .tools_json = tools, .tools_len = strlen(tools), .no_thinking = true};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    server_exchange *x = open_body(
        SERVER_API_MESSAGES,
        HEAD "\"tools\": [{\"name\": \"s\", \"input_schema\": {}}, {\"name\": \"f\", "
             "\"input_schema\": {}, \"defer_loading\": true}], \"messages\": [{\"role\": "
             "\"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": [{\"type\": "
             "\"tool_use\", \"id\": \"1\", \"name\": \"s\", \"input\": {}}]}, {\"role\": \"user\", "
             "\"content\": [{\"type\": \"tool_result\", \"tool_use_id\": \"1\", \"content\": "
             "[{\"type\": \"tool_reference\", \"tool_name\": \"f\"}]}]}]}");
    assert_int_equal(
        qn_chat_encode(&ids, &n_ids, g_settings.model, &options, messages, strlen(messages), NULL),
        QN_OK);
    const qn_request r = prompt_of(x);
    assert_int_equal(r.n_ids, n_ids);
    assert_memory_equal(r.ids, ids, n_ids * sizeof ids[0]);
    qn_free(ids);
    exchange_close(&x);
}

static void test_messages_parameters_reach_the_request(void **state)
{
    (void)state;
    qn_sampling s;
    server_exchange *x = open_body(
        SERVER_API_MESSAGES,
        "{\"max_tokens\": 77, \"temperature\": 0.25, \"top_p\": 0.5, \"top_k\": 3, \"seed\": 5, "
        "\"stop_sequences\": [\"A\", \"\\n\"], \"priority\": -2, \"cache_salt\": \"me\", "
        "\"stream\": true, \"tool_choice\": {\"type\": \"auto\", \"disable_parallel_tool_use\": "
        "true}, " TOOLS HI "}");
    const qn_request r = exchange_choice(x, 0, &s);
    assert_int_equal(r.max_tokens, 77);
    assert_true(s.temperature == 0.25F && s.top_p == 0.5F && s.top_k == 3 && s.seed == 5);
    assert_int_equal(r.n_stops, 2);
    assert_string_equal(r.stops[1], "\n");
    assert_int_equal(r.priority, -2);
    assert_memory_equal(r.cache_salt, "me", 2);
    assert_true(r.single_call && r.streams_calls && exchange_streams(x));
    assert_non_null(strstr(r.tools_json, "1.50"));
    exchange_close(&x);
    x = open_body(SERVER_API_MESSAGES, HEAD HI "}");
    const qn_request plain = exchange_choice(x, 0, &s);
    assert_false(plain.single_call || exchange_streams(x));
    assert_true(plain.streams_calls); /* a call that is cut off is the same, whole or streamed */
    assert_null(plain.tools_json);
    assert_string_equal(exchange_ignored(x), "");
    exchange_close(&x);
}

static void test_messages_name_hints_once(void **state)
{
    (void)state;
    server_exchange *x =
        open_body(SERVER_API_MESSAGES, HEAD THINK
                  "\"metadata\": {\"user_id\": \"u\"}, \"service_tier\": \"auto\", \"system\": "
                  "[{\"type\": \"text\", \"text\": \"a\", \"cache_control\": {\"type\": "
                  "\"ephemeral\"}}, {\"type\": \"text\", \"text\": \"b\", \"cache_control\": "
                  "{\"type\": \"ephemeral\"}}], " TOOLS HI "}");
    assert_string_equal(exchange_ignored(x), "thinking.budget_tokens, metadata, service_tier, "
                                             "cache_control, eager_input_streaming");
    exchange_close(&x);
    x = open_body(SERVER_API_MESSAGES, HEAD "\"output_config\": {\"effort\": \"low\"}, " HI "}");
    assert_string_equal(exchange_ignored(x), "output_config.effort");
    exchange_close(&x);
}

/* Clients add some from time to time; what is no plain name is not shown in a header. */
static void test_messages_name_keys_that_nothing_reads(void **state)
{
    (void)state;
    server_exchange *x = open_body(
        SERVER_API_MESSAGES, HEAD
        "\"messages\": [{\"role\": \"user\", \"new_key\": 1, \"content\": [{\"type\": \"text\", "
        "\"text\": \"a\", \"citations\": null, \"a\\r\\nb: c\": 1, \"new_key\": 2}]}, {\"role\": "
        "\"user\", \"content\": \"a\", \"\": 1}], \"tools\": [{\"name\": \"f\", \"input_schema\": "
        "{}, \"other-key\": {}}]}");
    assert_string_equal(exchange_ignored(x), "new_key, ?, other-key");
    exchange_close(&x);
    qn_buf body = {.bytes_max = 1 << 20};
    assert_int_equal(
        qn_buf_append_printf(&body, NULL, "%s", HEAD "\"messages\": [{\"role\": \"user\", "),
        QN_OK);
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(qn_buf_append_printf(&body, NULL, "\"key_%d\": 1, ", i), QN_OK);
    }
    assert_int_equal(qn_buf_append_printf(&body, NULL, "\"content\": \"a\"}]}"), QN_OK);
    x = open_body(SERVER_API_MESSAGES, body.ptr);
    assert_in_range(strlen(exchange_ignored(x)), 500, 1100);
    exchange_close(&x);
    qn_buf_deinit(&body);
}

/* ------------------------------------------------------------------------------------ refusals */

#define USER(content) HEAD "\"messages\": [{\"role\": \"user\", \"content\": " content "}]}"
#define TOOL(tool)    HEAD "\"tools\": [" tool "], " HI "}"
#define USE           "{\"type\": \"tool_use\", \"id\": \"1\", \"name\": \"f\", \"input\": {}}"
#define AFTER_USE(content)                                                                         \
    HEAD "\"messages\": [{\"role\": \"assistant\", \"content\": [" USE "]}, {\"role\": \"user\", " \
         "\"content\": [" content "]}]}"

typedef struct refusal {
    const char *body;
    const char *code;
    const char *param;
    const char *words;
} refusal;

static const char bad[] = "invalid_value";
static const char unbuilt[] = "unsupported_parameter";

static const refusal refusals[] = {
    {"{" HI "}", bad, "max_tokens", "max_tokens: missing, expected a whole number from 1"},
    {"{\"max_tokens\": 0, " HI "}", bad, "max_tokens", "max_tokens: 0, "},
    {"{\"max_tokens\": 1}", bad, "messages", "messages: missing, "},
    {HEAD "\"messages\": []}", bad, "messages", "at least one message"},
    {HEAD "\"messages\": {}}", bad, "messages", "messages: {}"},
    {HEAD "\"messages\": [3]}", bad, "messages[0].role", "missing, expected user, assistant"},
    {HEAD "\"messages\": [{\"role\": \"tool\", \"content\": \"\"}]}", bad, "messages[0].role",
     "\"tool\", expected user, assistant or system"},
    {USER("3"), bad, "messages[0].content", "3, expected a text or a list of blocks"},
    {USER("[]"), bad, "messages[0].content", "[], "},
    {USER("[\"a\"]"), bad, "messages[0].content[0].type", "missing, expected text or tool_result"},
    {USER("[{\"type\": \"text\"}]"), bad, "messages[0].content[0].text", "missing"},
    {USER("[{\"type\": \"image\", \"source\": {}}]"), unbuilt, "messages[0].content[0].type",
     "\"image\", expected text or tool_result"},
    {USER("[{\"type\": \"document\"}]"), unbuilt, "messages[0].content[0].type", "document"},
    {USER("[{\"type\": \"search_result\"}]"), unbuilt, "messages[0].content[0].type", "search"},
    {USER("[{\"type\": \"tool_result\", \"tool_use_id\": \"1\"}]"), bad,
     "messages[0].content[0].tool_use_id", "\"1\", expected the id of a tool_use before it"},
    {AFTER_USE("{\"type\": \"tool_result\"}"), bad, "messages[1].content[0].tool_use_id", "miss"},
    {AFTER_USE("{\"type\": \"tool_result\", \"tool_use_id\": \"1\"}, {\"type\": \"tool_result\", "
               "\"tool_use_id\": \"1\"}"),
     bad, "messages[1].content[1].tool_use_id", "no other result"},
    {AFTER_USE("{\"type\": \"tool_result\", \"tool_use_id\": \"1\", \"content\": [{\"type\": "
               "\"image\"}]}"),
     unbuilt, "messages[1].content[0].content[0].type", "\"image\", expected text"},
    {AFTER_USE("{\"type\": \"tool_result\", \"tool_use_id\": \"1\", \"content\": 5}"), bad,
     "messages[1].content[0].content", "5, "},
    {AFTER_USE("{\"type\": \"tool_result\", \"tool_use_id\": \"1\", \"content\": [{\"type\": "
               "\"tool_reference\", \"tool_name\": \"\"}]}"),
     bad, "messages[1].content[0].content[0].tool_name", "name of a tool"},
    {HEAD "\"messages\": [{\"role\": \"assistant\", \"content\": [" USE "]}]}", bad,
     "messages[0].content", "expected a tool_result behind"},
    {HEAD "\"messages\": [{\"role\": \"assistant\", \"content\": []}]}", bad, "messages[0].content",
     "[], expected a text that the answer goes on from"},
    {HEAD "\"messages\": [{\"role\": \"assistant\", \"content\": [{\"type\": \"thinking\", "
          "\"thinking\": \"a\"}]}]}",
     bad, "messages[0].content", "a text that the answer goes on from"},
    {HEAD "\"messages\": [{\"role\": \"assistant\", \"content\": [" USE ", " USE "]}]}", bad,
     "messages[0].content[1].id", "\"1\", expected an id of its own"},
    {HEAD "\"messages\": [{\"role\": \"assistant\", \"content\": [{\"type\": \"tool_use\", \"id\": "
          "\"1\", \"name\": \"\", \"input\": {}}]}]}",
     bad, "messages[0].content[0].name", "\"\", expected the name"},
    {HEAD "\"messages\": [{\"role\": \"assistant\", \"content\": [{\"type\": \"tool_use\", \"id\": "
          "\"1\", \"name\": \"f\", \"input\": \"{}\"}]}]}",
     bad, "messages[0].content[0].input", "expected an object"},
    {HEAD "\"messages\": [{\"role\": \"assistant\", \"content\": [{\"type\": "
          "\"server_tool_use\"}]}]}",
     unbuilt, "messages[0].content[0].type", "server_tool_use"},
    {HEAD "\"system\": 5, " HI "}", bad, "system", "5, expected a text or a list"},
    {HEAD "\"system\": [{\"type\": \"image\"}], " HI "}", unbuilt, "system[0].type", "image"},
    {TOOL("{\"type\": \"web_search_20250305\", \"name\": \"web_search\"}"), unbuilt,
     "tools[0].type", "\"web_search_20250305\", expected custom"},
    {TOOL("{\"name\": \"f\"}"), bad, "tools[0].input_schema", "missing"},
    {TOOL("{\"name\": \"\", \"input_schema\": {}}"), bad, "tools[0].name", "name of a tool"},
    {TOOL("{\"name\": \"f\", \"input_schema\": {}, \"description\": 1}"), bad,
     "tools[0].description", "1, "},
    {TOOL("{\"name\": \"f\", \"input_schema\": {}, \"defer_loading\": 1}"), bad,
     "tools[0].defer_loading", "true or false"},
    {TOOL("{\"name\": \"f\", \"input_schema\": {}, \"input_examples\": 1}"), bad,
     "tools[0].input_examples", "a list"},
    {HEAD "\"tools\": 1, " HI "}", bad, "tools", "1, expected a list"},
    {HEAD "\"tool_choice\": {\"type\": \"any\"}, " HI "}", unbuilt, "tool_choice.type",
     "cannot be forced"},
    {HEAD "\"tool_choice\": {\"type\": \"tool\", \"name\": \"f\"}, " HI "}", unbuilt,
     "tool_choice.type", "\"tool\", "},
    {HEAD "\"tool_choice\": \"auto\", " HI "}", bad, "tool_choice.type", "missing"},
    {HEAD "\"tool_choice\": {\"type\": \"auto\", \"disable_parallel_tool_use\": 1}, " HI "}", bad,
     "tool_choice.disable_parallel_tool_use", "true or false"},
    {HEAD "\"thinking\": true, " HI "}", bad, "thinking.type", "enabled, adaptive or disabled"},
    {HEAD "\"thinking\": {\"type\": \"adaptive\", \"display\": \"x\"}, " HI "}", bad,
     "thinking.display", "summarized or omitted"},
    {HEAD "\"output_config\": {\"effort\": \"none\"}, " HI "}", bad, "output_config.effort",
     "\"none\", "},
    {HEAD "\"output_config\": {\"format\": {\"type\": \"json_schema\"}}, " HI "}", unbuilt,
     "output_config.format", "json_schema"},
    {HEAD "\"output_config\": 1, " HI "}", bad, "output_config", "an object"},
    {HEAD "\"context_management\": {\"edits\": [{\"type\": \"clear_tool_uses_20250919\"}]}, " HI
          "}",
     unbuilt, "context_management.edits.type", "clear_tool_uses_20250919"},
    {HEAD "\"context_management\": {\"edits\": [{\"type\": \"clear_thinking_20251015\", \"keep\": "
          "{\"type\": \"thinking_turns\", \"value\": 2}}]}, " HI "}",
     unbuilt, "context_management.edits.keep", "one turn"},
    {HEAD "\"context_management\": [], " HI "}", bad, "context_management", "[]"},
    {HEAD "\"mcp_servers\": [{}], " HI "}", unbuilt, "mcp_servers", "expected []"},
    {HEAD "\"container\": \"c\", " HI "}", unbuilt, "container", "expected null"},
    {HEAD "\"output_format\": {}, " HI "}", unbuilt, "output_format", "expected null"},
    {HEAD "\"stop_sequences\": \"a\", " HI "}", bad, "stop_sequences", "a list of texts"},
    {HEAD "\"stop_sequences\": [\"\"], " HI "}", bad, "stop_sequences", "1 to 1024 bytes"},
    {HEAD "\"temperature\": 2.5, " HI "}", bad, "temperature", "2.5, expected a number in 0 .. 2"},
    {HEAD "\"stream\": 1, " HI "}", bad, "stream", "true or false"},
    {HEAD "\"max_token\": 1, " HI "}", "unknown_parameter", "max_token", "max_tokens"},
    {"[]", bad, "", "a JSON object"},
    {"{", bad, "", "body: line 1"},
};

static void test_messages_refuse_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const refusal *const r = &refusals[i];
        server_exchange *x = NULL;
        server_error error = {0};
        assert_false(exchange_open(&x, &g_settings, SERVER_API_MESSAGES, r->body, strlen(r->body),
                                   "7", &error));
        assert_null(x);
        if (error.status_code != 400 || strcmp(error.code, r->code) != 0 ||
            strcmp(error.param, r->param) != 0 || strstr(error.message, r->words) == NULL) {
            fail_msg("%d %s %s: %s\n%s", error.status_code, error.code, error.param, error.message,
                     r->body);
        }
    }
}

static void test_messages_know_the_model(void **state)
{
    (void)state;
    static const char *const names[] = {"glm", "alias"};
    server_exchange *x = NULL;
    server_error error = {0};
    g_settings.names = names;
    g_settings.n_names = 2;
    static const char other[] = HEAD HI "}";
    assert_false(
        exchange_open(&x, &g_settings, SERVER_API_MESSAGES, other, strlen(other), "7", &error));
    assert_int_equal(error.status_code, 404);
    x = open_body(SERVER_API_MESSAGES, "{\"model\": \"alias\", \"max_tokens\": 1, " HI "}");
    exchange_close(&x);
    g_settings.names = NULL;
    g_settings.n_names = 0;
}

/* A count needs no max_tokens, and may end where no answer can go on. */
static void test_messages_count_what_is_no_question(void **state)
{
    (void)state;
    static const char body[] =
        "{\"messages\": [{\"role\": \"assistant\", \"content\": [" USE "]}]}";
    uint64_t n = 0;
    server_error error = {0};
    assert_true(
        exchange_count_tokens(&n, &g_settings, SERVER_API_MESSAGES, body, strlen(body), &error));
    assert_true(n > 5);
}

static void test_messages_take_256_calls_in_a_turn(void **state)
{
    (void)state;
    for (int n = 256; n <= 257; n++) {
        server_exchange *x = NULL;
        server_error error = {0};
        qn_buf body;
        qn_buf_init(&body, 1 << 20);
        assert_int_equal(qn_buf_append_printf(&body, NULL, "%s",
                                              HEAD "\"messages\": [{\"role\": "
                                                   "\"assistant\", "
                                                   "\"content\": ["),
                         QN_OK);
        for (int i = 0; i < n; i++) {
            assert_int_equal(qn_buf_append_printf(&body, NULL,
                                                  "%s{\"type\": \"tool_use\", \"id\": \"%d\", "
                                                  "\"name\": \"f\", \"input\": {}}",
                                                  i > 0 ? "," : "", i),
                             QN_OK);
        }
        assert_int_equal(qn_buf_append_printf(&body, NULL,
                                              "]}, {\"role\": \"user\", \"content\": "
                                              "\"Go\"}]}"),
                         QN_OK);
        assert_int_equal(
            exchange_open(&x, &g_settings, SERVER_API_MESSAGES, body.ptr, body.len, "7", &error),
            n == 256);
        exchange_close(&x);
        qn_buf_deinit(&body);
    }
}

static qn_status open_with_little_memory(qn_error *err)
{
    static const char body[] = HEAD THINK TOOLS
        "\"stop_sequences\": [\"a\"], \"cache_salt\": \"s\", \"metadata\": {}, \"system\": "
        "[{\"type\": \"text\", \"text\": \"a\", \"cache_control\": {}}], \"messages\": " CALLS "}";
    server_exchange *x = NULL;
    server_error error = {0};
    if (exchange_open(&x, &g_settings, SERVER_API_MESSAGES, body, strlen(body), "7", &error)) {
        exchange_close(&x);
        return QN_OK;
    }
    assert_null(x);
    assert_int_equal(error.status_code, 503);
    return qn_fail(err, QN_E_NOMEM, 0, __func__, "%s", error.message);
}

static void test_messages_without_memory_are_503(void **state)
{
    (void)state;
    fail_each(open_with_little_memory, 1, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_have_the_prompts_of_chat_completions),
        cmocka_unit_test(test_messages_show_tools_that_a_search_found),
        cmocka_unit_test(test_messages_parameters_reach_the_request),
        cmocka_unit_test(test_messages_name_hints_once),
        cmocka_unit_test(test_messages_name_keys_that_nothing_reads),
        cmocka_unit_test(test_messages_refuse_by_name),
        cmocka_unit_test(test_messages_know_the_model),
        cmocka_unit_test(test_messages_count_what_is_no_question),
        cmocka_unit_test(test_messages_take_256_calls_in_a_turn),
        cmocka_unit_test(test_messages_without_memory_are_503),
    };
    return cmocka_run_group_tests(tests, model_open, model_close);
}
