/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "base/clock.h"
#include "server/http.h"
#include "server/notify.h"

#include <math.h>
#include <sys/socket.h>

enum { RETRY_S_MAX = 60, FIRST_RUNS_MAX = 8 };

/* What goes together; to be called where a call is not half-way from one to the next. */
static void check_state(const http_call *call)
{
    switch (call->stage) {
    case CALL_READING: return; /* the rest is its reader's */
    case CALL_FLUSHING: QN_ASSERT(call->n_choices == 0 && call->exchange == NULL); break;
    case CALL_QUEUED: QN_ASSERT(call->n_choices > 0 && !call->has_begun); break;
    case CALL_STARTED: QN_ASSERT(call->n_accepted == call->n_choices); break;
    case CALL_WHOLE: QN_ASSERT(call->n_open == 0); break;
    }
    QN_ASSERT(call->n_open <= call->n_choices && call->n_accepted <= call->n_choices);
    QN_ASSERT(call->n_open == 0 || !call->has_failed || call->is_cancelled);
    QN_ASSERT(!call->has_begun || exchange_streams(call->exchange));
    QN_ASSERT(!call->is_broken ||
              (call->stage == CALL_WHOLE && call->has_failed && call->has_begun));
    QN_ASSERT(!call->has_news_first || call->is_touched);
}

/* ------------------------------------------------------------------------------------- its life */

/* In a reader's thread.  Who has left while it waited for one costs nothing any more. */
static void run_read(reader_job *job)
{
    http_call *const call = (http_call *)job;
    call->has_failed = !call->is_cancelled && !call->route->read(call);
}

bool call_open(http_connection *connection)
{
    qn_server *const server = connection->server;
    http_call *const call = calloc(1, sizeof *call);
    if (call == NULL) {
        return false;
    }
    *call = (http_call){
        .server = server,
        .connection = connection,
        .next = server->calls,
        .route = connection->route,
        .body = connection->body,
        .board = board_take(server->board, connection->id),
        .head_ns = connection->head_ns,
        .put_ns = qn_clock_ns(),
    };
    memcpy(call->id, connection->id, sizeof call->id);
    qn_buf_init(&call->out, SIZE_MAX / 2); /* bounded by call_watch() and put() */
    connection->body = (qn_buf){0};
    connection->call = call;
    if (call->next != NULL) {
        call->next->previous = call;
    }
    server->calls = call;
    if (call->board != NULL) {
        atomic_store(&call->board->begun_ns, call->head_ns);
    }
    if (call->route->read == NULL) {
        call->stage = CALL_FLUSHING;
        worker_flush(server->worker);
        return true;
    }
    call->job.run = run_read;
    readers_submit(server->readers, &call->job);
    return true;
}

static void release_body(http_call *call)
{
    call->server->body_bytes -= call->body.capacity_bytes;
    qn_buf_deinit(&call->body);
}

void call_close(http_call *call)
{
    qn_server *const server = call->server;
    if (call->previous != NULL) {
        call->previous->next = call->next;
    } else {
        server->calls = call->next;
    }
    if (call->next != NULL) {
        call->next->previous = call->previous;
    }
    if (call->board != NULL) {
        board_give_back(server->board, call->board);
    }
    exchange_close(&call->exchange);
    free(call->tickets);
    free(call->choices);
    release_body(call);
    qn_buf_deinit(&call->out);
    free(call);
}

static void close_if_done(http_call *call)
{
    if (call->connection == NULL && call->stage != CALL_READING && call->n_open == 0 &&
        !call->is_touched) {
        call_close(call);
    }
}

static void show_ending(const http_call *call)
{
    if (call->board != NULL) {
        atomic_store(&call->board->stage, (int)BOARD_ENDING);
    }
}

void call_cancel(http_call *call)
{
    if (call->is_cancelled) {
        return;
    }
    call->is_cancelled = true;
    show_ending(call);
    for (size_t i = 0; call->n_open > 0 && i < call->n_choices; i++) {
        if (!call->choices[i].has_ended) {
            worker_cancel(call->server->worker, &call->tickets[i]);
        }
    }
}

uint64_t call_n_generated(const http_call *call)
{
    return call->board != NULL ? atomic_load(&call->board->n_generated) : 0;
}

void call_lose(http_call *call, metrics_loss how, const char *finish)
{
    metrics_lost(call->server->metrics, how);
    call->finish = finish;
    call_cancel(call);
}

void call_leave(http_call *call)
{
    if (call->stage != CALL_WHOLE && !call->is_cancelled) {
        call_lose(call, METRICS_DISCONNECTED, "disconnected");
    }
    call->connection = NULL;
    call_cancel(call);
    close_if_done(call);
}

/* What comes of it is not wanted any more; its answer, or the end of it, is @p error. */
static void fail(http_call *call, const server_error *error)
{
    if (!call->has_failed) {
        call->has_failed = true;
        call->error = *error;
    }
    call_cancel(call);
}

static void fail_without_memory(http_call *call)
{
    server_error error = {0};
    server_fail_memory(&error, "answer");
    fail(call, &error);
}

/* ------------------------------------------------------------------------------------ admission */

uint32_t call_retry_after(const qn_server *server)
{
    const uint64_t n = server->n_ends < HTTP_ENDS_MAX ? server->n_ends : HTTP_ENDS_MAX;
    const uint64_t n_sequences = server->backend != NULL ? server->backend->n_sequences : 0;
    const uint64_t n_waiting =
        server->n_open_choices > n_sequences ? server->n_open_choices - n_sequences : 0;
    if (n < 2) {
        return 1;
    }
    const uint64_t oldest_ns = server->ends_ns[(server->n_ends - n) % HTTP_ENDS_MAX];
    const double an_end_s = qn_clock_seconds(oldest_ns, qn_clock_ns()) / (double)n;
    return (uint32_t)fmin(fmax(ceil((double)n_waiting * an_end_s), 1), RETRY_S_MAX);
}

static bool is_admitted(const http_call *call, server_error *error)
{
    const qn_server *const server = call->server;
    const uint64_t n_max = server->settings.choices_max;
    if (server->is_ending) {
        return !server_is_closed(server, error);
    }
    if (server->n_open_choices + call->n_choices > n_max) {
        server_fail(error, MHD_HTTP_TOO_MANY_REQUESTS, "queue_full", "",
                    "queue: %llu answers run or wait and this asks for %zu more, at most %llu "
                    "expected",
                    (unsigned long long)server->n_open_choices, call->n_choices,
                    (unsigned long long)n_max);
        error->retry_after_s = call_retry_after(server);
        return false;
    }
    return true;
}

static void submit(http_call *call)
{
    const uint64_t now_ns = qn_clock_ns();
    for (size_t i = 0; i < call->n_choices; i++) {
        call->choices[i].last_ns = now_ns;
        call->tickets[i] = (worker_ticket){
            .exchange = call->exchange, .i_choice = i, .owner = call, .board = call->board};
    }
    call->stage = CALL_QUEUED;
    call->n_open = call->n_choices;
    call->server->n_open_choices += call->n_choices;
    if (call->board != NULL) {
        atomic_store(&call->board->n_prompt, exchange_n_prompt_tokens(call->exchange));
    }
    worker_submit(call->server->worker, call->tickets, call->n_choices);
}

/* Nothing is added to the answer any more. */
static void end_whole(http_call *call)
{
    call->stage = CALL_WHOLE;
    show_ending(call);
    connection_wake(call->connection);
}

void call_read(http_call *call)
{
    server_error error = {0};
    release_body(call);
    if (call->connection == NULL) {
        call_close(call);
        return;
    }
    if (call->is_cancelled) {
        call->stage = CALL_WHOLE; /* MHD will tell that the connection is gone */
    } else if (!call->has_failed && call->n_choices > 0 && is_admitted(call, &error)) {
        submit(call);
    } else {
        if (error.status_code != 0) {
            fail(call, &error);
        }
        end_whole(call);
    }
    check_state(call);
}

/* ----------------------------------------------------------------------------------------- news */

/* Make room for what comes into a stream.  False: its reader is too slow. */
static bool has_room(http_call *call)
{
    qn_buf *const out = &call->out;
    const size_t n_unread = out->len - call->n_sent;
    const uint64_t unread_max = call->server->options.stream_bytes_max;
    if (n_unread > unread_max + call->burst_bytes) {
        return false;
    }
    call->burst_bytes = n_unread > unread_max ? call->burst_bytes : 0;
    if (call->n_sent > n_unread) {
        memmove(out->ptr, out->ptr + call->n_sent, n_unread);
        out->len = n_unread;
        call->n_sent = 0;
    }
    return true;
}

static void drop_slow_reader(http_call *call)
{
    static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    call_lose(call, METRICS_SLOW_READER, "slow_reader");
    /* What the kernel holds for it goes too. */
    (void)setsockopt(call->connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    connection_drop(call->connection);
}

/* Bytes were put into the answer, which had @p n_before. */
static void put(http_call *call, size_t n_before)
{
    if (call->out.len == n_before) {
        return;
    }
    const size_t n_put = call->out.len - n_before;
    if (n_put > call->server->options.stream_bytes_max) {
        call->burst_bytes = n_put; /* one step made it: its reader had no time to take it */
    }
    call->put_ns = qn_clock_ns();
    if (n_before == call->n_sent) {
        call->taken_ns = call->put_ns; /* nothing waited until now */
    }
    connection_wake(call->connection);
}

/* All choices were accepted. */
static void begin(http_call *call)
{
    call->stage = CALL_STARTED;
    exchange_shrink(call->exchange);
    if (!exchange_streams(call->exchange)) {
        return;
    }
    if (exchange_begin(call->exchange, &call->out, NULL) < 0) {
        fail_without_memory(call);
        return;
    }
    call->has_begun = true;
    connection_wake(call->connection);
}

/* All ends have come. */
static void end(http_call *call)
{
    if (!call->has_failed && exchange_finish(call->exchange, &call->out, NULL) < 0) {
        fail_without_memory(call);
    }
    if (call->has_failed && call->has_begun &&
        exchange_fail(call->exchange, &call->error, &call->out, NULL) < 0) {
        call->is_broken = true;
    }
    call->taken_ns = qn_clock_ns();
    end_whole(call);
}

/* News have been taken: what they make of the answer goes on its way. */
static void settle(http_call *call)
{
    call->is_touched = false;
    call->has_news_first = false;
    if (call->connection == NULL || call->connection->is_dropped) {
        close_if_done(call);
        return;
    }
    if (call->stage == CALL_QUEUED && call->n_accepted == call->n_choices && !call->has_failed) {
        begin(call);
    }
    if (call->has_begun && !call->has_failed) {
        if (!has_room(call)) {
            drop_slow_reader(call);
            return;
        }
        const size_t n_before = call->out.len;
        if (exchange_flush(call->exchange, &call->out, NULL) < 0) {
            fail_without_memory(call);
        }
        put(call, n_before);
    }
    if (call->n_open == 0) {
        end(call);
    }
    check_state(call);
}

static void take_end(http_call *call, size_t i_choice, const qn_event *event)
{
    qn_server *const server = call->server;
    const uint64_t now_ns = qn_clock_ns();
    call->choices[i_choice].has_ended = true;
    call->n_open--;
    server->n_open_choices--;
    server->ends_ns[server->n_ends++ % HTTP_ENDS_MAX] = now_ns;
    if (call->choices[i_choice].is_accepted || event->finish != QN_FINISH_ERROR) {
        metrics_ended(server->metrics, event->finish, event->stats,
                      qn_clock_seconds(call->head_ns, now_ns));
    }
    if (call->finish == NULL) {
        call->finish = qn_finish_name(event->finish);
    }
    server_error error = {0};
    if (event->finish == QN_FINISH_ABORT) { /* where its client is still there: the server ends */
        server_fail(&error, MHD_HTTP_SERVICE_UNAVAILABLE, "draining", "",
                    "server: it ended before the answer did, try again elsewhere");
        error.retry_after_s = HTTP_RETRY_DRAINING_S;
        fail(call, &error);
    } else if (event->finish == QN_FINISH_ERROR) {
        server_error_of(&error, event->error,
                        call->route->api == SERVER_API_COMPLETION ? "prompt" : "messages");
        if (event->error->status == QN_AGAIN) {
            error.retry_after_s = call_retry_after(server);
        }
        fail(call, &error);
    }
}

static void take(http_call *call, size_t i_choice, worker_news news, const qn_event *event)
{
    QN_ASSERT(!call->choices[i_choice].has_ended);
    if (news == WORKER_ACCEPTED) {
        call->choices[i_choice].is_accepted = true;
        call->n_accepted++;
        return;
    }
    if (news == WORKER_END) {
        take_end(call, i_choice, event);
    } else if (event->kind == QN_EVENT_TOKEN) {
        call->choices[i_choice].n_new++;
    } else if (event->kind == QN_EVENT_WARNING) { /* its text has what the model wrote: no log */
        metrics_broken_format(call->server->metrics);
    }
    if (call->connection != NULL && !call->has_failed &&
        exchange_take(call->exchange, i_choice, event, NULL) < 0) {
        fail_without_memory(call);
    }
}

/* The news of one choice and step have been taken: measure what came. */
static void measure(worker_ticket *ticket, uint64_t now_ns)
{
    http_call *const call = ticket->owner;
    server_metrics *const metrics = call->server->metrics;
    http_choice *const choice = &call->choices[ticket->i_choice];
    if (choice->n_new == 0) {
        return;
    }
    if (!choice->has_first) {
        choice->has_first = true;
        call->has_news_first = true;
        metrics_first_token(metrics, qn_clock_seconds(call->head_ns, now_ns));
    } else {
        metrics_tokens(metrics, qn_clock_seconds(choice->last_ns, now_ns), choice->n_new);
    }
    choice->last_ns = now_ns;
    choice->n_new = 0;
}

/* The cache was flushed, or (@p error) never will be. */
static void answer_flushes(qn_server *server, const server_error *error)
{
    for (http_call *call = server->calls; call != NULL; call = call->next) {
        if (call->stage != CALL_FLUSHING) {
            continue;
        }
        if (error != NULL) {
            fail(call, error);
        } else if (qn_buf_append_printf(&call->out, NULL, "{\"flushed\":true}\n") < 0) {
            fail_without_memory(call);
        }
        end_whole(call); /* its connection is there: without one it would be closed */
        check_state(call);
    }
}

/* News without a ticket. */
static void take_state(qn_server *server, worker_news news, const qn_event *event)
{
    server_error error = {0};
    if (news == WORKER_READY) {
        server->backend = worker_backend(server->worker);
        server->settings.model = server->backend->model;
        server->settings.default_name = server_model_name(server);
        server->settings.choices_max =
            (uint64_t)server->backend->n_sequences + server->backend->n_queue;
        server->settings.context_tokens = server->backend->context_tokens;
        server->is_ready = true;
        if (server->is_draining) {
            return; /* nobody waits for it any more */
        }
        if (server->options.ready != NULL) {
            server->options.ready(server->options.ready_context);
        }
        server_notify("READY=1");
    } else if (news == WORKER_FAILED) {
        server->has_failed = true;
        server->failure = *event->error;
        server_error_of(&error, &server->failure, "");
        answer_flushes(server, &error);
        server_stop(server); /* what runs has ended, and nothing can begin */
    } else if (news == WORKER_FLUSHED) {
        answer_flushes(server, NULL);
    }
}

/* First tokens go out before the others: with many streams a turn takes milliseconds, and it is
 * the first that somebody waits for.  The others' events are not even looked at before, but where a
 * burst of first tokens would make it a run of MHD for each. */
static void send_first(qn_server *server, http_call *call, http_call **touched, uint32_t *n_sent)
{
    if (!call->has_news_first || *touched != call || *n_sent == FIRST_RUNS_MAX) {
        return;
    }
    *touched = call->next_touched;
    ++*n_sent;
    settle(call);
    (void)MHD_run(server->daemon); /* the loop's own, soon, tells if it fails */
}

void call_take_news(qn_server *server)
{
    worker_news news = WORKER_READY;
    worker_ticket *ticket = NULL;
    worker_ticket *previous = NULL;
    http_call *touched = NULL;
    uint32_t n_sent = 0;
    qn_event event = {0};
    const uint64_t now_ns = qn_clock_ns();
    while (worker_poll(server->worker, &news, &ticket, &event)) {
        if (previous != NULL && previous != ticket) {
            measure(previous, now_ns);
            send_first(server, previous->owner, &touched, &n_sent);
        }
        previous = ticket;
        if (ticket == NULL) {
            take_state(server, news, &event);
            continue;
        }
        http_call *const call = ticket->owner;
        take(call, ticket->i_choice, news, &event);
        if (!call->is_touched) {
            call->is_touched = true;
            call->next_touched = touched;
            touched = call;
        }
    }
    if (previous != NULL) {
        measure(previous, now_ns);
    }
    while (touched != NULL) {
        http_call *const call = touched;
        touched = call->next_touched;
        settle(call);
    }
}

/* ----------------------------------------------------------------------------------------- time */

void call_watch(http_call *call, uint64_t now_ns)
{
    const server_options *const options = &call->server->options;
    const bool waits = call->stage == CALL_WHOLE || call->out.len > call->n_sent;
    if (waits && qn_clock_seconds(call->taken_ns, now_ns) > options->write_timeout_s) {
        drop_slow_reader(call);
    } else if (!waits && call->has_begun && !call->has_failed &&
               qn_clock_seconds(call->put_ns, now_ns) > options->keep_alive_s) {
        const size_t n_before = call->out.len;
        (void)!exchange_keep_alive(call->exchange, &call->out, NULL);
        put(call, n_before);
    }
}
