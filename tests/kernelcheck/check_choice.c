/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelcheck.h"

#include <string.h>

/* ---------------------------------------------------------- sorting, the oracle of every choice */

static const float *g_keys; /* of the sort below */

/* By descending value, NaN last, ties to the lower index. */
static int by_key(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a;
    const int32_t j = *(const int32_t *)b;
    const bool nan_i = isnan(g_keys[i]);
    const bool nan_j = isnan(g_keys[j]);
    if (nan_i != nan_j) {
        return nan_i ? 1 : -1;
    }
    if (!nan_i && g_keys[i] != g_keys[j]) {
        return g_keys[i] > g_keys[j] ? -1 : 1;
    }
    return (i > j) - (i < j);
}

static int by_index(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

static int32_t *sorted(const float *keys, uint32_t n)
{
    int32_t *order = malloc((n + 1) * sizeof *order);
    if (order == NULL) {
        abort();
    }
    for (uint32_t i = 0; i < n; i++) {
        order[i] = (int32_t)i;
    }
    g_keys = keys;
    qsort(order, n, sizeof *order, by_key);
    return order;
}

/* ---------------------------------------------------------------------------------- router -- */

static void router_case(kc *run, uint32_t n, uint32_t used, int variant)
{
    kc_begin(run, "%u of %u, variant %d", used, n, variant);
    float *logits = kc_in(run, n, variant == 1 ? KC_EQUAL : KC_UNIFORM);
    float *bias = kc_in(run, n, variant == 1 ? KC_ZERO : KC_UNIFORM);
    int32_t *experts = (int32_t *)(void *)kc_out(run, used);
    float *weights = kc_out(run, used);
    float *scores = kc_out(run, n);
    for (uint32_t e = 0; e < n && variant == 2; e++) {
        logits[e] *= 60.0F;
    }
    if (variant == 3) {
        logits[n / 2] = NAN;
    }
    kc_seal(run);
    qn_router_args args = {experts, weights, logits,           bias, scores,
                           n,       used,    variant % 2 == 0, 2.5F, false};
    run->k->router(&args);
    for (uint32_t e = 0; e < n; e++) {
        const double sigmoid = 1.0 / (1.0 + exp(-(double)logits[e]));
        const double want = sigmoid + (double)bias[e];
        const double size = 4.0 * 0x1p-24 * (1.0 + fabs((double)bias[e]));
        kc_close(run, "score", scores + e, &want, &size, 1, 1.0);
    }
    int32_t *order = sorted(scores, n);
    kc_same(run, "experts", experts, order, used * sizeof *order);
    free(order);
    double sum = 0.0;
    for (uint32_t i = 0; i < used; i++) {
        sum += 1.0 / (1.0 + exp(-(double)logits[experts[i]]));
    }
    for (uint32_t i = 0; i < used; i++) {
        double want = 1.0 / (1.0 + exp(-(double)logits[experts[i]]));
        want = 2.5 * (args.norm_topk ? want / (sum + 1e-20) : want);
        const double size = 0x1p-24 * fabs(want) + 1e-40;
        kc_close(run, "weight", weights + i, &want, &size, 1, kc_bound("router"));
    }
    /* A choice from outside keeps its order and gets its own weights. */
    float *kept = kc_out(run, used);
    args.weights = kept;
    args.keep_experts = true;
    run->k->router(&args);
    kc_same(run, "kept choice", kept, weights, used * sizeof *kept);
    kc_end(run);
}

/*
 * A row of few distinct logits without bias: equal scores stand in the way of the choice, which has
 * to fall to the lower index.  NaN comes last, and -Inf is a score of 0 before it.
 */
static void router_order_case(kc *run, const char *what, const float *given, uint32_t n,
                              const int32_t *want, uint32_t used)
{
    kc_begin(run, "%s", what);
    float *logits = kc_in(run, n, KC_UNIFORM);
    float *bias = kc_in(run, n, KC_EQUAL);
    int32_t *experts = (int32_t *)(void *)kc_out(run, used);
    float *weights = kc_out(run, used);
    float *scores = kc_out(run, n);
    for (uint32_t e = 0; e < n; e++) {
        logits[e] = given[e];
        bias[e] = 0.25F;
    }
    kc_seal(run);
    const qn_router_args args = {experts, weights, logits, bias, scores,
                                 n,       used,    false,  2.0F, false};
    run->k->router(&args);
    kc_same(run, "experts", experts, want, used * sizeof *want);
    for (uint32_t i = 0; i < used; i++) {
        const double weight = 2.0 / (1.0 + exp(-(double)given[want[i]]));
        const double size = 0x1p-24 * fabs(weight) + 1e-40;
        kc_close(run, "weight", weights + i, &weight, &size, 1, kc_bound("router"));
    }
    kc_end(run);
}

static void router_order_cases(kc *run)
{
    static const float cut[] = {0.5F, 0.1F, 0.9F, 0.7F, 0.1F, 0.7F};
    static const int32_t of_cut[] = {2, 3, 5, 0};
    static const int32_t of_all_cut[] = {2, 3, 5, 0, 1};
    static const float last[] = {NAN, 1.0F, -INFINITY, -NAN, 2.0F, -INFINITY, INFINITY};
    static const int32_t of_last[] = {6, 4, 1, 2, 5, 0, 3};
    static const float equal[40] = {0};
    static const int32_t of_equal[] = {0, 1, 2, 3, 4, 5, 6, 7};
    router_order_case(run, "two equal, one of them taken", cut, 6, of_cut, 2);
    router_order_case(run, "two equal, both taken", cut, 6, of_cut, 3);
    router_order_case(run, "two equal at the end, one of them taken", cut, 6, of_all_cut, 5);
    router_order_case(run, "Inf, -Inf and NaN, down to the first of two -Inf", last, 7, of_last, 4);
    router_order_case(run, "Inf, -Inf and NaN, NaN not needed", last, 7, of_last, 5);
    router_order_case(run, "Inf, -Inf and NaN, all", last, 7, of_last, 7);
    router_order_case(run, "all equal", equal, 40, of_equal, 8);
}

/* Experts from outside, in an order of their own: weights of that choice, order kept. */
static void router_kept_case(kc *run, bool norm_topk)
{
    static const int32_t given[] = {5, 0, 30, 7};
    kc_begin(run, "experts given, norm %d", norm_topk);
    float *logits = kc_in(run, 33, KC_UNIFORM);
    float *bias = kc_in(run, 33, KC_UNIFORM);
    int32_t *experts = (int32_t *)(void *)kc_in_bytes(run, sizeof given);
    float *weights = kc_out(run, 4);
    float *scores = kc_out(run, 33);
    memcpy(experts, given, sizeof given);
    kc_seal(run);
    const qn_router_args args = {experts, weights, logits,    bias, scores,
                                 33,      4,       norm_topk, 2.5F, true};
    run->k->router(&args);
    double sum = 0.0;
    for (int i = 0; i < 4; i++) {
        sum += 1.0 / (1.0 + exp(-(double)logits[given[i]]));
    }
    for (int i = 0; i < 4; i++) {
        const double want =
            2.5 / (1.0 + exp(-(double)logits[given[i]])) / (norm_topk ? sum + 1e-20 : 1.0);
        const double size = 0x1p-24 * want;
        kc_close(run, "weight", weights + i, &want, &size, 1, kc_bound("router"));
    }
    kc_end(run);
}

void check_router(kc *run)
{
    static const uint32_t shapes[][2] = {{1, 1},  {2, 1},  {7, 3},  {16, 16},
                                         {24, 4}, {33, 5}, {256, 8}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int variant = 0; variant < 4; variant++) {
            router_case(run, shapes[i][0], shapes[i][1], variant);
        }
    }
    router_order_cases(run);
    router_kept_case(run, false);
    router_kept_case(run, true);
}

/* ----------------------------------------------------------------------------------- top-k -- */

static void topk_case(kc *run, uint32_t n, uint32_t k, int variant)
{
    kc_begin(run, "%u of %u, variant %d", k, n, variant);
    static const kc_fill_kind fills[] = {KC_UNIFORM, KC_EQUAL, KC_ZERO,    KC_UNIFORM,
                                         KC_TINY,    KC_HUGE,  KC_UNIFORM, KC_UNIFORM};
    float *scores = kc_in(run, n, fills[variant]);
    const uint32_t n_want = k < n ? k : n;
    int32_t *set = (int32_t *)(void *)kc_out(run, n_want);
    for (uint32_t i = 0; i < n && variant == 3; i++) {
        const float special[] = {NAN, -NAN, INFINITY, -INFINITY, 0.25F};
        scores[i] = kc_below(run, 3) == 0 ? special[kc_below(run, 5)] : scores[i];
    }
    for (uint32_t i = 0; i < n && variant >= 6; i++) {
        /* The upper half of the bits decides nothing, or the lower one. */
        scores[i] = variant == 6 ? 1.0F + 0x1p-9F * scores[i] : truncf(8.0F * scores[i]);
    }
    kc_seal(run);
    const uint32_t n_got = run->k->topk(set, scores, n, k);
    if (n_got != n_want) {
        kc_fail(run, "%u indices, %u expected", n_got, n_want);
    } else {
        int32_t *order = sorted(scores, n);
        qsort(order, n_want, sizeof *order, by_index);
        kc_same(run, "set", set, order, n_want * sizeof *order);
        free(order);
    }
    kc_end(run);
}

void check_topk(kc *run)
{
    static const uint32_t shapes[][2] = {{0, 4},      {1, 1},        {1, 0},       {15, 16},
                                         {16, 16},    {17, 16},      {33, 31},     {257, 256},
                                         {4096, 256}, {20000, 2048}, {65541, 2048}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int variant = 0; variant < 8; variant++) {
            topk_case(run, shapes[i][0], shapes[i][1], variant);
        }
    }
}

/* --------------------------------------------------------------------------------- sampling -- */

/* Cumulative probabilities of the tokens that may be drawn, in f64, by sorting everything. */
static uint32_t sampling_oracle(double *cumulative, const int32_t *order, const qn_sample_args *a)
{
    const double max = (double)a->logits[order[0]];
    double all = 0.0;
    uint32_t n = 0;
    for (; n < a->n_vocab && a->logits[order[n]] > -INFINITY; n++) {
        all += exp(((double)a->logits[order[n]] - max) / (double)a->temperature);
    }
    n = a->top_k > 0 && a->top_k < n ? a->top_k : n;
    double mass = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        mass += exp(((double)a->logits[order[i]] - max) / (double)a->temperature) / all;
    }
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        const double p = exp(((double)a->logits[order[i]] - max) / (double)a->temperature) / all;
        if (i > 0 &&
            ((a->top_p < 1.0F && sum >= (double)a->top_p * mass) || p < (double)a->min_p / all)) {
            return i;
        }
        sum += p;
        cumulative[i] = sum;
    }
    return n;
}

/* A token is right when the draw falls into its interval, give or take the bound. */
static bool is_drawn(const double *cumulative, const int32_t *order, uint32_t n, double unit,
                     int32_t token)
{
    const double slack = kc_bound("sample");
    for (uint32_t i = 0; i < n; i++) {
        if (order[i] == token) {
            const double low = (i > 0 ? cumulative[i - 1] : 0.0) / cumulative[n - 1];
            const double high = cumulative[i] / cumulative[n - 1];
            return unit >= low - slack && unit <= high + slack;
        }
    }
    return false;
}

static void sample_case(kc *run, uint32_t n, float temperature, float top_p, uint32_t top_k,
                        float min_p)
{
    kc_begin(run, "n %u T %g top-p %g top-k %u min-p %g", n, (double)temperature, (double)top_p,
             top_k, (double)min_p);
    float *logits = kc_in(run, n, KC_UNIFORM);
    float *p = kc_out(run, n);
    int32_t *ids = (int32_t *)(void *)kc_out(run, n);
    for (uint32_t i = 0; i < n; i++) {
        logits[i] *= 6.0F;
    }
    if (n > 20) {
        logits[n - 3] = -INFINITY;
    }
    kc_seal(run);
    qn_sample_args args = {logits, n, temperature, top_p, top_k, min_p, 0.0, p, ids};
    int32_t *order = sorted(logits, n);
    double *cumulative = malloc(n * sizeof *cumulative);
    if (cumulative == NULL) {
        abort();
    }
    const uint32_t n_kept = temperature > 0.0F ? sampling_oracle(cumulative, order, &args) : 0;
    for (int draw = 0; draw < 40; draw++) {
        args.unit = draw == 0   ? 0.0
                    : draw == 1 ? 0x1.fffffffffffffp-1
                                : (double)kc_bits(run) * 0x1p-64;
        const int32_t token = run->k->sample(&args);
        if (temperature > 0.0F ? !is_drawn(cumulative, order, n_kept, args.unit, token)
                               : token != order[0]) {
            kc_fail(run, "unit %.17g drew token %d", args.unit, token);
            break;
        }
    }
    free(order);
    free(cumulative);
    kc_end(run);
}

/* Ties go to the lower id; NaN is never drawn; nothing to draw is said. */
static void sample_ties_case(kc *run)
{
    static const float tied[] = {NAN, 2.0F, 2.0F, 1.0F};
    kc_begin(run, "ties, NaN, nothing");
    float *logits = kc_in(run, 4, KC_UNIFORM);
    float *nothing = kc_in(run, 4, KC_UNIFORM);
    float *p = kc_out(run, 4);
    int32_t *ids = (int32_t *)(void *)kc_out(run, 4);
    memcpy(logits, tied, sizeof tied);
    for (int i = 0; i < 4; i++) {
        nothing[i] = i % 2 == 0 ? NAN : -INFINITY;
    }
    kc_seal(run);
    qn_sample_args args = {logits, 4, 0.0F, 1.0F, 0, 0.0F, 0.5, p, ids};
    if (run->k->sample(&args) != 1) {
        kc_fail(run, "greedy took %d, 1 expected", run->k->sample(&args));
    }
    args.temperature = 1.0F;
    for (int draw = 0; draw < 20; draw++) {
        /* 1 and 2 have 0.42 each, 3 has 0.16; with top_k 1 only the lower of the tied is left. */
        args.unit = draw / 20.0;
        args.top_k = draw % 2 == 0 ? 0 : 1;
        const int32_t want = draw % 2 == 1 || args.unit < 0.41 ? 1 : args.unit < 0.84 ? 2 : 3;
        if (run->k->sample(&args) != want) {
            kc_fail(run, "unit %g, top-k %u drew %d, %d expected", args.unit, args.top_k,
                    run->k->sample(&args), want);
        }
    }
    args.logits = nothing;
    if (run->k->sample(&args) != -1) {
        kc_fail(run, "NaN and -Inf drew %d, -1 expected", run->k->sample(&args));
    }
    kc_end(run);
}

void check_sample(kc *run)
{
    static const uint32_t sizes[] = {1, 2, 17, 6144, 154880};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint32_t n = sizes[i];
        sample_case(run, n, 0.0F, 1.0F, 0, 0.0F);
        sample_case(run, n, 1.0F, 0.95F, 0, 0.0F);
        sample_case(run, n, 0.3F, 1.0F, 40, 0.0F);
        if (n < 10000) {
            sample_case(run, n, 1.0F, 1.0F, 0, 0.0F);
            sample_case(run, n, 2.0F, 0.5F, 7, 0.0F);
            sample_case(run, n, 1.0F, 1.0F, 0, 0.1F);
            sample_case(run, n, 1.0F, 0.9F, 100, 0.02F);
            /* Weights that differ by less than a float can tell, and by more than it can hold. */
            sample_case(run, n, 1e30F, 0.9F, 0, 0.0F);
            sample_case(run, n, 0.1F, 1.0F, 10, 0.0F);
            sample_case(run, n, 0.1F, 1.0F, 0, 1e-9F);
        }
    }
    sample_ties_case(run);
}

/* ------------------------------------------------------------------------------ log-sum-exp -- */

static double logsumexp_oracle(const float *x, size_t n)
{
    long double max = -(long double)INFINITY;
    long double sum = 0.0L;
    for (size_t i = 0; i < n; i++) {
        max = isnan(x[i]) ? max : fmaxl(max, (long double)x[i]);
    }
    for (size_t i = 0; i < n && isfinite(max); i++) {
        sum += isnan(x[i]) ? 0.0L : expl((long double)x[i] - max);
    }
    return (double)(isfinite(max) ? max + logl(sum) : max);
}

static void logsumexp_case(kc *run, size_t n, kc_fill_kind kind, float scale)
{
    kc_begin(run, "n %zu, fill %d times %g", n, kind, (double)scale);
    float *x = kc_in(run, n, kind);
    for (size_t i = 0; i < n; i++) {
        x[i] *= scale;
    }
    kc_seal(run);
    const double want = logsumexp_oracle(x, n);
    const double got = run->k->logsumexp(x, n);
    const double error_max = kc_bound("logsumexp") * (2e-6 + 0x1p-52 * fabs(want));
    if (isfinite(want) ? !(fabs(got - want) <= error_max) : got != want) {
        kc_fail(run, "%.17g, %.17g expected, give or take %.3g", got, want, error_max);
    }
    kc_end(run);
}

/* What has no weight, what outweighs everything, and nothing at all. */
static void logsumexp_special_case(kc *run, const char *what, const float *given, size_t n,
                                   double want)
{
    kc_begin(run, "%s", what);
    float *x = kc_in(run, n, KC_UNIFORM);
    for (size_t i = 0; i < n; i++) {
        x[i] = given[i];
    }
    kc_seal(run);
    const double got = run->k->logsumexp(x, n);
    if (got != want) {
        kc_fail(run, "%.17g, %.17g expected", got, want);
    }
    kc_end(run);
}

void check_logsumexp(kc *run)
{
    static const size_t sizes[] = {0, 1, 2, 15, 16, 17, 33, 6144, 154880};
    static const float nothing[] = {NAN, -INFINITY, -NAN};
    static const float one[] = {NAN, -INFINITY, 3.5F, -NAN};
    static const float above[] = {NAN, 1.0F, INFINITY, -INFINITY, INFINITY};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int kind = KC_UNIFORM; kind < KC_N_FILLS; kind++) {
            logsumexp_case(run, sizes[i], (kc_fill_kind)kind, 1.0F);
        }
        logsumexp_case(run, sizes[i], KC_UNIFORM, 12.0F);
        logsumexp_case(run, sizes[i], KC_UNIFORM, 200.0F);
    }
    logsumexp_special_case(run, "NaN and -Inf", nothing, 3, -(double)INFINITY);
    logsumexp_special_case(run, "one number between NaN and -Inf", one, 4, 3.5);
    logsumexp_special_case(run, "two Inf beside NaN", above, 5, (double)INFINITY);
}
