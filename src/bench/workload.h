/* SPDX-License-Identifier: Apache-2.0 */
/** @file workload.h  What is asked: prompts with exact numbers of tokens, made before the clock
 * starts, or read from files. */
#ifndef QN_BENCH_WORKLOAD_H
#define QN_BENCH_WORKLOAD_H
#include "client.h"
#include "tokens.h"

/** Kinds of workload. */
typedef enum bench_kind {
    BENCH_WAFER,         /**< 12,000 shared and 8,000 of its own in, 1,000 out. */
    BENCH_SINGLE_STREAM, /**< 10,000 in, 1,500 out, one at a time. */
    BENCH_RANDOM,
    BENCH_PREFIX, /**< Groups that share a prefix (prefix_repetition, generated-shared-prefix). */
    BENCH_MULTI_TURN, /**< Conversations whose history grows by what the server answered. */
    BENCH_SHAREGPT,
    BENCH_CUSTOM, /**< JSON lines: {"prompt" or "messages", "output_tokens"?}. */
    BENCH_TRACE,  /**< JSON lines with "timestamp" (ms), "input_length", "output_length" and
                       "hash_ids" (Mooncake's form), or with prompts. */
} bench_kind;

/** What range-ratio R means for a length L. */
typedef enum bench_range {
    BENCH_RANGE_AROUND, /**< vLLM: L (1 - R) to L (1 + R); 0 is exact. */
    BENCH_RANGE_BELOW,  /**< SGLang: L R to L; 1 is exact. */
} bench_range;

typedef struct bench_workload_options {
    bench_kind kind;
    bench_api api;
    const char *model;   /**< As the server knows it. */
    const char *file;    /**< Of sharegpt, custom, trace. */
    uint64_t n_requests; /**< All turns counted; 0: what the file has, else an error. */
    bool takes_fewer;    /**< A file that has not so many is no error. */
    /** Tokens; n_prefix + n_input is the prompt.  Of sharegpt and custom n_output is what the file
     * does not say; of sharegpt 0: as long as its answers. */
    uint32_t n_input, n_output, n_prefix;
    uint32_t n_groups;  /**< Of prefixes; 0: one. */
    uint32_t n_turns;   /**< Of multi-turn: n_input is what the user says in each. */
    double scale;       /**< All lengths by it; 1 leaves them. */
    double range_ratio; /**< Of n_input and n_output; the prefix keeps its length. */
    bench_range range;
    bool sends_ids; /**< Prompts are random ids, not words. */
    bool ignores_eos;
    uint64_t seed;
    uint64_t salt;        /**< Of the run: own parts of no two runs begin alike. */
    uint64_t shared_salt; /**< The same of what prompts share: a run and its warm-up have one. */
    uint32_t n_template;  /**< Tokens that the server adds to a prompt (chat format, BOS): taken off
                               the own part. */
    /** JSON object of members for every body, in place of ours; NULL: none.  Not "prompt",
     * "messages", "stream"; a "max_tokens" or "max_completion_tokens" holds for all requests. */
    const char *extra;
} bench_workload_options;

typedef struct bench_workload bench_workload;

/** What the prompts are by construction; for reports. */
typedef struct bench_made {
    uint64_t n_requests, n_conversations;
    uint64_t n_input, n_shared, n_output; /**< Sums of tokens; of later turns as they will be if
                                               answers have their full length. */
    uint64_t n_unknown; /**< Requests whose n_input the server's chat format decides: 0 in the sum
                             (messages of a file). */
    uint64_t n_skipped; /**< Conversations of sharegpt that were too short or too long. */
    uint32_t min_input, max_input, min_output, max_output;
    /** Asked for, after the scale; 0: the file decides. */
    uint32_t prefix_tokens, input_tokens, output_tokens;
    uint32_t n_groups; /**< Prompts of one group share prefix_tokens. */
    double scale;      /**< All lengths were multiplied by it, then rounded. */
    double hit_rate;   /**< n_shared / n_input: once the shared parts are warm. */
    bool has_times;    /**< The file says when. */
} bench_made;

/**
 * Make all prompts.  Of the chat API each is one message of a user with the shared part at its
 * beginning: what the server's format puts before it is the same for all, so the cache has it too.
 * Lengths, groups and their order depend on the seed alone, texts on the salt
 * too.
 *
 * @param options   borrowed during the call
 * @param tokens    borrowed during the call; NULL is enough for ids without a tokenizer
 * @param progress  called with the share that is made; may end it by returning false; NULL: none
 * Returns  QN_OK; QN_E_INVAL naming the option; QN_E_FORMAT naming file, line and field; QN_E_IO;
 *          QN_E_CANCELLED; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_workload_open(bench_workload **out,
                                            const bench_workload_options *options,
                                            bench_tokens *tokens,
                                            bool (*progress)(void *context, double share),
                                            void *context, qn_error *err);
void bench_workload_close(bench_workload **workload);

const bench_made *bench_workload_made(const bench_workload *workload);

/** Requests that fill the cache with the shared parts, one for each, of one token of output: sent
 * before the clock starts.  Behind the shared part goes a text that nothing else has.  None of a
 * trace, whose cache fills as it goes, nor of other files. */
uint64_t bench_workload_n_warm(const bench_workload *workload);
void bench_workload_warm(const bench_workload *workload, uint64_t i, bench_call *call);

/** First request of conversation @p i (of others than multi-turn: request i), and when the file
 * says it came (NaN: it does not), seconds after the first.  Bodies are borrowed until the workload
 * is closed.  Returns  QN_OK; QN_E_NOMEM */
QN_MUST_CHECK qn_status bench_workload_first(bench_workload *workload, uint64_t i, bench_call *call,
                                             double *at_s);

/** The next turn after the answer in @p record, with all that was said before; its body is borrowed
 * until the next call for this conversation.  n_prompt is 0: how the server reads its own answer is
 * not known before.  False: that was the last, or it failed and has no answer to go on from, or
 * there is no memory. */
bool bench_workload_after(bench_workload *workload, const bench_record *record, bench_call *call);
#endif
