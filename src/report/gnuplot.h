/* SPDX-License-Identifier: Apache-2.0 */
/** @file gnuplot.h  gnuplot as a child: a script in, what it prints out. */
#ifndef QN_REPORT_GNUPLOT_H
#define QN_REPORT_GNUPLOT_H
#include "base/buf.h"

/**
 * Run a script, for at most some seconds.
 *
 * @param[out] why  what went wrong, as a clause; "" where nothing did
 * Returns  QN_OK, also where it went wrong; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status gnuplot_run(qn_buf *out, qn_str script, char *why, size_t why_bytes,
                                    qn_error *err);
#endif
