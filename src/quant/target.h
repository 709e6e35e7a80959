/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file target.h  The folder that is written: one process at a time, and a file has its name only
 * when all of it is on disk.  Until then it is called .NAME.quern-part, which no copy is, since
 * files that begin with a dot are not copied.
 */
#ifndef QN_QUANT_TARGET_H
#define QN_QUANT_TARGET_H
#include "quern/status.h"

#include "base/str.h"

#include <limits.h>

/** A longer name has no room for what is added to it while the file is written. */
enum { QN_TARGET_NAME_MAX = NAME_MAX - (int)sizeof "..quern-part" + 1 };

/** An open folder.  All-zero, but for fd, which is -1, is closed. */
typedef struct qn_target {
    const char *path;  /**< Borrowed. */
    int fd;            /**< Of the folder; holds the lock.  -1: a dry run's, or closed. */
    bool is_made;      /**< It was not there before. */
    bool has_manifest; /**< An earlier run's, to go on with. */
} qn_target;

/**
 * Open, or make, the folder at @p path (borrowed) and lock it.
 *
 * @param source   may not be the folder or contain it
 * @param resumes  an earlier run's files may be there; otherwise it has to be empty
 * @param is_dry   make and lock nothing
 * Returns  QN_OK; QN_E_INVAL that names what is in the way; QN_E_IO
 */
QN_MUST_CHECK qn_status qn_target_open(qn_target *out, const char *path, const char *source,
                                       bool resumes, bool is_dry, qn_error *err);
/** Unlock; @p removes: the folder too, where it was made here and is empty. */
void qn_target_close(qn_target *target, bool removes);

/** Bytes free for us where the folder is, or will be; UINT64_MAX where nobody knows. */
uint64_t qn_target_free_bytes(const char *path);

/**
 * Begin a file with room for @p size_bytes, where the file system can promise that.
 * @param[out] fd  readable and writable, the caller's to close; -1 on failure
 */
QN_MUST_CHECK qn_status qn_target_create(int *fd, const qn_target *target, const char *name,
                                         uint64_t size_bytes, qn_error *err);
/** Write bytes at a place of a file that was begun.  Any thread. */
QN_MUST_CHECK qn_status qn_target_write(const qn_target *target, int fd, const char *name,
                                        const void *bytes, size_t n_bytes, uint64_t offset,
                                        qn_error *err);
/** Wait until its bytes are on disk. */
QN_MUST_CHECK qn_status qn_target_sync(const qn_target *target, int fd, const char *name,
                                       qn_error *err);
/** Give a file its name. */
QN_MUST_CHECK qn_status qn_target_commit(const qn_target *target, const char *name, qn_error *err);
/** Wait until the names of a folder in it ("." for itself) are on disk. */
QN_MUST_CHECK qn_status qn_target_sync_names(const qn_target *target, const char *folder,
                                             qn_error *err);
/** Remove a file that was begun. */
void qn_target_drop(const qn_target *target, const char *name);
/** Remove a file that has its name. */
void qn_target_remove(const qn_target *target, const char *name);
/** Bytes on disk of a file that was begun, and of one of that name; 0 where there is none. */
uint64_t qn_target_bytes(const qn_target *target, const char *name);
/** Begin, write, sync and commit a small file, and sync the names. */
QN_MUST_CHECK qn_status qn_target_replace(const qn_target *target, const char *name, qn_str bytes,
                                          qn_error *err);
/** A folder in it, which may be there. */
QN_MUST_CHECK qn_status qn_target_make_folder(const qn_target *target, const char *name,
                                              qn_error *err);
#endif
