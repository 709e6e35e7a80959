/* SPDX-License-Identifier: Apache-2.0 */
#include "stats.h"

#include <math.h>
#include <stdlib.h>

#define BIN_RATIO 1.002
#define BIN_FIRST 1e-6 /* upper edge of bin 0 */

static int compare(const void *x, const void *y)
{
    const double a = *(const double *)x;
    const double b = *(const double *)y;
    return (a > b) - (a < b);
}

void bench_sort(double *values, size_t n)
{
    if (n > 1) {
        qsort(values, n, sizeof *values, compare);
    }
}

double bench_percentile(const double *sorted, size_t n, double percent)
{
    if (n == 0) {
        return (double)NAN;
    }
    const double place = percent / 100.0 * (double)(n - 1);
    const size_t below = (size_t)place;
    if (below + 1 >= n) {
        return sorted[n - 1];
    }
    return sorted[below] + (sorted[below + 1] - sorted[below]) * (place - (double)below);
}

bench_stats bench_stats_of(const double *sorted, size_t n)
{
    const double nothing = (double)NAN;
    bench_stats out = {n, nothing, nothing, nothing, nothing, nothing};
    if (n == 0) {
        return out;
    }
    double sum = 0.0;
    double squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += sorted[i];
    }
    out.mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        squares += (sorted[i] - out.mean) * (sorted[i] - out.mean);
    }
    out.std = sqrt(squares / (double)n);
    out.median = bench_percentile(sorted, n, 50.0);
    out.min = sorted[0];
    out.max = sorted[n - 1];
    return out;
}

double bench_spread(const double *sorted, size_t n)
{
    return n == 0 ? (double)NAN : (sorted[n - 1] - sorted[0]) / bench_percentile(sorted, n, 50.0);
}

void bench_histogram_add(bench_histogram *histogram, double value, uint64_t n)
{
    bench_histogram *const h = histogram;
    const double x = value > 0.0 ? value : 0.0;
    const double bin = x > BIN_FIRST ? ceil(log(x / BIN_FIRST) / log(BIN_RATIO)) : 0.0;
    if (n == 0) {
        return;
    }
    h->counts[bin < BENCH_HISTOGRAM_BINS ? (size_t)bin : BENCH_HISTOGRAM_BINS - 1] += n;
    h->min = h->n == 0 || x < h->min ? x : h->min;
    h->max = h->n == 0 || x > h->max ? x : h->max;
    h->n += n;
    const double from_old = x - h->mean;
    h->mean += from_old * (double)n / (double)h->n;
    h->m2 += from_old * (x - h->mean) * (double)n;
}

/* The value at a place in the sorted row, by the middle of its bin. */
static double value_at(const bench_histogram *h, uint64_t place)
{
    uint64_t n_below = 0;
    size_t i = 0;
    while (i + 1 < BENCH_HISTOGRAM_BINS && n_below + h->counts[i] <= place) {
        n_below += h->counts[i++];
    }
    const double middle = i == 0 ? 0.0 : BIN_FIRST * pow(BIN_RATIO, (double)i - 0.5);
    return middle < h->min ? h->min : middle > h->max ? h->max : middle;
}

double bench_histogram_percentile(const bench_histogram *histogram, double percent)
{
    const bench_histogram *const h = histogram;
    if (h->n == 0) {
        return (double)NAN;
    }
    const double place = percent / 100.0 * (double)(h->n - 1);
    const uint64_t below = (uint64_t)place;
    const double share = place - (double)below;
    const double value = value_at(h, below);
    return share > 0.0 ? value + (value_at(h, below + 1) - value) * share : value;
}

bench_stats bench_histogram_stats(const bench_histogram *histogram)
{
    const bench_histogram *const h = histogram;
    const double nothing = (double)NAN;
    if (h->n == 0) {
        return (bench_stats){0, nothing, nothing, nothing, nothing, nothing};
    }
    return (bench_stats){h->n,   h->mean, bench_histogram_percentile(h, 50.0),
                         h->min, h->max,  sqrt(h->m2 / (double)h->n)};
}
