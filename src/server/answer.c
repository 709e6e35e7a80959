/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "base/try.h"
#include "server/http.h"

#include <errno.h>
#include <sys/socket.h>

enum { ERROR_BYTES_MAX = 8192, STREAM_BLOCK_BYTES = 16384 };

static const char json_type[] = "application/json";

static server_api api_of(const http_connection *connection)
{
    return connection->route != NULL ? connection->route->api : SERVER_API_CHAT;
}

/* Counted by path; what is not there has none.  A probe that hears no was answered, not refused. */
static void count_refusal(const http_connection *connection, const server_error *error)
{
    const http_route *const route = connection->route;
    if (route == NULL || !route->is_open || error->status_code < 500) {
        metrics_refused(connection->server->metrics, route != NULL ? route->path : NULL, error);
    }
}

/* -------------------------------------------------------------------------------- one response */

static bool add(struct MHD_Response *response, const char *name, const char *value)
{
    return MHD_add_response_header(response, name, value) == MHD_YES;
}

/* Queue @p response (may be NULL) with the headers that all have, or say that there is no memory.
 */
static enum MHD_Result queue(http_connection *connection, int status_code,
                             struct MHD_Response *response, bool has_headers)
{
    qn_server *const server = connection->server;
    const bool is_complete =
        response != NULL && has_headers && add(response, "x-request-id", connection->id) &&
        (api_of(connection) != SERVER_API_MESSAGES ||
         add(response, "request-id", connection->id)) &&
        access_add_cors(connection, response) &&
        (!server->is_draining || add(response, MHD_HTTP_HEADER_CONNECTION, "close"));
    struct MHD_Response *const sent =
        is_complete ? response : server->no_memory[api_of(connection) == SERVER_API_MESSAGES];
    connection->status_code = is_complete ? status_code : MHD_HTTP_SERVICE_UNAVAILABLE;
    connection->state = HTTP_ANSWERING;
    connection->since_ns = qn_clock_ns();
    const enum MHD_Result result =
        MHD_queue_response(connection->mhd, (unsigned int)connection->status_code, sent);
    if (response != NULL) {
        MHD_destroy_response(response);
    }
    return result;
}

/* The bytes of @p buf are the response's from here on; NULL: no memory. */
static struct MHD_Response *response_of(qn_buf *buf)
{
    static char nothing[] = "";
    struct MHD_Response *const response =
        buf->ptr != NULL
            ? MHD_create_response_from_buffer(buf->len, buf->ptr, MHD_RESPMEM_MUST_FREE)
            : MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    if (response == NULL) {
        qn_buf_deinit(buf);
    }
    *buf = (qn_buf){0};
    return response;
}

static bool add_error_headers(const http_connection *connection, const server_error *error,
                              struct MHD_Response *response)
{
    char seconds[16];
    (void)snprintf(seconds, sizeof seconds, "%u", error->retry_after_s);
    return add(response, MHD_HTTP_HEADER_CONTENT_TYPE, json_type) &&
           (error->retry_after_s == 0 || add(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds)) &&
           (error->status_code != MHD_HTTP_UNAUTHORIZED ||
            add(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer")) &&
           (error->status_code != MHD_HTTP_METHOD_NOT_ALLOWED ||
            add(response, MHD_HTTP_HEADER_ALLOW, connection->route->methods));
}

enum MHD_Result answer_error(http_connection *connection, const server_error *error)
{
    qn_buf body;
    qn_buf_init(&body, ERROR_BYTES_MAX);
    struct MHD_Response *response = NULL;
    if (server_error_append(&body, error, api_of(connection), NULL) >= 0) {
        response = response_of(&body);
    }
    qn_buf_deinit(&body);
    count_refusal(connection, error);
    return queue(connection, error->status_code, response,
                 response != NULL && add_error_headers(connection, error, response));
}

enum MHD_Result answer_page(http_connection *connection, qn_buf *page, const char *type)
{
    struct MHD_Response *const response = response_of(page);
    return queue(connection, MHD_HTTP_OK, response,
                 response != NULL && add(response, MHD_HTTP_HEADER_CONTENT_TYPE, type));
}

enum MHD_Result answer_preflight(http_connection *connection)
{
    const char *const asked = connection_header(connection, "Access-Control-Request-Headers");
    qn_buf nothing = {0};
    struct MHD_Response *const response = response_of(&nothing);
    const bool has_headers =
        response != NULL &&
        add(response, "Access-Control-Allow-Methods", connection->route->methods) &&
        (asked == NULL || asked[0] == '\0' || /* which MHD would not add */
         add(response, "Access-Control-Allow-Headers", asked)) &&
        add(response, "Access-Control-Max-Age", "600");
    return queue(connection, MHD_HTTP_NO_CONTENT, response, has_headers);
}

/* -------------------------------------------------------------------------------------- a call */

/* MHD asks for bytes of an answer; without any it is suspended until there are some. */
static ssize_t read_out(void *context, uint64_t position, char *bytes, size_t n_max)
{
    (void)position;
    http_call *const call = context;
    http_connection *const connection = call->connection;
    size_t n = call->out.len - call->n_sent;
    if (connection->is_dropped || (n == 0 && call->is_broken)) {
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    if (n == 0 && call->stage == CALL_WHOLE) {
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    if (n == 0) {
        connection->is_suspended = true;
        MHD_suspend_connection(connection->mhd);
        return 0;
    }
    n = n < n_max ? n : n_max;
    memcpy(bytes, call->out.ptr + call->n_sent, n);
    call->n_sent += n;
    call->taken_ns = qn_clock_ns();
    if (call->n_sent == call->out.len && call->stage != CALL_WHOLE) {
        qn_buf_clear(&call->out);
        call->n_sent = 0;
    }
    return (ssize_t)n;
}

enum MHD_Result answer_call(http_connection *connection)
{
    http_call *const call = connection->call;
    call->taken_ns = qn_clock_ns(); /* from here on its reader may be slow */
    if (call->has_failed && !call->has_begun) {
        return answer_error(connection, &call->error);
    }
    const bool streams = call->has_begun;
    const char *const ignored = call->exchange != NULL ? exchange_ignored(call->exchange) : "";
    struct MHD_Response *const response = MHD_create_response_from_callback(
        streams ? MHD_SIZE_UNKNOWN : call->out.len, STREAM_BLOCK_BYTES, read_out, call, NULL);
    const bool has_headers =
        response != NULL &&
        add(response, MHD_HTTP_HEADER_CONTENT_TYPE, streams ? "text/event-stream" : json_type) &&
        (!streams || (add(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache") &&
                      add(response, "X-Accel-Buffering", "no"))) &&
        (ignored[0] == '\0' || add(response, "x-quern-ignored", ignored));
    const enum MHD_Result result = queue(connection, MHD_HTTP_OK, response, has_headers);
    if (!has_headers) {
        call_cancel(call);
    }
    return result;
}

/* ------------------------------------------------------------------------------- without MHD */

/* The head of @p n_bytes of an error, with all that queue() and add_error_headers() give one. */
static qn_status append_head(qn_buf *out, const http_connection *connection,
                             const server_error *error, size_t n_bytes)
{
    const bool is_messages = api_of(connection) == SERVER_API_MESSAGES;
    const char *const origin = connection->server->options.cors_origin;
    qn_status status = QN_OK;
    QN_TRY(status,
           qn_buf_append_printf(out, NULL,
                                "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                                "Connection: close\r\nx-request-id: %s\r\n",
                                error->status_code,
                                MHD_get_reason_phrase_for((unsigned int)error->status_code),
                                json_type, n_bytes, connection->id),
           fail);
    if (is_messages) {
        QN_TRY(status, qn_buf_append_printf(out, NULL, "request-id: %s\r\n", connection->id), fail);
    }
    if (error->retry_after_s > 0) {
        QN_TRY(status, qn_buf_append_printf(out, NULL, "Retry-After: %u\r\n", error->retry_after_s),
               fail);
    }
    if (origin != NULL) {
        QN_TRY(status,
               qn_buf_append_printf(out, NULL,
                                    "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n"
                                    "Access-Control-Expose-Headers: %s\r\n",
                                    origin, access_exposed),
               fail);
    }
    status = qn_buf_append(out, "\r\n", 2, NULL);

fail:
    return status;
}

void answer_at_once(http_connection *connection, const server_error *error)
{
    qn_buf text;
    qn_buf body;
    qn_buf_init(&text, ERROR_BYTES_MAX);
    qn_buf_init(&body, ERROR_BYTES_MAX);
    connection->status_code = error->status_code;
    count_refusal(connection, error);
    if (connection->server->options.tls_certificate == NULL &&
        server_error_append(&body, error, api_of(connection), NULL) >= 0 &&
        append_head(&text, connection, error, body.len) >= 0 &&
        qn_buf_append(&text, body.ptr, body.len, NULL) >= 0) {
        connection->is_told = send(connection->fd, text.ptr, text.len,
                                   MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)text.len;
    }
    qn_buf_deinit(&body);
    qn_buf_deinit(&text);
}

qn_status answer_open(qn_server *server, qn_error *err)
{
    server_error error = {0};
    char seconds[16];
    server_fail_memory(&error, "server");
    (void)snprintf(seconds, sizeof seconds, "%u", error.retry_after_s);
    for (int i = 0; i < 2; i++) {
        qn_buf body;
        qn_buf_init(&body, ERROR_BYTES_MAX);
        const qn_status status =
            server_error_append(&body, &error, i == 1 ? SERVER_API_MESSAGES : SERVER_API_CHAT, err);
        if (status < 0) {
            qn_buf_deinit(&body);
            return status;
        }
        server->no_memory[i] = response_of(&body);
        if (server->no_memory[i] == NULL ||
            !add(server->no_memory[i], MHD_HTTP_HEADER_CONTENT_TYPE, json_type) ||
            !add(server->no_memory[i], MHD_HTTP_HEADER_RETRY_AFTER, seconds)) {
            return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "server: no memory");
        }
    }
    return QN_OK;
}

void answer_close(qn_server *server)
{
    for (int i = 0; i < 2; i++) {
        if (server->no_memory[i] != NULL) {
            MHD_destroy_response(server->no_memory[i]);
        }
    }
}
