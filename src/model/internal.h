/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  What the files of this folder share: the open model and its workspace. */
#ifndef QN_MODEL_INTERNAL_H
#define QN_MODEL_INTERNAL_H
#include "base/arena.h"
#include "model/glm.h"
#include "model/gpu_glm.h"
#include "model/weights.h"

enum { QN_N_ACTS = QN_ACT_INT8 + 1 };

/** Rows of activations, and what products have made of them so far (kernels/weight.h, qn_act). */
typedef struct qn_input {
    const float *x;  /**< [n_rows] rows of n_in. */
    size_t x_stride; /**< Elements. */
    uint32_t n_rows, n_in;
    uint8_t *rows[QN_N_ACTS]; /**< Room for prepared rows, by kind. */
    bool is_made[QN_N_ACTS];
} qn_input;

/** One SwiGLU block over some rows: the dense one, the shared expert or a routed one. */
typedef struct qn_ffn_job {
    const qn_mlp_weights *w;
    const uint32_t *rows; /**< [n_rows] rows of the normed stream; NULL: the first n_rows. */
    uint32_t n_rows;
    uint32_t first_block; /**< Of its blocks of 32 columns among those of all jobs. */
    float *gate, *up;     /**< [n_rows][n_ff] */
    uint8_t *down;        /**< [n_rows] prepared rows of n_ff */
    float *y;             /**< [n_rows][n_embd] */
} qn_ffn_job;

/**
 * Buffers of one forward pass, R = n_rows_max rows.  All f32 unless said; carved from one block.
 * Names follow docs/model.md.
 */
typedef struct qn_workspace {
    float *x;              /**< [R][n_embd] residual stream */
    float *xn;             /**< [R][n_embd] its norm, input of a block */
    float *y;              /**< [R][n_embd] output of a block, inputs of the head */
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
    float *index_scores;   /**< [n_threads][n_context_max] scores of one row */
    int32_t *sets;         /**< [R][index_topk] current index sets */
    uint32_t *n_sets;      /**< [R] */
    float *router_logits;  /**< [R][n_experts] */
    float *router_scores;  /**< [n_threads][n_experts] of one row */
    int32_t *experts;      /**< [R][n_used] */
    float *expert_weights; /**< [R][n_used] */
    uint32_t *slot_of;     /**< [R][n_used] place of a (row, choice) in the order by expert */
    uint32_t *row_of;      /**< [R * n_used] row in each place */
    uint32_t *first_of;    /**< [n_experts + 1] first place of each expert */
    float *gate, *up;      /**< [max(R * n_used, R * n_ff...)] of the routed and the other block */
    uint8_t *down;         /**< prepared rows of those */
    float *moe_y;          /**< [R * n_used][n_embd] outputs in the order by expert */
    qn_ffn_job *jobs;      /**< [n_experts + 1] of one layer */
    uint32_t n_jobs;
    qn_input wide;  /**< Room for R rows of n_embd, or 2 n_embd with the MTP layer. */
    qn_input inner; /**< Room for R rows of q_rank or n_heads * v_dim. */
    /** Rows of what kv_b's halves multiply, apart since threads are at different ones. */
    uint8_t *key_rows[QN_N_ACTS];   /**< [R * n_heads] of nope_dim */
    uint8_t *value_rows[QN_N_ACTS]; /**< [R * n_heads] of kv_rank */
    float *scratch;                 /**< [n_threads][scratch_floats] */
    size_t scratch_floats;
} qn_workspace;

struct qn_glm {
    qn_config config;
    qn_weights weights;
    const qn_kernels *k; /* borrowed */
    qn_pool *pool;       /* borrowed */
    qn_compute compute;
    uint32_t n_rows_max;
    qn_gpu_glm *gpu; /* owned: passes are its own, and there is no workspace; NULL: the CPU's */
    qn_kv_place kv_place;
    float *inv_freq; /* [rope_dim / 2], in the arena */
    qn_workspace ws;
    qn_arena arena; /* of the workspace; its base is an owned mapping */
};

/** The rows that products are made of next: nothing is prepared yet. */
void qn_input_set(qn_input *input, const float *x, size_t x_stride, uint32_t n_in, uint32_t n_rows);
/** Every row as products with a kind of weight take it, made on the pool unless it is there. */
const uint8_t *qn_input_get(const qn_glm *m, qn_input *input, qn_act act);

/** One product of a step: y[t][o] = sum_k x[t][k] W[o][k]. */
typedef struct qn_product {
    const qn_packed *w;
    float *y; /**< [n_rows][y_stride] */
    size_t y_stride;
    float *add_to; /**< [n_rows][y_stride] += y; NULL: nothing. */
} qn_product;

/**
 * Products of the same rows, as one loop over all outputs: threads meet once for all of them.
 * n_products is at most QN_PRODUCTS_MAX.
 */
enum { QN_PRODUCTS_MAX = 4 };
void qn_glm_products(const qn_glm *m, qn_input *input, const qn_product *products,
                     uint32_t n_products);

/** Run over the rows of a pass: on the pool where there are enough of them. */
void qn_glm_over_rows(const qn_glm *m, uint32_t n_rows, qn_pool_fn *fn, void *context);

static inline float *qn_glm_scratch(const qn_glm *m, uint32_t i_thread)
{
    return m->ws.scratch + i_thread * m->ws.scratch_floats;
}

/** What one layer of a pass works on. */
typedef struct qn_layer_call {
    const qn_layer_weights *layer;
    uint32_t i_layer;
    uint32_t first_position; /**< 0 in the trunk, 1 in the MTP layer (it has no row 0). */
    const qn_kv *kv;
    const qn_batch *batch;
    const qn_index_sets *reuse; /**< Sets to use instead of the indexer's; NULL: none. */
    const qn_probe *probe;      /**< NULL: none. */
    bool is_cache_only;         /**< The layer's cache rows are all that is wanted. */
} qn_layer_call;

/** A loop of a layer, with what its body needs. */
typedef struct qn_layer_loop {
    qn_glm *m;
    const qn_layer_call *call;
} qn_layer_loop;

/** The cache rows of row i's sequence in one component of kv->layout. */
static inline qn_kv_view qn_layer_rows(const qn_layer_call *call, int16_t i_component, size_t i_row)
{
    return qn_kv_get_view(call->kv, i_component, qn_batch_pages(call->batch, i_row));
}

/** Does any tensor belong to the MTP layer?  Copies of trunk tables in it do not count. */
bool qn_finds_mtp(const qn_config *config, const qn_checkpoint *checkpoint);

/** Does this call run the indexer? */
static inline bool qn_layer_has_indexer(const qn_glm *m, const qn_layer_call *call)
{
    return call->reuse == NULL && m->config.is_index_full[call->i_layer];
}

/** One decoder layer in place on ws.x. */
void qn_glm_layer(qn_glm *m, const qn_layer_call *call);
/** What a layer adds to the cache, from ws.xn; in full layers its index keys too. */
void qn_glm_cache_rows(qn_glm *m, const qn_layer_call *call);
/** Attention block: ws.x += its output, from ws.xn; writes cache rows, in full layers ws.sets. */
void qn_glm_attention(qn_glm *m, const qn_layer_call *call);
/** Rows first .. end - 1 of ws.ki, ws.wi: norm, rotation, scale, cache. */
void qn_glm_index_keys(qn_glm *m, const qn_layer_call *call, size_t first, size_t end);
/** ws.sets of every row from ws.qi, ws.wi and the cached index keys. */
void qn_glm_select(qn_glm *m, const qn_layer_call *call);
/** Feed-forward block: ws.x += its output, from ws.xn. */
void qn_glm_ffn(qn_glm *m, const qn_layer_call *call);
#endif
