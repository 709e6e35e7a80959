/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/order.h"

#include "base/assert.h"

void qn_order_init(qn_order *order, qn_arena *arena, uint32_t n_places)
{
    *order = (qn_order){
        .items = qn_arena_alloc(arena, n_places * sizeof *order->items, 64),
        .at = qn_arena_alloc(arena, n_places * sizeof *order->at, 64),
        .n_places = n_places,
    };
}

bool qn_order_is_before(const qn_order_item *a, const qn_order_item *b)
{
    return a->key != b->key ? a->key < b->key : a->number < b->number;
}

static void put(qn_order *order, uint32_t i, qn_order_item item)
{
    order->items[i] = item;
    order->at[item.place] = i;
}

/* Find the place of an item that belongs at i or above. */
static void sift_up(qn_order *order, uint32_t i, qn_order_item item)
{
    while (i > 0 && qn_order_is_before(&item, &order->items[(i - 1) / 2])) {
        put(order, i, order->items[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(order, i, item);
}

/* Find the place of an item that belongs at i or below. */
static void sift_down(qn_order *order, uint32_t i, qn_order_item item)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= order->n_items) {
            break;
        }
        if (child + 1 < order->n_items &&
            qn_order_is_before(&order->items[child + 1], &order->items[child])) {
            child++;
        }
        if (!qn_order_is_before(&order->items[child], &item)) {
            break;
        }
        put(order, i, order->items[child]);
        i = child;
    }
    put(order, i, item);
}

void qn_order_push(qn_order *order, qn_order_item item)
{
    QN_ASSERT(order->n_items < order->n_places);
    QN_ASSERT(item.place < order->n_places);
    sift_up(order, order->n_items++, item);
}

const qn_order_item *qn_order_first(const qn_order *order)
{
    return order->n_items > 0 ? &order->items[0] : NULL;
}

void qn_order_remove(qn_order *order, uint32_t place)
{
    QN_ASSERT(place < order->n_places);
    const uint32_t i = order->at[place];
    QN_ASSERT(i < order->n_items && order->items[i].place == place);
    const qn_order_item last = order->items[--order->n_items];
    if (i == order->n_items) {
        return;
    }
    if (i > 0 && qn_order_is_before(&last, &order->items[(i - 1) / 2])) {
        sift_up(order, i, last);
    } else {
        sift_down(order, i, last);
    }
}
