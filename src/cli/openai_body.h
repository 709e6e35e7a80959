/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file openai_body.h  Bodies of OpenAI's chat completions and completions as requests of ours.
 *
 * What would change an answer and is not known here is refused by its name, never ignored; null
 * means that a parameter was not given.  Nothing here knows of a command line or a file.
 */
#ifndef QN_CLI_OPENAI_BODY_H
#define QN_CLI_OPENAI_BODY_H
#include "quern/quern.h"

#include <jansson.h>

enum {
    OPENAI_N_MAX = 128,        /**< Largest "n". */
    OPENAI_CHOICES_MAX = 1024, /**< Choices of a body: prompts times n. */
};

/** Which of the two. */
typedef enum openai_endpoint {
    OPENAI_CHAT = 1,       /**< /v1/chat/completions */
    OPENAI_COMPLETION = 2, /**< /v1/completions */
} openai_endpoint;

/** What is answered instead of a completion. */
typedef struct openai_error {
    int status_code;   /**< Of HTTP: 400, 500. */
    const char *code;  /**< Static word for programs, such as "unsupported_value"; NULL: none. */
    char param[64];    /**< What of the body it is about; "": nothing. */
    char message[600]; /**< PARAM: SEEN, expected EXPECTED. */
} openai_error;

/** One prompt. */
typedef struct openai_prompt {
    int32_t *ids; /**< [n_ids] owned (qn_free). */
    size_t n_ids;
} openai_prompt;

/** A body.  Caller's storage; all-zero is closed. */
typedef struct openai_request {
    openai_endpoint endpoint;
    qn_request request;   /**< All but ids and sampling. */
    qn_sampling sampling; /**< Seed: the first choice's. */
    uint32_t n;           /**< Choices of each prompt. */
    uint32_t n_vocab;     /**< Of the model. */
    openai_prompt *prompts;
    size_t n_prompts;
    bool needs_no_tools;            /**< tool_choice "none". */
    bool has_seed;                  /**< Else one was drawn. */
    qn_chat_options chat;           /**< tools_json: borrowed from text. */
    uint32_t max_completion_tokens; /**< 0: not given. */
    int32_t completion_logprobs;    /**< -1: not given. */
    qn_logit_bias *bias; /**< What request and sampling point to, owned as those below; */
    int32_t stop_ids[QN_STOPS_MAX];
    const char *stops[QN_STOPS_MAX]; /**< their bytes are of root. */
    char *text;                      /**< The body, NUL-terminated. */
    json_t *root;                    /**< ... parsed. */
} openai_request;

/**
 * Read a body.
 *
 * @param text  [len] JSON, copied
 * Returns  false: *error says why; @p out is closed
 */
bool openai_request_open(openai_request *out, const qn_model *model, openai_endpoint endpoint,
                         const char *text, size_t len, openai_error *error);
void openai_request_close(openai_request *request);

/** All choices were submitted: what only that needs is released, and what answers are made of
 * stays.
 */
void openai_request_shrink(openai_request *request);

/** Prompts times n. */
size_t openai_n_choices(const openai_request *request);

/**
 * What to submit for one choice; the n choices of a prompt stand together, each with a seed of its
 * own.  Borrowed from @p request and @p sampling.
 */
qn_request openai_request_choice(const openai_request *request, size_t i_choice,
                                 qn_sampling *sampling);

/** The same for a failure of the library: what a caller can mend is 400.  @p what stands for the
 * body's name of the prompt. */
void openai_error_of(openai_error *error, const qn_error *why, openai_endpoint endpoint);

/** Fill @p error. */
QN_PRINTF(5, 6)
void openai_fail(openai_error *error, int status_code, const char *code, const char *param,
                 const char *format, ...);

/** {"error": {"message", "type", "param", "code"}}; NULL without memory. */
json_t *openai_error_body(const openai_error *error);
#endif
