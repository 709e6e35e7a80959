/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file matmul_int8_tmpl.h  MXFP4 weights with int8 activations, compiled for AVX2 and for
 * AVX-VNNI.
 *
 * One strip by 1 or 2 rows is a tile.  It takes 256 columns, a chunk, before the next rows come.
 * For one tile of rows weights are decoded in registers, as memory bounds it; for more a chunk is
 * decoded once into a panel of bytes 2 x + 12 that stays in the first cache, and multiplications of
 * bytes and the additions behind them bound it.
 *
 * Order of additions: exact within 32 columns; then a lane adds, by FMA, block after block its sum
 * times the product of the scales.
 */
#ifndef QN_KERNELS_X86_MATMUL_INT8_TMPL_H
#define QN_KERNELS_X86_MATMUL_INT8_TMPL_H
#include "kernels/x86/decode_avx2.h"
#include "kernels/x86/x86.h"

#include <string.h>

enum {
    BLOCK_WORDS = QN_MXFP4_BLOCK / 8, /* of a lane */
    CHUNK_BLOCKS = 8,
    TILE_ROWS = 2,   /* by 2 halves of a strip: 4 sums of 16 bits and 4 of 32 */
    BLOCK_ROWS = 48, /* rows for which a panel is decoded; bounds the sums on the stack */
};

/* Sums of some rows, kept from chunk to chunk. */
typedef float sum_row[QN_STRIP];

/* Of a strip and some rows: what is the same in each chunk. */
typedef struct int8_call {
    const uint8_t *rows[BLOCK_ROWS]; /* prepared */
    uint32_t n_rows;
    uint32_t n_in;
} int8_call;

typedef struct chunk {
    __m256 scales[CHUNK_BLOCKS][2]; /* half of each, since weights are doubled */
    const uint8_t *words;           /* of a strip */
    const __m256i *panel; /* [BLOCK_WORDS per block][2 halves][low nibbles, high ones], or NULL */
    uint32_t i_block, n_blocks;
} chunk;

QN_INLINE void decode_word(__m256i w[2], const uint8_t *at)
{
    const __m128i raised = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const __m256i words = qn_load_words(at);
    w[0] = qn_look_up(raised, qn_low_nibbles(words));
    w[1] = qn_look_up(raised, qn_high_nibbles(words));
}

/*
 * Eight columns of each lane.  Without VNNI sums of pairs are at most 2 * 24 * 127 = 6096, so four
 * of them fit in 16 bits; every second word they go to 32 bits.
 */
QN_INLINE void add_word(__m256i *sum, __m256i *pairs, const __m256i w[2], const __m256i x[2],
                        bool is_second)
{
#ifdef __AVXVNNI__
    (void)pairs;
    (void)is_second;
    *sum = _mm256_dpbusd_avx_epi32(*sum, w[0], x[0]);
    *sum = _mm256_dpbusd_avx_epi32(*sum, w[1], x[1]);
#else
    const __m256i both =
        _mm256_add_epi16(_mm256_maddubs_epi16(w[0], x[0]), _mm256_maddubs_epi16(w[1], x[1]));
    *pairs = is_second ? _mm256_add_epi16(*pairs, both) : both;
    if (is_second) {
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*pairs, _mm256_set1_epi16(1)));
    }
#endif
}

/* A block; n_rows and is_panel are constants where this is inlined. */
QN_INLINE void add_block(__m256 totals[TILE_ROWS][2], const chunk *c, uint32_t i,
                         const uint8_t *const *rows, uint32_t n_in, uint32_t n_rows, bool is_panel)
{
    const size_t i_block = c->i_block + i;
    const size_t offset_at = n_in + n_in / QN_MXFP4_BLOCK * sizeof(float);
    __m256i sums[TILE_ROWS][2];
    __m256i pairs[TILE_ROWS][2];
#pragma GCC unroll 2
    for (uint32_t r = 0; r < n_rows; r++) {
        sums[r][0] = qn_broadcast_u32(rows[r] + offset_at + i_block * 4);
        sums[r][1] = sums[r][0];
    }
#pragma GCC unroll 4
    for (uint32_t j = 0; j < BLOCK_WORDS; j++) {
        const size_t i_word = (size_t)i * BLOCK_WORDS + j;
        __m256i x[TILE_ROWS][2];
        if (!is_panel) {
            qn_prefetch(c->words + i_word * 64);
        }
#pragma GCC unroll 2
        for (uint32_t r = 0; r < n_rows; r++) {
            x[r][0] = qn_broadcast_u32(rows[r] + i_block * QN_MXFP4_BLOCK + (size_t)j * 8);
            x[r][1] = qn_broadcast_u32(rows[r] + i_block * QN_MXFP4_BLOCK + (size_t)j * 8 + 4);
        }
#pragma GCC unroll 2
        for (uint32_t half = 0; half < 2; half++) {
            __m256i w[2];
            if (is_panel) {
                w[0] = c->panel[4 * i_word + (size_t)half * 2];
                w[1] = c->panel[4 * i_word + (size_t)half * 2 + 1];
            } else {
                decode_word(w, c->words + i_word * 64 + (size_t)half * 32);
            }
#pragma GCC unroll 2
            for (uint32_t r = 0; r < n_rows; r++) {
                add_word(&sums[r][half], &pairs[r][half], w, x[r], j % 2 == 1);
            }
        }
    }
#pragma GCC unroll 2
    for (uint32_t r = 0; r < n_rows; r++) {
        const __m256 x_scale = _mm256_castsi256_ps(qn_broadcast_u32(rows[r] + n_in + i_block * 4));
#pragma GCC unroll 2
        for (uint32_t half = 0; half < 2; half++) {
            totals[r][half] =
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][half]),
                                _mm256_mul_ps(c->scales[i][half], x_scale), totals[r][half]);
        }
    }
}

QN_INLINE void add_chunk(sum_row *sums, const chunk *c, const uint8_t *const *rows, uint32_t n_in,
                         uint32_t n_rows, bool is_panel)
{
    __m256 totals[TILE_ROWS][2];
#pragma GCC unroll 2
    for (uint32_t r = 0; r < n_rows; r++) {
        totals[r][0] = _mm256_load_ps(sums[r]);
        totals[r][1] = _mm256_load_ps(sums[r] + 8);
    }
    for (uint32_t i = 0; i < c->n_blocks; i++) {
        add_block(totals, c, i, rows, n_in, n_rows, is_panel);
    }
#pragma GCC unroll 2
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm256_store_ps(sums[r], totals[r][0]);
        _mm256_store_ps(sums[r] + 8, totals[r][1]);
    }
}

static void add_rows(sum_row *sums, const chunk *c, const int8_call *call)
{
    const uint8_t *const *rows = call->rows;
    uint32_t r = 0;
    if (call->n_rows == 1) {
        add_chunk(sums, c, rows, call->n_in, 1, false);
        return;
    }
    if (call->n_rows == 2) {
        add_chunk(sums, c, rows, call->n_in, 2, false);
        return;
    }
    for (; r + 2 <= call->n_rows; r += 2) {
        add_chunk(sums + r, c, rows + r, call->n_in, 2, true);
    }
    if (r < call->n_rows) {
        add_chunk(sums + r, c, rows + r, call->n_in, 1, true);
    }
}

/* One strip for all rows of a call. */
static void add_strip(sum_row *sums, const int8_call *call, const uint8_t *strip)
{
    __m256i panel[CHUNK_BLOCKS * BLOCK_WORDS * 4];
    const uint32_t n_blocks = call->n_in / QN_MXFP4_BLOCK;
    const uint8_t *const scales = strip + qn_strip_word_bytes(QN_WEIGHT_MXFP4, call->n_in);
    chunk c = {.words = strip, .panel = panel};
    memset(sums, 0, call->n_rows * sizeof *sums);
    for (; c.i_block < n_blocks; c.i_block += CHUNK_BLOCKS) {
        c.n_blocks = n_blocks - c.i_block < CHUNK_BLOCKS ? n_blocks - c.i_block : CHUNK_BLOCKS;
        for (uint32_t i = 0; i < c.n_blocks * 2; i++) {
            c.scales[i / 2][i % 2] =
                _mm256_mul_ps(qn_decode_e8m0(scales + (size_t)c.i_block * QN_STRIP + (size_t)i * 8),
                              _mm256_set1_ps(0.5F));
        }
        for (uint32_t i = 0; i < c.n_blocks * BLOCK_WORDS * 2 && call->n_rows > TILE_ROWS; i++) {
            qn_prefetch(c.words + (size_t)i * 32);
            decode_word(panel + 2 * (size_t)i, c.words + (size_t)i * 32);
        }
        add_rows(sums, &c, call);
        c.words += (size_t)CHUNK_BLOCKS * BLOCK_WORDS * 64;
    }
}

static void matmul_int8(const qn_matmul_args *args)
{
    sum_row sums[BLOCK_ROWS] __attribute__((aligned(32)));
    int8_call call = {.n_in = args->w->n_in};
    const size_t strip_bytes = qn_strip_bytes(QN_WEIGHT_MXFP4, args->w->n_in);
    for (uint32_t o = args->out_first; o < args->out_end; o += QN_STRIP) {
        const uint8_t *const strip = args->w->data + o / QN_STRIP * strip_bytes;
        const uint32_t n_out = args->out_end - o < QN_STRIP ? args->out_end - o : QN_STRIP;
        for (uint32_t t = 0; t < args->n_rows; t += BLOCK_ROWS) {
            call.n_rows = args->n_rows - t < BLOCK_ROWS ? args->n_rows - t : BLOCK_ROWS;
            for (uint32_t r = 0; r < call.n_rows; r++) {
                call.rows[r] = qn_matmul_row(args, t + r);
            }
            add_strip(sums, &call, strip);
            for (uint32_t r = 0; r < call.n_rows; r++) {
                memcpy(args->y + (t + r) * args->y_stride + (o - args->out_first), sums[r],
                       n_out * sizeof(float));
            }
        }
    }
}
#endif
