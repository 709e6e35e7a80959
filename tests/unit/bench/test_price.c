/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/price.h"
#include "support/fail_each.h"

#include <math.h>
#include <unistd.h>

static char path[256];

static void write_file(const char *text)
{
    (void)snprintf(path, sizeof path, "%s/tests/test_price_%d.json", QN_BINARY_DIR, (int)getpid());
    FILE *const file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* "cost" of 8 of these at a rate, under what is built in; owned by the caller. */
static json_t *cost_of(const char *accelerator, double output_per_s)
{
    bench_data data;
    json_t *cost = NULL;
    qn_error err = {0};
    assert_int_equal(bench_data_open(&data, NULL, NULL, &err), QN_OK);
    assert_int_equal(
        bench_cost_json(&cost, &data, accelerator, 8, output_per_s, 10 * output_per_s, &err),
        QN_OK);
    bench_data_close(&data);
    return cost;
}

/* The field of the record with these two texts. */
static double figure_of(const json_t *list, const char *key, const char *value, const char *key_2,
                        const char *value_2, const char *field)
{
    size_t i = 0;
    json_t *one = NULL;
    json_array_foreach(list, i, one)
    {
        const char *const seen = json_string_value(json_object_get(one, key));
        const char *const seen_2 =
            key_2 != NULL ? json_string_value(json_object_get(one, key_2)) : "";
        if (strcmp(seen, value) == 0 && (key_2 == NULL || strcmp(seen_2, value_2) == 0)) {
            return json_number_value(json_object_get(one, field));
        }
    }
    fail_msg("no record %s", value);
    return 0;
}

static void assert_near(double seen, double wanted, double within)
{
    if (!(fabs(seen - wanted) <= within)) {
        fail_msg("%g, expected %g within %g", seen, wanted, within);
    }
}

static const char *const profiles[] = {"hyperscaler", "neocloud", "3-year rental"};

static void test_prices_of_published_results(void **state)
{
    (void)state;
    static const struct {
        const char *accelerator;
        double rate, usd[3], per_kw;
    } cases[] = {{"MI355X", 2626, {1.25, 1.61, 1.78}, 124},
                 {"B200", 3192, {1.36, 1.63, 2.02}, 184}};
    for (size_t i = 0; i < 2; i++) {
        json_t *const cost = cost_of(cases[i].accelerator, cases[i].rate);
        const json_t *const list = json_object_get(cost, "profiles");
        for (size_t k = 0; k < 3; k++) {
            const double usd = figure_of(list, "name", profiles[k], NULL, NULL, "usd_per_m_output");
            assert_near(usd, cases[i].usd[k], 0.005);
            assert_near(figure_of(list, "name", profiles[k], NULL, NULL, "usd_per_m_total"),
                        usd / 10, 1e-9);
        }
        assert_near(json_number_value(json_object_get(cost, "output_per_s_per_kw")),
                    cases[i].per_kw, 0.5);
        json_decref(cost);
    }
}

static void test_break_even_with_published_results(void **state)
{
    (void)state;
    static const struct {
        const char *accelerator;
        double rates[3];
    } cases[] = {{"h200", {2502, 2405, 2001}}, {"H100", {2307, 2336, 1626}}};
    for (size_t i = 0; i < 2; i++) {
        json_t *const cost = cost_of(cases[i].accelerator, 2000);
        const json_t *const list = json_object_get(cost, "break_even");
        for (size_t k = 0; k < 3; k++) {
            const double rate = figure_of(list, "reference", "Wafer MI355X", "profile", profiles[k],
                                          "output_throughput");
            assert_near(rate, cases[i].rates[k], 0.5);
            assert_near(
                figure_of(list, "reference", "Wafer MI355X", "profile", profiles[k], "ratio"),
                2000 / rate, 1e-9);
        }
        assert_near(
            figure_of(list, "reference", "Wafer MI355X", "profile", "power", "output_throughput"),
            1714, 0.5);
        assert_near(
            figure_of(list, "reference", "Wafer B200", "profile", "power", "output_throughput"),
            2545, 0.5);
        /* 4 accelerators there, 8 here */
        assert_near(figure_of(list, "reference", "ATOM MI355X TP4, 8k in", "profile", "power",
                              "output_throughput"),
                    1299 * 2 * 1.73 / 2.65, 0.5);
        json_decref(cost);
    }
}

static void test_cost_of_nothing_and_of_what_is_not_known(void **state)
{
    (void)state;
    bench_data data;
    json_t *cost = NULL;
    qn_error err = {0};
    assert_int_equal(bench_data_open(&data, NULL, NULL, &err), QN_OK);
    assert_int_equal(bench_cost_json(&cost, &data, NULL, 8, 1, 1, &err), QN_OK);
    assert_true(json_is_null(cost));
    json_decref(cost);
    assert_int_equal(bench_cost_json(&cost, &data, "TPU", 8, 1, 1, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "--accelerator: TPU, expected one of H100, H200"));
    assert_int_equal(bench_cost_json(&cost, &data, "H200", 8, 0, 0, &err), QN_OK);
    assert_true(json_is_null(
        json_object_get(json_array_get(json_object_get(cost, "profiles"), 0), "usd_per_m_output")));
    json_decref(cost);
    bench_data_close(&data);
    bench_data_close(&data);
}

static void test_published_results_say_so(void **state)
{
    (void)state;
    bench_data data;
    qn_error err = {0};
    assert_int_equal(bench_data_open(&data, NULL, NULL, &err), QN_OK);
    assert_true(json_array_size(data.references) >= 20);
    assert_int_equal(json_array_size(data.prices), 3);
    size_t i = 0;
    json_t *one = NULL;
    json_array_foreach(data.references, i, one)
    {
        assert_true(json_is_true(json_object_get(one, "published")));
        /* a name of the prices', so that it can be compared */
        assert_non_null(
            json_object_get(json_object_get(json_array_get(data.prices, 0), "accelerators"),
                            json_string_value(json_object_get(one, "accelerator"))));
    }
    bench_data_close(&data);
}

#define PRICES(rest) "{\"format\":\"quern-prices/1\",\"profiles\":[" rest "]}"
#define PROFILE(name, date, inner)                                                                 \
    "{\"name\":\"" name "\",\"date\":\"" date "\",\"source\":\"us\",\"accelerators\":{" inner "}}"

static void test_prices_of_a_file_replace_the_built_in(void **state)
{
    (void)state;
    bench_data data;
    json_t *cost = NULL;
    qn_error err = {0};
    write_file(PRICES(PROFILE("ours", "2026-10-01", "\"H200\":{\"usd_per_hour\":3}")));
    assert_int_equal(bench_data_open(&data, path, NULL, &err), QN_OK);
    assert_int_equal(bench_cost_json(&cost, &data, "H200", 1, 1000, 2000, &err), QN_OK);
    assert_near(figure_of(json_object_get(cost, "profiles"), "name", "ours", NULL, NULL,
                          "usd_per_m_output"),
                3 / 3.6, 1e-9);
    assert_true(json_is_null(json_object_get(cost, "output_per_s_per_kw")));
    json_decref(cost);
    bench_data_close(&data);
    (void)unlink(path);
}

static void test_faults_of_a_file_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"{", "line 1"},
        {"[]", "format: nothing, expected \"quern-prices/1\""},
        {"{\"format\":\"quern-references/1\"}", "format: \"quern-references/1\", expected"},
        {PRICES(""), "profiles: an empty list"},
        {PRICES("7"), "profiles[0]: 7, expected an object"},
        {PRICES(PROFILE("a", "2026-13-01", "\"H200\":{\"usd_per_hour\":1}")),
         "profiles[0] (a): date: \"2026-13-01\", expected a date"},
        {PRICES(PROFILE("a", "last week", "\"H200\":{\"usd_per_hour\":1}")), "date: \"last week\""},
        {PRICES(PROFILE("", "2026", "\"H200\":{\"usd_per_hour\":1}")),
         "name: \"\", expected a text"},
        {PRICES(PROFILE("a", "2026", "")), "accelerators: none"},
        {PRICES(PROFILE("a", "2026", "\"H200\":{\"usd_per_hour\":-1}")),
         "accelerators: H200: usd_per_hour: -1, expected a number above 0"},
        {PRICES(PROFILE("a", "2026", "\"H200\":{\"usd_per_hour\":\"1\"}")), "usd_per_hour: \"1\""},
        {PRICES(PROFILE("a", "2026", "\"H200\":{}")), "usd_per_hour: nothing"},
        {PRICES(PROFILE("a", "2026", "\"H200\":{\"usd_per_hour\":1,\"usd_per_day\":2}")),
         "usd_per_day: a field that is not known"},
        {PRICES(PROFILE("a", "2026", "\"H200\":{\"usd_per_hour\":1}") "," PROFILE(
             "a", "2026", "\"H200\":{\"usd_per_hour\":1}")),
         "profiles[1] (a): name: the same"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bench_data data;
        qn_error err = {0};
        write_file(cases[i].text);
        assert_int_equal(bench_data_open(&data, path, NULL, &err), QN_E_FORMAT);
        assert_non_null(strstr(err.text, path));
        if (strstr(err.text, cases[i].expected) == NULL) {
            fail_msg("%s, expected %s", err.text, cases[i].expected);
        }
        assert_null(data.prices);
    }
    bench_data data;
    qn_error err = {0};
    assert_int_equal(bench_data_open(&data, NULL, "no/such.json", &err), QN_E_NOT_FOUND);
    (void)unlink(path);
}

#define REFERENCE(rest)                                                                            \
    "{\"format\":\"quern-references/1\",\"references\":[{\"name\":\"r\",\"source\":\"s\","         \
    "\"date\":null,\"read\":\"2026\",\"accelerator\":null,\"n_accelerators\":8,\"engine\":null,"   \
    "\"model\":\"m\",\"quantization\":null,\"workload\":\"w\",\"hit_rate\":null,\"mtp\":null,"     \
    "\"acceptance\":\"a\",\"caveats\":[]," rest "}]}"

static void test_faults_of_references_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *expected; /* NULL: none */
    } cases[] = {
        {REFERENCE("\"published\":true,\"headline\":null,\"rows\":[{\"ttft_ms\":1}]"), NULL},
        {REFERENCE("\"published\":false,\"headline\":null,\"rows\":[{\"ttft_ms\":1}]"),
         "references[0] (r): published: false, expected true"},
        {REFERENCE("\"published\":true,\"headline\":0,\"rows\":[{\"ttft_ms\":1}]"),
         "headline: 0, expected the index of a row with output_throughput"},
        {REFERENCE("\"published\":true,\"headline\":1,\"rows\":[{\"output_throughput\":1}]"),
         "headline: 1"},
        {REFERENCE("\"published\":true,\"headline\":null,\"rows\":[]"), "rows: none"},
        {REFERENCE("\"published\":true,\"headline\":null,\"rows\":[{},{\"tok_s\":1}]"),
         "rows[1]: tok_s: a field that is not known"},
        {REFERENCE("\"published\":true,\"headline\":null,\"rows\":[{\"success_rate\":1.5}]"),
         "success_rate: 1.5, expected a number in 0 .. 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bench_data data;
        qn_error err = {0};
        write_file(cases[i].text);
        assert_int_equal(bench_data_open(&data, NULL, path, &err),
                         cases[i].expected != NULL ? QN_E_FORMAT : QN_OK);
        if (cases[i].expected != NULL && strstr(err.text, cases[i].expected) == NULL) {
            fail_msg("%s, expected %s", err.text, cases[i].expected);
        }
        bench_data_close(&data);
    }
    (void)unlink(path);
}

static qn_status all_of_it(qn_error *err)
{
    bench_data data;
    json_t *cost = NULL;
    qn_status status = bench_data_open(&data, NULL, NULL, err);
    if (status == QN_OK) {
        status = bench_cost_json(&cost, &data, "H200", 8, 2000, 40000, err);
    }
    json_decref(cost);
    bench_data_close(&data);
    return status;
}

static void test_survives_failing_allocations(void **state)
{
    (void)state;
    fail_each(all_of_it, 17, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prices_of_published_results),
        cmocka_unit_test(test_break_even_with_published_results),
        cmocka_unit_test(test_cost_of_nothing_and_of_what_is_not_known),
        cmocka_unit_test(test_published_results_say_so),
        cmocka_unit_test(test_prices_of_a_file_replace_the_built_in),
        cmocka_unit_test(test_faults_of_a_file_are_named),
        cmocka_unit_test(test_faults_of_references_are_named),
        cmocka_unit_test(test_survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
