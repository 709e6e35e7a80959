/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sequence.h  One sequence on a model: its ids, what is computed of them, its drafts.
 *
 * Ids are appended first and computed in steps afterwards, so that the caller decides how long a
 * step takes and what happens between two of them.  What was computed for an id stays when the
 * sequence is taken back and is used again if the same id is appended: a prompt that begins like
 * the one before it, and a draft that turns out to be right, are one case.  After open nothing here
 * allocates.
 */
#ifndef QN_ENGINE_SEQUENCE_H
#define QN_ENGINE_SEQUENCE_H
#include "quern/quern.h"

#include "model/glm.h"

/** Opaque; one thread at a time. */
typedef struct qn_sequence qn_sequence;

/** Rows of a step whose logits are all kept. */
enum { QN_LOGIT_ROWS_MAX = 16 };
_Static_assert((int)QN_LOGIT_ROWS_MAX > (int)QN_DRAFT_TOKENS_MAX,
               "a verification keeps all its logits");

/** Sizes of a sequence. */
typedef struct qn_sequence_options {
    const qn_kernels *kernels; /**< Borrowed while the sequence is open. */
    qn_kv_dtype kv_dtype;      /**< Not AUTO. */
    uint32_t n_tokens_max;     /**< Positions there is room for: 1 .. the model's maximum. */
    uint32_t n_rows_max; /**< Rows of a step, at most the model's n_rows_max, which is at least
                              QN_LOGIT_ROWS_MAX. */
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

/** Take back all ids.  What is computed waits for the same ids to come again. */
void qn_sequence_rewind(qn_sequence *sequence);

/** Append one id, in 0 .. n_vocab - 1; there must be room. */
void qn_sequence_append(qn_sequence *sequence, int32_t token);

/**
 * A prompt is complete: make sure that the next step brings the logits of its last position, and
 * with @p with_mtp that the MTP layer can follow from there on.  Both may mean that positions are
 * computed again.
 */
void qn_sequence_begin(qn_sequence *sequence, bool with_mtp);

/** The last id counts as not computed: a verification begins with it. */
void qn_sequence_redo_last(qn_sequence *sequence);

/** Forget everything, what is computed too. */
void qn_sequence_clear(qn_sequence *sequence);

/**
 * Did a pass fail on the device since the last call?  Then everything is forgotten, as later passes
 * may have read what it left.
 * Returns  QN_OK; QN_E_DEVICE, QN_E_NOMEM: why
 */
QN_MUST_CHECK qn_status qn_sequence_take_failure(qn_sequence *sequence, qn_error *err);

/** Forget the ids that are not computed yet. */
void qn_sequence_drop_pending(qn_sequence *sequence);

/** Positions appended. */
uint32_t qn_sequence_count(const qn_sequence *sequence);

/** Positions computed: the first ones. */
uint32_t qn_sequence_computed(const qn_sequence *sequence);

/** Every id appended, borrowed until close. */
const int32_t *qn_sequence_ids(const qn_sequence *sequence);

/** Positions that there is still room for. */
uint32_t qn_sequence_room(const qn_sequence *sequence);

/** How a step is run. */
typedef struct qn_sequence_step_options {
    const qn_probe *probe; /**< Sees the trunk's pass; NULL: nobody does. */
    bool
        wants_all_logits; /**< Keep the logits of every row; at most QN_LOGIT_ROWS_MAX rows then. */
    bool with_mtp;        /**< The MTP layer follows, so that drafts stay possible. */
} qn_sequence_step_options;

/** Rows that the next step computes: what is pending, within the bounds. */
uint32_t qn_sequence_next_rows(const qn_sequence *sequence, bool wants_all_logits);

/**
 * Compute the next qn_sequence_next_rows() positions, at least 1.  How the positions are cut into
 * steps changes no result.
 */
void qn_sequence_step(qn_sequence *sequence, const qn_sequence_step_options *options);

/**
 * Draft up to @p n tokens that may follow the ids, of which all but the last must be computed, with
 * the MTP layer following; it follows to the last id here, once for each id.  There must be room
 * for n more.
 *
 * @param[out] drafts  [n]
 * Returns  how many; fewer than @p n only where the layer's logits are no numbers
 */
uint32_t qn_sequence_draft(qn_sequence *sequence, int32_t *drafts, uint32_t n);

/**
 * Rows of the MTP layer that wait for qn_sequence_draft(); the hidden vectors they need are kept
 * as long as their number stays within the rows of a step, beyond that they are computed.
 */
uint32_t qn_sequence_mtp_backlog(const qn_sequence *sequence);

/**
 * Compute the last id, all others being computed, and after it @p n_drafts drafts: one pass, whose
 * rows' logits are kept.  Drafts are not appended; appending the same ids finds them computed.
 *
 * @param with_mtp  keep what the MTP layer needs to follow
 */
void qn_sequence_verify(qn_sequence *sequence, const int32_t *drafts, uint32_t n_drafts,
                        bool with_mtp);

/**
 * Logits of the last position that is computed, [n_vocab], borrowed until a step; NULL where it has
 * none.
 */
const float *qn_sequence_logits(const qn_sequence *sequence);

/**
 * Logits of all rows of the last step or verification, [rows][n_vocab], borrowed until the next;
 * NULL where they were not kept.
 */
const float *qn_sequence_step_logits(const qn_sequence *sequence);

/** Bytes of the cache pages in use. */
uint64_t qn_sequence_cache_bytes(const qn_sequence *sequence);
#endif
