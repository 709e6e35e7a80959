/* SPDX-License-Identifier: Apache-2.0 */
/** @file nearest.h  How far a name is from the one that was meant. */
#ifndef QN_SERVER_NEAREST_H
#define QN_SERVER_NEAREST_H
#include <stddef.h>

enum { NEAREST_BYTES_MAX = 48 };

/**
 * Bytes to insert, drop, change or swap with their neighbour until a [a_len] is b [b_len].
 * Returns  SIZE_MAX where one is longer than NEAREST_BYTES_MAX: nobody means that
 */
size_t nearest_distance(const char *a, size_t a_len, const char *b, size_t b_len);
#endif
