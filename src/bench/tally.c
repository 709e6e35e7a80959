/* SPDX-License-Identifier: Apache-2.0 */
#include "tally.h"

#include "base/try.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENDS_MIN = 10, BUCKETS_MAX = 10 * 86400 * 4 };

void bench_tally_begin(bench_tally *tally, double limit_ms)
{
    *tally = (bench_tally){.limit_ms = limit_ms};
}

void bench_tally_end(bench_tally *tally)
{
    free(tally->rows);
    free(tally->tokens);
    *tally = (bench_tally){0};
}

bench_row bench_row_of(const bench_record *record)
{
    const bench_record *const r = record;
    const double total_ms = (r->last_s - r->due_s) * 1e3;
    const double first_ms = (r->first_s - r->due_s) * 1e3;
    return (bench_row){
        .due_s = r->due_s,
        .sent_s = r->sent_s,
        .end_s = r->end_s,
        .ttft_ms = first_ms,
        .tpot_ms = r->n_output > 1 && r->n_chunks > 1
                       ? (total_ms - first_ms) / (double)(r->n_output - 1)
                       : (double)NAN,
        .e2el_ms = total_ms,
        .n_prompt = r->n_prompt,
        .n_output = r->n_output,
        .n_cached = r->n_cached,
        .has_cached = r->has_cached,
        .end = (uint8_t)r->end,
    };
}

static void count_finish(bench_tally *t, const char *reason)
{
    size_t i = 0;
    while (i < t->n_finishes && strcmp(t->finishes[i].reason, reason) != 0) {
        i++;
    }
    if (i == BENCH_FINISHES) {
        i--;
    } else if (i == t->n_finishes) {
        t->n_finishes++;
        (void)snprintf(t->finishes[i].reason, BENCH_FINISH_BYTES, "%s", reason);
    }
    t->finishes[i].n++;
}

static bool reach_bucket(bench_tally *t, size_t i_bucket)
{
    if (i_bucket < t->n_buckets) {
        return true;
    }
    const size_t n = i_bucket < BUCKETS_MAX ? (i_bucket + 1) * 2 : 0;
    double *const larger = n > 0 ? realloc(t->tokens, n * sizeof *larger) : NULL;
    if (larger == NULL) {
        t->lacks_memory = true;
        return false;
    }
    memset(larger + t->n_buckets, 0, (n - t->n_buckets) * sizeof *larger);
    t->tokens = larger;
    t->n_buckets = n;
    return true;
}

/* Which chunk brought how many tokens is not told: each has its share. */
static void count_tokens(bench_tally *t, const bench_record *r)
{
    for (uint32_t i = 0; i < r->n_chunks; i++) {
        const double at_s = fmax(r->chunk_s[i], 0.0);
        const size_t i_bucket = (size_t)(at_s / BENCH_BUCKET_S);
        if (i > 0) {
            bench_histogram_add(&t->itl, (r->chunk_s[i] - r->chunk_s[i - 1]) * 1e3, 1);
        }
        if (reach_bucket(t, i_bucket)) {
            t->tokens[i_bucket] += (double)r->n_output / (double)r->n_chunks;
        }
    }
    t->n_chunks += r->n_chunks;
}

void bench_tally_add(bench_tally *tally, const bench_record *record)
{
    bench_tally *const t = tally;
    if (t->n_rows == t->rows_max) {
        const size_t n = t->rows_max > 0 ? t->rows_max * 2 : 1024;
        bench_row *const larger = realloc(t->rows, n * sizeof *larger);
        if (larger == NULL) {
            t->lacks_memory = true;
            return;
        }
        t->rows = larger;
        t->rows_max = n;
    }
    const bench_row row = bench_row_of(record);
    t->rows[t->n_rows++] = row;
    if (t->n_ends[record->end]++ == 0) {
        (void)snprintf(t->messages[record->end], BENCH_MESSAGE_BYTES, "%s", record->message);
    }
    if (record->end == BENCH_DONE) {
        count_finish(t, record->finish);
        count_tokens(t, record);
        t->n_prompt_differs += record->has_usage && record->call.n_prompt > 0 &&
                               record->call.n_prompt != record->n_prompt;
        t->n_whole += record->n_output > 1 && record->n_chunks == 1;
        t->n_over += row.ttft_ms > t->limit_ms;
    }
}

const char *bench_metric_name(bench_metric metric)
{
    static const char *const names[BENCH_N_METRICS] = {
        [BENCH_TTFT] = "ttft", [BENCH_TPOT] = "tpot", [BENCH_E2EL] = "e2el", [BENCH_ITL] = "itl"};
    return names[metric];
}

static double value_of(const bench_row *row, bench_metric metric)
{
    return metric == BENCH_TTFT ? row->ttft_ms : metric == BENCH_TPOT ? row->tpot_ms : row->e2el_ms;
}

double *bench_tally_values(const bench_tally *tally, bench_metric metric, size_t *n)
{
    double *const values = malloc((tally->n_rows + 1) * sizeof *values);
    *n = 0;
    for (size_t i = 0; values != NULL && i < tally->n_rows; i++) {
        const double value = value_of(&tally->rows[i], metric);
        if (tally->rows[i].end == BENCH_DONE && !isnan(value)) {
            values[(*n)++] = value;
        }
    }
    if (values != NULL) {
        bench_sort(values, *n);
    }
    return values;
}

/* A latency that did not happen, such as TPOT of one token, breaks no limit. */
static bool is_good(const bench_row *row, const double *limits_ms)
{
    for (int i = 0; i < BENCH_ITL; i++) {
        if (value_of(row, (bench_metric)i) > limits_ms[i]) {
            return false;
        }
    }
    return true;
}

bench_sums bench_tally_sums(const bench_tally *tally, const double *limits_ms)
{
    bench_sums sums = {.has_cached = true, .begun_s = (double)INFINITY};
    for (size_t i = 0; i < tally->n_rows; i++) {
        const bench_row *const row = &tally->rows[i];
        sums.begun_s = fmin(sums.begun_s, row->due_s);
        sums.end_s = fmax(sums.end_s, row->end_s);
        sums.last_due_s = fmax(sums.last_due_s, row->due_s);
        sums.last_sent_s = fmax(sums.last_sent_s, row->sent_s); /* NaN where none was */
        if (row->end == BENCH_CANCELLED) {
            sums.n_cancelled++;
        } else if (row->end != BENCH_DONE) {
            sums.n_failed++;
        } else {
            sums.n_done++;
            sums.n_input += row->n_prompt;
            sums.n_output += row->n_output;
            sums.n_cached += row->n_cached;
            sums.has_cached &= row->has_cached;
            sums.n_good += is_good(row, limits_ms);
        }
    }
    sums.begun_s = tally->n_rows > 0 ? sums.begun_s : 0.0;
    sums.has_cached &= sums.n_done > 0;
    sums.success_rate = (double)sums.n_done / (double)(sums.n_done + sums.n_failed);
    return sums;
}

double bench_tally_in_flight(const bench_tally *tally, double from_s, double to_s)
{
    double seconds = 0.0;
    for (size_t i = 0; i < tally->n_rows; i++) {
        const bench_row *const row = &tally->rows[i];
        const double begin = fmax(row->sent_s, from_s);
        const double end = fmin(row->end_s, to_s);
        seconds += end > begin ? end - begin : 0.0;
    }
    return seconds / (to_s - from_s);
}

static void measure_window(bench_steady *out, const bench_tally *tally)
{
    uint64_t n_ends = 0;
    double n_tokens = 0.0;
    const size_t i_to = (size_t)(out->to_s / BENCH_BUCKET_S + 0.5);
    for (size_t i = 0; i < tally->n_rows; i++) {
        const bench_row *const row = &tally->rows[i];
        n_ends += row->end == BENCH_DONE && row->end_s >= out->from_s && row->end_s < out->to_s;
    }
    for (size_t i = (size_t)(out->from_s / BENCH_BUCKET_S + 0.5); i < i_to && i < tally->n_buckets;
         i++) {
        n_tokens += tally->tokens[i];
    }
    const double seconds = out->to_s - out->from_s;
    out->requests_per_s = (double)n_ends / seconds;
    out->output_per_s = n_tokens / seconds;
    const double middle_s = (out->from_s + out->to_s) / 2.0;
    const double early = bench_tally_in_flight(tally, out->from_s, middle_s);
    const double late = bench_tally_in_flight(tally, middle_s, out->to_s);
    if (n_ends < ENDS_MIN) {
        (void)snprintf(out->why, sizeof out->why, "%d requests ended in it, expected %d at least",
                       (int)n_ends, (int)ENDS_MIN);
    } else if (late > 1.5 * early + 2.0) {
        (void)snprintf(out->why, sizeof out->why,
                       "requests under way grew from %.1f to %.1f: the server does not keep up",
                       early, late);
    }
}

bench_steady bench_steady_of(const bench_tally *tally)
{
    const double no_limits[BENCH_N_METRICS] = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    const double nothing = (double)NAN;
    bench_steady out = {nothing, nothing, nothing, nothing, false, ""};
    const bench_sums sums = bench_tally_sums(tally, no_limits);
    size_t n = 0;
    double *const values = bench_tally_values(tally, BENCH_E2EL, &n);
    if (values == NULL || n == 0) {
        (void)snprintf(out.why, sizeof out.why, "no request was whole");
        free(values);
        return out;
    }
    const double settled_s = bench_percentile(values, n, 95.0) / 1e3;
    const double median_s = bench_percentile(values, n, 50.0) / 1e3;
    free(values);
    const double from_s = ceil((sums.begun_s + settled_s) / BENCH_BUCKET_S) * BENCH_BUCKET_S;
    const double to_s = floor(sums.last_sent_s / BENCH_BUCKET_S) * BENCH_BUCKET_S;
    if (to_s - from_s < fmax(median_s, BENCH_BUCKET_S)) {
        (void)snprintf(out.why, sizeof out.why,
                       "the last request was sent %.1f s after the first and one takes %.1f s: the "
                       "run is too short",
                       sums.last_sent_s - sums.begun_s, median_s);
        return out;
    }
    out.from_s = from_s;
    out.to_s = to_s;
    measure_window(&out, tally);
    out.is_found = out.why[0] == '\0';
    return out;
}
