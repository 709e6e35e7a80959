/* SPDX-License-Identifier: Apache-2.0 */
/** @file mock.h  A server whose latencies, limits and faults a script says (README.md): what its
 * parts tell each other.  One thread.  It is a tool of tests: without memory it ends. */
#ifndef QN_TESTS_MOCK_H
#define QN_TESTS_MOCK_H
#include "base/buf.h"
#include "base/json.h"

enum {
    MOCK_FAULTS_MAX = 32,
    MOCK_NUMBERS_MAX = 64,  /* requests that one fault names */
    MOCK_POSITIONS_MAX = 8, /* of drafts */
    MOCK_BLOCK_WORDS = 16,  /* of the prefix cache */
    MOCK_BYTES_MAX = 64 << 20,
};

/** Where a time is drawn from. */
typedef enum mock_spread_kind {
    MOCK_FIXED,
    MOCK_UNIFORM,
    MOCK_EXPONENTIAL,
    MOCK_BY_PROMPT, /**< Base, and so much for each token that the cache has not. */
} mock_spread_kind;

/** A time in ms. */
typedef struct mock_spread {
    mock_spread_kind kind;
    double a; /**< Fixed value; lowest; mean; base. */
    double b; /**< Highest; ms for a token. */
} mock_spread;

/** What can go wrong, or be unusual, in an answer. */
typedef enum mock_fault_kind {
    MOCK_STATUS,
    MOCK_CLOSE,
    MOCK_RESET,
    MOCK_HANG,
    MOCK_MALFORMED,
    MOCK_ERROR_EVENT,
    MOCK_NO_DONE,
    MOCK_NO_FINISH,
    MOCK_EMPTY,
    MOCK_HUGE_EVENT,
    MOCK_SLOW_BYTES,
    MOCK_CRLF,
    MOCK_COMMENTS,
    MOCK_WHOLE,
    MOCK_CONNECTION_CLOSE,
    MOCK_CLOSE_FRAMED,
    MOCK_USAGE,
    MOCK_N_FAULTS,
} mock_fault_kind;

/** What "usage" says. */
typedef enum mock_usage {
    MOCK_USAGE_RIGHT,
    MOCK_USAGE_NONE,
    MOCK_USAGE_TOO_MANY,
    MOCK_USAGE_TOO_FEW,
    MOCK_USAGE_ZERO,
    MOCK_USAGE_TOTAL,
    MOCK_USAGE_NEGATIVE,
    MOCK_USAGE_TEXT,
    MOCK_USAGE_CACHED,
    MOCK_N_USAGES,
} mock_usage;

/** How an event is broken. */
typedef enum mock_broken {
    MOCK_NOT_JSON,
    MOCK_WRONG_SHAPE,
    MOCK_HALF_UTF8,
    MOCK_N_BROKEN,
} mock_broken;

/** A fault and the requests it happens to. */
typedef struct mock_fault {
    mock_fault_kind kind;
    int64_t after_chunks; /**< -1: before the head of the answer. */
    int status;
    bool is_html;
    mock_broken broken;
    mock_usage usage;
    size_t n_bytes;                      /**< Of a huge event. */
    uint64_t requests[MOCK_NUMBERS_MAX]; /**< [n_requests] their numbers; none: see below. */
    size_t n_requests;
    uint64_t every; /**< Each such number from every - 1 on; 0: not by this. */
    double probability;
} mock_fault;

/** The names by which it tells what it does. */
typedef enum mock_engine {
    MOCK_QUERN,
    MOCK_VLLM,
    MOCK_SGLANG,
    MOCK_LLAMACPP,
    MOCK_N_ENGINES,
} mock_engine;

/** How cached tokens come about. */
typedef enum mock_cached_kind {
    MOCK_CACHED_NONE, /**< Not told. */
    MOCK_CACHED_NUMBER,
    MOCK_CACHED_SHARE,
    MOCK_CACHED_PREFIX,
} mock_cached_kind;

/** A pause of the whole process. */
typedef struct mock_stall {
    double at_s, for_s; /**< Since the first request. */
} mock_stall;

/** All that a script says. */
typedef struct mock_script {
    char model[64];
    char model_json[400]; /**< The same as a JSON string, with its quotes. */
    char api_key[64];     /**< "": none is asked for. */
    mock_engine engine;
    mock_spread ttft, tpot;
    uint32_t chunk_min, chunk_max;   /**< Tokens of an event after the first. */
    uint32_t output_min, output_max; /**< 0: max_tokens. */
    uint32_t n_reasoning;            /**< First tokens of a chat answer. */
    uint32_t n_template;             /**< Tokens before each message, and before the answer. */
    uint32_t n_slots;                /**< 0: no limit. */
    int64_t queue_max;               /**< -1: no limit. */
    double rate_limit;               /**< 0: none. */
    double retry_after_s;
    mock_cached_kind cached_kind;
    double cached;
    mock_usage usage;
    uint32_t n_draft; /**< Drafted for each event; 0: no drafts are told of. */
    bool has_tokenize, has_metrics, role_is_early, keeps_bodies;
    mock_stall stall;
    uint64_t seed;
    mock_fault faults[MOCK_FAULTS_MAX];
    size_t n_faults;
} mock_script;

/** The script without any member: answers at once, right, of max_tokens. */
void mock_script_default(mock_script *script);
/** Fill it from JSON; a member that is not known is an error. */
QN_MUST_CHECK qn_status mock_script_parse(mock_script *script, qn_str text, const char *what,
                                          qn_error *err);

/** What happens to one request. */
typedef struct mock_plan {
    bool has[MOCK_N_FAULTS];
    const mock_fault *act; /**< Of close, reset, hang, malformed, error_event; NULL: none. */
    int status;
    bool is_html;
    size_t n_huge;
    mock_usage usage;
} mock_plan;

void mock_plan_make(mock_plan *plan, const mock_script *script, uint64_t number);
/** A time drawn for a request, in ns. */
uint64_t mock_spread_ns(const mock_spread *spread, const mock_script *script, uint64_t stream,
                        uint64_t number, uint32_t n_uncached);

/** A prompt in words: each has a hash of itself. */
typedef struct mock_prompt {
    uint64_t *words; /**< [n] owned */
    size_t n, capacity;
} mock_prompt;

void mock_prompt_free(mock_prompt *prompt);
void mock_prompt_add(mock_prompt *prompt, uint64_t word);
void mock_prompt_add_text(mock_prompt *prompt, const char *text);
/** Of a body's "prompt" (text or ids, also one of them in a list) or "messages"; false: neither. */
bool mock_prompt_of(mock_prompt *prompt, const json_t *body, uint32_t n_template);

/** Blocks that were seen, each with all before it. */
void mock_cache_clear(void);
/** Tokens of leading blocks that were seen before; less than all of the prompt. */
uint32_t mock_cache_match(const mock_prompt *prompt);
void mock_cache_add(const mock_prompt *prompt);

/** A generation, from arrival on; kept for the log. */
typedef struct mock_request {
    uint64_t number;
    uint64_t arrived_ns, began_ns, ended_ns; /**< 0: not (yet). */
    uint64_t ttft_ns, tpot_ns;
    uint32_t n_prompt, n_cached, n_output, max_tokens;
    uint32_t n_sent; /**< Tokens. */
    uint32_t n_next; /**< Of the event that the timer waits for. */
    uint32_t n_connection;
    uint32_t n_running, n_waiting; /**< Others, when it came. */
    bool is_chat, is_stream, has_usage, is_head_sent;
    mock_plan plan;
    mock_prompt prompt; /**< Only while it runs. */
    uint64_t *chunk_ns; /**< [n_chunks] owned: when each was written. */
    size_t n_chunks, chunk_capacity;
    int status;
    const char *end;   /**< "done", "left" ...; NULL: it runs. */
    json_t *body;      /**< owned; without prompt and messages, unless they are kept. */
    char *output_text; /**< owned; only where bodies are kept. */
} mock_request;

/** A client's connection. */
typedef struct mock_connection {
    int fd; /**< -1: closed. */
    uint32_t number;
    qn_buf in, out;
    size_t n_written; /**< Of out. */
    uint32_t events;  /**< That epoll waits for. */
    bool closes;      /**< After out is written. */
    bool resets;
    bool was_continued; /**< "100 Continue" was said for the request that is being read. */
    mock_request *request;
    uint64_t due_ns; /**< Of the timer. */
    size_t i_heap;   /**< Its place among timers; SIZE_MAX: none. */
    struct mock_connection *next_waiting, *next_dead;
} mock_connection;

/** Counts since the script was set: what /metrics tells. */
typedef struct mock_counts {
    uint64_t n_prompt, n_cached, n_generated, n_drafts, n_drafted, n_accepted;
    uint64_t accepted_at[MOCK_POSITIONS_MAX];
    uint64_t n_stopped, n_length, n_aborted;
    uint32_t n_running, n_waiting, max_running;
} mock_counts;

/** The server. */
typedef struct mock_server {
    mock_script script;
    mock_counts counts;
    mock_request **requests; /**< [n_requests] owned */
    size_t n_requests, requests_capacity;
    mock_connection *first_waiting, *last_waiting;
    mock_connection *dead;  /**< Closed; events that are still to be looked at may name them. */
    mock_connection **heap; /**< [n_timers] owned */
    size_t n_timers, heap_capacity;
    uint64_t told_ns,
        told_generated; /**< When /metrics was last asked, and of what it told then. */
    double bucket;      /**< Requests that the rate limit lets through now. */
    uint64_t bucket_ns;
    uint64_t first_ns; /**< When the first request came; 0: none did. */
    uint32_t n_connections, n_open;
    int epoll;
} mock_server;

/* mock.c */
void mock_end(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void mock_timer_set(mock_server *s, mock_connection *c, uint64_t due_ns);
void mock_timer_clear(mock_server *s, mock_connection *c);
/** Append text, or end without memory. */
QN_PRINTF(2, 3)
void mock_put(qn_buf *buf, const char *format, ...);
void mock_put_bytes(qn_buf *buf, const void *bytes, size_t n_bytes);
/** realloc() that gives memory. */
void *mock_grow(void *array, size_t n, size_t element_bytes);

/* connection.c */
mock_connection *mock_connection_open(mock_server *s, int fd);
/** epoll says that it can be read or written, or broke. */
void mock_connection_ready(mock_server *s, mock_connection *c, uint32_t events);
/** Write what is in out, and close behind it where that was asked for. */
void mock_connection_flush(mock_server *s, mock_connection *c);
void mock_connection_close(mock_server *s, mock_connection *c);
/** Free those that are closed. */
void mock_connections_bury(mock_server *s);
/** A whole answer of another kind than a stream. */
void mock_reply(mock_connection *c, int status, const char *type, const char *head, qn_str body);
void mock_reply_json(mock_connection *c, int status, const char *head, json_t *body);

/* request.c */
void mock_request_begin(mock_server *s, mock_connection *c, json_t *body, bool is_chat,
                        const char *authorization);
/** Its timer is due. */
void mock_request_step(mock_server *s, mock_connection *c);
/** It ended, as @p end says: its slot goes to the next that waits. */
void mock_request_end(mock_server *s, mock_connection *c, const char *end);
void mock_request_free(mock_request *request);

/* event.c */
void mock_head_put(qn_buf *out, const mock_request *r);
/** The next event, of @p n_tokens, and with the last one all that ends the answer. */
void mock_event_put(qn_buf *out, const mock_script *script, const mock_request *r,
                    uint32_t n_tokens);
/** The first event of a chat, which has only the role. */
void mock_role_put(qn_buf *out, const mock_script *script, const mock_request *r);
/** A broken event, or one that tells an error. */
void mock_act_put(qn_buf *out, const mock_request *r);
json_t *mock_whole_json(const mock_script *script, const mock_request *r);
/** The word that is token @p i_token of an answer. */
const char *mock_word(const mock_request *r, uint32_t i_token);

/* pages.c */
/** Answer anything but a generation. */
void mock_page(mock_server *s, mock_connection *c, const char *method, const char *path,
               qn_str body);
/** Forget requests, counts and the cache. */
void mock_forget(mock_server *s);
#endif
