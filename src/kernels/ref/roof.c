/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/roof.h"

#include "base/cpu.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

_Thread_local volatile uint64_t qn_roof_sink;

size_t qn_roof_cold_bytes(void)
{
    const size_t mib = (size_t)1 << 20;
    const long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    const size_t n = l3 > 0 ? 4 * (size_t)l3 : 0;
    return n < 256 * mib ? 256 * mib : n > 512 * mib ? 512 * mib : n;
}

static double now_s(qn_timing_clock clock)
{
    struct timespec now;
    (void)clock_gettime(clock == QN_TIMING_WALL ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int qn_by_time(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

qn_timing qn_time_call(void (*call)(void *), void *context, qn_timing_clock clock)
{
    enum { N_MAX = 15, N_MIN = 3 };
    const double enough_s = 0.3;  /* slow calls are repeated less often ... */
    const double sample_s = 1e-4; /* ... and quick ones are timed many together */
    double times[N_MAX];
    double start = now_s(clock);
    call(context);
    double once_s = now_s(clock) - start;
    if (once_s < 100.0 * sample_s) { /* the first call may have been slow for its caches */
        start = now_s(clock);
        call(context);
        once_s = now_s(clock) - start;
    }
    const unsigned n_calls = once_s < sample_s ? 1 + (unsigned)(sample_s / (once_s + 1e-9)) : 1;
    const double first = now_s(clock);
    size_t n = 0;
    for (; n < N_MAX && (n < N_MIN || now_s(clock) - first < enough_s); n++) {
        start = now_s(clock);
        for (unsigned i = 0; i < n_calls; i++) {
            call(context);
        }
        times[n] = (now_s(clock) - start) / n_calls;
    }
    qsort(times, n, sizeof *times, qn_by_time);
    return (qn_timing){times[0], times[n / 2], (uint32_t)n};
}

/* 16 sums side by side, which a compiler keeps in whatever registers it has. */
double qn_peak_f32_ref(uint64_t n_rounds)
{
    enum { N = 512, LANES = 16 };
    float x[2 * N];
    float lanes[LANES] = {0};
    for (size_t i = 0; i < (size_t)2 * N; i++) {
        x[i] = 1e-3F * (float)(qn_roof_sink + i);
    }
    for (uint64_t round = 0; round < n_rounds; round += N / LANES) {
        for (size_t k = 0; k < N; k += LANES) {
            for (size_t i = 0; i < LANES; i++) {
                lanes[i] += x[k + i] * x[N + k + i];
            }
        }
    }
    for (size_t i = 0; i < LANES; i++) {
        qn_roof_sink += (uint64_t)(int64_t)lanes[i] & 1;
    }
    return 2.0 * LANES * (double)n_rounds;
}

enum { N_ROUNDS = 1 << 18 };

/* What one or all threads do at once: a loop of arithmetic, or a part of a buffer each. */
typedef struct probe {
    qn_pool *pool; /* NULL: the caller alone */
    qn_peak_fn *loop;
    const uint8_t *from;
    size_t n_bytes, ahead; /* bytes that a prefetch is ahead; 0: leave it to the machine */
} probe;

static uint32_t n_threads_of(const probe *p)
{
    return p->pool == NULL ? 1 : qn_pool_threads(p->pool);
}

static double time_probe(probe *p, void (*call)(void *))
{
    return qn_time_call(call, p, p->pool == NULL ? QN_TIMING_THREAD : QN_TIMING_WALL).min_s;
}

static void run_probe(const probe *p, qn_pool_fn *fn)
{
    if (p->pool == NULL) {
        fn((void *)(uintptr_t)p, 0, 1, 0);
    } else {
        qn_pool_run(p->pool, n_threads_of(p), fn, (void *)(uintptr_t)p);
    }
}

static void peak_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    (void)first, (void)end, (void)i_thread;
    (void)((const probe *)context)->loop(N_ROUNDS);
}

static void call_peak(void *context)
{
    run_probe(context, peak_range);
}

static double peak(qn_peak_fn *loop, qn_pool *pool)
{
    probe p = {.pool = pool, .loop = loop};
    return loop(N_ROUNDS) * n_threads_of(&p) / time_probe(&p, call_peak);
}

static void read_range(void *context, size_t first, size_t end, uint32_t i_thread)
{
    const probe *const p = context;
    const size_t n_bytes = p->n_bytes / n_threads_of(p) / 64 * 64;
    const uint8_t *const from = p->from + first * n_bytes;
    uint64_t sums[8] = {0};
    (void)end, (void)i_thread;
    for (size_t at = 0; at < n_bytes; at += sizeof sums) {
        const uint64_t *words = (const uint64_t *)(const void *)(from + at);
        if (p->ahead > 0) {
            __builtin_prefetch(from + at + p->ahead); /* behind the buffer it does nothing */
        }
        for (size_t i = 0; i < 8; i++) {
            sums[i] += words[i];
        }
    }
    for (size_t i = 0; i < 8; i++) {
        qn_roof_sink += sums[i] & 1;
    }
}

static void call_read(void *context)
{
    run_probe(context, read_range);
}

/* The best of some ways to read, each over all of the buffer. */
static double read_peak(const uint8_t *buffer, size_t n_bytes, qn_pool *pool)
{
    static const size_t aheads[] = {0, 1024, 2048, 4096, 8192};
    double best = 0.0;
    for (size_t i = 0; i < sizeof aheads / sizeof *aheads; i++) {
        probe p = {.pool = pool, .from = buffer, .n_bytes = n_bytes, .ahead = aheads[i]};
        const double rate = (double)n_bytes / time_probe(&p, call_read);
        best = rate > best ? rate : best;
    }
    return best;
}

qn_roof qn_roof_measure(uint32_t cpu_flags, const uint8_t *buffer, size_t n_bytes, qn_pool *pool)
{
    qn_peak_fn *loops[3] = {qn_peak_f32_ref, qn_peak_f32_ref, qn_peak_f32_ref};
    qn_roof roof = {
        read_peak(buffer, n_bytes, pool), {0}, {"plain C dot", "plain C dot", "plain C dot"}};
#ifdef __x86_64__
    if ((cpu_flags & QN_CPU_AVX2) != 0) {
        loops[QN_ACT_F32] = loops[QN_ACT_BF16] = qn_peak_f32_avx2;
        loops[QN_ACT_INT8] = qn_peak_int8_avx2;
        roof.ops_names[QN_ACT_F32] = roof.ops_names[QN_ACT_BF16] = "FMA";
        roof.ops_names[QN_ACT_INT8] = "vpmaddubsw";
    }
    if ((cpu_flags & QN_CPU_AVX512) != 0) {
        loops[QN_ACT_F32] = loops[QN_ACT_BF16] = qn_peak_f32_avx512;
        loops[QN_ACT_INT8] = qn_peak_int8_avx512;
    }
    if ((cpu_flags & QN_CPU_AVX512BF16) != 0) {
        loops[QN_ACT_BF16] = qn_peak_bf16_avx512bf16;
        loops[QN_ACT_INT8] = qn_peak_int8_avx512bf16;
        roof.ops_names[QN_ACT_BF16] = "vdpbf16ps";
        roof.ops_names[QN_ACT_INT8] = "vpdpbusd";
    }
    if ((cpu_flags & QN_CPU_AMX) != 0) {
        loops[QN_ACT_BF16] = qn_peak_bf16_amx;
        loops[QN_ACT_INT8] = qn_peak_int8_amx;
        roof.ops_names[QN_ACT_BF16] = "tdpbf16ps";
        roof.ops_names[QN_ACT_INT8] = "tdpbsud";
    }
#else
    (void)cpu_flags;
#endif
    for (int act = QN_ACT_F32; act <= QN_ACT_INT8; act++) {
        roof.ops_per_s[act] = peak(loops[act], pool);
    }
    return roof;
}
