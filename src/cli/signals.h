/* SPDX-License-Identifier: Apache-2.0 */
/** @file signals.h  Signals of a conversation, one byte each in a pipe: whoever waits for input
 * waits for them too, and none is lost between a look and the wait. */
#ifndef QN_CLI_SIGNALS_H
#define QN_CLI_SIGNALS_H
#include "quern/quern.h"

/**
 * From now on SIGINT, SIGTSTP and SIGWINCH are only told of, and so are SIGTERM, SIGHUP and SIGQUIT
 * the first time; what was ignored stays ignored.  One thread, once; ends with the process.
 */
QN_MUST_CHECK qn_status cli_signals_open(qn_error *err);

/** Readable while a signal waits. */
int cli_signals_fd(void);

/** The next signal; 0: none. */
int cli_signals_take(void);
#endif
