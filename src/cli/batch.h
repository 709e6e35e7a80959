/* SPDX-License-Identifier: Apache-2.0 */
/** @file batch.h  A file of requests through an engine, a bounded number of them at a time. */
#ifndef QN_CLI_BATCH_H
#define QN_CLI_BATCH_H
#include "batch_output.h"
#include "engine_options.h"

/** What to run. */
typedef struct batch_options {
    const char *model;
    const cli_model *load;
    const cli_engine *engine;
    const char *input, *output; /**< "-": the standard streams. */
    batch_existing existing;
    bool is_quiet;
    bool as_json; /**< The summary goes to standard output. */
} batch_options;

/** Do it.  Returns the exit status. */
int batch_run(const batch_options *options);
#endif
