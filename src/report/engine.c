/* SPDX-License-Identifier: Apache-2.0 */
#include "report/pages.h"

#include <stdio.h>

static void engine_title(char *out, size_t out_bytes, const json_t *result)
{
    (void)snprintf(out, out_bytes, "Engine: %.100s, %s", field_text_or(result, "model", "?"),
                   page_quantization(result, "quantization"));
}

/* "0", "5", "auto" */
static figure depth_of(const json_t *cell)
{
    figure out;
    const json_t *const depth = field_at(cell, "draft_tokens");
    if (json_is_string(depth)) {
        (void)snprintf(out.text, sizeof out.text, "%.20s", json_string_value(depth));
        qn_text_clean(out.text);
        return out;
    }
    return figure_count(json_is_number(depth) ? json_number_value(depth) : (double)NAN);
}

static void write_cells(sheet *s, const json_t *cells)
{
    static const sheet_column columns[] = {
        {"Sequences", NULL, true},
        {"Context", "tokens", false},
        {"Draft tokens", NULL, false},
        {"Prefill", "tokens/s", false},
        {"Decode", "tokens/s", false},
        {"Each", "tokens/s", false},
        {"Spread", NULL, false},
        {"Step", "ms", false},
        {"Acceptance", "tokens a step", false},
        {"By one sequence", NULL, false},
        {"Pages", "at most", false},
    };
    sheet_table(s, NULL, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < json_array_size(cells); i++) {
        const json_t *const cell = json_array_get(cells, i);
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", figure_count(field_number(cell, "batch")).text);
        sheet_cell(s, "%s", figure_count(field_number(cell, "context")).text);
        sheet_cell(s, "%s%s", depth_of(cell).text,
                   field_is_true(cell, "synthetic") ? ", SYNTHETIC" : "");
        sheet_number(s, field_number(cell, "prefill_tokens_per_s"));
        sheet_number(s, field_number(cell, "decode_tokens_per_s"));
        sheet_number(s, field_number(cell, "decode_tokens_per_s_per_sequence"));
        sheet_cell(s, "%s", figure_percent(field_number(cell, "decode_spread")).text);
        sheet_number(s, field_number(cell, "step_ms"));
        sheet_number(s, field_number(cell, "acceptance_length"));
        sheet_number(s, field_number(cell, "ratio_to_batch_1"));
        sheet_cell(s, "%s", figure_count(field_number(cell, "peak_pages")).text);
    }
    sheet_table_end(s);
}

/* A line for each context with each depth, in the order of the table. */
static void add_lines(sheet *s, plot *p, const json_t *cells, const char *x, const char *y)
{
    for (size_t i = 0; i < json_array_size(cells); i++) {
        const json_t *const first = json_array_get(cells, i);
        const double context = field_number(first, "context");
        const figure depth = depth_of(first);
        char name[2 * PLOT_LABEL_BYTES];
        bool is_drawn = false;
        (void)snprintf(name, sizeof name, "context %s, %s drafts", figure_count(context).text,
                       depth.text);
        for (size_t k = 0; k < p->n_series && k < PLOT_SERIES_MAX; k++) {
            is_drawn |= strcmp(p->series[k].name, name) == 0;
        }
        if (is_drawn) {
            continue;
        }
        plot_begin(p, name, PLOT_LINE_POINTS,
                   (plot_color)(PLOT_BLUE + p->n_series % (PLOT_BROWN - PLOT_BLUE + 1)));
        for (size_t k = i; k < json_array_size(cells); k++) {
            const json_t *const cell = json_array_get(cells, k);
            if (field_number(cell, "context") == context &&
                strcmp(depth_of(cell).text, depth.text) == 0) {
                sheet_try(s, plot_add(p, field_number(cell, x), field_number(cell, y), s->err));
            }
        }
    }
}

/* What became of drafts: "none" where there were none. */
static const char *acceptance_of(const json_t *result)
{
    const json_t *const cells = field_at(result, "cells");
    bool has_drafts = false;
    for (size_t i = 0; i < json_array_size(cells); i++) {
        has_drafts |= strcmp(depth_of(json_array_get(cells, i)).text, "0") != 0;
    }
    return field_is_true(result, "synthetic") ? "synthetic" : has_drafts ? "measured" : "none";
}

static void write_engine(sheet *s, const json_t *result)
{
    const json_t *const cells = field_at(result, "cells");
    char heading[256];
    plot decode = {.title = "Decoding by sequences at once",
                   .x_label = "sequences",
                   .y_label = "tokens a second"};
    plot each = {.title = "Speed of each sequence against all",
                 .x_label = "tokens a second for each sequence",
                 .y_label = "tokens a second of all"};
    (void)snprintf(heading, sizeof heading, "Engine: %.120s, %s",
                   field_text_or(result, "model", "an unnamed model"),
                   page_quantization(result, "quantization"));
    qn_text_clean(heading);
    sheet_title(s, heading, field_text_or(result, "machine", "machine not stated"));
    sheet_badges(s);
    page_badge_weights(s, field_text(result, "weights"));
    page_badge_acceptance(s, acceptance_of(result));
    sheet_badges_end(s);
    if (field_is_true(result, "synthetic")) {
        sheet_box(s, SHEET_BAD, "Synthetic acceptance.",
                  "Drafts were accepted unseen, so that steps emit %s tokens on average.",
                  figure_of(field_number(result, "pinned_acceptance_length")).text);
    }
    page_command(s, result);
    sheet_facts(s);
    page_fact(s, "Arithmetic", result, "compute");
    page_fact(s, "Cache rows", result, "kv_dtype");
    page_fact(s, "Device", result, "device");
    page_fact(s, "Kernels", result, "kernels");
    page_fact(s, "Threads", result, "threads");
    page_fact(s, "Prompt tokens", result, "prompt_tokens");
    page_fact(s, "Output tokens", result, "output_tokens");
    page_fact(s, "Median of", result, "repeats");
    page_fact(s, "Shared context", result, "shared_prefix");
    sheet_fact(s, "Measured by", "quern %s, commit %s",
               field_text_or(result, "version", FIGURE_DASH),
               field_text_or(result, "commit", FIGURE_DASH));
    page_fact(s, "Date", result, "date");
    sheet_facts_end(s);
    sheet_section(s, "Speeds");
    plot_init(&decode);
    plot_init(&each);
    add_lines(s, &decode, cells, "batch", "decode_tokens_per_s");
    add_lines(s, &each, cells, "decode_tokens_per_s_per_sequence", "decode_tokens_per_s");
    sheet_plots(s);
    sheet_plot(s, &decode);
    sheet_plot(s, &each);
    sheet_plots_end(s);
    write_cells(s, cells);
    sheet_paragraph(s,
                    "Prompts and answers are timed apart; of answering only steps in which every "
                    "sequence answers. Spread is the largest less the smallest, by the median.");
}

static const field engine_fields[] = {
    {"command", JSON_STRING},
    {"model", JSON_STRING},
    {"quantization", JSON_STRING},
    {"weights", JSON_STRING},
    {"machine", JSON_STRING},
    {"version", JSON_STRING},
    {"commit", JSON_STRING},
    {"synthetic", JSON_TRUE},
    {"pinned_acceptance_length", JSON_REAL},
    {"cells[].batch", JSON_REAL},
    {"cells[].context", JSON_REAL},
    {"cells[].prefill_tokens_per_s", JSON_REAL},
    {"cells[].decode_tokens_per_s", JSON_REAL},
    {"cells[].decode_tokens_per_s_per_sequence", JSON_REAL},
    {"cells[].decode_spread", JSON_REAL},
    {"cells[].step_ms", JSON_REAL},
    {"cells[].acceptance_length", JSON_REAL},
    {"cells[].ratio_to_batch_1", JSON_REAL},
    {"cells[].peak_pages", JSON_REAL},
};

const page page_engine = {
    .format = "quern-bench-engine/1",
    .fields = engine_fields,
    .n_fields = sizeof engine_fields / sizeof *engine_fields,
    .title = engine_title,
    .write = write_engine,
};
