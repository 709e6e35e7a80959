/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "figures.h"
#include "machine.h"
#include "metrics.h"
#include "put.h"
#include "scrape.h"
#include "url.h"
#include "watch.h"

#include <errno.h>

#define ASK_MAX_S 5.0

enum { TEXT_BYTES = 256, PATH_BYTES = 160, FAILURES_MAX = 2 };

/* What a server is asked for. */
typedef enum document {
    DOC_MODELS,  /* the model's entry in /v1/models */
    DOC_VERSION, /* /version: quern, vLLM */
    DOC_INFO,    /* /server_info: quern, SGLang, ATOM */
    DOC_OLD,     /* /get_server_info: SGLang before it was renamed */
    DOC_CONFIG,  /* /server_info of vLLM, which a server in development mode has */
    DOC_PROPS,   /* /props: llama.cpp */
    DOC_OPENAPI, /* of FastAPI: llama-cpp-python tells its version nowhere else */
    N_DOCUMENTS,
} document;

static const struct {
    const char *path;
    const char *engines; /* of bench_engine: their numbers */
} documents[N_DOCUMENTS] = {
    [DOC_MODELS] = {"/v1/models", ""},
    [DOC_VERSION] = {"/version", "quern vllm atom"},
    [DOC_INFO] = {"/server_info", "quern sglang"},
    [DOC_OLD] = {"/get_server_info", "sglang"},
    [DOC_CONFIG] = {"/server_info?config_format=json", "vllm"},
    [DOC_PROPS] = {"/props", "llama.cpp"},
    [DOC_OPENAPI] = {"/openapi.json", ""},
};

/* Where which engine tells what; the first that tells it counts.  "settings.NAME" goes into
 * "settings". */
static const struct {
    bench_engine engine; /* BENCH_UNKNOWN: any */
    document document;
    const char *path; /* keys with dots between */
    const char *field;
} told[] = {
    {BENCH_QUERN, DOC_VERSION, "version", "version"},
    {BENCH_QUERN, DOC_VERSION, "commit", "commit"},
    {BENCH_QUERN, DOC_VERSION, "compiler", "settings.compiler"},
    {BENCH_QUERN, DOC_INFO, "model.path", "model"},
    {BENCH_QUERN, DOC_INFO, "model.quantization", "quantization"},
    {BENCH_QUERN, DOC_INFO, "model.weights", "weights"},
    {BENCH_QUERN, DOC_INFO, "model.device", "device"},
    {BENCH_QUERN, DOC_INFO, "draft_tokens", "draft_tokens"},
    {BENCH_QUERN, DOC_INFO, "model.kv_dtype", "settings.kv_dtype"},
    {BENCH_QUERN, DOC_INFO, "model.kernels", "settings.kernels"},
    {BENCH_QUERN, DOC_INFO, "model.compute", "settings.compute"},
    {BENCH_QUERN, DOC_INFO, "model.threads", "settings.threads"},
    {BENCH_QUERN, DOC_INFO, "model.has_mtp", "settings.has_mtp"},
    {BENCH_QUERN, DOC_INFO, "limits.sequences", "settings.sequences"},

    {BENCH_VLLM, DOC_VERSION, "version", "version"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.model_config.quantization", "quantization"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.device_config.device_type", "device"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.speculative_config.num_speculative_tokens",
     "draft_tokens"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.load_config.load_format", "settings.load_format"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.cache_config.cache_dtype", "settings.kv_dtype"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.parallel_config.tensor_parallel_size",
     "settings.tp_size"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.parallel_config.data_parallel_size", "settings.dp_size"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.scheduler_config.max_num_seqs", "settings.sequences"},
    {BENCH_VLLM, DOC_CONFIG, "vllm_config.scheduler_config.max_num_batched_tokens",
     "settings.chunked_prefill_size"},

    {BENCH_ATOM, DOC_VERSION, "version", "version"},

    {BENCH_SGLANG, DOC_INFO, "version", "version"},
    {BENCH_SGLANG, DOC_INFO, "model_path", "model"},
    {BENCH_SGLANG, DOC_INFO, "quantization", "quantization"},
    {BENCH_SGLANG, DOC_INFO, "device", "device"},
    {BENCH_SGLANG, DOC_INFO, "speculative_num_steps", "draft_tokens"},
    {BENCH_SGLANG, DOC_INFO, "speculative_algorithm", "settings.speculative_algorithm"},
    {BENCH_SGLANG, DOC_INFO, "speculative_eagle_topk", "settings.speculative_eagle_topk"},
    {BENCH_SGLANG, DOC_INFO, "speculative_num_draft_tokens",
     "settings.speculative_num_draft_tokens"},
    {BENCH_SGLANG, DOC_INFO, "load_format", "settings.load_format"},
    {BENCH_SGLANG, DOC_INFO, "kv_cache_dtype", "settings.kv_dtype"},
    {BENCH_SGLANG, DOC_INFO, "tp_size", "settings.tp_size"},
    {BENCH_SGLANG, DOC_INFO, "dp_size", "settings.dp_size"},
    {BENCH_SGLANG, DOC_INFO, "ep_size", "settings.ep_size"},
    {BENCH_SGLANG, DOC_INFO, "enable_dp_attention", "settings.enable_dp_attention"},
    {BENCH_SGLANG, DOC_INFO, "mem_fraction_static", "settings.mem_fraction_static"},
    {BENCH_SGLANG, DOC_INFO, "chunked_prefill_size", "settings.chunked_prefill_size"},
    {BENCH_SGLANG, DOC_INFO, "max_running_requests", "settings.sequences"},
    {BENCH_SGLANG, DOC_INFO, "disable_radix_cache", "settings.disable_radix_cache"},
    {BENCH_SGLANG, DOC_INFO, "attention_backend", "settings.attention_backend"},
    {BENCH_SGLANG, DOC_INFO, "context_length", "context_tokens"},

    {BENCH_LLAMA_CPP, DOC_PROPS, "build_info", "version"},
    {BENCH_LLAMA_CPP, DOC_OPENAPI, "info.version", "settings.llama_cpp_python"},
    {BENCH_LLAMA_CPP, DOC_PROPS, "model_path", "model"},
    {BENCH_LLAMA_CPP, DOC_PROPS, "model_ftype", "quantization"},
    {BENCH_LLAMA_CPP, DOC_MODELS, "meta.ftype", "quantization"},
    {BENCH_LLAMA_CPP, DOC_PROPS, "total_slots", "settings.sequences"},
    {BENCH_LLAMA_CPP, DOC_PROPS, "default_generation_settings.n_ctx", "context_tokens"},

    {BENCH_UNKNOWN, DOC_MODELS, "root", "model"},
    {BENCH_UNKNOWN, DOC_MODELS, "id", "model"},
    {BENCH_UNKNOWN, DOC_MODELS, "max_model_len", "context_tokens"},
};

/* What is known so far. */
typedef struct identity {
    const char *model;
    bench_target target;
    json_t *answers[N_DOCUMENTS]; /* owned; NULL: none */
    bench_figures figures;        /* of /metrics; its engine is unknown where there are none */
    bench_engine engine;
    json_t *server, *settings, *sources; /* the latter two are in the first */
    unsigned n_failures;                 /* questions without an answer */
    bool failed;                         /* out of memory */
} identity;

/* ------------------------------------------------------------------------------------ questions */

static void ask(identity *of, document which)
{
    qn_error err = {0};
    if (of->n_failures >= FAILURES_MAX || of->failed) {
        return; /* it would be the same again, after another five seconds */
    }
    const qn_status status =
        bench_http_json(&of->answers[which], &of->target, documents[which].path, NULL, &err);
    of->failed = status == QN_E_NOMEM;
    of->n_failures += status < 0;
}

static void ask_metrics(identity *of)
{
    bench_reply reply = {0};
    qn_error err = {0};
    const qn_status status = bench_http(&reply, &of->target, "/metrics", NULL, &err);
    const bool is_page = status == QN_OK && reply.status == 200;
    bench_figures_read(&of->figures, is_page ? qn_buf_view(&reply.body) : (qn_str){0});
    of->failed = status == QN_E_NOMEM;
    of->n_failures += status < 0;
    bench_http_free(&reply);
}

/* The entry of our model, else the only one. */
static void pick_model(identity *of)
{
    json_t *const list = json_object_get(of->answers[DOC_MODELS], "data");
    json_t *found = json_array_size(list) == 1 ? json_array_get(list, 0) : NULL;
    size_t i = 0;
    json_t *one = NULL;
    json_array_foreach(list, i, one)
    {
        const char *const id = json_string_value(json_object_get(one, "id"));
        found = id != NULL && strcmp(id, of->model) == 0 ? one : found;
    }
    found = json_is_object(found) ? json_incref(found) : NULL;
    json_decref(of->answers[DOC_MODELS]);
    of->answers[DOC_MODELS] = found;
}

/* The value behind keys with dots between; borrowed, NULL: none. */
static json_t *look_up(json_t *root, const char *path)
{
    json_t *at = root;
    for (const char *key = path; at != NULL && key != NULL;) {
        const size_t len = strcspn(key, ".");
        at = json_object_getn(at, key, len);
        key = key[len] == '.' ? key + len + 1 : NULL;
    }
    return at;
}

/* Who is it?  By its metrics, else by who it says owns the model, else by answers that only one
 * engine gives. */
static bench_engine recognize(identity *of, const char **source)
{
    static const struct {
        const char *owner;
        bench_engine engine;
    } owners[] = {{"quern", BENCH_QUERN},
                  {"vllm", BENCH_VLLM},
                  {"sglang", BENCH_SGLANG},
                  {"llamacpp", BENCH_LLAMA_CPP},
                  {"atom", BENCH_ATOM}};
    const char *const owner =
        json_string_value(json_object_get(of->answers[DOC_MODELS], "owned_by"));
    *source = "/metrics: names";
    if (of->figures.engine != BENCH_UNKNOWN) {
        return of->figures.engine;
    }
    *source = "/v1/models: owned_by";
    for (size_t i = 0; owner != NULL && i < sizeof owners / sizeof owners[0]; i++) {
        if (strcmp(owner, owners[i].owner) == 0) {
            return owners[i].engine;
        }
    }
    *source = "/props: build_info";
    ask(of, DOC_PROPS);
    if (json_is_string(json_object_get(of->answers[DOC_PROPS], "build_info"))) {
        return BENCH_LLAMA_CPP;
    }
    *source = "/get_server_info: model_path";
    ask(of, DOC_OLD);
    if (json_is_string(json_object_get(of->answers[DOC_OLD], "model_path"))) {
        return BENCH_SGLANG;
    }
    *source = "/openapi.json: info.title"; /* llama-cpp-python, whose models are owned by "me" */
    ask(of, DOC_OPENAPI);
    const char *const title = json_string_value(look_up(of->answers[DOC_OPENAPI], "info.title"));
    if (title != NULL && strstr(title, "llama.cpp") != NULL) {
        return BENCH_LLAMA_CPP;
    }
    *source = NULL;
    return BENCH_UNKNOWN;
}

static void ask_all(identity *of)
{
    for (document which = DOC_VERSION; which < N_DOCUMENTS; which++) {
        const bool is_for_it =
            strstr(documents[which].engines, bench_engine_name(of->engine)) != NULL;
        const bool is_needed = which == DOC_OLD       ? of->answers[DOC_INFO] == NULL
                               : which == DOC_OPENAPI ? of->answers[DOC_PROPS] == NULL
                                                      : true;
        if (is_for_it && is_needed && of->answers[which] == NULL) {
            ask(of, which);
        }
    }
    if (of->engine == BENCH_SGLANG && of->answers[DOC_INFO] == NULL) {
        of->answers[DOC_INFO] = of->answers[DOC_OLD];
        of->answers[DOC_OLD] = NULL;
    }
}

/* --------------------------------------------------------------------------------------- fields */

/* A scalar as it may stand in a report: texts cut, cleaned and never empty.  NULL: it is none. */
static json_t *clean(const json_t *value)
{
    char text[TEXT_BYTES];
    if (json_is_string(value)) {
        (void)snprintf(text, sizeof text, "%s", json_string_value(value));
        qn_text_clean(text);
        return text[0] != '\0' ? json_string(text) : NULL;
    }
    return json_is_number(value) || json_is_boolean(value) ? json_copy((json_t *)value) : NULL;
}

/* Set a field that is null so far; @p value is taken. */
static void tell(identity *of, const char *field, json_t *value, const char *source)
{
    json_t *object = of->server;
    const char *name = field;
    if (strncmp(field, "settings.", 9) == 0) {
        object = of->settings;
        name = field + 9;
    }
    const json_t *const before = json_object_get(object, name);
    if (value == NULL || (before != NULL && !json_is_null(before))) {
        json_decref(value);
        return;
    }
    put(object, name, value, &of->failed);
    put(of->sources, field, json_string(source), &of->failed);
}

static void tell_all(identity *of)
{
    char source[PATH_BYTES];
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        if (told[i].engine != of->engine && told[i].engine != BENCH_UNKNOWN) {
            continue;
        }
        (void)snprintf(source, sizeof source, "%s: %s", documents[told[i].document].path,
                       told[i].path);
        tell(of, told[i].field, clean(look_up(of->answers[told[i].document], told[i].path)),
             source);
    }
}

/* llama-cpp-python tells its own version, and not that of the llama.cpp within. */
static void tell_version(identity *of)
{
    const char *const version =
        json_string_value(json_object_get(of->settings, "llama_cpp_python"));
    if (version != NULL) {
        tell(of, "version", json_sprintf("llama-cpp-python %s", version),
             "/openapi.json: info.version");
    }
}

/* vLLM and SGLang: what loaded the weights says whether they are trained. */
static void tell_weights(identity *of)
{
    const char *const format = json_string_value(json_object_get(of->settings, "load_format"));
    if (format != NULL) {
        tell(of, "weights", json_string(strcmp(format, "dummy") == 0 ? "dummy" : "trained"),
             "load_format");
    }
    tell(of, "weights", json_string("unknown"), "not told");
}

/* Drafts accepted by what the model says, or by a number that was set? */
static void tell_acceptance(identity *of)
{
    json_t *const config = look_up(of->answers[DOC_CONFIG], "vllm_config");
    json_t *const drafts = look_up(config, "speculative_config");
    const char *const method = json_string_value(look_up(drafts, "rejection_sample_method"));
    json_t *const info = of->answers[DOC_INFO];
    const json_t *const depth = json_object_get(of->server, "draft_tokens");
    const char *word = NULL;
    const char *source = NULL;
    if (of->engine == BENCH_QUERN && !json_is_null(depth)) {
        const bool is_pinned = json_object_get(info, "pinned_acceptance_length") != NULL;
        const bool is_none = json_is_integer(depth) && json_integer_value(depth) == 0;
        word = is_pinned ? "synthetic" : is_none ? "none" : "measured";
        source =
            is_pinned ? "/server_info: pinned_acceptance_length" : "/server_info: draft_tokens";
    } else if (of->engine == BENCH_VLLM && config != NULL) {
        word = !json_is_object(drafts)                                 ? "none"
               : method != NULL && strstr(method, "synthetic") != NULL ? "synthetic"
               : method != NULL                                        ? "measured"
                                                                       : NULL;
        source = "/server_info: vllm_config.speculative_config";
    } else if (of->engine == BENCH_SGLANG && info != NULL) {
        const double pinned = json_number_value(json_object_get(info, "simulate_acc_len"));
        word = pinned > 0                                                     ? "synthetic"
               : json_is_null(json_object_get(info, "speculative_algorithm")) ? "none"
                                                                              : NULL;
        source =
            pinned > 0 ? "/server_info: simulate_acc_len" : "/server_info: speculative_algorithm";
    }
    if (word != NULL) {
        tell(of, "acceptance", json_string(word), source);
    }
    tell(of, "acceptance", json_string("unknown"), "not told");
}

/* vLLM names the places that a draft has, from 0, also before anything was drafted. */
static void tell_depth(identity *of)
{
    size_t depth = 0;
    while (depth < BENCH_POSITIONS_MAX && !isnan(of->figures.accepted_at[depth])) {
        depth++;
    }
    if (of->engine == BENCH_VLLM && depth > 0) {
        tell(of, "draft_tokens", json_integer((json_int_t)depth),
             "/metrics: places of vllm:spec_decode_num_accepted_tokens_per_pos");
    }
}

/* NULL without memory. */
static json_t *clean_url(const char *text)
{
    bench_url url;
    const qn_status status = bench_url_open(&url, text, NULL);
    json_t *const clean = status == QN_E_NOMEM ? NULL : put_text(url.clean);
    bench_url_close(&url);
    return clean;
}

static void make(identity *of)
{
    static const char *const fields[] = {"version",        "commit",       "model",
                                         "quantization",   "weights",      "device",
                                         "context_tokens", "draft_tokens", "acceptance"};
    const char *source = NULL;
    of->server = json_object();
    of->settings = json_object();
    of->sources = json_object();
    of->engine = recognize(of, &source);
    ask_all(of);
    put(of->server, "base_url", clean_url(of->target.base_url), &of->failed);
    put(of->server, "engine", json_string(bench_engine_name(of->engine)), &of->failed);
    if (source != NULL) {
        put(of->sources, "engine", json_string(source), &of->failed);
    }
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        put(of->server, fields[i], json_null(), &of->failed);
    }
    tell_all(of);
    tell_version(of);
    tell_depth(of);
    tell_weights(of);
    tell_acceptance(of);
    put(of->server, "same_machine", json_boolean(bench_is_here(of->target.base_url)), &of->failed);
    put(of->server, "settings", of->settings, &of->failed);
    put(of->server, "sources", of->sources, &of->failed);
}

qn_status bench_server_json(json_t **out, const bench_target *target, const char *model,
                            qn_error *err)
{
    identity of = {.model = model, .target = *target};
    if (!(of.target.timeout_s > 0 && of.target.timeout_s < ASK_MAX_S)) {
        of.target.timeout_s = ASK_MAX_S;
    }
    ask(&of, DOC_MODELS);
    pick_model(&of);
    ask_metrics(&of);
    make(&of);
    for (size_t i = 0; i < N_DOCUMENTS; i++) {
        json_decref(of.answers[i]);
    }
    *out = put_whole(of.server, of.failed);
    return *out != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "server: no memory");
}
