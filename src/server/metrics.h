/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file metrics.h  Counters and histograms of a server, in Prometheus's text format: ours
 * (quern_...) and vLLM's names for those that it has too, so that its dashboards work.
 * All but metrics_append() costs a few additions.  The loop's thread only.
 */
#ifndef QN_SERVER_METRICS_H
#define QN_SERVER_METRICS_H
#include "quern/quern.h"

#include "server/error.h"

/** Opaque. */
typedef struct server_metrics server_metrics;

/** QN_E_NOMEM. */
QN_MUST_CHECK qn_status metrics_open(server_metrics **out, qn_error *err);

/** Accepts NULL; sets *metrics to NULL. */
void metrics_close(server_metrics **metrics);

/** A request was refused: counted by @p endpoint, its path, static; NULL: none that there is; and
 * by status and code. */
void metrics_refused(server_metrics *metrics, const char *endpoint, const server_error *error);

/** @p n_tokens of a choice came at once, @p gap_s after those before: inter-token latency. */
void metrics_tokens(server_metrics *metrics, double gap_s, uint32_t n_tokens);

/** The first token of a choice came @p seconds after its request's first byte. */
void metrics_first_token(server_metrics *metrics, double seconds);

/** A choice ended, @p seconds after its request's first byte. */
void metrics_ended(server_metrics *metrics, qn_finish finish, const qn_session_stats *stats,
                   double seconds);

/** How a client was lost. */
typedef enum metrics_loss {
    METRICS_DISCONNECTED, /**< It left before its answer was whole. */
    METRICS_SLOW_READER,  /**< We dropped it. */
    METRICS_N_LOSSES,
} metrics_loss;

/** A client was lost. */
void metrics_lost(server_metrics *metrics, metrics_loss how);

/** A model broke the format of its answer (QN_EVENT_WARNING). */
void metrics_broken_format(server_metrics *metrics);

/** What is true now, beside the counts. */
typedef struct metrics_now {
    qn_engine_stats engine;
    const qn_model *model; /**< NULL before it is loaded. */
    const char *name;      /**< Public name of the model; NULL: not known yet. */
    uint32_t n_connections;
    bool is_ready, is_draining;
} metrics_now;

/** Append the page (docs/metrics.md).  QN_E_NOMEM: nothing was appended. */
QN_MUST_CHECK qn_status metrics_append(qn_buf *out, const server_metrics *metrics,
                                       const metrics_now *now, qn_error *err);
#endif
