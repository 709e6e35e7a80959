/* SPDX-License-Identifier: Apache-2.0 */
/** @file output.h  Generated ids to text as they come: reasoning apart from answer. */
#ifndef QN_CHAT_OUTPUT_H
#define QN_CHAT_OUTPUT_H
#include "base/buf.h"
#include "tokenizer/tokenizer.h"

/** Which part of an answer a piece belongs to. */
typedef enum qn_chat_part {
    QN_CHAT_REASONING, /**< Between <think> and </think>. */
    QN_CHAT_ANSWER,    /**< After it. */
} qn_chat_part;

/** Receives whole characters in order; @p text is borrowed during the call. */
typedef void qn_chat_piece_fn(void *context, qn_chat_part part, const char *text, size_t len);

/** State of one answer.  Caller's storage. */
typedef struct qn_chat_output {
    const qn_tokenizer *tokenizer; /**< Borrowed; NULL: ids print as "<id>". */
    qn_chat_piece_fn *fn;
    void *context;
    qn_chat_part part;     /**< Of the next token. */
    int32_t think_id;      /**< <think>, -1 where the tokenizer has none. */
    int32_t think_end_id;  /**< </think> */
    uint64_t n_reasoning;  /**< Tokens of the reasoning so far, its </think> included. */
    qn_utf8_stream stream; /**< Holds back part of a character. */
    qn_buf text;           /**< Owned; the piece being printed. */
} qn_chat_output;

/**
 * @param prompt  ids of the prompt: the answer begins in the reasoning when its last <think> has
 *                no </think> after it
 */
void qn_chat_output_init(qn_chat_output *output, const qn_tokenizer *tokenizer,
                         const int32_t *prompt, size_t n_prompt, qn_chat_piece_fn *fn,
                         void *context);

/**
 * One generated id.  <think>, </think> and special tokens (stop tokens among them) print nothing;
 * other added tokens print their text.  Returns QN_OK; QN_E_NOMEM.
 */
QN_MUST_CHECK qn_status qn_chat_output_feed(qn_chat_output *output, int32_t id, qn_error *err);

/** The answer is over: an unfinished character prints as U+FFFD. */
void qn_chat_output_end(qn_chat_output *output);
void qn_chat_output_deinit(qn_chat_output *output);
#endif
