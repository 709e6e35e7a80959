/* SPDX-License-Identifier: Apache-2.0 */
#include "server/backend.h"

#include <errno.h>
#include <stdlib.h>

static qn_status submit(void *context, uint64_t *id, const qn_request *request, qn_error *err)
{
    return qn_engine_submit(id, context, request, err);
}

static void cancel(void *context, uint64_t id)
{
    qn_engine_cancel(context, id);
}

static qn_status step(void *context, qn_error *err)
{
    return qn_engine_step(context, err);
}

static bool poll(void *context, uint64_t *id, qn_event *event)
{
    return qn_engine_poll(id, event, context);
}

static qn_engine_stats get_stats(void *context)
{
    return qn_engine_get_stats(context);
}

static void flush(void *context)
{
    qn_engine_flush(context);
}

static void close_engine(void *context)
{
    qn_engine *engine = context;
    qn_engine_close(&engine);
}

qn_status server_backend_open(server_backend *out, qn_model *model,
                              const qn_engine_options *options, qn_error *err)
{
    qn_engine *engine = NULL;
    const qn_status status = qn_engine_open(&engine, model, options, err);
    if (status < 0) {
        return status;
    }
    *out = (server_backend){
        .context = engine,
        .submit = submit,
        .cancel = cancel,
        .step = step,
        .poll = poll,
        .get_stats = get_stats,
        .flush = flush,
        .close = close_engine,
        .model = model,
        .n_sequences = options->n_sequences,
        .n_queue = options->n_queue,
        .context_tokens = options->context_tokens,
    };
    return QN_OK;
}

qn_status server_list_kernels(qn_kernel_choice **out, size_t *n, const qn_model *model,
                              qn_error *err)
{
    *n = qn_model_kernels(NULL, 0, model);
    *out = calloc(*n + 1, sizeof **out);
    if (*out == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "kernels: no memory for %zu", *n);
    }
    (void)qn_model_kernels(*out, *n, model); /* they are fixed once the model is open */
    return QN_OK;
}
