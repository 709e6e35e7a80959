/* SPDX-License-Identifier: Apache-2.0 */
/** @file result.h  Numbers of a bench as JSON (docs/bench_result.md). */
#ifndef QN_BENCH_RESULT_H
#define QN_BENCH_RESULT_H
#include "bench.h"

/** What a run was. */
typedef struct bench_run_info {
    const char *label;
    bench_step step;
    uint32_t repeat; /**< From 0. */
    bool is_confirmation, is_partial;
    bool was_short; /**< Of a search that had seen enough. */
    double seconds; /**< Requests were to be sent for so long; 0: no such time. */
    uint64_t n_planned;
    uint64_t seed;          /**< Of its arrivals. */
    uint64_t begun_wall_ns; /**< Since 1970. */
    double hit_rate;        /**< By construction. */
} bench_run_info;

/** What decides over a run. */
typedef struct bench_outcome {
    double ttft_ms; /**< At the percentile that the knee is about; NaN: none. */
    double success_rate, output_per_s, request_per_s, total_per_s;
    double lag_ms; /**< The client's, of sending or reading, at the 99th percentile. */
    bool is_valid;
    uint64_t n_done;
    bench_work work;
} bench_outcome;

/** A run of the result, without metrics, energy and cost.  NULL without memory. */
json_t *bench_run_json(bench_outcome *outcome, const bench_run_info *run, const bench_tally *tally,
                       const bench_lag *lag, const bench_options *options);

/** A line of requests.jsonl.  False: it could not be written. */
bool bench_request_write(FILE *file, const bench_record *record, const bench_row *row, size_t i_run,
                         bool is_detailed);

/** "workload" and "load" of the result; @p hit_rate by construction, NaN: not known; @p made of the
 * first run, all 0 where there was none. */
json_t *bench_workload_json(const bench_options *options, const bench_made *made, double hit_rate,
                            const char *tokenizer);
json_t *bench_load_json(const bench_options *options);

/** "spreads": for each label of several runs, how far they were apart.  NULL without memory. */
json_t *bench_spreads_json(const json_t *runs);

/** Put vLLM's fields of the headline's run on the top level. */
void bench_put_headline(json_t *result, size_t headline, bool *failed);
#endif
