/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file args_step.h  Steps of many sequences: rows of the passes are made of what the device knows
 * of each sequence, and what was drawn changes that, so that nobody waits for the host.
 *
 * A pass's rows are named by places: i_seq | j << QN_GPU_PLACE_BITS is row j of sequence i_seq of
 * the step, QN_GPU_PLACE_NONE is padding.  In the trunk's pass row j is id j of a prompt's chunk,
 * or the last token (j = 0) and the drafts behind it; in a chain's pass, whose rows have j 0, it is
 * the last token or the draft before.  Rows of a sequence that failed, or beyond what it has,
 * become padding.
 */
#ifndef QN_KERNELS_GPU_ARGS_STEP_H
#define QN_KERNELS_GPU_ARGS_STEP_H
#include "kernels/gpu/args_choice.h"

enum {
    QN_GPU_STEP_TOKENS = 9,    /**< That a sequence draws in a step, at most. */
    QN_GPU_SLOT_STOPS = 32,    /**< Stop ids of a sequence. */
    QN_GPU_SLOT_BIASES = 1024, /**< Biases of a sequence. */
    QN_GPU_ADJUST_PART = 8192, /**< Ids of a block of adjust. */
    QN_GPU_PLACE_BITS = 12,    /**< Of i_seq. */
    QN_GPU_NOT_PINNED = 255,   /**< n_forced: drafts are accepted that are right. */
};
#define QN_GPU_PLACE_NONE 0xffffffffU

/** What the device knows of a slot's sequence.  A begin writes all of it. */
typedef struct qn_gpu_slot {
    uint64_t seed;
    float temperature, top_p, min_p;
    uint32_t top_k;
    uint32_t n_stop_ids;
    uint32_t n_computed; /**< By the trunk: positions of tokens that are the sequence's. */
    uint32_t n_kept;     /**< Rows of its last step that are the sequence's: up to n_computed. */
    uint32_t is_failed;
    int32_t last_token;    /**< Drawn, and not computed yet. */
    uint32_t n_prompt;     /**< Positions of the prompt: those behind are the answer's. */
    uint32_t min_tokens;   /**< Stop ids are ruled out in an answer of fewer. */
    uint32_t n_biases;     /**< At most QN_GPU_SLOT_BIASES. */
    uint32_t is_penalised; /**< One of the following is not what changes nothing. */
    float repetition_penalty, presence_penalty, frequency_penalty;
    int32_t stop_ids[QN_GPU_SLOT_STOPS];
} qn_gpu_slot;
_Static_assert(sizeof(qn_gpu_slot) == 200, "host and device agree");

/** include/quern/quern.h, qn_logit_bias. */
typedef struct qn_gpu_bias {
    int32_t token;
    float bias;
} qn_gpu_bias;

/** One sequence of a step. */
typedef struct qn_gpu_step_seq {
    uint32_t slot;
    uint32_t n_rows;      /**< Of the trunk. */
    uint32_t n_drafts;    /**< Asked for; 0 of a prompt. */
    uint32_t i_chain;     /**< Place among those that draft. */
    uint32_t first_logit; /**< Of its rows with logits, among all. */
    uint32_t n_forced;    /**< Drafts that are taken unseen; or QN_GPU_NOT_PINNED. */
    uint32_t is_prompt;
    uint32_t is_drawing;
} qn_gpu_step_seq;
_Static_assert(sizeof(qn_gpu_step_seq) == 32, "host and device agree");

/** What became of one. */
typedef struct qn_gpu_step_result {
    uint32_t n_tokens, n_accepted, n_complete;
    uint32_t is_stopped, is_failed;
    int32_t tokens[QN_GPU_STEP_TOKENS];
} qn_gpu_step_result;
_Static_assert(sizeof(qn_gpu_step_result) == 56, "host and device agree");

/** Entry i_page of a slot's page table becomes page. */
typedef struct qn_gpu_page_entry {
    uint32_t slot, i_page;
    int32_t page;
} qn_gpu_page_entry;

/** Entries stand at different places of the tables. */
typedef struct qn_gpu_step_pages_args {
    int32_t *page_tables;             /**< [n_slots][n_table_pages] */
    const qn_gpu_page_entry *entries; /**< [n_entries] */
    uint32_t n_table_pages, n_entries;
} qn_gpu_step_pages_args;
_Static_assert(sizeof(qn_gpu_step_pages_args) == 24, "host and device agree");

/**
 * Tokens, positions and slots of a pass's rows; beside them how the trunk's rows are drawn.  Pages
 * of the cache keep the tokens of the trunk's rows, as they keep what its layers make of them.
 */
typedef struct qn_gpu_step_rows_args {
    int32_t *tokens, *positions, *slots_of; /**< [n_rows] */
    int32_t *page_tokens;                   /**< [pages][64] */
    const int32_t *page_tables;             /**< [n_slots][n_table_pages] */
    const uint32_t *places;                 /**< [n_rows] */
    const qn_gpu_step_seq *seqs;
    const qn_gpu_slot *slots;
    const int32_t *given;       /**< [n_rows] ids of prompts; trunk */
    const int32_t *drafts;      /**< [drafts][n_chains_max] by chain, -1: none */
    qn_gpu_sampling *settings;  /**< [n_logits] */
    const uint32_t *logit_rows; /**< [n_logits]; NULL: i */
    uint64_t stream;            /**< Of random numbers (base/rng.h). */
    uint32_t n_rows, n_logits, n_chains_max;
    uint32_t is_chain;
    uint32_t i_draft; /**< Of a chain's row: drafts before it. */
    uint32_t n_table_pages;
} qn_gpu_step_rows_args;
_Static_assert(sizeof(qn_gpu_step_rows_args) == 128, "host and device agree");

/**
 * Biases, stop ids and penalties: what engine/sampler.c does to logits, bit for bit, in place.  The
 * tokens that it has counted before a row is drawn from are those that pages hold up to the row's
 * own position: of pages that were there before, of what was accepted, and of the drafts before the
 * row in its own pass.  Rows of slots that change nothing are left alone, and so is padding.
 */
typedef struct qn_gpu_adjust_args {
    float *logits;                       /**< [n_rows] rows logits_stride apart */
    const uint32_t *logit_rows;          /**< [n_rows] rows of the trunk's pass; NULL: i */
    const int32_t *positions, *slots_of; /**< [rows of the pass] */
    const qn_gpu_slot *slots;
    const qn_gpu_bias *biases; /**< [n_slots][QN_GPU_SLOT_BIASES] added in this order */
    const int32_t *page_tables, *page_tokens; /**< As in qn_gpu_step_rows_args. */
    uint64_t logits_stride;
    uint32_t n_rows, n_vocab, n_table_pages, reserved;
} qn_gpu_adjust_args;
_Static_assert(sizeof(qn_gpu_adjust_args) == 88, "host and device agree");

/** Chains begin: y[c] = kept of the sequence at places[c]. */
typedef struct qn_gpu_step_chain_args {
    float *y;          /**< [n_rows][n_embd] */
    const float *kept; /**< [n_slots][n_embd] */
    const uint32_t *places;
    const qn_gpu_step_seq *seqs;
    uint32_t n_rows, n_embd; /**< n_embd is a multiple of 4. */
} qn_gpu_step_chain_args;
_Static_assert(sizeof(qn_gpu_step_chain_args) == 40, "host and device agree");

/**
 * The trunk's rows that a settled step has kept become rows of the MTP layer, which is made of a
 * token and the trunk's hidden vector of the position before and has no row 0; others become
 * padding.  y[r] = x[r - 1]; kept of its slot where r is the first of its sequence.
 */
typedef struct qn_gpu_step_follow_args {
    int32_t *positions; /**< [n_rows] of the trunk's pass; in place */
    float *y;           /**< [n_rows][n_embd] */
    const float *x;     /**< [n_rows][n_embd] */
    const float *kept;  /**< [n_slots][n_embd] */
    const uint32_t *places;
    const qn_gpu_step_seq *seqs;
    const qn_gpu_slot *slots;
    uint32_t n_rows, n_embd;
} qn_gpu_step_follow_args;
_Static_assert(sizeof(qn_gpu_step_follow_args) == 64, "host and device agree");

/** Then kept of each slot is the hidden vector of the last row that its sequence kept. */
typedef struct qn_gpu_step_keep_args {
    float *kept;    /**< [n_slots][n_embd] */
    const float *x; /**< [n_rows][n_embd] */
    const uint32_t *places;
    const qn_gpu_step_seq *seqs;
    const qn_gpu_slot *slots;
    uint32_t n_rows, n_embd;
} qn_gpu_step_keep_args;
_Static_assert(sizeof(qn_gpu_step_keep_args) == 48, "host and device agree");

/**
 * What the draws of a step make of its sequences: the accept rule (engine/accept.h) with stop ids
 * and pinned acceptance, then slots and results.  A sequence that draws a -1 fails.
 */
typedef struct qn_gpu_step_settle_args {
    qn_gpu_step_result *results; /**< [n_seqs] */
    qn_gpu_slot *slots;
    const qn_gpu_step_seq *seqs; /**< [n_seqs] */
    const int32_t *drawn;        /**< [rows with logits] */
    const int32_t *drafts;       /**< [drafts][n_chains_max] */
    uint32_t n_seqs, n_chains_max;
} qn_gpu_step_settle_args;
_Static_assert(sizeof(qn_gpu_step_settle_args) == 48, "host and device agree");
#endif
