/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_attention.h  Index scores, top-k, attention over pages. */
#ifndef QN_KERNELS_GPU_ARGS_ATTENTION_H
#define QN_KERNELS_GPU_ARGS_ATTENTION_H
#include "kernels/gpu/args_rows.h"

/**
 * scores[t][i] = sum_h w[h] relu(q_h . k_p) for positions p = first_position + i up to the row's
 * own; rows whose positions all fit into the top-k are skipped.
 */
typedef struct qn_gpu_index_scores_args {
    qn_gpu_cache keys; /**< bf16 rows of latent_dim, a multiple of 8; row_bytes one of 16 */
    float *scores;     /**< [n_rows] rows scores_stride apart */
    const uint16_t *q; /**< bf16 [n_rows][n_heads][latent_dim] */
    const float *w;    /**< [n_rows][n_heads] */
    const int32_t *positions, *seqs;
    uint64_t scores_stride;
    uint32_t n_rows, n_heads;
    uint32_t first_position;
    uint32_t n_topk;          /**< Rows with at most so many positions need no scores. */
    uint32_t n_positions_max; /**< No row has more: the extent of the launch. */
    uint32_t reserved;
} qn_gpu_index_scores_args;
_Static_assert(sizeof(qn_gpu_index_scores_args) == 112, "host and device agree");
/** By tensor cores. */
typedef qn_gpu_index_scores_args qn_gpu_index_scores_mma_args;

/**
 * The positions of the n_topk largest scores of each row, ascending; all of them while they fit.
 * Exact: ties to the lower position, -0 equals +0, NaN lowest.  Sets hold positions
 * (first_position added).
 */
typedef struct qn_gpu_topk_args {
    int32_t *sets;    /**< [n_rows] rows n_topk apart */
    uint32_t *n_sets; /**< [n_rows]; 0 of padding */
    const float *scores;
    const int32_t *positions;
    uint64_t scores_stride;
    uint32_t n_rows, n_topk, first_position, reserved;
} qn_gpu_topk_args;
_Static_assert(sizeof(qn_gpu_topk_args) == 56, "host and device agree");

enum {
    QN_GPU_ATTEND_SPLIT = 256, /**< Entries of a set that are attended by themselves. */
    QN_GPU_ATTEND_HEADS = 8,   /**< Of a block of the portable kernel. */
};

/**
 * Absorbed MLA attention of every row and head over the row's set of positions:
 *   s = scale * (q_latent . c_p + q_rope . ke_p),  u = softmax(s) c
 * Cut into splits of QN_GPU_ATTEND_SPLIT set entries, whatever the batch, and put together in
 * order: a row's bits depend on the row alone.  A set of none gives zeros, and its row's seq is
 * not looked at.
 *
 * Accuracy  as qn_attend_fn with rounded weights; tensor cores take FP8 rows rounded to bf16
 */
typedef struct qn_gpu_attend_args {
    qn_gpu_cache kv;          /**< latent_dim is a multiple of 4, rope_dim even */
    uint16_t *u;              /**< bf16 [n_rows][n_heads][latent_dim] */
    const uint16_t *q_latent; /**< bf16 [n_rows][n_heads][latent_dim] */
    const uint16_t *q_rope; /**< bf16, of head h of row t at t * q_row_stride + h * q_head_stride */
    const int32_t *seqs;    /**< [n_rows] */
    const int32_t *sets;    /**< [n_rows] rows set_stride apart */
    const uint32_t *n_sets;
    /** Sums of splits, [n_rows][n_splits][n_heads][latent_dim]; fewer where a block takes whole
     * rows: qn_gpu_attend_partial_floats() (kernels/gpu_ops.h) */
    float *partial_u;
    float *partial_m; /**< [n_rows][n_splits][n_heads][largest score, sum of weights] */
    uint64_t q_row_stride, q_head_stride; /**< Elements. */
    uint32_t n_rows, n_heads, set_stride;
    uint32_t n_splits; /**< ceil(longest set that can be / QN_GPU_ATTEND_SPLIT) */
    float scale;
    uint32_t is_whole; /**< One block takes all splits of a row and joins them; by the launcher. */
} qn_gpu_attend_args;
_Static_assert(sizeof(qn_gpu_attend_args) == 144, "host and device agree");
/** By tensor cores, heads in tiles of 64 or 16. */
typedef qn_gpu_attend_args qn_gpu_attend_mma64_args;
typedef qn_gpu_attend_args qn_gpu_attend_mma16_args;
typedef qn_gpu_attend_args qn_gpu_attend_wgmma64_args;
/** Puts the splits together. */
typedef qn_gpu_attend_args qn_gpu_attend_join_args;
#endif
