/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file task.h  Problems from task files: JSON lines {"task", "messages", "answer", "tools"?,
 * "score"?, "id"?} (docs/quality.md).
 */
#ifndef QN_EVAL_TASK_H
#define QN_EVAL_TASK_H
#include "base/buf.h"
#include "base/sha256.h"
#include "eval/score.h"

enum {
    QN_TASK_NAME_BYTES_MAX = 64,
    QN_TASK_FILE_BYTES_MAX = 1 << 30,
    QN_PROBLEMS_MAX = 10000000, /**< Of all files. */
    QN_TASKS_MAX = 1000,        /**< As many are searched for each problem. */
};

/** One problem. */
typedef struct qn_problem {
    qn_str messages; /**< JSON list, borrowed from the file's text. */
    qn_str tools;    /**< JSON list, borrowed; empty: none. */
    qn_str id;       /**< As written, borrowed; empty: none. */
    char *answer;    /**< [answer_len] owned; what "answer" stands for. */
    size_t answer_len;
    qn_score score;
    uint32_t letters; /**< Of a choice: as qn_choices_offered() of the last user's message. */
    uint32_t i_task;
    uint32_t i_file;
    uint32_t line; /**< From 1. */
} qn_problem;

/** A name, and how many problems have it. */
typedef struct qn_task {
    char name[QN_TASK_NAME_BYTES_MAX + 1];
    uint32_t n_problems;
} qn_task;

/** A file that was read. */
typedef struct qn_task_file {
    char *path; /**< Owned. */
    qn_buf text;
    char sha256[QN_SHA256_HEX_BYTES];
} qn_task_file;

/** Problems of several files.  All-zero is empty. */
typedef struct qn_task_set {
    qn_problem *problems; /**< [n_problems] owned, in the order of files and lines. */
    qn_task *tasks;       /**< [n_tasks] owned, in the order of their first problems. */
    qn_task_file *files;  /**< [n_files] owned. */
    uint32_t n_problems, n_tasks, n_files;
    uint32_t problems_capacity, tasks_capacity, files_capacity;
} qn_task_set;

/**
 * Add the problems of a file, of each task at most @p n_max in all (0: no limit).  All lines are
 * checked, also those beyond.
 *
 * Returns  QN_OK; QN_E_FORMAT naming file, line and field; statuses of qn_file_read(); QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_task_set_load(qn_task_set *set, const char *path, uint32_t n_max,
                                         qn_error *err);

/** The same of a text (copied) that @p path names. */
QN_MUST_CHECK qn_status qn_task_set_add(qn_task_set *set, const char *path, qn_str text,
                                        uint32_t n_max, qn_error *err);

/** Free everything; an empty set stays. */
void qn_task_set_deinit(qn_task_set *set);
#endif
