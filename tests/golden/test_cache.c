/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache cannot lie: glm-nano holds conversations (conversations.h) whose prompts are computed
 * cold, found in the cache, found there in part after others have pushed them out, and computed
 * among 31 others, with and without speculation, with rows in bf16 and FP8; every other one is
 * greedy, the others drawn, and with rows of the other kind the other way round.  A session of one
 * sequence, cleared before each prompt, says what is right: tokens and log-probabilities have to be
 * the same bits, and drafts accepted at the same places.  On a GPU the session is there, too, the
 * crowd is one of 64, and half of all want no log-probabilities, so that their steps run ahead.
 *
 * Without arguments a slice of the 200 conversations on the CPU.
 *
 * --all         each of them
 * --device NAME "cuda[:N]", "hip[:N]"
 * --free        sums may go by the number of rows: all are greedy, and the first token that is
 *               another has to be as likely as the session's, but for epsilon
 * --epsilon X   of a log-probability, as the session has both (epsilon_default)
 * --only NAME   one of the tests: "bf16 rows" or "FP8 rows"
 * --model DIR   glm-nano with other weights: in FP8, in MXFP4
 * --source DIR  where models/glm-nano and tests/eval are, if not where this was built
 */
#include "base/page.h"
#include "conversations.h"

#include <math.h>

enum {
    N_TOKENS_MAX = 96, /* of an answer */
    CONTEXT = 4096,    /* of a session */
    CROWD = 32,
    CROWD_GPU = 64,
    STEP_ROWS = 1024,        /* room for all drafts of a crowd beside the rows kept for prompts */
    CROWD_PAGES_OF_ONE = 32, /* none of the crowd has to wait or to give pages back */
    TURNS_BETWEEN = 24,      /* conversations that take turns in one narrow cache */
    DEPTH = 5,
    N_SLICE = 12,    /* conversations without --all */
    MIN_TOKENS = 40, /* of every fourth conversation: answers that are longer than the model's */
    N_TOP = 5,       /* of which one is the token that is drawn where sums are others */
};

/*
 * Other sums may take another expert, or other positions, and what comes of that is as far off as
 * arithmetic in bf16 is: transformers' log-probabilities in bf16 are by 1.11 at the 99.9th
 * percentile of 4,096 tokens (docs/performance.md), and each of two tokens may be.
 */
static const float epsilon_default = 2.2F;

/* Seldom is it that much: of the first other tokens half are nearer than this, and no more than
 * that of answers have one; glm-nano's on an H200 were at 0.013 and 3 %. */
static const float median_max = 0.1F;
static const float share_max = 0.1F;

/* As the arguments say. */
static struct arguments {
    const char *device, *source;
    const char *model; /* NULL: models/glm-nano below source */
    float epsilon;
    bool is_all, is_free;
} g = {.source = QN_SOURCE_DIR, .epsilon = epsilon_default};

/* One prompt and what is right. */
typedef struct turn {
    int32_t *ids; /* owned */
    size_t n_ids;
    int32_t tokens[N_TOKENS_MAX];
    float logprobs[N_TOKENS_MAX];
    qn_token_logprob top[N_TOKENS_MAX][N_TOP];
    uint32_t n_tokens;
    qn_session_stats stats; /* at depth DEPTH */
} turn;

typedef struct talk {
    uint32_t number, n_turns;
    turn turns[CONVERSATION_TURNS_MAX];
} talk;

/* What one test holds. */
typedef struct setting {
    const char *name;
    qn_kv_dtype kv_dtype;
    uint32_t i_drawn; /* of two conversations: drawn, the other is greedy */
    bool is_brief;    /* without --all: not without MTP */
} setting;

typedef struct fixture {
    const setting *setting;
    qn_model *model;
    talk *talks;
    uint32_t n_talks;
    uint32_t n_turns;       /* of all */
    uint32_t n_pages_least; /* that hold the longest prompt and its answer */
    uint32_t n_crowd;
    bool is_on_gpu;
} fixture;

/* Answers to be near, not the same. */
typedef struct nearness {
    uint32_t n_answers;
    uint32_t n_others; /* of them that have another token */
    float gap_most;
    float gaps[1 << 14]; /* between what both say of it, where that is the first one */
    float shift_most;    /* of the log-probability of a token that is the same */
    char farthest[256];  /* which answer, where its gap is above epsilon and the greatest */
} nearness;

static nearness g_near;

/* Who answers, and what has to be equal. */
typedef enum cached {
    CACHED_NONE,    /* nothing of the prompt may be in the cache */
    CACHED_GROWN,   /* what the turns before have in common with it */
    CACHED_WHOLE,   /* all that can be */
    CACHED_AT_MOST, /* no more than that */
} cached;

typedef struct run {
    const char *name;
    const fixture *fixture;
    qn_engine *engine;
    int depth; /* QN_DRAFT_NONE or DEPTH */
    cached cached;
    bool has_same_steps; /* verification begins where a session's does */
    uint64_t n_cached;   /* tokens */
    uint32_t n_partly;   /* prompts of which some pages were there and some were not */
    uint32_t n_turns;    /* asked */
} run;

/* A request in flight. */
typedef struct client {
    uint64_t id; /* 0: none */
    const talk *talk;
    uint32_t i_turn;
    uint32_t n_tokens; /* seen */
    int depth;
    bool wants_logprobs;
    bool is_another; /* has had a token that is not the session's */
    bool has_ended;
} client;

static qn_sampling sampling_of(const fixture *f, const talk *t, uint32_t i_turn)
{
    qn_sampling s = qn_model_get_info(f->model)->sampling;
    s.temperature = !g.is_free && t->number % 2 == f->setting->i_drawn ? 1.0F : 0.0F;
    s.seed = t->number * 10 + i_turn;
    return s;
}

static qn_request request_of(const talk *t, uint32_t i_turn, const qn_sampling *sampling, int depth)
{
    return (qn_request){.ids = t->turns[i_turn].ids,
                        .n_ids = t->turns[i_turn].n_ids,
                        .sampling = sampling,
                        .max_tokens = N_TOKENS_MAX,
                        .min_tokens = t->number % 4 == 2 ? MIN_TOKENS : 0,
                        .draft_tokens = depth,
                        .wants_logprobs = true,
                        .priority = t->number % 8 == 7 ? 9 : 0}; /* long prompts go first */
}

/* ------------------------------------------------------------------------------ what is right */

/* One answer of a session that knows nothing. */
static void ask_session(turn *out, said *s, qn_session *session, const qn_request *request)
{
    qn_error err = {0};
    qn_event event;
    out->n_tokens = 0;
    qn_session_clear(session);
    qn_status status = qn_session_submit(session, request, &err);
    while (status == QN_OK) {
        status = qn_session_step(session, &err);
        while (qn_session_poll(&event, session)) {
            if (event.kind == QN_EVENT_TOKEN) {
                assert_true(out->n_tokens < N_TOKENS_MAX);
                assert_int_equal(event.n_top, N_TOP);
                memcpy(out->top[out->n_tokens], event.top, sizeof out->top[0]);
                out->logprobs[out->n_tokens] = event.token.logprob;
                out->tokens[out->n_tokens++] = event.token.token;
            }
            said_add(s, &event);
        }
    }
    if (status != QN_AGAIN) {
        fail_msg("%s", err.text);
    }
    out->stats = qn_session_get_stats(session);
}

/* Hold one conversation with a session: the prompts of its turns are made of its answers. */
static void talk_make(talk *t, const fixture *f, const questions *q, qn_session *session)
{
    conversation c;
    conversation_open(&c, t->number, q);
    t->n_turns = c.n_turns;
    for (uint32_t i = 0; i < t->n_turns; i++) {
        said s;
        turn *const out = &t->turns[i];
        said_open(&s);
        conversation_prompt(&out->ids, &out->n_ids, &c, q, i, f->model);
        assert_true(out->n_ids + N_TOKENS_MAX < CONTEXT);
        const qn_sampling sampling = sampling_of(f, t, i);
        qn_request request = request_of(t, i, &sampling, DEPTH);
        request.tools_json = c.options.tools_json;
        request.tools_len = c.options.tools_len;
        request.n_top_logprobs = N_TOP;
        ask_session(out, &s, session, &request);
        conversation_answer(&c, &s);
        said_close(&s);
    }
    conversation_close(&c);
}

static void fixture_open(fixture *f, const setting *s)
{
    questions *const q = calloc(1, sizeof *q);
    qn_session *session = NULL;
    qn_error err = {0};
    const qn_model_options options = {
        .device = g.device, .kv_dtype = s->kv_dtype, .is_deterministic = !g.is_free};
    char path[512];
    const qn_session_options session_options = {.context_tokens = CONTEXT};
    *f = (fixture){.setting = s};
    assert_non_null(q);
    questions_open(q, g.source);
    (void)snprintf(path, sizeof path, "%s/models/glm-nano", g.source);
    must(qn_model_open(&f->model, g.model != NULL ? g.model : path, &options, &err), &err);
    f->is_on_gpu = strcmp(qn_model_get_info(f->model)->device, "cpu") != 0;
    f->n_crowd = f->is_on_gpu ? CROWD_GPU : CROWD;
    memset(&g_near, 0, sizeof g_near);
    must(qn_session_open(&session, f->model, &session_options, &err), &err);
    f->talks = calloc(N_CONVERSATIONS, sizeof *f->talks);
    assert_non_null(f->talks);
    for (uint32_t i = 0; i < (g.is_all ? N_CONVERSATIONS : N_SLICE); i++) {
        talk *const t = &f->talks[f->n_talks++];
        t->number = i;
        talk_make(t, f, q, session);
        f->n_turns += t->n_turns;
        for (uint32_t k = 0; k < t->n_turns; k++) {
            const size_t n_tokens = t->turns[k].n_ids + N_TOKENS_MAX;
            const uint32_t n_pages = qn_pages_for((uint32_t)n_tokens);
            f->n_pages_least = n_pages > f->n_pages_least ? n_pages : f->n_pages_least;
        }
    }
    qn_session_close(&session);
    questions_close(q);
    free(q);
}

static void fixture_close(fixture *f)
{
    for (uint32_t i = 0; i < f->n_talks; i++) {
        for (uint32_t k = 0; k < f->talks[i].n_turns; k++) {
            qn_free(f->talks[i].turns[k].ids);
        }
    }
    free(f->talks);
    qn_model_close(&f->model);
}

/* --------------------------------------------------------------------------------- comparisons */

/* Leave the test, saying which answer it was. */
QN_PRINTF(3, 4)
static void fail_turn(const run *r, const client *c, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fail_msg("%s, %s, conversation %u, turn %u: %s", r->fixture->setting->name, r->name,
             c->talk->number, c->i_turn, text);
}

static uint32_t whole_pages(size_t n_tokens)
{
    return (uint32_t)(n_tokens / QN_PAGE_TOKENS * QN_PAGE_TOKENS);
}

/* Positions that two sequences have in common. */
static size_t common(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b)
{
    size_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n]) {
        n++;
    }
    return n;
}

/* Tokens of a turn's prompt that the turns before it left in a cache, at least and at most: of the
 * last step's tokens the MTP layer may not have its rows. */
static void expect_grown(uint32_t *least, uint32_t *most, const talk *t, uint32_t i_turn)
{
    const turn *const now = &t->turns[i_turn];
    *least = *most = 0;
    for (uint32_t i = 0; i < i_turn; i++) {
        const turn *const before = &t->turns[i];
        const size_t n_computed = before->n_ids + before->n_tokens - 1;
        size_t n = common(before->ids, before->n_ids, now->ids, now->n_ids - 1);
        if (n == before->n_ids) {
            n += common(before->tokens, before->n_tokens - 1, now->ids + n, now->n_ids - 1 - n);
        }
        const size_t n_sure =
            n_computed - (before->n_tokens > DEPTH ? DEPTH : before->n_tokens - 1);
        const uint32_t high = whole_pages(n);
        const uint32_t low = whole_pages(n < n_sure ? n : n_sure);
        *most = high > *most ? high : *most;
        *least = low > *least ? low : *least;
    }
}

static void check_cached(run *r, const client *c, uint64_t n_cached)
{
    const turn *const t = &c->talk->turns[c->i_turn];
    uint32_t most = whole_pages(t->n_ids - 1); /* at least one row is computed */
    uint32_t least = r->cached == CACHED_WHOLE ? most : 0;
    r->n_partly += n_cached > 0 && n_cached < most;
    if (r->cached == CACHED_NONE) {
        most = 0;
    } else if (r->cached == CACHED_GROWN && !g.is_free) { /* else with answers of another text */
        expect_grown(&least, &most, c->talk, c->i_turn);
        least = c->wants_logprobs ? least : 0; /* what runs ahead is not all kept */
    }
    if (n_cached < least || n_cached > most || n_cached % QN_PAGE_TOKENS != 0) {
        fail_turn(r, c, "%llu of %zu tokens were in the cache, expected %u to %u",
                  (unsigned long long)n_cached, t->n_ids, least, most);
    }
    r->n_cached += n_cached;
}

/* The same drafts were accepted, step by step. */
static void check_acceptance(const run *r, const client *c, const qn_session_stats *got)
{
    const qn_session_stats *const wanted = &c->talk->turns[c->i_turn].stats;
    if (got->n_steps != wanted->n_steps || got->n_drafted != wanted->n_drafted ||
        got->n_step_tokens != wanted->n_step_tokens || got->n_accepted != wanted->n_accepted) {
        fail_turn(r, c, "%llu of %llu drafts accepted in %llu steps, expected %llu of %llu in %llu",
                  (unsigned long long)got->n_accepted, (unsigned long long)got->n_drafted,
                  (unsigned long long)got->n_steps, (unsigned long long)wanted->n_accepted,
                  (unsigned long long)wanted->n_drafted, (unsigned long long)wanted->n_steps);
    }
    for (uint32_t i = 0; i < DEPTH; i++) {
        if (got->n_accepted_at[i] != wanted->n_accepted_at[i]) {
            fail_turn(r, c, "draft %u was accepted %llu times, expected %llu", i + 1,
                      (unsigned long long)got->n_accepted_at[i],
                      (unsigned long long)wanted->n_accepted_at[i]);
        }
    }
}

static uint32_t bits_of(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void check_token(const run *r, const client *c, uint32_t i, const qn_token_logprob *got)
{
    const turn *const t = &c->talk->turns[c->i_turn];
    if (i >= t->n_tokens || got->token != t->tokens[i]) {
        fail_turn(r, c, "token %u of the answer is %d, expected %d", i, got->token,
                  i < t->n_tokens ? t->tokens[i] : -1);
    }
    if (c->wants_logprobs && bits_of(got->logprob) != bits_of(t->logprobs[i])) {
        fail_turn(r, c, "the log-probability of token %u is %.9g, expected %.9g", i,
                  (double)got->logprob, (double)t->logprobs[i]);
    }
}

/* By how much a session has the token at @p i, its own, for likelier than @p token; INFINITY: that
 * is none of its likeliest. */
static float gap_to(const turn *t, uint32_t i, int32_t token)
{
    for (uint32_t k = 0; k < N_TOP; k++) {
        if (t->top[i][k].token == token) {
            return t->logprobs[i] - t->top[i][k].logprob;
        }
    }
    return INFINITY;
}

/* Another token: all are counted before the test fails (tell_nearness()). */
static void note_gap(const run *r, const client *c, uint32_t i, int32_t token)
{
    const turn *const t = &c->talk->turns[c->i_turn];
    const float gap = gap_to(t, i, token);
    if (!(gap <= g.epsilon) && !(gap <= g_near.gap_most)) {
        (void)snprintf(g_near.farthest, sizeof g_near.farthest,
                       "%s, %s, conversation %u, turn %u: token %u of the answer is %d, less "
                       "likely than %d by %g, at most %g expected",
                       r->fixture->setting->name, r->name, c->talk->number, c->i_turn, i, token,
                       t->tokens[i], (double)gap, (double)g.epsilon);
    }
    g_near.gap_most = fmaxf(g_near.gap_most, gap);
    assert_true(g_near.n_others < sizeof g_near.gaps / sizeof *g_near.gaps);
    g_near.gaps[g_near.n_others++] = gap;
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a;
    const float y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* What all answers together may be: some are others, by little, and few. */
static void tell_nearness(const char *name)
{
    const uint32_t n = g_near.n_others;
    qsort(g_near.gaps, n, sizeof *g_near.gaps, by_size);
    const float median = n > 0 ? g_near.gaps[n / 2] : 0.0F;
    (void)printf("%s: %u of %u answers have another token, the first less likely by %g in the "
                 "median, %g at the 99th percentile, %g at most; before it log-probabilities are "
                 "off by at most %g\n",
                 name, n, g_near.n_answers, (double)median,
                 n > 0 ? (double)g_near.gaps[(uint32_t)(0.99 * (n - 1))] : 0.0,
                 (double)g_near.gap_most, (double)g_near.shift_most);
    if (g_near.farthest[0] != '\0') {
        fail_msg("%s", g_near.farthest);
    }
    if (median > median_max || (float)n > share_max * (float)g_near.n_answers ||
        !(g_near.shift_most <= g.epsilon / 2)) {
        fail_msg("%s: at most %g in the median, %g of the answers and %g of a log-probability "
                 "expected",
                 name, (double)median_max, (double)share_max, (double)(g.epsilon / 2));
    }
}

/* What stands behind the first other token answers another text. */
static void check_near(const run *r, client *c, uint32_t i, const qn_token_logprob *got)
{
    const turn *const t = &c->talk->turns[c->i_turn];
    if (c->is_another) {
        return;
    }
    if (i >= t->n_tokens) {
        fail_turn(r, c, "token %u of the answer is %d, its end expected", i, got->token);
    }
    if (got->token != t->tokens[i]) {
        note_gap(r, c, i, got->token);
        c->is_another = true;
    } else if (c->wants_logprobs) {
        g_near.shift_most = fmaxf(g_near.shift_most, fabsf(got->logprob - t->logprobs[i]));
    }
}

static void check_end(run *r, const client *c, const qn_event *event)
{
    const turn *const t = &c->talk->turns[c->i_turn];
    if (event->finish == QN_FINISH_ERROR || (!c->is_another && c->n_tokens != t->n_tokens)) {
        fail_turn(r, c, "ended by \"%s\" after %u tokens, expected %u%s%s",
                  qn_finish_name(event->finish), c->n_tokens, t->n_tokens,
                  event->error != NULL ? ": " : "", event->error != NULL ? event->error->text : "");
    }
    check_cached(r, c, event->stats->n_cached_tokens);
    if (c->depth == DEPTH && r->has_same_steps && c->wants_logprobs && !g.is_free) {
        check_acceptance(r, c, event->stats);
    }
}

static void take_event(run *r, client *c, const qn_event *event)
{
    if (event->kind == QN_EVENT_TOKEN && g.is_free) {
        check_near(r, c, c->n_tokens++, &event->token);
    } else if (event->kind == QN_EVENT_TOKEN) {
        check_token(r, c, c->n_tokens++, &event->token);
    } else if (event->kind == QN_EVENT_END) {
        check_end(r, c, event);
        g_near.n_answers++;
        c->has_ended = true;
    }
}

/* ---------------------------------------------------------------------------------------- runs */

static void submit(run *r, client *c, const talk *t, uint32_t i_turn, int depth)
{
    qn_error err = {0};
    *c = (client){.talk = t, .i_turn = i_turn, .depth = depth};
    const qn_sampling sampling = sampling_of(r->fixture, t, i_turn);
    qn_request request = request_of(t, i_turn, &sampling, depth);
    request.wants_logprobs = !r->fixture->is_on_gpu || t->number / 4 % 2 == 0;
    c->wants_logprobs = request.wants_logprobs;
    must(qn_engine_submit(&c->id, r->engine, &request, &err), &err);
    r->n_turns++;
}

/* Step until one of the clients, or all, have their answers. */
static void step(run *r, client *clients, uint32_t n_clients)
{
    qn_error err = {0};
    qn_event event;
    uint64_t id = 0;
    must(qn_engine_step(r->engine, &err), &err);
    while (qn_engine_poll(&id, &event, r->engine)) {
        client *c = clients;
        while (c < clients + n_clients && c->id != id) {
            c++;
        }
        assert_true(c < clients + n_clients && id != 0);
        take_event(r, c, &event);
    }
}

static void ask(run *r, const talk *t, uint32_t i_turn, int depth)
{
    client c;
    submit(r, &c, t, i_turn, depth);
    while (!c.has_ended) {
        step(r, &c, 1);
    }
}

/* Each turn alone in an empty cache, then turn after turn in one that grows, then all of it again.
 * With MTP half of the conversations grow without drafts: pages have to serve those who draft. */
static void run_cold_and_warm(run *r)
{
    for (uint32_t i = 0; i < r->fixture->n_talks; i++) {
        const talk *const t = &r->fixture->talks[i];
        r->name = r->depth == DEPTH ? "cold, MTP" : "cold";
        r->cached = CACHED_NONE;
        for (uint32_t k = 0; k < t->n_turns; k++) {
            qn_engine_flush(r->engine);
            ask(r, t, k, r->depth);
        }
        qn_engine_flush(r->engine);
        r->name = r->depth == DEPTH ? "growing, MTP" : "growing";
        r->cached = CACHED_GROWN;
        for (uint32_t k = 0; k < t->n_turns; k++) {
            ask(r, t, k, i / 2 % 2 == 0 ? r->depth : QN_DRAFT_NONE);
        }
        r->name = r->depth == DEPTH ? "warm, MTP" : "warm";
        r->cached = CACHED_WHOLE;
        for (uint32_t k = 0; k < t->n_turns; k++) {
            ask(r, t, k, r->depth);
        }
    }
    assert_true(r->n_cached > 0);
}

/* Turn @p i_turn of conversations that have it. */
static void ask_each(run *r, uint32_t first, uint32_t end, uint32_t i_turn)
{
    for (uint32_t i = first; i < end; i++) {
        const talk *const t = &r->fixture->talks[i];
        if (i_turn < t->n_turns) {
            ask(r, t, i_turn, r->depth);
        }
    }
}

/* Conversations take turns in a cache that holds one long prompt. */
static void run_evicted(run *r)
{
    const fixture *const f = r->fixture;
    r->name = r->depth == DEPTH ? "after eviction, MTP" : "after eviction";
    r->cached = CACHED_AT_MOST;
    for (uint32_t i = 0; i < f->n_talks; i += TURNS_BETWEEN) {
        const uint32_t end = i + TURNS_BETWEEN < f->n_talks ? i + TURNS_BETWEEN : f->n_talks;
        for (uint32_t k = 0; k < CONVERSATION_TURNS_MAX; k++) {
            ask_each(r, i, end, k);
        }
    }
    const qn_engine_stats stats = qn_engine_get_stats(r->engine);
    assert_true(stats.n_evicted > 0);
    assert_int_equal(stats.n_preempted, 0);
    assert_true(r->n_partly > 0);
}

/* A crowd holds conversations at once, all of them at least once. */
static void run_crowd(run *r)
{
    const fixture *const f = r->fixture;
    const uint32_t n_jobs = f->n_talks > f->n_crowd ? f->n_talks : f->n_crowd;
    client clients[CROWD_GPU] = {0};
    uint32_t i_job = 0;
    uint32_t n_active = 0;
    r->cached = CACHED_AT_MOST;
    do {
        /* Where pages are few they come one by one: who comes late and goes first pushes out. */
        uint32_t n_may_begin = r->has_same_steps ? f->n_crowd : 1;
        for (uint32_t i = 0; i < f->n_crowd; i++) {
            client *const c = &clients[i];
            const bool has_more = c->has_ended && c->i_turn + 1 < c->talk->n_turns;
            n_active -= c->has_ended;
            if (has_more) {
                submit(r, c, c->talk, c->i_turn + 1, c->depth);
                n_active++;
            } else if ((c->id == 0 || c->has_ended) && i_job < n_jobs && n_may_begin > 0) {
                /* Where the steps are not compared, every third has another depth. */
                const int depth = r->depth == DEPTH && !r->has_same_steps && i_job % 3 == 0
                                      ? QN_DRAFT_AUTO
                                      : r->depth;
                submit(r, c, &f->talks[i_job++ % f->n_talks], 0, depth);
                n_active++;
                n_may_begin--;
            } else if (c->has_ended) {
                *c = (client){0};
            }
        }
        if (n_active > 0) {
            step(r, clients, f->n_crowd);
        }
    } while (n_active > 0);
    assert_true(r->n_cached > 0);
}

/* An engine with so many pages for so many at once, all pages checked. */
static qn_engine *engine_open(const fixture *f, bool no_mtp, uint32_t n_sequences, uint32_t n_pages)
{
    qn_error err = {0};
    qn_engine *engine = NULL;
    qn_engine_options options = {.n_sequences = n_sequences,
                                 .n_step_rows = STEP_ROWS,
                                 .context_tokens = f->n_pages_least * QN_PAGE_TOKENS,
                                 .no_mtp = no_mtp,
                                 .checks_pages = true};
    must(qn_engine_open(&engine, f->model, &options, &err), &err);
    options.cache_bytes = n_pages * qn_engine_get_stats(engine).page_bytes;
    qn_engine_close(&engine);
    must(qn_engine_open(&engine, f->model, &options, &err), &err);
    const qn_engine_stats stats = qn_engine_get_stats(engine);
    assert_int_equal(stats.n_pages_free, n_pages);
    return engine;
}

/* Between runs every page is free or cached. */
static void engine_close(qn_engine **engine, uint32_t n_pages)
{
    qn_engine_flush(*engine);
    const qn_engine_stats stats = qn_engine_get_stats(*engine);
    assert_int_equal(stats.n_running + stats.n_waiting, 0);
    assert_int_equal(stats.n_pages_used + stats.n_pages_cached, 0);
    assert_int_equal(stats.n_pages_free, n_pages);
    qn_engine_close(engine);
}

static void run_all(const fixture *f, int depth)
{
    const bool no_mtp = depth == QN_DRAFT_NONE;
    const uint32_t n_crowd_pages = f->n_crowd * CROWD_PAGES_OF_ONE;
    run r = {.fixture = f, .depth = depth, .has_same_steps = true};
    r.engine = engine_open(f, no_mtp, f->n_crowd, n_crowd_pages);
    run_cold_and_warm(&r);
    qn_engine_flush(r.engine);
    r.name = no_mtp ? "crowd" : "crowd, MTP";
    run_crowd(&r);
    assert_int_equal(qn_engine_get_stats(r.engine).n_preempted, 0);
    engine_close(&r.engine, n_crowd_pages);
    if (no_mtp && !g.is_all) {
        return; /* the rest is longest, and with MTP more can go wrong */
    }

    r = (run){.fixture = f, .depth = depth, .has_same_steps = true};
    r.engine = engine_open(f, no_mtp, 1, f->n_pages_least);
    run_evicted(&r);
    engine_close(&r.engine, f->n_pages_least);

    /* A sequence that gave its pages back computes its own tokens as a prompt, whose last row draws
     * one: verification begins elsewhere, and so other drafts are made.  Tokens alone are equal. */
    r = (run){.fixture = f, .depth = depth, .name = no_mtp ? "tight crowd" : "tight crowd, MTP"};
    r.engine = engine_open(f, no_mtp, f->n_crowd, f->n_pages_least);
    run_crowd(&r);
    assert_true(qn_engine_get_stats(r.engine).n_preempted > 0);
    assert_true(qn_engine_get_stats(r.engine).n_evicted > 0);
    engine_close(&r.engine, f->n_pages_least);
}

/* Says what the conversations are; returns the drafts that a session accepted. */
static uint64_t summarize(const fixture *f)
{
    uint64_t n_prompt = 0;
    uint64_t n_drawn = 0;
    uint64_t n_drafted = 0;
    uint64_t n_accepted = 0;
    size_t n_longest = 0;
    uint32_t n_short = 0;
    for (uint32_t i = 0; i < f->n_talks; i++) {
        for (uint32_t k = 0; k < f->talks[i].n_turns; k++) {
            const turn *const t = &f->talks[i].turns[k];
            n_prompt += t->n_ids;
            n_longest = t->n_ids > n_longest ? t->n_ids : n_longest;
            n_short += whole_pages(t->n_ids - 1) == 0;
            n_drawn += t->n_tokens;
            n_drafted += t->stats.n_drafted;
            n_accepted += t->stats.n_accepted;
        }
    }
    (void)printf("%s: %u conversations, %u prompts of %llu tokens, %u of them shorter than a page "
                 "and the longest of %zu, answers of %llu tokens, %llu of %llu drafts right\n",
                 f->setting->name, f->n_talks, f->n_turns, (unsigned long long)n_prompt, n_short,
                 n_longest, (unsigned long long)n_drawn, (unsigned long long)n_accepted,
                 (unsigned long long)n_drafted);
    return n_accepted;
}

static void test_no_answer_depends_on_what_is_in_the_cache(void **state)
{
    fixture f;
    fixture_open(&f, *state);
    const uint64_t n_accepted = summarize(&f);
    assert_true(n_accepted > f.n_turns); /* or acceptance says nothing */
    if (g.is_all || !f.setting->is_brief) {
        run_all(&f, QN_DRAFT_NONE);
    }
    run_all(&f, DEPTH);
    if (g.is_free) {
        tell_nearness(f.setting->name);
    }
    fixture_close(&f);
}

static setting settings[] = {
    {"bf16 rows", QN_KV_BF16, 1, false},
    {"FP8 rows", QN_KV_FP8, 0, true},
};
enum { N_SETTINGS = sizeof settings / sizeof settings[0] };

static bool names_test(const char *name)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        if (strcmp(name, settings[i].name) == 0) {
            return true;
        }
    }
    (void)fprintf(stderr, "--only: %s, \"%s\" or \"%s\" expected\n", name, settings[0].name,
                  settings[1].name);
    return false;
}

static const char usage[] =
    "[--all] [--device NAME] [--free] [--epsilon X] [--only \"bf16 rows\"|\"FP8 rows\"]\n"
    "    [--model DIR] [--source DIR] [--help]\n";

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const bool has_value = i + 1 < argc;
        char *end = NULL;
        if (strcmp(argv[i], "--help") == 0) {
            (void)printf("usage: golden_cache %s", usage);
            exit(0);
        } else if (strcmp(argv[i], "--all") == 0) {
            g.is_all = true;
        } else if (strcmp(argv[i], "--free") == 0) {
            g.is_free = true;
        } else if (has_value && strcmp(argv[i], "--device") == 0) {
            g.device = argv[++i];
        } else if (has_value && strcmp(argv[i], "--only") == 0) {
            if (!names_test(argv[++i])) {
                return false;
            }
            cmocka_set_test_filter(argv[i]);
        } else if (has_value && strcmp(argv[i], "--model") == 0) {
            g.model = argv[++i];
        } else if (has_value && strcmp(argv[i], "--source") == 0) {
            g.source = argv[++i];
        } else if (has_value && strcmp(argv[i], "--epsilon") == 0) {
            g.epsilon = strtof(argv[++i], &end);
            if (end == argv[i] || *end != '\0' || !(g.epsilon >= 0.0F)) {
                (void)fprintf(stderr, "--epsilon: %s, a number of at least 0 expected\n", argv[i]);
                return false;
            }
        } else {
            (void)fprintf(stderr, "%s: not an option, or without its value; expected %s", argv[i],
                          usage);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[N_SETTINGS] = {0};
    if (!parse(argc, argv)) {
        return 2;
    }
    for (size_t i = 0; i < N_SETTINGS; i++) {
        tests[i] = (struct CMUnitTest){.name = settings[i].name,
                                       .test_func = test_no_answer_depends_on_what_is_in_the_cache,
                                       .initial_state = &settings[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
