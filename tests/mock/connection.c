/* SPDX-License-Identifier: Apache-2.0 */
#include "mock.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

mock_connection *mock_connection_open(mock_server *s, int fd)
{
    mock_connection *const c = calloc(1, sizeof *c);
    if (c == NULL) {
        mock_end("memory: none, expected some for a connection");
    }
    c->fd = fd;
    c->number = s->n_connections++;
    c->i_heap = SIZE_MAX;
    c->events = EPOLLIN;
    qn_buf_init(&c->in, MOCK_BYTES_MAX);
    qn_buf_init(&c->out, MOCK_BYTES_MAX);
    s->n_open++;
    struct epoll_event event = {.events = c->events, .data.ptr = c};
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        mock_end("epoll_ctl: %s, expected it to work", strerror(errno));
    }
    return c;
}

void mock_connection_close(mock_server *s, mock_connection *c)
{
    if (c->request != NULL) {
        mock_request_end(s, c, "left");
    }
    mock_timer_clear(s, c);
    if (c->resets) {
        const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    (void)close(c->fd);
    c->fd = -1;
    s->n_open--;
    c->next_dead = s->dead;
    s->dead = c;
}

void mock_connections_bury(mock_server *s)
{
    while (s->dead != NULL) {
        mock_connection *const c = s->dead;
        s->dead = c->next_dead;
        qn_buf_deinit(&c->in);
        qn_buf_deinit(&c->out);
        free(c);
    }
}

static void wait_for(mock_server *s, mock_connection *c, uint32_t events)
{
    if (c->events != events) {
        struct epoll_event event = {.events = events, .data.ptr = c};
        c->events = events;
        (void)epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->fd, &event);
    }
}

void mock_connection_flush(mock_server *s, mock_connection *c)
{
    if (c->fd < 0) {
        return;
    }
    const bool is_slow = c->request != NULL && c->request->plan.has[MOCK_SLOW_BYTES];
    while (c->n_written < c->out.len) {
        const size_t n_left = c->out.len - c->n_written;
        const ssize_t n = send(c->fd, c->out.ptr + c->n_written, is_slow ? 1 : n_left,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (n < 0) {
            mock_connection_close(s, c);
            return;
        }
        c->n_written += (size_t)n;
    }
    if (c->n_written < c->out.len) {
        wait_for(s, c, EPOLLIN | EPOLLOUT);
        return;
    }
    wait_for(s, c, EPOLLIN);
    qn_buf_clear(&c->out);
    c->n_written = 0;
    if (c->closes && c->request == NULL) {
        mock_connection_close(s, c);
    }
}

void mock_reply(mock_connection *c, int status, const char *type, const char *head, qn_str body)
{
    mock_put(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s\r\n",
             status, status == 200 ? "OK" : "Scripted", type, body.len,
             c->closes ? "Connection: close\r\n" : "", head);
    mock_put_bytes(&c->out, body.ptr, body.len);
}

void mock_reply_json(mock_connection *c, int status, const char *head, json_t *body)
{
    char *const text = json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (text == NULL) {
        mock_end("memory: none, expected some for an answer");
    }
    mock_reply(c, status, "application/json", head, qn_str_of(text));
    free(text);
    json_decref(body);
}

/* The value of a header in the head that ends at @p end, without blanks; empty where it is not. */
static qn_str header(const char *head, const char *end, const char *name)
{
    const size_t len = strlen(name);
    for (const char *line = head; line < end;) {
        const char *const next = memmem(line, (size_t)(end - line), "\r\n", 2);
        if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
            line += len + 1;
            line += strspn(line, " \t");
            return (qn_str){.ptr = line, .len = (size_t)(next - line)};
        }
        line = next + 2;
    }
    return (qn_str){0};
}

/* Take the body out of its chunks, in place; false: it is not whole.  *n_taken: of @p in. */
static bool unchunk(qn_str in, char *body, size_t *body_len, size_t *n_taken)
{
    const char *at = in.ptr;
    const char *const end = in.ptr + in.len;
    for (*body_len = 0;;) {
        const char *const line_end = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (line_end == NULL) {
            return false;
        }
        const size_t n = strtoull(at, NULL, 16);
        at = line_end + 2;
        if ((size_t)(end - at) < n + 2 || n > MOCK_BYTES_MAX) {
            return false;
        }
        memcpy(body + *body_len, at, n);
        *body_len += n;
        at += n + 2;
        if (n == 0) {
            *n_taken = (size_t)(at - in.ptr);
            return true;
        }
    }
}

/* A copy of @p text that ends in NUL, cut to what fits. */
static void copy(char *out, size_t out_bytes, qn_str text)
{
    const size_t len = text.len < out_bytes ? text.len : out_bytes - 1;
    memcpy(out, text.len == 0 ? "" : text.ptr, len);
    out[len] = 0;
}

static void refuse(mock_connection *c, const char *what)
{
    c->closes = true;
    mock_reply_json(c, 400, "",
                    json_pack("{s:{s:s,s:s}}", "error", "message", what, "type", "bad_request"));
}

static void route(mock_server *s, mock_connection *c, const char *head, const char *head_end,
                  qn_str body)
{
    char method[8] = "", path[256] = "", key[128];
    copy(method, sizeof method, (qn_str){.ptr = head, .len = strcspn(head, " ")});
    const char *const target = head + strcspn(head, " ") + 1;
    copy(path, sizeof path, (qn_str){.ptr = target, .len = strcspn(target, " \r\n")});
    copy(key, sizeof key, header(head, head_end, "Authorization"));
    const bool is_chat = strcmp(path, "/v1/chat/completions") == 0;
    if (strcmp(method, "POST") != 0 || (!is_chat && strcmp(path, "/v1/completions") != 0)) {
        mock_page(s, c, method, path, body);
        return;
    }
    json_t *const json = json_loadb(body.ptr, body.len, 0, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        refuse(c, "body: no JSON object, expected one");
        return;
    }
    mock_request_begin(s, c, json, is_chat, key);
}

/* Answer the request that in begins with, where it is whole; false: it is not. */
static bool take_request(mock_server *s, mock_connection *c)
{
    const char *const head_end =
        c->in.len == 0 ? NULL : memmem(c->in.ptr, c->in.len, "\r\n\r\n", 4);
    if (head_end == NULL) {
        return false;
    }
    const char *const fields_end = head_end + 2;
    const size_t head_len = (size_t)(head_end + 4 - c->in.ptr);
    qn_str body = {.ptr = c->in.ptr + head_len, .len = c->in.len - head_len};
    size_t n_taken = 0;
    char *joined = NULL;
    bool is_whole;
    if (header(c->in.ptr, fields_end, "Transfer-Encoding").len > 0) {
        joined = mock_grow(NULL, body.len + 1, 1);
        size_t len = 0;
        is_whole = unchunk(body, joined, &len, &n_taken);
        body = (qn_str){.ptr = joined, .len = len};
    } else {
        const qn_str length = header(c->in.ptr, fields_end, "Content-Length");
        n_taken = length.len > 0 ? strtoull(length.ptr, NULL, 10) : 0;
        is_whole = body.len >= n_taken;
        body.len = is_whole ? n_taken : 0;
    }
    if (is_whole) {
        const qn_str connection = header(c->in.ptr, fields_end, "Connection");
        c->closes = connection.len == 5 && strncasecmp(connection.ptr, "close", 5) == 0;
        c->was_continued = false;
        route(s, c, c->in.ptr, fields_end, body);
        n_taken += head_len;
        memmove(c->in.ptr, c->in.ptr + n_taken, c->in.len - n_taken + 1);
        c->in.len -= n_taken;
    } else if (!c->was_continued && header(c->in.ptr, fields_end, "Expect").len > 0) {
        c->was_continued = true;
        mock_put(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    free(joined);
    return is_whole;
}

/* All that has come; false: the other side is gone. */
static bool read_all(mock_connection *c)
{
    for (;;) {
        static char bytes[1 << 18];
        const ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 && errno == EAGAIN;
        }
        mock_put_bytes(&c->in, bytes, (size_t)n);
        if ((size_t)n < sizeof bytes) {
            return true;
        }
    }
}

void mock_connection_ready(mock_server *s, mock_connection *c, uint32_t events)
{
    if (c->fd < 0) {
        return;
    }
    if (((events & (uint32_t)EPOLLIN) != 0 && !read_all(c)) ||
        (events & (uint32_t)(EPOLLERR | EPOLLHUP)) != 0) {
        mock_connection_close(s, c);
        return;
    }
    while (c->request == NULL && !c->closes && c->fd >= 0 && take_request(s, c)) {
    }
    if (c->out.len > 0) {
        mock_connection_flush(s, c);
    }
}
