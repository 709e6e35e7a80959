/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "fake_engine.h"
#include "server/worker.h"
#include "support/fail_alloc.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WAIT_MS = 120 * 1000, TICKETS_MAX = 512 };

/* A test's exchange is its request. */
struct server_exchange {
    qn_request request;
    int32_t ids[4];
};

qn_request exchange_choice(const server_exchange *exchange, size_t i_choice, qn_sampling *sampling)
{
    qn_request request = exchange->request;
    *sampling = (qn_sampling){.top_p = 1.0F};
    request.sampling = sampling;
    request.ids = exchange->ids + i_choice;
    request.n_ids = request.n_ids > 0 ? request.n_ids - i_choice : 0;
    return request;
}

/* A worker over a fake engine, and what became of its tickets. */
typedef struct world {
    fake_engine engine;
    int wake_fd;
    server_worker *worker;
    worker_ticket tickets[TICKETS_MAX];
    struct {
        uint32_t n_accepted, n_tokens, n_ends;
        qn_finish finish;
        qn_error error;
        qn_session_stats stats;
        char text[256]; /* its beginning: some answers run on until they are cancelled */
    } told[TICKETS_MAX];
    uint32_t n_ends, n_ready, n_failed, n_flushed;
    qn_error failure;
} world;

static world w;

static server_exchange question(int32_t first, uint32_t max_tokens)
{
    return (server_exchange){.request = {.n_ids = 4, .max_tokens = max_tokens},
                             .ids = {first, 100 + first, 200 + first, 3}};
}

static void see_event(size_t i, const qn_event *event)
{
    assert_int_equal(w.told[i].n_ends, 0);
    assert_int_equal(w.told[i].n_accepted, 1);
    assert_ptr_equal(event->tag, &w.tickets[i]);
    if (event->kind == QN_EVENT_TOKEN) {
        const server_exchange *const asked = w.tickets[i].exchange;
        const int32_t token = asked->ids[w.tickets[i].i_choice] + (int32_t)w.told[i].n_tokens;
        assert_int_equal(event->token.token, token);
        assert_int_equal(event->n_top, asked->request.n_top_logprobs);
        for (uint32_t i_top = 0; i_top < event->n_top; i_top++) {
            assert_int_equal(event->top[i_top].token, token + (int32_t)i_top);
            assert_true(event->top[i_top].logprob == -0.5F - (float)i_top);
        }
        w.told[i].n_tokens++;
    } else if (event->len > 0) {
        const size_t len = strlen(w.told[i].text);
        const size_t room = sizeof w.told[i].text - 1 - len;
        const size_t n_kept = event->len < room ? event->len : room;
        memcpy(w.told[i].text + len, event->text, n_kept);
        w.told[i].text[len + n_kept] = '\0';
    }
}

static void see_end(size_t i, const qn_event *event)
{
    assert_int_equal(w.told[i].n_ends, 0);
    assert_int_equal(event->kind, QN_EVENT_END);
    assert_non_null(event->stats);
    w.told[i].n_ends++;
    w.told[i].finish = event->finish;
    w.told[i].stats = *event->stats;
    w.told[i].error = event->error != NULL ? *event->error : (qn_error){0};
    assert_int_equal(event->error != NULL, event->finish == QN_FINISH_ERROR);
    w.n_ends++;
}

/* Take all news that there are. */
static void take_news(void)
{
    worker_news news;
    worker_ticket *ticket = NULL;
    qn_event event;
    while (worker_poll(w.worker, &news, &ticket, &event)) {
        const bool has_ticket =
            news == WORKER_ACCEPTED || news == WORKER_EVENT || news == WORKER_END;
        assert_int_equal(ticket != NULL, has_ticket);
        const size_t i = has_ticket ? (size_t)(ticket - w.tickets) : 0;
        switch (news) {
        case WORKER_READY: w.n_ready++; break;
        case WORKER_FAILED:
            w.n_failed++;
            w.failure = *event.error;
            break;
        case WORKER_FLUSHED: w.n_flushed++; break;
        case WORKER_ACCEPTED:
            w.told[i].n_accepted++;
            assert_int_equal(w.told[i].n_tokens + w.told[i].n_ends, 0);
            break;
        case WORKER_EVENT: see_event(i, &event); break;
        case WORKER_END: see_end(i, &event); break;
        }
    }
}

/* Until *count is @p n, as a loop does: sleep, read the eventfd, take the news. */
static void await(const uint32_t *count, uint32_t n)
{
    while (*count < n) {
        struct pollfd descriptor = {.fd = w.wake_fd, .events = POLLIN};
        eventfd_t value = 0;
        assert_int_equal(poll(&descriptor, 1, WAIT_MS), 1);
        assert_int_equal(eventfd_read(w.wake_fd, &value), 0);
        take_news();
    }
    assert_int_equal(*count, n);
}

/* Zero the world, whatever a test left in it. */
static void begin(uint32_t n_sequences, uint32_t n_queue)
{
    memset(&w, 0, sizeof w);
    w.engine.n_sequences = n_sequences;
    w.engine.n_queue = n_queue;
    (void)pthread_mutex_init(&w.engine.mutex, NULL);
    (void)pthread_cond_init(&w.engine.changed, NULL);
    w.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(w.wake_fd >= 0);
}

static void open_worker(void)
{
    qn_error err = {0};
    assert_int_equal(worker_open(&w.worker, fake_load, &w.engine, NULL, w.wake_fd, &err), QN_OK);
}

static void open_ready(uint32_t n_sequences, uint32_t n_queue)
{
    begin(n_sequences, n_queue);
    open_worker();
    await(&w.n_ready, 1);
    assert_non_null(worker_backend(w.worker));
}

static void end(void)
{
    worker_close(&w.worker);
    assert_null(w.worker);
    assert_int_equal(w.engine.n_closes, w.engine.faults.load < 0 ? 0 : 1);
    (void)close(w.wake_fd);
    (void)pthread_cond_destroy(&w.engine.changed);
    (void)pthread_mutex_destroy(&w.engine.mutex);
}

static void submit(size_t i, const server_exchange *exchange)
{
    w.tickets[i] = (worker_ticket){.exchange = exchange};
    worker_submit(w.worker, &w.tickets[i], 1);
}

static void test_ready_after_self_test(void **state)
{
    (void)state;
    begin(8, 100);
    open_worker();
    assert_null(worker_backend(w.worker));
    await(&w.n_ready, 1);
    const server_backend *const backend = worker_backend(w.worker);
    assert_non_null(backend);
    assert_int_equal(backend->n_sequences, 8);
    assert_int_equal(w.engine.n_submits, 20); /* one, a long one, eight at once; all again */
    assert_int_equal(w.engine.n_running_max, 8);
    assert_true(w.engine.n_prompt_max > 64);
    assert_int_equal(w.engine.n_flushes, 1);
    const qn_engine_stats stats = worker_get_stats(w.worker);
    assert_int_equal(stats.n_generated_tokens + stats.n_steps, 0);
    end();
}

/* The self-test has to work however small the engine is. */
static void test_self_test_of_small_engines(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 12; n++) {
        open_ready(n, n % 3 + 1);
        assert_int_equal(w.engine.n_submits, 2 * (2 + (n < 8 ? n : 8)));
        end();
    }
}

static void test_events_arrive_whole_and_in_order(void **state)
{
    (void)state;
    open_ready(8, 100);
    server_exchange asked[3] = {question(10, 5), question(500, 1), question(90, 9)};
    asked[2].request.n_top_logprobs = 2;
    for (size_t i = 0; i < 3; i++) {
        submit(i, &asked[i]);
    }
    await(&w.n_ends, 3);
    assert_string_equal(w.told[0].text, "10 11 12 13 14 ");
    assert_string_equal(w.told[1].text, "500 ");
    assert_string_equal(w.told[2].text, "90 91 92 93 94 95 96 97 98 ");
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(w.told[i].finish, QN_FINISH_LENGTH);
        assert_int_equal(w.told[i].stats.n_prompt_tokens, 4);
        assert_int_equal(w.told[i].stats.n_generated_tokens, w.told[i].n_tokens);
    }
    assert_int_equal(worker_get_stats(w.worker).n_generated_tokens, 15);
    end();
}

static void test_choices_of_an_exchange(void **state)
{
    (void)state;
    open_ready(8, 100);
    const server_exchange asked = question(10, 2);
    for (size_t i = 0; i < 3; i++) {
        w.tickets[i] = (worker_ticket){.exchange = &asked, .i_choice = i};
    }
    worker_submit(w.worker, w.tickets, 3);
    await(&w.n_ends, 3);
    assert_string_equal(w.told[0].text, "10 11 ");
    assert_string_equal(w.told[1].text, "110 111 ");
    assert_string_equal(w.told[2].text, "210 211 ");
    end();
}

static void test_cancel_before_the_engine_saw_it(void **state)
{
    (void)state;
    open_ready(8, 100);
    const server_exchange asked = question(10, 2);
    fake_hold(&w.engine);
    submit(0, &asked);
    fake_await_step(&w.engine);
    const uint32_t n_submits = w.engine.n_submits;
    submit(1, &asked);
    worker_cancel(w.worker, &w.tickets[1]);
    worker_cancel(w.worker, &w.tickets[1]);
    fake_release(&w.engine);
    await(&w.n_ends, 2);
    assert_int_equal(w.told[0].finish, QN_FINISH_LENGTH);
    assert_int_equal(w.told[1].finish, QN_FINISH_ABORT);
    assert_int_equal(w.told[1].n_accepted, 0);
    assert_int_equal(w.engine.n_submits, n_submits);
    end();
}

/* One that runs, one that waits behind it: the step after the one at hand ends both. */
static void test_cancel_ends_with_the_next_step(void **state)
{
    (void)state;
    open_ready(1, 100);
    const server_exchange asked = question(10, 1000);
    fake_hold(&w.engine);
    submit(0, &asked);
    submit(1, &asked);
    fake_await_step(&w.engine);
    const uint32_t n_steps = w.engine.n_steps;
    worker_cancel(w.worker, &w.tickets[0]);
    worker_cancel(w.worker, &w.tickets[1]);
    fake_release(&w.engine);
    await(&w.n_ends, 2);
    assert_int_equal(w.told[0].finish, QN_FINISH_ABORT);
    assert_int_equal(w.told[1].finish, QN_FINISH_ABORT);
    assert_true(w.told[0].n_tokens <= 1);
    assert_true(w.engine.n_steps <= n_steps + 3); /* at hand, the ends, and one that finds none */
    end();
}

/* The loop cannot know that an END is on its way. */
static void test_cancel_of_one_that_has_ended(void **state)
{
    (void)state;
    open_ready(8, 100);
    const server_exchange asked = question(10, 1);
    submit(0, &asked);
    while (worker_get_stats(w.worker).n_generated_tokens == 0) {
        struct pollfd descriptor = {.fd = w.wake_fd, .events = POLLIN};
        assert_int_equal(poll(&descriptor, 1, WAIT_MS), 1);
    }
    worker_cancel(w.worker, &w.tickets[0]);
    await(&w.n_ends, 1);
    memset(&w.tickets[0], 0xa5, sizeof w.tickets[0]); /* it is ours again */
    submit(1, &asked);
    await(&w.n_ends, 2);
    assert_int_equal(w.told[0].finish, QN_FINISH_LENGTH);
    assert_int_equal(w.told[1].finish, QN_FINISH_LENGTH);
    end();
}

static void test_refusals(void **state)
{
    (void)state;
    open_ready(2, 3);
    const server_exchange asked = question(10, 4);
    server_exchange empty = question(10, 4);
    empty.request.n_ids = 0;
    for (size_t i = 0; i < 10; i++) {
        w.tickets[i] = (worker_ticket){.exchange = &asked};
    }
    /* Two run and three wait; the queue alone would have taken three. */
    fake_hold(&w.engine);
    worker_submit(w.worker, w.tickets, 10);
    fake_await_step(&w.engine);
    fake_release(&w.engine);
    await(&w.n_ends, 10);
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(w.told[i].n_accepted, i < 5);
        assert_int_equal(w.told[i].finish, i < 5 ? QN_FINISH_LENGTH : QN_FINISH_ERROR);
        assert_int_equal(w.told[i].error.status, i < 5 ? QN_OK : QN_AGAIN);
        assert_int_equal(strstr(w.told[i].error.text, "queue: full with 3") != NULL, i >= 5);
    }
    submit(11, &empty);
    await(&w.n_ends, 11);
    assert_int_equal(w.told[11].n_accepted, 0);
    assert_int_equal(w.told[11].error.status, QN_E_INVAL);
    assert_string_equal(w.told[11].error.text, "prompt: no tokens, 1 expected");
    end();
}

/* However short the queue, sequences that are free are there for whoever comes. */
static void test_burst_at_an_idle_engine(void **state)
{
    (void)state;
    open_ready(64, 8);
    const server_exchange asked = question(10, 50);
    for (size_t i = 0; i < 80; i++) {
        w.tickets[i] = (worker_ticket){.exchange = &asked};
    }
    worker_submit(w.worker, w.tickets, 80);
    await(&w.n_ends, 80);
    for (size_t i = 0; i < 80; i++) {
        assert_int_equal(w.told[i].error.status, i < 72 ? QN_OK : QN_AGAIN);
    }
    end();
}

/* Where pages are scarce the queue is full though sequences are free: nobody waits for its end. */
static void test_refusals_without_pages(void **state)
{
    (void)state;
    open_ready(4, 2);
    w.engine.n_admitted_max = 1; /* the worker is idle: its thread does not look */
    const server_exchange asked = question(10, 100000);
    for (size_t i = 0; i < 6; i++) {
        w.tickets[i] = (worker_ticket){.exchange = &asked};
    }
    worker_submit(w.worker, w.tickets, 6);
    await(&w.n_ends, 3);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(w.told[i].error.status, i < 3 ? QN_OK : QN_AGAIN);
        assert_int_equal(w.told[i].n_ends, i < 3 ? 0 : 1);
    }
    end();
}

static void test_failing_step(void **state)
{
    (void)state;
    open_ready(2, 8);
    const server_exchange asked = question(10, 1000);
    fake_hold(&w.engine);
    for (size_t i = 0; i < 5; i++) {
        submit(i, &asked);
    }
    fake_await_step(&w.engine);
    w.engine.faults.step = QN_E_DEVICE;
    submit(5, &asked);
    fake_release(&w.engine);
    await(&w.n_failed, 1);
    submit(6, &asked);
    worker_flush(w.worker);
    await(&w.n_ends, 7);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(w.told[i].error.status, QN_E_DEVICE);
        assert_string_equal(w.told[i].error.text, "device: lost, one expected");
    }
    assert_int_equal(w.failure.status, QN_E_DEVICE);
    const uint32_t n = 1;
    await(&w.n_flushed, n);
    end();
}

static void test_failing_load(void **state)
{
    (void)state;
    begin(2, 8);
    w.engine.faults.load = QN_E_NOT_FOUND;
    open_worker();
    await(&w.n_failed, 1);
    assert_int_equal(w.failure.status, QN_E_NOT_FOUND);
    assert_string_equal(w.failure.text, "models/none: not there, one expected");
    assert_null(worker_backend(w.worker));
    const server_exchange asked = question(10, 1);
    submit(0, &asked);
    await(&w.n_ends, 1);
    assert_int_equal(w.told[0].error.status, QN_E_NOT_FOUND);
    end();
}

static void test_self_test_finds(void **state)
{
    (void)state;
    const struct {
        fake_faults faults;
        const char *expected;
    } cases[] = {
        {{.bad_token = true}, "self-test: token -1, 0 "},
        {{.bad_text = true}, "self-test: text of 1 bytes, whole characters of UTF-8 expected"},
        {{.forgets = true}, "self-test: a prompt of 1 tokens, asked again: token 0 is 7777, 0 as"},
        {{.breaks_off = true}, "self-test: a prompt of 1 tokens, asked again: 2 tokens, 8 as the"},
        {{.end_error = true}, "self-test: logits: none, numbers expected"},
        {{.loses = true}, "self-test: no END after 10000 steps, one expected"},
        {{.step = QN_E_DEVICE}, "device: lost, one expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin(8, 8);
        w.engine.faults = cases[i].faults;
        open_worker();
        await(&w.n_failed, 1);
        assert_true(w.failure.status < 0);
        if (strncmp(w.failure.text, cases[i].expected, strlen(cases[i].expected)) != 0) {
            fail_msg("'%s', '%s' expected", w.failure.text, cases[i].expected);
        }
        assert_int_equal(w.n_ready, 0);
        end();
    }
}

static void test_flush_between_steps(void **state)
{
    (void)state;
    open_ready(2, 8);
    worker_flush(w.worker);
    await(&w.n_flushed, 1);
    assert_int_equal(w.engine.n_flushes, 2);
    const server_exchange asked = question(10, 1000);
    submit(0, &asked);
    worker_flush(w.worker);
    await(&w.n_flushed, 2);
    worker_cancel(w.worker, &w.tickets[0]);
    await(&w.n_ends, 1);
    end();
}

static void test_close_while_requests_run(void **state)
{
    (void)state;
    open_ready(2, 100);
    const server_exchange asked = question(10, 1000000);
    for (size_t i = 0; i < 50; i++) {
        submit(i, &asked);
    }
    end();
    begin(2, 100);
    open_worker();
    end(); /* during the self-test */
}

/* Any order of submits and cancels: each ticket ends once, and for a true reason. */
static void test_each_ticket_ends_once(void **state)
{
    (void)state;
    open_ready(16, TICKETS_MAX);
    static server_exchange asked[TICKETS_MAX];
    static bool is_cancelled[TICKETS_MAX];
    memset(is_cancelled, 0, sizeof is_cancelled);
    for (size_t i = 0; i < TICKETS_MAX; i++) {
        const uint64_t drawn = qn_rng_u64(7, 0, i) >> 32;
        asked[i] = question((int32_t)(i % 50), 1 + (uint32_t)(drawn % 20));
        submit(i, &asked[i]);
        if (drawn % 3 == 0) {
            const size_t i_victim = (drawn >> 8) % (i + 1);
            if (w.told[i_victim].n_ends == 0) {
                is_cancelled[i_victim] = true;
                worker_cancel(w.worker, &w.tickets[i_victim]);
            }
        }
        if (drawn % 5 == 0) {
            take_news();
        }
    }
    await(&w.n_ends, TICKETS_MAX);
    for (size_t i = 0; i < TICKETS_MAX; i++) {
        assert_true(w.told[i].finish == QN_FINISH_LENGTH ||
                    (w.told[i].finish == QN_FINISH_ABORT && is_cancelled[i]));
        assert_true(w.told[i].finish != QN_FINISH_LENGTH ||
                    w.told[i].n_tokens == asked[i].request.max_tokens);
    }
    end();
}

/* Every allocation fails once, and from then on: each ticket ends, whole or for want of memory. */
static void test_no_memory_for_news(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    const server_exchange asked = question(10, 9);
    for (g_fails_from_then_on = 0; g_fails_from_then_on <= 1; g_fails_from_then_on++) {
        for (size_t n = 0, n_failed = 1; n_failed > 0; n++) {
            open_ready(8, 100);
            g_n_failed = 0;
            g_allocations_left = n;
            for (size_t i = 0; i < 8; i++) {
                submit(i, &asked);
            }
            await(&w.n_ends, 8);
            g_allocations_left = SIZE_MAX;
            n_failed = g_n_failed;
            for (size_t i = 0; i < 8; i++) {
                const bool is_whole = w.told[i].finish == QN_FINISH_LENGTH;
                assert_true(is_whole || w.told[i].error.status == QN_E_NOMEM);
                assert_int_equal(is_whole,
                                 w.told[i].n_tokens == 9 && w.told[i].error.status == QN_OK);
                assert_true(is_whole || n_failed > 0);
                /* What nobody can be told of is not computed. */
                assert_true(is_whole || w.told[i].n_tokens == 9 || w.engine.n_cancels > 0);
            }
            submit(8, &asked); /* and it goes on */
            await(&w.n_ends, 9);
            assert_int_equal(w.told[8].finish, QN_FINISH_LENGTH);
            end();
            assert_true(n_failed > 0 || n > 2);
        }
    }
    g_fails_from_then_on = 0;
}

static void test_no_memory_for_a_worker(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    begin(8, 8);
    qn_error err = {0};
    g_allocations_left = 0;
    assert_int_equal(worker_open(&w.worker, fake_load, &w.engine, NULL, w.wake_fd, &err),
                     QN_E_NOMEM);
    g_allocations_left = SIZE_MAX;
    assert_null(w.worker);
    assert_string_equal(err.text, "worker: no memory");
    (void)close(w.wake_fd);
}

/* Once its outboxes have the size that steps need, a worker asks for no memory. */
static void test_allocates_nothing_once_warm(void **state)
{
    (void)state;
#ifdef QN_CANNOT_FAIL_ALLOCATIONS
    skip();
#endif
    open_ready(8, 100);
    const server_exchange asked = question(10, 8);
    size_t n_allocations = 1;
    for (size_t i_round = 0; i_round < 40 && n_allocations > 0; i_round++) {
        memset(w.told, 0, sizeof w.told);
        w.n_ends = 0;
        g_allocations_left = SIZE_MAX / 2;
        for (size_t i = 0; i < 8; i++) {
            submit(i, &asked);
        }
        await(&w.n_ends, 8);
        n_allocations = SIZE_MAX / 2 - g_allocations_left;
    }
    g_allocations_left = SIZE_MAX;
    assert_int_equal(n_allocations, 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready_after_self_test),
        cmocka_unit_test(test_self_test_of_small_engines),
        cmocka_unit_test(test_events_arrive_whole_and_in_order),
        cmocka_unit_test(test_choices_of_an_exchange),
        cmocka_unit_test(test_cancel_before_the_engine_saw_it),
        cmocka_unit_test(test_cancel_ends_with_the_next_step),
        cmocka_unit_test(test_cancel_of_one_that_has_ended),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_burst_at_an_idle_engine),
        cmocka_unit_test(test_refusals_without_pages),
        cmocka_unit_test(test_failing_step),
        cmocka_unit_test(test_failing_load),
        cmocka_unit_test(test_self_test_finds),
        cmocka_unit_test(test_flush_between_steps),
        cmocka_unit_test(test_close_while_requests_run),
        cmocka_unit_test(test_each_ticket_ends_once),
        cmocka_unit_test(test_no_memory_for_news),
        cmocka_unit_test(test_no_memory_for_a_worker),
        cmocka_unit_test(test_allocates_nothing_once_warm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
