/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_tmpl.h  Attention on tensor cores; who includes it defines score() and add_values()
 * by the instructions of its choice.
 *
 * For latents of 512 and rope keys of 64.  A block of 8 warps has a tile of heads (64, or 16) and
 * walks through a set in blocks of 64 positions.  Rows lie in shared memory in bf16, as keys and
 * as values at once; the rows of the next block are copied meanwhile.  FP8 rows are decoded there
 * once for all heads.
 *
 * A block takes one split and leaves the rest to attend_join, or all splits of a row where rows
 * fill the machine: then it joins them itself in the same order, and what it has so far waits in
 * partial_u, which stays in the L2 cache.  Bits are the same either way.
 *
 * A warp has 16 heads of the tile, and shares positions of the scores and latents of the output
 * with the other warps of these heads.
 */
#ifndef QN_KERNELS_GPU_SM90_ATTEND_TMPL_H
#define QN_KERNELS_GPU_SM90_ATTEND_TMPL_H
#include "kernels/gpu/attend.h"
#include "kernels/gpu/cache.h"

enum {
    N_THREADS = 256,
    N_WARPS = N_THREADS / QN_LANES,
    N_LATENT = 512,
    N_ROPE = 64,
    N_DIMS = N_LATENT + N_ROPE,
    RAW_BYTES = N_LATENT + 4 * N_LATENT / 128 + 2 * N_ROPE, /* of an FP8 row */
    N_BLOCK = 64,                                           /* positions */
    ROWS_BYTES = N_BLOCK * 2 * N_DIMS,
    N_SPLIT_BLOCKS = QN_GPU_ATTEND_SPLIT / N_BLOCK,
    ALIGNMENT = 1024, /* of matrices in shared memory */
};

/* Shared memory of a block, and what it works on.  M, everywhere: tiles of 16 heads, a constant. */
typedef struct tile {
    uint8_t *q;          /* [16 M] rows */
    uint8_t *rows;       /* [2][N_BLOCK] rows; the second half raw where the cache is FP8 */
    uint8_t *p;          /* [16 M][N_BLOCK] weights of a block */
    float *of_warps;     /* [N_WARPS / M][16 M] what warps of the same heads tell each other */
    uint32_t t, head;    /* Row, and the tile's first head. */
    uint32_t first, end; /* Blocks of positions. */
    uint32_t n_set;
    const int32_t *pages;
} tile;

/* s[j] += q k for the warp's heads and the j-th 8 of its 8 M positions; as fragments of mma. */
QN_DEV void score(float (*s)[4], const tile *tile, uint8_t *rows, const uint32_t M);
/* u[j] += p c for the warp's heads and the j-th 8 of its 64 M latents. */
QN_DEV void add_values(float (*u)[4], const tile *tile, uint8_t *rows, const uint32_t M);
/* What this thread wrote to shared memory is seen by these two after the next barrier. */
QN_DEV void publish(void);

/*
 * 16 bytes of a matrix of n_rows rows: 64 columns (8 chunks) of all rows lie together, and chunks
 * are permuted within a row, so that one chunk of 8 rows has all banks.
 */
QN_DEV uint8_t *chunk_at(uint8_t *base, uint32_t n_rows, uint32_t row, uint32_t chunk)
{
    return base + chunk / 8 * n_rows * 128 + row * 128 + (chunk % 8 ^ row % 8) * 16;
}

QN_DEV void load_queries(const tile *tile, const qn_gpu_attend_args *args, const uint32_t M)
{
    QN_UNROLL(1)
    for (uint32_t i = qn_thread(); i < 16 * M * (N_DIMS / 8); i += N_THREADS) {
        const uint32_t h = i / (N_DIMS / 8), chunk = i % (N_DIMS / 8);
        const bool is_there = tile->head + h < args->n_heads;
        const uint64_t head = tile->head + (is_there ? h : 0);
        const uint16_t *from =
            chunk < N_LATENT / 8
                ? args->q_latent + (tile->t * (uint64_t)args->n_heads + head) * N_LATENT + chunk * 8
                : args->q_rope + tile->t * args->q_row_stride + head * args->q_head_stride +
                      (chunk - N_LATENT / 8) * 8;
        qn_copy_16(chunk_at(tile->q, 16 * M, h, chunk), from, is_there ? 16 : 0);
    }
}

/*
 * The two rows of a block that this thread copies: positions are read two blocks ahead and page
 * tables one, so that none is waited for.
 */
typedef struct walk {
    uint32_t page[2], in_page[2]; /* of one block */
    uint32_t position[2];         /* of the next */
} walk;

/* A block ahead; positions become those of @p block, behind the set's end its last one. */
QN_DEV void advance(walk *walk, const tile *tile, const qn_gpu_attend_args *args, uint32_t block)
{
    const int32_t *set = args->sets + (uint64_t)tile->t * args->set_stride;
    QN_UNROLL(2)
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t i = block * N_BLOCK + qn_thread() / 8 + N_BLOCK / 2 * k;
        walk->page[k] = (uint32_t)tile->pages[walk->position[k] / QN_GPU_PAGE_TOKENS];
        walk->in_page[k] = walk->position[k] % QN_GPU_PAGE_TOKENS;
        walk->position[k] = (uint32_t)set[qn_min_u32(i, tile->n_set - 1)];
    }
}

/* Begin to copy a block of rows: eight threads a row. */
QN_DEV void load_rows(const tile *tile, const qn_gpu_cache *kv, const walk *walk, uint32_t block)
{
    const uint32_t part = qn_thread() % 8;
    QN_UNROLL(2)
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t r = qn_thread() / 8 + N_BLOCK / 2 * k;
        const uint64_t row = (uint64_t)walk->page[k] * QN_GPU_PAGE_TOKENS + walk->in_page[k];
        const uint8_t *from = kv->base + row * kv->row_bytes + part * 16;
        if (kv->dtype == QN_GPU_KV_BF16) {
            uint8_t *to = chunk_at(tile->rows + block % 2 * ROWS_BYTES, N_BLOCK, r, part);
            QN_UNROLL(9)
            for (uint32_t i = 0; i < N_DIMS / 64; i++) {
                qn_copy_16(to + N_BLOCK * 128 * i, from + 128 * i, 16);
            }
        } else {
            uint8_t *to = tile->rows + ROWS_BYTES + r * RAW_BYTES + part * 16;
            QN_UNROLL(6)
            for (uint32_t i = 0; i < (RAW_BYTES + 127) / 128; i++) {
                if (part * 16 + 128 * i < RAW_BYTES) {
                    qn_copy_16(to + 128 * i, from + 128 * i, 16);
                }
            }
        }
    }
    qn_copy_commit();
}

/* 16 codes of an FP8 row to bf16: two chunks, the one at @p first first. */
QN_DEV void decode_chunk(uint8_t *first, uint8_t *second, const uint8_t *codes, float scale,
                         bool is_swapped)
{
    const u32x4 raw = qn_load_16(codes);
    u32x4 low, high;
    QN_UNROLL(2)
    for (uint32_t k = 0; k < 2; k++) {
        const f32x4 a = qn_e4m3x4_to_f32(raw[k]) * scale, b = qn_e4m3x4_to_f32(raw[k + 2]) * scale;
        low[2 * k] = qn_f32_to_bf16x2(a.x, a.y);
        low[2 * k + 1] = qn_f32_to_bf16x2(a.z, a.w);
        high[2 * k] = qn_f32_to_bf16x2(b.x, b.y);
        high[2 * k + 1] = qn_f32_to_bf16x2(b.z, b.w);
    }
    qn_store_16(first, is_swapped ? high : low);
    qn_store_16(second, is_swapped ? low : high);
}

/*
 * FP8 rows to bf16, eight lanes a row.  The upper four write their second chunk first, so that
 * eight have all banks.
 */
QN_DEV void decode_rows(const tile *tile)
{
    const uint32_t part = qn_thread() % 8;
    const bool is_swapped = part >= 4;
    QN_UNROLL(2)
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t r = qn_thread() / 8 + N_BLOCK / 2 * k;
        const uint8_t *raw = tile->rows + ROWS_BYTES + r * RAW_BYTES;
        const f32x4 scales = *(const f32x4 *)(raw + N_LATENT);
        uint8_t *first = chunk_at(tile->rows, N_BLOCK, r, 2 * part + is_swapped);
        uint8_t *second = chunk_at(tile->rows, N_BLOCK, r, 2 * part + !is_swapped);
        QN_UNROLL(4)
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t columns = 2 * N_BLOCK * 128 * i; /* 128 of them are 8 parts */
            decode_chunk(first + columns, second + columns, raw + 128 * i + 16 * part, scales[i],
                         is_swapped);
        }
        qn_store_16(chunk_at(tile->rows, N_BLOCK, r, N_LATENT / 8 + part),
                    qn_load_16(raw + RAW_BYTES - 2 * N_ROPE + 16 * part));
    }
}

/* Of the thread's heads, lane / 4 and + 8 of the warp's, in a split. */
typedef struct weights {
    float m[2]; /* largest score so far */
    float l[2]; /* sum of 2^(s - m), until end_split() of this lane's scores alone */
} weights;

/* Scores of a block to weights; alpha: what sums so far are worth now. */
QN_DEV void weigh(weights *w, float alpha[2], float (*s)[4], const tile *tile, uint32_t block,
                  float scale, const uint32_t M)
{
    const uint32_t g = qn_lane() / 4, t = qn_lane() % 4;
    const uint32_t h = qn_warp() % M * 16 + g, column = qn_warp() / M * 8 * M + 2 * t;
    float max[2] = {-__builtin_inff(), -__builtin_inff()};
    QN_UNROLL(4)
    for (uint32_t j = 0; j < M; j++) {
        QN_UNROLL(4)
        for (uint32_t e = 0; e < 4; e++) {
            const uint32_t i = block * N_BLOCK + column + 8 * j + e % 2;
            s[j][e] = i < tile->n_set ? s[j][e] * scale : -__builtin_inff();
            max[e / 2] = qn_max(max[e / 2], s[j][e]);
        }
    }
    QN_UNROLL(2)
    for (uint32_t r = 0; r < 2; r++) {
        max[r] = qn_max(max[r], qn_shuffle_xor_f32(max[r], 1));
        max[r] = qn_max(max[r], qn_shuffle_xor_f32(max[r], 2));
        if (t == 0) {
            tile->of_warps[qn_warp() / M * 16 * M + h + 8 * r] = max[r];
        }
    }
    qn_barrier();
    QN_UNROLL(2)
    for (uint32_t r = 0; r < 2; r++) {
        const float before = w->m[r];
        QN_UNROLL(8)
        for (uint32_t i = 0; i < N_WARPS / M; i++) {
            w->m[r] = qn_max(w->m[r], tile->of_warps[i * 16 * M + h + 8 * r]);
        }
        alpha[r] = qn_fast_exp2(before - w->m[r]);
        w->l[r] *= alpha[r];
        QN_UNROLL(4)
        for (uint32_t j = 0; j < M; j++) {
            const float a = qn_fast_exp2(s[j][2 * r] - w->m[r]);
            const float b = qn_fast_exp2(s[j][2 * r + 1] - w->m[r]);
            w->l[r] += a + b;
            uint8_t *to = chunk_at(tile->p, 16 * M, h + 8 * r, qn_warp() / M * M + j) + 4 * t;
            *(uint32_t *)to = qn_f32_to_bf16x2(a, b);
        }
    }
}

QN_DEV void scale_values(float (*u)[4], const float alpha[2], const uint32_t M)
{
    if (qn_any(alpha[0] != 1.0F || alpha[1] != 1.0F)) {
        QN_UNROLL(32)
        for (uint32_t j = 0; j < 8 * M; j++) {
            u[j][0] *= alpha[0];
            u[j][1] *= alpha[0];
            u[j][2] *= alpha[1];
            u[j][3] *= alpha[1];
        }
    }
}

/* w->l of the whole split. */
QN_DEV void end_split(weights *w, const tile *tile, const uint32_t M)
{
    const uint32_t h = qn_warp() % M * 16 + qn_lane() / 4;
    QN_UNROLL(2)
    for (uint32_t r = 0; r < 2; r++) {
        w->l[r] += qn_shuffle_xor_f32(w->l[r], 1);
        w->l[r] += qn_shuffle_xor_f32(w->l[r], 2);
        if (qn_lane() % 4 == 0) {
            tile->of_warps[qn_warp() / M * 16 * M + h + 8 * r] = w->l[r];
        }
    }
    qn_barrier();
    QN_UNROLL(2)
    for (uint32_t r = 0; r < 2; r++) {
        w->l[r] = 0;
        QN_UNROLL(8)
        for (uint32_t i = 0; i < N_WARPS / M; i++) {
            w->l[r] += tile->of_warps[i * 16 * M + h + 8 * r];
        }
    }
}

/* Put the split's sums where attend_join looks for them. */
QN_DEV void store_split(float (*u)[4], const weights *w, const tile *tile,
                        const qn_gpu_attend_args *args, uint32_t split, const uint32_t M)
{
    const uint64_t partial = ((uint64_t)tile->t * args->n_splits + split) * args->n_heads;
    const uint32_t column = qn_warp() / M * 64 * M + qn_lane() % 4 * 2;
    QN_UNROLL(2)
    for (uint32_t r = 0; r < 2; r++) {
        const uint32_t head = tile->head + qn_warp() % M * 16 + qn_lane() / 4 + 8 * r;
        if (head >= args->n_heads) {
            continue;
        }
        float *to = args->partial_u + (partial + head) * N_LATENT + column;
        QN_UNROLL(32)
        for (uint32_t j = 0; j < 8 * M; j++) {
            *(f32x2 *)(to + 8 * j) = (f32x2){u[j][2 * r], u[j][2 * r + 1]};
        }
        if (column == 0) {
            *(f32x2 *)(args->partial_m + 2 * (partial + head)) = (f32x2){w->m[r], w->l[r]};
        }
    }
}

/*
 * Add the split to those before it, as attend_join does, in u and *sum.  Sums that are not the last
 * wait in the block's part of partial_u, each thread's by itself.
 */
QN_DEV void join_split(float (*u)[4], weights *sum, const weights *w,
                       const qn_gpu_attend_args *args, bool is_first, bool is_last,
                       const uint32_t M)
{
    f32x4 *at = (f32x4 *)args->partial_u + (uint64_t)qn_block_x() * 8 * M * N_THREADS + qn_thread();
    if (is_first) {
        *sum = *w;
    } else {
        qn_attend_factors f[2];
        QN_UNROLL(2)
        for (uint32_t r = 0; r < 2; r++) {
            f[r] = qn_attend_factors_of(sum->m[r], w->m[r]);
            sum->m[r] = f[r].m;
            sum->l[r] = qn_attend_add(f[r], sum->l[r], w->l[r]);
        }
        QN_UNROLL(32)
        for (uint32_t j = 0; j < 8 * M; j++) {
            const f32x4 before = at[j * N_THREADS];
            QN_UNROLL(4)
            for (uint32_t e = 0; e < 4; e++) {
                u[j][e] = qn_attend_add(f[e / 2], before[e], u[j][e]);
            }
        }
    }
    if (is_last) {
        return;
    }
    QN_UNROLL(32)
    for (uint32_t j = 0; j < 8 * M; j++) {
        at[j * N_THREADS] = (f32x4){u[j][0], u[j][1], u[j][2], u[j][3]};
    }
}

/* u / l, as attend_join has it. */
QN_DEV void store_output(float (*u)[4], const float l[2], const tile *tile,
                         const qn_gpu_attend_args *args, const uint32_t M)
{
    const uint32_t column = qn_warp() / M * 64 * M + qn_lane() % 4 * 2;
    QN_UNROLL(2)
    for (uint32_t r = 0; r < 2; r++) {
        const uint32_t head = tile->head + qn_warp() % M * 16 + qn_lane() / 4 + 8 * r;
        if (head >= args->n_heads) {
            continue;
        }
        const float factor = 1.0F / l[r];
        uint16_t *to = args->u + ((uint64_t)tile->t * args->n_heads + head) * N_LATENT + column;
        QN_UNROLL(32)
        for (uint32_t j = 0; j < 8 * M; j++) {
            *(uint32_t *)(to + 8 * j) =
                qn_f32_to_bf16x2(u[j][2 * r] * factor, u[j][2 * r + 1] * factor);
        }
    }
}

/* What unit of the launch is: a row's head tile, and all of its set or a split; false: nothing. */
QN_DEV bool choose(tile *tile, const qn_gpu_attend_args *args, uint32_t unit, const uint32_t M)
{
    const uint32_t n_tiles = (args->n_heads + 16 * M - 1) / (16 * M);
    const uint32_t n_parts = args->is_whole ? 1 : args->n_splits;
    const uint32_t split = unit / n_tiles % n_parts;
    tile->t = unit / n_tiles / n_parts;
    tile->head = unit % n_tiles * 16 * M;
    tile->n_set = args->n_sets[tile->t];
    const uint32_t n_blocks = (tile->n_set + N_BLOCK - 1) / N_BLOCK;
    tile->first = split * N_SPLIT_BLOCKS;
    tile->end = args->is_whole ? n_blocks : qn_min_u32(tile->first + N_SPLIT_BLOCKS, n_blocks);
    if (tile->n_set == 0 && args->is_whole) {
        const uint32_t n = qn_min_u32(args->n_heads - tile->head, 16 * M) * N_LATENT / 8;
        uint16_t *u = args->u + ((uint64_t)tile->t * args->n_heads + tile->head) * N_LATENT;
        QN_UNROLL(1)
        for (uint32_t i = qn_thread(); i < n; i += N_THREADS) {
            qn_store_16(u + 8 * i, (u32x4){0, 0, 0, 0});
        }
    }
    if (tile->first >= tile->end) {
        return false;
    }
    tile->pages = qn_cache_pages(&args->kv, (uint32_t)args->seqs[tile->t]);
    return true;
}

/* One unit of the launch. */
QN_DEV void attend(const tile *tile, const qn_gpu_attend_args *args, const uint32_t M)
{
    const bool is_fp8 = args->kv.dtype == QN_GPU_KV_FP8;
    float u[8 * 4][4];
    weights w, sum;
    walk walk = {{0, 0}, {0, 0}, {0, 0}};
    qn_barrier(); /* shared memory is read no more */
    load_queries(tile, args, M);
    advance(&walk, tile, args, tile->first);
    advance(&walk, tile, args, tile->first + 1);
    load_rows(tile, &args->kv, &walk, tile->first);
    advance(&walk, tile, args, tile->first + 2);
    QN_UNROLL(1)
    for (uint32_t block = tile->first; block < tile->end; block++) {
        if (block % N_SPLIT_BLOCKS == 0) {
            w = (weights){{-__builtin_inff(), -__builtin_inff()}, {0, 0}};
            __builtin_memset(u, 0, 8 * M * sizeof *u);
        }
        qn_copy_wait(0);
        if (is_fp8) {
            qn_barrier();
            decode_rows(tile);
        }
        publish();
        qn_barrier();
        if (block + 1 < tile->end) {
            load_rows(tile, &args->kv, &walk, block + 1);
            advance(&walk, tile, args, block + 3);
        }
        uint8_t *rows = tile->rows + (is_fp8 ? 0 : block % 2 * ROWS_BYTES);
        float s[4][4] = {{0}};
        float alpha[2];
        score(s, tile, rows, M);
        weigh(&w, alpha, s, tile, block, args->scale * QN_LOG2_E, M);
        publish();
        qn_barrier();
        scale_values(u, alpha, M);
        add_values(u, tile, rows, M);
        const bool is_last = block + 1 == tile->end;
        if (is_last || (block + 1) % N_SPLIT_BLOCKS == 0) {
            end_split(&w, tile, M);
            if (args->is_whole) {
                join_split(u, &sum, &w, args, block < N_SPLIT_BLOCKS, is_last, M);
            } else {
                store_split(u, &w, tile, args, block / N_SPLIT_BLOCKS, M);
            }
        }
    }
    if (args->is_whole) {
        store_output(u, sum.l, tile, args, M);
    }
}

/* All units of this block: the launch may have fewer blocks than units. */
QN_DEV void attend_all(const qn_gpu_attend_args *args, const uint32_t M)
{
    tile tile;
    tile.q = qn_dynamic_shared();
    tile.q += -(uintptr_t)tile.q % ALIGNMENT;
    tile.rows = tile.q + 16 * M * 2 * N_DIMS;
    tile.p = tile.rows + 2 * ROWS_BYTES;
    tile.of_warps = (float *)(tile.p + 16 * M * 2 * N_BLOCK);
    const uint32_t n_tiles = (args->n_heads + 16 * M - 1) / (16 * M);
    const uint32_t n_units = args->n_rows * n_tiles * (args->is_whole ? 1 : args->n_splits);
    QN_UNROLL(1)
    for (uint32_t unit = qn_block_x(); unit < n_units; unit += qn_blocks_x()) {
        if (choose(&tile, args, unit, M)) {
            attend(&tile, args, M);
        }
    }
}
#endif
