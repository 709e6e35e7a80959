/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products by f32 multiply-add, for every kind of weights, and MXFP4 by int8 codes without VNNI.
 *
 * A word of weights is decoded to one register of f32 a column and meets all rows of the tile.
 * Activations in bf16 are widened a block of columns at a time, into a buffer that stays in L1.
 * Order of additions: columns ascending; where weights have scales, columns of a block ascending,
 * the block's sum scaled, blocks ascending.  One row is bound by memory for f32 and bf16 weights
 * and by decoding for the others, many rows by the multiply-adds.
 */
#include "kernels/x86/matmul_avx512.h"

enum { COLUMNS_MAX = QN_FP8_BLOCK /* of a block */, PER_WORD_MAX = 8 };

#define AS_IS(bits) bits
static const uint16_t e4m3_values[128] __attribute__((aligned(64))) = {QN_E4M3_BF16(AS_IS)};

/* The bf16 values of the e4m3 codes in the low bytes of 16-bit words: the table has 128 entries and
   an instruction takes 64, so bit 6 chooses the half.  Bit 7 is the sign. */
QN_INLINE __m512i e4m3_to_bf16(__m512i codes)
{
    const __m512i low = _mm512_permutex2var_epi16(_mm512_load_si512(e4m3_values), codes,
                                                  _mm512_load_si512(e4m3_values + 32));
    const __m512i high = _mm512_permutex2var_epi16(_mm512_load_si512(e4m3_values + 64), codes,
                                                   _mm512_load_si512(e4m3_values + 96));
    const __mmask32 is_high = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x40));
    const __m512i signs =
        _mm512_and_si512(_mm512_slli_epi16(codes, 8), _mm512_set1_epi16((short)0x8000));
    return _mm512_or_si512(_mm512_mask_blend_epi16(is_high, low, high), signs);
}

/* The bf16 in the upper half of each lane as f32, and that in the lower. */
QN_INLINE __m512 upper_half(__m512i words)
{
    return _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-0x10000)));
}

QN_INLINE __m512 lower_half(__m512i words)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

/* The columns of a word of each lane, without their scale. */
QN_INLINE void decode(__m512 w[PER_WORD_MAX], qn_weight_kind kind, __m512i words)
{
    const __m512 e2m1 = _mm512_setr_ps(0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F, 0.0F, -0.5F,
                                       -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F);
    switch (kind) {
    case QN_WEIGHT_F32: w[0] = _mm512_castsi512_ps(words); break;
    case QN_WEIGHT_BF16:
        w[0] = lower_half(words);
        w[1] = upper_half(words);
        break;
    case QN_WEIGHT_FP8_BLOCK:
    case QN_WEIGHT_FP8_CHANNEL: {
        const __m512i even = e4m3_to_bf16(words);
        const __m512i odd = e4m3_to_bf16(_mm512_srli_epi16(words, 8));
        w[0] = lower_half(even);
        w[1] = lower_half(odd);
        w[2] = upper_half(even);
        w[3] = upper_half(odd);
        break;
    }
    case QN_WEIGHT_MXFP4: /* the permutation reads the low 4 bits of a lane */
        QN_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            w[j] = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4 * j), e2m1);
        }
        break;
    }
}

/* Columns k .. k + n - 1 of a row of bf16 as f32; n is a multiple of 32. */
static void widen(float *to, const uint8_t *row, uint32_t k, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16) {
        const __m256i x = _mm256_loadu_si256((const void *)(row + 2 * (size_t)(k + i)));
        _mm512_store_ps(to + i, lower_half(_mm512_cvtepu16_epi32(x)));
    }
}

/* sums += products of the columns of a word with what stands at x + at of every row. */
QN_INLINE void add_word(__m512 sums[QN_TILE_ROWS], const __m512 w[PER_WORD_MAX], uint32_t per_word,
                        const uint8_t *const x[QN_TILE_ROWS], size_t at, uint32_t n_rows)
{
    QN_UNROLL
    for (uint32_t j = 0; j < per_word; j++) {
        QN_UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            const __m512i x_j = qn_broadcast(x[r] + at + 4 * (size_t)j);
            sums[r] = _mm512_fmadd_ps(w[j], _mm512_castsi512_ps(x_j), sums[r]);
        }
    }
}

/* sums += columns k .. k + n - 1, whose activations stand at x. */
QN_INLINE void add_columns(qn_tile_sums sums, const qn_tile *tile,
                           const uint8_t *const x[QN_TILE_ROWS], uint32_t k, uint32_t n,
                           qn_weight_kind kind, uint32_t n_strips, uint32_t n_rows)
{
    static const uint32_t per_word_of[] = {1, 2, 4, 4, 8};
    const uint32_t per_word = per_word_of[kind];
    const size_t words_at = (size_t)(k / per_word) * QN_STRIP * 4;
    for (size_t i = 0; i < n / per_word; i++) {
        QN_UNROLL
        for (uint32_t s = 0; s < n_strips; s++) {
            __m512 w[PER_WORD_MAX];
            decode(w, kind,
                   qn_tile_load(tile->strips[s] + words_at + i * 64, n_strips, tile->ahead));
            add_word(sums[s], w, per_word, x, i * per_word * 4, n_rows);
        }
    }
}

QN_INLINE void float_tile(const qn_tile *tile, qn_weight_kind kind, uint32_t n_strips,
                          uint32_t n_rows)
{
    const bool is_bf16 = tile->act == QN_ACT_BF16;
    const bool has_scales = kind > QN_WEIGHT_BF16;
    const uint32_t block = kind == QN_WEIGHT_MXFP4 ? QN_MXFP4_BLOCK : QN_FP8_BLOCK;
    float widened[QN_TILE_ROWS][COLUMNS_MAX] __attribute__((aligned(64)));
    const uint8_t *x[QN_TILE_ROWS];
    qn_tile_sums y;
    qn_tile_sums sums;
    qn_tile_zero(y, n_strips, n_rows);
    for (uint32_t k = 0; k < tile->n_k; k += block) {
        const uint32_t n = tile->n_k - k < block ? tile->n_k - k : block;
        QN_UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            x[r] = is_bf16 ? (const uint8_t *)widened[r] : tile->rows[r] + 4 * (size_t)k;
            if (is_bf16) {
                widen(widened[r], tile->rows[r], k, n);
            }
        }
        if (has_scales) {
            qn_tile_zero(sums, n_strips, n_rows);
            add_columns(sums, tile, x, k, n, kind, n_strips, n_rows);
            qn_tile_add_scaled(y, sums, tile, kind, k / block, n_strips, n_rows);
        } else {
            add_columns(y, tile, x, k, n, kind, n_strips, n_rows);
        }
    }
    qn_tile_store(tile, y, n_strips, n_rows);
}

/* Products of bytes up to 24 and codes up to 127, in pairs: four pairs fit in 16 bits, so half a
   block is added up there before it is widened. */
QN_INLINE void int8_dot(__m512i sums[QN_TILE_ROWS], const __m512i w[8],
                        const uint8_t *const x[QN_TILE_ROWS], uint32_t n_rows)
{
    const __m512i ones = _mm512_set1_epi16(1);
    QN_UNROLL
    for (uint32_t r = 0; r < n_rows; r++) {
        QN_UNROLL
        for (uint32_t i = 0; i < 8; i += 4) {
            const uint8_t *at = x[r] + 4 * (size_t)i;
            const __m512i pairs = _mm512_add_epi16(
                _mm512_add_epi16(_mm512_maddubs_epi16(w[i], qn_broadcast(at)),
                                 _mm512_maddubs_epi16(w[i + 1], qn_broadcast(at + 4))),
                _mm512_add_epi16(_mm512_maddubs_epi16(w[i + 2], qn_broadcast(at + 8)),
                                 _mm512_maddubs_epi16(w[i + 3], qn_broadcast(at + 12))));
            sums[r] = _mm512_add_epi32(sums[r], _mm512_madd_epi16(pairs, ones));
        }
    }
}

QN_TILE_SIZES(f32_tiles, float_tile, QN_WEIGHT_F32)
QN_TILE_SIZES(bf16_tiles, float_tile, QN_WEIGHT_BF16)
QN_TILE_SIZES(fp8_tiles, float_tile, QN_WEIGHT_FP8_BLOCK)
QN_TILE_SIZES(mxfp4_tiles, float_tile, QN_WEIGHT_MXFP4)

QN_TILE_SIZES(int8_tiles, qn_int8_tile, int8_dot)

void qn_matmul_avx512(const qn_matmul_args *args)
{
    if (args->act == QN_ACT_INT8) {
        qn_tile_strips(args, int8_tiles);
        return;
    }
    switch (args->w->kind) {
    case QN_WEIGHT_F32: qn_tile_strips(args, f32_tiles); break;
    case QN_WEIGHT_BF16: qn_tile_strips(args, bf16_tiles); break;
    case QN_WEIGHT_FP8_BLOCK:
    case QN_WEIGHT_FP8_CHANNEL: qn_tile_strips(args, fp8_tiles); break;
    case QN_WEIGHT_MXFP4: qn_tile_strips(args, mxfp4_tiles); break;
    }
}
