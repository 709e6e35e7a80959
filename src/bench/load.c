/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include "base/try.h"

#include <stdlib.h>

/* A turn that an answer has made due. */
typedef struct follow_up {
    bench_call call;
    double due_s;
} follow_up;

struct bench_load {
    bench_load_options options;
    uint64_t i_next; /* conversations begun */
    bool is_crowd;   /* all are due at one moment */
    size_t n_active; /* requests under way */
    bool was_full;   /* as many as may be, when it was asked last */
    double ready_s;  /* what was due before could not be sent until then */
    double freed_s;  /* when one ended last: in a closed loop the next is due then */
    double last_s;
    uint64_t n_sent;
    follow_up *follow_ups; /* ring [n_at_once]: each belongs to a request that has ended */
    size_t i_follow_up, n_follow_ups;
    qn_status status;
    qn_error error;
};

qn_status bench_load_open(bench_load **out, const bench_load_options *options, qn_error *err)
{
    bench_load *load = calloc(1, sizeof *load);
    *out = NULL;
    if (load == NULL) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "load: no memory");
    }
    load->options = *options;
    load->is_crowd = options->due_s != NULL && options->n_conversations > 1 &&
                     options->due_s[0] == options->due_s[options->n_conversations - 1];
    load->follow_ups = calloc(options->n_at_once, sizeof *load->follow_ups);
    if (load->follow_ups == NULL) {
        free(load);
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "load: no memory");
    }
    *out = load;
    return QN_OK;
}

void bench_load_close(bench_load **load)
{
    bench_load *const l = *load;
    if (l == NULL) {
        return;
    }
    for (size_t i = 0; i < l->n_follow_ups; i++) {
        free(l->follow_ups[(l->i_follow_up + i) % l->options.n_at_once].call.owned);
    }
    free(l->follow_ups);
    free(l);
    *load = NULL;
}

static bench_want send(bench_load *l, double now_s, double due_s, bench_call *call, double *when_s)
{
    *when_s = due_s;
    l->ready_s = l->was_full ? l->freed_s : l->ready_s;
    l->was_full = false;
    call->ready_s = l->ready_s;
    /* Of a crowd that is due at once each waits for those before it: the next from now on. */
    l->ready_s = l->is_crowd ? now_s : l->ready_s;
    l->n_active++;
    l->n_sent++;
    l->last_s = now_s;
    return BENCH_SEND;
}

/* A conversation that is due and cannot begin is no follow-up's loss: those come first, so that a
 * limit of requests at once holds back users who have not begun, as a full server would. */
static bench_want next(void *context, double now_s, bench_call *call, double *when_s)
{
    bench_load *const l = context;
    const bench_load_options *const o = &l->options;
    if (l->status < 0 || !o->goes_on(o->context)) {
        return BENCH_STOP;
    }
    const bool may_begin = l->i_next < o->n_conversations && now_s < o->until_s;
    if (l->n_follow_ups == 0 && !may_begin) {
        return l->n_active == 0 ? BENCH_END_OF_RUN : BENCH_IDLE;
    }
    if (l->n_active >= o->n_at_once) {
        l->was_full = true;
        return BENCH_IDLE;
    }
    if (l->n_follow_ups > 0) {
        const follow_up *const f = &l->follow_ups[l->i_follow_up];
        *call = f->call;
        l->i_follow_up = (l->i_follow_up + 1) % o->n_at_once;
        l->n_follow_ups--;
        return send(l, now_s, f->due_s, call, when_s);
    }
    /* The first of a closed loop come together and have no moment: none of them is late. */
    const double free_s = l->freed_s > 0.0 ? l->freed_s : now_s;
    const double due_s = o->due_s != NULL ? o->due_s[l->i_next] : free_s;
    if (due_s > now_s) {
        *when_s = due_s;
        return BENCH_WAIT;
    }
    l->status = o->supply.first(o->supply.context, o->i_first + l->i_next, call, &l->error);
    if (l->status < 0) {
        return BENCH_STOP;
    }
    l->i_next++;
    return send(l, now_s, due_s, call, when_s);
}

static void done(void *context, bench_record *record)
{
    bench_load *const l = context;
    const bench_load_options *const o = &l->options;
    l->n_active--;
    l->freed_s = record->end_s > l->freed_s ? record->end_s : l->freed_s;
    if (record->end == BENCH_DONE && record->end_s < o->until_s && l->n_follow_ups < o->n_at_once) {
        follow_up *const f = &l->follow_ups[(l->i_follow_up + l->n_follow_ups) % o->n_at_once];
        f->due_s = record->end_s;
        l->n_follow_ups += o->supply.after(o->supply.context, record, &f->call) ? 1 : 0;
    }
    o->seen(o->context, record);
    bench_record_free(record);
}

static size_t n_held(const bench_load *l, double now_s)
{
    size_t n = l->n_follow_ups;
    for (uint64_t i = l->i_next;
         l->options.due_s != NULL && i < l->options.n_conversations && l->options.due_s[i] <= now_s;
         i++) {
        n++;
    }
    return n;
}

static void tick(void *context, double now_s)
{
    bench_load *const l = context;
    if (l->options.tick != NULL) {
        l->options.tick(l->options.context, now_s, n_held(l, now_s));
    }
}

bench_source bench_load_source(bench_load *load)
{
    return (bench_source){load, next, done, tick};
}

qn_status bench_load_status(const bench_load *load, qn_error *err)
{
    if (load->status < 0 && err != NULL) {
        *err = load->error;
    }
    return load->status;
}

uint64_t bench_load_n_sent(const bench_load *load)
{
    return load->n_sent;
}

double bench_load_last_s(const bench_load *load)
{
    return load->last_s;
}
