/* SPDX-License-Identifier: Apache-2.0 */
/** @file tokenizer.h  Byte-level BPE from tokenizer.json: text to ids and back. */
#ifndef QN_TOKENIZER_H
#define QN_TOKENIZER_H
#include "quern/status.h"

#include "base/str.h"

#include <stdint.h>

/** Opaque, immutable after open: any number of threads may use it. */
typedef struct qn_tokenizer qn_tokenizer;

/** Load from bytes of a tokenizer.json (borrowed during the call); @p what names it in errors. */
QN_MUST_CHECK qn_status qn_tokenizer_open(qn_tokenizer **out, qn_str json, const char *what,
                                          qn_error *err);
/** Load from a file. */
QN_MUST_CHECK qn_status qn_tokenizer_open_file(qn_tokenizer **out, const char *path, qn_error *err);
/** Release; sets *tokenizer to NULL; accepts NULL. */
void qn_tokenizer_close(qn_tokenizer **tokenizer);

/** How added tokens in the text are treated. */
typedef enum qn_added_tokens {
    QN_ADDED_MATCH,   /**< Text of an added token becomes its id (as Hugging Face does). */
    QN_ADDED_AS_TEXT, /**< It stays text: what users write never becomes a control token. */
} qn_added_tokens;

/** Growing list of ids. */
typedef struct qn_ids {
    int32_t *ids; /**< Owned; free with qn_ids_deinit(). */
    size_t n_ids;
    size_t capacity;
} qn_ids;
/** Append one.  Returns  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status qn_ids_append(qn_ids *list, int32_t id, qn_error *err);
/** Free the ids; the list is empty afterwards. */
void qn_ids_deinit(qn_ids *list);

/**
 * Append the ids of @p text to @p out.  Bytes that are not UTF-8 are replaced by U+FFFD as Python's
 * bytes.decode("utf-8", "replace") does.  Time is linear in the text (n log n at worst in one
 * word).
 * Returns  QN_OK; QN_E_INVAL above 1 GiB of text; QN_E_FORMAT where the split pattern of
 *          tokenizer.json backtracks without end; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_tokenizer_encode(const qn_tokenizer *tokenizer, qn_str text,
                                            qn_added_tokens added, qn_ids *out, qn_error *err);

/** Ids the vocabulary and added tokens span: every id is below.  May be below config's n_vocab. */
uint32_t qn_tokenizer_size(const qn_tokenizer *tokenizer);
/** Bytes of one token (borrowed until close); empty for an id without a token. */
qn_str qn_tokenizer_bytes(const qn_tokenizer *tokenizer, int32_t id);
/** Is it an added token, and one marked "special" (dropped by skip_special_tokens)? */
bool qn_tokenizer_is_added(const qn_tokenizer *tokenizer, int32_t id);
bool qn_tokenizer_is_special(const qn_tokenizer *tokenizer, int32_t id);
/** Id of an added token by its exact text; -1 where there is none. */
int32_t qn_tokenizer_added_id(const qn_tokenizer *tokenizer, qn_str text);

/** Streaming decoder: holds back at most 3 bytes of an unfinished character.  All-zero is ready. */
typedef struct qn_utf8_stream {
    uint8_t held[4];
    uint32_t n_held;
} qn_utf8_stream;
enum { QN_UTF8_GROWTH = 3 }; /**< Output is at most 3 bytes per input byte plus 12. */
/**
 * Feed bytes; writes whole characters only, broken ones as U+FFFD (one per maximal subpart, as
 * Python and the WHATWG decoder do).  @p out has room for QN_UTF8_GROWTH * n + 12 bytes.
 * Returns  number of bytes written
 */
size_t qn_utf8_stream_feed(qn_utf8_stream *stream, const char *bytes, size_t n, char *out);
/** End of input: a held-back part becomes U+FFFD.  @p out has room for 12 bytes. */
size_t qn_utf8_stream_end(qn_utf8_stream *stream, char *out);
#endif
