/* SPDX-License-Identifier: Apache-2.0 */
/** @file config.h  config.json and generation_config.json of the glm_moe_dsa family, checked. */
#ifndef QN_FORMAT_CONFIG_H
#define QN_FORMAT_CONFIG_H
#include "quern/status.h"

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    QN_LAYERS_MAX = 256,   /**< Trunk layers plus MTP layers a config may name. */
    QN_STOP_IDS_MAX = 16,  /**< Entries of eos_token_id. */
    QN_EXPERTS_MAX = 4096, /**< n_routed_experts. */
};

/** What quantization_config declares.  Informational: the dtype of a tensor is read from its file.
 */
typedef enum qn_quant_declared {
    QN_QUANT_NONE,  /**< No quantization_config. */
    QN_QUANT_FP8,   /**< quant_method "fp8": e4m3 with 128x128 scales. */
    QN_QUANT_QUARK, /**< quant_method "quark": MXFP4, perhaps beside FP8. */
    QN_QUANT_OTHER, /**< Another quant_method. */
} qn_quant_declared;

/** Every number the model needs, in the project's names (ARCHITECTURE.md has the dictionary), all
 * checked. */
typedef struct qn_config {
    uint32_t n_layers;       /**< num_hidden_layers, without the MTP layer. */
    uint32_t n_mtp_layers;   /**< num_nextn_predict_layers: 0 or 1. */
    uint32_t n_embd;         /**< hidden_size */
    uint32_t n_vocab;        /**< vocab_size, padding rows included. */
    uint32_t n_heads;        /**< num_attention_heads */
    uint32_t q_rank;         /**< q_lora_rank */
    uint32_t kv_rank;        /**< kv_lora_rank */
    uint32_t nope_dim;       /**< qk_nope_head_dim */
    uint32_t rope_dim;       /**< qk_rope_head_dim, even. */
    uint32_t v_dim;          /**< v_head_dim */
    uint32_t n_index_heads;  /**< index_n_heads */
    uint32_t index_dim;      /**< index_head_dim, at least rope_dim. */
    uint32_t index_topk;     /**< Positions a query attends to at most. */
    uint32_t n_ff_dense;     /**< intermediate_size */
    uint32_t n_ff_expert;    /**< moe_intermediate_size */
    uint32_t n_experts;      /**< n_routed_experts */
    uint32_t n_experts_used; /**< num_experts_per_tok */
    uint32_t
        n_experts_shared;   /**< n_shared_experts: their width is n_experts_shared * n_ff_expert. */
    uint32_t n_context_max; /**< max_position_embeddings */
    float rms_eps;          /**< rms_norm_eps, of every RMSNorm. */
    double rope_theta;      /**< rope_parameters.rope_theta (or rope_theta at the root). */
    float routed_scale;     /**< routed_scaling_factor */
    bool norm_topk;         /**< norm_topk_prob */
    bool index_share_for_mtp;          /**< index_share_for_mtp_iteration; false where absent. */
    bool is_dense[QN_LAYERS_MAX];      /**< Layer has a dense FFN; false for the MTP layer. */
    bool is_index_full[QN_LAYERS_MAX]; /**< Layer computes its own index set; true for MTP. */
    int32_t stop_ids[QN_STOP_IDS_MAX]; /**< eos_token_id */
    uint32_t n_stop_ids;               /**< Entries of stop_ids; 0 where the key is absent. */
    int32_t pad_id;                    /**< pad_token_id, -1 where absent. */
    qn_quant_declared quant_declared;
} qn_config;

/**
 * Read and check a config.json.  Unknown keys are logged once at info level ("noted"); keys that
 * contradict each other are refused.
 *
 * Returns  QN_OK; QN_E_NOT_FOUND, QN_E_FORMAT "PATH: key: seen, expected"; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_config_load(qn_config *out, const char *path, qn_error *err);

/** The same for text in memory; @p what names it in errors. */
QN_MUST_CHECK qn_status qn_config_parse(qn_config *out, qn_str text, const char *what,
                                        qn_error *err);

/** Sampling defaults of generation_config.json; where file or key is absent: 1.0, 1.0, 0, 0.0, 1.0.
 */
typedef struct qn_generation_config {
    float temperature;        /**< 0: greedy. */
    float top_p;              /**< 1: off. */
    uint32_t top_k;           /**< 0: off. */
    float min_p;              /**< 0: off. */
    float repetition_penalty; /**< 1: off. */
    bool do_sample;           /**< false (explicitly) means greedy; absent means true. */
    int32_t
        stop_ids[QN_STOP_IDS_MAX]; /**< eos_token_id here, where given: wins over config.json. */
    uint32_t n_stop_ids;           /**< 0 where not given. */
} qn_generation_config;

/**
 * Read and check a generation_config.json.  A missing file is not an error: defaults.
 * @param n_vocab  bounds the ids
 * Returns  QN_OK; QN_E_IO; QN_E_FORMAT "PATH: key: seen, expected"; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_generation_config_load(qn_generation_config *out, const char *path,
                                                  uint32_t n_vocab, qn_error *err);
#endif
