/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_serve_table.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

enum { CELL_BYTES = 32 };

static const char *text(const json_t *object, const char *key)
{
    const char *const value = qn_json_text(object, key);
    return value[0] != '\0' ? value : "-";
}

/* A figure, "-" where it is not known. */
static const char *cell(char out[CELL_BYTES], int n_digits, double value)
{
    (void)snprintf(out, CELL_BYTES, isnan(value) ? "-" : "%.*f", n_digits, value);
    return out;
}

static void print_range(FILE *file, const json_t *workload)
{
    const bool is_around = strcmp(text(workload, "range_ratio_meaning"), "around") == 0;
    const double ratio = qn_json_number(workload, "range_ratio");
    if (ratio == (is_around ? 0.0 : 1.0)) {
        (void)fputs("lengths exact", file);
    } else {
        (void)fprintf(file, "range ratio %g: %s", ratio,
                      is_around ? "L (1 - R) to L (1 + R), as vLLM's" : "L R to L, as SGLang's");
    }
}

static void print_head(FILE *file, const json_t *result)
{
    const json_t *const server = json_object_get(result, "server");
    const json_t *const w = json_object_get(result, "workload");
    const json_t *const load = json_object_get(result, "load");
    char rate[CELL_BYTES];
    (void)fprintf(file,
                  "%s, quantization %s, weights %s; %s %s at %s\n"
                  "workload %s, scale %g, %s: ",
                  text(result, "model_id"), text(server, "quantization"), text(server, "weights"),
                  text(server, "engine"), text(server, "version"), text(server, "base_url"),
                  text(w, "name"), qn_json_number(w, "scale"), text(w, "text"));
    if (json_is_string(json_object_get(w, "file"))) {
        (void)fputs("lengths as the file has them", file);
    } else {
        (void)fprintf(file, "%.0f shared and %.0f own tokens in, %.0f out, ",
                      qn_json_number(w, "prefix_tokens"), qn_json_number(w, "input_tokens"),
                      qn_json_number(w, "output_tokens"));
        print_range(file, w);
    }
    (void)fprintf(file, ", hit rate by construction %s\n%s loop, arrivals %s\n\n",
                  cell(rate, 3, qn_json_number(w, "hit_rate")), text(load, "mode"),
                  text(load, "arrivals"));
}

static void print_run(FILE *file, const json_t *run)
{
    char cells[10][CELL_BYTES];
    const json_t *const metrics = json_object_get(run, "metrics");
    const json_t *const cost = json_object_get(run, "cost");
    const json_t *const profile = json_array_get(json_object_get(cost, "profiles"), 0);
    const double hit_rate = qn_json_number(run, "hit_rate");
    (void)fprintf(
        file, "%-32.32s %8s %9s %8s /%8s %7s%% %8s %6s %6s %8s %7s%s\n", text(run, "label"),
        cell(cells[0], 3, qn_json_number(run, "request_throughput")),
        cell(cells[1], 1, qn_json_number(run, "output_throughput")),
        cell(cells[2], 3, qn_json_number(run, "p50_ttft_ms") / 1e3),
        cell(cells[3], 3, qn_json_number(run, "p95_ttft_ms") / 1e3),
        cell(cells[4], 2, qn_json_number(run, "success_rate") * 100.0),
        cell(cells[5], 2, qn_json_number(run, "p50_tpot_ms")),
        cell(cells[6], 3, isnan(hit_rate) ? qn_json_number(metrics, "hit_rate") : hit_rate),
        cell(cells[7], 2, qn_json_number(metrics, "acceptance_length")),
        cell(cells[8], 2,
             qn_json_number(json_object_get(run, "energy"), "joules_per_output_token")),
        cell(cells[9], 2, qn_json_number(profile, "usd_per_m_output")),
        json_is_true(json_object_get(run, "is_valid"))          ? ""
        : json_is_true(json_object_get(run, "cut"))             ? "  did not hold"
        : json_is_true(json_object_get(run, "is_confirmation")) ? "  confirmation, not valid"
                                                                : "  not valid");
}

static void print_runs(FILE *file, const json_t *result)
{
    size_t i = 0;
    json_t *run = NULL;
    (void)fprintf(file, "%-32s %8s %9s %18s %8s %8s %6s %6s %8s %7s\n", "load", "req/s",
                  "out tok/s", "TTFT p50/p95 s", "success", "TPOT ms", "hits", "accept", "J/token",
                  "$/M out");
    json_array_foreach(json_object_get(result, "runs"), i, run)
    {
        print_run(file, run);
    }
}

static void print_latencies(FILE *file, const json_t *run, const char *const *metrics,
                            size_t n_metrics, const double *percents, size_t n_percents)
{
    (void)fprintf(file, "\n%s, ms from the intended start\n%-6s %10s %10s %10s", text(run, "label"),
                  "", "mean", "median", "std");
    for (size_t p = 0; p < n_percents; p++) {
        char head[CELL_BYTES];
        (void)snprintf(head, sizeof head, "p%.6g", percents[p]);
        (void)fprintf(file, " %10s", head);
    }
    (void)fputc('\n', file);
    for (size_t i = 0; i < n_metrics; i++) {
        static const char *const stats[] = {"mean", "median", "std"};
        char key[CELL_BYTES * 2];
        char figure[CELL_BYTES];
        (void)fprintf(file, "%-6s", metrics[i]);
        for (size_t k = 0; k < sizeof stats / sizeof *stats; k++) {
            (void)snprintf(key, sizeof key, "%s_%s_ms", stats[k], metrics[i]);
            (void)fprintf(file, " %10s", cell(figure, 2, qn_json_number(run, key)));
        }
        for (size_t p = 0; p < n_percents; p++) {
            (void)snprintf(key, sizeof key, "p%.6g_%s_ms", percents[p], metrics[i]);
            (void)fprintf(file, " %10s", cell(figure, 2, qn_json_number(run, key)));
        }
        (void)fputc('\n', file);
    }
}

static void print_realized(FILE *file, const json_t *run)
{
    char cells[7][CELL_BYTES];
    const double n = qn_json_number(run, "completed");
    const double n_input = qn_json_number(run, "total_input_tokens");
    const double n_output = qn_json_number(run, "total_output_tokens");
    const json_t *const steady = json_object_get(run, "steady");
    (void)fprintf(file,
                  "\nrealized: %.0f tokens in (%s a request), %s cached, %.0f out (%s a request); "
                  "%.0f of %.0f requests in %s s\n",
                  n_input, cell(cells[0], 1, n_input / n),
                  cell(cells[1], 0, qn_json_number(run, "total_cached_tokens")), n_output,
                  cell(cells[2], 1, n_output / n), n, qn_json_number(run, "num_prompts"),
                  cell(cells[3], 2, qn_json_number(run, "duration")));
    if (!isnan(qn_json_number(run, "request_goodput"))) {
        (void)fprintf(file, "goodput: %.3f requests/s\n", qn_json_number(run, "request_goodput"));
    }
    if (json_is_true(json_object_get(steady, "is_found"))) {
        (void)fprintf(file, "steady from %s to %s s: %s requests/s, %s output tokens/s\n",
                      cell(cells[3], 1, qn_json_number(steady, "from_s")),
                      cell(cells[4], 1, qn_json_number(steady, "to_s")),
                      cell(cells[5], 3, qn_json_number(steady, "request_throughput")),
                      cell(cells[6], 1, qn_json_number(steady, "output_throughput")));
    } else {
        (void)fprintf(file, "no steady window: %s\n", text(steady, "why"));
    }
}

static void print_errors(FILE *file, const json_t *run)
{
    const char *kind = NULL;
    json_t *n = NULL;
    json_object_foreach(json_object_get(run, "errors"), kind, n)
    {
        (void)fprintf(file, "failed: %lld %s, the first: %s\n", (long long)json_integer_value(n),
                      kind, text(json_object_get(run, "error_messages"), kind));
    }
}

static void print_knee(FILE *file, const json_t *knee)
{
    char cells[3][CELL_BYTES];
    if (!json_is_object(knee)) {
        return;
    }
    (void)fprintf(file, "\nknee: %s requests/s with %s <= %s ms%s%s\n",
                  cell(cells[0], 3, qn_json_number(knee, "rate")), text(knee, "metric"),
                  cell(cells[1], 0, qn_json_number(knee, "limit_ms")),
                  json_is_true(json_object_get(knee, "is_found")) ? ", confirmed"
                                                                  : ", NOT confirmed: ",
                  json_is_true(json_object_get(knee, "is_found")) ? "" : text(knee, "why"));
    if (isfinite(qn_json_number(knee, "error"))) {
        (void)fprintf(file, "known within %.1f %%\n", qn_json_number(knee, "error") * 100.0);
    }
}

static void print_spreads(FILE *file, const json_t *result)
{
    size_t i = 0;
    json_t *entry = NULL;
    json_array_foreach(json_object_get(result, "spreads"), i, entry)
    {
        char cells[2][CELL_BYTES];
        (void)fprintf(
            file, "%s, %.0f runs: spread %s of output, %s of TTFT p50\n", text(entry, "label"),
            qn_json_number(entry, "n"),
            cell(cells[0], 3,
                 qn_json_number(json_object_get(entry, "output_throughput"), "spread")),
            cell(cells[1], 3, qn_json_number(json_object_get(entry, "p50_ttft_ms"), "spread")));
    }
}

static void print_list(FILE *file, const char *what, const json_t *list)
{
    size_t i = 0;
    json_t *item = NULL;
    json_array_foreach(list, i, item)
    {
        (void)fprintf(file, "%s: %s\n", what, json_string_value(item));
    }
}

void bench_table_print(FILE *file, const json_t *result, const char *const *metrics,
                       size_t n_metrics, const double *percents, size_t n_percents)
{
    const json_t *const headline = json_object_get(result, "headline");
    const json_t *const run =
        json_array_get(json_object_get(result, "runs"), (size_t)json_integer_value(headline));
    print_head(file, result);
    print_runs(file, result);
    if (json_is_integer(headline)) {
        print_latencies(file, run, metrics, n_metrics, percents, n_percents);
        print_realized(file, run);
        print_errors(file, run);
    }
    print_knee(file, json_object_get(result, "knee"));
    print_spreads(file, result);
    print_list(file, "warning", json_object_get(result, "warnings"));
    print_list(file, "not valid", json_object_get(result, "invalid"));
}
