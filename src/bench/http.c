/* SPDX-License-Identifier: Apache-2.0 */
#include "http.h"

#include "base/assert.h"
#include "base/json.h"
#include "base/try.h"
#include "easy.h"
#include "url.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { REPLY_BYTES_MAX = 64 << 20 };
#define ASK_MAX_S 30.0

/* ------------------------------------------------------------------------------------- handles */

long bench_milliseconds(double seconds)
{
    const double ms = ceil(seconds * 1e3);
    return ms < 1 ? 1 : ms > INT32_MAX ? INT32_MAX : (long)ms;
}

/* libcurl sends a header as it is, line ends and all. */
static bool is_header(const char *text)
{
    const size_t n_name = strcspn(text, ": \t\r\n");
    return n_name > 0 && text[n_name] == ':' && strpbrk(text, "\r\n") == NULL;
}

static bool add_header(struct curl_slist **list, const char *text)
{
    struct curl_slist *const more = curl_slist_append(*list, text);
    *list = more != NULL ? more : *list;
    return more != NULL;
}

static bool add_key(struct curl_slist **list, const char *api_key)
{
    if (api_key == NULL) {
        return true;
    }
    qn_buf line = {.bytes_max = 1 << 16};
    const bool is_added =
        qn_buf_append_printf(&line, NULL, "Authorization: Bearer %s", api_key) == QN_OK &&
        add_header(list, line.ptr);
    qn_buf_deinit(&line);
    return is_added;
}

qn_status bench_headers(struct curl_slist **out, const bench_target *target, qn_error *err)
{
    *out = NULL;
    qn_status status = QN_OK;
    struct curl_slist *list = NULL;
    bool has_own_key = false;
    if (target->api_key != NULL && strpbrk(target->api_key, "\r\n") != NULL) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "--api-key: a line end, one line expected");
    }
    bool is_added =
        add_header(&list, "Expect:") && add_header(&list, "Content-Type: application/json");
    for (size_t i = 0; i < target->n_headers && is_added; i++) {
        const char *const header = target->headers[i];
        if (!is_header(header)) {
            status =
                qn_fail(err, QN_E_INVAL, 0, __func__, "--header: %s, NAME: VALUE expected", header);
            goto fail;
        }
        has_own_key = has_own_key || strncasecmp(header, "Authorization:", 14) == 0;
        is_added = add_header(&list, header);
    }
    if (!is_added || !add_key(&list, has_own_key ? NULL : target->api_key)) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "headers: no memory");
        goto fail;
    }
    *out = list;
    return QN_OK;

fail:
    curl_slist_free_all(list);
    return status;
}

static bool set_up(CURL *easy, const bench_target *target, const char *url,
                   struct curl_slist *headers, char *error_text)
{
    const long is_checked = target->is_insecure ? 0L : 1L;
    return curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_text) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, is_checked) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, is_checked * 2) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, bench_milliseconds(target->timeout_s)) ==
               CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                            bench_milliseconds(target->connect_s)) == CURLE_OK;
}

qn_status bench_easy_open(CURL **out, const bench_target *target, const char *path,
                          struct curl_slist *headers, char *error_text, qn_error *err)
{
    *out = NULL;
    qn_buf url = {.bytes_max = 1 << 16};
    bench_url parts;
    qn_status status = bench_url_open(&parts, target->base_url, err);
    bench_url_close(&parts);
    if (status != QN_OK) {
        return status;
    }
    status = qn_buf_append_printf(&url, err, "%s%s", target->base_url, path);
    CURL *const easy = curl_easy_init();
    if (status == QN_OK && (easy == NULL || !set_up(easy, target, url.ptr, headers, error_text))) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to ask it", url.ptr);
    }
    qn_buf_deinit(&url);
    if (status != QN_OK) {
        curl_easy_cleanup(easy);
        return status;
    }
    *out = easy;
    return QN_OK;
}

void bench_easy_close(CURL **easy)
{
    curl_easy_cleanup(*easy);
    *easy = NULL;
}

/* -------------------------------------------------------------------------------- one question */

/* A reply that is being read. */
typedef struct reading {
    const bench_target *target;
    const char *path;
    qn_buf *body;
    qn_status status;
    qn_error *err;
} reading;

/* libcurl ends a transfer of which less is taken than came. */
static size_t take_body(char *bytes, size_t size, size_t n, void *context)
{
    reading *const r = context;
    if (size * n >= REPLY_BYTES_MAX - r->body->len) {
        r->status = qn_fail(r->err, QN_E_IO, 0, __func__, "%s%s: an answer of more than %d MB",
                            r->target->base_url, r->path, REPLY_BYTES_MAX >> 20);
        return 0;
    }
    r->status = qn_buf_append(r->body, bytes, size * n, r->err);
    return r->status == QN_OK ? size * n : 0;
}

/* libcurl: does it go on?  0: yes. */
static int ask_on(void *context, curl_off_t in_all, curl_off_t in_now, curl_off_t out_all,
                  curl_off_t out_now)
{
    const bench_target *const target = context;
    (void)in_all, (void)in_now, (void)out_all, (void)out_now;
    return target->goes_on == NULL || target->goes_on(target->context) ? 0 : 1;
}

static qn_status ask(CURL *easy, bench_reply *reply, const bench_target *target, const char *path,
                     const char *error_text, qn_error *err)
{
    reading r = {.target = target, .path = path, .body = &reply->body, .err = err};
    const double wait_s = fmin(target->timeout_s, ASK_MAX_S);
    if (curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, bench_milliseconds(wait_s)) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, ask_on) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_XFERINFODATA, target) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, &r) != CURLE_OK) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to ask it", path);
    }
    const CURLcode code = curl_easy_perform(easy);
    if (r.status != QN_OK) {
        return r.status;
    }
    if (code == CURLE_OUT_OF_MEMORY) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to ask it", path);
    }
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        return qn_fail(err, QN_E_CANCELLED, 0, __func__, "%s%s: interrupted", target->base_url,
                       path);
    }
    if (code != CURLE_OK) {
        return qn_fail(err, QN_E_IO, 0, __func__, "%s%s: %s, an answer expected", target->base_url,
                       path, error_text[0] != '\0' ? error_text : curl_easy_strerror(code));
    }
    long status_of_http = 0;
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status_of_http);
    reply->status = (int)status_of_http;
    return QN_OK;
}

struct bench_asker {
    CURL *easy;                 /* owned */
    struct curl_slist *headers; /* owned */
    char error_text[CURL_ERROR_SIZE];
};

void bench_asker_close(bench_asker **asker)
{
    if (*asker != NULL) {
        bench_easy_close(&(*asker)->easy);
        curl_slist_free_all((*asker)->headers);
        free(*asker);
        *asker = NULL;
    }
}

static qn_status open_asker(bench_asker **out, const bench_target *target, const char *path,
                            qn_error *err)
{
    qn_status status = QN_OK;
    bench_asker *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to ask it", path);
    }
    QN_TRY(status, bench_headers(&a->headers, target, err), fail);
    QN_TRY(status, bench_easy_open(&a->easy, target, path, a->headers, a->error_text, err), fail);
    *out = a;
    return QN_OK;

fail:
    bench_asker_close(&a);
    return status;
}

/* What one question has of its own. */
static qn_status set_question(CURL *easy, const bench_target *target, const char *path,
                              const char *body, qn_error *err)
{
    qn_buf url = {.bytes_max = 1 << 16};
    qn_status status = qn_buf_append_printf(&url, err, "%s%s", target->base_url, path);
    if (status == QN_OK &&
        (curl_easy_setopt(easy, CURLOPT_URL, url.ptr) != CURLE_OK ||
         (body != NULL ? curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body)
                       : curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L)) != CURLE_OK)) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory to ask it", path);
    }
    qn_buf_deinit(&url);
    return status;
}

qn_status bench_http_kept(bench_asker **kept, bench_reply *reply, const bench_target *target,
                          const char *path, const char *body, qn_error *err)
{
    qn_status status = QN_OK;
    bench_http_free(reply);
    qn_buf_init(&reply->body, REPLY_BYTES_MAX);
    if (*kept == NULL) {
        QN_TRY(status, open_asker(kept, target, path, err), fail);
    }
    QN_ASSERT(*kept != NULL);
    (*kept)->error_text[0] = '\0';
    QN_TRY(status, set_question((*kept)->easy, target, path, body, err), fail);
    QN_TRY(status, ask((*kept)->easy, reply, target, path, (*kept)->error_text, err), fail);
    return QN_OK;

fail:
    bench_asker_close(kept);
    return status;
}

qn_status bench_http(bench_reply *reply, const bench_target *target, const char *path,
                     const char *body, qn_error *err)
{
    bench_asker *once = NULL;
    const qn_status status = bench_http_kept(&once, reply, target, path, body, err);
    bench_asker_close(&once);
    return status;
}

void bench_http_free(bench_reply *reply)
{
    qn_buf_deinit(&reply->body);
    reply->status = 0;
}

qn_status bench_http_json(json_t **out, const bench_target *target, const char *path,
                          const char *body, qn_error *err)
{
    bench_reply reply = {0};
    *out = NULL;
    qn_status status = bench_http(&reply, target, path, body, err);
    if (status == QN_OK && reply.status == 200) {
        qn_error parse_err = {0};
        status = qn_json_parse(out, qn_buf_view(&reply.body), path, &parse_err);
        if (status == QN_E_NOMEM) {
            (void)qn_fail(err, status, parse_err.sys, __func__, "%s", parse_err.text);
        } else {
            status = QN_OK; /* what is no JSON is no answer */
        }
    }
    bench_http_free(&reply);
    return status;
}
