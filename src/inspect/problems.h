/* SPDX-License-Identifier: Apache-2.0 */
/** @file problems.h  What is wrong with a checkpoint: codes, severities, a bounded list. */
#ifndef QN_INSPECT_PROBLEMS_H
#define QN_INSPECT_PROBLEMS_H
#include "quern/status.h"

#include "base/str.h"

/**
 * Each kind of problem; docs/inspect.md says what each means.  An error is what keeps quern, or
 * SGLang, vLLM or ATOM as they are now, from loading the checkpoint, or makes what it computes no
 * numbers; a warning is everything else.  problems.c says which is which.  A report has errors
 * first, and each in this order.
 */
typedef enum qn_problem_code {
    QN_PROBLEM_CONFIG_MISSING,
    QN_PROBLEM_CONFIG_BROKEN,
    QN_PROBLEM_CONFIG_INVALID,
    QN_PROBLEM_ARCHITECTURE,
    QN_PROBLEM_GENERATION_CONFIG,
    QN_PROBLEM_WEIGHTS_MISSING,
    QN_PROBLEM_FORMAT_GGUF,
    QN_PROBLEM_FORMAT_NVFP4,
    QN_PROBLEM_FORMAT_COMPRESSED_TENSORS,
    QN_PROBLEM_FORMAT_GPTQ,
    QN_PROBLEM_FORMAT_AWQ,
    QN_PROBLEM_FORMAT_MXFP6,
    QN_PROBLEM_FORMAT_MXFP8,
    QN_PROBLEM_FORMAT_GPT_OSS,
    QN_PROBLEM_FORMAT_OTHER,
    QN_PROBLEM_EXPERTS_FUSED,
    QN_PROBLEM_INDEX_BROKEN,
    QN_PROBLEM_INDEX_ENTRY,
    QN_PROBLEM_SHARD_MISSING,
    QN_PROBLEM_SHARD_UNREADABLE,
    QN_PROBLEM_NOT_FETCHED,
    QN_PROBLEM_SHARD_TRUNCATED,
    QN_PROBLEM_SHARD_TRAILING,
    QN_PROBLEM_HEADER_BROKEN,
    QN_PROBLEM_HEADER_ENTRY,
    QN_PROBLEM_OFFSETS,
    QN_PROBLEM_INDEX_TENSOR_MISSING,
    QN_PROBLEM_INDEX_LACKS_TENSOR,
    QN_PROBLEM_INDEX_WRONG_SHARD,
    QN_PROBLEM_TENSOR_DUPLICATE,
    QN_PROBLEM_TENSOR_UNKNOWN,
    QN_PROBLEM_TENSOR_MISSING,
    QN_PROBLEM_TENSOR_SHAPE,
    QN_PROBLEM_TENSOR_DTYPE,
    QN_PROBLEM_PACKING,
    QN_PROBLEM_SCALE_MISSING,
    QN_PROBLEM_SCALE_SHAPE,
    QN_PROBLEM_SCALE_DTYPE,
    QN_PROBLEM_SCALE_ALONE,
    QN_PROBLEM_MTP_UNDECLARED,
    QN_PROBLEM_MTP_INCOMPLETE,
    QN_PROBLEM_WEIGHT_NOT_FINITE,
    QN_PROBLEM_SCALE_NAN,
    QN_PROBLEM_SCALE_RANGE,
    QN_PROBLEM_TOKENIZER_MISSING,
    QN_PROBLEM_TOKENIZER_BROKEN,
    QN_PROBLEM_TOKENIZER_SIZE,
    QN_PROBLEM_STOP_ID,
    QN_PROBLEM_SGLANG,
    QN_PROBLEM_VLLM,
    QN_PROBLEM_ATOM,
    QN_PROBLEM_WEIGHTS_ZERO,
    QN_PROBLEM_SPECIAL_TOKEN,
    QN_PROBLEM_STOP_IDS,
    QN_PROBLEM_TOKENIZER_SMALL,
    QN_PROBLEM_MTP_MISSING,
    QN_PROBLEM_RMS_EPS,
    QN_PROBLEM_ROPE_THETA,
    QN_PROBLEM_SHARD_UNUSED,
    QN_PROBLEM_QUANT_UNDECLARED,
    QN_PROBLEM_QUANT_DIFFERS,
    QN_PROBLEM_EXCLUDE_BROKEN,
    QN_PROBLEM_EXCLUDE_NOTHING,
    QN_PROBLEM_EXCLUDED_QUANTIZED,
    QN_PROBLEM_NOT_EXCLUDED,
    QN_PROBLEM_SGLANG_KEYS,
    QN_PROBLEM_SGLANG_WEIGHT_ONLY,
    QN_PROBLEM_SGLANG_OLD,
    QN_PROBLEM_VLLM_OLD,
    QN_PROBLEM_SCALE_NAME,
    QN_PROBLEM_FP8_SCALE_NAME,
    QN_N_PROBLEMS,
} qn_problem_code;

/** "tensor-missing", ...: stable. */
const char *qn_problem_name(qn_problem_code code);
bool qn_problem_is_error(qn_problem_code code);

enum { QN_PROBLEMS_KEPT = 16 /**< Of one code; the others are counted. */ };

/** One problem. */
typedef struct qn_problem {
    qn_problem_code code;
    char *tensor; /**< Owned; NULL: of no tensor. */
    char *file;   /**< Owned; NULL: of no file. */
    char *message;
} qn_problem;

/** Problems in the order in which they were found.  All-zero is empty. */
typedef struct qn_problems {
    qn_problem *items; /**< Owned. */
    size_t n_items;
    uint64_t n_of[QN_N_PROBLEMS]; /**< Those that are not kept included. */
    bool has_lost;                /**< One found no memory: the list is not to be used. */
} qn_problems;

/**
 * Add a problem.  @p tensor may be empty and @p file NULL.  A failed allocation is remembered in
 * has_lost: whoever opened the list looks there once, at the end.
 */
QN_PRINTF(5, 6)
void qn_problems_add(qn_problems *list, qn_problem_code code, qn_str tensor, const char *file,
                     const char *format, ...);
/** The same of an error's text, without the "FILE: tensor NAME: " that it begins with. */
void qn_problems_add_error(qn_problems *list, qn_problem_code code, qn_str tensor, const char *file,
                           const char *text);
/** Move what is in @p from behind what is in @p list; @p from is empty afterwards. */
void qn_problems_move(qn_problems *list, qn_problems *from);
/** Add a problem where a file that could not be understood is a pointer of Git LFS or a web page:
 * true, and nothing more is to be said of it. */
bool qn_problems_add_instead(qn_problems *list, const char *path);
/** Number of errors, or of warnings. */
uint64_t qn_problems_count(const qn_problems *list, bool errors);
/** Free what is owned; all zero afterwards. */
void qn_problems_deinit(qn_problems *list);
#endif
