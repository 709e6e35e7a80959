/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load for servers of OpenAI's /v1/completions: streams in a closed loop, one connection each.
 *
 *     bench_serve_load [OPTIONS] HOST:PORT
 *
 *     --streams N        requests at once, at most 4,096 (default 1)
 *     --requests N       of each stream (default 4), after --warmup N that are not counted (1)
 *     --prompt-words N   of each prompt (default 32); no two prompts begin alike
 *     --output-tokens N  asked for (default 64); --spread X: N (1 - X) to N (1 + X), evenly (0)
 *     --model NAME       as the server knows it (default "model")
 *     --extra JSON       members for every body, as '"ignore_eos": true'
 *     --stamps NS        texts of bench_serve_stub with steps of NS nanoseconds: says what HTTP
 * adds
 *
 * Prints one JSON object.  Tokens are those of the usage that a stream ends with; of a server that
 * tells none, pieces of text.  The time to the first token is from the first byte sent to the first
 * piece that has text.  With --stamps the ideal time is known too: to the end of the first step
 * that began after the request was sent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
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

enum { STREAMS_MAX = 4096, LINE_MAX_BYTES = 1 << 16, HEAD_BYTES = 512, EVENTS = 64 };

/* What comes next of an answer. */
typedef enum part { PART_HEAD, PART_SIZE, PART_DATA, PART_DATA_END, PART_TRAILER } part;

typedef struct stream {
    int fd; /* -1: not connected */
    part part;
    size_t n_left;  /* Bytes of the chunk, or of a body of known length. */
    bool is_active; /* A request is under way. */
    bool is_chunked, is_last, closes, has_text, is_fresh;
    int status;
    uint32_t i_request; /* Of this stream, from 0. */
    int64_t begun_ns;
    uint64_t n_pieces, n_tokens, n_prompt;
    size_t n_line;
    char line[LINE_MAX_BYTES]; /* [n_line] of the head, or of an event; longer ones are cut. */
    char *out;                 /* owned */
    size_t n_out, n_sent;
} stream;

/* Samples of one kind, in milliseconds. */
typedef struct samples {
    double *values; /* [n] owned */
    size_t n;
} samples;

typedef struct load {
    const char *model, *extra, *host;
    uint32_t n_streams, n_requests, n_warmup, n_words, n_output;
    double spread;
    int64_t step_ns;
    struct sockaddr_storage address;
    socklen_t address_len;
    int epoll_fd;
    uint32_t n_active;
    samples first, ideal, whole, delivery;
    uint64_t n_tokens, n_pieces, n_prompt, n_done, n_failed;
    int64_t begun_ns, ended_ns;
    int64_t woken_ns; /* bytes read since were there by then: what the client does with the streams
                         before this one is not the server's time */
    bool has_usage;
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

/* The same for the same numbers. */
static uint32_t mix(uint32_t a, uint32_t b)
{
    uint64_t x = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    return (uint32_t)(x >> 32);
}

/* Prompts begin with their own number, so that no server finds one in its cache. */
static void write_request(load *l, stream *s, uint32_t i_stream)
{
    static const char *const words[] = {"the",   "river", "stone", "light", "small", "and",
                                        "walks", "over",  "green", "house", "with",  "seven"};
    const size_t n_words = sizeof words / sizeof *words;
    const size_t n_body_max = 512 + 8 * (size_t)l->n_words + strlen(l->model) + strlen(l->extra);
    char *const body = allocate(n_body_max, 1);
    const double unit = mix(i_stream, s->i_request) / 4294967296.0;
    const double factor = 1 - l->spread + 2 * l->spread * unit;
    const uint32_t n_output = (uint32_t)(l->n_output * factor + 0.5);
    int n =
        snprintf(body, n_body_max,
                 "{\"model\": \"%s\", \"stream\": true, \"temperature\": 0, \"max_tokens\": %u, "
                 "\"stream_options\": {\"include_usage\": true}, %s%s\"prompt\": \"%u %u",
                 l->model, n_output > 0 ? n_output : 1, l->extra, *l->extra ? ", " : "", i_stream,
                 s->i_request);
    for (uint32_t i_word = 0; i_word < l->n_words; i_word++) {
        n += snprintf(body + n, n_body_max - (size_t)n, " %s",
                      words[mix(i_stream * 65536 + s->i_request, i_word) % n_words]);
    }
    n += snprintf(body + n, n_body_max - (size_t)n, "\"}");
    free(s->out);
    s->out = allocate((size_t)n + HEAD_BYTES, 1);
    s->n_out = (size_t)snprintf(s->out, (size_t)n + HEAD_BYTES,
                                "POST /v1/completions HTTP/1.1\r\nHost: %.100s\r\n"
                                "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                                l->host, n, body);
    s->n_sent = 0;
    free(body);
}

static void watch(load *l, stream *s, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(l->epoll_fd, operation, s->fd, &event) != 0) {
        fail("epoll_ctl", strerror(errno));
    }
}

static void connect_stream(load *l, stream *s)
{
    s->fd = socket(l->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) {
        fail("socket", strerror(errno));
    }
    const int on = 1;
    (void)setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(s->fd, (const struct sockaddr *)&l->address, l->address_len) != 0 &&
        errno != EINPROGRESS) {
        fail("connect", strerror(errno));
    }
    s->is_fresh = true;
    watch(l, s, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void begin(load *l, stream *s)
{
    write_request(l, s, (uint32_t)(s - l->streams));
    s->part = PART_HEAD;
    s->is_active = true;
    s->is_chunked = s->is_last = s->closes = s->has_text = false;
    s->n_left = SIZE_MAX;
    s->n_line = s->n_pieces = s->n_tokens = s->n_prompt = 0;
    s->status = 0;
    s->begun_ns = now_ns();
    if (s->fd < 0) {
        connect_stream(l, s);
    } else {
        s->is_fresh = false;
        watch(l, s, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
}

static void disconnect(stream *s)
{
    if (s->fd >= 0) {
        (void)close(s->fd);
        s->fd = -1;
    }
}

static void add(samples *list, int64_t ns)
{
    list->values[list->n++] = 1e-6 * (double)ns;
}

/* The whole answer is there, or never will be: count it and go on. */
static void end(load *l, stream *s, const char *why)
{
    const int64_t now = now_ns();
    const bool is_good = why == NULL && s->status == 200 && s->has_text;
    if (!is_good) {
        l->n_failed++;
        if (l->n_failed <= 3) {
            (void)fprintf(stderr, "serve_load: status %d, %s: %.300s\n", s->status,
                          why != NULL ? why : "no text", s->line);
        }
    } else if (s->i_request >= l->n_warmup) {
        l->has_usage = l->has_usage || s->n_tokens > 0;
        l->n_tokens += s->n_tokens > 0 ? s->n_tokens : s->n_pieces;
        l->n_pieces += s->n_pieces;
        l->n_prompt += s->n_prompt;
        l->n_done++;
        add(&l->whole, now - s->begun_ns);
    }
    l->ended_ns = now;
    s->line[s->n_line] = '\0';
    if (s->closes || !is_good) {
        disconnect(s);
    }
    s->i_request++;
    s->is_active = false;
    l->n_active--;
}

/* The value of "NAME": in @p json, at its first byte; NULL. */
static const char *member(const char *json, const char *name)
{
    const char *at = strstr(json, name);
    if (at == NULL) {
        return NULL;
    }
    at += strlen(name);
    return at + strspn(at, " ");
}

/* bench_serve_stub writes when the step that made a token began, and those before it did: sample
 * what came behind it, and what had been possible. */
static void take_stamp(load *l, stream *s, const char *text, int64_t now)
{
    char *at = NULL;
    int64_t first = (int64_t)strtoll(text + 1, &at, 10);
    add(&l->delivery, now - first - l->step_ns);
    for (int64_t begun = first; begun >= s->begun_ns && *at == ' ';) {
        first = begun;
        begun = (int64_t)strtoll(at, &at, 10);
    }
    add(&l->ideal, first + l->step_ns - s->begun_ns);
}

static void take_line(load *l, stream *s)
{
    s->line[s->n_line] = '\0';
    s->n_line = 0;
    if (strncmp(s->line, "data: {", 7) != 0) {
        return;
    }
    const char *const text = member(s->line, "\"text\":");
    if (text != NULL && text[0] == '"' && text[1] != '"') {
        if (!s->has_text && s->i_request >= l->n_warmup) {
            add(&l->first, l->woken_ns - s->begun_ns);
            if (l->step_ns > 0) {
                take_stamp(l, s, text, l->woken_ns);
            }
        }
        s->has_text = true;
        s->n_pieces++;
    }
    const char *const n_tokens = member(s->line, "\"completion_tokens\":");
    if (n_tokens != NULL) {
        s->n_tokens = strtoull(n_tokens, NULL, 10);
        const char *const n_prompt = member(s->line, "\"prompt_tokens\":");
        s->n_prompt = n_prompt != NULL ? strtoull(n_prompt, NULL, 10) : 0;
    }
}

/* A line of the head, of a chunk's frame, or of an event, is it complete?  Keeps what is there. */
static bool take_byte(stream *s, char byte)
{
    if (byte == '\n') {
        s->n_line -= s->n_line > 0 && s->line[s->n_line - 1] == '\r' ? 1 : 0;
        return true;
    }
    if (s->n_line < LINE_MAX_BYTES - 1) {
        s->line[s->n_line++] = byte;
    }
    return false;
}

static bool starts(const char *line, const char *head)
{
    return strncasecmp(line, head, strlen(head)) == 0;
}

static void take_head_line(stream *s)
{
    s->line[s->n_line] = '\0';
    if (starts(s->line, "HTTP/1.1 ")) {
        s->status = (int)strtol(s->line + 9, NULL, 10);
    } else if (starts(s->line, "Transfer-Encoding: chunked")) {
        s->is_chunked = true;
    } else if (starts(s->line, "Content-Length:")) {
        s->n_left = strtoull(s->line + 15, NULL, 10);
    } else if (starts(s->line, "Connection: close")) {
        s->closes = true;
    } else if (s->n_line == 0) {
        s->part = s->is_chunked ? PART_SIZE : PART_DATA;
        s->is_last = s->part == PART_DATA && s->n_left == 0;
    }
    s->n_line = 0;
}

/* A line of the frame around chunks.  The size's line is not mixed with an event that two chunks
 * share, since it is read digit by digit. */
static void take_frame_byte(stream *s, char byte)
{
    if (s->part == PART_SIZE && byte != '\n') {
        if (byte != '\r') {
            const char digit[2] = {byte, '\0'};
            s->n_left = (s->n_left == SIZE_MAX ? 0 : s->n_left) * 16 + strtoul(digit, NULL, 16);
        }
    } else if (s->part == PART_SIZE) {
        s->part = s->n_left > 0 ? PART_DATA : PART_TRAILER;
    } else if (byte == '\n') { /* behind a chunk, or the trailer's empty line */
        s->is_last = s->part == PART_TRAILER;
        s->part = PART_SIZE;
        s->n_left = SIZE_MAX;
    }
}

/* Bytes of an answer; true: it is whole. */
static bool take(load *l, stream *s, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n && !s->is_last; i++) {
        if (s->part == PART_HEAD) {
            if (take_byte(s, bytes[i])) {
                take_head_line(s);
            }
        } else if (s->part == PART_DATA) {
            if (take_byte(s, bytes[i])) {
                take_line(l, s);
            }
            if (--s->n_left == 0) {
                s->part = s->is_chunked ? PART_DATA_END : PART_DATA;
                s->is_last = !s->is_chunked;
            }
        } else {
            take_frame_byte(s, bytes[i]);
        }
    }
    return s->is_last;
}

static void on_readable(load *l, stream *s)
{
    static char buffer[1 << 16];
    const ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n > 0 && s->is_active) {
        if (take(l, s, buffer, (size_t)n)) {
            end(l, s, NULL);
        }
        return;
    }
    disconnect(s);
    if (!s->is_active) { /* some promise to keep connections and do not */
        return;
    }
    if (s->status == 0 && !s->is_fresh) { /* closed while idle: the request was not seen */
        s->n_sent = 0;
        connect_stream(l, s);
    } else if (s->part == PART_DATA && !s->is_chunked && s->n_left > SIZE_MAX / 2) {
        end(l, s, NULL); /* a body that ends with its connection */
    } else {
        end(l, s, "cut off");
    }
}

static void on_writable(load *l, stream *s)
{
    const ssize_t n = send(s->fd, s->out + s->n_sent, s->n_out - s->n_sent, MSG_NOSIGNAL);
    if (n > 0) {
        s->n_sent += (size_t)n;
    }
    if (s->n_sent == s->n_out) {
        watch(l, s, EPOLL_CTL_MOD, EPOLLIN);
    }
}

/* Each stream up to its request @p n_until. */
static void run(load *l, uint32_t n_until)
{
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
            const uint32_t i_request = s->i_request;
            if ((events[i].events & EPOLLOUT) != 0) {
                on_writable(l, s);
            }
            if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0 && s->fd >= 0) {
                on_readable(l, s);
            }
            if (s->i_request != i_request && s->i_request < n_until) {
                begin(l, s);
                l->n_active++;
            }
        }
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(samples *list, double share)
{
    if (list->n == 0) {
        return 0;
    }
    qsort(list->values, list->n, sizeof *list->values, compare);
    const size_t at = (size_t)(share * (double)list->n);
    return list->values[at < list->n ? at : list->n - 1];
}

static void print_times(const char *name, samples *list)
{
    printf(", \"%s_ms\": {\"p50\": %.3f, \"p95\": %.3f, \"p99\": %.3f}", name,
           percentile(list, 0.5), percentile(list, 0.95), percentile(list, 0.99));
}

static void report(load *l)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    const double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                       1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    const double duration = 1e-9 * (double)(l->ended_ns - l->begun_ns);
    printf("{\"streams\": %u, \"completed\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"duration_s\": %.3f, \"prompt_tokens\": %" PRIu64 ", \"output_tokens\": %" PRIu64
           ", \"pieces\": %" PRIu64 ", \"counted_by\": \"%s\", \"output_tokens_per_s\": %.1f",
           l->n_streams, l->n_done, l->n_failed, duration, l->n_prompt, l->n_tokens, l->n_pieces,
           l->has_usage ? "usage" : "pieces", (double)l->n_tokens / duration);
    print_times("ttft", &l->first);
    print_times("e2e", &l->whole);
    if (l->step_ns > 0) {
        print_times("ideal_ttft", &l->ideal);
        print_times("delivery", &l->delivery);
        printf(", \"added_ttft_p99_ms\": %.3f",
               percentile(&l->first, 0.99) - percentile(&l->ideal, 0.99));
    }
    printf(", \"client_cpu_s\": %.2f}\n", cpu);
}

static uint32_t number(const char *flag, const char *value, uint32_t most)
{
    char *rest = NULL;
    const unsigned long n = strtoul(value, &rest, 10);
    if (*value == '\0' || *rest != '\0' || n > most) {
        fail(flag, value);
    }
    return (uint32_t)n;
}

static void read_flag(load *l, const char *flag, const char *value)
{
    if (strcmp(flag, "--streams") == 0) {
        l->n_streams = number(flag, value, STREAMS_MAX);
    } else if (strcmp(flag, "--requests") == 0) {
        l->n_requests = number(flag, value, 60000);
    } else if (strcmp(flag, "--warmup") == 0) {
        l->n_warmup = number(flag, value, 1000);
    } else if (strcmp(flag, "--prompt-words") == 0) {
        l->n_words = number(flag, value, 1000000);
    } else if (strcmp(flag, "--output-tokens") == 0) {
        l->n_output = number(flag, value, 1000000);
    } else if (strcmp(flag, "--spread") == 0) {
        l->spread = strtod(value, NULL);
    } else if (strcmp(flag, "--model") == 0) {
        l->model = value;
    } else if (strcmp(flag, "--extra") == 0) {
        l->extra = value;
    } else if (strcmp(flag, "--stamps") == 0) {
        l->step_ns = number(flag, value, 1000000000);
    } else {
        fail(flag, "no such option");
    }
}

static void resolve(load *l)
{
    char host[256];
    const char *const colon = strrchr(l->host, ':');
    if (colon == NULL || (size_t)(colon - l->host) >= sizeof host) {
        fail(l->host, "expected HOST:PORT");
    }
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - l->host), l->host);
    struct addrinfo *found = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    const int code = getaddrinfo(host, colon + 1, &hints, &found);
    if (code != 0) {
        fail(l->host, gai_strerror(code));
    }
    memcpy(&l->address, found->ai_addr, found->ai_addrlen);
    l->address_len = found->ai_addrlen;
    freeaddrinfo(found);
}

int main(int n_arguments, char **arguments)
{
    static load l = {.model = "model",
                     .extra = "",
                     .n_streams = 1,
                     .n_requests = 4,
                     .n_warmup = 1,
                     .n_words = 32,
                     .n_output = 64};
    for (int i = 1; i < n_arguments; i++) {
        if (strncmp(arguments[i], "--", 2) != 0) {
            l.host = arguments[i];
        } else if (i + 1 < n_arguments) {
            read_flag(&l, arguments[i], arguments[i + 1]);
            i++;
        } else {
            fail(arguments[i], "nothing follows");
        }
    }
    if (l.host == NULL || l.n_streams == 0) {
        fail("usage", "bench_serve_load [OPTIONS] HOST:PORT");
    }
    resolve(&l);
    l.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l.streams = allocate(l.n_streams, sizeof *l.streams);
    samples *const lists[] = {&l.first, &l.ideal, &l.whole, &l.delivery};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        lists[i]->values = allocate((size_t)l.n_streams * l.n_requests + 1, sizeof(double));
    }
    for (uint32_t i = 0; i < l.n_streams; i++) {
        l.streams[i].fd = -1;
    }
    if (l.n_warmup > 0 && l.step_ns == 0) {
        run(&l, l.n_warmup);
    }
    l.begun_ns = now_ns();
    if (l.n_requests > 0) {
        run(&l, l.n_warmup + l.n_requests);
    }
    report(&l);
    return l.n_failed > 0 ? 1 : 0;
}
