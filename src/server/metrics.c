/* SPDX-License-Identifier: Apache-2.0 */
#include "server/metrics.h"

#include "base/assert.h"
#include "base/clock.h"
#include "server/backend.h"
#include "server/process.h"
#include "server/prometheus.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum {
    REFUSALS_MAX = 512, /* kinds; more than clients can make, and then there is the last */
    N_FINISHES = QN_FINISH_DEADLINE + 1,
};

/* ----------------------------------------------------------------------------------- histograms */

/* vLLM's names have the buckets of its vllm/v1/metrics/loggers.py; ours have these too, so that one
 * count serves both, and finer ones where small models need them. */
static const prom_bounds ttft_bounds = {{0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                                         0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                                         20.0,  40.0,  80.0, 160.0, 640.0, 2560.0},
                                        22};
static const prom_bounds vllm_token_bounds = {{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4,
                                               0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
                                               80.0},
                                              19};
static const prom_bounds token_bounds = {{0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075,
                                          0.01,   0.015, 0.02,   0.025, 0.035, 0.05,  0.075, 0.1,
                                          0.15,   0.2,   0.3,    0.4,   0.5,   0.75,  1.0,   2.5,
                                          5.0,    7.5,   10.0,   20.0,  40.0,  80.0},
                                         30};
static const prom_bounds vllm_request_bounds = {{0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,
                                                 5.0,  10.0,  15.0,  20.0,  30.0,  40.0,   50.0,
                                                 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0},
                                                21};
static const prom_bounds request_bounds = {{0.001, 0.0025, 0.005, 0.01,   0.025, 0.05, 0.1,  0.2,
                                            0.3,   0.5,    0.8,   1.0,    1.5,   2.0,  2.5,  5.0,
                                            10.0,  15.0,   20.0,  30.0,   40.0,  50.0, 60.0, 120.0,
                                            240.0, 480.0,  960.0, 1920.0, 7680.0},
                                           29};
static const prom_bounds count_bounds = {{1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0,
                                          1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0,
                                          100000.0, 200000.0, 500000.0, 1000000.0},
                                         19};

typedef enum histogram_id {
    HISTOGRAM_TTFT,
    HISTOGRAM_INTER_TOKEN,
    HISTOGRAM_INTER_PIECE,
    HISTOGRAM_REQUEST,
    HISTOGRAM_QUEUE,
    HISTOGRAM_PREFILL,
    HISTOGRAM_DECODE,
    HISTOGRAM_INFERENCE,
    HISTOGRAM_PER_TOKEN,
    HISTOGRAM_PROMPT_TOKENS,
    HISTOGRAM_GENERATION_TOKENS,
    N_HISTOGRAMS,
} histogram_id;

static const struct {
    const char *name;  /* NULL: vLLM's alone */
    const char *alias; /* vLLM's; NULL: ours alone */
    const char *help;
    const prom_bounds *bounds; /* that are counted, and shown of ours */
    const prom_bounds *alias_bounds;
} histograms[N_HISTOGRAMS] = {
    [HISTOGRAM_TTFT] = {"quern_request_ttft_seconds", "vllm:time_to_first_token_seconds",
                        "From a request's first byte to its first token.", &ttft_bounds,
                        &ttft_bounds},
    [HISTOGRAM_INTER_TOKEN] = {"quern_inter_token_seconds", NULL,
                               "Time between tokens; those that came at once share theirs.",
                               &token_bounds, NULL},
    [HISTOGRAM_INTER_PIECE] = {NULL, "vllm:inter_token_latency_seconds",
                               "Time between steps that brought tokens of an answer.",
                               &token_bounds, &vllm_token_bounds},
    [HISTOGRAM_REQUEST] = {"quern_request_seconds", "vllm:e2e_request_latency_seconds",
                           "From a request's first byte to its end.", &request_bounds,
                           &vllm_request_bounds},
    [HISTOGRAM_QUEUE] = {"quern_request_queue_seconds", "vllm:request_queue_time_seconds",
                         "From submit to the step that began it.", &request_bounds,
                         &vllm_request_bounds},
    [HISTOGRAM_PREFILL] = {"quern_request_prefill_seconds", "vllm:request_prefill_time_seconds",
                           "From that step to the first token.", &request_bounds,
                           &vllm_request_bounds},
    [HISTOGRAM_DECODE] = {"quern_request_decode_seconds", "vllm:request_decode_time_seconds",
                          "From the first token to the last.", &request_bounds,
                          &vllm_request_bounds},
    [HISTOGRAM_INFERENCE] = {NULL, "vllm:request_inference_time_seconds",
                             "From the step that began it to the last token.", &request_bounds,
                             &vllm_request_bounds},
    [HISTOGRAM_PER_TOKEN] = {"quern_request_time_per_output_token_seconds",
                             "vllm:request_time_per_output_token_seconds",
                             "Decode time by tokens after the first, of a request.", &token_bounds,
                             &vllm_token_bounds},
    [HISTOGRAM_PROMPT_TOKENS] = {"quern_request_prompt_tokens", "vllm:request_prompt_tokens",
                                 "Tokens of a prompt.", &count_bounds, &count_bounds},
    [HISTOGRAM_GENERATION_TOKENS] = {"quern_request_generation_tokens",
                                     "vllm:request_generation_tokens", "Tokens of an answer.",
                                     &count_bounds, &count_bounds},
};

/* --------------------------------------------------------------------- counters without a label */

typedef enum value_id {
    VALUE_RUNNING,
    VALUE_WAITING,
    VALUE_PAGE_USAGE,
    VALUE_PREFIX_QUERIES,
    VALUE_PREFIX_HITS,
    VALUE_PROMPT_TOKENS,
    VALUE_GENERATION_TOKENS,
    VALUE_REASONING_TOKENS,
    VALUE_BROKEN_FORMATS,
    VALUE_STEPS,
    VALUE_DRAFTS,
    VALUE_DRAFTED,
    VALUE_ACCEPTED,
    VALUE_ACCEPTANCE_LENGTH,
    VALUE_PREEMPTIONS,
    VALUE_RECOMPUTED,
    VALUE_EVICTED,
    VALUE_CONNECTIONS,
    VALUE_READY,
    VALUE_DRAINING,
    VALUE_CPU,
    VALUE_RESIDENT,
    VALUE_VIRTUAL,
    VALUE_DESCRIPTORS,
    VALUE_DESCRIPTORS_MAX,
    VALUE_START,
    N_VALUES,
} value_id;

static const char counter[] = "counter";
static const char gauge[] = "gauge";

static const struct {
    const char *name;
    const char *alias; /* vLLM's; NULL: none */
    const char *type;
    const char *help;
} values[N_VALUES] = {
    [VALUE_RUNNING] = {"quern_requests_running", "vllm:num_requests_running", gauge,
                       "Requests that are computed."},
    [VALUE_WAITING] = {"quern_requests_waiting", "vllm:num_requests_waiting", gauge,
                       "Requests in the queue."},
    [VALUE_PAGE_USAGE] = {"quern_page_usage_ratio", "vllm:kv_cache_usage_perc", gauge,
                          "Share of the cache's pages that running requests use."},
    [VALUE_PREFIX_QUERIES] = {"quern_prefix_query_tokens_total", "vllm:prefix_cache_queries_total",
                              counter, "Tokens of prompts looked for in the cache."},
    [VALUE_PREFIX_HITS] = {"quern_prefix_hit_tokens_total", "vllm:prefix_cache_hits_total", counter,
                           "Of them: found there."},
    [VALUE_PROMPT_TOKENS] = {"quern_prompt_tokens_total", "vllm:prompt_tokens_total", counter,
                             "Tokens of prompts, those found in the cache too."},
    [VALUE_GENERATION_TOKENS] = {"quern_generation_tokens_total", "vllm:generation_tokens_total",
                                 counter, "Tokens drawn."},
    [VALUE_REASONING_TOKENS] = {"quern_reasoning_tokens_total", NULL, counter,
                                "Of them: reasoning, counted when the request ends."},
    [VALUE_BROKEN_FORMATS] = {"quern_broken_formats_total", NULL, counter,
                              "Times that the model broke its format, as of a tool call."},
    [VALUE_STEPS] = {"quern_engine_steps_total", NULL, counter, "Steps of the engine."},
    [VALUE_DRAFTS] = {"quern_drafts_total", "vllm:spec_decode_num_drafts_total", counter,
                      "Times that drafts of a sequence were verified."},
    [VALUE_DRAFTED] = {"quern_drafted_tokens_total", "vllm:spec_decode_num_draft_tokens_total",
                       counter, "Tokens drafted."},
    [VALUE_ACCEPTED] = {"quern_accepted_tokens_total", "vllm:spec_decode_num_accepted_tokens_total",
                        counter, "Of them: emitted."},
    [VALUE_ACCEPTANCE_LENGTH] = {"quern_acceptance_length", NULL, gauge,
                                 "Tokens emitted by verification since the start, the one that "
                                 "is always emitted included."},
    [VALUE_PREEMPTIONS] = {"quern_preemptions_total", "vllm:num_preemptions_total", counter,
                           "Times that a request gave its pages back to others."},
    [VALUE_RECOMPUTED] = {"quern_recomputed_tokens_total", NULL, counter,
                          "Tokens computed again after that."},
    [VALUE_EVICTED] = {"quern_evicted_pages_total", NULL, counter, "Cached pages that had to go."},
    [VALUE_CONNECTIONS] = {"quern_connections", NULL, gauge, "Open connections."},
    [VALUE_READY] = {"quern_ready", NULL, gauge, "1 once the model is loaded and has answered."},
    [VALUE_DRAINING] = {"quern_draining", NULL, gauge, "1 while the server finishes its work."},
    [VALUE_CPU] = {"process_cpu_seconds_total", NULL, counter, "CPU time, user and system."},
    [VALUE_RESIDENT] = {"process_resident_memory_bytes", NULL, gauge, "Resident memory."},
    [VALUE_VIRTUAL] = {"process_virtual_memory_bytes", NULL, gauge, "Mapped memory."},
    [VALUE_DESCRIPTORS] = {"process_open_fds", NULL, gauge, "Open file descriptors."},
    [VALUE_DESCRIPTORS_MAX] = {"process_max_fds", NULL, gauge, "Most of them allowed."},
    [VALUE_START] = {"process_start_time_seconds", NULL, gauge,
                     "When the server began, in seconds since 1970."},
};

/* A kind of refusal. */
typedef struct refusal {
    const char *endpoint; /* static */
    int status_code;
    const char *code; /* static */
    uint64_t n;
} refusal;

struct server_metrics {
    prom_histogram histograms[N_HISTOGRAMS];
    uint64_t n_ended[N_FINISHES];
    uint64_t n_reasoning_tokens;
    refusal refusals[REFUSALS_MAX];
    size_t n_refusals;
    uint64_t n_lost[METRICS_N_LOSSES];
    uint64_t n_broken_formats;
    double start_s;
};

qn_status metrics_open(server_metrics **out, qn_error *err)
{
    server_metrics *const metrics = calloc(1, sizeof *metrics);
    *out = metrics;
    if (metrics == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "metrics: no memory");
    }
    metrics->start_s = (double)qn_clock_wall_ns() * 1e-9;
    return QN_OK;
}

void metrics_close(server_metrics **metrics)
{
    free(*metrics);
    *metrics = NULL;
}

/* ------------------------------------------------------------------------------------- counting */

static void observe(server_metrics *metrics, histogram_id id, double value, uint64_t n_times)
{
    prom_observe(&metrics->histograms[id], histograms[id].bounds, value, n_times);
}

void metrics_refused(server_metrics *metrics, const char *endpoint, const server_error *error)
{
    static const refusal other = {.endpoint = "other", .code = "other"};
    const refusal seen = {.endpoint = endpoint != NULL ? endpoint : other.endpoint,
                          .status_code = error->status_code,
                          .code = error->code != NULL ? error->code : ""};
    size_t i = 0;
    for (; i < metrics->n_refusals; i++) {
        const refusal *const r = &metrics->refusals[i];
        if (r->status_code == seen.status_code && strcmp(r->endpoint, seen.endpoint) == 0 &&
            strcmp(r->code, seen.code) == 0) {
            break;
        }
    }
    if (i == metrics->n_refusals && i < REFUSALS_MAX) {
        metrics->refusals[metrics->n_refusals++] = i + 1 < REFUSALS_MAX ? seen : other;
    }
    metrics->refusals[i < REFUSALS_MAX ? i : REFUSALS_MAX - 1].n++;
}

void metrics_lost(server_metrics *metrics, metrics_loss how)
{
    metrics->n_lost[how]++;
}

void metrics_broken_format(server_metrics *metrics)
{
    metrics->n_broken_formats++;
}

void metrics_tokens(server_metrics *metrics, double gap_s, uint32_t n_tokens)
{
    if (n_tokens > 0) {
        observe(metrics, HISTOGRAM_INTER_TOKEN, gap_s / n_tokens, n_tokens);
        observe(metrics, HISTOGRAM_INTER_PIECE, gap_s, 1);
    }
}

void metrics_first_token(server_metrics *metrics, double seconds)
{
    observe(metrics, HISTOGRAM_TTFT, seconds, 1);
}

void metrics_ended(server_metrics *metrics, qn_finish finish, const qn_session_stats *stats,
                   double seconds)
{
    metrics->n_ended[finish]++;
    metrics->n_reasoning_tokens += stats->n_reasoning_tokens;
    if (finish != QN_FINISH_STOP && finish != QN_FINISH_LENGTH && finish != QN_FINISH_TOOL_CALLS) {
        return; /* what was cut off says nothing about how long answers take */
    }
    observe(metrics, HISTOGRAM_REQUEST, seconds, 1);
    observe(metrics, HISTOGRAM_QUEUE, stats->queue_s, 1);
    observe(metrics, HISTOGRAM_PREFILL, stats->prefill_s, 1);
    observe(metrics, HISTOGRAM_DECODE, stats->decode_s, 1);
    observe(metrics, HISTOGRAM_INFERENCE, stats->prefill_s + stats->decode_s, 1);
    observe(metrics, HISTOGRAM_PROMPT_TOKENS, (double)stats->n_prompt_tokens, 1);
    observe(metrics, HISTOGRAM_GENERATION_TOKENS, (double)stats->n_generated_tokens, 1);
    if (stats->n_generated_tokens > 1) {
        observe(metrics, HISTOGRAM_PER_TOKEN,
                stats->decode_s / (double)(stats->n_generated_tokens - 1), 1);
    }
}

/* ----------------------------------------------------------------------------------- the values */

static double ratio(uint64_t part, uint64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : 0.0;
}

static void fill_engine(double out[N_VALUES], const qn_engine_stats *e)
{
    out[VALUE_RUNNING] = e->n_running;
    out[VALUE_WAITING] = e->n_waiting;
    out[VALUE_PAGE_USAGE] =
        ratio(e->n_pages_used, e->n_pages_free + e->n_pages_used + e->n_pages_cached);
    out[VALUE_PREFIX_QUERIES] = out[VALUE_PROMPT_TOKENS] = (double)e->n_prompt_tokens;
    out[VALUE_PREFIX_HITS] = (double)e->n_cached_tokens;
    out[VALUE_GENERATION_TOKENS] = (double)e->n_generated_tokens;
    out[VALUE_STEPS] = (double)e->n_steps;
    out[VALUE_DRAFTS] = (double)e->n_verifications;
    out[VALUE_DRAFTED] = (double)e->n_drafted;
    out[VALUE_ACCEPTED] = (double)e->n_accepted;
    out[VALUE_ACCEPTANCE_LENGTH] =
        e->n_verifications > 0 ? 1.0 + ratio(e->n_accepted, e->n_verifications) : (double)NAN;
    out[VALUE_PREEMPTIONS] = (double)e->n_preempted;
    out[VALUE_RECOMPUTED] = (double)e->n_recomputed_tokens;
    out[VALUE_EVICTED] = (double)e->n_evicted;
}

static void fill(double out[N_VALUES], const server_metrics *metrics, const metrics_now *now)
{
    const process_use use = process_get_use();
    fill_engine(out, &now->engine);
    out[VALUE_REASONING_TOKENS] = (double)metrics->n_reasoning_tokens;
    out[VALUE_BROKEN_FORMATS] = (double)metrics->n_broken_formats;
    out[VALUE_CONNECTIONS] = now->n_connections;
    out[VALUE_READY] = now->is_ready ? 1.0 : 0.0;
    out[VALUE_DRAINING] = now->is_draining ? 1.0 : 0.0;
    out[VALUE_CPU] = use.cpu_s;
    out[VALUE_RESIDENT] = use.resident_bytes;
    out[VALUE_VIRTUAL] = use.virtual_bytes;
    out[VALUE_DESCRIPTORS] = use.n_descriptors;
    out[VALUE_DESCRIPTORS_MAX] = use.n_descriptors_max;
    out[VALUE_START] = metrics->start_s;
}

/* ------------------------------------------------------------------------------------- the page */

/* vLLM's labels. */
typedef struct alias_labels {
    prom_label labels[4]; /* model_name, engine, one more, the end */
} alias_labels;

static alias_labels alias_labels_of(const metrics_now *now)
{
    return (alias_labels){{{"model_name", now->name != NULL ? now->name : ""}, {"engine", "0"}}};
}

static void append_values(server_writer *page, const server_metrics *metrics,
                          const metrics_now *now)
{
    const alias_labels alias = alias_labels_of(now);
    double all[N_VALUES];
    fill(all, metrics, now);
    for (size_t i = 0; i < N_VALUES; i++) {
        if (isnan(all[i])) {
            continue; /* nobody knows it: no sample is better than a false one */
        }
        prom_family(page, values[i].name, values[i].type, values[i].help);
        prom_sample(page, values[i].name, "", NULL, all[i]);
        if (values[i].alias != NULL) {
            prom_family(page, values[i].alias, values[i].type, values[i].help);
            prom_sample(page, values[i].alias, "", alias.labels, all[i]);
        }
    }
}

static void append_histograms(server_writer *page, const server_metrics *metrics,
                              const metrics_now *now)
{
    const alias_labels alias = alias_labels_of(now);
    for (size_t i = 0; i < N_HISTOGRAMS; i++) {
        const prom_histogram *const counts = &metrics->histograms[i];
        const prom_bounds *const bounds = histograms[i].bounds;
        if (histograms[i].name != NULL) {
            prom_family(page, histograms[i].name, "histogram", histograms[i].help);
            prom_histogram_samples(page, histograms[i].name, NULL, counts, bounds, bounds);
        }
        if (histograms[i].alias != NULL) {
            prom_family(page, histograms[i].alias, "histogram", histograms[i].help);
            prom_histogram_samples(page, histograms[i].alias, alias.labels, counts, bounds,
                                   histograms[i].alias_bounds);
        }
    }
}

static void append_ends(server_writer *page, const server_metrics *metrics, const metrics_now *now)
{
    static const char name[] = "quern_requests_ended_total";
    prom_family(page, name, counter, "Answers that ended, by how.");
    for (int i = 0; i < N_FINISHES; i++) {
        const prom_label labels[] = {{"finish", qn_finish_name((qn_finish)i)}, {NULL, NULL}};
        prom_sample(page, name, "", labels, (double)metrics->n_ended[i]);
    }
    /* vLLM has four reasons: a tool call stops an answer, a deadline aborts it. */
    const uint64_t *const n = metrics->n_ended;
    const struct {
        const char *reason;
        uint64_t n;
    } reasons[] = {
        {"stop", n[QN_FINISH_STOP] + n[QN_FINISH_TOOL_CALLS]},
        {"length", n[QN_FINISH_LENGTH]},
        {"abort", n[QN_FINISH_ABORT] + n[QN_FINISH_DEADLINE]},
        {"error", n[QN_FINISH_ERROR]},
    };
    prom_family(page, "vllm:request_success_total", counter, "Answers that ended, by how.");
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        alias_labels alias = alias_labels_of(now);
        alias.labels[2] = (prom_label){"finished_reason", reasons[i].reason};
        prom_sample(page, "vllm:request_success_total", "", alias.labels, (double)reasons[i].n);
    }
}

static void append_refusals(server_writer *page, const server_metrics *metrics)
{
    static const char refused[] = "quern_requests_refused_total";
    static const char lost[] = "quern_clients_lost_total";
    static const char *const losses[METRICS_N_LOSSES] = {
        [METRICS_DISCONNECTED] = "disconnected",
        [METRICS_SLOW_READER] = "slow_reader",
    };
    prom_family(page, refused, counter, "Requests refused, by endpoint, status and code.");
    for (size_t i = 0; i < metrics->n_refusals; i++) {
        const refusal *const r = &metrics->refusals[i];
        char status[16];
        (void)snprintf(status, sizeof status, "%d", r->status_code);
        const prom_label labels[] = {
            {"endpoint", r->endpoint}, {"status", status}, {"code", r->code}, {NULL, NULL}};
        prom_sample(page, refused, "", labels, (double)r->n);
    }
    prom_family(page, lost, counter, "Clients that left, or were dropped, before their answer.");
    for (size_t i = 0; i < METRICS_N_LOSSES; i++) {
        const prom_label labels[] = {{"reason", losses[i]}, {NULL, NULL}};
        prom_sample(page, lost, "", labels, (double)metrics->n_lost[i]);
    }
}

static void append_pages(server_writer *page, const qn_engine_stats *engine)
{
    static const char name[] = "quern_pages";
    const struct {
        const char *state;
        uint64_t n;
    } states[] = {{"free", engine->n_pages_free},
                  {"used", engine->n_pages_used},
                  {"cached", engine->n_pages_cached}};
    prom_family(page, name, gauge, "Pages of the cache, by what they are for.");
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        const prom_label labels[] = {{"state", states[i].state}, {NULL, NULL}};
        prom_sample(page, name, "", labels, (double)states[i].n);
    }
}

/* Passes that are graphs; where none is, as on a CPU, the family is left out. */
static void append_launches(server_writer *page, const qn_engine_stats *engine)
{
    static const char name[] = "quern_graph_launches";
    const struct {
        const char *pass;
        uint32_t n;
    } passes[] = {{"trunk", engine->n_trunk_launches},
                  {"draft", engine->n_draft_launches},
                  {"follow", engine->n_follow_launches}};
    bool is_begun = false;
    for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++) {
        const prom_label labels[] = {{"pass", passes[i].pass}, {NULL, NULL}};
        if (passes[i].n == 0) {
            continue;
        }
        if (!is_begun) {
            prom_family(page, name, gauge, "Kernels, copies and fills of a pass on a GPU.");
            is_begun = true;
        }
        prom_sample(page, name, "", labels, (double)passes[i].n);
    }
}

/* Acceptance by position; where nothing was ever drafted the families are left out. */
static void append_positions(server_writer *page, const metrics_now *now)
{
    static const char *const names[] = {"quern_accepted_tokens_per_position_total",
                                        "vllm:spec_decode_num_accepted_tokens_per_pos_total"};
    for (size_t i = 0; now->engine.n_verifications > 0 && i < 2; i++) {
        prom_family(page, names[i], counter, "Drafts that were emitted, by their place from 0.");
        for (int place = 0; place < QN_DRAFT_TOKENS_MAX; place++) {
            char digits[16];
            (void)snprintf(digits, sizeof digits, "%d", place);
            const prom_label position = {"position", digits};
            const prom_label ours[] = {position, {NULL, NULL}};
            alias_labels alias = alias_labels_of(now);
            alias.labels[2] = position;
            prom_sample(page, names[i], "", i == 0 ? ours : alias.labels,
                        (double)now->engine.n_accepted_at[place]);
        }
    }
}

static void append_kernels(server_writer *page, const qn_model *model)
{
    qn_kernel_choice *choices = NULL;
    size_t n = 0;
    const qn_status status = server_list_kernels(&choices, &n, model, page->err);
    if (status < 0) {
        page->status = status;
        return;
    }
    if (n > 0) {
        prom_family(page, "quern_kernel_info", gauge, "1 for each kernel chosen for a shape.");
    }
    for (size_t i = 0; i < n; i++) {
        const qn_kernel_choice *const k = &choices[i];
        char in[16];
        char out[16];
        char groups[16];
        char rows[16] = "";
        (void)snprintf(in, sizeof in, "%u", k->n_in);
        (void)snprintf(out, sizeof out, "%u", k->n_out);
        (void)snprintf(groups, sizeof groups, "%u", k->n_groups);
        if (k->n_rows > 0 && k->n_rows < UINT32_MAX) {
            (void)snprintf(rows, sizeof rows, "%u", k->n_rows);
        }
        const prom_label labels[] = {{"operation", k->operation},
                                     {"weights", k->weights},
                                     {"variant", k->variant},
                                     {"source", k->source},
                                     {"in", in},
                                     {"out", out},
                                     {"groups", groups},
                                     {"pair", k->is_pair ? "1" : "0"},
                                     {"rows_max", rows},
                                     {NULL, NULL}};
        prom_sample(page, "quern_kernel_info", "", labels, 1.0);
    }
    free(choices);
}

/* What never changes: an info, a gauge of 1 whose labels tell. */
static void append_info(server_writer *page, const char *name, const char *help,
                        const prom_label *labels)
{
    prom_family(page, name, gauge, help);
    prom_sample(page, name, "", labels, 1.0);
}

static void append_model(server_writer *page, const metrics_now *now)
{
    const qn_model_info *const info = qn_model_get_info(now->model);
    const qn_engine_stats *const e = &now->engine;
    char n_pages[32];
    char page_tokens[16];
    (void)snprintf(n_pages, sizeof n_pages, "%" PRIu64,
                   e->n_pages_free + e->n_pages_used + e->n_pages_cached);
    (void)snprintf(page_tokens, sizeof page_tokens, "%u", e->page_tokens);
    const prom_label model[] = {{"name", now->name != NULL ? now->name : ""},
                                {"architecture", info->architecture},
                                {"quantization", info->quantization},
                                {"weights", info->weights},
                                {"device", info->device},
                                {"kernels", info->kernels},
                                {"compute", info->compute},
                                {"kv_dtype", info->kv_dtype},
                                {"chat_format", info->chat_format},
                                {NULL, NULL}};
    const prom_label cache[] = {{"block_size", page_tokens},
                                {"cache_dtype", info->kv_dtype},
                                {"num_gpu_blocks", n_pages},
                                {"engine", "0"},
                                {NULL, NULL}};
    append_info(page, "quern_model_info", "The model.", model);
    append_info(page, "vllm:cache_config_info", "The cache: pages and their tokens.", cache);
    append_kernels(page, now->model);
}

qn_status metrics_append(qn_buf *out, const server_metrics *metrics, const metrics_now *now,
                         qn_error *err)
{
    const size_t len_before = out->len;
    server_writer page = {.out = out, .err = err};
    const qn_build *const build = qn_build_get();
    const prom_label labels[] = {{"version", build->version},
                                 {"commit", build->commit},
                                 {"compiler", build->compiler},
                                 {"kernels", build->kernels},
                                 {NULL, NULL}};
    append_values(&page, metrics, now);
    append_pages(&page, &now->engine);
    append_launches(&page, &now->engine);
    append_positions(&page, now);
    append_histograms(&page, metrics, now);
    append_ends(&page, metrics, now);
    append_refusals(&page, metrics);
    append_info(&page, "quern_build_info", "What the program was built from.", labels);
    if (now->model != NULL) {
        append_model(&page, now);
    }
    if (page.status < 0 && out->ptr != NULL) {
        out->len = len_before;
        out->ptr[len_before] = '\0';
    }
    return page.status;
}
