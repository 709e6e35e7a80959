/* SPDX-License-Identifier: Apache-2.0 */
/** @file embedded.h  Files of data/ that are part of the program: cmake/embed.cmake makes the
 * source.
 */
#ifndef QN_BENCH_EMBEDDED_H
#define QN_BENCH_EMBEDDED_H

/** data/prices.json, ended by a NUL. */
extern const char embedded_prices[];
/** data/references.json, ended by a NUL. */
extern const char embedded_references[];
#endif
