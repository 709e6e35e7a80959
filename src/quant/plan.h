/* SPDX-License-Identifier: Apache-2.0 */
/** @file plan.h  What becomes of every tensor and where it will stand, from headers alone. */
#ifndef QN_QUANT_PLAN_H
#define QN_QUANT_PLAN_H
#include "quern/tools.h"

#include "format/safetensors.h"
#include "format/tensor_name.h"
#include "quant/kinds.h"
#include "quant/manifest.h"
#include "quant/recipe.h"

/** What happens to a tensor of the source. */
typedef enum qn_plan_action {
    QN_PLAN_COPY,    /**< The same bytes. */
    QN_PLAN_ENCODE,  /**< MXFP4, two tensors. */
    QN_PLAN_TO_BF16, /**< FP8 times its scale, rounded once. */
    QN_PLAN_DROP,    /**< Nothing: the scale of an FP8 tensor that is not copied. */
} qn_plan_action;

/** One tensor of the source. */
typedef struct qn_plan_tensor {
    qn_str name;         /**< Of the shard's names; "_scale_inv" and a NUL stand behind it. */
    qn_tensor_kind kind; /**< By its name. */
    bool is_mtp;         /**< Of the MTP layer. */
    bool is_scale;       /**< Of an FP8 tensor. */
    qn_plan_action action;
    qn_dtype dtype;                     /**< Of the source. */
    uint32_t rank;                      /**< Entries of shape. */
    uint32_t i_shard;                   /**< Whose file it stands in. */
    uint64_t shape[QN_TENSOR_RANK_MAX]; /**< Of the source. */
    uint64_t offset;                    /**< In the source file. */
    uint64_t size_bytes;                /**< There. */
    const struct qn_plan_tensor *scale; /**< Of FP8 that is not copied; NULL where gone, or none. */
    uint64_t out_offset;                /**< In the output file; codes, where action is ENCODE. */
    uint64_t out_bytes;                 /**< There; 0 with DROP. */
    uint64_t scale_out_offset;          /**< Of the scales, where action is ENCODE. */
    uint64_t scale_out_bytes;           /**< There; 0 with any other action. */
} qn_plan_tensor;

/** One tensor of an output file, in the order of its header and data. */
typedef struct qn_plan_output {
    qn_plan_tensor *from;               /**< Borrowed from the shard. */
    qn_str name;                        /**< With a suffix of its own where is_scale. */
    qn_dtype dtype;                     /**< U8 for both tensors of MXFP4. */
    bool is_scale;                      /**< Of MXFP4. */
    uint64_t shape[QN_TENSOR_RANK_MAX]; /**< As many entries as from->rank. */
    uint64_t size_bytes;                /**< Its data. */
} qn_plan_output;

/** One file of weights. */
typedef struct qn_plan_shard {
    char *file;               /**< Its name in source and target; owned. */
    char *names;              /**< Owned; what names point into. */
    qn_plan_tensor *tensors;  /**< [n_tensors] by place in the source file; owned. */
    size_t n_tensors;         /**< Of the source. */
    qn_plan_output *outputs;  /**< [n_outputs] owned. */
    size_t n_outputs;         /**< Of the output. */
    uint64_t source_bytes;    /**< Whole file. */
    int64_t source_mtime_ns;  /**< When it was written. */
    uint64_t source_inode;    /**< To see that it is still the same file. */
    char head_hash[17];       /**< XXH3 of what stands before the data, as hex. */
    bool is_done;             /**< By an earlier run. */
    bool is_gone;             /**< Done and then deleted; tensors are those of the output. */
    bool is_final;            /**< Cannot be made again: it is gone, or a scale that it needs is. */
    uint64_t out_head_bytes;  /**< Header of the output and its length. */
    uint64_t out_bytes;       /**< Whole output file. */
    uint64_t encode_elements; /**< Elements that become MXFP4. */
} qn_plan_shard;

/** The whole plan.  All-zero is closed. */
typedef struct qn_plan {
    const char *source;    /**< Folder; borrowed. */
    qn_plan_shard *shards; /**< [n_shards] by name; owned. */
    size_t n_shards;       /**< At least 1 while open. */
    uint64_t source_bytes; /**< Of all shards. */
    uint64_t out_bytes;    /**< Of all shards. */
} qn_plan;

/**
 * Read the headers of every shard and decide.  Refuses by name: what is quantized already, FP8
 * without a scale of its shape, a selected matrix whose rows are no multiple of 32 or whose scales'
 * name is taken, a tensor in two shards, an index that says otherwise, a source that is not the
 * manifest's, more tensors than one of our headers may have.
 *
 * @param source    folder; borrowed while the plan is open
 * @param target    folder of the outputs of shards that an earlier run has deleted
 * @param manifest  of that run; NULL: there was none
 * Returns  QN_OK; QN_E_NOT_FOUND; QN_E_FORMAT; QN_E_IO; QN_E_NOMEM; *out is closed on failure
 */
QN_MUST_CHECK qn_status qn_plan_open(qn_plan *out, const char *source, const char *target,
                                     const qn_manifest *manifest, qn_recipe *recipe,
                                     qn_fp8_rest fp8, qn_error *err);
/** Free everything; closing twice is fine. */
void qn_plan_close(qn_plan *plan);

/** Add tensors and bytes of a shard, which is not gone, to those of its kinds. */
void qn_plan_add_stats(qn_kind_stats stats[QN_N_STATS], const qn_plan_shard *shard);

/** Append the header of a shard's output, its length in front and blanks behind.  QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_plan_head_append(qn_buf *out, const qn_plan_shard *shard, qn_error *err);

#endif
