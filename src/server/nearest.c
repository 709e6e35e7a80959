/* SPDX-License-Identifier: Apache-2.0 */
#include "server/nearest.h"

#include <stdint.h>

static size_t min3(size_t a, size_t b, size_t c)
{
    const size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Optimal string alignment. */
size_t nearest_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t d[NEAREST_BYTES_MAX + 1][NEAREST_BYTES_MAX + 1];
    if (a_len > NEAREST_BYTES_MAX || b_len > NEAREST_BYTES_MAX) {
        return SIZE_MAX;
    }
    for (size_t i = 0; i <= a_len; i++) {
        for (size_t j = 0; j <= b_len; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] =
                min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < d[i][j]) {
                d[i][j] = d[i - 2][j - 2] + 1;
            }
        }
    }
    return d[a_len][b_len];
}
