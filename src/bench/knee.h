/* SPDX-License-Identifier: Apache-2.0 */
/** @file knee.h  The search for the highest rate that a limit allows: which rate to try next, and
 * for how long.  Knows no server: it is told what a trial showed. */
#ifndef QN_BENCH_KNEE_H
#define QN_BENCH_KNEE_H
#include <stdbool.h>
#include <stdint.h>

/** How near the answer is to be: rates this far apart are told apart. */
#define BENCH_KNEE_PRECISION 0.02

enum {
    BENCH_KNEE_CONFIRMATIONS = 2, /**< Full trials at each end of the bracket. */
    BENCH_KNEE_TRIALS_MAX = 60,
    BENCH_KNEE_REQUESTS = 100, /**< Of a trial at least: five lie beyond the 95th percentile. */
    /** Of a full one, as far as these come within BENCH_KNEE_FULL_S. */
    BENCH_KNEE_REQUESTS_FULL = 5000,
    BENCH_KNEE_FULL_S = 180,
};

/** What a search is about. */
typedef struct bench_knee_options {
    double first_rate; /**< A guess, requests/s. */
    double limit_s;    /**< Of the latency. */
    double alone_s;    /**< What one request takes on an idle server. */
    double full_s;     /**< A full trial lasts so long at least; 0: as long as precision needs. */
    uint64_t n_min;    /**< Requests of a trial at least; 0: those above. */
} bench_knee_options;

/** What full trials at one rate showed. */
typedef struct bench_knee_votes {
    int n_held, n_not;
} bench_knee_votes;

/** A search.  Fill by bench_knee_begin(). */
typedef struct bench_knee {
    bench_knee_options options;
    double rate;      /**< To be tried, or the last. */
    double low, high; /**< Held, did not hold in short trials; 0, INFINITY: none seen. */
    bool is_full;     /**< From now on trials are full ones. */
    double confirmed; /**< The highest rate that held in them; 0: none. */
    double failed;    /**< The lowest that did not; INFINITY: none. */
    double stride;    /**< Step of the walk while one of these is not known. */
    bench_knee_votes low_votes, high_votes; /**< Full trials at confirmed and failed. */
    int n_trials;
    bool is_found; /**< Both were seen twice, and failed is at most 2 % above confirmed. */
    char why[120]; /**< Where not. */
} bench_knee;

void bench_knee_begin(bench_knee *knee, const bench_knee_options *options);

/**
 * What to try next.
 *
 * A rate that is above what the server can do by a share of x makes the wait grow by x seconds each
 * second, and the limit is reached after limit / x.  So a trial lasts 1.6 limit / x, where x is
 * the step that it is to tell apart: 3 of 8 of its requests then break the limit.  Trials are
 * short while the bracket is wider than 5 %, and full ones, of 1.6 limit / 2 %, at its end.  Where
 * the limit is reached by chance, as requests of many users come in crowds, it is their number that
 * tells: 5,000 (bench_knee_error()).
 *
 * @param[out] seconds  that requests are sent for
 * Returns  false: done; is_found, confirmed and failed say with what
 */
bool bench_knee_next(bench_knee *knee, double *rate, double *seconds, bool *is_confirmation);

/** By what share the answer may be off (two standard deviations) for the chance of arrivals, where
 * so many requests confirm it: 2.2 / sqrt(n), of queues of 1 to 32 places with a limit as short as
 * their service, by 60 searches each; less where the limit is many times longer. */
double bench_knee_error(uint64_t n_requests);

/** Full trials at this rate before. */
uint32_t bench_knee_n_seen(const bench_knee *knee);

/** What that trial showed. */
void bench_knee_tell(bench_knee *knee, bool holds);
#endif
