/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include "report.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { BAR_CELLS = 24 };

/* Jobs under a second need no bar; a log file needs no ten lines a second. */
static const double first_after_s = 1.0;
static const double terminal_every_s = 0.1;
static const double file_every_s = 10.0;

double cli_now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void cli_progress_begin(cli_progress *progress, const char *what, const char *unit, double per_unit,
                        bool is_quiet)
{
    *progress = (cli_progress){
        .what = what,
        .unit = unit,
        .per_unit = per_unit,
        .started_s = cli_now_s(),
        .is_quiet = is_quiet,
        .is_terminal = isatty(STDERR_FILENO) == 1 && !cli_is_dumb(),
    };
    progress->shown_s = progress->started_s;
}

static void draw_bar(double share)
{
    char bar[BAR_CELLS + 1];
    for (int i = 0; i < BAR_CELLS; i++) {
        bar[i] = (double)i < share * BAR_CELLS ? '#' : '.';
    }
    bar[BAR_CELLS] = '\0';
    (void)fprintf(stderr, "\r[%s] ", bar);
}

bool cli_progress_show(void *progress, uint64_t done, uint64_t total)
{
    cli_progress *const p = progress;
    const double now_s = cli_now_s();
    const double elapsed_s = now_s - p->started_s;
    const double every_s = p->is_terminal ? terminal_every_s : file_every_s;
    if (!p->is_quiet && done > 0 && done < total && elapsed_s >= first_after_s &&
        now_s - p->shown_s >= every_s) {
        const int n_digits = p->per_unit > 1.0 ? 1 : 0;
        if (p->is_terminal) {
            draw_bar((double)done / (double)total);
        }
        (void)fprintf(stderr, "%s: %.*f of %.*f %s, %.*f %s/s, %.0f s left%s", p->what, n_digits,
                      (double)done / p->per_unit, n_digits, (double)total / p->per_unit, p->unit,
                      n_digits, (double)done / p->per_unit / elapsed_s, p->unit,
                      elapsed_s * (double)(total - done) / (double)done,
                      p->is_terminal ? "\033[K" : "\n");
        (void)fflush(stderr);
        p->shown_s = now_s;
        p->is_drawn = p->is_terminal;
    }
    return !cli_is_interrupted();
}

void cli_progress_end(cli_progress *progress)
{
    if (progress->is_drawn) {
        (void)fprintf(stderr, "\r\033[K");
        (void)fflush(stderr);
    }
    progress->is_drawn = false;
}

qn_status cli_open_model(qn_model **model, const char *name, const cli_model *from,
                         bool needs_no_tokenizer, bool is_quiet, qn_error *err)
{
    cli_progress progress;
    cli_progress_begin(&progress, "weights", "GB", 1e9, is_quiet);
    qn_model_options options = {.progress = cli_progress_show, .progress_context = &progress};
    cli_model_fill(&options, from);
    options.tokenizer_optional = needs_no_tokenizer;
    const qn_status status = qn_model_open(model, name, &options, err);
    cli_progress_end(&progress);
    return status;
}
