/* SPDX-License-Identifier: Apache-2.0 */
/* Reading bodies: what forms have in common. */
#include "server/exchange_internal.h"
#include "server/nearest.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SHOWN_BYTES = 64 };

const char exchange_not_built[] = "unsupported_parameter";
const char exchange_bad_value[] = "invalid_value";

/* ------------------------------------------------------------------------------------- errors */

/* A value is shown as it was written. */
bool exchange_refuse(server_error *error, const char *param, const qn_json_node *seen,
                     const char *expected)
{
    const qn_str text = seen != NULL ? seen->text : qn_str_of("missing");
    size_t len = text.len;
    if (len > SHOWN_BYTES) { /* whole characters */
        for (len = SHOWN_BYTES; ((unsigned char)text.ptr[len] & 0xC0) == 0x80; len--) {
        }
    }
    server_fail(error, 400, exchange_bad_value, param, "%s: %.*s%s, expected %s", param, (int)len,
                text.ptr, len < text.len ? "..." : "", expected);
    return false;
}

bool exchange_refuse_unbuilt(server_error *error, const char *param, const qn_json_node *seen,
                             const char *expected)
{
    (void)exchange_refuse(error, param, seen, expected);
    error->code = exchange_not_built;
    return false;
}

bool exchange_is_ok(const server_exchange *x, qn_status status, const qn_error *why,
                    server_error *error)
{
    if (status < 0) {
        server_error_of(error, why, x->api == SERVER_API_COMPLETION ? "prompt" : "messages");
    }
    return status == QN_OK;
}

bool exchange_no_memory(server_error *error)
{
    server_fail_memory(error, "body");
    return false;
}

/* ------------------------------------------------------------------------------------- values */

const qn_json_node *exchange_member(const qn_json_node *object, const char *key)
{
    const qn_json_node *const value = qn_json_member(object, key);
    return value != NULL && value->kind != QN_JSON_NULL ? value : NULL;
}

bool exchange_is_text(const qn_json_node *node, const char *text)
{
    return qn_json_string_is(node, qn_str_of(text));
}

char *exchange_text(const qn_json_node *string, size_t *len, server_error *error)
{
    qn_buf text;
    qn_error err = {0};
    qn_buf_init(&text, string->text.len);
    if (qn_json_string_append(&text, string, &err) < 0 || qn_buf_reserve(&text, 0, &err) < 0) {
        qn_buf_deinit(&text);
        (void)exchange_no_memory(error);
        return NULL;
    }
    *len = text.len;
    return text.ptr;
}

/* The text goes on behind a number, so that it ends where JSON's grammar says. */
static double to_real(const qn_json_node *value)
{
    return value->kind == QN_JSON_NUMBER ? strtod(value->text.ptr, NULL) : (double)NAN;
}

bool exchange_whole(int64_t *out, const qn_json_node *value)
{
    const double number = to_real(value);
    if (!(fabs(number) <= 9007199254740992.0) || number != floor(number)) {
        return false;
    }
    *out = (int64_t)number;
    return true;
}

static bool is_id(const server_exchange *x, int64_t number)
{
    return number >= 0 && number < (int64_t)qn_model_get_info(x->settings->model)->n_vocab;
}

/* ------------------------------------------------------------------------------------- readers */

bool exchange_read_stops(server_exchange *x, const char *name, const qn_json_node *value,
                         server_error *error)
{
    const bool is_list = value->kind == QN_JSON_ARRAY;
    const uint32_t n = is_list ? value->n_children : 1;
    const qn_json_node *item = is_list ? value + 1 : value;
    if (n > QN_STOPS_MAX) {
        return exchange_refuse(error, name, value, "at most 16 texts");
    }
    for (uint32_t i = 0; i < n; i++, item = qn_json_after(item)) {
        size_t len = 0;
        if (item->kind != QN_JSON_STRING) {
            return exchange_refuse(error, name, item,
                                   "a text of 1 to 1024 bytes, or a list of such");
        }
        x->stops[i] = exchange_text(item, &len, error);
        if (x->stops[i] == NULL) {
            return false;
        }
        if (len == 0 || len > QN_STOP_BYTES_MAX) {
            return exchange_refuse(error, name, item,
                                   "a text of 1 to 1024 bytes, or a list of such");
        }
    }
    x->request.stops = (const char *const *)x->stops;
    x->request.n_stops = n;
    return true;
}

bool exchange_read_stop_ids(server_exchange *x, const char *name, const qn_json_node *value,
                            server_error *error)
{
    const qn_json_node *item = value + 1;
    if (value->kind != QN_JSON_ARRAY || value->n_children > QN_STOPS_MAX) {
        return exchange_refuse(error, name, value, "a list of at most 16 token ids");
    }
    for (uint32_t i = 0; i < value->n_children; i++, item = qn_json_after(item)) {
        int64_t id = 0;
        if (!exchange_whole(&id, item) || !is_id(x, id)) {
            return exchange_refuse(error, name, item, "an id of the vocabulary");
        }
        x->stop_ids[i] = (int32_t)id;
    }
    x->request.stop_ids = x->stop_ids;
    x->request.n_stop_ids = value->n_children;
    return true;
}

/* "123" */
static bool read_key_id(const server_exchange *x, int32_t *id, const qn_json_node *key)
{
    char digits[16] = "";
    char *end = NULL;
    if (key->text.len < 3 || key->text.len - 2 >= sizeof digits) {
        return false;
    }
    memcpy(digits, key->text.ptr + 1, key->text.len - 2);
    const long long number = strtoll(digits, &end, 10);
    *id = (int32_t)number;
    return digits[0] >= '0' && digits[0] <= '9' && *end == '\0' && is_id(x, number);
}

bool exchange_read_bias(server_exchange *x, const char *name, const qn_json_node *value,
                        server_error *error)
{
    const qn_json_node *key = value + 1;
    if (value->kind != QN_JSON_OBJECT || value->n_children > QN_LOGIT_BIAS_MAX) {
        return exchange_refuse(error, name, value, "an object of at most 1024 token ids");
    }
    x->bias = calloc(value->n_children + 1, sizeof *x->bias);
    if (x->bias == NULL) {
        return exchange_no_memory(error);
    }
    for (uint32_t i = 0; i < value->n_children; i++, key = qn_json_after(key + 1)) {
        const double bias = to_real(key + 1);
        if (!read_key_id(x, &x->bias[i].token, key) || !(fabs(bias) <= 1e9)) {
            return exchange_refuse(error, name, value, "ids of the vocabulary, each with a number");
        }
        x->bias[i].bias = (float)bias;
    }
    x->sampling.logit_bias = x->bias;
    x->sampling.n_logit_bias = value->n_children;
    return true;
}

/* All 64 bits, which a real has not; a negative one stands for its bits. */
bool exchange_read_seed(server_exchange *x, const char *name, const qn_json_node *value,
                        server_error *error)
{
    const char *const text = value->text.ptr;
    char *end = NULL;
    errno = 0;
    if (value->kind == QN_JSON_NUMBER) {
        x->sampling.seed =
            text[0] == '-' ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
    }
    if (end != text + value->text.len || errno != 0) {
        return exchange_refuse(error, name, value, "a whole number of 64 bits");
    }
    x->has_seed = true;
    return true;
}

bool exchange_read_salt(server_exchange *x, const char *name, const qn_json_node *value,
                        server_error *error)
{
    if (value->kind != QN_JSON_STRING || value->text.len == 2) {
        return exchange_refuse(error, name, value, "a text");
    }
    x->cache_salt = exchange_text(value, &x->request.cache_salt_len, error);
    x->request.cache_salt = x->cache_salt;
    return x->cache_salt != NULL;
}

bool exchange_read_model(server_exchange *x, const char *name, const qn_json_node *value,
                         server_error *error)
{
    const exchange_settings *const s = x->settings;
    if (value->kind != QN_JSON_STRING) {
        return exchange_refuse(error, name, value, "a text");
    }
    for (size_t i = 0; i < s->n_names; i++) {
        if (exchange_is_text(value, s->names[i])) {
            return true;
        }
    }
    if (s->n_names == 0) {
        return true;
    }
    char expected[160];
    (void)snprintf(expected, sizeof expected, "\"%s\", which is served here", s->names[0]);
    (void)exchange_refuse(error, name, value, expected);
    error->status_code = 404;
    error->code = "model_not_found";
    return false;
}

/* ----------------------------------------------------------------------------------- the table */

static bool read_number(server_exchange *x, const exchange_parameter *p, const qn_json_node *value,
                        server_error *error)
{
    char expected[80];
    int64_t whole = 0;
    const bool is_whole = p->kind == EXCHANGE_WHOLE;
    const double number = to_real(value);
    if (!(number >= p->min && number <= p->max) || (is_whole && !exchange_whole(&whole, value))) {
        (void)snprintf(expected, sizeof expected, "a %s in %.15g .. %.15g",
                       is_whole ? "whole number" : "number", p->min, p->max);
        return exchange_refuse(error, p->name, value, expected);
    }
    const float real = (float)number;
    const int32_t integer = (int32_t)whole;
    _Static_assert(sizeof real == sizeof integer, "either is copied");
    memcpy((char *)x + p->offset, is_whole ? (const void *)&integer : (const void *)&real,
           sizeof real);
    return true;
}

static bool read_only(const exchange_parameter *p, const qn_json_node *value, server_error *error)
{
    qn_buf text;
    qn_error err = {0};
    qn_buf_init(&text, strlen(p->only) + 1); /* what is longer is another value */
    const bool is_it = qn_json_python_append(&text, value, &err) == QN_OK &&
                       qn_str_equal(qn_buf_view(&text), qn_str_of(p->only));
    qn_buf_deinit(&text);
    return is_it || exchange_refuse_unbuilt(error, p->name, value, p->only);
}

/* Is it one of the names, which ", " separates? */
static bool has_name(qn_str names, const char *name)
{
    const size_t len = strlen(name);
    for (size_t i = 0; i < names.len;) {
        const char *const end = memchr(names.ptr + i, ',', names.len - i);
        const size_t n = (end != NULL ? (size_t)(end - names.ptr) : names.len) - i;
        if (n == len && memcmp(names.ptr + i, name, len) == 0) {
            return true;
        }
        i += n + 2;
    }
    return false;
}

bool exchange_ignore(server_exchange *x, const char *name, server_error *error)
{
    qn_error err = {0};
    return has_name(qn_buf_view(&x->ignored), name) ||
           qn_buf_append_printf(&x->ignored, &err, "%s%s", x->ignored.len > 0 ? ", " : "", name) ==
               QN_OK ||
           exchange_no_memory(error);
}

static bool read_parameter(server_exchange *x, const exchange_parameter *p,
                           const qn_json_node *value, server_error *error)
{
    if (value->kind == QN_JSON_NULL) {
        return true;
    }
    switch (p->kind) {
    case EXCHANGE_REAL:
    case EXCHANGE_WHOLE: return read_number(x, p, value, error);
    case EXCHANGE_FLAG:
        memcpy((char *)x + p->offset, &(bool){value->kind == QN_JSON_TRUE}, sizeof(bool));
        return value->kind == QN_JSON_TRUE || value->kind == QN_JSON_FALSE ||
               exchange_refuse(error, p->name, value, "true or false");
    case EXCHANGE_READ: return p->read(x, p->name, value, error);
    case EXCHANGE_ONLY: return read_only(p, value, error);
    case EXCHANGE_HINT: return exchange_ignore(x, p->name, error);
    case EXCHANGE_LATER: break;
    }
    return true;
}

static bool is_of(const exchange_parameter *p, const server_exchange *x)
{
    return (p->apis >> x->api & 1U) != 0 &&
           (x->only_counts || (p->apis & EXCHANGE_PROMPT_ALONE) == 0);
}

static bool refuse_unknown(const server_exchange *x, const qn_json_node *key,
                           const exchange_parameter *parameters, size_t n_parameters,
                           const char *docs, server_error *error)
{
    size_t len = 0;
    size_t nearest = SIZE_MAX;
    const char *name = NULL;
    char *const text = exchange_text(key, &len, error);
    if (text == NULL) {
        return false;
    }
    for (size_t i = 0; i < n_parameters; i++) {
        const exchange_parameter *const p = &parameters[i];
        if (!is_of(p, x)) {
            continue;
        }
        const size_t n = nearest_distance(text, len, p->name, strlen(p->name));
        name = n < nearest ? p->name : name;
        nearest = n < nearest ? n : nearest;
    }
    const bool is_near = name != NULL && nearest <= 1 + len / 4;
    server_fail(error, 400, "unknown_parameter", text,
                "%.64s: no such parameter, expected %s%sone of %s", text, is_near ? name : "",
                is_near ? " or " : "", docs);
    free(text);
    return false;
}

bool exchange_read_members(server_exchange *x, const qn_json_node *object,
                           const exchange_parameter *parameters, size_t n_parameters,
                           const char *docs, server_error *error)
{
    const qn_json_node *key = object + 1;
    for (uint32_t i_member = 0; i_member < object->n_children; i_member++) {
        const exchange_parameter *p = NULL;
        for (size_t i = 0; p == NULL && i < n_parameters; i++) {
            if (is_of(&parameters[i], x) && exchange_is_text(key, parameters[i].name)) {
                p = &parameters[i];
            }
        }
        if (p == NULL) {
            return refuse_unknown(x, key, parameters, n_parameters, docs, error);
        }
        if (!read_parameter(x, p, key + 1, error)) {
            return false;
        }
        key = qn_json_after(key + 1);
    }
    return true;
}

/* ------------------------------------------------------------------------------------- prompts */

static bool check_prompt(const server_exchange *x, size_t n_ids, server_error *error)
{
    const exchange_settings *const s = x->settings;
    const char *const param = x->api == SERVER_API_COMPLETION ? "prompt" : "messages";
    const uint32_t n_model = qn_model_get_info(s->model)->n_context_max;
    const uint32_t n_context = s->context_tokens > 0 ? s->context_tokens : n_model;
    const bool is_limited = s->prompt_tokens_max > 0 && s->prompt_tokens_max < n_context;
    const uint32_t n_max = is_limited ? s->prompt_tokens_max : n_context;
    if (n_ids == 0) {
        server_fail(error, 400, exchange_bad_value, param, "%s: no tokens, expected at least one",
                    param);
    } else if (n_ids > n_max) {
        server_fail(error, 400, "context_length_exceeded", param,
                    "%s: %zu tokens, expected at most %" PRIu32 ", %s", param, n_ids, n_max,
                    is_limited ? "the limit of this server" : "the context");
    }
    return n_ids > 0 && n_ids <= n_max;
}

bool exchange_add_prompt(server_exchange *x, int32_t *ids, size_t n_ids, server_error *error)
{
    if (!x->only_counts && !check_prompt(x, n_ids, error)) {
        qn_free(ids);
        return false;
    }
    exchange_prompt *const prompts = realloc(x->prompts, (x->n_prompts + 1) * sizeof *x->prompts);
    if (prompts == NULL) {
        qn_free(ids);
        return exchange_no_memory(error);
    }
    prompts[x->n_prompts++] = (exchange_prompt){.ids = ids, .n_ids = n_ids};
    x->prompts = prompts;
    x->n_prompt_tokens += n_ids;
    return true;
}

bool exchange_add_messages(server_exchange *x, qn_str messages, server_error *error)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_error why = {0};
    const qn_status status = qn_chat_encode(&ids, &n_ids, x->settings->model, &x->chat,
                                            messages.ptr, messages.len, &why);
    x->request.tools_json = x->chat.tools_json;
    x->request.tools_len = x->chat.tools_len;
    return exchange_is_ok(x, status, &why, error) && exchange_add_prompt(x, ids, n_ids, error);
}

bool exchange_add_ids(server_exchange *x, const qn_json_node *list, const char *param,
                      server_error *error)
{
    const qn_json_node *item = list + 1;
    int32_t *const ids = malloc((list->n_children + (size_t)1) * sizeof *ids);
    if (ids == NULL) {
        return exchange_no_memory(error);
    }
    for (uint32_t i = 0; i < list->n_children; i++, item = qn_json_after(item)) {
        int64_t id = 0;
        if (!exchange_whole(&id, item) || !is_id(x, id)) {
            free(ids);
            return exchange_refuse(error, param, item, "an id of the vocabulary");
        }
        ids[i] = (int32_t)id;
    }
    return exchange_add_prompt(x, ids, list->n_children, error);
}

bool exchange_add_text(server_exchange *x, const qn_json_node *string, server_error *error)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    size_t len = 0;
    qn_error why = {0};
    char *const text = exchange_text(string, &len, error);
    if (text == NULL) {
        return false;
    }
    const qn_status status =
        qn_encode(&ids, &n_ids, x->settings->model, text, len, QN_CONTROL_MATCH, &why);
    free(text);
    return exchange_is_ok(x, status, &why, error) && exchange_add_prompt(x, ids, n_ids, error);
}
