/* SPDX-License-Identifier: Apache-2.0 */
/* How long the scheduler takes for a step: 256 sequences, 100,000 pages, prompts of 20,000 ids of
 * which three fifths are shared, answers of 1,000 tokens. */
#include "base/huge.h"
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    N_SEQS = 256,
    N_WAITING = 16, /* so that a slot that gets free is taken at once */
    N_LIVE = N_SEQS + N_WAITING,
    N_PAGES = 100000,
    N_PROMPT = 20000,
    N_SHARED = 12000,
    N_SYSTEMS = 8,
    N_ANSWER = 1000,
    N_WARM_STEPS = 3000,
    N_STEPS = 20000,
    N_WALK = 64, /* reads, each waiting for the one before */
    N_CELLS = 8 << 20,
};

typedef struct bench {
    void *memory;
    qn_sched *sched;
    qn_step step;
    qn_step_result result;
    qn_request_id ids[N_LIVE];
    int32_t *texts[N_LIVE];
    uint32_t n_complete[N_SEQS];
    uint32_t n_tokens[N_SEQS]; /* of the sequence in a slot */
    uint64_t n_submitted;
    uint64_t now_us;
    sim_rng rng;
} bench;

static void submit(bench *b, uint32_t i)
{
    int32_t *ids = b->texts[i];
    const uint64_t system = sim_rng_below(&b->rng, N_SYSTEMS);
    for (uint32_t p = 0; p < N_PROMPT; p++) {
        const uint64_t text = p < N_SHARED ? system : N_SYSTEMS + b->n_submitted;
        ids[p] = (int32_t)(qn_rng_u64(31, text, p) % 150000);
    }
    b->n_submitted++;
    const qn_sched_request request = {
        .ids = ids,
        .n_ids = N_PROMPT,
        .max_tokens = N_ANSWER / 2 + sim_rng_below(&b->rng, N_ANSWER),
        .draft_tokens = QN_DRAFT_AUTO,
    };
    const bool is_taken = qn_sched_submit(&b->ids[i], b->sched, &request, b->now_us);
    QN_ASSERT(is_taken);
}

static void execute(bench *b)
{
    const qn_step *step = &b->step;
    qn_step_result *result = &b->result;
    for (uint32_t i = 0; i < step->n_begins; i++) {
        b->n_tokens[step->begins[i].slot] = 0;
        b->n_complete[step->begins[i].slot] = step->begins[i].n_cached;
    }
    result->number = step->number;
    result->outcome = QN_STEP_DONE;
    result->verify_s = 0.02 + 1e-5 * step->n_rows;
    result->draft_s = 0.004;
    result->n_seqs = step->n_seqs;
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const qn_step_seq *seq = &step->seqs[i];
        qn_seq_result *out = &result->seqs[i];
        *out = (qn_seq_result){.request = seq->request};
        while (out->n_accepted < seq->n_drafts && sim_rng_chance(&b->rng, 0.75)) {
            out->n_accepted++;
        }
        out->n_tokens = seq->is_drawing ? 1 + out->n_accepted : 0;
        for (uint32_t j = 0; j < out->n_tokens; j++) {
            out->tokens[j] = (int32_t)sim_rng_below(&b->rng, 150000);
        }
        b->n_complete[seq->slot] += seq->is_prompt ? seq->n_rows : out->n_tokens;
        out->n_complete = b->n_complete[seq->slot];
    }
    b->now_us += (uint64_t)(1e6 * (result->verify_s + result->draft_s));
}

static void replace_ended(bench *b)
{
    qn_sched_end end;
    while (qn_sched_poll_end(&end, b->sched)) {
        for (uint32_t i = 0; i < N_LIVE; i++) {
            if (b->ids[i] == end.request) {
                submit(b, i);
                break;
            }
        }
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Time that this thread computed: what others do on the machine shows in the caches alone. */
static uint64_t thread_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Microseconds of a chain of reads that miss the caches: what this machine is now. */
static double walk_us(const volatile uint32_t *cells, uint32_t *at)
{
    const uint64_t start_ns = thread_ns();
    uint32_t i = *at;
    for (uint32_t n = 0; n < N_WALK; n++) {
        i = cells[i];
    }
    *at = i;
    return (double)(thread_ns() - start_ns) / 1000;
}

static void init(bench *b, uint32_t n_step_rows)
{
    const qn_sched_limits limits = {
        .n_groups = 1,
        .n_pages = N_PAGES,
        .n_slots = N_SEQS,
        .n_queue = N_LIVE,
        .n_step_rows = n_step_rows,
        .n_context = 32768,
        .n_draft_max = 5,
        .hash_seed = 1,
        .has_prefix_tree = true,
    };
    const size_t size_bytes = qn_sched_bytes(&limits);
    b->memory = qn_huge_alloc(size_bytes); /* as the engine does */
    QN_ASSERT(b->memory != NULL);
    memset(b->memory, 0, size_bytes);
    b->sched = qn_sched_init(b->memory, &limits);
    b->rng = (sim_rng){1, 1, 0};
    for (uint32_t i = 0; i < N_LIVE; i++) {
        b->texts[i] = malloc((N_PROMPT + 2 * N_ANSWER) * sizeof *b->texts[i]);
        QN_ASSERT(b->texts[i] != NULL);
        submit(b, i);
    }
}

/* Whether what was measured is within the bounds, of which 0 is none; says what is not. */
static bool is_within(double p99_us, double p99_walks, const sim_bench_bounds *bounds)
{
    const bool is_fast = bounds->us <= 0 || p99_us <= bounds->us;
    const bool is_near = bounds->walks <= 0 || p99_walks <= bounds->walks;
    if (!is_fast) {
        printf("sim: FAILED: bench: p99 %.1f us, at most %.1f expected\n", p99_us, bounds->us);
    }
    if (!is_near) {
        printf("sim: FAILED: bench: p99 %.1f times the walk's, at most %.1f expected\n", p99_walks,
               bounds->walks);
    }
    return is_fast && is_near;
}

static int print(double *step_us, double *walks_us, const qn_sched_counts *counts,
                 const qn_sched_counts *warm, const sim_bench_bounds *bounds)
{
    qsort(step_us, N_STEPS, sizeof *step_us, compare);
    qsort(walks_us, N_STEPS, sizeof *walks_us, compare);
    const double p99 = step_us[N_STEPS * 99 / 100];
    const double walk_p99 = walks_us[N_STEPS * 99 / 100];
    printf("CPU time of plan and take_result, %d sequences, %d pages, %d steps: median %.1f us, "
           "p99 %.1f us, "
           "p99.9 %.1f us\n",
           N_SEQS, N_PAGES, N_STEPS, step_us[N_STEPS / 2], p99, step_us[N_STEPS * 999 / 1000]);
    printf("a walk of %d dependent reads: median %.1f us, p99 %.1f us; step by walk: median %.1f, "
           "p99 %.1f\n",
           N_WALK, walks_us[N_STEPS / 2], walk_p99, step_us[N_STEPS / 2] / walks_us[N_STEPS / 2],
           p99 / walk_p99);
    printf("%.0f rows and %.2f requests a step, %.0f %% of prompt ids cached, %llu pages evicted, "
           "%llu preemptions\n",
           (double)(counts->n_rows - warm->n_rows) / N_STEPS,
           (double)(counts->n_queried_tokens - warm->n_queried_tokens) / N_PROMPT / N_STEPS,
           100.0 * (double)(counts->n_hit_tokens - warm->n_hit_tokens) /
               (double)(counts->n_queried_tokens - warm->n_queried_tokens),
           (unsigned long long)(counts->n_evicted - warm->n_evicted),
           (unsigned long long)counts->n_preempted);
    return is_within(p99, p99 / walk_p99, bounds) ? 0 : 1;
}

int sim_bench(uint32_t n_step_rows, const sim_bench_bounds *bounds)
{
    bench *b = calloc(1, sizeof *b);
    double *step_us = calloc(N_STEPS, sizeof *step_us);
    double *walks_us = calloc(N_STEPS, sizeof *walks_us);
    uint32_t *cells = malloc(N_CELLS * sizeof *cells);
    QN_ASSERT(b != NULL && step_us != NULL && walks_us != NULL && cells != NULL);
    for (uint32_t i = 0; i < N_CELLS; i++) { /* one cycle through all: an odd factor, a step of 1 */
        cells[i] = (i * 1664525U + 1013904223U) % N_CELLS;
    }
    init(b, n_step_rows);
    qn_sched_counts warm = {0};
    uint32_t at = 0, n_taken[QN_STEP_SEQS_MAX];
    for (uint32_t i = 0; i < N_WARM_STEPS + N_STEPS; i++) {
        const double walk = walk_us(cells, &at);
        const uint64_t plan_ns = thread_ns();
        qn_sched_plan(&b->step, b->sched, b->now_us);
        const uint64_t planned_ns = thread_ns();
        execute(b);
        const uint64_t take_ns = thread_ns();
        qn_sched_take_result(n_taken, b->sched, &b->result, b->now_us);
        const uint64_t taken_ns = thread_ns();
        if (i >= N_WARM_STEPS) {
            walks_us[i - N_WARM_STEPS] = walk;
            step_us[i - N_WARM_STEPS] = (double)(planned_ns - plan_ns + taken_ns - take_ns) / 1000;
        } else if (i + 1 == N_WARM_STEPS) {
            warm = qn_sched_count(b->sched);
        }
        replace_ended(b);
    }
    const qn_sched_counts counts = qn_sched_count(b->sched);
    const int status = print(step_us, walks_us, &counts, &warm, bounds);
    for (uint32_t i = 0; i < N_LIVE; i++) {
        free(b->texts[i]);
    }
    free(b->memory);
    free(b);
    free(step_us);
    free(walks_us);
    free(cells);
    return status;
}
