/* SPDX-License-Identifier: Apache-2.0 */
/** @file tokens.h  The tokenizer that prompts are counted by: of a model here, or of the server. */
#ifndef QN_BENCH_TOKENS_H
#define QN_BENCH_TOKENS_H
#include "http.h"

typedef struct bench_tokens bench_tokens;

/**
 * The tokenizer of @p folder; where that is NULL, the one that the server has: /tokenize by the
 * shapes of quern, vLLM and SGLang ({"prompt"}) and of llama.cpp ({"content"}), or
 * /extras/tokenize of llama-cpp-python ({"input"}).
 *
 * @param folder  with tokenizer.json, or owner/name, as other commands take it
 * @param target, model  borrowed until it is closed
 * Returns  QN_OK; QN_E_INVAL where neither is there: names --tokenizer; of a folder as
 *          qn_model_open(); QN_E_IO where no server answers; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_tokens_open(bench_tokens **out, const char *folder,
                                          const bench_target *target, const char *model,
                                          qn_error *err);
void bench_tokens_close(bench_tokens **tokens);

/** "models/glm-nano" or "server: /tokenize": for reports. */
const char *bench_tokens_name(const bench_tokens *tokens);

/** It is here, and counts millions of tokens a second. */
bool bench_tokens_is_local(const bench_tokens *tokens);

/** Tokens of @p text [len], without what stands before every text (BOS). */
QN_MUST_CHECK qn_status bench_tokens_count(uint32_t *n, bench_tokens *tokens, const char *text,
                                           size_t len, qn_error *err);

/**
 * Ids that stand for ordinary text.  Of a tokenizer here: all whose text is that one token again.
 * Else 1,000 to 3,999: behind bytes and control tokens that stand first, before what any
 * vocabulary ends in.
 *
 * @param[out] ids  owned by the caller (free)
 * @param tokens    NULL: none
 */
QN_MUST_CHECK qn_status bench_tokens_ids(int32_t **ids, uint32_t *n_ids, const bench_tokens *tokens,
                                         qn_error *err);
#endif
