/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/tools.h"

#include "base/json.h"
#include "bench/put.h"
#include "bench/watch.h"
#include "bench_output.h"
#include "commands.h"
#include "page.h"
#include "progress.h"
#include "report.h"

#include <math.h>
#include <string.h>

typedef struct kernels_values {
    cli_common common;
    cli_model model;
    const char *rows, *experts, *output;
    uint64_t context;
    bool as_json;
} kernels_values;

#define KERNELS(field) offsetof(kernels_values, field)

static const cli_option what_options[] = {
    {"rows", 0, CLI_TEXT, "N,...", KERNELS(rows), 0, 0,
     "Rows of a call: tokens that a step computes at once (default 1,16)"},
    {"context", 0, CLI_COUNT, "N", KERNELS(context), 1, 1 << 24,
     "Positions that attention and indexer see (default 4096, or the model's)"},
    {"experts", 0, CLI_TEXT, "bf16|fp8|mxfp4", KERNELS(experts), 0, 0,
     "Storage of the experts, with --load-format dummy (default bf16)"},
};

static const cli_option output_options[] = {
    {"json", 0, CLI_FLAG, NULL, KERNELS(as_json), 0, 0, "Print one JSON object"},
    {"output", 0, CLI_TEXT, "DIR", KERNELS(output), 0, 0,
     "Write result.json, report.md and report.html into this folder, which is made"},
};

/* Without --strict, the last: kernels that are not made for the machine are timed as they are. */
enum { N_MODEL_OPTIONS = CLI_N_MODEL_OPTIONS - 1 };

static void init(void *values)
{
    kernels_values *const v = values;
    v->rows = "1,16";
}

/* Who measured, when and where, beside what the library has measured. */
static qn_status complete(json_t *result, qn_error *err)
{
    bool failed = false;
    put(result, "client", bench_machine_json(), &failed);
    return failed ? qn_fail(err, QN_E_NOMEM, 0, __func__, "result: no memory")
                  : cli_sign(result, err);
}

static qn_status measure(json_t **out, const kernels_values *v, const char *name, qn_error *err)
{
    uint32_t rows[CLI_COUNTS_MAX];
    size_t n_rows = 0;
    char *text = NULL;
    cli_progress progress;
    qn_model_options model = {0};
    qn_status status =
        cli_parse_counts(rows, &n_rows, "--rows", v->rows, 1, QN_BENCH_ROWS_MAX, err);
    if (status == QN_OK && v->output != NULL) {
        status = bench_output_open(v->output, err);
    }
    if (status < 0) {
        return status;
    }
    cli_model_fill(&model, &v->model);
    const qn_bench_kernels_options options = {
        .rows = rows,
        .n_rows = n_rows,
        .model = &model,
        .expert_weights = v->experts,
        .progress = cli_progress_show,
        .progress_context = &progress,
        .context_tokens = (uint32_t)v->context,
    };
    cli_progress_begin(&progress, "Timing", "kernels", 1.0, v->common.is_quiet);
    status = qn_bench_kernels(&text, name, &options, err);
    cli_progress_end(&progress);
    if (status == QN_OK) {
        const qn_str json = {text, strlen(text)};
        status = qn_json_parse(out, json, "timings", err);
    }
    qn_free(text);
    return status == QN_OK ? complete(*out, err) : status;
}

/* ----------------------------------------------------------------------------------- the table */

static void print_limits(FILE *file, const json_t *result)
{
    const json_t *const limits = json_object_get(result, "limits");
    (void)fprintf(
        file,
        "%s on %s: %g threads, compute %s, cache %s, context %g\n"
        "Limits, measured now: reading %.1f GB/s; f32 %.1f GFLOP/s (%s), bf16 %.1f GFLOP/s "
        "(%s), int8 %.1f GOP/s (%s)\n\n",
        qn_json_text(result, "model"), qn_json_text(json_object_get(result, "client"), "cpu"),
        qn_json_number(result, "n_threads"), qn_json_text(result, "compute"),
        qn_json_text(result, "kv_dtype"), qn_json_number(result, "context_tokens"),
        qn_json_number(limits, "read_bytes_per_s") * 1e-9,
        qn_json_number(limits, "f32_ops_per_s") * 1e-9, qn_json_text(limits, "f32_instruction"),
        qn_json_number(limits, "bf16_ops_per_s") * 1e-9, qn_json_text(limits, "bf16_instruction"),
        qn_json_number(limits, "int8_ops_per_s") * 1e-9, qn_json_text(limits, "int8_instruction"));
}

static void print_row(FILE *file, const json_t *row)
{
    char shape[32] = "";
    char ops[32] = "-";
    char share[64] = "-";
    const double n_out = qn_json_number(row, "n_out");
    if (n_out > 0) {
        (void)snprintf(shape, sizeof shape, "%g x %g", n_out, qn_json_number(row, "n_in"));
    } else {
        (void)snprintf(shape, sizeof shape, "%g", qn_json_number(row, "n_in"));
    }
    if (isfinite(qn_json_number(row, "ops_per_s"))) {
        (void)snprintf(ops, sizeof ops, "%.2f", qn_json_number(row, "ops_per_s") * 1e-9);
    }
    if (isfinite(qn_json_number(row, "limit_share"))) {
        (void)snprintf(share, sizeof share, "%.1f %% of %s",
                       100 * qn_json_number(row, "limit_share"), qn_json_text(row, "limit"));
    }
    (void)fprintf(file, "%-12s %-6s %-11s %15s %5g %12.2f %9.2f %10s  %s\n",
                  qn_json_text(row, "operation"), qn_json_text(row, "weights"),
                  qn_json_text(row, "variant"), shape, qn_json_number(row, "n_rows"),
                  qn_json_number(row, "median_s") * 1e6, qn_json_number(row, "bytes_per_s") * 1e-9,
                  ops, share);
}

static void print_table(FILE *file, const json_t *result)
{
    const json_t *row;
    size_t i;
    print_limits(file, result);
    (void)fprintf(file, "%-12s %-6s %-11s %15s %5s %12s %9s %10s  %s\n", "kernel", "data",
                  "variant", "outputs x inputs", "rows", "us (median)", "GB/s", "GFLOP/s",
                  "share of the limit");
    json_array_foreach(json_object_get(result, "kernels"), i, row)
    {
        print_row(file, row);
    }
}

static int run(void *values, int n_arguments, char **arguments)
{
    const kernels_values *const v = values;
    qn_error err = {0};
    json_t *result = NULL;
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "bench kernels: no model, expected a folder or owner/name");
    }
    qn_status status = measure(&result, v, arguments[0], &err);
    if (status == QN_OK && v->output != NULL) {
        status = bench_output_write(v->output, "result.json", result, &err);
    }
    if (status < 0) {
        json_decref(result);
        return cli_report(&err);
    }
    if (v->as_json) {
        return cli_print_json(result);
    }
    print_table(stdout, result);
    json_decref(result);
    return cli_flush(CLI_DONE);
}

const cli_command cmd_bench_kernels = {
    .name = "bench kernels",
    .summary = "Each kernel of a model beside what this machine can at most",
    .synopsis = "MODEL [--rows N,...] [--threads N] [options]",
    .description =
        "Times every kernel that serves a model with the model's shapes, for each number of rows: "
        "the median of up to 15 samples. Weights of products come from "
        "memory, not from a cache, as those of decoding do. The limits are measured just before, "
        "on the same threads: reading memory, and dot products in registers; a kernel's share is "
        "the time that the nearer limit allows by the time it took. Kernels that only move "
        "numbers have none.\n\n"
        "With --load-format dummy a config.json is enough, and no weights are made: also of models "
        "that this machine could not hold.\n\n"
        "Timings of a machine that does other work say little.",
    .examples = "quern bench kernels models/glm-nano --rows 1,16,128\n"
                "quern bench kernels configs/glm-5.2-tp8 --load-format dummy --experts mxfp4 "
                "--rows 1 --output build/kernels\n",
    .groups = {{"What is measured", what_options, sizeof what_options / sizeof *what_options, 0},
               {"Output", output_options, sizeof output_options / sizeof *output_options, 0},
               {"Model", cli_model_options, N_MODEL_OPTIONS, KERNELS(model)},
               CLI_COMMON_GROUP},
    .n_groups = 4,
    .n_arguments_max = 1,
    .init = init,
    .run = run,
};
_Static_assert(sizeof(kernels_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");
