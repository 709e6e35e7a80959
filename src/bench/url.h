/* SPDX-License-Identifier: Apache-2.0 */
/** @file url.h  The parts of a server's URL, as libcurl reads them. */
#ifndef QN_BENCH_URL_H
#define QN_BENCH_URL_H
#include "quern/quern.h"

/** All-zero is closed.  Texts are owned (bench_url_close). */
typedef struct bench_url {
    char *host;  /**< Of an address of IPv6 without brackets. */
    char *port;  /**< The scheme's where none is given. */
    char *clean; /**< The URL without name and password, and without a last '/'. */
} bench_url;

/** Returns  QN_OK; QN_E_INVAL naming --base-url where it is no http or https URL with a host;
 *           QN_E_NOMEM */
QN_MUST_CHECK qn_status bench_url_open(bench_url *out, const char *text, qn_error *err);
void bench_url_close(bench_url *url);
#endif
