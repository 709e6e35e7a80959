/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include "report.h"
#include "speed.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The bar takes what the text leaves of the line; too little shows none. */
enum { BAR_CELLS_MIN = 8, BAR_CELLS_MAX = 24, BAR_EDGES = 3, LINE_BYTES = 160 };

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

/* One line in place of the last, which must not reach the edge: a line that wraps stays. */
static void draw(double share, const char *text)
{
    const int n_columns = cli_columns(STDERR_FILENO, 1) - 1;
    const int n_left = n_columns - BAR_EDGES - (int)strlen(text);
    const int n_cells = n_left < BAR_CELLS_MAX ? n_left : BAR_CELLS_MAX;
    char bar[BAR_CELLS_MAX + 1];
    for (int i = 0; i < n_cells; i++) {
        bar[i] = (double)i < share * n_cells ? '#' : '.';
    }
    if (n_cells >= BAR_CELLS_MIN) {
        (void)fprintf(stderr, "\r[%.*s] %s\033[K", n_cells, bar, text);
    } else {
        (void)fprintf(stderr, "\r%.*s\033[K", n_columns, text);
    }
}

bool cli_progress_show(void *progress, uint64_t done, uint64_t total)
{
    cli_progress *const p = progress;
    const double now_s = cli_now_s();
    if (done < p->done) { /* its next part, with a speed of its own */
        p->started_s = now_s;
    }
    p->done = done;
    const double elapsed_s = now_s - p->started_s;
    const double every_s = p->is_terminal ? terminal_every_s : file_every_s;
    if (!p->is_quiet && done > 0 && done < total && elapsed_s >= first_after_s &&
        now_s - p->shown_s >= every_s) {
        const int n_digits = p->per_unit > 1.0 ? 1 : 0;
        char left[32];
        cli_show_time(left, sizeof left, elapsed_s * (double)(total - done) / (double)done);
        const double rate = (double)done / p->per_unit / elapsed_s;
        char text[LINE_BYTES];
        (void)snprintf(text, sizeof text, "%s: %.*f of %.*f %s, %.*f %s/s, %s left", p->what,
                       n_digits, (double)done / p->per_unit, n_digits, (double)total / p->per_unit,
                       p->unit, rate < 10.0 ? 2 : n_digits, rate, p->unit, left);
        if (p->is_terminal) {
            draw((double)done / (double)total, text);
        } else {
            (void)fprintf(stderr, "%s\n", text);
        }
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
    qn_status status = qn_model_open(model, name, &options, err);
    cli_progress_end(&progress);
    if (status == QN_OK) {
        status = cli_check_opened(*model, from->strict, err);
        if (status < 0) {
            qn_model_close(model);
        }
    }
    return status;
}

qn_status cli_check_opened(const qn_model *model, bool is_strict, qn_error *err)
{
    const bool is_gpu = strcmp(qn_model_get_info(model)->device, "cpu") != 0;
    return is_gpu || is_strict ? cli_check_kernels(model, is_strict, err) : QN_OK;
}
