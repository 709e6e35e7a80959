/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/tokenizer.h"

static const char replacement[3] = {'\xef', '\xbf', '\xbd'}; /* U+FFFD */

size_t qn_utf8_stream_feed(qn_utf8_stream *stream, const char *bytes, size_t n, char *out)
{
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t byte = (uint8_t)bytes[i];
        if (stream->n_held > 0 && !qn_utf8_accepts(stream->held[0], stream->n_held, byte)) {
            memcpy(out + n_out, replacement, sizeof replacement);
            n_out += sizeof replacement;
            stream->n_held = 0; /* and the byte is looked at afresh */
        }
        if (stream->n_held == 0 && qn_utf8_length_of(byte) == 0) {
            memcpy(out + n_out, replacement, sizeof replacement);
            n_out += sizeof replacement;
            continue;
        }
        stream->held[stream->n_held++] = byte;
        if (stream->n_held == qn_utf8_length_of(stream->held[0])) {
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
