/* SPDX-License-Identifier: Apache-2.0 */
/* Timings: one line a shape, one thread, against what the machine did in the same run. */
#include "base/clock.h"
#include "base/pool.h"
#include "kernelcheck.h"
#include "kernels/roof.h"

#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

enum { MIB = 1 << 20, WORK_BYTES = 384 * MIB };

/* The level that is timed, and memory for its operands. */
typedef struct bench {
    const qn_kernels *k;
    const char *set;
    qn_roof roof;
    kc random;
    uint8_t *memory;     /* n_cold bytes that no cache holds, then WORK_BYTES to take from */
    size_t n_cold, used; /* used: of the latter */
} bench;

static void *take(bench *b, size_t n_bytes)
{
    const size_t at = b->used;
    b->used += (n_bytes + 63) / 64 * 64;
    if (b->used > WORK_BYTES) {
        abort();
    }
    return b->memory + b->n_cold + at;
}

static float *take_uniform(bench *b, size_t n)
{
    float *x = take(b, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = kc_uniform(&b->random);
    }
    return x;
}

/* What one call does. */
typedef struct work {
    double bytes, ops;
    qn_act act;    /* whose peak limits it */
    bool is_cold;  /* bytes come from memory: a limit, too */
    double copy_s; /* what memcpy takes for them; 0: no matter */
} work;

__attribute__((format(printf, 5, 6))) static void
time_it(bench *b, void (*call)(void *), void *context, work w, const char *format, ...)
{
    char name[64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const qn_timing t = qn_time_call(call, context, QN_TIMING_THREAD);
    const double by_bytes = w.is_cold ? w.bytes / b->roof.bytes_per_s : 0.0;
    const double by_ops = w.ops / b->roof.ops_per_s[w.act];
    (void)printf("%-10s %-44s %11.2f us min %11.2f us median %7.2f GB/s", b->set, name,
                 t.min_s * 1e6, t.median_s * 1e6, w.bytes / t.median_s * 1e-9);
    if (w.ops > 0.0) {
        (void)printf(" %8.2f G%s/s %5.1f %% of %s", w.ops / t.median_s * 1e-9,
                     w.act == QN_ACT_INT8 ? "OP" : "FLOP",
                     100.0 * fmax(by_bytes, by_ops) / t.median_s,
                     by_bytes > by_ops ? "reading" : b->roof.ops_names[w.act]);
    }
    if (w.copy_s > 0.0) {
        (void)printf(" %5.1f %% of reading %5.2f x memcpy", 100.0 * by_bytes / t.median_s,
                     w.copy_s / t.median_s);
    }
    (void)printf("\n");
    (void)fflush(stdout);
}

/* ---------------------------------------------------------------------------------- matmul -- */

enum { N_IN = 6144, N_OUT_COLD = 2048, N_OUT_CACHED = 64, ROWS_MAX = 512 };

typedef struct matmul_call {
    const qn_kernels *k;
    qn_packed w;
    qn_matmul_args args;
    const uint8_t *first;
    size_t n_bytes, step; /* of all matrices, of one */
} matmul_call;

/* Every call takes the next matrix, so that none is in a cache. */
static void call_matmul(void *context)
{
    matmul_call *c = context;
    c->k->matmul(&c->args);
    const size_t next = (size_t)(c->w.data - c->first) + c->step;
    c->w.data = c->first + (next + c->step <= c->n_bytes ? next : 0);
}

static void bench_rows(bench *b, matmul_call *c, uint32_t n_rows, bool is_cold)
{
    c->w.n_out = is_cold ? N_OUT_COLD : N_OUT_CACHED;
    c->w.data = c->first = b->memory;
    c->step = qn_packed_bytes(c->w.kind, c->w.n_out, N_IN);
    c->n_bytes = is_cold ? b->n_cold : c->step;
    c->args.n_rows = n_rows;
    c->args.out_end = c->w.n_out;
    c->args.y_stride = c->w.n_out;
    const work w = {(double)c->step, 2.0 * n_rows * c->w.n_out * N_IN, c->args.act, is_cold, 0.0};
    time_it(b, call_matmul, c, w, "matmul %s x %s %ux%u %u rows%s", kc_kind_names[c->w.kind],
            kc_act_names[c->args.act], c->w.n_out, N_IN, n_rows, is_cold ? " cold" : "");
}

static void bench_product(bench *b, qn_weight_kind kind, qn_act act)
{
    static const uint32_t counts[] = {1, 4, 8, 64, ROWS_MAX};
    const size_t row_bytes = qn_act_row_bytes(act, N_IN);
    const float *x = take_uniform(b, N_IN);
    uint8_t *rows = take(b, ROWS_MAX * row_bytes);
    for (size_t t = 0; t < ROWS_MAX; t++) {
        b->k->prepare(rows + t * row_bytes, act, x, N_IN, 0, N_IN);
    }
    matmul_call c = {.k = b->k, .w = {.kind = kind, .n_in = N_IN}};
    c.args = (qn_matmul_args){.y = take(b, (size_t)ROWS_MAX * N_OUT_CACHED * 4),
                              .x = rows,
                              .x_stride = row_bytes,
                              .w = &c.w,
                              .act = act};
    bench_rows(b, &c, 1, true);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        bench_rows(b, &c, counts[i], false);
    }
}

static void bench_matmul(bench *b)
{
    for (int kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_MXFP4; kind++) {
        /* A few strips over and over: what they hold does not matter, where they lie does. */
        kc_begin(&b->random, "bench");
        const qn_weight w = kc_weight(&b->random, (qn_weight_kind)kind, N_OUT_CACHED, N_IN);
        const size_t n_bytes = qn_packed_bytes(w.kind, N_OUT_CACHED, N_IN);
        for (uint32_t i = 0; i < N_OUT_CACHED / QN_STRIP; i++) {
            b->k->pack_strip(b->memory + i * qn_strip_bytes(w.kind, N_IN), &w, i);
        }
        for (size_t at = n_bytes; at + n_bytes <= b->n_cold; at += n_bytes) {
            memcpy(b->memory + at, b->memory, n_bytes);
        }
        kc_seal(&b->random);
        kc_end(&b->random);
        for (int act = QN_ACT_F32; act <= QN_ACT_INT8; act++) {
            if (act == QN_ACT_F32 || (act == QN_ACT_BF16 && kind != QN_WEIGHT_F32) ||
                kind == QN_WEIGHT_MXFP4) {
                b->used = 0;
                bench_product(b, (qn_weight_kind)kind, (qn_act)act);
            }
        }
    }
}

/* --------------------------------------------------------------------------- weights, rows -- */

/* Operands of an operation without an argument structure. */
typedef struct operands {
    const qn_kernels *k;
    float *y, *x, *z;
    uint8_t *bytes;
    int32_t *ints;
    uint32_t n, m;
    qn_weight w;
    qn_act act;
    qn_kv_view view;
    qn_compute compute;
} operands;

static void call_dequant_row(void *context)
{
    const operands *o = context;
    o->k->dequant_row(o->y, &o->w, 5);
}

static void call_pack_strip(void *context)
{
    const operands *o = context;
    o->k->pack_strip(o->bytes, &o->w, 1);
}

static void bench_weight(bench *b, void (*call)(void *), const char *op, uint32_t n_rows)
{
    for (int kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_MXFP4; kind++) {
        b->used = 0;
        kc_begin(&b->random, "bench");
        operands o = {
            .k = b->k, .y = take(b, 4 * (size_t)N_IN), .bytes = take(b, 128 * (size_t)N_IN)};
        o.w = kc_weight(&b->random, (qn_weight_kind)kind, 32, N_IN);
        const double bytes = (double)qn_strip_bytes(o.w.kind, N_IN) / QN_STRIP * n_rows;
        time_it(b, call, &o, (work){.bytes = bytes}, "%s %s %ux%u", op, kc_kind_names[kind], n_rows,
                N_IN);
        kc_seal(&b->random);
        kc_end(&b->random);
    }
}

static void bench_dequant_row(bench *b)
{
    bench_weight(b, call_dequant_row, "dequant_row", 1);
}

static void bench_pack_strip(bench *b)
{
    bench_weight(b, call_pack_strip, "pack_strip", QN_STRIP);
}

static void call_prepare(void *context)
{
    const operands *o = context;
    o->k->prepare(o->bytes, o->act, o->x, o->n, 0, o->n);
}

static void bench_prepare(bench *b)
{
    for (int act = QN_ACT_F32; act <= QN_ACT_INT8; act++) {
        operands o = {.k = b->k, .n = N_IN, .act = (qn_act)act};
        o.x = take_uniform(b, N_IN);
        o.bytes = take(b, 4 * (size_t)N_IN);
        time_it(b, call_prepare, &o, (work){.bytes = 4.0 * N_IN}, "prepare %s %u",
                kc_act_names[act], N_IN);
    }
}

static void call_rmsnorm(void *context)
{
    const operands *o = context;
    o->k->rmsnorm(o->y, o->n, o->x, o->n, o->z, 1, o->n, 1e-5F);
}

static void call_layernorm(void *context)
{
    const operands *o = context;
    o->k->layernorm(o->y, o->x, o->z, o->z, o->n, 1e-6F);
}

static void call_rope(void *context)
{
    const operands *o = context;
    o->k->rope(o->y, 64, 256, 64, 100000, o->z);
}

static void call_silu_mul(void *context)
{
    const operands *o = context;
    o->k->silu_mul(o->y, o->x, o->z, o->n);
}

static void call_axpy(void *context)
{
    const operands *o = context;
    o->k->axpy(o->y, o->x, 1e-3F, o->n);
}

static void call_logsumexp(void *context)
{
    const operands *o = context;
    qn_roof_sink += (uint64_t)(int64_t)o->k->logsumexp(o->x, o->n);
}

/* An operation on vectors of n elements. */
static void bench_vector(bench *b, void (*call)(void *), const char *op, uint32_t n)
{
    operands o = {.k = b->k, .n = n};
    o.x = take_uniform(b, n);
    o.y = take_uniform(b, n);
    o.z = take_uniform(b, n);
    time_it(b, call, &o, (work){.bytes = 4.0 * n}, "%s %u", op, n);
}

static void bench_rmsnorm(bench *b)
{
    bench_vector(b, call_rmsnorm, "rmsnorm", N_IN);
}

static void bench_layernorm(bench *b)
{
    bench_vector(b, call_layernorm, "layernorm", 128);
}

static void bench_rope(bench *b)
{
    bench_vector(b, call_rope, "rope 64 vectors, 64 of 256 elements,", 64 * 256);
}

static void bench_silu_mul(bench *b)
{
    bench_vector(b, call_silu_mul, "silu_mul", 2048);
}

static void bench_axpy(bench *b)
{
    bench_vector(b, call_axpy, "axpy", N_IN);
}

enum { N_VOCAB = 154880 };

static void bench_logsumexp(bench *b)
{
    bench_vector(b, call_logsumexp, "logsumexp", N_VOCAB);
}

/* ------------------------------------------------------------------------------ quantizing -- */

static void call_to_bf16(void *context)
{
    const operands *o = context;
    o->k->to_bf16(o->bytes, o->x, o->n);
}

static void bench_to_bf16(bench *b)
{
    operands o = {
        .k = b->k, .n = N_IN, .x = take_uniform(b, N_IN), .bytes = take(b, 2 * (size_t)N_IN)};
    time_it(b, call_to_bf16, &o, (work){.bytes = 4.0 * N_IN}, "to_bf16 %u", N_IN);
}

enum { SOURCE_BYTES = 256 * MIB }; /* beyond the caches, and so is where it is copied to */

typedef struct mxfp4_call {
    const qn_kernels *k;
    qn_mxfp4_args args;
    qn_mxfp4_error error;
    uint8_t *copy;
} mxfp4_call;

static void call_copy(void *context)
{
    const mxfp4_call *c = context;
    memcpy(c->copy, c->args.x, SOURCE_BYTES);
}

static void call_encode(void *context)
{
    const mxfp4_call *c = context;
    qn_roof_sink += c->k->mxfp4_encode(&c->args);
}

static void call_measure(void *context)
{
    mxfp4_call *c = context;
    c->k->mxfp4_measure(&c->error, &c->args);
}

/* Elements that no cache holds, near enough to normal. */
static void fill_source(bench *b, qn_weight_kind kind)
{
    const size_t n_bytes = qn_weight_bytes(kind, MIB);
    for (size_t i = 0; i < MIB; i++) {
        const float value = kc_uniform(&b->random) + kc_uniform(&b->random);
        const uint32_t bits = kind == QN_WEIGHT_F32 ? qn_f32_bits(value) : qn_f32_to_bf16(value);
        memcpy(b->memory + i * n_bytes / MIB, &bits, n_bytes / MIB);
    }
    for (size_t at = n_bytes; at < SOURCE_BYTES; at += n_bytes) {
        memcpy(b->memory + at, b->memory, n_bytes);
    }
}

/* Beside memcpy of the same bytes. */
static void bench_mxfp4(bench *b, void (*call)(void *), const char *op, int n_rules)
{
    static const char *const rule_names[] = {"even", "mse"};
    mxfp4_call c = {.k = b->k, .copy = take(b, SOURCE_BYTES)};
    c.args.codes = take(b, SOURCE_BYTES / 4);
    c.args.scales = take(b, SOURCE_BYTES / 64);
    c.args.x = b->memory;
    const double copy_s = qn_time_call(call_copy, &c, QN_TIMING_THREAD).median_s;
    const work w = {.bytes = SOURCE_BYTES, .is_cold = true, .copy_s = copy_s};
    time_it(b, call_copy, &c, w, "memcpy %u MiB", SOURCE_BYTES / MIB);
    for (int kind = QN_WEIGHT_BF16; kind >= QN_WEIGHT_F32; kind--) {
        fill_source(b, (qn_weight_kind)kind);
        c.args.kind = (qn_weight_kind)kind;
        c.args.n_blocks = SOURCE_BYTES / qn_weight_bytes(c.args.kind, QN_MXFP4_BLOCK);
        for (int rule = QN_SCALE_EVEN; rule < n_rules; rule++) {
            c.args.rule = (qn_scale_rule)rule;
            call_encode(&c); /* for what is measured afterwards */
            time_it(b, call, &c, w, "%s %s %s", op, kc_kind_names[kind], rule_names[rule]);
        }
    }
}

static void bench_mxfp4_encode(bench *b)
{
    bench_mxfp4(b, call_encode, "mxfp4_encode", 2);
}

static void bench_mxfp4_measure(bench *b)
{
    bench_mxfp4(b, call_measure, "mxfp4_measure", 1);
}

/* --------------------------------------------------------------------------------- choices -- */

static void call_topk(void *context)
{
    const operands *o = context;
    (void)o->k->topk(o->ints, o->x, o->n, o->m);
}

static void bench_topk(bench *b)
{
    static const uint32_t shapes[][2] = {{2048, 256}, {32768, 2048}, {131072, 2048}};
    for (size_t i = 0; i < 3; i++) {
        operands o = {.k = b->k, .n = shapes[i][0], .m = shapes[i][1]};
        o.x = take_uniform(b, o.n);
        o.ints = take(b, o.m * sizeof *o.ints);
        time_it(b, call_topk, &o, (work){.bytes = 4.0 * o.n}, "topk %u of %u", o.m, o.n);
    }
}

static void call_router(void *context)
{
    const operands *o = context;
    const qn_router_args args = {o->ints, o->y, o->x, o->z, o->y + 8,
                                 o->n,    o->m, true, 2.5F, false};
    o->k->router(&args);
}

static void bench_router(bench *b)
{
    operands o = {.k = b->k, .n = 256, .m = 8};
    o.x = take_uniform(b, o.n);
    o.z = take_uniform(b, o.n);
    o.y = take(b, 4 * (size_t)(o.n + o.m));
    o.ints = take(b, o.m * sizeof *o.ints);
    time_it(b, call_router, &o, (work){.bytes = 8.0 * o.n}, "router %u of %u", o.m, o.n);
}

static void call_sample(void *context)
{
    const operands *o = context;
    const qn_sample_args args = {o->x, o->n,   o->m == 0 ? 0.0F : 1.0F, 0.95F, 0, 0.0F, 0.7,
                                 o->y, o->ints};
    qn_roof_sink += (uint64_t)o->k->sample(&args);
}

static void bench_sample(bench *b)
{
    operands o = {.k = b->k, .n = N_VOCAB};
    o.x = take_uniform(b, o.n);
    o.y = take(b, o.n * sizeof *o.y);
    o.ints = take(b, o.n * sizeof *o.ints);
    for (uint32_t i = 0; i < o.n; i++) {
        o.x[i] *= 20.0F; /* a few thousand tokens hold the mass */
    }
    for (o.m = 0; o.m < 2; o.m++) {
        time_it(b, call_sample, &o, (work){.bytes = 4.0 * o.n}, "sample %u %s", o.n,
                o.m == 0 ? "greedy" : "top-p 0.95");
    }
}

/* ------------------------------------------------------------------------------- attention -- */

enum { LATENT = 512, ROPE = 64 };
static const char *const kv_names[] = {"auto", "bf16", "f32", "fp8"};
static const char *const compute_names[] = {"auto", "f32", "bf16", "int8"};

/* A cache of n rows, written by the set at hand. */
static qn_kv_view take_cache(bench *b, qn_kv_dtype dtype, uint32_t latent, uint32_t rope,
                             uint32_t n)
{
    const float *x = take_uniform(b, (size_t)latent + rope + 64);
    const uint32_t row_bytes = qn_kv_row_bytes(dtype, latent, rope);
    int32_t *pages = take(b, n / QN_PAGE_TOKENS * sizeof *pages);
    for (uint32_t i = 0; i < n / QN_PAGE_TOKENS; i++) {
        pages[i] = (int32_t)(i ^ 1U); /* pages of a sequence seldom lie in order */
    }
    const qn_kv_view view = {take(b, (size_t)n * row_bytes), pages, row_bytes, dtype, latent, rope};
    for (uint32_t t = 0; t < n; t++) {
        b->k->kv_write(&view, t, x + t % 64, x + latent + t % 64);
    }
    return view;
}

static void call_kv_write(void *context)
{
    const operands *o = context;
    o->k->kv_write(&o->view, 5, o->x, o->x + LATENT);
}

static void call_kv_read(void *context)
{
    const operands *o = context;
    o->k->kv_read(o->y, &o->view, 5);
}

static void bench_kv(bench *b, void (*call)(void *), const char *op)
{
    for (int dtype = QN_KV_BF16; dtype <= QN_KV_FP8; dtype++) {
        operands o = {.k = b->k};
        o.view = take_cache(b, (qn_kv_dtype)dtype, LATENT, ROPE, QN_PAGE_TOKENS * 2);
        o.x = take_uniform(b, LATENT + ROPE);
        o.y = take_uniform(b, LATENT + ROPE);
        time_it(b, call, &o, (work){.bytes = o.view.row_bytes}, "%s %s %u + %u", op,
                kv_names[dtype], LATENT, ROPE);
    }
}

static void bench_kv_write(bench *b)
{
    bench_kv(b, call_kv_write, "kv_write");
}

static void bench_kv_read(bench *b)
{
    bench_kv(b, call_kv_read, "kv_read");
}

/* Rows and the mode that meets them by default, and f32 throughout. */
static const struct {
    qn_kv_dtype dtype;
    qn_compute compute;
    qn_act act;
} modes[] = {{QN_KV_BF16, QN_COMPUTE_BF16, QN_ACT_BF16},
             {QN_KV_FP8, QN_COMPUTE_BF16, QN_ACT_F32},
             {QN_KV_F32, QN_COMPUTE_F32, QN_ACT_F32}};
enum { N_MODES = sizeof modes / sizeof *modes };

static void call_index_scores(void *context)
{
    const operands *o = context;
    const qn_index_scores_args args = {
        .scores = o->y,
        .q = o->x,
        .w = o->z,
        .keys = o->view,
        .n_heads = o->m,
        .end = o->n,
        .compute = o->compute,
        .scratch = (float *)(void *)o->bytes,
    };
    o->k->index_scores(&args);
}

static void bench_index_scores(bench *b)
{
    enum { DIM = 128 };
    static const uint32_t shapes[][2] = {{4, 2048}, {32, 2048}, {32, 65536}}; /* heads, keys */
    for (size_t i = 0; i < (size_t)N_MODES * 3; i++) {
        b->used = 0;
        const uint32_t heads = shapes[i / N_MODES][0];
        operands o = {.k = b->k, .m = heads, .n = shapes[i / N_MODES][1]};
        o.compute = modes[i % N_MODES].compute;
        o.view = take_cache(b, modes[i % N_MODES].dtype, DIM, 0, o.n);
        o.x = take_uniform(b, (size_t)heads * DIM);
        o.z = take_uniform(b, heads);
        o.y = take(b, o.n * sizeof *o.y);
        o.bytes = take(b, 4 * qn_index_scratch_floats(heads, DIM));
        const work w = {(double)o.n * o.view.row_bytes, 2.0 * o.n * heads * DIM,
                        modes[i % N_MODES].act, false, 0.0};
        time_it(b, call_index_scores, &o, w, "index_scores %s x %s %u heads %u keys",
                kv_names[o.view.dtype], compute_names[o.compute], heads, o.n);
    }
}

typedef struct attend_call {
    const qn_kernels *k;
    qn_attend_args args;
} attend_call;

static void call_attend(void *context)
{
    const attend_call *c = context;
    c->k->attend(&c->args);
}

static void bench_attend(bench *b)
{
    static const uint32_t shapes[][2] = {{4, 256}, {8, 2048}, {64, 2048}}; /* heads, rows */
    for (size_t i = 0; i < (size_t)N_MODES * 3; i++) {
        b->used = 0;
        const uint32_t heads = shapes[i / N_MODES][0];
        const uint32_t n_set = shapes[i / N_MODES][1];
        int32_t *set = take(b, n_set * sizeof *set);
        for (uint32_t r = 0; r < n_set; r++) {
            set[r] = (int32_t)(2 * r + kc_below(&b->random, 2));
        }
        attend_call c = {.k = b->k};
        c.args = (qn_attend_args){
            .u = take(b, 4 * (size_t)heads * LATENT),
            .q_latent = take_uniform(b, (size_t)heads * LATENT),
            .q_rope = take_uniform(b, (size_t)heads * (192 + ROPE)),
            .q_rope_stride = 192 + ROPE,
            .kv = take_cache(b, modes[i % N_MODES].dtype, LATENT, ROPE, 2 * n_set),
            .set = set,
            .n_set = n_set,
            .n_heads = heads,
            .scale = 0.0625F,
            .compute = modes[i % N_MODES].compute,
            .scratch = take(b, 4 * qn_attend_scratch_floats(heads, n_set, LATENT, ROPE))};
        const work w = {(double)n_set * c.args.kv.row_bytes,
                        2.0 * n_set * heads * (2 * LATENT + ROPE), modes[i % N_MODES].act, false,
                        0.0};
        time_it(b, call_attend, &c, w, "attend %s x %s %u heads %u rows", kv_names[c.args.kv.dtype],
                compute_names[c.args.compute], heads, n_set);
    }
}

/* ------------------------------------------------------------------------------------- all -- */

#define BENCH(op)                                                                                  \
    {                                                                                              \
#op, bench_##op                                                                            \
    }
static const struct {
    const char *op;
    void (*fn)(bench *b);
} benches[] = {
    BENCH(dequant_row), BENCH(pack_strip),   BENCH(prepare),       BENCH(matmul),
    BENCH(rmsnorm),     BENCH(layernorm),    BENCH(rope),          BENCH(silu_mul),
    BENCH(axpy),        BENCH(router),       BENCH(topk),          BENCH(attend),
    BENCH(kv_write),    BENCH(index_scores), BENCH(kv_read),       BENCH(sample),
    BENCH(logsumexp),   BENCH(mxfp4_encode), BENCH(mxfp4_measure), BENCH(to_bf16),
};

static void do_nothing(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)context;
    (void)first;
    (void)end;
    (void)i_thread;
}

/* What a loop over two threads costs beside its work: begun, shared, waited for. */
static void time_pool(void)
{
    enum { N_LOOPS = 10000, N_REPEATS = 15 };
    qn_pool *pool = NULL;
    qn_error err = {0};
    double times[N_REPEATS];
    if (qn_pool_open(&pool, 2, &err) < 0) {
        (void)fprintf(stderr, "kernelcheck: %s\n", err.text);
        exit(2);
    }
    for (size_t r = 0; r < N_REPEATS; r++) {
        const uint64_t start_ns = qn_clock_ns();
        for (size_t i = 0; i < N_LOOPS; i++) {
            qn_pool_run(pool, 2, do_nothing, NULL);
        }
        times[r] = qn_clock_seconds(start_ns, qn_clock_ns()) / N_LOOPS;
    }
    qsort(times, N_REPEATS, sizeof *times, qn_by_time);
    qn_pool_close(&pool);
    (void)printf("pool       empty loop over 2 threads %40.3f us min %10.3f us median\n",
                 times[0] * 1e6, times[N_REPEATS / 2] * 1e6);
}

static void start(bench *b, const kc *run)
{
    const size_t huge = 2 * (size_t)MIB;
    b->n_cold = qn_roof_cold_bytes();
    const size_t n_bytes = b->n_cold + WORK_BYTES + huge;
    uint8_t *at = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        (void)fprintf(stderr, "kernelcheck: no %zu MiB for timings\n", n_bytes / MIB);
        exit(2);
    }
    at += huge - (uintptr_t)at % huge;
    (void)madvise(at, n_bytes - huge, MADV_HUGEPAGE); /* granted or not, it is only faster */
    memset(at, 1, b->n_cold);
    b->memory = at;
    time_pool();
    b->random = (kc){.op = "bench", .set = run->set, .seed = run->seed};
}

void kc_bench(const kc *run, uint32_t cpu_flags)
{
    static bench b;
    if (b.memory == NULL) {
        start(&b, run);
    }
    if (b.set != run->set) {
        b.roof = qn_roof_measure(cpu_flags, b.memory, b.n_cold, NULL);
        b.set = run->set;
        (void)printf("%-10s roof, one thread: reads %.1f GB/s; f32 %.1f GFLOP/s (%s), bf16 %.1f "
                     "GFLOP/s (%s), int8 %.1f GOP/s (%s)\n",
                     b.set, b.roof.bytes_per_s * 1e-9, b.roof.ops_per_s[0] * 1e-9,
                     b.roof.ops_names[0], b.roof.ops_per_s[1] * 1e-9, b.roof.ops_names[1],
                     b.roof.ops_per_s[2] * 1e-9, b.roof.ops_names[2]);
    }
    b.k = run->k;
    b.used = 0;
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        if (strcmp(benches[i].op, run->op) == 0) {
            benches[i].fn(&b);
        }
    }
}
