/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "mock.h"

#include <stdlib.h>

void mock_forget(mock_server *s)
{
    for (size_t i = 0; i < s->n_requests; i++) {
        mock_request_free(s->requests[i]);
    }
    s->n_requests = 0;
    s->counts = (mock_counts){0};
    s->first_ns = s->bucket_ns = s->told_ns = s->told_generated = 0;
    mock_cache_clear();
}

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

static json_t *time_json(uint64_t ns)
{
    return ns == 0 ? json_null() : json_real(seconds(ns));
}

static json_t *request_json(const mock_request *r, bool has_chunks)
{
    json_t *const json =
        json_pack("{s:I,s:i,s:s,s:b,s:o,s:o,s:o,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:O}", "number",
                  (json_int_t)r->number, "connection", (int)r->n_connection, "api",
                  r->is_chat ? "chat" : "completions", "stream", r->is_stream, "arrived_s",
                  time_json(r->arrived_ns), "began_s", time_json(r->began_ns), "ended_s",
                  time_json(r->ended_ns), "prompt_tokens", (int)r->n_prompt, "cached_tokens",
                  (int)r->n_cached, "output_tokens", (int)r->n_sent, "max_tokens",
                  (int)r->max_tokens, "running", (int)r->n_running, "waiting", (int)r->n_waiting,
                  "status", r->status, "body", r->body);
    (void)json_object_set_new(json, "end", r->end == NULL ? json_null() : json_string(r->end));
    if (r->output_text != NULL) {
        (void)json_object_set_new(json, "output_text", json_string(r->output_text));
    }
    if (has_chunks) {
        json_t *const chunks = json_array();
        for (size_t i = 0; i < r->n_chunks; i++) {
            (void)json_array_append_new(chunks, time_json(r->chunk_ns[i]));
        }
        (void)json_object_set_new(json, "chunk_s", chunks);
    }
    return json;
}

static void reply_log(mock_server *s, mock_connection *c, bool has_chunks)
{
    json_t *const requests = json_array();
    for (size_t i = 0; i < s->n_requests; i++) {
        (void)json_array_append_new(requests, request_json(s->requests[i], has_chunks));
    }
    mock_reply_json(c, 200, "",
                    json_pack("{s:o,s:i,s:i,s:i,s:i,s:f}", "requests", requests, "running",
                              (int)s->counts.n_running, "waiting", (int)s->counts.n_waiting,
                              "max_running", (int)s->counts.max_running, "connections",
                              (int)s->n_connections, "now_s", seconds(qn_clock_ns())));
}

static void reply_script(mock_server *s, mock_connection *c, qn_str body)
{
    mock_script script;
    qn_error err = {0};
    if (s->counts.n_running > 0 || s->counts.n_waiting > 0) {
        mock_reply_json(c, 409, "", json_pack("{s:s}", "error", "requests run, expected none"));
    } else if (mock_script_parse(&script, body, "script", &err) < 0) {
        mock_reply_json(c, 400, "", json_pack("{s:s}", "error", err.text));
    } else {
        mock_forget(s);
        s->script = script;
        mock_reply_json(c, 200, "", json_pack("{}"));
    }
}

static void reply_tokenize(mock_server *s, mock_connection *c, qn_str body)
{
    json_t *const json = json_loadb(body.ptr, body.len, 0, NULL);
    const json_t *const content = json_object_get(json, "content");
    mock_prompt prompt = {0};
    bool is_good = true;
    if (s->script.engine == MOCK_LLAMACPP) {
        is_good = json_is_string(content);
        mock_prompt_add_text(&prompt, is_good ? json_string_value(content) : "");
    } else {
        is_good = mock_prompt_of(&prompt, json, s->script.n_template);
    }
    if (!is_good) {
        mock_reply_json(c, 400, "", json_pack("{s:s}", "error", "no prompt, expected one"));
    } else {
        json_t *const tokens = json_array();
        for (size_t i = 0; i < prompt.n; i++) {
            (void)json_array_append_new(tokens,
                                        json_integer((json_int_t)(prompt.words[i] % 100000)));
        }
        json_t *const answer = json_pack("{s:o}", "tokens", tokens);
        if (s->script.engine != MOCK_LLAMACPP) {
            (void)json_object_set_new(answer, "count", json_integer((json_int_t)prompt.n));
            (void)json_object_set_new(answer, "max_model_len", json_integer(1 << 20));
        }
        mock_reply_json(c, 200, "", answer);
    }
    mock_prompt_free(&prompt);
    json_decref(json);
}

/* Lines "PREFIXname{model_name="mock"} value" of what all engines count, by their names. */
static void put_metric(qn_buf *page, const mock_server *s, const char *name, const char *labels,
                       double value)
{
    static const char *const prefixes[] = {"quern_", "vllm:", "sglang:", "llamacpp:"};
    char label[160] = "";
    if (s->script.engine == MOCK_VLLM || s->script.engine == MOCK_SGLANG) {
        (void)snprintf(label, sizeof label, "{%smodel_name=\"%s\"%s%s}",
                       s->script.engine == MOCK_VLLM ? "engine=\"0\"," : "", s->script.model,
                       *labels == 0 ? "" : ",", labels);
    } else if (*labels != 0) {
        (void)snprintf(label, sizeof label, "{%s}", labels);
    }
    mock_put(page, "%s%s%s %.15g\n", prefixes[s->script.engine], name, label, value);
}

static void put_drafts(qn_buf *page, const mock_server *s, const char *drafts, const char *drafted,
                       const char *accepted, const char *at_position)
{
    const mock_counts *const counts = &s->counts;
    if (s->script.n_draft == 0) {
        return;
    }
    put_metric(page, s, drafts, "", (double)counts->n_drafts);
    put_metric(page, s, drafted, "", (double)counts->n_drafted);
    put_metric(page, s, accepted, "", (double)counts->n_accepted);
    for (uint32_t i = 0; i < s->script.n_draft && i < MOCK_POSITIONS_MAX; i++) {
        char label[32];
        (void)snprintf(label, sizeof label, "position=\"%u\"", i);
        put_metric(page, s, at_position, label, (double)counts->accepted_at[i]);
    }
}

static void put_quern(qn_buf *page, const mock_server *s, double use)
{
    const mock_counts *const counts = &s->counts;
    mock_put(page,
             "quern_build_info{version=\"9.8.7\",commit=\"mock\",compiler=\"none\","
             "kernels=\"none\"} 1\n"
             "quern_model_info{name=\"%s\",architecture=\"mock\",quantization=\"mxfp4\","
             "weights=\"dummy\",device=\"cpu\",kernels=\"none\",compute=\"f32\","
             "kv_dtype=\"bf16\",chat_format=\"none\"} 1\n",
             s->script.model);
    put_metric(page, s, "requests_running", "", counts->n_running);
    put_metric(page, s, "requests_waiting", "", counts->n_waiting);
    put_metric(page, s, "page_usage_ratio", "", use);
    put_metric(page, s, "prompt_tokens_total", "", (double)counts->n_prompt);
    put_metric(page, s, "generation_tokens_total", "", (double)counts->n_generated);
    put_metric(page, s, "prefix_query_tokens_total", "", (double)counts->n_prompt);
    put_metric(page, s, "prefix_hit_tokens_total", "", (double)counts->n_cached);
    put_metric(page, s, "preemptions_total", "", 0);
    put_metric(page, s, "requests_ended_total", "finish=\"stop\"", (double)counts->n_stopped);
    put_metric(page, s, "requests_ended_total", "finish=\"length\"", (double)counts->n_length);
    put_metric(page, s, "requests_ended_total", "finish=\"abort\"", (double)counts->n_aborted);
    put_drafts(page, s, "drafts_total", "drafted_tokens_total", "accepted_tokens_total",
               "accepted_tokens_per_position_total");
}

static void put_vllm(qn_buf *page, const mock_server *s, double use)
{
    const mock_counts *const counts = &s->counts;
    put_metric(page, s, "num_requests_running", "", counts->n_running);
    put_metric(page, s, "num_requests_waiting", "", counts->n_waiting);
    put_metric(page, s, "kv_cache_usage_perc", "", use);
    put_metric(page, s, "prompt_tokens_total", "", (double)counts->n_prompt);
    put_metric(page, s, "generation_tokens_total", "", (double)counts->n_generated);
    put_metric(page, s, "prefix_cache_queries_total", "", (double)counts->n_prompt);
    put_metric(page, s, "prefix_cache_hits_total", "", (double)counts->n_cached);
    put_metric(page, s, "num_preemptions_total", "", 0);
    put_metric(page, s, "request_success_total", "finished_reason=\"stop\"",
               (double)counts->n_stopped);
    put_metric(page, s, "request_success_total", "finished_reason=\"length\"",
               (double)counts->n_length);
    put_drafts(page, s, "spec_decode_num_drafts_total", "spec_decode_num_draft_tokens_total",
               "spec_decode_num_accepted_tokens_total",
               "spec_decode_num_accepted_tokens_per_pos_total");
}

static void put_sglang(qn_buf *page, mock_server *s, double use)
{
    const mock_counts *const counts = &s->counts;
    const uint64_t now_ns = qn_clock_ns();
    const double elapsed_s = s->told_ns == 0 ? 0 : qn_clock_seconds(s->told_ns, now_ns);
    const double n_new = (double)(counts->n_generated - s->told_generated);
    s->told_ns = now_ns;
    s->told_generated = counts->n_generated;
    put_metric(page, s, "num_running_reqs", "", counts->n_running);
    put_metric(page, s, "num_queue_reqs", "", counts->n_waiting);
    put_metric(page, s, "token_usage", "", use);
    put_metric(page, s, "gen_throughput", "", elapsed_s > 0 ? n_new / elapsed_s : 0);
    put_metric(page, s, "prompt_tokens_total", "", (double)counts->n_prompt);
    put_metric(page, s, "generation_tokens_total", "", (double)counts->n_generated);
    put_metric(page, s, "cached_tokens_total", "", (double)counts->n_cached);
    put_metric(page, s, "cache_hit_rate", "",
               counts->n_prompt == 0 ? 0 : (double)counts->n_cached / (double)counts->n_prompt);
    if (counts->n_drafts > 0) {
        put_metric(page, s, "spec_accept_length", "",
                   1 + (double)counts->n_accepted / (double)counts->n_drafts);
    }
}

static void put_llamacpp(qn_buf *page, const mock_server *s, double use)
{
    const mock_counts *const counts = &s->counts;
    put_metric(page, s, "requests_processing", "", counts->n_running);
    put_metric(page, s, "requests_deferred", "", counts->n_waiting);
    put_metric(page, s, "kv_cache_usage_ratio", "", use);
    /* what was computed: the cached ones are not in it */
    put_metric(page, s, "prompt_tokens_total", "", (double)(counts->n_prompt - counts->n_cached));
    put_metric(page, s, "tokens_predicted_total", "", (double)counts->n_generated);
}

static void reply_metrics(mock_server *s, mock_connection *c)
{
    qn_buf page;
    qn_buf_init(&page, MOCK_BYTES_MAX);
    const double use =
        s->script.n_slots == 0 ? 0 : (double)s->counts.n_running / (double)s->script.n_slots;
    switch (s->script.engine) {
    case MOCK_QUERN: put_quern(&page, s, use); break;
    case MOCK_VLLM: put_vllm(&page, s, use); break;
    case MOCK_SGLANG: put_sglang(&page, s, use); break;
    default: put_llamacpp(&page, s, use); break;
    }
    mock_reply(c, 200, "text/plain; version=0.0.4", "", qn_buf_view(&page));
    qn_buf_deinit(&page);
}

static json_t *models_json(const mock_server *s)
{
    static const char *const owners[] = {"quern", "vllm", "sglang", "llamacpp"};
    json_t *const model = json_pack("{s:s,s:s,s:i,s:s}", "id", s->script.model, "object", "model",
                                    "created", 1, "owned_by", owners[s->script.engine]);
    if (s->script.engine != MOCK_LLAMACPP) {
        (void)json_object_set_new(model, "max_model_len", json_integer(1 << 20));
    }
    return json_pack("{s:s,s:[o]}", "object", "list", "data", model);
}

/* What engines tell of the model that they run, each in its own words. */
static json_t *info_json(const mock_script *script)
{
    const int n_draft = (int)script->n_draft;
    if (script->engine == MOCK_QUERN) {
        return json_pack("{s:i,s:{s:s,s:s,s:s,s:s}}", "draft_tokens", n_draft, "model", "path",
                         script->model, "quantization", "mxfp4", "weights", "dummy", "device",
                         "cpu");
    }
    if (script->engine == MOCK_VLLM) {
        return json_pack("{s:{s:{s:s},s:{s:i}}}", "vllm_config", "model_config", "quantization",
                         "fp8", "speculative_config", "num_speculative_tokens", n_draft);
    }
    return json_pack("{s:s,s:s,s:s,s:i}", "version", "9.8.7", "quantization", "w4afp8",
                     "load_format", "dummy", "speculative_num_steps", n_draft);
}

/* Pages that tell which engine it is; NULL: this one has none such. */
static json_t *identity_json(const mock_script *script, const char *path)
{
    const mock_engine engine = script->engine;
    if (strcmp(path, "/version") == 0 && (engine == MOCK_QUERN || engine == MOCK_VLLM)) {
        return json_pack("{s:s}", "version", "9.8.7");
    }
    if (strncmp(path, "/server_info", strlen("/server_info")) == 0 && engine != MOCK_LLAMACPP) {
        return info_json(script);
    }
    if (strcmp(path, "/props") == 0 && engine == MOCK_LLAMACPP) {
        return json_pack("{s:s,s:s,s:s,s:i}", "build_info", "b9876-mock", "model_path", "mock.gguf",
                         "model_ftype", "Q4_K", "total_slots", (int)script->n_slots);
    }
    return NULL;
}

void mock_page(mock_server *s, mock_connection *c, const char *method, const char *path,
               qn_str body)
{
    const bool is_post = strcmp(method, "POST") == 0;
    json_t *identity = NULL;
    if (is_post && strcmp(path, "/mock/script") == 0) {
        reply_script(s, c, body);
    } else if (strcmp(path, "/mock/log") == 0 || strcmp(path, "/mock/log?chunks=0") == 0) {
        reply_log(s, c, strchr(path, '?') == NULL);
    } else if (is_post && strcmp(path, "/tokenize") == 0 && s->script.has_tokenize) {
        reply_tokenize(s, c, body);
    } else if (strcmp(path, "/metrics") == 0 && s->script.has_metrics) {
        reply_metrics(s, c);
    } else if (strcmp(path, "/v1/models") == 0) {
        mock_reply_json(c, 200, "", models_json(s));
    } else if (is_post &&
               (strcmp(path, "/flush_cache") == 0 || strcmp(path, "/reset_prefix_cache") == 0)) {
        mock_cache_clear();
        mock_reply_json(c, 200, "", json_pack("{}"));
    } else if (strcmp(path, "/health") == 0 || strcmp(path, "/ready") == 0) {
        mock_reply_json(c, 200, "", json_pack("{s:s}", "status", "ok"));
    } else if ((identity = identity_json(&s->script, path)) != NULL) {
        mock_reply_json(c, 200, "", identity);
    } else {
        mock_reply_json(c, 404, "", json_pack("{s:{s:s}}", "error", "message", "no such page"));
    }
}
