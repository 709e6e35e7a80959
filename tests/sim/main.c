/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator's command line: one seed with its story, or many in processes of their own. */
#include "sim/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    N_STEPS = 1000,
    N_JOBS_MAX = 256,
    N_FAILURES_SHOWN = 5,
    DETERMINISM_EVERY = 8, /* so many seeds, one is run twice */
};

static const char usage[] =
    "usage: sim --seed N [--steps N] [--story | --quiet]   one seed, with its story\n"
    "       sim --seeds A..B [--steps N] [--jobs N] [--quiet]\n"
    "       sim --bench [--rows N] [--bound US] [--walks N]   time of a step and what its 99th\n"
    "           percentile is at most, in us (50) and by that of a walk (any); 0: anything\n"
    "\n"
    "A failure prints the checker that found it, what was seen and what was expected, and the "
    "seed;\n"
    "exit status 1.\n";

typedef struct options {
    uint64_t first_seed, last_seed;
    uint64_t n_steps;
    uint64_t n_jobs;
    uint64_t n_step_rows;
    sim_bench_bounds bounds;
    bool is_quiet, tells_story, is_bench, has_seed, has_seeds;
} options;

_Noreturn static void refuse(const char *what, const char *seen, const char *expected)
{
    (void)fprintf(stderr, "sim: error: %s: %s, %s expected\n%s", what,
                  seen == NULL ? "nothing" : seen, expected, usage);
    exit(2);
}

static uint64_t number(const char *flag, const char *text, const char **end)
{
    char *after = NULL;
    errno = 0;
    const unsigned long long value = text == NULL ? 0 : strtoull(text, &after, 10);
    if (text == NULL || *text < '0' || *text > '9' || errno != 0 || (end == NULL && *after != 0)) {
        refuse(flag, text, "a number");
    }
    if (end != NULL) {
        *end = after;
    }
    return value;
}

static void read_seeds(options *o, const char *text)
{
    const char *rest = NULL;
    o->first_seed = number("--seeds", text, &rest);
    if (strncmp(rest, "..", 2) != 0) {
        refuse("--seeds", text, "A..B");
    }
    o->last_seed = number("--seeds", rest + 2, NULL);
    o->has_seeds = true;
    if (o->last_seed < o->first_seed) {
        refuse("--seeds", text, "A..B with A at most B");
    }
}

static void read_options(options *o, char **arguments)
{
    for (; *arguments != NULL; arguments++) {
        const char *flag = *arguments;
        if (strcmp(flag, "--quiet") == 0) {
            o->is_quiet = true;
        } else if (strcmp(flag, "--story") == 0) {
            o->tells_story = true;
        } else if (strcmp(flag, "--bench") == 0) {
            o->is_bench = true;
        } else if (strcmp(flag, "--help") == 0) {
            (void)fputs(usage, stdout);
            exit(0);
        } else if (strcmp(flag, "--seed") == 0) {
            o->first_seed = o->last_seed = number(flag, *++arguments, NULL);
            o->has_seed = true;
        } else if (strcmp(flag, "--seeds") == 0) {
            read_seeds(o, *++arguments);
        } else if (strcmp(flag, "--steps") == 0) {
            o->n_steps = number(flag, *++arguments, NULL);
        } else if (strcmp(flag, "--jobs") == 0) {
            o->n_jobs = number(flag, *++arguments, NULL);
        } else if (strcmp(flag, "--rows") == 0) {
            o->n_step_rows = number(flag, *++arguments, NULL);
        } else if (strcmp(flag, "--bound") == 0) {
            o->bounds.us = (double)number(flag, *++arguments, NULL);
        } else if (strcmp(flag, "--walks") == 0) {
            o->bounds.walks = (double)number(flag, *++arguments, NULL);
        } else {
            refuse("option", flag, "one of those below");
        }
        if (*arguments == NULL) {
            return;
        }
    }
}

static void add(sim_totals *all, const sim_totals *totals)
{
    uint64_t *to = (uint64_t *)(void *)all;
    const uint64_t *from = (const uint64_t *)(const void *)totals;
    _Static_assert(sizeof *all % sizeof *to == 0, "all fields are counts");
    for (size_t i = 0; i < sizeof *all / sizeof *to; i++) {
        to[i] += from[i];
    }
}

static void run_seed(uint64_t seed, const options *o, bool is_repeated, sim_totals *totals)
{
    const uint64_t hash = sim_run(seed, o->n_steps, o->tells_story && !o->is_quiet, totals);
    sim_totals again;
    if (is_repeated && sim_run(seed, o->n_steps, false, &again) != hash) {
        printf("sim: FAILED: determinism: steps of the second run differ, the same expected\n"
               "  seed %llu; sim --seed %llu --steps %llu\n",
               (unsigned long long)seed, (unsigned long long)seed, (unsigned long long)o->n_steps);
        exit(1);
    }
}

/* A process for each seed: an assertion of the scheduler ends that seed alone. */
typedef struct job {
    pid_t pid;
    int fd;
    uint64_t seed;
} job;

static void start(job *j, uint64_t seed, const options *o)
{
    int fds[2];
    (void)fflush(stdout);
    if (pipe(fds) != 0 || (j->pid = fork()) < 0) {
        perror("sim: error: pipe or fork");
        exit(1);
    }
    if (j->pid == 0) {
        sim_totals totals;
        close(fds[0]);
        run_seed(seed, o, seed % DETERMINISM_EVERY == 0, &totals);
        const bool is_told = write(fds[1], &totals, sizeof totals) == (ssize_t)sizeof totals;
        _exit(is_told ? 0 : 1);
    }
    close(fds[1]);
    j->fd = fds[0];
    j->seed = seed;
}

/* Wait for any of them; whether its seed passed. */
static bool finish(job *jobs, uint64_t *n_running, sim_totals *all, const options *o)
{
    int status = 0;
    const pid_t pid = wait(&status);
    uint64_t i = 0;
    while (i < *n_running && jobs[i].pid != pid) {
        i++;
    }
    QN_ASSERT(i < *n_running);
    const job done = jobs[i];
    jobs[i] = jobs[--*n_running];
    sim_totals totals;
    const bool is_good = WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
                         read(done.fd, &totals, sizeof totals) == (ssize_t)sizeof totals;
    close(done.fd);
    if (is_good) {
        add(all, &totals);
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) {
        printf("sim: FAILED: crash: seed %llu ended with status %#x, 0 expected\n"
               "  see: sim --seed %llu --steps %llu --story\n",
               (unsigned long long)done.seed, (unsigned)status, (unsigned long long)done.seed,
               (unsigned long long)o->n_steps);
    }
    return is_good;
}

static int run_seeds(const options *o)
{
    job jobs[N_JOBS_MAX];
    uint64_t n_running = 0, n_failed = 0, seed = o->first_seed;
    bool is_last = false;
    sim_totals all = {0};
    while (n_running > 0 || !is_last) {
        if (!is_last && n_running < o->n_jobs && n_failed < N_FAILURES_SHOWN) {
            start(&jobs[n_running++], seed, o);
            is_last = seed++ == o->last_seed;
            continue;
        }
        is_last = is_last || n_failed >= N_FAILURES_SHOWN;
        if (n_running > 0) {
            n_failed += !finish(jobs, &n_running, &all, o);
        }
    }
    if (!o->is_quiet || n_failed > 0) {
        printf("seeds %llu..%llu: %llu steps, %llu rows, %llu requests, %llu tokens, %llu "
               "preemptions, %llu pages published, %llu exchanged, %llu evicted; %llu failed\n",
               (unsigned long long)o->first_seed, (unsigned long long)(seed - 1),
               (unsigned long long)all.n_steps, (unsigned long long)all.n_rows,
               (unsigned long long)all.n_submitted, (unsigned long long)all.n_tokens,
               (unsigned long long)all.n_preempted, (unsigned long long)all.n_published,
               (unsigned long long)all.n_exchanged, (unsigned long long)all.n_evicted,
               (unsigned long long)n_failed);
    }
    return n_failed > 0;
}

int main(int n_arguments, char **arguments)
{
    (void)n_arguments;
    options o = {.n_steps = N_STEPS, .n_jobs = 1, .n_step_rows = 2048, .bounds = {.us = 50}};
    read_options(&o, arguments + 1);
    if (o.is_bench) {
        if (o.n_step_rows < 512 || o.n_step_rows > QN_STEP_ROWS_MAX) {
            refuse("--rows", "out of range", "512 to 16384");
        }
        return sim_bench((uint32_t)o.n_step_rows, &o.bounds);
    }
    if (o.has_seed == o.has_seeds) {
        refuse("options", "no seed or too many", "--seed N or --seeds A..B");
    }
    if (o.n_jobs < 1 || o.n_jobs > N_JOBS_MAX || o.n_steps < 1) {
        refuse("--jobs or --steps", "out of range", "1 to 256 jobs and at least 1 step");
    }
    if (o.has_seeds) {
        o.tells_story = false;
        return run_seeds(&o);
    }
    sim_totals totals;
    o.tells_story = !o.is_quiet;
    run_seed(o.first_seed, &o, true, &totals);
    return 0;
}
