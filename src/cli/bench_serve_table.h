/* SPDX-License-Identifier: Apache-2.0 */
/** @file bench_serve_table.h  A result as a table for the terminal: Wafer's columns, and what they
 * leave out.
 */
#ifndef QN_CLI_BENCH_SERVE_TABLE_H
#define QN_CLI_BENCH_SERVE_TABLE_H
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/**
 * Print it: what was asked, a line for each run, the latencies of the headline's, tokens realized,
 * warnings.
 *
 * @param metrics   [n_metrics] "ttft": whose latencies are printed
 * @param percents  [n_percents] of these
 */
void bench_table_print(FILE *file, const json_t *result, const char *const *metrics,
                       size_t n_metrics, const double *percents, size_t n_percents);
#endif
