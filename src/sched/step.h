/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file step.h  A step, which the scheduler orders and the engine executes, and its result.
 *
 * Both are plain values of fixed capacity without pointers, so that a step can be sent to ranks,
 * logged, replayed and simulated.  A step names sequences by slot.  Their last tokens, positions,
 * page tables, random state and settings live with the executor and change by steps alone.
 *
 * The executor takes the parts of a step in this order: publishes, begins, pages, rows.
 */
#ifndef QN_SCHED_STEP_H
#define QN_SCHED_STEP_H
#include "quern/quern.h"

#include "base/page.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    QN_STEP_SEQS_MAX = 1024,   /**< Sequences that run at once. */
    QN_STEP_ROWS_MAX = 16384,  /**< Rows of a step. */
    QN_STEP_PAGES_MAX = 20480, /**< Page-table entries of a step: a context of a million tokens. */
    QN_STEP_TOKENS_MAX = QN_DRAFT_TOKENS_MAX + 1, /**< Tokens that a sequence emits in a step. */
};

/**
 * A request's name, never given twice: its place among the requests that a scheduler can hold, and
 * above that a serial number.  0 names none.
 */
typedef uint64_t qn_request_id;

/** Place of a request: smaller than n_slots + n_queue of the scheduler's limits. */
static inline uint32_t qn_request_place(qn_request_id id)
{
    return (uint32_t)id;
}

/** A slot is given to a request; whatever was in it before is over. */
typedef struct qn_step_begin {
    qn_request_id request;
    uint32_t slot;
    uint32_t n_cached; /**< Positions whose pages hold everything already, a multiple of
                            QN_PAGE_TOKENS. */
} qn_step_begin;

/** Entry @c i_page of a slot's page table becomes @c page. */
typedef struct qn_step_page {
    uint32_t slot;
    uint32_t i_page;
    qn_page_id page;
    bool is_shared; /**< It was published and holds its positions; else its old bytes mean nothing.
                         A sequence's own page may be exchanged for a shared one of the same
                         tokens. */
} qn_step_page;

/** Rows of one sequence.  A slot stands at most once in a step. */
typedef struct qn_step_seq {
    qn_request_id request;
    uint32_t slot;
    uint32_t n_rows;   /**< Prompt: known ids to compute.  Else 1 + n_drafts: verification. */
    uint32_t n_drafts; /**< Tokens to draft and verify; 0 of a prompt. */
    uint32_t first;    /**< Prompt: position of the first row.  Else not said: the executor knows
                            how many tokens the sequence has. */
    bool is_prompt;    /**< Ids that were given, or drawn before a preemption. */
    bool is_drawing;   /**< A token is drawn from the last row: not of a prompt's earlier chunks. */
} qn_step_seq;

/** One step.  Only the first n_... entries of the arrays mean anything. */
typedef struct qn_step {
    uint64_t number; /**< 1, 2, 3 ...: results name it. */
    uint32_t n_published;
    uint32_t n_begins;
    uint32_t n_pages;
    uint32_t n_seqs; /**< 0: nothing to compute. */
    uint32_t n_rows; /**< Of all sequences. */
    qn_page_id
        published[QN_STEP_PAGES_MAX]; /**< Now in the prefix tree: their bytes stay as they
                                           are until they are given to a sequence unshared. */
    qn_step_begin begins[QN_STEP_SEQS_MAX];
    qn_step_page pages[QN_STEP_PAGES_MAX];
    qn_step_seq seqs[QN_STEP_SEQS_MAX];
} qn_step;

/** What became of one sequence's rows. */
typedef struct qn_seq_result {
    qn_request_id request; /**< As in the step, in the step's order. */
    uint32_t n_tokens;     /**< Tokens drawn, in order; 0 where nothing was to be drawn. */
    uint32_t n_accepted;   /**< Of the drafts; at least n_tokens - 1. */
    uint32_t n_complete; /**< Positions 0 .. n_complete - 1 have all that pages carry, of the trunk
                              and of the MTP layer, for tokens that are the sequence's. */
    int32_t tokens[QN_STEP_TOKENS_MAX];
    bool is_stopped; /**< The last token ends the answer. */
    bool is_failed;  /**< This sequence alone cannot go on: its logits are no numbers. */
} qn_seq_result;

/** How a step ended. */
typedef enum qn_step_outcome {
    QN_STEP_DONE,
    QN_STEP_FAILED, /**< Nothing was computed that counts; pages published before are whole, and
                         what the step publishes, begins and says of pages was taken. */
    QN_STEP_LOST,   /**< The device's memory is lost, cached pages included. */
} qn_step_outcome;

/** Result of a step.  Results come in the order of their steps. */
typedef struct qn_step_result {
    uint64_t number;
    qn_step_outcome outcome;
    double draft_s;  /**< Time of the MTP passes; 0: not measured. */
    double verify_s; /**< Time of the trunk's pass; 0: not measured. */
    uint32_t n_seqs; /**< That of the step; 0 where it is not done. */
    qn_seq_result seqs[QN_STEP_SEQS_MAX];
} qn_step_result;
#endif
