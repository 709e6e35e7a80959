/* SPDX-License-Identifier: Apache-2.0 */
/** @file speed.h  Rates from a session's counters. */
#ifndef QN_CLI_SPEED_H
#define QN_CLI_SPEED_H
#include "quern/quern.h"

/** @p n by @p per; 0 where one of them is. */
double cli_rate(double n, double per);

/** Tokens a second after the first, which the prompt's pass brought; 0 where there are none. */
double cli_decode_rate(const qn_session_stats *stats);

/** Tokens of the prompt that were computed, by the time that took. */
double cli_prefill_rate(const qn_session_stats *stats);

/** "1 h 05 min", "12 min 30 s", "42 s", "8.1 s". */
void cli_show_time(char *out, size_t out_bytes, double seconds);

/** "" or "s". */
const char *cli_plural(uint64_t n);
#endif
