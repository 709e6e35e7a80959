/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of up to 64 rows, but of experts, by wgmma, bound by reading weights: weights are the
 * 64-row operand, which a warp expands from its strip into registers, rows of x are columns.
 *
 * An item is 8 strips along all inputs.  Stages of all items, one behind the other, are dealt to
 * blocks in equal runs, so that all multiprocessors have the same to read; where a run ends within
 * an item, the block that comes last adds the parts of the item in their order.
 *
 *   warps 0 .. 7   two warpgroups, of 4 strips each
 *   warps 8 .. 11  fill a ring of stages: of each strip 2048 bytes of tiles in one copy (64 inputs
 *                  of bf16, 128 of FP8, 256 of MXFP4), and the rows of x for them
 *
 * The launch is a dependent one: weights, which nobody writes, fill the ring before the wait for
 * earlier launches.
 */
#include "kernels/gpu/epilogue.h"
#include "kernels/gpu/expand.h"
#include "kernels/gpu/sm90/wgmma.h"

enum {
    STRIPS = 8, /* of an item */
    TILES = 4,  /* of a strip in a stage */
    TILES_BYTES = STRIPS * TILES * QN_TILE_BYTES,
    SCALES_BYTES = STRIPS * TILES * QN_TILE_SCALE_BYTES, /* of MXFP4 */
    ROWS_MAX = 64,
    STAGES_MAX = 12,
    CONSUMERS = 256,
    PRODUCERS = 128,
    JOIN = 1,                /* the barrier of all consumers */
    PRODUCER_REGISTERS = 72, /* as in matmul_wgmma.c */
    CONSUMER_REGISTERS = 216,
    BLOCK_REGISTERS = (PRODUCERS + CONSUMERS) * 168,
    TAKEN_REGISTERS = PRODUCERS * PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS,
    UP_BYTES = CONSUMERS / 2 * ROWS_MAX * 2, /* of a pair: sums that warps of up hand over */
};
_Static_assert(TAKEN_REGISTERS <= BLOCK_REGISTERS, "setmaxnreg must not wait");

/* The same for all threads of a block. */
typedef struct few_block {
    const qn_gpu_matmul_args *args;
    uint32_t kind;        /* a constant */
    uint32_t n;           /* columns: the rows, and what fills them up to 8, 16, 32 or 64 */
    uint32_t n_strips;    /* of a group */
    uint32_t n_across;    /* items of a group */
    uint32_t n_blocks;    /* of 64 inputs, of an item */
    uint32_t n_each;      /* stages of an item */
    uint32_t n_all;       /* stages of all items */
    uint32_t stage_bytes; /* rows of x, then tiles, then scales */
    uint32_t n_ring;      /* stages that there is room for */
    uint8_t *stages;      /* on 1024 bytes */
    float *up;            /* [ROWS_MAX / 2][CONSUMERS / 2] sums of up, a warp beside a warp */
    uint32_t *is_last;    /* [1] */
    uint32_t full, empty; /* barriers, one for each stage of the ring */
} few_block;

/* A stage of the block's run, and its place in the ring. */
typedef struct few_place {
    uint32_t at, end; /* among all stages: this one, and the run's end */
    uint32_t item, group, strip;
    uint32_t block, block_end; /* of 64 inputs, of which the run has these */
    uint32_t stage, parity;
} few_place;

/* Of 64 inputs, in a stage. */
QN_DEV uint32_t blocks_of(uint32_t kind)
{
    return TILES * qn_tile_in(kind) / 64;
}

QN_DEV uint32_t min_blocks(const few_block *b, const few_place *p)
{
    return qn_min_u32(blocks_of(b->kind), p->block_end - p->block);
}

QN_DEV few_block make_block(const qn_gpu_matmul_args *args, uint32_t kind, uint32_t bars,
                            uint32_t *is_last)
{
    uint8_t *shared = qn_dynamic_shared();
    shared += (1024 - qn_shared_address(shared) % 1024) % 1024;
    few_block b = {.args = args,
                   .kind = kind,
                   .n = args->n_rows <= 8    ? 8
                        : args->n_rows <= 16 ? 16
                        : args->n_rows <= 32 ? 32
                                             : 64,
                   .n_strips = qn_tile_strips(args->w.n_out) << (args->w.is_pair != 0 ? 1 : 0),
                   .n_blocks = qn_tile_pad(args->w.n_in) / 64,
                   .n_ring = args->n_pass,
                   .is_last = is_last,
                   .full = bars,
                   .empty = bars + 8 * STAGES_MAX};
    const uint32_t each = blocks_of(kind);
    b.n_across = (b.n_strips + STRIPS - 1) / STRIPS;
    b.n_each = (b.n_blocks + each - 1) / each;
    b.n_all = b.n_each * b.n_across * args->n_groups;
    b.stage_bytes = each * b.n * 128 + TILES_BYTES + (kind == QN_GPU_W_MXFP4 ? SCALES_BYTES : 0);
    b.up = (float *)shared;
    b.stages = shared + UP_BYTES;
    return b;
}

/* The first of all stages that block i has. */
QN_DEV uint32_t run_of(const few_block *b, uint32_t i)
{
    return i * b->n_all / qn_blocks_x();
}

/* The block that has a stage. */
QN_DEV uint32_t owner_of(const few_block *b, uint32_t stage)
{
    return ((stage + 1) * qn_blocks_x() - 1) / b->n_all;
}

/* What the run has of the item of its stage p->at. */
QN_DEV void begin_item(const few_block *b, few_place *p)
{
    const uint32_t each = blocks_of(b->kind);
    const uint32_t first = p->at % b->n_each;
    p->item = p->at / b->n_each;
    p->strip = p->item % b->n_across * STRIPS;
    p->group = p->item / b->n_across;
    p->block = first * each;
    p->block_end = qn_min_u32((first + p->end - p->at) * each, b->n_blocks);
}

QN_DEV few_place begin_run(const few_block *b)
{
    few_place p = {.at = run_of(b, qn_block_x()), .end = run_of(b, qn_block_x() + 1)};
    begin_item(b, &p);
    return p;
}

/* The next stage of the item's, which may be its end. */
QN_DEV void next_stage(const few_block *b, few_place *p)
{
    p->block += min_blocks(b, p);
    p->at++;
    p->stage++;
    if (p->stage == b->n_ring) {
        p->stage = 0;
        p->parity ^= 1;
    }
}

/* ------------------------------------------------------------------------------- producers -- */

/* Begin to copy a stage's tiles and scales. */
QN_DEV void copy_weights(const few_block *b, const few_place *p)
{
    const qn_gpu_weight *w = &b->args->w;
    const uint32_t bar = b->full + 8 * p->stage;
    const uint32_t first = p->block * 64 / qn_tile_in(b->kind); /* tile of a strip */
    const uint32_t n_tiles = min_blocks(b, p) * 64 / qn_tile_in(b->kind);
    const uint32_t n_scales = b->kind == QN_GPU_W_MXFP4 ? n_tiles * QN_TILE_SCALE_BYTES : 0;
    const uint32_t n_there = qn_min_u32(STRIPS, b->n_strips - p->strip);
    uint8_t *to = b->stages + p->stage * b->stage_bytes + blocks_of(b->kind) * b->n * 128;
    const uint32_t i = qn_thread() - CONSUMERS;
    if (i == 0) {
        qn_mbar_expect(bar, n_there * (n_tiles * QN_TILE_BYTES + n_scales));
    }
    if (i < n_there) {
        const uint64_t strip = p->strip + i;
        qn_copy_bulk(to + i * TILES * QN_TILE_BYTES,
                     w->data + p->group * w->data_stride +
                         strip * qn_tile_strip_bytes(b->kind, w->n_in) + first * QN_TILE_BYTES,
                     n_tiles * QN_TILE_BYTES, bar);
        if (n_scales > 0) {
            qn_copy_bulk(to + TILES_BYTES + i * TILES * QN_TILE_SCALE_BYTES,
                         w->scales + p->group * w->scales_stride +
                             strip * qn_tile_strip_scale_bytes(b->kind, w->n_in) +
                             first * QN_TILE_SCALE_BYTES,
                         n_scales, bar);
        }
    }
}

/* Begin to copy a stage's rows of x: 64 inputs of all rows are a matrix of wgmma.h. */
QN_DEV void copy_rows(const few_block *b, const few_place *p)
{
    const qn_gpu_matmul_args *args = b->args;
    const uint32_t n_blocks = min_blocks(b, p);
    const uint32_t chunk = qn_thread() % 8;
    const uint32_t first = (qn_thread() - CONSUMERS) / 8; /* then every sixteenth */
    const uint16_t *x = args->x + p->group * args->x_group_stride + first * args->x_stride;
    uint8_t *to = b->stages + p->stage * b->stage_bytes + first * 128 + ((chunk ^ first % 8) << 4);
    QN_UNROLL(1)
    for (uint32_t j = 0; j < n_blocks; j++) {
        const uint32_t at = (p->block + j) * 64 + chunk * 8;
        const uint32_t n_bytes = at < args->w.n_in ? 16 : 0;
        const uint16_t *from = x + (n_bytes == 0 ? 0 : at);
        QN_UNROLL(4)
        for (uint32_t k = 0; k < ROWS_MAX / 16; k++) {
            if (first + 16 * k < args->n_rows) {
                qn_copy_16(to + k * 2048, from + 16 * k * args->x_stride, n_bytes);
            }
        }
        to += b->n * 128;
    }
    qn_copy_arrive(b->full + 8 * p->stage);
}

QN_DEV void produce(const few_block *b)
{
    few_place p = begin_run(b);
    few_place ahead = p;
    QN_UNROLL(1)
    for (uint32_t i = 0; i < b->n_ring && ahead.at < ahead.end; i++) {
        copy_weights(b, &ahead);
        next_stage(b, &ahead);
        if (ahead.block == ahead.block_end) {
            begin_item(b, &ahead);
        }
    }
    qn_await_earlier();
    qn_release_later();
    p.parity = 1; /* of the first time around nothing is to be waited for */
    QN_UNROLL(1)
    for (uint32_t i = 0; p.at < p.end; i++) {
        if (i >= b->n_ring) {
            qn_mbar_wait(b->empty + 8 * p.stage, p.parity);
            copy_weights(b, &p);
        }
        copy_rows(b, &p);
        next_stage(b, &p);
        if (p.block == p.block_end) {
            begin_item(b, &p);
        }
    }
}

/* ------------------------------------------------------------------------------- consumers -- */

/* FP8: y = sum over blocks of m_i 2^e_i sum_i, as in matmul_wgmma.c; outputs g and g + 8. */
typedef struct units {
    const uint8_t *scales; /* of the lane */
    f32x2 next, m;
    uint32_t bias[2]; /* 2^(120 + e) twice */
} units;

QN_DEV void units_begin(units *u, const few_block *b, const few_place *p)
{
    const qn_gpu_weight *w = &b->args->w;
    const uint64_t strip = qn_min_u32(p->strip + qn_warp(), b->n_strips - 1);
    u->scales = w->scales + p->group * w->scales_stride +
                strip * qn_tile_strip_scale_bytes(QN_GPU_W_FP8, w->n_in) + qn_lane() / 4 * 8;
    u->m = (f32x2){1, 1};
    if (p->block < p->block_end) {
        u->next = *(const f32x2 *)(u->scales + p->block / 2 * 64);
    }
}

/* Before a stage, which has one scale for each output. */
QN_DEV void units_stage(units *u, float *d, const few_place *p, const uint32_t n)
{
    const f32x2 by = qn_fp8_next_units(&u->m, u->bias, u->next);
    if (p->block + 2 < p->block_end) {
        u->next = *(const f32x2 *)(u->scales + (p->block / 2 + 1) * 64);
    }
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        d[i] *= i % 4 < 2 ? by.x : by.y;
    }
}

/* The warp's strip of 64 inputs -> registers a of four steps. */
QN_DEV void expand(uint32_t a[4][4], const uint8_t *tiles, const uint8_t *scales, const units *u,
                   const uint32_t kind)
{
    u32x4 raw[4];
    QN_UNROLL(4)
    for (uint32_t i = 0; i < 64 / qn_tile_in(kind); i++) {
        raw[i] = qn_load_16(tiles + i * QN_TILE_BYTES + qn_lane() * 16);
    }
    const bool has_scales = kind == QN_GPU_W_MXFP4;
    qn_expand_64(a, kind, raw, has_scales ? *(const uint32_t *)(scales + qn_lane() / 4 * 4) : 0,
                 u->bias);
}

/* This warp has read the stage of a barrier; 0: there is none. */
QN_DEV void release(uint32_t empty)
{
    if (qn_lane() == 0 && empty != 0) {
        qn_mbar_arrive(empty);
    }
}

/* The products of a run's part of an item with n columns. */
QN_DEV void multiply(float *d, const few_block *b, few_place *p, const uint32_t n,
                     const uint32_t kind)
{
    units u = {0};
    if (kind == QN_GPU_W_FP8) {
        units_begin(&u, b, p);
    }
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        d[i] = 0;
    }
    uint32_t before = 0; /* barrier of the stage that products may still read */
    QN_UNROLL(1)
    while (p->block < p->block_end) {
        const uint8_t *stage = b->stages + p->stage * b->stage_bytes;
        const uint8_t *tiles =
            stage + blocks_of(kind) * n * 128 + qn_warp() * TILES * QN_TILE_BYTES;
        const uint8_t *scales = stage + blocks_of(kind) * n * 128 + TILES_BYTES +
                                qn_warp() * TILES * QN_TILE_SCALE_BYTES;
        const uint32_t n_blocks = min_blocks(b, p);
        if (kind == QN_GPU_W_FP8) {
            units_stage(&u, d, p, n);
        }
        qn_mbar_wait(b->full + 8 * p->stage, p->parity);
        qn_fence_async_shared();
        /*
         * Registers of A may be written again two groups later.  Blocks of a stage have their own;
         * where a stage is one block, those of the stage before are its too.
         */
        if (blocks_of(kind) == 1) {
            qn_wgmma_wait(0);
            release(before);
        }
        QN_UNROLL(4)
        for (uint32_t j = 0; j < blocks_of(kind); j++) {
            if (j >= n_blocks) {
                continue;
            }
            const uint64_t x = qn_wgmma_matrix(qn_shared_address(stage + j * n * 128));
            uint32_t a[4][4];
            expand(a, tiles + j * 64 / qn_tile_in(kind) * QN_TILE_BYTES,
                   scales + j * QN_TILE_SCALE_BYTES, &u, kind);
            qn_wgmma_fence();
            QN_UNROLL(4)
            for (uint32_t i = 0; i < 4; i++) {
                qn_wgmma_bf16(d, a[i], x + 2 * i, n);
            }
            qn_wgmma_commit();
            qn_wgmma_wait(1); /* registers of the block before are free */
            if (j == 0 && kind == QN_GPU_W_MXFP4) {
                release(before);
            }
        }
        before = b->empty + 8 * p->stage;
        if (kind == QN_GPU_W_FP8) { /* the next scales change all sums */
            qn_wgmma_wait(0);
            release(before);
            before = 0;
        }
        next_stage(b, p);
    }
    qn_wgmma_wait(0);
    release(before);
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        d[i] *= kind != QN_GPU_W_FP8 ? 1 : i % 4 < 2 ? u.m.x : u.m.y;
    }
}

/* Row of x, and output among the warp's strip, of d[i]. */
QN_DEV uint32_t row_at(uint32_t i)
{
    return i / 4 * 8 + qn_lane() % 4 * 2 + i % 2;
}

QN_DEV uint32_t out_at(uint32_t i)
{
    return i / 2 % 2 * 8 + qn_lane() / 4;
}

/* How far sums of d[i] lie behind those of d[0]. */
QN_DEV uint64_t offset_at(uint32_t i, uint64_t n_out)
{
    return (i / 4 * 8 + i % 2) * n_out + i / 2 % 2 * 8;
}

/*
 * The parts of an item: each leaves its sums in memory, and who comes last adds all in their order.
 * False where this is another one.
 */
QN_DEV bool join(float *d, const few_block *b, const few_place *p, const uint32_t n)
{
    const qn_gpu_matmul_args *args = b->args;
    const uint32_t first = owner_of(b, p->item * b->n_each);
    const uint32_t n_parts = owner_of(b, (p->item + 1) * b->n_each - 1) - first + 1;
    if (n_parts == 1) {
        return true;
    }
    const uint64_t n_out = (uint64_t)b->n_across * STRIPS * QN_TILE_OUT;
    const uint64_t part = (uint64_t)args->n_rows * args->n_groups * n_out;
    float *sums = args->partial + QN_GPU_COUNTERS_BYTES / 4 +
                  ((uint64_t)p->group * args->n_rows + row_at(0)) * n_out +
                  (p->strip + qn_warp()) * QN_TILE_OUT + out_at(0);
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        if (row_at(i) < args->n_rows) {
            sums[(qn_block_x() - first) * part + offset_at(i, n_out)] = d[i];
        }
    }
    qn_fence();
    qn_barrier_of(JOIN, CONSUMERS);
    if (qn_thread() == 0) {
        uint32_t *counters = (uint32_t *)args->partial;
        *b->is_last = qn_atomic_inc(counters + p->item, n_parts - 1) == n_parts - 1;
    }
    qn_barrier_of(JOIN, CONSUMERS);
    if (*b->is_last == 0) {
        return false;
    }
    qn_fence();
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        d[i] = 0;
    }
    const uint32_t n_at_once = n < 64 ? 4 : 1; /* reads wait for memory; 64 are enough */
    QN_UNROLL(1)
    for (uint32_t k = 0; k < n_parts; k += n_at_once) {
        float v[64];
        QN_UNROLL(64)
        for (uint32_t i = 0; i < n_at_once * n / 2; i++) {
            const uint32_t at = i % (n / 2);
            const bool is_there = k + i / (n / 2) < n_parts && row_at(at) < args->n_rows;
            v[i] = is_there ? sums[(k + i / (n / 2)) * part + offset_at(at, n_out)] : 0;
        }
        QN_UNROLL(64)
        for (uint32_t i = 0; i < n_at_once * n / 2; i++) {
            d[i % (n / 2)] += v[i];
        }
    }
    return true;
}

QN_DEV void store(const float *d, const few_block *b, const few_place *p, const uint32_t n)
{
    const qn_gpu_matmul_args *args = b->args;
    if (args->w.is_pair == 0) {
        QN_UNROLL(32)
        for (uint32_t i = 0; i < n / 2; i++) {
            if (row_at(i) < args->n_rows) {
                qn_put(args, p->group, row_at(i), (p->strip + qn_warp()) * QN_TILE_OUT + out_at(i),
                       d[i], 0);
            }
        }
        return;
    }
    /* Warps by turns have strips of gate and of up. */
    float *up = b->up + qn_warp() / 2 * QN_LANES + qn_lane();
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        if (qn_warp() % 2 == 1) {
            up[i * CONSUMERS / 2] = d[i];
        }
    }
    qn_barrier_of(JOIN, CONSUMERS);
    QN_UNROLL(32)
    for (uint32_t i = 0; i < n / 2; i++) {
        if (qn_warp() % 2 == 0 && row_at(i) < args->n_rows) {
            qn_put(args, p->group, row_at(i), (p->strip + qn_warp()) / 2 * QN_TILE_OUT + out_at(i),
                   d[i], up[i * CONSUMERS / 2]);
        }
    }
    qn_barrier_of(JOIN, CONSUMERS);
}

QN_DEV void consume_columns(const few_block *b, const uint32_t n, const uint32_t kind)
{
    few_place p = begin_run(b);
    QN_UNROLL(1)
    while (p.at < p.end) {
        float d[ROWS_MAX / 2];
        begin_item(b, &p);
        multiply(d, b, &p, n, kind);
        if (join(d, b, &p, n)) {
            store(d, b, &p, n);
        }
    }
}

QN_DEV void consume(const few_block *b, const uint32_t kind)
{
    qn_await_earlier();
    if (b->n == 8) {
        consume_columns(b, 8, kind);
    } else if (b->n == 16) {
        consume_columns(b, 16, kind);
    } else if (b->n == 32) {
        consume_columns(b, 32, kind);
    } else {
        consume_columns(b, 64, kind);
    }
}

QN_DEV void run(const qn_gpu_matmul_args *args, const uint32_t kind)
{
    QN_SHARED(uint64_t, bars, 2 * STAGES_MAX);
    QN_SHARED(uint32_t, is_last, 1);
    const few_block b = make_block(args, kind, qn_shared_address(bars), is_last);
    if (qn_thread() == 0) {
        for (uint32_t i = 0; i < STAGES_MAX; i++) {
            qn_mbar_init(b.full + 8 * i, PRODUCERS + 1);
            qn_mbar_init(b.empty + 8 * i, CONSUMERS / QN_LANES);
        }
        qn_mbar_init_fence();
    }
    qn_barrier();
    if (qn_thread() >= CONSUMERS) {
        qn_registers_shrink(PRODUCER_REGISTERS);
        produce(&b);
    } else {
        qn_registers_grow(CONSUMER_REGISTERS);
        consume(&b, kind);
    }
}

QN_GPU_KERNEL(few_bf16)
{
    run(args, QN_GPU_W_BF16);
}

QN_GPU_KERNEL(few_fp8)
{
    run(args, QN_GPU_W_FP8);
}

QN_GPU_KERNEL(few_mxfp4)
{
    run(args, QN_GPU_W_MXFP4);
}
