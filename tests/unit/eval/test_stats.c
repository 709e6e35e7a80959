/* SPDX-License-Identifier: Apache-2.0 */
/* Intervals and tests against published examples, and against exact fractions made in Python:
 * fractions.Fraction over math.comb for McNemar's p, the formulas once more for the intervals. */
#include "eval/stats.h"
#include "support/unit.h"

#include <math.h>

static void expect_near(double seen, double expected, double bound)
{
    if (!(fabs(seen - expected) <= bound)) {
        fail_msg("%.12g, %.12g expected", seen, expected);
    }
}

static void test_wilson(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_right, n;
        double low, high;
    } cases[] = {
        {8, 10, 0.490162472, 0.943317849},    {0, 10, 0.0, 0.277532800}, {10, 10, 0.722467200, 1.0},
        {191, 200, 0.916703296, 0.976147457}, {1, 1, 0.206549314, 1.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const qn_interval interval = qn_wilson(cases[i].n_right, cases[i].n);
        expect_near(interval.low, cases[i].low, 1e-9);
        expect_near(interval.high, cases[i].high, 1e-9);
        assert_true(interval.low >= 0.0 && interval.high <= 1.0);
    }
}

/*
 * {36, 12, 2, 0}: Newcombe 1998, table II, prints 0.0569 to 0.3404 for method 10.  {1, 1, 7, 12}:
 * Fagerland, Lydersen and Laake 2014, "Recommended tests and confidence intervals for paired
 * binomial proportions", Statistics in Medicine 33, print -0.507 to -0.026.  Both take the first
 * less the second, so the signs turn round.
 */
static void test_newcombe(void **state)
{
    (void)state;
    static const struct {
        qn_pairs pairs;
        double low, high;
    } cases[] = {
        {{36, 12, 2, 0}, -0.340427603, -0.056929584}, {{1, 1, 7, 12}, 0.025559124, 0.506920227},
        {{59, 6, 16, 80}, 0.004625114, 0.118621196},  {{50, 0, 0, 0}, -0.071347599, 0.071347599},
        {{40, 0, 0, 10}, -0.057092248, 0.057092248},  {{0, 5, 0, 5}, -0.763406909, -0.117367467},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const qn_interval interval = qn_paired_interval(&cases[i].pairs);
        expect_near(interval.low, cases[i].low, 1e-9);
        expect_near(interval.high, cases[i].high, 1e-9);
    }
}

static void test_mcnemar(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_first, n_second;
        double p;
    } cases[] = {
        {0, 0, 1.0},           {10, 10, 1.0},         {0, 1, 1.0},
        {0, 5, 0.0625},        {0, 6, 0.03125},       {1, 7, 0.0703125},
        {12, 2, 0.0129394531}, {6, 16, 0.0524787903}, {300, 400, 0.000178476314},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_near(qn_mcnemar(cases[i].n_first, cases[i].n_second), cases[i].p, 1e-9);
        expect_near(qn_mcnemar(cases[i].n_second, cases[i].n_first), cases[i].p, 1e-9);
    }
    assert_true(qn_mcnemar(0, 100000) >= 0.0);
    expect_near(qn_mcnemar(50000, 50001), 1.0, 1e-6);
}

/* Means 1, 2, 3 of windows of one length: mean 2, standard error sqrt(1 / 3). */
static void test_windows_are_what_varies(void **state)
{
    (void)state;
    static const qn_window_sum windows[] = {{10.0, 10}, {20.0, 10}, {30.0, 10}};
    qn_interval interval;
    expect_near(qn_window_mean(&interval, windows, 3), 2.0, 1e-12);
    expect_near(interval.high - 2.0, 1.959963984540054 * sqrt(1.0 / 3.0), 1e-9);
    expect_near(2.0 - interval.low, 1.959963984540054 * sqrt(1.0 / 3.0), 1e-9);
    expect_near(qn_window_mean(&interval, windows, 1), 1.0, 1e-12);
    assert_true(isnan(interval.low) && isnan(interval.high));
    static const qn_window_sum uneven[] = {{10.0, 10}, {4.0, 2}}; /* 14 over 12 */
    expect_near(qn_window_mean(&interval, uneven, 2), 14.0 / 12.0, 1e-12);
}

static void test_quantiles_are_values_that_occur(void **state)
{
    (void)state;
    static const double values[] = {1.0, 2.0, 3.0, 4.0};
    expect_near(qn_quantile(values, 4, 0.5), 2.0, 0.0);
    expect_near(qn_quantile(values, 4, 0.51), 3.0, 0.0);
    expect_near(qn_quantile(values, 4, 0.99), 4.0, 0.0);
    expect_near(qn_quantile(values, 4, 1.0), 4.0, 0.0);
    expect_near(qn_quantile(values, 4, 0.0), 1.0, 0.0);
    expect_near(qn_quantile(values, 1, 0.5), 1.0, 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wilson),
        cmocka_unit_test(test_newcombe),
        cmocka_unit_test(test_mcnemar),
        cmocka_unit_test(test_windows_are_what_varies),
        cmocka_unit_test(test_quantiles_are_values_that_occur),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
