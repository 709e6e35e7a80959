/* SPDX-License-Identifier: Apache-2.0 */
#include "result.h"

#include "put.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CDF_POINTS = 101, TIMELINE_MAX = 400 };

/* ------------------------------------------------------------------------------------ latencies */

/* "p99_ttft_ms", or "p99.9_ttft_ms": a whole number has no point, as in vLLM's results. */
static void put_percentile(json_t *object, double percent, const char *metric, double value,
                           bool *failed)
{
    char key[48];
    (void)snprintf(key, sizeof key, "p%.6g_%s_ms", percent, metric);
    put(object, key, put_real(value), failed);
}

static void put_stats(json_t *object, const char *metric, const bench_stats *stats, bool *failed)
{
    const struct {
        const char *name;
        double value;
    } figures[] = {{"mean", stats->mean},
                   {"median", stats->median},
                   {"std", stats->std},
                   {"min", stats->min},
                   {"max", stats->max}};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "%s_%s_ms", figures[i].name, metric);
        put(object, key, put_real(figures[i].value), failed);
    }
}

static void put_cdf(json_t *cdf, const char *metric, const double *values, size_t n, bool *failed)
{
    char key[16];
    json_t *const list = json_array();
    for (int i = 0; i < CDF_POINTS; i++) {
        put_last(list, put_real(bench_percentile(values, n, i)), failed);
    }
    (void)snprintf(key, sizeof key, "%s_ms", metric);
    put(cdf, key, list, failed);
}

static void put_latencies(json_t *out, const bench_tally *tally, const bench_options *options,
                          bool *failed)
{
    json_t *const cdf = json_object();
    for (int i = 0; i < BENCH_N_METRICS; i++) {
        const char *const name = bench_metric_name((bench_metric)i);
        size_t n = 0;
        double *const values =
            i == BENCH_ITL ? NULL : bench_tally_values(tally, (bench_metric)i, &n);
        *failed |= i != BENCH_ITL && values == NULL;
        const bench_stats stats =
            i == BENCH_ITL ? bench_histogram_stats(&tally->itl) : bench_stats_of(values, n);
        put_stats(out, name, &stats, failed);
        for (size_t p = 0; p < options->n_percents; p++) {
            const double percent = options->percents[p];
            put_percentile(out, percent, name,
                           i == BENCH_ITL ? bench_histogram_percentile(&tally->itl, percent)
                                          : bench_percentile(values, n, percent),
                           failed);
        }
        if (i != BENCH_ITL) {
            put_cdf(cdf, name, values, n, failed);
        }
        if (i == BENCH_TPOT) {
            put(out, "per_user_tokens_per_s", put_real(1e3 / stats.median), failed);
        }
        free(values);
    }
    put(out, "cdf", cdf, failed);
}

/* ----------------------------------------------------------------------------------------- time */

/* 2, 5, 10 ... 600 buckets, so that a run of up to 6.7 h has some hundred points. */
static size_t buckets_of_point(size_t n_buckets)
{
    static const size_t steps[] = {2, 5, 10, 20, 50, 100, 200, 300, 600};
    size_t i = 0;
    while (i + 1 < sizeof steps / sizeof *steps && n_buckets / steps[i] > TIMELINE_MAX) {
        i++;
    }
    return steps[i];
}

static json_t *timeline_json(const bench_tally *tally, double end_s)
{
    bool failed = false;
    const size_t n_buckets = (size_t)(end_s / BENCH_BUCKET_S) + 1;
    const size_t n_each = buckets_of_point(n_buckets);
    const double every_s = (double)n_each * BENCH_BUCKET_S;
    const size_t n = (n_buckets + n_each - 1) / n_each;
    uint64_t *const counts = calloc(2 * n, sizeof *counts); /* sent, ended */
    json_t *const out = json_object();
    json_t *const tokens = json_array();
    json_t *const in_flight = json_array();
    json_t *const sent = json_array();
    json_t *const ended = json_array();
    for (size_t i = 0; counts != NULL && i < tally->n_rows; i++) {
        const size_t i_sent = (size_t)(fmax(tally->rows[i].sent_s, 0.0) / every_s);
        const size_t i_end = (size_t)(fmax(tally->rows[i].end_s, 0.0) / every_s);
        counts[i_sent < n ? i_sent : n - 1] += isnan(tally->rows[i].sent_s) ? 0 : 1;
        counts[n + (i_end < n ? i_end : n - 1)] += isnan(tally->rows[i].sent_s) ? 0 : 1;
    }
    uint64_t n_active = 0;
    for (size_t i = 0; counts != NULL && i < n; i++) {
        double n_tokens = 0.0;
        for (size_t k = i * n_each; k < (i + 1) * n_each && k < tally->n_buckets; k++) {
            n_tokens += tally->tokens[k];
        }
        n_active += counts[i] - counts[n + i];
        put_last(tokens, json_real(n_tokens / every_s), &failed);
        put_last(in_flight, json_integer((json_int_t)n_active), &failed);
        put_last(sent, json_integer((json_int_t)counts[i]), &failed);
        put_last(ended, json_integer((json_int_t)counts[n + i]), &failed);
    }
    put(out, "every_s", put_real(every_s), &failed);
    put(out, "output_tokens_per_s", tokens, &failed);
    put(out, "in_flight", in_flight, &failed);
    put(out, "sent", sent, &failed);
    put(out, "ended", ended, &failed);
    failed |= counts == NULL;
    free(counts);
    return put_whole(out, failed);
}

/* -------------------------------------------------------------------------------------- one run */

static void put_counts(json_t *out, const bench_tally *tally, const bench_sums *sums, bool *failed)
{
    json_t *const errors = json_object();
    json_t *const messages = json_object();
    json_t *const finishes = json_object();
    for (int i = 0; i < BENCH_N_ENDS; i++) {
        if (i != BENCH_DONE && i != BENCH_CANCELLED && tally->n_ends[i] > 0) {
            put(errors, bench_end_name((bench_end)i), put_count(tally->n_ends[i]), failed);
            put(messages, bench_end_name((bench_end)i), put_text(tally->messages[i]), failed);
        }
    }
    for (size_t i = 0; i < tally->n_finishes; i++) {
        put(finishes, tally->finishes[i].reason, put_count(tally->finishes[i].n), failed);
    }
    put(out, "completed", put_count(sums->n_done), failed);
    put(out, "failed", put_count(sums->n_failed), failed);
    put(out, "cancelled", put_count(sums->n_cancelled), failed);
    put(out, "success_rate", put_real(sums->success_rate), failed);
    put(out, "errors", errors, failed);
    put(out, "error_messages", messages, failed);
    put(out, "finish_reasons", finishes, failed);
    put(out, "total_input_tokens", put_count(sums->n_input), failed);
    put(out, "total_output_tokens", put_count(sums->n_output), failed);
    put(out, "total_cached_tokens",
        sums->has_cached ? json_integer((json_int_t)sums->n_cached) : json_null(), failed);
    put(out, "hit_rate",
        put_real(sums->has_cached ? (double)sums->n_cached / (double)sums->n_input : (double)NAN),
        failed);
}

static json_t *steady_json(const bench_steady *steady)
{
    bool failed = false;
    json_t *const out = json_object();
    put(out, "from_s", put_real(steady->from_s), &failed);
    put(out, "to_s", put_real(steady->to_s), &failed);
    put(out, "is_found", json_boolean(steady->is_found), &failed);
    const bool is_found = steady->is_found;
    put(out, "output_throughput", put_real(is_found ? steady->output_per_s : (double)NAN), &failed);
    put(out, "request_throughput", put_real(is_found ? steady->requests_per_s : (double)NAN),
        &failed);
    put(out, "why", put_text(steady->is_found ? NULL : steady->why), &failed);
    return put_whole(out, failed);
}

static json_t *lag_json(const bench_lag *lag)
{
    return json_pack("{sf, sf, sf, sf, sf, sf, sf, sI}", "send_p50_ms", lag->send_p50_ms,
                     "send_p99_ms", lag->send_p99_ms, "send_max_ms", lag->send_max_ms,
                     "read_p50_ms", lag->read_p50_ms, "read_p99_ms", lag->read_p99_ms,
                     "read_max_ms", lag->read_max_ms, "cpu_s", lag->cpu_s, "resent",
                     (json_int_t)lag->n_resent);
}

QN_PRINTF(3, 4)
static void add_text(json_t *list, bool *failed, const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put_last(list, json_string(text), failed);
}

/* Why the figures of a run should not be used. */
static json_t *invalid_json(const bench_run_info *run, const bench_sums *sums, const bench_lag *lag,
                            bool *failed)
{
    json_t *const list = json_array();
    *failed |= list == NULL;
    if (lag->send_p99_ms > BENCH_LAG_MAX_MS) {
        add_text(list, failed,
                 "the client was the bottleneck: it sent %.1f ms late at the 99th percentile, "
                 "expected at most %.0f",
                 lag->send_p99_ms, BENCH_LAG_MAX_MS);
    }
    if (lag->read_p99_ms > BENCH_LAG_MAX_MS) {
        add_text(list, failed,
                 "the client was the bottleneck: it read %.1f ms late at the 99th percentile, "
                 "expected at most %.0f",
                 lag->read_p99_ms, BENCH_LAG_MAX_MS);
    }
    if (lag->n_no_file > 0) {
        add_text(list, failed,
                 "the client could open no more files for %.0f connections: ulimit -n",
                 (double)lag->n_no_file);
    }
    if (run->is_partial) {
        add_text(list, failed, "interrupted after %.0f of %.0f requests",
                 (double)(sums->n_done + sums->n_failed), (double)run->n_planned);
    }
    if (run->was_short) {
        add_text(list, failed,
                 "stopped after %.0f of %.0f requests: the limit could not hold any more",
                 (double)(sums->n_done + sums->n_failed), (double)run->n_planned);
    }
    if (sums->n_done == 0) {
        add_text(list, failed, "no request succeeded (%.0f failed)", (double)sums->n_failed);
    }
    return list;
}

static void put_what(json_t *out, const bench_run_info *run, bool *failed)
{
    put(out, "label", put_text(run->label), failed);
    put(out, "request_rate", put_real(run->step.rate), failed);
    put(out, "max_concurrency",
        run->step.n_at_once > 0 ? json_integer(run->step.n_at_once) : json_null(), failed);
    put(out, "repeat", put_count(run->repeat), failed);
    put(out, "is_confirmation", json_boolean(run->is_confirmation), failed);
    put(out, "seed", put_count(run->seed), failed);
    put(out, "is_partial", json_boolean(run->is_partial), failed);
    put(out, "cut", json_boolean(run->was_short), failed);
    put(out, "begun_utc", put_date(run->begun_wall_ns), failed);
    put(out, "num_prompts", put_count(run->n_planned), failed);
    put(out, "hit_rate_expected", put_real(run->hit_rate), failed);
}

/* A run that was to last so long lasted no shorter: its last request may be due, and done, before.
 */
static double seconds_of(const bench_run_info *run, const bench_sums *sums)
{
    return fmax(sums->end_s - sums->begun_s, run->seconds);
}

static void put_rates(json_t *out, double seconds, const bench_tally *tally, const bench_sums *sums,
                      const bench_options *options, bool *failed)
{
    const double n_out = (double)sums->n_output;
    bool has_goodput = false;
    for (int i = 0; i < BENCH_N_METRICS; i++) {
        has_goodput |= !isnan(options->goodput_ms[i]);
    }
    put(out, "duration", put_real(seconds), failed);
    put(out, "request_throughput", put_real((double)sums->n_done / seconds), failed);
    put(out, "output_throughput", put_real(n_out / seconds), failed);
    put(out, "total_token_throughput", put_real(((double)sums->n_input + n_out) / seconds), failed);
    put(out, "request_goodput",
        put_real(has_goodput ? (double)sums->n_good / seconds : (double)NAN), failed);
    put(out, "offered_rate",
        put_real((double)(tally->n_rows - 1) / (sums->last_due_s - sums->begun_s)), failed);
    put(out, "tokens_per_chunk", put_real(n_out / (double)tally->n_chunks), failed);
}

json_t *bench_run_json(bench_outcome *outcome, const bench_run_info *run, const bench_tally *tally,
                       const bench_lag *lag, const bench_options *options)
{
    bool failed = tally->lacks_memory;
    json_t *const out = json_object();
    const bench_sums sums = bench_tally_sums(tally, options->goodput_ms);
    const bench_steady steady = bench_steady_of(tally);
    const double seconds = seconds_of(run, &sums);
    size_t n = 0;
    double *const ttfts = bench_tally_values(tally, BENCH_TTFT, &n);
    put_what(out, run, &failed);
    json_t *const invalid = invalid_json(run, &sums, lag, &failed);
    *outcome = (bench_outcome){
        .ttft_ms = ttfts != NULL ? bench_percentile(ttfts, n, options->knee_percent) : (double)NAN,
        .success_rate = sums.success_rate,
        .output_per_s = (double)sums.n_output / seconds,
        .request_per_s = (double)sums.n_done / seconds,
        .total_per_s = (double)(sums.n_input + sums.n_output) / seconds,
        .lag_ms = fmax(lag->send_p99_ms, lag->read_p99_ms),
        .is_valid = json_array_size(invalid) == 0,
        .n_done = sums.n_done,
        .work = {sums.n_done, sums.n_input, sums.n_output},
    };
    free(ttfts);
    put(out, "is_valid", json_boolean(outcome->is_valid), &failed);
    put(out, "invalid", invalid, &failed);
    put_counts(out, tally, &sums, &failed);
    put_rates(out, seconds, tally, &sums, options, &failed);
    put(out, "steady", steady_json(&steady), &failed);
    put_latencies(out, tally, options, &failed);
    put(out, "lag", lag_json(lag), &failed);
    put(out, "timeline", timeline_json(tally, sums.end_s), &failed);
    return put_whole(out, failed || ttfts == NULL);
}

/* ------------------------------------------------------------------------------------- requests */

bool bench_request_write(FILE *file, const bench_record *record, const bench_row *row, size_t i_run,
                         bool is_detailed)
{
    const bench_record *const r = record;
    bool failed = false;
    json_t *const out = json_object();
    put(out, "run", put_count(i_run), &failed);
    put(out, "id", put_count(r->call.id), &failed);
    put(out, "conversation", put_count(r->call.conversation), &failed);
    put(out, "turn", put_count(r->call.turn), &failed);
    put(out, "due_s", put_real(r->due_s), &failed);
    put(out, "sent_s", put_real(r->sent_s), &failed);
    put(out, "ttft_ms", put_real(row->ttft_ms), &failed);
    put(out, "tpot_ms", put_real(row->tpot_ms), &failed);
    put(out, "e2el_ms", put_real(row->e2el_ms), &failed);
    put(out, "chunks", put_count(r->n_chunks), &failed);
    put(out, "prompt_tokens", put_count(r->n_prompt), &failed);
    put(out, "output_tokens", put_count(r->n_output), &failed);
    put(out, "cached_tokens", r->has_cached ? json_integer(r->n_cached) : json_null(), &failed);
    put(out, "prompt_tokens_expected",
        r->call.n_prompt > 0 ? put_count(r->call.n_prompt) : json_null(), &failed);
    put(out, "shared_tokens_expected", put_count(r->call.n_shared), &failed);
    put(out, "finish_reason", put_text(r->finish), &failed);
    put(out, "end", put_text(bench_end_name(r->end)), &failed);
    put(out, "status", put_count((uint64_t)r->status), &failed);
    put(out, "message", put_text(r->message), &failed);
    if (is_detailed) {
        json_t *const chunks = json_array();
        for (uint32_t i = 0; i < r->n_chunks; i++) {
            put_last(chunks, put_real(r->chunk_s[i]), &failed);
        }
        put(out, "chunk_s", chunks, &failed);
    }
    const bool is_whole = !failed &&
                          json_dumpf(out, file, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 &&
                          fputc('\n', file) != EOF;
    json_decref(out);
    return is_whole;
}

/* -------------------------------------------------------------------------------- what was asked
 */

static json_t *made_json(const bench_made *made)
{
    bool failed = false;
    json_t *const out = json_object();
    put(out, "requests", put_count(made->n_requests), &failed);
    put(out, "conversations", put_count(made->n_conversations), &failed);
    put(out, "groups", put_count(made->n_groups), &failed);
    put(out, "skipped", put_count(made->n_skipped), &failed);
    put(out, "unknown", put_count(made->n_unknown), &failed);
    put(out, "min_input", put_count(made->min_input), &failed);
    put(out, "max_input", put_count(made->max_input), &failed);
    put(out, "min_output", put_count(made->min_output), &failed);
    put(out, "max_output", put_count(made->max_output), &failed);
    return put_whole(out, failed);
}

json_t *bench_workload_json(const bench_options *options, const bench_made *made, double hit_rate,
                            const char *tokenizer)
{
    const bench_workload_options *const w = &options->workload;
    bool failed = false;
    json_t *const out = json_object();
    json_error_t ignored;
    put(out, "name", put_text(options->workload_name), &failed);
    put(out, "scale", put_real(w->scale), &failed);
    put(out, "seed", put_count(w->seed), &failed);
    put(out, "salt", options->has_salt ? put_count(w->salt) : json_null(), &failed);
    put(out, "api", put_text(options->path), &failed);
    put(out, "tokenizer", put_text(tokenizer), &failed);
    put(out, "text", put_text(w->file != NULL ? "file" : w->sends_ids ? "ids" : "words"), &failed);
    put(out, "file", put_text(w->file), &failed);
    put(out, "prefix_tokens", put_count(made->prefix_tokens), &failed);
    put(out, "input_tokens", put_count(made->input_tokens), &failed);
    put(out, "output_tokens", put_count(made->output_tokens), &failed);
    put(out, "range_ratio", put_real(w->range_ratio), &failed);
    put(out, "range_ratio_meaning", put_text(w->range == BENCH_RANGE_AROUND ? "around" : "below"),
        &failed);
    put(out, "groups", put_count(w->n_groups), &failed);
    put(out, "turns", put_count(w->n_turns), &failed);
    put(out, "ignore_eos", json_boolean(w->ignores_eos), &failed);
    put(out, "hit_rate", put_real(hit_rate), &failed);
    put(out, "made", made_json(made), &failed);
    put(out, "sampling", w->extra != NULL ? json_loads(w->extra, 0, &ignored) : json_object(),
        &failed);
    return put_whole(out, failed);
}

json_t *bench_load_json(const bench_options *options)
{
    static const char *const kinds[] = {"single", "ramp", "knee", "sensitivity"};
    const bench_options *const o = options;
    const bool is_open =
        o->plan == BENCH_KNEE || isfinite(o->steps[0].rate) || o->steps[0].n_at_once == 0;
    bool failed = false;
    json_t *const out = json_object();
    json_t *const goodput = json_object();
    for (int i = 0; i < BENCH_N_METRICS; i++) {
        if (!isnan(o->goodput_ms[i])) {
            put(goodput, bench_metric_name((bench_metric)i), put_real(o->goodput_ms[i]), &failed);
        }
    }
    put(out, "mode", put_text(is_open ? "open" : "closed"), &failed);
    put(out, "arrivals",
        put_text(!is_open                                                     ? "closed"
                 : o->workload.kind == BENCH_TRACE && isinf(o->steps[0].rate) ? "trace"
                 : isinf(o->steps[0].rate) && o->plan != BENCH_KNEE           ? "at_once"
                 : isinf(o->burstiness)                                       ? "constant"
                 : o->burstiness == 1.0                                       ? "poisson"
                                                                              : "gamma"),
        &failed);
    put(out, "burstiness", put_real(o->burstiness), &failed);
    put(out, "warmups", put_count(o->n_warmups), &failed);
    put(out, "repeats", put_count(o->n_repeats), &failed);
    put(out, "kind", put_text(kinds[o->plan]), &failed);
    put(out, "timeout_s", put_real(o->target.timeout_s), &failed);
    put(out, "duration_s", put_real(o->duration_s > 0.0 ? o->duration_s : (double)NAN), &failed);
    put(out, "goodput", goodput, &failed);
    return put_whole(out, failed);
}

/* --------------------------------------------------------------------------------------- spreads
 */

static const char *const spread_keys[] = {"output_throughput", "request_throughput", "p50_ttft_ms",
                                          "p95_ttft_ms", "p50_tpot_ms"};
enum { N_SPREAD_KEYS = sizeof spread_keys / sizeof *spread_keys, REPEATS_MAX = 1024 };

/* The same load?  A trial of a search is none with a confirmation, which is longer. */
static bool is_same(const json_t *run, const json_t *other)
{
    return json_equal(json_object_get(run, "label"), json_object_get(other, "label")) &&
           json_equal(json_object_get(run, "is_confirmation"),
                      json_object_get(other, "is_confirmation"));
}

/* How one figure of runs like this one was spread. */
static json_t *spread_of(const json_t *runs, const json_t *like, const char *key)
{
    double values[REPEATS_MAX];
    size_t n = 0;
    bool failed = false;
    json_t *const out = json_object();
    for (size_t i = 0; i < json_array_size(runs) && n < REPEATS_MAX; i++) {
        const json_t *const run = json_array_get(runs, i);
        const json_t *const value = json_object_get(run, key);
        if (is_same(run, like) && json_is_number(value)) {
            values[n++] = json_number_value(value);
        }
    }
    bench_sort(values, n);
    const bench_stats stats = bench_stats_of(values, n);
    put(out, "median", put_real(stats.median), &failed);
    put(out, "min", put_real(stats.min), &failed);
    put(out, "max", put_real(stats.max), &failed);
    put(out, "spread", put_real(bench_spread(values, n)), &failed);
    return put_whole(out, failed);
}

json_t *bench_spreads_json(const json_t *runs)
{
    bool failed = false;
    json_t *const list = json_array();
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *const run = json_array_get(runs, i);
        size_t n_same = 0;
        bool is_first = true;
        for (size_t k = 0; k < json_array_size(runs); k++) {
            const bool is_other = !is_same(run, json_array_get(runs, k));
            n_same += is_other ? 0 : 1;
            is_first &= k >= i || is_other;
        }
        if (is_first && n_same > 1) {
            json_t *const entry = json_object();
            put(entry, "label", json_incref(json_object_get(run, "label")), &failed);
            put(entry, "n", put_count(n_same), &failed);
            for (size_t k = 0; k < N_SPREAD_KEYS; k++) {
                put(entry, spread_keys[k], spread_of(runs, run, spread_keys[k]), &failed);
            }
            put_last(list, entry, &failed);
        }
    }
    return put_whole(list, failed);
}

/* -------------------------------------------------------------------------------------- headline
 */

void bench_put_headline(json_t *result, size_t headline, bool *failed)
{
    /* What a run says of itself and vLLM does not have, or has by another meaning. */
    static const char *const ours[] = {"label",
                                       "is_partial",
                                       "cut",
                                       "request_rate",
                                       "repeat",
                                       "is_confirmation",
                                       "is_valid",
                                       "invalid",
                                       "seed",
                                       "begun_utc",
                                       "hit_rate_expected",
                                       "cancelled",
                                       "success_rate",
                                       "errors",
                                       "error_messages",
                                       "finish_reasons",
                                       "steady",
                                       "cdf",
                                       "timeline",
                                       "metrics",
                                       "energy",
                                       "cost",
                                       "lag",
                                       "hit_rate"};
    json_t *const run = json_array_get(json_object_get(result, "runs"), headline);
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(run, key, value)
    {
        bool is_ours = false;
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
            is_ours |= strcmp(ours[i], key) == 0;
        }
        if (!is_ours) {
            put(result, key, json_incref(value), failed);
        }
    }
    /* vLLM writes a rate without limit as "inf". */
    json_t *const rate = json_object_get(run, "request_rate");
    put(result, "request_rate", json_is_null(rate) ? json_string("inf") : json_incref(rate),
        failed);
}
