/* SPDX-License-Identifier: Apache-2.0 */
/* Many requests at once say what each says alone, whatever happens to its neighbours. */
#include "crowd.h"

#include <math.h>
#include <time.h>

enum { VOCAB = 97, N_CONTEXT = 256, N_CROWD = 24 };

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};
static const qn_logit_bias bias[] = {{.token = 7, .bias = -2.0F}, {.token = 8, .bias = 1.0F}};
static const qn_sampling settings[] = {
    {.top_p = 1.0F, .repetition_penalty = 1.0F},
    {.temperature = 1.0F, .top_p = 0.9F, .repetition_penalty = 1.0F, .seed = 5},
    {.temperature = 0.8F,
     .top_p = 0.95F,
     .min_p = 0.01F,
     .repetition_penalty = 1.2F,
     .presence_penalty = 0.5F,
     .frequency_penalty = 0.25F,
     .top_k = 40,
     .n_logit_bias = 2,
     .logit_bias = bias,
     .seed = 77},
};

static qn_model *g_model; /* of the tiny configuration */
static int32_t g_prompts[N_CROWD][N_CONTEXT];
static qn_request g_requests[N_CROWD];
static transcript g_alone[N_CROWD]; /* what a session says */
static crowd g_crowd;

/* Prompts of 1 to 200 tokens; every third begins like those before it. */
static void make_requests(void)
{
    static const int depths[] = {5, QN_DRAFT_NONE, 1, 8, QN_DRAFT_DEFAULT};
    for (uint32_t i = 0; i < N_CROWD; i++) {
        const uint32_t n = i == 0 ? 1 : 9 + i * 83 % 192;
        for (uint32_t k = 0; k < n; k++) {
            g_prompts[i][k] = (int32_t)((k * 31 + k * k % 13 + (i % 3 == 0 ? 0 : i * 7)) % 96);
        }
        g_requests[i] = (qn_request){
            .ids = g_prompts[i],
            .n_ids = n,
            .sampling = &settings[i % 3],
            .max_tokens = 1 + i * 11 % 50,
            .draft_tokens = depths[i % 5],
            .n_top_logprobs = i % 4 == 0 ? N_TOP : 0,
            .ignore_eos = true,
            .wants_logprobs = i % 2 == 0,
            .wants_prompt_logprobs = i % 7 == 3,
        };
    }
}

static int open_model(void **state)
{
    (void)state;
    g_model = open_tiny(2);
    make_requests();
    for (uint32_t i = 0; i < N_CROWD; i++) {
        answer_alone(&g_alone[i], g_model, &g_requests[i]);
    }
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    qn_model_close(&g_model);
    return 0;
}

static uint64_t page_bytes(const qn_engine_options *options)
{
    qn_engine *engine = open_engine(g_model, options);
    const uint64_t n_bytes = qn_engine_get_stats(engine).page_bytes;
    qn_engine_close(&engine);
    return n_bytes;
}

static void submit_all(qn_engine *engine)
{
    crowd_clear(&g_crowd);
    for (uint32_t i = 0; i < N_CROWD; i++) {
        crowd_submit(&g_crowd, engine, &g_requests[i]);
    }
}

static void assert_all_as_alone(void)
{
    for (uint32_t i = 0; i < N_CROWD; i++) {
        assert_said_equal(&g_crowd.said[i].said, &g_alone[i].said);
    }
}

/* ----------------------------------------------------------------------- the same, bit for bit --
 */

static void test_engine_crowd_says_what_each_says_alone(void **state)
{
    (void)state;
    static const qn_engine_options options[] = {
        {0},
        {.no_mtp = true},
        {.no_prefix_cache = true},
        {.n_sequences = 3, .n_step_rows = 67, .checks_pages = true},
        {.n_sequences = 1, .n_step_rows = 65},
        {.n_sequences = N_CROWD, .n_step_rows = 4096},
    };
    for (size_t k = 0; k < sizeof options / sizeof options[0]; k++) {
        qn_engine *engine = open_engine(g_model, &options[k]);
        submit_all(engine);
        crowd_finish(&g_crowd, engine);
        assert_all_as_alone();
        submit_all(engine); /* warm */
        crowd_finish(&g_crowd, engine);
        assert_all_as_alone();
        const qn_engine_stats stats = qn_engine_get_stats(engine);
        assert_int_equal(stats.n_cached_tokens == 0, options[k].no_prefix_cache);
        assert_int_equal(stats.n_drafted == 0, options[k].no_mtp);
        qn_engine_close(&engine);
    }
}

/* Speculation accepts what it accepts alone, and a session's counts are a request's. */
static void test_engine_counts_of_a_request_are_those_of_a_session(void **state)
{
    (void)state;
    qn_engine *engine = open_engine(g_model, &(qn_engine_options){.no_prefix_cache = true});
    submit_all(engine);
    crowd_finish(&g_crowd, engine);
    uint64_t n_prompt = 0;
    uint64_t n_generated = 0;
    uint64_t n_drafted = 0;
    uint64_t n_accepted = 0;
    uint64_t n_accepted_at[QN_DRAFT_TOKENS_MAX] = {0};
    for (uint32_t i = 0; i < N_CROWD; i++) {
        const qn_session_stats *const a = &g_crowd.said[i].stats;
        const qn_session_stats *const b = &g_alone[i].stats;
        n_prompt += a->n_prompt_tokens;
        n_generated += a->n_generated_tokens;
        n_drafted += a->n_drafted;
        for (uint32_t k = 0; k < QN_DRAFT_TOKENS_MAX; k++) {
            n_accepted_at[k] += a->n_accepted_at[k];
            n_accepted += a->n_accepted_at[k];
        }
        assert_int_equal(a->n_prompt_tokens, b->n_prompt_tokens);
        assert_int_equal(a->n_cached_tokens, 0);
        assert_int_equal(a->n_computed_tokens, b->n_computed_tokens);
        assert_int_equal(a->n_generated_tokens, b->n_generated_tokens);
        assert_int_equal(a->n_reasoning_tokens, b->n_reasoning_tokens);
        assert_true(a->queue_s > 0.0 && a->prefill_s > 0.0 && a->ttft_s > 0.0);
        assert_true(fabs(a->queue_s + a->prefill_s - a->ttft_s) < 1e-6);
        assert_int_equal(a->decode_s > 0.0, a->n_steps > 0);
        assert_true(a->kv_bytes > 0);
        if (g_requests[i].draft_tokens != QN_DRAFT_DEFAULT) { /* its depth goes by the clock */
            assert_int_equal(a->n_steps, b->n_steps);
            assert_int_equal(a->n_step_tokens, b->n_step_tokens);
            assert_int_equal(a->n_drafted, b->n_drafted);
            assert_int_equal(a->n_accepted, b->n_accepted);
            assert_int_equal(a->n_draft_tokens, b->n_draft_tokens);
            assert_memory_equal(a->n_accepted_at, b->n_accepted_at, sizeof a->n_accepted_at);
        }
    }
    const qn_engine_stats stats = qn_engine_get_stats(engine);
    assert_int_equal(stats.n_prompt_tokens, n_prompt);
    assert_int_equal(stats.n_generated_tokens, n_generated);
    assert_int_equal(stats.n_cached_tokens, 0);
    assert_int_equal(stats.n_drafted, n_drafted);
    assert_int_equal(stats.n_accepted, n_accepted);
    assert_memory_equal(stats.n_accepted_at, n_accepted_at, sizeof n_accepted_at);
    assert_true(stats.n_accepted > 0 && stats.n_verifications >= n_accepted_at[0]);
    assert_true(stats.n_verifications <= stats.n_drafted);
    assert_true(stats.n_steps > 0 && stats.n_steps <= g_crowd.n_steps);
    assert_true(stats.prompt_s + stats.mixed_s + stats.decode_s > 0.0);
    qn_engine_close(&engine);
}

/* Found by review: 64 sequences at a fixed depth were three times slower than without drafts. */
static void test_engine_default_depth_goes_by_what_pays(void **state)
{
    (void)state;
    qn_engine *engine = open_engine(g_model, NULL);
    qn_request request = {.ids = g_prompts[0], .n_ids = 9, .max_tokens = 200, .ignore_eos = true};
    crowd_clear(&g_crowd);
    crowd_submit(&g_crowd, engine, &request); /* of random weights no draft is right */
    crowd_finish(&g_crowd, engine);
    const qn_session_stats *const stats = &g_crowd.said[0].stats;
    assert_true(stats->n_drafted < 3 * stats->n_steps);
    request.acceptance_length = 3.0F;
    crowd_submit(&g_crowd, engine, &request);
    crowd_finish(&g_crowd, engine);
    assert_int_equal(g_crowd.said[1].stats.n_draft_tokens, QN_DRAFT_TOKENS_DEFAULT);
    assert_true(g_crowd.said[1].stats.is_synthetic);
    qn_engine_close(&engine);
}

static void test_engine_short_of_pages_preempts_and_says_the_same(void **state)
{
    (void)state;
    qn_engine_options options = {.n_sequences = 8};
    const uint64_t n_bytes = page_bytes(&options);
    for (uint64_t n_pages = 4; n_pages <= 12; n_pages += 4) { /* a whole context, and some */
        options.cache_bytes = n_pages * n_bytes + n_bytes / 2;
        qn_engine *engine = open_engine(g_model, &options);
        assert_int_equal(qn_engine_get_stats(engine).n_pages_free, n_pages);
        for (int i = 0; i < 2; i++) {
            submit_all(engine);
            crowd_finish(&g_crowd, engine);
            assert_all_as_alone();
        }
        const qn_engine_stats stats = qn_engine_get_stats(engine);
        assert_true(stats.n_evicted > 0);
        assert_true(n_pages > 8 || stats.n_preempted > 0);
        assert_true(stats.n_preempted > 0 || stats.n_recomputed_tokens == 0);
        assert_true(n_pages > 4 || stats.n_recomputed_tokens > 0);
        assert_int_equal(stats.n_pages_free + stats.n_pages_cached, n_pages);
        qn_engine_close(&engine);
    }
}

static void test_engine_prompts_longer_than_a_session_step_are_computed(void **state)
{
    (void)state;
    static int32_t prompt[1500];
    static transcript alone;
    qn_model *model = NULL;
    qn_error err = {0};
    if (qn_model_open(&model, NANO, NULL, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    for (int32_t i = 0; i < 1500; i++) {
        prompt[i] = 300 + i * 7 % 900;
    }
    const qn_request request = {
        .ids = prompt, .n_ids = 1500, .sampling = &greedy, .max_tokens = 8, .ignore_eos = true};
    qn_engine *engine = open_engine(
        model, &(qn_engine_options){.n_sequences = 2, .n_step_rows = 2048, .context_tokens = 2048});
    answer_alone(&alone, model, &request); /* in the workspace that the engine made larger */
    crowd_clear(&g_crowd);
    crowd_submit(&g_crowd, engine, &request);
    assert_int_equal(crowd_step(&g_crowd, engine, 1), QN_OK);
    assert_int_equal(g_crowd.said[0].said.n_ids, 1); /* the whole prompt was one step */
    crowd_finish(&g_crowd, engine);
    assert_said_equal(&g_crowd.said[0].said, &alone.said);
    qn_engine_close(&engine);
    qn_model_close(&model);
}

/* ------------------------------------------------------------------------------- the text's side
 */

/* Thinking, a tool call, a stop text, min_tokens: glm-nano. */
static void test_engine_text_calls_and_stops_are_those_of_a_session(void **state)
{
    (void)state;
    static const char question[] =
        "[gMASK]<sop><|system|>Reasoning Effort: Max<|user|>Tom has 12 apples and buys 30 more. "
        "How many apples does he have?<|assistant|><think>";
    static const char *const stops[] = {"nowhere", "answer is"};
    static const char *const first_stop[] = {"= 4"};
    static transcript alone[5];
    qn_model *model = NULL;
    qn_error err = {0};
    int32_t *ids = NULL;
    int32_t *tool_ids = NULL;
    if (qn_model_open(&model, NANO, NULL, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    const size_t n_ids = encode(&ids, model, question);
    const size_t n_tool_ids = encode(&tool_ids, model, tool_prompt);
    const qn_request plain = {.ids = ids, .n_ids = n_ids, .sampling = &greedy, .draft_tokens = 5};
    qn_request requests[5] = {plain, plain, plain, plain, plain};
    requests[1].ids = tool_ids;
    requests[1].n_ids = n_tool_ids;
    requests[1].tools_json = tools;
    requests[1].tools_len = strlen(tools);
    requests[2].stops = stops;
    requests[2].n_stops = 2;
    requests[3].stops = first_stop;
    requests[3].n_stops = 1;
    requests[3].draft_tokens = 8; /* it stops within a verification */
    requests[4].stops = first_stop;
    requests[4].n_stops = 1;
    requests[4].min_tokens = 40;
    requests[4].max_tokens = 60;
    qn_engine *engine = open_engine(model, &(qn_engine_options){.context_tokens = 1024});
    crowd_clear(&g_crowd);
    for (uint32_t i = 0; i < 5; i++) {
        answer_alone(&alone[i], model, &requests[i]);
        crowd_submit(&g_crowd, engine, &requests[i]);
    }
    memset(tool_ids, 0, n_tool_ids * sizeof *tool_ids); /* everything was copied */
    crowd_finish(&g_crowd, engine);
    for (uint32_t i = 0; i < 5; i++) {
        const transcript *const got = &g_crowd.said[i];
        assert_said_equal(&got->said, &alone[i].said);
        assert_int_equal(got->stats.n_generated_tokens, alone[i].stats.n_generated_tokens);
        assert_int_equal(got->stats.n_reasoning_tokens, alone[i].stats.n_reasoning_tokens);
        assert_int_equal(got->stats.n_accepted, alone[i].stats.n_accepted);
    }
    assert_int_equal(alone[1].said.finish, QN_FINISH_TOOL_CALLS);
    assert_true(strlen(alone[1].said.calls) > 0);
    assert_null(strstr(alone[2].said.text, "answer is"));
    qn_engine_close(&engine);
    qn_free(ids);
    qn_free(tool_ids);
    qn_model_close(&model);
}

static void test_engine_prompt_alone_tells_its_logprobs_and_draws_nothing(void **state)
{
    (void)state;
    static transcript alone;
    qn_engine *engine = open_engine(g_model, NULL);
    qn_request request = g_requests[5];
    request.prompt_only = true;
    crowd_clear(&g_crowd);
    for (int i = 0; i < 2; i++) {
        request.wants_prompt_logprobs = i == 0;
        answer_alone(&alone, g_model, &request);
        crowd_submit(&g_crowd, engine, &request);
        crowd_finish(&g_crowd, engine);
        assert_said_equal(&g_crowd.said[i].said, &alone.said);
        assert_int_equal(alone.said.n_ids, i == 0 ? request.n_ids : 0);
        assert_int_equal(g_crowd.said[i].stats.n_generated_tokens, 0);
        assert_int_equal(g_crowd.said[i].stats.n_computed_tokens, request.n_ids);
        assert_true(g_crowd.said[i].stats.ttft_s == 0.0);
    }
    qn_engine_close(&engine);
}

/* ----------------------------------------------------------------------------------------- ends --
 */

/* A request that goes on until it is ended. */
static qn_request endless(uint32_t i_prompt)
{
    return (qn_request){.ids = g_prompts[i_prompt],
                        .n_ids = 150,
                        .sampling = &greedy,
                        .draft_tokens = QN_DRAFT_NONE,
                        .ignore_eos = true};
}

static void test_engine_cancel_ends_a_request_wherever_it_is(void **state)
{
    (void)state;
    qn_engine *engine =
        open_engine(g_model, &(qn_engine_options){.n_sequences = 1, .n_step_rows = 65});
    static const uint32_t n_steps[] = {0, 1, 2, 6}; /* queued, in the prompt twice, drawing */
    for (size_t k = 0; k < 4; k++) {
        crowd_clear(&g_crowd);
        qn_engine_flush(engine);
        const qn_request request = endless(1);
        crowd_submit(&g_crowd, engine, &request);
        crowd_submit(&g_crowd, engine, &g_requests[2]);
        assert_int_equal(crowd_step(&g_crowd, engine, n_steps[k]), QN_OK);
        assert_int_equal(g_crowd.said[0].said.n_ids > 0, k == 3);
        qn_engine_cancel(engine, g_crowd.ids[0]);
        qn_engine_cancel(engine, g_crowd.ids[0]); /* again, and one that nobody has */
        qn_engine_cancel(engine, 0);
        qn_engine_cancel(engine, UINT64_MAX);
        const uint32_t n_before = g_crowd.said[0].said.n_ids;
        assert_int_equal(crowd_step(&g_crowd, engine, 1), QN_OK);
        assert_int_equal(g_crowd.n_ended, 1); /* the next step brings its END */
        assert_int_equal(g_crowd.said[0].said.finish, QN_FINISH_ABORT);
        assert_int_equal(g_crowd.said[0].said.n_ids, n_before);
        assert_true(g_crowd.said[0].stats.queue_s > 0.0);
        /* ... and its pages: what is used is the other's, which had one step at most */
        assert_true(qn_engine_get_stats(engine).n_pages_used <= 1 + 65 / 64);
        crowd_finish(&g_crowd, engine);
        qn_engine_cancel(engine, g_crowd.ids[0]);
        assert_said_equal(&g_crowd.said[1].said, &g_alone[2].said);
    }
    qn_engine_close(&engine);
}

static void test_engine_deadline_ends_a_request_in_the_queue_or_running(void **state)
{
    (void)state;
    qn_engine *engine =
        open_engine(g_model, &(qn_engine_options){.n_sequences = 1, .n_step_rows = 65});
    crowd_clear(&g_crowd);
    qn_request request = endless(1);
    crowd_submit(&g_crowd, engine, &g_requests[4]);
    request.deadline_s = 1e-9; /* over when the first step begins */
    crowd_submit(&g_crowd, engine, &request);
    assert_int_equal(crowd_step(&g_crowd, engine, 1), QN_OK);
    assert_int_equal(g_crowd.said[1].said.finish, QN_FINISH_DEADLINE);
    crowd_finish(&g_crowd, engine);
    assert_int_equal(g_crowd.said[1].said.n_ids, 0);
    assert_true(g_crowd.said[1].stats.prefill_s == 0.0);
    assert_said_equal(&g_crowd.said[0].said, &g_alone[4].said);
    request.deadline_s = 0.05;
    crowd_submit(&g_crowd, engine, &request);
    (void)crowd_step(&g_crowd, engine, 4); /* over already, where the machine is busy */
    const struct timespec wait = {.tv_nsec = 60000000};
    (void)nanosleep(&wait, NULL);
    crowd_finish(&g_crowd, engine);
    assert_int_equal(g_crowd.said[2].said.finish, QN_FINISH_DEADLINE);
    request.deadline_s = 1e9; /* far off: it ends by itself */
    crowd_submit(&g_crowd, engine, &request);
    crowd_finish(&g_crowd, engine);
    assert_int_equal(g_crowd.said[3].said.finish, QN_FINISH_LENGTH);
    assert_int_equal(g_crowd.said[3].said.n_ids, N_CONTEXT - 150);
    qn_engine_close(&engine);
}

static int g_n_begun;

static void count_begin(void *tag)
{
    assert_non_null(tag);
    g_n_begun++;
}

static void test_engine_tells_when_a_request_begins(void **state)
{
    (void)state;
    qn_engine *engine =
        open_engine(g_model, &(qn_engine_options){.n_sequences = 1, .n_step_rows = 65});
    crowd_clear(&g_crowd);
    for (int i = 1; i <= 2; i++) {
        qn_request request = g_requests[i];
        request.on_begin = count_begin;
        crowd_submit(&g_crowd, engine, &request);
    }
    assert_int_equal(g_n_begun, 0);
    assert_int_equal(crowd_step(&g_crowd, engine, 1), QN_OK);
    assert_int_equal(g_n_begun, 1); /* the other one waits */
    crowd_finish(&g_crowd, engine);
    assert_int_equal(g_n_begun, 2);
    qn_engine_close(&engine);
}

static void test_engine_full_queue_says_again_and_takes_more_later(void **state)
{
    (void)state;
    qn_engine *engine = open_engine(
        g_model, &(qn_engine_options){.n_sequences = 1, .n_step_rows = 65, .n_queue = 2});
    uint64_t id = 77;
    crowd_clear(&g_crowd);
    crowd_submit(&g_crowd, engine, &g_requests[1]);
    assert_int_equal(crowd_step(&g_crowd, engine, 1), QN_OK); /* it runs, the queue is empty */
    crowd_submit(&g_crowd, engine, &g_requests[2]);
    crowd_submit(&g_crowd, engine, &g_requests[3]);
    assert_int_equal(qn_engine_submit(&id, engine, &g_requests[4], NULL), QN_AGAIN);
    assert_int_equal(id, 0);
    assert_int_equal(qn_engine_get_stats(engine).n_running, 1);
    assert_int_equal(qn_engine_get_stats(engine).n_waiting, 2);
    while (qn_engine_get_stats(engine).n_waiting == 2) {
        assert_int_equal(crowd_step(&g_crowd, engine, 1), QN_OK);
    }
    crowd_submit(&g_crowd, engine, &g_requests[4]);
    crowd_finish(&g_crowd, engine);
    for (uint32_t i = 0; i < 4; i++) {
        assert_said_equal(&g_crowd.said[i].said, &g_alone[i + 1].said);
    }
    qn_engine_close(&engine);
}

static void test_engine_higher_priority_goes_first(void **state)
{
    (void)state;
    qn_engine *engine =
        open_engine(g_model, &(qn_engine_options){.n_sequences = 1, .n_step_rows = 65});
    static const int priorities[] = {0, -100, 3, 100, 0};
    static const uint32_t order[] = {3, 2, 0, 4, 1};
    crowd_clear(&g_crowd);
    for (uint32_t i = 0; i < 5; i++) {
        qn_request request = g_requests[2];
        request.priority = priorities[i];
        crowd_submit(&g_crowd, engine, &request);
    }
    crowd_finish(&g_crowd, engine);
    assert_memory_equal(g_crowd.ended, order, sizeof order);
    qn_engine_close(&engine);
}

/* What goes wrong with one request is its own affair. */
static void test_engine_request_without_a_possible_token_fails_alone(void **state)
{
    (void)state;
    static qn_logit_bias all[VOCAB];
    for (int32_t i = 0; i < VOCAB; i++) {
        all[i] = (qn_logit_bias){.token = i, .bias = -INFINITY};
    }
    qn_sampling none = greedy;
    none.n_logit_bias = VOCAB;
    none.logit_bias = all;
    qn_request request = endless(1);
    request.sampling = &none;
    qn_engine *engine = open_engine(g_model, NULL);
    crowd_clear(&g_crowd);
    for (uint32_t i = 0; i < N_CROWD; i++) {
        crowd_submit(&g_crowd, engine, i == 5 ? &request : &g_requests[i]);
    }
    crowd_finish(&g_crowd, engine);
    for (uint32_t i = 0; i < N_CROWD; i++) {
        if (i != 5) {
            assert_said_equal(&g_crowd.said[i].said, &g_alone[i].said);
        }
    }
    assert_string_equal(g_crowd.said[5].said.kinds, "e");
    assert_int_equal(g_crowd.said[5].said.finish, QN_FINISH_ERROR);
    assert_int_equal(g_crowd.said[5].err.status, QN_E_FORMAT);
    assert_non_null(strstr(g_crowd.said[5].err.text, "logits of the token at 150"));
    qn_engine_close(&engine);
}

static void test_engine_answer_longer_than_the_cache_ends_by_length(void **state)
{
    (void)state;
    const uint64_t n_bytes = page_bytes(NULL);
    qn_engine *engine = open_engine(g_model, &(qn_engine_options){.cache_bytes = 3 * n_bytes});
    const qn_request request = endless(1);
    static transcript alone;
    uint64_t id = 0;
    qn_error err = {0};
    answer_alone(&alone, g_model, &request);
    crowd_clear(&g_crowd);
    crowd_submit(&g_crowd, engine, &request);
    crowd_finish(&g_crowd, engine);
    const said *const got = &g_crowd.said[0].said;
    assert_int_equal(got->finish, QN_FINISH_LENGTH);
    assert_true(got->n_ids >= 3 * 64 - 150 && got->n_ids <= 3 * 64 - 150 + 1);
    assert_memory_equal(got->ids, alone.said.ids, got->n_ids * sizeof *got->ids);
    qn_request longer = request;
    longer.n_ids = 192;
    assert_int_equal(qn_engine_submit(&id, engine, &longer, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "--page-cache"));
    qn_engine_close(&engine);
}

/* ---------------------------------------------------------------------------------- the cache --
 */

static void test_engine_salts_part_what_is_cached(void **state)
{
    (void)state;
    static const struct {
        const char *salt;
        size_t len;
        bool is_cached;
    } cases[] = {
        {NULL, 0, false}, {NULL, 0, true},    {"", 0, false},     {"", 0, true},   {"a", 1, false},
        {"a", 1, true},   {"a\0b", 3, false}, {"a\0c", 3, false}, {NULL, 0, true},
    };
    qn_engine *engine = open_engine(g_model, NULL);
    crowd_clear(&g_crowd);
    qn_request request = endless(1);
    request.max_tokens = 2;
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        request.cache_salt = cases[i].salt;
        request.cache_salt_len = cases[i].len;
        request.affinity = i;
        crowd_submit(&g_crowd, engine, &request);
        crowd_finish(&g_crowd, engine);
        assert_int_equal(g_crowd.said[i].stats.n_cached_tokens, cases[i].is_cached ? 128 : 0);
        assert_memory_equal(&g_crowd.said[i].said, &g_crowd.said[0].said, sizeof(said));
    }
    assert_true(qn_engine_get_stats(engine).n_pages_cached > 0);
    qn_engine_flush(engine);
    assert_int_equal(qn_engine_get_stats(engine).n_pages_cached, 0);
    crowd_submit(&g_crowd, engine, &request);
    crowd_finish(&g_crowd, engine);
    assert_int_equal(g_crowd.said[g_crowd.n - 1].stats.n_cached_tokens, 0);
    qn_engine_close(&engine);
}

/* ---------------------------------------------------------------------------------- the rules --
 */

static void test_engine_unread_events_hold_the_next_step_and_stay(void **state)
{
    (void)state;
    qn_engine *engine = open_engine(g_model, NULL);
    qn_error err = {0};
    qn_event event = {.position = 77};
    uint64_t id = 88;
    assert_int_equal(qn_engine_step(engine, &err), QN_AGAIN);
    assert_false(qn_engine_poll(&id, &event, engine));
    assert_int_equal(id, 88);
    assert_int_equal(event.position, 77);
    submit_all(engine);
    assert_int_equal(crowd_step(&g_crowd, engine, 2), QN_OK);
    assert_int_equal(qn_engine_step(engine, &err), QN_OK);
    for (uint32_t n_taken = 0; n_taken < 3; n_taken++) {
        const uint64_t n_steps = qn_engine_get_stats(engine).n_steps;
        assert_int_equal(qn_engine_step(engine, &err), QN_E_INVAL);
        assert_non_null(strstr(err.text, "unread"));
        assert_int_equal(qn_engine_get_stats(engine).n_steps, n_steps);
        crowd_poll(&g_crowd, engine, 1);
    }
    crowd_poll(&g_crowd, engine, UINT32_MAX);
    crowd_finish(&g_crowd, engine);
    assert_all_as_alone();
    qn_engine_close(&engine);
}

static void test_engine_closes_with_requests_in_every_state(void **state)
{
    (void)state;
    for (uint32_t n_steps = 0; n_steps < 12; n_steps += 3) {
        qn_engine *engine =
            open_engine(g_model, &(qn_engine_options){.n_sequences = 4, .n_step_rows = 68});
        submit_all(engine);
        assert_int_equal(crowd_step(&g_crowd, engine, n_steps), QN_OK);
        assert_int_equal(qn_engine_step(engine, NULL), QN_OK); /* its events stay unread */
        qn_engine_close(&engine);
        assert_null(engine);
    }
    qn_engine_close(NULL);
}

static void test_engine_two_of_one_model_take_turns(void **state)
{
    (void)state;
    static crowd others;
    qn_engine *engine = open_engine(g_model, NULL);
    qn_engine *other = open_engine(g_model, &(qn_engine_options){.no_mtp = true});
    qn_session *session = open_session(g_model, NULL);
    static transcript t;
    crowd_clear(&others);
    submit_all(engine);
    for (uint32_t i = 0; i < N_CROWD; i++) {
        crowd_submit(&others, other, &g_requests[i]);
    }
    qn_status status = QN_OK;
    for (uint32_t i = 0; status == QN_OK; i++) {
        status = crowd_step(&g_crowd, engine, 1);
        const qn_status second = crowd_step(&others, other, 1);
        status = status == QN_OK ? status : second;
        answer(&t, session, &g_requests[i % N_CROWD]);
        assert_said_equal(&t.said, &g_alone[i % N_CROWD].said);
    }
    for (uint32_t i = 0; i < N_CROWD; i++) {
        assert_said_equal(&others.said[i].said, &g_alone[i].said);
    }
    assert_all_as_alone();
    qn_session_close(&session);
    qn_engine_close(&engine);
    qn_engine_close(&other);
}

static void test_engine_refuses_a_prompt_that_fills_the_context(void **state)
{
    (void)state;
    static transcript alone;
    qn_engine *engine = open_engine(g_model, NULL);
    qn_request request = endless(1);
    uint64_t id = 0;
    qn_error err = {0};
    request.n_ids = N_CONTEXT;
    assert_int_equal(qn_engine_submit(&id, engine, &request, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "prompt: 256 tokens, fewer than the 256"));
    answer_alone(&alone, g_model, &request); /* of a session it is as docs/api.md says */
    assert_int_equal(alone.said.finish, QN_FINISH_LENGTH);
    qn_engine_close(&engine);
}

static void test_engine_options_out_of_range_are_named(void **state)
{
    (void)state;
    static const struct {
        qn_engine_options options;
        const char *word;
    } cases[] = {
        {{.n_sequences = 1025}, "n_sequences (--max-num-seqs): 1025, 1 to 1024 expected"},
        {{.n_queue = 1 << 21}, "n_queue: 2097152, 1 to 1048576 expected"},
        {{.context_tokens = 257}, "context_tokens (--context): 257, 2 to 256 expected"},
        {{.context_tokens = 1}, "context_tokens (--context): 1, 2 to 256 expected"},
        {{.n_step_rows = 127}, "n_step_rows (--max-num-batched-tokens): 127, 128 to 8192 expected"},
        {{.n_step_rows = 8193}, "n_step_rows (--max-num-batched-tokens): 8193, 128 to 8192"},
        {{.cache_bytes = 1}, "cache_bytes (--page-cache): 1, at least the"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_engine *engine = (qn_engine *)(uintptr_t)1;
        qn_error err = {0};
        assert_int_equal(qn_engine_open(&engine, g_model, &cases[i].options, &err), QN_E_INVAL);
        assert_null(engine);
        if (strstr(err.text, cases[i].word) == NULL) {
            fail_msg("%s: '%s' expected", err.text, cases[i].word);
        }
    }
    qn_engine *engine = NULL;
    qn_error err = {0};
    assert_int_equal(qn_engine_open(&engine, NULL, NULL, &err), QN_E_INVAL);
    const qn_engine_options largest = {
        .n_sequences = 1024, .n_queue = 1 << 20, .n_step_rows = 8192};
    engine = open_engine(g_model, &largest);
    qn_engine_close(&engine);
    engine = open_engine(g_model, &(qn_engine_options){.n_sequences = 1024}); /* rows follow */
    qn_engine_close(&engine);
}

static void test_engine_fields_out_of_range_are_named(void **state)
{
    (void)state;
    const struct {
        qn_request request;
        const char *word;
    } cases[] = {
        {{.ids = g_prompts[1], .n_ids = 3, .priority = 101},
         "priority (--priority): 101, -100 to 100 expected"},
        {{.ids = g_prompts[1], .n_ids = 3, .priority = -101}, "priority (--priority): -101"},
        {{.ids = g_prompts[1], .n_ids = 3, .deadline_s = -1.0}, "deadline_s (--deadline): -1"},
        {{.ids = g_prompts[1], .n_ids = 3, .deadline_s = (double)NAN},
         "deadline_s (--deadline): nan"},
        {{.ids = g_prompts[1], .n_ids = 3, .deadline_s = (double)INFINITY},
         "deadline_s (--deadline): inf"},
        {{.ids = g_prompts[1], .n_ids = 3, .cache_salt_len = 1}, "cache_salt (--cache-salt): NULL"},
        {{.ids = g_prompts[1], .n_ids = 0}, "prompt: no tokens"},
        {{.ids = g_prompts[1], .n_ids = N_CONTEXT}, "prompt: 256 tokens, fewer than the 256"},
        {{.ids = g_prompts[1], .n_ids = N_CONTEXT + 1}, "prompt: 257 tokens, at most the 256"},
        {{.ids = g_prompts[1], .n_ids = 3, .n_stops = 1}, "stops (--stop): NULL"},
        {{.ids = g_prompts[1], .n_ids = 3, .draft_tokens = 9}, "draft_tokens (--draft-tokens): 9"},
    };
    qn_engine *engine = open_engine(g_model, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t id = 5;
        qn_error err = {0};
        assert_int_equal(qn_engine_submit(&id, engine, &cases[i].request, &err), QN_E_INVAL);
        assert_int_equal(id, 0);
        if (strstr(err.text, cases[i].word) == NULL) {
            fail_msg("%s: '%s' expected", err.text, cases[i].word);
        }
    }
    uint64_t id = 5;
    const char tools_broken[] = "[{]";
    const qn_request broken = {
        .ids = g_prompts[1], .n_ids = 3, .tools_json = tools_broken, .tools_len = 3};
    assert_int_equal(qn_engine_submit(&id, engine, &broken, NULL), QN_E_FORMAT);
    assert_int_equal(qn_engine_submit(&id, engine, NULL, NULL), QN_E_INVAL);
    assert_int_equal(qn_engine_step(engine, NULL), QN_AGAIN);
    qn_engine_close(&engine);
}

int main(void)
{
    qn_log_configure(QN_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_crowd_says_what_each_says_alone),
        cmocka_unit_test(test_engine_counts_of_a_request_are_those_of_a_session),
        cmocka_unit_test(test_engine_default_depth_goes_by_what_pays),
        cmocka_unit_test(test_engine_short_of_pages_preempts_and_says_the_same),
        cmocka_unit_test(test_engine_prompts_longer_than_a_session_step_are_computed),
        cmocka_unit_test(test_engine_text_calls_and_stops_are_those_of_a_session),
        cmocka_unit_test(test_engine_prompt_alone_tells_its_logprobs_and_draws_nothing),
        cmocka_unit_test(test_engine_cancel_ends_a_request_wherever_it_is),
        cmocka_unit_test(test_engine_deadline_ends_a_request_in_the_queue_or_running),
        cmocka_unit_test(test_engine_tells_when_a_request_begins),
        cmocka_unit_test(test_engine_full_queue_says_again_and_takes_more_later),
        cmocka_unit_test(test_engine_higher_priority_goes_first),
        cmocka_unit_test(test_engine_request_without_a_possible_token_fails_alone),
        cmocka_unit_test(test_engine_answer_longer_than_the_cache_ends_by_length),
        cmocka_unit_test(test_engine_salts_part_what_is_cached),
        cmocka_unit_test(test_engine_unread_events_hold_the_next_step_and_stay),
        cmocka_unit_test(test_engine_closes_with_requests_in_every_state),
        cmocka_unit_test(test_engine_two_of_one_model_take_turns),
        cmocka_unit_test(test_engine_refuses_a_prompt_that_fills_the_context),
        cmocka_unit_test(test_engine_options_out_of_range_are_named),
        cmocka_unit_test(test_engine_fields_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
