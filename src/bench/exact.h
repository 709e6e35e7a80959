/* SPDX-License-Identifier: Apache-2.0 */
/** @file exact.h  Texts of exactly so many tokens: words that are counted again as a whole, or ids.
 */
#ifndef QN_BENCH_EXACT_H
#define QN_BENCH_EXACT_H
#include "tokens.h"

typedef struct bench_exact bench_exact;

/** Texts of one use: those of two uses have nothing to do with each other. */
typedef enum bench_exact_use {
    BENCH_TEXT_SHARED,
    BENCH_TEXT_OWN,
    BENCH_TEXT_WARM,
} bench_exact_use;

/**
 * @param tokens     borrowed until it is closed; NULL only with @p sends_ids
 * @param sends_ids  texts are ids with commas between them, for a JSON list
 * @param seed, salt what all texts depend on
 * @param shared_salt  instead of salt for BENCH_TEXT_SHARED
 */
QN_MUST_CHECK qn_status bench_exact_open(bench_exact **out, bench_tokens *tokens, bool sends_ids,
                                         uint64_t seed, uint64_t salt, uint64_t shared_salt,
                                         qn_error *err);
void bench_exact_close(bench_exact **exact);

/**
 * Append a text of exactly @p n_tokens (at least 1).  A tokenizer that is here counts every text; a
 * server's counts the first sixteen and each sixteenth, and every one once a sum of words was
 * wrong.
 *
 * @param i_text    of its use: texts differ from their beginning on, as bench_words_append() has it
 * @param is_begun  it goes on behind another: with a blank, or a comma
 * Returns  QN_OK; QN_E_INVAL where no text of this length was found; QN_E_IO; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_exact_append(qn_buf *out, bench_exact *exact, bench_exact_use use,
                                           uint64_t i_text, bool is_begun, uint32_t n_tokens,
                                           qn_error *err);

/**
 * Are texts that were put together what their sum says?  By the rule above: not all are counted.
 * Returns  QN_OK; QN_E_INVAL where they are not; QN_E_IO; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_exact_check(bench_exact *exact, qn_str joined, uint32_t n_tokens,
                                          qn_error *err);
#endif
