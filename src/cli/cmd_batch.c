/* SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "commands.h"
#include "report.h"

#include <unistd.h>

typedef struct batch_values {
    cli_common common;
    cli_model model;
    cli_engine engine;
    const char *input, *output;
    bool resumes, overwrites, as_json;
} batch_values;

#define BATCH(field) offsetof(batch_values, field)

static const cli_option file_options[] = {
    {"input", 'i', CLI_TEXT, "IN.jsonl", BATCH(input), 0, 0,
     "Requests, one JSON object a line (- for standard input)"},
    {"output", 'o', CLI_TEXT, "OUT.jsonl", BATCH(output), 0, 0,
     "Where the records go (- for standard output)"},
    {"resume", 0, CLI_FLAG, NULL, BATCH(resumes), 0, 0,
     "Go on with the output of a run that was stopped: what it has is not asked again, but for "
     "failures of the machine"},
    {"overwrite", 0, CLI_FLAG, NULL, BATCH(overwrites), 0, 0, "Empty an output file that is there"},
    {"json", 0, CLI_FLAG, NULL, BATCH(as_json), 0, 0, "Print the summary as one JSON object"},
};

static int check_usage(const batch_values *v)
{
    if (v->input == NULL || v->output == NULL) {
        return cli_fail(QN_E_INVAL, "--%s: missing, expected a file",
                        v->input == NULL ? "input" : "output");
    }
    if (v->resumes && v->overwrites) {
        return cli_fail(QN_E_INVAL, "--resume: given with --overwrite, expected one of them");
    }
    const bool is_stdout = v->output[0] == '-' && v->output[1] == '\0';
    if (is_stdout && (v->resumes || v->as_json)) {
        return cli_fail(QN_E_INVAL, "--%s: given with --output -, expected a file",
                        v->resumes ? "resume" : "json");
    }
    return CLI_DONE;
}

static int run(void *values, int n_arguments, char **arguments)
{
    const batch_values *const v = values;
    if (n_arguments == 0) {
        return cli_fail(QN_E_INVAL, "batch: no model, expected a folder or owner/name");
    }
    const int status = check_usage(v);
    if (status != CLI_DONE) {
        return status;
    }
    const batch_options options = {
        .model = arguments[0],
        .load = &v->model,
        .engine = &v->engine,
        .input = v->input,
        .output = v->output,
        .existing = v->resumes      ? BATCH_RESUME
                    : v->overwrites ? BATCH_OVERWRITE
                                    : BATCH_REFUSE,
        .is_quiet = v->common.is_quiet,
        .as_json = v->as_json,
    };
    return batch_run(&options);
}

const cli_command cmd_batch = {
    .name = "batch",
    .summary = "Answer a file of requests, many at once",
    .synopsis = "MODEL -i IN.jsonl -o OUT.jsonl [--resume] [options]",
    .description =
        "Reads OpenAI batch files: each line is an object of custom_id, method (POST), url "
        "(/v1/chat/completions or /v1/completions) and body. Each gets a record of custom_id, "
        "response and error, written when it is done. A line that is wrong, or asks for what is "
        "not built, gets a record that says so, and the rest goes on: the exit status is 0, and "
        "the summary counts the failures. docs/batch.md lists the parameters of a body.\n\n"
        "Requests run many at once and share what prompts have in common; no answer depends on "
        "the others.\n\n"
        "Ctrl-C ends it with status 130. After that, or a crash, --resume goes on: a record is "
        "whole or not there.",
    .examples = "quern batch models/glm-nano -i requests.jsonl -o answers.jsonl\n"
                "quern batch models/glm-nano -i requests.jsonl -o answers.jsonl --resume\n"
                "quern batch models/glm-nano -i - -o - < requests.jsonl > answers.jsonl\n",
    .groups = {{"Files", file_options, sizeof file_options / sizeof *file_options, 0},
               {"Engine", cli_engine_options, CLI_N_ENGINE_OPTIONS, BATCH(engine)},
               {"Model", cli_model_options, CLI_N_MODEL_OPTIONS, BATCH(model)},
               CLI_COMMON_GROUP},
    .n_groups = 4,
    .n_arguments_max = 1,
    .run = run,
};
_Static_assert(sizeof(batch_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");
