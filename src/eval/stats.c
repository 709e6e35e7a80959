/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/stats.h"

#include <math.h>

/* Of the normal distribution, 2.5 % lie above. */
static const double z = 1.959963984540054;

qn_interval qn_wilson(uint64_t n_right, uint64_t n)
{
    const double trials = (double)n;
    const double share = (double)n_right / trials;
    const double center = share + z * z / (2.0 * trials);
    const double half = z * sqrt(share * (1.0 - share) / trials + z * z / (4.0 * trials * trials));
    const double scale = 1.0 + z * z / trials;
    /* At the ends the square root is exact in theory only. */
    return (qn_interval){.low = n_right == 0 ? 0.0 : (center - half) / scale,
                         .high = n_right == n ? 1.0 : (center + half) / scale};
}

/* Correlation of the two sides, drawn towards 0 as Newcombe has it where it is positive. */
static double correlation(const qn_pairs *p)
{
    const double both = (double)p->n_both;
    const double first = (double)p->n_first;
    const double second = (double)p->n_second;
    const double neither = (double)p->n_neither;
    const double margins =
        (both + first) * (second + neither) * (both + second) * (first + neither);
    const double determinant = both * neither - first * second;
    const double half_n = (both + first + second + neither) / 2.0;
    if (margins == 0.0) {
        return 0.0;
    }
    return (determinant > 0.0 ? fmax(determinant - half_n, 0.0) : determinant) / sqrt(margins);
}

/* Length of two errors put together, which are correlated. */
static double combine(double a, double b, double phi)
{
    return sqrt(fmax(a * a - 2.0 * phi * a * b + b * b, 0.0));
}

qn_interval qn_paired_interval(const qn_pairs *pairs)
{
    const uint64_t n = pairs->n_both + pairs->n_first + pairs->n_second + pairs->n_neither;
    const uint64_t n_first = pairs->n_both + pairs->n_first;
    const uint64_t n_second = pairs->n_both + pairs->n_second;
    const qn_interval first = qn_wilson(n_first, n);
    const qn_interval second = qn_wilson(n_second, n);
    const double x = (double)n_first / (double)n;
    const double y = (double)n_second / (double)n;
    const double phi = correlation(pairs);
    return (qn_interval){.low = y - x - combine(y - second.low, first.high - x, phi),
                         .high = y - x + combine(second.high - y, x - first.low, phi)};
}

/* Logarithm of n!; lgamma() would write to a global sign. */
static double log_factorial(double n)
{
    int sign = 0;
    return lgamma_r(n + 1.0, &sign);
}

double qn_mcnemar(uint64_t n_first, uint64_t n_second)
{
    const double n = (double)(n_first + n_second);
    const uint64_t n_less = n_first < n_second ? n_first : n_second;
    double tail = 0.0;
    for (uint64_t k = 0; k <= n_less; k++) {
        const double i = (double)k;
        tail += exp(log_factorial(n) - log_factorial(i) - log_factorial(n - i) - n * log(2.0));
    }
    return n_first == n_second ? 1.0 : fmin(2.0 * tail, 1.0);
}

double qn_window_mean(qn_interval *interval, const qn_window_sum *windows, size_t n_windows)
{
    double sum = 0.0;
    double n_tokens = 0.0;
    double squares = 0.0;
    for (size_t i = 0; i < n_windows; i++) {
        sum += windows[i].sum;
        n_tokens += (double)windows[i].n_tokens;
    }
    const double mean = sum / n_tokens;
    for (size_t i = 0; i < n_windows; i++) {
        const double rest = windows[i].sum - mean * (double)windows[i].n_tokens;
        squares += rest * rest;
    }
    const double n = (double)n_windows;
    const double error = n_windows > 1 ? sqrt(squares * n / (n - 1.0)) / n_tokens : (double)NAN;
    *interval = (qn_interval){.low = mean - z * error, .high = mean + z * error};
    return mean;
}

double qn_quantile(const double *sorted, size_t n, double q)
{
    const size_t rank = (size_t)ceil(q * (double)n);
    return sorted[rank > 0 ? rank - 1 : 0];
}
