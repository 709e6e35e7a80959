/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel makes a product, and how its work is cut. */
#include "base/assert.h"
#include "kernels/gpu/list.h"
#include "kernels/gpu/tiles.h"
#include "kernels/gpu_matmul_few.h"
#include "kernels/gpu_matmul_wgmma.h"
#include "kernels/gpu_tuning.h"

/* ------------------------------------------------------------------------------------ plain -- */

static bool supports_plain(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    (void)shape;
    return qn_gpu_kernels_has(kernels, QN_GPU_KERNEL_matmul_plain);
}

static uint64_t no_bytes(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    (void)kernels;
    (void)shape;
    return 0;
}

/* Groups that can have slots. */
static uint32_t groups_of(const qn_gpu_matmul_shape *shape)
{
    const bool is_few = shape->is_grouped && shape->n_rows < shape->n_groups;
    return is_few ? shape->n_rows : shape->n_groups;
}

static void launch_plain(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                         const qn_gpu_matmul_shape *shape)
{
    const uint32_t grid[3] = {qn_tile_strips(args->w.n_out), groups_of(shape), 1};
    qn_gpu_ops_launch(ops, QN_GPU_KERNEL_matmul_plain, grid, 0, args, sizeof *args);
}

/* -------------------------------------------------------------------------------------- mma -- */

/* As kernels/gpu/sm90/matmul_mma.c has them. */
enum {
    MMA_WARPS = 8,
    MMA_STAGES = 4,
    MMA_SUMS_BYTES = MMA_WARPS * 8 * 36 * 4,
    MMA_SPLITS_MAX = 16,
};

/* Deterministic sums are those that are best for so many rows. */
enum { FEW_ROWS = 8, FEW_SLOTS = 64 };

/* A kind of weights. */
typedef struct mma_kind {
    uint32_t unit;       /* inputs of a warp in a stage */
    uint32_t unit_bytes; /* of two strips, with scales */
    uint32_t kernels[3]; /* for up to 16, 32 and, alone on a multiprocessor, 64 rows at a time */
    uint32_t n_pass_max;
} mma_kind;

static const mma_kind mma_kinds[] = {
    [QN_GPU_W_BF16] = {32,
                       2048,
                       {QN_GPU_KERNEL_mma_bf16, QN_GPU_KERNEL_mma_bf16_wide,
                        QN_GPU_KERNEL_mma_bf16_full},
                       64},
    [QN_GPU_W_FP8] = {64,
                      2176,
                      {QN_GPU_KERNEL_mma_fp8, QN_GPU_KERNEL_mma_fp8_wide,
                       QN_GPU_KERNEL_mma_fp8_wide},
                      32},
    [QN_GPU_W_MXFP4] = {128,
                        2176,
                        {QN_GPU_KERNEL_mma_mxfp4, QN_GPU_KERNEL_mma_mxfp4_wide,
                         QN_GPU_KERNEL_mma_mxfp4_wide},
                        32},
};

/* How the work of a launch is cut. */
typedef struct mma_plan {
    uint32_t log_strips, n_splits, n_pass; /* qn_gpu_matmul_args */
    uint32_t n_side;                       /* of strips side by side, in a group */
    uint32_t n_blocks_max;                 /* that run at once */
    uint32_t shared_bytes, i_kernel;
    bool is_alone; /* on a multiprocessor */
} mma_plan;

static bool supports_mma(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    bool has_all = shape->n_in % 8 == 0;
    for (uint32_t i = 0; i < 3; i++) {
        has_all = has_all && qn_gpu_kernels_has(kernels, mma_kinds[shape->kind].kernels[i]);
    }
    return has_all;
}

static uint32_t up_to_power(uint32_t n, uint32_t least, uint32_t most)
{
    uint32_t power = least;
    while (power < n && power < most) {
        power *= 2;
    }
    return power;
}

static uint32_t mma_shared_bytes(const mma_kind *kind, uint32_t log_strips, uint32_t n_pass)
{
    const uint32_t row_bytes = (kind->unit * 2 << (3 - log_strips)) + 16;
    return MMA_SUMS_BYTES + MMA_STAGES * (MMA_WARPS * kind->unit_bytes + n_pass * row_bytes);
}

static uint32_t side_of(const qn_gpu_matmul_shape *shape, uint32_t log_strips)
{
    const uint32_t n_strips = qn_tile_strips(shape->n_out) * (shape->is_pair != 0 ? 2 : 1);
    return (n_strips + (2U << log_strips) - 1) >> (1 + log_strips);
}

/* Rows that a group has, were all alike. */
static uint32_t group_rows(const qn_gpu_matmul_shape *shape)
{
    const uint32_t n = groups_of(shape);
    return shape->is_grouped ? (shape->n_rows + n - 1) / n : shape->n_rows;
}

/*
 * Time of a plan in bytes that a device reads: its items in turns of all blocks, an item costing
 * what it reads of weights, half of what it reads of rows (they lie in the L2 cache) and its end.
 * Splits cost a fence and, for the block that joins them, reads that wait for each other.
 */
static double mma_cost(const qn_gpu_matmul_shape *shape, const mma_plan *plan)
{
    const uint32_t n_group_rows = group_rows(shape);
    const mma_kind *kind = &mma_kinds[shape->kind];
    const uint32_t n_k = MMA_WARPS >> plan->log_strips;
    const uint32_t n_units = (qn_tile_pad(shape->n_in) + kind->unit - 1) / kind->unit;
    const uint32_t n_stages = ((n_units + plan->n_splits - 1) / plan->n_splits + n_k - 1) / n_k;
    const uint32_t n_passes = (n_group_rows + plan->n_pass - 1) / plan->n_pass;
    const uint32_t n_pass_rows = n_passes == 1 ? n_group_rows : plan->n_pass;
    const double stage = MMA_WARPS * kind->unit_bytes + n_pass_rows * n_k * kind->unit;
    double item = n_passes * (n_stages * stage + 10000.0);
    if (plan->n_splits > 1) {
        const double n_sums = (double)n_group_rows * (double)(32U << plan->log_strips);
        const uint32_t n_turns = (plan->n_splits + 7) / 8;
        item += 24000.0 + 4 * n_sums + 10.0 * n_sums * n_turns;
    }
    if (plan->is_alone) {
        item *= 1.4; /* nothing runs while a block waits */
    }
    const uint64_t n_items = (uint64_t)groups_of(shape) * plan->n_side * plan->n_splits;
    const uint64_t n_turns = (n_items + plan->n_blocks_max - 1) / plan->n_blocks_max;
    return item * (double)(n_turns * plan->n_blocks_max);
}

/* All that follows from the strips side by side. */
static mma_plan mma_plan_with(const qn_gpu_info *info, const qn_gpu_matmul_shape *shape,
                              uint32_t log_strips)
{
    const mma_kind *kind = &mma_kinds[shape->kind];
    /* Experts differ: some have thrice what most have. */
    const uint32_t n_most = group_rows(shape) * (shape->is_grouped ? 3 : 1);
    mma_plan plan = {.log_strips = log_strips,
                     .n_splits = 1,
                     .n_pass = up_to_power(n_most, 8, kind->n_pass_max),
                     .n_side = side_of(shape, log_strips)};
    while (plan.n_pass > 8 &&
           mma_shared_bytes(kind, log_strips, plan.n_pass) > info->shared_bytes) {
        plan.n_pass /= 2;
    }
    plan.shared_bytes = mma_shared_bytes(kind, log_strips, plan.n_pass);
    plan.i_kernel = kind->kernels[plan.n_pass <= 16 ? 0 : plan.n_pass <= 32 ? 1 : 2];
    plan.is_alone = plan.shared_bytes > info->shared_bytes / 2 || plan.n_pass > 32;
    plan.n_blocks_max = info->n_sms * (plan.is_alone ? 1 : 2);
    return plan;
}

/* The plan that is asked for, or the cheapest.  For deterministic sums, strips and splits are those
 * of few rows. */
static mma_plan mma_plan_of(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    const qn_gpu_info *info = qn_gpu_kernels_info(kernels);
    qn_gpu_matmul_shape at = *shape;
    at.n_rows = up_to_power(shape->n_rows, 1, 1U << 20);
    if (shape->is_deterministic) {
        at.n_rows = shape->is_grouped ? FEW_SLOTS : FEW_ROWS;
    }
    if (shape->n_splits > 0) { /* measured */
        const uint32_t log_strips = (uint32_t)__builtin_ctz(shape->n_strips) - 1;
        mma_plan plan = mma_plan_with(info, shape, log_strips);
        const bool may_split = shape->n_groups * plan.n_side <= QN_GPU_COUNTERS_BYTES / 4;
        plan.n_splits = may_split ? shape->n_splits : 1;
        return plan;
    }
    mma_plan best = {0};
    double best_cost = 0;
    for (uint32_t log_strips = 0; log_strips < 4; log_strips++) {
        mma_plan plan = mma_plan_with(info, &at, log_strips);
        const bool may_split = shape->n_groups * plan.n_side <= QN_GPU_COUNTERS_BYTES / 4;
        for (uint32_t n = 1; n <= (may_split ? MMA_SPLITS_MAX : 1); n++) {
            plan.n_splits = n;
            const double cost = mma_cost(&at, &plan);
            if (best_cost == 0 || cost < best_cost) {
                best = plan;
                best_cost = cost;
            }
        }
    }
    const uint32_t n_splits = best.n_splits;
    best = mma_plan_with(info, shape, best.log_strips);
    best.n_splits = n_splits;
    return best;
}

static uint64_t mma_partial_bytes(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    const mma_plan plan = mma_plan_of(kernels, shape);
    const uint64_t n_rows =
        shape->is_grouped ? shape->n_rows : (uint64_t)shape->n_rows * shape->n_groups;
    const uint64_t n_out = (uint64_t)plan.n_side * 32 << plan.log_strips;
    return plan.n_splits == 1 ? 0 : QN_GPU_COUNTERS_BYTES + plan.n_splits * n_rows * n_out * 4;
}

static void queue_mma(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                      const qn_gpu_matmul_shape *shape, bool is_dependent)
{
    const mma_plan plan = mma_plan_of(ops->kernels, shape);
    qn_gpu_matmul_args planned = *args;
    planned.log_strips = plan.log_strips;
    planned.n_splits = plan.n_splits;
    planned.n_pass = plan.n_pass;
    planned.is_dependent = is_dependent ? 1 : 0;
    QN_ASSERT(plan.n_splits == 1 || args->partial != NULL);
    const uint64_t n_items = (uint64_t)groups_of(shape) * plan.n_side * plan.n_splits;
    const uint32_t n_blocks = n_items < plan.n_blocks_max ? (uint32_t)n_items : plan.n_blocks_max;
    const uint32_t grid[3] = {n_blocks, 1, 1};
    if (is_dependent) {
        qn_gpu_ops_launch_dependent(ops, plan.i_kernel, grid, 0, plan.shared_bytes, &planned,
                                    sizeof planned);
    } else {
        qn_gpu_ops_launch(ops, plan.i_kernel, grid, plan.shared_bytes, &planned, sizeof planned);
    }
}

static void launch_mma(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                       const qn_gpu_matmul_shape *shape)
{
    queue_mma(ops, args, shape, false);
}

/* Which weights experts' products need is not known before the launch in front of them ends. */
static bool supports_mma_early(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    return !shape->is_grouped && supports_mma(kernels, shape);
}

static void launch_mma_early(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                             const qn_gpu_matmul_shape *shape)
{
    QN_ASSERT(args->first_of == NULL && args->row_of == NULL);
    queue_mma(ops, args, shape, true);
}

/* ----------------------------------------------------------------------------------- choice -- */

enum { PLAIN, MMA, MMA_EARLY, FEW, WGMMA };

const qn_gpu_matmul_variant qn_gpu_matmul_variants[] = {
    [PLAIN] = {"plain", supports_plain, no_bytes, launch_plain, false},
    [MMA] = {"sm90_mma", supports_mma, mma_partial_bytes, launch_mma, true},
    [MMA_EARLY] = {"sm90_mma/early", supports_mma_early, mma_partial_bytes, launch_mma_early, true},
    [FEW] = {"sm90_few", qn_gpu_few_supports, no_bytes, qn_gpu_few_launch, false},
    [WGMMA] = {"sm90_wgmma", qn_gpu_wgmma_supports, qn_gpu_wgmma_partial_bytes, qn_gpu_wgmma_launch,
               false},
};
const uint32_t qn_gpu_n_matmul_variants =
    sizeof qn_gpu_matmul_variants / sizeof *qn_gpu_matmul_variants;

static uint32_t choose_by_rule(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    if (qn_gpu_few_supports(kernels, shape)) {
        return FEW; /* of one row mma does o and the head in bf16 sooner, by some 5 % */
    }
    if (!shape->is_deterministic && qn_gpu_wgmma_supports(kernels, shape) &&
        qn_gpu_wgmma_pays(shape)) {
        return WGMMA;
    }
    return supports_mma(kernels, shape) ? MMA : PLAIN;
}

qn_gpu_choice qn_gpu_matmul_choose(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape)
{
    const qn_gpu_tuning_key key = qn_gpu_matmul_key(shape);
    const uint32_t n_few = shape->is_grouped ? FEW_SLOTS : FEW_ROWS;
    const qn_gpu_tuning_row *row = qn_gpu_tuning_find(
        qn_gpu_kernels_tuning(kernels), &key, shape->is_deterministic ? n_few : shape->n_rows);
    bool is_fallback = row != NULL;
    if (row != NULL && row->i_variant < qn_gpu_n_matmul_variants) {
        const qn_gpu_matmul_variant *variant = &qn_gpu_matmul_variants[row->i_variant];
        if (variant->supports(kernels, shape)) {
            return (qn_gpu_choice){row->i_variant, row->n_strips, row->n_splits,
                                   qn_gpu_tuning_source(row)};
        }
        /* That a row names what has no fixed order of sums is no fault of it. */
        qn_gpu_matmul_shape of_row = *shape;
        of_row.n_rows = row->n_rows;
        of_row.is_deterministic = false;
        is_fallback = !shape->is_deterministic || !variant->supports(kernels, &of_row);
    }
    const uint32_t i_variant = choose_by_rule(kernels, shape);
    return (qn_gpu_choice){.i_variant = i_variant,
                           .source = is_fallback || i_variant == PLAIN ? QN_GPU_FALLBACK
                                                                       : QN_GPU_DEFAULT};
}

/* Choose, and note in the shape what the choice says of the plan. */
static const qn_gpu_matmul_variant *take_choice(const qn_gpu_kernels *kernels,
                                                qn_gpu_matmul_shape *shape)
{
    const qn_gpu_choice choice = qn_gpu_matmul_choose(kernels, shape);
    shape->n_strips = choice.n_strips;
    shape->n_splits = choice.n_splits;
    return &qn_gpu_matmul_variants[choice.i_variant];
}

uint64_t qn_gpu_matmul_partial_bytes(const qn_gpu_kernels *kernels,
                                     const qn_gpu_matmul_shape *shape)
{
    qn_gpu_matmul_shape at = *shape;
    uint64_t n_most = 0;
    for (uint64_t n = 1; n < 2 * (uint64_t)shape->n_rows; n *= 2) { /* plans go by powers of two */
        at.n_rows = n < shape->n_rows ? (uint32_t)n : shape->n_rows;
        at.n_strips = at.n_splits = 0;
        /* Between two powers another variant may be chosen than at either. */
        const uint64_t n_mma = supports_mma(kernels, &at) ? mma_partial_bytes(kernels, &at) : 0;
        const uint64_t n_chosen = take_choice(kernels, &at)->partial_bytes(kernels, &at);
        n_most = n_mma > n_most ? n_mma : n_most;
        n_most = n_chosen > n_most ? n_chosen : n_most;
    }
    return n_most;
}

void qn_gpu_matmul(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args, bool is_deterministic)
{
    qn_gpu_matmul_shape shape = {
        .kind = args->w.kind,
        .n_out = args->w.n_out,
        .n_in = args->w.n_in,
        .is_pair = args->w.is_pair,
        .n_groups = args->n_groups,
        .n_rows = args->n_rows,
        .is_grouped = args->first_of != NULL,
        .is_deterministic = is_deterministic,
    };
    QN_ASSERT(args->first_of == NULL || (args->active != NULL && args->n_active != NULL));
    QN_ASSERT(args->epilogue != QN_GPU_ADD || args->y_dtype == QN_GPU_F32);
    if (args->n_rows == 0) {
        return;
    }
    take_choice(ops->kernels, &shape)->launch(ops, args, &shape);
}
