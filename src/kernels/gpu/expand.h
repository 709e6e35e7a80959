/* SPDX-License-Identifier: Apache-2.0 */
/** @file expand.h  Packed weights (tiles.h) to fragments of bf16 pairs, in registers. */
#ifndef QN_KERNELS_GPU_EXPAND_H
#define QN_KERNELS_GPU_EXPAND_H
#include "kernels/gpu/lang.h"
#include "kernels/gpu/tiles.h"

/** a * b of both halves, for products that bf16 holds exactly. */
QN_DEV uint32_t qn_mul_bf16x2(uint32_t a, uint32_t b)
{
#if defined(__NVPTX__)
    uint32_t product;
    __asm__("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
#else
    const uint32_t low = qn_f32_bits(qn_bf16_low(a) * qn_bf16_low(b));
    return low >> 16 | (qn_f32_bits(qn_bf16_high(a) * qn_bf16_high(b)) & 0xffff0000U);
#endif
}

QN_DEV uint32_t qn_rol(uint32_t word, uint32_t n)
{
    return word << n | word >> (32 - n);
}

/**
 * Multipliers of a tile of MXFP4 from the word of the lane's g: scales[b] for inputs 32 b .. 32 b
 * + 31, output g's in the low half, output g + 8's in the high half.
 */
QN_DEV void qn_expand_scales(uint32_t scales[2], uint32_t word)
{
    scales[0] = word << 7 & 0x7f807f80U;
    scales[1] = word >> 1 & 0x7f807f80U;
}

/** A step of MXFP4: registers a of the lane, scales those of the inputs' block. */
QN_DEV void qn_expand_mxfp4(uint32_t a[4], uint32_t word, uint32_t scales)
{
    const uint32_t mask = 0x81c081c0U;
    const uint32_t low = (scales & 0xffffU) * 0x10001U;
    const uint32_t high = (scales >> 16) * 0x10001U;
    const uint32_t by_2 = qn_rol(word, 2);
    a[0] = qn_mul_bf16x2(word & mask, low);
    a[1] = qn_mul_bf16x2(qn_rol(word, 28) & mask, high);
    a[2] = qn_mul_bf16x2((by_2 ^ qn_rol(word, 6)) & mask, low);
    a[3] = qn_mul_bf16x2((by_2 ^ qn_rol(word, 8)) & mask, high);
}

/**
 * Half a step of FP8: registers 2 j and 2 j + 1 of w[2 s + j], times low and high of which both
 * halves are 2^120 and a power of two for output g, for output g + 8; codes that are NaN give 480.
 */
QN_DEV void qn_expand_fp8_by(uint32_t a[2], uint32_t word, uint32_t low, uint32_t high)
{
    a[0] = qn_mul_bf16x2(word & 0x87f087f0U, low);
    a[1] = qn_mul_bf16x2((word << 4 & 0x80f080f0U) | (word >> 4 & 0x07000700U), high);
}

/** The same as they are. */
QN_DEV void qn_expand_fp8(uint32_t a[2], uint32_t word)
{
    const uint32_t bias = 0x7b807b80U; /* 2^120 */
    qn_expand_fp8_by(a, word, bias, bias);
}

/**
 * A block's scale as m 2^e, 1 <= |m| < 2: gives m, and in both halves of *by 2^(120 + e), by which
 * codes of FP8 in place are multiplied (qn_expand_fp8_by()).  Above 2^7 m is more than 2, below the
 * normal numbers it counts as 2^-127.
 */
QN_DEV float qn_fp8_unit(float scale, uint32_t *by)
{
    const uint32_t bits = qn_f32_bits(scale);
    const uint32_t exponent = bits >> 23 & 0xffU;
    const uint32_t folded = qn_min_u32(exponent, 134);
    *by = (120 + folded) * 0x00800080U;
    return qn_f32_from_bits((bits & 0x807fffffU) | (127 + exponent - folded) << 23);
}

/**
 * A block's sums follow, in units of its m: m and by become those of its scales, of outputs g and
 * g + 8.  Returns by what the sums so far have to be multiplied.
 */
QN_DEV f32x2 qn_fp8_next_units(f32x2 *m, uint32_t by[2], f32x2 scales)
{
    const f32x2 next = {qn_fp8_unit(scales.x, &by[0]), qn_fp8_unit(scales.y, &by[1])};
    const f32x2 factor = {m->x * qn_fast_rcp(next.x), m->y * qn_fast_rcp(next.y)};
    *m = next;
    return factor;
}

/** Steps of 16 inputs in a tile. */
QN_DEV uint32_t qn_tile_steps(uint32_t kind)
{
    return kind == QN_GPU_W_MXFP4 ? 4 : kind == QN_GPU_W_FP8 ? 2 : 1;
}

/**
 * The lane's part of a tile: registers a[qn_tile_steps(kind)].
 * @param kind    a constant
 * @param scales  the word of the lane's g, of MXFP4
 */
QN_DEV void qn_expand_tile(uint32_t a[][4], uint32_t kind, u32x4 words, uint32_t scales)
{
    if (kind == QN_GPU_W_MXFP4) {
        uint32_t multipliers[2];
        qn_expand_scales(multipliers, scales);
        qn_expand_mxfp4(a[0], words.x, multipliers[0]);
        qn_expand_mxfp4(a[1], words.y, multipliers[0]);
        qn_expand_mxfp4(a[2], words.z, multipliers[1]);
        qn_expand_mxfp4(a[3], words.w, multipliers[1]);
    } else if (kind == QN_GPU_W_FP8) {
        qn_expand_fp8(a[0], words.x);
        qn_expand_fp8(a[0] + 2, words.y);
        qn_expand_fp8(a[1], words.z);
        qn_expand_fp8(a[1] + 2, words.w);
    } else {
        a[0][0] = words.x;
        a[0][1] = words.y;
        a[0][2] = words.z;
        a[0][3] = words.w;
    }
}

/**
 * The lane's part of a strip's 64 inputs -> registers of four steps.
 * @param kind    a constant
 * @param tiles   as many as 64 inputs are
 * @param scales  the word of the lane's g, of MXFP4
 * @param by      what qn_fp8_next_units() left, of FP8
 */
QN_DEV void qn_expand_64(uint32_t a[4][4], uint32_t kind, const u32x4 *tiles, uint32_t scales,
                         const uint32_t by[2])
{
    QN_UNROLL(4)
    for (uint32_t i = 0; i < 64 / qn_tile_in(kind); i++) {
        if (kind != QN_GPU_W_FP8) {
            qn_expand_tile(a + i * qn_tile_steps(kind), kind, tiles[i], scales);
            continue;
        }
        QN_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            qn_expand_fp8_by(a[2 * i + j / 2] + j % 2 * 2, tiles[i][j], by[0], by[1]);
        }
    }
}
#endif
