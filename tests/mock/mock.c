/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that a script says the behaviour of: for tests of clients (README.md).
 *
 *     mock_server [--port N] [--script FILE.json]
 *
 * Prints its address as its first line; ends by a signal, and says by which.
 */
#include "mock.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, TICK_NS = 500000, SCRIPT_BYTES_MAX = 1 << 20 };

void mock_end(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fprintf(stderr, "mock_server: error: ");
    (void)vfprintf(stderr, format, args);
    (void)fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

void *mock_grow(void *array, size_t n, size_t element_bytes)
{
    void *const grown = reallocarray(array, n, element_bytes);
    if (grown == NULL) {
        mock_end("memory: none, expected %zu bytes", n * element_bytes);
    }
    return grown;
}

void mock_put_bytes(qn_buf *buf, const void *bytes, size_t n_bytes)
{
    if (qn_buf_append(buf, bytes, n_bytes, NULL) < 0) {
        mock_end("memory: none, or over %zu bytes, expected %zu more", buf->bytes_max, n_bytes);
    }
}

void mock_put(qn_buf *buf, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    const int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof text) {
        mock_end("text: %d bytes, expected less than %zu", len, sizeof text);
    }
    mock_put_bytes(buf, text, (size_t)len);
}

static void place(mock_server *s, mock_connection *c, size_t i)
{
    s->heap[i] = c;
    c->i_heap = i;
}

static void rise(mock_server *s, size_t i)
{
    mock_connection *const c = s->heap[i];
    for (; i > 0 && c->due_ns < s->heap[(i - 1) / 2]->due_ns; i = (i - 1) / 2) {
        place(s, s->heap[(i - 1) / 2], i);
    }
    place(s, c, i);
}

static void sink(mock_server *s, size_t i)
{
    mock_connection *const c = s->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < s->n_timers && s->heap[child + 1]->due_ns < s->heap[child]->due_ns) {
            child++;
        }
        if (child >= s->n_timers || s->heap[child]->due_ns >= c->due_ns) {
            break;
        }
        place(s, s->heap[child], i);
        i = child;
    }
    place(s, c, i);
}

void mock_timer_set(mock_server *s, mock_connection *c, uint64_t due_ns)
{
    c->due_ns = (due_ns + TICK_NS / 2) / TICK_NS * TICK_NS;
    if (c->i_heap == SIZE_MAX) {
        if (s->n_timers == s->heap_capacity) {
            s->heap_capacity = 2 * s->heap_capacity + 256;
            s->heap = mock_grow(s->heap, s->heap_capacity, sizeof(mock_connection *));
        }
        place(s, c, s->n_timers++);
    }
    rise(s, c->i_heap);
    sink(s, c->i_heap);
}

void mock_timer_clear(mock_server *s, mock_connection *c)
{
    const size_t i = c->i_heap;
    if (i == SIZE_MAX) {
        return;
    }
    c->i_heap = SIZE_MAX;
    mock_connection *const last = s->heap[--s->n_timers];
    if (last != c) {
        place(s, last, i);
        rise(s, i);
        sink(s, last->i_heap);
    }
}

static int listen_at(uint16_t *port)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        mock_end("port %u: %s, expected a free one", *port, strerror(errno));
    }
    *port = ntohs(address.sin_port);
    return fd;
}

static void accept_all(mock_server *s, int listener)
{
    for (;;) {
        const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return;
        }
        const int one = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        (void)mock_connection_open(s, fd);
    }
}

/* The pause of the script, where it is time for it. */
static void stall(const mock_server *s)
{
    if (s->first_ns == 0 || s->script.stall.for_s <= 0) {
        return;
    }
    const double now_s = qn_clock_seconds(s->first_ns, qn_clock_ns());
    const double left_s = s->script.stall.at_s + s->script.stall.for_s - now_s;
    if (now_s >= s->script.stall.at_s && left_s > 0) {
        const struct timespec pause = {.tv_sec = (time_t)left_s,
                                       .tv_nsec = (long)((left_s - (double)(time_t)left_s) * 1e9)};
        (void)nanosleep(&pause, NULL);
    }
}

static void step_due(mock_server *s)
{
    const uint64_t now_ns = qn_clock_ns();
    while (s->n_timers > 0 && s->heap[0]->due_ns <= now_ns) {
        mock_request_step(s, s->heap[0]);
    }
}

static void serve(mock_server *s, int listener)
{
    struct epoll_event events[EVENTS_MAX];
    events[0] = (struct epoll_event){.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, listener, &events[0]) < 0) {
        mock_end("epoll_ctl: %s, expected it to work", strerror(errno));
    }
    for (;;) {
        struct timespec wait = {0};
        if (s->n_timers > 0) {
            const uint64_t now_ns = qn_clock_ns();
            const uint64_t due_ns = s->heap[0]->due_ns;
            const uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
            wait = (struct timespec){.tv_sec = (time_t)(wait_ns / 1000000000),
                                     .tv_nsec = (long)(wait_ns % 1000000000)};
        }
        const int n =
            epoll_pwait2(s->epoll, events, EVENTS_MAX, s->n_timers > 0 ? &wait : NULL, NULL);
        stall(s);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL) {
                accept_all(s, listener);
            } else {
                mock_connection_ready(s, events[i].data.ptr, events[i].events);
            }
        }
        step_due(s);
        mock_connections_bury(s);
    }
}

static void read_script(mock_script *script, const char *path)
{
    json_t *json = NULL;
    qn_error err = {0};
    char *text = NULL;
    if (qn_json_load(&json, path, SCRIPT_BYTES_MAX, &err) < 0 ||
        (text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY)) == NULL ||
        mock_script_parse(script, qn_str_of(text), path, &err) < 0) {
        mock_end("%s", err.text);
    }
    free(text);
    json_decref(json);
}

/* A mock that is gone says who ended it. */
static void on_end(int number)
{
    static const char message[] = "mock_server: ended by a signal: SIG";
    const char *const name = number == SIGTERM ? "TERM\n" : number == SIGINT ? "INT\n" : "HUP\n";
    (void)!write(STDERR_FILENO, message, sizeof message - 1);
    (void)!write(STDERR_FILENO, name, strlen(name));
    _exit(128 + number);
}

int main(int argc, char **argv)
{
    static mock_server s;
    unsigned long port = 0;
    mock_script_default(&s.script);
    for (int i = 1; i < argc; i += 2) {
        const char *const value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--port") == 0) {
            port = strtoul(value, NULL, 10);
        } else if (strcmp(argv[i], "--script") == 0) {
            read_script(&s.script, value);
        } else {
            mock_end("%s: no such option, expected --port or --script", argv[i]);
        }
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGTERM, on_end);
    (void)signal(SIGINT, on_end);
    (void)signal(SIGHUP, on_end);
    uint16_t bound = (uint16_t)port;
    const int listener = listen_at(&bound);
    s.epoll = epoll_create1(EPOLL_CLOEXEC);
    (void)printf("http://127.0.0.1:%u\n", bound);
    (void)fflush(stdout);
    serve(&s, listener);
    return 0;
}
