/* SPDX-License-Identifier: Apache-2.0 */
#include "server/http.h"

#include <string.h>

#define JSON_TYPE "application/json"
#define POST      "POST"
#define GET       "GET, HEAD"

/* A route with neither page nor read flushes the cache. */
static const http_route routes[] = {
    {.path = "/v1/chat/completions",
     .methods = POST,
     .api = SERVER_API_CHAT,
     .needs_model = true,
     .read = read_exchange},
    {.path = "/v1/completions",
     .methods = POST,
     .api = SERVER_API_COMPLETION,
     .needs_model = true,
     .read = read_exchange},
    {.path = "/v1/messages",
     .methods = POST,
     .api = SERVER_API_MESSAGES,
     .needs_model = true,
     .read = read_exchange},
    {.path = "/v1/messages/count_tokens",
     .methods = POST,
     .api = SERVER_API_MESSAGES,
     .needs_model = true,
     .read = read_count},
    {.path = "/v1/messages/", .api = SERVER_API_MESSAGES, .is_prefix = true},
    {.path = "/v1/models",
     .methods = GET,
     .type = JSON_TYPE,
     .needs_model = true,
     .page = page_models},
    {.path = "/v1/models/",
     .methods = GET,
     .type = JSON_TYPE,
     .is_prefix = true,
     .needs_model = true,
     .page = page_model},
    {.path = "/tokenize", .methods = POST, .needs_model = true, .read = read_tokenize},
    {.path = "/detokenize", .methods = POST, .needs_model = true, .read = read_detokenize},
    {.path = "/health", .methods = GET, .type = JSON_TYPE, .is_open = true, .page = page_health},
    {.path = "/ready", .methods = GET, .type = JSON_TYPE, .is_open = true, .page = page_ready},
    {.path = "/metrics",
     .methods = GET,
     .type = "text/plain; version=0.0.4; charset=utf-8",
     .page = page_metrics},
    {.path = "/version", .methods = GET, .type = JSON_TYPE, .page = page_version},
    {.path = "/server_info", .methods = GET, .type = JSON_TYPE, .page = page_info},
    {.path = "/flush_cache", .methods = POST, .needs_model = true, .is_admin = true},
    {.path = "/reset_prefix_cache", .methods = POST, .needs_model = true, .is_admin = true},
    {.path = "/v1/responses"},
    {.path = "/v1/responses/", .is_prefix = true},
    {.path = "/v1/embeddings"},
    {.path = "/v1/audio/", .is_prefix = true},
    {.path = "/v1/batches"},
    {.path = "/v1/files"},
    {.path = "/v1/images/", .is_prefix = true},
    {.path = "/v1/moderations"},
    {.path = "/v1/rerank"},
    {.path = "/v1/score"},
};

const http_route *route_find(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const http_route *const route = &routes[i];
        const size_t len = strlen(route->path);
        if (route->is_prefix ? strncmp(path, route->path, len) == 0 && path[len] != '\0'
                             : strcmp(path, route->path) == 0) {
            return route;
        }
    }
    return NULL;
}
