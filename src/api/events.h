/* SPDX-License-Identifier: Apache-2.0 */
/** @file events.h  The events of a step, kept until they are polled. */
#ifndef QN_API_EVENTS_H
#define QN_API_EVENTS_H
#include "quern/quern.h"

#include "base/buf.h"
#include "chat/parser.h"

enum {
    /** Events of one sequence's step, prompts left out: a token is one and sets free, at most,
     * eight of its text; and a tool call warns of each of its arguments. */
    QN_EVENTS_OF_STEP_MAX = 9 * (QN_DRAFT_TOKENS_MAX + 1) + QN_CHAT_CALL_ARGUMENTS_MAX,
    /** Bytes that the texts of a step may take before memory is asked for.  A call, or the text
     * that one given up becomes, is far shorter, unless a tokenizer has tokens of megabytes. */
    QN_EVENT_BYTES_RESERVED = 16 << 20,
    /** Bytes beyond which an event is left out, the failure of its request. */
    QN_EVENT_BYTES_MAX = 1 << 30,
};

/** An event and where in qn_events.text its texts begin. */
typedef struct qn_kept_event {
    qn_event event; /**< Its text and name are filled in by poll. */
    uint64_t owner;
    size_t text_at;
    size_t name_at;
} qn_kept_event;

/** Caller's storage; all-zero is closed. */
typedef struct qn_events {
    uint64_t owner;      /**< Whose events are added: what poll says. */
    void *tag;           /**< Of the events that are added. */
    qn_error failure;    /**< An event that found no memory was left out. */
    qn_kept_event *kept; /**< [n_kept_max] owned. */
    uint32_t n_kept_max;
    uint32_t n_kept;        /**< Of this step, ... */
    uint32_t n_polled;      /**< ... and those of them taken. */
    qn_buf text;            /**< Owned; what kept events point to. */
    size_t reserved_bytes;  /**< Of it; what a step took beyond goes with the next. */
    qn_token_logprob *tops; /**< [n_tops_max][QN_TOP_LOGPROBS_MAX] owned. */
    uint32_t n_tops_max;
    uint32_t n_tops; /**< Rows of it used in this step. */
} qn_events;

/** Room for a step. */
typedef struct qn_events_options {
    uint32_t n_events;
    uint32_t n_tokens; /**< Whose alternatives are told. */
    size_t text_bytes; /**< Beyond which memory is asked for. */
} qn_events_options;

/** Returns QN_OK; QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_events_init(qn_events *events, const qn_events_options *options,
                                       qn_error *err);

/** Free.  Accepts an all-zero one. */
void qn_events_deinit(qn_events *events);

/** A step begins: what was kept, all of which was polled, is over. */
void qn_events_begin_step(qn_events *events);

/** Keep an event, its texts copied: a qn_event_fn whose context is a qn_events. */
void qn_events_add(void *context, const qn_event *event);

/** Bytes that all of it takes, texts beyond those reserved not counted. */
size_t qn_events_bytes(const qn_events *events);

/** Room for the alternatives of one token, until the next step. */
qn_token_logprob *qn_events_take_tops(qn_events *events);

/** Events that were not polled. */
static inline uint32_t qn_events_unread(const qn_events *events)
{
    return events->n_kept - events->n_polled;
}

/**
 * Next event.
 *
 * @param[out] owner  whose it is; NULL: not wanted
 * Returns  false: none, nothing is written
 */
bool qn_events_poll(qn_events *events, uint64_t *owner, qn_event *event);
#endif
