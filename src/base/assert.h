/* SPDX-License-Identifier: Apache-2.0 */
/** @file assert.h  Programmer errors stop the process; input from outside is never asserted. */
#ifndef QN_BASE_ASSERT_H
#define QN_BASE_ASSERT_H
#include "base/banned.h"

/** Log file, line and condition, then abort.  Never returns. */
_Noreturn void qn_assert_failed(const char *condition, const char *file, int line);

/** Stays on in release builds; not for inner loops of kernels. */
#define QN_ASSERT(condition)                                                                       \
    ((condition) ? (void)0 : qn_assert_failed(#condition, __FILE__, __LINE__))

#ifdef NDEBUG
#define QN_DEBUG_ASSERT(condition) ((void)0)
#else
/** For hot loops: debug and sanitizer builds only. */
#define QN_DEBUG_ASSERT(condition) QN_ASSERT(condition)
#endif
#endif
