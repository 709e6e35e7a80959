/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file http.h  What the files of the HTTP server share: a server, its connections, and calls,
 * which are requests that a reader or the engine works on.
 *
 * All of it belongs to the loop's thread, but that a reader has a call while it is READING, but for
 * is_cancelled.  A connection lives from MHD's notice of its start to that of its end.  A call
 * lives as long as anybody needs it: its connection, the reader, or tickets that have not ended.
 */
#ifndef QN_SERVER_HTTP_H
#define QN_SERVER_HTTP_H
#include "base/sha256.h"
#include "server/metrics.h"
#include "server/readers.h"
#include "server/server.h"
#include "server/worker.h"

#include <microhttpd.h>
#include <stdatomic.h>

enum {
    HTTP_ID_BYTES = BOARD_ID_BYTES,   /**< Of a request's id, with its NUL. */
    HTTP_PATH_BYTES = 320,            /**< Of a path, with its NUL; longer ones are unknown. */
    HTTP_LINGERS_MAX = 64,            /**< Sockets that linger. */
    HTTP_ENDS_MAX = 32,               /**< Ends of requests that tell the rate of the last ones. */
    HTTP_BODIES_MAX = 64,             /**< Bodies of the largest size that are in memory at once. */
    HTTP_PIPELINED_BYTES_MAX = 32768, /**< That wait behind a request that is not answered. */
    HTTP_RETRY_LOADING_S = 5,         /**< Retry-After while the model loads, */
    HTTP_RETRY_DRAINING_S = 5,        /**< while the server drains, */
    HTTP_RETRY_STALLED_S = 5,         /**< and while a step takes long: */
    HTTP_STALL_SHARE = 4,             /**< this part of the watchdog's time. */
};

typedef struct http_connection http_connection;
typedef struct http_call http_call;

/** What a path does. */
typedef struct http_route {
    const char *path;    /**< With is_prefix its beginning. */
    const char *methods; /**< As Allow has them: "GET, HEAD"; NULL: a path that is not built. */
    const char *type;    /**< Content type of its page. */
    server_api api;      /**< Form of its errors. */
    bool is_prefix;
    bool is_open;     /**< Needs no API key. */
    bool is_admin;    /**< Where there is a key of the administrator: needs that one. */
    bool needs_model; /**< 503 before the model is loaded. */
    /** The answer to a request that needs nobody else.  False: *error says why. */
    bool (*page)(const http_connection *connection, qn_buf *out, server_error *error);
    /** Else: reads the body in a reader's thread; fills exchange, or out.  False: call->error. */
    bool (*read)(http_call *call);
} http_route;

/** Where a connection is. */
typedef enum http_state {
    HTTP_HEAD,      /**< New, or a request's first bytes have come. */
    HTTP_IDLE,      /**< Between two requests. */
    HTTP_BODY,      /**< Its head was read. */
    HTTP_WORKING,   /**< Suspended, until its call has an answer. */
    HTTP_ANSWERING, /**< The answer is being sent. */
} http_state;

/** A client's connection, and the request that it has. */
struct http_connection {
    qn_server *server;
    struct MHD_Connection *mhd;
    http_connection *next, *previous; /**< In the server's list. */
    int fd;                           /**< MHD's. */
    http_state state;
    uint64_t since_ns; /**< Begin of the state. */
    uint64_t head_ns;  /**< First byte of the request's head; 0: not seen. */
    bool is_suspended; /**< As MHD has it, but for a resumption that it has not seen yet. */
    bool has_left;     /**< The client has closed its side. */
    bool is_dropped;   /**< We have closed ours. */
    bool lingers;      /**< The client may still be sending when it is closed. */
    bool is_told;      /**< By answer_at_once(). */
    bool is_too_large; /**< The body is, what comes of it is not kept, */
    uint64_t n_body;   /**< but counted. */

    const http_route *route; /**< Of the request, as what follows; NULL: none matches. */
    http_call *call;         /**< NULL: none. */
    qn_buf body;
    int status_code;            /**< Of the answer; 0: none yet. */
    const char *method;         /**< Static. */
    char id[HTTP_ID_BYTES];     /**< x-request-id */
    char path[HTTP_PATH_BYTES]; /**< Cut where it is too long. */
};

/** How far a choice is. */
typedef struct http_choice {
    uint64_t last_ns; /**< When its last piece came. */
    uint32_t n_new;   /**< Tokens of the piece that is coming. */
    bool is_accepted; /**< By the engine. */
    bool has_first;   /**< Its first token has come. */
    bool has_ended;
} http_choice;

/** How far a call is: READING, QUEUED, STARTED, WHOLE, some of them left out; or FLUSHING, WHOLE.
 */
typedef enum call_stage {
    CALL_READING,  /**< A reader has it. */
    CALL_FLUSHING, /**< It waits for the cache to be flushed. */
    CALL_QUEUED,   /**< Its choices were submitted, */
    CALL_STARTED,  /**< and all of them accepted. */
    CALL_WHOLE,    /**< Nothing more comes into out, no ticket is open. */
} call_stage;

/** A request that others work on.  What goes together is asserted by check_state() in call.c. */
struct http_call {
    reader_job job; /**< First, so that a job is its call. */
    qn_server *server;
    http_connection *connection; /**< NULL: it is gone. */
    http_call *next, *previous;  /**< In the server's list. */
    http_call *next_touched;     /**< In the list of those that news have touched. */
    const http_route *route;
    char id[HTTP_ID_BYTES];
    qn_buf body;
    call_stage stage;
    _Atomic bool is_cancelled; /**< Nobody wants it: its tickets are, and a reader skips it. */
    bool has_failed;           /**< error is the answer, or the end of it. */
    bool has_begun;            /**< A stream, and its first bytes are in out. */
    bool is_broken;            /**< The stream cannot end as it should. */
    bool is_touched;           /**< By news that are not settled yet, */
    bool has_news_first;       /**< a first token among them. */

    server_exchange *exchange; /**< NULL before it was read, and where there is none. */
    worker_ticket *tickets;    /**< [n_choices] */
    http_choice *choices;      /**< [n_choices] */
    size_t n_choices;          /**< 0 of those that generate nothing. */
    size_t n_accepted;
    size_t n_open; /**< Submitted, and their ends have not come. */
    board_entry *board;
    server_error error;

    qn_buf out;         /**< The answer. */
    size_t n_sent;      /**< Bytes of out that MHD has taken. */
    size_t burst_bytes; /**< Put at once, more than a stream may leave unread, and not all taken. */
    uint64_t head_ns;   /**< First byte of its request. */
    uint64_t put_ns;    /**< When bytes were last put into out, */
    uint64_t taken_ns;  /**< and taken; where none waited, when the first came that does. */
    const char *finish; /**< For the log: how it ended; NULL: it was not even begun. */
};

/** A socket that MHD has closed, read on until the client is done: closing it with bytes unread
 * would take the answer away from a client that still sends.  Its fd is a duplicate. */
typedef struct http_linger {
    int fd;            /**< -1: free. */
    uint64_t until_ns; /**< Then it is closed. */
} http_linger;

/** See server.h. */
struct qn_server {
    server_options options;
    exchange_settings settings;              /**< Of exchanges; the model once it is ready. */
    uint8_t (*key_digests)[QN_SHA256_BYTES]; /**< [options.n_api_keys] */
    struct MHD_Daemon *daemon;
    struct MHD_Response *no_memory[2]; /**< 503 where none can be made: OpenAI's, Anthropic's. */
    server_metrics *metrics;
    server_board *board;
    server_readers *readers;
    server_worker *worker;
    const server_backend *backend; /**< NULL until it is ready. */
    int listen_fd, epoll_fd;
    int wake_fd;        /**< eventfd of worker, readers and server_stop(). */
    atomic_int n_stops; /**< Calls of server_stop(). */
    uint16_t port;
    bool is_ready, is_draining, is_ending;
    bool has_cancelled; /**< Requests that were accepted. */
    bool has_failed;    /**< failure: no model. */
    qn_error failure;

    http_connection *connections;
    http_call *calls;
    http_linger lingers[HTTP_LINGERS_MAX];
    size_t i_linger; /**< The next one to be used. */
    uint32_t n_connections;
    uint64_t n_open_choices; /**< Of all calls. */
    uint64_t body_bytes;     /**< Of all bodies in memory. */
    uint64_t n_requests;     /**< Ever. */
    uint64_t id_seed;        /**< Of ids of requests. */
    uint64_t begun_ns, drain_ns, ending_ns;
    uint64_t tick_ns, next_tick_ns;  /**< Between two looks at all connections. */
    time_t created;                  /**< For /v1/models. */
    uint64_t ends_ns[HTTP_ENDS_MAX]; /**< Ring: when the last requests ended. */
    uint64_t n_ends;
};

/* ------------------------------------------------------------------------------------ access.c */

/** Digests of the API keys.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status access_open(qn_server *server, qn_error *err);
/** Does the request carry one of the keys, or need none? */
bool access_is_granted(const http_connection *connection);
/** Take the request's id from its head, or make one. */
void access_set_id(http_connection *connection);
/** Headers that pages of other origins may read. */
extern const char access_exposed[];
/** Add what browsers want to see; false: no memory. */
bool access_add_cors(const http_connection *connection, struct MHD_Response *response);

/* ------------------------------------------------------------------------------------ answer.c */

/** Make the answers that need no memory.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status answer_open(qn_server *server, qn_error *err);
void answer_close(qn_server *server);
/** Queue an error.  What MHD's handler returns, as with those below. */
enum MHD_Result answer_error(http_connection *connection, const server_error *error);
/** Queue a page; @p page is taken. */
enum MHD_Result answer_page(http_connection *connection, qn_buf *page, const char *type);
/** Queue the answer to a browser that asks what it may do. */
enum MHD_Result answer_preflight(http_connection *connection);
/** Queue what a call has: an error, a stream that has begun, or a whole answer. */
enum MHD_Result answer_call(http_connection *connection);
/** Write an error past MHD, where it does not let us answer; the connection has to be closed then.
 * With TLS nothing is written. */
void answer_at_once(http_connection *connection, const server_error *error);

/* -------------------------------------------------------------------------------------- call.c */

/** Begin to work on the request of @p connection, whose body is taken.  False: no memory. */
bool call_open(http_connection *connection);
/** Its reader is done. */
void call_read(http_call *call);
/** Take all news of the worker. */
void call_take_news(qn_server *server);
/** Its connection is gone, or will be: cancel what runs.  It closes itself when nobody needs it. */
void call_leave(http_call *call);
/** Cancel its tickets; their ends will come. */
void call_cancel(http_call *call);
/** Its client is lost: count that, and cancel.  @p finish: for the log, static. */
void call_lose(http_call *call, metrics_loss how, const char *finish);
/** Tokens so far, of all its choices. */
uint64_t call_n_generated(const http_call *call);
/** Look at it from time to time: silence, slow readers. */
void call_watch(http_call *call, uint64_t now_ns);
/** Seconds after which it is worth to try again, by the rate at which requests ended lately. */
uint32_t call_retry_after(const qn_server *server);
/** Release, whoever needs it. */
void call_close(http_call *call);

/* -------------------------------------------------------------------------------- connection.c */

/** Callbacks of MHD. */
void connection_notice(void *context, struct MHD_Connection *mhd, void **socket_context,
                       enum MHD_ConnectionNotificationCode what);
enum MHD_Result connection_handle(void *context, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **request);
void connection_completed(void *context, struct MHD_Connection *mhd, void **request,
                          enum MHD_RequestTerminationCode why);
/** What epoll says about its socket. */
void connection_event(http_connection *connection, uint32_t events);
/** Look at it from time to time: timeouts. */
void connection_watch(http_connection *connection, uint64_t now_ns);
/** MHD goes on with it, if it is suspended. */
void connection_wake(http_connection *connection);
/** Close it without waiting for anything that is unsent. */
void connection_drop(http_connection *connection);
/** A header of the request; NULL: it has none. */
const char *connection_header(const http_connection *connection, const char *name);
/** Read what has come on a lingering socket. */
void linger_read(http_linger *linger);
void linger_close(http_linger *linger);

/* -------------------------------------------------------------------------------------- loop.c */

/** One turn: wait, and do what there is to do. */
QN_MUST_CHECK qn_status loop_turn(qn_server *server, qn_error *err);
/** Have all requests been answered, or as many as there was time for? */
bool loop_has_drained(const qn_server *server);

/* ------------------------------------------------------------------------- route.c and the rest */

/** The route of a path; NULL: none. */
const http_route *route_find(const char *path);

/** Pages, see http_route.page. */
bool page_health(const http_connection *connection, qn_buf *out, server_error *error);
bool page_ready(const http_connection *connection, qn_buf *out, server_error *error);
bool page_metrics(const http_connection *connection, qn_buf *out, server_error *error);
bool page_version(const http_connection *connection, qn_buf *out, server_error *error);
bool page_models(const http_connection *connection, qn_buf *out, server_error *error);
bool page_model(const http_connection *connection, qn_buf *out, server_error *error);
bool page_info(const http_connection *connection, qn_buf *out, server_error *error);

/** Readers, see http_route.read. */
bool read_exchange(http_call *call);
bool read_count(http_call *call);
bool read_tokenize(http_call *call);
bool read_detokenize(http_call *call);

/** The answer where the server may not take requests; false: it may. */
bool server_is_closed(const qn_server *server, server_error *error);
#endif
