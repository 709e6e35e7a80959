/* SPDX-License-Identifier: Apache-2.0 */
/** @file epilogue.h  What becomes of a product (args_matmul.h). */
#ifndef QN_KERNELS_GPU_EPILOGUE_H
#define QN_KERNELS_GPU_EPILOGUE_H
#include "kernels/gpu/lang.h"

/** x / (1 + exp(-x)) within 8 ULP; -0 where exp(-x) is beyond f32. */
QN_DEV float qn_silu(float x)
{
    return x / (1.0F + qn_fast_exp2(-1.44269504F * x));
}

/**
 * Some outputs go to y, those that are there to elements first + at[i]; what they are added to is
 * read for all at once.
 * @param up  of a pair, whose gate values are
 * @param n   a constant, 4 at most
 */
QN_DEV void qn_put_all(const qn_gpu_matmul_args *args, uint64_t first, const uint32_t *at,
                       const bool *is_there, const float *value, const float *up, const uint32_t n)
{
    float y[4];
    float *to_f32 = (float *)args->y + first;
    uint16_t *to_bf16 = (uint16_t *)args->y + first;
    QN_UNROLL(4)
    for (uint32_t i = 0; i < n; i++) {
        y[i] = value[i];
        if (args->epilogue == QN_GPU_SILU_MUL) {
            y[i] = qn_silu(value[i]) * up[i];
        }
    }
    if (args->y_dtype == QN_GPU_BF16) {
        QN_UNROLL(4)
        for (uint32_t i = 0; i < n; i++) {
            if (is_there[i]) {
                to_bf16[at[i]] = qn_f32_to_bf16(y[i]);
            }
        }
        return;
    }
    if (args->epilogue == QN_GPU_ADD) {
        float old[4];
        QN_UNROLL(4)
        for (uint32_t i = 0; i < n; i++) {
            old[i] = is_there[i] ? to_f32[at[i]] : 0;
        }
        QN_UNROLL(4)
        for (uint32_t i = 0; i < n; i++) {
            y[i] += old[i];
        }
    }
    QN_UNROLL(4)
    for (uint32_t i = 0; i < n; i++) {
        if (is_there[i]) {
            to_f32[at[i]] = y[i];
        }
    }
}

/**
 * One output of one slot goes to y.  Outputs that only fill up a strip are left out.
 * @param slot  of the group where groups have their own rows, else of all
 * @param out   output of the matrix, or of each of a pair
 * @param up    of a pair, whose gate value is
 */
QN_DEV void qn_put(const qn_gpu_matmul_args *args, uint32_t group, uint32_t slot, uint32_t out,
                   float value, float up)
{
    const uint64_t first = group * args->y_group_stride + slot * args->y_stride + out;
    const uint32_t at = 0;
    const bool is_there = out < args->w.n_out;
    qn_put_all(args, first, &at, &is_there, &value, &up, 1);
}
#endif
