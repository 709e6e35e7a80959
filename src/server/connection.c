/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "server/http.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A body that turns out to be too large is read on, so that its sender hears why, up to so many
 * times the limit. */
enum { TOO_LARGE_FACTOR = 4, LINGER_S = 20 };

static const char *const methods[] = {"GET", "HEAD", "POST", "OPTIONS"};

const char *connection_header(const http_connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection->mhd, MHD_HEADER_KIND, name);
}

static void enter(http_connection *connection, http_state state)
{
    connection->state = state;
    connection->since_ns = qn_clock_ns();
}

/* -------------------------------------------------------------------------------------- bodies */

static void release_body(http_connection *connection)
{
    connection->server->body_bytes -= connection->body.capacity_bytes;
    qn_buf_deinit(&connection->body);
}

/* False: no memory, of the system or of what bodies may have in all. */
static bool keep_body(http_connection *connection, const char *bytes, size_t n_bytes)
{
    qn_server *const server = connection->server;
    const size_t before = connection->body.capacity_bytes;
    const uint64_t bytes_max = HTTP_BODIES_MAX * server->options.body_bytes_max;
    if (server->body_bytes > bytes_max ||
        qn_buf_append(&connection->body, bytes, n_bytes, NULL) < 0) {
        return false;
    }
    server->body_bytes += connection->body.capacity_bytes - before;
    return true;
}

static void fail_too_large(const http_connection *connection, server_error *error)
{
    server_fail(error, MHD_HTTP_CONTENT_TOO_LARGE, "body_too_large", "",
                "body: too large, at most %llu bytes expected",
                (unsigned long long)connection->server->options.body_bytes_max);
}

static enum MHD_Result take_body(http_connection *connection, const char *bytes, size_t n_bytes)
{
    const uint64_t bytes_max = connection->server->options.body_bytes_max;
    server_error error = {0};
    connection->n_body += n_bytes;
    if (connection->n_body > TOO_LARGE_FACTOR * bytes_max) {
        fail_too_large(connection, &error);
    } else if (connection->n_body > bytes_max) {
        connection->is_too_large = true;
        release_body(connection);
        return MHD_YES;
    } else if (keep_body(connection, bytes, n_bytes)) {
        return MHD_YES;
    } else {
        server_fail_memory(&error, "body");
    }
    answer_at_once(connection, &error);
    connection->lingers = true;
    return MHD_NO;
}

/* ------------------------------------------------------------------------------------ requests */

static bool allows(const http_route *route, const char *method)
{
    const size_t len = strlen(method);
    const char *at = route->methods;
    while ((at = strstr(at, method)) != NULL) {
        if ((at == route->methods || at[-1] == ' ') && (at[len] == ',' || at[len] == '\0')) {
            return true;
        }
        at += len;
    }
    return false;
}

static bool is_preflight(const http_connection *connection)
{
    return connection->server->options.cors_origin != NULL &&
           strcmp(connection->method, "OPTIONS") == 0;
}

/* What a head says of where its body ends, and whom it is for. */
typedef struct framing {
    int n_lengths, n_hosts;
    bool has_coding; /* of transfers, other than chunked */
} framing;

static enum MHD_Result see_header(void *context, enum MHD_ValueKind kind, const char *name,
                                  const char *value)
{
    framing *const seen = context;
    (void)kind;
    if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        seen->n_lengths++;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        seen->n_lengths++;
        seen->has_coding |= value == NULL || strcasecmp(value, "chunked") != 0;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0) {
        seen->n_hosts++;
    }
    return MHD_YES;
}

/* Where a head can be read in two ways, a proxy before us may have read it in the other one, and
 * what is a body to it is a request of somebody else's to us.
 * Source   RFC 9112, 3.2 and 6.3 */
static bool refuse_framing(const http_connection *connection, const char *version,
                           server_error *error)
{
    framing seen = {0};
    (void)MHD_get_connection_values(connection->mhd, MHD_HEADER_KIND, see_header, &seen);
    if (seen.n_lengths > 1) {
        server_fail(error, MHD_HTTP_BAD_REQUEST, "ambiguous_length", "",
                    "Content-Length, Transfer-Encoding: several, at most one of them expected");
    } else if (seen.has_coding) {
        server_fail(error, MHD_HTTP_BAD_REQUEST, "ambiguous_length", "",
                    "Transfer-Encoding: unknown, expected chunked");
    } else if (seen.n_hosts > 1 ||
               (seen.n_hosts == 0 && strcmp(version, MHD_HTTP_VERSION_1_1) == 0)) {
        server_fail(error, MHD_HTTP_BAD_REQUEST, "ambiguous_host", "", "Host: %s, one expected",
                    seen.n_hosts == 0 ? "missing" : "several");
    }
    return error->status_code != 0;
}

/* What can be refused by the head alone. */
static bool refuse_head(const http_connection *connection, const char *method, server_error *error)
{
    const qn_server *const server = connection->server;
    const http_route *const route = connection->route;
    const char *const length = connection_header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (!is_preflight(connection) && !access_is_granted(connection)) {
        server_fail(
            error, MHD_HTTP_UNAUTHORIZED, "invalid_api_key", "",
            "Authorization: %s, expected \"Bearer \" and a key of this server (or x-api-key)",
            connection_header(connection, MHD_HTTP_HEADER_AUTHORIZATION) == NULL &&
                    connection_header(connection, "x-api-key") == NULL
                ? "missing"
                : "no key that is known");
    } else if (route == NULL || route->methods == NULL) {
        server_fail(error, MHD_HTTP_NOT_FOUND, route == NULL ? "unknown_path" : "not_built", "",
                    route == NULL ? "path: %s is unknown, see the server's documentation"
                                  : "path: %s is not built in this server",
                    connection->path);
    } else if (!is_preflight(connection) && !allows(route, method)) {
        server_fail(error, MHD_HTTP_METHOD_NOT_ALLOWED, "method_not_allowed", "",
                    "method: %.16s of %s, expected %s", method, connection->path, route->methods);
    } else if (length != NULL && strtoull(length, NULL, 10) > server->options.body_bytes_max) {
        fail_too_large(connection, error);
    } else {
        return route->needs_model && !is_preflight(connection) && server_is_closed(server, error);
    }
    return true;
}

static bool has_body(const http_connection *connection)
{
    const char *const length = connection_header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return connection_header(connection, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL ||
           (length != NULL && strcmp(length, "0") != 0);
}

/* The head is there. */
static enum MHD_Result begin(http_connection *connection, const char *path, const char *method,
                             const char *version)
{
    qn_server *const server = connection->server;
    server_error error = {0};
    enter(connection, HTTP_BODY);
    if (connection->head_ns == 0) {
        connection->head_ns = connection->since_ns;
    }
    server->n_requests++;
    connection->route = route_find(path);
    connection->status_code = 0;
    connection->n_body = 0;
    connection->is_too_large = connection->is_told = false;
    connection->method = "?";
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        connection->method = strcmp(method, methods[i]) == 0 ? methods[i] : connection->method;
    }
    (void)snprintf(connection->path, sizeof connection->path, "%s", path);
    access_set_id(connection);
    qn_buf_init(&connection->body, server->options.body_bytes_max);
    /* MHD closes a connection that is answered here, so only what has a body is. */
    connection->lingers = true;
    if (refuse_framing(connection, version, &error) ||
        (has_body(connection) && refuse_head(connection, method, &error))) {
        return answer_error(connection, &error);
    }
    connection->lingers = false;
    return MHD_YES;
}

/* The body is there. */
static enum MHD_Result work(http_connection *connection, const char *method)
{
    const http_route *const route = connection->route;
    server_error error = {0};
    if (refuse_head(connection, method, &error)) {
        return answer_error(connection, &error);
    }
    if (is_preflight(connection)) {
        return answer_preflight(connection);
    }
    if (connection->is_too_large) {
        fail_too_large(connection, &error);
        return answer_error(connection, &error);
    }
    if (connection->server->options.logs_prompts && connection->body.len > 0) {
        qn_log(QN_LOG_INFO, "request=%s body=%s", connection->id, connection->body.ptr);
    }
    if (route->page != NULL) {
        qn_buf page;
        qn_buf_init(&page, SIZE_MAX / 2);
        if (route->page(connection, &page, &error)) {
            return answer_page(connection, &page, route->type);
        }
        qn_buf_deinit(&page);
        return answer_error(connection, &error);
    }
    if (connection->has_left) {
        return MHD_NO;
    }
    if (!call_open(connection)) {
        server_fail_memory(&error, "request");
        return answer_error(connection, &error);
    }
    enter(connection, HTTP_WORKING);
    connection->is_suspended = true;
    MHD_suspend_connection(connection->mhd);
    return MHD_YES;
}

enum MHD_Result connection_handle(void *context, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **request)
{
    (void)context;
    http_connection *const connection =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    if (connection == NULL || connection->is_dropped) {
        return MHD_NO;
    }
    if (*request == NULL) {
        *request = connection;
        return begin(connection, url, method, version);
    }
    if (*upload_bytes > 0) {
        const size_t n_bytes = *upload_bytes;
        *upload_bytes = 0;
        return take_body(connection, upload, n_bytes);
    }
    if (connection->state == HTTP_BODY) {
        return work(connection, method);
    }
    return connection->has_left ? MHD_NO : answer_call(connection);
}

static void log_request(const http_connection *connection, enum MHD_RequestTerminationCode why)
{
    const http_call *const call = connection->call;
    const bool is_probe = connection->route != NULL && connection->route->page != NULL;
    const double seconds = qn_clock_seconds(connection->head_ns, qn_clock_ns());
    const bool is_sent = why == MHD_REQUEST_TERMINATED_COMPLETED_OK || connection->is_told;
    const char *const end = is_sent ? "sent" : "cut_off";
    /* The path is the client's: behind it nothing can be made to look like ours. */
    if (call == NULL || call->stage == CALL_READING || call->n_choices == 0) {
        qn_log(is_probe && connection->status_code < 300 ? QN_LOG_DEBUG : QN_LOG_INFO,
               "request=%s status=%d seconds=%.3f end=%s method=%s path=%s", connection->id,
               connection->status_code, seconds, end, connection->method, connection->path);
        return;
    }
    qn_log(QN_LOG_INFO,
           "request=%s status=%d prompt_tokens=%llu tokens=%llu seconds=%.3f finish=%s end=%s "
           "method=%s path=%s",
           connection->id, connection->status_code,
           (unsigned long long)exchange_n_prompt_tokens(call->exchange),
           (unsigned long long)call_n_generated(call), seconds,
           call->finish != NULL ? call->finish : "refused", end, connection->method,
           connection->path);
}

void connection_completed(void *context, struct MHD_Connection *mhd, void **request,
                          enum MHD_RequestTerminationCode why)
{
    (void)context;
    (void)mhd;
    http_connection *const connection = *request;
    if (connection == NULL) {
        return;
    }
    log_request(connection, why);
    release_body(connection);
    if (connection->call != NULL) {
        http_call *const call = connection->call;
        connection->call = NULL;
        call_leave(call);
    }
    connection->route = NULL;
    connection->is_suspended = false;
    connection->head_ns = 0;
    enter(connection, HTTP_IDLE);
}

/* ---------------------------------------------------------------------------- life and timeouts */

static void open_connection(qn_server *server, struct MHD_Connection *mhd, void **socket_context)
{
    static const int one = 1;
    static const int idle_s = 60;
    static const int send_bytes = 1 << 18; /* what the kernel keeps for a slow reader, by half */
    http_connection *const connection = calloc(1, sizeof *connection);
    const int fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (connection == NULL || epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        free(connection);
        (void)shutdown(fd, SHUT_RDWR);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    *connection = (http_connection){
        .server = server, .mhd = mhd, .fd = fd, .next = server->connections, .method = ""};
    if (connection->next != NULL) {
        connection->next->previous = connection;
    }
    server->connections = connection;
    server->n_connections++;
    enter(connection, HTTP_HEAD);
    *socket_context = connection;
}

static void begin_linger(qn_server *server, int fd);

/* Its socket is still open. */
static void close_connection(http_connection *connection)
{
    qn_server *const server = connection->server;
    (void)epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    if (connection->lingers && !connection->has_left) {
        begin_linger(server, connection->fd);
    }
    if (connection->previous != NULL) {
        connection->previous->next = connection->next;
    } else {
        server->connections = connection->next;
    }
    if (connection->next != NULL) {
        connection->next->previous = connection->previous;
    }
    server->n_connections--;
    release_body(connection);
    free(connection);
}

void connection_notice(void *context, struct MHD_Connection *mhd, void **socket_context,
                       enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        open_connection(context, mhd, socket_context);
    } else if (*socket_context != NULL) {
        close_connection(*socket_context);
        *socket_context = NULL;
    }
}

void connection_wake(http_connection *connection)
{
    if (connection->is_suspended) {
        connection->is_suspended = false;
        MHD_resume_connection(connection->mhd);
    }
}

void connection_drop(http_connection *connection)
{
    if (!connection->is_dropped) {
        connection->is_dropped = true;
        (void)shutdown(connection->fd, SHUT_RDWR);
        connection_wake(connection);
    }
}

static void see_leaving(http_connection *connection)
{
    connection->has_left = true;
    if (connection->call != NULL && connection->call->stage != CALL_WHOLE) {
        call_lose(connection->call, METRICS_DISCONNECTED, "disconnected");
        connection_drop(connection);
    }
}

/* Behind bytes that nobody reads yet, the end of a connection cannot be seen. */
static bool hides_its_end(const http_connection *connection)
{
    int n_waiting = 0;
    return connection->call != NULL && connection->call->stage != CALL_WHOLE &&
           ioctl(connection->fd, FIONREAD, &n_waiting) == 0 && n_waiting > HTTP_PIPELINED_BYTES_MAX;
}

void connection_event(http_connection *connection, uint32_t events)
{
    char byte;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        see_leaving(connection);
        return;
    }
    /* An event may be late: its bytes may be those of a request that has been answered. */
    if (connection->state == HTTP_IDLE &&
        recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
        enter(connection, HTTP_HEAD);
    }
    if (connection->state == HTTP_HEAD && connection->head_ns == 0) {
        connection->head_ns = qn_clock_ns();
    }
}

static void time_out(http_connection *connection, const char *what, double timeout_s)
{
    server_error error = {0};
    if (connection->state == HTTP_HEAD) { /* a request that has nothing yet */
        connection->server->n_requests++;
        access_set_id(connection);
    }
    server_fail(&error, MHD_HTTP_REQUEST_TIMEOUT, "timeout", "",
                "%s: not there after %g s, expected sooner", what, timeout_s);
    answer_at_once(connection, &error);
    connection_drop(connection);
}

void connection_watch(http_connection *connection, uint64_t now_ns)
{
    const qn_server *const server = connection->server;
    const server_options *const options = &server->options;
    const double age_s = qn_clock_seconds(connection->since_ns, now_ns);
    /* Where there is no room for others, those without a request go sooner. */
    const double idle_s = server->n_connections < options->n_connections_max
                              ? options->idle_timeout_s
                              : fmin(options->idle_timeout_s, options->header_timeout_s);
    if (connection->is_dropped) {
        return;
    }
    /* MHD has had time to read all there was; it misses ends that come with the last bytes. */
    if (connection->has_left && connection->state < HTTP_WORKING) {
        connection_drop(connection);
        return;
    }
    if (hides_its_end(connection)) {
        see_leaving(connection);
        return;
    }
    switch (connection->state) {
    case HTTP_HEAD:
        if (age_s > options->header_timeout_s && connection->head_ns != 0) {
            time_out(connection, "head of the request", options->header_timeout_s);
        } else if (age_s > options->header_timeout_s) {
            connection_drop(connection);
        }
        break;
    case HTTP_IDLE:
        if (age_s > idle_s || server->is_draining) {
            connection_drop(connection);
        }
        break;
    case HTTP_BODY:
        if (age_s > options->body_timeout_s) {
            time_out(connection, "body", options->body_timeout_s);
        }
        break;
    case HTTP_WORKING: break;
    case HTTP_ANSWERING:
        if (connection->call != NULL) {
            call_watch(connection->call, now_ns);
        } else if (age_s > options->write_timeout_s) {
            connection_drop(connection);
        }
        break;
    }
}

/* -------------------------------------------------------------------------------------- lingers */

static void begin_linger(qn_server *server, int fd)
{
    http_linger *const linger = &server->lingers[server->i_linger];
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = linger};
    server->i_linger = (server->i_linger + 1) % HTTP_LINGERS_MAX;
    linger_close(linger);
    linger->fd = dup(fd);
    linger->until_ns = qn_clock_ns() + (uint64_t)LINGER_S * 1000000000U;
    if (linger->fd >= 0 && epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, linger->fd, &event) != 0) {
        linger_close(linger);
    }
}

void linger_close(http_linger *linger)
{
    if (linger->fd >= 0) {
        (void)close(linger->fd); /* the last descriptor: epoll forgets it too */
        linger->fd = -1;
    }
}

void linger_read(http_linger *linger)
{
    char bytes[65536];
    if (linger->fd >= 0) {
        const ssize_t n = recv(linger->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            linger_close(linger);
        }
    }
}
