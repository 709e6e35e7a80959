/* SPDX-License-Identifier: Apache-2.0 */
/** @file bench.h  A whole bench of a server: from what is asked for to result.json
 * (docs/bench_result.md). */
#ifndef QN_BENCH_BENCH_H
#define QN_BENCH_BENCH_H
#include "price.h"
#include "tally.h"
#include "watch.h"
#include "workload.h"

#include <stdio.h>

/** Which runs are made. */
typedef enum bench_plan {
    BENCH_SINGLE,      /**< One. */
    BENCH_RAMP,        /**< One for each step. */
    BENCH_KNEE,        /**< A search for the highest rate within a limit. */
    BENCH_SENSITIVITY, /**< One for each hit rate, with MTP and without. */
} bench_plan;

enum {
    BENCH_STEPS_MAX = 32,
    BENCH_AT_ONCE_MAX = 16384, /**< Requests under way. */
    BENCH_REQUESTS_MAX = 1000000,
};

/** The success below which a run is warned of, and no knee is found. */
#define BENCH_SUCCESS_MIN 0.999

/** How a load is driven. */
typedef struct bench_step {
    double rate;        /**< Requests a second; INFINITY: as fast as n_at_once allows. */
    uint32_t n_at_once; /**< Requests under way at most; 0: no limit. */
} bench_step;

/** How far it is, for who watches. */
typedef struct bench_live {
    const char *what; /**< "prompts", "warm-up", "2.4 requests/s". */
    double share;     /**< Done of it. */
    bool is_running;  /**< What follows is of a run under way. */
    double now_s;     /**< Since it began. */
    size_t n_active;  /**< Requests under way. */
    size_t n_held;    /**< Due, but held back by the limit of requests at once. */
    uint64_t n_done, n_failed;
    uint64_t n_total; /**< 0: as many as there is time for. */
    double requests_per_s, output_per_s;
    double ttft_ms, tpot_ms; /**< Means so far; NaN: none. */
    double lag_ms; /**< By how much a request that has ended was sent too late, at most. */
} bench_live;

/** What is asked for.  All borrowed. */
typedef struct bench_options {
    const char *command;       /**< As it was given, without keys. */
    const char *workload_name; /**< "wafer" */
    bench_target target;
    bench_api api;
    const char *path;                /**< "/v1/completions" */
    const char *model;               /**< NULL: the only one that the server has. */
    const char *tokenizer;           /**< NULL: the server's. */
    bench_workload_options workload; /**< model, api, n_template and salt are filled in. */
    bool has_salt;                   /**< workload.salt is one; else it is drawn. */
    bench_plan plan;
    bench_step steps[BENCH_STEPS_MAX]; /**< One, but of a ramp; of a knee the first is a guess. */
    size_t n_steps;
    double burstiness;
    double duration_s;  /**< Requests are sent for so long; 0: workload.n_requests of them. */
    uint64_t n_warmups; /**< Whole requests before the clock of each run. */
    uint32_t n_repeats; /**< Of each step. */
    double knee_percent, knee_limit_ms; /**< Of the TTFT. */
    double goodput_ms[BENCH_N_METRICS]; /**< NaN: no limit. */
    double percents[BENCH_PERCENTS_MAX];
    size_t n_percents;
    bool flushes_cache;        /**< Before each run. */
    bench_watch_options watch; /**< target is filled in. */
    const char *prices, *references, *accelerator;
    uint32_t n_accelerators;
    const char *mtp_off_url, *mtp_off_body; /**< NULL: not given. */
    const char *const *notes;               /**< [n_notes] "KEY=TEXT" */
    size_t n_notes;
    FILE *requests;                 /**< Gets requests.jsonl; NULL: not written. */
    bool is_detailed;               /**< With the chunks' times. */
    void *context;                  /**< Of the next two. */
    bool (*goes_on)(void *context); /**< False: stop, and make a partial result. */
    void (*show)(void *context, const bench_live *live);
} bench_options;

/**
 * Measure.
 *
 * @param[out] result  owned by the caller (json_decref); also of a bench that was stopped, and
 *                     beside an error of a run behind the first: then it is partial
 * Returns  QN_OK, whatever requests came to; QN_E_INVAL, QN_E_FORMAT, QN_E_IO naming what is wrong,
 *          before the first run where it is of the options; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_serve(json_t **result, const bench_options *options, qn_error *err);
#endif
