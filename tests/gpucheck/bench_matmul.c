/* SPDX-License-Identifier: Apache-2.0 */
/* Times of products at the shapes of GLM-5.2, and of packing. */
#include "device/gpu_block.h"
#include "gpucheck.h"
#include "kernels/weight.h"

#include <stdio.h>
#include <string.h>

enum { N_EXPERTS = 256, N_USED = 8, N_EMBD = 6144 };

enum { CHUNK = 1 << 20 };

/* A chunk of host memory, again and again. */
static void fill_with(gc *run, uint8_t *to, const void *chunk, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += CHUNK) {
        const size_t n = n_bytes - i < CHUNK ? n_bytes - i : CHUNK;
        if (i == 0) {
            gc_put(run, to, chunk, n);
        } else {
            qn_gpu_copy(run->stream, to + i, to, n);
        }
    }
}

/* Random bytes for weights; scales near 1 of either kind. */
static void fill_weight(gc *run, const qn_gpu_weight *w, size_t n_groups)
{
    uint8_t *bytes = gc_host(run, CHUNK);
    for (size_t i = 0; i < CHUNK; i += 8) {
        const uint64_t bits = gc_bits(run) & 0xbfbfbfbfbfbfbfbfU; /* no NaN of e4m3 or bf16 */
        memcpy(bytes + i, &bits, 8);
    }
    fill_with(run, (uint8_t *)w->data, bytes, n_groups * w->data_stride);
    /* Bytes of MXFP4 2^-9 .. 2^-8, or f32 of about 2^-4. */
    qn_gpu_fill(run->stream, (uint8_t *)w->scales, w->kind == QN_GPU_W_FP8 ? 0x3d : 245,
                n_groups * w->scales_stride);
    qn_error err = {0};
    if (qn_gpu_wait(run->stream, &err) != QN_OK) {
        gc_fail(run, "%s", err.text);
    }
}

static qn_gpu_weight make_weight(qn_gpu_block *at, uint32_t kind, uint32_t n_out, uint32_t n_in,
                                 bool is_pair, size_t n_groups)
{
    qn_gpu_weight w = {.kind = kind, .n_out = n_out, .n_in = n_in, .is_pair = is_pair};
    w.data_stride = qn_gpu_weight_data_bytes(kind, n_out, n_in, is_pair);
    w.scales_stride = qn_gpu_weight_scale_bytes(kind, n_out, n_in, is_pair);
    w.data = qn_gpu_cut(at, n_groups * w.data_stride);
    w.scales = qn_gpu_cut(at, n_groups * w.scales_stride);
    return w;
}

/* One product, or the two of a layer of experts. */
typedef struct shape {
    uint32_t kind, n_out, n_in, n_rows; /* experts: n_out is that of the first product */
    bool is_experts;
    const char *name;
    const qn_gpu_matmul_variant *variant; /* NULL: the one that is chosen */
} shape;

/* What both fill and queue find in a set. */
typedef struct layout {
    qn_gpu_matmul_args first, second;
    uint8_t *x;
    uint32_t *first_of, *row_of, *active, *n_active;
    size_t n_bytes;
} layout;

/* Pointers are NULL where only sizes are wanted, so that args->first_of tells nothing. */
static qn_gpu_matmul_shape shape_of(const qn_gpu_matmul_args *args, bool is_grouped)
{
    return (qn_gpu_matmul_shape){.kind = args->w.kind,
                                 .n_out = args->w.n_out,
                                 .n_in = args->w.n_in,
                                 .is_pair = args->w.is_pair,
                                 .n_groups = args->n_groups,
                                 .n_rows = args->n_rows,
                                 .is_grouped = is_grouped};
}

static void finish_args(gc *run, const shape *s, qn_gpu_matmul_args *args, bool is_grouped,
                        qn_gpu_block *at)
{
    const qn_gpu_matmul_shape of = shape_of(args, is_grouped);
    const uint64_t n_partial = s->variant != NULL ? s->variant->partial_bytes(run->kernels, &of)
                                                  : qn_gpu_matmul_partial_bytes(run->kernels, &of);
    args->x_stride = args->w.n_in;
    args->y_stride = args->w.n_out;
    args->y = qn_gpu_cut(at, (size_t)args->n_rows * args->w.n_out * 4);
    args->partial = n_partial > 0 ? qn_gpu_cut(at, n_partial) : NULL;
}

static void multiply(gc *run, const shape *s, const qn_gpu_matmul_args *args)
{
    const qn_gpu_matmul_shape of = shape_of(args, args->first_of != NULL);
    if (s->variant != NULL) {
        s->variant->launch(&run->ops, args, &of);
    } else {
        qn_gpu_matmul(&run->ops, args, false);
    }
}

static layout lay_out(gc *run, const shape *s, uint8_t *set)
{
    qn_gpu_block at = {.base = set};
    layout l = {0};
    if (!s->is_experts) {
        l.first.w = make_weight(&at, s->kind, s->n_out, s->n_in, false, 1);
        l.first.n_groups = 1;
        l.first.n_rows = s->n_rows;
        l.x = qn_gpu_cut(&at, (size_t)s->n_rows * s->n_in * 2);
        l.first.x = (const uint16_t *)(const void *)l.x;
        l.first.y_dtype = QN_GPU_F32;
        finish_args(run, s, &l.first, false, &at);
        l.n_bytes = at.n_bytes;
        return l;
    }
    const uint32_t n_slots = s->n_rows * N_USED;
    l.first_of = qn_gpu_cut(&at, (N_EXPERTS + 1) * 4);
    l.row_of = qn_gpu_cut(&at, n_slots * 4);
    l.active = qn_gpu_cut(&at, N_EXPERTS * 4);
    l.n_active = qn_gpu_cut(&at, 4);
    l.x = qn_gpu_cut(&at, (size_t)s->n_rows * s->n_in * 2);
    qn_gpu_matmul_args args = {.first_of = l.first_of,
                               .active = l.active,
                               .n_active = l.n_active,
                               .n_groups = N_EXPERTS,
                               .n_rows = n_slots,
                               .y_dtype = QN_GPU_BF16};
    l.first = args;
    l.first.w = make_weight(&at, s->kind, s->n_out, s->n_in, true, N_EXPERTS);
    l.first.x = (const uint16_t *)(const void *)l.x;
    l.first.row_of = l.row_of;
    l.first.epilogue = QN_GPU_SILU_MUL;
    finish_args(run, s, &l.first, true, &at);
    l.second = args;
    l.second.w = make_weight(&at, s->kind, s->n_in, s->n_out, false, N_EXPERTS);
    l.second.x = l.first.y;
    finish_args(run, s, &l.second, true, &at);
    l.n_bytes = at.n_bytes;
    return l;
}

/* N_USED experts for each row, all different. */
static void route(gc *run, const layout *l, uint32_t n_rows)
{
    uint32_t *count = gc_host(run, N_EXPERTS * 4);
    uint32_t *first_of = gc_host(run, (N_EXPERTS + 1) * 4);
    uint32_t *row_of = gc_host(run, (size_t)n_rows * N_USED * 4);
    uint32_t *active = gc_host(run, N_EXPERTS * 4);
    uint32_t *n_active = gc_host(run, 4);
    uint8_t *has = gc_host(run, (size_t)n_rows * N_EXPERTS);
    for (uint32_t t = 0; t < n_rows; t++) {
        for (uint32_t i = 0; i < N_USED;) {
            const uint32_t e = gc_below(run, N_EXPERTS);
            if (has[t * N_EXPERTS + e] == 0) {
                has[t * N_EXPERTS + e] = 1;
                count[e]++;
                i++;
            }
        }
    }
    uint32_t n_slots = 0;
    for (uint32_t e = 0; e < N_EXPERTS; e++) {
        for (uint32_t t = 0; t < n_rows; t++) {
            if (has[t * N_EXPERTS + e] != 0) {
                row_of[n_slots++] = t;
            }
        }
        first_of[e + 1] = n_slots;
    }
    for (uint32_t n = n_rows; n > 0; n--) {
        for (uint32_t e = 0; e < N_EXPERTS; e++) {
            if (count[e] == n) {
                active[(*n_active)++] = e;
            }
        }
    }
    gc_put(run, l->first_of, first_of, (N_EXPERTS + 1) * 4);
    gc_put(run, l->row_of, row_of, (size_t)n_slots * 4);
    gc_put(run, l->active, active, N_EXPERTS * 4);
    gc_put(run, l->n_active, n_active, 4);
}

static void fill_product(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    const layout l = lay_out(run, s, set);
    fill_with(run, l.x, gc_bf16s(run, CHUNK / 2, GC_UNIFORM), (size_t)s->n_rows * s->n_in * 2);
    fill_weight(run, &l.first.w, l.first.n_groups);
    if (s->is_experts) {
        fill_weight(run, &l.second.w, N_EXPERTS);
        route(run, &l, s->n_rows);
    }
}

static void queue_product(gc *run, const gc_bench *bench, uint8_t *set)
{
    const shape *s = bench->context;
    const layout l = lay_out(run, s, set);
    multiply(run, s, &l.first);
    if (s->is_experts) {
        multiply(run, s, &l.second);
    }
}

static void bench_product(gc *run, const shape *s)
{
    static const char *const kinds[] = {"bf16", "fp8", "mxfp4"};
    char text[64];
    const layout l = lay_out(run, s, NULL);
    const qn_gpu_matmul_shape of = shape_of(&l.first, s->is_experts);
    if (s->variant != NULL && !s->variant->supports(run->kernels, &of)) {
        return;
    }
    (void)snprintf(text, sizeof text, "%s %s %ux%u %u rows%s%s", s->name, kinds[s->kind], s->n_out,
                   s->n_in, s->n_rows, s->variant != NULL ? " " : "",
                   s->variant != NULL ? s->variant->name : "");
    const double n_active =
        s->is_experts ? N_EXPERTS * (1.0 - pow(1.0 - N_USED / (double)N_EXPERTS, s->n_rows)) : 1.0;
    const double n_slots = s->is_experts ? s->n_rows * N_USED : s->n_rows;
    double n_bytes = n_active * (double)(l.first.w.data_stride + l.first.w.scales_stride);
    double n_flops = 2.0 * n_slots * s->n_out * s->n_in * (s->is_experts ? 2 : 1);
    if (s->is_experts) {
        n_bytes += n_active * (double)(l.second.w.data_stride + l.second.w.scales_stride);
        n_flops += 2.0 * n_slots * s->n_out * s->n_in;
    }
    const gc_bench bench = {.op = "matmul",
                            .shape = text,
                            .n_bytes = n_bytes,
                            .n_flops = n_flops,
                            .set_bytes = l.n_bytes,
                            .fill = fill_product,
                            .queue = queue_product,
                            .context = s};
    (void)gc_time(run, &bench);
}

/* ------------------------------------------------------------------------------------- pack -- */

static qn_gpu_pack_args pack_args(const shape *s, uint8_t *set)
{
    static const uint32_t from_kinds[] = {QN_WEIGHT_BF16, QN_WEIGHT_FP8_BLOCK, QN_WEIGHT_MXFP4};
    const size_t n = (size_t)s->n_out * s->n_in;
    qn_gpu_pack_args args = {.from_kind = from_kinds[s->kind], .from_stride = s->n_in};
    qn_gpu_block at = {.base = set};
    args.to = make_weight(&at, s->kind, s->n_out, s->n_in, false, 1);
    args.from = qn_gpu_cut(&at, qn_weight_bytes((qn_weight_kind)args.from_kind, n));
    args.from_scales = qn_gpu_cut(&at, n / 8);
    args.flags = qn_gpu_cut(&at, 4);
    return args;
}

static void queue_pack(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_pack_args args = pack_args(bench->context, set);
    qn_gpu_pack(&run->ops, &args);
}

static void bench_pack(gc *run, const shape *s)
{
    static const char *const kinds[] = {"bf16", "fp8 block", "mxfp4"};
    char text[64];
    (void)snprintf(text, sizeof text, "%s %u x %u", kinds[s->kind], s->n_out, s->n_in);
    const double n = (double)s->n_out * s->n_in;
    const double bytes[] = {2 * n, n, n / 2};
    const gc_bench bench = {.op = "pack",
                            .shape = text,
                            .n_bytes = 2 * bytes[s->kind],
                            .set_bytes = (size_t)(2.3 * bytes[s->kind] + n / 8) + 4096,
                            .fill = gc_fill_nothing,
                            .queue = queue_pack,
                            .context = s};
    (void)gc_time(run, &bench);
}

/* The projections whose weights a layer reads most of, with each kind of them. */
static const shape projections[] = {
    {.n_out = 16384, .n_in = 2048, .name = "q_b"},
    {.n_out = 6144, .n_in = 16384, .name = "o"},
    {.n_out = 2048, .n_in = 6144, .name = "q_a"},
};

static void bench_projections(gc *run, uint32_t n_rows, const qn_gpu_matmul_variant *variant)
{
    for (uint32_t i = 0; i < 3 * sizeof projections / sizeof *projections; i++) {
        shape s = projections[i / 3];
        s.kind = QN_GPU_W_BF16 + i % 3;
        s.n_rows = n_rows;
        s.variant = variant;
        bench_product(run, &s);
    }
}

/* Where one variant begins to be faster than the other, which qn_gpu_matmul_choose() knows. */
static void bench_variants(gc *run)
{
    static const uint32_t rows[] = {1, 8, 16, 32, 64, 128};
    for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (uint32_t v = 1 /* plain is for tests */; v < qn_gpu_n_matmul_variants; v++) {
            bench_projections(run, rows[i], &qn_gpu_matmul_variants[v]);
        }
    }
    for (uint32_t v = 1; v < qn_gpu_n_matmul_variants; v++) {
        for (uint32_t n = 128; n <= 512; n *= 2) {
            bench_product(run, &(shape){.kind = QN_GPU_W_MXFP4,
                                        .n_out = 2048,
                                        .n_in = N_EMBD,
                                        .n_rows = n,
                                        .is_experts = true,
                                        .name = "experts",
                                        .variant = &qn_gpu_matmul_variants[v]});
        }
    }
}

/* Of all of a layer, and as one of four devices has them. */
static void bench_experts(gc *run, uint32_t n_rows)
{
    for (uint32_t n_out = 2048; n_out >= 512; n_out /= 4) {
        bench_product(run, &(shape){.kind = QN_GPU_W_MXFP4,
                                    .n_out = n_out,
                                    .n_in = N_EMBD,
                                    .n_rows = n_rows,
                                    .is_experts = true,
                                    .name = "experts"});
    }
}

/* Of a prompt: bound by products, not by weights. */
static void bench_many_rows(gc *run)
{
    static const uint32_t rows[] = {128, 512, 2048, 8192};
    for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bench_projections(run, rows[i], NULL);
        bench_experts(run, rows[i]);
    }
}

/* Of decoding: bound by weights, and by how launches follow each other. */
static void bench_few_rows(gc *run)
{
    static const uint32_t rows[] = {1, 8, 32, 64};
    for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bench_projections(run, rows[i], NULL);
        for (uint32_t kind = QN_GPU_W_BF16; kind <= QN_GPU_W_FP8; kind++) {
            bench_product(run, &(shape){.kind = kind,
                                        .n_out = 154880,
                                        .n_in = N_EMBD,
                                        .n_rows = rows[i],
                                        .name = "lm_head"});
        }
        bench_experts(run, rows[i]);
    }
}

void gc_bench_matmul(gc *run)
{
    for (uint32_t kind = QN_GPU_W_BF16; kind <= QN_GPU_W_MXFP4; kind++) {
        bench_pack(run, &(shape){.kind = kind, .n_out = 6144, .n_in = 16384});
    }
    if (!run->is_emulated) {
        bench_variants(run);
        bench_many_rows(run);
        bench_few_rows(run);
    }
}
