/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/chat.h"

#include "base/buf.h"
#include "base/sha256.h"
#include "base/try.h"

#include <stdio.h>

static const char *const format_names[] = {"glm5", "glm5.1", "glm5.2"};

/* The published chat_template.jinja of GLM-5.2 (revision b4734de4). */
static const char glm52_template_sha256[] =
    "172dc74a35e1752df75ecfb2b2cf9326d2852bb1379868ebeec9571654489679";

enum { TEXT_BYTES_MAX = 1 << 30 };

const char *qn_chat_format_name(qn_chat_format format)
{
    return format_names[format];
}

qn_status qn_chat_format_parse(qn_chat_format *out, const char *name, qn_error *err)
{
    for (size_t i = 0; i < sizeof format_names / sizeof *format_names; i++) {
        if (strcmp(name, format_names[i]) == 0) {
            *out = (qn_chat_format)i;
            return QN_OK;
        }
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__,
                   "--chat-format: \"%s\", expected auto, glm5, glm5.1 or glm5.2", name);
}

qn_chat_format qn_chat_format_choose(qn_str text, bool has_index_share, bool *is_known)
{
    char digest[QN_SHA256_HEX_BYTES];
    *is_known = true;
    if (text.len > 0) {
        qn_sha256_hex(digest, text);
        if (strcmp(digest, glm52_template_sha256) == 0) {
            return QN_CHAT_GLM5_2;
        }
        *is_known = false;
    }
    return has_index_share ? QN_CHAT_GLM5_2 : QN_CHAT_GLM5;
}

/* ----------------------------------------------------------------------------------- rendering */

/* A prompt in the making: ids so far, and text that waits to be encoded as one piece. */
typedef struct renderer {
    qn_ids *out;
    const qn_tokenizer *tokenizer;
    const qn_chat_render_options *options;
    qn_buf text;
    qn_error *err;
} renderer;

static qn_status add_text(renderer *r, const char *ptr, size_t len)
{
    return qn_buf_append(&r->text, ptr, len, r->err);
}

static qn_status flush_text(renderer *r)
{
    qn_status status = QN_OK;
    if (r->text.len > 0) {
        status = qn_tokenizer_encode(r->tokenizer, qn_buf_view(&r->text), QN_ADDED_AS_TEXT, r->out,
                                     r->err);
        qn_buf_clear(&r->text);
    }
    return status;
}

static qn_status add_control(renderer *r, const char *name)
{
    qn_status status = QN_OK;
    const int32_t id = qn_tokenizer_added_id(r->tokenizer, qn_str_of(name));
    if (id < 0) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                       "tokenizer.json: no token %s, expected it for chat format %s", name,
                       qn_chat_format_name(r->options->format));
    }
    QN_TRY(status, flush_text(r), fail);
    QN_TRY(status, qn_ids_append(r->out, id, r->err), fail);
fail:
    return status;
}

static qn_status refuse(const renderer *r, size_t i, const char *field, const json_t *seen,
                        const char *expected)
{
    char text[64];
    qn_json_show(text, sizeof text, seen);
    return qn_fail(r->err, QN_E_FORMAT, 0, "qn_chat_render", "messages[%zu].%s: %s, expected %s", i,
                   field, text, expected);
}

/* Append a content to @p out: a string, nothing for null, or the texts of a list of parts. */
static qn_status read_content(const renderer *r, size_t i_message, const json_t *content,
                              qn_buf *out)
{
    size_t i;
    const json_t *part;
    if (content == NULL || json_is_null(content)) {
        return QN_OK;
    }
    if (json_is_string(content)) {
        return qn_buf_append(out, json_string_value(content), json_string_length(content), r->err);
    }
    if (!json_is_array(content)) {
        return refuse(r, i_message, "content", content, "a string or a list of text parts");
    }
    json_array_foreach(content, i, part)
    {
        const json_t *type = json_object_get(part, "type");
        const json_t *text = json_object_get(part, "text");
        char field[48];
        if (json_is_string(part)) {
            const qn_status status =
                qn_buf_append(out, json_string_value(part), json_string_length(part), r->err);
            if (status != QN_OK) {
                return status;
            }
            continue;
        }
        if (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0) {
            (void)snprintf(field, sizeof field, "content[%zu].type", i);
            return refuse(r, i_message, field, type,
                          "\"text\" (other parts are not supported by this version)");
        }
        if (!json_is_string(text)) {
            (void)snprintf(field, sizeof field, "content[%zu].text", i);
            return refuse(r, i_message, field, text, "a string");
        }
        const qn_status status =
            qn_buf_append(out, json_string_value(text), json_string_length(text), r->err);
        if (status != QN_OK) {
            return status;
        }
    }
    return QN_OK;
}

static qn_str find_first(qn_str text, const char *what)
{
    const char *at = text.len == 0 ? NULL : memmem(text.ptr, text.len, what, strlen(what));
    return at == NULL ? (qn_str){0} : (qn_str){at, strlen(what)};
}

static qn_str find_last(qn_str text, const char *what)
{
    qn_str last = {0};
    for (qn_str here = find_first(text, what); here.ptr != NULL;) {
        last = here;
        const char *after = here.ptr + here.len;
        here = find_first((qn_str){after, text.len - (size_t)(after - text.ptr)}, what);
    }
    return last;
}

/* Length in bytes of the white space character (of Python's str.strip) at the start; 0: none. */
static size_t space_at(const char *ptr, size_t len)
{
    static const char *const wide[] = {
        "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81",
        "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
        "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
        "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80",
    };
    if (len > 0 && (ptr[0] == ' ' || (ptr[0] >= '\t' && ptr[0] <= '\r') ||
                    (ptr[0] >= 0x1c && ptr[0] <= 0x1f))) {
        return 1;
    }
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        const size_t n = strlen(wide[i]);
        if (n <= len && memcmp(ptr, wide[i], n) == 0) {
            return n;
        }
    }
    return 0;
}

static qn_str strip(qn_str text)
{
    for (size_t n; (n = space_at(text.ptr, text.len)) > 0;) {
        text = (qn_str){text.ptr + n, text.len - n};
    }
    for (size_t n = 1; n > 0 && text.len > 0;) {
        n = 0; /* a white space character is 1, 2 or 3 bytes long */
        for (size_t k = 1; k <= 3 && k <= text.len && n == 0; k++) {
            n = space_at(text.ptr + text.len - k, k) == k ? k : 0;
        }
        text.len -= n;
    }
    return text;
}

static qn_status add_reasoning(renderer *r, qn_str reasoning)
{
    qn_status status = QN_OK;
    const bool is_lone_end = reasoning.ptr == NULL && r->options->format != QN_CHAT_GLM5_2;
    if (!is_lone_end) {
        QN_TRY(status, add_control(r, "<think>"), fail);
        QN_TRY(status, add_text(r, reasoning.ptr, reasoning.len), fail);
    }
    QN_TRY(status, add_control(r, "</think>"), fail);
fail:
    return status;
}

/* Reasoning apart (or inside the content, before </think>), then the answer without its blanks. */
static qn_status add_assistant(renderer *r, size_t i, const json_t *message, bool keep_reasoning)
{
    qn_status status = QN_OK;
    qn_buf content;
    qn_buf_init(&content, TEXT_BYTES_MAX);
    const json_t *given = json_object_get(message, "reasoning_content");
    QN_TRY(status, read_content(r, i, json_object_get(message, "content"), &content), fail);
    qn_str answer = qn_buf_view(&content);
    qn_str reasoning = {0};
    if (given != NULL && !json_is_null(given) && !json_is_string(given)) {
        status = refuse(r, i, "reasoning_content", given, "a string");
        goto fail;
    }
    if (json_is_string(given)) {
        reasoning = (qn_str){json_string_value(given), json_string_length(given)};
    } else if (find_first(answer, "</think>").ptr != NULL) {
        const qn_str last = find_last(answer, "</think>");
        reasoning = (qn_str){answer.ptr, (size_t)(find_first(answer, "</think>").ptr - answer.ptr)};
        const qn_str open = find_last(reasoning, "<think>");
        if (open.ptr != NULL) {
            const char *after = open.ptr + open.len;
            reasoning = (qn_str){after, reasoning.len - (size_t)(after - reasoning.ptr)};
        }
        const char *after = last.ptr + last.len;
        answer = (qn_str){after, answer.len - (size_t)(after - answer.ptr)};
    }
    QN_TRY(status, add_control(r, "<|assistant|>"), fail);
    QN_TRY(status, add_reasoning(r, keep_reasoning ? reasoning : (qn_str){0}), fail);
    answer = strip(answer);
    QN_TRY(status, add_text(r, answer.ptr, answer.len), fail);
fail:
    qn_buf_deinit(&content);
    return status;
}

static qn_status add_message(renderer *r, size_t i, const json_t *message, size_t i_last_user)
{
    qn_status status = QN_OK;
    const json_t *role = json_object_get(message, "role");
    const json_t *content = json_object_get(message, "content");
    const json_t *calls = json_object_get(message, "tool_calls");
    const char *name = json_is_string(role) ? json_string_value(role) : "";
    const bool is_system = strcmp(name, "system") == 0 || strcmp(name, "developer") == 0;
    if (!json_is_object(message)) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                       "messages[%zu]: %s, expected an object with role and content", i,
                       qn_json_type_name(message));
    }
    const bool has_no_calls = json_is_array(calls) && json_array_size(calls) == 0;
    if (calls != NULL && !json_is_null(calls) && !has_no_calls) {
        return refuse(r, i, "tool_calls", calls, "none (tools are not supported by this version)");
    }
    if (strcmp(name, "assistant") == 0) {
        const bool keep = r->options->keep_thinking || i_last_user == SIZE_MAX || i > i_last_user;
        return add_assistant(r, i, message, keep);
    }
    if (!is_system && strcmp(name, "user") != 0) {
        return refuse(r, i, "role", role,
                      "system, user or assistant (tools are not supported by this version)");
    }
    if (content == NULL || json_is_null(content)) {
        return refuse(r, i, "content", content, "a string or a list of text parts");
    }
    QN_TRY(status, add_control(r, is_system ? "<|system|>" : "<|user|>"), fail);
    QN_TRY(status, read_content(r, i, content, &r->text), fail);
fail:
    return status;
}

/* What stands before the first message. */
static qn_status add_opening(renderer *r)
{
    qn_status status = QN_OK;
    QN_TRY(status, add_control(r, "[gMASK]"), fail);
    QN_TRY(status, add_control(r, "<sop>"), fail);
    if (r->options->format == QN_CHAT_GLM5_2 && !r->options->no_thinking) {
        const char *line =
            r->options->is_effort_high ? "Reasoning Effort: High" : "Reasoning Effort: Max";
        QN_TRY(status, add_control(r, "<|system|>"), fail);
        QN_TRY(status, add_text(r, line, strlen(line)), fail);
    }
fail:
    return status;
}

/* What makes the model answer. */
static qn_status add_closing(renderer *r)
{
    qn_status status = QN_OK;
    QN_TRY(status, add_control(r, "<|assistant|>"), fail);
    if (!r->options->no_thinking) {
        QN_TRY(status, add_control(r, "<think>"), fail);
    } else {
        QN_TRY(status, add_reasoning(r, (qn_str){0}), fail);
    }
fail:
    return status;
}

static size_t last_user(const json_t *messages)
{
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const json_t *role = json_object_get(json_array_get(messages, i), "role");
        if (json_is_string(role) && strcmp(json_string_value(role), "user") == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

qn_status qn_chat_render(qn_ids *out, const qn_tokenizer *tokenizer, const json_t *messages,
                         const qn_chat_render_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    renderer r = {.out = out, .tokenizer = tokenizer, .options = options, .err = err};
    qn_buf_init(&r.text, TEXT_BYTES_MAX);
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "messages: %s, expected a list with at least one message",
                       json_is_array(messages) ? "an empty list" : qn_json_type_name(messages));
    }
    const size_t i_last_user = last_user(messages);
    QN_TRY(status, add_opening(&r), fail);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        QN_TRY(status, add_message(&r, i, json_array_get(messages, i), i_last_user), fail);
    }
    QN_TRY(status, add_closing(&r), fail);
fail:
    qn_buf_deinit(&r.text);
    return status;
}
