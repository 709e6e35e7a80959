/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/tokenizer.h"

#include "base/assert.h"
#include "base/try.h"
#include "tokenizer/internal.h"

#include <errno.h>
#include <stdlib.h>

enum { TEXT_BYTES_MAX = 1 << 30 }; /* positions in a word are 32 bits */

void qn_tokenizer_close(qn_tokenizer **tokenizer)
{
    qn_tokenizer *t = *tokenizer;
    if (t == NULL) {
        return;
    }
    free(t->tokens);
    free(t->bytes);
    free(t->merges);
    free(t->merge_slots);
    free(t->word_slots);
    free(t->added);
    pcre2_code_free(t->split);
    free(t);
    *tokenizer = NULL;
}

uint32_t qn_tokenizer_size(const qn_tokenizer *tokenizer)
{
    return tokenizer->n_tokens;
}

qn_str qn_tokenizer_bytes(const qn_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || (uint32_t)id >= tokenizer->n_tokens) {
        return (qn_str){0};
    }
    const qn_token *token = &tokenizer->tokens[id];
    return (qn_str){tokenizer->bytes + token->offset, token->len};
}

bool qn_tokenizer_is_added(const qn_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (uint32_t)id < tokenizer->n_tokens && tokenizer->tokens[id].is_added;
}

bool qn_tokenizer_is_special(const qn_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (uint32_t)id < tokenizer->n_tokens && tokenizer->tokens[id].is_special;
}

int32_t qn_tokenizer_added_id(const qn_tokenizer *tokenizer, qn_str text)
{
    for (uint32_t i = 0; i < tokenizer->n_added; i++) {
        if (qn_str_equal(qn_tokenizer_bytes(tokenizer, tokenizer->added[i]), text)) {
            return tokenizer->added[i];
        }
    }
    return -1;
}

qn_status qn_ids_append(qn_ids *list, int32_t id, qn_error *err)
{
    if (list->n_ids == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (ids == NULL) {
            return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "token ids: no memory");
        }
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->n_ids++] = id;
    return QN_OK;
}

void qn_ids_deinit(qn_ids *list)
{
    free(list->ids);
    *list = (qn_ids){0};
}

/* One call of qn_tokenizer_encode(). */
typedef struct encoder {
    const qn_tokenizer *t;
    qn_ids *out;
    qn_error *err;
    qn_bpe bpe;
    pcre2_match_data *match;
    pcre2_match_context *context; /* its limit grows with the text */
} encoder;

/* Steps of one match: PCRE2's own limit, and as many for each byte as any class of the pattern may
 * take.  A pattern that backtracks without end still meets it. */
enum { MATCH_STEPS = 10000000, MATCH_STEPS_PER_BYTE = 8 };

/*
 * The next match of the split pattern at or after @p at.  Where the compiled code's stack is too
 * small for a text, the interpreter, which keeps its stack on the heap, takes over.
 */
static qn_status next_match(const encoder *e, qn_str text, size_t at, size_t *first, size_t *end)
{
    const uint32_t flags = PCRE2_NO_UTF_CHECK; /* the text was made valid */
    int n =
        pcre2_match(e->t->split, (PCRE2_SPTR)text.ptr, text.len, at, flags, e->match, e->context);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT) {
        n = pcre2_match(e->t->split, (PCRE2_SPTR)text.ptr, text.len, at, flags | PCRE2_NO_JIT,
                        e->match, e->context);
    }
    if (n < 0 && n != PCRE2_ERROR_NOMATCH) {
        char why[128] = "";
        (void)pcre2_get_error_message(n, (PCRE2_UCHAR *)why, sizeof why);
        return qn_fail(e->err, n == PCRE2_ERROR_NOMEMORY ? QN_E_NOMEM : QN_E_FORMAT, n, __func__,
                       "split pattern: %s at byte %zu, expected a match", why, at);
    }
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(e->match);
    *first = n < 0 ? text.len : found[0];
    *end = n < 0 ? text.len : found[1];
    return QN_OK;
}

static qn_status encode_word(encoder *e, const char *ptr, size_t len)
{
    return len == 0 ? QN_OK : qn_bpe_encode(&e->bpe, e->t, (qn_str){ptr, len}, e->out, e->err);
}

/* Text without added tokens: matches of the split and what lies between them are words. */
static qn_status encode_text(encoder *e, qn_str text)
{
    qn_status status = QN_OK;
    for (size_t at = 0; at < text.len;) {
        size_t first = 0;
        size_t end = 0;
        QN_TRY(status, next_match(e, text, at, &first, &end), fail);
        if (end == first && first < text.len) {
            end = first + 1; /* an empty match must not stand still */
            while (end < text.len && ((uint8_t)text.ptr[end] & 0xc0U) == 0x80U) {
                end++;
            }
        }
        QN_TRY(status, encode_word(e, text.ptr + at, first - at), fail);
        QN_TRY(status, encode_word(e, text.ptr + first, end - first), fail);
        at = end;
    }
fail:
    return status;
}

/* Longest added token of the group that stands at the start of the text; -1: none. */
static int32_t added_at(const qn_tokenizer *t, qn_str text, bool is_late)
{
    if (!t->starts_added[(uint8_t)text.ptr[0]]) {
        return -1;
    }
    for (uint32_t i = 0; i < t->n_added; i++) { /* longest first */
        const int32_t id = t->added[i];
        const qn_str token = qn_tokenizer_bytes(t, id);
        if (t->tokens[id].is_late == is_late && token.len <= text.len &&
            qn_str_equal(token, (qn_str){text.ptr, token.len})) {
            return id;
        }
    }
    return -1;
}

static qn_status encode_added(encoder *e, qn_str text, bool is_late);

/* What lies between two added tokens of a group. */
static qn_status encode_between(encoder *e, const char *ptr, size_t len, bool is_late)
{
    const qn_str text = {ptr, len};
    return is_late ? encode_text(e, text) : encode_added(e, text, true);
}

/*
 * Cut the text at added tokens, leftmost and longest first, as Hugging Face's AddedVocabulary does:
 * those marked "normalized" only in what the others left over.
 */
static qn_status encode_added(encoder *e, qn_str text, bool is_late)
{
    qn_status status = QN_OK;
    size_t done = 0;
    for (size_t at = 0; at < text.len;) {
        const int32_t id = added_at(e->t, (qn_str){text.ptr + at, text.len - at}, is_late);
        if (id < 0) {
            at++;
            continue;
        }
        QN_TRY(status, encode_between(e, text.ptr + done, at - done, is_late), fail);
        QN_TRY(status, qn_ids_append(e->out, id, e->err), fail);
        at += qn_tokenizer_bytes(e->t, id).len;
        done = at;
    }
    QN_TRY(status, encode_between(e, text.ptr + done, text.len - done, is_late), fail);
fail:
    return status;
}

/* The text with broken characters replaced; owned by the caller. */
static qn_status make_valid(char **valid, size_t *len, qn_str text, qn_error *err)
{
    if (text.len > TEXT_BYTES_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "text: %zu bytes, expected at most %d",
                       text.len, TEXT_BYTES_MAX);
    }
    char *bytes = malloc(QN_UTF8_GROWTH * text.len + 12);
    if (bytes == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "text: no memory");
    }
    qn_utf8_stream stream = {0};
    *len = qn_utf8_stream_feed(&stream, text.ptr, text.len, bytes);
    *len += qn_utf8_stream_end(&stream, bytes + *len);
    *valid = bytes;
    return QN_OK;
}

qn_status qn_tokenizer_encode(const qn_tokenizer *tokenizer, qn_str text, qn_added_tokens added,
                              qn_ids *out, qn_error *err)
{
    qn_status status = QN_OK;
    encoder e = {.t = tokenizer, .out = out, .err = err};
    char *bytes = NULL;
    qn_str valid = {0};
    QN_TRY(status, make_valid(&bytes, &valid.len, text, err), fail);
    valid.ptr = bytes;
    e.match = pcre2_match_data_create(1, NULL); /* only the whole match is looked at */
    e.context = pcre2_match_context_create(NULL);
    if (e.match == NULL || e.context == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "tokenizer: no memory for a match");
        goto fail;
    }
    const uint64_t n_steps = MATCH_STEPS + MATCH_STEPS_PER_BYTE * (uint64_t)valid.len;
    (void)pcre2_set_match_limit(e.context, n_steps < UINT32_MAX ? (uint32_t)n_steps : UINT32_MAX);
    QN_TRY(status,
           added == QN_ADDED_MATCH ? encode_added(&e, valid, false) : encode_text(&e, valid), fail);
fail:
    qn_bpe_deinit(&e.bpe);
    pcre2_match_data_free(e.match);
    pcre2_match_context_free(e.context);
    free(bytes);
    return status;
}
