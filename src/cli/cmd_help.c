/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"
#include "usage.h"

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
    const cli_command *command = NULL;
    const cli_command *const *list = cli_commands;
    for (int i = 0; i < n_arguments && !is_program; i++) {
        if (list == NULL) {
            return cli_fail(QN_E_INVAL, "%.64s: one argument too many, expected: quern help %s",
                            arguments[i], command->name);
        }
        const cli_command *const found = cli_command_find(list, arguments[i]);
        if (found == NULL) {
            return cli_unknown_command(command, arguments[i]);
        }
        command = found;
        list = command->kinds;
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
    .synopsis = "[COMMAND [KIND]]",
    .description = "Prints the page of a command, or the list of commands.",
    .examples = "quern help run\nquern help bench engine\nquern help --man run | man -l -\n",
    .groups = {{"Options", options, sizeof options / sizeof *options, 0}, CLI_COMMON_GROUP},
    .n_groups = 2,
    .n_arguments_max = 3,
    .run = run,
};
