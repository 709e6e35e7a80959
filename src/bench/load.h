/* SPDX-License-Identifier: Apache-2.0 */
/** @file load.h  Which request is due when: open loop by a list of moments, or closed loop; turns
 * that follow answers.  Knows no clock: it is told the time. */
#ifndef QN_BENCH_LOAD_H
#define QN_BENCH_LOAD_H
#include "client.h"

/** Where requests come from; bench_workload_first() and bench_workload_after(). */
typedef struct bench_supply {
    void *context;
    qn_status (*first)(void *context, uint64_t i, bench_call *call, qn_error *err);
    bool (*after)(void *context, const bench_record *record, bench_call *call);
} bench_supply;

/** One load. */
typedef struct bench_load_options {
    bench_supply supply;
    uint64_t i_first, n_conversations; /**< Of the supply: from which one on, how many. */
    /** [n_conversations] rising, borrowed: when each is due.  NULL: closed loop, one whenever there
     * is room. */
    const double *due_s;
    size_t n_at_once;               /**< Requests under way at most. */
    double until_s;                 /**< Nothing is sent from then on; INFINITY: no such moment. */
    void *context;                  /**< Of the next two. */
    bool (*goes_on)(void *context); /**< False: stop now. */
    void (*seen)(void *context, bench_record *record);        /**< Ended; may be changed. */
    void (*tick)(void *context, double now_s, size_t n_held); /**< n_held: due, but not sent for
                                                                   want of room. */
} bench_load_options;

typedef struct bench_load bench_load;

/** Returns  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status bench_load_open(bench_load **out, const bench_load_options *options,
                                        qn_error *err);
void bench_load_close(bench_load **load);

/** What the client runs; borrowed from @p load. */
bench_source bench_load_source(bench_load *load);

/** What went wrong in making requests, which ends a load early; QN_OK: nothing. */
qn_status bench_load_status(const bench_load *load, qn_error *err);

/** Requests handed out, and the moment of the last of these. */
uint64_t bench_load_n_sent(const bench_load *load);
double bench_load_last_s(const bench_load *load);
#endif
