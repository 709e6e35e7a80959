/* SPDX-License-Identifier: Apache-2.0 */
#include "format/mapped_file.h"
#include "format/safetensors_header.h"

#include <errno.h>
#include <inttypes.h>

struct qn_safetensors {
    qn_mapped_file *map;          /* owned; NULL where the bytes are the caller's */
    qn_safetensors_header header; /* owned */
    uint64_t size_bytes;          /* of the file */
    qn_str head;                  /* borrowed: what stands before the data */
};

static qn_status read_bytes(qn_safetensors *file, const uint8_t *bytes, size_t size_bytes,
                            const char *what, qn_error *err)
{
    qn_safetensors_header *const header = &file->header;
    uint64_t header_bytes = 0;
    qn_status status = qn_safetensors_header_length(&header_bytes, bytes, size_bytes, what, err);
    if (status < 0) {
        return status;
    }
    const uint8_t *const data = bytes + QN_SAFETENSORS_LENGTH_BYTES + header_bytes;
    file->head = (qn_str){.ptr = (const char *)bytes, .len = (size_t)(data - bytes)};
    const uint64_t data_bytes = size_bytes - QN_SAFETENSORS_LENGTH_BYTES - header_bytes;
    const qn_str text = {.ptr = (const char *)bytes + QN_SAFETENSORS_LENGTH_BYTES,
                         .len = (size_t)header_bytes};
    status = qn_safetensors_header_open(header, text, data_bytes, what, NULL, NULL, err);
    if (status == QN_OK && header->data_bytes != data_bytes) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__,
                         "%s: %" PRIu64 " bytes of data, %" PRIu64 " expected by the header", what,
                         data_bytes, header->data_bytes);
    }
    for (size_t i = 0; status == QN_OK && i < header->n_tensors; i++) {
        header->tensors[i].data = data + header->tensors[i].offset;
    }
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
    qn_safetensors_header_close(&f->header);
    free(f);
    *file = NULL;
}

/* Place of bytes of the file in it. */
static size_t offset_of(const qn_safetensors *file, const uint8_t *from)
{
    return (size_t)(from - (const uint8_t *)file->head.ptr);
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
    return file->header.n_tensors;
}

uint64_t qn_safetensors_bytes(const qn_safetensors *file)
{
    return file->size_bytes;
}

qn_str qn_safetensors_head(const qn_safetensors *file)
{
    return file->head;
}

const qn_tensor *qn_safetensors_get(const qn_safetensors *file, size_t i_tensor)
{
    return &file->header.tensors[i_tensor];
}
