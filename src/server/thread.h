/* SPDX-License-Identifier: Apache-2.0 */
/** @file thread.h  What the server's threads have in common: how they begin and how they wake the
 * loop. */
#ifndef QN_SERVER_THREAD_H
#define QN_SERVER_THREAD_H
#include "quern/status.h"

#include <pthread.h>

/** What a thread runs. */
typedef void *thread_fn(void *argument);

/**
 * Start a thread that takes no signals: those are the main thread's.
 * @param name  at most 15 characters, for debuggers and top
 * Returns  QN_OK; QN_E_IO: no thread
 */
QN_MUST_CHECK qn_status thread_start(pthread_t *thread, thread_fn *fn, void *argument,
                                     const char *name, qn_error *err);

/** Write an eventfd, so that whoever polls it wakes.  Any thread. */
void thread_wake(int event_fd);
#endif
