/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/compare.h"
#include "bench_output.h"
#include "commands.h"
#include "compare_table.h"
#include "report.h"

#include <string.h>

typedef struct compare_values {
    cli_common common;
    const char *allow, *output;
    uint64_t n_resamples, seed;
    double confidence;
    bool forces, as_json;
} compare_values;

#define COMPARE(field) offsetof(compare_values, field)

static const cli_option options[] = {
    {"allow", 0, CLI_TEXT, "KIND,...", COMPARE(allow), 0, 0,
     "Compare although these differ, and say so: machine, workload, load, api, invalid, partial"},
    {"force", 0, CLI_FLAG, NULL, COMPARE(forces), 0, 0, "All of them"},
    {"confidence", 0, CLI_NUMBER, "X", COMPARE(confidence), 0.5, 0.999,
     "Of the intervals (default 0.95)"},
    {"resamples", 0, CLI_COUNT, "N", COMPARE(n_resamples), 2000, 100000,
     "Of the bootstrap (default 4000)"},
    {"seed", 0, CLI_COUNT, "N", COMPARE(seed), 0, 0x1p53 - 1, "Of the bootstrap (default 1)"},
    {"json", 0, CLI_FLAG, NULL, COMPARE(as_json), 0, 0, "Print one JSON object"},
    {"output", 0, CLI_TEXT, "DIR", COMPARE(output), 0, 0,
     "Write compare.json, report.md and report.html into this folder, which is made"},
};

static void init(void *values)
{
    compare_values *const v = values;
    v->n_resamples = 4000;
    v->seed = 1;
    v->confidence = 0.95;
}

static qn_status read_kinds(bool allows[COMPARE_N_KINDS], const compare_values *v, qn_error *err)
{
    for (const char *at = v->allow == NULL ? "" : v->allow; *at != '\0';) {
        const size_t len = strcspn(at, ",");
        int kind = 0;
        while (kind < COMPARE_N_KINDS &&
               (strlen(compare_kind_name((compare_kind)kind)) != len ||
                strncmp(compare_kind_name((compare_kind)kind), at, len) != 0)) {
            kind++;
        }
        if (kind == COMPARE_N_KINDS) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "--allow: \"%.64s\", expected machine, workload, load, api, invalid or "
                           "partial, separated by commas",
                           v->allow);
        }
        allows[kind] = true;
        at += len + (at[len] == ',' ? 1 : 0);
    }
    for (int kind = 0; kind < COMPARE_N_KINDS && v->forces; kind++) {
        allows[kind] = true;
    }
    return QN_OK;
}

static qn_status compare(json_t **out, const compare_values *v, char **paths, qn_error *err)
{
    compare_side sides[2] = {{0}, {0}};
    char command[4096];
    cli_show_command(command, sizeof command);
    compare_options how = {
        .command = command,
        .bootstrap = {(uint32_t)v->n_resamples, v->confidence, v->seed},
    };
    qn_status status = read_kinds(how.allows, v, err);
    for (size_t i = 0; i < 2 && status == QN_OK; i++) {
        status = compare_open(&sides[i], paths[i], err);
    }
    if (status == QN_OK && v->output != NULL) {
        status = bench_output_open(v->output, err);
    }
    if (status == QN_OK) {
        status = compare_json(out, &sides[0], &sides[1], &how, err);
    }
    if (status == QN_OK && v->output != NULL) {
        status = bench_output_write(v->output, "compare.json", *out, err);
    }
    compare_close(&sides[0]);
    compare_close(&sides[1]);
    return status;
}

static int run(void *values, int n_arguments, char **arguments)
{
    const compare_values *const v = values;
    qn_error err = {0};
    json_t *comparison = NULL;
    if (n_arguments < 2) {
        return cli_fail(QN_E_INVAL, "bench compare: %d results, expected two", n_arguments);
    }
    if (compare(&comparison, v, arguments, &err) < 0) {
        json_decref(comparison);
        return cli_report(&err);
    }
    if (v->as_json) {
        return cli_print_json(comparison);
    }
    compare_table(stdout, comparison);
    json_decref(comparison);
    return cli_flush(CLI_DONE);
}

const cli_command cmd_bench_compare = {
    .name = "bench compare",
    .summary = "Two results of bench serve: ratios with intervals, request by request",
    .synopsis = "A B [--allow KIND,...] [--output DIR] [options]",
    .description =
        "A and B are folders with result.json and requests.jsonl. Loads that both have are "
        "compared: requests of the same id that succeeded in both are paired (the same workload "
        "and seed make prompts of the same lengths, with the same --salt the same prompts), and "
        "their ratios and differences get intervals by "
        "bootstrap. With repeats it is runs that are drawn again, and then their requests: "
        "requests of one run wait for each other, so that their number alone says too little. "
        "Throughputs are medians of the repeats, with the least and greatest ratio.\n\n"
        "Results of different machines, workloads, loads or APIs, and those that are partial or "
        "not valid, are refused. --allow and --force compare them all the same; then every output "
        "says so first. Servers, models and quantizations may differ: they are what is compared.",
    .examples = "quern bench compare build/before build/after\n"
                "quern bench compare build/one build/other --allow machine --output build/both\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0}, CLI_COMMON_GROUP},
    .n_groups = 2,
    .n_arguments_max = 2,
    .init = init,
    .run = run,
};
_Static_assert(sizeof(compare_values) <= CLI_VALUES_BYTES_MAX, "main() holds the values");
