/* SPDX-License-Identifier: Apache-2.0 */
/** @file dummy.h  Seeded random values in place of trained ones: docs/formats.md, "Dummy weights".
 */
#ifndef QN_MODEL_DUMMY_H
#define QN_MODEL_DUMMY_H
#include "kernels/gpu/args_dummy.h"
#include "model/weights.h"

/** One matrix that is made up. */
typedef struct qn_dummy {
    const qn_tensor_spec *spec; /**< Borrowed. */
    qn_weight_kind kind;        /**< Not F32. */
    uint64_t seed, stream;      /**< The stream is a hash of the name. */
} qn_dummy;

/**
 * What makes elements of rows first .. first + n - 1, row-major at @p to: for qn_dummy_fill() or,
 * to being on a device, qn_gpu_dummy().
 */
qn_gpu_dummy_args qn_dummy_elements(const qn_dummy *matrix, void *to, uint32_t first, uint32_t n);
/** What makes the scales that these rows use; n is 0 in it where the kind has none. */
qn_gpu_dummy_args qn_dummy_scales(const qn_dummy *matrix, void *to, uint32_t first, uint32_t n);
/** Make values on the CPU, at any address.  Any thread. */
void qn_dummy_fill(const qn_gpu_dummy_args *args);

/** Bytes of n rows with their scales, for qn_dummy_rows(). */
size_t qn_dummy_rows_bytes(const qn_dummy *matrix, uint32_t n);
/**
 * Rows first .. first + n - 1 at @p room, a matrix of their own.  Of FP8 in blocks they begin one,
 * or lie in one.
 */
qn_weight qn_dummy_rows(const qn_dummy *matrix, uint8_t *room, uint32_t first, uint32_t n);

/** A norm or bias, f32 [spec->n_out]. */
void qn_dummy_vector(float *to, const qn_tensor_spec *spec, uint64_t seed, uint64_t stream);
#endif
