/* SPDX-License-Identifier: Apache-2.0 */
#include "model/gpu_glm.h"

#include "base/assert.h"
#include "base/minmax.h"
#include "base/try.h"
#include "device/gpu_block.h"

#include <errno.h>
#include <stdlib.h>

/* What index scores, partial sums of attention or logits may take: rows go in turns beyond it. */
static const uint64_t k_scratch_bytes = 256U << 20;

/* ------------------------------------------------------------------------------- open and close
 */

/* Kernels take rows in pieces of 16 bytes. */
static qn_status check_config(const qn_config *c, qn_error *err)
{
    const struct {
        const char *key;
        uint32_t value, unit;
    } dims[] = {
        {"hidden_size", c->n_embd, 8},
        {"vocab_size", c->n_vocab, 4},
        {"q_lora_rank", c->q_rank, 8},
        {"kv_lora_rank", c->kv_rank, 16},
        {"qk_nope_head_dim", c->nope_dim, 8},
        {"qk_rope_head_dim", c->rope_dim, 8},
        {"v_head_dim", c->v_dim, 8},
        {"index_head_dim", c->index_dim, 16},
        {"intermediate_size", c->n_ff_dense, 8},
        {"moe_intermediate_size", c->n_ff_expert, 8},
    };
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        if (dims[i].value % dims[i].unit != 0) {
            return qn_fail(err, QN_E_DEVICE, 0, __func__,
                           "config: %s %u, a multiple of %u expected on a GPU", dims[i].key,
                           dims[i].value, dims[i].unit);
        }
    }
    return QN_OK;
}

qn_status qn_gpu_glm_open(qn_gpu_glm **out, const qn_config *config, const qn_glm_options *options,
                          bool has_mtp, qn_error *err)
{
    qn_status status = QN_OK;
    *out = NULL;
    status = check_config(config, err);
    if (status < 0) {
        return status;
    }
    qn_gpu_glm *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "model: no memory");
    }
    g->config = config;
    g->gpu = options->gpu;
    g->has_mtp = has_mtp;
    g->is_deterministic = options->is_deterministic;
    g->weights.layers = calloc(config->n_layers + (has_mtp ? 1U : 0U), sizeof *g->weights.layers);
    if (g->weights.layers == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "model: no memory");
        goto fail;
    }
    QN_TRY(status, qn_gpu_stream_open(&g->stream, g->gpu, err), fail);
    g->ops = (qn_gpu_ops){.kernels = options->gpu_kernels, .stream = g->stream};
    *out = g;
    return QN_OK;

fail:
    qn_gpu_glm_close(&g);
    return status;
}

void qn_gpu_glm_close(qn_gpu_glm **model)
{
    qn_gpu_glm *const g = *model;
    if (g == NULL) {
        return;
    }
    qn_gpu_stream_close(&g->stream); /* before what its work reads */
    qn_gpu_free(g->gpu, g->weights.block);
    qn_gpu_free(g->gpu, g->ws.block);
    qn_gpu_free(g->gpu, g->numbers);
    qn_gpu_free_host(g->gpu, g->numbers_host);
    free(g->weights.layers);
    free(g);
    *model = NULL;
}

void qn_gpu_glm_each(qn_gpu_glm *g, qn_gpu_weight_fn *fn, void *context)
{
    const qn_config *const c = g->config;
    const uint32_t n_layers = c->n_layers + (g->has_mtp ? 1 : 0);
    for (uint32_t i = 0; i < n_layers * QN_GPU_N_MATRICES; i++) {
        const uint32_t i_matrix = i % QN_GPU_N_MATRICES;
        qn_gpu_weight *const w = &g->weights.layers[i / QN_GPU_N_MATRICES].w[i_matrix];
        const bool is_head = i_matrix == QN_GPU_KEY || i_matrix == QN_GPU_VALUE;
        const bool is_expert = i_matrix == QN_GPU_EXPERT_UP || i_matrix == QN_GPU_EXPERT_DOWN;
        if (w->n_out > 0) {
            fn(context, w, is_head ? c->n_heads : is_expert ? c->n_experts : 1, is_expert);
        }
    }
    fn(context, &g->weights.lm_head, 1, false);
    if (g->has_mtp) {
        fn(context, &g->weights.eh_proj, 1, false);
    }
}

qn_gpu_matmul_shape qn_gpu_glm_shape(const qn_gpu_glm *g, const qn_gpu_weight *w, uint32_t n_groups,
                                     bool is_grouped, uint32_t n_rows)
{
    return (qn_gpu_matmul_shape){
        .kind = w->kind,
        .n_out = w->n_out,
        .n_in = w->n_in,
        .is_pair = w->is_pair,
        .n_groups = n_groups,
        .n_rows = n_rows * (is_grouped ? g->config->n_experts_used : 1),
        .is_grouped = is_grouped,
        .is_deterministic = g->is_deterministic,
    };
}

/* ------------------------------------------------------------------------------------ workspace
 */

/* The most that products need for partial sums. */
typedef struct partial_walk {
    const qn_gpu_glm *g;
    uint32_t n_rows;
    uint64_t n_bytes;
} partial_walk;

static void see_partial(void *context, qn_gpu_weight *w, uint32_t n_groups, bool is_grouped)
{
    partial_walk *const walk = context;
    const qn_gpu_matmul_shape shape =
        qn_gpu_glm_shape(walk->g, w, n_groups, is_grouped, walk->n_rows);
    walk->n_bytes =
        qn_max_u64(walk->n_bytes, qn_gpu_matmul_partial_bytes(walk->g->ops.kernels, &shape));
}

/* Index scores and partial sums of attention of as many rows as fit, of one at least. */
static uint64_t scratch_bytes(const qn_gpu_glm *g, uint32_t n_rows)
{
    const qn_config *const c = g->config;
    const uint64_t score_bytes = ((uint64_t)c->n_context_max + 3) / 4 * 4 * sizeof(float);
    const uint32_t longest = c->index_topk < c->n_context_max ? c->index_topk : c->n_context_max;
    uint64_t attend_bytes[2]; /* of one row, of all */
    for (int i = 0; i < 2; i++) {
        const qn_gpu_attend_args args = {
            .kv = {.dtype = QN_GPU_KV_BF16,
                   .row_bytes = 2 * (c->kv_rank + c->rope_dim),
                   .latent_dim = c->kv_rank,
                   .rope_dim = c->rope_dim},
            .n_rows = i == 0 ? 1 : n_rows,
            .n_heads = c->n_heads,
            .n_splits = (longest + QN_GPU_ATTEND_SPLIT - 1) / QN_GPU_ATTEND_SPLIT,
        };
        const uint64_t n_floats = qn_gpu_attend_partial_floats(g->ops.kernels, &args);
        attend_bytes[i] =
            (n_floats / c->kv_rank + 1) * (c->kv_rank + 2) * sizeof(float) + QN_GPU_ALIGN;
    }
    const uint64_t least_bytes = qn_max_u64(score_bytes, attend_bytes[0]);
    const uint64_t all_bytes = qn_max_u64(score_bytes * n_rows, attend_bytes[1]);
    return qn_max_u64(least_bytes, qn_min_u64(k_scratch_bytes, all_bytes));
}

/* What experts' choices and products take. */
static void lay_out_experts(qn_gpu_workspace *ws, qn_gpu_block *at, const qn_config *c,
                            uint64_t rows)
{
    const uint64_t slots = rows * c->n_experts_used;
    const uint64_t n_ff = qn_max_u64(c->n_ff_dense, (uint64_t)c->n_experts_shared * c->n_ff_expert);
    ws->router_stride = (c->n_experts + 3) / 4 * 4;
    ws->router_logits = qn_gpu_cut(at, rows * ws->router_stride * sizeof(float));
    ws->experts = qn_gpu_cut(at, slots * sizeof(int32_t));
    ws->expert_weights = qn_gpu_cut(at, slots * sizeof(float));
    ws->slot_of = qn_gpu_cut(at, slots * sizeof(uint32_t));
    ws->row_of = qn_gpu_cut(at, slots * sizeof(uint32_t));
    ws->first_of = qn_gpu_cut(at, ((uint64_t)c->n_experts + 1) * sizeof(uint32_t));
    ws->active = qn_gpu_cut(at, c->n_experts * sizeof(uint32_t));
    ws->n_active = qn_gpu_cut(at, sizeof(uint32_t));
    ws->gated = qn_gpu_cut(at, rows * n_ff * sizeof(uint16_t));
    ws->expert_gated = qn_gpu_cut(at, slots * c->n_ff_expert * sizeof(uint16_t));
    ws->expert_y = qn_gpu_cut(at, slots * c->n_embd * sizeof(float));
}

/* The workspace at @p block, or NULL: its size in block_bytes. */
static qn_gpu_workspace lay_out(const qn_gpu_glm *g, uint32_t n_rows, uint8_t *block)
{
    const qn_config *const c = g->config;
    const uint64_t rows = n_rows;
    const uint64_t latents = rows * c->n_heads * c->kv_rank;
    qn_gpu_workspace made = {.block = block};
    qn_gpu_workspace *const ws = &made;
    qn_gpu_block at = {.base = block};
    ws->x = qn_gpu_cut(&at, rows * c->n_embd * sizeof(float));
    ws->xn = qn_gpu_cut(&at, rows * c->n_embd * sizeof(uint16_t));
    ws->concat = qn_gpu_cut(&at, g->has_mtp ? rows * 2 * c->n_embd * sizeof(uint16_t) : 0);
    ws->hidden_prev = qn_gpu_cut(&at, g->has_mtp ? rows * c->n_embd * sizeof(float) : 0);
    ws->hidden = qn_gpu_cut(&at, rows * c->n_embd * sizeof(float));
    ws->angles = qn_gpu_cut(&at, rows * c->rope_dim * sizeof(float));
    ws->qa = qn_gpu_cut(&at, rows * c->q_rank * sizeof(float));
    ws->qr = qn_gpu_cut(&at, rows * c->q_rank * sizeof(uint16_t));
    ws->q = qn_gpu_cut(&at, rows * c->n_heads * (c->nope_dim + c->rope_dim) * sizeof(uint16_t));
    ws->kv = qn_gpu_cut(&at, rows * (c->kv_rank + c->rope_dim) * sizeof(float));
    ws->ql = qn_gpu_cut(&at, latents * sizeof(uint16_t));
    ws->u = qn_gpu_cut(&at, latents * sizeof(uint16_t));
    ws->o = qn_gpu_cut(&at, rows * c->n_heads * c->v_dim * sizeof(uint16_t));
    ws->qi = qn_gpu_cut(&at, rows * c->n_index_heads * c->index_dim * sizeof(uint16_t));
    ws->ki = qn_gpu_cut(&at, rows * c->index_dim * sizeof(float));
    ws->wi = qn_gpu_cut(&at, rows * c->n_index_heads * sizeof(float));
    ws->sets = qn_gpu_cut(&at, rows * c->index_topk * sizeof(int32_t));
    ws->n_sets = qn_gpu_cut(&at, rows * sizeof(uint32_t));
    lay_out_experts(ws, &at, c, rows);
    const uint64_t n_fit = k_scratch_bytes / (c->n_vocab * sizeof(float));
    ws->n_logit_rows = (uint32_t)qn_min_u64(rows, qn_max_u64(n_fit, 1));
    ws->head_rows = qn_gpu_cut(&at, (uint64_t)ws->n_logit_rows * c->n_embd * sizeof(uint16_t));
    ws->logits = qn_gpu_cut(&at, (uint64_t)ws->n_logit_rows * c->n_vocab * sizeof(float));
    ws->scratch_bytes = scratch_bytes(g, n_rows);
    ws->scratch = qn_gpu_cut(&at, ws->scratch_bytes);
    partial_walk walk = {.g = g, .n_rows = n_rows};
    qn_gpu_glm_each((qn_gpu_glm *)(uintptr_t)g, see_partial, &walk);
    ws->partial = qn_gpu_cut(&at, walk.n_bytes);
    ws->block_bytes = at.n_bytes;
    return made;
}

uint64_t qn_gpu_glm_workspace_bytes(const qn_gpu_glm *g, uint32_t n_rows)
{
    return lay_out(g, n_rows, NULL).block_bytes;
}

qn_status qn_gpu_glm_reserve(qn_gpu_glm *g, uint32_t n_rows, qn_error *err)
{
    void *block = NULL;
    qn_status status =
        qn_gpu_alloc(&block, g->gpu, lay_out(g, n_rows, NULL).block_bytes, "workspace", err);
    if (status == QN_OK) { /* a step may be under way in the old one */
        status = qn_gpu_wait(g->stream, err);
    }
    if (status < 0) {
        qn_gpu_free(g->gpu, block);
        return status;
    }
    qn_gpu_free(g->gpu, g->ws.block);
    g->ws = lay_out(g, n_rows, block);
    g->n_rows_max = n_rows;
    g->n_reserves++;
    qn_gpu_fill(g->stream, block, 0, g->ws.block_bytes);
    return QN_OK;
}

/* --------------------------------------------------------------------------------------- passes
 */

static void check_batch(const qn_gpu_glm *g, const qn_gpu_batch *batch)
{
    QN_ASSERT(batch->n_rows > 0 && batch->n_rows <= g->n_rows_max);
    QN_ASSERT(batch->n_positions_max > 0 && batch->n_positions_max <= g->config->n_context_max);
}

/* Norm of f32 rows of n_embd: into bf16 or f32 rows y_stride apart. */
static void norm_rows(const qn_gpu_glm *g, float *x, const float *weight, uint32_t n_rows,
                      uint16_t *y_bf16, float *y_f32, uint32_t y_stride)
{
    const qn_config *const c = g->config;
    qn_gpu_rmsnorm(&g->ops, &(qn_gpu_rmsnorm_args){.y_bf16 = y_bf16,
                                                   .y_f32 = y_f32,
                                                   .x = x,
                                                   .weight = weight,
                                                   .y_stride = y_stride,
                                                   .x_stride = c->n_embd,
                                                   .x_dtype = QN_GPU_F32,
                                                   .n_rows = n_rows,
                                                   .n = c->n_embd,
                                                   .eps = c->rms_eps});
}

/* The embedding in ws.x, and the angles of all layers. */
static void begin(const qn_gpu_glm *g, const qn_gpu_batch *batch)
{
    const qn_config *const c = g->config;
    qn_gpu_embed(&g->ops, &(qn_gpu_embed_args){.x = g->ws.x,
                                               .table = g->weights.embed,
                                               .tokens = batch->tokens,
                                               .positions = batch->positions,
                                               .x_stride = c->n_embd,
                                               .table_dtype = g->weights.embed_dtype,
                                               .n_rows = batch->n_rows,
                                               .n_embd = c->n_embd});
    qn_gpu_rope_angles(&g->ops, &(qn_gpu_rope_angles_args){.angles = g->ws.angles,
                                                           .positions = batch->positions,
                                                           .inv_freq = g->weights.inv_freq,
                                                           .n_rows = batch->n_rows,
                                                           .n_pairs = c->rope_dim / 2});
}

/* Pages keep the hidden vector of their last token. */
static void keep_page_ends(const qn_gpu_glm *g, const qn_kv *kv, const qn_gpu_batch *batch)
{
    if (kv->layout->hidden < 0) {
        return;
    }
    const qn_kv_component *const hidden = &kv->layout->components[kv->layout->hidden];
    qn_gpu_page_ends(&g->ops,
                     &(qn_gpu_page_ends_args){.hidden = qn_kv_page_hidden(kv, 0),
                                              .x = g->ws.hidden,
                                              .positions = batch->positions,
                                              .seqs = batch->seqs,
                                              .page_tables = batch->page_tables,
                                              .n_table_pages = batch->n_table_pages,
                                              .page_stride = (uint32_t)(hidden->page_bytes / 4),
                                              .n_rows = batch->n_rows,
                                              .n_embd = g->config->n_embd});
}

void qn_gpu_glm_trunk(qn_gpu_glm *g, const qn_kv *kv, const qn_gpu_batch *batch,
                      const qn_probe *probe)
{
    const qn_config *const c = g->config;
    check_batch(g, batch);
    begin(g, batch);
    if (probe != NULL && probe->hidden != NULL) {
        qn_gpu_probe_hidden(g, probe, -1, batch->n_rows);
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const qn_gpu_call call = {
            .layer = &g->weights.layers[i], .i_layer = i, .kv = kv, .batch = batch, .probe = probe};
        qn_gpu_glm_layer(g, &call);
    }
    norm_rows(g, g->ws.x, g->weights.norm, batch->n_rows, NULL, g->ws.hidden, c->n_embd);
    keep_page_ends(g, kv, batch);
}

/* ws.x = eh_proj of both norms, the embedding first and the hidden second (docs/model.md). */
static void join_input(const qn_gpu_glm *g, const qn_gpu_batch *batch)
{
    const qn_gpu_weights *const w = &g->weights;
    const uint32_t n_embd = g->config->n_embd;
    const uint32_t n_rows = batch->n_rows;
    begin(g, batch);
    norm_rows(g, g->ws.x, w->enorm, n_rows, g->ws.concat, NULL, 2 * n_embd);
    norm_rows(g, g->ws.hidden_prev, w->hnorm, n_rows, g->ws.concat + n_embd, NULL, 2 * n_embd);
    qn_gpu_matmul(&g->ops,
                  &(qn_gpu_matmul_args){.w = w->eh_proj,
                                        .y = g->ws.x,
                                        .x = g->ws.concat,
                                        .partial = g->ws.partial,
                                        .x_stride = 2 * (uint64_t)n_embd,
                                        .y_stride = n_embd,
                                        .n_groups = 1,
                                        .n_rows = n_rows,
                                        .y_dtype = QN_GPU_F32},
                  g->is_deterministic);
}

/* The MTP layer of a pass. */
static qn_gpu_call mtp_call(const qn_gpu_glm *g, const qn_kv *kv, const qn_gpu_batch *batch)
{
    QN_ASSERT(g->has_mtp);
    check_batch(g, batch);
    return (qn_gpu_call){.layer = &g->weights.layers[g->config->n_layers],
                         .i_layer = g->config->n_layers,
                         .first_position = 1,
                         .kv = kv,
                         .batch = batch};
}

void qn_gpu_glm_mtp(qn_gpu_glm *g, const qn_kv *kv, const qn_gpu_batch *batch, bool has_sets,
                    const qn_probe *probe)
{
    qn_gpu_call call = mtp_call(g, kv, batch);
    call.has_sets = has_sets;
    call.probe = probe;
    join_input(g, batch);
    qn_gpu_glm_layer(g, &call);
    norm_rows(g, g->ws.x, g->weights.mtp_norm, batch->n_rows, NULL, g->ws.hidden,
              g->config->n_embd);
}

void qn_gpu_glm_mtp_cache(qn_gpu_glm *g, const qn_kv *kv, const qn_gpu_batch *batch)
{
    const qn_gpu_call call = mtp_call(g, kv, batch);
    join_input(g, batch);
    qn_gpu_glm_cache_rows(g, &call);
}

void qn_gpu_glm_head(qn_gpu_glm *g, const uint32_t *rows, uint32_t first_row, uint32_t n_rows)
{
    const uint32_t n_embd = g->config->n_embd;
    QN_ASSERT(n_rows > 0 && n_rows <= g->ws.n_logit_rows);
    qn_gpu_gather(&g->ops, &(qn_gpu_gather_args){.y_bf16 = g->ws.head_rows,
                                                 .x = g->ws.hidden + (size_t)first_row * n_embd,
                                                 .rows = rows,
                                                 .x_stride = n_embd,
                                                 .n_rows = n_rows,
                                                 .n = n_embd});
    qn_gpu_matmul(&g->ops,
                  &(qn_gpu_matmul_args){.w = g->weights.lm_head,
                                        .y = g->ws.logits,
                                        .x = g->ws.head_rows,
                                        .partial = g->ws.partial,
                                        .x_stride = n_embd,
                                        .y_stride = g->config->n_vocab,
                                        .n_groups = 1,
                                        .n_rows = n_rows,
                                        .y_dtype = QN_GPU_F32},
                  g->is_deterministic);
}
