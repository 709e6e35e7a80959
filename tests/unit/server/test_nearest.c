/* SPDX-License-Identifier: Apache-2.0 */
#include "server/nearest.h"
#include "support/unit.h"

#include <stdint.h>
#include <string.h>

static size_t between(const char *a, const char *b)
{
    const size_t n = nearest_distance(a, strlen(a), b, strlen(b));
    assert_int_equal(nearest_distance(b, strlen(b), a, strlen(a)), n);
    return n;
}

static void test_each_mistake_counts_once(void **state)
{
    (void)state;
    assert_int_equal(between("", ""), 0);
    assert_int_equal(between("top_p", "top_p"), 0);
    assert_int_equal(between("", "top"), 3);
    assert_int_equal(between("stream", "sream"), 1);
    assert_int_equal(between("stream", "streem"), 1);
    assert_int_equal(between("stream", "sterams"), 2);
    assert_int_equal(between("stop", "seed"), 3);
}

static void test_only_the_lengths_count(void **state)
{
    (void)state;
    assert_int_equal(nearest_distance("seed more", 4, "seeds", 5), 1);
}

static void test_what_nobody_means_is_far(void **state)
{
    (void)state;
    char longest[NEAREST_BYTES_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[NEAREST_BYTES_MAX + 1] = '\0';
    assert_true(between(longest, "a") == SIZE_MAX);
    longest[NEAREST_BYTES_MAX] = '\0';
    assert_int_equal(between(longest, ""), NEAREST_BYTES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_mistake_counts_once),
        cmocka_unit_test(test_only_the_lengths_count),
        cmocka_unit_test(test_what_nobody_means_is_far),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
