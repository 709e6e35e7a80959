/* SPDX-License-Identifier: Apache-2.0 */
/* Each allocation of a body and of its answer fails once: it is never the caller's fault. */
#include "openai_world.h"
#include "support/fail_each.h"

static const char *g_body;
static server_api g_api;

static const char chat[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"stop\": [\"a\"], "
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {}}}], "
    "\"logit_bias\": {\"5\": 1}, \"user\": \"x\", \"cache_salt\": \"s\", \"logprobs\": true, "
    "\"top_logprobs\": 1, \"prompt_logprobs\": 1}";
static const char stream[] =
    "{\"prompt\": [[5, 6], \"a\"], \"stream\": true, \"echo\": true, \"logprobs\": 1, "
    "\"stream_options\": {\"include_usage\": true}}";
static const char unknown[] = "{\"prompt\": \"a\", \"no_such\": 1}";

static qn_status give(server_exchange *x, size_t i, qn_event event, qn_buf *out, qn_error *err)
{
    const qn_status status = exchange_take(x, i, &event, err);
    return status == QN_OK ? exchange_flush(x, out, err) : status;
}

static qn_status answer(server_exchange *x, qn_buf *out, qn_error *err)
{
    static const qn_token_logprob top[] = {{4, -0.5F}};
    const qn_event events[] = {
        {.kind = QN_EVENT_PROMPT_TOKEN, .token = {.token = 2}},
        token_event(5, top, 1),
        say(QN_EVENT_REASONING, "some thoughts"),
        say(QN_EVENT_TEXT, "text"),
        call_event(QN_EVENT_TOOL_CALL, "f", "{}"),
        {.kind = QN_EVENT_END, .finish = QN_FINISH_STOP},
    };
    qn_status status = exchange_begin(x, out, err);
    for (size_t i = 0; i < exchange_n_choices(x); i++) {
        for (size_t n = 0; status == QN_OK && n < sizeof events / sizeof *events; n++) {
            status = give(x, i, events[n], out, err);
        }
    }
    return status == QN_OK ? exchange_finish(x, out, err) : status;
}

static qn_status body(qn_error *err)
{
    server_exchange *x = NULL;
    server_error error = {0};
    qn_buf out = {.bytes_max = 1 << 20};
    qn_status status = QN_OK;
    if (exchange_open(&x, &g_settings, g_api, g_body, strlen(g_body), "7", &error)) {
        status = answer(x, &out, err);
        exchange_close(&x);
    } else if (error.status_code == 503) {
        assert_null(x);
        assert_true(error.retry_after_s > 0);
        assert_string_equal(error.param, "");
        status = qn_fail(err, QN_E_NOMEM, 0, __func__, "%s", error.message);
    } else {
        assert_ptr_equal(g_body, unknown);
        assert_string_equal(error.code, "unknown_parameter");
    }
    qn_buf_deinit(&out);
    return status;
}

static void test_each_allocation_fails_once(void **state)
{
    (void)state;
    g_api = SERVER_API_CHAT;
    g_body = chat;
    fail_each(body, 1, 30);
    g_api = SERVER_API_COMPLETION;
    g_body = stream;
    fail_each(body, 1, 30);
    g_body = unknown;
    fail_each(body, 1, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_allocation_fails_once)};
    return cmocka_run_group_tests(tests, model_open, model_close);
}
