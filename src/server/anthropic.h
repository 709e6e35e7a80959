/* SPDX-License-Identifier: Apache-2.0 */
/** @file anthropic.h  The parts of the form of POST /v1/messages: its body (anthropic_body.c,
 * anthropic_messages.c) and its answer (anthropic_answer.c). */
#ifndef QN_SERVER_ANTHROPIC_H
#define QN_SERVER_ANTHROPIC_H
#include "server/exchange_internal.h"

/** Begins the signature of thinking that is not shown: what was thought follows. */
#define ANTHROPIC_HIDDEN "quern:"

/** Kinds of content blocks in an answer. */
typedef enum anthropic_block {
    ANTHROPIC_NONE, /**< No block is open. */
    ANTHROPIC_THINKING,
    ANTHROPIC_TEXT,
    ANTHROPIC_TOOL_USE,
} anthropic_block;

/** An exchange of /v1/messages. */
typedef struct anthropic_exchange {
    server_exchange base;
    bool needs_no_tools;   /**< tool_choice "none". */
    bool hides_thinking;   /**< thinking.display "omitted". */
    qn_buf tools;          /**< What chat.tools_json points to. */
    anthropic_block block; /**< That is open. */
    uint32_t n_blocks;     /**< Begun. */
    uint32_t n_calls;      /**< Of them. */
    qn_buf piece; /**< Text of the open block: that was not told yet, or all of it where the answer
                       does not stream. */
    qn_buf done;  /**< Events that were not told yet, or whole blocks. */
    qn_finish finish; /**< Of the END, as those that follow. */
    uint32_t stop_number;
    uint64_t n_cached, n_generated, n_reasoning;
} anthropic_exchange;

/** The form's struct. */
static inline anthropic_exchange *anthropic_of(server_exchange *x)
{
    return (anthropic_exchange *)x;
}

/**
 * Append the conversation in OpenAI's form: system prompt, messages, tool results.  Everything is
 * checked, so that no error of what renders it names a message by another number than the body's.
 * What texts and inputs say is copied as it is written.
 *
 * @param[out] continues  the last message is the assistant's
 */
bool anthropic_messages(server_exchange *x, qn_buf *out, bool *continues, server_error *error);

/** Append the tools in OpenAI's form, schemas as they are written; nothing where there are none. */
bool anthropic_tools(server_exchange *x, qn_buf *out, server_error *error);

/** Functions of the form. */
qn_status anthropic_begin(server_exchange *x, qn_buf *out, qn_error *err);
/** Likewise. */
qn_status anthropic_take(server_exchange *x, size_t i_choice, const qn_event *event, qn_error *err);
/** Likewise. */
qn_status anthropic_flush(server_exchange *x, qn_buf *out, qn_error *err);
/** Likewise. */
qn_status anthropic_finish(server_exchange *x, qn_buf *out, qn_error *err);
/** Likewise. */
qn_status anthropic_fail(const server_exchange *x, const server_error *error, qn_buf *out,
                         qn_error *err);
#endif
