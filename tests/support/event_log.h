/* SPDX-License-Identifier: Apache-2.0 */
/** @file event_log.h  Events of an answer as one text, equal however the pieces were cut. */
#ifndef QN_TEST_EVENT_LOG_H
#define QN_TEST_EVENT_LOG_H
#include "quern/quern.h"

#include "base/assert.h"
#include "base/json_doc.h"

/**
 * "R[...]T[...]B[name]P[{...}]C[name{...}]W[...]": one bracket for neighbouring pieces of one kind.
 * What every event promises is checked as it comes.
 */
typedef struct event_log {
    char *text;         /**< [capacity] owned, ends in a NUL. */
    char *plain;        /**< [capacity] owned; reasoning and text alone. */
    size_t capacity;    /**< More is an error, and nothing is allocated while events come. */
    size_t len;         /**< Of text, the last bracket not counted. */
    size_t n_plain;     /**< Bytes of plain. */
    size_t n_events;    /**< Pieces counted one by one. */
    size_t n_warnings;  /**< Of them. */
    qn_event_kind last; /**< Kind of the open bracket. */
    bool is_begun;      /**< A call has begun: ... */
    char name[256];     /**< ... its name ... */
    size_t name_len;
    char *pieces; /**< [capacity] owned; ... and the pieces of its arguments. */
    size_t n_pieces;
} event_log;

static inline void event_log_init(event_log *log, size_t capacity)
{
    *log = (event_log){.text = calloc(1, capacity),
                       .plain = calloc(1, capacity),
                       .pieces = calloc(1, capacity),
                       .capacity = capacity,
                       .last = QN_EVENT_END};
    QN_ASSERT(log->text != NULL && log->plain != NULL && log->pieces != NULL);
}

static inline void event_log_deinit(event_log *log)
{
    free(log->text);
    free(log->plain);
    free(log->pieces);
    *log = (event_log){0};
}

static inline void event_log_clear(event_log *log)
{
    log->len = log->n_plain = log->n_events = log->n_warnings = 0;
    log->text[0] = log->plain[0] = '\0';
    log->last = QN_EVENT_END;
    log->is_begun = false;
    log->n_pieces = 0;
}

/** What a call promises: a name first, then pieces that are the text of the whole, nothing between
 * but warnings. */
static inline void event_log_check_call(event_log *log, const qn_event *event)
{
    switch (event->kind) {
    case QN_EVENT_WARNING: break;
    case QN_EVENT_CALL_BEGIN:
        QN_ASSERT(!log->is_begun && event->name_len > 0 && event->name_len <= sizeof log->name);
        memcpy(log->name, event->name, event->name_len);
        log->name_len = event->name_len;
        log->n_pieces = 0;
        log->is_begun = true;
        break;
    case QN_EVENT_CALL_PIECE:
        QN_ASSERT(log->is_begun && log->n_pieces + event->len < log->capacity);
        memcpy(log->pieces + log->n_pieces, event->text, event->len);
        log->n_pieces += event->len;
        break;
    case QN_EVENT_TOOL_CALL:
        if (log->is_begun) {
            QN_ASSERT(qn_str_equal((qn_str){log->pieces, log->n_pieces},
                                   (qn_str){event->text, event->len}));
            QN_ASSERT(qn_str_equal((qn_str){log->name, log->name_len},
                                   (qn_str){event->name, event->name_len}));
        }
        log->is_begun = false;
        break;
    default: QN_ASSERT(!log->is_begun);
    }
}

static inline void event_log_append(event_log *log, const char *bytes, size_t n_bytes)
{
    QN_ASSERT(log->len + n_bytes + 2 < log->capacity);
    if (n_bytes > 0) {
        memcpy(log->text + log->len, bytes, n_bytes);
    }
    log->len += n_bytes;
}

/** A qn_event_fn; @p context is the log. */
static inline void event_log_add(void *context, const qn_event *event)
{
    event_log *const log = (event_log *)context;
    const bool is_text = event->kind == QN_EVENT_REASONING || event->kind == QN_EVENT_TEXT;
    const bool is_piece = is_text || event->kind == QN_EVENT_CALL_PIECE;
    QN_ASSERT(event->kind <= QN_EVENT_WARNING && event->n_top == 0);
    QN_ASSERT((event->len > 0) == (event->kind != QN_EVENT_CALL_BEGIN));
    event_log_check_call(log, event);
    for (size_t at = 0; at < event->len;) {
        const size_t n = qn_utf8_len((const uint8_t *)event->text + at, event->len - at);
        QN_ASSERT(n > 0);
        at += n;
    }
    if (event->kind != log->last || !is_piece) {
        event_log_append(log, "]", log->len > 0 ? 1 : 0);
        event_log_append(log, &"RTBPCW"[event->kind], 1);
        event_log_append(log, "[", 1);
    }
    if (event->kind == QN_EVENT_TOOL_CALL) {
        qn_json_kind kind;
        QN_ASSERT(qn_json_scan((qn_str){event->text, event->len}, &kind));
        QN_ASSERT(kind == QN_JSON_OBJECT && event->name_len > 0);
    }
    event_log_append(log, event->name, event->name_len);
    event_log_append(log, event->text, event->len);
    if (is_text) {
        memcpy(log->plain + log->n_plain, event->text, event->len); /* less than text has */
        log->n_plain += event->len;
        log->plain[log->n_plain] = '\0';
    }
    log->text[log->len] = ']';
    log->text[log->len + 1] = '\0';
    log->n_events++;
    log->n_warnings += event->kind == QN_EVENT_WARNING ? 1 : 0;
    log->last = event->kind;
}
#endif
