/* SPDX-License-Identifier: Apache-2.0 */
/* Bits that depend on nothing but the request, and the limits of a session. */
#include "transcript.h"

#include <math.h>

enum { VOCAB = 97, CONTEXT = 256, N_PROMPT = 20, N_DRAWN = 5 };

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};

static int32_t prompt[CONTEXT];

static int fill_prompt(void **state)
{
    (void)state;
    for (int32_t i = 0; i < CONTEXT; i++) {
        prompt[i] = i * 37 % (VOCAB - 1);
    }
    return 0;
}

/* Ids that are not cut short by the model's stop id. */
static qn_request ask(uint32_t max_tokens)
{
    return (qn_request){.ids = prompt,
                        .n_ids = N_PROMPT,
                        .sampling = &greedy,
                        .max_tokens = max_tokens,
                        .ignore_eos = true};
}

static void compute_prompt(qn_session *session, const int32_t *ids, size_t n_ids)
{
    static transcript t;
    answer(&t, session, &(qn_request){.ids = ids, .n_ids = n_ids, .prompt_only = true});
    assert_int_equal(t.said.finish, QN_FINISH_LENGTH);
    assert_string_equal(t.said.kinds, "e");
}

/* Every bit that a prompt and a few tokens give. */
typedef struct bits {
    float prompt_logits[VOCAB];
    float answer_logits[VOCAB];
    said said;
} bits;

static void collect(bits *b, qn_model *model, uint32_t chunk_tokens)
{
    static transcript t;
    qn_session *session = open_session(model, &(qn_session_options){.chunk_tokens = chunk_tokens});
    qn_request request = ask(N_DRAWN);
    request.wants_logprobs = true;
    compute_prompt(session, prompt, N_PROMPT);
    memcpy(b->prompt_logits, qn_session_logits(session), sizeof b->prompt_logits);
    qn_session_clear(session);
    assert_null(qn_session_logits(session));
    answer(&t, session, &request);
    b->said = t.said;
    memcpy(b->answer_logits, qn_session_logits(session), sizeof b->answer_logits);
    qn_session_close(&session);
    assert_null(session);
}

static void test_session_chunks_and_threads_change_no_bit(void **state)
{
    (void)state;
    static bits expected, got;
    for (uint32_t n_threads = 1; n_threads <= 2; n_threads++) {
        static const uint32_t sizes[] = {0, 1, 7, 64};
        qn_model *model = open_tiny(n_threads);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            bits *const b = n_threads == 1 && i == 0 ? &expected : &got;
            collect(b, model, sizes[i]);
            assert_memory_equal(b, &expected, sizeof *b);
        }
        qn_model_close(&model);
    }
}

static void test_session_same_seed_same_tokens(void **state)
{
    (void)state;
    static transcript t[3];
    qn_model *model = open_tiny(1);
    for (size_t i = 0; i < 3; i++) {
        qn_sampling sampling = greedy;
        sampling.temperature = 1.0F;
        sampling.seed = i / 2;
        qn_request request = ask(24);
        request.sampling = &sampling;
        answer_alone(&t[i], model, &request);
        assert_int_equal(t[i].said.n_ids, 24);
    }
    assert_said_equal(&t[0].said, &t[1].said);
    assert_memory_not_equal(t[0].said.ids, t[2].said.ids, 24 * sizeof(int32_t));
    qn_model_close(&model);
}

/* Requests whose answers must not depend on how deep is drafted. */
static const qn_sampling samplings[] = {
    {.top_p = 1.0F, .repetition_penalty = 1.0F},
    {.temperature = 1.0F, .top_p = 1.0F, .repetition_penalty = 1.0F, .seed = 7},
    {.temperature = 0.7F,
     .top_p = 0.9F,
     .min_p = 0.01F,
     .repetition_penalty = 1.2F,
     .presence_penalty = 0.3F,
     .frequency_penalty = 0.2F,
     .top_k = 40,
     .seed = 8},
};

static void test_session_depth_of_drafts_changes_no_bit(void **state)
{
    (void)state;
    static transcript expected, got;
    qn_model *model = open_tiny(1);
    for (size_t i = 0; i < sizeof samplings / sizeof samplings[0]; i++) {
        qn_request request = ask(60);
        request.sampling = &samplings[i];
        request.wants_logprobs = true;
        request.n_top_logprobs = N_TOP;
        request.draft_tokens = QN_DRAFT_NONE;
        answer_alone(&expected, model, &request);
        assert_int_equal(expected.said.n_ids, 60);
        assert_int_equal(expected.stats.n_drafted, 0);
        assert_int_equal(expected.stats.n_steps, 59);
        for (int depth = QN_DRAFT_AUTO; depth <= QN_DRAFT_TOKENS_MAX; depth++) {
            request.draft_tokens = depth;
            answer_alone(&got, model, &request);
            assert_said_equal(&got.said, &expected.said);
            assert_true((got.stats.n_drafted > 0) == (depth != QN_DRAFT_NONE));
            assert_int_equal(got.stats.n_step_tokens, 59);
            assert_int_equal(got.stats.n_steps + got.stats.n_accepted, 59);
        }
    }
    qn_model_close(&model);
}

static void test_session_drawing_equals_reading_what_was_drawn(void **state)
{
    (void)state;
    static transcript t;
    int32_t ids[N_PROMPT + N_DRAWN];
    qn_model *model = open_tiny(1);
    const qn_request request = ask(N_DRAWN);
    qn_session *drawing = open_session(model, NULL);
    qn_session *reading = open_session(model, NULL);
    answer(&t, drawing, &request);
    memcpy(ids, prompt, N_PROMPT * sizeof *ids);
    memcpy(ids + N_PROMPT, t.said.ids, N_DRAWN * sizeof *ids);
    compute_prompt(reading, ids, N_PROMPT + N_DRAWN - 1);
    assert_memory_equal(qn_session_logits(reading), qn_session_logits(drawing),
                        VOCAB * sizeof(float));
    assert_int_equal(t.stats.n_prompt_tokens, N_PROMPT);
    assert_int_equal(t.stats.n_computed_tokens, N_PROMPT);
    assert_int_equal(t.stats.n_generated_tokens, N_DRAWN);
    assert_int_equal(t.stats.n_reasoning_tokens, 0);
    assert_true(t.stats.kv_bytes > 0 && t.stats.prefill_s > 0.0 && t.stats.decode_s > 0.0);
    assert_true(t.stats.ttft_s > 0.0 && t.stats.ttft_s <= t.stats.prefill_s * 2 + 1.0);
    qn_session_close(&drawing);
    qn_session_close(&reading);
    qn_model_close(&model);
}

static void test_session_bits_do_not_depend_on_sessions_between_its_steps(void **state)
{
    (void)state;
    static transcript alone[2], mixed[2];
    const qn_session_options options = {.chunk_tokens = 6};
    qn_model *model = open_tiny(2);
    qn_session *sessions[2];
    for (size_t i = 0; i < 2; i++) {
        qn_request request = ask(40);
        request.ids = prompt + 7 * i;
        request.sampling = &samplings[i + 1];
        request.wants_logprobs = true;
        request.draft_tokens = 3;
        answer_alone(&alone[i], model, &request);
        sessions[i] = open_session(model, &options);
        submit(sessions[i], &request);
    }
    assert_memory_not_equal(&alone[0].said, &alone[1].said, sizeof alone[0].said);
    for (bool goes_on = true; goes_on;) {
        goes_on = false;
        for (size_t i = 0; i < 2; i++) {
            goes_on |= qn_session_step(sessions[i], NULL) == QN_OK;
            said_poll(&mixed[i].said, sessions[i]);
        }
    }
    for (size_t i = 0; i < 2; i++) {
        assert_said_equal(&mixed[i].said, &alone[i].said);
        qn_session_close(&sessions[i]);
    }
    qn_model_close(&model);
}

static void test_session_a_step_of_the_prompt_is_a_chunk(void **state)
{
    (void)state;
    qn_model *model = open_tiny(1);
    qn_session *session = open_session(model, &(qn_session_options){.chunk_tokens = 7});
    qn_event event;
    const qn_request request = ask(1);
    assert_int_equal(qn_session_step(session, NULL), QN_AGAIN);
    submit(session, &request);
    for (uint32_t n_computed = 7; n_computed < N_PROMPT; n_computed += 7) {
        assert_int_equal(qn_session_step(session, NULL), QN_OK);
        assert_int_equal(qn_session_get_stats(session).n_computed_tokens, n_computed);
        assert_int_equal(qn_session_get_stats(session).n_generated_tokens, 0);
        assert_null(qn_session_logits(session)); /* the last chunk alone has logits */
        assert_false(qn_session_poll(&event, session));
    }
    assert_int_equal(qn_session_step(session, NULL), QN_OK);
    assert_int_equal(qn_session_get_stats(session).n_computed_tokens, N_PROMPT);
    assert_int_equal(qn_session_get_stats(session).n_generated_tokens, 1);
    qn_session_close(&session);
    qn_model_close(&model);
}

static void test_session_full_context_ends_the_answer(void **state)
{
    (void)state;
    static transcript t, expected;
    enum { ROOM = 11 };
    qn_model *model = open_tiny(1);
    qn_request request = ask(0);
    for (int depth = QN_DRAFT_AUTO; depth <= QN_DRAFT_TOKENS_MAX; depth++) {
        qn_session *session =
            open_session(model, &(qn_session_options){.context_tokens = N_PROMPT + ROOM});
        request.draft_tokens = depth;
        answer(&t, session, &request);
        assert_int_equal(t.said.finish, QN_FINISH_LENGTH);
        assert_int_equal(t.said.n_ids, ROOM);
        expected = depth == QN_DRAFT_AUTO ? t : expected;
        assert_said_equal(&t.said, &expected.said);
        /* Not a position is left, so that the longest prompt is only computed. */
        answer(&t, session,
               &(qn_request){.ids = prompt, .n_ids = N_PROMPT + ROOM, .draft_tokens = depth});
        assert_int_equal(t.said.finish, QN_FINISH_LENGTH);
        assert_string_equal(t.said.kinds, "e");
        qn_session_close(&session);
    }
    qn_model_close(&model);
}

static void test_session_options_out_of_range_are_named(void **state)
{
    (void)state;
    static const struct {
        qn_session_options options;
        qn_status status;
        const char *word;
    } cases[] = {
        {{.context_tokens = CONTEXT + 1}, QN_E_INVAL, "context_tokens (--context)"},
        {{.chunk_tokens = 513}, QN_E_INVAL, "chunk_tokens"},
        {{.logits_path = "/tmp/a", .trace_path = "/tmp/a"}, QN_E_INVAL, "trace_path"},
        {{.trace_path = "/nonexistent/trace"}, QN_E_IO, "/nonexistent/trace"},
    };
    qn_model *model = open_tiny(1);
    qn_error err = {0};
    qn_session *session = (qn_session *)(uintptr_t)1;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(qn_session_open(&session, model, &cases[i].options, &err),
                         cases[i].status);
        assert_null(session);
        assert_non_null(strstr(err.text, cases[i].word));
    }
    assert_int_equal(qn_session_open(&session, NULL, NULL, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "no model"));
    qn_model_close(&model);
    qn_session_close(&session);
    qn_session_close(NULL);
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session_chunks_and_threads_change_no_bit),
        cmocka_unit_test(test_session_same_seed_same_tokens),
        cmocka_unit_test(test_session_depth_of_drafts_changes_no_bit),
        cmocka_unit_test(test_session_drawing_equals_reading_what_was_drawn),
        cmocka_unit_test(test_session_bits_do_not_depend_on_sessions_between_its_steps),
        cmocka_unit_test(test_session_a_step_of_the_prompt_is_a_chunk),
        cmocka_unit_test(test_session_full_context_ends_the_answer),
        cmocka_unit_test(test_session_options_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, fill_prompt, NULL);
}
