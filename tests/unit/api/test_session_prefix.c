/* SPDX-License-Identifier: Apache-2.0 */
/* A prompt that begins like what the session holds: not computed again, and the same bits. */
#include "tiny.h"

enum { PAGE = 64, N_DRAWN = 12 };

static qn_request ask(const int32_t *ids, size_t n_ids, int draft_tokens)
{
    return (qn_request){.ids = ids,
                        .n_ids = n_ids,
                        .sampling = &greedy,
                        .max_tokens = N_DRAWN,
                        .draft_tokens = draft_tokens,
                        .ignore_eos = true,
                        .wants_logprobs = true};
}

/* Answer in @p session, which must say what a fresh one says; the tokens it found computed. */
static uint64_t answer_as_fresh(said *out, qn_session *session, const qn_request *request)
{
    static transcript t, fresh;
    answer(&t, session, request);
    answer_alone(&fresh, g_model, request);
    assert_said_equal(&t.said, &fresh.said);
    assert_int_equal(fresh.stats.n_cached_tokens, 0);
    assert_memory_equal(t.stats.n_accepted_at, fresh.stats.n_accepted_at,
                        sizeof t.stats.n_accepted_at);
    assert_int_equal(t.stats.n_prompt_tokens, request->n_ids);
    assert_int_equal(t.stats.n_computed_tokens, request->n_ids);
    if (out != NULL) {
        *out = t.said;
    }
    return t.stats.n_cached_tokens;
}

static void test_prefix_next_turn_computes_what_is_new(void **state)
{
    (void)state;
    static const int depths[] = {QN_DRAFT_NONE, 1, 5, QN_DRAFT_TOKENS_MAX};
    static said first;
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        qn_session *session = open_session(g_model, NULL);
        int32_t ids[CONTEXT];
        qn_request request = ask(prompt, 60, depths[i]);
        assert_int_equal(answer_as_fresh(&first, session, &request), 0);
        memcpy(ids, prompt, 60 * sizeof *ids);
        memcpy(ids + 60, first.ids, N_DRAWN * sizeof *ids);
        memcpy(ids + 60 + N_DRAWN, prompt, 30 * sizeof *ids);
        request = ask(ids, 60 + N_DRAWN + 30, depths[i]);
        /* All but the token drawn last, from which nothing was drawn. */
        assert_int_equal(answer_as_fresh(NULL, session, &request), 60 + N_DRAWN - 1);
        qn_session_close(&session);
    }
}

static void test_prefix_survives_another_depth_of_drafts(void **state)
{
    (void)state;
    static const int depths[] = {QN_DRAFT_NONE, 5, 1, QN_DRAFT_NONE, QN_DRAFT_NONE, 8, 8};
    qn_session *session = open_session(g_model, NULL);
    static said last;
    int32_t ids[CONTEXT];
    size_t n_ids = 20;
    memcpy(ids, prompt, n_ids * sizeof *ids);
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        const qn_request request = ask(ids, n_ids, depths[i]);
        const uint64_t n_cached = answer_as_fresh(&last, session, &request);
        const bool had_none = i == 0 || depths[i - 1] == QN_DRAFT_NONE;
        if (depths[i] == QN_DRAFT_NONE && i > 0) { /* the trunk alone is asked for, and is there */
            assert_int_equal(n_cached, n_ids - 11);
        } else if (i == 1) { /* the MTP layer has seen nothing: it needs all hidden vectors */
            assert_int_equal(n_cached, 0);
        } else if (had_none) {
            assert_true(n_cached < n_ids - 11);
        } else {
            assert_int_equal(n_cached, n_ids - 11);
        }
        memcpy(ids + n_ids, last.ids, N_DRAWN * sizeof *ids);
        n_ids += N_DRAWN;
        memcpy(ids + n_ids, prompt + i, 10 * sizeof *ids);
        n_ids += 10;
    }
    qn_session_close(&session);
}

static void test_prefix_ends_where_prompts_diverge(void **state)
{
    (void)state;
    static const int depths[] = {QN_DRAFT_NONE, 5};
    for (size_t i = 0; i < 2; i++) {
        for (size_t at = PAGE - 3; at <= PAGE + 3; at++) {
            qn_session *session = open_session(g_model, NULL);
            int32_t ids[CONTEXT];
            qn_request request = ask(prompt, 100, depths[i]);
            (void)answer_as_fresh(NULL, session, &request);
            memcpy(ids, prompt, sizeof ids);
            ids[at] = (ids[at] + 1) % (VOCAB - 1);
            request = ask(ids, 100, depths[i]);
            const uint64_t n_cached = answer_as_fresh(NULL, session, &request);
            if (depths[i] == QN_DRAFT_NONE) {
                assert_int_equal(n_cached, at);
            } else { /* one more, whose hidden vector the MTP layer wants, may be computed again */
                assert_in_range(n_cached, at - 1, at);
            }
            qn_session_close(&session);
        }
    }
}

static void test_prefix_shorter_and_equal_prompts_compute_the_last_position(void **state)
{
    (void)state;
    static const int depths[] = {QN_DRAFT_NONE, 5};
    for (size_t i = 0; i < 2; i++) {
        qn_session *session = open_session(g_model, NULL);
        for (size_t n_ids = 66; n_ids > 62; n_ids--) {
            for (int k = 0; k < 2; k++) {
                const qn_request request = ask(prompt, n_ids, depths[i]);
                const uint64_t n_cached = answer_as_fresh(NULL, session, &request);
                assert_int_equal(n_cached, n_ids == 66 && k == 0 ? 0 : n_ids - 1);
            }
        }
        qn_request request = ask(prompt, 1, depths[i]);
        assert_int_equal(answer_as_fresh(NULL, session, &request), 0);
        qn_session_close(&session);
    }
}

static void test_prefix_with_its_logits_is_not_computed_at_all(void **state)
{
    (void)state;
    qn_session *session = open_session(g_model, NULL);
    qn_request request = ask(prompt, 70, 5);
    request.prompt_only = true;
    assert_int_equal(answer_as_fresh(NULL, session, &request), 0);
    request.prompt_only = false;
    assert_int_equal(answer_as_fresh(NULL, session, &request), 70);
    qn_session_close(&session);
}

static void test_prefix_is_forgotten_by_clear_and_by_prompt_logprobs(void **state)
{
    (void)state;
    qn_session *session = open_session(g_model, NULL);
    qn_request request = ask(prompt, 70, 5);
    assert_int_equal(answer_as_fresh(NULL, session, &request), 0);
    qn_session_clear(session);
    assert_int_equal(answer_as_fresh(NULL, session, &request), 0);
    request.wants_prompt_logprobs = true;
    assert_int_equal(answer_as_fresh(NULL, session, &request), 0);
    request.wants_prompt_logprobs = false;
    assert_int_equal(answer_as_fresh(NULL, session, &request), 69);
    qn_session_close(&session);
}

static void test_prefix_cut_short_by_cancel_is_used(void **state)
{
    (void)state;
    for (int depth = QN_DRAFT_NONE; depth <= 5; depth += 6) {
        qn_session *session = open_session(g_model, &(qn_session_options){.chunk_tokens = 7});
        static transcript t;
        memset(&t, 0, sizeof t);
        const qn_request request = ask(prompt, 70, depth);
        submit(session, &request);
        assert_int_equal(qn_session_step(session, NULL), QN_OK);
        assert_int_equal(qn_session_step(session, NULL), QN_OK);
        qn_session_cancel(session);
        finish(&t, session);
        assert_int_equal(t.said.finish, QN_FINISH_ABORT);
        assert_int_equal(t.stats.n_computed_tokens, 14);
        assert_int_equal(answer_as_fresh(NULL, session, &request), 14);
        qn_session_close(&session);
    }
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefix_next_turn_computes_what_is_new),
        cmocka_unit_test(test_prefix_survives_another_depth_of_drafts),
        cmocka_unit_test(test_prefix_ends_where_prompts_diverge),
        cmocka_unit_test(test_prefix_shorter_and_equal_prompts_compute_the_last_position),
        cmocka_unit_test(test_prefix_with_its_logits_is_not_computed_at_all),
        cmocka_unit_test(test_prefix_is_forgotten_by_clear_and_by_prompt_logprobs),
        cmocka_unit_test(test_prefix_cut_short_by_cancel_is_used),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
