/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file mapped_file.h  A read-only file mapped into memory.
 *
 * What the mapping shows is the file as it is: while it is mapped, a file that is cut short, or a
 * disk that fails, ends the process with SIGBUS at the byte that is missing.  Only
 * qn_mapped_file_populate() turns that into an error.
 */
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

/**
 * Read @p n_bytes from @p first on into memory (page cache and page tables), so that touching them
 * later costs nothing.  Any thread, several at once.
 * Returns  QN_OK, also where the kernel (before Linux 5.14) does not know how; QN_E_IO where the
 * disk fails or the file has become shorter; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_mapped_file_populate(const qn_mapped_file *file, size_t first,
                                                size_t n_bytes, const char *path, qn_error *err);

/** Bytes that are not needed for now: pages that hold nothing else are given up. */
void qn_mapped_file_release(const qn_mapped_file *file, size_t first, size_t n_bytes);

/** The file's bytes, at least one, borrowed until close. */
const uint8_t *qn_mapped_file_bytes(const qn_mapped_file *file, size_t *size_bytes);
#endif
