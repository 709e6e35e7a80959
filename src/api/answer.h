/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file answer.h  One request's tokens to events: text, reasoning, tool calls, stop texts,
 * log-probabilities; kept until they are polled, or handed on at once.
 */
#ifndef QN_API_ANSWER_H
#define QN_API_ANSWER_H
#include "quern/quern.h"

#include "base/buf.h"
#include "chat/parser.h"
#include "chat/stops.h"
#include "engine/sequence.h"

enum {
    /** Events of a step: a row of a prompt is one; a token one and, with what it sets free, at most
     * eight of its text; and a tool call warns of each of its arguments. */
    QN_EVENTS_MAX = QN_LOGIT_ROWS_MAX + 9 * (QN_DRAFT_TOKENS_MAX + 1) + QN_CHAT_CALL_ARGUMENTS_MAX,
    /** Bytes that the texts of a step may take before memory is asked for.  A call, or the text
     * that one given up becomes, is far shorter, unless a tokenizer has tokens of megabytes. */
    QN_EVENT_BYTES_RESERVED = 16 << 20,
};

/** Caller's storage; all-zero is closed. */
typedef struct qn_answer {
    qn_event_fn *fn; /**< Receives events at once; NULL: they are kept. */
    void *context;
    qn_parser *parser;              /**< Owned; of the present request. */
    qn_chat_stops stops;            /**< Of the present request. */
    bool heeds_stops;               /**< Enough tokens for a stop text to count. */
    bool is_stopped;                /**< A stop text was met: nothing more comes out. */
    uint32_t n_calls;               /**< Tool calls so far. */
    qn_error failure;               /**< No memory for an event. */
    qn_event events[QN_EVENTS_MAX]; /**< Kept ones; text and name are filled in by poll. */
    size_t text_at[QN_EVENTS_MAX];  /**< Where their text begins in @c text ... */
    size_t name_at[QN_EVENTS_MAX];  /**< ... and their name. */
    uint32_t n_events;              /**< Kept. */
    uint32_t n_polled;              /**< Of them taken. */
    qn_buf text;                    /**< Owned; what kept events point to. */
    qn_token_logprob tops[QN_LOGIT_ROWS_MAX + 1][QN_TOP_LOGPROBS_MAX]; /**< Alternatives. */
    uint32_t n_tops;                                                   /**< Rows of them used. */
} qn_answer;

/** Returns QN_OK; QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_answer_init(qn_answer *answer, qn_event_fn *fn, void *context,
                                       qn_error *err);
void qn_answer_deinit(qn_answer *answer);

/**
 * A request begins.
 * Returns  QN_OK; QN_E_INVAL, QN_E_FORMAT of its stop texts and tools; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_answer_begin(qn_answer *answer, const qn_model *model,
                                        const qn_request *request, qn_error *err);

/** A step begins: kept events, all of which were polled, are over. */
void qn_answer_begin_step(qn_answer *answer);

/** Room for the alternatives of one token, until the next step. */
qn_token_logprob *qn_answer_take_tops(qn_answer *answer);

/** An event that needs nothing done to it. */
void qn_answer_add(qn_answer *answer, const qn_event *event);

/** A token's text, in which stop texts may count.  False: one ended the answer. */
bool qn_answer_feed(qn_answer *answer, int32_t token, bool heeds_stops);

/** What was held back, and END. */
void qn_answer_end(qn_answer *answer, qn_finish finish);

/** Next kept event; false: none. */
bool qn_answer_poll(qn_answer *answer, qn_event *event);
#endif
