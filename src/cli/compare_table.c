/* SPDX-License-Identifier: Apache-2.0 */
#include "compare_table.h"

#include "base/json.h"
#include "bench/compare.h"
#include "report/figure.h"

#include <math.h>

enum { NAME_COLUMNS = 26 };

static void show(char *out, size_t out_bytes, double value)
{
    /* A dash of one byte: columns are counted in bytes. */
    (void)snprintf(out, out_bytes, "%s", isfinite(value) ? figure_of(value).text : "-");
}

/* A line: figures of A and B, their ratio, and what is said of it. */
static void line(FILE *file, const char *name, double a, double b, double ratio, const char *more)
{
    char texts[3][sizeof((figure *)0)->text];
    show(texts[0], sizeof texts[0], a);
    show(texts[1], sizeof texts[1], b);
    (void)snprintf(texts[2], sizeof texts[2], isfinite(ratio) ? "%.3f" : "-", ratio);
    (void)fprintf(file, "  %-*s %12s %12s %8s%s%s\n", NAME_COLUMNS, name, texts[0], texts[1],
                  texts[2], more[0] != '\0' ? "  " : "", more);
}

static const char *known(const json_t *server, const char *key)
{
    const char *const text = json_string_value(compare_of_server(server, key));
    return text == NULL ? "unknown" : text;
}

static void print_side(FILE *file, const json_t *comparison, const char *key, char letter)
{
    const json_t *const side = json_object_get(comparison, key);
    const json_t *const server = json_object_get(side, "server");
    (void)fprintf(file, "%c  %s: %s, model %s, quantization %s, weights %s, acceptance %s (%s)\n",
                  letter, qn_json_text(side, "path"), qn_json_text(side, "label"),
                  qn_json_text(server, "model"), known(server, "quantization"),
                  known(server, "weights"), known(server, "acceptance"),
                  qn_json_text(side, "date_utc"));
}

static void print_doubts(FILE *file, const json_t *comparison)
{
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(comparison, "differences"), i, item)
    {
        char seen[2][80];
        qn_json_show(seen[0], sizeof seen[0], json_object_get(item, "a"));
        qn_json_show(seen[1], sizeof seen[1], json_object_get(item, "b"));
        (void)fprintf(file, "NOT COMPARABLE, compared all the same: %s: %s is %s and %s\n",
                      qn_json_text(item, "kind"), qn_json_text(item, "field"), seen[0], seen[1]);
    }
    json_array_foreach(json_object_get(comparison, "warnings"), i, item)
    {
        (void)fprintf(file, "Warning: %s\n", json_string_value(item));
    }
}

static void print_throughput(FILE *file, const json_t *run)
{
    static const struct {
        const char *key, *name;
    } rows[] = {{"output_throughput", "output tokens/s"},
                {"total_token_throughput", "all tokens/s"},
                {"request_throughput", "requests/s"},
                {"request_goodput", "good requests/s"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const json_t *const row = json_object_get(json_object_get(run, "throughput"), rows[i].key);
        const json_t *const ratio = json_object_get(row, "ratio");
        const double a = qn_json_number(json_object_get(row, "a"), "value");
        const double b = qn_json_number(json_object_get(row, "b"), "value");
        char more[80] = "";
        if (isfinite(qn_json_number(ratio, "low"))) {
            (void)snprintf(more, sizeof more, "%.3f .. %.3f over the repeats",
                           qn_json_number(ratio, "low"), qn_json_number(ratio, "high"));
        }
        if (isfinite(a) || isfinite(b)) {
            line(file, rows[i].name, a, b, qn_json_number(ratio, "value"), more);
        }
    }
}

static void print_latency(FILE *file, const json_t *run)
{
    static const struct {
        const char *key, *name;
    } rows[] = {{"ttft_ms", "TTFT ms, median"},
                {"tpot_ms", "TPOT ms, median"},
                {"e2el_ms", "E2E ms, median"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const json_t *const row = json_object_get(json_object_get(run, "latency"), rows[i].key);
        const json_t *const ratio = json_object_get(row, "ratio");
        const json_t *const difference = json_object_get(row, "difference");
        char texts[3][sizeof((figure *)0)->text];
        char more[160] = "";
        if (!json_is_object(row)) {
            continue;
        }
        show(texts[0], sizeof texts[0], qn_json_number(difference, "value"));
        show(texts[1], sizeof texts[1], qn_json_number(difference, "low"));
        show(texts[2], sizeof texts[2], qn_json_number(difference, "high"));
        if (isfinite(qn_json_number(ratio, "low"))) {
            (void)snprintf(more, sizeof more, "[%.3f, %.3f]  mean B - A %s ms [%s, %s]",
                           qn_json_number(ratio, "low"), qn_json_number(ratio, "high"), texts[0],
                           texts[1], texts[2]);
        }
        line(file, rows[i].name, qn_json_number(row, "a"), qn_json_number(row, "b"),
             qn_json_number(ratio, "value"), more);
    }
}

static void print_figures(FILE *file, const json_t *run)
{
    static const struct {
        const char *key, *name;
    } rows[] = {{"ttft_p95_ms", "TTFT ms, p95"},
                {"tpot_p95_ms", "TPOT ms, p95"},
                {"hit_rate", "hit rate"},
                {"acceptance_length", "acceptance length"},
                {"joules_per_output_token", "J per output token"},
                {"usd_per_m_output", "$ per M output tokens"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const json_t *const row = json_object_get(json_object_get(run, "figures"), rows[i].key);
        const double a = qn_json_number(row, "a");
        const double b = qn_json_number(row, "b");
        if (isfinite(a) || isfinite(b)) {
            line(file, rows[i].name, a, b, qn_json_number(row, "ratio"),
                 qn_json_text(row, "profile"));
        }
    }
}

static void print_counts(FILE *file, const json_t *run)
{
    const json_t *const a = json_object_get(run, "a");
    const json_t *const b = json_object_get(run, "b");
    const double none = (double)NAN;
    line(file, "success", qn_json_number(a, "success_rate"), qn_json_number(b, "success_rate"),
         none, "");
    line(file, "tokens in, mean", qn_json_number(a, "input_tokens"),
         qn_json_number(b, "input_tokens"), none, "");
    line(file, "tokens out, mean", qn_json_number(a, "output_tokens"),
         qn_json_number(b, "output_tokens"), none, "");
    for (size_t i = 0; i < 2; i++) {
        const char *kind;
        json_t *count;
        json_object_foreach(json_object_get(i == 0 ? a : b, "errors"), kind, count)
        {
            (void)fprintf(file, "  errors of %c: %s %lld\n", "AB"[i], kind,
                          (long long)json_integer_value(count));
        }
    }
}

static void print_run(FILE *file, const json_t *comparison, const json_t *run)
{
    const json_t *const resampled = json_object_get(run, "resampled");
    const double n_a = qn_json_number(json_object_get(run, "a"), "n_repeats");
    const double n_b = qn_json_number(json_object_get(run, "b"), "n_repeats");
    (void)fprintf(file, "\n%s: %g and %g runs\n  %-*s %12s %12s %8s\n", qn_json_text(run, "label"),
                  n_a, n_b, NAME_COLUMNS, "", "A", "B", "B / A");
    print_throughput(file, run);
    print_latency(file, run);
    print_figures(file, run);
    print_counts(file, run);
    const double n_paired = qn_json_number(run, "n_paired");
    (void)fprintf(file,
                  "  %g requests paired, of which %g have prompts and %g answers of as many "
                  "tokens\n",
                  n_paired, qn_json_number(run, "n_same_input"),
                  qn_json_number(run, "n_same_output"));
    if (n_paired > 0) {
        (void)fprintf(file, "  [low, high]: %g %% intervals by bootstrap, %g resamples of %s\n",
                      100 * qn_json_number(comparison, "confidence"),
                      qn_json_number(comparison, "resamples"),
                      json_array_size(resampled) > 1
                          ? "runs and their requests"
                          : "requests; those of one run depend on each other, so that only repeats "
                            "tell how far apart two runs can be");
    }
}

static void print_knee(FILE *file, const json_t *knee)
{
    if (json_is_object(knee)) {
        (void)fprintf(file, "\n%s within %g ms\n", qn_json_text(knee, "metric"),
                      qn_json_number(knee, "limit_ms"));
        line(file, "knee, requests/s", qn_json_number(knee, "a"), qn_json_number(knee, "b"),
             qn_json_number(knee, "ratio"), "");
    }
}

void compare_table(FILE *file, const json_t *comparison)
{
    const json_t *run;
    size_t i;
    print_side(file, comparison, "a", 'A');
    print_side(file, comparison, "b", 'B');
    print_doubts(file, comparison);
    print_knee(file, json_object_get(comparison, "knee"));
    json_array_foreach(json_object_get(comparison, "runs"), i, run)
    {
        print_run(file, comparison, run);
    }
    static const char *const sides[] = {"a", "b"};
    for (size_t k = 0; k < 2; k++) {
        const json_t *label;
        json_array_foreach(json_object_get(json_object_get(comparison, "unmatched"), sides[k]), i,
                           label)
        {
            (void)fprintf(file, "\nOnly in %c: %s\n", "AB"[k], json_string_value(label));
        }
    }
}
