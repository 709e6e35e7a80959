/* SPDX-License-Identifier: Apache-2.0 */
#include "report/gnuplot.h"

#include "base/clock.h"
#include "base/try.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK_BYTES = 1 << 16, LIMIT_S = 10 };

/* A file without a name that holds the script, to be read from its beginning; -1 without. */
static int hold(qn_str script)
{
    const int fd = memfd_create("gnuplot", MFD_CLOEXEC);
    size_t at = 0;
    while (fd >= 0 && at < script.len) {
        const ssize_t n = write(fd, script.ptr + at, script.len - at);
        if (n < 0 && errno != EINTR) {
            (void)close(fd);
            return -1;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0) {
        (void)lseek(fd, 0, SEEK_SET);
    }
    return fd;
}

/* Start it with these as standard input and output; its complaints go nowhere.  0 or an errno. */
static int start(pid_t *pid, int in, int out)
{
    /* -d: no ~/.gnuplot, which could be anything. */
    char *const arguments[] = {(char[]){"gnuplot"}, (char[]){"-d"}, NULL};
    posix_spawn_file_actions_t actions;
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed != 0) {
        return failed;
    }
    failed = posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    if (failed == 0) {
        failed = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    }
    if (failed == 0) {
        failed =
            posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    }
    if (failed == 0) {
        failed = posix_spawnp(pid, "gnuplot", &actions, NULL, arguments, environ);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

/* All that it prints.  *is_whole: it closed its end in time. */
static qn_status read_all(qn_buf *out, int fd, bool *is_whole, qn_error *err)
{
    const uint64_t begun_ns = qn_clock_ns();
    qn_status status = QN_OK;
    *is_whole = false;
    for (;;) {
        const double left_s = LIMIT_S - qn_clock_seconds(begun_ns, qn_clock_ns());
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        const int n_ready = left_s > 0.0 ? poll(&ready, 1, (int)(left_s * 1e3) + 1) : 0;
        if (n_ready == 0 || (n_ready < 0 && errno != EINTR) ||
            out->bytes_max - out->len < CHUNK_BYTES) {
            return QN_OK; /* no plot is so large */
        }
        if (n_ready < 0) {
            continue;
        }
        QN_TRY(status, qn_buf_reserve(out, CHUNK_BYTES, err), fail);
        const ssize_t n = read(fd, out->ptr + out->len, CHUNK_BYTES);
        if (n == 0) {
            *is_whole = true;
            return QN_OK;
        }
        if (n > 0) {
            out->len += (size_t)n;
            out->ptr[out->len] = '\0';
        } else if (errno != EINTR) {
            return QN_OK;
        }
    }
fail:
    return status;
}

static int await(pid_t pid)
{
    int ended = 0;
    while (waitpid(pid, &ended, 0) < 0 && errno == EINTR) {
    }
    return ended;
}

qn_status gnuplot_run(qn_buf *out, qn_str script, char *why, size_t why_bytes, qn_error *err)
{
    qn_status status = QN_OK;
    int ends[2] = {-1, -1};
    pid_t pid = 0;
    bool is_whole = false;
    const int in = hold(script);
    const bool has_pipe = in >= 0 && pipe2(ends, O_CLOEXEC) == 0;
    const int failed = has_pipe ? start(&pid, in, ends[1]) : errno;
    why[0] = '\0';
    if (in >= 0) {
        (void)close(in);
    }
    if (has_pipe) {
        (void)close(ends[1]);
    }
    if (failed != 0) {
        (void)snprintf(why, why_bytes, "gnuplot %s",
                       failed == ENOENT ? "is not installed" : "could not be started");
    } else {
        status = read_all(out, ends[0], &is_whole, err);
        if (!is_whole) {
            (void)kill(pid, SIGKILL);
        }
        const int ended = await(pid);
        if (status == QN_OK && !(is_whole && WIFEXITED(ended) && WEXITSTATUS(ended) == 0)) {
            (void)snprintf(why, why_bytes, "gnuplot %s", is_whole ? "failed" : "did not end");
        }
    }
    if (has_pipe) {
        (void)close(ends[0]);
    }
    return status;
}
