/* SPDX-License-Identifier: Apache-2.0 */
/** @file ask.h  How a model is asked: the options that several commands share. */
#ifndef QN_CLI_ASK_H
#define QN_CLI_ASK_H
#include "options.h"

/* Rows of several tables, each with the field of its own; OTHERWISE ends "(default". */
#define CLI_THINKING(offset)                                                                       \
    {                                                                                              \
        "thinking", 0, CLI_CHOICE, "on|off", offset, 0, 0,                                         \
            "Let the model think before it answers (default on)"                                   \
    }
#define CLI_EFFORT(offset)                                                                         \
    {                                                                                              \
        "reasoning-effort", 0, CLI_CHOICE, "max|high", offset, 0, 0,                               \
            "How long it is to think (default max)"                                                \
    }
#define CLI_TEMPERATURE(offset, otherwise)                                                         \
    {                                                                                              \
        "temperature", 0, CLI_NUMBER, "X", offset, 0, 100,                                         \
            "Randomness; 0 takes the most likely token (default" otherwise ")"                     \
    }
#define CLI_TOP_P(offset, otherwise)                                                               \
    {                                                                                              \
        "top-p", 0, CLI_NUMBER, "X", offset, 0.0001, 1,                                            \
            "Draw from the most likely tokens that hold this share (default" otherwise ")"         \
    }
#define CLI_TOP_K(offset, otherwise)                                                               \
    {                                                                                              \
        "top-k", 0, CLI_COUNT, "N", offset, 0, 1 << 24,                                            \
            "Draw from the N most likely tokens; 0: all (default" otherwise ")"                    \
    }
#define CLI_MIN_P(offset, otherwise)                                                               \
    {                                                                                              \
        "min-p", 0, CLI_NUMBER, "X", offset, 0, 1,                                                 \
            "Draw from tokens at least X times as likely as the first (default" otherwise ")"      \
    }
#define CLI_DRAFT_TOKENS(offset, otherwise)                                                        \
    {                                                                                              \
        "draft-tokens", 0, CLI_TEXT, "N|auto", offset, 0, 0,                                       \
            "Tokens that the MTP layer drafts before they are verified, 0 to 8, or as many as "    \
            "pay; it changes the speed, never the answer (default" otherwise ")"                   \
    }

/** Options about one answer. */
typedef struct cli_ask {
    double temperature, top_p, min_p; /**< NaN: the model's default, as the three penalties. */
    double repetition_penalty, presence_penalty, frequency_penalty;
    double acceptance_length;         /**< NaN: not pinned. */
    uint64_t top_k, seed, max_tokens; /**< UINT64_MAX: not given. */
    uint64_t min_tokens;
    const char *draft_tokens; /**< A number or "auto"; NULL: the default. */
    cli_list logit_bias;      /**< "ID:BIAS,..." each. */
    cli_list stops;
    cli_list stop_ids;
    bool ignore_eos;
} cli_ask;

enum { CLI_N_ASK_OPTIONS = 16 };
extern const cli_option cli_ask_options[CLI_N_ASK_OPTIONS];

/** What a request points to, and the seed that it drew. */
typedef struct cli_asked {
    qn_sampling sampling;
    qn_logit_bias bias[QN_LOGIT_BIAS_MAX];
    int32_t stop_ids[QN_STOPS_MAX];
} cli_asked;

/** Options about how a conversation is put to the model. */
typedef struct cli_talk {
    const char *system, *tools; /**< A text; a file. */
    int thinking, effort;       /**< The words' places: on off, max high. */
    bool keep_thinking;
} cli_talk;

enum { CLI_N_TALK_OPTIONS = 5 };
extern const cli_option cli_talk_options[CLI_N_TALK_OPTIONS];

/**
 * Fill @p options, for which the tools are read.
 *
 * @param[out] tools  text of the tools that @p options points to, owned by the caller (free); NULL
 *                    without
 * Returns  QN_OK; the status of cli_read_text()
 */
QN_MUST_CHECK qn_status cli_talk_fill(qn_chat_options *options, char **tools, const cli_talk *talk,
                                      qn_error *err);

/** A conversation's messages as JSON, and the file they came from. */
typedef struct cli_messages {
    const char *json;
    size_t len;
    const char *path; /**< NULL: of no file. */
} cli_messages;

/** qn_chat_encode(), whose errors name the file that they are of. */
QN_MUST_CHECK qn_status cli_talk_encode(int32_t **ids, size_t *n_ids, const qn_model *model,
                                        const qn_chat_options *options, const cli_talk *talk,
                                        const cli_messages *messages, qn_error *err);

/** The same for one message of a user, after the system message of @p talk. */
QN_MUST_CHECK qn_status cli_talk_encode_text(int32_t **ids, size_t *n_ids, const qn_model *model,
                                             const qn_chat_options *options, const cli_talk *talk,
                                             const char *text, size_t len, qn_error *err);

/** A depth of speculation as qn_request has it: a number, or "auto".  QN_E_INVAL names @p option.
 */
QN_MUST_CHECK qn_status cli_parse_draft(int *out, const char *option, const char *text,
                                        qn_error *err);

/** Nothing given. */
void cli_ask_init(cli_ask *ask);

/** Say on standard error where the options make answers synthetic, however quiet it is to be. */
void cli_ask_warn(const cli_ask *ask);

/**
 * Fill the fields of @p request that the options speak of.
 *
 * @param asked  holds what it points to; the seed is drawn where none was given
 * Returns  QN_OK; QN_E_INVAL naming the option
 */
QN_MUST_CHECK qn_status cli_ask_fill(qn_request *request, cli_asked *asked, const cli_ask *ask,
                                     const qn_model_info *info, qn_error *err);
#endif
