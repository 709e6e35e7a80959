/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file index_tmpl.h  Indexer scores of a level.  Included once by a file of each level.
 *
 * Tiles of GROUP heads and KEYS keys: a register of sums along the dimension for each pair, which
 * qn_vf_sums() adds up to one register of (head, key).  Weighted sums of all groups of heads add up
 * there, then its heads, so that a score's order of additions is that of its key alone.
 *
 * Keys are decoded to f32 for FMA; at level avx512bf16 keys of bf16 are taken as they are, by dot
 * products of pairs.  Bound by the rate of these instructions and, for dim 128, to a third by the
 * sums across registers.  (Heads side by side in a register, each key's bytes repeated for them,
 * need fewer sums but were slower: the repetition costs as much as a product.)
 */
#include "kernels/x86/elements.h"
#include "kernels/x86/x86.h"

enum { KEYS = 4, GROUP = QN_LANES / KEYS };

typedef struct workspace {
    size_t row_bytes;  /* of a query or a key, zeros behind dim: a multiple of a register */
    uint32_t n_groups; /* of heads; the last one is filled up */
    float *weights;    /* [n_groups][QN_LANES] w of the lane's head */
    float *masks;      /* [n_groups][QN_LANES] bits, set where the lane has a head */
    uint8_t *queries;  /* [n_groups][GROUP][row_bytes] */
    uint8_t *tile;     /* [KEYS][row_bytes] keys, unless read in place */
} workspace;

/* KEYS keys; beyond the range there may be others, whose scores count for nothing. */
typedef struct tile {
    const uint8_t *keys;
    size_t stride;
} tile;

#ifdef __AVX512BF16__
/* Whole tiles of keys of whole registers are read where they lie. */
QN_INLINE tile get_tile(const workspace *ws, const qn_kv_view *keys, uint32_t position, uint32_t n)
{
    const uint8_t *key = qn_kv_row(keys, position);
    const size_t n_bytes = 2 * (size_t)keys->latent_dim;
    if (n == KEYS && n_bytes == ws->row_bytes) {
        return (tile){key, keys->row_bytes};
    }
    for (uint32_t i = 0; i < n; i++) {
        memcpy(ws->tile + i * ws->row_bytes, key + (size_t)i * keys->row_bytes, n_bytes);
    }
    return (tile){ws->tile, ws->row_bytes};
}
#else
QN_INLINE tile get_tile(const workspace *ws, const qn_kv_view *keys, uint32_t position, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float *key = (float *)(void *)(ws->tile + i * ws->row_bytes);
        QN_LEVEL(qn_kv_read)(key, keys, position + i);
    }
    return (tile){ws->tile, ws->row_bytes};
}
#endif

/* Dot products of a group's queries with a tile's keys: lane h * KEYS + i of head h and key i. */
QN_INLINE qn_vf dot_tile(const workspace *ws, uint32_t i_group, tile from)
{
    const uint8_t *queries = ws->queries + (size_t)i_group * GROUP * ws->row_bytes;
    qn_vf sums[QN_LANES];
    for (uint32_t i = 0; i < QN_LANES; i++) {
        sums[i] = qn_vf_set(0.0F);
    }
    for (size_t at = 0; at < ws->row_bytes; at += sizeof(qn_vf)) {
        qn_vf query[GROUP];
        for (uint32_t h = 0; h < GROUP; h++) {
            query[h] = qn_vf_of(qn_vi_load(queries + h * ws->row_bytes + at));
        }
        for (uint32_t i = 0; i < KEYS; i++) {
            const qn_vf key = qn_vf_of(qn_vi_load(from.keys + i * from.stride + at));
            for (uint32_t h = 0; h < GROUP; h++) {
                sums[h * KEYS + i] = add_products(sums[h * KEYS + i], query[h], key);
            }
        }
    }
    return qn_vf_sums(sums);
}

/* Scores of a tile's keys. */
QN_INLINE __m128 score_tile(const workspace *ws, tile from)
{
    qn_vf total = qn_vf_set(0.0F);
    for (uint32_t g = 0; g < ws->n_groups; g++) {
        /* Of a NaN and a number max takes the second: a broken key must show, not vanish. */
        qn_vf dots = qn_vf_max(qn_vf_set(0.0F), dot_tile(ws, g, from));
        /* A head that is not there must not give 0 * Inf. */
        dots = V(and_ps)(dots, V(loadu_ps)(ws->masks + (size_t)g * QN_LANES));
        total = qn_vf_fma(V(loadu_ps)(ws->weights + (size_t)g * QN_LANES), dots, total);
    }
    return QN_FOLD(add, total);
}

static void prepare(workspace *ws, const qn_index_scores_args *args, bool is_rounded)
{
    const size_t dim = args->keys.latent_dim;
    const size_t n_row = qn_round_up(args->keys.latent_dim, 32);
    ws->row_bytes = n_row * ELEMENT_BYTES;
    ws->n_groups = (args->n_heads + GROUP - 1) / GROUP;
    ws->weights = args->scratch;
    ws->masks = ws->weights + (size_t)ws->n_groups * QN_LANES;
    ws->queries = (uint8_t *)(void *)(ws->masks + (size_t)ws->n_groups * QN_LANES);
    ws->tile = ws->queries + (size_t)ws->n_groups * GROUP * ws->row_bytes;
    memset(args->scratch, 0,
           (size_t)(ws->tile + KEYS * ws->row_bytes - (uint8_t *)(void *)args->scratch));
    float *row = (float *)(void *)ws->tile; /* free until the first key */
    for (uint32_t h = 0; h < args->n_heads; h++) {
        memcpy(row, args->q + h * dim, dim * sizeof *row);
        for (size_t i = 0; i < n_row; i += QN_LANES) {
            const qn_vf x = V(loadu_ps)(row + i);
            store_elements(ws->queries + h * ws->row_bytes + i * ELEMENT_BYTES,
                           is_rounded ? qn_vf_round_bf16(x) : x);
        }
        _mm_storeu_ps(ws->weights + (size_t)h * KEYS, _mm_set1_ps(args->w[h]));
        memset(ws->masks + (size_t)h * KEYS, 0xff, KEYS * sizeof *ws->masks);
    }
    memset(ws->tile, 0, KEYS * ws->row_bytes);
}

void QN_LEVEL(qn_index_scores)(const qn_index_scores_args *args)
{
    const qn_kv_view *keys = &args->keys;
    bool is_rounded = args->compute != QN_COMPUTE_F32 && keys->dtype == QN_KV_BF16;
#ifdef __AVX512BF16__
    if (!is_rounded) {
        qn_index_scores_avx512(args);
        return;
    }
    is_rounded = false; /* storing elements does it */
#endif
    workspace ws;
    prepare(&ws, args, is_rounded);
    for (uint32_t t = args->first, n = 0; t < args->end; t += n) {
        n = KEYS - t % KEYS; /* so that a tile lies within a page */
        n = n < args->end - t ? n : args->end - t;
        float *scores = args->scores + (t - args->first);
        const __m128 tile_scores = score_tile(&ws, get_tile(&ws, keys, t, n));
        if (n == KEYS) {
            _mm_storeu_ps(scores, tile_scores);
        } else {
            memcpy(scores, &tile_scores, n * sizeof *scores);
        }
    }
}
