/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file executor_gpu.h  Steps on a GPU: what a sequence is stays there, so that a step is queued
 * without waiting for the one before it.
 *
 * The host uploads what the scheduler ordered, a few numbers for each row; kernels make rows of it
 * (kernels/gpu/args_step.h).  The passes of a step, in this order:
 *
 *   chain   a draft of each chain that is not at its end, by the MTP layer
 *   trunk   all rows, and their draws
 *   follow  what the MTP layer adds to the cache, of the rows that are the sequences' now
 *
 * Between the last two stand the accept rule and the download of results.  A pass whose rows are
 * all of answers is captured as a graph by its number of rows, rounded up, and the extent of
 * contexts; what it works on is at addresses for good.
 */
#ifndef QN_ENGINE_EXECUTOR_GPU_H
#define QN_ENGINE_EXECUTOR_GPU_H
#include "engine/executor_parts.h"
#include "model/gpu_glm.h"

/** Passes that are captured; chains of each draft have their own. */
enum {
    QN_PASS_TRUNK,
    QN_PASS_FOLLOW,
    QN_PASS_CHAIN, /**< The first draft's. */
    QN_PASS_CHAIN_LAST = QN_PASS_CHAIN + QN_DRAFT_TOKENS_MAX - 1,
    QN_N_PASSES,
    QN_PASS_SIZES = 24,   /**< Numbers of rows that graphs have. */
    QN_PASS_EXTENTS = 6,  /**< Extents of contexts likewise. */
    QN_SAMPLE_ROWS = 128, /**< Rows that are drawn at once. */
    QN_PASS_RETRY = 64,   /**< Launches until what could not be captured is tried again. */
    /**
     * Of the device, for each layer of a graph: 75 KiB measured, 3.3 KB for each of 23 launches
     * (416 graphs of 78 layers and of the MTP layer on an H200, driver 580).
     */
    QN_PASS_LAYER_BYTES = 80 << 10,
};

/** What is uploaded of a step; the same places on both sides, for good. */
typedef struct qn_gpu_orders {
    qn_gpu_step_seq *seqs;       /**< [n_slots], in the step's order. */
    uint32_t *chain;             /**< [n_slots] places of chains, the deepest first. */
    uint32_t *trunk;             /**< [n_step_rows] places: of answers, then of prompts. */
    int32_t *given;              /**< [n_step_rows] ids of prompts. */
    uint32_t *logit_rows;        /**< [n_logit_rows] */
    qn_gpu_page_entry *entries;  /**< [QN_STEP_PAGES_MAX] */
    qn_gpu_slot *begins;         /**< [n_slots] of those that begin. */
    qn_gpu_bias *biases;         /**< [n_slots][QN_GPU_SLOT_BIASES] likewise; they stay there. */
    qn_gpu_step_result *results; /**< [n_slots], downloaded. */
} qn_gpu_orders;

/** Numbers of rows of a step's passes. */
typedef struct qn_gpu_extent {
    uint32_t n_chains;
    uint32_t n_answer_rows; /**< Of the trunk. */
    uint32_t n_rows;        /**< With prompts; rounded where there are none. */
    uint32_t n_logits;
    uint32_t n_positions; /**< No position is this or more. */
    uint32_t i_extent;    /**< Among those of graphs. */
    uint32_t depth;       /**< Of the deepest chain. */
} qn_gpu_extent;

/** Moments of a step: it began, drafts were made, all is done. */
enum { QN_FLIGHT_BEGUN, QN_FLIGHT_DRAFTED, QN_FLIGHT_DONE, QN_FLIGHT_EVENTS };

/** A step that is submitted and not collected. */
typedef struct qn_gpu_flight {
    qn_gpu_orders orders;                   /**< Pinned; its memory is owned: seqs. */
    qn_gpu_event *events[QN_FLIGHT_EVENTS]; /**< Owned. */
    qn_status status;                       /**< Of what was queued. */
    qn_error error;
    uint64_t number;
    uint32_t n_seqs;
    bool has_drafts;
    struct {
        qn_request_id request;
        uint32_t n_begins; /**< Of its slot: whether that is still its own. */
    } seqs[QN_STEP_SEQS_MAX];
} qn_gpu_flight;

/** A captured pass. */
typedef struct qn_gpu_capture {
    qn_gpu_graph *graph; /**< Owned; NULL: not captured yet. */
    uint32_t n_plain;    /**< It could not be: so many times it is queued as it is. */
} qn_gpu_capture;

struct qn_gpu_steps {
    qn_gpu_glm *glm; /* borrowed */
    uint8_t *block;  /* owned: of the device, as all pointers that follow */
    uint64_t block_bytes, host_bytes;
    qn_gpu_orders orders;
    qn_gpu_slot *slots;   /* [n_slots] */
    int32_t *page_tables; /* [n_slots][n_table_pages] */
    int32_t *page_tokens; /* [n_pages][QN_PAGE_TOKENS] of the cache: what penalties count */
    int32_t *tokens;      /* [n_step_rows] of the present pass, as the next two */
    int32_t *positions;
    int32_t *slots_of;
    int32_t *drafts;           /* [QN_DRAFT_TOKENS_MAX][n_slots] by chain */
    qn_gpu_sampling *settings; /* [n_logit_rows] */
    qn_gpu_sampling *greedy;   /* [n_slots] of drafts */
    int32_t *drawn;            /* [n_logit_rows] */
    void *sample_scratch;      /* of QN_SAMPLE_ROWS rows */
    float *hidden;             /* [n_step_rows][n_embd] of the trunk's pass: for logits later */
    float *kept;               /* [n_slots][n_embd] likewise, of the last row that counts */
    qn_gpu_flight flights[QN_EXECUTOR_LAG_MAX + 1]; /* a ring */
    uint32_t i_flight;                              /* of the oldest */
    bool must_restore; /* page tables of a step that failed were not taken */
    bool is_lost;      /* so was the last step that failed */
    bool without_graphs;
    uint32_t n_reserves;       /* of the model's workspace, when graphs were captured */
    qn_pass_launches launches; /* of the graphs captured or launched last */
    qn_gpu_extent extent;      /* of the step that is being queued, as the next two */
    qn_status status;          /* the first failure */
    qn_error error;
    qn_gpu_capture captures[QN_N_PASSES][QN_PASS_SIZES][QN_PASS_EXTENTS];
};

/** For the executor @p e, whose options and slots are set: e->gpu.  QN_E_NOMEM, QN_E_DEVICE. */
QN_MUST_CHECK qn_status qn_gpu_steps_open(qn_executor *e, qn_error *err);
/** Bytes of the device that this takes, of an executor @p e whose sizes alone are set. */
uint64_t qn_gpu_steps_measure(const qn_executor *e);
/** Bytes that all graphs may take, of such an executor, for a trunk of @p n_layers. */
uint64_t qn_gpu_steps_measure_graphs(const qn_executor *e, uint32_t n_layers);
/** Waits for what is queued; sets *steps to NULL; accepts NULL. */
void qn_gpu_steps_close(qn_gpu_steps **steps);
/** Of host and device; 0 of NULL. */
uint64_t qn_gpu_steps_bytes(const qn_gpu_steps *steps);

/** Queue a step whose slots are prepared; it fails with @p err where @p status, of that, is one. */
void qn_gpu_steps_submit(qn_executor *e, const qn_step *step, qn_status status,
                         const qn_error *err);
void qn_gpu_steps_collect(qn_executor *e, qn_step_result *result);

/**
 * qn_executor_logits(), and e->prompt_logits of rows of the trunk's pass, at most 64.  NULL also
 * where the device did not give them, which is logged.
 */
const float *qn_gpu_steps_read_logits(qn_executor *e, uint32_t i_seq);
const float *qn_gpu_steps_make_logits(qn_executor *e, uint32_t first_row, uint32_t n_rows);

/** Queue the chains' passes: what e->gpu->extent says, of orders that were uploaded. */
void qn_gpu_steps_draft(qn_executor *e, const qn_gpu_orders *host);
/** Queue the trunk's pass and its draws. */
void qn_gpu_steps_trunk(qn_executor *e);
/** Queue what the MTP layer adds to the cache, of a settled step. */
void qn_gpu_steps_follow(qn_executor *e);
/**
 * Capture all passes that steps may launch, those of few positions first, so that no step has to.
 * Where one cannot be, it and those behind it are left to the steps.
 */
void qn_gpu_steps_capture(qn_executor *e);
/** Forget what was captured. */
void qn_gpu_steps_drop_graphs(qn_gpu_steps *g);
/** Rows of the graph for @p n_rows, at most @p n_rows_max; @p n_rows where there is none. */
uint32_t qn_gpu_steps_round(uint32_t n_rows, uint32_t n_rows_max);
/**
 * Round positions up to those of a graph; returns which: each has one number of them.
 * @param n_topk  the model's index_topk
 * @param n_max   the longest context of a sequence
 */
uint32_t qn_gpu_steps_extent(uint32_t n_topk, uint32_t n_max, uint32_t *n_positions);
/** Note what failed of the step that is being queued; returns the first of it. */
qn_status qn_gpu_steps_note(qn_gpu_steps *g);
#endif
