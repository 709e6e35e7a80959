/* SPDX-License-Identifier: Apache-2.0 */
/** @file page_of.h  Results to pages that one would show: from their JSON to one HTML file or to
 * Markdown. */
#ifndef QN_REPORT_PAGE_OF_H
#define QN_REPORT_PAGE_OF_H
#include "quern/quern.h"

#include <jansson.h>
#include <stdio.h>

/**
 * Write a report of any result of ours: of a bench of a server, of an engine or of kernels, of a
 * comparison, of eval, of quantize.  Which it is, its "format" says.  All that a report says stands
 * in the result, so a stored one makes the same page again.
 *
 * Plots are drawn by gnuplot; where it is missing the page says so in their place, with the numbers
 * in tables.
 *
 * Returns  QN_OK; QN_E_FORMAT naming the field; QN_E_IO; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status report_html(FILE *file, const json_t *result, qn_error *err);
QN_MUST_CHECK qn_status report_markdown(FILE *file, const json_t *result, qn_error *err);
#endif
