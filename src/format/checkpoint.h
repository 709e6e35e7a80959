/* SPDX-License-Identifier: Apache-2.0 */
/** @file checkpoint.h  A model's weight files as one set of named tensors. */
#ifndef QN_FORMAT_CHECKPOINT_H
#define QN_FORMAT_CHECKPOINT_H
#include "quern/types.h"

#include "base/pool.h"
#include "format/safetensors.h"

/** The index of a checkpoint of several shards, and the one file of another. */
#define QN_INDEX_NAME  "model.safetensors.index.json"
#define QN_SINGLE_NAME "model.safetensors"

/** Is it (NULL: no) the name of a shard as a folder holds them: "NAME.safetensors", no path, no
 * leading dot?
 */
bool qn_is_shard_name(const char *name);

/** Opaque; keeps every shard mapped until closed. */
typedef struct qn_checkpoint qn_checkpoint;

/**
 * Open DIR/model.safetensors.index.json and its shards, or without an index the one
 * DIR/model.safetensors, or DIR's *.safetensors where neither exists.  A tensor in two shards, one
 * that the index names and its shard lacks, or the other way round is an error that names it.
 *
 * Returns  QN_OK; QN_E_NOT_FOUND (folder, weights or a shard); QN_E_IO; QN_E_FORMAT; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_checkpoint_open(qn_checkpoint **out, const char *dir, qn_error *err);
/** Unmap every shard; sets *checkpoint to NULL; accepts NULL. */
void qn_checkpoint_close(qn_checkpoint **checkpoint);

/**
 * Read one tensor's bytes into memory, on the threads of @p pool, so that nobody who touches them
 * waits for the disk or dies of what it has lost.
 *
 * Returns  QN_OK; QN_E_IO naming the file where the disk fails or it has become shorter; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_checkpoint_fetch(const qn_checkpoint *checkpoint,
                                            const qn_tensor *tensor, qn_pool *pool, qn_error *err);
/** The tensor's bytes are not needed for now: their memory may serve others. */
void qn_checkpoint_release(const qn_checkpoint *checkpoint, const qn_tensor *tensor);

/** Number of tensors. */
size_t qn_checkpoint_count(const qn_checkpoint *checkpoint);
/** The i-th in order of name (bytewise), borrowed until close. */
const qn_tensor *qn_checkpoint_get(const qn_checkpoint *checkpoint, size_t i_tensor);
/**
 * The tensor of that name; NULL where there is none.  O(log n).
 * @param[out] i_tensor  its place in that order, where it is not NULL; untouched without a tensor
 */
const qn_tensor *qn_checkpoint_find(const qn_checkpoint *checkpoint, qn_str name, size_t *i_tensor);
/** The folder, for messages: borrowed until close. */
const char *qn_checkpoint_path(const qn_checkpoint *checkpoint);
/** File of a tensor, for messages: borrowed until close. */
const char *qn_checkpoint_file_of(const qn_checkpoint *checkpoint, const qn_tensor *tensor);
/** Sum of file sizes in bytes. */
uint64_t qn_checkpoint_bytes(const qn_checkpoint *checkpoint);
#endif
