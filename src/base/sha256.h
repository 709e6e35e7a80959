/* SPDX-License-Identifier: Apache-2.0 */
/** @file sha256.h  SHA-256: files by their published hashes, tenants by their salts. */
#ifndef QN_BASE_SHA256_H
#define QN_BASE_SHA256_H
#include "base/str.h"

#include <stdint.h>

enum { QN_SHA256_BYTES = 32, QN_SHA256_HEX_BYTES = 2 * QN_SHA256_BYTES + 1 };

/** Digest of @p bytes.  Source   FIPS 180-4, section 6.2. */
void qn_sha256(uint8_t out[QN_SHA256_BYTES], qn_str bytes);

/** The same in lower-case hex with a NUL. */
void qn_sha256_hex(char out[QN_SHA256_HEX_BYTES], qn_str bytes);
#endif
