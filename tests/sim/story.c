/* SPDX-License-Identifier: Apache-2.0 */
/* What is printed: the story of a seed, and what a checker found. */
#include "sim/sim.h"

#include <stdarg.h>
#include <stdlib.h>

const char *sim_reason_name(qn_sched_end_reason reason)
{
    static const char *const names[] = {"stop", "length", "cancel", "deadline", "error"};
    return (unsigned)reason < sizeof names / sizeof names[0] ? names[reason] : "no reason";
}

_Noreturn void sim_fail(const sim *s, const char *checker, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("sim: FAILED: %s: ", checker);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n  seed %llu, plan %llu (step %llu), %.3f ms; the story: sim --seed %llu --steps %llu "
           "--story\n",
           (unsigned long long)s->seed, (unsigned long long)s->n_plans,
           (unsigned long long)s->last_number, (double)s->now_us / 1000,
           (unsigned long long)s->seed, (unsigned long long)s->n_steps_wanted);
    (void)fflush(stdout);
    exit(1);
}

void sim_tell(const sim *s, const char *format, ...)
{
    if (!s->tells_story) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    printf("%11.3f  ", (double)s->now_us / 1000);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static uint32_t number_of(const sim *s, qn_request_id id)
{
    const sim_request *request = sim_request_find(s, id);
    return request == NULL ? 0 : request->number;
}

/* Called before the step is applied, so slots still hold who was there. */
void sim_tell_step(const sim *s)
{
    const qn_step *step = &s->step;
    if (!s->tells_story || step->n_seqs + step->n_begins + step->n_pages + step->n_published == 0) {
        return;
    }
    sim_tell(s, "step %llu: %u rows of %u sequences, %u page entries, %u published",
             (unsigned long long)step->number, step->n_rows, step->n_seqs, step->n_pages,
             step->n_published);
    for (uint32_t i = 0; i < step->n_begins; i++) {
        const qn_step_begin *begin = &step->begins[i];
        const sim_request *request = sim_request_find(s, begin->request);
        sim_tell(s, "  r%u is admitted to slot %u, %u of its %u ids cached",
                 number_of(s, begin->request), begin->slot, begin->n_cached,
                 request == NULL ? 0 : request->n_prompt + request->n_drawn);
    }
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const qn_step_seq *seq = &step->seqs[i];
        if (seq->is_prompt) {
            sim_tell(s, "  r%u slot %u: prompt %u .. %u%s", number_of(s, seq->request), seq->slot,
                     seq->first, seq->first + seq->n_rows - 1, seq->is_drawing ? ", draws" : "");
        } else {
            sim_tell(s, "  r%u slot %u: 1 row and %u drafts", number_of(s, seq->request), seq->slot,
                     seq->n_drafts);
        }
    }
}

void sim_tell_summary(const sim *s)
{
    if (!s->tells_story) {
        return;
    }
    const sim_totals *t = &s->totals;
    printf("%llu steps, %llu rows; %llu requests, %llu refused; ended: %llu stop, %llu length, "
           "%llu cancel, %llu deadline, %llu error\n",
           (unsigned long long)t->n_steps, (unsigned long long)t->n_rows,
           (unsigned long long)t->n_submitted, (unsigned long long)t->n_refused,
           (unsigned long long)t->n_ended[QN_SCHED_END_STOP],
           (unsigned long long)t->n_ended[QN_SCHED_END_LENGTH],
           (unsigned long long)t->n_ended[QN_SCHED_END_CANCEL],
           (unsigned long long)t->n_ended[QN_SCHED_END_DEADLINE],
           (unsigned long long)t->n_ended[QN_SCHED_END_ERROR]);
    printf("%llu tokens; %llu of %llu prompt ids cached; %llu preempted; pages: %llu published, "
           "%llu exchanged, %llu evicted; %llu flushes, %llu failed steps, %llu devices lost\n",
           (unsigned long long)t->n_tokens, (unsigned long long)t->n_hit,
           (unsigned long long)t->n_queried, (unsigned long long)t->n_preempted,
           (unsigned long long)t->n_published, (unsigned long long)t->n_exchanged,
           (unsigned long long)t->n_evicted, (unsigned long long)t->n_flushes,
           (unsigned long long)t->n_failed_steps, (unsigned long long)t->n_lost);
}
