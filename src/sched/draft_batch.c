/* SPDX-License-Identifier: Apache-2.0 */
/* The ideas in words, and what they achieve, are in docs/internals/sched.md. */
#include "sched/draft_batch.h"

#include "base/assert.h"
#include "sched/draft_cost.h"
#include "sched/step.h"

#include <math.h>
#include <string.h>

enum {
    N_KNOTS = QN_DRAFT_KNOTS,
    N_BINS = 64, /* of the chance that a draft is emitted */

    N_COLD_STEPS = 2,      /* a machine that warms up: its times teach nothing */
    CHECK_WAIT_LEAST = 4,  /* steps that draft before one without looks at the cost ... */
    CHECK_WAIT_MOST = 256, /* ... doubled by each */
    N_ODD_MAX = 4,         /* so many odd times in a row are no chance */
    IDLE_LEAST = 16,       /* steps after which evidence of drafts is old */
};

_Static_assert(1 << (QN_DRAFT_KNOTS - 1) == QN_STEP_ROWS_MAX, "the last knot is a step's most");

/* Acceptance: of a sequence, evidence fades by 1/80 a step; of all, by 1/400 a sequence. */
static const float record_kept = 1 - 1.0F / 80;
static const float all_kept = 1 - 1.0F / 400;
/* After a wait what was seen before counts as so many drafts: a probe can turn the choice. */
static const float evidence_after_wait = 4;
/* The first draft is believed to be right as often as GLM-5.2's on code (rounded down), a further
   one as often as the one before it, as if so many had been seen; a sequence is as all are. */
static const float first_acceptance = 0.8F;
static const float all_drafts = 2;
static const float record_drafts = 6;

/* Tokens that probes may lose at first, and most (draft_cost.h). */
static const double credit_first = 1;
static const double credit_max = 4;

/* ------------------------------------------------------------------------------------ costs -- */

static double prior_covariance(uint32_t i, uint32_t j)
{
    return rows_covariance(i * M_LN2, j * M_LN2);
}

/* Keep a share of what is known. */
static void fade(qn_draft_curve *curve, double kept, double further)
{
    for (uint32_t i = 0; i < N_KNOTS; i++) {
        for (uint32_t j = 0; j < N_KNOTS; j++) {
            curve->covariance[i][j] =
                kept * curve->covariance[i][j] + (1 - kept) * prior_covariance(i, j) + further;
        }
    }
}

static void init_curve(qn_draft_curve *curve, double log_scale)
{
    memset(curve, 0, sizeof *curve);
    for (uint32_t i = 0; i < N_KNOTS; i++) {
        curve->log_s[i] = log_scale + slope_mean * i * M_LN2;
    }
    fade(curve, 0, 0);
}

/* The knot at or below n_rows, and how far it is to the next. */
static uint32_t find_knot(uint32_t n_rows, double *share)
{
    QN_ASSERT(n_rows > 0);
    const uint32_t n = n_rows < QN_STEP_ROWS_MAX ? n_rows : QN_STEP_ROWS_MAX - 1;
    const uint32_t i = 31 - (uint32_t)__builtin_clz(n);
    *share = n / (double)(1U << i) - 1;
    return i;
}

/* Between knots a cost is a straight line. */
static double cost_at(const double s[N_KNOTS], uint32_t n_rows)
{
    double share = 0;
    const uint32_t i = find_knot(n_rows, &share);
    return s[i] + share * (s[i + 1] - s[i]);
}

static void shift(qn_draft_curve *curve, double by)
{
    for (uint32_t i = 0; i < N_KNOTS; i++) {
        curve->log_s[i] += by;
    }
}

/* One step of a Kalman filter: a pass over n_rows rows took s. */
static void learn_time(qn_draft_curve *curve, uint32_t n_rows, double s)
{
    double share = 0;
    const uint32_t i = find_knot(n_rows, &share);
    const double low = (1 - share) * exp(curve->log_s[i]);
    const double high = share * exp(curve->log_s[i + 1]);
    double surprise = log(s / (low + high));
    if (!curve->has_scale) {
        shift(curve, surprise);
        curve->has_scale = true;
        surprise = 0;
    }
    const double slope[2] = {low / (low + high), high / (low + high)};
    double gain[N_KNOTS];
    for (bool is_renewed = false;; is_renewed = true) { /* twice at most */
        for (uint32_t k = 0; k < N_KNOTS; k++) {
            gain[k] = slope[0] * curve->covariance[k][i] + slope[1] * curve->covariance[k][i + 1];
        }
        double variance = noise_variance + slope[0] * gain[i] + slope[1] * gain[i + 1];
        const double sigmas = surprise / sqrt(variance);
        curve->n_odd = sigmas > 2 ? curve->n_odd + 1 : 0;
        /* No disturbance makes a step faster, nor do many follow: then all that is known is old. */
        if (!is_renewed && (sigmas < -4 || curve->n_odd == N_ODD_MAX)) {
            fade(curve, 0, sudden_variance);
            curve->n_odd = 0;
            continue;
        }
        /* A time that is far too long was disturbed: it counts as little as makes it likely. */
        variance = sigmas > 2 ? surprise * surprise / 4 : variance;
        for (uint32_t k = 0; k < N_KNOTS; k++) {
            curve->log_s[k] += gain[k] * surprise / variance;
            for (uint32_t m = 0; m < N_KNOTS; m++) {
                curve->covariance[k][m] -= gain[k] * gain[m] / variance;
            }
        }
        return;
    }
}

/* Seconds at the knots; each taken for less than known by so many standard deviations of what it
   is beside the cost that is known best, and for no more than the next. */
static void tabulate(double s[N_KNOTS], const qn_draft_curve *curve, uint32_t n_known_rows,
                     double n_deviations)
{
    double share = 0;
    const uint32_t known = find_knot(n_known_rows, &share);
    for (uint32_t i = N_KNOTS; i > 0; i--) {
        const uint32_t k = i - 1;
        const double variance = curve->covariance[k][k] + curve->covariance[known][known] -
                                2 * curve->covariance[k][known];
        s[k] = exp(curve->log_s[k] - n_deviations * sqrt(variance > 0 ? variance : 0));
        if (i < N_KNOTS && s[k] > s[i]) {
            s[k] = s[i];
        }
    }
}

/* ----------------------------------------------------------------------------------- choice -- */

void qn_draft_batch_init(qn_draft_batch *d, uint32_t depth_max)
{
    QN_ASSERT(depth_max <= QN_DRAFT_TOKENS_MAX);
    memset(d, 0, sizeof *d);
    d->depth_max = depth_max;
    d->last_rows = 1;
    d->credit = credit_first;
    d->n_check_wait = CHECK_WAIT_LEAST;
    init_curve(&d->trunk, 0);
    init_curve(&d->mtp, log_mtp_pass);
}

void qn_draft_record_init(qn_draft_record *record)
{
    memset(record, 0, sizeof *record);
}

/* Drafts of a step by their number and the chance that they are emitted. */
typedef struct draft_counts {
    uint32_t n[QN_DRAFT_TOKENS_MAX][N_BINS];
    double n_tokens[N_BINS]; /* expected of them */
    uint8_t bins[QN_STEP_SEQS_MAX][QN_DRAFT_TOKENS_MAX];
} draft_counts;

static void count_drafts(draft_counts *counts, const qn_draft_batch *d, const qn_draft_seq *seqs,
                         uint32_t n_seqs)
{
    float of_all[QN_DRAFT_TOKENS_MAX];
    float acceptance = first_acceptance;
    for (uint32_t n = 0; n < QN_DRAFT_TOKENS_MAX; n++) {
        acceptance =
            (d->all.n_accepted[n] + all_drafts * acceptance) / (d->all.n_reached[n] + all_drafts);
        of_all[n] = acceptance;
    }
    memset(counts->n, 0, sizeof counts->n);
    memset(counts->n_tokens, 0, sizeof counts->n_tokens);
    for (uint32_t i = 0; i < n_seqs; i++) {
        const qn_draft_record *const record = seqs[i].record;
        float of_it[QN_DRAFT_TOKENS_MAX];
        for (uint32_t n = 0; n < QN_DRAFT_TOKENS_MAX; n++) {
            of_it[n] = (record->n_accepted[n] + record_drafts * of_all[n]) /
                       (record->n_reached[n] + record_drafts);
        }
        float reach = 1;
        for (uint32_t n = 0; n < seqs[i].limit && n < d->depth_max; n++) {
            reach *= of_it[n];
            const uint32_t bin = (uint32_t)(reach * (N_BINS - 0.01F));
            QN_DEBUG_ASSERT(bin < N_BINS);
            counts->bins[i][n] = (uint8_t)bin;
            counts->n[n][bin]++;
            counts->n_tokens[bin] += (double)reach;
        }
    }
}

/* Drafts to order: all above a bin, and so many of it. */
typedef struct draft_cut {
    uint32_t bin; /* N_BINS: none above */
    uint32_t n_of_it;
    double gain; /* tokens a second by those without drafts */
} draft_cut;

/* Rows that drafts may add: a step has at most twice the rows of any before it, so that what was
   never timed is tried in steps that cost at most twice as much. */
static uint32_t count_rows_left(const qn_draft_batch *d, uint32_t n_rows, uint32_t n_rows_max)
{
    const uint32_t n_known = 2 * d->n_rows_seen > n_rows ? 2 * d->n_rows_seen - n_rows : 0;
    return n_known < n_rows_max ? n_known : n_rows_max;
}

/* Where costs bend next: the rows of the next knot. */
static uint32_t next_knot(uint32_t n_rows)
{
    double share = 0;
    return 2U << find_knot(n_rows, &share);
}

/* Go from the likeliest draft to the least likely; the best place to stop.  Between the ends of
   bins and the bends of the cost the rate only rises or only falls. */
static draft_cut find_cut(const qn_draft_batch *d, const draft_counts *counts, uint32_t n_seqs,
                          const qn_draft_room *room, double n_deviations)
{
    double trunk_s[N_KNOTS];
    double mtp_s[N_KNOTS];
    tabulate(trunk_s, &d->trunk, d->last_rows, n_deviations);
    tabulate(mtp_s, &d->mtp, 1, 0);
    uint32_t n_rows = n_seqs + room->n_other_rows;
    uint32_t n_left = count_rows_left(d, n_rows, room->n_rows_max);
    double n_tokens = n_seqs + room->n_other_tokens;
    const double plain = n_tokens / cost_at(trunk_s, n_rows);
    uint32_t n_at[QN_DRAFT_TOKENS_MAX] = {0};
    draft_cut best = {N_BINS, 0, 1};
    for (uint32_t bin = N_BINS - 1; bin > 0 && n_left > 0; bin--) {
        uint32_t n_of_it = 0;
        double draft_s = 0;
        for (uint32_t n = 0; n < QN_DRAFT_TOKENS_MAX; n++) {
            n_of_it += counts->n[n][bin];
            n_at[n] += counts->n[n][bin];
            draft_s += n_at[n] > 0 ? cost_at(mtp_s, n_at[n]) : 0;
        }
        const uint32_t n_ordered = n_of_it < n_left ? n_of_it : n_left;
        uint32_t n = 0;
        while (n < n_ordered) {
            const uint32_t n_to_knot = next_knot(n_rows) - n_rows;
            const uint32_t n_more = n_to_knot < n_ordered - n ? n_to_knot : n_ordered - n;
            n += n_more;
            n_rows += n_more;
            n_tokens += counts->n_tokens[bin] * n_more / n_of_it;
            const double rate = n_tokens / (cost_at(trunk_s, n_rows) + draft_s);
            if (rate > best.gain * plain) {
                best = (draft_cut){bin, n, rate / plain};
            }
        }
        n_left -= n_ordered;
    }
    return best;
}

/* All above the cut's bin; of the bin first drafts first, which costs the fewest passes. */
static void apply_cut(qn_draft_seq *seqs, uint32_t n_seqs, const qn_draft_batch *d,
                      const draft_counts *counts, draft_cut cut)
{
    for (uint32_t i = 0; i < n_seqs; i++) {
        seqs[i].depth = 0;
    }
    for (uint32_t n = 0; n < d->depth_max; n++) {
        for (uint32_t i = 0; i < n_seqs; i++) {
            if (seqs[i].depth < n || n >= seqs[i].limit || counts->bins[i][n] < cut.bin) {
                continue;
            }
            if (counts->bins[i][n] > cut.bin) {
                seqs[i].depth++;
            } else if (cut.n_of_it > 0) {
                cut.n_of_it--;
                seqs[i].depth++;
            }
        }
    }
}

/* One draft of each, as far as rows reach. */
static void draft_one(qn_draft_seq *seqs, uint32_t n_seqs, const qn_draft_batch *d,
                      const qn_draft_room *room)
{
    uint32_t n_rows_max = count_rows_left(d, n_seqs + room->n_other_rows, room->n_rows_max);
    for (uint32_t i = 0; i < n_seqs; i++) {
        seqs[i].depth = seqs[i].limit > 0 && d->depth_max > 0 && n_rows_max > 0;
        n_rows_max -= seqs[i].depth;
    }
}

void qn_draft_batch_choose(qn_draft_batch *d, qn_draft_seq *seqs, uint32_t n_seqs,
                           const qn_draft_room *room)
{
    QN_ASSERT(n_seqs > 0 && n_seqs <= QN_STEP_SEQS_MAX);
    /* Beyond the last knot find_cut() would not end. */
    QN_ASSERT(n_seqs + room->n_other_rows + room->n_rows_max <= QN_STEP_ROWS_MAX);
    draft_counts counts;
    count_drafts(&counts, d, seqs, n_seqs);
    d->is_probe = false;
    draft_cut cut = find_cut(d, &counts, n_seqs, room, 0);
    if (cut.bin == N_BINS) {
        cut = find_cut(d, &counts, n_seqs, room, optimism);
        const bool went_well = d->n_probed > 0 && 2 * d->n_right > d->n_probed;
        d->is_probe = d->credit > 0 || (went_well && d->credit > -credit_max);
        d->n_probed = 0;
        d->n_right = 0;
        if (!d->is_probe) {
            cut = (draft_cut){N_BINS, 0, 1};
        } else if (cut.bin == N_BINS) {
            draft_one(seqs, n_seqs, d, room);
            return;
        }
    } else if (d->n_drafting >= d->n_check_wait) {
        cut = (draft_cut){N_BINS, 0, 1};
    } else {
        cut = find_cut(d, &counts, n_seqs, room, optimism);
    }
    apply_cut(seqs, n_seqs, d, &counts, cut);
}

/* --------------------------------------------------------------------------------- learning -- */

static void learn_acceptance(qn_draft_record *record, float kept, uint64_t step, uint32_t depth,
                             uint32_t n_accepted)
{
    if (step - record->last_step >= IDLE_LEAST && record->n_reached[0] > evidence_after_wait) {
        kept = evidence_after_wait / record->n_reached[0];
    }
    for (uint32_t n = 0; n < QN_DRAFT_TOKENS_MAX; n++) {
        record->n_reached[n] =
            kept * record->n_reached[n] + (n < depth && n <= n_accepted ? 1.0F : 0.0F);
        record->n_accepted[n] = kept * record->n_accepted[n] + (n < n_accepted ? 1.0F : 0.0F);
    }
    record->last_step = step;
}

void qn_draft_batch_accept(qn_draft_batch *d, qn_draft_record *record, uint32_t depth,
                           uint32_t n_accepted)
{
    QN_ASSERT(depth <= QN_DRAFT_TOKENS_MAX);
    QN_ASSERT(n_accepted <= depth);
    if (depth == 0) {
        return;
    }
    learn_acceptance(record, record_kept, d->n_steps, depth, n_accepted);
    learn_acceptance(&d->all, all_kept, d->n_steps, depth, n_accepted);
    if (d->is_probe) {
        d->n_probed++;
        d->n_right += n_accepted > 0;
    }
}

static bool is_time(double s)
{
    return s >= step_s_min && s <= step_s_max;
}

/* What a probe lost, in steps without drafts.  A time that is far longer than was to be expected is
   that of a machine that slept: it counts as twice that. */
static double lost_steps(const qn_draft_batch *d, const qn_draft_cost *cost)
{
    double trunk_s[N_KNOTS];
    double mtp_s[N_KNOTS];
    tabulate(trunk_s, &d->trunk, d->last_rows, 0);
    tabulate(mtp_s, &d->mtp, 1, 0);
    const double plain_s = cost_at(trunk_s, cost->n_rows - cost->n_drafts);
    const double expected_s =
        cost_at(trunk_s, cost->n_rows) + cost->n_passes * cost_at(mtp_s, cost->n_seqs);
    return fmin(cost->verify_s + cost->draft_s, 2 * expected_s) / plain_s - 1 -
           (double)d->n_right / cost->n_seqs;
}

void qn_draft_batch_observe(qn_draft_batch *d, const qn_draft_cost *cost)
{
    QN_ASSERT(cost->n_rows > 0);
    d->n_steps++;
    d->n_rows_seen = cost->n_rows > d->n_rows_seen ? cost->n_rows : d->n_rows_seen;
    if (cost->n_passes > 0) {
        d->n_drafting++;
    } else {
        if (d->n_drafting >= d->n_check_wait && d->n_check_wait < CHECK_WAIT_MOST) {
            d->n_check_wait *= 2;
        }
        d->n_drafting = 0;
    }
    if (!is_time(cost->verify_s) || d->n_steps <= N_COLD_STEPS) {
        return;
    }
    const bool was_known = d->trunk.has_scale;
    fade(&d->trunk, costs_kept, 0);
    learn_time(&d->trunk, cost->n_rows, cost->verify_s);
    d->last_rows = cost->n_rows;
    if (!was_known && !d->mtp.has_scale) {
        shift(&d->mtp, d->trunk.log_s[0]);
    }
    if (cost->n_passes > 0 && is_time(cost->draft_s)) {
        fade(&d->mtp, costs_kept, 0);
        learn_time(&d->mtp, cost->n_seqs, cost->draft_s / cost->n_passes);
    }
    const bool was_probe = cost->n_passes > 0 && d->is_probe;
    d->credit += was_probe ? -lost_steps(d, cost) : probe_share;
    d->credit = fmax(-credit_max, fmin(d->credit, credit_max));
}
