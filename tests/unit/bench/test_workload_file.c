/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fail_each.h"
#include "workload_world.h"

#include <math.h>
#include <unistd.h>

static char g_path[64];

static void write_file(const char *text)
{
    (void)snprintf(g_path, sizeof g_path, "/tmp/quern-workload-%d", (int)getpid());
    FILE *const file = fopen(g_path, "w");
    assert_non_null(file);
    assert_int_equal(fputs(text, file) >= 0, 1);
    assert_int_equal(fclose(file), 0);
}

static int remove_file(void **state)
{
    (void)remove(g_path);
    return close_world(state);
}

static void assert_prompt(uint64_t i, const char *expected)
{
    const bench_call call = first_call(i);
    json_t *const body = body_of(&call);
    assert_string_equal(text_of(body), expected);
    json_decref(body);
}

/* ------------------------------------------------------------------------------------------ lines
 */

static void test_lines_are_sent_as_they_are(void **state)
{
    const bench_workload_options o = {
        .kind = BENCH_CUSTOM, .file = g_path, .n_output = 9, .n_template = 2};
    uint32_t n = 0;
    (void)state;
    write_file("{\"prompt\": \"The \\u00e9 \\\"river\\\".\", \"output_tokens\": 5}\r\n\n"
               "{\"ids\": [5, 6 ,7]}\n");
    const bench_made *const made = open_workload(&o);
    assert_int_equal(made->n_requests, 2);
    assert_int_equal(made->n_output, 14);
    assert_false(made->has_times);
    assert_prompt(0, "The \xc3\xa9 \"river\".");
    assert_int_equal(bench_tokens_count(&n, g_tokens, "The \xc3\xa9 \"river\".", 15, NULL), QN_OK);
    assert_int_equal(first_call(0).n_prompt, n + 2);
    assert_int_equal(first_call(0).n_output, 5);
    assert_int_equal(first_call(1).n_prompt, 3);
    assert_int_equal(first_call(1).n_output, 9);
    const prompt_ids ids = first_ids(1);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.ids[2], 7);
    free(ids.ids);
    assert_int_equal(bench_workload_n_warm(g_workload), 0);
}

static void test_messages_are_sent_as_they_are(void **state)
{
    const bench_workload_options o = {.kind = BENCH_CUSTOM, .api = BENCH_CHAT, .file = g_path};
    (void)state;
    write_file("{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
               "\"content\": \"u\"}]}\n{\"prompt\": \"The river.\"}");
    assert_int_equal(open_workload(&o)->n_unknown, 1);
    const bench_call call = first_call(0);
    assert_int_equal(call.n_prompt, 0);
    assert_int_equal(call.n_output, 0);
    assert_false(call.is_exact);
    json_t *const body = body_of(&call);
    assert_int_equal(json_array_size(json_object_get(body, "messages")), 2);
    assert_null(json_object_get(body, "max_tokens"));
    json_decref(body);
    assert_prompt(1, "The river.");
}

static void test_lines_that_do_not_fit_are_refused(void **state)
{
    bench_workload_options o = {.kind = BENCH_CUSTOM, .file = g_path};
    (void)state;
    write_file("{\"prompt\": \"a\"}\n{\"messages\": [{}]}\n");
    assert_refused(&o, QN_E_INVAL, ": line 2: messages: with /v1/completions, a prompt expected");
    o.n_requests = 1;
    (void)open_workload(&o);
    o.n_requests = 3;
    assert_refused(&o, QN_E_INVAL, ": 2 requests that can be used, 3 expected");
    o.api = BENCH_CHAT;
    o.takes_fewer = true;
    assert_int_equal(open_workload(&o)->n_requests, 2);
    o.api = BENCH_COMPLETIONS;
    o.takes_fewer = false;
    o.n_requests = 1;
    o.scale = 0.5;
    assert_refused(&o, QN_E_INVAL, ": line 1: prompt: with a scale");
    write_file("{\"ids\": [1]}\n");
    o.scale = 1.0;
    o.api = BENCH_CHAT;
    assert_refused(&o, QN_E_INVAL, ": line 1: ids: with the chat API, a text");
    write_file("{\"input_length\": 5, \"output_length\": 10001}\n");
    o.scale = 1000.0;
    assert_refused(&o, QN_E_INVAL, ": line 1: input_length: scaled, at most 10000000");
    o.scale = 1.0;
    write_file("{\"prompt\": \n");
    assert_refused(&o, QN_E_FORMAT, ": line 1, column ");
    o.file = "/nowhere/at/all";
    assert_refused(&o, QN_E_NOT_FOUND, "/nowhere/at/all");
}

/* ---------------------------------------------------------------------------------------- ShareGPT
 */

/* Conversations whose questions have 1, 2, 3 ... words; answers likewise. */
static void write_conversations(uint32_t n, const char *answer)
{
    qn_buf text;
    qn_buf_init(&text, 1 << 24);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(
            qn_buf_append_printf(&text, NULL,
                                 "%s{\"conversations\": [{\"from\": \"human\", \"value\": \"%u",
                                 i == 0 ? "[" : ",\n", i),
            QN_OK);
        for (uint32_t k = 0; k < i; k++) {
            assert_int_equal(qn_buf_append(&text, " the", 4, NULL), QN_OK);
        }
        assert_int_equal(qn_buf_append_printf(
                             &text, NULL, "\"}, {\"from\": \"gpt\", \"value\": \"%s\"}]}", answer),
                         QN_OK);
    }
    assert_int_equal(qn_buf_append(&text, "]", 1, NULL), QN_OK);
    write_file(text.ptr);
    qn_buf_deinit(&text);
}

static void test_sharegpt_is_sampled_and_filtered(void **state)
{
    bench_workload_options o = {.kind = BENCH_SHAREGPT, .file = g_path, .seed = 1};
    char first[2][64];
    (void)state;
    write_conversations(40, "The river the river.");
    const bench_made *const made = open_workload(&o);
    assert_int_equal(made->n_requests + made->n_skipped, 40);
    assert_int_equal(made->n_skipped, 3); /* of 1, 2 and 3 tokens */
    assert_int_equal(made->min_input, 4);
    assert_int_equal(made->min_output, made->max_output);
    assert_true(made->min_output >= 5);
    o.n_requests = 20;
    for (uint64_t seed = 0; seed < 2; seed++) {
        o.seed = seed;
        assert_int_equal(open_workload(&o)->n_requests, 20);
        const bench_call call = first_call(0);
        json_t *const body = body_of(&call);
        (void)snprintf(first[seed], sizeof first[seed], "%s", text_of(body));
        json_decref(body);
    }
    assert_string_not_equal(first[0], first[1]);
    o.n_requests = 38;
    assert_refused(&o, QN_E_INVAL, ": 37 requests that can be used, 38 expected");
    o.n_requests = 41;
    assert_refused(&o, QN_E_INVAL, ": 40 requests that can be used, 41 expected");
    o.takes_fewer = true;
    assert_int_equal(open_workload(&o)->n_requests, 37);
}

static void test_long_questions_are_skipped(void **state)
{
    const bench_workload_options o = {.kind = BENCH_SHAREGPT, .file = g_path};
    (void)state;
    write_conversations(1040, "The river the river.");
    assert_int_equal(open_workload(&o)->max_input, 1024);
}

static void test_short_answers_are_skipped_unless_a_length_is_asked_for(void **state)
{
    bench_workload_options o = {.kind = BENCH_SHAREGPT, .file = g_path};
    (void)state;
    write_conversations(10, "No.");
    assert_refused(&o, QN_E_INVAL, ": 0 requests that can be used, 1 expected");
    o.n_output = 3;
    assert_int_equal(open_workload(&o)->n_output, 3 * 7);
    o.n_output = 2041; /* with 7 tokens it is 2,048 */
    assert_int_equal(open_workload(&o)->max_input, 7);
}

/* ------------------------------------------------------------------------------------------ traces
 */

static const char trace[] =
    "{\"timestamp\": 100, \"input_length\": 1300, \"output_length\": 52, \"hash_ids\": [1, 2, 3]}\n"
    "{\"timestamp\": 1100, \"input_length\": 1600, \"output_length\": 8, \"hash_ids\": [1, 2, 4]}\n"
    "{\"timestamp\": 1600, \"input_length\": 700, \"output_length\": 8, \"hash_ids\": [5, 2]}\n"
    "{\"timestamp\": 1600, \"input_length\": 90, \"output_length\": 8}\n"
    "{\"timestamp\": 1600, \"input_length\": 1024, \"output_length\": 8, \"hash_ids\": [6, 2]}\n";

static void test_a_trace_shares_its_blocks(void **state)
{
    const bench_workload_options o = {.kind = BENCH_TRACE, .file = g_path};
    static const uint32_t n_prompt[] = {1300, 1600, 700, 90, 1024};
    static const uint32_t n_shared[] = {0, 1024, 0, 0, 0}; /* a block is shared at its place */
    static const double at[] = {0.0, 1.0, 1.5, 1.5, 1.5};
    prompt_ids ids[5];
    (void)state;
    write_file(trace);
    const bench_made *const made = open_workload(&o);
    assert_true(made->has_times);
    assert_int_equal(made->n_input, 4714);
    assert_int_equal(made->n_shared, 1024);
    for (uint64_t i = 0; i < 5; i++) {
        bench_call call;
        double at_s = 0.0;
        assert_int_equal(bench_workload_first(g_workload, i, &call, &at_s), QN_OK);
        assert_true(fabs(at_s - at[i]) < 1e-9);
        ids[i] = ids_of(&call);
        free(call.owned);
        assert_int_equal(ids[i].n, n_prompt[i]);
        assert_int_equal(call.n_prompt, n_prompt[i]);
        assert_int_equal(call.n_shared, n_shared[i]);
    }
    assert_in_range(n_common(ids[0], ids[1]), 1024, 1040);
    assert_in_range(n_common(ids[0], ids[2]), 0, 16);
    /* Block 2 stands in the third too, in part: the same text until near its end. */
    assert_memory_equal(ids[2].ids + 512, ids[0].ids + 512, 100 * sizeof *ids[0].ids);
    assert_memory_equal(ids[4].ids + 512, ids[0].ids + 512, 512 * sizeof *ids[0].ids);
    for (size_t i = 0; i < 5; i++) {
        qn_free(ids[i].ids);
    }
}

static void test_a_trace_scales(void **state)
{
    bench_workload_options o = {.kind = BENCH_TRACE, .file = g_path, .scale = 0.05};
    (void)state;
    write_file(trace);
    for (uint32_t n_template = 0; n_template < 12; n_template += 11) {
        static const uint32_t n_prompt[] = {65, 80, 35, 12};
        static const uint32_t n_output[] = {3, 1, 1, 1};
        o.n_template = n_template;
        o.api = n_template > 0 ? BENCH_CHAT : BENCH_COMPLETIONS;
        (void)open_workload(&o);
        for (uint64_t i = 0; i < 3; i++) {
            bench_call call = first_call(i);
            const prompt_ids ids = ids_of(&call);
            assert_int_equal(call.n_prompt, n_prompt[i]);
            assert_int_equal(ids.n, n_prompt[i] - n_template);
            assert_int_equal(call.n_output, n_output[i]);
            qn_free(ids.ids);
            free(call.owned);
        }
        assert_int_equal(first_call(3).n_prompt, n_template > 0 ? 12 : 5);
    }
}

static void test_a_trace_of_ids(void **state)
{
    const bench_workload_options o = {.kind = BENCH_TRACE, .file = g_path, .sends_ids = true};
    prompt_ids ids[2];
    (void)state;
    write_file(trace);
    (void)open_workload(&o);
    for (uint64_t i = 0; i < 2; i++) {
        ids[i] = first_ids(i);
    }
    assert_int_equal(ids[0].n, 1300);
    assert_int_equal(n_common(ids[0], ids[1]), 1024);
    free(ids[0].ids);
    free(ids[1].ids);
}

static void test_a_trace_may_have_prompts(void **state)
{
    const bench_workload_options o = {.kind = BENCH_TRACE, .file = g_path};
    (void)state;
    write_file("{\"timestamp\": 7, \"prompt\": \"The river.\", \"output_length\": 3}\n");
    (void)open_workload(&o);
    assert_prompt(0, "The river.");
}

static qn_status open_trace(qn_error *err)
{
    const bench_workload_options o = {
        .kind = BENCH_TRACE, .model = "m", .file = g_path, .scale = 0.02};
    bench_workload *workload = NULL;
    const qn_status status = bench_workload_open(&workload, &o, g_tokens, NULL, NULL, err);
    bench_workload_close(&workload);
    return status;
}

static void test_no_memory_is_an_error(void **state)
{
    (void)state;
    write_file(trace);
    fail_each(open_trace, 31, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_sent_as_they_are),
        cmocka_unit_test(test_messages_are_sent_as_they_are),
        cmocka_unit_test(test_lines_that_do_not_fit_are_refused),
        cmocka_unit_test(test_sharegpt_is_sampled_and_filtered),
        cmocka_unit_test(test_long_questions_are_skipped),
        cmocka_unit_test(test_short_answers_are_skipped_unless_a_length_is_asked_for),
        cmocka_unit_test(test_a_trace_shares_its_blocks),
        cmocka_unit_test(test_a_trace_scales),
        cmocka_unit_test(test_a_trace_of_ids),
        cmocka_unit_test(test_a_trace_may_have_prompts),
        cmocka_unit_test(test_no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, open_world, remove_file);
}
