/* SPDX-License-Identifier: Apache-2.0 */
/** @file log.h  Log lines for people and machines, to stderr, as key=value text or JSON. */
#ifndef QN_BASE_LOG_H
#define QN_BASE_LOG_H
#include "quern/status.h"
#include "quern/types.h"

#include <stdbool.h>

/** Lines above @p level are dropped; @p as_json makes each line one JSON object.  Start-up only. */
void qn_log_setup(qn_log_level level, bool as_json);

/** Would a line of this level be written? */
bool qn_log_enabled(qn_log_level level);

/**
 * One line "quern: LEVEL: text" on stderr (error and warn; info and debug without the level's
 * word), or {"ts", "level", "msg"} as JSON (ts: seconds since
 * 1970).  Control characters become '?'.  Any thread; a line is written whole, or
 * dropped where stderr is a pipe that nobody has read for a second.
 */
QN_PRINTF(2, 3)
void qn_log(qn_log_level level, const char *format, ...);
#endif
