/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "base/try.h"
#include "server/exchange_internal.h"
#include "server/http.h"

#include <errno.h>

/* All of this runs in a reader's thread. */

static qn_str body_of(const http_call *call)
{
    return (qn_str){.ptr = call->body.ptr != NULL ? call->body.ptr : "", .len = call->body.len};
}

/* ---------------------------------------------------------------------------- what is generated */

bool read_exchange(http_call *call)
{
    const qn_str body = body_of(call);
    if (!exchange_open(&call->exchange, &call->server->settings, call->route->api, body.ptr,
                       body.len, call->id, &call->error)) {
        return false;
    }
    call->n_choices = exchange_n_choices(call->exchange);
    call->tickets = calloc(call->n_choices, sizeof *call->tickets);
    call->choices = calloc(call->n_choices, sizeof *call->choices);
    if (call->tickets == NULL || call->choices == NULL) {
        server_fail_memory(&call->error, "request");
        return false;
    }
    return true;
}

/* --------------------------------------------------------------------------------- what is told */

static bool finish(http_call *call, qn_status status)
{
    if (status < 0) {
        server_fail_memory(&call->error, "answer");
    }
    return status >= 0;
}

static bool read_body(http_call *call, qn_json_doc *doc)
{
    qn_error err = {0};
    if (qn_json_doc_open(doc, body_of(call), "body", &err) < 0) {
        server_error_of(&call->error, &err, "body");
        return false;
    }
    return doc->nodes[0].kind == QN_JSON_OBJECT ||
           exchange_refuse(&call->error, "body", &doc->nodes[0], "an object");
}

bool read_count(http_call *call)
{
    const qn_str body = body_of(call);
    uint64_t n_tokens = 0;
    return exchange_count_tokens(&n_tokens, &call->server->settings, call->route->api, body.ptr,
                                 body.len, &call->error) &&
           finish(call, qn_buf_append_printf(&call->out, NULL, "{\"input_tokens\":%llu}\n",
                                             (unsigned long long)n_tokens));
}

/* ------------------------------------------------------------------------------------- tokenize */

static qn_status append_token_text(qn_buf *out, const qn_model *model, int32_t id, qn_error *err)
{
    char *text = NULL;
    size_t len = 0;
    qn_status status = qn_decode(&text, &len, model, &id, 1, err);
    if (status >= 0) {
        status = qn_json_quote_append(out, (qn_str){.ptr = text, .len = len}, err);
    }
    qn_free(text);
    return status;
}

static bool tell_tokens(http_call *call, const int32_t *ids, size_t n_ids, bool wants_texts)
{
    qn_buf *const out = &call->out;
    qn_status status = QN_OK;
    QN_TRY(status,
           qn_buf_append_printf(out, NULL, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":[",
                                n_ids, call->server->backend->context_tokens),
           fail);
    for (size_t i = 0; i < n_ids; i++) {
        QN_TRY(status, qn_buf_append_printf(out, NULL, i > 0 ? ",%d" : "%d", ids[i]), fail);
    }
    QN_TRY(status,
           qn_buf_append_printf(out, NULL, "],\"token_strs\":%s", wants_texts ? "[" : "null"),
           fail);
    for (size_t i = 0; i < n_ids && wants_texts; i++) {
        QN_TRY(status, qn_buf_append(out, ",", i > 0, NULL), fail);
        QN_TRY(status, append_token_text(out, call->server->settings.model, ids[i], NULL), fail);
    }
    QN_TRY(status, qn_buf_append_printf(out, NULL, wants_texts ? "]}\n" : "}\n"), fail);

fail:
    return finish(call, status);
}

/* The form of its prompt is that of the endpoint which would answer it, and is read as there. */
static bool tokenize(http_call *call, server_api api, bool wants_texts)
{
    const qn_str body = body_of(call);
    qn_sampling sampling;
    if (!exchange_open_prompt(&call->exchange, &call->server->settings, api, body.ptr, body.len,
                              &call->error)) {
        return false;
    }
    const qn_request request = exchange_choice(call->exchange, 0, &sampling);
    return tell_tokens(call, request.ids, request.n_ids, wants_texts);
}

bool read_tokenize(http_call *call)
{
    qn_json_doc doc = {0};
    bool is_told = false;
    if (read_body(call, &doc)) {
        const qn_json_node *const prompt = exchange_member(doc.nodes, "prompt");
        const qn_json_node *const texts = exchange_member(doc.nodes, "return_token_strs");
        const bool is_chat = prompt == NULL && exchange_member(doc.nodes, "messages") != NULL;
        const bool wants_texts = texts != NULL && texts->kind == QN_JSON_TRUE;
        if (!is_chat && (prompt == NULL || prompt->kind != QN_JSON_STRING)) {
            is_told = exchange_refuse(&call->error, "prompt", prompt, "a text, or messages");
        } else if (texts != NULL && !wants_texts && texts->kind != QN_JSON_FALSE) {
            is_told = exchange_refuse(&call->error, "return_token_strs", texts, "true or false");
        } else {
            is_told =
                tokenize(call, is_chat ? SERVER_API_CHAT : SERVER_API_COMPLETION, wants_texts);
        }
    }
    qn_json_doc_close(&doc);
    return is_told;
}

/* ----------------------------------------------------------------------------------- detokenize */

static bool read_ids(http_call *call, const qn_json_node *tokens, int32_t *ids)
{
    const uint32_t n_vocab = qn_model_get_info(call->server->settings.model)->n_vocab;
    const qn_json_node *at = tokens + 1;
    for (uint32_t i = 0; i < tokens->n_children; i++, at = qn_json_after(at)) {
        int64_t id = 0;
        if (!exchange_whole(&id, at) || id < 0 || id >= (int64_t)n_vocab) {
            return exchange_refuse(&call->error, "tokens", at, "ids of the vocabulary");
        }
        ids[i] = (int32_t)id;
    }
    return true;
}

static bool check_members(http_call *call, const qn_json_node *body)
{
    const qn_json_node *key = body + 1;
    for (uint32_t i = 0; i < body->n_children; i++, key = qn_json_after(key + 1)) {
        if (!exchange_is_text(key, "tokens") && !exchange_is_text(key, "model")) {
            return exchange_refuse(&call->error, "body", key, "tokens and model alone");
        }
    }
    return true;
}

static bool tell_text(http_call *call, const int32_t *ids, size_t n_ids)
{
    qn_error err = {0};
    char *text = NULL;
    size_t len = 0;
    qn_status status = qn_decode(&text, &len, call->server->settings.model, ids, n_ids, &err);
    if (status < 0) {
        server_error_of(&call->error, &err, "tokens");
        return false;
    }
    QN_TRY(status, qn_buf_append_printf(&call->out, NULL, "{\"prompt\":"), fail);
    QN_TRY(status, qn_json_quote_append(&call->out, (qn_str){.ptr = text, .len = len}, NULL), fail);
    QN_TRY(status, qn_buf_append_printf(&call->out, NULL, "}\n"), fail);

fail:
    qn_free(text);
    return finish(call, status);
}

bool read_detokenize(http_call *call)
{
    qn_json_doc doc = {0};
    bool is_told = false;
    if (read_body(call, &doc) && check_members(call, doc.nodes)) {
        const qn_json_node *const tokens = qn_json_member(doc.nodes, "tokens");
        if (tokens == NULL || tokens->kind != QN_JSON_ARRAY) {
            is_told = exchange_refuse(&call->error, "tokens", tokens, "a list of token ids");
        } else {
            int32_t *const ids = calloc((size_t)tokens->n_children + 1, sizeof *ids);
            is_told = finish(call, ids != NULL ? QN_OK : QN_E_NOMEM) &&
                      read_ids(call, tokens, ids) && tell_text(call, ids, tokens->n_children);
            free(ids);
        }
    }
    qn_json_doc_close(&doc);
    return is_told;
}
