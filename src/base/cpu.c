/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"

#include "base/banned.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#endif

enum { N_LEVELS = 5 };

static const char *const level_names[N_LEVELS] = {"ref", "avx2", "avx512", "avx512bf16", "amx"};

#ifdef __x86_64__

/* One register of a cpuid leaf must have all these bits. */
typedef struct feature {
    uint32_t leaf;
    uint32_t subleaf;
    uint32_t i_register; /* 0 eax .. 3 edx */
    uint32_t bits;
} feature;

/* What each level adds.  Source: Intel SDM volume 2A, CPUID, tables 3-8 and 3-17. */
static const struct {
    uint64_t xcr0; /* register state that the operating system must save */
    feature features[3];
} needs[N_LEVELS] = {
    [1] = {.xcr0 = 0x6,                                            /* SSE, AVX */
           .features = {{1, 0, 2, 1U << 12 | 1U << 27 | 1U << 29}, /* FMA, OSXSAVE, F16C */
                        {7, 0, 1, 1U << 5 | 1U << 8}}},            /* AVX2, BMI2 */
    [2] = {.xcr0 = 0xe6, /* and opmask, both halves of zmm */
           .features = {{7, 0, 1, 1U << 16 | 1U << 17 | 1U << 30 | 1U << 31}}}, /* F DQ BW VL */
    [3] = {.xcr0 = 0xe6,
           .features = {{7, 0, 2, 1U << 1 | 1U << 11}, /* VBMI, VNNI */
                        {7, 1, 0, 1U << 5}}},          /* BF16 */
    [4] = {.xcr0 = 0x600e6,                            /* and tile configuration, tile data */
           .features = {{7, 0, 3, 1U << 22 | 1U << 24 | 1U << 25}}}, /* BF16 TILE INT8 */
};

/* QN_CPU_AVXVNNI */
static const feature avxvnni = {7, 1, 0, 1U << 4};

static bool has_feature(const feature *need)
{
    uint32_t r[4] = {0};
    return __get_cpuid_count(need->leaf, need->subleaf, &r[0], &r[1], &r[2], &r[3]) != 0 &&
           (r[need->i_register] & need->bits) == need->bits;
}

static uint64_t read_xcr0(void)
{
    uint32_t low;
    uint32_t high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux hands out tile registers to a process that asks. */
static bool may_use_tiles(void)
{
    const long arch_req_xcomp_perm = 0x1023; /* asm/prctl.h */
    const long xfeature_xtile_data = 18;
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtile_data) == 0;
}

static uint32_t find_levels(void)
{
    uint32_t flags = 0;
    for (uint32_t i_level = 1; i_level < N_LEVELS; i_level++) {
        for (uint32_t i = 0; i < 3 && needs[i_level].features[i].bits != 0; i++) {
            if (!has_feature(&needs[i_level].features[i])) {
                return flags;
            }
        }
        /* Level 1 has seen OSXSAVE, so xgetbv exists. */
        if ((read_xcr0() & needs[i_level].xcr0) != needs[i_level].xcr0) {
            return flags;
        }
        if (1U << (i_level - 1) == QN_CPU_AMX && !may_use_tiles()) {
            return flags;
        }
        flags |= 1U << (i_level - 1);
    }
    return flags;
}

uint32_t qn_cpu_flags(void)
{
    const uint32_t levels = find_levels();
    return levels | (levels != 0 && has_feature(&avxvnni) ? QN_CPU_AVXVNNI : 0);
}

void qn_cpu_model_name(char *out, size_t out_bytes)
{
    uint32_t r[12] = {0};
    bool is_known = true;
    for (uint32_t leaf = 0x80000002U, *at = r; at < r + 12; leaf++, at += 4) {
        is_known &= __get_cpuid(leaf, &at[0], &at[1], &at[2], &at[3]) != 0;
    }
    char name[sizeof r + 1] = {0};
    memcpy(name, r, sizeof r);
    const char *const start = name + strspn(name, " ");
    (void)snprintf(out, out_bytes, "%s", is_known && *start != '\0' ? start : "unknown");
}

#else

uint32_t qn_cpu_flags(void)
{
    return 0;
}

void qn_cpu_model_name(char *out, size_t out_bytes)
{
    (void)snprintf(out, out_bytes, "unknown");
}

#endif

qn_status qn_cpu_mask_parse(uint32_t *mask, const char *level, qn_error *err)
{
    for (uint32_t i_level = 0; i_level < N_LEVELS; i_level++) {
        if (strcmp(level, level_names[i_level]) == 0) {
            *mask = ((1U << i_level) - 1) | (i_level > 0 ? QN_CPU_AVXVNNI : 0);
            return QN_OK;
        }
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__,
                   "--cpu-mask or QN_CPU_MASK: '%.64s', one of ref, avx2, avx512, avx512bf16, amx "
                   "expected",
                   level);
}

const char *qn_cpu_level_name(uint32_t flags)
{
    uint32_t i_level = 0;
    while (i_level + 1 < N_LEVELS && (flags >> i_level & 1U) != 0) {
        i_level++;
    }
    return level_names[i_level];
}

/* The limits of a control group, by its file and how that is read.
 * Source: Linux, Documentation/admin-guide/cgroup-v2.rst, "Core Interface Files". */
typedef struct group_limit {
    const char *file;
    uint64_t (*parse)(const char *line); /* UINT64_MAX: no limit */
} group_limit;

/* "QUOTA PERIOD" in microseconds, or "max PERIOD"; CPUs, rounded up. */
static uint64_t parse_cpu_max(const char *line)
{
    unsigned long long quota_us = 0;
    unsigned long long period_us = 0;
    const bool is_limit =
        sscanf(line, "%llu %llu", &quota_us, &period_us) == 2 && quota_us > 0 && period_us > 0;
    return is_limit ? (quota_us - 1) / period_us + 1 : UINT64_MAX;
}

/* Bytes, or "max". */
static uint64_t parse_memory_max(const char *line)
{
    unsigned long long n_bytes = 0;
    return sscanf(line, "%llu", &n_bytes) == 1 ? n_bytes : UINT64_MAX;
}

static const group_limit cpu_limit = {"cpu.max", parse_cpu_max};
static const group_limit memory_limit = {"memory.max", parse_memory_max};

static uint64_t read_limit(const char *path, const group_limit *limit)
{
    char line[64] = "";
    FILE *const file = fopen(path, "re");
    if (file == NULL) {
        return UINT64_MAX;
    }
    const bool has_line = fgets(line, sizeof line, file) != NULL;
    (void)fclose(file);
    return has_line ? limit->parse(line) : UINT64_MAX;
}

/* The least limit of a group and of those above it. */
static uint64_t least_limit(const char *root, const char *group, const group_limit *limit)
{
    char path[4096];
    uint64_t n_min = UINT64_MAX;
    size_t len = strlen(group);
    while (true) {
        while (len > 0 && group[len - 1] == '/') {
            len--;
        }
        (void)snprintf(path, sizeof path, "%s%.*s/%s", root, (int)len, group, limit->file);
        const uint64_t n = read_limit(path, limit);
        n_min = n < n_min ? n : n_min;
        if (len == 0) {
            return n_min;
        }
        while (len > 0 && group[len - 1] != '/') {
            len--;
        }
    }
}

uint64_t qn_cpu_group_cpus(const char *root, const char *group)
{
    return least_limit(root, group, &cpu_limit);
}

uint64_t qn_cpu_group_memory_bytes(const char *root, const char *group)
{
    return least_limit(root, group, &memory_limit);
}

/* Of this process, whose group is the line "0::GROUP" of /proc/self/cgroup. */
static uint64_t own_limit(const group_limit *limit)
{
    char line[4096];
    uint64_t n = UINT64_MAX;
    FILE *const file = fopen("/proc/self/cgroup", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            n = least_limit("/sys/fs/cgroup", line + 3, limit);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return n;
}

uint32_t qn_cpu_affinity_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return (uint32_t)CPU_COUNT(&set);
    }
    const long n_online = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t holds */
    return n_online > 0 ? (uint32_t)n_online : 1;
}

uint32_t qn_cpu_count(void)
{
    const uint32_t n_granted = qn_cpu_affinity_count();
    const uint64_t n_quota = own_limit(&cpu_limit);
    return n_quota < n_granted ? (uint32_t)n_quota : n_granted;
}

uint64_t qn_cpu_ram_bytes(void)
{
    const long n_pages = sysconf(_SC_PHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    const uint64_t n_bytes =
        n_pages > 0 && page_bytes > 0 ? (uint64_t)n_pages * (uint64_t)page_bytes : 0;
    const uint64_t n_granted = own_limit(&memory_limit);
    return n_granted < n_bytes ? n_granted : n_bytes;
}
