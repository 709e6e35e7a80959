/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gpu_ops.h  The operations of the model on a GPU: kernels that are loaded, and one function
 * each that queues a launch.  Arguments are those of kernels/gpu/args.h.
 *
 * A launch depends on its arguments alone and is not waited for; what fails is kept by the stream
 * (device/gpu.h).  None allocates, so that all of them may be captured in a graph.
 */
#ifndef QN_KERNELS_GPU_OPS_H
#define QN_KERNELS_GPU_OPS_H
#include "device/gpu.h"
#include "kernels/gpu/args.h"
#include "kernels/gpu/modules.h"

/** Opaque: the kernels of this build that a device can run. */
typedef struct qn_gpu_kernels qn_gpu_kernels;

/**
 * Load what serves the device's architecture.  All portable kernels have to be there; others that
 * this architecture has no code of are left out, and no variant that needs one is chosen.
 *
 * @param modules  [n_modules] qn_gpu_modules, or those of a test
 * Returns  QN_OK; QN_E_DEVICE: no code for the architecture (built without clang-22: said so), a
 *          portable kernel is missing (it is named), or the driver fails or refuses an image;
 *          QN_E_FORMAT: an image does not unpack; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_gpu_kernels_open(qn_gpu_kernels **out, qn_gpu *gpu,
                                            const qn_gpu_module_image *modules, size_t n_modules,
                                            qn_error *err);
/** Nothing of them runs any more; sets *kernels to NULL, which it accepts. */
void qn_gpu_kernels_close(qn_gpu_kernels **kernels);
/** Is a kernel there?  @param i_kernel  QN_GPU_KERNEL_... of kernels/gpu/list.h */
bool qn_gpu_kernels_has(const qn_gpu_kernels *kernels, uint32_t i_kernel);
/** Of the device that it was opened for; borrowed. */
const qn_gpu_info *qn_gpu_kernels_info(const qn_gpu_kernels *kernels);

/** Opaque: measured choices (gpu_tuning.h). */
typedef struct qn_gpu_tuning qn_gpu_tuning;
/**
 * From now on variants are chosen by this table, where it has the shape.  Not while anything that
 * was made for another choice, a workspace or a graph, is in use.
 * @param tuning  taken over, closed with the kernels; NULL: none
 */
void qn_gpu_kernels_tune(qn_gpu_kernels *kernels, qn_gpu_tuning *tuning);
/** The table in use; borrowed, NULL: none. */
const qn_gpu_tuning *qn_gpu_kernels_tuning(const qn_gpu_kernels *kernels);

/** Why a variant was chosen. */
typedef enum qn_gpu_source {
    QN_GPU_TUNED,    /**< The device's table says so. */
    QN_GPU_DEFAULT,  /**< A rule, which had a variant made for the architecture. */
    QN_GPU_FALLBACK, /**< The portable one, by a table, too; or not the one that the table names. */
} qn_gpu_source;

/** What is chosen for a shape. */
typedef struct qn_gpu_choice {
    uint32_t i_variant; /**< Place in the operation's list. */
    uint32_t n_strips;  /**< As in qn_gpu_tuning_row, of products. */
    uint32_t n_splits;
    qn_gpu_source source;
} qn_gpu_choice;

/** Where operations are queued. */
typedef struct qn_gpu_ops {
    const qn_gpu_kernels *kernels;
    qn_gpu_stream *stream;
} qn_gpu_ops;

/** Queue kernel @p i_kernel with a struct of its arguments: what the functions below end in. */
void qn_gpu_ops_launch(const qn_gpu_ops *ops, uint32_t i_kernel, const uint32_t grid[3],
                       uint32_t shared_bytes, const void *args, size_t args_bytes);

/**
 * The same as a dependent launch (device/gpu.h): of kernels that call qn_await_earlier().
 * @param n_cluster  blocks of a cluster, 1 to 8; 0: none
 */
void qn_gpu_ops_launch_dependent(const qn_gpu_ops *ops, uint32_t i_kernel, const uint32_t grid[3],
                                 uint32_t n_cluster, uint32_t shared_bytes, const void *args,
                                 size_t args_bytes);

void qn_gpu_embed(const qn_gpu_ops *ops, const qn_gpu_embed_args *args);
void qn_gpu_rmsnorm(const qn_gpu_ops *ops, const qn_gpu_rmsnorm_args *args);
void qn_gpu_rope_angles(const qn_gpu_ops *ops, const qn_gpu_rope_angles_args *args);
void qn_gpu_rope(const qn_gpu_ops *ops, const qn_gpu_rope_args *args);
void qn_gpu_kv_rows(const qn_gpu_ops *ops, const qn_gpu_kv_rows_args *args);
void qn_gpu_index_rows(const qn_gpu_ops *ops, const qn_gpu_index_rows_args *args);
void qn_gpu_gather(const qn_gpu_ops *ops, const qn_gpu_gather_args *args);
void qn_gpu_page_ends(const qn_gpu_ops *ops, const qn_gpu_page_ends_args *args);

/**
 * One way to make index scores.  The check and the bench walk all of them.  Which one is chosen
 * does not depend on the rows of a launch, and where it cuts a launch no row's bits do.
 */
typedef struct qn_gpu_index_scores_variant {
    const char *name; /**< "sm90_mma", shown by bench and logs. */
    bool (*supports)(const qn_gpu_kernels *kernels, const qn_gpu_index_scores_args *args);
    void (*launch)(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args);
} qn_gpu_index_scores_variant;
extern const qn_gpu_index_scores_variant qn_gpu_index_scores_variants[];
extern const uint32_t qn_gpu_n_index_scores_variants;
/**
 * The variant that is used for a shape: pure.  One always is: the portable one, with the dimensions
 * that kernels/gpu/args_attention.h allows.
 */
qn_gpu_choice qn_gpu_index_scores_choose(const qn_gpu_kernels *kernels,
                                         const qn_gpu_index_scores_args *args);
void qn_gpu_index_scores(const qn_gpu_ops *ops, const qn_gpu_index_scores_args *args);
void qn_gpu_topk(const qn_gpu_ops *ops, const qn_gpu_topk_args *args);

/**
 * One way to attend.  Variants of one name before "/" give the same bits; which of these is chosen
 * depends on the rows of a launch, which name does not.
 */
typedef struct qn_gpu_attend_variant {
    const char *name; /**< "sm90_mma64/whole": head tiles of 64, all splits of a row in a block. */
    bool (*supports)(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args);
    /** Attention and the join of its splits. */
    void (*launch)(const qn_gpu_ops *ops, const qn_gpu_attend_args *args);
} qn_gpu_attend_variant;
extern const qn_gpu_attend_variant qn_gpu_attend_variants[];
extern const uint32_t qn_gpu_n_attend_variants;
/**
 * The variant that is used for a shape: pure.  One always is: the portable one, with the dimensions
 * that kernels/gpu/args_attention.h allows.
 */
qn_gpu_choice qn_gpu_attend_choose(const qn_gpu_kernels *kernels, const qn_gpu_attend_args *args);
void qn_gpu_attend(const qn_gpu_ops *ops, const qn_gpu_attend_args *args);
/**
 * Floats of args->partial_u that the chosen variants need with up to n_rows rows (partial_m:
 * 2 * that / latent_dim): by kv, n_rows, n_heads and n_splits alone.
 */
uint64_t qn_gpu_attend_partial_floats(const qn_gpu_kernels *kernels,
                                      const qn_gpu_attend_args *args);

void qn_gpu_router(const qn_gpu_ops *ops, const qn_gpu_router_args *args);
void qn_gpu_group(const qn_gpu_ops *ops, const qn_gpu_group_args *args);
void qn_gpu_combine(const qn_gpu_ops *ops, const qn_gpu_combine_args *args);
void qn_gpu_sample(const qn_gpu_ops *ops, const qn_gpu_sample_args *args);
void qn_gpu_logsumexp(const qn_gpu_ops *ops, const qn_gpu_logsumexp_args *args);

/** Steps of many sequences (kernels/gpu/args_step.h); their passes are model/gpu_glm.h. */
void qn_gpu_step_pages(const qn_gpu_ops *ops, const qn_gpu_step_pages_args *args);
void qn_gpu_step_rows(const qn_gpu_ops *ops, const qn_gpu_step_rows_args *args);
void qn_gpu_step_chain(const qn_gpu_ops *ops, const qn_gpu_step_chain_args *args);
void qn_gpu_step_follow(const qn_gpu_ops *ops, const qn_gpu_step_follow_args *args);
void qn_gpu_step_keep(const qn_gpu_ops *ops, const qn_gpu_step_keep_args *args);
void qn_gpu_adjust(const qn_gpu_ops *ops, const qn_gpu_adjust_args *args);
void qn_gpu_step_settle(const qn_gpu_ops *ops, const qn_gpu_step_settle_args *args);

/** Bytes of the tiles and of the scales of one matrix, or pair; multiples of 256. */
uint64_t qn_gpu_weight_data_bytes(uint32_t kind, uint32_t n_out, uint32_t n_in, bool is_pair);
uint64_t qn_gpu_weight_scale_bytes(uint32_t kind, uint32_t n_out, uint32_t n_in, bool is_pair);
/** QN_GPU_W_ that holds weights of a qn_weight_kind; f32 is rounded to bf16. */
uint32_t qn_gpu_weight_kind(uint32_t weight_kind);
void qn_gpu_pack(const qn_gpu_ops *ops, const qn_gpu_pack_args *args);
/** Make up what a checkpoint would have; args->n is not 0. */
void qn_gpu_dummy(const qn_gpu_ops *ops, const qn_gpu_dummy_args *args);

/** The shape that decides which variant of a product runs. */
typedef struct qn_gpu_matmul_shape {
    uint32_t kind, n_out, n_in, is_pair;
    uint32_t n_groups;
    uint32_t n_rows;             /**< As in qn_gpu_matmul_args. */
    bool is_grouped;             /**< By first_of. */
    bool is_deterministic;       /**< The same variant and order of sums whatever n_rows. */
    uint32_t n_strips, n_splits; /**< As in qn_gpu_choice; a choice does not read them. */
} qn_gpu_matmul_shape;

/**
 * One way to make products.  The check and the bench walk all of them.
 *
 * "NAME/early" is NAME, and the same bits, as a dependent launch that asks for weights before the
 * kernel in front of it has ended, as sm90_few always does: that must not be one that writes them.
 */
typedef struct qn_gpu_matmul_variant {
    const char *name; /**< "sm90_mma", shown by bench and logs. */
    bool (*supports)(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape);
    /** Room that qn_gpu_matmul_args.partial needs. */
    uint64_t (*partial_bytes)(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape);
    void (*launch)(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args,
                   const qn_gpu_matmul_shape *shape);
    bool has_plans; /**< It heeds n_strips and n_splits of the shape. */
} qn_gpu_matmul_variant;
extern const qn_gpu_matmul_variant qn_gpu_matmul_variants[];
extern const uint32_t qn_gpu_n_matmul_variants;

/** The variant that is used for a shape: pure.  One always is: the portable one. */
qn_gpu_choice qn_gpu_matmul_choose(const qn_gpu_kernels *kernels, const qn_gpu_matmul_shape *shape);
/** The most that any chosen variant of this shape needs with up to n_rows rows. */
uint64_t qn_gpu_matmul_partial_bytes(const qn_gpu_kernels *kernels,
                                     const qn_gpu_matmul_shape *shape);
/** Queue the product by the variant that is chosen. */
void qn_gpu_matmul(const qn_gpu_ops *ops, const qn_gpu_matmul_args *args, bool is_deterministic);
#endif
