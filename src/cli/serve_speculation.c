/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define IS_GIVEN(values, field) cli_is_given(values, offsetof(serve_values, field))

static int depth_of(uint64_t n)
{
    return n == 0 ? QN_DRAFT_NONE : (int)n;
}

static qn_status refuse(qn_error *err, const char *key, const json_t *value, const char *expected)
{
    char *const seen = json_dumps(value, JSON_ENCODE_ANY);
    (void)qn_fail(err, QN_E_INVAL, 0, __func__, "--speculative-config: %.32s: %.64s, expected %s",
                  key, seen != NULL ? seen : "a value", expected);
    free(seen);
    return QN_E_INVAL;
}

static qn_status read_object(int *depth, const json_t *root, qn_error *err)
{
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *)root, key, value)
    {
        const json_int_t n = json_integer_value(value);
        const char *const word = json_string_value(value);
        const char *const last = word != NULL ? strrchr(word, '_') : NULL;
        if (strcmp(key, "method") == 0) { /* "mtp", "deepseek_mtp", "glm4_moe_mtp" */
            if (word == NULL || strcmp(last != NULL ? last + 1 : word, "mtp") != 0) {
                return refuse(err, "method", value, "\"mtp\"");
            }
        } else if (strcmp(key, "num_speculative_tokens") == 0) {
            if (!json_is_integer(value) || n < 0 || n > QN_DRAFT_TOKENS_MAX) {
                return refuse(err, "num_speculative_tokens", value, "a whole number in 0 .. 8");
            }
            *depth = depth_of((uint64_t)n);
        } else {
            return refuse(err, key, value, "method and num_speculative_tokens alone");
        }
    }
    return QN_OK;
}
_Static_assert((int)QN_DRAFT_TOKENS_MAX == 8, "as the messages have it");

/* vLLM: {"method": "mtp", "num_speculative_tokens": 5}. */
static qn_status read_config(int *depth, const char *text, qn_error *err)
{
    json_error_t why;
    json_t *const root = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    const qn_status status =
        json_is_object(root)
            ? read_object(depth, root, err)
            : qn_fail(err, QN_E_INVAL, 0, __func__,
                      "--speculative-config: %s, expected an object such as {\"method\": \"mtp\", "
                      "\"num_speculative_tokens\": 5}",
                      root != NULL ? "no object" : why.text);
    json_decref(root);
    return status;
}

/* SGLang: as many steps as tokens, one token a step, and the count of those that are verified has
 * the last token drawn in it. */
static qn_status read_steps(int *depth, const serve_values *v, qn_error *err)
{
    const bool has_steps = IS_GIVEN(v, n_draft_steps);
    const bool has_tokens = IS_GIVEN(v, n_draft_tokens);
    if (!IS_GIVEN(v, algorithm) && (has_steps || has_tokens || IS_GIVEN(v, draft_top_k))) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--speculative-algorithm: missing, expected EAGLE beside %s",
                       has_steps    ? "--speculative-num-steps"
                       : has_tokens ? "--speculative-num-draft-tokens"
                                    : "--speculative-eagle-topk");
    }
    if (has_steps && has_tokens && v->n_draft_tokens != v->n_draft_steps + 1) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--speculative-num-draft-tokens: %llu, expected %llu, one more than "
                       "--speculative-num-steps",
                       (unsigned long long)v->n_draft_tokens,
                       (unsigned long long)v->n_draft_steps + 1);
    }
    if (has_steps || has_tokens) {
        *depth = depth_of(has_steps ? v->n_draft_steps : v->n_draft_tokens - 1);
    }
    return QN_OK;
}

static qn_status contradict(qn_error *err, const char *option, const char *other)
{
    return qn_fail(err, QN_E_INVAL, 0, __func__,
                   "%s: another depth than %s has, expected one of the two options", option, other);
}

qn_status serve_speculation(int *draft_tokens, const serve_values *values, qn_error *err)
{
    const bool is_ours = values->engine.draft_tokens != NULL;
    int by_config = QN_DRAFT_DEFAULT;
    int by_steps = QN_DRAFT_DEFAULT;
    qn_status status = QN_OK;
    if (values->speculation != NULL) {
        status = read_config(&by_config, values->speculation, err);
    }
    if (status == QN_OK) {
        status = read_steps(&by_steps, values, err);
    }
    if (status < 0) {
        return status;
    }
    if (by_config != QN_DRAFT_DEFAULT && by_steps != QN_DRAFT_DEFAULT && by_config != by_steps) {
        return contradict(err, "--speculative-config", "--speculative-algorithm");
    }
    const int theirs = by_config != QN_DRAFT_DEFAULT ? by_config : by_steps;
    if (theirs != QN_DRAFT_DEFAULT && is_ours && theirs != *draft_tokens) {
        return contradict(err, "--draft-tokens",
                          by_config != QN_DRAFT_DEFAULT ? "--speculative-config"
                                                        : "--speculative-algorithm");
    }
    *draft_tokens = theirs != QN_DRAFT_DEFAULT ? theirs : *draft_tokens;
    return QN_OK;
}
