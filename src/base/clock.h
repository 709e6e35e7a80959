/* SPDX-License-Identifier: Apache-2.0 */
/** @file clock.h  The two clocks: one for durations, one for dates.  Any thread. */
#ifndef QN_BASE_CLOCK_H
#define QN_BASE_CLOCK_H
#include <stdint.h>

/** Nanoseconds of a clock that never goes back; only differences mean something. */
uint64_t qn_clock_ns(void);

/** Seconds between two readings of it. */
static inline double qn_clock_seconds(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) * 1e-9;
}

/** Nanoseconds since 1970-01-01 UTC; may jump. */
uint64_t qn_clock_wall_ns(void);

enum { QN_CLOCK_ISO_BYTES = 40 };

/** A reading of it as ISO 8601 in UTC: "2026-07-01T12:00:00.123Z". */
void qn_clock_iso(char out[QN_CLOCK_ISO_BYTES], uint64_t wall_ns);
#endif
