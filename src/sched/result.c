/* SPDX-License-Identifier: Apache-2.0 */
/* What became of a step: tokens, pages that are full, ends, and what drafts are worth. */
#include "base/assert.h"
#include "sched/internal.h"

#include <string.h>

enum { N_HASHES = 32 /* pages that are published at once */ };

static void publish_page(qn_sched *sched, sched_request *request, uint64_t hash)
{
    qn_pages *const pages = &sched->groups[request->group].pages;
    const uint32_t i = request->n_published++;
    const uint32_t parent = i > 0 ? request->table[i - 1] : QN_NO_PAGE;
    const uint32_t own = request->table[i];
    request->table[i] =
        qn_pages_publish(pages, own, parent, request->asked.ids + (size_t)i * QN_PAGE_TOKENS,
                         request->asked.salt, hash);
    if (request->table[i] == own) {
        sched->published[sched->n_published++] = qn_page_make(request->group, own);
        sched->counts.n_published++;
    } else {
        sched->counts.n_exchanged++;
        sched->exchanges[sched->n_exchanges++] =
            (sched_exchange){request->id, request->n_preempted, i};
    }
}

/* Put its full pages below n_whole positions into the tree, or exchange them for equal ones. */
static void publish(qn_sched *sched, sched_request *request, uint32_t n_whole)
{
    const uint32_t n_full = n_whole / QN_PAGE_TOKENS;
    QN_ASSERT(n_full <= request->n_told);
    if (!sched->limits.has_prefix_tree || request->is_flushed) {
        return;
    }
    while (request->n_published < n_full) {
        const uint32_t first = request->n_published;
        /* What has no room in the next step waits for the next result. */
        const uint32_t n_room =
            least(QN_STEP_PAGES_MAX - sched->n_published, SCHED_EXCHANGES_MAX - sched->n_exchanges);
        const uint32_t n = least(n_full - first, least(n_room, N_HASHES));
        if (n == 0) {
            return;
        }
        uint64_t hashes[N_HASHES];
        qn_prefix_tree_hash(hashes, &sched->groups[request->group].pages.tree,
                            first > 0 ? request->table[first - 1] : QN_NO_PAGE,
                            request->asked.ids + (size_t)first * QN_PAGE_TOKENS, n,
                            request->asked.salt);
        for (uint32_t i = 0; i < n; i++) {
            publish_page(sched, request, hashes[i]);
        }
    }
}

/* What the executor says must be possible: it is part of the engine. */
static void check_result(const qn_step_seq *ordered, const qn_seq_result *result)
{
    QN_ASSERT(result->request == ordered->request);
    QN_ASSERT(result->n_accepted <= ordered->n_drafts);
    QN_ASSERT(result->n_tokens <= result->n_accepted + 1);
    if (!result->is_failed) {
        QN_ASSERT((result->n_tokens > 0) == ordered->is_drawing);
    }
}

static void learn(qn_sched *sched, sched_request *request, const qn_step_seq *ordered,
                  const qn_seq_result *result)
{
    if (ordered->n_drafts == 0) {
        return;
    }
    /* Where the answer ends, whether the next draft was right is not known. */
    const uint32_t depth = result->is_stopped ? result->n_accepted : ordered->n_drafts;
    qn_draft_batch_accept(&sched->draft_batch, &request->draft, depth, result->n_accepted);
    sched->counts.n_drafted += ordered->n_drafts;
    sched->counts.n_accepted += least(result->n_accepted, result->n_tokens);
}

/* Returns  tokens appended */
static uint32_t take_sequence(qn_sched *sched, sched_request *request, const qn_step_seq *ordered,
                              const qn_seq_result *result)
{
    QN_ASSERT(request->n_coming_min >= ordered->is_drawing);
    request->n_coming_min -= ordered->is_drawing;
    request->n_coming_max -= ordered->is_drawing ? 1 + ordered->n_drafts : 0;
    if (result->is_failed) {
        qn_sched_finish(sched, request, QN_SCHED_END_ERROR);
        return 0;
    }
    /* Drafts were ordered for the room that is left in the worst case. */
    QN_ASSERT(result->n_tokens <= request->n_ids_max - request->n_ids);
    memcpy(request->asked.ids + request->n_ids, result->tokens,
           result->n_tokens * sizeof *result->tokens);
    request->n_ids += result->n_tokens;
    learn(sched, request, ordered, result);
    /* Positions are verified whose tokens are known; of a prompt those that were ordered by now. */
    const uint32_t n_verified =
        ordered->is_prompt ? ordered->first + ordered->n_rows : request->n_ids;
    QN_ASSERT(result->n_complete <= n_verified);
    publish(sched, request, result->n_complete);
    if (result->is_stopped) {
        qn_sched_finish(sched, request, QN_SCHED_END_STOP);
    } else if (request->n_ids == request->n_ids_max) {
        qn_sched_finish(sched, request, QN_SCHED_END_LENGTH);
    }
    return result->n_tokens;
}

/* The step's requests end; where the device lost its memory, so do all that run. */
static void take_failure(qn_sched *sched, const sched_outstanding *outstanding, bool is_lost)
{
    for (uint32_t i = 0; i < outstanding->n_seqs; i++) {
        qn_sched_end_request(sched, outstanding->seqs[i].seq.request, QN_SCHED_END_ERROR);
    }
    if (is_lost) {
        while (sched->n_running > 0) {
            qn_sched_finish(sched, &sched->requests[sched->running[sched->n_running - 1]],
                            QN_SCHED_END_ERROR);
        }
        qn_sched_flush(sched);
        sched->n_published = 0; /* their bytes are gone */
    }
}

/* What the step cost.  Prompts have MTP passes of their own: then only the trunk's pass counts. */
static void learn_cost(qn_sched *sched, const sched_outstanding *outstanding,
                       const qn_step_result *result)
{
    qn_draft_cost cost = {
        .n_rows = outstanding->n_rows,
        .draft_s = result->draft_s,
        .verify_s = result->verify_s,
    };
    bool has_prompt = false;
    for (uint32_t i = 0; i < outstanding->n_seqs; i++) {
        const qn_step_seq *const seq = &outstanding->seqs[i].seq;
        has_prompt = has_prompt || seq->is_prompt;
        cost.n_passes = seq->n_drafts > cost.n_passes ? seq->n_drafts : cost.n_passes;
        cost.n_seqs += seq->n_drafts > 0;
        cost.n_drafts += seq->n_drafts;
    }
    if (has_prompt) {
        cost.n_passes = 0;
    }
    qn_draft_batch_observe(&sched->draft_batch, &cost);
}

void qn_sched_take_result(uint32_t *n_taken, qn_sched *sched, const qn_step_result *result,
                          uint64_t now_us)
{
    QN_ASSERT(sched->n_outstanding > 0);
    const sched_outstanding outstanding = sched->outstanding[0];
    QN_ASSERT(result->number == outstanding.number);
    /* Its list of sequences goes to the end of the line. */
    sched->n_outstanding--;
    memmove(&sched->outstanding[0], &sched->outstanding[1],
            (SCHED_STEPS_MAX - 1) * sizeof *sched->outstanding);
    sched->outstanding[SCHED_STEPS_MAX - 1] = outstanding;
    if (result->outcome != QN_STEP_DONE) {
        take_failure(sched, &outstanding, result->outcome == QN_STEP_LOST);
        qn_sched_expire(sched, now_us);
        return;
    }
    QN_ASSERT(result->n_seqs == outstanding.n_seqs);
    for (uint32_t i = 0; i < outstanding.n_seqs; i++) {
        const sched_ordered *const ordered = &outstanding.seqs[i];
        check_result(&ordered->seq, &result->seqs[i]);
        sched_request *const request = qn_sched_find(sched, ordered->seq.request);
        n_taken[i] = 0;
        if (request != NULL && request->phase == SCHED_RUNNING &&
            request->n_preempted == ordered->n_preempted) {
            n_taken[i] = take_sequence(sched, request, &ordered->seq, &result->seqs[i]);
        }
    }
    learn_cost(sched, &outstanding, result);
    qn_sched_expire(sched, now_us);
}
