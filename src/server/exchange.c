/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "server/exchange_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

static const exchange_form *const forms[] = {
    [SERVER_API_CHAT] = &openai_form,
    [SERVER_API_COMPLETION] = &openai_form,
    [SERVER_API_MESSAGES] = &anthropic_form,
};

/* ------------------------------------------------------------------------------------- opening */

static bool parse(server_exchange *x, const char *body, size_t len, server_error *error)
{
    qn_error why = {0};
    x->text = malloc(len + 1);
    if (x->text == NULL) {
        return exchange_no_memory(error);
    }
    memcpy(x->text, body, len);
    x->text[len] = '\0';
    if (!exchange_is_ok(
            x, qn_json_doc_open(&x->doc, (qn_str){.ptr = x->text, .len = len}, "body", &why), &why,
            error)) {
        error->param[0] = '\0'; /* the body is no parameter of itself */
        return false;
    }
    x->body = x->doc.nodes;
    if (x->body->kind != QN_JSON_OBJECT) {
        (void)exchange_refuse(error, "body", x->body, "a JSON object");
        error->param[0] = '\0';
        return false;
    }
    return true;
}

/* Several parameters together, and what was not given. */
static bool settle(server_exchange *x, server_error *error)
{
    qn_sampling *const s = &x->sampling;
    if (x->streams && x->settings->refuses_stream) {
        return exchange_refuse_unbuilt(error, "stream", exchange_member(x->body, "stream"),
                                       "false");
    }
    if ((int32_t)s->top_k < 0) {
        s->top_k = 0; /* -1 is "all" in other engines */
    }
    if (!x->has_seed && getrandom(&s->seed, sizeof s->seed, 0) != (ssize_t)sizeof s->seed) {
        server_fail(error, 500, NULL, "seed", "seed: no random number, expected one");
        return false;
    }
    return true;
}

/* NULL: *error says why. */
static server_exchange *open_any(const exchange_settings *settings, server_api api, qn_str body,
                                 const char *id, bool only_counts, server_error *error)
{
    const qn_model_info *const info = qn_model_get_info(settings->model);
    server_exchange *x = calloc(1, forms[api]->n_bytes);
    if (x == NULL) {
        (void)exchange_no_memory(error);
        return NULL;
    }
    x->form = forms[api];
    x->settings = settings;
    x->api = api;
    (void)snprintf(x->id, sizeof x->id, "%s", id);
    x->created_s = (uint64_t)time(NULL);
    x->model_name = settings->n_names > 0            ? settings->names[0]
                    : settings->default_name != NULL ? settings->default_name
                                                     : info->name;
    x->n = 1;
    x->only_counts = only_counts;
    x->sampling = info->sampling;
    x->request.draft_tokens = settings->draft_tokens;
    x->request.acceptance_length = settings->acceptance_length;
    qn_buf_init(&x->ignored, EXCHANGE_ANSWER_BYTES_MAX);
    if (!parse(x, body.ptr, body.len, error) || !x->form->read(x, error) || !settle(x, error)) {
        exchange_close(&x);
    }
    return x;
}

bool exchange_open(server_exchange **out, const exchange_settings *settings, server_api api,
                   const char *body, size_t len, const char *id, server_error *error)
{
    *out = open_any(settings, api, (qn_str){.ptr = body, .len = len}, id, false, error);
    return *out != NULL;
}

bool exchange_open_prompt(server_exchange **out, const exchange_settings *settings, server_api api,
                          const char *body, size_t len, server_error *error)
{
    *out = open_any(settings, api, (qn_str){.ptr = body, .len = len}, "", true, error);
    return *out != NULL;
}

bool exchange_count_tokens(uint64_t *n_tokens, const exchange_settings *settings, server_api api,
                           const char *body, size_t len, server_error *error)
{
    server_exchange *x = NULL;
    if (!exchange_open_prompt(&x, settings, api, body, len, error)) {
        return false;
    }
    *n_tokens = x->n_prompt_tokens;
    exchange_close(&x);
    return true;
}

void exchange_shrink(server_exchange *exchange)
{
    for (size_t i = 0; i < exchange->n_prompts; i++) {
        qn_free(exchange->prompts[i].ids);
        exchange->prompts[i].ids = NULL;
    }
    qn_json_doc_close(&exchange->doc);
    free(exchange->text);
    free(exchange->bias);
    free(exchange->cache_salt);
    exchange->text = NULL;
    exchange->body = NULL;
    exchange->bias = NULL;
    exchange->cache_salt = NULL;
}

void exchange_close(server_exchange **exchange)
{
    server_exchange *const x = *exchange;
    if (x != NULL) {
        x->form->close(x);
        exchange_shrink(x);
        for (size_t i = 0; i < QN_STOPS_MAX; i++) {
            free(x->stops[i]);
        }
        free(x->prompts);
        qn_buf_deinit(&x->ignored);
        free(x);
    }
    *exchange = NULL;
}

/* --------------------------------------------------------------------------------------- facts */

size_t exchange_n_choices(const server_exchange *exchange)
{
    return exchange->n_prompts * exchange->n;
}

bool exchange_counts_prompt(const server_exchange *exchange, size_t i_choice)
{
    return i_choice % exchange->n == 0;
}

bool exchange_streams(const server_exchange *exchange)
{
    return exchange->streams;
}

const char *exchange_ignored(const server_exchange *exchange)
{
    return exchange->ignored.len > 0 ? exchange->ignored.ptr : "";
}

uint64_t exchange_n_prompt_tokens(const server_exchange *exchange)
{
    return exchange->n_prompt_tokens;
}

qn_request exchange_choice(const server_exchange *exchange, size_t i_choice, qn_sampling *sampling)
{
    const exchange_prompt *const prompt = &exchange->prompts[i_choice / exchange->n];
    qn_request out = exchange->request;
    *sampling = exchange->sampling;
    sampling->seed += i_choice % exchange->n;
    out.ids = prompt->ids;
    out.n_ids = prompt->n_ids;
    out.sampling = sampling;
    if (exchange->tells_prompt_once && !exchange_counts_prompt(exchange, i_choice)) {
        out.wants_prompt_logprobs = false;
    }
    return out;
}

/* ------------------------------------------------------------------------------------- answers */

/* All of it or nothing. */
static qn_status keep_or_cut(qn_status status, qn_buf *out, size_t len)
{
    if (status < 0 && out->len > len) {
        out->len = len;
        out->ptr[len] = '\0';
    }
    return status;
}

qn_status exchange_begin(server_exchange *exchange, qn_buf *out, qn_error *err)
{
    const size_t len = out->len;
    return exchange->streams ? keep_or_cut(exchange->form->begin(exchange, out, err), out, len)
                             : QN_OK;
}

qn_status exchange_take(server_exchange *exchange, size_t i_choice, const qn_event *event,
                        qn_error *err)
{
    return exchange->form->take(exchange, i_choice, event, err);
}

qn_status exchange_flush(server_exchange *exchange, qn_buf *out, qn_error *err)
{
    const size_t len = out->len;
    return exchange->streams ? keep_or_cut(exchange->form->flush(exchange, out, err), out, len)
                             : QN_OK;
}

qn_status exchange_finish(server_exchange *exchange, qn_buf *out, qn_error *err)
{
    const size_t len = out->len;
    return keep_or_cut(exchange->form->finish(exchange, out, err), out, len);
}

qn_status exchange_fail(const server_exchange *exchange, const server_error *error, qn_buf *out,
                        qn_error *err)
{
    const size_t len = out->len;
    QN_ASSERT(exchange->streams);
    return keep_or_cut(exchange->form->fail(exchange, error, out, err), out, len);
}

qn_status exchange_keep_alive(const server_exchange *exchange, qn_buf *out, qn_error *err)
{
    QN_ASSERT(exchange->streams);
    return qn_buf_append(out, exchange->form->keep_alive, strlen(exchange->form->keep_alive), err);
}
