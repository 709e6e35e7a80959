/* SPDX-License-Identifier: Apache-2.0 */
/** @file buf.h  A byte buffer that grows, up to a maximum it has from birth. */
#ifndef QN_BASE_BUF_H
#define QN_BASE_BUF_H
#include "quern/status.h"

#include "base/str.h"

/** All-zero is a buffer of maximum 0.  A call that fails leaves the contents as they were. */
typedef struct qn_buf {
    char *ptr;             /**< Owned; NULL while nothing was appended, else ends in a NUL. */
    size_t len;            /**< Bytes, the NUL not counted. */
    size_t capacity_bytes; /**< Allocated, the NUL included. */
    size_t bytes_max;      /**< len never exceeds it. */
} qn_buf;

/** Empty, allocates nothing. */
void qn_buf_init(qn_buf *buf, size_t bytes_max);

/** Free the bytes; an empty buffer of the same maximum stays. */
void qn_buf_deinit(qn_buf *buf);

/** Forget the bytes, keep the memory. */
void qn_buf_clear(qn_buf *buf);

/** Make room for @p n_bytes more.  QN_E_NOMEM, also where the maximum would be exceeded. */
QN_MUST_CHECK qn_status qn_buf_reserve(qn_buf *buf, size_t n_bytes, qn_error *err);

/** Append bytes (copied).  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_buf_append(qn_buf *buf, const void *bytes, size_t n_bytes,
                                      qn_error *err);

/** Append formatted text.  QN_E_NOMEM. */
QN_PRINTF(3, 4)
QN_MUST_CHECK qn_status qn_buf_append_printf(qn_buf *buf, qn_error *err, const char *format, ...);

/**
 * Append a number as JSON has it, whatever the locale, of at most @p n_digits (1 to 17) significant
 * digits; null where it is not finite.  QN_E_NOMEM.
 */
QN_MUST_CHECK qn_status qn_buf_append_real(qn_buf *buf, double value, int n_digits, qn_error *err);

/** The contents, borrowed until the next call on @p buf. */
static inline qn_str qn_buf_view(const qn_buf *buf)
{
    return (qn_str){.ptr = buf->ptr, .len = buf->len};
}
#endif
