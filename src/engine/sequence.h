/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sequence.h  One sequence on a model: its ids, its cache, its last logits.
 *
 * Ids are appended first and computed in steps afterwards, so that the caller decides how long a
 * step takes and what happens between two of them.  After open nothing here allocates.
 */
#ifndef QN_ENGINE_SEQUENCE_H
#define QN_ENGINE_SEQUENCE_H
#include "quern/quern.h"

#include "model/glm.h"

/** Opaque; one thread at a time. */
typedef struct qn_sequence qn_sequence;

/** Sizes of a sequence. */
typedef struct qn_sequence_options {
    const qn_kernels *kernels; /**< Borrowed while the sequence is open. */
    qn_kv_dtype kv_dtype;      /**< Not AUTO. */
    uint32_t n_tokens_max;     /**< Positions there is room for: 1 .. the model's maximum. */
    uint32_t n_rows_max;       /**< Rows of a step, at most the model's n_rows_max. */
    bool wants_all_logits;     /**< Steps keep the logits of every row, not of the last alone. */
} qn_sequence_options;

/**
 * An empty sequence.  Cache memory is reserved, not filled.
 *
 * @param glm  borrowed while the sequence is open
 * Returns  QN_OK; QN_E_NOMEM that says how many bytes were asked
 */
QN_MUST_CHECK qn_status qn_sequence_open(qn_sequence **out, qn_glm *glm,
                                         const qn_sequence_options *options, qn_error *err);

/** Release; sets *sequence to NULL; accepts NULL. */
void qn_sequence_close(qn_sequence **sequence);

/** Append one id, in 0 .. n_vocab - 1; there must be room. */
void qn_sequence_append(qn_sequence *sequence, int32_t token);

/** Positions appended. */
uint32_t qn_sequence_count(const qn_sequence *sequence);

/** Positions computed: the first ones. */
uint32_t qn_sequence_computed(const qn_sequence *sequence);

/** Every id appended, borrowed until close. */
const int32_t *qn_sequence_ids(const qn_sequence *sequence);

/**
 * Forget the ids that are not computed yet.  The last one computed is then computed again by the
 * next step where it has no logits.
 */
void qn_sequence_drop_pending(qn_sequence *sequence);

/** Positions that there is still room for. */
uint32_t qn_sequence_room(const qn_sequence *sequence);

/** Rows that the next step computes: what is pending, at most n_rows_max. */
uint32_t qn_sequence_next_rows(const qn_sequence *sequence);

/**
 * Compute the next qn_sequence_next_rows() positions, at least 1.  How the positions are cut into
 * steps changes no result.
 *
 * @param probe  sees the pass; NULL: nobody does
 */
void qn_sequence_step(qn_sequence *sequence, const qn_probe *probe);

/**
 * Logits of the last position computed, [n_vocab], borrowed until a step; NULL where it has none: a
 * step that leaves positions pending computes none.
 */
const float *qn_sequence_logits(const qn_sequence *sequence);

/** Logits of the last step's rows, [rows][n_vocab]; NULL without wants_all_logits.  Borrowed so. */
const float *qn_sequence_step_logits(const qn_sequence *sequence);

/**
 * Draw the token that follows the last position, which must be computed.  The draw depends on the
 * logits, the settings and the position alone; nothing is appended.
 * Returns  QN_OK; QN_E_FORMAT when no logit is a number that can be drawn
 */
QN_MUST_CHECK qn_status qn_sequence_draw(int32_t *token, qn_sequence *sequence,
                                         const qn_sampling *sampling, qn_error *err);

/** Bytes of the cache pages in use. */
uint64_t qn_sequence_cache_bytes(const qn_sequence *sequence);
#endif
