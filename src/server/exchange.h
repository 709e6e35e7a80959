/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file exchange.h  A body that asks for an answer, and the answer made of events: bytes to bytes.
 *
 * Knows no socket, file, thread or flag, so that `quern batch` uses it as the server does, and
 * fuzzers feed it.  What would change an answer and is not built is refused by name; what says
 * nothing about the answer (a documented list) is named by exchange_ignored().
 *
 * Threads: exchange_open() may take long (it tokenizes) and runs anywhere; later one thread at a
 * time, while exchange_choice() of an open exchange may be called from another.
 */
#ifndef QN_SERVER_EXCHANGE_H
#define QN_SERVER_EXCHANGE_H
#include "quern/quern.h"

#include "server/error.h"

enum {
    EXCHANGE_N_MAX = 128,        /**< Largest "n". */
    EXCHANGE_CHOICES_MAX = 1024, /**< Choices of a body: prompts times n. */
};

/** Opaque. */
typedef struct server_exchange server_exchange;

/** What every body is read with.  Borrowed while exchanges live. */
typedef struct exchange_settings {
    const qn_model *model;
    const char *const *names; /**< [n_names] by which requests may call the model, the first is the
                                   one that answers give; others are 404.  None: any name does. */
    size_t n_names;
    const char *default_name;   /**< What answers give without names; NULL: the model's path. */
    uint32_t context_tokens;    /**< Positions that the engine has for one; 0: the model's. */
    uint32_t prompt_tokens_max; /**< 0: no limit but the context. */
    uint64_t choices_max;       /**< Choices that run and wait at once; 0: EXCHANGE_CHOICES_MAX. */
    int draft_tokens;           /**< For all requests: qn_request.draft_tokens. */
    float acceptance_length;    /**< Likewise; not of one that asks for no drafts or "auto". */
    bool refuses_stream;        /**< Of batch files. */
} exchange_settings;

/**
 * Read a body.
 *
 * @param[out] out  owned by the caller; NULL on failure
 * @param body      [len] JSON, copied
 * @param id        names it in the answer ("chatcmpl-ID", "cmpl-ID", "msg_ID"), copied; at most 64
 *                  bytes
 * Returns  false: *error says why
 */
bool exchange_open(server_exchange **out, const exchange_settings *settings, server_api api,
                   const char *body, size_t len, const char *id, server_error *error);

/**
 * The same where its prompt, however long, is all that is wanted: exchange_choice(),
 * exchange_ignored(), exchange_n_prompt_tokens() and exchange_close() are all that may follow.
 */
bool exchange_open_prompt(server_exchange **out, const exchange_settings *settings, server_api api,
                          const char *body, size_t len, server_error *error);

/** Accepts NULL; sets *exchange to NULL. */
void exchange_close(server_exchange **exchange);

/** Prompts times n, at least 1. */
size_t exchange_n_choices(const server_exchange *exchange);

/** Is it the first choice of its prompt?  Of those alone are prompt and cached tokens counted. */
bool exchange_counts_prompt(const server_exchange *exchange, size_t i_choice);

/** Does the answer come in pieces? */
bool exchange_streams(const server_exchange *exchange);

/** Names of parameters without effect that the body gave, separated by ", "; "" without. */
const char *exchange_ignored(const server_exchange *exchange);

/**
 * What to submit for one choice; borrowed from @p exchange and @p sampling.  The caller adds tag.
 */
qn_request exchange_choice(const server_exchange *exchange, size_t i_choice, qn_sampling *sampling);

/** All choices were submitted: ids of prompts and the body are released, what answers need stays.
 */
void exchange_shrink(server_exchange *exchange);

/**
 * Where it streams: the first events, those that come before any token.  Once, after every choice
 * was accepted.  QN_E_NOMEM.
 */
QN_MUST_CHECK qn_status exchange_begin(server_exchange *exchange, qn_buf *out, qn_error *err);

/**
 * An event of a choice.  It is kept; pieces come by exchange_flush().
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status exchange_take(server_exchange *exchange, size_t i_choice,
                                      const qn_event *event, qn_error *err);

/**
 * Where it streams: append what was taken since the last call as events of SSE, whole ones, one for
 * each choice and part that has something new.  Else nothing.  QN_E_NOMEM: nothing was appended.
 */
QN_MUST_CHECK qn_status exchange_flush(server_exchange *exchange, qn_buf *out, qn_error *err);

/**
 * Every choice has had its END: append the whole body, or the last events of a stream ([DONE],
 * message_stop).  Not where a choice ended with QN_FINISH_ERROR or QN_FINISH_ABORT: exchange_fail()
 * then.  QN_E_NOMEM.
 */
QN_MUST_CHECK qn_status exchange_finish(server_exchange *exchange, qn_buf *out, qn_error *err);

/** Of a stream that has begun: append the events that end it by an error.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status exchange_fail(const server_exchange *exchange, const server_error *error,
                                      qn_buf *out, qn_error *err);

/** Of a stream: append what keeps a silent connection open: a comment, or Anthropic's ping. */
QN_MUST_CHECK qn_status exchange_keep_alive(const server_exchange *exchange, qn_buf *out,
                                            qn_error *err);

/** Tokens of all prompts (each once, whatever n), for logs and metrics. */
uint64_t exchange_n_prompt_tokens(const server_exchange *exchange);

/**
 * Count the tokens that a body of SERVER_API_MESSAGES (or CHAT) would have as its prompt, without
 * opening it: Anthropic's count_tokens.  max_tokens may lack.
 * Returns  false: *error says why
 */
bool exchange_count_tokens(uint64_t *n_tokens, const exchange_settings *settings, server_api api,
                           const char *body, size_t len, server_error *error);
#endif
