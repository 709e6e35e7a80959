/* SPDX-License-Identifier: Apache-2.0 */
#include "report/pages.h"

#include <stdio.h>

enum { KIND_BYTES = PLOT_LABEL_BYTES };

static void title(char *out, size_t out_bytes, const json_t *result)
{
    (void)snprintf(out, out_bytes, "Quantized to MXFP4: %.120s",
                   field_text_or(result, "source", "a model"));
}

static void show_kind(char out[KIND_BYTES], const json_t *row)
{
    (void)snprintf(out, KIND_BYTES, "%s%s", field_is_true(row, "mtp") ? "mtp " : "",
                   field_text_or(row, "kind", "unnamed"));
    qn_text_clean(out);
}

static void write_tiles(sheet *s, const json_t *result)
{
    const double before = field_number(result, "bytes_before");
    const double after = field_number(result, "bytes_after");
    const double seconds = field_number(result, "elapsed_s");
    char below[256];
    sheet_tiles(s);
    sheet_tile(s, figure_bytes(after).text, "After", "all files");
    sheet_tile(s, figure_bytes(before).text, "Before", "all files");
    sheet_tile(s, figure_percent(after / before).text, "Left", "after by before");
    if (isfinite(seconds)) {
        (void)snprintf(below, sizeof below, "%s/s read",
                       figure_bytes(field_number(result, "bytes_per_s")).text);
        sheet_tile(s, figure_ms(1000.0 * seconds).text, "Took", below);
    }
    sheet_tiles_end(s);
}

/* A unit in which the largest kind is no small fraction. */
typedef struct unit {
    const char *name;
    double bytes;
} unit;

static unit unit_of(const json_t *kinds)
{
    double most = 0.0;
    for (size_t i = 0; i < json_array_size(kinds); i++) {
        most = fmax(most, field_number(json_array_get(kinds, i), "bytes_before"));
    }
    return most >= 1e9 ? (unit){"GB", 1e9} : (unit){"MB", 1e6};
}

static void write_kinds(sheet *s, const json_t *kinds)
{
    const unit in = unit_of(kinds);
    const sheet_column columns[] = {
        {"Kind", NULL, true},       {"Tensors", NULL, false},  {"To MXFP4", NULL, false},
        {"Before", in.name, false}, {"After", in.name, false}, {"Error", "relative MSE", false},
        {"Error", "dB", false},     {"Largest", NULL, false},  {"Saturated", "of blocks", false},
    };
    sheet_table(s, "Errors are of what was quantized, by the size of the weights.", columns,
                sizeof columns / sizeof *columns);
    for (size_t i = 0; i < json_array_size(kinds); i++) {
        const json_t *const row = json_array_get(kinds, i);
        char name[KIND_BYTES];
        show_kind(name, row);
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", name);
        sheet_cell(s, "%s", figure_count(field_number(row, "tensors")).text);
        sheet_cell(s, "%s", figure_count(field_number(row, "quantized_tensors")).text);
        sheet_number(s, field_number(row, "bytes_before") / in.bytes);
        sheet_number(s, field_number(row, "bytes_after") / in.bytes);
        sheet_number(s, field_number(row, "error.relative_mse"));
        sheet_number(s, -field_number(row, "error.snr_db"));
        sheet_number(s, field_number(row, "error.error_max"));
        sheet_cell(s, "%s",
                   figure_percent(field_number(row, "error.saturated_blocks") /
                                  field_number(row, "error.blocks"))
                       .text);
    }
    sheet_table_end(s);
}

static void draw_kinds(sheet *s, const json_t *kinds)
{
    const unit in = unit_of(kinds);
    plot bytes = {.title = "Size by kind, before and after", .x_label = in.name};
    plot errors = {.title = "Error by kind", .x_label = "dB below the weights"};
    plot_init(&bytes);
    plot_init(&errors);
    plot_begin(&bytes, "before", PLOT_INTERVAL, PLOT_GREY);
    plot_begin(&bytes, "after", PLOT_INTERVAL, PLOT_BLUE);
    plot_begin(&errors, "signal to error", PLOT_INTERVAL, PLOT_ORANGE);
    for (size_t i = 0; i < json_array_size(kinds); i++) {
        const json_t *const row = json_array_get(kinds, i);
        const double snr_db = field_number(row, "error.snr_db");
        const double before = field_number(row, "bytes_before") / in.bytes;
        const double after = field_number(row, "bytes_after") / in.bytes;
        char name[KIND_BYTES];
        show_kind(name, row);
        plot_row(&bytes, name);
        sheet_try(s, plot_add_at_row(&bytes, 0, before, before, before, s->err));
        sheet_try(s, plot_add_at_row(&bytes, 1, after, after, after, s->err));
        if (isfinite(snr_db)) {
            plot_row(&errors, name);
            sheet_try(s, plot_add_at_row(&errors, 0, snr_db, snr_db, snr_db, s->err));
        }
    }
    sheet_plots(s);
    sheet_plot(s, &bytes);
    sheet_plot(s, &errors);
    sheet_plots_end(s);
}

static void write(sheet *s, const json_t *result)
{
    char below[256];
    (void)snprintf(below, sizeof below, "%.200s", field_text_or(result, "source", ""));
    qn_text_clean(below);
    sheet_title(s,
                field_is_true(result, "dry_run") ? "What quantizing to MXFP4 would make"
                                                 : "Quantized to MXFP4",
                below);
    write_tiles(s, result);
    page_command(s, result);
    sheet_facts(s);
    page_fact(s, "Source", result, "source");
    page_fact(s, "Target", result, "target");
    page_fact(s, "Recipe", result, "recipe");
    page_fact(s, "MTP layer", result, "mtp");
    page_fact(s, "Activations", result, "activations");
    page_fact(s, "Scales", result, "scale");
    page_fact(s, "FP8 tensors", result, "fp8");
    page_fact(s, "Shards", result, "shards");
    page_fact(s, "Done before", result, "resumed_shards");
    page_made_by(s, result);
    sheet_facts_end(s);
    sheet_section(s, "By kind");
    draw_kinds(s, field_at(result, "kinds"));
    write_kinds(s, field_at(result, "kinds"));
    sheet_paragraph(s, "What the loss of bits does to answers is not told by these errors: quern "
                       "eval measures it, paired against the source.");
    page_folded(s, "Modules left as they were", field_at(result, "exclude"));
}

static const field fields[] = {
    {"command", JSON_STRING},
    {"tool.version", JSON_STRING},
    {"tool.commit", JSON_STRING},
    {"date_utc", JSON_STRING},
    {"source", JSON_STRING},
    {"dry_run", JSON_TRUE},
    {"bytes_before", JSON_REAL},
    {"bytes_after", JSON_REAL},
    {"elapsed_s", JSON_REAL},
    {"bytes_per_s", JSON_REAL},
    {"kinds[].kind", JSON_STRING},
    {"kinds[].mtp", JSON_TRUE},
    {"kinds[].tensors", JSON_REAL},
    {"kinds[].quantized_tensors", JSON_REAL},
    {"kinds[].bytes_before", JSON_REAL},
    {"kinds[].bytes_after", JSON_REAL},
    {"kinds[].error.relative_mse", JSON_REAL},
    {"kinds[].error.snr_db", JSON_REAL},
    {"kinds[].error.error_max", JSON_REAL},
    {"kinds[].error.blocks", JSON_REAL},
    {"kinds[].error.saturated_blocks", JSON_REAL},
};

const page page_quantize = {
    .format = "quern-quantize/1",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .title = title,
    .write = write,
};
