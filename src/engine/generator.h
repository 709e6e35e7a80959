/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file generator.h  One sequence that answers requests: prompt, drafts, verification, draws, end.
 *
 * The text does not depend on the depth of speculation: each token is drawn from its own row of
 * logits by (seed, position), and a draft only decides which rows one pass computes.
 */
#ifndef QN_ENGINE_GENERATOR_H
#define QN_ENGINE_GENERATOR_H
#include "quern/quern.h"

#include "engine/sampler.h"
#include "engine/sequence.h"

/** Opaque; one thread at a time. */
typedef struct qn_generator qn_generator;

/** Opens an idle generator.  Parameters and results as qn_sequence_open(). */
QN_MUST_CHECK qn_status qn_generator_open(qn_generator **out, qn_glm *glm,
                                          const qn_sequence_options *options, qn_error *err);

/** Release; sets *generator to NULL; accepts NULL. */
void qn_generator_close(qn_generator **generator);

/** What to answer.  The caller has checked every field. */
typedef struct qn_generator_request {
    const int32_t *ids;          /**< [n_ids], at least 1; there is room for them. */
    uint32_t n_ids;              /**< Length of the prompt. */
    const qn_sampling *sampling; /**< Copied. */
    const int32_t *stop_ids;     /**< [n_stop_ids] ids that end the answer; copied. */
    uint32_t n_stop_ids;         /**< At most QN_SAMPLER_STOPS_MAX. */
    uint32_t min_tokens;         /**< Stop ids are not drawn before. */
    uint32_t max_tokens;         /**< 0: draw nothing; UINT32_MAX: no limit but the context. */
    int draft_tokens;            /**< 0 .. QN_DRAFT_TOKENS_MAX, or QN_DRAFT_AUTO. */
    float acceptance_length;     /**< 0: drafts are accepted that are right. */
    bool wants_prompt_logits;    /**< Compute the whole prompt, and the logits of each position. */
} qn_generator_request;

/** Who is told what a step did. */
typedef struct qn_generator_sink {
    void *context;
    /** Sees the passes of the prompt; asked before each with its number of rows; NULL: nobody. */
    const qn_probe *(*probe)(void *context, uint32_t n_rows);
    /**
     * Positions computed that belong to the sequence; NULL: nobody.
     * @param ids     [n_rows]
     * @param logits  [n_rows][n_vocab]; NULL of the prompt where its logits are not wanted
     */
    qn_status (*rows)(void *context, uint32_t position, uint32_t n_rows, const int32_t *ids,
                      const float *logits, qn_error *err);
    /**
     * A token was drawn and appended, from @p logits.  False: the answer ends with it, as it does
     * where it @p is_stop, a stop id.
     */
    bool (*token)(void *context, int32_t token, uint32_t position, const float *logits,
                  bool is_stop);
} qn_generator_sink;

/** How far a request is. */
typedef enum qn_generator_state {
    QN_GENERATOR_IDLE,    /**< No request, or it has ended: see qn_generator_end_of(). */
    QN_GENERATOR_PROMPT,  /**< Computing the prompt. */
    QN_GENERATOR_DRAWING, /**< Drawing tokens. */
} qn_generator_state;

/** Why it ended. */
typedef enum qn_generator_end {
    QN_GENERATOR_END_STOP,   /**< A stop id. */
    QN_GENERATOR_END_LENGTH, /**< max_tokens, or no room. */
    QN_GENERATOR_END_SINK,   /**< The sink wanted no more, or it was stopped. */
} qn_generator_end;

/** Begin a request; the one before must have ended. */
void qn_generator_begin(qn_generator *generator, const qn_generator_request *request);

/**
 * Compute one chunk of the prompt, its last chunk with the first token, or one verification step.
 * Allocates nothing.
 * Returns  QN_OK; QN_E_DEVICE, QN_E_NOMEM where a pass failed: all tokens are forgotten;
 *          QN_E_FORMAT where logits are no numbers; what the sink returned.  The request has ended
 *          then.
 */
QN_MUST_CHECK qn_status qn_generator_step(qn_generator *generator, const qn_generator_sink *sink,
                                          qn_error *err);

/** End the request; what is computed stays. */
void qn_generator_stop(qn_generator *generator);

/**
 * Compute the last token where it is not, so that every position has been told to the sink.
 * Returns  QN_OK; what the sink returned; QN_E_DEVICE, QN_E_NOMEM as a step
 */
QN_MUST_CHECK qn_status qn_generator_catch_up(qn_generator *generator,
                                              const qn_generator_sink *sink, qn_error *err);

/** Forget all tokens; no request may be running. */
void qn_generator_clear(qn_generator *generator);

qn_generator_state qn_generator_state_of(const qn_generator *generator);
qn_generator_end qn_generator_end_of(const qn_generator *generator);

/** Borrowed until close. */
const qn_sequence *qn_generator_sequence(const qn_generator *generator);

/** The sampler, for log-probabilities.  Borrowed until close. */
qn_sampler *qn_generator_sampler(qn_generator *generator);

/** Counts of the present request, or of the last; what only a session knows is 0. */
qn_session_stats qn_generator_count(const qn_generator *generator);
#endif
