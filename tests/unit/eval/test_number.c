/* SPDX-License-Identifier: Apache-2.0 */
/* The last number of a text, and whether two are the same. */
#include "eval/number.h"
#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>

/* The last number of @p text and the number @p expected, compared; NULL: there must be none. */
static void expect_last(const char *text, const char *expected)
{
    qn_decimal seen;
    qn_decimal wanted;
    const bool is_found = qn_decimal_last(&seen, qn_str_of(text));
    if (is_found != (expected != NULL)) {
        fail_msg("\"%s\": %s expected", text, expected != NULL ? expected : "no number");
    }
    if (expected != NULL) {
        assert_true(qn_decimal_last(&wanted, qn_str_of(expected)));
        if (!qn_decimal_equal(&seen, &wanted) || !qn_decimal_equal(&wanted, &seen)) {
            fail_msg("\"%s\": %.*s x 10^%lld, %s expected", text, (int)seen.digits.len,
                     seen.digits.ptr, (long long)seen.exponent, expected);
        }
    }
}

static void expect_different(const char *a, const char *b)
{
    qn_decimal x;
    qn_decimal y;
    assert_true(qn_decimal_last(&x, qn_str_of(a)));
    assert_true(qn_decimal_last(&y, qn_str_of(b)));
    if (qn_decimal_equal(&x, &y) || qn_decimal_equal(&y, &x)) {
        fail_msg("\"%s\" and \"%s\" are taken for the same", a, b);
    }
}

static void test_the_last_number_of_prose(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"the answer is 1,234.50.", "1234.5"},
        {"12 + 30 = 42.", "42"},
        {"#### 1,000,000", "1000000"},
        {"It costs $18.", "18"},
        {"It costs $1,234.00!", "1234"},
        {"75%", "75"},
        {"5kg", "5"},
        {"**42**", "42"},
        {"\\boxed{1{,}234}", "1234"},
        {"$1\\,234$ dollars", "1234"},
        {".5", "0.5"},
        {"half is .5.", "0.5"},
        {"007", "7"},
        {"0", "0"},
        {"0.000", "0"},
        {"3.", "3"},
        {"3, 4", "4"},
        {"1,2345", "2345"},
        {"1,23", "23"},
        {"1234,567", "567"},
        {"1,234,567,89", "89"},
        {"6.02e23", "602000000000000000000000"},
        {"1E-3", "0.001"},
        {"2e", "2"},
        {"2ex", "2"},
        {"2e5x", "2"},
        {"3x", "3"},
        {"\xe2\x82\xac"
         "7",
         "7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_last(cases[i][0], cases[i][1]);
    }
}

static void test_a_minus_is_a_sign_where_nothing_is_subtracted_from(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"-5", "-5"},
        {"it is -5.", "-5"},
        {"\xe2\x88\x92"
         "5 degrees",
         "-5"},
        {"x = -5", "-5"},
        {"=-5", "-5"},
        {"(-5)", "-5"},
        {"-$5", "-5"},
        {"$-5", "-5"},
        {"-\xc2\xa3"
         "5",
         "-5"},
        {"12-5", "5"},
        {"x-5", "5"},
        {"(3)-5", "5"},
        {"12 - 5", "5"},
        {"- 5 apples", "5"},
        {"12--5", "-5"},
        {"-0", "0"},
        {"-.5", "-0.5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_last(cases[i][0], cases[i][1]);
    }
    expect_different("-5", "5");
    expect_different("-1,000", "1000");
}

static void test_no_number_where_there_is_none(void **state)
{
    (void)state;
    static const char *const cases[] = {"", ".", "-", "none", "x2", "H2O2", "GLM_5", ",", "e5"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_last(cases[i], NULL);
    }
    expect_last("10 of x2", "10");
    qn_decimal number;
    assert_false(qn_decimal_last(&number, (qn_str){0}));
}

/* Doubles would not tell these apart, or would take some for different. */
static void test_values_compare_exactly(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"8", "8.0"},        {"8", "8e0"},    {"80", "8e1"},       {"0.08", "8e-2"},
        {"1,000", "1000.0"}, {"0", "-0.0e9"}, {"1e400", "10e399"}, {"100.10", "100.1"},
    };
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        expect_last(same[i][0], same[i][1]);
    }
    expect_different("12345678901234567890", "12345678901234567891");
    expect_different("0.1", "0.10000000000000001");
    expect_different("1e400", "1e401");
    expect_different("0", "1e-400");
    expect_different("10", "1");
    expect_different("105", "15");
    expect_different("1e99999999999999999999", "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_number_of_prose),
        cmocka_unit_test(test_a_minus_is_a_sign_where_nothing_is_subtracted_from),
        cmocka_unit_test(test_no_number_where_there_is_none),
        cmocka_unit_test(test_values_compare_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
