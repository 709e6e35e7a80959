/* SPDX-License-Identifier: Apache-2.0 */
/** @file stats.h  What a number of right answers says, and what it does not.  Pure functions. */
#ifndef QN_EVAL_STATS_H
#define QN_EVAL_STATS_H
#include <stddef.h>
#include <stdint.h>

/** Where a value lies with 95 % confidence. */
typedef struct qn_interval {
    double low;
    double high;
} qn_interval;

/**
 * Interval of a share of @p n_right in @p n trials, at least 1.
 * Source   Wilson 1927, "Probable inference, the law of succession, and statistical inference"
 */
qn_interval qn_wilson(uint64_t n_right, uint64_t n);

/** Two sides on the same problems, counted by who was right. */
typedef struct qn_pairs {
    uint64_t n_both;
    uint64_t n_first;  /**< Only the first. */
    uint64_t n_second; /**< Only the second. */
    uint64_t n_neither;
} qn_pairs;

/**
 * Interval of the difference of two shares, second less first, of at least 1 problem.
 * Source   Newcombe 1998, "Improved confidence intervals for the difference between binomial
 *          proportions based on paired data", Statistics in Medicine 17, method 10
 */
qn_interval qn_paired_interval(const qn_pairs *pairs);

/**
 * How likely a split of the @p n_first + @p n_second problems that only one side got right is, this
 * uneven or more, where both sides are equally good: the exact two-sided test of McNemar.
 * Source   McNemar 1947; the binomial distribution by log-gamma
 */
double qn_mcnemar(uint64_t n_first, uint64_t n_second);

/** Sum over the tokens of one window of text. */
typedef struct qn_window_sum {
    double sum;
    uint64_t n_tokens; /**< At least 1. */
} qn_window_sum;

/**
 * Mean a token with its interval.  Tokens of a window depend on each other, so windows are what
 * varies: a ratio estimator and its standard error.  One window says nothing of it: then the
 * interval is NaN.
 * Source   Cochran 1977, "Sampling Techniques", section 6.4
 */
double qn_window_mean(qn_interval *interval, const qn_window_sum *windows, size_t n_windows);

/** The smallest of @p n rising values (at least 1) that a share @p q of them does not exceed. */
double qn_quantile(const double *sorted, size_t n, double q);
#endif
