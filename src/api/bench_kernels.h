/* SPDX-License-Identifier: Apache-2.0 */
/** @file bench_kernels.h  One call of a kernel as a model makes it, on operands made up. */
#ifndef QN_API_BENCH_KERNELS_H
#define QN_API_BENCH_KERNELS_H
#include "api/internal.h"
#include "kernels/roof.h"

enum { QN_BENCH_BLOCKS_MAX = 8 };

/** What calls are made with. */
typedef struct qn_bench_machine {
    const qn_model *model; /**< Its kernels, config, compute and cache dtype. */
    qn_pool *pool;
    qn_roof roof;
    uint8_t *cold; /**< [n_cold] owned: weights that no cache holds as a whole. */
    size_t n_cold;
    uint32_t context_tokens;
    qn_weight_kind cold_kind; /**< What lies in it now: strips of this kind and length. */
    uint32_t cold_n_in;       /**< 0: nothing. */
} qn_bench_machine;

/** A call: what its threads do, on which operands, and how much that is. */
typedef struct qn_bench_call {
    qn_bench_machine *machine;
    qn_pool_fn *range; /**< Of n_items. */
    size_t n_items;
    uint32_t n_rows, n_in, n_out;
    qn_act act;
    bool has_act; /**< Arithmetic whose peak is known limits it. */
    bool is_cold; /**< So does reading bytes from memory. */
    double bytes, ops;
    qn_weight_kind kind;
    size_t strip_bytes, n_cold_strips, next_strip;
    uint8_t *x;       /**< Prepared rows, or what else a kernel reads ... */
    size_t x_stride;  /**< ... bytes apart. */
    float *in, *more; /**< Floats that a kernel reads. */
    float *out;
    int32_t *ints;
    float *scratch; /**< [threads][scratch_floats] */
    size_t scratch_floats;
    qn_kv_view view;
    void *blocks[QN_BENCH_BLOCKS_MAX]; /**< Owned: all of the above. */
    size_t n_blocks;
} qn_bench_call;

/**
 * Make the call of a kernel of the list.
 *
 * @param product  what it multiplies by; NULL: it is none
 * Returns  QN_OK; QN_E_NOMEM.  qn_bench_call_close() in any case
 */
QN_MUST_CHECK qn_status qn_bench_call_open(qn_bench_call *out, qn_bench_machine *machine,
                                           const qn_kernel_choice *kernel,
                                           const qn_glm_product *product, uint32_t n_rows,
                                           qn_error *err);
void qn_bench_call_close(qn_bench_call *call);

/** Do it once: for qn_time_call(). */
void qn_bench_call_run(void *call);
#endif
