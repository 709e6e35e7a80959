/* SPDX-License-Identifier: Apache-2.0 */
/** @file order.h  A heap of requests: the least one is at hand, any one can be taken out. */
#ifndef QN_SCHED_ORDER_H
#define QN_SCHED_ORDER_H
#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

/** Where a request stands: by key, then by number. */
typedef struct qn_order_item {
    int64_t key;
    uint64_t number; /**< Of its own, so that no two are equal. */
    uint32_t place;  /**< The request. */
} qn_order_item;

/** A binary heap; fields private to order.c, but n_items. */
typedef struct qn_order {
    qn_order_item *items; /**< [n_places] */
    uint32_t *at;         /**< [n_places] index in items, of those that are in. */
    uint32_t n_items;     /**< Requests in it. */
    uint32_t n_places;
} qn_order;

/** Lay out a heap of requests 0 .. n_places - 1 in @p arena, which may be one that measures. */
void qn_order_init(qn_order *order, qn_arena *arena, uint32_t n_places);

/** Whether @p a comes before @p b. */
bool qn_order_is_before(const qn_order_item *a, const qn_order_item *b);

/** Put in; its place may not be in. */
void qn_order_push(qn_order *order, qn_order_item item);

/** The first; NULL where it is empty.  Borrowed until the next change. */
const qn_order_item *qn_order_first(const qn_order *order);

/** Take out; it must be in. */
void qn_order_remove(qn_order *order, uint32_t place);
#endif
