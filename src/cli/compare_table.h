/* SPDX-License-Identifier: Apache-2.0 */
/** @file compare_table.h  compare.json as a table for the terminal. */
#ifndef QN_CLI_COMPARE_TABLE_H
#define QN_CLI_COMPARE_TABLE_H
#include <jansson.h>
#include <stdio.h>

/** All of it: what differs first. */
void compare_table(FILE *file, const json_t *comparison);
#endif
