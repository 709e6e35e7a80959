/* SPDX-License-Identifier: Apache-2.0 */
/** @file pool.h  A fixed set of worker threads that split one loop at a time between them. */
#ifndef QN_BASE_POOL_H
#define QN_BASE_POOL_H
#include "quern/status.h"

#include <stddef.h>
#include <stdint.h>

/** Opaque.  One thread at a time may call qn_pool_run(). */
typedef struct qn_pool qn_pool;

/**
 * Body of a parallel loop: items first .. end-1.
 * @param i_thread  0 .. n_threads-1, for per-thread scratch
 */
typedef void qn_pool_fn(void *context, size_t first, size_t end, uint32_t i_thread);

/**
 * Start @p n_threads - 1 workers (the caller is the other one); 0 means one per CPU granted.  Where
 * there are as many threads as CPUs, each worker is pinned to one of them.  Between loops they spin
 * for 50 us, then sleep.
 */
QN_MUST_CHECK qn_status qn_pool_open(qn_pool **out, uint32_t n_threads, qn_error *err);

/** Join the workers and set *pool to NULL.  Accepts NULL. */
void qn_pool_close(qn_pool **pool);

/** Threads that take part in a loop, the caller included; at least 1. */
uint32_t qn_pool_threads(const qn_pool *pool);

/**
 * Run @p fn over items 0 .. n_items-1, split into contiguous ranges of nearly equal length, and
 * return when all are done.  Thread i has the i-th range, and the first n_items % n_threads ranges
 * have one item more.  Which thread gets which item never changes a result of ours.
 */
void qn_pool_run(qn_pool *pool, size_t n_items, qn_pool_fn *fn, void *context);
#endif
