/* SPDX-License-Identifier: Apache-2.0 */
#include "api/record.h"

#include "base/try.h"
#include "format/safetensors_writer.h"

#include <errno.h>

struct qn_recorder {
    const qn_config *config;       /* borrowed */
    qn_safetensors_writer *logits; /* owned; NULL when not wanted or finished */
    qn_safetensors_writer *trace;  /* likewise */
    qn_probe probe;
    uint32_t n_rows;  /* of the present step */
    bool is_in_step;  /* of which the trace has some layers' rows, or may have */
    int32_t *set;     /* [index_topk] one padded row, owned */
    qn_error failure; /* the first one: a probe cannot return it */
};

/* Append rows of @p n_columns elements to layer.N.@p what of the trace. */
static void append_trace(qn_recorder *r, int32_t i_layer, const char *what, qn_dtype dtype,
                         uint64_t n_columns, const void *rows, uint64_t n_rows)
{
    char name[64];
    (void)snprintf(name, sizeof name, "layer.%d.%s", i_layer, what);
    if (r->failure.status == QN_OK) {
        r->failure.status = qn_safetensors_writer_append(r->trace, name, dtype, &n_columns, 1, rows,
                                                         n_rows, &r->failure);
    }
}

static void see_hidden(void *context, int32_t i_layer, const float *x)
{
    qn_recorder *const r = context;
    append_trace(r, i_layer, "output", QN_DTYPE_F32, r->config->n_embd, x, r->n_rows);
}

static void see_router(void *context, int32_t i_layer, uint32_t i_row, int32_t *experts,
                       const float *scores)
{
    qn_recorder *const r = context;
    (void)i_row;
    (void)scores;
    append_trace(r, i_layer, "experts", QN_DTYPE_I32, r->config->n_experts_used, experts, 1);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): a probe may write, this one does not */
static void see_index(void *context, int32_t i_layer, uint32_t i_row, int32_t *set, uint32_t n_set,
                      const float *scores)
{
    qn_recorder *const r = context;
    (void)i_row;
    (void)scores;
    for (uint32_t i = 0; i < r->config->index_topk; i++) {
        r->set[i] = i < n_set ? set[i] : -1;
    }
    append_trace(r, i_layer, "index_set", QN_DTYPE_I32, r->config->index_topk, r->set, 1);
}

qn_status qn_recorder_open(qn_recorder **out, const qn_config *config, const char *logits_path,
                           const char *trace_path, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    qn_recorder *r = calloc(1, sizeof *r);
    int32_t *const set = calloc(config->index_topk, sizeof *set);
    if (r == NULL || set == NULL) {
        free(r);
        free(set);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "recorder: no memory");
    }
    r->config = config;
    r->set = set;
    r->probe =
        (qn_probe){.context = r, .hidden = see_hidden, .router = see_router, .index = see_index};
    if (logits_path != NULL) {
        QN_TRY(status, qn_safetensors_writer_open(&r->logits, logits_path, err), fail);
    }
    if (trace_path != NULL) {
        QN_TRY(status, qn_safetensors_writer_open(&r->trace, trace_path, err), fail);
    }
    if (r->logits != NULL && r->trace != NULL &&
        strcmp(qn_safetensors_writer_path(r->logits), qn_safetensors_writer_path(r->trace)) == 0) {
        status = qn_fail(err, QN_E_INVAL, 0, __func__,
                         "trace_path: %.200s, another file than logits_path expected", trace_path);
        goto fail;
    }
    *out = r;
    return QN_OK;

fail:
    qn_recorder_close(&r);
    return status;
}

void qn_recorder_close(qn_recorder **recorder)
{
    qn_recorder *const r = *recorder;
    if (r == NULL) {
        return;
    }
    qn_safetensors_writer_close(&r->logits);
    qn_safetensors_writer_close(&r->trace);
    free(r->set);
    free(r);
    *recorder = NULL;
}

const qn_probe *qn_recorder_begin_step(qn_recorder *recorder, uint32_t n_rows)
{
    recorder->n_rows = n_rows;
    recorder->is_in_step = recorder->trace != NULL;
    return recorder->trace != NULL ? &recorder->probe : NULL;
}

static qn_status append_logits(qn_recorder *r, uint32_t n_rows, const int32_t *ids,
                               const float *logits, qn_error *err)
{
    const uint64_t n_vocab = r->config->n_vocab;
    qn_status status = qn_safetensors_writer_append(r->logits, "logits", QN_DTYPE_F32, &n_vocab, 1,
                                                    logits, n_rows, err);
    for (uint32_t i = 0; status == QN_OK && i < n_rows; i++) {
        const int64_t id = ids[i];
        status = qn_safetensors_writer_append(r->logits, "ids", QN_DTYPE_I64, NULL, 0, &id, 1, err);
    }
    return status;
}

/* The first failure, handed to a caller. */
static qn_status report(const qn_recorder *r, qn_error *err)
{
    if (r->failure.status < 0 && err != NULL) {
        *err = r->failure;
    }
    return r->failure.status;
}

qn_status qn_recorder_end_step(qn_recorder *recorder, uint32_t n_rows, const int32_t *ids,
                               const float *logits, qn_error *err)
{
    qn_recorder *const r = recorder;
    r->is_in_step = false;
    if (qn_recorder_wants_logits(r)) {
        r->failure.status = append_logits(r, n_rows, ids, logits, &r->failure);
    }
    return report(r, err);
}

bool qn_recorder_wants_logits(const qn_recorder *recorder)
{
    return recorder->logits != NULL && recorder->failure.status == QN_OK;
}

void qn_recorder_fail_step(qn_recorder *recorder, qn_status status)
{
    qn_recorder *const r = recorder;
    if (r->is_in_step && r->failure.status == QN_OK) {
        r->failure.status = qn_fail(&r->failure, status, 0, __func__,
                                    "%s: a step failed of which rows were written, all expected",
                                    qn_safetensors_writer_path(r->trace));
    }
    r->is_in_step = false;
}

void qn_recorder_miss_rows(qn_recorder *recorder, qn_status status)
{
    qn_recorder *const r = recorder;
    qn_recorder_fail_step(r, status);
    if (qn_recorder_wants_logits(r)) {
        r->failure.status = qn_fail(&r->failure, status, 0, __func__,
                                    "%s: rows of a step that failed are missing, all expected",
                                    qn_safetensors_writer_path(r->logits));
    }
}

/* Finish one file; accepts a writer that is NULL. */
static void finish_one(qn_recorder *r, qn_safetensors_writer **writer)
{
    if (*writer != NULL && r->failure.status == QN_OK) {
        r->failure.status = qn_safetensors_writer_finish(*writer, &r->failure);
    }
    qn_safetensors_writer_close(writer);
}

qn_status qn_recorder_finish(qn_recorder *recorder, qn_error *err)
{
    finish_one(recorder, &recorder->logits);
    finish_one(recorder, &recorder->trace);
    return report(recorder, err);
}
