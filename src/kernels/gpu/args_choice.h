/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_choice.h  Routing to experts, and what is drawn from logits. */
#ifndef QN_KERNELS_GPU_ARGS_CHOICE_H
#define QN_KERNELS_GPU_ARGS_CHOICE_H
#include <stdint.h>

enum {
    QN_GPU_EXPERTS_MAX = 256,                         /**< Of a layer, for router and group. */
    QN_GPU_VOCAB_MAX = 1 << 20,                       /**< For sample. */
    QN_GPU_SAMPLE_PART = 8192,                        /**< Ids of a block of sample. */
    QN_GPU_SAMPLE_NOTES_BYTES = 128 * 24 + 1024 * 16, /**< Of a row: gpu/sample.c. */
};

/**
 * kernels/kernels.h, qn_router_fn, of every row.  Padding chooses expert -1 with weight 0; with
 * keep_experts, its weights are 0.
 * Accuracy of weights and choice as there, on scores that are the reference's or a neighbour of it
 */
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
_Static_assert(sizeof(qn_gpu_router_args) == 72, "host and device agree");

/**
 * All (row, choice) pairs in order of their expert, rows in order within one: a stable counting
 * sort.  Pairs of expert -1 get no slot (slot_of is UINT32_MAX); row_of behind the last slot and
 * active behind n_active are not written.
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
_Static_assert(sizeof(qn_gpu_group_args) == 64, "host and device agree");

/**
 * x[t] += sum, sum = shared[t], then sum = fma(weights[t][i], y[slot_of[t][i]], sum) for each i
 * with a slot: exactly.
 */
typedef struct qn_gpu_combine_args {
    float *x;            /**< [n_rows][n_embd] residual stream */
    const float *shared; /**< [n_rows][n_embd]; NULL: none */
    const void *y;       /**< [slots][n_embd], n_embd a multiple of 8 */
    const float *weights;
    const uint32_t *slot_of;
    uint32_t n_rows, n_used, n_embd;
    uint32_t y_dtype; /**< QN_GPU_F32 or QN_GPU_BF16 */
} qn_gpu_combine_args;
_Static_assert(sizeof(qn_gpu_combine_args) == 56, "host and device agree");

/** How one row is drawn: kernels/kernels.h, qn_sample_args. */
typedef struct qn_gpu_sampling {
    float temperature, top_p, min_p;
    uint32_t top_k;
    double unit;
} qn_gpu_sampling;
_Static_assert(sizeof(qn_gpu_sampling) == 24, "host and device agree");

/** kernels/kernels.h, qn_sample_fn, of every row; rows are readable to a multiple of 16 bytes. */
typedef struct qn_gpu_sample_args {
    int32_t *tokens;                 /**< [n_rows]; -1 where nothing can be drawn */
    const float *logits;             /**< [n_rows] rows logits_stride apart */
    const qn_gpu_sampling *settings; /**< [n_rows] */
    void *scratch;                   /**< qn_gpu_sample_scratch_bytes() */
    uint64_t logits_stride;
    uint32_t n_rows, n_vocab;
} qn_gpu_sample_args;
_Static_assert(sizeof(qn_gpu_sample_args) == 48, "host and device agree");
/** Its four kernels take the same. */
typedef qn_gpu_sample_args qn_gpu_sample_largest_args;
typedef qn_gpu_sample_args qn_gpu_sample_soften_args;
typedef qn_gpu_sample_args qn_gpu_sample_count_args;

/** Room for sample: what is noted of a row, and its probabilities. */
static inline uint64_t qn_gpu_sample_scratch_bytes(uint32_t n_rows, uint32_t n_vocab)
{
    return n_rows * (QN_GPU_SAMPLE_NOTES_BYTES + ((uint64_t)n_vocab + 3) / 4 * 16);
}

/** kernels/kernels.h, qn_logsumexp_fn, of every row; rows as for sample. */
typedef struct qn_gpu_logsumexp_args {
    double *y;           /**< [n_rows] */
    const float *logits; /**< [n_rows] rows logits_stride apart */
    uint64_t logits_stride;
    uint32_t n_rows, n_vocab;
} qn_gpu_logsumexp_args;
_Static_assert(sizeof(qn_gpu_logsumexp_args) == 32, "host and device agree");
#endif
