/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "support/fail_each.h"
#include "unit/engine/plain_sampling.h"

enum { VOCAB = 40, STREAM_TARGET_TOKEN = 1 };

/* What the sampler last asked the kernel; the kernel itself is kernelcheck's matter. */
static qn_sample_args g_asked;
static float g_asked_logits[VOCAB];

static int32_t sample_and_note(const qn_sample_args *args)
{
    g_asked = *args;
    memcpy(g_asked_logits, args->logits, sizeof g_asked_logits);
    return qn_sample_ref(args);
}

static const qn_kernels kernels = {.sample = sample_and_note, .logsumexp = qn_logsumexp_ref};

static qn_sampler *open_sampler(const qn_sampler_request *request)
{
    qn_sampler *sampler = NULL;
    qn_error err = {0};
    assert_int_equal(qn_sampler_open(&sampler, &kernels, VOCAB, &err), QN_OK);
    qn_sampler_begin(sampler, request);
    return sampler;
}

static int32_t draw(qn_sampler *sampler, const float *logits, uint32_t position)
{
    int32_t token = -1;
    qn_error err = {0};
    assert_int_equal(qn_sampler_draw(&token, sampler, logits, position, &err), QN_OK);
    return token;
}

/* Between -6 and 6. */
static void fill(float *logits, uint64_t seed)
{
    for (uint32_t i = 0; i < VOCAB; i++) {
        logits[i] = (float)(12.0 * qn_rng_unit(seed, 99, i) - 6.0);
    }
}

static void test_sampler_without_settings_draws_from_the_logits_themselves(void **state)
{
    (void)state;
    static const int32_t prompt[] = {1, 2, 2};
    float logits[VOCAB];
    fill(logits, 1);
    const qn_sampling sampling = {.temperature = 0.7F,
                                  .top_p = 0.9F,
                                  .min_p = 0.01F,
                                  .repetition_penalty = 1.0F,
                                  .top_k = 7,
                                  .seed = 5};
    const qn_sampler_request request = {.sampling = &sampling, .prompt = prompt, .n_prompt = 3};
    qn_sampler *sampler = open_sampler(&request);
    qn_sampler_commit(sampler, 2);
    const int32_t token = draw(sampler, logits, 11);
    assert_in_range(token, 0, VOCAB - 1);
    assert_ptr_equal(g_asked.logits, logits);
    assert_int_equal(g_asked.n_vocab, VOCAB);
    assert_int_equal(g_asked.top_k, 7);
    assert_true(g_asked.temperature == 0.7F && g_asked.top_p == 0.9F && g_asked.min_p == 0.01F);
    assert_true(g_asked.unit == qn_rng_unit(5, STREAM_TARGET_TOKEN, 11));
    assert_int_equal(draw(sampler, logits, 11), token); /* whatever was drawn in between */
    qn_sampler_close(&sampler);
    assert_null(sampler);
    qn_sampler_close(&sampler);
}

/* One setting for each bit of the seed's lowest four; the rest of it varies which tokens are
 * biased. */
static qn_sampling any_settings(qn_logit_bias *biases, uint64_t seed)
{
    qn_sampling s = plain_settings;
    s.repetition_penalty = (seed & 1) != 0 ? 1.7F : 1.0F;
    s.presence_penalty = (seed & 2) != 0 ? 0.9F : 0.0F;
    s.frequency_penalty = (seed & 4) != 0 ? -0.4F : 0.0F;
    s.n_logit_bias = (seed & 8) != 0 ? 3 : 0;
    s.logit_bias = biases;
    biases[0] = (qn_logit_bias){(int32_t)(seed / 16 % 32), 2.5F};
    biases[1] = (qn_logit_bias){(int32_t)(seed / 512 % 32), -INFINITY};
    biases[2] = (qn_logit_bias){35, 40.0F};
    s.seed = seed;
    return s;
}

static void test_sampler_settings_are_their_plain_definitions(void **state)
{
    (void)state;
    static const int32_t stop_ids[] = {35, 4}; /* one of them has a bias too */
    const int32_t prompt[] = {3, 3, 8, 20, 31, 7};
    unsigned n_changed = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        float logits[VOCAB];
        float kept[VOCAB];
        double want[VOCAB];
        int32_t answer[12];
        qn_logit_bias biases[3];
        const qn_sampling sampling = any_settings(biases, seed);
        const qn_sampler_request request = {&sampling, prompt, (uint32_t)(seed % 7),
                                            stop_ids,  2,      (uint32_t)(seed % 5)};
        qn_sampler *sampler = open_sampler(&request);
        for (uint32_t n = 0; n < 12; n++) {
            fill(logits, seed * 100 + n);
            memcpy(kept, logits, sizeof kept);
            answer[n] = draw(sampler, logits, 6 + n);
            plain_logits(want, logits, VOCAB, &request, answer, n);
            for (uint32_t id = 0; id < VOCAB; id++) {
                const double got = (double)g_asked_logits[id];
                assert_true(isinf(want[id]) ? got == want[id] : fabs(got - want[id]) < 1e-5);
                n_changed += g_asked_logits[id] != logits[id] ? 1 : 0;
            }
            assert_memory_equal(logits, kept, sizeof kept);
            qn_sampler_commit(sampler, answer[n]);
        }
        qn_sampler_close(&sampler);
    }
    assert_true(n_changed > 2000 * 12);
}

static void test_sampler_penalties_by_hand(void **state)
{
    (void)state;
    static const int32_t prompt[] = {1, 2, 2};
    const float logits[VOCAB] = {4.0F, 4.0F, -4.0F, 4.0F, -4.0F};
    qn_sampling sampling = plain_settings;
    sampling.repetition_penalty = 2.0F;
    sampling.presence_penalty = 0.25F;
    sampling.frequency_penalty = 0.5F;
    const qn_sampler_request request = {.sampling = &sampling, .prompt = prompt, .n_prompt = 3};
    qn_sampler *sampler = open_sampler(&request);
    qn_sampler_commit(sampler, 3);
    qn_sampler_commit(sampler, 4);
    qn_sampler_commit(sampler, 4);
    qn_sampler_commit(sampler, 1);
    (void)draw(sampler, logits, 7);
    assert_true(g_asked_logits[0] == 4.0F);                        /* never seen */
    assert_true(g_asked_logits[1] == 4.0F / 2.0F - 0.5F - 0.25F);  /* prompt and answer */
    assert_true(g_asked_logits[2] == -4.0F * 2.0F);                /* prompt alone */
    assert_true(g_asked_logits[3] == 4.0F / 2.0F - 0.5F - 0.25F);  /* answer */
    assert_true(g_asked_logits[4] == -4.0F * 2.0F - 1.0F - 0.25F); /* answer, twice */
    assert_true(g_asked_logits[5] == 0.0F);
    qn_sampler_close(&sampler);
}

static void test_sampler_begin_forgets_the_request_before(void **state)
{
    (void)state;
    static const int32_t stop_ids[] = {5, 6};
    static const int32_t prompt[] = {7, 8};
    float logits[VOCAB];
    fill(logits, 3);
    const qn_logit_bias bias = {9, 3.0F};
    qn_sampling sampling = plain_settings;
    sampling.repetition_penalty = 3.0F;
    sampling.logit_bias = &bias;
    sampling.n_logit_bias = 1;
    const qn_sampler_request first = {&sampling, prompt, 2, stop_ids, 2, 10};
    qn_sampler *sampler = open_sampler(&first);
    qn_sampler_commit(sampler, 10);
    (void)draw(sampler, logits, 4);
    static const uint32_t changed[] = {5, 6, 7, 8, 9, 10};
    for (uint32_t i = 0; i < 6; i++) {
        assert_true(g_asked_logits[changed[i]] != logits[changed[i]]);
    }
    sampling.n_logit_bias = 0;
    const qn_sampler_request second = {&sampling, prompt, 1, stop_ids, 2, 0};
    qn_sampler_begin(sampler, &second);
    (void)draw(sampler, logits, 4);
    for (uint32_t id = 0; id < VOCAB; id++) {
        assert_int_equal(g_asked_logits[id] != logits[id], id == 7);
    }
    qn_sampler_close(&sampler);
}

static void test_sampler_keeps_what_it_was_given(void **state)
{
    (void)state;
    float logits[VOCAB];
    fill(logits, 3);
    int32_t stop_id = 6;
    qn_logit_bias bias = {9, 3.0F};
    qn_sampling sampling = plain_settings;
    sampling.logit_bias = &bias;
    sampling.n_logit_bias = 1;
    const qn_sampler_request request = {&sampling, NULL, 0, &stop_id, 1, 10};
    qn_sampler *sampler = open_sampler(&request);
    stop_id = 7;
    bias = (qn_logit_bias){10, 1.0F};
    sampling.repetition_penalty = 9.0F;
    (void)draw(sampler, logits, 1);
    for (uint32_t id = 0; id < VOCAB; id++) {
        assert_int_equal(g_asked_logits[id] != logits[id], id == 6 || id == 9);
    }
    qn_sampler_close(&sampler);
}

static void test_sampler_stop_ids_wait_for_min_tokens(void **state)
{
    (void)state;
    static const int32_t stop_ids[] = {0, 1};
    const float logits[VOCAB] = {9.0F, 8.0F, 7.0F};
    qn_sampling greedy = plain_settings;
    greedy.temperature = 0.0F;
    const qn_sampler_request request = {&greedy, NULL, 0, stop_ids, 2, 2};
    qn_sampler *sampler = open_sampler(&request);
    for (uint32_t n = 0; n < 4; n++) {
        const int32_t token = draw(sampler, logits, n + 1);
        assert_int_equal(token, n < 2 ? 2 : 0);
        qn_sampler_commit(sampler, token);
    }
    qn_sampler_close(&sampler);
}

static void test_sampler_with_nothing_to_draw_is_an_error(void **state)
{
    (void)state;
    float logits[VOCAB];
    qn_logit_bias biases[VOCAB];
    for (int32_t i = 0; i < VOCAB; i++) {
        logits[i] = NAN;
        biases[i] = (qn_logit_bias){i, -INFINITY};
    }
    qn_sampling sampling = plain_settings;
    const qn_sampler_request request = {.sampling = &sampling};
    qn_sampler *sampler = open_sampler(&request);
    int32_t token = 0;
    qn_error err = {0};
    assert_int_equal(qn_sampler_draw(&token, sampler, logits, 17, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "logits of the token at 17: none above -Inf"));
    fill(logits, 1);
    assert_int_equal(qn_sampler_draw(&token, sampler, logits, 17, &err), QN_OK);
    sampling.logit_bias = biases;
    sampling.n_logit_bias = VOCAB;
    qn_sampler_begin(sampler, &request);
    assert_int_equal(qn_sampler_draw(&token, sampler, logits, 17, &err), QN_E_FORMAT);
    qn_sampler_close(&sampler);
}

/* ---------------------------------------------------------------------- log-probabilities -- */

static void test_sampler_logprobs_ignore_the_settings(void **state)
{
    (void)state;
    float logits[VOCAB];
    fill(logits, 8);
    const qn_logit_bias bias = {12, -INFINITY};
    qn_sampling sampling = plain_settings;
    sampling.temperature = 0.1F;
    sampling.logit_bias = &bias;
    sampling.n_logit_bias = 1;
    const qn_sampler_request request = {.sampling = &sampling};
    qn_sampler *sampler = open_sampler(&request);
    double sum = 0.0;
    for (uint32_t id = 0; id < VOCAB; id++) {
        sum += exp((double)logits[id]);
    }
    for (int32_t id = 0; id < VOCAB; id++) {
        const qn_token_logprob l = qn_sampler_logprobs(sampler, logits, id, NULL, 0);
        assert_int_equal(l.token, id);
        assert_true(fabs((double)l.logprob - ((double)logits[id] - log(sum))) < 1e-5);
    }
    qn_sampler_close(&sampler);
}

static void test_sampler_top_logprobs_fall_and_ties_go_to_the_lower_id(void **state)
{
    (void)state;
    const qn_sampler_request request = {.sampling = &plain_settings};
    qn_sampler *sampler = open_sampler(&request);
    for (uint64_t seed = 0; seed < 500; seed++) {
        float logits[VOCAB];
        qn_token_logprob top[VOCAB];
        const uint32_t n_top = (uint32_t)(seed % (VOCAB + 1));
        for (uint32_t id = 0; id < VOCAB; id++) { /* few values, so that many are equal */
            logits[id] = (float)(qn_rng_u64(seed, 97, id) % 7);
        }
        logits[seed % VOCAB] = NAN;
        (void)qn_sampler_logprobs(sampler, logits, 0, top, n_top);
        bool is_listed[VOCAB] = {false};
        for (uint32_t i = 0; i < n_top; i++) {
            const int32_t id = top[i].token;
            assert_false(is_listed[id]);
            is_listed[id] = true;
            assert_true(top[i].logprob ==
                        qn_sampler_logprobs(sampler, logits, id, NULL, 0).logprob);
            assert_true(i == 0 || top[i].logprob < top[i - 1].logprob ||
                        (top[i].logprob == top[i - 1].logprob && id > top[i - 1].token));
        }
        for (int32_t id = 0; id < VOCAB && n_top > 0; id++) { /* nobody was passed over */
            const float logprob = qn_sampler_logprobs(sampler, logits, id, NULL, 0).logprob;
            const qn_token_logprob last = top[n_top - 1];
            assert_true(is_listed[id] || logprob < last.logprob ||
                        (logprob == last.logprob && id > last.token));
        }
    }
    qn_sampler_close(&sampler);
}

static void test_sampler_logprobs_of_broken_logits_are_no_nan(void **state)
{
    (void)state;
    const qn_sampler_request request = {.sampling = &plain_settings};
    qn_sampler *sampler = open_sampler(&request);
    float logits[VOCAB] = {NAN, -INFINITY, INFINITY, 1.0F};
    static const float want[] = {-INFINITY, -INFINITY, 0.0F, -INFINITY};
    for (int32_t id = 0; id < 4; id++) {
        assert_true(qn_sampler_logprobs(sampler, logits, id, NULL, 0).logprob == want[id]);
    }
    for (uint32_t id = 0; id < VOCAB; id++) {
        logits[id] = NAN;
    }
    qn_token_logprob top[2];
    assert_true(qn_sampler_logprobs(sampler, logits, 3, top, 2).logprob == -INFINITY);
    assert_true(top[0].token == 0 && top[1].token == 1 && top[1].logprob == -INFINITY);
    qn_sampler_close(&sampler);
}

static void test_ranks_count_the_likelier_and_the_equal(void **state)
{
    (void)state;
    static const float logits[] = {1.0F, 3.0F, 3.0F, -INFINITY, NAN, 0.5F};
    static const uint32_t want[] = {3, 2, 2, 5, 6, 4};
    for (int32_t id = 0; id < 6; id++) {
        assert_int_equal(qn_sampler_rank(logits, 6, id), want[id]);
    }
}

/* --------------------------------------------------------------------------------- memory -- */

static qn_status open_and_close(qn_error *err)
{
    qn_sampler *sampler = NULL;
    const qn_status status = qn_sampler_open(&sampler, &kernels, VOCAB, err);
    assert_true((sampler == NULL) == (status != QN_OK));
    qn_sampler_close(&sampler);
    return status;
}

static void test_sampler_open_survives_every_failing_allocation(void **state)
{
    (void)state;
    fail_each(open_and_close, 1, 6);
}

static void test_sampler_allocates_nothing_after_open(void **state)
{
    (void)state;
    static const int32_t ids[] = {3, 4};
    float logits[VOCAB];
    fill(logits, 1);
    qn_logit_bias biases[3];
    const qn_sampling sampling = any_settings(biases, 15);
    const qn_sampler_request request = {&sampling, ids, 2, ids, 2, 3};
    qn_sampler *sampler = open_sampler(&request);
    qn_token_logprob top[5];
    g_n_failed = 0;
    g_fails_from_then_on = 1;
    g_allocations_left = 0;
    qn_sampler_begin(sampler, &request);
    for (uint32_t n = 0; n < 10; n++) {
        const int32_t token = draw(sampler, logits, n + 2);
        qn_sampler_commit(sampler, token);
        (void)qn_sampler_logprobs(sampler, logits, token, top, 5);
    }
    g_allocations_left = SIZE_MAX;
    assert_int_equal(g_n_failed, 0);
    qn_sampler_close(&sampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler_without_settings_draws_from_the_logits_themselves),
        cmocka_unit_test(test_sampler_settings_are_their_plain_definitions),
        cmocka_unit_test(test_sampler_penalties_by_hand),
        cmocka_unit_test(test_sampler_begin_forgets_the_request_before),
        cmocka_unit_test(test_sampler_keeps_what_it_was_given),
        cmocka_unit_test(test_sampler_stop_ids_wait_for_min_tokens),
        cmocka_unit_test(test_sampler_with_nothing_to_draw_is_an_error),
        cmocka_unit_test(test_sampler_logprobs_ignore_the_settings),
        cmocka_unit_test(test_sampler_top_logprobs_fall_and_ties_go_to_the_lower_id),
        cmocka_unit_test(test_sampler_logprobs_of_broken_logits_are_no_nan),
        cmocka_unit_test(test_ranks_count_the_likelier_and_the_equal),
        cmocka_unit_test(test_sampler_open_survives_every_failing_allocation),
        cmocka_unit_test(test_sampler_allocates_nothing_after_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
