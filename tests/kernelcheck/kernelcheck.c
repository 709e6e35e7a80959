/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelcheck.h"

#include "base/rng.h"

#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLACK = 0xa5 };

const kc_check kc_checks[] = {
    {"dequant_row", check_dequant_row, 0.0, "exact"},
    {"matmul", check_matmul, 1.0, "(n_in/16 + 8) * 2^-24 * sum |x w|"},
    {"matmul_t", check_matmul_t, 1.0, "(n_x + 2) * 2^-24 * sum |x w|"},
    {"rmsnorm", check_rmsnorm, 8.0, "ULP of the f64 result"},
    {"layernorm", check_layernorm, 8.0, "ULP of max(|y|, |bias|)"},
    {"rope", check_rope, 4.0, "2^-24 * (|a| + |b|)"},
    {"silu_mul", check_silu_mul, 8.0, "ULP, or 1e-36"},
    {"axpy", check_axpy, 2.0, "2^-24 * (|y| + |scale x|)"},
    {"router", check_router, 16.0, "2^-24 of a weight; the choice is exact"},
    {"index_scores", check_index_scores, 1.0, "(dim/16 + heads + 8) * 2^-24 * sum |w q k|"},
    {"topk", check_topk, 0.0, "exact"},
    {"attend", check_attend, 1e-5, "of max |c|"},
    {"kv_write", check_kv_write, 0.0, "nearest even"},
    {"kv_read", check_kv_read, 0.0, "exact"},
    {"sample", check_sample, 1e-6, "of the draw"},
    {NULL, NULL, 0.0, NULL},
};

double kc_bound(const char *op)
{
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        if (strcmp(check->op, op) == 0) {
            return check->bound;
        }
    }
    abort();
}

/* ------------------------------------------------------------------------------------- random --
 */

uint64_t kc_bits(kc *run)
{
    return qn_rng_u64(run->seed, 0, run->counter++);
}

float kc_uniform(kc *run)
{
    return (float)(kc_bits(run) >> 40) * 0x1p-23F - 1.0F;
}

uint32_t kc_below(kc *run, uint32_t n)
{
    return (uint32_t)(kc_bits(run) % n);
}

/* ------------------------------------------------------------------------------------ buffers --
 */

static uint64_t hash_bytes(const uint8_t *bytes, size_t n)
{
    uint64_t hash = 14695981039346656037ULL;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ bytes[i]) * 1099511628211ULL;
    }
    return hash;
}

static uint8_t *guarded(kc *run, size_t n_bytes, bool is_input)
{
    const size_t unit = (size_t)sysconf(_SC_PAGESIZE);
    const size_t inner = (n_bytes + unit - 1) / unit * unit + (n_bytes == 0 ? unit : 0);
    uint8_t *pages =
        mmap(NULL, inner + 2 * unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || run->n_buffers == KC_BUFFERS_MAX ||
        mprotect(pages, unit, PROT_NONE) != 0 ||
        mprotect(pages + unit + inner, unit, PROT_NONE) != 0) {
        (void)fprintf(stderr, "kernelcheck: no memory for a buffer\n");
        abort();
    }
    memset(pages + unit, SLACK, inner);
    uint8_t *data = pages + unit + (run->at_front ? 0 : inner - n_bytes);
    memset(data, 0xff, n_bytes);
    run->buffers[run->n_buffers++] =
        (kc_buffer){pages, data, inner + 2 * unit, n_bytes, 0, is_input};
    return data;
}

float *kc_out(kc *run, size_t n)
{
    return (float *)(void *)guarded(run, n * sizeof(float), false);
}

uint8_t *kc_out_bytes(kc *run, size_t n_bytes)
{
    return guarded(run, n_bytes, false);
}

uint8_t *kc_in_bytes(kc *run, size_t n_bytes)
{
    uint8_t *data = guarded(run, n_bytes, true);
    for (size_t i = 0; i < n_bytes; i++) {
        data[i] = (uint8_t)kc_bits(run);
    }
    return data;
}

float *kc_in(kc *run, size_t n, kc_fill_kind kind)
{
    float *x = (float *)(void *)guarded(run, n * sizeof(float), true);
    const float equal = kc_uniform(run);
    for (size_t i = 0; i < n; i++) {
        const float u = kc_uniform(run);
        switch (kind) {
        case KC_HUGE: x[i] = u * 1e18F; break;
        case KC_TINY: x[i] = u * 1e-40F; break;
        case KC_EQUAL: x[i] = equal; break;
        case KC_ZERO: x[i] = u < 0.0F ? -0.0F : 0.0F; break;
        default: x[i] = u; break;
        }
    }
    if (kind == KC_OUTLIER && n > 0) {
        x[kc_below(run, (uint32_t)n)] = 1000.0F;
    }
    return x;
}

void kc_seal(kc *run)
{
    for (size_t i = 0; i < run->n_buffers; i++) {
        run->buffers[i].hash = hash_bytes(run->buffers[i].data, run->buffers[i].data_bytes);
    }
}

/* -------------------------------------------------------------------------------------- cases --
 */

void kc_begin(kc *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(run->shape, sizeof run->shape, format, args);
    va_end(args);
    run->case_failed = false;
}

void kc_fail(kc *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!run->is_quiet && !run->case_failed) {
        (void)printf("FAIL %s [%s] %s seed %llu%s: ", run->op, run->set, run->shape,
                     (unsigned long long)run->seed, run->at_front ? " front" : "");
        (void)vprintf(format, args);
        (void)printf("\n");
    }
    va_end(args);
    run->case_failed = true;
}

static bool is_slack(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != SLACK) {
            return false;
        }
    }
    return true;
}

void kc_end(kc *run)
{
    const size_t unit = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < run->n_buffers; i++) {
        const kc_buffer *b = &run->buffers[i];
        const uint8_t *first = b->pages + unit;
        const size_t n_before = (size_t)(b->data - first);
        const size_t n_after = b->page_bytes - 2 * unit - n_before - b->data_bytes;
        if (!is_slack(first, n_before) || !is_slack(b->data + b->data_bytes, n_after)) {
            kc_fail(run, "buffer %zu: bytes written beside it", i);
        }
        if (b->is_input && hash_bytes(b->data, b->data_bytes) != b->hash) {
            kc_fail(run, "buffer %zu: an input was changed", i);
        }
        (void)munmap(b->pages, b->page_bytes);
    }
    run->n_buffers = 0;
    run->n_failed += run->case_failed ? 1 : 0;
    run->n_passed += run->case_failed ? 0 : 1;
}

double kc_ulp(double x)
{
    const float f = fabsf((float)x);
    return isfinite(f) ? (double)nextafterf(f, INFINITY) - (double)f : 0.0;
}

void kc_close(kc *run, const char *what, const float *got, const double *want, const double *scale,
              size_t n, double bound)
{
    for (size_t i = 0; i < n; i++) {
        const double g = (double)got[i];
        const double w = want[i];
        if (isnan(w)                      ? isnan(g)
            : !isfinite((double)(float)w) ? g == (double)(float)w
                                          : fabs(g - w) <= bound * scale[i]) {
            continue;
        }
        kc_fail(run, "%s[%zu] is %.9g, %.9g expected, %.3g of a bound of %.3g", what, i, g, w,
                fabs(g - w) / scale[i], bound);
        return;
    }
}

void kc_same(kc *run, const char *what, const void *got, const void *want, size_t n_bytes)
{
    if (n_bytes > 0 && memcmp(got, want, n_bytes) != 0) {
        kc_fail(run, "%s: other bits", what);
    }
}

/* --------------------------------------------------------------------------------------- main --
 */

static void run_all(kc *run, const char *only)
{
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        if (only != NULL && strcmp(only, check->op) != 0) {
            continue;
        }
        run->op = check->op;
        for (int front = 0; front < 2; front++) {
            run->at_front = front == 1;
            check->fn(run);
        }
    }
}

static int usage(FILE *to, int status)
{
    (void)fprintf(to, "usage: kernelcheck [--seed N] [--only OP] [--list] [--bench]\n");
    return status;
}

static int list(void)
{
    for (const kc_check *check = kc_checks; check->op != NULL; check++) {
        (void)printf("%-14s %g %s\n", check->op, check->bound, check->bound_text);
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    const char *only = NULL;
    bool with_bench = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0) {
            with_bench = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            return list();
        } else if (strcmp(argv[i], "--help") == 0) {
            return usage(stdout, 0);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else {
            return usage(stderr, 2);
        }
    }
    qn_kernels kernels;
    qn_kernels_init(&kernels, 0);
    kc run = {.k = &kernels, .set = "ref", .seed = seed};
    run_all(&run, only);
    const unsigned n_missed = only == NULL ? kc_canaries(seed) : 0;
    if (with_bench) {
        kc_bench(&kernels, "ref");
    }
    (void)printf("%u passed, %u failed\n", run.n_passed, run.n_failed + n_missed);
    return run.n_passed > 0 && run.n_failed + n_missed == 0 ? 0 : 1;
}
