/* SPDX-License-Identifier: Apache-2.0 */
#include "report/pages.h"

#include <stdio.h>

static void title(char *out, size_t out_bytes, const json_t *result)
{
    (void)snprintf(out, out_bytes, "Kernels of %.100s on %.100s",
                   field_text_or(result, "model", "a model"),
                   field_text_or(result, "client.cpu", "a machine"));
}

/* "matmul bf16, 256 to 128" */
static void show_name(char out[PLOT_LABEL_BYTES], const json_t *kernel)
{
    const double n_in = field_number(kernel, "n_in");
    const double n_out = field_number(kernel, "n_out");
    char shape[PLOT_LABEL_BYTES] = "";
    if (n_in > 0.0 && n_out > 0.0) {
        (void)snprintf(shape, sizeof shape, ", %.9g to %.9g", n_in, n_out);
    }
    (void)snprintf(out, PLOT_LABEL_BYTES, "%.14s %.8s%.24s",
                   field_text_or(kernel, "operation", "?"), field_text_or(kernel, "weights", ""),
                   shape);
    qn_text_clean(out);
}

/* The series of the plot that has this number of rows; PLOT_SERIES_MAX: none has. */
static size_t series_of(const double *rows, size_t n, double n_rows)
{
    for (size_t i = 0; i < n; i++) {
        if (rows[i] == n_rows) {
            return i;
        }
    }
    return PLOT_SERIES_MAX;
}

/* A row of the plot for each kernel, a series for each number of rows. */
static void draw_shares(sheet *s, const json_t *kernels)
{
    plot p = {.title = "Time that the machine's limit allows, by the time taken",
              .x_label = "% of the nearer limit"};
    double rows[PLOT_SERIES_MAX];
    size_t n_series = 0;
    char last[PLOT_LABEL_BYTES] = "";
    plot_init(&p);
    for (size_t i = 0; i < json_array_size(kernels) && n_series < PLOT_SERIES_MAX; i++) {
        const double n_rows = field_number(json_array_get(kernels, i), "n_rows");
        char name[PLOT_LABEL_BYTES];
        if (series_of(rows, n_series, n_rows) == PLOT_SERIES_MAX && isfinite(n_rows)) {
            rows[n_series] = n_rows;
            (void)snprintf(name, sizeof name, "%s row%s", figure_count(n_rows).text,
                           n_rows == 1.0 ? "" : "s");
            plot_begin(&p, name, PLOT_INTERVAL,
                       (plot_color)(PLOT_BLUE + n_series % (PLOT_BROWN - PLOT_BLUE + 1)));
            n_series++;
        }
    }
    for (size_t i = 0; i < json_array_size(kernels); i++) {
        const json_t *const kernel = json_array_get(kernels, i);
        const double share = 100.0 * field_number(kernel, "limit_share");
        char name[PLOT_LABEL_BYTES];
        show_name(name, kernel);
        if (isfinite(share) && strcmp(name, last) != 0) {
            plot_row(&p, name);
            memcpy(last, name, sizeof last);
        }
        sheet_try(s, plot_add_at_row(&p, series_of(rows, n_series, field_number(kernel, "n_rows")),
                                     share, share, share, s->err));
    }
    sheet_plot(s, &p);
}

static void write_kernels(sheet *s, const json_t *kernels)
{
    static const sheet_column columns[] = {
        {"Kernel", NULL, true},       {"Variant", NULL, true},      {"Made of", NULL, true},
        {"Rows", NULL, false},        {"Uses", NULL, false},        {"Median", "us", false},
        {"Least", "us", false},       {"Reads", "GB/s", false},     {"Computes", "Gop/s", false},
        {"Nearer limit", NULL, true}, {"Share of it", NULL, false},
    };
    sheet_table(s, NULL, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < json_array_size(kernels); i++) {
        const json_t *const kernel = json_array_get(kernels, i);
        char name[PLOT_LABEL_BYTES];
        show_name(name, kernel);
        sheet_row(s, SHEET_PLAIN);
        sheet_cell(s, "%s", name);
        sheet_cell(s, "%s", field_text_or(kernel, "variant", FIGURE_DASH));
        sheet_cell(s, "%s", field_text_or(kernel, "activations", FIGURE_DASH));
        sheet_cell(s, "%s", figure_count(field_number(kernel, "n_rows")).text);
        sheet_cell(s, "%s",
                   field_number(kernel, "n_uses") > 0.0
                       ? figure_count(field_number(kernel, "n_uses")).text
                       : FIGURE_DASH);
        sheet_number(s, 1e6 * field_number(kernel, "median_s"));
        sheet_number(s, 1e6 * field_number(kernel, "min_s"));
        sheet_number(s, 1e-9 * field_number(kernel, "bytes_per_s"));
        sheet_number(s, 1e-9 * field_number(kernel, "ops_per_s"));
        sheet_cell(s, "%s", field_text_or(kernel, "limit", FIGURE_DASH));
        sheet_cell(s, "%s", figure_percent(field_number(kernel, "limit_share")).text);
    }
    sheet_table_end(s);
}

static void write_limit(sheet *s, const json_t *result, const char *name, const char *rate,
                        const char *instruction)
{
    const double per_s = field_number(result, rate);
    if (isfinite(per_s)) {
        sheet_fact(s, name, "%s Gop/s (%s)", figure_of(1e-9 * per_s).text,
                   field_text_or(result, instruction, FIGURE_DASH));
    }
}

static void write(sheet *s, const json_t *result)
{
    const json_t *const kernels = field_at(result, "kernels");
    char heading[256];
    title(heading, sizeof heading, result);
    qn_text_clean(heading);
    sheet_title(s, heading, "How near each comes to what the machine allows");
    page_command(s, result);
    sheet_facts(s);
    page_fact(s, "Machine", result, "client.cpu");
    page_fact(s, "Threads", result, "n_threads");
    page_fact(s, "Kernels", result, "kernels_level");
    page_fact(s, "Arithmetic", result, "compute");
    page_fact(s, "Cache rows", result, "kv_dtype");
    page_fact(s, "Positions seen", result, "context_tokens");
    page_fact(s, "Weights", result, "weights");
    sheet_fact(s, "Reading memory", "%s GB/s",
               figure_of(1e-9 * field_number(result, "limits.read_bytes_per_s")).text);
    write_limit(s, result, "f32", "limits.f32_ops_per_s", "limits.f32_instruction");
    write_limit(s, result, "bf16", "limits.bf16_ops_per_s", "limits.bf16_instruction");
    write_limit(s, result, "int8", "limits.int8_ops_per_s", "limits.int8_instruction");
    page_made_by(s, result);
    sheet_facts_end(s);
    sheet_section(s, "Times");
    sheet_plots(s);
    draw_shares(s, kernels);
    sheet_plots_end(s);
    write_kernels(s, kernels);
    sheet_paragraph(s, "Limits are measured just before, on the same threads: reading memory, and "
                       "dot products in registers. A multiplication and an addition are two "
                       "operations. What fits into a cache can be above the limit of memory.");
}

static const field fields[] = {
    {"command", JSON_STRING},
    {"model", JSON_STRING},
    {"client.cpu", JSON_STRING},
    {"tool.version", JSON_STRING},
    {"tool.commit", JSON_STRING},
    {"date_utc", JSON_STRING},
    {"limits.read_bytes_per_s", JSON_REAL},
    {"limits.f32_ops_per_s", JSON_REAL},
    {"limits.f32_instruction", JSON_STRING},
    {"limits.bf16_ops_per_s", JSON_REAL},
    {"limits.bf16_instruction", JSON_STRING},
    {"limits.int8_ops_per_s", JSON_REAL},
    {"limits.int8_instruction", JSON_STRING},
    {"kernels[].operation", JSON_STRING},
    {"kernels[].weights", JSON_STRING},
    {"kernels[].variant", JSON_STRING},
    {"kernels[].activations", JSON_STRING},
    {"kernels[].n_in", JSON_REAL},
    {"kernels[].n_out", JSON_REAL},
    {"kernels[].n_uses", JSON_REAL},
    {"kernels[].n_rows", JSON_REAL},
    {"kernels[].median_s", JSON_REAL},
    {"kernels[].min_s", JSON_REAL},
    {"kernels[].bytes_per_s", JSON_REAL},
    {"kernels[].ops_per_s", JSON_REAL},
    {"kernels[].limit", JSON_STRING},
    {"kernels[].limit_share", JSON_REAL},
};

const page page_kernels = {
    .format = "quern-bench-kernels/1",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
    .title = title,
    .write = write,
};
