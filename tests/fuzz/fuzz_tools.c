/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a list of tools: what is accepted is rendered, and adds no control tokens. */
#include "base/assert.h"
#include "chat/chat.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static qn_tokenizer *g_tokenizer;
static qn_json_doc g_messages; /* each way in which a conversation may name a tool */

static void open_fixtures(void)
{
    static const char path[] = QN_SOURCE_DIR "/models/glm-nano/tokenizer.json";
    static const char messages[] =
        "[{\"role\": \"user\", \"content\": \"q\"},"
        " {\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"a\": "
        "1}}]},"
        " {\"role\": \"tool\", \"content\": [{\"type\": \"tool_reference\", \"name\": \"f\"}]}]";
    if (g_tokenizer == NULL) {
        QN_ASSERT(qn_tokenizer_open_file(&g_tokenizer, path, NULL) == QN_OK);
        QN_ASSERT(qn_json_doc_open(&g_messages, qn_str_of(messages), "messages", NULL) == QN_OK);
    }
}

static void check_prompt(const qn_ids *ids, bool has_tools)
{
    const struct {
        const char *name;
        size_t n;
    } expected[] = {
        {"[gMASK]", 1},         {"<|system|>", has_tools ? 2 : 1},
        {"<|user|>", 1},        {"<|assistant|>", 2},
        {"<|observation|>", 1}, {"<tool_call>", has_tools ? 2 : 1},
        {"<tool_response>", 1}, {"<arg_value>", has_tools ? 3 : 1},
        {"<think>", 2},
    };
    for (size_t k = 0; k < sizeof expected / sizeof *expected; k++) {
        const int32_t id = qn_tokenizer_added_id(g_tokenizer, qn_str_of(expected[k].name));
        size_t n = 0;
        for (size_t i = 0; i < ids->n_ids; i++) {
            n += ids->ids[i] == id ? 1 : 0;
        }
        QN_ASSERT(n == expected[k].n);
    }
}

static void check(const qn_json_node *tools)
{
    const qn_chat_render_options options = {.format = QN_CHAT_GLM5_2};
    qn_ids ids = {0};
    qn_error err = {0};
    const qn_status checked = qn_chat_tools_check(tools, &err);
    const qn_status status =
        qn_chat_render(&ids, g_tokenizer, g_messages.nodes, tools, &options, &err);
    QN_ASSERT(status == checked);
    if (status == QN_OK) {
        check_prompt(&ids, tools->n_children > 0);
    } else {
        QN_ASSERT(strncmp(err.text, "tools", strlen("tools")) == 0);
    }
    qn_ids_deinit(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    open_fixtures();
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    qn_json_doc doc;
    qn_error err = {0};
    if (qn_json_doc_open(&doc, (qn_str){.ptr = exact, .len = n_bytes}, "tools", &err) == QN_OK) {
        check(doc.nodes);
    } else {
        QN_ASSERT(err.text[0] != '\0');
    }
    qn_json_doc_close(&doc);
    free(exact);
    return 0;
}
