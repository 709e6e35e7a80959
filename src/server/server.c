/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/log.h"
#include "base/try.h"
#include "server/http.h"
#include "server/notify.h"

#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of a connection: MHD's buffer for a head and for pieces of bodies and answers. */
enum { CONNECTION_BYTES = 32768, SPARE_FILES = 64 };

server_options server_options_default(void)
{
    return (server_options){
        .host = "127.0.0.1",
        .port = 8000,
        .body_bytes_max = 8U << 20,
        .stream_bytes_max = 1U << 20,
        .n_connections_max = 4096,
        .n_connections_address_max = 1024,
        .n_readers = 2,
        .header_timeout_s = 30,
        .body_timeout_s = 60,
        .idle_timeout_s = 900,
        .write_timeout_s = 60,
        .keep_alive_s = 10,
        .shutdown_timeout_s = 30,
        .watchdog_timeout_s = 300,
    };
}

/* ------------------------------------------------------------------------------------- opening */

static qn_status check_options(const server_options *options, qn_error *err)
{
    const struct {
        const char *name;
        double value;
    } positive[] = {
        {"body_bytes_max", (double)options->body_bytes_max},
        {"stream_bytes_max", (double)options->stream_bytes_max},
        {"n_connections_max", options->n_connections_max},
        {"n_readers", options->n_readers},
        {"header_timeout_s", options->header_timeout_s},
        {"body_timeout_s", options->body_timeout_s},
        {"idle_timeout_s", options->idle_timeout_s},
        {"write_timeout_s", options->write_timeout_s},
        {"keep_alive_s", options->keep_alive_s},
    };
    for (size_t i = 0; i < sizeof positive / sizeof positive[0]; i++) {
        if (!(positive[i].value > 0)) {
            return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: %g, a number above 0 expected",
                           positive[i].name, positive[i].value);
        }
    }
    if ((options->tls_certificate == NULL) != (options->tls_key == NULL)) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "tls_certificate, tls_key: one of them, both or neither expected");
    }
    return QN_OK;
}

static int listen_at(const struct addrinfo *address)
{
    static const int one = 1;
    const int fd =
        socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0) {
        const int sys = errno;
        (void)close(fd);
        errno = sys;
        return -1;
    }
    return fd;
}

static qn_status listen_on(qn_server *server, qn_error *err)
{
    const server_options *const options = &server->options;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *addresses = NULL;
    char port[8];
    (void)snprintf(port, sizeof port, "%u", options->port);
    const int result = getaddrinfo(options->host, port, &hints, &addresses);
    if (result != 0) {
        return qn_fail(err, QN_E_IO, result == EAI_SYSTEM ? errno : 0, __func__,
                       "host %s: %s, an address or name of this machine expected", options->host,
                       gai_strerror(result));
    }
    for (const struct addrinfo *at = addresses; at != NULL && server->listen_fd < 0;
         at = at->ai_next) {
        server->listen_fd = listen_at(at);
    }
    const int sys = errno;
    freeaddrinfo(addresses);
    if (server->listen_fd < 0) {
        return qn_fail(err, QN_E_IO, sys, __func__, "%s port %s: cannot listen: %s", options->host,
                       port, strerror(sys));
    }
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    if (getsockname(server->listen_fd, (struct sockaddr *)&bound, &len) != 0 ||
        getnameinfo((struct sockaddr *)&bound, len, NULL, 0, port, sizeof port, NI_NUMERICSERV) !=
            0) {
        return qn_fail(err, QN_E_IO, errno, __func__, "%s: its port is unknown", options->host);
    }
    server->port = (uint16_t)strtoul(port, NULL, 10);
    return QN_OK;
}

__attribute__((format(printf, 2, 0))) static void log_mhd(void *context, const char *format,
                                                          va_list args)
{
    char text[512];
    (void)context;
    (void)vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    qn_log(QN_LOG_DEBUG, "http: %s", text);
}

/* A NUL would end a path here, but not for a proxy that has rules for paths. */
static size_t unescape(void *context, struct MHD_Connection *mhd, char *text)
{
    const size_t len = MHD_http_unescape(text);
    (void)context;
    (void)mhd;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\0') {
            text[i] = '?'; /* which no path has */
        }
    }
    return len;
}

static qn_status start_daemon(qn_server *server, qn_error *err)
{
    const server_options *const options = &server->options;
    const bool has_tls = options->tls_certificate != NULL;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)options->tls_certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)options->tls_key},
        {MHD_OPTION_END, 0, NULL},
    };
    if (!has_tls) {
        tls[0].option = MHD_OPTION_END;
    }
    const unsigned int flags =
        (unsigned int)MHD_USE_EPOLL | (unsigned int)MHD_ALLOW_SUSPEND_RESUME |
        (unsigned int)MHD_USE_ERROR_LOG | (has_tls ? (unsigned int)MHD_USE_TLS : 0U);
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, connection_handle, server, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, NULL,
        MHD_OPTION_LISTEN_SOCKET, server->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        options->n_connections_max, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        options->n_connections_address_max, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_NOTIFY_CONNECTION, connection_notice, server,
        MHD_OPTION_NOTIFY_COMPLETED, connection_completed, server, MHD_OPTION_UNESCAPE_CALLBACK,
        unescape, NULL, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (server->daemon == NULL && has_tls) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "tls_certificate, tls_key: not usable, PEM texts that belong to each other "
                       "expected");
    }
    if (server->daemon == NULL) {
        return qn_fail(err, QN_E_NOMEM, errno, __func__, "server: no memory");
    }
    server->listen_fd = -1; /* MHD's */
    return QN_OK;
}

static qn_status open_epoll(qn_server *server, qn_error *err)
{
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event wake = {.events = EPOLLIN, .data.ptr = &server->wake_fd};
    if (server->epoll_fd < 0 || server->wake_fd < 0 ||
        epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->wake_fd, &wake) != 0) {
        return qn_fail(err, QN_E_IO, errno, __func__, "server: no epoll or eventfd");
    }
    return QN_OK;
}

static qn_status watch_daemon(qn_server *server, qn_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = server->daemon};
    const union MHD_DaemonInfo *const info =
        MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL || epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, info->epoll_fd, &event) != 0) {
        return qn_fail(err, QN_E_IO, errno, __func__, "server: no epoll of the HTTP library");
    }
    return QN_OK;
}

/* Connections need files, and shells grant few: ask for what may be had. */
static void take_files(server_options *options)
{
    enum { BESIDE = HTTP_LINGERS_MAX + SPARE_FILES };
    struct rlimit limit;
    const rlim_t wanted = (rlim_t)options->n_connections_max + BESIDE;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return;
    }
    const rlim_t had = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    const rlim_t has = setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : had;
    if (has < wanted) {
        const uint32_t left = (uint32_t)(has > (rlim_t)2 * BESIDE ? has - BESIDE : has / 2);
        qn_log(QN_LOG_WARN,
               "max-connections: %u, expected at most %u by the limit of open files (ulimit -n, "
               "LimitNOFILE=): that many are taken",
               options->n_connections_max, left);
        options->n_connections_max = left;
    }
}

static void set_facts(qn_server *server)
{
    const server_options *const options = &server->options;
    const double times_s[] = {options->header_timeout_s, options->body_timeout_s,
                              options->idle_timeout_s,   options->write_timeout_s,
                              options->keep_alive_s,     fmax(options->shutdown_timeout_s, 0.04)};
    double tick_s = 1;
    for (size_t i = 0; i < sizeof times_s / sizeof times_s[0]; i++) {
        tick_s = fmin(tick_s, times_s[i] / 4);
    }
    server->tick_ns = (uint64_t)(fmax(tick_s, 0.01) * 1e9);
    server->settings = (exchange_settings){
        .names = options->names,
        .n_names = options->n_names,
        .prompt_tokens_max = options->prompt_tokens_max,
        .draft_tokens = options->draft_tokens,
        .acceptance_length = options->acceptance_length,
    };
    server->begun_ns = qn_clock_ns();
    server->created = (time_t)(qn_clock_wall_ns() / 1000000000U);
    if (getrandom(&server->id_seed, sizeof server->id_seed, 0) < 0) {
        server->id_seed = server->begun_ns;
    }
}

qn_status server_open(qn_server **out, const server_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    qn_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "server: no memory");
    }
    server->listen_fd = server->epoll_fd = server->wake_fd = -1;
    for (size_t i = 0; i < HTTP_LINGERS_MAX; i++) {
        server->lingers[i].fd = -1;
    }
    server->options = *options;
    QN_TRY(status, check_options(options, err), fail);
    set_facts(server);
    take_files(&server->options);
    QN_TRY(status, access_open(server, err), fail);
    QN_TRY(status, answer_open(server, err), fail);
    QN_TRY(status, metrics_open(&server->metrics, err), fail);
    QN_TRY(status, board_open(&server->board, server->options.n_connections_max, err), fail);
    QN_TRY(status, open_epoll(server, err), fail);
    QN_TRY(status, listen_on(server, err), fail);
    QN_TRY(status, start_daemon(server, err), fail);
    QN_TRY(status, watch_daemon(server, err), fail);
    *out = server;
    return QN_OK;

fail:
    server_close(&server);
    return status;
}

uint16_t server_port(const qn_server *server)
{
    return server->port;
}

/* ------------------------------------------------------------------------------------- running */

/* MHD may not be stopped while it has suspended connections. */
static void stop_daemon(qn_server *server)
{
    if (server->daemon == NULL) {
        return;
    }
    for (http_connection *at = server->connections; at != NULL; at = at->next) {
        at->is_dropped = true;
        connection_wake(at);
    }
    MHD_stop_daemon(server->daemon);
    server->daemon = NULL;
}

static qn_status run(qn_server *server, server_load_fn *load, void *load_context, qn_error *err)
{
    qn_status status = QN_OK;
    QN_TRY(status, board_watch(server->board, server->options.watchdog_timeout_s, err), fail);
    QN_TRY(status, readers_open(&server->readers, server->options.n_readers, server->wake_fd, err),
           fail);
    QN_TRY(status,
           worker_open(&server->worker, load, load_context, server->board, server->wake_fd, err),
           fail);
    while (!loop_has_drained(server)) {
        QN_TRY(status, loop_turn(server, err), fail);
    }

fail:
    return status;
}

qn_status server_run(qn_server *server, server_load_fn *load, void *load_context, qn_error *err)
{
    qn_status status = run(server, load, load_context, err);
    board_idle(server->board, BOARD_LOOP); /* it may have to wait for a model to be loaded */
    stop_daemon(server);
    readers_close(&server->readers);
    worker_close(&server->worker);
    while (server->calls != NULL) { /* nobody has them any more */
        server->has_cancelled = true;
        call_close(server->calls);
    }
    if (status >= 0 && server->has_failed) {
        return qn_fail(err, server->failure.status, server->failure.sys, server->failure.where,
                       "%s", server->failure.text);
    }
    if (status >= 0 && server->has_cancelled) {
        return qn_fail(err, QN_E_CANCELLED, 0, __func__,
                       "server: answers were cut off, their ends expected");
    }
    return status;
}

void server_stop(qn_server *server)
{
    const uint64_t one = 1;
    const int sys = errno; /* of whom a signal has interrupted */
    atomic_fetch_add(&server->n_stops, 1);
    (void)!write(server->wake_fd, &one, sizeof one);
    errno = sys;
}

void server_close(qn_server **server)
{
    qn_server *const closed = *server;
    *server = NULL;
    if (closed == NULL) {
        return;
    }
    stop_daemon(closed);
    const int fds[] = {closed->listen_fd, closed->epoll_fd, closed->wake_fd};
    for (size_t i = 0; i < HTTP_LINGERS_MAX; i++) {
        linger_close(&closed->lingers[i]);
    }
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    answer_close(closed);
    metrics_close(&closed->metrics);
    board_close(&closed->board);
    free(closed->key_digests);
    free(closed);
}

bool server_is_closed(const qn_server *server, server_error *error)
{
    if (server->is_draining) {
        server_fail(error, MHD_HTTP_SERVICE_UNAVAILABLE, "draining", "",
                    "server: it ends and takes no more requests, try again elsewhere");
        error->retry_after_s = HTTP_RETRY_DRAINING_S;
    } else if (!server->is_ready) {
        server_fail(error, MHD_HTTP_SERVICE_UNAVAILABLE, "loading", "",
                    "server: it is loading the model, try again later");
        error->retry_after_s = HTTP_RETRY_LOADING_S;
    }
    return error->status_code != 0;
}

const char *server_model_name(const qn_server *server)
{
    if (server->options.n_names > 0) {
        return server->options.names[0];
    }
    if (server->settings.model == NULL) {
        return "";
    }
    const char *const path = qn_model_get_info(server->settings.model)->name;
    const char *const slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}
