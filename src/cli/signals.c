/* SPDX-License-Identifier: Apache-2.0 */
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int g_pipe[2] = {-1, -1}; /* written once, before the handlers are there */

static void on_signal(int number)
{
    const int saved = errno;
    const unsigned char byte = (unsigned char)number;
    (void)!write(g_pipe[1], &byte, 1); /* full: so many wait already that one more says nothing */
    errno = saved;
}

qn_status cli_signals_open(qn_error *err)
{
    static const int told[] = {SIGINT, SIGTSTP, SIGWINCH, SIGTERM, SIGHUP, SIGQUIT};
    if (pipe2(g_pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
        return qn_fail(err, QN_E_IO, errno, __func__, "signals: %s, expected a pipe",
                       strerror(errno));
    }
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        /* The second of those that end a program ends it at once, whatever it does. */
        const bool is_last_word = i >= 3;
        const struct sigaction action = {
            .sa_handler = on_signal,
            .sa_flags = (int)(SA_RESTART | (is_last_word ? SA_RESETHAND : 0U)),
        };
        struct sigaction old;
        if (sigaction(told[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            (void)sigaction(told[i], &action, NULL);
        }
    }
    return QN_OK;
}

int cli_signals_fd(void)
{
    return g_pipe[0];
}

int cli_signals_take(void)
{
    unsigned char byte = 0;
    return read(g_pipe[0], &byte, 1) == 1 ? byte : 0;
}
