/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a body of /v1/messages: a refusal says why, and what is accepted is answered in JSON
 * or in events of one line of JSON each. */
#include "base/assert.h"
#include "base/json_doc.h"
#include "server/exchange.h"

#include <stdlib.h>

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

static exchange_settings g_settings;

static void open_model(void)
{
    qn_model *model = NULL;
    if (g_settings.model == NULL) {
        QN_ASSERT(qn_model_open(&model, QN_SOURCE_DIR "/models/glm-nano", NULL, NULL) == QN_OK);
        g_settings.model = model;
    }
}

static void check_refusal(const server_error *error)
{
    QN_ASSERT(error->status_code == 400);
    QN_ASSERT(error->code != NULL && error->message[0] != '\0');
    QN_ASSERT(memchr(error->message, '\n', sizeof error->message) == NULL);
}

/* Events, each of a name, a line of JSON and an empty line. */
static void check_stream(qn_str text)
{
    while (text.len > 0) {
        const char *const data = memmem(text.ptr, text.len, "\ndata: ", 7);
        const char *const end = memmem(text.ptr, text.len, "\n\n", 2);
        QN_ASSERT(qn_str_begins(text, "event: ") && data != NULL && end != NULL && data < end);
        QN_ASSERT(memchr(data + 1, '\n', (size_t)(end - data) - 1) == NULL);
        QN_ASSERT(qn_json_scan((qn_str){data + 7, (size_t)(end - data) - 7}, NULL));
        text.len -= (size_t)(end + 2 - text.ptr);
        text.ptr = end + 2;
    }
}

/* Say something in every kind of block, and end by the last of its stop texts. */
static void answer(server_exchange *x)
{
    qn_sampling sampling;
    const qn_request request = exchange_choice(x, 0, &sampling);
    const qn_session_stats stats = {.n_generated_tokens = 3};
    const qn_event events[] = {
        {.kind = QN_EVENT_REASONING, .text = "a\n", .len = 2},
        {.kind = QN_EVENT_TEXT, .text = "\"b", .len = 2},
        {.kind = QN_EVENT_TOOL_CALL, .name = "f", .name_len = 1, .text = "{}", .len = 2},
        {.kind = QN_EVENT_END, .stop_number = (uint32_t)request.n_stops, .stats = &stats},
    };
    qn_buf out;
    qn_buf_init(&out, 1 << 20);
    QN_ASSERT(request.n_ids > 0 && request.n_ids == exchange_n_prompt_tokens(x));
    exchange_shrink(x);
    QN_ASSERT(exchange_begin(x, &out, NULL) == QN_OK);
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        QN_ASSERT(exchange_take(x, 0, &events[i], NULL) == QN_OK);
        QN_ASSERT(exchange_flush(x, &out, NULL) == QN_OK);
    }
    QN_ASSERT(exchange_finish(x, &out, NULL) == QN_OK);
    if (exchange_streams(x)) {
        check_stream(qn_buf_view(&out));
    } else {
        QN_ASSERT(qn_json_scan(qn_buf_view(&out), NULL));
    }
    qn_buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    server_exchange *x = NULL;
    server_error error = {0};
    uint64_t n_counted = 0;
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    open_model();
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    const bool is_counted =
        exchange_count_tokens(&n_counted, &g_settings, SERVER_API_MESSAGES, exact, n_bytes, &error);
    if (!is_counted) {
        check_refusal(&error);
    }
    if (exchange_open(&x, &g_settings, SERVER_API_MESSAGES, exact, n_bytes, "7", &error)) {
        QN_ASSERT(is_counted && n_counted == exchange_n_prompt_tokens(x));
        answer(x);
    } else {
        QN_ASSERT(x == NULL);
        check_refusal(&error);
    }
    exchange_close(&x);
    free(exact);
    return 0;
}
