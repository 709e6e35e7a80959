/* SPDX-License-Identifier: Apache-2.0 */
/** @file shard.h  A file of the source, which has to stay the one that was planned. */
#ifndef QN_QUANT_SHARD_H
#define QN_QUANT_SHARD_H
#include "quant/plan.h"

#include <limits.h>
#include <sys/stat.h>

enum { QN_TIME_BYTES = 48 /**< Of what qn_time_print() writes. */ };

/** When a file was written. */
static inline int64_t qn_mtime_ns(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + (int64_t)info->st_mtim.tv_nsec;
}

/** Such a time for a message: "2026-01-31 23:59:59.123456789 UTC". */
void qn_time_print(char out[QN_TIME_BYTES], int64_t time_ns);

/** SOURCE/FILE; false where that is too long for a path, and cut. */
bool qn_shard_path(char path[PATH_MAX], const qn_plan *plan, size_t i_shard);

/** Is the file at its place the one that was planned, unchanged?  QN_E_IO, also without a file. */
QN_MUST_CHECK qn_status qn_shard_check(const qn_plan *plan, size_t i_shard, qn_error *err);
/** Open it, after that check.  @p fd is the caller's to close; -1 on failure.  QN_E_IO. */
QN_MUST_CHECK qn_status qn_shard_open(int *fd, const qn_plan *plan, size_t i_shard, qn_error *err);
#endif
