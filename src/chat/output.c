/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/output.h"

#include <inttypes.h>

enum { PIECE_BYTES_MAX = 1 << 20 }; /* a token is far shorter */

static int32_t id_of(const qn_tokenizer *tokenizer, const char *name)
{
    return tokenizer != NULL ? qn_tokenizer_added_id(tokenizer, qn_str_of(name)) : -1;
}

void qn_chat_output_init(qn_chat_output *output, const qn_tokenizer *tokenizer,
                         const int32_t *prompt, size_t n_prompt, qn_chat_piece_fn *fn,
                         void *context)
{
    *output = (qn_chat_output){
        .tokenizer = tokenizer,
        .fn = fn,
        .context = context,
        .part = QN_CHAT_ANSWER,
        .think_id = id_of(tokenizer, "<think>"),
        .think_end_id = id_of(tokenizer, "</think>"),
    };
    qn_buf_init(&output->text, PIECE_BYTES_MAX);
    for (size_t i = 0; i < n_prompt && output->think_id >= 0; i++) {
        if (prompt[i] == output->think_id) {
            output->part = QN_CHAT_REASONING;
        } else if (prompt[i] == output->think_end_id) {
            output->part = QN_CHAT_ANSWER;
        }
    }
}

static void print(qn_chat_output *output)
{
    if (output->text.len > 0) {
        output->fn(output->context, output->part, output->text.ptr, output->text.len);
    }
    qn_buf_clear(&output->text);
}

void qn_chat_output_end(qn_chat_output *output)
{
    char rest[12];
    const size_t n = qn_utf8_stream_end(&output->stream, rest);
    if (n > 0) {
        output->fn(output->context, output->part, rest, n);
    }
}

/* A token that is not a switch between parts. */
static qn_status print_token(qn_chat_output *output, int32_t id, qn_error *err)
{
    if (output->tokenizer == NULL) {
        const qn_status status = qn_buf_append_printf(&output->text, err, "<%" PRId32 ">", id);
        print(output);
        return status;
    }
    if (qn_tokenizer_is_special(output->tokenizer, id)) {
        return QN_OK;
    }
    const qn_str bytes = qn_tokenizer_bytes(output->tokenizer, id);
    const qn_status status = qn_buf_reserve(&output->text, QN_UTF8_GROWTH * bytes.len + 12, err);
    if (status == QN_OK) {
        output->text.len =
            qn_utf8_stream_feed(&output->stream, bytes.ptr, bytes.len, output->text.ptr);
        print(output);
    }
    return status;
}

qn_status qn_chat_output_feed(qn_chat_output *output, int32_t id, qn_error *err)
{
    const bool is_switch = id >= 0 && (id == output->think_id || id == output->think_end_id);
    output->n_reasoning += output->part == QN_CHAT_REASONING ? 1 : 0;
    if (!is_switch) {
        return print_token(output, id, err);
    }
    qn_chat_output_end(output); /* a character does not go on across the border */
    output->part = id == output->think_id ? QN_CHAT_REASONING : QN_CHAT_ANSWER;
    return QN_OK;
}

void qn_chat_output_deinit(qn_chat_output *output)
{
    qn_buf_deinit(&output->text);
}
