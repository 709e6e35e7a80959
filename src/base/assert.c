/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"

#include "base/log.h"

_Noreturn void qn_assert_failed(const char *condition, const char *file, int line)
{
    qn_log(QN_LOG_ERROR, "%s:%d: assertion failed: %s", file, line, condition);
    abort();
}
