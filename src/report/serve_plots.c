/* SPDX-License-Identifier: Apache-2.0 */
#include "report/serve.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_REFERENCES_MAX = 5 };

static const plot_color reference_colors[N_REFERENCES_MAX] = {PLOT_BROWN, PLOT_PURPLE, PLOT_GREY,
                                                              PLOT_RED, PLOT_GREEN};

static const char per_user[] = "per_user_tokens_per_s";

/* What a run is drawn at: the rate asked for, where there was none the rate that came. */
static double rate_of(const json_t *run)
{
    const double rate = field_number(run, "request_rate");
    return isfinite(rate) ? rate : field_number(run, "request_throughput");
}

typedef struct rated {
    double rate;
    const json_t *run;
} rated;

static int compare(const void *a, const void *b)
{
    const rated *const x = a;
    const rated *const y = b;
    return (x->rate > y->rate) - (x->rate < y->rate);
}

/* A line of all runs that are valid, or of those that are not, in order of their rates. */
static void add_line(sheet *s, plot *p, const json_t *runs, bool is_valid, const char *x,
                     const char *y)
{
    const size_t n_runs = json_array_size(runs);
    rated *const sorted = calloc(n_runs + 1, sizeof *sorted);
    size_t n = 0;
    if (sorted == NULL) {
        sheet_try(s, qn_fail(s->err, QN_E_NOMEM, 0, __func__, "report: no memory"));
        return;
    }
    for (size_t i = 0; i < n_runs; i++) {
        const json_t *const run = json_array_get(runs, i);
        if (json_is_false(field_at(run, "is_valid")) != is_valid && !serve_was_cut(run) &&
            isfinite(rate_of(run))) {
            sorted[n++] = (rated){rate_of(run), run};
        }
    }
    qsort(sorted, n, sizeof *sorted, compare);
    for (size_t i = 0; i < n; i++) {
        const json_t *const run = sorted[i].run;
        const double at = x != NULL ? field_number(run, x) : sorted[i].rate;
        sheet_try(s, plot_add(p, at, field_number(run, y), s->err));
    }
    free(sorted);
}

static void add_runs(sheet *s, plot *p, const json_t *runs, const char *name, plot_color color,
                     const char *x, const char *y)
{
    char struck[PLOT_LABEL_BYTES];
    (void)snprintf(struck, sizeof struck, "%.60s, NOT VALID", name);
    plot_begin(p, name, PLOT_LINE_POINTS, color);
    add_line(s, p, runs, true, x, y);
    plot_begin(p, struck, PLOT_STRUCK, color);
    add_line(s, p, runs, false, x, y);
}

/* A figure of a published row; the speed of a user also where only its TPOT was published. */
static double figure_of_row(const json_t *row, const char *path)
{
    const double value = field_number(row, path);
    if (isfinite(value) || strcmp(path, per_user) != 0) {
        return value;
    }
    const double tpot_ms = field_number(row, "tpot_p50_ms");
    return 1000.0 / (isfinite(tpot_ms) ? tpot_ms : field_number(row, "tpot_ms"));
}

/* Does any row have both? */
static bool has_rows(const json_t *reference, const char *x, const char *y)
{
    const json_t *const rows = field_at(reference, "rows");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *const row = json_array_get(rows, i);
        if (isfinite(figure_of_row(row, x)) && isfinite(figure_of_row(row, y))) {
            return true;
        }
    }
    return false;
}

/* Lines of others that are there. */
static size_t n_dashed(const plot *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_series && i < PLOT_SERIES_MAX; i++) {
        n += p->series[i].style == PLOT_DASHED ? 1 : 0;
    }
    return n;
}

/* A dashed line of each published result that has such rows, on the same workload or not. */
static void add_lines_of(sheet *s, plot *p, const json_t *result, bool is_alike, const char *what,
                         const char *x, const char *y)
{
    const json_t *const references = field_at(result, "references");
    for (size_t i = 0; i < json_array_size(references) && n_dashed(p) < N_REFERENCES_MAX; i++) {
        const json_t *const reference = json_array_get(references, i);
        const json_t *const rows = field_at(reference, "rows");
        const char *const workload = field_text_or(reference, "workload", "workload not told");
        char name[PLOT_LABEL_BYTES];
        if (!has_rows(reference, x, y) || serve_is_alike(result, workload) != is_alike) {
            continue;
        }
        (void)snprintf(name, sizeof name, "%.30s%s, published: %.32s",
                       field_text_or(reference, "name", "reference"), what, workload);
        plot_begin(p, name, PLOT_DASHED, reference_colors[n_dashed(p)]);
        for (size_t i_row = 0; i_row < json_array_size(rows); i_row++) {
            const json_t *const row = json_array_get(rows, i_row);
            sheet_try(s, plot_add(p, figure_of_row(row, x), figure_of_row(row, y), s->err));
        }
    }
}

/* Those of the same workload first; none where lengths are scaled. */
static void add_references(sheet *s, plot *p, const json_t *result, const char *what, const char *x,
                           const char *y)
{
    for (int i = 0; i < 2 && !serve_is_scaled(result); i++) {
        add_lines_of(s, p, result, i == 0, what, x, y);
    }
}

/* One point is no curve. */
static void draw(sheet *s, plot *p)
{
    if (plot_n_points(p) > 1) {
        sheet_plot(s, p);
    }
    plot_deinit(p);
}

static void draw_by_rate(sheet *s, const json_t *result)
{
    const json_t *const runs = field_at(result, "runs");
    plot throughput = {.title = "Output by rate",
                       .x_label = "requests a second",
                       .y_label = "output tokens a second"};
    plot ttft = {
        .title = "Time to first token by rate", .x_label = "requests a second", .y_label = "ms"};
    const char *const metric = field_text_or(result, "knee.metric", "");
    plot_init(&throughput);
    add_runs(s, &throughput, runs, "measured here", PLOT_BLUE, NULL, "output_throughput");
    add_references(s, &throughput, result, "", "request_rate", "output_throughput");
    draw(s, &throughput);
    plot_init(&ttft);
    add_runs(s, &ttft, runs, "p50 measured here", PLOT_BLUE, NULL, "p50_ttft_ms");
    add_runs(s, &ttft, runs, "p95 measured here", PLOT_ORANGE, NULL, "p95_ttft_ms");
    add_references(s, &ttft, result, " p95", "request_rate", "ttft_p95_ms");
    plot_choose_log_y(&ttft);
    if (strstr(metric, "ttft") != NULL) {
        ttft.mark_y = field_number(result, "knee.limit_ms");
        ttft.mark_name = "limit of the knee, for p95";
    }
    draw(s, &ttft);
}

/* @p theirs is what published rows call the figure. */
static void draw_per_user(sheet *s, const json_t *result, const char *title, const char *label,
                          const char *ours, const char *theirs)
{
    plot p = {
        .title = title, .x_label = "tokens a second for each user (1 / TPOT)", .y_label = label};
    plot_init(&p);
    add_runs(s, &p, field_at(result, "runs"), "measured here", PLOT_BLUE, per_user, ours);
    add_references(s, &p, result, "", per_user, theirs);
    draw(s, &p);
}

/* ----------------------------------------------------------------------------------------- CDFs */

static void add_cdf(sheet *s, plot *p, const json_t *run, const char *path, plot_color color)
{
    const json_t *const values = field_at(run, path);
    const size_t n = json_array_size(values);
    plot_begin(p, serve_label(run), PLOT_LINE, color);
    for (size_t i = 0; i < n && n > 1; i++) {
        sheet_try(s, plot_add(p, field_number_of(values, i), 100.0 * (double)i / (double)(n - 1),
                              s->err));
    }
}

/* The run of the lowest or highest rate. */
static const json_t *outermost(const json_t *runs, double sign)
{
    const json_t *best = NULL;
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *const run = json_array_get(runs, i);
        if (isfinite(rate_of(run)) &&
            (best == NULL || sign * rate_of(run) > sign * rate_of(best))) {
            best = run;
        }
    }
    return best;
}

/* Of the headline's run and those of the lowest and highest rate. */
static void draw_cdfs(sheet *s, const json_t *result)
{
    static const struct {
        const char *title, *path;
    } cdfs[] = {{"Time to first token: share of requests", "cdf.ttft_ms"},
                {"Time per output token: share of requests", "cdf.tpot_ms"},
                {"Whole answer: share of requests", "cdf.e2el_ms"}};
    const json_t *const runs = field_at(result, "runs");
    const json_t *const headline = serve_headline(result);
    const json_t *const low = outermost(runs, -1.0);
    const json_t *const high = outermost(runs, 1.0);
    for (size_t i = 0; i < sizeof cdfs / sizeof *cdfs; i++) {
        plot p = {.title = cdfs[i].title,
                  .x_label = "at most ... ms",
                  .y_label = "% of requests",
                  .y_max = 100.0};
        plot_init(&p);
        add_cdf(s, &p, headline, cdfs[i].path, PLOT_BLUE);
        if (low != NULL && low != headline) {
            add_cdf(s, &p, low, cdfs[i].path, PLOT_GREEN);
        }
        if (high != NULL && high != headline && high != low) {
            add_cdf(s, &p, high, cdfs[i].path, PLOT_ORANGE);
        }
        plot_choose_log_x(&p);
        draw(s, &p);
    }
}

/* ------------------------------------------------------------------------------------- timeline */

/* Values at every_s, or at the moments of @p times; a factor makes them the plot's. */
static void add_times(sheet *s, plot *p, const char *name, plot_color color, const json_t *times,
                      double every_s, const json_t *values, double factor)
{
    plot_begin(p, name, PLOT_LINE, color);
    for (size_t i = 0; i < json_array_size(values); i++) {
        const double at = times != NULL ? field_number_of(times, i) : (double)i * every_s;
        sheet_try(s, plot_add(p, at, factor * field_number_of(values, i), s->err));
    }
}

static void draw_timeline(sheet *s, const json_t *run)
{
    const double every_s = field_number(run, "timeline.every_s");
    const json_t *const t_s = field_at(run, "metrics.series.t_s");
    plot tokens = {.title = "Output over time", .x_label = "s", .y_label = "tokens a second"};
    plot requests = {.title = "Requests over time", .x_label = "s", .y_label = "requests"};
    plot pages = {.title = "Cache pages in use", .x_label = "s", .y_label = "%", .y_max = 100.0};
    plot watts = {.title = "Power over time", .x_label = "s", .y_label = "W"};
    plot_init(&tokens);
    add_times(s, &tokens, "output tokens a second, as they came", PLOT_BLUE, NULL, every_s,
              field_at(run, "timeline.output_tokens_per_s"), 1.0);
    draw(s, &tokens);
    plot_init(&requests);
    add_times(s, &requests, "in flight", PLOT_BLUE, NULL, every_s,
              field_at(run, "timeline.in_flight"), 1.0);
    if (t_s != NULL) {
        add_times(s, &requests, "running, says the server", PLOT_GREEN, t_s, 0.0,
                  field_at(run, "metrics.series.running"), 1.0);
        add_times(s, &requests, "waiting, says the server", PLOT_ORANGE, t_s, 0.0,
                  field_at(run, "metrics.series.waiting"), 1.0);
    }
    draw(s, &requests);
    plot_init(&pages);
    if (t_s != NULL) {
        add_times(s, &pages, "pages in use", PLOT_PURPLE, t_s, 0.0,
                  field_at(run, "metrics.series.page_use"), 100.0);
    }
    draw(s, &pages);
    plot_init(&watts);
    if (field_at(run, "energy.series.t_s") != NULL) {
        add_times(s, &watts, field_text_or(run, "energy.source", "power"), PLOT_RED,
                  field_at(run, "energy.series.t_s"), 0.0, field_at(run, "energy.series.w"), 1.0);
    }
    draw(s, &watts);
}

void serve_plots(sheet *s, const json_t *result)
{
    const json_t *const headline = serve_headline(result);
    if (!s->is_html) {
        return;
    }
    if (strcmp(field_text_or(result, "load.kind", ""), "sensitivity") != 0) { /* one rate */
        sheet_section(s, "Throughput and latency");
        sheet_plots(s);
        draw_by_rate(s, result);
        draw_per_user(s, result, "Speed of each user against all output", "output tokens a second",
                      "output_throughput", "output_throughput");
        draw_per_user(s, result, "Speed of each user against all tokens",
                      "input and output tokens a second", "total_token_throughput",
                      "total_throughput");
        sheet_plots_end(s);
    }
    sheet_section(s, "Latencies");
    sheet_plots(s);
    draw_cdfs(s, result);
    sheet_plots_end(s);
    sheet_section(s, "Over time");
    sheet_paragraph(s, "The run at %s.", serve_label(headline));
    sheet_plots(s);
    draw_timeline(s, headline);
    sheet_plots_end(s);
}
