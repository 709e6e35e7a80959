/* SPDX-License-Identifier: Apache-2.0 */
/** @file executor_parts.h  What the files of the executor share: slots, rows of a pass, buffers. */
#ifndef QN_ENGINE_EXECUTOR_PARTS_H
#define QN_ENGINE_EXECUTOR_PARTS_H
#include "base/arena.h"
#include "base/assert.h"
#include "engine/executor.h"
#include "engine/page_pool.h"
#include "engine/page_sums.h"

enum {
    /** The MTP layer follows an answer when it has passed a multiple of so many positions, or
     * drafts: rows of the layer cost less in a larger batch (docs/internals/engine.md). Divides
     * QN_PAGE_TOKENS, so that a page is complete in the step that fills it. */
    QN_FOLLOW_TOKENS = 16,
    /** Positions whose token and hidden vector a slot keeps, by position modulo this. */
    QN_SLOT_RING = 32,
};
_Static_assert(QN_PAGE_TOKENS % QN_FOLLOW_TOKENS == 0, "pages end where the MTP layer follows");
_Static_assert((int)QN_SLOT_RING > (int)QN_FOLLOW_TOKENS + (int)QN_STEP_TOKENS_MAX,
               "all that waits for the MTP layer, and a step");

/** One sequence. */
typedef struct qn_slot {
    qn_request_id request; /**< 0: none. */
    const int32_t *ids;    /**< [n_ids] borrowed; drawn tokens are in the ring. */
    uint32_t n_ids;
    uint32_t n_pages;           /**< Entries of the page table that mean something; -1: not set. */
    uint32_t n_computed;        /**< By the trunk: positions of tokens that are the sequence's; on
                                     a GPU the most that they can be. */
    uint32_t n_mtp;             /**< MTP rows 1 .. n_mtp - 1 are computed of them; at least 1. */
    uint32_t n_complete;        /**< As reported. */
    uint64_t n_steps;           /**< Verifications. */
    double acceptance_length;   /**< 0: not pinned. */
    qn_sampler *sampler;        /**< Owned; on a GPU the first slot's stands for all. */
    float *hidden;              /**< [QN_SLOT_RING][n_embd] of the trunk; in the arena. */
    int32_t ring[QN_SLOT_RING]; /**< Drawn tokens. */
    int32_t drafts[QN_DRAFT_TOKENS_MAX];
    uint32_t n_drafts; /**< Of the present step. */
    int32_t stop_ids[QN_SAMPLER_STOPS_MAX];
    uint32_t n_stop_ids;
    bool is_failed;
    qn_sampling sampling; /**< For a GPU, as the next two; its biases are in the arena. */
    uint32_t n_prompt;    /**< Of the ids. */
    uint32_t min_tokens;
    uint32_t n_begins; /**< Of the slot, so far. */
    uint32_t n_cached; /**< Positions of the pages that it began behind. */
    bool must_begin;   /**< A GPU knows nothing of the sequence yet. */
} qn_slot;

/** Rows of one pass, as they are added; capacity n_step_rows. */
typedef struct qn_rows {
    int32_t *tokens;
    int32_t *positions;
    int32_t *slots;
    uint32_t *logit_rows;
    uint32_t n;
    uint32_t n_logits;
} qn_rows;

/** Where one sequence of a step has its rows. */
typedef struct qn_place {
    uint32_t first_row;   /**< In the trunk's pass. */
    uint32_t n_rows;      /**< Likewise. */
    uint32_t first_logit; /**< Among the rows with logits. */
    uint32_t n_logits;    /**< 0: none. */
} qn_place;

/** Steps on a GPU: executor_gpu.h. */
typedef struct qn_gpu_steps qn_gpu_steps;

struct qn_executor {
    qn_gpu_steps *gpu; /* owned; NULL: the CPU executes steps */
    qn_glm *glm;       /* borrowed, as the next two */
    const qn_kernels *kernels;
    qn_pool *pool;
    qn_page_pool pages;
    qn_page_sums sums; /* closed: no checks */
    uint32_t n_slots;
    uint32_t n_step_rows;
    uint32_t n_logit_rows; /* the most that a step draws from */
    uint32_t n_table_pages;
    uint32_t n_pages;         /* of the cache */
    uint32_t n_positions_max; /* of a sequence: for what table, cache and model have room */
    uint32_t n_samplers; /* one a slot; on a GPU, which draws itself, one for log-probabilities */
    uint32_t n_embd;
    uint32_t n_vocab;
    uint32_t n_topk;
    uint32_t n_seqs; /* of the last step */
    uint32_t lag;
    uint32_t n_waiting;                              /* results not collected */
    qn_step_result results[QN_EXECUTOR_LAG_MAX + 1]; /* of them, the oldest first */
    bool with_mtp;
    bool shares_sets;      /* a chain of drafts attends to the set of the last verified row */
    qn_arena arena;        /* of what follows; its base is an owned mapping */
    qn_slot *slots;        /* [n_slots] */
    qn_logit_bias *biases; /* [n_slots][QN_LOGIT_BIAS_MAX] for a GPU */
    int32_t *page_tables;  /* [n_slots][n_table_pages] */
    qn_place *places;      /* [n_slots] by place in the step */
    qn_rows rows;
    float *hidden;        /* [n_step_rows][n_embd] of the trunk's pass */
    float *logits;        /* [n_logit_rows][n_vocab] likewise */
    float *prompt_logits; /* [QN_PROMPT_LOGITS_MAX][n_vocab] of those asked for last */
    float *hidden_prev;   /* [n_step_rows][n_embd] into a pass of the MTP layer; with MTP, as the
                             rest */
    uint32_t *drafting;   /* [n_slots] slots that draft, the deepest first */
    uint32_t n_drafting[QN_DRAFT_TOKENS_MAX + 1]; /* [i] of them that make more than i drafts */
    float *chain_hidden;      /* [n_slots][n_embd] of each the last row of its chain */
    qn_index_sets chain_sets; /* [n_slots] of each its first row; empty unless shares_sets */
    float *mtp_logits;        /* [n_slots][n_vocab] of each its last row */
};

/** Page table of a slot. */
static inline int32_t *qn_slot_pages(const qn_executor *e, uint32_t i_slot)
{
    return e->page_tables + (size_t)i_slot * e->n_table_pages;
}

/** Token at a position that is given or still in the ring. */
static inline int32_t qn_slot_token(const qn_slot *slot, uint32_t position)
{
    return position < slot->n_ids ? slot->ids[position] : slot->ring[position % QN_SLOT_RING];
}

/** Where the hidden vector of a position is kept. */
static inline float *qn_slot_hidden(const qn_executor *e, const qn_slot *slot, uint32_t position)
{
    return slot->hidden + (size_t)(position % QN_SLOT_RING) * e->n_embd;
}

/** Add a row. */
static inline void qn_rows_add(qn_executor *e, uint32_t i_slot, uint32_t position, int32_t token,
                               bool wants_logits)
{
    qn_rows *const rows = &e->rows;
    QN_ASSERT(rows->n < e->n_step_rows);
    rows->tokens[rows->n] = token;
    rows->positions[rows->n] = (int32_t)position;
    rows->slots[rows->n] = (int32_t)i_slot;
    if (wants_logits) {
        QN_ASSERT(rows->n_logits < e->n_logit_rows);
        rows->logit_rows[rows->n_logits++] = rows->n;
    }
    rows->n++;
}

/** The rows added since the last call, as a batch; borrowed until one is added. */
qn_batch qn_rows_take(qn_executor *e);

/** The executor on the CPU: a step whose slots and pages are prepared, to its end. */
void qn_executor_run(qn_executor *e, const qn_step *step, qn_step_result *result);

/** A slot begins behind cached pages, whose last carries the hidden vector before its first row. */
void qn_executor_take_cached(qn_executor *e, uint32_t i_slot, uint32_t n_cached, uint32_t page);

/** qn_executor_logits(), and e->prompt_logits of rows of the trunk's pass, at most 64. */
const float *qn_executor_read_logits(qn_executor *e, uint32_t i_seq);
void qn_executor_make_logits(qn_executor *e, uint32_t first_row, uint32_t n_rows);

/** The MTP layer follows the sequences that draft and drafts for them: slots' drafts. */
void qn_executor_draft(qn_executor *e, const qn_step *step);

/** The MTP layer follows over rows of prompts, and of answers once enough of them wait. */
void qn_executor_follow(qn_executor *e, const qn_step *step);
#endif
