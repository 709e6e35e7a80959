/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with few rows, bound by reading weights: mma.m16n8k16 with weights as A, rows as B.
 *
 * A block of 8 warps takes items, one after another: a group's strips side by side, along all its
 * inputs or one split of them. Two strips are a warp's, and units of 64 inputs (32 of bf16) of them
 * in turn: warp w has pair w % n_side and every unit whose number is w / n_side modulo 8 / n_side.
 * Stages, each one unit of every warp and the rows' inputs of these units, arrive by cp.async in a
 * ring that runs ahead across items. Weights are expanded once, in registers, for up to 64 rows.
 *
 * A row's sums are in one order for a shape and its launch, whatever the other rows: the warp's
 * units, then warps, then splits, which the last block to arrive adds.
 */
#include "kernels/gpu/epilogue.h"
#include "kernels/gpu/expand.h"

enum {
    N_THREADS = 256,
    N_WARPS = N_THREADS / 32,
    STEPS_MAX = 4,               /* of a unit */
    SUM_STRIDE = 36,             /* floats from one row of a warp's sums to the next */
    SUM_FLOATS = 8 * SUM_STRIDE, /* 8 rows of 32 outputs */
};

/* What is known when a kernel is compiled. */
typedef struct mma_kind {
    uint32_t kind;
    uint32_t n_tiles;     /* of a strip's unit */
    uint32_t n_steps;     /* of 16 inputs */
    uint32_t scale_bytes; /* of a strip and unit */
    uint32_t n_stages;
    uint32_t n_columns; /* rows / 8 at most */
} mma_kind;

/* The same for all threads of a block. */
typedef struct mma_block {
    const qn_gpu_matmul_args *args;
    uint32_t log_k;       /* 2^log_k warps along the inputs */
    uint32_t n_units;     /* of a strip */
    uint32_t split_units; /* of a split, but for the last */
    uint32_t n_strips;    /* of a group */
    uint32_t n_blocks;    /* of strips side by side */
    uint32_t n_items;
    uint32_t row_bytes; /* of a row in a stage */
    uint32_t stage_bytes;
    uint32_t x_at; /* where a stage's rows are */
    uint64_t strip_bytes, strip_scale_bytes;
    uint8_t *ring;
    float *sums; /* [N_WARPS][SUM_FLOATS] */
} mma_block;

/* A place in the block's work: a stage of a pass over some slots of an item. */
typedef struct mma_place {
    uint32_t item; /* n_items or more: the end */
    uint32_t group, strip, split;
    uint32_t unit, unit_first, unit_end; /* unit: of the first warps */
    uint32_t slot, slot_first, slot_end; /* slot: of the pass; the others of the group */
} mma_place;

QN_DEV uint32_t side_of(const mma_block *b)
{
    return qn_warp() & ((N_WARPS >> b->log_k) - 1);
}

QN_DEV uint32_t k_of(const mma_block *b)
{
    return qn_warp() >> (3 - b->log_k);
}

/* Has this warp a unit in the stage? */
QN_DEV bool has_unit(const mma_block *b, const mma_place *p)
{
    return p->unit + k_of(b) < p->unit_end && p->strip + 2 * side_of(b) < b->n_strips;
}

/* Rows of the pass. */
QN_DEV uint32_t rows_of(const mma_block *b, const mma_place *p)
{
    return qn_min_u32(b->args->n_pass, p->slot_end - p->slot);
}

/* The first item from p->item on that has slots. */
QN_DEV void begin_item(const mma_block *b, mma_place *p)
{
    const qn_gpu_matmul_args *args = b->args;
    QN_UNROLL(1)
    for (; p->item < b->n_items; p->item += qn_blocks_x()) {
        const uint32_t rest = p->item / b->n_blocks;
        const uint32_t rank = rest / args->n_splits;
        p->strip = (p->item % b->n_blocks) << (4 - b->log_k);
        p->split = rest % args->n_splits;
        p->group = args->active != NULL ? args->active[rank] : rank;
        p->slot_first = args->first_of != NULL ? args->first_of[p->group] : 0;
        p->slot_end = args->first_of != NULL ? args->first_of[p->group + 1] : args->n_rows;
        p->slot = p->slot_first;
        p->unit_first = p->split * b->split_units;
        p->unit_end = qn_min_u32(p->unit_first + b->split_units, b->n_units);
        p->unit = p->unit_first;
        if (p->slot < p->slot_end) {
            return;
        }
    }
}

/* Is the stage at hand the last one of its pass? */
QN_DEV bool ends_pass(const mma_block *b, const mma_place *p)
{
    return p->unit + (1U << b->log_k) >= p->unit_end;
}

QN_DEV bool ends_item(const mma_block *b, const mma_place *p)
{
    return p->slot + b->args->n_pass >= p->slot_end;
}

QN_DEV void advance(const mma_block *b, mma_place *p)
{
    if (!ends_pass(b, p)) {
        p->unit += 1U << b->log_k;
    } else if (!ends_item(b, p)) {
        p->unit = p->unit_first;
        p->slot += b->args->n_pass;
    } else {
        p->item += qn_blocks_x();
        begin_item(b, p);
    }
}

/* The rows' inputs of a stage. */
QN_DEV void copy_rows(const mma_block *b, const mma_place *p, mma_kind kind, uint8_t *stage)
{
    const qn_gpu_matmul_args *args = b->args;
    const uint32_t log_row = b->log_k + (kind.n_steps == 4 ? 3 : 2); /* 16 bytes each */
    const uint32_t n = rows_of(b, p) << log_row;
    const uint16_t *x = args->x + p->group * args->x_group_stride;
    QN_UNROLL(1)
    for (uint32_t i = qn_thread(); i < n; i += N_THREADS) {
        const uint32_t row = i >> log_row;
        const uint32_t at = i & ((1U << log_row) - 1);
        const uint32_t k = p->unit * kind.n_steps * 16 + 8 * at;
        const uint32_t n_left = k < args->w.n_in ? args->w.n_in - k : 0;
        const uint64_t from = args->row_of != NULL ? args->row_of[p->slot + row] : p->slot + row;
        qn_copy_16(stage + b->x_at + row * b->row_bytes + 16 * at,
                   x + from * args->x_stride + (n_left > 0 ? k : 0), qn_min_u32(2 * n_left, 16));
    }
}

/* Begin to copy a stage. */
QN_DEV void copy_stage(const mma_block *b, const mma_place *p, mma_kind kind, uint8_t *stage)
{
    const qn_gpu_weight *w = &b->args->w;
    if (p->item >= b->n_items) {
        return;
    }
    copy_rows(b, p, kind, stage);
    if (!has_unit(b, p)) {
        return;
    }
    const uint32_t unit = p->unit + k_of(b);
    const uint32_t strip = p->strip + 2 * side_of(b);
    const uint32_t unit_bytes = kind.n_tiles * QN_TILE_BYTES;
    const uint8_t *data = w->data + p->group * w->data_stride + strip * b->strip_bytes +
                          (uint64_t)unit * unit_bytes + 16 * qn_lane();
    uint8_t *to = stage + qn_warp() * 2 * unit_bytes + 16 * qn_lane();
    QN_UNROLL(4)
    for (uint32_t i = 0; i < 2 * kind.n_tiles; i++) {
        const uint32_t tile = i % kind.n_tiles * QN_TILE_BYTES;
        qn_copy_16(to + QN_TILE_BYTES * i, data + (i < kind.n_tiles ? 0 : b->strip_bytes) + tile,
                   16);
    }
    const uint32_t n_each = kind.scale_bytes / 16;
    if (qn_lane() < 2 * n_each) {
        const uint32_t i_strip = qn_lane() / n_each;
        const uint32_t place = kind.kind == QN_GPU_W_FP8 ? unit / 2 : unit;
        qn_copy_16(
            stage + N_WARPS * 2 * unit_bytes + qn_warp() * 2 * kind.scale_bytes + 16 * qn_lane(),
            w->scales + p->group * w->scales_stride + (strip + i_strip) * b->strip_scale_bytes +
                place * kind.scale_bytes + 16 * (qn_lane() % n_each),
            16);
    }
}

/* Fragments of a strip's unit; scales of outputs g and g + 8 where sums take them (FP8). */
QN_DEV void expand_unit(uint32_t a[STEPS_MAX][4], float scales[2], mma_kind kind,
                        const uint8_t *tiles, const uint8_t *strip_scales)
{
    const uint32_t g = qn_lane() / 4;
    const uint32_t word = kind.kind == QN_GPU_W_MXFP4 ? ((const uint32_t *)strip_scales)[g] : 0;
    QN_UNROLL(2)
    for (uint32_t i = 0; i < kind.n_tiles; i++) {
        qn_expand_tile(a + i * qn_tile_steps(kind.kind), kind.kind,
                       qn_load_16(tiles + i * QN_TILE_BYTES), word);
    }
    if (kind.kind == QN_GPU_W_FP8) {
        const f32x2 pair = ((const f32x2 *)strip_scales)[g];
        scales[0] = pair.x;
        scales[1] = pair.y;
    }
}

/* Add the products of the warp's unit of a stage. */
QN_DEV void multiply_stage(float sums[][8][4], const mma_block *b, const mma_place *p,
                           mma_kind kind, const uint8_t *stage)
{
    if (!has_unit(b, p)) {
        return;
    }
    uint32_t a[2][STEPS_MAX][4];
    float scales[2][2];
    const uint32_t unit_bytes = kind.n_tiles * QN_TILE_BYTES;
    const uint8_t *tiles = stage + qn_warp() * 2 * unit_bytes + 16 * qn_lane();
    const uint8_t *at = stage + N_WARPS * 2 * unit_bytes + qn_warp() * 2 * kind.scale_bytes;
    expand_unit(a[0], scales[0], kind, tiles, at);
    expand_unit(a[1], scales[1], kind, tiles + unit_bytes, at + kind.scale_bytes);
    const uint32_t n_rows = rows_of(b, p);
    const uint8_t *x = stage + b->x_at + qn_lane() % 8 * b->row_bytes +
                       k_of(b) * kind.n_steps * 32 + qn_lane() / 8 * 16;
    QN_UNROLL(8)
    for (uint32_t j = 0; j < kind.n_columns; j++) {
        if (8 * j >= n_rows) {
            break;
        }
        uint32_t rows[2 * STEPS_MAX];
        QN_UNROLL(2)
        for (uint32_t i = 0; i < kind.n_steps / 2; i++) {
            qn_ldmatrix(rows + 4 * i, x + 8 * j * b->row_bytes + 64 * i);
        }
        QN_UNROLL(2)
        for (uint32_t s = 0; s < 2; s++) {
            float part[4] = {0, 0, 0, 0};
            QN_UNROLL(4)
            for (uint32_t i = 0; i < kind.n_steps; i++) {
                qn_mma_bf16(kind.kind == QN_GPU_W_FP8 ? part : sums[s][j], a[s][i], rows + 2 * i);
            }
            QN_UNROLL(4)
            for (uint32_t i = 0; i < 4 && kind.kind == QN_GPU_W_FP8; i++) {
                sums[s][j][i] = qn_fma(scales[s][i / 2], part[i], sums[s][j][i]);
            }
        }
    }
}

/* Where a split's sums of a slot are. */
QN_DEV float *partial_of(const mma_block *b, const mma_place *p, uint32_t split, uint32_t slot)
{
    const qn_gpu_matmul_args *args = b->args;
    const uint64_t n_out = (uint64_t)b->n_blocks << (8 - b->log_k);
    const uint64_t n_slots = (uint64_t)args->n_rows * (args->first_of != NULL ? 1 : args->n_groups);
    const uint64_t row = (args->first_of != NULL ? 0 : (uint64_t)p->group * args->n_rows) + slot;
    return args->partial + QN_GPU_COUNTERS_BYTES / 4 + (split * n_slots + row) * n_out;
}

/* Sum of one output of one of 8 rows over the warps along the inputs. */
QN_DEV float sum_of(const mma_block *b, uint32_t side, uint32_t row, uint32_t out)
{
    const float *sums = b->sums + side * SUM_FLOATS + row * SUM_STRIDE + out;
    float sum = sums[0];
    QN_UNROLL(1)
    for (uint32_t k = 1; k < 1U << b->log_k; k++) {
        sum += sums[k * SUM_FLOATS << (3 - b->log_k)];
    }
    return sum;
}

/* 8 rows from slot on, which all warps have in b->sums: to y, or to the split's part. */
QN_DEV void finish_rows(const mma_block *b, const mma_place *p, uint32_t slot)
{
    const qn_gpu_matmul_args *args = b->args;
    const bool is_pair = args->w.is_pair != 0 && args->n_splits == 1;
    const uint32_t log_out = is_pair ? 4 : 5;
    const uint32_t n = N_WARPS >> b->log_k << (log_out + 3);
    QN_UNROLL(1)
    for (uint32_t i = qn_thread(); i < n; i += N_THREADS) {
        const uint32_t out = i & ((1U << log_out) - 1);
        const uint32_t row = i >> log_out & 7;
        const uint32_t side = i >> (log_out + 3);
        if (slot + row >= p->slot_end) {
            continue;
        }
        const float sum = sum_of(b, side, row, out);
        if (args->n_splits > 1) {
            partial_of(b, p, p->split, slot + row)[(p->strip + 2 * side) * 16 + out] = sum;
        } else {
            const float up = is_pair ? sum_of(b, side, row, out + 16) : 0;
            const uint32_t strip = is_pair ? p->strip / 2 + side : p->strip + 2 * side;
            qn_put(args, p->group, slot + row, strip * 16 + out, sum, up);
        }
    }
}

/* All splits of an item are there: their sums, in order, to y. */
QN_DEV void join_splits(const mma_block *b, const mma_place *p)
{
    const qn_gpu_matmul_args *args = b->args;
    const bool is_pair = args->w.is_pair != 0;
    const uint32_t log_out = 8 - b->log_k;
    const uint32_t n = (p->slot_end - p->slot_first) << log_out;
    QN_UNROLL(1)
    for (uint32_t i = qn_thread(); i < n; i += N_THREADS) {
        const uint32_t out = p->strip * 16 + (i & ((1U << log_out) - 1));
        const uint32_t slot = p->slot_first + (i >> log_out);
        if (is_pair && (out & 16) != 0) {
            continue; /* up, which gate's thread takes */
        }
        float sum = 0;
        float up = 0;
        QN_UNROLL(1)
        for (uint32_t s = 0; s < args->n_splits; s++) {
            const float *part = partial_of(b, p, s, slot) + out;
            sum += part[0];
            up += is_pair ? part[16] : 0;
        }
        qn_put(args, p->group, slot, is_pair ? out / 32 * 16 + out % 16 : out, sum, up);
    }
}

/* The end of an item: the last of its splits adds them all. */
QN_DEV void finish_splits(const mma_block *b, const mma_place *p)
{
    uint32_t *counters = (uint32_t *)b->args->partial;
    uint32_t *shared = (uint32_t *)b->sums;
    const uint32_t i_last = b->args->n_splits - 1;
    qn_fence();
    qn_barrier();
    if (qn_thread() == 0) {
        const uint32_t i_block = p->strip >> (4 - b->log_k);
        *shared = qn_atomic_inc(counters + p->group * b->n_blocks + i_block, i_last);
    }
    qn_barrier();
    const bool is_last = *shared == i_last;
    qn_barrier();
    if (is_last) {
        qn_fence();
        join_splits(b, p);
    }
}

/* The end of a pass: sums over the warps along the inputs, 8 rows at a time, and the epilogue. */
QN_DEV void finish_pass(float sums[][8][4], const mma_block *b, const mma_place *p, mma_kind kind)
{
    const uint32_t n_rows = rows_of(b, p);
    float *mine = b->sums + qn_warp() * SUM_FLOATS + qn_lane() % 4 * 2 * SUM_STRIDE + qn_lane() / 4;
    QN_UNROLL(8)
    for (uint32_t j = 0; j < kind.n_columns; j++) {
        if (8 * j >= n_rows) {
            break;
        }
        QN_UNROLL(2)
        for (uint32_t s = 0; s < 2; s++) {
            QN_UNROLL(4)
            for (uint32_t i = 0; i < 4; i++) {
                mine[i % 2 * SUM_STRIDE + i / 2 * 8 + 16 * s] = sums[s][j][i];
                sums[s][j][i] = 0;
            }
        }
        qn_barrier();
        finish_rows(b, p, p->slot + 8 * j);
        qn_barrier();
    }
    if (b->args->n_splits > 1 && ends_item(b, p)) {
        finish_splits(b, p);
    }
}

QN_DEV mma_block make_block(const qn_gpu_matmul_args *args, mma_kind kind)
{
    mma_block b = {.args = args};
    b.log_k = 3 - args->log_strips;
    b.n_units = qn_tile_pad(args->w.n_in) / (16 * kind.n_steps);
    b.split_units = (b.n_units + args->n_splits - 1) / args->n_splits;
    b.split_units = (b.split_units + (1U << b.log_k) - 1) >> b.log_k << b.log_k;
    b.n_strips = qn_tile_strips(args->w.n_out) << (args->w.is_pair != 0 ? 1 : 0);
    b.n_blocks = (b.n_strips + (2U << args->log_strips) - 1) >> (1 + args->log_strips);
    b.n_items =
        b.n_blocks * args->n_splits * (args->n_active != NULL ? args->n_active[0] : args->n_groups);
    b.row_bytes = (kind.n_steps * 32 << b.log_k) + 16;
    b.x_at = N_WARPS * 2 * (kind.n_tiles * QN_TILE_BYTES + kind.scale_bytes);
    b.stage_bytes = b.x_at + args->n_pass * b.row_bytes;
    b.strip_bytes = qn_tile_strip_bytes(kind.kind, args->w.n_in);
    b.strip_scale_bytes = qn_tile_strip_scale_bytes(kind.kind, args->w.n_in);
    b.sums = (float *)qn_dynamic_shared();
    b.ring = qn_dynamic_shared() + N_WARPS * SUM_FLOATS * 4;
    return b;
}

QN_DEV void wait_for_stage(mma_kind kind)
{
    if (kind.n_stages == 6) {
        qn_copy_wait(4);
    } else {
        qn_copy_wait(2);
    }
    qn_barrier();
}

QN_DEV void multiply(const qn_gpu_matmul_args *args, mma_kind kind)
{
    const mma_block b = make_block(args, kind);
    float sums[2][8][4] = {0};
    mma_place ahead = {.item = qn_block_x()};
    begin_item(&b, &ahead);
    mma_place p = ahead;
    QN_UNROLL(1)
    for (uint32_t i = 0; i < kind.n_stages - 1; i++) {
        copy_stage(&b, &ahead, kind, b.ring + i * b.stage_bytes);
        qn_copy_commit();
        if (ahead.item < b.n_items) {
            advance(&b, &ahead);
        }
    }
    uint32_t at = 0;
    uint32_t at_ahead = (kind.n_stages - 1) * b.stage_bytes;
    QN_UNROLL(1)
    while (p.item < b.n_items) {
        wait_for_stage(kind);
        copy_stage(&b, &ahead, kind, b.ring + at_ahead);
        qn_copy_commit();
        multiply_stage(sums, &b, &p, kind, b.ring + at);
        if (ends_pass(&b, &p)) {
            finish_pass(sums, &b, &p, kind);
        }
        if (ahead.item < b.n_items) {
            advance(&b, &ahead);
        }
        advance(&b, &p);
        at_ahead = at;
        at += b.stage_bytes;
        at = at == kind.n_stages * b.stage_bytes ? 0 : at;
    }
    qn_copy_wait(0);
}

#define MMA_BF16(n_columns)  ((mma_kind){QN_GPU_W_BF16, 2, 2, 0, 4, n_columns})
#define MMA_FP8(n_columns)   ((mma_kind){QN_GPU_W_FP8, 2, 4, 64, 4, n_columns})
#define MMA_MXFP4(n_columns) ((mma_kind){QN_GPU_W_MXFP4, 1, 4, 32, 6, n_columns})

QN_GPU_KERNEL(mma_bf16)
{
    multiply(args, MMA_BF16(2));
}

QN_GPU_KERNEL(mma_bf16_wide)
{
    multiply(args, MMA_BF16(8));
}

QN_GPU_KERNEL(mma_fp8)
{
    multiply(args, MMA_FP8(2));
}

QN_GPU_KERNEL(mma_fp8_wide)
{
    multiply(args, MMA_FP8(8));
}

QN_GPU_KERNEL(mma_mxfp4)
{
    multiply(args, MMA_MXFP4(2));
}

QN_GPU_KERNEL(mma_mxfp4_wide)
{
    multiply(args, MMA_MXFP4(8));
}
