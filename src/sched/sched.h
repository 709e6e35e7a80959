/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sched.h  The scheduler: which rows of which sequences the next step computes, and whose
 * pages they go to.
 *
 * Pure: no clock, thread, input or output, and no allocation after init.  Requests, cancellations,
 * results and times are told to it, steps are asked of it, so the same calls give the same steps.
 * One thread at a time.
 *
 * **Order.**  Requests have one order for good: by time of arrival less QN_SCHED_PRIORITY_US for
 * each step of priority, then by number.  Requests of a group that run are a prefix of it as far as
 * slots and pages reach: they are admitted in this order, without exception, and the last of it
 * gives its pages back (preemption) where an earlier one needs them.  Slots, which all groups
 * share, go by the order too, but a group without pages does not keep the others waiting.  What was
 * preempted is computed again later; what of it is published is found in the prefix tree.
 *
 * **Bounds**, held by assertions here and by tests/sim:
 *  - gap: a sequence that draws tokens has rows in every step until it ends or is preempted, and a
 *    step has at most n_step_rows rows; so between two of its tokens stands one step of so many
 *    rows, and with lag 1 one more;
 *  - starvation: the first request of the order advances in every step, by a token or by at least
 *    qn_sched_first_rows() rows of its ids.  So a request has ended after at most the sum of
 *    qn_sched_steps_max() over itself and all that were ever before it, in steps with work; those
 *    that overtook it count with what they preempted and is computed again.  They arrived at most
 *    QN_SCHED_PRIORITY_US times their advantage in priority after it;
 *  - pages: one group of pages has room for its first request alone, so there is no deadlock.
 *
 * **Pages** of full QN_PAGE_TOKENS verified positions are published in a tree over their tokens.  A
 * prompt shares the longest path of them that is equal token by token and leaves at least one row
 * to compute.  Pages that no sequence uses stay until they are needed: the leaf unused for longest
 * goes first.
 */
#ifndef QN_SCHED_SCHED_H
#define QN_SCHED_SCHED_H
#include "sched/step.h"

#include <stddef.h>

/** Opaque. */
typedef struct qn_sched qn_sched;

enum {
    QN_SCHED_PRIORITY_MAX = 100,     /**< Priorities are -100 .. 100. */
    QN_SCHED_PRIORITY_US = 10000000, /**< What a step of priority is worth. */
    QN_SCHED_CONTEXT_MAX = 1 << 20,  /**< Positions of a sequence. */
    QN_SCHED_QUEUE_MAX = 1 << 20,    /**< Requests that may wait. */
};

/** Sizes, which memory follows. */
typedef struct qn_sched_limits {
    uint32_t n_groups;    /**< Attention groups, 1 .. QN_PAGE_GROUPS_MAX. */
    uint32_t n_pages;     /**< Of each group, at least 1. */
    uint32_t n_slots;     /**< Sequences at once, of all groups: 1 .. QN_STEP_SEQS_MAX. */
    uint32_t n_queue;     /**< Requests that may wait, 1 .. QN_SCHED_QUEUE_MAX; preempted ones not
                               counted. */
    uint32_t n_step_rows; /**< At least n_slots + QN_PAGE_TOKENS, at most QN_STEP_ROWS_MAX. */
    uint32_t n_context;   /**< Positions of a sequence, 2 .. QN_SCHED_CONTEXT_MAX. */
    uint32_t n_draft_max; /**< 0 .. QN_DRAFT_TOKENS_MAX */
    uint32_t lag;         /**< Results that may be outstanding when a step is asked for: 0 or 1. */
    uint64_t hash_seed;   /**< Of the prefix tree; unknown to those who send prompts. */
    bool has_prefix_tree; /**< False: nothing is published or shared. */
} qn_sched_limits;

/** Bytes of a scheduler. @p limits were checked. */
size_t qn_sched_bytes(const qn_sched_limits *limits);

/** Make one in @p memory: qn_sched_bytes() bytes, aligned to 64, borrowed while it is used. */
qn_sched *qn_sched_init(void *memory, const qn_sched_limits *limits);

/** What is asked for; copied but for ids. */
typedef struct qn_sched_request {
    int32_t *ids;   /**< [n_ids + max_tokens] the prompt, behind which the scheduler writes what
                         is drawn.  Borrowed until the request's end was polled and the results of
                         all steps planned before it have been taken: the executor reads the prompt
                         of a step that is outstanding. */
    uint32_t n_ids; /**< 1 .. n_context - 1, and no more than one group's pages hold with one
                         token more. */
    uint32_t max_tokens; /**< At least 1.  An answer ends earlier where the context or one group's
                              pages are full. */
    int draft_tokens;    /**< 0 .. n_draft_max: depth where the row budget allows; QN_DRAFT_AUTO: by
                              batch, measured acceptance and measured times. */
    int32_t priority;    /**< Higher goes first; within QN_SCHED_PRIORITY_MAX. */
    uint64_t deadline_us; /**< When it ends, finished or not; 0: never. */
    uint64_t salt[2];     /**< Pages are shared only between requests of the same salt. */
    uint64_t session;     /**< Requests of one session prefer one group; 0: none. */
    bool needs_all_rows;  /**< Its whole prompt is computed: nothing is taken from the tree. */
} qn_sched_request;

/**
 * Queue a request.  O(n_ids / QN_PAGE_TOKENS) for each group.  Its group is chosen here, for good,
 * by qn_route_choose(): longest prefix, then load, then the group of its session's last request.
 *
 * @param[out] id  its name until its end was polled
 * Returns  true; false: the queue is full, or so many requests are preempted or ended without
 *          having been polled that there is no place
 */
bool qn_sched_submit(qn_request_id *id, qn_sched *sched, const qn_sched_request *request,
                     uint64_t now_us);

/** Why a request ended. */
typedef enum qn_sched_end_reason {
    QN_SCHED_END_STOP,     /**< The executor said so. */
    QN_SCHED_END_LENGTH,   /**< max_tokens, the context or the pages are full. */
    QN_SCHED_END_CANCEL,   /**< qn_sched_cancel() */
    QN_SCHED_END_DEADLINE, /**< In the queue or running. */
    QN_SCHED_END_ERROR,    /**< Its sequence or its step failed. */
} qn_sched_end_reason;

/** End a request now, wherever it is: its pages are free at once.  Unknown ids are ignored. */
void qn_sched_cancel(qn_sched *sched, qn_request_id id);

/** The same, for @p reason: what a caller finds out, such as a stop text. */
void qn_sched_end_request(qn_sched *sched, qn_request_id id, qn_sched_end_reason reason);

/**
 * The next step.  At most `lag` results may be outstanding.  With n_seqs 0 nothing can be computed
 * until a result, or without one outstanding until a request, comes; the step then needs no result
 * and need not be executed unless it publishes, begins or changes pages.
 *
 * @param[out] step  overwritten
 */
void qn_sched_plan(qn_step *step, qn_sched *sched, uint64_t now_us);

/**
 * The result of the oldest step that has none.  What it says of requests that ended or were
 * preempted meanwhile is dropped: the latter draw these tokens again.  Where the step failed its
 * requests end, preempted ones too; where the device's memory is lost so do all that run, and the
 * tree is emptied.
 *
 * @param[out] n_taken  [result->n_seqs] tokens that were appended to ids: those to tell of.  All
 *                      that were drawn; 0 where the request had ended or was preempted
 */
void qn_sched_take_result(uint32_t *n_taken, qn_sched *sched, const qn_step_result *result,
                          uint64_t now_us);

/** An end. */
typedef struct qn_sched_end {
    qn_request_id request;
    qn_sched_end_reason reason;
} qn_sched_end;

/** Next end, in the order in which they came; each request has one.  Its ids are free then, or
 *  with the last result that is outstanding. */
bool qn_sched_poll_end(qn_sched_end *end, qn_sched *sched);

/** Rows of the first prompt in each step, at least (see Bounds). */
uint32_t qn_sched_first_rows(const qn_sched_limits *limits);

/**
 * A request's part of the starvation bound (see Bounds): steps with work while it is the first.
 *
 * @param overtakes  it came before one that was there already: whoever was the first by then may
 *                   lose its slot and all that it has computed, and nothing of that is in the tree
 */
uint64_t qn_sched_steps_max(const qn_sched_limits *limits, uint32_t n_ids, uint32_t max_tokens,
                            bool overtakes);

/** Forget all published pages; running sequences keep theirs, unpublished. */
void qn_sched_flush(qn_sched *sched);

/** What of a request is known. */
typedef struct qn_sched_state {
    uint32_t n_ids;    /**< Prompt and tokens drawn. */
    uint32_t n_cached; /**< Of the prompt: taken from the tree when it was first admitted. */
    uint32_t group;    /**< Whose pages it takes. */
    bool is_running;   /**< It has a slot. */
} qn_sched_state;

/** False: no such request, or it has ended. */
bool qn_sched_get_state(qn_sched_state *state, const qn_sched *sched, qn_request_id id);

/** Rows of prompts not computed yet and sequences running, queue included: what a router weighs. */
uint64_t qn_sched_load(const qn_sched *sched, uint32_t group);

/** Counts; those of pages are of all groups. */
typedef struct qn_sched_counts {
    uint32_t n_running, n_waiting;                /**< Requests now. */
    uint32_t n_free, n_referenced, n_cached;      /**< Pages now; their sum is all pages. */
    uint64_t n_queried_tokens, n_hit_tokens;      /**< Of prompts when first admitted. */
    uint64_t n_preempted;                         /**< Since init, as the following. */
    uint64_t n_recomputed_tokens;                 /**< After preemptions. */
    uint64_t n_evicted, n_published, n_exchanged; /**< Pages. */
    uint64_t n_steps, n_rows, n_drafted, n_accepted;
    uint64_t n_ended[QN_SCHED_END_ERROR + 1]; /**< By reason. */
} qn_sched_counts;

qn_sched_counts qn_sched_count(const qn_sched *sched);
#endif
