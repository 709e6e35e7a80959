/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_rows.h  Operations on rows of activations, and rows of the paged cache. */
#ifndef QN_KERNELS_GPU_ARGS_ROWS_H
#define QN_KERNELS_GPU_ARGS_ROWS_H
#include <stdint.h>

/** Element types of activations and tables. */
enum { QN_GPU_F32 = 0, QN_GPU_BF16 = 1 };
/** Formats of cache rows: kernels/weight.h, qn_kv_dtype, without those that a GPU does not keep. */
enum { QN_GPU_KV_BF16 = 0, QN_GPU_KV_FP8 = 1 };

/** Rows of one component (of one layer) of all sequences: kernels/weight.h, qn_kv_view. */
typedef struct qn_gpu_cache {
    uint8_t *base;              /**< Row 0 of page 0. */
    const int32_t *page_tables; /**< [n_seqs][n_table_pages] */
    uint32_t n_table_pages;
    uint32_t row_bytes; /**< Multiple of 4. */
    uint32_t dtype;     /**< QN_GPU_KV_ */
    uint32_t latent_dim, rope_dim;
    uint32_t reserved;
} qn_gpu_cache;
_Static_assert(sizeof(qn_gpu_cache) == 40, "host and device agree");

/** x[t] = table[tokens[t]] in f32; a row of zeros for padding, whose token is not read. */
typedef struct qn_gpu_embed_args {
    float *x; /**< [n_rows] rows x_stride apart */
    const void *table;
    const int32_t *tokens;
    const int32_t *positions; /**< [n_rows] */
    uint32_t x_stride;        /**< Elements. */
    uint32_t table_dtype;     /**< QN_GPU_F32 or QN_GPU_BF16 */
    uint32_t n_rows, n_embd;  /**< n_embd is a multiple of 4. */
} qn_gpu_embed_args;
_Static_assert(sizeof(qn_gpu_embed_args) == 48, "host and device agree");

/**
 * y = (x + add) / sqrt(mean((x + add)^2) + eps) * weight.  With add the sum replaces x, which then
 * is f32.
 *
 * Accuracy  within 8 ULP of a sum in f64 where the sum of squares is finite in f32; then rounded
 *           once if bf16
 */
typedef struct qn_gpu_rmsnorm_args {
    uint16_t *y_bf16;            /**< [n_rows] rows y_stride apart; may be NULL */
    float *y_f32;                /**< likewise */
    void *x;                     /**< [n_rows] rows x_stride apart; only changed with add */
    const float *add;            /**< [n_rows] rows x_stride apart; NULL: nothing */
    const float *weight;         /**< [n] */
    uint32_t y_stride, x_stride; /**< Elements; y's of both. */
    uint32_t x_dtype;            /**< QN_GPU_F32 or QN_GPU_BF16 */
    uint32_t n_rows, n;          /**< n is a multiple of 8. */
    float eps;
} qn_gpu_rmsnorm_args;
_Static_assert(sizeof(qn_gpu_rmsnorm_args) == 64, "host and device agree");
/** The same for rows of at most 2048 elements. */
typedef qn_gpu_rmsnorm_args qn_gpu_rmsnorm_narrow_args;

/**
 * cos and sin of the f32 angle (float)position * inv_freq[j], each within 2^-22 of the exact one:
 * once a pass, for all layers.
 */
typedef struct qn_gpu_rope_angles_args {
    float *angles; /**< [n_rows][n_pairs][cos, sin] */
    const int32_t *positions;
    const float *inv_freq; /**< [n_pairs] */
    uint32_t n_rows, n_pairs;
} qn_gpu_rope_angles_args;
_Static_assert(sizeof(qn_gpu_rope_angles_args) == 32, "host and device agree");

/**
 * Rotation of interleaved pairs in place: of n_vectors vectors a row, the first 2 * n_pairs
 * elements from x on.
 *
 * Accuracy  |err| <= 4 * 2^-24 * (|a| + |b|), then rounded once
 */
typedef struct qn_gpu_rope_args {
    uint16_t *x;                         /**< bf16 */
    const float *angles;                 /**< Of qn_gpu_rope_angles_args. */
    uint32_t row_stride, vector_stride;  /**< Elements. */
    uint32_t n_rows, n_vectors, n_pairs; /**< n_pairs is a multiple of 4. */
    uint32_t reserved;
} qn_gpu_rope_args;
_Static_assert(sizeof(qn_gpu_rope_args) == 40, "host and device agree");

/**
 * Rows of the latent cache: kv = [latent | rope key] -> rmsnorm of the latent, rotation of the key,
 * encoded as cache.dtype says at the row's position.  Both dimensions are multiples of 4.
 *
 * Accuracy  norm and rotation as above.  FP8: the bytes of qn_kv_write_fn for the latent that the
 *           norm gave; beside those for a norm in f64, codes differ by one and scales by 16 ULP at
 *           most
 */
typedef struct qn_gpu_kv_rows_args {
    qn_gpu_cache cache;
    const float *kv;     /**< [n_rows] rows kv_stride apart of latent_dim + rope_dim */
    const float *weight; /**< [latent_dim] */
    const float *angles;
    const int32_t *positions, *seqs; /**< [n_rows] */
    uint32_t kv_stride, n_rows;
    float eps;
    uint32_t reserved;
} qn_gpu_kv_rows_args;
_Static_assert(sizeof(qn_gpu_kv_rows_args) == 96, "host and device agree");

/**
 * Rows of the index keys: layernorm, rotation of the first 2 * n_pairs elements, encoded in bf16.
 * Beside that w *= scale, the head weights of the same rows (in f32), where w is not NULL.
 * latent_dim is a multiple of 4, n_pairs even.
 *
 * Accuracy  within 8 ULP of max(|y|, |bias|), + 16 * 2^-24 * max |x| * |weight| / sqrt(var + eps),
 *           rotation as above, then rounded once
 */
typedef struct qn_gpu_index_rows_args {
    qn_gpu_cache cache;         /**< latent_dim is the key's, rope_dim 0 */
    const float *key;           /**< [n_rows] rows key_stride apart */
    const float *weight, *bias; /**< [latent_dim] */
    const float *angles;
    const int32_t *positions, *seqs;
    float *w; /**< [n_rows][n_heads] in place; NULL: nothing */
    uint32_t key_stride, n_rows, n_pairs, n_heads;
    float eps, scale;
} qn_gpu_index_rows_args;
_Static_assert(sizeof(qn_gpu_index_rows_args) == 120, "host and device agree");

/** y[i] = x[rows[i]]: whole rows, n a multiple of 4; as bf16 too where y_bf16 is not NULL. */
typedef struct qn_gpu_gather_args {
    float *y;             /**< [n_rows] rows n apart; may be NULL */
    uint16_t *y_bf16;     /**< likewise */
    const float *x;       /**< rows x_stride apart */
    const uint32_t *rows; /**< [n_rows]; NULL: i */
    uint32_t x_stride, n_rows, n, reserved;
} qn_gpu_gather_args;
_Static_assert(sizeof(qn_gpu_gather_args) == 48, "host and device agree");

/**
 * Pages keep the hidden vector of their last token: rows whose position ends a page are copied.
 * n_embd is a multiple of 4.
 */
typedef struct qn_gpu_page_ends_args {
    float *hidden;  /**< [n_pages] rows page_stride floats apart: the cache's component */
    const float *x; /**< [n_rows][n_embd] */
    const int32_t *positions, *seqs, *page_tables;
    uint32_t n_table_pages, page_stride, n_rows, n_embd;
} qn_gpu_page_ends_args;
_Static_assert(sizeof(qn_gpu_page_ends_args) == 56, "host and device agree");
#endif
