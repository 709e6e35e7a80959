/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file executor.h  Executes steps on a model: the bytes of the pages, the slots of sequences,
 * drafts, verification, draws.  It decides nothing.
 *
 * A step's order: checksums of what is published; begins and page tables; the MTP layer follows
 * over the tokens drawn last and drafts; one pass of the trunk over all rows of all sequences;
 * draws and acceptance; the MTP layer follows over the rows of prompts.  A row's result depends on
 * its own sequence alone, so neither neighbours nor cuts nor preemptions change a token, but for a
 * pinned acceptance: it takes drafts unseen, and how many there are goes by the step.  On a GPU
 * that holds of a model that is deterministic; the last bits of another's rows go by the step.
 *
 * A step is submitted and its result collected; with lag 1 the next may be submitted between, so
 * that a device has work while the host looks at results.  Steps are executed one after the other.
 *
 * After open nothing here allocates, but for a driver where a step captures a pass as a graph since
 * open did not.  What was mapped on the host fills as slots, rows and pages are used.
 * One thread at a time.
 */
#ifndef QN_ENGINE_EXECUTOR_H
#define QN_ENGINE_EXECUTOR_H
#include "quern/quern.h"

#include "engine/sampler.h"
#include "model/glm.h"
#include "sched/step.h"

/** Opaque. */
typedef struct qn_executor qn_executor;

enum {
    QN_PROMPT_LOGITS_MAX = 64, /**< Rows of a call of qn_executor_prompt_logits(). */
    QN_EXECUTOR_LAG_MAX = 1,   /**< Steps that wait for collection when one is submitted. */
};

/** Sizes. */
typedef struct qn_executor_options {
    const qn_kernels *kernels; /**< Borrowed while the executor is open. */
    qn_pool *pool;             /**< Borrowed likewise: draws are spread over its threads. */
    qn_kv_dtype kv_dtype;      /**< Not AUTO. */
    uint32_t n_slots;          /**< At most QN_STEP_SEQS_MAX. */
    uint32_t n_pages;          /**< Of the one group there is. */
    uint32_t n_step_rows;      /**< At most the model's n_rows_max. */
    uint32_t n_context;        /**< Positions of a sequence, at most the model's. */
    uint32_t lag;              /**< At most QN_EXECUTOR_LAG_MAX. */
    bool with_mtp;             /**< Pages have the MTP layer's rows; the model has the layer. */
    bool without_graphs;       /**< On a GPU: passes are queued kernel by kernel. */
    bool captures_early;       /**< On a GPU: open captures them, and the log tells with what time
                                    and memory; else each is at its first use. */
    bool checks_pages;         /**< Compare checksums of shared pages; always in debug builds. */
} qn_executor_options;

/** What opening one takes of a GPU beside its pages and the model's workspace; 0 of a CPU. */
uint64_t qn_executor_device_bytes(const qn_glm *glm, const qn_executor_options *options);

/**
 * About what the graphs take that open captures, of a cache with room for the longest context; 0
 * where it captures none.
 */
uint64_t qn_executor_graph_bytes(const qn_glm *glm, const qn_executor_options *options);

/** Returns QN_OK; QN_E_NOMEM that says how many bytes were asked. */
QN_MUST_CHECK qn_status qn_executor_open(qn_executor **out, qn_glm *glm,
                                         const qn_executor_options *options, qn_error *err);

/** Release; sets *executor to NULL; accepts NULL. */
void qn_executor_close(qn_executor **executor);

/** What a slot's sequence is drawn with. */
typedef struct qn_executor_request {
    const int32_t *ids; /**< [n_ids] the prompt and what was drawn before a preemption; borrowed
                             until the last step that has rows of the request is submitted. */
    uint32_t n_ids;
    uint32_t n_prompt;           /**< Of them: the prompt. */
    const qn_sampling *sampling; /**< Borrowed by the call that begins it, as stop_ids. */
    const int32_t *stop_ids;     /**< [n_stop_ids] */
    uint32_t n_stop_ids;         /**< At most QN_SAMPLER_STOPS_MAX. */
    uint32_t min_tokens;         /**< Stop ids are not drawn before. */
    float acceptance_length;     /**< Pinned; 0: drafts are accepted that are right. */
    uint64_t n_steps_before;     /**< Verification steps before a preemption: of the pinning. */
} qn_executor_request;

/** Finds a request that a step begins. */
typedef const qn_executor_request *qn_executor_find_fn(void *context, qn_request_id id);

/**
 * Execute a step: every sequence of it in turn as the step says; see the head of this file.  At
 * most as many steps as the lag may wait for collection.
 *
 * @param step  borrowed during the call
 * @param find  called for each begin, during the call
 */
void qn_executor_submit(qn_executor *executor, const qn_step *step, qn_executor_find_fn *find,
                        void *context);

/**
 * Wait for the oldest step that was submitted and not collected.
 *
 * @param[out] result  of the step; sequences whose logits are no numbers are failed there, and in
 *                     every step until their slot begins again.  draft_s is the time of what drafts
 *                     need; rows of the MTP layer that follow without any are in neither time.
 */
void qn_executor_collect(qn_step_result *result, qn_executor *executor);

/**
 * Logits [n_rows][n_vocab] of a sequence of the step submitted last, once it is collected; borrowed
 * until the next call or step: one row for each token drawn.  NULL where there are none, or where
 * the device failed to give them, which is logged: the step's results stand all the same.
 *
 * @param i_seq  place in the step's seqs
 */
const float *qn_executor_logits(qn_executor *executor, uint32_t i_seq);

/**
 * Logits [n_rows][n_vocab] of rows of the same step, of a prompt or not, which are computed now;
 * borrowed until the next call or step.  A prompt's are not kept, as a step may have thousands.
 * NULL where the device failed to give them, likewise.
 *
 * @param i_seq   place in the step's seqs; not of a sequence that had failed before
 * @param i_row   the first, of those that the sequence has in the step
 * @param n_rows  1 .. QN_PROMPT_LOGITS_MAX
 */
const float *qn_executor_prompt_logits(qn_executor *executor, uint32_t i_seq, uint32_t i_row,
                                       uint32_t n_rows);

/** The sampler of a slot, for log-probabilities; borrowed. */
const qn_sampler *qn_executor_sampler(const qn_executor *executor, uint32_t slot);

/** Kernels, copies and fills of passes that are graphs. */
typedef struct qn_pass_launches {
    uint32_t trunk, draft, follow;
} qn_pass_launches;

/** Of the graphs that were captured or launched last; zeros before, and on a CPU. */
qn_pass_launches qn_executor_launches(const qn_executor *executor);

/** Bytes of one page. */
uint64_t qn_executor_page_bytes(const qn_executor *executor);

/** The most that all but the pages takes of host and device, the model's workspace included. */
uint64_t qn_executor_workspace_bytes(const qn_executor *executor);
#endif
