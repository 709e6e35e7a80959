/* SPDX-License-Identifier: Apache-2.0 */
/** @file ending.h  The end of a shard: on disk, read again, hashed, named, entered. */
#ifndef QN_QUANT_ENDING_H
#define QN_QUANT_ENDING_H
#include "quant/mill.h"
#include "quant/piece.h"

/** A shard whose pieces are all written. */
typedef struct qn_ending {
    const qn_mill_options *mill; /**< Borrowed. */
    size_t i_shard;
    int fd;              /**< Of its file; owned, -1 once closed. */
    qn_written *written; /**< [n_written] which tile the file; owned. */
    size_t n_written;    /**< Header included. */
    json_t *kinds;       /**< Of the manifest's entry; owned until taken over. */
    uint32_t
        *n_waiting; /**< [n_shards] shards still to be finished that read a source; borrowed. */
} qn_ending;

/**
 * Sync the file, read it again, compare, hash, give it its name, write the manifest; then delete
 * sources that nothing waits for, if that is wanted.  Frees what @p ending owns in any case, and
 * without success removes the file, whether it has its name or not, unless it is entered.
 */
QN_MUST_CHECK qn_status qn_ending_run(qn_ending *ending, qn_error *err);

/** Told how many bytes were read; false: stop. */
typedef bool qn_ending_read_fn(void *context, size_t n_bytes);

/**
 * Is the shard's file what the manifest says?  *is_same is false where it is missing or differs.
 * Any thread, each a shard of its own.
 *
 * Returns  QN_OK; QN_E_FORMAT where it differs and cannot be made again; QN_E_IO where it cannot be
 *          read; QN_E_NOMEM; QN_E_CANCELLED where @p told (may not be NULL) said so, without text
 */
QN_MUST_CHECK qn_status qn_ending_check(bool *is_same, const qn_mill_options *mill, size_t i_shard,
                                        qn_ending_read_fn *told, void *context, qn_error *err);

/** Add @p by to n_waiting of each source that shard i reads; call for every unfinished shard. */
void qn_ending_wait(uint32_t *n_waiting, const qn_plan *plan, size_t i_shard, int by);

/** Delete the source of shard i if it is done, nothing waits for it and it is unchanged. */
QN_MUST_CHECK qn_status qn_ending_delete(const qn_mill_options *mill, const uint32_t *n_waiting,
                                         size_t i_shard, qn_error *err);
#endif
