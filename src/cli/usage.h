/* SPDX-License-Identifier: Apache-2.0 */
/** @file usage.h  Help on the terminal and as man pages, from the command tables. */
#ifndef QN_CLI_USAGE_H
#define QN_CLI_USAGE_H
#include "options.h"

/** The page of `quern` alone: what it is, the commands, first steps. */
void usage_program(void);
/** The page of one command. */
void usage_command(const cli_command *command);
/** The same pages as man(7) source; NULL: the program's. */
void usage_man(const cli_command *command);
/** Version, commit, compiler and the kernels built in. */
void usage_version(void);
#endif
