/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/target.h"

#include "base/file.h"
#include "base/log.h"
#include "base/try.h"
#include "quant/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The name that a file has until all of it is on disk. */
typedef struct part_name {
    char text[PATH_MAX];
} part_name;

static part_name part_of(const char *name)
{
    part_name part;
    const char *last = NULL;
    (void)qn_path_parent(name, &last);
    (void)snprintf(part.text, sizeof part.text, "%.*s.%s.quern-part", (int)(last - name), name,
                   last);
    return part;
}

/* --------------------------------------------------------------------------- open and close -- */

/* Its real path, or where it does not exist that of its parent and its name. */
static bool real_path(char out[PATH_MAX], const char *path)
{
    char dir[PATH_MAX];
    const char *name = NULL;
    if (realpath(path, out) != NULL) {
        return true;
    }
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    if (errno != ENOENT || len >= sizeof dir) {
        return false;
    }
    memcpy(dir, path, len);
    dir[len] = '\0';
    const qn_str parent = qn_path_parent(dir, &name);
    char parent_text[PATH_MAX];
    (void)snprintf(parent_text, sizeof parent_text, "%.*s", (int)parent.len, parent.ptr);
    if (realpath(parent_text, out) == NULL) {
        return false;
    }
    const size_t out_len = strlen(out);
    const int more = snprintf(out + out_len, PATH_MAX - out_len, "/%s", name);
    return more > 0 && (size_t)more < PATH_MAX - out_len;
}

static qn_status check_apart(const char *path, const char *source, qn_error *err)
{
    char from[PATH_MAX];
    char to[PATH_MAX];
    const bool has_source = realpath(source, from) != NULL;
    if (!has_source || !real_path(to, path)) {
        return qn_fail(err, errno == ENOMEM ? QN_E_NOMEM : QN_E_IO, errno, __func__,
                       "%.300s: %s, a folder that exists or can be made expected",
                       has_source ? path : source, strerror(errno));
    }
    const size_t len = strlen(from);
    if (strncmp(from, to, len) == 0 && (to[len] == '\0' || to[len] == '/' || len == 1)) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%.300s: %s the source, a folder outside it expected", path,
                       to[len] == '\0' ? "is" : "in");
    }
    return QN_OK;
}

/* What stands in the folder: a manifest, and one name of the others. */
static qn_status look_into(qn_target *target, bool resumes, qn_error *err)
{
    const part_name manifest_part = part_of(QN_MANIFEST_NAME);
    char other[256] = "";
    char more[40] = "";
    const char *name = NULL;
    size_t n_others = 0;
    qn_status status = QN_OK;
    DIR *const folder = opendir(target->path);
    if (folder == NULL && errno == ENOENT) {
        return QN_OK; /* a dry run makes none */
    }
    if (folder == NULL) {
        return qn_fail(err,
                       errno == ENOTDIR  ? QN_E_INVAL
                       : errno == ENOMEM ? QN_E_NOMEM
                                         : QN_E_IO,
                       errno, __func__, "%.300s: %s, an empty or new folder expected", target->path,
                       strerror(errno));
    }
    while ((status = qn_folder_next(&name, folder, target->path, err)) == QN_OK && name != NULL) {
        if (strcmp(name, QN_MANIFEST_NAME) == 0) {
            target->has_manifest = true;
        } else if (strcmp(name, manifest_part.text) != 0) {
            if (n_others == 0 || strcmp(name, other) < 0) {
                (void)snprintf(other, sizeof other, "%s", name);
            }
            n_others++;
        }
    }
    (void)closedir(folder);
    if (status < 0) {
        return status;
    }
    if (!resumes && target->has_manifest) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%.300s: holds a run that was begun, an empty or new folder expected, or "
                       "--resume to go on with it",
                       target->path);
    }
    if (n_others > 0 && !target->has_manifest) {
        (void)snprintf(more, sizeof more, " and %zu more", n_others - 1);
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%.250s: holds %.150s%s, an empty or new folder expected%s", target->path,
                       other, n_others > 1 ? more : "",
                       resumes ? ", or one with " QN_MANIFEST_NAME : "");
    }
    return QN_OK;
}

static qn_status lock(const qn_target *target, qn_error *err)
{
    if (flock(target->fd, LOCK_EX | LOCK_NB) == 0) {
        return QN_OK;
    }
    if (errno == EWOULDBLOCK) {
        return qn_fail(err, QN_E_IO, errno, __func__,
                       "%.300s: another process writes it, a folder of our own expected",
                       target->path);
    }
    qn_log(QN_LOG_WARN, "%.300s: cannot be locked: %s; see that nothing else writes it",
           target->path, strerror(errno));
    return QN_OK;
}

/* Make the folder, or take one that is there, and lock it. */
static qn_status make(qn_target *out, qn_error *err)
{
    qn_status status = QN_OK;
    out->is_made = mkdir(out->path, 0777) == 0;
    if (!out->is_made && errno != EEXIST) {
        return qn_fail(err, QN_E_IO, errno, __func__,
                       "%.300s: cannot make it: %s, a folder that can be made expected", out->path,
                       strerror(errno));
    }
    out->fd = open(out->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->fd < 0) {
        return qn_fail(err, errno == ENOTDIR ? QN_E_INVAL : QN_E_IO, errno, __func__,
                       "%.300s: %s, an empty or new folder expected", out->path, strerror(errno));
    }
    QN_TRY(status, lock(out, err), fail);
    if (out->is_made) {
        QN_TRY(status, qn_target_sync_names(out, "..", err), fail); /* its own name */
    }
fail:
    return status;
}

qn_status qn_target_open(qn_target *out, const char *path, const char *source, bool resumes,
                         bool is_dry, qn_error *err)
{
    qn_status status = QN_OK;
    *out = (qn_target){.path = path, .fd = -1};
    QN_TRY(status, check_apart(path, source, err), fail);
    if (!is_dry) {
        QN_TRY(status, make(out, err), fail);
    }
    QN_TRY(status, look_into(out, resumes, err), fail);
    return QN_OK;

fail:
    qn_target_close(out, true);
    return status;
}

void qn_target_close(qn_target *target, bool removes)
{
    if (removes && target->is_made) {
        (void)rmdir(target->path);
    }
    if (target->fd >= 0) {
        (void)close(target->fd);
    }
    *target = (qn_target){.fd = -1};
}

uint64_t qn_target_free_bytes(const char *path)
{
    struct statvfs info;
    char dir[PATH_MAX];
    if (!real_path(dir, path)) {
        return UINT64_MAX;
    }
    if (statvfs(dir, &info) != 0) { /* it is not there yet, so ask its parent */
        char *const slash = strrchr(dir, '/');
        slash[slash == dir ? 1 : 0] = '\0';
        if (statvfs(dir, &info) != 0) {
            return UINT64_MAX;
        }
    }
    return (uint64_t)info.f_bavail * info.f_frsize;
}

/* ------------------------------------------------------------------------------------ files -- */

static qn_status cannot(const qn_target *target, const char *name, const char *what, qn_error *err)
{
    return qn_fail(err, QN_E_IO, errno, __func__,
                   "%.250s/%.100s: cannot %s: %s, a folder with room for it expected", target->path,
                   name, what, strerror(errno));
}

qn_status qn_target_create(int *fd, const qn_target *target, const char *name, uint64_t size_bytes,
                           qn_error *err)
{
    const part_name part = part_of(name);
    *fd = openat(target->fd, part.text, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (*fd < 0) {
        return cannot(target, part.text, "create it", err);
    }
    int failed = 0;
    do {
        failed = size_bytes > 0 ? fallocate(*fd, 0, 0, (off_t)size_bytes) : 0;
    } while (failed != 0 && errno == EINTR);
    if (failed == 0 || errno == EOPNOTSUPP || errno == ENOSYS) {
        return QN_OK; /* a file that cannot be promised room may still find it */
    }
    char what[64];
    (void)snprintf(what, sizeof what, "reserve %" PRIu64 " bytes", size_bytes);
    const qn_status status = cannot(target, part.text, what, err);
    (void)close(*fd);
    *fd = -1;
    qn_target_drop(target, name);
    return status;
}

qn_status qn_target_write(const qn_target *target, int fd, const char *name, const void *bytes,
                          size_t n_bytes, uint64_t offset, qn_error *err)
{
    char path[400];
    (void)snprintf(path, sizeof path, "%.250s/%.100s", target->path, part_of(name).text);
    return qn_write_at(fd, bytes, n_bytes, offset, path, err);
}

qn_status qn_target_sync(const qn_target *target, int fd, const char *name, qn_error *err)
{
    return fdatasync(fd) == 0 ? QN_OK : cannot(target, part_of(name).text, "write", err);
}

qn_status qn_target_commit(const qn_target *target, const char *name, qn_error *err)
{
    const part_name part = part_of(name);
    return renameat(target->fd, part.text, target->fd, name) == 0
               ? QN_OK
               : cannot(target, name, "give it its name", err);
}

qn_status qn_target_sync_names(const qn_target *target, const char *folder, qn_error *err)
{
    const int fd = openat(target->fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool is_synced = fd >= 0 ? fsync(fd) == 0 || errno == EINVAL /* some need none */
                                   : errno == EACCES;                  /* ours to enter only */
    const qn_status status = is_synced ? QN_OK : cannot(target, folder, "sync its names", err);
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}

void qn_target_drop(const qn_target *target, const char *name)
{
    (void)unlinkat(target->fd, part_of(name).text, 0);
}

void qn_target_remove(const qn_target *target, const char *name)
{
    (void)unlinkat(target->fd, name, 0);
}

static uint64_t disk_bytes(const qn_target *target, const char *name)
{
    struct stat info;
    char *const path = qn_path_join(target->path, name); /* a dry run has no folder open */
    const bool is_there = path != NULL && lstat(path, &info) == 0;
    free(path);
    return is_there ? (uint64_t)info.st_blocks * 512 : 0;
}

uint64_t qn_target_bytes(const qn_target *target, const char *name)
{
    return disk_bytes(target, part_of(name).text) + disk_bytes(target, name);
}

qn_status qn_target_replace(const qn_target *target, const char *name, qn_str bytes, qn_error *err)
{
    int fd = -1;
    qn_status status = QN_OK;
    QN_TRY(status, qn_target_create(&fd, target, name, 0, err), fail);
    QN_TRY(status, qn_target_write(target, fd, name, bytes.ptr, bytes.len, 0, err), fail);
    QN_TRY(status, qn_target_sync(target, fd, name, err), fail);
    QN_TRY(status, qn_target_commit(target, name, err), fail);
    QN_TRY(status, qn_target_sync_names(target, ".", err), fail);
fail:
    if (fd >= 0) {
        (void)close(fd);
    }
    if (status < 0) {
        qn_target_drop(target, name);
    }
    return status;
}

qn_status qn_target_make_folder(const qn_target *target, const char *name, qn_error *err)
{
    return mkdirat(target->fd, name, 0777) == 0 || errno == EEXIST
               ? QN_OK
               : cannot(target, name, "make it", err);
}
