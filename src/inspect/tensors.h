/* SPDX-License-Identifier: Apache-2.0 */
/** @file tensors.h  The tensors that are there against those that the loader will ask for. */
#ifndef QN_INSPECT_TENSORS_H
#define QN_INSPECT_TENSORS_H
#include "format/config.h"
#include "inspect/foreign.h"

/** What the list of tensors tells of a checkpoint. */
typedef struct qn_tensor_facts {
    uint64_t n_parameters;  /**< Elements of the weights that are there, without ... */
    uint64_t n_router_bias; /**< ... the biases that only choose experts. */
    uint64_t n_active;      /**< That a token is multiplied with, the MTP layer not counted. */
    bool has_shaped;        /**< Modules of a format that quern does not run, by their shapes. */
    bool has_mtp;           /**< A tensor of the MTP layer is there, declared or not. */
} qn_tensor_facts;

/**
 * Check every tensor by the rules of the loader (model/bind.c), and report the others.
 *
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_tensors_check(qn_tensor_facts *facts, const qn_config *config,
                                         const qn_inventory *inventory, const qn_foreign *foreign,
                                         const qn_declared *declared, qn_problems *problems,
                                         qn_error *err);
#endif
