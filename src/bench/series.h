/* SPDX-License-Identifier: Apache-2.0 */
/** @file series.h  Samples over time in memory that does not grow: a long run keeps fewer of them.
 */
#ifndef QN_BENCH_SERIES_H
#define QN_BENCH_SERIES_H
#include <stddef.h>
#include <string.h>

enum { SERIES_ROWS_MAX = 2048, SERIES_COLUMNS = 5 };

/** Rows of a second and what there was then.  All-zero is empty. */
typedef struct series {
    size_t n;
    size_t stride; /**< Of what comes each stride-th row is kept; 0 is 1. */
    size_t n_seen;
    double rows[SERIES_ROWS_MAX][SERIES_COLUMNS];
} series;

/** Add a row; where all are taken every other one goes, and from then on half as many are kept. */
static inline void series_add(series *to, const double row[SERIES_COLUMNS])
{
    to->stride += to->stride == 0;
    if (to->n_seen++ % to->stride != 0) {
        return;
    }
    if (to->n == SERIES_ROWS_MAX) {
        for (size_t i = 0; i < SERIES_ROWS_MAX / 2; i++) {
            memmove(to->rows[i], to->rows[2 * i], sizeof to->rows[i]);
        }
        to->n /= 2;
        to->stride *= 2;
    }
    memcpy(to->rows[to->n++], row, sizeof to->rows[0]);
}
#endif
