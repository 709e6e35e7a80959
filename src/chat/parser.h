/* SPDX-License-Identifier: Apache-2.0 */
/** @file parser.h  What a model writes, as it comes: reasoning, text and tool calls. */
#ifndef QN_CHAT_PARSER_H
#define QN_CHAT_PARSER_H
#include "quern/quern.h"

#include "tokenizer/tokenizer.h"

/** What a tool call may be; one beyond is text. */
enum {
    QN_CHAT_CALL_BYTES_MAX = 1 << 20, /**< As written, names of control tokens included. */
    QN_CHAT_CALL_ARGUMENTS_MAX = 256,
    QN_CHAT_CALL_NAME_BYTES_MAX = 256, /**< Of the name, and of each argument's, with the white
                                            space around: prose behind a stray <tool_call> is soon
                                            known as such. */
};

/** State of one answer.  Opaque. */
typedef struct qn_chat_parser qn_chat_parser;

/**
 * All memory is allocated here, most of it touched only by long calls.
 *
 * @param[out] out   owned by the caller; NULL on failure
 * @param tokenizer  borrowed until close; NULL: ids print as "<id>"
 * @param options    borrowed during the call
 * Returns  QN_OK; QN_E_INVAL; QN_E_FORMAT naming the tool and field; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_chat_parser_open(qn_chat_parser **out, const qn_tokenizer *tokenizer,
                                            const qn_parser_options *options, qn_error *err);
/** Release; sets *parser to NULL; accepts NULL. */
void qn_chat_parser_close(qn_chat_parser **parser);

/**
 * One generated id.  Markers are recognised by id alone: text that spells one stays text.  Special
 * tokens and ids without a token print nothing.
 */
void qn_chat_parser_feed(qn_chat_parser *parser, int32_t id);

/**
 * Text, in which the names of the markers count as markers, and those of the tokens that begin or
 * end a turn as special tokens.  Held back is what may become such a name.
 */
void qn_chat_parser_feed_text(qn_chat_parser *parser, qn_str text);

/** The answer is over: what was held back comes out, an open call as text, or mended where it was
 * told of.  Something fed later goes on in the same part. */
void qn_chat_parser_end(qn_chat_parser *parser);

/** Ids fed so far that belong to the reasoning, its closing </think> included. */
uint64_t qn_chat_parser_n_reasoning(const qn_chat_parser *parser);

/** Tool calls so far. */
uint64_t qn_chat_parser_n_calls(const qn_chat_parser *parser);
#endif
