/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sampler.h"

#include "base/assert.h"
#include "base/rng.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct qn_sampler {
    const qn_kernels *kernels; /* borrowed */
    uint32_t n_vocab;
    qn_sampling sampling; /* logit_bias: biases */
    qn_logit_bias biases[QN_LOGIT_BIAS_MAX];
    int32_t stop_ids[QN_SAMPLER_STOPS_MAX];
    uint32_t n_stop_ids;
    uint32_t min_tokens;
    uint32_t n_answer;  /* committed */
    uint32_t n_seen;    /* different tokens of prompt and answer */
    int32_t *seen;      /* [n_vocab] the first n_seen: which */
    uint32_t *counts;   /* [n_vocab] 0: not seen; else 1 + occurrences in the answer */
    float *adjusted;    /* [n_vocab] logits after biases and penalties */
    float *scratch_p;   /* [n_vocab] of the kernel */
    int32_t *scratch_i; /* [n_vocab] of the kernel */
};

qn_status qn_sampler_open(qn_sampler **out, const qn_kernels *kernels, uint32_t n_vocab,
                          qn_error *err)
{
    QN_ASSERT(n_vocab > 0);
    *out = NULL;
    qn_sampler *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "sampler: no memory");
    }
    s->kernels = kernels;
    s->n_vocab = n_vocab;
    s->seen = calloc(n_vocab, sizeof *s->seen);
    s->counts = calloc(n_vocab, sizeof *s->counts);
    s->adjusted = calloc(n_vocab, sizeof *s->adjusted);
    s->scratch_p = calloc(n_vocab, sizeof *s->scratch_p);
    s->scratch_i = calloc(n_vocab, sizeof *s->scratch_i);
    if (s->seen == NULL || s->counts == NULL || s->adjusted == NULL || s->scratch_p == NULL ||
        s->scratch_i == NULL) {
        qn_sampler_close(&s);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "sampler: no memory for a vocabulary of %u", n_vocab);
    }
    *out = s;
    return QN_OK;
}

size_t qn_sampler_bytes(uint32_t n_vocab)
{
    const qn_sampler *const s = NULL;
    return sizeof *s + n_vocab * (sizeof *s->seen + sizeof *s->counts + sizeof *s->adjusted +
                                  sizeof *s->scratch_p + sizeof *s->scratch_i);
}

void qn_sampler_close(qn_sampler **sampler)
{
    qn_sampler *const s = *sampler;
    if (s == NULL) {
        return;
    }
    free(s->seen);
    free(s->counts);
    free(s->adjusted);
    free(s->scratch_p);
    free(s->scratch_i);
    free(s);
    *sampler = NULL;
}

/* Penalties are to know the token; its occurrences in the answer are counted elsewhere. */
static void see(qn_sampler *s, int32_t token)
{
    QN_ASSERT(token >= 0 && (uint32_t)token < s->n_vocab);
    if (s->counts[token] == 0) {
        s->counts[token] = 1;
        s->seen[s->n_seen++] = token;
    }
}

void qn_sampler_begin(qn_sampler *sampler, const qn_sampler_request *request)
{
    qn_sampler *const s = sampler;
    const qn_sampling *const sampling = request->sampling;
    QN_ASSERT(sampling->n_logit_bias <= QN_LOGIT_BIAS_MAX);
    QN_ASSERT(request->n_stop_ids <= QN_SAMPLER_STOPS_MAX);
    s->sampling = *sampling;
    s->sampling.logit_bias = s->biases;
    for (uint32_t i = 0; i < sampling->n_logit_bias; i++) {
        const int32_t token = sampling->logit_bias[i].token;
        QN_ASSERT(token >= 0 && (uint32_t)token < s->n_vocab);
        s->biases[i] = sampling->logit_bias[i];
    }
    for (uint32_t i = 0; i < request->n_stop_ids; i++) {
        QN_ASSERT(request->stop_ids[i] >= 0 && (uint32_t)request->stop_ids[i] < s->n_vocab);
        s->stop_ids[i] = request->stop_ids[i];
    }
    s->n_stop_ids = request->n_stop_ids;
    s->min_tokens = request->min_tokens;
    s->n_answer = 0;
    for (uint32_t i = 0; i < s->n_seen; i++) {
        s->counts[s->seen[i]] = 0;
    }
    s->n_seen = 0;
    for (uint32_t i = 0; i < request->n_prompt; i++) {
        see(s, request->prompt[i]);
    }
}

/*
 * The logits that are drawn from.
 * Source   order as in quern.h; penalties as vLLM defines them (SamplingParams): repetition on
 *          prompt and answer, then frequency and presence on the answer
 */
static const float *adjust(qn_sampler *s, const float *logits)
{
    const qn_sampling *const set = &s->sampling;
    const bool has_penalties = set->repetition_penalty != 1.0F || set->presence_penalty != 0.0F ||
                               set->frequency_penalty != 0.0F;
    const uint32_t n_penalised = has_penalties ? s->n_seen : 0;
    const uint32_t n_banned = s->n_answer < s->min_tokens ? s->n_stop_ids : 0;
    if (set->n_logit_bias == 0 && n_banned == 0 && n_penalised == 0) {
        return logits;
    }
    memcpy(s->adjusted, logits, s->n_vocab * sizeof *logits);
    for (uint32_t i = 0; i < set->n_logit_bias; i++) {
        s->adjusted[set->logit_bias[i].token] += set->logit_bias[i].bias;
    }
    for (uint32_t i = 0; i < n_banned; i++) {
        s->adjusted[s->stop_ids[i]] = -INFINITY;
    }
    for (uint32_t i = 0; i < n_penalised; i++) {
        float *const logit = &s->adjusted[s->seen[i]];
        const uint32_t n_times = s->counts[s->seen[i]] - 1;
        *logit =
            *logit > 0.0F ? *logit / set->repetition_penalty : *logit * set->repetition_penalty;
        *logit -= set->frequency_penalty * (float)n_times;
        *logit -= n_times > 0 ? set->presence_penalty : 0.0F;
    }
    return s->adjusted;
}

qn_status qn_sampler_draw(int32_t *token, qn_sampler *sampler, const float *logits,
                          uint32_t position, qn_error *err)
{
    qn_sampler *const s = sampler;
    const qn_sample_args args = {
        .logits = adjust(s, logits),
        .n_vocab = s->n_vocab,
        .temperature = s->sampling.temperature,
        .top_p = s->sampling.top_p,
        .top_k = s->sampling.top_k,
        .min_p = s->sampling.min_p,
        .unit = qn_rng_unit(s->sampling.seed, QN_STREAM_TARGET_TOKEN, position),
        .scratch_p = s->scratch_p,
        .scratch_i = s->scratch_i,
    };
    *token = s->kernels->sample(&args);
    if (*token < 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "logits of the token at %u: none above -Inf, numbers expected of sound "
                       "weights and of a bias that leaves a token",
                       position);
    }
    return QN_OK;
}

void qn_sampler_commit(qn_sampler *sampler, int32_t token)
{
    see(sampler, token);
    sampler->counts[token]++;
    sampler->n_answer++;
}

/* A logit against the log-sum-exp of all; Inf is what all the weight lies on. */
static float log_probability(float logit, double log_sum)
{
    if (!(logit > -INFINITY)) {
        return -INFINITY;
    }
    return logit == INFINITY ? 0.0F : (float)((double)logit - log_sum);
}

qn_token_logprob qn_sampler_logprobs(const qn_sampler *sampler, const float *logits, int32_t token,
                                     qn_token_logprob *top, uint32_t n_top)
{
    const uint32_t n_vocab = sampler->n_vocab;
    QN_ASSERT(token >= 0 && (uint32_t)token < n_vocab);
    QN_ASSERT(n_top <= n_vocab);
    const double log_sum = sampler->kernels->logsumexp(logits, n_vocab);
    uint32_t n_found = 0;
    for (uint32_t id = 0; id < n_vocab && n_top > 0; id++) {
        const float logprob = log_probability(logits[id], log_sum);
        if (n_found == n_top && logprob <= top[n_top - 1].logprob) {
            continue;
        }
        uint32_t at = n_found < n_top ? n_found++ : n_top - 1;
        for (; at > 0 && logprob > top[at - 1].logprob; at--) {
            top[at] = top[at - 1];
        }
        top[at] = (qn_token_logprob){(int32_t)id, logprob};
    }
    return (qn_token_logprob){token, log_probability(logits[token], log_sum)};
}

uint32_t qn_sampler_rank(const float *logits, uint32_t n_vocab, int32_t token)
{
    const float logit = logits[token] > -INFINITY ? logits[token] : -INFINITY;
    uint32_t n = isnan(logits[token]) ? 1U : 0U; /* equal to nothing else */
    for (uint32_t id = 0; id < n_vocab; id++) {
        n += logits[id] >= logit;
    }
    return n;
}
