/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/generator.h"
#include "unit/model/fixture.h"

enum { N_PROMPT = 70, N_MAX = 160 };

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};

/* What a sink saw. */
typedef struct seen {
    int32_t ids[N_MAX];     /* drawn */
    uint32_t n_ids;         /* ... and how many */
    bool is_stopped;        /* by the last of them */
    uint32_t n_ids_max;     /* the answer ends here; 0: it does not */
    int32_t row_ids[N_MAX]; /* of positions told with their logits */
    float logits[N_MAX][VOCAB];
    uint32_t first_row, n_rows; /* told: one after the other from the first */
} seen;

static qn_status see_rows(void *context, uint32_t position, uint32_t n_rows, const int32_t *ids,
                          const float *logits, qn_error *err)
{
    seen *const s = context;
    (void)err;
    if (logits == NULL) {
        return QN_OK; /* of a prompt, not asked for */
    }
    s->first_row = s->n_rows == 0 ? position : s->first_row;
    assert_int_equal(position, s->first_row + s->n_rows); /* none left out, none twice */
    memcpy(s->row_ids + s->n_rows, ids, n_rows * sizeof *ids);
    memcpy(s->logits[s->n_rows], logits, n_rows * sizeof s->logits[0]);
    s->n_rows += n_rows;
    return QN_OK;
}

static bool see_token(void *context, int32_t token, uint32_t position, const float *logits,
                      bool is_stop)
{
    seen *const s = context;
    s->is_stopped = is_stop;
    assert_non_null(logits);
    assert_int_equal(position, N_PROMPT + s->n_ids);
    s->ids[s->n_ids++] = token;
    return s->n_ids != s->n_ids_max;
}

typedef struct fixture {
    tiny t;
    qn_generator *generator;
    int32_t prompt[N_PROMPT];
} fixture;

static void fixture_open(fixture *f, uint32_t n_rows_max)
{
    qn_error err = {0};
    tiny_open(&f->t, 1, 64, QN_KV_F32);
    const qn_sequence_options options = {.kernels = &f->t.kernels,
                                         .kv_dtype = QN_KV_F32,
                                         .n_tokens_max = N_MAX,
                                         .n_rows_max = n_rows_max};
    assert_int_equal(qn_generator_open(&f->generator, f->t.glm, &options, &err), QN_OK);
    for (int32_t i = 0; i < N_PROMPT; i++) {
        f->prompt[i] = tiny_token(0, i);
    }
}

static void fixture_close(fixture *f)
{
    qn_generator_close(&f->generator);
    assert_null(f->generator);
    tiny_close(&f->t);
}

static qn_generator_request request_of(const fixture *f, int draft_tokens, uint32_t max_tokens)
{
    return (qn_generator_request){.ids = f->prompt,
                                  .n_ids = N_PROMPT,
                                  .sampling = &greedy,
                                  .max_tokens = max_tokens,
                                  .draft_tokens = draft_tokens};
}

/* Run a request to its end. */
static qn_session_stats answer(fixture *f, seen *s, const qn_generator_request *request)
{
    const qn_generator_sink sink = {.context = s, .rows = see_rows, .token = see_token};
    qn_error err = {0};
    qn_generator_begin(f->generator, request);
    while (qn_generator_state_of(f->generator) != QN_GENERATOR_IDLE) {
        assert_int_equal(qn_generator_step(f->generator, &sink, &err), QN_OK);
    }
    return qn_generator_count(f->generator);
}

static void test_generator_gives_the_same_tokens_and_logits_at_any_depth(void **state)
{
    (void)state;
    static seen first;
    static seen other;
    const qn_generator_sink sink = {.context = &other, .rows = see_rows, .token = see_token};
    fixture f;
    for (int depth = 0; depth <= QN_DRAFT_TOKENS_MAX + 1; depth++) {
        seen *const s = depth == 0 ? &first : &other;
        qn_error err = {0};
        fixture_open(&f, 64);
        *s = (seen){0};
        qn_generator_request request =
            request_of(&f, depth > QN_DRAFT_TOKENS_MAX ? QN_DRAFT_AUTO : depth, 50);
        request.wants_prompt_logits = true;
        (void)answer(&f, s, &request);
        const qn_generator_sink own = {.context = s, .rows = see_rows, .token = see_token};
        assert_int_equal(qn_generator_catch_up(f.generator, depth == 0 ? &own : &sink, &err),
                         QN_OK);
        assert_int_equal(s->n_ids, 50);
        assert_int_equal(s->first_row, 0);
        assert_int_equal(s->n_rows, N_PROMPT + 50);
        assert_memory_equal(s->row_ids, f.prompt, sizeof f.prompt);
        assert_memory_equal(s->row_ids + N_PROMPT, s->ids, 50 * sizeof s->ids[0]);
        assert_memory_equal(s->ids, first.ids, sizeof first.ids);
        assert_memory_equal(s->logits, first.logits, sizeof first.logits);
        fixture_close(&f);
    }
}

static void test_generator_ends_where_it_is_told_to(void **state)
{
    (void)state;
    static seen s;
    fixture f;
    fixture_open(&f, 64);
    s = (seen){0};
    qn_generator_request request = request_of(&f, 5, 20);
    (void)answer(&f, &s, &request);
    const int32_t stop = s.ids[12]; /* where it comes first */
    uint32_t n_before = 0;
    while (s.ids[n_before] != stop) {
        n_before++;
    }
    assert_int_equal(qn_generator_end_of(f.generator), QN_GENERATOR_END_LENGTH);
    for (int depth = 0; depth <= QN_DRAFT_TOKENS_MAX; depth += 4) {
        request.draft_tokens = depth;
        request.stop_ids = &stop;
        request.n_stop_ids = 1;
        s = (seen){0};
        (void)answer(&f, &s, &request);
        assert_int_equal(qn_generator_end_of(f.generator), QN_GENERATOR_END_STOP);
        assert_int_equal(s.n_ids, n_before + 1);
        assert_true(s.is_stopped);
        request.n_stop_ids = 0;
        s = (seen){.n_ids_max = 7};
        (void)answer(&f, &s, &request);
        assert_int_equal(qn_generator_end_of(f.generator), QN_GENERATOR_END_SINK);
        assert_int_equal(s.n_ids, 7);
        assert_int_equal(qn_sequence_count(qn_generator_sequence(f.generator)), N_PROMPT + 7);
    }
    request.max_tokens = 0;
    s = (seen){0};
    const qn_session_stats stats = answer(&f, &s, &request);
    assert_int_equal(s.n_ids, 0);
    assert_true(stats.n_cached_tokens + 1 >= N_PROMPT);
    request.max_tokens = UINT32_MAX;
    s = (seen){0};
    (void)answer(&f, &s, &request);
    assert_int_equal(s.n_ids, N_MAX - N_PROMPT); /* all the room there is */
    fixture_close(&f);
}

static void test_generator_pins_the_acceptance_length(void **state)
{
    (void)state;
    static const float lengths[] = {1.0F, 1.5F, 2.25F, 3.61F, 4.0F, 6.0F};
    static seen s;
    fixture f;
    fixture_open(&f, 64);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        qn_generator_request request = request_of(&f, 5, 81);
        request.acceptance_length = lengths[i];
        s = (seen){0};
        const qn_session_stats stats = answer(&f, &s, &request);
        assert_true(stats.is_synthetic);
        assert_int_equal(stats.n_step_tokens, 80);
        const double tokens = (double)lengths[i] * (double)stats.n_steps;
        assert_true(tokens > 79.0 && tokens < 80.0 + (double)lengths[i] + 1.0);
        assert_int_equal(stats.n_accepted, stats.n_step_tokens - stats.n_steps);
    }
    fixture_close(&f);
}

/* A model whose MTP layer is never right still counts, and its counts agree with each other. */
static void test_generator_counts_steps_and_drafts(void **state)
{
    (void)state;
    static seen s;
    fixture f;
    fixture_open(&f, 64);
    for (int depth = 0; depth <= QN_DRAFT_TOKENS_MAX; depth++) {
        const qn_generator_request request = request_of(&f, depth, 60);
        s = (seen){0};
        const qn_session_stats stats = answer(&f, &s, &request);
        assert_int_equal(stats.n_prompt_tokens, N_PROMPT);
        assert_int_equal(stats.n_computed_tokens, N_PROMPT);
        assert_int_equal(stats.n_generated_tokens, 60);
        assert_int_equal(stats.n_step_tokens, 59); /* the first token is the prompt's */
        assert_true(stats.n_drafted <= stats.n_steps * (uint64_t)depth);
        uint64_t n_accepted = 0;
        for (int i = 0; i < QN_DRAFT_TOKENS_MAX; i++) {
            n_accepted += stats.n_accepted_at[i];
            assert_true(i == 0 || stats.n_accepted_at[i] <= stats.n_accepted_at[i - 1]);
            assert_true(i < depth || stats.n_accepted_at[i] == 0);
        }
        assert_int_equal(n_accepted, stats.n_accepted);
        assert_in_range(stats.n_step_tokens, stats.n_accepted, stats.n_accepted + stats.n_steps);
        assert_false(stats.is_synthetic);
    }
    fixture_close(&f);
}

static void test_generator_stopped_in_a_prompt_goes_on_from_there(void **state)
{
    (void)state;
    static seen whole;
    static seen parts;
    const qn_generator_sink sink = {.context = &parts, .rows = see_rows, .token = see_token};
    fixture f;
    qn_error err = {0};
    fixture_open(&f, 16);
    const qn_generator_request request = request_of(&f, 3, 20);
    whole = parts = (seen){0};
    (void)answer(&f, &whole, &request);
    qn_generator_clear(f.generator);
    qn_generator_begin(f.generator, &request);
    assert_int_equal(qn_generator_step(f.generator, &sink, &err), QN_OK);
    assert_int_equal(qn_generator_state_of(f.generator), QN_GENERATOR_PROMPT);
    qn_generator_stop(f.generator);
    assert_int_equal(qn_generator_state_of(f.generator), QN_GENERATOR_IDLE);
    assert_int_equal(qn_sequence_count(qn_generator_sequence(f.generator)), 16);
    const qn_session_stats stats = answer(&f, &parts, &request);
    assert_in_range(stats.n_cached_tokens, 15, 16);
    assert_memory_equal(parts.ids, whole.ids, sizeof whole.ids);
    fixture_close(&f);
}

static qn_status refuse_rows(void *context, uint32_t position, uint32_t n_rows, const int32_t *ids,
                             const float *logits, qn_error *err)
{
    (void)context;
    (void)position;
    (void)n_rows;
    (void)ids;
    (void)logits;
    return qn_fail(err, QN_E_IO, 0, __func__, "rows: refused, welcome expected");
}

static void test_generator_ends_a_request_whose_sink_fails(void **state)
{
    (void)state;
    static seen s;
    const qn_generator_sink sink = {.context = &s, .rows = refuse_rows, .token = see_token};
    fixture f;
    qn_error err = {0};
    fixture_open(&f, 64);
    qn_generator_request request = request_of(&f, 3, 20);
    request.wants_prompt_logits = true;
    s = (seen){0};
    qn_generator_begin(f.generator, &request);
    assert_int_equal(qn_generator_step(f.generator, &sink, &err), QN_E_IO);
    assert_int_equal(qn_generator_state_of(f.generator), QN_GENERATOR_IDLE);
    (void)answer(&f, &s, &request);
    assert_int_equal(s.n_ids, 20);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator_gives_the_same_tokens_and_logits_at_any_depth),
        cmocka_unit_test(test_generator_ends_where_it_is_told_to),
        cmocka_unit_test(test_generator_pins_the_acceptance_length),
        cmocka_unit_test(test_generator_counts_steps_and_drafts),
        cmocka_unit_test(test_generator_stopped_in_a_prompt_goes_on_from_there),
        cmocka_unit_test(test_generator_ends_a_request_whose_sink_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
