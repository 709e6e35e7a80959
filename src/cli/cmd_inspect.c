/* SPDX-License-Identifier: Apache-2.0 */
#include "quern/tools.h"

#include "commands.h"
#include "inspect_view.h"
#include "progress.h"
#include "report.h"

#include <string.h>
#include <unistd.h>

typedef struct inspect_values {
    cli_common common;
    const char *tokenizer_dir;
    uint64_t n_threads;
    bool lists_tensors, verifies, fixes, as_json;
} inspect_values;

#define INSPECT(field) offsetof(inspect_values, field)

static const cli_option options[] = {
    {"tensors", 0, CLI_FLAG, NULL, INSPECT(lists_tensors), 0, 0, "List every tensor"},
    {"verify", 0, CLI_FLAG, NULL, INSPECT(verifies), 0, 0,
     "Read every byte: find NaN, Inf and scales out of range"},
    {"fix", 0, CLI_FLAG, NULL, INSPECT(fixes), 0, 0,
     "Write config.fixed.json beside config.json, with the list of unquantized modules mended"},
    {"tokenizer", 0, CLI_TEXT, "DIR", INSPECT(tokenizer_dir), 0, 0,
     "Take tokenizer.json from this folder"},
    {"threads", 0, CLI_COUNT, "N", INSPECT(n_threads), 1, 4096,
     "Threads that read (default: one for each CPU granted)"},
    {"json", 0, CLI_FLAG, NULL, INSPECT(as_json), 0, 0, "Print the report as one JSON object"},
};

/* One line for the status that is not 0. */
static int fail_with(const char *name, const json_t *report)
{
    const json_int_t n = json_integer_value(json_object_get(report, "errors"));
    const json_t *const first = json_array_get(json_object_get(report, "problems"), 0);
    return cli_fail(QN_E_FORMAT,
                    "%.200s: %" JSON_INTEGER_FORMAT " error%s, the first %s, none expected", name,
                    n, n == 1 ? "" : "s", json_string_value(json_object_get(first, "code")));
}

static int show(const inspect_values *v, const char *name, const char *text)
{
    json_error_t error;
    json_t *const report = json_loads(text, JSON_ALLOW_NUL, &error);
    if (report == NULL) {
        return error.text[0] == '\0' /* as jansson leaves it without memory */
                   ? cli_fail(QN_E_NOMEM, "report: no memory")
                   : cli_fail(QN_E_FORMAT, "report: %s, JSON expected", error.text);
    }
    if (v->as_json) {
        cli_write(text, strlen(text));
        cli_write("\n", 1);
    } else {
        inspect_view_print(report, name, cli_is_colored(STDOUT_FILENO, v->common.color));
    }
    int status = cli_flush(CLI_DONE);
    if (status == CLI_DONE && !json_is_true(json_object_get(report, "ok"))) {
        status = fail_with(name, report);
    }
    json_decref(report);
    return status;
}

static int run(void *values, int n_arguments, char **arguments)
{
    const inspect_values *v = values;
    qn_error err = {0};
    char *report = NULL;
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "inspect: no model, expected a folder, a file or owner/name");
    }
    cli_progress progress;
    cli_progress_begin(&progress, "weights", "GB", 1e9, v->common.is_quiet);
    const qn_inspect_options o = {.progress = cli_progress_show,
                                  .progress_context = &progress,
                                  .tokenizer_dir = v->tokenizer_dir,
                                  .n_threads = (uint32_t)v->n_threads,
                                  .verifies = v->verifies,
                                  .lists_tensors = v->lists_tensors,
                                  .fixes = v->fixes};
    const qn_status status = qn_inspect(&report, arguments[0], &o, &err);
    cli_progress_end(&progress);
    if (status < 0) {
        return cli_report(&err);
    }
    const int result = show(v, arguments[0], report);
    qn_free(report);
    return result;
}

const cli_command cmd_inspect = {
    .name = "inspect",
    .summary = "Say what a checkpoint is and what is wrong with it",
    .synopsis = "MODEL [--verify] [--fix] [--tensors] [--json]",
    .description =
        "Reads the index, the headers and the configuration of a checkpoint, not its data, and "
        "tells its architecture, size, layers and quantization, as declared and as found, and "
        "every problem with a code that stays the same (docs/inspect.md). An error is what keeps "
        "quern, or SGLang, vLLM or ATOM as they are now, from loading the checkpoint, or makes "
        "what it computes wrong; a warning is everything else that misleads.\n\n"
        "MODEL is a folder, an owner/name found in the local Hugging Face cache, a "
        "model.safetensors.index.json or one *.safetensors file. Shards may end behind their "
        "headers. The exit status is 0 without errors and 3 with.",
    .examples = "quern inspect models/glm-nano\n"
                "quern inspect models/glm-nano --verify --json\n"
                "quern inspect zai-org/GLM-5.2-FP8\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0}, CLI_COMMON_GROUP},
    .n_groups = 2,
    .n_arguments_max = 1,
    .run = run,
};
