/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/log.h"
#include "server/http.h"
#include "server/notify.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

/* After requests were cancelled, their answers have so long to go out. */
enum { EVENTS_MAX = 256, ENDING_S = 5 };

/* Milliseconds until something has to be done without an event. */
static int get_timeout_ms(const qn_server *server)
{
    MHD_UNSIGNED_LONG_LONG mhd_ms = 0;
    const uint64_t now_ns = qn_clock_ns();
    uint64_t tick_ms = 0;
    if (now_ns < server->next_tick_ns) {
        tick_ms = (server->next_tick_ns - now_ns + 999999) / 1000000;
    }
    if (MHD_get_timeout(server->daemon, &mhd_ms) == MHD_YES && mhd_ms < tick_ms) {
        tick_ms = mhd_ms;
    }
    return (int)tick_ms; /* at most a second */
}

static void begin_draining(qn_server *server, uint64_t now_ns)
{
    qn_log(QN_LOG_INFO, "server: draining, %llu answers run or wait",
           (unsigned long long)server->n_open_choices);
    server->is_draining = true;
    server->drain_ns = now_ns;
    server->next_tick_ns = server->drain_ns; /* idle connections are closed now */
    server_notify("STOPPING=1");
}

static void begin_ending(qn_server *server)
{
    qn_log(QN_LOG_WARN, "server: %llu answers are cut off",
           (unsigned long long)server->n_open_choices);
    server->is_ending = true;
    server->ending_ns = qn_clock_ns();
    for (http_call *call = server->calls; call != NULL; call = call->next) {
        if (call->n_open > 0) {
            server->has_cancelled = server->has_cancelled || !call->is_cancelled;
            call_cancel(call);
        }
    }
}

static void heed_stops(qn_server *server, uint64_t now_ns)
{
    const int n_stops = atomic_load(&server->n_stops);
    if (n_stops > 0 && !server->is_draining) {
        begin_draining(server, now_ns);
    }
    if (server->is_draining && !server->is_ending &&
        (n_stops > 1 ||
         qn_clock_seconds(server->drain_ns, now_ns) > server->options.shutdown_timeout_s)) {
        begin_ending(server);
    }
}

bool loop_has_drained(const qn_server *server)
{
    if (!server->is_draining) {
        return false;
    }
    if (server->is_ending &&
        qn_clock_seconds(server->ending_ns, qn_clock_ns()) > (double)ENDING_S) {
        return true;
    }
    for (const http_connection *at = server->connections; at != NULL; at = at->next) {
        if (at->state >= HTTP_WORKING || (at->state == HTTP_BODY && !server->is_ending)) {
            return false;
        }
    }
    return server->calls == NULL;
}

static void tick(qn_server *server, uint64_t now_ns)
{
    http_connection *next = NULL;
    server->next_tick_ns = now_ns + server->tick_ns;
    for (http_connection *at = server->connections; at != NULL; at = next) {
        next = at->next;
        connection_watch(at, now_ns);
    }
    for (size_t i = 0; i < HTTP_LINGERS_MAX; i++) {
        if (server->lingers[i].fd >= 0 && now_ns > server->lingers[i].until_ns) {
            linger_close(&server->lingers[i]);
        }
    }
}

/* Connections are freed by MHD alone, which runs after this: what an event points to is there. */
static void take_event(qn_server *server, const struct epoll_event *event)
{
    void *const what = event->data.ptr;
    uint64_t count = 0;
    if (what == server->daemon) {
        return; /* it runs anyway */
    }
    if (what == &server->wake_fd) {
        (void)!read(server->wake_fd, &count, sizeof count);
    } else if (what >= (void *)server->lingers &&
               what < (void *)(server->lingers + HTTP_LINGERS_MAX)) {
        linger_read(what);
    } else {
        connection_event(what, event->events);
    }
}

qn_status loop_turn(qn_server *server, qn_error *err)
{
    struct epoll_event events[EVENTS_MAX];
    reader_job *job = NULL;
    board_idle(server->board, BOARD_LOOP);
    const int n = epoll_wait(server->epoll_fd, events, EVENTS_MAX, get_timeout_ms(server));
    board_busy(server->board, BOARD_LOOP, "requests");
    if (n < 0 && errno != EINTR) {
        return qn_fail(err, QN_E_IO, errno, __func__, "server: cannot wait for events");
    }
    for (int i = 0; i < n; i++) {
        take_event(server, &events[i]);
    }
    while ((job = readers_poll(server->readers)) != NULL) {
        call_read((http_call *)job);
    }
    call_take_news(server);
    const uint64_t now_ns = qn_clock_ns();
    heed_stops(server, now_ns);
    if (now_ns >= server->next_tick_ns) {
        tick(server, now_ns);
    }
    if (MHD_run(server->daemon) != MHD_YES) {
        return qn_fail(err, QN_E_IO, errno, __func__, "server: the HTTP library failed");
    }
    return QN_OK;
}
