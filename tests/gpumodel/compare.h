/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file compare.h  A model on a GPU held against the same on the CPU, layer by layer.
 *
 * Near ties in a choice would make that a lottery, so the GPU's router and indexer are given the
 * CPU's choices; their own may differ only where the CPU's scores are close.
 */
#ifndef QN_GPUMODEL_COMPARE_H
#define QN_GPUMODEL_COMPARE_H
#include "format/safetensors.h"
#include "model/glm.h"

/** A device that is open, with its kernels. */
typedef struct gm_device {
    qn_gpu *gpu;
    qn_gpu_kernels *kernels;
} gm_device;

/** Open a device by a name of qn_gpu_open(). */
QN_MUST_CHECK qn_status gm_device_open(gm_device *out, const char *name, qn_error *err);
/** Kernels of a GPU that is open, which is taken. */
QN_MUST_CHECK qn_status gm_device_load(gm_device *out, qn_gpu *gpu,
                                       const qn_gpu_module_image *modules, size_t n_modules,
                                       qn_error *err);
void gm_device_close(gm_device *device);

/** What is run on both. */
typedef struct gm_case {
    const char *name;
    const qn_config *config;
    const char *dir;             /**< Of the checkpoint; NULL: dummy weights. */
    const qn_quant_rules *rules; /**< Of those; NULL: bf16. */
    const int32_t *ids;          /**< [n_positions]; NULL: made up. */
    qn_kv_dtype kv_dtype;
    bool is_free; /**< Sums may go by the number of rows: qn_glm_options.is_deterministic is not
                       set. */
    uint32_t scratch_bytes; /**< Of the workspace, so that rows go in turns; 0: as it is. */
    uint32_t n_positions;
    uint32_t n_chunk;   /**< Rows of a pass; a second sequence has some beside them. */
    double layer_bound; /**< Of the difference of the stream after one layer, root mean square
                             relative to that of the row; after n layers sqrt(n) times that. */
} gm_case;

/** What was seen. */
typedef struct gm_outcome {
    double worst_hidden;  /**< Relative difference after the last layer or MTP. */
    double worst_logprob; /**< Of any id, of trunk and MTP layer. */
    double mean_logprob;
    uint32_t n_other_choices; /**< Experts or positions that the GPU would have taken, ... */
    uint32_t n_choices;       /**< ... of so many. */
} gm_outcome;

/**
 * Run trunk and MTP layer on the CPU and the GPU and compare the stream after every layer, the
 * choices and the logits.  Prints what is off, beginning with the first layer.
 */
bool gm_compare(gm_outcome *out, const gm_device *device, const gm_case *c);

/** Are the bits of a row the same whatever rows are beside it, one a pass and n_chunk? */
bool gm_is_independent(const gm_device *device, const gm_case *c);

/** Texts that a model is told token by token. */
typedef struct gm_texts {
    int32_t *ids;          /**< [starts[n_texts]] owned. */
    uint32_t *starts;      /**< [n_texts + 1] owned. */
    uint32_t n_texts;      /**< May be made smaller: the first ones are taken. */
    const float *bf16_off; /**< [starts[n_texts] - n_texts] transformers in bf16 against f32: the
                                |difference of the log-probability of the next id| of all positions
                                but the last of each text; NULL: not known. */
    const uint8_t *bf16_agrees; /**< Likewise: is the most likely id the same? */
    qn_safetensors *file;       /**< Owned, may be NULL. */
} gm_texts;

/** Ids of a golden file (docs/testing.md): those of "ids", or "prompts", each with its "answers".
 */
QN_MUST_CHECK qn_status gm_texts_load(gm_texts *out, const char *path, qn_error *err);
/** One text of n_ids ids, which are copied. */
gm_texts gm_texts_of(const int32_t *ids, uint32_t n_ids);
void gm_texts_deinit(gm_texts *texts);

/** How far two are apart, over all positions that have a next id. */
typedef struct gm_spread {
    double agreement;        /**< Share of positions with the same most likely id. */
    double mean, p999, most; /**< |Difference of the log-probability of the next id|. */
} gm_spread;

/** What a teacher-forced run says. */
typedef struct gm_teacher {
    uint32_t n_positions;
    gm_spread gpu;  /**< The GPU and the CPU in f32. */
    gm_spread bf16; /**< On the same positions, transformers in bf16 and in f32; where the texts do
                         not say, the CPU in bf16, with the GPU's storage of rows, and in f32. */
    double bound;   /**< The GPU may be so many times as far off as bf16: 1.5 of transformers, 3 of
                       the   CPU, which keeps more in f32 (what attention adds up and divides by). */
    double cpu_nll, gpu_nll; /**< Mean of -log-probability of the next id. */
    double cpu_s, gpu_s;     /**< Time of a pass, in the mean. */
} gm_teacher;

/**
 * Log-probabilities of every id of texts on the CPU in f32 and on the GPU.
 * @param c       n_positions: at least those of the longest text; ids are not looked at
 * @param n_rows  of a pass
 */
QN_MUST_CHECK qn_status gm_teach(gm_teacher *out, const gm_device *device, const gm_case *c,
                                 const gm_texts *texts, uint32_t n_rows, qn_error *err);
/** Is the GPU within the bound, in each figure? */
bool gm_is_near(const gm_teacher *teacher);
#endif
