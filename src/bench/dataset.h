/* SPDX-License-Identifier: Apache-2.0 */
/** @file dataset.h  Files of requests: lines of JSON, traces, conversations of ShareGPT. */
#ifndef QN_BENCH_DATASET_H
#define QN_BENCH_DATASET_H
#include "quern/status.h"

#include "base/buf.h"

enum {
    BENCH_BLOCK_TOKENS = 512, /**< Of a trace's hash id. */
    /** Tokens of a prompt or an answer that a file may ask for. */
    BENCH_LENGTH_MAX = 10000000,
};

/** Forms of a file. */
typedef enum bench_file_form {
    BENCH_FILE_LINES,    /**< A request a line. */
    BENCH_FILE_TRACE,    /**< The same, each with the time it came. */
    BENCH_FILE_SHAREGPT, /**< One list of conversations. */
} bench_file_form;

/** What a prompt is given as. */
typedef enum bench_prompt_form {
    BENCH_PROMPT_TEXT,     /**< A string. */
    BENCH_PROMPT_MESSAGES, /**< A list of messages. */
    BENCH_PROMPT_IDS,      /**< A list of token ids. */
    BENCH_PROMPT_LENGTH,   /**< Only how long it was, and blocks that stand for text. */
} bench_prompt_form;

/** A request of a file. */
typedef struct bench_entry {
    bench_prompt_form form;
    qn_str prompt; /**< JSON as written, borrowed from the file's text; none of PROMPT_LENGTH. */
    qn_str answer; /**< JSON string of SHAREGPT, likewise. */
    double at_s;   /**< After the first of a trace; else NaN. */
    uint64_t first_hash; /**< Of its ids, in the hashes of all. */
    uint32_t n_hashes;   /**< At most what n_input has room for. */
    uint32_t n_input;    /**< Tokens, of PROMPT_LENGTH and PROMPT_IDS; else 0. */
    uint32_t n_output;   /**< 0: not said. */
    uint32_t line;
} bench_entry;

/** All requests of a file.  All-zero is empty. */
typedef struct bench_dataset {
    bench_entry *entries; /**< [n_entries] owned */
    uint64_t n_entries, capacity;
    uint64_t *hashes; /**< [n_hashes] owned */
    uint64_t n_hashes, hashes_capacity;
    uint64_t n_skipped; /**< Conversations of SHAREGPT without a question and an answer. */
} bench_dataset;

/**
 * Read requests.  A byte order mark, blank lines and CRLF are fine; anything else that is not
 * understood is an error.  A line has one of
 *
 *   "prompt": text, or a list of token ids;  "messages": [...];  "ids": [...];
 *   "input_length": tokens, with "hash_ids": [...] or without
 *
 * and may have "output_length", "output_tokens" or "max_tokens"; of a trace "timestamp" in ms, too,
 * which never falls.  Other fields are ignored.  A conversation of ShareGPT has "conversations",
 * a list of {"from", "value"}: the first of "human" or "user" asks, the next one answers.
 *
 * @param[out] out  empty before; bench_dataset_deinit() also after a failure
 * @param text      borrowed as long as @p out is used
 * @param path      names the file in errors
 * @param n_max     entries to read, of the beginning; 0: all
 * Returns  QN_OK; QN_E_FORMAT "PATH: line N: FIELD: SEEN, EXPECTED"; QN_E_NOMEM
 */
QN_MUST_CHECK qn_status bench_dataset_read(bench_dataset *out, bench_file_form form, qn_str text,
                                           const char *path, uint64_t n_max, qn_error *err);
void bench_dataset_deinit(bench_dataset *dataset);
#endif
