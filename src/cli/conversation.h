/* SPDX-License-Identifier: Apache-2.0 */
/** @file conversation.h  Messages in OpenAI form, a JSON array that grows turn by turn. */
#ifndef QN_CLI_CONVERSATION_H
#define QN_CLI_CONVERSATION_H
#include "report.h"

/** The text of the system message, borrowed until the array changes; NULL: there is none. */
const char *conversation_system(const json_t *messages);

/** Put @p text in the place of the system message; NULL: take it away. */
QN_MUST_CHECK qn_status conversation_set_system(json_t *messages, const char *text, qn_error *err);

/** Forget everything but the system message. */
void conversation_clear(json_t *messages);

/** Take the last message away if it is a user's, which nobody answered.  True: it was. */
bool conversation_drop_unanswered(json_t *messages);

/**
 * Append what the model wrote.
 *
 * @param reasoning  NUL-terminated, as @p text; empty: none
 * @param calls      array of tool calls; borrowed; may be empty
 */
QN_MUST_CHECK qn_status conversation_add_answer(json_t *messages, const char *reasoning,
                                                const char *text, json_t *calls, qn_error *err);

/** Append the result of @p call.  QN_E_FORMAT for text that is not UTF-8. */
QN_MUST_CHECK qn_status conversation_add_result(json_t *messages, const json_t *call,
                                                const char *text, size_t len, qn_error *err);

/** Write as a JSON array, readable by its owner alone; may replace a file. */
QN_MUST_CHECK qn_status conversation_save(json_t *messages, const char *path, qn_error *err);

/** Read a JSON array.  @param[out] out  owned by the caller (json_decref) */
QN_MUST_CHECK qn_status conversation_load(json_t **out, const char *path, qn_error *err);
#endif
