/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file prefix_tree.h  Which pages of one group hold which tokens: a tree whose nodes are pages.
 *
 * A page is found by the page before it and its own tokens, all of which are compared, and its
 * salt; the hash only says where to look.  So a path from the root is equal token by token.
 *
 * Pages that no sequence uses stand in a list by the time since which that is so.  A sequence uses
 * whole paths and gives them back from their ends, so in this list pages come before those that
 * they follow, and its first is always a leaf.
 */
#ifndef QN_SCHED_PREFIX_TREE_H
#define QN_SCHED_PREFIX_TREE_H
#include "base/arena.h"
#include "base/page.h"

#include <stdbool.h>
#include <stdint.h>

enum { QN_NO_PAGE = UINT32_MAX >> 1 /**< No page, and before the first page of a prompt. */ };

/** A page, beside its tokens: all that is looked at often lies in one line of the CPU's cache. */
typedef struct qn_prefix_node {
    _Alignas(64) uint64_t born; /**< Number of its insertion; 0: not in the tree. */
    uint64_t salt[2];           /**< That of its path. */
    uint64_t hash;              /**< Of the path: salt and tokens. */
    uint32_t parent;            /**< The page before it, or QN_NO_PAGE. */
    uint32_t next_in_hash;      /**< Next page with the same place in the hash table. */
    uint32_t older, newer;      /**< Neighbours in the list of the unused. */
    uint32_t n_children;
    uint32_t n_uses; /**< Page tables that name it; kept by pages.c. */
} qn_prefix_node;

/** A tree; fields private to prefix_tree.c, but n_unused. */
typedef struct qn_prefix_tree {
    qn_prefix_node *nodes; /**< [n_pages] */
    int32_t *tokens;       /**< [n_pages][QN_PAGE_TOKENS] */
    uint32_t *heads;       /**< [n_heads] first page of each place in the hash table. */
    uint32_t n_heads;      /**< A power of 2. */
    uint32_t n_pages;
    uint32_t oldest, newest; /**< Ends of the list of the unused. */
    uint32_t n_unused;       /**< Its length. */
    uint64_t n_born;
    uint64_t seed;
} qn_prefix_tree;

/** A node as it was when it was found, for later. */
typedef struct qn_prefix_hint {
    uint64_t born;    /**< 0: none. */
    uint32_t page;    /**< The last of the path. */
    uint32_t n_pages; /**< Of the path. */
} qn_prefix_hint;

/** Lay out an empty tree over pages 0 .. n_pages - 1 in @p arena, which may be one that measures.
 */
void qn_prefix_tree_init(qn_prefix_tree *tree, qn_arena *arena, uint32_t n_pages, uint64_t seed);

/** Forget all; what the arena's memory held does not matter. */
void qn_prefix_tree_clear(qn_prefix_tree *tree);

/** Whether @p page is in the tree. */
bool qn_prefix_tree_has(const qn_prefix_tree *tree, uint32_t page);

/** The page behind @p parent (QN_NO_PAGE: the first) with these QN_PAGE_TOKENS tokens and this
 * salt; QN_NO_PAGE: there is none. */
uint32_t qn_prefix_tree_find(const qn_prefix_tree *tree, uint32_t parent, const int32_t *tokens,
                             const uint64_t salt[2]);

/**
 * Hashes of the pages behind @p parent that hold tokens [n_pages][QN_PAGE_TOKENS].  What inserting
 * them will look at is fetched from memory meanwhile.
 */
void qn_prefix_tree_hash(uint64_t *hashes, const qn_prefix_tree *tree, uint32_t parent,
                         const int32_t *tokens, uint32_t n_pages, const uint64_t salt[2]);

/**
 * Insert @p page, in use, behind @p parent, which is in the tree.
 *
 * @param hash  of qn_prefix_tree_hash()
 * Returns  @p page; or the equal page that is there already, and nothing changes
 */
uint32_t qn_prefix_tree_insert(qn_prefix_tree *tree, uint32_t page, uint32_t parent,
                               const int32_t *tokens, const uint64_t salt[2], uint64_t hash);

/** The last sequence that used @p page gave it back. */
void qn_prefix_tree_set_unused(qn_prefix_tree *tree, uint32_t page);

/** An unused page is used again. */
void qn_prefix_tree_set_used(qn_prefix_tree *tree, uint32_t page);

/** Take the leaf that is unused for longest out of the tree; QN_NO_PAGE: all are used. */
uint32_t qn_prefix_tree_evict(qn_prefix_tree *tree);

/**
 * The longest path of full pages that holds the first of @p ids.
 *
 * @param hint  what was found for the same ids and salt before; saves most of the way where the
 *              page is still there
 */
qn_prefix_hint qn_prefix_tree_match(const qn_prefix_tree *tree, const int32_t *ids, uint32_t n_ids,
                                    const uint64_t salt[2], qn_prefix_hint hint);
#endif
