/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of kernels/gpu/sample.c. */
#include "gpucheck.h"

#include <stdlib.h>
#include <string.h>

enum { N_VOCAB = 154880 }; /* of the published models */

/* ---------------------------------------------------------------------------------- logits -- */

/* What a row of logits is like. */
typedef enum logits_kind {
    LOGITS_SPREAD,  /* a few tokens have most of the mass */
    LOGITS_FLAT,    /* most have a share */
    LOGITS_EQUAL,   /* all tie */
    LOGITS_NEAR,    /* logits differ where probabilities do not */
    LOGITS_FEW,     /* few values, many times each, of either sign and zero */
    LOGITS_SPECIAL, /* NaN and -Inf among others */
    LOGITS_ONE,     /* one number among NaN and -Inf */
    LOGITS_INF,     /* Inf twice, and NaN */
    LOGITS_HUGE,    /* 1e18 apart */
    LOGITS_NONE,    /* nothing above -Inf */
    LOGITS_N_KINDS,
} logits_kind;

static float *make_logits(gc *run, uint32_t n, logits_kind kind)
{
    float *x = gc_floats(run, n, kind == LOGITS_HUGE ? GC_HUGE : GC_NORMAL);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t dice = gc_below(run, 8);
        switch (kind) {
        case LOGITS_SPREAD: x[i] *= 4.0F; break;
        case LOGITS_EQUAL: x[i] = -1.5F; break;
        case LOGITS_NEAR: x[i] = 1.0F + 0x1p-23F * (float)gc_below(run, 1000); break;
        case LOGITS_FEW: x[i] = dice == 0 ? -0.0F : 0.5F * (float)(dice % 4) - 0.5F; break;
        case LOGITS_SPECIAL: x[i] = dice == 0 ? NAN : dice == 1 ? -INFINITY : x[i]; break;
        case LOGITS_ONE: x[i] = dice < 4 ? NAN : -INFINITY; break;
        case LOGITS_INF: x[i] = dice == 0 ? NAN : x[i]; break;
        case LOGITS_NONE: x[i] = dice < 4 ? NAN : -INFINITY; break;
        default: break;
        }
    }
    if (kind == LOGITS_ONE) {
        x[n / 3] = 3.0F;
    }
    if (kind == LOGITS_INF) {
        x[n / 2] = INFINITY;
        x[n - 1] = INFINITY;
    }
    return x;
}

/* ----------------------------------------------------------------------------------- sample -- */

static const float *g_keys; /* of the sort below */

/* By descending logit, NaN last, ties to the lower id. */
static int by_logit(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a;
    const int32_t j = *(const int32_t *)b;
    const float x = isnan(g_keys[i]) ? -INFINITY : g_keys[i];
    const float y = isnan(g_keys[j]) ? -INFINITY : g_keys[j];
    return x != y ? (x > y ? -1 : 1) : (i > j) - (i < j);
}

static int32_t *sorted(gc *run, const float *logits, uint32_t n)
{
    int32_t *order = gc_host(run, n * sizeof *order);
    for (uint32_t i = 0; i < n; i++) {
        order[i] = (int32_t)i;
    }
    g_keys = logits;
    qsort(order, n, sizeof *order, by_logit);
    return order;
}

/* Sums over the tokens that stay, in order, by the arithmetic of the reference; their number. */
static uint32_t sum_kept(double *sums, const float *logits, const int32_t *order, uint32_t n_vocab,
                         const qn_gpu_sampling *set)
{
    double all = 0.0;
    uint32_t n = 0;
    for (; n < n_vocab; n++) {
        const float z = (logits[order[n]] - logits[order[0]]) / set->temperature;
        const float weight = z <= 0.0F ? expf(z) : 0.0F;
        if (!(weight > 0.0F)) {
            break;
        }
        sums[n] = (double)weight;
        all += sums[n];
    }
    for (uint32_t i = 0; i < n; i++) {
        sums[i] = (double)(float)(sums[i] / all);
    }
    double share_of = 1.0;
    if (set->top_k > 0 && set->top_k < n) {
        n = set->top_k;
        share_of = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            share_of += sums[i];
        }
    }
    const double floor = (double)set->min_p * sums[0];
    for (uint32_t i = 1; i < n; i++) {
        if ((set->top_p < 1.0F && sums[i - 1] >= (double)set->top_p * share_of) ||
            sums[i] < floor) {
            return i;
        }
        sums[i] += sums[i - 1];
    }
    return n;
}

/* Does the draw fall into the token's interval, give or take 1e-6? */
static bool is_drawn(const double *sums, const int32_t *order, uint32_t n, double unit,
                     int32_t token)
{
    for (uint32_t i = 0; i < n; i++) {
        if (order[i] == token) {
            const double low = (i > 0 ? sums[i - 1] : 0.0) / sums[n - 1];
            return unit >= low - 1e-6 && unit <= sums[i] / sums[n - 1] + 1e-6;
        }
    }
    return false;
}

static const qn_gpu_sampling settings[] = {
    {0.0F, 1.0F, 0.0F, 0, 0.0},        {1.0F, 1.0F, 0.0F, 0, 0.0},  {1.0F, 0.95F, 0.0F, 0, 0.0},
    {0.6F, 0.95F, 0.0F, 20, 0.0},      {1.0F, 1.0F, 0.0F, 1, 0.0},  {1.0F, 1.0F, 0.0F, 40, 0.0},
    {2.0F, 0.5F, 0.0F, UINT32_MAX, 0}, {1.0F, 1e-9F, 0.0F, 0, 0.0}, {1.0F, 1.0F, 0.1F, 0, 0.0},
    {1.0F, 0.9F, 0.02F, 100, 0.0},     {1.0F, 1.0F, 1.0F, 0, 0.0},  {1e-4F, 1.0F, 0.0F, 0, 0.0},
    {1e-30F, 0.9F, 0.0F, 0, 0.0},      {1e30F, 0.9F, 0.0F, 0, 0.0}, {1e30F, 1.0F, 0.0F, 5, 0.0},
    {0.1F, 1.0F, 1e-9F, 0, 0.0},
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

/* One row against an oracle that sorts everything. */
static void sample_row(gc *run, const float *logits, const int32_t *order, uint32_t n,
                       const qn_gpu_sampling *set, int32_t token)
{
    static double sums[N_VOCAB];
    const float best = logits[order[0]];
    if (!(best > -INFINITY) || set->temperature == 0.0F || best == INFINITY) {
        const int32_t want = best > -INFINITY ? order[0] : -1;
        if (token != want) {
            gc_fail(run, "T %g: token %d, %d expected", (double)set->temperature, token, want);
        }
        return;
    }
    const uint32_t n_kept = sum_kept(sums, logits, order, n, set);
    if (!is_drawn(sums, order, n_kept, set->unit, token)) {
        gc_fail(run, "T %g top-p %g top-k %u min-p %g: unit %.17g of %u tokens drew %d",
                (double)set->temperature, (double)set->top_p, set->top_k, (double)set->min_p,
                set->unit, n_kept, token);
    }
}

/* Every setting with n_draws random numbers, from one row of logits or from its copies. */
static void sample_case(gc *run, uint32_t n, logits_kind kind, uint32_t n_draws, bool has_copies)
{
    gc_begin(run, "n %u, kind %d", n, (int)kind);
    const uint32_t n_rows = N_SETTINGS * n_draws;
    const uint32_t stride = has_copies ? (n + 3) / 4 * 4 + 4 : 0;
    const float *logits = make_logits(run, n, kind);
    const size_t n_all = (size_t)stride * (n_rows - 1) + (n + 3) / 4 * (size_t)4;
    float *copies = gc_host(run, n_all * sizeof *copies);
    qn_gpu_sampling *sets = gc_host(run, n_rows * sizeof *sets);
    for (uint32_t t = 0; t < n_rows; t++) {
        memcpy(copies + (size_t)t * stride, logits, n * sizeof *logits);
        sets[t] = settings[t % N_SETTINGS];
        sets[t].unit = t / N_SETTINGS == 0   ? (double)gc_bits(run) * 0x1p-64
                       : t / N_SETTINGS == 1 ? 0x1.fffffffffffffp-1
                       : t / N_SETTINGS == 2 ? 0.0
                                             : (double)gc_bits(run) * 0x1p-64;
    }
    const qn_gpu_sample_args args = {
        .tokens = gc_out(run, n_rows * sizeof(int32_t)),
        .logits = gc_in(run, copies, n_all * sizeof *copies),
        .settings = gc_in(run, sets, n_rows * sizeof *sets),
        .scratch = gc_scratch(run, NULL, qn_gpu_sample_scratch_bytes(n_rows, n)),
        .logits_stride = stride,
        .n_rows = n_rows,
        .n_vocab = n,
    };
    qn_gpu_sample(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const int32_t *order = sorted(run, logits, n);
    const int32_t *tokens = gc_got(run, args.tokens);
    for (uint32_t t = 0; t < n_rows; t++) {
        sample_row(run, logits, order, n, &sets[t], tokens[t]);
    }
    gc_end(run);
}

static void check_sample(gc *run)
{
    static const uint32_t sizes[] = {1, 2, 17, 1027};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (logits_kind kind = 0; kind < LOGITS_N_KINDS; kind++) {
            sample_case(run, sizes[i], kind, run->is_emulated ? 2 : 6, true);
        }
    }
    if (run->is_emulated) {
        sample_case(run, 20003, LOGITS_SPREAD, 1, false);
        return;
    }
    for (logits_kind kind = 0; kind < LOGITS_N_KINDS; kind++) {
        sample_case(run, N_VOCAB, kind, kind < LOGITS_SPECIAL ? 8 : 1, false);
    }
}

static void sample_ignores_settings(void *args)
{
    ((qn_gpu_sample_args *)args)->logits_stride = 0;
    ((qn_gpu_sample_args *)args)->settings += ((qn_gpu_sample_args *)args)->n_rows > 1 ? 1 : 0;
    ((qn_gpu_sample_args *)args)->n_rows -= ((qn_gpu_sample_args *)args)->n_rows > 1 ? 1 : 0;
}

static void sample_misses_last_token(void *args)
{
    qn_gpu_sample_args *a = args;
    a->n_vocab -= a->n_vocab > 1 ? 1 : 0;
}

static void sample_misses_last_row(void *args)
{
    ((qn_gpu_sample_args *)args)->n_rows--;
}

/* ------------------------------------------------------------------------------ log-sum-exp -- */

static double logsumexp_oracle(const float *x, uint32_t n)
{
    long double max = -(long double)INFINITY;
    long double sum = 0.0L;
    for (uint32_t i = 0; i < n; i++) {
        max = isnan(x[i]) ? max : fmaxl(max, (long double)x[i]);
    }
    for (uint32_t i = 0; i < n && isfinite(max); i++) {
        sum += isnan(x[i]) ? 0.0L : expl((long double)x[i] - max);
    }
    return (double)(isfinite(max) ? max + logl(sum) : max);
}

static void logsumexp_case(gc *run, uint32_t n, logits_kind kind)
{
    enum { N_ROWS = 3 };
    gc_begin(run, "n %u, kind %d", n, (int)kind);
    const uint32_t stride = (n + 3) / 4 * 4 + 8;
    float *logits = gc_host(run, (size_t)N_ROWS * stride * sizeof *logits);
    for (uint32_t t = 0; t < N_ROWS && n > 0; t++) {
        memcpy(logits + (size_t)t * stride, make_logits(run, n, kind), n * sizeof *logits);
    }
    if (kind == LOGITS_EQUAL && n > 0) {
        logits[n / 2] = 10.5F; /* one above many, whose mass is the same at most */
    }
    const qn_gpu_logsumexp_args args = {
        .y = gc_out(run, N_ROWS * sizeof(double)),
        .logits = gc_in(run, logits, (size_t)N_ROWS * stride * sizeof *logits),
        .logits_stride = stride,
        .n_rows = N_ROWS,
        .n_vocab = n,
    };
    qn_gpu_logsumexp(&run->ops, gc_args(run, &args, sizeof args));
    gc_wait(run);
    const double *got = gc_got(run, args.y);
    for (uint32_t t = 0; t < N_ROWS; t++) {
        const double want = logsumexp_oracle(logits + (size_t)t * stride, n);
        if (got[t] != want && !(fabs(got[t] - want) <= 2e-6 + 0x1p-52 * fabs(want))) {
            gc_fail(run, "row %u: %.17g, %.17g expected", t, got[t], want);
        }
    }
    gc_end(run);
}

static void check_logsumexp(gc *run)
{
    static const uint32_t sizes[] = {0, 1, 2, 17, 1027, 30011, N_VOCAB};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (logits_kind kind = 0; kind < LOGITS_N_KINDS; kind++) {
            if (sizes[i] <= (run->is_emulated ? 1027 : N_VOCAB) || kind == LOGITS_EQUAL) {
                logsumexp_case(run, sizes[i], kind);
            }
        }
    }
}

static void logsumexp_misses_last(void *args)
{
    qn_gpu_logsumexp_args *a = args;
    a->n_vocab -= a->n_vocab > 0 ? 1 : 0;
}

static void logsumexp_one_row(void *args)
{
    ((qn_gpu_logsumexp_args *)args)->logits_stride = 0;
}

/* -------------------------------------------------------------------------------- benchmarks -- */

/* A set: logits, settings of every row, tokens or sums, scratch. */
static size_t logits_bytes(const qn_gpu_sample_args *a)
{
    return (size_t)a->n_rows * a->n_vocab * sizeof(float);
}

static void fill_sample(gc *run, const gc_bench *bench, uint8_t *set)
{
    const qn_gpu_sample_args *a = bench->context;
    gc_put(run, set, gc_floats(run, (size_t)a->n_rows * a->n_vocab, GC_NORMAL), logits_bytes(a));
    qn_gpu_sampling *sets = gc_host(run, a->n_rows * sizeof *sets);
    for (uint32_t t = 0; t < a->n_rows; t++) {
        sets[t] = *a->settings;
        sets[t].unit = (double)gc_bits(run) * 0x1p-64;
    }
    gc_put(run, set + logits_bytes(a), sets, a->n_rows * sizeof *sets);
}

static void queue_sample(gc *run, const gc_bench *bench, uint8_t *set)
{
    qn_gpu_sample_args args = *(const qn_gpu_sample_args *)bench->context;
    uint8_t *at = set + logits_bytes(&args);
    args.logits = (const float *)(const void *)set;
    args.settings = (const qn_gpu_sampling *)(const void *)at;
    args.tokens = (int32_t *)(void *)(at + (size_t)args.n_rows * 32);
    args.scratch = at + (size_t)args.n_rows * 48;
    if (bench->op[0] == 's') {
        qn_gpu_sample(&run->ops, &args);
        return;
    }
    const qn_gpu_logsumexp_args sums = {
        .y = (double *)(void *)args.tokens,
        .logits = args.logits,
        .logits_stride = args.logits_stride,
        .n_rows = args.n_rows,
        .n_vocab = args.n_vocab,
    };
    qn_gpu_logsumexp(&run->ops, &sums);
}

static void bench_sample(gc *run, const char *op, uint32_t n_rows, qn_gpu_sampling set,
                         const char *shape)
{
    const uint32_t n = run->is_emulated ? 512 : N_VOCAB;
    const qn_gpu_sample_args args = {
        .settings = &set, .logits_stride = n, .n_rows = n_rows, .n_vocab = n};
    gc_time(run, &(gc_bench){.op = op,
                             .shape = shape,
                             .n_bytes = (double)logits_bytes(&args),
                             .set_bytes = logits_bytes(&args) + (size_t)n_rows * 48 +
                                          qn_gpu_sample_scratch_bytes(n_rows, n),
                             .fill = fill_sample,
                             .queue = queue_sample,
                             .context = &args});
}

static void bench(gc *run)
{
    const qn_gpu_sampling greedy = {.top_p = 1.0F};
    const qn_gpu_sampling plain = {.temperature = 1.0F, .top_p = 1.0F};
    const qn_gpu_sampling top_p = {.temperature = 1.0F, .top_p = 0.95F};
    const qn_gpu_sampling all = {.temperature = 0.6F, .top_p = 0.95F, .top_k = 20, .min_p = 0.01F};
    bench_sample(run, "sample", 1, greedy, "1 row, greedy");
    bench_sample(run, "sample", 64, greedy, "64 rows, greedy");
    bench_sample(run, "sample", 1, plain, "1 row, plain");
    bench_sample(run, "sample", 1, top_p, "1 row, top-p 0.95");
    bench_sample(run, "sample", 64, plain, "64 rows, plain");
    bench_sample(run, "sample", 64, top_p, "64 rows, top-p 0.95");
    bench_sample(run, "sample", 64, all, "64 rows, top-k, top-p, min-p");
    bench_sample(run, "logsumexp", 1, greedy, "1 row");
    bench_sample(run, "logsumexp", 64, greedy, "64 rows");
}

/* ------------------------------------------------------------------------------------ group -- */

static const gc_check checks[] = {
    {"sample", check_sample, "the token whose interval holds the unit +- 1e-6"},
    {"logsumexp", check_logsumexp, "2e-6 + 2^-52 of the result"},
    {NULL, NULL, NULL},
};

static const gc_wrong wrongs[] = {
    {"sample_other_settings", "sample", sample_ignores_settings},
    {"sample_misses_last_token", "sample", sample_misses_last_token},
    {"sample_misses_last_row", "sample", sample_misses_last_row},
    {"logsumexp_misses_last", "logsumexp", logsumexp_misses_last},
    {"logsumexp_one_row", "logsumexp", logsumexp_one_row},
    {NULL, NULL, NULL},
};

const gc_group gc_sample = {checks, wrongs, bench};
