/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions on trained weights, whose drafts are mostly right, and on damaged ones. */
#include "format/safetensors.h"
#include "transcript.h"

#define HEAD "[gMASK]<sop><|system|>Reasoning Effort: Max<|user|>"
#define TAIL "<|assistant|><think>"

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};
static const qn_sampling seeded = {
    .temperature = 1.0F, .top_p = 0.95F, .repetition_penalty = 1.0F, .seed = 3};

static qn_model *open_nano(const char *path)
{
    qn_model *model = NULL;
    qn_error err = {0};
    if (qn_model_open(&model, path, NULL, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    return model;
}

/* Answer the request at several depths; greedily drafts are to be right often. */
static void answer_at_depths(transcript *first, qn_model *model, qn_request *request)
{
    static const int depths[] = {QN_DRAFT_AUTO, QN_DRAFT_DEFAULT, 1, 2, 3, QN_DRAFT_TOKENS_MAX};
    static transcript t;
    qn_session *session = open_session(model, NULL);
    request->draft_tokens = QN_DRAFT_NONE;
    answer(first, session, request);
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        request->draft_tokens = depths[i];
        if (i % 2 == 0) { /* now from the start, now with what is there */
            qn_session_clear(session);
        }
        answer(&t, session, request);
        assert_said_equal(&t.said, &first->said);
        assert_int_equal(t.stats.n_step_tokens, t.said.n_ids - 1);
        if (depths[i] > 0 && request->sampling == &greedy) {
            assert_true(2 * t.stats.n_accepted >= t.stats.n_steps);
        }
    }
    qn_session_close(&session);
}

static void test_nano_depth_of_drafts_changes_no_bit(void **state)
{
    (void)state;
    static const struct {
        const char *prompt;
        const qn_sampling *sampling;
        const char *text; /* NULL: whatever */
        uint32_t max_tokens;
    } cases[] = {
        {HEAD "What is 12 + 30?" TAIL, &greedy, "The answer is 42.", 0},
        {HEAD "Tom has 12 apples and buys 30 more. How many apples does he have?" TAIL, &seeded,
         NULL, 0},
        {"Once upon a time", &greedy, NULL, 24},
        {"Once upon a time", &seeded, NULL, 24},
    };
    static transcript t;
    qn_model *model = open_nano(NANO);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t *ids = NULL;
        qn_request request = {.n_ids = encode(&ids, model, cases[i].prompt),
                              .sampling = cases[i].sampling,
                              .n_top_logprobs = N_TOP,
                              .max_tokens = cases[i].max_tokens,
                              .wants_logprobs = true};
        request.ids = ids;
        answer_at_depths(&t, model, &request);
        if (cases[i].text != NULL) {
            assert_string_equal(t.said.text, cases[i].text);
        }
        assert_int_equal(t.said.finish,
                         cases[i].max_tokens > 0 ? QN_FINISH_LENGTH : QN_FINISH_STOP);
        qn_free(ids);
    }
    qn_model_close(&model);
}

static void test_nano_drafts_do_not_depend_on_what_was_cached(void **state)
{
    (void)state;
    static const char *const prompts[] = {
        HEAD "Tom has 12 apples and buys 30 more. How many apples does he have?" TAIL,
        HEAD "Tom has 15 apples and buys 40 more. How many apples does he have?" TAIL,
        HEAD "Tom has 15 apples and eats 4 of them. How many apples are left?" TAIL,
    };
    static transcript t, fresh;
    qn_model *model = open_nano(NANO);
    qn_session *session = open_session(model, NULL);
    for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++) {
        int32_t *ids = NULL;
        qn_request request = {.n_ids = encode(&ids, model, prompts[i]), .sampling = &greedy};
        request.ids = ids;
        answer(&t, session, &request);
        answer_alone(&fresh, model, &request);
        assert_said_equal(&t.said, &fresh.said);
        assert_true((t.stats.n_cached_tokens > 8) == (i > 0));
        assert_true(fresh.stats.n_accepted > 3);
        assert_memory_equal(t.stats.n_accepted_at, fresh.stats.n_accepted_at,
                            sizeof t.stats.n_accepted_at);
        qn_free(ids);
    }
    qn_session_close(&session);
    qn_model_close(&model);
}

static void test_nano_calls_a_tool(void **state)
{
    (void)state;
    static transcript t, cut;
    int32_t *ids = NULL;
    qn_model *model = open_nano(NANO);
    qn_session *session = open_session(model, NULL);
    qn_request request = {.n_ids = encode(&ids, model, tool_prompt),
                          .sampling = &greedy,
                          .tools_json = tools,
                          .tools_len = strlen(tools)};
    request.ids = ids;
    answer(&t, session, &request);
    assert_string_equal(t.said.calls, "get_weather({\"city\": \"Oslo\"});");
    assert_string_equal(t.said.text, "");
    assert_int_equal(t.said.finish, QN_FINISH_TOOL_CALLS);
    assert_int_equal(t.said.kinds[strlen(t.said.kinds) - 1], 'e');
    request.draft_tokens = QN_DRAFT_NONE;
    answer(&cut, session, &request);
    assert_said_equal(&cut.said, &t.said);
    /* One token less: the call is whole, but no stop token says that this was all. */
    request.max_tokens = t.said.n_ids - 1;
    answer(&cut, session, &request);
    assert_string_equal(cut.said.calls, t.said.calls);
    assert_int_equal(cut.said.finish, QN_FINISH_LENGTH);
    /* In the middle of the call: it comes as text. */
    request.max_tokens = t.said.n_ids - 4;
    answer(&cut, session, &request);
    assert_string_equal(cut.said.calls, "");
    assert_non_null(strstr(cut.said.text, "<tool_call>get_weather"));
    qn_session_close(&session);
    qn_free(ids);
    qn_model_close(&model);
}

/* ----------------------------------------------------------------------------------- damage -- */

enum { N_EMBD = 256, N_SHARDS = 3 };

/* Where row @p id of the embedding lies in a shard of bf16; 0: not in this one. */
static off_t find_row(const char *path, int32_t id)
{
    qn_safetensors *file = NULL;
    qn_error err = {0};
    off_t at = 0;
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(qn_safetensors_open(&file, path, &err), QN_OK);
    const char *end = NULL; /* of all data, which is the end of the file */
    const char *row = NULL;
    for (size_t i = 0; i < qn_safetensors_count(file); i++) {
        const qn_tensor *const tensor = qn_safetensors_get(file, i);
        const char *const data = (const char *)tensor->data;
        end = end == NULL || data + tensor->size_bytes > end ? data + tensor->size_bytes : end;
        if (qn_str_equal(tensor->name, qn_str_of("model.embed_tokens.weight"))) {
            row = data + (size_t)id * N_EMBD * sizeof(uint16_t);
        }
    }
    if (row != NULL) {
        at = info.st_size - (end - row);
    }
    qn_safetensors_close(&file);
    return at;
}

/* Put a copy of file @p from at @p to, with @p n_bytes at @p at that are NaN in bf16. */
static void copy_damaged(const char *to, const char *from, off_t at, size_t n_bytes)
{
    struct stat info;
    assert_int_equal(stat(from, &info), 0);
    const size_t n = (size_t)info.st_size;
    char *const bytes = malloc(n);
    assert_non_null(bytes);
    FILE *file = fopen(from, "rb");
    assert_non_null(file);
    assert_int_equal(fread(bytes, 1, n, file), n);
    (void)fclose(file);
    memset(bytes + at, 0xff, n_bytes);
    (void)unlink(to);
    file = fopen(to, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    free(bytes);
}

/* A copy of glm-nano in which the embedding of @p id is NaN. */
static void damage_nano(char dir[PATH_BYTES], int32_t id)
{
    folder_link_nano(dir);
    for (int i = 1; i <= N_SHARDS; i++) {
        char from[PATH_BYTES];
        char to[2 * PATH_BYTES];
        (void)snprintf(from, sizeof from, NANO "/model-0000%d-of-00003.safetensors", i);
        (void)snprintf(to, sizeof to, "%s/model-0000%d-of-00003.safetensors", dir, i);
        const off_t at = find_row(from, id);
        if (at > 0) {
            copy_damaged(to, from, at, N_EMBD * sizeof(uint16_t));
            return;
        }
    }
    fail_msg("no embedding in glm-nano");
}

static void test_nano_weights_that_turn_to_nan_end_the_request_not_the_session(void **state)
{
    (void)state;
    enum { N_BEFORE = 9 };
    static const int depths[] = {QN_DRAFT_AUTO, QN_DRAFT_NONE, 1, 5, QN_DRAFT_TOKENS_MAX};
    static transcript sound, t, other;
    char dir[PATH_BYTES];
    int32_t *ids = NULL;
    int32_t *other_ids = NULL;
    qn_model *model = open_nano(NANO);
    qn_request request = {.n_ids = encode(&ids, model, "Once upon a time"),
                          .sampling = &greedy,
                          .max_tokens = 30,
                          .wants_logprobs = true};
    qn_request other_request = {.n_ids = encode(&other_ids, model, HEAD "What is 12 + 30?" TAIL),
                                .sampling = &greedy};
    request.ids = ids;
    other_request.ids = other_ids;
    answer_alone(&sound, model, &request);
    qn_model_close(&model);
    uint32_t i_bad = N_BEFORE; /* a token that has not come before */
    for (uint32_t i = 0; i < i_bad; i++) {
        if (sound.said.ids[i] == sound.said.ids[i_bad]) {
            i_bad++;
            i = 0;
        }
    }
    assert_true(i_bad < 20);
    damage_nano(dir, sound.said.ids[i_bad]);
    model = open_nano(dir);
    qn_session *session = open_session(model, NULL);
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        request.draft_tokens = depths[i];
        answer(&t, session, &request);
        assert_int_equal(t.said.finish, QN_FINISH_ERROR);
        assert_int_equal(t.err.status, QN_E_FORMAT);
        assert_non_null(strstr(t.err.text, "none above -Inf"));
        /* What came before came in whole, the bad token itself included. */
        assert_int_equal(t.said.n_ids, i_bad + 1);
        assert_memory_equal(t.said.ids, sound.said.ids, (i_bad + 1) * sizeof(int32_t));
        assert_memory_equal(t.said.logprobs, sound.said.logprobs, (i_bad + 1) * sizeof(float));
        other_request.draft_tokens = depths[i];
        answer(&other, session, &other_request);
        assert_string_equal(other.said.text, "The answer is 42.");
    }
    qn_session_close(&session);
    qn_model_close(&model);
    qn_free(ids);
    qn_free(other_ids);
    folder_remove(dir);
}

int main(void)
{
    qn_log_configure(QN_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nano_depth_of_drafts_changes_no_bit),
        cmocka_unit_test(test_nano_drafts_do_not_depend_on_what_was_cached),
        cmocka_unit_test(test_nano_calls_a_tool),
        cmocka_unit_test(test_nano_weights_that_turn_to_nan_end_the_request_not_the_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
