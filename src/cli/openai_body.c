/* SPDX-License-Identifier: Apache-2.0 */
#include "openai_body.h"

#include "raw_json.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { COMPLETION_TOKENS_DEFAULT = 16, TOKENS_MAX = 1 << 24, SHOWN_BYTES = 64 };

static const char not_built[] = "unsupported_parameter";
static const char bad_value[] = "invalid_value";

/* ------------------------------------------------------------------------------------- errors */

void openai_fail(openai_error *error, int status_code, const char *code, const char *param,
                 const char *format, ...)
{
    qn_error line = {0};
    char text[sizeof line.text];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)qn_fail(&line, QN_E_INVAL, 0, __func__, "%s", text); /* one line of UTF-8 */
    *error = (openai_error){.status_code = status_code, .code = code};
    size_t len = strnlen(param, sizeof error->param);
    if (len == sizeof error->param) { /* too long: whole characters of it */
        do {
            len--;
        } while (((unsigned char)param[len] & 0xC0) == 0x80);
    }
    memcpy(error->param, param, len);
    (void)snprintf(error->message, sizeof error->message, "%s", line.text);
}

void openai_error_of(openai_error *error, const qn_error *why, openai_endpoint endpoint)
{
    const bool is_theirs = why->status == QN_E_INVAL || why->status == QN_E_FORMAT;
    char param[sizeof error->param] = "";
    if (is_theirs) { /* "messages[0].role: ...", "prompt: ..." */
        (void)snprintf(param, sizeof param, "%.*s", (int)strcspn(why->text, ":( "), why->text);
    }
    if (strcmp(param, "prompt") == 0 && endpoint == OPENAI_CHAT) {
        (void)snprintf(param, sizeof param, "messages");
    }
    openai_fail(error, is_theirs ? 400 : 500, is_theirs ? bad_value : NULL, param, "%s", why->text);
}

json_t *openai_error_body(const openai_error *error)
{
    return json_pack("{s{ss, ss, so, so}}", "error", "message", error->message, "type",
                     error->status_code < 500 ? "invalid_request_error" : "server_error", "param",
                     error->param[0] != '\0' ? json_string(error->param) : json_null(), "code",
                     error->code != NULL ? json_string(error->code) : json_null());
}

/* A parameter is shown as it was written, what stands in one as a JSON text of it. */
static bool refuse(const openai_request *r, openai_error *error, const char *param,
                   const json_t *seen, const char *expected)
{
    char number[32];
    char *text = NULL;
    const char *shown = NULL;
    size_t len = 0;
    if (json_object_get(r->root, param) == seen &&
        raw_json_member(&shown, &len, r->text, strlen(r->text), param)) {
        /* it is shown */
    } else if (json_is_real(seen)) { /* whole ones without ".0" */
        len = (size_t)snprintf(number, sizeof number, "%.15g", json_real_value(seen));
        shown = number;
    } else {
        text = json_dumps(seen, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
        shown = text != NULL ? text : "?";
        len = strlen(shown);
    }
    openai_fail(error, 400, bad_value, param, "%s: %.*s%s, expected %s", param,
                (int)(len < SHOWN_BYTES ? len : SHOWN_BYTES), shown, len > SHOWN_BYTES ? "..." : "",
                expected);
    free(text);
    return false;
}

static bool fail_without_memory(openai_error *error)
{
    openai_fail(error, 500, NULL, "", "body: no memory");
    return false;
}

/* ------------------------------------------------------------------------------------ readers */

/* Numbers are parsed as reals, which hold every count there is. */
static bool to_whole(int64_t *out, const json_t *value)
{
    const double number = json_is_real(value) ? json_real_value(value) : 0.5;
    if (number != floor(number) || fabs(number) > 9007199254740992.0) {
        return false;
    }
    *out = (int64_t)number;
    return true;
}

static bool is_id(const openai_request *r, int64_t number)
{
    return number >= 0 && number < (int64_t)r->n_vocab;
}

static bool read_stop(openai_request *r, const json_t *value, openai_error *error)
{
    const size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n && n <= QN_STOPS_MAX; i++) {
        const json_t *const item = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(item) || json_string_length(item) == 0 ||
            json_string_length(item) > QN_STOP_BYTES_MAX) {
            return refuse(r, error, "stop", item, "a text of 1 to 1024 bytes, or a list of such");
        }
        r->stops[i] = json_string_value(item);
    }
    r->request.stops = r->stops;
    r->request.n_stops = n;
    return n <= QN_STOPS_MAX || refuse(r, error, "stop", value, "at most 16 texts");
}

static bool read_stop_ids(openai_request *r, const json_t *value, openai_error *error)
{
    const size_t n = json_array_size(value);
    if (!json_is_array(value) || n > QN_STOPS_MAX) {
        return refuse(r, error, "stop_token_ids", value, "a list of at most 16 token ids");
    }
    for (size_t i = 0; i < n; i++) {
        int64_t id = 0;
        if (!to_whole(&id, json_array_get(value, i)) || !is_id(r, id)) {
            return refuse(r, error, "stop_token_ids", json_array_get(value, i),
                          "an id of the vocabulary");
        }
        r->stop_ids[i] = (int32_t)id;
    }
    r->request.stop_ids = r->stop_ids;
    r->request.n_stop_ids = n;
    return true;
}

static bool read_bias(openai_request *r, const json_t *value, openai_error *error)
{
    const size_t n = json_object_size(value);
    const char *key = NULL;
    json_t *bias = NULL;
    if (!json_is_object(value) || n > QN_LOGIT_BIAS_MAX) {
        return refuse(r, error, "logit_bias", value, "an object of at most 1024 token ids");
    }
    r->bias = calloc(n + 1, sizeof *r->bias);
    if (r->bias == NULL) {
        return fail_without_memory(error);
    }
    json_object_foreach((json_t *)value, key, bias)
    {
        char *end = NULL;
        const long id = strtol(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end != '\0' || !is_id(r, id) || !json_is_real(bias) ||
            fabs(json_real_value(bias)) > 1e9) {
            return refuse(r, error, "logit_bias", value,
                          "ids of the vocabulary, each with a number");
        }
        r->bias[r->sampling.n_logit_bias++] =
            (qn_logit_bias){.token = (int32_t)id, .bias = (float)json_real_value(bias)};
    }
    r->sampling.logit_bias = r->bias;
    return true;
}

/* From the text, as a seed may have all 64 bits, which a real has not. */
static bool read_seed(openai_request *r, const json_t *value, openai_error *error)
{
    const char *text = NULL;
    size_t len = 0;
    char *end = NULL;
    const bool is_found = raw_json_member(&text, &len, r->text, strlen(r->text), "seed");
    errno = 0;
    if (is_found) { /* a negative one stands for its 64 bits */
        r->sampling.seed =
            text[0] == '-' ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
    }
    if (!is_found || end != text + len || errno != 0) {
        return refuse(r, error, "seed", value, "a whole number of 64 bits");
    }
    r->has_seed = true;
    return true;
}

static bool read_effort(openai_request *r, const json_t *value, openai_error *error)
{
    const char *const word = json_is_string(value) ? json_string_value(value) : "";
    if (strcmp(word, "max") != 0 && strcmp(word, "high") != 0 && strcmp(word, "none") != 0) {
        return refuse(r, error, "reasoning_effort", value, "max, high or none");
    }
    r->chat.is_effort_high = strcmp(word, "high") == 0;
    r->chat.no_thinking |= strcmp(word, "none") == 0;
    return true;
}

/* The variables of the prompt's template. */
static bool read_template(openai_request *r, const json_t *value, openai_error *error)
{
    const char *key = NULL;
    json_t *item = NULL;
    if (!json_is_object(value)) {
        return refuse(r, error, "chat_template_kwargs", value, "an object");
    }
    json_object_foreach((json_t *)value, key, item)
    {
        if (strcmp(key, "reasoning_effort") == 0) {
            if (!json_is_null(item) && !read_effort(r, item, error)) {
                return false;
            }
        } else if (strcmp(key, "enable_thinking") == 0 && json_is_boolean(item)) {
            r->chat.no_thinking |= json_is_false(item);
        } else if (strcmp(key, "clear_thinking") == 0 && json_is_boolean(item)) {
            r->chat.keep_thinking = json_is_false(item);
        } else {
            return refuse(r, error, "chat_template_kwargs", value,
                          "enable_thinking and clear_thinking, true or false, and "
                          "reasoning_effort");
        }
    }
    return true;
}

static bool read_tool_choice(openai_request *r, const json_t *value, openai_error *error)
{
    const char *const word = json_is_string(value) ? json_string_value(value) : "";
    r->needs_no_tools = strcmp(word, "none") == 0;
    return r->needs_no_tools || strcmp(word, "auto") == 0 ||
           refuse(r, error, "tool_choice", value, "auto or none: a call cannot be forced");
}

static bool read_salt(openai_request *r, const json_t *value, openai_error *error)
{
    if (!json_is_string(value) || json_string_length(value) == 0) {
        return refuse(r, error, "cache_salt", value, "a text");
    }
    r->request.cache_salt = json_string_value(value);
    r->request.cache_salt_len = json_string_length(value);
    return true;
}

/* ----------------------------------------------------------------------------------- the table */

typedef enum kind {
    REAL,  /* a number; float */
    WHOLE, /* a whole number; uint32_t or int32_t */
    FLAG,  /* true or false; bool */
    READ,  /* by a function */
    ONLY,  /* nothing but this value is built */
    HINT,  /* says nothing about the answer */
} kind;

typedef struct parameter {
    const char *name;
    int endpoints;
    kind kind;
    size_t offset;
    double min, max;
    bool (*read)(openai_request *r, const json_t *value, openai_error *error);
    const char *only; /* JSON */
} parameter;

#define AT(field) offsetof(openai_request, field)
enum { BOTH = OPENAI_CHAT | OPENAI_COMPLETION };

static const parameter parameters[] = {
    {"temperature", BOTH, REAL, AT(sampling.temperature), 0, 100, NULL, NULL},
    {"top_p", BOTH, REAL, AT(sampling.top_p), 1e-6, 1, NULL, NULL},
    {"min_p", BOTH, REAL, AT(sampling.min_p), 0, 1, NULL, NULL},
    {"top_k", BOTH, WHOLE, AT(sampling.top_k), -1, TOKENS_MAX, NULL, NULL},
    {"presence_penalty", BOTH, REAL, AT(sampling.presence_penalty), -2, 2, NULL, NULL},
    {"frequency_penalty", BOTH, REAL, AT(sampling.frequency_penalty), -2, 2, NULL, NULL},
    {"repetition_penalty", BOTH, REAL, AT(sampling.repetition_penalty), 0.01, 10, NULL, NULL},
    {"max_tokens", BOTH, WHOLE, AT(request.max_tokens), 1, TOKENS_MAX, NULL, NULL},
    {"max_completion_tokens", OPENAI_CHAT, WHOLE, AT(max_completion_tokens), 1, TOKENS_MAX, NULL,
     NULL},
    {"min_tokens", BOTH, WHOLE, AT(request.min_tokens), 0, TOKENS_MAX, NULL, NULL},
    {"ignore_eos", BOTH, FLAG, AT(request.ignore_eos), 0, 0, NULL, NULL},
    {"priority", BOTH, WHOLE, AT(request.priority), -QN_PRIORITY_MAX, QN_PRIORITY_MAX, NULL, NULL},
    {"n", BOTH, WHOLE, AT(n), 1, OPENAI_N_MAX, NULL, NULL},
    {"logprobs", OPENAI_CHAT, FLAG, AT(request.wants_logprobs), 0, 0, NULL, NULL},
    {"top_logprobs", OPENAI_CHAT, WHOLE, AT(request.n_top_logprobs), 0, QN_TOP_LOGPROBS_MAX, NULL,
     NULL},
    {"logprobs", OPENAI_COMPLETION, WHOLE, AT(completion_logprobs), 0, QN_TOP_LOGPROBS_MAX, NULL,
     NULL},
    {"seed", BOTH, READ, 0, 0, 0, read_seed, NULL},
    {"stop", BOTH, READ, 0, 0, 0, read_stop, NULL},
    {"stop_token_ids", BOTH, READ, 0, 0, 0, read_stop_ids, NULL},
    {"logit_bias", BOTH, READ, 0, 0, 0, read_bias, NULL},
    {"cache_salt", BOTH, READ, 0, 0, 0, read_salt, NULL},
    {"reasoning_effort", OPENAI_CHAT, READ, 0, 0, 0, read_effort, NULL},
    {"chat_template_kwargs", OPENAI_CHAT, READ, 0, 0, 0, read_template, NULL},
    {"tool_choice", OPENAI_CHAT, READ, 0, 0, 0, read_tool_choice, NULL},
    {"response_format", BOTH, ONLY, 0, 0, 0, NULL, "{\"type\":\"text\"}"},
    {"modalities", OPENAI_CHAT, ONLY, 0, 0, 0, NULL, "[\"text\"]"},
    {"parallel_tool_calls", OPENAI_CHAT, ONLY, 0, 0, 0, NULL, "true"},
    {"stream", BOTH, ONLY, 0, 0, 0, NULL, "false"},
    {"stream_options", BOTH, ONLY, 0, 0, 0, NULL, "null"},
    {"echo", OPENAI_COMPLETION, ONLY, 0, 0, 0, NULL, "false"},
    {"suffix", OPENAI_COMPLETION, ONLY, 0, 0, 0, NULL, "null"},
    {"best_of", OPENAI_COMPLETION, ONLY, 0, 0, 0, NULL, "1"},
    {"prompt_logprobs", BOTH, ONLY, 0, 0, 0, NULL, "null"},
    {"audio", OPENAI_CHAT, ONLY, 0, 0, 0, NULL, "null"},
    {"functions", OPENAI_CHAT, ONLY, 0, 0, 0, NULL, "null"},
    {"function_call", OPENAI_CHAT, ONLY, 0, 0, 0, NULL, "null"},
    {"prediction", OPENAI_CHAT, ONLY, 0, 0, 0, NULL, "null"},
    {"verbosity", OPENAI_CHAT, ONLY, 0, 0, 0, NULL, "null"},
    {"web_search_options", OPENAI_CHAT, ONLY, 0, 0, 0, NULL, "null"},
    {"model", BOTH, HINT, 0, 0, 0, NULL, NULL},
    {"user", BOTH, HINT, 0, 0, 0, NULL, NULL},
    {"metadata", BOTH, HINT, 0, 0, 0, NULL, NULL},
    {"store", BOTH, HINT, 0, 0, 0, NULL, NULL},
    {"service_tier", BOTH, HINT, 0, 0, 0, NULL, NULL},
    {"safety_identifier", BOTH, HINT, 0, 0, 0, NULL, NULL},
    {"prompt_cache_key", BOTH, HINT, 0, 0, 0, NULL, NULL},
    {"prompt_cache_retention", BOTH, HINT, 0, 0, 0, NULL, NULL},
    {"messages", OPENAI_CHAT, HINT, 0, 0, 0, NULL, NULL}, /* read from the text, as tools are */
    {"tools", OPENAI_CHAT, HINT, 0, 0, 0, NULL, NULL},
    {"prompt", OPENAI_COMPLETION, HINT, 0, 0, 0, NULL, NULL},
};

static bool read_number(openai_request *r, const parameter *p, const json_t *value,
                        openai_error *error)
{
    char expected[80];
    int64_t whole = 0;
    const bool is_whole = p->kind == WHOLE;
    const double number = json_is_real(value) ? json_real_value(value) : (double)NAN;
    if (!(number >= p->min && number <= p->max) || (is_whole && !to_whole(&whole, value))) {
        (void)snprintf(expected, sizeof expected, "a %s in %.15g .. %.15g",
                       is_whole ? "whole number" : "number", p->min, p->max);
        return refuse(r, error, p->name, value, expected);
    }
    const float real = (float)number;
    const int32_t integer = (int32_t)whole;
    _Static_assert(sizeof real == sizeof integer, "either is copied");
    memcpy((char *)r + p->offset, is_whole ? (const void *)&integer : (const void *)&real,
           sizeof real);
    return true;
}

static bool read_only(const openai_request *r, const parameter *p, const json_t *value,
                      openai_error *error)
{
    json_t *const only = json_loads(p->only, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
    const bool is_it = json_equal(only, value) != 0;
    json_decref(only);
    if (!is_it) {
        (void)refuse(r, error, p->name, value, p->only);
        error->code = not_built;
    }
    return is_it;
}

static bool read_parameter(openai_request *r, const char *name, const json_t *value,
                           openai_error *error)
{
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
        const parameter *const p = &parameters[i];
        if ((p->endpoints & (int)r->endpoint) == 0 || strcmp(p->name, name) != 0) {
            continue;
        }
        if (json_is_null(value)) {
            return true;
        }
        switch (p->kind) {
        case REAL:
        case WHOLE: return read_number(r, p, value, error);
        case FLAG:
            memcpy((char *)r + p->offset, &(bool){json_is_true(value)}, sizeof(bool));
            return json_is_boolean(value) || refuse(r, error, name, value, "true or false");
        case READ: return p->read(r, value, error);
        case ONLY: return read_only(r, p, value, error);
        case HINT: return true;
        }
    }
    openai_fail(error, 400, "unknown_parameter", name,
                "%.64s: no such parameter, expected one of docs/batch.md", name);
    return false;
}

/* ------------------------------------------------------------------------------------- prompts */

static bool take_status(openai_request *r, qn_status status, const qn_error *why,
                        openai_error *error)
{
    if (status < 0) {
        openai_error_of(error, why, r->endpoint);
    }
    return status == QN_OK;
}

static bool has_member(const openai_request *r, const char *key)
{
    const json_t *const value = json_object_get(r->root, key);
    return value != NULL && !json_is_null(value);
}

/* Of a picture the model would read only that there is one, and answer as if it had seen it. */
static bool check_parts(const openai_request *r, openai_error *error)
{
    size_t i_message = 0;
    size_t i_part = 0;
    json_t *message = NULL;
    json_t *part = NULL;
    json_array_foreach(json_object_get(r->root, "messages"), i_message, message)
    {
        json_array_foreach(json_object_get(message, "content"), i_part, part)
        {
            const json_t *const type = json_object_get(part, "type");
            if (json_is_string(type) && strcmp(json_string_value(type), "text") != 0) {
                char param[96];
                (void)snprintf(param, sizeof param, "messages[%zu].content[%zu].type", i_message,
                               i_part);
                (void)refuse(r, error, param, type, "text");
                error->code = not_built;
                return false;
            }
        }
    }
    return true;
}

static bool encode_chat(openai_request *r, const qn_model *model, openai_error *error)
{
    const size_t len = strlen(r->text);
    const char *messages = NULL;
    const char *tools = NULL;
    size_t messages_len = 0;
    size_t tools_len = 0;
    qn_error why = {0};
    if (!has_member(r, "messages") ||
        !raw_json_member(&messages, &messages_len, r->text, len, "messages")) {
        openai_fail(error, 400, bad_value, "messages",
                    "messages: missing, expected a list of messages");
        return false;
    }
    if (!check_parts(r, error)) {
        return false;
    }
    const json_t *const list = json_object_get(r->root, "tools");
    if (!r->needs_no_tools && has_member(r, "tools") &&
        !(json_is_array(list) && json_array_size(list) == 0) &&
        raw_json_member(&tools, &tools_len, r->text, len, "tools")) {
        r->chat.tools_json = r->request.tools_json = tools;
        r->chat.tools_len = r->request.tools_len = tools_len;
    }
    openai_prompt *const p = r->prompts = calloc(1, sizeof *r->prompts);
    if (p == NULL) {
        return fail_without_memory(error);
    }
    r->n_prompts = 1;
    return take_status(
        r, qn_chat_encode(&p->ids, &p->n_ids, model, &r->chat, messages, messages_len, &why), &why,
        error);
}

/* A text, in which the names of control tokens are the tokens, or a list of ids. */
static bool encode_prompt(openai_request *r, const qn_model *model, const json_t *value,
                          openai_error *error)
{
    openai_prompt *const p = &r->prompts[r->n_prompts++];
    qn_error why = {0};
    if (json_is_string(value)) {
        return take_status(r,
                           qn_encode(&p->ids, &p->n_ids, model, json_string_value(value),
                                     json_string_length(value), QN_CONTROL_MATCH, &why),
                           &why, error);
    }
    if (!json_is_array(value)) {
        return refuse(r, error, "prompt", value,
                      "a text or a list of token ids, or a list of such");
    }
    p->ids = malloc((json_array_size(value) + 1) * sizeof *p->ids);
    if (p->ids == NULL) {
        return fail_without_memory(error);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        int64_t id = 0;
        if (!to_whole(&id, json_array_get(value, i)) || !is_id(r, id)) {
            return refuse(r, error, "prompt", json_array_get(value, i), "an id of the vocabulary");
        }
        p->ids[p->n_ids++] = (int32_t)id;
    }
    return true;
}

static bool encode_prompts(openai_request *r, const qn_model *model, openai_error *error)
{
    const json_t *const prompt = json_object_get(r->root, "prompt");
    const json_t *const first = json_array_get(prompt, 0);
    const bool is_list = json_is_string(first) || json_is_array(first);
    const size_t n = is_list ? json_array_size(prompt) : 1;
    if (!has_member(r, "prompt")) {
        openai_fail(error, 400, bad_value, "prompt",
                    "prompt: missing, expected a text or a list of token ids");
        return false;
    }
    if (n > OPENAI_CHOICES_MAX / r->n) {
        openai_fail(error, 400, bad_value, "prompt",
                    "prompt: %zu prompts with n %u, expected at most %d choices", n, r->n,
                    OPENAI_CHOICES_MAX);
        return false;
    }
    r->prompts = calloc(n, sizeof *r->prompts);
    if (r->prompts == NULL) {
        return fail_without_memory(error);
    }
    for (size_t i = 0; i < n; i++) {
        if (!encode_prompt(r, model, is_list ? json_array_get(prompt, i) : prompt, error)) {
            return false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------------------------------- body */

/* What several parameters say together. */
static bool settle(openai_request *r, openai_error *error)
{
    if ((int32_t)r->sampling.top_k < 0) {
        r->sampling.top_k = 0; /* -1 is "all" in other engines */
    }
    if (r->max_completion_tokens > 0) {
        r->request.max_tokens = r->max_completion_tokens;
    }
    if (r->endpoint == OPENAI_COMPLETION) {
        r->request.wants_logprobs = r->completion_logprobs >= 0;
        r->request.n_top_logprobs =
            r->completion_logprobs >= 0 ? (uint32_t)r->completion_logprobs : 0;
        if (r->request.max_tokens == 0) {
            r->request.max_tokens = COMPLETION_TOKENS_DEFAULT;
        }
    } else if (r->request.n_top_logprobs > 0 && !r->request.wants_logprobs) {
        openai_fail(error, 400, bad_value, "top_logprobs",
                    "top_logprobs: given without logprobs, expected logprobs true");
        return false;
    }
    if (!r->has_seed && getrandom(&r->sampling.seed, sizeof r->sampling.seed, 0) !=
                            (ssize_t)sizeof r->sampling.seed) {
        openai_fail(error, 500, NULL, "seed", "seed: no random number, expected one");
        return false;
    }
    return true;
}

static bool read_body(openai_request *r, const qn_model *model, const char *text, size_t len,
                      openai_error *error)
{
    json_error_t why;
    const char *name = NULL;
    json_t *value = NULL;
    r->text = malloc(len + 1);
    if (r->text == NULL) {
        return fail_without_memory(error);
    }
    memcpy(r->text, text, len);
    r->text[len] = '\0';
    r->root = json_loadb(r->text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &why);
    if (!json_is_object(r->root)) {
        openai_fail(error, 400, bad_value, "", "body: %s, expected a JSON object",
                    r->root != NULL ? "a list" : why.text);
        return false;
    }
    json_object_foreach(r->root, name, value)
    {
        if (!read_parameter(r, name, value, error)) {
            return false;
        }
    }
    return settle(r, error) && (r->endpoint == OPENAI_CHAT ? encode_chat(r, model, error)
                                                           : encode_prompts(r, model, error));
}

bool openai_request_open(openai_request *out, const qn_model *model, openai_endpoint endpoint,
                         const char *text, size_t len, openai_error *error)
{
    *out = (openai_request){.endpoint = endpoint,
                            .sampling = qn_model_get_info(model)->sampling,
                            .n = 1,
                            .n_vocab = qn_model_get_info(model)->n_vocab,
                            .completion_logprobs = -1};
    if (read_body(out, model, text, len, error)) {
        return true;
    }
    openai_request_close(out);
    return false;
}

void openai_request_shrink(openai_request *request)
{
    for (size_t i = 0; request->prompts != NULL && i < request->n_prompts; i++) {
        qn_free(request->prompts[i].ids);
    }
    free(request->prompts);
    free(request->bias);
    free(request->text);
    json_decref(request->root);
    request->prompts = NULL;
    request->bias = NULL;
    request->text = NULL;
    request->root = NULL;
}

void openai_request_close(openai_request *request)
{
    openai_request_shrink(request);
    *request = (openai_request){0};
}

size_t openai_n_choices(const openai_request *request)
{
    return request->n_prompts * request->n;
}

qn_request openai_request_choice(const openai_request *request, size_t i_choice,
                                 qn_sampling *sampling)
{
    const openai_prompt *const prompt = &request->prompts[i_choice / request->n];
    qn_request out = request->request;
    *sampling = request->sampling;
    sampling->seed += i_choice % request->n;
    out.ids = prompt->ids;
    out.n_ids = prompt->n_ids;
    out.sampling = sampling;
    return out;
}
