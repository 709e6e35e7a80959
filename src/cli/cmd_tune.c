/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/tools.h"

#include "commands.h"
#include "page.h"
#include "progress.h"
#include "report.h"

#include <string.h>

typedef struct tune_values {
    cli_common common;
    const char *rows, *experts, *out, *device, *tuning;
    int load_format;
    bool is_quick;
} tune_values;

#define TUNE(field) offsetof(tune_values, field)

static const cli_option what_options[] = {
    {"rows", 0, CLI_TEXT, "N,...", TUNE(rows), 0, 0,
     "Rows of a step: powers of two, ascending (default 1,2,4 ... 4096)"},
    {"experts", 0, CLI_TEXT, "bf16|fp8|mxfp4", TUNE(experts), 0, 0,
     "Storage of the experts, with --load-format dummy (default: as config.json declares)"},
    {"quick", 0, CLI_FLAG, NULL, TUNE(is_quick), 0, 0,
     "Fewer launches, and only which kernel, not how its work is cut"},
    {"out", 0, CLI_TEXT, "FILE", TUNE(out), 0, 0, "Write the table here (default: print it)"},
};

/* Of those of commands that load a model, what says which shapes and where. */
static const cli_option model_options[] = {
    {"load-format", 0, CLI_CHOICE, "auto|dummy", TUNE(load_format), 0, 0,
     "dummy: shapes by the configuration; only config.json is needed"},
    {"device", 0, CLI_TEXT, "DEVICE", TUNE(device), 0, 0,
     "Which GPU: auto (the first that can be used), cuda[:N], hip[:N]"},
    {"tuning", 0, CLI_TEXT, "FILE|DIR", TUNE(tuning), 0, 0,
     "Take over what this table has of other shapes; or a folder of tables by device"},
};

static bool write_table(FILE *file, void *context)
{
    return fputs(context, file) >= 0;
}

static qn_status tune(char **table, const tune_values *v, const char *name, qn_error *err)
{
    uint32_t rows[CLI_COUNTS_MAX];
    size_t n_rows = 0;
    char command[512];
    cli_progress progress;
    const qn_model_options model = {
        .device = v->device, .tuning = v->tuning, .use_dummy_weights = v->load_format == 1};
    qn_status status = QN_OK;
    if (v->rows != NULL) {
        status = cli_parse_counts(rows, &n_rows, "--rows", v->rows, 1, QN_TUNE_ROWS_MAX, err);
    }
    if (status == QN_OK && v->out != NULL) {
        status = cli_check_writable(v->out, err);
    }
    if (status < 0) {
        return status;
    }
    cli_show_command(command, sizeof command);
    const qn_tune_options options = {
        .rows = rows,
        .n_rows = n_rows,
        .model = &model,
        .expert_weights = v->experts,
        .command = command,
        .progress = cli_progress_show,
        .progress_context = &progress,
        .is_quick = v->is_quick,
    };
    cli_progress_begin(&progress, "Tuning", "shapes and rows", 1.0, v->common.is_quiet);
    status = qn_tune(table, name, &options, err);
    cli_progress_end(&progress);
    return status;
}

static int run(void *values, int n_arguments, char **arguments)
{
    const tune_values *const v = values;
    qn_error err = {0};
    char *table = NULL;
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "tune: no model, expected a folder or owner/name");
    }
    qn_status status = tune(&table, v, arguments[0], &err);
    if (status == QN_OK && v->out != NULL) {
        status = cli_replace_file(v->out, write_table, table, &err);
    } else if (status == QN_OK) {
        (void)fputs(table, stdout);
    }
    qn_free(table);
    return status < 0 ? cli_report(&err) : cli_flush(CLI_DONE);
}

const cli_command cmd_tune = {
    .name = "tune",
    .summary = "Measure which GPU kernel is fastest for each shape of a model",
    .synopsis = "MODEL [--device cuda:N] [--out FILE] [options]",
    .description =
        "Measures every kernel that can serve a shape of the model, for each number of rows, and "
        "writes the fastest as a table for --tuning of the commands that load a model. No weight "
        "is "
        "read: config.json is enough with --load-format dummy, and one device with memory for the "
        "largest matrix.\n\n"
        "Weights come from memory, not from the L2 cache, as those of decoding do. A kernel whose "
        "results are not those of the portable one does not take part, and is a warning.\n\n"
        "With --tuning FILE, rows of shapes that this model does not have are taken over from that "
        "file, so that a table can serve several models.\n\n"
        "Timings of a GPU that does other work say little.",
    .examples = "quern tune GLM-5.2-MXFP4 --out tuning/NVIDIA_H200.csv\n"
                "quern tune configs/glm-5.2-mxfp4-tp8 --load-format dummy --quick "
                "--rows 1,16,256\n"
                "quern serve GLM-5.2-MXFP4 --device cuda --tuning tuning\n",
    .groups = {{"What is measured", what_options, sizeof what_options / sizeof *what_options, 0},
               {"Model", model_options, sizeof model_options / sizeof *model_options, 0},
               CLI_COMMON_GROUP},
    .n_groups = 3,
    .n_arguments_max = 1,
    .run = run,
};
_Static_assert(sizeof(tune_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");
