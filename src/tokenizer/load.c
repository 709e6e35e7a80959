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
    ADDED_MAX = 4096, /* they are looked for one by one */
};

/* What a load passes around. */
typedef struct loader {
    qn_tokenizer *t;
    const char *what; /* names the file in errors */
    qn_buf bytes;     /* becomes t->bytes */
    uint32_t ids_max; /* t->tokens has room for ids below */
    qn_error *err;
} loader;

static qn_status no_memory(const loader *l)
{
    return qn_fail(l->err, QN_E_NOMEM, ENOMEM, "qn_tokenizer_open", "%s: no memory", l->what);
}

/* "WHAT: FIELD: seen, expected ..." for a field with few permitted forms; a part shows its type. */
static qn_status refuse(const loader *l, const char *field, const json_t *seen,
                        const char *expected)
{
    char text[64];
    const json_t *type = json_object_get(seen, "type");
    qn_json_show(text, sizeof text, type != NULL ? type : seen);
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

/* True or false; a flag that is missing or null is false. */
static qn_status read_flag(bool *out, const loader *l, const json_t *object, const char *part,
                           const char *key)
{
    const json_t *value = json_object_get(object, key);
    char field[96];
    if (!is_null(value) && !json_is_boolean(value)) {
        (void)snprintf(field, sizeof field, "%s.%s", part, key);
        return refuse(l, field, value, "true or false");
    }
    *out = json_is_true(value);
    return QN_OK;
}

/* A flag that this version knows only as false. */
static qn_status expect_off(const loader *l, const json_t *object, const char *part,
                            const char *key)
{
    bool is_on = false;
    char field[96];
    const qn_status status = read_flag(&is_on, l, object, part, key);
    if (status != QN_OK || !is_on) {
        return status;
    }
    (void)snprintf(field, sizeof field, "%s.%s", part, key);
    return refuse(l, field, json_object_get(object, key), "false");
}

/* ---------------------------------------------------------------------- the byte-level alphabet */

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
 * Bytes that a string of the vocabulary stands for.  False where a character is outside the
 * alphabet: then the string stands for its own UTF-8, as Hugging Face's ByteLevel decoder has it.
 */
static bool decode_token(char *out, size_t *n_out, const char *text, size_t len,
                         const int16_t byte_of[512])
{
    *n_out = 0;
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
            *n_out = len;
            return false;
        }
        out[(*n_out)++] = (char)byte_of[point];
    }
    return true;
}

/* ---------------------------------------------------------------------------------- the tokens */

/* Room for every id the file may use: half of them may be holes. */
static qn_status reserve_tokens(loader *l, const json_t *vocab, const json_t *added)
{
    const size_t n = json_object_size(vocab) + json_array_size(added);
    l->ids_max = 2 * n < IDS_MAX ? (uint32_t)(2 * n) : IDS_MAX;
    l->t->tokens = calloc(l->ids_max + (size_t)1, sizeof *l->t->tokens);
    return l->t->tokens != NULL ? QN_OK : no_memory(l);
}

/* Is it an id there is room for?  Then it counts as used. */
static bool take_id(const loader *l, const json_t *value)
{
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= l->ids_max) {
        return false;
    }
    if (l->t->n_tokens <= id) {
        l->t->n_tokens = (uint32_t)id + 1;
    }
    return true;
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
        size_t n = 0;
        if (len == 0 || !take_id(l, value)) {
            char seen[64];
            qn_json_show(seen, sizeof seen, value);
            status =
                qn_fail(l->err, QN_E_FORMAT, 0, __func__,
                        "%s: model.vocab[\"%.64s\"]: %s, expected tokens with text and with ids "
                        "below twice their number",
                        l->what, text, seen);
            goto fail;
        }
        if (l->t->tokens[id].len != 0) {
            status = qn_fail(l->err, QN_E_FORMAT, 0, __func__,
                             "%s: model.vocab: id %lld twice, at \"%.64s\", expected each id once",
                             l->what, (long long)id, text);
            goto fail;
        }
        qn_buf_clear(&scratch);
        QN_TRY(status, qn_buf_reserve(&scratch, len, l->err), fail);
        l->t->tokens[id].is_raw = !decode_token(scratch.ptr, &n, text, len, byte_of);
        if (n == 1 && !l->t->tokens[id].is_raw) {
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
        return qn_fail(
            l->err, QN_E_FORMAT, 0, "qn_tokenizer_open",
            "%s: %s: \"%.*s\" and \"%.*s\", expected both and their joint in model.vocab", l->what,
            field, (int)(parts[0].len < 64 ? parts[0].len : 64), parts[0].ptr,
            (int)(parts[1].len < 64 ? parts[1].len : 64), parts[1].ptr);
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

/*
 * Do the merges belong to this vocabulary, and stand in an order that can have been learnt?  A few
 * may be odd: converted vocabularies list every way to split a token.  Most of them odd is a
 * damaged file, which would encode without complaint and make the model answer nonsense.
 */
static qn_status check_merges(const loader *l)
{
    const qn_tokenizer *t = l->t;
    bool *const is_made = calloc(t->n_tokens + (size_t)1, sizeof *is_made);
    uint32_t n_early = 0; /* merges of what no earlier one makes */
    uint32_t n_words = 0; /* tokens of several bytes ... */
    uint32_t n_lost = 0;  /* ... that no merge makes */
    if (is_made == NULL) {
        return no_memory(l);
    }
    for (int byte = 0; byte < 256; byte++) {
        is_made[t->byte_ids[byte]] = true;
    }
    for (uint32_t i = 0; i < t->n_merges; i++) {
        const qn_merge *merge = &t->merges[i];
        n_early += is_made[merge->left] && is_made[merge->right] ? 0 : 1;
        is_made[merge->result] = true;
    }
    for (uint32_t id = 0; id < t->n_tokens; id++) {
        const bool is_word = t->tokens[id].len > 1 && !t->tokens[id].is_raw;
        n_words += is_word ? 1 : 0;
        n_lost += is_word && !is_made[id] ? 1 : 0;
    }
    free(is_made);
    if (n_early > t->n_merges / 2) {
        return qn_fail(
            l->err, QN_E_FORMAT, 0, "qn_tokenizer_open",
            "%s: model.merges: %u of %u join what no earlier one makes, expected them in the "
            "order they were learnt",
            l->what, n_early, t->n_merges);
    }
    if (!t->ignore_merges && n_lost > n_words / 2) {
        return qn_fail(
            l->err, QN_E_FORMAT, 0, "qn_tokenizer_open",
            "%s: model.merges: none makes %u of the %u tokens of several bytes, expected one "
            "for each",
            l->what, n_lost, n_words);
    }
    return QN_OK;
}

static qn_status load_model(loader *l, const json_t *model, const json_t *vocab)
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
    QN_TRY(status, expect_off(l, model, "model", "byte_fallback"), fail);
    QN_TRY(status, read_flag(&l->t->ignore_merges, l, model, "model", "ignore_merges"), fail);
    QN_TRY(status, load_vocab(l, vocab), fail);
    QN_TRY(status, check_bytes(l), fail);
    QN_TRY(status, load_merges(l, json_object_get(model, "merges"), vocab), fail);
    QN_TRY(status, check_merges(l), fail);
fail:
    return status;
}

/* -------------------------------------------------------------------------------- added tokens */

/* An added token has an id of its own, or that which the vocabulary gives the same text. */
static qn_status check_added_id(const loader *l, const char *part, qn_str text, int32_t id,
                                const json_t *vocab)
{
    const int32_t there = vocab_id(vocab, text.ptr, text.len);
    const qn_token *token = &l->t->tokens[id];
    if (token->is_added || (there >= 0 ? there != id : token->len > 0)) {
        return qn_fail(l->err, QN_E_FORMAT, 0, "qn_tokenizer_open",
                       "%s: %s: id %d of \"%.64s\" is another token's, expected one of its own or "
                       "of the same text in model.vocab",
                       l->what, part, (int)id, text.ptr);
    }
    return QN_OK;
}

static qn_status load_added_token(loader *l, size_t i, const json_t *item, const json_t *vocab)
{
    static const char *const off[] = {"single_word", "lstrip", "rstrip"};
    char part[32];
    qn_status status = QN_OK;
    const json_t *content = json_object_get(item, "content");
    const json_t *id_value = json_object_get(item, "id");
    const qn_str text = {json_string_value(content), json_string_length(content)};
    (void)snprintf(part, sizeof part, "added_tokens[%zu]", i);
    if (text.len == 0 || !take_id(l, id_value)) {
        char seen[64];
        qn_json_show(seen, sizeof seen, id_value);
        return qn_fail(
            l->err, QN_E_FORMAT, 0, __func__,
            "%s: %s: id %s, content \"%.64s\", expected a text and an id below twice the "
            "number of tokens",
            l->what, part, seen, text.len > 0 ? text.ptr : "");
    }
    const int32_t id = (int32_t)json_integer_value(id_value);
    qn_token *token = &l->t->tokens[id];
    for (size_t k = 0; k < sizeof off / sizeof *off; k++) {
        QN_TRY(status, expect_off(l, item, part, off[k]), fail);
    }
    QN_TRY(status, check_added_id(l, part, text, id, vocab), fail);
    QN_TRY(status, add_bytes(l, (uint32_t)id, text.ptr, text.len), fail);
    QN_TRY(status, read_flag(&token->is_special, l, item, part, "special"), fail);
    QN_TRY(status, read_flag(&token->is_late, l, item, part, "normalized"), fail);
    token->is_added = true;
    l->t->starts_added[(uint8_t)text.ptr[0]] = true;
    l->t->added[l->t->n_added++] = id;
fail:
    return status;
}

static qn_status load_added(loader *l, const json_t *list, const json_t *vocab)
{
    qn_status status = QN_OK;
    const size_t n = json_array_size(list);
    if (!is_null(list) && !json_is_array(list)) {
        return refuse(l, "added_tokens", list, "a list");
    }
    if (n > ADDED_MAX) {
        return qn_fail(l->err, QN_E_FORMAT, 0, "qn_tokenizer_open",
                       "%s: added_tokens: %zu, expected at most %d", l->what, n, ADDED_MAX);
    }
    l->t->added = malloc((n + 1) * sizeof *l->t->added);
    if (l->t->added == NULL) {
        return no_memory(l);
    }
    for (size_t i = 0; i < n; i++) {
        QN_TRY(status, load_added_token(l, i, json_array_get(list, i), vocab), fail);
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

/* -------------------------------------------------------------------------------- the pipeline */

/* Sequence[Split(Regex, Isolated), ByteLevel]: the form that GLM's tokenizers have. */
static qn_status load_split(const loader *l, const json_t *pre)
{
    qn_status status = QN_OK;
    const json_t *list = json_object_get(pre, "pretokenizers");
    const json_t *split = json_array_get(list, 0);
    const json_t *level = json_array_get(list, 1);
    const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
    if (!is_text(json_object_get(pre, "type"), "Sequence") || json_array_size(list) != 2 ||
        !is_text(json_object_get(split, "type"), "Split") ||
        !is_text(json_object_get(level, "type"), "ByteLevel")) {
        return refuse(l, "pre_tokenizer", pre, "a Sequence of Split and ByteLevel");
    }
    if (!json_is_string(regex)) {
        return refuse(l, "pre_tokenizer.Split.pattern", regex, "a Regex");
    }
    if (!is_text(json_object_get(split, "behavior"), "Isolated")) {
        return refuse(l, "pre_tokenizer.Split.behavior", json_object_get(split, "behavior"),
                      "\"Isolated\"");
    }
    if (!json_is_false(json_object_get(level, "use_regex"))) { /* a second split, on by default */
        return refuse(l, "pre_tokenizer.ByteLevel.use_regex", json_object_get(level, "use_regex"),
                      "false");
    }
    QN_TRY(status, expect_off(l, split, "pre_tokenizer.Split", "invert"), fail);
    QN_TRY(status, expect_off(l, level, "pre_tokenizer.ByteLevel", "add_prefix_space"), fail);
    QN_TRY(status,
           qn_tokenizer_compile_pattern(
               &l->t->split, (qn_str){json_string_value(regex), json_string_length(regex)}, l->what,
               l->err),
           fail);
fail:
    return status;
}

/*
 * What is left alone: post_processor only adds special tokens around a text, which prompts bring
 * themselves, and trims offsets; truncation and padding are settings of the last one who saved the
 * file.  Hugging Face's encode(add_special_tokens=False) in transformers ignores the same.
 */
static qn_status check_pipeline(const loader *l, const json_t *root)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    const json_t *decoder = json_object_get(root, "decoder");
    if (!is_null(normalizer)) {
        return refuse(l, "normalizer", normalizer, "null");
    }
    if (!is_null(decoder) && !is_text(json_object_get(decoder, "type"), "ByteLevel")) {
        return refuse(l, "decoder", decoder, "ByteLevel");
    }
    return QN_OK;
}

static qn_status load_all(loader *l, const json_t *root)
{
    qn_status status = QN_OK;
    const json_t *model = json_object_get(root, "model");
    const json_t *added = json_object_get(root, "added_tokens");
    const json_t *vocab = json_object_get(model, "vocab");
    if (!json_is_object(root)) {
        return refuse(l, "file", root, "an object");
    }
    QN_TRY(status, check_pipeline(l, root), fail);
    QN_TRY(status, reserve_tokens(l, vocab, added), fail);
    QN_TRY(status, load_model(l, model, vocab), fail);
    QN_TRY(status, load_added(l, added, vocab), fail);
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
