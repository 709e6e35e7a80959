/* SPDX-License-Identifier: Apache-2.0 */
/** @file tiny_server.h  A server in threads of the test: what it answers is told by the path. */
#ifndef QN_TEST_TINY_SERVER_H
#define QN_TEST_TINY_SERVER_H
#include "base/assert.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TINY_CONNECTIONS_MAX = 8192, TINY_REQUEST_BYTES = 2 << 20 };

typedef struct tiny_server {
    int listen_fd;
    int port;
    pthread_t thread;
    pthread_t threads[TINY_CONNECTIONS_MAX]; /**< One for each connection there was. */
    int fds[TINY_CONNECTIONS_MAX];
    atomic_int n_connections;
    atomic_int n_requests;
    atomic_int n_drops;      /**< Sent for /drip. */
    atomic_int n_body_bytes; /**< Of the last request. */
    atomic_int body_sum;     /**< Sum of its bytes. */
    pthread_mutex_t mutex;   /**< Of head. */
    char head[4096];         /**< Of the last request: read it when the answer has come. */
} tiny_server;

typedef struct tiny_connection {
    tiny_server *server;
    int i_connection;
} tiny_connection;

#define TINY_CHUNKED                                                                               \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

/** False: nobody listens. */
static inline bool tiny_send(int fd, const char *text)
{
    for (size_t n = strlen(text); n > 0;) {
        const ssize_t n_sent = send(fd, text, n, MSG_NOSIGNAL);
        if (n_sent <= 0) {
            return false;
        }
        text += n_sent;
        n -= (size_t)n_sent;
    }
    return true;
}

/** One chunk of HTTP. */
static inline bool tiny_chunk(int fd, const char *text)
{
    char chunk[2048];
    (void)snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n", strlen(text), text);
    return tiny_send(fd, chunk);
}

#define TINY_TEXT(text) "data: {\"choices\":[{\"text\":\"" text "\",\"finish_reason\":null}]}\n\n"
#define TINY_FINISH     "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n"
#define TINY_USAGE(n)                                                                              \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":" n                \
    ",\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n"

/** All but the end of the body. */
static inline void tiny_done(int fd)
{
    tiny_send(fd, TINY_CHUNKED);
    tiny_chunk(fd, TINY_TEXT("one"));
    tiny_chunk(fd, TINY_TEXT(" two"));
    tiny_chunk(fd, TINY_FINISH);
    tiny_chunk(fd, TINY_USAGE("3"));
    tiny_chunk(fd, "data: [DONE]\n\n");
}

static inline void tiny_whole(int fd)
{
    tiny_done(fd);
    tiny_send(fd, "0\r\n\r\n");
}

/** Wait until the client closes. */
static inline void tiny_hang(int fd)
{
    char byte = 0;
    while (recv(fd, &byte, 1, 0) > 0) {
    }
}

/** A header line, or a body, without end. */
static inline void tiny_endless(int fd, const char *begin)
{
    char line[16384];
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    (void)tiny_send(fd, begin);
    while (tiny_send(fd, line)) {
    }
}

/** A token each millisecond, until nobody listens. */
static inline void tiny_drip(tiny_server *server, int fd)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    (void)tiny_send(fd, TINY_CHUNKED);
    while (tiny_chunk(fd, TINY_TEXT("x"))) {
        server->n_drops++;
        (void)nanosleep(&pause, NULL);
    }
}

/** What is sent for a path, and what follows. */
typedef struct tiny_text {
    const char *path, *text;
    enum { TINY_KEEP, TINY_CLOSE, TINY_HANG } then;
} tiny_text;

/** Chunks of HTTP that hold an event: their lengths in hexadecimal. */
#define TINY_ONE "39\r\n" TINY_TEXT("one") "\r\n"

static const tiny_text tiny_texts[] = {
    {"/429",
     "HTTP/1.1 429 Slow\r\nContent-Length: 32\r\n\r\n{\"error\":{\"message\":\"too many\"}}",
     TINY_KEEP},
    {"/500", "HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nbang", TINY_KEEP},
    {"/301", "HTTP/1.1 301 No\r\nLocation: /whole\r\nContent-Length: 0\r\n\r\n", TINY_KEEP},
    {"/json", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}", TINY_KEEP},
    {"/text", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", TINY_KEEP},
    {"/nothing", "", TINY_CLOSE},
    {"/cut", TINY_CHUNKED TINY_ONE, TINY_CLOSE},
    {"/chunks", TINY_CHUNKED "xyz\r\n", TINY_CLOSE},
    {"/noise", "\x01\x02 no HTTP at all\r\n\r\n", TINY_CLOSE},
    {"/malformed", TINY_CHUNKED "15\r\ndata: {\"choices\":[{\n\n\r\n", TINY_HANG},
    {"/error", TINY_CHUNKED TINY_ONE "28\r\ndata: {\"error\":{\"message\":\"no pages\"}}\n\n\r\n",
     TINY_HANG},
    {"/begins", TINY_CHUNKED TINY_ONE, TINY_HANG},
    {"/hang", "", TINY_HANG},
};

static atomic_int tiny_n_once;

/** The connection closes, and its number is not given again. */
static inline bool tiny_gone(int fd)
{
    const int none = open("/dev/null", O_RDONLY);
    QN_ASSERT(dup2(none, fd) == fd);
    (void)close(none);
    return false;
}

/** Answer by @p path; false: close the connection. */
static inline bool tiny_answer(tiny_server *server, int fd, const char *path, int i_request)
{
    for (size_t i = 0; i < sizeof tiny_texts / sizeof *tiny_texts; i++) {
        const tiny_text *const t = &tiny_texts[i];
        if (strcmp(path, t->path) == 0) {
            (void)tiny_send(fd, t->text);
            if (t->then == TINY_HANG) {
                tiny_hang(fd);
            }
            return t->then == TINY_KEEP;
        }
    }
    if (strcmp(path, "/head") == 0) {
        tiny_endless(fd, "HTTP/1.1 200 OK\r\nLong: ");
    } else if (strcmp(path, "/endless") == 0) {
        tiny_endless(fd, "HTTP/1.1 200 OK\r\n\r\n");
    } else if (strcmp(path, "/stays") == 0) {
        tiny_done(fd);
        tiny_hang(fd);
    } else if (strcmp(path, "/reset") == 0 && i_request > 0) {
        const struct linger at_once = {.l_onoff = 1};
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        return tiny_gone(fd);
    } else if (strcmp(path, "/drip") == 0) {
        tiny_drip(server, fd);
    } else if (strcmp(path, "/second") == 0 && i_request > 0) { /* closes when it is asked again */
        return false;
    } else if (strcmp(path, "/warm") == 0 && i_request > 0) { /* hangs then */
        tiny_hang(fd);
    } else {
        tiny_whole(fd);
    }
    if (strcmp(path, "/once") == 0) { /* closes with no word of it before, at any moment */
        const struct timespec pause = {.tv_nsec = 20000L * (tiny_n_once++ % 50)};
        (void)nanosleep(&pause, NULL);
        return tiny_gone(fd);
    }
    return true;
}

/** Read one request; false: the connection is closed. */
static inline bool tiny_read(tiny_server *server, int fd, char *request, char *path)
{
    size_t n = 0;
    const char *end = NULL;
    while (end == NULL) {
        const ssize_t n_read = recv(fd, request + n, TINY_REQUEST_BYTES - 1 - n, 0);
        if (n_read <= 0) {
            return false;
        }
        n += (size_t)n_read;
        request[n] = '\0';
        end = strstr(request, "\r\n\r\n");
    }
    const char *const length = strcasestr(request, "\r\nContent-Length: ");
    const size_t n_body = length != NULL ? strtoul(length + 18, NULL, 10) : 0;
    const size_t n_head = (size_t)(end + 4 - request);
    while (n < n_head + n_body) {
        const ssize_t n_read = recv(fd, request + n, TINY_REQUEST_BYTES - 1 - n, 0);
        if (n_read <= 0) {
            return false;
        }
        n += (size_t)n_read;
    }
    int sum = 0;
    for (size_t i = n_head; i < n; i++) {
        sum += (uint8_t)request[i];
    }
    server->body_sum = sum;
    server->n_body_bytes = (int)(n - n_head);
    (void)pthread_mutex_lock(&server->mutex);
    (void)snprintf(server->head, sizeof server->head, "%.*s", (int)n_head, request);
    (void)pthread_mutex_unlock(&server->mutex);
    const char *const begin = strchr(request, ' ') + 1;
    (void)snprintf(path, 64, "%.*s", (int)strcspn(begin, " "), begin);
    server->n_requests++;
    return true;
}

static inline void *tiny_serve(void *context)
{
    tiny_connection *const c = context;
    const int fd = c->server->fds[c->i_connection];
    char *const request = malloc(TINY_REQUEST_BYTES);
    char path[64];
    QN_ASSERT(request != NULL);
    for (int i_request = 0; tiny_read(c->server, fd, request, path); i_request++) {
        if (!tiny_answer(c->server, fd, path, i_request)) {
            break;
        }
    }
    (void)shutdown(fd, SHUT_RDWR); /* closed when it is joined: its number is not given again */
    free(request);
    free(c);
    return NULL;
}

static inline void *tiny_accept(void *context)
{
    tiny_server *const server = context;
    for (;;) {
        const int fd = accept(server->listen_fd, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        tiny_connection *const c = malloc(sizeof *c);
        QN_ASSERT(c != NULL && server->n_connections < TINY_CONNECTIONS_MAX);
        *c = (tiny_connection){.server = server, .i_connection = server->n_connections};
        server->fds[c->i_connection] = fd;
        QN_ASSERT(pthread_create(&server->threads[c->i_connection], NULL, tiny_serve, c) == 0);
        server->n_connections++;
    }
}

static inline void tiny_open(tiny_server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n_bytes = sizeof address;
    *server = (tiny_server){.listen_fd = socket(AF_INET, SOCK_STREAM, 0),
                            .mutex = PTHREAD_MUTEX_INITIALIZER};
    QN_ASSERT(bind(server->listen_fd, (struct sockaddr *)&address, n_bytes) == 0);
    QN_ASSERT(listen(server->listen_fd, 64) == 0);
    QN_ASSERT(getsockname(server->listen_fd, (struct sockaddr *)&address, &n_bytes) == 0);
    server->port = ntohs(address.sin_port);
    QN_ASSERT(pthread_create(&server->thread, NULL, tiny_accept, server) == 0);
}

static inline void tiny_close(tiny_server *server)
{
    (void)shutdown(server->listen_fd, SHUT_RDWR);
    (void)pthread_join(server->thread, NULL);
    (void)close(server->listen_fd);
    for (int i = 0; i < server->n_connections; i++) {
        (void)shutdown(server->fds[i], SHUT_RDWR);
        (void)pthread_join(server->threads[i], NULL);
        (void)close(server->fds[i]);
    }
}

/** A server in a process of its own, where no allocation fails. */
typedef struct tiny_child {
    pid_t pid;
    int port;
    tiny_server *server; /**< Shared with the child: its counters may be read. */
} tiny_child;

/** Before there are threads. */
static inline void tiny_child_open(tiny_child *child)
{
    int ends[2];
    QN_ASSERT(pipe(ends) == 0);
    child->server = mmap(NULL, sizeof *child->server, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    QN_ASSERT(child->server != MAP_FAILED);
    child->pid = fork();
    QN_ASSERT(child->pid >= 0);
    if (child->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        tiny_open(child->server);
        QN_ASSERT(write(ends[1], &child->server->port, sizeof child->server->port) > 0);
        for (;;) {
            (void)pause();
        }
    }
    (void)close(ends[1]);
    QN_ASSERT(read(ends[0], &child->port, sizeof child->port) == (ssize_t)sizeof child->port);
    (void)close(ends[0]);
}

static inline void tiny_child_close(tiny_child *child)
{
    (void)kill(child->pid, SIGKILL);
    (void)waitpid(child->pid, NULL, 0);
    (void)munmap(child->server, sizeof *child->server);
}
#endif
