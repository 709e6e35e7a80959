/* SPDX-License-Identifier: Apache-2.0 */
/** @file kernels.h  Every operation of the model on a CPU: one declaration, one table entry. */
#ifndef QN_KERNELS_H
#define QN_KERNELS_H
#include "kernels/weight.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Rules for every kernel here: it neither allocates nor logs nor decides policy; a row's result
 * depends on that row alone, never on how many rows the call has; sums run in one fixed order. Sets
 * for different CPUs may differ in that order, and so in the last bits.
 */

/**
 * Weight row to f32: what "the value of a weight" means for each storage.
 *
 * Shapes   y [n_in] f32
 * Error    none; a scale byte of 255 (NaN) gives a block of NaN
 * Accuracy exact for f32, bf16, MXFP4; FP8: one f32 rounding of code * scale
 * Source   docs/formats.md; OCP MX 1.0; weight_scale_inv of the FP8 checkpoints multiplies
 */
typedef void qn_dequant_row_fn(float *y, const qn_weight *w, uint32_t i_out);

/**
 * One strip of a packed matrix from the stored one (weight.h defines both).
 *
 * Shapes   strip qn_strip_bytes() bytes on a multiple of 64; w at any address
 * Error    none
 * Accuracy exact: bytes are moved
 * Source   weight.h, qn_packed
 */
typedef void qn_pack_strip_fn(uint8_t *strip, const qn_weight *w, uint32_t i_strip);

/**
 * Columns first .. end - 1 of one row of activations as products take them (weight.h, qn_act).
 *
 * Shapes   to qn_act_row_bytes() bytes, x [n_in] f32; first a multiple of 32, end one too or n_in;
 *          with end = n_in the zeros behind it are written as well
 * Error    none
 * Accuracy exact on what weight.h says; a zero has either sign
 * Source   weight.h, qn_act
 */
typedef void qn_prepare_fn(uint8_t *to, qn_act act, const float *x, uint32_t n_in, uint32_t first,
                           uint32_t end);

/** Arguments of qn_matmul_fn. */
typedef struct qn_matmul_args {
    float *y;             /**< [n_rows] rows y_stride apart; column o - out_first holds output o. */
    size_t y_stride;      /**< Elements. */
    const uint8_t *x;     /**< Prepared rows, at least on a multiple of 8. */
    size_t x_stride;      /**< Bytes. */
    const uint32_t *rows; /**< [n_rows] which rows of x; NULL: the first n_rows. */
    const qn_packed *w;   /**< Borrowed. */
    qn_act act;           /**< How x is prepared: qn_act_of() some compute mode. */
    uint32_t n_rows;      /**< May be 0. */
    uint32_t out_first;   /**< First output of this call, a multiple of 16 ... */
    uint32_t out_end;     /**< ... and one past the last: a multiple of 16, or n_out. */
} qn_matmul_args;

/** Prepared row that row @p t of the product is made of. */
static inline const uint8_t *qn_matmul_row(const qn_matmul_args *args, uint32_t t)
{
    return args->x + (args->rows != NULL ? args->rows[t] : t) * args->x_stride;
}

/**
 * y[t][o] = sum_k x[t][k] * W[o][k] for o in out_first .. out_end - 1.
 *
 * Shapes   see qn_matmul_args
 * Aliasing none
 * Error    none; NaN and Inf propagate
 * Accuracy |err| <= (n_in + 8) * 2^-24 * sum |x w| + 2^-126 * (sum |x| + n_in) with x as prepared:
 *          one chain of f32 additions, bf16 weights below the least normal number may count as
 *          zero; so may the sum of a block before its scale, which then multiplies the 2^-126
 * Source   docs/formats.md
 */
typedef void qn_matmul_fn(const qn_matmul_args *args);

/**
 * Root-mean-square normalisation, row by row: y = x / sqrt(mean(x^2) + eps) * weight.
 *
 * Shapes   x [n_rows] rows of n, x_stride apart; y likewise; weight [n] f32
 * Aliasing y may be x with the same stride
 * Error    none; a row of NaN gives a row of NaN
 * Accuracy within 8 ULP of a sum in f64
 * Source   Zhang & Sennrich 2019, eq. 4; GlmMoeDsaRMSNorm with eps of the config everywhere
 */
typedef void qn_rmsnorm_fn(float *y, size_t y_stride, const float *x, size_t x_stride,
                           const float *weight, size_t n_rows, size_t n, float eps);

/**
 * Layer normalisation of one row: y = (x - mean) / sqrt(var + eps) * weight + bias, population
 * variance.
 *
 * Shapes   x, y, weight, bias [n] f32
 * Aliasing y may be x
 * Error    none
 * Accuracy within 8 ULP of max(|y|, |bias|), + n * 2^-53 * max |x| * |weight| / sqrt(var + eps)
 *          for the rounding of a mean in f64
 * Source   Ba et al. 2016; the indexer's k_norm, eps 1e-6
 */
typedef void qn_layernorm_fn(float *y, const float *x, const float *weight, const float *bias,
                             size_t n, float eps);

/**
 * Rotary embedding of interleaved pairs, in place:
 *   (a, b) -> (a cos - b sin, b cos + a sin), angle = (float)position * inv_freq[j] in f32.
 *
 * Shapes   x [n_vectors] vectors stride apart, the first rope_dim elements of each are turned;
 *          inv_freq [rope_dim / 2] f32
 * Error    none
 * Accuracy |err| <= 4 * 2^-24 * (|a| + |b|), for the exact cos and sin of the f32 angle
 * Source   Su et al. 2021, eq. 34, pairs (2j, 2j+1)
 */
typedef void qn_rope_fn(float *x, size_t n_vectors, size_t stride, uint32_t rope_dim,
                        uint32_t position, const float *inv_freq);

/**
 * Gate of SwiGLU: y = silu(gate) * up, silu(z) = z / (1 + exp(-z)).
 *
 * Shapes   all [n] f32
 * Aliasing y may be gate or up
 * Error    none
 * Accuracy within 8 ULP, or 1e-36 * |up| where exp(-gate) overflows; silu(-inf) is -0
 * Source   Shazeer 2020, "GLU variants improve transformer"
 */
typedef void qn_silu_mul_fn(float *y, const float *gate, const float *up, size_t n);

/**
 * y += scale * x.
 *
 * Shapes   all [n] f32
 * Aliasing none
 * Error    none
 * Accuracy |err| <= 2 * 2^-24 * (|y| + |scale x|)
 * Source   docs/model.md, the residual stream and the sum over experts
 */
typedef void qn_axpy_fn(float *y, const float *x, float scale, size_t n);

/** Arguments of qn_router_fn. */
typedef struct qn_router_args {
    int32_t *experts;    /**< [n_used] out, by descending selection score. */
    float *weights;      /**< [n_used] out, in the same order. */
    const float *logits; /**< [n_experts] of this row. */
    const float *bias;   /**< [n_experts] e_score_correction_bias. */
    float *scratch;      /**< n_experts floats; holds the selection scores afterwards. */
    uint32_t n_experts;
    uint32_t n_used;
    bool norm_topk;     /**< Divide the weights by their sum + 1e-20. */
    float routed_scale; /**< Then multiply by this. */
    bool keep_experts;  /**< experts is input: compute the weights of that choice only. */
} qn_router_args;

/**
 * Choose experts: c = sigmoid(logit) + bias, the n_used largest (ties to the lower index, NaN
 * last); weights from the unbiased sigmoid.
 *
 * Shapes   see qn_router_args
 * Error    none
 * Accuracy weights within 16 * 2^-24; the choice is exact on the f32 scores
 * Source   docs/model.md, Experts; DeepSeek-V3 (2412.19437) eq. 13-16
 */
typedef void qn_router_fn(const qn_router_args *args);

/** Arguments of qn_index_scores_fn. */
typedef struct qn_index_scores_args {
    float *scores;   /**< [end - first] out. */
    const float *q;  /**< [n_heads][dim] */
    const float *w;  /**< [n_heads], 1/sqrt(heads) and 1/sqrt(dim) in them. */
    qn_kv_view keys; /**< Rows whose latent part, dim long, is a key. */
    uint32_t n_heads;
    uint32_t first;     /**< Position of the first score. */
    uint32_t end;       /**< Behind the last one. */
    qn_compute compute; /**< Unless f32, queries are rounded to bf16 where the keys are bf16. */
    float *scratch;     /**< qn_index_scratch_floats() floats on a multiple of 64 bytes. */
} qn_index_scores_args;

/** Room for the queries in groups of at most four, two registers a group, and four keys. */
static inline size_t qn_index_scratch_floats(uint32_t n_heads, uint32_t dim)
{
    const size_t n_row = qn_round_up(dim, 32);
    return qn_round_up(n_heads, 4) * (n_row + 8) + 4 * n_row;
}

/**
 * Indexer scores I(t) = sum_h w[h] * relu(q_h . k_t) for positions first .. end - 1.
 *
 * Shapes   see qn_index_scores_args
 * Error    none; NaN propagates
 * Accuracy |err| <= (dim + heads + 8) * 2^-24 * sum |w q k| + 2^-126 * sum |w| (1 + sum |q|):
 *          keys below the least normal number may count as zero
 * Source   docs/model.md, Indexer; DeepSeek-V3.2 report, eq. 1
 */
typedef void qn_index_scores_fn(const qn_index_scores_args *args);

/**
 * Indices of the k largest of n scores, ascending by index.  Exact and deterministic: ties go to
 * the lower index, -0 equals +0, NaN counts as the lowest value.  k >= n selects all.
 *
 * Shapes   set [min(k, n)] i32 out, scores [n] f32
 * Returns  number of indices written
 * Error    none
 * Accuracy exact
 * Source   docs/model.md, Indexer; radix selection over order-preserving keys
 */
typedef uint32_t qn_topk_fn(int32_t *set, const float *scores, uint32_t n, uint32_t k);

/** Arguments of qn_attend_fn. */
typedef struct qn_attend_args {
    float *u;              /**< [n_heads][latent_dim] out. */
    const float *q_latent; /**< [n_heads][latent_dim], absorbed query. */
    const float *q_rope;   /**< n_heads vectors of rope_dim, q_rope_stride apart. */
    size_t q_rope_stride;  /**< Elements. */
    qn_kv_view kv;         /**< Rows (latent, rope). */
    const int32_t *set;    /**< [n_set] positions. */
    uint32_t n_set;        /**< At least 1. */
    uint32_t n_heads;      /**< Heads of this call; a head's result does not depend on others. */
    float scale;           /**< (nope_dim + rope_dim)^-0.5 */
    qn_compute compute; /**< Unless f32, queries and weights exp(s - m), m the largest score so far,
                           are rounded to bf16 where the rows are bf16. */
    float *scratch;     /**< qn_attend_scratch_floats() floats on a multiple of 64 bytes. */
} qn_attend_args;

/** Positions that kernels take at a time. */
enum { QN_ATTEND_BLOCK = 64 };

/** Room for two rows a head, scores of the set or of a block, and a block of rows. */
static inline size_t qn_attend_scratch_floats(uint32_t n_heads, uint32_t n_set, uint32_t latent_dim,
                                              uint32_t rope_dim)
{
    const size_t n_row = qn_round_up(latent_dim + rope_dim, 32);
    const size_t n_scores = n_set < 2 * QN_ATTEND_BLOCK ? 2 * QN_ATTEND_BLOCK : n_set;
    return n_heads * (2 * n_row + qn_round_up((uint32_t)n_scores, 32)) + QN_ATTEND_BLOCK * n_row;
}

/**
 * Absorbed MLA attention over a set of cache rows:
 *   s = scale * (q_latent . c_t + q_rope . ke_t),  p = softmax(s),  u = sum_t p_t c_t
 *
 * Shapes   see qn_attend_args
 * Error    none; NaN propagates
 * Accuracy |err| <= (1e-5 + n_set * 2^-24) * max(1, max |s| / 16) * max |c|, with queries as the
 *          compute mode rounds them; 4e-3 for 1e-5 where it rounds the weights: 2^-9 each for
 *          the sum of rows and for that of the weights
 * Source   docs/model.md, Attention; DeepSeek-V2 (2405.04434) section 2.1.2
 */
typedef void qn_attend_fn(const qn_attend_args *args);

/**
 * Encode one row into the cache: latent [latent_dim] and rope [rope_dim] by the view's dtype.
 *
 * Shapes   latent, rope f32; rope may be NULL when rope_dim is 0; FP8: scale = amax / 448 per 128
 *          (1 where that is 0), code = e4m3(latent / scale), layout codes, scales, rope bf16
 * Error    none
 * Accuracy bf16 and e4m3 round to nearest even
 * Source   SGLang's 656-byte layout; docs/formats.md, Cache rows
 */
typedef void qn_kv_write_fn(const qn_kv_view *view, uint32_t position, const float *latent,
                            const float *rope);

/**
 * Decode one row of the cache: y = [latent | rope].
 *
 * Shapes   y [latent_dim + rope_dim] f32
 * Error    none
 * Accuracy exact for bf16 and f32; FP8: one f32 rounding of code * scale
 * Source   inverse of qn_kv_write_fn
 */
typedef void qn_kv_read_fn(float *y, const qn_kv_view *view, uint32_t position);

/** Arguments of qn_sample_fn. */
typedef struct qn_sample_args {
    const float *logits; /**< [n_vocab] */
    uint32_t n_vocab;
    float temperature;  /**< 0: greedy (first of the largest). */
    float top_p;        /**< (0, 1]; 1: off. */
    uint32_t top_k;     /**< 0: off. */
    float min_p;        /**< [0, 1]; 0: off. */
    double unit;        /**< Uniform draw in [0, 1). */
    float *scratch_p;   /**< n_vocab floats. */
    int32_t *scratch_i; /**< n_vocab ints. */
} qn_sample_args;

/**
 * Draw a token: softmax(logits / temperature), keep the top_k most likely, then the smallest prefix
 * (by descending probability, ties to the lower id) whose sum reaches top_p of what is left, then
 * those with at least min_p times the largest probability; renormalise; inverse-CDF in that order.
 *
 * Shapes   see qn_sample_args
 * Returns  token id; NaN logits are never drawn; -1 when every logit is NaN or -inf
 * Error    none
 * Accuracy the token whose interval of the f64 distribution holds unit +- 1e-6
 * Source   Holtzman et al. 2019 (top-p); order of filters as vLLM and SGLang document
 */
typedef int32_t qn_sample_fn(const qn_sample_args *args);

/**
 * Logarithm of the sum of exp(x): what a logit is less than to be a log-probability.  NaN counts as
 * -Inf, as it is never drawn.
 *
 * Shapes   x [n] f32
 * Returns  -Inf when nothing is above -Inf, n = 0 included; Inf when an element is
 * Error    none
 * Accuracy |err| <= 2e-6 + 2^-52 * |log sum exp(x)|
 * Source   Blanchard, Higham & Higham 2021, "Accurately computing the log-sum-exp and softmax
 *          functions": the formula shifted by the largest element
 */
typedef double qn_logsumexp_fn(const float *x, size_t n);

/** Arguments of qn_mxfp4_encode_fn and qn_mxfp4_measure_fn. */
typedef struct qn_mxfp4_args {
    uint8_t *codes;      /**< [n_blocks][16] e2m1 pairs, low nibble first. */
    uint8_t *scales;     /**< [n_blocks] e8m0. */
    const uint8_t *x;    /**< [n_blocks][32] elements at any alignment. */
    qn_weight_kind kind; /**< Of x: QN_WEIGHT_BF16 or QN_WEIGHT_F32. */
    qn_scale_rule rule;  /**< Of encode alone. */
    size_t n_blocks;     /**< May be 0. */
} qn_mxfp4_args;

/**
 * Blocks of 32 elements as e2m1 codes with an e8m0 scale, the nearest code each, ties to the even
 * one, beyond 6 the 7th; what is coded 0 has no sign.
 *   EVEN  s, the least byte with |x| < 7 * 2^(s - 127), but 254 for 253; a 0 is written as 1,
 *         though its codes mean 2^-127
 *   MSE   s, the least byte with |x| <= 4 * 2^(s - 127), or s - 1 where that has the smaller
 *         squared error; both are held within 1 .. 252, where every decoded value is finite.
 *         Errors are f32 in units of the lower scale, their squares added up in one order:
 *         elements 2 i and 2 i + 1, of these 16 sums i and i + 8, and so on by halves
 *
 * Shapes   see qn_mxfp4_args
 * Aliasing none
 * Returns  n_blocks, or the first block that holds NaN or Inf: what is written of it and after it
 *          means nothing
 * Error    none
 * Accuracy exact: every set gives the same bytes
 * Source   EVEN: AMD Quark 0.13, files compared byte for byte; codes: OCP MX 1.0, 5.3.3 and 6.3;
 *          MSE: docs/quantize.md
 */
typedef size_t qn_mxfp4_encode_fn(const qn_mxfp4_args *args);

/** What codes and scales have lost of x, summed over blocks. */
typedef struct qn_mxfp4_error {
    double x_sq;          /**< Sum of x^2. */
    double error_sq;      /**< Sum of (x - decoded)^2. */
    float error_max;      /**< Largest |x - decoded|. */
    uint64_t n_blocks;    /**< Blocks that were added. */
    uint64_t n_saturated; /**< Of these, blocks with an |x| > 6 * 2^(scale - 127). */
    uint64_t scales[256]; /**< Blocks by scale byte. */
} qn_mxfp4_error;

/**
 * Add to @p error what codes and scales have lost of x.
 *
 * Shapes   see qn_mxfp4_args
 * Aliasing none
 * Error    none; a scale byte of 255 and an x of NaN make NaN of the sums, and error_max then
 *          means nothing
 * Accuracy exact: every set gives the same bits.  The squares of a block are f32 in units of its
 *          scale, added up in the order above; blocks are added to the f64 sums one by one, so it
 *          does not matter how calls cut a tensor
 * Source   docs/quantize.md, the report
 */
typedef void qn_mxfp4_measure_fn(qn_mxfp4_error *error, const qn_mxfp4_args *args);

/**
 * f32 to bf16.
 *
 * Shapes   y [n] bf16 at any address, x [n] f32
 * Aliasing none
 * Error    none; NaN stays a quiet NaN
 * Accuracy exact: nearest even, denormals kept
 * Source   qn_f32_to_bf16() of base/numbers.h
 */
typedef void qn_to_bf16_fn(uint8_t *y, const float *x, size_t n);

/** The operations chosen for this machine.  Filled once; read by any thread. */
typedef struct qn_kernels {
    qn_dequant_row_fn *dequant_row;
    qn_pack_strip_fn *pack_strip;
    qn_prepare_fn *prepare;
    qn_matmul_fn *matmul;
    qn_rmsnorm_fn *rmsnorm;
    qn_layernorm_fn *layernorm;
    qn_rope_fn *rope;
    qn_silu_mul_fn *silu_mul;
    qn_axpy_fn *axpy;
    qn_router_fn *router;
    qn_index_scores_fn *index_scores;
    qn_topk_fn *topk;
    qn_attend_fn *attend;
    qn_kv_write_fn *kv_write;
    qn_kv_read_fn *kv_read;
    qn_sample_fn *sample;
    qn_logsumexp_fn *logsumexp;
    qn_mxfp4_encode_fn *mxfp4_encode;
    qn_mxfp4_measure_fn *mxfp4_measure;
    qn_to_bf16_fn *to_bf16;
} qn_kernels;

/** Fill @p table with the best kernels for the CPU bundles in @p cpu_flags (base/cpu.h). */
void qn_kernels_init(qn_kernels *table, uint32_t cpu_flags);
/** Name of the highest level that is taken from with these flags: "ref" .. */
const char *qn_kernels_level(uint32_t cpu_flags);

/** Operations that have kernels at the same levels. */
typedef enum qn_kernel_class {
    QN_KERNEL_MATMUL_F32, /**< qn_matmul_fn by how its rows are prepared, ... */
    QN_KERNEL_MATMUL_BF16,
    QN_KERNEL_MATMUL_INT8,
    QN_KERNEL_ROUNDED_ROWS, /**< qn_attend_fn, qn_index_scores_fn where queries are rounded. */
    QN_KERNEL_PREPARE,
    QN_KERNEL_OTHER, /**< All others, and the two above where nothing is rounded. */
} qn_kernel_class;

/** Name of the level whose kernel serves with these flags: "ref", "avx2", "avxvnni" .. "amx". */
const char *qn_kernels_level_of(qn_kernel_class class, uint32_t cpu_flags);
/** Every level that this build has, separated by spaces. */
extern const char qn_kernels_levels[];

qn_dequant_row_fn qn_dequant_row_ref;
qn_pack_strip_fn qn_pack_strip_ref;
qn_prepare_fn qn_prepare_ref;
qn_matmul_fn qn_matmul_ref;
qn_rmsnorm_fn qn_rmsnorm_ref;
qn_layernorm_fn qn_layernorm_ref;
qn_rope_fn qn_rope_ref;
qn_silu_mul_fn qn_silu_mul_ref;
qn_axpy_fn qn_axpy_ref;
qn_router_fn qn_router_ref;
qn_index_scores_fn qn_index_scores_ref;
qn_topk_fn qn_topk_ref;
qn_attend_fn qn_attend_ref;
qn_kv_write_fn qn_kv_write_ref;
qn_kv_read_fn qn_kv_read_ref;
qn_sample_fn qn_sample_ref;
qn_logsumexp_fn qn_logsumexp_ref;
qn_mxfp4_encode_fn qn_mxfp4_encode_ref;
qn_mxfp4_measure_fn qn_mxfp4_measure_ref;
qn_to_bf16_fn qn_to_bf16_ref;
#endif
