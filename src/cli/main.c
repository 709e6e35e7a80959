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
    &cmd_chat, &cmd_run,      &cmd_serve,      &cmd_batch,    &cmd_bench,
    &cmd_eval, &cmd_tokenize, &cmd_detokenize, &cmd_quantize, &cmd_inspect,
    &cmd_tune, &cmd_devices,  &cmd_help,       NULL,
};

static const char *command_word(const void *list, size_t i)
{
    return cli_command_word(((const cli_command *const *)list)[i]);
}

int cli_unknown_command(const cli_command *parent, const char *word)
{
    const cli_command *const *const list = parent == NULL ? cli_commands : parent->kinds;
    const char *const name = parent == NULL ? "" : parent->name;
    const char *const blank = parent == NULL ? "" : " ";
    size_t n = 0;
    while (list[n] != NULL) {
        n++;
    }
    const char *near = cli_nearest(word, command_word, list, n);
    if (near != NULL) {
        return cli_fail(QN_E_INVAL, "%s%s%.64s: no such command, did you mean '%s%s%s'?", name,
                        blank, word, name, blank, near);
    }
    return cli_fail(QN_E_INVAL,
                    "%s%s%.64s: no such command, expected one of those 'quern help%s%s' lists",
                    name, blank, word, blank, name);
}

/* Take the word that names a command of the list out of the arguments: the first, or where options
 * come first (quern -q run MODEL), the first that is such a name.  NULL: there is none. */
static const cli_command *take_word(const cli_command *const *list, int *argc, char **argv)
{
    for (int i = 0; i < *argc; i++) {
        const cli_command *const command = cli_command_find(list, argv[i]);
        if (command != NULL) {
            (*argc)--;
            memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof(char *));
            return command;
        }
        if (argv[0][0] != '-') {
            return NULL;
        }
    }
    return NULL;
}

/* @p command NULL: none was named, so that --help means the program's page. */
static int run_command(const cli_command *command, int argc, char **argv)
{
    const bool is_program = command == NULL;
    command = is_program ? &cmd_help : command;
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
    argc--, argv++;
    const cli_command *command = NULL;
    for (const cli_command *const *list = cli_commands; list != NULL; list = command->kinds) {
        const cli_command *const found = take_word(list, &argc, argv);
        if (found == NULL && argc > 0 && argv[0][0] != '-') {
            return cli_unknown_command(command, argv[0]);
        }
        if (found == NULL) {
            break;
        }
        command = found;
    }
    return run_command(command, argc, argv);
}
