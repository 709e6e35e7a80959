/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file worker.h  The thread that loads the model and steps the engine.
 *
 * The loop's thread gives it tickets and takes events; both sides swap lists under one lock, once a
 * step, and an eventfd wakes the loop.  Neither waits for the other.
 */
#ifndef QN_SERVER_WORKER_H
#define QN_SERVER_WORKER_H
#include "server/backend.h"
#include "server/board.h"
#include "server/exchange.h"

/** Opaque. */
typedef struct server_worker server_worker;

/** One choice of an exchange on its way.  The caller's memory, zeroed but for what it sets, until
 * its WORKER_END was polled. */
typedef struct worker_ticket {
    const server_exchange *exchange; /**< Set by the caller, as are the next three. */
    size_t i_choice;
    void *owner;                /**< Whatever the caller wants to find again. */
    board_entry *board;         /**< What the watchdog is told; NULL: nothing. */
    uint64_t id;                /**< The engine's name for it; the worker's, as all that follows. */
    struct worker_ticket *next; /**< In the list of those to submit, that run, or are lost. */
    struct worker_ticket **link; /**< What points to it among those that run. */
    _Atomic bool is_cancelled;   /**< Written by worker_cancel(). */
    bool was_refused;            /**< By a queue that no step had looked at. */
    bool is_lost;                /**< An event found no memory: its END says so. */
} worker_ticket;

/** What a worker tells. */
typedef enum worker_news {
    WORKER_READY,    /**< No ticket: loaded, warmed up, and the self-test has answered. */
    WORKER_FAILED,   /**< No ticket: loading, the self-test or a step failed; event.error says
                          why, borrowed until worker_close().  Every ticket has had its END, and
                          later ones are refused with the same error. */
    WORKER_ACCEPTED, /**< The engine has queued it. */
    WORKER_EVENT,    /**< event */
    WORKER_END,      /**< event is the END, the last news of a ticket; its stats are never NULL.
                          A ticket that the engine refused has QN_FINISH_ERROR with event.error
                          (QN_AGAIN: the queue is full), one that was cancelled before the engine
                          saw it QN_FINISH_ABORT; both no WORKER_ACCEPTED before it. */
    WORKER_FLUSHED,  /**< No ticket: the cache was flushed. */
} worker_news;

/**
 * Start the thread: it calls @p load, has the engine answer itself (self_test.h), which warms it
 * up, empties its cache, then tells WORKER_READY.
 *
 * @param board    told what the thread does; borrowed; NULL: nobody watches
 * @param wake_fd  eventfd that is written when there is news; borrowed
 * Returns  QN_OK; QN_E_NOMEM; QN_E_IO: no thread
 */
QN_MUST_CHECK qn_status worker_open(server_worker **out, server_load_fn *load, void *load_context,
                                    server_board *board, int wake_fd, qn_error *err);

/** Ends after the step at hand; requests that have not ended vanish.  Joins the thread.  Accepts
 * NULL. */
void worker_close(server_worker **worker);

/** Facts of the backend, once WORKER_READY was polled; NULL before. */
const server_backend *worker_backend(const server_worker *worker);

/** Hand over @p n tickets (an array) at once.  Allocates nothing and cannot fail. */
void worker_submit(server_worker *worker, worker_ticket *tickets, size_t n);

/** The step that begins next brings its END and frees its pages.  Ignored where it has ended; not
 * allowed once its WORKER_END was polled. */
void worker_cancel(server_worker *worker, worker_ticket *ticket);

/** Flush the cache between two steps; WORKER_FLUSHED follows. */
void worker_flush(server_worker *worker);

/**
 * Next news, borrowed until the next call; false: none.  To be called until it says so each time
 * that wake_fd was read: what came meanwhile is left for the next time.
 * Events of one ticket are in order; what one step told stands together.
 */
bool worker_poll(server_worker *worker, worker_news *news, worker_ticket **ticket, qn_event *event);

/** As of the last step; counts begin after the self-test.  Any thread. */
qn_engine_stats worker_get_stats(server_worker *worker);
#endif
