/* SPDX-License-Identifier: Apache-2.0 */
/** @file openai_answer.h  Answers in the form of OpenAI's chat completions and completions. */
#ifndef QN_CLI_OPENAI_ANSWER_H
#define QN_CLI_OPENAI_ANSWER_H
#include "answer.h"
#include "openai_body.h"

/** One choice while it comes.  Caller's storage; all-zero is closed. */
typedef struct openai_choice {
    cli_answer answer;
    json_t *logprobs;       /**< Owned; NULL where none were asked for. */
    qn_session_stats stats; /**< Once it has ended. */
    uint64_t n_characters;  /**< Of the tokens so far, as text_offset counts. */
    size_t index;           /**< Of the choice. */
    bool is_thinking;       /**< Of a completion: its text stands behind a <think>. */
    bool has_opened;        /**< ... which the model wrote. */
} openai_choice;

void openai_choice_open(openai_choice *choice, const openai_request *request, size_t index);
void openai_choice_close(openai_choice *choice);

/**
 * Keep what an event says.  A completion's text has everything: what the model thinks, with the
 * marks around it, and its calls.
 *
 * @param id  begins the ids of tool calls
 */
void openai_choice_take(openai_choice *choice, const openai_request *request, const qn_model *model,
                        const qn_event *event, const char *id);

/**
 * The body of a response, once all choices have ended.
 *
 * @param choices  [openai_n_choices(request)]
 * @param id       names the answer
 * Returns  NULL without memory
 */
json_t *openai_response(openai_choice *choices, const openai_request *request,
                        const qn_model *model, const char *id);
#endif
