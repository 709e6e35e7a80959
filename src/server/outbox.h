/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file outbox.h  News of the worker until the loop has read them: events with all that they point
 * to, copied into one block of memory that grows to what a step needs and is then used again.
 *
 * One side fills an outbox while the other reads a second; they swap.  What finds no memory is
 * never lost in silence: the END of a ticket needs none, since a list through the tickets carries
 * it.
 */
#ifndef QN_SERVER_OUTBOX_H
#define QN_SERVER_OUTBOX_H
#include "base/buf.h"
#include "server/worker.h"

/** All-zero is not one: outbox_init(). */
typedef struct outbox {
    qn_buf parcels;       /**< News with a ticket, in order. */
    size_t n_read_bytes;  /**< Of parcels: how far the reader has come. */
    worker_ticket *lost;  /**< List of those whose END found no memory; told behind the parcels. */
    bool is_ready;        /**< Told before the parcels. */
    bool is_flushed;      /**< Told behind them. */
    const qn_error *fate; /**< WORKER_FAILED with this, the last of all; borrowed.  NULL: none. */
} outbox;

/** Empty; allocates nothing. */
void outbox_init(outbox *box);
void outbox_deinit(outbox *box);

/** Forget all that was read, keep the memory, but for what one huge step needed. */
void outbox_clear(outbox *box);

/** Copy news of a ticket.  QN_E_NOMEM: nothing was added. */
QN_MUST_CHECK qn_status outbox_add(outbox *box, worker_news news, worker_ticket *ticket,
                                   const qn_event *event);

/** The END of a ticket that found no memory for it, or for an event before.  Cannot fail. */
void outbox_add_lost(outbox *box, worker_ticket *ticket);

/** Next news, borrowed until outbox_clear(); false: none. */
bool outbox_next(outbox *box, worker_news *news, worker_ticket **ticket, qn_event *event);
#endif
