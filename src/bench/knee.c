/* SPDX-License-Identifier: Apache-2.0 */
#include "knee.h"

#include <math.h>
#include <stdio.h>

/* Beyond these a server is not one that has a knee. */
#define RATE_MIN 1e-4
#define RATE_MAX 1e6

/* Requests under way below which they hardly meet; and of the first guess, where it is not known
 * how long one takes. */
#define MEET_MIN        0.02
#define FIRST_SHARE_MIN 1e-4

#define LENGTH 1.6  /* of a trial: see bench_knee_next() */
#define COARSE 1.05 /* bracket of short trials: narrower ones would take as long as full ones */

static const double step = 1.0 + BENCH_KNEE_PRECISION;

void bench_knee_begin(bench_knee *knee, const bench_knee_options *options)
{
    *knee = (bench_knee){.options = *options,
                         .high = (double)INFINITY,
                         .failed = (double)INFINITY,
                         .stride = BENCH_KNEE_PRECISION,
                         .rate = options->first_rate};
}

static bool give_up(bench_knee *k, const char *why)
{
    (void)snprintf(k->why, sizeof k->why, "%s", why);
    return false;
}

bool bench_knee_next(bench_knee *knee, double *rate, double *seconds, bool *is_confirmation)
{
    bench_knee *const k = knee;
    const bench_knee_options *const o = &k->options;
    if (k->is_found) {
        return false;
    }
    /* Where requests hardly meet a lower rate changes nothing. */
    const bool has_held = k->low > 0.0 || k->confirmed > 0.0 || k->n_trials == 0;
    const bool meet = k->rate > o->first_rate * FIRST_SHARE_MIN &&
                      (o->alone_s <= 0.0 || k->rate * o->alone_s > MEET_MIN);
    if (k->rate < RATE_MIN || (!has_held && !meet)) {
        return give_up(k, "the limit did not hold at any rate, nor where requests hardly meet");
    }
    if (k->rate > RATE_MAX) {
        return give_up(k, "the limit held at every rate");
    }
    if (k->n_trials == BENCH_KNEE_TRIALS_MAX) {
        return give_up(k, "too many trials contradict each other");
    }
    /* How far above what is known to hold this is. */
    const double above = k->low > 0.0 ? k->rate / k->low - 1.0 : 1.0;
    const double told_apart =
        k->is_full ? BENCH_KNEE_PRECISION : fmax(BENCH_KNEE_PRECISION, fmin(1.0, above));
    double needed_s = fmax(LENGTH * o->limit_s / told_apart, 2.0 * o->alone_s);
    if (k->is_full) {
        const double crowd_s = fmin(BENCH_KNEE_REQUESTS_FULL / k->rate, BENCH_KNEE_FULL_S);
        needed_s = fmax(needed_s, fmax(o->full_s, o->n_min > 0 ? 0.0 : crowd_s));
    }
    *seconds = fmax(needed_s, (double)(o->n_min > 0 ? o->n_min : BENCH_KNEE_REQUESTS) / k->rate);
    *rate = k->rate;
    *is_confirmation = k->is_full;
    k->n_trials++;
    return true;
}

/* Brackets the knee: doubles or halves until one rate held and one did not, then bisects. */
static void tell_short(bench_knee *k, bool holds)
{
    *(holds ? &k->low : &k->high) = k->rate;
    if (isinf(k->high)) {
        k->rate = k->low * 2.0;
    } else if (k->low <= 0.0) {
        k->rate = k->high / 2.0;
    } else if (k->high <= k->low * COARSE) {
        k->is_full = true;
        k->rate = k->low;
    } else {
        k->rate = sqrt(k->low * k->high);
    }
}

/* Of the trials at this rate, which may be an end of the bracket. */
static bench_knee_votes votes_of(const bench_knee *k)
{
    return k->rate == k->confirmed ? k->low_votes
           : k->rate == k->failed  ? k->high_votes
                                   : (bench_knee_votes){0, 0};
}

uint32_t bench_knee_n_seen(const bench_knee *knee)
{
    const bench_knee_votes votes = votes_of(knee);
    return (uint32_t)(votes.n_held + votes.n_not);
}

/* Count a vote at its rate.  False: as many say yes as no, another is to decide.  An end that is
 * voted over to the other side takes that side's place, and leaves its own. */
static bool vote(bench_knee *k, bool holds)
{
    const bool was_low = k->rate == k->confirmed;
    const bool was_high = k->rate == k->failed;
    bench_knee_votes votes = votes_of(k);
    *(holds ? &votes.n_held : &votes.n_not) += 1;
    if (votes.n_held == votes.n_not) {
        *(was_low ? &k->low_votes : &k->high_votes) = votes;
        return false;
    }
    if (votes.n_held > votes.n_not) {
        k->confirmed = k->rate;
        k->low_votes = votes;
        k->failed = was_high ? (double)INFINITY : k->failed;
    } else {
        k->failed = k->rate;
        k->high_votes = votes;
        k->confirmed = was_low ? 0.0 : k->confirmed;
    }
    k->stride = was_low || was_high ? BENCH_KNEE_PRECISION : k->stride;
    return true;
}

static bool is_sure(const bench_knee_votes *votes)
{
    return votes->n_held + votes->n_not >= BENCH_KNEE_CONFIRMATIONS;
}

/* The same in full trials, since short ones can have been wrong, and beginning with small steps,
 * since they seldom are by much.  What is found has to be seen more than once at both ends: a rate
 * that fails by chance would make the answer too low, one that holds by chance too high. */
static void tell_full(bench_knee *k, bool holds)
{
    if (!vote(k, holds)) {
        return;
    }
    if (k->confirmed <= 0.0) {
        k->rate = k->failed / (1.0 + k->stride);
        k->stride *= 2.0;
    } else if (isinf(k->failed)) {
        k->rate = k->confirmed * (1.0 + k->stride);
        k->stride *= 2.0;
    } else if (k->failed > k->confirmed * step * 1.0001) { /* by no rounding */
        k->rate = sqrt(k->confirmed * k->failed);
    } else {
        k->is_found = is_sure(&k->low_votes) && is_sure(&k->high_votes);
        k->rate = is_sure(&k->low_votes) && !k->is_found ? k->failed : k->confirmed;
    }
}

double bench_knee_error(uint64_t n_requests)
{
    return 2.2 / sqrt((double)n_requests);
}

void bench_knee_tell(bench_knee *knee, bool holds)
{
    knee->is_full ? tell_full(knee, holds) : tell_short(knee, holds);
}
