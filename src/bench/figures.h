/* SPDX-License-Identifier: Apache-2.0 */
/** @file figures.h  What the metrics of an engine say, by names that are the same for all.  Pure.
 */
#ifndef QN_BENCH_FIGURES_H
#define QN_BENCH_FIGURES_H
#include "base/str.h"

/** Engines whose names we know.  Quern and ATOM come before vLLM, whose names they may have too. */
typedef enum bench_engine {
    BENCH_QUERN,
    BENCH_ATOM,
    BENCH_VLLM,
    BENCH_SGLANG,
    BENCH_LLAMA_CPP,
    BENCH_N_ENGINES,
    BENCH_UNKNOWN = BENCH_N_ENGINES,
} bench_engine;

/** "quern", "atom", "vllm", "sglang", "llama.cpp", "unknown" */
const char *bench_engine_name(bench_engine engine);

/** What is read.  Counters first. */
typedef enum bench_figure {
    BENCH_HIT_TOKENS,   /**< Of prompts, found in the cache. */
    BENCH_QUERY_TOKENS, /**< Of prompts, looked for. */
    BENCH_GENERATED,
    BENCH_DRAFTS, /**< Steps in which drafts were verified. */
    BENCH_DRAFTED,
    BENCH_ACCEPTED,
    BENCH_PREEMPTIONS,
    BENCH_N_COUNTERS,
    BENCH_RUNNING = BENCH_N_COUNTERS,
    BENCH_WAITING,
    BENCH_PAGE_USE,          /**< 0 to 1 */
    BENCH_HIT_RATE,          /**< A gauge: of late. */
    BENCH_ACCEPTANCE_LENGTH, /**< The same. */
    BENCH_DRAFT_TOKENS,      /**< Depth of drafts. */
    BENCH_N_FIGURES,
} bench_figure;

enum { BENCH_POSITIONS_MAX = 16 };

/** One page's figures; NaN: not there. */
typedef struct bench_figures {
    bench_engine engine;
    double of[BENCH_N_FIGURES];
    double accepted_at[BENCH_POSITIONS_MAX]; /**< By the draft's place. */
    size_t n_samples, n_broken;              /**< Lines of the page. */
} bench_figures;

/**
 * Read a page.  Replicas and data-parallel engines are added up (shares: their mean), ranks that
 * compute the same together count once.
 */
void bench_figures_read(bench_figures *out, qn_str text);

/** Has a counter fallen, as when a server was started again in between? */
bool bench_figures_fell(const bench_figures *before, const bench_figures *after);
#endif
