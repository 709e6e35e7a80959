/* SPDX-License-Identifier: Apache-2.0 */
#include "format/safetensors_writer.h"

#include "base/assert.h"
#include "base/file.h"
#include "base/json.h"
#include "base/try.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TENSORS_MAX = 900, /* each has an open file until it is finished */
    HEADER_ALIGN = 8,
};

/* One tensor and the nameless file that its rows are spooled to. */
typedef struct spool {
    char *name; /* owned */
    qn_dtype dtype;
    uint32_t row_rank;
    uint64_t row_shape[QN_TENSOR_RANK_MAX];
    uint64_t row_bytes;
    uint64_t n_rows;
    int fd;
} spool;

struct qn_safetensors_writer {
    char *path;           /* owned, final name; links are followed */
    char *part_path;      /* owned, name until then; NULL where path is a device or pipe */
    char *spool_template; /* owned, for mkostemp() */
    int fd;               /* of part_path; -1 when none */
    spool *spools;        /* owned */
    size_t n_spools;
};

static qn_status fail_write(const char *path, qn_error *err)
{
    const int sys = errno;
    return qn_fail(err, QN_E_IO, sys, "qn_safetensors_writer",
                   "%s: cannot write: %s, a place to write to expected", path, strerror(sys));
}

/* A copy of @p path with @p suffix behind it, owned by the caller; NULL without memory. */
static char *with_suffix(const char *path, const char *suffix)
{
    const size_t size_bytes = strlen(path) + strlen(suffix) + 1;
    char *const out = malloc(size_bytes);
    if (out != NULL) {
        (void)snprintf(out, size_bytes, "%s%s", path, suffix);
    }
    return out;
}

static qn_status no_memory(const char *path, qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, "qn_safetensors_writer_open",
                   "%s: no memory to write it", path);
}

/* realpath() of what must exist, for writing @p target; *out is owned by the caller. */
static qn_status real_path(char **out, const char *path, const char *target, qn_error *err)
{
    errno = ENOMEM;
    *out = realpath(path, NULL);
    if (*out != NULL) {
        return QN_OK;
    }
    return errno == ENOMEM ? no_memory(target, err) : fail_write(target, err);
}

/* The path of a file that is not there yet, in the real path of its folder. */
static qn_status new_path(char **out, const char *path, qn_error *err)
{
    const char *name;
    const qn_str parent_part = qn_path_parent(path, &name);
    char *const parent = strndup(parent_part.ptr, parent_part.len);
    char *folder = NULL;
    *out = NULL;
    qn_status status =
        parent != NULL ? real_path(&folder, parent, path, err) : no_memory(path, err);
    if (status == QN_OK) {
        *out = qn_path_join(folder, name);
        status = *out != NULL ? QN_OK : no_memory(path, err);
    }
    free(parent);
    free(folder);
    return status;
}

/* Open the file that becomes writer->path when it is finished: beside it, so that a rename is
 * enough. It will be as readable as the @p old one. */
static qn_status open_part(qn_safetensors_writer *writer, const struct stat *old, qn_error *err)
{
    enum { TRIES = 100 };
    char suffix[48];
    for (int i = 0; i < TRIES && writer->fd < 0; i++) {
        (void)snprintf(suffix, sizeof suffix, ".%ld-%d.part", (long)getpid(), i);
        char *const part_path = with_suffix(writer->path, suffix);
        if (part_path == NULL) {
            return no_memory(writer->path, err);
        }
        writer->fd = open(part_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (writer->fd >= 0) {
            writer->part_path = part_path;
            break;
        }
        const int sys = errno;
        free(part_path);
        errno = sys;
        if (sys != EEXIST) {
            break;
        }
    }
    if (writer->fd < 0) {
        return fail_write(writer->path, err);
    }
    if (old != NULL) {
        (void)fchmod(writer->fd, old->st_mode & 07777);
    }
    return QN_OK;
}

static qn_status open_target(qn_safetensors_writer *writer, const char *path, qn_error *err)
{
    qn_status status = QN_OK;
    struct stat info;
    const bool is_there = stat(path, &info) == 0;
    const bool is_special = is_there && !S_ISREG(info.st_mode); /* a rename would replace it */
    struct stat link;
    if (!is_there && lstat(path, &link) == 0) {
        return qn_fail(err, QN_E_IO, ENOENT, __func__,
                       "%s: cannot write: a link to nothing, a place to write to expected", path);
    }
    if (is_special) {
        writer->path = with_suffix(path, "");
        status = writer->path != NULL ? QN_OK : no_memory(path, err);
    } else {
        status = is_there ? real_path(&writer->path, path, path, err)
                          : new_path(&writer->path, path, err);
    }
    if (status < 0) {
        return status;
    }
    QN_ASSERT(writer->path != NULL);
    writer->spool_template = is_special ? with_suffix(P_tmpdir "/quern", ".spool-XXXXXX")
                                        : with_suffix(writer->path, ".spool-XXXXXX");
    if (writer->spool_template == NULL) {
        return no_memory(path, err);
    }
    if (!is_special) {
        return open_part(writer, is_there ? &info : NULL, err);
    }
    writer->fd = open(path, O_WRONLY | O_CLOEXEC);
    return writer->fd >= 0 ? QN_OK : fail_write(writer->path, err);
}

qn_status qn_safetensors_writer_open(qn_safetensors_writer **out, const char *path, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    qn_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to write it", path);
    }
    writer->fd = -1;
    QN_TRY(status, open_target(writer, path, err), fail);
    *out = writer;
    return QN_OK;

fail:
    qn_safetensors_writer_close(&writer);
    return status;
}

const char *qn_safetensors_writer_path(const qn_safetensors_writer *writer)
{
    return writer->path;
}

static qn_status write_all(const qn_safetensors_writer *writer, int fd, const void *bytes,
                           uint64_t n_bytes, qn_error *err)
{
    const uint8_t *next = bytes;
    while (n_bytes > 0) {
        const ssize_t n = write(fd, next, n_bytes);
        if (n < 0 && errno != EINTR) {
            return fail_write(writer->path, err);
        }
        if (n > 0) {
            next += n;
            n_bytes -= (uint64_t)n;
        }
    }
    return QN_OK;
}

/* Does a row of these fit what the tensor has? */
static bool is_same_row(const spool *tensor, qn_dtype dtype, const uint64_t *row_shape,
                        uint32_t row_rank)
{
    return tensor->dtype == dtype && tensor->row_rank == row_rank &&
           (row_rank == 0 ||
            memcmp(tensor->row_shape, row_shape, row_rank * sizeof row_shape[0]) == 0);
}

static qn_status add_spool(qn_safetensors_writer *writer, const char *name, qn_dtype dtype,
                           const uint64_t *row_shape, uint32_t row_rank, qn_error *err)
{
    if (writer->n_spools >= TENSORS_MAX || row_rank >= QN_TENSOR_RANK_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: tensor %s: number %zu of row rank %u, at most %d of %d expected",
                       writer->path, name, writer->n_spools + 1, row_rank, TENSORS_MAX,
                       QN_TENSOR_RANK_MAX - 1);
    }
    spool tensor = {.dtype = dtype, .row_rank = row_rank, .row_bytes = qn_dtype_bytes(dtype)};
    for (uint32_t i = 0; i < row_rank; i++) {
        tensor.row_shape[i] = row_shape[i];
        if (__builtin_mul_overflow(tensor.row_bytes, row_shape[i], &tensor.row_bytes)) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "%s: tensor %s: a row of 2^64 bytes or more, fewer expected",
                           writer->path, name);
        }
    }
    spool *const spools = realloc(writer->spools, (writer->n_spools + 1) * sizeof *spools);
    if (spools == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory for tensor %s",
                       writer->path, name);
    }
    writer->spools = spools;
    tensor.name = with_suffix(name, "");
    char *const path = with_suffix(writer->spool_template, "");
    tensor.fd = path == NULL ? -1 : mkostemp(path, O_CLOEXEC);
    qn_status status = QN_OK;
    if (tensor.name == NULL || path == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory for tensor %s",
                         writer->path, name);
    } else if (tensor.fd < 0) {
        status = fail_write(writer->path, err);
    }
    if (tensor.fd >= 0) {
        (void)unlink(path);
    }
    free(path);
    if (status < 0) {
        if (tensor.fd >= 0) {
            (void)close(tensor.fd);
        }
        free(tensor.name);
        return status;
    }
    writer->spools[writer->n_spools++] = tensor;
    return QN_OK;
}

qn_status qn_safetensors_writer_append(qn_safetensors_writer *writer, const char *name,
                                       qn_dtype dtype, const uint64_t *row_shape, uint32_t row_rank,
                                       const void *rows, uint64_t n_rows, qn_error *err)
{
    size_t i = 0;
    while (i < writer->n_spools && strcmp(writer->spools[i].name, name) != 0) {
        i++;
    }
    if (i == writer->n_spools) {
        const qn_status status = add_spool(writer, name, dtype, row_shape, row_rank, err);
        if (status < 0) {
            return status;
        }
    }
    spool *const tensor = &writer->spools[i];
    uint64_t n_bytes = 0;
    if (!is_same_row(tensor, dtype, row_shape, row_rank) ||
        __builtin_mul_overflow(n_rows, tensor->row_bytes, &n_bytes)) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "%s: tensor %s: rows of another dtype or shape, those of the first call "
                       "expected",
                       writer->path, name);
    }
    const qn_status status = write_all(writer, tensor->fd, rows, n_bytes, err);
    tensor->n_rows += status == QN_OK ? n_rows : 0;
    return status;
}

/* Largest elements first, so that every tensor starts on a multiple of its element. */
static int by_element_size(const void *a, const void *b)
{
    const spool *const x = a;
    const spool *const y = b;
    const uint32_t x_bytes = qn_dtype_bytes(x->dtype);
    const uint32_t y_bytes = qn_dtype_bytes(y->dtype);
    return x_bytes != y_bytes ? (x_bytes < y_bytes) - (x_bytes > y_bytes)
                              : strcmp(x->name, y->name);
}

/* {"dtype", "shape", "data_offsets"} of a tensor whose data begin at *at, which moves on. */
static json_t *describe(const spool *tensor, uint64_t *at)
{
    json_t *const shape = json_array();
    int result = json_array_append_new(shape, json_integer((json_int_t)tensor->n_rows));
    for (uint32_t i = 0; i < tensor->row_rank; i++) {
        result |= json_array_append_new(shape, json_integer((json_int_t)tensor->row_shape[i]));
    }
    const uint64_t begin = *at;
    *at += tensor->n_rows * tensor->row_bytes;
    if (result != 0) {
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", qn_dtype_name(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)*at);
}

/*
 * JSON text of @p header, owned by the caller; NULL without memory.  Not json_dumps(): up to
 * jansson 2.14 it leaves out a key whose bytes it has no memory for, and says nothing.
 */
static char *dump(const json_t *header)
{
    const size_t len = json_dumpb(header, NULL, 0, JSON_COMPACT);
    char *text = len > 0 ? malloc(len + 1) : NULL;
    if (text != NULL && json_dumpb(header, text, len, JSON_COMPACT) == len) {
        text[len] = '\0';
        return text;
    }
    free(text);
    return NULL;
}

/* The header's JSON text, owned by the caller; NULL without memory or for a name not in UTF-8. */
static char *make_header(qn_safetensors_writer *writer)
{
    uint64_t at = 0;
    json_t *const header = json_object();
    int result = 0;
    for (size_t i = 0; i < writer->n_spools; i++) {
        result |=
            json_object_set_new(header, writer->spools[i].name, describe(&writer->spools[i], &at));
    }
    char *const text = result == 0 ? dump(header) : NULL;
    json_decref(header);
    return text;
}

static qn_status write_header(const qn_safetensors_writer *writer, const char *text, qn_error *err)
{
    static const char spaces[HEADER_ALIGN] = "       ";
    const size_t text_bytes = strlen(text);
    const size_t pad_bytes = -text_bytes % HEADER_ALIGN;
    const uint64_t header_bytes = text_bytes + pad_bytes;
    uint8_t length[8];
    for (uint32_t i = 0; i < sizeof length; i++) {
        length[i] = (uint8_t)(header_bytes >> 8 * i);
    }
    qn_status status = QN_OK;
    QN_TRY(status, write_all(writer, writer->fd, length, sizeof length, err), fail);
    QN_TRY(status, write_all(writer, writer->fd, text, text_bytes, err), fail);
    QN_TRY(status, write_all(writer, writer->fd, spaces, pad_bytes, err), fail);
fail:
    return status;
}

static qn_status copy_spool(const qn_safetensors_writer *writer, const spool *tensor, qn_error *err)
{
    enum { PIECE_BYTES = 1 << 30 };
    uint64_t left_bytes = tensor->n_rows * tensor->row_bytes;
    off_t from = 0;
    while (left_bytes > 0) {
        const size_t piece_bytes = left_bytes < PIECE_BYTES ? (size_t)left_bytes : PIECE_BYTES;
        const ssize_t n = sendfile(writer->fd, tensor->fd, &from, piece_bytes);
        if (n == 0) {
            errno = EIO; /* someone cut the nameless file short */
        }
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return fail_write(writer->path, err);
        }
        left_bytes -= n > 0 ? (uint64_t)n : 0;
    }
    return QN_OK;
}

qn_status qn_safetensors_writer_finish(qn_safetensors_writer *writer, qn_error *err)
{
    qn_status status = QN_OK;
    if (writer->n_spools > 0) {
        qsort(writer->spools, writer->n_spools, sizeof writer->spools[0], by_element_size);
    }
    char *const header = make_header(writer);
    if (header == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__,
                       "%s: no memory for the header, or a tensor name not in UTF-8", writer->path);
    }
    QN_TRY(status, write_header(writer, header, err), fail);
    for (size_t i = 0; i < writer->n_spools; i++) {
        QN_TRY(status, copy_spool(writer, &writer->spools[i], err), fail);
    }
    if (writer->part_path != NULL &&
        (fsync(writer->fd) != 0 || rename(writer->part_path, writer->path) != 0)) {
        status = fail_write(writer->path, err);
        goto fail;
    }
    (void)close(writer->fd);
    writer->fd = -1; /* finished: close() leaves the file */
fail:
    free(header);
    return status;
}

void qn_safetensors_writer_close(qn_safetensors_writer **writer)
{
    qn_safetensors_writer *const w = *writer;
    if (w == NULL) {
        return;
    }
    for (size_t i = 0; i < w->n_spools; i++) {
        if (w->spools[i].fd >= 0) {
            (void)close(w->spools[i].fd);
        }
        free(w->spools[i].name);
    }
    if (w->fd >= 0) {
        (void)close(w->fd);
        if (w->part_path != NULL) {
            (void)unlink(w->part_path);
        }
    }
    free(w->spools);
    free(w->spool_template);
    free(w->part_path);
    free(w->path);
    free(w);
    *writer = NULL;
}
