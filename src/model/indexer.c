/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "model/internal.h"

#include <math.h>

/* LayerNorm eps of k_norm is a constant of the architecture, not in the config (docs/model.md). */
static const float k_norm_eps = 1e-6F;

void qn_glm_index_keys(qn_glm *m, const qn_layer_call *call, size_t first, size_t end)
{
    const qn_config *c = &m->config;
    const qn_layer_weights *l = call->layer;
    const float scale = 1.0F / sqrtf((float)c->n_index_heads * (float)c->index_dim);
    for (size_t t = first; t < end; t++) {
        const uint32_t position = (uint32_t)call->batch->positions[t];
        float *key = m->ws.ki + t * c->index_dim;
        m->k->layernorm(key, key, l->index_norm, l->index_norm_bias, c->index_dim, k_norm_eps);
        /* The rope part comes first here (docs/model.md), unlike in MLA. */
        m->k->rope(key, 1, c->index_dim, c->rope_dim, position, m->inv_freq);
        for (uint32_t h = 0; h < c->n_index_heads && !call->is_cache_only; h++) {
            m->ws.wi[t * c->n_index_heads + h] *= scale;
        }
        /* Keys are kept of every row, though short contexts do not need them yet. */
        const qn_kv_view keys = qn_layer_rows(call, call->kv->layout->index_of[call->i_layer], t);
        m->k->kv_write(&keys, position, key, NULL);
    }
}

/* Scores of one row over a range of its positions. */
typedef struct score_loop {
    const qn_glm *m;
    const qn_layer_call *call;
    size_t i_row;
    float *scores;
} score_loop;

static void score_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const score_loop *loop = context;
    const qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    const qn_layer_call *call = loop->call;
    const qn_index_scores_args args = {
        .scores = loop->scores + first,
        .q = m->ws.qi + loop->i_row * c->n_index_heads * c->index_dim,
        .w = m->ws.wi + loop->i_row * c->n_index_heads,
        .keys = qn_layer_rows(call, call->kv->layout->index_of[call->i_layer], loop->i_row),
        .n_heads = c->n_index_heads,
        .first = call->first_position + (uint32_t)first,
        .end = call->first_position + (uint32_t)end,
        .compute = m->compute,
        .scratch = qn_glm_scratch(m, i_thread),
    };
    m->k->index_scores(&args);
}

/* Positions that row i may attend to. */
static uint32_t count_positions(const qn_layer_call *call, size_t i_row)
{
    QN_ASSERT((uint32_t)call->batch->positions[i_row] >= call->first_position);
    return (uint32_t)call->batch->positions[i_row] + 1 - call->first_position;
}

/* The set of one row: all positions while they fit, else those of the largest scores. */
static void take_set(qn_glm *m, const qn_layer_call *call, size_t i_row, const float *scores)
{
    const uint32_t n = count_positions(call, i_row);
    const uint32_t n_topk = m->config.index_topk;
    int32_t *set = m->ws.sets + i_row * n_topk;
    const uint32_t n_set = n > n_topk ? m->k->topk(set, scores, n, n_topk) : n;
    for (uint32_t i = 0; i < n_set; i++) {
        set[i] = (int32_t)call->first_position + (n > n_topk ? set[i] : (int32_t)i);
    }
    m->ws.n_sets[i_row] = n_set;
}

static float *scores_of(const qn_glm *m, uint32_t i_thread)
{
    return m->ws.index_scores + (size_t)i_thread * m->config.n_context_max;
}

/* Many rows: each thread takes some of them. */
static void select_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_layer_loop *loop = context;
    for (size_t t = first; t < end; t++) {
        score_loop score = {loop->m, loop->call, t, scores_of(loop->m, i_thread)};
        const uint32_t n = count_positions(loop->call, t);
        if (n > loop->m->config.index_topk) {
            score_range(&score, 0, n, i_thread);
        }
        take_set(loop->m, loop->call, t, score.scores);
    }
}

/* Few rows, or a probe that looks at one after the other: threads share the positions of each. */
static void select_row(qn_glm *m, const qn_layer_call *call, uint32_t i_row)
{
    score_loop score = {m, call, i_row, scores_of(m, 0)};
    const uint32_t n = count_positions(call, i_row);
    const bool has_scores = n > m->config.index_topk;
    if (has_scores) {
        qn_pool_run(m->pool, n, score_range, &score);
    }
    take_set(m, call, i_row, score.scores);
    if (call->probe != NULL && call->probe->index != NULL) {
        call->probe->index(call->probe->context, (int32_t)call->i_layer, i_row,
                           m->ws.sets + (size_t)i_row * m->config.index_topk, m->ws.n_sets[i_row],
                           has_scores ? score.scores : NULL);
    }
}

void qn_glm_select(qn_glm *m, const qn_layer_call *call)
{
    const uint32_t n_rows = call->batch->n_rows;
    const bool is_watched = call->probe != NULL && call->probe->index != NULL;
    if (!is_watched && n_rows >= 2 * qn_pool_threads(m->pool)) {
        qn_layer_loop loop = {m, call};
        qn_pool_run(m->pool, n_rows, select_range, &loop);
        return;
    }
    for (uint32_t t = 0; t < n_rows; t++) {
        select_row(m, call, t);
    }
}
