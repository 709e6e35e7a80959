/* SPDX-License-Identifier: Apache-2.0 */
/** @file inspect_view.h  The doctor's report as a person reads it. */
#ifndef QN_CLI_INSPECT_VIEW_H
#define QN_CLI_INSPECT_VIEW_H
#include <jansson.h>
#include <stdbool.h>

/**
 * Print a report of qn_inspect() to standard output.
 * @param name  what the user called the model
 */
void inspect_view_print(const json_t *report, const char *name, bool is_colored);
#endif
