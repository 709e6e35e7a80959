/* SPDX-License-Identifier: Apache-2.0 */
#include "tokens.h"

#include "base/try.h"

#include <errno.h>
#include <stdlib.h>

enum { NAME_BYTES = 64, FIRST_SAFE_ID = 1000, END_SAFE_ID = 4000 };

/* A way to ask a server. */
typedef struct shape {
    const char *path;
    const char *field;      /* that has the text */
    const char *no_special; /* a member that turns special tokens off */
} shape;

static const shape shapes[] = {
    {"/tokenize", "prompt", "add_special_tokens"},
    {"/tokenize", "content", "add_special"},
    {"/extras/tokenize", "input", NULL},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct bench_tokens {
    qn_model *model;            /* NULL: a server's */
    const bench_target *target; /* borrowed */
    const char *model_name;     /* borrowed */
    const shape *shape;
    bench_asker *asker; /* owned: there are many questions */
    uint32_t n_before;  /* tokens that the server puts before every text */
    char name[NAME_BYTES];
};

/* ------------------------------------------------------------------------------------- a server */

/* What an answer says; false where it is none. */
static bool read_count(uint32_t *n, const json_t *answer)
{
    const json_t *const count = json_object_get(answer, "count");
    const json_t *const list = json_object_get(answer, "tokens");
    const json_int_t value = json_is_integer(count)
                                 ? json_integer_value(count)
                                 : (json_int_t)(json_is_array(list) ? json_array_size(list) : 0);
    *n = value >= 0 && value <= UINT32_MAX ? (uint32_t)value : 0;
    return json_is_integer(count) || json_is_array(list);
}

/* Ask in one shape.  *http is its status, 0 for an answer of 200 that has no count. */
static qn_status ask(uint32_t *n, int *http, bench_tokens *t, const shape *by, const char *text,
                     size_t len, qn_error *err)
{
    json_t *const body = json_pack("{ss, ss%}", "model", t->model_name, by->field, text, len);
    json_t *answer = NULL;
    bench_reply reply = {.status = 0};
    char *json = NULL;
    qn_status status = QN_OK;
    *n = 0;
    if (body == NULL ||
        (by->no_special != NULL && json_object_set_new(body, by->no_special, json_false()) != 0) ||
        (json = json_dumps(body, JSON_COMPACT)) == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to ask", by->path);
        goto fail;
    }
    QN_TRY(status, bench_http_kept(&t->asker, &reply, t->target, by->path, json, err), fail);
    *http = reply.status;
    if (reply.status == 200) {
        answer = json_loadb(reply.body.ptr != NULL ? reply.body.ptr : "", reply.body.len, 0, NULL);
        *http = read_count(n, answer) ? 200 : 0;
    }
fail:
    bench_http_free(&reply);
    free(json);
    json_decref(answer);
    json_decref(body);
    return status;
}

static qn_status ask_server(uint32_t *n, bench_tokens *t, const char *text, size_t len,
                            qn_error *err)
{
    int http = 0;
    const qn_status status = ask(n, &http, t, t->shape, text, len, err);
    if (status == QN_OK && http != 200) {
        return qn_fail(err, QN_E_IO, 0, __func__,
                       "%s%s: status %d for %zu bytes of text, 200 with a count expected",
                       t->target->base_url, t->shape->path, http == 0 ? 200 : http, len);
    }
    return status;
}

/* Some add a token before every text.  An empty one shows it, unless it is refused: then a word
 * once and twice. */
static qn_status count_before(bench_tokens *t, qn_error *err)
{
    qn_status status = QN_OK;
    int http = 0;
    uint32_t n_once = 0;
    uint32_t n_twice = 0;
    QN_TRY(status, ask(&t->n_before, &http, t, t->shape, "", 0, err), fail);
    if (http != 200) {
        QN_TRY(status, ask_server(&n_once, t, " the", 4, err), fail);
        QN_TRY(status, ask_server(&n_twice, t, " the the", 8, err), fail);
        t->n_before = 2 * n_once > n_twice ? 2 * n_once - n_twice : 0;
    }
fail:
    return status;
}

/* The first shape that counts something: llama.cpp answers any object, with no tokens. */
static qn_status find_shape(bench_tokens *t, qn_error *err)
{
    int http[N_SHAPES] = {0};
    qn_status status = QN_OK;
    for (size_t i = 0; i < N_SHAPES; i++) {
        uint32_t n = 0;
        QN_TRY(status, ask(&n, &http[i], t, &shapes[i], "The river.", 10, err), fail);
        if (n > 0) {
            t->shape = &shapes[i];
            (void)snprintf(t->name, sizeof t->name, "server: %s", shapes[i].path);
            return count_before(t, err);
        }
    }
    status = qn_fail(err, QN_E_INVAL, 0, __func__,
                     "%s: no count of tokens (/tokenize: status %d, /extras/tokenize: %d), "
                     "--tokenizer with a folder that has the model's tokenizer.json expected",
                     t->target->base_url, http[0], http[N_SHAPES - 1]);
fail:
    return status;
}

/* -------------------------------------------------------------------------------------- opening */

qn_status bench_tokens_open(bench_tokens **out, const char *folder, const bench_target *target,
                            const char *model, qn_error *err)
{
    static const qn_model_options options = {.tokenizer_only = true};
    qn_status status = QN_OK;
    bench_tokens *t = calloc(1, sizeof *t);
    *out = NULL;
    if (t == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tokenizer: no memory");
    }
    t->target = target;
    t->model_name = model;
    if (folder != NULL) {
        QN_TRY(status, qn_model_open(&t->model, folder, &options, err), fail);
    } else {
        QN_TRY(status, find_shape(t, err), fail);
    }
    *out = t;
    return QN_OK;

fail:
    bench_tokens_close(&t);
    return status;
}

void bench_tokens_close(bench_tokens **tokens)
{
    if (*tokens != NULL) {
        qn_model_close(&(*tokens)->model);
        bench_asker_close(&(*tokens)->asker);
        free(*tokens);
        *tokens = NULL;
    }
}

const char *bench_tokens_name(const bench_tokens *tokens)
{
    return tokens->model != NULL ? qn_model_get_info(tokens->model)->name : tokens->name;
}

bool bench_tokens_is_local(const bench_tokens *tokens)
{
    return tokens->model != NULL;
}

/* ------------------------------------------------------------------------------------- counting */

qn_status bench_tokens_count(uint32_t *n, bench_tokens *tokens, const char *text, size_t len,
                             qn_error *err)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    *n = 0;
    if (tokens->model == NULL) {
        const qn_status status = ask_server(n, tokens, text, len, err);
        *n -= *n < tokens->n_before ? *n : tokens->n_before;
        return status;
    }
    /* Control tokens match: so do servers read a prompt of text. */
    const qn_status status =
        qn_encode(&ids, &n_ids, tokens->model, text, len, QN_CONTROL_MATCH, err);
    *n = (uint32_t)n_ids;
    qn_free(ids);
    return status;
}

/* Does the text of @p id become it again, as that of no control token does? */
static qn_status is_ordinary(bool *is, const qn_model *model, int32_t id, qn_error *err)
{
    char *text = NULL;
    size_t len = 0;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    qn_status status = QN_OK;
    *is = false;
    status = qn_decode(&text, &len, model, &id, 1, err);
    if (status == QN_E_INVAL) { /* a row of the embedding without a token */
        return QN_OK;
    }
    QN_TRY(status, status, fail);
    QN_TRY(status, qn_encode(&ids, &n_ids, model, text, len, QN_CONTROL_AS_TEXT, err), fail);
    *is = n_ids == 1 && ids[0] == id;
fail:
    qn_free(ids);
    qn_free(text);
    return status;
}

qn_status bench_tokens_ids(int32_t **ids, uint32_t *n_ids, const bench_tokens *tokens,
                           qn_error *err)
{
    const qn_model *const model = tokens != NULL ? tokens->model : NULL;
    const uint32_t begin = model != NULL ? 0 : FIRST_SAFE_ID;
    const uint32_t end = model != NULL ? qn_model_get_info(model)->n_vocab : END_SAFE_ID;
    qn_status status = QN_OK;
    *n_ids = 0;
    *ids = calloc(end, sizeof **ids);
    if (*ids == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tokenizer: no memory for %u ids", end);
    }
    for (uint32_t id = begin; id < end; id++) {
        bool is = true;
        status = model != NULL ? is_ordinary(&is, model, (int32_t)id, err) : QN_OK;
        QN_TRY(status, status, fail);
        (*ids)[*n_ids] = (int32_t)id;
        *n_ids += is ? 1 : 0;
    }
    if (*n_ids == 0) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__, "%s: no ordinary token, some expected",
                         bench_tokens_name(tokens));
        goto fail;
    }
    return QN_OK;

fail:
    free(*ids);
    *ids = NULL;
    return status;
}
