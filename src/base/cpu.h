/* SPDX-License-Identifier: Apache-2.0 */
/** @file cpu.h  What this machine's CPU can do and how much of it we were granted. */
#ifndef QN_BASE_CPU_H
#define QN_BASE_CPU_H
#include "quern/status.h"

#include <stddef.h>
#include <stdint.h>

/**
 * Bundles of CPU features that kernels are built for.  The first four are levels: each needs all
 * those before it.  The last is an addition to AVX2 that not every CPU above it has.
 */
enum {
    QN_CPU_AVX2 = 1 << 0,       /**< AVX2, FMA, F16C, BMI2 */
    QN_CPU_AVX512 = 1 << 1,     /**< F, BW, DQ, VL */
    QN_CPU_AVX512BF16 = 1 << 2, /**< BF16, VNNI, VBMI */
    QN_CPU_AMX = 1 << 3,        /**< TILE, INT8, BF16, and the kernel lets us use them */
    QN_CPU_AVXVNNI = 1 << 4,    /**< AVX-VNNI */
};

/** Bundles that CPU and operating system offer; 0 means plain C only.  Any thread. */
uint32_t qn_cpu_flags(void);

/**
 * The flags that `--cpu-mask LEVEL` leaves on: of the level and all below it, and from avx2 on
 * QN_CPU_AVXVNNI.
 * @param level  ref, avx2, avx512, avx512bf16 or amx
 * Returns  QN_OK; QN_E_INVAL that lists the levels
 */
QN_MUST_CHECK qn_status qn_cpu_mask_parse(uint32_t *mask, const char *level, qn_error *err);

/** Name of the highest level in @p flags: "ref" .. "amx".  Never NULL. */
const char *qn_cpu_level_name(uint32_t flags);

/** The CPU's name for itself, such as "Intel(R) Xeon(R) ..."; "unknown" where it has none. */
void qn_cpu_model_name(char *out, size_t out_bytes);

/** CPUs that this process may run on, at least 1 ... */
uint32_t qn_cpu_affinity_count(void);
/** ... and how many of them it may keep busy, by its control group's quota too. */
uint32_t qn_cpu_count(void);

/**
 * What cpu.max (CPUs, rounded up) and memory.max (bytes) of a control group (v2) and of those above
 * it grant.
 *
 * @param root    where control groups are mounted: "/sys/fs/cgroup"
 * @param group   the group below it: "/a/b", "/" for the root
 * Returns  UINT64_MAX where nothing limits
 */
uint64_t qn_cpu_group_cpus(const char *root, const char *group);
uint64_t qn_cpu_group_memory_bytes(const char *root, const char *group);

/** Memory that this process may use: the machine's, or what its control group is granted. */
uint64_t qn_cpu_ram_bytes(void);
#endif
