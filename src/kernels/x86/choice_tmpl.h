/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file choice_tmpl.h  Sums and choices over scores: router, log-sum-exp, sampling.  Included once
 * by a file of each level.
 *
 * Sums over a vocabulary: exp in f32, added in f64 to partial sum i % QN_LANES.  Greedy drawing and
 * log-sum-exp are bound by reading the logits, the rest by exp.
 *
 * Sampling sorts nothing.  Each filter, and the draw itself, keeps a prefix of the tokens by
 * descending logit; where it ends is found by counting and weighing the tokens by the digits of an
 * integer that orders them as their logits do, 8 bits at a time.  Only tokens near the largest take
 * part: those below exp(-8) of its weight rarely decide, and where they do, the same is done again
 * over more of them.
 */
#include "base/numbers.h"
#include "kernels/x86/vec.h"
#include "kernels/x86/x86.h"

#include <math.h>

/* ---------------------------------------------------------------------------------- router -- */

QN_INLINE qn_vf sigmoid(qn_vf z)
{
    return qn_vf_set(1.0F) / (qn_vf_set(1.0F) + qn_vf_exp(-z));
}

/* Does score a go before b, which has the lower index?  NaN goes before nothing. */
static bool goes_before(float a, float b)
{
    return a > b || (isnan(b) && !isnan(a));
}

/* The n_used best experts by insertion: most of the others stop at the first comparison. */
static void choose_experts(int32_t *experts, uint32_t n_used, const float *scores,
                           uint32_t n_experts)
{
    uint32_t n = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        if (n == n_used && !goes_before(scores[e], scores[experts[n - 1]])) {
            continue;
        }
        uint32_t at = n < n_used ? n++ : n - 1;
        for (; at > 0 && goes_before(scores[e], scores[experts[at - 1]]); at--) {
            experts[at] = experts[at - 1];
        }
        experts[at] = (int32_t)e;
    }
}

void QN_LEVEL(qn_router)(const qn_router_args *args)
{
    const qn_vf none = {0};
    for (size_t e = 0; e < args->n_experts; e += QN_LANES) {
        const size_t n = args->n_experts - e;
        const qn_vf bias = qn_vf_load(args->bias + e, n, none);
        qn_vf_store(args->scratch + e, sigmoid(qn_vf_load(args->logits + e, n, none)) + bias, n);
    }
    if (!args->keep_experts && args->n_used > 0) {
        choose_experts(args->experts, args->n_used, args->scratch, args->n_experts);
    }
    float sum = 0.0F;
    for (size_t i = 0; i < args->n_used; i += QN_LANES) {
        const size_t n = args->n_used - i;
        qn_vf chosen = {0};
        for (size_t k = 0; k < QN_LANES && k < n; k++) {
            chosen[k] = args->logits[args->experts[i + k]];
        }
        qn_vf_store(args->weights + i, sigmoid(chosen), n);
        for (size_t k = 0; k < QN_LANES && k < n; k++) {
            sum += args->weights[i + k];
        }
    }
    for (uint32_t i = 0; i < args->n_used; i++) {
        const float weight = args->norm_topk ? args->weights[i] / (sum + 1e-20F) : args->weights[i];
        args->weights[i] = weight * args->routed_scale;
    }
}

/* ------------------------------------------------------------------------------ log-sum-exp -- */

/* The largest that is no NaN; -Inf where there is none. */
static float largest(const float *x, size_t n)
{
    const qn_vf least = qn_vf_set(-INFINITY);
    qn_vf max[4] = {least, least, least, least}; /* one chain of maxima would wait for itself */
    enum { GROUP = 4 * QN_LANES };
    size_t i = 0;
    for (; i + GROUP <= n; i += GROUP) {
        for (size_t k = 0; k < 4; k++) {
            max[k] = qn_vf_max(qn_vf_load(x + i + k * QN_LANES, QN_LANES, least), max[k]);
        }
    }
    for (; i < n; i += QN_LANES) {
        max[0] = qn_vf_max(qn_vf_load(x + i, n - i, least), max[0]);
    }
    max[0] = qn_vf_max(qn_vf_max(max[0], max[1]), qn_vf_max(max[2], max[3]));
    float all = -INFINITY;
    for (size_t lane = 0; lane < QN_LANES; lane++) {
        all = max[0][lane] > all ? max[0][lane] : all;
    }
    return all;
}

/* exp(z) where z <= 0, else, NaN included, 0. */
QN_INLINE qn_vf weight_of(qn_vf z)
{
    return (qn_vf)((qn_vi)qn_vf_exp(z) & (qn_vi)(z <= qn_vf_set(0.0F)));
}

double QN_LEVEL(qn_logsumexp)(const float *x, size_t n)
{
    const float max = largest(x, n);
    if (isinf(max)) {
        return (double)max; /* nothing to add up, or Inf whatever the others are */
    }
    qn_vd low = {0};
    qn_vd high = {0};
    for (size_t i = 0; i < n; i += QN_LANES) {
        const qn_vf v = qn_vf_load(x + i, n - i, qn_vf_set(-INFINITY));
        const qn_vf p = weight_of(v - qn_vf_set(max));
        low += qn_vd_low(p);
        high += qn_vd_high(p);
    }
    return (double)max + log(qn_vd_sum(low) + qn_vd_sum(high));
}

/* --------------------------------------------------------------------------------- sampling -- */

/* Tokens that may be drawn, by ascending id. */
typedef struct candidates {
    const float *logits;
    int32_t *ids;   /* [n] */
    float *weights; /* [n] exp((logit - the largest logit) / temperature) */
    uint32_t n;
} candidates;

/* The first tokens of some by descending logit, ties by ascending id. */
typedef struct prefix {
    uint32_t n;
    double weight;
    int32_t last; /* -1 where n is 0 */
} prefix;

/* Id of the first that has this logit, which is there. */
static int32_t first_of(const float *logits, uint32_t n, float logit)
{
    uint32_t i = 0;
    uint32_t lanes = 0;
    for (; lanes == 0; i += QN_LANES) {
        lanes = qn_vf_equal(qn_vf_load(logits + i, n - i, qn_vf_set(-INFINITY)), qn_vf_set(logit));
    }
    return (int32_t)(i - QN_LANES) + __builtin_ctz(lanes);
}

/* Candidates with at least exp(-cut) of the largest weight.  Returns the weight of all tokens. */
static double collect(candidates *c, const qn_sample_args *args, float max, float cut)
{
    qn_vd low = {0};
    qn_vd high = {0};
    c->n = 0;
    for (uint32_t i = 0; i < args->n_vocab; i += QN_LANES) {
        const qn_vf v = qn_vf_load(args->logits + i, args->n_vocab - i, qn_vf_set(-INFINITY));
        const qn_vf z = (v - qn_vf_set(max)) / qn_vf_set(args->temperature);
        const qn_vf p = weight_of(z);
        low += qn_vd_low(p);
        high += qn_vd_high(p);
        uint32_t lanes = qn_vf_above(z, qn_vf_set(-cut)) & qn_vf_above(p, qn_vf_set(0.0F));
        for (; lanes != 0; lanes &= lanes - 1) {
            const uint32_t lane = (uint32_t)__builtin_ctz(lanes);
            c->ids[c->n] = (int32_t)(i + lane);
            c->weights[c->n++] = p[lane];
        }
    }
    return qn_vd_sum(low) + qn_vd_sum(high);
}

/* Unsigned integer in the order of the floats, -0 as +0. */
static uint32_t order_key(float x)
{
    const uint32_t bits = qn_f32_bits(x + 0.0F);
    return bits ^ ((bits >> 31) != 0 ? ~0U : 1U << 31);
}

/* What tokens with one digit bring. */
typedef struct bin {
    double weight;
    uint32_t n;
} bin;

/* What candidates bring by the 8 bits of their keys from shift on, of those with known above. */
static void weigh_digits(bin bins[256], const candidates *c, uint32_t known, int shift)
{
    const uint32_t above = shift == 24 ? 0 : ~0U << (shift + 8);
    for (uint32_t i = 0; i < c->n; i++) {
        const uint32_t key = order_key(c->logits[c->ids[i]]);
        if ((key & above) == known) {
            bins[key >> shift & 255U].weight += (double)c->weights[i];
            bins[key >> shift & 255U].n++;
        }
    }
}

/*
 * The shortest prefix with n_most tokens or with a weight of at least @p enough; all where neither
 * comes about.
 */
static prefix find_prefix(const candidates *c, uint32_t n_most, double enough)
{
    prefix found = {0, 0.0, -1}; /* tokens before those whose keys begin with the known digits */
    uint32_t known = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        bin bins[256] = {{0}};
        weigh_digits(bins, c, known, shift);
        bin last = {0};
        uint32_t digit = 0;
        for (uint32_t d = 256;
             d-- > 0 && found.n + last.n < n_most && found.weight + last.weight < enough;) {
            if (bins[d].n > 0) {
                found.n += last.n; /* those of the bin before: the prefix goes on behind it */
                found.weight += last.weight;
                last = bins[d];
                digit = d;
            }
        }
        known |= digit << shift;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        if (order_key(c->logits[c->ids[i]]) == known) {
            found.n++;
            found.weight += (double)c->weights[i];
            found.last = c->ids[i];
            if (found.n >= n_most || found.weight >= enough) {
                break;
            }
        }
    }
    return found;
}

/* Only the prefix stays. */
static void cut_behind(candidates *c, const prefix *kept)
{
    const float least = c->logits[kept->last];
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        const float logit = c->logits[c->ids[i]];
        if (logit > least || (logit == least && c->ids[i] <= kept->last)) {
            c->ids[n] = c->ids[i];
            c->weights[n++] = c->weights[i];
        }
    }
    c->n = n;
}

/* Only tokens of that weight stay.  Returns their weight. */
static double cut_below(candidates *c, float least)
{
    double sum = 0.0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->weights[i] >= least) {
            c->ids[n] = c->ids[i];
            c->weights[n++] = c->weights[i];
            sum += (double)c->weights[i];
        }
    }
    c->n = n;
    return sum;
}

/*
 * Filter the candidates and draw.
 *
 * @param weight  of all tokens, also of those that are no candidates
 * @param least   what the weights of those are below; 0: there are none
 * Returns  -1 where the answer depends on tokens that are no candidates
 */
static int32_t draw(candidates *c, const qn_sample_args *args, double weight, float least)
{
    bool is_whole = least == 0.0F; /* no token outside can be among those kept */
    if (args->top_k > 0 && args->top_k < args->n_vocab) {
        if (c->n < args->top_k && !is_whole) {
            return -1;
        }
        const prefix kept = find_prefix(c, args->top_k, (double)INFINITY);
        cut_behind(c, &kept);
        weight = kept.weight;
        is_whole = true;
    }
    if (args->top_p < 1.0F) {
        const double enough = (double)args->top_p * weight;
        const prefix kept = find_prefix(c, c->n, enough);
        if (kept.weight < enough && !is_whole) {
            return -1;
        }
        cut_behind(c, &kept);
        weight = kept.weight;
        is_whole = true;
    }
    if (args->min_p > 0.0F) {
        if (args->min_p < least && !is_whole) {
            return -1;
        }
        weight = cut_below(c, args->min_p);
        is_whole = true;
    }
    /* The token whose interval holds unit is the first whose sum is above the target. */
    const double enough = nextafter(args->unit * weight, (double)INFINITY);
    const prefix drawn = find_prefix(c, c->n, enough);
    return drawn.weight >= enough || is_whole ? drawn.last : -1;
}

int32_t QN_LEVEL(qn_sample)(const qn_sample_args *args)
{
    const float max = largest(args->logits, args->n_vocab);
    if (max == -INFINITY) {
        return -1;
    }
    if (args->temperature == 0.0F || max == INFINITY) {
        return first_of(args->logits, args->n_vocab, max);
    }
    candidates c = {args->logits, args->scratch_i, args->scratch_p, 0};
    int32_t token = -1;
    for (int cut = 8; token < 0 && cut <= 128; cut *= 2) {
        const double weight = collect(&c, args, max, (float)cut);
        /* Twice exp(-cut), which serves for it and its rounding; behind 104 weights are 0. */
        token = draw(&c, args, weight, cut > 104 ? 0.0F : 2.0F * expf(-(float)cut));
    }
    return token;
}
