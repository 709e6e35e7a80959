/* SPDX-License-Identifier: Apache-2.0 */
/** @file chat.h  Conversations to prompts: GLM-5's formats, control tokens as ids, text as text. */
#ifndef QN_CHAT_H
#define QN_CHAT_H
#include "base/json_doc.h"
#include "tokenizer/tokenizer.h"

/** Prompt formats of the family. */
typedef enum qn_chat_format {
    QN_CHAT_GLM5,   /**< No effort line; hidden reasoning is a lone </think>. */
    QN_CHAT_GLM5_1, /**< As GLM-5. */
    QN_CHAT_GLM5_2, /**< Effort line as a system turn; hidden reasoning is <think></think>. */
} qn_chat_format;

/** "glm5", "glm5.1", "glm5.2". */
const char *qn_chat_format_name(qn_chat_format format);

/** The format of a name as above.  Returns QN_OK; QN_E_INVAL naming --chat-format. */
QN_MUST_CHECK qn_status qn_chat_format_parse(qn_chat_format *out, const char *name, qn_error *err);

/**
 * The format of a model whose user did not name one: by its template where that is a known one,
 * else by whether its configuration has GLM-5.2's shared index sets.
 *
 * @param text             bytes of chat_template.jinja, or empty where there is none
 * @param[out] is_known    false when there is a template and it is not one we know
 */
qn_chat_format qn_chat_format_choose(qn_str text, bool has_index_share, bool *is_known);

/** How to render. */
typedef struct qn_chat_render_options {
    qn_chat_format format;
    bool no_thinking;    /**< The answer begins at once. */
    bool is_effort_high; /**< "High" instead of "Max" (GLM-5.2). */
    bool keep_thinking;  /**< Keep the reasoning of all earlier turns (clear_thinking = false). */
    bool continue_final; /**< The prompt ends behind the text of the last message, an assistant's;
                              within its reasoning where it has nothing else. */
} qn_chat_render_options;

/** The function of a tool or of a call: what stands in its "function", or itself where it is flat.
 */
const qn_json_node *qn_chat_tool_function(const qn_json_node *tool);

/**
 * Is this a JSON array of tools, each with a name, and with a schema that is an object if it has
 * one?  Returns  QN_OK; QN_E_FORMAT "tools[i].field: seen, expected"
 */
QN_MUST_CHECK qn_status qn_chat_tools_check(const qn_json_node *tools, qn_error *err);

/**
 * Append the prompt for a conversation to @p out; it ends where the assistant's answer begins, or
 * goes on (continue_final).
 * What messages and tools say is encoded as text: the name of a control token in it never becomes
 * the token.  Otherwise the ids are those of Hugging Face's tokenizer for what the published
 * template renders (docs/internals/chat.md says where ours accepts or refuses more).
 *
 * @param messages  JSON array of {"role", "content", "reasoning_content"?, "tool_calls"?}, where
 *                  "reasoning" is another name of "reasoning_content"; roles
 *                  system, developer, user, assistant, tool; content a string or a list of parts
 * @param tools     JSON array in OpenAI form; NULL: none
 * Returns  QN_OK; QN_E_FORMAT "messages[i].field: seen, expected" or "tools[i].field: ...";
 *          QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_chat_render(qn_ids *out, const qn_tokenizer *tokenizer,
                                       const qn_json_node *messages, const qn_json_node *tools,
                                       const qn_chat_render_options *options, qn_error *err);
#endif
