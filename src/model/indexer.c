/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "model/internal.h"

#include <math.h>

/* LayerNorm eps of k_norm is a constant of the architecture, not in the config (docs/model.md). */
static const float k_norm_eps = 1e-6F;

/* Scores of one row, split over the threads by position. */
typedef struct score_args {
    const qn_glm *m;
    const float *q, *w;
    qn_kv_view keys;
    uint32_t first;
} score_args;

static void score_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const score_args *a = context;
    const qn_glm *m = a->m;
    m->k->index_scores(m->ws.index_scores + first, a->q, a->w, m->config.n_index_heads, &a->keys,
                       a->first + (uint32_t)first, a->first + (uint32_t)end,
                       m->ws.scratch + i_thread * m->ws.scratch_floats);
}

/* Index set of one row: all positions while they fit, else the top-k by score. */
static void select_row(qn_glm *m, const qn_layer_call *call, uint32_t i_row)
{
    const qn_config *c = &m->config;
    const qn_batch *batch = call->batch;
    const uint32_t first = call->first_position;
    QN_ASSERT((uint32_t)batch->positions[i_row] >= first);
    const uint32_t n = (uint32_t)batch->positions[i_row] + 1 - first;
    int32_t *set = m->ws.sets + (size_t)i_row * c->index_topk;
    const float *scores = NULL;
    if (n > c->index_topk) {
        score_args args = {
            .m = m,
            .q = m->ws.qi + (size_t)i_row * c->n_index_heads * c->index_dim,
            .w = m->ws.wi + (size_t)i_row * c->n_index_heads,
            .keys = qn_layer_rows(call, call->kv->layout->index_of[call->i_layer], i_row),
            .first = first,
        };
        qn_pool_run(m->pool, n, score_range, &args);
        scores = m->ws.index_scores;
        m->ws.n_sets[i_row] = m->k->topk(set, scores, n, c->index_topk);
        for (uint32_t i = 0; first > 0 && i < m->ws.n_sets[i_row]; i++) {
            set[i] += (int32_t)first;
        }
    } else {
        m->ws.n_sets[i_row] = n;
        for (uint32_t i = 0; i < n; i++) {
            set[i] = (int32_t)(first + i);
        }
    }
    if (call->probe != NULL && call->probe->index != NULL) {
        call->probe->index(call->probe->context, (int32_t)call->i_layer, i_row, set,
                           m->ws.n_sets[i_row], scores);
    }
}

void qn_glm_indexer(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const qn_layer_weights *l = call->layer;
    const qn_batch *batch = call->batch;
    const uint32_t n_rows = batch->n_rows;
    const size_t q_dim = (size_t)c->n_index_heads * c->index_dim;
    qn_workspace *ws = &m->ws;
    /* Index keys are written for every row, though short contexts do not need them yet. */
    qn_glm_matmul(m, ws->ki, c->index_dim, ws->xn, c->n_embd, &l->index_k, n_rows);
    qn_glm_matmul(m, ws->qi, q_dim, ws->qr, c->q_rank, &l->index_q, n_rows);
    qn_glm_matmul(m, ws->wi, c->n_index_heads, ws->xn, c->n_embd, &l->index_w, n_rows);
    const float scale = 1.0F / sqrtf((float)c->n_index_heads * (float)c->index_dim);
    for (uint32_t t = 0; t < n_rows; t++) {
        const uint32_t position = (uint32_t)batch->positions[t];
        float *key = ws->ki + (size_t)t * c->index_dim;
        m->k->layernorm(key, key, l->index_norm, l->index_norm_bias, c->index_dim, k_norm_eps);
        /* The rope part comes first here (docs/model.md), unlike in MLA. */
        m->k->rope(key, 1, c->index_dim, c->rope_dim, position, m->inv_freq);
        m->k->rope(ws->qi + t * q_dim, c->n_index_heads, c->index_dim, c->rope_dim, position,
                   m->inv_freq);
        for (uint32_t h = 0; h < c->n_index_heads; h++) {
            ws->wi[(size_t)t * c->n_index_heads + h] *= scale;
        }
        const qn_kv_view keys = qn_layer_rows(call, call->kv->layout->index_of[call->i_layer], t);
        m->k->kv_write(&keys, position, key, NULL);
    }
    for (uint32_t t = 0; t < n_rows; t++) {
        select_row(m, call, t);
    }
}
