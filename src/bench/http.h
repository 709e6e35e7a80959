/* SPDX-License-Identifier: Apache-2.0 */
/** @file http.h  One question to a server, one answer: for everything but the load itself. */
#ifndef QN_BENCH_HTTP_H
#define QN_BENCH_HTTP_H
#include "quern/quern.h"

#include "base/buf.h"

#include <jansson.h>

/** Where a server is, and what every request to it carries. */
typedef struct bench_target {
    const char *base_url;       /**< "http://host:port", without "/v1" and without a last '/'. */
    const char *api_key;        /**< NULL: none. */
    const char *const *headers; /**< [n_headers] "Name: value" of the user. */
    size_t n_headers;
    bool is_insecure; /**< TLS certificates are not checked. */
    double timeout_s; /**< Of one request, whole. */
    double connect_s; /**< Of its connection. */
    /** Asked about each second while a single question waits, on the thread that asks: false ends
     * it.  NULL: it waits. */
    bool (*goes_on)(void *context);
    void *context;
} bench_target;

/** What came back; zero it first, then bench_http_free(). */
typedef struct bench_reply {
    int status; /**< Of HTTP. */
    qn_buf body;
} bench_reply;

/**
 * Ask, and wait for the whole answer: for 30 s at most.
 *
 * @param path  from the root: "/metrics"
 * @param body  JSON to POST; NULL: GET
 * Returns  QN_OK with any status of HTTP; QN_E_IO naming the URL where there was none, or it is
 *          longer than 64 MB; QN_E_CANCELLED where the target's goes_on() says so
 * Thread   any, one at a time for each @p reply
 */
QN_MUST_CHECK qn_status bench_http(bench_reply *reply, const bench_target *target, const char *path,
                                   const char *body, qn_error *err);

/** A connection that questions in a row share. */
typedef struct bench_asker bench_asker;

/** The same with a connection of the caller's: *kept is NULL before the first question and behind
 * one that failed; bench_asker_close().  @p target is that of the first. */
QN_MUST_CHECK qn_status bench_http_kept(bench_asker **kept, bench_reply *reply,
                                        const bench_target *target, const char *path,
                                        const char *body, qn_error *err);
void bench_asker_close(bench_asker **asker);

void bench_http_free(bench_reply *reply);

/** The same, for JSON: the answer parsed, NULL with QN_OK where its status was not 200 or it is no
 * JSON.  Owned by the caller (json_decref). */
QN_MUST_CHECK qn_status bench_http_json(json_t **out, const bench_target *target, const char *path,
                                        const char *body, qn_error *err);
#endif
