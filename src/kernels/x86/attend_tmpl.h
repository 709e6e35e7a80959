/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_tmpl.h  Attention of a level.
 *
 * The set is taken in blocks of positions.  Each block gives scores, then weights exp(s - m), m
 * being the largest score so far, then its share of the weighted sum of rows; what was summed
 * before is scaled to the new m on the way (Milakov & Gimelshein 2018, "Online normalizer
 * calculation for softmax").  So a row is decoded once and read while the cache holds it, and
 * scratch does not grow with the set.
 *
 * Heads go 4, 2 or 1 at a time.  Scores: QN_LANES sums of (head, row) pairs are under way, each a
 * register along the row that qn_vf_sums() adds up in the end.  Weighted sum: QN_LANES registers of
 * (head, columns), each a chain over the positions.  Neither order depends on what shares a tile.
 *
 * Rows are decoded to f32 for FMA; at level avx512bf16 rows of bf16 are taken as they are, by
 * dot products of pairs: neighbours of a row for scores, two positions for the weighted sum.  Bound
 * by the rate of these instructions: (2 latent + rope) products a head and position.
 */
#include "kernels/x86/elements.h"
#include "kernels/x86/x86.h"

#include <float.h>
#include <math.h>

enum { BLOCK = QN_ATTEND_BLOCK };

/* A call's scratch.  Ends of rows are zero. */
typedef struct workspace {
    size_t row_bytes;           /* of a query or a row of the tile: a multiple of a register */
    size_t n_columns;           /* of u: latent_dim, rounded up to 32 */
    uint8_t *queries;           /* [n_heads][row_bytes] (latent, rope) */
    float *u;                   /* [n_heads][n_columns] */
    float *p;                   /* [n_heads][BLOCK] scores, then weights */
    float *sums;                /* [n_heads][QN_LANES] parts of the weights' sum */
    float *max;                 /* [n_heads] largest score so far */
    float *factors;             /* [n_heads] what the block scales earlier blocks by */
    uint8_t *tile;              /* [BLOCK][row_bytes] rows of the block, unless read in place */
    const uint8_t *rows[BLOCK]; /* rows of the block */
    uint32_t n_rows;            /* of the block */
} workspace;

#ifdef __AVX512BF16__
/* Rows of whole registers are read where they lie. */
static const uint8_t *get_row(const workspace *ws, const qn_attend_args *args, uint32_t i)
{
    const uint8_t *row = qn_kv_row(&args->kv, (uint32_t)args->set[i]);
    const size_t n_bytes = 2 * (size_t)(args->kv.latent_dim + args->kv.rope_dim);
    if (n_bytes == ws->row_bytes) {
        return row;
    }
    return memcpy(ws->tile + i % BLOCK * ws->row_bytes, row, n_bytes);
}

/*
 * sums[h][c] += p[h] . rows in columns c, two positions at a time.  Interleaving two rows within
 * 128-bit parts leaves columns in another order, which column_order() mends in the end.
 */
QN_INLINE void add_rows(qn_vf *sums, const workspace *ws, size_t i_head, size_t at, uint32_t i,
                        uint32_t n_heads, uint32_t n_chunks, bool is_pair)
{
    qn_vf pairs[QN_LANES];
    for (uint32_t c = 0; c < n_chunks; c += 2) {
        const size_t offset = (at + c) * QN_LANES * ELEMENT_BYTES;
        const qn_vi a = qn_vi_load(ws->rows[i] + offset);
        const qn_vi b = is_pair ? qn_vi_load(ws->rows[i + 1] + offset) : _mm512_setzero_si512();
        pairs[c] = qn_vf_of(_mm512_unpacklo_epi16(a, b));
        pairs[c + 1] = qn_vf_of(_mm512_unpackhi_epi16(a, b));
    }
    for (uint32_t h = 0; h < n_heads; h++) {
        int32_t weights;
        memcpy(&weights, (const uint16_t *)(const void *)(ws->p + (i_head + h) * BLOCK) + i,
               sizeof weights);
        const qn_vf p = qn_vf_of(_mm512_set1_epi32(weights));
        for (uint32_t c = 0; c < n_chunks; c++) {
            sums[h * n_chunks + c] = add_products(sums[h * n_chunks + c], pairs[c], p);
        }
    }
}

QN_INLINE void add_block(qn_vf *sums, const workspace *ws, size_t i_head, size_t at,
                         uint32_t n_heads, uint32_t n_chunks)
{
    uint32_t i = 0;
    for (; i + 2 <= ws->n_rows; i += 2) {
        add_rows(sums, ws, i_head, at, i, n_heads, n_chunks, true);
    }
    if (i < ws->n_rows) {
        add_rows(sums, ws, i_head, at, i, n_heads, n_chunks, false);
    }
}

/* Two registers of 32 columns as add_rows() left them, in order. */
QN_INLINE void column_order(qn_vf *low, qn_vf *high)
{
    const qn_vf even = _mm512_shuffle_f32x4(*low, *high, 0x44);
    const qn_vf odd = _mm512_shuffle_f32x4(*low, *high, 0xee);
    *low = _mm512_shuffle_f32x4(even, even, 0xd8);
    *high = _mm512_shuffle_f32x4(odd, odd, 0xd8);
}
#else
static const uint8_t *get_row(const workspace *ws, const qn_attend_args *args, uint32_t i)
{
    uint8_t *row = ws->tile + i % BLOCK * ws->row_bytes;
    QN_LEVEL(qn_kv_read)((float *)(void *)row, &args->kv, (uint32_t)args->set[i]);
    return row;
}

QN_INLINE void add_block(qn_vf *sums, const workspace *ws, size_t i_head, size_t at,
                         uint32_t n_heads, uint32_t n_chunks)
{
    for (uint32_t i = 0; i < ws->n_rows; i++) {
        qn_vf row[QN_LANES];
        for (uint32_t c = 0; c < n_chunks; c++) {
            row[c] = V(loadu_ps)((const float *)(const void *)ws->rows[i] + (at + c) * QN_LANES);
        }
        for (uint32_t h = 0; h < n_heads; h++) {
            const qn_vf p = qn_vf_set(ws->p[(i_head + h) * BLOCK + i]);
            for (uint32_t c = 0; c < n_chunks; c++) {
                sums[h * n_chunks + c] = add_products(sums[h * n_chunks + c], row[c], p);
            }
        }
    }
}

QN_INLINE void column_order(qn_vf *low, qn_vf *high)
{
    (void)low;
    (void)high;
}
#endif

/* Dot products of n_heads queries with as many rows as give QN_LANES of them. */
QN_INLINE void score_tile(const workspace *ws, size_t i_head, uint32_t i_row, uint32_t n_heads)
{
    const uint32_t n_rows = QN_LANES / n_heads;
    const uint8_t *queries = ws->queries + i_head * ws->row_bytes;
    qn_vf sums[QN_LANES];
    for (uint32_t i = 0; i < QN_LANES; i++) {
        sums[i] = qn_vf_set(0.0F);
    }
    for (size_t at = 0; at < ws->row_bytes; at += sizeof(qn_vf)) {
        qn_vf query[4];
        for (uint32_t h = 0; h < n_heads; h++) {
            query[h] = qn_vf_of(qn_vi_load(queries + h * ws->row_bytes + at));
        }
        for (uint32_t i = 0; i < n_rows; i++) {
            const qn_vf row = qn_vf_of(qn_vi_load(ws->rows[i_row + i] + at));
            for (uint32_t h = 0; h < n_heads; h++) {
                sums[h * n_rows + i] = add_products(sums[h * n_rows + i], query[h], row);
            }
        }
    }
    float scores[QN_LANES];
    V(storeu_ps)(scores, qn_vf_sums(sums));
    for (uint32_t h = 0; h < n_heads; h++) {
        memcpy(ws->p + (i_head + h) * BLOCK + i_row, scores + (size_t)h * n_rows,
               n_rows * sizeof *scores);
    }
}

/* A head's scores of the block to weights. */
QN_INLINE void weigh_scores(const workspace *ws, size_t i_head, float scale, bool is_rounded)
{
    float *p = ws->p + i_head * BLOCK;
    for (uint32_t i = ws->n_rows; i < BLOCK; i++) {
        p[i] = -INFINITY; /* and so it weighs 0 */
    }
    qn_vf scores[BLOCK / QN_LANES];
    qn_vf max = qn_vf_set(ws->max[i_head]);
    for (uint32_t i = 0; i < BLOCK / QN_LANES; i++) {
        scores[i] = V(loadu_ps)(p + (size_t)i * QN_LANES) * qn_vf_set(scale);
        max = qn_vf_max(max, scores[i]);
    }
    const float new_max = qn_vf_greatest(max);
    max = qn_vf_set(new_max);
    const qn_vf factor = qn_vf_exp(qn_vf_set(ws->max[i_head]) - max);
    ws->max[i_head] = new_max;
    ws->factors[i_head] = V(cvtss_f32)(factor);
    qn_vf sum = V(loadu_ps)(ws->sums + i_head * QN_LANES) * factor;
    for (uint32_t i = 0; i < BLOCK / QN_LANES; i++) {
        const qn_vf weight = qn_vf_exp(scores[i] - max);
        sum += weight;
        store_elements((uint8_t *)(void *)p + (size_t)i * QN_LANES * ELEMENT_BYTES,
                       is_rounded ? qn_vf_round_bf16(weight) : weight);
    }
    V(storeu_ps)(ws->sums + i_head * QN_LANES, sum);
}

/* Add the block's rows to n_chunks registers of u, from column at * QN_LANES on. */
QN_INLINE void sum_tile(const workspace *ws, size_t i_head, size_t at, uint32_t n_heads,
                        uint32_t n_chunks)
{
    qn_vf sums[QN_LANES];
    for (uint32_t h = 0; h < n_heads; h++) {
        const float *u = ws->u + (i_head + h) * ws->n_columns + at * QN_LANES;
        for (uint32_t c = 0; c < n_chunks; c++) {
            sums[h * n_chunks + c] =
                V(loadu_ps)(u + (size_t)c * QN_LANES) * qn_vf_set(ws->factors[i_head + h]);
        }
    }
    add_block(sums, ws, i_head, at, n_heads, n_chunks);
    for (uint32_t h = 0; h < n_heads; h++) {
        float *u = ws->u + (i_head + h) * ws->n_columns + at * QN_LANES;
        for (uint32_t c = 0; c < n_chunks; c++) {
            V(storeu_ps)(u + (size_t)c * QN_LANES, sums[h * n_chunks + c]);
        }
    }
}

/* The block's share of a few heads. */
QN_INLINE void attend_heads(const workspace *ws, size_t i_head, float scale, bool is_rounded,
                            uint32_t n_heads)
{
    for (uint32_t i = 0; i < ws->n_rows; i += QN_LANES / n_heads) {
        score_tile(ws, i_head, i, n_heads);
    }
    for (uint32_t h = 0; h < n_heads; h++) {
        weigh_scores(ws, i_head + h, scale, is_rounded);
    }
    const uint32_t n_chunks = QN_LANES / n_heads;
    size_t at = 0;
    for (; (at + n_chunks) * QN_LANES <= ws->n_columns; at += n_chunks) {
        sum_tile(ws, i_head, at, n_heads, n_chunks);
    }
    for (; at * QN_LANES < ws->n_columns; at += 2) {
        sum_tile(ws, i_head, at, n_heads, 2);
    }
}

static void prepare(workspace *ws, const qn_attend_args *args, bool is_rounded)
{
    const uint32_t latent_dim = args->kv.latent_dim;
    const uint32_t rope_dim = args->kv.rope_dim;
    const size_t n_row = qn_round_up(latent_dim + rope_dim, 32);
    const size_t n_heads = args->n_heads;
    ws->row_bytes = n_row * ELEMENT_BYTES;
    ws->n_columns = qn_round_up(latent_dim, 32);
    float *at = args->scratch;
    ws->u = at;
    ws->p = at += n_heads * ws->n_columns;
    ws->sums = at += n_heads * BLOCK;
    ws->max = at += n_heads * QN_LANES;
    ws->factors = at += n_heads;
    at += n_heads;
    at += (16 - (at - args->scratch) % 16) % 16;
    ws->queries = (uint8_t *)(void *)at;
    ws->tile = ws->queries + n_heads * ws->row_bytes;
    memset(ws->u, 0, n_heads * ws->n_columns * sizeof *ws->u);
    memset(ws->sums, 0, n_heads * QN_LANES * sizeof *ws->sums);
    float *query = (float *)(void *)ws->tile; /* free until the first block */
    memset(query, 0, n_row * sizeof *query);
    for (size_t h = 0; h < n_heads; h++) {
        ws->max[h] = -FLT_MAX; /* not -Inf, from which a block of scores -Inf could not be taken */
        memcpy(query, args->q_latent + h * latent_dim, latent_dim * sizeof *query);
        memcpy(query + latent_dim, args->q_rope + h * args->q_rope_stride,
               rope_dim * sizeof *query);
        for (size_t i = 0; i < n_row; i += QN_LANES) {
            const qn_vf x = V(loadu_ps)(query + i);
            store_elements(ws->queries + h * ws->row_bytes + i * ELEMENT_BYTES,
                           is_rounded ? qn_vf_round_bf16(x) : x);
        }
    }
    if (latent_dim + rope_dim < n_row) {
        memset(ws->tile, 0, BLOCK * ws->row_bytes);
    }
}

/* u is divided by the weights' sum and leaves scratch. */
static void finish(const workspace *ws, const qn_attend_args *args)
{
    for (size_t h = 0; h < args->n_heads; h++) {
        float *u = ws->u + h * ws->n_columns;
        const qn_vf factor = qn_vf_set(1.0F / qn_vf_sum(V(loadu_ps)(ws->sums + h * QN_LANES)));
        for (size_t i = 0; i < ws->n_columns; i += (size_t)2 * QN_LANES) {
            qn_vf low = V(loadu_ps)(u + i);
            qn_vf high = V(loadu_ps)(u + i + QN_LANES);
            column_order(&low, &high);
            V(storeu_ps)(u + i, low * factor);
            V(storeu_ps)(u + i + QN_LANES, high * factor);
        }
        memcpy(args->u + h * args->kv.latent_dim, u, args->kv.latent_dim * sizeof *u);
    }
}

void QN_LEVEL(qn_attend)(const qn_attend_args *args)
{
    bool is_rounded = args->compute != QN_COMPUTE_F32 && args->kv.dtype == QN_KV_BF16;
#ifdef __AVX512BF16__
    if (!is_rounded) {
        qn_attend_avx512(args);
        return;
    }
    is_rounded = false; /* storing elements does it */
#endif
    workspace ws;
    prepare(&ws, args, is_rounded);
    for (uint32_t first = 0; first < args->n_set; first += BLOCK) {
        ws.n_rows = args->n_set - first < BLOCK ? args->n_set - first : BLOCK;
        for (uint32_t i = 0; i < BLOCK; i++) { /* a tile may reach behind the last row */
            ws.rows[i] = i < ws.n_rows ? get_row(&ws, args, first + i) : ws.rows[i - 1];
        }
        size_t h = 0;
        for (; h + 4 <= args->n_heads; h += 4) {
            attend_heads(&ws, h, args->scale, is_rounded, 4);
        }
        if (h + 2 <= args->n_heads) {
            attend_heads(&ws, h, args->scale, is_rounded, 2);
            h += 2;
        }
        if (h < args->n_heads) {
            attend_heads(&ws, h, args->scale, is_rounded, 1);
        }
    }
    finish(&ws, args);
}
