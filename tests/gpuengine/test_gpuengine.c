/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps on an emulated GPU: tokens are those of each sequence alone, at either lag, by graphs or
 * without, and what fails ends in the right outcome.  The model is tiny and there are few tokens:
 * an emulated thread is slow.  With a name for --device as its argument on that, without failures.
 */
#include "base/clock.h"
#include "base/rng.h"
#include "engine/executor_gpu.h"
#include "gpuengine/requests.h"
#include "kernels/gpu_tuning.h"
#include "model/gpu_products.h"
#include "support/fake_gpu.h"

#include <math.h>
#include <stdio.h>

enum { N_REQUESTS = 3, N_TEXTS = 4 };

/*
 * Without is_deterministic sums go by the number of rows: logits differ by at most so much from
 * those of a sequence alone, with arithmetic in bf16, and tokens only where they are as close.
 */
static const float near_tie = 0.05F;

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};
static const qn_sampling drawn = {
    .temperature = 0.8F, .top_p = 0.9F, .repetition_penalty = 1.0F, .seed = 5};
static const qn_sampling penalised = {.temperature = 0.7F,
                                      .top_p = 1.0F,
                                      .repetition_penalty = 1.3F,
                                      .frequency_penalty = 0.5F,
                                      .seed = 11};
static const qn_sampling *const samplings[N_REQUESTS] = {&greedy, &drawn, &penalised};

static seen g_seen[N_REQUESTS];

static int open_free(void **state)
{
    g_is_free = true;
    const int result = open_model(state);
    g_is_free = false;
    return result;
}

/* A device that is lost gives nothing back. */
static int close_lost(void **state)
{
    (void)state;
    tiny_close(&g_t);
    qn_gpu_kernels_close(&g_kernels);
    qn_gpu_close(&g_gpu);
    fake_gpu_reset();
    return 0;
}

/* ------------------------------------------------------------------------------------- runners
 */

static qn_runner *open_runner(uint32_t lag, bool without_graphs)
{
    const qn_runner_options options = runner_options(lag, without_graphs);
    return open_runner_of(&options);
}

/* Where requests have to give pages back, with lag and checks. */
static qn_runner *open_small_runner(void)
{
    qn_runner_options options = runner_options(1, false);
    options.executor.n_pages = 4;
    options.executor.checks_pages = true;
    options.n_queue = 8;
    return open_runner_of(&options);
}

static int32_t g_prompts[N_REQUESTS][N_IDS_MAX];

/* Request i: one of more than a page, one with a pinned acceptance. */
static qn_runner_request request_of(uint32_t i)
{
    static const uint32_t lengths[N_REQUESTS] = {9, 66, 4};
    for (uint32_t k = 0; k < lengths[i]; k++) {
        g_prompts[i][k] = tiny_token((int32_t)i, (int32_t)k) % N_VOCAB;
    }
    return (qn_runner_request){.ids = g_prompts[i],
                               .n_ids = lengths[i],
                               .sampling = samplings[i],
                               .max_tokens = 7 + i,
                               .draft_tokens = (int)i + 1,
                               .user = &g_seen[i]};
}

static void submit(qn_runner *runner, uint32_t i, bool wants_logits)
{
    qn_request_id id = 0;
    qn_error err = {0};
    qn_runner_request request = request_of(i);
    request.wants_logits = wants_logits;
    g_seen[i] = (seen){0};
    assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
}

static void run_to_end(qn_runner *runner)
{
    for (uint32_t i = 0; qn_runner_step(runner, &sink) != QN_AGAIN; i++) {
        assert_true(i < 200);
    }
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        assert_int_equal(g_seen[i].n_ends, 1);
    }
}

/* All requests, the second some steps behind the first. */
static void run_requests(qn_runner *runner, bool wants_logits)
{
    memset(g_seen, 0, sizeof g_seen);
    submit(runner, 0, wants_logits);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
    }
    submit(runner, 1, wants_logits);
    submit(runner, 2, wants_logits);
    run_to_end(runner);
}

/* ----------------------------------------------------------------------------------- tokens */

static void answer_alone(seen *out, uint32_t i)
{
    const qn_runner_request request = request_of(i);
    answer(out, &request);
}

/* A table by which products of up to so many rows, and slots of experts, are of a variant. */
static void tune(const char *variant, uint32_t n_rows, uint32_t n_slots)
{
    char text[4096] =
        "# device: any\nop,kind,n_out,n_in,pair,groups,rows,variant,strips,splits,us\n";
    qn_gpu_product products[QN_GPU_PRODUCTS_MAX];
    qn_gpu_tuning *tuning = NULL;
    qn_error err = {0};
    const uint32_t n = qn_gpu_list_products(products, g_t.glm);
    for (uint32_t i = 0; i < n; i++) {
        const qn_gpu_tuning_key key = qn_gpu_matmul_key(&products[i].shape);
        (void)snprintf(text + strlen(text), sizeof text - strlen(text),
                       "%s,%s,%u,%u,%u,%u,%u,%s,0,0,1\n", qn_gpu_tuned_op_name(key.op),
                       qn_gpu_tuned_kind_name(key.op, key.kind), key.n_out, key.n_in, key.is_pair,
                       key.n_groups, key.op == QN_GPU_TUNED_MOE ? n_slots : n_rows, variant);
    }
    if (qn_gpu_tuning_parse(&tuning, qn_str_of(text), "table", &err) < 0) {
        fail_msg("%s", err.text);
    }
    qn_gpu_kernels_tune(g_kernels, tuning);
}

/* follow is nine kernels and three products; what has no graphs tells none. */
static void check_launches(const qn_runner *runner, bool with_graphs)
{
    const qn_engine_stats stats = qn_runner_count(runner);
    assert_int_equal(stats.n_trunk_launches > stats.n_draft_launches, with_graphs);
    assert_int_equal(stats.n_follow_launches, with_graphs ? 12 : 0);
}

/* By both lags, and by graphs and without; with lag 0 products ask for their weights early. */
static void test_gpuengine_draws_what_a_sequence_alone_draws(void **state)
{
    (void)state;
    static seen expected[N_REQUESTS];
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        answer_alone(&expected[i], i);
    }
    for (uint32_t k = 0; k < 4; k++) {
        const bool wants_logits = k == 0 || k == 3;              /* the same bits */
        tune(k % 2 == 0 ? "sm90_mma/early" : "sm90_mma", 8, 64); /* as deterministic sums */
        qn_runner *runner = open_runner(k % 2, k >= 2);
        run_requests(runner, wants_logits);
        if (g_device_name != NULL) { /* captured by now */
            const uint64_t n_before = qn_runner_count(runner).n_steps;
            const uint64_t start_ns = qn_clock_ns();
            run_requests(runner, wants_logits);
            print_message("lag %u, graphs %d, logits %d: %.3f ms a step\n", k % 2, k < 2,
                          wants_logits,
                          qn_clock_seconds(start_ns, qn_clock_ns()) * 1e3 /
                              (double)(qn_runner_count(runner).n_steps - n_before));
        }
        for (uint32_t i = 0; i < N_REQUESTS; i++) {
            const seen *const s = &g_seen[i];
            const float logit_sum = wants_logits ? expected[i].logit_sum : 0.0F;
            assert_int_equal(s->reason, QN_SCHED_END_LENGTH);
            assert_int_equal(s->n_ids, 7 + i);
            assert_memory_equal(s->ids, expected[i].ids, s->n_ids * sizeof *s->ids);
            assert_memory_equal(&s->logit_sum, &logit_sum, sizeof logit_sum);
            assert_true(s->stats.n_drafted > 0);
        }
        check_launches(runner, k < 2);
        qn_runner_close(&runner);
    }
}

/* Tokens and logits up to the first token that is another; returns whether there is one. */
static bool check_near(const seen *s, const seen *expected, bool is_greedy, float *most)
{
    assert_int_equal(s->n_ids, expected->n_ids);
    for (uint32_t i = 0; i < s->n_ids; i++) {
        for (uint32_t k = 0; k < N_VOCAB; k++) {
            const float difference = fabsf(s->logits[i][k] - expected->logits[i][k]);
            *most = difference > *most ? difference : *most;
        }
        assert_true(*most <= near_tie);
        if (s->ids[i] != expected->ids[i]) {
            const float *const logits = expected->logits[i];
            assert_true(!is_greedy || logits[expected->ids[i]] - logits[s->ids[i]] <= near_tie);
            return true;
        }
    }
    return false;
}

/* Two prompts alike, computed in steps of other rows: a page of one stands for both. */
static void check_exchange(void)
{
    qn_runner *runner = open_runner(0, false); /* pages are checked */
    qn_request_id id = 0;
    qn_error err = {0};
    memset(g_seen, 0, sizeof g_seen);
    for (uint32_t i = 1; i < N_REQUESTS; i++) {
        qn_runner_request request = request_of(1);
        request.user = &g_seen[i];
        assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
    }
    g_seen[0].n_ends = 1; /* not asked for */
    run_to_end(runner);
    assert_true(qn_runner_count(runner).n_exchanged > 0);
    assert_int_equal(g_seen[1].reason, QN_SCHED_END_LENGTH);
    assert_int_equal(g_seen[2].reason, QN_SCHED_END_LENGTH);
    qn_runner_close(&runner);
}

/* Sums that go by the number of rows: as near as they are said to be. */
static void test_gpuengine_is_near_where_bits_are_free(void **state)
{
    (void)state;
    static seen expected[N_REQUESTS];
    float most = 0.0F;
    uint32_t n_other = 0;
    if (g_device_name == NULL) { /* tiny shapes have one plan for any number of rows */
        tune("plain", 1, 2);     /* another order of sums than that of more */
    }
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        answer_alone(&expected[i], i);
    }
    for (uint32_t k = 0; k < 4; k++) {
        qn_runner *runner = open_runner(k % 2, k >= 2);
        run_requests(runner, true);
        run_requests(runner, true); /* behind pages that were exchanged or shared */
        for (uint32_t i = 0; i < N_REQUESTS; i++) {
            assert_int_equal(g_seen[i].reason, QN_SCHED_END_LENGTH);
            n_other += check_near(&g_seen[i], &expected[i], i == 0, &most) ? 1 : 0;
        }
        qn_runner_close(&runner);
    }
    check_exchange();
    assert_true(most > 0.0F || g_device_name != NULL);
    print_message("logits differ by at most %g, %u of 12 answers\n", (double)most, n_other);
}

/* Drafts that are taken unseen: what stands behind them is as if they had been right. */
static void test_gpuengine_pins_acceptance_as_a_generator_does(void **state)
{
    (void)state;
    seen expected;
    qn_runner_request request = request_of(0);
    request.max_tokens = 14;
    request.draft_tokens = 3;
    request.acceptance_length = 2.4F;
    answer(&expected, &request);
    for (uint32_t lag = 0; lag < 2; lag++) {
        qn_runner *runner = open_runner(lag, false);
        qn_request_id id = 0;
        qn_error err = {0};
        g_seen[0] = (seen){0};
        assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
        while (qn_runner_step(runner, &sink) != QN_AGAIN) {
        }
        /* Where the end is near, fewer drafts are made and taken. */
        assert_memory_equal(g_seen[0].ids, expected.ids, 9 * sizeof(int32_t));
        assert_true(g_seen[0].stats.n_accepted >= 5);
        qn_runner_close(&runner);
    }
}

static void test_gpuengine_stops_at_an_id(void **state)
{
    (void)state;
    seen expected;
    answer_alone(&expected, 1);
    for (uint32_t lag = 0; lag < 2; lag++) {
        qn_runner *runner = open_runner(lag, false);
        qn_runner_request request = request_of(1);
        qn_request_id id = 0;
        qn_error err = {0};
        uint32_t n = 0;
        while (expected.ids[n++] != expected.ids[3]) {
        }
        request.stop_ids = &expected.ids[3];
        request.n_stop_ids = 1;
        g_seen[1] = (seen){0};
        assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
        while (qn_runner_step(runner, &sink) != QN_AGAIN) {
        }
        assert_int_equal(g_seen[1].reason, QN_SCHED_END_STOP);
        assert_int_equal(g_seen[1].n_ids, n);
        qn_runner_close(&runner);
    }
}

/* A graph has one number of positions: also where contexts are far longer than the extents. */
static void test_gpuengine_an_extent_is_one_number_of_positions(void **state)
{
    static const uint32_t topks[] = {16, 512, 2048};
    static const uint32_t contexts[] = {N_IDS_MAX, 1U << 17, 1U << 20};
    (void)state;
    for (size_t i = 0; i < 9; i++) {
        const uint32_t n_max = contexts[i % 3];
        uint32_t seen_of[QN_PASS_EXTENTS] = {0};
        for (uint64_t n = 1; n <= n_max; n += 1 + n / 3) {
            uint32_t n_positions = (uint32_t)n;
            const uint32_t extent = qn_gpu_steps_extent(topks[i / 3], n_max, &n_positions);
            assert_true(extent < QN_PASS_EXTENTS);
            assert_in_range(n_positions, n, n_max);
            assert_true(seen_of[extent] == 0 || seen_of[extent] == n_positions);
            seen_of[extent] = n_positions;
        }
    }
}

/* Graphs are of a workspace, which may be replaced while a step is under way. */
static void test_gpuengine_goes_on_in_another_workspace(void **state)
{
    (void)state;
    seen expected;
    qn_error err = {0};
    answer_alone(&expected, 0);
    qn_runner *runner = open_runner(1, false);
    g_seen[1].n_ends = g_seen[2].n_ends = 1;
    for (uint32_t i = 0; i < 3; i++) {
        submit(runner, 0, false);
        for (uint32_t k = 0; k < 3; k++) {
            assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
        }
        assert_int_equal(qn_glm_reserve(g_t.glm, N_ROWS + 8 * (i + 1), &err), QN_OK);
        run_to_end(runner);
        assert_int_equal(g_seen[0].n_ids, 7);
        assert_memory_equal(g_seen[0].ids, expected.ids, 7 * sizeof(int32_t));
    }
    qn_runner_close(&runner);
}

/* ---------------------------------------------------------------------------------- failures */

/* A pass for a sequence of its own fails once: its request says so, and the next is right. */
static void test_gpuengine_a_generator_goes_on_behind_a_pass_that_failed(void **state)
{
    static const size_t moments[] = {3, 60, 140};
    (void)state;
    const qn_sequence_options options = {.kernels = &g_t.kernels,
                                         .kv_dtype = QN_KV_BF16,
                                         .n_tokens_max = N_IDS_MAX,
                                         .n_rows_max = 16};
    const qn_runner_request like = request_of(1); /* several passes for the prompt */
    const qn_generator_request request = {.ids = like.ids,
                                          .n_ids = like.n_ids,
                                          .sampling = like.sampling,
                                          .max_tokens = like.max_tokens};
    seen expected;
    seen heard;
    const qn_generator_sink ears = {.context = &heard, .token = hear_token};
    qn_generator *generator = NULL;
    answer_alone(&expected, 1);
    qn_error err = {0};
    assert_int_equal(qn_generator_open(&generator, g_t.glm, &options, &err), QN_OK);
    for (size_t i = 0; i < 2 * sizeof moments / sizeof *moments; i++) {
        const bool fails = i % 2 == 0;
        qn_status status = QN_OK;
        heard = (seen){0};
        qn_generator_begin(generator, &request);
        fake_gpu_fail("launch", fails ? moments[i / 2] : SIZE_MAX, FAKE_GPU_INVALID);
        while (status == QN_OK && qn_generator_state_of(generator) != QN_GENERATOR_IDLE) {
            status = qn_generator_step(generator, &ears, &err);
        }
        assert_int_equal(status, fails ? QN_E_DEVICE : QN_OK);
        assert_true(fails ? heard.n_ids < expected.n_ids : heard.n_ids == expected.n_ids);
        assert_memory_equal(heard.ids, expected.ids, heard.n_ids * sizeof *heard.ids);
    }
    qn_generator_close(&generator);
}

/* Each call of the driver fails at several moments: requests end once, and the next is answered. */
static void test_gpuengine_goes_on_behind_a_step_that_failed(void **state)
{
    static const char *const calls[] = {"launch",        "upload",       "download",
                                        "copy",          "event_record", "event_wait",
                                        "capture_begin", "capture_end",  "graph_launch"};
    static const size_t moments[] = {0, 2, 9, 140};
    (void)state;
    seen expected;
    uint32_t n_failed = 0;
    answer_alone(&expected, 0);
    qn_runner *runner = open_runner(1, false);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (size_t k = 0; k < sizeof moments / sizeof *moments; k++) {
            memset(g_seen, 0, sizeof g_seen);
            submit(runner, 0, false);
            assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
            fake_gpu_fail(calls[i], moments[k], FAKE_GPU_INVALID);
            submit(runner, 2, false);
            g_seen[1].n_ends = 1; /* it is not asked for */
            run_to_end(runner);
            n_failed += g_seen[0].reason == QN_SCHED_END_ERROR ? 1 : 0;
            fake_gpu_fail(calls[i], SIZE_MAX, 0);
        }
        memset(g_seen, 0, sizeof g_seen);
        submit(runner, 0, false);
        g_seen[1].n_ends = g_seen[2].n_ends = 1;
        run_to_end(runner);
        assert_int_equal(g_seen[0].reason, QN_SCHED_END_LENGTH);
        assert_memory_equal(g_seen[0].ids, expected.ids, 7 * sizeof(int32_t));
    }
    assert_true(n_failed > 10);
    assert_false(qn_runner_count(runner).is_lost);
    qn_runner_close(&runner);
}

/* What kept one pass from being captured once does not keep it for good. */
static void test_gpuengine_captures_again_what_it_could_not(void **state)
{
    static const uint32_t n_captured[] = {2, 1,
                                          0}; /* trunk and follow; the trunk; both are there */
    (void)state;
    qn_runner *runner = open_runner(0, false);
    qn_runner_request request = request_of(0);
    qn_request_id id = 0;
    qn_error err = {0};
    request.max_tokens = QN_PASS_RETRY / 2 + 4; /* of one extent */
    request.draft_tokens = 0;
    fake_gpu.keeps_calls = true;
    uint32_t n_before = count_calls("capture_end");
    for (uint32_t i = 0; i < 3; i++) {
        g_seen[0] = (seen){.n_ids = 0};
        fake_gpu_fail("capture_end", i == 0 ? 0 : SIZE_MAX, FAKE_GPU_INVALID);
        g_seen[1].n_ends = g_seen[2].n_ends = 1;
        assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
        run_to_end(runner);
        assert_int_equal(g_seen[0].reason, QN_SCHED_END_LENGTH);
        assert_int_equal(count_calls("capture_end") - n_before, n_captured[i]);
        n_before = count_calls("capture_end");
    }
    fake_gpu.keeps_calls = false;
    qn_runner_close(&runner);
}

/* What a step may not do: to capture, to make a graph of it, to allocate and to wait. */
static const char *const not_in_steps[] = {
    "capture_begin", "capture_end", "graph_ready", "alloc",
    "alloc_host",    "free_memory", "free_host",
#ifdef NDEBUG /* else pages have checksums, which wait for them */
    "stream_wait",
#endif
};
enum { N_NOT_IN_STEPS = sizeof not_in_steps / sizeof *not_in_steps };

/* Request i, the second with fewer ids than a page and more with its answer: another extent. */
static qn_runner_request request_that_grows(uint32_t i)
{
    qn_runner_request request = request_of(i);
    if (i == 1) {
        request.n_ids = QN_PAGE_TOKENS - 5;
        request.max_tokens = 12;
    }
    return request;
}

/* What open captures no step does, whatever its extent, nor does one allocate or wait for a stream,
 * and answers are the same. */
static void test_gpuengine_captures_before_it_is_asked(void **state)
{
    (void)state;
    static seen expected[N_REQUESTS];
    qn_runner_options options = runner_options(1, false);
    qn_request_id id = 0;
    qn_error err = {0};
    uint32_t n_before[N_NOT_IN_STEPS];
    /* Rows 1, 2, 4 of as many slots with all passes; 8, 16, 24, 32, 36 of trunk and follow; with up
     * to 4, 16 times index_topk and more positions. */
    const uint32_t n_graphs = 3 * (3 * QN_N_PASSES + 5 * 2);
    options.executor.captures_early = true;
    options.executor.n_context = 6 * QN_PAGE_TOKENS + 1; /* a table of 448 positions */
    fake_gpu.keeps_calls = true;
    qn_runner *runner = open_runner_of(&options);
    assert_int_equal(count_calls("graph_ready"), n_graphs);
    for (uint32_t i = 0; i < N_NOT_IN_STEPS; i++) {
        n_before[i] = count_calls(not_in_steps[i]);
    }
    assert_true(count_calls("alloc") > 0 && count_calls("alloc_host") > 0); /* they are counted */
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        const qn_runner_request request = request_that_grows(i);
        g_seen[i] = (seen){0};
        assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
    }
    run_to_end(runner);
    for (uint32_t i = 0; i < N_NOT_IN_STEPS; i++) {
        assert_int_equal(count_calls(not_in_steps[i]), n_before[i]);
    }
    assert_true(count_calls("graph_launch") > 0);
    qn_runner_close(&runner);
    assert_int_equal(count_calls("exec_close"), n_graphs); /* there was room for all calls */
    fake_gpu.keeps_calls = false;
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        const qn_runner_request request = request_that_grows(i);
        answer(&expected[i], &request);
        assert_int_equal(g_seen[i].n_ids, request.max_tokens);
        assert_memory_equal(g_seen[i].ids, expected[i].ids, g_seen[i].n_ids * sizeof(int32_t));
    }
}

/* Where open stops at one that cannot be captured, in any extent, the steps capture what they
 * need. */
static void test_gpuengine_captures_what_open_could_not(void **state)
{
    static const size_t moments[] = {1, 3 * QN_N_PASSES + 5 * 2 + 1};
    (void)state;
    seen expected;
    qn_runner_options options = runner_options(1, false);
    options.executor.captures_early = true;
    answer_alone(&expected, 1);
    fake_gpu.keeps_calls = true;
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        fake_gpu_fail("capture_end", moments[i], FAKE_GPU_INVALID);
        const uint32_t n_before = count_calls("capture_end");
        qn_runner *runner = open_runner_of(&options);
        assert_int_equal(count_calls("capture_end") - n_before, moments[i] + 1);
        fake_gpu_fail("capture_end", SIZE_MAX, 0);
        submit(runner, 1, false);
        g_seen[0].n_ends = g_seen[2].n_ends = 1; /* not asked for */
        run_to_end(runner);
        assert_memory_equal(g_seen[1].ids, expected.ids, g_seen[1].n_ids * sizeof(int32_t));
        assert_true(count_calls("capture_end") - n_before > moments[i] + 1);
        qn_runner_close(&runner);
    }
    fake_gpu.keeps_calls = false;
}

/* A request whose tokens and rows are told with their logits. */
static void run_for_logits(qn_runner *runner, const char *call, size_t n_more)
{
    qn_request_id id = 0;
    qn_error err = {0};
    qn_runner_request request = request_of(0);
    request.max_tokens = 4;
    request.wants_logits = request.wants_prompt_logits = true;
    g_seen[0] = (seen){0};
    assert_int_equal(qn_runner_submit(&id, runner, &request, &err), QN_OK);
    fake_gpu_fail(call, n_more, FAKE_GPU_INVALID);
    g_seen[1].n_ends = g_seen[2].n_ends = 1;
    run_to_end(runner);
}

/* Wherever a call fails, what is told of an answer that ends well is right, its logits too. */
static void test_gpuengine_tells_no_logits_that_are_not_there(void **state)
{
    static const char *const calls[] = {"download", "copy", "stream_wait", "launch"};
    (void)state;
    for (uint32_t lag = 0; lag < 2; lag++) {
        qn_runner *runner = open_runner(lag, false);
        run_for_logits(runner, "launch", SIZE_MAX);
        run_for_logits(runner, "launch", SIZE_MAX); /* behind a cached page or not: captured */
        const seen expected = g_seen[0];
        assert_int_equal(expected.reason, QN_SCHED_END_LENGTH);
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
            bool has_failed = true;
            for (size_t n = 0; has_failed; n++) {
                run_for_logits(runner, calls[i], n);
                has_failed = fake_gpu_has_failed();
                const bool ended_well = g_seen[0].reason == QN_SCHED_END_LENGTH;
                assert_true(ended_well || g_seen[0].reason == QN_SCHED_END_ERROR);
                assert_true(ended_well || has_failed);
                if (ended_well) {
                    assert_memory_equal(g_seen[0].ids, expected.ids, 4 * sizeof(int32_t));
                    assert_memory_equal(&g_seen[0].logit_sum, &expected.logit_sum, sizeof(float));
                }
                assert_true(n < 1000);
            }
        }
        fake_gpu_fail("launch", SIZE_MAX, 0);
        qn_runner_close(&runner);
    }
}

/* Every read of a page fails once, as it is published or compared: that says nothing about it. */
static void test_gpuengine_a_page_that_is_not_read_is_not_a_wrong_one(void **state)
{
    (void)state;
    seen expected;
    uint32_t n_failed = 0;
    bool has_failed = true;
    answer_alone(&expected, 1);
    for (size_t n = 0; has_failed; n++) {
        qn_runner *runner = open_small_runner();
        g_seen[0].n_ends = g_seen[2].n_ends = 1;
        fake_gpu_fail("download", n, FAKE_GPU_INVALID);
        for (uint32_t i = 0; i < 3; i++) { /* the first publishes, the others share */
            submit(runner, 1, false);
            run_to_end(runner);
            n_failed += g_seen[1].reason == QN_SCHED_END_ERROR ? 1 : 0;
            assert_memory_equal(g_seen[1].ids, expected.ids, g_seen[1].n_ids * sizeof(int32_t));
        }
        has_failed = fake_gpu_has_failed();
        fake_gpu_fail("download", SIZE_MAX, 0);
        qn_runner_close(&runner);
    }
    assert_true(n_failed > 10);
}

/* A kernel that fails takes the device with it: all end with an error, and so does what comes. */
static void test_gpuengine_ends_all_when_the_device_is_lost(void **state)
{
    (void)state;
    qn_runner *runner = open_runner(1, false);
    memset(g_seen, 0, sizeof g_seen);
    submit(runner, 0, false);
    submit(runner, 1, false);
    assert_int_equal(qn_runner_step(runner, &sink), QN_OK);
    fake_gpu_fail("kernel", 30, FAKE_GPU_STICKY);
    g_seen[2].n_ends = 1;
    run_to_end(runner);
    assert_int_equal(g_seen[0].reason, QN_SCHED_END_ERROR);
    assert_int_equal(g_seen[1].reason, QN_SCHED_END_ERROR);
    g_seen[2].n_ends = 0;
    submit(runner, 2, false);
    run_to_end(runner);
    assert_int_equal(g_seen[2].reason, QN_SCHED_END_ERROR);
    assert_true(qn_runner_count(runner).is_lost);
    qn_runner_close(&runner);
}

/* ------------------------------------------------------------------------------- all at once */

enum { N_KINDS = 7, N_CHAOS = 40 };

/* A request among many: of a kind, and how it is to end. */
typedef struct chaotic {
    seen seen;
    qn_request_id id;
    uint32_t kind;
    uint32_t n_wanted; /* tokens after which its sink wants no more; 0: all */
} chaotic;

static int32_t g_kind_ids[N_KINDS][N_IDS_MAX];
static uint64_t g_n_random;

static uint32_t pick(uint32_t n)
{
    return (uint32_t)(qn_rng_u64(6, 0, g_n_random++) % n);
}

/* Most begin with the same page. */
static qn_runner_request request_of_kind(uint32_t kind)
{
    static const uint32_t lengths[N_KINDS] = {9, 66, 70, 100, 64, 3, 69};
    for (uint32_t i = 0; i < lengths[kind]; i++) {
        const bool is_shared = kind != 0 && kind != 5 && i < QN_PAGE_TOKENS;
        g_kind_ids[kind][i] = tiny_token(is_shared ? 50 : (int32_t)kind, (int32_t)i) % 96;
    }
    return (qn_runner_request){.ids = g_kind_ids[kind],
                               .n_ids = lengths[kind],
                               .sampling = samplings[kind % N_REQUESTS],
                               .max_tokens = 5 + 3 * kind,
                               .draft_tokens = (int)(kind % 5)};
}

static bool take_token(void *context, void *user, int32_t token, uint32_t position,
                       const float *logits, const qn_sampler *sampler, bool is_stop)
{
    chaotic *const c = user;
    (void)see_token(context, &c->seen, token, position, logits, sampler, is_stop);
    return c->seen.n_ids != c->n_wanted;
}

static void take_end(void *context, void *user, qn_sched_end_reason reason,
                     const qn_session_stats *stats, const qn_error *error)
{
    see_end(context, &((chaotic *)user)->seen, reason, stats, error);
}

static const qn_runner_sink chaotic_sink = {.token = take_token, .end = take_end};

/* Submit all, with steps, failures and cancellations between. */
static void run_chaos(qn_runner *runner, chaotic *all)
{
    static const char *const calls[] = {"launch",     "upload",       "download",
                                        "copy",       "fill",         "event_record",
                                        "event_wait", "graph_launch", "capture_end"};
    for (uint32_t n = 0; n < N_CHAOS;) {
        chaotic *const c = &all[n];
        qn_error err = {0};
        c->kind = pick(N_KINDS);
        c->n_wanted = pick(4) == 0 ? 1 + pick(5) : 0;
        qn_runner_request request = request_of_kind(c->kind);
        request.user = c;
        request.wants_logits = pick(12) == 0;
        request.priority = (int)pick(3);
        n += qn_runner_submit(&c->id, runner, &request, &err) == QN_OK ? 1 : 0;
        if (pick(6) == 0) {
            fake_gpu_fail(calls[pick(sizeof calls / sizeof *calls)], pick(60), FAKE_GPU_INVALID);
        }
        for (uint32_t k = pick(5); k > 0; k--) {
            (void)!qn_runner_step(runner, &chaotic_sink);
        }
        if (pick(6) == 0) {
            qn_runner_cancel(runner, all[pick(n + 1)].id); /* ended, or none: nothing happens */
        }
    }
    fake_gpu_fail("any", SIZE_MAX, 0);
    for (uint32_t i = 0; qn_runner_step(runner, &chaotic_sink) != QN_AGAIN; i++) {
        assert_true(i < 5000);
    }
}

/*
 * Few pages for many requests of a common beginning, some of which are cancelled, stopped or hit by
 * a failure: every one ends once, its tokens are those of a sequence alone, and pages hold what was
 * published.
 */
static void test_gpuengine_tokens_are_right_whatever_happens_around_them(void **state)
{
    (void)state;
    static seen expected[N_KINDS];
    static chaotic all[N_CHAOS + 1];
    for (uint32_t k = 0; k < N_KINDS; k++) {
        const qn_runner_request request = request_of_kind(k);
        answer(&expected[k], &request);
    }
    uint32_t n_of[QN_SCHED_END_ERROR + 1] = {0};
    memset(all, 0, sizeof all);
    g_n_random = 0;
    qn_runner *runner = open_small_runner();
    run_chaos(runner, all);
    for (uint32_t i = 0; i < N_CHAOS; i++) {
        const seen *const s = &all[i].seen;
        assert_int_equal(s->n_ends, 1);
        assert_true(s->n_ids <= expected[all[i].kind].n_ids);
        assert_memory_equal(s->ids, expected[all[i].kind].ids, s->n_ids * sizeof *s->ids);
        if (s->reason == QN_SCHED_END_LENGTH) {
            assert_int_equal(s->n_ids, expected[all[i].kind].n_ids);
        }
        assert_true(s->reason <= QN_SCHED_END_ERROR);
        n_of[s->reason]++;
    }
    const qn_engine_stats stats = qn_runner_count(runner);
    assert_true(stats.n_preempted > 0 && stats.n_cached_tokens > 0 && stats.n_exchanged > 0);
    assert_true(n_of[QN_SCHED_END_LENGTH] > 5 && n_of[QN_SCHED_END_CANCEL] > 1);
    assert_true(n_of[QN_SCHED_END_ERROR] > 1);
    qn_runner_close(&runner);
}

static qn_status open_and_close(qn_error *err)
{
    const qn_executor_options options = runner_options(1, false).executor;
    qn_executor *executor = NULL;
    const qn_status status = qn_executor_open(&executor, g_t.glm, &options, err);
    assert_int_equal(executor != NULL, status == QN_OK);
    qn_executor_close(&executor);
    return status;
}

/* What a default page cache leaves for it. */
static void test_gpuengine_device_bytes_are_known_before(void **state)
{
    (void)state;
    for (uint32_t n_slots = 1; n_slots <= 64; n_slots *= 8) {
        qn_executor_options options = runner_options(1, false).executor;
        options.n_slots = n_slots;
        options.with_mtp = n_slots > 1;
        qn_executor *executor = NULL;
        qn_error err = {0};
        const uint64_t before_bytes = fake_gpu_used_bytes();
        assert_int_equal(qn_executor_open(&executor, g_t.glm, &options, &err), QN_OK);
        assert_int_equal(fake_gpu_used_bytes() - before_bytes,
                         qn_executor_device_bytes(g_t.glm, &options) +
                             options.n_pages * qn_executor_page_bytes(executor));
        qn_executor_close(&executor);
    }
}

/* Likewise for graphs, by how many there are. */
static void test_gpuengine_graphs_have_room_by_their_number(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_context;
        bool with_mtp;
        uint32_t n_layers; /* of all graphs: two of each trunk, one of others */
    } cases[] = {
        {QN_PAGE_TOKENS, true, 8 * 3 + 3 * QN_DRAFT_TOKENS_MAX},
        {QN_PAGE_TOKENS, false, 8 * 2},
        {4 * QN_PAGE_TOKENS, true, 2 * (8 * 3 + 3 * QN_DRAFT_TOKENS_MAX)},
        {16 * QN_PAGE_TOKENS, true, 3 * (8 * 3 + 3 * QN_DRAFT_TOKENS_MAX)},
    };
    qn_executor_options options = runner_options(1, false).executor;
    assert_int_equal(qn_executor_graph_bytes(g_t.glm, &options), 0);
    options.captures_early = true;
    options.n_pages = 0; /* it is asked before they are chosen */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        options.n_context = cases[i].n_context;
        options.with_mtp = cases[i].with_mtp;
        assert_int_equal(qn_executor_graph_bytes(g_t.glm, &options),
                         cases[i].n_layers * QN_PASS_LAYER_BYTES);
    }
    options.without_graphs = true;
    assert_int_equal(qn_executor_graph_bytes(g_t.glm, &options), 0);
}

static void test_gpuengine_what_cannot_be_opened_is_said(void **state)
{
    static const char *const calls[] = {"alloc", "alloc_host", "event_open"};
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool has_failed = true;
        for (size_t n = 0; has_failed; n++) {
            qn_error err = {0};
            fake_gpu_fail(calls[i], n, FAKE_GPU_NO_MEMORY);
            const qn_status status = open_and_close(&err);
            has_failed = fake_gpu_has_failed();
            assert_int_equal(status, has_failed ? QN_E_NOMEM : QN_OK);
            fake_gpu_fail(calls[i], SIZE_MAX, 0);
        }
    }
}

#define TEST(test)      cmocka_unit_test_setup_teardown(test, open_model, close_model)
#define TEST_FREE(test) cmocka_unit_test_setup_teardown(test, open_free, close_model)

int main(int argc, char **argv)
{
    const struct CMUnitTest on_device[] = {
        TEST(test_gpuengine_draws_what_a_sequence_alone_draws),
        TEST_FREE(test_gpuengine_is_near_where_bits_are_free),
        TEST(test_gpuengine_pins_acceptance_as_a_generator_does),
        TEST(test_gpuengine_stops_at_an_id),
    };
    const struct CMUnitTest emulated[] = {
        TEST(test_gpuengine_draws_what_a_sequence_alone_draws),
        TEST_FREE(test_gpuengine_is_near_where_bits_are_free),
        TEST(test_gpuengine_pins_acceptance_as_a_generator_does),
        TEST(test_gpuengine_stops_at_an_id),
        cmocka_unit_test(test_gpuengine_an_extent_is_one_number_of_positions),
        TEST(test_gpuengine_goes_on_in_another_workspace),
        TEST(test_gpuengine_captures_again_what_it_could_not),
        TEST(test_gpuengine_captures_before_it_is_asked),
        TEST(test_gpuengine_captures_what_open_could_not),
        TEST(test_gpuengine_device_bytes_are_known_before),
        TEST(test_gpuengine_graphs_have_room_by_their_number),
        cmocka_unit_test_setup_teardown(test_gpuengine_ends_all_when_the_device_is_lost, open_model,
                                        close_lost),
    };
    const struct CMUnitTest failures[] = {
        /* Every call fails in turn, or everything happens at once: these take long. */
        TEST(test_gpuengine_a_generator_goes_on_behind_a_pass_that_failed),
        TEST(test_gpuengine_tokens_are_right_whatever_happens_around_them),
        TEST(test_gpuengine_goes_on_behind_a_step_that_failed),
        TEST(test_gpuengine_tells_no_logits_that_are_not_there),
        TEST(test_gpuengine_what_cannot_be_opened_is_said),
        TEST(test_gpuengine_a_page_that_is_not_read_is_not_a_wrong_one),
    };
    if (argc > 1 && strcmp(argv[1], "failures") == 0) {
        return cmocka_run_group_tests(failures, NULL, NULL);
    }
    if (argc > 1) {
        g_device_name = argv[1];
        return cmocka_run_group_tests(on_device, NULL, NULL);
    }
    return cmocka_run_group_tests(emulated, NULL, NULL);
}
