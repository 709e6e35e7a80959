/* SPDX-License-Identifier: Apache-2.0 */
#include "speed.h"

#include <stdio.h>

double cli_rate(double n, double per)
{
    return n > 0.0 && per > 0.0 ? n / per : 0.0;
}

double cli_decode_rate(const qn_session_stats *stats)
{
    return cli_rate((double)stats->n_generated_tokens - 1.0, stats->decode_s);
}

double cli_prefill_rate(const qn_session_stats *stats)
{
    return cli_rate((double)(stats->n_computed_tokens - stats->n_cached_tokens), stats->prefill_s);
}

void cli_show_time(char *out, size_t out_bytes, double seconds)
{
    const double most_s = 1e9; /* more is a mistake, or for ever */
    const unsigned long whole = seconds < most_s ? (unsigned long)(seconds + 0.5) : 1000000000UL;
    if (whole < 60) {
        (void)snprintf(out, out_bytes, "%.*f s", seconds < 9.95 ? 1 : 0, seconds);
    } else if (whole < 3600) {
        (void)snprintf(out, out_bytes, "%lu min %02lu s", whole / 60, whole % 60);
    } else {
        (void)snprintf(out, out_bytes, "%lu h %02lu min", whole / 3600, whole / 60 % 60);
    }
}

const char *cli_plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}
