/* SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include "base/banned.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR_CELLS = 24 };

static const uint64_t every_ns[] = {10000000000U, 100000000U}; /* elsewhere, on a terminal */

void qn_progress_begin(qn_progress *progress, const char *what, qn_progress_unit unit,
                       uint64_t total)
{
    *progress = (qn_progress){
        .what = what,
        .unit = unit,
        .total = total,
        .start_ns = qn_clock_ns(),
        .is_terminal = isatty(STDERR_FILENO) == 1,
    };
    progress->shown_ns = progress->start_ns;
}

static void format_amount(char *out, size_t out_bytes, qn_progress_unit unit, double amount)
{
    if (unit == QN_PROGRESS_ITEMS) {
        (void)snprintf(out, out_bytes, "%.*f", amount < 10 && amount != (double)(int)amount,
                       amount);
    } else if (amount < 1e9) {
        (void)snprintf(out, out_bytes, "%.1f MB", amount * 1e-6);
    } else {
        (void)snprintf(out, out_bytes, "%.2f GB", amount * 1e-9);
    }
}

void qn_progress_format(char *out, size_t out_bytes, const qn_progress *progress,
                        uint64_t elapsed_ns)
{
    char done[32];
    char total[32] = "";
    char rate[32];
    char left[32] = "";
    const double elapsed_s = (double)elapsed_ns * 1e-9;
    const double per_s = elapsed_s > 0 ? (double)progress->done / elapsed_s : 0;
    format_amount(done, sizeof done, progress->unit, (double)progress->done);
    format_amount(rate, sizeof rate, progress->unit, per_s);
    if (progress->total > 0) {
        char amount[28];
        format_amount(amount, sizeof amount, progress->unit, (double)progress->total);
        (void)snprintf(total, sizeof total, " of %s", amount);
    }
    if (progress->total > progress->done && per_s > 0) {
        const double left_s = (double)(progress->total - progress->done) / per_s;
        (void)snprintf(left, sizeof left, ", %.0f s left", left_s);
    }
    (void)snprintf(out, out_bytes, "%s: %s%s, %s/s%s", progress->what, done, total, rate, left);
}

static void draw_bar(const qn_progress *progress, const char *line)
{
    char bar[BAR_CELLS + 1];
    const double share =
        progress->total > 0 ? (double)progress->done / (double)progress->total : 0.0;
    const int n_full = share >= 1.0 ? BAR_CELLS : (int)(share * BAR_CELLS);
    for (int i = 0; i < BAR_CELLS; i++) {
        bar[i] = i < n_full ? '#' : '.';
    }
    bar[BAR_CELLS] = '\0';
    (void)fprintf(stderr, "\r[%s] %s\033[K", bar, line);
}

void qn_progress_add(qn_progress *progress, uint64_t n)
{
    progress->done += n;
    const uint64_t now_ns = qn_clock_ns();
    if (now_ns - progress->shown_ns < every_ns[progress->is_terminal] ||
        !qn_log_enabled(QN_LOG_INFO)) {
        return;
    }
    progress->shown_ns = now_ns;
    char line[160];
    qn_progress_format(line, sizeof line, progress, now_ns - progress->start_ns);
    if (progress->is_terminal) {
        draw_bar(progress, line);
    } else {
        qn_log(QN_LOG_INFO, "%s", line);
    }
}

void qn_progress_end(qn_progress *progress)
{
    if (progress->is_terminal && progress->shown_ns != progress->start_ns) {
        (void)fprintf(stderr, "\r\033[K");
    }
}
