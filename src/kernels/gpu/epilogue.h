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
 * One output of one slot goes to y.  Outputs that only fill up a strip are left out.
 * @param slot  of the group where groups have their own rows, else of all
 * @param out   output of the matrix, or of each of a pair
 * @param up    of a pair, whose gate value is
 */
QN_DEV void qn_put(const qn_gpu_matmul_args *args, uint32_t group, uint32_t slot, uint32_t out,
                   float value, float up)
{
    const uint64_t at = group * args->y_group_stride + slot * args->y_stride + out;
    if (out >= args->w.n_out) {
        return;
    }
    if (args->epilogue == QN_GPU_SILU_MUL) {
        value = qn_silu(value) * up;
    }
    if (args->epilogue == QN_GPU_ADD) {
        ((float *)args->y)[at] += value;
    } else if (args->y_dtype == QN_GPU_F32) {
        ((float *)args->y)[at] = value;
    } else {
        ((uint16_t *)args->y)[at] = qn_f32_to_bf16(value);
    }
}
#endif
