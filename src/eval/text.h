/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file text.h  A text read by two sides: how well each predicts it, and how far the second's
 * predictions are from the first's.
 *
 * The text's tokens are cut into windows, each behind the two tokens that begin every prompt.  Each
 * token of the text is predicted from those before it in its window.
 */
#ifndef QN_EVAL_TEXT_H
#define QN_EVAL_TEXT_H
#include "quern/tools.h"

#include "eval/report.h"
#include "eval/stats.h"

/** What the second side differs by, token by token; allocated as large as the text. */
typedef struct qn_divergence {
    double *kl;             /**< [n_tokens] owned: sum of p log(p / q), p of the first side. */
    uint64_t n_same_top;    /**< Tokens where both hold the same token for the likeliest. */
    qn_window_sum *windows; /**< [n_windows] owned; sums of kl. */
} qn_divergence;

/** A text, and what came of it.  All-zero is closed: no text. */
typedef struct qn_text {
    int32_t *ids; /**< [n_tokens] owned. */
    size_t n_tokens;
    size_t n_windows;
    int32_t *prefix; /**< [n_prefix] owned. */
    size_t n_prefix;
    uint32_t window_tokens; /**< Tokens of the text in a window. */
    uint32_t n_vocab;
    qn_window_sum *windows[QN_SIDES_MAX]; /**< [n_windows] owned: -log p of each window's tokens. */
    double seconds[QN_SIDES_MAX];
    qn_divergence divergence; /**< Of two sides. */
    int spool_fd;             /**< Logits of the first side, f32; -1: of one side only. */
    uint64_t spool_bytes;
} qn_text;

/**
 * Read and cut the file.
 *
 * @param model  of the first side, opened without weights or with them
 * Returns  QN_OK; statuses of qn_file_read(); QN_E_FORMAT for bytes that are not UTF-8, or no
 * token; QN_E_INVAL naming the option; QN_E_IO where there is no room for the logits of two sides;
 * QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_text_open(qn_text *text, const qn_model *model,
                                     const qn_eval_options *options, size_t n_sides, qn_error *err);

/** Would this model read the same tokens?  QN_E_FORMAT where not. */
QN_MUST_CHECK qn_status qn_text_check(const qn_text *text, const qn_model *model,
                                      const qn_eval_options *options, qn_error *err);

/**
 * Let a side read it: the first before the second.
 *
 * @param goes_on  asked after each step with the number of tokens read; false cancels
 * Returns  QN_OK; QN_E_FORMAT where a prediction is no number; QN_E_IO; QN_E_NOMEM; QN_E_CANCELLED
 */
QN_MUST_CHECK qn_status qn_text_read(qn_text *text, qn_model *model, uint32_t i_side,
                                     bool (*goes_on)(void *context, uint64_t n_done), void *context,
                                     qn_error *err);

void qn_text_close(qn_text *text);
#endif
