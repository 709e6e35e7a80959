/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "bench/machine.h"
#include "bench/metrics.h"
#include "bench/watch.h"
#include "fake_nvml.h"
#include "pages.h"
#include "support/fail_each.h"

#include <math.h>
#include <sched.h>

static const bench_work work = {.n_requests = 10, .n_input = 1000, .n_output = 100};

static double number(const json_t *object, const char *key)
{
    const json_t *const value = json_object_get(object, key);
    if (!json_is_number(value)) {
        fail_msg("%s: no number", key);
    }
    return json_number_value(value);
}

static const char *text(const json_t *object, const char *key)
{
    const char *const value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "null";
}

static void assert_null_at(const json_t *object, const char *key)
{
    assert_true(json_is_null(json_object_get(object, key)));
}

static void assert_near(double seen, double wanted)
{
    if (!(fabs(seen - wanted) <= 1e-9 * fabs(wanted) + 1e-12)) {
        fail_msg("%.12g, expected %.12g", seen, wanted);
    }
}

/* --------------------------------------------------------------------------- metrics of a run */

/* Pages in their order, the first at the begin, the last at the end; NULL: one that did not come.
 */
static json_t *metrics_of(const char *const *texts, size_t n)
{
    static metrics_run run;
    metrics_init(&run);
    for (size_t i = 0; i < n; i++) {
        bench_figures page;
        bench_figures_read(&page, qn_str_of(texts[i] != NULL ? texts[i] : ""));
        metrics_note(&run,
                     i == 0       ? METRICS_BEGIN
                     : i + 1 == n ? METRICS_END
                                  : METRICS_MIDDLE,
                     2.0 * (double)i, texts[i] != NULL ? &page : NULL, "it was away");
    }
    json_t *const made = metrics_json(&run);
    assert_non_null(made);
    return made;
}

enum { TRIES_MAX = 20 };

#define QUERN(hits, queries, generated, drafts, drafted, accepted, first, second)                  \
    "quern_prefix_hit_tokens_total " hits "\nquern_prefix_query_tokens_total " queries             \
    "\nquern_generation_tokens_total " generated "\nquern_drafts_total " drafts                    \
    "\nquern_drafted_tokens_total " drafted "\nquern_accepted_tokens_total " accepted              \
    "\nquern_accepted_tokens_per_position_total{position=\"0\"} " first                            \
    "\nquern_accepted_tokens_per_position_total{position=\"1\"} " second                           \
    "\nquern_accepted_tokens_per_position_total{position=\"2\"} 0\nquern_requests_running 3\n"     \
    "quern_preemptions_total 2\n"

static void test_counters_count_from_begin_to_end(void **state)
{
    (void)state;
    static const char *const pages[] = {
        QUERN("1000", "5000", "100", "10", "20", "5", "4", "1"),
        QUERN("1300", "5500", "140", "15", "30", "9", "6", "2"),
        QUERN("1600", "6000", "200", "30", "60", "25", "16", "9"),
    };
    json_t *const json = metrics_of(pages, 3);
    assert_string_equal(text(json, "engine"), "quern");
    assert_near(number(json, "hit_rate"), 0.6);
    assert_near(number(json, "acceptance_length"), 2);
    assert_near(number(json, "draft_tokens"), 2);
    assert_near(number(json, "preemptions"), 0);
    const json_t *const places = json_object_get(json, "acceptance_per_position");
    assert_int_equal(json_array_size(places), 2); /* as deep as the drafts were */
    assert_near(json_number_value(json_array_get(places, 0)), 0.6);
    assert_near(json_number_value(json_array_get(places, 1)), 0.4);
    assert_null_at(json, "why");
    const json_t *const columns = json_object_get(json, "series");
    const json_t *const rates = json_object_get(columns, "generated_per_s");
    assert_true(json_is_null(json_array_get(rates, 0)));
    assert_near(json_number_value(json_array_get(rates, 1)), 20);
    assert_near(json_number_value(json_array_get(rates, 2)), 30);
    assert_true(json_is_null(json_array_get(json_object_get(columns, "waiting"), 0)));
    assert_near(json_number_value(json_array_get(json_object_get(columns, "running"), 0)), 3);
    json_decref(json);
}

static void test_a_server_that_was_started_again_is_noticed(void **state)
{
    (void)state;
    static const char *const pages[] = {
        QUERN("1000", "5000", "100", "10", "20", "5", "4", "1"),
        QUERN("0", "10", "0", "0", "0", "0", "0", "0"),
        QUERN("1600", "6000", "200", "30", "60", "25", "16", "9"), /* beyond where it began */
    };
    json_t *const json = metrics_of(pages, 3);
    assert_null_at(json, "hit_rate");
    assert_null_at(json, "acceptance_length");
    assert_null_at(json, "generated_tokens");
    assert_non_null(strstr(text(json, "why"), "started again"));
    json_decref(json);
}

static void test_pages_that_did_not_come(void **state)
{
    (void)state;
    static const char *const good = QUERN("1", "2", "3", "0", "0", "0", "0", "0");
    static const char *const never[] = {NULL, NULL, NULL};
    static const char *const no_begin[] = {NULL, good, good};
    static const char *const no_end[] = {good, good, NULL};
    const char *const no_middle[] = {good, NULL, good};
    json_t *json = metrics_of(never, 3);
    assert_string_equal(text(json, "why"), "it was away");
    assert_null_at(json, "engine");
    json_decref(json);
    json = metrics_of(no_begin, 3);
    assert_string_equal(text(json, "why"), "no page at the begin of the run: it was away");
    assert_null_at(json, "generated_tokens");
    json_decref(json);
    json = metrics_of(no_end, 3);
    assert_string_equal(text(json, "why"), "no page at the end of the run: it was away");
    json_decref(json);
    json = metrics_of(no_middle, 3);
    assert_string_equal(text(json, "why"), "1 of 3 pages did not come: it was away");
    assert_near(number(json, "generated_tokens"), 0);
    assert_null_at(json, "hit_rate"); /* nothing was looked for */
    json_decref(json);
}

static void test_families_that_come_with_their_first_count_began_at_zero(void **state)
{
    (void)state;
    static const char *const pages[] = {
        "quern_requests_running 0\n",
        QUERN("60", "100", "3", "10", "20", "15", "9", "6"),
    };
    json_t *const json = metrics_of(pages, 2);
    assert_near(number(json, "acceptance_length"), 2.5);
    assert_near(number(json, "hit_rate"), 0.6);
    json_decref(json);
}

static void test_gauges_stand_in_where_there_are_no_counters(void **state)
{
    (void)state;
    static const char *const pages[] = {
        "sglang:cache_hit_rate 0\nsglang:spec_accept_length 0\n",
        "sglang:cache_hit_rate 0.5\nsglang:spec_accept_length 3\nsglang:spec_num_steps 5\n",
        "sglang:cache_hit_rate 0.7\nsglang:spec_accept_length 4\nsglang:spec_num_steps 5\n",
    };
    json_t *const json = metrics_of(pages, 3);
    assert_near(number(json, "hit_rate"), 0.6);
    assert_near(number(json, "acceptance_length"), 3.5);
    assert_near(number(json, "draft_tokens"), 5);
    assert_non_null(strstr(text(json, "hit_rate_source"), "gauge"));
    assert_non_null(strstr(text(json, "acceptance_length_source"), "gauge"));
    assert_null_at(json, "acceptance_per_position");
    json_decref(json);
}

static qn_status make_metrics(qn_error *err)
{
    static metrics_run run;
    bench_figures page;
    bench_figures_read(&page, qn_str_of(QUERN("60", "100", "3", "10", "20", "15", "9", "6")));
    metrics_init(&run);
    metrics_note(&run, METRICS_BEGIN, 0, &page, "");
    metrics_note(&run, METRICS_END, 1, &page, "");
    json_t *const made = metrics_json(&run);
    json_t *const machine = bench_machine_json();
    const bool is_made = made != NULL && machine != NULL;
    json_decref(made);
    json_decref(machine);
    return is_made ? QN_OK : qn_fail(err, QN_E_NOMEM, 0, __func__, "no memory");
}

static void test_results_survive_failing_allocations(void **state)
{
    (void)state;
    fail_each(make_metrics, 1, 20);
}

/* ----------------------------------------------------------------------------------- the threads
 */

/* Wait until a count is reached, for a minute at most. */
static void await(int (*count)(void *context), void *context, int wanted)
{
    const uint64_t begun_ns = qn_clock_ns();
    while (count(context) < wanted) {
        assert_true(qn_clock_seconds(begun_ns, qn_clock_ns()) < 60);
        (void)sched_yield();
    }
}

static int pages_asked(void *context)
{
    return atomic_load(&((page_server *)context)->n_asked);
}

static int power_reads(void *context)
{
    (void)context;
    return fake_nvml_count("fake_nvml_read_count");
}

/* A machine that was busy for 3 s makes a run's energy invalid, and says so. */
static bool is_sound(const json_t *energy)
{
    if (json_is_true(json_object_get(energy, "power_valid"))) {
        return true;
    }
    assert_non_null(strstr(text(energy, "why"), "no sample for"));
    return false;
}

/* One run: the begin, some pages and readings, the end.  *energy is owned by the caller. */
static void watch_run(bench_watch *watch, page_server *server, json_t **metrics, json_t **energy)
{
    pages_set(server, "/metrics", 0, QUERN("0", "0", "0", "0", "0", "0", "0", "0"));
    bench_watch_begin(watch, 0);
    await(pages_asked, server, pages_asked(server) + 5);
    await(power_reads, NULL, power_reads(NULL) + 20);
    pages_set(server, "/metrics", 0, QUERN("60", "100", "7", "0", "0", "0", "0", "0"));
    bench_watch_end(watch);
    *metrics = bench_watch_metrics(watch);
    *energy = bench_watch_energy(watch, &work);
}

static void test_runs_are_watched(void **state)
{
    (void)state;
    page_server server;
    bench_watch *watch = NULL;
    qn_error err = {0};
    pages_start(&server);
    fake_nvml_tell(0, 300000, 0);
    fake_nvml_tell(1, 500000, 0);
    const bench_watch_options options = {.target = &server.target,
                                         .metrics_path = "/metrics",
                                         .metrics_every_s = 0.01,
                                         .power = BENCH_POWER_AUTO,
                                         .power_every_s = 0.01,
                                         .nvml_library = FAKE_NVML};
    assert_int_equal(bench_watch_open(&watch, &options, &err), QN_OK);
    int n_tries = 0;
    for (int n_sound = 0; n_sound < 2; n_tries++) {
        assert_true(n_tries < TRIES_MAX);
        json_t *metrics = NULL;
        json_t *energy = NULL;
        watch_run(watch, &server, &metrics, &energy);
        assert_near(number(metrics, "hit_rate"), 0.6);
        assert_near(number(metrics, "generated_tokens"), 7);
        assert_true(number(metrics, "pages") >= 6);
        assert_null_at(metrics, "why");
        if (is_sound(energy)) {
            n_sound++;
            assert_near(number(energy, "avg_total_gpu_power_w"), 800);
            assert_near(number(energy, "avg_power_w"), 400);
            assert_near(number(energy, "total_gpu_energy_j"), 800 * number(energy, "duration_s"));
        }
        assert_string_equal(text(energy, "source"), "NVML: 2 x Fake H200");
        assert_true(json_array_size(json_object_get(json_object_get(energy, "series"), "w")) > 5);
        json_decref(metrics);
        json_decref(energy);
    }
    bench_watch_close(&watch);
    assert_null(watch);
    pages_stop(&server);
}

static void test_metrics_that_hang_do_not_hold_up_power(void **state)
{
    (void)state;
    page_server server;
    bench_watch *watch = NULL;
    qn_error err = {0};
    pages_start(&server);
    pages_set(&server, "/metrics", 0, NULL);
    server.target.timeout_s = 0.5;
    fake_nvml_tell(0, 300000, 0);
    fake_nvml_tell(1, 500000, 0);
    const bench_watch_options options = {.target = &server.target,
                                         .metrics_path = "/metrics",
                                         .metrics_every_s = 0.01,
                                         .power = BENCH_POWER_NVML,
                                         .power_every_s = 0.001,
                                         .nvml_library = FAKE_NVML};
    assert_int_equal(bench_watch_open(&watch, &options, &err), QN_OK);
    bool was_sound = false;
    for (int i = 0; !was_sound; i++) {
        assert_true(i < TRIES_MAX);
        bench_watch_begin(watch, 0);
        await(pages_asked, &server, pages_asked(&server) + 1); /* and it hangs now */
        await(power_reads, NULL, power_reads(NULL) + 100);
        bench_watch_end(watch);
        json_t *const metrics = bench_watch_metrics(watch);
        assert_non_null(strstr(text(metrics, "why"), "/metrics"));
        assert_null_at(metrics, "hit_rate");
        json_decref(metrics);
        json_t *const energy = bench_watch_energy(watch, &work);
        was_sound = is_sound(energy);
        json_decref(energy);
    }
    bench_watch_close(&watch);
    pages_stop(&server);
}

/* "why" of metrics and of energy where they cannot be had. */
static void assert_whys(const bench_watch_options *options, const char *metrics_why,
                        const char *energy_why)
{
    bench_watch *watch = NULL;
    qn_error err = {0};
    assert_int_equal(bench_watch_open(&watch, options, &err), QN_OK);
    bench_watch_begin(watch, qn_clock_ns());
    bench_watch_end(watch);
    json_t *const metrics = bench_watch_metrics(watch);
    json_t *const energy = bench_watch_energy(watch, &work);
    if (strstr(text(metrics, "why"), metrics_why) == NULL) {
        fail_msg("%s, expected %s", text(metrics, "why"), metrics_why);
    }
    if (strstr(text(energy, "why"), energy_why) == NULL) {
        fail_msg("%s, expected %s", text(energy, "why"), energy_why);
    }
    assert_true(energy_why[0] == '\0' || json_is_false(json_object_get(energy, "power_valid")));
    json_decref(metrics);
    json_decref(energy);
    bench_watch_close(&watch);
}

static void test_what_cannot_be_had_says_why(void **state)
{
    (void)state;
    page_server server;
    pages_start(&server);
    bench_watch_options options = {.target = &server.target,
                                   .metrics_path = "/metrics",
                                   .power = BENCH_POWER_AUTO,
                                   .nvml_library = "no-such.so",
                                   .rapl_folder = "no/such"};
    assert_whys(&options, "GET /metrics: status 404, expected 200",
                "NVML: no-such.so is not there, expected NVIDIA's driver; RAPL: no/such is not");
    pages_set(&server, "/metrics", 401, "no");
    options.power = BENCH_POWER_NVML;
    assert_whys(&options, "status 401", "NVML: no-such.so");
    pages_set(&server, "/metrics", 0, "<html>\nhello\n");
    options.power = BENCH_POWER_RAPL;
    assert_whys(&options, "GET /metrics: 0 samples and 2 other lines, expected names", "RAPL");
    options.power = BENCH_POWER_FILE;
    options.power_file = "no/such.csv";
    assert_whys(&options, "other lines", "no/such.csv");
    options.metrics_path = NULL;
    options.power = BENCH_POWER_NONE;
    assert_whys(&options, "", "");
    /* an address kept for documents: of no machine */
    const bench_target far = {.base_url = "http://192.0.2.1:1", .timeout_s = 1, .connect_s = 1};
    options.target = &far;
    options.power = BENCH_POWER_AUTO;
    options.nvml_library = FAKE_NVML;
    assert_whys(&options, "", "the server is on another machine than the meters");
    pages_stop(&server);
    options.target = &server.target;
    options.metrics_path = "/metrics";
    assert_whys(&options, "http://127.0.0.1", "");
}

/* ------------------------------------------------------------------------------------- identity */

typedef struct answer {
    const char *path, *body;
} answer;

static json_t *server_of(const answer *answers, size_t n)
{
    page_server server;
    json_t *found = NULL;
    qn_error err = {0};
    pages_start(&server);
    for (size_t i = 0; i < n; i++) {
        pages_set(&server, answers[i].path, 0, answers[i].body);
    }
    assert_int_equal(bench_server_json(&found, &server.target, "glm", &err), QN_OK);
    assert_string_equal(text(found, "base_url"), server.url);
    assert_true(json_is_true(json_object_get(found, "same_machine")));
    pages_stop(&server);
    return found;
}
#define SERVER_OF(answers) server_of(answers, sizeof(answers) / sizeof(answers)[0])

static void test_quern_is_recognized(void **state)
{
    (void)state;
    static const answer answers[] = {
        {"/v1/models", "{\"data\":[{\"id\":\"other\",\"root\":\"x\",\"owned_by\":\"quern\"},"
                       "{\"id\":\"glm\",\"root\":\"glm-nano\",\"owned_by\":\"quern\","
                       "\"max_model_len\":4096}]}"},
        {"/version", "{\"version\":\"0.1.0\",\"commit\":\"abc\",\"compiler\":\"gcc\"}"},
        {"/metrics", QUERN("0", "0", "0", "5", "10", "5", "0", "0")},
        {"/server_info",
         "{\"version\":\"0.1.0\",\"draft_tokens\":5,\"model\":{\"path\":\"m/glm-nano\","
         "\"quantization\":\"mxfp4\",\"weights\":\"trained\",\"device\":\"cpu\","
         "\"has_mtp\":true}}"},
    };
    json_t *const server = SERVER_OF(answers);
    assert_string_equal(text(server, "engine"), "quern");
    assert_string_equal(text(server, "version"), "0.1.0");
    assert_string_equal(text(server, "model"), "m/glm-nano");
    assert_string_equal(text(server, "quantization"), "mxfp4");
    assert_string_equal(text(server, "weights"), "trained");
    assert_string_equal(text(server, "device"), "cpu");
    assert_string_equal(text(server, "acceptance"), "measured");
    assert_near(number(server, "draft_tokens"), 5);
    assert_near(number(server, "context_tokens"), 4096);
    assert_string_equal(text(json_object_get(server, "sources"), "quantization"),
                        "/server_info: model.quantization");
    json_decref(server);
}

static void test_vllm_is_recognized(void **state)
{
    (void)state;
    static const answer answers[] = {
        {"/v1/models", "{\"data\":[{\"id\":\"glm\",\"root\":\"zai-org/GLM-5.2\",\"owned_by\":"
                       "\"vllm\",\"max_model_len\":131072}]}"},
        {"/version", "{\"version\":\"0.24.0\"}"},
        {"/metrics", "vllm:num_requests_running 0\n"
                     "vllm:spec_decode_num_accepted_tokens_per_pos_total{position=\"0\"} 0\n"
                     "vllm:spec_decode_num_accepted_tokens_per_pos_total{position=\"1\"} 0\n"},
        {"/server_info", "no"},
    };
    json_t *const plain = SERVER_OF(answers);
    assert_string_equal(text(plain, "engine"), "vllm");
    assert_string_equal(text(plain, "version"), "0.24.0");
    assert_string_equal(text(plain, "model"), "zai-org/GLM-5.2");
    assert_string_equal(text(plain, "weights"), "unknown");
    assert_string_equal(text(plain, "acceptance"), "unknown");
    assert_null_at(plain, "quantization");
    assert_near(number(plain, "draft_tokens"), 2);
    json_decref(plain);
    static const answer config[] = {
        {"/v1/models", "{\"data\":[{\"id\":\"glm\",\"owned_by\":\"vllm\"}]}"},
        {"/server_info?config_format=json",
         "{\"vllm_config\":{\"model_config\":{\"quantization\":\"fp8\"},\"load_config\":"
         "{\"load_format\":\"dummy\"},\"speculative_config\":{\"num_speculative_tokens\":3,"
         "\"rejection_sample_method\":\"synthetic\"}}}"},
    };
    json_t *const full = SERVER_OF(config);
    assert_string_equal(text(full, "engine"), "vllm");
    assert_string_equal(text(full, "quantization"), "fp8");
    assert_string_equal(text(full, "weights"), "dummy");
    assert_string_equal(text(full, "acceptance"), "synthetic");
    assert_near(number(full, "draft_tokens"), 3);
    json_decref(full);
}

static void test_sglang_is_recognized_by_both_its_pages(void **state)
{
    (void)state;
    static const char info[] = "{\"version\":\"0.5.14\",\"model_path\":\"zai-org/GLM-5.2-FP8\","
                               "\"quantization\":null,\"load_format\":\"auto\",\"device\":\"cuda\","
                               "\"tp_size\":8,\"speculative_algorithm\":null}";
    for (int i = 0; i < 2; i++) {
        const answer answers[] = {
            {"/v1/models", "{\"data\":[{\"id\":\"glm\",\"owned_by\":\"sglang\"}]}"},
            {i == 0 ? "/server_info" : "/get_server_info", info},
        };
        json_t *const server = SERVER_OF(answers);
        assert_string_equal(text(server, "engine"), "sglang");
        assert_string_equal(text(server, "version"), "0.5.14");
        assert_string_equal(text(server, "weights"), "trained");
        assert_string_equal(text(server, "acceptance"), "none");
        assert_null_at(server, "quantization");
        assert_near(number(json_object_get(server, "settings"), "tp_size"), 8);
        json_decref(server);
    }
}

static void test_llama_cpp_is_recognized(void **state)
{
    (void)state;
    static const answer answers[] = {
        {"/v1/models", "{\"data\":[{\"id\":\"glm\",\"owned_by\":\"llamacpp\",\"meta\":{\"ftype\":"
                       "\"Q8_0\"}}]}"},
        {"/props", "{\"build_info\":\"b9222-abc\",\"model_path\":\"glm.gguf\",\"total_slots\":4,"
                   "\"default_generation_settings\":{\"n_ctx\":4096}}"},
    };
    json_t *const server = SERVER_OF(answers);
    assert_string_equal(text(server, "engine"), "llama.cpp");
    assert_string_equal(text(server, "version"), "b9222-abc");
    assert_string_equal(text(server, "quantization"), "Q8_0");
    assert_near(number(server, "context_tokens"), 4096);
    json_decref(server);
    static const answer python[] = {
        {"/v1/models", "{\"data\":[{\"id\":\"glm\",\"owned_by\":\"me\"}]}"},
        {"/openapi.json", "{\"info\":{\"title\":\"llama.cpp Python API\",\"version\":\"0.3.16\"}}"},
    };
    json_t *const binding = SERVER_OF(python);
    assert_string_equal(text(binding, "engine"), "llama.cpp");
    assert_string_equal(text(binding, "version"), "llama-cpp-python 0.3.16");
    json_decref(binding);
}

static void test_what_a_server_does_not_tell_is_null(void **state)
{
    (void)state;
    static const answer hostile[] = {
        {"/v1/models", "{\"data\":[{\"id\":\"glm\",\"root\":\"a\\u0007b\\u009bc\",\"owned_by\":7,"
                       "\"max_model_len\":{\"a\":[]}}]}"},
        {"/version", "[[[["},
        {"/server_info", "\"text\""},
        {"/props", "{\"build_info\":{}}"},
        {"/openapi.json", "{\"info\":[]}"},
        {"/metrics", "\x01\xff"},
    };
    json_t *const server = SERVER_OF(hostile);
    assert_string_equal(text(server, "engine"), "unknown");
    assert_string_equal(text(server, "model"), "a?b?c");
    assert_null_at(server, "version");
    assert_null_at(server, "context_tokens");
    json_decref(server);
    static const answer nothing[] = {{"/v1/models", "{}"}};
    json_t *const silent = SERVER_OF(nothing);
    assert_string_equal(text(silent, "engine"), "unknown");
    assert_null_at(silent, "model");
    assert_null_at(silent, "draft_tokens");
    assert_string_equal(text(silent, "weights"), "unknown");
    json_decref(silent);
}

static void test_a_server_that_is_away_or_silent(void **state)
{
    (void)state;
    page_server server;
    json_t *found = NULL;
    qn_error err = {0};
    pages_start(&server);
    server.target.timeout_s = 0.2;
    pages_set(&server, "/v1/models", 0, NULL);
    pages_set(&server, "/metrics", 0, NULL);
    assert_int_equal(bench_server_json(&found, &server.target, "glm", &err), QN_OK);
    assert_string_equal(text(found, "engine"), "unknown");
    assert_int_equal(pages_asked(&server), 2); /* then it was given up */
    json_decref(found);
    pages_stop(&server);
    const bench_target away = {
        .base_url = "http://user:secret@127.0.0.1:1", .timeout_s = 1, .connect_s = 1};
    assert_int_equal(bench_server_json(&found, &away, "glm", &err), QN_OK);
    assert_string_equal(text(found, "base_url"), "http://127.0.0.1:1");
    json_decref(found);
}

static void test_this_machine_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        bool is_here;
    } cases[] = {
        {"http://127.0.0.1:8000", true},   {"http://127.9.9.9", true},
        {"http://localhost:1/v1", true},   {"https://u:p@127.0.0.1/", true},
        {"http://192.0.2.1:8000", false},  {"http://", false},
        {"http://no.such.invalid", false}, {"http://0.0.0.0:8000", true},
        {"http://[::1]:8000/v1", true},    {"", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (bench_is_here(cases[i].url) != cases[i].is_here) {
            fail_msg("%s", cases[i].url);
        }
    }
    json_t *const machine = bench_machine_json();
    assert_true(number(machine, "cores") >= 1);
    assert_true(number(machine, "memory_bytes") > 1e6);
    assert_non_null(strstr(text(machine, "kernel"), "Linux"));
    assert_true(json_is_array(json_object_get(machine, "gpus")));
    json_decref(machine);
}

static int load(void **state)
{
    (void)state;
    fake_nvml_load();
    return 0;
}

static int unload(void **state)
{
    (void)state;
    fake_nvml_unload();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters_count_from_begin_to_end),
        cmocka_unit_test(test_a_server_that_was_started_again_is_noticed),
        cmocka_unit_test(test_pages_that_did_not_come),
        cmocka_unit_test(test_families_that_come_with_their_first_count_began_at_zero),
        cmocka_unit_test(test_gauges_stand_in_where_there_are_no_counters),
        cmocka_unit_test(test_results_survive_failing_allocations),
        cmocka_unit_test(test_runs_are_watched),
        cmocka_unit_test(test_metrics_that_hang_do_not_hold_up_power),
        cmocka_unit_test(test_what_cannot_be_had_says_why),
        cmocka_unit_test(test_quern_is_recognized),
        cmocka_unit_test(test_vllm_is_recognized),
        cmocka_unit_test(test_sglang_is_recognized_by_both_its_pages),
        cmocka_unit_test(test_llama_cpp_is_recognized),
        cmocka_unit_test(test_what_a_server_does_not_tell_is_null),
        cmocka_unit_test(test_a_server_that_is_away_or_silent),
        cmocka_unit_test(test_this_machine_is_known),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
