/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing weights and preparing activations on AVX2.  Both move or round each element once; memory
 * bounds packing, division prepares int8.
 *
 * Packing transposes 16 rows of 16 bytes by interleaving rows i and i + 8 four times: each time the
 * bits of an element's place (row, column) move up by one, and the highest comes in below.
 */
#include "kernels/x86/decode_avx2.h"
#include "kernels/x86/x86.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { GROUP = 16 }; /* bytes of a row that are transposed at a time */

QN_INLINE void transpose(__m128i rows[QN_STRIP], bool is_bytes)
{
#pragma GCC unroll 4
    for (int round = 0; round < 4; round++) {
        __m128i mixed[QN_STRIP];
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++) {
            const __m128i a = rows[i];
            const __m128i b = rows[i + 8];
            mixed[2 * i] = is_bytes ? _mm_unpacklo_epi8(a, b) : _mm_unpacklo_epi32(a, b);
            mixed[2 * i + 1] = is_bytes ? _mm_unpackhi_epi8(a, b) : _mm_unpackhi_epi32(a, b);
        }
        memcpy(rows, mixed, sizeof mixed);
    }
}

/* At most GROUP bytes, zeros behind them. */
static __m128i load_some(const uint8_t *from, size_t n)
{
    uint8_t bytes[GROUP] = {0};
    memcpy(bytes, from, n < GROUP ? n : GROUP);
    return _mm_loadu_si128((const void *)bytes);
}

/*
 * Rows of the lanes as columns of words, or of bytes: n_bytes of each, zeros where a row has ended
 * and for lanes from n_lanes.
 */
QN_INLINE void pack_rows(uint8_t *to, const uint8_t *from, size_t row_bytes, uint32_t n_lanes,
                         size_t n_bytes, bool is_bytes)
{
    for (size_t at = 0; at < n_bytes; at += GROUP) {
        __m128i rows[QN_STRIP];
        const size_t n_left = row_bytes > at ? row_bytes - at : 0;
        if (n_lanes == QN_STRIP && n_left >= GROUP) {
#pragma GCC unroll 16
            for (uint32_t lane = 0; lane < QN_STRIP; lane++) {
                rows[lane] = _mm_loadu_si128((const void *)(from + lane * row_bytes + at));
            }
        } else {
            for (uint32_t lane = 0; lane < QN_STRIP; lane++) {
                rows[lane] = lane < n_lanes && n_left > 0
                                 ? load_some(from + lane * row_bytes + at, n_left)
                                 : _mm_setzero_si128();
            }
        }
        transpose(rows, is_bytes);
        memcpy(to + at * QN_STRIP, rows, (n_bytes - at < GROUP ? n_bytes - at : GROUP) * QN_STRIP);
    }
}

/* The FP8 scale of a lane's columns 128 i and after. */
static const uint8_t *fp8_scale(const qn_weight *w, size_t n_blocks, uint32_t o, size_t i)
{
    return w->scale +
           4 * (w->kind == QN_WEIGHT_FP8_BLOCK ? o / QN_FP8_BLOCK * n_blocks + i : (size_t)o);
}

void qn_pack_strip_avx2(uint8_t *strip, const qn_weight *w, uint32_t i_strip)
{
    const uint32_t o = i_strip * QN_STRIP;
    const uint32_t n_lanes = w->n_out - o < QN_STRIP ? w->n_out - o : QN_STRIP;
    const size_t word_bytes = qn_strip_word_bytes(w->kind, w->n_in);
    const size_t row_bytes = qn_weight_bytes(w->kind, w->n_in);
    uint8_t *scales = strip + word_bytes;
    pack_rows(strip, w->data + o * row_bytes, row_bytes, n_lanes, word_bytes / QN_STRIP, false);
    if (w->kind == QN_WEIGHT_MXFP4) {
        const size_t n_blocks = w->n_in / QN_MXFP4_BLOCK;
        pack_rows(scales, w->scale + o * n_blocks, n_blocks, n_lanes, n_blocks, true);
        scales += n_blocks * QN_STRIP;
    } else if (w->kind == QN_WEIGHT_FP8_BLOCK || w->kind == QN_WEIGHT_FP8_CHANNEL) {
        const size_t n_blocks = (w->n_in + QN_FP8_BLOCK - 1) / QN_FP8_BLOCK;
        memset(scales, 0, n_blocks * QN_STRIP * 4);
        for (size_t i = 0; i < n_blocks; i++, scales += 4 * (size_t)QN_STRIP) {
            for (uint32_t lane = 0; lane < n_lanes; lane++) {
                memcpy(scales + 4 * (size_t)lane, fp8_scale(w, n_blocks, o + lane, i), 4);
            }
        }
    }
    memset(scales, 0, (size_t)(strip + qn_strip_bytes(w->kind, w->n_in) - scales));
}

/* Eight bf16 as words: nearest even, below the least normal number zero, NaN quiet. */
QN_INLINE __m256i round_bf16(__m256 x)
{
    const __m256i bits = _mm256_castps_si256(x);
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0F), x);
    const __m256i is_odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(is_odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
    const __m256 is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    const __m256 is_tiny = _mm256_cmp_ps(magnitude, _mm256_set1_ps(FLT_MIN), _CMP_LT_OQ);
    const __m256 value =
        _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), is_nan);
    return _mm256_srli_epi32(_mm256_castps_si256(_mm256_andnot_ps(is_tiny, value)), 16);
}

static void prepare_bf16(uint8_t *to, const float *x, size_t n)
{
    for (size_t k = 0; k < n; k += 16) {
        const __m256i codes = _mm256_packus_epi32(round_bf16(_mm256_loadu_ps(x + k)),
                                                  round_bf16(_mm256_loadu_ps(x + k + 8)));
        _mm256_storeu_si256((__m256i *)(void *)(to + 2 * k),
                            _mm256_permute4x64_epi64(codes, 0xd8)); /* halves 0 2 1 3 */
    }
}

/* Largest of eight integers. */
QN_INLINE int32_t reduce_max(__m256i x)
{
    __m128i most = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(most, _mm_shuffle_epi32(most, 0xb1)));
}

QN_INLINE int32_t reduce_add(__m256i x)
{
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

/* Magnitudes order as the integers of their bits do, NaN above Inf. */
static float int8_scale(const float *x)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (size_t i = 0; i < 4; i++) {
        const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + 8 * i));
        most = _mm256_max_epi32(most, _mm256_and_si256(bits, magnitude));
    }
    const float amax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(reduce_max(most))));
    const float scale = amax / 127.0F;
    return !isfinite(amax) ? NAN : scale < FLT_MIN ? 0.0F : scale;
}

/* A block of 32 columns; returns the sum of codes. */
static int32_t prepare_codes(uint8_t *to, const float *x, float scale)
{
    __m256i codes[4];
    for (size_t i = 0; i < 4; i++) {
        codes[i] =
            _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(scale)));
    }
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(codes[0], codes[1]),
                                         _mm256_add_epi32(codes[2], codes[3]));
    /* Packing leaves the first half of each eight in the low part, the second in the high one. */
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]),
                                              _mm256_packs_epi32(codes[2], codes[3]));
    const __m256i whole =
        _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    _mm256_storeu_si256((__m256i *)(void *)to,
                        _mm256_shuffle_epi8(whole, _mm256_broadcastsi128_si256(order)));
    return reduce_add(sum);
}

void qn_prepare_avx2(uint8_t *to, qn_act act, const float *x, uint32_t n_in, uint32_t first,
                     uint32_t end)
{
    const size_t n_k = qn_round_up(n_in, QN_PACK_K);
    const uint32_t whole_end = first + (end - first) / QN_PACK_K * QN_PACK_K;
    if (act == QN_ACT_F32) {
        qn_prepare_ref(to, act, x, n_in, first, end); /* a copy */
        return;
    }
    if (act == QN_ACT_BF16) {
        prepare_bf16(to + 2 * (size_t)first, x + first, whole_end - first);
    } else {
        for (uint32_t k = first; k < whole_end; k += QN_MXFP4_BLOCK) {
            uint8_t *const at = to + n_k + k / QN_MXFP4_BLOCK * sizeof(float);
            const float scale = int8_scale(x + k);
            int32_t offset = 0;
            if (scale > 0.0F) {
                offset = -12 * prepare_codes(to + k, x + k, scale);
            } else {
                memset(to + k, 0, QN_MXFP4_BLOCK);
            }
            memcpy(at, &scale, sizeof scale);
            memcpy(at + n_k / QN_MXFP4_BLOCK * 4, &offset, sizeof offset);
        }
    }
    if (whole_end < end) {
        qn_prepare_ref(to, act, x, n_in, whole_end, end);
    }
}
