/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_serve.h"

#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIVEN(field) cli_is_given(v, offsetof(bench_serve_values, field))

static qn_status refuse(qn_error *err, const char *option, const char *text, const char *expected)
{
    return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: %.64s, expected %s", option, text, expected);
}

/* ------------------------------------------------------------------------------------- workloads
 */

/* A workload by our name or a dataset by those of vLLM and SGLang, and the lengths it has where
 * none are given. */
typedef struct workload_kind {
    const char *name, *dataset; /* blanks between several */
    bench_kind kind;
    uint32_t n_prefix, n_input, n_output, n_groups, n_turns;
    uint64_t n_prompts; /* 0: what the file has */
    bool needs_file, sends_ids, ignores_eos;
} workload_kind;

static const workload_kind workload_kinds[] = {
    {"wafer", "", BENCH_WAFER, 12000, 8000, 1000, 1, 1, 1000, false, false, true},
    {"single-stream", "", BENCH_SINGLE_STREAM, 0, 10000, 1500, 1, 1, 10, false, false, true},
    {"random", "random", BENCH_RANDOM, 0, 1024, 128, 1, 1, 1000, false, false, true},
    {"", "random-ids", BENCH_RANDOM, 0, 1024, 128, 1, 1, 1000, false, true, true},
    {"prefix", "prefix_repetition", BENCH_PREFIX, 256, 256, 128, 10, 1, 1000, false, false, true},
    {"", "generated-shared-prefix", BENCH_PREFIX, 2048, 128, 256, 64, 1, 1024, false, false, true},
    {"multi-turn", "", BENCH_MULTI_TURN, 0, 512, 128, 1, 4, 1000, false, false, true},
    {"sharegpt", "sharegpt", BENCH_SHAREGPT, 0, 0, 0, 1, 1, 1000, true, false, false},
    {"custom", "custom", BENCH_CUSTOM, 0, 0, 256, 1, 1, 0, true, false, false},
    {"trace", "trace timed_trace mooncake", BENCH_TRACE, 0, 0, 0, 1, 1, 0, true, false, true},
};
enum { N_WORKLOADS = sizeof workload_kinds / sizeof *workload_kinds };

static bool is_word_of(const char *words, const char *word)
{
    const size_t len = strlen(word);
    for (const char *at = words; len > 0 && (at = strstr(at, word)) != NULL; at += len) {
        if ((at == words || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0')) {
            return true;
        }
    }
    return false;
}

static const workload_kind *find_kind(const bench_serve_values *v, qn_error *err)
{
    const char *const name = v->workload != NULL ? v->workload : v->dataset;
    if (v->workload != NULL && v->dataset != NULL) {
        (void)refuse(err, "--dataset-name", "given with --workload", "one of them");
        return NULL;
    }
    for (size_t i = 0; name != NULL && i < N_WORKLOADS; i++) {
        const workload_kind *const kind = &workload_kinds[i];
        if (is_word_of(v->workload != NULL ? kind->name : kind->dataset, name)) {
            return kind;
        }
    }
    if (name == NULL) {
        return &workload_kinds[2]; /* random, as vLLM's */
    }
    (void)(v->workload != NULL
               ? refuse(err, "--workload", name,
                        "wafer, single-stream, random, prefix, multi-turn, sharegpt, custom or "
                        "trace")
               : refuse(err, "--dataset-name", name,
                        "random, random-ids, prefix_repetition, generated-shared-prefix, sharegpt, "
                        "custom or trace"));
    return NULL;
}

static uint32_t or_default(uint64_t given, uint32_t otherwise)
{
    return given > 0 ? (uint32_t)given : otherwise;
}

/* --extra-body with what has options of its own; owned by the caller (free). */
static qn_status join_body(char **out, const bench_serve_values *v, qn_error *err)
{
    json_error_t why = {0};
    json_t *const body = v->extra_body != NULL ? json_loads(v->extra_body, 0, &why) : json_object();
    *out = NULL;
    if (!json_is_object(body)) {
        json_decref(body);
        return refuse(err, "--extra-body", v->extra_body, "a JSON object");
    }
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"temperature", v->temperature}, {"top_p", v->top_p}, {"min_p", v->min_p}};
    int failed = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        failed |= isnan(numbers[i].value)
                      ? 0
                      : json_object_set_new(body, numbers[i].key, json_real(numbers[i].value));
    }
    failed |=
        v->top_k == 0 ? 0 : json_object_set_new(body, "top_k", json_integer((json_int_t)v->top_k));
    const size_t n_members = json_object_size(body);
    *out = failed == 0 && n_members > 0 ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return failed != 0 || (n_members > 0 && *out == NULL)
               ? qn_fail(err, QN_E_NOMEM, 0, __func__, "--extra-body: no memory")
               : QN_OK;
}

static qn_status plan_workload(bench_serve_plan *p, const bench_serve_values *v,
                               const workload_kind *kind, qn_error *err)
{
    bench_options *const o = &p->options;
    o->workload_name = kind->name[0] != '\0' ? kind->name : v->dataset;
    if (kind->needs_file != (v->dataset_path != NULL)) {
        return refuse(err, "--dataset-path", kind->needs_file ? "not given" : v->dataset_path,
                      kind->needs_file ? "the file of this workload"
                                       : "a workload that is read from a file");
    }
    if (v->n_turns > 0 && kind->kind != BENCH_MULTI_TURN) {
        return refuse(err, "--turns", "given", "--workload multi-turn");
    }
    if (v->n_groups > 0 && kind->kind != BENCH_PREFIX) {
        return refuse(err, "--prefix-groups", "given", "--workload prefix");
    }
    if (v->scale != 1.0 && kind->needs_file && kind->kind != BENCH_TRACE) {
        return refuse(err, "--scale", "given", "a workload whose prompts are made");
    }
    const bool is_below = v->range_meaning == BENCH_RANGE_BELOW;
    if (!isnan(v->range_ratio) && !is_below && v->range_ratio >= 1.0) {
        return refuse(err, "--random-range-ratio", "1 or more",
                      "less than 1: L (1 - R) is the shortest; --range-ratio-meaning sglang has 1 "
                      "for exact");
    }
    o->workload = (bench_workload_options){
        .kind = kind->kind,
        .file = v->dataset_path,
        .n_input = or_default(v->n_input, kind->n_input),
        .n_output = or_default(v->n_output, kind->n_output),
        .n_prefix = GIVEN(n_prefix) ? (uint32_t)v->n_prefix : kind->n_prefix,
        .n_groups = or_default(v->n_groups, kind->n_groups),
        .n_turns = or_default(v->n_turns, kind->n_turns),
        .scale = v->scale,
        .range_ratio = !isnan(v->range_ratio) ? v->range_ratio
                       : is_below             ? 1.0
                                              : 0.0,
        .range = (bench_range)v->range_meaning,
        .sends_ids = v->sends_ids || kind->sends_ids,
        .ignores_eos = GIVEN(ignores_eos) ? v->ignores_eos : kind->ignores_eos,
        .seed = v->seed,
        .salt = v->salt,
    };
    o->has_salt = GIVEN(salt);
    const qn_status status = join_body(&p->extra, v, err);
    o->workload.extra = p->extra;
    return status;
}

/* ------------------------------------------------------------------------------------------ load
 */

/* Numbers between commas.  Returns how many; 0 where they are none, or too many. */
static size_t parse_numbers(double *out, size_t n_max, const char *text, double min, double max)
{
    size_t n = 0;
    for (const char *at = text; n < n_max; at++) {
        char *end = NULL;
        out[n] = strtod(at, &end);
        if (end == at || !(out[n] >= min && out[n] <= max) || (*end != ',' && *end != '\0')) {
            return 0;
        }
        n++;
        at = end;
        if (*at == '\0') {
            return n;
        }
    }
    return 0;
}

/* "ttft:5000" or "ttft:p95:5000" */
static qn_status plan_knee(bench_options *o, const char *text, qn_error *err)
{
    static const char expected[] = "ttft:MS or ttft:pNN:MS, such as ttft:5000";
    const char *at = text;
    char *end = NULL;
    if (strncmp(at, "ttft:", 5) != 0) {
        return refuse(err, "--knee", text, expected);
    }
    at += 5;
    if (*at == 'p') {
        o->knee_percent = strtod(at + 1, &end);
        if (end == at + 1 || *end != ':' || !(o->knee_percent >= 1.0 && o->knee_percent < 100.0)) {
            return refuse(err, "--knee", text, expected);
        }
        at = end + 1;
    }
    o->knee_limit_ms = strtod(at, &end);
    if (end == at || *end != '\0' || !(o->knee_limit_ms > 0.0 && o->knee_limit_ms < 1e9)) {
        return refuse(err, "--knee", text, expected);
    }
    o->plan = BENCH_KNEE;
    return QN_OK;
}

/* Pairs that say different things. */
static qn_status check_pairs(const bench_serve_values *v, qn_error *err)
{
    const struct {
        const char *name, *other;
        bool is_given, other_is_given;
    } pairs[] = {
        {"--ramp-concurrency", "--ramp", v->ramp_concurrency != NULL, v->ramp != NULL},
        {"--knee", "--ramp", v->knee != NULL, v->ramp != NULL},
        {"--knee", "--ramp-concurrency", v->knee != NULL, v->ramp_concurrency != NULL},
        {"--knee", "--max-concurrency", v->knee != NULL, v->n_at_once > 0},
        {"--knee", "--repeat", v->knee != NULL, GIVEN(n_repeats)},
        {"--knee", "--sensitivity", v->knee != NULL, v->is_sensitivity},
        {"--sensitivity", "--ramp", v->is_sensitivity, v->ramp != NULL},
        {"--sensitivity", "--ramp-concurrency", v->is_sensitivity, v->ramp_concurrency != NULL},
        {"--sensitivity", "--repeat", v->is_sensitivity, GIVEN(n_repeats)},
        {"--request-rate", "--ramp", GIVEN(rate), v->ramp != NULL},
        {"--request-rate", "--ramp-concurrency", GIVEN(rate), v->ramp_concurrency != NULL},
        {"--max-concurrency", "--ramp-concurrency", v->n_at_once > 0, v->ramp_concurrency != NULL},
        {"--num-prompts", "--duration", v->n_prompts > 0 && v->knee == NULL, v->duration_s > 0.0},
        {"--mtp-off-url", "--mtp-off-body", v->mtp_off_url != NULL, v->mtp_off_body != NULL},
        {"--api-key", "--api-key-file", v->api_key != NULL, v->api_key_file != NULL},
        {"--base-url", "--host", v->base_url != NULL, v->host != NULL},
        {"--base-url", "--port", v->base_url != NULL, GIVEN(port)},
        {"--burstiness", "--arrivals", GIVEN(burstiness), GIVEN(arrivals) && v->arrivals != 2},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (pairs[i].is_given && pairs[i].other_is_given) {
            return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: given with %s, expected one of them",
                           pairs[i].name, pairs[i].other);
        }
    }
    if ((v->mtp_off_url != NULL || v->mtp_off_body != NULL) && !v->is_sensitivity) {
        return refuse(err, v->mtp_off_url != NULL ? "--mtp-off-url" : "--mtp-off-body", "given",
                      "--sensitivity");
    }
    return QN_OK;
}

/* "0.5,1,2" to steps. */
static qn_status plan_ramp(bench_options *o, const bench_serve_values *v, qn_error *err)
{
    double numbers[BENCH_STEPS_MAX];
    const bool is_rates = v->ramp != NULL;
    const char *const text = is_rates ? v->ramp : v->ramp_concurrency;
    o->n_steps = parse_numbers(numbers, BENCH_STEPS_MAX, text, is_rates ? 1e-6 : 1.0,
                               is_rates ? 1e6 : BENCH_AT_ONCE_MAX);
    for (size_t i = 0; i < o->n_steps; i++) {
        if (!is_rates && numbers[i] != floor(numbers[i])) {
            o->n_steps = 0;
            break;
        }
        o->steps[i] = is_rates ? (bench_step){numbers[i], (uint32_t)v->n_at_once}
                               : (bench_step){(double)INFINITY, (uint32_t)numbers[i]};
    }
    o->plan = BENCH_RAMP;
    return o->n_steps > 0 ? QN_OK
                          : refuse(err, is_rates ? "--ramp" : "--ramp-concurrency", text,
                                   is_rates ? "up to 32 rates above 0 between commas"
                                            : "up to 32 whole numbers between commas");
}

/* How long and how many, where that is not said. */
static qn_status plan_length(bench_options *o, const bench_serve_values *v,
                             const workload_kind *kind, qn_error *err)
{
    const bool has_end = v->duration_s > 0.0 || v->n_prompts > 0;
    const bool is_driven = isfinite(o->steps[0].rate) || o->steps[0].n_at_once > 0;
    o->duration_s = v->duration_s;
    o->workload.takes_fewer = v->n_prompts == 0; /* a number that nobody asked for */
    o->workload.n_requests = v->n_prompts > 0        ? v->n_prompts
                             : v->n_per_group > 0    ? v->n_per_group * o->workload.n_groups
                             : v->duration_s > 0.0   ? 0
                             : o->plan == BENCH_KNEE ? 0
                                                     : kind->n_prompts;
    if (kind->kind == BENCH_WAFER && !has_end && v->n_per_group == 0) {
        /* Ten minutes for each rate, which is the method; scaled, it is a rehearsal. */
        o->duration_s = v->scale == 1.0 ? 600.0 : o->plan == BENCH_KNEE ? 0.0 : 60.0;
        o->workload.n_requests = 0;
    }
    if (o->duration_s > 0.0 && o->plan != BENCH_KNEE && !is_driven) {
        return refuse(err, "--duration", "given without a rate",
                      "--request-rate, --max-concurrency or a ramp");
    }
    if (kind->needs_file && (o->duration_s > 0.0 || o->plan == BENCH_KNEE) &&
        kind->kind != BENCH_SHAREGPT) {
        return refuse(err, o->plan == BENCH_KNEE ? "--knee" : "--duration", "given",
                      "a workload that does not end: another than custom and trace");
    }
    return QN_OK;
}

static qn_status plan_load(bench_options *o, const bench_serve_values *v, const workload_kind *kind,
                           qn_error *err)
{
    qn_status status = QN_OK;
    const bool is_idle = isinf(v->rate) && v->n_at_once == 0;
    const bool is_single = kind->kind == BENCH_SINGLE_STREAM && is_idle;
    o->n_steps = 1;
    o->steps[0] = (bench_step){v->rate, is_single ? 1 : (uint32_t)v->n_at_once};
    o->knee_percent = 95.0;
    o->knee_limit_ms = (double)INFINITY;
    if (v->ramp != NULL || v->ramp_concurrency != NULL) {
        status = plan_ramp(o, v, err);
    } else if (v->knee != NULL) {
        status = plan_knee(o, v->knee, err);
    } else if (v->is_sensitivity) {
        o->plan = BENCH_SENSITIVITY;
        if (kind->needs_file || kind->kind == BENCH_MULTI_TURN) {
            return refuse(err, "--sensitivity", "given with this workload",
                          "one whose prompts share a prefix: wafer, random or prefix");
        }
    } else if (kind->kind == BENCH_WAFER && is_idle && v->n_prompts == 0 && v->duration_s <= 0.0) {
        status = plan_knee(o, "ttft:5000", err); /* what the published table is about */
    }
    if (status < 0) {
        return status;
    }
    json_error_t ignored;
    json_t *const off = v->mtp_off_body != NULL ? json_loads(v->mtp_off_body, 0, &ignored) : NULL;
    const bool is_object = json_is_object(off);
    json_decref(off);
    if (v->mtp_off_body != NULL && !is_object) {
        return refuse(err, "--mtp-off-body", v->mtp_off_body, "a JSON object");
    }
    if (GIVEN(burstiness) && isinf(o->steps[0].rate) && o->plan != BENCH_KNEE) {
        return refuse(err, "--burstiness", "given without a rate",
                      "--request-rate, --ramp or --knee");
    }
    o->burstiness = v->arrivals == 1 ? (double)INFINITY : v->burstiness;
    o->n_warmups = v->n_warmups;
    o->n_repeats = (uint32_t)v->n_repeats;
    o->flushes_cache = v->flushes_cache;
    o->mtp_off_body = v->mtp_off_body;
    return plan_length(o, v, kind, err);
}

/* ------------------------------------------------------------------------------------- figures */

static int metric_of(const char *name, size_t len)
{
    for (int i = 0; i < BENCH_N_METRICS; i++) {
        const char *const known = bench_metric_name((bench_metric)i);
        if (strlen(known) == len && memcmp(known, name, len) == 0) {
            return i;
        }
    }
    return -1;
}

static qn_status plan_goodput(bench_options *o, const cli_list *list, qn_error *err)
{
    for (int i = 0; i < BENCH_N_METRICS; i++) {
        o->goodput_ms[i] = (double)NAN;
    }
    for (size_t i = 0; i < list->n_items; i++) {
        const char *const item = list->items[i];
        const size_t len = strcspn(item, ":");
        const int metric = metric_of(item, len);
        char *end = NULL;
        const double limit = item[len] == ':' ? strtod(item + len + 1, &end) : -1.0;
        if (metric < 0 || metric == BENCH_ITL || end == NULL || *end != '\0' || !(limit > 0.0)) {
            return refuse(err, "--goodput", item, "ttft:MS, tpot:MS or e2el:MS");
        }
        o->goodput_ms[metric] = limit;
    }
    return QN_OK;
}

/* Ours are always there; others are added to them. */
static qn_status plan_percentiles(bench_serve_plan *p, const char *text, qn_error *err)
{
    static const double always[] = {50.0, 90.0, 95.0, 99.0};
    bench_options *const o = &p->options;
    memcpy(o->percents, always, sizeof always);
    o->n_percents = sizeof always / sizeof *always;
    p->n_percents = text == NULL ? 0 : parse_numbers(p->percents, 8, text, 0.0, 100.0);
    if (text != NULL && p->n_percents == 0) {
        return refuse(err, "--metric-percentiles", text,
                      "up to 8 numbers in 0 .. 100 between commas");
    }
    for (size_t i = 0; i < p->n_percents; i++) {
        bool is_there = false;
        for (size_t k = 0; k < o->n_percents; k++) {
            is_there |= o->percents[k] == p->percents[i];
        }
        if (!is_there) {
            o->percents[o->n_percents++] = p->percents[i];
        }
    }
    if (text == NULL) {
        memcpy(p->percents, always, sizeof always);
        p->n_percents = sizeof always / sizeof *always;
    }
    bench_sort(o->percents, o->n_percents);
    return QN_OK;
}

static qn_status plan_metrics(bench_serve_plan *p, const char *text, qn_error *err)
{
    for (const char *at = text; *at != '\0'; at += *at == ',' ? 1 : 0) {
        const size_t len = strcspn(at, ",");
        const int metric = metric_of(at, len);
        if (metric < 0 || p->n_metrics == BENCH_METRICS_SHOWN) {
            return refuse(err, "--percentile-metrics", text,
                          "ttft, tpot, itl and e2el between commas, each once");
        }
        p->metrics[p->n_metrics++] = bench_metric_name((bench_metric)metric);
        at += len;
    }
    return QN_OK;
}

static qn_status plan_figures(bench_serve_plan *p, const bench_serve_values *v, qn_error *err)
{
    bench_options *const o = &p->options;
    qn_status status = QN_OK;
    status = plan_goodput(o, &v->goodput, err);
    status = status == QN_OK ? plan_percentiles(p, v->percentiles, err) : status;
    status = status == QN_OK ? plan_metrics(p, v->metrics, err) : status;
    if (status < 0) {
        return status;
    }
    for (size_t i = 0; i < v->notes.n_items; i++) {
        const size_t len = strcspn(v->notes.items[i], "=");
        if (len == 0 || len > 40 || v->notes.items[i][len] == '\0') {
            return refuse(err, "--note", v->notes.items[i], "KEY=TEXT");
        }
    }
    o->notes = v->notes.items;
    o->n_notes = v->notes.n_items;
    const char *const power = v->power != NULL ? v->power : "auto";
    o->watch = (bench_watch_options){
        .metrics_path = v->no_metrics ? NULL : "/metrics",
        .power = strcmp(power, "auto") == 0   ? BENCH_POWER_AUTO
                 : strcmp(power, "none") == 0 ? BENCH_POWER_NONE
                 : strcmp(power, "nvml") == 0 ? BENCH_POWER_NVML
                 : strcmp(power, "rapl") == 0 ? BENCH_POWER_RAPL
                                              : BENCH_POWER_FILE,
    };
    o->watch.power_file = o->watch.power == BENCH_POWER_FILE ? power : NULL;
    if (o->watch.power_file != NULL && access(power, R_OK) != 0) {
        return qn_fail(err, QN_E_NOT_FOUND, errno, __func__,
                       "--power: %.256s: %s, expected auto, none, nvml, rapl or a file", power,
                       strerror(errno));
    }
    o->prices = v->prices;
    o->references = v->references;
    o->accelerator = v->accelerator;
    o->n_accelerators = (uint32_t)v->n_accelerators;
    if (v->n_accelerators > 0 && v->accelerator == NULL) {
        return refuse(err, "--accelerators", "given", "--accelerator NAME with it");
    }
    if (v->n_accelerators == 0 && v->accelerator != NULL) {
        return refuse(err, "--accelerators", "not given", "how many --accelerator means");
    }
    return QN_OK;
}

/* --------------------------------------------------------------------------------------- server */

/* "http://host:port" without a last '/' and "/v1", which people write both ways. */
static qn_status plan_url(char out[BENCH_URL_BYTES], const char *option, const char *text,
                          qn_error *err)
{
    size_t len = strlen(text);
    if (len >= BENCH_URL_BYTES) {
        return refuse(err, option, text, "a shorter one");
    }
    memcpy(out, text, len + 1);
    while (len > 0 && out[len - 1] == '/') {
        out[--len] = '\0';
    }
    if (len > 3 && strcmp(out + len - 3, "/v1") == 0) {
        out[len - 3] = '\0';
    }
    if (strncmp(out, "http://", 7) != 0 && strncmp(out, "https://", 8) != 0) {
        return refuse(err, option, out, "http://HOST:PORT or https://HOST:PORT");
    }
    const char *const authority = strstr(out, "://") + 3;
    if (memchr(authority, '@', strcspn(authority, "/")) != NULL) { /* results would show it */
        return refuse(err, option, "a name or password in it", "these in --header or --api-key");
    }
    return QN_OK;
}

static qn_status plan_urls(bench_serve_plan *p, const bench_serve_values *v, qn_error *err)
{
    char text[BENCH_URL_BYTES];
    (void)snprintf(text, sizeof text, "http://%.900s:%u", v->host != NULL ? v->host : "127.0.0.1",
                   (unsigned)v->port);
    qn_status status =
        plan_url(p->base_url, "--base-url", v->base_url != NULL ? v->base_url : text, err);
    p->options.target.base_url = p->base_url;
    if (status == QN_OK && v->mtp_off_url != NULL) {
        status = plan_url(p->mtp_off_url, "--mtp-off-url", v->mtp_off_url, err);
        p->options.mtp_off_url = p->mtp_off_url;
    }
    return status;
}

/* The first line of the file that is no comment, as serve's --api-key-file has them. */
static qn_status read_key(bench_serve_plan *p, const char *path, qn_error *err)
{
    char *text = NULL;
    size_t len = 0;
    const qn_status status = cli_read_text(&text, &len, path, err);
    if (status < 0) {
        return status;
    }
    const char *at = text;
    while (*at == '#' || *at == '\n' || *at == '\r') {
        at += strcspn(at, "\n");
        at += *at == '\n' ? 1 : 0;
    }
    const size_t n = strcspn(at, "\r\n");
    (void)snprintf(p->key, sizeof p->key, "%.*s", (int)(n < sizeof p->key ? n : 0), at);
    free(text);
    p->options.target.api_key = p->key;
    return p->key[0] != '\0' ? QN_OK
                             : refuse(err, "--api-key-file", path, "a key on a line of its own");
}

static qn_status plan_server(bench_serve_plan *p, const bench_serve_values *v, qn_error *err)
{
    bench_options *const o = &p->options;
    o->api = v->backend == 1 ? BENCH_CHAT : BENCH_COMPLETIONS;
    o->path = v->endpoint != NULL    ? v->endpoint
              : o->api == BENCH_CHAT ? "/v1/chat/completions"
                                     : "/v1/completions";
    o->model = v->model;
    o->tokenizer = v->tokenizer;
    o->target = (bench_target){.api_key = v->api_key,
                               .headers = v->headers.items,
                               .n_headers = v->headers.n_items,
                               .is_insecure = v->is_insecure,
                               .timeout_s = v->timeout_s,
                               .connect_s = fmin(v->timeout_s, 10.0)};
    if (o->path[0] != '/') {
        return refuse(err, "--endpoint", o->path, "a path that begins with /");
    }
    for (size_t i = 0; i < v->headers.n_items; i++) {
        if (strchr(v->headers.items[i], ':') == NULL || v->headers.items[i][0] == ':') {
            return refuse(err, "--header", "no ':' behind a name", "\"NAME: VALUE\"");
        }
    }
    const qn_status status = plan_urls(p, v, err);
    return status == QN_OK && v->api_key_file != NULL ? read_key(p, v->api_key_file, err) : status;
}

qn_status bench_serve_plan_init(bench_serve_plan *plan, const bench_serve_values *values,
                                qn_error *err)
{
    const bench_serve_values *const v = values;
    qn_status status = QN_OK;
    *plan = (bench_serve_plan){0};
    const workload_kind *const kind = find_kind(v, err);
    if (kind == NULL) {
        return err->status;
    }
    status = check_pairs(v, err);
    status = status == QN_OK ? plan_server(plan, v, err) : status;
    status = status == QN_OK ? plan_workload(plan, v, kind, err) : status;
    status = status == QN_OK ? plan_load(&plan->options, v, kind, err) : status;
    status = status == QN_OK ? plan_figures(plan, v, err) : status;
    plan->options.is_detailed = v->is_detailed;
    cli_show_command(plan->command, sizeof plan->command);
    plan->options.command = plan->command;
    return status;
}

void bench_serve_plan_deinit(bench_serve_plan *plan)
{
    free(plan->extra);
    plan->extra = NULL;
}
