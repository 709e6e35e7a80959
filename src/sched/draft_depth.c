/* SPDX-License-Identifier: Apache-2.0 */
/* The ideas in words, and what they achieve, are in docs/internals/sched.md. */
#include "sched/draft_depth.h"

#include "base/assert.h"
#include "sched/draft_cost.h"

#include <math.h>
#include <string.h>

enum {
    N_COSTS = QN_DRAFT_N_COSTS,
    /* Places in log_s: first the verification of depth 0, 1, ...; then these two. */
    N_VERIFY = QN_DRAFT_TOKENS_MAX + 1,
    MTP_PASS = N_VERIFY, /* one row through the MTP layer */
    MTP_ROW,             /* each further row of the same pass */

    /* The first steps alternate between drafts and none, as the gain is a matter of both costs.
       Times of the first four are those of a machine that warms up and teach nothing. */
    N_COLD_STEPS = 4,
    N_OPENING_STEPS = 8,
    OPENING_DEPTH = 3, /* loses at most 3 of 4 rows, or 5 of 9 tokens, where 0 or 8 is best */

    /* Steps that draft before one that does not, doubled by each: the opening may have seen the
       cost of depth 0 on a cold machine, and while drafts seem to pay nothing else would show it.
       Measured: 1.9 ms believed, 1.1 ms once warm (glm-nano, 2 cores, 2026-11-25). */
    CHECK_WAIT_LEAST = 8,
    CHECK_WAIT_MOST = 256,

    /* So many times in a row that are far too long are no chance.  A step has one or two. */
    N_SLOW_MAX = 4,

    /* Steps without drafts before a probe, doubled by each miss: 8 misses in a row, some 1,200
       tokens, are so unlikely where drafts are of use (1 in 256 at acceptance .5) that they end it.
       At most as many as rows can wait, less the 8 that the last draft may have left. */
    PROBE_WAIT = 16,
    N_MISSED_MAX = 8,
    IDLE_MAX = QN_DRAFT_EXTEND_ROWS_MAX - 2 * QN_DRAFT_TOKENS_MAX,

    /* A sequence that may draft again computes its whole prompt by the MTP layer too, 1/80 to 1/4
       of that work for nothing.  Doubling makes it rare where it stays in vain. */
    RETRY_IDLE_LEAST = 1024,
    RETRY_IDLE_MOST = 65536,
};

/* Acceptance: evidence fades by 1/80 a step, so that a change is followed within some 100 tokens
   while the rate of a steady text is known to 6 %. */
static const double evidence_kept = 1 - 1.0 / 80;
/* After a wait, all that was seen before counts as this many drafts: a probe has to be able to
   turn the choice. */
static const double evidence_after_wait = 8;
/* The first draft is believed to be right as often as GLM-5.2's (.84 on code, rounded down), as if
   1.5 had been seen: with 80 in memory, more would make drafts that are never right seem to pay. */
static const double first_acceptance = 0.8;
static const double first_drafts = 1.5;
/* A further one is believed to be right as often as the one before it, as if four had been seen:
   so depth grows into what was never tried. */
static const double further_drafts = 4;

/* A further row of an MTP pass is 1/10 of its first, each within a factor of 4.5. */
static const double log_mtp_row = -5.3;
static const double mtp_variance = 2.25;

/* Probes have a stock in tokens, as what is learnt first serves longest, and not too many at once.
 */
static const double credit_first = 6;
static const double credit_max = 20;
/* Less gain than this with every draft right is not worth a probe. */
static const double gain_least = 0.03;

/* A gain of more than 3 no such mistake explains: no step is spent on looking.  Below it one in 128
 * costs half a percent at most. */
static const double log_gain_unchecked = 1.1;
/* A check that took less than this share of what was believed is followed by another: one time
 * moves the belief only part of the way. */
static const double cheaper_share = 0.7;

static const double log_rows[N_VERIFY] = {
    0,
    0.69314718055994531,
    1.0986122886681098,
    1.3862943611198906,
    1.6094379124341003,
    1.791759469228055,
    1.9459101490553132,
    2.0794415416798357,
    2.1972245773362196,
};

static double prior_covariance(int i, int j)
{
    if (i < N_VERIFY && j < N_VERIFY) {
        return rows_covariance(log_rows[i], log_rows[j]);
    }
    if (i < N_VERIFY || j < N_VERIFY) {
        return scale_variance;
    }
    return scale_variance + mtp_variance * (i == MTP_ROW && j == MTP_ROW ? 2 : 1);
}

/* Keep a share of what is known of costs. */
static void fade_costs(qn_draft_depth *d, double kept)
{
    for (int i = 0; i < N_COSTS; i++) {
        for (int j = 0; j < N_COSTS; j++) {
            d->covariance[i][j] = kept * d->covariance[i][j] + (1 - kept) * prior_covariance(i, j);
        }
    }
}

void qn_draft_depth_init(qn_draft_depth *d, uint32_t depth_max)
{
    QN_ASSERT(depth_max <= QN_DRAFT_TOKENS_MAX);
    memset(d, 0, sizeof *d);
    d->depth_max = depth_max;
    d->is_given_up = depth_max == 0;
    d->n_idle_least = RETRY_IDLE_LEAST;
    d->n_check_wait = CHECK_WAIT_LEAST;
    d->credit = credit_first;
    for (int i = 0; i < N_VERIFY; i++) {
        d->log_s[i] = slope_mean * log_rows[i];
    }
    d->log_s[MTP_PASS] = log_mtp_pass;
    d->log_s[MTP_ROW] = log_mtp_row;
    fade_costs(d, 0);
}

void qn_draft_depth_begin(qn_draft_depth *d)
{
    d->n_waiting = 0;
    if (d->is_given_up && d->depth_max > 0 && d->n_idle >= d->n_idle_least) {
        d->is_given_up = false;
        d->n_missed = N_MISSED_MAX - 2; /* one probe at once and another after the longest wait */
        d->is_given_up = qn_draft_depth_choose(d, d->depth_max) == 0; /* no probe could pay */
        if (!d->is_given_up && d->n_idle_least < RETRY_IDLE_MOST) {
            d->n_idle_least *= 2;
        }
    }
}

static double draft_seconds(const qn_draft_depth *d, uint32_t depth, double n_extend_rows)
{
    if (depth == 0) {
        return 0;
    }
    return depth * exp(d->log_s[MTP_PASS]) + (n_extend_rows - 1) * exp(d->log_s[MTP_ROW]);
}

/* Logarithm of tokens per second of steps that emit n_tokens, which the next step's first MTP pass
   then has to take. */
static double log_rate(const qn_draft_depth *d, uint32_t depth, double n_tokens)
{
    return log(n_tokens) - log(exp(d->log_s[depth]) + draft_seconds(d, depth, n_tokens));
}

/* What may be gained by trying depth: log_rate is so unsure, given the cost known best. */
static double doubt(const qn_draft_depth *d, uint32_t depth)
{
    const uint32_t known = d->last_depth;
    const double variance =
        d->covariance[depth][depth] + d->covariance[known][known] - 2 * d->covariance[depth][known];
    return sqrt(variance > 0 ? variance : 0);
}

/* Depth of the highest rate, each taken for better by so many standard deviations.
   @param[out] gain  by which its rate is above that of depth 0, as a logarithm */
static uint32_t best_depth(const qn_draft_depth *d, uint32_t limit, double n_deviations,
                           double *gain)
{
    double acceptance = first_acceptance;
    double reach = 1;
    double n_tokens = 1;
    uint32_t best = 0;
    const double plain_rate = log_rate(d, 0, 1) + n_deviations * doubt(d, 0);
    double best_rate = plain_rate;
    for (uint32_t n = 1; n <= limit; n++) {
        const double prior = n == 1 ? first_drafts : further_drafts;
        acceptance = (d->n_accepted[n - 1] + prior * acceptance) / (d->n_reached[n - 1] + prior);
        reach *= acceptance;
        n_tokens += reach;
        const double rate = log_rate(d, n, n_tokens) + n_deviations * doubt(d, n);
        if (rate > best_rate) {
            best_rate = rate;
            best = n;
        }
    }
    *gain = best_rate - plain_rate;
    return best;
}

/* Tokens that a step loses against depth 0 when all its drafts are wrong. */
static double loss_tokens(const qn_draft_depth *d, uint32_t depth, uint32_t n_extend_rows)
{
    const double step_s = exp(d->log_s[depth]) + draft_seconds(d, depth, n_extend_rows);
    return step_s / exp(d->log_s[0]) - 1;
}

/* Where drafts do not pay: the depth of a probe that tells whether that has changed, or 0.  It is
   the least that might pay if all were right; after a success it goes on at once. */
static uint32_t probe_depth(const qn_draft_depth *d, uint32_t limit)
{
    const uint32_t wait = (uint32_t)PROBE_WAIT << d->n_missed;
    if (!d->was_accepted && d->n_idle < (wait < IDLE_MAX ? wait : IDLE_MAX)) {
        return 0;
    }
    for (uint32_t n = 1; n <= limit; n++) {
        const double rate = log_rate(d, n, n + 1) + optimism * doubt(d, n);
        if (rate > log_rate(d, 0, 1) + gain_least) {
            return loss_tokens(d, n, d->n_waiting + 1) <= d->credit ? n : 0;
        }
    }
    return 0;
}

uint32_t qn_draft_depth_choose(const qn_draft_depth *d, uint32_t depth_limit)
{
    const uint32_t limit = depth_limit < d->depth_max ? depth_limit : d->depth_max;
    if (d->is_given_up || limit == 0) {
        return 0;
    }
    if (d->n_steps < N_OPENING_STEPS) {
        const uint32_t depth = d->n_steps % 2 == 0 ? OPENING_DEPTH : 0;
        return depth < limit ? depth : limit;
    }
    double gain = 0;
    if (best_depth(d, limit, 0, &gain) == 0) {
        return probe_depth(d, limit);
    }
    /* Is it time to see whether depth 0 still costs what is believed? */
    if (d->n_drafting >= d->n_check_wait && gain < log_gain_unchecked) {
        return 0;
    }
    return best_depth(d, limit, optimism, &gain);
}

bool qn_draft_depth_is_given_up(const qn_draft_depth *d)
{
    return d->is_given_up;
}

/* gain = covariance * slope.  Returns the variance of a time whose logarithm has that slope. */
static double predict(const qn_draft_depth *d, const double slope[N_COSTS], double gain[N_COSTS])
{
    double variance = noise_variance;
    for (int i = 0; i < N_COSTS; i++) {
        gain[i] = 0;
        for (int j = 0; j < N_COSTS; j++) {
            gain[i] += d->covariance[i][j] * slope[j];
        }
        variance += gain[i] * slope[i];
    }
    return variance;
}

/* All that is known of costs is in doubt, their common scale most. */
static void doubt_all(qn_draft_depth *d)
{
    fade_costs(d, 0);
    for (int i = 0; i < N_COSTS; i++) {
        for (int j = 0; j < N_COSTS; j++) {
            d->covariance[i][j] += sudden_variance;
        }
    }
    d->n_slow = 0;
    d->n_check_wait = CHECK_WAIT_LEAST;
}

/* One step of a Kalman filter.  Slope: of the logarithm of the time expected, by log_s. */
static void learn_time(qn_draft_depth *d, const double slope[N_COSTS], double expected_s, double s)
{
    if (!(s >= step_s_min && s <= step_s_max)) {
        return;
    }
    double surprise = log(s) - log(expected_s);
    if (!d->has_scale) {
        for (int i = 0; i < N_COSTS; i++) {
            d->log_s[i] += surprise;
        }
        d->has_scale = true;
        surprise = 0;
    }
    double gain[N_COSTS];
    double variance = predict(d, slope, gain);
    d->n_slow = surprise > 2 * sqrt(variance) ? d->n_slow + 1 : 0;
    /* No disturbance makes a step faster, so those before were disturbed.  Nor do many follow. */
    if (surprise < -4 * sqrt(variance) || d->n_slow == N_SLOW_MAX) {
        doubt_all(d);
        variance = predict(d, slope, gain);
    }
    /* A time that is far too long was disturbed itself: it counts as little as makes it likely. */
    if (surprise > 2 * sqrt(variance)) {
        variance = surprise * surprise / 4;
    }
    for (int i = 0; i < N_COSTS; i++) {
        d->log_s[i] += gain[i] * surprise / variance;
        for (int j = 0; j < N_COSTS; j++) {
            d->covariance[i][j] -= gain[i] * gain[j] / variance;
        }
    }
}

static void learn_costs(qn_draft_depth *d, const qn_draft_outcome *outcome)
{
    fade_costs(d, costs_kept);
    double slope[N_COSTS] = {0};
    slope[outcome->depth] = 1;
    learn_time(d, slope, exp(d->log_s[outcome->depth]), outcome->verify_s);
    if (outcome->depth > 0 && d->has_scale) {
        const double expected_s = draft_seconds(d, outcome->depth, outcome->n_extend_rows);
        slope[outcome->depth] = 0;
        slope[MTP_PASS] = outcome->depth * exp(d->log_s[MTP_PASS]) / expected_s;
        slope[MTP_ROW] = 1 - slope[MTP_PASS];
        learn_time(d, slope, expected_s, outcome->draft_s);
    }
}

static void learn_acceptance(qn_draft_depth *d, const qn_draft_outcome *outcome)
{
    double kept = evidence_kept;
    if (d->n_idle >= PROBE_WAIT && d->n_reached[0] > evidence_after_wait) {
        kept = evidence_after_wait / d->n_reached[0];
    }
    for (uint32_t i = 0; i < QN_DRAFT_TOKENS_MAX; i++) {
        const uint32_t n_known = outcome->n_accepted + (outcome->is_cut ? 0 : 1);
        const bool is_reached = i < outcome->depth && i < n_known;
        d->n_reached[i] = kept * d->n_reached[i] + is_reached;
        d->n_accepted[i] = kept * d->n_accepted[i] + (i < outcome->n_accepted);
    }
}

static void settle_credit(qn_draft_depth *d, const qn_draft_outcome *outcome)
{
    double gain = 0;
    if (outcome->depth == 0) {
        d->credit += probe_share;
    } else if (best_depth(d, d->depth_max, 0, &gain) == 0) {
        d->credit -= loss_tokens(d, outcome->depth, outcome->n_extend_rows) - outcome->n_accepted;
    }
    d->credit = fmax(-credit_max, fmin(d->credit, credit_max));
}

/* The rows that may wait can be exceeded where limits forbade the draft that was due. */
static bool is_hopeless(const qn_draft_depth *d)
{
    return d->n_missed == N_MISSED_MAX || d->n_waiting >= QN_DRAFT_EXTEND_ROWS_MAX ||
           (d->n_idle >= IDLE_MAX && qn_draft_depth_choose(d, d->depth_max) == 0);
}

void qn_draft_depth_observe(qn_draft_depth *d, const qn_draft_outcome *outcome)
{
    QN_ASSERT(outcome->depth <= d->depth_max);
    QN_ASSERT(outcome->n_accepted <= outcome->depth);
    QN_ASSERT(outcome->depth == 0 || outcome->n_extend_rows > 0);
    const bool is_cheaper = outcome->verify_s < cheaper_share * exp(d->log_s[outcome->depth]);
    if (d->n_steps >= N_COLD_STEPS) {
        learn_costs(d, outcome);
    }
    d->last_depth = outcome->depth;
    d->n_steps += d->n_steps < N_OPENING_STEPS;
    if (outcome->depth > 0) {
        d->n_drafting += d->n_drafting < UINT32_MAX;
        learn_acceptance(d, outcome);
        d->was_accepted = outcome->n_accepted > 0;
        if (d->was_accepted) {
            d->n_missed = 0;
        } else if (!outcome->is_cut && d->n_idle >= PROBE_WAIT) {
            d->n_missed++;
        }
        d->n_waiting = outcome->n_accepted;
        d->n_idle = 0;
    } else {
        const bool was_check = d->n_drafting >= d->n_check_wait;
        if (!was_check || !is_cheaper) {
            d->n_drafting = 0;
        }
        if (was_check && !is_cheaper && d->n_check_wait < CHECK_WAIT_MOST) {
            d->n_check_wait *= 2;
        }
        d->was_accepted = false;
        d->n_waiting += d->n_waiting < UINT32_MAX;
        d->n_idle += d->n_idle < UINT32_MAX;
    }
    settle_credit(d, outcome);
    d->is_given_up = d->is_given_up || is_hopeless(d);
}
