/* SPDX-License-Identifier: Apache-2.0 */
#include "server/self_test.h"

#include "base/assert.h"
#include "base/str.h"
#include "base/try.h"

enum {
    N_LONG = 80,   /* tokens: a page of 64 and more */
    N_SHORT = 20,  /* of each of those that are asked at once */
    N_AT_ONCE = 8, /* and how many these are, at most */
    N_QUESTIONS = 2 + N_AT_ONCE,
    N_ANSWER = 8,        /* tokens of an answer: some steps, with drafts and without */
    N_STEPS_MAX = 10000, /* far more than there are rows to compute */
};

static const char text[] =
    "A small engine was asked to show that it can answer. It read every word of the question, "
    "looked at what it had kept of the words before, and wrote one token after the other: first "
    "the likely ones, then the end. Nobody waited for it, and so it took 3 + 4 = 7 steps, or "
    "perhaps 12; then it began again from what it remembered, and said the same. ";

/* A prompt and what came of it. */
typedef struct question {
    const int32_t *ids; /* [n_ids] borrowed from the test */
    uint32_t n_ids;
    uint32_t n_tokens;
    uint32_t n_tokens_first; /* of the first answer, when asked again */
    int32_t tokens[N_ANSWER];
    bool has_ended;
    uint64_t id; /* the engine's name for it */
} question;

typedef struct self_test {
    const server_backend *backend;
    server_board *board;
    uint32_t n_vocab;  /* 0: not known */
    uint32_t n_answer; /* tokens that an answer may have */
    uint32_t n_at_once;
    uint32_t n_steps;
    int draft_tokens;
    bool is_again;                     /* the questions have been answered once */
    bool is_exact;                     /* they are answered alike then */
    int32_t ids[N_LONG + N_QUESTIONS]; /* every question begins at another */
    question questions[N_QUESTIONS];
} self_test;

/* ------------------------------------------------------------------------------------ questions */

/* Ids of a text, again and again; without a tokenizer any. */
static qn_status fill_ids(self_test *test, const qn_model *model, qn_error *err)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (model != NULL && qn_model_get_info(model)->has_tokenizer) {
        const qn_status status =
            qn_encode(&ids, &n_ids, model, text, sizeof text - 1, QN_CONTROL_AS_TEXT, err);
        if (status < 0) {
            return status;
        }
    }
    const uint32_t n_vocab = test->n_vocab > 0 ? test->n_vocab : 1;
    for (uint32_t i = 0; i < N_LONG + N_QUESTIONS; i++) {
        test->ids[i] = n_ids > 0 ? ids[i % n_ids] : (int32_t)(i * 31 % n_vocab);
    }
    qn_free(ids);
    return QN_OK;
}

/* What context and pages have room for, if they are few. */
static uint32_t room_of(const server_backend *backend)
{
    const qn_engine_stats stats = backend->get_stats(backend->context);
    const uint64_t n_pages = stats.n_pages_free + stats.n_pages_used + stats.n_pages_cached;
    const uint64_t n_cache = n_pages * stats.page_tokens;
    const bool is_cache_less = n_pages > 0 && n_cache < backend->context_tokens;
    return is_cache_less ? (uint32_t)n_cache : backend->context_tokens;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void ask(self_test *test)
{
    const uint32_t n_room = room_of(test->backend) / 2;
    test->n_answer = least(N_ANSWER, n_room > 0 ? n_room : 1);
    test->n_at_once = least(N_AT_ONCE, test->backend->n_sequences);
    for (uint32_t i = 0; i < N_QUESTIONS; i++) {
        const uint32_t n_ids = i == 0 ? 1 : i == 1 ? N_LONG : N_SHORT;
        test->questions[i] =
            (question){.ids = test->ids + i, .n_ids = least(n_ids, n_room > 0 ? n_room : 1)};
    }
}

/* -------------------------------------------------------------------------------------- answers */

/* Compare a token with that of the first time, or keep it. */
static qn_status see_token(const self_test *test, question *q, int32_t token, qn_error *err)
{
    if (token < 0 || (test->n_vocab > 0 && (uint32_t)token >= test->n_vocab)) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__, "self-test: token %d, 0 to %u expected",
                       token, test->n_vocab - 1);
    }
    if (q->n_tokens == N_ANSWER) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "self-test: more than the %u tokens asked for", test->n_answer);
    }
    int32_t *const kept = &q->tokens[q->n_tokens];
    if (test->is_again && test->is_exact && *kept != token) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "self-test: a prompt of %u tokens, asked again: token %u is %d, %d as the "
                       "first time expected",
                       q->n_ids, q->n_tokens, token, *kept);
    }
    *kept = token;
    q->n_tokens++;
    return QN_OK;
}

static qn_status see_end(const self_test *test, question *q, const qn_event *event, qn_error *err)
{
    q->has_ended = true;
    if (event->error != NULL) {
        return qn_fail(err, event->error->status, event->error->sys, __func__, "self-test: %s",
                       event->error->text);
    }
    if (event->finish != QN_FINISH_LENGTH && event->finish != QN_FINISH_STOP) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "self-test: answer ended by %s, length expected",
                       qn_finish_name(event->finish));
    }
    if (test->is_again && test->is_exact && q->n_tokens != q->n_tokens_first) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "self-test: a prompt of %u tokens, asked again: %u tokens, %u as the first "
                       "time expected",
                       q->n_ids, q->n_tokens, q->n_tokens_first);
    }
    return QN_OK;
}

static qn_status see(const self_test *test, const qn_event *event, qn_error *err)
{
    question *const q = event->tag;
    QN_ASSERT(q >= test->questions && q < test->questions + N_QUESTIONS);
    if (!qn_utf8_is_valid((qn_str){.ptr = event->text, .len = event->len})) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "self-test: text of %zu bytes, whole characters of UTF-8 expected",
                       event->len);
    }
    return event->kind == QN_EVENT_TOKEN ? see_token(test, q, event->token.token, err)
           : event->kind == QN_EVENT_END ? see_end(test, q, event, err)
                                         : QN_OK;
}

/* ---------------------------------------------------------------------------------------- steps */

static qn_status step(self_test *test, qn_error *err)
{
    const server_backend *const b = test->backend;
    if (test->n_steps++ == N_STEPS_MAX) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "self-test: no END after %d steps, one expected", N_STEPS_MAX);
    }
    if (test->board != NULL) {
        board_busy(test->board, BOARD_WORKER, "a step of the self-test");
    }
    const qn_status status = b->step(b->context, err);
    if (status == QN_AGAIN) {
        return qn_fail(err, QN_E_FORMAT, 0, __func__,
                       "self-test: the engine has no request, an answer expected");
    }
    qn_status seen = status;
    uint64_t id = 0;
    qn_event event;
    while (b->poll(b->context, &id, &event)) { /* all: the engine may be asked nothing before */
        if (seen >= 0) {
            seen = see(test, &event, err);
        }
    }
    return seen;
}

static qn_status submit(self_test *test, question *q, qn_error *err)
{
    const server_backend *const b = test->backend;
    const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};
    const qn_request request = {
        .ids = q->ids,
        .n_ids = q->n_ids,
        .sampling = &greedy,
        .max_tokens = test->n_answer,
        .draft_tokens = test->draft_tokens,
        .ignore_eos = true,
        .tag = q,
    };
    q->has_ended = false;
    q->n_tokens_first = q->n_tokens;
    q->n_tokens = 0;
    qn_status status = b->submit(b->context, &q->id, &request, err);
    while (status == QN_AGAIN) { /* the queue is shorter than the sequences are many */
        QN_TRY(status, step(test, err), fail);
        status = b->submit(b->context, &q->id, &request, err);
    }
fail:
    return status;
}

/* Step until a question has its answer. */
static qn_status await(self_test *test, const question *q, qn_error *err)
{
    qn_status status = QN_OK;
    while (status >= 0 && !q->has_ended) {
        status = step(test, err);
    }
    return status;
}

/* Have questions [first, end) answered, all at once. */
static qn_status answer(self_test *test, uint32_t first, uint32_t end, qn_error *err)
{
    qn_status status = QN_OK;
    for (uint32_t i = first; status >= 0 && i < end; i++) {
        status = submit(test, &test->questions[i], err);
    }
    for (uint32_t i = first; status >= 0 && i < end; i++) {
        status = await(test, &test->questions[i], err);
    }
    return status;
}

qn_status self_test_run(const server_backend *backend, server_board *board, qn_error *err)
{
    qn_status status = QN_OK;
    self_test test = {
        .backend = backend, .board = board, .draft_tokens = QN_DRAFT_NONE, .is_exact = true};
    bool has_mtp = false;
    if (backend->model != NULL) {
        const qn_model_info *const info = qn_model_get_info(backend->model);
        test.n_vocab = info->n_vocab;
        has_mtp = info->has_mtp;
        test.is_exact = info->is_deterministic;
    }
    QN_TRY(status, fill_ids(&test, backend->model, err), fail);
    ask(&test);
    QN_TRY(status, answer(&test, 0, 1, err), fail);
    QN_TRY(status, answer(&test, 1, 2, err), fail);
    QN_TRY(status, answer(&test, 2, 2 + test.n_at_once, err), fail);
    test.is_again = true;
    test.draft_tokens = has_mtp ? QN_DRAFT_TOKENS_MAX : QN_DRAFT_NONE;
    QN_TRY(status, answer(&test, 0, 2 + test.n_at_once, err), fail);
    backend->flush(backend->context);
fail:
    if (board != NULL) {
        board_idle(board, BOARD_WORKER);
    }
    return status;
}
