/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  What the files of this folder share: the open model and its workspace. */
#ifndef QN_MODEL_INTERNAL_H
#define QN_MODEL_INTERNAL_H
#include "base/arena.h"
#include "model/glm.h"
#include "model/weights.h"

/**
 * Buffers of one forward pass, R = n_rows_max rows.  All f32 unless said; carved from one block.
 * Names follow docs/model.md.
 */
typedef struct qn_workspace {
    float *x;              /**< [R][n_embd] residual stream */
    float *xn;             /**< [R][n_embd] its norm, input of a block */
    float *y;              /**< [R][n_embd] output of a block */
    float *concat;         /**< [R][2 n_embd] MTP: embedding and hidden */
    float *qr;             /**< [R][q_rank] */
    float *q;              /**< [R][n_heads][nope + rope] */
    float *kv;             /**< [R][kv_rank + rope] */
    float *ql;             /**< [R][n_heads][kv_rank] absorbed queries */
    float *u;              /**< [R][n_heads][kv_rank] attended latents */
    float *o;              /**< [R][n_heads][v_dim] */
    float *qi;             /**< [R][n_index_heads][index_dim] */
    float *ki;             /**< [R][index_dim] */
    float *wi;             /**< [R][n_index_heads] */
    float *index_scores;   /**< [n_context_max] scores of one row */
    int32_t *sets;         /**< [R][index_topk] current index sets */
    uint32_t *n_sets;      /**< [R] */
    float *gate;           /**< [max(R * n_used, R * n_ff...)] SwiGLU gate, then its product */
    float *up;             /**< like gate */
    float *router_logits;  /**< [R][n_experts] */
    float *router_scores;  /**< [n_experts] of one row */
    int32_t *experts;      /**< [R][n_used] */
    float *expert_weights; /**< [R][n_used] */
    uint32_t *slot_of;     /**< [R][n_used] place of a (row, choice) in the order by expert */
    uint32_t *first_of;    /**< [n_experts + 1] first place of each expert */
    uint32_t *active;      /**< [n_experts] experts that any row chose, ascending */
    uint32_t n_active;
    float *moe_x;          /**< [R * n_used][n_embd] inputs in the order by expert */
    float *moe_y;          /**< [R * n_used][n_embd] outputs in that order */
    float *scratch;        /**< [n_threads][scratch_floats] */
    size_t scratch_floats; /**< A weight row, or attention scores of all heads and one cache row. */
} qn_workspace;

struct qn_glm {
    qn_config config;
    qn_weights weights;
    const qn_kernels *k; /* borrowed */
    qn_pool *pool;       /* borrowed */
    qn_compute compute;
    uint32_t n_rows_max;
    float *inv_freq; /* [rope_dim / 2], in the arena */
    qn_workspace ws;
    qn_arena arena; /* of the workspace; its base is an owned mapping */
};

/** y[t][o] = W x for all outputs, split over the threads by output. */
void qn_glm_matmul(const qn_glm *m, float *y, size_t y_stride, const float *x, size_t x_stride,
                   const qn_weight *w, uint32_t n_rows);

/** What one layer of a pass works on. */
typedef struct qn_layer_call {
    const qn_layer_weights *layer;
    uint32_t i_layer;
    uint32_t first_position; /**< 0 in the trunk, 1 in the MTP layer (it has no row 0). */
    const qn_kv *kv;
    const qn_batch *batch;
    const qn_index_sets *reuse; /**< Sets to use instead of the indexer's; NULL: none. */
    const qn_probe *probe;      /**< NULL: none. */
} qn_layer_call;

/** The cache rows of row i's sequence in one component of kv->layout. */
static inline qn_kv_view qn_layer_rows(const qn_layer_call *call, int16_t i_component, size_t i_row)
{
    return qn_kv_get_view(call->kv, i_component, qn_batch_pages(call->batch, i_row));
}

/** One decoder layer in place on ws.x. */
void qn_glm_layer(qn_glm *m, const qn_layer_call *call);
/** Attention block: ws.xn -> ws.y; writes the cache rows, and for full layers ws.sets. */
void qn_glm_attention(qn_glm *m, const qn_layer_call *call);
/** The indexer of a full layer: writes index keys and ws.sets from ws.xn and ws.qr. */
void qn_glm_indexer(qn_glm *m, const qn_layer_call *call);
/** Dense SwiGLU: ws.xn -> ws.y. */
void qn_glm_mlp(qn_glm *m, const qn_mlp_weights *mlp, uint32_t n_rows);
/** Routed experts plus shared expert: ws.xn -> ws.y. */
void qn_glm_moe(qn_glm *m, const qn_layer_call *call);
/** Embedding rows of the batch's tokens -> out, rows stride apart. */
void qn_glm_embed(qn_glm *m, const qn_batch *batch, float *out, size_t stride);
/** Final norm of ws.x into @p hidden (or ws.xn), which is returned, and logits of the wanted rows.
 */
const float *qn_glm_head(qn_glm *m, const qn_batch *batch, const float *norm, float *hidden,
                         float *logits);
#endif
