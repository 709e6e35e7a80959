/* SPDX-License-Identifier: Apache-2.0 */
#include "report/pages.h"

#include <stdio.h>

/* As the field has it: one chance in twenty. */
static const double p_max = 0.05;

static void title(char *out, size_t out_bytes, const json_t *result)
{
    (void)snprintf(out, out_bytes, "Quality of %.100s, %s", field_text_or(result, "model", "?"),
                   page_quantization(result, "quantization"));
}

/* "91.7 % to 97.6 %" */
static void show_interval(char *out, size_t out_bytes, const json_t *share)
{
    (void)snprintf(out, out_bytes, "%s to %s", figure_percent(field_number(share, "low")).text,
                   figure_percent(field_number(share, "high")).text);
}

/* A difference of shares in points. */
static figure points(const json_t *pair, const char *path)
{
    return figure_signed(100.0 * field_number(pair, path));
}

/* ----------------------------------------------------------------------------------- headline */

static void write_finding(sheet *s, const json_t *paired)
{
    const double p = field_number(paired, "p");
    const double low = field_number(paired, "low");
    const double high = field_number(paired, "high");
    const bool is_apart = low > 0.0 || high < 0.0;
    if (p < p_max && is_apart) {
        const bool is_worse = field_number(paired, "difference") < 0.0;
        sheet_box(s, is_worse ? SHEET_BAD : SHEET_GOOD,
                  is_worse ? "The second is worse." : "The second is better.",
                  "%s points (95 %%: %s to %s); a split so uneven has p = %s if both are equally "
                  "good.",
                  points(paired, "difference").text, points(paired, "low").text,
                  points(paired, "high").text, figure_of(p).text);
    } else {
        sheet_box(s, SHEET_WARN, p < p_max || is_apart ? "Borderline." : "No difference is shown.",
                  "That does not show that there is none: by the interval it may be anything from "
                  "%s to %s points (p = %s).",
                  points(paired, "low").text, points(paired, "high").text, figure_of(p).text);
    }
}

static void write_share_tile(sheet *s, const char *what, const json_t *share)
{
    char below[256];
    (void)snprintf(below, sizeof below, "%s of %s; 95 %%: %s to %s",
                   figure_count(field_number(share, "right")).text,
                   figure_count(field_number(share, "n")).text,
                   figure_percent(field_number(share, "low")).text,
                   figure_percent(field_number(share, "high")).text);
    sheet_tile(s, figure_percent(field_number(share, "accuracy")).text, what, below);
}

static void write_tiles(sheet *s, const json_t *result)
{
    const json_t *const against = field_at(result, "against");
    const json_t *const paired = field_at(result, "paired");
    char below[256];
    sheet_tiles(s);
    if (field_at(result, "all") != NULL) {
        write_share_tile(s, against != NULL ? "First right" : "Right", field_at(result, "all"));
    }
    if (field_at(against, "all") != NULL) {
        write_share_tile(s, "Second right", field_at(against, "all"));
    }
    if (paired != NULL) {
        (void)snprintf(below, sizeof below, "second less first, points; 95 %%: %s to %s",
                       points(paired, "low").text, points(paired, "high").text);
        sheet_tile(s, points(paired, "difference").text, "Paired difference", below);
        sheet_tile(s, figure_of(field_number(paired, "p")).text, "p, McNemar's exact test",
                   "of so uneven a split, were both equally good");
    }
    if (field_at(result, "text") != NULL) {
        (void)snprintf(below, sizeof below, "of %s tokens",
                       figure_count(field_number(result, "text.tokens")).text);
        sheet_tile(s, figure_of(field_number(result, "text.perplexity")).text, "Perplexity", below);
    }
    sheet_tiles_end(s);
}

/* A text or a number of a side in a cell. */
static void write_setting(sheet *s, const json_t *side, const char *path)
{
    const char *const text = field_text(side, path);
    if (text != NULL) {
        sheet_cell(s, "%s", text);
    } else {
        sheet_cell(s, "%s", figure_plain(field_number(side, path)).text);
    }
}

static void write_sides(sheet *s, const json_t *result)
{
    static const struct {
        const char *name, *path;
    } rows[] = {{"Model", "model"},
                {"Weights", "weights"},
                {"Quantization", "quantization"},
                {"Device", "device"},
                {"Arithmetic", "compute"},
                {"Cache rows", "kv_dtype"},
                {"Thinking", "thinking"},
                {"Draft tokens", "draft_tokens"},
                {"Tokens answered", "usage.completion_tokens"},
                {"Acceptance length", "speculation.acceptance_length"},
                {"Cut by the limit of tokens", "all.cut"}};
    static const sheet_column columns[] = {
        {"Setting", NULL, true}, {"First", NULL, true}, {"Second", NULL, true}};
    const json_t *const against = field_at(result, "against");
    sheet_table(s, NULL, columns, against != NULL ? 3 : 2);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", rows[i].name);
        write_setting(s, result, rows[i].path);
        if (against != NULL) {
            write_setting(s, against, rows[i].path);
        }
    }
    sheet_table_end(s);
}

/* -------------------------------------------------------------------------------------- tasks */

static const json_t *task_of(const json_t *side, const char *name)
{
    return json_object_get(field_at(side, "tasks"), name);
}

static void write_task(sheet *s, const char *name, const json_t *first, const json_t *second,
                       const json_t *pair)
{
    char interval[128];
    sheet_row(s, SHEET_PLAIN);
    sheet_cell(s, "%s", name);
    sheet_cell(s, "%s", figure_count(field_number(first, "n")).text);
    show_interval(interval, sizeof interval, first);
    sheet_cell(s, "%s", figure_percent(field_number(first, "accuracy")).text);
    sheet_cell(s, "%s", interval);
    if (second != NULL) {
        sheet_cell(s, "%s", figure_percent(field_number(second, "accuracy")).text);
        sheet_cell(s, "%s", points(pair, "difference").text);
        sheet_cell(s, "%s to %s", points(pair, "low").text, points(pair, "high").text);
        sheet_cell(s, "%s / %s", figure_count(field_number(pair, "only_first")).text,
                   figure_count(field_number(pair, "only_second")).text);
        sheet_number(s, field_number(pair, "p"));
    }
}

static void write_tasks(sheet *s, const json_t *result)
{
    static const sheet_column columns[] = {
        {"Task", NULL, true},        {"Problems", NULL, false},
        {"First", "right", false},   {"95 %", "interval", false},
        {"Second", "right", false},  {"Difference", "points", false},
        {"95 %", "interval", false}, {"Only first / second", "right", false},
        {"p", NULL, false},
    };
    const json_t *const against = field_at(result, "against");
    const json_t *const paired = field_at(result, "paired");
    json_t *const tasks = json_object_get(result, "tasks");
    const char *name = NULL;
    json_t *task = NULL;
    sheet_table(s, NULL, columns, against != NULL ? 9 : 4);
    json_object_foreach(tasks, name, task)
    {
        write_task(s, name, task, against != NULL ? task_of(against, name) : NULL,
                   task_of(paired, name));
    }
    if (field_at(result, "all") != NULL) {
        write_task(s, "all tasks", field_at(result, "all"), field_at(against, "all"), paired);
    }
    sheet_table_end(s);
}

static void add_share(sheet *s, plot *p, size_t i_series, const json_t *share)
{
    sheet_try(s, plot_add_at_row(p, i_series, 100.0 * field_number(share, "accuracy"),
                                 100.0 * field_number(share, "low"),
                                 100.0 * field_number(share, "high"), s->err));
}

static void draw_tasks(sheet *s, const json_t *result)
{
    const json_t *const against = field_at(result, "against");
    json_t *const tasks = json_object_get(result, "tasks");
    const char *name = NULL;
    json_t *task = NULL;
    plot shares = {.title = "Right answers, with 95 % intervals", .x_label = "% right"};
    plot differences = {.title = "Second less first, paired, with 95 % intervals",
                        .x_label = "points",
                        .is_free_x = true,
                        .has_mark_x = true};
    plot_init(&shares);
    plot_init(&differences);
    plot_begin(&shares, against != NULL ? "first" : "right", PLOT_INTERVAL, PLOT_BLUE);
    if (against != NULL) {
        plot_begin(&shares, "second", PLOT_INTERVAL, PLOT_ORANGE);
        plot_begin(&differences, "second less first", PLOT_INTERVAL, PLOT_PURPLE);
    }
    json_object_foreach(tasks, name, task)
    {
        plot_row(&shares, name);
        add_share(s, &shares, 0, task);
        if (against != NULL) {
            add_share(s, &shares, 1, task_of(against, name));
            const json_t *const pair = task_of(field_at(result, "paired"), name);
            plot_row(&differences, name);
            sheet_try(s, plot_add_at_row(&differences, 0, 100.0 * field_number(pair, "difference"),
                                         100.0 * field_number(pair, "low"),
                                         100.0 * field_number(pair, "high"), s->err));
        }
    }
    sheet_plots(s);
    sheet_plot(s, &shares);
    sheet_plot(s, &differences);
    sheet_plots_end(s);
}

/* --------------------------------------------------------------------------------------- text */

static void write_text_row(sheet *s, const char *name, const json_t *text)
{
    sheet_row(s, SHEET_PLAIN);
    sheet_cell(s, "%s", name);
    sheet_number(s, field_number(text, "perplexity"));
    sheet_cell(s, "%s to %s", figure_of(field_number(text, "low")).text,
               figure_of(field_number(text, "high")).text);
    sheet_number(s, field_number(text, "loss"));
    sheet_cell(s, "%s", figure_count(field_number(text, "tokens")).text);
    sheet_cell(s, "%s", figure_count(field_number(text, "windows")).text);
}

static void write_text(sheet *s, const json_t *result)
{
    static const sheet_column columns[] = {{"Text", NULL, true},        {"Perplexity", NULL, false},
                                           {"95 %", "interval", false}, {"Loss", "nats", false},
                                           {"Tokens", NULL, false},     {"Windows", NULL, false}};
    const json_t *const against = field_at(result, "against");
    const json_t *const d = field_at(result, "divergence");
    if (field_at(result, "text") == NULL) {
        return;
    }
    sheet_section(s, "Predictions of a text");
    sheet_table(s, NULL, columns, sizeof columns / sizeof *columns);
    write_text_row(s, against != NULL ? "first" : "model", field_at(result, "text"));
    if (field_at(against, "text") != NULL) {
        write_text_row(s, "second", field_at(against, "text"));
    }
    sheet_table_end(s);
    if (d != NULL) {
        sheet_facts(s);
        sheet_fact(s, "KL divergence", "mean %s (95 %%: %s to %s), p50 %s, p99 %s, largest %s",
                   figure_of(field_number(d, "mean")).text, figure_of(field_number(d, "low")).text,
                   figure_of(field_number(d, "high")).text, figure_of(field_number(d, "p50")).text,
                   figure_of(field_number(d, "p99")).text, figure_of(field_number(d, "max")).text);
        sheet_fact(s, "Same likeliest token", "%s (95 %%: %s to %s)",
                   figure_percent(field_number(d, "same_top")).text,
                   figure_percent(field_number(d, "same_top_low")).text,
                   figure_percent(field_number(d, "same_top_high")).text);
        sheet_facts_end(s);
    }
}

static void write(sheet *s, const json_t *result)
{
    const json_t *const against = field_at(result, "against");
    const json_t *const paired = field_at(result, "paired");
    char heading[256];
    char below[256] = "Right answers, and how sure they are";
    (void)snprintf(heading, sizeof heading, "Quality of %.120s, %s",
                   field_text_or(result, "model", "an unnamed model"),
                   page_quantization(result, "quantization"));
    if (against != NULL) {
        (void)snprintf(below, sizeof below, "against %.120s, %s, on the same problems",
                       field_text_or(against, "model", "an unnamed model"),
                       page_quantization(against, "quantization"));
    }
    qn_text_clean(heading);
    qn_text_clean(below);
    sheet_title(s, heading, below);
    sheet_badges(s);
    page_badge_weights(s, field_text(result, "weights"));
    if (against != NULL) {
        page_badge_weights(s, field_text(against, "weights"));
    }
    sheet_badges_end(s);
    if (paired != NULL) {
        write_finding(s, paired);
    }
    write_tiles(s, result);
    page_command(s, result);
    sheet_facts(s);
    page_fact(s, "Temperature", result, "temperature");
    page_fact(s, "Seed", result, "seed");
    page_fact(s, "Limit of tokens", result, "max_tokens");
    page_made_by(s, result);
    sheet_facts_end(s);
    write_sides(s, result);
    if (json_object_size(field_at(result, "tasks")) > 0) {
        sheet_section(s, "Tasks");
        draw_tasks(s, result);
        write_tasks(s, result);
    }
    write_text(s, result);
    sheet_section(s, "Method");
    sheet_paragraph(s, "Intervals of shares are Wilson's, those of paired differences Newcombe's; "
                       "p is of the exact McNemar test, of problems that one of two got right. A "
                       "small number of problems cannot show a small difference: see how wide the "
                       "interval is before calling anything lossless.");
}

static const field fields[] = {
    {"command", JSON_STRING},
    {"tool.version", JSON_STRING},
    {"tool.commit", JSON_STRING},
    {"date_utc", JSON_STRING},
    {"model", JSON_STRING},
    {"quantization", JSON_STRING},
    {"weights", JSON_STRING},
    {"tasks.*.*", JSON_REAL},
    {"all.*", JSON_REAL},
    {"usage", JSON_OBJECT},
    {"speculation", JSON_OBJECT},
    {"text.*", JSON_REAL},
    {"against.model", JSON_STRING},
    {"against.quantization", JSON_STRING},
    {"against.weights", JSON_STRING},
    {"against.tasks.*.*", JSON_REAL},
    {"against.all.*", JSON_REAL},
    {"against.usage", JSON_OBJECT},
    {"against.speculation", JSON_OBJECT},
    {"against.text.*", JSON_REAL},
    {"paired.difference", JSON_REAL},
    {"paired.low", JSON_REAL},
    {"paired.high", JSON_REAL},
    {"paired.p", JSON_REAL},
    {"paired.only_first", JSON_REAL},
    {"paired.only_second", JSON_REAL},
    {"paired.tasks.*.*", JSON_REAL},
    {"divergence.*", JSON_REAL},
};

const page page_eval = {
    .format = "quern-eval/1",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .title = title,
    .write = write,
};
