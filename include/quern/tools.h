/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file tools.h  Work on checkpoints: make MXFP4 of one, say what one is, measure what it answers
 * and which kernels serve it best.
 *
 * Each function does one long job in the calling thread and hands out one JSON object (qn_tune() a
 * table as CSV), UTF-8 and NUL-terminated, owned by the caller (qn_free), whose members the named
 * document describes.  These
 * declarations may change more often than those of quern.h.
 */
#ifndef QUERN_TOOLS_H
#define QUERN_TOOLS_H

#include "quern/quern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* -------------------------------------------------------------------------------- quantizing -- */

/** What the new config.json says other engines should make of activations. */
typedef enum qn_declared_activations {
    QN_ACTIVATIONS_DEFAULT, /**< MXFP4 for recipe "experts", none for others. */
    QN_ACTIVATIONS_MXFP4,   /**< Rounded to MXFP4 at run time, as AMD's checkpoints say. */
    QN_ACTIVATIONS_NONE,    /**< Weight-only. */
} qn_declared_activations;

/** What becomes of FP8 tensors that the recipe does not quantize. */
typedef enum qn_fp8_rest {
    QN_FP8_TO_BF16, /**< One rounding of code * scale to bf16, as AMD Quark does. */
    QN_FP8_KEEP,    /**< Codes and scales as they are. */
} qn_fp8_rest;

/** How to quantize.  All zero: the defaults. */
typedef struct qn_quantize_options {
    const char *recipe;       /**< "experts", "routed", "mlp" or a JSON file; NULL: "experts". */
    const char *cpu_mask;     /**< As in qn_model_options. */
    qn_progress_fn *progress; /**< Bytes of the source done of those to do; NULL: nobody asks. */
    void *progress_context;   /**< Given to progress. */
    uint32_t n_threads;       /**< 0: one for each CPU granted.  Changes no byte. */
    qn_scale_rule scale;      /**< Rule of the scales. */
    qn_declared_activations activations; /**< Said in config.json; changes no weight. */
    qn_fp8_rest fp8;                     /**< Of an FP8 source. */
    bool quantizes_mtp;                  /**< The MTP layer like the rest, eh_proj included. */
    bool is_dry_run;                     /**< Report sizes and names, write nothing. */
    bool resumes;                        /**< Go on where an earlier call was stopped. */
    bool deletes_source; /**< Remove each source shard once its output is verified. */
} qn_quantize_options;

/**
 * Write the checkpoint @p source (folder, or owner/name in the local Hugging Face cache) as MXFP4
 * to the folder @p target.  A shard gets its final name only when all of it is on disk.
 *
 * @param[out] report  docs/quantize.md; NULL on failure
 * @param options      borrowed during the call; NULL: defaults
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_NOT_FOUND; QN_E_FORMAT naming the tensor, of
 *          NaN and Inf with its index; QN_E_IO naming the file; QN_E_NOMEM; QN_E_CANCELLED
 */
QN_MUST_CHECK QN_API qn_status qn_quantize(char **report, const char *source, const char *target,
                                           const qn_quantize_options *options, qn_error *err);

/* -------------------------------------------------------------------------------- inspecting -- */

/** How to inspect.  All zero: the defaults. */
typedef struct qn_inspect_options {
    qn_progress_fn *progress;  /**< Bytes read with verifies; NULL: nobody wants to know. */
    void *progress_context;    /**< Given to progress. */
    const char *tokenizer_dir; /**< As in qn_model_options. */
    uint32_t n_threads;        /**< 0: one for each CPU granted. */
    bool verifies;             /**< Read every byte: NaN, Inf, scales out of range. */
    bool lists_tensors;        /**< Report each tensor. */
    bool fixes;                /**< Write a corrected config.json beside the old one. */
} qn_inspect_options;

/**
 * Say what a checkpoint is and what is wrong with it.  @p name is a folder, an owner/name in the
 * local Hugging Face cache, or one file: model.safetensors.index.json or *.safetensors.  What is
 * wrong with the checkpoint is in the report; an error is only what leaves nothing to report.
 *
 * @param[out] report  docs/inspect.md; NULL on failure
 * @param options      borrowed during the call; NULL: defaults
 * Returns  QN_OK; QN_E_NOT_FOUND; QN_E_FORMAT for what is no checkpoint at all; QN_E_IO, also where
 *          config.fixed.json is there already and differs; QN_E_NOMEM; QN_E_CANCELLED
 */
QN_MUST_CHECK QN_API qn_status qn_inspect(char **report, const char *name,
                                          const qn_inspect_options *options, qn_error *err);

/* -------------------------------------------------------------------------------- evaluating -- */

/** A checkpoint, and those settings in which two sides of a comparison may differ. */
typedef struct qn_eval_side {
    const char *model;         /**< As in qn_model_open(). */
    const char *device;        /**< As in qn_model_options. */
    const char *device_option; /**< Likewise. */
    qn_compute compute;        /**< Arithmetic. */
    qn_kv_dtype kv_dtype;      /**< Cache rows. */
    int draft_tokens;          /**< As in qn_request. */
    bool no_thinking;          /**< As in qn_chat_options. */
} qn_eval_side;

/** What is being done. */
typedef enum qn_eval_phase {
    QN_EVAL_LOAD,     /**< Bytes of weights. */
    QN_EVAL_PROBLEMS, /**< Problems. */
    QN_EVAL_TEXT,     /**< Tokens of the text. */
} qn_eval_phase;

/** How far it is. */
typedef struct qn_eval_progress {
    qn_eval_phase phase;  /**< What done and total count. */
    uint32_t i_side;      /**< Of which side. */
    uint64_t done;        /**< In this call: what a report had already is not counted. */
    uint64_t total;       /**< ... of so many. */
    uint64_t n_right;     /**< PROBLEMS: answered right by this side, those of the report too. */
    uint64_t spool_bytes; /**< TEXT: room that the first side's logits take on disk. */
} qn_eval_progress;

/** Called before and after each problem and step; false cancels. */
typedef bool qn_eval_progress_fn(void *context, const qn_eval_progress *progress);

/** Looks at the loaded model of a side; an error ends qn_eval() with it. */
typedef qn_status qn_eval_check_fn(void *context, const qn_model *model, qn_error *err);

/** What to measure, and how.  All zero but files: the defaults. */
typedef struct qn_eval_options {
    const char *const *tasks;      /**< [n_tasks] files of problems (docs/quality.md). */
    size_t n_tasks;                /**< 0: no problems. */
    const char *text;              /**< UTF-8 file for perplexity and divergence; NULL: none. */
    const char *report;            /**< JSON lines, one for each answer as it comes; NULL: none. */
    const char *spool_dir;         /**< Where logits wait for the second side; NULL: /var/tmp. */
    const qn_model_options *model; /**< How both are opened; what a side has, it says.  Progress is
                                        not used.  NULL: defaults. */
    const qn_sampling *sampling;   /**< NULL: greedy.  Each problem has a seed of its own, made of
                                        this one. */
    qn_eval_progress_fn *progress; /**< NULL: nobody wants to know. */
    void *progress_context;        /**< Given to progress and check. */
    qn_eval_check_fn *check;       /**< Before a side answers; NULL: any model will do. */
    uint32_t limit;                /**< Problems of each task; 0: all. */
    uint32_t max_tokens;           /**< Of an answer; 0: 32768. */
    uint32_t window_tokens; /**< Text is read in pieces of so many tokens; 0: 512, or the context
                                 where that is less. */
    uint32_t text_tokens;   /**< Of the text, the first so many; 0: all. */
    bool is_effort_high;    /**< As in qn_chat_options. */
    bool resumes;           /**< Go on with the report where it exists. */
} qn_eval_options;

/**
 * Let one or two sides, one after the other, answer the problems and read the text; say how often
 * each was right, and with two whether they differ.
 *
 * @param[out] report  docs/quality.md; NULL on failure
 * @param sides        [n_sides] the first is what the second is measured against
 * @param n_sides      1 or 2
 * @param options      borrowed during the call
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_FORMAT naming file, line and field, or what a
 *          report has of another run; QN_E_NOT_FOUND; QN_E_IO naming the file; QN_E_NOMEM;
 *          QN_E_CANCELLED
 */
QN_MUST_CHECK QN_API qn_status qn_eval(char **report, const qn_eval_side *sides, size_t n_sides,
                                       const qn_eval_options *options, qn_error *err);

/* ------------------------------------------------------------------------------------ timing -- */

enum { QN_BENCH_ROWS_MAX = 4096 /**< Rows of a call that is timed. */ };

/** Which kernels to time, and how.  All zero but rows: the defaults. */
typedef struct qn_bench_kernels_options {
    const uint32_t *rows;          /**< [n_rows] rows of a call, 1 to QN_BENCH_ROWS_MAX; each kernel
                                        is timed with each. */
    size_t n_rows;                 /**< At least 1. */
    const qn_model_options *model; /**< How it is opened, its progress too; use_dummy_weights: only
                                        the config is read, and bf16 taken.  NULL: defaults. */
    const char *expert_weights;    /**< With use_dummy_weights: "bf16", "fp8" or "mxfp4" of the
                                        experts; NULL: "bf16". */
    qn_progress_fn *progress;      /**< Timings done of those to do; NULL: nobody wants to know. */
    void *progress_context;        /**< Given to progress. */
    uint32_t context_tokens;       /**< Positions that attention and its indexer see; 0: 4096, or
                                        the model's where that is less. */
} qn_bench_kernels_options;

/**
 * Time every kernel that serves a model (qn_model_kernels()) with the model's shapes, alone on this
 * machine, against the machine's own limits, measured before: reading memory, and the dot products
 * of the kernel's level in registers.
 *
 * @param[out] report  docs/bench_result.md; NULL on failure
 * @param model        as in qn_model_open()
 * @param options      borrowed during the call
 * Returns  QN_OK; QN_E_INVAL naming the option; what qn_model_open() returns; QN_E_NOMEM;
 *          QN_E_CANCELLED
 */
QN_MUST_CHECK QN_API qn_status qn_bench_kernels(char **report, const char *model,
                                                const qn_bench_kernels_options *options,
                                                qn_error *err);

enum {
    QN_TUNE_ROWS_MAX = 4096, /**< Rows of a step that are measured at most. */
    QN_TUNE_N_ROWS_MAX = 16, /**< Numbers of rows. */
};

/** What to tune, and how.  All zero: the defaults. */
typedef struct qn_tune_options {
    const uint32_t *rows;          /**< [n_rows] rows of a step, powers of two, ascending, 1 to
                                        QN_TUNE_ROWS_MAX. */
    size_t n_rows;                 /**< 0: all there are. */
    const qn_model_options *model; /**< device: the first GPU where it does not name one; tuning:
                                        what is not measured now is taken over from this file;
                                        use_dummy_weights: only the config is read, and what it
                                        declares taken.  NULL: defaults. */
    const char *expert_weights;    /**< With use_dummy_weights: "bf16", "fp8" or "mxfp4" of the
                                        experts; NULL: as the config declares. */
    const char *command;           /**< Goes into the table's notes; NULL: none. */
    qn_progress_fn *progress;      /**< Shapes times rows, done of those to do; NULL: nobody wants
                                        to know. */
    void *progress_context;        /**< Given to progress. */
    bool is_quick;                 /**< Kernels only, cut as they find best, and fewer launches. */
} qn_tune_options;

/**
 * Measure every kernel of a GPU that can serve a shape of the model, for each number of rows; no
 * weight is read.  One with results other than those of the portable kernel does not take part, and
 * is a warning.
 *
 * @param[out] table  docs/tuning.md; NULL on failure
 * @param model       as in qn_model_open()
 * @param options     borrowed during the call; NULL: defaults
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_DEVICE without a GPU; QN_E_FORMAT naming file,
 *          line and field; QN_E_NOT_FOUND; QN_E_IO; QN_E_NOMEM; QN_E_CANCELLED
 */
QN_MUST_CHECK QN_API qn_status qn_tune(char **table, const char *model,
                                       const qn_tune_options *options, qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
