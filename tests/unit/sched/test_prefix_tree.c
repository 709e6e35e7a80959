/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "sched/pages.h"
#include "support/unit.h"

#include <stdlib.h>
#include <string.h>

enum { N_PAGES = 8, N_BYTES = 1 << 16 };

static const uint64_t no_salt[2] = {0, 0};
static const qn_prefix_hint no_hint = {0};

typedef struct fixture {
    qn_pages pages;
    qn_arena arena;
    void *block;
    int32_t ids[N_PAGES * QN_PAGE_TOKENS];
} fixture;

static int set_up(void **state)
{
    fixture *const f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->block = aligned_alloc(64, N_BYTES);
    assert_non_null(f->block);
    memset(f->block, 0x5A, N_BYTES); /* what the memory held does not matter */
    qn_arena_init(&f->arena, f->block, N_BYTES);
    qn_pages_init(&f->pages, &f->arena, N_PAGES, 1);
    qn_pages_clear(&f->pages);
    for (uint32_t i = 0; i < N_PAGES * QN_PAGE_TOKENS; i++) {
        f->ids[i] = (int32_t)i;
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *const f = *state;
    qn_arena_deinit(&f->arena);
    free(f->block);
    free(f);
    return 0;
}

/* Publish the first pages of f->ids as one sequence; table receives them. */
static void publish(fixture *f, uint32_t *table, uint32_t n_pages, const uint64_t salt[2])
{
    for (uint32_t i = 0; i < n_pages; i++) {
        const uint32_t own = qn_pages_take(&f->pages);
        assert_int_not_equal(own, QN_NO_PAGE);
        const uint32_t parent = i > 0 ? table[i - 1] : QN_NO_PAGE;
        const int32_t *const ids = f->ids + (size_t)i * QN_PAGE_TOKENS;
        uint64_t hash = 0;
        qn_prefix_tree_hash(&hash, &f->pages.tree, parent, ids, 1, salt);
        table[i] = qn_pages_publish(&f->pages, own, parent, ids, salt, hash);
    }
}

static void release(fixture *f, const uint32_t *table, uint32_t n_pages)
{
    while (n_pages > 0) {
        qn_pages_release(&f->pages, table[--n_pages]);
    }
}

static uint32_t match(const fixture *f, uint32_t n_ids, const uint64_t salt[2])
{
    return qn_prefix_tree_match(&f->pages.tree, f->ids, n_ids, salt, no_hint).n_pages;
}

static void test_only_full_pages_match(void **state)
{
    fixture *const f = *state;
    uint32_t table[3];
    publish(f, table, 3, no_salt);
    assert_int_equal(match(f, 63, no_salt), 0);
    assert_int_equal(match(f, 64, no_salt), 1);
    assert_int_equal(match(f, 191, no_salt), 2);
    assert_int_equal(match(f, 512, no_salt), 3);
}

static void test_every_token_counts(void **state)
{
    fixture *const f = *state;
    uint32_t table[2];
    publish(f, table, 2, no_salt);
    for (uint32_t i = 0; i < 128; i++) {
        f->ids[i] ^= 1 << (i % 31);
        assert_int_equal(match(f, 128, no_salt), i / 64);
        f->ids[i] ^= 1 << (i % 31);
    }
    assert_int_equal(match(f, 128, no_salt), 2);
}

/* The second page of one text is not the second of another with another first page. */
static void test_a_page_depends_on_all_before_it(void **state)
{
    fixture *const f = *state;
    uint32_t table[2];
    publish(f, table, 2, no_salt);
    f->ids[0]++;
    uint32_t other[1];
    publish(f, other, 1, no_salt);
    assert_int_equal(match(f, 128, no_salt), 1);
}

/* Collisions do not matter: with hashes of all pages made equal, tokens still decide. */
static void test_equal_hashes_lie_apart(void **state)
{
    fixture *const f = *state;
    f->pages.tree.n_heads = 1;
    uint32_t table[4];
    publish(f, table, 4, no_salt);
    assert_int_equal(match(f, 256, no_salt), 4);
    f->ids[130]++;
    assert_int_equal(match(f, 256, no_salt), 2);
    release(f, table, 4);
    for (uint32_t i = 0; i < N_PAGES; i++) {
        assert_int_not_equal(qn_pages_take(&f->pages), QN_NO_PAGE);
    }
    assert_int_equal(match(f, 256, no_salt), 0);
}

static uint64_t hash_of(const fixture *f, uint32_t parent, const int32_t *ids,
                        const uint64_t salt[2])
{
    uint64_t hash = 0;
    qn_prefix_tree_hash(&hash, &f->pages.tree, parent, ids, 1, salt);
    return hash;
}

/* Nor do equal hashes: the page before, the salt and each token are compared. */
static void test_a_hash_proves_nothing(void **state)
{
    fixture *const f = *state;
    f->pages.tree.n_heads = 1;
    uint32_t table[2];
    publish(f, table, 2, no_salt);
    qn_prefix_node *const second = &f->pages.tree.nodes[table[1]];
    int32_t *const ids = f->ids + QN_PAGE_TOKENS;
    const uint64_t salt[2] = {0, 1};
    second->hash = hash_of(f, table[0], ids, salt);
    assert_int_equal(qn_prefix_tree_find(&f->pages.tree, table[0], ids, salt), QN_NO_PAGE);
    second->hash = hash_of(f, QN_NO_PAGE, ids, no_salt);
    assert_int_equal(qn_prefix_tree_find(&f->pages.tree, QN_NO_PAGE, ids, no_salt), QN_NO_PAGE);
    for (uint32_t i = 0; i < QN_PAGE_TOKENS; i++) {
        ids[i]++;
        second->hash = hash_of(f, table[0], ids, no_salt);
        assert_int_equal(qn_prefix_tree_find(&f->pages.tree, table[0], ids, no_salt), QN_NO_PAGE);
        ids[i]--;
    }
}

static void test_salts_lie_apart(void **state)
{
    fixture *const f = *state;
    const uint64_t salt[2] = {0, 1};
    const uint64_t swapped[2] = {1, 0};
    uint32_t table[2];
    publish(f, table, 2, salt);
    assert_int_equal(match(f, 128, salt), 2);
    assert_int_equal(match(f, 128, swapped), 0);
    assert_int_equal(match(f, 128, no_salt), 0);
}

static void test_equal_pages_are_exchanged(void **state)
{
    fixture *const f = *state;
    uint32_t table[2];
    uint32_t twin[2];
    publish(f, table, 2, no_salt);
    publish(f, twin, 2, no_salt);
    assert_memory_equal(table, twin, sizeof table);
    assert_int_equal(f->pages.n_free, N_PAGES - 2);
    assert_int_equal(f->pages.tree.nodes[table[0]].n_uses, 2);
    release(f, twin, 2);
    assert_int_equal(f->pages.tree.n_unused, 0);
    release(f, table, 2);
    assert_int_equal(f->pages.tree.n_unused, 2);
}

/* The leaf unused for longest goes first, and nothing in use ever. */
static void test_eviction_takes_the_oldest_leaf(void **state)
{
    fixture *const f = *state;
    uint32_t one[3];
    uint32_t two[3];
    publish(f, one, 3, no_salt);
    f->ids[64]++; /* the same first page, then another text */
    publish(f, two, 3, no_salt);
    assert_int_equal(one[0], two[0]);
    release(f, two, 3);
    release(f, one, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_not_equal(qn_pages_take(&f->pages), QN_NO_PAGE); /* free ones first */
    }
    assert_int_equal(match(f, 192, no_salt), 3);
    assert_int_equal(qn_pages_take(&f->pages), two[2]);
    assert_int_equal(match(f, 192, no_salt), 2);
    assert_int_equal(qn_pages_take(&f->pages), two[1]);
    f->ids[64]--;
    assert_int_equal(match(f, 192, no_salt), 3);
    assert_int_equal(qn_pages_take(&f->pages), one[2]);
    const qn_prefix_hint path = qn_prefix_tree_match(&f->pages.tree, f->ids, 192, no_salt, no_hint);
    assert_int_equal(path.n_pages, 2);
    qn_pages_use_path(&f->pages, path, one);
    assert_int_equal(qn_pages_take(&f->pages), QN_NO_PAGE);
    assert_int_equal(f->pages.n_evicted, 3);
    release(f, one, 2);
    assert_int_equal(qn_pages_take(&f->pages), one[1]);
    assert_int_equal(qn_pages_take(&f->pages), one[0]);
}

/* A hint is worth something only while its very page is there. */
static void test_old_hints_are_not_believed(void **state)
{
    fixture *const f = *state;
    uint32_t table[3];
    publish(f, table, 3, no_salt);
    const qn_prefix_hint hint = qn_prefix_tree_match(&f->pages.tree, f->ids, 128, no_salt, no_hint);
    assert_int_equal(hint.n_pages, 2);
    assert_int_equal(qn_prefix_tree_match(&f->pages.tree, f->ids, 192, no_salt, hint).n_pages, 3);
    release(f, table, 3);
    qn_pages_flush(&f->pages);
    assert_int_equal(qn_prefix_tree_match(&f->pages.tree, f->ids, 192, no_salt, hint).n_pages, 0);
    /* Other tokens in the same pages. */
    for (uint32_t i = 0; i < 192; i++) {
        f->ids[i] += 1000;
    }
    publish(f, table, 3, no_salt);
    for (uint32_t i = 0; i < 192; i++) {
        f->ids[i] -= 1000;
    }
    assert_int_equal(qn_prefix_tree_match(&f->pages.tree, f->ids, 192, no_salt, hint).n_pages, 0);
}

static void test_flush_keeps_what_is_in_use(void **state)
{
    fixture *const f = *state;
    uint32_t table[3];
    publish(f, table, 3, no_salt);
    const uint32_t own = qn_pages_take(&f->pages);
    qn_pages_release(&f->pages, table[2]);
    qn_pages_flush(&f->pages);
    assert_int_equal(match(f, 192, no_salt), 0);
    assert_int_equal(f->pages.n_used, 3);
    assert_int_equal(f->pages.n_free, N_PAGES - 3);
    release(f, table, 2);
    qn_pages_release(&f->pages, own);
    assert_int_equal(f->pages.n_free, N_PAGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_full_pages_match, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_token_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_page_depends_on_all_before_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_equal_hashes_lie_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_hash_proves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_salts_lie_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_equal_pages_are_exchanged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_eviction_takes_the_oldest_leaf, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_old_hints_are_not_believed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_flush_keeps_what_is_in_use, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
