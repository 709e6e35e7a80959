/* SPDX-License-Identifier: Apache-2.0 */
/** @file fake_server.h  A server's tokenizer in this process, in place of src/bench/http.c. */
#ifndef QN_TEST_BENCH_FAKE_SERVER_H
#define QN_TEST_BENCH_FAKE_SERVER_H
#include "bench/http.h"

/** How it answers. */
typedef struct fake_server {
    const char *path;  /**< That it has; others are 404. */
    const char *field; /**< That it reads the text from; llama.cpp counts 0 without it. */
    qn_model *model;   /**< Counts. */
    uint32_t n_before; /**< Tokens it puts before every text. */
    bool has_count;    /**< "count", else "tokens". */
    bool refuses_empty;
    bool merges; /**< Reads the first three full stops and blanks of a text as one token each. */
    uint64_t n_asked;
} fake_server;

static fake_server g_fake;

/* Tokens of a text, as it counts them. */
static inline qn_status fake_count(size_t *n, const char *text, qn_error *err)
{
    int32_t *ids = NULL;
    const qn_status status =
        qn_encode(&ids, n, g_fake.model, text, strlen(text), QN_CONTROL_AS_TEXT, err);
    qn_free(ids);
    const char *at = text;
    for (int i = 0; g_fake.merges && i < 3 && (at = strstr(at, ". ")) != NULL; i++, at++) {
        *n -= 1;
    }
    *n += g_fake.n_before;
    return status;
}

qn_status bench_http_kept(bench_asker **kept, bench_reply *reply, const bench_target *target,
                          const char *path, const char *body, qn_error *err)
{
    (void)kept;
    size_t n = 0;
    qn_status status = QN_OK;
    (void)target;
    *reply = (bench_reply){.status = 404};
    qn_buf_init(&reply->body, 1 << 24);
    g_fake.n_asked++;
    if (g_fake.path == NULL || strcmp(path, g_fake.path) != 0) {
        return QN_OK;
    }
    json_t *const question = json_loads(body, 0, NULL);
    const char *const text = json_string_value(json_object_get(question, g_fake.field));
    const bool is_refused = text != NULL && text[0] == '\0' && g_fake.refuses_empty;
    if (text != NULL && !is_refused) {
        status = fake_count(&n, text, err);
    }
    reply->status = is_refused ? 400 : 200;
    json_t *const answer = json_object();
    json_t *const list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_integer(7));
    }
    json_object_set_new(answer, "tokens", list);
    if (g_fake.has_count) {
        json_object_set_new(answer, "count", json_integer((json_int_t)n));
    }
    char *const json = json_dumps(answer, JSON_COMPACT);
    status = status == QN_OK ? qn_buf_append(&reply->body, json, strlen(json), err) : status;
    free(json);
    json_decref(answer);
    json_decref(question);
    return status;
}

void bench_asker_close(bench_asker **asker)
{
    *asker = NULL;
}

void bench_http_free(bench_reply *reply)
{
    qn_buf_deinit(&reply->body);
}
#endif
