/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of /v1/messages: events to content blocks, one after the other, as events of a stream or
 * as a whole message. */
#include "server/anthropic.h"

/* ------------------------------------------------------------------------------------- events */

/* event: NAME, data: {"type": NAME; what is its own follows, and end_event(). */
static void begin_event(server_writer *w, const char *name)
{
    const char *const parts[] = {"event: ", name, "\ndata: {\"type\": \"", name, "\""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        writer_put(w, parts[i]);
    }
}

static void end_event(server_writer *w)
{
    writer_put(w, "}\n\n");
}

/* An event about the open block. */
static void begin_block_event(const anthropic_exchange *m, server_writer *w, const char *name)
{
    begin_event(w, name);
    writer_put(w, ", \"index\": ");
    writer_put_whole(w, m->n_blocks - 1);
}

static void put_delta(const anthropic_exchange *m, server_writer *w, const char *type,
                      const char *member, qn_str text)
{
    const char *const parts[] = {", \"delta\": {\"type\": \"", type, "\", \"", member, "\": "};
    begin_block_event(m, w, "content_block_delta");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        writer_put(w, parts[i]);
    }
    writer_put_string(w, text);
    writer_put(w, "}");
    end_event(w);
}

/* What the open block has that was not told yet. */
static void tell_piece(anthropic_exchange *m, server_writer *w)
{
    const qn_str piece = qn_buf_view(&m->piece);
    if (piece.len == 0 || (m->block == ANTHROPIC_THINKING && m->hides_thinking)) {
        return;
    }
    switch (m->block) {
    case ANTHROPIC_THINKING: put_delta(m, w, "thinking_delta", "thinking", piece); break;
    case ANTHROPIC_TEXT: put_delta(m, w, "text_delta", "text", piece); break;
    case ANTHROPIC_TOOL_USE: put_delta(m, w, "input_json_delta", "partial_json", piece); break;
    case ANTHROPIC_NONE: break;
    }
    qn_buf_clear(&m->piece);
}

/* ------------------------------------------------------------------------------------- blocks */

/* A block up to its text; of a stream, with the text that it begins with, which is none. */
static void put_head(const anthropic_exchange *m, server_writer *w, qn_str name)
{
    switch (m->block) {
    case ANTHROPIC_THINKING: writer_put(w, "{\"type\": \"thinking\", \"thinking\": "); break;
    case ANTHROPIC_TEXT: writer_put(w, "{\"type\": \"text\", \"text\": "); break;
    case ANTHROPIC_TOOL_USE:
        writer_put(w, "{\"type\": \"tool_use\", \"id\": \"toolu_");
        writer_put(w, m->base.id);
        writer_put(w, "_");
        writer_put_whole(w, m->n_calls - 1);
        writer_put(w, "\", \"name\": ");
        writer_put_string(w, name);
        writer_put(w, ", \"input\": ");
        break;
    case ANTHROPIC_NONE: break;
    }
}

static qn_str signature_of(const anthropic_exchange *m)
{
    return m->hides_thinking ? qn_buf_view(&m->piece) : qn_str_of(ANTHROPIC_HIDDEN);
}

/* The rest of a whole block. */
static void put_rest(const anthropic_exchange *m, server_writer *w)
{
    const qn_str piece = qn_buf_view(&m->piece);
    switch (m->block) {
    case ANTHROPIC_THINKING:
        writer_put_string(w, m->hides_thinking ? (qn_str){0} : piece);
        writer_put(w, ", \"signature\": ");
        writer_put_string(w, signature_of(m));
        break;
    case ANTHROPIC_TEXT: writer_put_string(w, piece); break;
    case ANTHROPIC_TOOL_USE: writer_put_bytes(w, piece); break;
    case ANTHROPIC_NONE: break;
    }
    writer_put(w, "}");
}

static void close_block(anthropic_exchange *m, server_writer *w)
{
    if (m->block == ANTHROPIC_NONE) {
        return;
    }
    if (!m->base.streams) {
        put_rest(m, w);
    } else {
        tell_piece(m, w);
        if (m->block == ANTHROPIC_THINKING) {
            put_delta(m, w, "signature_delta", "signature", signature_of(m));
        }
        begin_block_event(m, w, "content_block_stop");
        end_event(w);
    }
    qn_buf_clear(&m->piece);
    m->block = ANTHROPIC_NONE;
}

static void open_block(anthropic_exchange *m, server_writer *w, anthropic_block block, qn_str name)
{
    close_block(m, w);
    m->block = block;
    m->n_calls += block == ANTHROPIC_TOOL_USE ? 1 : 0;
    if (m->n_blocks++ > 0 && !m->base.streams) {
        writer_put(w, ", ");
    }
    if (m->base.streams) {
        begin_block_event(m, w, "content_block_start");
        writer_put(w, ", \"content_block\": ");
    }
    put_head(m, w, name);
    if (m->base.streams) {
        writer_put(w, block == ANTHROPIC_TOOL_USE   ? "{}}"
                      : block == ANTHROPIC_THINKING ? "\"\", \"signature\": \"\"}"
                                                    : "\"\"}");
        end_event(w);
    }
}

static void add_piece(anthropic_exchange *m, server_writer *w, qn_str text)
{
    if (w->status == QN_OK) {
        w->status = qn_buf_append(&m->piece, text.ptr, text.len, w->err);
    }
}

static void take_text(anthropic_exchange *m, server_writer *w, anthropic_block block, qn_str text)
{
    if (m->block != block) {
        open_block(m, w, block, (qn_str){0});
        if (block == ANTHROPIC_THINKING && m->hides_thinking) {
            add_piece(m, w, qn_str_of(ANTHROPIC_HIDDEN));
        }
    }
    add_piece(m, w, text);
}

static void take_end(anthropic_exchange *m, const qn_event *event)
{
    m->finish = event->finish;
    m->stop_number = event->stop_number;
    if (event->stats != NULL) {
        m->n_cached = event->stats->n_cached_tokens;
        m->n_generated = event->stats->n_generated_tokens;
        m->n_reasoning = event->stats->n_reasoning_tokens;
    }
}

qn_status anthropic_take(server_exchange *x, size_t i_choice, const qn_event *event, qn_error *err)
{
    anthropic_exchange *const m = anthropic_of(x);
    server_writer w = {.out = &m->done, .err = err};
    const qn_str text = {.ptr = event->text, .len = event->len};
    const qn_str name = {.ptr = event->name, .len = event->name_len};
    (void)i_choice;
    switch (event->kind) {
    case QN_EVENT_REASONING: take_text(m, &w, ANTHROPIC_THINKING, text); break;
    case QN_EVENT_TEXT: take_text(m, &w, ANTHROPIC_TEXT, text); break;
    case QN_EVENT_CALL_BEGIN: open_block(m, &w, ANTHROPIC_TOOL_USE, name); break;
    case QN_EVENT_CALL_PIECE: add_piece(m, &w, text); break;
    case QN_EVENT_TOOL_CALL:
        if (m->block != ANTHROPIC_TOOL_USE) { /* it did not come in pieces */
            open_block(m, &w, ANTHROPIC_TOOL_USE, name);
            add_piece(m, &w, text);
        }
        close_block(m, &w);
        break;
    case QN_EVENT_END: take_end(m, event); break;
    case QN_EVENT_WARNING:
    case QN_EVENT_PROMPT_TOKEN:
    case QN_EVENT_TOKEN: break;
    }
    return w.status;
}

/* ------------------------------------------------------------------------------------- message */

static const char *stop_reason_of(const anthropic_exchange *m)
{
    if (m->finish == QN_FINISH_TOOL_CALLS) {
        return "tool_use";
    }
    if (m->finish == QN_FINISH_STOP) {
        return m->stop_number > 0 ? "stop_sequence" : "end_turn";
    }
    return m->finish == QN_FINISH_LENGTH && m->n_generated < m->base.request.max_tokens
               ? "model_context_window_exceeded"
               : "max_tokens";
}

/* "stop_reason": ..., "stop_sequence": ... */
static void put_stop(const anthropic_exchange *m, server_writer *w)
{
    const char *const stop = m->stop_number > 0 && m->finish == QN_FINISH_STOP
                                 ? m->base.stops[m->stop_number - 1]
                                 : NULL;
    writer_put(w, "\"stop_reason\": \"");
    writer_put(w, stop_reason_of(m));
    writer_put(w, "\", \"stop_sequence\": ");
    if (stop != NULL) {
        writer_put_string(w, qn_str_of(stop));
    } else {
        writer_put(w, "null");
    }
}

/* What was found in the cache is not part of input_tokens, by Anthropic's definition. */
static void put_usage(const anthropic_exchange *m, server_writer *w)
{
    writer_put(w, ", \"usage\": {\"input_tokens\": ");
    writer_put_whole(w, m->base.n_prompt_tokens - m->n_cached);
    writer_put(w, ", \"cache_creation_input_tokens\": 0, \"cache_read_input_tokens\": ");
    writer_put_whole(w, m->n_cached);
    writer_put(w, ", \"output_tokens\": ");
    writer_put_whole(w, m->n_generated);
    writer_put(w, ", \"output_tokens_details\": {\"thinking_tokens\": ");
    writer_put_whole(w, m->n_reasoning);
    writer_put(w, "}}");
}

/* The message up to what its content has. */
static void put_message(const anthropic_exchange *m, server_writer *w)
{
    writer_put(w, "{\"id\": \"msg_");
    writer_put(w, m->base.id);
    writer_put(w, "\", \"type\": \"message\", \"role\": \"assistant\", \"model\": ");
    writer_put_string(w, qn_str_of(m->base.model_name));
    if (strcmp(qn_model_get_info(m->base.settings->model)->weights, "dummy") == 0) {
        writer_put(w, ", \"weights\": \"dummy\"");
    }
    writer_put(w, ", \"content\": [");
}

qn_status anthropic_begin(server_exchange *x, qn_buf *out, qn_error *err)
{
    const anthropic_exchange *const m = anthropic_of(x);
    server_writer w = {.out = out, .err = err};
    begin_event(&w, "message_start");
    writer_put(&w, ", \"message\": ");
    put_message(m, &w);
    writer_put(&w, "], \"stop_reason\": null, \"stop_sequence\": null");
    put_usage(m, &w);
    writer_put(&w, "}");
    end_event(&w);
    return w.status;
}

qn_status anthropic_flush(server_exchange *x, qn_buf *out, qn_error *err)
{
    anthropic_exchange *const m = anthropic_of(x);
    server_writer w = {.out = &m->done, .err = err};
    tell_piece(m, &w);
    w.out = out;
    writer_put_bytes(&w, qn_buf_view(&m->done));
    if (w.status == QN_OK) {
        qn_buf_clear(&m->done);
    }
    return w.status;
}

qn_status anthropic_finish(server_exchange *x, qn_buf *out, qn_error *err)
{
    anthropic_exchange *const m = anthropic_of(x);
    server_writer w = {.out = &m->done, .err = err};
    close_block(m, &w);
    w.out = out;
    if (x->streams) {
        writer_put_bytes(&w, qn_buf_view(&m->done));
        begin_event(&w, "message_delta");
        writer_put(&w, ", \"delta\": {");
        put_stop(m, &w);
        writer_put(&w, "}");
        put_usage(m, &w);
        end_event(&w);
        begin_event(&w, "message_stop");
        end_event(&w);
        return w.status;
    }
    put_message(m, &w);
    writer_put_bytes(&w, qn_buf_view(&m->done));
    writer_put(&w, "], ");
    put_stop(m, &w);
    put_usage(m, &w);
    writer_put(&w, "}");
    return w.status;
}

qn_status anthropic_fail(const server_exchange *x, const server_error *error, qn_buf *out,
                         qn_error *err)
{
    server_writer w = {.out = out, .err = err};
    writer_put(&w, "event: error\ndata: ");
    if (w.status == QN_OK) {
        w.status = server_error_append(out, error, x->api, err);
    }
    writer_put(&w, "\n\n");
    return w.status;
}
