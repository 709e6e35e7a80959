/* SPDX-License-Identifier: Apache-2.0 */
/** @file pages.h  A server of the test that has a text for each path, and one that never comes. */
#ifndef QN_TEST_PAGES_H
#define QN_TEST_PAGES_H
#include "bench/http.h"
#include "support/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAGES_MAX = 16, PAGES_HELD_MAX = 64 };

typedef struct page_text {
    const char *path;
    const char *body; /**< NULL: no answer ever comes. */
    int status;       /**< 0: 200 */
} page_text;

typedef struct page_server {
    page_text of[PAGES_MAX];
    size_t n;
    pthread_mutex_t lock;
    atomic_int n_asked;
    int listen_fd;
    int held[PAGES_HELD_MAX]; /**< Connections that wait for ever. */
    size_t n_held;
    pthread_t thread;
    char url[64];
    bench_target target;
} page_server;

static inline void pages_answer(page_server *from, int fd)
{
    char request[8192];
    char path[256] = "";
    char head[256];
    const ssize_t n = recv(fd, request, sizeof request - 1, 0);
    request[n > 0 ? n : 0] = '\0';
    (void)sscanf(request, "%*s %255s", path);
    page_text found = {path, "", 404};
    (void)pthread_mutex_lock(&from->lock);
    for (size_t i = 0; i < from->n; i++) {
        found = strcmp(from->of[i].path, path) == 0 ? from->of[i] : found;
    }
    (void)pthread_mutex_unlock(&from->lock);
    if (found.body == NULL && from->n_held < PAGES_HELD_MAX) {
        from->held[from->n_held++] = fd;
    } else {
        (void)snprintf(head, sizeof head,
                       "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                       found.status != 0 ? found.status : 200, strlen(found.body));
        (void)send(fd, head, strlen(head), MSG_NOSIGNAL);
        for (size_t at = 0; at < strlen(found.body);) {
            const ssize_t sent = send(fd, found.body + at, strlen(found.body + at), MSG_NOSIGNAL);
            if (sent <= 0) {
                break;
            }
            at += (size_t)sent;
        }
        (void)close(fd);
    }
    atomic_fetch_add(&from->n_asked, 1);
}

static inline void *pages_run(void *context)
{
    page_server *const from = context;
    for (;;) {
        const int fd = accept(from->listen_fd, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        pages_answer(from, fd);
    }
}

/** Another text for a path, from now on. */
static inline void pages_set(page_server *of, const char *path, int status, const char *body)
{
    size_t i = 0;
    (void)pthread_mutex_lock(&of->lock);
    while (i < of->n && strcmp(of->of[i].path, path) != 0) {
        i++;
    }
    of->of[i] = (page_text){path, body, status};
    of->n += i == of->n;
    (void)pthread_mutex_unlock(&of->lock);
}

static inline void pages_start(page_server *of)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    memset(of, 0, sizeof *of);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    of->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(of->listen_fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(of->listen_fd, 64), 0);
    assert_int_equal(getsockname(of->listen_fd, (struct sockaddr *)&address, &len), 0);
    (void)snprintf(of->url, sizeof of->url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    of->target = (bench_target){.base_url = of->url, .timeout_s = 30, .connect_s = 10};
    assert_int_equal(pthread_mutex_init(&of->lock, NULL), 0);
    assert_int_equal(pthread_create(&of->thread, NULL, pages_run, of), 0);
}

static inline void pages_stop(page_server *of)
{
    (void)shutdown(of->listen_fd, SHUT_RDWR);
    (void)pthread_join(of->thread, NULL);
    (void)close(of->listen_fd);
    for (size_t i = 0; i < of->n_held; i++) {
        (void)close(of->held[i]);
    }
    (void)pthread_mutex_destroy(&of->lock);
}
#endif
