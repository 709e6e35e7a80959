/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the wrong kernels that the checks must catch: a checker that cannot fail proves nothing. */
#include "canary.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const kc_check *check_of(const char *op)
{
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        if (strcmp(check->op, op) == 0) {
            return check;
        }
    }
    abort(); /* the table names an operation that is not there */
}

/*
 * In a child, since some canaries have to die at a guard page.  Only a report of the checks or a
 * touch of a guard page counts: a checker that gives up noticed nothing.
 */
static bool is_caught(const qn_kernels *wrong, const kc_canary *canary, uint64_t seed)
{
    const pid_t child = fork();
    if (child == 0) {
        static kc run;
        run = (kc){.k = wrong, .set = "canary", .op = canary->op, .seed = seed, .is_quiet = true};
        (void)signal(SIGSEGV, SIG_DFL); /* no report, and no core file */
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        kc_run_check(&run, check_of(canary->op)->fn);
        _exit(0); /* the first failure would have ended it */
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return false;
    }
    const bool has_died = WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
    return has_died || (!canary->must_die && WIFEXITED(status) && WEXITSTATUS(status) == KC_CAUGHT);
}

static bool has_canary(const kc_canary *const *tables, size_t n_tables, const char *op)
{
    for (size_t i = 0; i < n_tables; i++) {
        for (const kc_canary *canary = tables[i]; canary->name != NULL; canary++) {
            if (strcmp(canary->op, op) == 0) {
                return true;
            }
        }
    }
    return false;
}

unsigned kc_canaries(uint64_t seed)
{
    static const kc_canary *const tables[] = {kc_canaries_weights,   kc_canaries_matmul,
                                              kc_canaries_rows,      kc_canaries_choice,
                                              kc_canaries_attention, kc_canaries_quantize};
    enum { N_TABLES = sizeof tables / sizeof *tables };
    unsigned n_missed = 0;
    unsigned n_caught = 0;
    (void)fflush(stdout);
    for (size_t i = 0; i < N_TABLES; i++) {
        for (const kc_canary *canary = tables[i]; canary->name != NULL; canary++) {
            qn_kernels wrong;
            qn_kernels_init(&wrong, 0);
            canary->put(&wrong);
            if (is_caught(&wrong, canary, seed)) {
                n_caught++;
            } else {
                (void)printf("FAIL canary %s was not caught\n", canary->name);
                n_missed++;
            }
        }
    }
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        if (!has_canary(tables, N_TABLES, check->op)) {
            (void)printf("FAIL %s has no wrong kernel\n", check->op);
            n_missed++;
        }
    }
    (void)printf("canaries: %u wrong kernels caught, %u missed\n", n_caught, n_missed);
    return n_missed;
}
