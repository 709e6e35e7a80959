/* SPDX-License-Identifier: Apache-2.0 */
/** @file readers.h  Threads that parse and tokenize bodies, so that a long prompt never holds the
 * loop.  Jobs are the caller's memory; nothing is allocated here after open. */
#ifndef QN_SERVER_READERS_H
#define QN_SERVER_READERS_H
#include "base/buf.h"

/** Something to do elsewhere; the caller embeds it. */
typedef struct reader_job {
    void (*run)(struct reader_job *job); /**< In a reader's thread. */
    struct reader_job *next;             /**< The readers' own. */
} reader_job;

/** Opaque. */
typedef struct server_readers server_readers;

/** @param wake_fd  eventfd that is written when jobs are done; borrowed.  QN_E_NOMEM, QN_E_IO. */
QN_MUST_CHECK qn_status readers_open(server_readers **out, uint32_t n_threads, int wake_fd,
                                     qn_error *err);
/** Waits for jobs at hand; those not begun are given to nobody.  Accepts NULL. */
void readers_close(server_readers **readers);

/** First come, first served; cannot fail. */
void readers_submit(server_readers *readers, reader_job *job);

/** A job that is done, in order of their ends; NULL: none. */
reader_job *readers_poll(server_readers *readers);
#endif
