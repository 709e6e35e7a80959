/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file runner.h  Runs many requests: asks the scheduler for steps, has the executor execute them,
 * and tells what came out.  One thread at a time.
 */
#ifndef QN_ENGINE_RUNNER_H
#define QN_ENGINE_RUNNER_H
#include "engine/executor.h"
#include "sched/sched.h"

/** Opaque. */
typedef struct qn_runner qn_runner;

/** Sizes. */
typedef struct qn_runner_options {
    qn_executor_options executor;
    uint32_t n_queue;   /**< Requests that may wait. */
    uint64_t hash_seed; /**< Of the prefix tree. */
    bool has_prefix_tree;
} qn_runner_options;

/**
 * @param options  the caller has checked every field
 * Returns  QN_OK; QN_E_NOMEM that says how many bytes were asked
 */
QN_MUST_CHECK qn_status qn_runner_open(qn_runner **out, qn_glm *glm,
                                       const qn_runner_options *options, qn_error *err);

/** Release; sets *runner to NULL; accepts NULL. */
void qn_runner_close(qn_runner **runner);

/** What to answer.  The caller has checked every field; everything is copied. */
typedef struct qn_runner_request {
    const int32_t *ids; /**< [n_ids], at least 1, and fewer than the context has positions. */
    uint32_t n_ids;
    const qn_sampling *sampling;
    const int32_t *stop_ids;  /**< [n_stop_ids] ids that end the answer. */
    uint32_t n_stop_ids;      /**< At most QN_SAMPLER_STOPS_MAX. */
    uint32_t min_tokens;      /**< Stop ids are not drawn before. */
    uint32_t max_tokens;      /**< At least 1; UINT32_MAX: no limit but the context. */
    int draft_tokens;         /**< 0 .. QN_DRAFT_TOKENS_MAX, or QN_DRAFT_AUTO. */
    float acceptance_length;  /**< 0: drafts are accepted that are right. */
    bool wants_logits;        /**< The sink is given those of its tokens. */
    bool wants_prompt_logits; /**< Compute the whole prompt, and the logits of each position. */
    int priority;             /**< Within QN_PRIORITY_MAX. */
    uint64_t deadline_us;     /**< By qn_clock_ns() / 1000; 0: none. */
    uint64_t salt[2];
    uint64_t affinity;
    void *user; /**< Given to the sink. */
} qn_runner_request;

/**
 * Queue a request; its ids and settings are copied into memory that its end frees.
 * Returns  QN_OK; QN_AGAIN: the queue is full; QN_E_INVAL: more ids than all pages hold;
 *          QN_E_NOMEM
 */
QN_MUST_CHECK qn_status qn_runner_submit(qn_request_id *id, qn_runner *runner,
                                         const qn_runner_request *request, qn_error *err);

/** End a request; the next step tells the sink.  Unknown ids are ignored. */
void qn_runner_cancel(qn_runner *runner, qn_request_id id);

/**
 * Who is told what a step did.  Called during qn_runner_step(), from its thread; what is told of
 * one request stands together, but for its end.
 */
typedef struct qn_runner_sink {
    void *context;
    /** A request has its first slot; nothing of it was computed yet.  NULL: not told. */
    void (*begin)(void *context, void *user);
    /**
     * Positions of a prompt whose logits are wanted were computed; each is told once, in order.
     * @param ids     [n_rows + 1], without the one behind the last row where that is the prompt's
     *                last
     * @param logits  [n_rows][n_vocab]
     */
    void (*rows)(void *context, void *user, uint32_t position, uint32_t n_rows, const int32_t *ids,
                 const float *logits, const qn_sampler *sampler);
    /**
     * A token was drawn, from @p logits, NULL where the request does not want them.  False: the
     * answer ends with it, as it does where it @p is_stop, a stop id.
     */
    bool (*token)(void *context, void *user, int32_t token, uint32_t position, const float *logits,
                  const qn_sampler *sampler, bool is_stop);
    /**
     * A request has ended; it is told nothing more, and its memory is gone after the call.
     * @param error  what went wrong; NULL but for QN_SCHED_END_ERROR
     */
    void (*end)(void *context, void *user, qn_sched_end_reason reason,
                const qn_session_stats *stats, const qn_error *error);
} qn_runner_sink;

/**
 * One step: it is planned and submitted, and the oldest is collected, which with lag 1 is the one
 * before.  Allocates nothing, but for what a driver needs to capture a pass on a GPU as a graph
 * that open did not (executor.h).
 * Returns  QN_OK; QN_AGAIN: no request is there
 */
QN_MUST_CHECK qn_status qn_runner_step(qn_runner *runner, const qn_runner_sink *sink);

/** Forget cached pages that no running sequence uses. */
void qn_runner_flush(qn_runner *runner);

/** What all of it did. */
qn_engine_stats qn_runner_count(const qn_runner *runner);
#endif
