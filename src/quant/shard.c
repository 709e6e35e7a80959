/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/shard.h"

#include "base/file.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

void qn_time_print(char out[QN_TIME_BYTES], int64_t time_ns)
{
    const int64_t ns = (time_ns % 1000000000 + 1000000000) % 1000000000;
    const time_t seconds = (time_t)((time_ns - ns) / 1000000000);
    char day[32] = "";
    struct tm when;
    if (gmtime_r(&seconds, &when) != NULL) {
        (void)strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &when);
    }
    (void)snprintf(out, QN_TIME_BYTES, "%s.%09d UTC", day, (int)ns);
}

bool qn_shard_path(char path[PATH_MAX], const qn_plan *plan, size_t i_shard)
{
    const int len = snprintf(path, PATH_MAX, "%s/%s", plan->source, plan->shards[i_shard].file);
    return len > 0 && len < PATH_MAX;
}

static qn_status compare(const qn_plan *plan, const qn_plan_shard *shard, const struct stat *info,
                         qn_error *err)
{
    char seen[QN_TIME_BYTES];
    char expected[QN_TIME_BYTES];
    const bool is_same_file = (uint64_t)info->st_ino == shard->source_inode;
    if ((uint64_t)info->st_size == shard->source_bytes &&
        qn_mtime_ns(info) == shard->source_mtime_ns && is_same_file) {
        return QN_OK;
    }
    qn_time_print(seen, qn_mtime_ns(info));
    qn_time_print(expected, shard->source_mtime_ns);
    return qn_fail(err, QN_E_IO, 0, __func__,
                   "%.250s/%.100s: changed meanwhile: %s of %" PRIu64 " bytes, written %s; %" PRIu64
                   " bytes, written %s, expected",
                   plan->source, shard->file, is_same_file ? "a file" : "another file",
                   (uint64_t)info->st_size, seen, shard->source_bytes, expected);
}

qn_status qn_shard_check(const qn_plan *plan, size_t i_shard, qn_error *err)
{
    char path[PATH_MAX];
    struct stat info;
    errno = ENAMETOOLONG;
    if (!qn_shard_path(path, plan, i_shard) || stat(path, &info) != 0) {
        return qn_fail(err, QN_E_IO, errno, __func__,
                       "%.300s: %s meanwhile, the file as it was expected", path, strerror(errno));
    }
    return compare(plan, &plan->shards[i_shard], &info, err);
}

qn_status qn_shard_open(int *fd, const qn_plan *plan, size_t i_shard, qn_error *err)
{
    char path[PATH_MAX];
    struct stat info;
    uint64_t size_bytes = 0;
    *fd = -1;
    qn_status status = qn_shard_check(plan, i_shard, err);
    if (status < 0) {
        return status;
    }
    (void)qn_shard_path(path, plan, i_shard); /* fits, or the check had failed */
    status = qn_file_open(fd, &size_bytes, path, err);
    if (status < 0) {
        return status;
    }
    status = fstat(*fd, &info) == 0
                 ? compare(plan, &plan->shards[i_shard], &info, err)
                 : qn_fail(err, QN_E_IO, errno, __func__, "%.300s: %s, a readable file expected",
                           path, strerror(errno));
    if (status < 0) {
        (void)close(*fd);
        *fd = -1;
    }
    return status;
}
