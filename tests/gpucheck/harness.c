/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers with canary words, random inputs, comparisons. */
#include "base/rng.h"
#include "gpucheck.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A NaN as bf16 and as f32, no index of anything, and no byte that operations write. */
static const uint16_t canary_word = 0x7fe1;

/* Nothing can be checked any more. */
static _Noreturn void die(const gc *run, const char *what, const qn_error *err)
{
    (void)printf("FAIL %s %s: %s: %s\n", run->op, run->shape, what, err->text);
    (void)fflush(stdout);
    exit(2);
}

/* ---------------------------------------------------------------------------------- random -- */

uint64_t gc_bits(gc *run)
{
    return qn_rng_u64(run->seed, 0, run->counter++);
}

float gc_uniform(gc *run)
{
    return (float)(gc_bits(run) >> 40) * 0x1p-23F - 1.0F;
}

uint32_t gc_below(gc *run, uint32_t n)
{
    return (uint32_t)(gc_bits(run) % n);
}

/* Twelve uniform numbers: near enough to a normal distribution, and quick. */
static float normal(gc *run)
{
    float sum = 0.0F;
    for (int i = 0; i < 3; i++) {
        const uint64_t bits = gc_bits(run);
        for (int j = 0; j < 4; j++) {
            sum += (float)(bits >> (16 * j) & 0xffff) * 0x1p-16F - 0.5F;
        }
    }
    return sum;
}

void *gc_host(gc *run, size_t n_bytes)
{
    void *memory = calloc(1, n_bytes > 0 ? n_bytes : 1);
    if (memory == NULL || run->n_host == GC_HOST_MAX) {
        abort();
    }
    run->host[run->n_host++] = memory;
    return memory;
}

float *gc_floats(gc *run, size_t n, gc_fill fill)
{
    float *x = gc_host(run, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        switch (fill) {
        case GC_UNIFORM: x[i] = gc_uniform(run); break;
        case GC_HUGE: x[i] = gc_uniform(run) * 1e18F; break;
        case GC_TINY: x[i] = gc_uniform(run) * 1e-40F; break;
        case GC_ZERO: x[i] = gc_uniform(run) < 0.0F ? -0.0F : 0.0F; break;
        default: x[i] = normal(run) * (gc_below(run, 64) == 0 ? 10.0F : 1.0F); break;
        }
    }
    if (n > 0 && (fill == GC_NAN || fill == GC_INF)) {
        const float inf = gc_uniform(run) < 0.0F ? -INFINITY : INFINITY;
        x[gc_below(run, (uint32_t)n)] = fill == GC_NAN ? NAN : inf;
    }
    return x;
}

uint16_t *gc_bf16s(gc *run, size_t n, gc_fill fill)
{
    const float *x = gc_floats(run, n, fill);
    uint16_t *y = gc_host(run, n * sizeof *y);
    for (size_t i = 0; i < n; i++) {
        y[i] = qn_f32_to_bf16(x[i]);
    }
    return y;
}

float *gc_from_bf16(gc *run, const void *bf16, size_t n)
{
    float *y = gc_host(run, n * sizeof *y);
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, (const uint8_t *)bf16 + 2 * i, sizeof bits);
        y[i] = qn_bf16_to_f32(bits);
    }
    return y;
}

int32_t *gc_page_tables(gc *run, uint32_t n_seqs, uint32_t n_table_pages)
{
    const uint32_t n = n_seqs * n_table_pages;
    int32_t *pages = gc_host(run, n * sizeof *pages);
    for (uint32_t i = 0; i < n; i++) { /* Fisher and Yates */
        const uint32_t j = gc_below(run, i + 1);
        pages[i] = pages[j];
        pages[j] = (int32_t)i;
    }
    return pages;
}

/* --------------------------------------------------------------------------------- buffers -- */

static size_t all_bytes(const gc *run, size_t n_bytes)
{
    return GC_MARGIN + n_bytes + run->behind_bytes;
}

static void *make_buffer(gc *run, const void *host, size_t n_bytes, gc_role role)
{
    const size_t n_all = all_bytes(run, n_bytes);
    void *device = NULL;
    qn_error err = {0};
    if (run->n_buffers == GC_BUFFERS_MAX) {
        abort();
    }
    if (qn_gpu_alloc(&device, run->gpu, n_all, "a buffer of the check", &err) != QN_OK) {
        die(run, "no memory", &err);
    }
    uint8_t *before = malloc(n_all);
    if (before == NULL) {
        abort();
    }
    for (size_t i = 0; i < n_all; i++) {
        before[i] = (uint8_t)(canary_word >> 8 * (i % 2));
    }
    if (host != NULL && n_bytes > 0) {
        memcpy(before + GC_MARGIN, host, n_bytes);
    } else {
        memset(before + GC_MARGIN, 0xff, n_bytes);
    }
    qn_gpu_upload(run->stream, device, before, n_all);
    run->buffers[run->n_buffers++] = (gc_buffer){device, before, NULL, n_bytes, role};
    return (uint8_t *)device + GC_MARGIN;
}

void *gc_in(gc *run, const void *host, size_t n_bytes)
{
    return make_buffer(run, host, n_bytes, GC_IN);
}

void *gc_inout(gc *run, const void *host, size_t n_bytes)
{
    return make_buffer(run, host, n_bytes, GC_INOUT);
}

void *gc_out(gc *run, size_t n_bytes)
{
    return make_buffer(run, NULL, n_bytes, GC_OUT);
}

void *gc_scratch(gc *run, const void *host, size_t n_bytes)
{
    return make_buffer(run, host, n_bytes, GC_SCRATCH);
}

void *gc_args(gc *run, const void *args, size_t n_bytes)
{
    void *copy = gc_host(run, n_bytes);
    memcpy(copy, args, n_bytes);
    if (run->wrong != NULL) {
        run->wrong->spoil(copy);
    }
    return copy;
}

static bool is_result(const gc_buffer *b)
{
    return b->role == GC_OUT || b->role == GC_INOUT;
}

/* One buffer of a role that holds bytes; NULL if there is none. */
static gc_buffer *some_buffer(gc *run, bool is_input)
{
    const size_t first = gc_below(run, (uint32_t)run->n_buffers);
    for (size_t i = 0; i < run->n_buffers; i++) {
        gc_buffer *b = &run->buffers[(first + i) % run->n_buffers];
        if (b->n_bytes >= 4 && (is_input ? b->role == GC_IN : is_result(b))) {
            return b;
        }
    }
    return NULL;
}

/* Faults that the device itself could make: before the results come back. */
static void plant_on_device(gc *run)
{
    const bool is_input = run->fault == GC_FAULT_INPUT;
    if (run->n_buffers == 0 || (run->fault != GC_FAULT_BESIDE && !is_input)) {
        return;
    }
    const gc_buffer *b = some_buffer(run, is_input);
    if (b != NULL) {
        const size_t at = is_input ? GC_MARGIN : GC_MARGIN + b->n_bytes;
        const uint8_t byte = (uint8_t)(b->before[at] ^ 1U);
        qn_gpu_upload(run->stream, b->device + at, &byte, 1);
    }
}

/* One word that was written is another; false where none was. */
static bool spoil_word(gc *run, const gc_buffer *b, bool is_unsteady)
{
    const uint32_t n_words = (uint32_t)(b->n_bytes / 4);
    const uint32_t first = n_words == 0 ? 0 : gc_below(run, n_words);
    for (uint32_t i = 0; i < n_words; i++) {
        const size_t at = GC_MARGIN + 4 * (size_t)((first + i) % n_words);
        if (memcmp(b->after + at, b->before + at, 4) != 0) {
            for (int k = 0; k < 4; k++) { /* an exponent of any format, and a bit of any number */
                b->after[at + (size_t)k] ^= is_unsteady ? k == 0 : 0x41;
            }
            return true;
        }
    }
    return false;
}

/* Faults of results, in one of the buffers that were written. */
static void plant_in_result(gc *run)
{
    const bool is_unsteady = run->fault == GC_FAULT_UNSTEADY && run->i_pass == 1;
    if (run->n_buffers == 0 || (run->fault != GC_FAULT_RESULT && !is_unsteady)) {
        return;
    }
    const size_t first = gc_below(run, (uint32_t)run->n_buffers);
    for (size_t i = 0; i < run->n_buffers; i++) {
        const gc_buffer *b = &run->buffers[(first + i) % run->n_buffers];
        if (is_result(b) && spoil_word(run, b, is_unsteady)) {
            return;
        }
    }
}

static void inspect_buffer(gc *run, size_t i)
{
    const gc_buffer *b = &run->buffers[i];
    const size_t end = GC_MARGIN + b->n_bytes;
    if (memcmp(b->before, b->after, GC_MARGIN) != 0 ||
        memcmp(b->before + end, b->after + end, run->behind_bytes) != 0) {
        gc_fail(run, "buffer %zu: bytes written beside it", i);
    }
    if (b->role == GC_IN && memcmp(b->before + GC_MARGIN, b->after + GC_MARGIN, b->n_bytes) != 0) {
        gc_fail(run, "buffer %zu: an input was changed", i);
    }
}

void gc_wait(gc *run)
{
    qn_error err = {0};
    const uint64_t counter = run->counter; /* faults do not change what comes after them */
    plant_on_device(run);
    for (size_t i = 0; i < run->n_buffers; i++) {
        gc_buffer *b = &run->buffers[i];
        const size_t n_all = all_bytes(run, b->n_bytes);
        b->after = b->after != NULL ? b->after : malloc(n_all);
        if (b->after == NULL) {
            abort();
        }
        qn_gpu_download(run->stream, b->after, b->device, n_all);
    }
    if (qn_gpu_wait(run->stream, &err) != QN_OK) {
        die(run, "the device", &err);
    }
    plant_in_result(run);
    run->counter = counter;
    for (size_t i = 0; i < run->n_buffers; i++) {
        inspect_buffer(run, i);
    }
}

const void *gc_got(gc *run, const void *device)
{
    for (size_t i = 0; i < run->n_buffers; i++) {
        const gc_buffer *b = &run->buffers[i];
        if ((const uint8_t *)device == b->device + GC_MARGIN && b->after != NULL) {
            return b->after + GC_MARGIN;
        }
    }
    abort(); /* no buffer of this case, or gc_wait() was not called */
}

/* ----------------------------------------------------------------------------------- cases -- */

/* "FAIL op shape: ...", ready for a signal handler. */
static char hang_text[256];

static void on_hang(int number)
{
    (void)number;
    (void)!write(STDOUT_FILENO, hang_text, strlen(hang_text));
    _exit(2); /* what hangs can be ended by nothing else */
}

void gc_watch(gc *run)
{
    if (run->is_verbose) {
        (void)printf("%s %s\n", run->op, run->shape);
        (void)fflush(stdout);
    }
    if (run->is_emulated) {
        return;
    }
    (void)snprintf(hang_text, sizeof hang_text, "FAIL %s %s, seed %llu: no end after %d s\n",
                   run->op, run->shape, (unsigned long long)run->seed, GC_SECONDS_MAX);
    const struct sigaction action = {.sa_handler = on_hang};
    (void)sigaction(SIGALRM, &action, NULL);
    (void)alarm(GC_SECONDS_MAX);
}

void gc_watch_end(void)
{
    (void)alarm(0);
}

void gc_begin(gc *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(run->shape, sizeof run->shape, format, args);
    va_end(args);
    run->case_failed = false;
    gc_watch(run);
}

void gc_fail(gc *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const bool is_planted = run->wrong != NULL || run->fault != GC_FAULT_NONE;
    if (!is_planted && !run->case_failed) {
        (void)printf("FAIL %s %s, seed %llu: ", run->op, run->shape, (unsigned long long)run->seed);
        (void)vprintf(format, args);
        (void)printf("\n");
    }
    va_end(args);
    run->case_failed = true;
}

/* Of all results of a case, eight bytes at a time. */
static uint64_t digest_of(const gc *run)
{
    uint64_t digest = 14695981039346656037ULL;
    for (size_t i = 0; i < run->n_buffers; i++) {
        const gc_buffer *b = &run->buffers[i];
        for (size_t at = 0; is_result(b) && b->after != NULL && at < b->n_bytes; at += 8) {
            uint64_t word = 0;
            const size_t n_left = b->n_bytes - at;
            memcpy(&word, b->after + GC_MARGIN + at, n_left < sizeof word ? n_left : sizeof word);
            digest = (digest ^ word) * 1099511628211ULL;
            digest ^= digest >> 32;
        }
    }
    return digest;
}

void gc_end(gc *run)
{
    if (run->i_case == GC_CASES_MAX) {
        abort();
    }
    const uint64_t digest = digest_of(run);
    if (run->i_pass == 1 && run->digests[run->i_case] != digest) {
        gc_fail(run, "other bits than the same inputs gave before");
    }
    run->digests[run->i_case++] = digest;
    for (size_t i = 0; i < run->n_buffers; i++) {
        qn_gpu_free(run->gpu, run->buffers[i].device);
        free(run->buffers[i].before);
        free(run->buffers[i].after);
    }
    for (size_t i = 0; i < run->n_host; i++) {
        free(run->host[i]);
    }
    run->n_buffers = 0;
    run->n_host = 0;
    gc_watch_end();
    run->n_failed += run->case_failed ? 1 : 0;
    run->n_passed += run->case_failed ? 0 : 1;
    if (run->case_failed && (run->wrong != NULL || run->fault != GC_FAULT_NONE)) {
        longjmp(run->caught, 1);
    }
}

/* ----------------------------------------------------------------------------- comparisons -- */

double gc_ulp(double x)
{
    const float f = fabsf((float)x);
    return isfinite(f) ? (double)nextafterf(f, INFINITY) - (double)f : 0.0;
}

double gc_half_ulp_bf16(double x)
{
    int exponent = 0;
    (void)frexp(x, &exponent);
    return ldexp(1.0, (exponent < -125 ? -125 : exponent) - 9);
}

void gc_close(gc *run, const char *what, const float *got, const double *want,
              const double *tolerance, size_t n)
{
    double worst = -1.0;
    size_t i_worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double g = (double)got[i];
        const double w = want[i];
        const double off = fabs(g - w);
        if (isnan(w)                      ? isnan(g)
            : !isfinite((double)(float)w) ? g == (double)(float)w
                                          : off <= tolerance[i]) {
            continue;
        }
        if (worst < 0.0 || !(off / tolerance[i] <= worst)) { /* NaN is worse than any error */
            worst = isnan(off) ? (double)INFINITY : off / tolerance[i];
            i_worst = i;
        }
    }
    if (worst >= 0.0) {
        gc_fail(run, "%s[%zu] is %.9g, %.9g expected, %.3g times the tolerance", what, i_worst,
                (double)got[i_worst], want[i_worst], worst);
    }
}

void gc_same(gc *run, const char *what, const void *got, const void *want, size_t n_bytes)
{
    const uint8_t *g = got;
    const uint8_t *w = want;
    for (size_t i = 0; i < n_bytes; i++) {
        if (g[i] != w[i]) {
            gc_fail(run, "%s: byte %zu of %zu is 0x%02x, 0x%02x expected", what, i, n_bytes, g[i],
                    w[i]);
            return;
        }
    }
}

void gc_untouched(gc *run, const char *what, const void *got, size_t n_bytes)
{
    const uint8_t *g = got;
    for (size_t i = 0; i < n_bytes; i++) {
        if (g[i] != 0xff) {
            gc_fail(run, "%s: byte %zu of %zu was written", what, i, n_bytes);
            return;
        }
    }
}

void gc_finite(gc *run, const char *what, const float *got, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) {
            gc_fail(run, "%s[%zu] of padding is %g", what, i, (double)got[i]);
            return;
        }
    }
}
