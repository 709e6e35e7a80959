/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_matmul.h  Weights as GPU kernels read them, and products with them. */
#ifndef QN_KERNELS_GPU_ARGS_MATMUL_H
#define QN_KERNELS_GPU_ARGS_MATMUL_H
#include <stdint.h>

/** Kinds of packed weights. */
enum {
    QN_GPU_W_BF16,
    QN_GPU_W_FP8,   /**< e4m3 codes; f32 scale of each output and 128 inputs (both FP8 kinds). */
    QN_GPU_W_MXFP4, /**< e2m1 codes; e8m0 scale of each output and 32 inputs. */
};

/**
 * A matrix W[n_out][n_in], or several of one shape one behind the other, in tiles: the layout is
 * defined by kernels/gpu/tiles.h, on which all kernels and qn_gpu_pack agree.
 *
 * A pair holds two matrices of one shape, gate and up, tile rows of 16 outputs taking turns: gate
 * 0 .. 15, up 0 .. 15, gate 16 .. 31 ...
 */
typedef struct qn_gpu_weight {
    const uint8_t *data;                 /**< On 256 bytes. */
    const uint8_t *scales;               /**< On 256 bytes; NULL for bf16. */
    uint64_t data_stride, scales_stride; /**< Bytes from one matrix, or pair, to the next. */
    uint32_t kind;                       /**< QN_GPU_W_ */
    uint32_t n_out, n_in;                /**< Of one matrix; of a pair, each of the two. */
    uint32_t is_pair;
} qn_gpu_weight;

enum {
    QN_GPU_STORE,    /**< y = product. */
    QN_GPU_ADD,      /**< y += product; y is f32. */
    QN_GPU_SILU_MUL, /**< Of a pair: y = silu(gate) * up. */
};

/**
 * Products y[s] = W_g x[row(s)] for all slots s of each group g.
 *   first_of != NULL  group g has slots first_of[g] .. first_of[g + 1] - 1 (experts); active and
 *                     n_active are there too
 *   first_of == NULL  every group has slots 0 .. n_rows - 1 (n_groups 1: a projection; else heads,
 *                     each of its own columns of x and y by the group strides)
 * Accuracy  as qn_matmul_fn with x in bf16: f32 sums of exact products, in an order that follows
 *           from the shape (and n_rows, unless it is deterministic), not from other rows; silu
 *           within 16 ULP; rounded once if y is bf16
 * Limits    rows of x that are used begin within 2^32 elements of it, scales have less than 4 GiB;
 *           of few_*, all rows of y of a group lie within 2^32 elements; y of QN_GPU_ADD is f32
 */
typedef struct qn_gpu_matmul_args {
    qn_gpu_weight w;          /**< Of group 0. */
    void *y;                  /**< rows y_stride apart */
    const uint16_t *x;        /**< bf16 rows x_stride apart */
    const uint32_t *row_of;   /**< [n_slots] row of x; NULL: the slot's number */
    const uint32_t *first_of; /**< [n_groups + 1] */
    const uint32_t *active; /**< [*n_active] groups with slots, most slots first (args_choice.h) */
    const uint32_t *n_active; /**< [1] */
    /** Room for partial sums, qn_gpu_matmul_partial_bytes() of kernels/gpu_ops.h, or NULL where
       that is 0.  The first QN_GPU_COUNTERS_BYTES are zero before the first launch and after each.
     */
    float *partial;
    uint64_t x_stride, y_stride, x_group_stride, y_group_stride; /**< Elements. */
    uint32_t n_groups;
    uint32_t n_rows; /**< Slots of every group, or with first_of the most that all have together. */
    uint32_t y_dtype;  /**< QN_GPU_F32 or QN_GPU_BF16 */
    uint32_t epilogue; /**< QN_GPU_STORE .. */
    /* By the launcher: */
    uint32_t n_splits;     /**< Parts of the inputs, a block each. */
    uint32_t log_strips;   /**< Two strips to the power of this is what a block has side by side. */
    uint32_t n_pass;       /**< Slots that a block takes at a time. */
    uint32_t is_dependent; /**< Of mma_*: the launch is (device/gpu.h), weights are asked for before
                              the kernel in front of it has ended; without first_of and row_of.
                              That of few_* always is. */
} qn_gpu_matmul_args;
_Static_assert(sizeof(qn_gpu_matmul_args) == 168, "host and device agree");

enum { QN_GPU_COUNTERS_BYTES = 65536 };

/** How few_* cut a product, on which launcher and kernels agree. */
enum {
    QN_GPU_FEW_STRIPS = 8, /**< Of an item. */
    QN_GPU_FEW_TILES = 4,  /**< Of a strip, in a stage. */
    QN_GPU_FEW_STAGES_MAX = 12,
    QN_GPU_FEW_ROWS_MAX = 64,
    QN_GPU_FEW_SCALES_BYTES = 1024, /**< Room in a stage for its scales; bf16 has none. */
};

/** Columns of few_*'s products: the rows, and what fills them up. */
static inline uint32_t qn_gpu_few_columns(uint32_t n_rows)
{
    return n_rows <= 8 ? 8 : n_rows <= 16 ? 16 : n_rows <= 32 ? 32 : QN_GPU_FEW_ROWS_MAX;
}

/**
 * Of few_*, which copy by boxes of tensor maps (device/gpu.h), all of four dimensions.  Of heads
 * that of x has a stride of groups below that of rows, which drivers take.
 */
typedef struct qn_gpu_few_args {
    _Alignas(64) uint8_t x_map[128]; /**< n_in, n_rows, n_groups, 1; boxes of 64 inputs. */
    uint8_t tiles_map[128];          /**< In f32: 128 of a tile, tiles, strips, n_groups. */
    uint8_t scales_map[128]; /**< In f32: 16 of a block of FP8 or 8 of a tile of MXFP4, how many of
                                these, strips, n_groups. */
    qn_gpu_matmul_args product;
    uint32_t n_across; /**< Items of a group. */
    uint32_t n_stages; /**< Of an item. */
    uint32_t n_parts;  /**< Blocks of a cluster, which an item has: a power of 2, QN_GPU_FEW_STRIPS
                          at most. */
    uint32_t n_clusters; /**< Each has an item; or where there are more, every n_clusters-th, and
                            n_parts is 1. */
    uint32_t n_ring;     /**< Stages in a block's shared memory. */
} qn_gpu_few_args;
_Static_assert(sizeof(qn_gpu_few_args) == 576, "host and device agree");

/** Kernels that take them. */
typedef qn_gpu_matmul_args qn_gpu_matmul_plain_args;
typedef qn_gpu_few_args qn_gpu_few_bf16_args;
typedef qn_gpu_few_args qn_gpu_few_fp8_args;
typedef qn_gpu_few_args qn_gpu_few_mxfp4_args;
typedef qn_gpu_matmul_args qn_gpu_mma_bf16_args;
typedef qn_gpu_matmul_args qn_gpu_mma_bf16_wide_args;
typedef qn_gpu_matmul_args qn_gpu_mma_bf16_full_args;
typedef qn_gpu_matmul_args qn_gpu_mma_fp8_args;
typedef qn_gpu_matmul_args qn_gpu_mma_fp8_wide_args;
typedef qn_gpu_matmul_args qn_gpu_mma_mxfp4_args;
typedef qn_gpu_matmul_args qn_gpu_mma_mxfp4_wide_args;
typedef qn_gpu_matmul_args qn_gpu_wgmma_bf16_args;
typedef qn_gpu_matmul_args qn_gpu_wgmma_fp8_args;
typedef qn_gpu_matmul_args qn_gpu_wgmma_mxfp4_args;

/**
 * Row-major weights as a checkpoint has them -> tiles.  f32 is rounded to bf16.  A part of a larger
 * matrix begins where a block of scales does; rows of scales are those of from_stride elements.
 */
typedef struct qn_gpu_pack_args {
    qn_gpu_weight to;
    const uint8_t *from;        /**< Elements (kernels/weight.h, qn_weight_kind). */
    const uint8_t *from_scales; /**< f32 or e8m0 as the kind has it; NULL for bf16 and f32. */
    uint32_t from_kind;         /**< qn_weight_kind */
    uint32_t i_part;            /**< Of a pair: 0 gate, 1 up. */
    uint32_t is_transposed;     /**< from is [n_in][n_out]; bf16 and f32 only. */
    uint32_t from_stride;       /**< Elements from one row of from to the next. */
    uint32_t *flags;            /**< |= 1 where a block scale is NaN or beyond what kernels take
                                     (2^1 of MXFP4), |= 2 where an e4m3 code is NaN. */
} qn_gpu_pack_args;
_Static_assert(sizeof(qn_gpu_pack_args) == 88, "host and device agree");
#endif
