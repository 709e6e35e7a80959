/* SPDX-License-Identifier: Apache-2.0 */
/** @file plain_sampling.h  Settings of quern.h as plain definitions in f64, for small vocabularies.
 */
#ifndef QN_TEST_PLAIN_SAMPLING_H
#define QN_TEST_PLAIN_SAMPLING_H
#include "engine/sampler.h"

#include <math.h>

enum { PLAIN_VOCAB_MAX = 64 };

/** Sampling that leaves the model's distribution as it is. */
static const qn_sampling plain_settings = {
    .temperature = 1.0F, .top_p = 1.0F, .repetition_penalty = 1.0F};

static inline uint32_t plain_occurrences(const int32_t *tokens, uint32_t n, int32_t token)
{
    uint32_t n_found = 0;
    for (uint32_t i = 0; i < n; i++) {
        n_found += tokens[i] == token ? 1 : 0;
    }
    return n_found;
}

/** Logits after biases, stop ids and penalties, where the answer so far is @p answer. */
static inline void plain_logits(double *out, const float *logits, uint32_t n_vocab,
                                const qn_sampler_request *r, const int32_t *answer,
                                uint32_t n_answer)
{
    const qn_sampling *const set = r->sampling;
    for (uint32_t id = 0; id < n_vocab; id++) {
        const int32_t token = (int32_t)id;
        const double n_times = plain_occurrences(answer, n_answer, token);
        double x = (double)logits[id];
        for (uint32_t i = 0; i < set->n_logit_bias; i++) {
            x += set->logit_bias[i].token == token ? (double)set->logit_bias[i].bias : 0.0;
        }
        if (n_answer < r->min_tokens && plain_occurrences(r->stop_ids, r->n_stop_ids, token) > 0) {
            x = -(double)INFINITY;
        }
        if (n_times > 0 || plain_occurrences(r->prompt, r->n_prompt, token) > 0) {
            const double penalty = (double)set->repetition_penalty;
            x = x > 0.0 ? x / penalty : x * penalty;
        }
        x -= n_times * (double)set->frequency_penalty;
        x -= n_times > 0 ? (double)set->presence_penalty : 0.0;
        out[id] = x;
    }
}

/** Probabilities of a draw from such logits; temperature above 0. */
static inline void plain_probabilities(double *p, const double *logits, uint32_t n_vocab,
                                       const qn_sampling *set)
{
    double all[PLAIN_VOCAB_MAX];
    bool is_taken[PLAIN_VOCAB_MAX] = {false};
    int32_t order[PLAIN_VOCAB_MAX];
    const uint32_t n_top_k = set->top_k > 0 && set->top_k < n_vocab ? set->top_k : n_vocab;
    double mass = 0.0; /* of the top_k */
    for (uint32_t id = 0; id < n_vocab; id++) {
        all[id] = exp(logits[id] / (double)set->temperature);
        p[id] = 0.0;
    }
    for (uint32_t i = 0; i < n_top_k; i++) {
        order[i] = -1;
        for (uint32_t id = 0; id < n_vocab; id++) {
            if (!is_taken[id] && (order[i] < 0 || all[id] > all[order[i]])) {
                order[i] = (int32_t)id;
            }
        }
        is_taken[order[i]] = true;
        mass += all[order[i]];
    }
    double sum = 0.0;
    for (uint32_t i = 0; i < n_top_k && sum < (double)set->top_p * mass; i++) {
        sum += all[order[i]];
        p[order[i]] = all[order[i]] >= (double)set->min_p * all[order[0]] ? all[order[i]] : 0.0;
    }
    double kept = 0.0;
    for (uint32_t id = 0; id < n_vocab; id++) {
        kept += p[id];
    }
    for (uint32_t id = 0; id < n_vocab; id++) {
        p[id] /= kept;
    }
}
#endif
