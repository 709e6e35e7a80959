/* SPDX-License-Identifier: Apache-2.0 */
#include "server/openai.h"

#include <stdlib.h>

static bool is_chat(const openai_exchange *x)
{
    return x->base.api == SERVER_API_CHAT;
}

/* ------------------------------------------------------------------------------ heads and tails */

void openai_put_head(server_writer *w, const openai_exchange *x, const char *object)
{
    writer_put(w, x->base.streams ? "data: {\"id\": \"" : "{\"id\": \"");
    writer_put(w, is_chat(x) ? "chatcmpl-" : "cmpl-");
    writer_put(w, x->base.id);
    writer_put(w, "\", \"object\": \"");
    writer_put(w, object);
    writer_put(w, "\", \"created\": ");
    writer_put_whole(w, x->base.created_s);
    writer_put(w, ", \"model\": ");
    writer_put_string(w, qn_str_of(x->base.model_name));
    writer_put(w, ", \"system_fingerprint\": \"quern-");
    writer_put(w, qn_build_get()->commit);
    writer_put(w, "\", \"choices\": [");
}

/* A prompt counts once, whatever n; cached is what its first choice found. */
static void put_usage(server_writer *w, const openai_exchange *x)
{
    uint64_t n_cached = 0;
    uint64_t n_generated = 0;
    uint64_t n_reasoning = 0;
    bool have_all_ended = true;
    for (size_t i = 0; i < x->n_choices; i++) {
        const openai_choice *const c = &x->choices[i];
        n_cached += exchange_counts_prompt(&x->base, i) ? c->stats.n_cached_tokens : 0;
        n_generated += c->has_ended ? c->stats.n_generated_tokens : c->n_tokens;
        n_reasoning += c->stats.n_reasoning_tokens;
        have_all_ended &= c->has_ended;
    }
    writer_put(w, "{\"prompt_tokens\": ");
    writer_put_whole(w, x->base.n_prompt_tokens);
    writer_put(w, ", \"completion_tokens\": ");
    writer_put_whole(w, n_generated);
    writer_put(w, ", \"total_tokens\": ");
    writer_put_whole(w, x->base.n_prompt_tokens + n_generated);
    if (have_all_ended) { /* not known before */
        writer_put(w, ", \"prompt_tokens_details\": {\"cached_tokens\": ");
        writer_put_whole(w, n_cached);
        writer_put(w, "}, \"completion_tokens_details\": {\"reasoning_tokens\": ");
        writer_put_whole(w, n_reasoning);
        writer_put(w, "}");
    }
    writer_put(w, "}");
}

/* Behind the last choice. */
static void put_tail(server_writer *w, const openai_exchange *x, bool has_usage)
{
    writer_put(w, "]");
    if (has_usage) {
        writer_put(w, ", \"usage\": ");
        put_usage(w, x);
    } else if (x->includes_usage) {
        writer_put(w, ", \"usage\": null");
    }
    if (strcmp(qn_model_get_info(x->base.settings->model)->weights, "dummy") == 0) {
        writer_put(w, ", \"weights\": \"dummy\"");
    }
    if (x->prompt_logprobs >= 0 && is_chat(x)) {
        writer_put(w, ", \"prompt_logprobs\": ");
        openai_put_prompt_logprobs(w, x, &x->choices[0]);
    }
    writer_put(w, x->base.streams ? "}\n\n" : "}");
}

static const char *finish_reason(const openai_exchange *x, const openai_choice *choice)
{
    const bool is_cut = choice->finish == QN_FINISH_LENGTH || choice->finish == QN_FINISH_DEADLINE;
    return is_cut ? "length" : is_chat(x) ? qn_finish_name(choice->finish) : "stop";
}

/* ----------------------------------------------------------------------------------- the stream */

static void begin_chunk(server_writer *w, const openai_exchange *x, size_t i_choice)
{
    writer_put_bytes(w, qn_buf_view(&x->head));
    writer_put(w, "{\"index\": ");
    writer_put_whole(w, i_choice);
    writer_put(w, is_chat(x) ? ", \"delta\": {" : ", \"text\": ");
}

/* With the logprobs of the first @p n_bytes of tokens. */
static void end_chunk(server_writer *w, openai_exchange *x, size_t i_choice, size_t n_bytes,
                      const char *reason)
{
    writer_put(w, is_chat(x) ? "}, \"logprobs\": " : ", \"logprobs\": ");
    openai_put_logprobs(w, x, &x->choices[i_choice], n_bytes);
    writer_put(w, ", \"finish_reason\": ");
    if (reason != NULL) {
        writer_put_string(w, qn_str_of(reason));
    } else {
        writer_put(w, "null");
    }
    writer_put(w, "}");
    put_tail(w, x, x->includes_usage && x->has_continuous_usage);
}

/* A failed chunk leaves nothing. */
static qn_status finish_chunk(const server_writer *w, size_t len)
{
    w->out->len = w->status < 0 ? len : w->out->len;
    return w->status;
}

/* The id of a choice's newest call. */
static void put_call_id(server_writer *w, const openai_exchange *x, size_t i_choice)
{
    writer_put(w, "\"call_");
    writer_put(w, x->base.id);
    writer_put(w, "_");
    writer_put_whole(w, i_choice);
    writer_put(w, "_");
    writer_put_whole(w, x->choices[i_choice].n_calls - 1);
    writer_put(w, "\"");
}

/* What a choice's part has becomes a chunk. */
static qn_status close_part(openai_exchange *x, size_t i_choice, qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    qn_buf *const part = &choice->parts[choice->part];
    const size_t len = x->pending.len;
    server_writer w = {.out = &x->pending, .err = err};
    if (part->len == 0) {
        return QN_OK;
    }
    begin_chunk(&w, x, i_choice);
    if (choice->part == OPENAI_CALLS) {
        writer_put(&w, "\"tool_calls\": [{\"index\": ");
        writer_put_whole(&w, choice->n_calls - 1);
        writer_put(&w, ", \"function\": {\"arguments\": ");
    } else if (is_chat(x)) {
        writer_put(&w, choice->part == OPENAI_TEXT ? "\"content\": " : "\"reasoning_content\": ");
    }
    writer_put_string(&w, qn_buf_view(part));
    writer_put(&w, choice->part == OPENAI_CALLS ? "}}]" : "");
    end_chunk(&w, x, i_choice, choice->n_said_bytes, NULL);
    qn_buf_clear(part);
    return finish_chunk(&w, len);
}

static qn_status begin_call(openai_exchange *x, size_t i_choice, const qn_event *event,
                            qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    const qn_status status = close_part(x, i_choice, err);
    const size_t len = x->pending.len;
    server_writer w = {.out = &x->pending, .err = err, .status = status};
    choice->n_calls++;
    choice->has_call = true;
    choice->has_call_pieces = false;
    begin_chunk(&w, x, i_choice);
    writer_put(&w, "\"tool_calls\": [{\"index\": ");
    writer_put_whole(&w, choice->n_calls - 1);
    writer_put(&w, ", \"id\": ");
    put_call_id(&w, x, i_choice);
    writer_put(&w, ", \"type\": \"function\", \"function\": {\"name\": ");
    writer_put_string(&w, (qn_str){.ptr = event->name, .len = event->name_len});
    writer_put(&w, ", \"arguments\": \"\"}}]");
    end_chunk(&w, x, i_choice, choice->tokens.len, NULL);
    return finish_chunk(&w, len);
}

/* The last chunk of a choice, with whatever tokens had no text. */
static qn_status end_choice(openai_exchange *x, size_t i_choice, qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    const qn_status status = close_part(x, i_choice, err);
    const size_t len = x->pending.len;
    server_writer w = {.out = &x->pending, .err = err, .status = status};
    if (choice->finish == QN_FINISH_ERROR || choice->finish == QN_FINISH_ABORT) {
        return status; /* the stream ends with an error */
    }
    begin_chunk(&w, x, i_choice);
    writer_put(&w, is_chat(x) ? "" : "\"\"");
    end_chunk(&w, x, i_choice, choice->tokens.len, finish_reason(x, choice));
    return finish_chunk(&w, len);
}

/* -------------------------------------------------------------------------------------- events */

static qn_status add(openai_exchange *x, size_t i_choice, openai_part part, qn_str bytes,
                     qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    qn_status status = QN_OK;
    if (x->base.streams && part != choice->part) {
        status = close_part(x, i_choice, err);
    }
    choice->part = part;
    choice->n_said_bytes = choice->tokens.len;
    return status == QN_OK ? qn_buf_append(&choice->parts[part], bytes.ptr, bytes.len, err)
                           : status;
}

/* Of an answer that comes whole: {"id", "type", "function"}.  The arguments are a string, so that
 * numbers keep their text. */
static qn_status add_whole_call(openai_exchange *x, size_t i_choice, const qn_event *event,
                                qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    qn_buf *const calls = &choice->parts[OPENAI_CALLS];
    server_writer w = {.out = calls, .err = err};
    writer_put(&w, choice->n_calls++ > 0 ? ", " : "");
    writer_put(&w, "{\"id\": ");
    put_call_id(&w, x, i_choice);
    writer_put(&w, ", \"type\": \"function\", \"function\": {\"name\": ");
    writer_put_string(&w, (qn_str){.ptr = event->name, .len = event->name_len});
    writer_put(&w, ", \"arguments\": ");
    writer_put_string(&w, (qn_str){.ptr = event->text, .len = event->len});
    writer_put(&w, "}}");
    return w.status;
}

/* Of a chat. */
static qn_status take_call(openai_exchange *x, size_t i_choice, const qn_event *event,
                           qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    const qn_str text = {.ptr = event->text, .len = event->len};
    qn_status status = QN_OK;
    if (!x->base.streams) {
        return event->kind == QN_EVENT_TOOL_CALL ? add_whole_call(x, i_choice, event, err) : QN_OK;
    }
    if (event->kind == QN_EVENT_CALL_BEGIN || !choice->has_call) {
        status = begin_call(x, i_choice, event, err);
    }
    const bool is_new = event->kind == QN_EVENT_CALL_PIECE ||
                        (event->kind == QN_EVENT_TOOL_CALL && !choice->has_call_pieces);
    if (status == QN_OK && is_new) {
        status = add(x, i_choice, OPENAI_CALLS, text, err);
    }
    choice->has_call_pieces |= event->kind == QN_EVENT_CALL_PIECE;
    if (event->kind == QN_EVENT_TOOL_CALL) {
        choice->has_call = false;
    }
    return status;
}

/* A completion's text has everything: marks stand where the model wrote them; of a prompt that ends
 * in <think> only the closing one. */
static qn_status take_plain(openai_exchange *x, size_t i_choice, const qn_event *event,
                            qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    const bool is_thinking = event->kind == QN_EVENT_REASONING;
    const bool is_call = event->kind == QN_EVENT_TOOL_CALL;
    const char *mark = "";
    if (is_thinking != choice->is_thinking && (!is_thinking || choice->has_opened)) {
        mark = is_thinking ? "<think>" : "</think>";
    }
    choice->is_thinking = is_thinking;
    const qn_str pieces[] = {
        qn_str_of(mark),
        qn_str_of(is_call ? "<tool_call>" : ""),
        {.ptr = event->name, .len = event->name_len},
        {.ptr = event->text, .len = event->len},
        qn_str_of(is_call ? "</tool_call>" : ""),
    };
    qn_status status = QN_OK;
    for (size_t i = 0; status == QN_OK && i < sizeof pieces / sizeof *pieces; i++) {
        if (pieces[i].len > 0) {
            status = add(x, i_choice, OPENAI_TEXT, pieces[i], err);
        }
    }
    return status;
}

static qn_status take_prompt_token(openai_exchange *x, size_t i_choice, const qn_event *event,
                                   qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    qn_status status = QN_OK;
    if (x->prompt_logprobs >= 0 && exchange_counts_prompt(&x->base, i_choice)) {
        status = openai_keep_token(&choice->prompt_tokens, event, err);
    }
    if (x->echoes && x->wants_logprobs && status == QN_OK) {
        status = openai_keep_token(&choice->tokens, event, err);
    }
    return status;
}

/* The echo waits for the probabilities of its tokens. */
static qn_status begin_choice(openai_exchange *x, size_t i_choice, qn_error *err)
{
    openai_choice *const choice = &x->choices[i_choice];
    if (choice->has_begun || !x->echoes) {
        return QN_OK;
    }
    choice->has_begun = true;
    return add(x, i_choice, OPENAI_TEXT, x->echo_texts[i_choice / x->base.n], err);
}

static qn_status take(server_exchange *base, size_t i_choice, const qn_event *event, qn_error *err)
{
    openai_exchange *const x = openai_of(base);
    openai_choice *const choice = &x->choices[i_choice];
    const qn_str text = {.ptr = event->text, .len = event->len};
    if (event->kind == QN_EVENT_PROMPT_TOKEN) {
        return take_prompt_token(x, i_choice, event, err);
    }
    const qn_status status = begin_choice(x, i_choice, err);
    if (status < 0) {
        return status;
    }
    switch (event->kind) {
    case QN_EVENT_REASONING:
    case QN_EVENT_TEXT:
        if (!is_chat(x)) {
            return take_plain(x, i_choice, event, err);
        }
        if (event->kind == QN_EVENT_TEXT) {
            return add(x, i_choice, OPENAI_TEXT, text, err);
        }
        return x->includes_reasoning ? add(x, i_choice, OPENAI_REASONING, text, err) : QN_OK;
    case QN_EVENT_TOOL_CALL:
    case QN_EVENT_CALL_BEGIN:
    case QN_EVENT_CALL_PIECE:
        return is_chat(x) ? take_call(x, i_choice, event, err)
                          : take_plain(x, i_choice, event, err);
    case QN_EVENT_TOKEN:
        choice->n_tokens++;
        choice->has_opened |= event->token.token == x->think_id;
        return x->wants_logprobs ? openai_keep_token(&choice->tokens, event, err) : QN_OK;
    case QN_EVENT_END:
        choice->has_ended = true;
        choice->finish = event->finish;
        choice->stats = event->stats != NULL ? *event->stats : choice->stats;
        return base->streams ? end_choice(x, i_choice, err) : QN_OK;
    case QN_EVENT_WARNING:
    case QN_EVENT_PROMPT_TOKEN: break;
    }
    return QN_OK;
}

/* ------------------------------------------------------------------------------------- the form */

static qn_status begin(server_exchange *base, qn_buf *out, qn_error *err)
{
    openai_exchange *const x = openai_of(base);
    server_writer w = {.out = out, .err = err};
    for (size_t i = 0; is_chat(x) && i < x->n_choices; i++) {
        begin_chunk(&w, x, i);
        writer_put(&w, "\"role\": \"assistant\", \"content\": \"\"");
        end_chunk(&w, x, i, 0, NULL);
    }
    return w.status;
}

static qn_status flush(server_exchange *base, qn_buf *out, qn_error *err)
{
    openai_exchange *const x = openai_of(base);
    qn_status status = QN_OK;
    for (size_t i = 0; status == QN_OK && i < x->n_choices; i++) {
        status = close_part(x, i, err);
    }
    if (status == QN_OK) {
        status = qn_buf_append(out, x->pending.ptr, x->pending.len, err);
    }
    if (status == QN_OK) {
        qn_buf_clear(&x->pending);
    }
    return status;
}

/* "content" is null, and so is "reasoning_content", where there is none but calls. */
static void put_message(server_writer *w, const openai_choice *choice)
{
    const qn_str text = qn_buf_view(&choice->parts[OPENAI_TEXT]);
    const qn_str reasoning = qn_buf_view(&choice->parts[OPENAI_REASONING]);
    writer_put(w, "{\"role\": \"assistant\", \"content\": ");
    if (text.len == 0 && choice->n_calls > 0) {
        writer_put(w, "null");
    } else {
        writer_put_string(w, text);
    }
    writer_put(w, ", \"reasoning_content\": ");
    if (reasoning.len == 0) {
        writer_put(w, "null");
    } else {
        writer_put_string(w, reasoning);
    }
    writer_put(w, ", \"refusal\": null");
    if (choice->n_calls > 0) {
        writer_put(w, ", \"tool_calls\": [");
        writer_put_bytes(w, qn_buf_view(&choice->parts[OPENAI_CALLS]));
        writer_put(w, "]");
    }
    writer_put(w, "}");
}

static void put_choice(server_writer *w, openai_exchange *x, size_t i_choice)
{
    openai_choice *const choice = &x->choices[i_choice];
    writer_put(w, i_choice > 0 ? ", {\"index\": " : "{\"index\": ");
    writer_put_whole(w, i_choice);
    if (is_chat(x)) {
        writer_put(w, ", \"message\": ");
        put_message(w, choice);
    } else {
        writer_put(w, ", \"text\": ");
        writer_put_string(w, qn_buf_view(&choice->parts[OPENAI_TEXT]));
    }
    writer_put(w, ", \"logprobs\": ");
    openai_put_logprobs(w, x, choice, choice->tokens.len);
    writer_put(w, ", \"finish_reason\": ");
    writer_put_string(w, qn_str_of(finish_reason(x, choice)));
    if (x->prompt_logprobs >= 0 && !is_chat(x)) {
        writer_put(w, ", \"prompt_logprobs\": ");
        openai_put_prompt_logprobs(w, x, &x->choices[i_choice - i_choice % x->base.n]);
    }
    writer_put(w, "}");
}

static qn_status finish(server_exchange *base, qn_buf *out, qn_error *err)
{
    openai_exchange *const x = openai_of(base);
    server_writer w = {.out = out, .err = err};
    if (base->streams) {
        w.status = flush(base, out, err);
        if (x->includes_usage) {
            writer_put_bytes(&w, qn_buf_view(&x->head));
            put_tail(&w, x, true);
        }
        writer_put(&w, "data: [DONE]\n\n");
        return w.status;
    }
    writer_put_bytes(&w, qn_buf_view(&x->head));
    for (size_t i = 0; i < x->n_choices; i++) {
        put_choice(&w, x, i);
    }
    put_tail(&w, x, true);
    return w.status;
}

/* Clients raise what stands under "error". */
static qn_status fail(const server_exchange *base, const server_error *error, qn_buf *out,
                      qn_error *err)
{
    server_writer w = {.out = out, .err = err};
    writer_put(&w, "data: ");
    if (w.status == QN_OK) {
        w.status = server_error_append(out, error, base->api, err);
    }
    writer_put(&w, "\n\ndata: [DONE]\n\n");
    return w.status;
}

static void close_form(server_exchange *base)
{
    openai_exchange *const x = openai_of(base);
    for (size_t i = 0; i < x->n_choices; i++) {
        for (int part = 0; part < OPENAI_N_PARTS; part++) {
            qn_buf_deinit(&x->choices[i].parts[part]);
        }
        qn_buf_deinit(&x->choices[i].tokens);
        qn_buf_deinit(&x->choices[i].prompt_tokens);
    }
    for (size_t i = 0; i < x->n_echo_texts; i++) {
        qn_free((void *)x->echo_texts[i].ptr);
    }
    free(x->echo_texts);
    free(x->choices);
    qn_buf_deinit(&x->head);
    qn_buf_deinit(&x->pending);
}

const exchange_form openai_form = {
    .n_bytes = sizeof(openai_exchange),
    .read = openai_read,
    .close = close_form,
    .begin = begin,
    .take = take,
    .flush = flush,
    .finish = finish,
    .fail = fail,
    .keep_alive = ": keep-alive\n\n",
};
