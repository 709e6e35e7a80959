/* SPDX-License-Identifier: Apache-2.0 */
/** @file file.h  Paths, and whole files into memory, with a maximum. */
#ifndef QN_BASE_FILE_H
#define QN_BASE_FILE_H
#include "base/buf.h"

#include <dirent.h>

/** DIR/NAME, owned by the caller (free); NULL without memory. */
char *qn_path_join(const char *dir, const char *name);

/**
 * The folder that @p path names something in: "." where it has no slash, "/" for "/x".  Borrowed
 * from @p path, or constant.
 * @param[out] name  what follows the last slash, borrowed from @p path; may be NULL
 */
qn_str qn_path_parent(const char *path, const char **name);

/**
 * Open a regular file for reading.  Never waits, as a pipe without a writer would have it.
 *
 * @param[out] fd  the caller's to close; -1 on failure
 * Returns  QN_OK; QN_E_NOT_FOUND; QN_E_FORMAT for what is no regular file or may not be read;
 *          QN_E_IO where the system fails
 */
QN_MUST_CHECK qn_status qn_file_open(int *fd, uint64_t *size_bytes, const char *path,
                                     qn_error *err);

/**
 * Append the file's bytes to @p out, whose maximum bounds them.
 *
 * Returns  as qn_file_open(); QN_E_FORMAT where the file is longer than the maximum allows;
 *          QN_E_NOMEM.  After a failure @p out holds what it held before
 */
QN_MUST_CHECK qn_status qn_file_read(qn_buf *out, const char *path, qn_error *err);

/**
 * Read exactly @p n_bytes from place @p offset of an open file on.  @p path names it in errors.
 * Returns  QN_OK; QN_E_IO, also where the file ends before
 */
QN_MUST_CHECK qn_status qn_read_at(int fd, void *bytes, size_t n_bytes, uint64_t offset,
                                   const char *path, qn_error *err);

/** Write exactly @p n_bytes from there on.  QN_E_IO. */
QN_MUST_CHECK qn_status qn_write_at(int fd, const void *bytes, size_t n_bytes, uint64_t offset,
                                    const char *path, qn_error *err);

/**
 * The next name in an open folder, "." and ".." left out; *name is NULL behind the last, else
 * borrowed until the next call.  @p path names the folder in errors.  QN_E_IO.
 */
QN_MUST_CHECK qn_status qn_folder_next(const char **name, DIR *folder, const char *path,
                                       qn_error *err);
#endif
