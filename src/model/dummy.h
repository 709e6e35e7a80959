/* SPDX-License-Identifier: Apache-2.0 */
/** @file dummy.h  Seeded random values in place of trained ones: docs/formats.md, "Dummy weights".
 */
#ifndef QN_MODEL_DUMMY_H
#define QN_MODEL_DUMMY_H
#include "model/weights.h"

/** Rows first .. first + n - 1 of a matrix, bf16 [n][spec->n_in] at any address.  Any thread. */
void qn_dummy_matrix(uint8_t *to, const qn_tensor_spec *spec, uint64_t seed, uint64_t stream,
                     uint32_t first, uint32_t n);
/** A norm or bias, f32 [spec->n_out]. */
void qn_dummy_vector(float *to, const qn_tensor_spec *spec, uint64_t seed, uint64_t stream);
#endif
