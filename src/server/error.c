/* SPDX-License-Identifier: Apache-2.0 */
#include "server/error.h"

#include "server/writer.h"

#include <stdarg.h>
#include <stdio.h>

enum { RETRY_AFTER_S = 1 };

void server_fail(server_error *error, int status_code, const char *code, const char *param,
                 const char *format, ...)
{
    va_list args;
    *error = (server_error){.status_code = status_code, .code = code};
    size_t len = strnlen(param, sizeof error->param);
    if (len == sizeof error->param) { /* too long: whole characters of it */
        do {
            len--;
        } while (((unsigned char)param[len] & 0xC0) == 0x80);
    }
    memcpy(error->param, param, len);
    qn_text_clean(error->param);
    va_start(args, format);
    (void)vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    qn_text_clean(error->message);
}

void server_fail_memory(server_error *error, const char *what)
{
    server_fail(error, 503, "overloaded", "", "%s: no memory", what);
    error->retry_after_s = RETRY_AFTER_S;
}

void server_error_of(server_error *error, const qn_error *why, const char *prompt)
{
    char param[sizeof error->param] = "";
    if (why->status == QN_E_NOMEM) {
        server_fail(error, 503, "overloaded", "", "%s", why->text);
        error->retry_after_s = RETRY_AFTER_S;
        return;
    }
    if (why->status == QN_AGAIN) {
        server_fail(error, 429, "queue_full", "", "%s", why->text);
        error->retry_after_s = RETRY_AFTER_S;
        return;
    }
    if (why->status != QN_E_INVAL && why->status != QN_E_FORMAT) {
        server_fail(error, 500, NULL, "", "%s", why->text);
        return;
    }
    /* "messages[0].role: ...", "prompt: ..." */
    (void)snprintf(param, sizeof param, "%.*s", (int)strcspn(why->text, ":( "), why->text);
    server_fail(error, 400, "invalid_value", strcmp(param, "prompt") == 0 ? prompt : param, "%s",
                why->text);
}

static const char *openai_type(int status_code)
{
    return status_code == 429  ? "rate_limit_error"
           : status_code < 500 ? "invalid_request_error"
                               : "server_error";
}

/* Source   Anthropic's API reference, "Errors" */
static const char *anthropic_type(int status_code)
{
    switch (status_code) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return status_code < 500 ? "invalid_request_error" : "api_error";
    }
}

/* The text as JSON; null where it is not there. */
static void put_text(server_writer *w, const char *text)
{
    if (text == NULL || text[0] == '\0') {
        writer_put(w, "null");
    } else {
        writer_put_string(w, qn_str_of(text));
    }
}

qn_status server_error_append(qn_buf *out, const server_error *error, server_api api, qn_error *err)
{
    server_writer w = {.out = out, .err = err};
    if (api == SERVER_API_MESSAGES) {
        writer_put(&w, "{\"type\": \"error\", \"error\": {\"type\": ");
        put_text(&w, anthropic_type(error->status_code));
        writer_put(&w, ", \"message\": ");
        put_text(&w, error->message);
        writer_put(&w, "}}");
        return w.status;
    }
    writer_put(&w, "{\"error\": {\"message\": ");
    put_text(&w, error->message);
    writer_put(&w, ", \"type\": ");
    put_text(&w, openai_type(error->status_code));
    writer_put(&w, ", \"param\": ");
    put_text(&w, error->param);
    writer_put(&w, ", \"code\": ");
    put_text(&w, error->code);
    writer_put(&w, "}}");
    return w.status;
}
