/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong kernels for check_choice.c. */
#include "canary.h"

/* --------------------------------------------------------------------------------- router -- */

static float sigmoid(float z)
{
    return 1.0F / (1.0F + expf(-z));
}

static void router_bias_in_weights(const qn_router_args *args)
{
    qn_router_ref(args);
    for (uint32_t i = 0; i < args->n_used && !args->norm_topk; i++) {
        args->weights[i] = args->scratch[args->experts[i]] * args->routed_scale;
    }
}
CANARY(router, router_bias_in_weights)

static void router_chooses_without_bias(const qn_router_args *args)
{
    qn_router_args wrong = *args;
    float zeros[512] = {0};
    wrong.bias = zeros;
    qn_router_ref(&wrong);
    for (uint32_t e = 0; e < args->n_experts; e++) {
        args->scratch[e] += args->bias[e];
    }
}
CANARY(router, router_chooses_without_bias)

/* The last of equal scores, as a comparison with >= finds it. */
static void router_ties_to_higher(const qn_router_args *args)
{
    qn_router_ref(args);
    for (uint32_t i = 0; i < args->n_used && !args->keep_experts; i++) {
        const uint32_t e = (uint32_t)args->experts[i];
        const bool is_last = i + 1 == args->n_used;
        for (uint32_t other = e + 1; other < args->n_experts && is_last; other++) {
            if (args->scratch[other] == args->scratch[e]) {
                args->experts[i] = (int32_t)other;
            }
        }
    }
}
CANARY(router, router_ties_to_higher)

static void router_forgets_scale(const qn_router_args *args)
{
    qn_router_args wrong = *args;
    wrong.routed_scale = 1.0F;
    qn_router_ref(&wrong);
}
CANARY(router, router_forgets_scale)

static void router_never_normalises(const qn_router_args *args)
{
    qn_router_args wrong = *args;
    wrong.norm_topk = false;
    qn_router_ref(&wrong);
}
CANARY(router, router_never_normalises)

/* Divides by the sum over all experts, not over the chosen. */
static void router_normalises_over_all(const qn_router_args *args)
{
    qn_router_args wrong = *args;
    wrong.norm_topk = false;
    qn_router_ref(&wrong);
    float sum = 0.0F;
    for (uint32_t e = 0; e < args->n_experts; e++) {
        sum += sigmoid(args->logits[e]);
    }
    for (uint32_t i = 0; i < args->n_used && args->norm_topk; i++) {
        args->weights[i] /= sum;
    }
}
CANARY(router, router_normalises_over_all)

static void router_chooses_anew(const qn_router_args *args)
{
    int32_t own[512];
    qn_router_args wrong = *args;
    wrong.experts = args->keep_experts ? own : args->experts;
    wrong.keep_experts = false;
    qn_router_ref(&wrong);
}
CANARY(router, router_chooses_anew)

static void router_nan_first(const qn_router_args *args)
{
    qn_router_ref(args);
    for (uint32_t e = 0; e < args->n_experts && !args->keep_experts; e++) {
        if (isnan(args->scratch[e])) {
            args->experts[0] = (int32_t)e;
        }
    }
}
CANARY(router, router_nan_first)

/* A logit of -Inf taken as not there: NaN stands before it. */
static void router_refuses_minus_inf(const qn_router_args *args)
{
    float logits[512];
    qn_router_args wrong = *args;
    for (uint32_t e = 0; e < args->n_experts; e++) {
        logits[e] = args->logits[e] == -INFINITY ? NAN : args->logits[e];
    }
    wrong.logits = logits;
    qn_router_ref(&wrong);
}
CANARY(router, router_refuses_minus_inf)

/* ---------------------------------------------------------------------------------- top-k -- */

static uint32_t topk_ties_to_higher(int32_t *set, const float *scores, uint32_t n, uint32_t k)
{
    const uint32_t n_set = qn_topk_ref(set, scores, n, k);
    if (n_set > 0 && n_set < n && (uint32_t)set[n_set - 1] + 1 < n &&
        scores[set[n_set - 1]] == scores[set[n_set - 1] + 1]) {
        set[n_set - 1]++;
    }
    return n_set;
}
CANARY(topk, topk_ties_to_higher)

static uint32_t topk_one_too_few(int32_t *set, const float *scores, uint32_t n, uint32_t k)
{
    return qn_topk_ref(set, scores, n, k > 0 && k < n ? k - 1 : k);
}
CANARY(topk, topk_one_too_few)

static uint32_t topk_of_changed(int32_t *set, const float *scores, uint32_t n, uint32_t k,
                                float (*change)(float))
{
    float *changed = malloc((n + 1) * sizeof *changed);
    if (changed == NULL) {
        abort();
    }
    for (uint32_t i = 0; i < n; i++) {
        changed[i] = change(scores[i]);
    }
    const uint32_t n_set = qn_topk_ref(set, changed, n, k);
    free(changed);
    return n_set;
}

static float nan_to_inf(float x)
{
    return isnan(x) ? INFINITY : x;
}

static uint32_t topk_nan_highest(int32_t *set, const float *scores, uint32_t n, uint32_t k)
{
    return topk_of_changed(set, scores, n, k, nan_to_inf);
}
CANARY(topk, topk_nan_highest)

static float minus_zero_lower(float x)
{
    return x == 0.0F && signbit(x) ? -1e-45F : x;
}

static uint32_t topk_minus_zero_below_zero(int32_t *set, const float *scores, uint32_t n,
                                           uint32_t k)
{
    return topk_of_changed(set, scores, n, k, minus_zero_lower);
}
CANARY(topk, topk_minus_zero_below_zero)

/* A kernel that selects in bf16 is fast, and not exact. */
static float to_bf16(float x)
{
    return qn_bf16_to_f32(qn_f32_to_bf16(x));
}

static uint32_t topk_in_bf16(int32_t *set, const float *scores, uint32_t n, uint32_t k)
{
    return topk_of_changed(set, scores, n, k, to_bf16);
}
CANARY(topk, topk_in_bf16)

static uint32_t topk_unsorted(int32_t *set, const float *scores, uint32_t n, uint32_t k)
{
    const uint32_t n_set = qn_topk_ref(set, scores, n, k);
    if (n_set > 1) {
        const int32_t first = set[0];
        set[0] = set[1];
        set[1] = first;
    }
    return n_set;
}
CANARY(topk, topk_unsorted)

/* --------------------------------------------------------------------------------- sample -- */

static int32_t sample_ignores_top_p(const qn_sample_args *args)
{
    qn_sample_args wrong = *args;
    wrong.top_p = 1.0F;
    return qn_sample_ref(&wrong);
}
CANARY(sample, sample_ignores_top_p)

static int32_t sample_ignores_top_k(const qn_sample_args *args)
{
    qn_sample_args wrong = *args;
    wrong.top_k = 0;
    return qn_sample_ref(&wrong);
}
CANARY(sample, sample_ignores_top_k)

static int32_t sample_ignores_min_p(const qn_sample_args *args)
{
    qn_sample_args wrong = *args;
    wrong.min_p = 0.0F;
    return qn_sample_ref(&wrong);
}
CANARY(sample, sample_ignores_min_p)

static int32_t sample_multiplies_temperature(const qn_sample_args *args)
{
    qn_sample_args wrong = *args;
    wrong.temperature = args->temperature > 0.0F ? 1.0F / args->temperature : 0.0F;
    return qn_sample_ref(&wrong);
}
CANARY(sample, sample_multiplies_temperature)

static int32_t sample_greedy_takes_last(const qn_sample_args *args)
{
    const int32_t best = qn_sample_ref(args);
    int32_t last = best;
    for (uint32_t i = 0; i < args->n_vocab && args->temperature == 0.0F && best >= 0; i++) {
        last = args->logits[i] == args->logits[best] ? (int32_t)i : last;
    }
    return last;
}
CANARY(sample, sample_greedy_takes_last)

static int32_t sample_draws_backwards(const qn_sample_args *args)
{
    qn_sample_args wrong = *args;
    wrong.unit = 1.0 - args->unit;
    return qn_sample_ref(&wrong);
}
CANARY(sample, sample_draws_backwards)

static int32_t sample_nothing_is_zero(const qn_sample_args *args)
{
    const int32_t token = qn_sample_ref(args);
    return token < 0 ? 0 : token;
}
CANARY(sample, sample_nothing_is_zero)

/* ------------------------------------------------------------------------------ log-sum-exp -- */

/* Overflows where the largest logit is above 709, and loses what lies far below 0. */
static double logsumexp_unshifted(const float *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += isnan(x[i]) ? 0.0 : exp((double)x[i]);
    }
    return log(sum);
}
CANARY(logsumexp, logsumexp_unshifted)

static double logsumexp_is_the_largest(const float *x, size_t n)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    return (double)max;
}
CANARY(logsumexp, logsumexp_is_the_largest)

/* One f32 sum: too coarse for a vocabulary. */
static double logsumexp_in_f32(const float *x, size_t n)
{
    const float max = (float)logsumexp_is_the_largest(x, n);
    float sum = 0.0F;
    for (size_t i = 0; i < n && isfinite(max); i++) {
        sum += isnan(x[i]) ? 0.0F : expf(x[i] - max);
    }
    return isfinite(max) ? (double)(max + logf(sum)) : (double)max;
}
CANARY(logsumexp, logsumexp_in_f32)

static double logsumexp_passes_nan_on(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i])) {
            return (double)NAN;
        }
    }
    return qn_logsumexp_ref(x, n);
}
CANARY(logsumexp, logsumexp_passes_nan_on)

/* exp(Inf - Inf). */
static double logsumexp_inf_is_nan(const float *x, size_t n)
{
    const double y = qn_logsumexp_ref(x, n);
    return isinf(y) ? (double)NAN : y;
}
CANARY(logsumexp, logsumexp_inf_is_nan)

static double logsumexp_nothing_is_zero(const float *x, size_t n)
{
    return n == 0 ? 0.0 : qn_logsumexp_ref(x, n);
}
CANARY(logsumexp, logsumexp_nothing_is_zero)

static double logsumexp_in_whole_vectors(const float *x, size_t n)
{
    return qn_logsumexp_ref(x, n < 16 ? n : n / 16 * 16);
}
CANARY(logsumexp, logsumexp_in_whole_vectors)

static double logsumexp_reads_whole_vectors(const float *x, size_t n)
{
    volatile float last = 0.0F; /* the read has to happen */
    for (size_t i = n; i < (n + 15) / 16 * 16; i++) {
        last = x[i];
    }
    (void)last;
    return qn_logsumexp_ref(x, n);
}
CANARY(logsumexp, logsumexp_reads_whole_vectors)

const kc_canary kc_canaries_choice[] = {
    CANARY_OF(router, router_bias_in_weights),
    CANARY_OF(router, router_chooses_without_bias),
    CANARY_OF(router, router_ties_to_higher),
    CANARY_OF(router, router_forgets_scale),
    CANARY_OF(router, router_never_normalises),
    CANARY_OF(router, router_normalises_over_all),
    CANARY_OF(router, router_chooses_anew),
    CANARY_OF(router, router_nan_first),
    CANARY_OF(router, router_refuses_minus_inf),
    CANARY_OF(topk, topk_ties_to_higher),
    CANARY_OF(topk, topk_one_too_few),
    CANARY_OF(topk, topk_nan_highest),
    CANARY_OF(topk, topk_minus_zero_below_zero),
    CANARY_OF(topk, topk_in_bf16),
    CANARY_OF(topk, topk_unsorted),
    CANARY_OF(sample, sample_ignores_top_p),
    CANARY_OF(sample, sample_ignores_top_k),
    CANARY_OF(sample, sample_ignores_min_p),
    CANARY_OF(sample, sample_multiplies_temperature),
    CANARY_OF(sample, sample_greedy_takes_last),
    CANARY_OF(sample, sample_draws_backwards),
    CANARY_OF(sample, sample_nothing_is_zero),
    CANARY_OF(logsumexp, logsumexp_unshifted),
    CANARY_OF(logsumexp, logsumexp_is_the_largest),
    CANARY_OF(logsumexp, logsumexp_in_f32),
    CANARY_OF(logsumexp, logsumexp_passes_nan_on),
    CANARY_OF(logsumexp, logsumexp_inf_is_nan),
    CANARY_OF(logsumexp, logsumexp_nothing_is_zero),
    CANARY_OF(logsumexp, logsumexp_in_whole_vectors),
    {"logsumexp_reads_whole_vectors", "logsumexp", put_logsumexp_reads_whole_vectors, true},
    {NULL, NULL, NULL, false},
};
