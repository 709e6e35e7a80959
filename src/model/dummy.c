/* SPDX-License-Identifier: Apache-2.0 */
#include "model/dummy.h"

#include "base/assert.h"
#include "base/numbers.h"
#include "base/rng.h"

#include <math.h>

/* Mean squares of the codes that are drawn. */
#define E2M1_SQUARE 8.5625            /* of all sixteen */
#define E4M3_SQUARE 0.713348388671875 /* of 2^-3 .. 1.875 by four exponents and eight mantissas */

/* Uniform in [-1, 1) with 24 bits: exact in f32. */
static float number_of(uint64_t bits)
{
    return (float)(bits >> 40) * 0x1p-23F - 1.0F;
}

/* Variance n_in times that of the elements keeps activations near one; the router's is larger, so
 * that experts differ. */
static double gain_of(const qn_tensor_spec *spec)
{
    return spec->role == QN_ROLE_ROUTER ? 4.0 : 1.0;
}

static bool is_fp8(qn_weight_kind kind)
{
    return kind == QN_WEIGHT_FP8_BLOCK || kind == QN_WEIGHT_FP8_CHANNEL;
}

qn_gpu_dummy_args qn_dummy_elements(const qn_dummy *m, void *to, uint32_t first, uint32_t n)
{
    const qn_tensor_spec *const spec = m->spec;
    const bool is_table = spec->role == QN_ROLE_EMBEDDING;
    const size_t row = m->kind == QN_WEIGHT_MXFP4 ? spec->n_in / 2 : spec->n_in;
    QN_ASSERT(m->kind != QN_WEIGHT_F32);
    return (qn_gpu_dummy_args){
        .y = to,
        .key = qn_rng_key(m->seed, m->stream),
        .first = first * row,
        .n = n * row,
        .factor = is_table ? 1.0F : (float)(sqrt(3.0) * gain_of(spec) / sqrt((double)spec->n_in)),
        .kind = m->kind == QN_WEIGHT_MXFP4 ? QN_GPU_DUMMY_E2M1
                : is_fp8(m->kind)          ? QN_GPU_DUMMY_E4M3
                                           : QN_GPU_DUMMY_BF16,
    };
}

/* Two powers of two, the larger as often as the mean of their squares asks for. */
static void choose_e8m0(qn_gpu_dummy_args *args, double square)
{
    int32_t exponent = 0;
    while (square < 1.0) {
        square *= 4.0;
        exponent--;
    }
    while (square >= 4.0) {
        square /= 4.0;
        exponent++;
    }
    args->e8m0 = (uint32_t)(127 + exponent);
    args->threshold = (uint32_t)(256.0 * (square - 1.0) / 3.0 + 0.5);
}

qn_gpu_dummy_args qn_dummy_scales(const qn_dummy *m, void *to, uint32_t first, uint32_t n)
{
    const qn_tensor_spec *const spec = m->spec;
    const qn_weight_kind kind = m->kind;
    const double gain = gain_of(spec);
    const size_t element_bytes = qn_weight_bytes(kind, (size_t)spec->n_out * spec->n_in);
    const uint32_t unit = kind == QN_WEIGHT_FP8_BLOCK ? QN_FP8_BLOCK : 1; /* rows with one scale */
    const size_t n_of_unit = kind == QN_WEIGHT_MXFP4       ? spec->n_in / QN_MXFP4_BLOCK
                             : kind == QN_WEIGHT_FP8_BLOCK ? qn_round_up(spec->n_in, unit) / unit
                                                           : 1;
    qn_gpu_dummy_args args = {
        .y = to,
        .key = qn_rng_key(m->seed, m->stream),
        .counter = (element_bytes + 7) / 8, /* behind the elements */
        .first = first / unit * n_of_unit,
        .n = ((first + n + unit - 1) / unit - first / unit) * n_of_unit,
    };
    if (kind == QN_WEIGHT_MXFP4) {
        args.kind = QN_GPU_DUMMY_E8M0;
        choose_e8m0(&args, gain * gain / (E2M1_SQUARE * spec->n_in));
    } else if (is_fp8(kind)) {
        args.kind = QN_GPU_DUMMY_F32;
        args.factor = (float)(gain / sqrt(E4M3_SQUARE * spec->n_in));
    } else {
        args.n = 0;
    }
    return args;
}

static void fill_numbers(const qn_gpu_dummy_args *args)
{
    uint8_t *const to = args->y;
    for (size_t i = 0; i < args->n; i++) {
        const float v = number_of(qn_rng_at(args->key, args->counter + args->first + i));
        if (args->kind == QN_GPU_DUMMY_BF16) {
            const uint16_t bits = qn_f32_to_bf16(v * args->factor);
            memcpy(to + 2 * i, &bits, sizeof bits);
        } else {
            const float scale = args->factor * (1.0F + 0.125F * v);
            memcpy(to + 4 * i, &scale, sizeof scale);
        }
    }
}

static uint8_t byte_of(const qn_gpu_dummy_args *args, uint8_t bits)
{
    switch (args->kind) {
    case QN_GPU_DUMMY_E2M1: return bits;
    case QN_GPU_DUMMY_E4M3: return (bits & 0x9f) | 0x20;
    default: return (uint8_t)(args->e8m0 + (bits < args->threshold ? 1 : 0));
    }
}

void qn_dummy_fill(const qn_gpu_dummy_args *args)
{
    uint8_t *const to = args->y;
    uint64_t bits = 0;
    if (args->kind == QN_GPU_DUMMY_BF16 || args->kind == QN_GPU_DUMMY_F32) {
        fill_numbers(args);
        return;
    }
    for (size_t i = 0; i < args->n; i++) {
        const uint64_t at = args->first + i;
        if (i == 0 || at % 8 == 0) {
            bits = qn_rng_at(args->key, args->counter + at / 8);
        }
        to[i] = byte_of(args, (uint8_t)(bits >> at % 8 * 8));
    }
}

/* Where scales lie behind n rows. */
static size_t scales_at(const qn_dummy *m, uint32_t n)
{
    return (qn_weight_bytes(m->kind, (size_t)n * m->spec->n_in) + 3) / 4 * 4;
}

size_t qn_dummy_rows_bytes(const qn_dummy *m, uint32_t n)
{
    const qn_gpu_dummy_args scales = qn_dummy_scales(m, NULL, 0, n);
    return scales_at(m, n) + scales.n * (scales.kind == QN_GPU_DUMMY_F32 ? sizeof(float) : 1);
}

qn_weight qn_dummy_rows(const qn_dummy *m, uint8_t *room, uint32_t first, uint32_t n)
{
    uint8_t *const scale = room + scales_at(m, n);
    const qn_gpu_dummy_args elements = qn_dummy_elements(m, room, first, n);
    const qn_gpu_dummy_args scales = qn_dummy_scales(m, scale, first, n);
    qn_dummy_fill(&elements);
    if (scales.n > 0) {
        qn_dummy_fill(&scales);
    }
    return (qn_weight){.kind = m->kind,
                       .n_out = n,
                       .n_in = m->spec->n_in,
                       .data = room,
                       .scale = scales.n > 0 ? scale : NULL};
}

void qn_dummy_vector(float *to, const qn_tensor_spec *spec, uint64_t seed, uint64_t stream)
{
    for (uint32_t i = 0; i < spec->n_out; i++) {
        const float v = number_of(qn_rng_u64(seed, stream, i));
        switch (spec->role) {
        case QN_ROLE_NORM: to[i] = qn_bf16_to_f32(qn_f32_to_bf16(1.0F + 0.25F * v)); break;
        case QN_ROLE_NORM_BIAS: to[i] = qn_bf16_to_f32(qn_f32_to_bf16(0.25F * v)); break;
        default: to[i] = 0.1F * v; break; /* the router's bias stays f32 */
        }
    }
}
