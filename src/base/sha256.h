/* SPDX-License-Identifier: Apache-2.0 */
/** @file sha256.h  SHA-256, to recognise files by their published hashes. */
#ifndef QN_BASE_SHA256_H
#define QN_BASE_SHA256_H
#include "base/str.h"

enum { QN_SHA256_HEX_BYTES = 65 };

/** Lower-case hex digest of @p bytes with a NUL.  Source   FIPS 180-4, section 6.2. */
void qn_sha256_hex(char out[QN_SHA256_HEX_BYTES], qn_str bytes);
#endif
