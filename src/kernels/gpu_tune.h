/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gpu_tune.h  Measures the variants of an operation on the device at hand: the rows of a
 * table (gpu_tuning.h).
 *
 * Weights and cache rows are random and come from memory, as in decoding: copies of them take
 * turns, or experts, and the L2 cache is swept before each measurement.  A variant whose results
 * are not those of the portable one does not take part.
 */
#ifndef QN_KERNELS_GPU_TUNE_H
#define QN_KERNELS_GPU_TUNE_H
#include "kernels/gpu_tuning.h"

/** Where and how to measure. */
typedef struct qn_gpu_tuner {
    qn_gpu *gpu;
    qn_gpu_ops ops;
    uint64_t cold_bytes;     /**< That a cache cannot keep. */
    uint32_t n_launches;     /**< Of a first measurement; the best are measured thrice as often. */
    bool is_quick;           /**< Strips and splits as the variant finds best, only. */
    uint32_t n_experts_used; /**< Slots of a token in grouped products. */
    /* Of attention and the indexer: */
    uint32_t n_positions; /**< Of each row; more than n_topk. */
    uint32_t n_topk;      /**< Entries of a set. */
    uint32_t rope_dim;    /**< Part of a cache row. */
    uint32_t row_bytes;   /**< Of a cache row of attention; of the indexer 2 n_in. */
    /** Called with each launch that is measured, of number i_rows of rows; false cancels. */
    bool (*progress)(void *context, uint32_t i_rows);
    void *progress_context;
} qn_gpu_tuner;

/**
 * Measure one shape with each number of rows.  Numbers whose results would take more than 1 GiB
 * are left out.  Of attention and index scores one variant (up to its "/") is taken for all: the
 * one that takes the least time in all.
 *
 * @param[out] out  [n_rows]
 * @param rows      [n_rows] powers of two, ascending; of experts, slots
 * @param[out] n    rows that were written
 * @param[out] n_wrong  variants with wrong results; a warning names each
 * Returns  QN_OK; QN_E_NOMEM, QN_E_DEVICE; QN_E_CANCELLED
 */
QN_MUST_CHECK qn_status qn_gpu_tune(qn_gpu_tuning_row *out, uint32_t *n, uint32_t *n_wrong,
                                    const qn_gpu_tuner *tuner, const qn_gpu_tuning_key *key,
                                    const uint32_t *rows, uint32_t n_rows, qn_error *err);
#endif
