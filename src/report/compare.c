/* SPDX-License-Identifier: Apache-2.0 */
#include "report/pages.h"

#include <stdio.h>
#include <stdlib.h>

static const char *name_of(const json_t *result, const char *side)
{
    return field_text_or(field_at(result, side), "label", side);
}

static void title(char *out, size_t out_bytes, const json_t *result)
{
    (void)snprintf(out, out_bytes, "%.100s against %.100s", name_of(result, "b"),
                   name_of(result, "a"));
}

/* -------------------------------------------------------------------------------------- what */

static void write_boxes(sheet *s, const json_t *result)
{
    const json_t *const differences = field_at(result, "differences");
    const json_t *const warnings = field_at(result, "warnings");
    for (size_t i = 0; i < json_array_size(differences); i++) {
        const json_t *const d = json_array_get(differences, i);
        char *const a = json_dumps(json_object_get(d, "a"), JSON_ENCODE_ANY);
        char *const b = json_dumps(json_object_get(d, "b"), JSON_ENCODE_ANY);
        sheet_box(s, SHEET_BAD, "Not the same, and allowed.", "%s: A has %s, B has %s.",
                  field_text_or(d, "field", field_text_or(d, "kind", "something")),
                  a != NULL ? a : "nothing", b != NULL ? b : "nothing");
        free(a);
        free(b);
    }
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        sheet_box(s, SHEET_WARN, "Note.", "%s",
                  json_string_value(json_array_get(warnings, i)) != NULL
                      ? json_string_value(json_array_get(warnings, i))
                      : "");
    }
}

static void write_sides(sheet *s, const json_t *result)
{
    static const struct {
        const char *name, *path;
    } rows[] = {{"Model", "server.model"},     {"Quantization", "server.quantization"},
                {"Weights", "server.weights"}, {"Acceptance", "server.acceptance"},
                {"Engine", "server.engine"},   {"Version", "server.version"},
                {"Device", "server.device"},   {"Client", "client.cpu"},
                {"Workload", "workload.name"}, {"Date", "date_utc"},
                {"Command", "command"},        {"Result", "path"}};
    const json_t *const a = field_at(result, "a");
    const json_t *const b = field_at(result, "b");
    const sheet_column columns[] = {{"", NULL, true}, {"A", NULL, true}, {"B", NULL, true}};
    sheet_section(s, "The two");
    sheet_table(s, NULL, columns, 3);
    sheet_row(s, SHEET_PLAIN);
    sheet_cell(s, "Called");
    sheet_cell(s, "%s", name_of(result, "a"));
    sheet_cell(s, "%s", name_of(result, "b"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", rows[i].name);
        sheet_cell(s, "%s", field_text_or(a, rows[i].path, FIGURE_DASH));
        sheet_cell(s, "%s", field_text_or(b, rows[i].path, FIGURE_DASH));
    }
    sheet_table_end(s);
}

/* ------------------------------------------------------------------------------------- ratios */

/* A figure of a run with its names in the result. */
typedef struct metric {
    const char *name, *path, *unit;
} metric;

static const metric metrics[] = {
    {"Output throughput", "throughput.output_throughput", "tokens/s"},
    {"All tokens", "throughput.total_token_throughput", "tokens/s"},
    {"Requests", "throughput.request_throughput", "1/s"},
    {"Goodput", "throughput.request_goodput", "1/s"},
    {"TTFT", "latency.ttft_ms", "ms"},
    {"TPOT", "latency.tpot_ms", "ms"},
    {"Whole answer", "latency.e2el_ms", "ms"},
    {"TTFT p50", "figures.ttft_p50_ms", "ms"},
    {"TTFT p95", "figures.ttft_p95_ms", "ms"},
    {"TPOT p50", "figures.tpot_p50_ms", "ms"},
    {"TPOT p95", "figures.tpot_p95_ms", "ms"},
    {"Whole answer p95", "figures.e2el_p95_ms", "ms"},
    {"Cached share of input", "figures.hit_rate", NULL},
    {"Acceptance length", "figures.acceptance_length", "tokens a step"},
    {"Tokens a chunk", "figures.tokens_per_chunk", NULL},
    {"Joules an output token", "figures.joules_per_output_token", "J"},
    {"Power", "figures.avg_power_w", "W"},
    {"$ a million output tokens", "figures.usd_per_m_output", "$"},
};

/* A number that stands there, or in an object as "value". */
static double value_of(const json_t *object, const char *path)
{
    const double plain = field_number(object, path);
    return isfinite(plain) ? plain : field_number(field_at(object, path), "value");
}

static void draw_ratios(sheet *s, const json_t *result, const json_t *run)
{
    char heading[96];
    (void)snprintf(heading, sizeof heading, "B by A, with %s intervals where there are some",
                   figure_percent(field_number(result, "confidence")).text);
    plot p = {
        .title = heading, .x_label = "ratio", .is_free_x = true, .has_mark_x = true, .mark_x = 1.0};
    plot_init(&p);
    plot_begin(&p, "B by A", PLOT_INTERVAL, PLOT_BLUE);
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        const json_t *const at = field_at(run, metrics[i].path);
        const double ratio = value_of(at, "ratio");
        if (isfinite(ratio)) {
            plot_row(&p, metrics[i].name);
            sheet_try(s, plot_add_at_row(&p, 0, ratio, field_number(at, "ratio.low"),
                                         field_number(at, "ratio.high"), s->err));
        }
    }
    sheet_plot(s, &p);
}

static void write_ratios(sheet *s, const json_t *run)
{
    static const sheet_column columns[] = {{"Figure", NULL, true},    {"A", NULL, false},
                                           {"B", NULL, false},        {"B by A", NULL, false},
                                           {"Interval", NULL, false}, {"B less A", NULL, false}};
    sheet_table(s, NULL, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        const metric *const m = &metrics[i];
        const json_t *const at = field_at(run, m->path);
        const double low = field_number(at, "ratio.low");
        if (!isfinite(value_of(at, "a")) && !isfinite(value_of(at, "b"))) {
            continue; /* neither has it */
        }
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s%s%s", m->name, m->unit != NULL ? ", " : "",
                   m->unit != NULL ? m->unit : "");
        sheet_number(s, value_of(at, "a"));
        sheet_number(s, value_of(at, "b"));
        sheet_number(s, value_of(at, "ratio"));
        if (isfinite(low)) {
            sheet_cell(s, "%s to %s", figure_of(low).text,
                       figure_of(field_number(at, "ratio.high")).text);
        } else {
            sheet_cell(s, FIGURE_DASH);
        }
        sheet_cell(s, "%s", figure_signed(value_of(at, "difference")).text);
    }
    sheet_table_end(s);
}

/* --------------------------------------------------------------------------------------- CDFs */

static void draw_cdf(sheet *s, const json_t *run, const char *heading, const char *name)
{
    static const char *const sides[] = {"a", "b"};
    plot p = {
        .title = heading, .x_label = "at most ... ms", .y_label = "% of requests", .y_max = 100.0};
    plot_init(&p);
    for (size_t i = 0; i < 2; i++) {
        const json_t *const values = field_at(field_at(field_at(run, "cdf"), sides[i]), name);
        const size_t n = json_array_size(values);
        plot_begin(&p, i == 0 ? "A" : "B", PLOT_LINE, i == 0 ? PLOT_GREY : PLOT_BLUE);
        for (size_t k = 0; k < n && n > 1; k++) {
            sheet_try(s, plot_add(&p, field_number_of(values, k),
                                  100.0 * (double)k / (double)(n - 1), s->err));
        }
    }
    plot_choose_log_x(&p);
    sheet_plot(s, &p);
}

/* Did a server answer what was offered?  Then its throughput is the load's. */
static bool keeps_up(const json_t *run, const char *side)
{
    char path[64];
    (void)snprintf(path, sizeof path, "throughput.request_throughput.%s", side);
    return value_of(run, path) >= 0.98 * field_number(run, "request_rate");
}

static void write_run(sheet *s, const json_t *result, const json_t *run)
{
    const double n_paired = field_number(run, "n_paired");
    sheet_section(s, field_text_or(run, "label", "a run"));
    sheet_plots(s);
    draw_ratios(s, result, run);
    draw_cdf(s, run, "Time to first token: share of requests", "ttft_ms");
    draw_cdf(s, run, "Time per output token: share of requests", "tpot_ms");
    draw_cdf(s, run, "Whole answer: share of requests", "e2el_ms");
    sheet_plots_end(s);
    write_ratios(s, run);
    if (keeps_up(run, "a") && keeps_up(run, "b")) {
        sheet_paragraph(s, "Both answered all that was asked at this rate: their throughputs are "
                           "the load's, and latencies tell them apart.");
    }
    sheet_paragraph(s,
                    "%s of %s and %s of %s requests succeeded (A, B); %s are paired, of them %s "
                    "with as many output tokens in both.",
                    figure_count(field_number(run, "a.completed")).text,
                    figure_count(field_number(run, "a.num_prompts")).text,
                    figure_count(field_number(run, "b.completed")).text,
                    figure_count(field_number(run, "b.num_prompts")).text,
                    n_paired > 0.0 ? figure_count(n_paired).text : "none",
                    figure_count(field_number(run, "n_same_output")).text);
}

/* What two searches found. */
static void write_knee(sheet *s, const json_t *knee)
{
    if (knee != NULL) {
        sheet_box(s, SHEET_GOOD, "The knees.",
                  "With %s within %s A holds %s requests/s and B %s: %s times as many.",
                  field_text_or(knee, "metric", "the latency"),
                  figure_ms(field_number(knee, "limit_ms")).text,
                  figure_of(field_number(knee, "a")).text, figure_of(field_number(knee, "b")).text,
                  figure_of(field_number(knee, "ratio")).text);
    }
}

static void write(sheet *s, const json_t *result)
{
    const json_t *const runs = field_at(result, "runs");
    const json_t *const first = json_array_get(runs, 0);
    char heading[256];
    char below[256];
    title(heading, sizeof heading, result);
    qn_text_clean(heading);
    (void)snprintf(below, sizeof below, "B by A: %s TTFT, %s TPOT, %s output tokens/s, at %.60s",
                   figure_of(value_of(first, "latency.ttft_ms.ratio")).text,
                   figure_of(value_of(first, "latency.tpot_ms.ratio")).text,
                   figure_of(value_of(first, "throughput.output_throughput.ratio")).text,
                   field_text_or(first, "label", "a run"));
    qn_text_clean(below);
    sheet_title(s, heading, first != NULL ? below : "They have no load in common");
    sheet_badges(s);
    if (field_is_true(result, "is_comparable")) {
        sheet_badge(s, SHEET_GOOD, "same machine, same workload");
    } else {
        sheet_badge(s, SHEET_BAD, "NOT LIKE WITH LIKE");
    }
    sheet_badge(s, SHEET_PLAIN, "A: %s, %s", field_text_or(result, "a.server.model", FIGURE_DASH),
                page_quantization(result, "a.server.quantization"));
    sheet_badge(s, SHEET_PLAIN, "B: %s, %s", field_text_or(result, "b.server.model", FIGURE_DASH),
                page_quantization(result, "b.server.quantization"));
    sheet_badges_end(s);
    write_boxes(s, result);
    page_command(s, result);
    write_knee(s, field_at(result, "knee"));
    for (size_t i = 0; i < json_array_size(runs); i++) {
        write_run(s, result, json_array_get(runs, i));
    }
    write_sides(s, result);
    sheet_section(s, "Method");
    sheet_paragraph(s,
                    "Latencies are medians of requests that succeeded in both and have %s; their "
                    "ratio is the median of the paired ratios, with a bootstrap interval of %s "
                    "confidence. Throughputs are medians of the repeats, with the least and the "
                    "greatest.",
                    field_is_true(result, "has_same_prompts")
                        ? "the same prompt"
                        : "one id, and so prompts of as many tokens, not of the same text",
                    figure_percent(field_number(result, "confidence")).text);
    sheet_facts(s);
    page_made_by(s, result);
    page_fact(s, "Loads that one lacks", result, "unmatched");
    page_fact(s, "Resamples", result, "resamples");
    page_fact(s, "Seed", result, "seed");
    sheet_facts_end(s);
}

static const field fields[] = {
    {"command", JSON_STRING},
    {"tool.version", JSON_STRING},
    {"tool.commit", JSON_STRING},
    {"date_utc", JSON_STRING},
    {"is_comparable", JSON_TRUE},
    {"differences[].field", JSON_STRING},
    {"differences[].kind", JSON_STRING},
    {"warnings[]", JSON_STRING},
    {"a.label", JSON_STRING},
    {"a.path", JSON_STRING},
    {"a.date_utc", JSON_STRING},
    {"a.command", JSON_STRING},
    {"a.client.cpu", JSON_STRING},
    {"a.server.model", JSON_STRING},
    {"a.server.quantization", JSON_STRING},
    {"a.server.weights", JSON_STRING},
    {"a.server.acceptance", JSON_STRING},
    {"a.server.engine", JSON_STRING},
    {"a.server.version", JSON_STRING},
    {"a.server.device", JSON_STRING},
    {"a.workload.name", JSON_STRING},
    {"b.label", JSON_STRING},
    {"b.path", JSON_STRING},
    {"b.date_utc", JSON_STRING},
    {"b.command", JSON_STRING},
    {"b.client.cpu", JSON_STRING},
    {"b.server.model", JSON_STRING},
    {"b.server.quantization", JSON_STRING},
    {"b.server.weights", JSON_STRING},
    {"b.server.acceptance", JSON_STRING},
    {"b.server.engine", JSON_STRING},
    {"b.server.version", JSON_STRING},
    {"b.server.device", JSON_STRING},
    {"b.workload.name", JSON_STRING},
    {"confidence", JSON_REAL},
    {"has_same_prompts", JSON_TRUE},
    {"knee.metric", JSON_STRING},
    {"knee.limit_ms", JSON_REAL},
    {"knee.a", JSON_REAL},
    {"knee.b", JSON_REAL},
    {"knee.ratio", JSON_REAL},
    {"runs[].label", JSON_STRING},
    {"runs[].request_rate", JSON_REAL},
    {"runs[].n_paired", JSON_REAL},
    {"runs[].n_same_output", JSON_REAL},
    {"runs[].a.completed", JSON_REAL},
    {"runs[].a.num_prompts", JSON_REAL},
    {"runs[].b.completed", JSON_REAL},
    {"runs[].b.num_prompts", JSON_REAL},
    {"runs[].latency.*.a", JSON_REAL},
    {"runs[].latency.*.b", JSON_REAL},
    {"runs[].latency.*.ratio.*", JSON_REAL},
    {"runs[].latency.*.difference.*", JSON_REAL},
    {"runs[].throughput.*.*.*", JSON_REAL},
    {"runs[].figures.*.a", JSON_REAL},
    {"runs[].figures.*.b", JSON_REAL},
    {"runs[].figures.*.ratio", JSON_REAL},
    {"runs[].cdf.*.ttft_ms[]", JSON_REAL},
    {"runs[].cdf.*.tpot_ms[]", JSON_REAL},
    {"runs[].cdf.*.e2el_ms[]", JSON_REAL},
};

const page page_compare = {
    .format = "quern-bench-compare/1",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .title = title,
    .write = write,
};
