/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "bench/client.h"
#include "support/fail_each.h"
#include "tiny_server.h"

#include <curl/curl.h>
#include <math.h>
#include <sys/resource.h>

enum { CALLS_MAX = 32 };

/* A source of n calls, at most n_at_once together, and what became of them. */
typedef struct list {
    size_t n, n_at_once, n_sent, n_done, n_ticks;
    double due_s[CALLS_MAX]; /* 0: as soon as there is room */
    bench_record *records[CALLS_MAX];
    bench_body body;
    uint32_t n_output;
    size_t n_ticks_max; /* stops then; 0: never */
    bool keeps_text;
} list;

static tiny_server g_server;
static char g_url[64];
static tiny_child g_child;

static bench_want list_next(void *context, double now_s, bench_call *call, double *when_s)
{
    list *const l = context;
    if (l->n_ticks_max > 0 && l->n_ticks >= l->n_ticks_max) {
        return BENCH_STOP;
    }
    if (l->n_sent == l->n) {
        return BENCH_END_OF_RUN;
    }
    if (l->n_sent - l->n_done == l->n_at_once) {
        return BENCH_IDLE;
    }
    *when_s = l->due_s[l->n_sent] > 0 ? l->due_s[l->n_sent] : now_s;
    if (*when_s > now_s) {
        return BENCH_WAIT;
    }
    *call = (bench_call){
        .id = l->n_sent, .n_output = l->n_output, .body = l->body, .keeps_text = l->keeps_text};
    call->owned = malloc(1); /* that it is freed, the sanitizer sees */
    l->n_sent++;
    return BENCH_SEND;
}

static void list_done(void *context, bench_record *record)
{
    list *const l = context;
    l->records[record->call.id] = record;
    l->n_done++;
}

static const bench_record *record_of(const list *l, size_t i)
{
    QN_ASSERT(l->records[i] != NULL);
    return l->records[i];
}

static void list_tick(void *context, double now_s)
{
    list *const l = context;
    (void)now_s;
    l->n_ticks++;
}

static void list_free(list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        bench_record_free(l->records[i]);
        l->records[i] = NULL;
    }
}

static list list_of(size_t n, size_t n_at_once)
{
    return (list){
        .n = n,
        .n_at_once = n_at_once,
        .n_output = 3,
        .body = {.parts = {"{\"a\":", "", "1}"}, .lens = {5, 0, 2}, .n_parts = 3},
    };
}

static bench_target target_of(double timeout_s)
{
    return (bench_target){.base_url = g_url, .timeout_s = timeout_s, .connect_s = 5};
}

static qn_status run_at(const bench_target *target, const char *path, list *l, bench_lag *lag,
                        qn_error *err)
{
    bench_client *client = NULL;
    const bench_source source = {
        .context = l, .next = list_next, .done = list_done, .tick = list_tick};
    qn_status status = bench_client_open(&client, target, BENCH_COMPLETIONS, path, 8, err);
    if (status == QN_OK) {
        status = bench_client_run(client, &source, lag, err);
        assert_int_equal(bench_client_n_active(client), 0);
        assert_int_equal(bench_client_n_late(client, 0.0), 0);
    }
    bench_client_close(&client);
    /* One that there was no memory to send is not given back. */
    assert_true(l->n_done == l->n_sent || (status == QN_E_NOMEM && l->n_done + 1 == l->n_sent));
    return status;
}

static void run_list(const char *path, list *l, double timeout_s)
{
    const bench_target target = target_of(timeout_s);
    bench_lag lag = {0};
    qn_error err = {0};
    if (run_at(&target, path, l, &lag, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
}

/* One request to that path ends so, its message has those words. */
static void check_end(const char *path, double timeout_s, bench_end end, int status,
                      const char *words)
{
    list l = list_of(1, 1);
    run_list(path, &l, timeout_s);
    const bench_record *const r = record_of(&l, 0);
    if (r->end != end || r->status != status || strstr(r->message, words) == NULL) {
        fail_msg("%s: %s, status %d, '%s'", path, bench_end_name(r->end), r->status, r->message);
    }
    assert_true(r->sent_s >= r->due_s && r->end_s >= r->sent_s);
    list_free(&l);
}

static void test_whole_answers_on_kept_connections(void **state)
{
    (void)state;
    list l = list_of(20, 2);
    l.keeps_text = true;
    const int n_before = g_server.n_connections;
    run_list("/whole", &l, 60);
    for (size_t i = 0; i < l.n; i++) {
        const bench_record *const r = record_of(&l, i);
        assert_int_equal(r->end, BENCH_DONE);
        assert_string_equal(r->message, "");
        assert_int_equal(r->n_chunks, 2);
        assert_true(r->has_usage && r->has_cached);
        assert_int_equal(r->n_cached, 4);
        assert_string_equal(r->finish, "length");
        assert_string_equal(r->text, "one two");
        assert_true(r->due_s <= r->sent_s && r->sent_s <= r->first_s && r->first_s <= r->last_s &&
                    r->last_s <= r->end_s);
        assert_true(r->chunk_s[0] == r->first_s && r->chunk_s[1] == r->last_s);
        assert_null(r->call.owned);
    }
    assert_true(g_server.n_connections - n_before <= 2);
    list_free(&l);
}

static void test_body_of_many_pieces_arrives_whole(void **state)
{
    (void)state;
    enum { N_BIG = 600000 }; /* libcurl waits before more than 1 MiB, unless told not to */
    char *const big = malloc(N_BIG);
    assert_non_null(big);
    memset(big, 3, N_BIG);
    list l = list_of(1, 1);
    l.body =
        (bench_body){.parts = {"ab", big, big, "c"}, .lens = {2, N_BIG, N_BIG, 1}, .n_parts = 4};
    run_list("/whole", &l, 60);
    assert_int_equal(record_of(&l, 0)->end, BENCH_DONE);
    assert_int_equal(g_server.n_body_bytes, 2 * N_BIG + 3);
    assert_int_equal(g_server.body_sum, 2 * 3 * N_BIG + 'a' + 'b' + 'c');
    assert_null(strstr(g_server.head, "Expect"));
    list_free(&l);
    free(big);
}

static void test_key_and_headers_are_sent(void **state)
{
    (void)state;
    const char *const headers[] = {"X-Mine: 1"};
    bench_target target = target_of(60);
    bench_lag lag = {0};
    list l = list_of(1, 1);
    target.api_key = "secret";
    target.headers = headers;
    target.n_headers = 1;
    assert_int_equal(run_at(&target, "/whole", &l, &lag, NULL), QN_OK);
    assert_non_null(strstr(g_server.head, "\r\nAuthorization: Bearer secret\r\n"));
    assert_non_null(strstr(g_server.head, "\r\nX-Mine: 1\r\n"));
    assert_non_null(strstr(g_server.head, "POST /whole HTTP/1.1\r\n"));
    list_free(&l);

    const char *const broken[] = {"X-Mine: 1\r\nHost: other"};
    qn_error err = {0};
    target.headers = broken;
    assert_int_equal(run_at(&target, "/whole", &l, &lag, &err), QN_E_INVAL);
    assert_non_null(strstr(err.text, "--header"));
}

static void test_each_failure_has_its_name(void **state)
{
    (void)state;
    check_end("/429", 60, BENCH_RATE_LIMITED, 429, "status 429: too many");
    check_end("/500", 60, BENCH_SERVER, 500, "status 500: bang");
    check_end("/301", 60, BENCH_OTHER, 301, "status 301");
    check_end("/cut", 60, BENCH_CUT, 200, "");
    check_end("/nothing", 60, BENCH_CUT, 0, "");
    check_end("/chunks", 60, BENCH_MALFORMED, 200, "chunk");
    check_end("/noise", 60, BENCH_MALFORMED, 0, "");
    check_end("/head", 60, BENCH_MALFORMED, 200, "head");
    check_end("/malformed", 60, BENCH_MALFORMED, 200, "event 1: data");
    check_end("/error", 60, BENCH_FAILED, 200, "no pages");
    check_end("/hang", 0.05, BENCH_TIMEOUT, 0, "");
    check_end("/begins", 2, BENCH_TIMEOUT, 200, ""); /* time enough for it to begin */
}

static void test_timeout_on_a_kept_connection_is_one(void **state)
{
    (void)state;
    list l = list_of(2, 1);
    run_list("/warm", &l, 2);
    assert_int_equal(record_of(&l, 0)->end, BENCH_DONE);
    assert_int_equal(record_of(&l, 1)->end, BENCH_TIMEOUT);
    list_free(&l);
}

static void test_nobody_listens(void **state)
{
    (void)state;
    char url[64];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n_bytes = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0); /* bound: nobody else takes the port */
    assert_int_equal(bind(fd, (struct sockaddr *)&address, n_bytes), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n_bytes), 0);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    const bench_target target = {.base_url = url, .timeout_s = 60, .connect_s = 5};
    bench_lag lag = {0};
    list l = list_of(3, 3);
    assert_int_equal(run_at(&target, "/", &l, &lag, NULL), QN_OK);
    for (size_t i = 0; i < l.n; i++) {
        assert_int_equal(record_of(&l, i)->end, BENCH_CONNECT);
        assert_int_equal(record_of(&l, i)->status, 0);
    }
    list_free(&l);
    (void)close(fd);
    qn_error err = {0};
    for (size_t i = 0; i < 3; i++) {
        const char *const urls[] = {"", "ftp://x", "http://"};
        const bench_target wrong = {.base_url = urls[i], .timeout_s = 1, .connect_s = 1};
        assert_int_equal(run_at(&wrong, "/", &l, &lag, &err), QN_E_INVAL);
        assert_non_null(strstr(err.text, "--base-url"));
    }
}

/* The source's calls again: another run on the connections of the first. */
static void run_again(bench_client *client, list *l, bench_lag *lag)
{
    const bench_source source = {
        .context = l, .next = list_next, .done = list_done, .tick = list_tick};
    assert_int_equal(bench_client_run(client, &source, lag, NULL), QN_OK);
}

/* libcurl connects anew behind our back where a kept connection closes: what it is told then is
 * neither what became of the request, nor HTTP that is malformed. */
static void test_a_server_that_goes_away(void **state)
{
    (void)state;
    static tiny_server server;
    static const bench_end ends[] = {BENCH_DONE, BENCH_CUT, BENCH_CONNECT};
    char url[64];
    bench_client *client = NULL;
    bench_lag lag = {0};
    tiny_open(&server);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d", server.port);
    const bench_target target = {.base_url = url, .timeout_s = 60, .connect_s = 5};
    assert_int_equal(bench_client_open(&client, &target, BENCH_COMPLETIONS, "/second", 8, NULL),
                     QN_OK);
    for (size_t i = 0; i < 3; i++) {
        list l = list_of(1, 1);
        run_again(client, &l, &lag);
        assert_int_equal(record_of(&l, 0)->end, ends[i]);
        list_free(&l);
        (void)shutdown(server.listen_fd, SHUT_RDWR); /* no more connections */
    }
    bench_client_close(&client);
    tiny_close(&server);
}

/* What the client has no file for is its own fault, and said so. */
static void test_no_file_left_is_told(void **state)
{
    (void)state;
    char url[64];
    bench_client *client = NULL;
    bench_lag lag = {0};
    struct rlimit before;
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d", g_child.port);
    const bench_target target = {.base_url = url, .timeout_s = 60, .connect_s = 5};
    assert_int_equal(bench_client_open(&client, &target, BENCH_COMPLETIONS, "/whole", 8, NULL),
                     QN_OK);
    const int fd = dup(0); /* the next that is free */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit few = {(rlim_t)fd, before.rlim_max};
    (void)close(fd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    list l = list_of(3, 3);
    run_again(client, &l, &lag);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(record_of(&l, 0)->end, BENCH_CONNECT);
    assert_non_null(strstr(record_of(&l, 0)->message, "no file left"));
    assert_int_equal(lag.n_no_file, 3);
    list_free(&l);
    bench_client_close(&client);
}

/* Others stop reading there; one that waits has its slot held for as long as the server likes. */
static void test_done_ends_an_answer_that_stays_open(void **state)
{
    (void)state;
    list l = list_of(1, 1);
    run_list("/stays", &l, 60); /* which would be a timeout */
    assert_int_equal(record_of(&l, 0)->end, BENCH_DONE);
    assert_true(record_of(&l, 0)->end_s < record_of(&l, 0)->last_s + 30);
    list_free(&l);
}

/* A connection that closes instead of an answer is an end that is counted, not a reason to ask
 * again behind the back of whoever counts: the next request has a new one. */
static void test_closed_connections_are_replaced_and_counted(void **state)
{
    (void)state;
    list l = list_of(6, 1);
    run_list("/second", &l, 60);
    for (size_t i = 0; i < l.n; i++) {
        assert_int_equal(record_of(&l, i)->end, i % 2 == 0 ? BENCH_DONE : BENCH_CUT);
    }
    assert_string_equal(record_of(&l, 1)->message, "the connection was closed without an answer");
    list_free(&l);
}

/* One that closes between two requests is none of the server's failures where it closed before the
 * next one was there: a race.  That may have been read where it resets, as it surely was where it
 * aborts. */
static void test_only_what_nobody_read_is_sent_again(void **state)
{
    (void)state;
    const bench_target target = target_of(60);
    bench_lag lag = {0};
    list l = list_of(CALLS_MAX, 4);
    assert_int_equal(run_at(&target, "/once", &l, &lag, NULL), QN_OK);
    for (size_t i = 0; i < l.n; i++) {
        const bench_record *const r = record_of(&l, i);
        assert_true(r->end == BENCH_DONE || (r->end == BENCH_CUT && r->message[0] != '\0'));
    }
    list_free(&l);
    l = list_of(8, 1);
    assert_int_equal(run_at(&target, "/reset", &l, &lag, NULL), QN_OK);
    for (size_t i = 0; i < l.n; i++) {
        assert_int_equal(record_of(&l, i)->end, i % 2 == 0 ? BENCH_DONE : BENCH_CUT);
    }
    assert_int_equal(lag.n_resent, 0);
    list_free(&l);
}

static void test_requests_start_when_due(void **state)
{
    (void)state;
    list l = list_of(10, 10);
    for (size_t i = 0; i < l.n; i++) {
        l.due_s[i] = 0.005 * (double)(i + 1);
    }
    const bench_target target = target_of(60);
    bench_lag lag = {0};
    assert_int_equal(run_at(&target, "/whole", &l, &lag, NULL), QN_OK);
    for (size_t i = 0; i < l.n; i++) {
        assert_true(record_of(&l, i)->due_s == l.due_s[i]);
        assert_true(record_of(&l, i)->sent_s >= l.due_s[i]);
    }
    assert_int_equal(lag.n_events, 20);
    assert_true(lag.send_p50_ms <= lag.send_p99_ms && lag.send_p99_ms <= lag.send_max_ms);
    assert_true(lag.read_p50_ms <= lag.read_p99_ms && lag.read_p99_ms <= lag.read_max_ms);
    assert_true(lag.cpu_s > 0);
    list_free(&l);
}

/* A source that takes long, once the server drips and until another drop has fallen, is a client
 * that is late for what came meanwhile. */
static void slow_tick(void *context, double now_s)
{
    const uint64_t begun_ns = qn_clock_ns();
    const int n_drops = g_server.n_drops;
    if (n_drops > 0) {
        list_tick(context, now_s);
        while (qn_clock_seconds(begun_ns, qn_clock_ns()) < 0.03 || g_server.n_drops == n_drops) {
        }
    }
}

static void test_a_late_client_says_so(void **state)
{
    (void)state;
    const bench_target target = target_of(60);
    list l = list_of(1, 1);
    l.n_ticks_max = 3;
    const bench_source source = {
        .context = &l, .next = list_next, .done = list_done, .tick = slow_tick};
    bench_client *client = NULL;
    bench_lag lag = {0};
    assert_int_equal(bench_client_open(&client, &target, BENCH_COMPLETIONS, "/drip", 1, NULL),
                     QN_OK);
    assert_int_equal(bench_client_run(client, &source, &lag, NULL), QN_OK);
    assert_int_equal(record_of(&l, 0)->end, BENCH_CANCELLED);
    assert_true(lag.read_max_ms >= 29);
    list_free(&l);
    bench_client_close(&client);
}

/* A thread that libcurl reads in, which for once is not run from before the read until another drop
 * has fallen. */
static _Thread_local bool g_recv_is_late;

__attribute__((visibility("default"))) ssize_t recv(int fd, void *bytes, size_t n, int flags)
{
    const uint64_t begun_ns = qn_clock_ns();
    const int n_drops = g_server.n_drops;
    while (g_recv_is_late &&
           (qn_clock_seconds(begun_ns, qn_clock_ns()) < 0.03 || g_server.n_drops == n_drops)) {
    }
    g_recv_is_late = false;
    /* Not by recvfrom(): ThreadSanitizer sees no order of threads in it. */
    struct iovec to = {.iov_base = bytes, .iov_len = n};
    return recvmsg(fd, &(struct msghdr){.msg_iov = &to, .msg_iovlen = 1}, flags);
}

static void test_a_late_read_says_so(void **state)
{
    (void)state;
    list l = list_of(1, 1);
    l.n_ticks_max = 1;
    const bench_target target = target_of(60);
    bench_lag lag = {0};
    g_recv_is_late = true;
    assert_int_equal(run_at(&target, "/drip", &l, &lag, NULL), QN_OK);
    assert_false(g_recv_is_late);
    assert_int_equal(record_of(&l, 0)->end, BENCH_CANCELLED);
    assert_true(lag.read_max_ms >= 29);
    list_free(&l);
}

/* Once the server drips somebody stops this process for a while, and until another drop has fallen;
 * then it goes on for two ticks more. */
typedef struct stopped_list {
    list list; /* first: list_next() and list_done() take it */
    pid_t stopper;
    int n_ticks_after;
} stopped_list;

static void stopping_tick(void *context, double now_s)
{
    stopped_list *const l = context;
    (void)now_s;
    const int n_drops = g_child.server->n_drops;
    if (l->stopper == 0 && n_drops > 0) {
        const pid_t victim = getpid();
        l->stopper = fork();
        QN_ASSERT(l->stopper >= 0);
        if (l->stopper == 0) {
            const struct timespec stopped = {.tv_nsec = 100000000};
            (void)kill(victim, SIGSTOP);
            do {
                (void)nanosleep(&stopped, NULL);
            } while (g_child.server->n_drops == n_drops);
            (void)kill(victim, SIGCONT);
            _exit(0);
        }
    } else if (l->n_ticks_after > 0 ||
               (l->stopper > 0 && waitpid(l->stopper, NULL, WNOHANG) == l->stopper)) {
        l->n_ticks_after++;
        l->list.n_ticks = l->n_ticks_after > 2 ? 1 : 0; /* list_next() stops at it */
    }
}

/* A client that the system does not run is late too; the server, in a process of its own, runs. */
static void test_a_client_that_is_not_run_says_so(void **state)
{
    (void)state;
    char url[64];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d", g_child.port);
    const bench_target target = {.base_url = url, .timeout_s = 60, .connect_s = 5};
    stopped_list l = {.list = list_of(1, 1)};
    l.list.n_ticks_max = 1;
    const bench_source source = {
        .context = &l, .next = list_next, .done = list_done, .tick = stopping_tick};
    bench_client *client = NULL;
    bench_lag lag = {0};
    assert_int_equal(bench_client_open(&client, &target, BENCH_COMPLETIONS, "/drip", 1, NULL),
                     QN_OK);
    assert_int_equal(bench_client_run(client, &source, &lag, NULL), QN_OK);
    assert_int_equal(record_of(&l.list, 0)->end, BENCH_CANCELLED);
    assert_true(lag.read_max_ms >= 90);
    list_free(&l.list);
    bench_client_close(&client);
}

static void test_stop_cancels_what_runs(void **state)
{
    (void)state;
    list l = list_of(4, 4);
    l.n_ticks_max = 1;
    run_list("/begins", &l, 60);
    for (size_t i = 0; i < l.n; i++) {
        assert_int_equal(record_of(&l, i)->end, BENCH_CANCELLED);
        assert_true(isfinite(record_of(&l, i)->end_s));
    }
    list_free(&l);
}

/* More requests at once than were announced, and two runs of one client. */
static void test_a_crowd_is_served(void **state)
{
    (void)state;
    const bench_target target = target_of(60);
    bench_client *client = NULL;
    assert_int_equal(bench_client_open(&client, &target, BENCH_COMPLETIONS, "/whole", 1, NULL),
                     QN_OK);
    for (int i_run = 0; i_run < 2; i_run++) {
        list l = list_of(8, 8);
        const bench_source source = {
            .context = &l, .next = list_next, .done = list_done, .tick = list_tick};
        bench_lag lag = {0};
        assert_int_equal(bench_client_run(client, &source, &lag, NULL), QN_OK);
        for (size_t i = 0; i < l.n; i++) {
            assert_int_equal(record_of(&l, i)->end, BENCH_DONE);
        }
        list_free(&l);
    }
    bench_client_close(&client);
    const size_t many[] = {1 << 30, SIZE_MAX};
    for (size_t i = 0; i < 2; i++) {
        qn_error err = {0};
        assert_int_equal(bench_client_open(&client, &target, BENCH_CHAT, "/", many[i], &err),
                         QN_E_IO);
        assert_non_null(strstr(err.text, "open files: at most"));
    }
}

static qn_status run_once(qn_error *err)
{
    const bench_target target = target_of(60);
    bench_lag lag = {0};
    list l = list_of(2, 1);
    const qn_status status = run_at(&target, "/whole", &l, &lag, err);
    list_free(&l);
    return status;
}

/* The server is in a process of its own, where allocations do not fail. */
static void test_each_allocation_may_fail(void **state)
{
    (void)state;
    char url[sizeof g_url];
    memcpy(url, g_url, sizeof url);
    (void)snprintf(g_url, sizeof g_url, "http://127.0.0.1:%d", g_child.port);
    fail_each(run_once, 1, 30);
    memcpy(g_url, url, sizeof url);
}

static int set_up(void **state)
{
    (void)state;
    tiny_child_open(&g_child); /* before there are threads */
    tiny_open(&g_server);
    (void)snprintf(g_url, sizeof g_url, "http://127.0.0.1:%d", g_server.port);
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    tiny_close(&g_server);
    tiny_child_close(&g_child);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_answers_on_kept_connections),
        cmocka_unit_test(test_body_of_many_pieces_arrives_whole),
        cmocka_unit_test(test_key_and_headers_are_sent),
        cmocka_unit_test(test_each_failure_has_its_name),
        cmocka_unit_test(test_timeout_on_a_kept_connection_is_one),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_a_server_that_goes_away),
        cmocka_unit_test(test_no_file_left_is_told),
        cmocka_unit_test(test_done_ends_an_answer_that_stays_open),
        cmocka_unit_test(test_only_what_nobody_read_is_sent_again),
        cmocka_unit_test(test_closed_connections_are_replaced_and_counted),
        cmocka_unit_test(test_requests_start_when_due),
        cmocka_unit_test(test_a_late_client_says_so),
        cmocka_unit_test(test_a_late_read_says_so),
        cmocka_unit_test(test_a_client_that_is_not_run_says_so),
        cmocka_unit_test(test_stop_cancels_what_runs),
        cmocka_unit_test(test_a_crowd_is_served),
        cmocka_unit_test(test_each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
