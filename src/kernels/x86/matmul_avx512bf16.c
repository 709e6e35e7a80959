/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products by dot-product instructions: pairs of bf16, fours of int8.  What has f32 activations is
 * the lower level's.
 *
 * A word of weights is decoded to registers of bf16 pairs, each of which meets a pair of
 * activations of every row of the tile, broadcast to all lanes.  Order of additions: pairs
 * ascending, one chain; where weights have scales, pairs of a block ascending, the block's sum
 * scaled, blocks ascending.  (Pairs of MXFP4 are of columns 4 apart.)
 *
 * One row is bound by memory; with MXFP4 and bf16 by decoding, two instructions beside each dot
 * product.  Many rows are bound by the dot products, of which Zen 4 does one a cycle.  Of that 128
 * rows reach (2026-11-26) 98 % with bf16 weights, 89 % with FP8, 84 % with MXFP4 and 72 % with
 * int8, where every eight are followed by a conversion, a product of scales and a multiply-add.
 */
#include "kernels/x86/decode_avx512bf16.h"

enum { PAIRS_MAX = 4 /* of a word */ };

/* e2m1 codes to bf16; shifting by whole nibbles pairs column j of the word's 8 with j + 4. */
QN_INLINE void decode_e2m1(__m512i pairs[PAIRS_MAX], __m512i words)
{
    const __m512i values = qn_e2m1_bf16();
    QN_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        pairs[j] = _mm512_permutexvar_epi16(_mm512_srli_epi32(words, 4 * j), values);
    }
}

/* A block of 32 activations in the pairs of decode_e2m1(). */
QN_INLINE void pair_block(uint8_t *to, const uint8_t *x)
{
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
    _mm512_store_si512(to, _mm512_shuffle_epi8(_mm512_loadu_si512(x), order));
}

QN_INLINE void decode(__m512i pairs[PAIRS_MAX], qn_weight_kind kind, __m512i words)
{
    if (kind == QN_WEIGHT_BF16) {
        pairs[0] = words;
    } else if (kind == QN_WEIGHT_MXFP4) {
        decode_e2m1(pairs, words);
    } else {
        qn_decode_e4m3(pairs, words);
    }
}

/* sums += products of n_pairs of every strip with those that stand at x + at of every row. */
QN_INLINE void add_pairs(qn_tile_sums sums, __m512i w[QN_TILE_STRIPS][PAIRS_MAX],
                         const uint8_t *const x[QN_TILE_ROWS], size_t at, uint32_t n_pairs,
                         uint32_t n_strips, uint32_t n_rows)
{
    QN_UNROLL
    for (uint32_t j = 0; j < n_pairs; j++) {
        QN_UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            const __m512i pair = qn_broadcast(x[r] + at + 4 * (size_t)j);
            QN_UNROLL
            for (uint32_t s = 0; s < n_strips; s++) {
                sums[s][r] = _mm512_dpbf16_ps(sums[s][r], (__m512bh)w[s][j], (__m512bh)pair);
            }
        }
    }
}

/* sums += products of n_words of every lane, from words_at in the strips, with what is at x. */
QN_INLINE void add_words(qn_tile_sums sums, const qn_tile *tile, size_t words_at, size_t n_words,
                         const uint8_t *const x[QN_TILE_ROWS], qn_weight_kind kind,
                         uint32_t n_strips, uint32_t n_rows)
{
    const uint32_t n_pairs = kind == QN_WEIGHT_BF16 ? 1 : kind == QN_WEIGHT_MXFP4 ? 4 : 2;
    for (size_t i = 0; i < n_words; i++) {
        __m512i w[QN_TILE_STRIPS][PAIRS_MAX];
        QN_UNROLL
        for (uint32_t s = 0; s < n_strips; s++) {
            decode(w[s], kind,
                   qn_tile_load(tile->strips[s] + words_at + i * 64, n_strips, tile->ahead));
        }
        add_pairs(sums, w, x, i * n_pairs * 4, n_pairs, n_strips, n_rows);
    }
}

QN_INLINE void bf16_tile(const qn_tile *tile, qn_weight_kind kind, uint32_t n_strips,
                         uint32_t n_rows)
{
    const uint32_t per_word = kind == QN_WEIGHT_BF16 ? 2 : kind == QN_WEIGHT_MXFP4 ? 8 : 4;
    const uint32_t block = kind == QN_WEIGHT_BF16    ? tile->n_k
                           : kind == QN_WEIGHT_MXFP4 ? QN_MXFP4_BLOCK
                                                     : QN_FP8_BLOCK;
    uint8_t paired[QN_TILE_ROWS][64] __attribute__((aligned(64)));
    const uint8_t *x[QN_TILE_ROWS];
    qn_tile_sums y;
    qn_tile_zero(y, n_strips, n_rows);
    for (uint32_t k = 0; k < tile->n_k; k += block) {
        const uint32_t n = tile->n_k - k < block ? tile->n_k - k : block;
        const size_t words_at = (size_t)(k / per_word) * QN_STRIP * 4;
        QN_UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            x[r] = tile->rows[r] + 2 * (size_t)k;
            if (kind == QN_WEIGHT_MXFP4) {
                pair_block(paired[r], x[r]);
                x[r] = paired[r];
            }
        }
        if (kind == QN_WEIGHT_BF16) {
            add_words(y, tile, words_at, n / per_word, x, kind, n_strips, n_rows);
        } else {
            qn_tile_sums sums;
            qn_tile_zero(sums, n_strips, n_rows);
            add_words(sums, tile, words_at, n / per_word, x, kind, n_strips, n_rows);
            qn_tile_add_scaled(y, sums, tile, kind, k / block, n_strips, n_rows);
        }
    }
    qn_tile_store(tile, y, n_strips, n_rows);
}

/* Few rows have few sums to hide the latency of 4 behind: theirs are split. */
QN_INLINE void int8_dot(__m512i sums[QN_TILE_ROWS], const __m512i w[8],
                        const uint8_t *const x[QN_TILE_ROWS], uint32_t n_rows)
{
    const uint32_t n_parts = n_rows < 4 ? 2 : 1;
    __m512i parts[2][QN_TILE_ROWS];
    QN_UNROLL
    for (uint32_t i = 0; i < 8; i++) {
        QN_UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            const __m512i sum = i == 0        ? sums[r]
                                : i < n_parts ? _mm512_setzero_si512()
                                              : parts[i % n_parts][r];
            parts[i % n_parts][r] =
                _mm512_dpbusd_epi32(sum, w[i], qn_broadcast(x[r] + 4 * (size_t)i));
        }
    }
    QN_UNROLL
    for (uint32_t r = 0; r < n_rows; r++) {
        sums[r] = parts[0][r];
        QN_UNROLL
        for (uint32_t i = 1; i < n_parts; i++) {
            sums[r] = _mm512_add_epi32(sums[r], parts[i][r]);
        }
    }
}

QN_TILE_SIZES(bf16_tiles, bf16_tile, QN_WEIGHT_BF16)
QN_TILE_SIZES(fp8_tiles, bf16_tile, QN_WEIGHT_FP8_BLOCK)
QN_TILE_SIZES(mxfp4_tiles, bf16_tile, QN_WEIGHT_MXFP4)
QN_TILE_SIZES(int8_tiles, qn_int8_tile, int8_dot)

void qn_matmul_avx512bf16(const qn_matmul_args *args)
{
    if (args->act == QN_ACT_INT8) {
        qn_tile_strips(args, int8_tiles);
        return;
    }
    if (args->act == QN_ACT_F32) {
        qn_matmul_avx512(args);
        return;
    }
    switch (args->w->kind) {
    case QN_WEIGHT_F32: qn_matmul_avx512(args); break;
    case QN_WEIGHT_BF16: qn_tile_strips(args, bf16_tiles); break;
    case QN_WEIGHT_FP8_BLOCK:
    case QN_WEIGHT_FP8_CHANNEL: qn_tile_strips(args, fp8_tiles); break;
    case QN_WEIGHT_MXFP4: qn_tile_strips(args, mxfp4_tiles); break;
    }
}
