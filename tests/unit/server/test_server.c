/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_engine.h"
#include "manager.h"
#include "server/server.h"
#include "support/fail_alloc.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 120 * 1000, ANSWER_BYTES = 1 << 18 };

/* A server in a thread of its own, over a fake engine and the tokenizer of a real model. */
static struct world {
    fake_engine engine;
    qn_model *model;
    qn_server *server;
    pthread_t thread;
    qn_status status;
    qn_error error;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_loading, may_load, is_ready;
    char answer[ANSWER_BYTES];
} w;

static qn_status load(void *context, server_backend *out, qn_error *err)
{
    (void)context;
    (void)pthread_mutex_lock(&w.mutex);
    w.is_loading = true;
    (void)pthread_cond_broadcast(&w.changed);
    while (!w.may_load) {
        (void)pthread_cond_wait(&w.changed, &w.mutex);
    }
    (void)pthread_mutex_unlock(&w.mutex);
    const qn_status status = fake_load(&w.engine, out, err);
    out->model = w.model;
    return status;
}

static void set(bool *flag)
{
    (void)pthread_mutex_lock(&w.mutex);
    *flag = true;
    (void)pthread_cond_broadcast(&w.changed);
    (void)pthread_mutex_unlock(&w.mutex);
}

static void await(const bool *flag)
{
    (void)pthread_mutex_lock(&w.mutex);
    while (!*flag) {
        (void)pthread_cond_wait(&w.changed, &w.mutex);
    }
    (void)pthread_mutex_unlock(&w.mutex);
}

static void tell_ready(void *context)
{
    set(context);
}

static void *run(void *context)
{
    (void)context;
    w.status = server_run(w.server, load, NULL, &w.error);
    return NULL;
}

static server_options make_options(void)
{
    server_options options = server_options_default();
    options.port = 0;
    options.n_readers = 1;
    options.shutdown_timeout_s = 600;
    options.watchdog_timeout_s = 0;
    options.ready = tell_ready;
    options.ready_context = &w.is_ready;
    return options;
}

static void start_with(const server_options *options, bool may_load)
{
    qn_model *const model = w.model;
    const fake_faults faults = w.engine.faults;
    memset(&w, 0, sizeof w);
    w.model = model;
    w.may_load = may_load;
    w.engine.n_sequences = w.engine.n_queue = 4;
    w.engine.faults = faults;
    assert_int_equal(pthread_mutex_init(&w.mutex, NULL), 0);
    assert_int_equal(pthread_cond_init(&w.changed, NULL), 0);
    assert_int_equal(pthread_mutex_init(&w.engine.mutex, NULL), 0);
    assert_int_equal(pthread_cond_init(&w.engine.changed, NULL), 0);
    assert_int_equal(server_open(&w.server, options, &w.error), QN_OK);
    assert_int_equal(pthread_create(&w.thread, NULL, run, NULL), 0);
}

static void start(bool may_load)
{
    const server_options options = make_options();
    start_with(&options, may_load);
}

/* What server_run() returned. */
static qn_status join(void)
{
    assert_int_equal(pthread_join(w.thread, NULL), 0);
    server_close(&w.server);
    assert_null(w.server);
    w.engine.faults = (fake_faults){0};
    return w.status;
}

static qn_status stop(void)
{
    server_stop(w.server);
    return join();
}

/* --------------------------------------------------------------------------------------- asking */

static int send_request(const char *path, const char *body)
{
    char request[4096];
    const int n = body == NULL
                      ? snprintf(request, sizeof request,
                                 "GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", path)
                      : snprintf(request, sizeof request,
                                 "POST %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
                                 "Content-Length: %zu\r\n\r\n%s",
                                 path, strlen(body), body);
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(server_port(w.server)),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    (void)!send(fd, request, (size_t)n, MSG_NOSIGNAL);
    return fd;
}

/* All that comes until the server closes; allocates nothing. */
static const char *read_answer(int fd)
{
    size_t len = 0;
    ssize_t n = 0;
    do {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, WAIT_MS), 1);
        n = recv(fd, w.answer + len, sizeof w.answer - 1 - len, 0);
        len += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    w.answer[len] = '\0';
    (void)close(fd);
    return w.answer;
}

static const char *ask(const char *path, const char *body)
{
    return read_answer(send_request(path, body));
}

static bool has_status(const char *answer, int status_code)
{
    char line[16];
    (void)snprintf(line, sizeof line, "HTTP/1.1 %d ", status_code);
    return strncmp(answer, line, strlen(line)) == 0;
}

static void assert_answer(const char *answer, int status_code, const char *part)
{
    if (!has_status(answer, status_code) || strstr(answer, part) == NULL) {
        fail_msg("expected %d with %s, saw: %s", status_code, part, answer);
    }
}

static const char chat[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":5}";
static const char stream[] = "{\"prompt\":\"x\",\"max_tokens\":5,\"n\":2,\"stream\":true}";

/* --------------------------------------------------------------------------------------- claims */

static void test_options_are_checked(void **state)
{
    (void)state;
    const server_options good = make_options();
    server_options bad[9];
    static const char *const names[] = {
        "body_bytes_max",  "stream_bytes_max", "n_connections_max",
        "n_readers",       "header_timeout_s", "body_timeout_s",
        "write_timeout_s", "tls_certificate",  "tls_certificate",
    };
    for (size_t i = 0; i < 9; i++) {
        bad[i] = good;
    }
    bad[0].body_bytes_max = 0;
    bad[1].stream_bytes_max = 0;
    bad[2].n_connections_max = 0;
    bad[3].n_readers = 0;
    bad[4].header_timeout_s = 0;
    bad[5].body_timeout_s = -1;
    bad[6].write_timeout_s = 0;
    bad[7].tls_key = "key";
    bad[8].tls_key = bad[8].tls_certificate = "-----BEGIN NONSENSE-----";
    for (size_t i = 0; i < 9; i++) {
        qn_server *server = NULL;
        qn_error err = {0};
        assert_int_equal(server_open(&server, &bad[i], &err), QN_E_INVAL);
        assert_null(server);
        assert_non_null(strstr(err.text, names[i]));
    }
}

static void test_a_port_in_use_is_told(void **state)
{
    (void)state;
    qn_server *server = NULL;
    qn_server *second = NULL;
    qn_error err = {0};
    server_options options = make_options();
    assert_int_equal(server_open(&server, &options, &err), QN_OK);
    options.port = server_port(server);
    assert_int_equal(server_open(&second, &options, &err), QN_E_IO);
    assert_non_null(strstr(err.text, "127.0.0.1 port"));
    server_close(&server);
    options.host = "not a host";
    assert_int_equal(server_open(&second, &options, &err), QN_E_IO);
    assert_non_null(strstr(err.text, "not a host"));
    server_close(&second);
}

static void test_it_is_not_ready_before_it_can_answer(void **state)
{
    (void)state;
    start(false);
    await(&w.is_loading);
    assert_answer(ask("/health", NULL), 200, "ok");
    assert_answer(ask("/ready", NULL), 503, "Retry-After: ");
    assert_answer(ask("/v1/models", NULL), 503, "loading");
    const char *const page = ask("/metrics", NULL); /* a probe is not refused, it is told */
    assert_non_null(strstr(page, "endpoint=\"/v1/models\",status=\"503\""));
    assert_null(strstr(page, "endpoint=\"/ready\""));
    assert_answer(ask("/v1/chat/completions", chat), 503, "Retry-After: ");
    assert_answer(ask("/v1/messages", chat), 503, "overloaded_error");
    assert_answer(ask("/metrics", NULL), 200, "quern");
    assert_answer(ask("/server_info", NULL), 200, "\"ready\":false");
    set(&w.may_load);
    await(&w.is_ready);
    assert_answer(ask("/ready", NULL), 200, "ready");
    assert_answer(ask("/v1/chat/completions", chat), 200, "\"finish_reason\": \"length\"");
    assert_int_equal(stop(), QN_OK);
    assert_int_equal(w.engine.n_closes, 1);
}

static void test_a_model_that_does_not_load_ends_it(void **state)
{
    (void)state;
    w.engine.faults.load = QN_E_NOT_FOUND;
    start(true);
    assert_int_equal(join(), QN_E_NOT_FOUND);
    assert_non_null(strstr(w.error.text, "models/none"));
}

static void test_it_stops_while_it_loads(void **state)
{
    (void)state;
    start(false);
    await(&w.is_loading);
    server_stop(w.server);
    set(&w.may_load);
    assert_int_equal(join(), QN_OK);
}

static void test_a_device_that_is_lost_is_told_to_all(void **state)
{
    (void)state;
    start(true);
    await(&w.is_ready);
    fake_hold(&w.engine);
    const int whole = send_request("/v1/chat/completions", chat);
    const int pieces = send_request("/v1/completions", stream);
    while (w.engine.n_submits < 3) { /* the self-test's and at least one of these */
        (void)poll(NULL, 0, 1);
    }
    w.engine.faults.step = QN_E_DEVICE;
    fake_release(&w.engine);
    const char *answer = read_answer(whole);
    assert_true(has_status(answer, 500) || has_status(answer, 503));
    answer = read_answer(pieces);
    assert_non_null(strstr(answer, "\"error\""));
    assert_int_equal(join(), QN_E_DEVICE);
    assert_non_null(strstr(w.error.text, "device"));
}

/* A step that hangs: it is not ready long before the watchdog ends it, and is so again after it. */
static void test_a_step_that_takes_long_is_not_ready(void **state)
{
    (void)state;
    server_options options = make_options();
    options.watchdog_timeout_s = 6;
    start_with(&options, true);
    await(&w.is_ready);
    assert_answer(ask("/ready", NULL), 200, "ready");
    fake_hold(&w.engine);
    const int pieces = send_request("/v1/completions", stream);
    fake_await_step(&w.engine);
    while (!has_status(ask("/ready", NULL), 503)) {
        (void)poll(NULL, 0, 10);
    }
    assert_answer(ask("/ready", NULL), 503, "\"stalled\"");
    assert_answer(ask("/health", NULL), 200, "ok");
    fake_release(&w.engine);
    assert_non_null(strstr(read_answer(pieces), "[DONE]"));
    assert_answer(ask("/ready", NULL), 200, "ready");
    assert_int_equal(stop(), QN_OK);
}

/* The engine goes on telling requests of errors: whoever sends them is to know before, and whoever
 * starts servers again by /health. */
static void test_a_lost_device_is_neither_ready_nor_well(void **state)
{
    (void)state;
    const int fd = manager_listen();
    start(true);
    await(&w.is_ready);
    assert_answer(ask("/health", NULL), 200, "ok");
    fake_hold(&w.engine);
    const int whole = send_request("/v1/chat/completions", chat);
    fake_await_step(&w.engine);
    w.engine.stats.is_lost = true;
    fake_release(&w.engine);
    (void)read_answer(whole);
    assert_answer(ask("/ready", NULL), 503, "\"device_lost\"");
    assert_answer(ask("/health", NULL), 503, "\"device_lost\"");
    assert_null(strstr(ask("/metrics", NULL), "endpoint=\"/health\"")); /* told, not refused */
    assert_answer(ask("/metrics", NULL), 200, "\nquern_ready 0\n");
    manager_await(fd, "WATCHDOG=trigger");
    assert_int_equal(stop(), QN_OK);
    manager_close(fd);
}

static void test_a_second_stop_cuts_off(void **state)
{
    (void)state;
    start(true);
    await(&w.is_ready);
    fake_hold(&w.engine);
    const int pieces = send_request("/v1/completions", stream);
    fake_await_step(&w.engine);
    server_stop(w.server);
    server_stop(w.server);
    while (strstr(ask("/server_info", NULL), "\"stage\":\"ending\"") == NULL) {
        (void)poll(NULL, 0, 1);
    }
    fake_release(&w.engine);
    assert_non_null(strstr(read_answer(pieces), "error"));
    assert_int_equal(join(), QN_E_CANCELLED);
}

/* What is asked while allocations fail, and what a whole answer has. */
typedef struct question {
    const char *path, *body, *whole;
} question;

/* 503 without memory is the same wherever it is found. */
static void assert_says_when(const char *answer)
{
    if (strstr(answer, "Retry-After: 1\r\n") == NULL || strstr(answer, "\"overloaded") == NULL) {
        fail_msg("'%s', Retry-After and overloaded expected", answer);
    }
}

/* The n-th allocation fails, for every n; returns how often the client was told. */
static size_t ask_without_memory(const question *asked)
{
    size_t n_told = 0;
    for (size_t n = 0;; n++) {
        g_n_failed = 0;
        g_allocations_left = n;
        const char *const answer = ask(asked->path, asked->body);
        g_allocations_left = SIZE_MAX;
        if (g_n_failed == 0) {
            assert_answer(answer, 200, asked->whole);
            return n_told;
        }
        const bool is_told = has_status(answer, 503) || has_status(answer, 500);
        if (has_status(answer, 503)) {
            assert_says_when(answer);
        }
        n_told += is_told ? 1 : 0;
        assert_true(answer[0] == '\0' || has_status(answer, 200) || is_told);
    }
}

/* Whatever allocation fails, the client hears of it or is cut off, and the server goes on. */
static void test_allocations_may_fail_while_it_runs(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    static const question questions[] = {
        {"/v1/chat/completions", chat, "\"usage\""},
        {"/v1/completions", stream, "[DONE]"},
        {"/v1/messages", chat, "\"usage\""},
        {"/v1/messages/count_tokens", chat, "\"input_tokens\""},
        {"/tokenize", "{\"prompt\":\"a b c\",\"return_token_strs\":true}", "\"count\""},
        {"/detokenize", "{\"tokens\":[5,6]}", "\"prompt\""},
        {"/server_info", NULL, "\"limits\""},
        {"/metrics", NULL, "quern"},
        {"/flush_cache", "", "true"},
    };
    start(true);
    await(&w.is_ready);
    /* All threads have begun: that of a sanitizer may not fail to. */
    assert_answer(ask("/tokenize", "{\"prompt\":\"a\"}"), 200, "count");
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        g_fails_from_then_on = 0;
        assert_true(ask_without_memory(&questions[i]) > 0);
        g_fails_from_then_on = 1;
        assert_true(ask_without_memory(&questions[i]) > 0);
        assert_answer(ask(questions[i].path, questions[i].body), 200, questions[i].whole);
    }
    assert_answer(ask("/server_info", NULL), 200, "\"open_answers\":0");
    assert_int_equal(stop(), QN_OK);
}

static int load_model(void **state)
{
    (void)state;
    const qn_model_options options = {.tokenizer_only = true};
    return qn_model_open(&w.model, QN_SOURCE_DIR "/models/glm-nano", &options, NULL);
}

static int close_model(void **state)
{
    (void)state;
    qn_model_close(&w.model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_a_port_in_use_is_told),
        cmocka_unit_test(test_it_is_not_ready_before_it_can_answer),
        cmocka_unit_test(test_a_model_that_does_not_load_ends_it),
        cmocka_unit_test(test_it_stops_while_it_loads),
        cmocka_unit_test(test_a_device_that_is_lost_is_told_to_all),
        cmocka_unit_test(test_a_step_that_takes_long_is_not_ready),
        cmocka_unit_test(test_a_lost_device_is_neither_ready_nor_well),
        cmocka_unit_test(test_a_second_stop_cuts_off),
        cmocka_unit_test(test_allocations_may_fail_while_it_runs),
    };
    return cmocka_run_group_tests(tests, load_model, close_model);
}
