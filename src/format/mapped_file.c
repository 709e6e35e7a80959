/* SPDX-License-Identifier: Apache-2.0 */
#include "format/mapped_file.h"

#include "base/file.h"
#include "base/try.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

struct qn_mapped_file {
    void *bytes; /* owned mapping, NULL before it exists */
    size_t size_bytes;
};

static qn_status map_all(qn_mapped_file *file, int fd, uint64_t size_bytes, const char *path,
                         qn_error *err)
{
    if (size_bytes == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: 0 bytes, a file with contents expected",
                       path);
    }
    void *const bytes = mmap(NULL, size_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) {
        return qn_fail(err, errno == ENOMEM ? QN_E_NOMEM : QN_E_IO, errno, __func__,
                       "%s: cannot map %llu bytes: %s, room for them expected", path,
                       (unsigned long long)size_bytes, strerror(errno));
    }
    file->bytes = bytes;
    file->size_bytes = size_bytes;
    return QN_OK;
}

qn_status qn_mapped_file_open(qn_mapped_file **out, const char *path, qn_error *err)
{
    qn_status status = QN_OK;
    uint64_t size_bytes = 0;
    int fd = -1;
    *out = NULL;
    qn_mapped_file *file = calloc(1, sizeof *file);
    if (file == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to open it", path);
    }
    QN_TRY(status, qn_file_open(&fd, &size_bytes, path, err), fail);
    QN_TRY(status, map_all(file, fd, size_bytes, path, err), fail);
    (void)close(fd); /* the mapping stays */
    *out = file;
    return QN_OK;

fail:
    if (fd >= 0) {
        (void)close(fd);
    }
    qn_mapped_file_close(&file);
    return status;
}

void qn_mapped_file_close(qn_mapped_file **file)
{
    qn_mapped_file *const f = *file;
    if (f == NULL) {
        return;
    }
    if (f->bytes != NULL) {
        (void)munmap(f->bytes, f->size_bytes);
    }
    free(f);
    *file = NULL;
}

qn_status qn_mapped_file_populate(const qn_mapped_file *file, size_t first, size_t n_bytes,
                                  const char *path, qn_error *err)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    const size_t first_page = first / page_bytes * page_bytes; /* madvise() takes whole pages */
    uint8_t *const from = (uint8_t *)file->bytes + first_page;
    int failed = 0;
    do {
        failed = madvise(from, first + n_bytes - first_page, MADV_POPULATE_READ);
    } while (failed != 0 && errno == EINTR);
    if (failed == 0 || errno == EINVAL) {
        return QN_OK;
    }
    /* EFAULT is what a touch of the page would have made a SIGBUS. */
    return qn_fail(err, errno == ENOMEM ? QN_E_NOMEM : QN_E_IO, errno, __func__,
                   "%s: bytes %zu to %zu: cannot read: %s, a whole file expected", path, first,
                   first + n_bytes, errno == EFAULT ? "missing" : strerror(errno));
}

void qn_mapped_file_release(const qn_mapped_file *file, size_t first, size_t n_bytes)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    const size_t first_page = (first + page_bytes - 1) / page_bytes * page_bytes;
    const size_t end_page = (first + n_bytes) / page_bytes * page_bytes;
    if (first_page < end_page) {
        (void)madvise((uint8_t *)file->bytes + first_page, end_page - first_page, MADV_DONTNEED);
    }
}

const uint8_t *qn_mapped_file_bytes(const qn_mapped_file *file, size_t *size_bytes)
{
    *size_bytes = file->size_bytes;
    return file->bytes;
}
