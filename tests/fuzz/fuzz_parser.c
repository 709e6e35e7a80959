/* SPDX-License-Identifier: Apache-2.0 */
/* A line of tools, then what a model wrote: however it is cut, the events are the same, and where
 * calls come in pieces these are what event_log_add() checks. */
#include "base/rng.h"
#include "chat/parser.h"
#include "support/event_log.h"

/* libFuzzer sets the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes); /* NOLINT */

enum { N_WAYS = 3 };

static event_log *g_log; /* that events go to */

static void log_event(void *context, const qn_event *event)
{
    (void)context;
    event_log_add(g_log, event);
}

/* Pieces of 1 byte, of up to 10, of up to 25; way 0 is the whole text. */
static void parse(qn_chat_parser *parser, event_log *log, qn_str text, uint64_t way)
{
    g_log = log;
    event_log_init(log, 32 * text.len + 4096); /* a warning is longer than what it is about */
    qn_chat_parser_feed_text(parser, qn_str_of("<think></think>")); /* text, wherever it was */
    event_log_clear(log);
    uint64_t counter = 0;
    for (size_t at = 0, n; at < text.len; at += n) {
        n = way == 0 ? text.len : 1 + qn_rng_u64(text.len, way, counter++) % (3 * way * way - 2);
        n = n < text.len - at ? n : text.len - at;
        qn_chat_parser_feed_text(parser, (qn_str){text.ptr + at, n});
    }
    qn_chat_parser_end(parser);
    QN_ASSERT(!log->is_begun);
}

/* With the tools, or with none where they are wrong. */
static qn_chat_parser *open_parser(qn_str tools, bool streams)
{
    qn_chat_parser *parser = NULL;
    qn_error err = {0};
    qn_parser_options options = {
        .tools_json = tools.ptr, .tools_len = tools.len, .fn = log_event, .streams_calls = streams};
    if (qn_chat_parser_open(&parser, NULL, &options, &err) != QN_OK) {
        QN_ASSERT(parser == NULL && err.status == QN_E_FORMAT && err.text[0] != '\0');
        options.tools_json = NULL;
        QN_ASSERT(qn_chat_parser_open(&parser, NULL, &options, &err) == QN_OK);
    }
    return parser;
}

static void check(qn_str tools, qn_str text, bool streams)
{
    event_log whole;
    qn_chat_parser *parser = open_parser(tools, streams);
    parse(parser, &whole, text, 0);
    for (uint64_t way = 1; way <= N_WAYS; way++) {
        event_log cut;
        parse(parser, &cut, text, way);
        QN_ASSERT(whole.len == cut.len && memcmp(whole.text, cut.text, whole.len) == 0);
        event_log_deinit(&cut);
    }
    qn_chat_parser_close(&parser);
    event_log_deinit(&whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) /* NOLINT */
{
    char *const exact = malloc(n_bytes > 0 ? n_bytes : 1); /* so that an overread shows */
    QN_ASSERT(exact != NULL);
    if (n_bytes > 0) {
        memcpy(exact, data, n_bytes);
    }
    const char *const line_end = n_bytes > 0 ? memchr(exact, '\n', n_bytes) : NULL;
    const size_t n_tools = line_end != NULL ? (size_t)(line_end - exact) : 0;
    const size_t n_before = line_end != NULL ? n_tools + 1 : 0;
    const qn_str text = {exact + n_before, n_bytes - n_before};
    check((qn_str){exact, n_tools}, text, false);
    check((qn_str){exact, n_tools}, text, true);
    free(exact);
    return 0;
}
