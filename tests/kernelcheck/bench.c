/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelcheck.h"

#include <string.h>
#include <time.h>

enum { REPEATS = 15, BIG = 64 << 20 };

static double now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int by_time(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What a kernel is measured against, in the same run. */
typedef struct roof {
    double bytes_per_s, flops_per_s;
} roof;

typedef struct timing {
    double min_s, median_s;
} timing;

static timing measure(void (*call)(void *), void *context)
{
    double times[REPEATS];
    call(context); /* warm-up */
    for (int i = 0; i < REPEATS; i++) {
        const double start = now_s();
        call(context);
        times[i] = now_s() - start;
    }
    qsort(times, REPEATS, sizeof *times, by_time);
    return (timing){times[0], times[REPEATS / 2]};
}

static void report(const char *set, const char *name, timing t, double bytes, double flops,
                   const roof *r)
{
    const bool by_bytes = bytes / r->bytes_per_s > flops / r->flops_per_s;
    (void)printf(
        "%-8s %-32s %10.1f us min %10.1f us median %8.2f GB/s %8.2f GFLOP/s %5.1f %% of %s\n", set,
        name, t.min_s * 1e6, t.median_s * 1e6, bytes / t.median_s * 1e-9, flops / t.median_s * 1e-9,
        100.0 * (by_bytes ? bytes / r->bytes_per_s : flops / r->flops_per_s) / t.median_s,
        by_bytes ? "read bandwidth" : "dot peak");
}

static volatile uint64_t g_sink;

static void read_big(void *context)
{
    const uint64_t *words = context;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < BIG / sizeof *words; i += 8) {
        for (size_t k = 0; k < 8; k++) {
            sums[k] += words[i + k];
        }
    }
    for (size_t k = 0; k < 8; k++) {
        g_sink += sums[k];
    }
}

/* 16 independent sums over a vector that stays in the first cache: the plain C dot's peak. */
static void dot_small(void *context)
{
    const float *x = context;
    float lanes[16] = {0};
    for (int round = 0; round < 20000; round++) {
        for (size_t k = 0; k < 512; k += 16) {
            for (size_t i = 0; i < 16; i++) {
                lanes[i] += x[k + i] * x[512 + k + i];
            }
        }
    }
    for (size_t i = 0; i < 16; i++) {
        g_sink += (uint64_t)(int64_t)lanes[i];
    }
}

static roof measure_roof(void)
{
    uint8_t *big = malloc(BIG);
    float small[1024];
    if (big == NULL) {
        abort();
    }
    memset(big, 1, BIG);
    for (size_t i = 0; i < 1024; i++) {
        small[i] = 1e-3F * (float)i;
    }
    const timing read = measure(read_big, big);
    const timing dot = measure(dot_small, small);
    free(big);
    const roof r = {BIG / read.min_s, 2.0 * 20000 * 512 / dot.min_s};
    (void)printf("roof: one thread reads %.1f GB/s, plain C dot %.1f GFLOP/s\n",
                 r.bytes_per_s * 1e-9, r.flops_per_s * 1e-9);
    return r;
}

typedef struct matmul_call {
    const qn_kernels *k;
    qn_matmul_args args;
} matmul_call;

static void call_matmul(void *context)
{
    const matmul_call *c = context;
    c->k->matmul(&c->args);
}

static void bench_matmul(const qn_kernels *k, const char *set, const roof *r, qn_weight_kind kind,
                         uint32_t n_rows)
{
    static const char *const names[] = {"f32", "bf16", "fp8-block", "fp8-channel", "mxfp4"};
    static const double bytes[] = {4.0, 2.0, 1.0, 1.0, 0.53125};
    char name[64];
    kc run = {.k = k, .set = set, .op = "matmul", .seed = 1};
    kc_begin(&run, "bench");
    const uint32_t n_out = 2048;
    const uint32_t n_in = 6144;
    const qn_weight w = kc_weight(&run, kind, n_out, n_in);
    float *x = kc_in(&run, (size_t)n_rows * n_in, KC_UNIFORM);
    float *y = kc_out(&run, (size_t)n_rows * n_out);
    float *scratch = kc_out(&run, n_in);
    kc_seal(&run);
    matmul_call c = {k, {y, n_out, x, n_in, &w, n_rows, 0, n_out, QN_COMPUTE_F32, scratch}};
    const timing t = measure(call_matmul, &c);
    (void)snprintf(name, sizeof name, "matmul %s 2048x6144 %u rows", names[kind], n_rows);
    report(set, name, t, bytes[kind] * n_out * n_in, 2.0 * n_rows * n_out * n_in, r);
    kc_end(&run);
}

typedef struct topk_call {
    const qn_kernels *k;
    int32_t *set;
    const float *scores;
} topk_call;

static void call_topk(void *context)
{
    const topk_call *c = context;
    (void)c->k->topk(c->set, c->scores, 20000, 2048);
}

static void bench_topk(const qn_kernels *k, const char *set, const roof *r)
{
    kc run = {.k = k, .set = set, .op = "topk", .seed = 1};
    kc_begin(&run, "bench");
    topk_call c = {k, (int32_t *)(void *)kc_out(&run, 2048), kc_in(&run, 20000, KC_UNIFORM)};
    kc_seal(&run);
    report(set, "topk 2048 of 20000", measure(call_topk, &c), 80000.0, 0.0, r);
    kc_end(&run);
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

static void bench_attend(const qn_kernels *k, const char *set, const roof *r)
{
    enum { ROWS = 2048, HEADS = 8, LATENT = 512, ROPE = 64 };
    static int32_t pages[ROWS / QN_PAGE_TOKENS];
    kc run = {.k = k, .set = set, .op = "attend", .seed = 1};
    kc_begin(&run, "bench");
    qn_kv_view view = {.pages = pages,
                       .row_bytes = qn_kv_row_bytes(QN_KV_BF16, LATENT, ROPE),
                       .dtype = QN_KV_BF16,
                       .latent_dim = LATENT,
                       .rope_dim = ROPE};
    view.base = kc_out_bytes(&run, (size_t)ROWS * view.row_bytes);
    float *row = kc_in(&run, LATENT + ROPE, KC_UNIFORM);
    int32_t *positions = (int32_t *)(void *)kc_out(&run, ROWS);
    for (int32_t i = 0; i < ROWS; i++) {
        pages[i / QN_PAGE_TOKENS] = i / QN_PAGE_TOKENS;
        positions[i] = i;
        k->kv_write(&view, (uint32_t)i, row, row + LATENT);
    }
    float *q = kc_in(&run, (size_t)HEADS * (LATENT + ROPE), KC_UNIFORM);
    float *u = kc_out(&run, (size_t)HEADS * LATENT);
    float *scratch = kc_out(&run, (size_t)HEADS * ROWS + LATENT + ROPE);
    kc_seal(&run);
    attend_call c = {
        k,
        {u, q, q + (size_t)HEADS * LATENT, ROPE, view, positions, ROWS, HEADS, 0.0625F, scratch}};
    report(set, "attend 8 heads, 2048 bf16 rows", measure(call_attend, &c),
           (double)ROWS * view.row_bytes, 2.0 * ROWS * HEADS * (2 * LATENT + ROPE), r);
    kc_end(&run);
}

typedef struct logsumexp_call {
    const qn_kernels *k;
    const float *x;
} logsumexp_call;

enum { N_VOCAB = 154880 };

static void call_logsumexp(void *context)
{
    const logsumexp_call *c = context;
    g_sink += (uint64_t)(int64_t)c->k->logsumexp(c->x, N_VOCAB);
}

static void bench_logsumexp(const qn_kernels *k, const char *set, const roof *r)
{
    kc run = {.k = k, .set = set, .op = "logsumexp", .seed = 1};
    kc_begin(&run, "bench");
    logsumexp_call c = {k, kc_in(&run, N_VOCAB, KC_UNIFORM)};
    kc_seal(&run);
    report(set, "logsumexp of 154880", measure(call_logsumexp, &c), 4.0 * N_VOCAB, 0.0, r);
    kc_end(&run);
}

void kc_bench(const qn_kernels *k, const char *set)
{
    const roof r = measure_roof();
    for (int kind = QN_WEIGHT_F32; kind <= QN_WEIGHT_MXFP4; kind++) {
        bench_matmul(k, set, &r, (qn_weight_kind)kind, 1);
        bench_matmul(k, set, &r, (qn_weight_kind)kind, 8);
    }
    bench_attend(k, set, &r);
    bench_topk(k, set, &r);
    bench_logsumexp(k, set, &r);
}
