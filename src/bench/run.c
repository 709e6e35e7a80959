/* SPDX-License-Identifier: Apache-2.0 */
#include "run.h"

#include "arrivals.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/try.h"
#include "load.h"
#include "put.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROBE_INPUT = 64, PROBE_OUTPUT = 8, TEMPLATE_MAX = 4096, WARM_AT_ONCE = 8 };
enum { CLOSED_REQUESTS_MAX = 100000, IDLE_WAIT_MAX_S = 60, IDLE_PAUSE_NS = 200000000 };

/* A run while it runs. */
typedef struct running {
    bench_runner *runner;
    const bench_task *task;
    bench_workload *workload;
    bench_tally tally;
    uint64_t n_planned, n_failed, n_tokens, n_tpots;
    double ttft_sum_ms, tpot_sum_ms, lag_ms;
    double warm_ttft_ms; /* of the last request that warmed up and was whole */
    bool is_clear;       /* the limit is broken, whatever comes */
} running;

/* ------------------------------------------------------------------------------- what is watched
 */

static bool goes_on(bench_runner *r)
{
    r->is_stopped = r->is_stopped || !r->options->goes_on(r->options->context);
    return !r->is_stopped;
}

static void show(bench_runner *r, const bench_live *live)
{
    if (r->options->show != NULL) {
        r->options->show(r->options->context, live);
    }
}

static bool show_making(void *context, double share)
{
    bench_runner *const r = context;
    show(r, &(bench_live){.what = "prompts", .share = share});
    return goes_on(r);
}

static bool run_goes_on(void *context)
{
    running *const run = context;
    return goes_on(run->runner) && !run->is_clear;
}

/* Can the limit still hold?  Later requests may all be in time; those that wait for their first
 * token, or had it too late, will not be. */
static bool is_clear(const running *run)
{
    const bench_options *const o = run->runner->options;
    const double n = (double)run->n_planned;
    if (!isfinite(run->task->limit_ms)) {
        return false;
    }
    const uint64_t n_over = run->tally.n_over + bench_client_n_late(run->runner->peer->client,
                                                                    run->task->limit_ms / 1e3);
    return (double)n_over > (1.0 - o->knee_percent / 100.0) * n + 1.0 ||
           (double)run->n_failed > (1.0 - BENCH_SUCCESS_MIN) * n;
}

static void run_ticks(void *context, double now_s, size_t n_held)
{
    running *const run = context;
    const uint64_t n_done = run->tally.n_ends[BENCH_DONE];
    const double n_ended = (double)(n_done + run->n_failed);
    const bool is_timed = run->task->seconds > 0.0 && isinf(run->task->step.rate);
    bench_live live = {
        .what = run->task->label,
        .share = is_timed ? now_s / run->task->seconds : n_ended / (double)run->n_planned,
        .is_running = true,
        .now_s = now_s,
        .n_held = n_held,
        .n_done = n_done,
        .n_failed = run->n_failed,
        .n_total = is_timed ? 0 : run->n_planned,
        .requests_per_s = (double)n_done / now_s,
        .output_per_s = (double)run->n_tokens / now_s,
        .ttft_ms = run->ttft_sum_ms / (double)n_done,
        .tpot_ms = run->tpot_sum_ms / (double)run->n_tpots,
        .lag_ms = run->lag_ms,
    };
    live.n_active = bench_client_n_active(run->runner->peer->client);
    show(run->runner, &live);
    run->is_clear = run->is_clear || is_clear(run);
}

/* ------------------------------------------------------------------------------------- records */

/* Where usage does not say how many tokens came: the tokenizer does, else chunks have to. */
static void count_tokens(running *run, bench_record *record)
{
    uint32_t n = 0;
    qn_error ignored = {0};
    if (record->has_usage) {
        return;
    }
    record->n_prompt = record->call.n_prompt;
    if (record->text != NULL && run->runner->counts_here &&
        bench_tokens_count(&n, run->runner->tokens, record->text, strlen(record->text), &ignored) ==
            QN_OK) {
        record->n_output = n;
        return;
    }
    record->n_output = record->n_chunks;
    run->tally.n_unsure += record->end == BENCH_DONE;
}

static void run_sees(void *context, bench_record *record)
{
    running *const run = context;
    bench_runner *const r = run->runner;
    count_tokens(run, record);
    const bench_row row = bench_row_of(record);
    bench_tally_add(&run->tally, record);
    run->n_failed += record->end != BENCH_DONE && record->end != BENCH_CANCELLED;
    run->lag_ms = fmax(run->lag_ms, /* NaN: not sent */
                       (record->sent_s - fmax(record->due_s, record->call.ready_s)) * 1e3);
    if (record->end == BENCH_DONE) {
        run->n_tokens += record->n_output;
        run->ttft_sum_ms += row.ttft_ms;
        run->tpot_sum_ms += isnan(row.tpot_ms) ? 0.0 : row.tpot_ms;
        run->n_tpots += isnan(row.tpot_ms) ? 0 : 1;
    }
    if (r->options->requests != NULL &&
        !bench_request_write(r->options->requests, record, &row, json_array_size(r->runs),
                             r->options->is_detailed)) {
        r->is_unwritten = r->is_stopped = true;
    }
}

/* --------------------------------------------------------------------------------------- prompts
 */

static qn_status make(bench_runner *r, bench_workload **out, const bench_workload_options *like,
                      uint64_t n_requests, qn_error *err)
{
    bench_workload_options w = *like;
    w.api = r->options->api;
    w.model = r->model;
    w.n_requests = n_requests;
    w.n_template = r->n_template;
    w.salt = qn_rng_u64(r->salt, 1, r->n_workloads++);
    w.shared_salt = qn_rng_u64(r->salt, 2, r->n_runs);
    const qn_status status = bench_workload_open(out, &w, r->tokens, show_making, r, err);
    if (status == QN_E_CANCELLED) {
        r->is_stopped = true;
    }
    return status;
}

static qn_status first_of(void *context, uint64_t i, bench_call *call, qn_error *err)
{
    running *const run = context;
    double at_s = 0.0;
    const qn_status status = bench_workload_first(run->workload, i, call, &at_s);
    if (status < 0) {
        return qn_fail(err, status, 0, __func__, "request %llu: no memory", (unsigned long long)i);
    }
    call->keeps_text = call->keeps_text || (!run->runner->has_usage && run->runner->counts_here);
    return QN_OK;
}

static bool after_of(void *context, const bench_record *record, bench_call *call)
{
    running *const run = context;
    return bench_workload_after(run->workload, record, call);
}

/* ------------------------------------------------------------------------------------ the client
 */

/* Requests of a load by the client. */
static qn_status drive(running *run, const bench_load_options *load_options, bench_lag *lag,
                       double *last_s, qn_error *err)
{
    bench_runner *const r = run->runner;
    bench_load *load = NULL;
    qn_status status = bench_load_open(&load, load_options, err);
    if (status < 0) {
        return status;
    }
    const bench_source source = bench_load_source(load);
    status = bench_client_run(r->peer->client, &source, lag, err);
    if (status == QN_OK) {
        status = bench_load_status(load, err);
    }
    if (last_s != NULL) {
        *last_s = bench_load_last_s(load);
    }
    bench_load_close(&load);
    return status;
}

/* --------------------------------------------------------------------------------------- warm-up
 */

static qn_status warm_of(void *context, uint64_t i, bench_call *call, qn_error *err)
{
    running *const run = context;
    const uint64_t n_warm = bench_workload_n_warm(run->workload);
    if (i >= n_warm) {
        return first_of(context, i - n_warm, call, err);
    }
    bench_workload_warm(run->workload, i, call);
    return QN_OK;
}

static bool no_turn(void *context, const bench_record *record, bench_call *call)
{
    (void)context, (void)record, (void)call;
    return false;
}

static void warm_sees(void *context, bench_record *record)
{
    running *const run = context;
    const bench_row row = bench_row_of(record);
    count_tokens(run, record);
    bench_tally_add(&run->tally, record);
    run->warm_ttft_ms = record->end == BENCH_DONE ? row.ttft_ms : run->warm_ttft_ms;
}

static bool warm_goes_on(void *context)
{
    return goes_on(((running *)context)->runner);
}

/* Requests of a workload that warm up, from @p i_first on: its shared parts, then whole ones. */
static qn_status send_warm(running *run, uint64_t i_first, uint64_t n, size_t n_at_once,
                           qn_error *err)
{
    const bench_load_options load = {
        .supply = {run, warm_of, no_turn},
        .i_first = i_first,
        .n_conversations = n,
        .n_at_once = n_at_once,
        .until_s = (double)INFINITY,
        .context = run,
        .goes_on = warm_goes_on,
        .seen = warm_sees,
    };
    bench_lag ignored;
    bench_tally_end(&run->tally);
    bench_tally_begin(&run->tally, (double)INFINITY);
    show(run->runner, &(bench_live){.what = "warm-up", .share = i_first > 0 ? 0.5 : 0.0});
    return n > 0 ? drive(run, &load, &ignored, NULL, err) : QN_OK;
}

/* The shared parts of a workload, some at a time. */
static qn_status send_shared(running *run, qn_error *err)
{
    return send_warm(run, 0, bench_workload_n_warm(run->workload), WARM_AT_ONCE, err);
}

static bool is_of_file(const bench_workload_options *workload)
{
    return workload->kind == BENCH_SHAREGPT || workload->kind == BENCH_CUSTOM ||
           workload->kind == BENCH_TRACE;
}

/* Whole requests like those of the run, with texts of their own; of a file nothing is sent twice,
 * so that only what they share is. */
static qn_status warm_once(bench_runner *r, const bench_task *task, qn_error *err)
{
    running run = {.runner = r, .task = task};
    const uint64_t n = is_of_file(task->workload) ? 0 : r->options->n_warmups;
    if (is_of_file(task->workload)) {
        return QN_OK;
    }
    const uint64_t n_turns = task->workload->n_turns > 1 ? task->workload->n_turns : 1;
    qn_status status = make(r, &run.workload, task->workload, (n > 0 ? n : 1) * n_turns, err);
    if (status == QN_OK) {
        status = send_shared(&run, err);
    }
    if (status == QN_OK) { /* alone: they tell how long one takes */
        status = send_warm(&run, bench_workload_n_warm(run.workload), n, 1, err);
    }
    size_t n_values = 0;
    double *const values = bench_tally_values(&run.tally, BENCH_E2EL, &n_values);
    if (n > 0 && n_values > 0) {
        r->alone_s = fmin(isnan(r->alone_s) ? (double)INFINITY : r->alone_s, values[0] / 1e3);
        r->alone_ttft_s = fmin(isnan(r->alone_ttft_s) ? (double)INFINITY : r->alone_ttft_s,
                               run.warm_ttft_ms / 1e3);
    }
    const bool is_busy = n_values < n || /* it refuses what it does not get at */
                         (n > 0 && run.warm_ttft_ms / 1e3 > 2.0 * r->alone_ttft_s + 0.05);
    free(values);
    bench_tally_end(&run.tally);
    bench_workload_close(&run.workload);
    return status == QN_OK && is_busy ? QN_AGAIN : status;
}

/* Behind a run that was cut short a server may go on with what nobody waits for: it is idle when a
 * request alone is answered about as soon as at first. */
static qn_status warm(bench_runner *r, const bench_task *task, qn_error *err)
{
    qn_status status = QN_OK;
    const uint64_t begun_ns = qn_clock_ns();
    if (r->options->flushes_cache) {
        bench_reply reply = {0};
        status = bench_http(&reply, &r->peer->target, "/flush_cache", "{}", err);
        if (status == QN_OK && reply.status == 404) {
            bench_http_free(&reply);
            status = bench_http(&reply, &r->peer->target, "/reset_prefix_cache", "{}", err);
        }
        if (status == QN_OK && reply.status != 200) {
            status = qn_fail(err, QN_E_IO, 0, __func__,
                             "--flush-cache: status %d, expected a server with /flush_cache or "
                             "/reset_prefix_cache",
                             reply.status);
        }
        bench_http_free(&reply);
    }
    status = status == QN_OK ? warm_once(r, task, err) : status;
    while (status == QN_AGAIN && r->was_short && goes_on(r) &&
           qn_clock_seconds(begun_ns, qn_clock_ns()) < IDLE_WAIT_MAX_S) {
        (void)nanosleep(&(struct timespec){.tv_nsec = IDLE_PAUSE_NS}, NULL);
        status = warm_once(r, task, err);
    }
    return status == QN_AGAIN ? QN_OK : status;
}

/* ------------------------------------------------------------------------------------- the run */

static uint64_t count_of(const bench_runner *r, const bench_task *task)
{
    const bench_step *const step = &task->step;
    double n = (double)task->n_requests;
    if (task->seconds > 0.0 && isfinite(step->rate)) {
        n = ceil(step->rate * task->seconds);
    } else if (task->seconds > 0.0) {
        /* No request is faster than one alone, so that these last. */
        const double each_s = isnan(r->alone_s) ? 0.1 : r->alone_s;
        n = fmin(ceil(1.2 * step->n_at_once * (task->seconds / each_s + 1.0)), CLOSED_REQUESTS_MAX);
    }
    return (uint64_t)fmin(fmax(n, task->n_requests == 0 && task->seconds <= 0.0 ? 0.0 : 1.0),
                          BENCH_REQUESTS_MAX);
}

/* When each conversation is due; NULL with QN_OK in a closed loop. */
static qn_status plan(running *run, double **due_s, uint64_t n, uint64_t seed, qn_error *err)
{
    const bench_step *const step = &run->task->step;
    const bench_options *const o = run->runner->options;
    const bool is_recorded = isinf(step->rate) && bench_workload_made(run->workload)->has_times;
    *due_s = NULL;
    if (isinf(step->rate) && step->n_at_once > 0 && !is_recorded) {
        return QN_OK;
    }
    double *const times = calloc(2 * n + 1, sizeof *times);
    if (times == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "arrivals: no memory");
    }
    qn_status status = QN_OK;
    for (uint64_t i = 0; is_recorded && i < n && status == QN_OK; i++) {
        bench_call call = {0};
        status = bench_workload_first(run->workload, i, &call, &times[n + i]);
        free(call.owned);
    }
    const bench_arrival_options options = {.kind = is_recorded            ? BENCH_RECORDED
                                                   : isinf(o->burstiness) ? BENCH_CONSTANT
                                                   : o->burstiness == 1.0 ? BENCH_POISSON
                                                                          : BENCH_GAMMA,
                                           /* of conversations: all turns make the rate */
                                           .rate = step->rate * (double)n / (double)run->n_planned,
                                           .burstiness = o->burstiness,
                                           .recorded = times + n,
                                           .speed = 1.0,
                                           .seed = seed};
    bench_arrivals(times, n, &options);
    *due_s = times;
    return status < 0 ? qn_fail(err, status, 0, __func__, "arrivals: no memory") : QN_OK;
}

static qn_status finish(running *run, bench_run_info *what, const bench_lag *lag, double last_s,
                        bench_outcome *outcome, qn_error *err)
{
    bench_runner *const r = run->runner;
    const bench_options *const o = r->options;
    bool failed = false;
    json_t *cost = NULL;
    if (run->task->seconds > 0.0 && isinf(what->step.rate)) {
        what->n_planned = run->tally.n_rows; /* more were at hand than there was time for */
    }
    what->is_partial = r->is_stopped;
    what->was_short = run->is_clear && !r->is_stopped;
    what->seconds = what->is_partial || what->was_short ? 0.0 : run->task->seconds;
    what->hit_rate = bench_workload_made(run->workload)->hit_rate;
    json_t *const out = bench_run_json(outcome, what, &run->tally, lag, o);
    const qn_status status = bench_cost_json(&cost, &r->data, o->accelerator, o->n_accelerators,
                                             outcome->output_per_s, outcome->total_per_s, err);
    if (status < 0) {
        json_decref(out);
        return status;
    }
    put(out, "metrics", bench_watch_metrics(r->peer->watch), &failed);
    put(out, "energy", bench_watch_energy(r->peer->watch, &outcome->work), &failed);
    put(out, "cost", cost != NULL ? cost : json_null(), &failed);
    put_last(r->runs, out, &failed);
    r->made = json_array_size(r->runs) == 1 ? *bench_workload_made(run->workload) : r->made;
    r->n_unsure += run->tally.n_unsure;
    r->n_whole += run->tally.n_whole;
    r->n_prompt_differs += run->tally.n_prompt_differs;
    r->n_requests += outcome->n_done;
    r->lacks_cached |=
        outcome->n_done > 0 && json_is_null(json_object_get(out, "total_cached_tokens"));
    r->ran_out |= run->task->seconds > 0.0 && isinf(what->step.rate) && !r->is_stopped &&
                  last_s < 0.9 * run->task->seconds;
    r->was_short = what->was_short;
    return failed ? qn_fail(err, QN_E_NOMEM, 0, __func__, "result: no memory") : QN_OK;
}

/* Prompts are there: from the first request to the figures. */
static qn_status measure(running *run, bench_outcome *outcome, qn_error *err)
{
    bench_runner *const r = run->runner;
    const bench_task *const task = run->task;
    const bench_made *const made = bench_workload_made(run->workload);
    bench_run_info what = {.label = task->label,
                           .step = task->step,
                           .repeat = task->repeat,
                           .is_confirmation = task->is_confirmation,
                           .n_planned = made->n_requests,
                           .seed =
                               qn_rng_u64(r->options->workload.seed, 2, json_array_size(r->runs)) >>
                               12}; /* JSON has it */
    double *due_s = NULL;
    double last_s = 0.0;
    bench_lag lag = {0};
    qn_status status = QN_OK;
    run->n_planned = made->n_requests;
    bench_tally_end(&run->tally); /* of what warmed up */
    bench_tally_begin(&run->tally, task->limit_ms);
    QN_TRY(status, plan(run, &due_s, made->n_conversations, what.seed, err), done);
    bench_load_options load = {
        .supply = {run, first_of, after_of},
        .n_conversations = made->n_conversations,
        .due_s = due_s,
        .n_at_once = task->step.n_at_once > 0 ? task->step.n_at_once : BENCH_AT_ONCE_MAX,
        .until_s = due_s == NULL && task->seconds > 0.0 ? task->seconds : (double)INFINITY,
        .context = run,
        .goes_on = run_goes_on,
        .seen = run_sees,
        .tick = run_ticks,
    };
    bench_watch_begin(r->peer->watch, 0);
    what.begun_wall_ns = qn_clock_wall_ns();
    status = drive(run, &load, &lag, &last_s, err);
    bench_watch_end(r->peer->watch);
    if (status == QN_OK) {
        status = finish(run, &what, &lag, last_s, outcome, err);
    }
done:
    free(due_s);
    bench_tally_end(&run->tally);
    return status;
}

qn_status bench_run(bench_runner *runner, const bench_task *task, bench_outcome *outcome,
                    qn_error *err)
{
    running run = {.runner = runner, .task = task};
    *outcome = (bench_outcome){.ttft_ms = (double)NAN};
    qn_status status = goes_on(runner) ? warm(runner, task, err) : QN_E_CANCELLED;
    if (status == QN_OK && goes_on(runner)) {
        status = make(runner, &run.workload, task->workload, count_of(runner, task), err);
    }
    /* Every workload has shared parts of its own; of a file nothing is sent before its time. */
    if (status == QN_OK && goes_on(runner) && !is_of_file(task->workload)) {
        status = send_shared(&run, err);
    }
    if (status == QN_OK && goes_on(runner)) {
        status = measure(&run, outcome, err);
    }
    bench_workload_close(&run.workload);
    runner->n_runs++;
    return status == QN_E_CANCELLED && !goes_on(runner) ? QN_OK : status;
}

/* ----------------------------------------------------------------------------------- first words
 */

static void probe_sees(void *context, bench_record *record)
{
    running *const run = context;
    bench_runner *const r = run->runner;
    r->has_usage = record->has_usage;
    if (record->has_usage && record->n_prompt >= record->call.n_prompt &&
        record->n_prompt - record->call.n_prompt <= TEMPLATE_MAX) {
        r->n_template = record->n_prompt - record->call.n_prompt;
    }
    bench_tally_add(&run->tally, record);
}

qn_status bench_run_probe(bench_runner *runner, qn_error *err)
{
    static const bench_task task = {.label = "first request"};
    running run = {.runner = runner, .task = &task};
    bench_lag ignored;
    bench_workload_options words = runner->options->workload;
    words.kind = BENCH_RANDOM;
    words.file = NULL;
    words.n_input = PROBE_INPUT;
    words.n_output = PROBE_OUTPUT;
    words.n_prefix = 0;
    words.n_groups = 1;
    words.n_turns = 1;
    words.scale = 1.0;
    words.range = BENCH_RANGE_AROUND;
    words.range_ratio = 0.0;
    qn_status status = make(runner, &run.workload, &words, 1, err);
    const bench_load_options none = {.supply = {&run, first_of, no_turn},
                                     .n_conversations = 1,
                                     .n_at_once = 1,
                                     .until_s = (double)INFINITY,
                                     .context = &run,
                                     .goes_on = warm_goes_on,
                                     .seen = probe_sees};
    bench_load_options load = none;
    bench_tally_begin(&run.tally, (double)INFINITY);
    runner->has_usage = true;
    if (status == QN_OK) {
        status = drive(&run, &load, &ignored, NULL, err);
    }
    if (status == QN_OK && run.tally.n_ends[BENCH_CONNECT] > 0) {
        status = qn_fail(err, QN_E_IO, 0, __func__, "%s: %s, expected a server",
                         runner->peer->target.base_url, run.tally.messages[BENCH_CONNECT]);
    }
    bench_tally_end(&run.tally);
    bench_workload_close(&run.workload);
    return status == QN_E_CANCELLED && !goes_on(runner) ? QN_OK : status;
}
