/* SPDX-License-Identifier: Apache-2.0 */
/** @file backend.h  What answers: an engine behind a table, so that tests and benches put another
 * there.  All calls come from the worker's thread. */
#ifndef QN_SERVER_BACKEND_H
#define QN_SERVER_BACKEND_H
#include "quern/quern.h"

/** An engine: each entry as the function of the same name in quern.h. */
typedef struct server_backend {
    void *context; /**< Given to each. */
    qn_status (*submit)(void *context, uint64_t *id, const qn_request *request, qn_error *err);
    void (*cancel)(void *context, uint64_t id);
    qn_status (*step)(void *context, qn_error *err);
    bool (*poll)(void *context, uint64_t *id, qn_event *event);
    qn_engine_stats (*get_stats)(void *context);
    void (*flush)(void *context);
    void (*close)(void *context); /**< The engine and what it was opened with; not the model. */
    const qn_model *model;        /**< For encoding and facts; borrowed. */
    uint32_t n_sequences;         /**< Requests that run at once, */
    uint32_t n_queue;             /**< and that wait. */
    uint32_t context_tokens;      /**< Positions of a sequence. */
} server_backend;

/** How to come to a backend: called once, in the worker's thread, while the server answers that it
 * is not ready.  Returns QN_OK; an error, which ends the server. */
typedef qn_status server_load_fn(void *context, server_backend *out, qn_error *err);

/** An engine of quern.h; the three counts of @p options are not 0.  Errors of
 * qn_engine_open(). */
QN_MUST_CHECK qn_status server_backend_open(server_backend *out, qn_model *model,
                                            const qn_engine_options *options, qn_error *err);

/**
 * The kernels of a model, as qn_model_kernels() tells them.
 *
 * @param[out] out  [n] owned by the caller (free)
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status server_list_kernels(qn_kernel_choice **out, size_t *n,
                                            const qn_model *model, qn_error *err);
#endif
