/* SPDX-License-Identifier: Apache-2.0 */
/** @file render.h  A prompt in the making: what the files that write its parts share. */
#ifndef QN_CHAT_RENDER_H
#define QN_CHAT_RENDER_H
#include "base/buf.h"
#include "chat/chat.h"

enum { QN_CHAT_TEXT_BYTES_MAX = 1 << 30 }; /**< Of one text between two control tokens. */

/** Ids so far, and text that waits to be encoded as one piece. */
typedef struct qn_chat_prompt {
    qn_ids *out;
    const qn_tokenizer *tokenizer;
    const qn_json_node *tools; /**< Checked; NULL: none. */
    const qn_chat_render_options *options;
    qn_buf text;           /**< Owned. */
    uint64_t n_referenced; /**< What references to tools cost so far (tools.c). */
    qn_error *err;
} qn_chat_prompt;

/** Append text.  It never becomes a control token. */
QN_MUST_CHECK qn_status qn_chat_add_text(qn_chat_prompt *p, qn_str text);
/** Encode the text that waits. */
QN_MUST_CHECK qn_status qn_chat_flush(qn_chat_prompt *p);
/** Append a control token by its name.  QN_E_FORMAT where the tokenizer lacks it. */
QN_MUST_CHECK qn_status qn_chat_add_control(qn_chat_prompt *p, const char *name);

/** QN_E_FORMAT "PLACE: SEEN, expected EXPECTED"; @p format makes the place. */
QN_PRINTF(4, 5)
QN_MUST_CHECK qn_status qn_chat_refuse(qn_error *err, const qn_json_node *seen,
                                       const char *expected, const char *format, ...);

/** Append the text of messages[i_message].content to @p out: a string or a list of parts. */
QN_MUST_CHECK qn_status qn_chat_read_content(qn_buf *out, size_t i_message,
                                             const qn_json_node *content, qn_error *err);

/** The turn that tells the model its tools, if there are any. */
QN_MUST_CHECK qn_status qn_chat_add_tools(qn_chat_prompt *p);
/** Calls that the assistant made in messages[i_message]; @p calls may be NULL. */
QN_MUST_CHECK qn_status qn_chat_add_calls(qn_chat_prompt *p, size_t i_message,
                                          const qn_json_node *calls);
/** What a tool answered in messages[i_message]. */
QN_MUST_CHECK qn_status qn_chat_add_results(qn_chat_prompt *p, size_t i_message,
                                            const qn_json_node *content);
#endif
