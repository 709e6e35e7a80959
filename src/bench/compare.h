/* SPDX-License-Identifier: Apache-2.0 */
/** @file compare.h  Two results side by side: what differs in how they were made, requests paired,
 * ratios with intervals (docs/bench_result.md, compare.json). */
#ifndef QN_BENCH_COMPARE_H
#define QN_BENCH_COMPARE_H
#include "bootstrap.h"

#include <jansson.h>

/** A line of requests.jsonl. */
typedef struct compare_request {
    uint64_t run, id;
    double ttft_ms, tpot_ms, e2el_ms; /**< NaN: not there. */
    double n_prompt, n_output;        /**< Tokens; NaN: not told. */
    bool is_done;                     /**< It succeeded. */
} compare_request;

/** One of the two. */
typedef struct compare_side {
    const char *path;          /**< As it was given. */
    json_t *result;            /**< owned */
    compare_request *requests; /**< [n_requests] owned, by run and id. */
    size_t n_requests;
    bool has_requests; /**< requests.jsonl is there. */
} compare_side;

/**
 * Read a result.
 *
 * @param path  a folder with result.json and requests.jsonl, or a result.json beside which the
 * other may lie; borrowed Returns  QN_OK; QN_E_NOT_FOUND; QN_E_FORMAT naming file, line and field;
 * QN_E_NOMEM. compare_close() in any case
 */
QN_MUST_CHECK qn_status compare_open(compare_side *out, const char *path, qn_error *err);
void compare_close(compare_side *side);

/** What is known of a server: as it says, or where it does not, as the user noted. */
const json_t *compare_of_server(const json_t *server, const char *key);

/** What two results have to have in common. */
typedef enum compare_kind {
    COMPARE_MACHINE,  /**< The client's hardware; the server's where it is told. */
    COMPARE_WORKLOAD, /**< Lengths, seed, hit rate ... */
    COMPARE_LOAD,     /**< Arrivals, and a rate or concurrency that both have. */
    COMPARE_API,      /**< Chat or completions. */
    COMPARE_INVALID,  /**< That both are valid, */
    COMPARE_PARTIAL,  /**< and whole. */
    COMPARE_N_KINDS,
} compare_kind;

/** "machine", ... */
const char *compare_kind_name(compare_kind kind);

typedef struct compare_options {
    bool allows[COMPARE_N_KINDS]; /**< Compare where these differ, and say so. */
    const char *command;          /**< For the result. */
    bootstrap_options bootstrap;
} compare_options;

/**
 * Compare.
 *
 * @param[out] out  compare.json, owned by the caller (json_decref)
 * Returns  QN_OK; QN_E_INVAL naming what differs; QN_E_FORMAT where a result lacks its runs;
 *          QN_E_NOMEM
 */
QN_MUST_CHECK qn_status compare_json(json_t **out, const compare_side *a, const compare_side *b,
                                     const compare_options *options, qn_error *err);
#endif
