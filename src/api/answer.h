/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file answer.h  One request's tokens to events: text, reasoning, tool calls, stop texts,
 * log-probabilities.
 */
#ifndef QN_API_ANSWER_H
#define QN_API_ANSWER_H
#include "api/events.h"
#include "chat/parser.h"
#include "chat/stops.h"
#include "engine/sampler.h"

/** Caller's storage, which may not move; all-zero is closed. */
typedef struct qn_answer {
    qn_event_fn *fn; /**< Receives the events. */
    void *context;
    qn_events *events;       /**< Borrowed: room for alternatives. */
    qn_parser *parser;       /**< Owned; of the present request, as all that follows. */
    uint32_t n_prompt;       /**< Tokens. */
    uint32_t n_top_logprobs; /**< At most the vocabulary. */
    uint32_t min_tokens;
    bool wants_logprobs, wants_prompt_logprobs;
    bool heeds_stops;      /**< Enough tokens for a stop text to count. */
    bool single_call;      /**< It ends with its first tool call. */
    bool is_stopped;       /**< A stop text was met, or it has its call: nothing more comes out. */
    bool is_stopped_by_id; /**< A stop id was drawn. */
    uint32_t n_calls;      /**< Tool calls so far. */
    qn_chat_stops stops;
} qn_answer;

/**
 * No request yet.
 *
 * @param events  borrowed until deinit
 * @param fn      receives the events; NULL: @p events keeps them
 */
void qn_answer_init(qn_answer *answer, qn_events *events, qn_event_fn *fn, void *context);
void qn_answer_deinit(qn_answer *answer);

/**
 * A request begins.
 * Returns  QN_OK; QN_E_INVAL, QN_E_FORMAT of its stop texts and tools; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_answer_begin(qn_answer *answer, const qn_model *model,
                                        const qn_request *request, qn_error *err);

/**
 * Positions of the prompt were computed: tell of the tokens behind them, where that is wanted.
 *
 * @param ids     [n_rows], and the one behind them where it is of the prompt
 * @param logits  [n_rows][n_vocab]
 */
void qn_answer_see_prompt(qn_answer *answer, const qn_sampler *sampler, uint32_t position,
                          uint32_t n_rows, const int32_t *ids, const float *logits,
                          uint32_t n_vocab);

/** A token was drawn: its event and its text.  False: it ended the answer. */
bool qn_answer_see_token(qn_answer *answer, const qn_sampler *sampler, int32_t token,
                         uint32_t position, const float *logits, bool is_stop);

/** A token's text, in which stop texts may count.  False: one ended the answer. */
bool qn_answer_feed(qn_answer *answer, int32_t token, bool heeds_stops);

/** Nothing more comes: what was held back. */
void qn_answer_flush(qn_answer *answer);

/** Why an answer that stopped did so: QN_FINISH_STOP or QN_FINISH_TOOL_CALLS. */
qn_finish qn_answer_stop_reason(const qn_answer *answer);

/** 1 + which of the request's stop texts ended the answer; 0: none did. */
uint32_t qn_answer_stop_number(const qn_answer *answer);

/** Ids of the reasoning so far; 0 without a request. */
uint64_t qn_answer_reasoning_tokens(const qn_answer *answer);
#endif
