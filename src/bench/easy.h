/* SPDX-License-Identifier: Apache-2.0 */
/** @file easy.h  A handle of libcurl set up for a target: what single questions and the load's
 * requests have in common. */
#ifndef QN_BENCH_EASY_H
#define QN_BENCH_EASY_H
#include "http.h"

#include <curl/curl.h>

/**
 * The headers of every request: the API key's, those of the user, JSON as the body's type.  Of
 * libcurl's own none wait for the server ("Expect").
 *
 * @param[out] out  owned by the caller (curl_slist_free_all); NULL on failure
 * Returns  QN_OK; QN_E_INVAL for a header of the user that is none; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_headers(struct curl_slist **out, const bench_target *target,
                                      qn_error *err);

/**
 * A handle for @p path of the target.  Proxies of the environment and .netrc are not used,
 * redirects not followed, compression not asked for: the server itself is measured.
 *
 * @param headers     borrowed until it is closed
 * @param error_text  [CURL_ERROR_SIZE], borrowed until it is closed: what libcurl says of a failure
 * Returns  QN_OK; QN_E_INVAL where base_url is no http or https URL with a host; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_easy_open(CURL **out, const bench_target *target, const char *path,
                                        struct curl_slist *headers, char *error_text,
                                        qn_error *err);

/** NULL is fine. */
void bench_easy_close(CURL **easy);

/** @p seconds as libcurl's options take it: at least 1 ms, for 0 means none there. */
long bench_milliseconds(double seconds);
#endif
