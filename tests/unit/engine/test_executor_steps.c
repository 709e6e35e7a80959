/* SPDX-License-Identifier: Apache-2.0 */
/* Steps made by hand: what an executor promises beside equal tokens. */
#include "engine/executor_parts.h"
#include "support/fail_each.h"
#include "unit/engine/executor_world.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LENGTH = 70 }; /* of a prompt: one page and a part */

static const qn_sampling greedy = {.top_p = 1.0F, .repetition_penalty = 1.0F};

/* An executor of the tiny model, and the step that is made. */
typedef struct hand {
    rig rig;
    qn_executor *executor;
    int32_t ids[N_SLOTS][LENGTH];
    qn_executor_request requests[N_SLOTS]; /* by slot; request ids are slot + 1 */
    uint32_t n_computed[N_SLOTS];
    qn_step step;
    qn_step_result result;
} hand;

static hand g_hand;

static void hand_open(hand *h)
{
    memset(h, 0, sizeof *h);
    /* One thread: a child of fork() has no others. */
    rig_open(&h->rig, &(rig_options){QN_COMPUTE_F32, QN_KV_F32, .n_threads = 1});
    h->executor = rig_executor(&h->rig);
    for (int32_t i = 0; i < N_SLOTS; i++) {
        for (int32_t p = 0; p < LENGTH; p++) {
            h->ids[i][p] = tiny_token(i, p);
        }
        h->requests[i] = (qn_executor_request){
            .ids = h->ids[i], .n_ids = LENGTH, .n_prompt = LENGTH, .sampling = &greedy};
    }
}

static void hand_close(hand *h)
{
    qn_executor_close(&h->executor);
    tiny_close(&h->rig.t);
}

static const qn_executor_request *find(void *context, qn_request_id id)
{
    hand *const h = context;
    return &h->requests[id - 1];
}

static void next_step(hand *h)
{
    qn_step *const s = &h->step;
    s->number++;
    s->n_published = s->n_begins = s->n_pages = s->n_seqs = s->n_rows = 0;
}

/* A slot begins; its pages are three of its own, behind those that it shares. */
static void begin(hand *h, uint32_t slot, uint32_t n_cached)
{
    h->step.begins[h->step.n_begins++] = (qn_step_begin){slot + 1, slot, n_cached};
    h->n_computed[slot] = n_cached;
    for (uint32_t i = n_cached / QN_PAGE_TOKENS; i < 3; i++) {
        h->step.pages[h->step.n_pages++] = (qn_step_page){slot, i, slot * 3 + i, false};
    }
}

static void share(hand *h, uint32_t slot, uint32_t i_page, qn_page_id page)
{
    h->step.pages[h->step.n_pages++] = (qn_step_page){slot, i_page, page, true};
}

static void add(hand *h, uint32_t slot, uint32_t n_rows, uint32_t n_drafts)
{
    const uint32_t n_ids = h->requests[slot].n_ids;
    const uint32_t first = h->n_computed[slot];
    const bool is_prompt = first < n_ids;
    h->step.seqs[h->step.n_seqs++] =
        (qn_step_seq){.request = slot + 1,
                      .slot = slot,
                      .n_rows = n_rows,
                      .n_drafts = n_drafts,
                      .first = is_prompt ? first : 0,
                      .is_prompt = is_prompt,
                      .is_drawing = !is_prompt || first + n_rows == n_ids};
    h->step.n_rows += n_rows;
    h->n_computed[slot] += is_prompt ? n_rows : 0;
}

static void run(hand *h)
{
    qn_executor_submit(h->executor, &h->step, find, h);
    qn_executor_collect(&h->result, h->executor);
}

/* Begin a slot and compute its whole prompt. */
static void run_prompt(hand *h, uint32_t slot)
{
    next_step(h);
    begin(h, slot, 0);
    add(h, slot, LENGTH - 10, 0);
    run(h);
    next_step(h);
    add(h, slot, 10, 0);
    run(h);
    assert_int_equal(h->result.seqs[0].n_tokens, 1);
}

static void test_pages_are_complete_in_the_step_that_fills_them(void **state)
{
    (void)state;
    hand *const h = &g_hand;
    hand_open(h);
    next_step(h);
    begin(h, 0, 0);
    add(h, 0, 30, 0);
    run(h);
    assert_int_equal(h->result.seqs[0].n_complete, 30);
    assert_int_equal(h->result.seqs[0].n_tokens, 0);
    assert_null(qn_executor_logits(h->executor, 0));
    next_step(h);
    add(h, 0, LENGTH - 30, 0);
    run(h);
    assert_int_equal(h->result.seqs[0].n_complete, LENGTH);
    assert_non_null(qn_executor_logits(h->executor, 0));
    assert_true(h->result.draft_s == 0.0 && h->result.verify_s > 0.0);
    for (uint32_t n = LENGTH + 1; n <= 3 * QN_PAGE_TOKENS - 8; n++) {
        next_step(h);
        add(h, 0, 1, 0);
        run(h);
        assert_true(h->result.seqs[0].n_complete <= n);
        assert_true(h->result.seqs[0].n_complete + 16 > n);
        if (n % QN_PAGE_TOKENS == 0) {
            assert_int_equal(h->result.seqs[0].n_complete, n);
        }
    }
    next_step(h);
    add(h, 0, 4, 3);
    run(h);
    assert_true(h->result.draft_s > 0.0 && h->result.verify_s > 0.0);
    next_step(h); /* nothing to compute */
    run(h);
    assert_int_equal(h->result.n_seqs, 0);
    assert_int_equal(h->result.outcome, QN_STEP_DONE);
    assert_true(qn_executor_page_bytes(h->executor) == h->rig.t.layout.page_bytes);
    hand_close(h);
}

static void test_a_stop_id_ends_an_answer_and_min_tokens_forbids_it(void **state)
{
    (void)state;
    hand *const h = &g_hand;
    hand_open(h);
    run_prompt(h, 0);
    const int32_t first = h->result.seqs[0].tokens[0];
    assert_false(h->result.seqs[0].is_stopped);
    for (uint32_t min_tokens = 0; min_tokens < 2; min_tokens++) {
        h->requests[0].stop_ids = &first;
        h->requests[0].n_stop_ids = 1;
        h->requests[0].min_tokens = min_tokens;
        run_prompt(h, 0);
        assert_int_equal(h->result.seqs[0].is_stopped, min_tokens == 0);
        assert_int_equal(h->result.seqs[0].tokens[0] == first, min_tokens == 0);
    }
    hand_close(h);
}

/* A pinned answer is the generator's, token by token. */
static bool see_token(void *context, int32_t token, uint32_t position, const float *logits,
                      bool is_stop)
{
    (void)logits;
    (void)is_stop;
    ((int32_t *)context)[position] = token;
    return true;
}

static void test_a_pinned_acceptance_is_that_of_a_generator(void **state)
{
    (void)state;
    enum { DEPTH = 3, N_DRAWN = 41 };
    hand *const h = &g_hand;
    static int32_t want[N_ROOM];
    qn_error err = {0};
    hand_open(h);
    const qn_sequence_options options = rig_sequence_options(&h->rig);
    const qn_generator_sink sink = {.context = want, .token = see_token};
    const qn_generator_request request = {.ids = h->ids[1],
                                          .n_ids = LENGTH,
                                          .sampling = &greedy,
                                          .max_tokens = N_DRAWN + DEPTH,
                                          .draft_tokens = DEPTH,
                                          .acceptance_length = 2.4F};
    qn_generator *generator = NULL;
    assert_int_equal(qn_generator_open(&generator, h->rig.t.glm, &options, &err), QN_OK);
    qn_generator_begin(generator, &request);
    while (qn_generator_state_of(generator) != QN_GENERATOR_IDLE) {
        assert_int_equal(qn_generator_step(generator, &sink, &err), QN_OK);
    }
    qn_generator_close(&generator);
    h->requests[1].acceptance_length = request.acceptance_length;
    run_prompt(h, 1);
    assert_int_equal(h->result.seqs[0].tokens[0], want[LENGTH]);
    uint32_t n_drawn = 1;
    for (uint32_t n_steps = 1; n_drawn < N_DRAWN; n_steps++) {
        next_step(h);
        add(h, 1, 1 + DEPTH, DEPTH);
        run(h);
        const qn_seq_result *const r = &h->result.seqs[0];
        for (uint32_t i = 0; i < r->n_tokens && n_drawn < N_DRAWN; i++) {
            assert_int_equal(r->tokens[i], want[LENGTH + n_drawn++]);
        }
        assert_int_equal(r->n_accepted, r->n_tokens - 1);
        if (n_drawn < N_DRAWN) {
            assert_int_equal(n_drawn - 1, (uint32_t)(n_steps * 2.4 + 1e-4));
        }
    }
    /* The steps before a preemption count: the fifth emits floor(12) - floor(9.6) tokens. */
    h->requests[1].n_steps_before = 4;
    run_prompt(h, 1);
    next_step(h);
    add(h, 1, 1 + DEPTH, DEPTH);
    run(h);
    assert_int_equal(h->result.seqs[0].n_tokens, 3);
    hand_close(h);
}

enum { BAD = 96 }; /* the token whose embedding is no number */
static qn_dequant_row_fn *g_dequant_row;

static void embed_badly(float *y, const qn_weight *w, uint32_t i_out)
{
    g_dequant_row(y, w, i_out);
    if (i_out == BAD) {
        y[5] = NAN;
    }
}

/* Rows of slot 1, whose last id is bad, in the i-th step of a crowd: two chunks, then drafts. */
static void add_bad(hand *h, uint32_t i_step)
{
    switch (i_step) {
    case 0:
        begin(h, 1, 0);
        add(h, 1, 50, 0);
        break;
    case 1: add(h, 1, LENGTH - 50, 0); break;
    default: add(h, 1, 3, 2); break;
    }
}

static void test_logits_that_are_no_numbers_fail_one_sequence_alone(void **state)
{
    (void)state;
    enum { N_STEPS = 6 };
    hand *const h = &g_hand;
    static qn_seq_result want[N_STEPS];
    hand_open(h);
    g_dequant_row = h->rig.t.kernels.dequant_row;
    h->rig.t.kernels.dequant_row = embed_badly;
    for (uint32_t i = 0; i < LENGTH; i++) {
        h->ids[0][i] = h->ids[0][i] == BAD ? 1 : h->ids[0][i];
        h->ids[1][i] = i == LENGTH - 1 ? BAD : h->ids[0][i];
    }
    run_prompt(h, 0);
    for (uint32_t i = 0; i < N_STEPS; i++) {
        next_step(h);
        add(h, 0, 2, 1);
        run(h);
        want[i] = h->result.seqs[0];
    }
    run_prompt(h, 0);
    for (uint32_t i = 0; i < N_STEPS; i++) {
        const qn_seq_result *const bad = &h->result.seqs[0];
        next_step(h);
        add_bad(h, i);
        add(h, 0, 2, 1);
        run(h);
        assert_memory_equal(&h->result.seqs[1], &want[i], sizeof want[i]);
        assert_int_equal(bad->is_failed, i > 0);
        assert_int_equal(bad->n_tokens, 0);
        assert_int_equal(bad->n_complete, 50); /* what was sound stays so */
        assert_int_equal(qn_executor_logits(h->executor, 0) != NULL, i == 1);
    }
    h->ids[1][LENGTH - 1] = 1;
    run_prompt(h, 1); /* the slot is as good as ever */
    assert_false(h->result.seqs[0].is_failed);
    hand_close(h);
}

/* ----------------------------------------------------------------------------------- checksums */

/* What a child process says on stderr before it aborts in @p body. */
static void expect_abort(void (*body)(hand *h), hand *h, const char *const *words)
{
    int fds[2];
    char text[2048];
    size_t len = 0;
    assert_int_equal(pipe(fds), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(fds[1], STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        body(h);
        _exit(0);
    }
    (void)close(fds[1]);
    ssize_t n;
    while ((n = read(fds[0], text + len, sizeof text - 1 - len)) > 0) {
        len += (size_t)n;
    }
    text[len] = '\0';
    (void)close(fds[0]);
    int status = 0;
    assert_true(waitpid(pid, &status, 0) == pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    for (; *words != NULL; words++) {
        if (strstr(text, *words) == NULL) {
            fail_msg("\"%s\" in what it says expected: %s", *words, text);
        }
    }
}

/* Slot 2 begins on the page that slot 0 has published, slot 1 takes it in the place of its own. */
static void share_published(hand *h)
{
    next_step(h);
    begin(h, 2, QN_PAGE_TOKENS);
    share(h, 2, 0, 0);
    share(h, 1, 0, 0);
    add(h, 2, LENGTH - QN_PAGE_TOKENS, 0);
    add(h, 1, 1, 0);
    run(h);
}

/* Slot 3 writes the page that others still share. */
static void overwrite_published(hand *h)
{
    next_step(h);
    h->step.begins[h->step.n_begins++] = (qn_step_begin){4, 3, 0};
    h->step.pages[h->step.n_pages++] = (qn_step_page){3, 0, 1, false};
    h->step.pages[h->step.n_pages++] = (qn_step_page){3, 1, 0, false};
    add(h, 3, N_STEP_ROWS, 0);
    run(h);
    share_published(h);
}

/* It is exchanged for a page of other tokens. */
static void exchange_other(hand *h)
{
    run_prompt(h, 3);
    next_step(h);
    share(h, 3, 0, 0);
    run(h);
}

/* A stray write hits one of the components that the page carries. */
static uint32_t g_i_component;

static void damage_published(hand *h)
{
    const qn_kv *const kv = &h->executor->pages.kv;
    const qn_kv_component *const c = &kv->layout->components[g_i_component];
    kv->base[(size_t)kv->n_pages * c->offset_bytes + c->page_bytes - 1] ^= 1;
    share_published(h);
}

/* Slots 0 and 1 hold the same prompt; the first page of slot 0 is published. */
static void hand_open_published(hand *h)
{
    hand_open(h);
    memcpy(h->ids[1], h->ids[0], sizeof h->ids[0]);
    memcpy(h->ids[2], h->ids[0], sizeof h->ids[0]);
    run_prompt(h, 0);
    run_prompt(h, 1);
    next_step(h);
    h->step.published[h->step.n_published++] = 0;
    run(h);
}

static void test_a_page_that_lies_stops_the_process(void **state)
{
    (void)state;
    hand *const h = &g_hand;
    hand_open_published(h);
    expect_abort(overwrite_published, h, (const char *const[]){"page 0", "published", NULL});
    expect_abort(exchange_other, h, (const char *const[]){"page 9", "latent of layer 0", NULL});
    for (g_i_component = 0; g_i_component < h->rig.t.layout.n_components; g_i_component++) {
        char name[64];
        (void)snprintf(name, sizeof name, "page 0: component %u (", g_i_component);
        expect_abort(damage_published, h,
                     (const char *const[]){name, "in step 6", "step 5 published", NULL});
    }
    share_published(h); /* as it is, it does not */
    assert_int_equal(h->result.seqs[0].n_tokens, 1);
    hand_close(h);
}

/* ----------------------------------------------------------------------------------- memory */

static qn_status open_and_close(qn_error *err)
{
    const qn_executor_options options = {.kernels = &g_hand.rig.t.kernels,
                                         .pool = g_hand.rig.t.pool,
                                         .kv_dtype = QN_KV_BF16,
                                         .n_slots = 2,
                                         .n_pages = 4,
                                         .n_step_rows = N_STEP_ROWS,
                                         .n_context = 100,
                                         .with_mtp = true,
                                         .checks_pages = true};
    qn_executor *executor = NULL;
    const qn_status status = qn_executor_open(&executor, g_hand.rig.t.glm, &options, err);
    assert_true((executor != NULL) == (status == QN_OK));
    qn_executor_close(&executor);
    return status;
}

static void test_an_allocation_that_fails_is_said(void **state)
{
    (void)state;
    hand_open(&g_hand);
    fail_each(open_and_close, 1, 10);
    hand_close(&g_hand);
}

static void test_a_step_allocates_nothing(void **state)
{
    (void)state;
    static world w;
    world_open(&w, &(rig_options){QN_COMPUTE_F32, QN_KV_BF16, .n_threads = 2});
    g_allocations_left = SIZE_MAX - 1; /* counts them */
    for (int i = 0; i < 300; i++) {
        world_step(&w);
    }
    const size_t n_left = g_allocations_left;
    g_allocations_left = SIZE_MAX;
    assert_true(n_left == SIZE_MAX - 1);
    assert_true(w.n_hits > 0 && w.n_exchanged > 0 && w.n_preempted > 0 && w.n_mixed > 0);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_are_complete_in_the_step_that_fills_them),
        cmocka_unit_test(test_a_stop_id_ends_an_answer_and_min_tokens_forbids_it),
        cmocka_unit_test(test_a_pinned_acceptance_is_that_of_a_generator),
        cmocka_unit_test(test_logits_that_are_no_numbers_fail_one_sequence_alone),
        cmocka_unit_test(test_a_page_that_lies_stops_the_process),
        cmocka_unit_test(test_an_allocation_that_fails_is_said),
        cmocka_unit_test(test_a_step_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
