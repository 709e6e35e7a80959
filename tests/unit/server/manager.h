/* SPDX-License-Identifier: Apache-2.0 */
/** @file manager.h  A service manager that listens for pings, as systemd does. */
#ifndef QN_TEST_SERVER_MANAGER_H
#define QN_TEST_SERVER_MANAGER_H
#include "support/unit.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Expect pings within 20 ms of this process; returns where they come. */
static inline int manager_listen(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int len =
        snprintf(address.sun_path, sizeof address.sun_path, "@quern-manager-%ld", (long)getpid());
    assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
    assert_int_equal(setenv("WATCHDOG_USEC", "20000", 1), 0);
    address.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len)),
                     0);
    return fd;
}

static inline void manager_close(int fd)
{
    (void)close(fd);
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
}

/* Wait for what is told next: is it @p text? */
static inline bool manager_hears(int fd, const char *text)
{
    enum { LISTEN_MS = 120 * 1000 };
    char bytes[64];
    struct pollfd descriptor = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&descriptor, 1, LISTEN_MS), 1);
    const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    return n == (ssize_t)strlen(text) && memcmp(bytes, text, (size_t)n) == 0;
}

/* Wait for @p text among pings. */
static inline void manager_await(int fd, const char *text)
{
    enum { N_PINGS_MAX = 500 };
    for (size_t i = 0; !manager_hears(fd, text); i++) {
        assert_true(i < N_PINGS_MAX);
    }
}
#endif
