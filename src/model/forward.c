/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "model/internal.h"

/* Below this many products a second thread costs more than it brings. */
enum { PARALLEL_MIN = 1 << 15 };

static void matmul_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_glm *m = ((void **)context)[0];
    qn_matmul_args args = *(const qn_matmul_args *)((void **)context)[1];
    args.y += first;
    args.out_first = (uint32_t)first;
    args.out_end = (uint32_t)end;
    args.scratch = m->ws.scratch + i_thread * m->ws.scratch_floats;
    m->k->matmul(&args);
}

void qn_glm_matmul(const qn_glm *m, float *y, size_t y_stride, const float *x, size_t x_stride,
                   const qn_weight *w, uint32_t n_rows)
{
    qn_matmul_args args = {.y = y,
                           .y_stride = y_stride,
                           .x = x,
                           .x_stride = x_stride,
                           .w = w,
                           .n_rows = n_rows,
                           .compute = m->compute};
    void *context[2] = {(void *)(uintptr_t)m, &args};
    if (n_rows == 0) {
        return;
    }
    if ((uint64_t)n_rows * w->n_out * w->n_in < PARALLEL_MIN) {
        matmul_range(context, 0, w->n_out, 0);
    } else {
        qn_pool_run(m->pool, w->n_out, matmul_range, context);
    }
}

void qn_glm_embed(qn_glm *m, const qn_batch *batch, float *out, size_t stride)
{
    for (uint32_t t = 0; t < batch->n_rows; t++) {
        m->k->dequant_row(out + t * stride, &m->weights.embed, (uint32_t)batch->tokens[t]);
    }
}

/* Close a block: the residual stream takes its output. */
static void add_residual(qn_glm *m, uint32_t n_rows)
{
    m->k->axpy(m->ws.x, m->ws.y, 1.0F, (size_t)n_rows * m->config.n_embd);
}

void qn_glm_layer(qn_glm *m, const qn_layer_call *call)
{
    const uint32_t n_rows = call->batch->n_rows;
    const size_t n_embd = m->config.n_embd;
    const float eps = m->config.rms_eps;
    qn_workspace *ws = &m->ws;
    m->k->rmsnorm(ws->xn, n_embd, ws->x, n_embd, call->layer->input_norm, n_rows, n_embd, eps);
    qn_glm_attention(m, call);
    add_residual(m, n_rows);
    m->k->rmsnorm(ws->xn, n_embd, ws->x, n_embd, call->layer->post_norm, n_rows, n_embd, eps);
    if (m->config.is_dense[call->i_layer]) {
        qn_glm_mlp(m, &call->layer->mlp, n_rows);
    } else {
        qn_glm_moe(m, call);
    }
    add_residual(m, n_rows);
    if (call->probe != NULL && call->probe->hidden != NULL) {
        call->probe->hidden(call->probe->context, (int32_t)call->i_layer, ws->x);
    }
}

const float *qn_glm_head(qn_glm *m, const qn_batch *batch, const float *norm, float *hidden,
                         float *logits)
{
    const size_t n_embd = m->config.n_embd;
    const size_t n_vocab = m->config.n_vocab;
    float *h = hidden != NULL ? hidden : m->ws.xn;
    m->k->rmsnorm(h, n_embd, m->ws.x, n_embd, norm, batch->n_rows, n_embd, m->config.rms_eps);
    const uint32_t n_logit_rows = logits != NULL ? batch->n_logit_rows : 0;
    for (uint32_t i = 0; i < n_logit_rows; i++) {
        QN_ASSERT(batch->logit_rows[i] < batch->n_rows);
        memcpy(m->ws.y + i * n_embd, h + batch->logit_rows[i] * n_embd, n_embd * sizeof *h);
    }
    qn_glm_matmul(m, logits, n_vocab, m->ws.y, n_embd, &m->weights.lm_head, n_logit_rows);
    return h;
}

/* Pages keep the hidden vector of their last token. */
static void keep_page_ends(const qn_glm *m, const qn_kv *kv, const qn_batch *batch, const float *h)
{
    const size_t n_embd = m->config.n_embd;
    for (uint32_t t = 0; t < batch->n_rows && kv->layout->hidden >= 0; t++) {
        const size_t position = (size_t)batch->positions[t];
        if (position % QN_PAGE_TOKENS == QN_PAGE_TOKENS - 1) {
            const int32_t page = qn_batch_pages(batch, t)[position / QN_PAGE_TOKENS];
            memcpy(qn_kv_page_hidden(kv, page), h + t * n_embd, n_embd * sizeof *h);
        }
    }
}

/* Rows that would write beside the cache must stop here, whoever made the batch. */
static void check_batch(const qn_glm *m, const qn_kv *kv, const qn_batch *batch)
{
    QN_ASSERT(batch->n_rows > 0);
    QN_ASSERT(batch->n_rows <= m->n_rows_max);
    QN_ASSERT(batch->n_logit_rows <= batch->n_rows);
    for (uint32_t t = 0; t < batch->n_rows; t++) {
        const uint32_t position = (uint32_t)batch->positions[t];
        const uint32_t i_page = position / QN_PAGE_TOKENS;
        const uint32_t i_seq = (uint32_t)batch->seqs[t];
        QN_ASSERT((uint32_t)batch->tokens[t] < m->config.n_vocab);
        QN_ASSERT(position < m->config.n_context_max);
        QN_ASSERT(i_seq < batch->n_seqs);
        QN_ASSERT(i_page < batch->n_table_pages);
        QN_ASSERT((uint32_t)qn_batch_pages(batch, t)[i_page] < kv->n_pages);
    }
}

void qn_glm_forward(qn_glm *model, const qn_kv *kv, const qn_batch *batch, float *hidden,
                    float *logits, const qn_probe *probe)
{
    qn_glm *m = model;
    check_batch(m, kv, batch);
    qn_glm_embed(m, batch, m->ws.x, m->config.n_embd);
    if (probe != NULL && probe->hidden != NULL) {
        probe->hidden(probe->context, -1, m->ws.x);
    }
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const qn_layer_call call = {
            .layer = &m->weights.layers[i], .i_layer = i, .kv = kv, .batch = batch, .probe = probe};
        qn_glm_layer(m, &call);
    }
    keep_page_ends(m, kv, batch, qn_glm_head(m, batch, m->weights.norm, hidden, logits));
}

/* ws.x = eh_proj of both norms, the embedding first and the hidden second (docs/model.md). */
static void join_input(qn_glm *m, const qn_batch *batch, const float *hidden_prev)
{
    const qn_weights *w = &m->weights;
    const size_t n_embd = m->config.n_embd;
    const size_t stride = 2 * n_embd;
    const float eps = m->config.rms_eps;
    float *concat = m->ws.concat;
    qn_glm_embed(m, batch, concat, stride);
    m->k->rmsnorm(concat, stride, concat, stride, w->enorm, batch->n_rows, n_embd, eps);
    m->k->rmsnorm(concat + n_embd, stride, hidden_prev, n_embd, w->hnorm, batch->n_rows, n_embd,
                  eps);
    qn_glm_matmul(m, m->ws.x, n_embd, concat, stride, &w->eh_proj, batch->n_rows);
}

void qn_glm_mtp(qn_glm *model, const qn_kv *kv, const qn_batch *batch, const qn_mtp_io *io,
                const qn_probe *probe)
{
    qn_glm *m = model;
    QN_ASSERT(m->weights.has_mtp);
    check_batch(m, kv, batch);
    join_input(m, batch, io->hidden_prev);
    const qn_layer_call call = {.layer = &m->weights.layers[m->config.n_layers],
                                .i_layer = m->config.n_layers,
                                .first_position = 1,
                                .kv = kv,
                                .batch = batch,
                                .reuse = io->reuse,
                                .probe = probe};
    qn_glm_layer(m, &call);
    if (io->keep != NULL) {
        const size_t n_topk = m->config.index_topk;
        memcpy(io->keep->sets, m->ws.sets, batch->n_rows * n_topk * sizeof *io->keep->sets);
        memcpy(io->keep->n_sets, m->ws.n_sets, batch->n_rows * sizeof *io->keep->n_sets);
    }
    (void)qn_glm_head(m, batch, m->weights.mtp_norm, io->hidden, io->logits);
}
