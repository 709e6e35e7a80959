/* SPDX-License-Identifier: Apache-2.0 */
/* The format: u64 little-endian header length, JSON header, data without holes.
 * Source: https://huggingface.co/docs/safetensors, "Format". */
#include "format/safetensors_header.h"

#include "base/json_doc.h"
#include "base/try.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

enum { SHOW_BYTES = 64 };

/* What the functions below share while one header is read. */
typedef struct reader {
    qn_safetensors_header *header;
    const char *what; /* names the file in errors */
    uint64_t data_bytes_max;
    qn_header_fault_fn *on_fault;
    void *context;
    qn_error *err;
} reader;

/* "FILE: tensor NAME: seen, expected".  QN_OK where somebody takes faults: go on. */
QN_PRINTF(4, 5)
static qn_status refuse(const reader *r, qn_header_fault fault, const char *name,
                        const char *format, ...)
{
    char text[400];
    qn_error mine = {0};
    qn_error *const err = r->on_fault != NULL ? &mine : r->err;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->header->is_sound = false;
    const qn_status status =
        fault == QN_HEADER_METADATA
            ? qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: __metadata__: %s", r->what, text)
            : qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: tensor %.200s: %s", r->what, name, text);
    if (r->on_fault == NULL) {
        return status;
    }
    r->on_fault(r->context, fault, qn_str_of(name), mine.text);
    return QN_OK;
}

/* Digits and nothing else, below 2^64. */
static bool to_u64(uint64_t *out, const qn_json_node *node)
{
    if (node == NULL || node->kind != QN_JSON_NUMBER) {
        return false;
    }
    *out = 0;
    for (size_t i = 0; i < node->text.len; i++) {
        const char digit = node->text.ptr[i];
        if (digit < '0' || digit > '9' || __builtin_mul_overflow(*out, 10U, out) ||
            __builtin_add_overflow(*out, (uint64_t)(digit - '0'), out)) {
            return false;
        }
    }
    return true;
}

/* shape -> rank, shape, size_bytes; *is_good stays where it is. */
static qn_status read_shape(const reader *r, qn_tensor *tensor, const qn_json_node *shape,
                            bool *is_good)
{
    char seen[SHOW_BYTES];
    qn_json_node_show(seen, sizeof seen, shape);
    *is_good = false;
    if (shape == NULL || shape->kind != QN_JSON_ARRAY) {
        return refuse(r, QN_HEADER_ENTRY, tensor->name.ptr,
                      "shape: %s, a list of at most %d expected", seen, QN_TENSOR_RANK_MAX);
    }
    if (shape->n_children > QN_TENSOR_RANK_MAX) {
        return refuse(r, QN_HEADER_ENTRY, tensor->name.ptr,
                      "shape: a list of %u, at most %d expected", shape->n_children,
                      QN_TENSOR_RANK_MAX);
    }
    tensor->rank = shape->n_children;
    tensor->size_bytes = qn_dtype_bytes(tensor->dtype);
    const qn_json_node *length = shape + 1;
    for (uint32_t i = 0; i < tensor->rank; i++, length = qn_json_after(length)) {
        if (!to_u64(&tensor->shape[i], length)) {
            qn_json_node_show(seen, sizeof seen, length);
            return refuse(r, QN_HEADER_ENTRY, tensor->name.ptr,
                          "shape[%u]: %s, an integer from 0 expected", i, seen);
        }
        if (__builtin_mul_overflow(tensor->size_bytes, tensor->shape[i], &tensor->size_bytes)) {
            return refuse(r, QN_HEADER_ENTRY, tensor->name.ptr,
                          "shape[%u]: %" PRIu64
                          " makes 2^64 bytes or more, a size that fits the file expected",
                          i, tensor->shape[i]);
        }
    }
    *is_good = true;
    return QN_OK;
}

/* data_offsets -> offset; they must agree with size_bytes.  *is_good where they can be read. */
static qn_status read_offsets(const reader *r, qn_tensor *tensor, const qn_json_node *offsets,
                              bool *is_good)
{
    char seen[2][SHOW_BYTES];
    uint64_t end = 0;
    *is_good = false;
    if (offsets == NULL || offsets->kind != QN_JSON_ARRAY) {
        qn_json_node_show(seen[0], sizeof seen[0], offsets);
        return refuse(r, QN_HEADER_ENTRY, tensor->name.ptr,
                      "data_offsets: %s, [begin, end] expected", seen[0]);
    }
    const qn_json_node *const first = offsets + 1;
    if (offsets->n_children != 2 || first->kind != QN_JSON_NUMBER ||
        first[1].kind != QN_JSON_NUMBER) {
        return refuse(r, QN_HEADER_ENTRY, tensor->name.ptr,
                      "data_offsets: a list of %u, two integers expected", offsets->n_children);
    }
    *is_good = true;
    if (!to_u64(&tensor->offset, first) || !to_u64(&end, first + 1) || tensor->offset > end ||
        end > r->data_bytes_max) {
        qn_json_node_show(seen[0], sizeof seen[0], first);
        qn_json_node_show(seen[1], sizeof seen[1], first + 1);
        return refuse(r, QN_HEADER_OFFSETS, tensor->name.ptr,
                      "data_offsets: [%s, %s], 0 <= begin <= end <= %" PRIu64
                      " (the data in the file) expected",
                      seen[0], seen[1], r->data_bytes_max);
    }
    if (end - tensor->offset != tensor->size_bytes) {
        return refuse(r, QN_HEADER_OFFSETS, tensor->name.ptr,
                      "data_offsets: %" PRIu64 " bytes, %" PRIu64 " expected for dtype and shape",
                      end - tensor->offset, tensor->size_bytes);
    }
    return QN_OK;
}

/* One entry of the header; tensor->name is set.  *is_good: the tensor is there, right or not. */
static qn_status read_tensor(const reader *r, qn_tensor *tensor, const qn_json_node *entry,
                             bool *is_good)
{
    char seen[SHOW_BYTES];
    const qn_json_node *const dtype = qn_json_member(entry, "dtype");
    *is_good = false;
    if (entry->kind != QN_JSON_OBJECT) {
        qn_json_node_show(seen, sizeof seen, entry);
        return refuse(r, QN_HEADER_ENTRY, tensor->name.ptr, "%s, an object expected", seen);
    }
    qn_json_node_show(seen, sizeof seen, dtype);
    if (dtype == NULL || dtype->kind != QN_JSON_STRING) {
        return refuse(r, QN_HEADER_ENTRY, tensor->name.ptr, "dtype: %s, a string expected", seen);
    }
    const qn_str name = {.ptr = dtype->text.ptr + 1, .len = dtype->text.len - 2};
    if (!qn_dtype_parse(&tensor->dtype, name)) {
        return refuse(r, QN_HEADER_DTYPE, tensor->name.ptr,
                      "dtype: %.*s, one of F32, BF16, F8_E4M3, U8 ... expected",
                      name.len < 40 ? (int)name.len : 40, name.ptr);
    }
    qn_status status = read_shape(r, tensor, qn_json_member(entry, "shape"), is_good);
    if (status == QN_OK && *is_good) {
        status = read_offsets(r, tensor, qn_json_member(entry, "data_offsets"), is_good);
    }
    if (status == QN_OK && *is_good && entry->n_children != 3) {
        status = refuse(r, QN_HEADER_ENTRY, tensor->name.ptr,
                        "%u fields, dtype, shape and data_offsets expected", entry->n_children);
    }
    return status;
}

static qn_status check_metadata(const reader *r, const qn_json_node *metadata)
{
    char seen[SHOW_BYTES];
    if (metadata->kind != QN_JSON_OBJECT) {
        qn_json_node_show(seen, sizeof seen, metadata);
        return refuse(r, QN_HEADER_METADATA, "", "%s, an object expected", seen);
    }
    qn_status status = QN_OK;
    const qn_json_node *key = metadata + 1;
    for (uint32_t i = 0; i < metadata->n_children && status == QN_OK; i++) {
        if (key[1].kind != QN_JSON_STRING) {
            qn_json_node_show(seen, sizeof seen, key + 1);
            status =
                refuse(r, QN_HEADER_METADATA, "", "%.*s: %s, a string expected",
                       key->text.len < 100 ? (int)key->text.len - 2 : 100, key->text.ptr + 1, seen);
        }
        key = qn_json_after(key + 1);
    }
    return status;
}

static int by_offset(const void *a, const void *b)
{
    const qn_tensor *const x = a;
    const qn_tensor *const y = b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

/* Of one name the one that stands first in the file. */
static int by_name(const void *a, const void *b)
{
    const qn_str x = ((const qn_tensor *)a)->name;
    const qn_str y = ((const qn_tensor *)b)->name;
    const int order = qn_str_compare(x, y);
    return order != 0 ? order : (x.ptr > y.ptr) - (x.ptr < y.ptr);
}

/* Tensors must cover the data from its first to its last byte, each byte once.  Sorts them. */
static qn_status check_cover(const reader *r)
{
    qn_safetensors_header *const header = r->header;
    qsort(header->tensors, header->n_tensors, sizeof header->tensors[0], by_offset);
    qn_status status = QN_OK;
    for (size_t i = 0; i < header->n_tensors && status == QN_OK; i++) {
        const qn_tensor *const tensor = &header->tensors[i];
        const uint64_t expected = header->data_bytes;
        if (tensor->offset != expected) {
            status =
                refuse(r, QN_HEADER_OFFSETS, tensor->name.ptr,
                       "data_offsets: begins at %" PRIu64 ", %s; %" PRIu64
                       ", where tensor %.100s ends, expected",
                       tensor->offset, tensor->offset < expected ? "an overlap" : "after a hole",
                       expected, i == 0 ? "-" : tensor[-1].name.ptr);
        }
        const uint64_t end = tensor->offset + tensor->size_bytes;
        header->data_bytes = end > expected ? end : expected;
    }
    return status;
}

/* Of each name the first; repeated keys are left by a lax parser alone. */
static qn_status drop_repeated(const reader *r)
{
    qn_safetensors_header *const header = r->header;
    qn_status status = QN_OK;
    size_t n = 0;
    qsort(header->tensors, header->n_tensors, sizeof header->tensors[0], by_name);
    for (size_t i = 0; i < header->n_tensors && status == QN_OK; i++) {
        if (n > 0 && qn_str_equal(header->tensors[n - 1].name, header->tensors[i].name)) {
            status = refuse(r, QN_HEADER_REPEATED, header->tensors[i].name.ptr,
                            "twice in this header, once expected");
        } else {
            header->tensors[n++] = header->tensors[i];
        }
    }
    header->n_tensors = n;
    return status;
}

/* The tensor of one key; its name goes into @p names, which has room for it. */
static qn_status read_entry(const reader *r, const qn_json_node *key, qn_buf *names)
{
    qn_safetensors_header *const header = r->header;
    qn_tensor *const tensor = &header->tensors[header->n_tensors];
    const size_t begin = names->len;
    bool is_good = false;
    qn_status status = QN_OK;
    *tensor = (qn_tensor){0};
    QN_TRY(status, qn_json_string_append(names, key, r->err), fail);
    tensor->name = (qn_str){.ptr = names->ptr + begin, .len = names->len - begin};
    QN_TRY(status, qn_buf_append(names, "", 1, r->err), fail);
    QN_TRY(status, read_tensor(r, tensor, key + 1, &is_good), fail);
    header->n_tensors += is_good ? 1 : 0;
fail:
    return status;
}

static qn_status read_entries(const reader *r, const qn_json_node *object, qn_buf *names)
{
    qn_status status = QN_OK;
    const qn_json_node *key = object + 1;
    for (uint32_t i = 0; i < object->n_children && status == QN_OK; i++) {
        status = qn_json_string_is(key, qn_str_of("__metadata__")) ? check_metadata(r, key + 1)
                                                                   : read_entry(r, key, names);
        key = qn_json_after(key + 1);
    }
    return status;
}

static qn_status read_object(const reader *r, const qn_json_node *object, size_t text_bytes)
{
    qn_safetensors_header *const header = r->header;
    qn_status status = QN_OK;
    qn_buf names;
    qn_buf_init(&names, text_bytes); /* a name's quotes are longer than its NUL */
    if (object->kind != QN_JSON_OBJECT) {
        char seen[SHOW_BYTES];
        qn_json_node_show(seen, sizeof seen, object);
        return qn_fail(r->err, QN_E_FORMAT, 0, __func__, "%s: header: %s, an object expected",
                       r->what, seen);
    }
    header->tensors = calloc((size_t)object->n_children + 1, sizeof header->tensors[0]);
    if (header->tensors == NULL || qn_buf_reserve(&names, text_bytes, NULL) < 0) {
        return qn_fail(r->err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory for %u tensors",
                       r->what, object->n_children);
    }
    header->names = names.ptr;
    QN_TRY(status, read_entries(r, object, &names), fail);
    if (r->on_fault != NULL) { /* else the parser has refused them */
        QN_TRY(status, drop_repeated(r), fail);
    }
    if (header->is_sound) { /* else some of the places are not known */
        QN_TRY(status, check_cover(r), fail);
        qsort(header->tensors, header->n_tensors, sizeof header->tensors[0], by_name);
    }
fail:
    return status;
}

qn_status qn_safetensors_header_length(uint64_t *header_bytes, const uint8_t *bytes,
                                       uint64_t file_bytes, const char *what, qn_error *err)
{
    *header_bytes = 0;
    if (file_bytes < QN_SAFETENSORS_LENGTH_BYTES) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "%s: %" PRIu64 " bytes, a header length of %d bytes expected", what,
                       file_bytes, QN_SAFETENSORS_LENGTH_BYTES);
    }
    for (uint32_t i = 0; i < QN_SAFETENSORS_LENGTH_BYTES; i++) {
        *header_bytes |= (uint64_t)bytes[i] << 8 * i;
    }
    const uint64_t rest_bytes = file_bytes - QN_SAFETENSORS_LENGTH_BYTES;
    const uint64_t bytes_max =
        rest_bytes < QN_SAFETENSORS_HEADER_MAX ? rest_bytes : QN_SAFETENSORS_HEADER_MAX;
    return *header_bytes <= bytes_max
               ? QN_OK
               : qn_fail(err, QN_E_FORMAT, 0, __func__,
                         "%s: header length: %" PRIu64 ", at most %" PRIu64 " expected", what,
                         *header_bytes, bytes_max);
}

qn_status qn_safetensors_header_open(qn_safetensors_header *out, qn_str text,
                                     uint64_t data_bytes_max, const char *what,
                                     qn_header_fault_fn *on_fault, void *context, qn_error *err)
{
    *out = (qn_safetensors_header){.is_sound = true};
    char header_what[600];
    (void)snprintf(header_what, sizeof header_what, "%s: header", what);
    qn_json_doc doc = {0};
    qn_status status = on_fault != NULL ? qn_json_doc_open_lax(&doc, text, header_what, err)
                                        : qn_json_doc_open(&doc, text, header_what, err);
    if (status == QN_OK) {
        const reader r = {.header = out,
                          .what = what,
                          .data_bytes_max = data_bytes_max,
                          .on_fault = on_fault,
                          .context = context,
                          .err = err};
        status = read_object(&r, doc.nodes, text.len);
    }
    qn_json_doc_close(&doc);
    if (status < 0) {
        qn_safetensors_header_close(out);
    }
    return status;
}

void qn_safetensors_header_close(qn_safetensors_header *header)
{
    free(header->tensors);
    free(header->names);
    *header = (qn_safetensors_header){0};
}
