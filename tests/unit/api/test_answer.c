/* SPDX-License-Identifier: Apache-2.0 */
/* What a request says: events and their order, log-probabilities, ends of every kind. */
#include "api/answer.h"
#include "transcript.h"

#include <math.h>

/* Greedily: this question's answer, token by token, and its text. */
#define QUESTION                                                                                   \
    "[gMASK]<sop><|system|>Reasoning Effort: Max<|user|>Tom has 12 apples and buys 30 more. How "  \
    "many apples does he have?<|assistant|><think>"
#define ANSWER "12 + 30 = 42. The answer is 42."

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};

static qn_model *g_model;
static int32_t *g_ids; /* of QUESTION */
static size_t g_n_ids;
static transcript g_plain; /* its answer, with log-probabilities and without speculation */

static qn_request ask(void)
{
    return (qn_request){.ids = g_ids, .n_ids = g_n_ids, .sampling = &greedy};
}

static int open_model(void **state)
{
    (void)state;
    qn_error err = {0};
    if (qn_model_open(&g_model, NANO, NULL, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    g_n_ids = encode(&g_ids, g_model, QUESTION);
    qn_request request = ask();
    request.wants_logprobs = true;
    request.n_top_logprobs = N_TOP;
    request.draft_tokens = QN_DRAFT_NONE;
    answer_alone(&g_plain, g_model, &request);
    assert_string_equal(g_plain.said.text, ANSWER);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    qn_free(g_ids);
    qn_model_close(&g_model);
    return 0;
}

/* Text events of a parser, as letters of said.kinds. */
static void add_kind(void *context, const qn_event *event)
{
    char *const kinds = context;
    kinds[strlen(kinds)] = "rxbdcw"[event->kind];
}

static void test_answer_tells_a_token_before_its_text_and_end_last(void **state)
{
    (void)state;
    char expected[SAID_BYTES] = "";
    qn_parser *parser = NULL;
    qn_error err = {0};
    const qn_parser_options options = {
        .prompt = g_ids, .n_prompt = g_n_ids, .fn = add_kind, .context = expected};
    assert_int_equal(qn_parser_open(&parser, g_model, &options, &err), QN_OK);
    for (uint32_t i = 0; i < g_plain.said.n_ids; i++) {
        expected[strlen(expected)] = 't';
        assert_int_equal(qn_parser_feed(parser, g_plain.said.ids[i], &err), QN_OK);
    }
    qn_parser_end(parser);
    assert_int_equal(qn_parser_reasoning_tokens(parser), g_plain.stats.n_reasoning_tokens);
    qn_parser_close(&parser);
    expected[strlen(expected)] = 'e';
    assert_string_equal(g_plain.said.kinds, expected);
    assert_true(strchr(expected, 'x') != NULL);
    assert_int_equal(g_plain.said.finish, QN_FINISH_STOP);
    for (uint32_t i = 0; i < g_plain.said.n_ids; i++) {
        assert_int_equal(g_plain.said.positions[i], g_n_ids + i);
    }
}

static void test_answer_by_callback_is_that_by_poll(void **state)
{
    (void)state;
    static said heard;
    qn_event event;
    memset(&heard, 0, sizeof heard);
    qn_session *session =
        open_session(g_model, &(qn_session_options){.fn = said_event, .context = &heard});
    qn_request request = ask();
    request.wants_logprobs = true;
    request.n_top_logprobs = N_TOP;
    submit(session, &request);
    while (qn_session_step(session, NULL) == QN_OK) {
        assert_false(qn_session_poll(&event, session));
    }
    assert_said_equal(&heard, &g_plain.said);
    qn_session_close(&session);
}

static void test_answer_unread_events_hold_the_next_step_and_stay(void **state)
{
    (void)state;
    static transcript t;
    qn_session *session = open_session(g_model, NULL);
    const qn_event untouched = {.position = 77};
    qn_event event = untouched;
    qn_error err = {0};
    qn_request request = ask();
    request.wants_logprobs = true;
    request.n_top_logprobs = N_TOP;
    memset(&t, 0, sizeof t);
    submit(session, &request);
    assert_int_equal(qn_session_step(session, &err), QN_OK);
    for (uint32_t n_left = 2; n_left > 0; n_left--) { /* the first token has no text */
        const uint64_t n_generated = qn_session_get_stats(session).n_generated_tokens;
        if (n_left == 1) {
            assert_int_equal(qn_session_step(session, &err), QN_OK);
        }
        assert_int_equal(qn_session_step(session, &err), QN_E_INVAL);
        assert_non_null(strstr(err.text, "unread"));
        assert_true(qn_session_get_stats(session).n_generated_tokens >= n_generated);
        assert_true(qn_session_poll(&event, session));
        said_event(&t.said, &event);
        said_poll(&t.said, session);
        event = untouched;
        assert_false(qn_session_poll(&event, session));
        assert_memory_equal(&event, &untouched, sizeof event);
    }
    finish(&t, session);
    assert_said_equal(&t.said, &g_plain.said);
    qn_session_close(&session);
}

/* ----------------------------------------------------------------------------- finish reasons --
 */

static void test_answer_finish_reasons_have_names(void **state)
{
    (void)state;
    static const char *const names[] = {"stop", "length", "tool_calls", "abort", "error"};
    for (int i = 0; i < 5; i++) {
        assert_string_equal(qn_finish_name((qn_finish)i), names[i]);
    }
    assert_string_equal(qn_finish_name((qn_finish)99), "?");
}

static void test_answer_ends_by_a_stop_id_of_the_request(void **state)
{
    (void)state;
    static transcript t;
    qn_session *session = open_session(g_model, NULL);
    for (uint32_t i = 0; i < g_plain.said.n_ids; i += 3) {
        const int32_t stop_ids[] = {0, g_plain.said.ids[i]};
        uint32_t n_expected = 0; /* up to where it comes first */
        while (g_plain.said.ids[n_expected++] != stop_ids[1]) {
        }
        qn_request request = ask();
        request.stop_ids = stop_ids;
        request.n_stop_ids = 2;
        answer(&t, session, &request);
        assert_int_equal(t.said.finish, QN_FINISH_STOP);
        assert_int_equal(t.said.n_ids, n_expected);
        assert_memory_equal(t.said.ids, g_plain.said.ids, n_expected * sizeof(int32_t));
    }
    qn_session_close(&session);
}

static void test_answer_ends_by_length(void **state)
{
    (void)state;
    static transcript t;
    qn_session *session = open_session(g_model, NULL);
    for (uint32_t n = 1; n < g_plain.said.n_ids; n++) {
        qn_request request = ask();
        request.max_tokens = n;
        request.wants_logprobs = true;
        answer(&t, session, &request);
        assert_int_equal(t.said.finish, QN_FINISH_LENGTH);
        assert_int_equal(t.said.n_ids, n);
        assert_memory_equal(t.said.ids, g_plain.said.ids, n * sizeof(int32_t));
        assert_memory_equal(t.said.logprobs, g_plain.said.logprobs, n * sizeof(float));
        assert_memory_equal(t.said.text, ANSWER, strlen(t.said.text));
    }
    qn_session_close(&session);
}

static void test_answer_that_ignores_eos_goes_on(void **state)
{
    (void)state;
    static transcript t;
    const uint32_t n = g_plain.said.n_ids;
    qn_request request = ask();
    request.ignore_eos = true;
    request.max_tokens = n + 5;
    answer_alone(&t, g_model, &request);
    assert_int_equal(t.said.finish, QN_FINISH_LENGTH);
    assert_int_equal(t.said.n_ids, n + 5);
    assert_memory_equal(t.said.ids, g_plain.said.ids, n * sizeof(int32_t));
    assert_true(qn_model_is_stop(g_model, t.said.ids[n - 1]));
    const int32_t stop_ids[] = {t.said.ids[n - 1]}; /* as one of the request it ends it again */
    request.stop_ids = stop_ids;
    request.n_stop_ids = 1;
    answer_alone(&t, g_model, &request);
    assert_int_equal(t.said.finish, QN_FINISH_STOP);
    assert_int_equal(t.said.n_ids, n);
}

static void test_answer_ends_before_a_stop_text_wherever_tokens_end(void **state)
{
    (void)state;
    static transcript t;
    static const int depths[] = {QN_DRAFT_NONE, 5};
    qn_session *session = open_session(g_model, NULL);
    for (size_t from = 0; from < strlen(ANSWER); from += 2) {
        char stop[8];
        (void)snprintf(stop, sizeof stop, "%.*s", (int)(1 + from % 7), &ANSWER[from]);
        const char *const stops[] = {"nowhere", stop};
        const char *const at = strstr(ANSWER, stop);
        for (size_t i = 0; i < 2; i++) {
            qn_request request = ask();
            request.stops = stops;
            request.n_stops = 2;
            request.draft_tokens = depths[i];
            answer(&t, session, &request);
            assert_int_equal(t.said.finish, QN_FINISH_STOP);
            assert_int_equal(t.said.stop_number, 2);
            assert_int_equal(strlen(t.said.text), at - ANSWER);
            assert_memory_equal(t.said.text, ANSWER, strlen(t.said.text));
            assert_true(t.said.n_ids < g_plain.said.n_ids);
            assert_int_equal(t.stats.n_generated_tokens, t.said.n_ids);
        }
    }
    qn_session_close(&session);
}

static void test_answer_says_what_only_began_like_a_stop_text(void **state)
{
    (void)state;
    static transcript t;
    const char *const stops[] = {"42.!", "answer was", ANSWER "?"};
    qn_request request = ask();
    request.stops = stops;
    request.n_stops = 3;
    answer_alone(&t, g_model, &request);
    assert_int_equal(t.said.finish, QN_FINISH_STOP);
    assert_int_equal(t.said.stop_number, 0);
    assert_string_equal(t.said.text, ANSWER);
    request.max_tokens = 3; /* cut off while a beginning is held back */
    answer_alone(&t, g_model, &request);
    assert_int_equal(t.said.finish, QN_FINISH_LENGTH);
    assert_true(strlen(t.said.text) > 0);
    assert_memory_equal(t.said.text, ANSWER, strlen(t.said.text));
}

/* What the model might write, fed by hand: a beginning of the stop text on either side of a call.
 */
static void test_answer_says_held_text_before_a_call_once(void **state)
{
    (void)state;
    static qn_answer splitter;
    static said all;
    static const char *const stops[] = {"ab"};
    int32_t *ids = NULL;
    const size_t n_ids =
        encode(&ids, g_model, "</think>xa<tool_call>f</tool_call>b<tool_call>f</tool_call>a");
    qn_error err = {0};
    qn_request request = ask();
    request.stops = stops;
    request.n_stops = 1;
    memset(&all, 0, sizeof all);
    qn_answer_init(&splitter, NULL, said_event, &all);
    assert_int_equal(qn_answer_begin(&splitter, g_model, &request, &err), QN_OK);
    for (size_t i = 0; i < n_ids; i++) {
        assert_true(qn_answer_feed(&splitter, ids[i], true));
    }
    qn_answer_flush(&splitter);
    assert_string_equal(all.text, "xaba"); /* no stop text, as a call stands between */
    assert_string_equal(all.calls, "f({});f({});");
    assert_string_equal(all.kinds, "xxcxcx");
    qn_answer_deinit(&splitter);
    qn_free(ids);
}

/* More events than tokens: a call whose every argument is warned of. */
static void test_answer_keeps_a_warning_for_each_of_256_arguments(void **state)
{
    (void)state;
    static qn_answer splitter;
    static qn_events events;
    const qn_events_options room = {.n_events = QN_EVENTS_OF_STEP_MAX};
    static char schema[16384];
    static char text[32768];
    enum { N = 256 };
    size_t n_schema = 0;
    size_t n_text = 0;
    size_t n_warnings = 0;
    int32_t *ids = NULL;
    qn_event event;
    qn_error err = {0};
    n_schema += (size_t)snprintf(schema, sizeof schema,
                                 "[{\"name\": \"f\", \"parameters\": {\"properties\": {");
    n_text += (size_t)snprintf(text, sizeof text, "</think><tool_call>f");
    for (int i = 0; i < N; i++) {
        n_schema += (size_t)snprintf(schema + n_schema, sizeof schema - n_schema,
                                     "%s\"k%d\": {\"type\": \"integer\"}", i > 0 ? ", " : "", i);
        n_text += (size_t)snprintf(text + n_text, sizeof text - n_text,
                                   "<arg_key>k%d</arg_key><arg_value>many</arg_value>", i);
    }
    (void)snprintf(schema + n_schema, sizeof schema - n_schema, "}}}]");
    (void)snprintf(text + n_text, sizeof text - n_text, "</tool_call>");
    const size_t n_ids = encode(&ids, g_model, text);
    qn_request request = ask();
    request.tools_json = schema;
    request.tools_len = strlen(schema);
    memset(&splitter, 0, sizeof splitter);
    assert_int_equal(qn_events_init(&events, &room, &err), QN_OK);
    qn_answer_init(&splitter, &events, NULL, NULL);
    assert_int_equal(qn_answer_begin(&splitter, g_model, &request, &err), QN_OK);
    for (size_t i = 0; i < n_ids; i++) {
        assert_true(qn_answer_feed(&splitter, ids[i], true));
    }
    while (qn_events_poll(&events, NULL, &event)) {
        n_warnings += event.kind == QN_EVENT_WARNING ? 1 : 0;
    }
    assert_int_equal(n_warnings, N);
    assert_int_equal(event.kind, QN_EVENT_TOOL_CALL);
    qn_answer_deinit(&splitter);
    qn_events_deinit(&events);
    qn_free(ids);
}

static void test_answer_of_min_tokens_does_not_stop_before(void **state)
{
    (void)state;
    static transcript t;
    static const char *const stops[] = {"4"}; /* in ANSWER twice */
    const uint32_t n = g_plain.said.n_ids;
    qn_session *session = open_session(g_model, NULL);
    for (uint32_t n_min = n - 2; n_min < n + 4; n_min++) {
        qn_request request = ask();
        request.min_tokens = n_min;
        request.max_tokens = n + 20;
        answer(&t, session, &request);
        assert_true(t.said.n_ids > n_min || n_min < n);
        assert_int_equal(t.said.n_ids == n, n_min < n);
        for (uint32_t i = 0; i < n_min && i < t.said.n_ids; i++) {
            assert_false(qn_model_is_stop(g_model, t.said.ids[i]));
        }
    }
    qn_request request = ask();
    request.stops = stops;
    request.n_stops = 1;
    answer(&t, session, &request);
    assert_string_equal(t.said.text, "12 + 30 = ");
    request.min_tokens = t.said.n_ids + 1; /* one token after the first "4" */
    answer(&t, session, &request);
    assert_string_equal(t.said.text, "12 + 30 = 42. The answer is ");
    qn_session_close(&session);
}

static void test_answer_without_a_possible_token_is_an_error(void **state)
{
    (void)state;
    static qn_logit_bias bans[97];
    static transcript t, expected;
    static const int32_t prompt[] = {1, 2, 3};
    qn_model *model = open_tiny(1);
    qn_session *session = open_session(model, NULL);
    qn_sampling sampling = greedy;
    qn_request request = {
        .ids = prompt, .n_ids = 3, .sampling = &sampling, .max_tokens = 9, .ignore_eos = true};
    answer_alone(&expected, model, &request);
    for (int32_t i = 0; i < 97; i++) {
        bans[i] = (qn_logit_bias){.token = i, .bias = -INFINITY};
    }
    sampling.logit_bias = bans;
    sampling.n_logit_bias = 97;
    answer(&t, session, &request);
    assert_string_equal(t.said.kinds, "e");
    assert_int_equal(t.said.finish, QN_FINISH_ERROR);
    assert_int_equal(t.err.status, QN_E_FORMAT);
    assert_non_null(strstr(t.err.text, "token at 3: none above -Inf"));
    sampling.n_logit_bias = 0;
    answer(&t, session, &request);
    assert_said_equal(&t.said, &expected.said);
    sampling.n_logit_bias = 96; /* one is left */
    answer(&t, session, &request);
    for (uint32_t i = 0; i < 9; i++) {
        assert_int_equal(t.said.ids[i], 96);
    }
    qn_session_close(&session);
    qn_model_close(&model);
}

/* --------------------------------------------------------------------------- log-probabilities --
 */

/* By the definition, in double. */
static double logprob_of(const float *logits, size_t n_vocab, int32_t token)
{
    double sum = 0.0;
    for (size_t i = 0; i < n_vocab; i++) {
        sum += exp((double)logits[i] - (double)logits[token]);
    }
    return -log(sum);
}

static void test_logprobs_of_the_prompt_begin_at_position_0(void **state)
{
    (void)state;
    static transcript t;
    enum { N = 40 }; /* more than a step keeps logits of */
    int32_t prompt[N];
    for (int32_t i = 0; i < N; i++) {
        prompt[i] = i * 41 % 96;
    }
    qn_model *model = open_tiny(1);
    qn_session *session = open_session(model, NULL);
    qn_request request = {.ids = prompt,
                          .n_ids = N,
                          .n_top_logprobs = 2,
                          .prompt_only = true,
                          .wants_prompt_logprobs = true};
    answer(&t, session, &request);
    assert_int_equal(strspn(t.said.kinds, "p"), N);
    assert_string_equal(t.said.kinds + N, "e");
    assert_memory_equal(t.said.ids, prompt, sizeof prompt);
    assert_true(t.said.logprobs[0] == 0.0F && t.said.n_tops[0] == 0);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(t.said.positions[i], i);
    }
    qn_session *one_by_one = open_session(model, NULL);
    for (uint32_t i = 1; i < N; i++) {
        static transcript ignored;
        answer(&ignored, one_by_one, &(qn_request){.ids = prompt, .n_ids = i, .prompt_only = true});
        const float *const logits = qn_session_logits(one_by_one);
        assert_true(fabs(logprob_of(logits, 97, prompt[i]) - (double)t.said.logprobs[i]) < 1e-5);
        assert_int_equal(t.said.n_tops[i], 2);
        for (int32_t id = 0; id < 97; id++) {
            assert_true(logits[id] <= logits[t.said.tops[i][0].token]);
        }
    }
    request.prompt_only = false; /* the answer's tokens follow, without log-probabilities */
    request.max_tokens = 3;
    request.ignore_eos = true;
    answer(&t, session, &request);
    assert_int_equal(t.said.n_prompt, N);
    assert_int_equal(t.said.n_ids, N + 3);
    assert_true(t.said.logprobs[N] == 0.0F && t.said.n_tops[N] == 0);
    request.n_ids = 1;
    request.prompt_only = true;
    answer(&t, session, &request);
    assert_string_equal(t.said.kinds, "pe");
    qn_session_close(&one_by_one);
    qn_session_close(&session);
    qn_model_close(&model);
}

static void test_logprobs_are_those_before_the_settings_and_fall(void **state)
{
    (void)state;
    static transcript t;
    qn_sampling sampling = {.temperature = 5.0F,
                            .top_p = 1.0F,
                            .repetition_penalty = 1.5F,
                            .presence_penalty = 1.0F,
                            .seed = 1};
    qn_request request = ask();
    request.sampling = &sampling;
    request.wants_logprobs = true;
    request.n_top_logprobs = N_TOP;
    request.max_tokens = 10;
    answer_alone(&t, g_model, &request);
    assert_memory_equal(t.said.tops[0], g_plain.said.tops[0], sizeof t.said.tops[0]);
    bool is_any_unlikely = false;
    for (uint32_t i = 0; i < t.said.n_ids; i++) {
        const qn_token_logprob *const top = t.said.tops[i];
        assert_int_equal(t.said.n_tops[i], N_TOP);
        for (size_t k = 1; k < N_TOP; k++) {
            assert_true(top[k].logprob < top[k - 1].logprob || top[k].token > top[k - 1].token);
            assert_true(top[k].logprob <= top[k - 1].logprob && top[k - 1].logprob <= 0.0F);
        }
        for (size_t k = 0; k < N_TOP; k++) {
            assert_true(top[k].token != t.said.ids[i] || top[k].logprob == t.said.logprobs[i]);
        }
        is_any_unlikely |= t.said.logprobs[i] < top[N_TOP - 1].logprob;
    }
    assert_true(is_any_unlikely);
    for (uint32_t i = 0; i < g_plain.said.n_ids; i++) { /* a greedy token is the likeliest */
        assert_int_equal(g_plain.said.tops[i][0].token, g_plain.said.ids[i]);
    }
}

static void test_logprobs_that_are_not_asked_for_are_not_told(void **state)
{
    (void)state;
    static transcript t;
    qn_request request = ask();
    request.n_top_logprobs = N_TOP; /* of tokens whose log-probability is wanted: of none */
    answer_alone(&t, g_model, &request);
    assert_string_equal(t.said.text, ANSWER);
    for (uint32_t i = 0; i < t.said.n_ids; i++) {
        assert_true(t.said.logprobs[i] == 0.0F && t.said.n_tops[i] == 0);
    }
}

/* Puts @p value for the number behind "key": of the same length in @p config. */
static void change(char *config, const char *key, const char *value)
{
    char *const at = strstr(config, key);
    assert_non_null(at);
    memcpy(at + strlen(key), value, strlen(value));
}

static void test_logprobs_are_at_most_the_vocabulary(void **state)
{
    (void)state;
    static const int32_t prompt[] = {1, 2, 3};
    static transcript t;
    char dir[PATH_BYTES];
    char config[sizeof tiny_config];
    qn_model *model = NULL;
    qn_error err = {0};
    folder_make(dir);
    memcpy(config, tiny_config, sizeof config);
    change(config, "\"vocab_size\": ", " 7");
    change(config, "\"eos_token_id\": [", " 6");
    folder_write(dir, "config.json", config);
    assert_int_equal(
        qn_model_open(&model, dir, &(qn_model_options){.use_dummy_weights = true}, &err), QN_OK);
    const qn_request request = {.ids = prompt,
                                .n_ids = 3,
                                .n_top_logprobs = QN_TOP_LOGPROBS_MAX,
                                .max_tokens = 4,
                                .ignore_eos = true,
                                .wants_logprobs = true};
    answer_alone(&t, model, &request);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(t.said.n_tops[i], 7);
    }
    qn_model_close(&model);
    folder_remove(dir);
}

/* --------------------------------------------------------------------------- pinned acceptance --
 */

static void test_acceptance_length_pins_tokens_a_step(void **state)
{
    (void)state;
    static const float lengths[] = {1.0F, 1.5F, 2.25F, 3.0F, 4.1F, 6.0F};
    static const int32_t prompt[] = {1, 2, 3};
    enum { N = 121 };
    static transcript t;
    qn_model *model = open_tiny(1);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        const qn_request request = {.ids = prompt,
                                    .n_ids = 3,
                                    .max_tokens = N,
                                    .draft_tokens = 5,
                                    .acceptance_length = lengths[i],
                                    .ignore_eos = true};
        answer_alone(&t, model, &request);
        assert_true(t.stats.is_synthetic);
        assert_int_equal(t.said.n_ids, N);
        assert_int_equal(t.stats.n_step_tokens, N - 1);
        assert_int_equal(t.stats.n_steps, (uint64_t)ceilf((N - 1) / lengths[i]));
        assert_true(t.stats.n_drafted >= t.stats.n_accepted);
        assert_int_equal(t.stats.n_accepted + t.stats.n_steps, N - 1);
        uint64_t n_accepted = 0;
        for (size_t k = 0; k < QN_DRAFT_TOKENS_MAX; k++) {
            n_accepted += t.stats.n_accepted_at[k];
        }
        assert_int_equal(n_accepted, t.stats.n_accepted);
    }
    const qn_request honest = {.ids = prompt, .n_ids = 3, .max_tokens = 9, .ignore_eos = true};
    answer_alone(&t, model, &honest);
    assert_false(t.stats.is_synthetic);
    qn_model_close(&model);
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer_tells_a_token_before_its_text_and_end_last),
        cmocka_unit_test(test_answer_by_callback_is_that_by_poll),
        cmocka_unit_test(test_answer_unread_events_hold_the_next_step_and_stay),
        cmocka_unit_test(test_answer_finish_reasons_have_names),
        cmocka_unit_test(test_answer_ends_by_a_stop_id_of_the_request),
        cmocka_unit_test(test_answer_ends_by_length),
        cmocka_unit_test(test_answer_that_ignores_eos_goes_on),
        cmocka_unit_test(test_answer_ends_before_a_stop_text_wherever_tokens_end),
        cmocka_unit_test(test_answer_says_what_only_began_like_a_stop_text),
        cmocka_unit_test(test_answer_says_held_text_before_a_call_once),
        cmocka_unit_test(test_answer_keeps_a_warning_for_each_of_256_arguments),
        cmocka_unit_test(test_answer_of_min_tokens_does_not_stop_before),
        cmocka_unit_test(test_answer_without_a_possible_token_is_an_error),
        cmocka_unit_test(test_logprobs_of_the_prompt_begin_at_position_0),
        cmocka_unit_test(test_logprobs_are_those_before_the_settings_and_fall),
        cmocka_unit_test(test_logprobs_that_are_not_asked_for_are_not_told),
        cmocka_unit_test(test_logprobs_are_at_most_the_vocabulary),
        cmocka_unit_test(test_acceptance_length_pins_tokens_a_step),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
