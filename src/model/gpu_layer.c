/* SPDX-License-Identifier: Apache-2.0 */
/* One decoder layer on a GPU: launches in the order of docs/model.md. */
#include "base/assert.h"
#include "base/minmax.h"
#include "model/gpu_glm.h"

#include <math.h>

/* LayerNorm eps of k_norm is a constant of the architecture, not in the config (docs/model.md). */
static const float k_norm_eps = 1e-6F;

/* A product with fields as given; a projection where groups are not. */
static void multiply(const qn_gpu_glm *g, qn_gpu_matmul_args args)
{
    args.partial = g->ws.partial;
    args.n_groups = args.n_groups > 0 ? args.n_groups : 1;
    qn_gpu_matmul(&g->ops, &args, g->is_deterministic);
}

/* y = W x in f32. */
static void project_f32(const qn_gpu_glm *g, const qn_gpu_weight *w, uint32_t n_rows, float *y,
                        uint32_t y_stride)
{
    multiply(g, (qn_gpu_matmul_args){.w = *w,
                                     .y = y,
                                     .x = g->ws.xn,
                                     .x_stride = w->n_in,
                                     .y_stride = y_stride,
                                     .n_rows = n_rows,
                                     .y_dtype = QN_GPU_F32});
}

/* The normed stream, which both blocks of a layer begin with. */
static void normalize(const qn_gpu_glm *g, const float *weight, uint32_t n_rows)
{
    const qn_config *const c = g->config;
    qn_gpu_rmsnorm(&g->ops, &(qn_gpu_rmsnorm_args){.y_bf16 = g->ws.xn,
                                                   .x = g->ws.x,
                                                   .weight = weight,
                                                   .y_stride = c->n_embd,
                                                   .x_stride = c->n_embd,
                                                   .x_dtype = QN_GPU_F32,
                                                   .n_rows = n_rows,
                                                   .n = c->n_embd,
                                                   .eps = c->rms_eps});
}

/* Rows of one component of the cache. */
static qn_gpu_cache cache_of(const qn_gpu_call *call, int16_t i_component)
{
    const qn_kv_view view = qn_kv_get_view(call->kv, i_component, NULL);
    QN_ASSERT(view.dtype == QN_KV_BF16 || view.dtype == QN_KV_FP8);
    return (qn_gpu_cache){.base = view.base,
                          .page_tables = call->batch->page_tables,
                          .n_table_pages = call->batch->n_table_pages,
                          .row_bytes = view.row_bytes,
                          .dtype = view.dtype == QN_KV_FP8 ? QN_GPU_KV_FP8 : QN_GPU_KV_BF16,
                          .latent_dim = view.latent_dim,
                          .rope_dim = view.rope_dim};
}

/* Does this call run the indexer? */
static bool has_indexer(const qn_gpu_glm *g, const qn_gpu_call *call)
{
    return !call->has_sets && g->config->is_index_full[call->i_layer];
}

/* ---------------------------------------------------------------------------------------- cache
 */

/* Index keys of all rows, though short contexts do not need them yet. */
static void write_index_keys(const qn_gpu_glm *g, const qn_gpu_call *call, float *w)
{
    const qn_config *const c = g->config;
    const uint32_t n_rows = call->batch->n_rows;
    project_f32(g, &call->layer->w[QN_GPU_INDEX_K], n_rows, g->ws.ki, c->index_dim);
    qn_gpu_index_rows(&g->ops,
                      &(qn_gpu_index_rows_args){
                          .cache = cache_of(call, call->kv->layout->index_of[call->i_layer]),
                          .key = g->ws.ki,
                          .weight = call->layer->index_norm,
                          .bias = call->layer->index_norm_bias,
                          .angles = g->ws.angles,
                          .positions = call->batch->positions,
                          .seqs = call->batch->seqs,
                          .w = w,
                          .key_stride = c->index_dim,
                          .n_rows = n_rows,
                          .n_pairs = c->rope_dim / 2,
                          .n_heads = c->n_index_heads,
                          .eps = k_norm_eps,
                          .scale = 1.0F / sqrtf((float)c->n_index_heads * (float)c->index_dim)});
}

static void write_latents(const qn_gpu_glm *g, const qn_gpu_call *call)
{
    const qn_config *const c = g->config;
    const uint32_t n_rows = call->batch->n_rows;
    project_f32(g, &call->layer->w[QN_GPU_KV_A], n_rows, g->ws.kv, c->kv_rank + c->rope_dim);
    qn_gpu_kv_rows(&g->ops, &(qn_gpu_kv_rows_args){
                                .cache = cache_of(call, call->kv->layout->latent_of[call->i_layer]),
                                .kv = g->ws.kv,
                                .weight = call->layer->kv_a_norm,
                                .angles = g->ws.angles,
                                .positions = call->batch->positions,
                                .seqs = call->batch->seqs,
                                .kv_stride = c->kv_rank + c->rope_dim,
                                .n_rows = n_rows,
                                .eps = c->rms_eps});
}

void qn_gpu_glm_cache_rows(qn_gpu_glm *g, const qn_gpu_call *call)
{
    normalize(g, call->layer->input_norm, call->batch->n_rows);
    write_latents(g, call);
    if (has_indexer(g, call)) {
        write_index_keys(g, call, NULL);
    }
}

/* ------------------------------------------------------------------------------------ attention
 */

/* Rotate queries: the first rope_dim elements from x on of n_heads vectors a row. */
static void rotate(const qn_gpu_glm *g, uint16_t *x, uint32_t n_rows, uint32_t n_heads,
                   uint32_t head_dim)
{
    qn_gpu_rope(&g->ops, &(qn_gpu_rope_args){.x = x,
                                             .angles = g->ws.angles,
                                             .row_stride = n_heads * head_dim,
                                             .vector_stride = head_dim,
                                             .n_rows = n_rows,
                                             .n_vectors = n_heads,
                                             .n_pairs = g->config->rope_dim / 2});
}

/* Queries of attention or of the indexer: y = W qr. */
static void project_queries(const qn_gpu_glm *g, const qn_gpu_weight *w, uint32_t n_rows,
                            uint16_t *y)
{
    multiply(g, (qn_gpu_matmul_args){.w = *w,
                                     .y = y,
                                     .x = g->ws.qr,
                                     .x_stride = w->n_in,
                                     .y_stride = w->n_out,
                                     .n_rows = n_rows,
                                     .y_dtype = QN_GPU_BF16});
}

/* ws.qr, then what is made of it. */
static void make_queries(const qn_gpu_glm *g, const qn_gpu_call *call)
{
    const qn_config *const c = g->config;
    const uint32_t n_rows = call->batch->n_rows;
    const qn_gpu_weight *const w = call->layer->w;
    project_f32(g, &w[QN_GPU_Q_A], n_rows, g->ws.qa, c->q_rank);
    qn_gpu_rmsnorm(&g->ops, &(qn_gpu_rmsnorm_args){.y_bf16 = g->ws.qr,
                                                   .x = g->ws.qa,
                                                   .weight = call->layer->q_a_norm,
                                                   .y_stride = c->q_rank,
                                                   .x_stride = c->q_rank,
                                                   .x_dtype = QN_GPU_F32,
                                                   .n_rows = n_rows,
                                                   .n = c->q_rank,
                                                   .eps = c->rms_eps});
    project_queries(g, &w[QN_GPU_Q_B], n_rows, g->ws.q);
    rotate(g, g->ws.q + c->nope_dim, n_rows, c->n_heads, c->nope_dim + c->rope_dim);
    if (has_indexer(g, call)) {
        project_queries(g, &w[QN_GPU_INDEX_Q], n_rows, g->ws.qi);
        rotate(g, g->ws.qi, n_rows, c->n_index_heads, c->index_dim);
    }
}

/* Floats from one row of index scores to the next: whole pieces of 16 bytes. */
static uint64_t score_stride(uint32_t n_positions)
{
    return ((uint64_t)n_positions + 3) / 4 * 4;
}

/* Index sets of rows first .. first + n_rows - 1. */
static void select_rows(qn_gpu_glm *g, const qn_gpu_call *call, uint32_t first, uint32_t n_rows,
                        bool has_scores)
{
    const qn_config *const c = g->config;
    const qn_gpu_batch *const batch = call->batch;
    const uint32_t n_positions = batch->n_positions_max - call->first_position;
    const uint64_t stride = score_stride(n_positions);
    float *const scores = (float *)(void *)g->ws.scratch;
    if (has_scores) {
        qn_gpu_index_scores(&g->ops,
                            &(qn_gpu_index_scores_args){
                                .keys = cache_of(call, call->kv->layout->index_of[call->i_layer]),
                                .scores = scores,
                                .q = g->ws.qi + (size_t)first * c->n_index_heads * c->index_dim,
                                .w = g->ws.wi + (size_t)first * c->n_index_heads,
                                .positions = batch->positions + first,
                                .seqs = batch->seqs + first,
                                .scores_stride = stride,
                                .n_rows = n_rows,
                                .n_heads = c->n_index_heads,
                                .first_position = call->first_position,
                                .n_topk = c->index_topk,
                                .n_positions_max = n_positions});
    }
    qn_gpu_topk(&g->ops, &(qn_gpu_topk_args){.sets = g->ws.sets + (size_t)first * c->index_topk,
                                             .n_sets = g->ws.n_sets + first,
                                             .scores = scores,
                                             .positions = batch->positions + first,
                                             .scores_stride = stride,
                                             .n_rows = n_rows,
                                             .n_topk = c->index_topk,
                                             .first_position = call->first_position});
    if (call->probe != NULL && call->probe->index != NULL) {
        qn_gpu_probe_index(g, call, first, first + n_rows, has_scores ? scores : NULL, stride);
    }
}

/* As many rows at a time as scratch has room for their scores. */
static void select_sets(qn_gpu_glm *g, const qn_gpu_call *call)
{
    const qn_config *const c = g->config;
    const uint32_t n_rows = call->batch->n_rows;
    const uint32_t n_positions = call->batch->n_positions_max - call->first_position;
    const bool has_scores = n_positions > c->index_topk;
    const uint64_t n_fit = g->ws.scratch_bytes / (score_stride(n_positions) * sizeof(float));
    const uint32_t n_chunk = has_scores && n_fit < n_rows ? (uint32_t)n_fit : n_rows;
    QN_ASSERT(n_chunk > 0);
    for (uint32_t first = 0; first < n_rows; first += n_chunk) {
        select_rows(g, call, first, qn_min_u32(n_chunk, n_rows - first), has_scores);
    }
}

/* ws.u of rows first .. first + n_rows - 1. */
static qn_gpu_attend_args attend_args(const qn_gpu_glm *g, const qn_gpu_call *call, uint32_t first,
                                      uint32_t n_rows)
{
    const qn_config *const c = g->config;
    const uint32_t qk_dim = c->nope_dim + c->rope_dim;
    const uint32_t longest =
        qn_min_u32(call->batch->n_positions_max - call->first_position, c->index_topk);
    const size_t latents = (size_t)first * c->n_heads * c->kv_rank;
    return (qn_gpu_attend_args){
        .kv = cache_of(call, call->kv->layout->latent_of[call->i_layer]),
        .u = g->ws.u + latents,
        .q_latent = g->ws.ql + latents,
        .q_rope = g->ws.q + (size_t)first * c->n_heads * qk_dim + c->nope_dim,
        .seqs = call->batch->seqs + first,
        .sets = g->ws.sets + (size_t)first * c->index_topk,
        .n_sets = g->ws.n_sets + first,
        .q_row_stride = (uint64_t)c->n_heads * qk_dim,
        .q_head_stride = qk_dim,
        .n_rows = n_rows,
        .n_heads = c->n_heads,
        .set_stride = c->index_topk,
        .n_splits = (longest + QN_GPU_ATTEND_SPLIT - 1) / QN_GPU_ATTEND_SPLIT,
        .scale = 1.0F / sqrtf((float)qk_dim),
    };
}

/* As many rows at a time as scratch has room for their partial sums. */
static void attend(const qn_gpu_glm *g, const qn_gpu_call *call)
{
    const uint32_t kv_rank = g->config->kv_rank;
    const uint64_t n_room = g->ws.scratch_bytes / sizeof(float) / (kv_rank + 2) * kv_rank;
    const uint32_t n_rows = call->batch->n_rows;
    for (uint32_t first = 0; first < n_rows;) {
        qn_gpu_attend_args args = attend_args(g, call, first, n_rows - first);
        uint64_t n_floats = qn_gpu_attend_partial_floats(g->ops.kernels, &args);
        while (n_floats > n_room) {
            QN_ASSERT(args.n_rows > 1);
            args.n_rows = (args.n_rows + 1) / 2;
            n_floats = qn_gpu_attend_partial_floats(g->ops.kernels, &args);
        }
        args.partial_u = (float *)(void *)g->ws.scratch;
        args.partial_m = args.partial_u + n_floats; /* whole latents */
        qn_gpu_attend(&g->ops, &args);
        first += args.n_rows;
    }
}

/* One half of kv_b: y = W x of every head, which lies head_dim apart in x. */
static void multiply_heads(const qn_gpu_glm *g, const qn_gpu_weight *w, uint32_t n_rows,
                           const uint16_t *x, uint32_t head_dim, uint16_t *y)
{
    const uint32_t n_heads = g->config->n_heads;
    multiply(g, (qn_gpu_matmul_args){.w = *w,
                                     .y = y,
                                     .x = x,
                                     .x_stride = (uint64_t)n_heads * head_dim,
                                     .y_stride = (uint64_t)n_heads * w->n_out,
                                     .x_group_stride = head_dim,
                                     .y_group_stride = w->n_out,
                                     .n_groups = n_heads,
                                     .n_rows = n_rows,
                                     .y_dtype = QN_GPU_BF16});
}

static void attend_heads(const qn_gpu_glm *g, const qn_gpu_call *call)
{
    const qn_config *const c = g->config;
    const qn_gpu_weight *const w = call->layer->w;
    const uint32_t n_rows = call->batch->n_rows;
    multiply_heads(g, &w[QN_GPU_KEY], n_rows, g->ws.q, c->nope_dim + c->rope_dim, g->ws.ql);
    attend(g, call);
    multiply_heads(g, &w[QN_GPU_VALUE], n_rows, g->ws.u, c->kv_rank, g->ws.o);
    multiply(g, (qn_gpu_matmul_args){.w = w[QN_GPU_O],
                                     .y = g->ws.x,
                                     .x = g->ws.o,
                                     .x_stride = w[QN_GPU_O].n_in,
                                     .y_stride = c->n_embd,
                                     .n_rows = n_rows,
                                     .y_dtype = QN_GPU_F32,
                                     .epilogue = QN_GPU_ADD});
}

/* Attention block: ws.x += its output, from ws.xn; writes cache rows, in full layers ws.sets. */
static void attention(qn_gpu_glm *g, const qn_gpu_call *call)
{
    write_latents(g, call);
    make_queries(g, call);
    /* A shared layer finds the sets of the last full layer in ws.sets (docs/model.md, Indexer). */
    if (has_indexer(g, call)) {
        project_f32(g, &call->layer->w[QN_GPU_INDEX_W], call->batch->n_rows, g->ws.wi,
                    g->config->n_index_heads);
        write_index_keys(g, call, g->ws.wi);
        select_sets(g, call);
    }
    attend_heads(g, call);
}

/* --------------------------------------------------------------------------------- feed-forward
 */

/* The block that every row takes: ws.x += down(silu(gate xn) * up xn). */
static void run_common_block(const qn_gpu_glm *g, const qn_gpu_call *call)
{
    const qn_gpu_weight *const up = &call->layer->w[QN_GPU_UP];
    const qn_gpu_weight *const down = &call->layer->w[QN_GPU_DOWN];
    const uint32_t n_rows = call->batch->n_rows;
    multiply(g, (qn_gpu_matmul_args){.w = *up,
                                     .y = g->ws.gated,
                                     .x = g->ws.xn,
                                     .x_stride = up->n_in,
                                     .y_stride = up->n_out,
                                     .n_rows = n_rows,
                                     .y_dtype = QN_GPU_BF16,
                                     .epilogue = QN_GPU_SILU_MUL});
    multiply(g, (qn_gpu_matmul_args){.w = *down,
                                     .y = g->ws.x,
                                     .x = g->ws.gated,
                                     .x_stride = down->n_in,
                                     .y_stride = down->n_out,
                                     .n_rows = n_rows,
                                     .y_dtype = QN_GPU_F32,
                                     .epilogue = QN_GPU_ADD});
}

/* Experts and weights of every row, and all (row, choice) pairs by expert. */
static void route(qn_gpu_glm *g, const qn_gpu_call *call)
{
    const qn_config *const c = g->config;
    const uint32_t n_rows = call->batch->n_rows;
    const qn_gpu_workspace *const ws = &g->ws;
    project_f32(g, &call->layer->w[QN_GPU_ROUTER], n_rows, ws->router_logits, ws->router_stride);
    qn_gpu_router_args args = {.experts = ws->experts,
                               .weights = ws->expert_weights,
                               .logits = ws->router_logits,
                               .bias = call->layer->router_bias,
                               .positions = call->batch->positions,
                               .n_rows = n_rows,
                               .n_experts = c->n_experts,
                               .n_used = c->n_experts_used,
                               .logits_stride = ws->router_stride,
                               .routed_scale = c->routed_scale,
                               .norm_topk = c->norm_topk};
    qn_gpu_router(&g->ops, &args);
    if (call->probe != NULL && call->probe->router != NULL) {
        qn_gpu_probe_router(g, call);
        args.keep_experts = 1;
        qn_gpu_router(&g->ops, &args);
    }
    qn_gpu_group(&g->ops, &(qn_gpu_group_args){.first_of = ws->first_of,
                                               .row_of = ws->row_of,
                                               .slot_of = ws->slot_of,
                                               .active = ws->active,
                                               .n_active = ws->n_active,
                                               .experts = ws->experts,
                                               .n_rows = n_rows,
                                               .n_used = c->n_experts_used,
                                               .n_experts = c->n_experts});
}

/* A product of every expert's slots. */
static void multiply_experts(const qn_gpu_glm *g, const qn_gpu_weight *w, uint32_t n_slots,
                             const uint32_t *row_of, const uint16_t *x, void *y, uint32_t y_dtype)
{
    multiply(g, (qn_gpu_matmul_args){.w = *w,
                                     .y = y,
                                     .x = x,
                                     .row_of = row_of,
                                     .first_of = g->ws.first_of,
                                     .active = g->ws.active,
                                     .n_active = g->ws.n_active,
                                     .x_stride = w->n_in,
                                     .y_stride = w->n_out,
                                     .n_groups = g->config->n_experts,
                                     .n_rows = n_slots,
                                     .y_dtype = y_dtype,
                                     .epilogue = w->is_pair ? QN_GPU_SILU_MUL : QN_GPU_STORE});
}

static void run_experts(qn_gpu_glm *g, const qn_gpu_call *call)
{
    const qn_config *const c = g->config;
    const qn_gpu_workspace *const ws = &g->ws;
    const qn_gpu_weight *const w = call->layer->w;
    const uint32_t n_slots = call->batch->n_rows * c->n_experts_used;
    multiply_experts(g, &w[QN_GPU_EXPERT_UP], n_slots, ws->row_of, ws->xn, ws->expert_gated,
                     QN_GPU_BF16);
    multiply_experts(g, &w[QN_GPU_EXPERT_DOWN], n_slots, NULL, ws->expert_gated, ws->expert_y,
                     QN_GPU_F32);
    qn_gpu_combine(&g->ops, &(qn_gpu_combine_args){.x = ws->x,
                                                   .y = ws->expert_y,
                                                   .weights = ws->expert_weights,
                                                   .slot_of = ws->slot_of,
                                                   .n_rows = call->batch->n_rows,
                                                   .n_used = c->n_experts_used,
                                                   .n_embd = c->n_embd,
                                                   .y_dtype = QN_GPU_F32});
}

void qn_gpu_glm_layer(qn_gpu_glm *g, const qn_gpu_call *call)
{
    normalize(g, call->layer->input_norm, call->batch->n_rows);
    attention(g, call);
    normalize(g, call->layer->post_norm, call->batch->n_rows);
    run_common_block(g, call);
    if (!g->config->is_dense[call->i_layer]) {
        route(g, call);
        run_experts(g, call);
    }
    if (call->probe != NULL && call->probe->hidden != NULL) {
        qn_gpu_probe_hidden(g, call->probe, (int32_t)call->i_layer, call->batch->n_rows);
    }
}
