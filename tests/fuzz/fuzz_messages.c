/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a conversation: a prompt has the control tokens of its turns, and no others. */
#include "base/assert.h"
#include "chat/chat.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static qn_tokenizer *g_tokenizer;

static size_t count_ids(const qn_ids *ids, const char *name)
{
    const int32_t id = qn_tokenizer_added_id(g_tokenizer, qn_str_of(name));
    size_t n = 0;
    QN_ASSERT(id >= 0);
    for (size_t i = 0; i < ids->n_ids; i++) {
        n += ids->ids[i] == id ? 1 : 0;
    }
    return n;
}

static size_t count_role(const qn_json_node *messages, const char *role)
{
    const qn_json_node *message = messages + 1;
    size_t n = 0;
    for (uint32_t i = 0; i < messages->n_children; i++, message = qn_json_after(message)) {
        n += qn_json_string_is(qn_json_member(message, "role"), qn_str_of(role)) ? 1 : 0;
    }
    return n;
}

static void check_prompt(const qn_ids *ids, const qn_json_node *messages)
{
    QN_ASSERT(count_ids(ids, "[gMASK]") == 1);
    QN_ASSERT(count_ids(ids, "<|user|>") == count_role(messages, "user"));
    QN_ASSERT(count_ids(ids, "<|assistant|>") == count_role(messages, "assistant") + 1);
    QN_ASSERT(count_ids(ids, "<tool_call>") == count_ids(ids, "</tool_call>"));
    QN_ASSERT(count_ids(ids, "<arg_key>") == count_ids(ids, "</arg_value>"));
    QN_ASSERT(count_ids(ids, "<tool_response>") >= count_ids(ids, "<|observation|>"));
}

/* What Python would print is JSON that prints the same once more. */
static void check_text(const qn_json_node *node)
{
    qn_buf once;
    qn_buf twice;
    qn_json_doc doc;
    qn_buf_init(&once, 1 << 30);
    qn_buf_init(&twice, 1 << 30);
    QN_ASSERT(qn_json_python_append(&once, node, NULL) == QN_OK);
    QN_ASSERT(qn_json_scan(qn_buf_view(&once), NULL));
    QN_ASSERT(qn_json_doc_open(&doc, qn_buf_view(&once), "once", NULL) == QN_OK);
    QN_ASSERT(qn_json_python_append(&twice, doc.nodes, NULL) == QN_OK);
    QN_ASSERT(qn_str_equal(qn_buf_view(&once), qn_buf_view(&twice)));
    qn_json_doc_close(&doc);
    qn_buf_deinit(&once);
    qn_buf_deinit(&twice);
}

static void check(const qn_json_node *messages)
{
    check_text(messages);
    for (int i = 0; i < 4; i++) {
        const qn_chat_render_options options = {
            .format = i == 0 ? QN_CHAT_GLM5 : QN_CHAT_GLM5_2,
            .no_thinking = i == 1,
            .keep_thinking = i == 2,
        };
        qn_ids ids = {0};
        qn_error err = {0};
        if (qn_chat_render(&ids, g_tokenizer, messages, NULL, &options, &err) == QN_OK) {
            check_prompt(&ids, messages);
        } else {
            QN_ASSERT(err.text[0] != '\0');
        }
        qn_ids_deinit(&ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    static const char path[] = QN_SOURCE_DIR "/models/glm-nano/tokenizer.json";
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    QN_ASSERT(g_tokenizer != NULL || qn_tokenizer_open_file(&g_tokenizer, path, NULL) == QN_OK);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    qn_json_doc doc;
    qn_error err = {0};
    const qn_str text = {.ptr = exact, .len = n_bytes};
    const qn_status status = qn_json_doc_open(&doc, text, "messages", &err);
    QN_ASSERT(status < 0 || qn_json_scan(text, NULL));
    if (status == QN_OK) {
        check(doc.nodes);
    } else {
        QN_ASSERT(doc.nodes == NULL && err.text[0] != '\0');
    }
    qn_json_doc_close(&doc);
    free(exact);
    return 0;
}
