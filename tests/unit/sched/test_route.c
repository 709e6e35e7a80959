/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/route.h"
#include "support/unit.h"

static void test_the_longest_prefix_wins(void **state)
{
    (void)state;
    const qn_route_place places[] = {{64, 10, true}, {128, 60, true}, {0, 5, true}};
    assert_int_equal(qn_route_choose(places, 3, UINT32_MAX), 1);
    assert_int_equal(qn_route_choose(places, 3, 0), 1);
}

static void test_of_equal_prefixes_the_least_load_wins(void **state)
{
    (void)state;
    const qn_route_place places[] = {{64, 60, true}, {64, 50, true}, {64, 50, true}};
    assert_int_equal(qn_route_choose(places, 3, UINT32_MAX), 1);
    assert_int_equal(qn_route_choose(places, 3, 0), 1);
    assert_int_equal(qn_route_choose(places, 3, 2), 2);
}

/* A prefix is worth the rows that it saves and no more. */
static void test_a_busy_place_does_not_count(void **state)
{
    (void)state;
    qn_route_place places[] = {{640, 1640, true}, {0, 1000, true}};
    assert_int_equal(qn_route_choose(places, 2, UINT32_MAX), 0);
    places[0].load_rows++;
    assert_int_equal(qn_route_choose(places, 2, UINT32_MAX), 1);
    assert_int_equal(qn_route_choose(places, 2, 0), 1);
}

static void test_closed_places_do_not_count(void **state)
{
    (void)state;
    qn_route_place places[] = {{640, 0, false}, {0, 900, true}, {64, 950, true}};
    assert_int_equal(qn_route_choose(places, 3, 0), 2);
    places[2].is_open = false;
    assert_int_equal(qn_route_choose(places, 3, 2), 1);
    places[1].is_open = false;
    assert_int_equal(qn_route_choose(places, 3, 2), UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_longest_prefix_wins),
        cmocka_unit_test(test_of_equal_prefixes_the_least_load_wins),
        cmocka_unit_test(test_a_busy_place_does_not_count),
        cmocka_unit_test(test_closed_places_do_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
