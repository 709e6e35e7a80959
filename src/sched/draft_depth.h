/* SPDX-License-Identifier: Apache-2.0 */
/** @file draft_depth.h  How many tokens the MTP layer drafts next, by measured gain and cost. */
#ifndef QN_SCHED_DRAFT_DEPTH_H
#define QN_SCHED_DRAFT_DEPTH_H
#include "quern/quern.h"

#include <stdbool.h>
#include <stdint.h>

/** Most rows of the MTP layer's first pass: those accepted last and all that wait. */
#define QN_DRAFT_EXTEND_ROWS_MAX 256

/** Costs that are estimated: verification of 1 to 9 rows, an MTP pass, a further row of one. */
#define QN_DRAFT_N_COSTS (QN_DRAFT_TOKENS_MAX + 3)

/** What a finished step did and how long it took. */
typedef struct qn_draft_outcome {
    uint32_t depth;         /**< Tokens drafted, at most the policy's depth_max. */
    uint32_t n_accepted;    /**< Of them, from the first on. */
    uint32_t n_extend_rows; /**< Rows of the first MTP pass, 1 to 256; not read at depth 0. */
    double draft_s;         /**< Time of all MTP passes; not read at depth 0. */
    double verify_s;        /**< Time of the trunk's pass over depth + 1 rows. */
    bool is_cut;            /**< The answer ended: whether the next draft was right is not known. */
} qn_draft_outcome;

/**
 * What is known about drafts: a plain value in the caller's storage that owns nothing, used by one
 * thread at a time.  All fields are private to draft_depth.c.
 */
typedef struct qn_draft_depth {
    double n_reached[QN_DRAFT_TOKENS_MAX];  /**< Drafts verified at this position, fading. */
    double n_accepted[QN_DRAFT_TOKENS_MAX]; /**< Those of them that were right. */
    double log_s[QN_DRAFT_N_COSTS];         /**< Costs: logarithms of seconds. */
    double covariance[QN_DRAFT_N_COSTS][QN_DRAFT_N_COSTS]; /**< How sure log_s is. */
    double credit;         /**< Tokens' time that probes may still lose. */
    uint32_t depth_max;    /**< At most QN_DRAFT_TOKENS_MAX. */
    uint32_t last_depth;   /**< Of the last step. */
    uint32_t n_steps;      /**< Steps seen, up to the end of the opening. */
    uint32_t n_waiting;    /**< Rows beyond the first that the MTP layer's next pass has to take. */
    uint32_t n_idle;       /**< Steps since the last draft, of all sequences. */
    uint32_t n_drafting;   /**< Steps with drafts since the last without. */
    uint32_t n_check_wait; /**< n_drafting before one without looks at the cost of depth 0. */
    uint32_t n_slow;       /**< Times in a row that were far too long. */
    uint32_t n_missed;     /**< Probes in a row whose first draft was wrong. */
    uint32_t n_idle_least; /**< n_idle before a new sequence may draft again. */
    bool has_scale;        /**< log_s is in seconds: a time has been seen. */
    bool was_accepted;     /**< The first draft of the last step was right. */
    bool is_given_up;      /**< See qn_draft_depth_is_given_up(). */
} qn_draft_depth;

/** Know nothing.  @p depth_max is 0 to QN_DRAFT_TOKENS_MAX; 0 is given up for ever. */
void qn_draft_depth_init(qn_draft_depth *d, uint32_t depth_max);

/**
 * A sequence begins and the MTP layer's cache with it.  What is known stays.  Where drafting was
 * given up it stays so until enough tokens have been generated since: ask
 * qn_draft_depth_is_given_up() before the prompt is computed.
 */
void qn_draft_depth_begin(qn_draft_depth *d);

/**
 * Tokens to draft in the next step, at most @p depth_limit: room in the context or tokens left.
 * A pure function of the steps observed and the limit.
 */
uint32_t qn_draft_depth_choose(const qn_draft_depth *d, uint32_t depth_limit);

/**
 * Whether this sequence will not draft again, so that no row need wait for the MTP layer.  While it
 * is false at most QN_DRAFT_EXTEND_ROWS_MAX rows wait.
 */
bool qn_draft_depth_is_given_up(const qn_draft_depth *d);

/**
 * Learn from a finished step, given up or not, drafted or not.  From a time that no step takes (not
 * a number, below a nanosecond, above 11 days) nothing is learnt; the rest of the outcome counts.
 */
void qn_draft_depth_observe(qn_draft_depth *d, const qn_draft_outcome *outcome);
#endif
