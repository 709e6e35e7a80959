/* SPDX-License-Identifier: Apache-2.0 */
/** @file words.h  Sensible English of a given number of tokens, from a small grammar over words
 * that were counted before. */
#ifndef QN_BENCH_WORDS_H
#define QN_BENCH_WORDS_H
#include "tokens.h"

typedef struct bench_words bench_words;

/**
 * Count all words by @p tokens; a few calls where most are one token.
 * Returns  QN_OK; QN_E_INVAL where too few words are one token; what counting returns; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_words_open(bench_words **out, bench_tokens *tokens, qn_error *err);
void bench_words_close(bench_words **words);

/**
 * Append sentences of @p n_tokens (at least 1) as the sum of their words, which is what the
 * tokenizer says too where it splits at blanks; letters, blanks, commas and full stops only, so
 * that they are a JSON string as they are.
 *
 * @param key       what the text depends on ...
 * @param i_text    ... with this: texts of one key begin with other words, the first or the second
 *                  one, as far as there are words (64 times some 250)
 * @param is_begun  it goes on behind a text: begins with a blank
 * Returns  QN_OK; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_words_append(qn_buf *out, const bench_words *words, uint64_t key,
                                           uint64_t i_text, bool is_begun, uint32_t n_tokens,
                                           qn_error *err);
#endif
