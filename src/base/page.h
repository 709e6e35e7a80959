/* SPDX-License-Identifier: Apache-2.0 */
/** @file page.h  What a page of cache is to those who count pages and to those who fill them. */
#ifndef QN_BASE_PAGE_H
#define QN_BASE_PAGE_H
#include "base/assert.h"

#include <stdint.h>

enum {
    QN_PAGE_TOKENS = 64,         /**< Positions of a page. */
    QN_PAGE_INDEX_BITS = 24,     /**< A group has at most 2^24 pages: a billion positions. */
    QN_PAGE_GROUPS_MAX = 1 << 7, /**< Attention groups. */
};

/**
 * A page's logical number: the attention group whose ranks hold it, and its index among the pages
 * of that group.  One group under tensor parallelism, one a rank where attention is data-parallel.
 * Not negative, so that kernels may take it for an int32_t.
 */
typedef uint32_t qn_page_id;

static inline qn_page_id qn_page_make(uint32_t group, uint32_t index)
{
    QN_ASSERT(group < QN_PAGE_GROUPS_MAX);
    QN_ASSERT(index < 1U << QN_PAGE_INDEX_BITS);
    return group << QN_PAGE_INDEX_BITS | index;
}

static inline uint32_t qn_page_group(qn_page_id id)
{
    return id >> QN_PAGE_INDEX_BITS;
}

static inline uint32_t qn_page_index(qn_page_id id)
{
    return id & ((1U << QN_PAGE_INDEX_BITS) - 1);
}

/** Pages that hold @p n_tokens positions. */
static inline uint32_t qn_pages_for(uint32_t n_tokens)
{
    return n_tokens / QN_PAGE_TOKENS + (n_tokens % QN_PAGE_TOKENS != 0);
}
#endif
