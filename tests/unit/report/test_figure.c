/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers as people read them. */
#include "report/figure.h"
#include "support/unit.h"

#include <float.h>
#include <math.h>

static void test_three_digits_say_something_and_thousands_have_commas(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } table[] = {
        {2626.0, "2,626"},
        {2626.4, "2,626"},
        {1234567.0, "1,234,567"},
        {213.0, "213"},
        {99.64, "99.6"},
        {5.05, "5.05"},
        {0.81, "0.810"},
        {0.0624, "0.0624"},
        {0.0, "0"},
        {-0.0, "0"},
        {-1234.5, "-1,234"},
        {-0.5, "-0.500"},
        {999.6, "1,000"},
        {1.2e-5, "1.20e-05"},
        {1e15, "1.00e+15"},
        {123456789012.0, "123,456,789,012"},
        {(double)NAN, FIGURE_DASH},
        {(double)INFINITY, FIGURE_DASH},
        {DBL_MAX, "1.80e+308"},
        {DBL_MIN, "2.23e-308"},
        {999999999999999.0, "999,999,999,999,999"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_string_equal(figure_of(table[i].value).text, table[i].text);
    }
}

static void test_units_follow_numbers_and_never_a_dash(void **state)
{
    (void)state;
    assert_string_equal(figure_percent(0.601).text, "60.1 %");
    assert_string_equal(figure_percent(1.0).text, "100 %");
    assert_string_equal(figure_percent(0.99996).text, "99.996 %"); /* is not 100 */
    assert_string_equal(figure_percent((double)NAN).text, FIGURE_DASH);
    assert_string_equal(figure_ms(810.0).text, "810 ms");
    assert_string_equal(figure_ms(2220.0).text, "2.22 s");
    assert_string_equal(figure_ms((double)NAN).text, FIGURE_DASH);
    assert_string_equal(figure_bytes(372e9).text, "372 GB");
    assert_string_equal(figure_bytes(31.8e6).text, "31.8 MB");
    assert_string_equal(figure_count(12000.0).text, "12,000");
    assert_string_equal(figure_plain(5.0).text, "5");
    assert_string_equal(figure_plain(0.7).text, "0.7");
    assert_string_equal(figure_signed(1.25).text, "+1.25");
    assert_string_equal(figure_signed(-1.25).text, "-1.25");
    assert_string_equal(figure_signed(0.0).text, "0");
    assert_string_equal(figure_signed((double)NAN).text, FIGURE_DASH);
    assert_string_equal(figure_ms(DBL_MAX).text, "1.80e+305 s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_digits_say_something_and_thousands_have_commas),
        cmocka_unit_test(test_units_follow_numbers_and_never_a_dash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
