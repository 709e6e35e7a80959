/* SPDX-License-Identifier: Apache-2.0 */
/** @file try.h  Leave a function through its one cleanup label. */
#ifndef QN_BASE_TRY_H
#define QN_BASE_TRY_H
#include "base/banned.h"

/** Evaluate @p call into @p status; jump to @p label when it failed.  Names are spelled out. */
#define QN_TRY(status, call, label)                                                                \
    do {                                                                                           \
        (status) = (call);                                                                         \
        if ((status) < 0) {                                                                        \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)
#endif
