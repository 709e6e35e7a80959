/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec now = {0};
    (void)clock_gettime(id, &now); /* cannot fail: both ids exist on every Linux */
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

uint64_t qn_clock_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t qn_clock_wall_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

void qn_clock_iso(char out[QN_CLOCK_ISO_BYTES], uint64_t wall_ns)
{
    const time_t seconds = (time_t)(wall_ns / 1000000000U);
    char day[32] = "";
    struct tm utc = {0};
    (void)gmtime_r(&seconds, &utc); /* cannot fail: 64 bits end in the year 2554 */
    (void)strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(out, QN_CLOCK_ISO_BYTES, "%s.%03dZ", day, (int)(wall_ns / 1000000U % 1000U));
}
