/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of /v1/messages: parameters. */
#include "server/anthropic.h"

#include <stdio.h>
#include <stdlib.h>

/* Of an object: is the member there?  Then it is ignored by @p name. */
static bool ignore_member(server_exchange *x, const qn_json_node *object, const char *key,
                          const char *name, server_error *error)
{
    return exchange_member(object, key) == NULL || exchange_ignore(x, name, error);
}

/* ------------------------------------------------------------------------------------- readers */

static bool read_stops(server_exchange *x, const char *name, const qn_json_node *value,
                       server_error *error)
{
    return value->kind == QN_JSON_ARRAY ? exchange_read_stops(x, name, value, error)
                                        : exchange_refuse(error, name, value, "a list of texts");
}

/* The model has no budget: it thinks until it is done. */
static bool read_thinking(server_exchange *x, const char *name, const qn_json_node *value,
                          server_error *error)
{
    const qn_json_node *const type = qn_json_member(value, "type");
    const qn_json_node *const display = exchange_member(value, "display");
    (void)name;
    if (!exchange_is_text(type, "enabled") && !exchange_is_text(type, "adaptive") &&
        !exchange_is_text(type, "disabled")) {
        return exchange_refuse(error, "thinking.type", type, "enabled, adaptive or disabled");
    }
    if (display != NULL && !exchange_is_text(display, "summarized") &&
        !exchange_is_text(display, "omitted")) {
        return exchange_refuse(error, "thinking.display", display, "summarized or omitted");
    }
    x->chat.no_thinking = exchange_is_text(type, "disabled");
    anthropic_of(x)->hides_thinking = exchange_is_text(display, "omitted");
    return ignore_member(x, value, "budget_tokens", "thinking.budget_tokens", error);
}

/* Of five levels GLM-5.2 has two, and its elders none. */
static bool read_effort(server_exchange *x, const qn_json_node *effort, server_error *error)
{
    const bool is_high = exchange_is_text(effort, "high") || exchange_is_text(effort, "medium") ||
                         exchange_is_text(effort, "low");
    if (!is_high && !exchange_is_text(effort, "xhigh") && !exchange_is_text(effort, "max")) {
        return exchange_refuse(error, "output_config.effort", effort,
                               "low, medium, high, xhigh or max");
    }
    if (strcmp(qn_model_get_info(x->settings->model)->chat_format, "glm5.2") != 0) {
        return exchange_ignore(x, "output_config.effort", error);
    }
    x->chat.is_effort_high = is_high;
    return true;
}

static bool read_output(server_exchange *x, const char *name, const qn_json_node *value,
                        server_error *error)
{
    const qn_json_node *const effort = exchange_member(value, "effort");
    const qn_json_node *const format = exchange_member(value, "format");
    if (value->kind != QN_JSON_OBJECT) {
        return exchange_refuse(error, name, value, "an object");
    }
    if (format != NULL) {
        return exchange_refuse_unbuilt(error, "output_config.format", format,
                                       "null: an answer has no schema");
    }
    return (effort == NULL || read_effort(x, effort, error)) &&
           ignore_member(x, value, "task_budget", "output_config.task_budget", error);
}

static bool read_tool_choice(server_exchange *x, const char *name, const qn_json_node *value,
                             server_error *error)
{
    anthropic_exchange *const m = anthropic_of(x);
    const qn_json_node *const type = qn_json_member(value, "type");
    const qn_json_node *const single = exchange_member(value, "disable_parallel_tool_use");
    (void)name;
    m->needs_no_tools = exchange_is_text(type, "none");
    if (exchange_is_text(type, "any") || exchange_is_text(type, "tool")) {
        return exchange_refuse_unbuilt(error, "tool_choice.type", type,
                                       "auto or none: a call cannot be forced");
    }
    if (!m->needs_no_tools && !exchange_is_text(type, "auto")) {
        return exchange_refuse(error, "tool_choice.type", type, "auto or none");
    }
    if (single != NULL && single->kind != QN_JSON_TRUE && single->kind != QN_JSON_FALSE) {
        return exchange_refuse(error, "tool_choice.disable_parallel_tool_use", single,
                               "true or false");
    }
    x->request.single_call = single != NULL && single->kind == QN_JSON_TRUE;
    return true;
}

/* Of the edits of a context only this one is made: which turns keep their thinking.  The prompt's
 * format keeps that of the last turn, or of all. */
static bool read_edit(server_exchange *x, const qn_json_node *edit, server_error *error)
{
    int64_t n_turns = 0;
    const qn_json_node *const type = qn_json_member(edit, "type");
    const qn_json_node *const keep = exchange_member(edit, "keep");
    const qn_json_node *const value = exchange_member(keep, "value");
    if (!exchange_is_text(type, "clear_thinking_20251015")) {
        return exchange_refuse_unbuilt(error, "context_management.edits.type", type,
                                       "clear_thinking_20251015");
    }
    x->chat.keep_thinking =
        exchange_is_text(keep, "all") || exchange_is_text(qn_json_member(keep, "type"), "all");
    return keep == NULL || x->chat.keep_thinking ||
           (value != NULL && exchange_whole(&n_turns, value) && n_turns == 1) ||
           exchange_refuse_unbuilt(error, "context_management.edits.keep", keep,
                                   "\"all\" or one turn");
}

static bool read_context(server_exchange *x, const char *name, const qn_json_node *value,
                         server_error *error)
{
    const qn_json_node *const edits = exchange_member(value, "edits");
    if (value->kind != QN_JSON_OBJECT || (edits != NULL && edits->kind != QN_JSON_ARRAY)) {
        return exchange_refuse(error, name, value, "an object with a list of edits");
    }
    const qn_json_node *edit = edits != NULL ? edits + 1 : NULL;
    for (uint32_t i = 0; edits != NULL && i < edits->n_children; i++, edit = qn_json_after(edit)) {
        if (!read_edit(x, edit, error)) {
            return false;
        }
    }
    return true;
}

/* ----------------------------------------------------------------------------------- the table */

#define AT(field) offsetof(anthropic_exchange, field)
enum { HERE = 1 << SERVER_API_MESSAGES };

static const exchange_parameter parameters[] = {
    {"model", HERE, EXCHANGE_READ, 0, 0, 0, exchange_read_model, NULL},
    {"messages", HERE, EXCHANGE_LATER, 0, 0, 0, NULL, NULL},
    {"system", HERE, EXCHANGE_LATER, 0, 0, 0, NULL, NULL},
    {"tools", HERE, EXCHANGE_LATER, 0, 0, 0, NULL, NULL},
    {"max_tokens", HERE, EXCHANGE_WHOLE, AT(base.request.max_tokens), 1, EXCHANGE_TOKENS_MAX, NULL,
     NULL},
    {"stream", HERE, EXCHANGE_FLAG, AT(base.streams), 0, 0, NULL, NULL},
    {"temperature", HERE, EXCHANGE_REAL, AT(base.sampling.temperature), 0, 2, NULL, NULL},
    {"top_p", HERE, EXCHANGE_REAL, AT(base.sampling.top_p), 1e-6, 1, NULL, NULL},
    {"top_k", HERE, EXCHANGE_WHOLE, AT(base.sampling.top_k), -1, EXCHANGE_TOKENS_MAX, NULL, NULL},
    {"stop_sequences", HERE, EXCHANGE_READ, 0, 0, 0, read_stops, NULL},
    {"thinking", HERE, EXCHANGE_READ, 0, 0, 0, read_thinking, NULL},
    {"output_config", HERE, EXCHANGE_READ, 0, 0, 0, read_output, NULL},
    {"tool_choice", HERE, EXCHANGE_READ, 0, 0, 0, read_tool_choice, NULL},
    {"context_management", HERE, EXCHANGE_READ, 0, 0, 0, read_context, NULL},
    {"seed", HERE, EXCHANGE_READ, 0, 0, 0, exchange_read_seed, NULL},
    {"min_p", HERE, EXCHANGE_REAL, AT(base.sampling.min_p), 0, 1, NULL, NULL},
    {"min_tokens", HERE, EXCHANGE_WHOLE, AT(base.request.min_tokens), 0, EXCHANGE_TOKENS_MAX, NULL,
     NULL},
    {"ignore_eos", HERE, EXCHANGE_FLAG, AT(base.request.ignore_eos), 0, 0, NULL, NULL},
    {"cache_salt", HERE, EXCHANGE_READ, 0, 0, 0, exchange_read_salt, NULL},
    {"priority", HERE, EXCHANGE_WHOLE, AT(base.request.priority), -QN_PRIORITY_MAX, QN_PRIORITY_MAX,
     NULL, NULL},
    {"mcp_servers", HERE, EXCHANGE_ONLY, 0, 0, 0, NULL, "[]"},
    {"container", HERE, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"output_format", HERE, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"metadata", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"service_tier", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"cache_control", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"speed", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"inference_geo", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"diagnostics", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"user_profile_id", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"workspace_id", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"betas", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"anthropic_beta", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"anthropic_version", HERE, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
};

/* ---------------------------------------------------------------------------------------- body */

static bool encode(anthropic_exchange *m, server_error *error)
{
    server_exchange *const x = &m->base;
    qn_buf messages;
    qn_buf_init(&messages, EXCHANGE_ANSWER_BYTES_MAX);
    const bool is_read = anthropic_messages(x, &messages, &x->chat.continue_final, error) &&
                         anthropic_tools(x, &m->tools, error);
    if (m->tools.len > 0 && !m->needs_no_tools) {
        x->chat.tools_json = m->tools.ptr;
        x->chat.tools_len = m->tools.len;
    }
    const bool is_encoded = is_read && exchange_add_messages(x, qn_buf_view(&messages), error);
    qn_buf_deinit(&messages);
    return is_encoded;
}

static bool read_body(server_exchange *x, server_error *error)
{
    anthropic_exchange *const m = anthropic_of(x);
    qn_buf_init(&m->tools, EXCHANGE_ANSWER_BYTES_MAX);
    qn_buf_init(&m->piece, EXCHANGE_ANSWER_BYTES_MAX);
    qn_buf_init(&m->done, EXCHANGE_ANSWER_BYTES_MAX);
    x->chat.no_thinking = true; /* unless "thinking" asks for it */
    if (!exchange_read_members(x, x->body, parameters, sizeof parameters / sizeof parameters[0],
                               "docs/anthropic.md", error)) {
        return false;
    }
    if (x->request.max_tokens == 0 && !x->only_counts) {
        return exchange_refuse(error, "max_tokens", NULL, "a whole number from 1");
    }
    const qn_json_node *const output = exchange_member(x->body, "output_config");
    if (x->chat.no_thinking && !ignore_member(x, output, "effort", "output_config.effort", error)) {
        return false;
    }
    x->request.streams_calls = true; /* a call that is cut off is the same, streamed or whole */
    return encode(m, error);
}

static void close_body(server_exchange *x)
{
    anthropic_exchange *const m = anthropic_of(x);
    qn_buf_deinit(&m->tools);
    qn_buf_deinit(&m->piece);
    qn_buf_deinit(&m->done);
}

const exchange_form anthropic_form = {
    .n_bytes = sizeof(anthropic_exchange),
    .read = read_body,
    .close = close_body,
    .begin = anthropic_begin,
    .take = anthropic_take,
    .flush = anthropic_flush,
    .finish = anthropic_finish,
    .fail = anthropic_fail,
    .keep_alive = "event: ping\ndata: {\"type\": \"ping\"}\n\n",
};
