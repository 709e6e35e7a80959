/* SPDX-License-Identifier: Apache-2.0 */
/* The files of logits and of the trace; logits told as they are computed. */
#include "format/safetensors.h"
#include "tiny.h"

enum { EMBD = 32, TOPK = 8, N_PROMPT = 20, N_DRAWN = 5 };

static qn_request ask(int draft_tokens)
{
    return (qn_request){.ids = prompt,
                        .n_ids = N_PROMPT,
                        .sampling = &greedy,
                        .max_tokens = N_DRAWN,
                        .draft_tokens = draft_tokens,
                        .ignore_eos = true};
}

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

/* Answer with both files; logits_after is that of the last position computed. */
static void record(const char *logits_path, const char *trace_path, int draft_tokens, transcript *t,
                   float *logits_after)
{
    const qn_session_options options = {.logits_path = logits_path, .trace_path = trace_path};
    const qn_request request = ask(draft_tokens);
    qn_session *session = open_session(g_model, &options);
    qn_error err = {0};
    answer(t, session, &request);
    memcpy(logits_after, qn_session_logits(session), VOCAB * sizeof *logits_after);
    assert_int_not_equal(access(logits_path, F_OK), 0); /* named only when finished */
    assert_int_equal(qn_session_finish_files(session, &err), QN_OK);
    assert_int_equal(qn_session_finish_files(session, &err), QN_OK);
    assert_int_equal(access(logits_path, F_OK), 0);
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

static void test_files_hold_what_was_computed(void **state)
{
    (void)state;
    static const int depths[] = {QN_DRAFT_NONE, 1, 5, QN_DRAFT_TOKENS_MAX, QN_DRAFT_AUTO};
    static transcript t, without;
    char dir[PATH_BYTES];
    char logits_path[2 * PATH_BYTES];
    char trace_path[2 * PATH_BYTES];
    float logits_after[VOCAB];
    const qn_request request = ask(QN_DRAFT_NONE);
    folder_make(dir);
    (void)snprintf(logits_path, sizeof logits_path, "%s/logits.safetensors", dir);
    (void)snprintf(trace_path, sizeof trace_path, "%s/trace.safetensors", dir);
    answer_alone(&without, g_model, &request);
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        (void)unlink(logits_path);
        record(logits_path, trace_path, depths[i], &t, logits_after);
        check_logits(logits_path, t.said.ids, logits_after);
        check_trace(trace_path);
        assert_said_equal(&t.said, &without.said); /* recording changes nothing */
    }
    folder_remove(dir);
}

/* Run the request @p n_times with a file of logits and copy those of @p n_rows positions. */
static void record_logits(float *logits, transcript *t, const qn_request *request, int n_times,
                          uint64_t n_rows)
{
    char dir[PATH_BYTES];
    char path[2 * PATH_BYTES];
    qn_safetensors *file = NULL;
    qn_error err = {0};
    folder_make(dir);
    (void)snprintf(path, sizeof path, "%s/logits.safetensors", dir);
    qn_session *session = open_session(g_model, &(qn_session_options){.logits_path = path});
    for (int i = 0; i < n_times; i++) {
        answer(t, session, request);
    }
    assert_int_equal(qn_session_finish_files(session, &err), QN_OK);
    qn_session_close(&session);
    assert_int_equal(qn_safetensors_open(&file, path, &err), QN_OK);
    assert_matrix(find(file, "logits"), QN_DTYPE_F32, n_rows, VOCAB);
    memcpy(logits, find(file, "logits")->data, n_rows * VOCAB * sizeof *logits);
    qn_safetensors_close(&file);
    folder_remove(dir);
}

static void test_files_hold_a_prompt_that_was_cached_too(void **state)
{
    (void)state;
    enum { N_BOTH = 2 * N_PROMPT, N_LOGITS = N_PROMPT * VOCAB };
    static transcript t;
    static float logits[2 * N_LOGITS];
    qn_request request = ask(QN_DRAFT_DEFAULT);
    request.prompt_only = true;
    record_logits(logits, &t, &request, 2, N_BOTH);
    assert_memory_equal(logits, logits + N_LOGITS, sizeof logits / 2);
}

/* A pinned acceptance may draw the very draft that it did not take, whose row is there then. */
static void test_files_hold_each_position_once_with_pinned_acceptance(void **state)
{
    (void)state;
    enum { N_LONG = 120, N_ALL = N_PROMPT + N_LONG };
    static transcript t, read;
    static float drawing[N_ALL * VOCAB], reading[N_ALL * VOCAB];
    int32_t ids[N_ALL];
    for (float length = 1.0F; length < 6.0F; length += 0.75F) {
        qn_request request = ask(5);
        request.sampling = NULL; /* what is drawn is seldom what was drafted, but it happens */
        request.acceptance_length = length;
        request.max_tokens = N_LONG;
        record_logits(drawing, &t, &request, 1, N_ALL);
        memcpy(ids, prompt, N_PROMPT * sizeof *ids);
        memcpy(ids + N_PROMPT, t.said.ids, N_LONG * sizeof *ids);
        request = (qn_request){.ids = ids, .n_ids = N_ALL, .prompt_only = true};
        record_logits(reading, &read, &request, 1, N_ALL);
        assert_memory_equal(drawing, reading, sizeof drawing);
    }
}

static void test_files_that_are_not_wanted_are_finished_at_once(void **state)
{
    (void)state;
    qn_error err = {0};
    qn_session *session = open_session(g_model, NULL);
    assert_int_equal(qn_session_finish_files(session, &err), QN_OK);
    qn_session_close(&session);
}

static void test_files_that_were_not_finished_vanish(void **state)
{
    (void)state;
    static transcript t;
    char dir[PATH_BYTES];
    char path[2 * PATH_BYTES];
    folder_make(dir);
    (void)snprintf(path, sizeof path, "%s/logits.safetensors", dir);
    const qn_request request = ask(QN_DRAFT_DEFAULT);
    qn_session *session = open_session(g_model, &(qn_session_options){.logits_path = path});
    answer(&t, session, &request);
    qn_session_close(&session);
    assert_int_equal(rmdir(dir), 0); /* empty */
}

static void test_files_that_fail_end_the_request_and_are_given_up(void **state)
{
    (void)state;
    static transcript t;
    char dir[PATH_BYTES];
    char path[2 * PATH_BYTES];
    folder_make(dir);
    (void)snprintf(path, sizeof path, "%s/trace.safetensors", dir);
    const qn_request request = ask(QN_DRAFT_DEFAULT);
    qn_session *session = open_session(g_model, &(qn_session_options){.trace_path = path});
    qn_error err = {0};
    folder_remove(dir); /* no place for the rows any more */
    answer(&t, session, &request);
    assert_int_equal(t.said.finish, QN_FINISH_ERROR);
    assert_string_equal(t.said.kinds, "e");
    assert_int_equal(t.err.status, QN_E_IO);
    assert_non_null(strstr(t.err.text, path));
    assert_non_null(qn_session_logits(session)); /* computed all the same */
    assert_int_equal(qn_session_finish_files(session, &err), QN_E_IO);
    qn_session_close(&session);
}

/* The second chunk of a prompt. */
static qn_status want_no_more(void *context, uint32_t position, uint32_t n_rows, const int32_t *ids,
                              const float *logits, qn_error *err)
{
    (void)context;
    (void)n_rows;
    (void)ids;
    (void)logits;
    return position == 0 ? QN_OK : qn_fail(err, QN_E_CANCELLED, 0, __func__, "enough");
}

/* A step that ends in its middle, as where a device fails, has left rows of some layers alone. */
static void test_a_trace_of_a_part_of_a_step_is_given_up(void **state)
{
    (void)state;
    static transcript t;
    char dir[PATH_BYTES];
    char path[2 * PATH_BYTES];
    folder_make(dir);
    (void)snprintf(path, sizeof path, "%s/trace.safetensors", dir);
    const qn_request request = ask(QN_DRAFT_DEFAULT);
    qn_session *session = open_session(
        g_model,
        &(qn_session_options){.trace_path = path, .logits_fn = want_no_more, .chunk_tokens = 16});
    qn_error err = {0};
    answer(&t, session, &request);
    assert_int_equal(t.err.status, QN_E_CANCELLED);
    assert_int_equal(qn_session_finish_files(session, &err), QN_E_CANCELLED);
    assert_non_null(strstr(err.text, path));
    qn_session_close(&session);
    assert_int_equal(rmdir(dir), 0); /* empty */
}

static void test_files_in_the_folder_of_the_model_are_refused(void **state)
{
    (void)state;
    char dir[PATH_BYTES];
    char path[2 * PATH_BYTES];
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_error err = {0};
    folder_tiny(dir);
    assert_int_equal(
        qn_model_open(&model, dir, &(qn_model_options){.use_dummy_weights = true}, &err), QN_OK);
    (void)snprintf(path, sizeof path, "%s/logits.safetensors", dir);
    assert_int_equal(
        qn_session_open(&session, model, &(qn_session_options){.logits_path = path}, &err),
        QN_E_INVAL);
    assert_non_null(strstr(err.text, path));
    assert_null(session);
    qn_model_close(&model);
    folder_remove(dir);
}

/* What a logits_fn was told. */
typedef struct heard {
    float logits[(N_PROMPT + N_DRAWN) * VOCAB];
    int32_t ids[N_PROMPT + N_DRAWN];
    uint32_t n_rows;
    uint32_t n_rows_max; /* the call that goes beyond fails */
} heard;

static qn_status hear(void *context, uint32_t position, uint32_t n_rows, const int32_t *ids,
                      const float *logits, qn_error *err)
{
    heard *const h = context;
    assert_int_equal(position, h->n_rows); /* each position once, in order */
    if (position + n_rows > h->n_rows_max) {
        return qn_fail(err, QN_E_IO, 0, __func__, "heard: enough, fewer rows expected");
    }
    memcpy(h->ids + position, ids, n_rows * sizeof *ids);
    memcpy(h->logits + (size_t)position * VOCAB, logits, (size_t)n_rows * VOCAB * sizeof *logits);
    h->n_rows += n_rows;
    return QN_OK;
}

static void test_logits_are_told_as_the_file_has_them(void **state)
{
    (void)state;
    static transcript t, told;
    static heard h;
    static float logits[(N_PROMPT + N_DRAWN) * VOCAB];
    const qn_session_options options = {.logits_fn = hear, .context = &h};
    static const int depths[] = {QN_DRAFT_NONE, 5};
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        const qn_request request = ask(depths[i]);
        record_logits(logits, &t, &request, 1, N_PROMPT + N_DRAWN);
        qn_session *session = open_session(g_model, &options);
        for (int again = 0; again < 2; again++) { /* a prompt in the cache is computed anew */
            h = (heard){.n_rows_max = N_PROMPT + N_DRAWN};
            answer(&told, session, &request);
            assert_said_equal(&told.said, &t.said);
            assert_int_equal(h.n_rows, N_PROMPT + N_DRAWN - 1);
            assert_memory_equal(h.ids, prompt, N_PROMPT * sizeof(int32_t));
            assert_memory_equal(h.ids + N_PROMPT, t.said.ids, (N_DRAWN - 1) * sizeof(int32_t));
            assert_memory_equal(h.logits, logits, (size_t)h.n_rows * VOCAB * sizeof(float));
        }
        qn_session_close(&session);
    }
}

static void test_an_error_of_who_hears_logits_ends_the_request(void **state)
{
    (void)state;
    static transcript t;
    static heard h;
    const qn_request request = ask(QN_DRAFT_NONE);
    qn_session *session =
        open_session(g_model, &(qn_session_options){.logits_fn = hear, .context = &h});
    for (uint32_t n_max = 0; n_max < N_PROMPT + N_DRAWN - 1; n_max += N_PROMPT + 2) {
        h = (heard){.n_rows_max = n_max};
        answer(&t, session, &request);
        assert_int_equal(t.said.finish, QN_FINISH_ERROR);
        assert_int_equal(t.err.status, QN_E_IO);
        assert_string_equal(t.err.text, "heard: enough, fewer rows expected");
    }
    h = (heard){.n_rows_max = N_PROMPT + N_DRAWN};
    answer(&t, session, &request);
    assert_int_equal(t.said.finish, QN_FINISH_LENGTH);
    qn_session_close(&session);
}

/* Rows that who hears them refused are in no file: of a prompt, an answer, and its last token,
 * which is computed for the file. */
static void test_a_file_without_rows_that_were_refused_is_given_up(void **state)
{
    (void)state;
    static const uint32_t heard_rows[] = {0, N_PROMPT + 2, N_PROMPT + N_DRAWN - 1};
    static transcript t;
    static heard h;
    char dir[PATH_BYTES];
    char path[2 * PATH_BYTES];
    struct stat there;
    folder_make(dir);
    folder_write(dir, "logits.safetensors", "old");
    (void)snprintf(path, sizeof path, "%s/logits.safetensors", dir);
    for (size_t i = 0; i < sizeof heard_rows / sizeof heard_rows[0]; i++) {
        const qn_request request = ask(QN_DRAFT_NONE);
        qn_session *session = open_session(
            g_model, &(qn_session_options){.logits_path = path, .logits_fn = hear, .context = &h});
        qn_error err = {0};
        h = (heard){.n_rows_max = heard_rows[i]};
        answer(&t, session, &request);
        for (int again = 0; again < 3; again++) {
            assert_int_equal(qn_session_finish_files(session, &err), QN_E_IO);
            assert_non_null(strstr(err.text, i == 2 && again == 0 ? "heard: " : path));
        }
        qn_session_close(&session);
    }
    assert_int_equal(stat(path, &there), 0); /* what was there stays, and there is nothing else */
    assert_int_equal(there.st_size, 3);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_hold_what_was_computed),
        cmocka_unit_test(test_files_hold_a_prompt_that_was_cached_too),
        cmocka_unit_test(test_files_hold_each_position_once_with_pinned_acceptance),
        cmocka_unit_test(test_files_that_are_not_wanted_are_finished_at_once),
        cmocka_unit_test(test_files_that_were_not_finished_vanish),
        cmocka_unit_test(test_files_that_fail_end_the_request_and_are_given_up),
        cmocka_unit_test(test_a_trace_of_a_part_of_a_step_is_given_up),
        cmocka_unit_test(test_files_in_the_folder_of_the_model_are_refused),
        cmocka_unit_test(test_logits_are_told_as_the_file_has_them),
        cmocka_unit_test(test_an_error_of_who_hears_logits_ends_the_request),
        cmocka_unit_test(test_a_file_without_rows_that_were_refused_is_given_up),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
