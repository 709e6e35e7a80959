/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests with biases, least tokens and penalties on an emulated GPU: their tokens are those of a
 * sequence alone, which a sampler of the host draws, whatever happens around them; and the host
 * waits for nothing.  With a name for --device as its argument on that, without failures.
 */
#include "engine/executor_gpu.h"
#include "gpuengine/requests.h"

#include <math.h>

enum { BIASED, STOPPED, PENALISED, ALL, DRAFTED, N_KINDS, N_STARVED = 2, STOP = 7 };

/* Some up, one of them twice, and tokens that may not be. */
static const qn_logit_bias biases[] = {{3, 0.75F}, {90, 0.5F},      {3, 0.25F}, {41, -INFINITY},
                                       {12, 0.9F}, {17, -INFINITY}, {60, 0.4F}};
/* The stop id is what is drawn as soon as it may be. */
static const qn_logit_bias to_the_end[] = {{STOP, 50.0F}, {20, 1.0F}};
/* What the MTP layer of this model likes: some drafts are right. */
static const qn_logit_bias liked[] = {{71, 8.0F}, {31, 8.0F}, {76, 8.0F}, {14, 8.0F}, {93, 8.0F}};
static const int32_t stop_ids[] = {41, STOP};

static const qn_sampling samplings[N_KINDS] = {
    [BIASED] = {.top_p = 1.0F, .repetition_penalty = 1.0F, .n_logit_bias = 7, .logit_bias = biases},
    [STOPPED] = {.top_p = 1.0F,
                 .repetition_penalty = 1.0F,
                 .n_logit_bias = 2,
                 .logit_bias = to_the_end},
    [PENALISED] = {.temperature = 0.7F,
                   .top_p = 1.0F,
                   .repetition_penalty = 1.3F,
                   .presence_penalty = 0.4F,
                   .frequency_penalty = 0.5F,
                   .seed = 11},
    [ALL] = {.temperature = 0.9F,
             .top_p = 0.95F,
             .repetition_penalty = 0.9F,
             .presence_penalty = -0.2F,
             .frequency_penalty = -0.3F,
             .n_logit_bias = 7,
             .logit_bias = biases,
             .seed = 12},
    [DRAFTED] = {.top_p = 1.0F,
                 .repetition_penalty = 1.01F,
                 .presence_penalty = 0.1F,
                 .frequency_penalty = 0.2F,
                 .n_logit_bias = 5,
                 .logit_bias = liked},
};

static int32_t g_ids[N_KINDS + N_STARVED][N_IDS_MAX];

/* The prompts of @p i from N_KINDS on are others, for ALL that is asked for. */
static qn_runner_request request_of(uint32_t i, seen *to)
{
    static const uint32_t lengths[N_KINDS] = {9, 5, 66, 56, 30};
    static const uint32_t n_most[N_KINDS] = {6, 12, 6, 16, 20};
    static const uint32_t n_least[N_KINDS] = {[STOPPED] = 6, [ALL] = 12};
    const uint32_t kind = i < N_KINDS ? i : ALL;
    for (uint32_t k = 0; k < lengths[kind]; k++) {
        g_ids[i][k] = tiny_token((int32_t)i, (int32_t)k) % N_VOCAB;
    }
    return (qn_runner_request){.ids = g_ids[i],
                               .n_ids = lengths[kind],
                               .sampling = &samplings[kind],
                               .max_tokens = n_most[kind],
                               .min_tokens = n_least[kind],
                               .stop_ids = stop_ids,
                               .n_stop_ids = n_least[kind] > 0 ? 2 : 0,
                               .draft_tokens = kind == DRAFTED ? 3 : 2,
                               .user = to};
}

static void submit(qn_runner *runner, uint32_t i, seen *to)
{
    qn_request_id id = 0;
    qn_error err = {0};
    const qn_runner_request request = request_of(i, to);
    *to = (seen){0};
    assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
}

static void run_to_end(qn_runner *runner)
{
    for (uint32_t i = 0; qn_runner_step(runner, &sink) != QN_AGAIN; i++) {
        assert_true(i < 1000);
    }
}

static seen g_expected[N_KINDS + N_STARVED];

static void expect(uint32_t i)
{
    const qn_runner_request request = request_of(i, NULL);
    answer(&g_expected[i], &request);
    if (i == STOPPED) {
        assert_int_equal(g_expected[i].n_ids, request.min_tokens + 1);
        assert_int_equal(g_expected[i].ids[request.min_tokens], STOP);
    }
}

static void check(const seen *s, uint32_t i)
{
    const seen *const expected = &g_expected[i];
    const bool is_stopped = expected->ids[expected->n_ids - 1] == STOP;
    assert_int_equal(s->n_ends, 1);
    assert_int_equal(s->reason, is_stopped ? QN_SCHED_END_STOP : QN_SCHED_END_LENGTH);
    assert_int_equal(s->n_ids, expected->n_ids);
    assert_memory_equal(s->ids, expected->ids, s->n_ids * sizeof *s->ids);
}

/* With lag by graphs, without lag kernel by kernel. */
static void test_adjusted_draws_what_a_sampler_draws(void **state)
{
    (void)state;
    static seen all[N_KINDS];
    for (uint32_t kind = 0; kind < N_KINDS; kind++) {
        expect(kind);
    }
    for (uint32_t lag = 0; lag < 2; lag++) {
        const qn_runner_options options = runner_options(lag, lag == 0);
        qn_runner *runner = open_runner_of(&options);
        for (uint32_t kind = 0; kind < N_KINDS; kind++) {
            submit(runner, kind, &all[kind]);
            (void)!qn_runner_step(runner, &sink); /* the first are ahead */
        }
        run_to_end(runner);
        for (uint32_t kind = 0; kind < N_KINDS; kind++) {
            check(&all[kind], kind);
        }
        assert_true(all[DRAFTED].stats.n_accepted > 0);
        submit(runner, PENALISED, &all[PENALISED]); /* behind a page of the first time */
        run_to_end(runner);
        check(&all[PENALISED], PENALISED);
        assert_int_equal(all[PENALISED].stats.n_cached_tokens, QN_PAGE_TOKENS);
        qn_runner_close(&runner);
    }
}

/* Drafts that are taken unseen are counted before what is drawn behind them. */
static void test_adjusted_counts_drafts_that_are_taken_unseen(void **state)
{
    (void)state;
    seen expected;
    seen got = {0};
    const qn_runner_options options = runner_options(1, false);
    qn_runner *runner = open_runner_of(&options);
    qn_request_id id = 0;
    qn_error err = {0};
    qn_runner_request request = request_of(PENALISED, &got);
    request.n_ids = 12;
    request.max_tokens = 14;
    request.draft_tokens = 3;
    request.acceptance_length = 2.4F;
    answer(&expected, &request);
    assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
    run_to_end(runner);
    /* Where the end is near, fewer drafts are made and taken. */
    assert_memory_equal(got.ids, expected.ids, 9 * sizeof(int32_t));
    assert_true(got.stats.n_accepted >= 5);
    qn_runner_close(&runner);
}

/* Nothing in a step, its draws included, is for the host to wait for. */
static void test_adjusted_steps_are_not_waited_for(void **state)
{
    (void)state;
    static seen all[N_KINDS];
    const qn_runner_options options = runner_options(1, false);
    qn_runner *runner = open_runner_of(&options);
    expect(BIASED);
    expect(STOPPED);
    fake_gpu.keeps_calls = true;
    const uint32_t n_waits = count_calls("stream_wait");
    submit(runner, BIASED, &all[BIASED]);
    submit(runner, STOPPED, &all[STOPPED]);
    run_to_end(runner);
    check(&all[BIASED], BIASED);
    check(&all[STOPPED], STOPPED);
    assert_int_equal(count_calls("stream_wait"), n_waits);
    assert_true(count_calls("graph_launch") > 0);
    fake_gpu.keeps_calls = false;
    qn_runner_close(&runner);
}

/* More rows than are drawn at once, of two requests in turn. */
static void test_adjusted_draws_of_many_rows(void **state)
{
    (void)state;
    enum { N_MANY = 16, N_TAKEN = 3 };
    _Static_assert((int)N_MANY * (int)QN_STEP_TOKENS_MAX > (int)QN_SAMPLE_ROWS, "they do not fit");
    static seen all[N_MANY];
    seen expected[2];
    qn_request_id id = 0;
    qn_error err = {0};
    assert_int_equal(qn_glm_reserve(g_t.glm, N_MANY * QN_STEP_TOKENS_MAX, &err), QN_OK);
    qn_runner_options options = runner_options(0, true);
    options.executor.n_slots = options.executor.n_pages = options.n_queue = N_MANY;
    options.executor.n_step_rows = N_MANY * QN_STEP_TOKENS_MAX;
    qn_runner *runner = open_runner_of(&options);
    for (uint32_t i = 0; i < N_MANY; i++) {
        qn_runner_request request = request_of(i % 2 == 0 ? DRAFTED : PENALISED, &all[i]);
        request.n_ids = 3;
        request.max_tokens = 12;
        request.draft_tokens = QN_DRAFT_TOKENS_MAX;
        all[i] = (seen){0};
        if (i < 2) {
            answer(&expected[i], &request);
        }
        assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
    }
    while (all[N_MANY - 1].n_ids < N_TAKEN) {
        assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
    }
    assert_true(qn_runner_count(runner).n_drafted >= 2 * N_MANY * QN_DRAFT_TOKENS_MAX);
    for (uint32_t i = 0; i < N_MANY; i++) {
        assert_memory_equal(all[i].ids, expected[i % 2].ids, N_TAKEN * sizeof(int32_t));
    }
    qn_runner_close(&runner);
}

/* ---------------------------------------------------------------------------------- failures */

/* One gives its pages back to another that matters more, and goes on behind the first of them. */
static void test_adjusted_goes_on_where_it_gave_its_pages_back(void **state)
{
    (void)state;
    static seen all[N_STARVED];
    qn_request_id id = 0;
    qn_error err = {0};
    qn_runner_options options = runner_options(1, false);
    options.executor.n_pages = 3;
    qn_runner *runner = open_runner_of(&options);
    for (uint32_t i = 0; i < N_STARVED; i++) {
        expect(N_KINDS + i);
    }
    submit(runner, N_KINDS, &all[0]);
    while (all[0].n_ids < 10) {
        assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
    }
    qn_runner_request request = request_of(N_KINDS + 1, &all[1]);
    request.priority = 1;
    assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
    run_to_end(runner);
    for (uint32_t i = 0; i < N_STARVED; i++) {
        check(&all[i], N_KINDS + i);
    }
    /* Less than a prompt was computed again: the page before holds tokens of the answer. */
    assert_int_equal(qn_runner_count(runner).n_preempted, 1);
    assert_in_range(qn_runner_count(runner).n_recomputed_tokens, 1, QN_PAGE_TOKENS / 2);
    qn_runner_close(&runner);
}

/* A step fails: what began with it and was not of it is told to the device again. */
static void test_adjusted_is_right_behind_a_step_that_failed(void **state)
{
    static const char *const calls[] = {"launch", "upload", "graph_launch", "download"};
    static seen all[N_KINDS];
    (void)state;
    uint32_t n_failed = 0;
    expect(BIASED);
    expect(STOPPED);
    const qn_runner_options options = runner_options(1, false);
    qn_runner *runner = open_runner_of(&options);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (size_t n = 0; n < 5; n += 2) {
            submit(runner, STOPPED, &all[STOPPED]);
            fake_gpu_fail(calls[i], n, FAKE_GPU_INVALID);
            assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
            submit(runner, BIASED, &all[BIASED]);
            run_to_end(runner);
            fake_gpu_fail(calls[i], SIZE_MAX, 0);
            for (uint32_t kind = BIASED; kind <= STOPPED; kind++) {
                const bool has_failed = all[kind].reason == QN_SCHED_END_ERROR;
                n_failed += has_failed ? 1 : 0;
                if (!has_failed) {
                    check(&all[kind], kind);
                }
            }
        }
    }
    assert_true(n_failed >= 8);
    qn_runner_close(&runner);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, open_model, close_model)

int main(int argc, char **argv)
{
    const struct CMUnitTest on_device[] = {
        TEST(test_adjusted_draws_what_a_sampler_draws),
        TEST(test_adjusted_counts_drafts_that_are_taken_unseen),
        TEST(test_adjusted_draws_of_many_rows),
    };
    const struct CMUnitTest emulated[] = {
        TEST(test_adjusted_draws_what_a_sampler_draws),
        TEST(test_adjusted_counts_drafts_that_are_taken_unseen),
        TEST(test_adjusted_draws_of_many_rows),
        TEST(test_adjusted_steps_are_not_waited_for),
        TEST(test_adjusted_is_right_behind_a_step_that_failed),
        TEST(test_adjusted_goes_on_where_it_gave_its_pages_back),
    };
    if (argc > 1) {
        g_device_name = argv[1];
        return cmocka_run_group_tests(on_device, NULL, NULL);
    }
    return cmocka_run_group_tests(emulated, NULL, NULL);
}
