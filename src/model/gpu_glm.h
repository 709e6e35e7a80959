/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gpu_glm.h  The model on a GPU: weights packed there, and passes as sequences of launches.
 *
 * A pass reads its batch, as everything else, from device memory.  It is queued only: it allocates
 * nothing and the host waits for nothing, so that it may be captured in a graph.  A probe alone
 * makes it wait.  What fails is kept by the stream (device/gpu.h).
 *
 * Rounding  the residual stream is f32; what products read is bf16: normed rows, queries, attended
 *           latents, gated activations.  Cache rows, index keys, head weights and router logits are
 *           made of f32 products.
 */
#ifndef QN_MODEL_GPU_GLM_H
#define QN_MODEL_GPU_GLM_H
#include "kernels/gpu_ops.h"
#include "model/glm.h"
#include "model/weights.h"

/** Matrices of a layer by place; those that it lacks are all zero. */
enum {
    QN_GPU_Q_A,
    QN_GPU_Q_B,
    QN_GPU_KV_A,
    QN_GPU_KEY,   /**< kv_b by head: the key half transposed [kv_rank][nope_dim], ... */
    QN_GPU_VALUE, /**< ... and the value half [v_dim][kv_rank]. */
    QN_GPU_O,
    QN_GPU_INDEX_Q,
    QN_GPU_INDEX_K,
    QN_GPU_INDEX_W,
    QN_GPU_UP, /**< Gate and up, a pair: of the dense block, or of the shared expert. */
    QN_GPU_DOWN,
    QN_GPU_ROUTER,
    QN_GPU_EXPERT_UP, /**< A pair of each routed expert. */
    QN_GPU_EXPERT_DOWN,
    QN_GPU_N_MATRICES,
};

/** One decoder layer; vectors are f32. */
typedef struct qn_gpu_layer {
    qn_gpu_weight w[QN_GPU_N_MATRICES];
    const float *input_norm, *post_norm, *q_a_norm, *kv_a_norm;
    const float *index_norm, *index_norm_bias, *router_bias;
} qn_gpu_layer;

/** All weights, in one block of device memory. */
typedef struct qn_gpu_weights {
    const void *embed;    /**< Row-major, as stored. */
    uint32_t embed_dtype; /**< QN_GPU_F32 or QN_GPU_BF16 */
    qn_gpu_weight lm_head, eh_proj;
    const float *norm, *enorm, *hnorm, *mtp_norm;
    const float *inv_freq; /**< [rope_dim / 2] */
    qn_gpu_layer *layers;  /**< [n_layers + has_mtp], owned, of the host. */
    uint8_t *block;        /**< Owned. */
    uint64_t block_bytes;
} qn_gpu_weights;

/**
 * What a pass reads of its batch: qn_batch in device memory.  Numbers of rows are those of the
 * launches; a row of a negative position is padding.
 */
typedef struct qn_gpu_batch {
    const int32_t *tokens;      /**< [n_rows] */
    const int32_t *positions;   /**< [n_rows] */
    const int32_t *seqs;        /**< [n_rows] */
    const int32_t *page_tables; /**< [sequences][n_table_pages] */
    uint32_t n_rows;
    uint32_t n_table_pages;
    uint32_t n_positions_max; /**< No row's position is this or more: the extent of launches. */
} qn_gpu_batch;

/** Buffers of a pass of R rows, carved from one block; names follow docs/model.md. */
typedef struct qn_gpu_workspace {
    float *x;               /**< [R][n_embd] residual stream */
    uint16_t *xn;           /**< [R][n_embd] its norm */
    uint16_t *concat;       /**< [R][2 n_embd] MTP: embedding and hidden */
    float *hidden_prev;     /**< [R][n_embd] MTP: into the pass */
    float *hidden;          /**< [R][n_embd] out of a pass, after the final norm */
    float *angles;          /**< [R][rope_dim / 2][2] */
    float *qa;              /**< [R][q_rank] */
    uint16_t *qr;           /**< [R][q_rank] its norm */
    uint16_t *q;            /**< [R][n_heads][nope + rope] */
    float *kv;              /**< [R][kv_rank + rope] */
    uint16_t *ql;           /**< [R][n_heads][kv_rank] absorbed queries */
    uint16_t *u;            /**< [R][n_heads][kv_rank] attended latents */
    uint16_t *o;            /**< [R][n_heads][v_dim] */
    uint16_t *qi;           /**< [R][n_index_heads][index_dim] */
    float *ki;              /**< [R][index_dim] */
    float *wi;              /**< [R][n_index_heads] */
    int32_t *sets;          /**< [R][index_topk] current index sets */
    uint32_t *n_sets;       /**< [R] */
    float *router_logits;   /**< [R][router_stride] */
    int32_t *experts;       /**< [R][n_used] */
    float *expert_weights;  /**< [R][n_used] */
    uint32_t *slot_of;      /**< [R][n_used] */
    uint32_t *row_of;       /**< [R * n_used] */
    uint32_t *first_of;     /**< [n_experts + 1] */
    uint32_t *active;       /**< [n_experts] */
    uint32_t *n_active;     /**< [1] */
    uint16_t *gated;        /**< [R][n_ff] of the block that all rows take */
    uint16_t *expert_gated; /**< [R * n_used][n_ff_expert] */
    float *expert_y;        /**< [R * n_used][n_embd] */
    uint16_t *head_rows;    /**< [n_logit_rows][n_embd] */
    float *logits;          /**< [n_logit_rows][n_vocab] of a call of qn_gpu_glm_head() */
    uint8_t *scratch;       /**< Index scores or partial sums of attention, of some rows. */
    float *partial;         /**< Partial sums of products. */
    uint64_t scratch_bytes;
    uint32_t n_logit_rows;  /**< At most R. */
    uint32_t router_stride; /**< n_experts rounded up to 4. */
    uint8_t *block;         /**< Owned. */
    uint64_t block_bytes;
} qn_gpu_workspace;

/** A model on a GPU. */
typedef struct qn_gpu_glm {
    const qn_config *config; /**< Borrowed, as the next. */
    qn_gpu *gpu;
    qn_gpu_stream *stream; /**< Owned: all work of the model, in order. */
    qn_gpu_ops ops;
    qn_gpu_weights weights;
    qn_gpu_workspace ws;
    uint32_t n_rows_max;
    uint32_t n_reserves; /**< Of ws, so far: another may be at the same address. */
    bool has_mtp;
    bool is_deterministic;
    int32_t *numbers; /**< [n_numbers] of batches, owned, as the next: gpu_host.c */
    int32_t *numbers_host;
    size_t n_numbers;
    qn_error failure; /**< The first of passes for a caller on the host: qn_glm_take_failure(). */
} qn_gpu_glm;

/**
 * A model without weights.
 *
 * Returns  QN_OK; QN_E_DEVICE for a config with a dimension that no kernel takes, by its key;
 *          QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_gpu_glm_open(qn_gpu_glm **out, const qn_config *config,
                                        const qn_glm_options *options, bool has_mtp, qn_error *err);
/** Release; sets *model to NULL; accepts NULL. */
void qn_gpu_glm_close(qn_gpu_glm **model);
/** What computes a model, borrowed until the model is closed; NULL: the CPU does. */
qn_gpu_glm *qn_glm_gpu(const qn_glm *model);

/**
 * Load the weights: qn_weights_load() with a sink that uploads and packs.  The tables of @p weights
 * say what is where, as for the CPU; addresses in them are of the device.
 *
 * Returns  as qn_weights_load(); QN_E_NOMEM too that says how many GB are needed and free;
 *          QN_E_FORMAT naming a tensor with scales or codes that are no numbers, or a matrix stored
 *          in another way than its twins; QN_E_DEVICE
 */
QN_MUST_CHECK qn_status qn_gpu_glm_load(qn_gpu_glm *g, qn_weights *weights,
                                        const qn_checkpoint *checkpoint, uint64_t seed,
                                        const qn_glm_options *options, qn_error *err);

/**
 * Only the shapes of the weights, of a model that stays without.
 *
 * @param checkpoint  whose tensors say what is stored how; NULL: as the next two say
 * @param rules       of dummy weights; NULL: bf16
 * @param experts     of routed and shared experts in their place; NULL: rules for these too
 * Returns  as qn_gpu_glm_load()
 */
QN_MUST_CHECK qn_status qn_gpu_glm_plan(qn_gpu_glm *g, const qn_checkpoint *checkpoint,
                                        const qn_quant_rules *rules, const qn_weight_kind *experts,
                                        qn_error *err);

/** Call of qn_gpu_glm_each(): a matrix, or n_groups of one shape one behind the other. */
typedef void qn_gpu_weight_fn(void *context, qn_gpu_weight *w, uint32_t n_groups, bool is_grouped);
/** Every matrix there is, once it is loaded or planned. */
void qn_gpu_glm_each(qn_gpu_glm *g, qn_gpu_weight_fn *fn, void *context);
/** The product of one of these, with @p n_rows rows of a pass. */
qn_gpu_matmul_shape qn_gpu_glm_shape(const qn_gpu_glm *g, const qn_gpu_weight *w, uint32_t n_groups,
                                     bool is_grouped, uint32_t n_rows);

/** Bytes of the workspace for @p n_rows rows. */
uint64_t qn_gpu_glm_workspace_bytes(const qn_gpu_glm *g, uint32_t n_rows);
/**
 * A workspace for passes of up to @p n_rows rows in the place of the one there is, once what is
 * queued is done.
 * Returns  QN_OK; QN_E_NOMEM, QN_E_DEVICE, also of what was queued: nothing has changed
 */
QN_MUST_CHECK qn_status qn_gpu_glm_reserve(qn_gpu_glm *g, uint32_t n_rows, qn_error *err);

/** What one layer of a pass works on. */
typedef struct qn_gpu_call {
    const qn_gpu_layer *layer;
    uint32_t i_layer;
    uint32_t first_position; /**< 0 in the trunk, 1 in the MTP layer (it has no row 0). */
    const qn_kv *kv;
    const qn_gpu_batch *batch;
    bool has_sets;         /**< ws.sets are there: the indexer does not run. */
    const qn_probe *probe; /**< NULL: none. */
} qn_gpu_call;

/** One decoder layer in place on ws.x. */
void qn_gpu_glm_layer(qn_gpu_glm *g, const qn_gpu_call *call);
/** What a layer adds to the cache, without the rest. */
void qn_gpu_glm_cache_rows(qn_gpu_glm *g, const qn_gpu_call *call);

/** Queue the trunk: ws.hidden, and in the cache the rows and page ends of the batch. */
void qn_gpu_glm_trunk(qn_gpu_glm *g, const qn_kv *kv, const qn_gpu_batch *batch,
                      const qn_probe *probe);
/**
 * Queue the MTP layer: from ws.hidden_prev to ws.hidden.
 * @param has_sets  rows attend to ws.sets and the indexer does not run
 */
void qn_gpu_glm_mtp(qn_gpu_glm *g, const qn_kv *kv, const qn_gpu_batch *batch, bool has_sets,
                    const qn_probe *probe);
/** Queue what the MTP layer adds to the cache, from ws.hidden_prev. */
void qn_gpu_glm_mtp_cache(qn_gpu_glm *g, const qn_kv *kv, const qn_gpu_batch *batch);
/**
 * Queue ws.logits of rows of ws.hidden.
 *
 * @param rows    [n_rows] in device memory; NULL: @p first_row and those behind it
 * @param n_rows  at most ws.n_logit_rows
 */
void qn_gpu_glm_head(qn_gpu_glm *g, const uint32_t *rows, uint32_t first_row, uint32_t n_rows);

/** The functions of glm.h on a GPU: what they take is uploaded, what they give is downloaded. */
void qn_gpu_host_forward(qn_gpu_glm *g, const qn_kv *kv, const qn_batch *batch, float *hidden,
                         float *logits, const qn_probe *probe);
void qn_gpu_host_head(qn_gpu_glm *g, const float *hidden, uint32_t n_rows, float *logits);
void qn_gpu_host_mtp(qn_gpu_glm *g, const qn_kv *kv, const qn_batch *batch, const qn_mtp_io *io,
                     const qn_probe *probe);
void qn_gpu_host_mtp_cache(qn_gpu_glm *g, const qn_kv *kv, const qn_batch *batch,
                           const float *hidden_prev);

/** qn_glm_take_failure() */
QN_MUST_CHECK qn_status qn_gpu_host_take_failure(qn_gpu_glm *g, qn_error *err);

/** A probe's look at the stream after a layer, -1: at the embedding.  Waits, as the next two. */
void qn_gpu_probe_hidden(qn_gpu_glm *g, const qn_probe *probe, int32_t i_layer, uint32_t n_rows);
/** Its look at the experts in ws, which it may replace. */
void qn_gpu_probe_router(qn_gpu_glm *g, const qn_gpu_call *call);
/**
 * Its look at the index sets of rows first .. end - 1.
 * @param scores  in device memory, of row first, rows @p stride apart; NULL: none were needed
 */
void qn_gpu_probe_index(qn_gpu_glm *g, const qn_gpu_call *call, uint32_t first, uint32_t end,
                        const float *scores, uint64_t stride);
#endif
