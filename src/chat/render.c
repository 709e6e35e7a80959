/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to a prompt, as the published template of GLM-5.2 renders them. */
#include "chat/render.h"

#include "base/try.h"

#include <stdarg.h>

qn_status qn_chat_add_text(qn_chat_prompt *p, qn_str text)
{
    return qn_buf_append(&p->text, text.ptr, text.len, p->err);
}

qn_status qn_chat_flush(qn_chat_prompt *p)
{
    qn_status status = QN_OK;
    if (p->text.len > 0) {
        status = qn_tokenizer_encode(p->tokenizer, qn_buf_view(&p->text), QN_ADDED_AS_TEXT, p->out,
                                     p->err);
        qn_buf_clear(&p->text);
    }
    return status;
}

qn_status qn_chat_add_control(qn_chat_prompt *p, const char *name)
{
    qn_status status = QN_OK;
    const int32_t id = qn_tokenizer_added_id(p->tokenizer, qn_str_of(name));
    if (id < 0) {
        return qn_fail(p->err, QN_E_FORMAT, 0, __func__,
                       "tokenizer.json: no token %s, expected it for chat format %s", name,
                       qn_chat_format_name(p->options->format));
    }
    QN_TRY(status, qn_chat_flush(p), fail);
    QN_TRY(status, qn_ids_append(p->out, id, p->err), fail);
fail:
    return status;
}

qn_status qn_chat_refuse(qn_error *err, const qn_json_node *seen, const char *expected,
                         const char *format, ...)
{
    char place[128];
    char shown[64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(place, sizeof place, format, args);
    va_end(args);
    qn_json_node_show(shown, sizeof shown, seen);
    return qn_fail(err, QN_E_FORMAT, 0, "qn_chat_render", "%s: %s, expected %s", place, shown,
                   expected);
}

/* ------------------------------------------------------------------------------------- content */

static bool is_string(const qn_json_node *node)
{
    return node != NULL && node->kind == QN_JSON_STRING;
}

static bool is_given(const qn_json_node *node)
{
    return node != NULL && node->kind != QN_JSON_NULL;
}

/* What the model reads in place of a picture and the like; NULL for a part of another type. */
static const char *medium_of(const qn_json_node *type)
{
    static const char *const media[][2] = {
        {"image", "image"},       {"image_url", "image"}, {"video", "video"},
        {"video_url", "video"},   {"audio", "audio"},     {"audio_url", "audio"},
        {"input_audio", "audio"},
    };
    for (size_t i = 0; i < sizeof media / sizeof *media; i++) {
        if (qn_json_string_is(type, qn_str_of(media[i][0]))) {
            return media[i][1];
        }
    }
    return NULL;
}

static qn_status read_part(qn_buf *out, size_t i_message, size_t i, const qn_json_node *part,
                           qn_error *err)
{
    const qn_json_node *const type = qn_json_member(part, "type");
    const qn_json_node *const text = qn_json_member(part, "text");
    const char *const medium = medium_of(type);
    if (is_string(part)) {
        return qn_json_string_append(out, part, err);
    }
    if (medium != NULL) {
        return qn_buf_append_printf(out, err,
                                    "<reminder>You are unable to process this %s because you don't "
                                    "have multi-modal input ability. Try different methods."
                                    "</reminder>",
                                    medium);
    }
    if (!qn_json_string_is(type, qn_str_of("text"))) {
        return qn_chat_refuse(err, type, "text, image_url, video_url or input_audio",
                              "messages[%zu].content[%zu].type", i_message, i);
    }
    if (!is_string(text)) {
        return qn_chat_refuse(err, text, "a string", "messages[%zu].content[%zu].text", i_message,
                              i);
    }
    return qn_json_string_append(out, text, err);
}

qn_status qn_chat_read_content(qn_buf *out, size_t i_message, const qn_json_node *content,
                               qn_error *err)
{
    qn_status status = QN_OK;
    if (is_string(content)) {
        return qn_json_string_append(out, content, err);
    }
    if (content == NULL || content->kind != QN_JSON_ARRAY) {
        return qn_chat_refuse(err, content, "a string or a list of parts", "messages[%zu].content",
                              i_message);
    }
    const qn_json_node *part = content + 1;
    for (size_t i = 0; i < content->n_children && status == QN_OK; i++) {
        status = read_part(out, i_message, i, part, err);
        part = qn_json_after(part);
    }
    return status;
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

/* ------------------------------------------------------------------------------------ messages */

static bool has_role(const qn_json_node *message, const char *role)
{
    return qn_json_string_is(qn_json_member(message, "role"), qn_str_of(role));
}

static qn_status add_reasoning(qn_chat_prompt *p, qn_str reasoning)
{
    qn_status status = QN_OK;
    const bool is_lone_end = reasoning.len == 0 && p->options->format != QN_CHAT_GLM5_2;
    if (!is_lone_end) {
        QN_TRY(status, qn_chat_add_control(p, "<think>"), fail);
        QN_TRY(status, qn_chat_add_text(p, reasoning), fail);
    }
    QN_TRY(status, qn_chat_add_control(p, "</think>"), fail);
fail:
    return status;
}

/* Take the reasoning before the last </think> off a content; empty where there is none. */
static qn_str split_reasoning(qn_str *content)
{
    const qn_str first = find_first(*content, "</think>");
    const qn_str last = find_last(*content, "</think>");
    if (first.ptr == NULL) {
        return (qn_str){0};
    }
    qn_str reasoning = {content->ptr, (size_t)(first.ptr - content->ptr)};
    const qn_str open = find_last(reasoning, "<think>");
    if (open.ptr != NULL) {
        const char *const after = open.ptr + open.len;
        reasoning = (qn_str){after, (size_t)(first.ptr - after)};
    }
    const char *const after = last.ptr + last.len;
    *content = (qn_str){after, (size_t)(content->ptr + content->len - after)};
    return reasoning;
}

/* Could the answer go on behind this message? */
static qn_status check_continued(const qn_json_node *message, size_t i, qn_error *err)
{
    const qn_json_node *const calls = qn_json_member(message, "tool_calls");
    const bool has_calls = calls != NULL && calls->kind != QN_JSON_NULL &&
                           !(calls->kind == QN_JSON_ARRAY && calls->n_children == 0);
    if (!has_role(message, "assistant")) {
        return qn_chat_refuse(err, qn_json_member(message, "role"),
                              "assistant, as the answer continues the last message",
                              "messages[%zu].role", i);
    }
    return has_calls
               ? qn_chat_refuse(err, calls, "none, as the answer continues the message's text",
                                "messages[%zu].tool_calls", i)
               : QN_OK;
}

/* Reasoning apart (or inside the content), the answer without its blanks, calls.  Where the answer
 * goes on behind it, the prompt ends within a reasoning that stands alone. */
static qn_status add_assistant(qn_chat_prompt *p, size_t i, const qn_json_node *message,
                               bool keep_reasoning, bool is_continued)
{
    qn_status status = QN_OK;
    qn_buf text;
    qn_buf given;
    qn_buf_init(&text, QN_CHAT_TEXT_BYTES_MAX);
    qn_buf_init(&given, QN_CHAT_TEXT_BYTES_MAX);
    const qn_json_node *const content = qn_json_member(message, "content");
    const bool is_new_name = !is_given(qn_json_member(message, "reasoning_content"));
    const char *const key = is_new_name ? "reasoning" : "reasoning_content";
    const qn_json_node *const thought = qn_json_member(message, key);
    if (content != NULL && content->kind != QN_JSON_NULL) {
        QN_TRY(status, qn_chat_read_content(&text, i, content, p->err), fail);
    }
    qn_str answer = qn_buf_view(&text);
    qn_str reasoning = {0};
    if (is_string(thought)) {
        QN_TRY(status, qn_json_string_append(&given, thought, p->err), fail);
        reasoning = qn_buf_view(&given);
    } else if (!is_given(thought)) {
        reasoning = split_reasoning(&answer);
    } else {
        status = qn_chat_refuse(p->err, thought, "a string", "messages[%zu].%s", i, key);
        goto fail;
    }
    QN_TRY(status, qn_chat_add_control(p, "<|assistant|>"), fail);
    if (is_continued && is_string(thought) && reasoning.len > 0 && strip(answer).len == 0) {
        QN_TRY(status, qn_chat_add_control(p, "<think>"), fail);
        QN_TRY(status, qn_chat_add_text(p, reasoning), fail);
        goto fail;
    }
    QN_TRY(status, add_reasoning(p, keep_reasoning ? reasoning : (qn_str){0}), fail);
    QN_TRY(status, qn_chat_add_text(p, strip(answer)), fail);
    QN_TRY(status, qn_chat_add_calls(p, i, qn_json_member(message, "tool_calls")), fail);
fail:
    qn_buf_deinit(&text);
    qn_buf_deinit(&given);
    return status;
}

/* @p before is the message before this one, NULL for the first. */
static qn_status add_message(qn_chat_prompt *p, size_t i, const qn_json_node *message,
                             const qn_json_node *before, bool keep_reasoning, bool is_continued)
{
    qn_status status = QN_OK;
    const qn_json_node *const content = qn_json_member(message, "content");
    const bool is_system = has_role(message, "system") || has_role(message, "developer");
    if (message->kind != QN_JSON_OBJECT) {
        return qn_chat_refuse(p->err, message, "an object with role and content", "messages[%zu]",
                              i);
    }
    if (is_continued) {
        QN_TRY(status, check_continued(message, i, p->err), fail);
    }
    if (has_role(message, "assistant")) {
        return add_assistant(p, i, message, keep_reasoning, is_continued);
    }
    if (has_role(message, "tool")) {
        status = has_role(before, "tool") ? QN_OK : qn_chat_add_control(p, "<|observation|>");
        return status == QN_OK ? qn_chat_add_results(p, i, content) : status;
    }
    if (!is_system && !has_role(message, "user")) {
        return qn_chat_refuse(p->err, qn_json_member(message, "role"),
                              "system, developer, user, assistant or tool", "messages[%zu].role",
                              i);
    }
    QN_TRY(status, qn_chat_add_control(p, is_system ? "<|system|>" : "<|user|>"), fail);
    QN_TRY(status, qn_chat_read_content(&p->text, i, content, p->err), fail);
fail:
    return status;
}

static qn_status add_messages(qn_chat_prompt *p, const qn_json_node *messages)
{
    qn_status status = QN_OK;
    size_t n_until_last_user = 0; /* messages up to and with the last of a user */
    const qn_json_node *message = messages + 1;
    for (size_t i = 0; i < messages->n_children; i++, message = qn_json_after(message)) {
        n_until_last_user = has_role(message, "user") ? i + 1 : n_until_last_user;
    }
    const qn_json_node *before = NULL;
    message = messages + 1;
    for (size_t i = 0; i < messages->n_children && status == QN_OK; i++) {
        const bool keep_reasoning = p->options->keep_thinking || i >= n_until_last_user;
        const bool is_continued = p->options->continue_final && i + 1 == messages->n_children;
        status = add_message(p, i, message, before, keep_reasoning, is_continued);
        before = message;
        message = qn_json_after(message);
    }
    return status;
}

/* What stands before the first message. */
static qn_status add_opening(qn_chat_prompt *p)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_chat_add_control(p, "[gMASK]"), fail);
    QN_TRY(status, qn_chat_add_control(p, "<sop>"), fail);
    if (p->options->format == QN_CHAT_GLM5_2 && !p->options->no_thinking) {
        const char *line =
            p->options->is_effort_high ? "Reasoning Effort: High" : "Reasoning Effort: Max";
        QN_TRY(status, qn_chat_add_control(p, "<|system|>"), fail);
        QN_TRY(status, qn_chat_add_text(p, qn_str_of(line)), fail);
    }
fail:
    return status;
}

/* What makes the model answer. */
static qn_status add_closing(qn_chat_prompt *p)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_chat_add_control(p, "<|assistant|>"), fail);
    if (!p->options->no_thinking) {
        QN_TRY(status, qn_chat_add_control(p, "<think>"), fail);
    } else {
        QN_TRY(status, add_reasoning(p, (qn_str){0}), fail);
    }
fail:
    return status;
}

qn_status qn_chat_render(qn_ids *out, const qn_tokenizer *tokenizer, const qn_json_node *messages,
                         const qn_json_node *tools, const qn_chat_render_options *options,
                         qn_error *err)
{
    qn_status status = QN_OK;
    qn_chat_prompt p = {
        .out = out, .tokenizer = tokenizer, .tools = tools, .options = options, .err = err};
    qn_buf_init(&p.text, QN_CHAT_TEXT_BYTES_MAX);
    if (messages->kind != QN_JSON_ARRAY) {
        return qn_chat_refuse(err, messages, "a list of messages", "messages");
    }
    if (messages->n_children == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "messages: an empty list, expected at least one message");
    }
    if (tools != NULL) {
        QN_TRY(status, qn_chat_tools_check(tools, err), fail);
    }
    QN_TRY(status, add_opening(&p), fail);
    QN_TRY(status, qn_chat_add_tools(&p), fail);
    QN_TRY(status, add_messages(&p, messages), fail);
    QN_TRY(status, options->continue_final ? qn_chat_flush(&p) : add_closing(&p), fail);
fail:
    qn_buf_deinit(&p.text);
    return status;
}
