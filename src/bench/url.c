/* SPDX-License-Identifier: Apache-2.0 */
#include "url.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>

static CURLUcode take_parts(bench_url *out, CURLU *from, const char *text)
{
    CURLUcode code = curl_url_set(from, CURLUPART_URL, text, 0);
    code = code == CURLUE_OK ? curl_url_get(from, CURLUPART_HOST, &out->host, 0) : code;
    code = code == CURLUE_OK ? curl_url_get(from, CURLUPART_PORT, &out->port, CURLU_DEFAULT_PORT)
                             : code;
    code = code == CURLUE_OK ? curl_url_set(from, CURLUPART_USER, NULL, 0) : code;
    code = code == CURLUE_OK ? curl_url_set(from, CURLUPART_PASSWORD, NULL, 0) : code;
    return code == CURLUE_OK ? curl_url_get(from, CURLUPART_URL, &out->clean, 0) : code;
}

qn_status bench_url_open(bench_url *out, const char *text, qn_error *err)
{
    *out = (bench_url){0};
    CURLU *const url = curl_url();
    const CURLUcode code = url != NULL ? take_parts(out, url, text) : CURLUE_OUT_OF_MEMORY;
    curl_url_cleanup(url);
    if (code == CURLUE_OUT_OF_MEMORY) {
        bench_url_close(out);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "--base-url: no memory to read it");
    }
    if (code != CURLUE_OK || strncmp(out->clean, "http", 4) != 0) {
        bench_url_close(out);
        return qn_fail(err, QN_E_INVAL, 0, __func__, "--base-url: '%s', http://HOST:PORT expected",
                       text);
    }
    const size_t n_host = strlen(out->host);
    const size_t n_clean = strlen(out->clean);
    if (out->host[0] == '[') {
        memmove(out->host, out->host + 1, n_host - 2);
        out->host[n_host - 2] = '\0';
    }
    if (out->clean[n_clean - 1] == '/') {
        out->clean[n_clean - 1] = '\0';
    }
    return QN_OK;
}

void bench_url_close(bench_url *url)
{
    curl_free(url->host);
    curl_free(url->port);
    curl_free(url->clean);
    *url = (bench_url){0};
}
