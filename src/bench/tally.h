/* SPDX-License-Identifier: Apache-2.0 */
/** @file tally.h  What the requests of one run come to: counts, latencies, tokens over time. */
#ifndef QN_BENCH_TALLY_H
#define QN_BENCH_TALLY_H
#include "client.h"
#include "stats.h"

/** What is kept of a request: 64 bytes, so that 100,000 take 6.4 MB. */
typedef struct bench_row {
    double due_s, sent_s, end_s;
    double ttft_ms, tpot_ms, e2el_ms; /**< From due_s; NaN: did not happen; TPOT: of one token, or
                                         of several in one piece. */
    uint32_t n_prompt, n_output, n_cached;
    bool has_cached;
    uint8_t end; /**< bench_end */
} bench_row;

enum { BENCH_FINISHES = 8, BENCH_PERCENTS_MAX = 16 };

/** Width of the buckets that tokens are counted in as they arrive. */
#define BENCH_BUCKET_S 0.1

/** One run.  All-zero is empty. */
typedef struct bench_tally {
    bench_row *rows; /**< [n_rows] owned, in the order in which they ended. */
    size_t n_rows, rows_max;
    uint64_t n_ends[BENCH_N_ENDS];
    char messages[BENCH_N_ENDS][BENCH_MESSAGE_BYTES]; /**< The first of each kind. */
    struct {
        char reason[BENCH_FINISH_BYTES];
        uint64_t n;
    } finishes[BENCH_FINISHES]; /**< [n_finishes]; beyond these: under the last. */
    size_t n_finishes;
    bench_histogram itl; /**< Between chunks, ms. */
    double *tokens; /**< [n_buckets] owned: that arrived in each, of requests that were whole. */
    size_t n_buckets;
    uint64_t n_chunks;         /**< Of requests that were whole. */
    uint64_t n_unsure;         /**< Whole, and their tokens counted by chunks for want of better. */
    uint64_t n_prompt_differs; /**< Whole, and of another number of tokens than constructed. */
    uint64_t n_whole;          /**< Several tokens in one piece: not streamed. */
    uint64_t n_over;   /**< Whole, and with a TTFT over limit_ms: what a knee search counts. */
    double limit_ms;   /**< INFINITY: none. */
    bool lacks_memory; /**< Some was not counted: the run is to fail. */
} bench_tally;

void bench_tally_begin(bench_tally *tally, double limit_ms);
void bench_tally_end(bench_tally *tally);

/** Latencies of a record as a row. */
bench_row bench_row_of(const bench_record *record);

/** Count it. */
void bench_tally_add(bench_tally *tally, const bench_record *record);

/** Which latency. */
typedef enum bench_metric {
    BENCH_TTFT,
    BENCH_TPOT,
    BENCH_E2EL,
    BENCH_ITL,
    BENCH_N_METRICS,
} bench_metric;

/** "ttft", "tpot", "e2el", "itl": as --goodput and the fields have them. */
const char *bench_metric_name(bench_metric metric);

/** Of requests that were whole: the values that happened, sorted, owned by the caller (free); *n
 * of them.  NULL without memory.  Not of ITL, whose values are not kept. */
double *bench_tally_values(const bench_tally *tally, bench_metric metric, size_t *n);

/** Sums over requests that were whole. */
typedef struct bench_sums {
    uint64_t n_done, n_failed, n_cancelled;
    uint64_t n_input, n_output, n_cached;
    bool has_cached;       /**< All of them told. */
    uint64_t n_good;       /**< Within all limits given. */
    double begun_s, end_s; /**< First due, last end. */
    double last_due_s, last_sent_s;
    double success_rate; /**< NaN: none was not cancelled. */
} bench_sums;

/** @param limits_ms  [BENCH_N_METRICS] of --goodput; NaN: no limit */
bench_sums bench_tally_sums(const bench_tally *tally, const double *limits_ms);

/** The part of a run in which it was what it claims to be (docs/benchmarking.md). */
typedef struct bench_steady {
    double from_s, to_s;
    double output_per_s, requests_per_s; /**< Tokens that arrived, requests that ended within. */
    bool is_found;
    char why[160]; /**< Where not. */
} bench_steady;

/**
 * From: when 95 of 100 requests of the first would have ended, by the 95th percentile of the time
 * one takes: then as many are under way as the rate makes of it (Little's law).  To: when the last
 * was sent, behind which the server empties.  Not found where that leaves less than one median
 * request and ten ends, or where requests under way grew through it.
 */
bench_steady bench_steady_of(const bench_tally *tally);

/** Requests under way at a moment. */
double bench_tally_in_flight(const bench_tally *tally, double from_s, double to_s);
#endif
