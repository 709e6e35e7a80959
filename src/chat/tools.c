/* SPDX-License-Identifier: Apache-2.0 */
/* Tools in a prompt: what they are, how they were called, what they answered. */
#include "base/try.h"
#include "chat/render.h"

static const char tools_head[] =
    "\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n";
static const char tools_tail[] =
    "</tools>\n\n"
    "For each function call, output the function name and arguments within the following XML "
    "format:\n";
/* The published template writes the names of control tokens here, and they become the tokens. */
static const char call_form[] =
    "<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value>"
    "<arg_key>{arg-key-2}</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>";

enum {
    /* References repeat tools, each that it names: what a body of megabytes may make of itself. */
    REFERENCED_BYTES_MAX = 1 << 24,
    TOOL_LOOKED_AT_BYTES = 16, /* and a tool of another name counts as so many */
};

static bool is_given(const qn_json_node *node)
{
    return node != NULL && node->kind != QN_JSON_NULL;
}

/* A string with at least one byte? */
static bool is_name(const qn_json_node *node)
{
    return node != NULL && node->kind == QN_JSON_STRING && !qn_json_string_is(node, qn_str_of(""));
}

const qn_json_node *qn_chat_tool_function(const qn_json_node *tool)
{
    const qn_json_node *const function = qn_json_member(tool, "function");
    return function != NULL ? function : tool;
}

static qn_status check_tool(size_t i, const qn_json_node *tool, qn_error *err)
{
    const qn_json_node *const function = qn_chat_tool_function(tool);
    const char *const inner = function != tool ? ".function" : "";
    const qn_json_node *const name = qn_json_member(function, "name");
    const qn_json_node *const parameters = qn_json_member(function, "parameters");
    const qn_json_node *const deferred = qn_json_member(function, "defer_loading");
    if (function->kind != QN_JSON_OBJECT) {
        return qn_chat_refuse(err, function, "an object with name and parameters", "tools[%zu]%s",
                              i, inner);
    }
    if (!is_name(name)) {
        return qn_chat_refuse(err, name, "the name of a function", "tools[%zu]%s.name", i, inner);
    }
    if (is_given(parameters) && parameters->kind != QN_JSON_OBJECT) {
        return qn_chat_refuse(err, parameters, "a JSON schema, an object",
                              "tools[%zu]%s.parameters", i, inner);
    }
    if (is_given(deferred) && deferred->kind != QN_JSON_TRUE && deferred->kind != QN_JSON_FALSE) {
        return qn_chat_refuse(err, deferred, "true or false", "tools[%zu]%s.defer_loading", i,
                              inner);
    }
    return QN_OK;
}

qn_status qn_chat_tools_check(const qn_json_node *tools, qn_error *err)
{
    qn_status status = QN_OK;
    if (tools->kind != QN_JSON_ARRAY) {
        return qn_chat_refuse(err, tools, "a list of tools", "tools");
    }
    const qn_json_node *tool = tools + 1;
    for (size_t i = 0; i < tools->n_children && status == QN_OK; i++, tool = qn_json_after(tool)) {
        status = check_tool(i, tool, err);
    }
    return status;
}

/* A function's line in the list.  Its own keys stand between quotes as they are, without escapes,
 * as the template has it. */
static qn_status add_function(qn_chat_prompt *p, const qn_json_node *function)
{
    qn_status status = QN_OK;
    const char *before = "{\"";
    const qn_json_node *key = function + 1;
    for (uint32_t i = 0; i < function->n_children; i++, key = qn_json_after(key + 1)) {
        if (qn_json_string_is(key, qn_str_of("defer_loading")) ||
            qn_json_string_is(key, qn_str_of("strict")) ||
            qn_json_string_is(key, qn_str_of("cache_control"))) {
            continue;
        }
        QN_TRY(status, qn_chat_add_text(p, qn_str_of(before)), fail);
        QN_TRY(status, qn_json_string_append(&p->text, key, p->err), fail);
        QN_TRY(status, qn_chat_add_text(p, qn_str_of("\": ")), fail);
        QN_TRY(status, qn_json_python_append(&p->text, key + 1, p->err), fail);
        before = ", \"";
    }
    QN_TRY(status, qn_chat_add_text(p, qn_str_of("}\n")), fail); /* it has a name at least */
fail:
    return status;
}

static bool is_deferred(const qn_json_node *function)
{
    const qn_json_node *const deferred = qn_json_member(function, "defer_loading");
    return deferred != NULL && deferred->kind == QN_JSON_TRUE;
}

qn_status qn_chat_add_tools(qn_chat_prompt *p)
{
    qn_status status = QN_OK;
    if (p->tools == NULL || p->tools->n_children == 0) {
        return QN_OK;
    }
    QN_TRY(status, qn_chat_add_control(p, "<|system|>"), fail);
    QN_TRY(status, qn_chat_add_text(p, qn_str_of(tools_head)), fail);
    const qn_json_node *tool = p->tools + 1;
    for (uint32_t i = 0; i < p->tools->n_children; i++, tool = qn_json_after(tool)) {
        const qn_json_node *const function = qn_chat_tool_function(tool);
        QN_TRY(status, is_deferred(function) ? QN_OK : add_function(p, function), fail);
    }
    QN_TRY(status, qn_chat_add_text(p, qn_str_of(tools_tail)), fail);
    QN_TRY(status, qn_chat_flush(p), fail);
    QN_TRY(status,
           qn_tokenizer_encode(p->tokenizer, qn_str_of(call_form), QN_ADDED_MATCH, p->out, p->err),
           fail);
fail:
    return status;
}

/* --------------------------------------------------------------------------------------- calls */

static qn_status add_argument(qn_chat_prompt *p, const qn_json_node *key, const qn_json_node *value)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_chat_add_control(p, "<arg_key>"), fail);
    QN_TRY(status, qn_json_string_append(&p->text, key, p->err), fail);
    QN_TRY(status, qn_chat_add_control(p, "</arg_key>"), fail);
    QN_TRY(status, qn_chat_add_control(p, "<arg_value>"), fail);
    if (value->kind == QN_JSON_STRING) {
        QN_TRY(status, qn_json_string_append(&p->text, value, p->err), fail);
    } else {
        QN_TRY(status, qn_json_python_append(&p->text, value, p->err), fail);
    }
    QN_TRY(status, qn_chat_add_control(p, "</arg_value>"), fail);
fail:
    return status;
}

/* An object, or a string that holds one, as OpenAI's form has it; nothing where there are none. */
static qn_status add_arguments(qn_chat_prompt *p, const qn_json_node *arguments, const char *place)
{
    qn_status status = QN_OK;
    qn_json_doc doc = {0};
    qn_buf text;
    qn_buf_init(&text, QN_CHAT_TEXT_BYTES_MAX);
    if (!is_given(arguments) || qn_json_string_is(arguments, qn_str_of(""))) {
        return QN_OK;
    }
    if (arguments->kind == QN_JSON_STRING) {
        QN_TRY(status, qn_json_string_append(&text, arguments, p->err), fail);
        QN_TRY(status, qn_json_doc_open_lax(&doc, qn_buf_view(&text), place, p->err), fail);
        arguments = doc.nodes;
    }
    if (arguments->kind != QN_JSON_OBJECT) {
        status =
            qn_chat_refuse(p->err, arguments, "an object, or a string that holds one", "%s", place);
        goto fail;
    }
    const qn_json_node *key = arguments + 1;
    for (uint32_t i = 0; i < arguments->n_children; i++, key = qn_json_after(key + 1)) {
        QN_TRY(status, add_argument(p, key, key + 1), fail);
    }
fail:
    qn_json_doc_close(&doc);
    qn_buf_deinit(&text);
    return status;
}

static qn_status add_call(qn_chat_prompt *p, size_t i_message, size_t i_call,
                          const qn_json_node *call)
{
    qn_status status = QN_OK;
    char place[96];
    const qn_json_node *const function = qn_chat_tool_function(call);
    const qn_json_node *const name = qn_json_member(function, "name");
    (void)snprintf(place, sizeof place, "messages[%zu].tool_calls[%zu]%s.arguments", i_message,
                   i_call, function != call ? ".function" : "");
    if (!is_name(name)) {
        return qn_chat_refuse(p->err, name, "the name of a function",
                              "messages[%zu].tool_calls[%zu].function.name", i_message, i_call);
    }
    QN_TRY(status, qn_chat_add_control(p, "<tool_call>"), fail);
    QN_TRY(status, qn_json_string_append(&p->text, name, p->err), fail);
    QN_TRY(status, add_arguments(p, qn_json_member(function, "arguments"), place), fail);
    QN_TRY(status, qn_chat_add_control(p, "</tool_call>"), fail);
fail:
    return status;
}

qn_status qn_chat_add_calls(qn_chat_prompt *p, size_t i_message, const qn_json_node *calls)
{
    qn_status status = QN_OK;
    if (!is_given(calls)) {
        return QN_OK;
    }
    if (calls->kind != QN_JSON_ARRAY) {
        return qn_chat_refuse(p->err, calls, "a list of calls", "messages[%zu].tool_calls",
                              i_message);
    }
    const qn_json_node *call = calls + 1;
    for (size_t i = 0; i < calls->n_children && status == QN_OK; i++, call = qn_json_after(call)) {
        status = add_call(p, i_message, i, call);
    }
    return status;
}

/* ------------------------------------------------------------------------------------- results */

/* Every tool of a name: the template does not stop at the first.  QN_AGAIN: too many. */
static qn_status add_functions_named(qn_chat_prompt *p, const qn_json_node *name)
{
    qn_status status = QN_OK;
    const uint32_t n_tools = p->tools != NULL ? p->tools->n_children : 0;
    const qn_json_node *tool = n_tools > 0 ? p->tools + 1 : NULL;
    for (uint32_t i = 0; i < n_tools && status == QN_OK; i++, tool = qn_json_after(tool)) {
        const qn_json_node *const function = qn_chat_tool_function(tool);
        const size_t len = p->text.len;
        if (qn_json_string_compare(qn_json_member(function, "name"), name) == 0) {
            status = add_function(p, function);
        }
        p->n_referenced += TOOL_LOOKED_AT_BYTES + (p->text.len - len);
        if (status == QN_OK && p->n_referenced > REFERENCED_BYTES_MAX) {
            status = QN_AGAIN;
        }
    }
    return status;
}

/* The tools that a search found, deferred ones among them, by their names. */
static qn_status add_references(qn_chat_prompt *p, size_t i_message, const qn_json_node *items)
{
    qn_status status = QN_OK;
    QN_TRY(status, qn_chat_add_control(p, "<tool_response>"), fail);
    QN_TRY(status, qn_chat_add_text(p, qn_str_of("<tools>\n")), fail);
    const qn_json_node *item = items + 1;
    for (size_t i = 0; i < items->n_children; i++, item = qn_json_after(item)) {
        const qn_json_node *const name = qn_json_member(item, "name");
        if (!is_name(name)) {
            return qn_chat_refuse(p->err, name, "the name of a tool",
                                  "messages[%zu].content[%zu].name", i_message, i);
        }
        status = add_functions_named(p, name);
        if (status == QN_AGAIN) {
            return qn_fail(p->err, QN_E_FORMAT, 0, "qn_chat_render",
                           "messages[%zu].content[%zu]: references that repeat more than %d bytes "
                           "of tools, expected fewer",
                           i_message, i, REFERENCED_BYTES_MAX);
        }
        if (status < 0) {
            return status;
        }
    }
    QN_TRY(status, qn_chat_add_text(p, qn_str_of("</tools>")), fail);
    QN_TRY(status, qn_chat_add_control(p, "</tool_response>"), fail);
fail:
    return status;
}

/* Several results in one message. */
static qn_status add_outputs(qn_chat_prompt *p, size_t i_message, const qn_json_node *items)
{
    qn_status status = QN_OK;
    const qn_json_node *item = items + 1;
    for (size_t i = 0; i < items->n_children; i++, item = qn_json_after(item)) {
        const qn_json_node *const output = qn_json_member(item, "output");
        if (output == NULL || output->kind != QN_JSON_STRING) {
            return qn_chat_refuse(p->err, output, "a string", "messages[%zu].content[%zu].output",
                                  i_message, i);
        }
        QN_TRY(status, qn_chat_add_control(p, "<tool_response>"), fail);
        QN_TRY(status, qn_json_string_append(&p->text, output, p->err), fail);
        QN_TRY(status, qn_chat_add_control(p, "</tool_response>"), fail);
    }
fail:
    return status;
}

qn_status qn_chat_add_results(qn_chat_prompt *p, size_t i_message, const qn_json_node *content)
{
    qn_status status = QN_OK;
    const bool has_items =
        content != NULL && content->kind == QN_JSON_ARRAY && content->n_children > 0;
    const qn_json_node *const first = has_items ? content + 1 : NULL;
    if (first != NULL &&
        qn_json_string_is(qn_json_member(first, "type"), qn_str_of("tool_reference"))) {
        return add_references(p, i_message, content);
    }
    if (first != NULL && qn_json_member(first, "output") != NULL) {
        return add_outputs(p, i_message, content);
    }
    QN_TRY(status, qn_chat_add_control(p, "<tool_response>"), fail);
    QN_TRY(status, qn_chat_read_content(&p->text, i_message, content, p->err), fail);
    QN_TRY(status, qn_chat_add_control(p, "</tool_response>"), fail);
fail:
    return status;
}
