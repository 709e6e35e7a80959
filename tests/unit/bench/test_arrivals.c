/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "bench/arrivals.h"
#include "support/unit.h"

#include <math.h>

enum { N = 20000 };

static double g_due[N];
static double g_gaps[N - 1];

static void assert_near(double seen, double expected, double by)
{
    assert_true(fabs(seen - expected) <= by);
}

static void draw(const bench_arrival_options *options)
{
    bench_arrivals(g_due, N, options);
    for (int i = 0; i + 1 < N; i++) {
        g_gaps[i] = g_due[i + 1] - g_due[i];
        assert_true(g_gaps[i] >= 0.0);
    }
}

static double mean_of(const double *values, int n)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++) {
        sum += values[i];
    }
    return sum / n;
}

static double variance_of(const double *values, int n)
{
    const double mean = mean_of(values, n);
    double sum = 0.0;
    for (int i = 0; i < n; i++) {
        sum += (values[i] - mean) * (values[i] - mean);
    }
    return sum / (n - 1);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Largest distance of the gaps' distribution from @p cdf (Kolmogorov), times the root of n. */
static double distance(double (*cdf)(double value))
{
    double most = 0.0;
    qsort(g_gaps, N - 1, sizeof *g_gaps, compare);
    for (int i = 0; i < N - 1; i++) {
        const double at = cdf(g_gaps[i]);
        most = fmax(most, fmax(at - (double)i / (N - 1), (double)(i + 1) / (N - 1) - at));
    }
    return most * sqrt(N - 1.0);
}

static double exponential_cdf(double value)
{
    return 1.0 - exp(-4.0 * value);
}

/* Gamma of shape 2 and mean 1/4. */
static double gamma_2_cdf(double value)
{
    return 1.0 - exp(-8.0 * value) * (1.0 + 8.0 * value);
}

/* Gamma of shape 1/2 and mean 1/4: a squared normal variable. */
static double gamma_half_cdf(double value)
{
    return erf(sqrt(2.0 * value));
}

static void test_constant_is_even_and_begins_at_0(void **state)
{
    const bench_arrival_options options = {.kind = BENCH_CONSTANT, .rate = 4.0};
    (void)state;
    draw(&options);
    assert_true(g_due[0] == 0.0);
    for (int i = 0; i < N; i++) {
        assert_near(g_due[i], i / 4.0, 1e-9);
    }
}

static void test_the_rate_is_exact_whatever_is_drawn(void **state)
{
    static const bench_arrival_kind kinds[] = {BENCH_CONSTANT, BENCH_POISSON, BENCH_GAMMA};
    (void)state;
    for (int i = 0; i < 3; i++) {
        double due[7];
        const bench_arrival_options options = {
            .kind = kinds[i], .rate = 2.5, .burstiness = 0.3, .seed = 9};
        bench_arrivals(due, 7, &options);
        assert_true(due[0] == 0.0);
        assert_near(due[6], 6.0 / 2.5, 1e-12);
    }
}

/* 1.63 is passed by chance once in 100 seeds; the seed is fixed. */
static void test_intervals_have_their_distribution(void **state)
{
    static const struct {
        bench_arrival_kind kind;
        double burstiness;
        double (*cdf)(double value);
    } cases[] = {{BENCH_POISSON, (double)NAN, exponential_cdf},
                 {BENCH_GAMMA, 1.0, exponential_cdf},
                 {BENCH_GAMMA, 2.0, gamma_2_cdf},
                 {BENCH_GAMMA, 0.5, gamma_half_cdf}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bench_arrival_options options = {
            .kind = cases[i].kind, .rate = 4.0, .burstiness = cases[i].burstiness, .seed = 3};
        draw(&options);
        assert_near(mean_of(g_gaps, N - 1), 0.25, 1e-9);
        const double shape = isnan(cases[i].burstiness) ? 1.0 : cases[i].burstiness;
        assert_near(variance_of(g_gaps, N - 1) * 16.0 * shape, 1.0, 0.06);
        assert_true(distance(cases[i].cdf) < 1.63);
    }
}

static void test_intervals_do_not_depend_on_each_other(void **state)
{
    const bench_arrival_options options = {
        .kind = BENCH_GAMMA, .rate = 1.0, .burstiness = 0.5, .seed = 5};
    double sum = 0.0;
    (void)state;
    draw(&options);
    for (int i = 0; i + 2 < N; i++) {
        sum += (g_gaps[i] - 1.0) * (g_gaps[i + 1] - 1.0);
    }
    assert_true(fabs(sum / N / variance_of(g_gaps, N - 1)) < 4.0 / sqrt(N));
}

static void test_seeds_differ_and_repeat(void **state)
{
    double a[50];
    double b[50];
    bench_arrival_options options = {.kind = BENCH_POISSON, .rate = 1.0, .seed = 1};
    (void)state;
    bench_arrivals(a, 50, &options);
    bench_arrivals(b, 50, &options);
    assert_memory_equal(a, b, sizeof a);
    options.seed = 2;
    bench_arrivals(b, 50, &options);
    assert_true(a[1] != b[1]);
}

static void test_an_infinite_rate_is_all_at_once(void **state)
{
    double due[3] = {7.0, 7.0, 7.0};
    const bench_arrival_options options = {.kind = BENCH_POISSON, .rate = (double)INFINITY};
    (void)state;
    bench_arrivals(due, 3, &options);
    assert_true(due[0] == 0.0 && due[1] == 0.0 && due[2] == 0.0);
}

static void test_one_request_is_due_at_0_and_none_is_fine(void **state)
{
    double due[1] = {7.0};
    const bench_arrival_options options = {.kind = BENCH_POISSON, .rate = 2.0};
    (void)state;
    bench_arrivals(due, 0, &options);
    assert_true(due[0] == 7.0);
    bench_arrivals(due, 1, &options);
    assert_true(due[0] == 0.0);
}

/* So tiny a shape that all intervals may be 0: no NaN. */
static void test_the_burstiest_has_no_nan(void **state)
{
    double due[20];
    const bench_arrival_options options = {
        .kind = BENCH_GAMMA, .rate = 2.0, .burstiness = 1e-6, .seed = 1};
    (void)state;
    bench_arrivals(due, 20, &options);
    for (int i = 0; i < 20; i++) {
        assert_true(isfinite(due[i]) && due[i] >= 0.0 && (i == 0 || due[i] >= due[i - 1]));
    }
}

static void test_recorded_times_go_by_speed(void **state)
{
    const double recorded[3] = {0.0, 1.0, 5.0};
    double due[3];
    const bench_arrival_options options = {
        .kind = BENCH_RECORDED, .recorded = recorded, .speed = 2.0};
    (void)state;
    bench_arrivals(due, 3, &options);
    assert_true(due[0] == 0.0 && due[1] == 0.5 && due[2] == 2.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constant_is_even_and_begins_at_0),
        cmocka_unit_test(test_the_rate_is_exact_whatever_is_drawn),
        cmocka_unit_test(test_intervals_have_their_distribution),
        cmocka_unit_test(test_intervals_do_not_depend_on_each_other),
        cmocka_unit_test(test_seeds_differ_and_repeat),
        cmocka_unit_test(test_an_infinite_rate_is_all_at_once),
        cmocka_unit_test(test_one_request_is_due_at_0_and_none_is_fine),
        cmocka_unit_test(test_the_burstiest_has_no_nan),
        cmocka_unit_test(test_recorded_times_go_by_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
