/* SPDX-License-Identifier: Apache-2.0 */
/** @file bench_engine.h  How fast an engine computes prompts and answers, by how many sequences it
 * has, how long they are and how deep it drafts. */
#ifndef QN_CLI_BENCH_ENGINE_H
#define QN_CLI_BENCH_ENGINE_H
#include "options.h"

#include <jansson.h>

enum { BENCH_REPEATS_MAX = 100 };

/** What to measure: every batch with every context and depth. */
typedef struct bench_settings {
    uint32_t batches[CLI_COUNTS_MAX], contexts[CLI_COUNTS_MAX];
    int depths[CLI_COUNTS_MAX]; /**< As qn_request.draft_tokens. */
    size_t n_batches, n_contexts, n_depths;
    uint32_t n_prompt, n_output, n_repeats;
    uint64_t n_step_rows;    /**< 0: the default. */
    const char *page_cache;  /**< NULL: the default. */
    float acceptance_length; /**< 0: not pinned. */
    bool shares_prefix;
    bool is_quiet;
} bench_settings;

/** The median of the repeats, and how far apart they were: (largest - smallest) / median. */
typedef struct bench_figure {
    double median, spread;
} bench_figure;

/** One line of the table. */
typedef struct bench_cell {
    uint32_t n_sequences, context;
    int depth;
    bool is_synthetic;
    bool has_decode;              /**< There was a step in which all sequences answered. */
    bench_figure prefill, decode; /**< Tokens a second, of all sequences. */
    bench_figure step_ms;         /**< Of such a step. */
    double acceptance_length;     /**< Tokens that a sequence got of it. */
    uint64_t peak_pages;
} bench_cell;

/**
 * Measure.
 *
 * @param[out] cells  owned by the caller (free)
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_CANCELLED; what an engine returns
 */
QN_MUST_CHECK qn_status bench_engine(bench_cell **cells, size_t *n_cells, qn_model *model,
                                     const bench_settings *settings, qn_error *err);

/** All of it as JSON: where, with what, the cells.  NULL without memory. */
json_t *bench_engine_json(const bench_cell *cells, size_t n_cells, const qn_model *model,
                          const bench_settings *settings);

/** The cells as a table. */
void bench_engine_print(FILE *file, const bench_cell *cells, size_t n_cells, const qn_model *model,
                        const bench_settings *settings);
#endif
