/* SPDX-License-Identifier: Apache-2.0 */
/** @file gpu_products.h  The products of a model on a GPU, and what their shapes would be. */
#ifndef QN_MODEL_GPU_PRODUCTS_H
#define QN_MODEL_GPU_PRODUCTS_H
#include "model/gpu_glm.h"

/** Products of one shape. */
typedef struct qn_gpu_product {
    qn_gpu_matmul_shape shape; /**< n_rows: those that one token makes. */
    uint32_t n_uses;           /**< Matrices, or of experts and heads groups of them. */
} qn_gpu_product;

enum { QN_GPU_PRODUCTS_MAX = 64 }; /**< 16 places of a matrix, each of three storages. */

/** All products of the passes of a model on a GPU, those alike as one; returns how many. */
uint32_t qn_gpu_list_products(qn_gpu_product out[QN_GPU_PRODUCTS_MAX], const qn_glm *model);

/**
 * The same of a model that is not loaded: no weight is read.
 *
 * @param checkpoint  whose tensors say what is stored how; NULL: dummy weights by options->rules
 * @param experts     storage of dummy experts, the shared ones among them; NULL: by the rules too
 * @param options     those of qn_glm_open(): the GPU's kernels are used, is_deterministic and rules
 * Returns  as qn_glm_open()
 */
QN_MUST_CHECK qn_status qn_gpu_list_stored_products(qn_gpu_product out[QN_GPU_PRODUCTS_MAX],
                                                    uint32_t *n, const qn_config *config,
                                                    const qn_checkpoint *checkpoint,
                                                    const qn_weight_kind *experts,
                                                    const qn_glm_options *options, qn_error *err);
#endif
