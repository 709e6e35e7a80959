/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"
#include "usage.h"

#include <string.h>

typedef struct help_values {
    cli_common common;
    bool as_man;
} help_values;

static const cli_option options[] = {
    {"man", 0, CLI_FLAG, NULL, offsetof(help_values, as_man), 0, 0,
     "Print the page as man(7) source"},
};

static int run(void *values, int n_arguments, char **arguments)
{
    const help_values *v = values;
    /* An empty name stands for the program, so that a build script needs no special case. */
    const bool is_program = n_arguments == 0 || arguments[0][0] == '\0';
    const cli_command *command = is_program ? NULL : cli_command_find(arguments[0]);
    if (!is_program && command == NULL) {
        return cli_unknown_command(arguments[0]);
    }
    /* The kinds of bench are told on one page. */
    if (n_arguments > 1 && (command != &cmd_bench || strcmp(arguments[1], "engine") != 0)) {
        return cli_fail(QN_E_INVAL, "%.64s: one argument too many, expected: quern help %s",
                        arguments[1], arguments[0]);
    }
    if (v->as_man) {
        usage_man(command);
    } else if (is_program) {
        usage_program();
    } else {
        usage_command(command);
    }
    return cli_flush(CLI_DONE);
}

const cli_command cmd_help = {
    .name = "help",
    .summary = "Explain quern or one of its commands",
    .synopsis = "[COMMAND]",
    .description = "Prints the page of a command, or the list of commands.",
    .examples = "quern help run\nquern help --man run | man -l -\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0}, CLI_COMMON_GROUP},
    .n_groups = 2,
    .n_arguments_max = 2,
    .run = run,
};
