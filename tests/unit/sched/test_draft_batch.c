/* SPDX-License-Identifier: Apache-2.0 */
/* A machine and a text are tables; the policy runs on them against every fixed depth.  With
   --verbose all results are printed, without those that miss their bound. */
#include "base/rng.h"
#include "sched/draft_batch.h"
#include "sched/step.h"
#include "support/unit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N_DEPTHS = QN_DRAFT_TOKENS_MAX + 1, N_SEQS_MAX = 64, N_SEEDS = 4 };

static bool g_is_verbose;

/* Costs in units of the trunk's pass over one row. */
typedef struct sim_machine {
    const char *name;
    double row;  /* each further row adds so much, until ... */
    double knee; /* ... so many rows, and from there on as many times row_late */
    double row_late;
    double tile;    /* rows are rounded up to a multiple of it */
    double experts; /* more of the experts are touched: at most so much */
    double mtp;     /* a pass over one row */
    double mtp_row; /* each further one */
    double bound; /* of the policy's time by the best fixed depth's, where texts stay as they are */
} sim_machine;

static const sim_machine machines[] = {
    {"flat", .002, 1e9, 0, 1, 0, .0125, .0001, 1.05},
    {"row 1/8", .125, 1e9, 0, 1, 0, .04, .005, 1.05},
    {"row 1/2", .5, 1e9, 0, 1, 0, .05, .02, 1.05},
    {"row 1", 1, 1e9, 0, 1, 0, .05, .05, 1.05},
    {"flat to 64, then row 1/16", .002, 64, .0625, 1, 0, .02, .001, 1.15},
    {"experts", .004, 1e9, 0, 1, 12, .05, .02, 1.05}, /* spec: B = 4 .. 16 is the worst zone */
    {"tiles of 16", .03, 1e9, 0, 16, 0, .02, .002, 1.3},
};

/* Chance that draft i is right where those before it were. */
typedef struct sim_text {
    const char *name;
    double block[2][QN_DRAFT_TOKENS_MAX]; /* in turn */
    uint32_t n_block_tokens;              /* 0: the first block only */
} sim_text;

#define ALL(a)                                                                                     \
    {                                                                                              \
        a, a, a, a, a, a, a, a                                                                     \
    }

static const sim_text texts[] = {
    {"1", {ALL(1)}, 0},
    {".95", {ALL(.95)}, 0},
    {"reported", {{.84, .79, .74, .69, .82, .61, .76, .85}}, 0}, /* docs/internals/sched.md */
    {".5", {ALL(.5)}, 0},
    {".1", {ALL(.1)}, 0},
    {"0", {ALL(0)}, 0},
    {"0 .9 by 500", {ALL(0), ALL(.9)}, 500},
};

/* ... and where a text changes. */
static const double changing_bound = 1.25;

static const uint32_t batches[] = {1, 4, 16, 64};

enum {
    N_MACHINES = sizeof machines / sizeof machines[0],
    N_TEXTS = sizeof texts / sizeof texts[0],
    N_BATCHES = sizeof batches / sizeof batches[0],
    N_TOKENS = 1500, /* of each sequence */
};

static double trunk_s(const sim_machine *machine, uint32_t n_rows)
{
    const double rows = ceil(n_rows / machine->tile) * machine->tile;
    const double late = fmax(rows - machine->knee, 0);
    const double touched = machine->experts * (1 - pow(1 - 8.0 / 256, rows - 1));
    return 1 + machine->row * (rows - machine->tile - late) + machine->row_late * late + touched;
}

static double mtp_s(const sim_machine *machine, uint32_t n_rows)
{
    return machine->mtp + machine->mtp_row * (n_rows - 1);
}

typedef struct sim_run {
    const sim_machine *machine;
    const sim_text *text;
    uint32_t n_seqs;
    uint64_t seed;
    uint32_t n_tokens[N_SEQS_MAX];
    qn_draft_record records[N_SEQS_MAX];
    uint32_t n_steps;
    double time;
} sim_run;

/* Whether a draft is right depends on its place alone, so that all depths face the same text. */
static uint32_t accept(const sim_run *run, uint32_t i_seq, uint32_t depth)
{
    const sim_text *const text = run->text;
    const uint32_t at = run->n_tokens[i_seq];
    const uint32_t block = text->n_block_tokens == 0 ? 0 : at / text->n_block_tokens % 2;
    uint32_t n = 0;
    while (n < depth && qn_rng_unit(run->seed + i_seq, n, at) < text->block[block][n]) {
        n++;
    }
    return n;
}

/* Times are off by up to 20 %, and 2 % of them ten times as long. */
static double clock_s(const sim_run *run, uint64_t stream, double time)
{
    const double jitter = 2 * qn_rng_unit(run->seed, stream, run->n_steps) - 1;
    const bool is_outlier = qn_rng_unit(run->seed, stream + 1, run->n_steps) < .02;
    return .04 * time * (1 + .2 * jitter) * (is_outlier ? 10 : 1);
}

/* Returns tokens. */
static uint32_t step(sim_run *run, qn_draft_batch *policy, uint32_t fixed)
{
    qn_draft_seq seqs[N_SEQS_MAX];
    for (uint32_t i = 0; i < run->n_seqs; i++) {
        seqs[i] = (qn_draft_seq){&run->records[i], QN_DRAFT_TOKENS_MAX, fixed};
    }
    if (policy != NULL) {
        const qn_draft_room room = {.n_rows_max = 1000};
        qn_draft_batch_choose(policy, seqs, run->n_seqs, &room);
    }
    qn_draft_cost cost = {.n_rows = run->n_seqs};
    uint32_t n_at[QN_DRAFT_TOKENS_MAX] = {0};
    uint32_t n_tokens = 0;
    for (uint32_t i = 0; i < run->n_seqs; i++) {
        const uint32_t depth = seqs[i].depth;
        const uint32_t n_accepted = accept(run, i, depth);
        if (policy != NULL) {
            qn_draft_batch_accept(policy, &run->records[i], depth, n_accepted);
        }
        run->n_tokens[i] += 1 + n_accepted;
        n_tokens += 1 + n_accepted;
        cost.n_rows += depth;
        cost.n_drafts += depth;
        cost.n_seqs += depth > 0;
        cost.n_passes = depth > cost.n_passes ? depth : cost.n_passes;
        for (uint32_t n = 0; n < depth; n++) {
            n_at[n]++;
        }
    }
    double draft_s = 0;
    for (uint32_t n = 0; n < cost.n_passes; n++) {
        draft_s += mtp_s(run->machine, n_at[n]);
    }
    const double verify_s = trunk_s(run->machine, cost.n_rows);
    run->time += verify_s + draft_s;
    run->n_steps++;
    cost.verify_s = clock_s(run, 100, verify_s);
    cost.draft_s = clock_s(run, 200, draft_s);
    if (policy != NULL) {
        qn_draft_batch_observe(policy, &cost);
    }
    return n_tokens;
}

/* Time a token. */
static double run_text(sim_run *run, qn_draft_batch *policy, uint32_t fixed)
{
    uint64_t n_tokens = 0;
    while (n_tokens < (uint64_t)N_TOKENS * run->n_seqs) {
        n_tokens += step(run, policy, fixed);
    }
    return run->time / (double)n_tokens;
}

/* The policy's time by that of the fixed depth that hindsight finds best. */
static double compare(const sim_machine *machine, const sim_text *text, uint32_t n_seqs,
                      uint32_t *best_depth)
{
    double policy_s = 0;
    double best_s = (double)INFINITY;
    for (uint32_t seed = 0; seed < N_SEEDS; seed++) {
        sim_run run = {
            .machine = machine, .text = text, .n_seqs = n_seqs, .seed = (uint64_t)seed * 1000};
        qn_draft_batch policy;
        qn_draft_batch_init(&policy, QN_DRAFT_TOKENS_MAX);
        for (uint32_t i = 0; i < n_seqs; i++) {
            qn_draft_record_init(&run.records[i]);
        }
        policy_s += run_text(&run, &policy, 0);
    }
    for (uint32_t depth = 0; depth < N_DEPTHS; depth++) {
        double fixed_s = 0;
        for (uint32_t seed = 0; seed < N_SEEDS; seed++) {
            sim_run run = {
                .machine = machine, .text = text, .n_seqs = n_seqs, .seed = (uint64_t)seed * 1000};
            fixed_s += run_text(&run, NULL, depth);
        }
        if (fixed_s < best_s) {
            best_s = fixed_s;
            *best_depth = depth;
        }
    }
    return policy_s / best_s;
}

/* One machine and batch with all texts.  Returns whether all bounds are kept. */
static bool keeps_bounds(const sim_machine *machine, uint32_t n_seqs)
{
    bool are_kept = true;
    if (g_is_verbose) {
        printf("B %2u %-28s", (unsigned)n_seqs, machine->name);
    }
    for (uint32_t t = 0; t < N_TEXTS; t++) {
        uint32_t depth = 0;
        const double ratio = compare(machine, &texts[t], n_seqs, &depth);
        const double bound = texts[t].n_block_tokens == 0 ? machine->bound : changing_bound;
        are_kept = are_kept && ratio <= bound;
        if (g_is_verbose) {
            printf(" | %u: %.3f", (unsigned)depth, ratio);
        } else if (ratio > bound) {
            printf("B %u, %s, text %s: %.3f of the time of depth %u, at most %.2f expected\n",
                   (unsigned)n_seqs, machine->name, texts[t].name, ratio, (unsigned)depth, bound);
        }
    }
    if (g_is_verbose) {
        printf("\n");
    }
    return are_kept;
}

static void test_little_is_lost_against_every_fixed_depth(void **state)
{
    (void)state;
    bool are_kept = true;
    for (uint32_t b = 0; b < N_BATCHES; b++) {
        for (uint32_t m = 0; m < N_MACHINES; m++) {
            are_kept = keeps_bounds(&machines[m], batches[b]) && are_kept;
        }
    }
    assert_true(are_kept);
}

/* A process that slept through its first steps, and one that woke: times that nothing explains. */
static void test_times_of_any_size_are_taken(void **state)
{
    (void)state;
    static const double seconds[] = {1e5, 1e-8, 1e-3, 1e5, 1e5, 1e5, 1e5, 1e5, 1e-3};
    qn_draft_batch d;
    qn_draft_batch_init(&d, 8);
    for (size_t i = 0; i < 8 * sizeof seconds / sizeof seconds[0]; i++) {
        const double s = seconds[i % (sizeof seconds / sizeof seconds[0])];
        const qn_draft_cost cost = {
            .n_rows = 6, .n_passes = 5, .n_seqs = 1, .draft_s = s / 4, .verify_s = s};
        qn_draft_batch_observe(&d, &cost); /* returns */
    }
}

/* A step of four sequences whose drafts are all right or all wrong.  Returns drafts made. */
static uint32_t step_four(qn_draft_batch *d, qn_draft_record *records, bool are_right,
                          double *probe_stall_s)
{
    qn_draft_seq seqs[4];
    const qn_draft_room room = {.n_rows_max = 20};
    qn_draft_cost cost = {.n_rows = 4, .verify_s = .01};
    for (uint32_t i = 0; i < 4; i++) {
        seqs[i] = (qn_draft_seq){&records[i], 5, 0};
    }
    qn_draft_batch_choose(d, seqs, 4, &room);
    for (uint32_t i = 0; i < 4; i++) {
        qn_draft_batch_accept(d, &records[i], seqs[i].depth, are_right ? seqs[i].depth : 0);
        cost.n_rows += seqs[i].depth;
        cost.n_drafts += seqs[i].depth;
        cost.n_seqs += seqs[i].depth > 0;
        cost.n_passes = seqs[i].depth > cost.n_passes ? seqs[i].depth : cost.n_passes;
    }
    cost.draft_s = cost.n_passes * .0005;
    if (cost.n_drafts > 0) {
        cost.verify_s += *probe_stall_s;
        *probe_stall_s = 0;
    }
    qn_draft_batch_observe(d, &cost);
    return cost.n_drafts;
}

/* A machine that slept during one probe: easy text is drafted soon all the same. */
static void test_a_probe_that_stalls_costs_no_more_than_others(void **state)
{
    (void)state;
    static const double stalls_s[] = {0, 1, 60, 3600};
    for (size_t k = 0; k < sizeof stalls_s / sizeof stalls_s[0]; k++) {
        double stall_s = 0;
        uint32_t n_steps = 0;
        qn_draft_batch d;
        qn_draft_record records[4];
        qn_draft_batch_init(&d, 5);
        for (uint32_t i = 0; i < 4; i++) {
            qn_draft_record_init(&records[i]);
        }
        for (uint32_t i = 0; i < 3000; i++) {
            stall_s = i == 500 ? stalls_s[k] : stall_s;
            (void)step_four(&d, records, false, &stall_s);
        }
        assert_true(stall_s == 0); /* there was such a probe */
        while (n_steps < 300 && step_four(&d, records, true, &stall_s) == 0) {
            n_steps++;
        }
        assert_in_range(n_steps, 0, 299);
    }
}

/* The most rows that a step has: the choice ends. */
static void test_a_full_step_is_chosen(void **state)
{
    (void)state;
    qn_draft_batch d;
    qn_draft_record record;
    qn_draft_batch_init(&d, 8);
    qn_draft_record_init(&record);
    const qn_draft_cost cost = {.n_rows = QN_STEP_ROWS_MAX, .verify_s = .01};
    for (uint32_t i = 0; i < 4; i++) {
        qn_draft_batch_accept(&d, &record, 8, 8);
        qn_draft_batch_observe(&d, &cost);
    }
    qn_draft_seq seqs[2] = {{&record, 8, 0}, {&record, 8, 0}};
    const qn_draft_room room = {.n_other_rows = QN_STEP_ROWS_MAX - 10, .n_rows_max = 8};
    qn_draft_batch_choose(&d, seqs, 2, &room);
    assert_true(seqs[0].depth + seqs[1].depth <= 8);
}

/* What was never timed is approached by doubling. */
static void test_rows_grow_by_doubling(void **state)
{
    (void)state;
    qn_draft_batch policy;
    qn_draft_record record;
    qn_draft_batch_init(&policy, QN_DRAFT_TOKENS_MAX);
    qn_draft_record_init(&record);
    uint32_t n_rows_seen = 0;
    for (uint32_t i = 0; i < 6; i++) {
        qn_draft_seq seqs[16];
        uint32_t n_rows = 16;
        for (uint32_t k = 0; k < 16; k++) {
            seqs[k] = (qn_draft_seq){&record, QN_DRAFT_TOKENS_MAX, 0};
        }
        const qn_draft_room room = {.n_rows_max = 1000};
        qn_draft_batch_choose(&policy, seqs, 16, &room);
        for (uint32_t k = 0; k < 16; k++) {
            n_rows += seqs[k].depth;
            qn_draft_batch_accept(&policy, &record, seqs[k].depth, seqs[k].depth);
        }
        assert_true(n_rows == 16 || n_rows <= 2 * n_rows_seen);
        n_rows_seen = n_rows > n_rows_seen ? n_rows : n_rows_seen;
        const qn_draft_cost cost = {n_rows, n_rows > 16 ? 8 : 0, 16, n_rows - 16, .001, .01};
        qn_draft_batch_observe(&policy, &cost);
    }
    assert_int_equal(n_rows_seen, 16 * 9);
}

/* No more rows than there are, the first drafts first; and none where none are allowed. */
static void test_limits_are_kept(void **state)
{
    (void)state;
    qn_draft_batch policy;
    qn_draft_record record;
    qn_draft_batch_init(&policy, 5);
    qn_draft_record_init(&record);
    const qn_draft_cost cost = {.n_rows = 64, .verify_s = .01};
    for (uint32_t i = 0; i < 4; i++) {
        qn_draft_batch_observe(&policy, &cost);
    }
    for (uint32_t i = 0; i < 20; i++) {
        qn_draft_batch_accept(&policy, &record, 5, 5);
    }
    qn_draft_seq seqs[3] = {{&record, 8, 0}, {&record, 1, 0}, {&record, 0, 0}};
    qn_draft_room room = {.n_rows_max = 100};
    qn_draft_batch_choose(&policy, seqs, 3, &room);
    assert_int_equal(seqs[0].depth, 5);
    assert_int_equal(seqs[1].depth, 1);
    assert_int_equal(seqs[2].depth, 0);
    room.n_rows_max = 3;
    qn_draft_batch_choose(&policy, seqs, 3, &room);
    assert_int_equal(seqs[0].depth, 2);
    assert_int_equal(seqs[1].depth, 1);
    room.n_rows_max = 0;
    qn_draft_batch_choose(&policy, seqs, 3, &room);
    assert_int_equal(seqs[0].depth + seqs[1].depth + seqs[2].depth, 0);
}

int main(int argc, char **argv)
{
    g_is_verbose = argc > 1 && strcmp(argv[1], "--verbose") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_grow_by_doubling),
        cmocka_unit_test(test_limits_are_kept),
        cmocka_unit_test(test_a_full_step_is_chosen),
        cmocka_unit_test(test_a_probe_that_stalls_costs_no_more_than_others),
        cmocka_unit_test(test_little_is_lost_against_every_fixed_depth),
        cmocka_unit_test(test_times_of_any_size_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
