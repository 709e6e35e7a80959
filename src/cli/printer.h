/* SPDX-License-Identifier: Apache-2.0 */
/** @file printer.h  An answer's events as a person reads them: reasoning dimmed, then the answer.
 */
#ifndef QN_CLI_PRINTER_H
#define QN_CLI_PRINTER_H
#include "options.h"

#include <stdio.h>

/** One answer on standard output. */
typedef struct cli_printer {
    bool is_tty;                    /**< Standard output is a terminal: reasoning goes there too. */
    bool is_colored;                /**< Dim by escape sequences. */
    bool is_quiet;                  /**< Elsewhere reasoning is left out, and warnings are. */
    bool is_dimmed;                 /**< Dim is switched on. */
    bool has_reasoning, has_answer; /**< Some was printed. */
    bool is_at_line_start;          /**< Of the answer. */
} cli_printer;

void cli_printer_init(cli_printer *printer, const cli_common *common);

/** Write text whose control characters but line feed and tab, with which it could steer a terminal,
 * show as U+FFFD. */
void cli_print_clean(FILE *stream, const char *text, size_t len);

/** Print what the event says; tokens and END print nothing. */
void cli_printer_show(cli_printer *printer, const qn_event *event);

/** End of the answer: colours off, a line break where something was printed. */
void cli_printer_end(cli_printer *printer);
#endif
