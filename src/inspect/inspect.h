/* SPDX-License-Identifier: Apache-2.0 */
/** @file inspect.h  The doctor: what a checkpoint is, and what is wrong with it. */
#ifndef QN_INSPECT_INSPECT_H
#define QN_INSPECT_INSPECT_H
#include "quern/types.h"

#include "base/pool.h"

/** What to look at, and how.  All borrowed during the call. */
typedef struct qn_inspect_request {
    const char *dir;           /**< The folder. */
    const char *file;          /**< The only shard of it to look at; NULL: all of them. */
    const char *tokenizer_dir; /**< Where tokenizer.json is; NULL: in dir. */
    qn_progress_fn *progress;  /**< Bytes read with verifies; NULL: not wanted. */
    void *progress_context;
    bool verifies;      /**< Read every byte. */
    bool lists_tensors; /**< Report each tensor. */
    bool fixes;         /**< Write config.fixed.json. */
} qn_inspect_request;

/**
 * Inspect a checkpoint.
 *
 * @param[out] report  docs/inspect.md, owned by the caller (free); NULL on failure
 * Returns  QN_OK, whatever is wrong with the checkpoint; QN_E_NOT_FOUND without folder or file;
 *          QN_E_IO; QN_E_FORMAT for more shards than a checkpoint has; QN_E_NOMEM; QN_E_CANCELLED
 */
QN_MUST_CHECK qn_status qn_doctor_inspect(char **report, const qn_inspect_request *request,
                                          qn_pool *pool, qn_error *err);
#endif
