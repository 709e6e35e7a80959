/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

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
