/* SPDX-License-Identifier: Apache-2.0 */
#include "body.h"

#include "base/json_doc.h"
#include "base/try.h"

#include <stdlib.h>

enum { HEAD_BYTES_MAX = 64 << 20 };

/* Members that extra may not have, and why. */
static const char *const refused[][2] = {
    {"prompt", "prompts are the workload's"},
    {"messages", "prompts are the workload's"},
    {"stream", "times of tokens need a stream"},
};

static const char *const lengths[] = {"max_tokens", "max_completion_tokens"};

static qn_status append_text(qn_buf *out, const char *text, qn_error *err)
{
    return qn_buf_append(out, text, strlen(text), err);
}

/* A length in extra holds for all requests, and by the name that it has there. */
static qn_status take_length(bool *is_length, bench_bodies *b, const qn_json_node *key,
                             const qn_json_node *value, qn_error *err)
{
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        if (!qn_json_string_is(key, qn_str_of(lengths[i]))) {
            continue;
        }
        char seen[64];
        char *end = NULL;
        qn_json_node_show(seen, sizeof seen, value);
        const unsigned long n = strtoul(seen, &end, 10);
        if (value->kind != QN_JSON_NUMBER || *end != '\0' || n == 0 || n > BENCH_LENGTH_MAX ||
            b->n_output != 0) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "extra body: %s: %s, one number of tokens, 1 to %d, expected",
                           lengths[i], seen, BENCH_LENGTH_MAX);
        }
        b->length_name = lengths[i];
        b->n_output = (uint32_t)n;
        *is_length = true;
    }
    return QN_OK;
}

static qn_status check_key(const qn_json_node *key, qn_error *err)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (qn_json_string_is(key, qn_str_of(refused[i][0]))) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "extra body: %s: given, another member expected: %s", refused[i][0],
                           refused[i][1]);
        }
    }
    return QN_OK;
}

/* A member of extra, which goes into the head. */
static qn_status append_member(bench_bodies *b, const qn_json_node *key, qn_error *err)
{
    const qn_json_node *const value = key + 1;
    bool is_length = false;
    qn_status status = QN_OK;
    QN_TRY(status, check_key(key, err), fail);
    QN_TRY(status, take_length(&is_length, b, key, value, err), fail);
    if (is_length) {
        return QN_OK;
    }
    if (qn_json_string_is(key, qn_str_of("ignore_eos"))) {
        b->is_exact = value->kind == QN_JSON_TRUE;
    }
    QN_TRY(status, qn_buf_append(&b->head, key->text.ptr, key->text.len, err), fail);
    QN_TRY(status, append_text(&b->head, ":", err), fail);
    QN_TRY(status, qn_buf_append(&b->head, value->text.ptr, value->text.len, err), fail);
    QN_TRY(status, append_text(&b->head, ",", err), fail);
fail:
    return status;
}

static qn_status append_extra(bench_bodies *b, const qn_json_node *object, qn_error *err)
{
    const qn_json_node *key = object + 1;
    qn_status status = QN_OK;
    for (uint32_t i = 0; i < object->n_children && status == QN_OK; i++) {
        status = append_member(b, key, err);
        key = qn_json_after(key + 1);
    }
    return status;
}

/* Our own members, but those that extra has. */
static qn_status append_own(bench_bodies *b, const char *model, bool ignores_eos,
                            const qn_json_node *extra, qn_error *err)
{
    qn_status status = QN_OK;
    if (qn_json_member(extra, "model") == NULL) {
        QN_TRY(status, append_text(&b->head, "\"model\":", err), fail);
        QN_TRY(status, qn_json_quote_append(&b->head, qn_str_of(model), err), fail);
        QN_TRY(status, append_text(&b->head, ",", err), fail);
    }
    QN_TRY(status, append_text(&b->head, "\"stream\":true,", err), fail);
    if (qn_json_member(extra, "stream_options") == NULL) {
        QN_TRY(status, append_text(&b->head, "\"stream_options\":{\"include_usage\":true},", err),
               fail);
    }
    if (ignores_eos && qn_json_member(extra, "ignore_eos") == NULL) {
        QN_TRY(status, append_text(&b->head, "\"ignore_eos\":true,", err), fail);
    }
fail:
    return status;
}

/* QN_E_INVAL and not QN_E_FORMAT: it comes from the command line. */
static qn_status open_extra(qn_json_doc *doc, const char *extra, qn_error *err)
{
    qn_error why = {0};
    const qn_status status = qn_json_doc_open(doc, qn_str_of(extra), "extra body", &why);
    if (status < 0) {
        return qn_fail(err, status == QN_E_FORMAT ? QN_E_INVAL : status, why.sys, why.where, "%s",
                       why.text);
    }
    if (doc->nodes->kind != QN_JSON_OBJECT) {
        char seen[64];
        qn_json_node_show(seen, sizeof seen, doc->nodes);
        return qn_fail(err, QN_E_INVAL, 0, __func__, "extra body: %s, an object expected", seen);
    }
    return QN_OK;
}

qn_status bench_bodies_init(bench_bodies *out, bench_api api, const char *model, bool ignores_eos,
                            const char *extra, qn_error *err)
{
    qn_status status = QN_OK;
    qn_json_doc doc = {0};
    *out = (bench_bodies){.api = api, .length_name = lengths[0], .is_exact = ignores_eos};
    qn_buf_init(&out->head, HEAD_BYTES_MAX);
    if (extra != NULL) {
        QN_TRY(status, open_extra(&doc, extra, err), fail);
    }
    QN_TRY(status, append_text(&out->head, "{", err), fail);
    QN_TRY(status, append_own(out, model, ignores_eos, doc.nodes, err), fail);
    if (doc.nodes != NULL) {
        QN_TRY(status, append_extra(out, doc.nodes, err), fail);
    }
fail:
    qn_json_doc_close(&doc);
    return status;
}

void bench_bodies_deinit(bench_bodies *bodies)
{
    qn_buf_deinit(&bodies->head);
}

const char *bench_bodies_before(const bench_bodies *bodies, bench_prompt_form form)
{
    switch (form) {
    case BENCH_PROMPT_MESSAGES: return "\"messages\":";
    case BENCH_PROMPT_IDS: return "\"prompt\":[";
    case BENCH_PROMPT_TEXT:
    case BENCH_PROMPT_LENGTH: break;
    }
    return bodies->api == BENCH_CHAT ? "\"messages\":[{\"role\":\"user\",\"content\":\""
                                     : "\"prompt\":\"";
}

qn_status bench_bodies_end(qn_buf *out, const bench_bodies *bodies, bench_prompt_form form,
                           uint32_t n_output, qn_error *err)
{
    const bool is_text = form == BENCH_PROMPT_TEXT || form == BENCH_PROMPT_LENGTH;
    const char *const end = is_text ? (bodies->api == BENCH_CHAT ? "\"}]" : "\"")
                                    : (form == BENCH_PROMPT_IDS ? "]" : "");
    return n_output == 0 ? qn_buf_append_printf(out, err, "%s}", end)
                         : qn_buf_append_printf(out, err, "%s,\"%s\":%u}", end, bodies->length_name,
                                                n_output);
}
