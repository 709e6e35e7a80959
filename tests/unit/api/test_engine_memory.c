/* SPDX-License-Identifier: Apache-2.0 */
/* What an engine says of its memory and its work is so: pages, and beside them what it tells. */
#include "crowd.h"

/* Sanitizers take memory of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER true
#elif defined(__has_feature) /* clang's way to say so */
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_SANITIZER true
#endif
#endif
#ifndef HAS_SANITIZER
#define HAS_SANITIZER false
#endif

enum { VOCAB = 16384, N_PROMPT = 200, N_SEQUENCES = 16 };

static qn_model *g_model; /* the tiny configuration with a vocabulary that logits are large of */
static int32_t g_prompts[N_SEQUENCES][N_PROMPT];
static crowd g_crowd;

static int open_model(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    char config[sizeof tiny_config + 8];
    const char *const vocab = strstr(tiny_config, "\"vocab_size\": 97");
    assert_non_null(vocab);
    (void)snprintf(config, sizeof config, "%.*s\"vocab_size\": %d%s", (int)(vocab - tiny_config),
                   tiny_config, VOCAB, vocab + strlen("\"vocab_size\": 97"));
    folder_make(dir);
    folder_write(dir, "config.json", config);
    const qn_model_options options = {.use_dummy_weights = true, .dummy_seed = 3, .n_threads = 2};
    qn_error err = {0};
    if (qn_model_open(&g_model, dir, &options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    folder_remove(dir);
    for (int32_t i = 0; i < N_SEQUENCES; i++) {
        for (int32_t k = 0; k < N_PROMPT; k++) {
            g_prompts[i][k] = (i * 977 + k * 31 + k * k % 13) % (VOCAB - 1);
        }
    }
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    qn_model_close(&g_model);
    return 0;
}

static uint64_t resident_bytes(void)
{
    unsigned long long n_pages = 0;
    FILE *const file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %llu", &n_pages), 1);
    assert_int_equal(fclose(file), 0);
    return n_pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t told_bytes(const qn_engine *engine)
{
    const qn_engine_stats s = qn_engine_get_stats(engine);
    const uint64_t n_pages = s.n_pages_free + s.n_pages_used + s.n_pages_cached;
    return n_pages * s.page_bytes + s.workspace_bytes;
}

/* Found by review: logits had room for every row of a step and stayed, up to gigabytes. */
static void test_engine_takes_no_more_than_pages_and_what_it_tells(void **state)
{
    (void)state;
    const uint64_t before_bytes = resident_bytes();
    uint64_t round_bytes = before_bytes;
    uint64_t last_bytes = 0;
    const qn_engine_options options = {
        .n_sequences = N_SEQUENCES, .n_step_rows = 4096, .cache_bytes = 1 << 20};
    qn_engine *engine = open_engine(g_model, &options);
    const uint64_t logits_bytes = (uint64_t)options.n_step_rows * VOCAB * sizeof(float);
    assert_true(qn_engine_get_stats(engine).workspace_bytes < logits_bytes);
    for (int round = 0; round < 4; round++) {
        crowd_clear(&g_crowd);
        for (uint32_t i = 0; i < N_SEQUENCES; i++) {
            crowd_submit(&g_crowd, engine,
                         &(qn_request){.ids = g_prompts[i],
                                       .n_ids = N_PROMPT,
                                       .max_tokens = 10,
                                       .draft_tokens = round == 1 ? QN_DRAFT_TOKENS_MAX : 0,
                                       .ignore_eos = true,
                                       .wants_prompt_logprobs = round != 1});
        }
        crowd_finish(&g_crowd, engine);
        last_bytes = round_bytes;
        round_bytes = resident_bytes();
        assert_true(HAS_SANITIZER || round_bytes <= before_bytes + told_bytes(engine));
    }
    assert_true(HAS_SANITIZER || round_bytes <= last_bytes + (1 << 20)); /* it is at rest */
    assert_int_equal(g_crowd.said[3].said.n_prompt, N_PROMPT);
    qn_engine_close(&engine);
}

static void test_engine_tells_more_of_larger_sizes(void **state)
{
    (void)state;
    static const qn_engine_options options[] = {
        {.n_sequences = 8, .n_step_rows = 512, .cache_bytes = 1 << 20},
        {.n_sequences = 9, .n_step_rows = 512, .cache_bytes = 1 << 20},
        {.n_sequences = 8, .n_step_rows = 8192, .cache_bytes = 1 << 20},
        {.n_sequences = 8, .n_step_rows = 512, .n_queue = 4096, .cache_bytes = 1 << 20},
    };
    uint64_t first_bytes = 0;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        qn_engine *engine = open_engine(g_model, &options[i]);
        const uint64_t n_bytes = qn_engine_get_stats(engine).workspace_bytes;
        assert_true(n_bytes > first_bytes);
        first_bytes = i == 0 ? n_bytes : first_bytes;
        qn_engine_close(&engine);
    }
}

/* A prompt alone is drawn from, as the scheduler has no other requests, and nobody is told. */
static void test_engine_counts_no_token_of_a_prompt_alone(void **state)
{
    (void)state;
    qn_engine *engine = open_engine(g_model, NULL);
    qn_request request = {.ids = g_prompts[0], .n_ids = N_PROMPT, .prompt_only = true};
    crowd_clear(&g_crowd);
    crowd_submit(&g_crowd, engine, &request);
    crowd_submit(&g_crowd, engine, &request);
    request.prompt_only = false;
    request.max_tokens = 3;
    request.ignore_eos = true;
    crowd_submit(&g_crowd, engine, &request);
    crowd_finish(&g_crowd, engine);
    const qn_engine_stats stats = qn_engine_get_stats(engine);
    assert_int_equal(stats.n_generated_tokens, 3);
    assert_true(stats.n_exchanged > 0); /* three computed the same pages */
    assert_int_equal(stats.n_recomputed_tokens, 0);
    qn_engine_close(&engine);
}

int main(void)
{
    qn_log_configure(QN_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_takes_no_more_than_pages_and_what_it_tells),
        cmocka_unit_test(test_engine_tells_more_of_larger_sizes),
        cmocka_unit_test(test_engine_counts_no_token_of_a_prompt_alone),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
