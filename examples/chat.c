/* SPDX-License-Identifier: Apache-2.0 */
/* A conversation, a line of standard input each turn: example_chat models/glm-nano */
#include "quern/quern.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The conversation so far as a JSON array, but for its closing bracket. */
typedef struct history {
    char json[1 << 20];
    size_t len;
    bool is_content; /* the answer's reasoning is over */
    bool is_full;
} history;

/* Where there is no room nothing more is added: the next turn fails for want of an end. */
static void put(history *h, const char *text)
{
    const size_t len = strlen(text);
    h->is_full |= len >= sizeof h->json - h->len;
    if (!h->is_full) {
        memcpy(h->json + h->len, text, len + 1);
        h->len += len;
    }
}

/* The same as the inside of a JSON string. */
static void put_escaped(history *h, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char out[8] = {text[i]};
        if (text[i] == '"' || text[i] == '\\' || (unsigned char)text[i] < 0x20) {
            (void)snprintf(out, sizeof out, "\\u%04x", (unsigned int)text[i]);
        }
        put(h, out);
    }
}

/* Show the answer as it comes, and remember it, its reasoning too. */
static void take(void *context, const qn_event *event)
{
    history *const h = context;
    if (event->kind == QN_EVENT_TEXT) {
        put(h, h->is_content ? "" : "\", \"content\": \"");
        h->is_content = true;
        (void)!fwrite(event->text, 1, event->len, stdout);
        (void)fflush(stdout);
    }
    if (event->kind == QN_EVENT_TEXT || event->kind == QN_EVENT_REASONING) {
        put_escaped(h, event->text, event->len);
    }
}

static qn_status run_turn(history *h, qn_model *model, qn_session *session, const char *line,
                          qn_error *err)
{
    /* With the reasoning kept, a prompt begins as the one before it and its answer did, so that
     * little of it has to be computed. */
    const qn_chat_options options = {.keep_thinking = true};
    qn_request request = {0};
    int32_t *ids = NULL;
    put(h, h->len > 0 ? ", {\"role\": \"user\", \"content\": \""
                      : "[{\"role\": \"user\", \"content\": \"");
    put_escaped(h, line, strcspn(line, "\n"));
    put(h, "\"}]");
    qn_status s = qn_chat_encode(&ids, &request.n_ids, model, &options, h->json, h->len, err);
    h->len--; /* the bracket */
    put(h, ", {\"role\": \"assistant\", \"reasoning_content\": \"");
    h->is_content = false;
    request.ids = ids;
    s = s ? s : qn_session_submit(session, &request, err);
    while (s == QN_OK) {
        s = qn_session_step(session, err);
    }
    put(h, h->is_content ? "\"}" : "\", \"content\": \"\"}");
    const qn_session_stats stats = qn_session_get_stats(session);
    (void)printf("\n[%llu of %zu tokens cached]\n", (unsigned long long)stats.n_cached_tokens,
                 request.n_ids);
    qn_free(ids);
    return s;
}

int main(int argc, char **argv)
{
    static history h;
    qn_model *model = NULL;
    qn_session *session = NULL;
    char line[4096];
    qn_error err = {0};
    const qn_session_options options = {.fn = take, .context = &h};
    qn_status s = qn_model_open(&model, argc > 1 ? argv[1] : "models/glm-nano", NULL, &err);
    s = s ? s : qn_session_open(&session, model, &options, &err);
    while (s >= 0 && fgets(line, sizeof line, stdin) != NULL) {
        s = run_turn(&h, model, session, line, &err);
    }
    if (s < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    }
    qn_session_close(&session);
    qn_model_close(&model);
    return s < 0;
}
