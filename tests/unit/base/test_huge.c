/* SPDX-License-Identifier: Apache-2.0 */
#include "base/huge.h"
#include "support/unit.h"

#include <stdlib.h>
#include <string.h>

static void test_blocks_are_aligned_and_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 64, 1000, (2 << 20) - 1, 2 << 20, (5 << 20) + 3};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *const block = qn_huge_alloc(sizes[i]);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % (sizes[i] < 2 << 20 ? 64 : 2 << 20), 0);
        memset(block, 1, sizes[i]);
        free(block);
    }
}

static void test_sizes_that_cannot_be_rounded_are_refused(void **state)
{
    (void)state;
    assert_null(qn_huge_alloc(SIZE_MAX));
    assert_null(qn_huge_alloc(SIZE_MAX - (2 << 20) + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_aligned_and_whole),
        cmocka_unit_test(test_sizes_that_cannot_be_rounded_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
