/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes for a caller on the host: the batch is uploaded, results are downloaded, and the host
 * waits.  What fails cannot be said by these functions: what they should have given is NaN, of
 * which no token is drawn, until the caller asks for the failure, as later passes read what it
 * left.
 */
#include "base/assert.h"
#include "base/log.h"
#include "base/minmax.h"
#include "model/gpu_glm.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* ------------------------------------------------------------------------------------- failures
 */

static bool has_failed(const qn_gpu_glm *g)
{
    return g->failure.status < 0;
}

static void note_failure(qn_gpu_glm *g, qn_status status, const qn_error *err)
{
    if (status < 0 && !has_failed(g)) {
        qn_log(QN_LOG_ERROR, "%s: %s", qn_gpu_get_info(g->gpu)->name, err->text);
        g->failure = *err;
        g->failure.status = status;
    }
}

qn_status qn_gpu_host_take_failure(qn_gpu_glm *g, qn_error *err)
{
    const qn_status status = g->failure.status;
    if (status < 0 && err != NULL) {
        *err = g->failure;
    }
    g->failure = (qn_error){0};
    return status;
}

/* Everything that was queued is done, and right. */
static bool finish(qn_gpu_glm *g)
{
    qn_error err = {0};
    note_failure(g, qn_gpu_wait(g->stream, &err), &err);
    return !has_failed(g);
}

static void fill_nan(float *to, size_t n)
{
    for (size_t i = 0; to != NULL && i < n; i++) {
        to[i] = NAN;
    }
}

/* ---------------------------------------------------------------------------------------- batch
 */

/* Room for @p n numbers of a batch on both sides. */
static qn_status reserve_numbers(qn_gpu_glm *g, size_t n, qn_error *err)
{
    if (n <= g->n_numbers) {
        return QN_OK;
    }
    n = n + n / 2;
    void *device = NULL;
    void *host = NULL;
    qn_status status = qn_gpu_alloc(&device, g->gpu, n * sizeof *g->numbers, "batch", err);
    if (status == QN_OK) {
        status = qn_gpu_alloc_host(&host, g->gpu, n * sizeof *g->numbers, "batch", err);
    }
    if (status < 0) {
        qn_gpu_free(g->gpu, device);
        return status;
    }
    qn_gpu_free(g->gpu, g->numbers);
    qn_gpu_free_host(g->gpu, g->numbers_host);
    g->numbers = device;
    g->numbers_host = host;
    g->n_numbers = n;
    return QN_OK;
}

/* Numbers of a list of @p n, so that the next begins on 16 bytes. */
static size_t padded(size_t n)
{
    return (n + 3) / 4 * 4;
}

/* Upload what a pass reads; of page tables the columns that rows have positions in. */
static bool upload_batch(qn_gpu_glm *g, const qn_batch *batch, qn_gpu_batch *out,
                         const uint32_t **logit_rows)
{
    const size_t n_rows = batch->n_rows;
    const size_t list = padded(n_rows);
    qn_error err = {0};
    uint32_t n_positions = 0;
    for (size_t t = 0; t < n_rows; t++) {
        const uint32_t n = (uint32_t)batch->positions[t] + 1;
        n_positions = n > n_positions ? n : n_positions;
    }
    const uint32_t n_pages = qn_pages_for(n_positions);
    const size_t n_numbers = 4 * list + (size_t)batch->n_seqs * n_pages;
    note_failure(g, reserve_numbers(g, n_numbers, &err), &err);
    if (has_failed(g)) {
        return false;
    }
    int32_t *const at = g->numbers_host;
    QN_ASSERT(at != NULL);
    memcpy(at, batch->tokens, n_rows * sizeof *at);
    memcpy(at + list, batch->positions, n_rows * sizeof *at);
    memcpy(at + 2 * list, batch->seqs, n_rows * sizeof *at);
    if (batch->n_logit_rows > 0) {
        memcpy(at + 3 * list, batch->logit_rows, batch->n_logit_rows * sizeof *at);
    }
    for (size_t s = 0; s < batch->n_seqs; s++) {
        memcpy(at + 4 * list + s * n_pages, batch->page_tables + s * batch->n_table_pages,
               n_pages * sizeof *at);
    }
    qn_gpu_upload(g->stream, g->numbers, at, n_numbers * sizeof *at);
    *logit_rows = (const uint32_t *)(const void *)(g->numbers + 3 * list);
    *out = (qn_gpu_batch){.tokens = g->numbers,
                          .positions = g->numbers + list,
                          .seqs = g->numbers + 2 * list,
                          .page_tables = g->numbers + 4 * list,
                          .n_rows = batch->n_rows,
                          .n_table_pages = n_pages,
                          .n_positions_max = n_positions};
    return true;
}

/* ------------------------------------------------------------------------------------- passes */

static void download_hidden(const qn_gpu_glm *g, uint32_t n_rows, float *hidden)
{
    if (hidden != NULL) {
        qn_gpu_download(g->stream, hidden, g->ws.hidden,
                        (size_t)n_rows * g->config->n_embd * sizeof *hidden);
    }
}

/* Logits of rows of ws.hidden, in as many turns as their buffer makes necessary. */
static void download_logits(qn_gpu_glm *g, const uint32_t *rows, uint32_t n_rows, float *logits)
{
    const size_t n_vocab = g->config->n_vocab;
    for (uint32_t first = 0; first < n_rows; first += g->ws.n_logit_rows) {
        const uint32_t n = qn_min_u32(n_rows - first, g->ws.n_logit_rows);
        qn_gpu_glm_head(g, rows != NULL ? rows + first : NULL, rows != NULL ? 0 : first, n);
        qn_gpu_download(g->stream, logits + first * n_vocab, g->ws.logits,
                        n * n_vocab * sizeof *logits);
    }
}

/* Results of a pass, or NaN. */
static void give(qn_gpu_glm *g, const qn_batch *batch, const uint32_t *logit_rows, bool is_queued,
                 float *hidden, float *logits)
{
    if (is_queued) {
        download_hidden(g, batch->n_rows, hidden);
        download_logits(g, logit_rows, logits != NULL ? batch->n_logit_rows : 0, logits);
    }
    if (!finish(g)) {
        fill_nan(hidden, (size_t)batch->n_rows * g->config->n_embd);
        fill_nan(logits, (size_t)batch->n_logit_rows * g->config->n_vocab);
    }
}

void qn_gpu_host_forward(qn_gpu_glm *g, const qn_kv *kv, const qn_batch *batch, float *hidden,
                         float *logits, const qn_probe *probe)
{
    qn_gpu_batch there;
    const uint32_t *logit_rows = NULL;
    const bool is_queued = upload_batch(g, batch, &there, &logit_rows);
    if (is_queued) {
        qn_gpu_glm_trunk(g, kv, &there, probe);
    }
    give(g, batch, logit_rows, is_queued, hidden, logits);
}

void qn_gpu_host_head(qn_gpu_glm *g, const float *hidden, uint32_t n_rows, float *logits)
{
    QN_ASSERT(n_rows > 0 && n_rows <= g->n_rows_max);
    qn_gpu_upload(g->stream, g->ws.hidden, hidden,
                  (size_t)n_rows * g->config->n_embd * sizeof *hidden);
    download_logits(g, NULL, n_rows, logits);
    if (!finish(g)) {
        fill_nan(logits, (size_t)n_rows * g->config->n_vocab);
    }
}

/* Upload what the MTP layer takes beside its batch. */
static bool upload_mtp(qn_gpu_glm *g, const qn_batch *batch, const float *hidden_prev,
                       qn_gpu_batch *out, const uint32_t **logit_rows)
{
    if (!upload_batch(g, batch, out, logit_rows)) {
        return false;
    }
    qn_gpu_upload(g->stream, g->ws.hidden_prev, hidden_prev,
                  (size_t)batch->n_rows * g->config->n_embd * sizeof *hidden_prev);
    return true;
}

void qn_gpu_host_mtp(qn_gpu_glm *g, const qn_kv *kv, const qn_batch *batch, const qn_mtp_io *io,
                     const qn_probe *probe)
{
    const size_t n_sets = batch->n_rows;
    const size_t sets_bytes = n_sets * g->config->index_topk * sizeof *g->ws.sets;
    qn_gpu_batch there;
    const uint32_t *logit_rows = NULL;
    const bool is_queued = upload_mtp(g, batch, io->hidden_prev, &there, &logit_rows);
    if (is_queued && io->reuse != NULL) {
        qn_gpu_upload(g->stream, g->ws.sets, io->reuse->sets, sets_bytes);
        qn_gpu_upload(g->stream, g->ws.n_sets, io->reuse->n_sets, n_sets * sizeof *g->ws.n_sets);
    }
    if (is_queued) {
        qn_gpu_glm_mtp(g, kv, &there, io->reuse != NULL, probe);
    }
    if (is_queued && io->keep != NULL) {
        qn_gpu_download(g->stream, io->keep->sets, g->ws.sets, sets_bytes);
        qn_gpu_download(g->stream, io->keep->n_sets, g->ws.n_sets, n_sets * sizeof *g->ws.n_sets);
    }
    give(g, batch, logit_rows, is_queued, io->hidden, io->logits);
    if (has_failed(g) && io->keep != NULL) {
        memset(io->keep->n_sets, 0, n_sets * sizeof *io->keep->n_sets);
    }
}

void qn_gpu_host_mtp_cache(qn_gpu_glm *g, const qn_kv *kv, const qn_batch *batch,
                           const float *hidden_prev)
{
    qn_gpu_batch there;
    const uint32_t *logit_rows = NULL;
    if (upload_mtp(g, batch, hidden_prev, &there, &logit_rows)) {
        qn_gpu_glm_mtp_cache(g, kv, &there);
    }
    (void)finish(g);
}

/* --------------------------------------------------------------------------------------- probes
 */

/* Bytes of the device in memory of the host, owned by the caller; NULL: the pass has failed. */
static void *look(qn_gpu_glm *g, const void *from, size_t n_bytes)
{
    void *const to = calloc(1, n_bytes + 1);
    if (to == NULL) {
        qn_error err = {0};
        note_failure(g, qn_fail(&err, QN_E_NOMEM, ENOMEM, __func__, "trace: no memory"), &err);
        return NULL;
    }
    qn_gpu_download(g->stream, to, from, n_bytes);
    if (!finish(g)) { /* or a probe would be shown what no layer has computed */
        free(to);
        return NULL;
    }
    return to;
}

void qn_gpu_probe_hidden(qn_gpu_glm *g, const qn_probe *probe, int32_t i_layer, uint32_t n_rows)
{
    float *const x = look(g, g->ws.x, (size_t)n_rows * g->config->n_embd * sizeof *x);
    if (x != NULL) {
        probe->hidden(probe->context, i_layer, x);
    }
    free(x);
}

void qn_gpu_probe_router(qn_gpu_glm *g, const qn_gpu_call *call)
{
    const qn_config *const c = g->config;
    const size_t n_rows = call->batch->n_rows;
    const size_t experts_bytes = n_rows * c->n_experts_used * sizeof(int32_t);
    float *const logits =
        look(g, g->ws.router_logits, n_rows * g->ws.router_stride * sizeof *logits);
    float *const bias = look(g, call->layer->router_bias, c->n_experts * sizeof *bias);
    int32_t *const experts = look(g, g->ws.experts, experts_bytes);
    const bool is_seen = logits != NULL && bias != NULL && experts != NULL;
    for (size_t t = 0; t < n_rows && is_seen; t++) {
        float *const scores = logits + t * g->ws.router_stride;
        for (uint32_t e = 0; e < c->n_experts; e++) {
            scores[e] = 1.0F / (1.0F + expf(-scores[e])) + bias[e];
        }
        call->probe->router(call->probe->context, (int32_t)call->i_layer, (uint32_t)t,
                            experts + t * c->n_experts_used, scores);
    }
    if (is_seen) {
        qn_gpu_upload(g->stream, g->ws.experts, experts, experts_bytes);
        (void)finish(g);
    }
    free(logits);
    free(bias);
    free(experts);
}

void qn_gpu_probe_index(qn_gpu_glm *g, const qn_gpu_call *call, uint32_t first, uint32_t end,
                        const float *scores, uint64_t stride)
{
    const size_t n_topk = g->config->index_topk;
    const size_t n_rows = end - first;
    const size_t sets_bytes = n_rows * n_topk * sizeof(int32_t);
    int32_t *const there = g->ws.sets + first * n_topk;
    int32_t *const sets = look(g, there, sets_bytes);
    uint32_t *const n_sets = look(g, g->ws.n_sets + first, n_rows * sizeof *n_sets);
    int32_t *const positions = look(g, call->batch->positions + first, n_rows * sizeof *positions);
    float *const seen =
        scores != NULL ? look(g, scores, (size_t)(n_rows * stride) * sizeof *seen) : NULL;
    const bool is_seen =
        sets != NULL && n_sets != NULL && positions != NULL && (scores == NULL || seen != NULL);
    for (size_t i = 0; i < n_rows && is_seen; i++) {
        const bool has_scores =
            (size_t)positions[i] + 1 - call->first_position > n_topk && seen != NULL;
        call->probe->index(call->probe->context, (int32_t)call->i_layer, first + (uint32_t)i,
                           sets + i * n_topk, n_sets[i], has_scores ? seen + i * stride : NULL);
    }
    if (is_seen) {
        qn_gpu_upload(g->stream, there, sets, sets_bytes);
        (void)finish(g);
    }
    free(sets);
    free(n_sets);
    free(positions);
    free(seen);
}
