/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/figures.h"
#include "bench/scrape.h"
#include "support/unit.h"

#include <math.h>

static scrape_sample only_sample(const char *text)
{
    scrape page;
    scrape_sample sample;
    scrape_init(&page, qn_str_of(text));
    assert_true(scrape_next(&page, &sample));
    scrape_sample more;
    assert_false(scrape_next(&page, &more));
    assert_int_equal(page.n_broken, 0);
    return sample;
}

static void test_samples_have_names_labels_and_values(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *name;
        double value;
    } cases[] = {
        {"a 1", "a", 1},
        {"a:b_c9{} 2.5\n", "a:b_c9", 2.5},
        {"# HELP a b\n# TYPE a counter\na 1e+06\n", "a", 1e6},
        {"a{x=\"1\",y=\"}\",} +0.5 1395066363000\r\n", "a", 0.5},
        {"a{x=\"a\\\"b\\\\\"} -3 # {trace_id=\"q\"} 0.67 1.5", "a", -3},
        {"  a\t{ x = \"1\" , y=\"2\" }\t7  ", "a", 7},
        {"a +Inf\n\n\n# EOF\n", "a", (double)INFINITY},
        {"a -Inf", "a", -(double)INFINITY},
        {"a NaN", "a", (double)NAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const scrape_sample sample = only_sample(cases[i].text);
        assert_true(qn_str_equal(sample.name, qn_str_of(cases[i].name)));
        assert_true(sample.value == cases[i].value ||
                    (isnan(sample.value) && isnan(cases[i].value)));
    }
}

static void test_labels_are_unescaped_and_cut(void **state)
{
    (void)state;
    char value[8];
    const scrape_sample sample = only_sample("a{x=\"p\\\"q\\\\r\\nse\",y=\"0123456789\"} 1");
    assert_true(scrape_label(value, sizeof value, &sample, "x"));
    assert_string_equal(value, "p\"q\\r\ns");
    assert_true(scrape_label(value, sizeof value, &sample, "y"));
    assert_string_equal(value, "0123456");
    assert_false(scrape_label(value, sizeof value, &sample, "z"));
    const scrape_sample bare = only_sample("a 1");
    assert_false(scrape_label(value, sizeof value, &bare, "x")); /* and adds nothing to NULL */
}

static void test_broken_lines_are_counted_and_passed_over(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "a",
        "a b",
        "1 2",
        "a{x=\"1\" 2",
        "a{x=\"1} 2",
        "a{x=1} 2",
        "a{=\"\"} 2",
        "a 0x10",
        "a infinity",
        "a nan(1)",
        "a 1 later",
        "a 1 2 3",
        "<html>",
        "{\"a\": 1}",
        "a 1e",
        "a{x=\"\\\"} 1",
        "a 11111111111111111111111111111111111111111111111111111111111111111111111111111111111",
    };
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        char text[256];
        scrape page;
        scrape_sample sample;
        (void)snprintf(text, sizeof text, "%s\ngood 1\n", broken[i]);
        scrape_init(&page, qn_str_of(text));
        assert_true(scrape_next(&page, &sample));
        assert_true(qn_str_equal(sample.name, qn_str_of("good")));
        assert_false(scrape_next(&page, &sample));
        assert_int_equal(page.n_broken, 1);
    }
}

/* ------------------------------------------------------------------------------------- figures */

static bench_figures read_figures(const char *text)
{
    bench_figures figures;
    bench_figures_read(&figures, qn_str_of(text));
    return figures;
}

static void test_quern_is_known_before_the_names_that_it_shares(void **state)
{
    (void)state;
    const bench_figures f =
        read_figures("quern_prefix_hit_tokens_total 60\n"
                     "quern_prefix_query_tokens_total 100\n"
                     "quern_generation_tokens_total 11\n"
                     "quern_requests_running 3\n"
                     "quern_requests_waiting 4\n"
                     "quern_page_usage_ratio 0.25\n"
                     "quern_drafts_total 10\nquern_drafted_tokens_total 50\n"
                     "quern_accepted_tokens_total 20\nquern_preemptions_total 1\n"
                     "quern_accepted_tokens_per_position_total{position=\"0\"} 9\n"
                     "quern_accepted_tokens_per_position_total{position=\"1\"} 7\n"
                     "vllm:num_requests_running{engine=\"0\"} 77\n"
                     "vllm:prefix_cache_hits_total 777\n");
    assert_int_equal(f.engine, BENCH_QUERN);
    assert_true(f.of[BENCH_HIT_TOKENS] == 60 && f.of[BENCH_QUERY_TOKENS] == 100);
    assert_true(f.of[BENCH_RUNNING] == 3 && f.of[BENCH_WAITING] == 4);
    assert_true(f.of[BENCH_PAGE_USE] == 0.25 && f.of[BENCH_GENERATED] == 11);
    assert_true(f.of[BENCH_DRAFTS] == 10 && f.of[BENCH_DRAFTED] == 50);
    assert_true(f.of[BENCH_ACCEPTED] == 20 && f.of[BENCH_PREEMPTIONS] == 1);
    assert_true(f.accepted_at[0] == 9 && f.accepted_at[1] == 7 && isnan(f.accepted_at[2]));
    assert_true(isnan(f.of[BENCH_HIT_RATE]));
}

static void test_vllm_by_old_and_new_names_summed_over_engines(void **state)
{
    (void)state;
    const bench_figures v1 = read_figures(
        "# TYPE vllm:num_requests_running gauge\n"
        "vllm:num_requests_running{engine=\"0\",model_name=\"glm\"} 3.0\n"
        "vllm:num_requests_running{engine=\"1\",model_name=\"glm\"} 4.0\n"
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"glm\"} 1.0\n"
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"glm\"} 0.5\n"
        "vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"glm\"} 0.7\n"
        "vllm:gpu_cache_usage_perc{engine=\"0\",model_name=\"glm\"} 0.1\n"
        "vllm:prefix_cache_queries{engine=\"0\"} 100.0\n"
        "vllm:prefix_cache_hits_total{engine=\"0\"} 40.0\n"
        "vllm:prefix_cache_hits_created{engine=\"0\"} 1.7e9\n"
        "vllm:spec_decode_num_drafts_total{engine=\"0\"} 10\n"
        "vllm:spec_decode_num_draft_tokens_total{engine=\"0\"} 30\n"
        "vllm:spec_decode_num_accepted_tokens_total{engine=\"0\"} 15\n"
        "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",position=\"0\"} 8\n"
        "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"1\",position=\"0\"} 1\n"
        "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",position=\"1\"} 5\n"
        "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",position=\"x\"} 5\n"
        "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\",position=\"999\"} 5\n");
    assert_int_equal(v1.engine, BENCH_VLLM);
    assert_true(v1.of[BENCH_RUNNING] == 7 && v1.of[BENCH_WAITING] == 1);
    assert_true(fabs(v1.of[BENCH_PAGE_USE] - 0.6) < 1e-12);
    assert_true(v1.of[BENCH_QUERY_TOKENS] == 100 && v1.of[BENCH_HIT_TOKENS] == 40);
    assert_true(v1.of[BENCH_DRAFTS] == 10 && v1.of[BENCH_ACCEPTED] == 15);
    assert_true(v1.accepted_at[0] == 9 && v1.accepted_at[1] == 5 && isnan(v1.accepted_at[2]));
    const bench_figures v0 = read_figures("vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.2\n"
                                          "vllm:gpu_prefix_cache_queries_total 50\n"
                                          "vllm:gpu_prefix_cache_hits_total 20\n");
    assert_int_equal(v0.engine, BENCH_VLLM);
    assert_true(v0.of[BENCH_PAGE_USE] == 0.2 && v0.of[BENCH_QUERY_TOKENS] == 50);
    assert_true(v0.of[BENCH_HIT_TOKENS] == 20 && isnan(v0.of[BENCH_DRAFTS]));
}

/* A page of an engine's metrics, and what is read of it. */
static void test_pages_of_other_engines(void **state)
{
    (void)state;
    static const struct {
        bench_engine engine;
        const char *page;
        struct {
            bench_figure figure;
            double value;
        } of[6]; /* ends at the first that is 0 */
    } cases[] = {
        {BENCH_SGLANG,
         "sglang:num_running_reqs{dp_rank=\"0\",tp_rank=\"0\",model_name=\"glm\"} 5\n"
         "sglang:num_running_reqs{model_name=\"glm\",tp_rank=\"1\",dp_rank=\"0\"} 5\n"
         "sglang:num_running_reqs{dp_rank=\"1\",tp_rank=\"2\",model_name=\"glm\"} 2\n"
         "sglang:num_queue_reqs{model_name=\"glm\"} 9\n"
         "sglang:token_usage{model_name=\"glm\"} 0.28\n",
         {{BENCH_RUNNING, 7}, {BENCH_WAITING, 9}, {BENCH_PAGE_USE, 0.28}}},
        {BENCH_SGLANG,
         "sglang:cache_hit_rate{model_name=\"glm\"} 0.6\n"
         "sglang:cached_tokens_total{cache_source=\"device\"} 50\n"
         "sglang:cached_tokens_total{cache_source=\"host\"} 50\n"
         "sglang:prompt_tokens_total{model_name=\"glm\"} 8.0e+02\n"
         "sglang:spec_accept_length{model_name=\"glm\"} 3.5\n",
         {{BENCH_HIT_RATE, 0.6},
          {BENCH_HIT_TOKENS, 100},
          {BENCH_QUERY_TOKENS, 800},
          {BENCH_ACCEPTANCE_LENGTH, 3.5}}},
        {BENCH_LLAMA_CPP,
         "llamacpp:prompt_tokens_total 100\n"
         "llamacpp:tokens_predicted_total 50\n"
         "llamacpp:requests_processing 2\n"
         "llamacpp:requests_deferred 1\n"
         "llamacpp:kv_cache_usage_ratio 0.5\n",
         {{BENCH_GENERATED, 50}, {BENCH_RUNNING, 2}, {BENCH_WAITING, 1}, {BENCH_PAGE_USE, 0.5}}},
        {BENCH_ATOM,
         "atom:requests_running 2\natom:prefix_cache_cached_tokens_total 30\n"
         "atom:prefix_cache_full_tokens_total 60\n"
         "atom:mtp_decode_steps_total{accepted_tokens=\"0\"} 4\n"
         "atom:mtp_decode_steps_total{accepted_tokens=\"3\"} 6\n"
         "atom:mtp_accepted_tokens_total 18\n",
         {{BENCH_HIT_TOKENS, 30}, {BENCH_DRAFTS, 10}, {BENCH_ACCEPTED, 18}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bench_figures f = read_figures(cases[i].page);
        assert_int_equal(f.engine, cases[i].engine);
        for (size_t k = 0; k < 6 && cases[i].of[k].value > 0; k++) {
            assert_true(f.of[cases[i].of[k].figure] == cases[i].of[k].value);
        }
    }
}

static void test_names_with_underscores_and_values_that_cannot_be(void **state)
{
    (void)state;
    const bench_figures f = read_figures("vllm_num_requests_running 3\n"
                                         "vllm:num_requests_waiting NaN\n"
                                         "vllm:generation_tokens_total -5\n"
                                         "vllm:num_preemptions_total +Inf\n");
    assert_int_equal(f.engine, BENCH_VLLM);
    assert_true(f.of[BENCH_RUNNING] == 3 && isnan(f.of[BENCH_WAITING]));
    assert_true(isnan(f.of[BENCH_GENERATED]) && isnan(f.of[BENCH_PREEMPTIONS]));
    assert_int_equal(read_figures("<html>\n<body>").engine, BENCH_UNKNOWN);
    assert_int_equal(read_figures("").engine, BENCH_UNKNOWN);
    assert_int_equal(read_figures("up 1\n").engine, BENCH_UNKNOWN);
}

static void test_more_replicas_than_are_kept_apart_are_summed(void **state)
{
    (void)state;
    static char text[64 * 1024];
    size_t len = 0;
    for (int i = 0; i < 500; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len,
                                "vllm:num_requests_running{engine=\"%d\"} 2\n", i);
    }
    assert_true(read_figures(text).of[BENCH_RUNNING] == 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_have_names_labels_and_values),
        cmocka_unit_test(test_labels_are_unescaped_and_cut),
        cmocka_unit_test(test_broken_lines_are_counted_and_passed_over),
        cmocka_unit_test(test_quern_is_known_before_the_names_that_it_shares),
        cmocka_unit_test(test_vllm_by_old_and_new_names_summed_over_engines),
        cmocka_unit_test(test_pages_of_other_engines),
        cmocka_unit_test(test_names_with_underscores_and_values_that_cannot_be),
        cmocka_unit_test(test_more_replicas_than_are_kept_apart_are_summed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
