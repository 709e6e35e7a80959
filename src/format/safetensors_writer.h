/* SPDX-License-Identifier: Apache-2.0 */
/** @file safetensors_writer.h  Writes a .safetensors file whose tensors grow row by row. */
#ifndef QN_FORMAT_SAFETENSORS_WRITER_H
#define QN_FORMAT_SAFETENSORS_WRITER_H
#include "format/safetensors.h"

/** Opaque.  The file gets its name only when finished (temporary name, fsync, rename). */
typedef struct qn_safetensors_writer qn_safetensors_writer;

/**
 * Begin a file at @p path (copied).  Links are followed; a pipe or device is written to as it is,
 * once all is known.  May wait for the reader of a named pipe. Returns  QN_OK; QN_E_IO where it
 * cannot be written; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_safetensors_writer_open(qn_safetensors_writer **out, const char *path,
                                                   qn_error *err);
/** Where the file will be, with links followed; borrowed until close.  Equal for equal files. */
const char *qn_safetensors_writer_path(const qn_safetensors_writer *writer);
/**
 * Append @p n_rows rows to tensor @p name (created by the first call).  Rows of all tensors may
 * come interleaved: they are spooled to disk, never held in memory.
 * @param row_shape  the shape of one row, @p row_rank entries; the tensor is [rows][row_shape...]
 * Returns  QN_OK; QN_E_INVAL where dtype or row shape differ from the first call's; QN_E_IO;
 *          QN_E_NOMEM.  After a failure only close() is left
 */
QN_MUST_CHECK qn_status qn_safetensors_writer_append(qn_safetensors_writer *writer,
                                                     const char *name, qn_dtype dtype,
                                                     const uint64_t *row_shape, uint32_t row_rank,
                                                     const void *rows, uint64_t n_rows,
                                                     qn_error *err);
/** Write header and data, fsync, rename to the final name.  Afterwards only close() is left. */
QN_MUST_CHECK qn_status qn_safetensors_writer_finish(qn_safetensors_writer *writer, qn_error *err);
/** Release; what was not finished leaves no file.  Accepts NULL. */
void qn_safetensors_writer_close(qn_safetensors_writer **writer);
#endif
