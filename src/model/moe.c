/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feed-forward blocks: the dense one, or the experts that rows have chosen and the shared expert,
 * as one list of jobs.  Threads meet once between the two halves of a block: a thread takes blocks
 * of 32 columns of any job in the first half and the same outputs of every job in the second.
 */
#include "base/assert.h"
#include "model/internal.h"

enum { BLOCK = QN_PACK_K }; /* what one scale of int8 spans */

/* ------------------------------------------------------------------------------------- routing
 */

static void route_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const qn_layer_loop *loop = context;
    const qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    const qn_probe *probe = loop->call->probe;
    for (size_t t = first; t < end; t++) {
        qn_router_args args = {
            .experts = m->ws.experts + t * c->n_experts_used,
            .weights = m->ws.expert_weights + t * c->n_experts_used,
            .logits = m->ws.router_logits + t * c->n_experts,
            .bias = loop->call->layer->router_bias,
            .scratch = m->ws.router_scores + (size_t)i_thread * c->n_experts,
            .n_experts = c->n_experts,
            .n_used = c->n_experts_used,
            .norm_topk = c->norm_topk,
            .routed_scale = c->routed_scale,
        };
        m->k->router(&args);
        if (probe != NULL && probe->router != NULL) {
            probe->router(probe->context, (int32_t)loop->call->i_layer, (uint32_t)t, args.experts,
                          args.scratch);
            args.keep_experts = true;
            m->k->router(&args);
        }
    }
}

/* Experts and weights of every row. */
static void route(qn_glm *m, const qn_layer_call *call)
{
    const uint32_t n_rows = call->batch->n_rows;
    const qn_product logits = {
        .w = &call->layer->router, .y = m->ws.router_logits, .y_stride = m->config.n_experts};
    qn_layer_loop loop = {m, call};
    qn_glm_products(m, &m->ws.wide, &logits, 1);
    if (call->probe != NULL && call->probe->router != NULL) {
        route_range(&loop, 0, n_rows, 0); /* a probe sees rows in order, from one thread */
    } else {
        qn_glm_over_rows(m, n_rows, route_range, &loop);
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
        ws->row_of[slot] = (uint32_t)(i / c->n_experts_used);
    }
    /* Each entry has moved to the end of its expert, which is the start of the next. */
    memmove(ws->first_of + 1, ws->first_of, c->n_experts * sizeof *ws->first_of);
    ws->first_of[0] = 0;
}

/* ------------------------------------------------------------------------------------- products
 */

static uint32_t count_blocks(const qn_ffn_job *job)
{
    return (job->w->gate.n_out + BLOCK - 1) / BLOCK;
}

static void add_job(qn_glm *m, qn_ffn_job job)
{
    qn_workspace *ws = &m->ws;
    const qn_ffn_job *last = ws->n_jobs > 0 ? &ws->jobs[ws->n_jobs - 1] : NULL;
    job.first_block = last != NULL ? last->first_block + count_blocks(last) : 0;
    ws->jobs[ws->n_jobs++] = job;
}

/* The jobs of a layer.  Buffers of the routed ones lie behind those of the block that all take. */
static void list_jobs(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const uint32_t n_rows = call->batch->n_rows;
    const bool is_dense = c->is_dense[call->i_layer];
    const qn_mlp_weights *all = &call->layer->mlp;
    qn_workspace *ws = &m->ws;
    ws->n_jobs = 0;
    add_job(m, (qn_ffn_job){.w = all,
                            .n_rows = n_rows,
                            .gate = ws->gate,
                            .up = ws->up,
                            .down = ws->down,
                            .y = ws->y});
    float *const gate = ws->gate + (size_t)n_rows * all->gate.n_out;
    float *const up = ws->up + (size_t)n_rows * all->gate.n_out;
    uint8_t *const down = ws->down + n_rows * qn_act_row_bytes(QN_ACT_F32, all->down.n_in);
    for (uint32_t e = 0; !is_dense && e < c->n_experts; e++) {
        const size_t first = ws->first_of[e];
        const uint32_t n = ws->first_of[e + 1] - ws->first_of[e];
        if (n > 0) {
            add_job(
                m, (qn_ffn_job){.w = &call->layer->experts[e],
                                .rows = ws->row_of + first,
                                .n_rows = n,
                                .gate = gate + first * c->n_ff_expert,
                                .up = up + first * c->n_ff_expert,
                                .down = down + first * qn_act_row_bytes(QN_ACT_F32, c->n_ff_expert),
                                .y = ws->moe_y + first * c->n_embd});
        }
    }
}

/* Columns first .. end - 1 of gate or up of a job. */
static void multiply_wide(const qn_glm *m, const qn_ffn_job *job, const qn_packed *w, float *y,
                          uint32_t first, uint32_t end)
{
    const qn_act act = qn_act_of(w->kind, m->compute);
    const qn_matmul_args args = {
        .y = y + first,
        .y_stride = w->n_out,
        .x = m->ws.wide.rows[act],
        .x_stride = qn_act_row_bytes(act, w->n_in),
        .rows = job->rows,
        .w = w,
        .act = act,
        .n_rows = job->n_rows,
        .out_first = first,
        .out_end = end,
    };
    m->k->matmul(&args);
}

static void up_blocks(const qn_glm *m, const qn_ffn_job *job, uint32_t first_block,
                      uint32_t end_block)
{
    const uint32_t n_ff = job->w->gate.n_out;
    const uint32_t first = first_block * BLOCK;
    const uint32_t end = end_block * BLOCK < n_ff ? end_block * BLOCK : n_ff;
    const qn_act act = qn_act_of(job->w->down.kind, m->compute);
    const size_t row_bytes = qn_act_row_bytes(act, n_ff);
    multiply_wide(m, job, &job->w->gate, job->gate, first, end);
    multiply_wide(m, job, &job->w->up, job->up, first, end);
    for (size_t t = 0; t < job->n_rows; t++) {
        float *const gate = job->gate + t * n_ff;
        m->k->silu_mul(gate + first, gate + first, job->up + t * n_ff + first, end - first);
        m->k->prepare(job->down + t * row_bytes, act, gate, n_ff, first, end);
    }
}

static void up_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)i_thread;
    const qn_layer_loop *loop = context;
    const qn_workspace *ws = &loop->m->ws;
    for (uint32_t i = 0; i < ws->n_jobs; i++) {
        const size_t begin = ws->jobs[i].first_block;
        const size_t behind = begin + count_blocks(&ws->jobs[i]);
        const size_t from = first > begin ? first : begin;
        const size_t to = end < behind ? end : behind;
        if (from < to) {
            up_blocks(loop->m, &ws->jobs[i], (uint32_t)(from - begin), (uint32_t)(to - begin));
        }
    }
}

static void multiply_down(const qn_glm *m, const qn_ffn_job *job, uint32_t first, uint32_t end)
{
    const qn_packed *w = &job->w->down;
    const qn_act act = qn_act_of(w->kind, m->compute);
    const qn_matmul_args args = {
        .y = job->y + first,
        .y_stride = w->n_out,
        .x = job->down,
        .x_stride = qn_act_row_bytes(act, w->n_in),
        .w = w,
        .act = act,
        .n_rows = job->n_rows,
        .out_first = first,
        .out_end = end,
    };
    m->k->matmul(&args);
}

/* Outputs of every job, then of every row their sum: into the residual stream. */
static void down_range(void *context, size_t first_strip, size_t end_strip, uint32_t i_thread)
{
    (void)i_thread;
    const qn_layer_loop *loop = context;
    const qn_glm *m = loop->m;
    const qn_config *c = &m->config;
    const qn_workspace *ws = &m->ws;
    const uint32_t first = (uint32_t)first_strip * QN_STRIP;
    const uint32_t end =
        (uint32_t)end_strip * QN_STRIP < c->n_embd ? (uint32_t)end_strip * QN_STRIP : c->n_embd;
    for (uint32_t i = 0; i < ws->n_jobs; i++) {
        multiply_down(m, &ws->jobs[i], first, end);
    }
    const size_t n_used = c->is_dense[loop->call->i_layer] ? 0 : c->n_experts_used;
    for (size_t t = 0; t < loop->call->batch->n_rows; t++) {
        float *const y = ws->y + t * c->n_embd + first;
        /* A row's sum runs in the order of its own choices, whatever its neighbours chose. */
        for (size_t i = t * n_used; i < (t + 1) * n_used; i++) {
            m->k->axpy(y, ws->moe_y + (size_t)ws->slot_of[i] * c->n_embd + first,
                       ws->expert_weights[i], end - first);
        }
        m->k->axpy(ws->x + t * c->n_embd + first, y, 1.0F, end - first);
    }
}

void qn_glm_ffn(qn_glm *m, const qn_layer_call *call)
{
    const qn_config *c = &m->config;
    const uint32_t n_rows = call->batch->n_rows;
    qn_workspace *ws = &m->ws;
    qn_layer_loop loop = {m, call};
    qn_input_set(&ws->wide, ws->xn, c->n_embd, c->n_embd, n_rows);
    if (!c->is_dense[call->i_layer]) {
        route(m, call);
        group_by_expert(m, n_rows);
    }
    list_jobs(m, call);
    for (uint32_t i = 0; i < ws->n_jobs; i++) {
        (void)qn_input_get(m, &ws->wide, qn_act_of(ws->jobs[i].w->gate.kind, m->compute));
        (void)qn_input_get(m, &ws->wide, qn_act_of(ws->jobs[i].w->up.kind, m->compute));
    }
    const qn_ffn_job *last = &ws->jobs[ws->n_jobs - 1];
    qn_pool_run(m->pool, last->first_block + count_blocks(last), up_range, &loop);
    qn_pool_run(m->pool, qn_strips(c->n_embd), down_range, &loop);
}
