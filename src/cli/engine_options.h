/* SPDX-License-Identifier: Apache-2.0 */
/** @file engine_options.h  Options of commands that run many requests at once. */
#ifndef QN_CLI_ENGINE_OPTIONS_H
#define QN_CLI_ENGINE_OPTIONS_H
#include "options.h"

/** Sizes of an engine, and how its requests are drafted. */
typedef struct cli_engine {
    uint64_t n_sequences, n_step_rows, context; /**< 0: not given. */
    const char *page_cache;                     /**< "8G"; NULL: not given. */
    const char *draft_tokens;                   /**< A number or "auto"; NULL: the default. */
    bool no_prefix_cache;
} cli_engine;

enum { CLI_N_ENGINE_OPTIONS = 7 };
extern const cli_option cli_engine_options[CLI_N_ENGINE_OPTIONS];

/**
 * "512M": bytes, or 2^10, 2^20, 2^30, 2^40 of them.
 * Returns  QN_OK; QN_E_INVAL naming @p option
 */
QN_MUST_CHECK qn_status cli_parse_size(uint64_t *bytes, const char *option, const char *text,
                                       qn_error *err);

/**
 * What the options say.
 *
 * @param[out] draft_tokens  for the requests
 * Returns  QN_OK; QN_E_INVAL naming the option
 */
QN_MUST_CHECK qn_status cli_engine_fill(qn_engine_options *options, int *draft_tokens,
                                        const cli_engine *from, qn_error *err);
#endif
