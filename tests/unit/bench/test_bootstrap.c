/* SPDX-License-Identifier: Apache-2.0 */
/* Intervals that are known otherwise: of a mean, of a median, of groups; and how often they hold.
 */
#include "base/rng.h"
#include "bench/bootstrap.h"
#include "bench/stats.h"
#include "support/fail_each.h"

#include <math.h>
#include <stdlib.h>

enum { N_MAX = 2000 };

static const bootstrap_options plain = {.n_resamples = 4000, .confidence = 0.95, .seed = 1};

/* Normal, by Box and Muller. */
static double normal(uint64_t seed, uint64_t i)
{
    const double u = 1 - qn_rng_unit(seed, 0, i);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * qn_rng_unit(seed, 1, i));
}

static void run(bootstrap_interval *median, bootstrap_interval *mean, const double *values,
                const size_t *begins, size_t n_groups, const bootstrap_options *options)
{
    qn_error err = {0};
    const bootstrap_sample sample = {values, begins, n_groups};
    assert_int_equal(bootstrap(median, mean, &sample, options, &err), QN_OK);
}

static void near(double seen, double expected, double within)
{
    if (!(fabs(seen - expected) <= within)) {
        fail_msg("%.17g, %.17g within %g expected", seen, expected, within);
    }
}

static void test_of_a_mean_it_is_1_96_standard_errors(void **state)
{
    (void)state;
    static double values[N_MAX];
    const size_t begins[] = {0, N_MAX};
    double sum = 0;
    double squares = 0;
    for (size_t i = 0; i < N_MAX; i++) {
        values[i] = 10 + normal(7, i);
        sum += values[i];
    }
    for (size_t i = 0; i < N_MAX; i++) {
        squares += (values[i] - sum / N_MAX) * (values[i] - sum / N_MAX);
    }
    const double error = sqrt(squares / N_MAX / N_MAX);
    bootstrap_interval median;
    bootstrap_interval mean;
    run(&median, &mean, values, begins, 1, &plain);
    near(mean.value, sum / N_MAX, 1e-12);
    near(mean.low, mean.value - 1.96 * error, 0.06 * error);
    near(mean.high, mean.value + 1.96 * error, 0.06 * error);
    /* A normal's median is known sqrt(pi / 2) times less well than its mean. */
    near(median.high - median.low, 2 * 1.96 * error * sqrt(M_PI / 2), 0.8 * error);
    const bootstrap_options half = {.n_resamples = 4000, .confidence = 0.5, .seed = 2};
    run(&median, &mean, values, begins, 1, &half);
    near(mean.high - mean.low, 2 * 0.6745 * error, 0.06 * error);
}

/* Resampled medians are order statistics: of 1 .. 101 the binomial gives 41 and 61. */
static void test_of_a_median_it_is_the_binomials_ranks(void **state)
{
    (void)state;
    double values[101];
    const size_t begins[] = {0, 101};
    for (size_t i = 0; i < 101; i++) {
        values[(i * 37) % 101] = (double)(i + 1);
    }
    bootstrap_interval median;
    bootstrap_interval mean;
    run(&median, &mean, values, begins, 1, &plain);
    near(median.value, 51, 0);
    near(median.low, 41, 1);
    near(median.high, 61, 1);
}

static void test_an_even_number_has_its_median_between_two(void **state)
{
    (void)state;
    const double values[] = {4, 1, 2, 3};
    const size_t begins[] = {0, 4};
    bootstrap_interval median;
    bootstrap_interval mean;
    run(&median, &mean, values, begins, 1, &plain);
    near(median.value, 2.5, 0);
    near(mean.value, 2.5, 0);
    near(median.low, 1, 0.5);
    near(median.high, 4, 0.5);
}

/* 95 of 100 intervals have to hold what is true. */
static void test_it_holds_what_is_true_as_often_as_it_says(void **state)
{
    (void)state;
    enum { N_TRIALS = 300, N = 60 };
    const size_t begins[] = {0, N};
    const bootstrap_options quick = {.n_resamples = 400, .confidence = 0.95, .seed = 3};
    int n_mean = 0;
    int n_median = 0;
    for (uint64_t trial = 0; trial < N_TRIALS; trial++) {
        double values[N];
        for (size_t i = 0; i < N; i++) {
            values[i] = exp(normal(100 + trial, i)); /* lopsided, as latencies are */
        }
        bootstrap_interval median;
        bootstrap_interval mean;
        run(&median, &mean, values, begins, 1, &quick);
        n_mean += mean.low <= exp(0.5) && exp(0.5) <= mean.high ? 1 : 0;
        n_median += median.low <= 1 && 1 <= median.high ? 1 : 0;
    }
    near((double)n_median / N_TRIALS, 0.95, 0.03);
    near((double)n_mean / N_TRIALS, 0.92, 0.05); /* known to be short of it for such values */
}

/* Values of a group that are all alike: as many groups there are, so much is known. */
static void test_groups_are_what_is_drawn(void **state)
{
    (void)state;
    enum { N_GROUPS = 20, N_EACH = 50 };
    static double values[N_GROUPS * N_EACH];
    size_t begins[N_GROUPS + 1];
    double of_groups[N_GROUPS];
    const size_t alone[] = {0, N_GROUPS};
    for (size_t g = 0; g < N_GROUPS; g++) {
        of_groups[g] = normal(9, g);
        begins[g] = g * N_EACH;
        for (size_t i = 0; i < N_EACH; i++) {
            values[g * N_EACH + i] = of_groups[g];
        }
    }
    begins[N_GROUPS] = (size_t)N_GROUPS * N_EACH;
    bootstrap_interval median;
    bootstrap_interval mean;
    bootstrap_interval of_means;
    run(&median, &mean, values, begins, N_GROUPS, &plain);
    run(&median, &of_means, of_groups, alone, 1, &plain);
    near(mean.value, of_means.value, 1e-12);
    near((mean.high - mean.low) / (of_means.high - of_means.low), 1, 0.08);
}

static void test_one_value_has_no_interval_and_equal_ones_a_point(void **state)
{
    (void)state;
    const double values[] = {3, 3, 3};
    const size_t one[] = {0, 1};
    const size_t all[] = {0, 3};
    bootstrap_interval median;
    bootstrap_interval mean;
    run(&median, &mean, values, one, 1, &plain);
    assert_true(median.value == 3 && isnan(median.low) && isnan(mean.high));
    run(&median, &mean, values, all, 1, &plain);
    assert_true(median.low == 3 && median.high == 3 && mean.low == 3 && mean.high == 3);
}

static void test_a_seed_repeats_itself(void **state)
{
    (void)state;
    double values[31];
    const size_t begins[] = {0, 31};
    bootstrap_interval first[2];
    bootstrap_interval again[2];
    for (size_t i = 0; i < 31; i++) {
        values[i] = normal(5, i);
    }
    run(&first[0], &first[1], values, begins, 1, &plain);
    run(&again[0], &again[1], values, begins, 1, &plain);
    assert_memory_equal(first, again, sizeof first);
    const bootstrap_options other = {.n_resamples = 4000, .confidence = 0.95, .seed = 99};
    run(&again[0], &again[1], values, begins, 1, &other);
    assert_true(first[1].low != again[1].low);
}

static qn_status body(qn_error *err)
{
    const double values[] = {1, 2, 3, 4};
    const size_t begins[] = {0, 2, 4};
    const bootstrap_sample sample = {values, begins, 2};
    bootstrap_interval median;
    bootstrap_interval mean;
    return bootstrap(&median, &mean, &sample, &plain, err);
}

static void test_without_memory_it_says_so(void **state)
{
    (void)state;
    fail_each(body, 1, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_a_mean_it_is_1_96_standard_errors),
        cmocka_unit_test(test_of_a_median_it_is_the_binomials_ranks),
        cmocka_unit_test(test_an_even_number_has_its_median_between_two),
        cmocka_unit_test(test_it_holds_what_is_true_as_often_as_it_says),
        cmocka_unit_test(test_groups_are_what_is_drawn),
        cmocka_unit_test(test_one_value_has_no_interval_and_equal_ones_a_point),
        cmocka_unit_test(test_a_seed_repeats_itself),
        cmocka_unit_test(test_without_memory_it_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
