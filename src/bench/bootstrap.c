/* SPDX-License-Identifier: Apache-2.0 */
#include "bootstrap.h"

#include "base/assert.h"
#include "base/rng.h"
#include "stats.h"

#include <math.h>
#include <stdlib.h>

/* What is needed while values are drawn. */
typedef struct drawing {
    const bootstrap_sample *sample;
    double *sorted;          /* [n_values] */
    uint32_t *ranks;         /* [n_values] place of each value among the sorted ones */
    uint32_t *counts;        /* [n_values] how often the value of that rank was drawn */
    double *medians, *means; /* [n_resamples] */
} drawing;

/* A value with where it stood. */
typedef struct place {
    double value;
    size_t i;
} place;

static int compare_places(const void *x, const void *y)
{
    const place *const a = x;
    const place *const b = y;
    return (a->value > b->value) - (a->value < b->value);
}

static bool rank(drawing *d, size_t n)
{
    place *const places = malloc(n * sizeof *places);
    if (places == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        places[i] = (place){d->sample->values[i], i};
    }
    qsort(places, n, sizeof *places, compare_places);
    for (size_t r = 0; r < n; r++) {
        d->sorted[r] = places[r].value;
        d->ranks[places[r].i] = (uint32_t)r;
    }
    free(places);
    return true;
}

/* The median of what was drawn: counting up the ranks costs less than sorting the draws. */
static double median_of(const drawing *d, size_t n_drawn)
{
    const size_t lower = (n_drawn - 1) / 2;
    const size_t upper = n_drawn / 2;
    size_t seen = 0;
    size_t r = 0;
    while ((seen += d->counts[r]) <= lower) {
        r++;
    }
    const double low = d->sorted[r];
    while (seen <= upper) {
        seen += d->counts[++r];
    }
    return (low + d->sorted[r]) / 2;
}

/* Once: which groups, and which values of them. */
static void draw(drawing *d, size_t i_resample, size_t n, uint64_t seed)
{
    const bootstrap_sample *const s = d->sample;
    uint64_t counter = 0;
    size_t n_drawn = 0;
    double sum = 0;
    memset(d->counts, 0, n * sizeof *d->counts);
    for (size_t i = 0; i < s->n_groups; i++) {
        const size_t group =
            s->n_groups == 1
                ? 0
                : (size_t)(qn_rng_unit(seed, i_resample, counter++) * (double)s->n_groups);
        const size_t begin = s->begins[group];
        const size_t len = s->begins[group + 1] - begin;
        for (size_t k = 0; k < len; k++) {
            const size_t at =
                begin + (size_t)(qn_rng_unit(seed, i_resample, counter++) * (double)len);
            d->counts[d->ranks[at]]++;
            sum += s->values[at];
        }
        n_drawn += len;
    }
    d->medians[i_resample] = median_of(d, n_drawn);
    d->means[i_resample] = sum / (double)n_drawn;
}

static bootstrap_interval interval(double value, double *drawn, const bootstrap_options *o)
{
    const double tail = 50 * (1 - o->confidence);
    bench_sort(drawn, o->n_resamples);
    return (bootstrap_interval){value, bench_percentile(drawn, o->n_resamples, tail),
                                bench_percentile(drawn, o->n_resamples, 100 - tail)};
}

qn_status bootstrap(bootstrap_interval *median, bootstrap_interval *mean,
                    const bootstrap_sample *sample, const bootstrap_options *options, qn_error *err)
{
    const size_t n = sample->begins[sample->n_groups];
    QN_ASSERT(n > 0 && n < UINT32_MAX && options->n_resamples >= 40);
    drawing d = {
        .sample = sample,
        .sorted = malloc(n * sizeof *d.sorted),
        .ranks = malloc(n * sizeof *d.ranks),
        .counts = malloc(n * sizeof *d.counts),
        .medians = malloc(options->n_resamples * sizeof *d.medians),
        .means = malloc(options->n_resamples * sizeof *d.means),
    };
    qn_status status = QN_OK;
    if (d.sorted == NULL || d.ranks == NULL || d.counts == NULL || d.medians == NULL ||
        d.means == NULL || !rank(&d, n)) {
        status = qn_fail(err, QN_E_NOMEM, 0, __func__, "bootstrap of %zu values: no memory", n);
    } else {
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += sample->values[i];
        }
        *median = (bootstrap_interval){bench_percentile(d.sorted, n, 50), (double)NAN, (double)NAN};
        *mean = (bootstrap_interval){sum / (double)n, (double)NAN, (double)NAN};
        for (size_t i = 0; i < options->n_resamples && n > 1; i++) {
            draw(&d, i, n, options->seed);
        }
        if (n > 1) {
            *median = interval(median->value, d.medians, options);
            *mean = interval(mean->value, d.means, options);
        }
    }
    free(d.sorted);
    free(d.ranks);
    free(d.counts);
    free(d.medians);
    free(d.means);
    return status;
}
