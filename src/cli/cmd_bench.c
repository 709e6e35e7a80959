/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"

/* One line each: the order of help. */
static const cli_command *const kinds[] = {
    &cmd_bench_serve,   &cmd_bench_engine, &cmd_bench_compare,
    &cmd_bench_kernels, &cmd_bench_report, NULL,
};

static int run(void *values, int n_arguments, char **arguments)
{
    (void)values, (void)n_arguments, (void)arguments;
    char names[128];
    size_t used = 0;
    for (size_t i = 0; kinds[i] != NULL; i++) {
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                 i == 0                 ? ""
                                 : kinds[i + 1] != NULL ? ", "
                                                        : " or ",
                                 cli_command_word(kinds[i]));
    }
    return cli_fail(QN_E_INVAL, "bench: no kind, expected %s; 'quern help bench' explains them",
                    names);
}

const cli_command cmd_bench = {
    .name = "bench",
    .summary = "Measure how fast a model or a server is, and report it",
    .synopsis = "KIND [options] [arguments]",
    .description = "Each kind of measurement has options and a page of its own: 'quern help bench "
                   "engine'.\n\nTimings of a machine that does other work say little.",
    .examples = "quern bench engine models/glm-nano --batch 1,8 --context 0,512\n"
                "quern bench report build/result\n",
    .groups = {CLI_COMMON_GROUP},
    .n_groups = 1,
    .kinds = kinds,
    .run = run,
};
