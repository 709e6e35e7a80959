/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with float activations on AVX2.
 *
 * Two strips by 1 to 3 rows are a tile, or four strips by one row: at most 12 registers of sums, a
 * weight for three FMAs, an activation for four.  It adds 128 columns, a chunk, before the next
 * rows or columns come.  Up to three rows decode weights in registers, as memory or decoding bounds
 * them (of bf16 up to eight); for more rows a chunk is decoded once into a panel that has the
 * layout of f32 words and stays in the first cache.
 *
 * Order of additions, the same in each case: a lane adds its columns one after the other by FMA.
 * With scales a block (32 columns of MXFP4, 128 of FP8) is added up from zero, and one FMA adds its
 * sum times its scale.
 */
#include "kernels/x86/decode_avx2.h"
#include "kernels/x86/x86.h"

#include <string.h>

enum {
    CHUNK = 128,     /* columns; a multiple of every block that shares a scale */
    TILE_ROWS = 3,   /* 2 strips of 2 registers each, for 3 rows: 12 of 16 registers */
    TILE_STRIPS = 4, /* at most, for one row: 8 sums hide the latency of an FMA */
    BLOCK_ROWS = 48, /* rows for which a panel is decoded; bounds the sums on the stack */
};

/* Sums of some rows, kept from chunk to chunk. */
typedef float sum_row[TILE_STRIPS * QN_STRIP];

/* A tile's part of the columns that share a scale. */
typedef struct block {
    sum_row *sums;
    const uint8_t *words[TILE_STRIPS];
    const float *x[TILE_ROWS];
    const __m256 *scales; /* [TILE_STRIPS * 2]; NULL: the sums go on */
    uint32_t n_k, n_strips, n_rows;
} block;

/* Columns of one word in each of eight lanes; returns their number. */
QN_INLINE uint32_t decode_word(__m256 w[8], qn_weight_kind kind, const uint8_t *at)
{
    const __m256i words = qn_load_words(at);
    switch (kind) {
    case QN_WEIGHT_F32: w[0] = _mm256_castsi256_ps(words); return 1;
    case QN_WEIGHT_BF16:
        w[0] = qn_low_bf16(words);
        w[1] = qn_high_bf16(words);
        return 2;
    case QN_WEIGHT_FP8_BLOCK:
    case QN_WEIGHT_FP8_CHANNEL: qn_decode_fp8(w, words); return 4;
    case QN_WEIGHT_MXFP4: qn_decode_mxfp4(w, words); return 8;
    }
    return 0;
}

/* One column's share of register i of each row. */
QN_INLINE void add_column(__m256 sums[TILE_ROWS][TILE_STRIPS * 2], uint32_t i, __m256 w,
                          const float *const *x, size_t k, uint32_t n_rows)
{
#pragma GCC unroll 3
    for (uint32_t r = 0; r < n_rows; r++) {
        sums[r][i] = _mm256_fmadd_ps(w, _mm256_broadcast_ss(x[r] + k), sums[r][i]);
    }
}

/* kind, n_strips and n_rows are constants where this is inlined. */
QN_INLINE void add_rows(const block *b, qn_weight_kind kind, uint32_t n_strips, uint32_t n_rows)
{
    const uint32_t n_per_word = kind == QN_WEIGHT_F32     ? 1
                                : kind == QN_WEIGHT_BF16  ? 2
                                : kind == QN_WEIGHT_MXFP4 ? 8
                                                          : 4;
    __m256 sums[TILE_ROWS][TILE_STRIPS * 2];
#pragma GCC unroll 3
    for (uint32_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_strips * 2; i++) {
            sums[r][i] = b->scales != NULL ? _mm256_setzero_ps()
                                           : _mm256_loadu_ps(b->sums[r] + 8 * (size_t)i);
        }
    }
    for (uint32_t k = 0; k < b->n_k; k += n_per_word) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_strips * 2; i++) {
            const uint8_t *const words = b->words[i / 2] + (size_t)(k / n_per_word) * 64;
            __m256 w[8];
            decode_word(w, kind, words + (size_t)(i % 2) * 32);
            if (kind > QN_WEIGHT_BF16 && i % 2 == 0) {
                qn_prefetch(words);
            }
#pragma GCC unroll 8
            for (uint32_t j = 0; j < n_per_word; j++) {
                add_column(sums, i, w[j], b->x, (size_t)k + j, n_rows);
            }
        }
    }
#pragma GCC unroll 3
    for (uint32_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n_strips * 2; i++) {
            float *const at = b->sums[r] + 8 * (size_t)i;
            const __m256 sum = b->scales != NULL
                                   ? _mm256_fmadd_ps(sums[r][i], b->scales[i], _mm256_loadu_ps(at))
                                   : sums[r][i];
            _mm256_storeu_ps(at, sum);
        }
    }
}

/* Four strips for one row, two for more. */
QN_INLINE void add_tile(const block *b, qn_weight_kind kind)
{
    if (b->n_strips == 4) {
        add_rows(b, kind, 4, 1);
    } else if (b->n_rows == 1) {
        add_rows(b, kind, 2, 1);
    } else if (b->n_rows == 2) {
        add_rows(b, kind, 2, 2);
    } else {
        add_rows(b, kind, 2, 3);
    }
}

static void add_f32(const block *b)
{
    add_tile(b, QN_WEIGHT_F32);
}

static void add_bf16(const block *b)
{
    add_tile(b, QN_WEIGHT_BF16);
}

static void add_fp8(const block *b)
{
    add_tile(b, QN_WEIGHT_FP8_BLOCK);
}

static void add_mxfp4(const block *b)
{
    add_tile(b, QN_WEIGHT_MXFP4);
}

static void (*const add_block[])(const block *b) = {add_f32, add_bf16, add_fp8, add_fp8, add_mxfp4};

/* A chunk of two or four strips, and how its weights are stored now. */
typedef struct chunk {
    __m256 scales[CHUNK / QN_MXFP4_BLOCK][TILE_STRIPS * 2];
    uint32_t n_strips;
    qn_weight_kind kind; /* QN_WEIGHT_F32 once decoded into a panel */
    const uint8_t *words[TILE_STRIPS];
    uint32_t block; /* columns that share a scale; 0: no scales */
    uint32_t first, n_k;
} chunk;

static void load_scales(chunk *c, const qn_packed *w, const uint8_t *const strips[TILE_STRIPS])
{
    const size_t scale_at = qn_strip_word_bytes(w->kind, w->n_in);
    c->block = w->kind == QN_WEIGHT_MXFP4 ? QN_MXFP4_BLOCK
               : w->kind > QN_WEIGHT_BF16 ? QN_FP8_BLOCK
                                          : 0;
    for (uint32_t k = 0; c->block != 0 && k < c->n_k; k += c->block) {
        const size_t at = (size_t)((c->first + k) / c->block) * QN_STRIP;
        for (uint32_t i = 0; i < c->n_strips * 2; i++) {
            const uint8_t *const scales = strips[i / 2] + scale_at;
            const size_t at_lane = at + (size_t)(i % 2) * 8;
            c->scales[k / c->block][i] =
                w->kind == QN_WEIGHT_MXFP4
                    ? qn_decode_e8m0(scales + at_lane)
                    : _mm256_loadu_ps((const float *)(const void *)scales + at_lane);
        }
    }
}

/* Is there a NaN code among e4m3 bytes?  So rare that decoding in registers does without it. */
static bool has_nan(const uint8_t *codes, size_t n_bytes)
{
    __m256i most = _mm256_setzero_si256();
    for (size_t i = 0; i < n_bytes; i += 32) {
        const __m256i unsigned_codes =
            _mm256_or_si256(qn_load_words(codes + i), _mm256_set1_epi8(-0x80));
        most = _mm256_max_epu8(most, unsigned_codes);
    }
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(most, _mm256_set1_epi8(-1))) != 0;
}

QN_INLINE void decode_panel(float *panel, qn_weight_kind kind, const uint8_t *words, uint32_t n_k)
{
    uint32_t n_per_word;
    for (uint32_t k = 0; k < n_k; k += n_per_word, words += 64) {
        qn_prefetch(words);
        for (uint32_t half = 0; half < 2; half++) {
            __m256 w[8];
            n_per_word = decode_word(w, kind, words + (size_t)half * 32);
            for (uint32_t j = 0; j < n_per_word; j++) {
                const bool may_be_nan = kind == QN_WEIGHT_FP8_BLOCK;
                _mm256_store_ps(panel + (size_t)(k + j) * QN_STRIP + (size_t)half * 8,
                                may_be_nan ? qn_nan_of_480(w[j]) : w[j]);
            }
        }
    }
}

static void decode_strip(float *panel, qn_weight_kind kind, const uint8_t *words, uint32_t n_k)
{
    switch (kind) {
    case QN_WEIGHT_F32: break; /* is its own panel */
    case QN_WEIGHT_BF16: decode_panel(panel, QN_WEIGHT_BF16, words, n_k); break;
    case QN_WEIGHT_FP8_BLOCK:
    case QN_WEIGHT_FP8_CHANNEL: decode_panel(panel, QN_WEIGHT_FP8_BLOCK, words, n_k); break;
    case QN_WEIGHT_MXFP4: decode_panel(panel, QN_WEIGHT_MXFP4, words, n_k); break;
    }
}

/* Columns of a prepared row as f32: in place, or of bf16 in @p to. */
static const float *load_x(float *to, qn_act act, const uint8_t *row, const chunk *c)
{
    if (act == QN_ACT_F32) {
        return (const float *)(const void *)row + c->first;
    }
    const uint8_t *const from = row + 2 * (size_t)c->first;
    for (uint32_t k = 0; k < c->n_k; k += 8) {
        const __m128i codes = _mm_loadu_si128((const void *)(from + 2 * (size_t)k));
        _mm256_store_ps(to + k, qn_low_bf16(_mm256_cvtepu16_epi32(codes)));
    }
    return to;
}

/* A chunk for the rows of one tile, by blocks. */
static void add_chunk(sum_row *sums, const chunk *c, qn_act act, const uint8_t *const *rows,
                      uint32_t n_rows)
{
    float space[TILE_ROWS][CHUNK] __attribute__((aligned(32)));
    const size_t column_bytes = qn_strip_word_bytes(c->kind, QN_PACK_K) / QN_PACK_K;
    const uint32_t step = c->block != 0 ? c->block : c->n_k;
    block b = {.sums = sums, .n_strips = c->n_strips, .n_rows = n_rows};
    for (uint32_t i = 0; i < c->n_strips; i++) {
        b.words[i] = c->words[i];
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        b.x[r] = load_x(space[r], act, rows[r], c);
    }
    for (uint32_t k = 0; k < c->n_k; k += step) {
        b.scales = c->block != 0 ? c->scales[k / step] : NULL;
        b.n_k = c->n_k - k < step ? c->n_k - k : step;
        add_block[c->kind](&b);
        for (uint32_t i = 0; i < c->n_strips; i++) {
            b.words[i] += step * column_bytes;
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            b.x[r] += step;
        }
    }
}

/* All columns of some strips for at most BLOCK_ROWS rows. */
static void add_strips(sum_row *sums, const qn_matmul_args *args,
                       const uint8_t *const strips[TILE_STRIPS], uint32_t n_strips,
                       const uint8_t *const *rows, uint32_t n_rows)
{
    float panels[TILE_STRIPS][CHUNK * QN_STRIP] __attribute__((aligned(32)));
    const qn_packed *const w = args->w;
    const uint32_t n_k = qn_round_up(w->n_in, QN_PACK_K);
    /* bf16 decodes so fast that few rows need no panel, but a third row has no register left. */
    const bool is_bf16 = w->kind == QN_WEIGHT_BF16;
    const bool is_many = n_rows > (is_bf16 ? 8 : TILE_ROWS);
    const uint32_t tile_rows = is_bf16 && !is_many ? 2 : TILE_ROWS;
    const uint32_t n_tiles = (n_rows + tile_rows - 1) / tile_rows;
    const bool is_fp8 = w->kind == QN_WEIGHT_FP8_BLOCK || w->kind == QN_WEIGHT_FP8_CHANNEL;
    const size_t column_bytes = qn_strip_word_bytes(w->kind, QN_PACK_K) / QN_PACK_K;
    chunk c = {.n_strips = n_strips};
    memset(sums, 0, n_rows * sizeof *sums);
    for (c.first = 0; c.first < n_k; c.first += CHUNK) {
        c.kind = w->kind;
        c.n_k = n_k - c.first < CHUNK ? n_k - c.first : CHUNK;
        load_scales(&c, w, strips);
        bool is_decoded = is_many;
        for (uint32_t i = 0; i < n_strips; i++) {
            c.words[i] = strips[i] + c.first * column_bytes;
            is_decoded |= is_fp8 && !is_many && has_nan(c.words[i], c.n_k * column_bytes);
        }
        for (uint32_t i = 0; i < n_strips && is_decoded && w->kind != QN_WEIGHT_F32; i++) {
            decode_strip(panels[i], w->kind, c.words[i], c.n_k);
            c.words[i] = (const uint8_t *)panels[i];
            c.kind = QN_WEIGHT_F32;
        }
        for (uint32_t i = 0, t = 0; i < n_tiles; i++) { /* of nearly equal size */
            const uint32_t end = (i + 1) * n_rows / n_tiles;
            add_chunk(sums + t, &c, args->act, rows + t, end - t);
            t = end;
        }
    }
}

static void matmul_float(const qn_matmul_args *args)
{
    sum_row sums[BLOCK_ROWS] __attribute__((aligned(32)));
    const uint8_t *rows[BLOCK_ROWS];
    const size_t strip_bytes = qn_strip_bytes(args->w->kind, args->w->n_in);
    uint32_t n_strips;
    for (uint32_t o = args->out_first; o < args->out_end; o += n_strips * QN_STRIP) {
        const uint32_t n_left = qn_strips(args->out_end - o);
        n_strips = args->n_rows == 1 && n_left > 2 ? 4 : 2;
        const uint32_t n_out = n_left > n_strips ? n_strips * QN_STRIP : args->out_end - o;
        const uint8_t *strips[TILE_STRIPS];
        for (uint32_t i = 0; i < n_strips; i++) { /* the last one again where there is no other */
            const uint32_t i_strip = o / QN_STRIP + (i < n_left ? i : n_left - 1);
            strips[i] = args->w->data + i_strip * strip_bytes;
        }
        for (uint32_t t = 0; t < args->n_rows; t += BLOCK_ROWS) {
            const uint32_t n_rows = args->n_rows - t < BLOCK_ROWS ? args->n_rows - t : BLOCK_ROWS;
            for (uint32_t r = 0; r < n_rows; r++) {
                rows[r] = qn_matmul_row(args, t + r);
            }
            add_strips(sums, args, strips, n_strips, rows, n_rows);
            for (uint32_t r = 0; r < n_rows; r++) {
                memcpy(args->y + (t + r) * args->y_stride + (o - args->out_first), sums[r],
                       n_out * sizeof(float));
            }
        }
    }
}

void qn_matmul_avx2(const qn_matmul_args *args)
{
    if (args->act == QN_ACT_INT8) {
        qn_matmul_int8_avx2(args);
    } else {
        matmul_float(args);
    }
}
