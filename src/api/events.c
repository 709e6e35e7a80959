/* SPDX-License-Identifier: Apache-2.0 */
#include "api/events.h"

#include "base/assert.h"
#include "base/try.h"

#include <errno.h>

qn_status qn_events_init(qn_events *events, const qn_events_options *options, qn_error *err)
{
    qn_status status = QN_OK;
    const size_t n_tops = (size_t)options->n_tokens * QN_TOP_LOGPROBS_MAX;
    *events = (qn_events){.n_kept_max = options->n_events, .n_tops_max = options->n_tokens};
    qn_buf_init(&events->text, QN_EVENT_BYTES_MAX);
    events->kept = malloc(options->n_events * sizeof *events->kept);
    events->tops = malloc(n_tops * sizeof *events->tops);
    if (events->kept == NULL || events->tops == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "events: no memory for %u of them",
                         options->n_events);
        goto fail;
    }
    QN_TRY(status, qn_buf_reserve(&events->text, options->text_bytes, err), fail);
    events->reserved_bytes = events->text.capacity_bytes;
    return QN_OK;

fail:
    qn_events_deinit(events);
    return status;
}

void qn_events_deinit(qn_events *events)
{
    free(events->kept);
    free(events->tops);
    qn_buf_deinit(&events->text);
    *events = (qn_events){0};
}

void qn_events_begin_step(qn_events *events)
{
    QN_ASSERT(events->n_polled == events->n_kept);
    qn_buf_clear(&events->text);
    if (events->text.capacity_bytes > events->reserved_bytes) { /* a step needed more: it goes */
        qn_buf_deinit(&events->text);
        (void)!qn_buf_reserve(&events->text, events->reserved_bytes - 1, NULL); /* or when needed */
    }
    events->n_kept = events->n_polled = events->n_tops = 0;
    events->failure = (qn_error){0};
}

/* Append bytes that an event points to; where they begin goes to @p at.  False: no memory. */
static bool keep(qn_events *events, size_t *at, const char *ptr, size_t len)
{
    *at = events->text.len;
    return len == 0 || qn_buf_append(&events->text, ptr, len, &events->failure) == QN_OK;
}

/* Add a piece of text to the event before, of which it is the continuation.  False: it is none. */
static bool join(qn_events *events, const qn_event *event)
{
    qn_kept_event *const last = events->n_kept > 0 ? &events->kept[events->n_kept - 1] : NULL;
    const bool is_text = event->kind == QN_EVENT_TEXT || event->kind == QN_EVENT_REASONING ||
                         event->kind == QN_EVENT_CALL_PIECE;
    size_t at = 0;
    if (last == NULL || !is_text || last->event.kind != event->kind ||
        last->owner != events->owner) {
        return false;
    }
    last->event.len += keep(events, &at, event->text, event->len) ? event->len : 0;
    return true;
}

void qn_events_add(void *context, const qn_event *event)
{
    qn_events *const events = context;
    if (join(events, event)) {
        return;
    }
    QN_ASSERT(events->n_kept < events->n_kept_max);
    qn_kept_event *const kept = &events->kept[events->n_kept];
    const size_t text_len = events->text.len;
    *kept = (qn_kept_event){.event = *event, .owner = events->owner};
    kept->event.tag = events->tag;
    if (keep(events, &kept->text_at, event->text, event->len) &&
        keep(events, &kept->name_at, event->name, event->name_len)) {
        events->n_kept++;
    } else { /* nothing of it stays: the next may go on with the text before */
        events->text.len = text_len;
    }
}

size_t qn_events_bytes(const qn_events *events)
{
    return events->n_kept_max * sizeof *events->kept +
           (size_t)events->n_tops_max * QN_TOP_LOGPROBS_MAX * sizeof *events->tops +
           events->reserved_bytes;
}

qn_token_logprob *qn_events_take_tops(qn_events *events)
{
    QN_ASSERT(events->n_tops < events->n_tops_max);
    return events->tops + (size_t)events->n_tops++ * QN_TOP_LOGPROBS_MAX;
}

bool qn_events_poll(qn_events *events, uint64_t *owner, qn_event *event)
{
    if (events->n_polled == events->n_kept) {
        return false;
    }
    const qn_kept_event *const kept = &events->kept[events->n_polled++];
    *event = kept->event;
    event->text = event->len > 0 ? events->text.ptr + kept->text_at : NULL;
    event->name = event->name_len > 0 ? events->text.ptr + kept->name_at : NULL;
    if (owner != NULL) {
        *owner = kept->owner;
    }
    return true;
}
