/* SPDX-License-Identifier: Apache-2.0 */
/* Reports of stored results, which may come from anywhere: whole, or refused by the field's name.
 */
#include "report/page_of.h"
#include "support/fail_each.h"
#include "support/unit.h"

#include <stdlib.h>

static const char *const names[] = {"serve", "compare", "engine", "kernels", "eval", "quantize"};
enum { N_NAMES = sizeof names / sizeof *names };

static json_t *load(const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/tests/unit/report/%s.json", QN_SOURCE_DIR, name);
    json_t *const result = json_load_file(path, 0, NULL);
    assert_non_null(result);
    return result;
}

/* Leave at most so many elements of each list: enough to try each kind of them. */
static void trim(json_t *value, size_t n_max)
{
    const char *key = NULL;
    json_t *member = NULL;
    while (json_array_size(value) > n_max) {
        json_array_remove(value, n_max);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        trim(json_array_get(value, i), n_max);
    }
    json_object_foreach(value, key, member)
    {
        trim(member, n_max);
    }
}

static json_t *load_trimmed(const char *name)
{
    json_t *const result = load(name);
    const json_t *const headline = json_object_get(result, "headline");
    if (json_is_integer(headline)) { /* the run of which most is told is one of them */
        json_t *const runs = json_object_get(result, "runs");
        json_array_insert(runs, 0, json_array_get(runs, (size_t)json_integer_value(headline)));
        json_object_set_new(result, "headline", json_integer(0));
    }
    trim(result, 2);
    return result;
}

/* The page, owned by the caller (free); NULL where it is refused. */
static char *make(const json_t *result, bool is_html, qn_error *err)
{
    char *text = NULL;
    size_t len = 0;
    FILE *const file = open_memstream(&text, &len);
    assert_non_null(file);
    const qn_status status =
        is_html ? report_html(file, result, err) : report_markdown(file, result, err);
    assert_int_equal(fclose(file), 0);
    if (status < 0) {
        assert_int_equal(status, QN_E_FORMAT);
        assert_int_equal(len, 0); /* nothing is written of what is refused */
        free(text);
        return NULL;
    }
    return text;
}

static void test_every_kind_of_result_has_its_report(void **state)
{
    (void)state;
    static const char *const expected[N_NAMES] = {
        "GLM-5.2, MXFP4, on quern 0.1.0",          "mxfp4 against fp8",
        "Engine: models/glm-nano, unquantized",    "Kernels of models/glm-nano on AMD EPYC",
        "Quality of models/glm-nano, unquantized", "Quantized to MXFP4"};
    for (size_t i = 0; i < N_NAMES; i++) {
        json_t *const result = load(names[i]);
        for (int is_html = 0; is_html <= 1; is_html++) {
            qn_error err = {0};
            char *const page = make(result, is_html == 1, &err);
            assert_non_null(page);
            assert_non_null(strstr(page, expected[i]));
            free(page);
        }
        json_decref(result);
    }
}

static void test_figures_of_a_bench_stand_in_its_report(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "2.87 tokens a step; by position 74 %, 52 %, 34 %, 18 %, 9 %",
        "By construction 60 % of the input is text that earlier requests began with",
        "(a prefix of 12,000 tokens). Measured: 59.8 % by the usage of the answers, 59.7 % by the",
        "2.40 requests/s held the limit and 2.60 did not",
        "3 times: output throughput from 2,372 to 2,392 tokens/s",
        "2.01 J for each output token: 498 output tokens a second for each kW",
        "connection closed after 412 tokens",
        "Open loop, poisson arrivals",
        "99 % of requests were sent within 0.310 ms",
        "| Wafer MI355X | 2.40 | – | 2,626 | 810 | 2,220 |",
        "| about 2.75 times cheaper per GPU on average than B300; over 2 times cheaper overall |",
        "2.41 a second came due and 2.36 were answered, 98.1 % of it.",
        "503: {\"error\":\"overloaded &lt;b&gt;\"}",
        "the server does not take draft_tokens of a request",
        "Plain words",
        "not measured",
    };
    qn_error err = {0};
    json_t *const result = load("serve");
    char *const page = make(result, false, &err);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        if (strstr(page, expected[i]) == NULL) {
            fail_msg("not there: %s", expected[i]);
        }
    }
    free(page);
    json_decref(result);
}

static void test_what_is_not_real_is_said_loudly(void **state)
{
    (void)state;
    static const char *const loud[] = {"**PARTIAL: interrupted**", "**NOT VALID**",
                                       "**DUMMY WEIGHTS**",        "**SYNTHETIC ACCEPTANCE**",
                                       "lengths scaled by 0.05",   "the client was late",
                                       "quantization not stated"};
    qn_error err = {0};
    json_t *const result = load("serve");
    json_t *const more =
        json_pack("{s{ss, ss, sn}, s{sf}, sb, sb, s[s]}", "server", "weights", "dummy",
                  "acceptance", "synthetic", "quantization", "workload", "scale", 0.05,
                  "is_partial", 1, "is_valid", 0, "invalid", "the client was late");
    assert_int_equal(json_object_update_recursive(result, more), 0);
    char *const page = make(result, false, &err);
    for (size_t i = 0; i < sizeof loud / sizeof *loud; i++) {
        if (strstr(page, loud[i]) == NULL) {
            fail_msg("not there: %s", loud[i]);
        }
    }
    free(page);
    json_decref(more);
    json_decref(result);
}

static void test_what_a_server_does_not_tell_its_user_may_note(void **state)
{
    (void)state;
    qn_error err = {0};
    json_t *const result = load("serve");
    json_t *const more =
        json_pack("{s{sn, ss, s{ss, ss, ss}}}", "server", "quantization", "weights", "unknown",
                  "notes", "quantization", "NVFP4", "weights", "dummy", "engine", "not quern");
    assert_int_equal(json_object_update_recursive(result, more), 0);
    json_t *const given = json_deep_copy(result);
    char *const page = make(result, false, &err);
    assert_non_null(strstr(page, "# GLM-5.2, NVFP4, on quern 0.1.0\n"));
    assert_non_null(strstr(page, "NVFP4, as the title says; noted by the user"));
    assert_non_null(strstr(page, "**DUMMY WEIGHTS**"));
    assert_true(json_equal(result, given)); /* the caller's is as it was */
    free(page);
    json_decref(given);
    json_decref(more);
    json_decref(result);
}

static void test_a_field_of_another_type_is_named(void **state)
{
    (void)state;
    qn_error err = {0};
    json_t *const result = load("serve");
    json_t *const run = json_array_get(json_object_get(result, "runs"), 2);
    json_object_set_new(run, "p95_ttft_ms", json_string("soon"));
    assert_null(make(result, true, &err));
    assert_string_equal(err.text, "result: runs[2].p95_ttft_ms: \"soon\", expected a number");
    json_object_set_new(result, "runs", json_integer(3));
    assert_null(make(result, true, &err));
    assert_string_equal(err.text, "result: runs: 3, expected a list");
    json_object_set_new(result, "format", json_string("quern-bench-serve/2"));
    assert_null(make(result, true, &err));
    assert_non_null(strstr(err.text, "format: quern-bench-serve/2, expected"));
    json_object_del(result, "format");
    assert_null(make(result, true, &err));
    json_decref(result);
    json_t *const list = json_array();
    assert_null(make(list, true, &err));
    json_decref(list);
}

/* Make a report, whatever comes of it, and see that no text became markup. */
static void try_report(const json_t *result, bool is_html)
{
    qn_error err = {0};
    char *const page = make(result, is_html, &err);
    assert_true(page != NULL || strstr(err.text, "expected") != NULL);
    assert_true(page == NULL || !is_html || strstr(page, "<script") == NULL);
    free(page);
}

static json_t *other_value(int i)
{
    switch (i) {
    case 0: return json_null();
    case 1: return json_string("</p><script>'\"`|\\");
    case 2: return json_real(-1e308);
    case 3: return json_array();
    default: return json_pack("{s[s]}", "x", "y");
    }
}

enum { N_OTHERS = 5 };

/* Every value below @p at becomes every other once. */
static void try_others(const json_t *result, json_t *at)
{
    const bool is_list = json_is_array(at);
    const size_t n = json_array_size(at);
    void *iter = is_list ? NULL : json_object_iter(at);
    for (size_t i = 0; is_list ? i < n : iter != NULL; i++) {
        json_t *const value =
            json_incref(is_list ? json_array_get(at, i) : json_object_iter_value(iter));
        if (json_is_array(value) || json_is_object(value)) {
            try_others(result, value);
        }
        for (int k = 0; k < N_OTHERS; k++) {
            is_list ? json_array_set_new(at, i, other_value(k))
                    : json_object_iter_set_new(at, iter, other_value(k));
            try_report(result, (i + (size_t)k) % 2 == 0);
        }
        is_list ? json_array_set_new(at, i, value) : json_object_iter_set_new(at, iter, value);
        iter = is_list ? NULL : json_object_iter_next(at, iter);
    }
}

static void test_no_value_of_a_field_breaks_a_report(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_NAMES; i++) {
        json_t *const result = load_trimmed(names[i]);
        try_others(result, result);
        json_decref(result);
    }
}

static void test_a_result_of_nothing_but_its_format_has_a_report(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_NAMES; i++) {
        json_t *const whole = load(names[i]);
        json_t *const result = json_pack("{sO}", "format", json_object_get(whole, "format"));
        for (int is_html = 0; is_html <= 1; is_html++) {
            qn_error err = {0};
            char *const page = make(result, is_html == 1, &err);
            assert_non_null(page);
            free(page);
        }
        json_decref(result);
        json_decref(whole);
    }
}

/* ---------------------------------------------------------------------- what is read is checked */

static const char wrong_text[] = "of-another-type";

/* Of another type; it can be found where it is shown as it is. */
static json_t *wrong_value(const json_t *value)
{
    return json_is_string(value) ? json_integer(987650123) : json_string(wrong_text);
}

static size_t g_n_unchecked;

/* Every value below @p at is of another type once: refused, not read, or shown as it is. */
static void try_wrong(const json_t *result, json_t *at, const char *path, char *const *before)
{
    const bool is_list = json_is_array(at);
    const size_t n = json_array_size(at);
    void *iter = is_list ? NULL : json_object_iter(at);
    for (size_t i = 0; is_list ? i < n : iter != NULL; i++) {
        json_t *const value =
            json_incref(is_list ? json_array_get(at, i) : json_object_iter_value(iter));
        char name[256];
        qn_error err = {0};
        (void)snprintf(name, sizeof name, "%s.%s", path,
                       is_list ? "[]" : json_object_iter_key(iter));
        if (json_is_array(value) || json_is_object(value)) {
            try_wrong(result, value, name, before);
        }
        is_list ? json_array_set_new(at, i, wrong_value(value))
                : json_object_iter_set_new(at, iter, wrong_value(value));
        for (int k = 0; k < 2 && !json_is_null(value); k++) {
            char *const page = make(result, k == 1, &err);
            if (page != NULL && strcmp(page, before[k]) != 0 && strstr(page, wrong_text) == NULL &&
                strstr(page, "987,650,123") == NULL && strstr(page, "987650123") == NULL) {
                print_error("%s: read, and of another type not refused\n", name);
                g_n_unchecked++;
            }
            free(page);
        }
        is_list ? json_array_set_new(at, i, value) : json_object_iter_set_new(at, iter, value);
        iter = is_list ? NULL : json_object_iter_next(at, iter);
    }
}

static void test_every_field_that_is_read_is_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_NAMES; i++) {
        qn_error err = {0};
        json_t *const result = load_trimmed(names[i]);
        char *const before[] = {make(result, false, &err), make(result, true, &err)};
        try_wrong(result, result, names[i], before);
        free(before[0]);
        free(before[1]);
        json_decref(result);
    }
    assert_int_equal(g_n_unchecked, 0);
}

/* ----------------------------------------------------------------- runs that are not to be used */

static char *make_changed(const char *name, json_t *changes, bool is_html)
{
    qn_error err = {0};
    json_t *const result = load(name);
    assert_int_equal(json_object_update_recursive(result, changes), 0);
    char *const page = make(result, is_html, &err);
    json_decref(result);
    json_decref(changes);
    assert_non_null(page);
    return page;
}

static void test_runs_that_are_not_valid_are_drawn_struck(void **state)
{
    (void)state;
    qn_error err = {0};
    json_t *const result = load("serve");
    json_t *run = NULL;
    size_t i = 0;
    json_array_foreach(json_object_get(result, "runs"), i, run)
    {
        json_object_set_new(run, "is_valid", json_false());
        json_object_set_new(run, "cut", json_boolean(i == 0));
    }
    char *const page = make(result, true, &err);
    assert_non_null(strstr(page, "measured here, NOT VALID"));
    assert_non_null(strstr(page, "Output by rate"));
    assert_non_null(strstr(page, "0.5 requests/s, did not hold"));
    assert_null(strstr(page, "0.5 requests/s, NOT VALID"));
    assert_non_null(strstr(page, "1 requests/s, NOT VALID"));
    free(page);
    json_decref(result);
}

static void test_of_a_scaled_workload_published_rows_stand_apart(void **state)
{
    (void)state;
    static const char heading[] = "The workload as published";
    char *page = make_changed("serve", json_pack("{s{sf}}", "workload", "scale", 0.05), true);
    const char *const at = strstr(page, heading);
    assert_non_null(at);
    assert_true(strstr(page, "Wafer MI355X") > at);
    assert_null(strstr(page, ", published: "));
    assert_null(strstr(page, "Breaks even at"));
    free(page);
    page = make_changed("serve", json_object(), true);
    assert_null(strstr(page, heading));
    assert_non_null(strstr(page, "Wafer MI355X, published: 20,000 in, 1,000 out"));
    free(page);
}

static void test_a_break_even_names_the_workload_of_the_other(void **state)
{
    (void)state;
    char *const page = make_changed("serve", json_object(), false);
    const char *const ours =
        strstr(page, "| Wafer MI355X | hyperscaler | 20,000 in, 1,000 out, 60 % of the input");
    const char *const others =
        strstr(page, "| SGLang cookbook H200 | hyperscaler | 8k in, 1k out | 2,083 |");
    assert_true(ours != NULL && others != NULL && ours < others);
    free(page);
}

static void test_without_drafts_no_acceptance_was_measured(void **state)
{
    (void)state;
    char *page = make_changed("engine", json_pack("{sb}", "synthetic", 0), false);
    assert_non_null(strstr(page, "acceptance measured"));
    free(page);
    page = make_changed("engine",
                        json_pack("{sb, s[{si, si, si}]}", "synthetic", 0, "cells", "batch", 1,
                                  "context", 0, "draft_tokens", 0),
                        false);
    assert_null(strstr(page, "acceptance measured"));
    assert_non_null(strstr(page, "no speculation"));
    free(page);
}

static void test_without_gnuplot_its_points_are_a_table(void **state)
{
    (void)state;
    qn_error err = {0};
    json_t *const result = load("serve");
    char *const page = make(result, true, &err); /* PATH leads nowhere: main() */
    assert_null(strstr(page, "<svg"));
    assert_non_null(strstr(page, "Not drawn: gnuplot is not installed."));
    assert_non_null(strstr(page, "measured here"));
    free(page);
    json_decref(result);
}

static json_t *g_result;

static qn_status make_without_memory(qn_error *err)
{
    FILE *const file = tmpfile();
    if (file == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "no memory for a file");
    }
    const qn_status status = report_html(file, g_result, err);
    (void)fclose(file);
    return status;
}

static void test_every_failing_allocation_is_reported(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_NAMES; i++) {
        g_result = load_trimmed(names[i]);
        fail_each(make_without_memory, 1, 3);
        json_decref(g_result);
    }
}

static void test_a_full_disk_is_reported(void **state)
{
    (void)state;
    qn_error err = {0};
    FILE *const file = fopen("/dev/full", "w");
    if (file == NULL) {
        skip();
    }
    json_t *const result = load("kernels");
    assert_int_equal(report_html(file, result, &err), QN_E_IO);
    json_decref(result);
    (void)fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_result_has_its_report),
        cmocka_unit_test(test_figures_of_a_bench_stand_in_its_report),
        cmocka_unit_test(test_what_is_not_real_is_said_loudly),
        cmocka_unit_test(test_what_a_server_does_not_tell_its_user_may_note),
        cmocka_unit_test(test_a_field_of_another_type_is_named),
        cmocka_unit_test(test_no_value_of_a_field_breaks_a_report),
        cmocka_unit_test(test_a_result_of_nothing_but_its_format_has_a_report),
        cmocka_unit_test(test_every_field_that_is_read_is_checked),
        cmocka_unit_test(test_runs_that_are_not_valid_are_drawn_struck),
        cmocka_unit_test(test_of_a_scaled_workload_published_rows_stand_apart),
        cmocka_unit_test(test_a_break_even_names_the_workload_of_the_other),
        cmocka_unit_test(test_without_drafts_no_acceptance_was_measured),
        cmocka_unit_test(test_without_gnuplot_its_points_are_a_table),
        cmocka_unit_test(test_every_failing_allocation_is_reported),
        cmocka_unit_test(test_a_full_disk_is_reported),
    };
    if (setenv("PATH", "/nonexistent", 1) != 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
