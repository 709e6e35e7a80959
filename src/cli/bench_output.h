/* SPDX-License-Identifier: Apache-2.0 */
/** @file bench_output.h  The folder of a result: its JSON, and the pages made of it. */
#ifndef QN_CLI_BENCH_OUTPUT_H
#define QN_CLI_BENCH_OUTPUT_H
#include "quern/quern.h"

#include <jansson.h>

/** Make the folder where it is missing.  QN_E_IO naming it. */
QN_MUST_CHECK qn_status bench_output_open(const char *folder, qn_error *err);

/**
 * Write report.html and report.md of a result there, and before them the result itself.
 *
 * @param name    of its file, such as "result.json"; NULL: it is there already
 * Returns  QN_OK; QN_E_IO, QN_E_INVAL naming the file; what report_html() returns
 */
QN_MUST_CHECK qn_status bench_output_write(const char *folder, const char *name,
                                           const json_t *result, qn_error *err);
#endif
