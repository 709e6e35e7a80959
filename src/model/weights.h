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
    qn_packed gate, up, down;
} qn_mlp_weights;

/**
 * One head's share of kv_b, as absorbed attention multiplies it: the key half transposed
 * [kv_rank][nope], so that ql = key qn, and the value half [v_dim][kv_rank].
 */
typedef struct qn_head_weights {
    qn_packed key, value;
} qn_head_weights;

/** One decoder layer; the MTP layer is one of these too. */
typedef struct qn_layer_weights {
    const float *input_norm;      /**< [n_embd] */
    const float *post_norm;       /**< [n_embd], before the FFN. */
    const float *q_a_norm;        /**< [q_rank] */
    const float *kv_a_norm;       /**< [kv_rank] */
    qn_packed q_a, q_b, kv_a, o;  /**< docs/model.md, Attention. */
    qn_head_weights *heads;       /**< [n_heads] of kv_b, in qn_weights.heads. */
    qn_packed index_q;            /**< wq_b; this and the next four: full layers only. */
    qn_packed index_k;            /**< wk */
    qn_packed index_w;            /**< weights_proj */
    const float *index_norm;      /**< [index_dim] k_norm.weight */
    const float *index_norm_bias; /**< [index_dim] k_norm.bias */
    qn_mlp_weights mlp;           /**< The dense FFN, or the shared expert of a sparse layer. */
    qn_packed router;             /**< mlp.gate; this and the next two: sparse layers only. */
    const float *router_bias;     /**< [n_experts] e_score_correction_bias */
    qn_mlp_weights *experts;      /**< [n_experts], in qn_weights.experts. */
} qn_layer_weights;

/** All weights, packed for the kernels.  Nothing is borrowed: a checkpoint may be closed after. */
typedef struct qn_weights {
    qn_weight embed; /**< A table, as stored. */
    qn_packed lm_head;
    const float *norm;          /**< [n_embd] model.norm */
    qn_layer_weights *layers;   /**< [n_layers + has_mtp], owned. */
    qn_mlp_weights *experts;    /**< All sparse layers' experts, owned. */
    qn_head_weights *heads;     /**< [n_layers + has_mtp][n_heads], owned. */
    const float *enorm, *hnorm; /**< [n_embd], MTP. */
    const float *mtp_norm;      /**< [n_embd] shared_head.norm */
    qn_packed eh_proj;          /**< [n_embd][2 n_embd] */
    float *vectors; /**< [n_vector_floats] norms and biases in f32, on 16 bytes; owned. */
    size_t n_vector_floats;
    uint8_t *block; /**< Bytes of all matrices, owned mapping; NULL where a sink has them. */
    size_t block_bytes;
    bool has_mtp;
    uint64_t n_parameters;                   /**< Elements of matrices and vectors. */
    uint64_t weight_bytes;                   /**< As stored, scales included. */
    uint32_t n_of_kind[QN_WEIGHT_MXFP4 + 1]; /**< Matrices by storage. */
} qn_weights;

/** What a tensor is for; decides which dtypes it may have. */
typedef enum qn_role {
    QN_ROLE_MATRIX,      /**< Any storage. */
    QN_ROLE_ROUTER,      /**< A matrix too; named apart for the dummy weights' gain. */
    QN_ROLE_KV_B,        /**< A matrix that is taken apart by head. */
    QN_ROLE_EMBEDDING,   /**< bf16 or f32. */
    QN_ROLE_NORM,        /**< bf16 or f32 vector. */
    QN_ROLE_NORM_BIAS,   /**< bf16 or f32 vector. */
    QN_ROLE_ROUTER_BIAS, /**< f32 (or bf16) vector. */
} qn_role;

/** One expected tensor. */
typedef struct qn_tensor_spec {
    char name[112];
    qn_role role;
    uint32_t n_out;         /**< Rows of a matrix, length of a vector. */
    uint32_t n_in;          /**< 0 for vectors. */
    qn_packed *matrix;      /**< Where it goes; NULL for the next three. */
    qn_weight *table;       /**< The embedding. */
    qn_head_weights *heads; /**< [n_heads] kv_b. */
    const float **vector;   /**< A norm or bias. */
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
/** Who takes matrices, tables and kv_b in the place of the CPU: called in this order. */
typedef struct qn_weight_sink {
    void *context;
    /** One of the list, shaped in the tables; it may change a kind there. */
    qn_status (*plan)(void *context, const qn_tensor_spec *spec, qn_weight_kind kind,
                      qn_error *err);
    /** All are planned: make room. */
    qn_status (*reserve)(void *context, qn_error *err);
    /**
     * Take one, and say in the tables where it is.
     * @param stored  borrowed during the call; data NULL: dummy values of @p stream
     */
    qn_status (*take)(void *context, const qn_tensor_spec *spec, const qn_weight *stored,
                      uint64_t stream, qn_error *err);
    /** All are taken, and the vectors are in the tables. */
    qn_status (*finish)(void *context, qn_error *err);
} qn_weight_sink;

/**
 * Check every tensor of the list against the checkpoint and refuse what is left over, then read,
 * pack and keep one after the other, on the threads of options->pool and with its progress (bytes
 * as stored).
 *
 * @param checkpoint  NULL: seeded random values instead (docs/formats.md, "Dummy weights")
 * @param sink        NULL: packed for the CPU
 * Returns  QN_OK; QN_E_FORMAT naming the tensor; QN_E_IO; QN_E_NOMEM; QN_E_CANCELLED; what the sink
 *          returns
 */
QN_MUST_CHECK qn_status qn_weights_load(qn_weights *weights, const qn_config *config,
                                        const qn_checkpoint *checkpoint, uint64_t seed,
                                        const qn_glm_options *options, const qn_weight_sink *sink,
                                        qn_error *err);

/**
 * What a dummy matrix is stored as: as the config declares its module, and tables bf16.
 *
 * @param rules  NULL: all of it is bf16
 * Returns  QN_OK; QN_E_FORMAT for rows that MXFP4 cannot have
 */
QN_MUST_CHECK qn_status qn_choose_dummy(qn_weight_kind *out, const qn_quant_rules *rules,
                                        const qn_tensor_spec *spec, qn_error *err);

/** Floats that a vector of n takes of qn_weights.vectors. */
static inline size_t qn_vector_floats(uint32_t n)
{
    return ((size_t)n + 3) / 4 * 4;
}

/** inv_freq [rope_dim / 2] of the rotation (docs/model.md). */
void qn_rope_frequencies(float *inv_freq, uint32_t rope_dim, double theta);

/** One matrix or vector of a checkpoint, as stored. */
typedef struct qn_stored {
    qn_weight weight;        /**< Of a matrix. */
    const qn_tensor *tensor; /**< Its elements. */
    const qn_tensor *scale;  /**< Its scales; NULL: none. */
} qn_stored;

/** Where a binder finds tensors: a checkpoint, or what is known of one. */
typedef struct qn_tensor_source {
    /** The tensor of a name and its place; NULL where there is none. */
    const qn_tensor *(*find)(const void *context, qn_str name, size_t *i_tensor);
    /** File of a tensor that find gave, for messages. */
    const char *(*file_of)(const void *context, const qn_tensor *tensor);
    const void *context;
    const char *path; /**< The folder, for messages. */
    size_t n_tensors; /**< Places are below. */
} qn_tensor_source;

/** The tensors of a checkpoint, borrowed while the source is in use. */
qn_tensor_source qn_tensor_source_of(const qn_checkpoint *checkpoint);

/** Why a tensor was refused. */
typedef enum qn_bind_fault {
    QN_BIND_MISSING,  /**< No tensor of the name. */
    QN_BIND_NO_SCALE, /**< A quantised matrix without its scale. */
    QN_BIND_SHAPE,    /**< Of the tensor or its scale. */
    QN_BIND_DTYPE,    /**< Of the tensor or its scale. */
} qn_bind_fault;

/** Which tensors of a source have been asked for. */
typedef struct qn_binder {
    qn_tensor_source source;
    bool *is_used;           /**< [source.n_tensors], owned. */
    qn_bind_fault fault;     /**< Of the last tensor that was refused ... */
    const qn_tensor *faulty; /**< ... and it, or its scale; NULL where it is missing. */
} qn_binder;

QN_MUST_CHECK qn_status qn_binder_init(qn_binder *binder, const qn_tensor_source *source,
                                       qn_error *err);
void qn_binder_deinit(qn_binder *binder);
/** Find a tensor of the list; refuse one that is missing, misshapen or of a wrong dtype. */
QN_MUST_CHECK qn_status qn_binder_find(qn_binder *binder, const qn_tensor_spec *spec,
                                       qn_stored *out, qn_error *err);
/** Refuse the first tensor that nobody has asked for. */
QN_MUST_CHECK qn_status qn_binder_refuse_unknown(const qn_binder *binder,
                                                 const qn_checkpoint *checkpoint,
                                                 const qn_config *config, qn_error *err);
/** Free what is owned; all zero afterwards. */
void qn_weights_deinit(qn_weights *weights);
#endif
