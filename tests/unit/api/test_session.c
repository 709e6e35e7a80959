/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"
#include "format/safetensors.h"

#include <math.h>

enum { VOCAB = 97, EMBD = 32, TOPK = 8, N_PROMPT = 20, N_DRAWN = 5 };

static const qn_sampling greedy = {.top_p = 1.0F};

static int32_t prompt[N_PROMPT];

static int fill_prompt(void **state)
{
    (void)state;
    for (int32_t i = 0; i < N_PROMPT; i++) {
        prompt[i] = i * 37 % VOCAB;
    }
    return 0;
}

static qn_session *open_session(qn_model *model, const qn_session_options *options)
{
    qn_session *session = NULL;
    qn_error err = {0};
    if (qn_session_open(&session, model, options, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    return session;
}

static void feed_prompt(qn_session *session)
{
    qn_error err = {0};
    assert_int_equal(qn_session_feed(session, prompt, N_PROMPT, NULL, NULL, &err), QN_OK);
}

static void draw(int32_t *ids, size_t n, qn_session *session)
{
    qn_error err = {0};
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(qn_session_next(&ids[i], session, &err), QN_OK);
    }
}

static void test_session_chunks_and_threads_change_no_bit(void **state)
{
    (void)state;
    float expected[VOCAB];
    for (uint32_t n_threads = 1; n_threads <= 2; n_threads++) {
        static const uint32_t sizes[] = {0, 1, 7, 64};
        qn_model *model = open_tiny(n_threads);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            const qn_session_options options = {.chunk_tokens = sizes[i]};
            qn_session *session = open_session(model, &options);
            feed_prompt(session);
            if (n_threads == 1 && i == 0) {
                memcpy(expected, qn_session_logits(session), sizeof expected);
            }
            assert_memory_equal(qn_session_logits(session), expected, sizeof expected);
            qn_session_close(&session);
            assert_null(session);
        }
        qn_model_close(&model);
    }
}

static void test_session_same_seed_same_tokens(void **state)
{
    (void)state;
    qn_model *model = open_tiny(1);
    int32_t ids[3][24];
    for (size_t i = 0; i < 3; i++) {
        const qn_sampling sampling = {.temperature = 1.0F, .top_p = 1.0F, .seed = i / 2};
        const qn_session_options options = {.sampling = &sampling};
        qn_session *session = open_session(model, &options);
        feed_prompt(session);
        draw(ids[i], 24, session);
        qn_session_close(&session);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_not_equal(ids[0], ids[2], sizeof ids[0]);
    qn_model_close(&model);
}

static void test_session_drawing_equals_feeding_what_was_drawn(void **state)
{
    (void)state;
    qn_model *model = open_tiny(1);
    const qn_session_options options = {.sampling = &greedy};
    int32_t ids[N_DRAWN];
    int32_t again = -1;
    qn_error err = {0};
    qn_session *drawing = open_session(model, &options);
    feed_prompt(drawing);
    draw(ids, N_DRAWN, drawing);
    qn_session *feeding = open_session(model, &options);
    feed_prompt(feeding);
    assert_int_equal(qn_session_feed(feeding, ids, N_DRAWN - 1, NULL, NULL, &err), QN_OK);
    assert_memory_equal(qn_session_logits(feeding), qn_session_logits(drawing),
                        VOCAB * sizeof(float));
    assert_int_equal(qn_session_next(&again, feeding, &err), QN_OK);
    assert_int_equal(again, ids[N_DRAWN - 1]);
    /* A second turn: the token drawn last, not computed yet, comes before what is fed. */
    feed_prompt(drawing);
    feed_prompt(feeding);
    assert_memory_equal(qn_session_logits(feeding), qn_session_logits(drawing),
                        VOCAB * sizeof(float));
    const qn_session_stats stats = qn_session_get_stats(drawing);
    assert_int_equal(stats.n_prompt_tokens, 2 * N_PROMPT);
    assert_int_equal(stats.n_generated_tokens, N_DRAWN);
    assert_true(stats.kv_bytes > 0 && stats.prefill_s > 0.0 && stats.decode_s > 0.0);
    qn_session_close(&drawing);
    qn_session_close(&feeding);
    qn_model_close(&model);
}

/* Tokens drawn after two turns, and the logits after each step. */
typedef struct talk {
    int32_t ids[2 * N_DRAWN];
    float logits[2 * N_DRAWN + 2][VOCAB];
    size_t n_ids, n_logits;
} talk;

/* One step of a session that is fed, draws, is fed again and draws again; false at the end. */
static bool talk_step(talk *t, qn_session *session, const int32_t *turn, size_t n_turn)
{
    qn_error err = {0};
    if (t->n_logits == 2 * N_DRAWN + 2) {
        return false;
    }
    if (t->n_logits % (N_DRAWN + 1) == 0) {
        assert_int_equal(qn_session_feed(session, turn, n_turn, NULL, NULL, &err), QN_OK);
    } else {
        assert_int_equal(qn_session_next(&t->ids[t->n_ids++], session, &err), QN_OK);
    }
    memcpy(t->logits[t->n_logits++], qn_session_logits(session), sizeof t->logits[0]);
    return true;
}

static void test_session_bits_do_not_depend_on_sessions_between_its_steps(void **state)
{
    (void)state;
    static const size_t first[2] = {0, 7}; /* of the prompt: the two say different things */
    const qn_sampling sampling = {.temperature = 1.0F, .top_p = 1.0F, .seed = 5};
    const qn_session_options options = {.sampling = &sampling, .chunk_tokens = 6};
    qn_model *model = open_tiny(2);
    static talk alone[2], mixed[2];
    for (size_t i = 0; i < 2; i++) {
        qn_session *session = open_session(model, &options);
        while (talk_step(&alone[i], session, prompt + first[i], N_PROMPT - first[i])) {
        }
        qn_session_close(&session);
    }
    assert_memory_not_equal(alone[0].logits, alone[1].logits, sizeof alone[0].logits);
    qn_session *sessions[2] = {open_session(model, &options), open_session(model, &options)};
    for (bool goes_on = true; goes_on;) {
        goes_on = false;
        for (size_t i = 0; i < 2; i++) {
            goes_on |= talk_step(&mixed[i], sessions[i], prompt + first[i], N_PROMPT - first[i]);
        }
    }
    assert_memory_equal(mixed, alone, sizeof mixed);
    qn_session_close(&sessions[0]);
    qn_session_close(&sessions[1]);
    qn_model_close(&model);
}

static void test_session_full_context_says_again(void **state)
{
    (void)state;
    qn_model *model = open_tiny(1);
    const qn_session_options options = {.context_tokens = N_PROMPT + 2};
    qn_session *session = open_session(model, &options);
    int32_t token = 0;
    qn_error err = {0};
    assert_int_equal(qn_session_next(&token, session, &err), QN_E_INVAL);
    assert_int_equal(token, -1);
    assert_null(qn_session_logits(session));
    feed_prompt(session);
    draw(&token, 1, session);
    draw(&token, 1, session);
    assert_int_equal(qn_session_next(&token, session, &err), QN_AGAIN);
    assert_int_equal(token, -1);
    assert_int_equal(qn_session_get_stats(session).n_generated_tokens, 2);
    assert_int_equal(qn_session_feed(session, prompt, 1, NULL, NULL, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "--context"));
    assert_int_equal(qn_session_feed(session, NULL, 0, NULL, NULL, &err), QN_OK);
    qn_session_close(&session);
    qn_session_close(&session);
    qn_session_close(NULL);
    qn_model_close(&model);
}

static void test_session_ids_out_of_range_are_refused_and_change_nothing(void **state)
{
    (void)state;
    static const int32_t bad[] = {-1, VOCAB, INT32_MAX};
    qn_model *model = open_tiny(1);
    qn_session *session = open_session(model, NULL);
    qn_error err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const int32_t ids[] = {1, 2, bad[i]};
        assert_int_equal(qn_session_feed(session, ids, 3, NULL, NULL, &err), QN_E_INVAL);
        assert_non_null(strstr(err.text, "at 2"));
    }
    assert_int_equal(qn_session_feed(session, NULL, 3, NULL, NULL, &err), QN_E_INVAL);
    assert_int_equal(qn_session_get_stats(session).n_prompt_tokens, 0);
    assert_null(qn_session_logits(session));
    qn_session_close(&session);
    qn_model_close(&model);
}

static void test_session_options_out_of_range_are_named(void **state)
{
    (void)state;
    static const struct {
        qn_sampling sampling;
        const char *word;
    } cases[] = {
        {{.temperature = -1.0F, .top_p = 1.0F}, "temperature"},
        {{.temperature = NAN, .top_p = 1.0F}, "temperature"},
        {{.temperature = INFINITY, .top_p = 1.0F}, "temperature"},
        {{.top_p = 0.0F}, "top_p"},
        {{.top_p = 1.5F}, "top_p"},
        {{.top_p = NAN}, "top_p"},
        {{.top_p = 1.0F, .min_p = -0.1F}, "min_p"},
        {{.top_p = 1.0F, .min_p = 2.0F}, "min_p"},
    };
    qn_model *model = open_tiny(1);
    qn_session *session = NULL;
    qn_error err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const qn_session_options options = {.sampling = &cases[i].sampling};
        assert_int_equal(qn_session_open(&session, model, &options, &err), QN_E_INVAL);
        assert_null(session);
        assert_non_null(strstr(err.text, cases[i].word));
    }
    const qn_session_options long_context = {.context_tokens = 257};
    assert_int_equal(qn_session_open(&session, model, &long_context, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "--context"));
    const qn_session_options long_chunk = {.chunk_tokens = 257};
    assert_int_equal(qn_session_open(&session, model, &long_chunk, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "chunk_tokens"));
    const qn_session_options one_file = {.logits_path = "/tmp/a", .trace_path = "/tmp/a"};
    assert_int_equal(qn_session_open(&session, model, &one_file, &err), QN_E_INVAL);
    assert_int_equal(qn_session_open(&session, NULL, NULL, &err), QN_E_INVAL);
    const qn_session_options no_folder = {.trace_path = "/nonexistent/trace"};
    assert_int_equal(qn_session_open(&session, model, &no_folder, &err), QN_E_IO);
    assert_non_null(strstr(err.text, "/nonexistent/trace"));
    qn_model_close(&model);
}

typedef struct progress {
    uint64_t n_calls;
    uint64_t done;
    uint64_t calls_max;
} progress;

static bool count_call(void *context, uint64_t done, uint64_t total)
{
    progress *const p = context;
    assert_int_equal(total, N_PROMPT);
    assert_true((done > p->done || p->n_calls == 0) && done < total);
    p->done = done;
    return ++p->n_calls < p->calls_max;
}

static void test_session_progress_between_chunks_may_cancel(void **state)
{
    (void)state;
    qn_model *model = open_tiny(1);
    const qn_session_options options = {.sampling = &greedy, .chunk_tokens = 7};
    qn_session *whole = open_session(model, &options);
    progress seen = {.calls_max = UINT64_MAX};
    qn_error err = {0};
    assert_int_equal(qn_session_feed(whole, prompt, N_PROMPT, count_call, &seen, &err), QN_OK);
    assert_int_equal(seen.n_calls, 3); /* before the first, after 7 and 14 of 20 */

    qn_session *session = open_session(model, &options);
    seen = (progress){.calls_max = 3};
    assert_int_equal(qn_session_feed(session, prompt, N_PROMPT, count_call, &seen, &err),
                     QN_E_CANCELLED);
    assert_int_equal(seen.done, 14);
    assert_int_equal(qn_session_get_stats(session).n_prompt_tokens, 14);
    assert_null(qn_session_logits(session)); /* the last chunk alone has logits */
    /* What was computed stays: the rest completes it. */
    assert_int_equal(qn_session_feed(session, prompt + 14, N_PROMPT - 14, NULL, NULL, &err), QN_OK);
    assert_memory_equal(qn_session_logits(session), qn_session_logits(whole),
                        VOCAB * sizeof(float));
    qn_session_close(&session);
    qn_session_close(&whole);
    qn_model_close(&model);
}

static void test_session_goes_on_from_a_cancelled_prompt(void **state)
{
    (void)state;
    qn_model *model = open_tiny(1);
    const qn_session_options options = {.sampling = &greedy, .chunk_tokens = 7};
    qn_session *cancelled = open_session(model, &options);
    qn_session *whole = open_session(model, &options);
    progress seen = {.calls_max = 2};
    int32_t tokens[2] = {-1, -1};
    qn_error err = {0};
    assert_int_equal(qn_session_feed(cancelled, prompt, N_PROMPT, count_call, &seen, &err),
                     QN_E_CANCELLED);
    assert_int_equal(qn_session_feed(whole, prompt, 7, NULL, NULL, &err), QN_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(qn_session_next(&tokens[0], cancelled, &err), QN_OK);
        assert_int_equal(qn_session_next(&tokens[1], whole, &err), QN_OK);
        assert_int_equal(tokens[0], tokens[1]);
        assert_memory_equal(qn_session_logits(cancelled), qn_session_logits(whole),
                            VOCAB * sizeof(float));
    }
    qn_session_close(&cancelled);
    qn_session_close(&whole);
    qn_model_close(&model);
}

/* ------------------------------------------------------------------------------ the files -- */

static const qn_tensor *find(const qn_safetensors *file, const char *name)
{
    for (size_t i = 0; i < qn_safetensors_count(file); i++) {
        const qn_tensor *const tensor = qn_safetensors_get(file, i);
        if (qn_str_equal(tensor->name, qn_str_of(name))) {
            return tensor;
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void assert_matrix(const qn_tensor *tensor, qn_dtype dtype, uint64_t n_rows,
                          uint64_t n_columns)
{
    assert_int_equal(tensor->dtype, dtype);
    assert_int_equal(tensor->rank, 2);
    assert_int_equal(tensor->shape[0], n_rows);
    assert_int_equal(tensor->shape[1], n_columns);
}

static int32_t i32_at(const qn_tensor *tensor, size_t i)
{
    int32_t value;
    memcpy(&value, tensor->data + i * sizeof value, sizeof value);
    return value;
}

/* Feed and draw with both files; logits_after is that of the last position computed. */
static void record(qn_model *model, const char *logits_path, const char *trace_path, int32_t *drawn,
                   float *logits_after)
{
    const qn_session_options options = {
        .sampling = &greedy, .logits_path = logits_path, .trace_path = trace_path};
    qn_session *session = open_session(model, &options);
    qn_error err = {0};
    feed_prompt(session);
    draw(drawn, N_DRAWN, session);
    memcpy(logits_after, qn_session_logits(session), VOCAB * sizeof *logits_after);
    assert_int_not_equal(access(logits_path, F_OK), 0); /* named only when finished */
    assert_int_equal(qn_session_finish_files(session, &err), QN_OK);
    assert_int_equal(qn_session_finish_files(session, &err), QN_OK);
    qn_session_close(&session);
}

static void check_logits(const char *path, const int32_t *drawn, const float *logits_after)
{
    const uint64_t n = N_PROMPT + N_DRAWN; /* the last token is computed for the file */
    qn_safetensors *file = NULL;
    qn_error err = {0};
    assert_int_equal(qn_safetensors_open(&file, path, &err), QN_OK);
    assert_int_equal(qn_safetensors_count(file), 2);
    const qn_tensor *const logits = find(file, "logits");
    const qn_tensor *const ids = find(file, "ids");
    assert_matrix(logits, QN_DTYPE_F32, n, VOCAB);
    assert_int_equal(ids->dtype, QN_DTYPE_I64);
    assert_int_equal(ids->rank, 1);
    assert_int_equal(ids->shape[0], n);
    for (uint64_t i = 0; i < n; i++) {
        int64_t id;
        memcpy(&id, ids->data + i * sizeof id, sizeof id);
        assert_int_equal(id, i < N_PROMPT ? prompt[i] : drawn[i - N_PROMPT]);
    }
    assert_memory_equal(logits->data + (n - 2) * VOCAB * sizeof(float), logits_after,
                        VOCAB * sizeof(float));
    qn_safetensors_close(&file);
}

static void check_trace(const char *path)
{
    qn_safetensors *file = NULL;
    qn_error err = {0};
    assert_int_equal(qn_safetensors_open(&file, path, &err), QN_OK);
    /* Embedding and two layers; layer 1 is sparse and shares the index set of layer 0. */
    assert_int_equal(qn_safetensors_count(file), 5);
    assert_matrix(find(file, "layer.-1.output"), QN_DTYPE_F32, N_PROMPT, EMBD);
    assert_matrix(find(file, "layer.0.output"), QN_DTYPE_F32, N_PROMPT, EMBD);
    assert_matrix(find(file, "layer.1.output"), QN_DTYPE_F32, N_PROMPT, EMBD);
    const qn_tensor *const experts = find(file, "layer.1.experts");
    assert_matrix(experts, QN_DTYPE_I32, N_PROMPT, 2);
    for (size_t i = 0; i < N_PROMPT; i++) {
        assert_in_range(i32_at(experts, 2 * i), 0, 4);
        assert_in_range(i32_at(experts, 2 * i + 1), 0, 4);
        assert_int_not_equal(i32_at(experts, 2 * i), i32_at(experts, 2 * i + 1));
    }
    const qn_tensor *const sets = find(file, "layer.0.index_set");
    assert_matrix(sets, QN_DTYPE_I32, N_PROMPT, TOPK);
    for (int32_t i = 0; i < N_PROMPT; i++) {
        for (int32_t k = 0; k < TOPK; k++) {
            const int32_t position = i32_at(sets, (size_t)i * TOPK + (size_t)k);
            if (i < TOPK) {
                assert_int_equal(position, k <= i ? k : -1);
            } else {
                assert_in_range(position, 0, i);
            }
        }
    }
    qn_safetensors_close(&file);
}

static void test_session_files_hold_what_was_computed(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    char logits_path[2 * PATH_BYTES];
    char trace_path[2 * PATH_BYTES];
    int32_t drawn[N_DRAWN];
    float logits_after[VOCAB];
    folder_make(dir);
    (void)snprintf(logits_path, sizeof logits_path, "%s/logits.safetensors", dir);
    (void)snprintf(trace_path, sizeof trace_path, "%s/trace.safetensors", dir);
    qn_model *model = open_tiny(1);
    record(model, logits_path, trace_path, drawn, logits_after);
    check_logits(logits_path, drawn, logits_after);
    check_trace(trace_path);
    /* The same without files: recording changes nothing. */
    const qn_session_options options = {.sampling = &greedy};
    int32_t again[N_DRAWN];
    qn_session *session = open_session(model, &options);
    feed_prompt(session);
    draw(again, N_DRAWN, session);
    assert_memory_equal(again, drawn, sizeof again);
    assert_memory_equal(qn_session_logits(session), logits_after, sizeof logits_after);
    qn_error err = {0};
    assert_int_equal(qn_session_finish_files(session, &err), QN_OK);
    qn_session_close(&session);
    qn_model_close(&model);
    folder_remove(dir);
}

static void test_session_files_that_were_not_finished_vanish(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    char path[2 * PATH_BYTES];
    folder_make(dir);
    (void)snprintf(path, sizeof path, "%s/logits.safetensors", dir);
    qn_model *model = open_tiny(1);
    const qn_session_options options = {.logits_path = path};
    qn_session *session = open_session(model, &options);
    feed_prompt(session);
    qn_session_close(&session);
    qn_model_close(&model);
    assert_int_equal(rmdir(dir), 0); /* empty */
}

static void test_session_failed_files_are_given_up(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    char path[2 * PATH_BYTES];
    folder_make(dir);
    (void)snprintf(path, sizeof path, "%s/trace.safetensors", dir);
    qn_model *model = open_tiny(1);
    const qn_session_options options = {.sampling = &greedy, .trace_path = path};
    qn_session *session = open_session(model, &options);
    qn_error err = {0};
    folder_remove(dir); /* no place for the rows any more */
    assert_int_equal(qn_session_feed(session, prompt, N_PROMPT, NULL, NULL, &err), QN_E_IO);
    assert_non_null(strstr(err.text, path));
    assert_non_null(qn_session_logits(session)); /* computed all the same */
    assert_int_equal(qn_session_finish_files(session, &err), QN_E_IO);
    qn_session_close(&session);
    qn_model_close(&model);
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session_chunks_and_threads_change_no_bit),
        cmocka_unit_test(test_session_same_seed_same_tokens),
        cmocka_unit_test(test_session_drawing_equals_feeding_what_was_drawn),
        cmocka_unit_test(test_session_bits_do_not_depend_on_sessions_between_its_steps),
        cmocka_unit_test(test_session_full_context_says_again),
        cmocka_unit_test(test_session_ids_out_of_range_are_refused_and_change_nothing),
        cmocka_unit_test(test_session_options_out_of_range_are_named),
        cmocka_unit_test(test_session_progress_between_chunks_may_cancel),
        cmocka_unit_test(test_session_goes_on_from_a_cancelled_prompt),
        cmocka_unit_test(test_session_files_hold_what_was_computed),
        cmocka_unit_test(test_session_files_that_were_not_finished_vanish),
        cmocka_unit_test(test_session_failed_files_are_given_up),
    };
    return cmocka_run_group_tests(tests, fill_prompt, NULL);
}
