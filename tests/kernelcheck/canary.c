/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong kernels that the checks must catch: a checker that cannot fail proves nothing. */
#include "kernelcheck.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void rmsnorm_wrong_eps(float *y, size_t y_stride, const float *x, size_t x_stride,
                              const float *weight, size_t n_rows, size_t n, float eps)
{
    qn_rmsnorm_ref(y, y_stride, x, x_stride, weight, n_rows, n, 0.1F * eps);
}

static void rmsnorm_reads_neighbour(float *y, size_t y_stride, const float *x, size_t x_stride,
                                    const float *weight, size_t n_rows, size_t n, float eps)
{
    qn_rmsnorm_ref(y, y_stride, x, x_stride, weight, n_rows, n, n_rows > 1 ? eps : 1.01F * eps);
}

static void silu_skips_last(float *y, const float *gate, const float *up, size_t n)
{
    qn_silu_mul_ref(y, gate, up, n > 0 ? n - 1 : 0);
}

static void silu_swallows_nan(float *y, const float *gate, const float *up, size_t n)
{
    qn_silu_mul_ref(y, gate, up, n);
    for (size_t i = 0; i < n; i++) {
        y[i] = isnan(y[i]) ? 0.0F : y[i];
    }
}

/* Reads a whole vector of 16 where fewer elements are left. */
static void axpy_overreads(float *y, const float *x, float scale, size_t n)
{
    volatile float sink = 0.0F;
    for (size_t i = n / 16 * 16; i < n / 16 * 16 + 16; i++) {
        sink += x[i];
    }
    qn_axpy_ref(y, x, scale, n);
}

static void axpy_writes_before(float *y, const float *x, float scale, size_t n)
{
    qn_axpy_ref(y, x, scale, n);
    y[-1] = 0.0F;
}

static void axpy_changes_input(float *y, const float *x, float scale, size_t n)
{
    qn_axpy_ref(y, x, scale, n);
    ((float *)(uintptr_t)x)[0] += 1.0F;
}

static uint32_t topk_ties_to_higher(int32_t *set, const float *scores, uint32_t n, uint32_t k)
{
    const uint32_t n_set = qn_topk_ref(set, scores, n, k);
    if (n_set > 0 && n_set < n && (uint32_t)set[n_set - 1] + 1 < n &&
        scores[set[n_set - 1]] == scores[set[n_set - 1] + 1]) {
        set[n_set - 1]++;
    }
    return n_set;
}

static void matmul_loses_low_bits(const qn_matmul_args *args)
{
    qn_matmul_ref(args);
    for (size_t t = 0; t < args->n_rows; t++) {
        for (uint32_t o = 0; o < args->out_end - args->out_first; o++) {
            float *y = &args->y[t * args->y_stride + o];
            *y *= 1.0F + 1e-3F;
        }
    }
}

static void attend_forgets_scale(const qn_attend_args *args)
{
    qn_attend_args wrong = *args;
    wrong.scale *= 1.001F;
    qn_attend_ref(&wrong);
}

static int32_t sample_ignores_top_p(const qn_sample_args *args)
{
    qn_sample_args wrong = *args;
    wrong.top_p = 1.0F;
    return qn_sample_ref(&wrong);
}

/*
 * In a child, since some canaries have to die at a guard page.  True when the checks noticed, with
 * must_die when they noticed by SIGSEGV.
 */
static bool is_caught(const qn_kernels *wrong, void (*check)(kc *run), const char *op,
                      uint64_t seed, bool must_die)
{
    const pid_t child = fork();
    if (child == 0) {
        kc run = {.k = wrong, .set = "canary", .op = op, .seed = seed, .is_quiet = true};
        (void)signal(SIGSEGV, SIG_DFL); /* no report */
        kc_run_check(&run, check);
        _exit(run.n_failed > 0 ? 1 : 0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return false;
    }
    return must_die ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV
                    : WIFSIGNALED(status) || WEXITSTATUS(status) == 1;
}

unsigned kc_canaries(uint64_t seed)
{
    qn_kernels good;
    qn_kernels_init(&good, 0);
    unsigned n_missed = 0;
    unsigned n_caught = 0;
#define CANARY(field, wrong_fn, must_die)                                                          \
    do {                                                                                           \
        qn_kernels wrong = good;                                                                   \
        wrong.field = wrong_fn;                                                                    \
        const bool caught = is_caught(&wrong, check_##field, #field, seed, must_die);              \
        n_caught += caught ? 1 : 0;                                                                \
        n_missed += caught ? 0 : 1;                                                                \
        if (!caught) {                                                                             \
            (void)printf("FAIL canary %s was not caught\n", #wrong_fn);                            \
        }                                                                                          \
    } while (0)
    (void)fflush(stdout);
    CANARY(rmsnorm, rmsnorm_wrong_eps, false);
    CANARY(rmsnorm, rmsnorm_reads_neighbour, false);
    CANARY(silu_mul, silu_skips_last, false);
    CANARY(silu_mul, silu_swallows_nan, false);
    CANARY(axpy, axpy_overreads, true);
    CANARY(axpy, axpy_writes_before, false);
    CANARY(axpy, axpy_changes_input, false);
    CANARY(topk, topk_ties_to_higher, false);
    CANARY(matmul, matmul_loses_low_bits, false);
    CANARY(attend, attend_forgets_scale, false);
    CANARY(sample, sample_ignores_top_p, false);
#undef CANARY
    (void)printf("canaries: %u wrong kernels caught, %u missed\n", n_caught, n_missed);
    return n_missed;
}
