/* SPDX-License-Identifier: Apache-2.0 */
/** @file eval_table.h  The result of qn_eval() for people. */
#ifndef QN_CLI_EVAL_TABLE_H
#define QN_CLI_EVAL_TABLE_H

/** Print the tables and what they say.  Returns the exit status. */
int cli_eval_print(const char *result);
#endif
