/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file tiles.h  The layout of packed weights (qn_gpu_weight), for kernels and host alike.
 *
 * A matrix is cut into strips of 16 outputs, a strip into tiles along the inputs: 64 of MXFP4, 32
 * of FP8, 16 of bf16.  A tile has 512 bytes, 16 for each of 32 lanes, so that a warp takes one by
 * one load.  Outputs and inputs are filled up with zeros to multiples of 64: a warpgroup's product
 * has 64 outputs.  Tiles of a strip follow each other along the inputs, strips along the outputs;
 * of a pair, strips of the two matrices take turns.
 *
 * A tile is 1 (bf16), 2 (FP8) or 4 (MXFP4) steps of 16 inputs.  For each, lane l has the fragment
 * of A of mma.m16n8k16 and, as one of its four warps, of wgmma.m64k16: with g = l / 4, t = l % 4
 *   register r (0 .. 3) = output g + 8 (r & 1), inputs 2 t + 8 (r >> 1) and the next one,
 * the first in the low half.  The lane's four words w[0 .. 3] hold, in fields that expand.h opens:
 *   bf16   register r: w[r].
 *   FP8    step s, registers 2 j and 2 j + 1: w[2 s + j], for j 0 and 1.  In both halves of a word
 *          the code of register 2 j has its sign at bit 15 and the other seven bits at 10:4, where
 *          bf16 has them; that of register 2 j + 1 has its sign at bit 11, the upper three of the
 *          other bits at 14:12 and the lower four at 3:0.
 *   MXFP4  step s: w[s].  Put each code's sign at bit 15 and the rest at bits 8:6 of its half, and
 *          let M = 0x81c081c0 be those bits of a word; then, rol being a rotation to the left,
 *            register 0 = w & M                        register 1 = rol(w, 28) & M
 *            register 2 = (rol(w, 2) ^ rol(w, 6)) & M  register 3 = (rol(w, 2) ^ rol(w, 8)) & M
 *          These 32 equations have one solution, and four codes take a shift and a logical
 *          operation each.
 *
 * Scales have strips of their own, in the same order:
 *   FP8    f32 of 128 inputs after another, 16 each: of outputs 0, 8, 1, 9 .. 7, 15.
 *   MXFP4  32 bytes a tile, for output g (0 .. 7) four: output g inputs 0 .. 31 and 32 .. 63, then
 *          output g + 8 the same.  A byte is e8m0 + 126, the exponent of the bf16 number by which
 *          a code in M's bits must be multiplied; so e8m0 is 128 at most.
 */
#ifndef QN_KERNELS_GPU_TILES_H
#define QN_KERNELS_GPU_TILES_H
#include "kernels/gpu/args_matmul.h"

enum {
    QN_TILE_OUT = 16,         /**< Outputs of a strip. */
    QN_TILE_BYTES = 512,      /**< Of any kind. */
    QN_TILE_PAD = 64,         /**< Outputs and inputs are multiples of it. */
    QN_TILE_SCALE_BYTES = 32, /**< Of a tile of MXFP4. */
    QN_TILE_FP8_BLOCK = 128,  /**< Inputs that share a scale of FP8: 64 bytes of scales a strip. */
    QN_TILE_E8M0_BIAS = 126,  /**< Added to e8m0. */
    QN_TILE_E8M0_MAX = 128,   /**< What is above has no such byte. */
};

/** n up to a multiple of 64. */
static inline uint32_t qn_tile_pad(uint32_t n)
{
    return (n + QN_TILE_PAD - 1) / QN_TILE_PAD * QN_TILE_PAD;
}

/** Inputs of a tile. */
static inline uint32_t qn_tile_in(uint32_t kind)
{
    return kind == QN_GPU_W_MXFP4 ? 64 : kind == QN_GPU_W_FP8 ? 32 : 16;
}

/** Strips of a matrix; a pair has twice as many. */
static inline uint32_t qn_tile_strips(uint32_t n_out)
{
    return qn_tile_pad(n_out) / QN_TILE_OUT;
}

/** Bytes of a strip's tiles. */
static inline uint64_t qn_tile_strip_bytes(uint32_t kind, uint32_t n_in)
{
    return (uint64_t)(qn_tile_pad(n_in) / qn_tile_in(kind)) * QN_TILE_BYTES;
}

/** Bytes of a strip's scales. */
static inline uint64_t qn_tile_strip_scale_bytes(uint32_t kind, uint32_t n_in)
{
    const uint32_t n = qn_tile_pad(n_in);
    if (kind == QN_GPU_W_MXFP4) {
        return (uint64_t)(n / 64) * QN_TILE_SCALE_BYTES;
    }
    const uint64_t n_blocks = (n + QN_TILE_FP8_BLOCK - 1) / QN_TILE_FP8_BLOCK;
    return kind == QN_GPU_W_FP8 ? n_blocks * 64 : 0;
}
#endif
