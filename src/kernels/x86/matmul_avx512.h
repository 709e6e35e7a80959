/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file matmul_avx512.h  What the products of both AVX-512 levels share: how a call is cut into
 * tiles, and the numbers that codes stand for.
 *
 * A tile is 1, 2 or 4 strips by 1 to 8 rows, one register of 16 f32 sums for each pair.  Its sizes
 * are constants where it is computed, so that the compiler unrolls it and keeps the sums in
 * registers; every lane adds up its own columns in ascending order, so no size shows in a result.
 * Row tiles pass over a group of strips one after the other: the strips come from memory once and
 * stay in L2.
 *
 * One or two rows take four strips side by side: independent sums, and four streams from memory,
 * of which a core gets 1.2 to 1.3 times the bytes of one.  More rows leave registers for two
 * strips, or for one where decoded weights take them.
 */
#ifndef QN_KERNELS_X86_MATMUL_AVX512_H
#define QN_KERNELS_X86_MATMUL_AVX512_H
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

#define QN_INLINE static inline __attribute__((always_inline))

/* Before a loop whose rounds are a constant at most 16: straight code, so that the arrays it walks
   are registers.  Clang keeps to a number only where it is that of the rounds. */
#ifdef __clang__
#define QN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QN_UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    QN_TILE_STRIPS = 4,
    QN_TILE_ROWS = 8,
    QN_TILE_ROWS_WIDE = 2, /* at most, of a tile of 4 strips */
};

typedef struct qn_tile {
    const uint8_t *strips[QN_TILE_STRIPS];
    const uint8_t *rows[QN_TILE_ROWS]; /* prepared */
    size_t scale_at;                   /* of a strip's scales, from its start */
    qn_act act;
    uint32_t n_k; /* columns with their padding */
    size_t ahead; /* bytes to the same place of the strips that come next */
    uint32_t n_rows;
    float *y; /* of the first row and strip */
    size_t y_stride;
    uint32_t n_out; /* columns of y, at most 16 for each strip */
} qn_tile;

/* f32 of 16 outputs for each strip and row of a tile. */
typedef __m512 qn_tile_sums[QN_TILE_STRIPS][QN_TILE_ROWS];

/* Computes a tile. */
typedef void qn_tile_fn(const qn_tile *tile, uint32_t n_strips);

/* A function NAME for qn_tile_strips() that calls BODY(tile, WITH, n_strips, n_rows) with constants
   for the sizes. */
#define QN_TILE_CASE(BODY, WITH, n_strips, n_rows)                                                 \
    case 16 * (n_strips) + (n_rows):                                                               \
        BODY(tile, WITH, n_strips, n_rows);                                                        \
        break;
#define QN_TILE_CASES(BODY, WITH, n_strips)                                                        \
    QN_TILE_CASE(BODY, WITH, n_strips, 1)                                                          \
    QN_TILE_CASE(BODY, WITH, n_strips, 2)                                                          \
    QN_TILE_CASE(BODY, WITH, n_strips, 3)                                                          \
    QN_TILE_CASE(BODY, WITH, n_strips, 4)                                                          \
    QN_TILE_CASE(BODY, WITH, n_strips, 5)                                                          \
    QN_TILE_CASE(BODY, WITH, n_strips, 6)                                                          \
    QN_TILE_CASE(BODY, WITH, n_strips, 7)                                                          \
    QN_TILE_CASE(BODY, WITH, n_strips, 8)
#define QN_TILE_SIZES(NAME, BODY, WITH)                                                            \
    static void NAME(const qn_tile *tile, uint32_t n_strips)                                       \
    {                                                                                              \
        switch (16 * n_strips + tile->n_rows) {                                                    \
            QN_TILE_CASES(BODY, WITH, 1)                                                           \
            QN_TILE_CASES(BODY, WITH, 2)                                                           \
            QN_TILE_CASE(BODY, WITH, 4, 1)                                                         \
            QN_TILE_CASE(BODY, WITH, 4, 2)                                                         \
        }                                                                                          \
    }

/* All rows of n_strips strips.  Nearly equal tiles: nine rows are 5 and 4, not 8 and 1. */
static inline void qn_tile_rows(const qn_matmul_args *args, qn_tile *tile, uint32_t n_strips,
                                qn_tile_fn *compute)
{
    for (uint32_t t = 0; t < args->n_rows; t += tile->n_rows) {
        const uint32_t n_left = args->n_rows - t;
        const uint32_t n_tiles = (n_left + QN_TILE_ROWS - 1) / QN_TILE_ROWS;
        tile->n_rows = (n_left + n_tiles - 1) / n_tiles;
        for (uint32_t r = 0; r < tile->n_rows; r++) {
            tile->rows[r] = qn_matmul_row(args, t + r);
        }
        compute(tile, n_strips);
        tile->y += tile->n_rows * tile->y_stride;
    }
}

/* Strips side by side.  Decoded weights take the registers of a second strip's sums. */
static inline uint32_t qn_tile_width(const qn_matmul_args *args)
{
    if (args->n_rows <= QN_TILE_ROWS_WIDE) {
        return QN_TILE_STRIPS;
    }
    return args->act == QN_ACT_INT8 || (args->w->kind > QN_WEIGHT_BF16 && args->n_rows > 4) ? 1 : 2;
}

/* A whole call. */
static inline void qn_tile_strips(const qn_matmul_args *args, qn_tile_fn *compute)
{
    const qn_packed *w = args->w;
    const size_t strip_bytes = qn_strip_bytes(w->kind, w->n_in);
    uint32_t n_strips = qn_tile_width(args);
    for (uint32_t o = args->out_first; o < args->out_end; o += n_strips * QN_STRIP) {
        const uint32_t n_left = args->out_end - o;
        while (n_strips > qn_strips(n_left)) {
            n_strips /= 2;
        }
        qn_tile tile = {
            .scale_at = qn_strip_word_bytes(w->kind, w->n_in),
            .act = args->act,
            .ahead = n_strips * strip_bytes,
            .n_k = qn_round_up(w->n_in, QN_PACK_K),
            .y = args->y + (o - args->out_first),
            .y_stride = args->y_stride,
            .n_out = n_left < n_strips * QN_STRIP ? n_left : n_strips * QN_STRIP,
        };
        for (uint32_t s = 0; s < n_strips; s++) {
            tile.strips[s] = w->data + (o / QN_STRIP + s) * strip_bytes;
        }
        qn_tile_rows(args, &tile, n_strips, compute);
    }
}

QN_INLINE void qn_tile_zero(qn_tile_sums sums, uint32_t n_strips, uint32_t n_rows)
{
    QN_UNROLL
    for (uint32_t s = 0; s < n_strips; s++) {
        QN_UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            sums[s][r] = _mm512_setzero_ps();
        }
    }
}

/* Write the sums of a tile, of the last strip what the call asks for. */
QN_INLINE void qn_tile_store(const qn_tile *tile, qn_tile_sums sums, uint32_t n_strips,
                             uint32_t n_rows)
{
    QN_UNROLL
    for (uint32_t s = 0; s < n_strips; s++) {
        const uint32_t n = tile->n_out - s * QN_STRIP;
        const __mmask16 mask = (__mmask16)(n < QN_STRIP ? (1U << n) - 1 : 0xffffU);
        QN_UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            float *y = tile->y + r * tile->y_stride + (size_t)s * QN_STRIP;
            _mm512_mask_storeu_ps(y, mask, sums[s][r]);
        }
    }
}

/* 64 bytes of a strip; asks for those further on.  Of four streams the machine keeps track itself:
   help with the way from L2 is all they gain from, further ahead costs a tenth.  Tiles of more rows
   are up to 1.4 times as fast with 4 KiB, and bring the next strips to L2 while they compute (3 %
   of a prompt whose weights come from memory). */
QN_INLINE __m512i qn_tile_load(const uint8_t *at, uint32_t n_strips, size_t ahead)
{
    if (n_strips < QN_TILE_STRIPS) {
        _mm_prefetch((const void *)(at + ahead), _MM_HINT_T1);
    }
    _mm_prefetch((const void *)(at + (n_strips == QN_TILE_STRIPS ? 256 : 4096)), _MM_HINT_T0);
    return _mm512_load_si512(at);
}

/* Four bytes in every lane: a load, and nothing more. */
QN_INLINE __m512i qn_broadcast(const uint8_t *at)
{
    int32_t word;
    memcpy(&word, at, sizeof word);
    return _mm512_set1_epi32(word);
}

/* Scales of a block, of those that end a strip: e8m0 bytes as f32 (byte 0 is 2^-127, byte 255 NaN),
   or f32. */
QN_INLINE __m512 qn_block_scales(const uint8_t *scales, qn_weight_kind kind, uint32_t i_block)
{
    if (kind != QN_WEIGHT_MXFP4) {
        return _mm512_loadu_ps(scales + (size_t)i_block * QN_STRIP * 4);
    }
    const __m512i code =
        _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(scales + (size_t)i_block * QN_STRIP)));
    const __m512i power =
        _mm512_max_epu32(_mm512_slli_epi32(code, 23), _mm512_set1_epi32(0x00400000));
    const __mmask16 is_nan = _mm512_cmpeq_epi32_mask(code, _mm512_set1_epi32(255));
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(power, is_nan, _mm512_set1_epi32(0x7fc00000)));
}

/* y += sums of a block, scaled. */
QN_INLINE void qn_tile_add_scaled(qn_tile_sums y, qn_tile_sums sums, const qn_tile *tile,
                                  qn_weight_kind kind, uint32_t i_block, uint32_t n_strips,
                                  uint32_t n_rows)
{
    QN_UNROLL
    for (uint32_t s = 0; s < n_strips; s++) {
        const __m512 scales = qn_block_scales(tile->strips[s] + tile->scale_at, kind, i_block);
        QN_UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            y[s][r] = _mm512_fmadd_ps(sums[s][r], scales, y[s][r]);
        }
    }
}

/* sums[r] += what a block of 32 columns brings: bytes of w times codes at x[r].  Exact. */
typedef void qn_int8_dot_fn(__m512i sums[QN_TILE_ROWS], const __m512i w[8],
                            const uint8_t *const x[QN_TILE_ROWS], uint32_t n_rows);

/* A block of MXFP4 as bytes: nibbles are looked up in a register of 16, twice their value and 12,
   so that none is negative.  The offset of a prepared row takes the 12 away. */
QN_INLINE void qn_decode_raised(__m512i w[8], const uint8_t *words, uint32_t n_strips, size_t ahead)
{
    const __m512i raised = _mm512_broadcast_i32x4(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m512i low_nibbles = _mm512_set1_epi8(15);
    QN_UNROLL
    for (size_t j = 0; j < 4; j++) {
        const __m512i word = qn_tile_load(words + j * 64, n_strips, ahead);
        w[2 * j] = _mm512_shuffle_epi8(raised, _mm512_and_si512(word, low_nibbles));
        w[2 * j + 1] =
            _mm512_shuffle_epi8(raised, _mm512_and_si512(_mm512_srli_epi16(word, 4), low_nibbles));
    }
}

/* MXFP4 by int8 codes.  A block is decoded once for all rows. */
QN_INLINE void qn_int8_tile(const qn_tile *tile, qn_int8_dot_fn *dot, uint32_t n_strips,
                            uint32_t n_rows)
{
    const uint32_t n_blocks = tile->n_k / QN_MXFP4_BLOCK;
    qn_tile_sums y;
    qn_tile_zero(y, n_strips, n_rows);
    for (uint32_t i_block = 0; i_block < n_blocks; i_block++) {
        const size_t scale_at = tile->n_k + 4 * (size_t)i_block;
        const size_t offset_at = scale_at + 4 * (size_t)n_blocks;
        QN_UNROLL
        for (uint32_t s = 0; s < n_strips; s++) {
            const __m512 w_scales = _mm512_mul_ps(
                qn_block_scales(tile->strips[s] + tile->scale_at, QN_WEIGHT_MXFP4, i_block),
                _mm512_set1_ps(0.5F));
            const uint8_t *x[QN_TILE_ROWS];
            __m512i sums[QN_TILE_ROWS];
            __m512i w[8];
            qn_decode_raised(w, tile->strips[s] + (size_t)i_block * 256, n_strips, tile->ahead);
            QN_UNROLL
            for (uint32_t r = 0; r < n_rows; r++) {
                x[r] = tile->rows[r] + (size_t)i_block * QN_MXFP4_BLOCK;
                sums[r] = qn_broadcast(tile->rows[r] + offset_at);
            }
            dot(sums, w, x, n_rows);
            QN_UNROLL
            for (uint32_t r = 0; r < n_rows; r++) {
                const __m512 x_scale = _mm512_castsi512_ps(qn_broadcast(tile->rows[r] + scale_at));
                y[s][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r]),
                                          _mm512_mul_ps(w_scales, x_scale), y[s][r]);
            }
        }
    }
    qn_tile_store(tile, y, n_strips, n_rows);
}

/* AS(bits) of the bf16 values of the e4m3 codes below 128: m 2^-9 for the first eight, then
   2^(e - 7) (1 + m / 8), NaN for the last. */
#define QN_E4M3_ROW(AS, e)                                                                         \
    AS(0x3c00 + 128 * (e)), AS(0x3c10 + 128 * (e)), AS(0x3c20 + 128 * (e)),                        \
        AS(0x3c30 + 128 * (e)), AS(0x3c40 + 128 * (e)), AS(0x3c50 + 128 * (e)),                    \
        AS(0x3c60 + 128 * (e)), AS(0x3c70 + 128 * (e))
#define QN_E4M3_BF16(AS)                                                                           \
    AS(0), AS(0x3b00), AS(0x3b80), AS(0x3bc0), AS(0x3c00), AS(0x3c20), AS(0x3c40), AS(0x3c60),     \
        QN_E4M3_ROW(AS, 1), QN_E4M3_ROW(AS, 2), QN_E4M3_ROW(AS, 3), QN_E4M3_ROW(AS, 4),            \
        QN_E4M3_ROW(AS, 5), QN_E4M3_ROW(AS, 6), QN_E4M3_ROW(AS, 7), QN_E4M3_ROW(AS, 8),            \
        QN_E4M3_ROW(AS, 9), QN_E4M3_ROW(AS, 10), QN_E4M3_ROW(AS, 11), QN_E4M3_ROW(AS, 12),         \
        QN_E4M3_ROW(AS, 13), QN_E4M3_ROW(AS, 14), AS(0x4380), AS(0x4390), AS(0x43a0), AS(0x43b0),  \
        AS(0x43c0), AS(0x43d0), AS(0x43e0), AS(0x7fc0)
#endif
