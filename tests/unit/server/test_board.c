/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_engine.h"
#include "server/board.h"
#include "server/worker.h"
#include "support/fail_alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MS = 120 * 1000, OUTPUT_BYTES = 8192 };

qn_request exchange_choice(const server_exchange *exchange, size_t i_choice, qn_sampling *sampling)
{
    (void)exchange;
    (void)i_choice;
    static const int32_t ids[] = {7, 8, 9};
    *sampling = (qn_sampling){.top_p = 1.0F};
    return (qn_request){.ids = ids, .n_ids = 3, .max_tokens = 1000000, .sampling = sampling};
}

static server_board *open_board(size_t n_entries)
{
    server_board *board = NULL;
    qn_error err = {0};
    assert_int_equal(board_open(&board, n_entries, &err), QN_OK);
    return board;
}

/* One whose request began @p age_s ago. */
static board_entry *take(server_board *board, const char *id, board_stage stage, uint64_t age_s)
{
    board_entry *const entry = board_take(board, id);
    assert_non_null(entry);
    assert_int_equal(entry->stage, BOARD_READING);
    assert_int_equal(entry->n_prompt + entry->n_generated, 0);
    entry->begun_ns -= age_s * 1000000000U;
    entry->stage = (int)stage;
    return entry;
}

static void test_entries_are_given_once(void **state)
{
    (void)state;
    enum { N = 50 };
    server_board *board = open_board(N);
    board_entry *taken[N];
    for (size_t i = 0; i < N; i++) {
        taken[i] = take(board, "a", BOARD_READING, 0);
        for (size_t i_other = 0; i_other < i; i_other++) {
            assert_ptr_not_equal(taken[i], taken[i_other]);
        }
    }
    for (size_t i_round = 0; i_round < 1000; i_round++) {
        const size_t i = i_round * 7 % N;
        assert_null(board_take(board, "b"));
        board_give_back(board, taken[i]);
        assert_ptr_equal(board_take(board, "b"), taken[i]);
    }
    board_close(&board);
}

static void test_no_memory(void **state)
{
    (void)state;
    server_board *board = NULL;
    qn_error err = {0};
    assert_int_equal(board_open(&board, SIZE_MAX / 2, &err), QN_E_NOMEM);
    assert_non_null(strstr(err.text, "board: no memory for "));
#ifndef QN_CANNOT_FAIL_ALLOCATIONS
    g_allocations_left = 0;
    assert_int_equal(board_open(&board, 5, &err), QN_E_NOMEM);
    g_allocations_left = SIZE_MAX;
    assert_string_equal(err.text, "board: no memory for 5 requests");
#endif
    assert_null(board);
}

/* ---------------------------------------------------------------------- what ends a process */

/* Run @p body in a process of its own that may leave no core, and wait for its end.
 * Returns  what it wrote to stderr, and how it ended */
static int run_apart(void (*body)(void), char output[OUTPUT_BYTES])
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        (void)signal(SIGABRT, SIG_DFL);
        (void)dup2(pipes[1], STDERR_FILENO);
        (void)close(pipes[0]);
        (void)close(pipes[1]);
        body();
        _exit(0);
    }
    (void)close(pipes[1]);
    size_t len = 0;
    for (ssize_t n = 1; n > 0 || (n < 0 && errno == EINTR);) {
        n = read(pipes[0], output + len, OUTPUT_BYTES - 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    output[len] = '\0';
    (void)close(pipes[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void wait_for_ever(void)
{
    for (;;) {
        (void)pause();
    }
}

static server_board *g_board;
static fake_engine g_engine;

/* A worker whose engine hangs in a step, with two requests. */
static void hang_in_a_step(void)
{
    static worker_ticket tickets[2];
    qn_error err = {0};
    server_worker *worker = NULL;
    g_board = open_board(8);
    for (size_t i = 0; i < 2; i++) {
        tickets[i].board = take(g_board, i == 0 ? "c62963ff" : "mine", BOARD_READING, 5);
        tickets[i].board->n_prompt = 3;
    }
    g_engine.n_sequences = 1;
    g_engine.n_queue = 4;
    (void)pthread_mutex_init(&g_engine.mutex, NULL);
    (void)pthread_cond_init(&g_engine.changed, NULL);
    const int wake_fd = eventfd(0, EFD_CLOEXEC);
    eventfd_t value = 0;
    assert_int_equal(worker_open(&worker, fake_load, &g_engine, g_board, wake_fd, &err), QN_OK);
    assert_int_equal(eventfd_read(wake_fd, &value), 0); /* it is ready */
    assert_int_equal(board_watch(g_board, 0.2, &err), QN_OK);
    fake_hold(&g_engine);
    worker_submit(worker, tickets, 2);
    wait_for_ever();
}

static void test_hung_step_ends_the_process(void **state)
{
    (void)state;
    char output[OUTPUT_BYTES];
    const int status = run_apart(hang_in_a_step, output);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) {
        fail_msg("status %x, SIGABRT expected; stderr: %s", status, output);
    }
    const char *const expected[] = {
        "quern: error: watchdog: thread worker: busy for 0.2 s with a step, ",
        "its end within 0.2 s (--watchdog-timeout) expected; what requests were doing:\n",
        "request c62963ff: prefill, ", " s, 3 prompt tokens, 0 generated\n",
        "request mine: queued, "};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        if (strstr(output, expected[i]) == NULL) {
            fail_msg("'%s', '%s' expected", output, expected[i]);
        }
    }
}

static void hang_in_the_loop(void)
{
    qn_error err = {0};
    g_board = open_board(3);
    assert_int_equal(board_watch(g_board, 0.1, &err), QN_OK);
    char longest[BOARD_ID_BYTES + 10];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    board_entry *const first = take(g_board, "much-longer-than-the-next", BOARD_DECODE, 41);
    board_entry *const second = take(g_board, "b", BOARD_QUEUED, 0);
    (void)take(g_board, longest, BOARD_PREFILL, 60);
    board_give_back(g_board, second);
    board_give_back(g_board, first);
    board_entry *const again = take(g_board, "a", BOARD_DECODE, 41);
    again->n_prompt = 1024;
    again->n_generated = 88;
    board_busy(g_board, BOARD_LOOP, "an answer");
    wait_for_ever();
}

static void test_hung_loop_ends_the_process(void **state)
{
    (void)state;
    char output[OUTPUT_BYTES];
    const int status = run_apart(hang_in_the_loop, output);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(output, "watchdog: thread loop: busy for 0.1 s with an answer, "));
    assert_non_null(strstr(output, "request a: decode, 41 s, 1,024 prompt tokens, 88 generated\n"));
    assert_non_null(strstr(output, "xxx: prefill, 60 s, 0 prompt tokens, 0 generated\n"));
    assert_null(strstr(output, "request b"));
}

/* Its last words wait for nobody. */
static void hang_unread(void)
{
    qn_error err = {0};
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(fcntl(pipes[1], F_SETFL, O_NONBLOCK), 0);
    while (write(pipes[1], "x", 1) == 1) {
    }
    assert_int_equal(fcntl(pipes[1], F_SETFL, 0), 0);
    (void)dup2(pipes[1], STDERR_FILENO);
    g_board = open_board(2);
    assert_int_equal(board_watch(g_board, 0.1, &err), QN_OK);
    (void)take(g_board, "a", BOARD_DECODE, 1);
    board_busy(g_board, BOARD_LOOP, "an answer");
    (void)alarm(60);
    wait_for_ever();
}

static void test_hung_process_ends_though_nobody_reads(void **state)
{
    (void)state;
    char output[OUTPUT_BYTES];
    const int status = run_apart(hang_unread, output);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* A thread that begins one thing after the other, or waits, is alive for however long. */
static void be_busy(void)
{
    qn_error err = {0};
    g_board = open_board(2);
    assert_int_equal(board_watch(g_board, 1.0, &err), QN_OK);
    board_idle(g_board, BOARD_WORKER);
    for (size_t i = 0; i < 300; i++) { /* 1.5 s and more in all */
        board_busy(g_board, BOARD_LOOP, "a turn");
        (void)poll(NULL, 0, 5);
    }
    board_idle(g_board, BOARD_LOOP);
    board_close(&g_board);
}

static void test_busy_is_not_hung(void **state)
{
    (void)state;
    char output[OUTPUT_BYTES];
    const int status = run_apart(be_busy, output);
    if (status != 0) {
        fail_msg("status %x, 0 expected; stderr: %s", status, output);
    }
    assert_string_equal(output, "");
}

/* ----------------------------------------------------------------------------- pings of systemd */

static int listen_for_pings(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int len =
        snprintf(address.sun_path, sizeof address.sun_path, "@quern-board-%ld", (long)getpid());
    assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
    address.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len)),
                     0);
    return fd;
}

static void test_pings(void **state)
{
    (void)state;
    const double timeouts_s[] = {0.0, 300.0};
    for (size_t i = 0; i < 2; i++) { /* it pings also where it ends nothing */
        server_board *board = open_board(2);
        qn_error err = {0};
        const int fd = listen_for_pings();
        assert_int_equal(setenv("WATCHDOG_USEC", "20000", 1), 0);
        assert_int_equal(board_watch(board, timeouts_s[i], &err), QN_OK);
        for (size_t i_ping = 0; i_ping < 3; i_ping++) {
            char bytes[64];
            struct pollfd descriptor = {.fd = fd, .events = POLLIN};
            assert_int_equal(poll(&descriptor, 1, WAIT_MS), 1);
            assert_int_equal(recv(fd, bytes, sizeof bytes, 0), strlen("WATCHDOG=1"));
            assert_memory_equal(bytes, "WATCHDOG=1", strlen("WATCHDOG=1"));
        }
        board_close(&board);
        (void)close(fd);
    }
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
}

/* Without a manager and a timeout there is nothing to watch; odd values of the variable are none.
 */
static void test_no_watchdog(void **state)
{
    (void)state;
    const char *const texts[] = {"", "0", "-5", "soon", "99999999999999999999999999"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        server_board *board = open_board(2);
        qn_error err = {0};
        assert_int_equal(setenv("WATCHDOG_USEC", texts[i], 1), 0);
        assert_int_equal(board_watch(board, 0.0, &err), QN_OK);
        board_busy(board, BOARD_LOOP, "a turn");
        board_close(&board);
    }
    assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries_are_given_once),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_hung_step_ends_the_process),
        cmocka_unit_test(test_hung_loop_ends_the_process),
        cmocka_unit_test(test_hung_process_ends_though_nobody_reads),
        cmocka_unit_test(test_busy_is_not_hung),
        cmocka_unit_test(test_pings),
        cmocka_unit_test(test_no_watchdog),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
