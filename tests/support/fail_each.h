/* SPDX-License-Identifier: Apache-2.0 */
/** @file fail_each.h  Run something with its first allocation failing, its second, and so on. */
#ifndef QN_TEST_FAIL_EACH_H
#define QN_TEST_FAIL_EACH_H
#include "quern/status.h"

#include "support/fail_alloc.h"
#include "support/unit.h"

/**
 * Fail allocation 0, @p step, 2 * @p step ... of @p body, once and from then on, until there is
 * none left to fail; then there must have been @p n_min at least.  One that libraries do without
 * (qsort() sorts in place then, a pattern is not compiled) may leave the result good.
 */
static inline void fail_each(qn_status (*body)(qn_error *err), size_t step, size_t n_min)
{
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    for (g_fails_from_then_on = 0; g_fails_from_then_on <= 1; g_fails_from_then_on++) {
        for (size_t n = 0;; n += step) {
            qn_error err = {0};
            g_n_failed = 0;
            g_allocations_left = n;
            const qn_status status = body(&err);
            g_allocations_left = SIZE_MAX;
            if (g_n_failed == 0) {
                assert_int_equal(status, QN_OK);
                assert_true(n >= n_min);
                break;
            }
            if (status != QN_OK) {
                assert_int_equal(status, QN_E_NOMEM);
                assert_non_null(strstr(err.text, "memory"));
            }
        }
    }
}
#endif
