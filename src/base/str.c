/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <stdio.h>

int qn_str_compare(qn_str a, qn_str b)
{
    const size_t len = a.len < b.len ? a.len : b.len;
    const int order = len == 0 ? 0 : memcmp(a.ptr, b.ptr, len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

uint32_t qn_utf8_length_of(uint8_t first)
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

bool qn_utf8_accepts(uint8_t first, uint32_t i_byte, uint8_t next)
{
    if (i_byte > 1) {
        return next >= 0x80 && next <= 0xbf;
    }
    switch (first) {
    case 0xe0: return next >= 0xa0 && next <= 0xbf;
    case 0xed: return next >= 0x80 && next <= 0x9f;
    case 0xf0: return next >= 0x90 && next <= 0xbf;
    case 0xf4: return next >= 0x80 && next <= 0x8f;
    default: return next >= 0x80 && next <= 0xbf;
    }
}

size_t qn_utf8_len(const uint8_t *bytes, size_t n_bytes)
{
    const uint32_t len = n_bytes > 0 ? qn_utf8_length_of(bytes[0]) : 0;
    if (n_bytes < len) {
        return 0;
    }
    for (uint32_t i = 1; i < len; i++) {
        if (!qn_utf8_accepts(bytes[0], i, bytes[i])) {
            return 0;
        }
    }
    return len;
}

bool qn_utf8_is_valid(qn_str text)
{
    for (size_t at = 0; at < text.len;) {
        const size_t len = qn_utf8_len((const uint8_t *)text.ptr + at, text.len - at);
        if (len == 0) {
            return false;
        }
        at += len;
    }
    return true;
}

void qn_text_clean(char *text)
{
    uint8_t *from = (uint8_t *)text;
    uint8_t *to = from;
    const uint8_t *const end = from + strlen(text);
    while (from < end) {
        const size_t len = qn_utf8_len(from, (size_t)(end - from));
        const bool is_c1 = len == 2 && from[0] == 0xc2 && from[1] < 0xa0;
        if (len == 0 || *from < 0x20 || *from == 0x7f || is_c1) {
            *to++ = '?';
            from += len == 0 ? 1 : len;
            continue;
        }
        memmove(to, from, len);
        to += len;
        from += len;
    }
    *to = 0;
}

qn_size_text qn_show_size(uint64_t n_bytes)
{
    const bool is_large = n_bytes >= 1000000000;
    qn_size_text out;
    (void)snprintf(out.text, sizeof out.text, "%.1f %s", (double)n_bytes * (is_large ? 1e-9 : 1e-6),
                   is_large ? "GB" : "MB");
    return out;
}
