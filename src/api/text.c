/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/quern.h"

#include "api/internal.h"
#include "base/buf.h"
#include "base/try.h"

#include <errno.h>
#include <inttypes.h>

static qn_status need_tokenizer(const qn_model *model, qn_error *err)
{
    return model->tokenizer != NULL
               ? QN_OK
               : qn_fail(err, QN_E_INVAL, 0, __func__,
                         "%s: no tokenizer.json, one expected for text (--tokenizer DIR)",
                         model->name);
}

qn_status qn_encode(int32_t **ids, size_t *n_ids, const qn_model *model, const char *text,
                    size_t len, qn_control_text control, qn_error *err)
{
    qn_ids list = {0};
    *ids = NULL;
    *n_ids = 0;
    qn_status status = need_tokenizer(model, err);
    if (status < 0) {
        return status;
    }
    status = qn_tokenizer_encode(model->tokenizer, (qn_str){.ptr = text, .len = len},
                                 control == QN_CONTROL_MATCH ? QN_ADDED_MATCH : QN_ADDED_AS_TEXT,
                                 &list, err);
    if (status < 0) {
        qn_ids_deinit(&list);
        return status;
    }
    *ids = list.ids; /* taken */
    *n_ids = list.n_ids;
    return QN_OK;
}

qn_status qn_chat_encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                         const qn_chat_options *options, const char *messages_json, size_t len,
                         qn_error *err)
{
    static const qn_chat_options defaults = {0};
    const qn_chat_options *const o = options != NULL ? options : &defaults;
    const qn_chat_render_options render = {.format = model->chat_format,
                                           .no_thinking = o->no_thinking,
                                           .is_effort_high = o->is_effort_high,
                                           .keep_thinking = o->keep_thinking,
                                           .continue_final = o->continue_final};
    qn_status status = QN_OK;
    qn_ids list = {0};
    qn_json_doc messages = {0};
    qn_json_doc tools = {0};
    *ids = NULL;
    *n_ids = 0;
    QN_TRY(status, need_tokenizer(model, err), fail);
    if (o->is_effort_high && model->chat_format != QN_CHAT_GLM5_2) {
        status =
            qn_fail(err, QN_E_INVAL, 0, __func__,
                    "reasoning effort (--reasoning-effort): high, max expected, as chat format %s "
                    "has no other",
                    qn_chat_format_name(model->chat_format));
        goto fail;
    }
    QN_TRY(status,
           qn_json_doc_open(&messages, (qn_str){.ptr = messages_json, .len = len}, "messages", err),
           fail);
    if (o->tools_json != NULL) {
        const qn_str text = {.ptr = o->tools_json, .len = o->tools_len};
        QN_TRY(status, qn_json_doc_open(&tools, text, "tools", err), fail);
    }
    QN_TRY(status,
           qn_chat_render(&list, model->tokenizer, messages.nodes, tools.nodes, &render, err),
           fail);
    *ids = list.ids; /* taken */
    *n_ids = list.n_ids;
    list = (qn_ids){0};
fail:
    qn_json_doc_close(&messages);
    qn_json_doc_close(&tools);
    qn_ids_deinit(&list);
    return status;
}

/* Append what @p id prints as; @p stream holds back part of a character. */
static qn_status decode_one(qn_buf *out, const qn_model *model, qn_utf8_stream *stream, int32_t id,
                            qn_error *err)
{
    if (id < 0 || (uint32_t)id >= model->config.n_vocab) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "id %" PRId32 ": 0 to %u expected", id,
                       model->config.n_vocab - 1);
    }
    if (model->tokenizer == NULL) {
        return qn_buf_append_printf(out, err, "<%" PRId32 ">", id);
    }
    const qn_str bytes = qn_tokenizer_bytes(model->tokenizer, id);
    const qn_status status = qn_buf_reserve(out, QN_UTF8_GROWTH * bytes.len + 12, err);
    if (status == QN_OK) {
        out->len += qn_utf8_stream_feed(stream, bytes.ptr, bytes.len, out->ptr + out->len);
    }
    return status;
}

qn_status qn_decode(char **text, size_t *len, const qn_model *model, const int32_t *ids,
                    size_t n_ids, qn_error *err)
{
    qn_status status = QN_OK;
    qn_utf8_stream stream = {0};
    qn_buf out;
    *text = NULL;
    *len = 0;
    qn_buf_init(&out, SIZE_MAX / 2);
    for (size_t i = 0; i < n_ids; i++) {
        QN_TRY(status, decode_one(&out, model, &stream, ids[i], err), fail);
    }
    QN_TRY(status, qn_buf_reserve(&out, 12, err), fail);
    out.len += qn_utf8_stream_end(&stream, out.ptr + out.len);
    out.ptr[out.len] = '\0';
    *text = out.ptr; /* taken */
    *len = out.len;
    return QN_OK;

fail:
    qn_buf_deinit(&out);
    return status;
}
