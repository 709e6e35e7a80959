/* SPDX-License-Identifier: Apache-2.0 */
/** @file page.h  The page of a result, where --report names a file that ends in .html. */
#ifndef QN_CLI_PAGE_H
#define QN_CLI_PAGE_H
#include "quern/quern.h"

#include <jansson.h>
#include <stdio.h>

/** Does the name end in .html? */
bool cli_is_page(const char *path);

/** What makes a file of a result: report_html(), for one. */
typedef qn_status cli_page_writer(FILE *file, const json_t *result, qn_error *err);

/** A file of a result, whole or not there.  QN_E_IO naming the file; what @p write returns. */
QN_MUST_CHECK qn_status cli_write_result(const char *path, cli_page_writer *write,
                                         const json_t *result, qn_error *err);

/** Who made a result, when and how: "tool", "date_utc", "command".  QN_E_NOMEM. */
QN_MUST_CHECK qn_status cli_sign(json_t *result, qn_error *err);

/** Sign a result and write its page.  As cli_write_result(). */
QN_MUST_CHECK qn_status cli_write_page(const char *path, json_t *result, qn_error *err);
#endif
