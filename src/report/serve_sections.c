/* SPDX-License-Identifier: Apache-2.0 */
#include "report/serve.h"

#include <stdint.h>
#include <stdio.h>

enum { TEXTS_BYTES_MAX = 64 << 20 }; /* of a result that is read at all */

/* ------------------------------------------------------------------------------------ latencies */

void serve_latencies(sheet *s, const json_t *result)
{
    static const sheet_column columns[] = {
        {"Latency", NULL, true}, {"Mean", "ms", false}, {"Std", "ms", false},
        {"Min", "ms", false},    {"p50", "ms", false},  {"p90", "ms", false},
        {"p95", "ms", false},    {"p99", "ms", false},  {"Max", "ms", false},
    };
    static const char *const statistics[] = {"mean", "std", "min", "p50",
                                             "p90",  "p95", "p99", "max"};
    static const struct {
        const char *name, *metric;
    } rows[] = {{"Time to first token (TTFT)", "ttft"},
                {"Time per output token (TPOT)", "tpot"},
                {"Between chunks (ITL): chunks are not tokens", "itl"},
                {"Whole answer (E2E)", "e2el"}};
    const json_t *const run = serve_headline(result);
    sheet_table(s, "Of the headline's run, from the intended start of each request.", columns,
                sizeof columns / sizeof *columns);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", rows[i].name);
        for (size_t k = 0; k < sizeof statistics / sizeof *statistics; k++) {
            char key[32];
            (void)snprintf(key, sizeof key, "%s_%s_ms", statistics[k], rows[i].metric);
            sheet_number(s, field_number(run, key));
        }
    }
    sheet_table_end(s);
}

/* -------------------------------------------------------------------------------------- by run */

void serve_by_run(sheet *s, const json_t *result)
{
    static const sheet_column columns[] = {
        {"Run", NULL, true},
        {"Steady output", "tokens/s", false},
        {"Cached", "by usage", false},
        {"Cached", "by the server", false},
        {"Acceptance", "tokens a step", false},
        {"Preempted", NULL, false},
        {"Energy", "J an output token", false},
        {"Output", "$ per million tokens", false},
    };
    const json_t *const runs = field_at(result, "runs");
    sheet_table(s,
                "What the server tells of each run, what it drew, and what it costs under the "
                "first price profile.",
                columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *const run = json_array_get(runs, i);
        const json_t *const profile = json_array_get(field_at(run, "cost.profiles"), 0);
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", serve_label(run));
        sheet_number(s, field_number(run, "steady.output_throughput"));
        sheet_cell(s, "%s", figure_percent(field_number(run, "hit_rate")).text);
        sheet_cell(s, "%s", figure_percent(field_number(run, "metrics.hit_rate")).text);
        sheet_number(s, field_number(run, "metrics.acceptance_length"));
        sheet_cell(s, "%s", figure_count(field_number(run, "metrics.preemptions")).text);
        sheet_number(s, field_number(run, "energy.joules_per_output_token"));
        sheet_number(s, field_number(profile, "usd_per_m_output"));
    }
    sheet_table_end(s);
}

/* ----------------------------------------------------------------------------------------- knee */

/* "p95_ttft_ms" as people call it. */
static const char *metric_name(const json_t *knee)
{
    const char *const name = field_text_or(knee, "metric", "the latency");
    return strcmp(name, "p95_ttft_ms") == 0   ? "TTFT p95"
           : strcmp(name, "p99_ttft_ms") == 0 ? "TTFT p99"
           : strcmp(name, "p50_ttft_ms") == 0 ? "TTFT p50"
                                              : name;
}

void serve_knee(sheet *s, const json_t *result)
{
    const json_t *const knee = field_at(result, "knee");
    const json_t *const bracket = field_at(knee, "bracket");
    if (knee == NULL) {
        return;
    }
    sheet_section(s, "The knee");
    if (field_is_true(knee, "is_found")) {
        sheet_box(s, SHEET_GOOD, "Found.",
                  "%s requests/s with %s output tokens/s is the highest rate at which %s "
                  "stays within %s and at least %s of the requests succeed.",
                  figure_of(field_number(knee, "rate")).text,
                  figure_of(field_number(knee, "output_throughput")).text, metric_name(knee),
                  figure_ms(field_number(knee, "limit_ms")).text,
                  figure_percent(field_number(knee, "success_min")).text);
    } else {
        sheet_box(s, SHEET_BAD, "Not found.", "%s", field_text_or(knee, "why", "No reason given."));
    }
    sheet_facts(s);
    if (json_array_size(bracket) == 2) {
        sheet_fact(s, "Bracket", "%s requests/s holds, %s does not",
                   figure_of(field_number_of(bracket, 0)).text,
                   figure_of(field_number_of(bracket, 1)).text);
    }
    sheet_fact(s, "Runs made", "%zu", json_array_size(field_at(knee, "runs")));
    sheet_facts_end(s);
}

/* ---------------------------------------------------------------------------------- sensitivity */

void serve_sensitivity(sheet *s, const json_t *result)
{
    static const sheet_column columns[] = {
        {"Hit rate, made", NULL, true},  {"Measured", NULL, false},
        {"Speculation", NULL, true},     {"Output", "tokens/s", false},
        {"TTFT p50", "ms", false},       {"TTFT p95", "ms", false},
        {"Per user", "tokens/s", false}, {"Acceptance", "tokens a step", false},
        {"Success", NULL, false},
    };
    const json_t *const cells = field_at(result, "sensitivity");
    const json_t *const runs = field_at(result, "runs");
    if (json_array_size(cells) == 0) {
        return;
    }
    sheet_section(s, "Sensitivity to the assumptions");
    sheet_table(s,
                "The same load with other hit rates, with and without speculation: how much of the "
                "headline is the workload's.",
                columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < json_array_size(cells); i++) {
        const json_t *const cell = json_array_get(cells, i);
        const double i_run = field_number(cell, "run");
        const json_t *const run = i_run >= 0.0 && i_run < (double)json_array_size(runs)
                                      ? json_array_get(runs, (size_t)i_run)
                                      : NULL;
        const double made = field_number(cell, "hit_rate");
        const double measured = field_number(cell, "hit_rate_measured");
        const bool is_off = fabs(measured - made) > SERVE_HITS_APART;
        sheet_row(s, run == NULL || is_off ? SHEET_WARN : SHEET_PLAIN);
        sheet_cell(s, "%s", figure_percent(made).text);
        sheet_cell(s, "%s%s", figure_percent(measured).text, is_off ? ", NOT AS MADE" : "");
        sheet_cell(s, "%s%s%s", field_text_or(cell, "mtp", FIGURE_DASH), run == NULL ? ": " : "",
                   run == NULL ? field_text_or(cell, "why", "") : "");
        sheet_number(s, field_number(run, "output_throughput"));
        sheet_number(s, field_number(run, "p50_ttft_ms"));
        sheet_number(s, field_number(run, "p95_ttft_ms"));
        sheet_number(s, field_number(run, "per_user_tokens_per_s"));
        sheet_number(s, field_number(run, "metrics.acceptance_length"));
        sheet_cell(s, "%s", figure_percent(field_number(run, "success_rate")).text);
    }
    sheet_table_end(s);
}

/* --------------------------------------------------------------------------------------- errors */

/* How the answers of the headline's run ended. */
static void write_reasons(sheet *s, const json_t *reasons)
{
    const char *reason = NULL;
    json_t *count = NULL;
    if (json_object_size(reasons) == 0) {
        return;
    }
    sheet_facts(s);
    json_object_foreach((json_t *)(uintptr_t)reasons, reason, count)
    {
        char name[80];
        (void)snprintf(name, sizeof name, "Ended by %.60s", reason);
        qn_text_clean(name);
        sheet_fact(
            s, name, "%s",
            figure_count(json_is_number(count) ? json_number_value(count) : (double)NAN).text);
    }
    sheet_facts_end(s);
}

void serve_errors(sheet *s, const json_t *result)
{
    static const sheet_column columns[] = {{"Run", NULL, true},
                                           {"Error", NULL, true},
                                           {"Requests", NULL, false},
                                           {"The first said", NULL, true}};
    const json_t *const runs = field_at(result, "runs");
    bool has_any = false;
    sheet_section(s, "Errors");
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *const run = json_array_get(runs, i);
        json_t *const errors = json_object_get(run, "errors");
        const char *kind = NULL;
        json_t *count = NULL;
        json_object_foreach(errors, kind, count)
        {
            if (!has_any) {
                sheet_table(s, NULL, columns, sizeof columns / sizeof *columns);
            }
            has_any = true;
            sheet_row(s, SHEET_PLAIN);
            sheet_cell(s, "%s", serve_label(run));
            sheet_cell(s, "%s", kind);
            sheet_cell(
                s, "%s",
                figure_count(json_is_number(count) ? json_number_value(count) : (double)NAN).text);
            const char *const message =
                json_string_value(json_object_get(json_object_get(run, "error_messages"), kind));
            sheet_cell(s, "%s", message != NULL ? message : FIGURE_DASH);
        }
    }
    if (has_any) {
        sheet_table_end(s);
    } else {
        sheet_paragraph(s, "No request of any run failed.");
    }
    write_reasons(s, field_at(serve_headline(result), "finish_reasons"));
}

/* ----------------------------------------------------------------------------------------- cost */

static void write_profiles(sheet *s, const json_t *cost)
{
    static const sheet_column columns[] = {{"Price profile", NULL, true},
                                           {"Accelerator", "$/h", false},
                                           {"All of them", "$/h", false},
                                           {"Output", "$ per million tokens", false},
                                           {"All tokens", "$ per million tokens", false}};
    const json_t *const profiles = field_at(cost, "profiles");
    sheet_table(s, NULL, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < json_array_size(profiles); i++) {
        const json_t *const profile = json_array_get(profiles, i);
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", field_text_or(profile, "name", "unnamed"));
        sheet_number(s, field_number(profile, "usd_per_hour"));
        sheet_number(s, field_number(profile, "usd_per_hour_of_all"));
        sheet_number(s, field_number(profile, "usd_per_m_output"));
        sheet_number(s, field_number(profile, "usd_per_m_total"));
    }
    sheet_table_end(s);
}

/* Those of the same workload, or the others. */
static void write_even_rows(sheet *s, const json_t *result, const json_t *rows, bool is_alike)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *const row = json_array_get(rows, i);
        const char *const workload = field_text_or(row, "workload", "not told");
        if (serve_is_alike(result, workload) != is_alike) {
            continue;
        }
        sheet_row(s, is_alike ? SHEET_PLAIN : SHEET_WARN);
        sheet_cell(s, "%s", field_text_or(row, "reference", "unnamed"));
        sheet_cell(s, "%s",
                   strcmp(field_text_or(row, "profile", ""), "power") == 0
                       ? "tokens for each kW"
                       : field_text_or(row, "profile", FIGURE_DASH));
        sheet_cell(s, "%s", workload);
        sheet_number(s, field_number(row, "output_throughput"));
        sheet_number(s, field_number(row, "ratio"));
    }
}

static void write_break_even(sheet *s, const json_t *result, const json_t *cost)
{
    static const sheet_column columns[] = {{"Against", NULL, true},
                                           {"Under", NULL, true},
                                           {"Workload", "of theirs", true},
                                           {"Breaks even at", "output tokens/s", false},
                                           {"Measured here", "by that", false}};
    const json_t *const rows = field_at(cost, "break_even");
    if (json_array_size(rows) == 0) {
        return;
    }
    if (serve_is_scaled(result)) {
        sheet_paragraph(s, "Lengths are scaled, so there is no published result to break even "
                           "with.");
        return;
    }
    sheet_table(s,
                "The speed at which a token costs the same as in a published result, in $ or in "
                "power: above 1 it is cheaper here. Rows in grey are of other workloads.",
                columns, sizeof columns / sizeof *columns);
    write_even_rows(s, result, rows, true);
    write_even_rows(s, result, rows, false);
    sheet_table_end(s);
}

static void write_sources(sheet *s, const json_t *prices)
{
    static const sheet_column columns[] = {
        {"Prices of", NULL, true}, {"Date", NULL, true}, {"Source", NULL, true}};
    if (json_array_size(prices) == 0) {
        return;
    }
    sheet_table(s, NULL, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < json_array_size(prices); i++) {
        const json_t *const price = json_array_get(prices, i);
        const char *const source = field_text_or(price, "source", "not stated");
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", field_text_or(price, "name", "unnamed"));
        sheet_cell(s, "%s", field_text_or(price, "date", FIGURE_DASH));
        sheet_cell_link(s, source, source);
    }
    sheet_table_end(s);
}

static void write_energy(sheet *s, const json_t *run)
{
    const json_t *const energy = field_at(run, "energy");
    if (field_text(energy, "source") == NULL) {
        sheet_paragraph(s, "Energy was not measured%s%s.",
                        field_text(energy, "why") != NULL ? ": " : "",
                        field_text_or(energy, "why", ""));
        return;
    }
    if (!field_is_true(energy, "power_valid")) {
        sheet_box(s, SHEET_BAD, "Energy is not valid.", "%s",
                  field_text_or(energy, "why", "The result does not say why."));
    }
    sheet_facts(s);
    page_fact(s, "Power read by", energy, "source");
    page_fact(s, "Average power, W", energy, "avg_power_w");
    page_fact(s, "Energy, J", energy, "total_gpu_energy_j");
    page_fact(s, "J per output token", energy, "joules_per_output_token");
    page_fact(s, "J per token", energy, "joules_per_total_token");
    page_fact(s, "J per request", energy, "joules_per_successful_query");
    sheet_facts_end(s);
}

void serve_cost(sheet *s, const json_t *result)
{
    const json_t *const run = serve_headline(result);
    const json_t *const cost = field_at(run, "cost");
    sheet_section(s, "Cost and energy");
    sheet_paragraph(s, "Of the run at %s.", serve_label(run));
    if (cost != NULL) {
        const double per_kw = field_number(cost, "output_per_s_per_kw");
        if (isfinite(per_kw)) {
            sheet_paragraph(
                s, "%s x %s: %s output tokens a second for each kW of provisioned power.",
                figure_count(field_number(cost, "n")).text,
                field_text_or(cost, "accelerator", "accelerator"), figure_of(per_kw).text);
        }
        write_profiles(s, cost);
        write_break_even(s, result, cost);
        write_sources(s, field_at(result, "prices"));
    } else {
        sheet_paragraph(s, "No accelerator was named (--accelerator), so no price is given.");
    }
    write_energy(s, run);
}

/* ----------------------------------------------------------------------------------- references */

/* A figure under one of two names: where it is not said which percentile it is, the second. */
static double either(const json_t *row, const char *name, const char *other)
{
    const double value = field_number(row, name);
    return isfinite(value) ? value : field_number(row, other);
}

static void write_reference(sheet *s, const json_t *reference, const json_t *row)
{
    const char *const label = field_text(row, "label");
    const double concurrency = field_number(row, "concurrency");
    const double n = field_number(reference, "n_accelerators");
    sheet_row(s, SHEET_PLAIN);
    sheet_cell(s, "%s%s%s%s%s", field_text_or(reference, "name", "unnamed"),
               label != NULL ? ": " : "", label != NULL ? label : "",
               isfinite(concurrency) ? ", at once: " : "",
               isfinite(concurrency) ? figure_count(concurrency).text : "");
    sheet_cell(s, "%s x %s", figure_count(n).text,
               field_text_or(reference, "accelerator", FIGURE_DASH));
    sheet_cell(s, "%s", field_text_or(reference, "quantization", FIGURE_DASH));
    sheet_number(s, field_number(row, "request_rate"));
    sheet_number(s, field_number(row, "output_throughput"));
    sheet_number(s, field_number(row, "total_throughput"));
    sheet_number(s, either(row, "ttft_p50_ms", "ttft_ms"));
    sheet_number(s, field_number(row, "ttft_p95_ms"));
    sheet_number(s, either(row, "tpot_p50_ms", "tpot_ms"));
    sheet_number(s, field_number(row, "per_user_tokens_per_s"));
}

/* A list of texts in one cell. */
static void write_texts(sheet *s, const json_t *texts)
{
    qn_buf all;
    qn_buf_init(&all, TEXTS_BYTES_MAX);
    for (size_t i = 0; i < json_array_size(texts) && s->status == QN_OK; i++) {
        const char *const text = json_string_value(json_array_get(texts, i));
        if (text != NULL) {
            sheet_try(s, qn_buf_append_printf(&all, s->err, "%s%s", all.len > 0 ? "; " : "", text));
        }
    }
    sheet_cell(s, "%s", all.len > 0 ? all.ptr : FIGURE_DASH);
    qn_buf_deinit(&all);
}

static void write_reference_source(sheet *s, const json_t *reference)
{
    const char *const source = field_text_or(reference, "source", "not stated");
    sheet_row(s, SHEET_PLAIN);
    sheet_cell(s, "%s", field_text_or(reference, "name", "unnamed"));
    sheet_cell(s, "%s", field_text_or(reference, "workload", FIGURE_DASH));
    write_texts(s, field_at(reference, "claims"));
    write_texts(s, field_at(reference, "caveats"));
    sheet_cell(s, "%s", field_text_or(reference, "date", FIGURE_DASH));
    sheet_cell_link(s, source, source);
}

void serve_references(sheet *s, const json_t *result)
{
    static const sheet_column rows_columns[] = {
        {"Result", NULL, true},        {"On", NULL, true},
        {"Quantization", NULL, true},  {"Rate", "requests/s", false},
        {"Output", "tokens/s", false}, {"All", "tokens/s", false},
        {"TTFT p50", "ms", false},     {"TTFT p95", "ms", false},
        {"TPOT p50", "ms", false},     {"Per user", "tokens/s", false},
    };
    static const sheet_column columns[] = {{"Result", NULL, true},    {"Workload", NULL, true},
                                           {"It claims", NULL, true}, {"Caveats", NULL, true},
                                           {"Date", NULL, true},      {"Source", NULL, true}};
    const json_t *const references = field_at(result, "references");
    const size_t n = json_array_size(references);
    if (n == 0) {
        return;
    }
    sheet_section(s, serve_is_scaled(result) ? "The workload as published, not measured by us"
                                             : "Published results, not measured by us");
    if (serve_is_scaled(result)) {
        sheet_paragraph(s, "At full length and on accelerators: another workload than that above, "
                           "whose lengths are scaled. Nothing here can be compared with it.");
    }
    sheet_table(s,
                "As their authors gave them, per node; where only one TTFT or TPOT was given it "
                "stands under p50.",
                rows_columns, sizeof rows_columns / sizeof *rows_columns);
    for (size_t i = 0; i < n; i++) {
        const json_t *const reference = json_array_get(references, i);
        const json_t *const rows = field_at(reference, "rows");
        for (size_t i_row = 0; i_row < json_array_size(rows); i_row++) {
            write_reference(s, reference, json_array_get(rows, i_row));
        }
    }
    sheet_table_end(s);
    sheet_table(s, NULL, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < n; i++) {
        write_reference_source(s, json_array_get(references, i));
    }
    sheet_table_end(s);
}
