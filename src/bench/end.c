/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

const char *bench_end_name(bench_end end)
{
    static const char *const names[BENCH_N_ENDS] = {
        [BENCH_DONE] = "done",           [BENCH_CONNECT] = "connect",
        [BENCH_TIMEOUT] = "timeout",     [BENCH_RATE_LIMITED] = "rate_limited",
        [BENCH_REFUSED] = "http_4xx",    [BENCH_SERVER] = "http_5xx",
        [BENCH_FAILED] = "stream_error", [BENCH_MALFORMED] = "malformed",
        [BENCH_CUT] = "cut_off",         [BENCH_EMPTY] = "empty",
        [BENCH_OTHER] = "http_other",    [BENCH_USAGE] = "wrong_usage",
        [BENCH_CANCELLED] = "cancelled",
    };
    return names[end];
}
