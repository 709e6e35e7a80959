/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong kernels for check_quantize.c. */
#include "canary.h"

#include <string.h>

enum { N = 32 };

static size_t element_bytes(const qn_mxfp4_args *args)
{
    return args->kind == QN_WEIGHT_F32 ? 4 : 2;
}

static float element(const qn_mxfp4_args *args, size_t i)
{
    uint32_t bits = 0;
    memcpy((uint8_t *)&bits + 4 - element_bytes(args), args->x + i * element_bytes(args),
           element_bytes(args));
    return qn_f32_from_bits(bits);
}

/* ---------------------------------------------------------------------------- mxfp4_encode -- */

/* The right bytes, then `change` on each block whose elements are numbers. */
#define ENCODE(name, change)                                                                       \
    static size_t name(const qn_mxfp4_args *args)                                                  \
    {                                                                                              \
        const size_t n = qn_mxfp4_encode_ref(args);                                                \
        for (size_t b = 0; b < n; b++) {                                                           \
            uint8_t *codes = args->codes + b * N / 2;                                              \
            uint8_t *scale = args->scales + b;                                                     \
            change(args, b, codes, scale);                                                         \
        }                                                                                          \
        return n;                                                                                  \
    }                                                                                              \
    CANARY(mxfp4_encode, name)

static void swap_nibbles(const qn_mxfp4_args *args, size_t b, uint8_t *codes, const uint8_t *scale)
{
    (void)args;
    (void)b;
    (void)scale;
    for (size_t i = 0; i < N / 2; i++) {
        codes[i] = (uint8_t)(codes[i] << 4 | codes[i] >> 4);
    }
}
ENCODE(encode_swaps_nibbles, swap_nibbles)

static void keep_sign_of_zero(const qn_mxfp4_args *args, size_t b, uint8_t *codes,
                              const uint8_t *scale)
{
    (void)scale;
    for (size_t i = 0; i < N; i++) {
        if (signbit(element(args, b * N + i))) {
            codes[i / 2] |= (uint8_t)(8 << 4 * (i % 2));
        }
    }
}
ENCODE(encode_keeps_sign_of_zero, keep_sign_of_zero)

/* Byte 0, as the exporter before wrote it. */
static void zero_as_byte_0(const qn_mxfp4_args *args, size_t b, const uint8_t *codes,
                           uint8_t *scale)
{
    (void)args;
    (void)b;
    static const uint8_t zeros[N / 2] = {0};
    *scale = memcmp(codes, zeros, sizeof zeros) == 0 ? 0 : *scale;
}
ENCODE(encode_zero_as_byte_0, zero_as_byte_0)

static void no_254(const qn_mxfp4_args *args, size_t b, const uint8_t *codes, uint8_t *scale)
{
    (void)args;
    (void)b;
    (void)codes;
    *scale = *scale == 254 ? 253 : *scale;
}
ENCODE(encode_has_no_254, no_254)

/* Codes once more for the byte at hand, with other thresholds or another sight of x. */
static void recode(const qn_mxfp4_args *args, size_t b, uint8_t *codes, const uint8_t *scale,
                   const float thresholds[7], uint32_t mask)
{
    for (size_t i = 0; i<N && * scale> 1; i++) {
        const float x = qn_f32_from_bits(qn_f32_bits(element(args, b * N + i)) & mask);
        const double y = ldexp((double)fabsf(x), 127 - *scale);
        unsigned code = 0;
        for (size_t k = 0; k < 7; k++) {
            code += y >= (double)thresholds[k] ? 1 : 0;
        }
        code |= code > 0 && x < 0.0F ? 8 : 0;
        codes[i / 2] = (uint8_t)(i % 2 == 0 ? code : codes[i / 2] | code << 4);
    }
}

static const float ties_away[7] = {0.25F, 0.75F, 1.25F, 1.75F, 2.5F, 3.5F, 5.0F};
/* What is next above a threshold whose tie goes down. */
static const float right[7] = {0x1.000002p-2F, 0.75F, 0x1.400002p0F, 1.75F,
                               0x1.400002p1F,  3.5F,  0x1.400002p2F};

static void away(const qn_mxfp4_args *args, size_t b, uint8_t *codes, const uint8_t *scale)
{
    recode(args, b, codes, scale, ties_away, ~0U);
}
ENCODE(encode_ties_away, away)

/* An f32 cut to bf16 first: just above a tie is no longer above it. */
static void cut(const qn_mxfp4_args *args, size_t b, uint8_t *codes, const uint8_t *scale)
{
    recode(args, b, codes, scale, right, 0xffff0000U);
}
ENCODE(encode_cuts_to_bf16, cut)

static void flush(const qn_mxfp4_args *args, size_t b, uint8_t *codes, const uint8_t *scale)
{
    (void)scale;
    for (size_t i = 0; i < N; i++) {
        if (fpclassify(element(args, b * N + i)) == FP_SUBNORMAL) {
            codes[i / 2] &= (uint8_t)(0xf0U >> 4 * (i % 2));
        }
    }
}
ENCODE(encode_flushes_denormals, flush)

static size_t encode_forgets_rule(const qn_mxfp4_args *args)
{
    qn_mxfp4_args even = *args;
    even.rule = QN_SCALE_EVEN;
    return qn_mxfp4_encode_ref(&even);
}
CANARY(mxfp4_encode, encode_forgets_rule)

static size_t encode_takes_f32_for_bf16(const qn_mxfp4_args *args)
{
    qn_mxfp4_args bf16 = *args;
    bf16.kind = QN_WEIGHT_BF16;
    return qn_mxfp4_encode_ref(&bf16);
}
CANARY(mxfp4_encode, encode_takes_f32_for_bf16)

/* Goes on where a block holds no number. */
static size_t encode_refuses_nothing(const qn_mxfp4_args *args)
{
    (void)qn_mxfp4_encode_ref(args);
    return args->n_blocks;
}
CANARY(mxfp4_encode, encode_refuses_nothing)

/* Says so one block too late. */
static size_t encode_refuses_next_block(const qn_mxfp4_args *args)
{
    const size_t n = qn_mxfp4_encode_ref(args);
    return n < args->n_blocks ? n + 1 : n;
}
CANARY(mxfp4_encode, encode_refuses_next_block)

static size_t encode_reads_past_end(const qn_mxfp4_args *args)
{
    const size_t n_bytes = args->n_blocks * (size_t)N * element_bytes(args);
    return qn_mxfp4_encode_ref(args) + 0 * (size_t) * (const volatile uint8_t *)(args->x + n_bytes);
}
CANARY(mxfp4_encode, encode_reads_past_end)

/* --------------------------------------------------------------------------- mxfp4_measure -- */

static void measure_overwrites(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    *error = (qn_mxfp4_error){0};
    qn_mxfp4_measure_ref(error, args);
}
CANARY(mxfp4_measure, measure_overwrites)

static void measure_by_block(qn_mxfp4_error *error, const qn_mxfp4_args *args,
                             void (*change)(qn_mxfp4_error *before, const qn_mxfp4_args *one))
{
    for (size_t b = 0; b < args->n_blocks; b++) {
        qn_mxfp4_args one = *args;
        one.codes += b * N / 2;
        one.scales += b;
        one.x += b * N * element_bytes(args);
        one.n_blocks = 1;
        qn_mxfp4_measure_ref(error, &one);
        change(error, &one);
    }
}

static void count_six(qn_mxfp4_error *error, const qn_mxfp4_args *one)
{
    for (size_t i = 0; i < N; i++) {
        if ((double)fabsf(element(one, i)) == ldexp(6.0, one->scales[0] - 127)) {
            error->n_saturated++;
            return;
        }
    }
}

static void measure_counts_six(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    measure_by_block(error, args, count_six);
}
CANARY(mxfp4_measure, measure_counts_six)

static void shift_histogram(qn_mxfp4_error *error, const qn_mxfp4_args *one)
{
    error->scales[one->scales[0]]--;
    error->scales[one->codes[0]]++;
}

static void measure_counts_codes(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    measure_by_block(error, args, shift_histogram);
}
CANARY(mxfp4_measure, measure_counts_codes)

/* A call's sums first, then added: other bits for other cuts. */
static void measure_adds_calls(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    const double x_sq = error->x_sq;
    error->x_sq = 0.0;
    qn_mxfp4_measure_ref(error, args);
    error->x_sq += x_sq;
}
CANARY(mxfp4_measure, measure_adds_calls)

/* The largest error of the block before its scale. */
static void measure_forgets_scale(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    const float before = error->error_max;
    error->error_max = 0.0F;
    qn_mxfp4_measure_ref(error, args);
    error->error_max = fmaxf(before, 0.5F * error->error_max);
}
CANARY(mxfp4_measure, measure_forgets_scale)

/* Squares in f64 throughout: better, but not what others get. */
static void square_in_f64(qn_mxfp4_error *error, const qn_mxfp4_args *one)
{
    for (size_t i = 0; i < N; i++) {
        error->x_sq += 0x1p-30 * (double)element(one, i) * (double)element(one, i);
    }
}

static void measure_in_f64(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    measure_by_block(error, args, square_in_f64);
}
CANARY(mxfp4_measure, measure_in_f64)

static void measure_reads_past_end(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    qn_mxfp4_measure_ref(error, args);
    error->n_blocks +=
        0 * (size_t) * (const volatile uint8_t *)(args->codes + args->n_blocks * (N / 2));
}
CANARY(mxfp4_measure, measure_reads_past_end)

/* --------------------------------------------------------------------------------- to_bf16 -- */

static void store(uint8_t *y, size_t i, uint32_t bits)
{
    y[2 * i] = (uint8_t)bits;
    y[2 * i + 1] = (uint8_t)(bits >> 8);
}

static void bf16_truncates(uint8_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        store(y, i, qn_f32_bits(x[i]) >> 16);
    }
}
CANARY(to_bf16, bf16_truncates)

static void bf16_ties_away(uint8_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = qn_f32_bits(x[i]);
        store(y, i, isnan(x[i]) ? bits >> 16 | 0x40 : (bits + 0x8000) >> 16);
    }
}
CANARY(to_bf16, bf16_ties_away)

static void bf16_flushes(uint8_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        store(y, i, fabsf(x[i]) < 0x1p-126F ? 0 : qn_f32_to_bf16(x[i]));
    }
}
CANARY(to_bf16, bf16_flushes)

/* A NaN with a small payload becomes Inf. */
static void bf16_of_nan_is_inf(uint8_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        store(y, i, isnan(x[i]) ? qn_f32_bits(x[i]) >> 16 : qn_f32_to_bf16(x[i]));
    }
}
CANARY(to_bf16, bf16_of_nan_is_inf)

static void bf16_writes_past_end(uint8_t *y, const float *x, size_t n)
{
    qn_to_bf16_ref(y, x, n);
    *(volatile uint8_t *)(y + 2 * n) = 0;
}
CANARY(to_bf16, bf16_writes_past_end)

const kc_canary kc_canaries_quantize[] = {
    CANARY_OF(mxfp4_encode, encode_swaps_nibbles),
    CANARY_OF(mxfp4_encode, encode_keeps_sign_of_zero),
    CANARY_OF(mxfp4_encode, encode_zero_as_byte_0),
    CANARY_OF(mxfp4_encode, encode_has_no_254),
    CANARY_OF(mxfp4_encode, encode_ties_away),
    CANARY_OF(mxfp4_encode, encode_cuts_to_bf16),
    CANARY_OF(mxfp4_encode, encode_flushes_denormals),
    CANARY_OF(mxfp4_encode, encode_forgets_rule),
    CANARY_OF(mxfp4_encode, encode_takes_f32_for_bf16),
    CANARY_OF(mxfp4_encode, encode_refuses_nothing),
    CANARY_OF(mxfp4_encode, encode_refuses_next_block),
    {"encode_reads_past_end", "mxfp4_encode", put_encode_reads_past_end, true},
    CANARY_OF(mxfp4_measure, measure_overwrites),
    CANARY_OF(mxfp4_measure, measure_counts_six),
    CANARY_OF(mxfp4_measure, measure_counts_codes),
    CANARY_OF(mxfp4_measure, measure_adds_calls),
    CANARY_OF(mxfp4_measure, measure_forgets_scale),
    CANARY_OF(mxfp4_measure, measure_in_f64),
    {"measure_reads_past_end", "mxfp4_measure", put_measure_reads_past_end, true},
    CANARY_OF(to_bf16, bf16_truncates),
    CANARY_OF(to_bf16, bf16_ties_away),
    CANARY_OF(to_bf16, bf16_flushes),
    CANARY_OF(to_bf16, bf16_of_nan_is_inf),
    {"bf16_writes_past_end", "to_bf16", put_bf16_writes_past_end, true},
    {NULL, NULL, NULL, false},
};
