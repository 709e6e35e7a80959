/* SPDX-License-Identifier: Apache-2.0 */
#include "server/writer.h"

#include <stdio.h>

void writer_put_bytes(server_writer *w, qn_str bytes)
{
    if (w->status == QN_OK) {
        w->status = qn_buf_append(w->out, bytes.ptr, bytes.len, w->err);
    }
}

void writer_put(server_writer *w, const char *text)
{
    writer_put_bytes(w, qn_str_of(text));
}

/* Bytes from @p begin on that stand for themselves in a JSON string. */
static size_t plain_bytes(qn_str bytes, size_t begin)
{
    size_t i = begin;
    while (i < bytes.len) {
        const unsigned char c = (unsigned char)bytes.ptr[i];
        const size_t n = c < 0x80 ? (c >= 0x20 && c != '"' && c != '\\')
                                  : qn_utf8_len((const uint8_t *)bytes.ptr + i, bytes.len - i);
        if (n == 0) {
            break;
        }
        i += n;
    }
    return i - begin;
}

/* Not qn_json_quote_append(), as a model may write NUL, which is \u0000. */
void writer_put_string(server_writer *w, qn_str bytes)
{
    static const char letters[] = "\"\\\b\f\n\r\t";
    static const char names[] = "\"\\bfnrt";
    writer_put(w, "\"");
    for (size_t i = 0; i < bytes.len && w->status == QN_OK; i++) {
        const size_t n = plain_bytes(bytes, i);
        writer_put_bytes(w, (qn_str){.ptr = bytes.ptr + i, .len = n});
        i += n;
        if (i == bytes.len) {
            break;
        }
        char escape[8] = "\xef\xbf\xbd"; /* of what is no UTF-8 */
        const char c = bytes.ptr[i];
        const char *const letter = c != '\0' ? strchr(letters, c) : NULL;
        if (letter != NULL) {
            (void)snprintf(escape, sizeof escape, "\\%c", names[letter - letters]);
        } else if ((unsigned char)c < 0x20) {
            (void)snprintf(escape, sizeof escape, "\\u%04X", (unsigned)c);
        }
        writer_put(w, escape);
    }
    writer_put(w, "\"");
}

void writer_put_whole(server_writer *w, uint64_t number)
{
    char digits[24];
    (void)snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    writer_put(w, digits);
}

void writer_put_real(server_writer *w, double number)
{
    const size_t begin = w->out->len;
    if (w->status == QN_OK) {
        w->status = qn_buf_append_real(w->out, number, 9, w->err);
    }
    if (w->status < 0 || strpbrk(w->out->ptr + begin, ".e") == NULL) {
        writer_put(w, ".0");
        return;
    }
    char *const exponent = strchr(w->out->ptr + begin, 'e');
    if (exponent != NULL) { /* e-05 is e-5 */
        char *const at = exponent + 1 + (exponent[1] == '-');
        const size_t n = strspn(at, "+0");
        memmove(at, at + n, strlen(at + n) + 1);
        w->out->len -= n;
    }
}
