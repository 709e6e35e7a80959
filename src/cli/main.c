/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "report.h"
#include "usage.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const cli_command *const cli_commands[] = {
    &cmd_chat,     &cmd_run,        &cmd_serve,    &cmd_batch,   &cmd_bench,   &cmd_eval,
    &cmd_tokenize, &cmd_detokenize, &cmd_quantize, &cmd_inspect, &cmd_devices, &cmd_help,
    NULL,
};

static const char *command_name(const void *list, size_t i)
{
    (void)list;
    return cli_commands[i]->name;
}

int cli_unknown_command(const char *name)
{
    size_t n = 0;
    while (cli_commands[n] != NULL) {
        n++;
    }
    const char *near = cli_nearest(name, command_name, NULL, n);
    if (near != NULL) {
        return cli_fail(QN_E_INVAL, "%s: no such command, did you mean '%s'?", name, near);
    }
    return cli_fail(QN_E_INVAL, "%.64s: no such command, expected one of those 'quern help' lists",
                    name);
}

/* @p is_program: no command was named, so that --help means the program's page. */
static int run_command(const cli_command *command, bool is_program, int argc, char **argv)
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
        is_program ? usage_program() : usage_command(command);
        return cli_flush(CLI_DONE);
    }
    qn_log_configure(common->is_quiet ? QN_LOG_ERROR : (qn_log_level)common->log_level,
                     common->log_as_json == 1);
    return command->run(values, n_arguments, argv);
}

/* Another file must not take the place of a standard stream that is closed: a stream that cannot be
 * read or written stands there instead. */
static void keep_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        }
    }
}

int main(int argc, char **argv)
{
    keep_standard_streams();
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    /* A closed pipe or a file beyond its limit is a failed write, not a death. */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        usage_program();
        return cli_flush(CLI_DONE);
    }
    cli_catch_interrupt();
    if (argv[1][0] != '-') {
        const cli_command *command = cli_command_find(argv[1]);
        return command != NULL ? run_command(command, false, argc - 2, argv + 2)
                               : cli_unknown_command(argv[1]);
    }
    /* quern --help, quern --version, and options before the command: quern -q run MODEL */
    for (int i = 2; i < argc; i++) {
        const cli_command *command = cli_command_find(argv[i]);
        if (command != NULL) {
            memmove(argv + 2, argv + 1, (size_t)(i - 1) * sizeof(char *));
            return run_command(command, false, argc - 2, argv + 2);
        }
    }
    return run_command(&cmd_help, true, argc - 1, argv + 1);
}
