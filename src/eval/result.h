/* SPDX-License-Identifier: Apache-2.0 */
/** @file result.h  The JSON of a run: the report's first line, and the result (docs/quality.md). */
#ifndef QN_EVAL_RESULT_H
#define QN_EVAL_RESULT_H
#include "quern/tools.h"

#include "eval/report.h"
#include "eval/text.h"

/** What the answers of a report depend on. */
typedef struct qn_header_args {
    const qn_eval_side *sides; /**< [n_sides] */
    uint32_t n_sides;
    const qn_eval_options *options;
    const qn_asking *asking; /**< Settings in force. */
    const qn_task_set *set;
    char (*fingerprints)[QN_SHA256_HEX_BYTES]; /**< [n_sides] */
    const char *kernels; /**< Set in use: another's results may differ in their last bits. */
} qn_header_args;

/** Append one flat JSON object on one line: runs with the same header give the same answers. */
QN_MUST_CHECK qn_status qn_header_append(qn_buf *out, const qn_header_args *args, qn_error *err);

/** What came of a run. */
typedef struct qn_result_args {
    const qn_eval_side *sides; /**< [answers->n_sides] */
    const qn_asking *asking;   /**< Settings in force. */
    const qn_answers *answers; /**< All of them. */
    qn_text *text;             /**< Closed: none.  Its divergences are sorted. */
} qn_result_args;

/** The result as qn_eval() hands it out.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_result_make(char **out, const qn_result_args *args, qn_error *err);
#endif
