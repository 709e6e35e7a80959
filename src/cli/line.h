/* SPDX-License-Identifier: Apache-2.0 */
/** @file line.h  What the user types: edited lines on a terminal, plain ones from elsewhere. */
#ifndef QN_CLI_LINE_H
#define QN_CLI_LINE_H
#include "quern/quern.h"

/** Why a reader came back. */
typedef enum line_result {
    LINE_TEXT,      /**< There is a text. */
    LINE_END,       /**< End of the input, Ctrl-D on an empty line. */
    LINE_INTERRUPT, /**< Ctrl-C: what was typed is gone. */
    LINE_TERMINATE, /**< A signal that ends the program. */
    LINE_FAILED,    /**< The text does not fit into the memory; said already. */
} line_result;

/** Standard input as texts.  Opaque; one at a time, as the terminal is one. */
typedef struct line_reader line_reader;

/**
 * Needs cli_signals_open().
 * @param[out] out       owned by the caller
 * @param history_path   file that lines are remembered in beyond the program's end; copied; NULL:
 *                       none
 * @param is_colored     the prompt may be
 */
QN_MUST_CHECK qn_status line_open(line_reader **out, const char *history_path, bool is_colored,
                                  qn_error *err);

/** Somebody types at a terminal: there are prompts, and Ctrl-C is about the present line. */
bool line_is_terminal(const line_reader *reader);

/**
 * Read one text.  A line that ends in a backslash goes on with the next one; between two lines of
 * three double quotes all lines are one text, and so is what is pasted.
 *
 * @param prompt     shown on a terminal; borrowed during the call
 * @param[out] text  NUL-terminated, borrowed until the next call; may be empty
 */
line_result line_read(line_reader *reader, const char *prompt, const char **text, size_t *len);

/**
 * Give the terminal its modes back and write the history.  Accepts NULL; sets *reader to NULL.
 * Returns  QN_OK; QN_E_IO where the history could not be written
 */
QN_MUST_CHECK qn_status line_close(line_reader **reader, qn_error *err);
#endif
