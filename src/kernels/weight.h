/* SPDX-License-Identifier: Apache-2.0 */
/** @file weight.h  One weight matrix as a kernel sees it, and rows of the paged cache. */
#ifndef QN_KERNELS_WEIGHT_H
#define QN_KERNELS_WEIGHT_H
#include "quern/types.h"

#include "base/page.h"

#include <stddef.h>
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
 * A matrix W[n_out][n_in], y = W x, as a checkpoint stores it.  Bytes are borrowed (from the mapped
 * checkpoint or the dummy block) and may lie at any alignment.
 */
typedef struct qn_weight {
    qn_weight_kind kind;
    uint32_t n_out;
    uint32_t n_in;
    const uint8_t *data;  /**< Elements, row-major. */
    const uint8_t *scale; /**< Scales by kind; NULL for f32 and bf16. */
} qn_weight;

/** Bytes of n elements of a kind; n is even for MXFP4. */
static inline size_t qn_weight_bytes(qn_weight_kind kind, size_t n)
{
    static const uint32_t half_bytes[] = {8, 4, 2, 2, 1}; /* of an element */
    return n * half_bytes[kind] / 2;
}

/** Outputs of a strip, the unit in which packed weights are kept and products are cut. */
enum { QN_STRIP = 16, QN_PACK_K = 32 /**< n_in is rounded up to a multiple of this. */ };

/**
 * A matrix as the kernels read it: strips of 16 outputs, one behind the other, the last one filled
 * up with zeros.  A strip holds
 *   words [K / k_per_word][16] u32, K = n_in rounded up to 32: word (i, lane) has the 4 bytes from
 *         the row-major matrix that hold output lane's elements i * k_per_word and after (1 of f32,
 *         2 of bf16, 4 of e4m3, 8 of e2m1 with the first in the low nibble), zeros behind n_in;
 *   scales, of MXFP4 u8 [K / 32][16], of both FP8 kinds f32 [ceil(K / 128)][16], else none;
 * and zeros up to a multiple of 64 bytes.  Lanes side by side need no sum across a register, one
 * word is what a dot-product instruction takes a lane, and 16 words are a row of an AMX tile.
 */
typedef struct qn_packed {
    qn_weight_kind kind;
    uint32_t n_out;
    uint32_t n_in;
    const uint8_t *data; /**< qn_packed_bytes() bytes on a multiple of 64; borrowed. */
} qn_packed;

static inline uint32_t qn_round_up(uint32_t n, uint32_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static inline uint32_t qn_strips(uint32_t n_out)
{
    return (n_out + QN_STRIP - 1) / QN_STRIP;
}

/** Bytes of a strip's words: where its scales begin. */
static inline size_t qn_strip_word_bytes(qn_weight_kind kind, uint32_t n_in)
{
    return qn_weight_bytes(kind, (size_t)qn_round_up(n_in, QN_PACK_K) * QN_STRIP);
}

static inline size_t qn_strip_bytes(qn_weight_kind kind, uint32_t n_in)
{
    size_t scale_bytes = 0;
    if (kind == QN_WEIGHT_MXFP4) {
        scale_bytes = (size_t)qn_round_up(n_in, QN_PACK_K) / QN_MXFP4_BLOCK * QN_STRIP;
    } else if (kind == QN_WEIGHT_FP8_BLOCK || kind == QN_WEIGHT_FP8_CHANNEL) {
        scale_bytes = (size_t)qn_round_up(n_in, QN_FP8_BLOCK) / QN_FP8_BLOCK * QN_STRIP * 4;
    }
    return (qn_strip_word_bytes(kind, n_in) + scale_bytes + 63) / 64 * 64;
}

static inline size_t qn_packed_bytes(qn_weight_kind kind, uint32_t n_out, uint32_t n_in)
{
    return qn_strips(n_out) * qn_strip_bytes(kind, n_in);
}

/**
 * What activations are rounded to before a product.  A prepared row holds, K being n_in rounded up
 * to 32 and everything behind n_in zero,
 *   F32   f32 [K];
 *   BF16  bf16 [K], nearest even, what is below the least normal number zero (the instructions
 *         take it so);
 *   INT8  i8 [K], scale f32 [K / 32], offset i32 [K / 32].  Of a block of 32: scale = amax / 127, 0
 *         where that is no normal number, NaN where an element is NaN or Inf; code = x / scale to
 *         the nearest even, 0 where the scale is 0 or NaN; offset = -12 * sum of codes, since the
 *         kernels' weights are 2 x + 12.  Each 8 codes stand in the order 0 2 4 6 1 3 5 7: beside
 *         the low and the high nibbles of a word.
 */
typedef enum qn_act {
    QN_ACT_F32,
    QN_ACT_BF16,
    QN_ACT_INT8,
} qn_act;

/** What a compute mode rounds activations to before they meet weights of a kind.  Not AUTO. */
static inline qn_act qn_act_of(qn_weight_kind kind, qn_compute compute)
{
    if (compute == QN_COMPUTE_F32 || kind == QN_WEIGHT_F32) {
        return QN_ACT_F32;
    }
    return compute == QN_COMPUTE_INT8 && kind == QN_WEIGHT_MXFP4 ? QN_ACT_INT8 : QN_ACT_BF16;
}

/** Bytes of a prepared row, a multiple of 8. */
static inline size_t qn_act_row_bytes(qn_act act, uint32_t n_in)
{
    const size_t n = qn_round_up(n_in, QN_PACK_K);
    return act == QN_ACT_F32 ? 4 * n : act == QN_ACT_BF16 ? 2 * n : n + n / QN_MXFP4_BLOCK * 8;
}

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

/** Where the scales of an FP8 row begin (f32, one per 128 latents), after its codes. */
static inline uint32_t qn_kv_fp8_scales_at(uint32_t latent_dim)
{
    return qn_round_up(latent_dim, 4);
}

/** Where the bf16 rope part of an FP8 row begins, after its scales. */
static inline uint32_t qn_kv_fp8_rope_at(uint32_t latent_dim)
{
    return qn_kv_fp8_scales_at(latent_dim) + qn_round_up(latent_dim, QN_FP8_BLOCK) / 32;
}

/** Bytes of a cache row. */
static inline uint32_t qn_kv_row_bytes(qn_kv_dtype dtype, uint32_t latent_dim, uint32_t rope_dim)
{
    switch (dtype) {
    case QN_KV_AUTO: break; /* resolved before any row is laid out */
    case QN_KV_F32: return 4 * (latent_dim + rope_dim);
    case QN_KV_BF16: return qn_round_up(2 * (latent_dim + rope_dim), 4);
    case QN_KV_FP8: return qn_round_up(qn_kv_fp8_rope_at(latent_dim) + 2 * rope_dim, 4);
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
