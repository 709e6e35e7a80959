/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sim.h  A simulated world around the real scheduler: clients, an engine that only pretends
 * to compute, and checkers that watch every step.  All of it follows from one seed.
 *
 * The checkers know the scheduler by its steps, ends and counts alone.  What is in a page, who
 * refers to it and which request waits for how long they keep account of themselves.
 */
#ifndef QN_SIM_SIM_H
#define QN_SIM_SIM_H
#include "base/rng.h"
#include "sched/sched.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum {
    SIM_NONE = INT32_MAX,  /**< No page, group, slot or position. */
    SIM_TOKENS_BEYOND = 64 /**< Ids that an engine may draw beyond a request's last. */
};

/* ---------------------------------------------------------------- random numbers (world.c) */

/** A stream of random numbers. */
typedef struct sim_rng {
    uint64_t seed;
    uint64_t stream;
    uint64_t counter;
} sim_rng;

uint64_t sim_rng_next(sim_rng *rng);
/** Uniform in 0 .. n - 1; n at least 1. */
uint32_t sim_rng_below(sim_rng *rng, uint32_t n);
/** Uniform in least .. most. */
uint32_t sim_rng_range(sim_rng *rng, uint32_t least, uint32_t most);
double sim_rng_unit(sim_rng *rng);
bool sim_rng_chance(sim_rng *rng, double p);
/** Exponentially distributed with this mean. */
double sim_rng_exponential(sim_rng *rng, double mean);
/** A length with a heavy tail: half of them below @p typical, 1 .. most. */
uint32_t sim_rng_length(sim_rng *rng, double typical, uint32_t most);

/* ---------------------------------------------------------------- the world (world.c) */

/** What the seed makes of the world. */
typedef struct sim_world {
    qn_sched_limits limits;
    uint32_t n_clients;
    uint32_t n_systems;   /**< System prompts that conversations begin with. */
    uint32_t n_tenants;   /**< Different salts. */
    uint32_t n_texts;     /**< Conversations that clients choose from; few: twins. */
    uint32_t n_vocab;     /**< Different token ids. */
    double system_tokens; /**< Typical lengths. */
    double prompt_tokens;
    double answer_tokens;
    double think_us;     /**< Between an answer and the next request. */
    double burst_share;  /**< Of the time in which clients do not think. */
    double p_next_turn;  /**< A conversation goes on. */
    double p_disconnect; /**< Chances of a request. */
    double p_deadline;
    double p_slow_reader;
    double p_priority;
    double p_all_rows;
    double p_caller_stop;
    double p_seq_fails; /**< Chances of a sequence or a step. */
    double p_step_fails;
    double p_device_lost;
    double p_flush;
    double p_late;        /**< A result is late where lag allows it. */
    double acceptance;    /**< Chance that a draft is right where those before it were. */
    uint32_t mtp_lag_max; /**< Positions by which n_complete lags behind. */
    bool has_times;       /**< Results tell times. */
} sim_world;

void sim_world_make(sim_world *world, uint64_t seed);
void sim_world_print(const sim_world *world, uint64_t seed);

/* ---------------------------------------------------------------- what is simulated */

/** A request and what the checkers know of it. */
typedef struct sim_request {
    qn_request_id id;
    uint32_t number; /**< In the story: r1, r2 ... in order of submission. */
    uint32_t i_client;
    int32_t *ids;    /**< [n_prompt + max_tokens + 1]: the scheduler's, a guard behind. */
    uint64_t *chain; /**< [p] stands for the salt and ids 0 .. p: what a cache row holds. */
    uint32_t n_chain;
    uint32_t n_prompt;
    uint32_t max_tokens;
    uint32_t n_drawn;   /**< Tokens that the scheduler took. */
    uint32_t n_stop_at; /**< Tokens with which the answer stops; SIM_NONE: it does not. */
    int draft_tokens;
    int32_t priority;
    uint64_t deadline_us;
    uint64_t salt[2];
    uint64_t answer_seed;
    double acceptance;
    bool needs_all_rows;
    int64_t key; /**< Its place in the order; then number. */
    bool is_running;
    bool was_running;  /**< Before the plan that is being checked. */
    bool was_admitted; /**< Once. */
    bool has_drawn;    /**< A step of its present slot orders the first draw. */
    uint32_t slot;
    uint32_t group;
    uint32_t home;             /**< The one that it was submitted to. */
    uint32_t n_begun;          /**< Times that it got a slot. */
    uint32_t n_ordered_tokens; /**< Most that outstanding steps may draw. */
    uint32_t due;              /**< Bits of reasons for which it may end now. */
    uint64_t n_steps_waited;   /**< Steps with work since it came. */
    uint64_t n_steps_max;      /**< The starvation bound. */
} sim_request;

/** A page as the device holds it. */
typedef struct sim_page {
    uint64_t rows[QN_PAGE_TOKENS]; /**< Of the sequence that wrote them: see chain. */
    uint64_t true_rows;     /**< Bits: rows of tokens that are the sequence's, drafts are not. */
    uint64_t before;        /**< chain before the first row. */
    uint64_t last_used;     /**< Call in which the last reference went, as far as steps tell. */
    uint64_t last_used_max; /**< Later where it was exchanged for another's page that went before
                               a step told so. */
    uint32_t n_verified;    /**< Rows of which a result said that they are complete. */
    uint32_t n_refs;        /**< Page tables of running sequences that hold it. */
    uint32_t parent;        /**< Published page before it; SIM_NONE: it begins a text. */
    uint32_t n_children;
    uint32_t next;   /**< In its bucket, where published. */
    uint32_t i_page; /**< Place in its sequence. */
    bool is_published;
    bool is_passing; /**< Published until the last flush: was exchanged for, perhaps. */
} sim_page;

/** A slot as the device knows it. */
typedef struct sim_slot {
    sim_request *request; /**< NULL: free. */
    uint32_t *table;      /**< [n_table] pages; SIM_NONE: none. */
    uint32_t n_ids;       /**< Tokens that the device knows. */
    uint32_t n_computed;  /**< Positions computed of tokens that are right. */
    uint32_t n_complete;
    uint32_t n_told; /**< n_complete as far as results told it. */
    uint32_t n_cached;
} sim_slot;

/** A step that is executed and whose result has not been told. */
typedef struct sim_flight {
    qn_step_result result;
    uint64_t ready_us;
    uint32_t n_begun[QN_STEP_SEQS_MAX]; /**< Of each request when the step was made. */
    uint32_t n_tokens_max[QN_STEP_SEQS_MAX];
    qn_request_id requests[QN_STEP_SEQS_MAX]; /**< Of the step, whatever the result says. */
    uint32_t n_requests;
} sim_flight;

/** Who sends requests. */
typedef struct sim_client {
    uint64_t next_us;  /**< When it sends. */
    uint64_t leave_us; /**< When it disconnects. */
    int32_t *history;  /**< [n_context] the conversation. */
    uint32_t n_history;
    uint32_t i_turn;
    uint64_t text; /**< Which conversation it is: seed of its words. */
    uint64_t salt[2];
    sim_request *request;    /**< NULL: it thinks. */
    double unread;           /**< Tokens that it has not read. */
    double unread_max;       /**< Then it is dropped. */
    double tokens_per_us;    /**< That it reads. */
    uint64_t read_us;        /**< When unread was true. */
    uint32_t n_leave_tokens; /**< It disconnects when it has so many. */
    uint32_t n_stop_tokens;  /**< It finds a stop text when it has so many. */
} sim_client;

/** What happened, for the summary. */
typedef struct sim_totals {
    uint64_t n_steps, n_rows, n_submitted, n_refused, n_flushes, n_failed_steps, n_lost;
    uint64_t n_ended[QN_SCHED_END_ERROR + 1];
    uint64_t n_queried, n_hit, n_tokens, n_preempted, n_evicted, n_published, n_exchanged;
    uint64_t n_drafted;
} sim_totals;

/** All of it. */
typedef struct sim {
    uint64_t seed;
    uint64_t n_steps_wanted;
    bool tells_story;
    bool is_calm; /**< No faults and no new requests: all that is accepted must end. */
    sim_world world;
    sim_rng client_rng, engine_rng;
    void *memory;
    qn_sched *sched;
    uint64_t now_us;
    uint64_t device_us; /**< When the device has done all that was ordered. */
    uint64_t n_calls;   /**< Of the scheduler: time of what is used last. */
    uint64_t n_plans;
    uint64_t last_number; /**< Of the last step. */
    uint64_t hash;        /**< Of all steps and ends. */
    uint32_t cap;         /**< Most ids of a sequence: context, or a group's pages. */
    uint32_t n_table;     /**< Entries of a page table. */
    qn_step step;
    sim_flight flights[2];
    uint32_t first_flight, n_flights;
    sim_request **live; /**< [n_live] accepted and not ended. */
    sim_request **by_place;
    uint32_t n_live, n_places;
    sim_client *clients;
    sim_slot *slots;
    uint32_t *seq_of_slot; /**< [n_slots] place in the step; SIM_NONE: no rows. */
    sim_page *pages;       /**< [n_groups * n_pages] */
    uint32_t *buckets;     /**< [n_buckets] published pages by chain. */
    uint32_t n_buckets;
    uint32_t n_referenced, n_cached; /**< Pages, by the model. */
    uint64_t n_ghosts; /**< Pages evicted for a sequence that was preempted in the same plan: they
                            are free, and no step says which they are. */
    bool is_flushed;   /**< Since the last result: what is published now is in no tree. */
    uint32_t n_preempted_now; /**< In the plan that is being checked. */
    sim_totals totals;
} sim;

/** Run a seed to its end; what a checker finds ends the process. Returns  hash of all steps. */
uint64_t sim_run(uint64_t seed, uint64_t n_steps, bool tells_story, sim_totals *totals);

/* ---------------------------------------------------------------- story (story.c) */

/** A checker found something: say it, and how to see it again, and end the process. */
_Noreturn void sim_fail(const sim *s, const char *checker, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** A line of the story. */
void sim_tell(const sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_tell_step(const sim *s);
void sim_tell_summary(const sim *s);
const char *sim_reason_name(qn_sched_end_reason reason);

/* ---------------------------------------------------------------- clients (clients.c) */

void sim_clients_open(sim *s);
void sim_clients_close(sim *s);
/** Everything that clients do up to now. */
void sim_clients_act(sim *s);
/** When a client does something next; UINT64_MAX: never. */
uint64_t sim_clients_next_us(const sim *s);
/** A client is told of tokens. */
void sim_client_tokens(sim *s, sim_request *request, uint32_t n_tokens);
/** A client is told of an end; its request goes after the call. */
void sim_client_end(sim *s, sim_request *request, qn_sched_end_reason reason);
/** The token of a request at a position, whoever computes it. */
int32_t sim_token(const sim *s, const sim_request *request, uint32_t position);
/** chain[position], made where it is not there yet. */
uint64_t sim_chain(const sim *s, sim_request *request, uint32_t position);
/** Chain before the first position. */
uint64_t sim_chain_root(const sim_request *request);

/* ---------------------------------------------------------------- engine (engine.c) */

/** Execute the step's rows; its result is then in flight. */
void sim_engine_run(sim *s);
/** Tell the scheduler the oldest result in flight. */
void sim_engine_deliver(sim *s);

/* ---------------------------------------------------------------- checkers */

/** check_pages.c: publishes, begins and page tables of the step, applied and checked. */
void sim_pages_apply(sim *s);
/** A row is written; @p is_true: of a token that is the sequence's. */
void sim_pages_write(sim *s, sim_slot *slot, uint32_t position, uint64_t chain, bool is_true);
/** A result said that positions are complete. */
void sim_pages_verified(sim *s, sim_slot *slot, uint32_t n_complete);
/** A request has no slot any more. */
void sim_pages_release(sim *s, sim_request *request);
/** Nothing is published any more; @p are_lost: and the bytes are gone. */
void sim_pages_forget(sim *s, bool are_lost);
/** Counts of the scheduler against those of the model. */
void sim_pages_count(sim *s);

/** check_step.c: what can be said of a step before it is applied. */
void sim_step_check_form(sim *s);
/** Order, gap and starvation; after it was applied. */
void sim_step_check_order(sim *s);
/** A request was accepted: all bounds move. */
void sim_step_submitted(sim *s, sim_request *request);
/** Whether a running sequence needs no rows now: what is outstanding may well end it. */
bool sim_step_may_rest(const sim *s, const sim_request *request);
/** Whether @p a comes before @p b in the order. */
bool sim_step_is_before(const sim_request *a, const sim_request *b);
/** Who runs, by the scheduler's word; those that lost their slot lose their pages. */
void sim_step_sync_running(sim *s);

/** check_request.c: submit, and check whether the queue was really full. */
bool sim_request_submit(sim *s, sim_request *request, uint64_t session);
void sim_request_free(sim_request *request);
/** The request of an id, if it is live. */
sim_request *sim_request_find(const sim *s, qn_request_id id);
/** End it as the caller. */
void sim_request_end(sim *s, sim_request *request, qn_sched_end_reason reason);
/** Poll ends: each is of a live request and one of its due reasons. */
void sim_request_poll(sim *s);
/** Deadlines that have passed are due. */
void sim_request_mark_deadlines(sim *s);
/** What had to end has ended. */
void sim_request_check_due(const sim *s);
/** Tokens that a result gave to a request. */
void sim_request_took(sim *s, sim_request *request, const qn_seq_result *result, uint32_t n_taken,
                      bool was_preempted);

/** What the 99th percentile of a step's time may be at most; 0: anything. */
typedef struct sim_bench_bounds {
    double us;
    double walks; /**< By that of a walk of 64 reads: whatever the machine and its load. */
} sim_bench_bounds;

/** bench.c: how long a step of at most so many rows takes; returns the exit status. */
int sim_bench(uint32_t n_step_rows, const sim_bench_bounds *bounds);
#endif
