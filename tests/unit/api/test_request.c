/* SPDX-License-Identifier: Apache-2.0 */
/* Each field of a request beyond its limits is refused by name, and nothing has begun. */
#include "transcript.h"

#include <math.h>

enum { VOCAB = 97, N_PROMPT = 3 };

static const int32_t prompt[] = {1, 2, 3};

static qn_model *g_model;
static qn_session *g_session;

static int open_model(void **state)
{
    (void)state;
    g_model = open_tiny(1);
    g_session = open_session(g_model, &(qn_session_options){.context_tokens = 32});
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    qn_session_close(&g_session);
    qn_model_close(&g_model);
    return 0;
}

static void refused(const qn_request *request, qn_status expected, const char *word)
{
    qn_error err = {0};
    const qn_status status = qn_session_submit(g_session, request, &err);
    if (status != expected || strstr(err.text, word) == NULL) {
        fail_msg("%s: %s: '%s' expected", qn_status_name(status), err.text, word);
    }
    assert_int_equal(err.status, expected);
    assert_int_equal(qn_session_step(g_session, &err), QN_AGAIN);
    assert_int_equal(qn_session_get_stats(g_session).n_prompt_tokens, 0);
    assert_int_equal(qn_session_submit(g_session, request, NULL), expected);
}

static void accepted(const qn_request *request)
{
    static transcript t;
    qn_session *session = open_session(g_model, &(qn_session_options){.context_tokens = 32});
    answer(&t, session, request);
    assert_int_not_equal(t.said.finish, QN_FINISH_ERROR);
    qn_session_close(&session);
}

static void test_request_sampling_out_of_range_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        size_t offset;
        float bad[5];
        float good[2];
    } cases[] = {
        {"temperature (--temperature)",
         offsetof(qn_sampling, temperature),
         {-0.1F, 100.5F, NAN, INFINITY, -INFINITY},
         {0.0F, 100.0F}},
        {"top_p (--top-p)",
         offsetof(qn_sampling, top_p),
         {0.0F, 1.1F, NAN, INFINITY, -1.0F},
         {0.001F, 1.0F}},
        {"min_p (--min-p)",
         offsetof(qn_sampling, min_p),
         {-0.1F, 1.1F, NAN, INFINITY, -1.0F},
         {0.0F, 1.0F}},
        {"repetition_penalty (--repetition-penalty)",
         offsetof(qn_sampling, repetition_penalty),
         {0.0F, 10.5F, NAN, INFINITY, -1.0F},
         {0.1F, 10.0F}},
        {"presence_penalty (--presence-penalty)",
         offsetof(qn_sampling, presence_penalty),
         {-2.1F, 2.1F, NAN, INFINITY, -INFINITY},
         {-2.0F, 2.0F}},
        {"frequency_penalty (--frequency-penalty)",
         offsetof(qn_sampling, frequency_penalty),
         {-2.1F, 2.1F, NAN, INFINITY, -INFINITY},
         {-2.0F, 2.0F}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t k = 0; k < 7; k++) {
            qn_sampling sampling = {.temperature = 1.0F, .top_p = 1.0F, .repetition_penalty = 1.0F};
            const float value = k < 5 ? cases[i].bad[k] : cases[i].good[k - 5];
            memcpy((char *)&sampling + cases[i].offset, &value, sizeof value);
            const qn_request request = {
                .ids = prompt, .n_ids = N_PROMPT, .sampling = &sampling, .max_tokens = 2};
            if (k < 5) {
                refused(&request, QN_E_INVAL, cases[i].word);
            } else {
                accepted(&request);
            }
        }
    }
}

static void test_request_bias_out_of_range_is_named(void **state)
{
    (void)state;
    static qn_logit_bias many[QN_LOGIT_BIAS_MAX + 1];
    static const qn_logit_bias bad[] = {
        {-1, 0.0F}, {VOCAB, 0.0F}, {INT32_MIN, 0.0F}, {3, INFINITY}, {3, NAN}};
    qn_sampling sampling = {.top_p = 1.0F, .repetition_penalty = 1.0F};
    const qn_request request = {
        .ids = prompt, .n_ids = N_PROMPT, .sampling = &sampling, .max_tokens = 2};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sampling.logit_bias = &bad[i];
        sampling.n_logit_bias = 1;
        refused(&request, QN_E_INVAL, "logit_bias (--logit-bias)");
    }
    sampling.logit_bias = many;
    sampling.n_logit_bias = QN_LOGIT_BIAS_MAX + 1;
    refused(&request, QN_E_INVAL, "logit_bias (--logit-bias): 1025, at most 1024");
    sampling.n_logit_bias = QN_LOGIT_BIAS_MAX;
    accepted(&request);
    sampling.logit_bias = NULL;
    refused(&request, QN_E_INVAL, "logit_bias (--logit-bias): NULL");
    sampling.n_logit_bias = 0;
    accepted(&request);
}

static void test_request_prompt_out_of_range_is_named(void **state)
{
    (void)state;
    static const int32_t bad[] = {-1, VOCAB, INT32_MAX, INT32_MIN};
    static int32_t long_prompt[33];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const int32_t ids[] = {1, 2, bad[i]};
        refused(&(qn_request){.ids = ids, .n_ids = 3}, QN_E_INVAL, "at 2, 0 to 96 expected");
    }
    refused(NULL, QN_E_INVAL, "request: NULL");
    refused(&(qn_request){.n_ids = 3}, QN_E_INVAL, "prompt: no tokens");
    refused(&(qn_request){.ids = prompt}, QN_E_INVAL, "prompt: no tokens");
    refused(&(qn_request){.ids = long_prompt, .n_ids = 33}, QN_E_INVAL,
            "prompt: 33 tokens, at most the 32 of the context (--context)");
    refused(&(qn_request){.ids = long_prompt, .n_ids = SIZE_MAX}, QN_E_INVAL, "--context");
    accepted(&(qn_request){.ids = long_prompt, .n_ids = 32});
}

static void test_request_stops_out_of_range_are_named(void **state)
{
    (void)state;
    static char long_text[QN_STOP_BYTES_MAX + 2];
    const char *texts[QN_STOPS_MAX + 1];
    int32_t ids[QN_STOPS_MAX + 1] = {0};
    qn_request request = {.ids = prompt, .n_ids = N_PROMPT, .max_tokens = 2};
    memset(long_text, 'a', sizeof long_text - 1);
    for (size_t i = 0; i <= QN_STOPS_MAX; i++) {
        texts[i] = "never";
    }
    request.stops = texts;
    request.n_stops = QN_STOPS_MAX + 1;
    refused(&request, QN_E_INVAL, "stops (--stop): 17, at most 16");
    request.n_stops = QN_STOPS_MAX;
    texts[QN_STOPS_MAX - 1] = NULL;
    refused(&request, QN_E_INVAL, "stops (--stop): NULL at 15");
    texts[QN_STOPS_MAX - 1] = "";
    refused(&request, QN_E_INVAL, "stop text 15 (--stop): 0 bytes");
    texts[QN_STOPS_MAX - 1] = long_text;
    refused(&request, QN_E_INVAL, "stop text 15 (--stop): 1025 bytes");
    texts[QN_STOPS_MAX - 1] = "\xff";
    refused(&request, QN_E_INVAL, "stop text 15 (--stop): a broken character");
    texts[QN_STOPS_MAX - 1] = long_text + 1;
    accepted(&request);
    request.stops = NULL;
    refused(&request, QN_E_INVAL, "stops (--stop): NULL");
    request.n_stops = 0;
    request.stop_ids = ids;
    request.n_stop_ids = QN_STOPS_MAX + 1;
    refused(&request, QN_E_INVAL, "stop_ids (--stop-id): 17, at most 16");
    request.n_stop_ids = QN_STOPS_MAX;
    accepted(&request);
    ids[4] = VOCAB;
    refused(&request, QN_E_INVAL, "stop_ids (--stop-id): id 97 at 4, 0 to 96");
    request.stop_ids = NULL;
    refused(&request, QN_E_INVAL, "stop_ids (--stop-id): NULL");
}

static void test_request_drafts_out_of_range_are_named(void **state)
{
    (void)state;
    static const int bad[] = {-3, QN_DRAFT_TOKENS_MAX + 1, INT32_MAX, INT32_MIN};
    static const struct {
        int draft_tokens;
        float length;
    } lengths[] = {
        {5, 0.5F}, {5, 6.5F}, {5, NAN}, {5, -1.0F}, {5, INFINITY}, {0, 7.0F}, {QN_DRAFT_NONE, 1.5F},
        {1, 2.5F}};
    qn_request request = {.ids = prompt, .n_ids = N_PROMPT, .max_tokens = 2};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        request.draft_tokens = bad[i];
        refused(&request, QN_E_INVAL, "draft_tokens (--draft-tokens)");
    }
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        request.draft_tokens = lengths[i].draft_tokens;
        request.acceptance_length = lengths[i].length;
        refused(&request, QN_E_INVAL, "acceptance_length (--acceptance-length)");
    }
    request.draft_tokens = QN_DRAFT_AUTO;
    request.acceptance_length = 2.0F;
    refused(&request, QN_E_INVAL, "acceptance_length (--acceptance-length): given with auto");
}

static void test_request_tools_and_logprobs_out_of_range_are_named(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "{", "{}", "[1]", "[{\"type\": \"function\"}]"};
    qn_request request = {.ids = prompt, .n_ids = N_PROMPT, .max_tokens = 2};
    request.n_top_logprobs = QN_TOP_LOGPROBS_MAX + 1;
    refused(&request, QN_E_INVAL, "n_top_logprobs (--logprobs): 21, at most 20");
    request.n_top_logprobs = QN_TOP_LOGPROBS_MAX;
    accepted(&request);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        request.tools_json = bad[i];
        request.tools_len = strlen(bad[i]);
        refused(&request, QN_E_FORMAT, "tools");
    }
    request.tools_json = NULL;
    refused(&request, QN_E_INVAL, "tools_json (--tools): NULL");
    request.tools_len = 0;
    accepted(&request);
}

/* A model whose MTP layer is left out. */
static void test_request_drafts_without_the_layer_are_refused(void **state)
{
    (void)state;
    static const char with[] = "\"num_nextn_predict_layers\": 1";
    char dir[PATH_BYTES];
    char config[sizeof tiny_config];
    qn_model *model = NULL;
    qn_error err = {0};
    folder_tiny(dir);
    memcpy(config, tiny_config, sizeof config);
    char *const at = strstr(config, with);
    assert_non_null(at);
    at[sizeof with - 2] = '0';
    folder_write(dir, "config.json", config);
    assert_int_equal(
        qn_model_open(&model, dir, &(qn_model_options){.use_dummy_weights = true}, &err), QN_OK);
    assert_false(qn_model_get_info(model)->has_mtp);
    qn_session *session = open_session(model, NULL);
    qn_request request = {
        .ids = prompt, .n_ids = N_PROMPT, .max_tokens = 2, .ignore_eos = true, .draft_tokens = 1};
    assert_int_equal(qn_session_submit(session, &request, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "no MTP layer"));
    static const int fine[] = {QN_DRAFT_DEFAULT, QN_DRAFT_NONE, QN_DRAFT_AUTO};
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        static transcript t;
        request.draft_tokens = fine[i];
        answer(&t, session, &request);
        assert_int_equal(t.said.n_ids, 2);
        assert_int_equal(t.stats.n_drafted, 0);
    }
    qn_session_close(&session);
    qn_model_close(&model);
    folder_remove(dir);
}

static void test_request_is_the_only_one(void **state)
{
    (void)state;
    static transcript t;
    qn_session *session = open_session(g_model, NULL);
    const qn_request request = {
        .ids = prompt, .n_ids = N_PROMPT, .max_tokens = 4, .ignore_eos = true};
    qn_error err = {0};
    memset(&t, 0, sizeof t);
    submit(session, &request);
    assert_int_equal(qn_session_submit(session, &request, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "a request has not ended"));
    qn_session_cancel(session);
    assert_int_equal(qn_session_step(session, &err), QN_OK);
    /* Its END is there and unread. */
    assert_int_equal(qn_session_submit(session, &request, &err), QN_E_INVAL);
    finish(&t, session);
    assert_int_equal(t.said.finish, QN_FINISH_ABORT);
    answer(&t, session, &request);
    assert_int_equal(t.said.n_ids, 4);
    qn_session_close(&session);
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_sampling_out_of_range_is_named),
        cmocka_unit_test(test_request_bias_out_of_range_is_named),
        cmocka_unit_test(test_request_prompt_out_of_range_is_named),
        cmocka_unit_test(test_request_stops_out_of_range_are_named),
        cmocka_unit_test(test_request_drafts_out_of_range_are_named),
        cmocka_unit_test(test_request_tools_and_logprobs_out_of_range_are_named),
        cmocka_unit_test(test_request_drafts_without_the_layer_are_refused),
        cmocka_unit_test(test_request_is_the_only_one),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
