/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file draft_batch.h  How many tokens each sequence of a batch drafts next, by the batch, by what
 * was accepted, and by what steps cost.
 *
 * draft_depth.h is the same question for one sequence that is alone.
 */
#ifndef QN_SCHED_DRAFT_BATCH_H
#define QN_SCHED_DRAFT_BATCH_H
#include "quern/quern.h"

#include <stdbool.h>
#include <stdint.h>

/** What is known of one sequence's drafts; a plain value, fields private to draft_batch.c. */
typedef struct qn_draft_record {
    float n_reached[QN_DRAFT_TOKENS_MAX];  /**< Drafts verified at this position, fading. */
    float n_accepted[QN_DRAFT_TOKENS_MAX]; /**< Those of them that were right. */
    uint64_t last_step;                    /**< Number of the step that was learnt from last. */
} qn_draft_record;

enum { QN_DRAFT_KNOTS = 15 /**< Row counts by powers of 2: 1, 2, 4 ... QN_STEP_ROWS_MAX. */ };

/** What is known of the cost of a pass by its rows: logarithms of seconds, one Gaussian. */
typedef struct qn_draft_curve {
    double log_s[QN_DRAFT_KNOTS];
    double covariance[QN_DRAFT_KNOTS][QN_DRAFT_KNOTS]; /**< How sure log_s is. */
    bool has_scale; /**< log_s is in seconds: a time has been seen. */
    uint32_t n_odd; /**< Times in a row that were far from what was expected. */
} qn_draft_curve;

/** What is known of costs, and of drafts in general; fields private to draft_batch.c. */
typedef struct qn_draft_batch {
    qn_draft_record all;   /**< Of all sequences: what a new one is believed to do. */
    qn_draft_curve trunk;  /**< Verification. */
    qn_draft_curve mtp;    /**< One pass of the MTP layer. */
    double credit;         /**< Steps' time that probes may still lose. */
    uint64_t n_steps;      /**< Steps seen. */
    uint32_t depth_max;    /**< 0 .. QN_DRAFT_TOKENS_MAX */
    uint32_t last_rows;    /**< Of the last step. */
    uint32_t n_rows_seen;  /**< Of the largest step. */
    uint32_t n_drafting;   /**< Steps with drafts since the last without. */
    uint32_t n_check_wait; /**< n_drafting before one without looks at the cost. */
    uint32_t n_probed;     /**< First drafts that the present probe verified ... */
    uint32_t n_right;      /**< ... and those of them that were right. */
    bool is_probe;         /**< The last choice was to draft though it does not seem to pay. */
} qn_draft_batch;

/** Know nothing.  @p depth_max 0 .. QN_DRAFT_TOKENS_MAX. */
void qn_draft_batch_init(qn_draft_batch *d, uint32_t depth_max);

/** A new sequence: it is believed to be as all are. */
void qn_draft_record_init(qn_draft_record *record);

/** A sequence that may draft in the coming step. */
typedef struct qn_draft_seq {
    const qn_draft_record *record; /**< Borrowed during the call. */
    uint32_t limit;                /**< Most that it may draft; cut to the depth_max. */
    uint32_t depth;                /**< Out: 0 .. limit. */
} qn_draft_seq;

/** The step that they are in: with a row for each of them QN_STEP_ROWS_MAX rows at most. */
typedef struct qn_draft_room {
    uint32_t n_other_rows;   /**< Rows of the step beside one for each of them. */
    uint32_t n_other_tokens; /**< Tokens that these rows give: they wait for the step too. */
    uint32_t n_rows_max;     /**< Rows that drafts may add in all. */
} qn_draft_room;

/**
 * Depths that make tokens a second most.
 *
 * @param seqs  [n_seqs] in and out; at most QN_STEP_SEQS_MAX
 */
void qn_draft_batch_choose(qn_draft_batch *d, qn_draft_seq *seqs, uint32_t n_seqs,
                           const qn_draft_room *room);

/** A sequence verified @p depth drafts and accepted the first @p n_accepted of them. */
void qn_draft_batch_accept(qn_draft_batch *d, qn_draft_record *record, uint32_t depth,
                           uint32_t n_accepted);

/** What a step cost. */
typedef struct qn_draft_cost {
    uint32_t n_rows;   /**< Of the trunk's pass. */
    uint32_t n_passes; /**< Of the MTP layer: the largest depth; 0: it drafted nothing. */
    uint32_t n_seqs;   /**< Sequences that drafted. */
    uint32_t n_drafts; /**< Tokens drafted by all of them. */
    double draft_s;    /**< Time of the MTP layer's passes. */
    double verify_s;   /**< Time of the trunk's pass. */
} qn_draft_cost;

/** Learn from a step's times, after what was accepted; one that no step takes teaches nothing. */
void qn_draft_batch_observe(qn_draft_batch *d, const qn_draft_cost *cost);
#endif
