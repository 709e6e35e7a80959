/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pages.h  The pages of one group: each is free, or used by sequences, or unused but in the
 * prefix tree.
 */
#ifndef QN_SCHED_PAGES_H
#define QN_SCHED_PAGES_H
#include "sched/prefix_tree.h"

/** The pages of a group; fields private to pages.c, but for reading. */
typedef struct qn_pages {
    qn_prefix_tree tree;
    uint32_t *free; /**< [n_pages] a stack of the free ones. */
    uint32_t n_pages;
    uint32_t n_free;
    uint32_t n_used; /**< Pages with uses; n_free + n_used + tree.n_unused is n_pages. */
    uint64_t n_evicted;
} qn_pages;

/** Lay out, in @p arena, which may be one that measures. */
void qn_pages_init(qn_pages *pages, qn_arena *arena, uint32_t n_pages, uint64_t seed);

/** All are free; what the arena's memory held does not matter. */
void qn_pages_clear(qn_pages *pages);

/** Pages that can be taken: free ones and those of the tree that no sequence uses. */
uint32_t qn_pages_available(const qn_pages *pages);

/** A page with one use: a free one, else one of the tree; QN_NO_PAGE: all are used. */
uint32_t qn_pages_take(qn_pages *pages);

/** One more use of a page of the tree. */
void qn_pages_use(qn_pages *pages, uint32_t page);

/** One use less.  Of a path the last page goes first (see prefix_tree.h). */
void qn_pages_release(qn_pages *pages, uint32_t page);

/** One use less of each page of a table, the last one first. */
void qn_pages_release_path(qn_pages *pages, const uint32_t *table, uint32_t n_pages);

/**
 * Publish @p page, which one sequence uses, behind @p parent.
 *
 * @param hash  of qn_prefix_tree_hash()
 * Returns  @p page; or an equal page of the tree, which then has its use, and @p page is free
 */
uint32_t qn_pages_publish(qn_pages *pages, uint32_t page, uint32_t parent, const int32_t *tokens,
                          const uint64_t salt[2], uint64_t hash);

/** Of a path, the pages at its end that no sequence uses. */
uint32_t qn_pages_count_unused(const qn_pages *pages, qn_prefix_hint path);

/** Use every page of a path, and write it to @p table [path.n_pages]. */
void qn_pages_use_path(qn_pages *pages, qn_prefix_hint path, uint32_t *table);

/** Empty the tree; its unused pages are free. */
void qn_pages_flush(qn_pages *pages);
#endif
