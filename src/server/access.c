/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "base/str.h"
#include "server/http.h"

#include <errno.h>
#include <strings.h>

qn_status access_open(qn_server *server, qn_error *err)
{
    const server_options *const options = &server->options;
    server->key_digests = calloc(options->n_api_keys + 1, sizeof *server->key_digests);
    if (server->key_digests == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "API keys: no memory");
    }
    for (size_t i = 0; i < options->n_api_keys; i++) {
        qn_sha256(server->key_digests[i], qn_str_of(options->api_keys[i]));
    }
    if (options->admin_key != NULL) {
        qn_sha256(server->key_digests[options->n_api_keys], qn_str_of(options->admin_key));
    }
    return QN_OK;
}

/*
 * Is it one of the keys from number @p i_first on?  The administrator's is the last.  Digests are
 * compared, all bytes of all of them, so that the time tells neither how much of a key was right
 * nor how long keys are.
 */
static bool is_key(const qn_server *server, size_t i_first, const char *given)
{
    const server_options *const options = &server->options;
    const size_t n = options->n_api_keys + (options->admin_key != NULL ? 1 : 0);
    uint8_t digest[QN_SHA256_BYTES];
    uint32_t n_equal = 0;
    if (given == NULL) {
        return false;
    }
    qn_str key = qn_str_of(given);
    while (key.len > 0 && strchr(" \t", key.ptr[key.len - 1]) != NULL) {
        key.len--; /* blanks behind a value are none of it; MHD leaves them there */
    }
    qn_sha256(digest, key);
    for (size_t i = i_first; i < n; i++) {
        uint32_t differences = 0;
        for (size_t j = 0; j < QN_SHA256_BYTES; j++) {
            differences |= (uint32_t)(digest[j] ^ server->key_digests[i][j]);
        }
        n_equal += ((differences - 1) >> 31) & 1U;
    }
    return n_equal > 0;
}

bool access_is_granted(const http_connection *connection)
{
    static const char scheme[] = "Bearer ";
    const qn_server *const server = connection->server;
    const server_options *const options = &server->options;
    const http_route *const route = connection->route;
    const bool is_admins = options->admin_key != NULL && route != NULL && route->is_admin;
    if ((route != NULL && route->is_open) || (options->n_api_keys == 0 && !is_admins)) {
        return true;
    }
    const size_t i_first = is_admins ? options->n_api_keys : 0;
    const char *bearer = connection_header(connection, MHD_HTTP_HEADER_AUTHORIZATION);
    if (bearer != NULL) {
        bearer =
            strncasecmp(bearer, scheme, sizeof scheme - 1) == 0 ? bearer + sizeof scheme - 1 : NULL;
    }
    return is_key(server, i_first, bearer) ||
           is_key(server, i_first, connection_header(connection, "x-api-key"));
}

static bool is_id(const char *text)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                  "._-";
    const size_t len = strspn(text, allowed);
    return len > 0 && len < HTTP_ID_BYTES && text[len] == '\0';
}

void access_set_id(http_connection *connection)
{
    qn_server *const server = connection->server;
    const char *const given = connection_header(connection, "x-request-id");
    if (given != NULL && is_id(given)) {
        (void)snprintf(connection->id, sizeof connection->id, "%s", given);
        return;
    }
    const uint64_t n = server->n_requests;
    (void)snprintf(connection->id, sizeof connection->id, "%016llx%08llx",
                   (unsigned long long)qn_rng_u64(server->id_seed, 0, n),
                   (unsigned long long)(qn_rng_u64(server->id_seed, 1, n) >> 32));
}

const char access_exposed[] = "x-request-id, request-id, retry-after, x-quern-ignored";

bool access_add_cors(const http_connection *connection, struct MHD_Response *response)
{
    const char *const origin = connection->server->options.cors_origin;
    if (origin == NULL) {
        return true;
    }
    return MHD_add_response_header(response, "Access-Control-Allow-Origin", origin) == MHD_YES &&
           MHD_add_response_header(response, "Vary", "Origin") == MHD_YES &&
           MHD_add_response_header(response, "Access-Control-Expose-Headers", access_exposed) ==
               MHD_YES;
}
