/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file report.h  The report of a run: a header line that says what was run, a line for each
 * answer.
 *
 * A line is written by one call and counts once its newline is there, so that a process that is
 * killed leaves at most half a line, which the next one takes away.
 */
#ifndef QN_EVAL_REPORT_H
#define QN_EVAL_REPORT_H
#include "eval/solve.h"

enum { QN_SIDES_MAX = 2 };

/** A side's settings in force, names as qn_model_info has them. */
typedef struct qn_side_info {
    char quantization[16];
    char weights[16];
    char compute[16];
    char device[16];
    char kv_dtype[16];
    int draft_tokens; /**< 0: no speculation; QN_DRAFT_AUTO. */
} qn_side_info;

/** A report that is open.  All-zero is closed. */
typedef struct qn_report {
    const char *path; /**< Borrowed; NULL: nothing is kept. */
    int fd;
    uint64_t good_bytes; /**< Whole lines. */
} qn_report;

/** What a report tells of answers. */
typedef struct qn_answers {
    const qn_task_set *set;
    uint32_t n_sides;
    const char *models[QN_SIDES_MAX];   /**< As they were named. */
    qn_outcome *outcomes[QN_SIDES_MAX]; /**< [n_problems] each. */
    qn_side_info infos[QN_SIDES_MAX];   /**< Empty names: nothing is known yet. */
} qn_answers;

/**
 * Open or begin the file, which one process at a time may do.
 *
 * @param path     borrowed until close
 * @param header   one JSON object without a newline: of an existing file the first line has to be
 *                 the same
 * @param resumes  the file may exist: its answers go into @p answers, half a line is cut off
 * Returns  QN_OK; QN_E_FORMAT saying which setting, or line, is another; QN_E_IO; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_report_open(qn_report *report, const char *path, qn_str header,
                                       bool resumes, qn_answers *answers, qn_error *err);

/**
 * Append the line of an answer; nothing where no report is kept.
 * Returns  QN_OK; QN_E_IO, after which the file ends with the line before; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_report_append(qn_report *report, const qn_answers *answers,
                                         uint32_t i_side, uint32_t i_problem, const qn_reply *reply,
                                         qn_error *err);

/** Append a depth of speculation as JSON: a number, or "auto". */
QN_MUST_CHECK qn_status qn_draft_append(qn_buf *out, int draft_tokens, qn_error *err);

void qn_report_close(qn_report *report);
#endif
