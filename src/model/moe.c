/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "model/internal.h"

void qn_glm_mlp(qn_glm *m, const qn_mlp_weights *mlp, uint32_t n_rows)
{
    const size_t n_ff = mlp->gate.n_out;
    const size_t n_embd = m->config.n_embd;
    qn_workspace *ws = &m->ws;
    qn_glm_matmul(m, ws->gate, n_ff, ws->xn, n_embd, &mlp->gate, n_rows);
    qn_glm_matmul(m, ws->up, n_ff, ws->xn, n_embd, &mlp->up, n_rows);
    m->k->silu_mul(ws->gate, ws->gate, ws->up, n_rows * n_ff);
    qn_glm_matmul(m, ws->y, n_embd, ws->gate, n_ff, &mlp->down, n_rows);
}

/* Experts and weights of every row. */
static void route(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const uint32_t n_rows = call->batch->n_rows;
    const size_t n_used = c->n_experts_used;
    qn_workspace *ws = &m->ws;
    qn_glm_matmul(m, ws->router_logits, c->n_experts, ws->xn, c->n_embd, &call->layer->router,
                  n_rows);
    for (uint32_t t = 0; t < n_rows; t++) {
        qn_router_args args = {
            .experts = ws->experts + t * n_used,
            .weights = ws->expert_weights + t * n_used,
            .logits = ws->router_logits + (size_t)t * c->n_experts,
            .bias = call->layer->router_bias,
            .scratch = ws->router_scores,
            .n_experts = c->n_experts,
            .n_used = c->n_experts_used,
            .norm_topk = c->norm_topk,
            .routed_scale = c->routed_scale,
        };
        m->k->router(&args);
        if (call->probe != NULL && call->probe->router != NULL) {
            call->probe->router(call->probe->context, (int32_t)call->i_layer, t, args.experts,
                                ws->router_scores);
            args.keep_experts = true;
            m->k->router(&args);
        }
    }
}

/* Counting sort of all (row, choice) pairs by expert; rows keep their order within one. */
static void group_by_expert(qn_glm *m, uint32_t n_rows)
{
    const qn_config *c = &m->config;
    const size_t n_pairs = (size_t)n_rows * c->n_experts_used;
    qn_workspace *ws = &m->ws;
    memset(ws->first_of, 0, ((size_t)c->n_experts + 1) * sizeof *ws->first_of);
    for (size_t i = 0; i < n_pairs; i++) {
        QN_ASSERT(ws->experts[i] >= 0 && (uint32_t)ws->experts[i] < c->n_experts);
        ws->first_of[ws->experts[i] + 1]++;
    }
    for (uint32_t e = 0; e < c->n_experts; e++) {
        ws->first_of[e + 1] += ws->first_of[e];
    }
    for (size_t i = 0; i < n_pairs; i++) {
        const uint32_t slot = ws->first_of[ws->experts[i]]++;
        ws->slot_of[i] = slot;
        memcpy(ws->moe_x + (size_t)slot * c->n_embd, ws->xn + i / c->n_experts_used * c->n_embd,
               c->n_embd * sizeof *ws->xn);
    }
    /* Each entry has moved to the end of its expert, which is the start of the next. */
    memmove(ws->first_of + 1, ws->first_of, c->n_experts * sizeof *ws->first_of);
    ws->first_of[0] = 0;
    ws->n_active = 0;
    for (uint32_t e = 0; e < c->n_experts; e++) {
        if (ws->first_of[e + 1] > ws->first_of[e]) {
            ws->active[ws->n_active++] = e;
        }
    }
}

/* Work of the expert loops: outputs [active expert][n_out] as one flat range, cut anywhere. */
typedef struct expert_loop {
    qn_glm *m;
    const qn_layer_call *call;
    uint32_t n_out;
    void (*body)(const struct expert_loop *loop, uint32_t e, uint32_t out_first, uint32_t out_end,
                 float *scratch);
} expert_loop;

static void expert_matmul(const expert_loop *loop, const qn_weight *w, float *y, const float *x,
                          uint32_t e, const uint32_t range[2], float *scratch)
{
    const qn_glm *m = loop->m;
    const size_t first = m->ws.first_of[e];
    const qn_matmul_args args = {
        .y = y + first * w->n_out + range[0],
        .y_stride = w->n_out,
        .x = x + first * w->n_in,
        .x_stride = w->n_in,
        .w = w,
        .n_rows = m->ws.first_of[e + 1] - m->ws.first_of[e],
        .out_first = range[0],
        .out_end = range[1],
        .compute = m->compute,
        .scratch = scratch,
    };
    m->k->matmul(&args);
}

static void expert_up(const expert_loop *loop, uint32_t e, uint32_t out_first, uint32_t out_end,
                      float *scratch)
{
    const qn_glm *m = loop->m;
    const qn_workspace *ws = &m->ws;
    const qn_mlp_weights *w = &loop->call->layer->experts[e];
    const uint32_t range[2] = {out_first, out_end};
    expert_matmul(loop, &w->gate, ws->gate, ws->moe_x, e, range, scratch);
    expert_matmul(loop, &w->up, ws->up, ws->moe_x, e, range, scratch);
    for (uint32_t i = ws->first_of[e]; i < ws->first_of[e + 1]; i++) {
        const size_t at = (size_t)i * loop->n_out + out_first;
        m->k->silu_mul(ws->gate + at, ws->gate + at, ws->up + at, out_end - out_first);
    }
}

static void expert_down(const expert_loop *loop, uint32_t e, uint32_t out_first, uint32_t out_end,
                        float *scratch)
{
    const qn_workspace *ws = &loop->m->ws;
    const uint32_t range[2] = {out_first, out_end};
    expert_matmul(loop, &loop->call->layer->experts[e].down, ws->moe_y, ws->gate, e, range,
                  scratch);
}

static void expert_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const expert_loop *loop = context;
    const qn_workspace *ws = &loop->m->ws;
    while (first < end) {
        const uint32_t e = ws->active[first / loop->n_out];
        const uint32_t out_first = (uint32_t)(first % loop->n_out);
        const size_t left = end - first;
        const uint32_t n =
            left < loop->n_out - out_first ? (uint32_t)left : loop->n_out - out_first;
        loop->body(loop, e, out_first, out_first + n, ws->scratch + i_thread * ws->scratch_floats);
        first += n;
    }
}

void qn_glm_moe(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const uint32_t n_rows = call->batch->n_rows;
    qn_workspace *ws = &m->ws;
    route(m, call);
    group_by_expert(m, n_rows);
    expert_loop loop = {.m = m, .call = call, .n_out = c->n_ff_expert, .body = expert_up};
    qn_pool_run(m->pool, (size_t)ws->n_active * loop.n_out, expert_range, &loop);
    loop.n_out = c->n_embd;
    loop.body = expert_down;
    qn_pool_run(m->pool, (size_t)ws->n_active * loop.n_out, expert_range, &loop);
    qn_glm_mlp(m, &call->layer->mlp, n_rows); /* the shared expert: not scaled, not gated */
    /* A row's sum runs in the order of its own choices, whatever its neighbours chose. */
    for (size_t i = 0; i < (size_t)n_rows * c->n_experts_used; i++) {
        m->k->axpy(ws->y + i / c->n_experts_used * c->n_embd,
                   ws->moe_y + (size_t)ws->slot_of[i] * c->n_embd, ws->expert_weights[i],
                   c->n_embd);
    }
}
