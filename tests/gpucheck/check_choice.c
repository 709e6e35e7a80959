/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/choice.c. */
#include "gpucheck.h"

#include <string.h>

/* ----------------------------------------------------------------------------------- router -- */

/* What the rows of a router check are like. */
typedef enum router_kind {
    ROUTER_NORMAL,
    ROUTER_EQUAL,   /* all scores tie */
    ROUTER_SPECIAL, /* NaN, Inf, -Inf, repeated logits without bias */
    ROUTER_WIDE,    /* sigmoids of 0 and 1 */
    ROUTER_N_KINDS,
} router_kind;

static float special_logit(gc *run)
{
    static const float values[] = {NAN, INFINITY, -INFINITY, 0.5F, -0.25F, 1.0F};
    return values[gc_below(run, 6)];
}

/* Is e the best that is left, or so near that another rounding of expf() may prefer it? */
static bool may_be_next(const float *scores, const float *logits, const float *bias, uint32_t e,
                        uint32_t best)
{
    const double slack = 0x1p-22 * (1.0 + fabs((double)bias[e]) + fabs((double)bias[best]));
    return e == best || ((logits[e] != logits[best] || bias[e] != bias[best]) &&
                         fabs((double)scores[e] - (double)scores[best]) <= slack);
}

/* The row's choice is the reference's, and its weights are those of the choice. */
static void router_row(gc *run, const qn_gpu_router_args *a, const float *logits, const float *bias,
                       const int32_t *experts, const float *weights)
{
    int32_t best[QN_GPU_EXPERTS_MAX];
    float scores[QN_GPU_EXPERTS_MAX];
    float ignored[QN_GPU_EXPERTS_MAX];
    const qn_router_args args = {best,      ignored, logits,          bias, scores, a->n_experts,
                                 a->n_used, false,   a->routed_scale, false};
    run->ref.router(&args);
    double sum = 0.0;
    for (uint32_t i = 0; i < a->n_used; i++) {
        const uint32_t e = (uint32_t)experts[i];
        if (!a->keep_experts &&
            (e >= a->n_experts || !may_be_next(scores, logits, bias, e, (uint32_t)best[i]))) {
            gc_fail(run, "choice %u is expert %d, %d expected", i, experts[i], best[i]);
            return;
        }
        for (uint32_t j = 0; j < i && !a->keep_experts; j++) {
            if (experts[j] == experts[i]) {
                gc_fail(run, "expert %u is chosen twice", e);
            }
        }
        sum += 1.0 / (1.0 + exp(-(double)logits[e]));
    }
    for (uint32_t i = 0; i < a->n_used; i++) {
        const double own = 1.0 / (1.0 + exp(-(double)logits[experts[i]]));
        const double want = (double)a->routed_scale * (a->norm_topk ? own / (sum + 1e-20) : own);
        const double size = 16.0 * 0x1p-24 * fabs(want) + 1e-38;
        gc_close(run, "weight", weights + i, &want, &size, 1);
    }
}

static void router_case(gc *run, uint32_t n_rows, uint32_t n, uint32_t n_used, router_kind kind,
                        bool keeps)
{
    gc_begin(run, "%u rows, %u of %u, kind %d%s", n_rows, n_used, n, (int)kind,
             keeps ? ", experts given" : "");
    const uint32_t stride = (n + 3) / 4 * 4 + 8;
    float *logits = gc_floats(run, (size_t)n_rows * stride, GC_NORMAL);
    float *bias = gc_floats(run, n, kind == ROUTER_NORMAL ? GC_UNIFORM : GC_ZERO);
    int32_t *positions = gc_host(run, n_rows * sizeof *positions);
    int32_t *given = gc_host(run, (size_t)n_rows * n_used * sizeof *given);
    for (size_t i = 0; i < (size_t)n_rows * stride; i++) {
        logits[i] = kind == ROUTER_EQUAL     ? 0.75F
                    : kind == ROUTER_SPECIAL ? special_logit(run)
                    : kind == ROUTER_WIDE    ? 60.0F * logits[i]
                                             : logits[i];
    }
    if (kind == ROUTER_NORMAL) { /* the first row takes the last expert: one that misses it shows */
        logits[n - 1] = 30.0F;
        bias[n - 1] = 1.0F;
    }
    for (uint32_t t = 0; t < n_rows; t++) {
        positions[t] = t % 4 == 1 ? -1 : (int32_t)t;
        for (uint32_t i = 0; i < n_used; i++) {
            given[t * n_used + i] = (int32_t)((t + 7 * i) % n);
        }
    }
    const size_t n_choices = (size_t)n_rows * n_used;
    const qn_gpu_router_args args = {
        .experts = keeps ? gc_inout(run, given, n_choices * sizeof *given)
                         : gc_out(run, n_choices * sizeof *given),
        .weights = gc_out(run, n_choices * sizeof(float)),
        .logits = gc_in(run, logits, (size_t)n_rows * stride * sizeof *logits),
        .bias = gc_in(run, bias, n * sizeof *bias),
        .positions = gc_in(run, positions, n_rows * sizeof *positions),
        .n_rows = n_rows,
        .n_experts = n,
        .n_used = n_used,
        .logits_stride = stride,
        .routed_scale = 2.5F,
        .norm_topk = kind % 2 == 0,
        .keep_experts = keeps,
    };
    qn_gpu_router(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const int32_t *experts = gc_got(run, args.experts);
    const float *weights = gc_got(run, args.weights);
    for (uint32_t t = 0; t < n_rows; t++) {
        const size_t at = (size_t)t * n_used;
        if (positions[t] >= 0) {
            router_row(run, &args, logits + (size_t)t * stride, bias, experts + at, weights + at);
        }
        for (uint32_t i = 0; i < n_used; i++) {
            if (positions[t] >= 0 ? keeps && experts[at + i] != given[at + i]
                                  : experts[at + i] != -1 || weights[at + i] != 0.0F) {
                gc_fail(run, "row %u: expert %d, weight %g", t, experts[at + i],
                        (double)weights[at + i]);
            }
        }
    }
    gc_end(run);
}

static void check_router(gc *run)
{
    static const uint32_t shapes[][2] = {{1, 1}, {8, 2}, {24, 4}, {33, 33}, {256, 8}, {256, 256}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (router_kind kind = 0; kind < ROUTER_N_KINDS; kind++) {
            router_case(run, 6, shapes[i][0], shapes[i][1], kind, false);
        }
        router_case(run, 5, shapes[i][0], shapes[i][1], ROUTER_NORMAL, true);
    }
    router_case(run, 1, 256, 8, ROUTER_NORMAL, false);
    router_case(run, run->is_emulated ? 37 : 3001, 256, 8, ROUTER_NORMAL, false);
}

static void router_wrong_bias(void *args)
{
    qn_gpu_router_args *a = args;
    a->bias = a->logits;
}

static void router_forgets_scale(void *args)
{
    ((qn_gpu_router_args *)args)->routed_scale = 1.0F;
}

static void router_never_normalises(void *args)
{
    ((qn_gpu_router_args *)args)->norm_topk = 0;
}

static void router_misses_last_expert(void *args)
{
    qn_gpu_router_args *a = args;
    a->n_experts -= a->n_experts > a->n_used ? 1 : 0;
}

static void router_computes_padding(void *args)
{
    qn_gpu_router_args *a = args;
    a->positions = (const int32_t *)(const void *)a->bias;
}

/* ------------------------------------------------------------------------------------ group -- */

/* Whom the pairs of a check choose. */
typedef enum group_kind {
    GROUP_RANDOM,
    GROUP_ONE,
    GROUP_NONE,
    GROUP_FEW,
    GROUP_N_KINDS
} group_kind;

static int32_t some_expert(gc *run, group_kind kind, uint32_t n_experts)
{
    switch (kind) {
    case GROUP_ONE: return (int32_t)n_experts - 1;
    case GROUP_NONE: return -1;
    case GROUP_FEW: return (int32_t)gc_below(run, n_experts < 3 ? n_experts : 3);
    default: return (int32_t)gc_below(run, n_experts + n_experts / 8 + 1) - (int32_t)n_experts / 8;
    }
}

/* What group is to give. */
typedef struct groups {
    uint32_t *first_of, *row_of, *slot_of, *active;
    uint32_t n_active, n_slots;
} groups;

static groups group_oracle(gc *run, const int32_t *experts, uint32_t n_pairs, uint32_t n_used,
                           uint32_t n_experts)
{
    groups want = {
        .first_of = gc_host(run, (n_experts + 1) * sizeof(uint32_t)),
        .row_of = gc_host(run, n_pairs * sizeof(uint32_t)),
        .slot_of = gc_host(run, n_pairs * sizeof(uint32_t)),
        .active = gc_host(run, n_experts * sizeof(uint32_t)),
    };
    memset(want.slot_of, 0xff, n_pairs * sizeof *want.slot_of);
    for (uint32_t e = 0; e < n_experts; e++) {
        want.first_of[e] = want.n_slots;
        for (uint32_t i = 0; i < n_pairs; i++) {
            if (experts[i] == (int32_t)e) {
                want.row_of[want.n_slots] = i / n_used;
                want.slot_of[i] = want.n_slots++;
            }
        }
    }
    want.first_of[n_experts] = want.n_slots;
    for (uint32_t e = 0; e < n_experts; e++) {
        const uint32_t n = want.first_of[e + 1] - want.first_of[e];
        uint32_t at = n > 0 ? want.n_active++ : 0;
        for (; n > 0 && at > 0; at--) { /* insertion: equals stay in order */
            const uint32_t other = want.active[at - 1];
            if (want.first_of[other + 1] - want.first_of[other] >= n) {
                break;
            }
            want.active[at] = other;
        }
        if (n > 0) {
            want.active[at] = e;
        }
    }
    return want;
}

static void group_case(gc *run, uint32_t n_rows, uint32_t n_used, uint32_t n_experts,
                       group_kind kind)
{
    gc_begin(run, "%u x %u to %u experts, kind %d", n_rows, n_used, n_experts, (int)kind);
    const uint32_t n = n_rows * n_used;
    int32_t *experts = gc_host(run, n * sizeof *experts);
    for (uint32_t i = 0; i < n; i++) {
        const int32_t e = some_expert(run, kind, n_experts);
        experts[i] = e < 0 ? -1 : e;
    }
    const qn_gpu_group_args args = {
        .first_of = gc_out(run, (n_experts + 1) * sizeof(uint32_t)),
        .row_of = gc_out(run, n * sizeof(uint32_t)),
        .slot_of = gc_out(run, n * sizeof(uint32_t)),
        .active = gc_out(run, n_experts * sizeof(uint32_t)),
        .n_active = gc_out(run, sizeof(uint32_t)),
        .experts = gc_in(run, experts, n * sizeof *experts),
        .n_rows = n_rows,
        .n_used = n_used,
        .n_experts = n_experts,
    };
    qn_gpu_group(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const groups want = group_oracle(run, experts, n, n_used, n_experts);
    gc_same(run, "first_of", gc_got(run, args.first_of), want.first_of,
            (n_experts + 1) * sizeof(uint32_t));
    gc_same(run, "row_of", gc_got(run, args.row_of), want.row_of, want.n_slots * sizeof(uint32_t));
    gc_same(run, "slot_of", gc_got(run, args.slot_of), want.slot_of, n * sizeof(uint32_t));
    gc_same(run, "active", gc_got(run, args.active), want.active, want.n_active * sizeof(uint32_t));
    gc_same(run, "n_active", gc_got(run, args.n_active), &want.n_active, sizeof(uint32_t));
    gc_untouched(run, "row_of behind the slots",
                 (const uint32_t *)gc_got(run, args.row_of) + want.n_slots,
                 (n - want.n_slots) * sizeof(uint32_t));
    gc_end(run);
}

static void check_group(gc *run)
{
    static const uint32_t shapes[][3] = {{0, 8, 256}, {1, 1, 1},   {1, 8, 256},
                                         {5, 3, 7},   {64, 8, 32}, {541, 8, 250}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (group_kind kind = 0; kind < GROUP_N_KINDS; kind++) {
            group_case(run, shapes[i][0], shapes[i][1], shapes[i][2], kind);
        }
    }
    if (!run->is_emulated) {
        group_case(run, 8192, 8, 256, GROUP_RANDOM);
        group_case(run, 8191, 8, 256, GROUP_ONE);
    }
}

static void group_misses_last_row(void *args)
{
    qn_gpu_group_args *a = args;
    a->n_rows -= a->n_rows > 0 ? 1 : 0;
}

static void group_wrong_row(void *args)
{
    qn_gpu_group_args *a = args;
    a->n_rows *= a->n_used;
    a->n_used = 1;
}

static void group_misses_last_expert(void *args)
{
    qn_gpu_group_args *a = args;
    a->n_experts -= a->n_experts > 1 ? 1 : 0;
}

/* ---------------------------------------------------------------------------------- combine -- */

static void combine_case(gc *run, uint32_t n_rows, uint32_t n_used, uint32_t n, uint32_t dtype,
                         bool with_shared)
{
    gc_begin(run, "%u rows, %u used, %u wide, %s%s", n_rows, n_used, n,
             dtype == QN_GPU_F32 ? "f32" : "bf16", with_shared ? ", shared" : "");
    const size_t n_x = (size_t)n_rows * n;
    const uint32_t n_slots = n_rows * n_used;
    float *x = gc_floats(run, n_x, GC_NORMAL);
    const float *shared = gc_floats(run, n_x, GC_NORMAL);
    const uint16_t *y_bf16 = gc_bf16s(run, (size_t)n_slots * n, GC_NORMAL);
    const float *y = gc_from_bf16(run, y_bf16, (size_t)n_slots * n);
    const float *weights = gc_floats(run, n_slots, GC_UNIFORM);
    uint32_t *slots = gc_host(run, n_slots * sizeof *slots);
    for (uint32_t i = 0; i < n_slots; i++) {
        const bool is_none = gc_below(run, 5) == 0;
        /* The first row's last expert is there: one that misses it shows. */
        slots[i] = is_none && i + 1 != n_used ? UINT32_MAX : gc_below(run, n_slots);
    }
    const qn_gpu_combine_args args = {
        .x = gc_inout(run, x, n_x * sizeof *x),
        .shared = with_shared ? gc_in(run, shared, n_x * sizeof *shared) : NULL,
        .y = dtype == QN_GPU_F32 ? gc_in(run, y, (size_t)n_slots * n * sizeof *y)
                                 : gc_in(run, y_bf16, (size_t)n_slots * n * sizeof *y_bf16),
        .weights = gc_in(run, weights, n_slots * sizeof *weights),
        .slot_of = gc_in(run, slots, n_slots * sizeof *slots),
        .n_rows = n_rows,
        .n_used = n_used,
        .n_embd = n,
        .y_dtype = dtype,
    };
    qn_gpu_combine(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    for (size_t i = 0; i < n_x; i++) {
        float sum = with_shared ? shared[i] : 0.0F;
        for (uint32_t j = 0; j < n_used; j++) {
            const size_t pair = i / n * n_used + j;
            if (slots[pair] != UINT32_MAX) {
                sum = fmaf(weights[pair], y[(size_t)slots[pair] * n + i % n], sum);
            }
        }
        x[i] += sum;
    }
    gc_same(run, "x", gc_got(run, args.x), x, n_x * sizeof *x);
    gc_end(run);
}

static void check_combine(gc *run)
{
    for (uint32_t dtype = QN_GPU_F32; dtype <= QN_GPU_BF16; dtype++) {
        combine_case(run, 1, 8, 6144, dtype, true);
        combine_case(run, 7, 8, 16, dtype, false);
        combine_case(run, 3, 1, 2056, dtype, true);
        combine_case(run, 5, 9, 64, dtype, true);
        combine_case(run, run->is_emulated ? 4 : 300, 4, 2048, dtype, true);
    }
}

static void combine_forgets_shared(void *args)
{
    ((qn_gpu_combine_args *)args)->shared = NULL;
}

static void combine_misses_last_expert(void *args)
{
    qn_gpu_combine_args *a = args;
    a->n_used -= a->n_rows == 1 ? 1 : 0;
}

static void combine_misses_columns(void *args)
{
    qn_gpu_combine_args *a = args;
    a->n_embd -= a->n_rows == 1 ? 8 : 0;
}

/* -------------------------------------------------------------------------------- benchmarks -- */

static void fill_router(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_router_args *a = bench->context;
    gc_put(run, set, gc_floats(run, (size_t)a->n_rows * a->n_experts, GC_NORMAL),
           (size_t)a->n_rows * a->n_experts * sizeof(float));
}

/* A set: logits, bias and positions of zeros, outputs. */
static void queue_router(gc *run, const gc_bench *bench, uint8_t *set)
{
    qn_gpu_router_args args = *(const qn_gpu_router_args *)bench->context;
    uint8_t *at = set + (size_t)args.n_rows * args.n_experts * sizeof(float);
    args.logits = (const float *)(const void *)set;
    args.bias = (const float *)(const void *)at;
    args.positions = (const int32_t *)(const void *)(at + 1024);
    at += 1024 + (size_t)args.n_rows * sizeof(int32_t);
    args.experts = (int32_t *)(void *)at;
    args.weights = (float *)(void *)(at + (size_t)args.n_rows * args.n_used * sizeof(float));
    qn_gpu_router(&run->ops, &args);
}

static void bench_router(gc *run, uint32_t n_rows, const char *shape)
{
    const qn_gpu_router_args args = {
        .n_rows = n_rows, .n_experts = 256, .n_used = 8, .logits_stride = 256, .norm_topk = 1};
    const double n_bytes = n_rows * (256.0 * 4 + 8 * 8);
    gc_time(run, &(gc_bench){.op = "router",
                             .shape = shape,
                             .n_bytes = n_bytes,
                             .set_bytes = (size_t)n_rows * (1024 + 4 + 64) + 1024,
                             .fill = fill_router,
                             .queue = queue_router,
                             .context = &args});
}

static void fill_group(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_group_args *a = bench->context;
    const size_t n = (size_t)a->n_rows * a->n_used;
    int32_t *experts = gc_host(run, n * sizeof *experts);
    for (size_t i = 0; i < n; i++) {
        experts[i] = (int32_t)gc_below(run, a->n_experts);
    }
    gc_put(run, set, experts, n * sizeof *experts);
}

static void queue_group(gc *run, const gc_bench *bench, uint8_t *set)
{
    qn_gpu_group_args args = *(const qn_gpu_group_args *)bench->context;
    const size_t n = (size_t)args.n_rows * args.n_used;
    uint32_t *at = (uint32_t *)(void *)set;
    args.experts = (const int32_t *)(const void *)set;
    args.row_of = at + n;
    args.slot_of = at + 2 * n;
    args.first_of = at + 3 * n;
    args.active = args.first_of + 260;
    args.n_active = args.active + 256;
    qn_gpu_group(&run->ops, &args);
}

static void bench_group(gc *run, uint32_t n_rows, const char *shape)
{
    const qn_gpu_group_args args = {.n_rows = n_rows, .n_used = 8, .n_experts = 256};
    gc_time(run, &(gc_bench){.op = "group",
                             .shape = shape,
                             .n_bytes = n_rows * 8 * 12.0,
                             .set_bytes = (size_t)n_rows * 8 * 12 + 2304,
                             .fill = fill_group,
                             .queue = queue_group,
                             .context = &args});
}

/* A set: slots in some order, then weights, x, shared and y of zeros. */
static void fill_combine(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_combine_args *a = bench->context;
    const size_t n = (size_t)a->n_rows * a->n_used;
    gc_put(run, set, gc_page_tables(run, a->n_rows, a->n_used), n * sizeof(uint32_t));
}

static void queue_combine(gc *run, const gc_bench *bench, uint8_t *set)
{
    qn_gpu_combine_args args = *(const qn_gpu_combine_args *)bench->context;
    const size_t n = (size_t)args.n_rows * args.n_used;
    const size_t n_x = (size_t)args.n_rows * args.n_embd;
    float *at = (float *)(void *)set;
    args.slot_of = (const uint32_t *)(const void *)set;
    args.weights = at + n;
    args.x = at + 2 * n;
    args.shared = at + 2 * n + n_x;
    args.y = at + 2 * n + 2 * n_x;
    qn_gpu_combine(&run->ops, &args);
}

static void bench_combine(gc *run, uint32_t n_rows, uint32_t dtype, const char *shape)
{
    const uint32_t n = run->is_emulated ? 64 : 6144;
    const qn_gpu_combine_args args = {.n_rows = n_rows, .n_used = 8, .n_embd = n, .y_dtype = dtype};
    const size_t y_bytes = (size_t)n_rows * 8 * n * (dtype == QN_GPU_F32 ? 4 : 2);
    const size_t x_bytes = (size_t)n_rows * n * sizeof(float);
    gc_time(run, &(gc_bench){.op = "combine",
                             .shape = shape,
                             .n_bytes = (double)(y_bytes + 3 * x_bytes),
                             .set_bytes = y_bytes + 2 * x_bytes + (size_t)n_rows * 64,
                             .fill = fill_combine,
                             .queue = queue_combine,
                             .context = &args});
}

static void bench(gc *run)
{
    bench_router(run, 1, "1 row, 8 of 256");
    bench_router(run, 64, "64 rows, 8 of 256");
    bench_router(run, run->is_emulated ? 2 : 8192, "8192 rows, 8 of 256");
    bench_group(run, 1, "1 x 8 to 256");
    bench_group(run, 64, "64 x 8 to 256");
    bench_group(run, run->is_emulated ? 2 : 8192, "8192 x 8 to 256");
    bench_combine(run, 1, QN_GPU_BF16, "1 x 6144, 8 of bf16");
    bench_combine(run, 64, QN_GPU_BF16, "64 x 6144, 8 of bf16");
    bench_combine(run, run->is_emulated ? 2 : 2048, QN_GPU_BF16, "2048 x 6144, 8 of bf16");
    bench_combine(run, run->is_emulated ? 2 : 1024, QN_GPU_F32, "1024 x 6144, 8 of f32");
}

/* ------------------------------------------------------------------------------------ group -- */

static const gc_check checks[] = {
    {"router", check_router, "the reference's choice but for scores an expf() apart; 16 * 2^-24"},
    {"group", check_group, "exact: a stable sort"},
    {"combine", check_combine, "exact: one order of fused sums"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"router_wrong_bias", "router", router_wrong_bias},
    {"router_forgets_scale", "router", router_forgets_scale},
    {"router_never_normalises", "router", router_never_normalises},
    {"router_misses_last_expert", "router", router_misses_last_expert},
    {"router_computes_padding", "router", router_computes_padding},
    {"group_misses_last_row", "group", group_misses_last_row},
    {"group_wrong_row", "group", group_wrong_row},
    {"group_misses_last_expert", "group", group_misses_last_expert},
    {"combine_forgets_shared", "combine", combine_forgets_shared},
    {"combine_misses_last_expert", "combine", combine_misses_last_expert},
    {"combine_misses_columns", "combine", combine_misses_columns},
    {NULL, NULL, NULL},
};

const gc_group gc_choice = {checks, wrongs, bench};
