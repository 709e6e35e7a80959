/* SPDX-License-Identifier: Apache-2.0 */
#define XXH_INLINE_ALL
#include "sched/prefix_tree.h"

#include "base/assert.h"

#include <string.h>
#include <xxhash.h>

/* Tokens of a page. */
static const size_t page_bytes = QN_PAGE_TOKENS * sizeof(int32_t);

static int32_t *tokens_of(const qn_prefix_tree *tree, uint32_t page)
{
    return tree->tokens + (size_t)page * QN_PAGE_TOKENS;
}

void qn_prefix_tree_init(qn_prefix_tree *tree, qn_arena *arena, uint32_t n_pages, uint64_t seed)
{
    QN_ASSERT(n_pages > 0 && n_pages <= 1U << QN_PAGE_INDEX_BITS);
    *tree = (qn_prefix_tree){.n_pages = n_pages, .n_heads = 1, .seed = seed};
    while (tree->n_heads < 2 * n_pages) {
        tree->n_heads *= 2;
    }
    tree->nodes = qn_arena_alloc(arena, n_pages * sizeof *tree->nodes, 64);
    tree->tokens = qn_arena_alloc(arena, n_pages * page_bytes, 64);
    tree->heads = qn_arena_alloc(arena, tree->n_heads * sizeof *tree->heads, 64);
}

void qn_prefix_tree_clear(qn_prefix_tree *tree)
{
    for (uint32_t page = 0; page < tree->n_pages; page++) {
        tree->nodes[page].born = 0;
    }
    for (uint32_t i = 0; i < tree->n_heads; i++) {
        tree->heads[i] = QN_NO_PAGE;
    }
    tree->oldest = QN_NO_PAGE;
    tree->newest = QN_NO_PAGE;
    tree->n_unused = 0;
}

bool qn_prefix_tree_has(const qn_prefix_tree *tree, uint32_t page)
{
    QN_ASSERT(page < tree->n_pages);
    return tree->nodes[page].born != 0;
}

static uint32_t *head_of(const qn_prefix_tree *tree, uint64_t hash)
{
    return &tree->heads[hash & (tree->n_heads - 1)];
}

void qn_prefix_tree_hash(uint64_t *hashes, const qn_prefix_tree *tree, uint32_t parent,
                         const int32_t *tokens, uint32_t n_pages, const uint64_t salt[2])
{
    uint64_t hash = parent != QN_NO_PAGE ? tree->nodes[parent].hash
                                         : XXH3_64bits_withSeed(salt, 2 * sizeof *salt, tree->seed);
    for (uint32_t i = 0; i < n_pages; i++) {
        hash = XXH3_64bits_withSeed(tokens + (size_t)i * QN_PAGE_TOKENS, page_bytes, hash);
        hashes[i] = hash;
        __builtin_prefetch(head_of(tree, hash), 1);
    }
}

static uint32_t find_hashed(const qn_prefix_tree *tree, uint64_t hash, uint32_t parent,
                            const int32_t *tokens, const uint64_t salt[2])
{
    uint32_t page = *head_of(tree, hash);
    while (page != QN_NO_PAGE) {
        const qn_prefix_node *const node = &tree->nodes[page];
        if (node->hash == hash && node->parent == parent && node->salt[0] == salt[0] &&
            node->salt[1] == salt[1] && memcmp(tokens_of(tree, page), tokens, page_bytes) == 0) {
            break;
        }
        page = node->next_in_hash;
    }
    return page;
}

uint32_t qn_prefix_tree_find(const qn_prefix_tree *tree, uint32_t parent, const int32_t *tokens,
                             const uint64_t salt[2])
{
    uint64_t hash = 0;
    qn_prefix_tree_hash(&hash, tree, parent, tokens, 1, salt);
    return find_hashed(tree, hash, parent, tokens, salt);
}

uint32_t qn_prefix_tree_insert(qn_prefix_tree *tree, uint32_t page, uint32_t parent,
                               const int32_t *tokens, const uint64_t salt[2], uint64_t hash)
{
    QN_ASSERT(!qn_prefix_tree_has(tree, page));
    const uint32_t equal = find_hashed(tree, hash, parent, tokens, salt);
    if (equal != QN_NO_PAGE) {
        return equal;
    }
    if (parent != QN_NO_PAGE) {
        QN_ASSERT(qn_prefix_tree_has(tree, parent));
        tree->nodes[parent].n_children++;
    }
    uint32_t *const head = head_of(tree, hash);
    tree->nodes[page] = (qn_prefix_node){
        .born = ++tree->n_born,
        .salt = {salt[0], salt[1]},
        .n_uses = tree->nodes[page].n_uses,
        .parent = parent,
        .next_in_hash = *head,
        .older = QN_NO_PAGE,
        .newer = QN_NO_PAGE,
        .hash = hash,
    };
    *head = page;
    memcpy(tokens_of(tree, page), tokens, page_bytes);
    return page;
}

void qn_prefix_tree_set_unused(qn_prefix_tree *tree, uint32_t page)
{
    QN_ASSERT(qn_prefix_tree_has(tree, page));
    qn_prefix_node *const node = &tree->nodes[page];
    node->older = tree->newest;
    node->newer = QN_NO_PAGE;
    if (tree->newest != QN_NO_PAGE) {
        tree->nodes[tree->newest].newer = page;
    } else {
        tree->oldest = page;
    }
    tree->newest = page;
    tree->n_unused++;
}

void qn_prefix_tree_set_used(qn_prefix_tree *tree, uint32_t page)
{
    QN_ASSERT(qn_prefix_tree_has(tree, page));
    QN_ASSERT(tree->n_unused > 0);
    const qn_prefix_node *const node = &tree->nodes[page];
    if (node->older != QN_NO_PAGE) {
        tree->nodes[node->older].newer = node->newer;
    } else {
        tree->oldest = node->newer;
    }
    if (node->newer != QN_NO_PAGE) {
        tree->nodes[node->newer].older = node->older;
    } else {
        tree->newest = node->older;
    }
    tree->n_unused--;
}

uint32_t qn_prefix_tree_evict(qn_prefix_tree *tree)
{
    const uint32_t page = tree->oldest;
    if (page == QN_NO_PAGE) {
        return QN_NO_PAGE;
    }
    qn_prefix_node *const node = &tree->nodes[page];
    QN_ASSERT(node->n_children == 0);
    qn_prefix_tree_set_used(tree, page);
    if (tree->oldest != QN_NO_PAGE) { /* what the next one will touch */
        const qn_prefix_node *const next = &tree->nodes[tree->oldest];
        __builtin_prefetch(head_of(tree, next->hash), 1);
        if (next->newer != QN_NO_PAGE) {
            __builtin_prefetch(&tree->nodes[next->newer], 1);
        }
        if (next->parent != QN_NO_PAGE) {
            __builtin_prefetch(&tree->nodes[next->parent], 1);
        }
    }
    uint32_t *link = head_of(tree, node->hash);
    while (*link != page) {
        link = &tree->nodes[*link].next_in_hash;
    }
    *link = node->next_in_hash;
    if (node->parent != QN_NO_PAGE) {
        QN_ASSERT(tree->nodes[node->parent].n_children > 0);
        tree->nodes[node->parent].n_children--;
    }
    node->born = 0;
    return page;
}

qn_prefix_hint qn_prefix_tree_match(const qn_prefix_tree *tree, const int32_t *ids, uint32_t n_ids,
                                    const uint64_t salt[2], qn_prefix_hint hint)
{
    /* While its page is there, the whole path is: none goes before those behind it. */
    if (hint.born == 0 || tree->nodes[hint.page].born != hint.born) {
        hint = (qn_prefix_hint){.page = QN_NO_PAGE};
    }
    QN_ASSERT((uint64_t)hint.n_pages * QN_PAGE_TOKENS <= n_ids);
    while ((uint64_t)(hint.n_pages + 1) * QN_PAGE_TOKENS <= n_ids) {
        const int32_t *const tokens = ids + (size_t)hint.n_pages * QN_PAGE_TOKENS;
        const uint32_t page = qn_prefix_tree_find(tree, hint.page, tokens, salt);
        if (page == QN_NO_PAGE) {
            break;
        }
        hint = (qn_prefix_hint){tree->nodes[page].born, page, hint.n_pages + 1};
    }
    return hint;
}
