/* SPDX-License-Identifier: Apache-2.0 */
/* Expected values are numpy's: np.percentile, np.std. */
#include "base/rng.h"
#include "bench/stats.h"
#include "support/unit.h"

#include <math.h>
#include <stdlib.h>

static void near(double seen, double expected, double share)
{
    if (!(fabs(seen - expected) <= share * fabs(expected))) {
        fail_msg("%.9g, expected %.9g", seen, expected);
    }
}

static void test_percentiles_are_numpys(void **state)
{
    double values[] = {7.0, 1.0, 4.0, 10.0, 2.0};
    (void)state;
    bench_sort(values, 5);
    near(bench_percentile(values, 5, 0.0), 1.0, 1e-12);
    near(bench_percentile(values, 5, 50.0), 4.0, 1e-12);
    near(bench_percentile(values, 5, 90.0), 8.8, 1e-12);
    near(bench_percentile(values, 5, 99.0), 9.88, 1e-12);
    near(bench_percentile(values, 5, 100.0), 10.0, 1e-12);
    const bench_stats stats = bench_stats_of(values, 5);
    near(stats.mean, 4.8, 1e-12);
    near(stats.median, 4.0, 1e-12);
    near(stats.std, 3.3105890714493698, 1e-12);
    near(bench_spread(values, 5), 9.0 / 4.0, 1e-12);
}

static void test_nothing_is_no_number(void **state)
{
    static const bench_histogram empty;
    (void)state;
    assert_true(isnan(bench_percentile(NULL, 0, 50.0)));
    assert_true(isnan(bench_stats_of(NULL, 0).mean));
    assert_true(isnan(bench_spread(NULL, 0)));
    assert_true(isnan(bench_histogram_percentile(&empty, 50.0)));
    assert_true(isnan(bench_histogram_stats(&empty).std));
}

/* Over nine decades, against the values themselves. */
static void test_histogram_is_near_the_values(void **state)
{
    enum { N = 20000 };
    static bench_histogram histogram;
    double *const values = malloc(N * sizeof *values);
    (void)state;
    assert_non_null(values);
    for (uint64_t i = 0; i < N; i++) {
        values[i] = pow(10.0, 9.0 * qn_rng_unit(1, 2, i) - 4.0);
        bench_histogram_add(&histogram, values[i], 1);
    }
    bench_sort(values, N);
    const bench_stats exact = bench_stats_of(values, N);
    const bench_stats stats = bench_histogram_stats(&histogram);
    near(stats.mean, exact.mean, 1e-9);
    near(stats.std, exact.std, 1e-9);
    near(stats.min, exact.min, 0.0);
    near(stats.max, exact.max, 0.0);
    for (int i = 0; i <= 40; i++) {
        const double percent = 2.5 * i;
        near(bench_histogram_percentile(&histogram, percent), bench_percentile(values, N, percent),
             0.0011);
    }
    free(values);
}

static void test_histogram_of_one_value_is_exact(void **state)
{
    static bench_histogram histogram;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        bench_histogram_add(&histogram, 20.0, 1);
    }
    near(bench_histogram_percentile(&histogram, 99.0), 20.0, 0.0);
    near(bench_histogram_stats(&histogram).median, 20.0, 0.0);
    bench_histogram_add(&histogram, 0.0, 1);
    bench_histogram_add(&histogram, -1.0, 1);
    bench_histogram_add(&histogram, 1e12, 1);
    near(bench_histogram_percentile(&histogram, 0.0), 0.0, 0.0);
    near(bench_histogram_percentile(&histogram, 50.0), 20.0, 0.002);
}

/* Two values far apart: the median was the lower one. */
static void test_histogram_interpolates_as_values_do(void **state)
{
    static bench_histogram two;
    static bench_histogram lags;
    (void)state;
    bench_histogram_add(&two, 1.0, 1);
    bench_histogram_add(&two, 100.0, 1);
    near(bench_histogram_percentile(&two, 50.0), 50.5, 0.0011);
    bench_histogram_add(&lags, 0.02, 989); /* a few late ones show */
    bench_histogram_add(&lags, 40.0, 11);
    bench_histogram_add(&lags, 1e300, 0);
    near(bench_histogram_percentile(&lags, 50.0), 0.02, 0.0011);
    near(bench_histogram_percentile(&lags, 99.0), 40.0, 0.0011);
    near(bench_histogram_stats(&lags).mean, (989 * 0.02 + 11 * 40.0) / 1000.0, 1e-9);
    assert_int_equal(lags.n, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles_are_numpys),
        cmocka_unit_test(test_nothing_is_no_number),
        cmocka_unit_test(test_histogram_is_near_the_values),
        cmocka_unit_test(test_histogram_interpolates_as_values_do),
        cmocka_unit_test(test_histogram_of_one_value_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
