/* SPDX-License-Identifier: Apache-2.0 */
/** @file tensor_name.h  What a tensor of this family is, by its name alone. */
#ifndef QN_FORMAT_TENSOR_NAME_H
#define QN_FORMAT_TENSOR_NAME_H
#include "base/str.h"

/** What a tensor is part of. */
typedef enum qn_tensor_kind {
    QN_KIND_EMBEDDING,     /**< model.embed_tokens */
    QN_KIND_HEAD,          /**< lm_head */
    QN_KIND_NORM,          /**< Weight or bias of any normalisation. */
    QN_KIND_ATTENTION,     /**< Matrices of self_attn but the indexer's. */
    QN_KIND_INDEXER,       /**< Matrices of self_attn.indexer. */
    QN_KIND_DENSE_MLP,     /**< mlp.{gate,up,down}_proj */
    QN_KIND_ROUTER,        /**< mlp.gate, its bias included. */
    QN_KIND_ROUTED_EXPERT, /**< mlp.experts.N */
    QN_KIND_SHARED_EXPERT, /**< mlp.shared_experts */
    QN_KIND_MTP_PROJ,      /**< eh_proj */
    QN_KIND_OTHER,         /**< Any other name. */
    QN_N_KINDS,            /**< How many there are. */
} qn_tensor_kind;

/** "routed_expert", ...: for reports. */
const char *qn_tensor_kind_name(qn_tensor_kind kind);

/** A name taken apart; slices are borrowed from it. */
typedef struct qn_tensor_name {
    qn_tensor_kind kind;
    int32_t layer;  /**< N of "model.layers.N."; -1: of no layer. */
    int32_t expert; /**< N of "mlp.experts.N."; -1: of no routed expert. */
    qn_str module;  /**< What stands before part: "model.layers.3.mlp.gate"; may be empty. */
    qn_str part;    /**< "weight", "weight_scale", "weight_quantizer.scale", "bias" ... */
} qn_tensor_name;

/**
 * Is a tensor of this name and rank what AMD Quark takes for the weight of a Linear in a file?  All
 * that it quantizes or lists in exclude is: the name ends in ".weight", the module's neither ends
 * in "norm" nor holds "embed" anywhere, the rank is 2 or more. Source
 * quark/torch/quantization/file2file_quantization.py of 0.13
 */
bool qn_tensor_name_is_linear(qn_str name, uint32_t rank);

/**
 * What SGLang calls the MTP layer's modules by, whose name goes on with @p rest behind
 * "model.layers.N.": its draft is a model of its own, "model.eh_proj", with one layer,
 * "model.decoder.mlp.gate".
 * Source   SGLang, GlmMoeDsaForCausalLMNextN, pull request 30265
 */
const char *qn_draft_prefix(qn_str rest);

/** Take any name apart; one of no known form is of kind OTHER. */
void qn_tensor_name_parse(qn_tensor_name *out, qn_str name);
#endif
