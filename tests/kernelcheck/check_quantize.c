/* SPDX-License-Identifier: Apache-2.0 */
/* Weights on their way into a checkpoint: mxfp4_encode, mxfp4_measure, to_bf16. */
#include "kernelcheck.h"

#include <string.h>

enum { N = 32 };

/* ---------------------------------------------------------------------------- mxfp4_encode -- */

static double e2m1(int code)
{
    static const double values[8] = {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0};
    return (code & 8) != 0 ? -values[code & 7] : values[code & 7];
}

static size_t element_bytes(qn_weight_kind kind)
{
    return kind == QN_WEIGHT_F32 ? 4 : 2;
}

static double element(const qn_mxfp4_args *args, size_t i)
{
    float value;
    if (args->kind == QN_WEIGHT_BF16) {
        return kc_bf16(args->x + 2 * i);
    }
    memcpy(&value, args->x + 4 * i, sizeof value);
    return (double)value;
}

/* The nearest of eight, by trying them; of two as near the even one.  Beyond 6 it is 6. */
static int code_of(double y)
{
    int best = 0;
    for (int code = 1; code < 8; code++) {
        const double off = fabs(fabs(y) - e2m1(code)) - fabs(fabs(y) - e2m1(best));
        best = off < 0.0 || (off == 0.0 && code % 2 == 0) ? code : best;
    }
    return best != 0 && y < 0.0 ? best | 8 : best;
}

/* Of n sums of two neighbours' squares, step apart: the first half takes in the second. */
static float sum_by_halves(const float *x, size_t n, size_t step)
{
    return n == 1 ? x[0] * x[0] + x[1] * x[1]
                  : sum_by_halves(x, n / 2, 2 * step) + sum_by_halves(x + step, n / 2, 2 * step);
}

static float sum_of_squares(const float *x)
{
    return sum_by_halves(x, N / 2, 2);
}

/* Squared error in units of 2^(unit - 127) with the scale byte given. */
static float error_of(const double *x, int byte, int unit)
{
    const double reciprocal = ldexp(1.0, 127 - unit);
    const double step = byte > unit ? 2.0 : 1.0;
    float lost[N];
    for (size_t i = 0; i < N; i++) {
        const float y = (float)(fabs(x[i]) * reciprocal);
        lost[i] = y - (float)(step * e2m1(code_of((double)y / step)));
    }
    return sum_of_squares(lost);
}

/* The byte that codes are chosen for. */
static int byte_of(const double *x, qn_scale_rule rule)
{
    double amax = 0.0;
    for (size_t i = 0; i < N; i++) {
        amax = fabs(x[i]) > amax ? fabs(x[i]) : amax;
    }
    int byte = rule == QN_SCALE_EVEN ? 0 : -30; /* -30: below the least denormal */
    double bound = ldexp(rule == QN_SCALE_EVEN ? 7.0 : 4.0, byte - 127);
    while (rule == QN_SCALE_EVEN ? amax >= bound : amax > bound) {
        bound *= 2.0;
        byte++;
    }
    if (rule == QN_SCALE_EVEN) {
        return byte == 253 ? 254 : byte;
    }
    const int upper = byte < 1 ? 1 : byte > 252 ? 252 : byte;
    const int lower = byte - 1 < 1 ? 1 : byte - 1 > 252 ? 252 : byte - 1;
    return error_of(x, lower, lower) < error_of(x, upper, lower) ? lower : upper;
}

static void encode_block(uint8_t *codes, uint8_t *scale, const double *x, qn_scale_rule rule)
{
    const int byte = byte_of(x, rule);
    const double reciprocal = ldexp(1.0, 127 - byte);
    *scale = (uint8_t)(byte == 0 ? 1 : byte);
    for (size_t i = 0; i < N; i += 2) {
        const int low = code_of(x[i] * reciprocal);
        codes[i / 2] = (uint8_t)(low | code_of(x[i + 1] * reciprocal) << 4);
    }
}

/* Encode and compare; x is filled.  The first block that has to be refused, or n_blocks. */
static void compare_encoded(kc *run, const qn_mxfp4_args *args, size_t n_good)
{
    kc_seal(run);
    const size_t n = run->k->mxfp4_encode(args);
    if (n != n_good) {
        kc_fail(run, "block %zu is refused, %zu expected of %zu", n, n_good, args->n_blocks);
    }
    for (size_t b = 0; b < n_good; b++) {
        double x[N];
        uint8_t codes[N / 2];
        uint8_t scale;
        for (size_t i = 0; i < N; i++) {
            x[i] = element(args, b * N + i);
        }
        encode_block(codes, &scale, x, args->rule);
        if (args->scales[b] != scale) {
            kc_fail(run, "block %zu: scale byte %u, %u expected", b, args->scales[b], scale);
        }
        for (size_t i = 0; i < N / 2; i++) {
            if (args->codes[b * N / 2 + i] != codes[i]) {
                kc_fail(run, "block %zu, pair %zu: codes %02x, %02x expected", b, i,
                        args->codes[b * N / 2 + i], codes[i]);
            }
        }
    }
    /* What a refusal leaves behind is no promise. */
    memset(args->codes + n_good * N / 2, 0xff, (args->n_blocks - n_good) * N / 2);
    memset(args->scales + n_good, 0xff, args->n_blocks - n_good);
    kc_end(run);
}

/* Outputs, and an input at an odd address that may still be written. */
static qn_mxfp4_args encode_args(kc *run, qn_weight_kind kind, qn_scale_rule rule, size_t n_blocks,
                                 uint8_t **x)
{
    *x = kc_in_bytes(run, n_blocks * N * element_bytes(kind) + 1) + 1;
    return (qn_mxfp4_args){.codes = kc_out_bytes(run, n_blocks * N / 2),
                           .scales = kc_out_bytes(run, n_blocks),
                           .x = *x,
                           .kind = kind,
                           .rule = rule,
                           .n_blocks = n_blocks};
}

/* Element i from the bits of an f32, of a bf16 the upper half. */
static void put(uint8_t *x, qn_weight_kind kind, size_t i, uint32_t bits)
{
    const size_t n_bytes = element_bytes(kind);
    memcpy(x + i * n_bytes, (const uint8_t *)&bits + 4 - n_bytes, n_bytes);
}

/* Bits behind a bf16: none, the least, half, all, any; by some random bits. */
static uint32_t low_half(uint64_t random)
{
    static const uint32_t halves[] = {0, 0, 1, 0x7fff, 0x8000, 0xffff};
    return random % 8 < 6 ? halves[random % 8] : (uint32_t)(random >> 16) & 0xffff;
}

/* Every finite bf16 as the largest element of a block, of either sign, at any place. */
static void every_largest_case(kc *run, qn_weight_kind kind, qn_scale_rule rule)
{
    uint8_t *x;
    kc_begin(run, "%s, rule %d, every largest element", kc_kind_names[kind], rule);
    const uint32_t n_blocks = 2 * 0x7f80;
    const qn_mxfp4_args args = encode_args(run, kind, rule, n_blocks, &x);
    for (uint32_t b = 0; b < n_blocks; b++) {
        const uint32_t amax = b / 2 << 16 | low_half(kc_bits(run));
        for (size_t i = 0; i < N; i++) {
            const uint64_t random = kc_bits(run);
            const uint32_t below = random % (1U << 25); /* down to a 16th of it */
            put(x, kind, b * (size_t)N + i,
                (amax > below ? amax - below : 0) | (uint32_t)(random >> 63) << 31);
        }
        put(x, kind, b * (size_t)N + kc_below(run, N), amax | b << 31);
    }
    compare_encoded(run, &args, n_blocks);
}

/* Every bf16 as an element beside a largest one. */
static void every_element_case(kc *run, qn_weight_kind kind, qn_scale_rule rule, uint32_t largest)
{
    uint8_t *x;
    kc_begin(run, "%s, rule %d, every element below %#x", kc_kind_names[kind], rule, largest);
    const size_t n_blocks = (2 * (size_t)largest + N - 2) / (N - 1);
    const qn_mxfp4_args args = encode_args(run, kind, rule, n_blocks, &x);
    for (uint32_t i = 0; i < n_blocks * (N - 1); i++) {
        const uint32_t pattern = i / 2 % largest;
        put(x, kind, i / (N - 1) * N + 1 + i % (N - 1),
            pattern << 16 | low_half(kc_bits(run)) | i << 31);
    }
    for (size_t b = 0; b < n_blocks; b++) {
        put(x, kind, b * N, largest << 16);
    }
    compare_encoded(run, &args, n_blocks);
}

/* Blocks of floats as a fill gives them, or of multiples of an eighth, where ties are frequent. */
static void encode_case(kc *run, qn_weight_kind kind, qn_scale_rule rule, size_t n_blocks, int fill)
{
    uint8_t *x;
    kc_begin(run, "%s, rule %d, %zu blocks, fill %d", kc_kind_names[kind], rule, n_blocks, fill);
    const qn_mxfp4_args args = encode_args(run, kind, rule, n_blocks, &x);
    const float *from = kc_in(run, n_blocks * N, (kc_fill_kind)(fill % KC_N_FILLS));
    size_t n_good = n_blocks;
    for (size_t i = 0; i < n_blocks * N; i++) {
        const float value =
            fill == KC_N_FILLS ? truncf(8.0F * 7.9F * kc_uniform(run)) / 8.0F : from[i];
        put(x, kind, i, qn_f32_bits(value));
        n_good = n_good == n_blocks && !isfinite(value) ? i / N : n_good;
    }
    compare_encoded(run, &args, n_good);
}

/* One element that is no number, in any block at any place. */
static void refused_case(kc *run, qn_weight_kind kind, qn_scale_rule rule, uint32_t bits)
{
    enum { BLOCKS = 5 };
    uint8_t *x;
    for (size_t at = 0; at < (size_t)BLOCKS * N; at += 7) {
        kc_begin(run, "%s, rule %d, element %zu of bits %#x", kc_kind_names[kind], rule, at, bits);
        const qn_mxfp4_args args = encode_args(run, kind, rule, BLOCKS, &x);
        for (size_t i = 0; i < (size_t)BLOCKS * N; i++) {
            put(x, kind, i, qn_f32_bits(i / N == 1 ? 0.0F : kc_uniform(run)));
        }
        put(x, kind, at, bits);
        compare_encoded(run, &args, at / N);
    }
}

static void check_encode(kc *run, qn_weight_kind kind, qn_scale_rule rule)
{
    static const size_t counts[] = {0, 1, 2, 3, 17, 64};
    /* Scale bytes 0 to 4, some between, the last ones: at, below and above where they begin. */
    static const uint32_t largest[] = {0x0001, 0x015f, 0x0160, 0x01df, 0x01e0, 0x0260, 0x02e0,
                                       0x3f80, 0x3fdf, 0x7e5f, 0x7edf, 0x7f5f, 0x7f60, 0x7f7f};
    static const uint32_t no_numbers[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff};
    every_largest_case(run, kind, rule);
    for (size_t i = 0; i < sizeof largest / sizeof *largest; i++) {
        every_element_case(run, kind, rule, largest[i]);
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (int fill = KC_UNIFORM; fill <= KC_N_FILLS; fill++) {
            encode_case(run, kind, rule, counts[i], fill);
        }
    }
    for (size_t i = 0; i < sizeof no_numbers / sizeof *no_numbers; i++) {
        refused_case(run, kind, rule, no_numbers[i]);
    }
    if (kind == QN_WEIGHT_F32) {
        refused_case(run, kind, rule, 0x7f800001); /* a NaN whose upper half is Inf */
    }
}

void check_mxfp4_encode(kc *run)
{
    check_encode(run, QN_WEIGHT_BF16, QN_SCALE_EVEN);
    check_encode(run, QN_WEIGHT_BF16, QN_SCALE_MSE);
    check_encode(run, QN_WEIGHT_F32, QN_SCALE_EVEN);
    check_encode(run, QN_WEIGHT_F32, QN_SCALE_MSE);
}

/* --------------------------------------------------------------------------- mxfp4_measure -- */

static void add_block(qn_mxfp4_error *error, const qn_mxfp4_args *args, size_t b)
{
    const uint8_t byte = args->scales[b];
    float y[N];
    float lost[N];
    bool is_beyond = false;
    for (size_t i = 0; i < N; i++) {
        const int pair = args->codes[b * N / 2 + i / 2];
        const double x = element(args, b * N + i);
        y[i] = byte == 255 ? NAN : (float)ldexp(x, 127 - byte);
        lost[i] = y[i] - (float)e2m1(i % 2 == 0 ? pair & 15 : pair >> 4);
        error->error_max =
            fmaxf(error->error_max, (float)ldexp((double)fabsf(lost[i]), byte - 127));
        is_beyond = is_beyond || fabsf(y[i]) > 6.0F;
    }
    error->x_sq += ldexp((double)sum_of_squares(y), 2 * (byte - 127));
    error->error_sq += ldexp((double)sum_of_squares(lost), 2 * (byte - 127));
    error->n_blocks++;
    error->n_saturated += is_beyond;
    error->scales[byte]++;
}

static void compare_measured(kc *run, const qn_mxfp4_error *got, const qn_mxfp4_error *want)
{
    const bool is_nan = isnan(want->x_sq); /* then what is largest means nothing */
    if (is_nan ? !isnan(got->x_sq) || !isnan(got->error_sq)
               : got->x_sq != want->x_sq || got->error_sq != want->error_sq ||
                     got->error_max != want->error_max) {
        kc_fail(run, "sums %.17g and %.17g, largest %.9g; %.17g, %.17g, %.9g expected", got->x_sq,
                got->error_sq, (double)got->error_max, want->x_sq, want->error_sq,
                (double)want->error_max);
    }
    if (got->n_blocks != want->n_blocks || got->n_saturated != want->n_saturated) {
        kc_fail(run, "%llu blocks, %llu beyond; %llu, %llu expected",
                (unsigned long long)got->n_blocks, (unsigned long long)got->n_saturated,
                (unsigned long long)want->n_blocks, (unsigned long long)want->n_saturated);
    }
    kc_same(run, "scales", got->scales, want->scales, sizeof want->scales);
}

/* Codes and scales of x itself, or any; whole and in two parts. */
static void measure_case(kc *run, qn_weight_kind kind, size_t n_blocks, int fill, bool is_own)
{
    qn_mxfp4_error want = {.x_sq = 1.0 / 3.0, .error_sq = 0.1, .error_max = 1e-3F, .n_blocks = 3};
    qn_mxfp4_error parts = want;
    qn_mxfp4_error *got = (qn_mxfp4_error *)(void *)kc_out_bytes(run, sizeof want);
    *got = want;
    uint8_t *x = kc_in_bytes(run, n_blocks * N * element_bytes(kind) + 1) + 1;
    uint8_t *codes = kc_in_bytes(run, n_blocks * N / 2);
    uint8_t *scales = kc_in_bytes(run, n_blocks);
    const float *from = kc_in(run, n_blocks * N, (kc_fill_kind)fill);
    qn_mxfp4_args args = {codes, scales, x, kind, QN_SCALE_EVEN, n_blocks};
    for (size_t i = 0; i < n_blocks * N; i++) {
        put(x, kind, i, qn_f32_bits(i % 64 == 5 ? 6.0F : from[i]));
    }
    for (size_t b = 0; b < n_blocks; b++) {
        double block[N];
        for (size_t i = 0; i < N; i++) {
            block[i] = element(&args, b * N + i);
        }
        if (is_own) {
            encode_block(codes + b * N / 2, scales + b, block, QN_SCALE_EVEN);
        } else {
            scales[b] = (uint8_t)(kc_below(run, 64) == 0 ? 255 : 120 + kc_below(run, 14));
        }
        add_block(&want, &args, b);
    }
    kc_seal(run);
    run->k->mxfp4_measure(got, &args);
    compare_measured(run, got, &want);
    args.n_blocks = n_blocks / 3;
    run->k->mxfp4_measure(&parts, &args);
    args = (qn_mxfp4_args){codes + args.n_blocks * N / 2,
                           scales + args.n_blocks,
                           x + args.n_blocks * N * element_bytes(kind),
                           kind,
                           QN_SCALE_EVEN,
                           n_blocks - args.n_blocks};
    run->k->mxfp4_measure(&parts, &args);
    compare_measured(run, &parts, &want);
    got->error_max = isnan(got->x_sq) ? 0.0F : got->error_max;
    kc_end(run);
}

void check_mxfp4_measure(kc *run)
{
    static const size_t counts[] = {0, 1, 2, 3, 17, 200};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (int fill = KC_UNIFORM; fill < KC_NAN; fill++) {
            for (int kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_BF16; kind++) {
                kc_begin(run, "%s, %zu blocks, fill %d", kc_kind_names[kind], counts[i], fill);
                measure_case(run, (qn_weight_kind)kind, counts[i], fill, true);
                kc_begin(run, "%s, %zu blocks, fill %d, any codes", kc_kind_names[kind], counts[i],
                         fill);
                measure_case(run, (qn_weight_kind)kind, counts[i], fill, false);
            }
        }
    }
}

/* --------------------------------------------------------------------------------- to_bf16 -- */

static void compare_bf16(kc *run, const uint8_t *got, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double value = kc_bf16(got + 2 * i);
        const bool is_quiet = (got[2 * i] & 0x40) != 0;
        if (isnan(x[i]) ? !isnan(value) || !is_quiet
                        : !kc_is_exact((float)value, kc_round_bf16(x[i]))) {
            kc_fail(run, "element %zu: %g of %.9g", i, value, (double)x[i]);
        }
    }
}

static void to_bf16_case(kc *run, size_t n, kc_fill_kind fill)
{
    kc_begin(run, "%zu, fill %d", n, fill);
    const float *x = kc_in(run, n, fill);
    uint8_t *got = kc_out_bytes(run, 2 * n + 1) + 1;
    kc_seal(run);
    run->k->to_bf16(got, x, n);
    compare_bf16(run, got, x, n);
    kc_end(run);
}

/* Every upper half with what is below, at and above a tie behind it. */
static void every_upper_half_case(kc *run)
{
    static const uint32_t halves[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    enum { HALVES = sizeof halves / sizeof *halves };
    kc_begin(run, "every upper half");
    const uint32_t n = 65536 * (uint32_t)HALVES;
    float *x = kc_in(run, n, KC_UNIFORM);
    uint8_t *got = kc_out_bytes(run, 2 * (size_t)n);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t bits = i / HALVES << 16 | halves[i % HALVES];
        memcpy(x + i, &bits, sizeof bits);
    }
    kc_seal(run);
    run->k->to_bf16(got, x, n);
    compare_bf16(run, got, x, n);
    kc_end(run);
}

void check_to_bf16(kc *run)
{
    for (size_t n = 0; n <= 33; n++) {
        to_bf16_case(run, n, KC_UNIFORM);
    }
    for (int fill = KC_UNIFORM; fill < KC_N_FILLS; fill++) {
        to_bf16_case(run, 1000, (kc_fill_kind)fill);
    }
    every_upper_half_case(run);
}
