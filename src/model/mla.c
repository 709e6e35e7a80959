/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "model/internal.h"

#include <math.h>

/* Rows of q_a, kv_a and the index key: norms, rotation, cache. */
static void cache_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const qn_layer_loop *loop = context;
    qn_glm *m = loop->m;
    const qn_layer_call *call = loop->call;
    const qn_config *c = &m->config;
    const qn_layer_weights *l = call->layer;
    const size_t kv_dim = c->kv_rank + c->rope_dim;
    float *const qr = m->ws.qr + first * c->q_rank;
    float *const kv = m->ws.kv + first * kv_dim;
    if (!call->is_cache_only) {
        m->k->rmsnorm(qr, c->q_rank, qr, c->q_rank, l->q_a_norm, end - first, c->q_rank,
                      c->rms_eps);
    }
    /* Only the latent part is normalised (docs/model.md). */
    m->k->rmsnorm(kv, kv_dim, kv, kv_dim, l->kv_a_norm, end - first, c->kv_rank, c->rms_eps);
    for (size_t t = first; t < end; t++) {
        const uint32_t position = (uint32_t)call->batch->positions[t];
        float *const row = m->ws.kv + t * kv_dim;
        m->k->rope(row + c->kv_rank, 1, c->rope_dim, c->rope_dim, position, m->inv_freq);
        const qn_kv_view rows = qn_layer_rows(call, call->kv->layout->latent_of[call->i_layer], t);
        m->k->kv_write(&rows, position, row, row + c->kv_rank);
    }
    if (qn_layer_has_indexer(m, call)) {
        qn_glm_index_keys(m, call, first, end);
    }
}

/* Rotation of the queries of both kinds. */
static void rotate_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const qn_layer_loop *loop = context;
    qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    const size_t qk_dim = c->nope_dim + c->rope_dim;
    const size_t index_dim = (size_t)c->n_index_heads * c->index_dim;
    for (size_t t = first; t < end; t++) {
        const uint32_t position = (uint32_t)loop->call->batch->positions[t];
        m->k->rope(m->ws.q + t * c->n_heads * qk_dim + c->nope_dim, c->n_heads, qk_dim, c->rope_dim,
                   position, m->inv_freq);
        if (qn_layer_has_indexer(m, loop->call)) {
            m->k->rope(m->ws.qi + t * index_dim, c->n_index_heads, c->index_dim, c->rope_dim,
                       position, m->inv_freq);
        }
    }
}

void qn_glm_cache_rows(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const qn_layer_weights *l = call->layer;
    const uint32_t n_rows = call->batch->n_rows;
    qn_layer_loop loop = {m, call};
    const qn_product products[] = {
        {.w = &l->kv_a, .y = m->ws.kv, .y_stride = c->kv_rank + c->rope_dim},
        {.w = &l->index_k, .y = m->ws.ki, .y_stride = c->index_dim},
    };
    QN_ASSERT(call->is_cache_only);
    qn_input_set(&m->ws.wide, m->ws.xn, c->n_embd, c->n_embd, n_rows);
    qn_glm_products(m, &m->ws.wide, products, qn_layer_has_indexer(m, call) ? 2 : 1);
    qn_glm_over_rows(m, n_rows, cache_range, &loop);
}

/* Queries, and this pass's cache rows. */
static void project(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const qn_layer_weights *l = call->layer;
    const uint32_t n_rows = call->batch->n_rows;
    const bool has_indexer = qn_layer_has_indexer(m, call);
    qn_layer_loop loop = {m, call};
    qn_workspace *ws = &m->ws;
    const qn_product from_stream[] = {
        {.w = &l->q_a, .y = ws->qr, .y_stride = c->q_rank},
        {.w = &l->kv_a, .y = ws->kv, .y_stride = c->kv_rank + c->rope_dim},
        {.w = &l->index_k, .y = ws->ki, .y_stride = c->index_dim},
        {.w = &l->index_w, .y = ws->wi, .y_stride = c->n_index_heads},
    };
    qn_input_set(&ws->wide, ws->xn, c->n_embd, c->n_embd, n_rows);
    qn_glm_products(m, &ws->wide, from_stream, has_indexer ? 4 : 2);
    qn_glm_over_rows(m, n_rows, cache_range, &loop);
    const qn_product from_rank[] = {
        {.w = &l->q_b, .y = ws->q, .y_stride = (size_t)c->n_heads * (c->nope_dim + c->rope_dim)},
        {.w = &l->index_q, .y = ws->qi, .y_stride = (size_t)c->n_index_heads * c->index_dim},
    };
    qn_input_set(&ws->inner, ws->qr, c->q_rank, c->q_rank, n_rows);
    qn_glm_products(m, &ws->inner, from_rank, has_indexer ? 2 : 1);
    qn_glm_over_rows(m, n_rows, rotate_range, &loop);
}

/* One half of one head for all rows: strips first .. end - 1 of y = W x. */
static void multiply_head(const qn_glm *m, const qn_packed *w, uint8_t *const *rows,
                          uint32_t i_head, uint32_t n_rows, float *y, const uint32_t strips[2])
{
    const uint32_t n_heads = m->config.n_heads;
    const qn_act act = qn_act_of(w->kind, m->compute);
    const size_t row_bytes = qn_act_row_bytes(act, w->n_in);
    const uint32_t out_first = strips[0] * QN_STRIP;
    const qn_matmul_args args = {
        .y = y + (size_t)i_head * w->n_out + out_first,
        .y_stride = (size_t)n_heads * w->n_out,
        .x = rows[act] + i_head * row_bytes,
        .x_stride = n_heads * row_bytes,
        .w = w,
        .act = act,
        .n_rows = n_rows,
        .out_first = out_first,
        .out_end = strips[1] * QN_STRIP < w->n_out ? strips[1] * QN_STRIP : w->n_out,
    };
    m->k->matmul(&args);
}

/* Prepare what one half of kv_b multiplies: rows x_stride apart, one a head. */
static void prepare_heads(const qn_glm *m, const qn_packed *w, uint8_t *const *rows, size_t i_row,
                          const float *x, size_t x_stride, const uint32_t heads[2])
{
    const qn_act act = qn_act_of(w->kind, m->compute);
    const size_t row_bytes = qn_act_row_bytes(act, w->n_in);
    for (uint32_t h = heads[0]; h < heads[1]; h++) {
        const size_t at = i_row * m->config.n_heads + h;
        m->k->prepare(rows[act] + at * row_bytes, act, x + at * x_stride, w->n_in, 0, w->n_in);
    }
}

static void attend(const qn_layer_loop *loop, size_t i_row, uint32_t first, uint32_t end,
                   uint32_t i_thread)
{
    const qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    const size_t qk_dim = c->nope_dim + c->rope_dim;
    const size_t head = i_row * c->n_heads + first; /* of the flat [row][head] arrays */
    const qn_attend_args args = {
        .u = m->ws.u + head * c->kv_rank,
        .q_latent = m->ws.ql + head * c->kv_rank,
        .q_rope = m->ws.q + head * qk_dim + c->nope_dim,
        .q_rope_stride = qk_dim,
        .kv = qn_layer_rows(loop->call, loop->call->kv->layout->latent_of[loop->call->i_layer],
                            i_row),
        .set = m->ws.sets + i_row * c->index_topk,
        .n_set = m->ws.n_sets[i_row],
        .n_heads = end - first,
        .scale = 1.0F / sqrtf((float)qk_dim),
        .compute = m->compute,
        .scratch = qn_glm_scratch(m, i_thread),
    };
    m->k->attend(&args);
}

/* Few rows: a thread takes heads from query to value, and meets the others only behind them. */
static void head_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_layer_loop *loop = context;
    const qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    const qn_head_weights *heads = loop->call->layer->heads;
    const uint32_t n_rows = loop->call->batch->n_rows;
    const size_t qk_dim = c->nope_dim + c->rope_dim;
    const uint32_t range[2] = {(uint32_t)first, (uint32_t)end};
    const uint32_t key_strips[2] = {0, qn_strips(c->kv_rank)};
    const uint32_t value_strips[2] = {0, qn_strips(c->v_dim)};
    for (uint32_t t = 0; t < n_rows; t++) {
        prepare_heads(m, &heads->key, m->ws.key_rows, t, m->ws.q, qk_dim, range);
    }
    for (uint32_t h = (uint32_t)first; h < end; h++) {
        multiply_head(m, &heads[h].key, m->ws.key_rows, h, n_rows, m->ws.ql, key_strips);
    }
    for (uint32_t t = 0; t < n_rows; t++) {
        attend(loop, t, (uint32_t)first, (uint32_t)end, i_thread);
        prepare_heads(m, &heads->value, m->ws.value_rows, t, m->ws.u, c->kv_rank, range);
    }
    for (uint32_t h = (uint32_t)first; h < end; h++) {
        multiply_head(m, &heads[h].value, m->ws.value_rows, h, n_rows, m->ws.o, value_strips);
    }
}

/* Many rows: first all queries, then row by row all heads, so that cache rows are read once. */
static void prepare_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const qn_layer_loop *loop = context;
    const qn_glm *m = loop->m;
    const uint32_t heads[2] = {0, m->config.n_heads};
    for (size_t t = first; t < end; t++) {
        prepare_heads(m, &loop->call->layer->heads->key, m->ws.key_rows, t, m->ws.q,
                      m->config.nope_dim + m->config.rope_dim, heads);
    }
}

/* Strips first .. end - 1 of one half of all heads, those of a head side by side. */
static void half_range(const qn_layer_loop *loop, bool is_key, size_t first, size_t end)
{
    const qn_glm *m = loop->m;
    const qn_head_weights *heads = loop->call->layer->heads;
    const uint32_t n_strips = qn_strips(is_key ? m->config.kv_rank : m->config.v_dim);
    while (first < end) {
        const uint32_t h = (uint32_t)(first / n_strips);
        const uint32_t from = (uint32_t)(first % n_strips);
        const uint32_t n =
            end - first < n_strips - from ? (uint32_t)(end - first) : n_strips - from;
        multiply_head(m, is_key ? &heads[h].key : &heads[h].value,
                      is_key ? m->ws.key_rows : m->ws.value_rows, h, loop->call->batch->n_rows,
                      is_key ? m->ws.ql : m->ws.o, (const uint32_t[2]){from, from + n});
        first += n;
    }
}

static void absorb_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    half_range(context, true, first, end);
}

static void value_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    half_range(context, false, first, end);
}

static void attend_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_layer_loop *loop = context;
    const qn_config *c = &loop->m->config;
    const uint32_t n_rows = loop->call->batch->n_rows;
    /* Later rows of a prompt attend to more, so threads take turns: as many rows as their range has
     * (base/pool.h), from their own number on. */
    const size_t stride = qn_pool_threads(loop->m->pool);
    for (size_t i = 0; i < end - first; i++) {
        const size_t t = i * stride + i_thread;
        QN_ASSERT(t < n_rows);
        attend(loop, t, 0, c->n_heads, i_thread);
        prepare_heads(loop->m, &loop->call->layer->heads->value, loop->m->ws.value_rows, t,
                      loop->m->ws.u, c->kv_rank, (const uint32_t[2]){0, c->n_heads});
    }
}

static void attend_all(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const uint32_t n_rows = call->batch->n_rows;
    qn_layer_loop loop = {m, call};
    if (n_rows < 4 * qn_pool_threads(m->pool)) {
        qn_pool_run(m->pool, c->n_heads, head_range, &loop);
        return;
    }
    qn_pool_run(m->pool, n_rows, prepare_range, &loop);
    qn_pool_run(m->pool, (size_t)c->n_heads * qn_strips(c->kv_rank), absorb_range, &loop);
    qn_pool_run(m->pool, n_rows, attend_range, &loop);
    qn_pool_run(m->pool, (size_t)c->n_heads * qn_strips(c->v_dim), value_range, &loop);
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
    } else if (qn_layer_has_indexer(m, call)) {
        qn_glm_select(m, call);
    }
    attend_all(m, call);
    const uint32_t o_dim = c->n_heads * c->v_dim;
    const qn_product out = {
        .w = &call->layer->o, .y = m->ws.y, .y_stride = c->n_embd, .add_to = m->ws.x};
    qn_input_set(&m->ws.inner, m->ws.o, o_dim, o_dim, n_rows);
    qn_glm_products(m, &m->ws.inner, &out, 1);
}
