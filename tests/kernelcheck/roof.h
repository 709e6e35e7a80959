/* SPDX-License-Identifier: Apache-2.0 */
/** @file roof.h  What the timings are measured against: peaks of one thread of this machine. */
#ifndef QN_KERNELCHECK_ROOF_H
#define QN_KERNELCHECK_ROOF_H
#include "kernels/weight.h"

/** Arithmetic that never leaves registers, n_rounds times.  Returns the operations done. */
typedef double kc_peak_fn(uint64_t n_rounds);

/** Where loops leave their sums, so that no compiler takes them for useless. */
extern volatile uint64_t kc_sink;

/** Peaks that the kernels of a level can reach. */
typedef struct kc_roof {
    double bytes_per_s;       /**< Read from memory. */
    double ops_per_s[3];      /**< By qn_act: products of f32, of bf16, of int8. */
    const char *ops_names[3]; /**< The instruction that was measured. */
} kc_roof;

/** Measure with a buffer of n_bytes that holds at least four times what the caches do. */
kc_roof kc_roof_measure(uint32_t cpu_flags, const uint8_t *buffer, size_t n_bytes);

/** Least and middle time that a call keeps this thread running. */
typedef struct kc_timing {
    double min_s, median_s;
} kc_timing;
kc_timing kc_measure(void (*call)(void *), void *context);

kc_peak_fn kc_peak_f32_ref;
kc_peak_fn kc_peak_f32_avx2;
kc_peak_fn kc_peak_int8_avx2;
kc_peak_fn kc_peak_f32_avx512;
kc_peak_fn kc_peak_int8_avx512;
kc_peak_fn kc_peak_bf16_avx512bf16;
kc_peak_fn kc_peak_int8_avx512bf16;
kc_peak_fn kc_peak_bf16_amx;
kc_peak_fn kc_peak_int8_amx;
/** Order of doubles for qsort(). */
int kc_by_time(const void *a, const void *b);
#endif
