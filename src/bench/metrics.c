/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include "put.h"

void metrics_init(metrics_run *run)
{
    *run = (metrics_run){.engine = BENCH_UNKNOWN};
}

void metrics_note(metrics_run *run, metrics_moment moment, double at_s, const bench_figures *page,
                  const char *why)
{
    if (page == NULL) {
        run->n_failed++;
        (void)snprintf(run->why, sizeof run->why, "%s", why);
        return;
    }
    const double *const of = page->of;
    run->has_fallen =
        run->has_fallen || (run->n_read > 0 && bench_figures_fell(&run->before, page));
    run->n_read++;
    run->before = *page;
    run->engine = page->engine;
    if (moment == METRICS_BEGIN) {
        run->first = *page;
        run->has_first = true;
    } else if (moment == METRICS_END) {
        run->last = *page;
        run->has_last = true;
    }
    series_add(&run->over_time, (double[SERIES_COLUMNS]){at_s, of[BENCH_RUNNING], of[BENCH_WAITING],
                                                         of[BENCH_PAGE_USE], of[BENCH_GENERATED]});
    if (moment != METRICS_BEGIN && isfinite(of[BENCH_HIT_RATE])) {
        run->hit_rates += of[BENCH_HIT_RATE];
        run->n_hit_rates++;
    }
    if (moment != METRICS_BEGIN && of[BENCH_ACCEPTANCE_LENGTH] > 0) { /* 0: no drafts yet */
        run->lengths += of[BENCH_ACCEPTANCE_LENGTH];
        run->n_lengths++;
    }
}

/* Growth of a counter over the run; NaN where it is not known.  A family that is left out until it
 * has something to count began at 0. */
static double grown(const metrics_run *run, bench_figure figure)
{
    if (!run->has_first || !run->has_last || run->has_fallen) {
        return (double)NAN;
    }
    const double first = run->first.of[figure];
    return run->last.of[figure] - (isnan(first) ? 0 : first);
}

static double over(double part, double whole)
{
    return whole > 0 ? part / whole : (double)NAN;
}

/* Shares of drafts whose first, second ... token was accepted, as many as drafts are deep. */
static json_t *positions_json(const metrics_run *run, double depth)
{
    bool failed = false;
    const double n_drafts = grown(run, BENCH_DRAFTS);
    json_t *const list = json_array();
    for (size_t i = 0; n_drafts > 0 && i < BENCH_POSITIONS_MAX; i++) {
        const double first = run->first.accepted_at[i];
        const double n = run->last.accepted_at[i] - (isnan(first) ? 0 : first);
        if (isnan(n) || (!(n > 0) && (double)i >= depth)) {
            break;
        }
        put_last(list, put_real(n / n_drafts), &failed);
    }
    if (json_array_size(list) == 0 && !failed) {
        json_decref(list);
        return json_null();
    }
    return put_whole(list, failed);
}

static json_t *series_json(const series *over_time)
{
    static const char *const names[] = {"t_s", "running", "waiting", "page_use"};
    enum { N_NAMES = sizeof names / sizeof names[0] };
    bool failed = false;
    json_t *const made = json_object();
    for (size_t k = 0; k < N_NAMES; k++) {
        json_t *const column = json_array();
        for (size_t i = 0; i < over_time->n; i++) {
            put_last(column, put_real(over_time->rows[i][k]), &failed);
        }
        put(made, names[k], column, &failed);
    }
    json_t *const rates = json_array();
    for (size_t i = 0; i < over_time->n; i++) {
        const double *const now = over_time->rows[i];
        const double *const before = over_time->rows[i > 0 ? i - 1 : 0];
        const double n = now[N_NAMES] - before[N_NAMES];
        put_last(rates, put_real(n >= 0 ? over(n, now[0] - before[0]) : (double)NAN), &failed);
    }
    put(made, "generated_per_s", rates, &failed);
    return put_whole(made, failed);
}

/* What is missing, and why. */
static const char *reason(const metrics_run *run, char out[METRICS_WHY_BYTES])
{
    if (run->n_read == 0) {
        return run->why;
    }
    if (run->has_fallen) {
        return "a counter fell during the run: the server was started again, so that what counters "
               "give is not known";
    }
    if (!run->has_first || !run->has_last) {
        (void)snprintf(out, METRICS_WHY_BYTES, "no page at the %s of the run: %.250s",
                       run->has_first ? "end" : "begin", run->why);
        return out;
    }
    if (run->n_failed > 0) {
        (void)snprintf(out, METRICS_WHY_BYTES, "%zu of %zu pages did not come: %.250s",
                       run->n_failed, run->n_failed + run->n_read, run->why);
        return out;
    }
    return NULL;
}

json_t *metrics_json(const metrics_run *run)
{
    char why[METRICS_WHY_BYTES];
    bool failed = false;
    const double n_drafts = grown(run, BENCH_DRAFTS);
    double hit_rate = over(grown(run, BENCH_HIT_TOKENS), grown(run, BENCH_QUERY_TOKENS));
    double length = 1 + over(grown(run, BENCH_ACCEPTED), n_drafts);
    double depth = over(grown(run, BENCH_DRAFTED), n_drafts);
    const char *hit_source = isfinite(hit_rate) ? "counters of tokens over the run" : NULL;
    const char *length_source = isfinite(length) ? "counters over the run" : NULL;
    if (!isfinite(hit_rate) && run->n_hit_rates > 0) {
        hit_rate = run->hit_rates / (double)run->n_hit_rates;
        hit_source = "mean of the server's gauge, which tells of its last steps";
    }
    if (!isfinite(length) && run->n_lengths > 0) {
        length = run->lengths / (double)run->n_lengths;
        length_source = "mean of the server's gauge";
    }
    if (!isfinite(depth)) {
        depth = run->before.of[BENCH_DRAFT_TOKENS];
    }
    json_t *const made = json_object();
    put(made, "engine",
        run->engine == BENCH_UNKNOWN ? json_null() : json_string(bench_engine_name(run->engine)),
        &failed);
    put(made, "hit_rate", put_real(hit_rate), &failed);
    put(made, "hit_rate_source", put_text(hit_source), &failed);
    put(made, "acceptance_length", put_real(length), &failed);
    put(made, "acceptance_length_source", put_text(length_source), &failed);
    put(made, "acceptance_per_position", positions_json(run, depth), &failed);
    put(made, "draft_tokens", put_real(run->n_read > 0 ? depth : (double)NAN), &failed);
    put(made, "preemptions", put_real(grown(run, BENCH_PREEMPTIONS)), &failed);
    put(made, "generated_tokens", put_real(grown(run, BENCH_GENERATED)), &failed);
    put(made, "series", series_json(&run->over_time), &failed);
    put(made, "pages", json_integer((json_int_t)run->n_read), &failed);
    put(made, "why", put_text(reason(run, why)), &failed);
    return put_whole(made, failed);
}
