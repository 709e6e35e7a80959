/* SPDX-License-Identifier: Apache-2.0 */
/** @file weight.h  One weight matrix as a kernel sees it, and rows of the paged cache. */
#ifndef QN_KERNELS_WEIGHT_H
#define QN_KERNELS_WEIGHT_H
#include "quern/types.h"

#include <stdint.h>

/** How the elements of a matrix are stored. */
typedef enum qn_weight_kind {
    QN_WEIGHT_F32,         /**< f32 [n_out][n_in] */
    QN_WEIGHT_BF16,        /**< bf16 [n_out][n_in] */
    QN_WEIGHT_FP8_BLOCK,   /**< e4m3 [n_out][n_in], scale f32 [ceil(n_out/128)][ceil(n_in/128)] */
    QN_WEIGHT_FP8_CHANNEL, /**< e4m3 [n_out][n_in], scale f32 [n_out] */
    QN_WEIGHT_MXFP4, /**< e2m1 pairs [n_out][n_in/2], low nibble first; e8m0 [n_out][n_in/32] */
} qn_weight_kind;

enum {
    QN_FP8_BLOCK = 128,  /**< Rows and columns that share a scale of QN_WEIGHT_FP8_BLOCK. */
    QN_MXFP4_BLOCK = 32, /**< Columns that share a scale of QN_WEIGHT_MXFP4; divides n_in. */
};

/**
 * A matrix W[n_out][n_in], y = W x.  Bytes are borrowed (from the mapped checkpoint or the dummy
 * block) and may lie at any alignment.
 */
typedef struct qn_weight {
    qn_weight_kind kind;
    uint32_t n_out;
    uint32_t n_in;
    const uint8_t *data;  /**< Elements, row-major. */
    const uint8_t *scale; /**< Scales by kind; NULL for f32 and bf16. */
} qn_weight;

enum { QN_PAGE_TOKENS = 64 }; /**< Positions of a page. */

/**
 * One component (of one layer) of one sequence's cache, seen through its page table.  Row t lies at
 * base + (pages[t / 64] * 64 + t % 64) * row_bytes.
 */
typedef struct qn_kv_view {
    uint8_t *base;        /**< Row 0 of page 0 of the pool; borrowed during the call. */
    const int32_t *pages; /**< Page table of the sequence; borrowed during the call. */
    uint32_t row_bytes;   /**< Multiple of 4. */
    qn_kv_dtype dtype;
    uint32_t latent_dim; /**< First part of a row (kv_rank, or index_dim for index keys). */
    uint32_t rope_dim;   /**< Second part; 0 for index keys. */
} qn_kv_view;

/** Bytes of a cache row; FP8 keeps scales between the latent codes and the rope part. */
static inline uint32_t qn_kv_row_bytes(qn_kv_dtype dtype, uint32_t latent_dim, uint32_t rope_dim)
{
    switch (dtype) {
    case QN_KV_AUTO: break; /* resolved before any row is laid out */
    case QN_KV_F32: return 4 * (latent_dim + rope_dim);
    case QN_KV_BF16: return (2 * (latent_dim + rope_dim) + 3) / 4 * 4;
    case QN_KV_FP8:
        return ((latent_dim + 3) / 4 * 4 + 4 * ((latent_dim + 127) / 128) + 2 * rope_dim + 3) / 4 *
               4;
    }
    return 0;
}

/** Address of row @p position. */
static inline uint8_t *qn_kv_row(const qn_kv_view *view, uint32_t position)
{
    const uint64_t row = (uint64_t)view->pages[position / QN_PAGE_TOKENS] * QN_PAGE_TOKENS +
                         position % QN_PAGE_TOKENS;
    return view->base + row * view->row_bytes;
}
#endif
