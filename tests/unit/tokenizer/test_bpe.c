/* SPDX-License-Identifier: Apache-2.0 */
/* Merges against their definition: the lowest rank first, of these the leftmost. */
#include "base/rng.h"
#include "fixture.h"
#include "tokenizer/internal.h"

enum { WORD_BYTES_MAX = 400 };

/* As defined, pair by pair; returns how many ids are left. */
static size_t merge_plainly(int32_t ids[WORD_BYTES_MAX], const qn_tokenizer *t, qn_str word)
{
    size_t n = word.len;
    for (size_t i = 0; i < n; i++) {
        ids[i] = t->byte_ids[(uint8_t)word.ptr[i]];
    }
    while (true) {
        int64_t best = INT64_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const int64_t rank = qn_tokenizer_find_merge(t, ids[i], ids[i + 1]);
            if (rank >= 0 && rank < best) {
                best = rank;
                at = i;
            }
        }
        if (best == INT64_MAX) {
            return n;
        }
        ids[at] = t->merges[best].result;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

/* Letters of which few are different make long runs of one pair and merges of merges. */
static void check_words(const qn_tokenizer *t)
{
    static const char letters[] = "etaoinshr dlu=- \n";
    qn_bpe bpe = {0};
    size_t n_merged = 0;
    for (uint64_t seed = 0; seed < 600; seed++) {
        char bytes[WORD_BYTES_MAX];
        int32_t expected[WORD_BYTES_MAX];
        qn_ids ids = {0};
        qn_error err = {0};
        const size_t first = qn_rng_u64(seed, 1, 0) % (sizeof letters - 1);
        const size_t n_letters = 1 + qn_rng_u64(seed, 1, 1) % (sizeof letters - 1 - first);
        const qn_str word = {bytes, 1 + qn_rng_u64(seed, 1, 2) % WORD_BYTES_MAX};
        for (size_t i = 0; i < word.len; i++) {
            bytes[i] = letters[first + qn_rng_u64(seed, 0, i) % n_letters];
        }
        const size_t n = merge_plainly(expected, t, word);
        must(qn_bpe_encode(&bpe, t, word, &ids, &err), &err); /* words share one scratch */
        assert_int_equal(ids.n_ids, n);
        assert_memory_equal(ids.ids, expected, n * sizeof *expected);
        n_merged += word.len - n;
        qn_ids_deinit(&ids);
    }
    assert_true(n_merged > 10000);
    qn_bpe_deinit(&bpe);
}

static void test_merges_are_as_defined(void **state)
{
    (void)state;
    qn_tokenizer *nano = open_file(NANO);
    check_words(nano);
    qn_tokenizer_close(&nano);
}

/* A pair listed twice has its later rank, so that what it makes may merge before others like it. */
static void test_merges_of_falling_rank_are_as_defined(void **state)
{
    (void)state;
    qn_tokenizer *tokenizer = NULL;
    json_t *root = NULL;
    qn_error err = {0};
    must(qn_json_load(&root, NANO, 16 << 20, &err), &err);
    json_t *const merges = json_object_get(json_object_get(root, "model"), "merges");
    const size_t n = json_array_size(merges);
    for (size_t i = 0; i < n; i += 1 + i % 3) {
        assert_int_equal(json_array_append(merges, json_array_get(merges, i)), 0);
    }
    must(open_json(&tokenizer, root, &err), &err);
    check_words(tokenizer);
    qn_tokenizer_close(&tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_are_as_defined),
        cmocka_unit_test(test_merges_of_falling_rank_are_as_defined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
