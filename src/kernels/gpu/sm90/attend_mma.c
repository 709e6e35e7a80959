/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on tensor cores, latents of 512 and rope keys of 64: a block of 8 warps has a tile of
 * heads (64, or 16) and walks through a set in blocks of 64 positions.  Rows lie in shared memory
 * in bf16, as keys and as values at once; the rows of the next block are copied meanwhile.  FP8
 * rows are decoded there once for all heads.
 *
 * A block takes one split and leaves the rest to attend_join, or all splits of a row where rows
 * fill the machine: then it joins them itself in the same order, and what it has so far waits in
 * partial_u, which stays in the L2 cache.  Bits are the same either way.
 *
 * Warps share a tile's scores by heads and positions, and its output by latents: a warp has 64 of
 * them for all heads, so that each value is read from shared memory once.
 */
#include "kernels/gpu/attend.h"

#include "kernels/gpu/cache.h"

enum {
    N_THREADS = QN_GPU_attend_mma64_THREADS,
    N_WARPS = N_THREADS / QN_LANES,
    N_LATENT = 512,
    N_ROPE = 64,
    N_DIMS = N_LATENT + N_ROPE,
    ROW_BYTES = 2 * N_DIMS,
    RAW_BYTES = N_LATENT + 4 * N_LATENT / 128 + 2 * N_ROPE, /* of an FP8 row */
    N_BLOCK = 64,                                           /* positions */
    ROWS_BYTES = N_BLOCK * ROW_BYTES,
    P_BYTES = 2 * N_BLOCK, /* of a head's weights of a block */
    N_SPLIT_BLOCKS = QN_GPU_ATTEND_SPLIT / N_BLOCK,
    N_WARP_LATENT = N_LATENT / N_WARPS,
};
_Static_assert(N_THREADS == QN_GPU_attend_mma16_THREADS && N_WARP_LATENT == 64, "warps by latents");

/* One block's shared memory, and what it works on.  M tiles of 16 heads: a constant. */
typedef struct tile {
    uint8_t *q;          /* [16 M] rows */
    uint8_t *rows;       /* [2][N_BLOCK] rows; the second half raw where the cache is FP8 */
    uint8_t *p;          /* [16 M][N_BLOCK] */
    float *of_warps;     /* [N_WARPS / M][16 M] what warps of one head tell each other */
    float *alpha;        /* [16 M] */
    float *now;          /* [16 M][m, l] of a split */
    float *sum;          /* [16 M][m, l] of all before it */
    uint32_t t, head;    /* Row, and the tile's first head. */
    uint32_t first, end; /* Blocks of positions. */
    uint32_t n_set;
    const int32_t *set, *pages;
} tile;

/* Chunks of 16 bytes are permuted among each eight, so that 8 rows of one chunk have all banks. */
QN_DEV uint8_t *chunk_at(uint8_t *base, uint32_t row_bytes, uint32_t row, uint32_t chunk)
{
    return base + row * row_bytes + (chunk ^ (row & 7U)) * 16;
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
        qn_copy_16(chunk_at(tile->q, ROW_BYTES, h, chunk), from, is_there ? 16 : 0);
    }
}

/* Rows of the cache that this thread copies of a block; behind the set's end its last one. */
QN_DEV void find_rows(uint32_t rows[2], const tile *tile, uint32_t block)
{
    QN_UNROLL(2)
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t i = block * N_BLOCK + qn_thread() / 8 + N_BLOCK / 2 * k;
        const uint32_t position = (uint32_t)tile->set[qn_min_u32(i, tile->n_set - 1)];
        const uint32_t page = (uint32_t)tile->pages[position / QN_GPU_PAGE_TOKENS];
        rows[k] = page * QN_GPU_PAGE_TOKENS + position % QN_GPU_PAGE_TOKENS;
    }
}

/* Begin to copy a block of rows: eight threads a row. */
QN_DEV void load_rows(const tile *tile, const qn_gpu_cache *kv, const uint32_t rows[2],
                      uint32_t block)
{
    const uint32_t part = qn_thread() % 8;
    QN_UNROLL(2)
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t r = qn_thread() / 8 + N_BLOCK / 2 * k;
        const uint8_t *from = kv->base + (uint64_t)rows[k] * kv->row_bytes + part * 16;
        if (kv->dtype == QN_GPU_KV_BF16) {
            uint8_t *to = chunk_at(tile->rows + block % 2 * ROWS_BYTES, ROW_BYTES, r, part);
            QN_UNROLL(9)
            for (uint32_t i = 0; i < ROW_BYTES / 128; i++) {
                qn_copy_16(to + 128 * i, from + 128 * i, 16);
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

/* FP8 rows to bf16. */
QN_DEV void decode_rows(const tile *tile)
{
    const uint8_t *raw = tile->rows + ROWS_BYTES;
    QN_UNROLL(4)
    for (uint32_t k = 0; k < N_BLOCK * N_LATENT / 8 / N_THREADS; k++) {
        const uint32_t i = qn_thread() + k * N_THREADS;
        const uint32_t r = i / (N_LATENT / 8), chunk = i % (N_LATENT / 8);
        const uint8_t *row = raw + r * RAW_BYTES;
        const u32x2 codes = *(const u32x2 *)(row + chunk * 8);
        const float scale = *(const float *)(row + N_LATENT + chunk / 16 * 4);
        const f32x4 a = qn_e4m3x4_to_f32(codes.x) * scale, b = qn_e4m3x4_to_f32(codes.y) * scale;
        const u32x4 pairs = {qn_f32_to_bf16x2(a.x, a.y), qn_f32_to_bf16x2(a.z, a.w),
                             qn_f32_to_bf16x2(b.x, b.y), qn_f32_to_bf16x2(b.z, b.w)};
        qn_store_16(chunk_at(tile->rows, ROW_BYTES, r, chunk), pairs);
    }
    QN_UNROLL(2)
    for (uint32_t k = 0; k < N_BLOCK * N_ROPE / 8 / N_THREADS; k++) {
        const uint32_t i = qn_thread() + k * N_THREADS;
        const uint32_t r = i / (N_ROPE / 8), chunk = i % (N_ROPE / 8);
        const uint8_t *from = raw + (r + 1) * RAW_BYTES - 2 * N_ROPE + chunk * 16;
        qn_store_16(chunk_at(tile->rows, ROW_BYTES, r, N_LATENT / 8 + chunk), qn_load_16(from));
    }
}

/* s = q k for 16 heads and 8 M positions of the warp. */
QN_DEV void score(float (*s)[4], const tile *tile, uint8_t *rows, const uint32_t M)
{
    const uint32_t lane = qn_lane();
    const uint32_t h = qn_warp() % M * 16 + lane % 16;
    const uint32_t position = qn_warp() / M * 8 * M + lane % 8;
    uint32_t a[4], b[4];
    QN_UNROLL(4)
    for (uint32_t k = 0; k < N_DIMS / 16; k++) {
        qn_ldmatrix(a, chunk_at(tile->q, ROW_BYTES, h, 2 * k + lane / 16));
        if (M == 1) { /* two steps of k at once, every other time */
            if (k % 2 == 0) {
                qn_ldmatrix(b, chunk_at(rows, ROW_BYTES, position, 2 * k + lane / 8));
            }
            qn_mma_bf16(s[0], a, k % 2 == 0 ? b : b + 2);
            continue;
        }
        QN_UNROLL(2)
        for (uint32_t j = 0; j < M; j += 2) {
            const uint32_t r = position + 8 * j + lane / 16 * 8;
            qn_ldmatrix(b, chunk_at(rows, ROW_BYTES, r, 2 * k + lane / 8 % 2));
            qn_mma_bf16(s[j], a, b);
            qn_mma_bf16(s[j + 1], a, b + 2);
        }
    }
}

/*
 * Scores of a block to weights: m the largest score so far, l this lane's share of the sum of
 * weights, each of rows lane / 4 and + 8 of the warp's heads; tile->alpha what came before is worth
 * now.
 */
QN_DEV void weigh(float m[2], float l[2], float (*s)[4], const tile *tile, uint32_t block,
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
        const float before = m[r];
        QN_UNROLL(8)
        for (uint32_t i = 0; i < N_WARPS / M; i++) {
            m[r] = qn_max(m[r], tile->of_warps[i * 16 * M + h + 8 * r]);
        }
        const float alpha = qn_fast_exp2(before - m[r]);
        l[r] *= alpha;
        if (t == 0 && qn_warp() < M) {
            tile->alpha[h + 8 * r] = alpha;
        }
        QN_UNROLL(4)
        for (uint32_t j = 0; j < M; j++) {
            const float a = qn_fast_exp2(s[j][2 * r] - m[r]);
            const float b = qn_fast_exp2(s[j][2 * r + 1] - m[r]);
            l[r] += a + b;
            *(uint32_t *)(chunk_at(tile->p, P_BYTES, h + 8 * r, qn_warp() / M * M + j) + 4 * t) =
                qn_f32_to_bf16x2(a, b);
        }
    }
}

/* u = alpha u + p c for all heads and the warp's 64 latents. */
QN_DEV void add_values(float (*u)[8][4], const tile *tile, uint8_t *rows, const uint32_t M)
{
    const uint32_t lane = qn_lane();
    float alpha[8];
    bool is_scaled = false;
    QN_UNROLL(8)
    for (uint32_t r = 0; r < 2 * M; r++) {
        alpha[r] = tile->alpha[8 * r + lane / 4];
        is_scaled |= alpha[r] != 1.0F;
    }
    if (qn_any(is_scaled)) {
        QN_UNROLL(4)
        for (uint32_t i = 0; i < M; i++) {
            QN_UNROLL(8)
            for (uint32_t j = 0; j < 8; j++) {
                u[i][j][0] *= alpha[2 * i];
                u[i][j][1] *= alpha[2 * i];
                u[i][j][2] *= alpha[2 * i + 1];
                u[i][j][3] *= alpha[2 * i + 1];
            }
        }
    }
    QN_UNROLL(4)
    for (uint32_t k = 0; k < N_BLOCK / 16; k++) {
        uint32_t b[4][4];
        QN_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t chunk = qn_warp() * (N_WARP_LATENT / 8) + 2 * j + lane / 16;
            qn_ldmatrix_trans(b[j], chunk_at(rows, ROW_BYTES, 16 * k + lane % 16, chunk));
        }
        QN_UNROLL(4)
        for (uint32_t i = 0; i < M; i++) {
            uint32_t a[4];
            qn_ldmatrix(a, chunk_at(tile->p, P_BYTES, 16 * i + lane % 16, 2 * k + lane / 16));
            QN_UNROLL(8)
            for (uint32_t j = 0; j < 8; j++) {
                qn_mma_bf16(u[i][j], a, b[j / 2] + j % 2 * 2);
            }
        }
    }
}

/* tile->now of a split, for all threads of the block. */
QN_DEV void end_split(const float m[2], float l[2], const tile *tile, const uint32_t M)
{
    const uint32_t g = qn_lane() / 4, t = qn_lane() % 4;
    const uint32_t h = qn_warp() % M * 16 + g;
    QN_UNROLL(2)
    for (uint32_t r = 0; r < 2; r++) {
        l[r] += qn_shuffle_xor_f32(l[r], 1);
        l[r] += qn_shuffle_xor_f32(l[r], 2);
        if (t == 0) {
            tile->of_warps[qn_warp() / M * 16 * M + h + 8 * r] = l[r];
        }
    }
    qn_barrier();
    if (t == 0 && qn_warp() < M) {
        QN_UNROLL(2)
        for (uint32_t r = 0; r < 2; r++) {
            float sum = 0;
            QN_UNROLL(8)
            for (uint32_t i = 0; i < N_WARPS / M; i++) {
                sum += tile->of_warps[i * 16 * M + h + 8 * r];
            }
            tile->now[2 * (h + 8 * r)] = m[r];
            tile->now[2 * (h + 8 * r) + 1] = sum;
        }
    }
    qn_barrier();
}

/* Put the split's sums where attend_join looks for them. */
QN_DEV void store_split(float (*u)[8][4], const tile *tile, const qn_gpu_attend_args *args,
                        uint32_t split, const uint32_t M)
{
    const uint64_t partial = ((uint64_t)tile->t * args->n_splits + split) * args->n_heads;
    const uint32_t column = qn_warp() * N_WARP_LATENT + qn_lane() % 4 * 2;
    QN_UNROLL(8)
    for (uint32_t r = 0; r < 2 * M; r++) {
        const uint32_t h = 8 * r + qn_lane() / 4;
        if (tile->head + h >= args->n_heads) {
            continue;
        }
        float *to = args->partial_u + (partial + tile->head + h) * N_LATENT + column;
        QN_UNROLL(8)
        for (uint32_t j = 0; j < 8; j++) {
            const float *from = &u[r / 2][j][r % 2 * 2];
            *(f32x2 *)(to + 8 * j) = (f32x2){from[0], from[1]};
        }
        if (column == 0) {
            *(f32x2 *)(args->partial_m + 2 * (partial + tile->head + h)) =
                *(const f32x2 *)(tile->now + 2 * h);
        }
    }
}

/*
 * Add the split to those before it, as attend_join does.  The sums so far of this thread's elements
 * wait in the block's part of partial_u.
 */
QN_DEV void join_split(float (*u)[8][4], const tile *tile, const qn_gpu_attend_args *args,
                       bool is_first, bool is_last, const uint32_t M)
{
    const uint64_t partial = (uint64_t)qn_block_x() * qn_min_u32(args->n_heads, 16 * M);
    const uint32_t column = qn_warp() * N_WARP_LATENT + qn_lane() % 4 * 2;
    QN_UNROLL(8)
    for (uint32_t r = 0; r < 2 * M; r++) {
        const uint32_t h = 8 * r + qn_lane() / 4;
        const f32x2 now = *(const f32x2 *)(tile->now + 2 * h);
        const f32x2 sum = is_first ? now : *(const f32x2 *)(tile->sum + 2 * h);
        const qn_attend_factors f = qn_attend_factors_of(sum.x, now.x);
        const float l = is_first ? now.y : qn_attend_add(f, sum.y, now.y);
        if (tile->head + h >= args->n_heads) {
            continue;
        }
        float *at = args->partial_u + (partial + h) * N_LATENT + column;
        uint16_t *to =
            args->u + ((uint64_t)tile->t * args->n_heads + tile->head + h) * N_LATENT + column;
        QN_UNROLL(8)
        for (uint32_t j = 0; j < 8; j++) {
            f32x2 v = {u[r / 2][j][r % 2 * 2], u[r / 2][j][r % 2 * 2 + 1]};
            if (!is_first) {
                const f32x2 before = *(const f32x2 *)(at + 8 * j);
                v.x = qn_attend_add(f, before.x, v.x);
                v.y = qn_attend_add(f, before.y, v.y);
            }
            if (is_last) {
                *(uint32_t *)(to + 8 * j) = qn_f32_to_bf16x2(v.x / l, v.y / l);
            } else {
                *(f32x2 *)(at + 8 * j) = v;
            }
        }
    }
    qn_barrier();
    if (qn_thread() < 16 * M) {
        const uint32_t h = qn_thread();
        const f32x2 now = *(const f32x2 *)(tile->now + 2 * h);
        const f32x2 sum = is_first ? now : *(const f32x2 *)(tile->sum + 2 * h);
        const qn_attend_factors f = qn_attend_factors_of(sum.x, now.x);
        tile->sum[2 * h] = f.m;
        tile->sum[2 * h + 1] = is_first ? now.y : qn_attend_add(f, sum.y, now.y);
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
    tile->set = args->sets + (uint64_t)tile->t * args->set_stride;
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
    float u[4][8][4];
    float m[2], l[2];
    uint32_t rows[2];
    qn_barrier(); /* shared memory is read no more */
    load_queries(tile, args, M);
    find_rows(rows, tile, tile->first);
    load_rows(tile, &args->kv, rows, tile->first);
    find_rows(rows, tile, tile->first + 1);
    QN_UNROLL(1)
    for (uint32_t block = tile->first; block < tile->end; block++) {
        if (block % N_SPLIT_BLOCKS == 0) {
            m[0] = m[1] = -__builtin_inff();
            l[0] = l[1] = 0;
            __builtin_memset(u, 0, M * sizeof *u);
        }
        qn_copy_wait(0);
        qn_barrier();
        if (is_fp8) {
            decode_rows(tile);
            qn_barrier();
        }
        if (block + 1 < tile->end) {
            load_rows(tile, &args->kv, rows, block + 1);
            find_rows(rows, tile, block + 2);
        }
        uint8_t *in = tile->rows + (is_fp8 ? 0 : block % 2 * ROWS_BYTES);
        float s[4][4] = {{0}};
        score(s, tile, in, M);
        weigh(m, l, s, tile, block, args->scale * QN_LOG2_E, M);
        qn_barrier();
        add_values(u, tile, in, M);
        const bool is_last = block + 1 == tile->end;
        if (is_last || (block + 1) % N_SPLIT_BLOCKS == 0) {
            end_split(m, l, tile, M);
            if (args->is_whole) {
                join_split(u, tile, args, block < N_SPLIT_BLOCKS, is_last, M);
            } else {
                store_split(u, tile, args, block / N_SPLIT_BLOCKS, M);
            }
        }
    }
}

/* All units of this block: the launch may have fewer blocks than units. */
QN_DEV void attend_all(const qn_gpu_attend_args *args, const uint32_t M)
{
    tile tile;
    tile.q = qn_dynamic_shared();
    tile.rows = tile.q + 16 * M * ROW_BYTES;
    tile.p = tile.rows + 2 * ROWS_BYTES;
    tile.of_warps = (float *)(tile.p + 16 * M * P_BYTES);
    tile.alpha = tile.of_warps + 16 * N_WARPS;
    tile.now = tile.alpha + 16 * M;
    tile.sum = tile.now + 32 * M;
    const uint32_t n_tiles = (args->n_heads + 16 * M - 1) / (16 * M);
    const uint32_t n_units = args->n_rows * n_tiles * (args->is_whole ? 1 : args->n_splits);
    QN_UNROLL(1)
    for (uint32_t unit = qn_block_x(); unit < n_units; unit += qn_blocks_x()) {
        if (choose(&tile, args, unit, M)) {
            attend(&tile, args, M);
        }
    }
}

QN_GPU_KERNEL(attend_mma16)
{
    attend_all(args, 1);
}

QN_GPU_KERNEL(attend_mma64)
{
    attend_all(args, 4);
}
