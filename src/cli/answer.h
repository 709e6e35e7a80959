/* SPDX-License-Identifier: Apache-2.0 */
/** @file answer.h  One answer while it comes: the steps that bring it, and what is kept of it. */
#ifndef QN_CLI_ANSWER_H
#define QN_CLI_ANSWER_H
#include "report.h"

#include <stdio.h>

/** Parts of an answer's text. */
enum { CLI_REASONING, CLI_TEXT_PART, CLI_N_PARTS };

/** What an answer has said.  Caller's storage; all-zero is closed. */
typedef struct cli_answer {
    FILE *streams[CLI_N_PARTS]; /**< Open until cli_answer_finish(). */
    char *texts[CLI_N_PARTS];   /**< Owned; NUL-terminated once finished. */
    size_t lens[CLI_N_PARTS];   /**< Bytes of them. */
    json_t *calls;              /**< Owned; tool calls in OpenAI's form. */
    qn_finish finish;           /**< QN_FINISH_ERROR before END. */
    bool has_lost;              /**< There was no memory for some of it. */
} cli_answer;

/** Begin with nothing. */
void cli_answer_open(cli_answer *answer);

/** Keep what an event says.  Ids of tool calls are @p prefix and a number. */
void cli_answer_take(cli_answer *answer, const qn_event *event, const char *prefix);

/** No more comes: the texts can be read.  QN_E_NOMEM where something was lost. */
QN_MUST_CHECK qn_status cli_answer_finish(cli_answer *answer, qn_error *err);

void cli_answer_close(cli_answer *answer);

/** Who follows an answer. */
typedef struct cli_follower {
    void *context;
    void (*event)(void *context, const qn_event *event); /**< Each, in order. */
    void (*between)(void *context);                      /**< After each step: time to cancel. */
} cli_follower;

/**
 * Step until the request that was submitted has ended, with a progress bar for its prompt.
 * Returns  QN_OK after END; the error of a step
 */
QN_MUST_CHECK qn_status cli_answer_follow(qn_session *session, const cli_follower *follower,
                                          bool is_quiet, qn_error *err);
#endif
