/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file glm.h  GLM-5 / 5.1 / 5.2 and nothing else: weights bound to names, and the forward pass
 * over rows of any number of sequences.
 */
#ifndef QN_MODEL_GLM_H
#define QN_MODEL_GLM_H
#include "base/pool.h"
#include "device/gpu.h"
#include "format/checkpoint.h"
#include "format/config.h"
#include "format/quant_rules.h"
#include "kernels/gpu_ops.h"
#include "kernels/kernels.h"
#include "model/kv.h"

/** A model's weights and the workspace of its forward pass.  Opaque; one thread at a time. */
typedef struct qn_glm qn_glm;

/** How a model computes. */
typedef struct qn_glm_options {
    const qn_kernels *kernels; /**< Borrowed while the model is open. */
    qn_pool *pool;             /**< Borrowed while the model is open. */
    qn_compute compute;        /**< Not AUTO. */
    uint32_t n_rows_max;       /**< Rows of one forward pass: see qn_glm_reserve(). */
    qn_progress_fn *progress;  /**< Bytes of weights loaded, as stored; NULL: not wanted. */
    void *progress_context;
    qn_gpu *gpu; /**< Computes and keeps the weights; compute is BF16 then.  NULL: the CPU does.
                      Borrowed while the model is open, as the next. */
    const qn_gpu_kernels *gpu_kernels;
    bool is_deterministic; /**< On a GPU: a row's bits depend on its own sequence only, as they
                                always do on the CPU. */
    const qn_quant_rules
        *rules; /**< Of dummy weights; borrowed while they are made.  NULL: bf16. */
} qn_glm_options;

/**
 * Bind a checkpoint to the explicit list of tensors that @p config implies.  A tensor that is
 * unknown, missing, misshapen or of a dtype that its role does not permit stops the load.  A
 * checkpoint without any tensor of the MTP layer loads without it; half of one is an error.
 *
 * @param checkpoint  borrowed during the call: weights are packed for the kernels and kept
 * Returns  QN_OK; QN_E_FORMAT naming the tensor, what was seen and expected; QN_E_IO; QN_E_NOMEM;
 *          QN_E_DEVICE; QN_E_CANCELLED by options->progress
 */
QN_MUST_CHECK qn_status qn_glm_open(qn_glm **out, const qn_config *config,
                                    const qn_checkpoint *checkpoint, const qn_glm_options *options,
                                    qn_error *err);

/**
 * The same with seeded random weights, matrices in what options->rules say and else in bf16 (router
 * bias f32): docs/formats.md defines every value.  Their bytes are owned by the model.
 */
QN_MUST_CHECK qn_status qn_glm_open_dummy(qn_glm **out, const qn_config *config, uint64_t seed,
                                          const qn_glm_options *options, qn_error *err);

/** Release; sets *model to NULL; accepts NULL. */
void qn_glm_close(qn_glm **model);

/**
 * Make room for passes of @p n_rows rows; what room there is stays where it suffices.  Not during a
 * pass.  Memory fills as rows are used.
 * Returns  QN_OK; QN_E_NOMEM that says how many bytes were asked, and nothing has changed
 */
QN_MUST_CHECK qn_status qn_glm_reserve(qn_glm *model, uint32_t n_rows, qn_error *err);
/** The most that the workspace takes, once all its rows have been used. */
uint64_t qn_glm_workspace_bytes(const qn_glm *model);

/** Where pages are that passes of this model read and write; borrowed until close. */
const qn_kv_place *qn_glm_kv_place(const qn_glm *model);

/** Borrowed until close. */
const qn_config *qn_glm_config(const qn_glm *model);
/** False when config or checkpoint has no MTP layer. */
bool qn_glm_has_mtp(const qn_glm *model);
/** Elements of all weights, and bytes as stored (scales included). */
uint64_t qn_glm_parameters(const qn_glm *model);
uint64_t qn_glm_weight_bytes(const qn_glm *model);
/** Products with matrices of one shape and storage. */
typedef struct qn_glm_product {
    qn_weight_kind kind;
    uint32_t n_in, n_out;
    uint32_t n_uses;   /**< Matrices. */
    bool is_of_expert; /**< Routed ones. */
} qn_glm_product;

enum { QN_GLM_PRODUCTS_MAX = 128 }; /**< 18 matrices of a model's layers, each of five storages. */

/** All products of the model's passes, those alike as one; returns how many. */
uint32_t qn_glm_list_products(qn_glm_product out[QN_GLM_PRODUCTS_MAX], const qn_glm *model);
/**
 * The same of a model that is not loaded: as the config has it, with the MTP layer if it names one.
 *
 * @param kind         of every matrix but the experts', the shared ones among them
 * @param expert_kind  of theirs
 */
QN_MUST_CHECK qn_status qn_glm_list_config_products(qn_glm_product out[QN_GLM_PRODUCTS_MAX],
                                                    uint32_t *n, const qn_config *config,
                                                    qn_weight_kind kind, qn_weight_kind expert_kind,
                                                    qn_error *err);
/** "none", "fp8" or "mxfp4": the smallest storage of any matrix. */
const char *qn_glm_quantization(const qn_glm *model);

/**
 * Rows of one forward pass, from any sequences in any order; several rows of one sequence
 * (prefill, verification) stand in ascending position.  All arrays borrowed during the call.  A
 * row attends to its own sequence's cache up to and including its own position, so every earlier
 * position must have been computed before or stand earlier in the same batch.
 */
typedef struct qn_batch {
    uint32_t n_rows;            /**< 1 .. n_rows_max */
    const int32_t *tokens;      /**< [n_rows], each in 0 .. n_vocab - 1 */
    const int32_t *positions;   /**< [n_rows], each with a page in its sequence's table */
    const int32_t *seqs;        /**< [n_rows], each in 0 .. n_seqs - 1 */
    const int32_t *page_tables; /**< [n_seqs][n_table_pages] page ids; what lies behind a sequence's
                                     last page is not read */
    uint32_t n_seqs;            /**< Sequences that rows may name. */
    uint32_t n_table_pages;     /**< Length of a page table. */
    const uint32_t *logit_rows; /**< [n_logit_rows] rows whose logits are wanted */
    uint32_t n_logit_rows;      /**< 0: none, and the output matrix is not read. */
} qn_batch;

/** Page table of row @p i_row's sequence. */
static inline const int32_t *qn_batch_pages(const qn_batch *batch, size_t i_row)
{
    return batch->page_tables + (size_t)batch->seqs[i_row] * batch->n_table_pages;
}

/**
 * Looks at a forward pass, and may replace its choices (tests inject golden ones).  Every function
 * may be NULL.  Called from the calling thread, rows in batch order.
 */
typedef struct qn_probe {
    void *context;
    /** Residual stream [n_rows][n_embd] after a layer; i_layer -1 is the embedding. */
    void (*hidden)(void *context, int32_t i_layer, const float *x);
    /**
     * Experts of one row, [n_experts_used] by descending selection score; may be overwritten.
     * @param scores  [n_experts] selection scores (sigmoid + bias)
     */
    void (*router)(void *context, int32_t i_layer, uint32_t i_row, int32_t *experts,
                   const float *scores);
    /**
     * Index set of one row of a full layer, ascending; may be overwritten with as many positions.
     * @param scores  [position + 1] indexer scores, NULL where all positions are taken anyway
     */
    void (*index)(void *context, int32_t i_layer, uint32_t i_row, int32_t *set, uint32_t n_set,
                  const float *scores);
} qn_probe;

/**
 * One pass of the trunk.  Writes the cache rows of every batch row in @p kv, and where a row is the
 * last of its page, that page's hidden vector.
 *
 * @param[out] hidden  [n_rows][n_embd] after the final norm (what MTP consumes); may be NULL
 * @param[out] logits  [n_logit_rows][n_vocab]; may be NULL when none are wanted
 * @param probe        NULL: none
 * A row's results do not depend on the other rows, on how a prompt is cut, or on the threads; on a
 * GPU where it is deterministic.  Once a GPU has failed, which the log says, all results are NaN
 * until qn_glm_take_failure() tells of it.
 */
void qn_glm_forward(qn_glm *model, const qn_kv *kv, const qn_batch *batch, float *hidden,
                    float *logits, const qn_probe *probe);

/**
 * Did a pass fail since the last call?  Then what passes since have written has no meaning.
 * Returns  QN_OK, always of a CPU; QN_E_DEVICE, QN_E_NOMEM: the first failure, once
 */
QN_MUST_CHECK qn_status qn_glm_take_failure(qn_glm *model, qn_error *err);

/**
 * Logits of rows that a pass gave no logits of, bit for bit what it would have given; on a GPU
 * where it is deterministic.
 *
 * @param hidden       [n_rows][n_embd] as qn_glm_forward() gives them
 * @param n_rows       1 .. n_rows_max
 * @param[out] logits  [n_rows][n_vocab]
 */
void qn_glm_head(qn_glm *model, const float *hidden, uint32_t n_rows, float *logits);

/** Index sets that rows of an MTP chain share. */
typedef struct qn_index_sets {
    int32_t *sets;    /**< [n_rows][index_topk] positions, ascending. */
    uint32_t *n_sets; /**< [n_rows] how many of them count. */
} qn_index_sets;

/** What goes into and comes out of the MTP layer, beside its batch. */
typedef struct qn_mtp_io {
    const float *hidden_prev;   /**< [n_rows][n_embd] post-norm hidden of position p - 1: the
                                     trunk's, or g of the previous step of a chain. */
    const qn_index_sets *reuse; /**< Rows attend to these sets and the indexer does not run
                                   (docs/model.md, MTP); NULL: own sets. */
    const qn_index_sets *keep;  /**< The sets of these rows are copied here; NULL: not wanted. */
    float *hidden; /**< [n_rows][n_embd] out: g, after shared_head.norm; may be NULL, and may
                        be hidden_prev. */
    float *logits; /**< [n_logit_rows][n_vocab] out; may be NULL. */
} qn_mtp_io;

/**
 * One evaluation of the MTP layer.  Row i holds (token i, trunk hidden i - 1): position p in the
 * batch is the token's own position, at least 1, and the row attends to MTP rows 1 .. p.
 */
void qn_glm_mtp(qn_glm *model, const qn_kv *kv, const qn_batch *batch, const qn_mtp_io *io,
                const qn_probe *probe);

/**
 * What qn_glm_mtp() adds to the cache, without the rest: all that later rows need of these.  There
 * is one MTP layer, so its cache rows depend on no attention; a row costs a small part of a whole
 * one.
 *
 * @param hidden_prev  [n_rows][n_embd] as in qn_mtp_io
 */
void qn_glm_mtp_cache(qn_glm *model, const qn_kv *kv, const qn_batch *batch,
                      const float *hidden_prev);
#endif
