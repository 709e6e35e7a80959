/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include "report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --------------------------------------------------------------------------------------- keys */

/* What stands in a header; a key never in a message. */
static qn_status check_word(const char *word, const char *where, const char *what, qn_error *err)
{
    bool is_visible = word[0] != '\0';
    for (const char *at = word; *at != '\0'; at++) {
        is_visible = is_visible && *at > ' ' && *at <= '~';
    }
    return is_visible ? QN_OK
                      : qn_fail(err, QN_E_INVAL, 0, __func__,
                                "%s: %s that is empty, has a blank or other than ASCII, expected "
                                "visible ASCII",
                                where, what);
}

static qn_status add_key(serve_plan *plan, const char *key, const char *where, qn_error *err)
{
    if (plan->server.n_api_keys == SERVE_API_KEYS_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "%s: over %d keys, expected at most that",
                       where, SERVE_API_KEYS_MAX);
    }
    plan->api_keys[plan->server.n_api_keys++] = key;
    return check_word(key, where, "a key", err);
}

/* Who may read the secrets in a file? */
static void warn_of_readers(const char *path, const char *what)
{
    struct stat there;
    if (stat(path, &there) == 0 && (there.st_mode & S_IROTH) != 0) {
        cli_warn("%s: mode %04o, expected %s to be readable by its owner alone (chmod 600)", path,
                 (unsigned)there.st_mode & 07777, what);
    }
}

/* One key a line; lines that begin with # are comments. */
static qn_status read_keys(serve_plan *plan, const char *path, qn_error *err)
{
    static const char blanks[] = " \t\r";
    const size_t n_before = plan->server.n_api_keys;
    size_t len = 0;
    qn_status status = cli_read_text(&plan->key_file, &len, path, err);
    if (status == QN_OK && strlen(plan->key_file) != len) {
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: a NUL, expected a text", path);
    }
    for (char *line = plan->key_file; status == QN_OK && line != NULL;) {
        char *const next = strchr(line, '\n');
        char *end = next != NULL ? next : line + strlen(line);
        line += strspn(line, blanks);
        while (end > line && strchr(blanks, end[-1]) != NULL) {
            end--;
        }
        *end = '\0';
        if (end > line && line[0] != '#') {
            status = add_key(plan, line, path, err);
        }
        line = next != NULL ? next + 1 : NULL;
    }
    if (status == QN_OK && plan->server.n_api_keys == n_before) { /* it would let everybody in */
        status = qn_fail(err, QN_E_FORMAT, 0, __func__, "%s: no key, expected one a line", path);
    }
    if (status == QN_E_INVAL) {
        status = err->status = QN_E_FORMAT;
    }
    warn_of_readers(path, "a file of keys");
    return status;
}

static qn_status fill_keys(serve_plan *plan, const serve_values *v, qn_error *err)
{
    qn_status status = QN_OK;
    for (size_t i = 0; status == QN_OK && i < v->api_keys.n_items; i++) {
        status = add_key(plan, v->api_keys.items[i], "--api-key", err);
    }
    if (status == QN_OK && v->api_key_file != NULL) {
        status = read_keys(plan, v->api_key_file, err);
    }
    if (status == QN_OK && v->admin_key != NULL) {
        status = check_word(v->admin_key, "--admin-api-key", "a key", err);
    }
    if (v->config != NULL && (v->api_keys.n_items > 0 || v->admin_key != NULL)) {
        warn_of_readers(v->config, "a file with keys");
    }
    plan->server.api_keys = plan->api_keys;
    plan->server.admin_key = v->admin_key;
    return status;
}

/* ------------------------------------------------------------------------ connections, files -- */

static qn_status fill_tls(serve_plan *plan, const serve_values *v, qn_error *err)
{
    size_t len = 0;
    if ((v->certificate == NULL) != (v->key == NULL)) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "--%s: missing, expected beside --%s",
                       v->key == NULL ? "ssl-keyfile" : "ssl-certfile",
                       v->key == NULL ? "ssl-certfile" : "ssl-keyfile");
    }
    if (v->key == NULL) {
        return QN_OK;
    }
    qn_status status = cli_read_text(&plan->certificate, &len, v->certificate, err);
    if (status == QN_OK) {
        status = cli_read_text(&plan->key, &len, v->key, err);
    }
    if (status == QN_OK) {
        warn_of_readers(v->key, "a private key");
    }
    plan->server.tls_certificate = plan->certificate;
    plan->server.tls_key = plan->key;
    return status;
}

/* "*", an origin, or vLLM's list of one. */
static qn_status fill_origin(serve_plan *plan, const char *text, qn_error *err)
{
    if (text == NULL) {
        return QN_OK;
    }
    json_t *const list = text[0] == '[' ? json_loads(text, 0, NULL) : NULL;
    const char *const origin = text[0] != '[' ? text
                               : json_array_size(list) == 1
                                   ? json_string_value(json_array_get(list, 0))
                                   : NULL;
    const bool is_one = origin != NULL && strchr(origin, ',') == NULL;
    plan->origin = is_one ? strdup(origin) : NULL;
    plan->server.cors_origin = plan->origin;
    json_decref(list);
    if (!is_one) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--allowed-origins: \"%.64s\", expected * or one origin", text);
    }
    if (plan->origin == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "--allowed-origins: no memory to keep it");
    }
    return check_word(plan->origin, "--allowed-origins", "an origin", err);
}

static qn_status fill_limits(serve_plan *plan, const serve_values *v, qn_error *err)
{
    server_options *const s = &plan->server;
    qn_status status = QN_OK;
    s->prompt_tokens_max = (uint32_t)v->n_prompt_tokens;
    s->n_connections_max = (uint32_t)v->n_connections;
    s->n_connections_address_max = (uint32_t)v->n_connections_address;
    s->n_readers = (uint32_t)v->n_readers;
    s->header_timeout_s = v->header_s;
    s->body_timeout_s = v->body_s;
    s->idle_timeout_s = v->idle_s;
    s->write_timeout_s = v->write_s;
    s->keep_alive_s = v->silence_s;
    s->shutdown_timeout_s = v->shutdown_s;
    s->watchdog_timeout_s = v->watchdog_s;
    s->logs_prompts = v->logs_prompts;
    if (v->body_size != NULL) {
        status = cli_parse_size(&s->body_bytes_max, "--max-body-size", v->body_size, err);
    }
    if (status == QN_OK && v->stream_size != NULL) {
        status = cli_parse_size(&s->stream_bytes_max, "--max-stream-buffer", v->stream_size, err);
    }
    return status;
}

/* ------------------------------------------------------------------------------------ engine -- */

/* They go into answers, metrics and lines of the log. */
static qn_status check_names(const cli_list *names, qn_error *err)
{
    for (size_t i = 0; i < names->n_items; i++) {
        bool is_good = names->items[i][0] != '\0';
        for (const char *at = names->items[i]; *at != '\0'; at++) {
            is_good = is_good && (unsigned char)*at >= ' ';
        }
        if (!is_good) {
            return qn_fail(
                err, QN_E_INVAL, 0, __func__,
                "--served-model-name: a name that is empty or of several lines, expected "
                "what clients call it");
        }
    }
    return QN_OK;
}

/* Drafts accepted unseen, for benchmarks: of a depth that is said. */
static qn_status fill_acceptance(serve_plan *plan, double length, qn_error *err)
{
    const int depth = plan->server.draft_tokens;
    if (depth < 1 || length > (double)depth + 1.0) {
        return qn_fail(err, QN_E_INVAL, 0, __func__,
                       "--acceptance-length: %g, expected beside a --draft-tokens of at least one "
                       "less",
                       length);
    }
    cli_warn("--acceptance-length %g: synthetic, answers are not the model's", length);
    plan->server.acceptance_length = (float)length;
    return QN_OK;
}

static qn_status fill_engine(serve_plan *plan, const serve_values *v, qn_error *err)
{
    int *const draft_tokens = &plan->server.draft_tokens;
    qn_status status = cli_engine_fill(&plan->engine, draft_tokens, &v->engine, err);
    if (status == QN_OK) {
        status = serve_speculation(draft_tokens, v, err);
    }
    if (status == QN_OK && v->memory_share > 0.0 && v->engine.page_cache != NULL) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__,
                         SERVE_MEMORY_SHARE ": given beside --page-cache, expected one of them");
    }
    if (status == QN_OK && v->acceptance_length > 0.0) {
        status = fill_acceptance(plan, v->acceptance_length, err);
    }
    plan->engine.no_mtp = *draft_tokens == QN_DRAFT_NONE;
    plan->engine.n_queue = (uint32_t)v->n_queue;
    return status;
}

qn_status serve_fill(serve_plan *plan, const serve_values *values, qn_error *err)
{
    *plan = (serve_plan){.server = server_options_default()};
    plan->server.host = values->host;
    plan->server.port = (uint16_t)values->port;
    plan->server.names = values->names.items;
    plan->server.n_names = values->names.n_items;
    qn_status status = check_names(&values->names, err);
    if (status == QN_OK) {
        status = fill_engine(plan, values, err);
    }
    if (status == QN_OK) {
        status = fill_limits(plan, values, err);
    }
    if (status == QN_OK) {
        status = fill_origin(plan, values->origin, err);
    }
    if (status == QN_OK) {
        status = fill_keys(plan, values, err);
    }
    if (status == QN_OK) {
        status = fill_tls(plan, values, err);
    }
    return status;
}

void serve_unplan(serve_plan *plan)
{
    free(plan->key_file);
    free(plan->certificate);
    free(plan->key);
    free(plan->origin);
    *plan = (serve_plan){0};
}
