/* SPDX-License-Identifier: Apache-2.0 */
/* Text to ids: splits, added tokens, broken bytes, long words, threads. */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

static qn_tokenizer *g_nano;

static int set_up(void **state)
{
    (void)state;
    g_nano = open_file(NANO);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    qn_tokenizer_close(&g_nano);
    return 0;
}

/* The small tokenizer with "added_tokens" from JSON. */
static qn_tokenizer *open_added(const char *added)
{
    qn_tokenizer *tokenizer = NULL;
    qn_error err = {0};
    json_t *root = load_small();
    set_at(root, "added_tokens", added);
    must(open_json(&tokenizer, root, &err), &err);
    return tokenizer;
}

static void test_added_tokens_match_leftmost_and_longest(void **state)
{
    (void)state;
    qn_tokenizer *tokenizer = open_added("[{\"id\": 902, \"content\": \"Qab\"},"
                                         "{\"id\": 903, \"content\": \"QabQb\"},"
                                         "{\"id\": 904, \"content\": \"bQbQ\"}]");
    expect_pieces(tokenizer, "QabQbQ", QN_ADDED_MATCH, "QabQb|Q");
    expect_pieces(tokenizer, "QabbQbQ", QN_ADDED_MATCH, "Qab|bQbQ");
    expect_pieces(tokenizer, "QabQ", QN_ADDED_MATCH, "Qab|Q");
    expect_pieces(tokenizer, "Qa", QN_ADDED_MATCH, "Q|a");
    qn_tokenizer_close(&tokenizer);
}

/* Those marked "normalized" see only what the others left, however early they begin. */
static void test_normalized_added_tokens_match_after_the_others(void **state)
{
    (void)state;
    qn_tokenizer *tokenizer =
        open_added("[{\"id\": 902, \"content\": \"QbQ\", \"normalized\": true},"
                   "{\"id\": 903, \"content\": \"bQZ\", \"special\": true}]");
    expect_pieces(tokenizer, "QbQZQbQ", QN_ADDED_MATCH, "Q|bQZ|QbQ");
    assert_true(qn_tokenizer_is_special(tokenizer, 903));
    assert_false(qn_tokenizer_is_special(tokenizer, 902));
    qn_tokenizer_close(&tokenizer);
}

static void test_an_added_token_of_the_vocabulary_keeps_its_id(void **state)
{
    (void)state;
    qn_tokenizer *tokenizer = open_added("[{\"id\": 901, \"content\": \"straÃŁe\"}]");
    assert_int_equal(qn_tokenizer_size(tokenizer), 902);
    expect_pieces(tokenizer, "astraÃŁe", QN_ADDED_MATCH, "a|straÃŁe");
    qn_tokenizer_close(&tokenizer);
}

static void test_as_text_no_added_token_appears(void **state)
{
    (void)state;
    static const char text[] = "a<|user|>b</think>[gMASK]<sop>";
    qn_ids matched = encode(g_nano, qn_str_of(text), QN_ADDED_MATCH);
    qn_ids plain = encode(g_nano, qn_str_of(text), QN_ADDED_AS_TEXT);
    assert_int_equal(matched.n_ids, 6);
    assert_true(plain.n_ids > 6);
    for (size_t i = 0; i < plain.n_ids; i++) {
        assert_false(qn_tokenizer_is_added(g_nano, plain.ids[i]));
    }
    qn_ids_deinit(&matched);
    qn_ids_deinit(&plain);
}

/* Not even where a word of the vocabulary is an added token and words are taken whole. */
static void test_as_text_an_added_word_is_taken_apart(void **state)
{
    (void)state;
    qn_tokenizer *tokenizer = open_added("[{\"id\": 900, \"content\": \"Parisxyz\"}]");
    expect_pieces(tokenizer, "Parisxyz", QN_ADDED_MATCH, "Parisxyz");
    expect_pieces(tokenizer, "Parisxyz", QN_ADDED_AS_TEXT, "Paris|x|y|z");
    qn_tokenizer_close(&tokenizer);
}

/* The whole word is in the vocabulary, but merges lead elsewhere. */
static void test_ignore_merges_takes_a_known_word_whole(void **state)
{
    (void)state;
    qn_error err = {0};
    qn_tokenizer *tokenizer = open_file(SMALL);
    expect_pieces(tokenizer, "Parisxyz", QN_ADDED_MATCH, "Parisxyz");
    qn_tokenizer_close(&tokenizer);
    json_t *root = load_small();
    set_at(root, "model.ignore_merges", "false");
    must(open_json(&tokenizer, root, &err), &err);
    expect_pieces(tokenizer, "Parisxyz", QN_ADDED_MATCH, "Paris|x|y|z");
    qn_tokenizer_close(&tokenizer);
}

/* A string outside the byte-level alphabet is nobody's text, though its bytes look like a word. */
static void test_a_vocabulary_string_outside_the_alphabet_is_never_produced(void **state)
{
    (void)state;
    qn_error err = {0};
    qn_tokenizer *tokenizer = NULL;
    json_t *root = load_small();
    set_at(root, "model.vocab. ", "902");
    set_at(root, "model.vocab.龘龘", "903");
    must(open_json(&tokenizer, root, &err), &err);
    qn_ids ids = encode(tokenizer, qn_str_of("龘龘  龘"), QN_ADDED_MATCH);
    for (size_t i = 0; i < ids.n_ids; i++) {
        assert_true(ids.ids[i] < 902);
    }
    assert_true(qn_str_equal(qn_tokenizer_bytes(tokenizer, 903), qn_str_of("龘龘")));
    qn_ids_deinit(&ids);
    qn_tokenizer_close(&tokenizer);
}

/* A pattern whose matches leave gaps, or are empty, still covers the text once. */
static void test_text_between_matches_is_kept(void **state)
{
    (void)state;
    static const char *const patterns[] = {"\"b\"", "\"b*\"", "\"(?=b)\"", "\"(?:)\""};
    static const char *const expected[] = {"a|b|a|b", "a|b|a|b", "a|b|a|b", "a|b|a|b"};
    for (size_t i = 0; i < 4; i++) {
        qn_tokenizer *tokenizer = NULL;
        qn_error err = {0};
        json_t *root = load_small();
        set_at(root, "pre_tokenizer.pretokenizers.0.pattern.Regex", patterns[i]);
        must(open_json(&tokenizer, root, &err), &err);
        expect_pieces(tokenizer, "abab", QN_ADDED_MATCH, expected[i]);
        expect_pieces(tokenizer, "", QN_ADDED_MATCH, "");
        qn_tokenizer_close(&tokenizer);
    }
}

/* Merge the two bytes on either side of a border: where they do, nothing was split there. */
static bool is_one_word(const char *text, const char *merge_left, const char *merge_right)
{
    char pair[64];
    char joint[64];
    qn_error err = {0};
    qn_tokenizer *tokenizer = NULL;
    json_t *root = load_small();
    (void)snprintf(joint, sizeof joint, "model.vocab.%s%s", merge_left, merge_right);
    (void)snprintf(pair, sizeof pair, "\"%s %s\"", merge_left, merge_right);
    set_at(root, joint, "902");
    set_at(root, "model.merges.0", pair); /* before all others */
    must(open_json(&tokenizer, root, &err), &err);
    qn_ids ids = encode(tokenizer, qn_str_of(text), QN_ADDED_MATCH);
    bool is_one = false;
    for (size_t i = 0; i < ids.n_ids; i++) {
        is_one = is_one || ids.ids[i] == 902;
    }
    qn_ids_deinit(&ids);
    qn_tokenizer_close(&tokenizer);
    return is_one;
}

/* Letters and numbers of Unicode 15 to 16, and U+180E, which is no space: as the reference has. */
static void test_classes_are_those_of_the_reference(void **state)
{
    (void)state;
    /* U+31350 is f0 b1 8d 90, a letter since Unicode 15: one word with the letter before it. */
    assert_true(is_one_word("Q\xf0\xb1\x8d\x90", "Q", "\xc3\xb0"));
    assert_false(is_one_word("Q\xf0\x9f\x98\x80", "Q", "\xc3\xb0"));
    /* U+10D40 is f0 90 b5 80, a number since Unicode 16: never in one word with a letter. */
    assert_false(is_one_word("\xf0\x90\xb5\x80Q", "\xc4\xa2", "Q"));
    assert_true(is_one_word("\xf0\x90\xb5\x80"
                            "7",
                            "\xc4\xa2", "7"));
    /* U+180E is e1 a0 8e: with punctuation, not with spaces. */
    assert_true(is_one_word("\xe1\xa0\x8e!", "\xc4\xb0", "!"));
    /* 's with U+017F, c5 bf: a contraction in any case. */
    assert_false(is_one_word("'\xc5\xbfQ", "\xc2\xbf", "Q"));
    assert_true(is_one_word("x\xc5\xbfQ", "\xc2\xbf", "Q"));
}

static void test_broken_bytes_become_replacement_characters(void **state)
{
    (void)state;
    qn_ids broken = encode(g_nano, qn_str_of("a\x80\xe4\xb8z\xff"), QN_ADDED_MATCH);
    qn_ids valid =
        encode(g_nano, qn_str_of("a\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd"), QN_ADDED_MATCH);
    assert_int_equal(broken.n_ids, valid.n_ids);
    assert_memory_equal(broken.ids, valid.ids, 4 * valid.n_ids);
    qn_ids_deinit(&broken);
    qn_ids_deinit(&valid);
}

static void test_a_text_beyond_the_maximum_is_refused(void **state)
{
    (void)state;
    qn_ids ids = {0};
    qn_error err = {0};
    const qn_str text = {"", ((size_t)1 << 30) + 1}; /* not looked at */
    assert_int_equal(qn_tokenizer_encode(g_nano, text, QN_ADDED_MATCH, &ids, &err), QN_E_INVAL);
    assert_string_equal(err.text, "text: 1073741825 bytes, expected at most 1073741824");
    qn_ids_deinit(&ids);
}

/* A pattern that backtracks without end stops at PCRE2's limit instead. */
static void test_a_pattern_that_explodes_is_an_error(void **state)
{
    (void)state;
    qn_ids ids = {0};
    qn_error err = {0};
    qn_tokenizer *tokenizer = NULL;
    json_t *root = load_small();
    set_at(root, "pre_tokenizer.pretokenizers.0.pattern.Regex", "\"(?:(?:a|b|ab)+)+[!?]\"");
    must(open_json(&tokenizer, root, &err), &err);
    assert_int_equal(qn_tokenizer_encode(tokenizer,
                                         qn_str_of("abababababababababababababababababab"),
                                         QN_ADDED_MATCH, &ids, &err),
                     QN_E_FORMAT);
    assert_non_null(strstr(err.text, "split pattern: match limit exceeded"));
    qn_ids_deinit(&ids);
    qn_tokenizer_close(&tokenizer);
}

/* Nested groups need stack for each letter: more than compiled patterns have. */
static void test_a_deep_match_goes_on_without_the_compiled_pattern(void **state)
{
    (void)state;
    enum { N = 100000 };
    qn_error err = {0};
    qn_tokenizer *tokenizer = NULL;
    json_t *root = load_small();
    set_at(root, "pre_tokenizer.pretokenizers.0.pattern.Regex", "\"(?:a|b)+\"");
    must(open_json(&tokenizer, root, &err), &err);
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, 'a', N);
    qn_ids ids = encode(tokenizer, (qn_str){text, N}, QN_ADDED_MATCH);
    size_t n = 0;
    for (size_t i = 0; i < ids.n_ids; i++) {
        n += qn_tokenizer_bytes(tokenizer, ids.ids[i]).len;
    }
    assert_int_equal(n, N);
    qn_ids_deinit(&ids);
    free(text);
    qn_tokenizer_close(&tokenizer);
}

static double seconds_of(const char *pattern, size_t n)
{
    double best = 1e9;
    const size_t n_pattern = strlen(pattern);
    char *text = malloc(n);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) {
        text[i] = pattern[i % n_pattern];
    }
    for (int turn = 0; turn < 4; turn++) {
        struct timespec a;
        struct timespec b;
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        qn_ids ids = encode(g_nano, (qn_str){text, n}, QN_ADDED_MATCH);
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        qn_ids_deinit(&ids);
        const double s = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        best = s < best ? s : best;
    }
    free(text);
    return best;
}

/* 16 times the text: 16 times the time where it is linear, 256 where it is quadratic. */
static void test_time_grows_with_the_text_not_with_its_square(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "a", "thequickbrownfox", " ", "\n", "<", "<|", "7", "!", "\xe6\x9d\xb1", "\x80", " a",
    };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        const double once = seconds_of(patterns[i], 20000);
        const double more = seconds_of(patterns[i], 320000);
        if (more > 64 * once + 0.05) { /* far from both, as a busy machine measures badly */
            fail_msg("\"%s\": %.1f ms, then %.1f ms for 16 times as much", patterns[i], once * 1e3,
                     more * 1e3);
        }
    }
}

enum { N_THREADS = 4, N_TURNS = 200 };

static void *encode_often(void *context)
{
    const qn_ids *expected = context;
    size_t n_wrong = 0;
    for (int i = 0; i < N_TURNS; i++) {
        qn_ids ids = {0};
        qn_error err = {0};
        const qn_status status =
            qn_tokenizer_encode(g_nano, qn_str_of("It's <|user|> a 東京 \n\n tower of 12345!"),
                                QN_ADDED_MATCH, &ids, &err);
        n_wrong += status != QN_OK || ids.n_ids != expected->n_ids ||
                   memcmp(ids.ids, expected->ids, 4 * ids.n_ids) != 0;
        qn_ids_deinit(&ids);
    }
    return n_wrong == 0 ? NULL : context;
}

static void test_threads_share_one_tokenizer(void **state)
{
    (void)state;
    pthread_t threads[N_THREADS];
    qn_ids expected =
        encode(g_nano, qn_str_of("It's <|user|> a 東京 \n\n tower of 12345!"), QN_ADDED_MATCH);
    for (size_t i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &expected), 0);
    }
    for (size_t i = 0; i < N_THREADS; i++) {
        void *wrong = NULL;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    qn_ids_deinit(&expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_added_tokens_match_leftmost_and_longest),
        cmocka_unit_test(test_normalized_added_tokens_match_after_the_others),
        cmocka_unit_test(test_an_added_token_of_the_vocabulary_keeps_its_id),
        cmocka_unit_test(test_as_text_no_added_token_appears),
        cmocka_unit_test(test_as_text_an_added_word_is_taken_apart),
        cmocka_unit_test(test_ignore_merges_takes_a_known_word_whole),
        cmocka_unit_test(test_a_vocabulary_string_outside_the_alphabet_is_never_produced),
        cmocka_unit_test(test_text_between_matches_is_kept),
        cmocka_unit_test(test_classes_are_those_of_the_reference),
        cmocka_unit_test(test_broken_bytes_become_replacement_characters),
        cmocka_unit_test(test_a_text_beyond_the_maximum_is_refused),
        cmocka_unit_test(test_a_pattern_that_explodes_is_an_error),
        cmocka_unit_test(test_a_deep_match_goes_on_without_the_compiled_pattern),
        cmocka_unit_test(test_time_grows_with_the_text_not_with_its_square),
        cmocka_unit_test(test_threads_share_one_tokenizer),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
