/* SPDX-License-Identifier: Apache-2.0 */
/** @file error.h  What is answered instead of what was asked for, in OpenAI's and Anthropic's form.
 */
#ifndef QN_SERVER_ERROR_H
#define QN_SERVER_ERROR_H
#include "base/buf.h"

/** Whose form an answer has. */
typedef enum server_api {
    SERVER_API_CHAT,       /**< /v1/chat/completions */
    SERVER_API_COMPLETION, /**< /v1/completions */
    SERVER_API_MESSAGES,   /**< /v1/messages, Anthropic's */
} server_api;

/** A refusal or failure. */
typedef struct server_error {
    int status_code;        /**< Of HTTP: 400, 401, 404, 405, 408, 413, 429, 500, 503. */
    uint32_t retry_after_s; /**< For Retry-After; 0: no such header. */
    const char *code;  /**< Static word for programs, as "unsupported_parameter"; NULL: none. */
    char param[64];    /**< What of the body it is about; "": nothing. */
    char message[600]; /**< PARAM: SEEN, expected EXPECTED; one line of UTF-8. */
} server_error;

/** Fill @p error; a long @p param is cut at a character. */
QN_PRINTF(5, 6)
void server_fail(server_error *error, int status_code, const char *code, const char *param,
                 const char *format, ...);

/** The same where there is no memory now for @p what ("body", "answer"): 503 with a retry. */
void server_fail_memory(server_error *error, const char *what);

/**
 * The same for a failure of the library: what a caller can mend is 400, QN_AGAIN 429 and no memory
 * 503 with a retry, else 500.  @p prompt is what the body calls its prompt: "prompt" or "messages".
 */
void server_error_of(server_error *error, const qn_error *why, const char *prompt);

/**
 * Append the body: {"error": {"message", "type", "param", "code"}}, or Anthropic's {"type":
 * "error", "error": {"type", "message"}} with types by status: invalid_request_error,
 * authentication_error, not_found_error, request_too_large, rate_limit_error, api_error,
 * overloaded_error (for 503).  QN_E_NOMEM.
 */
QN_MUST_CHECK qn_status server_error_append(qn_buf *out, const server_error *error, server_api api,
                                            qn_error *err);
#endif
