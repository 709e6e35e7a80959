/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  What the files of the scheduler share: its state. */
#ifndef QN_SCHED_INTERNAL_H
#define QN_SCHED_INTERNAL_H
#include "sched/draft_batch.h"
#include "sched/order.h"
#include "sched/pages.h"
#include "sched/route.h"
#include "sched/sched.h"

enum {
    SCHED_LAG_MAX = 1,
    SCHED_STEPS_MAX = SCHED_LAG_MAX + 1, /* results outstanding after a plan */
    SCHED_EXCHANGES_MAX = 1024,          /* between two steps; what does not fit is done later */
    SCHED_SESSIONS = 4096,               /* places of the table of sessions, a power of 2 */
    SCHED_NOBODY = INT32_MAX,            /* no request, no group */
};

static inline uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Where a request is. */
typedef enum sched_phase {
    SCHED_FREE,    /* no request has this place */
    SCHED_WAITING, /* in the queue, new or preempted */
    SCHED_RUNNING, /* has a slot */
    SCHED_ENDED,   /* its end was not polled */
} sched_phase;

/* A request. */
typedef struct sched_request {
    qn_sched_request asked;
    qn_request_id id;
    qn_order_item item; /* its place in the order of requests */
    sched_phase phase;
    qn_sched_end_reason reason;
    uint32_t next_ended; /* in the list of ends */
    uint32_t group;
    uint32_t n_ids;     /* prompt and tokens drawn */
    uint32_t n_ids_max; /* where the answer ends */
    uint32_t n_cached;  /* of the prompt, when first admitted */
    bool was_admitted;
    uint32_t n_preempted;  /* results ordered before one are not taken any more */
    uint32_t n_lost;       /* positions that it had computed before the last one */
    uint64_t n_load_rows;  /* its part of the group's load */
    qn_prefix_hint hint;   /* the longest path found last */
    qn_draft_record draft; /* what became of its drafts */

    /* While it runs. */
    uint32_t slot;
    uint32_t *table;       /* [n_table] pages, of n_pages_max */
    uint32_t n_table;      /* pages that it has */
    uint32_t n_told;       /* of them: the executor knows */
    uint32_t n_shared;     /* of them: found in the tree on admission */
    uint32_t n_published;  /* of them: in the tree, or equal to one that is */
    uint32_t n_promised;   /* pages that its ids need still */
    uint32_t n_known;      /* ids that are computed as a prompt */
    uint32_t n_ordered;    /* of them: computed or ordered */
    uint32_t n_coming_min; /* tokens that outstanding steps draw, at least */
    uint32_t n_coming_max; /* ... and at most */
    bool is_told;          /* the executor knows that it has the slot */
    bool is_flushed;       /* pages before its own have left the tree: it publishes nothing */

    /* Of the step that is being planned. */
    uint32_t n_rows;
    uint32_t n_drafts;
} sched_request;

/* What was ordered of one sequence. */
typedef struct sched_ordered {
    qn_step_seq seq;
    uint32_t n_preempted; /* of the request at that time */
} sched_ordered;

/* A step without result. */
typedef struct sched_outstanding {
    uint64_t number;
    uint32_t n_seqs;
    uint32_t n_rows;
    sched_ordered *seqs; /* [n_slots] */
} sched_outstanding;

/* A page-table entry that was exchanged and the executor does not know. */
typedef struct sched_exchange {
    qn_request_id request;
    uint32_t n_preempted; /* of the request at that time */
    uint32_t i_page;
} sched_exchange;

/* Which group served a session last. */
typedef struct sched_session {
    uint64_t session;
    uint32_t group;
} sched_session;

/* An attention group. */
typedef struct sched_group {
    qn_pages pages;
    uint64_t load_rows;  /* rows of prompts not ordered, those in the queue included */
    uint32_t n_promised; /* pages that running prompts need still */
    uint32_t n_running;
    qn_order waiting; /* requests of the queue that are for it */
    bool is_full;     /* of the step that is being planned: the first of them does not fit */
} sched_group;

struct qn_sched {
    qn_sched_limits limits;
    sched_request *requests; /* [n_places] */
    uint32_t *free_places;   /* [n_places] a ring: serial numbers of all places last equally long */
    qn_order deadlines;      /* of those that have one and have not ended */
    uint32_t *running;       /* [n_slots] places of those that run, in order */
    uint32_t *free_slots;    /* [n_slots] a stack */
    uint32_t *tables;        /* [n_slots][n_pages_max] */
    sched_group *groups;     /* [n_groups] */
    qn_route_place *places;  /* [n_groups] while a request is submitted */
    sched_session *sessions; /* [SCHED_SESSIONS] */
    uint64_t n_submitted;
    uint64_t n_steps;                               /* planned, empty ones included */
    sched_outstanding outstanding[SCHED_STEPS_MAX]; /* the oldest first */
    qn_page_id *published;                          /* [QN_STEP_PAGES_MAX] since the last step */
    sched_exchange *exchanges;                      /* [SCHED_EXCHANGES_MAX] likewise */
    qn_draft_batch draft_batch;
    qn_draft_seq *draft_seqs; /* [n_slots] while a step is planned */
    qn_order prompts;         /* likewise: slots of those behind the first, by rows they lack */
    uint32_t *by_slot;        /* [n_slots] likewise: requests of those slots */
    qn_sched_counts counts;   /* what adds up */

    uint32_t n_places;    /* n_slots + n_queue */
    uint32_t n_pages_max; /* of one page table */
    uint32_t n_ids_max;   /* of a sequence */
    uint32_t first_free_place, n_free_places;
    uint32_t first_ended, last_ended; /* list of ends */
    uint32_t n_new_waiting;           /* of those that wait: never admitted */
    uint32_t n_running;
    uint32_t n_free_slots;
    uint32_t n_outstanding;
    uint32_t n_published;
    uint32_t n_exchanges;
    uint32_t n_rows_left; /* of the step that is being planned */
    uint32_t n_entries;   /* likewise: page-table entries of those admitted */
};

/* The request of this name, where it has not ended; else NULL. */
sched_request *qn_sched_find(const qn_sched *sched, qn_request_id id);

/* The longest path in its group's tree that it may share now. */
qn_prefix_hint qn_sched_find_path(const qn_sched *sched, const sched_request *request);

/* A waiting request gets a slot; one must be free. */
void qn_sched_start_running(qn_sched *sched, sched_request *request);

/* A running request gives back its slot and pages and is in no step any more. */
void qn_sched_stop_running(qn_sched *sched, sched_request *request);

/* A waiting or running request ends. */
void qn_sched_finish(qn_sched *sched, sched_request *request, qn_sched_end_reason reason);

/* End all whose deadline has passed. */
void qn_sched_expire(qn_sched *sched, uint64_t now_us);

/* Its rows that wait, for the group's load. */
void qn_sched_set_load(qn_sched *sched, sched_request *request, uint64_t n_rows);
#endif
