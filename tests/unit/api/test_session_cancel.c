/* SPDX-License-Identifier: Apache-2.0 */
/* Cancelling from everywhere; afterwards the session is as good as a fresh one. */
#include "transcript.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum { VOCAB = 97, N_PROMPT = 40 };

static const qn_sampling seeded = {
    .temperature = 1.0F, .top_p = 1.0F, .repetition_penalty = 1.0F, .seed = 4};

static qn_model *g_model;
static int32_t prompt[N_PROMPT];
static transcript g_expected; /* of the request, never cancelled */

static qn_request ask(void)
{
    return (qn_request){.ids = prompt,
                        .n_ids = N_PROMPT,
                        .sampling = &seeded,
                        .max_tokens = 60,
                        .draft_tokens = 3,
                        .ignore_eos = true,
                        .wants_logprobs = true};
}

static int open_model(void **state)
{
    (void)state;
    for (int32_t i = 0; i < N_PROMPT; i++) {
        prompt[i] = i * 37 % (VOCAB - 1);
    }
    g_model = open_tiny(2);
    const qn_request request = ask();
    answer_alone(&g_expected, g_model, &request);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    qn_model_close(&g_model);
    return 0;
}

/* What came is the beginning of the whole answer, and the whole answer comes when asked again. */
static void assert_cancelled(const transcript *t, qn_session *session)
{
    static transcript again;
    const qn_request request = ask();
    assert_int_equal(t->said.finish, QN_FINISH_ABORT);
    assert_true(t->said.n_ids < g_expected.said.n_ids);
    assert_memory_equal(t->said.ids, g_expected.said.ids, t->said.n_ids * sizeof(int32_t));
    answer(&again, session, &request);
    assert_said_equal(&again.said, &g_expected.said);
}

static void test_cancel_before_any_step_ends_after_n_steps(void **state)
{
    (void)state;
    qn_session *session = open_session(g_model, &(qn_session_options){.chunk_tokens = 16});
    for (uint32_t n_steps = 0; n_steps < 12; n_steps++) {
        static transcript t;
        const qn_request request = ask();
        memset(&t, 0, sizeof t);
        qn_session_clear(session);
        submit(session, &request);
        for (uint32_t i = 0; i < n_steps; i++) {
            assert_int_equal(qn_session_step(session, NULL), QN_OK);
            said_poll(&t.said, session);
        }
        qn_session_cancel(session);
        finish(&t, session);
        assert_int_equal(t.n_run, 1); /* the next step ends it */
        /* Three chunks of the prompt, and the third draws. */
        assert_true((t.said.n_ids > 0) == (n_steps > 2));
        assert_cancelled(&t, session);
    }
    qn_session_close(&session);
}

static void test_cancel_without_a_request_is_forgotten(void **state)
{
    (void)state;
    static transcript t;
    qn_session *session = open_session(g_model, NULL);
    const qn_request request = ask();
    qn_session_cancel(session);
    answer(&t, session, &request);
    assert_said_equal(&t.said, &g_expected.said);
    qn_session_close(&session);
}

typedef struct canceller {
    qn_session *session;
    atomic_bool is_over; /* set by the thread that steps */
} canceller;

static void *cancel_now_and_then(void *context)
{
    canceller *const c = context;
    while (!atomic_load(&c->is_over)) { /* one that comes between two requests is forgotten */
        (void)usleep(500);
        qn_session_cancel(c->session);
    }
    return NULL;
}

static void test_cancel_by_another_thread_while_stepping(void **state)
{
    (void)state;
    static transcript t;
    const qn_request request = ask();
    canceller c = {.session = open_session(g_model, NULL)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_now_and_then, &c), 0);
    do {
        answer(&t, c.session, &request);
    } while (t.said.finish != QN_FINISH_ABORT);
    atomic_store(&c.is_over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_cancelled(&t, c.session);
    qn_session_close(&c.session);
}

static qn_session *g_session; /* for the handler */

static void cancel_by_signal(int number)
{
    (void)number;
    qn_session_cancel(g_session);
}

/* Raises a signal in the middle of a step, from the event of its fifth token. */
static void raise_at_fifth(void *context, const qn_event *event)
{
    said *const s = context;
    said_event(s, event);
    if (event->kind == QN_EVENT_TOKEN && s->n_ids == 5) {
        assert_int_equal(raise(SIGUSR1), 0);
    }
}

static void test_cancel_by_a_signal_handler(void **state)
{
    (void)state;
    static said t;
    memset(&t, 0, sizeof t);
    g_session = open_session(g_model, &(qn_session_options){.fn = raise_at_fifth, .context = &t});
    void (*const before)(int) = signal(SIGUSR1, cancel_by_signal);
    assert_true(before != SIG_ERR);
    qn_request request = ask();
    request.draft_tokens = QN_DRAFT_NONE;
    submit(g_session, &request);
    while (qn_session_step(g_session, NULL) == QN_OK) {
    }
    assert_int_equal(t.finish, QN_FINISH_ABORT);
    assert_int_equal(t.n_ids, 5);
    memset(&t, 0, sizeof t);
    (void)signal(SIGUSR1, SIG_IGN);
    submit(g_session, &request);
    while (qn_session_step(g_session, NULL) == QN_OK) {
    }
    assert_said_equal(&t, &g_expected.said);
    (void)signal(SIGUSR1, before);
    qn_session_close(&g_session);
}

int main(void)
{
    qn_log_configure(QN_LOG_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel_before_any_step_ends_after_n_steps),
        cmocka_unit_test(test_cancel_without_a_request_is_forgotten),
        cmocka_unit_test(test_cancel_by_another_thread_while_stepping),
        cmocka_unit_test(test_cancel_by_a_signal_handler),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
