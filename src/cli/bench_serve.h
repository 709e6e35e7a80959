/* SPDX-License-Identifier: Apache-2.0 */
/** @file bench_serve.h  What the options of `quern bench serve` ask for. */
#ifndef QN_CLI_BENCH_SERVE_H
#define QN_CLI_BENCH_SERVE_H
#include "bench/bench.h"
#include "options.h"

/** Values of the options; those that were not given are 0 or NULL where no default is named. */
typedef struct bench_serve_values {
    cli_common common;
    /* server */
    const char *base_url, *host, *endpoint, *model, *tokenizer, *api_key, *api_key_file;
    uint64_t port;
    cli_list headers;
    int backend; /**< Of backend_words, in its order. */
    bool is_insecure;
    double timeout_s; /**< 600 */
    /* workload */
    const char *workload, *dataset, *dataset_path, *extra_body;
    uint64_t n_prompts, n_input, n_output, n_prefix, n_groups, n_per_group, n_turns, seed, salt;
    double scale, range_ratio, temperature, top_p, min_p; /**< scale: 1; NaN: not given. */
    uint64_t top_k;
    int range_meaning; /**< bench_range */
    bool ignores_eos, sends_ids;
    /* load */
    const char *ramp, *ramp_concurrency, *knee;
    double rate, burstiness, duration_s; /**< INFINITY; 1; 0: not given */
    int arrivals;                        /**< 0 poisson, 1 constant, 2 gamma */
    uint64_t n_at_once, n_warmups, n_repeats;
    bool is_sensitivity, flushes_cache;
    const char *mtp_off_url, *mtp_off_body;
    /* figures */
    cli_list goodput, notes;
    const char *metrics, *percentiles, *power, *prices, *references, *accelerator;
    uint64_t n_accelerators;
    bool no_metrics;
    /* output */
    const char *output, *result_dir, *result_file, *label;
    bool as_json, saves, is_detailed;
} bench_serve_values;

/** Words of --backend, by their places: completions are even, chat is odd. */
#define BENCH_BACKENDS                                                                             \
    "openai/vllm/openai-completions/sglang-oai/sglang/llama.cpp|openai-chat/vllm-chat/"            \
    "sglang-oai-chat"

enum { BENCH_METRICS_SHOWN = 4, BENCH_TEXT_BYTES = 4096, BENCH_URL_BYTES = 1024 };

/** What is asked for, and the memory that it borrows beside the values'. */
typedef struct bench_serve_plan {
    bench_options options;
    char base_url[BENCH_URL_BYTES], mtp_off_url[BENCH_URL_BYTES];
    char key[1024]; /**< Of a file. */
    char *extra;    /**< owned */
    char command[BENCH_TEXT_BYTES];
    const char *metrics[BENCH_METRICS_SHOWN]; /**< Whose latencies are printed. */
    size_t n_metrics;
    double percents[BENCH_PERCENTS_MAX]; /**< Which of them. */
    size_t n_percents;
} bench_serve_plan;

/**
 * Make a plan of the values.
 * Returns  QN_OK; QN_E_INVAL naming the option, also for options that contradict each other;
 *          QN_E_NOT_FOUND, QN_E_IO, QN_E_FORMAT of files
 */
QN_MUST_CHECK qn_status bench_serve_plan_init(bench_serve_plan *plan,
                                              const bench_serve_values *values, qn_error *err);
void bench_serve_plan_deinit(bench_serve_plan *plan);
#endif
