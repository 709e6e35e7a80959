/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "engine/sequence.h"
#include "unit/model/fixture.h"

enum { N_IDS = 150, N_MAX = N_IDS + 50 };

static qn_sequence *open_sequence(tiny *t, uint32_t n_rows_max)
{
    const qn_sequence_options options = {.kernels = &t->kernels,
                                         .kv_dtype = QN_KV_F32,
                                         .n_tokens_max = N_MAX,
                                         .n_rows_max = n_rows_max};
    qn_sequence *sequence = NULL;
    qn_error err = {0};
    assert_int_equal(qn_sequence_open(&sequence, t->glm, &options, &err), QN_OK);
    return sequence;
}

static void append(qn_sequence *sequence, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        qn_sequence_append(sequence, ids[i]);
    }
}

static void append_prompt(qn_sequence *sequence)
{
    for (int32_t i = 0; i < N_IDS; i++) {
        qn_sequence_append(sequence, tiny_token(0, i));
    }
}

static void step_all(qn_sequence *sequence, bool with_mtp)
{
    const qn_sequence_step_options options = {.with_mtp = with_mtp};
    while (qn_sequence_next_rows(sequence, false) > 0) {
        qn_sequence_step(sequence, &options);
    }
}

/* Logits of every position of the prompt, computed in steps of n_rows_max. */
static void compute_all(float *logits, uint32_t n_threads, uint32_t n_rows_max, bool with_mtp)
{
    const qn_sequence_step_options options = {.wants_all_logits = true, .with_mtp = with_mtp};
    tiny t;
    tiny_open(&t, n_threads, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, n_rows_max);
    append_prompt(sequence);
    while (qn_sequence_next_rows(sequence, true) > 0) {
        const size_t first = qn_sequence_computed(sequence);
        const size_t n_rows = qn_sequence_next_rows(sequence, true);
        assert_true(n_rows <= QN_LOGIT_ROWS_MAX && n_rows <= n_rows_max);
        qn_sequence_step(sequence, &options);
        memcpy(logits + first * VOCAB, qn_sequence_step_logits(sequence),
               n_rows * VOCAB * sizeof *logits);
    }
    assert_memory_equal(logits + (size_t)(N_IDS - 1) * VOCAB, qn_sequence_logits(sequence),
                        VOCAB * sizeof *logits);
    assert_int_equal(qn_sequence_computed(sequence), N_IDS);
    qn_sequence_close(&sequence);
    assert_null(sequence);
    tiny_close(&t);
}

static void test_sequence_steps_threads_and_mtp_change_no_bit(void **state)
{
    (void)state;
    static float expected[N_IDS * VOCAB];
    static float got[N_IDS * VOCAB];
    compute_all(expected, 1, 64, false);
    for (uint32_t n_threads = 1; n_threads <= 2; n_threads++) {
        static const uint32_t sizes[] = {1, 7, 64};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            memset(got, 0xff, sizeof got);
            compute_all(got, n_threads, sizes[i], n_threads == 2);
            assert_memory_equal(got, expected, sizeof got);
        }
    }
}

static void test_sequence_has_logits_of_the_last_position_computed(void **state)
{
    (void)state;
    static float all[N_IDS * VOCAB];
    const qn_sequence_step_options options = {.with_mtp = false};
    compute_all(all, 1, 64, false);
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, 64);
    append_prompt(sequence);
    assert_null(qn_sequence_logits(sequence));
    while (qn_sequence_next_rows(sequence, false) > 0) {
        qn_sequence_step(sequence, &options);
        assert_null(qn_sequence_step_logits(sequence));
        if (qn_sequence_next_rows(sequence, false) > 0) {
            assert_null(qn_sequence_logits(sequence)); /* nobody draws here */
        }
    }
    assert_memory_equal(qn_sequence_logits(sequence), all + (size_t)(N_IDS - 1) * VOCAB,
                        VOCAB * sizeof *all);
    qn_sequence_append(sequence, 1);
    assert_memory_equal(qn_sequence_logits(sequence), all + (size_t)(N_IDS - 1) * VOCAB,
                        VOCAB * sizeof *all);
    qn_sequence_rewind(sequence);
    qn_sequence_append(sequence, tiny_token(0, 0));
    assert_null(qn_sequence_logits(sequence)); /* they follow another position */
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

static void test_sequence_counts_what_is_pending_and_takes_pages_as_it_grows(void **state)
{
    (void)state;
    const qn_sequence_step_options options = {.with_mtp = false};
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, 64);
    assert_int_equal(qn_sequence_cache_bytes(sequence), 0);
    append_prompt(sequence);
    assert_int_equal(qn_sequence_count(sequence), N_IDS);
    assert_int_equal(qn_sequence_room(sequence), 50);
    assert_int_equal(qn_sequence_next_rows(sequence, false), 64);
    assert_int_equal(qn_sequence_next_rows(sequence, true), QN_LOGIT_ROWS_MAX);
    qn_sequence_step(sequence, &options);
    const uint64_t page_bytes = qn_sequence_cache_bytes(sequence);
    assert_true(page_bytes > 0);
    qn_sequence_step(sequence, &options);
    assert_int_equal(qn_sequence_cache_bytes(sequence), 2 * page_bytes);
    assert_int_equal(qn_sequence_next_rows(sequence, false), N_IDS - 128);
    qn_sequence_drop_pending(sequence);
    assert_int_equal(qn_sequence_next_rows(sequence, false), 0);
    assert_int_equal(qn_sequence_count(sequence), 128);
    qn_sequence_begin(sequence, false);
    assert_int_equal(qn_sequence_next_rows(sequence, false), 1); /* the last one, for its logits */
    qn_sequence_step(sequence, &options);
    assert_non_null(qn_sequence_logits(sequence));
    qn_sequence_begin(sequence, false);
    assert_int_equal(qn_sequence_next_rows(sequence, false), 0);
    assert_int_equal(qn_sequence_ids(sequence)[127], tiny_token(0, 127));
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

static void test_sequence_uses_again_what_it_has_of_the_same_ids(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, 64);
    append_prompt(sequence);
    step_all(sequence, false);
    qn_sequence_rewind(sequence);
    assert_int_equal(qn_sequence_count(sequence), 0);
    for (int32_t i = 0; i < 70; i++) {
        qn_sequence_append(sequence, tiny_token(0, i));
    }
    assert_int_equal(qn_sequence_computed(sequence), 70);
    qn_sequence_append(sequence, tiny_token(0, 70) + 1);
    qn_sequence_append(sequence, tiny_token(0, 71)); /* the same again, after another */
    assert_int_equal(qn_sequence_computed(sequence), 70);
    qn_sequence_clear(sequence);
    append_prompt(sequence);
    assert_int_equal(qn_sequence_computed(sequence), 0);
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

/* What a sequence must look like: one that computed the same ids at once, from nothing. */
typedef struct twin {
    qn_sequence *sequence;
    int32_t drafts[QN_DRAFT_TOKENS_MAX];
} twin;

/* All but the last id computed at once, and the drafts that follow the last. */
static void twin_draft(twin *w, const int32_t *ids, uint32_t n)
{
    qn_sequence_clear(w->sequence);
    append(w->sequence, ids, n - 1);
    qn_sequence_begin(w->sequence, true);
    step_all(w->sequence, true);
    qn_sequence_append(w->sequence, ids[n - 1]);
    assert_int_equal(qn_sequence_draft(w->sequence, w->drafts, QN_DRAFT_TOKENS_MAX),
                     QN_DRAFT_TOKENS_MAX);
}

typedef struct walk {
    qn_sequence *sequence;
    twin twin;
    uint64_t counter; /* of random numbers */
    bool with_mtp;
} walk;

static uint32_t below(walk *w, uint32_t n)
{
    return (uint32_t)(qn_rng_u64(11, 1, w->counter++) % n);
}

/* A prompt that shares a random part with what is there. */
static void walk_begin(walk *w)
{
    qn_sequence *const s = w->sequence;
    int32_t ids[N_MAX];
    const uint32_t n_before = qn_sequence_count(s);
    const uint32_t n_shared = n_before > 0 ? below(w, n_before + 1) : 0;
    const uint32_t n_new = below(w, 40) + (n_shared == 0 ? 1 : 0);
    const uint32_t n = n_shared + n_new < N_MAX - 60 ? n_shared + n_new : N_MAX - 60;
    memcpy(ids, qn_sequence_ids(s), n * sizeof *ids);
    for (uint32_t i = n_shared; i < n; i++) {
        ids[i] = (int32_t)below(w, VOCAB);
    }
    w->with_mtp = below(w, 4) > 0;
    qn_sequence_rewind(s);
    append(s, ids, n);
    qn_sequence_begin(s, w->with_mtp);
    step_all(s, w->with_mtp);
    qn_sequence_append(s, (int32_t)below(w, VOCAB));
}

/* One step of an answer: drafts or none, some of which turn out right.  False: it ended, now and
 * then within the drafts, so that more is computed than there is. */
static bool walk_answer(walk *w)
{
    qn_sequence *const s = w->sequence;
    int32_t drafts[QN_DRAFT_TOKENS_MAX];
    uint32_t n = w->with_mtp ? below(w, QN_DRAFT_TOKENS_MAX + 1) : 0;
    if (n > 0) {
        assert_int_equal(qn_sequence_draft(s, drafts, n), n);
        twin_draft(&w->twin, qn_sequence_ids(s), qn_sequence_count(s));
        assert_memory_equal(drafts, w->twin.drafts, n * sizeof *drafts);
    }
    qn_sequence_verify(s, drafts, n, w->with_mtp);
    const uint32_t n_right = below(w, n + 1);
    append(s, drafts, n_right);
    float logits[VOCAB];
    memcpy(logits, qn_sequence_logits(s), sizeof logits);
    qn_sequence_clear(w->twin.sequence);
    append(w->twin.sequence, qn_sequence_ids(s), qn_sequence_count(s));
    step_all(w->twin.sequence, false);
    assert_memory_equal(logits, qn_sequence_logits(w->twin.sequence), sizeof logits);
    if (below(w, 6) == 0) {
        return false;
    }
    int32_t next = (int32_t)below(w, VOCAB);
    if (n_right < n && below(w, 3) == 0) {
        next = drafts[n_right]; /* as with a pinned acceptance */
    }
    qn_sequence_append(s, next);
    if (qn_sequence_computed(s) == qn_sequence_count(s)) {
        qn_sequence_redo_last(s);
    }
    assert_int_equal(qn_sequence_computed(s), qn_sequence_count(s) - 1);
    return true;
}

/* Drafts and logits depend on the ids alone, whatever was computed, kept and rejected before. */
static void walk_along(uint32_t n_rows_max, bool has_own_sets)
{
    tiny t;
    qn_config config = tiny_config();
    qn_error err = {0};
    config.index_share_for_mtp = !has_own_sets;
    const qn_glm_options options = tiny_prepare(&t, &config, 1, 64, QN_KV_F32);
    assert_int_equal(qn_glm_open_dummy(&t.glm, &t.config, 7, &options, &err), QN_OK);
    walk w = {.sequence = open_sequence(&t, n_rows_max),
              .twin = {.sequence = open_sequence(&t, 64)},
              .counter = n_rows_max};
    for (int round = 0; round < 12; round++) {
        walk_begin(&w);
        bool goes_on = true;
        while (goes_on && qn_sequence_room(w.sequence) > QN_DRAFT_TOKENS_MAX) {
            goes_on = walk_answer(&w);
        }
    }
    qn_sequence_close(&w.sequence);
    qn_sequence_close(&w.twin.sequence);
    tiny_close(&t);
}

static void test_sequence_drafts_and_logits_depend_on_the_ids_alone(void **state)
{
    (void)state;
    walk_along(64, false);
    walk_along(16, false);
    walk_along(1, false);
    walk_along(64, true);
}

static void test_sequence_drafts_after_rows_that_waited(void **state)
{
    (void)state;
    enum { N_WAITING = 45 }; /* more than two steps of 16 rows, which hidden has room for */
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    qn_sequence *sequence = open_sequence(&t, 16);
    twin w = {.sequence = open_sequence(&t, 64)};
    int32_t drafts[QN_DRAFT_TOKENS_MAX];
    for (int32_t i = 0; i < 40; i++) {
        qn_sequence_append(sequence, tiny_token(0, i));
    }
    qn_sequence_begin(sequence, true);
    step_all(sequence, true);
    uint32_t backlog_max = 0;
    for (int32_t i = 40; i < 40 + N_WAITING; i++) {
        qn_sequence_append(sequence, tiny_token(0, i));
        qn_sequence_verify(sequence, NULL, 0, true);
        const uint32_t backlog = qn_sequence_mtp_backlog(sequence);
        backlog_max = backlog > backlog_max ? backlog : backlog_max;
    }
    assert_in_range(backlog_max, 16, 32);
    qn_sequence_append(sequence, 3);
    assert_int_equal(qn_sequence_draft(sequence, drafts, QN_DRAFT_TOKENS_MAX), QN_DRAFT_TOKENS_MAX);
    assert_int_equal(qn_sequence_mtp_backlog(sequence), 0);
    twin_draft(&w, qn_sequence_ids(sequence), qn_sequence_count(sequence));
    assert_memory_equal(drafts, w.drafts, sizeof drafts);
    qn_sequence_close(&sequence);
    qn_sequence_close(&w.sequence);
    tiny_close(&t);
}

static int32_t sample_nothing(const qn_sample_args *args)
{
    (void)args;
    return -1;
}

static void test_sequence_drafts_nothing_where_logits_are_no_numbers(void **state)
{
    (void)state;
    tiny t;
    tiny_open(&t, 1, 64, QN_KV_F32);
    t.kernels.sample = sample_nothing;
    qn_sequence *sequence = open_sequence(&t, 64);
    int32_t drafts[4];
    qn_sequence_append(sequence, 5);
    qn_sequence_begin(sequence, true);
    step_all(sequence, true);
    qn_sequence_append(sequence, 6);
    assert_int_equal(qn_sequence_draft(sequence, drafts, 4), 0);
    qn_sequence_close(&sequence);
    tiny_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequence_steps_threads_and_mtp_change_no_bit),
        cmocka_unit_test(test_sequence_has_logits_of_the_last_position_computed),
        cmocka_unit_test(test_sequence_counts_what_is_pending_and_takes_pages_as_it_grows),
        cmocka_unit_test(test_sequence_uses_again_what_it_has_of_the_same_ids),
        cmocka_unit_test(test_sequence_drafts_and_logits_depend_on_the_ids_alone),
        cmocka_unit_test(test_sequence_drafts_after_rows_that_waited),
        cmocka_unit_test(test_sequence_drafts_nothing_where_logits_are_no_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
