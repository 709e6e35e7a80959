/* SPDX-License-Identifier: Apache-2.0 */
/** @file bootstrap.h  How sure a figure of a sample is: intervals by drawing from it again. */
#ifndef QN_BENCH_BOOTSTRAP_H
#define QN_BENCH_BOOTSTRAP_H
#include "quern/quern.h"

/** A figure, and where it lies with the confidence asked for.  All NaN: there is none. */
typedef struct bootstrap_interval {
    double value, low, high;
} bootstrap_interval;

/** Values of groups that stand one behind the other: group i has [begins[i], begins[i + 1]). */
typedef struct bootstrap_sample {
    const double *values; /**< Finite. */
    const size_t *begins; /**< [n_groups + 1] rising; no group is empty. */
    size_t n_groups;      /**< At least 1. */
} bootstrap_sample;

/** How it is drawn. */
typedef struct bootstrap_options {
    uint32_t n_resamples; /**< At least 40, so that a tail of 2.5 % has a value. */
    double confidence;    /**< Such as 0.95. */
    uint64_t seed;        /**< The same gives the same intervals, on any machine. */
} bootstrap_options;

/**
 * Median and mean of all values, each with its percentile interval: as many groups are drawn as
 * there are, with replacement, and of each as many values as it has.  Values of one group may
 * depend on each other: then it is the groups that say how sure the figure is, and with few of them
 * the interval is too narrow.  A single value has no interval: low and high are NaN.
 *
 * Source   Efron, Tibshirani 1993, "An Introduction to the Bootstrap", 13.3 (percentiles), 8.3
 *          (groups)
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bootstrap(bootstrap_interval *median, bootstrap_interval *mean,
                                  const bootstrap_sample *sample, const bootstrap_options *options,
                                  qn_error *err);
#endif
