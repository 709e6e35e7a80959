/* SPDX-License-Identifier: Apache-2.0 */
/* Rows to experts and back. */
#include "kernels/gpu/probability.h"

/* ---------------------------------------------------------------------------------- router -- */

enum { LANE_EXPERTS = QN_GPU_EXPERTS_MAX / QN_LANES };

/*
 * One warp a row: lane l has experts l, l + QN_LANES, ...  Keys are above 0; 0 is none, or taken.
 */
QN_DEV uint32_t pick(uint32_t keys[LANE_EXPERTS])
{
    uint32_t key = 0;
    uint32_t expert = 0;
    QN_UNROLL(LANE_EXPERTS)
    for (uint32_t j = 0; j < LANE_EXPERTS; j++) {
        expert = keys[j] > key ? j * QN_LANES + qn_lane() : expert;
        key = keys[j] > key ? keys[j] : key;
    }
    qn_warp_best(&key, &expert);
    QN_UNROLL(LANE_EXPERTS)
    for (uint32_t j = 0; j < LANE_EXPERTS; j++) {
        keys[j] = expert == j * QN_LANES + qn_lane() ? 0 : keys[j];
    }
    return expert;
}

QN_GPU_KERNEL(router)
{
    const uint32_t row = qn_block_x() * (QN_GPU_router_THREADS / QN_LANES) + qn_warp();
    if (row >= args->n_rows) {
        return;
    }
    const float *logits = args->logits + (uint64_t)row * args->logits_stride;
    int32_t *experts = args->experts + (uint64_t)row * args->n_used;
    float *weights = args->weights + (uint64_t)row * args->n_used;
    const uint32_t lane = qn_lane();
    float own_logits[LANE_EXPERTS];
    float own_bias[LANE_EXPERTS];
    QN_UNROLL(LANE_EXPERTS)
    for (uint32_t j = 0; j < LANE_EXPERTS; j++) { /* no condition: all loads are under way */
        const uint32_t e = qn_min_u32(j * QN_LANES + lane, args->n_experts - 1);
        own_logits[j] = logits[e];
        own_bias[j] = args->bias[e];
    }
    if (args->positions[row] < 0) {
        for (uint32_t i = lane; i < args->n_used; i += QN_LANES) {
            experts[i] = -1;
            weights[i] = 0;
        }
        return;
    }
    uint32_t keys[LANE_EXPERTS];
    QN_UNROLL(LANE_EXPERTS)
    for (uint32_t j = 0; j < LANE_EXPERTS; j++) {
        const float score = qn_sigmoid(own_logits[j]) + own_bias[j];
        keys[j] = j * QN_LANES + lane < args->n_experts ? qn_order_key(score) + 1 : 0;
    }
    float sum = 0;
    float weight = 0;
    for (uint32_t first = 0; first < args->n_used; first += QN_LANES) {
        const uint32_t n = qn_min_u32(args->n_used - first, QN_LANES);
        uint32_t expert = 0; /* lane i's is choice first + i */
        if (args->keep_experts) {
            expert = lane < n ? (uint32_t)experts[first + lane] : 0;
        } else {
            for (uint32_t i = 0; i < n; i++) {
                const uint32_t next = pick(keys);
                expert = i == lane ? next : expert;
            }
        }
        weight = qn_sigmoid(logits[expert]);
        for (uint32_t i = 0; i < n; i++) {
            sum += qn_shuffle_f32(weight, i);
        }
        if (lane < n) {
            experts[first + lane] = (int32_t)expert;
            weights[first + lane] = weight;
        }
    }
    const float divisor = args->norm_topk ? sum + 1e-20F : 1.0F;
    for (uint32_t i = lane; i < args->n_used; i += QN_LANES) {
        const float own = args->n_used <= QN_LANES ? weight : weights[i];
        weights[i] = own / divisor * args->routed_scale;
    }
}

/* ----------------------------------------------------------------------------------- group -- */

enum {
    GROUP_THREADS = QN_GPU_group_THREADS,
    GROUP_WARPS = GROUP_THREADS / QN_LANES,
    N_EXPERTS = QN_GPU_EXPERTS_MAX,
    EXPERT_BITS = 8,
    N_PARTS = GROUP_THREADS / N_EXPERTS,
    COUNT_BATCH = 16, /* loads of a thread that are under way while it counts */
    PLACE_BATCH = 4,  /* and while it gives slots */
};
_Static_assert(N_EXPERTS == 1 << EXPERT_BITS, "an expert is told by its bits");

/*
 * Counts of the ranges of n_warps, [n_warps][N_EXPERTS]: each becomes the sum of those of the warps
 * before.  Returns the sum of all for expert qn_thread().
 */
QN_DEV uint32_t count_pairs(uint32_t *counts, const int32_t *experts, uint32_t n_experts,
                            uint32_t n_warps, uint32_t first, uint32_t end)
{
    const uint32_t thread = qn_thread();
    for (uint32_t i = thread; i < n_warps * N_EXPERTS; i += GROUP_THREADS) {
        counts[i] = 0;
    }
    qn_barrier();
    QN_UNROLL(1)
    for (uint32_t i = first + qn_lane(); i < end; i += COUNT_BATCH * QN_LANES) {
        uint32_t e[COUNT_BATCH];
        QN_UNROLL(COUNT_BATCH)
        for (uint32_t j = 0; j < COUNT_BATCH; j++) {
            e[j] = (uint32_t)experts[qn_min_u32(i + j * QN_LANES, end - 1)];
        }
        QN_UNROLL(COUNT_BATCH)
        for (uint32_t j = 0; j < COUNT_BATCH; j++) {
            if (e[j] < n_experts && i + j * QN_LANES < end) {
                (void)qn_atomic_add(&counts[qn_warp() * N_EXPERTS + e[j]], 1);
            }
        }
    }
    qn_barrier();
    uint32_t n = 0;
    for (uint32_t w = 0; w < n_warps && thread < N_EXPERTS; w++) {
        const uint32_t own = counts[w * N_EXPERTS + thread];
        counts[w * N_EXPERTS + thread] = n;
        n += own;
    }
    return n;
}

/* Sum of the values of the threads before this one; N_EXPERTS threads have one. */
QN_DEV uint32_t sum_before(uint32_t value, uint32_t *part)
{
    uint32_t sum = value;
    for (uint32_t delta = 1; delta < QN_LANES; delta *= 2) {
        const uint32_t other = qn_shuffle_up_u32(sum, delta);
        sum += qn_lane() >= delta ? other : 0;
    }
    if (qn_lane() == QN_LANES - 1) {
        part[qn_warp()] = sum;
    }
    qn_barrier();
    for (uint32_t w = 0; w < qn_warp() && w < N_EXPERTS / QN_LANES; w++) {
        sum += part[w];
    }
    return sum - value;
}

/* Experts with slots by falling number of these: each is counted past by those before it. */
QN_DEV void list_active(const qn_gpu_group_args *args, const uint32_t *totals, uint32_t *ranks)
{
    const uint32_t e = qn_thread() % N_EXPERTS;
    const uint32_t first = qn_thread() / N_EXPERTS * (N_EXPERTS / N_PARTS);
    const uint32_t own = totals[e];
    uint32_t n_before = 0;
    for (uint32_t i = first; i < first + N_EXPERTS / N_PARTS && own > 0; i += 4) {
        const u32x4 others = qn_load_16(totals + i);
        QN_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            n_before += others[j] > own || (others[j] == own && i + j < e) ? 1 : 0;
        }
    }
    (void)qn_atomic_add(&ranks[e], n_before);
    qn_barrier();
    if (qn_thread() < args->n_experts && own > 0) {
        args->active[ranks[e]] = e;
        (void)qn_atomic_add(&ranks[N_EXPERTS], 1);
    }
    qn_barrier();
    if (qn_thread() == 0) {
        *args->n_active = ranks[N_EXPERTS];
    }
}

/* What a warp needs to give slots. */
typedef struct placing {
    uint32_t *counts;            /* of its pairs that have a slot, by expert */
    const uint32_t *starts;      /* [N_EXPERTS] */
    uint32_t first_own, end_own; /* experts of this block */
    bool has_rest;               /* and those without an expert */
} placing;

/* Slot of each lane's pair, which chose e; the lanes' pairs are in order. */
QN_DEV void place_pairs(const qn_gpu_group_args *args, const placing *to, uint32_t e, uint32_t at)
{
    const bool has_slot = e >= to->first_own && e < to->end_own;
    if (qn_any(has_slot)) {
        const uint64_t same = qn_same_lanes(has_slot ? e : N_EXPERTS, EXPERT_BITS + 1);
        const uint32_t rank = qn_popc(same & (((uint64_t)1 << qn_lane()) - 1));
        const uint32_t n_before = has_slot ? to->counts[e] : 0;
        qn_warp_barrier();
        if (has_slot && rank == 0) {
            to->counts[e] = n_before + qn_popc(same);
        }
        qn_warp_barrier();
        if (has_slot) {
            const uint32_t slot = to->starts[e] + n_before + rank;
            args->slot_of[at] = slot;
            args->row_of[slot] = at / args->n_used;
        }
    }
    if (to->has_rest && e == N_EXPERTS) {
        args->slot_of[at] = UINT32_MAX;
    }
}

/*
 * Each warp has a range of pairs: it counts them by expert, finds where its own begin, and gives
 * them slots, QN_LANES pairs at a time.  Each block does that for some of the experts: one block
 * would take long for many scattered stores.
 */
QN_GPU_KERNEL(group)
{
    QN_SHARED(uint32_t, counts, GROUP_WARPS * N_EXPERTS);
    QN_SHARED(uint32_t, totals, N_EXPERTS);
    QN_SHARED(uint32_t, starts, N_EXPERTS);
    QN_SHARED(uint32_t, ranks, N_EXPERTS + 1);
    QN_SHARED(uint32_t, part, GROUP_WARPS);
    const uint32_t thread = qn_thread();
    const uint32_t n_pairs = args->n_rows * args->n_used;
    const uint32_t n_own = (n_pairs + GROUP_THREADS - 1) / GROUP_THREADS * QN_LANES;
    const uint32_t first = qn_min_u32(qn_warp() * n_own, n_pairs);
    const uint32_t end = qn_min_u32(first + n_own, n_pairs);
    const uint32_t n_warps = n_own > 0 ? (n_pairs + n_own - 1) / n_own : 0; /* that have pairs */
    const uint32_t total = count_pairs(counts, args->experts, args->n_experts, n_warps, first, end);
    const uint32_t start = sum_before(total, part);
    if (thread < N_EXPERTS) {
        totals[thread] = total;
        starts[thread] = start;
        ranks[thread] = 0;
    }
    if (thread == 0) {
        ranks[N_EXPERTS] = 0;
    }
    if (qn_block_x() == 0 && thread < args->n_experts) {
        args->first_of[thread] = start;
    }
    if (qn_block_x() == 0 && thread == args->n_experts - 1) {
        args->first_of[args->n_experts] = start + total;
    }
    qn_barrier();
    if (qn_block_x() == 0) {
        list_active(args, totals, ranks);
    }
    const uint32_t n_experts_own = N_EXPERTS / qn_blocks_x();
    const placing to = {
        .counts = counts + qn_warp() * N_EXPERTS,
        .starts = starts,
        .first_own = qn_block_x() * n_experts_own,
        .end_own = (qn_block_x() + 1) * n_experts_own,
        .has_rest = qn_block_x() == 0,
    };
    QN_UNROLL(1)
    for (uint32_t base = first; base < end; base += PLACE_BATCH * QN_LANES) {
        uint32_t e[PLACE_BATCH];
        QN_UNROLL(PLACE_BATCH)
        for (uint32_t j = 0; j < PLACE_BATCH; j++) {
            const uint32_t at = base + j * QN_LANES + qn_lane();
            const uint32_t chosen = (uint32_t)args->experts[qn_min_u32(at, end - 1)];
            const bool is_there = chosen < args->n_experts;
            e[j] = at >= end ? UINT32_MAX : is_there ? chosen : N_EXPERTS;
        }
        QN_UNROLL(PLACE_BATCH)
        for (uint32_t j = 0; j < PLACE_BATCH; j++) {
            place_pairs(args, &to, e[j], base + j * QN_LANES + qn_lane());
        }
    }
}

/* --------------------------------------------------------------------------------- combine -- */

/* Outputs of a row's experts that are under way at once: 16 bytes of bf16, or 32 of f32, each. */
enum { BATCH_BF16 = 8, BATCH_F32 = 4 };

/* Add the outputs of experts first .. first + BATCH_BF16 - 1 to eight columns of a row. */
QN_DEV void add_bf16(float sum[8], const qn_gpu_combine_args *args, uint64_t pair, uint32_t n,
                     uint32_t column)
{
    u32x4 y[BATCH_BF16];
    float weights[BATCH_BF16];
    QN_UNROLL(BATCH_BF16)
    for (uint32_t i = 0; i < BATCH_BF16; i++) {
        const uint32_t slot = i < n ? args->slot_of[pair + i] : UINT32_MAX;
        y[i] = (u32x4){0, 0, 0, 0};
        weights[i] = 0;
        if (slot != UINT32_MAX) {
            y[i] = qn_stream_16((const uint16_t *)args->y + (uint64_t)slot * args->n_embd + column);
            weights[i] = args->weights[pair + i];
        }
    }
    QN_UNROLL(BATCH_BF16)
    for (uint32_t i = 0; i < BATCH_BF16; i++) {
        QN_UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            sum[2 * j] = qn_fma(weights[i], qn_bf16_low(y[i][j]), sum[2 * j]);
            sum[2 * j + 1] = qn_fma(weights[i], qn_bf16_high(y[i][j]), sum[2 * j + 1]);
        }
    }
}

QN_DEV void add_f32(float sum[8], const qn_gpu_combine_args *args, uint64_t pair, uint32_t n,
                    uint32_t column)
{
    f32x4 y[2 * BATCH_F32];
    float weights[BATCH_F32];
    QN_UNROLL(BATCH_F32)
    for (uint32_t i = 0; i < BATCH_F32; i++) {
        const uint32_t slot = i < n ? args->slot_of[pair + i] : UINT32_MAX;
        y[2 * i] = (f32x4){0, 0, 0, 0};
        y[2 * i + 1] = (f32x4){0, 0, 0, 0};
        weights[i] = 0;
        if (slot != UINT32_MAX) {
            const float *from = (const float *)args->y + (uint64_t)slot * args->n_embd + column;
            y[2 * i] = __builtin_bit_cast(f32x4, qn_stream_16(from));
            y[2 * i + 1] = __builtin_bit_cast(f32x4, qn_stream_16(from + 4));
            weights[i] = args->weights[pair + i];
        }
    }
    QN_UNROLL(BATCH_F32)
    for (uint32_t i = 0; i < BATCH_F32; i++) {
        QN_UNROLL(8)
        for (uint32_t j = 0; j < 8; j++) {
            sum[j] = qn_fma(weights[i], y[2 * i + j / 4][j % 4], sum[j]);
        }
    }
}

/* A thread has eight columns of one row: block y says which, block x is the row. */
QN_GPU_KERNEL(combine)
{
    const uint32_t column = 8 * (qn_block_y() * QN_GPU_combine_THREADS + qn_thread());
    if (column >= args->n_embd) {
        return;
    }
    const uint64_t row = qn_block_x();
    const uint64_t at = row * args->n_embd + column;
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (args->shared != NULL) {
        QN_UNROLL(2)
        for (uint32_t i = 0; i < 2; i++) {
            const u32x4 shared = qn_stream_16(args->shared + at + 4 * i);
            QN_UNROLL(4)
            for (uint32_t j = 0; j < 4; j++) {
                sum[4 * i + j] = qn_f32_from_bits(shared[j]);
            }
        }
    }
    const f32x4 x0 = __builtin_bit_cast(f32x4, qn_load_16(args->x + at));
    const f32x4 x1 = __builtin_bit_cast(f32x4, qn_load_16(args->x + at + 4));
    const uint64_t pair = row * args->n_used;
    if (args->y_dtype == QN_GPU_BF16) {
        QN_UNROLL(1)
        for (uint32_t i = 0; i < args->n_used; i += BATCH_BF16) {
            add_bf16(sum, args, pair + i, args->n_used - i, column);
        }
    } else {
        QN_UNROLL(1)
        for (uint32_t i = 0; i < args->n_used; i += BATCH_F32) {
            add_f32(sum, args, pair + i, args->n_used - i, column);
        }
    }
    const f32x4 y0 = x0 + (f32x4){sum[0], sum[1], sum[2], sum[3]};
    const f32x4 y1 = x1 + (f32x4){sum[4], sum[5], sum[6], sum[7]};
    qn_store_16(args->x + at, __builtin_bit_cast(u32x4, y0));
    qn_store_16(args->x + at + 4, __builtin_bit_cast(u32x4, y1));
}
