/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "sched/order.h"
#include "support/unit.h"

#include <stdlib.h>

enum { N_PLACES = 50, N_BYTES = 4096 };

/* Whatever is put in and taken out, the first is the least of those that are in. */
static void test_the_first_is_the_least(void **state)
{
    (void)state;
    void *const block = aligned_alloc(64, N_BYTES);
    assert_non_null(block);
    qn_arena arena;
    qn_arena_init(&arena, block, N_BYTES);
    qn_order order;
    qn_order_init(&order, &arena, N_PLACES);
    qn_order_item items[N_PLACES];
    bool is_in[N_PLACES] = {false};
    uint32_t n_in = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        const uint32_t place = (uint32_t)(qn_rng_u64(1, 1, i) % N_PLACES);
        if (is_in[place]) {
            qn_order_remove(&order, place);
        } else {
            items[place] = (qn_order_item){(int64_t)(qn_rng_u64(1, 2, i) % 20) - 10, i, place};
            qn_order_push(&order, items[place]);
        }
        n_in += is_in[place] ? UINT32_MAX : 1;
        is_in[place] = !is_in[place];
        assert_int_equal(order.n_items, n_in);
        const qn_order_item *const first = qn_order_first(&order);
        assert_int_equal(first != NULL, n_in > 0);
        for (uint32_t k = 0; k < N_PLACES && first != NULL; k++) {
            assert_false(is_in[k] && qn_order_is_before(&items[k], first));
        }
        assert_true(first == NULL || is_in[first->place]);
    }
    qn_arena_deinit(&arena);
    free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_is_the_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
