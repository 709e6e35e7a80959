/* SPDX-License-Identifier: Apache-2.0 */
/* A sequence of its own on an emulated GPU: what is told of passes that fail, which is nothing. */
#include "engine/generator.h"
#include "gpuengine/fixture.h"

#include <math.h>

enum { N_IDS = 27, N_IDS_MAX = 32 }; /* more than the indexer leaves */

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};

static qn_status hear_rows(void *context, uint32_t position, uint32_t n_rows, const int32_t *ids,
                           const float *logits, qn_error *err)
{
    (void)context;
    (void)position;
    (void)ids;
    (void)err;
    for (size_t i = 0; logits != NULL && i < (size_t)n_rows * N_VOCAB; i++) {
        assert_true(isfinite(logits[i]) != 0);
    }
    return QN_OK;
}

static bool hear_numbers(void *context, int32_t token, uint32_t position, const float *logits,
                         bool is_stop)
{
    assert_true(isfinite(logits[token]) != 0);
    (void)context;
    (void)position;
    (void)is_stop;
    return true;
}

static void look_at_hidden(void *context, int32_t i_layer, const float *x)
{
    (void)context;
    (void)i_layer;
    assert_true(isfinite(x[0]) && x[0] != 0.0F);
}

static void look_at_experts(void *context, int32_t i_layer, uint32_t i_row, int32_t *experts,
                            const float *scores)
{
    (void)context;
    (void)i_layer;
    (void)i_row;
    (void)scores;
    assert_true(experts[0] != experts[1]);
}

static void look_at_set(void *context, int32_t i_layer, uint32_t i_row, int32_t *set,
                        uint32_t n_set, const float *scores)
{
    (void)context;
    (void)i_layer;
    (void)i_row;
    /* Without scores where all positions are taken: none is left out. */
    assert_true(scores != NULL || set[n_set - 1] == (int32_t)n_set - 1);
}

static const qn_probe *offer_probe(void *context, uint32_t n_rows)
{
    static const qn_probe probe = {
        .hidden = look_at_hidden, .router = look_at_experts, .index = look_at_set};
    (void)context;
    (void)n_rows;
    return &probe;
}

/* One request to its end, and the row that is left over; the first failure. */
static qn_status generate(qn_generator *generator, const qn_generator_request *request,
                          const qn_generator_sink *ears)
{
    qn_error err = {0};
    qn_status status = QN_OK;
    qn_generator_begin(generator, request);
    while (status == QN_OK && qn_generator_state_of(generator) != QN_GENERATOR_IDLE) {
        status = qn_generator_step(generator, ears, &err);
    }
    return status == QN_OK ? qn_generator_catch_up(generator, ears, &err) : status;
}

/*
 * Wherever a pass fails, nobody is told of its rows, nor of tokens that need no logits to be drawn:
 * recorded sessions had rows of NaN, and a pinned acceptance such log-probabilities.
 */
static void test_gpuengine_tells_nothing_of_a_pass_that_failed(void **state)
{
    static const char *const calls[] = {"launch", "download"};
    static const size_t strides[] = {11, 1}; /* calls between failures: a pass has more launches */
    (void)state;
    const qn_sequence_options options = {.kernels = &g_t.kernels,
                                         .kv_dtype = QN_KV_BF16,
                                         .n_tokens_max = N_IDS_MAX,
                                         .n_rows_max = 16};
    int32_t ids[N_IDS];
    for (int32_t i = 0; i < N_IDS; i++) {
        ids[i] = tiny_token(0, i) % N_VOCAB;
    }
    const qn_generator_request request = {.ids = ids,
                                          .n_ids = N_IDS,
                                          .sampling = &greedy,
                                          .max_tokens = 3,
                                          .draft_tokens = 1,
                                          .acceptance_length = 2.0F,
                                          .wants_prompt_logits = true};
    const qn_generator_sink ears = {.probe = offer_probe, .rows = hear_rows, .token = hear_numbers};
    qn_generator *generator = NULL;
    qn_error err = {0};
    assert_int_equal(qn_generator_open(&generator, g_t.glm, &options, &err), QN_OK);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        uint32_t n_failed = 0;
        bool has_failed = true;
        for (size_t n = 0; has_failed; n += strides[i]) {
            fake_gpu_fail(calls[i], n, FAKE_GPU_INVALID);
            const qn_status status = generate(generator, &request, &ears);
            has_failed = fake_gpu_has_failed();
            assert_int_equal(status, has_failed ? QN_E_DEVICE : QN_OK);
            n_failed += has_failed;
            fake_gpu_fail(calls[i], SIZE_MAX, 0);
        }
        assert_true(n_failed > 1);
    }
    qn_generator_close(&generator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_gpuengine_tells_nothing_of_a_pass_that_failed,
                                        open_model, close_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
