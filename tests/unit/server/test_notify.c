/* SPDX-License-Identifier: Apache-2.0 */
#include "server/notify.h"
#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Listen where the service manager would.  @p n_bytes of the name, the first may be NUL. */
static int listen_at(const char *name, size_t n_bytes)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(n_bytes < sizeof address.sun_path);
    memcpy(address.sun_path, name, n_bytes);
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n_bytes)),
                     0);
    return fd;
}

/* A datagram is there as soon as it was sent. */
static void assert_told(int fd, const char *expected)
{
    char bytes[256];
    const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (expected == NULL) {
        assert_int_equal(n, -1);
    } else {
        assert_int_equal(n, strlen(expected));
        assert_memory_equal(bytes, expected, (size_t)n);
    }
}

static void test_path(void **state)
{
    (void)state;
    char folder[] = "/tmp/qn-notify-XXXXXX";
    char path[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/socket", folder);
    const int fd = listen_at(path, strlen(path));
    assert_int_equal(setenv("NOTIFY_SOCKET", path, 1), 0);
    server_notify("READY=1\nSTATUS=serving");
    server_notify("STOPPING=1");
    assert_told(fd, "READY=1\nSTATUS=serving");
    assert_told(fd, "STOPPING=1");
    assert_told(fd, NULL);
    (void)close(fd);
    (void)unlink(path);
    (void)rmdir(folder);
    server_notify("WATCHDOG=1"); /* nobody is there any more */
}

static void test_abstract_socket(void **state)
{
    (void)state;
    char name[64];
    const int len = snprintf(name, sizeof name, "@quern-test-%ld", (long)getpid());
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    name[0] = '\0';
    const int fd = listen_at(name, (size_t)len);
    server_notify("WATCHDOG=1");
    assert_told(fd, "WATCHDOG=1");
    (void)close(fd);
}

/* A manager that does not read does not hold the server. */
static void test_full_socket(void **state)
{
    (void)state;
    char name[64];
    const int len = snprintf(name, sizeof name, "@quern-full-%ld", (long)getpid());
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    name[0] = '\0';
    const int fd = listen_at(name, (size_t)len);
    for (size_t i = 0; i < 10000; i++) {
        server_notify("WATCHDOG=1");
    }
    assert_told(fd, "WATCHDOG=1");
    (void)close(fd);
}

static void test_no_manager(void **state)
{
    (void)state;
    static char too_long[4096];
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[0] = '/';
    const char *const names[] = {"", "/", "relative", "vsock:2:1234", too_long};
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    server_notify("READY=1");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(setenv("NOTIFY_SOCKET", names[i], 1), 0);
        server_notify("READY=1");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_abstract_socket),
        cmocka_unit_test(test_full_socket),
        cmocka_unit_test(test_no_manager),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
