/* SPDX-License-Identifier: Apache-2.0 */
/** @file solve.h  One problem put to a model, and its answer. */
#ifndef QN_EVAL_SOLVE_H
#define QN_EVAL_SOLVE_H
#include "quern/tools.h"

#include "eval/task.h"

/** What is known of an answer once it is judged. */
typedef struct qn_outcome {
    uint64_t n_prompt_tokens;
    uint64_t n_tokens;           /**< Generated. */
    uint64_t n_reasoning_tokens; /**< Of them. */
    uint64_t n_steps;            /**< As in qn_session_stats, like the next. */
    uint64_t n_step_tokens;
    uint64_t ids_hash; /**< Of the generated ids: equal where two answers are the same. */
    double seconds;
    bool is_done;
    bool is_right;
    bool is_cut; /**< It ended because there was no room for more. */
} qn_outcome;

/** An answer while it comes and afterwards.  Its session reports to it. */
typedef struct qn_reply {
    qn_buf text;
    qn_buf reasoning;
    qn_buf calls; /**< JSON list of {"name", "arguments"}; empty: none. */
    qn_finish finish;
    uint64_t ids_hash;
    qn_error failure; /**< No memory for some of it. */
} qn_reply;

void qn_reply_init(qn_reply *reply);
void qn_reply_deinit(qn_reply *reply);

/** A qn_event_fn for a session whose context is the reply. */
void qn_reply_take(void *reply, const qn_event *event);

/** How every problem of a side is asked. */
typedef struct qn_asking {
    qn_chat_options chat; /**< Tools are the problem's. */
    qn_sampling sampling; /**< The seed is mixed with the problem's number. */
    int draft_tokens;
    uint32_t max_tokens;
    bool (*goes_on)(void *context); /**< Asked after each step. */
    void *context;                  /**< Given to it. */
} qn_asking;

/**
 * The ids of a problem's prompt, owned by the caller (qn_free).
 * Returns  QN_OK; QN_E_FORMAT naming file, line and field, or where it leaves no room in the
 *          context; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_problem_encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                                          const qn_chat_options *chat, const qn_task_set *set,
                                          uint32_t i_problem, qn_error *err);

/**
 * Put problem @p i_problem to a session that reports to @p reply, and judge what it says.
 * Returns  QN_OK; as qn_problem_encode(); statuses of qn_session_step(); QN_E_CANCELLED
 */
QN_MUST_CHECK qn_status qn_problem_solve(qn_outcome *out, qn_reply *reply, qn_session *session,
                                         const qn_model *model, const qn_asking *asking,
                                         const qn_task_set *set, uint32_t i_problem, qn_error *err);
#endif
