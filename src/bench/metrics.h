/* SPDX-License-Identifier: Apache-2.0 */
/** @file metrics.h  The pages of /metrics of one run, and what they come to.  Pure. */
#ifndef QN_BENCH_METRICS_H
#define QN_BENCH_METRICS_H
#include "figures.h"
#include "series.h"

#include <jansson.h>

enum { METRICS_WHY_BYTES = 320 };

/** Counters count from the first page to the last, gauges over all of them. */
typedef struct metrics_run {
    bench_figures first, last;     /**< At begin and end of the run ... */
    bool has_first, has_last;      /**< ... where they were read. */
    bool has_fallen;               /**< A counter: the server was started again. */
    bench_engine engine;           /**< As the last page that was read has it. */
    bench_figures before;          /**< The last page. */
    size_t n_read, n_failed;       /**< Pages. */
    char why[METRICS_WHY_BYTES];   /**< What was wrong with the last page that failed. */
    series over_time;              /**< Second, running, waiting, page use, tokens generated. */
    double hit_rates, lengths;     /**< Sums of gauges over pages ... */
    size_t n_hit_rates, n_lengths; /**< ... that had them. */
} metrics_run;

/** Which page it is. */
typedef enum metrics_moment {
    METRICS_BEGIN,
    METRICS_MIDDLE,
    METRICS_END,
} metrics_moment;

/** No page yet. */
void metrics_init(metrics_run *run);

/** A page came; @p page NULL: none did, @p why says why. */
void metrics_note(metrics_run *run, metrics_moment moment, double at_s, const bench_figures *page,
                  const char *why);

/** "metrics" (docs/bench_result.md).  Owned by the caller; NULL without memory. */
json_t *metrics_json(const metrics_run *run);
#endif
