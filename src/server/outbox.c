/* SPDX-License-Identifier: Apache-2.0 */
#include "server/outbox.h"

#include "base/assert.h"

enum {
    OUTBOX_BYTES_MAX = 1 << 30, /* then the reader has stopped reading */
    KEPT_BYTES_MAX = 8 << 20,   /* of an empty one: log-probabilities of long prompts go beyond */
    ALIGNMENT = 16,
};

/* What stands in the block for each news.  What the event points to follows, in the order of
 * copy_parts(). */
typedef struct parcel {
    size_t n_bytes; /* to the next one */
    worker_news news;
    worker_ticket *ticket;
    qn_event event; /* of its pointers only whether they are NULL counts */
} parcel;

_Static_assert(sizeof(parcel) % _Alignof(qn_session_stats) == 0, "stats stand right behind it");
_Static_assert(sizeof(qn_session_stats) % _Alignof(qn_error) == 0, "and the error behind them");
_Static_assert(sizeof(qn_error) % _Alignof(qn_token_logprob) == 0, "and alternatives");

static const qn_session_stats no_stats;

static const qn_error lost_error = {
    .status = QN_E_NOMEM,
    .where = "outbox_add",
    .text = "events: no memory for those of this request",
};

void outbox_init(outbox *box)
{
    *box = (outbox){0};
    qn_buf_init(&box->parcels, OUTBOX_BYTES_MAX);
}

void outbox_deinit(outbox *box)
{
    qn_buf_deinit(&box->parcels);
    *box = (outbox){0};
}

void outbox_clear(outbox *box)
{
    qn_buf parcels = box->parcels;
    if (parcels.capacity_bytes > KEPT_BYTES_MAX) {
        qn_buf_deinit(&parcels);
    }
    qn_buf_clear(&parcels);
    *box = (outbox){.parcels = parcels};
}

/* ---------------------------------------------------------------------------------- the parcels */

/* Of an event, what is not in the struct itself. */
typedef struct part {
    const void *ptr;
    size_t n_bytes;
} part;

enum { N_PARTS = 5 };

static void list_parts(part parts[N_PARTS], const qn_event *event)
{
    parts[0] = (part){event->stats, event->stats != NULL ? sizeof *event->stats : 0};
    parts[1] = (part){event->error, event->error != NULL ? sizeof *event->error : 0};
    parts[2] = (part){event->top, event->n_top * sizeof *event->top};
    parts[3] = (part){event->text, event->len};
    parts[4] = (part){event->name, event->name_len};
}

/* Append to a buffer that has the room. */
static void put(qn_buf *buf, const void *bytes, size_t n_bytes)
{
    const qn_status status = qn_buf_append(buf, bytes, n_bytes, NULL);
    QN_ASSERT(status == QN_OK);
}

qn_status outbox_add(outbox *box, worker_news news, worker_ticket *ticket, const qn_event *event)
{
    static const char padding[ALIGNMENT];
    part parts[N_PARTS];
    parcel head = {.news = news, .ticket = ticket, .event = *event};
    size_t n_bytes = sizeof head;
    list_parts(parts, event);
    for (size_t i = 0; i < N_PARTS; i++) {
        n_bytes += parts[i].n_bytes;
    }
    const size_t n_padding = (ALIGNMENT - n_bytes % ALIGNMENT) % ALIGNMENT;
    head.n_bytes = n_bytes + n_padding;
    const qn_status status = qn_buf_reserve(&box->parcels, head.n_bytes, NULL);
    if (status < 0) {
        return status;
    }
    put(&box->parcels, &head, sizeof head);
    for (size_t i = 0; i < N_PARTS; i++) {
        put(&box->parcels, parts[i].ptr, parts[i].n_bytes);
    }
    put(&box->parcels, padding, n_padding);
    return QN_OK;
}

/* The next @p n_bytes behind *at; NULL where there are none. */
static const void *take(const char **at, size_t n_bytes)
{
    const void *const taken = n_bytes > 0 ? *at : NULL;
    *at += n_bytes;
    return taken;
}

static void read_parcel(outbox *box, worker_news *news, worker_ticket **ticket, qn_event *event)
{
    const char *at = box->parcels.ptr + box->n_read_bytes;
    const parcel *const head = take(&at, sizeof *head);
    part parts[N_PARTS];
    list_parts(parts, &head->event);
    *news = head->news;
    *ticket = head->ticket;
    *event = head->event;
    event->stats = take(&at, parts[0].n_bytes);
    event->error = take(&at, parts[1].n_bytes);
    event->top = take(&at, parts[2].n_bytes);
    event->text = take(&at, parts[3].n_bytes);
    event->name = take(&at, parts[4].n_bytes);
    box->n_read_bytes += head->n_bytes;
    QN_ASSERT(box->n_read_bytes <= box->parcels.len);
}

/* ------------------------------------------------------------------------------------- the rest */

void outbox_add_lost(outbox *box, worker_ticket *ticket)
{
    ticket->next = box->lost;
    box->lost = ticket;
}

bool outbox_next(outbox *box, worker_news *news, worker_ticket **ticket, qn_event *event)
{
    *ticket = NULL;
    *event = (qn_event){0};
    if (box->is_ready) {
        box->is_ready = false;
        *news = WORKER_READY;
    } else if (box->n_read_bytes < box->parcels.len) {
        read_parcel(box, news, ticket, event);
    } else if (box->lost != NULL) {
        *ticket = box->lost;
        box->lost = (*ticket)->next;
        *news = WORKER_END;
        *event = (qn_event){.kind = QN_EVENT_END,
                            .finish = QN_FINISH_ERROR,
                            .stats = &no_stats,
                            .error = &lost_error,
                            .tag = *ticket};
    } else if (box->is_flushed) {
        box->is_flushed = false;
        *news = WORKER_FLUSHED;
    } else if (box->fate != NULL) {
        event->error = box->fate;
        box->fate = NULL;
        *news = WORKER_FAILED;
    } else {
        return false;
    }
    return true;
}
