/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "base/try.h"
#include "mock.h"

#include <math.h>

static const char *const fault_names[] = {
    "status",           "close",        "reset", "hang", "malformed", "error_event", "no_done",
    "no_finish",        "empty",        "huge",  "slow", "crlf",      "comments",    "whole",
    "connection_close", "close_framed", "usage", NULL};
static const char *const usage_names[] = {"right", "none",     "too_many", "too_few", "zero",
                                          "total", "negative", "text",     "cached",  NULL};
static const char *const broken_names[] = {"not_json", "wrong_shape", "half_utf8", NULL};
static const char *const engine_names[] = {"quern", "vllm", "sglang", "llamacpp", NULL};
_Static_assert(sizeof fault_names / sizeof *fault_names == MOCK_N_FAULTS + 1, "a name each");
_Static_assert(sizeof usage_names / sizeof *usage_names == MOCK_N_USAGES + 1, "a name each");
_Static_assert(sizeof broken_names / sizeof *broken_names == MOCK_N_BROKEN + 1, "a name each");
_Static_assert(sizeof engine_names / sizeof *engine_names == MOCK_N_ENGINES + 1, "a name each");

#define NUMBER_MAX 1e12

static qn_status refuse(const char *key, const json_t *value, const char *expected, qn_error *err)
{
    char seen[80];
    qn_json_show(seen, sizeof seen, value);
    return qn_fail(err, QN_E_FORMAT, 0, __func__, "script: %s: %s, expected %s", key, seen,
                   expected);
}

static qn_status get_number(double *out, const json_t *value, const char *key, double min,
                            qn_error *err)
{
    const double number = json_number_value(value);
    if (!json_is_number(value) || number < min || number > NUMBER_MAX) {
        return refuse(key, value, "a number in its range", err);
    }
    *out = number;
    return QN_OK;
}

static qn_status get_name(int *out, const json_t *value, const char *key, const char *const *names,
                          qn_error *err)
{
    for (int i = 0; names[i] != NULL && json_is_string(value); i++) {
        if (strcmp(names[i], json_string_value(value)) == 0) {
            *out = i;
            return QN_OK;
        }
    }
    return refuse(key, value, "one of the names in tests/mock/README.md", err);
}

static qn_status get_text(char *out, size_t out_bytes, const json_t *value, const char *key,
                          qn_error *err)
{
    if (!json_is_string(value) || json_string_length(value) >= out_bytes) {
        return refuse(key, value, "a short string", err);
    }
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return QN_OK;
}

/* A number, or [lowest, highest]. */
static qn_status get_range(double *min, double *max, const json_t *value, const char *key,
                           qn_error *err)
{
    if (!json_is_array(value)) {
        qn_status status = get_number(min, value, key, 0, err);
        *max = *min;
        return status;
    }
    if (json_array_size(value) != 2) {
        return refuse(key, value, "two numbers", err);
    }
    qn_status status;
    QN_TRY(status, get_number(min, json_array_get(value, 0), key, 0, err), fail);
    QN_TRY(status, get_number(max, json_array_get(value, 1), key, *min, err), fail);
fail:
    return status;
}

static qn_status get_model(mock_script *script, const json_t *value, qn_error *err)
{
    const qn_status status = get_text(script->model, sizeof script->model, value, "model", err);
    if (status < 0) {
        return status;
    }
    const size_t len = json_dumpb(value, script->model_json, sizeof script->model_json - 1,
                                  JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    script->model_json[len] = 0;
    return QN_OK;
}

static qn_status get_spread_member(mock_spread *out, const char *member, const json_t *number,
                                   const char *key, qn_error *err)
{
    if (strcmp(member, "exponential") == 0) {
        out->kind = MOCK_EXPONENTIAL;
        return get_number(&out->a, number, key, 0, err);
    }
    if (strcmp(member, "per_prompt_token_us") == 0) {
        out->kind = MOCK_BY_PROMPT;
        const qn_status status = get_number(&out->b, number, key, 0, err);
        out->b *= 1e-3;
        return status;
    }
    if (strcmp(member, "base_ms") == 0) {
        return get_number(&out->a, number, key, 0, err);
    }
    return refuse(key, number, "exponential, or per_prompt_token_us and base_ms", err);
}

static qn_status get_spread(mock_spread *out, const json_t *value, const char *key, qn_error *err)
{
    qn_status status;
    *out = (mock_spread){.kind = MOCK_FIXED};
    if (!json_is_object(value)) {
        QN_TRY(status, get_range(&out->a, &out->b, value, key, err), fail);
        out->kind = json_is_array(value) ? MOCK_UNIFORM : MOCK_FIXED;
        return QN_OK;
    }
    const char *member;
    json_t *number;
    json_object_foreach((json_t *)(uintptr_t)value, member, number)
    {
        QN_TRY(status, get_spread_member(out, member, number, key, err), fail);
    }
    return QN_OK;
fail:
    return status;
}

static qn_status get_counts(uint32_t *min, uint32_t *max, const json_t *value, const char *key,
                            qn_error *err)
{
    double low = 0, high = 0;
    qn_status status;
    QN_TRY(status, get_range(&low, &high, value, key, err), fail);
    *min = (uint32_t)low;
    *max = (uint32_t)high;
    return *min > 0 ? QN_OK : refuse(key, value, "at least 1", err);
fail:
    return status;
}

static qn_status get_cached(mock_script *script, const json_t *value, qn_error *err)
{
    if (json_is_string(value) && strcmp(json_string_value(value), "prefix") == 0) {
        script->cached_kind = MOCK_CACHED_PREFIX;
        return QN_OK;
    }
    script->cached_kind = json_is_real(value) ? MOCK_CACHED_SHARE : MOCK_CACHED_NUMBER;
    return get_number(&script->cached, value, "cached_tokens", 0, err);
}

static qn_status get_requests(mock_fault *fault, const json_t *value, qn_error *err)
{
    if (!json_is_array(value) || json_array_size(value) > MOCK_NUMBERS_MAX) {
        return refuse("faults.requests", value, "a list of numbers", err);
    }
    size_t i;
    json_t *number;
    json_array_foreach(value, i, number)
    {
        if (!json_is_integer(number)) {
            return refuse("faults.requests", number, "a number of a request, from 0", err);
        }
        fault->requests[fault->n_requests++] = (uint64_t)json_integer_value(number);
    }
    return QN_OK;
}

static qn_status get_fault_member(mock_fault *fault, const char *key, const json_t *value,
                                  qn_error *err)
{
    double number = 0;
    int name = 0;
    qn_status status = QN_OK;
    if (strcmp(key, "kind") == 0) {
        status = get_name(&name, value, "faults.kind", fault_names, err);
        fault->kind = (mock_fault_kind)name;
    } else if (strcmp(key, "usage") == 0) {
        status = get_name(&name, value, "faults.usage", usage_names, err);
        fault->usage = (mock_usage)name;
    } else if (strcmp(key, "how") == 0) {
        status = get_name(&name, value, "faults.how", broken_names, err);
        fault->broken = (mock_broken)name;
    } else if (strcmp(key, "html") == 0) {
        fault->is_html = json_is_true(value);
    } else if (strcmp(key, "after_chunks") == 0) {
        status = get_number(&number, value, "faults.after_chunks", 0, err);
        fault->after_chunks = (int64_t)number;
    } else if (strcmp(key, "status") == 0) {
        status = get_number(&number, value, "faults.status", 100, err);
        fault->status = (int)number;
    } else if (strcmp(key, "bytes") == 0) {
        status = get_number(&number, value, "faults.bytes", 1, err);
        fault->n_bytes = (size_t)number;
    } else if (strcmp(key, "every") == 0) {
        status = get_number(&number, value, "faults.every", 1, err);
        fault->every = (uint64_t)number;
    } else if (strcmp(key, "probability") == 0) {
        status = get_number(&fault->probability, value, "faults.probability", 0, err);
    } else if (strcmp(key, "requests") == 0) {
        status = get_requests(fault, value, err);
    } else {
        status = refuse(key, value, "a member that faults have", err);
    }
    return status;
}

static qn_status get_fault(mock_fault *fault, const json_t *object, qn_error *err)
{
    *fault = (mock_fault){.after_chunks = -1, .status = 500, .n_bytes = 1 << 20};
    if (json_object_get(object, "kind") == NULL) {
        return refuse("faults.kind", NULL, "a kind", err);
    }
    qn_status status = QN_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        QN_TRY(status, get_fault_member(fault, key, value, err), fail);
    }
    if (fault->kind == MOCK_MALFORMED || fault->kind == MOCK_ERROR_EVENT) {
        fault->after_chunks = fault->after_chunks < 0 ? 0 : fault->after_chunks;
    }
fail:
    return status;
}

static qn_status get_faults(mock_script *script, const json_t *value, qn_error *err)
{
    if (!json_is_array(value) || json_array_size(value) > MOCK_FAULTS_MAX) {
        return refuse("faults", value, "a list", err);
    }
    qn_status status = QN_OK;
    size_t i;
    json_t *object;
    json_array_foreach(value, i, object)
    {
        QN_TRY(status, get_fault(&script->faults[script->n_faults++], object, err), fail);
    }
fail:
    return status;
}

static qn_status get_stall(mock_stall *stall, const json_t *value, qn_error *err)
{
    qn_status status;
    QN_TRY(status, get_number(&stall->at_s, json_object_get(value, "at_s"), "stall.at_s", 0, err),
           fail);
    QN_TRY(status,
           get_number(&stall->for_s, json_object_get(value, "for_s"), "stall.for_s", 0, err), fail);
fail:
    return status;
}

/* Members that are one number or one yes; false: key is none of them. */
static bool get_simple(mock_script *script, const char *key, const json_t *value, qn_error *err,
                       qn_status *status)
{
    const struct {
        const char *key;
        bool *yes;
        uint32_t *count;
        double *number;
    } members[] = {
        {"tokenize", &script->has_tokenize, NULL, NULL},
        {"metrics", &script->has_metrics, NULL, NULL},
        {"early_role", &script->role_is_early, NULL, NULL},
        {"keep_bodies", &script->keeps_bodies, NULL, NULL},
        {"n_slots", NULL, &script->n_slots, NULL},
        {"reasoning_tokens", NULL, &script->n_reasoning, NULL},
        {"template_tokens", NULL, &script->n_template, NULL},
        {"draft_tokens", NULL, &script->n_draft, NULL},
        {"rate_limit", NULL, NULL, &script->rate_limit},
        {"retry_after_s", NULL, NULL, &script->retry_after_s},
    };
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        if (strcmp(members[i].key, key) != 0) {
            continue;
        }
        double number = 0;
        if (members[i].yes != NULL) {
            *members[i].yes = json_is_true(value);
            *status = json_is_boolean(value) ? QN_OK : refuse(key, value, "true or false", err);
            return true;
        }
        *status = get_number(&number, value, key, 0, err);
        if (members[i].count != NULL) {
            *members[i].count = (uint32_t)number;
        } else {
            *members[i].number = number;
        }
        return true;
    }
    return false;
}

static qn_status get_member(mock_script *script, const char *key, const json_t *value,
                            qn_error *err)
{
    int name = 0;
    double number = 0;
    qn_status status = QN_OK;
    if (get_simple(script, key, value, err, &status)) {
        return status;
    }
    if (strcmp(key, "model") == 0) {
        status = get_model(script, value, err);
    } else if (strcmp(key, "api_key") == 0) {
        status = get_text(script->api_key, sizeof script->api_key, value, key, err);
    } else if (strcmp(key, "engine") == 0) {
        status = get_name(&name, value, key, engine_names, err);
        script->engine = (mock_engine)name;
    } else if (strcmp(key, "usage") == 0) {
        status = get_name(&name, value, key, usage_names, err);
        script->usage = (mock_usage)name;
    } else if (strcmp(key, "ttft_ms") == 0) {
        status = get_spread(&script->ttft, value, key, err);
    } else if (strcmp(key, "tpot_ms") == 0) {
        status = get_spread(&script->tpot, value, key, err);
    } else if (strcmp(key, "tokens_per_chunk") == 0) {
        status = get_counts(&script->chunk_min, &script->chunk_max, value, key, err);
    } else if (strcmp(key, "output_tokens") == 0) {
        status = get_counts(&script->output_min, &script->output_max, value, key, err);
    } else if (strcmp(key, "max_queue") == 0) {
        status = get_number(&number, value, key, 0, err);
        script->queue_max = (int64_t)number;
    } else if (strcmp(key, "seed") == 0) {
        status = get_number(&number, value, key, 0, err);
        script->seed = (uint64_t)number;
    } else if (strcmp(key, "cached_tokens") == 0) {
        status = get_cached(script, value, err);
    } else if (strcmp(key, "stall") == 0) {
        status = get_stall(&script->stall, value, err);
    } else if (strcmp(key, "faults") == 0) {
        status = get_faults(script, value, err);
    } else {
        status = refuse(key, value, "a member that scripts have", err);
    }
    return status;
}

void mock_script_default(mock_script *script)
{
    *script = (mock_script){
        .model = "mock",
        .model_json = "\"mock\"",
        .chunk_min = 1,
        .chunk_max = 1,
        .queue_max = -1,
        .retry_after_s = 1,
        .has_tokenize = true,
        .has_metrics = true,
    };
}

qn_status mock_script_parse(mock_script *script, qn_str text, const char *what, qn_error *err)
{
    json_t *object = NULL;
    qn_status status;
    mock_script_default(script);
    QN_TRY(status, qn_json_parse(&object, text, what, err), fail);
    if (!json_is_object(object)) {
        QN_TRY(status, refuse(what, object, "an object", err), fail);
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        QN_TRY(status, get_member(script, key, value, err), fail);
    }
fail:
    json_decref(object);
    return status;
}

static bool happens_to(const mock_fault *fault, const mock_script *script, size_t i_fault,
                       uint64_t number)
{
    for (size_t i = 0; i < fault->n_requests; i++) {
        if (fault->requests[i] == number) {
            return true;
        }
    }
    if (fault->every > 0) {
        return number % fault->every == fault->every - 1;
    }
    if (fault->probability > 0) {
        return qn_rng_unit(script->seed, 100 + i_fault, number) < fault->probability;
    }
    return fault->n_requests == 0;
}

void mock_plan_make(mock_plan *plan, const mock_script *script, uint64_t number)
{
    *plan = (mock_plan){.usage = script->usage};
    for (size_t i = 0; i < script->n_faults; i++) {
        const mock_fault *const fault = &script->faults[i];
        if (!happens_to(fault, script, i, number)) {
            continue;
        }
        plan->has[fault->kind] = true;
        switch (fault->kind) {
        case MOCK_STATUS:
            plan->status = fault->status;
            plan->is_html = fault->is_html;
            break;
        case MOCK_CLOSE:
        case MOCK_RESET:
        case MOCK_HANG:
        case MOCK_MALFORMED:
        case MOCK_ERROR_EVENT: plan->act = fault; break;
        case MOCK_HUGE_EVENT: plan->n_huge = fault->n_bytes; break;
        case MOCK_USAGE: plan->usage = fault->usage; break;
        default: break;
        }
    }
}

uint64_t mock_spread_ns(const mock_spread *spread, const mock_script *script, uint64_t stream,
                        uint64_t number, uint32_t n_uncached)
{
    const double unit = qn_rng_unit(script->seed, stream, number);
    double ms = spread->a;
    switch (spread->kind) {
    case MOCK_FIXED: break;
    case MOCK_UNIFORM: ms += (spread->b - spread->a) * unit; break;
    case MOCK_EXPONENTIAL: ms = -spread->a * log1p(-unit); break;
    case MOCK_BY_PROMPT: ms += spread->b * n_uncached; break;
    }
    return (uint64_t)(ms * 1e6);
}
