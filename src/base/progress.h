/* SPDX-License-Identifier: Apache-2.0 */
/** @file progress.h  How far a long job is: a bar on a terminal, elsewhere a line every 10 s. */
#ifndef QN_BASE_PROGRESS_H
#define QN_BASE_PROGRESS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What is counted. */
typedef enum qn_progress_unit {
    QN_PROGRESS_BYTES, /**< Printed as MB or GB. */
    QN_PROGRESS_ITEMS, /**< Printed as a number. */
} qn_progress_unit;

/** One job.  One thread at a time.  Written to stderr, and only where info lines are. */
typedef struct qn_progress {
    const char *what;      /**< Borrowed until qn_progress_end(): "loading". */
    qn_progress_unit unit; /**< Of total and done. */
    uint64_t total;        /**< The whole job; 0 where unknown. */
    uint64_t done;         /**< So far. */
    uint64_t start_ns;     /**< qn_clock_ns() at the beginning. */
    uint64_t shown_ns;     /**< When the last line was written. */
    bool is_terminal;      /**< stderr is one: draw a bar. */
} qn_progress;

/** Start the clock; writes nothing yet. */
void qn_progress_begin(qn_progress *progress, const char *what, qn_progress_unit unit,
                       uint64_t total);

/** @p n more are done; writes when it is time (0.1 s on a terminal, 10 s elsewhere). */
void qn_progress_add(qn_progress *progress, uint64_t n);

/** Wipe the bar from a terminal. */
void qn_progress_end(qn_progress *progress);

/** The line for @p elapsed_ns after the beginning: done, total, rate, time left. */
void qn_progress_format(char *out, size_t out_bytes, const qn_progress *progress,
                        uint64_t elapsed_ns);
#endif
