/* SPDX-License-Identifier: Apache-2.0 */
/** @file fingerprint.h  Is a folder the same checkpoint that it was?  Without reading 1.5 TB. */
#ifndef QN_EVAL_FINGERPRINT_H
#define QN_EVAL_FINGERPRINT_H
#include "quern/status.h"

#include "base/sha256.h"

/**
 * SHA-256 of a model's configuration, tokenizer, template and index, and of name, size and time of
 * the last change of its weight files.  A copy of the folder may have another.
 * Returns  QN_OK; QN_E_IO; QN_E_NOMEM; statuses of qn_file_read()
 */
QN_MUST_CHECK qn_status qn_fingerprint(char out[QN_SHA256_HEX_BYTES], const char *dir,
                                       qn_error *err);
#endif
