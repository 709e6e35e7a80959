/* SPDX-License-Identifier: Apache-2.0 */
#include "server/openai.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    COMPLETION_TOKENS_DEFAULT = 16, /* as OpenAI's */
    PLACE_BYTES = 128,              /* of what an error calls a part of a body, cut at 100 */
};

static const char docs[] = "docs/openai.md";

/* ------------------------------------------------------------------------------------- readers */

/* The model has two efforts, so each word is the nearer one.  docs/openai.md has the table. */
static bool read_effort(server_exchange *x, const char *name, const qn_json_node *value,
                        server_error *error)
{
    static const char *const high[] = {"minimal", "low", "medium", "high"};
    for (size_t i = 0; i < sizeof high / sizeof *high; i++) {
        if (exchange_is_text(value, high[i])) {
            x->chat.is_effort_high = true;
            return true;
        }
    }
    x->chat.is_effort_high = false;
    if (exchange_is_text(value, "none")) {
        x->chat.no_thinking = true;
        return true;
    }
    return exchange_is_text(value, "max") || exchange_is_text(value, "xhigh") ||
           exchange_refuse(error, name, value, "none, minimal, low, medium, high, xhigh or max");
}

static bool read_enable_thinking(server_exchange *x, const char *name, const qn_json_node *value,
                                 server_error *error)
{
    x->chat.no_thinking |= value->kind == QN_JSON_FALSE;
    return value->kind == QN_JSON_TRUE || value->kind == QN_JSON_FALSE ||
           exchange_refuse(error, name, value, "true or false");
}

static bool read_clear_thinking(server_exchange *x, const char *name, const qn_json_node *value,
                                server_error *error)
{
    x->chat.keep_thinking = value->kind == QN_JSON_FALSE;
    return value->kind == QN_JSON_TRUE || value->kind == QN_JSON_FALSE ||
           exchange_refuse(error, name, value, "true or false");
}

static bool read_thinking_type(server_exchange *x, const char *name, const qn_json_node *value,
                               server_error *error)
{
    x->chat.no_thinking |= exchange_is_text(value, "disabled");
    return exchange_is_text(value, "enabled") || exchange_is_text(value, "disabled") ||
           exchange_refuse(error, name, value, "enabled or disabled");
}

/* The members of an object, whose names in errors begin with its own.  Of what is no object, that
 * which reads it says so. */
static bool read_members(server_exchange *x, const char *name, const qn_json_node *object,
                         const exchange_parameter *members, size_t n_members, server_error *error)
{
    server_error why;
    if (object == NULL || object->kind != QN_JSON_OBJECT ||
        exchange_read_members(x, object, members, n_members, docs, &why)) {
        return true;
    }
    if (why.status_code != 400) { /* no memory */
        *error = why;
        return false;
    }
    char param[2 * PLACE_BYTES];
    (void)snprintf(param, sizeof param, "%.100s.%s", name, why.param);
    server_fail(error, 400, why.code, param, "%s.%s", name, why.message);
    return false;
}

/* A parameter that has members of its own. */
static bool read_object(server_exchange *x, const char *name, const qn_json_node *value,
                        const exchange_parameter *members, size_t n_members, server_error *error)
{
    return value->kind == QN_JSON_OBJECT ? read_members(x, name, value, members, n_members, error)
                                         : exchange_refuse(error, name, value, "an object");
}

enum { CHAT = 1 << SERVER_API_CHAT, COMPLETION = 1 << SERVER_API_COMPLETION };
enum { BOTH = CHAT | COMPLETION };

#define AT(field)     offsetof(openai_exchange, field)
#define OF_ALL(field) offsetof(openai_exchange, base.field)

/* The variables of the prompt's template. */
static bool read_template(server_exchange *x, const char *name, const qn_json_node *value,
                          server_error *error)
{
    static const exchange_parameter members[] = {
        {"enable_thinking", CHAT, EXCHANGE_READ, 0, 0, 0, read_enable_thinking, NULL},
        {"clear_thinking", CHAT, EXCHANGE_READ, 0, 0, 0, read_clear_thinking, NULL},
        {"reasoning_effort", CHAT, EXCHANGE_READ, 0, 0, 0, read_effort, NULL},
    };
    return read_object(x, name, value, members, sizeof members / sizeof *members, error);
}

/* Z.ai's own form of the same. */
static bool read_thinking(server_exchange *x, const char *name, const qn_json_node *value,
                          server_error *error)
{
    static const exchange_parameter members[] = {
        {"type", CHAT, EXCHANGE_READ, 0, 0, 0, read_thinking_type, NULL},
        {"clear_thinking", CHAT, EXCHANGE_READ, 0, 0, 0, read_clear_thinking, NULL},
    };
    return read_object(x, name, value, members, sizeof members / sizeof *members, error);
}

static bool read_stream_options(server_exchange *x, const char *name, const qn_json_node *value,
                                server_error *error)
{
    static const exchange_parameter members[] = {
        {"include_usage", BOTH, EXCHANGE_FLAG, AT(includes_usage), 0, 0, NULL, NULL},
        {"continuous_usage_stats", BOTH, EXCHANGE_FLAG, AT(has_continuous_usage), 0, 0, NULL, NULL},
        {"include_obfuscation", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    };
    openai_of(x)->has_stream_options = true;
    return read_object(x, name, value, members, sizeof members / sizeof *members, error);
}

/* Depth of speculation: what it changes is how fast the answer comes. */
static bool read_draft(server_exchange *x, const char *name, const qn_json_node *value,
                       server_error *error)
{
    const bool may_draft = x->settings->draft_tokens != QN_DRAFT_NONE;
    int64_t depth = 0;
    if (may_draft && exchange_is_text(value, "auto")) {
        x->request.draft_tokens = QN_DRAFT_AUTO;
        x->request.acceptance_length = 0.0F;
        return true;
    }
    if (!exchange_whole(&depth, value) || depth < 0 ||
        depth > (may_draft ? QN_DRAFT_TOKENS_MAX : 0)) {
        return exchange_refuse(error, name, value,
                               may_draft ? "0 to 8 or \"auto\""
                                         : "0, as speculation is off in this server");
    }
    x->request.draft_tokens = depth == 0 ? QN_DRAFT_NONE : (int)depth;
    /* The operator's length is for the depth of the server: a lower one emits at most this. */
    const float pinned = x->settings->acceptance_length;
    const float most = (float)depth + 1.0F;
    x->request.acceptance_length = depth == 0 ? 0.0F : pinned < most ? pinned : most;
    return true;
}
_Static_assert((int)QN_DRAFT_TOKENS_MAX == 8, "as the message has it");

static bool read_tool_choice(server_exchange *x, const char *name, const qn_json_node *value,
                             server_error *error)
{
    openai_of(x)->needs_no_tools = exchange_is_text(value, "none");
    return openai_of(x)->needs_no_tools || exchange_is_text(value, "auto") ||
           exchange_refuse_unbuilt(error, name, value, "auto or none: a call cannot be forced");
}

static bool read_generation_prompt(server_exchange *x, const char *name, const qn_json_node *value,
                                   server_error *error)
{
    openai_of(x)->has_generation_prompt = value->kind == QN_JSON_TRUE;
    openai_of(x)->has_no_generation_prompt = value->kind == QN_JSON_FALSE;
    return value->kind == QN_JSON_TRUE || value->kind == QN_JSON_FALSE ||
           exchange_refuse(error, name, value, "true or false");
}

/* ----------------------------------------------------------------------------------- the table */

static const exchange_parameter parameters[] = {
    {"temperature", BOTH, EXCHANGE_REAL, OF_ALL(sampling.temperature), 0, 100, NULL, NULL},
    {"top_p", BOTH, EXCHANGE_REAL, OF_ALL(sampling.top_p), 1e-6, 1, NULL, NULL},
    {"min_p", BOTH, EXCHANGE_REAL, OF_ALL(sampling.min_p), 0, 1, NULL, NULL},
    {"top_k", BOTH, EXCHANGE_WHOLE, OF_ALL(sampling.top_k), -1, EXCHANGE_TOKENS_MAX, NULL, NULL},
    {"presence_penalty", BOTH, EXCHANGE_REAL, OF_ALL(sampling.presence_penalty), -2, 2, NULL, NULL},
    {"frequency_penalty", BOTH, EXCHANGE_REAL, OF_ALL(sampling.frequency_penalty), -2, 2, NULL,
     NULL},
    {"repetition_penalty", BOTH, EXCHANGE_REAL, OF_ALL(sampling.repetition_penalty), 0.01, 10, NULL,
     NULL},
    {"max_tokens", BOTH, EXCHANGE_WHOLE, AT(max_tokens), 0, EXCHANGE_TOKENS_MAX, NULL, NULL},
    {"max_completion_tokens", CHAT, EXCHANGE_WHOLE, AT(max_completion_tokens), 1,
     EXCHANGE_TOKENS_MAX, NULL, NULL},
    {"min_tokens", BOTH, EXCHANGE_WHOLE, OF_ALL(request.min_tokens), 0, EXCHANGE_TOKENS_MAX, NULL,
     NULL},
    {"ignore_eos", BOTH, EXCHANGE_FLAG, OF_ALL(request.ignore_eos), 0, 0, NULL, NULL},
    {"priority", BOTH, EXCHANGE_WHOLE, OF_ALL(request.priority), -QN_PRIORITY_MAX, QN_PRIORITY_MAX,
     NULL, NULL},
    {"n", BOTH, EXCHANGE_WHOLE, OF_ALL(n), 1, EXCHANGE_N_MAX, NULL, NULL},
    {"logprobs", CHAT, EXCHANGE_FLAG, AT(wants_logprobs), 0, 0, NULL, NULL},
    {"top_logprobs", CHAT, EXCHANGE_WHOLE, AT(top_logprobs), 0, QN_TOP_LOGPROBS_MAX, NULL, NULL},
    {"logprobs", COMPLETION, EXCHANGE_WHOLE, AT(completion_logprobs), 0, QN_TOP_LOGPROBS_MAX, NULL,
     NULL},
    {"prompt_logprobs", BOTH, EXCHANGE_WHOLE, AT(prompt_logprobs), 0, QN_TOP_LOGPROBS_MAX, NULL,
     NULL},
    {"echo", COMPLETION, EXCHANGE_FLAG, AT(echoes), 0, 0, NULL, NULL},
    {"include_reasoning", CHAT, EXCHANGE_FLAG, AT(includes_reasoning), 0, 0, NULL, NULL},
    {"parallel_tool_calls", CHAT, EXCHANGE_FLAG, AT(has_parallel_calls), 0, 0, NULL, NULL},
    {"continue_final_message", CHAT, EXCHANGE_FLAG, OF_ALL(chat.continue_final), 0, 0, NULL, NULL},
    {"add_generation_prompt", CHAT, EXCHANGE_READ, 0, 0, 0, read_generation_prompt, NULL},
    {"seed", BOTH, EXCHANGE_READ, 0, 0, 0, exchange_read_seed, NULL},
    {"stop", BOTH, EXCHANGE_READ, 0, 0, 0, exchange_read_stops, NULL},
    {"stop_token_ids", BOTH, EXCHANGE_READ, 0, 0, 0, exchange_read_stop_ids, NULL},
    {"logit_bias", BOTH, EXCHANGE_READ, 0, 0, 0, exchange_read_bias, NULL},
    {"draft_tokens", BOTH, EXCHANGE_READ, 0, 0, 0, read_draft, NULL},
    {"cache_salt", BOTH, EXCHANGE_READ, 0, 0, 0, exchange_read_salt, NULL},
    {"model", BOTH, EXCHANGE_READ, 0, 0, 0, exchange_read_model, NULL},
    {"stream", BOTH, EXCHANGE_FLAG, OF_ALL(streams), 0, 0, NULL, NULL},
    {"stream_options", BOTH, EXCHANGE_READ, 0, 0, 0, read_stream_options, NULL},
    {"reasoning_effort", CHAT, EXCHANGE_READ, 0, 0, 0, read_effort, NULL},
    {"chat_template_kwargs", CHAT, EXCHANGE_READ, 0, 0, 0, read_template, NULL},
    {"thinking", CHAT, EXCHANGE_READ, 0, 0, 0, read_thinking, NULL},
    {"tool_choice", CHAT, EXCHANGE_READ, 0, 0, 0, read_tool_choice, NULL},
    {"messages", CHAT, EXCHANGE_LATER, 0, 0, 0, NULL, NULL},
    {"tools", CHAT, EXCHANGE_LATER, 0, 0, 0, NULL, NULL},
    {"prompt", COMPLETION, EXCHANGE_LATER, 0, 0, 0, NULL, NULL},
    {"return_token_strs", BOTH | EXCHANGE_PROMPT_ALONE, EXCHANGE_LATER, 0, 0, 0, NULL, NULL},
    {"response_format", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "{\"type\": \"text\"}"},
    {"modalities", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "[\"text\"]"},
    {"verbosity", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "\"medium\""},
    {"best_of", COMPLETION, EXCHANGE_ONLY, 0, 0, 0, NULL, "1"},
    {"echo", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "false"},
    {"include_stop_str_in_output", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "false"},
    {"use_beam_search", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "false"},
    {"add_special_tokens", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "false"},
    {"return_token_ids", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "false"},
    {"return_tokens_as_token_ids", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "false"},
    {"early_stopping", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "false"},
    {"skip_special_tokens", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "true"},
    {"spaces_between_special_tokens", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "true"},
    {"detokenize", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "true"},
    {"length_penalty", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "1.0"},
    {"bad_words", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "[]"},
    {"suffix", COMPLETION, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"audio", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"functions", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"function_call", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"web_search_options", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"documents", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"chat_template", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"mm_processor_kwargs", CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"prompt_embeds", COMPLETION, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"allowed_token_ids", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"truncate_prompt_tokens", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"logits_processors", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"guided_json", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"guided_regex", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"guided_choice", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"guided_grammar", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"guided_decoding_backend", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"guided_whitespace_pattern", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"structured_outputs", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"structural_tag", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"regex", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"json_schema", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"ebnf", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"kv_transfer_params", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"vllm_xargs", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"thinking_token_budget", BOTH, EXCHANGE_ONLY, 0, 0, 0, NULL, "null"},
    {"cache_control", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"user", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"metadata", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"store", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"service_tier", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"safety_identifier", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"prompt_cache_key", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"prompt_cache_retention", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"request_id", BOTH, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
    {"prediction", CHAT, EXCHANGE_HINT, 0, 0, 0, NULL, NULL},
};

/* ------------------------------------------------------------------------------------- prompts */

/* So many at once will ever be taken? */
static bool check_choices(const server_exchange *x, uint32_t n_prompts, server_error *error)
{
    const uint64_t own_max = x->settings->choices_max;
    const uint32_t n_max =
        own_max > 0 && own_max < EXCHANGE_CHOICES_MAX ? (uint32_t)own_max : EXCHANGE_CHOICES_MAX;
    if (n_prompts <= n_max / x->n) {
        return true;
    }
    if (n_prompts == 1) {
        server_fail(error, 400, exchange_bad_value, "n", "n: %u, expected at most %u choices", x->n,
                    n_max);
    } else {
        server_fail(error, 400, exchange_bad_value, "prompt",
                    "prompt: %u prompts with n %u, expected at most %u choices", n_prompts, x->n,
                    n_max);
    }
    return false;
}

#define MEMBER(key)                                                                                \
    {                                                                                              \
        key, CHAT, EXCHANGE_LATER, 0, 0, 0, NULL, NULL                                             \
    }
#define HINT(key)                                                                                  \
    {                                                                                              \
        key, CHAT, EXCHANGE_HINT, 0, 0, 0, NULL, NULL                                              \
    }
#define ONLY(key, value)                                                                           \
    {                                                                                              \
        key, CHAT, EXCHANGE_ONLY, 0, 0, 0, NULL, value                                             \
    }

/* Checks an item of a list, which errors call @p name. */
typedef bool item_fn(server_exchange *x, const char *name, const qn_json_node *item,
                     server_error *error);

/* Each item of what may be a list. */
static bool check_each(server_exchange *x, const char *name, const qn_json_node *list,
                       item_fn *check, server_error *error)
{
    const bool is_list = list != NULL && list->kind == QN_JSON_ARRAY;
    const qn_json_node *item = is_list ? list + 1 : NULL;
    for (uint32_t i = 0; is_list && i < list->n_children; i++, item = qn_json_after(item)) {
        char place[PLACE_BYTES];
        (void)snprintf(place, sizeof place, "%.100s[%" PRIu32 "]", name, i);
        if (!check(x, place, item, error)) {
            return false;
        }
    }
    return true;
}

/* Of a picture the model would read only that there is one, and answer as if it had seen it. */
static bool check_part(server_exchange *x, const char *name, const qn_json_node *part,
                       server_error *error)
{
    static const exchange_parameter members[] = {
        MEMBER("type"),      MEMBER("text"), MEMBER("output"), HINT("cache_control"),
        HINT("annotations"), HINT("id"),     HINT("index"),
    };
    const qn_json_node *const type = qn_json_member(part, "type");
    if (type != NULL && type->kind == QN_JSON_STRING && !exchange_is_text(type, "text")) {
        return exchange_refuse_unbuilt(error, name, type, "type \"text\"");
    }
    return read_members(x, name, part, members, sizeof members / sizeof *members, error);
}

static bool check_call(server_exchange *x, const char *name, const qn_json_node *call,
                       server_error *error)
{
    static const exchange_parameter members[] = {
        MEMBER("id"),          MEMBER("type"),        MEMBER("function"),
        MEMBER("name"),        MEMBER("arguments"),   HINT("index"),
        HINT("cache_control"), HINT("extra_content"), HINT("provider_specific_fields"),
    };
    static const exchange_parameter of_function[] = {
        MEMBER("name"),
        MEMBER("arguments"),
        HINT("parsed_arguments"),
        HINT("provider_specific_fields"),
    };
    char place[PLACE_BYTES];
    (void)snprintf(place, sizeof place, "%.100s.function", name);
    return read_members(x, name, call, members, sizeof members / sizeof *members, error) &&
           read_members(x, place, qn_json_member(call, "function"), of_function,
                        sizeof of_function / sizeof *of_function, error);
}

/* What the template would pass over in silence. */
static bool check_message(server_exchange *x, const char *name, const qn_json_node *message,
                          server_error *error)
{
    static const exchange_parameter members[] = {
        MEMBER("role"),
        MEMBER("content"),
        MEMBER("reasoning_content"),
        MEMBER("reasoning"),
        MEMBER("tool_calls"),
        MEMBER("tool_call_id"),
        HINT("name"),
        HINT("id"),
        HINT("parsed"),
        HINT("refusal"),
        HINT("annotations"),
        HINT("cache_control"),
        HINT("reasoning_details"),
        HINT("thinking_blocks"),
        HINT("provider_specific_fields"),
        ONLY("audio", "null"),
        ONLY("function_call", "null"),
        ONLY("prefix", "false"),
        ONLY("partial", "false"),
    };
    char content[PLACE_BYTES];
    char calls[PLACE_BYTES];
    (void)snprintf(content, sizeof content, "%.100s.content", name);
    (void)snprintf(calls, sizeof calls, "%.100s.tool_calls", name);
    return read_members(x, name, message, members, sizeof members / sizeof *members, error) &&
           check_each(x, content, qn_json_member(message, "content"), check_part, error) &&
           check_each(x, calls, qn_json_member(message, "tool_calls"), check_call, error);
}

/* Around its function, of which all but hints is shown to the model. */
static bool check_tool(server_exchange *x, const char *name, const qn_json_node *tool,
                       server_error *error)
{
    static const exchange_parameter members[] = {
        MEMBER("type"),
        MEMBER("function"),
        HINT("strict"),
        HINT("cache_control"),
    };
    const qn_json_node *const function = qn_json_member(tool, "function");
    const qn_json_node *const type = exchange_member(tool, "type");
    char place[PLACE_BYTES];
    (void)snprintf(place, sizeof place, "%.100s.type", name);
    if (type != NULL && !exchange_is_text(type, "function")) {
        return exchange_refuse_unbuilt(error, place, type, "\"function\"");
    }
    if (function != NULL &&
        !read_members(x, name, tool, members, sizeof members / sizeof *members, error)) {
        return false;
    }
    static const char *const hints[] = {"strict", "cache_control"};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        if (exchange_member(function != NULL ? function : tool, hints[i]) != NULL &&
            !exchange_ignore(x, hints[i], error)) {
            return false;
        }
    }
    return true;
}

static bool read_messages(openai_exchange *x, server_error *error)
{
    server_exchange *const base = &x->base;
    const qn_json_node *const messages = exchange_member(base->body, "messages");
    const qn_json_node *const tools = exchange_member(base->body, "tools");
    if (messages == NULL) {
        return exchange_refuse(error, "messages", NULL, "a list of messages");
    }
    if (!check_choices(base, 1, error) ||
        !check_each(base, "messages", messages, check_message, error) ||
        !check_each(base, "tools", tools, check_tool, error)) {
        return false;
    }
    const char *const format = qn_model_get_info(base->settings->model)->chat_format;
    if (base->chat.is_effort_high && strcmp(format, "glm5.2") != 0) {
        server_fail(error, 400, exchange_not_built, "reasoning_effort",
                    "reasoning_effort: a lower one, expected max or none, as %s has no other",
                    format);
        return false;
    }
    const bool has_none = tools == NULL || (tools->kind == QN_JSON_ARRAY && tools->n_children == 0);
    if (!has_none && !x->needs_no_tools) {
        base->chat.tools_json = tools->text.ptr;
        base->chat.tools_len = tools->text.len;
    }
    return exchange_add_messages(base, messages->text, error);
}

static bool read_prompt(openai_exchange *x, const qn_json_node *prompt, server_error *error)
{
    return prompt->kind == QN_JSON_STRING  ? exchange_add_text(&x->base, prompt, error)
           : prompt->kind == QN_JSON_ARRAY ? exchange_add_ids(&x->base, prompt, "prompt", error)
                                           : exchange_refuse(error, "prompt", prompt,
                                                             "a text or a list of token ids, or a "
                                                             "list of such");
}

static bool read_prompts(openai_exchange *x, server_error *error)
{
    const qn_json_node *const prompt = exchange_member(x->base.body, "prompt");
    if (prompt == NULL) {
        return exchange_refuse(error, "prompt", NULL, "a text or a list of token ids");
    }
    const bool is_list = prompt->kind == QN_JSON_ARRAY && prompt->n_children > 0 &&
                         (prompt[1].kind == QN_JSON_STRING || prompt[1].kind == QN_JSON_ARRAY);
    const uint32_t n = is_list ? prompt->n_children : 1;
    const qn_json_node *one = is_list ? prompt + 1 : prompt;
    if (!check_choices(&x->base, n, error)) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++, one = qn_json_after(one)) {
        if (!read_prompt(x, one, error)) {
            return false;
        }
    }
    return true;
}

/* What a completion repeats before its text: the prompt as the model saw it. */
static bool make_echoes(openai_exchange *x, server_error *error)
{
    const server_exchange *const base = &x->base;
    qn_error why = {0};
    x->echo_texts = calloc(base->n_prompts, sizeof *x->echo_texts);
    if (x->echo_texts == NULL) {
        return exchange_no_memory(error);
    }
    x->n_echo_texts = base->n_prompts;
    for (size_t i = 0; i < base->n_prompts; i++) {
        char *text = NULL;
        size_t len = 0;
        const qn_status status = qn_decode(&text, &len, base->settings->model, base->prompts[i].ids,
                                           base->prompts[i].n_ids, &why);
        if (!exchange_is_ok(base, status, &why, error)) {
            return false;
        }
        x->echo_texts[i] = (qn_str){.ptr = text, .len = len};
    }
    return true;
}

/* ---------------------------------------------------------------------------------------- body */

static bool settle_lengths(openai_exchange *x, server_error *error)
{
    qn_request *const r = &x->base.request;
    const bool is_chat = x->base.api == SERVER_API_CHAT;
    int32_t n = x->max_completion_tokens > 0 ? x->max_completion_tokens : x->max_tokens;
    if (n == 0 && !x->echoes) {
        server_fail(error, 400, exchange_bad_value, "max_tokens",
                    "max_tokens: 0, expected at least 1%s", is_chat ? "" : " without echo");
        return false;
    }
    n = n < 0 && !is_chat ? COMPLETION_TOKENS_DEFAULT : n;
    r->prompt_only = n == 0;
    r->max_tokens = n > 0 ? (uint32_t)n : 0;
    if (r->max_tokens > 0 && r->min_tokens > r->max_tokens) {
        server_fail(error, 400, exchange_bad_value, "min_tokens",
                    "min_tokens: %u, expected at most max_tokens %u", r->min_tokens, r->max_tokens);
        return false;
    }
    return true;
}

static bool settle_logprobs(openai_exchange *x, server_error *error)
{
    qn_request *const r = &x->base.request;
    const bool is_chat = x->base.api == SERVER_API_CHAT;
    if (is_chat && x->top_logprobs > 0 && !x->wants_logprobs) {
        server_fail(error, 400, exchange_bad_value, "top_logprobs",
                    "top_logprobs: given without logprobs, expected logprobs true");
        return false;
    }
    if (x->prompt_logprobs >= 0 && x->base.streams) {
        server_fail(error, 400, exchange_not_built, "prompt_logprobs",
                    "prompt_logprobs: given with stream, expected stream false");
        return false;
    }
    const int32_t n_top = is_chat ? x->top_logprobs : x->completion_logprobs;
    x->wants_logprobs |= !is_chat && n_top >= 0;
    x->n_top = n_top > 0 ? (uint32_t)n_top : 0;
    r->wants_logprobs = x->wants_logprobs;
    x->base.tells_prompt_once = !(x->echoes && x->wants_logprobs);
    r->wants_prompt_logprobs = x->prompt_logprobs >= 0 || (x->echoes && x->wants_logprobs);
    r->n_top_logprobs = x->prompt_logprobs > n_top && x->prompt_logprobs > 0
                            ? (uint32_t)x->prompt_logprobs
                            : x->n_top;
    return true;
}

/* What several parameters say together. */
static bool settle(openai_exchange *x, server_error *error)
{
    server_exchange *const base = &x->base;
    if (x->has_stream_options && !base->streams) {
        server_fail(error, 400, exchange_bad_value, "stream_options",
                    "stream_options: given without stream, expected stream true");
        return false;
    }
    if (base->chat.continue_final != x->has_no_generation_prompt &&
        (x->has_no_generation_prompt || x->has_generation_prompt)) {
        server_fail(error, 400, exchange_bad_value, "add_generation_prompt",
                    "add_generation_prompt: %s with continue_final_message %s, expected the "
                    "opposite of it",
                    x->has_generation_prompt ? "true" : "false",
                    base->chat.continue_final ? "true" : "false");
        return false;
    }
    base->request.streams_calls = base->api == SERVER_API_CHAT; /* whole: one cut off is the same */
    base->request.single_call = !x->has_parallel_calls;
    return settle_lengths(x, error) && settle_logprobs(x, error);
}

/* The head of chunks, and a place for each choice. */
static bool make_room(openai_exchange *x, server_error *error)
{
    const server_exchange *const base = &x->base;
    const bool is_chat = base->api == SERVER_API_CHAT;
    qn_error why = {0};
    x->n_choices = exchange_n_choices(base);
    x->choices = calloc(x->n_choices, sizeof *x->choices);
    if (x->choices == NULL) {
        x->n_choices = 0;
        return exchange_no_memory(error);
    }
    for (size_t i = 0; i < x->n_choices; i++) {
        openai_choice *const choice = &x->choices[i];
        for (int part = 0; part < OPENAI_N_PARTS; part++) {
            qn_buf_init(&choice->parts[part], EXCHANGE_ANSWER_BYTES_MAX);
        }
        qn_buf_init(&choice->tokens, EXCHANGE_ANSWER_BYTES_MAX);
        qn_buf_init(&choice->prompt_tokens, EXCHANGE_ANSWER_BYTES_MAX);
        choice->finish = QN_FINISH_ERROR;
    }
    qn_buf_init(&x->pending, EXCHANGE_ANSWER_BYTES_MAX);
    qn_buf_init(&x->head, EXCHANGE_ANSWER_BYTES_MAX);
    server_writer w = {.out = &x->head, .err = &why};
    openai_put_head(&w, x,
                    !is_chat        ? "text_completion"
                    : base->streams ? "chat.completion.chunk"
                                    : "chat.completion");
    return exchange_is_ok(base, w.status, &why, error);
}

/* A completion's text has the marks around its reasoning where the model wrote them. */
static bool find_think(openai_exchange *x, server_error *error)
{
    static const char mark[] = "<think>";
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error why = {0};
    if (!qn_model_get_info(x->base.settings->model)->has_tokenizer) {
        return true;
    }
    const qn_status status = qn_encode(&ids, &n_ids, x->base.settings->model, mark, sizeof mark - 1,
                                       QN_CONTROL_MATCH, &why);
    x->think_id = n_ids == 1 ? ids[0] : -1;
    qn_free(ids);
    return exchange_is_ok(&x->base, status, &why, error);
}

bool openai_read(server_exchange *base, server_error *error)
{
    openai_exchange *const x = openai_of(base);
    x->max_tokens = x->max_completion_tokens = -1;
    x->completion_logprobs = x->prompt_logprobs = x->top_logprobs = -1;
    x->includes_reasoning = x->has_parallel_calls = true;
    x->think_id = -1;
    return exchange_read_members(base, base->body, parameters,
                                 sizeof parameters / sizeof *parameters, docs, error) &&
           settle(x, error) &&
           (base->api == SERVER_API_CHAT ? read_messages(x, error)
                                         : read_prompts(x, error) && find_think(x, error)) &&
           (base->only_counts || ((!x->echoes || make_echoes(x, error)) && make_room(x, error)));
}
