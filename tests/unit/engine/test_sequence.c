/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sequence.h"
#include "unit/model/fixture.h"

enum { N_IDS = 150 };

static const qn_sampling greedy = {.top_p = 1.0F};

static qn_sequence *open_sequence(tiny *t, uint32_t n_rows_max, bool wants_all_logits)
{
    const qn_sequence_options options = {.kernels = &t->kernels,
                                         .kv_dtype = QN_KV_F32,
                                         .n_tokens_max = N_IDS + 50,
                                         .n_rows_max = n_rows_max,
                                         .wants_all_logits = wants_all_logits};
    qn_sequence *sequence = NULL;
    qn_error err = {0};
    assert_int_equal(qn_sequence_open(&sequence, t->glm, &options, &err), QN_OK);
    return sequence;
}

static void append_prompt(qn_sequence *sequence)
{
    for (int32_t i = 0; i < N_IDS; i++) {
        qn_sequence_append(sequence, tiny_token(0, i));
    }
}

/* Logits of every position of the prompt, computed in steps of n_rows_max. */
static void compute_all(float *logits, uint32_t n_threads, uint32_t n_rows_max)
{
    tiny t;
    tiny_open(&t, n_threads, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, n_rows_max, true);
    append_prompt(sequence);
    while (qn_sequence_next_rows(sequence) > 0) {
        const size_t first = qn_sequence_computed(sequence);
        const size_t n_rows = qn_sequence_next_rows(sequence);
        qn_sequence_step(sequence, NULL);
        memcpy(logits + first * VOCAB, qn_sequence_step_logits(sequence),
               n_rows * VOCAB * sizeof *logits);
        assert_memory_equal(logits + (first + n_rows - 1) * VOCAB, qn_sequence_logits(sequence),
                            VOCAB * sizeof *logits);
    }
    assert_int_equal(qn_sequence_computed(sequence), N_IDS);
    qn_sequence_close(&sequence);
    assert_null(sequence);
    tiny_close(&t);
}

static void test_sequence_steps_and_threads_change_no_bit(void **state)
{
    (void)state;
    static float expected[N_IDS * VOCAB];
    static float got[N_IDS * VOCAB];
    compute_all(expected, 1, 64);
    for (uint32_t n_threads = 1; n_threads <= 2; n_threads++) {
        static const uint32_t sizes[] = {1, 7, 64};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            memset(got, 0xff, sizeof got);
            compute_all(got, n_threads, sizes[i]);
            assert_memory_equal(got, expected, sizeof got);
        }
    }
}

static void test_sequence_without_all_logits_keeps_the_last(void **state)
{
    (void)state;
    static float all[N_IDS * VOCAB];
    compute_all(all, 1, 64);
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, 64, false);
    append_prompt(sequence);
    assert_null(qn_sequence_logits(sequence));
    while (qn_sequence_next_rows(sequence) > 0) {
        qn_sequence_step(sequence, NULL);
        assert_null(qn_sequence_step_logits(sequence));
        if (qn_sequence_next_rows(sequence) > 0) {
            assert_null(qn_sequence_logits(sequence)); /* nobody draws here */
        }
    }
    assert_memory_equal(qn_sequence_logits(sequence), all + (size_t)(N_IDS - 1) * VOCAB,
                        VOCAB * sizeof *all);
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

static void test_sequence_counts_what_is_pending_and_takes_pages_as_it_grows(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, 64, false);
    assert_int_equal(qn_sequence_cache_bytes(sequence), 0);
    append_prompt(sequence);
    assert_int_equal(qn_sequence_count(sequence), N_IDS);
    assert_int_equal(qn_sequence_room(sequence), 50);
    assert_int_equal(qn_sequence_next_rows(sequence), 64);
    qn_sequence_step(sequence, NULL);
    const uint64_t page_bytes = qn_sequence_cache_bytes(sequence);
    assert_true(page_bytes > 0);
    qn_sequence_step(sequence, NULL);
    assert_int_equal(qn_sequence_cache_bytes(sequence), 2 * page_bytes);
    assert_int_equal(qn_sequence_next_rows(sequence), N_IDS - 128);
    qn_sequence_drop_pending(sequence);
    assert_int_equal(qn_sequence_next_rows(sequence), 1); /* the last one, for its logits */
    assert_int_equal(qn_sequence_count(sequence), 128);
    qn_sequence_step(sequence, NULL);
    assert_non_null(qn_sequence_logits(sequence));
    qn_sequence_drop_pending(sequence);
    assert_int_equal(qn_sequence_next_rows(sequence), 0);
    assert_int_equal(qn_sequence_ids(sequence)[127], tiny_token(0, 127));
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

/* Continue the prompt by n tokens. */
static void generate(int32_t *out, uint32_t n, uint32_t n_rows_max, const qn_sampling *sampling)
{
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, n_rows_max, false);
    append_prompt(sequence);
    for (uint32_t i = 0; i < n; i++) {
        while (qn_sequence_next_rows(sequence) > 0) {
            qn_sequence_step(sequence, NULL);
        }
        qn_error err = {0};
        assert_int_equal(qn_sequence_draw(&out[i], sequence, sampling, &err), QN_OK);
        assert_in_range(out[i], 0, VOCAB - 1);
        qn_sequence_append(sequence, out[i]);
    }
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

static void test_sequence_draws_the_same_with_the_same_seed(void **state)
{
    (void)state;
    enum { N_DRAWN = 24 };
    int32_t first[N_DRAWN];
    int32_t again[N_DRAWN];
    const qn_sampling seed_1 = {.temperature = 1.0F, .top_p = 1.0F, .seed = 1};
    const qn_sampling seed_2 = {.temperature = 1.0F, .top_p = 1.0F, .seed = 2};
    generate(first, N_DRAWN, 64, &seed_1);
    generate(again, N_DRAWN, 7, &seed_1);
    assert_memory_equal(first, again, sizeof first);
    generate(again, N_DRAWN, 64, &seed_2);
    assert_memory_not_equal(first, again, sizeof first);
}

static void test_sequence_greedy_takes_the_largest_logit(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, 64, false);
    qn_sequence_append(sequence, 5);
    qn_sequence_step(sequence, NULL);
    const float *const logits = qn_sequence_logits(sequence);
    int32_t expected = 0;
    for (int32_t i = 1; i < VOCAB; i++) {
        expected = logits[i] > logits[expected] ? i : expected;
    }
    int32_t token = -1;
    qn_error err = {0};
    assert_int_equal(qn_sequence_draw(&token, sequence, &greedy, &err), QN_OK);
    assert_int_equal(token, expected);
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

static int32_t sample_nothing(const qn_sample_args *args)
{
    (void)args;
    return -1;
}

static void test_sequence_without_a_drawable_logit_is_an_error(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    t.kernels.sample = sample_nothing;
    qn_sequence *sequence = open_sequence(&t, 64, false);
    qn_sequence_append(sequence, 5);
    qn_sequence_step(sequence, NULL);
    int32_t token = 0;
    qn_error err = {0};
    assert_int_equal(qn_sequence_draw(&token, sequence, &greedy, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "position 0"));
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequence_steps_and_threads_change_no_bit),
        cmocka_unit_test(test_sequence_without_all_logits_keeps_the_last),
        cmocka_unit_test(test_sequence_counts_what_is_pending_and_takes_pages_as_it_grows),
        cmocka_unit_test(test_sequence_draws_the_same_with_the_same_seed),
        cmocka_unit_test(test_sequence_greedy_takes_the_largest_logit),
        cmocka_unit_test(test_sequence_without_a_drawable_logit_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
