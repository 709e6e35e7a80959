/* SPDX-License-Identifier: Apache-2.0 */
#include "api/request.h"

#include "api/internal.h"
#include "base/try.h"

#include <inttypes.h>
#include <math.h>

/* Thirty years: what is later is meant as never, which is 0. */
#define DEADLINE_S_MAX 1e9

/* A number with its range.  NaN is in none. */
typedef struct range {
    const char *field, *flag;
    double value, min, max;
    bool excludes_min;
} range;

static qn_status check_range(const range *r, qn_error *err)
{
    const bool is_high_enough = r->excludes_min ? r->value > r->min : r->value >= r->min;
    if (is_high_enough && r->value <= r->max) {
        return QN_OK;
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__, "%s (%s): %g, %s%g to %g expected", r->field,
                   r->flag, r->value, r->excludes_min ? "above " : "", r->min, r->max);
}

static qn_status check_id(const char *what, size_t i, int32_t id, uint32_t n_vocab, qn_error *err)
{
    if (id >= 0 && (uint32_t)id < n_vocab) {
        return QN_OK;
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: id %" PRId32 " at %zu, 0 to %u expected",
                   what, id, i, n_vocab - 1);
}

/* A list is there, and no longer than it may be. */
static qn_status check_list(const char *what, const void *list, size_t n, size_t n_max,
                            qn_error *err)
{
    if (n > n_max) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: %zu, at most %zu expected", what, n,
                       n_max);
    }
    return n == 0 || list != NULL
               ? QN_OK
               : qn_fail(err, QN_E_INVAL, 0, __func__, "%s: NULL, a list of %zu expected", what, n);
}

static qn_status check_bias(const qn_sampling *s, uint32_t n_vocab, qn_error *err)
{
    qn_status status = check_list("logit_bias (--logit-bias)", s->logit_bias, s->n_logit_bias,
                                  QN_LOGIT_BIAS_MAX, err);
    for (uint32_t i = 0; status == QN_OK && i < s->n_logit_bias; i++) {
        const qn_logit_bias *const b = &s->logit_bias[i];
        status = check_id("logit_bias (--logit-bias)", i, b->token, n_vocab, err);
        if (status < 0) {
            return status;
        }
        if (isnan(b->bias) || b->bias == INFINITY) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "logit_bias (--logit-bias): %g for id %" PRId32
                           ", a finite number or -Inf expected",
                           (double)b->bias, b->token);
        }
    }
    return status;
}

static qn_status check_sampling(const qn_sampling *s, uint32_t n_vocab, qn_error *err)
{
    const range ranges[] = {
        {"temperature", "--temperature", (double)s->temperature, 0.0, 100.0, false},
        {"top_p", "--top-p", (double)s->top_p, 0.0, 1.0, true},
        {"min_p", "--min-p", (double)s->min_p, 0.0, 1.0, false},
        {"repetition_penalty", "--repetition-penalty", (double)s->repetition_penalty, 0.0, 10.0,
         true},
        {"presence_penalty", "--presence-penalty", (double)s->presence_penalty, -2.0, 2.0, false},
        {"frequency_penalty", "--frequency-penalty", (double)s->frequency_penalty, -2.0, 2.0,
         false},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        const qn_status status = check_range(&ranges[i], err);
        if (status < 0) {
            return status;
        }
    }
    return check_bias(s, n_vocab, err);
}

static qn_status check_prompt(const qn_request *r, uint32_t n_vocab, size_t n_context,
                              qn_error *err)
{
    if (r->ids == NULL || r->n_ids == 0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "prompt: no tokens, a prompt of at least one token expected");
    }
    if (r->n_ids > n_context) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "prompt: %zu tokens, at most the %zu of the context (--context) expected",
                       r->n_ids, n_context);
    }
    for (size_t i = 0; i < r->n_ids; i++) {
        const qn_status status = check_id("prompt", i, r->ids[i], n_vocab, err);
        if (status < 0) {
            return status;
        }
    }
    return QN_OK;
}

/* The depth of speculation that was asked for, and what may be pinned with it. */
static qn_status choose_draft(int *depth, const qn_model *model, const qn_request *r, qn_error *err)
{
    const bool has_mtp = model->info.has_mtp;
    *depth = r->draft_tokens == QN_DRAFT_NONE ? 0 : r->draft_tokens;
    if (r->draft_tokens == QN_DRAFT_DEFAULT) {
        *depth = has_mtp ? QN_DRAFT_TOKENS_DEFAULT : 0;
    } else if (r->draft_tokens == QN_DRAFT_AUTO) {
        *depth = has_mtp ? QN_DRAFT_AUTO : 0;
    } else if (*depth < 0 || *depth > QN_DRAFT_TOKENS_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "draft_tokens (--draft-tokens): %d, 0 to %d or auto expected",
                       r->draft_tokens, QN_DRAFT_TOKENS_MAX);
    } else if (*depth > 0 && !has_mtp) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "draft_tokens (--draft-tokens): %d, 0 expected, as %s has no MTP layer",
                       *depth, model->name);
    }
    if (r->acceptance_length == 0.0F) {
        return QN_OK;
    }
    if (*depth == QN_DRAFT_AUTO) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "acceptance_length (--acceptance-length): given with auto, a fixed number "
                       "of draft_tokens expected");
    }
    const range length = {"acceptance_length",          "--acceptance-length",
                          (double)r->acceptance_length, 1.0,
                          (double)*depth + 1.0,         false};
    return check_range(&length, err);
}

/* What the stop texts and tools say is checked where they are read. */
static qn_status check_texts(const qn_request *r, qn_error *err)
{
    qn_status status = check_list("stops (--stop)", r->stops, r->n_stops, QN_STOPS_MAX, err);
    for (size_t i = 0; status == QN_OK && i < r->n_stops; i++) {
        if (r->stops[i] == NULL) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "stops (--stop): NULL at %zu, a text "
                           "expected",
                           i);
        }
    }
    return status < 0
               ? status
               : check_list("tools_json (--tools)", r->tools_json, r->tools_len, SIZE_MAX, err);
}

/* The model's stop ids, unless they are to be ignored, and the request's. */
static qn_status gather_stops(qn_generator_request *out, int32_t *stop_ids, const qn_model *model,
                              const qn_request *r, qn_error *err)
{
    uint32_t n = 0;
    qn_status status =
        check_list("stop_ids (--stop-id)", r->stop_ids, r->n_stop_ids, QN_STOPS_MAX, err);
    if (status < 0) {
        return status;
    }
    for (uint32_t i = 0; !r->ignore_eos && i < model->config.n_stop_ids; i++) {
        stop_ids[n++] = model->config.stop_ids[i];
    }
    for (size_t i = 0; i < r->n_stop_ids; i++) {
        status = check_id("stop_ids (--stop-id)", i, r->stop_ids[i], model->config.n_vocab, err);
        if (status < 0) {
            return status;
        }
        stop_ids[n++] = r->stop_ids[i];
    }
    out->stop_ids = stop_ids;
    out->n_stop_ids = n;
    return QN_OK;
}

qn_status qn_request_check(qn_generator_request *out, int32_t *stop_ids, const qn_model *model,
                           const qn_request *request, size_t n_context, qn_error *err)
{
    qn_status status = QN_OK;
    const uint32_t n_vocab = model->config.n_vocab;
    if (request == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "request: NULL, one expected");
    }
    out->sampling = request->sampling != NULL ? request->sampling : &model->info.sampling;
    if (request->n_top_logprobs > QN_TOP_LOGPROBS_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "n_top_logprobs (--logprobs): %u, at most %d expected",
                       request->n_top_logprobs, QN_TOP_LOGPROBS_MAX);
    }
    if (request->max_tokens > 0 && request->min_tokens > request->max_tokens) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "min_tokens (--min-tokens): %u, at most max_tokens (--max-tokens) %u "
                       "expected",
                       request->min_tokens, request->max_tokens);
    }
    QN_TRY(status, check_prompt(request, n_vocab, n_context, err), fail);
    QN_TRY(status, check_sampling(out->sampling, n_vocab, err), fail);
    QN_TRY(status, check_texts(request, err), fail);
    QN_TRY(status, gather_stops(out, stop_ids, model, request, err), fail);
    QN_TRY(status, choose_draft(&out->draft_tokens, model, request, err), fail);
    out->ids = request->ids;
    out->n_ids = (uint32_t)request->n_ids;
    out->min_tokens = request->min_tokens;
    out->max_tokens = request->prompt_only      ? 0
                      : request->max_tokens > 0 ? request->max_tokens
                                                : UINT32_MAX;
    out->acceptance_length = request->acceptance_length;
fail:
    return status;
}

qn_status qn_request_check_queueing(const qn_request *request, qn_error *err)
{
    const range ranges[] = {
        {"priority", "--priority", (double)request->priority, -(double)QN_PRIORITY_MAX,
         (double)QN_PRIORITY_MAX, false},
        {"deadline_s", "--deadline", request->deadline_s, 0.0, DEADLINE_S_MAX, false},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        const qn_status status = check_range(&ranges[i], err);
        if (status < 0) {
            return status;
        }
    }
    return check_list("cache_salt (--cache-salt)", request->cache_salt, request->cache_salt_len,
                      SIZE_MAX, err);
}
