/* SPDX-License-Identifier: Apache-2.0 */
/** @file client.h  Sends requests at the moments they are due and notes what came back and when:
 * one thread, libcurl's multi interface over epoll. */
#ifndef QN_BENCH_CLIENT_H
#define QN_BENCH_CLIENT_H
#include "http.h"

/** The API that is spoken. */
typedef enum bench_api {
    BENCH_COMPLETIONS, /**< /v1/completions: the prompt is text or ids. */
    BENCH_CHAT,        /**< /v1/chat/completions */
} bench_api;

/** How a request ended: exactly one of these, by the order in bench_answer_end().  Each is counted
 * by its own name: bench_end_name(). */
typedef enum bench_end {
    BENCH_DONE,         /**< Whole: tokens, a finish reason, the end of the stream. */
    BENCH_CONNECT,      /**< "connect": no connection (name, refused, TLS). */
    BENCH_TIMEOUT,      /**< "timeout": not whole within the limit. */
    BENCH_RATE_LIMITED, /**< "rate_limited": status 429. */
    BENCH_REFUSED,      /**< "http_4xx" */
    BENCH_OTHER,        /**< "http_other": a status below 400 that is not 200. */
    BENCH_SERVER,       /**< "http_5xx" */
    BENCH_FAILED,       /**< "stream_error": an error where status 200 had promised an answer. */
    BENCH_MALFORMED,    /**< "malformed": an event that is no JSON, or not of this API. */
    BENCH_CUT,          /**< "cut_off": the connection closed before the answer was whole. */
    BENCH_EMPTY,        /**< "empty": whole, and without any token. */
    BENCH_USAGE,        /**< "wrong_usage": whole; its usage contradicts itself, the request or
                             what came (message says how). */
    BENCH_CANCELLED, /**< "cancelled": the run ended before it did; neither success nor failure. */
    BENCH_N_ENDS,
} bench_end;

/** "rate_limited": the name in results. */
const char *bench_end_name(bench_end end);

enum { BENCH_BODY_PARTS = 6, BENCH_FINISH_BYTES = 24, BENCH_MESSAGE_BYTES = 160 };

/** A body in pieces, so that prompts which share text share its bytes.  All borrowed until the
 * request ends. */
typedef struct bench_body {
    const char *parts[BENCH_BODY_PARTS];
    size_t lens[BENCH_BODY_PARTS];
    size_t n_parts;
} bench_body;

/** One request to send. */
typedef struct bench_call {
    uint64_t id;       /**< Place in the workload: two runs of one workload are paired by it. */
    uint32_t n_prompt; /**< Tokens of the prompt by construction; 0: not known. */
    uint32_t n_shared; /**< Of those, what an earlier request begins with too, by construction. */
    uint32_t n_output; /**< max_tokens; 0: none was asked for. */
    uint32_t conversation, turn; /**< Both from 0. */
    bool is_exact;               /**< ignore_eos was asked for: exactly n_output are to come. */
    bool keeps_text;             /**< The record is to have the answer's text. */
    /** Before it could not be sent, due or not, as so many requests at once were allowed: what the
     * client is late counts from then.  0: from when it is due. */
    double ready_s;
    bench_body body;
    void *owned; /**< Freed (free) with the request; NULL: nothing. */
} bench_call;

/** What became of it; on the heap.  Times are seconds since the run began; NaN: did not happen. */
typedef struct bench_record {
    bench_call call;   /**< Without body and owned. */
    double due_s;      /**< The intended start: what latencies count from. */
    double sent_s;     /**< Handed to libcurl. */
    double first_s;    /**< First token of text, thinking or a tool call. */
    double last_s;     /**< Last of those. */
    double end_s;      /**< [DONE], where it came, else the end of the answer. */
    uint32_t n_chunks; /**< Events that brought tokens; several tokens may come in one. */
    double *chunk_s;   /**< [n_chunks] owned: when each came. */
    bool has_usage;    /**< The server told n_prompt and n_output. */
    bool has_cached;   /**< And n_cached: 0 then means none, not unknown. */
    uint32_t n_prompt, n_output, n_cached, n_reasoning; /**< As usage says, where it does. */
    char finish[BENCH_FINISH_BYTES];                    /**< finish_reason; "" none. */
    bench_end end;
    int status;                        /**< Of HTTP; 0: none came. */
    char message[BENCH_MESSAGE_BYTES]; /**< What was wrong. */
    char
        *text; /**< owned; NULL: not kept, or none came.  Text, thinking and tool calls in a row. */
} bench_record;

/** What a source wants next. */
typedef enum bench_want {
    BENCH_SEND, /**< *call now; *when_s is the intended start. */
    BENCH_WAIT, /**< Ask again at *when_s. */
    BENCH_IDLE, /**< Ask again when a request has ended.  (Asked with each tick all the same, so
                     that BENCH_STOP is heard.) */
    BENCH_END_OF_RUN, /**< Nothing more: end when all that runs has ended. */
    BENCH_STOP,       /**< End now, cancel what runs. */
} bench_want;

/** Where requests come from and records go: a load with its workload.  Called on the client's
 * thread; each call is short, since it delays what is due. */
typedef struct bench_source {
    void *context; /**< First argument of all. */
    /** What is wanted next.  The body of *call stays borrowed until the request ends. */
    bench_want (*next)(void *context, double now_s, bench_call *call, double *when_s);
    /** A request ended; @p record is taken over (bench_record_free). */
    void (*done)(void *context, bench_record *record);
    /** Some ten times a second. */
    void (*tick)(void *context, double now_s);
} bench_source;

/** How late the client itself was. */
typedef struct bench_lag {
    double send_p50_ms, send_p99_ms, send_max_ms; /**< Due to handed to libcurl, and on an open
 connection on its way. */
    /** Of every event: how long its bytes can have lain in the socket because the client was busy
     * or was not run.  Where it slept until they came, this counts from its waking, or from the
     * tick (every 2 ms) at which it should have woken at the latest; else from when it last found
     * nothing there. */
    double read_p50_ms, read_p99_ms, read_max_ms;
    uint64_t n_events; /**< Events that brought tokens. */
    /** Requests sent again, from their intended start, as the server had closed the kept connection
     * before anything of them was there: what it has read, and dropped, is cut off. */
    uint64_t n_resent;
    uint64_t n_no_file; /**< Connections that failed as no more files could be opened here. */
    double cpu_s;       /**< Of the client's thread. */
} bench_lag;

/** The limit at its 99th percentile, beyond which a result is not valid. */
#define BENCH_LAG_MAX_MS 5.0

typedef struct bench_client bench_client;

/**
 * A client of one server, with its connections, which runs keep.  The name of the host is looked up
 * here, once.
 *
 * @param target  borrowed until it is closed
 * @param path    of every request, from the root: "/v1/completions"
 * @param n_streams_max  that many requests at once will find files enough; more are sent too, as
 *                       far as the system allows
 * Returns  QN_OK; QN_E_NOMEM; QN_E_INVAL for a URL or a header that is none; QN_E_IO where the
 *          limit of open files does not allow @p n_streams_max, even raised
 */
QN_MUST_CHECK qn_status bench_client_open(bench_client **out, const bench_target *target,
                                          bench_api api, const char *path, size_t n_streams_max,
                                          qn_error *err);

/**
 * Run until the source ends and all requests have ended.  No failure of a request is one of the
 * run.  Whatever it returns, each request that was sent has been given to done().
 *
 * @param[out] lag  of this run; also of one that fails
 * Returns  QN_OK; QN_E_NOMEM; QN_E_IO where epoll fails
 */
QN_MUST_CHECK qn_status bench_client_run(bench_client *client, const bench_source *source,
                                         bench_lag *lag, qn_error *err);

/** Close its connections and free it; sets *out to NULL, which it may be. */
void bench_client_close(bench_client **out);

/** Requests under way now; and those of them whose first token came later than @p limit_s after
 * they were due, or has not come by then.  On the client's thread. */
size_t bench_client_n_active(const bench_client *client);
size_t bench_client_n_late(const bench_client *client, double limit_s);

/** Free a record and what it owns; NULL is fine. */
void bench_record_free(bench_record *record);
#endif
