/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of up to 64 rows, but of experts, by wgmma, bound by reading weights: weights are the
 * 64-row operand, which a warp expands from its strip into registers, rows of x are columns.
 *
 * An item is 8 strips.  It has a cluster of blocks, each with an equal part of the inputs; each
 * adds up the sums of some strips, which the others send to its shared memory.  Where there are
 * more items than blocks, an item has one block, which takes several.
 *
 *   warps 0 .. 7  two warpgroups, of 4 strips each; while a product of 64 inputs runs they expand
 *                 the weights of the next one
 *   warp 8        a lane of it fills a ring of stages: of each strip 2048 bytes of tiles (64 inputs
 *                 of bf16, 128 of FP8, 256 of MXFP4), their scales, and the rows of x for them
 *
 * The launch is a dependent one: weights, which nobody writes, fill the ring before the wait for
 * what is in front of it.  Most plans give a block half of a multiprocessor, so that it comes while
 * blocks of such a launch in front of it still run.
 */
#include "kernels/gpu/epilogue.h"
#include "kernels/gpu/expand.h"
#include "kernels/gpu/sm90/wgmma.h"

enum {
    STRIPS = QN_GPU_FEW_STRIPS,
    TILES = QN_GPU_FEW_TILES,
    TILES_BYTES = STRIPS * TILES * QN_TILE_BYTES,
    SCALES_BYTES = QN_GPU_FEW_SCALES_BYTES,
    ROWS_MAX = QN_GPU_FEW_ROWS_MAX,
    STAGES_MAX = QN_GPU_FEW_STAGES_MAX,
    CONSUMERS = 256,
    PAIR = 1, /* the barrier of all consumers, where gate and up of an output meet */
};

/* The same for all threads of a block. */
typedef struct few_block {
    const qn_gpu_few_args *args;
    uint64_t maps;        /* where args has the tensor maps */
    uint32_t kind;        /* a constant */
    uint32_t n_stages;    /* of an item, that the block has */
    uint8_t *stages;      /* on 1024 bytes: rows of x, then tiles, then scales; at the end sums */
    float *up;            /* [CONSUMERS] */
    uint32_t full, empty; /* barriers, one for each stage of the ring */
    uint32_t sent;        /* the barrier of sums that all blocks of the cluster send here */
} few_block;

/* A stage's place in the ring. */
typedef struct few_place {
    uint32_t stage, parity;
} few_place;

/* Of 64 inputs, in a stage. */
QN_DEV uint32_t blocks_of(uint32_t kind)
{
    return TILES * qn_tile_in(kind) / 64;
}

/* n: columns. */
QN_DEV uint32_t stage_bytes(uint32_t kind, uint32_t n)
{
    return blocks_of(kind) * n * 128 + TILES_BYTES + (kind != QN_GPU_W_BF16 ? SCALES_BYTES : 0);
}

QN_DEV uint32_t columns_of(const few_block *b)
{
    return qn_gpu_few_columns(b->args->product.n_rows);
}

/* Of the block in its cluster, found anew wherever it is asked for. */
QN_DEV uint32_t rank_of(const few_block *b)
{
    return qn_here(qn_block_x()) % b->args->n_parts;
}

/* Of an item's stages the block has those from begin_of(rank) to begin_of(rank + 1). */
QN_DEV uint32_t begin_of(const qn_gpu_few_args *args, uint32_t rank)
{
    return rank * args->n_stages / args->n_parts;
}

QN_DEV uint32_t first_item(const few_block *b)
{
    return qn_block_x() / b->args->n_parts;
}

QN_DEV void next_place(const few_block *b, few_place *p)
{
    p->stage++;
    if (p->stage == b->args->n_ring) {
        p->stage = 0;
        p->parity ^= 1;
    }
}

/* Bytes of a strip's scales in a stage. */
QN_DEV uint32_t scale_bytes(uint32_t kind)
{
    return kind == QN_GPU_W_MXFP4 ? TILES * QN_TILE_SCALE_BYTES : kind == QN_GPU_W_FP8 ? 64 : 0;
}

/* Where a stage has its rows of x, of n columns. */
QN_DEV uint8_t *rows_at(const few_block *b, uint32_t stage, uint32_t n)
{
    return b->stages + stage * stage_bytes(b->kind, n);
}

QN_DEV uint8_t *tiles_at(const few_block *b, uint32_t stage, uint32_t n, uint32_t strip)
{
    return rows_at(b, stage, n) + blocks_of(b->kind) * n * 128 + strip * TILES * QN_TILE_BYTES;
}

QN_DEV uint8_t *scales_at(const few_block *b, uint32_t stage, uint32_t n, uint32_t strip)
{
    return tiles_at(b, stage, n, STRIPS) + strip * scale_bytes(b->kind);
}

/* -------------------------------------------------------------------------------- producer -- */

/* The block's stages, one after the other. */
typedef struct few_walk {
    few_place place;
    uint32_t item, stage; /* of the item */
    uint32_t first_stage; /* of those that the block has */
    uint32_t strip, group;
} few_walk;

QN_DEV void begin_item(const few_block *b, few_walk *walk, uint32_t item)
{
    const uint32_t n_across = b->args->n_across;
    walk->item = item;
    walk->stage = walk->first_stage;
    walk->strip = item % n_across * STRIPS;
    walk->group = item / n_across;
}

QN_DEV void next_stage(const few_block *b, few_walk *walk)
{
    next_place(b, &walk->place);
    walk->stage++;
    if (walk->stage == walk->first_stage + b->n_stages) {
        begin_item(b, walk, walk->item + b->args->n_clusters);
    }
}

/* Begin to copy a stage's tiles and scales. */
QN_DEV void copy_weights(const few_block *b, const few_walk *walk)
{
    const uint32_t n = columns_of(b);
    const uint32_t bar = b->full + 8 * walk->place.stage;
    const uint32_t tiles[4] = {0, walk->stage * TILES, walk->strip, walk->group};
    qn_mbar_expect(bar, TILES_BYTES + STRIPS * scale_bytes(b->kind));
    qn_copy_box(tiles_at(b, walk->place.stage, n, 0),
                b->maps + __builtin_offsetof(qn_gpu_few_args, tiles_map), tiles, bar);
    if (b->kind != QN_GPU_W_BF16) {
        const uint32_t of_fp8[4] = {0, walk->stage, walk->strip, walk->group};
        qn_copy_box(scales_at(b, walk->place.stage, n, 0),
                    b->maps + __builtin_offsetof(qn_gpu_few_args, scales_map),
                    b->kind == QN_GPU_W_FP8 ? of_fp8 : tiles, bar);
    }
}

/* Begin to copy a stage's rows of x: 64 inputs of all rows are a matrix of wgmma.h.  Inputs that
 * are not there are zeros, as are rows that fill up columns. */
QN_DEV void copy_rows(const few_block *b, const few_walk *walk)
{
    const uint32_t each = blocks_of(b->kind);
    const uint32_t n = columns_of(b);
    const uint32_t bar = b->full + 8 * walk->place.stage;
    qn_mbar_expect(bar, each * n * 128);
    QN_UNROLL(4)
    for (uint32_t i = 0; i < each; i++) {
        const uint32_t at[4] = {(walk->stage * each + i) * 64, 0, walk->group, 0};
        qn_copy_box(rows_at(b, walk->place.stage, n) + i * n * 128,
                    b->maps + __builtin_offsetof(qn_gpu_few_args, x_map), at, bar);
    }
}

QN_DEV void produce(const few_block *b)
{
    const uint32_t n_items = b->args->n_across * b->args->product.n_groups;
    const uint32_t n_mine =
        (n_items - first_item(b) + b->args->n_clusters - 1) / b->args->n_clusters;
    const uint32_t n_all = n_mine * b->n_stages;
    few_walk walk = {.first_stage = begin_of(b->args, rank_of(b))};
    few_walk ahead = walk;
    begin_item(b, &walk, first_item(b));
    begin_item(b, &ahead, first_item(b));
    QN_UNROLL(1)
    for (uint32_t i = 0; i < b->args->n_ring && i < n_all; i++) {
        copy_weights(b, &ahead);
        next_stage(b, &ahead);
    }
    qn_await_earlier();
    walk.place.parity = 1; /* of the first time around nothing is to be waited for */
    /* From there on memory has nothing left to do here, and the next launch's ring is empty. */
    const uint32_t release = n_all - qn_min_u32(n_all, b->args->n_ring);
    QN_UNROLL(1)
    for (uint32_t i = 0; i < n_all; i++) {
        if (i == release) {
            qn_release_later();
        }
        if (i >= b->args->n_ring) {
            qn_mbar_wait(b->empty + 8 * walk.place.stage, walk.place.parity);
            copy_weights(b, &walk);
        }
        copy_rows(b, &walk);
        next_stage(b, &walk);
    }
}

/* ------------------------------------------------------------------------------- consumers -- */

/*
 * A part of an item, block after block of 64 inputs.  While the product of one runs the next is
 * expanded into other registers, as those of a product may not be written before it has ended; of
 * FP8 and MXFP4 the words of the one behind that are on their way from shared memory, too.
 */
typedef struct few_flow {
    few_place here;      /* the stage of the product */
    uint32_t x;          /* its rows, qn_wgmma_matrix() of the first block */
    few_place ahead;     /* the stage that words come from next */
    uint32_t n_left;     /* stages behind here */
    uint32_t a[2][4][4]; /* weights of two blocks, of four steps each */
    u32x4 words[4];      /* tiles of a block */
    uint32_t scales;     /* the block's, of MXFP4 */
    /* FP8: y = sum over stages of m_i 2^e_i sum_i, as in matmul_wgmma.c; outputs g and g + 8. */
    f32x2 stage_scales; /* of the stage that words came from last */
    f32x2 m, by;      /* what sums so far are to be multiplied by before those of a stage follow */
    uint32_t bias[2]; /* 2^(120 + e) twice */
} few_flow;

/* The words of a block, that behind the one fetched before; i_block of its stage. */
QN_DEV void fetch(few_flow *f, const few_block *b, const uint32_t i_block, const uint32_t n,
                  const uint32_t kind)
{
    const uint32_t stage = f->ahead.stage;
    const uint32_t n_tiles = 64 / qn_tile_in(kind);
    const uint8_t *tiles = tiles_at(b, stage, n, qn_warp()) + qn_lane() * 16;
    const uint8_t *scales = scales_at(b, stage, n, qn_warp());
    if (i_block == 0) {
        qn_mbar_wait(b->full + 8 * stage, f->ahead.parity);
    }
    QN_UNROLL(4)
    for (uint32_t i = 0; i < n_tiles; i++) {
        f->words[i] = qn_load_16(tiles + (i_block * n_tiles + i) * QN_TILE_BYTES);
    }
    if (kind == QN_GPU_W_MXFP4) {
        scales += i_block * QN_TILE_SCALE_BYTES + qn_lane() / 4 * 4;
        f->scales = *(const uint32_t *)scales;
    } else if (kind == QN_GPU_W_FP8 && i_block == 0) {
        f->stage_scales = *(const f32x2 *)(scales + qn_lane() / 4 * 8);
    }
    if (i_block + 1 == blocks_of(kind)) {
        next_place(b, &f->ahead);
    }
}

/* Registers of the block whose words were fetched; i_block of its stage. */
QN_DEV void expand(few_flow *f, uint32_t a[4][4], const uint32_t i_block, const uint32_t kind)
{
    if (kind == QN_GPU_W_FP8 && i_block == 0) {
        f->by = qn_fp8_next_units(&f->m, f->bias, f->stage_scales);
    }
    qn_expand_64(a, kind, f->words, f->scales, f->bias);
}

/* Multiply block i_block of a stage, and get the next one ready, with registers of their own.
 * False: there is none. */
QN_DEV bool multiply_block(float *d, few_flow *f, const few_block *b, uint32_t now[4][4],
                           uint32_t next[4][4], const uint32_t i_block, const uint32_t n,
                           const uint32_t kind)
{
    const uint32_t each = blocks_of(kind);
    const bool is_end = i_block + 1 == each;
    const bool has_next = !is_end || f->n_left > 0;
    const uint32_t x = f->x + i_block * n * 8;
    qn_wgmma_fence();
    QN_UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) {
        qn_wgmma_bf16(d, now[i], x + 2 * i, n);
    }
    qn_wgmma_commit();
    if (has_next && kind == QN_GPU_W_BF16) {
        fetch(f, b, 0, n, kind);
    }
    if (has_next) {
        expand(f, next, (i_block + 1) % each, kind);
    }
    if (kind != QN_GPU_W_BF16 && (i_block + 2 == each ? f->n_left > 0 : has_next)) {
        fetch(f, b, (i_block + 2) % each, n, kind);
    }
    qn_wgmma_wait(0);
    if (!is_end) {
        return true;
    }
    qn_warp_barrier(); /* a lane arrives for all, who have read their tiles */
    if (qn_lane() == 0) {
        qn_mbar_arrive(b->empty + 8 * f->here.stage);
    }
    if (!has_next) {
        return false;
    }
    f->n_left--;
    next_place(b, &f->here);
    f->x = qn_wgmma_matrix(qn_shared_address(rows_at(b, f->here.stage, n)));
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2 && kind == QN_GPU_W_FP8; i++) {
        d[i] *= i % 4 < 2 ? f->by.x : f->by.y;
    }
    return true;
}

/* Two blocks, of bf16 of two stages. */
QN_DEV bool multiply_two(float *d, few_flow *f, const few_block *b, const uint32_t i_block,
                         const uint32_t n, const uint32_t kind)
{
    const uint32_t each = blocks_of(kind);
    return multiply_block(d, f, b, f->a[0], f->a[1], i_block, n, kind) &&
           multiply_block(d, f, b, f->a[1], f->a[0], (i_block + 1) % each, n, kind);
}

/* The products of a part of an item with n columns; its first stage is at `place`, which becomes
 * that of the stage behind it. */
QN_DEV void multiply(float *d, const few_block *b, few_place *place, const uint32_t n,
                     const uint32_t kind)
{
    few_flow f = {.here = *place, .ahead = *place, .n_left = b->n_stages - 1, .m = {1, 1}};
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        d[i] = 0;
    }
    f.x = qn_wgmma_matrix(qn_shared_address(rows_at(b, f.here.stage, n)));
    fetch(&f, b, 0, n, kind);
    expand(&f, f.a[0], 0, kind);
    if (kind != QN_GPU_W_BF16) {
        fetch(&f, b, 1, n, kind);
    }
    QN_UNROLL(1)
    while (multiply_two(d, &f, b, 0, n, kind) &&
           (blocks_of(kind) < 4 || multiply_two(d, &f, b, 2, n, kind))) {
    }
    *place = f.ahead;
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        d[i] *= kind != QN_GPU_W_FP8 ? 1 : i % 4 < 2 ? f.m.x : f.m.y;
    }
}

/* Where sums of an item go in y.  Found once: a division for each output would show. */
typedef struct few_goal {
    uint32_t group, strip;
    uint32_t lane; /* qn_lane(), new for each item: places of all sums are not kept meanwhile */
} few_goal;

QN_DEV few_goal goal_of(const few_block *b, uint32_t item)
{
    const uint32_t n_across = b->args->n_across;
    return (few_goal){
        .group = item / n_across, .strip = item % n_across * STRIPS, .lane = qn_here(qn_lane())};
}

/* Row of x, and output among the warp's strip, of d[i]. */
QN_DEV uint32_t row_at(few_goal to, uint32_t i)
{
    return i / 4 * 8 + to.lane % 4 * 2 + i % 2;
}

QN_DEV uint32_t out_at(few_goal to, uint32_t i)
{
    return i / 2 % 2 * 8 + to.lane / 4;
}

/* Sums i .. i + n_sums - 1 of a strip of the item go to y; of a pair they are gate's, and the next
 * strip's up's. */
QN_DEV void put(const few_block *b, few_goal to, uint32_t strip, uint32_t i, const float *value,
                const float *up, const uint32_t n_sums)
{
    const qn_gpu_matmul_args *args = &b->args->product;
    const uint32_t first = ((to.strip + strip) >> (args->w.is_pair != 0 ? 1 : 0)) * QN_TILE_OUT;
    uint32_t at[4];
    bool is_there[4];
    QN_UNROLL(4)
    for (uint32_t k = 0; k < n_sums; k++) {
        const uint32_t row = row_at(to, i + k);
        const uint32_t out = first + out_at(to, i + k);
        at[k] = row * (uint32_t)args->y_stride + out;
        is_there[k] = row < args->n_rows && out < args->w.n_out;
    }
    qn_put_all(args, to.group * args->y_group_stride, at, is_there, value, up, n_sums);
}

/* Four sums, d[i ..], go to y; all consumers come here with the same i. */
QN_DEV void store(const few_block *b, few_goal to, uint32_t i, const float *d)
{
    float up[4];
    float *shared = b->up + qn_here(qn_thread());
    if (b->args->product.w.is_pair == 0) {
        put(b, to, qn_warp(), i, d + i, up, 4);
        return;
    }
    QN_UNROLL(4)
    for (uint32_t k = 0; k < 4; k++) {
        *shared = d[i + k];
        qn_barrier_of(PAIR, CONSUMERS);
        up[k] = qn_warp() % 2 == 0 ? shared[QN_LANES] : 0;
        qn_barrier_of(PAIR, CONSUMERS);
    }
    if (qn_warp() % 2 == 0) {
        put(b, to, qn_warp(), i, d + i, up, 4);
    }
}

/* What parts have left in sums, in their order: those of n_sums that follow each other. */
QN_DEV void add_parts(float *to, const float *sums, uint32_t n_parts, uint32_t part_size,
                      const uint32_t n_sums)
{
    QN_UNROLL(4)
    for (uint32_t i = 0; i < n_sums; i++) {
        to[i] = 0;
    }
    QN_UNROLL(2)
    for (uint32_t k = 0; k < n_parts; k++) {
        QN_UNROLL(4)
        for (uint32_t i = 0; i < n_sums; i++) {
            to[i] += sums[k * part_size + i * QN_LANES];
        }
    }
}

/*
 * The sums of all parts of an item: each block is sent those of some strips, to where its stages
 * were, and adds them up.  Gate and up of an output meet in one block: of a pair in as many parts
 * as strips, two blocks have the same two strips, and half of the sums of each.
 */
QN_DEV void join(const float *d, const few_block *b, few_goal to, const uint32_t n)
{
    const uint32_t n_parts = b->args->n_parts;
    const uint32_t rank = rank_of(b);
    const uint32_t is_pair = b->args->product.w.is_pair != 0;
    const uint32_t n_halves = is_pair != 0 && n_parts == STRIPS ? 2 : 1;
    const uint32_t n_strips = STRIPS / n_parts * n_halves; /* of a block */
    const uint32_t n_sums = n / 2 / n_halves;              /* of each of them, a lane */
    const uint32_t part_size = n_strips * n_sums * QN_LANES;
    float *sums = (float *)b->stages + to.lane; /* [n_parts][n_strips][n_sums][QN_LANES] */
    float *mine = sums + rank * part_size + qn_warp() % n_strips * n_sums * QN_LANES;
    const uint32_t to_rank = qn_warp() / n_strips * n_halves;
    /* Nobody reads stages any more: their copies were waited for, and what was read of them went
       into products that have ended. */
    qn_cluster_barrier();
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        const uint32_t half = i < n / 4 ? 0 : n_halves - 1;
        qn_send_f32(mine + (i - half * (n / 4)) * QN_LANES, b->sent, to_rank + half, d[i]);
    }
    qn_mbar_wait_cluster(b->sent, 0);
    const uint32_t strip = rank / n_halves * n_strips;
    const uint32_t first = rank % n_halves * n_sums;
    const uint32_t each = n == 8 ? 2 : 4; /* which halves have, too */
    const uint32_t end = (n_strips >> is_pair) * n_sums;
    QN_UNROLL(1)
    for (uint32_t j = qn_warp() * each; j < end; j += CONSUMERS / QN_LANES * each) {
        /* Of halves there is one pair of strips, and j is below n / 4. */
        const uint32_t k = j / (n / 2) << is_pair;
        const uint32_t i = j % (n / 2);
        const float *from = sums + (k * n_sums + i) * QN_LANES;
        float value[4];
        float up[4];
        add_parts(value, from, n_parts, part_size, each);
        if (is_pair != 0) {
            add_parts(up, from + n_sums * QN_LANES, n_parts, part_size, each);
        }
        put(b, to, strip + k, first + i, value, up, each);
    }
}

QN_DEV void consume_columns(const few_block *b, const uint32_t n, const uint32_t kind)
{
    const uint32_t n_items = b->args->n_across * b->args->product.n_groups;
    few_place place = {0};
    QN_UNROLL(1)
    for (uint32_t item = first_item(b); item < n_items; item += b->args->n_clusters) {
        float d[ROWS_MAX / 2];
        multiply(d, b, &place, n, kind);
        const few_goal to = goal_of(b, item);
        if (b->args->n_parts > 1) {
            join(d, b, to, n);
            return; /* the launcher gives a cluster no more than one */
        }
        QN_UNROLL(8)
        for (uint32_t i = 0; i < n / 2; i += 4) {
            store(b, to, i, d);
        }
    }
}

QN_DEV void consume(const few_block *b, const uint32_t kind)
{
    const uint32_t n = columns_of(b);
    qn_await_earlier();
    if (n == 8) {
        consume_columns(b, 8, kind);
    } else if (n == 16) {
        consume_columns(b, 16, kind);
    } else if (n == 32) {
        consume_columns(b, 32, kind);
    } else {
        consume_columns(b, 64, kind);
    }
}

QN_DEV void run(const qn_gpu_few_args *args, uint64_t maps, const uint32_t kind)
{
    QN_SHARED(uint64_t, bars, 2 * STAGES_MAX + 1);
    QN_SHARED(float, up, CONSUMERS);
    uint8_t *shared = qn_dynamic_shared();
    shared += (1024 - qn_shared_address(shared) % 1024) % 1024;
    const uint32_t full = qn_shared_address(bars);
    const uint32_t rank = qn_block_x() % args->n_parts;
    const few_block b = {.args = args,
                         .maps = maps,
                         .kind = kind,
                         .n_stages = begin_of(args, rank + 1) - begin_of(args, rank),
                         .up = up,
                         .stages = shared,
                         .full = full,
                         .empty = full + 8 * STAGES_MAX,
                         .sent = full + 16 * STAGES_MAX};
    if (qn_thread() == CONSUMERS) {
        qn_prefetch_map(maps + __builtin_offsetof(qn_gpu_few_args, tiles_map));
        qn_prefetch_map(maps + __builtin_offsetof(qn_gpu_few_args, x_map));
        if (kind != QN_GPU_W_BF16) {
            qn_prefetch_map(maps + __builtin_offsetof(qn_gpu_few_args, scales_map));
        }
    } else if (qn_thread() == 0) {
        for (uint32_t i = 0; i < STAGES_MAX; i++) {
            qn_mbar_init(b.full + 8 * i, 2 /* weights, rows */);
            qn_mbar_init(b.empty + 8 * i, CONSUMERS / QN_LANES);
        }
        qn_mbar_init(b.sent, 1);
        qn_mbar_expect(b.sent, columns_of(&b) / 2 * STRIPS * QN_LANES * 4);
        qn_mbar_init_fence();
    }
    qn_barrier();
    if (qn_thread() < CONSUMERS) {
        consume(&b, kind);
    } else if (qn_thread() == CONSUMERS) {
        produce(&b);
    }
}

QN_GPU_KERNEL(few_bf16)
{
    run(args, QN_ARGUMENTS(few_bf16), QN_GPU_W_BF16);
}

QN_GPU_KERNEL(few_fp8)
{
    run(args, QN_ARGUMENTS(few_fp8), QN_GPU_W_FP8);
}

QN_GPU_KERNEL(few_mxfp4)
{
    run(args, QN_ARGUMENTS(few_mxfp4), QN_GPU_W_MXFP4);
}
