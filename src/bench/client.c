/* SPDX-License-Identifier: Apache-2.0 */
/* libcurl tells which sockets it waits for and when it wants to be called again; the waiting is
 * ours, so that a request starts when it is due, and what comes is stamped as it is found. */
#include "client.h"

#include "answer.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/try.h"
#include "easy.h"
#include "stats.h"
#include "url.h"

#include <errno.h>
#include <limits.h>
#include <linux/tcp.h> /* newer than netinet/tcp.h */
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    SENDS_MAX = 4,      /* requests begun between two looks, so that a crowd delays no reading */
    FILES_BESIDE = 256, /* that the process has open beside those of requests */
    ADDRESS_BYTES = 64, /* of an address as text */
};

/* A connection idle for longer is not used again: servers that close idle ones do so after 5 s. */
#define IDLE_MAX_S 3L
/* A body that does not end behind [DONE] is not waited for any longer. */
#define DONE_WAIT_S 0.1
#define NEVER_NS    UINT64_MAX
#define WAKE_NS     2000000ULL   /* between two ticks that find out when we do not run */
#define TICK_NS     100000000ULL /* between two of the source */

static const char closed_text[] = "the connection was closed without an answer";

/* A request under way, or the handle of one that was, for the next. */
typedef struct stream {
    bench_client *client;
    CURL *easy;           /* owned */
    bench_record *record; /* owned while it is under way; NULL: idle */
    bench_body body;
    void *owned;   /* with the body */
    size_t i_part; /* of the body, the next to go out ... */
    size_t at;     /* ... from this byte on */
    bench_answer answer;
    char error_text[CURL_ERROR_SIZE];
    size_t i_stream; /* its place */
    int local_port;  /* of the connection that it uses; 0: none yet */
    bool is_kept;    /* and that was there before */
    bool is_unread;  /* the server closed it before it read anything of the request */
    bool is_resent;  /* which went out again on a new one */
    bool lacks_file; /* we had no file for another */
} stream;

struct bench_client {
    const bench_target *target; /* borrowed */
    bench_api api;
    char *path;
    struct curl_slist *headers;   /* owned */
    struct curl_slist *addresses; /* owned: of the host, looked up once */
    CURLM *multi;
    int epoll_fd, timer_fd;
    stream **streams;   /* [streams_max] owned: n_active under way, then idle ones to n_streams */
    size_t n_streams;   /* that have a handle */
    size_t n_active;    /* under way */
    size_t streams_max; /* room in the array */
    struct epoll_event *ready; /* [streams_max] owned: what a look finds */

    /* Of a run. */
    const bench_source *source;
    uint64_t begun_ns;
    uint64_t curl_due_ns; /* when libcurl wants to be called; NEVER_NS: it does not */
    uint64_t ask_ns;      /* when the source is asked next */
    uint64_t tick_ns;     /* when it is told the time next */
    uint64_t looked_ns;   /* when the last look at the sockets began that could show all */
    uint64_t wake_ns;     /* when the timer rings, or has */
    uint64_t since_ns;    /* what is ready now can have come from then on */
    uint64_t n_events, n_resent, n_no_file;
    bool is_over;                 /* the source has nothing more */
    bench_histogram sends, reads; /* ms */
    qn_status failed;             /* of a callback */
    qn_error *err;
};

static double run_seconds(const bench_client *client, uint64_t ns)
{
    return qn_clock_seconds(client->begun_ns, ns);
}

static qn_status no_memory(qn_error *err)
{
    return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "client: no memory for a request");
}

/* ----------------------------------------------------------------------------------- callbacks */

/* Bytes of the body for libcurl to send.  A body joined beforehand was 10 % dearer at 100 kB, and
 * 4 us (12 %) cheaper at 2 kB. */
static size_t give_body(char *bytes, size_t size, size_t n, void *context)
{
    stream *const s = context;
    const size_t n_room = size * n;
    size_t n_given = 0;
    while (s->i_part < s->body.n_parts && n_given < n_room) {
        const size_t n_left = s->body.lens[s->i_part] - s->at;
        const size_t n_now = n_left < n_room - n_given ? n_left : n_room - n_given;
        if (n_now > 0) {
            memcpy(bytes + n_given, s->body.parts[s->i_part] + s->at, n_now);
        }
        n_given += n_now;
        s->at += n_now;
        if (n_now == n_left) {
            s->i_part++;
            s->at = 0;
        }
    }
    return n_given;
}

/* Bytes of an answer, just read: no time from before the read, in which they may not have come yet.
 * What is less than came ends the transfer. */
static size_t take_body(char *bytes, size_t size, size_t n, void *context)
{
    stream *const s = context;
    bench_client *const client = s->client;
    const uint64_t read_ns = qn_clock_ns();
    const uint32_t n_chunks = s->record->n_chunks;
    long status = 0;
    (void)curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    const qn_status taken = bench_answer_feed(&s->answer, (int)status, bytes, size * n,
                                              run_seconds(client, read_ns), client->err);
    client->n_events += s->record->n_chunks - n_chunks;
    bench_histogram_add(&client->reads, (double)(read_ns - client->since_ns) * 1e-6,
                        s->answer.n_fresh);
    if (taken < 0) {
        client->failed = taken;
    }
    return taken == QN_OK ? size * n : 0;
}

/* libcurl: wait for this of that socket. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *is_known)
{
    bench_client *const client = context;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    struct epoll_event event = {.data.fd = fd};
    event.events = ((what & CURL_POLL_IN) != 0 ? (uint32_t)EPOLLIN : 0) |
                   ((what & CURL_POLL_OUT) != 0 ? (uint32_t)EPOLLOUT : 0);
    if (epoll_ctl(client->epoll_fd, is_known != NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) !=
            0 &&
        client->failed == QN_OK) {
        client->failed = qn_fail(client->err, QN_E_IO, errno, __func__, "epoll: socket %d: %s", fd,
                                 strerror(errno));
    }
    (void)curl_multi_assign(client->multi, fd, client); /* any pointer: it is known from now on */
    return 0;
}

/* libcurl: the request goes out next, from that port of ours. */
static int note_connection(void *context, char *peer, char *own, int peer_port, int own_port)
{
    stream *const s = context;
    long n_new = 0;
    (void)peer;
    (void)own;
    (void)peer_port;
    (void)curl_easy_getinfo(s->easy, CURLINFO_NUM_CONNECTS, &n_new);
    s->local_port = own_port;
    s->is_kept = n_new == 0;
    return CURL_PREREQFUNC_OK;
}

/* Has the peer's system confirmed none of the last @p n_bytes that were sent?  Where it closed in
 * order, that confirms what had come: no process there has read any of them.  All that was sent
 * before has been answered. */
static bool is_unconfirmed(int fd, uint64_t n_bytes)
{
    enum { N_SYN = 1 }; /* the first byte confirmed is none of those sent */
    struct tcp_info info;
    socklen_t n_info = sizeof info;
    memset(&info, 0, sizeof info);
    return n_bytes > 0 && getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n_info) == 0 &&
           info.tcpi_bytes_sent - info.tcpi_bytes_retrans + N_SYN >=
               info.tcpi_bytes_acked + n_bytes;
}

/* libcurl: a connection ends.  Whose request was on its way, and did it get there? */
static int close_socket(void *context, curl_socket_t fd)
{
    bench_client *const client = context;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } own = {.any.sa_family = AF_UNSPEC};
    socklen_t n_bytes = sizeof own;
    (void)getsockname(fd, &own.any, &n_bytes);
    const in_port_t port = own.any.sa_family == AF_INET6 ? own.v6.sin6_port : own.v4.sin_port;
    for (size_t i = 0; i < client->n_active; i++) {
        stream *const s = client->streams[i];
        if (s->is_kept && s->local_port == ntohs(port)) {
            curl_off_t n_body = 0;
            long n_head = 0;
            (void)curl_easy_getinfo(s->easy, CURLINFO_SIZE_UPLOAD_T, &n_body);
            (void)curl_easy_getinfo(s->easy, CURLINFO_REQUEST_SIZE, &n_head);
            s->is_unread = is_unconfirmed(fd, (uint64_t)(n_head + n_body));
        }
    }
    return close(fd);
}

/* libcurl: a socket for a connection. */
static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    stream *const s = context;
    (void)purpose;
    const int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
        s->lacks_file = true;
        s->client->n_no_file++;
    }
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* libcurl: call again in that many milliseconds; -1: no need to. */
static int watch_time(CURLM *multi, long ms, void *context)
{
    bench_client *const client = context;
    (void)multi;
    client->curl_due_ns = ms < 0 ? NEVER_NS : qn_clock_ns() + (uint64_t)ms * 1000000;
    return 0;
}

/* --------------------------------------------------------------------------------- one request */

void bench_record_free(bench_record *record)
{
    if (record != NULL) {
        free(record->chunk_s);
        free(record->text);
        free(record);
    }
}

static void close_stream(stream *s)
{
    if (s != NULL) {
        bench_easy_close(&s->easy);
        bench_answer_deinit(&s->answer);
        free(s);
    }
}

static qn_status open_stream(stream **out, bench_client *client, qn_error *err)
{
    *out = NULL;
    stream *const s = calloc(1, sizeof *s);
    if (s == NULL) {
        return no_memory(err);
    }
    s->client = client;
    qn_status status = bench_easy_open(&s->easy, client->target, client->path, client->headers,
                                       s->error_text, err);
    if (status == QN_OK &&
        (curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_POST, 1L) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_READFUNCTION, give_body) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_READDATA, s) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_PREREQFUNCTION, note_connection) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_PREREQDATA, s) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_OPENSOCKETFUNCTION, open_socket) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_OPENSOCKETDATA, s) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_CLOSESOCKETDATA, client) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_MAXAGE_CONN, IDLE_MAX_S) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, take_body) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_DNS_CACHE_TIMEOUT, -1L) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_RESOLVE, client->addresses) != CURLE_OK)) {
        status = no_memory(err);
    }
    if (status != QN_OK) {
        close_stream(s);
        return status;
    }
    *out = s;
    return QN_OK;
}

static qn_status make_room(bench_client *client, size_t n_streams, qn_error *err)
{
    stream **const streams = reallocarray(client->streams, n_streams, sizeof(stream *));
    client->streams = streams != NULL ? streams : client->streams;
    struct epoll_event *const ready = reallocarray(client->ready, n_streams, sizeof *ready);
    client->ready = ready != NULL ? ready : client->ready;
    if (streams == NULL || ready == NULL) {
        return no_memory(err);
    }
    client->streams_max = n_streams;
    return QN_OK;
}

/* An idle stream, at the place behind those under way. */
static qn_status idle_stream(stream **out, bench_client *client, qn_error *err)
{
    if (client->n_active == client->streams_max) {
        const qn_status status = make_room(client, client->streams_max * 2, err);
        if (status != QN_OK) {
            return status;
        }
    }
    if (client->n_active < client->n_streams) {
        *out = client->streams[client->n_active];
        return QN_OK;
    }
    const qn_status status = open_stream(out, client, err);
    if (*out != NULL) {
        (*out)->i_stream = client->n_streams;
        client->streams[client->n_streams++] = *out;
    }
    return status;
}

/* Give a stream back, and its record to the source. */
static void release_stream(stream *s)
{
    bench_client *const client = s->client;
    bench_record *const record = s->record;
    stream *const last = client->streams[--client->n_active];
    client->streams[s->i_stream] = last;
    last->i_stream = s->i_stream;
    client->streams[client->n_active] = s;
    s->i_stream = client->n_active;
    s->record = NULL;
    free(s->owned);
    s->owned = NULL;
    client->ask_ns = 0;
    client->source->done(client->source->context, record);
}

/* Begin to send.  The call's owned is taken, whatever comes of it. */
static qn_status begin_request(bench_client *client, const bench_call *call, double due_s,
                               qn_error *err)
{
    stream *s = NULL;
    curl_off_t n_bytes = 0;
    bench_record *const record = calloc(1, sizeof *record);
    qn_status status = record != NULL ? idle_stream(&s, client, err) : no_memory(err);
    for (size_t i = 0; i < call->body.n_parts; i++) {
        n_bytes += (curl_off_t)call->body.lens[i];
    }
    if (s != NULL && (curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, n_bytes) != CURLE_OK ||
                      curl_easy_setopt(s->easy, CURLOPT_FRESH_CONNECT, 0L) != CURLE_OK)) {
        status = no_memory(err);
    }
    if (status != QN_OK || s == NULL) {
        free(record);
        free(call->owned);
        return status;
    }
    record->call = *call;
    record->call.owned = NULL;
    record->call.body = (bench_body){0};
    record->due_s = due_s;
    record->sent_s = (double)NAN;
    s->record = record;
    s->body = call->body;
    s->owned = call->owned;
    s->i_part = s->at = 0;
    s->local_port = 0;
    s->is_kept = s->is_unread = s->is_resent = s->lacks_file = false;
    s->error_text[0] = '\0';
    bench_answer_begin(&s->answer, client->api, record);
    client->n_active++;
    if (curl_multi_add_handle(client->multi, s->easy) != CURLM_OK) {
        status = no_memory(err); /* the stream is under way: it is cancelled with the others */
    }
    return status;
}

/* --------------------------------------------------------------------------------------- ends */

/* No connection: unless the request had gone out on one that closed. */
static bench_end without_connection(const stream *s, const char **message)
{
    if (s->local_port == 0 || s->is_unread) {
        return BENCH_CONNECT;
    }
    *message = closed_text;
    return BENCH_CUT;
}

/* How a transfer ended, and in words why, if not as it should. */
static bench_end end_of_transfer(stream *s, CURLcode code, const char **message)
{
    curl_off_t begun_us = 0; /* when there was a connection; 0: never */
    (void)curl_easy_getinfo(s->easy, CURLINFO_PRETRANSFER_TIME_T, &begun_us);
    *message = s->error_text[0] != '\0' ? s->error_text : curl_easy_strerror(code);
    if (s->lacks_file) {
        *message = "the client has no file left to open for a connection";
    }
    switch (code) {
    case CURLE_OK: return BENCH_DONE;
    case CURLE_SEND_FAIL_REWIND: *message = closed_text; return BENCH_CUT;
    case CURLE_OPERATION_TIMEDOUT: return begun_us > 0 ? BENCH_TIMEOUT : BENCH_CONNECT;
    case CURLE_UNSUPPORTED_PROTOCOL:
        return begun_us > 0 ? BENCH_MALFORMED /* HTTP/0.9 */ : BENCH_CONNECT;
    case CURLE_URL_MALFORMAT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_INTERFACE_FAILED: return without_connection(s, message);
    case CURLE_WEIRD_SERVER_REPLY: return BENCH_MALFORMED;
    case CURLE_OUT_OF_MEMORY: /* see has_no_memory() */
        *message = "head of the answer: longer than libcurl reads";
        return BENCH_MALFORMED;
    default: /* it has no code of its own for broken chunks of HTTP */
        return strstr(*message, "chunked-encoding") != NULL ? BENCH_MALFORMED : BENCH_CUT;
    }
}

/* Memory, or the head of an answer that is too long?  libcurl says the same of both. */
static bool has_no_memory(stream *s, CURLcode code)
{
    curl_off_t begun_us = 0;
    curl_off_t n_body = 0;
    (void)curl_easy_getinfo(s->easy, CURLINFO_PRETRANSFER_TIME_T, &begun_us);
    (void)curl_easy_getinfo(s->easy, CURLINFO_SIZE_DOWNLOAD_T, &n_body);
    return code == CURLE_OUT_OF_MEMORY && (begun_us == 0 || n_body > 0);
}

static void end_request(stream *s, bench_end how, const char *message)
{
    bench_client *const client = s->client;
    long status = 0;
    (void)curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_multi_remove_handle(client->multi, s->easy);
    const qn_status ended =
        bench_answer_end(&s->answer, how, status < 200 ? 0 : (int)status, message,
                         run_seconds(client, qn_clock_ns()), client->err);
    if (ended != QN_OK) {
        client->failed = ended;
    }
    release_stream(s);
}

/* A server may close a kept connection whenever it likes: what had not come by then is no failure
 * of its own, and is sent again on a new one, once.  A reset does not tell whether it was read, and
 * counts as cut off.  That libcurl should send again is not allowed (the body cannot be rewound):
 * it does it for what a server has read and dropped as well. */
static bool resend(stream *s, CURLcode code)
{
    bench_client *const client = s->client;
    const bool is_reset = code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR;
    if (code == CURLE_OK || is_reset || !s->is_unread || s->is_resent || s->answer.n_bytes > 0) {
        return false;
    }
    (void)curl_multi_remove_handle(client->multi, s->easy);
    s->i_part = s->at = 0;
    s->is_resent = true;
    s->is_kept = s->is_unread = false;
    s->local_port = 0;
    s->error_text[0] = '\0';
    client->n_resent++;
    bench_answer_begin(&s->answer, client->api, s->record);
    if (curl_easy_setopt(s->easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK ||
        curl_multi_add_handle(client->multi, s->easy) != CURLM_OK) {
        client->failed = no_memory(client->err); /* it is cancelled with the others */
    }
    return true;
}

/* Requests whose transfer has ended. */
static void end_requests(bench_client *client)
{
    int n_left = 0;
    for (CURLMsg *m; (m = curl_multi_info_read(client->multi, &n_left)) != NULL;) {
        if (m->msg != CURLMSG_DONE) {
            continue;
        }
        char *context = NULL;
        const CURLcode code = m->data.result;
        (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &context);
        stream *const s = (stream *)(void *)context;
        QN_ASSERT(s != NULL && s->easy == m->easy_handle);
        if (has_no_memory(s, code) && client->failed == QN_OK) {
            client->failed = no_memory(client->err);
        }
        const char *message = NULL;
        const bench_end how = end_of_transfer(s, code, &message);
        if (!resend(s, code)) {
            end_request(s, how, message);
        }
    }
}

/* Requests whose answers are whole, though the server does not say so. */
static void end_those_done(bench_client *client, double now_s)
{
    for (size_t i = client->n_active;
         i-- > 0;) { /* the last one takes the place of one that ends */
        stream *const s = client->streams[i];
        if (s->answer.is_done && now_s > s->answer.done_s + DONE_WAIT_S) {
            end_request(s, BENCH_CUT, ""); /* behind [DONE]: how it ended is no matter */
        }
    }
}

static void cancel_all(bench_client *client)
{
    while (client->n_active > 0) {
        end_request(client->streams[client->n_active - 1], BENCH_CANCELLED, "");
    }
}

/* ---------------------------------------------------------------------------------------- loop */

/* Let libcurl work on a socket, or (CURL_SOCKET_TIMEOUT) on what is due. */
static qn_status drive(bench_client *client, curl_socket_t fd, int what)
{
    int n_running = 0;
    if (fd == CURL_SOCKET_TIMEOUT) {
        client->curl_due_ns = NEVER_NS; /* it says so again, if it does not change its mind */
    }
    const CURLMcode code = curl_multi_socket_action(client->multi, fd, what, &n_running);
    if (code != CURLM_OK && client->failed == QN_OK) {
        client->failed = code == CURLM_OUT_OF_MEMORY
                             ? no_memory(client->err)
                             : qn_fail(client->err, QN_E_IO, 0, __func__, "libcurl: %s",
                                       curl_multi_strerror(code));
    }
    if ((size_t)n_running != client->n_active) {
        end_requests(client);
    }
    return client->failed;
}

static qn_status send_call(bench_client *client, const bench_call *call, double due_s)
{
    const qn_status status = begin_request(client, call, due_s, client->err);
    if (status != QN_OK) {
        return status;
    }
    client->streams[client->n_active - 1]->record->sent_s = run_seconds(client, qn_clock_ns());
    const qn_status driven = drive(client, CURL_SOCKET_TIMEOUT, 0);
    bench_histogram_add(&client->sends,
                        (run_seconds(client, qn_clock_ns()) - fmax(due_s, call->ready_s)) * 1e3, 1);
    return driven;
}

/* Ask the source once.  QN_AGAIN: it may have more to send; QN_E_CANCELLED: it says stop. */
static qn_status ask_once(bench_client *client)
{
    bench_call call = {0};
    const double now_s = run_seconds(client, qn_clock_ns());
    double when_s = now_s;
    switch (client->source->next(client->source->context, now_s, &call, &when_s)) {
    case BENCH_SEND: {
        const qn_status status = send_call(client, &call, when_s);
        client->ask_ns = 0;
        return status == QN_OK ? QN_AGAIN : status;
    }
    case BENCH_WAIT:
        client->ask_ns = client->begun_ns + (when_s > 0 ? (uint64_t)fmin(when_s * 1e9, 9e18) : 0);
        return QN_OK;
    case BENCH_IDLE: client->ask_ns = NEVER_NS; return QN_OK;
    case BENCH_END_OF_RUN:
        client->ask_ns = NEVER_NS;
        client->is_over = true;
        return QN_OK;
    case BENCH_STOP: break;
    }
    return QN_E_CANCELLED;
}

/* Send what is due, some of it where that is much. */
static qn_status ask_source(bench_client *client)
{
    qn_status status = QN_AGAIN;
    for (int n_sent = 0; n_sent < SENDS_MAX && status == QN_AGAIN; n_sent++) {
        status = qn_clock_ns() < client->ask_ns ? QN_OK : ask_once(client);
    }
    return status;
}

/* QN_AGAIN: a signal came before the look. */
static qn_status look(bench_client *client, int *n_ready, int timeout_ms)
{
    const int n_max = (int)client->streams_max; /* fewer than there can be open files */
    *n_ready = epoll_wait(client->epoll_fd, client->ready, n_max, timeout_ms);
    if (*n_ready >= 0) {
        return QN_OK;
    }
    *n_ready = 0;
    return errno == EINTR
               ? QN_AGAIN
               : qn_fail(client->err, QN_E_IO, errno, __func__, "epoll: %s", strerror(errno));
}

/* Sleep until a socket is ready, at most until @p until_ns.  A tick in between shows when the
 * system does not run us although something is due; a timer that is set for earlier stays. */
static qn_status sleep_until(bench_client *client, int *n_ready, uint64_t now_ns, uint64_t until_ns)
{
    if (client->wake_ns <= now_ns || client->wake_ns > until_ns) {
        client->wake_ns = until_ns < now_ns + WAKE_NS ? until_ns : now_ns + WAKE_NS;
        const uint64_t sleep_ns = client->wake_ns - now_ns; /* less than a second */
        const struct itimerspec when = {.it_value.tv_nsec = (long)sleep_ns};
        if (timerfd_settime(client->timer_fd, 0, &when, NULL) != 0) {
            return qn_fail(client->err, QN_E_IO, errno, __func__, "timerfd: %s", strerror(errno));
        }
    }
    const qn_status status = look(client, n_ready, -1);
    const uint64_t woken_ns = qn_clock_ns();
    client->since_ns = woken_ns < client->wake_ns ? woken_ns : client->wake_ns;
    return status;
}

/* Wait for what comes next: sockets, libcurl's time, the source's, a tick. */
static qn_status wait(bench_client *client, int *n_ready)
{
    const uint64_t now_ns = qn_clock_ns();
    uint64_t until_ns = client->tick_ns;
    until_ns = client->ask_ns < until_ns ? client->ask_ns : until_ns;
    until_ns = client->curl_due_ns < until_ns ? client->curl_due_ns : until_ns;
    client->since_ns = client->looked_ns;
    uint64_t looked_ns = now_ns;
    qn_status status = look(client, n_ready, 0);
    if (status == QN_OK && *n_ready == 0 && until_ns > now_ns) {
        status = sleep_until(client, n_ready, now_ns, until_ns);
        looked_ns = client->since_ns;
    }
    if (status == QN_AGAIN) {
        client->ask_ns = 0; /* the signal may be why the source wants to stop */
        return QN_OK;
    }
    if ((size_t)*n_ready < client->streams_max) { /* else there may be more, which came before */
        client->looked_ns = looked_ns;
    }
    return status;
}

static qn_status handle(bench_client *client, int n_ready)
{
    qn_status status = QN_OK;
    for (int i = 0; i < n_ready && status == QN_OK; i++) {
        const struct epoll_event *const event = &client->ready[i];
        if (event->data.fd == client->timer_fd) {
            uint64_t n_expired = 0;
            (void)!read(client->timer_fd, &n_expired, sizeof n_expired);
            continue;
        }
        /* A connection that broke shows when it is read or written. */
        const bool is_broken = (event->events & (EPOLLHUP | EPOLLERR)) != 0;
        const int what = ((event->events & EPOLLIN) != 0 || is_broken ? CURL_CSELECT_IN : 0) |
                         ((event->events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0);
        status = drive(client, event->data.fd, what);
    }
    const uint64_t now_ns = qn_clock_ns();
    if (status == QN_OK && now_ns >= client->curl_due_ns) {
        status = drive(client, CURL_SOCKET_TIMEOUT, 0);
    }
    if (now_ns >= client->tick_ns) {
        client->source->tick(client->source->context, run_seconds(client, now_ns));
        client->tick_ns = now_ns + TICK_NS;
        client->ask_ns = 0;
        end_those_done(client, run_seconds(client, now_ns));
    }
    return status;
}

static void begin_run(bench_client *client, const bench_source *source, qn_error *err)
{
    client->source = source;
    client->err = err;
    client->failed = QN_OK;
    client->is_over = false;
    client->n_events = client->n_resent = client->n_no_file = 0;
    client->sends = client->reads = (bench_histogram){0};
    client->begun_ns = client->looked_ns = client->since_ns = qn_clock_ns();
    client->curl_due_ns = NEVER_NS;
    client->ask_ns = client->wake_ns = 0;
    client->tick_ns = client->begun_ns + TICK_NS;
}

static double thread_seconds(void)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* 0 where nothing was late, as nothing happened. */
static double lag_at(const bench_histogram *lags, double percent)
{
    return lags->n > 0 ? bench_histogram_percentile(lags, percent) : 0.0;
}

static bench_lag lag_of(const bench_client *client, double cpu_s)
{
    return (bench_lag){
        .send_p50_ms = lag_at(&client->sends, 50),
        .send_p99_ms = lag_at(&client->sends, 99),
        .send_max_ms = client->sends.max,
        .read_p50_ms = lag_at(&client->reads, 50),
        .read_p99_ms = lag_at(&client->reads, 99),
        .read_max_ms = client->reads.max,
        .n_events = client->n_events,
        .n_resent = client->n_resent,
        .n_no_file = client->n_no_file,
        .cpu_s = cpu_s,
    };
}

qn_status bench_client_run(bench_client *client, const bench_source *source, bench_lag *lag,
                           qn_error *err)
{
    const double cpu_s = thread_seconds();
    const int slack_ns = prctl(PR_GET_TIMERSLACK);
    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* 50 us is the usual */
    begin_run(client, source, err);
    qn_status status = QN_OK;
    for (;;) {
        int n_ready = 0;
        QN_TRY(status, ask_source(client), done);
        if (client->is_over && client->n_active == 0) {
            break;
        }
        QN_TRY(status, wait(client, &n_ready), done);
        QN_TRY(status, handle(client, n_ready), done);
    }
done:
    cancel_all(client);
    *lag = lag_of(client, thread_seconds() - cpu_s);
    (void)prctl(PR_SET_TIMERSLACK, (unsigned long)slack_ns);
    client->source = NULL;
    client->err = NULL;
    status = status == QN_E_CANCELLED ? QN_OK : status;
    return status == QN_OK ? client->failed : status;
}

size_t bench_client_n_active(const bench_client *client)
{
    return client->n_active;
}

size_t bench_client_n_late(const bench_client *client, double limit_s)
{
    const double now_s = run_seconds(client, qn_clock_ns());
    size_t n = 0;
    for (size_t i = 0; i < client->n_active; i++) {
        const bench_record *const r = client->streams[i]->record;
        n += (isnan(r->first_s) ? now_s : r->first_s) - r->due_s > limit_s;
    }
    return n;
}

/* -------------------------------------------------------------------------------- open, close */

/* As many files as the system gives: at least those that are needed. */
static qn_status raise_files(size_t n_streams, qn_error *err)
{
    struct rlimit limit = {0};
    const rlim_t n_needed = (n_streams < INT_MAX ? n_streams : INT_MAX) + FILES_BESIDE;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < n_needed) {
        limit.rlim_cur = limit.rlim_max = n_needed; /* root may */
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < n_needed) {
        return qn_fail(err, QN_E_IO, EMFILE, __func__,
                       "open files: at most %llu, %llu expected for %zu requests at once",
                       (unsigned long long)limit.rlim_cur, (unsigned long long)n_needed, n_streams);
    }
    return QN_OK;
}

/* Append ",ADDRESS" for each of the host's; nothing where it has none. */
static qn_status append_addresses(qn_buf *entry, const char *host, qn_error *err)
{
    struct addrinfo *first = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    if (getaddrinfo(host, NULL, &hints, &first) != 0) {
        return QN_OK; /* requests will say so */
    }
    qn_status status = QN_OK;
    char separator = ':';
    for (const struct addrinfo *a = first; a != NULL && status == QN_OK; a = a->ai_next) {
        char address[ADDRESS_BYTES];
        if (getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof address, NULL, 0,
                        NI_NUMERICHOST) == 0) {
            status = qn_buf_append_printf(entry, err, "%c%s", separator, address);
            separator = ',';
        }
    }
    freeaddrinfo(first);
    return status;
}

/* Look up the host once: else as many threads would as requests begin before the first answer. */
static qn_status look_up(bench_client *client, qn_error *err)
{
    qn_status status = QN_OK;
    qn_buf entry = {.bytes_max = 1 << 16};
    bench_url url;
    QN_TRY(status, bench_url_open(&url, client->target->base_url, err), done);
    QN_TRY(status, qn_buf_append_printf(&entry, err, "%s:%s", url.host, url.port), done);
    const size_t n_name = entry.len;
    if (strchr(url.host, ':') == NULL) { /* an address of IPv6 is no name */
        QN_TRY(status, append_addresses(&entry, url.host, err), done);
    }
    if (entry.len > n_name) {
        client->addresses = curl_slist_append(NULL, entry.ptr);
        status = client->addresses != NULL ? QN_OK : no_memory(err);
    }
done:
    qn_buf_deinit(&entry);
    bench_url_close(&url);
    return status;
}

static qn_status set_up_multi(bench_client *client, size_t n_streams_max, qn_error *err)
{
    client->multi = curl_multi_init();
    if (client->multi == NULL ||
        curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, watch_socket) != CURLM_OK ||
        curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client) != CURLM_OK ||
        curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, watch_time) != CURLM_OK ||
        curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client) != CURLM_OK ||
        curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)n_streams_max) != CURLM_OK) {
        return no_memory(err);
    }
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = client->timer_fd};
    if (client->epoll_fd < 0 || client->timer_fd < 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->timer_fd, &event) != 0) {
        return qn_fail(err, QN_E_IO, errno, __func__, "epoll: %s", strerror(errno));
    }
    return QN_OK;
}

qn_status bench_client_open(bench_client **out, const bench_target *target, bench_api api,
                            const char *path, size_t n_streams_max, qn_error *err)
{
    *out = NULL;
    bench_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return no_memory(err);
    }
    qn_status status = QN_OK;
    client->target = target;
    client->api = api;
    client->epoll_fd = client->timer_fd = -1;
    client->path = strdup(path);
    if (client->path == NULL) {
        status = no_memory(err);
        goto fail;
    }
    QN_TRY(status, raise_files(n_streams_max, err), fail);
    QN_TRY(status, make_room(client, n_streams_max > 1 ? n_streams_max : 2, err), fail);
    QN_TRY(status, set_up_multi(client, client->streams_max, err), fail);
    QN_TRY(status, bench_headers(&client->headers, target, err), fail);
    stream *first = NULL; /* checks the URL */
    QN_TRY(status, open_stream(&first, client, err), fail);
    close_stream(first);
    QN_TRY(status, look_up(client, err), fail);
    *out = client;
    return QN_OK;

fail:
    bench_client_close(&client);
    return status;
}

void bench_client_close(bench_client **out)
{
    bench_client *const client = *out;
    *out = NULL;
    if (client == NULL) {
        return;
    }
    for (size_t i = 0; i < client->n_streams; i++) {
        close_stream(client->streams[i]);
    }
    curl_multi_cleanup(client->multi); /* closes connections: tells us so */
    if (client->epoll_fd >= 0) {
        (void)close(client->epoll_fd);
    }
    if (client->timer_fd >= 0) {
        (void)close(client->timer_fd);
    }
    curl_slist_free_all(client->headers);
    curl_slist_free_all(client->addresses);
    free(client->path);
    free(client->streams);
    free(client->ready);
    free(client);
}
