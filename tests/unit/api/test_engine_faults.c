/* SPDX-License-Identifier: Apache-2.0 */
/* An engine without memory: every allocation of open and submit fails, and its steps need none. */
#include "crowd.h"
#include "support/fail_each.h"

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};
static const qn_logit_bias bias[] = {{.token = 7, .bias = -2.0F}, {.token = 8, .bias = 1.0F}};
static const qn_sampling drawn = {.temperature = 0.8F,
                                  .top_p = 0.9F,
                                  .repetition_penalty = 1.1F,
                                  .presence_penalty = 0.5F,
                                  .n_logit_bias = 2,
                                  .logit_bias = bias,
                                  .seed = 4};

static qn_model *g_model; /* glm-nano */
static int32_t *g_ids;    /* of a prompt that it answers by a call */
static size_t g_n_ids;
static crowd g_crowd;

static int open_model(void **state)
{
    (void)state;
    qn_error err = {0};
    if (qn_model_open(&g_model, NANO, NULL, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    g_n_ids = encode(&g_ids, g_model, tool_prompt);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    qn_free(g_ids);
    qn_model_close(&g_model);
    return 0;
}

/* A request that uses whatever may need memory. */
static qn_request ask(void)
{
    static const char *const stops[] = {"nowhere", "never at all"};
    static const int32_t stop_ids[] = {5};
    return (qn_request){.ids = g_ids,
                        .n_ids = g_n_ids,
                        .sampling = &greedy,
                        .stops = stops,
                        .n_stops = 2,
                        .stop_ids = stop_ids,
                        .n_stop_ids = 1,
                        .tools_json = tools,
                        .tools_len = strlen(tools),
                        .max_tokens = 100,
                        .n_top_logprobs = 3,
                        .wants_logprobs = true,
                        .wants_prompt_logprobs = true,
                        .cache_salt = "salt",
                        .cache_salt_len = 4};
}

static const qn_engine_options small = {
    .n_sequences = 2, .n_queue = 8, .n_step_rows = 512, .context_tokens = 1024};

static qn_status open_submit_and_run(qn_error *err)
{
    qn_engine *engine = NULL;
    qn_request request = ask();
    uint64_t id = 0;
    request.max_tokens = 3;
    qn_status status = qn_engine_open(&engine, g_model, &small, err);
    if (status == QN_OK) {
        status = qn_engine_submit(&id, engine, &request, err);
        assert_int_equal(id != 0, status == QN_OK);
    }
    uint32_t n_tokens = 0;
    for (qn_status s = status; s == QN_OK;) {
        qn_event event;
        s = qn_engine_step(engine, err);
        while (qn_engine_poll(&id, &event, engine)) {
            n_tokens += event.kind == QN_EVENT_TOKEN ? 1 : 0;
        }
    }
    assert_true(status < 0 || n_tokens == 3);
    qn_engine_close(&engine);
    return status;
}

static void test_engine_survives_any_failed_allocation(void **state)
{
    (void)state;
    fail_each(open_submit_and_run, 1, 15);
}

/* Queue, prefill, decoding with calls and log-probabilities, preemption, cancel: no allocation. */
static void test_engine_steps_allocate_nothing(void **state)
{
    (void)state;
    qn_engine *engine = open_engine(g_model, &small);
    qn_engine_options short_of_pages = small;
    short_of_pages.cache_bytes = 10 * qn_engine_get_stats(engine).page_bytes;
    qn_engine_close(&engine);
    engine = open_engine(g_model, &short_of_pages);
    crowd_clear(&g_crowd);
    for (uint32_t i = 0; i < 6; i++) {
        qn_request request = ask();
        request.sampling = i % 2 == 0 ? &greedy : &drawn;
        request.wants_prompt_logprobs = i == 1;
        request.draft_tokens = i == 2 ? QN_DRAFT_AUTO : QN_DRAFT_DEFAULT;
        request.ignore_eos = i > 2;
        request.max_tokens = 200;
        crowd_submit(&g_crowd, engine, &request);
    }
    g_n_failed = 0;
    g_fails_from_then_on = 1;
    g_allocations_left = 0;
    assert_int_equal(crowd_step(&g_crowd, engine, 40), QN_OK);
    qn_engine_cancel(engine, g_crowd.ids[5]);
    const qn_status status = crowd_step(&g_crowd, engine, 100000);
    g_allocations_left = SIZE_MAX;
    assert_int_equal(status, QN_AGAIN);
    assert_int_equal(g_n_failed, 0);
    assert_int_equal(g_crowd.n_ended, 6);
    assert_int_equal(g_crowd.said[0].said.finish, QN_FINISH_TOOL_CALLS);
    qn_engine_close(&engine);
}

int main(void)
{
    qn_log_configure(QN_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_survives_any_failed_allocation),
        cmocka_unit_test(test_engine_steps_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
