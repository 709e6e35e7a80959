/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/pages.h"

#include "base/assert.h"

void qn_pages_init(qn_pages *pages, qn_arena *arena, uint32_t n_pages, uint64_t seed)
{
    *pages = (qn_pages){.n_pages = n_pages};
    qn_prefix_tree_init(&pages->tree, arena, n_pages, seed);
    pages->free = qn_arena_alloc(arena, n_pages * sizeof *pages->free, 64);
}

void qn_pages_clear(qn_pages *pages)
{
    qn_prefix_tree_clear(&pages->tree);
    pages->n_used = 0;
    pages->n_free = pages->n_pages;
    /* The first is on top: memory is touched from its beginning on. */
    for (uint32_t page = 0; page < pages->n_pages; page++) {
        pages->free[pages->n_pages - 1 - page] = page;
        pages->tree.nodes[page].n_uses = 0;
    }
}

uint32_t qn_pages_available(const qn_pages *pages)
{
    QN_ASSERT(pages->n_free + pages->n_used + pages->tree.n_unused == pages->n_pages);
    return pages->n_free + pages->tree.n_unused;
}

uint32_t qn_pages_take(qn_pages *pages)
{
    uint32_t page = QN_NO_PAGE;
    if (pages->n_free > 0) {
        page = pages->free[--pages->n_free];
    } else {
        page = qn_prefix_tree_evict(&pages->tree);
        if (page == QN_NO_PAGE) {
            return QN_NO_PAGE;
        }
        pages->n_evicted++;
    }
    QN_ASSERT(pages->tree.nodes[page].n_uses == 0);
    QN_ASSERT(!qn_prefix_tree_has(&pages->tree, page));
    pages->tree.nodes[page].n_uses = 1;
    pages->n_used++;
    return page;
}

void qn_pages_use(qn_pages *pages, uint32_t page)
{
    QN_ASSERT(qn_prefix_tree_has(&pages->tree, page));
    if (pages->tree.nodes[page].n_uses++ == 0) {
        qn_prefix_tree_set_used(&pages->tree, page);
        pages->n_used++;
    }
}

void qn_pages_release(qn_pages *pages, uint32_t page)
{
    QN_ASSERT(page < pages->n_pages);
    QN_ASSERT(pages->tree.nodes[page].n_uses > 0);
    if (--pages->tree.nodes[page].n_uses > 0) {
        return;
    }
    pages->n_used--;
    if (qn_prefix_tree_has(&pages->tree, page)) {
        qn_prefix_tree_set_unused(&pages->tree, page);
    } else {
        pages->free[pages->n_free++] = page;
    }
}

void qn_pages_release_path(qn_pages *pages, const uint32_t *table, uint32_t n_pages)
{
    enum { AHEAD = 8 };
    for (uint32_t i = n_pages; i > 0; i--) {
        if (i > AHEAD) {
            __builtin_prefetch(&pages->tree.nodes[table[i - 1 - AHEAD]], 1);
        }
        qn_pages_release(pages, table[i - 1]);
    }
}

uint32_t qn_pages_publish(qn_pages *pages, uint32_t page, uint32_t parent, const int32_t *tokens,
                          const uint64_t salt[2], uint64_t hash)
{
    QN_ASSERT(pages->tree.nodes[page].n_uses == 1);
    const uint32_t equal = qn_prefix_tree_insert(&pages->tree, page, parent, tokens, salt, hash);
    if (equal == page) {
        return page;
    }
    qn_pages_use(pages, equal);
    qn_pages_release(pages, page);
    return equal;
}

uint32_t qn_pages_count_unused(const qn_pages *pages, qn_prefix_hint path)
{
    uint32_t n_unused = 0;
    uint32_t page = path.page;
    while (n_unused < path.n_pages && pages->tree.nodes[page].n_uses == 0) {
        n_unused++;
        page = pages->tree.nodes[page].parent;
    }
    return n_unused;
}

void qn_pages_use_path(qn_pages *pages, qn_prefix_hint path, uint32_t *table)
{
    uint32_t page = path.page;
    for (uint32_t i = path.n_pages; i > 0; i--) {
        qn_pages_use(pages, page);
        table[i - 1] = page;
        page = pages->tree.nodes[page].parent;
    }
    QN_ASSERT(page == QN_NO_PAGE || path.n_pages == 0);
}

void qn_pages_flush(qn_pages *pages)
{
    for (uint32_t page = pages->tree.oldest; page != QN_NO_PAGE;
         page = pages->tree.nodes[page].newer) {
        pages->free[pages->n_free++] = page;
    }
    qn_prefix_tree_clear(&pages->tree);
    QN_ASSERT(qn_pages_available(pages) == pages->n_free);
}
