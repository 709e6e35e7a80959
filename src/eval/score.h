/* SPDX-License-Identifier: Apache-2.0 */
/** @file score.h  Is a reply right?  Pure functions of what was expected and what was said. */
#ifndef QN_EVAL_SCORE_H
#define QN_EVAL_SCORE_H
#include "quern/status.h"

#include "base/str.h"

/** How a reply is compared with the answer. */
typedef enum qn_score {
    QN_SCORE_EXACT,     /**< The same text, white space around it aside. */
    QN_SCORE_NUMBER,    /**< The last number of both, by value. */
    QN_SCORE_CHOICE,    /**< The letter that each settles on. */
    QN_SCORE_JSON,      /**< The same JSON value: order of keys and spelling of numbers aside. */
    QN_SCORE_TOOL_CALL, /**< The same calls in the same order, arguments as JSON values. */
} qn_score;

enum { QN_N_SCORES = 5 };

/** Names as task files have them: "exact", "number", "choice", "json", "tool_call". */
extern const char *const qn_score_names[QN_N_SCORES];

/** The way that tasks of this name are judged where they do not say: exact, unless it is known. */
qn_score qn_score_of_task(qn_str task);

/** What a model said, and to what. */
typedef struct qn_said {
    qn_str text;      /**< The answer without its reasoning. */
    qn_str calls;     /**< A JSON list of {"name", "arguments"}; empty: none. */
    uint32_t letters; /**< Choices that the question offers, as qn_choices_offered() has them. */
} qn_said;

/**
 * Can replies be judged by this answer?
 *
 * @param what  names the answer in errors
 * Returns  QN_OK; QN_E_FORMAT saying what was expected; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_score_check(qn_score score, qn_str answer, const char *what,
                                       qn_error *err);

/** Judge a reply by an answer that qn_score_check() takes.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_score_reply(bool *is_right, qn_score score, qn_str answer,
                                       const qn_said *said, qn_error *err);
#endif
