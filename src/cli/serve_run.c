/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include "commands.h"
#include "config_file.h"
#include "progress.h"
#include "report.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A server and what it serves. */
typedef struct serve {
    const serve_values *values;
    char *model_name; /* without slashes at its end, that shells write behind a folder */
    serve_plan plan;
    qn_server *server;
    qn_model *model;
    uint64_t n_pages, page_bytes;
    uint32_t page_tokens;
} serve;

/* ----------------------------------------------------------------------------------- signals -- */

static qn_server *volatile g_stopped_server; /* written before handlers are there and after */

static void on_stop(int number)
{
    (void)number;
    qn_server *const server = g_stopped_server;
    if (server != NULL) {
        server_stop(server);
    }
    cli_interrupt(); /* a model that is loading */
}

static const int stops[] = {SIGINT, SIGTERM, SIGHUP};

/* From now on they stop the server; NULL: they end the process. */
static void catch_stops(qn_server *server)
{
    const struct sigaction action = {.sa_handler = server != NULL ? on_stop : SIG_DFL,
                                     .sa_flags = (int)SA_RESTART};
    g_stopped_server = server != NULL ? server : g_stopped_server;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct sigaction old;
        if (sigaction(stops[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            (void)sigaction(stops[i], &action, NULL); /* nohup's wish counts */
        }
    }
    g_stopped_server = server;
}

/* ----------------------------------------------------------------------------------- loading -- */

/* --mem-fraction-static: the cache gets what weights leave. */
static qn_status share_memory(uint64_t *cache_bytes, double share, const qn_model_info *info,
                              qn_error *err)
{
    qn_device devices[16];
    const size_t n_devices = qn_devices(devices, sizeof devices / sizeof *devices);
    uint64_t bytes = 0;
    for (size_t i = 0; i < n_devices; i++) {
        bytes = strcmp(devices[i].name, info->device) == 0 ? devices[i].memory_bytes : bytes;
    }
    const double room = share * (double)bytes - (double)info->weight_bytes;
    const bool is_large = info->weight_bytes >= 1000000000;
    const double unit = is_large ? 1e-9 : 1e-6;
    if (room < 1.0) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__,
                       SERVE_MEMORY_SHARE ": %g of %.1f %s, expected more than the %.1f of the "
                                          "weights",
                       share, (double)bytes * unit, is_large ? "GB" : "MB",
                       (double)info->weight_bytes * unit);
    }
    *cache_bytes = (uint64_t)room;
    return QN_OK;
}

/* In the worker's thread. */
static qn_status load(void *context, server_backend *out, qn_error *err)
{
    serve *const s = context;
    const serve_values *const v = s->values;
    qn_engine_options options = s->plan.engine;
    qn_status status = cli_open_model(&s->model, s->model_name, &v->model,
                                      v->model.load_format == 1, v->common.is_quiet, err);
    if (status < 0) {
        return status;
    }
    const qn_model_info *const info = qn_model_get_info(s->model);
    options.context_tokens =
        options.context_tokens > 0 ? options.context_tokens : info->n_context_max;
    if (strcmp(info->device, "cpu") == 0) { /* of a GPU it is told whoever opens it */
        status = cli_check_kernels(s->model, v->model.strict, err);
    }
    if (status == QN_OK && v->memory_share > 0.0) {
        status = share_memory(&options.cache_bytes, v->memory_share, info, err);
    }
    if (status == QN_OK) {
        status = server_backend_open(out, s->model, &options, err);
    }
    if (status == QN_OK) {
        const qn_engine_stats stats = out->get_stats(out->context);
        s->n_pages = stats.n_pages_free + stats.n_pages_used + stats.n_pages_cached;
        s->page_bytes = stats.page_bytes;
        s->page_tokens = stats.page_tokens;
    }
    return status;
}

/* ------------------------------------------------------------------------------------- ready -- */

enum { URL_BYTES = 320 };

/* Lines for people; a log of JSON has none. */
static bool is_talkative(const serve *s)
{
    return !s->values->common.is_quiet && s->values->common.log_as_json == 0;
}

/* Where others find it: brackets around the colons of IPv6. */
static void show_url(char *out, size_t out_bytes, const serve *s)
{
    const server_options *const o = &s->plan.server;
    const bool is_v6 = strchr(o->host, ':') != NULL;
    (void)snprintf(out, out_bytes, "%s://%s%s%s:%u", o->tls_key != NULL ? "https" : "http",
                   is_v6 ? "[" : "", o->host, is_v6 ? "]" : "", server_port(s->server));
}

static void tell_ready(void *context)
{
    const serve *const s = context;
    const qn_model_info *const info = qn_model_get_info(s->model);
    const server_options *const o = &s->plan.server;
    char url[URL_BYTES];
    show_url(url, sizeof url, s);
    (void)printf("quern: %s serves %s: %s weights (%s), kernels %s, compute %s, cache %s, %llu "
                 "pages of %u positions (%.2f GB), %u sequences\n",
                 url, server_model_name(s->server),
                 strcmp(info->quantization, "none") == 0 ? "unquantized" : info->quantization,
                 info->weights, info->kernels, info->compute, info->kv_dtype,
                 (unsigned long long)s->n_pages, s->page_tokens,
                 (double)(s->n_pages * s->page_bytes) * 1e-9, s->plan.engine.n_sequences);
    (void)fflush(stdout);
    if (is_talkative(s)) {
        (void)fprintf(stderr,
                      "Try: curl %s%s/v1/chat/completions%s -d '{\"messages\": [{\"role\": "
                      "\"user\", \"content\": \"What is 12 + 30?\"}]}'\n",
                      o->tls_key != NULL ? "--cacert CERTIFICATE " : "", url,
                      o->n_api_keys > 0 ? " -H \"Authorization: Bearer $KEY\"" : "");
    }
}

/* --------------------------------------------------------------------------------------- run -- */

/* Listening, and what may be wrong with it in the words of the command line. */
static qn_status open_server(serve *s, qn_error *err)
{
    static const char tls[] = "tls_";
    qn_error why = {0};
    const qn_status status = server_open(&s->server, &s->plan.server, &why);
    if (status == QN_E_INVAL && strncmp(why.text, tls, strlen(tls)) == 0) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "--ssl-certfile, --ssl-keyfile: %s and %s, expected PEM of a certificate "
                       "and its key",
                       s->values->certificate, s->values->key);
    }
    if (status == QN_E_IO) { /* a port is a resource that others may have */
        return qn_fail(err, QN_E_DEVICE, why.sys, why.where, "--host, --port: %s", why.text);
    }
    *err = status < 0 ? why : *err;
    return status;
}

static qn_status serve_until_stopped(serve *s, qn_error *err)
{
    char url[URL_BYTES];
    qn_model_options options = {0};
    cli_model_fill(&options, &s->values->model);
    qn_status status = serve_fill(&s->plan, s->values, err);
    if (status == QN_OK) {
        status = qn_model_options_check(&options, err);
    }
    if (status == QN_OK && cli_is_interrupted()) {
        status = qn_fail(err, QN_E_CANCELLED, 0, __func__, "serve: interrupted, expected to begin");
    }
    if (status == QN_OK) {
        s->plan.server.ready = tell_ready;
        s->plan.server.ready_context = s;
        status = open_server(s, err);
    }
    if (status == QN_OK) {
        catch_stops(s->server);
        show_url(url, sizeof url, s);
    }
    if (status == QN_OK && is_talkative(s)) {
        (void)fprintf(stderr, "quern: listening on %s, loading %s\n", url, s->model_name);
    }
    if (status == QN_OK) {
        status = server_run(s->server, load, s, err);
        catch_stops(NULL);
    }
    server_close(&s->server);
    qn_model_close(&s->model);
    return status;
}

static qn_status set_model_name(serve *s, const char *name, qn_error *err)
{
    if (name == NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "serve: no model, expected a folder or owner/name, such as the small "
                       "models/glm-nano that comes with the source");
    }
    s->model_name = strdup(name);
    if (s->model_name == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "serve: no memory for the model's name");
    }
    for (size_t len = strlen(name); len > 1 && name[len - 1] == '/'; len--) {
        s->model_name[len - 1] = '\0';
    }
    return QN_OK;
}

int serve_run(void *values, int n_arguments, char **arguments)
{
    serve_values *const v = values;
    json_t *kept = NULL;
    qn_error err = {0};
    const bool has_option = cli_is_given(v, offsetof(serve_values, model_name));
    qn_status status = QN_OK;
    if (n_arguments > 0 && has_option && strcmp(arguments[0], v->model_name) != 0) {
        return cli_fail(QN_E_INVAL,
                        "--model: %.64s, expected %.64s as the argument says, or one "
                        "of the two",
                        v->model_name, arguments[0]);
    }
    if (v->config != NULL) {
        status = cli_config_apply(&kept, &cmd_serve, v, v->config, &err);
    }
    serve s = {.values = v};
    if (status == QN_OK) {
        status = set_model_name(&s, n_arguments > 0 ? arguments[0] : v->model_name, &err);
    }
    if (status == QN_OK) {
        qn_log_configure(v->common.is_quiet ? QN_LOG_ERROR : (qn_log_level)v->common.log_level,
                         v->common.log_as_json == 1);
        cli_warn_as_json(v->common.log_as_json == 1);
        serve_tell_ignored(v);
        status = serve_until_stopped(&s, &err);
    }
    const int exit_status = status < 0 ? cli_report(&err) : cli_flush(CLI_DONE);
    serve_unplan(&s.plan);
    free(s.model_name);
    json_decref(kept);
    return exit_status;
}
