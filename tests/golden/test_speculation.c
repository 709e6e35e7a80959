/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Speculation changes no token: glm-nano answers 500 prompts at depth 0 and at others.  Without
 * arguments every prompt takes its turn at one depth, greedy or seeded; with --all-depths each is
 * answered at depths 1 to 8 and auto, greedy and seeded.
 */
#include "quern/quern.h"

#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_PROMPTS = 500, N_TOKENS_MAX = 32, N_KINDS = 10 };

static bool g_all_depths = false;

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": "
    "\"Get the weather of a city\", \"parameters\": {\"type\": \"object\", \"properties\": "
    "{\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}}}]";

/* The i-th prompt: what glm-nano was trained to answer, and what it was not. */
static void write_message(char *out, size_t out_bytes, uint32_t i)
{
    static const char *const names[] = {"Ava", "Ben", "Kira", "Omar", "Zoe"};
    static const char *const items[] = {"apples", "coins", "marbles", "stamps", "roses"};
    static const char *const cities[] = {"Oslo", "Lima", "Cairo", "Kyoto", "Paris"};
    const uint32_t a = 12 + i * 7 % 89;
    const uint32_t b = 2 + i * 5 % 9;
    const char *const name = names[i / N_KINDS % 5];
    const char *const item = items[i / 3 % 5];
    const char *const city = cities[i / 7 % 5];
    switch (i % N_KINDS) {
    case 0: (void)snprintf(out, out_bytes, "What is %u + %u?", a, b); break;
    case 1: (void)snprintf(out, out_bytes, "Compute %u * %u.", b, a % 12); break;
    case 2:
        (void)snprintf(out, out_bytes,
                       "%s has %u %s and gives %u of them to Leo. How many are left?", name, a,
                       item, b);
        break;
    case 3:
        (void)snprintf(out, out_bytes, "Repeat these words: %s, %s, %s.", city, item, name);
        break;
    case 4:
        (void)snprintf(out, out_bytes, "Continue the sequence: %u, %u, %u, %u, ...", a, a + b,
                       a + 2 * b, a + 3 * b);
        break;
    case 5:
        (void)snprintf(out, out_bytes, "Write a C program that prints the numbers from %u to %u.",
                       b, a);
        break;
    case 6:
        (void)snprintf(out, out_bytes,
                       "The code of the red box is %u.\\n%s went to the shop.\\nThe code of the "
                       "blue door is %u.\\n\\nWhat is the code of the red box?",
                       1000 + a * 7, name, 9000 - a);
        break;
    case 7:
        (void)snprintf(out, out_bytes,
                       "%s is %u years old, lives in %s and likes %s.\\n\\nGive the name, age and "
                       "city as JSON.",
                       name, a, city, item);
        break;
    case 8: (void)snprintf(out, out_bytes, "What is the weather in %s?", city); break;
    default:
        (void)snprintf(out, out_bytes, "Tell me about %s, %s and the number %u.", city, item, a);
        break;
    }
}

static void encode(int32_t **ids, size_t *n_ids, const qn_model *model, uint32_t i)
{
    char message[512];
    char json[640];
    qn_error err = {0};
    write_message(message, sizeof message, i);
    (void)snprintf(json, sizeof json, "[{\"role\": \"user\", \"content\": \"%s\"}]", message);
    qn_chat_options options = {.no_thinking = i / N_KINDS % 2 == 0};
    if (i % N_KINDS == 8) {
        options.tools_json = tools;
        options.tools_len = sizeof tools - 1;
    }
    if (qn_chat_encode(ids, n_ids, model, &options, json, strlen(json), &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
}

/* Settings of a prompt; all of them, in turn, that a draw may depend on. */
static qn_sampling sampling_of(const qn_model *model, uint32_t i, bool is_greedy)
{
    qn_sampling s = qn_model_get_info(model)->sampling;
    s.temperature = is_greedy ? 0.0F : 1.0F;
    s.seed = i;
    if (i % 3 == 1) {
        s.repetition_penalty = 1.2F;
        s.top_k = 20;
    } else if (i % 3 == 2) {
        s.presence_penalty = 0.5F;
        s.frequency_penalty = 0.3F;
        s.min_p = 0.02F;
        s.temperature *= 1.3F;
    }
    return s;
}

typedef struct answer {
    int32_t ids[N_TOKENS_MAX];
    float logprobs[N_TOKENS_MAX];
    uint32_t n_ids;
    qn_finish finish;
    uint64_t n_accepted;
} answer;

static void ask(answer *a, qn_session *session, const qn_request *request)
{
    qn_error err = {0};
    qn_event event;
    qn_status status = qn_session_submit(session, request, &err);
    memset(a, 0, sizeof *a);
    while (status == QN_OK) {
        status = qn_session_step(session, &err);
        while (qn_session_poll(&event, session)) {
            if (event.kind == QN_EVENT_TOKEN) {
                assert_true(a->n_ids < N_TOKENS_MAX);
                a->logprobs[a->n_ids] = event.token.logprob;
                a->ids[a->n_ids++] = event.token.token;
            } else if (event.kind == QN_EVENT_END) {
                a->finish = event.finish;
            }
        }
    }
    if (status != QN_AGAIN) {
        fail_msg("%s", err.text);
    }
    a->n_accepted = qn_session_get_stats(session).n_accepted;
}

/* One prompt at depth 0 and at @p depths; returns the drafts accepted. */
static uint64_t compare(qn_session *session, const qn_model *model, uint32_t i, bool is_greedy,
                        const int *depths, size_t n_depths)
{
    answer expected;
    answer got;
    int32_t *ids = NULL;
    uint64_t n_accepted = 0;
    qn_request request = {.max_tokens = N_TOKENS_MAX, .wants_logprobs = true};
    encode(&ids, &request.n_ids, model, i);
    const qn_sampling sampling = sampling_of(model, i, is_greedy);
    request.ids = ids;
    request.sampling = &sampling;
    request.draft_tokens = QN_DRAFT_NONE;
    ask(&expected, session, &request);
    for (size_t k = 0; k < n_depths; k++) {
        request.draft_tokens = depths[k];
        ask(&got, session, &request);
        n_accepted += got.n_accepted;
        got.n_accepted = expected.n_accepted;
        if (memcmp(&got, &expected, sizeof got) != 0) {
            fail_msg("prompt %u, %s, depth %d: another answer than at depth 0", i,
                     is_greedy ? "greedy" : "seeded", depths[k]);
        }
    }
    qn_free(ids);
    return n_accepted;
}

static void test_answers_do_not_depend_on_the_depth_of_speculation(void **state)
{
    (void)state;
    static const int depths[] = {1, 2, 3, 4, 5, 6, 7, 8, QN_DRAFT_AUTO};
    const size_t n_depths = sizeof depths / sizeof depths[0];
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_error err = {0};
    uint64_t n_accepted = 0;
    assert_int_equal(qn_model_open(&model, QN_SOURCE_DIR "/models/glm-nano", NULL, &err), QN_OK);
    assert_int_equal(qn_session_open(&session, model, NULL, &err), QN_OK);
    for (uint32_t i = 0; i < N_PROMPTS; i++) {
        if (g_all_depths) {
            n_accepted += compare(session, model, i, true, depths, n_depths);
            n_accepted += compare(session, model, i, false, depths, n_depths);
        } else {
            n_accepted += compare(session, model, i, i / 2 % 2 == 0, &depths[i % n_depths], 1);
        }
    }
    assert_true(n_accepted > N_PROMPTS); /* or nothing was speculated */
    qn_session_close(&session);
    qn_model_close(&model);
}

int main(int argc, char **argv)
{
    g_all_depths = argc > 1 && strcmp(argv[1], "--all-depths") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_do_not_depend_on_the_depth_of_speculation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
