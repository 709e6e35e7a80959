/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with few rows, bound by reading weights: mma.m16n8k16 with weights as A, rows as B.
 *
 * A block of 8 warps takes items, one after another: a group's strips side by side, along all its
 * inputs or one split of them. Two strips are a warp's, and units of their inputs in turn: warp w
 * has pair w % n_side and every unit whose number is w / n_side modulo 8 / n_side. Stages, each one
 * unit of every warp and the rows' inputs of these units, arrive by cp.async in a ring that runs
 * ahead across items. Weights are expanded once, in registers, for up to 64 rows.
 *
 * A row's sums are in one order for a shape and its launch, whatever the other rows: the warp's
 * units, then warps, then splits, which the last block to arrive adds.
 *
 * A dependent launch fills its ring with weights, which nobody writes, before it waits for earlier
 * launches. All else comes after the wait: x, y, partial sums and their counters, which the last
 * block of an earlier launch has reset by then, so that launches behind each other share them.
 */
#include "kernels/gpu/epilogue.h"
#include "kernels/gpu/expand.h"

enum {
    N_THREADS = 256,
    N_WARPS = N_THREADS / 32,
    N_STAGES = 4,
    SUM_STRIDE = 36,             /* floats from one row of a warp's sums to the next */
    SUM_FLOATS = 8 * SUM_STRIDE, /* 8 rows of 32 outputs */
};

/* What is known when a kernel is compiled. */
typedef struct mma_kind {
    uint32_t kind;
    uint32_t unit;        /* inputs of a warp in a stage */
    uint32_t scale_bytes; /* of a strip and unit */
    uint32_t n_few;       /* columns of 8 rows where that is enough, ... */
    uint32_t n_many;      /* ... else this many */
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
    uint32_t unit_bytes;                /* of a strip */
    uint32_t scales_at, x_at;           /* in a stage */
    uint32_t n_tiles;                   /* of a strip */
    uint32_t strip_bytes, scales_bytes; /* of a strip's tiles and scales */
    uint8_t *ring;
    float *sums; /* [N_WARPS][SUM_FLOATS] */
} mma_block;

/* What an item is about. */
typedef struct mma_item {
    uint32_t group, strip, split;
    uint32_t unit, n_stages; /* the first unit, stages of a pass */
    uint32_t unit_end;
    uint32_t slot, slot_end; /* of the group */
} mma_item;

/* A place in the block's work: a stage of a pass over some slots of an item. */
typedef struct mma_place {
    uint32_t item;         /* n_items or more: the end */
    uint32_t slot, n_rows; /* of the pass */
    uint32_t unit;         /* the warp's */
    uint32_t n_left;       /* stages of the pass, this one too */
    uint32_t n_none;       /* of these, in which the warp has no unit: the last ones */
} mma_place;

/* Where this thread's copies of the stage at a place come from. */
typedef struct mma_source {
    const uint8_t *data; /* of the warp's first strip */
    uint32_t scales;     /* bytes; of the strip that this lane copies some of */
    uint32_t x;          /* elements; its first copy of rows */
} mma_source;

QN_DEV uint32_t side_of(const mma_block *b)
{
    return qn_warp() & ((N_WARPS >> b->log_k) - 1);
}

QN_DEV uint32_t k_of(const mma_block *b)
{
    return qn_warp() >> (3 - b->log_k);
}

QN_DEV mma_item item_at(const mma_block *b, uint32_t i)
{
    const qn_gpu_matmul_args *args = b->args;
    const uint32_t rest = i / b->n_blocks;
    const uint32_t rank = rest / args->n_splits;
    mma_item item;
    item.strip = (i % b->n_blocks) << (4 - b->log_k);
    item.split = rest % args->n_splits;
    item.group = args->active != NULL ? args->active[rank] : rank;
    item.slot = args->first_of != NULL ? args->first_of[item.group] : 0;
    item.slot_end =
        args->first_of != NULL ? args->first_of[item.group + 1] : qn_argument(args->n_rows);
    item.unit = item.split * b->split_units;
    item.unit_end = qn_min_u32(item.unit + b->split_units, b->n_units);
    const uint32_t n_units = item.unit < item.unit_end ? item.unit_end - item.unit : 1;
    item.n_stages = (n_units + (1U << b->log_k) - 1) >> b->log_k;
    return item;
}

/* Rows of the pass that begins with a slot. */
QN_DEV uint32_t rows_at(const mma_block *b, const mma_item *item, uint32_t slot)
{
    return qn_min_u32(b->args->n_pass, item->slot_end - slot);
}

/* The pass over slots of an item that begins with one of them. */
QN_DEV void begin_pass(const mma_block *b, mma_place *p, const mma_item *item, uint32_t slot)
{
    p->slot = slot;
    p->n_rows = rows_at(b, item, slot);
    p->unit = item->unit + k_of(b);
    p->n_left = item->n_stages;
    const uint32_t last = p->unit + ((item->n_stages - 1) << b->log_k);
    p->n_none = last < item->unit_end ? 0 : 1;
    if (item->strip + 2 * side_of(b) >= b->n_strips) {
        p->n_none = item->n_stages;
    }
}

/* The first pass of the first item from p->item on that has slots. */
QN_DEV mma_item begin_item(const mma_block *b, mma_place *p)
{
    mma_item item = {0};
    QN_UNROLL(1)
    for (; p->item < b->n_items; p->item += qn_blocks_x()) {
        item = item_at(b, p->item);
        if (item.slot < item.slot_end) {
            begin_pass(b, p, &item, item.slot);
            break;
        }
    }
    return item;
}

/* The pass after this one; returns its item. */
QN_DEV mma_item next_pass(const mma_block *b, mma_place *p, const mma_item *item)
{
    const uint32_t slot = p->slot + p->n_rows;
    if (slot < item->slot_end) {
        begin_pass(b, p, item, slot);
        return *item;
    }
    p->item += qn_blocks_x();
    return begin_item(b, p);
}

/* Copies of 16 bytes that a row's inputs of a stage take, as a power of two. */
QN_DEV uint32_t log_row_of(const mma_block *b, mma_kind kind)
{
    return b->log_k + (kind.unit == 128 ? 4 : kind.unit == 64 ? 3 : 2);
}

/* Where copy i of all the rows' of a place begins, in elements. */
QN_DEV uint32_t row_source(const mma_block *b, const mma_place *p, uint32_t group, mma_kind kind,
                           uint32_t i)
{
    const qn_gpu_matmul_args *args = b->args;
    const uint32_t slot = p->slot + (i >> log_row_of(b, kind));
    const uint32_t row = args->row_of != NULL ? args->row_of[slot] : slot;
    return group * (uint32_t)args->x_group_stride + row * (uint32_t)args->x_stride +
           (p->unit - k_of(b)) * kind.unit + 8 * (i & ((1U << log_row_of(b, kind)) - 1));
}

/* Sources of the first stage of a pass. */
QN_DEV mma_source aim(const mma_block *b, const mma_place *p, const mma_item *item, mma_kind kind)
{
    const qn_gpu_weight *w = &b->args->w;
    mma_source from = {0};
    if (p->item >= b->n_items) {
        return from;
    }
    const uint32_t n_each = kind.scale_bytes / 16;
    const uint64_t strip = item->strip + 2 * side_of(b);
    from.data = w->data + item->group * w->data_stride + strip * b->strip_bytes +
                (uint64_t)p->unit * b->unit_bytes + 16 * qn_lane();
    if (n_each > 0) {
        const uint32_t place = kind.kind == QN_GPU_W_FP8 ? p->unit / 2 : p->unit;
        from.scales = item->group * (uint32_t)w->scales_stride +
                      ((uint32_t)strip + qn_lane() / n_each) * b->scales_bytes +
                      place * kind.scale_bytes + 16 * (qn_lane() % n_each);
    }
    if (qn_thread() < p->n_rows << log_row_of(b, kind)) {
        from.x = row_source(b, p, item->group, kind, qn_thread());
    }
    return from;
}

/* Begin to copy a stage's weights: tiles that a strip does not have are zeros. */
QN_DEV void copy_weights(const mma_block *b, const mma_place *p, const mma_source *from,
                         mma_kind kind, uint8_t *stage)
{
    const bool is_half = kind.kind == QN_GPU_W_MXFP4 && p->unit * 2 + 1 == b->n_tiles;
    const uint32_t lane = qn_lane();
    uint8_t *to = stage + qn_warp() * 2 * b->unit_bytes + 16 * lane;
    QN_UNROLL(2)
    for (uint32_t s = 0; s < 2; s++) {
        const uint8_t *data = from->data + s * b->strip_bytes;
        qn_copy_16(to + s * b->unit_bytes, data, 16);
        qn_copy_16(to + s * b->unit_bytes + QN_TILE_BYTES, data + (is_half ? 0 : QN_TILE_BYTES),
                   is_half ? 0 : 16);
    }
    if (lane < kind.scale_bytes / 8) { /* of MXFP4, a tile has two of a strip's four copies */
        const bool is_there = !is_half || (lane & 2) == 0;
        qn_copy_16(stage + b->scales_at + qn_warp() * 2 * kind.scale_bytes + 16 * lane,
                   b->args->w.scales + from->scales - (is_there ? 0 : 32), is_there ? 16 : 0);
    }
}

/* Begin to copy the rows' inputs of a stage. */
QN_DEV void copy_rows(const mma_block *b, const mma_place *p, const mma_source *from, mma_kind kind,
                      uint8_t *stage)
{
    const uint32_t log_row = log_row_of(b, kind);
    const uint32_t n = p->n_rows << log_row;
    /* 256 copies are whole rows, so every copy of a thread is of the same inputs. */
    const uint32_t at = qn_thread() & ((1U << log_row) - 1);
    const uint32_t n_bytes = (p->unit - k_of(b)) * kind.unit + 8 * at < b->args->w.n_in ? 16 : 0;
    uint8_t *to = stage + b->x_at + (qn_thread() >> log_row) * b->row_bytes + 16 * at;
    if (qn_thread() < n) {
        qn_copy_16(to, b->args->x + from->x, n_bytes);
    }
    if (n <= N_THREADS) {
        return;
    }
    const uint32_t group = b->args->x_group_stride == 0 ? 0 : item_at(b, p->item).group;
    QN_UNROLL(1)
    for (uint32_t i = qn_thread() + N_THREADS; i < n; i += N_THREADS) {
        qn_copy_16(stage + b->x_at + (i >> log_row) * b->row_bytes + 16 * at,
                   b->args->x + row_source(b, p, group, kind, i), n_bytes);
    }
}

/* The next stage of the pass. */
QN_DEV void advance(const mma_block *b, mma_place *p, mma_source *from, mma_kind kind)
{
    const uint32_t n_k = 1U << b->log_k;
    from->data += n_k * b->unit_bytes;
    from->scales +=
        (kind.kind == QN_GPU_W_FP8 ? (p->unit + n_k) / 2 - p->unit / 2 : n_k) * kind.scale_bytes;
    from->x += n_k * kind.unit;
    p->unit += n_k;
    p->n_left--;
}

/* Begin to copy a stage, its weights too where they are not on their way, and go on to the next. */
QN_DEV void copy_stage(const mma_block *b, mma_place *p, mma_source *from, mma_kind kind,
                       uint8_t *stage, bool has_weights)
{
    if (p->item >= b->n_items) {
        return;
    }
    if (p->n_left > p->n_none && !has_weights) {
        copy_weights(b, p, from, kind, stage);
    }
    copy_rows(b, p, from, kind, stage);
    if (p->n_left <= 1) {
        mma_item item = item_at(b, p->item);
        item = next_pass(b, p, &item);
        if (p->item >= b->n_items) {
            qn_release_later(); /* all is asked for: what is behind may ask */
        }
        *from = aim(b, p, &item, kind);
        return;
    }
    advance(b, p, from, kind);
}

/*
 * Begin to copy the weights of the block's first stages, as many as the ring and the first pass
 * have; how many that are. They are of the same group of copies as the first stage's rows, so that
 * whoever waits for these waits for all of them.
 */
QN_DEV uint32_t copy_first_weights(const mma_block *b, mma_place p, const mma_item *item,
                                   mma_kind kind)
{
    mma_source from = aim(b, &p, item, kind);
    const uint32_t n = p.item < b->n_items ? qn_min_u32(N_STAGES - 1, p.n_left) : 0;
    QN_UNROLL(1)
    for (uint32_t i = 0; i < n; i++) {
        if (p.n_left > p.n_none) {
            copy_weights(b, &p, &from, kind, b->ring + i * b->stage_bytes);
        }
        advance(b, &p, &from, kind);
    }
    return n;
}

/*
 * Add the products of 1, 2 or 4 columns with 32 inputs, of which a has the fragments and x the
 * lane's row of the first column; scales are of outputs g and g + 8 of each strip where sums take
 * them (FP8). Products that follow each other do not wait for each other.
 */
QN_DEV void multiply_columns(float sums[][8][4], const mma_block *b, mma_kind kind, uint32_t first,
                             uint32_t n, uint32_t a[2][2][4], const float scales[2][2],
                             const uint8_t *x)
{
    float parts[2][4][4] = {0};
    uint32_t rows[4][4];
    QN_UNROLL(4)
    for (uint32_t j = 0; j < n; j++) {
        qn_ldmatrix(rows[j], x + 8 * (first + j) * b->row_bytes);
    }
    QN_UNROLL(2)
    for (uint32_t i = 0; i < 2; i++) {
        QN_UNROLL(4)
        for (uint32_t j = 0; j < n; j++) {
            QN_UNROLL(2)
            for (uint32_t s = 0; s < 2; s++) {
                qn_mma_bf16(kind.kind == QN_GPU_W_FP8 ? parts[s][j] : sums[s][first + j], a[s][i],
                            rows[j] + 2 * i);
            }
        }
    }
    QN_UNROLL(32)
    for (uint32_t i = 0; i < 8 * n && kind.kind == QN_GPU_W_FP8; i++) {
        float *sum = &sums[i % 2][first + i / 8][i / 2 % 4];
        *sum = qn_fma(scales[i % 2][i / 4 % 2], parts[i % 2][i / 8][i / 2 % 4], *sum);
    }
}

/* The same of all columns, as many at a time as registers hold. */
QN_DEV void multiply_32(float sums[][8][4], const mma_block *b, mma_kind kind, uint32_t n_columns,
                        uint32_t a[2][2][4], const float scales[2][2], const uint8_t *x)
{
    const uint32_t n = qn_min_u32(n_columns, kind.kind == QN_GPU_W_FP8 ? 2 : 4);
    QN_UNROLL(8)
    for (uint32_t j = 0; j < n_columns; j += n) {
        multiply_columns(sums, b, kind, j, n, a, scales, x);
        if (n_columns > 2) {
            qn_warp_barrier(); /* keeps the next rows from being read too early */
        }
    }
}

/* Add the products of the warp's unit, for the lane's tiles and the multipliers of its g. */
QN_DEV void multiply_unit(float sums[][8][4], const mma_block *b, mma_kind kind, uint32_t n_columns,
                          const uint8_t *tiles, const uint8_t *multipliers, const uint8_t *x)
{
    uint32_t a[2][2][4];
    float scales[2][2] = {{0}};
    if (kind.kind == QN_GPU_W_FP8) {
        QN_UNROLL(2)
        for (uint32_t s = 0; s < 2; s++) {
            const f32x2 pair = *(const f32x2 *)(multipliers + s * kind.scale_bytes);
            scales[s][0] = pair.x;
            scales[s][1] = pair.y;
        }
    }
    QN_UNROLL(2)
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t by[2][2];
        u32x4 w[2];
        QN_UNROLL(2)
        for (uint32_t s = 0; s < 2; s++) {
            w[s] = qn_load_16(tiles + s * b->unit_bytes + i * QN_TILE_BYTES);
            if (kind.kind == QN_GPU_W_MXFP4) {
                qn_expand_scales(by[s],
                                 *(const uint32_t *)(multipliers + s * kind.scale_bytes + 32 * i));
                qn_expand_mxfp4(a[s][0], w[s].x, by[s][0]);
                qn_expand_mxfp4(a[s][1], w[s].y, by[s][0]);
            } else if (kind.kind == QN_GPU_W_FP8) {
                qn_expand_tile(a[s], QN_GPU_W_FP8, w[s], 0);
            } else {
                qn_expand_tile(a[s] + i, QN_GPU_W_BF16, w[s], 0);
            }
        }
        if (kind.kind == QN_GPU_W_BF16 && i == 0) {
            continue; /* a tile is half of the inputs */
        }
        const uint8_t *at = x + (kind.kind == QN_GPU_W_BF16 ? 0 : i * kind.unit);
        multiply_32(sums, b, kind, n_columns, a, scales, at);
        if (kind.kind == QN_GPU_W_MXFP4) {
            QN_UNROLL(2)
            for (uint32_t s = 0; s < 2; s++) {
                qn_expand_mxfp4(a[s][0], w[s].z, by[s][1]);
                qn_expand_mxfp4(a[s][1], w[s].w, by[s][1]);
            }
            multiply_32(sums, b, kind, n_columns, a, scales, at + 64);
        }
    }
}

/* Add the products of the warp's unit of a stage. */
QN_DEV void multiply_stage(float sums[][8][4], const mma_block *b, const mma_place *p,
                           mma_kind kind, const uint8_t *stage)
{
    if (p->n_left <= p->n_none) {
        return;
    }
    const uint32_t lane = qn_lane();
    const uint8_t *tiles = stage + qn_warp() * 2 * b->unit_bytes + 16 * lane;
    const uint8_t *multipliers = stage + b->scales_at + qn_warp() * 2 * kind.scale_bytes +
                                 lane / 4 * (kind.kind == QN_GPU_W_FP8 ? 8 : 4);
    const uint8_t *x =
        stage + b->x_at + lane % 8 * b->row_bytes + k_of(b) * kind.unit * 2 + lane / 8 * 16;
    if (kind.n_few < kind.n_many && p->n_rows <= 8 * kind.n_few) {
        multiply_unit(sums, b, kind, kind.n_few, tiles, multipliers, x);
    } else {
        multiply_unit(sums, b, kind, kind.n_many, tiles, multipliers, x);
    }
}

/* Where a split's sums of a slot are. */
QN_DEV float *partial_of(const mma_block *b, const mma_item *item, uint32_t split, uint32_t slot)
{
    const qn_gpu_matmul_args *args = b->args;
    const uint64_t n_out = (uint64_t)b->n_blocks << (8 - b->log_k);
    const uint64_t n_slots = (uint64_t)args->n_rows * (args->first_of != NULL ? 1 : args->n_groups);
    const uint64_t row = (args->first_of != NULL ? 0 : (uint64_t)item->group * args->n_rows) + slot;
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
QN_DEV void finish_rows(const mma_block *b, const mma_item *item, uint32_t slot)
{
    const qn_gpu_matmul_args *args = b->args;
    const bool is_pair = args->w.is_pair != 0 && args->n_splits == 1;
    const uint32_t log_out = is_pair ? 4 : 5;
    const uint32_t log_row = log_out + 3 - b->log_k;
    const uint32_t n = qn_min_u32(item->slot_end - slot, 8) << log_row;
    QN_UNROLL(1)
    for (uint32_t i = qn_thread(); i < n; i += N_THREADS) {
        const uint32_t out = i & ((1U << log_out) - 1);
        const uint32_t row = i >> log_row;
        const uint32_t side = (i & ((1U << log_row) - 1)) >> log_out;
        const float sum = sum_of(b, side, row, out);
        if (args->n_splits > 1) {
            partial_of(b, item, item->split, slot + row)[(item->strip + 2 * side) * 16 + out] = sum;
        } else {
            const float up = is_pair ? sum_of(b, side, row, out + 16) : 0;
            const uint32_t strip = is_pair ? item->strip / 2 + side : item->strip + 2 * side;
            qn_put(args, item->group, slot + row, strip * 16 + out, sum, up);
        }
    }
}

/* Sums of four outputs over the splits, in their order; part is the first split's. */
QN_DEV f32x4 sum_splits(const float *part, uint64_t stride, uint32_t n)
{
    f32x4 sum = {0, 0, 0, 0};
    QN_UNROLL(1)
    for (uint32_t first = 0; first < n; first += 8) {
        f32x4 v[8];
        QN_UNROLL(8)
        for (uint32_t i = 0; i < 8; i++) {
            const f32x4 zero = {0, 0, 0, 0};
            v[i] = first + i < n ? *(const f32x4 *)(part + (first + i) * stride) : zero;
        }
        QN_UNROLL(8)
        for (uint32_t i = 0; i < 8; i++) {
            sum += v[i];
        }
    }
    return sum;
}

/* All splits of an item are there: their sums, in order, to y. */
QN_DEV void join_splits(const mma_block *b, const mma_item *item)
{
    const qn_gpu_matmul_args *args = b->args;
    const bool is_pair = args->w.is_pair != 0;
    const uint32_t log_out = 8 - b->log_k;
    const uint32_t n = (item->slot_end - item->slot) << (log_out - 2);
    const uint64_t stride = (uint64_t)(partial_of(b, item, 1, 0) - partial_of(b, item, 0, 0));
    QN_UNROLL(1)
    for (uint32_t i = qn_thread(); i < n; i += N_THREADS) {
        const uint32_t out = item->strip * 16 + ((4 * i) & ((1U << log_out) - 1));
        const uint32_t slot = item->slot + (i >> (log_out - 2));
        if (is_pair && (out & 16) != 0) {
            continue; /* up, which gate's thread takes */
        }
        const float *part = partial_of(b, item, 0, slot) + out;
        const f32x4 sum = sum_splits(part, stride, args->n_splits);
        const f32x4 up = is_pair ? sum_splits(part + 16, stride, args->n_splits) : sum;
        const uint32_t to = is_pair ? out / 32 * 16 + out % 16 : out;
        qn_put(args, item->group, slot, to, sum.x, up.x);
        qn_put(args, item->group, slot, to + 1, sum.y, up.y);
        qn_put(args, item->group, slot, to + 2, sum.z, up.z);
        qn_put(args, item->group, slot, to + 3, sum.w, up.w);
    }
}

/* The end of an item: the last of its splits adds them all. */
QN_DEV void finish_splits(const mma_block *b, const mma_item *item)
{
    uint32_t *counters = (uint32_t *)b->args->partial;
    uint32_t *shared = (uint32_t *)b->sums;
    const uint32_t i_last = b->args->n_splits - 1;
    qn_barrier();
    if (qn_thread() == 0) { /* its fences stand for the block, which barriers join to it */
        const uint32_t i_block = item->strip >> (4 - b->log_k);
        qn_fence();
        *shared = qn_atomic_inc(counters + item->group * b->n_blocks + i_block, i_last);
        qn_fence();
    }
    qn_barrier();
    const bool is_last = *shared == i_last;
    qn_barrier();
    if (is_last) {
        join_splits(b, item);
    }
}

/* The end of a pass: sums over the warps along the inputs, 8 rows at a time, and the epilogue. */
QN_DEV void finish_pass(float sums[][8][4], const mma_block *b, const mma_place *p,
                        const mma_item *item, mma_kind kind)
{
    float *mine = b->sums + qn_warp() * SUM_FLOATS + qn_lane() % 4 * 2 * SUM_STRIDE + qn_lane() / 4;
    QN_UNROLL(8)
    for (uint32_t j = 0; j < kind.n_many; j++) {
        if (8 * j >= p->n_rows) {
            break;
        }
        QN_UNROLL(2)
        for (uint32_t s = 0; s < 2; s++) {
            QN_UNROLL(4)
            for (uint32_t i = 0; i < 4; i++) {
                mine[i % 2 * SUM_STRIDE + i / 2 * 8 + 16 * s] = sums[s][j][i];
            }
        }
        qn_barrier();
        finish_rows(b, item, p->slot + 8 * j);
        qn_barrier();
    }
    QN_UNROLL(8)
    for (uint32_t j = 0; j < kind.n_many; j++) {
        QN_UNROLL(4)
        for (uint32_t i = 0; i < 4; i++) {
            sums[0][j][i] = 0;
            sums[1][j][i] = 0;
        }
    }
    if (b->args->n_splits > 1 && p->slot + p->n_rows >= item->slot_end) {
        finish_splits(b, item);
    }
}

QN_DEV mma_block make_block(const qn_gpu_matmul_args *args, mma_kind kind)
{
    mma_block b = {.args = args};
    b.log_k = 3 - args->log_strips;
    b.n_units = (qn_tile_pad(args->w.n_in) + kind.unit - 1) / kind.unit;
    b.split_units = (b.n_units + args->n_splits - 1) / args->n_splits;
    b.split_units = (b.split_units + (1U << b.log_k) - 1) >> b.log_k << b.log_k;
    b.n_strips = qn_tile_strips(args->w.n_out) << (args->w.is_pair != 0 ? 1 : 0);
    b.n_blocks = (b.n_strips + (2U << args->log_strips) - 1) >> (1 + args->log_strips);
    const uint32_t n_active =
        args->n_active != NULL ? args->n_active[0] : qn_argument(args->n_groups);
    b.n_items = b.n_blocks * args->n_splits * n_active;
    b.row_bytes = (kind.unit * 2 << b.log_k) + 16;
    b.unit_bytes = 2 * QN_TILE_BYTES;
    b.scales_at = N_WARPS * 2 * b.unit_bytes;
    b.x_at = b.scales_at + N_WARPS * 2 * kind.scale_bytes;
    b.stage_bytes = b.x_at + args->n_pass * b.row_bytes;
    b.n_tiles = qn_tile_pad(args->w.n_in) / qn_tile_in(kind.kind);
    b.strip_bytes = (uint32_t)qn_tile_strip_bytes(kind.kind, args->w.n_in);
    b.scales_bytes = (uint32_t)qn_tile_strip_scale_bytes(kind.kind, args->w.n_in);
    b.sums = (float *)qn_dynamic_shared();
    b.ring = qn_dynamic_shared() + N_WARPS * SUM_FLOATS * 4;
    return b;
}

QN_DEV void multiply(const qn_gpu_matmul_args *args, mma_kind kind)
{
    const mma_block b = make_block(args, kind);
    float sums[2][8][4] = {0};
    mma_place ahead = {.item = qn_block_x()};
    mma_item item = begin_item(&b, &ahead);
    mma_place p = ahead;
    const uint32_t n_first =
        args->is_dependent != 0 ? copy_first_weights(&b, ahead, &item, kind) : 0;
    qn_await_earlier();
    mma_source from = aim(&b, &ahead, &item, kind);
    QN_UNROLL(1)
    for (uint32_t i = 0; i < N_STAGES - 1; i++) {
        copy_stage(&b, &ahead, &from, kind, b.ring + i * b.stage_bytes, i < n_first);
        qn_copy_commit();
    }
    uint32_t at = 0;
    QN_UNROLL(1)
    while (p.item < b.n_items) {
        qn_copy_wait(N_STAGES - 2);
        qn_barrier();
        copy_stage(&b, &ahead, &from, kind,
                   b.ring + (at == 0 ? N_STAGES * b.stage_bytes : at) - b.stage_bytes, false);
        qn_copy_commit();
        multiply_stage(sums, &b, &p, kind, b.ring + at);
        if (--p.n_left == 0) {
            item = item_at(&b, p.item);
            p.n_rows = rows_at(&b, &item, p.slot);
            p.unit = p.n_none = 0; /* else these three take registers all the time */
            finish_pass(sums, &b, &p, &item, kind);
            (void)next_pass(&b, &p, &item);
        }
        at += b.stage_bytes;
        at = at == N_STAGES * b.stage_bytes ? 0 : at;
    }
    qn_copy_wait(0);
}

/* Columns of 8 rows: few where that is enough, else many. */
#define NARROW 1, 2
#define WIDE   4, 4
#define FULL   8, 8

QN_GPU_KERNEL(mma_bf16)
{
    multiply(args, (mma_kind){QN_GPU_W_BF16, 32, 0, NARROW});
}

QN_GPU_KERNEL(mma_bf16_wide)
{
    multiply(args, (mma_kind){QN_GPU_W_BF16, 32, 0, WIDE});
}

QN_GPU_KERNEL(mma_bf16_full)
{
    multiply(args, (mma_kind){QN_GPU_W_BF16, 32, 0, FULL});
}

QN_GPU_KERNEL(mma_fp8)
{
    multiply(args, (mma_kind){QN_GPU_W_FP8, 64, 64, NARROW});
}

QN_GPU_KERNEL(mma_fp8_wide)
{
    multiply(args, (mma_kind){QN_GPU_W_FP8, 64, 64, WIDE});
}

QN_GPU_KERNEL(mma_mxfp4)
{
    multiply(args, (mma_kind){QN_GPU_W_MXFP4, 128, 64, NARROW});
}

QN_GPU_KERNEL(mma_mxfp4_wide)
{
    multiply(args, (mma_kind){QN_GPU_W_MXFP4, 128, 64, WIDE});
}
