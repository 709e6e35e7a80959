/* SPDX-License-Identifier: Apache-2.0 */
/** @file manifest.h  quern-manifest.json: what a run is about and which shards of it are done. */
#ifndef QN_QUANT_MANIFEST_H
#define QN_QUANT_MANIFEST_H
#include "quern/status.h"

#include "base/buf.h"

#include <jansson.h>

#define QN_MANIFEST_NAME "quern-manifest.json"

enum {
    QN_MANIFEST_BYTES_MAX = 256 << 20, /**< Of the file. */
    QN_MANIFEST_SHARDS_MAX = 100000,   /**< In it. */
    QN_SHARD_HASH_BYTES = 33,          /**< XXH3-128 as hex, and a NUL. */
};

/** A shard as the manifest has it; texts and kinds are borrowed from it. */
typedef struct qn_manifest_shard {
    const char *file;        /**< Plain name that ends in .safetensors. */
    uint64_t source_bytes;   /**< Size of the source file. */
    int64_t source_mtime_ns; /**< When it was written. */
    const char *source_head; /**< Hash of its header. */
    bool is_done;            /**< Output is on disk under its name; the rest is set only then. */
    uint64_t bytes;          /**< Size of the output. */
    const char *xxh128;      /**< Its hash. */
    const json_t *kinds;     /**< quant/kinds.h */
} qn_manifest_shard;

/** The manifest in memory.  All-zero is closed. */
typedef struct qn_manifest {
    json_t *root; /**< Owned; checked. */
} qn_manifest;

/**
 * Begin one.
 * @param identity  what has to be the same when a run goes on; taken over.  NULL is no memory
 */
QN_MUST_CHECK qn_status qn_manifest_init(qn_manifest *out, json_t *identity, qn_error *err);
/** Parse one and check every field; @p what names it in errors.  QN_E_FORMAT; QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_manifest_parse(qn_manifest *out, qn_str text, const char *what,
                                          qn_error *err);
/** Free it; closing twice is fine. */
void qn_manifest_close(qn_manifest *manifest);

/** Is it about the same?  QN_E_INVAL that names what differs, seen and expected. */
QN_MUST_CHECK qn_status qn_manifest_match(const qn_manifest *manifest, const json_t *identity,
                                          const char *what, qn_error *err);

/** Add a shard that is not done.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_manifest_add(qn_manifest *manifest, const qn_manifest_shard *shard,
                                        qn_error *err);
/** Number of shards. */
size_t qn_manifest_count(const qn_manifest *manifest);
/** The i-th. */
qn_manifest_shard qn_manifest_get(const qn_manifest *manifest, size_t i_shard);
/** Say that shard i is done.  @p kinds is taken over; NULL is no memory. */
QN_MUST_CHECK qn_status qn_manifest_set_done(qn_manifest *manifest, size_t i_shard, uint64_t bytes,
                                             const char *xxh128, json_t *kinds, qn_error *err);
/** Say that it is not. */
void qn_manifest_clear_done(qn_manifest *manifest, size_t i_shard);
/** Append the text of the file.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_manifest_append(qn_buf *out, const qn_manifest *manifest, qn_error *err);
#endif
