/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the checks, then plants wrong kernels that they must catch, then times what was checked. */
#include "gpucheck.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const gc_group *const gc_groups[] = {
    &gc_adjust, &gc_choice, &gc_rows, &gc_attention, &gc_sample,
    &gc_step,   &gc_dummy,  &gc_pack, &gc_matmul,    NULL,
};

/* What the command line asks for. */
typedef struct request {
    const char *device, *only, *json;
    bool is_sanitized, is_unchecked, with_bench;
} request;

/* Twice with the same inputs: the second time the results must be the same, bit for bit. */
static void run_check(gc *run, const gc_check *check)
{
    const uint64_t counter = run->counter;
    run->op = check->op;
    for (run->i_pass = 0; run->i_pass < 2; run->i_pass++) {
        run->counter = counter;
        run->i_case = 0;
        gc_seed_order(run->seed + run->i_pass);
        check->check(run);
    }
}

/* Does the check fail with what is planted in the run? */
static bool is_caught(gc *run, const gc_check *check, const gc_wrong *wrong, gc_fault fault)
{
    const unsigned n_passed = run->n_passed;
    const unsigned n_failed = run->n_failed;
    run->counter = 0;
    run->wrong = wrong;
    run->fault = fault;
    if (setjmp(run->caught) == 0) {
        run_check(run, check);
    }
    run->wrong = NULL;
    run->fault = GC_FAULT_NONE;
    const bool caught = run->n_failed > n_failed;
    run->n_passed = n_passed;
    run->n_failed = n_failed;
    return caught;
}

/* Planted faults of the harness, and the wrong kernels of one check. */
static void plant(gc *run, const gc_group *group, const gc_check *check, unsigned counts[2])
{
    static const char *const names[] = {"", "a changed result", "a byte beside a buffer",
                                        "a changed input", "an unsteady result"};
    for (int fault = 1; fault < GC_N_FAULTS; fault++) {
        const bool caught = is_caught(run, check, NULL, (gc_fault)fault);
        counts[caught]++;
        if (!caught) {
            (void)printf("FAIL %s: %s was not noticed\n", check->op, names[fault]);
        }
    }
    for (const gc_wrong *wrong = group->wrongs; wrong->name != NULL; wrong++) {
        if (strcmp(wrong->op, check->op) == 0) {
            const bool caught = is_caught(run, check, wrong, GC_FAULT_NONE);
            counts[caught]++;
            if (!caught) {
                (void)printf("FAIL %s was not caught\n", wrong->name);
            }
        }
    }
}

/* Checks all that was asked for; returns how many planted ones were not caught. */
static unsigned run_all(gc *run, const char *only, bool with_planted)
{
    unsigned counts[2] = {0};
    for (size_t i = 0; gc_groups[i] != NULL; i++) {
        for (const gc_check *check = gc_groups[i]->checks; check->op != NULL; check++) {
            if (only != NULL && strcmp(only, check->op) != 0) {
                continue;
            }
            run->counter = 0;
            const unsigned n_failed = run->n_failed;
            run_check(run, check);
            if (with_planted && run->n_failed == n_failed) { /* else nothing is proved */
                plant(run, gc_groups[i], check, counts);
            }
        }
    }
    (void)printf("planted: %u wrong ones caught, %u missed\n", counts[true], counts[false]);
    return counts[false];
}

static int usage(FILE *to, int status)
{
    (void)fprintf(to,
                  "usage: gpucheck [--device NAME] [--seed N] [--only OP] [--verbose] [--list]\n"
                  "                [--sanitized] [--bench [--unchecked] [--json FILE]]\n"
                  "Holds every operation of a GPU against references on the CPU.\n"
                  "  --device NAME  emulated (if not given), cuda[:N] or hip[:N]\n"
                  "  --seed N       seed of the inputs, 1 if not given\n"
                  "  --only OP      one operation\n"
                  "  --verbose      name every case before it runs\n"
                  "  --list         print operations and what is checked\n"
                  "  --sanitized    for compute-sanitizer: small shapes, nothing planted, and\n"
                  "                 buffers that end where their allocations do\n"
                  "  --bench        then time them: a line a shape\n"
                  "  --unchecked    time only, for profilers\n"
                  "  --json FILE    write the lines to a file as well\n");
    return status;
}

static int list(void)
{
    for (size_t i = 0; gc_groups[i] != NULL; i++) {
        for (const gc_check *check = gc_groups[i]->checks; check->op != NULL; check++) {
            (void)printf("%-14s %s\n", check->op, check->bound);
        }
    }
    return 0;
}

static bool is_op(const char *name)
{
    for (size_t i = 0; gc_groups[i] != NULL; i++) {
        for (const gc_check *check = gc_groups[i]->checks; check->op != NULL; check++) {
            if (strcmp(check->op, name) == 0) {
                return true;
            }
        }
    }
    return false;
}

static int refuse(const char *option, const char *value)
{
    const int status = usage(stderr, 2);
    (void)fprintf(stderr, "gpucheck: error: %s%s%s, an option as above expected%s\n", option,
                  value != NULL ? ": " : "", value != NULL ? value : "",
                  strcmp(option, "--only") == 0 ? ", an operation of --list" : "");
    return status;
}

/* Returns 0 to go on, or the exit status plus 1. */
static int parse(request *asked, gc *run, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *end = NULL;
        if (strcmp(argv[i], "--bench") == 0) {
            asked->with_bench = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            run->is_verbose = true;
        } else if (strcmp(argv[i], "--sanitized") == 0) {
            asked->is_sanitized = true;
        } else if (strcmp(argv[i], "--unchecked") == 0) {
            asked->is_unchecked = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            return 1 + list();
        } else if (strcmp(argv[i], "--help") == 0) {
            return 1 + usage(stdout, 0);
        } else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
            asked->device = argv[++i];
        } else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc) {
            asked->json = argv[++i];
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc && is_op(argv[i + 1])) {
            asked->only = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            run->seed = strtoull(argv[++i], &end, 10);
            if (end == argv[i] || *end != '\0') {
                return 1 + refuse("--seed", argv[i]);
            }
        } else {
            return 1 + refuse(argv[i], i + 1 < argc ? argv[i + 1] : NULL);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static gc run = {.seed = 1, .op = "", .behind_bytes = GC_MARGIN};
    request asked = {.device = "emulated"};
    qn_error err = {0};
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* what failed is seen even if the rest hangs */
    const int parsed = parse(&asked, &run, argc, argv);
    if (parsed != 0) {
        return parsed - 1;
    }
    if (gc_open(&run, asked.device, &err) != QN_OK) {
        (void)fprintf(stderr, "gpucheck: %s: %s\n", asked.device, err.text);
        return 1;
    }
    if (asked.is_sanitized) {
        run.is_emulated = true;
        run.behind_bytes = 0;
    }
    const unsigned n_missed =
        asked.is_unchecked ? 0 : run_all(&run, asked.only, !asked.is_sanitized);
    if (asked.with_bench) {
        gc_bench_all(&run, asked.only, asked.json);
    }
    char device[sizeof qn_gpu_get_info(run.gpu)->name];
    memcpy(device, qn_gpu_get_info(run.gpu)->name, sizeof device);
    const unsigned n_failed = run.n_failed + n_missed + (gc_close_device(&run) ? 0 : 1);
    (void)printf("%u passed, %u failed on %s\n", run.n_passed, n_failed, device);
    return n_failed == 0 ? 0 : 1;
}
