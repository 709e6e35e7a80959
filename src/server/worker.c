/* SPDX-License-Identifier: Apache-2.0 */
#include "server/worker.h"

#include "base/assert.h"
#include "server/outbox.h"
#include "server/self_test.h"
#include "server/thread.h"

#include <errno.h>

/* Tickets to submit, first come first. */
typedef struct ticket_queue {
    worker_ticket *first;
    worker_ticket **end; /* where the next one is linked */
} ticket_queue;

struct server_worker {
    /* Written before the thread begins. */
    server_load_fn *load;
    void *load_context;
    server_board *board; /* borrowed */
    pthread_t thread;
    int wake_fd; /* borrowed */
    bool is_started;

    /* Under the lock. */
    pthread_mutex_t mutex;
    pthread_cond_t has_work;
    ticket_queue submitted;
    bool has_cancels, wants_flush, must_stop;
    outbox outbox; /* filled by the thread, swapped by worker_poll() */
    qn_engine_stats stats;

    /* Of the thread; the loop reads backend and error once it was told of them. */
    server_backend backend;
    qn_engine_stats stats_before; /* what the self-test has counted */
    ticket_queue waiting;         /* to submit in the next round */
    worker_ticket *running;       /* in the engine */
    uint32_t n_accepted;          /* in this round */
    bool is_idle;                 /* the last step found no request */
    bool has_news;                /* in the outbox, and the loop was not woken yet */
    qn_error error;               /* why there is no engine; status QN_OK: there is one */

    /* Of the loop. */
    outbox taken;
    bool is_reading; /* taken has not been read to its end */
    bool is_ready;
};

static const qn_session_stats no_stats;

static void queue_init(ticket_queue *queue)
{
    *queue = (ticket_queue){.end = &queue->first};
}

static void queue_push(ticket_queue *queue, worker_ticket *ticket)
{
    ticket->next = NULL;
    *queue->end = ticket;
    queue->end = &ticket->next;
}

/* Move all of @p from behind @p to. */
static void queue_append(ticket_queue *to, ticket_queue *from)
{
    if (from->first != NULL) {
        *to->end = from->first;
        to->end = from->end;
        queue_init(from);
    }
}

static void lock(server_worker *w)
{
    const int result = pthread_mutex_lock(&w->mutex);
    QN_ASSERT(result == 0);
}

static void unlock(server_worker *w)
{
    const int result = pthread_mutex_unlock(&w->mutex);
    QN_ASSERT(result == 0);
}

/* ------------------------------------------------------------------------ what the thread tells */

static void link_running(server_worker *w, worker_ticket *ticket)
{
    ticket->next = w->running;
    ticket->link = &w->running;
    if (ticket->next != NULL) {
        ticket->next->link = &ticket->next;
    }
    w->running = ticket;
}

static void unlink_running(worker_ticket *ticket)
{
    QN_ASSERT(*ticket->link == ticket);
    *ticket->link = ticket->next;
    if (ticket->next != NULL) {
        ticket->next->link = ticket->link;
    }
}

/* News that are not an END; under the lock.  Without memory the request is cancelled. */
static void tell(server_worker *w, worker_news news, worker_ticket *ticket, const qn_event *event)
{
    if (ticket->is_lost) {
        return;
    }
    w->has_news = true;
    if (outbox_add(&w->outbox, news, ticket, event) < 0) {
        ticket->is_lost = true;
        w->backend.cancel(w->backend.context, ticket->id);
    }
}

/* The last news of a ticket, which is the loop's from here on; under the lock. */
static void tell_end(server_worker *w, worker_ticket *ticket, const qn_event *event)
{
    qn_event end = *event;
    end.stats = event->stats != NULL ? event->stats : &no_stats;
    if (ticket->board != NULL) {
        atomic_store(&ticket->board->stage, BOARD_ENDING);
    }
    w->has_news = true;
    if (ticket->is_lost || outbox_add(&w->outbox, WORKER_END, ticket, &end) < 0) {
        outbox_add_lost(&w->outbox, ticket);
    }
}

/* Wake the loop where there is something for it. */
static void publish(server_worker *w)
{
    if (w->has_news) {
        w->has_news = false;
        thread_wake(w->wake_fd);
    }
}

/* There is no engine, or it is of no more use. */
static void fail(server_worker *w, qn_status status, const qn_error *error)
{
    QN_ASSERT(status < 0);
    w->error = *error;
    w->error.status = status;
    lock(w);
    for (worker_ticket *ticket = w->running, *next; ticket != NULL; ticket = next) {
        next = ticket->next;
        tell_end(w, ticket,
                 &(qn_event){.kind = QN_EVENT_END, .finish = QN_FINISH_ERROR, .error = &w->error});
    }
    w->running = NULL;
    w->outbox.fate = &w->error;
    w->has_news = true;
    unlock(w);
    publish(w);
}

/* -------------------------------------------------------------------------------------- submits */

static void refuse(server_worker *w, worker_ticket *ticket, qn_finish finish, const qn_error *error)
{
    lock(w);
    tell_end(w, ticket,
             &(qn_event){.kind = QN_EVENT_END, .finish = finish, .error = error, .tag = ticket});
    unlock(w);
}

static void accept(server_worker *w, worker_ticket *ticket)
{
    QN_ASSERT(ticket->id != 0);
    w->n_accepted++;
    link_running(w, ticket);
    lock(w);
    tell(w, WORKER_ACCEPTED, ticket, &(qn_event){.tag = ticket});
    unlock(w);
}

/*
 * A queue may be full of requests that no step has looked at, though sequences are free for them:
 * then a ticket is tried again behind the next step, until a step has made no room.
 */
static bool may_try_again(const server_worker *w, const worker_ticket *ticket)
{
    return (!ticket->was_refused || w->n_accepted > 0) &&
           w->backend.get_stats(w->backend.context).n_running < w->backend.n_sequences;
}

/* A step begins it. */
static void show_begin(void *tag)
{
    const worker_ticket *const ticket = tag;
    int queued = BOARD_QUEUED; /* its other choices may be further */
    if (ticket->board != NULL) {
        (void)atomic_compare_exchange_strong(&ticket->board->stage, &queued, BOARD_PREFILL);
    }
}

static void submit(server_worker *w, worker_ticket *ticket)
{
    if (atomic_load(&ticket->is_cancelled)) {
        refuse(w, ticket, QN_FINISH_ABORT, NULL);
        return;
    }
    if (w->error.status < 0) {
        refuse(w, ticket, QN_FINISH_ERROR, &w->error);
        return;
    }
    qn_error error = {0};
    qn_sampling sampling;
    qn_request request = exchange_choice(ticket->exchange, ticket->i_choice, &sampling);
    request.tag = ticket;
    request.on_begin = show_begin;
    const qn_status status = w->backend.submit(w->backend.context, &ticket->id, &request, &error);
    if (status == QN_OK) {
        accept(w, ticket);
    } else if (status == QN_AGAIN && may_try_again(w, ticket)) {
        ticket->was_refused = true;
        queue_push(&w->waiting, ticket);
    } else {
        if (status == QN_AGAIN) {
            (void)qn_fail(&error, QN_AGAIN, 0, __func__,
                          "queue: full with %u requests, fewer expected", w->backend.n_queue);
        }
        refuse(w, ticket, QN_FINISH_ERROR, &error);
    }
}

static void submit_all(server_worker *w)
{
    worker_ticket *next = w->waiting.first;
    queue_init(&w->waiting); /* submit() may put some back */
    w->n_accepted = 0;
    while (next != NULL) {
        worker_ticket *const ticket = next;
        next = ticket->next;
        submit(w, ticket);
    }
    publish(w);
}

/* ---------------------------------------------------------------------------------------- steps */

/* For the watchdog's diagnosis. */
static void show(const worker_ticket *ticket)
{
    if (ticket->board != NULL) {
        atomic_store_explicit(&ticket->board->stage, BOARD_DECODE, memory_order_relaxed);
        atomic_fetch_add_explicit(&ticket->board->n_generated, 1, memory_order_relaxed);
    }
}

/* What the step told; under the lock. */
static void collect(server_worker *w)
{
    uint64_t id = 0;
    qn_event event;
    while (w->backend.poll(w->backend.context, &id, &event)) {
        worker_ticket *const ticket = event.tag;
        QN_ASSERT(ticket != NULL && ticket->id == id);
        if (event.kind == QN_EVENT_END) {
            unlink_running(ticket);
            tell_end(w, ticket, &event);
            continue;
        }
        if (event.kind == QN_EVENT_TOKEN) {
            show(ticket);
        }
        tell(w, WORKER_EVENT, ticket, &event);
    }
}

/* Counts since the self-test. */
static qn_engine_stats count(const server_worker *w)
{
    qn_engine_stats now = w->backend.get_stats(w->backend.context);
    const qn_engine_stats *const before = &w->stats_before;
    now.n_steps -= before->n_steps;
    now.n_prompt_tokens -= before->n_prompt_tokens;
    now.n_cached_tokens -= before->n_cached_tokens;
    now.n_generated_tokens -= before->n_generated_tokens;
    now.n_drafted -= before->n_drafted;
    now.n_accepted -= before->n_accepted;
    now.n_verifications -= before->n_verifications;
    for (size_t i = 0; i < QN_DRAFT_TOKENS_MAX; i++) {
        now.n_accepted_at[i] -= before->n_accepted_at[i];
    }
    now.n_preempted -= before->n_preempted;
    now.n_recomputed_tokens -= before->n_recomputed_tokens;
    now.n_evicted -= before->n_evicted;
    now.n_exchanged -= before->n_exchanged;
    now.prompt_s -= before->prompt_s;
    now.mixed_s -= before->mixed_s;
    now.decode_s -= before->decode_s;
    return now;
}

static void step(server_worker *w)
{
    qn_error error = {0};
    const qn_status status = w->backend.step(w->backend.context, &error);
    if (status < 0) { /* what goes wrong with one request is told by its END: this is the engine */
        fail(w, status, &error);
        return;
    }
    w->is_idle = status == QN_AGAIN;
    lock(w);
    collect(w);
    w->stats = count(w);
    unlock(w);
    if (w->stats.is_lost && w->board != NULL) {
        board_device_lost(w->board);
    }
    publish(w);
}

/* ------------------------------------------------------------------------------------ the thread
 */

static void start(server_worker *w)
{
    qn_error error = {0};
    qn_status status = w->load(w->load_context, &w->backend, &error);
    if (status >= 0) {
        QN_ASSERT(w->backend.submit != NULL && w->backend.n_sequences > 0);
        status = self_test_run(&w->backend, w->board, &error);
    }
    if (status < 0) {
        fail(w, status, &error);
        return;
    }
    w->stats_before = w->backend.get_stats(w->backend.context);
    lock(w);
    w->stats = count(w);
    w->outbox.is_ready = true;
    unlock(w);
    thread_wake(w->wake_fd);
}

/* Tickets that the loop has cancelled; of an engine's requests that have ended it ignores. */
static void pass_cancels(server_worker *w)
{
    for (const worker_ticket *ticket = w->running; ticket != NULL; ticket = ticket->next) {
        if (atomic_load(&ticket->is_cancelled)) {
            w->backend.cancel(w->backend.context, ticket->id);
        }
    }
}

static void flush(server_worker *w)
{
    const bool is_sound = w->error.status == QN_OK;
    if (is_sound) {
        w->backend.flush(w->backend.context);
    }
    lock(w);
    if (is_sound) {
        w->stats = count(w);
    }
    w->outbox.is_flushed = true;
    unlock(w);
    thread_wake(w->wake_fd);
}

/* What a round has to do beside its step. */
typedef struct orders {
    bool has_cancels, wants_flush, must_stop;
} orders;

/* Wait until there is something to do, and take it. */
static orders take_orders(server_worker *w)
{
    const bool has_requests = w->error.status == QN_OK && (!w->is_idle || w->waiting.first != NULL);
    lock(w);
    while (!has_requests && w->submitted.first == NULL && !w->has_cancels && !w->wants_flush &&
           !w->must_stop) {
        if (w->board != NULL) {
            board_idle(w->board, BOARD_WORKER);
        }
        (void)pthread_cond_wait(&w->has_work, &w->mutex);
    }
    const orders taken = {w->has_cancels, w->wants_flush, w->must_stop};
    w->has_cancels = w->wants_flush = false;
    queue_append(&w->waiting, &w->submitted);
    unlock(w);
    return taken;
}

static void *work(void *argument)
{
    server_worker *const w = argument;
    start(w);
    for (;;) {
        const orders taken = take_orders(w);
        if (taken.must_stop) {
            break;
        }
        if (w->board != NULL) {
            board_busy(w->board, BOARD_WORKER, "a step");
        }
        if (taken.has_cancels) {
            pass_cancels(w);
        }
        if (taken.wants_flush) {
            flush(w);
        }
        submit_all(w);
        if (w->error.status == QN_OK) {
            step(w);
        }
    }
    if (w->board != NULL) {
        board_idle(w->board, BOARD_WORKER);
    }
    if (w->backend.close != NULL) {
        w->backend.close(w->backend.context);
    }
    return NULL;
}

/* -------------------------------------------------------------------------------- for the loop */

qn_status worker_open(server_worker **out, server_load_fn *load, void *load_context,
                      server_board *board, int wake_fd, qn_error *err)
{
    *out = NULL;
    server_worker *w = calloc(1, sizeof *w);
    if (w == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "worker: no memory");
    }
    w->load = load;
    w->load_context = load_context;
    w->board = board;
    w->wake_fd = wake_fd;
    w->is_idle = true;
    (void)pthread_mutex_init(&w->mutex, NULL); /* cannot fail with default attributes */
    (void)pthread_cond_init(&w->has_work, NULL);
    queue_init(&w->submitted);
    queue_init(&w->waiting);
    outbox_init(&w->outbox);
    outbox_init(&w->taken);
    const qn_status status = thread_start(&w->thread, work, w, "quern-worker", err);
    w->is_started = status == QN_OK;
    if (status < 0) {
        worker_close(&w);
    }
    *out = w;
    return status;
}

void worker_close(server_worker **worker)
{
    server_worker *const w = *worker;
    if (w == NULL) {
        return;
    }
    if (w->is_started) {
        lock(w);
        w->must_stop = true;
        (void)pthread_cond_signal(&w->has_work);
        unlock(w);
        (void)pthread_join(w->thread, NULL);
    }
    outbox_deinit(&w->outbox);
    outbox_deinit(&w->taken);
    (void)pthread_cond_destroy(&w->has_work);
    (void)pthread_mutex_destroy(&w->mutex);
    free(w);
    *worker = NULL;
}

const server_backend *worker_backend(const server_worker *worker)
{
    return worker->is_ready ? &worker->backend : NULL;
}

void worker_submit(server_worker *worker, worker_ticket *tickets, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        worker_ticket *const ticket = &tickets[i];
        ticket->id = 0;
        ticket->was_refused = ticket->is_lost = false;
        if (ticket->board != NULL) {
            atomic_store(&ticket->board->stage, BOARD_QUEUED);
        }
    }
    lock(worker);
    for (size_t i = 0; i < n; i++) {
        queue_push(&worker->submitted, &tickets[i]);
    }
    (void)pthread_cond_signal(&worker->has_work);
    unlock(worker);
}

void worker_cancel(server_worker *worker, worker_ticket *ticket)
{
    atomic_store(&ticket->is_cancelled, true);
    lock(worker);
    worker->has_cancels = true;
    (void)pthread_cond_signal(&worker->has_work);
    unlock(worker);
}

void worker_flush(server_worker *worker)
{
    lock(worker);
    worker->wants_flush = true;
    (void)pthread_cond_signal(&worker->has_work);
    unlock(worker);
}

bool worker_poll(server_worker *worker, worker_news *news, worker_ticket **ticket, qn_event *event)
{
    if (!worker->is_reading) {
        outbox_clear(&worker->taken);
        lock(worker);
        const outbox taken = worker->outbox;
        worker->outbox = worker->taken;
        worker->taken = taken;
        unlock(worker);
    }
    worker->is_reading = outbox_next(&worker->taken, news, ticket, event);
    worker->is_ready |= worker->is_reading && *news == WORKER_READY;
    return worker->is_reading;
}

qn_engine_stats worker_get_stats(server_worker *worker)
{
    lock(worker);
    const qn_engine_stats stats = worker->stats;
    unlock(worker);
    return stats;
}
