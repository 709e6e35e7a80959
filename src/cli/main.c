/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"
#include "usage.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

const cli_command *const cli_commands[] = {
    &cmd_run, &cmd_tokenize, &cmd_detokenize, &cmd_devices, &cmd_help, NULL,
};

static const char *command_name(const void *list, size_t i)
{
    (void)list;
    return cli_commands[i]->name;
}

static int unknown_command(const char *name)
{
    const char *near =
        cli_nearest(name, command_name, NULL, sizeof cli_commands / sizeof *cli_commands - 1);
    if (near != NULL) {
        return cli_fail(QN_E_INVAL, "%s: no such command, did you mean '%s'?", name, near);
    }
    return cli_fail(QN_E_INVAL, "%.64s: no such command, expected one of those 'quern help' lists",
                    name);
}

static int run_command(const cli_command *command, int argc, char **argv)
{
    _Alignas(max_align_t) unsigned char values[CLI_VALUES_BYTES_MAX] = {0};
    cli_common *common = (cli_common *)(void *)values;
    qn_error err = {0};
    int n_arguments = 0;
    common->log_level = QN_LOG_WARN;
    if (command->init != NULL) {
        command->init(values);
    }
    if (cli_parse(command, values, argc, argv, &n_arguments, &err) < 0) {
        return cli_report(&err);
    }
    if (common->wants_version) {
        usage_version();
        return cli_flush(CLI_DONE);
    }
    if (common->wants_help) {
        command == &cmd_help ? usage_program() : usage_command(command);
        return cli_flush(CLI_DONE);
    }
    qn_log_configure(common->is_quiet ? QN_LOG_ERROR : (qn_log_level)common->log_level,
                     common->log_as_json == 1);
    return command->run(values, n_arguments, argv);
}

int main(int argc, char **argv)
{
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, not a death */
    if (argc < 2) {
        usage_program();
        return cli_flush(CLI_DONE);
    }
    const cli_command *command = cli_command_find(argv[1]);
    if (command != NULL) {
        return run_command(command, argc - 2, argv + 2);
    }
    if (argv[1][0] == '-') { /* quern --help, quern --version */
        return run_command(&cmd_help, argc - 1, argv + 1);
    }
    return unknown_command(argv[1]);
}
