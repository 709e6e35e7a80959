/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "base/clock.h"
#include "base/str.h"

#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>

enum { STUCK_MS = 1000 };

static struct {
    qn_log_level level;
    bool is_json;
} g_log = {.level = QN_LOG_WARN}; /* written at start-up only */

void qn_log_setup(qn_log_level level, bool as_json)
{
    g_log.level = level;
    g_log.is_json = as_json;
}

bool qn_log_enabled(qn_log_level level)
{
    return level <= g_log.level;
}

/* Copy @p text with '"' and '\' escaped; nothing else needs it after qn_text_clean(). */
static void escape(char *out, size_t out_bytes, const char *text)
{
    size_t at = 0;
    for (; *text != '\0' && at + 3 < out_bytes; text++) {
        if (*text == '"' || *text == '\\') {
            out[at++] = '\\';
        }
        out[at++] = *text;
    }
    out[at] = '\0';
}

/* Does anybody read stderr?  Who does not holds us up for a second, once; then lines are dropped
 * until it is read again: a server hangs on no log. */
static bool is_read(void)
{
    static atomic_bool is_stuck;
    static atomic_uint n_dropped;
    struct pollfd descriptor = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&descriptor, 1, atomic_load(&is_stuck) ? 0 : STUCK_MS) == 0) {
        atomic_store(&is_stuck, true);
        atomic_fetch_add(&n_dropped, 1);
        return false;
    }
    if (atomic_exchange(&is_stuck, false)) {
        qn_log(QN_LOG_WARN, "log: %u lines were dropped, since nobody read them",
               atomic_exchange(&n_dropped, 0));
    }
    return true;
}

void qn_log(qn_log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    static const char *const prefixes[] = {"error: ", "warn: ", "", ""};
    char text[2048];
    if (!qn_log_enabled(level) || !is_read()) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qn_text_clean(text);
    if (!g_log.is_json) {
        (void)fprintf(stderr, "quern: %s%s\n", prefixes[level], text);
        return;
    }
    char escaped[2 * sizeof text];
    escape(escaped, sizeof escaped, text);
    (void)fprintf(stderr, "{\"ts\": %.3f, \"level\": \"%s\", \"msg\": \"%s\"}\n",
                  (double)qn_clock_wall_ns() * 1e-9, names[level], escaped);
}
