/* SPDX-License-Identifier: Apache-2.0 */
/** @file run.h  One run of a bench: its prompts, what warms the server up, the load, its figures.
 */
#ifndef QN_BENCH_RUN_H
#define QN_BENCH_RUN_H
#include "result.h"

/** A server that is asked. */
typedef struct bench_peer {
    bench_target target;
    json_t *server; /**< bench_server_json(); all three owned. */
    bench_client *client;
    bench_watch *watch;
} bench_peer;

/** What runs share. */
typedef struct bench_runner {
    const bench_options *options;
    const bench_peer *peer; /**< Who is asked now; borrowed. */
    const char *model;
    bench_tokens *tokens;
    bool counts_here; /**< The tokenizer is in this process: fast enough to count answers by. */
    bench_data data;
    uint32_t n_template;  /**< Tokens that the server's chat format adds to a prompt. */
    bool has_usage;       /**< As its first answer told. */
    uint64_t n_workloads; /**< Made: own parts of each have another salt, */
    uint64_t n_runs;      /**< ... shared parts of each run and its warm-up. */
    uint64_t salt;
    double alone_s, alone_ttft_s; /**< Of whole requests on an idle server; NaN: not known. */
    bool was_short;               /**< The last run was cut: the server may still be at work. */
    bool is_stopped;              /**< By who watches. */
    json_t *runs;                 /**< Array; owned. */
    bench_made made;              /**< Of the first run. */
    uint64_t n_unsure, n_prompt_differs, n_whole, n_requests; /**< Over all runs. */
    bool lacks_cached; /**< Of some run the cached tokens are not known. */
    bool ran_out;      /**< Prompts were too few for the time. */
    bool is_unwritten; /**< requests.jsonl could not be written. */
} bench_runner;

/** One run to make. */
typedef struct bench_task {
    const char *label;
    bench_step step;
    double seconds;      /**< Requests are sent for so long; 0: n_requests of them. */
    uint64_t n_requests; /**< 0: what the file has. */
    uint32_t repeat;
    bool is_confirmation;
    double limit_ms; /**< Stop when the TTFT cannot stay below it; INFINITY: none. */
    const bench_workload_options *workload; /**< But for what is filled in. */
} bench_task;

/** Ask the server one short thing: is it there, does it tell tokens, what does its chat format add?
 * QN_E_IO where no connection is made. */
QN_MUST_CHECK qn_status bench_run_probe(bench_runner *runner, qn_error *err);

/**
 * Make a run and append it to runner->runs, unless it was stopped before its first request.
 * Returns  QN_OK, also where it was stopped; what bench_workload_open() and bench_client_run()
 *          return
 */
QN_MUST_CHECK qn_status bench_run(bench_runner *runner, const bench_task *task,
                                  bench_outcome *outcome, qn_error *err);
#endif
