/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/try.h"
#include "knee.h"
#include "put.h"
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LABEL_BYTES = 64, METRIC_BYTES = 32, GUESS_AT_ONCE = 32, GUESS_REQUESTS = 64 };

/** Of the limit: a client so late may be what broke it. */
#define CLIENT_SHARE 0.1

/** Off the constructed hit rate by more than a page's share: above it, below it. */
#define HIT_RATE_MORE 0.02
#define HIT_RATE_LESS 0.05

/** A knee is to be known as well. */
#define KNEE_ERROR_MAX 0.032 /* of 5,000 requests */

/** A run of Wafer's workload that is to be believed: 10 minutes. */
#define WAFER_RUN_S 600.0

typedef struct bench {
    bench_runner runner;
    const bench_options *options;
    bench_peer peer, off_peer; /* off_peer: without MTP, where that is another server */
    json_t *client, *warnings, *knee, *sensitivity; /* owned; NULL: none */
    char *model;                                    /* owned */
    qn_error failure;                               /* of a run, behind others */
    size_t headline;
    bool has_headline;
} bench;

/* Files for so many connections at least. */
static size_t n_streams(const bench_options *o)
{
    size_t n = GUESS_AT_ONCE;
    for (size_t i = 0; i < o->n_steps; i++) {
        n = o->steps[i].n_at_once > n ? o->steps[i].n_at_once : n;
    }
    return n;
}

static size_t n_runs(const bench *b)
{
    return json_array_size(b->runner.runs);
}

static double figure(const bench *b, size_t i_run, const char *key)
{
    return qn_json_number(json_array_get(b->runner.runs, i_run), key);
}

static void show_label(char out[LABEL_BYTES], const bench_step *step, const char *more)
{
    char rate[32] = "all at once";
    if (isfinite(step->rate)) {
        (void)snprintf(rate, sizeof rate, "%.4g requests/s", step->rate);
    }
    if (step->n_at_once > 0 && isfinite(step->rate)) {
        (void)snprintf(out, LABEL_BYTES, "%s, %u at most%s", rate, step->n_at_once, more);
    } else if (step->n_at_once > 0) {
        (void)snprintf(out, LABEL_BYTES, "%u at once%s", step->n_at_once, more);
    } else {
        (void)snprintf(out, LABEL_BYTES, "%s%s", rate, more);
    }
}

/* ----------------------------------------------------------------------------- single and ramp */

/* Of several runs of a step the middle one by throughput stands for it. */
static size_t middle_of(const bench *b, size_t i_first, size_t n)
{
    for (size_t i = i_first; i < i_first + n; i++) {
        size_t n_less = 0;
        for (size_t k = i_first; k < i_first + n; k++) {
            const double mine = figure(b, i, "output_throughput");
            const double other = figure(b, k, "output_throughput");
            n_less += other < mine || (other == mine && k < i);
        }
        if (n_less == (n - 1) / 2) {
            return i;
        }
    }
    return i_first;
}

/* The better of two steps: more output, where neither lost requests. */
static bool is_better(const bench *b, size_t i_run, size_t i_than)
{
    const bool is_sound = figure(b, i_run, "success_rate") >= BENCH_SUCCESS_MIN;
    const bool was_sound = figure(b, i_than, "success_rate") >= BENCH_SUCCESS_MIN;
    return is_sound != was_sound
               ? is_sound
               : figure(b, i_run, "output_throughput") > figure(b, i_than, "output_throughput");
}

static qn_status run_steps(bench *b, qn_error *err)
{
    const bench_options *const o = b->options;
    qn_status status = QN_OK;
    for (size_t i = 0; i < o->n_steps && status == QN_OK; i++) {
        char label[LABEL_BYTES];
        const size_t i_first = n_runs(b);
        show_label(label, &o->steps[i], "");
        for (uint32_t k = 0; k < o->n_repeats && status == QN_OK && !b->runner.is_stopped; k++) {
            bench_outcome outcome;
            const bench_task task = {.label = label,
                                     .step = o->steps[i],
                                     .seconds = o->duration_s,
                                     .n_requests = o->workload.n_requests,
                                     .repeat = k,
                                     .limit_ms = (double)INFINITY,
                                     .workload = &o->workload};
            status = bench_run(&b->runner, &task, &outcome, err);
        }
        if (n_runs(b) > i_first) {
            const size_t i_middle = middle_of(b, i_first, n_runs(b) - i_first);
            b->headline =
                !b->has_headline || is_better(b, i_middle, b->headline) ? i_middle : b->headline;
            b->has_headline = true;
        }
    }
    return status;
}

/* ----------------------------------------------------------------------------------------- knee */

/* What the server can do when 32 ask at once is near what it can do at all. */
static qn_status guess(bench *b, double *rate, qn_error *err)
{
    const bench_options *const o = b->options;
    bench_outcome outcome;
    const bench_task task = {.label = "32 at once, a first guess",
                             .step = {(double)INFINITY, GUESS_AT_ONCE},
                             .n_requests = GUESS_REQUESTS,
                             .limit_ms = (double)INFINITY,
                             .workload = &o->workload};
    const qn_status status = bench_run(&b->runner, &task, &outcome, err);
    *rate = outcome.n_done > 0 ? outcome.request_per_s : 1.0;
    return status;
}

static bool holds(const bench_options *o, const bench_outcome *outcome)
{
    return outcome->n_done > 0 && outcome->ttft_ms <= o->knee_limit_ms &&
           outcome->success_rate >= BENCH_SUCCESS_MIN;
}

static void show_metric(char out[METRIC_BYTES], const bench_options *o)
{
    (void)snprintf(out, METRIC_BYTES, "p%.4g_ttft_ms", o->knee_percent);
}

/* The last run at that rate that confirms it; one of three may have failed. */
static void choose_confirmation(bench *b, double rate)
{
    char metric[METRIC_BYTES];
    show_metric(metric, b->options);
    for (size_t i = 0; i < n_runs(b); i++) {
        const json_t *const run = json_array_get(b->runner.runs, i);
        if (json_is_true(json_object_get(run, "is_confirmation")) &&
            !json_is_true(json_object_get(run, "cut")) &&
            !(figure(b, i, metric) > b->options->knee_limit_ms) &&
            fabs(figure(b, i, "request_rate") / rate - 1.0) < 1e-9) {
            b->headline = i;
            b->has_headline = true;
        }
    }
}

/* Constant arrivals: nothing is left to their chance. */
static bool is_even(const bench_options *o)
{
    return isinf(o->burstiness);
}

/* By what share the rate may be off; NaN: none was found. */
static double knee_error(const bench *b, const bench_knee *knee)
{
    const double n = b->has_headline ? figure(b, b->headline, "completed") : 0.0;
    if (!(knee->confirmed > 0.0 && n > 0.0)) {
        return (double)NAN;
    }
    return fmax(BENCH_KNEE_PRECISION, is_even(b->options) ? 0.0 : bench_knee_error((uint64_t)n));
}

static bool put_knee(bench *b, const bench_knee *knee, size_t i_first)
{
    bool failed = false;
    char metric[METRIC_BYTES];
    json_t *const out = json_object();
    json_t *const runs = json_array();
    json_t *const bracket = json_array();
    for (size_t i = i_first; i < n_runs(b); i++) {
        put_last(runs, json_integer((json_int_t)i), &failed);
    }
    const double rate = knee->confirmed > 0.0 ? knee->confirmed : (double)NAN;
    const double ends[2] = {knee->confirmed > 0.0 ? knee->confirmed : knee->low,
                            isfinite(knee->failed) ? knee->failed : knee->high};
    for (int i = 0; i < 2; i++) {
        put_last(bracket, isfinite(ends[i]) && ends[i] > 0.0 ? json_real(ends[i]) : json_null(),
                 &failed);
    }
    show_metric(metric, b->options);
    put(out, "metric", put_text(metric), &failed);
    put(out, "limit_ms", put_real(b->options->knee_limit_ms), &failed);
    put(out, "success_min", put_real(BENCH_SUCCESS_MIN), &failed);
    put(out, "rate", put_real(rate), &failed);
    put(out, "output_throughput",
        put_real(b->has_headline ? figure(b, b->headline, "output_throughput") : (double)NAN),
        &failed);
    put(out, "bracket", bracket, &failed);
    put(out, "error", put_real(knee_error(b, knee)), &failed);
    put(out, "confirmed", json_boolean(knee->is_found), &failed);
    put(out, "runs", runs, &failed);
    put(out, "is_found", json_boolean(knee->is_found), &failed);
    put(out, "why",
        put_text(knee->is_found         ? NULL
                 : b->runner.is_stopped ? "interrupted"
                 : knee->why[0] != '\0' ? knee->why
                                        : "not looked for long enough"),
        &failed);
    b->knee = out;
    return !failed;
}

/* Not even requests that met no other were within the limit: no rate is low enough. */
static bool is_hopeless(const bench *b, bench_knee *knee)
{
    const double alone_ms = b->runner.alone_ttft_s * 1e3; /* NaN: no warm-up told */
    if (!(alone_ms > b->options->knee_limit_ms)) {
        return false;
    }
    (void)snprintf(knee->why, sizeof knee->why,
                   "a request alone took %.4g ms to its first token, expected at most %.4g",
                   alone_ms, b->options->knee_limit_ms);
    return true;
}

static qn_status run_knee(bench *b, qn_error *err)
{
    const bench_options *const o = b->options;
    bench_knee knee = {.failed = (double)INFINITY, .high = (double)INFINITY};
    bench_knee_options search = {.first_rate = o->steps[0].rate,
                                 .limit_s = o->knee_limit_ms / 1e3,
                                 .full_s = o->duration_s,
                                 .n_min = o->workload.n_requests};
    if (search.n_min == 0 && is_even(o)) {
        search.n_min = BENCH_KNEE_REQUESTS; /* more would tell nothing */
    }
    bench_task task = {.workload = &o->workload, .limit_ms = o->knee_limit_ms};
    bool is_ours = false; /* what broke the limit last */
    qn_status status = isinf(search.first_rate) ? guess(b, &search.first_rate, err) : QN_OK;
    const size_t i_first = n_runs(b);
    search.alone_s = isnan(b->runner.alone_s) ? 0.0 : b->runner.alone_s;
    bench_knee_begin(&knee, &search);
    while (status == QN_OK && !b->runner.is_stopped && !is_hopeless(b, &knee) &&
           bench_knee_next(&knee, &task.step.rate, &task.seconds, &task.is_confirmation)) {
        char label[LABEL_BYTES];
        bench_outcome outcome;
        show_label(label, &task.step, "");
        task.label = label;
        task.repeat = bench_knee_n_seen(&knee);
        status = bench_run(&b->runner, &task, &outcome, err);
        if (status == QN_OK && !b->runner.is_stopped) {
            const bool is_held = !b->runner.was_short && holds(o, &outcome);
            is_ours = is_held ? is_ours : outcome.lag_ms > CLIENT_SHARE * o->knee_limit_ms;
            bench_knee_tell(&knee, is_held);
        }
    }
    if (knee.is_found && is_ours) {
        knee.is_found = false;
        (void)snprintf(knee.why, sizeof knee.why, "above it the client was the bottleneck");
    }
    if (status < 0) {
        (void)snprintf(knee.why, sizeof knee.why, "a run failed");
    }
    if (knee.confirmed > 0.0) {
        choose_confirmation(b, knee.confirmed);
    } else if (n_runs(b) > 0) {
        b->headline = n_runs(b) - 1;
        b->has_headline = true;
    }
    return put_knee(b, &knee, i_first) ? status
                                       : qn_fail(err, QN_E_NOMEM, 0, __func__, "knee: no memory");
}

/* ----------------------------------------------------------------------------------- sensitivity
 */

/* Members of @p more over those of @p extra; owned by the caller (free). */
static char *join_bodies(const char *extra, const char *more)
{
    json_error_t ignored;
    json_t *const all = extra != NULL ? json_loads(extra, 0, &ignored) : json_object();
    json_t *const others = json_loads(more, 0, &ignored);
    char *const text = json_object_update(all, others) == 0 ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    json_decref(others);
    return text;
}

/* How the server is made to answer without MTP; NULL: it cannot be, *why. */
static const char *body_without_mtp(const bench *b, const char **why)
{
    const char *const engine = json_string_value(json_object_get(b->peer.server, "engine"));
    if (b->options->mtp_off_body != NULL) {
        return b->options->mtp_off_body;
    }
    if (engine != NULL && strcmp(engine, "quern") == 0) {
        return "{\"draft_tokens\": 0}";
    }
    *why = "how this server is asked without MTP is not known: --mtp-off-url or --mtp-off-body";
    return NULL;
}

/* One cell; *i_run is its run where it was made. */
static qn_status run_cell(bench *b, double share, bool has_mtp, const char **why, qn_error *err)
{
    const bench_options *const o = b->options;
    const uint32_t n_prompt = o->workload.n_prefix + o->workload.n_input;
    char label[LABEL_BYTES];
    char more[32];
    bench_outcome outcome;
    bench_workload_options workload = o->workload;
    const bool is_other = !has_mtp && o->mtp_off_url != NULL;
    char *body = NULL;
    workload.n_prefix = (uint32_t)lround(share * n_prompt);
    workload.n_input = n_prompt - workload.n_prefix;
    (void)snprintf(more, sizeof more, ", %.0f %% hit, MTP %s", share * 100.0,
                   has_mtp ? "on" : "off");
    show_label(label, &o->steps[0], more);
    const bench_task task = {.label = label,
                             .step = o->steps[0],
                             .seconds = o->duration_s,
                             .n_requests = o->workload.n_requests,
                             .limit_ms = (double)INFINITY,
                             .workload = &workload};
    qn_status status = QN_OK;
    if (!has_mtp && !is_other) {
        const char *const off = body_without_mtp(b, why);
        if (off == NULL) {
            return QN_OK;
        }
        body = join_bodies(o->workload.extra, off);
        status = body != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, 0, __func__, "body: no memory");
        workload.extra = body;
    }
    if (status == QN_OK) {
        b->runner.peer = is_other ? &b->off_peer : &b->peer;
        status = bench_run(&b->runner, &task, &outcome, err);
        b->runner.peer = &b->peer;
    }
    free(body);
    return status;
}

static qn_status run_sensitivity(bench *b, qn_error *err)
{
    static const double shares[] = {0.0, 0.3, 0.6, 0.9};
    qn_status status = QN_OK;
    bool failed = false;
    qn_error refused = {0};
    b->sensitivity = json_array();
    for (int i = 0; i < 8 && status == QN_OK; i++) {
        const bool has_mtp = i < 4;
        const double share = shares[i % 4];
        const char *why = "interrupted";
        const size_t i_run = n_runs(b);
        if (!b->runner.is_stopped) {
            status = run_cell(b, share, has_mtp, &why, &refused);
        }
        if (status == QN_E_INVAL) { /* of this cell: too few tokens of its own */
            why = refused.text;
            status = QN_OK;
        }
        const bool is_made = n_runs(b) > i_run;
        json_t *const cell = json_object();
        put(cell, "hit_rate", put_real(share), &failed);
        put(cell, "hit_rate_measured",
            put_real(is_made ? figure(b, i_run, "hit_rate") : (double)NAN), &failed);
        put(cell, "mtp", put_text(has_mtp ? "on" : "off"), &failed);
        put(cell, "run", is_made ? json_integer((json_int_t)i_run) : json_null(), &failed);
        put(cell, "why", put_text(is_made ? NULL : why), &failed);
        put_last(b->sensitivity, cell, &failed);
        /* What the workload claims: 60 %, drafts as the server makes them. */
        if (is_made && (i == 2 || !b->has_headline)) {
            b->headline = i_run;
            b->has_headline = true;
        }
    }
    if (status < 0) {
        *err = refused;
    }
    return status == QN_OK && failed
               ? qn_fail(err, QN_E_NOMEM, 0, __func__, "sensitivity: no memory")
               : status;
}

/* -------------------------------------------------------------------------------------- warnings
 */

static void warn_of_workload(bench *b)
{
    const bench_options *const o = b->options;
    const bench_runner *const r = &b->runner;
    const bench_workload_options *const w = &o->workload;
    if (w->scale != 1.0) {
        (void)put_warning(
            b->warnings,
            "all lengths are scaled by %g: not the workload that the references were measured on",
            w->scale);
    }
    if (w->kind == BENCH_WAFER && o->plan != BENCH_KNEE && o->duration_s < WAFER_RUN_S) {
        (void)put_warning(b->warnings,
                          "runs are shorter than the 10 minutes that the method asks for");
    }
    if (r->n_unsure > 0) {
        (void)put_warning(
            b->warnings,
            "tokens of %llu answers were counted by chunks, since the server told no usage and no "
            "tokenizer is here (--tokenizer): they may be more",
            (unsigned long long)r->n_unsure);
    }
    if (r->n_prompt_differs > 0) {
        (void)put_warning(
            b->warnings,
            "%llu of %llu prompts had another number of tokens than they were made with",
            (unsigned long long)r->n_prompt_differs, (unsigned long long)r->n_requests);
    }
    if (r->n_whole > 0) {
        (void)put_warning(
            b->warnings,
            "%llu of %llu answers came in one piece: they were not streamed and have no TPOT",
            (unsigned long long)r->n_whole, (unsigned long long)r->n_requests);
    }
    if (r->lacks_cached) {
        (void)put_warning(
            b->warnings,
            "the server does not tell cached tokens: the hit rate is by construction only");
    }
    if (r->ran_out) {
        (void)put_warning(b->warnings, "a run ended before its time, as its prompts were used up");
    }
    if (!w->ignores_eos) {
        (void)put_warning(b->warnings,
                          "answers may end early: their lengths are the model's choice");
    }
}

static void warn_of_headline(bench *b)
{
    const json_t *const run = json_array_get(b->runner.runs, b->headline);
    const json_t *const steady = json_object_get(run, "steady");
    const double hit_rate = figure(b, b->headline, "hit_rate");
    const double expected = figure(b, b->headline, "hit_rate_expected");
    if (hit_rate > expected + HIT_RATE_MORE) {
        (void)put_warning(
            b->warnings,
            "%.1f %% of the input was cached, expected %.1f %% by construction: the server had "
            "seen these prompts before (--salt, --flush-cache)",
            hit_rate * 100.0, expected * 100.0);
    } else if (hit_rate < expected - HIT_RATE_LESS) {
        (void)put_warning(
            b->warnings,
            "%.1f %% of the input was cached, expected %.1f %% by construction: the cache forgot, "
            "or its blocks are longer than what is shared",
            hit_rate * 100.0, expected * 100.0);
    }
    if (!json_is_true(json_object_get(steady, "is_found"))) {
        (void)put_warning(b->warnings, "no steady window: %s", qn_json_text(steady, "why"));
    }
    const json_t *const energy = json_object_get(run, "energy");
    const bench_power_kind power = b->options->watch.power;
    if ((power == BENCH_POWER_NVML || power == BENCH_POWER_RAPL) &&
        json_is_null(json_object_get(energy, "source"))) {
        (void)put_warning(b->warnings, "--power: %s", qn_json_text(energy, "why"));
    }
    const double error = qn_json_number(b->knee, "error");
    if (error > KNEE_ERROR_MAX) {
        (void)put_warning(
            b->warnings,
            "the knee may be off by %.1f %%: %.0f requests confirm it, more tell it within "
            "%.0f %% (--num-prompts, --duration)",
            error * 100.0, figure(b, b->headline, "completed"), KNEE_ERROR_MAX * 100.0);
    }
    const double per_chunk = figure(b, b->headline, "tokens_per_chunk");
    if (per_chunk > 1.02) {
        (void)put_warning(
            b->warnings,
            "%.2f tokens came in a chunk: ITL is between chunks, compare TPOT, which counts tokens",
            per_chunk);
    }
}

static void warn_of_runs(bench *b)
{
    for (size_t i = 0; i < n_runs(b); i++) {
        const double success = figure(b, i, "success_rate");
        const char *const label =
            json_string_value(json_object_get(json_array_get(b->runner.runs, i), "label"));
        if (success < BENCH_SUCCESS_MIN && label != NULL) {
            (void)put_warning(b->warnings,
                              "run %zu (%s): %.2f %% of the requests succeeded, expected %.4g %%",
                              i, label, success * 100.0, BENCH_SUCCESS_MIN * 100.0);
        }
    }
    if (b->has_headline) {
        warn_of_headline(b);
    }
}

/* ---------------------------------------------------------------------------------------- result
 */

static json_t *notes_json(const bench_options *o)
{
    bool failed = false;
    json_t *const out = json_object();
    for (size_t i = 0; i < o->n_notes; i++) {
        char key[64];
        const char *const equals = strchr(o->notes[i], '=');
        (void)snprintf(key, sizeof key, "%.*s", (int)(equals - o->notes[i]), o->notes[i]);
        put(out, key, put_text(equals + 1), &failed);
    }
    return put_whole(out, failed);
}

static void put_head(const bench *b, json_t *out, uint64_t begun_ns, bool *failed)
{
    const time_t now = (time_t)(begun_ns / 1000000000U);
    char date[32] = "";
    struct tm utc = {0};
    if (gmtime_r(&now, &utc) != NULL) {
        (void)strftime(date, sizeof date, "%Y%m%d-%H%M%S", &utc);
    }
    put(out, "format", json_string("quern-bench-serve/1"), failed);
    put(out, "date", json_string(date), failed);
    put(out, "date_utc", put_date(begun_ns), failed);
    put(out, "command", put_text(b->options->command), failed);
    put(out, "is_partial", json_boolean(b->runner.is_stopped || b->failure.status < 0), failed);
    put(out, "tool", put_tool(), failed);
}

/* Is the headline one to use?  What else went wrong has its place in its run. */
static void put_validity(const bench *b, json_t *out, bool *failed)
{
    json_t *const invalid = json_array();
    const json_t *const run = b->has_headline ? json_array_get(b->runner.runs, b->headline) : NULL;
    size_t i = 0;
    json_t *why = NULL;
    json_array_foreach(json_object_get(run, "invalid"), i, why)
    {
        put_last(invalid, json_incref(why), failed);
    }
    const bool is_told = json_is_true(json_object_get(run, "is_partial"));
    if (b->runner.is_stopped && !is_told) {
        put_last(invalid, json_string("interrupted"), failed);
    }
    if (b->failure.status < 0) {
        put_last(invalid, put_text(b->failure.text), failed);
    }
    put(out, "is_valid", json_boolean(json_array_size(invalid) == 0), failed);
    put(out, "invalid", invalid, failed);
    put(out, "warnings", json_incref(b->warnings), failed);
}

static json_t *result_json(bench *b, uint64_t begun_ns)
{
    const bench_options *const o = b->options;
    const char *const tokenizer = bench_tokens_name(b->runner.tokens);
    bool failed = false;
    json_t *const out = json_object();
    warn_of_workload(b);
    warn_of_runs(b);
    put_head(b, out, begun_ns, &failed);
    put_validity(b, out, &failed);
    put(b->peer.server, "notes", notes_json(o), &failed);
    put(out, "client", json_incref(b->client), &failed);
    put(out, "server", json_incref(b->peer.server), &failed);
    put(out, "mtp_off_server",
        b->off_peer.server != NULL ? json_incref(b->off_peer.server) : json_null(), &failed);
    put(out, "workload",
        bench_workload_json(
            o, &b->runner.made,
            b->has_headline ? figure(b, b->headline, "hit_rate_expected") : (double)NAN, tokenizer),
        &failed);
    put(out, "load", bench_load_json(o), &failed);
    put(out, "model_id", put_text(b->runner.model), &failed);
    put(out, "tokenizer_id", put_text(tokenizer), &failed);
    put(out, "burstiness", put_real(o->burstiness), &failed);
    put(out, "headline", b->has_headline ? json_integer((json_int_t)b->headline) : json_null(),
        &failed);
    put(out, "runs", json_incref(b->runner.runs), &failed);
    put(out, "spreads", bench_spreads_json(b->runner.runs), &failed);
    put(out, "knee", b->knee != NULL ? json_incref(b->knee) : json_null(), &failed);
    put(out, "sensitivity", b->sensitivity != NULL ? json_incref(b->sensitivity) : json_null(),
        &failed);
    put(out, "references", json_incref(b->runner.data.references), &failed);
    put(out, "prices", json_incref(b->runner.data.prices), &failed);
    if (b->has_headline) {
        bench_put_headline(out, b->headline, &failed);
    }
    return put_whole(out, failed);
}

/* ----------------------------------------------------------------------------------------- begin
 */

/* The model is the only one of the list. */
static qn_status find_model(bench *b, qn_error *err)
{
    bench_reply reply = {0};
    json_t *models = NULL;
    b->runner.model = b->options->model;
    if (b->runner.model != NULL) {
        return QN_OK;
    }
    qn_status status = bench_http(&reply, &b->peer.target, "/v1/models", NULL, err);
    if (status == QN_OK && reply.status != 200) {
        status = qn_fail(err, QN_E_IO, 0, __func__, "%.200s/v1/models: status %d%s, expected 200",
                         b->peer.target.base_url, reply.status,
                         reply.status == 503 ? " (the server is not ready)" : "");
    }
    qn_error not_json = {0};
    if (status == QN_OK &&
        qn_json_parse(&models, qn_buf_view(&reply.body), "/v1/models", &not_json) == QN_OK) {
        const json_t *const list = json_object_get(models, "data");
        const char *const id = qn_json_text(json_array_get(list, 0), "id");
        b->model = json_array_size(list) == 1 && id[0] != '\0' ? strdup(id) : NULL;
    }
    if (status == QN_OK && b->model == NULL) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__,
                         "--model: not given, and the server names %zu, expected one of them",
                         json_array_size(json_object_get(models, "data")));
    }
    b->runner.model = b->model;
    json_decref(models);
    bench_http_free(&reply);
    return status;
}

/* Who is asked, with all that belongs to it; what fails is closed at the end. */
static qn_status open_peer(bench *b, bench_peer *peer, const char *url, qn_error *err)
{
    const bench_options *const o = b->options;
    bench_watch_options watch = o->watch;
    qn_status status = QN_OK;
    peer->target = b->peer.target;
    peer->target.base_url = url;
    watch.target = &peer->target;
    QN_TRY(status, bench_server_json(&peer->server, &peer->target, b->runner.model, err), done);
    QN_TRY(status,
           bench_client_open(&peer->client, &peer->target, o->api, o->path, n_streams(o), err),
           done);
    QN_TRY(status, bench_watch_open(&peer->watch, &watch, err), done);
    b->runner.peer = peer;
    status = bench_run_probe(&b->runner, err);
done:
    return status;
}

static void close_peer(bench_peer *peer)
{
    bench_watch_close(&peer->watch);
    bench_client_close(&peer->client);
    json_decref(peer->server);
}

static qn_status begin(bench *b, qn_error *err)
{
    const bench_options *const o = b->options;
    bench_runner *const r = &b->runner;
    json_t *cost = NULL;
    qn_status status = QN_OK;
    r->options = o;
    b->peer.target = o->target;
    b->peer.target.goes_on = o->goes_on;
    b->peer.target.context = o->context;
    r->alone_s = r->alone_ttft_s = (double)NAN;
    r->salt = o->has_salt ? o->workload.salt : qn_rng_mix(qn_clock_wall_ns());
    r->runs = json_array();
    b->warnings = json_array();
    b->client = bench_machine_json();
    if (r->runs == NULL || b->warnings == NULL || b->client == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "bench: no memory");
    }
    QN_TRY(status, bench_data_open(&r->data, o->prices, o->references, err), done);
    QN_TRY(status, bench_cost_json(&cost, &r->data, o->accelerator, o->n_accelerators, 1, 1, err),
           done);
    QN_TRY(status, find_model(b, err), done);
    QN_TRY(status, bench_tokens_open(&r->tokens, o->tokenizer, &b->peer.target, r->model, err),
           done);
    r->counts_here = bench_tokens_is_local(r->tokens);
    if (o->mtp_off_url != NULL) { /* first: what the other tells is what holds */
        QN_TRY(status, open_peer(b, &b->off_peer, o->mtp_off_url, err), done);
    }
    status = open_peer(b, &b->peer, o->target.base_url, err);
done:
    json_decref(cost);
    return status;
}

static void end(bench *b)
{
    close_peer(&b->off_peer);
    close_peer(&b->peer);
    bench_tokens_close(&b->runner.tokens);
    bench_data_close(&b->runner.data);
    json_decref(b->runner.runs);
    json_decref(b->client);
    json_decref(b->warnings);
    json_decref(b->knee);
    json_decref(b->sensitivity);
    free(b->model);
}

qn_status bench_serve(json_t **result, const bench_options *options, qn_error *err)
{
    bench b = {.options = options};
    const uint64_t begun_ns = qn_clock_wall_ns();
    *result = NULL;
    qn_status status = begin(&b, err);
    if (status == QN_OK) {
        status = options->plan == BENCH_KNEE          ? run_knee(&b, err)
                 : options->plan == BENCH_SENSITIVITY ? run_sensitivity(&b, err)
                                                      : run_steps(&b, err);
    }
    if (status == QN_OK && b.runner.is_unwritten) {
        status = qn_fail(err, QN_E_IO, 0, __func__, "requests.jsonl: not whole, expected room");
    }
    if (status < 0 && err != NULL) {
        b.failure = *err;
    }
    if (status == QN_OK || n_runs(&b) > 0) {
        *result = result_json(&b, begun_ns);
    }
    if (status == QN_OK && *result == NULL) {
        status = qn_fail(err, QN_E_NOMEM, 0, __func__, "result: no memory");
    }
    end(&b);
    return status;
}
