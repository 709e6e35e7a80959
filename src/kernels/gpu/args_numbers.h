/* SPDX-License-Identifier: Apache-2.0 */
/** @file args_numbers.h  Conversions between number formats, and sums. */
#ifndef QN_KERNELS_GPU_ARGS_NUMBERS_H
#define QN_KERNELS_GPU_ARGS_NUMBERS_H
#include <stdint.h>

/** y[i] = the value of code x[i].  Exact; x and y on multiples of 16. */
typedef struct qn_gpu_e4m3_to_f32_args {
    float *y;         /**< [n] */
    const uint8_t *x; /**< [n] */
    uint64_t n;       /**< A multiple of 4. */
} qn_gpu_e4m3_to_f32_args;
_Static_assert(sizeof(qn_gpu_e4m3_to_f32_args) == 24, "host and device agree");

/** y[i] = x[i] rounded to nearest even.  x and y on multiples of 16. */
typedef struct qn_gpu_f32_to_bf16_args {
    uint16_t *y;    /**< [n] */
    const float *x; /**< [n] */
    uint64_t n;     /**< A multiple of 8. */
} qn_gpu_f32_to_bf16_args;
_Static_assert(sizeof(qn_gpu_f32_to_bf16_args) == 24, "host and device agree");

/** y[b] = sum of row b of x, in one fixed order; one block a row. */
typedef struct qn_gpu_sum_f32_args {
    float *y;       /**< [blocks] */
    const float *x; /**< [blocks][n] */
    uint64_t n;     /**< May be 0. */
} qn_gpu_sum_f32_args;
_Static_assert(sizeof(qn_gpu_sum_f32_args) == 24, "host and device agree");
#endif
