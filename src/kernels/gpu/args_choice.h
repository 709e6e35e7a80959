/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_choice.h  Routing to experts, and what is drawn from logits. */
#ifndef QN_KERNELS_GPU_ARGS_CHOICE_H
#define QN_KERNELS_GPU_ARGS_CHOICE_H
#include <stdint.h>

/** kernels/kernels.h, qn_router_fn, of every row.  Padding chooses expert -1. */
typedef struct qn_gpu_router_args {
    int32_t *experts;    /**< [n_rows][n_used] by descending score */
    float *weights;      /**< [n_rows][n_used] */
    const float *logits; /**< [n_rows] rows logits_stride apart */
    const float *bias;   /**< [n_experts] */
    const int32_t *positions;
    uint32_t n_rows, n_experts, n_used, logits_stride;
    float routed_scale;
    uint32_t norm_topk;
    uint32_t keep_experts; /**< experts is input. */
    uint32_t reserved;
} qn_gpu_router_args;

/**
 * All (row, choice) pairs in order of their expert, rows in order within one: a stable counting
 * sort.  Pairs of expert -1 get no slot (slot_of is UINT32_MAX).
 */
typedef struct qn_gpu_group_args {
    uint32_t *first_of; /**< [n_experts + 1] */
    uint32_t *row_of;   /**< [n_rows * n_used] row in each slot */
    uint32_t *slot_of;  /**< [n_rows][n_used] */
    uint32_t *active;   /**< [n_experts] experts with slots, most slots first, ties to the lower */
    uint32_t *n_active; /**< [1] */
    const int32_t *experts;
    uint32_t n_rows, n_used, n_experts, reserved;
} qn_gpu_group_args;

/** x[t] += shared[t] + sum_i weights[t][i] * y[slot_of[t][i]], in that order: a row's own. */
typedef struct qn_gpu_combine_args {
    float *x;            /**< [n_rows][n_embd] residual stream */
    const float *shared; /**< [n_rows][n_embd]; NULL: none */
    const void *y;       /**< [slots][n_embd] */
    const float *weights;
    const uint32_t *slot_of;
    uint32_t n_rows, n_used, n_embd;
    uint32_t y_dtype; /**< QN_GPU_F32 or QN_GPU_BF16 */
} qn_gpu_combine_args;

/** How one row is drawn: kernels/kernels.h, qn_sample_args. */
typedef struct qn_gpu_sampling {
    float temperature, top_p, min_p;
    uint32_t top_k;
    double unit;
} qn_gpu_sampling;

/** kernels/kernels.h, qn_sample_fn, of every row. */
typedef struct qn_gpu_sample_args {
    int32_t *tokens;                 /**< [n_rows]; -1 where nothing can be drawn */
    const float *logits;             /**< [n_rows] rows logits_stride apart */
    const qn_gpu_sampling *settings; /**< [n_rows] */
    float *scratch;                  /**< [n_rows][2 * n_vocab] */
    uint64_t logits_stride;
    uint32_t n_rows, n_vocab;
} qn_gpu_sample_args;

/** kernels/kernels.h, qn_logsumexp_fn, of every row. */
typedef struct qn_gpu_logsumexp_args {
    double *y;           /**< [n_rows] */
    const float *logits; /**< [n_rows] rows logits_stride apart */
    uint64_t logits_stride;
    uint32_t n_rows, n_vocab;
} qn_gpu_logsumexp_args;

/**
 * The accept rule (engine/accept.h) of every sequence: row first_row[s] + j was computed from draft
 * j - 1; its token was drawn.  A sequence keeps drawn tokens up to the first that is not the next
 * draft.
 */
typedef struct qn_gpu_accept_args {
    uint32_t *n_tokens;    /**< [n_seqs] tokens that are the sequence's: 1 .. n_drafts + 1; 0 where
                                the first drawn is -1 */
    const int32_t *drawn;  /**< [rows] */
    const int32_t *drafts; /**< [n_seqs][n_drafts_max] */
    const uint32_t *n_drafts;  /**< [n_seqs] */
    const uint32_t *first_row; /**< [n_seqs] */
    const int32_t *stop_ids;   /**< [n_seqs][n_stops_max], -1 fills up: nothing comes after one */
    uint32_t n_seqs, n_drafts_max, n_stops_max, reserved;
} qn_gpu_accept_args;
#endif
