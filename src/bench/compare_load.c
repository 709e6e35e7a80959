/* SPDX-License-Identifier: Apache-2.0 */
/* One load that both results have: its repeats, its requests in pairs. */
#include "base/try.h"
#include "compare_parts.h"
#include "put.h"
#include "stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_SIDES = 2,
    N_METRICS = 3,
    LABEL_BYTES = 200,
    PAIRS_MIN = 8, /* drawn again, fewer than these are often all the same ones */
};

/* A run, and its place in the result's "runs". */
typedef struct repeat {
    const json_t *run;
    size_t place;
} repeat;

/* The repeats of one load of one result. */
typedef struct repeats {
    repeat *items;   /* [n] owned */
    double *scratch; /* [n] owned */
    size_t n;
} repeats;

/* Two requests of one id. */
typedef struct pair {
    const compare_request *sides[N_SIDES];
} pair;

typedef struct load {
    const compare_side *sides[N_SIDES];
    repeats repeats[N_SIDES];
    pair *pairs;    /* [n_pairs] owned */
    size_t *begins; /* [n_groups + 1] owned: where the pairs of each repeat begin */
    size_t n_pairs, n_groups;
    double *values[4]; /* [n_pairs] owned: of A, of B, ratios, differences */
    size_t *kept;      /* [n_groups + 1] owned: begins of those that have the metric */
} load;

/* ------------------------------------------------------------------------------------- figures */

static json_t *interval_json(double value, double low, double high)
{
    return json_pack("{so, so, so}", "value", put_real(value), "low", put_real(low), "high",
                     put_real(high));
}

/* A number of a run, such as "metrics.hit_rate"; NaN where it is not there, or is not valid. */
static double run_number(const json_t *run, const char *object, const char *key)
{
    const json_t *const from = object == NULL ? run : json_object_get(run, object);
    return json_is_false(json_object_get(from, "power_valid")) ? (double)NAN
                                                               : qn_json_number(from, key);
}

/* Of the first @p n in scratch. */
static bench_stats stats_of(const repeats *r, size_t n)
{
    bench_sort(r->scratch, n);
    return bench_stats_of(r->scratch, n);
}

/* Median, least and greatest over the repeats that have the figure. */
static bench_stats of_repeats(const repeats *r, const char *object, const char *key)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double value = run_number(r->items[i].run, object, key);
        if (isfinite(value)) {
            r->scratch[n++] = value;
        }
    }
    return stats_of(r, n);
}

static double ratio(double b, double a)
{
    return a > 0 ? b / a : (double)NAN;
}

static json_t *throughput_json(const load *l)
{
    static const char *const keys[] = {"output_throughput", "total_token_throughput",
                                       "request_throughput", "request_goodput"};
    bool failed = false;
    json_t *const out = json_object();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const bench_stats a = of_repeats(&l->repeats[0], NULL, keys[i]);
        const bench_stats b = of_repeats(&l->repeats[1], NULL, keys[i]);
        const bool is_repeated = l->repeats[0].n > 1 || l->repeats[1].n > 1;
        const double none = (double)NAN;
        put(out, keys[i],
            json_pack("{so, so, so}", "a", interval_json(a.median, a.min, a.max), "b",
                      interval_json(b.median, b.min, b.max), "ratio",
                      interval_json(ratio(b.median, a.median),
                                    is_repeated ? ratio(b.min, a.max) : none,
                                    is_repeated ? ratio(b.max, a.min) : none)),
            &failed);
    }
    return put_whole(out, failed);
}

/* What a million output tokens cost under a profile: NaN where a run does not say. */
static double cost_of_run(const json_t *run, const char *name)
{
    const json_t *profile;
    size_t i;
    json_array_foreach(json_object_get(json_object_get(run, "cost"), "profiles"), i, profile)
    {
        if (strcmp(qn_json_text(profile, "name"), name) == 0) {
            return qn_json_number(profile, "usd_per_m_output");
        }
    }
    return (double)NAN;
}

static double cost_of(const repeats *r, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        const double value = cost_of_run(r->items[i].run, name);
        if (isfinite(value)) {
            r->scratch[n++] = value;
        }
    }
    return stats_of(r, n).median;
}

/* Under the first profile that both have. */
static void put_cost(json_t *out, const load *l, bool *failed)
{
    const json_t *profile;
    size_t i;
    json_array_foreach(
        json_object_get(json_object_get(l->repeats[0].items[0].run, "cost"), "profiles"), i,
        profile)
    {
        const char *const name = qn_json_text(profile, "name");
        const double a = cost_of(&l->repeats[0], name);
        const double b = cost_of(&l->repeats[1], name);
        if (isfinite(a) && isfinite(b)) {
            put(out, "usd_per_m_output",
                json_pack("{so, so, so, ss}", "a", put_real(a), "b", put_real(b), "ratio",
                          put_real(ratio(b, a)), "profile", name),
                failed);
            return;
        }
    }
}

static json_t *figures_json(const load *l)
{
    static const struct {
        const char *name, *object, *key;
    } figures[] = {
        {"ttft_p50_ms", NULL, "p50_ttft_ms"},
        {"ttft_p95_ms", NULL, "p95_ttft_ms"},
        {"tpot_p50_ms", NULL, "p50_tpot_ms"},
        {"tpot_p95_ms", NULL, "p95_tpot_ms"},
        {"e2el_p95_ms", NULL, "p95_e2el_ms"},
        {"hit_rate", NULL, "hit_rate"},
        {"acceptance_length", "metrics", "acceptance_length"},
        {"tokens_per_chunk", NULL, "tokens_per_chunk"},
        {"joules_per_output_token", "energy", "joules_per_output_token"},
        {"avg_power_w", "energy", "avg_power_w"},
    };
    json_t *const out = json_object();
    bool failed = false;
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        const double a = of_repeats(&l->repeats[0], figures[i].object, figures[i].key).median;
        const double b = of_repeats(&l->repeats[1], figures[i].object, figures[i].key).median;
        put(out, figures[i].name,
            json_pack("{so, so, so}", "a", put_real(a), "b", put_real(b), "ratio",
                      put_real(ratio(b, a))),
            &failed);
    }
    put_cost(out, l, &failed);
    return put_whole(out, failed);
}

/* --------------------------------------------------------------------------------------- sides */

static json_t *count_json(double count)
{
    return isfinite(count) && fabs(count) < 9e15 ? json_integer((json_int_t)count) : json_null();
}

/* Sums of "errors" over the repeats. */
static json_t *errors_json(const repeats *r)
{
    bool failed = false;
    json_t *const out = json_object();
    for (size_t i = 0; i < r->n; i++) {
        const char *kind;
        json_t *count;
        json_object_foreach(json_object_get((json_t *)(uintptr_t)r->items[i].run, "errors"), kind,
                            count)
        {
            const double before = json_number_value(json_object_get(out, kind));
            put(out, kind, count_json(before + json_number_value(count)), &failed);
        }
    }
    return put_whole(out, failed);
}

static double sum_of(const repeats *r, const char *key)
{
    double sum = 0;
    for (size_t i = 0; i < r->n; i++) {
        sum += qn_json_number(r->items[i].run, key);
    }
    return sum;
}

static json_t *side_json(const repeats *r)
{
    const double completed = sum_of(r, "completed");
    const double failed = sum_of(r, "failed");
    return json_pack("{sI, so, so, so, so, so, so, so}", "n_repeats", (json_int_t)r->n,
                     "num_prompts", count_json(sum_of(r, "num_prompts")), "completed",
                     count_json(completed), "failed", count_json(failed), "success_rate",
                     put_real(ratio(completed, completed + failed)), "input_tokens",
                     put_real(ratio(sum_of(r, "total_input_tokens"), completed)), "output_tokens",
                     put_real(ratio(sum_of(r, "total_output_tokens"), completed)), "errors",
                     errors_json(r));
}

static bool find_repeats(repeats *out, const compare_side *side, const json_t *run)
{
    const json_t *const runs = json_object_get(side->result, "runs");
    const size_t n_runs = json_array_size(runs);
    out->items = calloc(n_runs, sizeof *out->items);
    out->scratch = calloc(n_runs, sizeof *out->scratch);
    if (out->items == NULL || out->scratch == NULL) {
        return false;
    }
    for (size_t i = 0; i < n_runs; i++) {
        const json_t *const other = json_array_get(runs, i);
        if (other == run || (compare_takes(side, other) && compare_is_same_load(run, other))) {
            out->items[out->n++] = (repeat){other, i};
        }
    }
    return true;
}

/* --------------------------------------------------------------------------------------- pairs */

/* The first request of a run. */
static size_t find_run(const compare_side *side, size_t run)
{
    size_t low = 0;
    size_t high = side->n_requests;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (side->requests[middle].run < run) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Pairs of one repeat: both are sorted by id. */
static void pair_run(load *l, size_t run_a, size_t run_b)
{
    const compare_side *const a = l->sides[0];
    const compare_side *const b = l->sides[1];
    size_t i = find_run(a, run_a);
    size_t k = find_run(b, run_b);
    while (i < a->n_requests && a->requests[i].run == run_a && k < b->n_requests &&
           b->requests[k].run == run_b) {
        const compare_request *const x = &a->requests[i];
        const compare_request *const y = &b->requests[k];
        if (x->id == y->id && x->is_done && y->is_done) {
            l->pairs[l->n_pairs++] = (pair){{x, y}};
        }
        i += x->id <= y->id ? 1 : 0;
        k += y->id <= x->id ? 1 : 0;
    }
}

/* That of the same number, of several the one at the same place; NULL: there is none. */
static const repeat *find_repeat(const repeats *r, const json_t *run, size_t place)
{
    for (size_t i = 0; i < r->n; i++) {
        const repeat *const item = &r->items[(place + i) % r->n];
        if (compare_is_same(json_object_get(item->run, "repeat"), json_object_get(run, "repeat"))) {
            return item;
        }
    }
    return NULL;
}

static bool pair_all(load *l)
{
    const size_t n_max = l->sides[0]->n_requests; /* each is in one pair at most */
    const size_t n_runs = l->repeats[0].n;
    l->pairs = calloc(n_max + 1, sizeof *l->pairs);
    l->begins = calloc(n_runs + 1, sizeof *l->begins);
    l->kept = calloc(n_runs + 1, sizeof *l->kept);
    bool is_ok = l->pairs != NULL && l->begins != NULL && l->kept != NULL;
    for (size_t i = 0; i < 4; i++) {
        l->values[i] = calloc(n_max + 1, sizeof **l->values);
        is_ok = is_ok && l->values[i] != NULL;
    }
    for (size_t i = 0; i < n_runs && is_ok; i++) {
        const size_t before = l->n_pairs;
        const repeat *const other = find_repeat(&l->repeats[1], l->repeats[0].items[i].run, i);
        if (other != NULL) {
            pair_run(l, l->repeats[0].items[i].place, other->place);
        }
        if (l->n_pairs > before) {
            l->begins[++l->n_groups] = l->n_pairs;
        }
    }
    return is_ok;
}

static double metric_of(const compare_request *request, size_t i_metric)
{
    return i_metric == 0 ? request->ttft_ms : i_metric == 1 ? request->tpot_ms : request->e2el_ms;
}

/* One metric of all pairs that have it; *out is JSON's null where none has. */
static qn_status latency_json(json_t **out, load *l, size_t i_metric,
                              const bootstrap_options *options, qn_error *err)
{
    size_t n = 0;
    size_t n_groups = 0;
    for (size_t g = 0; g < l->n_groups; g++) {
        for (size_t i = l->begins[g]; i < l->begins[g + 1]; i++) {
            const double a = metric_of(l->pairs[i].sides[0], i_metric);
            const double b = metric_of(l->pairs[i].sides[1], i_metric);
            if (a > 0 && b > 0 && isfinite(b / a)) {
                l->values[0][n] = a;
                l->values[1][n] = b;
                l->values[2][n] = b / a;
                l->values[3][n++] = b - a;
            }
        }
        n_groups += n > l->kept[n_groups] ? 1 : 0;
        l->kept[n_groups] = n;
    }
    if (n == 0) {
        *out = json_null();
        return QN_OK;
    }
    bootstrap_interval ratios = {0};
    bootstrap_interval differences = {0};
    bootstrap_interval unused;
    const bootstrap_sample of_ratios = {l->values[2], l->kept, n_groups};
    const bootstrap_sample of_differences = {l->values[3], l->kept, n_groups};
    qn_status status = bootstrap(&ratios, &unused, &of_ratios, options, err);
    if (status == QN_OK) {
        status = bootstrap(&unused, &differences, &of_differences, options, err);
    }
    if (status < 0) {
        return status;
    }
    bench_sort(l->values[0], n);
    bench_sort(l->values[1], n);
    if (n < PAIRS_MIN) {
        ratios.low = ratios.high = differences.low = differences.high = (double)NAN;
    }
    *out = json_pack("{sI, so, so, so, so}", "n", (json_int_t)n, "a",
                     put_real(bench_percentile(l->values[0], n, 50)), "b",
                     put_real(bench_percentile(l->values[1], n, 50)), "ratio",
                     interval_json(ratios.value, ratios.low, ratios.high), "difference",
                     interval_json(differences.value, differences.low, differences.high));
    return *out != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, 0, __func__, "compare: no memory");
}

/* Of the pairs, those with as many tokens of the prompt, and of the answer. */
static void count_same(const load *l, size_t *n_input, size_t *n_output)
{
    for (size_t i = 0; i < l->n_pairs; i++) {
        const compare_request *const a = l->pairs[i].sides[0];
        const compare_request *const b = l->pairs[i].sides[1];
        *n_input += a->n_prompt == b->n_prompt ? 1 : 0;
        *n_output += a->n_output == b->n_output ? 1 : 0;
    }
}

/* ----------------------------------------------------------------------------------------- all */

static void close_load(load *l)
{
    for (size_t i = 0; i < N_SIDES; i++) {
        free(l->repeats[i].items);
        free(l->repeats[i].scratch);
    }
    for (size_t i = 0; i < 4; i++) {
        free(l->values[i]);
    }
    free(l->pairs);
    free(l->begins);
    free(l->kept);
}

static json_t *describe(const load *l, const json_t *run_a, const json_t *run_b)
{
    char labels[N_SIDES][LABEL_BYTES];
    char label[2 * LABEL_BYTES + 16];
    size_t n_input = 0;
    size_t n_output = 0;
    compare_label(labels[0], LABEL_BYTES, run_a);
    compare_label(labels[1], LABEL_BYTES, run_b);
    const bool is_same = compare_is_same_load(run_a, run_b);
    (void)snprintf(label, sizeof label, is_same ? "%s" : "%s (A), %s (B)", labels[0], labels[1]);
    count_same(l, &n_input, &n_output);
    return json_pack(
        "{ss, sO?, sO?, so, so, sI, sI, sI, sI, so, so, so, s{sO?, sO?}}", "label", label,
        "request_rate", is_same ? json_object_get(run_a, "request_rate") : NULL, "max_concurrency",
        is_same ? json_object_get(run_a, "max_concurrency") : NULL, "a", side_json(&l->repeats[0]),
        "b", side_json(&l->repeats[1]), "n_paired", (json_int_t)l->n_pairs, "n_paired_runs",
        (json_int_t)l->n_groups, "n_same_input", (json_int_t)n_input, "n_same_output",
        (json_int_t)n_output, "resampled",
        l->n_groups > 1 ? json_pack("[ss]", "runs", "requests") : json_pack("[s]", "requests"),
        "throughput", throughput_json(l), "figures", figures_json(l), "cdf", "a",
        json_object_get(run_a, "cdf"), "b", json_object_get(run_b, "cdf"));
}

qn_status compare_load(json_t **out, const compare_side *a, const json_t *run_a,
                       const compare_side *b, const json_t *run_b, const bootstrap_options *options,
                       qn_error *err)
{
    static const char *const metrics[N_METRICS] = {"ttft_ms", "tpot_ms", "e2el_ms"};
    load l = {.sides = {a, b}};
    json_t *latency = json_object();
    json_t *run = NULL;
    bool failed = false;
    qn_status status = QN_OK;
    if (find_repeats(&l.repeats[0], a, run_a) && find_repeats(&l.repeats[1], b, run_b) &&
        pair_all(&l)) {
        run = describe(&l, run_a, run_b);
    }
    for (size_t i = 0; i < N_METRICS && run != NULL && status == QN_OK; i++) {
        json_t *metric = NULL;
        status = latency_json(&metric, &l, i, options, err);
        if (status == QN_OK) {
            put(latency, metrics[i], metric, &failed);
        }
    }
    put(run, "latency", latency, &failed);
    close_load(&l);
    if (status == QN_OK && failed) {
        status = qn_fail(err, QN_E_NOMEM, 0, __func__, "compare: no memory");
    }
    if (status < 0) {
        json_decref(run);
        return status;
    }
    *out = run;
    return QN_OK;
}
