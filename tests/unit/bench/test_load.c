/* SPDX-License-Identifier: Apache-2.0 */
/* A load by a clock that jumps from one event to the next, and requests that take a second. */
#include "bench/load.h"
#include "support/unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 64 };

/* A world: what runs, and when it will end. */
typedef struct world {
    bench_call calls[N_MAX];
    double due_s[N_MAX], sent_s[N_MAX], end_s[N_MAX];
    size_t n_sent, n_seen, n_active, n_active_max, n_turns;
    double takes_s, now_s, stop_s;
    bench_end end;         /* of every request */
    uint64_t n_fails_from; /* of the supply */
} world;

static qn_status first(void *context, uint64_t i, bench_call *call, qn_error *err)
{
    const world *const w = context;
    if (i >= w->n_fails_from) {
        return qn_fail(err, QN_E_NOMEM, 0, __func__, "no memory");
    }
    *call = (bench_call){.id = i, .conversation = (uint32_t)i, .owned = malloc(1)};
    return QN_OK;
}

static bool after(void *context, const bench_record *record, bench_call *call)
{
    const world *const w = context;
    if (record->call.turn + 1 >= w->n_turns) {
        return false;
    }
    *call = (bench_call){.id = record->call.id,
                         .conversation = record->call.conversation,
                         .turn = record->call.turn + 1,
                         .owned = malloc(1)};
    return true;
}

static bool goes_on(void *context)
{
    const world *const w = context;
    return w->now_s < w->stop_s;
}

static void seen(void *context, bench_record *record)
{
    world *const w = context;
    (void)record;
    w->n_seen++;
}

void bench_record_free(bench_record *record)
{
    (void)record; /* on the stack of end_next() */
}

/* The request that ends next ends. */
static void end_next(world *w, const bench_source *source, bool is_cancelled)
{
    size_t i_first = N_MAX;
    for (size_t i = 0; i < w->n_sent; i++) {
        if (!isnan(w->end_s[i]) && (i_first == N_MAX || w->end_s[i] < w->end_s[i_first])) {
            i_first = i;
        }
    }
    assert_true(i_first < N_MAX);
    w->now_s = is_cancelled ? w->now_s : w->end_s[i_first];
    bench_record record = {.call = w->calls[i_first],
                           .due_s = w->due_s[i_first],
                           .sent_s = w->sent_s[i_first],
                           .end_s = w->now_s,
                           .end = is_cancelled ? BENCH_CANCELLED : w->end};
    free(w->calls[i_first].owned);
    w->calls[i_first].owned = NULL;
    w->end_s[i_first] = (double)NAN;
    w->n_active--;
    source->done(source->context, &record);
}

static double next_end(const world *w)
{
    double next_s = (double)INFINITY;
    for (size_t i = 0; i < w->n_sent; i++) {
        next_s = fmin(next_s, w->end_s[i]); /* NaN: ended */
    }
    return next_s;
}

/* Does what a client does. */
static bench_want drive(world *w, bench_load *load)
{
    const bench_source source = bench_load_source(load);
    for (;;) {
        bench_call call = {0};
        double when_s = (double)NAN;
        const bench_want want = source.next(source.context, w->now_s, &call, &when_s);
        source.tick(source.context, w->now_s);
        switch (want) {
        case BENCH_SEND:
            assert_true(w->n_sent < N_MAX);
            w->calls[w->n_sent] = call;
            w->due_s[w->n_sent] = when_s;
            w->sent_s[w->n_sent] = w->now_s;
            w->end_s[w->n_sent++] = w->now_s + w->takes_s;
            w->n_active++;
            w->n_active_max = w->n_active > w->n_active_max ? w->n_active : w->n_active_max;
            break;
        case BENCH_WAIT:
            if (next_end(w) < when_s) {
                end_next(w, &source, false);
            } else {
                w->now_s = when_s;
            }
            break;
        case BENCH_IDLE: end_next(w, &source, false); break;
        case BENCH_END_OF_RUN:
        case BENCH_STOP:
            while (w->n_active > 0) {
                end_next(w, &source, want == BENCH_STOP);
            }
            return want;
        }
    }
}

static bench_want run(world *w, const double *due_s, uint64_t n, size_t n_at_once, double until_s)
{
    const bench_load_options options = {.supply = {w, first, after},
                                        .n_conversations = n,
                                        .due_s = due_s,
                                        .n_at_once = n_at_once,
                                        .until_s = until_s,
                                        .context = w,
                                        .goes_on = goes_on,
                                        .seen = seen};
    bench_load *load = NULL;
    assert_int_equal(bench_load_open(&load, &options, NULL), QN_OK);
    const bench_want want = drive(w, load);
    assert_int_equal(bench_load_n_sent(load), w->n_sent);
    assert_int_equal(w->n_seen, w->n_sent);
    qn_error err = {0};
    assert_int_equal(bench_load_status(load, &err),
                     w->n_fails_from < n && want == BENCH_STOP ? QN_E_NOMEM : QN_OK);
    bench_load_close(&load);
    return want;
}

static world new_world(void)
{
    return (world){.takes_s = 1.0,
                   .n_turns = 1,
                   .stop_s = (double)INFINITY,
                   .end = BENCH_DONE,
                   .n_fails_from = UINT64_MAX};
}

static void test_open_loop_sends_when_it_is_due(void **state)
{
    static const double due_s[] = {0.0, 0.1, 0.1, 2.5};
    world w = new_world();
    (void)state;
    assert_int_equal(run(&w, due_s, 4, N_MAX, (double)INFINITY), BENCH_END_OF_RUN);
    assert_int_equal(w.n_sent, 4);
    assert_int_equal(w.n_active_max, 3);
    for (size_t i = 0; i < 4; i++) {
        assert_true(w.due_s[i] == due_s[i] && w.sent_s[i] == due_s[i]);
        assert_int_equal(w.calls[i].id, i);
        assert_true(w.calls[i].ready_s == 0.0);
    }
}

/* A limit delays, and what is due stays what it was: that is what latencies count from. */
static void test_a_limit_holds_back_and_the_intended_start_stays(void **state)
{
    static const double due_s[] = {0.0, 0.1, 0.2, 0.3};
    world w = new_world();
    (void)state;
    assert_int_equal(run(&w, due_s, 4, 2, (double)INFINITY), BENCH_END_OF_RUN);
    assert_int_equal(w.n_active_max, 2);
    assert_true(w.due_s[2] == 0.2 && w.sent_s[2] == 1.0 && w.calls[2].ready_s == 1.0);
    assert_true(w.due_s[3] == 0.3 && fabs(w.sent_s[3] - 1.1) < 1e-9);
}

static void test_closed_loop_keeps_so_many_under_way(void **state)
{
    world w = new_world();
    (void)state;
    assert_int_equal(run(&w, NULL, 9, 3, (double)INFINITY), BENCH_END_OF_RUN);
    assert_int_equal(w.n_sent, 9);
    assert_int_equal(w.n_active_max, 3);
    for (size_t i = 0; i < 9; i++) {
        const size_t i_round = i / 3;
        assert_true(w.due_s[i] == (double)i_round); /* when a place came free */
    }
}

static void test_nothing_is_sent_behind_the_end(void **state)
{
    world w = new_world();
    (void)state;
    w.n_turns = 100;
    assert_int_equal(run(&w, NULL, 20, 2, 3.5), BENCH_END_OF_RUN);
    assert_int_equal(w.n_sent, 8); /* at 0, 1, 2 and 3 */
    assert_true(w.now_s == 4.0);   /* and the last were waited for */
}

static void test_turns_follow_answers(void **state)
{
    static const double due_s[] = {0.0, 0.5};
    world w = new_world();
    (void)state;
    w.n_turns = 3;
    assert_int_equal(run(&w, due_s, 2, N_MAX, (double)INFINITY), BENCH_END_OF_RUN);
    assert_int_equal(w.n_sent, 6);
    for (size_t i = 0; i < 6; i++) {
        const double begun_s = due_s[w.calls[i].conversation];
        assert_true(w.due_s[i] == begun_s + w.calls[i].turn);
    }
}

static void test_a_conversation_ends_with_what_failed(void **state)
{
    world w = new_world();
    (void)state;
    w.n_turns = 3;
    w.end = BENCH_SERVER;
    assert_int_equal(run(&w, NULL, 5, 1, (double)INFINITY), BENCH_END_OF_RUN);
    assert_int_equal(w.n_sent, 5);
}

static void test_stop_stops_with_turns_that_wait(void **state)
{
    world w = new_world();
    (void)state;
    w.n_turns = 50;
    w.stop_s = 3.0;
    assert_int_equal(run(&w, NULL, 50, 4, (double)INFINITY), BENCH_STOP);
    assert_int_equal(w.n_sent, 12);
}

static void test_a_supply_that_fails_ends_the_run(void **state)
{
    world w = new_world();
    (void)state;
    w.n_fails_from = 3;
    assert_int_equal(run(&w, NULL, 8, 2, (double)INFINITY), BENCH_STOP);
    assert_int_equal(w.n_sent, 3);
}

/* Two places come free in one turn: the second request that they had held back was booked to the
 * client, as late since it was due. */
static void test_what_was_held_back_is_late_from_when_there_was_room(void **state)
{
    static const double due_s[] = {0.0, 0.1, 0.2, 0.3, 1.5};
    world w = new_world();
    const bench_load_options options = {.supply = {&w, first, after},
                                        .n_conversations = 5,
                                        .due_s = due_s,
                                        .n_at_once = 2,
                                        .until_s = (double)INFINITY,
                                        .context = &w,
                                        .goes_on = goes_on,
                                        .seen = seen};
    static const double now_s[] = {0.0, 0.1, 1.01, 1.01, 2.1};
    static const double ready_s[] = {0.0, 0.0, 1.0, 1.0, 2.0};
    bench_load *load = NULL;
    double when_s = 0.0;
    (void)state;
    assert_int_equal(bench_load_open(&load, &options, NULL), QN_OK);
    const bench_source source = bench_load_source(load);
    for (int i = 0; i < 5; i++) {
        bench_call call = {0};
        if (i == 2 || i == 4) {
            bench_record ended = {.end_s = i == 2 ? 1.0 : 2.0, .end = BENCH_DONE};
            assert_int_equal(source.next(source.context, 0.5 * i, &call, &when_s), BENCH_IDLE);
            source.done(source.context, &ended);
            source.done(source.context, &ended);
        }
        assert_int_equal(source.next(source.context, now_s[i], &call, &when_s), BENCH_SEND);
        assert_true(call.ready_s == ready_s[i]);
        free(call.owned);
    }
    bench_load_close(&load);
}

/* Of a crowd that is due at once each was booked as late by all before it. */
static void test_a_crowd_is_late_by_its_own_send_alone(void **state)
{
    static const double due_s[3] = {0.0, 0.0, 0.0};
    world w = new_world();
    const bench_load_options options = {.supply = {&w, first, after},
                                        .n_conversations = 3,
                                        .due_s = due_s,
                                        .n_at_once = 9,
                                        .until_s = (double)INFINITY,
                                        .context = &w,
                                        .goes_on = goes_on,
                                        .seen = seen};
    bench_load *load = NULL;
    double when_s = 0.0;
    (void)state;
    assert_int_equal(bench_load_open(&load, &options, NULL), QN_OK);
    const bench_source source = bench_load_source(load);
    for (int i = 0; i < 3; i++) {
        bench_call call = {0};
        assert_int_equal(source.next(source.context, 0.01 * (i + 1), &call, &when_s), BENCH_SEND);
        assert_true(when_s == 0.0);
        assert_true(call.ready_s == 0.01 * i);
        free(call.owned);
    }
    bench_load_close(&load);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_held_back_is_late_from_when_there_was_room),
        cmocka_unit_test(test_a_crowd_is_late_by_its_own_send_alone),
        cmocka_unit_test(test_open_loop_sends_when_it_is_due),
        cmocka_unit_test(test_a_limit_holds_back_and_the_intended_start_stays),
        cmocka_unit_test(test_closed_loop_keeps_so_many_under_way),
        cmocka_unit_test(test_nothing_is_sent_behind_the_end),
        cmocka_unit_test(test_turns_follow_answers),
        cmocka_unit_test(test_a_conversation_ends_with_what_failed),
        cmocka_unit_test(test_stop_stops_with_turns_that_wait),
        cmocka_unit_test(test_a_supply_that_fails_ends_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
