/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The accept rule without a model: logits are a made-up function of the tokens before, and drafts a
 * fixed function of them too.
 */
#include "base/rng.h"
#include "engine/accept.h"
#include "support/unit.h"
#include "unit/engine/plain_sampling.h"

#include <stdlib.h>
#include <string.h>

enum { VOCAB = 6, N_PROMPT = 2, N_TOKENS_MAX = 32, STOP_ID = 5 };
enum {
    N_CHI_TOKENS = 3,
    N_CELLS = VOCAB * VOCAB * VOCAB,
    N_CHI_SEEDS = 100000,
    N_CHI_SETTINGS = 3
};

static const int32_t prompt[N_PROMPT] = {1, 3};
static const int32_t stop_ids[] = {STOP_ID};
static unsigned g_n_draws;

static int32_t count_and_sample(const qn_sample_args *args)
{
    g_n_draws++;
    return qn_sample_ref(args);
}

static const qn_kernels kernels = {.sample = count_and_sample};

/* ---------------------------------------------------------------------- a model and drafts -- */

/* Logits after an answer's first n tokens: between -2 and 2, of all of them. */
static void model(float *logits, const int32_t *answer, uint32_t n)
{
    uint64_t prefix = 1;
    for (uint32_t i = 0; i < n; i++) {
        prefix = qn_rng_u64(prefix, 96, (uint64_t)answer[i]);
    }
    for (uint32_t id = 0; id < VOCAB; id++) {
        logits[id] = (float)(4.0 * qn_rng_unit(prefix, 95, id) - 2.0);
    }
}

/* The likeliest token: right often enough, and wrong often enough. */
static int32_t draft_after(const int32_t *answer, uint32_t n)
{
    float logits[VOCAB];
    int32_t best = 0;
    model(logits, answer, n);
    for (int32_t id = 1; id < VOCAB; id++) {
        best = logits[id] > logits[best] ? id : best;
    }
    return best;
}

/* An answer that is being made. */
typedef struct answer {
    int32_t tokens[N_TOKENS_MAX];
    uint32_t n_tokens, n_wanted;
    bool stops; /* at STOP_ID */
    uint32_t n_passes, n_accepted;
    const float *rows; /* of the present pass, the one that the next token comes from */
} answer;

static bool take(void *context, int32_t token, const float *logits)
{
    answer *const a = context;
    assert_true(a->n_tokens < a->n_wanted);
    assert_ptr_equal(logits, a->rows);
    a->rows += VOCAB;
    a->tokens[a->n_tokens++] = token;
    return a->n_tokens < a->n_wanted && !(a->stops && token == STOP_ID);
}

/* One verification pass with n_drafts drafts behind the answer so far. */
static void pass(answer *a, qn_sampler *sampler, uint32_t n_drafts)
{
    float logits[(QN_DRAFT_TOKENS_MAX + 1) * VOCAB];
    int32_t ahead[N_TOKENS_MAX + QN_DRAFT_TOKENS_MAX];
    const uint32_t n_before = a->n_tokens;
    memcpy(ahead, a->tokens, sizeof a->tokens);
    for (uint32_t j = 0; j <= n_drafts; j++) {
        model(logits + (size_t)j * VOCAB, ahead, n_before + j);
        ahead[n_before + j] = draft_after(ahead, n_before + j);
    }
    const qn_accept_args args = {.logits = logits,
                                 .drafts = ahead + n_before,
                                 .n_vocab = VOCAB,
                                 .n_drafts = n_drafts,
                                 .position = N_PROMPT + n_before,
                                 .emit = take,
                                 .context = a};
    uint32_t n_emitted = 0;
    uint32_t n_accepted = 0;
    qn_error err = {0};
    a->rows = logits;
    assert_int_equal(qn_accept_rows(&n_emitted, &n_accepted, sampler, &args, &err), QN_OK);
    assert_int_equal(n_emitted, a->n_tokens - n_before);
    assert_in_range(n_emitted, 1, n_drafts + 1);
    for (uint32_t j = 0; j < n_emitted; j++) {
        const bool is_draft = j < n_drafts && a->tokens[n_before + j] == ahead[n_before + j];
        assert_true(is_draft || j + 1 == n_emitted);
        n_accepted -= is_draft ? 1 : 0;
        a->n_accepted += is_draft ? 1 : 0;
    }
    assert_int_equal(n_accepted, 0);
    a->n_passes++;
}

static answer answer_with(qn_sampler *sampler, const qn_sampler_request *request, uint32_t n_drafts,
                          uint32_t n_wanted)
{
    answer a = {.n_wanted = n_wanted, .stops = request->n_stop_ids > 0};
    qn_sampler_begin(sampler, request);
    while (a.n_tokens < n_wanted &&
           !(a.stops && a.n_tokens > 0 && a.tokens[a.n_tokens - 1] == STOP_ID)) {
        pass(&a, sampler, n_drafts);
    }
    return a;
}

static qn_sampler *open_sampler(void)
{
    qn_sampler *sampler = NULL;
    qn_error err = {0};
    assert_int_equal(qn_sampler_open(&sampler, &kernels, VOCAB, &err), QN_OK);
    return sampler;
}

/* ------------------------------------------------------------------ the distribution drawn -- */

static const qn_logit_bias biases[] = {{2, 0.5F}, {4, -0.7F}};

/* Settings whose distributions are compared. */
static qn_sampling chi_settings(int which)
{
    qn_sampling s = plain_settings;
    if (which == 1) {
        s.temperature = 0.8F;
        s.top_p = 0.85F;
    } else if (which == 2) {
        s.temperature = 1.3F;
        s.top_k = 5;
        s.min_p = 0.1F;
        s.repetition_penalty = 1.4F;
        s.presence_penalty = 0.3F;
        s.frequency_penalty = 0.2F;
        s.logit_bias = biases;
        s.n_logit_bias = 2;
    }
    return s;
}

/* Probabilities of the token after an answer's first n. */
static void target(double *p, const qn_sampler_request *request, const int32_t *tokens, uint32_t n)
{
    float logits[VOCAB];
    double adjusted[VOCAB];
    model(logits, tokens, n);
    plain_logits(adjusted, logits, VOCAB, request, tokens, n);
    plain_probabilities(p, adjusted, VOCAB, request->sampling);
}

/* Probabilities of the first three tokens together. */
static void joint(double *cells, const qn_sampler_request *request)
{
    for (int32_t cell = 0; cell < N_CELLS; cell++) {
        const int32_t tokens[N_CHI_TOKENS] = {cell / (VOCAB * VOCAB), cell / VOCAB % VOCAB,
                                              cell % VOCAB};
        cells[cell] = 1.0;
        for (uint32_t n = 0; n < N_CHI_TOKENS; n++) {
            double p[VOCAB];
            target(p, request, tokens, n);
            cells[cell] *= p[tokens[n]];
        }
    }
}

/*
 * Pearson's test: the probability of counts at least so far off.  Cells that expect fewer than 5
 * count as one; the tail is Wilson and Hilferty's approximation (1931), good to some per cent here.
 */
static double p_value(const unsigned *counts, const double *cells)
{
    double chi = 0.0;
    double rest = 0.0;
    double rest_expected = 0.0;
    int n_cells = 0;
    for (int cell = 0; cell < N_CELLS; cell++) {
        const double expected = cells[cell] * N_CHI_SEEDS;
        if (cells[cell] == 0.0 && counts[cell] > 0) {
            return 0.0; /* what cannot be drawn was */
        }
        if (expected < 5.0) {
            rest += counts[cell];
            rest_expected += expected;
        } else {
            chi += (counts[cell] - expected) * (counts[cell] - expected) / expected;
            n_cells++;
        }
    }
    if (rest_expected >= 5.0) {
        chi += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
        n_cells++;
    }
    const double k = n_cells - 1;
    assert_true(k >= 20.0);
    const double z = (cbrt(chi / k) - (1.0 - 2.0 / (9.0 * k))) / sqrt(2.0 / (9.0 * k));
    return 0.5 * erfc(z / sqrt(2.0));
}

static int32_t cell_of(const int32_t *tokens)
{
    return (tokens[0] * VOCAB + tokens[1]) * VOCAB + tokens[2];
}

/* How often each cell comes up; returns the number of accepted drafts. */
static uint64_t count_cells(unsigned *counts, qn_sampler *sampler, qn_sampling *sampling,
                            uint32_t n_drafts)
{
    const qn_sampler_request request = {
        .sampling = sampling, .prompt = prompt, .n_prompt = N_PROMPT};
    uint64_t n_accepted = 0;
    for (uint64_t i = 0; i < N_CHI_SEEDS; i++) {
        sampling->seed = (uint64_t)n_drafts * N_CHI_SEEDS + i;
        const answer a = answer_with(sampler, &request, n_drafts, N_CHI_TOKENS);
        counts[cell_of(a.tokens)]++;
        n_accepted += a.n_accepted;
    }
    return n_accepted;
}

static void check_distribution(qn_sampler *sampler, int which, uint32_t n_drafts)
{
    qn_sampling sampling = chi_settings(which);
    const qn_sampler_request request = {
        .sampling = &sampling, .prompt = prompt, .n_prompt = N_PROMPT};
    double cells[N_CELLS];
    unsigned counts[N_CELLS] = {0};
    joint(cells, &request);
    const uint64_t n_accepted = count_cells(counts, sampler, &sampling, n_drafts);
    const double p = p_value(counts, cells);
    if (p < 1e-4) {
        fail_msg("settings %d, %u drafts: p = %g", which, n_drafts, p);
    }
    /* Drafts were taken and refused: neither way through a pass went untried. */
    assert_true(n_drafts == 0 || n_accepted > N_CHI_SEEDS / 4);
    assert_true(n_accepted < (uint64_t)2 * N_CHI_SEEDS);
}

static void test_accepted_tokens_have_the_target_distribution(void **state)
{
    (void)state;
    qn_sampler *sampler = open_sampler();
    for (int which = 0; which < N_CHI_SETTINGS; which++) {
        for (uint32_t n_drafts = 0; n_drafts <= 4; n_drafts += 2) {
            check_distribution(sampler, which, n_drafts);
        }
    }
    qn_sampler_close(&sampler);
}

/* A token by inverse CDF. */
static int32_t token_at(const double *p, double unit)
{
    int32_t token = 0;
    double sum = p[0];
    while (token + 1 < VOCAB && unit >= sum) {
        sum += p[++token];
    }
    return token;
}

/*
 * The usual mistake: a draft is accepted with its probability, and after a refusal the token comes
 * from the whole target instead of what is left of it, so that drafts come too often.
 */
static void answer_wrongly(int32_t *tokens, const qn_sampler_request *request, bool draws_again)
{
    const uint64_t seed = request->sampling->seed;
    for (uint32_t n = 0; n < N_CHI_TOKENS; n++) {
        double p[VOCAB];
        target(p, request, tokens, n);
        tokens[n] = draft_after(tokens, n);
        if (qn_rng_unit(seed, 94, n) < p[tokens[n]]) {
            continue;
        }
        const double whole = 1.0 - (draws_again ? 0.0 : p[tokens[n]]);
        p[tokens[n]] = draws_again ? p[tokens[n]] : 0.0;
        for (uint32_t id = 0; id < VOCAB; id++) {
            p[id] /= whole;
        }
        tokens[n] = token_at(p, qn_rng_unit(seed, 93, n));
    }
}

static void test_the_test_of_distributions_finds_a_biased_rule(void **state)
{
    (void)state;
    for (int which = 0; which < N_CHI_SETTINGS; which++) {
        for (int draws_again = 0; draws_again < 2; draws_again++) {
            qn_sampling sampling = chi_settings(which);
            const qn_sampler_request request = {
                .sampling = &sampling, .prompt = prompt, .n_prompt = N_PROMPT};
            double cells[N_CELLS];
            unsigned counts[N_CELLS] = {0};
            joint(cells, &request);
            for (sampling.seed = 0; sampling.seed < N_CHI_SEEDS; sampling.seed++) {
                int32_t tokens[N_CHI_TOKENS];
                answer_wrongly(tokens, &request, draws_again == 1);
                counts[cell_of(tokens)]++;
            }
            /* With the residual, as rejection sampling has it, the rule is right. */
            assert_int_equal(p_value(counts, cells) < 1e-4, draws_again);
        }
    }
}

/* ------------------------------------------------------------------------- the tokens drawn -- */

static qn_sampling any_settings(uint64_t seed)
{
    const uint64_t bits = qn_rng_u64(seed, 92, 0);
    qn_sampling s = plain_settings;
    s.temperature = (bits & 1) != 0 ? 0.7F : (bits & 64) != 0 ? 0.0F : 1.0F;
    s.top_p = (bits & 2) != 0 ? 0.9F : 1.0F;
    s.top_k = (bits & 4) != 0 ? 4 : 0;
    s.min_p = (bits & 8) != 0 ? 0.05F : 0.0F;
    s.repetition_penalty = (bits & 16) != 0 ? 1.5F : 1.0F;
    s.presence_penalty = (bits & 32) != 0 ? 0.8F : 0.0F;
    s.frequency_penalty = (bits & 128) != 0 ? 0.3F : 0.0F;
    s.logit_bias = biases;
    s.n_logit_bias = (bits & 256) != 0 ? 2 : 0;
    s.seed = seed;
    return s;
}

static void test_a_seed_gives_the_same_tokens_at_every_depth(void **state)
{
    (void)state;
    qn_sampler *sampler = open_sampler();
    uint64_t n_tokens = 0;
    uint64_t n_passes = 0;
    unsigned n_stopped = 0;
    for (uint64_t seed = 0; seed < 4000; seed++) {
        const qn_sampling sampling = any_settings(seed);
        const qn_sampler_request request = {.sampling = &sampling,
                                            .prompt = prompt,
                                            .n_prompt = N_PROMPT,
                                            .stop_ids = stop_ids,
                                            .n_stop_ids = (uint32_t)(seed % 2),
                                            .min_tokens = (uint32_t)(seed % 12)};
        const answer expected = answer_with(sampler, &request, 0, N_TOKENS_MAX);
        for (uint32_t n_drafts = 1; n_drafts <= QN_DRAFT_TOKENS_MAX; n_drafts++) {
            const answer got = answer_with(sampler, &request, n_drafts, N_TOKENS_MAX);
            assert_int_equal(got.n_tokens, expected.n_tokens);
            assert_memory_equal(got.tokens, expected.tokens, sizeof got.tokens);
            n_tokens += got.n_tokens;
            n_passes += got.n_passes;
        }
        n_stopped += expected.n_tokens < N_TOKENS_MAX ? 1 : 0;
        assert_true(expected.n_tokens >= request.min_tokens);
    }
    assert_true(n_tokens * 2 > n_passes * 3); /* drafts do save passes */
    assert_in_range(n_stopped, 1000, 2000);
    qn_sampler_close(&sampler);
}

static void test_every_setting_changes_tokens(void **state)
{
    (void)state;
    qn_sampler *sampler = open_sampler();
    for (int which = 0; which < 8; which++) {
        unsigned n_changed = 0;
        for (uint64_t seed = 0; seed < 100; seed++) {
            qn_sampling s = plain_settings;
            s.seed = seed;
            const qn_sampler_request request = {
                .sampling = &s, .prompt = prompt, .n_prompt = N_PROMPT};
            const answer before = answer_with(sampler, &request, 3, N_TOKENS_MAX);
            s.temperature = which == 0 ? 0.7F : s.temperature;
            s.top_p = which == 1 ? 0.9F : s.top_p;
            s.top_k = which == 2 ? 4 : 0;
            s.min_p = which == 3 ? 0.05F : 0.0F;
            s.repetition_penalty = which == 4 ? 1.5F : s.repetition_penalty;
            s.presence_penalty = which == 5 ? 0.8F : 0.0F;
            s.frequency_penalty = which == 6 ? 0.3F : 0.0F;
            s.logit_bias = biases;
            s.n_logit_bias = which == 7 ? 2 : 0;
            const answer after = answer_with(sampler, &request, 3, N_TOKENS_MAX);
            n_changed += memcmp(before.tokens, after.tokens, sizeof after.tokens) != 0 ? 1 : 0;
        }
        assert_true(n_changed > 50);
    }
    qn_sampler_close(&sampler);
}

/* -------------------------------------------------------------------------------- one pass -- */

/* Four rows whose likeliest tokens are 0, 1, 2, 3. */
static const float rows[4 * VOCAB] = {
    [0 * VOCAB + 0] = 1.0F, [1 * VOCAB + 1] = 1.0F, [2 * VOCAB + 2] = 1.0F, [3 * VOCAB + 3] = 1.0F};

typedef struct one_pass {
    uint32_t n_emitted, n_accepted;
    answer taken;
} one_pass;

static one_pass run_pass(const int32_t *drafts, int n_forced, uint32_t n_wanted, bool stops)
{
    qn_sampling greedy = plain_settings;
    greedy.temperature = 0.0F;
    const qn_sampler_request request = {.sampling = &greedy};
    qn_sampler *sampler = open_sampler();
    qn_error err = {0};
    one_pass p = {.taken = {.n_wanted = n_wanted, .stops = stops, .rows = rows}};
    const qn_accept_args args = {.logits = rows,
                                 .drafts = drafts,
                                 .n_vocab = VOCAB,
                                 .n_drafts = 3,
                                 .position = 1,
                                 .is_pinned = n_forced >= 0,
                                 .n_forced = n_forced >= 0 ? (uint32_t)n_forced : 0,
                                 .emit = take,
                                 .context = &p.taken};
    g_n_draws = 0;
    qn_sampler_begin(sampler, &request);
    assert_int_equal(qn_accept_rows(&p.n_emitted, &p.n_accepted, sampler, &args, &err), QN_OK);
    assert_int_equal(p.n_emitted, p.taken.n_tokens);
    qn_sampler_close(&sampler);
    return p;
}

static void test_drafts_are_accepted_up_to_the_first_that_differs(void **state)
{
    (void)state;
    static const int32_t drafts[4][3] = {{4, 1, 2}, {0, 4, 2}, {0, 1, 4}, {0, 1, 2}};
    for (uint32_t n = 0; n < 4; n++) {
        const one_pass p = run_pass(drafts[n], -1, 9, false);
        assert_int_equal(p.n_emitted, n + 1);
        assert_int_equal(p.n_accepted, n);
        assert_int_equal(g_n_draws, n + 1);
        for (uint32_t i = 0; i <= n; i++) {
            assert_int_equal(p.taken.tokens[i], i);
        }
    }
}

static void test_the_receiver_ends_a_pass_and_its_draft_counts_as_accepted(void **state)
{
    (void)state;
    static const int32_t drafts[] = {0, 1, 2};
    for (uint32_t n_wanted = 1; n_wanted <= 4; n_wanted++) {
        const one_pass p = run_pass(drafts, -1, n_wanted, false);
        assert_int_equal(p.n_emitted, n_wanted);
        assert_int_equal(p.n_accepted, n_wanted < 4 ? n_wanted : 3);
        assert_int_equal(g_n_draws, n_wanted);
    }
}

static void test_pinned_acceptance_takes_so_many_drafts_unseen(void **state)
{
    (void)state;
    static const int32_t drafts[3] = {5, 4, 2}; /* the last one is right: that must not matter */
    for (int n_forced = 0; n_forced <= 3; n_forced++) {
        const one_pass p = run_pass(drafts, n_forced, 9, false);
        assert_int_equal(p.n_emitted, n_forced + 1);
        assert_int_equal(p.n_accepted, n_forced);
        assert_int_equal(g_n_draws, 1);
        assert_memory_equal(p.taken.tokens, drafts, (size_t)n_forced * sizeof *drafts);
        assert_int_equal(p.taken.tokens[n_forced], n_forced);
    }
    const one_pass stopped = run_pass(drafts, 3, 9, true); /* its first token is STOP_ID */
    assert_int_equal(stopped.n_emitted, 1);
    assert_int_equal(stopped.n_accepted, 1);
    assert_int_equal(g_n_draws, 0);
}

static void test_an_error_leaves_what_was_emitted_before(void **state)
{
    (void)state;
    static const int32_t drafts[] = {0};
    float broken[2 * VOCAB] = {1.0F};
    for (uint32_t id = 0; id < VOCAB; id++) {
        broken[VOCAB + id] = NAN;
    }
    qn_sampling greedy = plain_settings;
    greedy.temperature = 0.0F;
    const qn_sampler_request request = {.sampling = &greedy};
    qn_sampler *sampler = open_sampler();
    qn_sampler_begin(sampler, &request);
    answer a = {.n_wanted = 9, .rows = broken};
    const qn_accept_args args = {.logits = broken,
                                 .drafts = drafts,
                                 .n_vocab = VOCAB,
                                 .n_drafts = 1,
                                 .position = 30,
                                 .emit = take,
                                 .context = &a};
    uint32_t n_emitted = 9;
    uint32_t n_accepted = 9;
    qn_error err = {0};
    assert_int_equal(qn_accept_rows(&n_emitted, &n_accepted, sampler, &args, &err), QN_E_FORMAT);
    assert_non_null(strstr(err.text, "token at 31"));
    assert_int_equal(n_emitted, 1);
    assert_int_equal(n_accepted, 1);
    assert_int_equal(a.n_tokens, 1);
    qn_sampler_close(&sampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted_tokens_have_the_target_distribution),
        cmocka_unit_test(test_the_test_of_distributions_finds_a_biased_rule),
        cmocka_unit_test(test_a_seed_gives_the_same_tokens_at_every_depth),
        cmocka_unit_test(test_every_setting_changes_tokens),
        cmocka_unit_test(test_drafts_are_accepted_up_to_the_first_that_differs),
        cmocka_unit_test(test_the_receiver_ends_a_pass_and_its_draft_counts_as_accepted),
        cmocka_unit_test(test_pinned_acceptance_takes_so_many_drafts_unseen),
        cmocka_unit_test(test_an_error_leaves_what_was_emitted_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
