/* SPDX-License-Identifier: Apache-2.0 */
/** @file str.h  A slice of bytes that someone else owns; never assumed to end in NUL. */
#ifndef QN_BASE_STR_H
#define QN_BASE_STR_H
#include "base/banned.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** Borrowed bytes.  All-zero is the empty slice. */
typedef struct qn_str {
    const char *ptr; /**< Borrowed; NULL only when len is 0. */
    size_t len;      /**< Bytes. */
} qn_str;

/** Slice over a NUL-terminated string. */
static inline qn_str qn_str_of(const char *text)
{
    return (qn_str){.ptr = text, .len = strlen(text)};
}

/** Same bytes? */
static inline bool qn_str_equal(qn_str a, qn_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/** Does it begin with these characters? */
static inline bool qn_str_begins(qn_str text, const char *prefix)
{
    const size_t len = strlen(prefix);
    return text.len >= len && (len == 0 || memcmp(text.ptr, prefix, len) == 0);
}

/** Does it end in them? */
static inline bool qn_str_ends(qn_str text, const char *suffix)
{
    const size_t len = strlen(suffix);
    return text.len >= len && (len == 0 || memcmp(text.ptr + text.len - len, suffix, len) == 0);
}

/** Does it hold them anywhere? */
static inline bool qn_str_contains(qn_str text, const char *part)
{
    return memmem(text.ptr, text.len, part, strlen(part)) != NULL;
}

/** Bytewise order, shorter first where one begins the other: negative, 0 or positive. */
int qn_str_compare(qn_str a, qn_str b);

/** FNV-1a, 64 bits: of short strings, not of what an enemy chose. */
static inline uint64_t qn_str_hash(qn_str text)
{
    uint64_t hash = 14695981039346656037ULL;
    for (size_t i = 0; i < text.len; i++) {
        hash = (hash ^ (uint8_t)text.ptr[i]) * 1099511628211ULL;
    }
    return hash;
}

/**
 * Bytes of a UTF-8 character by its first one; 0 where none begins so.
 * Source   The Unicode Standard 15, table 3-7, as the next function
 */
uint32_t qn_utf8_length_of(uint8_t first);

/** May @p next be byte @p i_byte (from 1) of a character?  Only byte 1 depends on the first. */
bool qn_utf8_accepts(uint8_t first, uint32_t i_byte, uint8_t next);

/** Bytes of the valid UTF-8 sequence that @p bytes begin with, of @p n_bytes; 0: there is none. */
size_t qn_utf8_len(const uint8_t *bytes, size_t n_bytes);

/** Is all of it valid UTF-8? */
bool qn_utf8_is_valid(qn_str text);

/**
 * Make @p text, in place, one printable line of valid UTF-8: a control character (C0, DEL, C1)
 * becomes one '?', so does every byte that is not part of a valid sequence.
 */
void qn_text_clean(char *text);

/** A size as messages say it: "1.5 GB", and in MB what is less than one. */
typedef struct qn_size_text {
    char text[24];
} qn_size_text;

/** Of that many bytes. */
qn_size_text qn_show_size(uint64_t n_bytes);
#endif
