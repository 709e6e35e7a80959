/* SPDX-License-Identifier: Apache-2.0 */
/** @file progress.h  How far a long job is: a bar on a terminal, elsewhere a line every 10 s. */
#ifndef QN_CLI_PROGRESS_H
#define QN_CLI_PROGRESS_H
#include "options.h"

/** One job.  Written to stderr; one thread. */
typedef struct cli_progress {
    const char *what; /**< "prompt"; static. */
    const char *unit; /**< "tokens"; static. */
    double per_unit;  /**< Things counted that make one unit: 1e9 where bytes are shown as GB. */
    double started_s; /**< Monotonic time at the beginning. */
    double shown_s;   /**< ... and when something was last written. */
    uint64_t done;    /**< As told last. */
    bool is_quiet;    /**< Write nothing. */
    bool is_terminal; /**< stderr is one that can: draw a bar. */
    bool is_drawn;    /**< A bar stands there. */
} cli_progress;

/** Start the clock; writes nothing yet. */
void cli_progress_begin(cli_progress *progress, const char *what, const char *unit, double per_unit,
                        bool is_quiet);

/**
 * The library's callback (qn_progress_fn) for a cli_progress: after the first second a bar ten
 * times a second, or a line every ten.  False, which cancels the job, after Ctrl-C.
 */
bool cli_progress_show(void *progress, uint64_t done, uint64_t total);

/** Wipe the bar. */
void cli_progress_end(cli_progress *progress);

/**
 * Load the model that a command names, with a progress bar.  Fallbacks are looked for on a GPU, and
 * everywhere with --strict.  Statuses of qn_model_open().
 */
QN_MUST_CHECK qn_status cli_open_model(qn_model **model, const char *name, const cli_model *from,
                                       bool needs_no_tokenizer, bool is_quiet, qn_error *err);

/** Look for fallbacks as cli_open_model() does, in a model that something else has loaded. */
QN_MUST_CHECK qn_status cli_check_opened(const qn_model *model, bool is_strict, qn_error *err);

/**
 * Look for kernels that are not made for this machine: a product without one is slow, and nobody
 * would see why.  They are a warning, with @p is_strict an error.
 * Returns  QN_OK; QN_E_DEVICE naming the shapes; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status cli_check_kernels(const qn_model *model, bool is_strict, qn_error *err);

/** Seconds of a clock that only moves forward. */
double cli_now_s(void);
#endif
