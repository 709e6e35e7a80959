/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "model/internal.h"

#include <math.h>

/* A loop over (row, head) pairs or rows, with what its body needs. */
typedef struct head_loop {
    qn_glm *m;
    const qn_layer_call *call;
    uint32_t n_groups; /* heads of a row are attended to in this many calls */
} head_loop;

/* Absorbed query of one head and row: ql = Wk_h^T qn_h. */
static void absorb_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const head_loop *loop = context;
    const qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    const size_t qk_dim = c->nope_dim + c->rope_dim;
    for (size_t i = first; i < end; i++) {
        const uint32_t h = (uint32_t)(i % c->n_heads);
        m->k->matmul_t(m->ws.ql + i * c->kv_rank, m->ws.q + i * qk_dim, c->nope_dim,
                       &loop->call->layer->kv_b, h * (c->nope_dim + c->v_dim), m->compute,
                       m->ws.scratch + i_thread * m->ws.scratch_floats);
    }
}

static void attend_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const head_loop *loop = context;
    const qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    const size_t qk_dim = c->nope_dim + c->rope_dim;
    const uint32_t n_heads = c->n_heads / loop->n_groups;
    for (size_t i = first; i < end; i++) {
        const size_t t = i / loop->n_groups;
        const size_t head = i * n_heads; /* of the flat [row][head] arrays */
        const qn_attend_args args = {
            .u = m->ws.u + head * c->kv_rank,
            .q_latent = m->ws.ql + head * c->kv_rank,
            .q_rope = m->ws.q + head * qk_dim + c->nope_dim,
            .q_rope_stride = qk_dim,
            .kv = qn_layer_rows(loop->call, loop->call->kv->layout->latent_of[loop->call->i_layer],
                                t),
            .set = m->ws.sets + t * c->index_topk,
            .n_set = m->ws.n_sets[t],
            .n_heads = n_heads,
            .scale = 1.0F / sqrtf((float)qk_dim),
            .scratch = m->ws.scratch + i_thread * m->ws.scratch_floats,
        };
        m->k->attend(&args);
    }
}

/* Values of one head for all rows: o_h = Wv_h u_h. */
static void value_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const head_loop *loop = context;
    const qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    for (size_t h = first; h < end; h++) {
        const uint32_t row = (uint32_t)h * (c->nope_dim + c->v_dim) + c->nope_dim;
        const qn_matmul_args args = {
            .y = m->ws.o + h * c->v_dim,
            .y_stride = (size_t)c->n_heads * c->v_dim,
            .x = m->ws.u + h * c->kv_rank,
            .x_stride = (size_t)c->n_heads * c->kv_rank,
            .w = &loop->call->layer->kv_b,
            .n_rows = loop->call->batch->n_rows,
            .out_first = row,
            .out_end = row + c->v_dim,
            .compute = m->compute,
            .scratch = m->ws.scratch + i_thread * m->ws.scratch_floats,
        };
        m->k->matmul(&args);
    }
}

/* Queries, and this pass's cache rows. */
static void project(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const qn_layer_weights *l = call->layer;
    const qn_batch *batch = call->batch;
    const uint32_t n_rows = batch->n_rows;
    const size_t qk_dim = c->nope_dim + c->rope_dim;
    const size_t kv_dim = c->kv_rank + c->rope_dim;
    qn_workspace *ws = &m->ws;
    qn_glm_matmul(m, ws->qr, c->q_rank, ws->xn, c->n_embd, &l->q_a, n_rows);
    m->k->rmsnorm(ws->qr, c->q_rank, ws->qr, c->q_rank, l->q_a_norm, n_rows, c->q_rank, c->rms_eps);
    qn_glm_matmul(m, ws->q, c->n_heads * qk_dim, ws->qr, c->q_rank, &l->q_b, n_rows);
    qn_glm_matmul(m, ws->kv, kv_dim, ws->xn, c->n_embd, &l->kv_a, n_rows);
    /* Only the latent part is normalised (docs/model.md). */
    m->k->rmsnorm(ws->kv, kv_dim, ws->kv, kv_dim, l->kv_a_norm, n_rows, c->kv_rank, c->rms_eps);
    for (uint32_t t = 0; t < n_rows; t++) {
        const uint32_t position = (uint32_t)batch->positions[t];
        float *kv = ws->kv + t * kv_dim;
        m->k->rope(kv + c->kv_rank, 1, c->rope_dim, c->rope_dim, position, m->inv_freq);
        m->k->rope(ws->q + (size_t)t * c->n_heads * qk_dim + c->nope_dim, c->n_heads, qk_dim,
                   c->rope_dim, position, m->inv_freq);
        const qn_kv_view rows = qn_layer_rows(call, call->kv->layout->latent_of[call->i_layer], t);
        m->k->kv_write(&rows, position, kv, kv + c->kv_rank);
    }
}

static void take_sets(qn_glm *m, const qn_index_sets *reuse, uint32_t n_rows)
{
    memcpy(m->ws.sets, reuse->sets, (size_t)n_rows * m->config.index_topk * sizeof *reuse->sets);
    memcpy(m->ws.n_sets, reuse->n_sets, n_rows * sizeof *reuse->n_sets);
}

void qn_glm_attention(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const uint32_t n_rows = call->batch->n_rows;
    project(m, call);
    /* A shared layer finds the sets of the last full layer in ws.sets (docs/model.md, Indexer). */
    if (call->reuse != NULL) {
        take_sets(m, call->reuse, n_rows);
    } else if (c->is_index_full[call->i_layer]) {
        qn_glm_indexer(m, call);
    }
    head_loop loop = {.m = m, .call = call, .n_groups = 1};
    qn_pool_run(m->pool, (size_t)n_rows * c->n_heads, absorb_range, &loop);
    /* Heads of a row are kept together, so that a cache row is decoded once, unless there are too
     * few rows to keep every thread busy. */
    if (n_rows < qn_pool_threads(m->pool)) {
        loop.n_groups = c->n_heads;
    }
    qn_pool_run(m->pool, (size_t)n_rows * loop.n_groups, attend_range, &loop);
    qn_pool_run(m->pool, c->n_heads, value_range, &loop);
    const size_t o_dim = (size_t)c->n_heads * c->v_dim;
    qn_glm_matmul(m, m->ws.y, c->n_embd, m->ws.o, o_dim, &call->layer->o, n_rows);
}
