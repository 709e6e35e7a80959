/* SPDX-License-Identifier: Apache-2.0 */
/** @file safetensors.h  One .safetensors file, mapped; every header field checked before use. */
#ifndef QN_FORMAT_SAFETENSORS_H
#define QN_FORMAT_SAFETENSORS_H
#include "quern/status.h"

#include "base/str.h"

#include <stdint.h>

enum {
    QN_TENSOR_RANK_MAX = 8,                /**< Dimensions of a tensor. */
    QN_SAFETENSORS_HEADER_MAX = 100000000, /**< Bytes of a header; the format's own limit. */
    QN_SAFETENSORS_LENGTH_BYTES = 8,       /**< Its length, before it. */
};

/** Element types of the format that this family's checkpoints use; others are refused by name. */
typedef enum qn_dtype {
    QN_DTYPE_F32,     /**< IEEE binary32. */
    QN_DTYPE_F16,     /**< IEEE binary16. */
    QN_DTYPE_BF16,    /**< Upper half of an F32. */
    QN_DTYPE_F8_E4M3, /**< OCP e4m3fn. */
    QN_DTYPE_F8_E5M2, /**< OCP e5m2. */
    QN_DTYPE_F8_E8M0, /**< Power-of-two scale of an MX block. */
    QN_DTYPE_U8,      /**< Unsigned byte; MXFP4 pairs and scales. */
    QN_DTYPE_I8,      /**< Signed byte. */
    QN_DTYPE_I32,     /**< 32-bit integer. */
    QN_DTYPE_I64,     /**< 64-bit integer. */
    QN_DTYPE_F64,     /**< IEEE binary64. */
    QN_DTYPE_BOOL,    /**< One byte, 0 or 1. */
} qn_dtype;

/** "BF16", "F8_E4M3" ...: the format's own name. */
const char *qn_dtype_name(qn_dtype dtype);
/** Bytes of one element. */
uint32_t qn_dtype_bytes(qn_dtype dtype);
/** The type of that name; false where there is none. */
bool qn_dtype_parse(qn_dtype *out, qn_str name);
/** "[2048, 6144]" for messages, cut to @p out_bytes. */
void qn_shape_print(char *out, size_t out_bytes, const uint64_t *shape, uint32_t rank);

/** One tensor of a file.  All borrowed until the file is closed. */
typedef struct qn_tensor {
    qn_str name;                        /**< Unique in its file; no NUL in it, one after it. */
    qn_dtype dtype;                     /**< Of every element. */
    uint32_t rank;                      /**< 0 .. QN_TENSOR_RANK_MAX */
    uint64_t shape[QN_TENSOR_RANK_MAX]; /**< Outermost first. */
    uint64_t offset;                    /**< Of its bytes, behind the header. */
    const uint8_t *data;                /**< In the mapping; no alignment promised. */
    uint64_t size_bytes;                /**< product(shape) * qn_dtype_bytes(dtype), checked. */
} qn_tensor;

/** Opaque; one file. */
typedef struct qn_safetensors qn_safetensors;

/**
 * Map and check one file: header length, JSON, dtype, shape, product without overflow, offsets in
 * the file, no overlap, no hole.  Errors name file and tensor.
 *
 * Returns  QN_OK; QN_E_NOT_FOUND; QN_E_IO; QN_E_FORMAT; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_safetensors_open(qn_safetensors **out, const char *path, qn_error *err);

/** The same over bytes in memory (fuzzing, tests): @p bytes borrowed until close. */
QN_MUST_CHECK qn_status qn_safetensors_open_bytes(qn_safetensors **out, const uint8_t *bytes,
                                                  size_t size_bytes, const char *what,
                                                  qn_error *err);
/** Unmap; sets *file to NULL; accepts NULL. */
void qn_safetensors_close(qn_safetensors **file);

/**
 * Read bytes of the file, from a place in a tensor's data on, into memory: see
 * qn_mapped_file_populate().  Does nothing for bytes that are the caller's.
 */
QN_MUST_CHECK qn_status qn_safetensors_populate(const qn_safetensors *file, const uint8_t *from,
                                                size_t n_bytes, const char *path, qn_error *err);
/** The same bytes are not needed for now: see qn_mapped_file_release(). */
void qn_safetensors_release(const qn_safetensors *file, const uint8_t *from, size_t n_bytes);

/** Number of tensors. */
size_t qn_safetensors_count(const qn_safetensors *file);
/** Size of the whole file. */
uint64_t qn_safetensors_bytes(const qn_safetensors *file);
/** The i-th in order of name (bytewise), borrowed until close. */
const qn_tensor *qn_safetensors_get(const qn_safetensors *file, size_t i_tensor);
/**
 * The bytes before the data, the header's length included, borrowed until close.  A tensor's place
 * in the file is the distance of its data from their first.
 */
qn_str qn_safetensors_head(const qn_safetensors *file);
#endif
