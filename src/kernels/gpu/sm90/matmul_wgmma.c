/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with many rows by wgmma: weights are the 64-row operand, which each warp expands from
 * its tiles into registers; slots are columns, their rows of x lie in shared memory.
 *
 * A block stays on its multiprocessor and takes every so manieth piece of work: 16 strips (256
 * outputs of tiles) by up to 144 slots of one group; where pieces are few, a part of the inputs.
 *
 *   warps 0 .. 3   fill a ring of stages, each 64 inputs: tiles, and rows of x that they gather
 *   warps 4 .. 11  two warpgroups of 8 strips each.  A warp has two neighbouring strips in two sets
 *                  of sums: of a pair these are gate and up of the same outputs.
 *
 * While the products of one set run, the weights of the other are expanded; while a warpgroup waits
 * for its products, the other's run.
 *
 * A sum is made in order of the inputs, by one wgmma for 16 of them.
 */
#include "kernels/gpu/expand.h"
#include "kernels/gpu/sm90/wgmma.h"

enum {
    STRIPS = 16,           /* of a piece */
    SLOTS = 144,           /* at most; a few more than 128, for experts with about so many rows */
    X_BYTES = SLOTS * 128, /* of a stage */
    STAGES_MAX = 7,
    PIECES = STAGES_MAX + 2, /* that which a warp still stores, one a stage behind it, and the next,
                                which is written before its first stage is free */
    BAND = 16,        /* pieces along the slots that run together: their tiles and rows of x are
                         found in the L2 cache */
    OUT_BYTES = 1024, /* a warp's room to turn 16 slots around */
    PRODUCERS = 128,
    CONSUMERS = 256,
    JOIN = 1, /* the barrier of all consumers, twice for each piece of several parts */
    /* A block has the registers that its threads begin with, 168 each; a warpgroup that asks for
       more than is left of them waits for ever. */
    PRODUCER_REGISTERS = 72,
    CONSUMER_REGISTERS = 216,
    BLOCK_REGISTERS = (PRODUCERS + CONSUMERS) * 168,
    TAKEN_REGISTERS = PRODUCERS * PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS,
};
_Static_assert(TAKEN_REGISTERS <= BLOCK_REGISTERS, "setmaxnreg must not wait");

QN_DEV uint32_t n_stages(uint32_t kind)
{
    return kind == QN_GPU_W_BF16 ? 4 : kind == QN_GPU_W_FP8 ? 6 : STAGES_MAX;
}

QN_DEV uint32_t strip_bytes(uint32_t kind)
{
    return QN_TILE_BYTES * (64 / qn_tile_in(kind));
}

QN_DEV uint32_t strip_scale_bytes(uint32_t kind)
{
    return kind == QN_GPU_W_MXFP4 ? QN_TILE_SCALE_BYTES : 0;
}

QN_DEV uint32_t stage_bytes(uint32_t kind)
{
    const uint32_t n = X_BYTES + STRIPS * (strip_bytes(kind) + strip_scale_bytes(kind));
    return (n + 1023) / 1024 * 1024;
}

/* A piece of work, as the producer tells it with its first stage; without slots: the end. */
typedef struct piece {
    uint32_t group, strip, slot, n_slots; /* the first of each */
    uint32_t number, part;                /* among all pieces; of the inputs */
    uint32_t block, block_end;            /* of 64 inputs */
} piece;

/*
 * Shared memory.  Who arrives in each phase of a stage's barriers, and nobody leaves one out:
 *   full   all producers, each when its copies are there, and thread 0 once more, for the piece
 *   empty  a lane of each of the eight warps that multiply, after its products of the stage
 * Producers wait for empty's phase before the one that full is in, the first time for none.  All
 * sides count blocks alike: the part of a piece that a block takes has one block at least.
 */
typedef struct ring {
    uint8_t *stages;      /* on 1024 bytes */
    uint8_t *out;         /* [8] OUT_BYTES */
    piece *pieces;        /* [PIECES] */
    uint32_t *is_last;    /* [1] */
    uint32_t full, empty; /* barriers, one a stage */
    uint32_t stage, parity;
    uint32_t i_piece; /* place of the present one */
} ring;

QN_DEV void ring_next(ring *r, uint32_t kind)
{
    r->stage++;
    if (r->stage == n_stages(kind)) {
        r->stage = 0;
        r->parity ^= 1;
    }
}

QN_DEV void ring_next_piece(ring *r)
{
    r->i_piece = r->i_piece == PIECES - 1 ? 0 : r->i_piece + 1;
}

/* By the producer, before the piece's first stage is told. */
QN_DEV void ring_put_piece(ring *r, const piece *at)
{
    if (qn_thread() == 0) {
        r->pieces[r->i_piece] = *at;
    }
    ring_next_piece(r);
}

/* This thread's copies, as they come, and what the first one wrote itself fill the stage. */
QN_DEV void producer_tell(const ring *r)
{
    qn_copy_arrive(r->full + 8 * r->stage);
    if (qn_thread() == 0) {
        qn_mbar_arrive(r->full + 8 * r->stage);
    }
}

/* The pieces of all groups, one group behind the other. */
typedef struct walk {
    uint32_t i_active, n_active;
    uint32_t group, slot_first, n_slots;
    uint32_t n_strips, n_down, n_along; /* pieces of the group along the outputs, the slots */
    uint32_t width;                     /* slots of a piece */
    uint32_t before;                    /* pieces of the groups in front of this one */
} walk;

/* FP8 has no registers for more. */
QN_DEV uint32_t slots_max(uint32_t kind)
{
    return kind == QN_GPU_W_FP8 ? 128 : SLOTS;
}

QN_DEV void walk_group(walk *w, const qn_gpu_matmul_args *args)
{
    w->group = w->i_active;
    w->slot_first = 0;
    w->n_slots = args->n_rows;
    if (args->first_of != NULL) {
        w->group = args->active[w->i_active];
        w->slot_first = args->first_of[w->group];
        w->n_slots = args->first_of[w->group + 1] - w->slot_first;
    }
    /* Few slots are divided evenly. */
    w->width = 128;
    if (w->n_slots <= 512) {
        const uint32_t n =
            qn_max_u32(1, (w->n_slots + slots_max(args->w.kind) - 1) / slots_max(args->w.kind));
        w->width = qn_max_u32(8, ((w->n_slots + n - 1) / n + 7) / 8 * 8);
    }
    w->n_along = (w->n_slots + w->width - 1) / w->width;
}

QN_DEV void walk_begin(walk *w, const qn_gpu_matmul_args *args)
{
    w->i_active = 0;
    w->n_active = args->first_of != NULL ? *args->n_active : qn_argument(args->n_groups);
    w->n_strips = qn_tile_strips(args->w.n_out) << (args->w.is_pair ? 1 : 0);
    w->n_down = (w->n_strips + STRIPS - 1) / STRIPS;
    w->before = 0;
    w->n_along = 0;
    if (w->n_active > 0) {
        walk_group(w, args);
    }
}

/* False where there is no piece i. */
QN_DEV bool walk_to(walk *w, const qn_gpu_matmul_args *args, uint32_t i, piece *p)
{
    while (i - w->before >= w->n_down * w->n_along) {
        w->before += w->n_down * w->n_along;
        if (++w->i_active >= w->n_active) {
            return false;
        }
        walk_group(w, args);
    }
    p->number = i;
    i -= w->before;
    const uint32_t along_first = i / (BAND * w->n_down) * BAND;
    const uint32_t n_band = qn_min_u32(BAND, w->n_along - along_first);
    i -= along_first * w->n_down;
    p->strip = i / n_band * STRIPS;
    const uint32_t slot = (along_first + i % n_band) * w->width;
    p->group = w->group;
    p->slot = w->slot_first + slot;
    p->n_slots = qn_min_u32(w->width, w->n_slots - slot);
    return true;
}

/*
 * The copies of a stage: the producer's 128 threads, 16 bytes each at a time.  One warp of a
 * scheduler makes all of them, and products wait for it where it takes longer than they do.  So
 * the loop has no predicates: slots and strips behind the last one are the last one again, and
 * the number of copies is a constant, as that of columns is in multiply().
 */
typedef struct producer {
    uint32_t rows[SLOTS / 16]; /* of slots thread / 8 + 16 j: this thread's chunk of x */
    uint32_t strips[4];        /* strips warp + 4 j, in 16 bytes from the piece's first */
    const uint16_t *x;         /* of the block */
    const uint8_t *tiles;      /* of the block: the lane's chunk of the piece's first strip */
    const uint8_t *scales;     /* of the block: two of warp 0's threads have a strip's */
} producer;

QN_DEV void producer_piece(producer *p, const qn_gpu_matmul_args *args, const piece *at,
                           uint32_t n_strips, const uint32_t kind)
{
    const uint32_t thread = qn_thread();
    const uint64_t x_group = args->first_of != NULL ? 0 : at->group * args->x_group_stride;
    QN_UNROLL(9)
    for (uint32_t j = 0; j < SLOTS / 16; j++) {
        const uint32_t i = at->slot + qn_min_u32(thread / 8 + 16 * j, at->n_slots - 1);
        const uint32_t row = args->row_of != NULL ? args->row_of[i] : i;
        p->rows[j] = (uint32_t)((x_group + row * args->x_stride) / 8) + thread % 8;
    }
    p->x = args->x + at->block * 64;
    const uint32_t last = qn_min_u32(STRIPS, n_strips - at->strip) - 1;
    const uint32_t pitch = (uint32_t)qn_tile_strip_bytes(kind, args->w.n_in);
    QN_UNROLL(4)
    for (uint32_t j = 0; j < 4; j++) {
        p->strips[j] = qn_min_u32(qn_warp() + 4 * j, last) * (pitch / 16);
    }
    p->tiles = args->w.data + at->group * args->w.data_stride + at->strip * (uint64_t)pitch +
               at->block * strip_bytes(kind) + qn_lane() * 16;
    if (kind == QN_GPU_W_MXFP4) {
        const uint32_t strip = at->strip + qn_min_u32(qn_lane() / 2, last);
        p->scales = args->w.scales + at->group * args->w.scales_stride +
                    strip * qn_tile_strip_scale_bytes(kind, args->w.n_in) +
                    at->block * QN_TILE_SCALE_BYTES + thread % 2 * 16;
    }
}

/* One block of 64 inputs, of which this thread's chunks have n_bytes. */
QN_DEV void producer_block(producer *p, ring *r, uint32_t n_bytes, const uint32_t n_copies,
                           const uint32_t kind)
{
    const uint32_t thread = qn_thread();
    uint8_t *stage = r->stages + r->stage * stage_bytes(kind);
    uint8_t *x = stage + thread / 8 * 128 + ((thread % 8 ^ (thread / 8 & 7)) << 4);
    uint8_t *tiles = stage + X_BYTES + qn_warp() * strip_bytes(kind) + qn_lane() * 16;
    qn_mbar_wait(r->empty + 8 * r->stage, r->parity ^ 1);
    QN_UNROLL(9)
    for (uint32_t j = 0; j < n_copies; j++) {
        qn_copy_16(x + 2048 * j, p->x + (uint64_t)p->rows[j] * 8, n_bytes);
    }
    QN_UNROLL(4)
    for (uint32_t j = 0; j < 4; j++) {
        QN_UNROLL(4)
        for (uint32_t i = 0; i < strip_bytes(kind); i += QN_TILE_BYTES) {
            qn_copy_16(tiles + 4 * j * strip_bytes(kind) + i,
                       p->tiles + (uint64_t)p->strips[j] * 16 + i, 16);
        }
    }
    if (kind == QN_GPU_W_MXFP4) {
        if (qn_warp() == 0) {
            qn_copy_16(stage + X_BYTES + STRIPS * strip_bytes(kind) + thread * 16, p->scales, 16);
        }
        p->scales += QN_TILE_SCALE_BYTES;
    }
    producer_tell(r);
    p->x += 64;
    p->tiles += strip_bytes(kind);
    ring_next(r, kind);
}

QN_DEV void producer_blocks(producer *p, ring *r, uint32_t n, const uint32_t n_copies,
                            const uint32_t kind)
{
    QN_UNROLL(1)
    for (uint32_t i = 0; i < n; i++) {
        producer_block(p, r, 16, n_copies, kind);
    }
}

/* The blocks of a part: two at a time, because those share scales of FP8. */
QN_DEV uint32_t part_block(const qn_gpu_matmul_args *args, uint32_t part)
{
    const uint32_t n_blocks = qn_tile_pad(args->w.n_in) / 64;
    return qn_min_u32(n_blocks, (n_blocks + 1) / 2 * part / args->n_splits * 2);
}

QN_DEV void produce(const qn_gpu_matmul_args *args, ring r, const uint32_t kind)
{
    walk w;
    walk_begin(&w, args);
    producer p;
    piece at = {0};
    QN_UNROLL(1)
    for (uint32_t i = qn_block_x(); walk_to(&w, args, i / args->n_splits, &at);
         i += qn_blocks_x()) {
        at.part = i % args->n_splits;
        at.block = part_block(args, at.part);
        at.block_end = part_block(args, at.part + 1);
        ring_put_piece(&r, &at);
        producer_piece(&p, args, &at, w.n_strips, kind);
        const uint32_t n = qn_min_u32(at.block_end, args->w.n_in / 64) - at.block;
        if (slots_max(kind) > 128 && at.n_slots > 128) {
            producer_blocks(&p, &r, n, 9, kind);
        } else if (at.n_slots > 96) {
            producer_blocks(&p, &r, n, 8, kind);
        } else if (at.n_slots > 64) {
            producer_blocks(&p, &r, n, 6, kind);
        } else if (at.n_slots > 32) {
            producer_blocks(&p, &r, n, 4, kind);
        } else {
            producer_blocks(&p, &r, n, 2, kind);
        }
        if (at.block + n < at.block_end) { /* a part of 64 inputs, then zeros */
            const int32_t left = (int32_t)(args->w.n_in % 64 * 2 - qn_thread() % 8 * 16);
            producer_block(&p, &r,
                           left >= 16 ? 16
                           : left > 0 ? (uint32_t)left
                                      : 0,
                           SLOTS / 16, kind);
        }
    }
    qn_mbar_wait(r.empty + 8 * r.stage, r.parity ^ 1);
    at.n_slots = 0;
    ring_put_piece(&r, &at);
    producer_tell(&r);
    qn_copy_wait(0);
}

/* Sums of a warp: [set][4 j ..] of slots 8 j .. 8 j + 7 as d of qn_mma_bf16(). */
typedef struct sums {
    float d[2][SLOTS / 2];
} sums;

/*
 * FP8: y = sum over blocks of m_i 2^e_i sum_i, 1 <= m_i < 2. 2^e_i goes into the weights, which
 * stay exact; the sums so far are kept in units of m_i: times m_(i - 1) / m_i when block i begins,
 * which adds 3 roundings a block, few beside the additions of its 128 products.
 */
typedef struct units {
    const uint8_t *scales[2]; /* of the lane's two outputs of a set */
    f32x2 next[2];
    f32x2 m[2];
    uint32_t bias[2][2]; /* 2^(120 + e) twice: by which codes in place are multiplied */
} units;

QN_DEV void units_begin(units *u, const qn_gpu_matmul_args *args, const piece *p)
{
    /* Strips behind the last one are not copied either: what comes of them is not stored. */
    const uint32_t n_strips = qn_tile_strips(args->w.n_out) << (args->w.is_pair ? 1 : 0);
    const uint32_t strip = qn_min_u32(p->strip + (qn_warp() - 4) * 2, n_strips - 2);
    QN_UNROLL(2)
    for (uint32_t s = 0; s < 2; s++) {
        u->scales[s] = args->w.scales + p->group * args->w.scales_stride +
                       (strip + s) * qn_tile_strip_scale_bytes(QN_GPU_W_FP8, args->w.n_in) +
                       qn_lane() / 4 * 8;
        u->next[s] = *(const f32x2 *)(u->scales[s] + 64 * (p->block / 2));
        u->m[s] = (f32x2){1, 1};
    }
}

QN_DEV void units_block(units *u, float *d, uint32_t s, uint32_t i_block, uint32_t n_blocks,
                        const uint32_t n)
{
    const f32x2 by = qn_fp8_next_units(&u->m[s], u->bias[s], u->next[s]);
    u->next[s] = *(const f32x2 *)(u->scales[s] + 64 * qn_min_u32(i_block + 1, n_blocks - 1));
    QN_UNROLL(72)
    for (uint32_t i = 0; i < n / 2; i++) {
        d[i] *= i % 4 < 2 ? by.x : by.y;
    }
}

/* What all lanes have alike, as ptxas sees it: loops over it keep to uniform registers. */
QN_DEV uint32_t uniform(uint32_t value)
{
    return qn_shuffle_u32(value, 0);
}

/* One piece: n slots, sums begin at 0. */
QN_DEV void multiply(sums *acc, const piece *p, ring *r, units *u, const uint32_t n,
                     const uint32_t kind)
{
    const uint32_t strip = (qn_warp() - 4) * 2;
    const uint32_t lane = qn_lane();
    const uint32_t n_tiles = strip_bytes(kind) / QN_TILE_BYTES;
    const uint32_t block = uniform(p->block);
    const uint32_t block_end = uniform(p->block_end);
    QN_UNROLL(72)
    for (uint32_t i = 0; i < n / 2; i++) {
        acc->d[0][i] = 0;
        acc->d[1][i] = 0;
    }
    QN_UNROLL(1)
    for (uint32_t b = block; b < block_end; b++) {
        const uint8_t *stage = r->stages + r->stage * stage_bytes(kind);
        const uint32_t x = qn_wgmma_matrix(qn_shared_address(stage));
        if (kind == QN_GPU_W_FP8 && b % 2 == 0) {
            units_block(u, acc->d[0], 0, b / 2, (block_end + 1) / 2, n);
            units_block(u, acc->d[1], 1, b / 2, (block_end + 1) / 2, n);
        }
        qn_mbar_wait(r->full + 8 * r->stage, r->parity);
        qn_fence_async_shared();
        QN_UNROLL(2)
        for (uint32_t s = 0; s < 2; s++) {
            const uint8_t *tiles = stage + X_BYTES + (strip + s) * strip_bytes(kind) + lane * 16;
            uint32_t scales = 0;
            if (kind == QN_GPU_W_MXFP4) {
                scales = *(const uint32_t *)(stage + X_BYTES + STRIPS * strip_bytes(kind) +
                                             (strip + s) * QN_TILE_SCALE_BYTES + lane / 4 * 4);
            }
            u32x4 raw[4];
            QN_UNROLL(4)
            for (uint32_t j = 0; j < n_tiles; j++) {
                raw[j] = qn_load_16(tiles + j * QN_TILE_BYTES);
            }
            uint32_t a[4][4];
            qn_expand_64(a, kind, raw, scales, u->bias[s]);
            qn_wgmma_fence();
            QN_UNROLL(4)
            for (uint32_t j = 0; j < 4; j++) {
                qn_wgmma_bf16(acc->d[s], a[j], x + 2 * j, n);
            }
            qn_wgmma_commit();
        }
        qn_wgmma_wait(0);
        qn_warp_barrier(); /* a lane arrives for all, who have read their tiles */
        if (lane == 0) {
            qn_mbar_arrive(r->empty + 8 * r->stage);
        }
        ring_next(r, kind);
    }
    if (kind == QN_GPU_W_FP8) {
        QN_UNROLL(72)
        for (uint32_t i = 0; i < n / 2; i++) {
            acc->d[0][i] *= i % 4 < 2 ? u->m[0].x : u->m[0].y;
            acc->d[1][i] *= i % 4 < 2 ? u->m[1].x : u->m[1].y;
        }
    }
}

/* As qn_silu(), 1 ULP further off: there a division is a call. */
QN_DEV float silu_mul(float gate, float up)
{
    return gate * qn_fast_rcp(1 + qn_fast_exp2(gate * -1.44269504F)) * up;
}

/* Where a warp's part of a piece goes. */
typedef struct place {
    uint8_t *y;         /* of the piece's first slot and output 0 */
    uint64_t row_bytes; /* from one slot to the next */
    uint32_t n_slots;
    uint32_t out, out_end; /* the warp's first output, one past the matrix's last */
} place;

/* f32: 8 lanes write 8 outputs of a slot, a whole sector. */
QN_DEV void store_f32(const place *at, const sums *acc, bool is_pair, bool adds)
{
    const uint32_t lane = qn_lane();
    QN_UNROLL(72)
    for (uint32_t i = 0; i < SLOTS / 2; i++) {
        const uint32_t slot = i / 4 * 8 + lane % 4 * 2 + i % 2;
        const uint32_t out = at->out + i / 2 % 2 * 8 + lane / 4;
        float *y = (float *)(at->y + slot * at->row_bytes) + out;
        if (slot >= at->n_slots || out >= at->out_end) {
            continue;
        }
        if (is_pair) {
            *y = silu_mul(acc->d[0][i], acc->d[1][i]);
        } else if (adds) { /* nobody else adds to it: fast because nothing is waited for */
            (void)qn_atomic_add_f32(y, acc->d[0][i]);
            if (out + 16 < at->out_end) {
                (void)qn_atomic_add_f32(y + 16, acc->d[1][i]);
            }
        } else {
            *y = acc->d[0][i];
            if (out + 16 < at->out_end) {
                y[16] = acc->d[1][i];
            }
        }
    }
}

/* 16 bytes of a slot's outputs, or what is left of the matrix. */
QN_DEV void store_chunk(const place *at, uint32_t slot, uint32_t out, u32x4 v)
{
    uint16_t *y = (uint16_t *)(at->y + slot * at->row_bytes) + out;
    if (slot >= at->n_slots) {
        return;
    }
    if (out + 8 <= at->out_end) {
        qn_store_16(y, v);
        return;
    }
    QN_UNROLL(8)
    for (uint32_t k = 0; k < 8; k++) {
        if (out + k < at->out_end) {
            y[k] = (uint16_t)(v[k / 2] >> k % 2 * 16);
        }
    }
}

/*
 * bf16: turned around by way of shared memory, 16 slots at a time, so that a lane writes 16 bytes.
 * A slot's 32 outputs (of a pair: 16) are a row of 64 bytes, whose chunk c lies at
 * c ^ (row / 2 % 4): neither side has bank conflicts.
 */
QN_DEV void store_bf16(const place *at, const sums *acc, uint8_t *room, const bool is_pair)
{
    const uint32_t lane = qn_lane();
    const uint32_t n_chunks = is_pair ? 2 : 4;
    QN_UNROLL(9)
    for (uint32_t first = 0; first < SLOTS; first += 16) {
        if (first >= at->n_slots) {
            continue;
        }
        qn_warp_barrier();
        QN_UNROLL(2)
        for (uint32_t j = 0; j < 2; j++) {
            const float *a = acc->d[0] + first / 2 + 4 * j;
            const float *b = acc->d[1] + first / 2 + 4 * j;
            uint32_t r[4] = {qn_f32_to_bf16x2(a[0], a[1]), qn_f32_to_bf16x2(a[2], a[3]),
                             qn_f32_to_bf16x2(b[0], b[1]), qn_f32_to_bf16x2(b[2], b[3])};
            if (is_pair) {
                r[0] = qn_f32_to_bf16x2(silu_mul(a[0], b[0]), silu_mul(a[1], b[1]));
                r[1] = qn_f32_to_bf16x2(silu_mul(a[2], b[2]), silu_mul(a[3], b[3]));
            }
            const uint32_t row = 8 * j + lane % 8;
            qn_stmatrix_trans(room + row * 64 + ((lane / 8 ^ (row / 2 & 3)) << 4), r);
        }
        qn_warp_barrier();
        QN_UNROLL(2)
        for (uint32_t i = lane; i < 16 * n_chunks; i += 32) {
            const uint32_t row = i / n_chunks;
            const uint32_t chunk = i % n_chunks;
            const u32x4 v = qn_load_16(room + row * 64 + ((chunk ^ (row / 2 & 3)) << 4));
            store_chunk(at, first + row, at->out + chunk * 8, v);
        }
    }
}

/*
 * Sums of a piece whose inputs are several blocks' work: each leaves its part in memory, and the
 * block that comes last adds all parts in their order.  False where this is another one.
 */
QN_DEV bool join(sums *acc, const qn_gpu_matmul_args *args, const ring *r, const piece *p)
{
    enum { PART = CONSUMERS * SLOTS };
    const uint32_t thread = qn_thread() - PRODUCERS;
    float *parts = args->partial + QN_GPU_COUNTERS_BYTES / 4 +
                   (uint64_t)p->number * args->n_splits * PART + thread * 4;
    QN_UNROLL(36)
    for (uint32_t i = 0; i < SLOTS / 4; i++) {
        if (i / 2 * 8 < p->n_slots) {
            const float *d = acc->d[i % 2] + i / 2 * 4;
            *(f32x4 *)(parts + p->part * PART + i * CONSUMERS * 4) =
                (f32x4){d[0], d[1], d[2], d[3]};
        }
    }
    qn_fence();
    qn_barrier_of(JOIN, CONSUMERS);
    if (thread == 0) {
        const uint32_t last = args->n_splits - 1;
        *r->is_last = qn_atomic_inc((uint32_t *)args->partial + p->number, last) == last;
    }
    qn_barrier_of(JOIN, CONSUMERS);
    if (*r->is_last == 0) {
        return false;
    }
    qn_fence();
    QN_UNROLL(72)
    for (uint32_t i = 0; i < SLOTS / 2; i++) {
        acc->d[0][i] = 0;
        acc->d[1][i] = 0;
    }
    QN_UNROLL(1)
    for (uint32_t part = 0; part < args->n_splits; part++) {
        QN_UNROLL(36)
        for (uint32_t i = 0; i < SLOTS / 4; i++) {
            if (i / 2 * 8 < p->n_slots) {
                const f32x4 v = *(const f32x4 *)(parts + part * PART + i * CONSUMERS * 4);
                float *d = acc->d[i % 2] + i / 2 * 4;
                d[0] += v.x;
                d[1] += v.y;
                d[2] += v.z;
                d[3] += v.w;
            }
        }
    }
    return true;
}

QN_DEV void store(const sums *acc, const qn_gpu_matmul_args *args, const ring *r, const piece *p)
{
    const bool is_pair = args->w.is_pair != 0;
    const uint32_t warp = qn_warp() - 4;
    const uint32_t y_bytes = args->y_dtype == QN_GPU_BF16 ? 2 : 4;
    const uint64_t y_group = args->first_of != NULL ? 0 : p->group * args->y_group_stride;
    const place at = {.y = (uint8_t *)args->y + (y_group + p->slot * args->y_stride) * y_bytes,
                      .row_bytes = args->y_stride * y_bytes,
                      .n_slots = p->n_slots,
                      .out = (p->strip + warp * 2) * (is_pair ? 8 : 16),
                      .out_end = args->w.n_out};
    uint8_t *room = r->out + warp * OUT_BYTES;
    if (args->y_dtype != QN_GPU_BF16) {
        store_f32(&at, acc, is_pair, args->epilogue == QN_GPU_ADD);
    } else if (is_pair) {
        store_bf16(&at, acc, room, true);
    } else {
        store_bf16(&at, acc, room, false);
    }
}

QN_DEV void consume(const qn_gpu_matmul_args *args, ring r, const uint32_t kind)
{
    QN_UNROLL(1)
    while (true) {
        qn_mbar_wait(r.full + 8 * r.stage, r.parity);
        const piece *p = &r.pieces[r.i_piece];
        const uint32_t n_slots = uniform(p->n_slots);
        if (n_slots == 0) {
            return;
        }
        sums acc;
        units u;
        if (kind == QN_GPU_W_FP8) {
            units_begin(&u, args, p);
        }
        if (slots_max(kind) > 128 && n_slots > 128) {
            multiply(&acc, p, &r, &u, 144, kind);
        } else if (n_slots > 96) {
            multiply(&acc, p, &r, &u, 128, kind);
        } else if (n_slots > 64) {
            multiply(&acc, p, &r, &u, 96, kind);
        } else if (n_slots > 32) {
            multiply(&acc, p, &r, &u, 64, kind);
        } else {
            multiply(&acc, p, &r, &u, 32, kind);
        }
        if (args->n_splits == 1 || join(&acc, args, &r, p)) {
            store(&acc, args, &r, p);
        }
        ring_next_piece(&r);
    }
}

QN_DEV void run(const qn_gpu_matmul_args *args, const uint32_t kind)
{
    QN_SHARED(uint64_t, bars, 2 * STAGES_MAX);
    QN_SHARED(piece, pieces, PIECES);
    QN_SHARED(uint32_t, is_last, 1);
    const uint32_t at = qn_shared_address(qn_dynamic_shared());
    uint8_t *stages = qn_dynamic_shared() + (1024 - at % 1024) % 1024;
    const ring r = {.stages = stages,
                    .out = stages + n_stages(kind) * stage_bytes(kind),
                    .pieces = pieces,
                    .is_last = is_last,
                    .full = qn_shared_address(bars),
                    .empty = qn_shared_address(bars) + 8 * STAGES_MAX};
    if (qn_thread() == 0) {
        for (uint32_t i = 0; i < n_stages(kind); i++) {
            qn_mbar_init(r.full + 8 * i, PRODUCERS + 1);
            qn_mbar_init(r.empty + 8 * i, CONSUMERS / QN_LANES);
        }
        qn_mbar_init_fence();
    }
    qn_barrier();
    if (qn_thread() < PRODUCERS) {
        qn_registers_shrink(PRODUCER_REGISTERS);
        produce(args, r, kind);
    } else {
        qn_registers_grow(CONSUMER_REGISTERS);
        consume(args, r, kind);
    }
}

QN_GPU_KERNEL(wgmma_bf16)
{
    run(args, QN_GPU_W_BF16);
}

QN_GPU_KERNEL(wgmma_fp8)
{
    run(args, QN_GPU_W_FP8);
}

QN_GPU_KERNEL(wgmma_mxfp4)
{
    run(args, QN_GPU_W_MXFP4);
}
