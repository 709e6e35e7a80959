/* SPDX-License-Identifier: Apache-2.0 */
#include "speed.h"

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

const char *cli_plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}
