/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights of a checkpoint to tiles (tiles.h). 32 threads make a tile, each its 16 bytes from single
 * elements: those that 32 of them read at a time are whole sectors, and each is read once.
 */
#include "kernels/gpu/expand.h"

/* qn_weight_kind of kernels/weight.h, which kernels do not see; gpu_matmul.c holds them equal. */
enum { FROM_F32, FROM_BF16, FROM_FP8_BLOCK, FROM_FP8_CHANNEL, FROM_MXFP4 };

/* The bits of an element: of bf16, or a code; 0 outside of the matrix. */
QN_DEV uint32_t element(const qn_gpu_pack_args *args, uint32_t out, uint32_t in)
{
    if (out >= args->to.n_out || in >= args->to.n_in) {
        return 0;
    }
    const uint64_t at = args->is_transposed != 0 ? (uint64_t)in * args->from_stride + out
                                                 : (uint64_t)out * args->from_stride + in;
    switch (args->from_kind) {
    case FROM_F32: return qn_f32_to_bf16(((const float *)args->from)[at]);
    case FROM_BF16: return ((const uint16_t *)args->from)[at];
    case FROM_MXFP4: return args->from[at / 2] >> at % 2 * 4 & 0xf;
    default: return args->from[at];
    }
}

/* Two elements of a register, with their bits where bf16 has them. */
QN_DEV uint32_t place(uint32_t kind, uint32_t first, uint32_t second)
{
    const uint32_t both = first | second << 16;
    if (kind == QN_GPU_W_MXFP4) {
        return (both & 0x00080008U) << 12 | (both & 0x00070007U) << 6;
    }
    return kind == QN_GPU_W_FP8 ? (both & 0x00800080U) << 8 | (both & 0x007f007fU) << 4 : both;
}

/* The word from which qn_expand_fp8() takes both registers. */
QN_DEV uint32_t join_fp8(const uint32_t r[2])
{
    return r[0] | (r[1] & 0x80f080f0U) >> 4 | (r[1] & 0x07000700U) << 4;
}

QN_DEV uint32_t qn_ror(uint32_t word, uint32_t n)
{
    return qn_rol(word, 32 - n);
}

/*
 * The word from which qn_expand_mxfp4() takes four registers. Registers 0 and 1 have bits of their
 * own; what the word so far gives for 2 and 3 is wrong in single bits, each of which is mended by
 * one that nothing before it takes.
 */
QN_DEV uint32_t join_mxfp4(const uint32_t r[4])
{
    uint32_t w = r[0] | qn_rol(r[1], 4);
    uint32_t wrong = r[3] ^ qn_rol(w, 2) ^ qn_rol(w, 8);
    w |= qn_ror(wrong & 0x01000100U, 8) | qn_ror(wrong & 0x80808080U, 2);
    wrong = r[2] ^ qn_rol(w, 2) ^ qn_rol(w, 6);
    w |= qn_ror(wrong & 0x00400040U, 2) | qn_ror(wrong & 0x81808180U, 6);
    wrong = r[3] ^ qn_rol(w, 2) ^ qn_rol(w, 8);
    return w | qn_ror(wrong & 0x00400040U, 8);
}

/* The lane's word i of a tile that begins with output first_out and input first_in. */
QN_DEV uint32_t word_of(const qn_gpu_pack_args *args, uint32_t kind, uint32_t first_out,
                        uint32_t first_in, uint32_t i)
{
    const uint32_t lane = qn_thread() % 32;
    const uint32_t log_words = kind == QN_GPU_W_MXFP4 ? 0 : kind == QN_GPU_W_FP8 ? 1 : 2;
    const uint32_t step = i >> log_words;
    const uint32_t n = 4U >> log_words; /* registers of a word */
    uint32_t r[4];
    QN_UNROLL(4)
    for (uint32_t j = 0; j < n; j++) {
        const uint32_t i_register = (i * n + j) % 4;
        const uint32_t out = first_out + lane / 4 + 8 * (i_register & 1);
        const uint32_t in = first_in + 16 * step + 2 * (lane % 4) + 8 * (i_register >> 1);
        const uint32_t first = element(args, out, in);
        const uint32_t second = element(args, out, in + 1);
        if (kind == QN_GPU_W_FP8 && ((first & 0x7f) == 0x7f || (second & 0x7f) == 0x7f)) {
            QN_ATOMIC(or, args->flags, 2);
        }
        r[j] = place(kind, first, second);
    }
    return kind == QN_GPU_W_MXFP4 ? join_mxfp4(r) : kind == QN_GPU_W_FP8 ? join_fp8(r) : r[0];
}

/* One scale of MXFP4. */
QN_DEV uint32_t scale_mxfp4(const qn_gpu_pack_args *args, uint32_t out, uint32_t block)
{
    if (out >= args->to.n_out || block * 32 >= args->to.n_in) {
        return 0;
    }
    const uint32_t e8m0 = args->from_scales[(uint64_t)out * (args->from_stride / 32) + block];
    if (e8m0 > QN_TILE_E8M0_MAX) {
        QN_ATOMIC(or, args->flags, 1);
    }
    return qn_min_u32(e8m0, QN_TILE_E8M0_MAX) + QN_TILE_E8M0_BIAS;
}

/* One scale of either kind of FP8. */
QN_DEV float scale_fp8(const qn_gpu_pack_args *args, uint32_t out, uint32_t block)
{
    if (out >= args->to.n_out) {
        return 0;
    }
    const uint64_t n_blocks = (args->from_stride + QN_TILE_FP8_BLOCK - 1) / QN_TILE_FP8_BLOCK;
    const float *scales = (const float *)args->from_scales;
    const float scale = args->from_kind == FROM_FP8_CHANNEL
                            ? scales[out]
                            : scales[out / QN_TILE_FP8_BLOCK * n_blocks + block];
    if (!(qn_abs(scale) <= 0x1.fffffep127F)) {
        QN_ATOMIC(or, args->flags, 1);
    }
    return scale;
}

/* The scales of a tile, or of the block of inputs that begins with it; g: one of 8 threads. */
QN_DEV void put_scales(const qn_gpu_pack_args *args, uint32_t kind, uint32_t strip, uint8_t *to,
                       uint32_t tile, uint32_t g)
{
    const uint32_t out = strip * QN_TILE_OUT + g;
    if (kind == QN_GPU_W_MXFP4) {
        ((uint32_t *)(to + (uint64_t)tile * QN_TILE_SCALE_BYTES))[g] =
            scale_mxfp4(args, out, 2 * tile) | scale_mxfp4(args, out, 2 * tile + 1) << 8 |
            scale_mxfp4(args, out + 8, 2 * tile) << 16 |
            scale_mxfp4(args, out + 8, 2 * tile + 1) << 24;
    } else if (kind == QN_GPU_W_FP8 && tile % 4 == 0) {
        ((f32x2 *)(to + (uint64_t)(tile / 4) * 64))[g] =
            (f32x2){scale_fp8(args, out, tile / 4), scale_fp8(args, out + 8, tile / 4)};
    }
}

QN_DEV void pack(const qn_gpu_pack_args *args, uint32_t kind)
{
    const uint32_t n_tiles = qn_tile_pad(args->to.n_in) / qn_tile_in(kind);
    const uint32_t n = qn_tile_strips(args->to.n_out) * n_tiles;
    const uint32_t lane = qn_thread() % 32;
    QN_UNROLL(1)
    for (uint32_t i = qn_block_x() * (QN_GPU_pack_THREADS / 32) + qn_thread() / 32; i < n;
         i += qn_blocks_x() * (QN_GPU_pack_THREADS / 32)) {
        const uint32_t strip = i / n_tiles;
        const uint32_t tile = i % n_tiles;
        const uint32_t at = args->to.is_pair != 0 ? 2 * strip + args->i_part : strip;
        u32x4 words;
        words.x = word_of(args, kind, strip * QN_TILE_OUT, tile * qn_tile_in(kind), 0);
        words.y = word_of(args, kind, strip * QN_TILE_OUT, tile * qn_tile_in(kind), 1);
        words.z = word_of(args, kind, strip * QN_TILE_OUT, tile * qn_tile_in(kind), 2);
        words.w = word_of(args, kind, strip * QN_TILE_OUT, tile * qn_tile_in(kind), 3);
        qn_store_16((uint8_t *)args->to.data + at * qn_tile_strip_bytes(kind, args->to.n_in) +
                        (uint64_t)tile * QN_TILE_BYTES + 16 * lane,
                    words);
        if (kind != QN_GPU_W_BF16 && lane < 8) {
            put_scales(args, kind, strip,
                       (uint8_t *)args->to.scales +
                           at * qn_tile_strip_scale_bytes(kind, args->to.n_in),
                       tile, lane);
        }
    }
}

QN_GPU_KERNEL(pack)
{
    if (args->to.kind == QN_GPU_W_MXFP4) {
        pack(args, QN_GPU_W_MXFP4);
    } else if (args->to.kind == QN_GPU_W_FP8) {
        pack(args, QN_GPU_W_FP8);
    } else {
        pack(args, QN_GPU_W_BF16);
    }
}
