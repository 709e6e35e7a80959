/* SPDX-License-Identifier: Apache-2.0 */
/** @file weights.h  The explicit list of a model's tensors, and where each one is bound. */
#ifndef QN_MODEL_WEIGHTS_H
#define QN_MODEL_WEIGHTS_H
#include "format/checkpoint.h"
#include "format/config.h"
#include "kernels/weight.h"
#include "model/glm.h"

/** A SwiGLU block: gate and up [n_ff][n_embd], down [n_embd][n_ff]. */
typedef struct qn_mlp_weights {
    qn_weight gate, up, down;
} qn_mlp_weights;

/** One decoder layer; the MTP layer is one of these too. */
typedef struct qn_layer_weights {
    const float *input_norm;        /**< [n_embd] */
    const float *post_norm;         /**< [n_embd], before the FFN. */
    const float *q_a_norm;          /**< [q_rank] */
    const float *kv_a_norm;         /**< [kv_rank] */
    qn_weight q_a, q_b, kv_a, kv_b; /**< docs/model.md, Attention. */
    qn_weight o;
    qn_weight index_q;            /**< wq_b; this and the next four: full layers only. */
    qn_weight index_k;            /**< wk */
    qn_weight index_w;            /**< weights_proj */
    const float *index_norm;      /**< [index_dim] k_norm.weight */
    const float *index_norm_bias; /**< [index_dim] k_norm.bias */
    qn_mlp_weights mlp;           /**< The dense FFN, or the shared expert of a sparse layer. */
    qn_weight router;             /**< mlp.gate; this and the next two: sparse layers only. */
    const float *router_bias;     /**< [n_experts] e_score_correction_bias */
    qn_mlp_weights *experts;      /**< [n_experts], in qn_weights.experts. */
} qn_layer_weights;

/** All weights.  Matrices are borrowed from the checkpoint or the dummy block. */
typedef struct qn_weights {
    qn_weight embed, lm_head;
    const float *norm;          /**< [n_embd] model.norm */
    qn_layer_weights *layers;   /**< [n_layers + has_mtp], owned. */
    qn_mlp_weights *experts;    /**< All sparse layers' experts, owned. */
    const float *enorm, *hnorm; /**< [n_embd], MTP. */
    const float *mtp_norm;      /**< [n_embd] shared_head.norm */
    qn_weight eh_proj;          /**< [n_embd][2 n_embd] */
    float *vectors;             /**< Norms and biases in f32, owned. */
    uint8_t *dummy;             /**< Bytes of dummy matrices, owned mapping; NULL otherwise. */
    size_t dummy_bytes;
    bool has_mtp;
    uint64_t n_parameters;                   /**< Elements of matrices and vectors. */
    uint64_t weight_bytes;                   /**< As stored, scales included. */
    uint32_t n_of_kind[QN_WEIGHT_MXFP4 + 1]; /**< Matrices by storage. */
} qn_weights;

/** What a tensor is for; decides which dtypes it may have. */
typedef enum qn_role {
    QN_ROLE_MATRIX,      /**< Any storage. */
    QN_ROLE_ROUTER,      /**< A matrix too; named apart for the dummy weights' gain. */
    QN_ROLE_EMBEDDING,   /**< bf16 or f32. */
    QN_ROLE_NORM,        /**< bf16 or f32 vector. */
    QN_ROLE_NORM_BIAS,   /**< bf16 or f32 vector. */
    QN_ROLE_ROUTER_BIAS, /**< f32 (or bf16) vector. */
} qn_role;

/** One expected tensor. */
typedef struct qn_tensor_spec {
    char name[112];
    qn_role role;
    uint32_t n_out;       /**< Rows of a matrix, length of a vector. */
    uint32_t n_in;        /**< 0 for vectors. */
    qn_weight *matrix;    /**< Where it goes; NULL for vectors. */
    const float **vector; /**< Where it goes; NULL for matrices. */
} qn_tensor_spec;

typedef qn_status qn_tensor_visit_fn(void *context, const qn_tensor_spec *spec, qn_error *err);

/**
 * Call @p fn for every tensor the model consists of, in checkpoint naming, the MTP layer's when
 * weights->has_mtp.  Stops at the first failure and returns it.
 */
QN_MUST_CHECK qn_status qn_tensor_list_walk(const qn_config *config, qn_weights *weights,
                                            qn_tensor_visit_fn *fn, void *context, qn_error *err);

/** Allocate the tables (all zero) for a model; has_mtp as given. */
QN_MUST_CHECK qn_status qn_weights_init(qn_weights *weights, const qn_config *config, bool has_mtp,
                                        qn_error *err);
/**
 * Is it part of a copy of the trunk's embedding or head that some checkpoints keep in the MTP
 * layer? Of any storage, scales included: it is not used.
 */
bool qn_is_trunk_copy(const qn_config *config, qn_str name);
/** Bind every tensor of the list to the checkpoint; refuse what is left over. */
QN_MUST_CHECK qn_status qn_weights_bind(qn_weights *weights, const qn_config *config,
                                        const qn_checkpoint *checkpoint, qn_error *err);
/**
 * Fill with seeded random values (docs/formats.md, "Dummy weights"), on the threads of
 * options->pool and with its progress.  Returns  QN_OK; QN_E_NOMEM; QN_E_CANCELLED
 */
QN_MUST_CHECK qn_status qn_weights_fill_dummy(qn_weights *weights, const qn_config *config,
                                              uint64_t seed, const qn_glm_options *options,
                                              qn_error *err);
/** Free what is owned; all zero afterwards. */
void qn_weights_deinit(qn_weights *weights);
#endif
