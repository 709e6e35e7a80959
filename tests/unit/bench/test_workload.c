/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fail_each.h"
#include "workload_world.h"

#include <math.h>

static const bench_workload_options wafer = {.kind = BENCH_WAFER,
                                             .n_prefix = 12000,
                                             .n_input = 8000,
                                             .n_output = 1000,
                                             .n_requests = 12,
                                             .seed = 1,
                                             .salt = 2};

static void free_ids(prompt_ids *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        qn_free(ids[i].ids);
    }
}

/* ---------------------------------------------------------------------------- lengths and sharing
 */

static void test_wafer_shares_exactly_its_prefix(void **state)
{
    prompt_ids ids[4];
    bench_workload_options o = wafer;
    (void)state;
    o.n_requests = 3;
    const bench_made *const made = open_workload(&o);
    assert_int_equal(made->n_input, 60000);
    assert_int_equal(made->n_shared, 36000);
    assert_int_equal(made->n_output, 3000);
    assert_true(made->hit_rate == 0.6);
    for (uint64_t i = 0; i < 3; i++) {
        const bench_call call = first_call(i);
        assert_int_equal(call.id, i);
        assert_int_equal(call.n_prompt, 20000);
        assert_int_equal(call.n_shared, 12000);
        assert_int_equal(call.n_output, 1000);
        ids[i] = ids_of(&call);
        assert_int_equal(ids[i].n, 20000);
    }
    bench_call warm;
    assert_int_equal(bench_workload_n_warm(g_workload), 1);
    bench_workload_warm(g_workload, 0, &warm);
    ids[3] = ids_of(&warm);
    assert_int_equal(warm.n_output, 1);
    assert_int_equal(ids[3].n, warm.n_prompt);
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < i; k++) {
            const size_t n = n_common(ids[i], ids[k]);
            assert_in_range(n, 12000, 12016);
        }
    }
    free_ids(ids, 4);
}

static void test_scales_and_templates_are_exact(void **state)
{
    static const double scales[] = {0.002, 0.013, 0.05, 0.0777, 0.25};
    (void)state;
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        for (uint32_t n_template = 0; n_template < 14; n_template += 13) {
            bench_workload_options o = wafer;
            o.scale = scales[i];
            o.api = n_template > 0 ? BENCH_CHAT : BENCH_COMPLETIONS;
            o.n_template = n_template;
            const uint32_t n_prefix = (uint32_t)lround(12000 * o.scale);
            const uint32_t n_own = (uint32_t)lround(8000 * o.scale);
            const bench_made *const made = open_workload(&o);
            assert_int_equal(made->prefix_tokens, n_prefix);
            assert_int_equal(made->input_tokens, n_own);
            assert_int_equal(made->output_tokens, lround(1000 * o.scale));
            assert_true(made->scale == o.scale);
            for (uint64_t k = 0; k < o.n_requests; k++) {
                const bench_call call = first_call(k);
                const prompt_ids ids = ids_of(&call);
                assert_int_equal(call.n_prompt, n_prefix + n_own);
                assert_int_equal(ids.n, n_prefix + n_own - n_template);
                qn_free(ids.ids);
            }
        }
    }
}

static void test_a_template_longer_than_the_prompt_is_refused(void **state)
{
    bench_workload_options o = wafer;
    (void)state;
    o.scale = 0.001;
    o.n_template = 8;
    assert_refused(&o, QN_E_INVAL, "workload: input tokens: 8, more than the 8");
}

/* 600 own parts of one run and 600 of another: none begins as another does. */
static void test_own_parts_have_nothing_in_common(void **state)
{
    static prompt_ids ids[1200];
    const size_t n_run = sizeof ids / sizeof *ids / 2;
    bench_workload_options o = {
        .kind = BENCH_RANDOM, .n_requests = n_run, .n_input = 40, .n_output = 1};
    size_t most = 0;
    (void)state;
    for (size_t run = 0; run < 2; run++) {
        o.salt = run;
        (void)open_workload(&o);
        for (size_t i = 0; i < n_run; i++) {
            ids[run * n_run + i] = first_ids(i);
            assert_int_equal(ids[run * n_run + i].n, 40);
        }
    }
    for (size_t i = 0; i < 2 * n_run; i++) {
        for (size_t k = 0; k < i; k++) {
            const size_t n = n_common(ids[i], ids[k]);
            most = n > most ? n : most;
        }
    }
    assert_in_range(most, 0, 16);
    free_ids(ids, 2 * n_run);
}

/* Of one run: the first word differs as long as there are such words, then the first two do, and
 * what follows the first sentence always does. */
static void test_own_parts_differ_at_once(void **state)
{
    enum { N = 1500 };
    static char texts[N][300];
    const bench_workload_options o = {
        .kind = BENCH_RANDOM, .n_requests = N, .n_input = 60, .n_output = 1, .seed = 8};
    (void)state;
    (void)open_workload(&o);
    for (size_t i = 0; i < N; i++) {
        const bench_call call = first_call(i);
        json_t *const body = body_of(&call);
        (void)snprintf(texts[i], sizeof texts[i], "%s", text_of(body));
        json_decref(body);
    }
    for (size_t i = 0; i < N; i++) {
        const size_t n_first = strcspn(texts[i], ",") + 1;
        const size_t n_two = n_first + strcspn(texts[i] + n_first, ",");
        const char *const rest = strchr(texts[i], '.');
        assert_non_null(rest);
        for (size_t k = 0; k < i; k++) {
            assert_true(i - k >= 64 || strncmp(texts[i], texts[k], n_first) != 0);
            assert_true(strncmp(texts[i], texts[k], n_two) != 0);
            assert_string_not_equal(rest, strchr(texts[k], '.'));
        }
    }
}

/* A run's warm-up has own parts of its own, and what the run shares: else it warms another cache.
 */
static void test_shared_parts_have_a_salt_of_their_own(void **state)
{
    bench_workload_options o = {.kind = BENCH_WAFER,
                                .n_prefix = 12000,
                                .n_input = 8000,
                                .n_output = 1000,
                                .n_requests = 2,
                                .scale = 0.01,
                                .seed = 4};
    prompt_ids ids[2];
    (void)state;
    for (size_t run = 0; run < 2; run++) {
        o.salt = run;
        o.shared_salt = 9;
        (void)open_workload(&o);
        ids[run] = first_ids(0);
    }
    assert_in_range(n_common(ids[0], ids[1]), 120, 136);
    free_ids(ids, 2);
}

static void test_salt_changes_texts_and_nothing_else(void **state)
{
    bench_workload_options o = {.kind = BENCH_PREFIX,
                                .n_requests = 10,
                                .n_groups = 3,
                                .n_prefix = 30,
                                .n_input = 50,
                                .n_output = 20,
                                .range_ratio = 0.5,
                                .seed = 4};
    bench_call calls[2];
    prompt_ids ids[2][10];
    (void)state;
    for (size_t run = 0; run < 2; run++) {
        o.salt = o.shared_salt = run;
        (void)open_workload(&o);
        calls[run] = first_call(7);
        for (size_t i = 0; i < 10; i++) {
            ids[run][i] = first_ids(i);
        }
    }
    assert_int_equal(calls[0].n_prompt, calls[1].n_prompt);
    assert_int_equal(calls[0].n_output, calls[1].n_output);
    for (size_t i = 0; i < 10; i++) {
        for (size_t k = 0; k < i; k++) { /* the same groups */
            assert_int_equal(n_common(ids[0][i], ids[0][k]) >= 30,
                             n_common(ids[1][i], ids[1][k]) >= 30);
        }
        assert_in_range(n_common(ids[0][i], ids[1][i]), 0, 16);
    }
    free_ids(ids[0], 10);
    free_ids(ids[1], 10);
}

static void test_groups_are_of_one_size_and_shuffled(void **state)
{
    const bench_workload_options o = {.kind = BENCH_PREFIX,
                                      .n_requests = 30,
                                      .n_groups = 3,
                                      .n_prefix = 40,
                                      .n_input = 20,
                                      .n_output = 1,
                                      .seed = 3};
    prompt_ids ids[30];
    size_t n_of[30] = {0};
    size_t n_in_turn = 0;
    (void)state;
    assert_int_equal(open_workload(&o)->n_groups, 3);
    assert_int_equal(bench_workload_n_warm(g_workload), 3);
    for (size_t i = 0; i < 30; i++) {
        ids[i] = first_ids(i);
    }
    for (size_t i = 0; i < 30; i++) {
        size_t k = 0;
        while (k < i && n_common(ids[i], ids[k]) < 40) {
            k++;
        }
        n_of[k]++;
        n_in_turn += i >= 3 && n_common(ids[i], ids[i - 3]) >= 40;
    }
    for (size_t i = 0; i < 30; i++) {
        assert_true(n_of[i] == 0 || n_of[i] == 10);
    }
    assert_in_range(n_in_turn, 0, 20); /* of 27, were they in turn */
    free_ids(ids, 30);
}

/* ------------------------------------------------------------------------------------ the ranges
 */

static void test_range_ratios_mean_what_they_say(void **state)
{
    static const struct {
        bench_range range;
        double ratio;
        uint32_t input[2], output[2];
    } cases[] = {
        {BENCH_RANGE_AROUND, 0.0, {100, 100}, {9, 9}},
        {BENCH_RANGE_AROUND, 0.25, {75, 125}, {6, 12}}, /* floor(6.75), ceil(11.25) */
        {BENCH_RANGE_BELOW, 1.0, {100, 100}, {9, 9}},
        {BENCH_RANGE_BELOW, 0.3, {30, 100}, {2, 9}},
        {BENCH_RANGE_BELOW, 0.0, {1, 100}, {1, 9}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bench_workload_options o = {.kind = BENCH_RANDOM,
                                          .n_requests = 2000,
                                          .n_input = 100,
                                          .n_output = 9,
                                          .range = cases[i].range,
                                          .range_ratio = cases[i].ratio,
                                          .sends_ids = true,
                                          .seed = 1};
        const bench_made *const made = open_workload(&o);
        assert_int_equal(made->min_input, cases[i].input[0]);
        assert_int_equal(made->max_input, cases[i].input[1]);
        assert_int_equal(made->min_output, cases[i].output[0]);
        assert_int_equal(made->max_output, cases[i].output[1]);
        const double mean = (cases[i].input[0] + cases[i].input[1]) / 2.0;
        assert_true(fabs((double)made->n_input / 2000.0 - mean) < 2.5);
        uint64_t n_input = 0;
        for (uint64_t k = 0; k < 2000; k++) {
            n_input += first_call(k).n_prompt;
        }
        assert_int_equal(made->n_input, n_input);
    }
}

/* ----------------------------------------------------------------------------------------- bodies
 */

static const char *dump(const json_t *body, const char *key)
{
    static char text[200];
    char *const json = json_dumps(json_object_get(body, key), JSON_ENCODE_ANY | JSON_COMPACT);
    (void)snprintf(text, sizeof text, "%s", json != NULL ? json : "nothing");
    free(json);
    return text;
}

static void test_bodies_have_what_was_asked_for(void **state)
{
    bench_workload_options o = {.kind = BENCH_RANDOM,
                                .api = BENCH_CHAT,
                                .n_requests = 1,
                                .n_input = 9,
                                .n_output = 5,
                                .ignores_eos = true};
    (void)state;
    (void)open_workload(&o);
    bench_call call = first_call(0);
    assert_true(call.is_exact);
    assert_false(call.keeps_text);
    json_t *body = body_of(&call);
    assert_string_equal(dump(body, "model"), "\"m\\\"1\"");
    assert_string_equal(dump(body, "stream"), "true");
    assert_string_equal(dump(body, "stream_options"), "{\"include_usage\":true}");
    assert_string_equal(dump(body, "ignore_eos"), "true");
    assert_string_equal(dump(body, "max_tokens"), "5");
    assert_string_equal(dump(body, "temperature"), "nothing");
    assert_string_equal(json_string_value(json_object_get(
                            json_array_get(json_object_get(body, "messages"), 0), "role")),
                        "user");
    json_decref(body);
    o.api = BENCH_COMPLETIONS;
    o.ignores_eos = false;
    (void)open_workload(&o);
    call = first_call(0);
    assert_false(call.is_exact);
    body = body_of(&call);
    assert_string_equal(dump(body, "ignore_eos"), "nothing");
    assert_string_equal(dump(body, "messages"), "nothing");
    json_decref(body);
}

static void test_members_of_extra_take_our_places(void **state)
{
    bench_workload_options o = wafer;
    (void)state;
    o.scale = 0.01;
    o.ignores_eos = true;
    o.extra = " {\"model\": \"x\", \"temperature\": 0.5, \"ignore_eos\": false,"
              " \"stream_options\": {\"include_usage\": true, \"y\": [1]},"
              " \"max_completion_tokens\": 33, \"nested\": {\"max_tokens\": 1}} ";
    assert_int_equal(open_workload(&o)->max_output, 33);
    bench_call call = first_call(0);
    assert_int_equal(call.n_output, 33);
    assert_false(call.is_exact);
    json_t *body = body_of(&call);
    assert_string_equal(dump(body, "model"), "\"x\"");
    assert_string_equal(dump(body, "temperature"), "0.5");
    assert_string_equal(dump(body, "ignore_eos"), "false");
    assert_string_equal(dump(body, "stream_options"), "{\"include_usage\":true,\"y\":[1]}");
    assert_string_equal(dump(body, "max_completion_tokens"), "33");
    assert_string_equal(dump(body, "max_tokens"), "nothing");
    assert_string_equal(dump(body, "nested"), "{\"max_tokens\":1}");
    json_decref(body);
    bench_workload_warm(g_workload, 0, &call);
    body = body_of(&call);
    assert_string_equal(dump(body, "max_completion_tokens"), "1");
    json_decref(body);
}

static void test_extra_that_cannot_be_is_refused(void **state)
{
    static const char *const cases[][2] = {
        {"{\"stream\": false}", "extra body: stream: given"},
        {"{\"prompt\": \"x\"}", "extra body: prompt: given"},
        {"{\"messages\": []}", "extra body: messages: given"},
        {"{\"pro\\u006dpt\": 1}", "extra body: prompt: given"},
        {"{\"max_tokens\": 0}", "extra body: max_tokens: 0, one number of tokens"},
        {"{\"max_tokens\": -1}", "extra body: max_tokens: -1"},
        {"{\"max_tokens\": 1.5}", "extra body: max_tokens: 1.5"},
        {"{\"max_tokens\": 2, \"max_completion_tokens\": 3}", "max_completion_tokens: 3, one"},
        {"[1]", "extra body: a list, an object expected"},
        {"{\"a\": 1", "extra body: line 1, column 8"},
        {"{\"a\": 1, \"a\": 2}", "extra body: line 1, column 10"},
    };
    bench_workload_options o = wafer;
    (void)state;
    o.scale = 0.01;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        o.extra = cases[i][0];
        assert_refused(&o, QN_E_INVAL, cases[i][1]);
    }
}

static void test_ids_are_sent_as_ids(void **state)
{
    bench_workload_options o = wafer;
    prompt_ids ids[12];
    bench_call warm;
    (void)state;
    o.scale = 0.01;
    o.sends_ids = true;
    (void)open_workload(&o);
    for (size_t i = 0; i < 12; i++) {
        ids[i] = first_ids(i);
        assert_int_equal(ids[i].n, 200);
        for (size_t k = 0; k < i; k++) {
            assert_int_equal(n_common(ids[i], ids[k]), 120);
        }
        for (size_t k = 0; k < ids[i].n; k++) {
            assert_in_range(ids[i].ids[k], 0, 6111); /* no control token */
        }
    }
    free_ids(ids, 12);
    bench_workload_warm(g_workload, 0, &warm);
    ids[0] = ids_of(&warm);
    assert_int_equal(ids[0].n, 120 + 16);
    qn_free(ids[0].ids);
    o.api = BENCH_CHAT;
    assert_refused(&o, QN_E_INVAL, "workload: ids with the chat API");
}

static void test_options_that_cannot_be_are_refused(void **state)
{
    const bench_workload_options good = {
        .kind = BENCH_RANDOM, .n_requests = 1, .n_input = 5, .n_output = 5};
    bench_workload_options o = good;
    (void)state;
    o.n_requests = 0;
    assert_refused(&o, QN_E_INVAL, "workload: requests: 0, at least 1 expected");
    o.n_requests = 1000001;
    assert_refused(&o, QN_E_INVAL, "workload: requests: 1000001, at most");
    o = good;
    o.n_input = 0;
    assert_refused(&o, QN_E_INVAL, "workload: input tokens: 0");
    o.n_input = UINT32_MAX;
    assert_refused(&o, QN_E_INVAL, "workload: input tokens: 4294967295");
    o = good;
    o.n_output = 0;
    assert_refused(&o, QN_E_INVAL, "workload: output tokens: 0");
    o.n_output = 10001;
    o.scale = 1000.0;
    assert_refused(&o, QN_E_INVAL, "workload: output tokens: 10001, at most 10000000 (scaled)");
    o = good;
    o.scale = -1.0;
    assert_refused(&o, QN_E_INVAL, "workload: scale: -1, above 0");
    o.scale = (double)NAN;
    assert_refused(&o, QN_E_INVAL, "workload: scale: nan");
    o = good;
    o.range_ratio = 1.0;
    assert_refused(&o, QN_E_INVAL, "workload: range ratio: 1, 0 to below 1");
    o.range = BENCH_RANGE_BELOW;
    o.range_ratio = 1.5;
    assert_refused(&o, QN_E_INVAL, "workload: range ratio: 1.5, 0 to 1");
    o = good;
    o.kind = BENCH_MULTI_TURN;
    assert_refused(&o, QN_E_INVAL, "workload: turns: 0");
    o.n_turns = 2;
    o.sends_ids = true;
    assert_refused(&o, QN_E_INVAL, "workload: ids with several turns");
    o = good;
    o.kind = BENCH_TRACE;
    assert_refused(&o, QN_E_INVAL, "workload: no file");
}

static bool stop_at_half(void *context, double share)
{
    double *const last = context;
    assert_true(share >= *last && share <= 1.0);
    *last = share;
    return share < 0.5;
}

static void test_making_may_be_stopped(void **state)
{
    bench_workload_options o = wafer;
    bench_workload *workload = NULL;
    double last = 0.0;
    (void)state;
    o.model = "m";
    o.scale = 0.01;
    assert_int_equal(bench_workload_open(&workload, &o, g_tokens, stop_at_half, &last, &g_err),
                     QN_E_CANCELLED);
    assert_null(workload);
    assert_true(last >= 0.5 && last < 0.7);
}

/* ---------------------------------------------------------------------------------------- turns */

static bench_record answer(const bench_call *call, char *text)
{
    return (bench_record){.call = *call,
                          .end = BENCH_DONE,
                          .has_usage = true,
                          .n_prompt = 100,
                          .n_output = 7,
                          .text = text};
}

static void test_a_conversation_grows_by_its_answers(void **state)
{
    const bench_workload_options o = {.kind = BENCH_MULTI_TURN,
                                      .api = BENCH_CHAT,
                                      .n_requests = 5,
                                      .n_turns = 3,
                                      .n_input = 20,
                                      .n_output = 10,
                                      .n_prefix = 30};
    char said[] = "So \"it\" is:\n\t\\ \xc3\xa9 \x01";
    (void)state;
    const bench_made *const made = open_workload(&o);
    assert_int_equal(made->n_requests, 5);
    assert_int_equal(made->n_conversations, 2);
    assert_int_equal(made->n_input, 2 * 50 + 2 * 80 + 110);
    assert_int_equal(made->n_shared, 2 * 30 + 2 * 60 + 90);
    bench_call call = first_call(0);
    assert_true(call.keeps_text);
    json_t *body = body_of(&call);
    char *const begun = strdup(text_of(body));
    json_decref(body);
    for (size_t turn = 1; turn < 3; turn++) {
        const bench_record record = answer(&call, said);
        assert_true(bench_workload_after(g_workload, &record, &call));
        assert_int_equal(call.id, turn);
        assert_int_equal(call.turn, turn);
        assert_int_equal(call.conversation, 0);
        assert_int_equal(call.n_prompt, 0);
        assert_int_equal(call.n_shared, 107);
        body = body_of(&call);
        const json_t *const messages = json_object_get(body, "messages");
        assert_int_equal(json_array_size(messages), 2 * turn + 1);
        assert_string_equal(text_of(body), begun);
        for (size_t i = 1; i < 2 * turn; i += 2) {
            const json_t *const message = json_array_get(messages, i);
            assert_string_equal(json_string_value(json_object_get(message, "role")), "assistant");
            assert_string_equal(json_string_value(json_object_get(message, "content")), said);
        }
        const char *const asked =
            json_string_value(json_object_get(json_array_get(messages, 2 * turn), "content"));
        uint32_t n = 0;
        assert_int_equal(bench_tokens_count(&n, g_tokens, asked, strlen(asked), NULL), QN_OK);
        assert_int_equal(n, 20);
        assert_string_equal(dump(body, "max_tokens"), "10");
        json_decref(body);
    }
    bench_record record = answer(&call, said);
    assert_false(bench_workload_after(g_workload, &record, &call));
    call = first_call(0); /* once more, from its start */
    body = body_of(&call);
    assert_int_equal(json_array_size(json_object_get(body, "messages")), 1);
    json_decref(body);
    record = answer(&call, said);
    assert_true(bench_workload_after(g_workload, &record, &call));
    call = first_call(0); /* a run that was stopped has left no history */
    record = answer(&call, said);
    assert_true(bench_workload_after(g_workload, &record, &call));
    body = body_of(&call);
    assert_int_equal(json_array_size(json_object_get(body, "messages")), 3);
    json_decref(body);
    call = first_call(1); /* the last has two turns */
    record = answer(&call, said);
    assert_true(bench_workload_after(g_workload, &record, &call));
    record = answer(&call, said);
    assert_false(bench_workload_after(g_workload, &record, &call));
    free(begun);
}

static void test_completions_go_on_as_text(void **state)
{
    const bench_workload_options o = {
        .kind = BENCH_MULTI_TURN, .n_requests = 2, .n_turns = 2, .n_input = 20, .n_output = 10};
    char said[] = " and \"so\" on.";
    (void)state;
    (void)open_workload(&o);
    bench_call call = first_call(0);
    json_t *body = body_of(&call);
    char *const begun = strdup(text_of(body));
    json_decref(body);
    const bench_record record = answer(&call, said);
    assert_true(bench_workload_after(g_workload, &record, &call));
    body = body_of(&call);
    const char *const text = text_of(body);
    assert_memory_equal(text, begun, strlen(begun));
    assert_memory_equal(text + strlen(begun), said, strlen(said));
    assert_int_equal(text[strlen(begun) + strlen(said)], ' ');
    json_decref(body);
    free(begun);
}

static void test_a_failed_turn_ends_its_conversation(void **state)
{
    const bench_workload_options o = {
        .kind = BENCH_MULTI_TURN, .n_requests = 3, .n_turns = 3, .n_input = 20, .n_output = 10};
    char said[] = "x";
    (void)state;
    (void)open_workload(&o);
    bench_call call = first_call(0);
    bench_record record = answer(&call, said);
    record.end = BENCH_CUT;
    assert_false(bench_workload_after(g_workload, &record, &call));
    record = answer(&call, NULL);
    assert_false(bench_workload_after(g_workload, &record, &call));
    bench_workload_options other = wafer;
    other.scale = 0.01;
    (void)open_workload(&other); /* without turns */
    call = first_call(0);
    record = answer(&call, said);
    assert_false(bench_workload_after(g_workload, &record, &call));
}

/* ----------------------------------------------------------------------------------------- memory
 */

static qn_status open_small(qn_error *err)
{
    const bench_workload_options o = {.kind = BENCH_MULTI_TURN,
                                      .model = "m",
                                      .n_requests = 2,
                                      .n_turns = 2,
                                      .n_input = 20,
                                      .n_output = 2,
                                      .n_prefix = 20,
                                      .scale = 1.0,
                                      .extra = "{\"temperature\": 1}"};
    bench_workload *workload = NULL;
    const qn_status status = bench_workload_open(&workload, &o, g_tokens, NULL, NULL, err);
    bench_workload_close(&workload);
    return status;
}

static void test_no_memory_is_an_error(void **state)
{
    (void)state;
    fail_each(open_small, 31, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wafer_shares_exactly_its_prefix),
        cmocka_unit_test(test_scales_and_templates_are_exact),
        cmocka_unit_test(test_a_template_longer_than_the_prompt_is_refused),
        cmocka_unit_test(test_own_parts_have_nothing_in_common),
        cmocka_unit_test(test_own_parts_differ_at_once),
        cmocka_unit_test(test_shared_parts_have_a_salt_of_their_own),
        cmocka_unit_test(test_salt_changes_texts_and_nothing_else),
        cmocka_unit_test(test_groups_are_of_one_size_and_shuffled),
        cmocka_unit_test(test_range_ratios_mean_what_they_say),
        cmocka_unit_test(test_bodies_have_what_was_asked_for),
        cmocka_unit_test(test_members_of_extra_take_our_places),
        cmocka_unit_test(test_extra_that_cannot_be_is_refused),
        cmocka_unit_test(test_ids_are_sent_as_ids),
        cmocka_unit_test(test_options_that_cannot_be_are_refused),
        cmocka_unit_test(test_making_may_be_stopped),
        cmocka_unit_test(test_a_conversation_grows_by_its_answers),
        cmocka_unit_test(test_completions_go_on_as_text),
        cmocka_unit_test(test_a_failed_turn_ends_its_conversation),
        cmocka_unit_test(test_no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
