/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>

void qn_buf_init(qn_buf *buf, size_t bytes_max)
{
    *buf = (qn_buf){.bytes_max = bytes_max};
}

void qn_buf_deinit(qn_buf *buf)
{
    free(buf->ptr);
    qn_buf_init(buf, buf->bytes_max);
}

void qn_buf_clear(qn_buf *buf)
{
    buf->len = 0;
    if (buf->ptr != NULL) {
        buf->ptr[0] = '\0';
    }
}

qn_status qn_buf_reserve(qn_buf *buf, size_t n_bytes, qn_error *err)
{
    if (n_bytes > buf->bytes_max - buf->len || buf->len + n_bytes == SIZE_MAX) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__,
                       "buffer: %zu + %zu bytes, at most %zu expected", buf->len, n_bytes,
                       buf->bytes_max);
    }
    const size_t needed_bytes = buf->len + n_bytes + 1;
    if (needed_bytes <= buf->capacity_bytes) {
        return QN_OK;
    }
    size_t capacity_bytes = buf->capacity_bytes > SIZE_MAX / 2 ? SIZE_MAX : 2 * buf->capacity_bytes;
    if (capacity_bytes < needed_bytes) {
        capacity_bytes = needed_bytes < 64 ? 64 : needed_bytes;
    }
    char *const ptr = realloc(buf->ptr, capacity_bytes);
    if (ptr == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "buffer: no memory for %zu bytes",
                       capacity_bytes);
    }
    ptr[buf->len] = '\0';
    buf->ptr = ptr;
    buf->capacity_bytes = capacity_bytes;
    return QN_OK;
}

qn_status qn_buf_append(qn_buf *buf, const void *bytes, size_t n_bytes, qn_error *err)
{
    const qn_status status = qn_buf_reserve(buf, n_bytes, err);
    if (status < 0) {
        return status;
    }
    if (n_bytes > 0) {
        memcpy(buf->ptr + buf->len, bytes, n_bytes);
    }
    buf->len += n_bytes;
    buf->ptr[buf->len] = '\0';
    return QN_OK;
}

qn_status qn_buf_append_printf(qn_buf *buf, qn_error *err, const char *format, ...)
{
    va_list args;
    va_list again;
    va_start(args, format);
    va_copy(again, args);
    const int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    qn_status status = QN_OK;
    if (len < 0) {
        status = qn_fail(err, QN_E_INVAL, errno, __func__, "buffer: cannot format '%s'", format);
    } else {
        status = qn_buf_reserve(buf, (size_t)len, err);
    }
    if (status == QN_OK) {
        (void)vsnprintf(buf->ptr + buf->len, (size_t)len + 1, format, again);
        buf->len += (size_t)len;
    }
    va_end(again);
    return status;
}

qn_status qn_buf_append_real(qn_buf *buf, double value, int n_digits, qn_error *err)
{
    char digits[64];
    if (!isfinite(value)) {
        return qn_buf_append(buf, "null", 4, err);
    }
    (void)snprintf(digits, sizeof digits, "%.*g", n_digits, value);
    for (char *c = digits; *c != '\0'; c++) { /* a comma, or what else the locale has */
        if (strchr("0123456789+-e", *c) == NULL) {
            *c = '.';
        }
    }
    return qn_buf_append(buf, digits, strlen(digits), err);
}
