/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/try.h"
#include "tokenizer/internal.h"

#include <errno.h>
#include <stdlib.h>

enum {
    FILE_BYTES_MAX = 256 << 20,
    IDS_MAX = 1 << 24,
    PATTERN_BYTES_MAX = 1 << 16,
};

/* What a load passes around. */
typedef struct loader {
    qn_tokenizer *t;
    const char *what; /* names the file in errors */
    qn_buf bytes;     /* becomes t->bytes */
    qn_error *err;
} loader;

static qn_status no_memory(const loader *l)
{
    return qn_fail(l->err, QN_E_NOMEM, ENOMEM, "qn_tokenizer_open", "%s: no memory", l->what);
}

/* "WHAT: FIELD: seen ..., expected ..." for a field that has one permitted form. */
static qn_status refuse(const loader *l, const char *field, const json_t *seen,
                        const char *expected)
{
    char text[64];
    qn_json_show(text, sizeof text, seen);
    return qn_fail(l->err, QN_E_FORMAT, 0, "qn_tokenizer_open", "%s: %s: %s, expected %s", l->what,
                   field, text, expected);
}

static bool is_null(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* ----------------------------------------------------------------------- the byte-level alphabet
 */

/* The character that stands for a byte in the vocabulary's strings (GPT-2's bytes_to_unicode):
 * printable ones stand for themselves, the others are numbered from 256 on. */
static void fill_alphabet(int16_t byte_of[512])
{
    int next = 256;
    for (int i = 0; i < 512; i++) {
        byte_of[i] = -1;
    }
    for (int byte = 0; byte < 256; byte++) {
        const bool is_printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        byte_of[is_printable ? byte : next++] = (int16_t)byte;
    }
}

/*
 * Bytes that a string of the vocabulary stands for.  A string with a character outside the alphabet
 * stands for its own UTF-8, as Hugging Face's ByteLevel decoder has it.  Returns the length.
 */
static size_t decode_token(char *out, const char *text, size_t len, const int16_t byte_of[512])
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        const uint8_t first = (uint8_t)text[i];
        uint32_t point = first;
        if (first >= 0xc0 && first < 0xe0 && i + 1 < len) { /* up to U+07FF covers the alphabet */
            point = ((first & 0x1fU) << 6) | ((uint8_t)text[++i] & 0x3fU);
        } else if (first >= 0x80) {
            point = 512;
        }
        if (point >= 512 || byte_of[point] < 0) {
            memcpy(out, text, len);
            return len;
        }
        out[n++] = (char)byte_of[point];
    }
    return n;
}

/* ---------------------------------------------------------------------------------- the tokens */

/* Room for ids below n; new entries are empty. */
static qn_status grow_tokens(const loader *l, uint32_t n)
{
    if (n <= l->t->n_tokens) {
        return QN_OK;
    }
    qn_token *tokens = realloc(l->t->tokens, n * sizeof *tokens);
    if (tokens == NULL) {
        return no_memory(l);
    }
    memset(tokens + l->t->n_tokens, 0, (n - l->t->n_tokens) * sizeof *tokens);
    l->t->tokens = tokens;
    l->t->n_tokens = n;
    return QN_OK;
}

static qn_status add_bytes(loader *l, uint32_t id, const char *ptr, size_t len)
{
    l->t->tokens[id].offset = (uint32_t)l->bytes.len;
    l->t->tokens[id].len = (uint32_t)len;
    return qn_buf_append(&l->bytes, ptr, len, l->err);
}

static qn_status load_vocab(loader *l, const json_t *vocab)
{
    int16_t byte_of[512];
    qn_status status = QN_OK;
    qn_buf scratch;
    const char *text;
    json_t *value;
    if (!json_is_object(vocab)) {
        return refuse(l, "model.vocab", vocab, "an object of token: id");
    }
    fill_alphabet(byte_of);
    qn_buf_init(&scratch, FILE_BYTES_MAX);
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value)
    {
        const json_int_t id = json_integer_value(value);
        const size_t len = strlen(text);
        if (!json_is_integer(value) || id < 0 || id >= IDS_MAX || len == 0) {
            status = refuse(l, "model.vocab", value, "ids in 0 .. 16777215 of tokens with text");
            goto fail;
        }
        QN_TRY(status, grow_tokens(l, (uint32_t)id + 1), fail);
        if (l->t->tokens[id].len != 0) {
            status = qn_fail(l->err, QN_E_FORMAT, 0, __func__,
                             "%s: model.vocab: id %lld twice, at \"%.64s\", expected each id once",
                             l->what, (long long)id, text);
            goto fail;
        }
        qn_buf_clear(&scratch);
        QN_TRY(status, qn_buf_reserve(&scratch, len, l->err), fail);
        const size_t n = decode_token(scratch.ptr, text, len, byte_of);
        if (n == 1) {
            l->t->byte_ids[(uint8_t)scratch.ptr[0]] = (int32_t)id;
        }
        QN_TRY(status, add_bytes(l, (uint32_t)id, scratch.ptr, n), fail);
    }
fail:
    qn_buf_deinit(&scratch);
    return status;
}

static qn_status check_bytes(const loader *l)
{
    for (int byte = 0; byte < 256; byte++) {
        if (l->t->byte_ids[byte] < 0) {
            return qn_fail(l->err, QN_E_FORMAT, 0, __func__,
                           "%s: model.vocab: no token for byte 0x%02x, expected one for each byte",
                           l->what, (unsigned)byte);
        }
    }
    return QN_OK;
}

/* The id of a part of a merge; -1 where the vocabulary lacks it. */
static int32_t vocab_id(const json_t *vocab, const char *text, size_t len)
{
    const json_t *id = json_object_getn(vocab, text, len);
    return id != NULL ? (int32_t)json_integer_value(id) : -1;
}

/* "a b" or ["a", "b"]. */
static bool split_merge(const json_t *value, qn_str parts[2])
{
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        const char *blank = strchr(text, ' ');
        if (blank == NULL) {
            return false;
        }
        parts[0] = (qn_str){text, (size_t)(blank - text)};
        parts[1] = qn_str_of(blank + 1);
        return true;
    }
    if (!json_is_array(value) || json_array_size(value) != 2) {
        return false;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *part = json_array_get(value, i);
        if (!json_is_string(part)) {
            return false;
        }
        parts[i] = qn_str_of(json_string_value(part));
    }
    return true;
}

static qn_status load_merge(const loader *l, size_t rank, const json_t *value, const json_t *vocab,
                            qn_buf *joined)
{
    qn_status status = QN_OK;
    char field[48];
    qn_str parts[2];
    (void)snprintf(field, sizeof field, "model.merges[%zu]", rank);
    if (!split_merge(value, parts)) {
        return refuse(l, field, value, "a pair of tokens");
    }
    qn_buf_clear(joined);
    QN_TRY(status, qn_buf_append(joined, parts[0].ptr, parts[0].len, l->err), fail);
    QN_TRY(status, qn_buf_append(joined, parts[1].ptr, parts[1].len, l->err), fail);
    const qn_merge merge = {.left = vocab_id(vocab, parts[0].ptr, parts[0].len),
                            .right = vocab_id(vocab, parts[1].ptr, parts[1].len),
                            .result = vocab_id(vocab, joined->ptr, joined->len)};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
        return refuse(l, field, value, "both tokens and their joint in model.vocab");
    }
    l->t->merges[rank] = merge;
fail:
    return status;
}

static qn_status load_merges(const loader *l, const json_t *merges, const json_t *vocab)
{
    qn_status status = QN_OK;
    qn_buf joined;
    if (!json_is_array(merges) || json_array_size(merges) >= IDS_MAX) {
        return refuse(l, "model.merges", merges, "a list of pairs");
    }
    l->t->n_merges = (uint32_t)json_array_size(merges);
    l->t->merges = malloc((l->t->n_merges + (size_t)1) * sizeof *l->t->merges);
    if (l->t->merges == NULL) {
        return no_memory(l);
    }
    qn_buf_init(&joined, FILE_BYTES_MAX);
    for (uint32_t i = 0; i < l->t->n_merges; i++) {
        QN_TRY(status, load_merge(l, i, json_array_get(merges, i), vocab, &joined), fail);
    }
    QN_TRY(status, qn_tokenizer_index_merges(l->t, l->err), fail);
fail:
    qn_buf_deinit(&joined);
    return status;
}

static qn_status load_model(loader *l, const json_t *model)
{
    static const char *const unset[] = {"dropout", "unk_token", "continuing_subword_prefix",
                                        "end_of_word_suffix"};
    qn_status status = QN_OK;
    if (!is_text(json_object_get(model, "type"), "BPE")) {
        return refuse(l, "model.type", json_object_get(model, "type"), "\"BPE\"");
    }
    for (size_t i = 0; i < sizeof unset / sizeof *unset; i++) {
        const json_t *value = json_object_get(model, unset[i]);
        if (!is_null(value) && !is_text(value, "")) {
            char field[48];
            (void)snprintf(field, sizeof field, "model.%s", unset[i]);
            return refuse(l, field, value, "null");
        }
    }
    if (json_is_true(json_object_get(model, "byte_fallback"))) {
        return refuse(l, "model.byte_fallback", json_true(), "false");
    }
    l->t->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    const json_t *vocab = json_object_get(model, "vocab");
    QN_TRY(status, load_vocab(l, vocab), fail);
    QN_TRY(status, check_bytes(l), fail);
    QN_TRY(status, load_merges(l, json_object_get(model, "merges"), vocab), fail);
fail:
    return status;
}

/* -------------------------------------------------------------------------------- added tokens */

static qn_status load_added_token(loader *l, size_t i, const json_t *item)
{
    static const char *const off[] = {"single_word", "lstrip", "rstrip"};
    char field[64];
    qn_status status = QN_OK;
    const json_t *content = json_object_get(item, "content");
    const json_t *id_value = json_object_get(item, "id");
    const json_int_t id = json_integer_value(id_value);
    (void)snprintf(field, sizeof field, "added_tokens[%zu]", i);
    if (!json_is_string(content) || json_string_length(content) == 0 ||
        !json_is_integer(id_value) || id < 0 || id >= IDS_MAX) {
        return refuse(l, field, item, "an id in 0 .. 16777215 and a text as content");
    }
    for (size_t k = 0; k < sizeof off / sizeof *off; k++) {
        if (json_is_true(json_object_get(item, off[k]))) {
            (void)snprintf(field, sizeof field, "added_tokens[%zu].%s", i, off[k]);
            return refuse(l, field, json_true(), "false");
        }
    }
    QN_TRY(status, grow_tokens(l, (uint32_t)id + 1), fail);
    qn_token *token = &l->t->tokens[id];
    const qn_str text = {json_string_value(content), json_string_length(content)};
    const qn_str there = {token->len > 0 ? l->bytes.ptr + token->offset : NULL, token->len};
    if (token->is_added || (token->len > 0 && !qn_str_equal(there, text))) {
        return qn_fail(l->err, QN_E_FORMAT, 0, __func__,
                       "%s: %s: id %lld of \"%.64s\" is another token's, expected an id of its own",
                       l->what, field, (long long)id, text.ptr);
    }
    if (token->len == 0) {
        QN_TRY(status, add_bytes(l, (uint32_t)id, text.ptr, text.len), fail);
    }
    token->is_added = true;
    token->is_special = json_is_true(json_object_get(item, "special"));
    token->is_late = json_is_true(json_object_get(item, "normalized"));
    l->t->starts_added[(uint8_t)text.ptr[0]] = true;
    l->t->added[l->t->n_added++] = (int32_t)id;
fail:
    return status;
}

static qn_status load_added(loader *l, const json_t *list)
{
    qn_status status = QN_OK;
    if (!is_null(list) && !json_is_array(list)) {
        return refuse(l, "added_tokens", list, "a list");
    }
    const size_t n = json_array_size(list);
    l->t->added = malloc((n + 1) * sizeof *l->t->added);
    if (l->t->added == NULL) {
        return no_memory(l);
    }
    for (size_t i = 0; i < n; i++) {
        QN_TRY(status, load_added_token(l, i, json_array_get(list, i)), fail);
    }
    /* Longest first; few enough that insertion does. */
    for (uint32_t i = 1; i < l->t->n_added; i++) {
        const int32_t moving = l->t->added[i];
        uint32_t at = i;
        for (; at > 0 && l->t->tokens[l->t->added[at - 1]].len < l->t->tokens[moving].len; at--) {
            l->t->added[at] = l->t->added[at - 1];
        }
        l->t->added[at] = moving;
    }
fail:
    return status;
}

/* --------------------------------------------------------------------------------- the pattern */

/*
 * \s and \S spelled out as Unicode's White_Space: PCRE2's class also holds U+180E, which left that
 * property with Unicode 6.3 and is none to the engine of Hugging Face's tokenizers.
 */
static qn_status spell_out_spaces(qn_buf *out, const char *pattern, qn_error *err)
{
    static const char spaces[] = "\\x{09}-\\x{0d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"
                                 "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
    qn_status status = QN_OK;
    bool in_class = false;
    for (const char *at = pattern; *at != '\0'; at++) {
        if (*at == '\\' && at[1] == 's') {
            QN_TRY(status, qn_buf_append_printf(out, err, in_class ? "%s" : "[%s]", spaces), fail);
            at++;
        } else if (*at == '\\' && at[1] == 'S' && !in_class) {
            QN_TRY(status, qn_buf_append_printf(out, err, "[^%s]", spaces), fail);
            at++;
        } else if (*at == '\\' && at[1] != '\0') {
            QN_TRY(status, qn_buf_append(out, at, 2, err), fail);
            at++;
        } else {
            in_class = *at == '[' || (in_class && *at != ']');
            QN_TRY(status, qn_buf_append(out, at, 1, err), fail);
        }
    }
fail:
    return status;
}

static qn_status compile_pattern(const loader *l, const char *pattern)
{
    qn_status status = QN_OK;
    int code = 0;
    PCRE2_SIZE at = 0;
    qn_buf spelled;
    qn_buf_init(&spelled, PATTERN_BYTES_MAX);
    QN_TRY(status, spell_out_spaces(&spelled, pattern, l->err), fail);
    l->t->split = pcre2_compile((PCRE2_SPTR)(spelled.ptr != NULL ? spelled.ptr : ""), spelled.len,
                                PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (l->t->split == NULL) {
        char why[128] = "";
        (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        const bool no_mem = code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED;
        status = qn_fail(l->err, no_mem ? QN_E_NOMEM : QN_E_FORMAT, code, __func__,
                         "%s: pre_tokenizer: %s in the pattern \"%.200s\", expected a regular "
                         "expression",
                         l->what, why, pattern);
        goto fail;
    }
    (void)pcre2_jit_compile(l->t->split, PCRE2_JIT_COMPLETE); /* without it matching is slower */
fail:
    qn_buf_deinit(&spelled);
    return status;
}

/* Sequence[Split(Regex, Isolated), ByteLevel]: the form that GLM's tokenizers have. */
static qn_status load_split(const loader *l, const json_t *pre)
{
    const json_t *list = json_object_get(pre, "pretokenizers");
    const json_t *split = json_array_get(list, 0);
    const json_t *level = json_array_get(list, 1);
    const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
    if (!is_text(json_object_get(pre, "type"), "Sequence") || json_array_size(list) != 2 ||
        !is_text(json_object_get(split, "type"), "Split") ||
        !is_text(json_object_get(level, "type"), "ByteLevel")) {
        return refuse(l, "pre_tokenizer", pre, "a Sequence of Split and ByteLevel");
    }
    if (!json_is_string(regex) || json_string_length(regex) >= PATTERN_BYTES_MAX / 256) {
        return refuse(l, "pre_tokenizer.Split.pattern", regex, "a short Regex");
    }
    if (!is_text(json_object_get(split, "behavior"), "Isolated") ||
        json_is_true(json_object_get(split, "invert"))) {
        return refuse(l, "pre_tokenizer.Split", split, "behavior Isolated, invert false");
    }
    if (json_is_true(json_object_get(level, "add_prefix_space")) ||
        !json_is_false(json_object_get(level, "use_regex"))) {
        return refuse(l, "pre_tokenizer.ByteLevel", level,
                      "add_prefix_space false, use_regex false");
    }
    return compile_pattern(l, json_string_value(regex));
}

static qn_status check_pipeline(const loader *l, const json_t *root)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    const json_t *post = json_object_get(root, "post_processor");
    const json_t *decoder = json_object_get(root, "decoder");
    if (!is_null(normalizer)) {
        return refuse(l, "normalizer", normalizer, "null");
    }
    /* ByteLevel's post-processing only trims offsets, which nobody asks for here. */
    if (!is_null(post) && !is_text(json_object_get(post, "type"), "ByteLevel")) {
        return refuse(l, "post_processor", post, "null or ByteLevel");
    }
    if (!is_null(decoder) && !is_text(json_object_get(decoder, "type"), "ByteLevel")) {
        return refuse(l, "decoder", decoder, "ByteLevel");
    }
    return QN_OK;
}

static qn_status load_all(loader *l, const json_t *root)
{
    qn_status status = QN_OK;
    if (!json_is_object(root)) {
        return refuse(l, "file", root, "an object");
    }
    QN_TRY(status, check_pipeline(l, root), fail);
    QN_TRY(status, load_model(l, json_object_get(root, "model")), fail);
    QN_TRY(status, load_added(l, json_object_get(root, "added_tokens")), fail);
    QN_TRY(status, load_split(l, json_object_get(root, "pre_tokenizer")), fail);
    if (l->t->ignore_merges) {
        l->t->bytes = l->bytes.ptr; /* words are looked up by their bytes */
        QN_TRY(status, qn_tokenizer_index_words(l->t, l->err), fail);
    }
fail:
    return status;
}

qn_status qn_tokenizer_open(qn_tokenizer **out, qn_str json, const char *what, qn_error *err)
{
    qn_status status = QN_OK;
    json_t *root = NULL;
    loader l = {.what = what, .err = err};
    *out = NULL;
    qn_buf_init(&l.bytes, UINT32_MAX);
    l.t = calloc(1, sizeof *l.t);
    if (l.t == NULL) {
        return no_memory(&l);
    }
    memset(l.t->byte_ids, -1, sizeof l.t->byte_ids);
    QN_TRY(status, qn_json_parse(&root, json, what, err), fail);
    QN_TRY(status, load_all(&l, root), fail);
    l.t->bytes = l.bytes.ptr; /* taken */
    l.t->n_bytes = l.bytes.len;
    json_decref(root);
    *out = l.t;
    return QN_OK;

fail:
    l.t->bytes = NULL;
    qn_buf_deinit(&l.bytes);
    json_decref(root);
    qn_tokenizer_close(&l.t);
    return status;
}

qn_status qn_tokenizer_open_file(qn_tokenizer **out, const char *path, qn_error *err)
{
    qn_status status = QN_OK;
    qn_buf bytes;
    *out = NULL;
    qn_buf_init(&bytes, FILE_BYTES_MAX);
    QN_TRY(status, qn_file_read(&bytes, path, err), fail);
    QN_TRY(status, qn_tokenizer_open(out, qn_buf_view(&bytes), path, err), fail);
fail:
    qn_buf_deinit(&bytes);
    return status;
}
