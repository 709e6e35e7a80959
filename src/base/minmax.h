/* SPDX-License-Identifier: Apache-2.0 */
/** @file minmax.h  The smaller and the larger of two numbers; for kernels of a GPU as well. */
#ifndef QN_BASE_MINMAX_H
#define QN_BASE_MINMAX_H
#include <stdint.h>

static inline uint32_t qn_min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t qn_max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline uint64_t qn_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t qn_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}
#endif
