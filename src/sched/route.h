/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file route.h  Which of several places a request goes to: attention groups of one scheduler, or
 * data-parallel replicas with a scheduler each.
 */
#ifndef QN_SCHED_ROUTE_H
#define QN_SCHED_ROUTE_H
#include <stdbool.h>
#include <stdint.h>

/** What is known of a place. */
typedef struct qn_route_place {
    uint32_t n_matched; /**< Positions of the prompt that its prefix tree holds. */
    uint64_t load_rows; /**< Rows that wait there: see qn_sched_load(). */
    bool is_open;       /**< It can take a request. */
} qn_route_place;

/**
 * The place with the longest prefix, of those with the least load, of those the one that served the
 * session last, of those the first.  A place that is busier than the least busy one by more rows
 * than its prefix saves does not count: waiting there would cost more than computing.
 *
 * @param sticky  place that served the session last; UINT32_MAX: none
 * Returns  0 .. n - 1; UINT32_MAX where none is open
 */
uint32_t qn_route_choose(const qn_route_place *places, uint32_t n, uint32_t sticky);
#endif
