/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file server.h  The HTTP server.
 *
 * It listens before the model is loaded, so that a port in use is told at once and /health answers;
 * /ready and whatever needs the model say 503 until it has warmed up.  One thread, the caller's of
 * server_run(), runs all of HTTP; the worker (worker.h) loads and steps; readers (readers.h) parse
 * and tokenize bodies.
 */
#ifndef QN_SERVER_SERVER_H
#define QN_SERVER_SERVER_H
#include "server/backend.h"

/** Opaque. */
typedef struct qn_server qn_server;

/** How to serve.  Strings and lists are borrowed until server_close().  Zeros are settings: begin
 * with server_options_default(). */
typedef struct server_options {
    const char *host;            /**< Address or name to listen on. */
    const char *const *names;    /**< [n_names] what clients call the model. */
    size_t n_names;              /**< 0: the last part of its path, or any name. */
    const char *const *api_keys; /**< [n_api_keys] one of them must be given. */
    size_t n_api_keys;           /**< 0: open to all. */
    const char *admin_key;       /**< What flushes the cache asks for this one, which opens the rest
                                      too; NULL: for any of the others. */
    const char *tls_certificate; /**< PEM text; NULL: plain HTTP. */
    const char *tls_key;         /**< PEM text. */
    const char *cors_origin;     /**< "*" or an origin; NULL: no CORS headers. */
    uint64_t body_bytes_max;     /**< Larger bodies are 413. */
    uint64_t stream_bytes_max;   /**< Unread bytes of a stream; then it is dropped. */
    uint32_t prompt_tokens_max;  /**< 0: what fits the context. */
    uint32_t n_connections_max;
    uint32_t n_connections_address_max; /**< Of one address; 0: no limit. */
    uint32_t n_readers;                 /**< Threads that tokenize. */
    double header_timeout_s;            /**< For a request's head, */
    double body_timeout_s;              /**< for its body. */
    double idle_timeout_s;              /**< Of a connection without a request. */
    double write_timeout_s;             /**< Of a reader that takes nothing. */
    double keep_alive_s;                /**< Silence of a stream before a comment is sent. */
    double shutdown_timeout_s;          /**< Of a drain; then what runs is cancelled. */
    double watchdog_timeout_s;          /**< 0: none. */
    int draft_tokens;                   /**< For all requests. */
    float acceptance_length;            /**< Likewise, pinned: qn_request.acceptance_length. */
    uint16_t port;                      /**< 0: any free one; server_port() tells. */
    bool logs_prompts;                  /**< Bodies go to the log. */
    void (*ready)(void *context);       /**< Called once it is ready, in the loop's thread. */
    void *ready_context;
} server_options;

/** Safe ones: 127.0.0.1:8000, bodies of 8 MiB, 4,096 connections and 1,024 of an address, 2
 * readers, 30 s for heads, 60 for bodies, 900 idle, 60 to write, 10 of silence, 30 to drain, 300
 * for the watchdog. */
server_options server_options_default(void);

/**
 * Bind and listen.
 * Returns  QN_OK; QN_E_IO naming host and port; QN_E_INVAL naming the option; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status server_open(qn_server **out, const server_options *options, qn_error *err);

/** Port it listens on. */
uint16_t server_port(const qn_server *server);

/** What answers call the model: the first of its names, or the last part of its path; "" until it
 * is loaded. */
const char *server_model_name(const qn_server *server);

/**
 * Serve until server_stop(): @p load runs in the worker's thread meanwhile.
 * Returns  QN_OK after a drain in which every accepted request has ended; QN_E_CANCELLED when some
 *          were cancelled; the error of @p load; QN_E_IO
 */
QN_MUST_CHECK qn_status server_run(qn_server *server, server_load_fn *load, void *load_context,
                                   qn_error *err);

/**
 * First call: drain (no new requests, /ready says 503, running ones go on); second: cancel what
 * runs and end.  Any thread, and signal handlers.
 */
void server_stop(qn_server *server);

/** Accepts NULL; sets *server to NULL. */
void server_close(qn_server **server);
#endif
