/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_live.h"

#include "progress.h"
#include "report.h"
#include "speed.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 256, BAR_CELLS = 24 };

static const double terminal_every_s = 0.2;
static const double file_every_s = 10.0;

void cli_bench_live_begin(cli_bench_live *live, const cli_common *common)
{
    *live = (cli_bench_live){
        .is_quiet = common->is_quiet,
        .is_terminal = isatty(STDERR_FILENO) == 1 && !cli_is_dumb(),
        .is_colored = cli_is_colored(STDERR_FILENO, common->color),
        .shown_s = cli_now_s(),
    };
}

static void show_bar(char out[LINE_BYTES], const bench_live *now)
{
    char bar[BAR_CELLS + 1] = {0};
    for (int i = 0; i < BAR_CELLS; i++) {
        bar[i] = (double)i < now->share * BAR_CELLS ? '#' : '.';
    }
    if (!now->is_running) {
        (void)snprintf(out, LINE_BYTES, "[%s] %s", bar, now->what);
        return;
    }
    const unsigned long long n_ended = now->n_done + now->n_failed;
    char passed[32];
    char total[32] = "";
    cli_show_time(passed, sizeof passed, now->now_s);
    if (now->n_total > 0) {
        (void)snprintf(total, sizeof total, " of %llu", (unsigned long long)now->n_total);
    }
    (void)snprintf(out, LINE_BYTES, "[%s] %s: %llu%s requests, %s", bar, now->what, n_ended, total,
                   passed);
}

static void show_ms(char out[32], double ms)
{
    (void)snprintf(out, 32, isnan(ms) ? "-" : ms < 1000.0 ? "%.1f ms" : "%.0f ms", ms);
}

static void show_figures(char out[LINE_BYTES], const bench_live *now)
{
    char ttft[32];
    char tpot[32];
    char held[32] = "";
    show_ms(ttft, now->ttft_ms);
    show_ms(tpot, now->tpot_ms);
    if (now->n_held > 0) {
        (void)snprintf(held, sizeof held, " (%zu held)", now->n_held);
    }
    (void)snprintf(out, LINE_BYTES,
                   "%zu in flight%s, %.2f req/s, %.0f tok/s, TTFT %s, TPOT %s, %llu failed, lag "
                   "%.1f ms",
                   now->n_active, held, now->requests_per_s, now->output_per_s, ttft, tpot,
                   (unsigned long long)now->n_failed, now->lag_ms);
}

/* Bytes of a line that fit: figures that do not are left out whole, not cut to others. */
static int fitting(const char *line, int width)
{
    int n = 0;
    if ((int)strlen(line) <= width) {
        return width;
    }
    for (int i = 0; i <= width; i++) {
        n = strncmp(line + i, ", ", 2) == 0 ? i : n;
    }
    return n > 0 ? n : width;
}

/* Both lines in one write, over what stands there, so that nothing flickers; cut before the edge,
 * since a line that wraps stays. */
static void draw(cli_bench_live *live, const bench_live *now, const char *bar, const char *figures)
{
    char out[2 * LINE_BYTES + 64];
    const int width = cli_columns(STDERR_FILENO, 1) - 1;
    const char *const red = live->is_colored && now->n_failed > 0 ? "\033[31m" : "";
    const int n = snprintf(out, sizeof out, "\r%s%.*s\033[K\n%s%.*s%s\033[K",
                           live->n_lines > 1 ? "\033[A" : "", fitting(bar, width), bar, red,
                           fitting(figures, width), figures, red[0] != '\0' ? "\033[0m" : "");
    (void)fwrite(out, 1, n > 0 && (size_t)n < sizeof out ? (size_t)n : 0, stderr);
    live->n_lines = 2;
}

void cli_bench_live_show(void *live, const bench_live *now)
{
    cli_bench_live *const l = live;
    const double now_s = cli_now_s();
    const bool is_new = strncmp(l->last_what, now->what, sizeof l->last_what - 1) != 0;
    const double every_s = l->is_terminal ? terminal_every_s : file_every_s;
    /* Elsewhere each run has its line; prompts and warm-ups only when they take long. */
    const bool is_due =
        now_s - l->shown_s >= every_s || (is_new && (l->is_terminal || now->is_running));
    if (l->is_quiet || !is_due) {
        return;
    }
    char bar[LINE_BYTES];
    char figures[LINE_BYTES] = "";
    show_bar(bar, now);
    if (now->is_running) {
        show_figures(figures, now);
    }
    if (l->is_terminal) {
        draw(l, now, bar, figures);
    } else {
        const char *const text = strchr(bar, ']');
        (void)fprintf(stderr, "%s%s%s\n", text != NULL ? text + 2 : bar,
                      figures[0] != '\0' ? "; " : "", figures);
    }
    (void)fflush(stderr);
    l->shown_s = now_s;
    (void)snprintf(l->last_what, sizeof l->last_what, "%s", now->what);
}

void cli_bench_live_end(cli_bench_live *live)
{
    if (live->n_lines > 0) {
        (void)fputs(live->n_lines > 1 ? "\r\033[K\033[A\r\033[K" : "\r\033[K", stderr);
        (void)fflush(stderr);
    }
    live->n_lines = 0;
}
