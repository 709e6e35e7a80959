/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/tokenizer.h"

static const char replacement[3] = {'\xef', '\xbf', '\xbd'}; /* U+FFFD */

/*
 * How many bytes of a character that starts with held[0] are good so far, and whether more are
 * needed.  Table 3-7 of the Unicode standard: only the second byte's range depends on the first.
 */
static bool accepts(const uint8_t *held, uint32_t n_held, uint8_t next)
{
    if (n_held > 1) {
        return next >= 0x80 && next <= 0xbf;
    }
    switch (held[0]) {
    case 0xe0: return next >= 0xa0 && next <= 0xbf;
    case 0xed: return next >= 0x80 && next <= 0x9f;
    case 0xf0: return next >= 0x90 && next <= 0xbf;
    case 0xf4: return next >= 0x80 && next <= 0x8f;
    default: return next >= 0x80 && next <= 0xbf;
    }
}

/* Length of a character by its first byte; 0 where none begins so. */
static uint32_t length_of(uint8_t first)
{
    if (first < 0x80) {
        return 1;
    }
    if (first >= 0xc2 && first <= 0xdf) {
        return 2;
    }
    if (first >= 0xe0 && first <= 0xef) {
        return 3;
    }
    return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

size_t qn_utf8_stream_feed(qn_utf8_stream *stream, const char *bytes, size_t n, char *out)
{
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t byte = (uint8_t)bytes[i];
        if (stream->n_held > 0 && !accepts(stream->held, stream->n_held, byte)) {
            memcpy(out + n_out, replacement, sizeof replacement);
            n_out += sizeof replacement;
            stream->n_held = 0; /* and the byte is looked at afresh */
        }
        if (stream->n_held == 0 && length_of(byte) == 0) {
            memcpy(out + n_out, replacement, sizeof replacement);
            n_out += sizeof replacement;
            continue;
        }
        stream->held[stream->n_held++] = byte;
        if (stream->n_held == length_of(stream->held[0])) {
            memcpy(out + n_out, stream->held, stream->n_held);
            n_out += stream->n_held;
            stream->n_held = 0;
        }
    }
    return n_out;
}

size_t qn_utf8_stream_end(qn_utf8_stream *stream, char *out)
{
    if (stream->n_held == 0) {
        return 0;
    }
    stream->n_held = 0;
    memcpy(out, replacement, sizeof replacement);
    return sizeof replacement;
}
