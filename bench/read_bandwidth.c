/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast this machine reads memory: the roof of a decoding step whose weights are in no cache.
 *
 *     bench_read_bandwidth [--mib N] [--threads N] [--repeats N]
 *
 * Reads N MiB (default 1024: more than any last-level cache should hold) with one thread and with
 * as many as asked (default 2), each its own part.  Which order of reading is fastest differs
 * between machines, so several are tried: the part as 1, 2, 4 or 8 streams side by side, with and
 * without prefetches; the best pass of all counts.  Prints a JSON object a line.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
    THREADS_MAX = 64,
    STEP = 4,       /* vectors of a stream that are read before the next stream's */
    GRAIN = 32,     /* STEP of each of up to 8 streams */
    STRATEGIES = 8, /* 1, 2, 4, 8 streams; without and with prefetches */
};

/* One AVX-512 register, two of AVX2, four of SSE2: the compiler splits it. */
typedef uint64_t vec __attribute__((vector_size(64)));

/* What one thread reads in a pass. */
typedef struct part {
    const vec *from;
    size_t n_vecs; /* a multiple of GRAIN */
    size_t n_streams;
    size_t ahead_bytes; /* of the prefetches; 0: they do nothing */
    uint64_t sum;       /* so that nothing is optimised away */
    pthread_t thread;
} part;

#ifdef __x86_64__
#define FOR_EACH_LEVEL __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_LEVEL
#endif

FOR_EACH_LEVEL static uint64_t read_streams(const vec *from, size_t n_vecs, size_t n_streams,
                                            size_t ahead_bytes)
{
    const size_t n_each = n_vecs / n_streams;
    vec sums[STEP] = {0};
    for (size_t i = 0; i < n_each; i += STEP) {
        for (size_t k = 0; k < n_streams; k++) {
            const vec *const at = from + k * n_each + i;
            for (size_t j = 0; j < STEP; j++) {
                __builtin_prefetch((const char *)(at + j) + ahead_bytes);
                sums[j] ^= at[j];
            }
        }
    }
    const vec sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

static void *read_part(void *context)
{
    part *const p = context;
    p->sum = read_streams(p->from, p->n_vecs, p->n_streams, p->ahead_bytes);
    return NULL;
}

static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* One pass over the memory; returns GB/s. */
static double pass(const vec *memory, size_t n_vecs, size_t n_threads, size_t n_streams,
                   size_t ahead_bytes)
{
    static part parts[THREADS_MAX];
    const size_t n_each = n_vecs / n_threads / GRAIN * GRAIN;
    const double start_s = seconds();
    for (size_t i = 0; i < n_threads; i++) {
        part *const p = &parts[i];
        *p = (part){.from = memory + i * n_each,
                    .n_vecs = n_each,
                    .n_streams = n_streams,
                    .ahead_bytes = ahead_bytes};
        if (i > 0 && pthread_create(&p->thread, NULL, read_part, p) != 0) {
            (void)fprintf(stderr, "read_bandwidth: error: no thread could be started\n");
            exit(1);
        }
    }
    (void)read_part(&parts[0]);
    for (size_t i = 1; i < n_threads; i++) {
        (void)pthread_join(parts[i].thread, NULL);
    }
    return 1e-9 * (double)(n_each * n_threads * sizeof(vec)) / (seconds() - start_s);
}

static void measure(const vec *memory, size_t n_vecs, size_t n_threads, size_t n_repeats)
{
    double best = 0.0;
    size_t i_best = 0;
    for (size_t i = 0; i < n_repeats * STRATEGIES; i++) {
        const double rate =
            pass(memory, n_vecs, n_threads, (size_t)1 << i % 4, i / 4 % 2 == 1 ? 4096 : 0);
        if (rate > best) {
            best = rate;
            i_best = i;
        }
    }
    (void)printf("{\"what\": \"read_bandwidth\", \"threads\": %zu, \"gb_per_s\": %.2f, "
                 "\"streams\": %d, \"prefetch\": %s}\n",
                 n_threads, best, 1 << i_best % 4, i_best / 4 % 2 == 1 ? "true" : "false");
}

int main(int argc, char **argv)
{
    size_t n_mib = 1024;
    size_t n_threads = 2;
    size_t n_repeats = 2;
    int at = 1;
    for (; at + 1 < argc; at += 2) {
        const size_t value = strtoul(argv[at + 1], NULL, 10);
        size_t *const to = strcmp(argv[at], "--mib") == 0       ? &n_mib
                           : strcmp(argv[at], "--threads") == 0 ? &n_threads
                           : strcmp(argv[at], "--repeats") == 0 ? &n_repeats
                                                                : NULL;
        if (to == NULL || value == 0) {
            break;
        }
        *to = value;
    }
    if (at < argc || n_threads > THREADS_MAX) {
        (void)fprintf(stderr,
                      "usage: bench_read_bandwidth [--mib N] [--threads N (1 to %d)] "
                      "[--repeats N]\n",
                      THREADS_MAX);
        return 2;
    }
    const size_t n_bytes = n_mib << 20;
    void *const memory =
        mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        (void)fprintf(stderr, "read_bandwidth: error: %zu MiB are not there\n", n_mib);
        return 1;
    }
    (void)madvise(memory, n_bytes, MADV_HUGEPAGE); /* page walks are not what is measured */
    memset(memory, 1, n_bytes);
    measure(memory, n_bytes / sizeof(vec), 1, n_repeats);
    if (n_threads > 1) {
        measure(memory, n_bytes / sizeof(vec), n_threads, n_repeats);
    }
    (void)munmap(memory, n_bytes);
    return 0;
}
