/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file accept.h  The accept rule of speculative decoding: which tokens a verification pass gives.
 *
 * Every row draws its token from the target distribution, with the random number of its position.
 * A draft is accepted iff it is that token; then the next row, which was computed from the draft,
 * is a row of the very sequence.  So tokens are distributed as the model alone has them, and a seed
 * gives the same ones whatever was drafted.
 */
#ifndef QN_ENGINE_ACCEPT_H
#define QN_ENGINE_ACCEPT_H
#include "engine/sampler.h"

/**
 * Receives a token of the answer, already committed, and the logits [n_vocab] of its row.
 * Returns  false: it is the last one
 */
typedef bool qn_emit_fn(void *context, int32_t token, const float *logits);

/** One verification pass of one sequence. */
typedef struct qn_accept_args {
    const float *logits;   /**< [n_drafts + 1][n_vocab] */
    const int32_t *drafts; /**< [n_drafts] row j + 1 was computed from drafts[j]. */
    uint32_t n_vocab;      /**< The sampler's. */
    uint32_t n_drafts;     /**< 0: one row, one token. */
    uint32_t position;     /**< Number of tokens before the one that row 0 gives. */
    bool is_pinned;        /**< For benchmarks: n_forced decides how many drafts are accepted. */
    uint32_t n_forced;     /**< Of a pinned pass: at most n_drafts. */
    qn_emit_fn *emit;
    void *context; /**< Given to emit. */
} qn_accept_args;

/**
 * Draw, commit and emit row by row until a token is not the row's draft, rows run out, or emit()
 * says so.  A pinned pass emits its first n_forced drafts unseen, then one token that is drawn.
 *
 * @param[out] n_emitted   tokens emitted, those before an error included
 * @param[out] n_accepted  of them: accepted drafts
 * Returns  QN_OK; QN_E_FORMAT of qn_sampler_draw()
 */
QN_MUST_CHECK qn_status qn_accept_rows(uint32_t *n_emitted, uint32_t *n_accepted,
                                       qn_sampler *sampler, const qn_accept_args *args,
                                       qn_error *err);

/**
 * Drafts that step @p n_steps + 1 of an answer takes unseen where its acceptance length is pinned:
 * so many that after k steps floor(k * length) tokens have been emitted.
 *
 * @param n_steps  verification steps before
 * Returns  at most @p n_drafts
 */
uint32_t qn_accept_forced(uint64_t n_steps, double acceptance_length, uint32_t n_drafts);
#endif
