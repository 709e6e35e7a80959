/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include "base/try.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of one call: on ext4 of Linux 6.18 calls of 4 MB took three times as long, for the large pages
 * that the cache then looks for. */
enum { WRITE_BYTES = 512 << 10 };

/* Append what one read() gives; *n_read is 0 at the end of the file. */
static qn_status read_some(qn_buf *out, int fd, size_t *n_read, const char *path, qn_error *err)
{
    enum { PIECE_BYTES = 64 * 1024 };
    const size_t room_bytes = out->bytes_max - out->len;
    const size_t piece_bytes = room_bytes < PIECE_BYTES ? room_bytes : PIECE_BYTES;
    char beyond;
    if (piece_bytes > 0) {
        const qn_status status = qn_buf_reserve(out, piece_bytes, NULL);
        if (status < 0) {
            return qn_fail(err, status, ENOMEM, __func__, "%s: no memory to read it", path);
        }
    }
    const ssize_t n = piece_bytes > 0 ? read(fd, out->ptr + out->len, piece_bytes)
                                      : read(fd, &beyond, 1); /* is there one byte too many? */
    if (n < 0 && errno == EINTR) {
        *n_read = 1;
        return QN_OK;
    }
    if (n < 0) {
        return qn_fail(err, QN_E_IO, errno, __func__,
                       "%s: cannot read: %s, a readable file expected", path, strerror(errno));
    }
    if (n > 0 && piece_bytes == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: longer than %zu bytes, at most that expected", path, out->bytes_max);
    }
    *n_read = (size_t)n;
    out->len += (size_t)n;
    return QN_OK;
}

char *qn_path_join(const char *dir, const char *name)
{
    const size_t path_bytes = strlen(dir) + strlen(name) + 2;
    char *const path = malloc(path_bytes);
    if (path != NULL) {
        (void)snprintf(path, path_bytes, "%s/%s", dir, name);
    }
    return path;
}

qn_str qn_path_parent(const char *path, const char **name)
{
    const char *const slash = strrchr(path, '/');
    if (name != NULL) {
        *name = slash != NULL ? slash + 1 : path;
    }
    if (slash == NULL) {
        return qn_str_of(".");
    }
    return (qn_str){.ptr = path, .len = slash == path ? 1 : (size_t)(slash - path)};
}

qn_status qn_file_open(int *fd, uint64_t *size_bytes, const char *path, qn_error *err)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) {
        const bool is_our_lack =
            errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EIO || errno == EINTR;
        return qn_fail(err,
                       errno == ENOENT ? QN_E_NOT_FOUND
                       : is_our_lack   ? QN_E_IO
                                       : QN_E_FORMAT,
                       errno, __func__, "%.300s: cannot open: %s, a readable file expected", path,
                       strerror(errno));
    }
    const int failed = fstat(*fd, &info);
    if (failed == 0 && S_ISREG(info.st_mode)) {
        *size_bytes = (uint64_t)info.st_size;
        return QN_OK;
    }
    const int sys = failed != 0 ? errno : 0;
    (void)close(*fd);
    *fd = -1;
    return qn_fail(err, failed != 0 ? QN_E_IO : QN_E_FORMAT, sys, __func__,
                   "%.300s: %s, a regular file expected", path,
                   failed != 0              ? strerror(sys)
                   : S_ISDIR(info.st_mode)  ? "a folder"
                   : S_ISFIFO(info.st_mode) ? "a pipe"
                                            : "a device or socket");
}

qn_status qn_file_read(qn_buf *out, const char *path, qn_error *err)
{
    qn_status status = QN_OK;
    const size_t len_before = out->len;
    uint64_t size_bytes = 0;
    int fd = -1;
    status = qn_file_open(&fd, &size_bytes, path, err);
    if (status < 0) {
        return status;
    }
    for (size_t n_read = 1; n_read > 0;) {
        QN_TRY(status, read_some(out, fd, &n_read, path, err), fail);
    }
fail:
    if (status < 0) {
        out->len = len_before;
    }
    if (out->ptr != NULL) {
        out->ptr[out->len] = '\0';
    }
    (void)close(fd);
    return status;
}

qn_status qn_read_at(int fd, void *bytes, size_t n_bytes, uint64_t offset, const char *path,
                     qn_error *err)
{
    char *next = bytes;
    for (size_t left = n_bytes; left > 0;) {
        const ssize_t n = pread(fd, next, left, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return qn_fail(err, QN_E_IO, errno, __func__,
                           "%.300s: cannot read at byte %" PRIu64 ": %s, a readable file expected",
                           path, offset, strerror(errno));
        }
        if (n == 0) {
            return qn_fail(err, QN_E_IO, 0, __func__,
                           "%.300s: ends at byte %" PRIu64 ", %zu more expected: cut short while "
                           "it was read",
                           path, offset, left);
        }
        next += n;
        left -= (size_t)n;
        offset += (uint64_t)n;
    }
    return QN_OK;
}

qn_status qn_write_at(int fd, const void *bytes, size_t n_bytes, uint64_t offset, const char *path,
                      qn_error *err)
{
    const char *next = bytes;
    for (size_t left = n_bytes; left > 0;) {
        const ssize_t n = pwrite(fd, next, left < WRITE_BYTES ? left : WRITE_BYTES, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return qn_fail(err, QN_E_IO, errno, __func__,
                           "%.300s: cannot write: %s, room for it expected", path, strerror(errno));
        }
        next += n;
        left -= (size_t)n;
        offset += (uint64_t)n;
    }
    return QN_OK;
}

qn_status qn_folder_next(const char **name, DIR *folder, const char *path, qn_error *err)
{
    const struct dirent *item = NULL;
    do {
        errno = 0;
        item = readdir(folder);
    } while (item != NULL && (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0));
    *name = item != NULL ? item->d_name : NULL;
    return item != NULL || errno == 0
               ? QN_OK
               : qn_fail(err, QN_E_IO, errno, __func__,
                         "%.300s: cannot be listed: %s, all of its names expected", path,
                         strerror(errno));
}
