/* SPDX-License-Identifier: Apache-2.0 */
/** @file types.h  Small enumerations that the interface and the library's inside share. */
#ifndef QUERN_TYPES_H
#define QUERN_TYPES_H

#include <stdbool.h>
#include <stdint.h>

/** How much is logged; each level includes those above it. */
typedef enum qn_log_level {
    QN_LOG_ERROR, /**< What made an operation fail. */
    QN_LOG_WARN,  /**< What a user should know, though it goes on. */
    QN_LOG_INFO,  /**< What was chosen at start: kernels, memory, formats. */
    QN_LOG_DEBUG, /**< Detail for developers. */
} qn_log_level;

/** Arithmetic of matrix products on a CPU; results depend on nothing else. */
typedef enum qn_compute {
    QN_COMPUTE_AUTO, /**< By the dtype of each weight: INT8, where there is MXFP4, else BF16. */
    QN_COMPUTE_F32,  /**< f32 activations, f32 sums: the definition of right. */
    QN_COMPUTE_BF16, /**< Activations rounded to bf16, f32 sums. */
    QN_COMPUTE_INT8, /**< MXFP4 weights: activations int8 per block of 32; others as bf16. */
} qn_compute;

/** Storage of cache rows. */
typedef enum qn_kv_dtype {
    QN_KV_AUTO, /**< f32 with compute f32, else bf16. */
    QN_KV_BF16, /**< Two bytes an element. */
    QN_KV_F32,  /**< Four bytes an element. */
    QN_KV_FP8,  /**< Latent e4m3, an f32 scale per 128, rope part bf16: 656 bytes at 512 + 64. */
} qn_kv_dtype;

/** How the scale of a block of 32 elements is chosen (docs/quantize.md). */
typedef enum qn_scale_rule {
    QN_SCALE_EVEN, /**< By the largest element, as AMD Quark does: the same bytes. */
    QN_SCALE_MSE,  /**< Of two candidates the one with the smaller squared error. */
} qn_scale_rule;

/** Called now and then during a long job: how much is done, of how much; false cancels. */
typedef bool qn_progress_fn(void *context, uint64_t done, uint64_t total);

#endif
