/* SPDX-License-Identifier: Apache-2.0 */
/* What a text may be and what it becomes: nothing of a result is markup. */
#include "report/sheet.h"
#include "support/fail_each.h"
#include "support/unit.h"

#include <stdlib.h>

static const char hostile[] = "</td><script>alert('x')</script>&amp; \"a\" | `b` *c* _d_ e_f [g](h)"
                              "\x01\n# i";

static sheet written(bool is_html)
{
    sheet s;
    qn_error err = {0};
    sheet_open(&s, is_html, hostile, &err);
    sheet_title(&s, hostile, hostile);
    sheet_badges(&s);
    sheet_badge(&s, SHEET_BAD, "%s", hostile);
    sheet_badges_end(&s);
    sheet_box(&s, SHEET_WARN, hostile, "%s", hostile);
    sheet_facts(&s);
    sheet_fact(&s, hostile, "%s", hostile);
    sheet_facts_end(&s);
    sheet_command(&s, hostile);
    sheet_tiles(&s);
    sheet_tile(&s, hostile, hostile, hostile);
    sheet_tiles_end(&s);
    sheet_section(&s, hostile);
    sheet_paragraph(&s, "%s", hostile);
    const sheet_column columns[] = {{hostile, hostile, true}, {"b", NULL, false}};
    sheet_table(&s, hostile, columns, 2);
    sheet_row(&s, SHEET_PLAIN);
    sheet_cell(&s, "%s", hostile);
    sheet_cell_link(&s, hostile, "https://example.org/\"><script>");
    sheet_table_end(&s);
    sheet_answer(&s, SHEET_GOOD, hostile, hostile, "%s", hostile);
    sheet_folded(&s, hostile, hostile);
    sheet_end(&s);
    assert_int_equal(s.status, QN_OK);
    return s;
}

static void test_no_text_is_markup_in_html(void **state)
{
    (void)state;
    sheet s = written(true);
    assert_null(strstr(s.out.ptr, "<script"));
    assert_null(strstr(s.out.ptr, "alert('"));
    assert_null(strchr(s.out.ptr, '\x01'));
    assert_non_null(strstr(s.out.ptr, "&lt;/td&gt;&lt;script&gt;alert(&#39;x&#39;)"));
    assert_non_null(strstr(s.out.ptr, "href=\"https://example.org/&quot;&gt;&lt;script&gt;\""));
    sheet_close(&s);
}

static void test_no_text_is_markup_in_markdown(void **state)
{
    (void)state;
    sheet s = written(false);
    const char *const command = strstr(s.out.ptr, "\n    </td>"); /* code is as it is */
    assert_non_null(command);
    for (const char *at = s.out.ptr; (at = strstr(at, "<script")) != NULL; at++) {
        assert_ptr_equal(at, command + 10);
    }
    assert_non_null(strstr(s.out.ptr, "\\| \\`b\\` \\*c\\* \\_d\\_ e_f \\[g\\](h)? # i"));
    assert_null(strstr(s.out.ptr, "\n# i"));
    sheet_close(&s);
}

static void test_only_addresses_of_the_web_become_links(void **state)
{
    (void)state;
    static const char *const addresses[] = {"javascript:alert(1)", "data:text/html,x", "sglang#1",
                                            "HTTPS", ""};
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        sheet s;
        qn_error err = {0};
        sheet_open(&s, true, "", &err);
        sheet_link(&s, "text", addresses[i]);
        assert_null(strstr(s.out.ptr, "href"));
        sheet_close(&s);
    }
}

static void test_a_long_text_is_whole(void **state)
{
    (void)state;
    char text[5000];
    sheet s;
    qn_error err = {0};
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    sheet_open(&s, false, "", &err);
    sheet_paragraph(&s, "%s", text);
    assert_int_equal(s.out.len, sizeof text + 1);
    sheet_close(&s);
}

static void test_what_does_not_fit_is_said_and_stays_said(void **state)
{
    (void)state;
    sheet s;
    qn_error err = {0};
    sheet_open(&s, false, "", &err);
    s.out.bytes_max = 10;
    sheet_text(&s, "%s", "more than ten bytes");
    assert_int_equal(s.status, QN_E_NOMEM);
    sheet_text(&s, "%s", "a");
    assert_int_equal(s.out.len, 0);
    sheet_close(&s);
}

enum { N_POINTS = 20 };

static qn_status draw(qn_error *err)
{
    sheet s;
    plot p = {.title = "a", .x_label = "b", .y_label = "c"};
    sheet_open(&s, true, "a", err);
    plot_init(&p);
    plot_begin(&p, "series", PLOT_LINE, PLOT_BLUE);
    for (int i = 0; i < N_POINTS; i++) {
        sheet_try(&s, plot_add(&p, i, i * i, err));
    }
    sheet_plot(&s, &p);
    sheet_end(&s);
    const qn_status status = s.status;
    size_t n_rows = 0;
    for (const char *at = s.out.ptr; status == QN_OK && (at = strstr(at, "<tr class")) != NULL;
         at++) {
        n_rows++;
    }
    assert_true(status < 0 || n_rows == N_POINTS); /* no point is lost without a word */
    sheet_close(&s);
    return status;
}

static void test_every_failing_allocation_is_reported(void **state)
{
    (void)state;
    fail_each(draw, 1, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_text_is_markup_in_html),
        cmocka_unit_test(test_no_text_is_markup_in_markdown),
        cmocka_unit_test(test_only_addresses_of_the_web_become_links),
        cmocka_unit_test(test_a_long_text_is_whole),
        cmocka_unit_test(test_what_does_not_fit_is_said_and_stays_said),
        cmocka_unit_test(test_every_failing_allocation_is_reported),
    };
    if (setenv("PATH", "/nonexistent", 1) != 0) { /* no gnuplot: points are in tables alone */
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
