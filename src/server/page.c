/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/json_doc.h"
#include "base/str.h"
#include "base/try.h"
#include "server/http.h"

/* What a page that could not be put together is instead. */
static bool finish(qn_status status, server_error *error)
{
    if (status >= 0) {
        return true;
    }
    server_fail_memory(error, "page");
    return false;
}

static const char *bool_name(bool value)
{
    return value ? "true" : "false";
}

/* ---------------------------------------------------------------------------------------- state */

bool page_health(const http_connection *connection, qn_buf *out, server_error *error)
{
    (void)connection;
    return finish(qn_buf_append_printf(out, NULL, "{\"status\":\"ok\"}\n"), error);
}

/* A step takes a share of the watchdog's time: others had better be asked.  It is not too late for
 * it, so that /health leaves it to the watchdog, which tells why. */
static bool is_stalled(const qn_server *server, server_error *error)
{
    const double busy_s = board_busy_s(server->board, BOARD_WORKER);
    const double max_s = server->options.watchdog_timeout_s / HTTP_STALL_SHARE;
    if (!(max_s > 0) || busy_s <= max_s) {
        return false;
    }
    server_fail(error, MHD_HTTP_SERVICE_UNAVAILABLE, "stalled", "",
                "server: a step takes %.1f s, expected its end within %g s", busy_s, max_s);
    error->retry_after_s = HTTP_RETRY_STALLED_S;
    return true;
}

/* Steps fail one like the other then: requests had better go elsewhere.  The log has the reason. */
static bool is_lost(qn_server *server, server_error *error)
{
    if (!worker_get_stats(server->worker).is_lost) {
        return false;
    }
    server_fail(error, MHD_HTTP_SERVICE_UNAVAILABLE, "device_lost", "",
                "server: its device is lost, expected this process to be started again");
    return true;
}

bool page_ready(const http_connection *connection, qn_buf *out, server_error *error)
{
    return !server_is_closed(connection->server, error) && !is_stalled(connection->server, error) &&
           !is_lost(connection->server, error) &&
           finish(qn_buf_append_printf(out, NULL, "{\"status\":\"ready\"}\n"), error);
}

bool page_metrics(const http_connection *connection, qn_buf *out, server_error *error)
{
    qn_server *const server = connection->server;
    const qn_engine_stats stats =
        server->is_ready ? worker_get_stats(server->worker) : (qn_engine_stats){0};
    const metrics_now now = {
        .engine = stats,
        .model = server->settings.model,
        .name = server->is_ready ? server_model_name(server) : NULL,
        .n_connections = server->n_connections,
        .is_ready = server->is_ready && !server->is_draining && !stats.is_lost,
        .is_draining = server->is_draining,
    };
    return finish(metrics_append(out, server->metrics, &now, NULL), error);
}

bool page_version(const http_connection *connection, qn_buf *out, server_error *error)
{
    (void)connection;
    const qn_build *const build = qn_build_get();
    return finish(qn_buf_append_printf(
                      out, NULL, "{\"version\":\"%s\",\"commit\":\"%s\",\"compiler\":\"%s\"}\n",
                      build->version, build->commit, build->compiler),
                  error);
}

/* --------------------------------------------------------------------------------------- models */

static qn_status quote(qn_buf *out, const char *text)
{
    return qn_json_quote_append(out, qn_str_of(text), NULL);
}

/* One object that clients of OpenAI and of Anthropic both read. */
static qn_status append_model(qn_buf *out, const qn_server *server, const char *name)
{
    qn_status status = QN_OK;
    char date[32] = "";
    struct tm parts;
    if (gmtime_r(&server->created, &parts) != NULL) {
        (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    QN_TRY(status, qn_buf_append_printf(out, NULL, "{\"id\":"), fail);
    QN_TRY(status, quote(out, name), fail);
    QN_TRY(status,
           qn_buf_append_printf(out, NULL,
                                ",\"object\":\"model\",\"type\":\"model\",\"created\":%lld,"
                                "\"created_at\":\"%s\",\"owned_by\":\"quern\",\"root\":",
                                (long long)server->created, date),
           fail);
    QN_TRY(status, quote(out, qn_model_get_info(server->settings.model)->name), fail);
    QN_TRY(status, qn_buf_append_printf(out, NULL, ",\"display_name\":"), fail);
    QN_TRY(status, quote(out, name), fail);
    QN_TRY(
        status,
        qn_buf_append_printf(out, NULL, ",\"max_model_len\":%u}", server->backend->context_tokens),
        fail);

fail:
    return status;
}

static size_t count_names(const qn_server *server)
{
    return server->options.n_names > 0 ? server->options.n_names : 1;
}

static const char *name_of(const qn_server *server, size_t i_name)
{
    return server->options.n_names > 0 ? server->options.names[i_name] : server_model_name(server);
}

static qn_status append_models(qn_buf *out, const qn_server *server)
{
    qn_status status = QN_OK;
    const size_t n = count_names(server);
    QN_TRY(status, qn_buf_append_printf(out, NULL, "{\"object\":\"list\",\"data\":["), fail);
    for (size_t i = 0; i < n; i++) {
        QN_TRY(status, qn_buf_append(out, ",", i > 0, NULL), fail);
        QN_TRY(status, append_model(out, server, name_of(server, i)), fail);
    }
    QN_TRY(status, qn_buf_append_printf(out, NULL, "],\"has_more\":false,\"first_id\":"), fail);
    QN_TRY(status, quote(out, name_of(server, 0)), fail);
    QN_TRY(status, qn_buf_append_printf(out, NULL, ",\"last_id\":"), fail);
    QN_TRY(status, quote(out, name_of(server, n - 1)), fail);
    QN_TRY(status, qn_buf_append_printf(out, NULL, "}\n"), fail);

fail:
    return status;
}

bool page_models(const http_connection *connection, qn_buf *out, server_error *error)
{
    const qn_server *const server = connection->server;
    return finish(append_models(out, server), error);
}

bool page_model(const http_connection *connection, qn_buf *out, server_error *error)
{
    const qn_server *const server = connection->server;
    const char *const name = connection->path + strlen(connection->route->path);
    for (size_t i = 0; i < count_names(server); i++) {
        if (strcmp(name, name_of(server, i)) == 0) {
            return finish(append_model(out, server, name), error);
        }
    }
    server_fail(error, MHD_HTTP_NOT_FOUND, "model_not_found", "model", "model: %s, expected %s",
                name, name_of(server, 0));
    return false;
}

/* --------------------------------------------------------------------------------- all about it */

static qn_status append_facts(qn_buf *out, const qn_server *server)
{
    qn_status status = QN_OK;
    const qn_model_info *const info = qn_model_get_info(server->settings.model);
    QN_TRY(status, qn_buf_append_printf(out, NULL, ",\"model\":{\"name\":"), fail);
    QN_TRY(status, quote(out, server_model_name(server)), fail);
    QN_TRY(status, qn_buf_append_printf(out, NULL, ",\"path\":"), fail);
    QN_TRY(status, quote(out, info->path), fail);
    QN_TRY(status,
           qn_buf_append_printf(
               out, NULL,
               ",\"architecture\":\"%s\",\"quantization\":\"%s\",\"weights\":\"%s\","
               "\"device\":\"%s\",\"kernels\":\"%s\",\"compute\":\"%s\",\"kv_dtype\":\"%s\","
               "\"chat_format\":\"%s\",\"parameters\":%llu,\"weight_bytes\":%llu,\"layers\":%u,"
               "\"threads\":%u,\"has_mtp\":%s,\"deterministic\":%s}",
               info->architecture, info->quantization, info->weights, info->device, info->kernels,
               info->compute, info->kv_dtype, info->chat_format,
               (unsigned long long)info->n_parameters, (unsigned long long)info->weight_bytes,
               info->n_layers, info->n_threads, bool_name(info->has_mtp),
               bool_name(info->is_deterministic)),
           fail);

fail:
    return status;
}

static qn_status append_kernels(qn_buf *out, const qn_server *server)
{
    qn_status status = QN_OK;
    qn_kernel_choice *choices = NULL;
    size_t n = 0;
    QN_TRY(status, server_list_kernels(&choices, &n, server->settings.model, NULL), fail);
    QN_TRY(status, qn_buf_append_printf(out, NULL, ",\"kernels\":["), fail);
    for (size_t i = 0; i < n; i++) {
        const qn_kernel_choice *const at = &choices[i];
        char rows[16] = "null";
        if (at->n_rows > 0 && at->n_rows < UINT32_MAX) {
            (void)snprintf(rows, sizeof rows, "%u", at->n_rows);
        }
        QN_TRY(status,
               qn_buf_append_printf(out, NULL,
                                    "%s{\"operation\":\"%s\",\"weights\":\"%s\",\"n_in\":%u,"
                                    "\"n_out\":%u,\"n_groups\":%u,\"pair\":%s,\"rows_max\":%s,"
                                    "\"variant\":\"%s\",\"source\":\"%s\",\"uses\":%u}",
                                    i > 0 ? "," : "", at->operation, at->weights, at->n_in,
                                    at->n_out, at->n_groups, bool_name(at->is_pair), rows,
                                    at->variant, at->source, at->n_uses),
               fail);
    }
    QN_TRY(status, qn_buf_append_printf(out, NULL, "]"), fail);

fail:
    free(choices);
    return status;
}

static qn_status append_limits(qn_buf *out, const qn_server *server)
{
    const server_options *const options = &server->options;
    const server_backend *const backend = server->backend;
    return qn_buf_append_printf(
        out, NULL,
        ",\"limits\":{\"sequences\":%u,\"queue\":%u,\"context_tokens\":%u,\"prompt_tokens\":%u,"
        "\"body_bytes\":%llu,\"stream_bytes\":%llu,\"connections\":%u,"
        "\"connections_of_an_address\":%u,\"header_timeout_s\":%g,\"body_timeout_s\":%g,"
        "\"idle_timeout_s\":%g,\"write_timeout_s\":%g,\"keep_alive_s\":%g,"
        "\"shutdown_timeout_s\":%g}",
        backend != NULL ? backend->n_sequences : 0, backend != NULL ? backend->n_queue : 0,
        backend != NULL ? backend->context_tokens : 0, options->prompt_tokens_max,
        (unsigned long long)options->body_bytes_max, (unsigned long long)options->stream_bytes_max,
        options->n_connections_max, options->n_connections_address_max, options->header_timeout_s,
        options->body_timeout_s, options->idle_timeout_s, options->write_timeout_s,
        options->keep_alive_s, options->shutdown_timeout_s);
}

static qn_status append_engine(qn_buf *out, const qn_engine_stats *stats)
{
    return qn_buf_append_printf(
        out, NULL,
        ",\"engine\":{\"running\":%u,\"waiting\":%u,\"pages_free\":%llu,\"pages_used\":%llu,"
        "\"pages_cached\":%llu,\"page_bytes\":%llu,\"workspace_bytes\":%llu,\"steps\":%llu,"
        "\"prompt_tokens\":%llu,\"cached_tokens\":%llu,\"generated_tokens\":%llu,"
        "\"drafted_tokens\":%llu,\"accepted_tokens\":%llu,\"preempted\":%llu,"
        "\"evicted_pages\":%llu,\"trunk_launches\":%u,\"draft_launches\":%u,"
        "\"follow_launches\":%u}",
        stats->n_running, stats->n_waiting, (unsigned long long)stats->n_pages_free,
        (unsigned long long)stats->n_pages_used, (unsigned long long)stats->n_pages_cached,
        (unsigned long long)stats->page_bytes, (unsigned long long)stats->workspace_bytes,
        (unsigned long long)stats->n_steps, (unsigned long long)stats->n_prompt_tokens,
        (unsigned long long)stats->n_cached_tokens, (unsigned long long)stats->n_generated_tokens,
        (unsigned long long)stats->n_drafted, (unsigned long long)stats->n_accepted,
        (unsigned long long)stats->n_preempted, (unsigned long long)stats->n_evicted,
        stats->n_trunk_launches, stats->n_draft_launches, stats->n_follow_launches);
}

static qn_status append_requests(qn_buf *out, const qn_server *server)
{
    qn_status status = QN_OK;
    const char *comma = "";
    const uint64_t now_ns = qn_clock_ns();
    QN_TRY(status, qn_buf_append_printf(out, NULL, ",\"requests\":["), fail);
    for (const http_call *call = server->calls; call != NULL; call = call->next) {
        const board_entry *const entry = call->board;
        if (entry == NULL) {
            continue;
        }
        QN_TRY(status,
               qn_buf_append_printf(
                   out, NULL,
                   "%s{\"id\":\"%s\",\"path\":\"%s\",\"stage\":\"%s\",\"seconds\":%.3f,"
                   "\"prompt_tokens\":%llu,\"generated_tokens\":%llu}",
                   comma, call->id, call->route->path,
                   board_stage_name((board_stage)atomic_load(&entry->stage)),
                   qn_clock_seconds(call->head_ns, now_ns),
                   (unsigned long long)atomic_load(&entry->n_prompt),
                   (unsigned long long)atomic_load(&entry->n_generated)),
               fail);
        comma = ",";
    }
    QN_TRY(status, qn_buf_append_printf(out, NULL, "]"), fail);

fail:
    return status;
}

/* How deep requests draft that do not say it: 0 without the layer, "auto", or a depth; and whether
 * drafts are accepted unseen. */
static qn_status append_depth(qn_buf *out, const qn_server *server)
{
    const int depth = server->options.draft_tokens;
    const double pinned = (double)server->options.acceptance_length;
    if (pinned > 0) {
        return qn_buf_append_printf(
            out, NULL, ",\"draft_tokens\":%d,\"pinned_acceptance_length\":%g", depth, pinned);
    }
    if (!qn_model_get_info(server->settings.model)->has_mtp || depth == QN_DRAFT_NONE) {
        return qn_buf_append_printf(out, NULL, ",\"draft_tokens\":0");
    }
    return depth > 0 ? qn_buf_append_printf(out, NULL, ",\"draft_tokens\":%d", depth)
                     : qn_buf_append_printf(out, NULL, ",\"draft_tokens\":\"auto\"");
}

static qn_status append_info(qn_buf *out, const qn_server *server)
{
    qn_status status = QN_OK;
    QN_TRY(status,
           qn_buf_append_printf(out, NULL,
                                "{\"version\":\"%s\",\"ready\":%s,\"draining\":%s,"
                                "\"seconds\":%.3f,\"connections\":%u,\"open_answers\":%llu",
                                qn_build_get()->version, bool_name(server->is_ready),
                                bool_name(server->is_draining),
                                qn_clock_seconds(server->begun_ns, qn_clock_ns()),
                                server->n_connections, (unsigned long long)server->n_open_choices),
           fail);
    if (server->is_ready) {
        const qn_engine_stats stats = worker_get_stats(server->worker);
        QN_TRY(status, append_facts(out, server), fail);
        QN_TRY(status, append_depth(out, server), fail);
        QN_TRY(status, append_kernels(out, server), fail);
        QN_TRY(status, append_engine(out, &stats), fail);
    }
    QN_TRY(status, append_limits(out, server), fail);
    QN_TRY(status, append_requests(out, server), fail);
    QN_TRY(status, qn_buf_append_printf(out, NULL, "}\n"), fail);

fail:
    return status;
}

bool page_info(const http_connection *connection, qn_buf *out, server_error *error)
{
    return finish(append_info(out, connection->server), error);
}
