/* SPDX-License-Identifier: Apache-2.0 */
/* What a runner tells of requests, in which order, and that its steps allocate nothing. */
#include "engine/generator.h"
#include "engine/runner.h"
#include "support/fail_each.h"
#include "unit/model/fixture.h"

enum { N_MAX = 256, N_REQUESTS = 6, N_PROMPT = 125 };

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};
static const qn_logit_bias bias[] = {{.token = 3, .bias = 0.25F}, {.token = 9, .bias = -0.5F}};
static const qn_sampling drawn = {.temperature = 1.0F,
                                  .top_p = 0.9F,
                                  .repetition_penalty = 1.1F,
                                  .n_logit_bias = 2,
                                  .logit_bias = bias,
                                  .seed = 11};

static uint32_t g_lag;
static bool g_wants_logits; /* steps with a request that wants some are collected at once */

/* What was told of one request. */
typedef struct seen {
    int32_t ids[N_MAX]; /* drawn */
    float logit_of[N_MAX];
    float row_logit_of[N_MAX]; /* of the prompt's rows: that of the token behind */
    uint32_t n_ids;
    uint32_t n_rows;
    uint32_t n_prompt;
    uint32_t n_ids_max; /* the answer ends with this one; 0: it does not */
    bool is_stopped;    /* by a stop id */
    uint32_t n_ends;
    qn_sched_end_reason reason;
    qn_session_stats stats;
    qn_error error;
} seen;

static void see_rows(void *context, void *user, uint32_t position, uint32_t n_rows,
                     const int32_t *ids, const float *logits, const qn_sampler *sampler)
{
    seen *const s = user;
    (void)context;
    assert_non_null(sampler);
    assert_int_equal(position, s->n_rows); /* none left out, none twice */
    assert_true(position + n_rows <= s->n_prompt);
    for (uint32_t i = 0; i < n_rows && position + i + 1 < s->n_prompt; i++) {
        s->row_logit_of[position + i] = logits[(size_t)i * VOCAB + (size_t)ids[i + 1]];
    }
    s->n_rows += n_rows;
}

static bool see_token(void *context, void *user, int32_t token, uint32_t position,
                      const float *logits, const qn_sampler *sampler, bool is_stop)
{
    seen *const s = user;
    (void)context;
    assert_non_null(sampler);
    assert_false(s->is_stopped);
    assert_int_equal(s->n_ends, 0);
    assert_true(s->n_ids_max == 0 || s->n_ids < s->n_ids_max);
    assert_int_equal(position, s->n_prompt + s->n_ids);
    assert_int_equal(logits != NULL, g_wants_logits);
    s->logit_of[s->n_ids] = g_wants_logits ? logits[token] : 0.0F;
    s->ids[s->n_ids++] = token;
    s->is_stopped = is_stop;
    return s->n_ids != s->n_ids_max;
}

static void see_end(void *context, void *user, qn_sched_end_reason reason,
                    const qn_session_stats *stats, const qn_error *error)
{
    seen *const s = user;
    (void)context;
    s->n_ends++;
    s->reason = reason;
    s->stats = *stats;
    assert_int_equal(error != NULL, reason == QN_SCHED_END_ERROR);
    s->error = error != NULL ? *error : (qn_error){0};
}

static const qn_runner_sink sink = {.rows = see_rows, .token = see_token, .end = see_end};

static tiny g_t;
static int32_t g_prompts[N_REQUESTS][N_PROMPT];
static seen g_seen[N_REQUESTS];

static qn_runner_options options_of(uint32_t n_pages)
{
    return (qn_runner_options){.executor = {.kernels = &g_t.kernels,
                                            .pool = g_t.pool,
                                            .kv_dtype = QN_KV_F32,
                                            .n_slots = 4,
                                            .n_pages = n_pages,
                                            .n_step_rows = 68,
                                            .n_context = N_MAX,
                                            .lag = g_lag,
                                            .with_mtp = true,
                                            .checks_pages = true},
                               .n_queue = 8,
                               .hash_seed = 1,
                               .has_prefix_tree = true};
}

static int open_model(void **state)
{
    (void)state;
    tiny_open(&g_t, 2, 512, QN_KV_F32);
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        for (int32_t k = 0; k < N_PROMPT; k++) {
            g_prompts[i][k] = tiny_token(k < 70 ? i % 2 : i, k);
        }
    }
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    tiny_close(&g_t);
    return 0;
}

static qn_runner *open_runner(uint32_t n_pages)
{
    qn_runner *runner = NULL;
    qn_error err = {0};
    const qn_runner_options options = options_of(n_pages);
    if (qn_runner_open(&runner, g_t.glm, &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    return runner;
}

static qn_runner_request request_of(uint32_t i)
{
    return (qn_runner_request){.ids = g_prompts[i],
                               .n_ids = N_PROMPT - i,
                               .sampling = i % 2 == 0 ? &greedy : &drawn,
                               .max_tokens = 20 + i,
                               .draft_tokens = (int)(i % 4) * 2,
                               .wants_logits = g_wants_logits,
                               .wants_prompt_logits = g_wants_logits && i == 3};
}

static qn_request_id submit(qn_runner *runner, uint32_t i, const qn_runner_request *request)
{
    qn_request_id id = 0;
    qn_error err = {0};
    qn_runner_request with_user = *request;
    const uint32_t n_ids_max = g_seen[i].n_ids_max;
    g_seen[i] = (seen){.n_prompt = request->n_ids, .n_ids_max = n_ids_max};
    with_user.user = &g_seen[i];
    assert_int_equal(qn_runner_submit(&id, runner, &with_user, &err), QN_OK);
    assert_int_not_equal(id, 0);
    return id;
}

static void run_all(qn_runner *runner)
{
    for (uint32_t i = 0; i < 10000; i++) {
        if (qn_runner_step(runner, &sink) == QN_AGAIN) {
            return;
        }
    }
    fail_msg("no end after 10,000 steps");
}

/* What a sequence of its own says. */
typedef struct alone {
    int32_t ids[N_MAX];
    uint32_t n_ids;
} alone;

static bool hear_token(void *context, int32_t token, uint32_t position, const float *logits,
                       bool is_stop)
{
    alone *const a = context;
    (void)position;
    (void)logits;
    (void)is_stop;
    a->ids[a->n_ids++] = token;
    return true;
}

static void answer_alone(alone *out, const qn_runner_request *request)
{
    qn_generator *generator = NULL;
    qn_error err = {0};
    const qn_sequence_options options = {
        .kernels = &g_t.kernels, .kv_dtype = QN_KV_F32, .n_tokens_max = N_MAX, .n_rows_max = 64};
    const qn_generator_request inner = {.ids = request->ids,
                                        .n_ids = request->n_ids,
                                        .sampling = request->sampling,
                                        .stop_ids = request->stop_ids,
                                        .n_stop_ids = request->n_stop_ids,
                                        .max_tokens = request->max_tokens,
                                        .draft_tokens = request->draft_tokens};
    const qn_generator_sink ears = {.context = out, .token = hear_token};
    *out = (alone){0};
    assert_int_equal(qn_generator_open(&generator, g_t.glm, &options, &err), QN_OK);
    qn_generator_begin(generator, &inner);
    while (qn_generator_state_of(generator) != QN_GENERATOR_IDLE) {
        assert_int_equal(qn_generator_step(generator, &ears, &err), QN_OK);
    }
    qn_generator_close(&generator);
}

/* Plenty of pages, and so few that sequences give theirs back. */
static void test_runner_tells_what_a_sequence_alone_draws(void **state)
{
    (void)state;
    static alone expected;
    static seen before[N_REQUESTS];
    static const uint32_t plenty_and_few[] = {40, 5};
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n_pages = plenty_and_few[k];
        qn_runner *runner = open_runner(n_pages);
        assert_int_equal(qn_runner_step(runner, &sink), QN_AGAIN);
        for (uint32_t i = 0; i < N_REQUESTS; i++) {
            const qn_runner_request request = request_of(i);
            submit(runner, i, &request);
        }
        run_all(runner);
        for (uint32_t i = 0; i < N_REQUESTS; i++) {
            const qn_runner_request request = request_of(i);
            const seen *const s = &g_seen[i];
            answer_alone(&expected, &request);
            assert_int_equal(s->n_ids, request.max_tokens);
            assert_memory_equal(s->ids, expected.ids, s->n_ids * sizeof *s->ids);
            assert_int_equal(s->n_ends, 1);
            assert_int_equal(s->reason, QN_SCHED_END_LENGTH);
            assert_int_equal(s->n_rows, request.wants_prompt_logits ? request.n_ids : 0);
            assert_int_equal(s->stats.n_generated_tokens, s->n_ids);
            if (n_pages < 40) { /* preempted or not, the logits are the same bits */
                assert_memory_equal(s->logit_of, before[i].logit_of, sizeof s->logit_of);
                assert_memory_equal(s->row_logit_of, before[i].row_logit_of,
                                    sizeof s->row_logit_of);
            } else {
                assert_int_equal(s->stats.n_step_tokens, s->n_ids - 1);
            }
        }
        memcpy(before, g_seen, sizeof before);
        const qn_engine_stats stats = qn_runner_count(runner);
        assert_int_equal(stats.n_preempted > 0, n_pages < 40);
        assert_int_equal(stats.n_pages_used, 0);
        assert_int_equal(stats.n_pages_free + stats.n_pages_cached, n_pages);
        qn_runner_close(&runner);
        assert_null(runner);
    }
}

static void test_runner_tells_nothing_behind_the_token_that_ended_it(void **state)
{
    (void)state;
    static alone expected;
    qn_runner *runner = open_runner(40);
    for (uint32_t n = 1; n < 20; n += 3) { /* within verifications too: request 3 drafts six */
        const qn_runner_request request = request_of(3);
        answer_alone(&expected, &request);
        g_seen[3].n_ids_max = n;
        submit(runner, 3, &request);
        run_all(runner);
        assert_int_equal(g_seen[3].n_ids, n);
        assert_int_equal(g_seen[3].reason, QN_SCHED_END_STOP);
        assert_int_equal(g_seen[3].stats.n_generated_tokens, n);
        assert_int_equal(g_seen[3].stats.n_step_tokens, n - 1);
        assert_true(g_seen[3].stats.n_accepted < n);
        assert_memory_equal(g_seen[3].ids, expected.ids, n * sizeof(int32_t));
        g_seen[3].n_ids_max = 0;
        qn_runner_request with_stop = request;
        with_stop.stop_ids = &expected.ids[n];
        with_stop.n_stop_ids = 1;
        uint32_t n_expected = 0; /* up to where it comes first */
        while (expected.ids[n_expected++] != expected.ids[n]) {
        }
        submit(runner, 3, &with_stop);
        run_all(runner);
        assert_true(g_seen[3].is_stopped);
        assert_int_equal(g_seen[3].n_ids, n_expected);
        assert_int_equal(g_seen[3].reason, QN_SCHED_END_STOP);
    }
    qn_runner_close(&runner);
}

static void test_runner_ends_what_is_cancelled_in_the_next_step(void **state)
{
    (void)state;
    qn_runner *runner = open_runner(40);
    const qn_runner_request request = request_of(0);
    for (uint32_t n_steps = 0; n_steps < 8; n_steps++) {
        qn_runner_flush(runner);
        const qn_request_id id = submit(runner, 0, &request);
        for (uint32_t i = 0; i < n_steps; i++) {
            assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
        }
        const uint32_t n_before = g_seen[0].n_ids;
        assert_int_equal(g_seen[0].n_ends, 0);
        qn_runner_cancel(runner, id);
        assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
        assert_int_equal(g_seen[0].n_ends, 1);
        assert_int_equal(g_seen[0].reason, QN_SCHED_END_CANCEL);
        assert_int_equal(g_seen[0].n_ids, n_before);
        assert_int_equal(qn_runner_step(runner, &sink), QN_AGAIN);
        qn_runner_cancel(runner, id); /* long gone */
    }
    assert_true(g_seen[0].n_ids > 0);
    qn_runner_close(&runner);
}

static void test_runner_refuses_what_it_has_no_room_for(void **state)
{
    (void)state;
    qn_runner *runner = open_runner(1);
    qn_request_id id = 0;
    qn_error err = {0};
    qn_runner_request request = request_of(0); /* more than a page */
    assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "fewer than the 64 of the cache (--page-cache)"));
    request.n_ids = 10;
    request.user = &g_seen[0];
    g_seen[0] = (seen){.n_prompt = 10};
    uint32_t n = 0;
    while (n < 100 && qn_runner_submit(&id, runner, &request, &err) == QN_OK) {
        n++;
    }
    assert_int_equal(n, 8);
    assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_AGAIN);
    qn_runner_close(&runner); /* with requests that have not ended */
}

static void test_runner_steps_allocate_nothing(void **state)
{
    (void)state;
    qn_runner *runner = open_runner(5); /* preemption costs none either */
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        const qn_runner_request request = request_of(i);
        submit(runner, i, &request);
    }
    g_n_failed = 0;
    g_fails_from_then_on = 1;
    g_allocations_left = 0;
    run_all(runner);
    g_allocations_left = SIZE_MAX;
    assert_int_equal(g_n_failed, 0);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        assert_int_equal(g_seen[i].n_ends, 1);
    }
    qn_runner_close(&runner);
}

static qn_status open_submit_and_run(qn_error *err)
{
    qn_runner *runner = NULL;
    qn_request_id id = 0;
    const qn_runner_options options = options_of(8);
    qn_status status = qn_runner_open(&runner, g_t.glm, &options, err);
    if (status == QN_OK) {
        qn_runner_request request = request_of(1);
        request.user = &g_seen[1];
        g_seen[1] = (seen){.n_prompt = request.n_ids};
        status = qn_runner_submit(&id, runner, &request, err);
    }
    if (status == QN_OK) {
        run_all(runner);
        assert_int_equal(g_seen[1].n_ids, 21);
    }
    if (runner != NULL) {
        qn_runner_close(&runner);
    }
    return status;
}

static void test_runner_survives_any_failed_allocation(void **state)
{
    (void)state;
    fail_each(open_submit_and_run, 1, 6);
}

/* Runs of all tests: steps are collected at once, or one later but where logits are wanted. */
static int g_runs[][2] = {{0, 1}, {1, 1}, {1, 0}};

static int set_run(void **state)
{
    const int *const run = *state;
    g_lag = (uint32_t)run[0];
    g_wants_logits = run[1] != 0;
    return 0;
}

#define RUN(test, i) cmocka_unit_test_prestate_setup_teardown(test, set_run, NULL, g_runs[i])
#define RUNS(test)   RUN(test, 0), RUN(test, 1), RUN(test, 2)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNS(test_runner_tells_what_a_sequence_alone_draws),
        RUNS(test_runner_tells_nothing_behind_the_token_that_ended_it),
        RUNS(test_runner_ends_what_is_cancelled_in_the_next_step),
        RUNS(test_runner_refuses_what_it_has_no_room_for),
        RUNS(test_runner_steps_allocate_nothing),
        RUNS(test_runner_survives_any_failed_allocation),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
