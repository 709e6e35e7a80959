/* SPDX-License-Identifier: Apache-2.0 */
/** @file chat.h  A conversation at work: what the parts of `quern chat` share. */
#ifndef QN_CLI_CHAT_H
#define QN_CLI_CHAT_H
#include "ask.h"
#include "conversation.h"
#include "line.h"

/** The command's options. */
typedef struct chat_values {
    cli_common common;
    cli_model model;
    cli_ask ask;
    cli_talk talk;
    const char *load, *history;
    uint64_t context;
    bool has_no_history;
} chat_values;

/** One conversation with one model. */
typedef struct chat {
    const chat_values *values;
    qn_model *model;     /**< Owned, as the following. */
    qn_session *session; /**< Holds what was computed of the conversation so far. */
    json_t *messages;
    qn_chat_options options; /**< How it is rendered; /thinking changes it. */
    char *tools;             /**< JSON that they point to; NULL: none. */
    line_reader *lines;
    char *file;             /**< What it was last saved to or loaded from; NULL: nothing. */
    qn_session_stats last;  /**< Of the last answer; all zero: there is none. */
    qn_session_stats total; /**< Sums over the conversation. */
    uint64_t n_answers;
    bool is_dim;         /**< Remarks on stderr are. */
    bool is_over;        /**< Leave ... */
    bool is_interrupted; /**< ... because of a signal. */
    int status;          /**< The exit status then. */
} chat;

/** What is no answer goes to stderr: what was asked for, dimmed, ... */
QN_PRINTF(2, 3)
void chat_say(const chat *c, const char *format, ...);
/** ... and what was not, unless the user wants it quiet. */
QN_PRINTF(2, 3)
void chat_remark(const chat *c, const char *format, ...);

/** Report a failure, after which the conversation goes on; a script's exit status tells of it. */
void chat_report(chat *c, const qn_error *err);

/** Read a text; what ends the program sets is_over, and so does Ctrl-C in a script. */
line_result chat_read(chat *c, const char *prompt, const char **text, size_t *len);

/** Ids of the prompt that answers @p messages; owned by the caller (qn_free). */
QN_MUST_CHECK qn_status chat_encode(int32_t **ids, size_t *n_ids, const chat *c,
                                    const json_t *messages, qn_error *err);

/**
 * Could a conversation that begins so be answered, with these tools and settings?
 *
 * @param[out] n_ids  tokens of it; 0 for an empty one
 */
QN_MUST_CHECK qn_status chat_check(size_t *n_ids, const chat *c, json_t *messages, qn_error *err);

/**
 * Put a saved conversation in the place of the present one, which stays where that fails.
 *
 * @param[out] n_ids  tokens of it
 * Returns  QN_OK; another status with a message that names the file
 */
QN_MUST_CHECK qn_status chat_load(chat *c, const char *path, size_t *n_ids, qn_error *err);

/** Add a user's message and answer it, results of tool calls included. */
void chat_send(chat *c, const char *text, size_t len);

/** Do what a line that begins with a slash says. */
void chat_command(chat *c, const char *line);
#endif
