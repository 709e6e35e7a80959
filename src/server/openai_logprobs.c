/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens with their probabilities: kept packed, as numbers, until their chunk is written. */
#include "server/openai.h"

#include <math.h>
#include <stdlib.h>

/* What OpenAI writes for a probability of nothing, as JSON has no infinity. */
static const double logprob_of_none = -9999.0;

/* A token as it is kept; its alternatives follow it. */
typedef struct kept_token {
    qn_token_logprob token;
    uint32_t n_top;
    uint32_t position; /* in the sequence; a prompt's first one has no probability */
    uint32_t rank;     /* of a prompt's token */
} kept_token;

/* A token while it is written. */
typedef struct shown_token {
    kept_token kept;
    qn_token_logprob top[QN_TOP_LOGPROBS_MAX];
    uint32_t n_top; /* to be shown */
} shown_token;

qn_status openai_keep_token(qn_buf *out, const qn_event *event, qn_error *err)
{
    const size_t len = out->len;
    const kept_token kept = {.token = event->token,
                             .n_top = event->n_top,
                             .position = event->position,
                             .rank = event->rank};
    qn_status status = qn_buf_reserve(out, sizeof kept + event->n_top * sizeof *event->top, err);
    status = status == QN_OK ? qn_buf_append(out, &kept, sizeof kept, err) : status;
    if (status == QN_OK && event->n_top > 0) {
        status = qn_buf_append(out, event->top, event->n_top * sizeof *event->top, err);
    }
    out->len = status == QN_OK ? out->len : len;
    return status;
}

/* Take the next one off. */
static shown_token take_token(qn_str *rest, uint32_t n_top_max)
{
    shown_token out = {0};
    memcpy(&out.kept, rest->ptr, sizeof out.kept);
    const size_t n_top_bytes = out.kept.n_top * sizeof *out.top;
    memcpy(out.top, rest->ptr + sizeof out.kept, n_top_bytes);
    out.n_top = out.kept.n_top < n_top_max ? out.kept.n_top : n_top_max;
    *rest = (qn_str){.ptr = rest->ptr + sizeof out.kept + n_top_bytes,
                     .len = rest->len - sizeof out.kept - n_top_bytes};
    return out;
}

static void put_logprob(server_writer *w, float logprob)
{
    writer_put_real(w, isfinite(logprob) ? (double)logprob : logprob_of_none);
}

/* The text of a token; a part of a character is U+FFFD.  NULL where something failed. */
static qn_str decode(server_writer *w, const openai_exchange *x, int32_t token)
{
    char *text = NULL;
    size_t len = 0;
    if (w->status == QN_OK) {
        w->status = qn_decode(&text, &len, x->base.settings->model, &token, 1, w->err);
    }
    return (qn_str){.ptr = text, .len = len};
}

static void release(qn_str text)
{
    qn_free((void *)text.ptr);
}

/* ---------------------------------------------------------------------------------------- chat */

/* null where the token is no whole text. */
static void put_bytes_of(server_writer *w, qn_str text)
{
    if (text.ptr == NULL || qn_str_contains(text, "\xef\xbf\xbd")) {
        writer_put(w, "null");
        return;
    }
    writer_put(w, "[");
    for (size_t i = 0; i < text.len; i++) {
        writer_put(w, i > 0 ? ", " : "");
        writer_put_whole(w, (unsigned char)text.ptr[i]);
    }
    writer_put(w, "]");
}

/* "token", "logprob", "bytes" */
static void put_chat_token(server_writer *w, const openai_exchange *x,
                           const qn_token_logprob *token)
{
    const qn_str text = decode(w, x, token->token);
    writer_put(w, "\"token\": ");
    writer_put_string(w, text);
    writer_put(w, ", \"logprob\": ");
    put_logprob(w, token->logprob);
    writer_put(w, ", \"bytes\": ");
    put_bytes_of(w, text);
    release(text);
}

static void put_chat_logprobs(server_writer *w, const openai_exchange *x, qn_str rest)
{
    writer_put(w, "{\"content\": [");
    for (const char *separator = ""; rest.len > 0; separator = ", ") {
        const shown_token shown = take_token(&rest, x->n_top);
        writer_put(w, separator);
        writer_put(w, "{");
        put_chat_token(w, x, &shown.kept.token);
        writer_put(w, ", \"top_logprobs\": [");
        for (uint32_t i = 0; i < shown.n_top; i++) {
            writer_put(w, i > 0 ? ", {" : "{");
            put_chat_token(w, x, &shown.top[i]);
            writer_put(w, "}");
        }
        writer_put(w, "]}");
    }
    writer_put(w, "], \"refusal\": null}");
}

/* ---------------------------------------------------------------------------------- completion */

static uint64_t count_characters(qn_str text)
{
    uint64_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        n += ((unsigned char)text.ptr[i] & 0xC0) != 0x80;
    }
    return n;
}

/* Beside the likeliest tokens always the one that is there.  Texts are keys: of several tokens with
 * one text, parts of characters, the last one counts. */
static void put_top(server_writer *w, const openai_exchange *x, const shown_token *shown)
{
    qn_str texts[QN_TOP_LOGPROBS_MAX + 1];
    float logprobs[QN_TOP_LOGPROBS_MAX + 1];
    uint32_t n = 0;
    for (uint32_t i = 0; i <= shown->n_top; i++) {
        const qn_token_logprob *const token =
            i < shown->n_top ? &shown->top[i] : &shown->kept.token;
        qn_str text = decode(w, x, token->token);
        text.len =
            text.len > 0 ? strnlen(text.ptr, text.len) : 0; /* many readers take no NUL in a key */
        uint32_t i_same = 0;
        while (i_same < n && !qn_str_equal(texts[i_same], text)) {
            i_same++;
        }
        logprobs[i_same] = token->logprob; /* at most n, of 21 */
        if (i_same < n) {
            release(text);
        } else {
            texts[n++] = text;
        }
    }
    writer_put(w, "{");
    for (uint32_t i = 0; i < n; i++) {
        writer_put(w, i > 0 ? ", " : "");
        writer_put_string(w, texts[i]);
        writer_put(w, ": ");
        put_logprob(w, logprobs[i]);
        release(texts[i]);
    }
    writer_put(w, "}");
}

/* What is told of tokens, each in a list of its own. */
typedef enum token_list {
    TEXTS,
    LOGPROBS,
    TOPS,
    OFFSETS,
    N_LISTS,
} token_list;

/* What a list says of a token. */
static void put_item(server_writer *w, const openai_exchange *x, openai_choice *choice,
                     const shown_token *shown, token_list list)
{
    const bool is_first = shown->kept.position == 0; /* nothing stands before it */
    if (list == TEXTS) {
        const qn_str text = decode(w, x, shown->kept.token.token);
        writer_put_string(w, text);
        release(text);
    } else if (list == OFFSETS) {
        const qn_str text = decode(w, x, shown->kept.token.token);
        writer_put_whole(w, choice->n_characters);
        choice->n_characters += count_characters(text);
        release(text);
    } else if (is_first) {
        writer_put(w, "null");
    } else if (list == LOGPROBS) {
        put_logprob(w, shown->kept.token.logprob);
    } else {
        put_top(w, x, shown);
    }
}

/* The tokens once for each list. */
static void put_completion_logprobs(server_writer *w, const openai_exchange *x,
                                    openai_choice *choice, qn_str tokens)
{
    static const char *const heads[N_LISTS] = {
        [TEXTS] = "{\"tokens\": [",
        [LOGPROBS] = "], \"token_logprobs\": [",
        [TOPS] = "], \"top_logprobs\": [",
        [OFFSETS] = "], \"text_offset\": [",
    };
    for (token_list list = 0; list < N_LISTS; list++) {
        writer_put(w, heads[list]);
        const char *separator = "";
        for (qn_str rest = tokens; rest.len > 0 && w->status == QN_OK; separator = ", ") {
            const shown_token shown = take_token(&rest, x->n_top);
            writer_put(w, separator);
            put_item(w, x, choice, &shown, list);
        }
    }
    writer_put(w, "]}");
}

void openai_put_logprobs(server_writer *w, openai_exchange *x, openai_choice *choice,
                         size_t n_bytes)
{
    const qn_str tokens = {.ptr = choice->tokens.ptr, .len = n_bytes};
    if (!x->wants_logprobs || (x->base.streams && n_bytes == 0)) {
        writer_put(w, "null");
        return;
    }
    if (x->base.api == SERVER_API_CHAT) {
        put_chat_logprobs(w, x, tokens);
    } else {
        put_completion_logprobs(w, x, choice, tokens);
    }
    if (n_bytes > 0) {
        choice->tokens.len -= n_bytes;
        memmove(choice->tokens.ptr, choice->tokens.ptr + n_bytes, choice->tokens.len);
        choice->n_said_bytes = 0;
    }
}

/* -------------------------------------------------------------------------------------- prompt */

/* "ID": {"logprob", "rank", "decoded_token"} */
static void put_prompt_entry(server_writer *w, const openai_exchange *x,
                             const qn_token_logprob *token, uint32_t rank)
{
    const qn_str text = decode(w, x, token->token);
    writer_put(w, "\"");
    writer_put_whole(w, (uint64_t)token->token);
    writer_put(w, "\": {\"logprob\": ");
    put_logprob(w, token->logprob);
    writer_put(w, ", \"rank\": ");
    writer_put_whole(w, rank);
    writer_put(w, ", \"decoded_token\": ");
    writer_put_string(w, text);
    writer_put(w, "}");
    release(text);
}

/* The token itself, then the likeliest ones beside it. */
static void put_prompt_token(server_writer *w, const openai_exchange *x, const shown_token *shown)
{
    writer_put(w, "{");
    put_prompt_entry(w, x, &shown->kept.token, shown->kept.rank);
    for (uint32_t i = 0; i < shown->n_top; i++) {
        if (shown->top[i].token != shown->kept.token.token) {
            writer_put(w, ", ");
            put_prompt_entry(w, x, &shown->top[i], i + 1);
        }
    }
    writer_put(w, "}");
}

void openai_put_prompt_logprobs(server_writer *w, const openai_exchange *x,
                                const openai_choice *choice)
{
    qn_str rest = {.ptr = choice->prompt_tokens.ptr, .len = choice->prompt_tokens.len};
    writer_put(w, "[");
    for (const char *separator = ""; rest.len > 0 && w->status == QN_OK; separator = ", ") {
        const shown_token shown = take_token(&rest, (uint32_t)x->prompt_logprobs);
        writer_put(w, separator);
        if (shown.kept.position == 0) {
            writer_put(w, "null");
        } else {
            put_prompt_token(w, x, &shown);
        }
    }
    writer_put(w, "]");
}
