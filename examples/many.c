/* SPDX-License-Identifier: Apache-2.0 */
/* Answer every line of standard input, many at once: example_many models/glm-nano < questions */
#include "quern/quern.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { TALKS_MAX = 256, LINE_BYTES = 1024 }; /* at once; longer lines are several questions */

/* A question and what has been answered. */
typedef struct talk {
    uint64_t id; /* 0: the place is free */
    char question[LINE_BYTES];
    char answer[8 * LINE_BYTES];
    size_t len;
} talk;

/* The question as a conversation of one turn. */
static qn_status ask(talk *t, qn_engine *engine, const qn_model *model, qn_error *err)
{
    char json[6 * LINE_BYTES + 64];
    size_t len = (size_t)snprintf(json, sizeof json, "[{\"role\": \"user\", \"content\": \"");
    for (const char *c = t->question; *c != '\0'; c++) {
        const bool is_plain = *c != '"' && *c != '\\' && (unsigned char)*c >= 32;
        const unsigned int byte = (unsigned char)*c;
        len += (size_t)(is_plain ? snprintf(json + len, sizeof json - len, "%c", *c)
                                 : snprintf(json + len, sizeof json - len, "\\u%04x", byte));
    }
    len += (size_t)snprintf(json + len, sizeof json - len, "\"}]");
    int32_t *ids = NULL;
    qn_request request = {.max_tokens = 200};
    qn_status s = qn_chat_encode(&ids, &request.n_ids, model, NULL, json, len, err);
    request.ids = ids;
    s = s ? s : qn_engine_submit(&t->id, engine, &request, err);
    qn_free(ids); /* everything in a request is copied */
    return s;
}

/* Add an event to the answer that it is of; print what is complete. */
static void take(talk *talks, uint64_t id, const qn_event *event)
{
    talk *t = talks;
    while (t < talks + TALKS_MAX - 1 && t->id != id) {
        t++;
    }
    if (event->kind == QN_EVENT_TEXT && event->len < sizeof t->answer - t->len) {
        memcpy(t->answer + t->len, event->text, event->len);
        t->len += event->len;
    } else if (event->kind == QN_EVENT_END) {
        (void)printf("%s\n  %.*s\n  [%s, %llu of %llu tokens cached]\n", t->question, (int)t->len,
                     t->answer, qn_finish_name(event->finish),
                     (unsigned long long)event->stats->n_cached_tokens,
                     (unsigned long long)event->stats->n_prompt_tokens);
        t->id = 0;
        t->len = 0;
    }
}

/* Ask as many of the lines left as there is room for.  QN_AGAIN: no line is left. */
static qn_status ask_lines(talk *talks, qn_engine *engine, const qn_model *model, qn_error *err)
{
    static char line[LINE_BYTES]; /* read and not asked yet; empty: none */
    for (talk *t = talks; t < talks + TALKS_MAX; t++) {
        if (t->id != 0) {
            continue;
        }
        if (line[0] == '\0' && fgets(line, sizeof line, stdin) == NULL) {
            return QN_AGAIN;
        }
        memcpy(t->question, line, sizeof line);
        t->question[strcspn(t->question, "\n")] = '\0';
        const qn_status s = ask(t, engine, model, err);
        if (s != QN_OK) { /* QN_AGAIN: the queue is full, and a step makes room */
            return s < 0 ? s : QN_OK;
        }
        line[0] = '\0';
    }
    return QN_OK;
}

int main(int argc, char **argv)
{
    static talk talks[TALKS_MAX];
    qn_model *model = NULL;
    qn_engine *engine = NULL;
    qn_event event;
    uint64_t id = 0;
    qn_error err = {0};
    const qn_engine_options options = {.context_tokens = 4096};
    qn_status s = qn_model_open(&model, argc > 1 ? argv[1] : "models/glm-nano", NULL, &err);
    s = s ? s : qn_engine_open(&engine, model, &options, &err);
    while (s == QN_OK) {
        const qn_status lines = ask_lines(talks, engine, model, &err);
        s = lines < 0 ? lines : qn_engine_step(engine, &err);
        while (s >= 0 && qn_engine_poll(&id, &event, engine)) {
            take(talks, id, &event);
        }
        s = s == QN_AGAIN && lines == QN_OK ? QN_OK : s; /* with lines left it is not the end */
    }
    if (s < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    }
    qn_engine_close(&engine);
    qn_model_close(&model);
    return s < 0;
}
