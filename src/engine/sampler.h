/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sampler.h  Draws the tokens of an answer: the settings of a request, what its prompt and
 * answer hold so far, and the random numbers.
 *
 * One after the other: begin, then draw and commit for each token.  A draw depends on the logits,
 * the settings, the position and the tokens committed; on nothing else, so that a token drawn in a
 * verification pass is the token drawn without speculation.
 */
#ifndef QN_ENGINE_SAMPLER_H
#define QN_ENGINE_SAMPLER_H
#include "quern/quern.h"

#include "kernels/kernels.h"

/** Opaque; one thread at a time. */
typedef struct qn_sampler qn_sampler;

/** Purposes of random numbers: streams of base/rng.h.  A number here is part of what a seed means.
 */
enum { QN_STREAM_TARGET_TOKEN = 1 };

enum {
    QN_SAMPLER_STOPS_MAX = 32, /**< Stop ids of a model and of a request together. */
};

/** What to draw for.  Everything in it is borrowed during qn_sampler_begin() and was checked. */
typedef struct qn_sampler_request {
    const qn_sampling *sampling; /**< Within the limits of quern.h. */
    const int32_t *prompt;       /**< [n_prompt] ids, 0 .. n_vocab - 1. */
    uint32_t n_prompt;
    const int32_t *stop_ids; /**< [n_stop_ids] ids that end the answer, likewise. */
    uint32_t n_stop_ids;     /**< At most QN_SAMPLER_STOPS_MAX. */
    uint32_t min_tokens;     /**< Stop ids are impossible before so many tokens. */
} qn_sampler_request;

/**
 * All memory is allocated here.  Begin before anything is drawn.
 *
 * @param kernels  borrowed while the sampler is open
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_sampler_open(qn_sampler **out, const qn_kernels *kernels,
                                        uint32_t n_vocab, qn_error *err);

/** Bytes that one takes. */
size_t qn_sampler_bytes(uint32_t n_vocab);

/** Release; sets *sampler to NULL; accepts NULL. */
void qn_sampler_close(qn_sampler **sampler);

/** Forget the request before and take this one.  Cost: the tokens of both, not the vocabulary. */
void qn_sampler_begin(qn_sampler *sampler, const qn_sampler_request *request);

/**
 * Draw a token; nothing is committed.
 *
 * @param logits    [n_vocab], borrowed during the call, not changed; without a setting that changes
 *                  logits they are not copied either
 * @param position  number of tokens before it; with the seed it picks the random number
 * Returns  QN_OK; QN_E_FORMAT when no logit is above -Inf
 */
QN_MUST_CHECK qn_status qn_sampler_draw(int32_t *token, qn_sampler *sampler, const float *logits,
                                        uint32_t position, qn_error *err);

/** The token is part of the answer now: penalties and min_tokens count it. */
void qn_sampler_commit(qn_sampler *sampler, int32_t token);

/**
 * Log-probabilities by the logits alone, without settings.  A NaN logit counts as -Inf.
 *
 * @param logits    [n_vocab]
 * @param token     whose log-probability is returned
 * @param[out] top  [n_top] the likeliest, by falling logprob, ties to the lower id; NULL with 0
 * @param n_top     at most n_vocab
 */
qn_token_logprob qn_sampler_logprobs(const qn_sampler *sampler, const float *logits, int32_t token,
                                     qn_token_logprob *top, uint32_t n_top);

/** Of @p logits [n_vocab]: how many are at least that of @p token, itself counted. */
uint32_t qn_sampler_rank(const float *logits, uint32_t n_vocab, int32_t token);
#endif
