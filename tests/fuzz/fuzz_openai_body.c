/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the body of a chat and of a completion, or of what tokenizes theirs: it opens or is
 * refused with a name, and what opens answers in JSON. */
#include "base/assert.h"
#include "base/json_doc.h"
#include "server/exchange.h"

#include <stdlib.h>

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static qn_model *g_model;

static void check_json(qn_str text)
{
    qn_json_kind kind = QN_JSON_NULL;
    QN_ASSERT(qn_json_scan(text, &kind) && kind == QN_JSON_OBJECT);
}

/* Events of SSE: each is a comment, [DONE], or an object; the last one ends the text. */
static void check_stream(qn_str text)
{
    static const char data[] = "data: ";
    while (text.len > 0) {
        const char *const end = memmem(text.ptr, text.len, "\n\n", 2);
        QN_ASSERT(end != NULL && qn_str_begins(text, data));
        const size_t n_head = sizeof data - 1;
        const qn_str event = {.ptr = text.ptr + n_head, .len = (size_t)(end - text.ptr) - n_head};
        if (!qn_str_equal(event, qn_str_of("[DONE]"))) {
            check_json(event);
        }
        text = (qn_str){.ptr = end + 2, .len = text.len - (size_t)(end + 2 - text.ptr)};
    }
}

/* Some of everything, then the end. */
static void answer_choice(server_exchange *x, size_t i_choice, qn_buf *out)
{
    static const qn_token_logprob top[] = {{5, -0.5F}, {6, -1.0F}};
    static const qn_event events[] = {
        {.kind = QN_EVENT_PROMPT_TOKEN, .token = {.token = 1}},
        {.kind = QN_EVENT_PROMPT_TOKEN,
         .token = {.token = 2},
         .position = 1,
         .top = top,
         .n_top = 2},
        {.kind = QN_EVENT_TOKEN, .token = {.token = 5}, .position = 2, .top = top, .n_top = 2},
        {.kind = QN_EVENT_REASONING, .text = "th\"", .len = 3},
        {.kind = QN_EVENT_TEXT, .text = "\n\n", .len = 2},
        {.kind = QN_EVENT_TOOL_CALL, .text = "{}", .len = 2, .name = "f", .name_len = 1},
        {.kind = QN_EVENT_END, .finish = QN_FINISH_TOOL_CALLS},
    };
    qn_error err = {0};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        QN_ASSERT(exchange_take(x, i_choice, &events[i], &err) == QN_OK);
        QN_ASSERT(exchange_flush(x, out, &err) == QN_OK);
    }
}

static void answer(server_exchange *x)
{
    qn_buf out = {.bytes_max = 1 << 30};
    qn_error err = {0};
    QN_ASSERT(exchange_n_choices(x) >= 1 && exchange_n_prompt_tokens(x) >= 1);
    for (size_t i = 0; i < exchange_n_choices(x); i++) {
        qn_sampling sampling;
        const qn_request r = exchange_choice(x, i, &sampling);
        QN_ASSERT(r.ids != NULL && r.n_ids >= 1 && r.n_stops <= QN_STOPS_MAX);
        QN_ASSERT(r.n_top_logprobs <= QN_TOP_LOGPROBS_MAX);
    }
    exchange_shrink(x);
    QN_ASSERT(exchange_begin(x, &out, &err) == QN_OK);
    for (size_t i = 0; i < exchange_n_choices(x); i++) {
        answer_choice(x, i, &out);
    }
    QN_ASSERT(exchange_finish(x, &out, &err) == QN_OK);
    if (exchange_streams(x)) {
        check_stream(qn_buf_view(&out));
    } else {
        check_json(qn_buf_view(&out));
    }
    qn_buf_deinit(&out);
}

static void check_error(const server_error *error, server_api api)
{
    qn_buf out = {.bytes_max = 1 << 20};
    QN_ASSERT(error->status_code == 400 && error->code != NULL && error->message[0] != '\0');
    QN_ASSERT(server_error_append(&out, error, api, NULL) == QN_OK);
    check_json(qn_buf_view(&out));
    qn_buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    const qn_model_options options = {.tokenizer_only = true};
    QN_ASSERT(g_model != NULL ||
              qn_model_open(&g_model, QN_SOURCE_DIR "/models/glm-nano", &options, NULL) == QN_OK);
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    const exchange_settings settings = {.model = g_model, .context_tokens = 4096};
    for (int api = SERVER_API_CHAT; api <= SERVER_API_COMPLETION; api++) {
        server_exchange *x = NULL;
        server_error error = {0};
        if (exchange_open(&x, &settings, (server_api)api, exact, n_bytes, "7", &error)) {
            answer(x);
            exchange_close(&x);
        } else {
            QN_ASSERT(x == NULL);
            check_error(&error, (server_api)api);
        }
        error = (server_error){0};
        if (exchange_open_prompt(&x, &settings, (server_api)api, exact, n_bytes, &error)) {
            qn_sampling sampling;
            QN_ASSERT(exchange_choice(x, 0, &sampling).n_ids <= exchange_n_prompt_tokens(x));
            exchange_close(&x);
        } else {
            check_error(&error, (server_api)api);
        }
    }
    free(exact);
    return 0;
}
