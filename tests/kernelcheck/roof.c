/* SPDX-License-Identifier: Apache-2.0 */
#include "roof.h"

#include "base/cpu.h"

#include <stdlib.h>
#include <time.h>

volatile uint64_t kc_sink;

/* Time that this thread ran: others on the machine do not count. */
static double now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int kc_by_time(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

kc_timing kc_measure(void (*call)(void *), void *context)
{
    enum { N_MAX = 15, N_MIN = 3 };
    const double enough_s = 0.3;  /* slow calls are repeated less often ... */
    const double sample_s = 1e-4; /* ... and quick ones are timed many together */
    double times[N_MAX];
    double start = now_s();
    call(context);
    double once_s = now_s() - start;
    if (once_s < 100.0 * sample_s) { /* the first call may have been slow for its caches */
        start = now_s();
        call(context);
        once_s = now_s() - start;
    }
    const unsigned n_calls = once_s < sample_s ? 1 + (unsigned)(sample_s / (once_s + 1e-9)) : 1;
    const double first = now_s();
    size_t n = 0;
    for (; n < N_MAX && (n < N_MIN || now_s() - first < enough_s); n++) {
        start = now_s();
        for (unsigned i = 0; i < n_calls; i++) {
            call(context);
        }
        times[n] = (now_s() - start) / n_calls;
    }
    qsort(times, n, sizeof *times, kc_by_time);
    return (kc_timing){times[0], times[n / 2]};
}

/* 16 sums side by side, which a compiler keeps in whatever registers it has. */
double kc_peak_f32_ref(uint64_t n_rounds)
{
    enum { N = 512, LANES = 16 };
    float x[2 * N];
    float lanes[LANES] = {0};
    for (size_t i = 0; i < (size_t)2 * N; i++) {
        x[i] = 1e-3F * (float)(kc_sink + i);
    }
    for (uint64_t round = 0; round < n_rounds; round += N / LANES) {
        for (size_t k = 0; k < N; k += LANES) {
            for (size_t i = 0; i < LANES; i++) {
                lanes[i] += x[k + i] * x[N + k + i];
            }
        }
    }
    for (size_t i = 0; i < LANES; i++) {
        kc_sink += (uint64_t)(int64_t)lanes[i] & 1;
    }
    return 2.0 * LANES * (double)n_rounds;
}

enum { N_ROUNDS = 1 << 18 };

static void call_peak(void *context)
{
    (void)(**(kc_peak_fn **)context)(N_ROUNDS);
}

static double peak(kc_peak_fn *loop)
{
    return loop(N_ROUNDS) / kc_measure(call_peak, (void *)&loop).min_s;
}

typedef struct reading {
    const uint8_t *from;
    size_t n_bytes, ahead; /* bytes that a prefetch is ahead; 0: leave it to the machine */
} reading;

static void read_all(void *context)
{
    const reading *r = context;
    uint64_t sums[8] = {0};
    for (size_t at = 0; at < r->n_bytes; at += sizeof sums) {
        const uint64_t *words = (const uint64_t *)(const void *)(r->from + at);
        if (r->ahead > 0) {
            __builtin_prefetch(r->from + at + r->ahead); /* behind the buffer it does nothing */
        }
        for (size_t i = 0; i < 8; i++) {
            sums[i] += words[i];
        }
    }
    for (size_t i = 0; i < 8; i++) {
        kc_sink += sums[i] & 1;
    }
}

/* The best of some ways to read, each over all of the buffer. */
static double read_peak(const uint8_t *buffer, size_t n_bytes)
{
    static const size_t aheads[] = {0, 1024, 2048, 4096, 8192};
    double best = 0.0;
    for (size_t i = 0; i < sizeof aheads / sizeof *aheads; i++) {
        reading r = {buffer, n_bytes, aheads[i]};
        const double rate = (double)n_bytes / kc_measure(read_all, &r).min_s;
        best = rate > best ? rate : best;
    }
    return best;
}

kc_roof kc_roof_measure(uint32_t cpu_flags, const uint8_t *buffer, size_t n_bytes)
{
    static double bytes_per_s; /* one for all levels */
    if (bytes_per_s == 0.0) {
        bytes_per_s = read_peak(buffer, n_bytes);
    }
    kc_peak_fn *loops[3] = {kc_peak_f32_ref, kc_peak_f32_ref, kc_peak_f32_ref};
    kc_roof roof = {bytes_per_s, {0}, {"plain C dot", "plain C dot", "plain C dot"}};
#ifdef __x86_64__
    if ((cpu_flags & QN_CPU_AVX2) != 0) {
        loops[QN_ACT_F32] = loops[QN_ACT_BF16] = kc_peak_f32_avx2;
        loops[QN_ACT_INT8] = kc_peak_int8_avx2;
        roof.ops_names[QN_ACT_F32] = roof.ops_names[QN_ACT_BF16] = "FMA";
        roof.ops_names[QN_ACT_INT8] = "vpmaddubsw";
    }
    if ((cpu_flags & QN_CPU_AVX512) != 0) {
        loops[QN_ACT_F32] = loops[QN_ACT_BF16] = kc_peak_f32_avx512;
        loops[QN_ACT_INT8] = kc_peak_int8_avx512;
    }
    if ((cpu_flags & QN_CPU_AVX512BF16) != 0) {
        loops[QN_ACT_BF16] = kc_peak_bf16_avx512bf16;
        loops[QN_ACT_INT8] = kc_peak_int8_avx512bf16;
        roof.ops_names[QN_ACT_BF16] = "vdpbf16ps";
        roof.ops_names[QN_ACT_INT8] = "vpdpbusd";
    }
    if ((cpu_flags & QN_CPU_AMX) != 0) {
        loops[QN_ACT_BF16] = kc_peak_bf16_amx;
        loops[QN_ACT_INT8] = kc_peak_int8_amx;
        roof.ops_names[QN_ACT_BF16] = "tdpbf16ps";
        roof.ops_names[QN_ACT_INT8] = "tdpbsud";
    }
#else
    (void)cpu_flags;
#endif
    for (int act = QN_ACT_F32; act <= QN_ACT_INT8; act++) {
        roof.ops_per_s[act] = peak(loops[act]);
    }
    return roof;
}
