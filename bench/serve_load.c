/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of serve_stub.py: bench_serve_stub under streams in a closed loop, a connection each.
 *
 *     bench_serve_load [--streams N] [--requests N] [--output-tokens N] [--step NS] HOST:PORT
 *
 *     --streams N        requests at once, at most 4,096 (default 1)
 *     --requests N       of each stream (default 4)
 *     --output-tokens N  asked for: N/2 to 3N/2, evenly (default 64)
 *     --step NS          of the stub, in nanoseconds (default 10 ms)
 *
 * Prints one JSON object.  The time to the first token is from the first byte sent.  The stub's
 * texts tell the ideal time too: to the end of the first step that began after the request was
 * sent.  `quern bench serve`, which measures all others, reads no texts.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STREAMS_MAX = 4096, HEAD_BYTES = 4096, REQUEST_BYTES = 512, EVENTS = 64 };

/* The last chunk of an answer, behind the end of the one before. */
static const char last_chunk[] = "\r\n0\r\n\r\n";
enum { LAST_BYTES = sizeof last_chunk - 1 };

typedef struct stream {
    int fd;
    uint32_t i_request; /* of this stream, from 0 */
    int64_t begun_ns;
    bool has_text;
    size_t n_head;
    char head[HEAD_BYTES];   /* [n_head] of the answer, up to its first text */
    char latest[LAST_BYTES]; /* of the answer */
} stream;

typedef struct load {
    struct sockaddr_in address;
    uint32_t n_streams, n_requests, n_output, n_active;
    int64_t step_ns;
    double *first_ms, *ideal_ms; /* [n_streams * n_requests] owned */
    size_t n_samples;
    int64_t woken_ns; /* bytes read since were there by then: what the client does with the streams
                         before this one is not the server's time */
    int epoll_fd;
    stream *streams; /* [n_streams] owned */
} load;

static void fail(const char *what, const char *seen)
{
    (void)fprintf(stderr, "serve_load: error: %s: %s\n", what, seen);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *allocate(size_t n, size_t size)
{
    void *const memory = calloc(n, size);
    if (memory == NULL) {
        fail("memory", "none left");
    }
    return memory;
}

/* 0 to 1, the same for the same numbers. */
static double draw(uint32_t a, uint32_t b)
{
    uint64_t x = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    return (double)(x >> 32) / 4294967296.0;
}

static void open_stream(load *l, stream *s)
{
    const int on = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || connect(s->fd, (const struct sockaddr *)&l->address, sizeof l->address) != 0 ||
        setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, s->fd, &event) != 0) {
        fail("connection", strerror(errno));
    }
}

static void begin(const load *l, stream *s)
{
    char request[REQUEST_BYTES];
    char body[REQUEST_BYTES / 2];
    const uint32_t i_stream = (uint32_t)(s - l->streams);
    const uint32_t n_output = (uint32_t)(l->n_output * (0.5 + draw(i_stream, s->i_request)) + 0.5);
    const int n_body =
        snprintf(body, sizeof body, "{\"stream\": true, \"max_tokens\": %u, \"prompt\": \"%u %u\"}",
                 n_output > 0 ? n_output : 1, i_stream, s->i_request);
    const int n = snprintf(request, sizeof request,
                           "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                           "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                           n_body, body);
    s->has_text = false;
    s->n_head = 0;
    s->begun_ns = now_ns();
    if (send(s->fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
        fail("send", strerror(errno));
    }
}

/* The text says when the step that made it began, and those before it did: sample when it came, and
 * when it could have. */
static void take_text(load *l, const stream *s, const char *text)
{
    char *at = NULL;
    int64_t first = (int64_t)strtoll(text, &at, 10);
    for (int64_t begun = first; begun >= s->begun_ns && *at == ' ';) {
        first = begun;
        begun = (int64_t)strtoll(at, &at, 10);
    }
    l->first_ms[l->n_samples] = 1e-6 * (double)(l->woken_ns - s->begun_ns);
    l->ideal_ms[l->n_samples++] = 1e-6 * (double)(first + l->step_ns - s->begun_ns);
}

/* Look for the first text, in what has come of an answer so far. */
static void take_head(load *l, stream *s, const char *bytes, size_t n)
{
    static const char status[] = "HTTP/1.1 200 ", name[] = "\"text\": \"";
    const size_t n_room = sizeof s->head - 1 - s->n_head;
    n = n < n_room ? n : n_room;
    memcpy(s->head + s->n_head, bytes, n);
    s->n_head += n;
    s->head[s->n_head] = '\0';
    const size_t n_status = s->n_head < sizeof status - 1 ? s->n_head : sizeof status - 1;
    if (s->n_head == sizeof s->head - 1 || strncmp(s->head, status, n_status) != 0) {
        fail("answer", s->head);
    }
    const char *const text = strstr(s->head, name);
    if (text != NULL && strchr(text, '\n') != NULL) {
        s->has_text = true;
        take_text(l, s, text + sizeof name - 1);
    }
}

/* Read; true: the answer is whole. */
static bool take(load *l, stream *s)
{
    static char bytes[1 << 16];
    const ssize_t n_read = recv(s->fd, bytes, sizeof bytes, 0);
    if (n_read <= 0) {
        fail("answer", n_read == 0 ? "cut off" : strerror(errno));
    }
    const size_t n = (size_t)n_read;
    if (!s->has_text) {
        take_head(l, s, bytes, n);
    }
    const size_t n_new = n < LAST_BYTES ? n : LAST_BYTES;
    memmove(s->latest, s->latest + n_new, LAST_BYTES - n_new);
    memcpy(s->latest + LAST_BYTES - n_new, bytes + n - n_new, n_new);
    const bool is_whole = memcmp(s->latest, last_chunk, LAST_BYTES) == 0;
    if (is_whole && !s->has_text) {
        fail("answer without text", s->head);
    }
    return is_whole;
}

static void run(load *l)
{
    for (uint32_t i = 0; i < l->n_streams; i++) {
        open_stream(l, &l->streams[i]);
    }
    for (uint32_t i = 0; i < l->n_streams; i++) {
        begin(l, &l->streams[i]);
    }
    l->n_active = l->n_streams;
    while (l->n_active > 0) {
        struct epoll_event events[EVENTS];
        const int n = epoll_wait(l->epoll_fd, events, EVENTS, 120000);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            fail("waiting", n == 0 ? "nothing for 120 s" : strerror(errno));
        }
        l->woken_ns = now_ns();
        for (int i = 0; i < n; i++) {
            stream *const s = events[i].data.ptr;
            if (!take(l, s)) {
                continue;
            }
            s->i_request++;
            if (s->i_request < l->n_requests) {
                begin(l, s);
            } else {
                l->n_active--;
            }
        }
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double *values, size_t n, double share)
{
    qsort(values, n, sizeof *values, compare);
    const size_t at = (size_t)(share * (double)n);
    return values[at < n ? at : n - 1];
}

static void report(load *l, int64_t begun_ns)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    const double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                         1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    const size_t n = l->n_samples;
    printf("{\"streams\": %u, \"completed\": %zu, \"duration_s\": %.3f", l->n_streams, n,
           1e-9 * (double)(now_ns() - begun_ns));
    printf(", \"ttft_ms\": {\"p50\": %.3f, \"p99\": %.3f}", percentile(l->first_ms, n, 0.5),
           percentile(l->first_ms, n, 0.99));
    printf(", \"ideal_ttft_ms\": {\"p50\": %.3f, \"p99\": %.3f}", percentile(l->ideal_ms, n, 0.5),
           percentile(l->ideal_ms, n, 0.99));
    printf(", \"added_ttft_p99_ms\": %.3f, \"client_cpu_s\": %.2f}\n",
           percentile(l->first_ms, n, 0.99) - percentile(l->ideal_ms, n, 0.99), cpu_s);
}

static uint32_t number(const char *flag, const char *value, uint32_t most)
{
    char *rest = NULL;
    const unsigned long n = strtoul(value, &rest, 10);
    if (*value == '\0' || *rest != '\0' || n == 0 || n > most) {
        fail(flag, value);
    }
    return (uint32_t)n;
}

static void read_address(load *l, const char *text)
{
    char host[64];
    const char *const colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof host) {
        fail(text, "expected HOST:PORT");
    }
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    l->address.sin_family = AF_INET;
    l->address.sin_port = htons((uint16_t)number("port", colon + 1, UINT16_MAX));
    if (inet_pton(AF_INET, host, &l->address.sin_addr) != 1) {
        fail(text, "expected an address of IPv4");
    }
}

static void read_flag(load *l, const char *flag, const char *value)
{
    if (strcmp(flag, "--streams") == 0) {
        l->n_streams = number(flag, value, STREAMS_MAX);
    } else if (strcmp(flag, "--requests") == 0) {
        l->n_requests = number(flag, value, 60000);
    } else if (strcmp(flag, "--output-tokens") == 0) {
        l->n_output = number(flag, value, 1000000);
    } else if (strcmp(flag, "--step") == 0) {
        l->step_ns = number(flag, value, 1000000000);
    } else {
        fail(flag, "no such option");
    }
}

int main(int n_arguments, char **arguments)
{
    static load l = {.n_streams = 1, .n_requests = 4, .n_output = 64, .step_ns = 10000000};
    for (int i = 1; i + 1 < n_arguments; i += 2) {
        read_flag(&l, arguments[i], arguments[i + 1]);
    }
    if (n_arguments % 2 != 0) {
        fail("usage", "bench_serve_load [OPTIONS] HOST:PORT");
    }
    read_address(&l, arguments[n_arguments - 1]);
    l.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l.streams = allocate(l.n_streams, sizeof *l.streams);
    l.first_ms = allocate((size_t)l.n_streams * l.n_requests, sizeof(double));
    l.ideal_ms = allocate((size_t)l.n_streams * l.n_requests, sizeof(double));
    const int64_t begun_ns = now_ns();
    run(&l);
    report(&l, begun_ns);
    return 0;
}
