/* SPDX-License-Identifier: Apache-2.0 */
/** @file roof.h  What timings are measured against: what this machine can at most, in the same run.
 */
#ifndef QN_KERNELS_ROOF_H
#define QN_KERNELS_ROOF_H
#include "base/pool.h"
#include "kernels/weight.h"

/** Arithmetic that never leaves registers, n_rounds times.  Returns the operations done. */
typedef double qn_peak_fn(uint64_t n_rounds);

/** Where loops leave their sums, so that no compiler takes them for useless. */
extern _Thread_local volatile uint64_t qn_roof_sink;

/** Peaks that the kernels of a level can reach. */
typedef struct qn_roof {
    double bytes_per_s;       /**< Read from memory. */
    double ops_per_s[3];      /**< By qn_act: products of f32, of bf16, of int8. */
    const char *ops_names[3]; /**< The instruction that was measured. */
} qn_roof;

/** Bytes that no cache holds: four times the last one, which virtual machines tell wrongly, at
 * least 256 and at most 512 MiB. */
size_t qn_roof_cold_bytes(void);

/**
 * Measure with a buffer of n_bytes that holds at least four times what the caches do.
 *
 * @param pool  all its threads at once, by the clock on the wall; NULL: this thread alone, by the
 *              time that it runs
 */
qn_roof qn_roof_measure(uint32_t cpu_flags, const uint8_t *buffer, size_t n_bytes, qn_pool *pool);

/** Least and middle time of a call, over so many samples. */
typedef struct qn_timing {
    double min_s, median_s;
    uint32_t n;
} qn_timing;

/** What time is that of. */
typedef enum qn_timing_clock {
    QN_TIMING_THREAD, /**< This thread's own: others on the machine disturb less. */
    QN_TIMING_WALL,   /**< For calls on several threads. */
} qn_timing_clock;

/** Time up to 15 samples in some 0.3 s, each of one call or of many quick ones. */
qn_timing qn_time_call(void (*call)(void *), void *context, qn_timing_clock clock);

qn_peak_fn qn_peak_f32_ref;
qn_peak_fn qn_peak_f32_avx2;
qn_peak_fn qn_peak_int8_avx2;
qn_peak_fn qn_peak_f32_avx512;
qn_peak_fn qn_peak_int8_avx512;
qn_peak_fn qn_peak_bf16_avx512bf16;
qn_peak_fn qn_peak_int8_avx512bf16;
qn_peak_fn qn_peak_bf16_amx;
qn_peak_fn qn_peak_int8_amx;
/** Order of doubles for qsort(). */
int qn_by_time(const void *a, const void *b);
#endif
