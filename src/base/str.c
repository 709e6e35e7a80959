/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

int qn_str_compare(qn_str a, qn_str b)
{
    const size_t len = a.len < b.len ? a.len : b.len;
    const int order = len == 0 ? 0 : memcmp(a.ptr, b.ptr, len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* Source: Unicode 15, table 3-7. */
size_t qn_utf8_len(const uint8_t *bytes, size_t n_bytes)
{
    const uint8_t first = n_bytes > 0 ? bytes[0] : 0xff;
    if (first < 0x80) {
        return 1;
    }
    const size_t len = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first < 0xc2 || first > 0xf4 || n_bytes < len) {
        return 0;
    }
    const uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (bytes[1] < low || bytes[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < len; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return len;
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
