/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing without memory: it says so, and leaks nothing.  What it says otherwise is tested end to
 * end (tests/e2e/test_bench_compare.py). */
#include "bench/compare.h"
#include "support/fail_each.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char g_folder[] = "/tmp/quern-compare-XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", g_folder, name);
    FILE *const file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
}

static int make(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(g_folder));
    write_file("result.json",
               "{\"format\": \"quern-bench-serve/1\", \"runs\": [{\"label\": \"x\", "
               "\"output_throughput\": 2, \"completed\": 2, \"failed\": 1, \"errors\": "
               "{\"timeout\": 1}, \"cost\": {\"profiles\": [{\"name\": \"p\", "
               "\"usd_per_m_output\": 1}]}}, {\"label\": \"y\"}]}");
    write_file("requests.jsonl", "{\"run\": 0, \"id\": 1, \"ttft_ms\": 5, \"end\": \"done\"}\n"
                                 "{\"run\": 0, \"id\": 0, \"ttft_ms\": 4, \"end\": \"done\"}\n");
    return 0;
}

static int clean(void **state)
{
    static const char *const names[] = {"result.json", "requests.jsonl"};
    char path[128];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", g_folder, names[i]);
        (void)unlink(path);
    }
    return rmdir(g_folder);
}

static qn_status body(qn_error *err)
{
    const compare_options options = {.command = "x", .bootstrap = {40, 0.95, 1}};
    compare_side a = {0};
    compare_side b = {0};
    json_t *out = NULL;
    qn_status status = compare_open(&a, g_folder, err);
    if (status == QN_OK) {
        status = compare_open(&b, g_folder, err);
    }
    if (status == QN_OK) {
        status = compare_json(&out, &a, &b, &options, err);
    }
    if (status == QN_OK) { /* then nothing is missing in it */
        const json_t *const run = json_array_get(json_object_get(out, "runs"), 0);
        assert_int_equal(json_integer_value(json_object_get(run, "n_paired")), 2);
        assert_int_equal(json_object_size(json_object_get(run, "figures")), 11);
        assert_int_equal(json_object_size(json_object_get(run, "latency")), 3);
        assert_int_equal(json_object_size(json_object_get(json_object_get(run, "a"), "errors")), 1);
        assert_int_equal(json_array_size(json_object_get(out, "runs")), 2);
    }
    json_decref(out);
    compare_close(&a);
    compare_close(&b);
    return status;
}

static void test_without_memory_it_says_so(void **state)
{
    (void)state;
    fail_each(body, 1, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_without_memory_it_says_so)};
    return cmocka_run_group_tests(tests, make, clean);
}
