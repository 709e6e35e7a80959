/* SPDX-License-Identifier: Apache-2.0 */
/** @file safetensors_header.h  The JSON header of a .safetensors file: its tensors, each checked.
 */
#ifndef QN_FORMAT_SAFETENSORS_HEADER_H
#define QN_FORMAT_SAFETENSORS_HEADER_H
#include "format/safetensors.h"

/** What can be wrong in a header that is JSON. */
typedef enum qn_header_fault {
    QN_HEADER_METADATA, /**< __metadata__ is no object of strings. */
    QN_HEADER_ENTRY,    /**< A tensor without a dtype, shape and offsets that can be read. */
    QN_HEADER_DTYPE,    /**< A dtype that is not known. */
    QN_HEADER_OFFSETS,  /**< Another size than dtype and shape make, an overlap, a hole. */
    QN_HEADER_REPEATED, /**< A name for the second time. */
} qn_header_fault;

/**
 * Receives a fault; reading goes on.
 * @param tensor   its name, borrowed during the call; empty for METADATA
 * @param message  "FILE: tensor NAME: SEEN, EXPECTED", borrowed during the call
 */
typedef void qn_header_fault_fn(void *context, qn_header_fault fault, qn_str tensor,
                                const char *message);

/** A header that was read.  All-zero is closed. */
typedef struct qn_safetensors_header {
    qn_tensor *tensors; /**< [n_tensors] owned, in order of name, of one name the first alone;
                             data is NULL. */
    size_t n_tensors;
    uint64_t data_bytes; /**< Where the last tensor ends: what follows the header. */
    bool is_sound;       /**< No fault was found: data_bytes is right. */
    char *names;         /**< Owned, every name and its NUL. */
} qn_safetensors_header;

/**
 * Bytes of a file's header, from its first QN_SAFETENSORS_LENGTH_BYTES bytes.
 *
 * Returns  QN_OK; QN_E_FORMAT where there are fewer, or it would not fit the file
 */
QN_MUST_CHECK qn_status qn_safetensors_header_length(uint64_t *header_bytes, const uint8_t *bytes,
                                                     uint64_t file_bytes, const char *what,
                                                     qn_error *err);

/**
 * Read a header.  Without @p on_fault the first fault is the error returned.  With it all are told,
 * and a tensor whose entry cannot be read is left out.
 *
 * @param[out] out        closed on failure
 * @param data_bytes_max  a tensor that ends behind it is at fault
 * @param what            names the file in errors
 * Returns  QN_OK; QN_E_FORMAT, with on_fault only of what is no JSON object; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_safetensors_header_open(qn_safetensors_header *out, qn_str text,
                                                   uint64_t data_bytes_max, const char *what,
                                                   qn_header_fault_fn *on_fault, void *context,
                                                   qn_error *err);
/** Free what is owned; closing twice is fine. */
void qn_safetensors_header_close(qn_safetensors_header *header);
#endif
