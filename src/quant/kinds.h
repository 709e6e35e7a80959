/* SPDX-License-Identifier: Apache-2.0 */
/** @file kinds.h  What quantizing has cost, by tensor kind. */
#ifndef QN_QUANT_KINDS_H
#define QN_QUANT_KINDS_H
#include "format/tensor_name.h"
#include "kernels/kernels.h"

#include <jansson.h>

enum { QN_N_STATS = 2 * QN_N_KINDS /**< Each kind, and each kind in the MTP layer. */ };

/** Of one kind of tensor. */
typedef struct qn_kind_stats {
    uint64_t n_tensors;    /**< Of the source; scales of FP8 are none. */
    uint64_t n_encoded;    /**< That became MXFP4. */
    uint64_t n_to_bf16;    /**< That were FP8 and became bf16. */
    uint64_t n_fp8;        /**< That stayed FP8. */
    uint64_t bytes_before; /**< In the source, scales included. */
    uint64_t bytes_after;  /**< In the output. */
    qn_mxfp4_error error;  /**< Of those encoded. */
} qn_kind_stats;

/** Place of a kind among QN_N_STATS. */
static inline size_t qn_stats_index(qn_tensor_kind kind, bool is_mtp)
{
    return (size_t)kind + (is_mtp ? (size_t)QN_N_KINDS : 0);
}

/** Add to @p sum. */
void qn_kind_stats_add(qn_kind_stats *sum, const qn_kind_stats *more);

/** The rows that are not empty as JSON, exact.  NULL without memory. */
json_t *qn_kinds_json(const qn_kind_stats stats[QN_N_STATS]);
/** Does @p kinds have the form of that? */
bool qn_kinds_is_json(const json_t *kinds);
/** Add what such JSON says, which was checked. */
void qn_kinds_add_json(qn_kind_stats stats[QN_N_STATS], const json_t *kinds);
/** Add relative_mse and snr_db, null where there is nothing to compare, to each row of them. */
bool qn_kinds_derive(json_t *kinds);
#endif
