/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_dummy.h  Seeded random weights: docs/formats.md, "Dummy weights". */
#ifndef QN_KERNELS_GPU_ARGS_DUMMY_H
#define QN_KERNELS_GPU_ARGS_DUMMY_H
#include <stdint.h>

/** What is made of draws. */
enum {
    QN_GPU_DUMMY_BF16, /**< bf16(v * factor), a draw each. */
    QN_GPU_DUMMY_F32,  /**< factor * (1 + v / 8), a draw each: scales of FP8. */
    QN_GPU_DUMMY_E4M3, /**< Bytes of draws, without their bits 6 and 5, which become 01. */
    QN_GPU_DUMMY_E2M1, /**< Bytes of draws as they are: two codes each. */
    QN_GPU_DUMMY_E8M0, /**< e8m0, or the next one where a draw's byte is below threshold. */
};

/**
 * y[i] = value first + i of an array whose draws begin with number @p counter of a stream: a draw
 * has one number, or eight bytes.  Exact: the bytes of qn_dummy_fill() of model/dummy.h.
 */
typedef struct qn_gpu_dummy_args {
    void *y;            /**< [n] */
    uint64_t key;       /**< Of the stream: base/rng.h, qn_rng_key(). */
    uint64_t counter;   /**< Draw of value 0. */
    uint64_t first;     /**< Of bytes a multiple of 8. */
    uint64_t n;         /**< Numbers, or bytes. */
    float factor;       /**< Of BF16 and F32. */
    uint32_t kind;      /**< QN_GPU_DUMMY_ */
    uint32_t e8m0;      /**< Of E8M0, as the next. */
    uint32_t threshold; /**< 0 .. 256 */
} qn_gpu_dummy_args;
_Static_assert(sizeof(qn_gpu_dummy_args) == 56, "host and device agree");
#endif
