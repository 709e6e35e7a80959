/* SPDX-License-Identifier: Apache-2.0 */
#include "base/numbers.h"
#include "kernels/kernels.h"
#include "kernels/ref/decode.h"

enum { N = QN_MXFP4_BLOCK };

static void load_block(float x[N], const qn_mxfp4_args *args, size_t i_block)
{
    const uint8_t *from = args->x + i_block * qn_weight_bytes(args->kind, N);
    if (args->kind == QN_WEIGHT_F32) {
        memcpy(x, from, N * sizeof *x);
    } else {
        qn_bf16_decode(x, from, N);
    }
}

/* Bits of the largest |x|: they are in the order of the numbers, with Inf and NaN above all. */
static uint32_t amax_bits(const float x[N])
{
    uint32_t amax = 0;
    for (size_t i = 0; i < N; i++) {
        const uint32_t magnitude = qn_f32_bits(x[i]) & 0x7fffffffU;
        amax = magnitude > amax ? magnitude : amax;
    }
    return amax;
}

/* What to multiply with to divide by the scale: 2^(127 - byte). */
static float reciprocal(uint32_t byte)
{
    return qn_e8m0_to_f32((uint8_t)(254 - byte));
}

/* Code of a magnitude: > where a tie goes down to the even code, >= where it goes up. */
static uint32_t code_of(float y)
{
    return (uint32_t)((y > 0.25F) + (y >= 0.75F) + (y > 1.25F) + (y >= 1.75F) + (y > 2.5F) +
                      (y >= 3.5F) + (y > 5.0F));
}

static void encode_block(uint8_t *codes, const float x[N], uint32_t byte)
{
    for (size_t i = 0; i < N; i += 2) {
        uint32_t pair[2];
        for (size_t k = 0; k < 2; k++) {
            const uint32_t code = code_of(fabsf(x[i + k]) * reciprocal(byte));
            pair[k] = code != 0 && x[i + k] < 0.0F ? code | 8 : code;
        }
        codes[i / 2] = (uint8_t)(pair[0] | pair[1] << 4);
    }
}

/* Sum of squares in the order that is promised. */
static float sum_squares(const float x[N])
{
    float sums[N / 2];
    for (size_t i = 0; i < N / 2; i++) {
        sums[i] = x[2 * i] * x[2 * i] + x[2 * i + 1] * x[2 * i + 1];
    }
    for (size_t n = N / 4; n > 0; n /= 2) {
        for (size_t i = 0; i < n; i++) {
            sums[i] += sums[i + n];
        }
    }
    return sums[0];
}

/* Squared error of codes that mean @p unit times their value, of magnitudes y. */
static float squared_error(const float y[N], float unit)
{
    float error[N];
    for (size_t i = 0; i < N; i++) {
        error[i] = y[i] - unit * qn_e2m1_pairs[code_of(y[i] / unit)][0];
    }
    return sum_squares(error);
}

static uint32_t hold(int32_t byte)
{
    return (uint32_t)(byte < 1 ? 1 : byte > 252 ? 252 : byte);
}

/* The better one of the byte by the ceil rule and the one below. */
static uint32_t better_byte(const float x[N], uint32_t amax)
{
    const int32_t ceil_byte = (int32_t)((amax + 0x7fffffU) >> 23) - 2;
    const uint32_t upper = hold(ceil_byte);
    const uint32_t lower = hold(ceil_byte - 1);
    float y[N];
    for (size_t i = 0; i < N; i++) {
        y[i] = fabsf(x[i]) * reciprocal(lower);
    }
    const float upper_unit = upper == lower ? 1.0F : 2.0F;
    return squared_error(y, 1.0F) < squared_error(y, upper_unit) ? lower : upper;
}

static uint32_t even_byte(uint32_t amax)
{
    const uint32_t above = (amax + 0x200000U) >> 23;
    return amax >= 0x7f600000U ? 254 : above > 2 ? above - 2 : 0;
}

size_t qn_mxfp4_encode_ref(const qn_mxfp4_args *args)
{
    for (size_t b = 0; b < args->n_blocks; b++) {
        float x[N];
        load_block(x, args, b);
        const uint32_t amax = amax_bits(x);
        if (amax >= 0x7f800000U) {
            return b;
        }
        const uint32_t byte = args->rule == QN_SCALE_MSE ? better_byte(x, amax) : even_byte(amax);
        encode_block(args->codes + b * N / 2, x, byte);
        args->scales[b] = (uint8_t)(byte > 1 ? byte : 1);
    }
    return args->n_blocks;
}

void qn_mxfp4_measure_ref(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    for (size_t b = 0; b < args->n_blocks; b++) {
        const uint8_t byte = args->scales[b];
        const float scale = qn_e8m0_to_f32(byte);
        float y[N];
        float lost[N];
        bool is_saturated = false;
        load_block(y, args, b);
        for (size_t i = 0; i < N; i++) {
            y[i] *= reciprocal(byte);
            lost[i] = y[i] - qn_e2m1_pairs[args->codes[b * N / 2 + i / 2]][i % 2];
            const float size = fabsf(lost[i]) * scale;
            error->error_max = size > error->error_max ? size : error->error_max;
            is_saturated = is_saturated || fabsf(y[i]) > 6.0F;
        }
        const double square = (double)scale * (double)scale;
        error->x_sq += (double)sum_squares(y) * square;
        error->error_sq += (double)sum_squares(lost) * square;
        error->n_blocks++;
        error->n_saturated += is_saturated;
        error->scales[byte]++;
    }
}
