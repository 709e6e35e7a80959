/* SPDX-License-Identifier: Apache-2.0 */
#include "conversation.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static qn_status no_memory(qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, 0, __func__, "conversation: no memory");
}

static bool has_role(const json_t *message, const char *role)
{
    const char *const seen = json_string_value(json_object_get(message, "role"));
    return seen != NULL && strcmp(seen, role) == 0;
}

const char *conversation_system(const json_t *messages)
{
    const json_t *const first = json_array_get(messages, 0);
    return has_role(first, "system") ? json_string_value(json_object_get(first, "content")) : NULL;
}

qn_status conversation_set_system(json_t *messages, const char *text, qn_error *err)
{
    qn_status status = QN_OK;
    json_t *const made = json_array();
    if (made != NULL && text != NULL) {
        status = cli_append_message(made, "system", "system", text, strlen(text), err);
    }
    if (status == QN_OK && made == NULL) {
        status = no_memory(err);
    }
    if (status == QN_OK && text != NULL &&
        json_array_insert(messages, 0, json_array_get(made, 0)) != 0) {
        status = no_memory(err);
    }
    const size_t i_old = text != NULL ? 1 : 0;
    if (status == QN_OK && has_role(json_array_get(messages, i_old), "system")) {
        (void)json_array_remove(messages, i_old);
    }
    json_decref(made);
    return status;
}

void conversation_clear(json_t *messages)
{
    const size_t n_kept = has_role(json_array_get(messages, 0), "system") ? 1 : 0;
    while (json_array_size(messages) > n_kept) {
        (void)json_array_remove(messages, json_array_size(messages) - 1);
    }
}

bool conversation_drop_unanswered(json_t *messages)
{
    const size_t n = json_array_size(messages);
    return n > 0 && has_role(json_array_get(messages, n - 1), "user") &&
           json_array_remove(messages, n - 1) == 0;
}

qn_status conversation_add_answer(json_t *messages, const char *reasoning, const char *text,
                                  json_t *calls, qn_error *err)
{
    json_t *const message = json_pack("{ss, ss}", "role", "assistant", "content", text);
    int failed = message == NULL;
    if (reasoning[0] != '\0') {
        failed |= json_object_set_new(message, "reasoning_content", json_string(reasoning));
    }
    if (json_array_size(calls) > 0) {
        failed |= json_object_set(message, "tool_calls", calls);
    }
    if (failed != 0) {
        json_decref(message);
        return no_memory(err);
    }
    return json_array_append_new(messages, message) == 0 ? QN_OK : no_memory(err);
}

qn_status conversation_add_result(json_t *messages, const json_t *call, const char *text,
                                  size_t len, qn_error *err)
{
    const qn_status status = cli_append_message(messages, "tool", "result", text, len, err);
    const size_t i_last = json_array_size(messages) - 1;
    json_t *const message = json_array_get(messages, i_last);
    if (status == QN_OK &&
        json_object_set(message, "tool_call_id", json_object_get(call, "id")) != 0) {
        (void)json_array_remove(messages, i_last);
        return no_memory(err);
    }
    return status;
}

static bool write_messages(FILE *file, void *messages)
{
    return json_dumpf(messages, file, JSON_INDENT(2)) == 0 && fputc('\n', file) != EOF;
}

qn_status conversation_save(json_t *messages, const char *path, qn_error *err)
{
    return cli_replace_private_file(path, write_messages, messages, err);
}

qn_status conversation_load(json_t **out, const char *path, qn_error *err)
{
    char *text = NULL;
    size_t len = 0;
    json_error_t why;
    struct stat there;
    *out = NULL;
    if (strcmp(path, "-") == 0 || (stat(path, &there) == 0 && !S_ISREG(there.st_mode))) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: no file, expected one that /save wrote",
                       path);
    }
    const qn_status status = cli_read_text(&text, &len, path, err);
    if (status < 0) {
        return status;
    }
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    free(text);
    if (*out == NULL) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: line %d, column %d: %s, expected a JSON array of messages", path,
                       why.line, why.column, why.text);
    }
    if (!json_is_array(*out)) {
        json_decref(*out);
        *out = NULL;
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: no JSON array, expected an array of messages", path);
    }
    return QN_OK;
}
