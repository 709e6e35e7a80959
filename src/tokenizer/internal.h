/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  Tables of an open tokenizer; shared by the files of this folder. */
#ifndef QN_TOKENIZER_INTERNAL_H
#define QN_TOKENIZER_INTERNAL_H
#include "tokenizer/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/** One id. */
typedef struct qn_token {
    uint32_t offset; /**< Of its bytes in qn_tokenizer.bytes. */
    uint32_t len;    /**< 0: no token has this id. */
    bool is_added;   /**< Matched in text before the split. */
    bool is_special; /**< Dropped by skip_special_tokens. */
    bool is_late;    /**< "normalized": matched after the other added tokens. */
    bool is_raw;     /**< Has characters outside the byte-level alphabet: no word is it. */
} qn_token;

/** Left and right neighbour that become one token; in order of rank. */
typedef struct qn_merge {
    int32_t left, right, result;
} qn_merge;

struct qn_tokenizer {
    qn_token *tokens; /* [n_tokens] by id, owned */
    uint32_t n_tokens;
    char *bytes;      /* of all tokens, owned */
    qn_merge *merges; /* [n_merges] by rank, owned */
    uint32_t n_merges;
    uint32_t *merge_slots; /* hash of (left, right) to rank + 1, owned */
    uint32_t merge_mask;   /* number of slots - 1, a power of two minus one */
    int32_t *word_slots;   /* hash of bytes to id + 1, for ignore_merges; owned or NULL */
    uint32_t word_mask;
    int32_t byte_ids[256]; /* token of each single byte */
    int32_t *added;        /* ids of added tokens, longest first; owned */
    uint32_t n_added;
    bool starts_added[256]; /* does an added token begin with this byte? */
    pcre2_code *split;      /* owned */
    bool ignore_merges;     /* a word that is a token is taken whole */
};

/** Growing scratch of one encode call. */
typedef struct qn_bpe {
    struct qn_symbol *symbols;       /* [capacity] owned */
    struct qn_candidate *candidates; /* [3 capacity] owned; of the word, in the order they came */
    uint32_t *heap;                  /* [3 capacity] owned; candidates that begin runs */
    uint32_t *tails;                 /* [n_tails] owned; the last candidate of a run, by its rank */
    size_t capacity;
    size_t n_candidates;
    size_t n_heap;
    uint32_t n_tails; /* a power of two */
} qn_bpe;

/** Append the ids of one word (bytes of one piece of the split). */
QN_MUST_CHECK qn_status qn_bpe_encode(qn_bpe *bpe, const qn_tokenizer *tokenizer, qn_str word,
                                      qn_ids *out, qn_error *err);
void qn_bpe_deinit(qn_bpe *bpe);

/** Rank of a pair of neighbours, -1 where they do not merge. */
int64_t qn_tokenizer_find_merge(const qn_tokenizer *tokenizer, int32_t left, int32_t right);
/** Fill merge_slots from merges; QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_tokenizer_index_merges(qn_tokenizer *tokenizer, qn_error *err);
/** Fill word_slots from tokens; QN_E_NOMEM. */
QN_MUST_CHECK qn_status qn_tokenizer_index_words(qn_tokenizer *tokenizer, qn_error *err);
/** Id of the token with exactly these bytes, -1 where there is none (needs word_slots). */
int32_t qn_tokenizer_find_word(const qn_tokenizer *tokenizer, qn_str word);

/**
 * Compile a split pattern so that it means to PCRE2 what it means to Hugging Face's engine.
 * @p pattern ends in a NUL.  Returns  QN_OK; QN_E_FORMAT, also for constructs that would differ
 */
QN_MUST_CHECK qn_status qn_tokenizer_compile_pattern(pcre2_code **out, qn_str pattern,
                                                     const char *what, qn_error *err);
#endif
