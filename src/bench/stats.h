/* SPDX-License-Identifier: Apache-2.0 */
/** @file stats.h  Percentiles, means and spreads as numpy and vLLM have them. */
#ifndef QN_BENCH_STATS_H
#define QN_BENCH_STATS_H
#include <stddef.h>
#include <stdint.h>

/** Of a set of values; all NaN where it is empty. */
typedef struct bench_stats {
    uint64_t n;
    double mean, median, min, max;
    double std; /**< Of the set itself: divided by n. */
} bench_stats;

/** In rising order; NaN must not be among them. */
void bench_sort(double *values, size_t n);

/** @p percent 0 to 100 between the two nearest values in a straight line; NaN where n is 0. */
double bench_percentile(const double *sorted, size_t n, double percent);

/** All of it. */
bench_stats bench_stats_of(const double *sorted, size_t n);

/** (largest - smallest) / median: what repeats of one measurement differ by. */
double bench_spread(const double *sorted, size_t n);

/** Steps of a histogram: each 0.2 % wider than the last, from a nanosecond to a quarter of an hour
 * where milliseconds are counted. */
enum { BENCH_HISTOGRAM_BINS = 13800 };

/** Values of which there are too many to keep.  All-zero is empty. */
typedef struct bench_histogram {
    uint64_t counts[BENCH_HISTOGRAM_BINS];
    uint64_t n;
    double mean, m2; /**< Sum of squared differences from the mean (Welford). */
    double min, max;
} bench_histogram;

/** Add a value @p n times; negative ones count as 0. */
void bench_histogram_add(bench_histogram *histogram, double value, uint64_t n);

/** bench_percentile() of the values, each of them off by 0.1 % at most. */
double bench_histogram_percentile(const bench_histogram *histogram, double percent);

bench_stats bench_histogram_stats(const bench_histogram *histogram);
#endif
