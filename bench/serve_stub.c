/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server with an engine that computes nothing: every step takes the same time and gives each
 * request one token.  For what HTTP costs (bench/serve_stub.py), and for clients under test.
 *
 *     bench_serve_stub [--port N] [--step NS] [--sequences N] [--queue N] MODEL
 *
 * MODEL gives the tokenizer.  A step takes its time (default 10 ms) from when it is asked for; the
 * first that begins after a request was submitted gives its first token.  The text of a token is
 * when this and the steps before it began, in nanoseconds of CLOCK_MONOTONIC.  Logs the address;
 * after SIGTERM prints one JSON object: seconds of CPU that the process used since the first
 * request, and tokens it gave.
 */
#include "server/server.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

enum { SEQUENCES_MAX = QN_ENGINE_SEQUENCES_MAX, EVENTS_OF_STEP = 3, STEPS_TOLD = 4 };

/* A request in the queue or running. */
typedef struct place {
    uint64_t id; /* 0: free */
    void *tag;
    uint32_t max_tokens;
    bool is_running, is_cancelled;
    qn_session_stats stats;
} place;

typedef struct stub {
    const char *model_name;
    qn_model *model;
    uint32_t n_sequences, n_queue;
    int64_t step_ns;
    place *places;    /* [n_sequences + n_queue] owned; in no order */
    qn_event *events; /* [EVENTS_OF_STEP * n_sequences + ...] owned; of the last step */
    uint64_t *event_ids;
    size_t n_events, i_event;
    int64_t begun[STEPS_TOLD];  /* the last step, the one before it ... */
    char text[24 * STEPS_TOLD]; /* of the last step's tokens */
    uint64_t n_ids;
    qn_engine_stats stats;
    double cpu_begun_s;
} stub;

static qn_server *g_server;

static double cpu_s(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static qn_status submit(void *context, uint64_t *id, const qn_request *request, qn_error *err)
{
    (void)err;
    stub *const s = context;
    if (s->stats.n_waiting == s->n_queue && s->stats.n_running == s->n_sequences) {
        return QN_AGAIN;
    }
    place *p = s->places;
    while (p->id != 0) {
        p++;
    }
    *p = (place){.id = ++s->n_ids, .tag = request->tag, .max_tokens = request->max_tokens};
    p->stats.n_prompt_tokens = p->stats.n_computed_tokens = request->n_ids;
    p->is_running = s->stats.n_running < s->n_sequences;
    s->stats.n_running += p->is_running ? 1 : 0;
    s->stats.n_waiting += p->is_running ? 0 : 1;
    s->stats.n_prompt_tokens += request->n_ids;
    *id = p->id;
    return QN_OK;
}

static void cancel(void *context, uint64_t id)
{
    stub *const s = context;
    for (uint32_t i = 0; i < s->n_sequences + s->n_queue; i++) {
        s->places[i].is_cancelled = s->places[i].is_cancelled || s->places[i].id == id;
    }
}

static void add_event(stub *s, const place *p, qn_event event)
{
    event.tag = p->tag;
    s->event_ids[s->n_events] = p->id;
    s->events[s->n_events++] = event;
}

static void end_place(stub *s, place *p, qn_finish finish)
{
    add_event(s, p, (qn_event){.kind = QN_EVENT_END, .finish = finish, .stats = &p->stats});
    s->stats.n_running -= p->is_running ? 1 : 0;
    s->stats.n_waiting -= p->is_running ? 0 : 1;
    p->id = 0; /* its stats stay until the next submit, which is after the events were read */
}

/* A step of fixed length; its tokens tell when it and those before it began. */
static void compute(stub *s)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    const int64_t begun = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    const int64_t end = begun + s->step_ns;
    t = (struct timespec){.tv_sec = (time_t)(end / 1000000000),
                          .tv_nsec = (long)(end % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
    memmove(s->begun + 1, s->begun, sizeof s->begun - sizeof *s->begun);
    s->begun[0] = begun;
    size_t len = 0;
    for (size_t i = 0; i < STEPS_TOLD; i++) {
        len += (size_t)snprintf(s->text + len, sizeof s->text - len, "%" PRId64 " ", s->begun[i]);
    }
}

static void give_token(stub *s, place *p)
{
    p->stats.n_generated_tokens++;
    p->stats.n_steps++;
    s->stats.n_generated_tokens++;
    add_event(
        s, p,
        (qn_event){.kind = QN_EVENT_TOKEN, .token.token = (int32_t)(p->stats.n_steps % 1000)});
    add_event(s, p, (qn_event){.kind = QN_EVENT_TEXT, .text = s->text, .len = strlen(s->text)});
    if (p->stats.n_generated_tokens == p->max_tokens) {
        end_place(s, p, QN_FINISH_LENGTH);
    }
}

static qn_status step(void *context, qn_error *err)
{
    (void)err;
    stub *const s = context;
    s->n_events = s->i_event = 0;
    if (s->stats.n_running == 0) {
        return QN_AGAIN;
    }
    compute(s);
    s->stats.n_steps++;
    for (uint32_t i = 0; i < s->n_sequences + s->n_queue; i++) {
        place *const p = &s->places[i];
        if (p->id != 0 && p->is_cancelled) {
            end_place(s, p, QN_FINISH_ABORT);
        } else if (p->id != 0 && p->is_running) {
            give_token(s, p);
        }
    }
    for (uint32_t i = 0; i < s->n_sequences + s->n_queue && s->stats.n_waiting > 0 &&
                         s->stats.n_running < s->n_sequences;
         i++) {
        place *const p = &s->places[i];
        if (p->id != 0 && !p->is_running) {
            p->is_running = true;
            s->stats.n_running++;
            s->stats.n_waiting--;
        }
    }
    return QN_OK;
}

static bool poll_event(void *context, uint64_t *id, qn_event *event)
{
    stub *const s = context;
    if (s->i_event == s->n_events) {
        return false;
    }
    *id = s->event_ids[s->i_event];
    *event = s->events[s->i_event++];
    return true;
}

static qn_engine_stats get_stats(void *context)
{
    return ((stub *)context)->stats;
}

static void flush(void *context)
{
    (void)context;
}

static void close_stub(void *context)
{
    (void)context;
}

static qn_status load(void *context, server_backend *out, qn_error *err)
{
    stub *const s = context;
    const size_t n_places = (size_t)s->n_sequences + s->n_queue;
    const size_t n_events = EVENTS_OF_STEP * n_places;
    const qn_status status =
        qn_model_open(&s->model, s->model_name, &(qn_model_options){.tokenizer_only = true}, err);
    if (status < 0) {
        return status;
    }
    s->places = calloc(n_places + 1, sizeof *s->places);
    s->events = calloc(n_events, sizeof *s->events);
    s->event_ids = calloc(n_events, sizeof *s->event_ids);
    if (s->places == NULL || s->events == NULL || s->event_ids == NULL) {
        return QN_E_NOMEM;
    }
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* its steps take no longer than said */
    *out = (server_backend){
        .context = s,
        .submit = submit,
        .cancel = cancel,
        .step = step,
        .poll = poll_event,
        .get_stats = get_stats,
        .flush = flush,
        .close = close_stub,
        .model = s->model,
        .n_sequences = s->n_sequences,
        .n_queue = s->n_queue,
        .context_tokens = 32768,
    };
    return QN_OK;
}

static void on_ready(void *context)
{
    ((stub *)context)->cpu_begun_s = cpu_s();
}

static void on_signal(int number)
{
    (void)number;
    server_stop(g_server);
}

static uint32_t number(const char *flag, const char *value, uint32_t most)
{
    char *rest = NULL;
    const unsigned long n = value != NULL ? strtoul(value, &rest, 10) : 0;
    if (value == NULL || *value == '\0' || *rest != '\0' || n > most) {
        (void)fprintf(stderr, "serve_stub: error: %s: %s, 0 to %u expected\n", flag,
                      value != NULL ? value : "nothing", most);
        exit(2);
    }
    return (uint32_t)n;
}

static void read_flags(stub *s, server_options *options, char **arguments)
{
    for (; *arguments != NULL; arguments++) {
        const char *const flag = *arguments;
        if (strcmp(flag, "--port") == 0) {
            options->port = (uint16_t)number(flag, *++arguments, UINT16_MAX);
        } else if (strcmp(flag, "--step") == 0) {
            s->step_ns = number(flag, *++arguments, 1000000000);
        } else if (strcmp(flag, "--sequences") == 0) {
            s->n_sequences = number(flag, *++arguments, SEQUENCES_MAX);
        } else if (strcmp(flag, "--queue") == 0) {
            s->n_queue = number(flag, *++arguments, SEQUENCES_MAX);
        } else {
            s->model_name = flag;
        }
    }
    if (s->model_name == NULL) {
        (void)fprintf(stderr, "usage: bench_serve_stub [OPTIONS] MODEL\n");
        exit(2);
    }
}

int main(int n_arguments, char **arguments)
{
    (void)n_arguments;
    static stub s = {.step_ns = 10000000, .n_sequences = 256, .n_queue = 256};
    server_options options = server_options_default();
    options.port = 0;
    options.ready = on_ready;
    options.ready_context = &s;
    read_flags(&s, &options, arguments + 1);
    qn_error err = {0};
    if (server_open(&g_server, &options, &err) < 0) {
        (void)fprintf(stderr, "serve_stub: error: %s\n", err.text);
        return 1;
    }
    (void)signal(SIGTERM, on_signal);
    (void)fprintf(stderr, "http://127.0.0.1:%u\n", server_port(g_server));
    const qn_status status = server_run(g_server, load, &s, &err);
    if (status < 0) {
        (void)fprintf(stderr, "serve_stub: error: %s\n", err.text);
    }
    printf("{\"cpu_s\": %.3f, \"output_tokens\": %" PRIu64 "}\n", cpu_s() - s.cpu_begun_s,
           s.stats.n_generated_tokens);
    server_close(&g_server);
    qn_model_close(&s.model);
    free(s.places);
    free(s.events);
    free(s.event_ids);
    return status < 0 ? 1 : 0;
}
