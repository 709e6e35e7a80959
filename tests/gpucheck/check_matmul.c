/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of products: every variant, kind of weights, epilogue and way of grouping. */
#include "gpucheck.h"
#include "kernels/gpu_matmul_few.h"
#include "kernels/weight.h"
#include "support/few_case.h"

#include <string.h>

/* How rows come to groups. */
typedef enum grouping {
    DENSE,   /* one group */
    EXPERTS, /* by first_of, rows by row_of */
    SLOTS,   /* by first_of, a row a slot */
    HEADS,   /* all rows to each group, columns of their own */
    N_GROUPINGS,
} grouping;

typedef struct product {
    qn_weight_kind kind;
    uint32_t n_out, n_in;
    uint32_t n_rows; /* slots of all groups, or of each head */
    grouping grouping;
    uint32_t epilogue, y_dtype;
    uint32_t variant;
    bool is_deterministic;
    uint32_t n_strips, n_splits; /* of qn_gpu_matmul_shape; 0: as the variant finds best */
} product;

/* What a case has on the host. */
typedef struct operands {
    uint32_t n_groups, n_matrices, n_x_rows;
    uint32_t x_stride, y_stride; /* elements */
    const uint16_t *x;
    uint32_t *first_of, *row_of, *active;
    const float *y_before;
    float *w; /* [n_groups][n_matrices][n_out][n_in] */
    qn_gpu_matmul_args args;
} operands;

/* Random weights of one matrix on the device, and their values. */
static void make_weight(gc *run, const product *p, float *values, qn_gpu_weight to, uint32_t i_part,
                        uint32_t *flags)
{
    const size_t n = (size_t)p->n_out * p->n_in;
    const size_t n_scales =
        p->kind == QN_WEIGHT_MXFP4 ? n / 32 : (size_t)p->n_out * ((p->n_in + 127) / 128);
    uint8_t *data = gc_host(run, qn_weight_bytes(p->kind, n));
    uint8_t *scale = gc_host(run, 4 * n_scales);
    uint64_t bits = 0;
    for (size_t i = 0; i < qn_weight_bytes(p->kind, n) && p->kind > QN_WEIGHT_BF16; i++) {
        bits = i % 8 == 0 ? gc_bits(run) : bits >> 8;
        data[i] = (uint8_t)bits;
        data[i] ^= (data[i] & 0x7f) == 0x7f ? 1 : 0; /* NaN of e4m3 */
    }
    for (size_t i = 0; i < n_scales; i++) {
        const float value = 0.01F * (1.5F + gc_uniform(run));
        memcpy(scale + 4 * i, &value, 4);
    }
    for (size_t i = 0; i < n_scales && p->kind == QN_WEIGHT_MXFP4; i++) {
        scale[i] = (uint8_t)(118 + gc_below(run, 10));
    }
    for (size_t i = 0; i < n && p->kind <= QN_WEIGHT_BF16; i++) {
        const float value = gc_uniform(run);
        const uint16_t rounded = qn_f32_to_bf16(value);
        if (p->kind == QN_WEIGHT_F32) {
            memcpy(data + 4 * i, &value, 4);
        } else {
            memcpy(data + 2 * i, &rounded, 2);
        }
    }
    const qn_weight w = {p->kind, p->n_out, p->n_in, data, scale};
    for (uint32_t out = 0; out < p->n_out; out++) {
        float *row = values + (size_t)out * p->n_in;
        run->ref.dequant_row(row, &w, out);
        for (uint32_t i = 0; i < p->n_in && p->kind == QN_WEIGHT_F32; i++) {
            row[i] = qn_bf16_to_f32(qn_f32_to_bf16(row[i]));
        }
    }
    const qn_gpu_pack_args pack = {.to = to,
                                   .from = gc_in(run, data, qn_weight_bytes(p->kind, n)),
                                   .from_scales = gc_in(run, scale, 4 * n_scales),
                                   .from_kind = p->kind,
                                   .i_part = i_part,
                                   .from_stride = p->n_in,
                                   .flags = flags};
    qn_gpu_pack(&run->ops, &pack);
}

/* Slots to experts: the first has none, the second one, the third the most. */
static void group_rows(gc *run, const product *p, operands *o)
{
    uint32_t n_active = 0;
    o->first_of = gc_host(run, (o->n_groups + 1) * sizeof *o->first_of);
    o->row_of = gc_host(run, p->n_rows * sizeof *o->row_of);
    o->active = gc_host(run, o->n_groups * sizeof *o->active);
    for (uint32_t s = 0; s < p->n_rows; s++) {
        o->row_of[s] = gc_below(run, o->n_x_rows);
    }
    const uint32_t ends[] = {0, p->n_rows > 1 ? 1 : 0, p->n_rows - p->n_rows / 4, p->n_rows};
    for (uint32_t g = 0; g < o->n_groups; g++) {
        o->first_of[g + 1] = ends[g];
    }
    static const uint8_t order[] = {2, 3, 1, 0};
    for (uint32_t i = 0; i < o->n_groups; i++) {
        if (o->first_of[order[i]] < o->first_of[order[i] + 1]) {
            o->active[n_active++] = order[i];
        }
    }
    uint32_t *count = gc_host(run, sizeof *count);
    *count = n_active;
    o->args.first_of = gc_in(run, o->first_of, (o->n_groups + 1) * sizeof *o->first_of);
    o->args.active = gc_in(run, o->active, o->n_groups * sizeof *o->active);
    o->args.n_active = gc_in(run, count, sizeof *count);
    if (p->grouping == EXPERTS) {
        o->args.row_of = gc_in(run, o->row_of, p->n_rows * sizeof *o->row_of);
    }
}

static void make_weights(gc *run, const product *p, operands *o)
{
    const bool is_pair = o->n_matrices == 2;
    qn_gpu_weight *w = &o->args.w;
    w->kind = qn_gpu_weight_kind(p->kind);
    w->n_out = p->n_out;
    w->n_in = p->n_in;
    w->is_pair = is_pair;
    w->data_stride = qn_gpu_weight_data_bytes(w->kind, p->n_out, p->n_in, is_pair);
    w->scales_stride = qn_gpu_weight_scale_bytes(w->kind, p->n_out, p->n_in, is_pair);
    /* Results of packing, which has a check of its own. */
    uint8_t *data = gc_scratch(run, NULL, o->n_groups * w->data_stride);
    uint8_t *scales =
        w->scales_stride > 0 ? gc_scratch(run, NULL, o->n_groups * w->scales_stride) : NULL;
    uint32_t *flags = gc_scratch(run, gc_host(run, 4), 4);
    const size_t n = (size_t)p->n_out * p->n_in;
    o->w = gc_host(run, o->n_groups * o->n_matrices * n * sizeof *o->w);
    for (uint32_t i = 0; i < o->n_groups * o->n_matrices; i++) {
        qn_gpu_weight to = *w;
        to.data = data + i / o->n_matrices * w->data_stride;
        to.scales = scales == NULL ? NULL : scales + i / o->n_matrices * w->scales_stride;
        make_weight(run, p, o->w + i * n, to, i % o->n_matrices, flags);
    }
    w->data = data;
    w->scales = scales;
}

static uint32_t round_to_8(uint32_t n)
{
    return (n + 7) / 8 * 8;
}

static operands make_operands(gc *run, const product *p)
{
    operands o = {.n_groups = p->grouping == DENSE   ? 1
                              : p->grouping == HEADS ? 3
                                                     : 4,
                  .n_matrices = p->epilogue == QN_GPU_SILU_MUL ? 2 : 1,
                  .n_x_rows = p->grouping == EXPERTS ? (p->n_rows + 1) / 2 : p->n_rows};
    make_weights(run, p, &o);
    const uint32_t n_heads = p->grouping == HEADS ? o.n_groups : 1;
    o.x_stride = n_heads * round_to_8(p->n_in) + 8;
    o.y_stride = n_heads * round_to_8(p->n_out) + 8;
    o.x = gc_bf16s(run, (size_t)o.n_x_rows * o.x_stride, GC_NORMAL);
    uint16_t *x = gc_host(run, (size_t)o.n_x_rows * o.x_stride * 2);
    memcpy(x, o.x, (size_t)o.n_x_rows * o.x_stride * 2);
    for (size_t i = 0; i < (size_t)o.n_x_rows * o.x_stride; i++) {
        if (i % o.x_stride % round_to_8(p->n_in) >= p->n_in || i % o.x_stride >= o.x_stride - 8) {
            x[i] = 0x7fc0; /* NaN between the columns */
        }
    }
    o.args.x = gc_in(run, x, (size_t)o.n_x_rows * o.x_stride * 2);
    o.args.x_stride = o.x_stride;
    o.args.y_stride = o.y_stride;
    o.args.x_group_stride = p->grouping == HEADS ? round_to_8(p->n_in) : 0;
    o.args.y_group_stride = p->grouping == HEADS ? round_to_8(p->n_out) : 0;
    o.args.n_groups = o.n_groups;
    o.args.n_rows = p->n_rows;
    o.args.y_dtype = p->y_dtype;
    o.args.epilogue = p->epilogue;
    const size_t y_bytes = (size_t)p->n_rows * o.y_stride * (p->y_dtype == QN_GPU_F32 ? 4 : 2);
    if (p->epilogue == QN_GPU_ADD) {
        o.y_before = gc_floats(run, (size_t)p->n_rows * o.y_stride, GC_NORMAL);
        o.args.y = gc_inout(run, o.y_before, y_bytes);
    } else {
        o.args.y = gc_out(run, y_bytes);
    }
    if (p->grouping == EXPERTS || p->grouping == SLOTS) {
        group_rows(run, p, &o);
    }
    return o;
}

static qn_gpu_matmul_shape shape_of(const product *p, const operands *o)
{
    return (qn_gpu_matmul_shape){.kind = o->args.w.kind,
                                 .n_out = p->n_out,
                                 .n_in = p->n_in,
                                 .is_pair = o->args.w.is_pair,
                                 .n_groups = o->n_groups,
                                 .n_rows = p->n_rows,
                                 .is_grouped = o->args.first_of != NULL,
                                 .is_deterministic = p->is_deterministic,
                                 .n_strips = p->n_strips,
                                 .n_splits = p->n_splits};
}

/* Zeros, where a launch wants room. */
static void make_partial(gc *run, operands *o, uint64_t n_bytes)
{
    o->args.partial = n_bytes > 0 ? gc_scratch(run, gc_host(run, n_bytes), n_bytes) : NULL;
}

/* Of this room the counters are zero again. */
static void compare_counters(gc *run, const float *partial)
{
    static const uint8_t zeros[QN_GPU_COUNTERS_BYTES];
    if (partial != NULL) {
        gc_same(run, "counters", gc_got(run, partial), zeros, sizeof zeros);
    }
}

/* Wanted value of one output, and what it may be off. */
static double wanted(const product *p, const operands *o, uint32_t group, uint32_t slot,
                     uint32_t out, double *tolerance)
{
    const uint32_t row = p->grouping == EXPERTS ? o->row_of[slot] : slot;
    const uint16_t *x = o->x + (size_t)row * o->x_stride + group * o->args.x_group_stride;
    double sum[2] = {0};
    double off[2] = {0};
    for (uint32_t m = 0; m < o->n_matrices; m++) {
        const float *w = o->w + (((size_t)group * o->n_matrices + m) * p->n_out + out) * p->n_in;
        for (uint32_t k = 0; k < p->n_in; k++) {
            const double term = (double)w[k] * (double)qn_bf16_to_f32(x[k]);
            sum[m] += term;
            off[m] += fabs(term);
        }
        off[m] *= (p->n_in + 8) * 0x1p-24;
    }
    double y = sum[0];
    double e = off[0] + 1e-37;
    if (p->epilogue == QN_GPU_SILU_MUL) {
        const double gate = sum[0] / (1.0 + exp(-sum[0]));
        y = gate * sum[1];
        e += 1.1 * off[0] * (fabs(sum[1]) + off[1]) + fabs(gate) * off[1] + 16 * gc_ulp(y);
    }
    if (p->epilogue == QN_GPU_ADD) {
        y += (double)o->y_before[(size_t)slot * o->y_stride + group * o->args.y_group_stride + out];
        e += gc_ulp(y);
    }
    *tolerance = e + (p->y_dtype == QN_GPU_BF16 ? gc_half_ulp_bf16(fabs(y) + e) : gc_ulp(y));
    return y;
}

/* Of large products every so manieth output of a slot; the others must only be numbers. */
static void compare_slot(gc *run, const product *p, const operands *o, const float *got,
                         uint32_t group, uint32_t slot, double *room)
{
    enum { TERMS_MAX = 1 << 21 };
    double *want = room; /* [2][n_out] */
    double *tolerance = room + p->n_out;
    const uint64_t n_terms = (uint64_t)p->n_rows * p->n_out * p->n_in;
    const uint32_t step = (uint32_t)(n_terms / TERMS_MAX) + 1;
    for (uint32_t out = 0; out < p->n_out; out++) {
        want[out] = 0.0;
        tolerance[out] = (double)INFINITY;
        if ((out + slot) % step == 0) {
            want[out] = wanted(p, o, group, slot, out, &tolerance[out]);
        }
    }
    gc_close(run, "y", got + (size_t)slot * o->y_stride + group * o->args.y_group_stride, want,
             tolerance, p->n_out);
}

static void compare(gc *run, const product *p, const operands *o)
{
    const size_t n = (size_t)p->n_rows * o->y_stride;
    const void *y = gc_got(run, o->args.y);
    const float *got = p->y_dtype == QN_GPU_F32 ? y : gc_from_bf16(run, y, n);
    double *room = gc_host(run, 2 * p->n_out * sizeof *room);
    for (uint32_t slot = 0; slot < p->n_rows; slot++) {
        for (uint32_t g = 0; g < o->n_groups; g++) {
            if (o->first_of == NULL || (o->first_of[g] <= slot && slot < o->first_of[g + 1])) {
                compare_slot(run, p, o, got, g, slot, room);
            }
        }
    }
}

static void run_product(gc *run, const product *p)
{
    static const char *const kinds[] = {"f32", "bf16", "fp8 block", "fp8 channel", "mxfp4"};
    static const char *const groupings[] = {"dense", "experts", "slots", "heads"};
    static const char *const epilogues[] = {"store", "add", "silu_mul"};
    gc_begin(run, "%s %s %u x %u rows %u %s %s %s%s, plan %u/%u",
             qn_gpu_matmul_variants[p->variant].name, kinds[p->kind], p->n_out, p->n_in, p->n_rows,
             groupings[p->grouping], epilogues[p->epilogue],
             p->y_dtype == QN_GPU_F32 ? "f32" : "bf16", p->is_deterministic ? " fixed" : "",
             p->n_strips, p->n_splits);
    operands o = make_operands(run, p);
    const qn_gpu_matmul_shape shape = shape_of(p, &o);
    make_partial(run, &o, qn_gpu_matmul_variants[p->variant].partial_bytes(run->kernels, &shape));
    qn_gpu_matmul_variants[p->variant].launch(&run->ops, gc_args(run, &o.args, sizeof o.args),
                                              &shape);
    gc_wait(run);
    compare_counters(run, o.args.partial);
    if (run->i_pass == 0) { /* later the same bits are wanted */
        compare(run, p, &o);
    }
    gc_end(run);
}

/* Before there are operands, whose number of groups shape_of() knows. */
static qn_gpu_matmul_shape shape_ahead(const product *p)
{
    return (qn_gpu_matmul_shape){.kind = qn_gpu_weight_kind(p->kind),
                                 .n_out = p->n_out,
                                 .n_in = p->n_in,
                                 .is_pair = p->epilogue == QN_GPU_SILU_MUL,
                                 .n_groups = p->grouping == DENSE ? 1 : 4,
                                 .n_rows = p->n_rows,
                                 .is_grouped = p->grouping == EXPERTS || p->grouping == SLOTS,
                                 .is_deterministic = p->is_deterministic};
}

/* The variants that run here, one after the other. */
static bool is_there(gc *run, const product *p)
{
    const qn_gpu_matmul_shape shape = shape_ahead(p);
    return qn_gpu_matmul_variants[p->variant].supports(run->kernels, &shape);
}

/* Kinds that kernels for tensor cores have. */
static const qn_weight_kind kinds_in_tiles[] = {QN_WEIGHT_BF16, QN_WEIGHT_FP8_BLOCK,
                                                QN_WEIGHT_MXFP4};

/* Every way to cut a product for few rows, of which small shapes get few. */
static void check_plans(gc *run)
{
    static const uint32_t splits[] = {1, 2, 5};
    for (uint32_t i = 0; i < 3 * 4 * 3 * qn_gpu_n_matmul_variants; i++) {
        const product p = {.kind = kinds_in_tiles[i / 12 % 3],
                           .n_out = i % 2 == 0 ? 200 : 72,
                           .n_in = 1088,
                           .n_rows = i % 5 == 0 ? 12 : 5,
                           .grouping = (grouping)(i % N_GROUPINGS),
                           .epilogue = i % 7 == 0 ? QN_GPU_SILU_MUL : QN_GPU_STORE,
                           .y_dtype = QN_GPU_F32,
                           .variant = i / 36,
                           .n_strips = 2U << i / 3 % 4,
                           .n_splits = splits[i % 3]};
        if (qn_gpu_matmul_variants[p.variant].has_plans && is_there(run, &p)) {
            run_product(run, &p);
        }
    }
}

/*
 * Long and wide ones, for rings that are filled again and again: inputs in many parts, of sm90_few
 * by a cluster whose blocks each have a multiprocessor's ring; blocks that have more than one item,
 * and share some.  Below a sanitizer those with few outputs alone.
 */
static void check_large(gc *run, uint32_t variant)
{
    static const uint32_t shapes[][2] = {{128, 16384}, {17000, 1088}, {20552, 1088}};
    for (uint32_t i = 0; i < (run->is_emulated ? 1 : 3) * 3 * 2; i++) {
        const uint32_t epilogue = (i / 2 + i % 2 + i / 6) % 3;
        const product p = {.kind = kinds_in_tiles[i / 2 % 3],
                           .n_out = shapes[i / 6][0],
                           .n_in = shapes[i / 6][1],
                           .n_rows = i % 2 == 0 ? 5 : 64,
                           .epilogue = epilogue,
                           .y_dtype = epilogue == QN_GPU_ADD ? QN_GPU_F32 : QN_GPU_BF16,
                           .variant = variant};
        if (is_there(run, &p)) {
            run_product(run, &p);
        }
    }
}

/*
 * sm90_few: each number of parts of an item, and more items than blocks at once, single and in
 * pairs, with each number of columns in turn.  Below a sanitizer the smaller ones.
 */
static void check_few(gc *run)
{
    static const uint32_t rows[] = {5, 12, 20, 50};
    const qn_gpu_info *info = qn_gpu_kernels_info(run->kernels);
    uint32_t v = 0;
    while (strcmp(qn_gpu_matmul_variants[v].name, "sm90_few") != 0) {
        v++;
    }
    for (uint32_t i = 0; i < 3 * 2 * 4 * 2; i++) {
        const uint32_t n_parts = 1U << i / 2 % 4;
        const bool is_pair = i / 8 % 2 != 0;
        const few_case c = few_case_of(i / 16, n_parts, is_pair, info->n_sms);
        const uint32_t epilogue = is_pair      ? QN_GPU_SILU_MUL
                                  : i % 2 == 0 ? QN_GPU_ADD
                                               : QN_GPU_STORE;
        const product p = {.kind = kinds_in_tiles[i / 16],
                           .n_out = c.n_out,
                           .n_in = c.n_in,
                           .n_rows = rows[(i + i / 2 + i / 16) % 4],
                           .epilogue = epilogue,
                           .y_dtype = i % 2 == 0 && !is_pair ? QN_GPU_F32 : QN_GPU_BF16,
                           .variant = v};
        if (!is_there(run, &p) || (run->is_emulated && n_parts < 4)) {
            continue;
        }
        const qn_gpu_matmul_shape shape = shape_ahead(&p);
        const qn_gpu_few_plan plan = qn_gpu_few_plan_of(info, &shape);
        gc_begin(run, "plan %u of sm90_few", i); /* a case of its own, or it would not count */
        if (plan.n_parts != n_parts || plan.n_grid != c.n_grid) {
            gc_fail(run, "%u parts and %u blocks of %u x %u, %u and %u expected", plan.n_parts,
                    plan.n_grid, p.n_out, p.n_in, n_parts, c.n_grid);
        }
        gc_end(run);
        run_product(run, &p);
    }
}

/* More rows than a block's pieces divide evenly, than a band of them has, and than a pass: of a
 * pass of 8,192 rows experts have 65,536 slots. */
static void check_many_rows(gc *run, uint32_t variant)
{
    static const uint32_t rows[] = {600, 2200, 65536};
    static const grouping of_rows[] = {DENSE, HEADS, EXPERTS, SLOTS};
    for (uint32_t i = 0; i < 3 * 3 * 2; i++) {
        const uint32_t epilogue = (i / 6 + i) % 3;
        const product p = {.kind = kinds_in_tiles[i / 2 % 3],
                           .n_out = i % 2 == 0 ? 272 : 136,
                           .n_in = 320,
                           .n_rows = rows[i / 6],
                           .grouping = of_rows[i / 12 * 2 + i % 2],
                           .epilogue = epilogue,
                           .y_dtype = epilogue == QN_GPU_ADD ? QN_GPU_F32 : QN_GPU_BF16,
                           .variant = variant};
        if (is_there(run, &p)) {
            run_product(run, &p);
        }
    }
}

/* Every combination, each with a shape and a number of rows in turn. */
static void check_matmul(gc *run)
{
    static const uint32_t small[][2] = {{24, 96}, {320, 64}, {80, 192}, {16, 320}};
    static const uint32_t large[][2] = {{24, 96},    {640, 512},  {72, 192},
                                        {1024, 640}, {136, 2048}, {320, 1088}};
    static const uint32_t rows[] = {1, 5, 8, 20, 70, 33, 2, 64, 9, 130, 300};
    const uint32_t n_shapes = run->is_emulated ? 4 : 6;
    const uint32_t n_rows = run->is_emulated ? 5 : 11;
    uint32_t turn = 0;
    for (uint32_t v = 0; v < qn_gpu_n_matmul_variants; v++) {
        for (uint32_t i = 0; i < 5 * N_GROUPINGS * 4; i++) {
            const uint32_t epilogue = i / 5 / N_GROUPINGS % 4;
            const uint32_t(*shapes)[2] = run->is_emulated ? small : large;
            const product p = {.kind = (qn_weight_kind)(i % 5),
                               .grouping = (grouping)(i / 5 % N_GROUPINGS),
                               .n_out = shapes[turn % n_shapes][0],
                               .n_in = shapes[turn % n_shapes][1],
                               .n_rows = rows[turn / 3 % n_rows],
                               .epilogue = epilogue % 3,
                               .y_dtype = epilogue >= 2 ? QN_GPU_BF16 : QN_GPU_F32,
                               .variant = v,
                               .is_deterministic = turn % 2 == 1};
            turn++;
            if (is_there(run, &p) && (!run->is_emulated || turn % 3 == 0)) {
                run_product(run, &p);
            }
        }
        if (v > 0) { /* but the portable one, which is slow */
            check_large(run, v);
            if (!run->is_emulated) {
                check_many_rows(run, v);
            }
        }
    }
    check_plans(run);
    check_few(run);
}

/* A row's bits with other rows beside it: all numbers of rows, against the most, and that one
 * against the oracle, since some of its rows are in no other. */
static void check_matmul_fixed(gc *run)
{
    static const uint32_t rows[] = {70, 1, 2, 7, 8, 9, 16, 17, 33, 64, 65};
    enum { N = sizeof rows / sizeof *rows };
    const uint32_t step = run->is_emulated ? 4 : 1;
    for (qn_weight_kind kind = QN_WEIGHT_BF16; kind <= QN_WEIGHT_MXFP4; kind++) {
        product p = {.kind = kind,
                     .n_out = run->is_emulated ? 24 : 640,
                     .n_in = run->is_emulated ? 320 : 2048,
                     .n_rows = rows[0],
                     .epilogue = QN_GPU_STORE,
                     .y_dtype = QN_GPU_F32,
                     .is_deterministic = true};
        gc_begin(run, "kind %u %u x %u", kind, p.n_out, p.n_in);
        operands all = make_operands(run, &p);
        qn_gpu_matmul_args calls[N];
        for (uint32_t i = 0; i < N; i += step) {
            operands o = all;
            p.n_rows = o.args.n_rows = rows[i];
            o.args.y = i == 0 ? all.args.y : gc_out(run, (size_t)rows[i] * o.y_stride * 4);
            const qn_gpu_matmul_shape shape = shape_of(&p, &o);
            make_partial(run, &o, qn_gpu_matmul_partial_bytes(run->kernels, &shape));
            calls[i] = o.args;
            qn_gpu_matmul(&run->ops, gc_args(run, &o.args, sizeof o.args), true);
        }
        gc_wait(run);
        for (uint32_t i = 0; i < N; i += step) {
            compare_counters(run, calls[i].partial);
            gc_same(run, "y", gc_got(run, calls[i].y), gc_got(run, all.args.y),
                    (size_t)rows[i] * all.y_stride * 4);
        }
        p.n_rows = rows[0];
        compare(run, &p, &all);
        gc_end(run);
    }
}

/* The variant of the same bits that is no "/early". */
static uint32_t plain_of(uint32_t variant)
{
    const char *const name = qn_gpu_matmul_variants[variant].name;
    uint32_t plain = 0;
    while (strncmp(name, qn_gpu_matmul_variants[plain].name, strcspn(name, "/")) != 0) {
        plain++;
    }
    return plain;
}

/* Two products by turns, of what the one before made, which the one behind overwrites. */
static void queue_chain(gc *run, const product *p, uint32_t variant, const operands o[2],
                        uint16_t *const y[2])
{
    const qn_gpu_matmul_shape shape = shape_of(p, &o[0]);
    for (uint32_t i = 0; i < 4; i++) {
        qn_gpu_matmul_args args = o[i % 2].args;
        args.x = i == 0 ? o[0].args.x : y[(i + 1) % 2];
        args.y = y[i % 2];
        args.partial = o[0].args.partial;
        qn_gpu_matmul_variants[variant].launch(
            &run->ops, i > 0 ? gc_args(run, &args, sizeof args) : &args, &shape);
    }
}

static void run_chain(gc *run, const product *p)
{
    gc_begin(run, "%s kind %u %u x %u rows %u, plan %u/%u", qn_gpu_matmul_variants[p->variant].name,
             p->kind, p->n_out, p->n_in, p->n_rows, p->n_strips, p->n_splits);
    operands o[2] = {make_operands(run, p), make_operands(run, p)};
    const qn_gpu_matmul_shape shape = shape_of(p, &o[0]);
    make_partial(run, &o[0],
                 qn_gpu_matmul_variants[p->variant].partial_bytes(run->kernels, &shape));
    uint16_t *const alone[2] = {o[0].args.y, o[1].args.y};
    const size_t n_bytes = (size_t)p->n_rows * o[0].y_stride * 2;
    uint16_t *const chained[2] = {gc_out(run, n_bytes), gc_out(run, n_bytes)};
    const gc_wrong *const wrong = run->wrong;
    qn_gpu_graph *graph = NULL;
    qn_error err = {0};
    run->wrong = NULL;
    queue_chain(run, p, plain_of(p->variant), o, alone);
    run->wrong = wrong;
    qn_gpu_capture_begin(run->stream);
    queue_chain(run, p, p->variant, o, chained);
    if (qn_gpu_capture_end(&graph, run->stream, &err) == QN_OK) {
        qn_gpu_graph_launch(run->stream, graph);
    } else {
        gc_fail(run, "%s", err.text);
    }
    gc_wait(run);
    compare_counters(run, o[0].args.partial);
    qn_gpu_graph_close(&graph);
    for (uint32_t i = 0; i < 2; i++) {
        gc_same(run, "y", gc_got(run, chained[i]), gc_got(run, alone[i]), n_bytes);
    }
    gc_end(run);
}

/* Products right behind each other in a graph share sums and counters, and begin early. */
static void check_matmul_chain(gc *run)
{
    static const uint32_t plans[][2] = {{0, 0}, {16, 1}, {4, 3}};
    static const uint32_t rows[][3] = {{5, 17, 64}, {1, 5, 9}}; /* without and with plans */
    for (uint32_t i = 0; i < 3 * 3 * qn_gpu_n_matmul_variants; i++) {
        const bool has_plans = qn_gpu_matmul_variants[i / 9].has_plans;
        const product p = {.kind = kinds_in_tiles[i % 3],
                           .n_out = run->is_emulated ? 288 : 2048,
                           .n_in = run->is_emulated ? 288 : 2048,
                           .n_rows = rows[has_plans ? 1 : 0][i / 3 % 3],
                           .y_dtype = QN_GPU_BF16,
                           .variant = i / 9,
                           .n_strips = has_plans ? plans[i / 3 % 3][0] : 0,
                           .n_splits = has_plans ? plans[i / 3 % 3][1] : 0};
        if (is_there(run, &p)) {
            run_chain(run, &p);
        }
    }
}

static void matmul_wrong_rows(void *args)
{
    ((qn_gpu_matmul_args *)args)->x_stride = 0;
}

static void matmul_wrong_weights(void *args)
{
    ((qn_gpu_matmul_args *)args)->w.data_stride = 0;
}

static void matmul_wrong_epilogue(void *args)
{
    qn_gpu_matmul_args *a = args;
    a->epilogue = a->epilogue == QN_GPU_ADD ? QN_GPU_STORE : a->epilogue;
}

static void matmul_wrong_row(void *args)
{
    qn_gpu_matmul_args *a = args;
    a->x += a->n_rows > 64 || a->n_rows % 2 == 0 ? 0 : 8;
}

static const gc_check checks[] = {
    {"matmul", check_matmul, "(n_in + 8) * 2^-24 * sum |x w|, and one rounding to bf16"},
    {"matmul_fixed", check_matmul_fixed, "a row's bits do not depend on the number of rows"},
    {"matmul_chain", check_matmul_chain, "launches that begin early give the bits of others"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"matmul_wrong_rows", "matmul", matmul_wrong_rows},
    {"matmul_wrong_weights", "matmul", matmul_wrong_weights},
    {"matmul_wrong_epilogue", "matmul", matmul_wrong_epilogue},
    {"matmul_chain_wrong_rows", "matmul_chain", matmul_wrong_rows},
    {"matmul_fixed_wrong_row", "matmul_fixed", matmul_wrong_row},
    {NULL, NULL, NULL},
};

const gc_group gc_matmul = {checks, wrongs, gc_bench_matmul};
