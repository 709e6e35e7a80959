/* SPDX-License-Identifier: Apache-2.0 */
/** @file bench_live.h  A bench under way: two lines that are redrawn on a terminal, elsewhere a
 * line every 10 s. */
#ifndef QN_CLI_BENCH_LIVE_H
#define QN_CLI_BENCH_LIVE_H
#include "bench/bench.h"
#include "options.h"

/** Written to stderr; one thread. */
typedef struct cli_bench_live {
    double shown_s;     /**< When something was written last. */
    char last_what[64]; /**< Of what that was. */
    bool is_quiet, is_terminal, is_colored;
    int n_lines; /**< Drawn, and standing. */
} cli_bench_live;

void cli_bench_live_begin(cli_bench_live *live, const cli_common *common);

/** bench_options.show */
void cli_bench_live_show(void *live, const bench_live *now);

/** Wipe it. */
void cli_bench_live_end(cli_bench_live *live);
#endif
