/* SPDX-License-Identifier: Apache-2.0 */
/** @file mapped_file.h  A read-only file mapped into memory. */
#ifndef QN_FORMAT_MAPPED_FILE_H
#define QN_FORMAT_MAPPED_FILE_H
#include "quern/status.h"

#include <stddef.h>
#include <stdint.h>

/** Opaque; holds the mapping, no file descriptor. */
typedef struct qn_mapped_file qn_mapped_file;

/**
 * Map @p path.  On success *out is owned by the caller; on failure *out is NULL.
 *
 * Returns  QN_OK; QN_E_NOT_FOUND; QN_E_IO; QN_E_FORMAT (empty, or not a file); QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_mapped_file_open(qn_mapped_file **out, const char *path, qn_error *err);

/** Unmap and set *file to NULL.  Accepts a pointer to NULL. */
void qn_mapped_file_close(qn_mapped_file **file);

/** The file's bytes, at least one, borrowed until close. */
const uint8_t *qn_mapped_file_bytes(const qn_mapped_file *file, size_t *size_bytes);
#endif
