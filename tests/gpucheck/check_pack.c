/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/pack.c: every bit of the tiles, by what kernels/gpu/tiles.h says of them.
 */
#include "gpucheck.h"
#include "kernels/gpu/tiles.h"
#include "kernels/weight.h"

#include <string.h>

/* One case: a matrix, or both of a pair, as a checkpoint has them. */
typedef struct pack_case {
    qn_weight_kind kind;
    uint32_t n_out, n_in;
    uint32_t n_beside; /* elements of a row of the checkpoint behind n_in */
    bool is_pair, is_transposed, with_nan;
} pack_case;

static uint32_t rol(uint32_t word, uint32_t n)
{
    return word << n | word >> (32 - n);
}

/* Register r of a step, each half with the bits of its code where bf16 has them. */
static uint32_t register_of(uint32_t kind, const uint32_t w[4], uint32_t step, uint32_t r)
{
    const uint32_t word = w[kind == QN_GPU_W_MXFP4 ? step
                            : kind == QN_GPU_W_FP8 ? 2 * step + r / 2
                                                   : r];
    if (kind == QN_GPU_W_MXFP4) {
        const uint32_t of[4] = {word, rol(word, 28), rol(word, 2) ^ rol(word, 6),
                                rol(word, 2) ^ rol(word, 8)};
        return of[r] & 0x81c081c0U;
    }
    if (kind == QN_GPU_W_FP8 && r % 2 == 1) {
        return (word & 0x08000800U) << 4 | (word & 0x70007000U) >> 4 | (word & 0x000f000fU) << 4;
    }
    return kind == QN_GPU_W_FP8 ? word & 0x87f087f0U : word;
}

/* The code of an element, or its bf16, from the tiles of a strip. */
static uint32_t unpacked(uint32_t kind, const uint8_t *strip, uint32_t out, uint32_t in)
{
    const uint32_t n_tile = kind == QN_GPU_W_MXFP4 ? 64 : kind == QN_GPU_W_FP8 ? 32 : 16;
    const uint32_t lane = out % 8 * 4 + in % 8 / 2;
    uint32_t w[4];
    memcpy(w, strip + (size_t)(in / n_tile) * 512 + (size_t)lane * 16, sizeof w);
    const uint32_t r = out % 16 / 8 + in % 16 / 8 * 2;
    const uint32_t half = register_of(kind, w, in % n_tile / 16, r) >> in % 2 * 16 & 0xffff;
    if (kind == QN_GPU_W_MXFP4) {
        return (half >> 12 & 8U) | (half >> 6 & 7U);
    }
    return kind == QN_GPU_W_FP8 ? (half >> 8 & 0x80U) | (half >> 4 & 0x7fU) : half;
}

/* The same from the checkpoint. */
static uint32_t stored(const pack_case *c, const uint8_t *from, uint32_t stride, uint32_t out,
                       uint32_t in)
{
    if (out >= c->n_out || in >= c->n_in) {
        return 0;
    }
    const size_t at = c->is_transposed ? (size_t)in * stride + out : (size_t)out * stride + in;
    float value;
    uint16_t bits;
    switch (c->kind) {
    case QN_WEIGHT_F32: memcpy(&value, from + 4 * at, 4); return qn_f32_to_bf16(value);
    case QN_WEIGHT_BF16: memcpy(&bits, from + 2 * at, 2); return bits;
    case QN_WEIGHT_MXFP4: return from[at / 2] >> at % 2 * 4 & 15;
    default: return from[at];
    }
}

static void compare_elements(gc *run, const pack_case *c, const uint8_t *data, const uint8_t *from,
                             uint32_t stride, uint32_t i_part)
{
    const uint32_t kind = qn_gpu_weight_kind(c->kind);
    const uint32_t n_turns = c->is_pair ? 2 : 1;
    const size_t strip_bytes = (size_t)qn_tile_strip_bytes(kind, c->n_in);
    for (uint32_t out = 0; out < (c->n_out + 63) / 64 * 64; out++) {
        const uint8_t *strip = data + (out / 16 * n_turns + i_part) * strip_bytes;
        for (uint32_t in = 0; in < (c->n_in + 63) / 64 * 64; in++) {
            const uint32_t got = unpacked(kind, strip, out, in);
            const uint32_t want = stored(c, from, stride, out, in);
            if (got != want) {
                gc_fail(run, "part %u output %u input %u is 0x%x, 0x%x expected", i_part, out, in,
                        got, want);
                return;
            }
        }
    }
}

/* Scale of an output and block: bits of f32, or a byte. */
static uint32_t stored_scale(const pack_case *c, const uint8_t *scales, uint32_t stride,
                             uint32_t out, uint32_t block)
{
    uint32_t bits = 0;
    const uint32_t n_block = c->kind == QN_WEIGHT_MXFP4 ? 32 : 128;
    if (out >= c->n_out || (c->kind == QN_WEIGHT_MXFP4 && block * n_block >= c->n_in)) {
        return 0;
    }
    switch (c->kind) {
    case QN_WEIGHT_MXFP4: return scales[(size_t)out * (stride / 32) + block] + 126U;
    case QN_WEIGHT_FP8_CHANNEL: memcpy(&bits, scales + 4 * (size_t)out, 4); return bits;
    default:
        memcpy(&bits, scales + 4 * ((size_t)(out / 128) * ((stride + 127) / 128) + block), 4);
        return bits;
    }
}

static void compare_scales(gc *run, const pack_case *c, const uint8_t *got, const uint8_t *scales,
                           uint32_t stride, uint32_t i_part)
{
    const uint32_t kind = qn_gpu_weight_kind(c->kind);
    const bool is_byte = kind == QN_GPU_W_MXFP4;
    const uint32_t n_turns = c->is_pair ? 2 : 1;
    const uint32_t n_in = (c->n_in + 63) / 64 * 64;
    const uint32_t n_blocks = is_byte ? n_in / 32 : (n_in + 127) / 128;
    for (uint32_t out = 0; out < (c->n_out + 63) / 64 * 64; out++) {
        const uint8_t *strip =
            got + (out / 16 * n_turns + i_part) * qn_tile_strip_scale_bytes(kind, c->n_in);
        for (uint32_t i = 0; i < n_blocks; i++) {
            const uint32_t half = out % 16 / 8;
            uint32_t value = strip[i / 2 * 32 + out % 8 * 4 + half * 2 + i % 2];
            if (!is_byte) {
                memcpy(&value, strip + (size_t)i * 64 + out % 8 * 8 + half * 4, 4);
            }
            const uint32_t want = stored_scale(c, scales, stride, out, i);
            if (value != want) {
                gc_fail(run, "part %u scale of output %u block %u is 0x%x, 0x%x expected", i_part,
                        out, i, value, want);
                return;
            }
        }
    }
}

/* Codes of all values, and scales that kernels take. */
static uint8_t *random_bytes(gc *run, const pack_case *c, size_t n_bytes)
{
    uint8_t *bytes = gc_host(run, n_bytes);
    const bool is_fp8 = qn_gpu_weight_kind(c->kind) == QN_GPU_W_FP8;
    for (size_t i = 0; i < n_bytes; i++) {
        bytes[i] = (uint8_t)gc_bits(run);
        if (is_fp8 && (bytes[i] & 0x7f) == 0x7f && !c->with_nan) {
            bytes[i] ^= 1;
        }
    }
    return bytes;
}

static uint8_t *random_scales(gc *run, const pack_case *c, size_t n)
{
    float *floats = gc_floats(run, n, GC_NORMAL);
    uint8_t *bytes = (uint8_t *)floats;
    for (size_t i = 0; i < n && c->kind == QN_WEIGHT_MXFP4; i++) {
        bytes[i] = (uint8_t)gc_below(run, 129);
    }
    return bytes;
}

static void pack_one(gc *run, const pack_case *c)
{
    static const char *const names[] = {"f32", "bf16", "fp8 block", "fp8 channel", "mxfp4"};
    gc_begin(run, "%s %u x %u of %u%s%s%s", names[c->kind], c->n_out, c->n_in,
             c->n_in + c->n_beside, c->is_pair ? " pair" : "",
             c->is_transposed ? " transposed" : "", c->with_nan ? " nan" : "");
    const uint32_t kind = qn_gpu_weight_kind(c->kind);
    const uint32_t stride = c->is_transposed ? c->n_out + c->n_beside : c->n_in + c->n_beside;
    const size_t n = (size_t)stride * (c->is_transposed ? c->n_in : c->n_out);
    const size_t n_scales = c->kind == QN_WEIGHT_MXFP4 ? n / 32 : (size_t)(stride + 128) * c->n_out;
    const size_t data_bytes = (size_t)qn_gpu_weight_data_bytes(kind, c->n_out, c->n_in, c->is_pair);
    const size_t scale_bytes =
        (size_t)qn_gpu_weight_scale_bytes(kind, c->n_out, c->n_in, c->is_pair);
    qn_gpu_pack_args args = {
        .to = {.data = gc_out(run, data_bytes),
               .scales = scale_bytes > 0 ? gc_out(run, scale_bytes) : NULL,
               .kind = kind,
               .n_out = c->n_out,
               .n_in = c->n_in,
               .is_pair = c->is_pair},
        .from_kind = c->kind,
        .is_transposed = c->is_transposed,
        .from_stride = stride,
        .flags = gc_inout(run, gc_host(run, 4), 4),
    };
    const uint8_t *from[2] = {0};
    const uint8_t *scales[2] = {0};
    for (uint32_t i = 0; i < (c->is_pair ? 2 : 1); i++) {
        from[i] = c->kind == QN_WEIGHT_F32 ? (uint8_t *)gc_floats(run, n, GC_NORMAL)
                                           : random_bytes(run, c, qn_weight_bytes(c->kind, n));
        scales[i] = random_scales(run, c, n_scales);
        args.from = gc_in(run, from[i], qn_weight_bytes(c->kind, n));
        args.from_scales = gc_in(run, scales[i], (c->kind == QN_WEIGHT_MXFP4 ? 1 : 4) * n_scales);
        args.i_part = i;
        qn_gpu_pack(&run->ops, gc_args(run, &args, sizeof args));
    }
    gc_wait(run);
    for (uint32_t i = 0; i < (c->is_pair ? 2 : 1); i++) {
        compare_elements(run, c, gc_got(run, args.to.data), from[i], stride, i);
        if (scale_bytes > 0) {
            compare_scales(run, c, gc_got(run, args.to.scales), scales[i], stride, i);
        }
    }
    const uint32_t flags = c->with_nan ? 2 : 0;
    gc_same(run, "flags", gc_got(run, args.flags), &flags, 4);
    gc_end(run);
}

static void check_pack(gc *run)
{
    for (qn_weight_kind kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_MXFP4; kind++) {
        pack_one(run, &(pack_case){.kind = kind, .n_out = 64, .n_in = 64});
        pack_one(run, &(pack_case){.kind = kind, .n_out = 24, .n_in = 96, .n_beside = 256});
        pack_one(run, &(pack_case){.kind = kind, .n_out = 80, .n_in = 192, .is_pair = true});
        if (!run->is_emulated) {
            pack_one(run, &(pack_case){.kind = kind, .n_out = 1000, .n_in = 1536});
        }
    }
    for (qn_weight_kind kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_BF16; kind++) {
        pack_one(run, &(pack_case){.kind = kind, .n_out = 40, .n_in = 77, .is_transposed = true});
        pack_one(run, &(pack_case){.kind = kind, .n_out = 9, .n_in = 5, .n_beside = 3});
    }
    pack_one(run, &(pack_case){
                      .kind = QN_WEIGHT_FP8_BLOCK, .n_out = 130, .n_in = 130, .with_nan = true});
}

static void pack_wrong_part(void *args)
{
    ((qn_gpu_pack_args *)args)->i_part = 0;
}

static void pack_wrong_stride(void *args)
{
    ((qn_gpu_pack_args *)args)->from_stride = 0;
}

static const gc_check checks[] = {
    {"pack", check_pack, "exact: every code and scale lies where tiles.h says"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"pack_wrong_part", "pack", pack_wrong_part},
    {"pack_wrong_stride", "pack", pack_wrong_stride},
    {NULL, NULL, NULL},
};

const gc_group gc_pack = {checks, wrongs, NULL};
