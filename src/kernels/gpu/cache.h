/* SPDX-License-Identifier: Apache-2.0 */
/** @file cache.h  Rows of the paged cache, as kernels on it find and read them. */
#ifndef QN_KERNELS_GPU_CACHE_H
#define QN_KERNELS_GPU_CACHE_H
#include "kernels/gpu/lang.h"

/* base/page.h is not for this compiler. */
enum { QN_GPU_PAGE_TOKENS = 64 };

/** Where what pages keep of @p position is, among all positions of all pages. */
QN_DEV uint64_t qn_cache_place(const int32_t *pages, uint32_t position)
{
    return (uint64_t)(uint32_t)pages[position / QN_GPU_PAGE_TOKENS] * QN_GPU_PAGE_TOKENS +
           position % QN_GPU_PAGE_TOKENS;
}

/** Address of the row at @p position of the sequence whose page table is given. */
QN_DEV const uint8_t *qn_cache_row(const qn_gpu_cache *cache, const int32_t *pages,
                                   uint32_t position)
{
    return cache->base + qn_cache_place(pages, position) * cache->row_bytes;
}

QN_DEV const int32_t *qn_cache_pages(const qn_gpu_cache *cache, uint32_t seq)
{
    return cache->page_tables + (uint64_t)seq * cache->n_table_pages;
}

/** Positions of a row that count: from @p first up to its own; none for padding. */
QN_DEV uint32_t qn_row_positions(int32_t position, uint32_t first)
{
    const int64_t n = (int64_t)position + 1 - first;
    return position < 0 || n < 0 ? 0 : (uint32_t)n;
}
#endif
