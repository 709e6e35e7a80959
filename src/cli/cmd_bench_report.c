/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"
#include "bench_output.h"
#include "commands.h"
#include "report.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>

typedef struct report_values {
    cli_common common;
    const char *output;
} report_values;

enum { RESULT_BYTES_MAX = 64 << 20 };

static const cli_option options[] = {
    {"output", 0, CLI_TEXT, "DIR", offsetof(report_values, output), 0, 0,
     "Write the pages into this folder, which is made (default: beside the result)"},
};

/* The file of a result, and the folder that it lies in. */
static qn_status find_result(char file[PATH_MAX], char folder[PATH_MAX], const char *name,
                             qn_error *err)
{
    static const char *const names[] = {"result.json", "compare.json"};
    struct stat there;
    const size_t len = strlen(name);
    if (len == 0 || len > PATH_MAX - 32) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "\"%.64s\": %zu bytes, expected the name of a result", name, len);
    }
    if (stat(name, &there) != 0 || !S_ISDIR(there.st_mode)) {
        const char *const slash = strrchr(name, '/');
        (void)snprintf(file, PATH_MAX, "%s", name);
        (void)snprintf(folder, PATH_MAX, "%.*s", slash == NULL ? 1 : (int)(slash - name + 1),
                       slash == NULL ? "." : name);
        return QN_OK;
    }
    (void)snprintf(folder, PATH_MAX, "%s", name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        (void)snprintf(file, PATH_MAX, "%s/%s", name, names[i]);
        if (stat(file, &there) == 0) {
            return QN_OK;
        }
    }
    return qn_fail(err, QN_E_NOT_FOUND, 0, __func__,
                   "%.256s: no result.json and no compare.json, expected one of them", name);
}

static int run(void *values, int n_arguments, char **arguments)
{
    const report_values *const v = values;
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "bench report: no result, expected its folder or file");
    }
    qn_error err = {0};
    char file[PATH_MAX], folder[PATH_MAX];
    json_t *result = NULL;
    qn_status status = find_result(file, folder, arguments[0], &err);
    if (status == QN_OK) {
        status = qn_json_load(&result, file, RESULT_BYTES_MAX, &err);
    }
    const char *const to = v->output == NULL ? folder : v->output;
    if (status == QN_OK) {
        status = bench_output_open(to, &err);
    }
    if (status == QN_OK) {
        status = bench_output_write(to, NULL, result, &err);
    }
    const bool is_read = result != NULL;
    json_decref(result);
    if (status == QN_E_FORMAT && is_read) { /* found in what was read: say where it stands */
        return cli_fail(status, "%.300s: %s", file, err.text);
    }
    return status < 0 ? cli_report(&err) : CLI_DONE;
}

const cli_command cmd_bench_report = {
    .name = "bench report",
    .summary = "Write report.html and report.md of a stored result",
    .synopsis = "DIR|FILE [--output DIR]",
    .description = "All that a report says stands in its result.json (of bench engine, serve and "
                   "kernels), compare.json (of bench compare), or in what eval and quantize write "
                   "with --report. The same result makes the same pages again, on any machine.",
    .examples = "quern bench report build/result\n"
                "quern bench report build/result/result.json --output pages\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0}, CLI_COMMON_GROUP},
    .n_groups = 2,
    .n_arguments_max = 1,
    .run = run,
};
_Static_assert(sizeof(report_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");
