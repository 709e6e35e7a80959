/* SPDX-License-Identifier: Apache-2.0 */
/* Packed weights: their sizes, the kernel that makes them, and the one that makes them up. */
#include "device/gpu_block.h"
#include "kernels/gpu/list.h"
#include "kernels/gpu/tiles.h"
#include "kernels/gpu_ops.h"
#include "kernels/weight.h"

/* Kernels do not see weight.h; pack.c has the kinds in this order. */
_Static_assert(QN_WEIGHT_F32 == 0 && QN_WEIGHT_BF16 == 1 && QN_WEIGHT_FP8_BLOCK == 2 &&
                   QN_WEIGHT_FP8_CHANNEL == 3 && QN_WEIGHT_MXFP4 == 4,
               "kinds of weights as kernels/gpu/pack.c has them");

static uint64_t all_strips(uint32_t n_out, bool is_pair, uint64_t strip_bytes)
{
    return qn_gpu_align((uint64_t)qn_tile_strips(n_out) * (is_pair ? 2 : 1) * strip_bytes);
}

uint64_t qn_gpu_weight_data_bytes(uint32_t kind, uint32_t n_out, uint32_t n_in, bool is_pair)
{
    return all_strips(n_out, is_pair, qn_tile_strip_bytes(kind, n_in));
}

uint64_t qn_gpu_weight_scale_bytes(uint32_t kind, uint32_t n_out, uint32_t n_in, bool is_pair)
{
    return all_strips(n_out, is_pair, qn_tile_strip_scale_bytes(kind, n_in));
}

uint32_t qn_gpu_weight_kind(uint32_t weight_kind)
{
    switch (weight_kind) {
    case QN_WEIGHT_MXFP4: return QN_GPU_W_MXFP4;
    case QN_WEIGHT_FP8_BLOCK:
    case QN_WEIGHT_FP8_CHANNEL: return QN_GPU_W_FP8;
    default: return QN_GPU_W_BF16;
    }
}

void qn_gpu_pack(const qn_gpu_ops *ops, const qn_gpu_pack_args *args)
{
    const qn_gpu_weight *to = &args->to;
    const uint64_t n_tiles =
        qn_tile_strips(to->n_out) * (uint64_t)(qn_tile_pad(to->n_in) / qn_tile_in(to->kind));
    const uint64_t n_each = QN_GPU_pack_THREADS / 32; /* 32 threads take a tile at a time */
    const uint64_t n_blocks = (n_tiles + n_each - 1) / n_each;
    const uint64_t n_most = qn_gpu_kernels_info(ops->kernels)->n_sms * UINT64_C(16);
    const uint32_t grid[3] = {(uint32_t)(n_blocks < n_most ? n_blocks : n_most), 1, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_pack, grid, 0, args, sizeof *args);
}

void qn_gpu_dummy(const qn_gpu_ops *ops, const qn_gpu_dummy_args *args)
{
    const uint64_t n_bytes = args->n * (args->kind == QN_GPU_DUMMY_BF16  ? 2
                                        : args->kind == QN_GPU_DUMMY_F32 ? 4
                                                                         : 1);
    const uint64_t n_each = UINT64_C(16) * QN_GPU_dummy_THREADS; /* bytes of a thread */
    const uint64_t n_blocks = (n_bytes + n_each - 1) / n_each;
    const uint64_t n_most = qn_gpu_kernels_info(ops->kernels)->n_sms * UINT64_C(16);
    const uint32_t grid[3] = {(uint32_t)(n_blocks < n_most ? n_blocks : n_most), 1, 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_dummy, grid, 0, args, sizeof *args);
}
