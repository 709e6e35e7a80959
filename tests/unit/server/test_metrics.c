/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"
#include "server/metrics.h"
#include "support/fail_each.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdio.h>

enum { FAMILIES_MAX = 128, SAMPLES_MAX = 2000, NAME_BYTES = 96, LABELS_BYTES = 512 };

/* ------------------------------------------------------- a strict reader of the text format */

typedef struct sample {
    size_t i_family;
    char name[NAME_BYTES];
    char labels[LABELS_BYTES]; /* as written, without le and braces */
    double bound;              /* of le; NaN: none */
    double value;
} sample;

typedef struct family {
    char name[NAME_BYTES];
    char type[16];
    size_t n_samples;
} family;

/* A page, read. */
static struct {
    family families[FAMILIES_MAX];
    sample samples[SAMPLES_MAX];
    size_t n_families, n_samples;
} page;

static bool is_name(const char *name, size_t len, bool is_label)
{
    for (size_t i = 0; i < len; i++) {
        const char c = name[i];
        const bool is_letter = isalpha((unsigned char)c) || c == '_' || (c == ':' && !is_label);
        if (!is_letter && (i == 0 || !isdigit((unsigned char)c))) {
            return false;
        }
    }
    return len > 0;
}

/* A word up to @p end, which has to come; copied. */
static const char *take_word(char *out, size_t out_bytes, const char *at, char end)
{
    const char *const stop = strchr(at, end);
    assert_non_null(stop);
    const size_t len = (size_t)(stop - at);
    assert_true(len < out_bytes);
    memcpy(out, at, len);
    out[len] = '\0';
    return stop + 1;
}

static void read_family(const char *line)
{
    family *const f = &page.families[page.n_families++];
    char name[NAME_BYTES];
    assert_true(page.n_families <= FAMILIES_MAX);
    assert_int_equal(strncmp(line, "# HELP ", 7), 0);
    const char *const help = take_word(f->name, sizeof f->name, line + 7, ' ');
    assert_true(is_name(f->name, strlen(f->name), false));
    assert_true(help[0] != '\n' && strcspn(help, "\\\n") == strcspn(help, "\n"));
    const char *const type = strchr(help, '\n') + 1;
    assert_int_equal(strncmp(type, "# TYPE ", 7), 0);
    const char *const word = take_word(name, sizeof name, type + 7, ' ');
    (void)take_word(f->type, sizeof f->type, word, '\n');
    assert_string_equal(name, f->name);
    const size_t len = strlen(f->name);
    const bool is_total = len > 6 && strcmp(f->name + len - 6, "_total") == 0;
    assert_int_equal(is_total, strcmp(f->type, "counter") == 0);
    for (size_t i = 0; i + 1 < page.n_families; i++) { /* once, all samples together */
        assert_string_not_equal(page.families[i].name, f->name);
    }
}

/* The labels of a sample, from behind '{'; returns what follows '}'. */
static const char *read_labels(sample *s, const char *at)
{
    s->labels[0] = '\0';
    for (;;) {
        char name[NAME_BYTES];
        char value[LABELS_BYTES];
        size_t len = 0;
        at = take_word(name, sizeof name, at, '=');
        assert_true(is_name(name, strlen(name), true));
        assert_int_equal(*at++, '"');
        for (; *at != '"'; at++) {
            assert_true(*at != '\n' && len < sizeof value - 2);
            if (*at == '\\') {
                assert_non_null(strchr("\\\"n", at[1]));
                value[len++] = *at++;
            }
            value[len++] = *at;
        }
        value[len] = '\0';
        if (strcmp(name, "le") == 0) {
            char *end = NULL;
            s->bound = strtod(value, &end);
            assert_int_equal(*end, '\0');
        } else {
            const size_t n = strlen(s->labels);
            const int n_more = snprintf(s->labels + n, sizeof s->labels - n, "%s%s=\"%s\"",
                                        n > 0 ? "," : "", name, value);
            assert_true((size_t)n_more < sizeof s->labels - n);
        }
        at++;
        if (*at == '}') {
            return at + 1;
        }
        assert_int_equal(*at++, ',');
    }
}

static void read_sample(const char *line)
{
    sample *const s = &page.samples[page.n_samples++];
    assert_true(page.n_samples <= SAMPLES_MAX && page.n_families > 0);
    *s = (sample){.i_family = page.n_families - 1, .bound = (double)NAN};
    family *const f = &page.families[s->i_family];
    const size_t len = strcspn(line, "{ ");
    assert_true(len < sizeof s->name && is_name(line, len, false));
    memcpy(s->name, line, len);
    const char *at = line[len] == '{' ? read_labels(s, line + len + 1) : line + len;
    assert_int_equal(*at, ' ');
    char *end = NULL;
    s->value = strtod(at + 1, &end);
    assert_int_equal(*end, '\n');
    assert_true(strncmp(at + 1, "null", 4) != 0 && !isnan(s->value));
    assert_true(strcmp(f->type, "gauge") == 0 || s->value >= 0.0);
    const size_t family_len = strlen(f->name);
    const char *const suffix = s->name + family_len;
    assert_int_equal(strncmp(s->name, f->name, family_len), 0);
    const bool is_histogram = strcmp(f->type, "histogram") == 0;
    assert_true(is_histogram ? strcmp(suffix, "_bucket") == 0 || strcmp(suffix, "_sum") == 0 ||
                                   strcmp(suffix, "_count") == 0
                             : *suffix == '\0');
    assert_int_equal(!isnan(s->bound), strcmp(suffix, "_bucket") == 0);
    for (size_t i = 0; i + 1 < page.n_samples; i++) { /* no series twice */
        const sample *const other = &page.samples[i];
        assert_false(strcmp(other->name, s->name) == 0 && strcmp(other->labels, s->labels) == 0 &&
                     (isnan(s->bound) || other->bound == s->bound));
    }
    f->n_samples++;
}

/* Buckets rise, their counts too, and the last of them is +Inf and the count. */
static void check_buckets(void)
{
    for (size_t i = 0; i < page.n_samples; i++) {
        const sample *const s = &page.samples[i];
        const sample *const next = s + 1;
        if (isnan(s->bound)) {
            continue;
        }
        if (isinf(s->bound)) {
            assert_true(i + 2 < page.n_samples);
            assert_non_null(strstr(next->name, "_sum"));
            assert_non_null(strstr(next[1].name, "_count"));
            assert_true(next[1].value == s->value);
        } else {
            assert_true(next->bound > s->bound && next->value >= s->value);
            assert_string_equal(next->labels, s->labels);
        }
    }
}

static void read_page(const qn_buf *text)
{
    memset(&page, 0, sizeof page);
    assert_true(text->len > 0 && text->ptr[text->len - 1] == '\n');
    for (const char *line = text->ptr; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (*line != '#') {
            read_sample(line);
            continue;
        }
        read_family(line);
        line = strchr(line, '\n') + 1; /* TYPE */
    }
    check_buckets();
}

/* The value of a series; fails where there is none. */
static double value_of(const char *name, const char *labels)
{
    for (size_t i = 0; i < page.n_samples; i++) {
        const sample *const s = &page.samples[i];
        if (strcmp(s->name, name) == 0 && strcmp(s->labels, labels) == 0 && isnan(s->bound)) {
            return s->value;
        }
    }
    fail_msg("%s{%s}: not on the page", name, labels);
    return 0.0;
}

static double bucket_of(const char *name, const char *labels, double bound)
{
    for (size_t i = 0; i < page.n_samples; i++) {
        const sample *const s = &page.samples[i];
        if (strcmp(s->name, name) == 0 && strcmp(s->labels, labels) == 0 && s->bound == bound) {
            return s->value;
        }
    }
    fail_msg("%s: no bucket %g", name, bound);
    return 0.0;
}

static size_t n_series_of(const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < page.n_samples; i++) {
        n += strcmp(page.samples[i].name, name) == 0 ? 1 : 0;
    }
    return n;
}

/* ------------------------------------------------------------------------------------- tests */

static const char vllm[] = "model_name=\"nano\",engine=\"0\"";

static server_metrics *open_metrics(void)
{
    server_metrics *metrics = NULL;
    qn_error err = {0};
    assert_int_equal(metrics_open(&metrics, &err), QN_OK);
    return metrics;
}

static void append(qn_buf *text, const server_metrics *metrics, const metrics_now *now)
{
    qn_error err = {0};
    qn_buf_init(text, 1 << 20);
    assert_int_equal(metrics_append(text, metrics, now, &err), QN_OK);
}

static void read_metrics(const server_metrics *metrics, const metrics_now *now)
{
    qn_buf text;
    append(&text, metrics, now);
    read_page(&text);
    qn_buf_deinit(&text);
}

static void test_fresh_page(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    read_metrics(metrics, &(metrics_now){0});
    assert_true(value_of("quern_ready", "") == 0.0);
    assert_true(value_of("quern_requests_ended_total", "finish=\"tool_calls\"") == 0.0);
    assert_true(value_of("quern_clients_lost_total", "reason=\"disconnected\"") == 0.0);
    assert_true(value_of("quern_clients_lost_total", "reason=\"slow_reader\"") == 0.0);
    assert_true(value_of("vllm:num_requests_running", "model_name=\"\",engine=\"0\"") == 0.0);
    assert_true(value_of("process_resident_memory_bytes", "") > 100000.0);
    assert_true(value_of("process_virtual_memory_bytes", "") >
                value_of("process_resident_memory_bytes", ""));
    assert_true(value_of("process_open_fds", "") >= 3.0);
    assert_true(value_of("process_max_fds", "") >= value_of("process_open_fds", ""));
    assert_true(value_of("process_start_time_seconds", "") > 1.7e9);
    assert_true(value_of("process_cpu_seconds_total", "") >= 0.0);
    for (size_t i = 0; i < page.n_families; i++) { /* nothing of drafts where none was made */
        assert_null(strstr(page.families[i].name, "acceptance_length"));
        assert_null(strstr(page.families[i].name, "per_pos"));
    }
    metrics_close(&metrics);
    assert_null(metrics);
}

static void test_engine_counts(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    const metrics_now now = {
        .engine = {.n_running = 3,
                   .n_waiting = 7,
                   .n_pages_free = 50,
                   .n_pages_used = 30,
                   .n_pages_cached = 20,
                   .n_steps = 11,
                   .n_prompt_tokens = 123456789,
                   .n_cached_tokens = 1000,
                   .n_generated_tokens = 77,
                   .n_drafted = 50,
                   .n_accepted = 30,
                   .n_verifications = 20,
                   .n_accepted_at = {18, 10, 2},
                   .n_preempted = 4,
                   .n_recomputed_tokens = 640,
                   .n_evicted = 5},
        .name = "nano",
        .n_connections = 9,
        .is_ready = true,
        .is_draining = true,
    };
    const struct {
        const char *name, *labels, *alias, *alias_more;
        double value;
    } expected[] = {
        {"quern_requests_running", "", "vllm:num_requests_running", "", 3.0},
        {"quern_requests_waiting", "", "vllm:num_requests_waiting", "", 7.0},
        {"quern_pages", "state=\"free\"", NULL, NULL, 50.0},
        {"quern_pages", "state=\"used\"", NULL, NULL, 30.0},
        {"quern_pages", "state=\"cached\"", NULL, NULL, 20.0},
        {"quern_page_usage_ratio", "", "vllm:kv_cache_usage_perc", "", 0.3},
        {"quern_engine_steps_total", "", NULL, NULL, 11.0},
        {"quern_prefix_query_tokens_total", "", "vllm:prefix_cache_queries_total", "", 123456789.0},
        {"quern_prefix_hit_tokens_total", "", "vllm:prefix_cache_hits_total", "", 1000.0},
        {"quern_prompt_tokens_total", "", "vllm:prompt_tokens_total", "", 123456789.0},
        {"quern_generation_tokens_total", "", "vllm:generation_tokens_total", "", 77.0},
        {"quern_drafts_total", "", "vllm:spec_decode_num_drafts_total", "", 20.0},
        {"quern_drafted_tokens_total", "", "vllm:spec_decode_num_draft_tokens_total", "", 50.0},
        {"quern_accepted_tokens_total", "", "vllm:spec_decode_num_accepted_tokens_total", "", 30.0},
        {"quern_accepted_tokens_per_position_total", "position=\"1\"",
         "vllm:spec_decode_num_accepted_tokens_per_pos_total", ",position=\"1\"", 10.0},
        {"quern_accepted_tokens_per_position_total", "position=\"7\"",
         "vllm:spec_decode_num_accepted_tokens_per_pos_total", ",position=\"7\"", 0.0},
        {"quern_acceptance_length", "", NULL, NULL, 2.5},
        {"quern_preemptions_total", "", "vllm:num_preemptions_total", "", 4.0},
        {"quern_recomputed_tokens_total", "", NULL, NULL, 640.0},
        {"quern_evicted_pages_total", "", NULL, NULL, 5.0},
        {"quern_connections", "", NULL, NULL, 9.0},
        {"quern_ready", "", NULL, NULL, 1.0},
        {"quern_draining", "", NULL, NULL, 1.0},
    };
    read_metrics(metrics, &now);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const double seen = value_of(expected[i].name, expected[i].labels);
        if (seen != expected[i].value) {
            fail_msg("%s: %g, %g expected", expected[i].name, seen, expected[i].value);
        }
        if (expected[i].alias != NULL) {
            char labels[LABELS_BYTES];
            (void)snprintf(labels, sizeof labels, "%s%s", vllm, expected[i].alias_more);
            assert_true(value_of(expected[i].alias, labels) == expected[i].value);
        }
    }
    metrics_close(&metrics);
}

/* Without the MTP layer there is one pass; on a CPU there are none. */
static void test_launches_of_a_gpu(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    metrics_now now = {.engine = {.n_trunk_launches = 1500}, .name = "nano"};
    read_metrics(metrics, &now);
    assert_true(value_of("quern_graph_launches", "pass=\"trunk\"") == 1500.0);
    assert_int_equal(n_series_of("quern_graph_launches"), 1);
    now.engine.n_draft_launches = 20;
    now.engine.n_follow_launches = 9;
    read_metrics(metrics, &now);
    assert_true(value_of("quern_graph_launches", "pass=\"draft\"") == 20.0);
    assert_true(value_of("quern_graph_launches", "pass=\"follow\"") == 9.0);
    now.engine.n_trunk_launches = 0; /* not captured, as for want of memory */
    read_metrics(metrics, &now);
    assert_int_equal(n_series_of("quern_graph_launches"), 2);
    now.engine = (qn_engine_stats){0};
    read_metrics(metrics, &now);
    assert_int_equal(n_series_of("quern_graph_launches"), 0);
    metrics_close(&metrics);
}

static void test_ends_and_times(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    const metrics_now now = {.name = "nano"};
    const qn_session_stats stats = {.n_prompt_tokens = 1500,
                                    .n_generated_tokens = 11,
                                    .n_reasoning_tokens = 6,
                                    .queue_s = 0.25,
                                    .prefill_s = 0.75,
                                    .decode_s = 0.5};
    metrics_ended(metrics, QN_FINISH_STOP, &stats, 1.5);
    metrics_ended(metrics, QN_FINISH_TOOL_CALLS, &stats, 1.5);
    metrics_ended(metrics, QN_FINISH_LENGTH, &stats, 9000.0);
    metrics_ended(metrics, QN_FINISH_ABORT, &stats, 0.1); /* says nothing about times */
    metrics_ended(metrics, QN_FINISH_DEADLINE, &stats, 0.1);
    metrics_ended(metrics, QN_FINISH_ERROR, &(qn_session_stats){0}, 0.1);
    read_metrics(metrics, &now);
    assert_true(value_of("quern_requests_ended_total", "finish=\"stop\"") == 1.0);
    assert_true(value_of("quern_requests_ended_total", "finish=\"deadline\"") == 1.0);
    const struct {
        const char *reason;
        double n;
    } reasons[] = {{"stop", 2.0}, {"length", 1.0}, {"abort", 2.0}, {"error", 1.0}};
    for (size_t i = 0; i < 4; i++) {
        char labels[LABELS_BYTES];
        (void)snprintf(labels, sizeof labels, "%s,finished_reason=\"%s\"", vllm, reasons[i].reason);
        assert_true(value_of("vllm:request_success_total", labels) == reasons[i].n);
    }
    assert_true(value_of("quern_reasoning_tokens_total", "") == 30.0);
    assert_true(value_of("quern_request_seconds_count", "") == 3.0);
    assert_true(value_of("quern_request_seconds_sum", "") == 9003.0);
    assert_true(bucket_of("quern_request_seconds_bucket", "", 1.0) == 0.0);
    assert_true(bucket_of("quern_request_seconds_bucket", "", 1.5) == 2.0); /* at most */
    assert_true(bucket_of("quern_request_seconds_bucket", "", 7680.0) == 2.0);
    assert_true(bucket_of("vllm:e2e_request_latency_seconds_bucket", vllm, 1.5) == 2.0);
    assert_true(bucket_of("vllm:request_queue_time_seconds_bucket", vllm, 0.3) == 3.0);
    assert_true(bucket_of("quern_request_queue_seconds_bucket", "", 0.2) == 0.0);
    assert_true(bucket_of("quern_request_prefill_seconds_bucket", "", 0.5) == 0.0);
    assert_true(bucket_of("quern_request_prefill_seconds_bucket", "", 0.8) == 3.0);
    assert_true(bucket_of("quern_request_decode_seconds_bucket", "", 0.5) == 3.0);
    assert_true(value_of("vllm:request_inference_time_seconds_sum", vllm) == 3.75);
    assert_true(bucket_of("quern_request_time_per_output_token_seconds_bucket", "", 0.05) == 3.0);
    assert_true(bucket_of("quern_request_time_per_output_token_seconds_bucket", "", 0.035) == 0.0);
    assert_true(bucket_of("vllm:request_prompt_tokens_bucket", vllm, 1000.0) == 0.0);
    assert_true(bucket_of("vllm:request_prompt_tokens_bucket", vllm, 2000.0) == 3.0);
    assert_true(value_of("quern_request_generation_tokens_sum", "") == 33.0);
    assert_int_equal(n_series_of("vllm:e2e_request_latency_seconds_bucket"), 22);
    assert_int_equal(n_series_of("vllm:time_to_first_token_seconds_bucket"), 23);
    assert_int_equal(n_series_of("vllm:inter_token_latency_seconds_bucket"), 20);
    assert_int_equal(n_series_of("vllm:request_time_per_output_token_seconds_bucket"), 20);
    metrics_close(&metrics);
}

/* Four tokens at once are four of a quarter of the time, and one step for vLLM. */
static void test_time_between_tokens(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    metrics_first_token(metrics, 0.7);
    metrics_tokens(metrics, 0.04, 4);
    metrics_tokens(metrics, 0.04, 1);
    metrics_tokens(metrics, 5.0, 0); /* no token, nothing to tell */
    metrics_tokens(metrics, (double)NAN, 1);
    read_metrics(metrics, &(metrics_now){.name = "nano"});
    assert_true(value_of("quern_inter_token_seconds_count", "") == 6.0);
    assert_true(fabs(value_of("quern_inter_token_seconds_sum", "") - 0.08) < 1e-12);
    assert_true(bucket_of("quern_inter_token_seconds_bucket", "", 0.01) == 5.0);
    assert_true(bucket_of("quern_inter_token_seconds_bucket", "", 0.05) == 6.0);
    assert_true(value_of("vllm:inter_token_latency_seconds_count", vllm) == 3.0);
    assert_true(bucket_of("vllm:inter_token_latency_seconds_bucket", vllm, 0.025) == 1.0);
    assert_true(bucket_of("vllm:inter_token_latency_seconds_bucket", vllm, 0.05) == 3.0);
    assert_true(value_of("quern_request_ttft_seconds_sum", "") == 0.7);
    assert_true(bucket_of("vllm:time_to_first_token_seconds_bucket", vllm, 0.75) == 1.0);
    metrics_close(&metrics);
}

static void test_refusals_and_losses(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    char code[] = "queue_full"; /* the same word elsewhere is the same code */
    const server_error errors[] = {{.status_code = 429, .code = "queue_full"},
                                   {.status_code = 429, .code = code},
                                   {.status_code = 503, .code = "queue_full"},
                                   {.status_code = 400, .code = NULL}};
    for (size_t i = 0; i < 4; i++) {
        metrics_refused(metrics, "/v1/chat/completions", &errors[i]);
    }
    metrics_refused(metrics, "/v1/messages", &errors[0]);
    metrics_refused(metrics, NULL, &(server_error){.status_code = 404, .code = "not_found"});
    metrics_lost(metrics, METRICS_SLOW_READER);
    metrics_lost(metrics, METRICS_SLOW_READER);
    metrics_lost(metrics, METRICS_DISCONNECTED);
    metrics_broken_format(metrics);
    read_metrics(metrics, &(metrics_now){0});
    static const char name[] = "quern_requests_refused_total";
    assert_true(value_of(name, "endpoint=\"/v1/chat/completions\",status=\"429\","
                               "code=\"queue_full\"") == 2.0);
    assert_true(value_of(name, "endpoint=\"/v1/chat/completions\",status=\"503\","
                               "code=\"queue_full\"") == 1.0);
    assert_true(value_of(name, "endpoint=\"/v1/chat/completions\",status=\"400\",code=\"\"") ==
                1.0);
    assert_true(value_of(name, "endpoint=\"/v1/messages\",status=\"429\",code=\"queue_full\"") ==
                1.0);
    assert_true(value_of(name, "endpoint=\"other\",status=\"404\",code=\"not_found\"") == 1.0);
    assert_true(value_of("quern_clients_lost_total", "reason=\"slow_reader\"") == 2.0);
    assert_true(value_of("quern_clients_lost_total", "reason=\"disconnected\"") == 1.0);
    assert_true(value_of("quern_broken_formats_total", "") == 1.0);
    metrics_close(&metrics);
}

/* However many kinds there are, none is lost. */
static void test_many_kinds_of_refusals(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    for (int i = 0; i < 600; i++) {
        metrics_refused(metrics, "/v1/messages", &(server_error){.status_code = 400 + i});
    }
    metrics_refused(metrics, "/v1/messages", &(server_error){.status_code = 400});
    read_metrics(metrics, &(metrics_now){0});
    static const char name[] = "quern_requests_refused_total";
    assert_int_equal(n_series_of(name), 512);
    assert_true(value_of(name, "endpoint=\"/v1/messages\",status=\"400\",code=\"\"") == 2.0);
    assert_true(value_of(name, "endpoint=\"other\",status=\"0\",code=\"other\"") == 89.0);
    metrics_close(&metrics);
}

/* Whatever the model is called, the page can be read. */
static void test_labels_are_escaped(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    const struct {
        const char *name, *expected;
    } cases[] = {
        {"a\"b\\c\nd", "a\\\"b\\\\c\\nd"},
        {"Modell \xc3\xa4\xf0\x9f\x98\x80", "Modell \xc3\xa4\xf0\x9f\x98\x80"},
        {"\xff half \xe2\x82", "? half ??"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char labels[LABELS_BYTES];
        (void)snprintf(labels, sizeof labels, "model_name=\"%s\",engine=\"0\"", cases[i].expected);
        read_metrics(metrics, &(metrics_now){.name = cases[i].name});
        assert_true(value_of("vllm:num_requests_running", labels) == 0.0);
    }
    metrics_close(&metrics);
}

static void test_model_and_build(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    qn_model *model = NULL;
    qn_error err = {0};
    const qn_model_options options = {.tokenizer_only = true};
    assert_int_equal(qn_model_open(&model, QN_SOURCE_DIR "/models/glm-nano", &options, &err),
                     QN_OK);
    const metrics_now now = {
        .model = model, .name = "nano", .engine = {.n_pages_free = 40, .page_tokens = 64}};
    qn_buf text;
    append(&text, metrics, &now);
    read_page(&text);
    assert_non_null(strstr(text.ptr, "quern_build_info{version=\""));
    assert_non_null(strstr(text.ptr, "quern_model_info{name=\"nano\",architecture=\""
                                     "GlmMoeDsaForCausalLM\",quantization=\""));
    assert_non_null(strstr(text.ptr, "\nvllm:cache_config_info{block_size=\"64\","));
    assert_non_null(strstr(text.ptr, "num_gpu_blocks=\"40\",engine=\"0\"} 1\n"));
    qn_buf_deinit(&text);
    qn_model_close(&model);
    metrics_close(&metrics);
}

/* Every family is in the document, with its labels' names where it has some. */
static void test_every_family_is_documented(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    qn_buf document;
    qn_error err = {0};
    qn_buf_init(&document, 1 << 20);
    assert_int_equal(qn_file_read(&document, QN_SOURCE_DIR "/docs/metrics.md", &err), QN_OK);
    read_metrics(metrics, &(metrics_now){.engine = {.n_verifications = 1}});
    assert_true(page.n_families > 60);
    for (size_t i = 0; i < page.n_families; i++) {
        char quoted[NAME_BYTES + 2];
        (void)snprintf(quoted, sizeof quoted, "`%s", page.families[i].name);
        const char *const at = strstr(document.ptr, quoted);
        if (at == NULL || strchr("`{", at[strlen(quoted)]) == NULL) {
            fail_msg("docs/metrics.md: no %s, each family expected", page.families[i].name);
        }
    }
    qn_buf_deinit(&document);
    metrics_close(&metrics);
}

static qn_status append_a_page(qn_error *err)
{
    server_metrics *metrics = NULL;
    qn_buf text;
    qn_buf_init(&text, 1 << 20);
    qn_status status = metrics_open(&metrics, err);
    if (status == QN_OK) {
        status = metrics_append(&text, metrics, &(metrics_now){.name = "nano"}, err);
        assert_true(status == QN_OK || text.len == 0);
    }
    metrics_close(&metrics);
    qn_buf_deinit(&text);
    return status;
}

static void test_no_memory(void **state)
{
    (void)state;
    fail_each(append_a_page, 1, 8);
}

/* A buffer that is too small keeps what it had. */
static void test_no_room(void **state)
{
    (void)state;
    server_metrics *metrics = open_metrics();
    qn_error err = {0};
    qn_buf text;
    qn_buf_init(&text, 1000);
    assert_int_equal(qn_buf_append(&text, "before", 6, &err), QN_OK);
    assert_int_equal(metrics_append(&text, metrics, &(metrics_now){0}, &err), QN_E_NOMEM);
    assert_string_equal(text.ptr, "before");
    assert_int_equal(text.len, 6);
    qn_buf_deinit(&text);
    metrics_close(&metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh_page),
        cmocka_unit_test(test_engine_counts),
        cmocka_unit_test(test_launches_of_a_gpu),
        cmocka_unit_test(test_ends_and_times),
        cmocka_unit_test(test_time_between_tokens),
        cmocka_unit_test(test_refusals_and_losses),
        cmocka_unit_test(test_many_kinds_of_refusals),
        cmocka_unit_test(test_labels_are_escaped),
        cmocka_unit_test(test_model_and_build),
        cmocka_unit_test(test_every_family_is_documented),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
