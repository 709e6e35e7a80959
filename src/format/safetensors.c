/* SPDX-License-Identifier: Apache-2.0 */
/* The format: u64 little-endian header length, JSON header, data without holes.
 * Source: https://huggingface.co/docs/safetensors, "Format". */
#include "format/safetensors.h"

#include "base/json.h"
#include "base/try.h"
#include "format/mapped_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

enum { LENGTH_BYTES = 8 };

struct qn_safetensors {
    qn_mapped_file *map; /* owned; NULL where the bytes are the caller's */
    qn_tensor *tensors;  /* owned, in order of name */
    size_t n_tensors;
    uint64_t size_bytes; /* of the file */
    char *names;         /* owned, every name and its NUL */
};

/* What the functions below share while one header is read. */
typedef struct reader {
    qn_safetensors *file;
    const char *what;    /* names the file in errors */
    const uint8_t *data; /* behind the header */
    uint64_t data_bytes;
    qn_error *err;
} reader;

/* "FILE: tensor NAME: seen, expected" */
QN_PRINTF(3, 4)
static qn_status refuse(const reader *r, const char *name, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return qn_fail(r->err, QN_E_FORMAT, 0, "qn_safetensors_open", "%s: tensor %.200s: %s", r->what,
                   name, text);
}

/* shape -> rank, shape, size_bytes */
static qn_status read_shape(const reader *r, qn_tensor *tensor, const json_t *shape)
{
    if (json_array_size(shape) > QN_TENSOR_RANK_MAX) {
        return refuse(r, tensor->name.ptr, "shape: a list of %zu, at most %d expected",
                      json_array_size(shape), QN_TENSOR_RANK_MAX);
    }
    if (!json_is_array(shape)) {
        return refuse(r, tensor->name.ptr, "shape: %s, a list of at most %d expected",
                      qn_json_type_name(shape), QN_TENSOR_RANK_MAX);
    }
    tensor->rank = (uint32_t)json_array_size(shape);
    tensor->size_bytes = qn_dtype_bytes(tensor->dtype);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        const json_t *const length = json_array_get(shape, i);
        if (!json_is_integer(length) || json_integer_value(length) < 0) {
            char seen[64];
            qn_json_show(seen, sizeof seen, length);
            return refuse(r, tensor->name.ptr, "shape[%u]: %s, an integer from 0 expected", i,
                          seen);
        }
        tensor->shape[i] = (uint64_t)json_integer_value(length);
        if (__builtin_mul_overflow(tensor->size_bytes, tensor->shape[i], &tensor->size_bytes)) {
            return refuse(r, tensor->name.ptr,
                          "shape[%u]: %" PRIu64
                          " makes 2^64 bytes or more, a size that fits the file expected",
                          i, tensor->shape[i]);
        }
    }
    return QN_OK;
}

/* data_offsets -> data; they must agree with size_bytes. */
static qn_status read_offsets(const reader *r, qn_tensor *tensor, const json_t *offsets)
{
    const json_t *const first = json_array_get(offsets, 0);
    const json_t *const second = json_array_get(offsets, 1);
    if (!json_is_array(offsets)) {
        return refuse(r, tensor->name.ptr, "data_offsets: %s, [begin, end] expected",
                      qn_json_type_name(offsets));
    }
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second)) {
        return refuse(r, tensor->name.ptr, "data_offsets: a list of %zu, two integers expected",
                      json_array_size(offsets));
    }
    const json_int_t begin = json_integer_value(first);
    const json_int_t end = json_integer_value(second);
    if (begin < 0 || begin > end || (uint64_t)end > r->data_bytes) {
        return refuse(r, tensor->name.ptr,
                      "data_offsets: [%" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
                      "], 0 <= begin <= end <= %" PRIu64 " (the data in the file) expected",
                      begin, end, r->data_bytes);
    }
    if ((uint64_t)(end - begin) != tensor->size_bytes) {
        return refuse(r, tensor->name.ptr,
                      "data_offsets: %" JSON_INTEGER_FORMAT " bytes, %" PRIu64
                      " expected for dtype and shape",
                      end - begin, tensor->size_bytes);
    }
    tensor->data = r->data + begin;
    return QN_OK;
}

/* One entry of the header; tensor->name is set. */
static qn_status read_tensor(const reader *r, qn_tensor *tensor, json_t *entry)
{
    const json_t *const dtype = json_object_get(entry, "dtype");
    if (!json_is_object(entry)) {
        return refuse(r, tensor->name.ptr, "%s, an object expected", qn_json_type_name(entry));
    }
    if (!json_is_string(dtype)) {
        return refuse(r, tensor->name.ptr, "dtype: %s, a string expected",
                      qn_json_type_name(dtype));
    }
    if (!qn_dtype_parse(&tensor->dtype, qn_str_of(json_string_value(dtype)))) {
        return refuse(r, tensor->name.ptr,
                      "dtype: %.40s, one of F32, BF16, F8_E4M3, U8 ... "
                      "expected",
                      json_string_value(dtype));
    }
    qn_status status = read_shape(r, tensor, json_object_get(entry, "shape"));
    if (status == QN_OK) {
        status = read_offsets(r, tensor, json_object_get(entry, "data_offsets"));
    }
    if (status == QN_OK && json_object_size(entry) != 3) {
        status = refuse(r, tensor->name.ptr, "%zu fields, dtype, shape and data_offsets expected",
                        json_object_size(entry));
    }
    return status;
}

static qn_status check_metadata(const reader *r, json_t *metadata)
{
    if (metadata != NULL && !json_is_object(metadata)) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__, "%s: __metadata__: %s, an object expected",
                       r->what, qn_json_type_name(metadata));
    }
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value)) {
            return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                           "%s: __metadata__: %.100s: %s, a string expected", r->what, key,
                           qn_json_type_name(value));
        }
    }
    return QN_OK;
}

static int by_data(const void *a, const void *b)
{
    const qn_tensor *const x = a;
    const qn_tensor *const y = b;
    if (x->data != y->data) {
        return x->data < y->data ? -1 : 1;
    }
    return (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

static int by_name(const void *a, const void *b)
{
    return qn_str_compare(((const qn_tensor *)a)->name, ((const qn_tensor *)b)->name);
}

/* Tensors must cover the data from its first to its last byte, each byte once.  Sorts them. */
static qn_status check_cover(const reader *r)
{
    const qn_safetensors *const file = r->file;
    const uint8_t *end = r->data;
    qsort(file->tensors, file->n_tensors, sizeof file->tensors[0], by_data);
    for (size_t i = 0; i < file->n_tensors; i++) {
        const qn_tensor *const tensor = &file->tensors[i];
        if (tensor->data != end) {
            return refuse(
                r, tensor->name.ptr,
                "data_offsets: begins at %td, %s; %td, where tensor %.100s ends, expected",
                tensor->data - r->data, tensor->data < end ? "an overlap" : "after a hole",
                end - r->data, i == 0 ? "-" : tensor[-1].name.ptr);
        }
        end += tensor->size_bytes;
    }
    const uint64_t covered_bytes = (uint64_t)(end - r->data);
    if (covered_bytes != r->data_bytes) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__,
                       "%s: %" PRIu64 " bytes of data, %" PRIu64 " expected by the header", r->what,
                       r->data_bytes, covered_bytes);
    }
    return QN_OK;
}

/* Make room for all tensors and their names at once. */
static qn_status allocate(const reader *r, json_t *header)
{
    qn_safetensors *const file = r->file;
    size_t names_bytes = 1;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        names_bytes += strlen(name) + 1;
    }
    file->tensors = calloc(json_object_size(header) + 1, sizeof file->tensors[0]);
    file->names = malloc(names_bytes);
    if (file->tensors == NULL || file->names == NULL) {
        return qn_fail(r->err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory for %zu tensors",
                       r->what, json_object_size(header));
    }
    return QN_OK;
}

static qn_status read_header(const reader *r, json_t *header)
{
    qn_safetensors *const file = r->file;
    qn_status status = QN_OK;
    if (!json_is_object(header)) {
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__, "%s: header: %s, an object expected",
                       r->what, qn_json_type_name(header));
    }
    QN_TRY(status, check_metadata(r, json_object_get(header, "__metadata__")), fail);
    QN_TRY(status, allocate(r, header), fail);
    char *names_end = file->names;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        qn_tensor *const tensor = &file->tensors[file->n_tensors];
        const size_t len = strlen(name);
        memcpy(names_end, name, len + 1);
        tensor->name = (qn_str){.ptr = names_end, .len = len};
        names_end += len + 1;
        QN_TRY(status, read_tensor(r, tensor, entry), fail);
        file->n_tensors++;
    }
    QN_TRY(status, check_cover(r), fail);
    qsort(file->tensors, file->n_tensors, sizeof file->tensors[0], by_name);
fail:
    return status;
}

static qn_status read_bytes(qn_safetensors *file, const uint8_t *bytes, size_t size_bytes,
                            const char *what, qn_error *err)
{
    if (size_bytes < LENGTH_BYTES) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: %zu bytes, a header length of %d bytes expected", what, size_bytes,
                       LENGTH_BYTES);
    }
    uint64_t header_bytes = 0;
    for (uint32_t i = 0; i < LENGTH_BYTES; i++) {
        header_bytes |= (uint64_t)bytes[i] << 8 * i;
    }
    const uint64_t rest_bytes = size_bytes - LENGTH_BYTES;
    if (header_bytes > QN_SAFETENSORS_HEADER_MAX || header_bytes > rest_bytes) {
        return qn_fail(
            err, QN_E_FORMAT, 0, __func__,
            "%s: header length: %" PRIu64 ", at most %" PRIu64 " expected", what, header_bytes,
            rest_bytes < QN_SAFETENSORS_HEADER_MAX ? rest_bytes : QN_SAFETENSORS_HEADER_MAX);
    }
    char header_what[600];
    (void)snprintf(header_what, sizeof header_what, "%s: header", what);
    json_t *header = NULL;
    const qn_str text = {.ptr = (const char *)bytes + LENGTH_BYTES, .len = (size_t)header_bytes};
    qn_status status = qn_json_parse(&header, text, header_what, err);
    if (status == QN_OK) {
        const reader r = {
            .file = file,
            .what = what,
            .data = bytes + LENGTH_BYTES + header_bytes,
            .data_bytes = rest_bytes - header_bytes,
            .err = err,
        };
        status = read_header(&r, header);
    }
    json_decref(header);
    return status;
}

qn_status qn_safetensors_open_bytes(qn_safetensors **out, const uint8_t *bytes, size_t size_bytes,
                                    const char *what, qn_error *err)
{
    *out = NULL;
    qn_safetensors *file = calloc(1, sizeof *file);
    if (file == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to open it", what);
    }
    file->size_bytes = size_bytes;
    const qn_status status = read_bytes(file, bytes, size_bytes, what, err);
    if (status < 0) {
        qn_safetensors_close(&file);
    }
    *out = file;
    return status;
}

qn_status qn_safetensors_open(qn_safetensors **out, const char *path, qn_error *err)
{
    *out = NULL;
    qn_mapped_file *map = NULL;
    qn_status status = qn_mapped_file_open(&map, path, err);
    if (status < 0) {
        return status;
    }
    size_t size_bytes = 0;
    const uint8_t *const bytes = qn_mapped_file_bytes(map, &size_bytes);
    status = qn_safetensors_open_bytes(out, bytes, size_bytes, path, err);
    if (*out == NULL) {
        qn_mapped_file_close(&map);
        return status;
    }
    (*out)->map = map;
    return status;
}

void qn_safetensors_close(qn_safetensors **file)
{
    qn_safetensors *const f = *file;
    if (f == NULL) {
        return;
    }
    qn_mapped_file_close(&f->map);
    free(f->names);
    free(f->tensors);
    free(f);
    *file = NULL;
}

/* Place of bytes of the mapping in their file. */
static size_t offset_of(const qn_safetensors *file, const uint8_t *from)
{
    size_t size_bytes = 0;
    return (size_t)(from - qn_mapped_file_bytes(file->map, &size_bytes));
}

qn_status qn_safetensors_populate(const qn_safetensors *file, const uint8_t *from, size_t n_bytes,
                                  const char *path, qn_error *err)
{
    return file->map == NULL
               ? QN_OK
               : qn_mapped_file_populate(file->map, offset_of(file, from), n_bytes, path, err);
}

void qn_safetensors_release(const qn_safetensors *file, const uint8_t *from, size_t n_bytes)
{
    if (file->map != NULL) {
        qn_mapped_file_release(file->map, offset_of(file, from), n_bytes);
    }
}

size_t qn_safetensors_count(const qn_safetensors *file)
{
    return file->n_tensors;
}

uint64_t qn_safetensors_bytes(const qn_safetensors *file)
{
    return file->size_bytes;
}

const qn_tensor *qn_safetensors_get(const qn_safetensors *file, size_t i_tensor)
{
    return &file->tensors[i_tensor];
}
