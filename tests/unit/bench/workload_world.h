/* SPDX-License-Identifier: Apache-2.0 */
/** @file workload_world.h  Workloads over glm-nano's tokenizer, and their bodies taken apart. */
#ifndef QN_TEST_BENCH_WORKLOAD_WORLD_H
#define QN_TEST_BENCH_WORKLOAD_WORLD_H
#include "bench/workload.h"
#include "fake_server.h"
#include "support/unit.h"

#define WORLD_FOLDER QN_SOURCE_DIR "/models/glm-nano"

static bench_tokens *g_tokens;
static bench_workload *g_workload;
static qn_error g_err;

static inline int open_world(void **state)
{
    const qn_model_options options = {.tokenizer_only = true};
    (void)state;
    return qn_model_open(&g_fake.model, WORLD_FOLDER, &options, NULL) != QN_OK ||
           bench_tokens_open(&g_tokens, WORLD_FOLDER, NULL, "m", NULL) != QN_OK;
}

static inline int close_world(void **state)
{
    (void)state;
    bench_workload_close(&g_workload);
    bench_tokens_close(&g_tokens);
    qn_model_close(&g_fake.model);
    return 0;
}

static inline qn_status try_open(const bench_workload_options *options)
{
    bench_workload_options o = *options;
    o.model = "m\"1";
    o.scale = o.scale == 0.0 ? 1.0 : o.scale;
    bench_workload_close(&g_workload);
    g_err = (qn_error){0};
    return bench_workload_open(&g_workload, &o, g_tokens, NULL, NULL, &g_err);
}

static inline const bench_made *open_workload(const bench_workload_options *options)
{
    if (try_open(options) != QN_OK) {
        fail_msg("%s", g_err.text);
    }
    return bench_workload_made(g_workload);
}

/** A refusal that begins so. */
static inline void assert_refused(const bench_workload_options *options, qn_status status,
                                  const char *why)
{
    assert_int_equal(try_open(options), status);
    if (strstr(g_err.text, why) == NULL) {
        fail_msg("said  %s\nnot   %s", g_err.text, why);
    }
    assert_null(g_workload);
}

/** The body parsed; owned by the caller. */
static inline json_t *body_of(const bench_call *call)
{
    qn_buf joined;
    json_error_t error;
    qn_buf_init(&joined, 1 << 30);
    for (size_t i = 0; i < call->body.n_parts; i++) {
        assert_int_equal(qn_buf_append(&joined, call->body.parts[i], call->body.lens[i], NULL),
                         QN_OK);
    }
    json_t *const body = json_loadb(joined.ptr, joined.len, JSON_REJECT_DUPLICATES, &error);
    if (body == NULL) {
        fail_msg("%s: %s", error.text, joined.ptr);
    }
    qn_buf_deinit(&joined);
    return body;
}

/** What the user says first, of a chat, or the prompt; borrowed from @p body. */
static inline const char *text_of(const json_t *body)
{
    const json_t *const messages = json_object_get(body, "messages");
    const char *const text =
        messages != NULL
            ? json_string_value(json_object_get(json_array_get(messages, 0), "content"))
            : json_string_value(json_object_get(body, "prompt"));
    assert_non_null(text);
    return text;
}

/** Token ids of the text of a request. */
typedef struct prompt_ids {
    int32_t *ids; /**< qn_free() */
    size_t n;
} prompt_ids;

static inline prompt_ids ids_of(const bench_call *call)
{
    prompt_ids out = {0};
    json_t *const body = body_of(call);
    const json_t *const list = json_object_get(body, "prompt");
    if (json_is_array(list)) {
        out.n = json_array_size(list);
        out.ids = calloc(out.n, sizeof *out.ids);
        for (size_t i = 0; i < out.n; i++) {
            out.ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
        }
    } else {
        const char *const text = text_of(body);
        assert_int_equal(
            qn_encode(&out.ids, &out.n, g_fake.model, text, strlen(text), QN_CONTROL_AS_TEXT, NULL),
            QN_OK);
    }
    json_decref(body);
    return out;
}

/** Request @p i, which is freed by the caller (call->owned). */
static inline bench_call first_call(uint64_t i)
{
    bench_call call;
    double at_s = 0.0;
    assert_int_equal(bench_workload_first(g_workload, i, &call, &at_s), QN_OK);
    return call;
}

static inline prompt_ids first_ids(uint64_t i)
{
    bench_call call = first_call(i);
    const prompt_ids ids = ids_of(&call);
    free(call.owned);
    return ids;
}

/** How many ids two prompts begin with together. */
static inline size_t n_common(prompt_ids a, prompt_ids b)
{
    size_t n = 0;
    while (n < a.n && n < b.n && a.ids[n] == b.ids[n]) {
        n++;
    }
    return n;
}
#endif
