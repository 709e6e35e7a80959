/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "model/internal.h"

typedef struct norm_loop {
    const qn_glm *m;
    float *y;
    const float *x;
    const float *weight;
    size_t y_stride, x_stride;
} norm_loop;

static void norm_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const norm_loop *loop = context;
    loop->m->k->rmsnorm(loop->y + first * loop->y_stride, loop->y_stride,
                        loop->x + first * loop->x_stride, loop->x_stride, loop->weight, end - first,
                        loop->m->config.n_embd, loop->m->config.rms_eps);
}

/* Root-mean-square norm of rows of n_embd. */
static void norm_rows(const qn_glm *m, norm_loop loop, uint32_t n_rows)
{
    loop.m = m;
    qn_glm_over_rows(m, n_rows, norm_range, &loop);
}

/* Embedding rows of the batch's tokens -> out, rows stride apart. */
static void embed(const qn_glm *m, const qn_batch *batch, float *out, size_t stride)
{
    for (uint32_t t = 0; t < batch->n_rows; t++) {
        m->k->dequant_row(out + t * stride, &m->weights.embed, (uint32_t)batch->tokens[t]);
    }
}

/* The normed stream, which both blocks of a layer begin with. */
static void norm_stream(qn_glm *m, const float *weight, uint32_t n_rows)
{
    const size_t n_embd = m->config.n_embd;
    norm_rows(m, (norm_loop){NULL, m->ws.xn, m->ws.x, weight, n_embd, n_embd}, n_rows);
}

void qn_glm_layer(qn_glm *m, const qn_layer_call *call)
{
    const uint32_t n_rows = call->batch->n_rows;
    norm_stream(m, call->layer->input_norm, n_rows);
    qn_glm_attention(m, call);
    norm_stream(m, call->layer->post_norm, n_rows);
    qn_glm_ffn(m, call);
    if (call->probe != NULL && call->probe->hidden != NULL) {
        call->probe->hidden(call->probe->context, (int32_t)call->i_layer, m->ws.x);
    }
}

/* Logits of rows after the final norm. */
static void run_head(qn_glm *m, const float *h, uint32_t n_rows, float *logits)
{
    const qn_product product = {
        .w = &m->weights.lm_head, .y = logits, .y_stride = m->config.n_vocab};
    qn_input_set(&m->ws.wide, h, m->config.n_embd, m->config.n_embd, n_rows);
    qn_glm_products(m, &m->ws.wide, &product, 1);
}

/* Final norm of ws.x into @p hidden (or ws.xn), which is returned, and logits of the wanted rows.
 */
static const float *compute_head(qn_glm *m, const qn_batch *batch, const float *norm, float *hidden,
                                 float *logits)
{
    const size_t n_embd = m->config.n_embd;
    float *h = hidden != NULL ? hidden : m->ws.xn;
    norm_rows(m, (norm_loop){NULL, h, m->ws.x, norm, n_embd, n_embd}, batch->n_rows);
    const uint32_t n_logit_rows = logits != NULL ? batch->n_logit_rows : 0;
    for (uint32_t i = 0; i < n_logit_rows; i++) {
        memcpy(m->ws.y + i * n_embd, h + batch->logit_rows[i] * n_embd, n_embd * sizeof *h);
    }
    if (n_logit_rows > 0) {
        run_head(m, m->ws.y, n_logit_rows, logits);
    }
    return h;
}

void qn_glm_head(qn_glm *model, const float *hidden, uint32_t n_rows, float *logits)
{
    QN_ASSERT(n_rows > 0 && n_rows <= model->n_rows_max);
    if (model->gpu != NULL) {
        qn_gpu_host_head(model->gpu, hidden, n_rows, logits);
        return;
    }
    run_head(model, hidden, n_rows, logits);
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
    QN_ASSERT(kv->place.stream == m->kv_place.stream);
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
    for (uint32_t i = 0; i < batch->n_logit_rows; i++) {
        QN_ASSERT(batch->logit_rows[i] < batch->n_rows);
    }
}

void qn_glm_forward(qn_glm *model, const qn_kv *kv, const qn_batch *batch, float *hidden,
                    float *logits, const qn_probe *probe)
{
    qn_glm *m = model;
    check_batch(m, kv, batch);
    if (m->gpu != NULL) {
        qn_gpu_host_forward(m->gpu, kv, batch, hidden, logits, probe);
        return;
    }
    embed(m, batch, m->ws.x, m->config.n_embd);
    if (probe != NULL && probe->hidden != NULL) {
        probe->hidden(probe->context, -1, m->ws.x);
    }
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const qn_layer_call call = {
            .layer = &m->weights.layers[i], .i_layer = i, .kv = kv, .batch = batch, .probe = probe};
        qn_glm_layer(m, &call);
    }
    keep_page_ends(m, kv, batch, compute_head(m, batch, m->weights.norm, hidden, logits));
}

/* ws.x = eh_proj of both norms, the embedding first and the hidden second (docs/model.md). */
static void join_input(qn_glm *m, const qn_batch *batch, const float *hidden_prev)
{
    const qn_weights *w = &m->weights;
    const size_t n_embd = m->config.n_embd;
    const size_t stride = 2 * n_embd;
    float *concat = m->ws.concat;
    embed(m, batch, concat, stride);
    norm_rows(m, (norm_loop){NULL, concat, concat, w->enorm, stride, stride}, batch->n_rows);
    norm_rows(m, (norm_loop){NULL, concat + n_embd, hidden_prev, w->hnorm, stride, n_embd},
              batch->n_rows);
    const qn_product product = {.w = &w->eh_proj, .y = m->ws.x, .y_stride = n_embd};
    qn_input_set(&m->ws.wide, concat, stride, (uint32_t)stride, batch->n_rows);
    qn_glm_products(m, &m->ws.wide, &product, 1);
}

void qn_glm_mtp(qn_glm *model, const qn_kv *kv, const qn_batch *batch, const qn_mtp_io *io,
                const qn_probe *probe)
{
    qn_glm *m = model;
    QN_ASSERT(m->weights.has_mtp);
    check_batch(m, kv, batch);
    if (m->gpu != NULL) {
        qn_gpu_host_mtp(m->gpu, kv, batch, io, probe);
        return;
    }
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
    (void)compute_head(m, batch, m->weights.mtp_norm, io->hidden, io->logits);
}

void qn_glm_mtp_cache(qn_glm *model, const qn_kv *kv, const qn_batch *batch,
                      const float *hidden_prev)
{
    qn_glm *m = model;
    QN_ASSERT(m->weights.has_mtp);
    check_batch(m, kv, batch);
    if (m->gpu != NULL) {
        qn_gpu_host_mtp_cache(m->gpu, kv, batch, hidden_prev);
        return;
    }
    join_input(m, batch, hidden_prev);
    const qn_layer_call call = {.layer = &m->weights.layers[m->config.n_layers],
                                .i_layer = m->config.n_layers,
                                .first_position = 1,
                                .kv = kv,
                                .batch = batch,
                                .is_cache_only = true};
    norm_stream(m, call.layer->input_norm, batch->n_rows);
    qn_glm_cache_rows(m, &call);
}
