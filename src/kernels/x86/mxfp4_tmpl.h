/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file mxfp4_tmpl.h  Blocks of elements to MXFP4, and what that loses.  Included once by a file of
 * each level.
 *
 * Codes are found among integers: the bits of a bf16 without its sign, less 128 * (byte - 127), are
 * those of the number over its scale, and in the order of the numbers.  So 32 words of 16 bits hold
 * a block.  An f32 goes the same way by its upper half, with an odd last bit where the lower half
 * is not 0: no threshold has so many bits, so above and below stay what they are.
 *
 * Below byte 3 thresholds would be denormal and above 252 they would leave 15 bits: such blocks,
 * and those with NaN and Inf, are left to plain C.
 *
 * Bound by the instructions: with AVX-512 a block of bf16 takes 13 cycles of Zen 4 (2026-11-26), to
 * read it from memory 7.  The choice between two scales takes 40 more, since its way from elements
 * to a byte is longer than what the CPU looks ahead; measuring 26, a third of them for the sums.
 */
#include "base/numbers.h"
#include "kernels/x86/decode.h"
#include "kernels/x86/lanes.h"
#include "kernels/x86/x86.h"

enum {
    N = QN_MXFP4_BLOCK,
    N_FLOATS = N / QN_LANES,    /* registers of a block as floats */
    N_WORDS = N / 2 / QN_LANES, /* and as words of 16 bits */
    BYTE_MIN = 4, /* scale bytes with which, and with the one below, words can be compared */
    BYTE_MAX = 252
};

/* ------------------------------------------------------------------------- words of 16 bits -- */

/* The upper halves of lanes, those of a first. */
QN_INLINE qn_vi upper_halves(qn_vi a, qn_vi b)
{
#ifdef __AVX512F__
    const __m512i odd =
        _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                         25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_permutex2var_epi16(a, odd, b);
#else
    const __m256i halves = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    return _mm256_permute4x64_epi64(halves, 0xd8);
#endif
}

QN_INLINE void load_words(qn_vi words[N_WORDS], const uint8_t *x, qn_weight_kind kind)
{
    for (size_t i = 0; i < N_WORDS; i++) {
        if (kind == QN_WEIGHT_BF16) {
            words[i] = qn_vi_load(x + i * sizeof *words);
            continue;
        }
        qn_vi halves[2];
        for (size_t k = 0; k < 2; k++) {
            const qn_vi bits = qn_vi_load(x + (2 * i + k) * sizeof bits);
            const qn_vi low = V(set1_epi32)(0xffff);
            halves[k] = bits | V(add_epi32)(bits & low, low); /* a carry into bit 16 unless 0 */
        }
        words[i] = upper_halves(halves[0], halves[1]);
    }
}

/* The largest word without its sign. */
QN_INLINE uint32_t greatest_word(const qn_vi words[N_WORDS])
{
    const qn_vi no_sign = V(set1_epi16)(0x7fff);
#ifdef __AVX512F__
    const __m512i all = words[0] & no_sign;
    const __m256i half =
        _mm256_max_epu16(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
#else
    const __m256i half = _mm256_max_epu16(words[0] & no_sign, words[1] & no_sign);
#endif
    const __m128i quarter =
        _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    /* There is an instruction for the least of eight. */
    const __m128i least = _mm_minpos_epu16(~quarter);
    return ~(uint32_t)_mm_cvtsi128_si32(least) & 0xffff;
}

/* Codes of a block for a scale byte. */
QN_INLINE void store_codes(uint8_t *codes, const qn_vi words[N_WORDS], uint32_t byte)
{
    const qn_vi scale = V(set1_epi16)((int16_t)(((int32_t)byte - 127) * 128));
    const qn_vi weights = V(set1_epi32)(0x100001); /* 1 and 16 */
#ifdef __AVX512F__
    /*
     * A table by exponent and two bits of mantissa, less one at a threshold whose tie goes down:
     * those are even in bit 6, those whose tie goes up are odd.  From 0x1f3 at 0.25 to 0x207 below
     * 8 five bits of this are enough; the sixth is the sign.
     */
    const __m512i positive = _mm512_set_epi16(4, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0,
                                              0, 0, 0, 0, 0, 0, 7, 7, 7, 6, 6, 5, 5, 4);
    const __m512i negative = _mm512_mask_add_epi16(
        positive, _mm512_test_epi16_mask(positive, positive), positive, _mm512_set1_epi16(8));
    const __m512i y = _mm512_max_epi16(
        _mm512_sub_epi16(words[0] & _mm512_set1_epi16(0x7fff), scale), _mm512_set1_epi16(0x3e80));
    const __m512i at = _mm512_srli_epi16(y, 5);
    const __mmask32 is_even_tie = _mm512_testn_epi16_mask(y, _mm512_set1_epi16(0x5f));
    const __m512i above = _mm512_mask_sub_epi16(at, is_even_tie, at, _mm512_set1_epi16(1));
    const __m512i signs = _mm512_srli_epi16(words[0], 10);
    const __m512i index = _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x20), signs, above, 0xca);
    const __m512i nibbles = _mm512_permutex2var_epi16(positive, index, negative);
    const __m512i pairs = _mm512_madd_epi16(nibbles, weights);
    _mm_storeu_si128((void *)codes, _mm512_cvtepi32_epi8(pairs));
#else
    /* The words just below where a code begins: > where a tie goes down, >= where it goes up. */
    static const int16_t below[] = {0x3e80, 0x3f3f, 0x3fa0, 0x3fdf, 0x4020, 0x405f, 0x40a0};
    __m256i pairs[N_WORDS];
    for (size_t i = 0; i < N_WORDS; i++) {
        const __m256i y = _mm256_sub_epi16(words[i] & _mm256_set1_epi16(0x7fff), scale);
        __m256i code = _mm256_setzero_si256();
        for (size_t k = 0; k < sizeof below / sizeof *below; k++) {
            code = _mm256_sub_epi16(code, _mm256_cmpgt_epi16(y, _mm256_set1_epi16(below[k])));
        }
        const __m256i is_some = _mm256_cmpgt_epi16(code, _mm256_setzero_si256());
        const __m256i sign = _mm256_srli_epi16(words[i], 12) & is_some & _mm256_set1_epi16(8);
        pairs[i] = _mm256_madd_epi16(code | sign, weights);
    }
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(pairs[0], pairs[1]), 0xd8);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    _mm_storeu_si128((void *)codes, bytes);
#endif
}

/* ---------------------------------------------------------------------------------- floats -- */

/* A block as floats: of each 2 QN_LANES elements the even ones, then the odd ones. */
QN_INLINE void load_floats(qn_vf to[N_FLOATS], const uint8_t *x, qn_weight_kind kind)
{
    for (size_t i = 0; i < N_FLOATS; i += 2) {
        if (kind == QN_WEIGHT_BF16) {
            const qn_vi pairs = qn_vi_load(x + i / 2 * sizeof pairs);
            to[i] = qn_vf_of(V(slli_epi32)(pairs, 16));
            to[i + 1] = qn_vf_of(pairs & V(set1_epi32)(-0x10000));
            continue;
        }
        const qn_vf a = qn_vf_of(qn_vi_load(x + i * sizeof a));
        const qn_vf b = qn_vf_of(qn_vi_load(x + (i + 1) * sizeof b));
#ifdef __AVX512F__
        const __m512i even =
            _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        to[i] = _mm512_permutex2var_ps(a, even, b);
        to[i + 1] = _mm512_permutex2var_ps(a, even | _mm512_set1_epi32(1), b);
#else
        const __m256d even = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88));
        const __m256d odd = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xdd));
        to[i] = _mm256_castpd_ps(_mm256_permute4x64_pd(even, 0xd8));
        to[i + 1] = _mm256_castpd_ps(_mm256_permute4x64_pd(odd, 0xd8));
#endif
    }
}

/* The values of its codes in the same order. */
QN_INLINE void load_values(qn_vf to[N_FLOATS], const uint8_t *codes)
{
    for (size_t i = 0; i < N_FLOATS; i += 2) {
#ifdef __AVX512F__
        const __m512i pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)codes));
#else
        const __m256i pairs =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(codes + i / 2 * QN_LANES)));
#endif
        to[i] = qn_e2m1_values(pairs);
        to[i + 1] = qn_e2m1_values(V(srli_epi32)(pairs, 4));
    }
}

QN_INLINE qn_vf magnitude(qn_vf x)
{
    return qn_vf_of(qn_vi_of(x) & V(set1_epi32)(0x7fffffff));
}

/* Of a block the largest magnitude in each lane; as integers, which is quicker. */
QN_INLINE qn_vf greatest_of(const qn_vf x[N_FLOATS])
{
    qn_vi greatest = qn_vi_of(magnitude(x[0]));
    for (size_t i = 1; i < N_FLOATS; i++) {
        greatest = V(max_epi32)(qn_vi_of(magnitude(x[i])), greatest);
    }
    return qn_vf_of(greatest);
}

/* Eight sums of four squares. */
QN_INLINE __m256 eight_sums(const qn_vf x[N_FLOATS])
{
    const qn_vf first = x[0] * x[0] + x[1] * x[1];
#ifdef __AVX512F__
    return _mm512_castps512_ps256(first) + _mm512_extractf32x8_ps(first, 1);
#else
    return first + (x[2] * x[2] + x[3] * x[3]);
#endif
}

/* Sums of squares of two blocks in lanes 0 and 1, in the order that is promised. */
QN_INLINE __m128 sums_of_squares(const qn_vf x[N_FLOATS], const qn_vf y[N_FLOATS])
{
    const __m256 of_x = eight_sums(x);
    const __m256 of_y = eight_sums(y);
    __m256 sums =
        _mm256_permute2f128_ps(of_x, of_y, 0x20) + _mm256_permute2f128_ps(of_x, of_y, 0x31);
    sums = sums + _mm256_permute_ps(sums, 0x4e);
    sums = sums + _mm256_permute_ps(sums, 0xb1);
    return _mm_unpacklo_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

/*
 * The better of two bytes, the upper one given.  Values of codes are multiples of half the power of
 * two below them, but of no less than 0.5: adding 2^22 such units and half as many leaves no bit
 * beneath.  In units of the lower scale those of the upper one are multiples of 1 at least, and
 * none is beyond 6.
 */
QN_INLINE uint32_t better_byte(const uint8_t *x, qn_weight_kind kind, uint32_t upper)
{
    const qn_vf reciprocal = qn_vf_set(qn_e8m0_to_f32((uint8_t)(254 - (upper - 1))));
    qn_vf floats[N_FLOATS];
    qn_vf with_lower[N_FLOATS];
    qn_vf with_upper[N_FLOATS];
    load_floats(floats, x, kind);
    for (size_t i = 0; i < N_FLOATS; i++) {
        const qn_vf y = magnitude(floats[i]) * reciprocal;
        const qn_vi exponent = qn_vi_of(qn_vf_max(y, qn_vf_set(1.0F))) & V(set1_epi32)(0x7f800000);
        const qn_vf shift = qn_vf_of(exponent) * qn_vf_set(0x1.8p22F);
        const qn_vf wide = qn_vf_max(shift, qn_vf_set(0x1.8p23F));
        with_lower[i] = y - V(min_ps)((y + shift) - shift, qn_vf_set(6.0F));
        with_upper[i] = y - ((y + wide) - wide);
    }
    const __m128 errors = sums_of_squares(with_lower, with_upper);
    /* No branch: which one it is cannot be foretold. */
    return upper - (uint32_t)(errors[0] < errors[1]);
}

/* --------------------------------------------------------------------------------- kernels -- */

/*
 * Encode blocks b .. end - 1 up to the first that has to be left to encode_rare(), which is
 * returned.  Two loops, since a block's way from its elements to its codes is longer than what the
 * CPU looks ahead; and with no call in them, so that constants stay in registers.
 */
QN_INLINE size_t encode_usual(const qn_mxfp4_args args, size_t b, size_t end, qn_weight_kind kind,
                              qn_scale_rule rule)
{
    const size_t step = qn_weight_bytes(kind, N);
    size_t n = b;
    for (; n < end; n++) {
        qn_vi words[N_WORDS];
        load_words(words, args.x + n * step, kind);
        uint32_t byte = ((greatest_word(words) + (rule == QN_SCALE_EVEN ? 0x20 : 0x7f)) >> 7) - 2;
        if (byte - BYTE_MIN > BYTE_MAX - BYTE_MIN) {
            break;
        }
        byte = rule == QN_SCALE_EVEN ? byte : better_byte(args.x + n * step, kind, byte);
        args.scales[n] = (uint8_t)byte;
    }
    for (; b < n; b++) {
        qn_vi words[N_WORDS];
        load_words(words, args.x + b * step, kind);
        store_codes(args.codes + b * N / 2, words, args.scales[b]);
    }
    return n;
}

/* A block whose scale is far from those of weights; false where there is none. */
static bool encode_rare(const qn_mxfp4_args *args, size_t b)
{
    qn_mxfp4_args one = *args;
    one.codes += b * N / 2;
    one.scales += b;
    one.x += b * qn_weight_bytes(args->kind, N);
    one.n_blocks = 1;
    qn_vi words[N_WORDS];
    load_words(words, one.x, args->kind);
    if (greatest_word(words) == 0) { /* the only one of these that may be frequent */
        memset(one.codes, 0, N / 2);
        *one.scales = 1;
        return true;
    }
    return qn_mxfp4_encode_ref(&one) == 1;
}

size_t QN_LEVEL(qn_mxfp4_encode)(const qn_mxfp4_args *args)
{
    enum { CHUNK = 64 }; /* blocks that the nearest cache holds */
    const bool is_bf16 = args->kind == QN_WEIGHT_BF16;
    for (size_t b = 0; b < args->n_blocks;) {
        const size_t end = args->n_blocks - b < CHUNK ? args->n_blocks : b + CHUNK;
        if (args->rule == QN_SCALE_EVEN) {
            b = is_bf16 ? encode_usual(*args, b, end, QN_WEIGHT_BF16, QN_SCALE_EVEN)
                        : encode_usual(*args, b, end, QN_WEIGHT_F32, QN_SCALE_EVEN);
        } else {
            b = is_bf16 ? encode_usual(*args, b, end, QN_WEIGHT_BF16, QN_SCALE_MSE)
                        : encode_usual(*args, b, end, QN_WEIGHT_F32, QN_SCALE_MSE);
        }
        if (b < end) {
            if (!encode_rare(args, b)) {
                return b;
            }
            b++;
        }
    }
    return args->n_blocks;
}

QN_INLINE void measure(qn_mxfp4_error *error, const qn_mxfp4_args args, qn_weight_kind kind)
{
    /* Here, since in memory each sum would wait for the last one. */
    __m128d sums = _mm_setr_pd(error->x_sq, error->error_sq);
    uint64_t n_saturated = error->n_saturated;
    qn_vf error_max = {0};
    for (size_t b = 0; b < args.n_blocks; b++) {
        const uint8_t byte = args.scales[b];
        const float scale = qn_e8m0_to_f32(byte);
        const qn_vf reciprocal = qn_vf_set(qn_e8m0_to_f32((uint8_t)(254 - byte)));
        qn_vf y[N_FLOATS];
        qn_vf lost[N_FLOATS];
        load_floats(y, args.x + b * qn_weight_bytes(kind, N), kind);
        load_values(lost, args.codes + b * N / 2);
        for (size_t i = 0; i < N_FLOATS; i++) {
            y[i] = y[i] * reciprocal;
            lost[i] = y[i] - lost[i];
        }
        error_max = qn_vf_max(greatest_of(lost) * qn_vf_set(scale), error_max);
        n_saturated += qn_vf_above(greatest_of(y), qn_vf_set(6.0F)) != 0;
        const __m128d square = _mm_set1_pd((double)scale * (double)scale);
        sums = sums + _mm_cvtps_pd(sums_of_squares(y, lost)) * square;
        error->scales[byte]++;
    }
    const float largest = qn_vf_greatest(error_max);
    error->error_max = largest > error->error_max ? largest : error->error_max;
    error->x_sq = sums[0];
    error->error_sq = sums[1];
    error->n_saturated = n_saturated;
    error->n_blocks += args.n_blocks;
}

void QN_LEVEL(qn_mxfp4_measure)(qn_mxfp4_error *error, const qn_mxfp4_args *args)
{
    if (args->kind == QN_WEIGHT_BF16) {
        measure(error, *args, QN_WEIGHT_BF16);
    } else {
        measure(error, *args, QN_WEIGHT_F32);
    }
}
