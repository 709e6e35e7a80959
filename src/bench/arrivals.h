/* SPDX-License-Identifier: Apache-2.0 */
/** @file arrivals.h  When requests are due in an open loop: a pure function of options and seed. */
#ifndef QN_BENCH_ARRIVALS_H
#define QN_BENCH_ARRIVALS_H
#include <stdint.h>

/** How the times between requests are drawn. */
typedef enum bench_arrival_kind {
    BENCH_CONSTANT, /**< All the same. */
    BENCH_POISSON,  /**< Exponential: gamma with burstiness 1. */
    BENCH_GAMMA,    /**< Gamma of shape burstiness; below 1 in bursts, above 1 more even. */
    BENCH_RECORDED, /**< As a trace says. */
} bench_arrival_kind;

typedef struct bench_arrival_options {
    bench_arrival_kind kind;
    double rate;            /**< Requests a second, above 0; INFINITY: all are due at once. */
    double burstiness;      /**< Above 0; of BENCH_GAMMA. */
    const double *recorded; /**< [n] seconds, of BENCH_RECORDED; borrowed during the call. */
    double speed;           /**< They are divided by it, above 0. */
    uint64_t seed;
} bench_arrival_options;

/**
 * Seconds at which @p n requests are due.
 *
 * The first is due at 0.  What was drawn is then stretched so that the last is due at (n - 1) /
 * rate, as vLLM's bench stretches it: the rate offered is exactly the one asked for, however few
 * requests there are, and two runs of one rate differ by the pattern alone.  Given that sum, the
 * times of a Poisson process are as they would be without it.
 *
 * @param[out] due_s  [n]; never falls
 * Source  Marsaglia & Tsang 2000, "A simple method for generating gamma variables", for gamma
 */
void bench_arrivals(double *due_s, uint64_t n, const bench_arrival_options *options);
#endif
