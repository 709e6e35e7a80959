/* SPDX-License-Identifier: Apache-2.0 */
/* The worker over glm-nano: what an engine answers by itself is what a server's clients get. */
#include "server/worker.h"
#include "support/unit.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WAIT_MS = 300 * 1000, N_TICKETS = 6, PROMPT_MAX = 400, ANSWER_MAX = 48, TEXT_BYTES = 1024 };

static const qn_engine_options engine_options = {
    .cache_bytes = 32 << 20, .n_sequences = 4, .n_queue = 16, .context_tokens = 1024};

/* A test's exchange is its request; greedy. */
struct server_exchange {
    qn_request request;
    qn_sampling sampling;
};

qn_request exchange_choice(const server_exchange *exchange, size_t i_choice, qn_sampling *sampling)
{
    assert_int_equal(i_choice, 0);
    qn_request request = exchange->request;
    *sampling = exchange->sampling;
    request.sampling = sampling;
    return request;
}

/* What became of a request. */
typedef struct answer {
    char text[TEXT_BYTES];
    size_t len;
    int32_t tokens[ANSWER_MAX];
    uint32_t n_tokens, n_ends;
    qn_finish finish;
    qn_session_stats stats;
} answer;

static qn_model *model;
static server_exchange asked[N_TICKETS];
static int32_t prompts[N_TICKETS][PROMPT_MAX];

static void see(answer *a, const qn_event *event)
{
    if (event->kind == QN_EVENT_TOKEN) {
        assert_true(a->n_tokens < ANSWER_MAX);
        a->tokens[a->n_tokens++] = event->token.token;
    } else if (event->kind == QN_EVENT_END) {
        a->n_ends++;
        a->finish = event->finish;
        a->stats = *event->stats;
    } else if (event->len > 0) {
        assert_true(a->len + event->len < TEXT_BYTES);
        memcpy(a->text + a->len, event->text, event->len);
        a->len += event->len;
    }
}

/* Questions of different lengths, the last of some pages. */
static int set_up(void **state)
{
    (void)state;
    qn_error err = {0};
    if (qn_model_open(&model, QN_SOURCE_DIR "/models/glm-nano", NULL, &err) != QN_OK) {
        fail_msg("%s", err.text);
    }
    static const char story[] =
        "Once upon a time there was a mill that ground numbers into words. ";
    for (size_t i = 0; i < N_TICKETS; i++) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        assert_int_equal(qn_encode(&ids, &n_ids, model, story + i, sizeof story - 1 - i,
                                   QN_CONTROL_AS_TEXT, &err),
                         QN_OK);
        const size_t n = i + 1 < N_TICKETS ? 5 + i : PROMPT_MAX;
        for (size_t i_id = 0; i_id < n; i_id++) {
            prompts[i][i_id] = ids[i_id % n_ids];
        }
        qn_free(ids);
        asked[i] = (server_exchange){.request = {.ids = prompts[i],
                                                 .n_ids = n,
                                                 .max_tokens = 8 * ((uint32_t)i + 1),
                                                 .ignore_eos = true},
                                     .sampling = {.top_p = 1.0F, .repetition_penalty = 1.0F}};
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    qn_model_close(&model);
    return 0;
}

static qn_status load(void *context, server_backend *out, qn_error *err)
{
    return server_backend_open(out, context, &engine_options, err);
}

/* Take what news there are; *n_ready and *n_ends count. */
static void take_news(server_worker *worker, uint32_t *n_ready, uint32_t *n_ends)
{
    worker_news news;
    worker_ticket *ticket = NULL;
    qn_event event;
    while (worker_poll(worker, &news, &ticket, &event)) {
        *n_ready += news == WORKER_READY ? 1 : 0;
        *n_ends += news == WORKER_END ? 1 : 0;
        if (news == WORKER_FAILED) {
            fail_msg("%s", event.error->text);
        }
        if (news == WORKER_EVENT || news == WORKER_END) {
            see(ticket->owner, &event);
        }
    }
}

static void await(server_worker *worker, int wake_fd, const uint32_t *count, uint32_t n,
                  uint32_t *n_ready, uint32_t *n_ends)
{
    while (*count < n) {
        struct pollfd descriptor = {.fd = wake_fd, .events = POLLIN};
        eventfd_t value = 0;
        assert_int_equal(poll(&descriptor, 1, WAIT_MS), 1);
        assert_int_equal(eventfd_read(wake_fd, &value), 0);
        take_news(worker, n_ready, n_ends);
    }
}

/* The answers of an engine without a worker. */
static void answer_directly(answer answers[N_TICKETS])
{
    qn_engine *engine = NULL;
    qn_error err = {0};
    assert_int_equal(qn_engine_open(&engine, model, &engine_options, &err), QN_OK);
    for (size_t i = 0; i < N_TICKETS; i++) {
        qn_request request = asked[i].request;
        uint64_t id = 0;
        request.sampling = &asked[i].sampling;
        request.tag = &answers[i];
        assert_int_equal(qn_engine_submit(&id, engine, &request, &err), QN_OK);
    }
    while (qn_engine_step(engine, &err) == QN_OK) {
        uint64_t id = 0;
        qn_event event;
        while (qn_engine_poll(&id, &event, engine)) {
            see(event.tag, &event);
        }
    }
    qn_engine_close(&engine);
}

static void test_same_answers_as_the_engine(void **state)
{
    (void)state;
    static answer direct[N_TICKETS];
    static answer served[N_TICKETS];
    static worker_ticket tickets[N_TICKETS];
    server_worker *worker = NULL;
    qn_error err = {0};
    uint32_t n_ready = 0;
    uint32_t n_ends = 0;
    uint64_t n_prompt_tokens = 0;
    const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    answer_directly(direct);
    assert_int_equal(worker_open(&worker, load, model, NULL, wake_fd, &err), QN_OK);
    await(worker, wake_fd, &n_ready, 1, &n_ready, &n_ends);
    qn_engine_stats stats = worker_get_stats(worker);
    assert_int_equal(stats.n_prompt_tokens + stats.n_generated_tokens + stats.n_steps, 0);
    assert_int_equal(stats.n_pages_used + stats.n_pages_cached, 0);
    for (size_t i = 0; i < N_TICKETS; i++) {
        tickets[i] = (worker_ticket){.exchange = &asked[i], .owner = &served[i]};
        worker_submit(worker, &tickets[i], 1);
        n_prompt_tokens += asked[i].request.n_ids;
    }
    await(worker, wake_fd, &n_ends, N_TICKETS, &n_ready, &n_ends);
    for (size_t i = 0; i < N_TICKETS; i++) {
        assert_int_equal(served[i].n_ends, 1);
        assert_int_equal(served[i].finish, QN_FINISH_LENGTH);
        assert_int_equal(served[i].n_tokens, asked[i].request.max_tokens);
        assert_memory_equal(served[i].tokens, direct[i].tokens, sizeof direct[i].tokens);
        assert_int_equal(served[i].len, direct[i].len);
        assert_memory_equal(served[i].text, direct[i].text, direct[i].len);
        assert_int_equal(served[i].stats.n_prompt_tokens, asked[i].request.n_ids);
    }
    stats = worker_get_stats(worker);
    assert_int_equal(stats.n_prompt_tokens, n_prompt_tokens);
    worker_close(&worker);
    (void)close(wake_fd);
}

/* A client that leaves: with the END its pages are free, in the queue, in prefill, later. */
static void test_cancelled_pages_are_free(void **state)
{
    (void)state;
    static answer served[N_TICKETS];
    static worker_ticket tickets[N_TICKETS];
    server_worker *worker = NULL;
    qn_error err = {0};
    uint32_t n_ready = 0;
    uint32_t n_ends = 0;
    const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(worker_open(&worker, load, model, NULL, wake_fd, &err), QN_OK);
    await(worker, wake_fd, &n_ready, 1, &n_ready, &n_ends);
    for (uint32_t n_tokens_seen = 0; n_tokens_seen < 6; n_tokens_seen++) {
        n_ends = 0;
        memset(served, 0, sizeof served);
        for (size_t i = 0; i < N_TICKETS; i++) {
            tickets[i] = (worker_ticket){.exchange = &asked[N_TICKETS - 1], .owner = &served[i]};
            worker_submit(worker, &tickets[i], 1);
        }
        await(worker, wake_fd, &served[0].n_tokens, n_tokens_seen, &n_ready, &n_ends);
        for (size_t i = 0; i < N_TICKETS; i++) {
            if (served[i].n_ends == 0) {
                worker_cancel(worker, &tickets[i]);
            }
        }
        await(worker, wake_fd, &n_ends, N_TICKETS, &n_ready, &n_ends);
        const qn_engine_stats stats = worker_get_stats(worker);
        assert_int_equal(stats.n_pages_used, 0);
        assert_int_equal(stats.n_running + stats.n_waiting, 0);
    }
    worker_close(&worker);
    (void)close(wake_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answers_as_the_engine),
        cmocka_unit_test(test_cancelled_pages_are_free),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
